//! From a backend's head to the response: fields, special fields, the body, the connection's fate.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ::upstream::{Choice, Idle, Outcome};
use buf::{Bytes, Chain};
use engine::log::Level;
use http::exchange::Exchange;
use http::fault::Fault;
use http::phases::Flow;
use http::request::Request;
use http::response::error_page;
use http::response::field::secure_fields;
use http::response::{AskedCharset, Body, Headers};
use wire::Span;
use wire::h1::{HeaderSpan, KnownHeader, Method, ResponseHead};

use crate::cache;
use crate::conf::ignore;
use crate::engine::Backend;
use crate::protocol::{BodyEvent, Codec, End, Head};
use crate::sending::Sending;
use crate::sticky;
use crate::store;
use crate::stream::{self, UpstreamBody};

/// What a backend said, with the connection that it said it on.
pub(super) struct Answer {
    /// The connection.
    pub(super) idle: Box<Idle>,
    /// What reads the rest.
    pub(super) codec: Box<dyn Codec>,
    /// What was read.
    pub(super) reply: Reply,
}

/// The beginning of a response; its head is with the exchange.
pub(super) struct Reply {
    /// The status.
    pub(super) status: u16,
    /// The length of the body, if it is known.
    pub(super) length: Option<u64>,
    /// What is left of the request, if it isn't with the kernel yet.
    pub(super) unsent: Option<Box<Sending>>,
}

