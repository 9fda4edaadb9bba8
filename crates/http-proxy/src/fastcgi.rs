//! `fastcgi_pass`: FastCGI applications, such as php-fpm.
//!
//! What differs from nginx: a status below 200 is as invalid as one that isn't a number.

use std::any::Any;
use std::borrow::Cow;
use std::rc::Rc;

use buf::{Buf, Bytes, Chain};
use conf::values::flag;
use conf::{Args, Context, Directive, Error, Loader, Registry, Result};
use expr::regex::{Captures, Regex};
use expr::vars::Flags;
use http::config::core::EVERYWHERE;
use http::exchange::Exchange;
use http::fault::Fault;
use http::module::{HttpModule, LocationContext};
use http::request::Request;
use http::request::variables::{Getter, Setup, put};
use http::server::location::Handlers;
use wire::Span;
use wire::fcgi::{self, Decoder, Output, Step};
use wire::h1::{Parsed, ResponseParser};

use crate::cache;
use crate::cache::conf::CacheConf;
use crate::cgi;
use crate::conf::{ConnectConf, UpstreamConf, check_location};
use crate::engine::{Backend, Hidden};
use crate::params::{self, Params, ParamsConf};
use crate::pass::Pass;
use crate::protocol::{BodyEvent, Codec, End, Head, HeadEvent, Kept, Note, Protocol, ProtocolError, Scheme};

/// The module.
pub struct Fastcgi;

const ONE: Args = Args::exactly(1);

conf::table! {
    /// `fastcgi_…`: what FastCGI applications can be told.
    pub struct FastcgiConf, raw FastcgiRaw, module "ngx_http_fastcgi_module", level HTTP Location;

    under "fastcgi_" {
        /// What most protocols have.
        up: UpstreamConf [connection, buffer, failures, lowat, errors, fields, request, response, store];
        /// How connections are made.
        connect: ConnectConf [connection, retries, sockets];
        /// What is stored.
        cache: CacheConf [all];
        /// What applications are told of a request.
        params: ParamsConf [all];
    }
    /// Passes the location's requests to a FastCGI application, such as php-fpm, and its responses to the clients.
    ///
    /// Form: `fastcgi_pass address`
    ///
    /// - `address`: a host with a port, `unix:path`, or the name of an `upstream`. It may contain variables.
    ///
    /// Effect: the application gets the parameters of `fastcgi_param`, the fields of the request as `HTTP_…`, and its body. A
    /// name with variables is looked up by `resolver` for each request, unless an `upstream` has it. The directive isn't
    /// inherited, except by `if` inside.
    ///
    /// Cost: a connection for each request, unless `fastcgi_keep_conn` is on.
    ///
    /// Danger: php-fpm runs whatever file `SCRIPT_FILENAME` names: without a check such as `try_files`, or with
    /// `cgi.fix_pathinfo` in PHP, `/upload/picture.png/x.php` may run the picture.
    ///
    /// ```nginx
    /// location ~ [^/]\.php(/|$) {
    ///     fastcgi_split_path_info ^(.+?\.php)(/.*)$;
    ///     fastcgi_pass unix:/run/php/php-fpm.sock;
    ///     fastcgi_index index.php;
    ///     fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
    ///     fastcgi_param PATH_INFO $fastcgi_path_info;
    ///     fastcgi_param QUERY_STRING $query_string;
    ///     fastcgi_param REQUEST_METHOD $request_method;
    ///     fastcgi_param CONTENT_TYPE $content_type;
    ///     fastcgi_param CONTENT_LENGTH $content_length;
    /// }
    /// ```
    "fastcgi_pass" in Context::LOCATION.or(Context::LOCATION_IF), ONE, default none,
        here(fastcgi_pass) fastcgi_pass: Rc<Pass>;
    /// Names the script of URIs that end with a slash.
    ///
    /// Form: `fastcgi_index name`
    ///
    /// - `name`: the name of a file.
    ///
    /// Effect: the name is appended to such a URI in `$fastcgi_script_name`.
    ///
    /// ```nginx
    /// fastcgi_index index.php;
    /// ```
    "fastcgi_index" in EVERYWHERE, ONE, default none,
        scalar(|_: &mut Loader<'_>, d: &Directive| Ok(d.arg(0).text.clone())) fastcgi_index: Vec<u8> = Vec::new();
    /// Splits URIs into a script and what follows it.
    ///
    /// Form: `fastcgi_split_path_info regex`
    ///
    /// - `regex`: a regex with two groups.
    ///
    /// Effect: where the regex matches, its groups are `$fastcgi_script_name` and `$fastcgi_path_info`. Elsewhere the former
    /// is the path of the URI, and the latter is empty.
    ///
    /// ```nginx
    /// fastcgi_split_path_info ^(.+?\.php)(/.*)$;
    /// ```
    "fastcgi_split_path_info" in EVERYWHERE, ONE, default none,
        set(|raw: &mut FastcgiRaw, loader: &mut Loader<'_>, d: &Directive| {
            raw.fastcgi_split_path_info = Some(Some(split_path_info(loader, d)?));
            Ok(())
        }) fastcgi_split_path_info: Option<Rc<Regex>> = None;
    /// Asks the application to leave the connection open after its response.
    ///
    /// Effect: `keepalive` of an `upstream` needs it; without it each request has a connection of its own.
    ///
    /// Cost: each open connection takes a process of php-fpm, which serves nobody else.
    ///
    /// ```nginx
    /// fastcgi_keep_conn on;
    /// ```
    "fastcgi_keep_conn" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) fastcgi_keep_conn: bool = false;
    /// Makes a response invalid if the application writes a text to its standard error before the response's head.
    ///
    /// Form: `fastcgi_catch_stderr text`
    ///
    /// - `text`: what is searched for. There may be several directives.
    ///
    /// Effect: the request goes to the next server where `fastcgi_next_upstream` has `invalid_header`, or ends with 502.
    ///
    /// ```nginx
    /// fastcgi_catch_stderr "PHP Fatal error";
    /// ```
    "fastcgi_catch_stderr" in EVERYWHERE, ONE, default none,
        list(|_: &mut Loader<'_>, d: &Directive| Ok(d.arg(0).text.clone())) fastcgi_catch_stderr: Vec<u8>;
}

