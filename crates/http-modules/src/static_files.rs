//! Static files: the last content handler of every location.

use std::cell::RefCell;
use std::rc::Rc;

use conf::Result;
use engine::log::Errno;
use http::fault::Fault;
use http::files::open_file::{Files, Kind, OpenError};
use http::module::HttpModule;
use http::module::LocationContext;
use http::phases::{Flow, Handler};
use http::request::Request;
use http::server::location::Handlers;
use wire::h1::{KnownHeader, Method};

/// The module.
pub struct StaticFiles;

impl HttpModule for StaticFiles {
    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        if !out.exclusive {
            out.content.push(Rc::new(StaticHandler(Files::of(cx.set, cx.loader))));
        }
        Ok(())
    }
}

struct StaticHandler(Files);

thread_local! {
    /// Memory for the path at hand.
    static PATH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Handler for StaticHandler {
    fn handle<'a>(&'a self, r: &'a mut Request) -> Flow<'a> {
        if !matches!(r.method, Method::Get | Method::Head | Method::Post) {
            return Flow::Status(405);
        }
        if r.uri.last() == Some(&b'/') {
            return Flow::Next;
        }
        let mut path = PATH.take();
        path.clear();
        let flow = match r.path_into(&mut path) {
            Ok(()) => self.answer(r, &path),
            Err(fault) => fault.into(),
        };
        PATH.set(path);
        flow
    }
}

impl StaticHandler {
    fn answer(&self, r: &mut Request, path: &[u8]) -> Flow<'static> {
        let found = match self.0.open(r, path) {
            Ok(found) => found,
            Err(error) => return refuse(r, path, &error),
        };
        match found.kind {
            Kind::Directory => add_slash(r),
            Kind::Other => Fault::NotAFile.log_with(r, &buf::text::encode(path)).into(),
            Kind::File if r.method == Method::Post => Flow::Status(405),
            Kind::File => {
                found.respond(r);
                r.response.allow_ranges = true;
                Flow::Respond
            }
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
