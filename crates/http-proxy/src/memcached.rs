//! `memcached_pass`: values of memcached as responses.
//!
//! Keys are those of `$memcached_key`, which the configuration sets. A value has no fields; its type is that of the URI.

use std::any::Any;
use std::borrow::Cow;
use std::rc::Rc;

use ::upstream::retry;
use buf::{Buf, Bytes, Chain};
use conf::values::{bitmask, number};
use conf::{Args, Context, Directive, Loader, Registry, Result};
use engine::log::Level;
use expr::vars::Template;
use http::config::core::EVERYWHERE;
use http::exchange::Exchange;
use http::fault::Fault;
use http::module::{HttpModule, LocationContext};
use http::request::Request;
use http::request::variables::template_of;
use http::server::location::Handlers;
use wire::Span;
use wire::h1::{Method, ResponseParser};
use wire::memcached::{self, END, Line};

use crate::conf::{ConnectConf, UpstreamConf};
use crate::engine::{Backend, Hidden};
use crate::pass::Pass;
use crate::protocol::{BodyEvent, Codec, End, Head, HeadEvent, Kept, Note, Protocol, ProtocolError, Scheme};

/// The module.
pub struct Memcached;

const ONE: Args = Args::exactly(1);

conf::table! {
    /// `memcached_…`: what memcached can be told.
    pub struct MemcachedConf, raw MemcachedRaw, module "ngx_http_memcached_module", level HTTP Location;

    under "memcached_" {
        /// What all protocols have.
        up: UpstreamConf [connection, buffer];
        /// How connections are made.
        connect: ConnectConf [connection, retries];
    }
    /// Answers the location's requests with values of memcached.
    ///
    /// Form: `memcached_pass address`
    ///
    /// - `address`: a host with a port, `unix:path`, or the name of an `upstream`. It may contain variables.
    ///
    /// Effect: the value whose key is in `$memcached_key` is the response; it has the type that `types` gives the URI. Where
    /// there is no such value, the response is 404, and `error_page` can pass the request on. Other methods than GET and HEAD
    /// are answered with 405, an empty key with 500. Ranges are served. Who stores the values is up to the application. The
    /// directive isn't inherited, except by `if` inside.
    ///
    /// Cost: a connection for each request, unless an `upstream` with `keepalive` has the address.
    ///
    /// Danger: whoever can write to memcached decides what clients get.
    ///
    /// ```nginx
    /// upstream cache {
    ///     server 127.0.0.1:11211;
    ///     keepalive 16;
    /// }
    /// server {
    ///     location / {
    ///         set $memcached_key $uri;
    ///         memcached_pass cache;
    ///         error_page 404 502 504 = @backend;
    ///     }
    ///     location @backend {
    ///         proxy_pass http://127.0.0.1:8080;
    ///     }
    /// }
    /// ```
    "memcached_pass" in Context::LOCATION.or(Context::LOCATION_IF), ONE, default none,
        here(memcached_pass) memcached_pass: Rc<Pass>;
    /// Selects the failures after which a request is passed to the next server.
    ///
    /// Form: `memcached_next_upstream failure ...`
    ///
    /// - `error`: the connection could not be opened, or broke before the value.
    /// - `timeout`: connecting, sending or reading took too long.
    /// - `denied`: `memcached_allow_upstream` forbids the server.
    /// - `invalid_response`: the response was empty or invalid.
    /// - `not_found`: there is no value with this key.
    /// - `off`: a request isn't passed on.
    ///
    /// Effect: another server of the group is tried. Failures of the kinds `error`, `timeout`, `denied` and `invalid_response` count as
    /// failures of the server (`max_fails`) whether listed or not; `not_found` never does.
    ///
    /// Cost: a client waits for each server that is tried.
    ///
    /// ```nginx
    /// memcached_next_upstream error timeout not_found;
    /// ```
    "memcached_next_upstream" in EVERYWHERE, Args::at_least(1), default "error timeout",
        set(|raw: &mut MemcachedRaw, l: &mut Loader<'_>, d: &Directive| {
            bitmask(&mut raw.next_upstream, retry::MEMCACHED_WORDS, l, d)
        }) next_upstream: u32 = retry::failure::DEFAULT;
    /// Sets the flags of values that are compressed.
    ///
    /// Form: `memcached_gzip_flag flags`
    ///
    /// - `flags`: a number, one bit for each flag.
    ///
    /// Effect: a value that was stored with one of these flags is sent with `Content-Encoding: gzip`.
    ///
    /// Danger: a client that doesn't accept gzip gets it all the same.
    ///
    /// ```nginx
    /// memcached_gzip_flag 2;
    /// ```
    "memcached_gzip_flag" in EVERYWHERE, ONE, default "0",
        scalar(number) gzip_flag: u64 = 0;
}