/// How applications are reached.
const SCHEMES: &[Scheme] = &[Scheme { prefix: "", label: "fastcgi://", default_port: None, ssl: false }];

fn fastcgi_pass(loader: &mut Loader<'_>, d: &Directive) -> Result<Rc<Pass>> {
    Pass::parse(loader, d, SCHEMES, false)
}

fn split_path_info(_: &mut Loader<'_>, d: &Directive) -> Result<Rc<Regex>> {
    let word = d.arg(0);
    let regex = Regex::new(&word.text, false).map_err(|error| Error::at(word, error.to_string()))?;
    if regex.capture_count() < 2 {
        return Err(Error::at(word, format!("pattern \"{}\" must have 2 captures", word.lossy())));
    }
    Ok(Rc::new(regex))
}

impl HttpModule for Fastcgi {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<FastcgiConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        let live = Flags::NOCACHEABLE | Flags::NOHASH;
        http::variables! { setup, "ngx_http_fastcgi_module";
            /// The path of the script: the first group of `fastcgi_split_path_info` if that matches, else the request's
            /// path, with `fastcgi_index` after a slash at its end.
            "fastcgi_script_name", live, Getter::Plain(script_name);
            /// What follows the script in the request's path: the second group of `fastcgi_split_path_info`. Empty
            /// without one, and where that doesn't match.
            "fastcgi_path_info", live, Getter::Plain(path_info);
        }
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.share::<FastcgiConf>();
        let up = conf.up.clone();
        check_location(cx, &up, "fastcgi_")?;
        crate::store::check(cx, &up);
        let params = Params::compile(&conf.params, fcgi::param, cx.loader)?;
        let Some((pass, depth)) = Pass::of_location(cx, |conf: &FastcgiConf| &conf.fastcgi_pass) else { return Ok(()) };
        let rules = Rules {
            max_head: up.buffer_size,
            keep: conf.fastcgi_keep_conn,
            catch: conf.fastcgi_catch_stderr.to_vec().into(),
        };
        let backend = Backend {
            connect: conf.connect.clone(),
            destination: pass.destination(cx.loader)?,
            hidden: Hidden::new(&up, cgi::HIDDEN),
            protocol: Box::new(FastcgiProtocol { params, rules, up: up.clone() }),
            place: cx.id.0,
            ssl: None,
            caching: cache::caching(cx, &conf.cache, up.stores(), "fastcgi_")?,
            up,
        };
        backend.install(out, cx, depth);
        Ok(())
    }
}

fn script_name(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let conf = r.location.set.get::<FastcgiConf>();
    if let Some(captures) = split(r) {
        return put(out, captures.slice(&r.uri, 1).unwrap_or_default());
    }
    out.extend_from_slice(&r.uri);
    if r.uri.last() == Some(&b'/') {
        out.extend_from_slice(&conf.fastcgi_index);
    }
    true
}

