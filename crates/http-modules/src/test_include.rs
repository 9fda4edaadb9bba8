//! `test_include`: what subrequests give, after the response, for tests of subrequests. Built with the feature `test-hooks`
//! only, which no shipped program has.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use buf::{Bytes, Chain, Piece};
use conf::{Args, Directive, Loader, Registry, Result};
use http::body::{BodyFilter, Broken};
use http::module::{HttpModule, LocationContext, shared};
use http::phases::{Flow, Handler, HeaderFilter, Order, Reply};
use http::request::Request;
use http::request::subrequest::{SubRequest, SubResponse};
use http::server::location::Handlers;

/// The module.
pub struct TestInclude;

conf::table! {
    /// Subrequests.
    pub struct TestIncludeConf, raw TestIncludeRaw, module "tidegate_http_test_include_module", level HTTP Location;

    /// Appends the responses to subrequests to the response.
    ///
    /// Form: `test_include uri ...`
    ///
    /// - `uri`: the path of a subrequest.
    ///
    /// Effect: all subrequests begin at once; their bodies follow in the order of the URIs.
    ///
    /// ```nginx
    /// test_include /header /footer;
    /// ```
    "test_include" in conf::Context::LOCATION, Args::at_least(1), default none,
        scalar(uris) uris: Rc<[Vec<u8>]> = Rc::new([]);
    /// Whether the head of each response stands before its body.
    ///
    /// Effect: each field is a line.
    ///
    /// ```nginx
    /// test_include /header;
    /// test_include_heads on;
    /// ```
    "test_include_heads" in conf::Context::LOCATION, Args::FLAG, default "off",
        scalar(conf::values::flag) heads: bool = false;
    /// Makes a subrequest whose response nobody gets.
    ///
    /// Form: `test_mirror uri`
    ///
    /// - `uri`: the path of the subrequest.
    ///
    /// Effect: the subrequest goes on to its end, whatever becomes of the request.
    ///
    /// ```nginx
    /// test_mirror /copy;
    /// ```
    "test_mirror" in conf::Context::LOCATION, Args::exactly(1), default "",
        scalar(uris) mirror: Rc<[Vec<u8>]> = Rc::new([]);
    /// Whether the request's body reaches its handler in capitals.
    ///
    /// Effect: a filter changes the body as it is read.
    ///
    /// ```nginx
    /// test_capitals on;
    /// ```
    "test_capitals" in conf::Context::LOCATION, Args::FLAG, default "off",
        scalar(conf::values::flag) capitals: bool = false;
}

fn uris(_: &mut Loader<'_>, d: &Directive) -> Result<Rc<[Vec<u8>]>> {
    Ok(d.args.iter().map(|word| word.text.clone()).collect())
}

impl HttpModule for TestInclude {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<TestIncludeConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.get::<TestIncludeConf>();
        if conf.capitals {
            out.preaccess.push(shared(Capitals));
        }
        if !conf.mirror.is_empty() {
            out.preaccess.push(shared(Mirror(conf.mirror.clone())));
        }
        if !conf.uris.is_empty() {
            out.filters.push(Rc::new(Include { uris: conf.uris.clone(), heads: conf.heads }));
        }
        Ok(())
    }
}

struct Include {
    uris: Rc<[Vec<u8>]>,
    heads: bool,
}

impl HeaderFilter for Include {
    fn order(&self) -> Order {
        Order::Text
    }

    fn on_subrequests(&self) -> bool {
        true
    }

    fn apply(&self, r: &mut Request) -> std::result::Result<(), Reply> {
        let mut included = VecDeque::new();
        for uri in &*self.uris {
            match r.sub_request(&SubRequest { uri, with_body: true, ..SubRequest::default() }) {
                Ok(response) => included.push_back(Included { response, head_to_come: self.heads }),
                // The log has told it.
                Err(_) => return Ok(()),
            }
        }
        r.response.clear_length();
        r.response.weaken();
        r.response.filters.push(Box::new(Append { included, ended: false }));
        Ok(())
    }
}

/// Appends the responses of subrequests.
struct Append {
    included: VecDeque<Included>,
    ended: bool,
}

struct Included {
    response: SubResponse,
    head_to_come: bool,
}

impl BodyFilter for Append {
    fn apply(&mut self, mut input: Chain, end: bool, _: bool, out: &mut Chain) -> std::result::Result<(), Broken> {
        out.append(&mut input);
        self.ended = end;
        Ok(())
    }

    fn reads(&self) -> bool {
        false
    }

    fn poll_waiting(
        &mut self,
        r: &mut Request,
        cx: &mut Context<'_>,
        out: &mut Chain,
    ) -> Poll<std::result::Result<(), Broken>> {
        // All of them are on their way, whosever turn it is.
        for included in &mut self.included {
            let _ = included.response.poll_head(cx);
        }
        while self.ended
            && let Some(Included { response, head_to_come }) = self.included.front_mut()
        {
            if *head_to_come {
                ready!(response.poll_head(cx));
                *head_to_come = false;
                append_head(response, out);
            }
            let mut portion = ready!(response.poll_portion(r, cx))?;
            out.append(&mut portion.chain);
            if portion.end {
                self.included.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn append_head(response: &SubResponse, out: &mut Chain) {
    for field in &response.fields().unwrap_or_default() {
        out.push_bytes([&field.name[..], b": ", &field.value, b"\n"].concat());
    }
}

/// Asks for a URI and forgets it.
struct Mirror(Rc<[Vec<u8>]>);

impl Handler for Mirror {
    fn handle<'a>(&'a self, r: &'a mut Request) -> Flow<'a> {
        if r.is_subrequest() {
            return Flow::Next;
        }
        for uri in &*self.0 {
            match r.sub_request(&SubRequest { uri, ..SubRequest::default() }) {
                Ok(response) => response.detach(&r.http),
                Err(fault) => return fault.into(),
            }
        }
        Flow::Next
    }
}

/// Puts a request's body into capitals.
struct Capitals;

impl Handler for Capitals {
    fn handle<'a>(&'a self, r: &'a mut Request) -> Flow<'a> {
        r.body.add_filter(Box::new(Capitals));
        Flow::Next
    }
}

impl BodyFilter for Capitals {
    fn apply(&mut self, mut input: Chain, _: bool, _: bool, out: &mut Chain) -> std::result::Result<(), Broken> {
        while let Some(piece) = input.pop() {
            let Piece::Bytes(bytes) = piece else { return Err(Broken) };
            out.push_bytes(Bytes::from(bytes.to_ascii_uppercase()));
        }
        Ok(())
    }
}