/// How servers are reached.
const SCHEMES: &[Scheme] = &[Scheme { prefix: "", label: "memcached://", default_port: None, ssl: false }];

const KEY: &[u8] = b"$memcached_key";

fn memcached_pass(loader: &mut Loader<'_>, d: &Directive) -> Result<Rc<Pass>> {
    Pass::parse(loader, d, SCHEMES, false)
}

impl HttpModule for Memcached {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<MemcachedConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.share::<MemcachedConf>();
        let Some((pass, depth)) = Pass::of_location(cx, |conf: &MemcachedConf| &conf.memcached_pass) else {
            return Ok(());
        };
        let up = Rc::new(UpstreamConf {
            next_upstream: conf.next_upstream,
            force_ranges: true,
            pass_request_body: false,
            max_temp_file_size: 0,
            ..(*conf.up).clone()
        });
        let protocol = MemcachedProtocol {
            key: template_of(cx.loader, &pass.directive, KEY)?,
            rules: Rules { max_line: up.buffer_size, gzip_flag: conf.gzip_flag },
        };
        let backend = Backend {
            connect: conf.connect.clone(),
            destination: pass.destination(cx.loader)?,
            hidden: Hidden::new(&up, &[]),
            protocol: Box::new(protocol),
            place: cx.id.0,
            caching: None,
            ssl: None,
            up,
        };
        backend.install(out, cx, depth);
        Ok(())
    }
}

struct MemcachedProtocol {
    key: Rc<Template>,
    rules: Rules,
}

impl Protocol for MemcachedProtocol {
    fn sends_unknown_length(&self) -> bool {
        false
    }

    fn refuses(&self, r: &Request) -> Option<u16> {
        (!matches!(r.method, Method::Get | Method::Head)).then_some(405)
    }

    fn takes_body(&self) -> bool {
        false
    }

    fn answers_errors(&self) -> bool {
        false
    }

    fn write_request(&self, r: &mut Request, exchange: &Exchange, out: &mut Buf) -> std::result::Result<Span, Fault> {
        exchange.to_head.set(r.method == Method::Head);
        let key = r.render(&self.key);
        if key.is_empty() {
            return Err(Fault::NoKey.log(r));
        }
        memcached::get(&key, out);
        Ok(Span::default())
    }

    fn codec(&self, exchange: &Exchange, _kept: Option<Kept>) -> Box<dyn Codec> {
        Box::new(Value::new(self.rules, exchange.to_head.get()))
    }

    fn knows(&self, kept: &dyn Any) -> bool {
        kept.is::<Open>()
    }

    fn complete(&self, r: &mut Request) {
        let core = &r.location.core;
        let content_type = core.types.of(&r.uri).unwrap_or_else(|| core.default_type.clone());
        r.response.content_type = Some(content_type).filter(|text| !text.is_empty());
    }
}

/// A connection that can serve again; it remembers nothing.
struct Open;

/// What the configuration says of responses.
#[derive(Clone, Copy)]
struct Rules {
    /// The longest first line, in bytes.
    max_line: usize,
    /// `memcached_gzip_flag`
    gzip_flag: u64,
}