/// What follows from an answer.
pub(super) enum Next {
    /// The request goes on so.
    Flow(Flow<'static>),
    /// The protocol was switched: bytes go both ways.
    Tunnel(Box<(Choice, Box<Idle>, Bytes)>),
}

/// Makes a backend's answer the response.
pub(super) fn respond(
    b: &Backend,
    r: &mut Request,
    exchange: &Rc<Exchange>,
    mut choice: Choice,
    answer: Answer,
) -> Next {
    let Answer { mut idle, mut codec, reply: Reply { status, length, unsent } } = answer;
    sticky::answered(r, &mut choice);
    if codec.is_tunnel() {
        // A head alone, after which everything is the tunnel's.
        (r.response.status, r.response.header_only) = (200, true);
        return Next::Tunnel(Box::new((choice, idle, Bytes::default())));
    }
    if status == 101 && r.header(KnownHeader::Upgrade).is_some() {
        if r.is_subrequest() {
            complete(exchange, &mut choice);
            return Next::Flow(Fault::UpgradeInSubrequest.log(r).into());
        }
        accel_rate(b, r, &exchange.head.borrow());
        copy_fields(b, r, exchange);
        return Next::Tunnel(Box::new((choice, idle, codec.take_rest())));
    }
    let replaced = !b.protocol.answers_errors() || b.up.intercept_errors && error_page::has_page(r, status);
    if status >= 300 && replaced {
        if status == 401 {
            copy_challenge(r, exchange);
        }
        cache::intercepted(b, r, exchange, status);
        keep_if_over(b, &mut choice, idle, codec, unsent.is_none());
        complete(exchange, &mut choice);
        return Next::Flow(Flow::Status(status));
    }
    if let Some(flow) = accel_redirect(b, r, exchange) {
        complete(exchange, &mut choice);
        return Next::Flow(flow);
    }
    let filling = fill_head(b, r, exchange, length);
    let mut body = Chain::new();
    let mut read = stream::read(&mut *codec, &mut body);
    let mut trailers = None;
    if let Ok(BodyEvent::Trailers(fields)) = read {
        trailers = Some(fields);
        read = stream::read(&mut *codec, &mut body);
    }
    if let Ok(BodyEvent::End(end @ End { extra: false, .. })) = read {
        exchange.current(|attempt| attempt.length += body.len());
        if end.keep && unsent.is_none() && idle.stream.pending() == 0 && says_last_words(&mut *codec, &mut idle) {
            idle.kept = codec.keep();
            choice.keep(idle, b.place);
        }
        complete(exchange, &mut choice);
        r.response.body = whole(body);
        if let Some(trailers) = trailers {
            exchange.trailers.replace(trailers.clone());
            r.response.trailers = trailers;
        }
        keep(b, r, exchange, filling);
        return Next::Flow(Flow::Respond);
    }
    if read.is_err() && codec.faults_void_body() {
        body.clear();
    }
    let sending = unsent.map_or_else(|| Sending::new(Chain::new(), false, true), |sending| *sending);
    let stream = UpstreamBody::new(b, r, exchange.clone(), choice, idle, codec, sending);
    r.response.body = stream.begin(body, trailers, read);
    keep(b, r, exchange, filling);
    Next::Flow(Flow::Respond)
}

/// Makes the backend's head the response's, and decides whether the response is stored in the cache.
fn fill_head(
    b: &Backend,
    r: &mut Request,
    exchange: &Rc<Exchange>,
    length: Option<u64>,
) -> Option<cache::fill::Filling> {
    accel_fields(b, r, exchange);
    copy_fields(b, r, exchange);
    b.protocol.complete(r);
    r.response.content_length = length;
    let filling = cache::fill::decide(b, r, exchange);
    if b.up.force_ranges {
        (r.response.allow_ranges, r.response.single_range) = (true, true);
    }
    filling
}

/// Notes that the backend's answer is complete, as far as it is wanted.
fn complete(exchange: &Exchange, choice: &mut Choice) {
    exchange.end();
    choice.completed();
    choice.release(Outcome::Good);
}

/// Stores the response where it is to be stored.
fn keep(b: &Backend, r: &mut Request, exchange: &Exchange, filling: Option<cache::fill::Filling>) {
    match filling {
        Some(filling) => filling.keep(b, r, exchange),
        None => store::keep(b, r, exchange),
    }
}

impl Answer {
    /// The answer isn't used: its connection is kept if nothing follows.
    pub(super) fn put_away(self, b: &Backend, choice: &mut Choice) {
        keep_if_over(b, choice, self.idle, self.codec, self.reply.unsent.is_none());
    }
}

/// Keeps a connection whose response has come to its end with the head, if the request was sent whole.
fn keep_if_over(b: &Backend, choice: &mut Choice, mut idle: Box<Idle>, mut codec: Box<dyn Codec>, sent: bool) {
    let over = matches!(codec.read_body(), Ok(BodyEvent::End(End { keep: true, .. })));
    if over && sent && idle.stream.pending() == 0 && says_last_words(&mut *codec, &mut idle) {
        idle.kept = codec.keep();
        choice.keep(idle, b.place);
    }
}

/// Sends what the protocol has to say before the connection waits for its next exchange; whether that went out.
pub(super) fn says_last_words(codec: &mut dyn Codec, idle: &mut Idle) -> bool {
    if !codec.transmits() {
        return true;
    }
    let mut words = Chain::new();
    codec.transmit(&mut words);
    if words.is_empty() {
        return true;
    }
    let sent = idle.stream.poll_send(&mut Context::from_waker(Waker::noop()), &mut words);
    // They belong to no request.
    idle.count();
    matches!(sent, Poll::Ready(Ok(())))
}

fn copy_challenge(r: &mut Request, exchange: &Exchange) {
    let head = exchange.head.borrow();
    let (bytes, head) = &*head;
    for header in head.headers.iter().filter(|header| header.known == KnownHeader::WwwAuthenticate) {
        r.response.headers.push_known(header.known, part(bytes, header.name), part(bytes, header.value));
    }
}

fn part(bytes: &Bytes, span: Span) -> Bytes {
    let end = (span.end as usize).min(bytes.len());
    bytes.slice((span.start as usize).min(end)..end)
}

/// `X-Accel-Redirect`: another URI of this server answers.
fn accel_redirect(b: &Backend, r: &mut Request, exchange: &Exchange) -> Option<Flow<'static>> {
    if b.up.ignore_headers & ignore::XA_REDIRECT != 0 {
        return None;
    }
    let value = {
        let head = exchange.head.borrow();
        let (bytes, head) = &*head;
        let value = part(bytes, head.find(KnownHeader::XAccelRedirect)?.value);
        r.response.clear();
        for header in &head.headers {
            match header.known {
                KnownHeader::ContentType => r.response.content_type = Some(part(bytes, header.value)),
                KnownHeader::SetCookie
                | KnownHeader::ContentDisposition
                | KnownHeader::CacheControl
                | KnownHeader::Expires
                | KnownHeader::AcceptRanges => {
                    let (name, value) = (part(bytes, header.name), part(bytes, header.value));
                    r.response.headers.push_known(header.known, name, value);
                }
                _ => {}
            }
        }
        value
    };
    accel_rate(b, r, &exchange.head.borrow());
    if value.first() == Some(&b'@') {
        return Some(r.redirect_named(&value));
    }
    let (path, args) = match memchr::memchr(b'?', &value) {
        Some(at) => (value.slice(0..at), Some(value.slice(at + 1..value.len()))),
        None => (value.clone(), None),
    };
    let mut uri = Vec::with_capacity(path.len());
    wire::uri::unescape(&path, &mut uri);
    if wire::uri::is_unsafe(&uri) {
        return Some(Fault::UnsafeUri.log_with(r, &buf::text::encode(&uri)).into());
    }
    if r.method != Method::Head {
        r.method = Method::Get;
    }
    Some(r.redirect(&uri, args.as_deref()))
}

