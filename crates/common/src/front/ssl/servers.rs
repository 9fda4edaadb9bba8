//! What accepts the TLS connections of all servers: those with the same directives share it.

use std::collections::HashMap;
use std::rc::Rc;

use ::conf::{Error, Loader, Result, Set, Span};
use engine::log::Log;

use super::{ServerTls, SslConf};
use crate::Proto;
use crate::ocsp::Names;

/// What accepts the connections of the servers so far.
#[derive(Default)]
pub struct Servers {
    made: HashMap<Key, Option<Rc<ServerTls>>>,
    /// Those whose certificates are watched, each once.
    pub watched: Watched,
}

/// What accepts connections with certificates that are watched (`ssl_certificate_refresh`).
#[derive(Default)]
pub struct Watched(Vec<Rc<ServerTls>>);

impl Watched {
    /// In how many milliseconds to look at the next one; `None`: none is watched.
    pub fn looks_in_ms(&self) -> Option<u64> {
        self.0.iter().filter_map(|tls| tls.looks_in_ms()).min()
    }

    /// Looks at those whose time has come; whether one has changed.
    pub fn look(&self, log: &Log) -> bool {
        // Each of them, whatever the others say.
        self.0.iter().filter(|tls| tls.look(log)).count() > 0
    }
}

/// What a server's TLS depends on: its directives, the protocols that are offered, and who looks up names of responders.
type Key = (*const (), Vec<Vec<u8>>, *const upstream::Resolver, u64);

impl Servers {
    /// What accepts the connections of a server, if it has a certificate. `set` is its resolved configuration; `place` tells
    /// where a directive stands that it has, for messages.
    pub fn of<P: Proto>(
        &mut self,
        set: &Set,
        names: &Names,
        alpn: &[&[u8]],
        place: &dyn Fn(&str) -> Option<Span>,
        loader: &mut Loader<'_>,
    ) -> Result<Option<Rc<ServerTls>>> {
        let conf = set.get::<SslConf<P>>();
        let resolver = names.resolver.as_ref().map_or(std::ptr::null(), Rc::as_ptr);
        let offered = alpn.iter().map(|name| name.to_vec()).collect();
        let key = (std::ptr::from_ref(conf).cast(), offered, resolver, names.timeout_ms);
        if let Some(tls) = self.made.get(&key) {
            return Ok(tls.clone());
        }
        let tls = super::server(conf, names, alpn, loader).map_err(|error| at_directive(error, place))?.map(Rc::new);
        self.watched.0.extend(tls.iter().filter(|tls| tls.looks_in_ms().is_some()).cloned());
        self.made.insert(key, tls.clone());
        Ok(tls)
    }
}

/// An error of TLS at the directive that its message is about.
fn at_directive(error: Error, at: &dyn Fn(&str) -> Option<Span>) -> Error {
    let place = ERRORS.iter().filter(|(words, _)| error.message.contains(words)).find_map(|(_, name)| at(name));
    error.or_at(place)
}

/// Words of messages, and the directives that they are about.
const ERRORS: &[(&str, &str)] = &[
    ("ssl_ocsp_responder", "ssl_ocsp_responder"),
    ("ssl_ocsp", "ssl_ocsp"),
    ("ssl_verify_client", "ssl_verify_client"),
    ("SSL_CONF_cmd", "ssl_conf_command"),
    ("cipher", "ssl_ciphers"),
    ("curves", "ssl_ecdh_curve"),
    ("", "ssl_certificate"),
    ("", "ssl_reject_handshake"),
];