/// The state machine of an exchange.
struct Value {
    rules: Rules,
    to_head: bool,
    /// As it was sent.
    key: Vec<u8>,
    state: State,
    /// What came while the first line isn't complete.
    gathered: Option<Buf>,
    /// What came after the first line and isn't used.
    input: Bytes,
    /// How many bytes of the value are still to come.
    left: u64,
}

/// How far a response has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Line,
    /// There is no value, and the log says so.
    NotFound,
    Value,
    /// So much has come of what follows a value.
    End(usize),
    Over {
        keep: bool,
    },
}

/// The field of a compressed value.
const COMPRESSED: &[u8] = b"Content-Encoding: gzip\r\n\r\n";

impl Value {
    fn new(rules: Rules, to_head: bool) -> Value {
        Value { rules, to_head, key: Vec::new(), state: State::Line, gathered: None, input: Bytes::default(), left: 0 }
    }

    fn read_line(&mut self, head: &mut Head) -> std::result::Result<HeadEvent, ProtocolError> {
        let Some(data) = &self.gathered else { return Ok(HeadEvent::More) };
        let found = memcached::first_line(data, &self.key);
        let (line, used) =
            match found.map_err(|error| ProtocolError::invalid(error.text(data, &self.key).to_string()))? {
                Some(found) => found,
                None if data.len() >= self.rules.max_line => {
                    return Err(ProtocolError::invalid("upstream sent too big header"));
                }
                None => return Ok(HeadEvent::More),
            };
        self.input = self.gathered.take().map(Buf::freeze).unwrap_or_default();
        self.input.advance(used);
        match line {
            Line::Value { flags, length } => Ok(self.begin_value(flags, length, head)),
            Line::NotFound => {
                self.state = State::NotFound;
                let text = format!("key: \"{}\" was not found by memcached", buf::text::encode(&self.key));
                Ok(HeadEvent::Note(Note { level: Level::Info, text }))
            }
        }
    }

    fn begin_value(&mut self, flags: u64, length: u64, (bytes, parts): &mut Head) -> HeadEvent {
        if flags & self.rules.gzip_flag != 0 {
            *bytes = Bytes::from_static(COMPRESSED);
            let parsed = ResponseParser::of_fields().parse(COMPRESSED, usize::MAX, parts);
            debug_assert!(parsed.is_ok(), "it is a field");
        }
        parts.status = 200;
        self.left = length;
        // What follows a value that nobody wants isn't read.
        self.state = if self.to_head { State::Over { keep: false } } else { State::Value };
        HeadEvent::Done(Some(length))
    }

    /// Goes on with what follows the value.
    fn read_end(&mut self, have: usize) -> BodyEvent {
        let expected = END.get(have..).unwrap_or_default();
        let n = expected.len().min(self.input.len());
        let whole = n == expected.len();
        let fits = self.input.get(..n) == expected.get(..n) && !(whole && self.input.len() > n);
        self.input.advance(n);
        if !fits {
            self.state = State::Over { keep: false };
            return BodyEvent::Note(Note::error("memcached sent invalid trailer"));
        }
        if whole {
            self.state = State::Over { keep: true };
            return self.end(true);
        }
        self.state = State::End(have + n);
        BodyEvent::More
    }

    fn end(&self, keep: bool) -> BodyEvent {
        BodyEvent::End(End { keep, extra: false })
    }
}

