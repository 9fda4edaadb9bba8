//! `stub_status`: a page with the counters of connections and requests, and variables for them.

use std::rc::Rc;

use buf::{Bytes, Chain};
use conf::{Args, Context, Directive, Loader, Registry, Result};
use expr::vars::Flags;
use http::module::HttpModule;
use http::module::LocationContext;
use http::phases::{Flow, PromptHandler};
use http::request::Request;
use http::request::variables::{Getter, Setup, show};
use http::response::Body;
use http::server::location::Handlers;
use http::server::status::Status;
use wire::h1::Method;

/// The module.
pub struct StubStatus;

conf::table! {
    /// The status page.
    pub struct StubStatusConf, raw StubStatusRaw, module "ngx_http_stub_status_module", level HTTP Location;

    /// Shows a page with the counters of connections and requests, of all workers.
    ///
    /// Form: `stub_status [value]`
    ///
    /// - `value`: ignored, as some old configurations have it.
    ///
    /// Effect: GET and HEAD requests get the page as plain text; other methods get status 405. The same figures are in
    /// `$connections_active` and its relatives.
    ///
    /// Danger: the page tells everybody how busy the server is: let only your own addresses reach it.
    ///
    /// ```nginx
    /// location = /status {
    ///     stub_status;
    ///     allow 127.0.0.1;
    ///     deny all;
    /// }
    /// ```
    "stub_status" in Context::SERVER.or(Context::LOCATION), Args::between(0, 1), default none,
        last(|_: &mut Loader<'_>, _: &Directive| Ok(())) shown: ();
}

impl HttpModule for StubStatus {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<StubStatusConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        let live = Flags::NOCACHEABLE;
        http::variables! { setup, "ngx_http_stub_status_module";
            /// How many connections of clients are open, in all workers.
            "connections_active", live, Getter::Plain(|r, out| count(r, out, |status| status.active.load()));
            /// How many connections are reading a request's head, in all workers.
            "connections_reading", live, Getter::Plain(|r, out| count(r, out, |status| status.reading.load()));
            /// How many connections are serving a request, in all workers.
            "connections_writing", live, Getter::Plain(|r, out| count(r, out, |status| status.writing.load()));
            /// How many connections are idle, in all workers.
            "connections_waiting", live, Getter::Plain(|r, out| count(r, out, |status| status.waiting.load()));
        }
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        if cx.of_owners::<StubStatusConf>().any(|conf| conf.shown.is_some()) {
            out.content = vec![Rc::new(StubStatus)];
            out.exclusive = true;
        }
        Ok(())
    }
}

fn count(r: &Request, out: &mut Vec<u8>, of: fn(&Status) -> u64) -> bool {
    show(out, format_args!("{}", of(&r.http.status)))
}

impl PromptHandler for StubStatus {
    fn answer(&self, r: &mut Request) -> Flow<'static> {
        if !matches!(r.method, Method::Get | Method::Head) {
            return Flow::Status(405);
        }
        let text = page(&r.http.status);
        r.response.status = 200;
        r.response.content_type = Some(Bytes::from_static(b"text/plain"));
        r.response.content_length = Some(text.len() as u64);
        let mut chain = Chain::new();
        chain.push_bytes(text.into_bytes());
        r.response.body = Body::Chain(chain);
        Flow::Respond
    }
}

fn page(status: &Status) -> String {
    format!(
        "Active connections: {} \nserver accepts handled requests\n {} {} {} \nReading: {} Writing: {} Waiting: {} \n",
        status.active.load(),
        status.accepted.load(),
        status.handled.load(),
        status.requests.load(),
        status.reading.load(),
        status.writing.load(),
        status.waiting.load(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_nginxs() {
        let status = Status::new().expect("shared memory");
        let counters = [
            (&status.active, 291),
            (&status.accepted, 16_630_948),
            (&status.handled, 16_630_948),
            (&status.requests, 31_070_465),
            (&status.reading, 6),
            (&status.writing, 179),
            (&status.waiting, 106),
        ];
        for (counter, value) in counters {
            counter.add(value);
        }
        let expect = "Active connections: 291 \nserver accepts handled requests\n 16630948 16630948 31070465 \n\
                      Reading: 6 Writing: 179 Waiting: 106 \n";
        assert_eq!(page(&status), expect);
    }
}