fn path_info(r: &mut Request, out: &mut Vec<u8>) -> bool {
    split(r).is_none_or(|captures| put(out, captures.slice(&r.uri, 2).unwrap_or_default()))
}

/// What `fastcgi_split_path_info` makes of the request's path.
fn split(r: &Request) -> Option<Captures> {
    let regex = r.location.set.get::<FastcgiConf>().fastcgi_split_path_info.as_ref()?;
    let mut captures = Captures::new();
    regex.captures(&r.uri, &mut captures).unwrap_or(false).then_some(captures)
}

struct FastcgiProtocol {
    params: Params,
    rules: Rules,
    up: Rc<UpstreamConf>,
}

impl Protocol for FastcgiProtocol {
    fn sends_unknown_length(&self) -> bool {
        true
    }

    fn write_request(&self, r: &mut Request, exchange: &Exchange, out: &mut Buf) -> std::result::Result<Span, Fault> {
        exchange.to_head.set(params::asks_for_head(r, exchange));
        fcgi::begin(self.rules.keep, out);
        fcgi::params(&self.params.write(r, exchange, self.up.pass_request_headers), out);
        // For a request without a body, which then is one piece; see `Responder::head`.
        out.extend_from_slice(fcgi::END_OF_STDIN);
        Ok(Span::default())
    }

    fn codec(&self, exchange: &Exchange, _kept: Option<Kept>) -> Box<dyn Codec> {
        Box::new(Responder::new(self.rules.clone(), exchange.to_head.get()))
    }

    fn knows(&self, kept: &dyn Any) -> bool {
        kept.is::<Open>()
    }
}

/// A connection that the application leaves open; it remembers nothing.
struct Open;

/// What the configuration says of responses.
#[derive(Clone)]
struct Rules {
    /// The largest head, in bytes.
    max_head: usize,
    /// Whether the connection is to stay open.
    keep: bool,
    /// `fastcgi_catch_stderr`
    catch: Rc<[Vec<u8>]>,
}

/// The state machine of an exchange.
struct Responder {
    rules: Rules,
    records: Decoder,
    input: Bytes,
    state: State,
    /// The beginning of a head that didn't come whole: records may cut it, and standard error may come in between.
    text: Buf,
    parser: ResponseParser,
    /// Standard error, up to the end of its record.
    stderr: Vec<u8>,
    /// What came of the body in the record that ended the head.
    first: Bytes,
    /// How many bytes of the body are still to come, if that is known.
    left: Option<u64>,
    to_head: bool,
    extra: bool,
}

/// What was read of a response.
enum Read {
    /// A part of standard output.
    Output(Bytes),
    /// What came on standard error, as a log line.
    Complaint(String),
    /// Standard output has ended.
    Closed,
    /// The request has ended.
    End,
}

/// How far a response has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// What was complained of makes the response invalid.
    Caught,
    Body,
    Over {
        keep: bool,
    },
}

impl Responder {
    fn new(rules: Rules, to_head: bool) -> Responder {
        Responder {
            rules,
            to_head,
            records: Decoder::default(),
            input: Bytes::default(),
            state: State::Head,
            text: Buf::empty(),
            parser: ResponseParser::of_fields(),
            stderr: Vec::new(),
            first: Bytes::default(),
            left: None,
            extra: false,
        }
    }

    /// Takes what is there of standard output; `None`: more bytes are needed.
    fn read(&mut self) -> std::result::Result<Option<Read>, ProtocolError> {
        loop {
            let step = self.records.step(&self.input);
            let (used, step) = step.map_err(|error| ProtocolError::invalid(format!("upstream sent {error}")))?;
            let read = match step {
                Step::More => {
                    self.input.advance(used);
                    return Ok(None);
                }
                Step::Data(Output::Stdout, range, _) => Some(Read::Output(self.input.slice(range))),
                Step::Data(Output::Stderr, range, last) => {
                    self.stderr.extend_from_slice(self.input.get(range).unwrap_or_default());
                    last.then(|| Read::Complaint(self.complaint()))
                }
                Step::Closed(Output::Stdout) => Some(Read::Closed),
                Step::Closed(Output::Stderr) => None,
                Step::End => Some(Read::End),
            };
            self.input.advance(used);
            if let Some(read) = read {
                return Ok(Some(read));
            }
        }
    }

    fn body_part(&mut self, mut part: Bytes) -> Option<BodyEvent> {
        let body = cgi::take_body(&mut self.left, &mut part);
        self.extra |= !part.is_empty();
        (!body.is_empty()).then_some(BodyEvent::Body(body))
    }