impl Codec for Value {
    fn head<'r>(&mut self, request: &'r [u8], _alone: bool) -> Cow<'r, [u8]> {
        self.key = request[memcached::key(request)].to_vec();
        request.into()
    }

    fn body(&mut self, mut part: Chain, _last: bool, out: &mut Chain) {
        out.append(&mut part);
    }

    fn receive(&mut self, input: Buf) {
        match (self.state, &mut self.gathered) {
            (State::Line, Some(gathered)) => gathered.extend_from_slice(&input),
            (State::Line, None) => self.gathered = Some(input),
            _ => self.input = input.freeze(),
        }
    }

    fn read_head(&mut self, head: &mut Head) -> std::result::Result<HeadEvent, ProtocolError> {
        if self.state == State::NotFound {
            head.1.status = 404;
            self.state = State::Over { keep: self.input.is_empty() };
            return Ok(HeadEvent::Done(Some(0)));
        }
        self.read_line(head)
    }

    fn read_body(&mut self) -> std::result::Result<BodyEvent, ProtocolError> {
        Ok(match self.state {
            State::Over { keep } => self.end(keep),
            State::Value if self.left > 0 => {
                let n = self.left.min(self.input.len() as u64);
                let part = self.input.slice(0..n as usize);
                self.input.advance(n as usize);
                self.left -= n;
                if part.is_empty() { BodyEvent::More } else { BodyEvent::Body(part) }
            }
            State::Value => self.read_end(0),
            State::End(have) => self.read_end(have),
            State::Line | State::NotFound => BodyEvent::More,
        })
    }

    fn receive_end(&mut self) -> std::result::Result<(), ProtocolError> {
        match self.state {
            State::Over { .. } => Ok(()),
            _ => Err(ProtocolError::closed()),
        }
    }

    fn wants(&self) -> Option<u64> {
        let have = if let State::End(have) = self.state { have } else { 0 };
        Some(self.left + (END.len() - have) as u64)
    }

    fn keep(self: Box<Self>) -> Option<Kept> {
        Some(Box::new(Open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec_tests;

    /// What a response means, as text; it comes in pieces of `size` bytes.
    fn events(input: &[u8], size: usize, to_head: bool) -> String {
        let mut codec = Value::new(Rules { max_line: 40, gzip_flag: 2 }, to_head);
        codec.head(b"get /k\r\n", true);
        let head =
            |head: &Head, length| format!("{} [{}] {length:?}", head.1.status, String::from_utf8_lossy(&head.0).trim());
        let end = |end: End| if end.keep { "kept" } else { "closed" }.to_owned();
        codec_tests::events(&mut codec, input, size, head, end)
    }

    #[test]
    fn responses_however_they_are_cut() {
        const TRAILER: &str = "[Error memcached sent invalid trailer]";
        const CLOSED: &str = "ShortResponse upstream prematurely closed connection";
        for (input, expect) in [
            ("VALUE /k 0 5\r\nhello\r\nEND\r\n", "200 [] Some(5) hello kept"),
            ("VALUE /k 0 0\r\n\r\nEND\r\n", "200 [] Some(0)  kept"),
            ("VALUE /k 3 2\r\nab\r\nEND\r\n", "200 [Content-Encoding: gzip] Some(2) ab kept"),
            ("VALUE /k 1 2\r\nab\r\nEND\r\n", "200 [] Some(2) ab kept"),
            ("VALUE /k 0 5\r\nhelloXXEND", &format!("200 [] Some(5) {TRAILER} hello closed")),
            ("VALUE /k 0 5\r\nhello\r\nEN", &format!("200 [] Some(5) hello {CLOSED}")),
            ("VALUE /k 0 9\r\nhello", &format!("200 [] Some(9) hello {CLOSED}")),
            ("VALUE /k 0", CLOSED),
            ("END\r\n", "[Info key: \"/k\" was not found by memcached] 404 [] Some(0)  kept"),
            ("ERROR\r\n", "InvalidResponse memcached sent invalid response: \"ERROR\""),
            (&"x".repeat(41), "InvalidResponse upstream sent too big header"),
        ] {
            for size in 1..=input.len() {
                assert_eq!(events(input.as_bytes(), size, false), expect, "{input:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn more_than_a_value() {
        let input = b"VALUE /k 0 2\r\nab\r\nEND\r\nmore";
        let expect = "200 [] Some(2) [Error memcached sent invalid trailer] ab closed";
        assert_eq!(events(input, input.len(), false), expect);
        assert_eq!(events(b"END\r\nmore", 9, false).rsplit(' ').next(), Some("closed"));
    }

    #[test]
    fn a_head_alone() {
        assert_eq!(events(b"VALUE /k 0 2\r\nab\r\nEND\r\n", 40, true), "200 [] Some(2)  closed");
    }
}
