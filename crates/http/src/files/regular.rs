//! Files that answer requests: what else may stand at their path, and what is said then.

use engine::log::Errno;
use wire::h1::KnownHeader;

use super::open_file::{Files, Found, Kind, OpenError};
use crate::fault::Fault;
use crate::phases::Flow;
use crate::request::Request;

impl Files {
    /// Opens the file at `path` for a request. An error is the request's answer: a folder is redirected to its name with
    /// a slash, and what can't be opened is logged.
    pub fn open_regular(&self, r: &mut Request, path: &[u8]) -> Result<Found, Flow<'static>> {
        let found = self.open(r, path).map_err(|error| refuse(r, path, &error))?;
        match found.kind {
            Kind::File => Ok(found),
            Kind::Directory => Err(add_slash(r)),
            Kind::Other => Err(Fault::NotAFile.log_with(r, &buf::text::encode(path)).into()),
        }
    }
}

fn refuse(r: &mut Request, path: &[u8], error: &OpenError) -> Flow<'static> {
    let fault = error.fault();
    if fault != Fault::MissingFile || r.location.core.log_not_found {
        let path = buf::text::encode(path);
        fault.log_with(r, &format_args!("{} \"{path}\" failed{}", error.call, Errno(&error.error)));
    }
    fault.into()
}

/// A folder's name without its slash: the client is sent to the name with it.
fn add_slash(r: &mut Request) -> Flow<'static> {
    let mut target = Vec::with_capacity(r.uri.len() + 1);
    wire::uri::escape(wire::uri::Escape::Uri, &r.uri, &mut target);
    target.push(b'/');
    if !r.args.is_empty() {
        target.push(b'?');
        target.extend_from_slice(&r.args);
    }
    r.response.headers.set_fixed(KnownHeader::Location, target);
    Flow::Status(301)
}
