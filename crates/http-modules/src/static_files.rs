//! Static files: the last content handler of every location.

use std::cell::RefCell;
use std::rc::Rc;

use conf::Result;
use http::files::open_file::Files;
use http::module::HttpModule;
use http::module::LocationContext;
use http::phases::{Flow, PromptHandler};
use http::request::Request;
use http::server::location::Handlers;
use wire::h1::Method;

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

impl PromptHandler for StaticHandler {
    fn answer(&self, r: &mut Request) -> Flow<'static> {
        if !matches!(r.method, Method::Get | Method::Head | Method::Post) {
            return Flow::Status(405);
        }
        if r.uri.last() == Some(&b'/') {
            return Flow::Next;
        }
        let mut path = PATH.take();
        path.clear();
        let flow = match r.path_into(&mut path) {
            Ok(()) => self.serve(r, &path),
            Err(fault) => fault.into(),
        };
        PATH.set(path);
        flow
    }
}

impl StaticHandler {
    fn serve(&self, r: &mut Request, path: &[u8]) -> Flow<'static> {
        let found = match self.0.open_regular(r, path) {
            Ok(found) => found,
            Err(flow) => return flow,
        };
        if r.method == Method::Post {
            return Flow::Status(405);
        }
        found.respond(r);
        r.response.allow_ranges = true;
        Flow::Respond
    }
}
