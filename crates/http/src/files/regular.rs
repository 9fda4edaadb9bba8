//! Files that answer requests: what else may stand at their path, and what is said then.

use std::rc::Rc;

use engine::log::Errno;
use wire::h1::{KnownHeader, Method};

use super::open_file::{Files, Found, Kind, OpenError, etag};
use crate::fault::Fault;
use crate::phases::Flow;
use crate::request::Request;

/// Whether a request is for the contents of a file, as handlers for files of some kind serve them.
pub fn wants_file(r: &Request) -> bool {
    r.uri.last() != Some(&b'/') && matches!(r.method, Method::Get | Method::Head)
}

/// Sets the length of a response that is made of a file, and its tag.
pub fn set_length(r: &mut Request, modified: i64, length: u64) {
    r.response.content_length = Some(length);
    if let Some(tag) = r.response.headers.fixed_mut(KnownHeader::ETag) {
        *tag = etag(modified, length);
    }
}

impl Files {
    /// Opens the file of a request's URI, and tells its path. Errors are those of [`Files::open_regular`].
    pub fn open_of_uri(&self, r: &mut Request) -> Result<(Vec<u8>, Rc<Found>), Flow<'static>> {
        let path = r.path_of_uri()?;
        let found = self.open_regular(r, &path)?;
        Ok((path, found))
    }

    /// Opens the file at `path` for a request. An error is the request's answer: a folder is redirected to its name with
    /// a slash, and what can't be opened is logged.
    pub fn open_regular(&self, r: &mut Request, path: &[u8]) -> Result<Rc<Found>, Flow<'static>> {
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