    /// Goes on with the head; whether it is complete, and the length of the body then. One that comes whole, as most do,
    /// is read where it stands.
    fn parse_head(
        &mut self,
        part: Bytes,
        (bytes, parts): &mut Head,
    ) -> std::result::Result<Option<HeadEvent>, ProtocolError> {
        let is_first = self.text.is_empty();
        if !is_first {
            self.text.extend_from_slice(&part);
        }
        let text = if is_first { &part } else { self.text.as_slice() };
        let parsed = self.parser.parse(text, self.rules.max_head, parts);
        let used = match parsed.map_err(|error| ProtocolError::invalid(error.text(text).to_string()))? {
            Parsed::Incomplete if is_first => {
                self.text.extend_from_slice(&part);
                return Ok(None);
            }
            Parsed::Incomplete => return Ok(None),
            Parsed::Complete(used) => used,
        };
        let text = if is_first { part } else { std::mem::replace(&mut self.text, Buf::empty()).freeze() };
        let length = cgi::finish_head(parts, &text)?;
        if parts.status < 200 {
            return Err(cgi::unfinished(parts, &text));
        }
        self.left = cgi::left(parts, length);
        self.first = text.slice(used..text.len());
        self.state = if self.to_head { State::Over { keep: false } } else { State::Body };
        *bytes = text.slice(0..used);
        Ok(Some(HeadEvent::Done(length)))
    }

    /// The line of what came on standard error.
    fn complaint(&mut self) -> String {
        let text = std::mem::take(&mut self.stderr);
        if self.state == State::Head && self.rules.catch.iter().any(|mark| contains(&text, mark)) {
            self.state = State::Caught;
        }
        let end = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |at| at + 1);
        let text = buf::text::encode(text.get(..end).unwrap_or_default());
        format!("FastCGI sent in stderr: \"{text}\"")
    }
}

/// Text of a response whose standard output ended too soon.
const CLOSED: &str = "upstream prematurely closed FastCGI stdout";

fn contains(text: &[u8], mark: &[u8]) -> bool {
    memchr::memmem::find(text, mark).is_some()
}

