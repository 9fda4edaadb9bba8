//! Files that were compressed before: `name.gz` and the like answer for `name`, to clients that take them.

use std::rc::Rc;

use buf::Bytes;
use engine::log::Errno;
use wire::h1::KnownHeader;

use super::open_file::{Files, Kind};
use super::regular::wants_file;
use crate::fault::Fault;
use crate::module::LocationContext;
use crate::phases::{Flow, Handler};
use crate::request::Request;
use crate::response::gzip::GzipConf;
use crate::server::location::Handlers;

/// Who gets compressed files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nobody.
    Off,
    /// Clients that take them.
    On,
    /// All clients.
    Always,
}

/// The values of directives.
pub const MODES: &[(&str, Mode)] = &[("off", Mode::Off), ("on", Mode::On), ("always", Mode::Always)];

/// A way in which files are compressed.
#[derive(Clone, Copy)]
pub struct Coding {
    /// Its name in `Content-Encoding`.
    pub name: &'static str,
    /// What is appended to the names of files.
    pub ending: &'static str,
    /// Whether a request's client takes it.
    pub accepted: fn(&Request) -> bool,
}

/// Adds the handler for such files to a location, unless another handler answers all requests there.
pub fn install(mode: Mode, coding: Coding, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) {
    if mode != Mode::Off && !out.exclusive {
        let files = Files::of(cx.set, cx.loader);
        out.content.push(Rc::new(Encoded { always: mode == Mode::Always, coding, files }));
    }
}

struct Encoded {
    always: bool,
    coding: Coding,
    files: Files,
}

impl Handler for Encoded {
    fn handle<'a>(&'a self, r: &'a mut Request) -> Flow<'a> {
        if !wants_file(r) {
            return Flow::Next;
        }
        let accepted = self.always || (self.coding.accepted)(r);
        // Without `gzip_vary` nothing depends on the file if the client doesn't accept it.
        if !accepted && !r.location.set.get::<GzipConf>().gzip_vary {
            return Flow::Next;
        }
        let mut path = match r.path_of_uri() {
            Ok(path) => path,
            Err(fault) => return fault.into(),
        };
        path.extend_from_slice(self.coding.ending.as_bytes());
        let found = match self.files.open(r, &path) {
            Ok(found) => found,
            Err(error) => {
                let fault = error.fault();
                if fault != Fault::MissingFile {
                    let path = buf::text::encode(&path);
                    fault.log_with(r, &format_args!("{} \"{path}\" failed{}", error.call, Errno(&error.error)));
                }
                return Flow::Next;
            }
        };
        if !self.always {
            r.response.gzip_vary = true;
            if !accepted {
                return Flow::Next;
            }
        }
        match found.kind {
            Kind::Directory => return Flow::Next,
            Kind::Other => return Fault::NotAFile.log_with(r, &buf::text::encode(&path)).into(),
            Kind::File => {}
        }
        found.respond(r);
        r.response.allow_ranges = true;
        let name = Bytes::from_static(self.coding.name.as_bytes());
        r.response.headers.add(KnownHeader::ContentEncoding, name);
        Flow::Respond
    }
}