/// What fields of the backend say of the response's way to the client.
pub(super) fn accel_fields(b: &Backend, r: &mut Request, exchange: &Exchange) {
    let head = exchange.head.borrow();
    accel_rate(b, r, &head);
    if let Some(field) = head.1.find(KnownHeader::XAccelCharset)
        && b.up.ignore_headers & ignore::XA_CHARSET == 0
    {
        // The charset in which the client gets it.
        r.slot::<AskedCharset>().0 = Some(part(&head.0, field.value));
    }
}

/// `X-Accel-Limit-Rate`: bytes a second.
fn accel_rate(b: &Backend, r: &mut Request, head: &Head) {
    if let Some(field) = head.1.find(KnownHeader::XAccelLimitRate)
        && b.up.ignore_headers & ignore::XA_LIMIT_RATE == 0
        && let Some(rate) = buf::parse::parse_number(field.value.of(&head.0))
    {
        r.rate = Some(rate);
    }
}

/// Whether the body is buffered, as the configuration and the backend say.
pub(super) fn buffering(b: &Backend, exchange: &Exchange) -> bool {
    if b.up.ignore_headers & ignore::XA_BUFFERING != 0 {
        return b.up.buffering;
    }
    let head = exchange.head.borrow();
    match head.1.value(KnownHeader::XAccelBuffering, &head.0) {
        Some(value) if value.eq_ignore_ascii_case(b"no") => false,
        Some(value) if value.eq_ignore_ascii_case(b"yes") => true,
        _ => b.up.buffering,
    }
}

/// Fields that may stand in a head once; further ones are dropped.
const SINGLE: u64 = bits(&[
    KnownHeader::ContentType,
    KnownHeader::Date,
    KnownHeader::Server,
    KnownHeader::LastModified,
    KnownHeader::ETag,
    KnownHeader::Location,
    KnownHeader::Refresh,
    KnownHeader::Expires,
    KnownHeader::XAccelExpires,
    KnownHeader::Status,
]);

/// Whether further fields of that name are ignored.
pub(crate) fn is_single(known: KnownHeader) -> bool {
    SINGLE & 1 << known as u8 != 0
}

/// Fields of the connection and of the body's framing, which the response has of its own.
const FRAMING: u64 =
    bits(&[KnownHeader::Connection, KnownHeader::KeepAlive, KnownHeader::TransferEncoding, KnownHeader::ContentLength]);

const fn bits(headers: &[KnownHeader]) -> u64 {
    let mut bits = 0;
    let mut n = 0;
    while n < headers.len() {
        bits |= 1 << headers[n] as u8;
        n += 1;
    }
    bits
}

pub(super) fn copy_fields(b: &Backend, r: &mut Request, exchange: &Exchange) {
    let guard = exchange.head.borrow();
    let (bytes, head) = &*guard;
    let data = bytes.as_slice();
    let response = &mut r.response;
    response.status = head.status;
    response.status_line = None;
    if !response.headless && !matches!(head.status_line.of(data), b"200 OK" | b"") {
        response.status_line = Some(part(bytes, head.status_line));
    }
    response.headers.reserve(head.headers.len());
    response.disable_not_modified = true;
    response.headless = head.version == 9;
    // As in nginx, a head of HTTP/1 without these two has them, if empty.
    let has = |known| head.has(known) || (1000..2000).contains(&head.version);
    response.own_date = !b.hidden.has(KnownHeader::Date, b"") && has(KnownHeader::Date);
    response.own_server = !b.hidden.has(KnownHeader::Server, b"") && has(KnownHeader::Server);
    let dropped = FRAMING | b.hidden.known();
    let mut seen = 0;
    for header in &head.headers {
        let bit = 1_u64 << header.known as u8;
        if SINGLE & bit != 0 {
            if seen & bit != 0 {
                warn_duplicate(r, header, bytes, head);
                continue;
            }
            seen |= bit;
        }
        let hidden = match header.known {
            KnownHeader::Other => b.hidden.has(header.known, header.name.of(data)),
            _ => dropped & bit != 0,
        };
        if !hidden {
            copy_field(b, r, header, bytes);
        }
    }
}

