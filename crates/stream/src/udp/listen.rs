//! What `listen` says of datagrams beyond what it says of connections.

use common::front::listen::Parameters;
use conf::values::invalid_parameter;
use conf::{Directive, Loader, Result, Word};

/// Its parameters.
#[derive(Clone, Debug, Default)]
pub struct ListenParameters {
    /// Each datagram begins with a header of the PROXY protocol, not only the first one of a session.
    pub headers: bool,
}

impl Parameters for ListenParameters {
    fn parameter(&mut self, _: &mut Loader<'_>, _: &Directive, word: &Word) -> Result<bool> {
        // The old name of `default_server` is known to HTTP alone.
        if *word == "default" {
            return Err(invalid_parameter(word));
        }
        let each = *word == "proxy_protocol=each";
        self.headers |= each;
        Ok(each)
    }

    fn join(&mut self, other: &ListenParameters) {
        self.headers |= other.headers;
    }
}