impl Codec for Responder {
    fn head<'r>(&mut self, request: &'r [u8], alone: bool) -> Cow<'r, [u8]> {
        let end = if alone { 0 } else { fcgi::END_OF_STDIN.len() };
        request[..request.len().saturating_sub(end)].into()
    }

    fn body(&mut self, part: Chain, last: bool, out: &mut Chain) {
        fcgi::stdin(part, last, out);
    }

    fn receive(&mut self, input: Buf) {
        self.input = input.freeze();
    }

    fn read_head(&mut self, head: &mut Head) -> std::result::Result<HeadEvent, ProtocolError> {
        loop {
            if self.state == State::Caught {
                return Err(ProtocolError::invalid(""));
            }
            match self.read()? {
                None => return Ok(HeadEvent::More),
                Some(Read::Output(part)) => {
                    if let Some(event) = self.parse_head(part, head)? {
                        return Ok(event);
                    }
                }
                Some(Read::Complaint(text)) => return Ok(HeadEvent::Note(Note::error(text))),
                Some(Read::Closed) => return Err(ProtocolError::invalid(CLOSED)),
                Some(Read::End) => return Err(ProtocolError::invalid("upstream sent unexpected FastCGI record: 3")),
            }
        }
    }

    fn read_body(&mut self) -> std::result::Result<BodyEvent, ProtocolError> {
        loop {
            if let State::Over { keep } = self.state {
                return Ok(BodyEvent::End(End { keep: keep && !self.extra, extra: self.extra }));
            }
            let first = std::mem::take(&mut self.first);
            if !first.is_empty() {
                if let Some(event) = self.body_part(first) {
                    return Ok(event);
                }
                continue;
            }
            match self.read()? {
                None => return Ok(BodyEvent::More),
                Some(Read::Output(part)) => {
                    if let Some(event) = self.body_part(part) {
                        return Ok(event);
                    }
                }
                Some(Read::Complaint(text)) => return Ok(BodyEvent::Note(Note::error(text))),
                Some(Read::Closed | Read::End) if self.left.is_some_and(|left| left > 0) => {
                    return Err(ProtocolError { text: CLOSED.to_owned(), ..ProtocolError::closed() });
                }
                Some(Read::Closed) => {}
                Some(Read::End) => {
                    self.extra |= !self.input.is_empty();
                    self.state = State::Over { keep: self.rules.keep };
                }
            }
        }
    }

    fn receive_end(&mut self) -> std::result::Result<(), ProtocolError> {
        match self.state {
            // Who was asked to keep the connection ends the response first.
            State::Body if self.left.map_or(!self.rules.keep, |left| left == 0) => {
                self.state = State::Over { keep: false };
                Ok(())
            }
            _ => Err(ProtocolError::closed()),
        }
    }

    fn keep(self: Box<Self>) -> Option<Kept> {
        Some(Box::new(Open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec_tests;

    fn record(kind: u8, content: &[u8]) -> Vec<u8> {
        let [high, low] = (content.len() as u16).to_be_bytes();
        [&[1, kind, 0, 1, high, low, 0, 0], content].concat()
    }

    /// What a response means, as text; it comes in pieces of `size` bytes.
    fn events(input: &[u8], size: usize, to_head: bool) -> String {
        events_of(true, input, size, to_head)
    }

    fn events_of(keep: bool, input: &[u8], size: usize, to_head: bool) -> String {
        let catch = Rc::from([b"fatal".to_vec()]);
        let mut codec = Responder::new(Rules { max_head: 100, keep, catch }, to_head);
        let head = |head: &Head, length| format!("{} {} {length:?}", head.1.status, head.1.headers.len());
        let end = |end: End| format!("keep {} extra {}", end.keep, end.extra);
        codec_tests::events(&mut codec, input, size, head, end)
    }

    #[test]
    fn responses_however_they_are_cut() {
        let out = |text: &str| record(6, text.as_bytes());
        let err = |text: &str| record(7, text.as_bytes());
        let end = [record(6, b""), record(3, &[0; 8])].concat();
        for (input, expect) in [
            ([out("A: b\r\n\r\nhello"), end.clone()].concat(), "200 1 None hello keep true extra false"),
            (
                [out("Status: 404 N\r\nA"), err("oops\r\n"), out(": b\r\n\r"), out("\nhel"), out("lo"), end.clone()]
                    .concat(),
                "[Error FastCGI sent in stderr: \"oops\"] 404 2 None hello keep true extra false",
            ),
            ([out("Location: /x\n\n"), end.clone()].concat(), "302 1 None  keep true extra false"),
            (
                [out("A: b\n\nx"), err("later"), end.clone()].concat(),
                "200 1 None [Error FastCGI sent in stderr: \"later\"] x keep true extra false",
            ),
            ([out("\r\n"), end.clone()].concat(), "200 0 None  keep true extra false"),
            ([out("Content-Length: 2\n\nabc"), end.clone()].concat(), "200 1 Some(2) ab keep false extra true"),
            (
                [out("Content-Length: 3\n\nab"), end.clone()].concat(),
                "200 1 Some(3) ab ShortResponse upstream prematurely closed FastCGI stdout",
            ),
            (out("Content-Length: 3\n\nab"), "200 1 Some(3) ab ShortResponse upstream prematurely closed connection"),
            (out("A: b\n\nab"), "200 1 None ab ShortResponse upstream prematurely closed connection"),
            (
                [out("A: b\n\nab"), record(6, b"")].concat(),
                "200 1 None ab ShortResponse upstream prematurely closed connection",
            ),
            (out("Content-Length: 2\n\nab"), "200 1 Some(2) ab keep false extra false"),
            (out("A: b"), "ShortResponse upstream prematurely closed connection"),
            ([out("A: b"), end.clone()].concat(), "InvalidResponse upstream prematurely closed FastCGI stdout"),
            (record(3, &[0; 8]), "InvalidResponse upstream sent unexpected FastCGI record: 3"),
            (
                [err("a fatal b"), out("A: b\n\n")].concat(),
                "[Error FastCGI sent in stderr: \"a fatal b\"] InvalidResponse ",
            ),
            (out("Status: 99\n\n"), "InvalidResponse upstream sent invalid status \"99\""),
            (out("Status: x\n\n"), "InvalidResponse upstream sent invalid status \"x\""),
            (out(&format!("A: {}\n\n", "x".repeat(200))), "InvalidResponse upstream sent too big header"),
            (record(9, b"x"), "InvalidResponse upstream sent invalid FastCGI record type: 9"),
        ] {
            for size in 1..=input.len() {
                assert_eq!(events(&input, size, false), expect, "in pieces of {size}");
            }
        }
    }

    #[test]
    fn the_end_of_the_connection_ends_a_response_unless_it_was_to_be_kept() {
        let input = record(6, b"A: b\n\nab");
        for size in 1..=input.len() {
            assert_eq!(events_of(false, &input, size, false), "200 1 None ab keep false extra false");
        }
    }

    #[test]
    fn a_head_alone() {
        let input = record(6, b"Content-Length: 3\n\nabc");
        assert_eq!(events(&input, 5, true), "200 1 Some(3)  keep false extra false");
    }
}