/// A 103 of the backend as the client gets it, if the configuration lets it.
pub(super) fn early_hints(b: &Backend, r: &mut Request, data: &[u8], head: &ResponseHead) -> Option<Headers> {
    let conditions = r.location.core.early_hints.clone();
    if conditions.is_empty() || r.line.version < 1001 || !conditions.iter().any(|condition| r.test(condition)) {
        return None;
    }
    let mut out = Headers::default();
    for header in &head.headers {
        let (name, value) = (header.name.of(data), header.value.of(data));
        let framing = (FRAMING | bits(&[KnownHeader::Upgrade])) & 1 << header.known as u8 != 0;
        if !framing && !b.hidden.has(header.known, name) {
            out.push(name.to_vec(), value.to_vec());
        }
    }
    secure_fields(r, &mut out);
    // Without a field it tells nothing.
    (!out.is_empty()).then_some(out)
}

fn warn_duplicate(r: &Request, header: &HeaderSpan, bytes: &Bytes, head: &ResponseHead) {
    let Some(first) = head.find(header.known) else { return };
    let text = |span: Span| buf::text::encode(span.of(bytes)).into_owned();
    let (name, value, first_name, first_value) =
        (text(header.name), text(header.value), text(first.name), text(first.value));
    r.log_at(
        Level::Warn,
        format_args!(
            "upstream sent duplicate header line: \"{name}: {value}\", previous value: \
             \"{first_name}: {first_value}\", ignored while reading response header from upstream"
        ),
    );
}

fn copy_field(b: &Backend, r: &mut Request, header: &HeaderSpan, bytes: &Bytes) {
    let value = || part(bytes, header.value);
    match header.known {
        KnownHeader::AcceptRanges if b.up.force_ranges => return,
        KnownHeader::ContentType => return content_type(r, value()),
        KnownHeader::LastModified => {
            if let Some(time) = wire::date::parse_canonical_time(header.value.of(bytes)) {
                r.response.last_modified = Some(time);
                return;
            }
        }
        KnownHeader::ETag => {
            return r.response.headers.set_fixed(KnownHeader::ETag, value());
        }
        KnownHeader::Location | KnownHeader::Refresh | KnownHeader::SetCookie => {
            let changed = b.protocol.rewrite(r, header.known, header.value.of(bytes));
            if let Some(changed) = changed {
                return match header.known {
                    KnownHeader::Location => r.response.headers.set_fixed(KnownHeader::Location, changed),
                    known => r.response.headers.push_known(known, part(bytes, header.name), changed),
                };
            }
        }
        _ => {}
    }
    r.response.headers.push_known(header.known, part(bytes, header.name), value());
}

/// `type; charset=x` is taken apart, so that filters see both; any other form stays as it is.
fn content_type(r: &mut Request, value: Bytes) {
    const MARK: &[u8] = b"; charset=";
    if value.is_empty() {
        return;
    }
    // Values are too short for a search by vectors to pay.
    let at = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
    match value[at..].strip_prefix(MARK) {
        Some(charset) if !charset.contains(&b';') => {
            r.response.charset.get_or_insert_with(|| value.slice(at + MARK.len()..value.len()));
            r.response.content_type = Some(value.slice(0..at));
        }
        _ => r.response.content_type = Some(value),
    }
}

/// The fields of a block of trailers.
pub(super) fn trailer_fields(block: &[u8], fields: &[HeaderSpan]) -> Headers {
    let bytes = Bytes::copy_from(block);
    let mut headers = Headers::default();
    for field in fields {
        headers.push(part(&bytes, field.name), part(&bytes, field.value));
    }
    headers
}

/// A body that is there as a whole.
pub(super) fn whole(chain: Chain) -> Body {
    if chain.is_empty() { Body::Empty } else { Body::Chain(chain) }
}
