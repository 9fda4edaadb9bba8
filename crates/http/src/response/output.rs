//! Sending a response over HTTP/1: its head, and its body through the filters it needs.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use buf::text::decimal;
use buf::{Buf, Bytes, Chain, FileRange, Piece};
use engine::log::{Errno, Level};
use rt::Tried;
use wire::h1::{KnownHeader, LAST_CHUNK, Method};

use super::field::{secure_fields, secure_head};
use crate::body::{BodyStream, Broken, Part};
use crate::config::core::{Aio, CoreLocation, ServerTokens};
use crate::request::Request;
use crate::response::{Body, Headers, reason};
use crate::session::client::Client;
use crate::session::h2;

/// Changes a body on its way to the client.
pub trait BodyFilter {
    /// Takes a part of the body and appends what becomes of it. `end` is set with the last part (which may be empty),
    /// `flush` where everything is to be sent on.
    fn apply(&mut self, input: Chain, end: bool, flush: bool, out: &mut Chain) -> Result<(), Broken>;

    /// Whether it looks at the bytes, so that files have to be read.
    fn reads(&self) -> bool {
        true
    }
}

/// A file of at most this size goes out with its head in one call, even where sendfile is on: one read and one send
/// cost less than a send, a sendfile and the cork between them.
const SMALL_FILE: u64 = 32 << 10;
/// Bytes up to this many are copied behind the head: a copy costs less than a second piece in the call.
const SMALL_BYTES: usize = 8 << 10;
/// Memory for a head; most fit.
const HEAD_SIZE: usize = 1024;

/// What is left of a response that didn't go out at once.
enum Rest {
    /// Nothing.
    Sent,
    /// Bytes that nothing changes on their way.
    Bytes(Chain),
    /// What filters, chunks or files are in the way of.
    Body(Buf, Chain),
    /// A body that comes in parts.
    Stream(Buf, Box<dyn BodyStream>),
}

/// The sending of what doesn't go out at once.
type Sending<'a> = Pin<Box<dyn Future<Output = Result<(), Broken>> + 'a>>;

/// Sends the response of a request, head and body. After an error the connection is of no use.
pub async fn send(r: &mut Request) -> Result<(), Broken> {
    // Most responses are over with the first call; the futures of the others are boxes, so that a request's stays small.
    match send_rest(r)? {
        Some(rest) => rest.await,
        None => Ok(()),
    }
}

/// Sends what goes out at once; the future of the rest, if there is one.
fn send_rest(r: &mut Request) -> Result<Option<Sending<'_>>, Broken> {
    Ok(match begin(r)? {
        Rest::Sent => None,
        Rest::Bytes(mut chain) => Some(Box::pin(async move { write(r, &mut chain, None, true).await })),
        Rest::Body(head, body) => Some(Box::pin(write_body(r, head, body))),
        Rest::Stream(head, stream) => Some(Box::pin(pump_stream(r, head, stream))),
    })
}

/// Makes the head, and sends what is small.
fn begin(r: &mut Request) -> Result<Rest, Broken> {
    r.client().ok_or(Broken)?.set_send_timeout(Some(r.location.core.send_timeout));
    let Some(mut head) = head(r, true) else { return Ok(Rest::Sent) };
    let mut body = match std::mem::take(&mut r.response.body) {
        _ if r.response.header_only => Chain::new(),
        Body::Empty => Chain::new(),
        Body::Chain(chain) => chain,
        Body::Stream(stream) => return Ok(Rest::Stream(head, stream)),
    };
    if !r.response.header_only && (r.response.chunked || !r.response.filters.is_empty()) {
        return Ok(Rest::Body(head, body));
    }
    if body.len() <= SMALL_FILE && r.location.core.aio == Aio::Off {
        put_behind(r, &mut head, &mut body)?;
        let limited = r.location.core.limit_rate.is_some() || r.rate.is_some();
        if body.is_empty()
            && !limited
            && let Some(client @ Client::Socket(_)) = r.client()
        {
            match client.try_send(&head).map_err(|error| send_failed(r, &error))? {
                Tried::Sent(sent) => head.consume(sent),
                Tried::Taken => return Ok(Rest::Bytes(Chain::new())),
                Tried::Nothing => {}
            }
            if head.is_empty() {
                return Ok(Rest::Sent);
            }
        }
    }
    if has_files(&body) {
        return Ok(Rest::Body(head, body));
    }
    let mut out = Chain::from(head.freeze());
    out.append(&mut body);
    Ok(Rest::Bytes(out))
}

/// Sends the head alone, for handlers that go on with the connection themselves.
pub async fn send_head(r: &mut Request) -> Result<(), Broken> {
    r.client().ok_or(Broken)?.set_send_timeout(Some(r.location.core.send_timeout));
    match head(r, false) {
        Some(head) => write(r, &mut Chain::from(head.freeze()), None, false).await,
        None => Ok(()),
    }
}

/// A body that is known as a whole, but doesn't go out as it is.
async fn write_body(r: &mut Request, head: Buf, mut body: Chain) -> Result<(), Broken> {
    let mut out = Chain::from(head.freeze());
    let core = r.location.core.clone();
    r.client().ok_or(Broken)?.set_nopush(core.tcp_nopush);
    loop {
        let step = next_step(r, &core, &mut body).await?;
        let end = body.is_empty();
        transform(r, step, end, false, &mut out)?;
        if !end && out.len() < core.postpone_output as u64 {
            continue;
        }
        write(r, &mut out, None, end).await?;
        if end {
            return Ok(());
        }
        rt::yield_now().await;
    }
}

/// A body that comes in parts.
async fn pump_stream(r: &mut Request, head: Buf, mut stream: Box<dyn BodyStream>) -> Result<(), Broken> {
    let result = pump_parts(r, head, &mut *stream).await;
    let sent = r.body_bytes_sent();
    stream.finished(sent, result.is_ok());
    result
}

async fn pump_parts(r: &mut Request, head: Buf, stream: &mut dyn BodyStream) -> Result<(), Broken> {
    let core = r.location.core.clone();
    r.link.as_mut().ok_or(Broken)?.set_nodelay(core.tcp_nodelay);
    let mut out = Chain::from(head.freeze());
    loop {
        let part = if out.is_empty() {
            poll_fn(|cx| stream.poll_part(cx)).await
        } else {
            // What is held back goes out when nothing more comes at once.
            match poll_fn(|cx| Poll::Ready(stream.poll_part(cx))).await {
                Poll::Ready(part) => part,
                Poll::Pending => {
                    write(r, &mut out, Some(stream), false).await?;
                    poll_fn(|cx| stream.poll_part(cx)).await
                }
            }
        };
        let part = match part {
            Ok(part) => part,
            Err(Broken) => {
                // What was received goes out before the connection is closed, so that the client can tell.
                r.cut_short = write(r, &mut out, None, false).await.is_ok();
                return Err(Broken);
            }
        };
        let end = part.is_none();
        let Part { mut chain, flush } = part.unwrap_or(Part { chain: Chain::new(), flush: false });
        if end && let Some(mut trailers) = stream.trailers() {
            r.response.trailers.0.append(&mut trailers.0);
        }
        loop {
            let step = next_step(r, &core, &mut chain).await?;
            let last = chain.is_empty();
            transform(r, step, end && last, flush && last, &mut out)?;
            if out.len() >= core.postpone_output as u64 || flush || end {
                write(r, &mut out, Some(stream), end && last).await?;
            }
            if last {
                break;
            }
        }
        if end {
            return Ok(());
        }
    }
}

/// The next bytes to send: files that filters have to see, or that are not for sendfile, are read.
async fn next_step(r: &mut Request, core: &Rc<CoreLocation>, body: &mut Chain) -> Result<Chain, Broken> {
    // A stream cuts files into frames itself, and holds no more of them than goes out at once.
    let stream = r.h2_stream().is_some();
    let whole = core.sendfile || (stream && core.aio == Aio::Off);
    let read = !whole || r.response.filters.iter().any(|filter| filter.reads());
    let mut step = Chain::new();
    while let Some(piece) = body.first() {
        match piece {
            Piece::Bytes(_) => step.extend_one(body),
            Piece::File(_) if !step.is_empty() && read => break,
            Piece::File(range) if read => {
                let size = core.output_buffers.size.clamp(1024, 1 << 20) as u64;
                let part = FileRange { len: range.len.min(size), ..range.clone() };
                let bytes = read_part(r, core, &part).await?;
                body.advance(part.len);
                step.push_bytes(bytes);
                break;
            }
            Piece::File(_) => {
                let most =
                    if core.sendfile_max_chunk == 0 || stream { u64::MAX } else { core.sendfile_max_chunk as u64 };
                step.append(&mut body.split_to(most));
                break;
            }
        }
    }
    Ok(step)
}

trait ExtendOne {
    fn extend_one(&mut self, from: &mut Chain);
}

impl ExtendOne for Chain {
    fn extend_one(&mut self, from: &mut Chain) {
        if let Some(piece) = from.pop() {
            self.push(piece);
        }
    }
}

async fn read_part(r: &Request, core: &CoreLocation, part: &FileRange) -> Result<Bytes, Broken> {
    let result = match &core.aio {
        Aio::Threads(name) => match r.http.worker.context.get().and_then(|context| (context.pools)(name)) {
            Some(pool) => {
                let file = part.file.try_clone().map_err(|error| read_failed(r, &error))?;
                let (offset, len) = (part.offset, part.len as usize);
                let read = pool.run(move || {
                    let mut memory = vec![0; len];
                    file.read_exact_at(&mut memory, offset).map(|()| memory)
                });
                match read.await {
                    Ok(read) => read.map(Bytes::from),
                    Err(_) => read_here(part),
                }
            }
            None => read_here(part),
        },
        Aio::Off | Aio::On => read_here(part),
    };
    result.map_err(|error| read_failed(r, &error))
}

fn read_here(part: &FileRange) -> io::Result<Bytes> {
    let len = part.len as usize;
    let mut buf = Buf::with_capacity(len);
    part.file.read_exact_at(&mut buf.room_mut()[..len], part.offset)?;
    buf.filled(len);
    Ok(buf.freeze())
}

fn read_failed(r: &Request, error: &io::Error) -> Broken {
    r.log_at(Level::Crit, format_args!("pread() failed{}", Errno(error)));
    Broken
}

/// Puts a small body right behind the head, so that one send of one buffer takes both.
fn put_behind(r: &Request, head: &mut Buf, body: &mut Chain) -> Result<(), Broken> {
    match body.pieces() {
        [Piece::Bytes(bytes)] if bytes.len() <= SMALL_BYTES => head.extend_from_slice(bytes),
        [Piece::File(range)] => {
            let len = range.len as usize;
            head.reserve(len);
            let read = range.file.read_exact_at(&mut head.room_mut()[..len], range.offset);
            read.map_err(|error| read_failed(r, &error))?;
            head.filled(len);
        }
        _ => return Ok(()),
    }
    body.clear();
    Ok(())
}

fn has_files(chain: &Chain) -> bool {
    chain.pieces().iter().any(|piece| matches!(piece, Piece::File(_)))
}

/// Sends a part of the body through the filters, and puts it into chunks.
fn transform(r: &mut Request, part: Chain, end: bool, flush: bool, out: &mut Chain) -> Result<(), Broken> {
    let mut part = part;
    for filter in &mut r.response.filters {
        let mut next = Chain::new();
        filter.apply(part, end, flush, &mut next)?;
        part = next;
    }
    if !r.response.chunked {
        out.append(&mut part);
        return Ok(());
    }
    if !part.is_empty() {
        let mut size = Vec::with_capacity(12);
        wire::h1::chunk_head(part.len(), &mut size);
        out.push_bytes(size);
        out.append(&mut part);
        out.push_bytes(Bytes::from_static(b"\r\n"));
    }
    if end {
        if let Some(add) = r.response.late_trailers.take() {
            add(r);
        }
        let mut trailers = std::mem::take(&mut r.response.trailers);
        secure_fields(r, &mut trailers);
        out.push_bytes(last_chunk(&trailers));
        r.response.trailers = trailers;
    }
    Ok(())
}

fn last_chunk(trailers: &Headers) -> Bytes {
    if trailers.0.is_empty() {
        return Bytes::from_static(LAST_CHUNK);
    }
    let mut text = b"0\r\n".to_vec();
    for trailer in &trailers.0 {
        text.extend_from_slice(&trailer.name);
        text.extend_from_slice(b": ");
        text.extend_from_slice(&trailer.value);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    Bytes::from(text)
}

/// Writes to the client; a body that comes in parts may read ahead while the client is slow.
/// With `end` the response is over.
async fn write(r: &mut Request, out: &mut Chain, ahead: Option<&mut dyn BodyStream>, end: bool) -> Result<(), Broken> {
    let rate = if r.location.core.limit_rate.is_some() || r.rate.is_some() { r.limit_rate() } else { 0 };
    if rate > 0 {
        return Box::pin(write_slowly(r, out, rate, end)).await;
    }
    if end {
        h2::finish_response(r);
    }
    let mut ahead = ahead;
    let stream = r.client().ok_or(Broken)?;
    let sent = poll_fn(|cx| {
        let poll = stream.poll_send(cx, out);
        if poll.is_pending() {
            if stream.poll_hangup(cx).is_ready() {
                return Poll::Ready(None);
            }
            if let Some(body) = &mut ahead {
                body.poll_ahead(cx);
            }
        }
        poll.map(Some)
    });
    match sent.await {
        Some(result) => result.map_err(|error| send_failed(r, &error)),
        None => Err(client_gone(r)),
    }
}

/// The client closed its side while its response was on the way: nobody is left to read it.
fn client_gone(r: &mut Request) -> Broken {
    r.log_at(Level::Info, format_args!("client prematurely closed connection while sending response to client"));
    Broken
}

/// Waits; an error if the client leaves meanwhile.
async fn pause(r: &mut Request, ms: u64) -> Result<(), Broken> {
    let mut sleep = std::pin::pin!(rt::sleep(ms));
    let stream = r.client().ok_or(Broken)?;
    let slept = poll_fn(|cx| match stream.poll_hangup(cx) {
        Poll::Ready(()) => Poll::Ready(false),
        Poll::Pending => sleep.as_mut().poll(cx).map(|()| true),
    });
    if slept.await { Ok(()) } else { Err(client_gone(r)) }
}

/// As [`write`], at `rate` bytes a second after the first `limit_rate_after` ones.
async fn write_slowly(r: &mut Request, out: &mut Chain, rate: u64, end: bool) -> Result<(), Broken> {
    let after = r.limit_rate_after();
    let mut ended = false;
    while !out.is_empty() {
        let elapsed_s = r.elapsed_ms() / 1000;
        let allowed = (rate * (elapsed_s + 1) + after).saturating_sub(r.bytes_sent());
        if allowed == 0 {
            let over = r.bytes_sent().saturating_sub(rate * (elapsed_s + 1) + after);
            pause(r, over * 1000 / rate + 1).await?;
            continue;
        }
        let before = r.bytes_sent();
        let mut part = out.split_to(allowed);
        if end && out.is_empty() {
            ended = true;
            h2::finish_response(r);
        }
        r.client().ok_or(Broken)?.send(&mut part).await.map_err(|error| send_failed(r, &error))?;
        let pause = (r.bytes_sent() - before) * 1000 / rate;
        if !out.is_empty() && pause > 1 {
            self::pause(r, pause).await?;
        }
    }
    if end && !ended {
        h2::finish_response(r);
        r.client().ok_or(Broken)?.send(out).await.map_err(|error| send_failed(r, &error))?;
    }
    Ok(())
}

fn send_failed(r: &mut Request, error: &io::Error) -> Broken {
    if error.kind() == io::ErrorKind::TimedOut {
        r.log_at(Level::Info, format_args!("client timed out{} while sending response to client", Errno(&timed_out())));
        if r.location.core.reset_timedout_connection {
            r.client().inspect(|client| client.linger_reset());
        }
    } else {
        let action = "while sending response to client";
        match r.h2_stream() {
            Some(_) => r.log_at(Level::Info, format_args!("client prematurely closed connection {action}")),
            None => r.log_at(Level::Info, format_args!("send() failed{} {action}", Errno(error))),
        }
    }
    Broken
}

fn timed_out() -> io::Error {
    io::Error::from_raw_os_error(110)
}

/// Decides what the head says of body and connection, and makes it; on a stream of HTTP/2 it is queued at once, and
/// what is given back is the place for a body. `None`: that was the whole response, which it may be if `may_end`.
fn head(r: &mut Request, may_end: bool) -> Option<Buf> {
    decide(r);
    secure_head(r);
    if r.h2_stream().is_some() {
        let location = r.response.location.take().map(|location| whole_location(r, location));
        r.response.location.clone_from(&location);
        return if h2::send_head(r, location, may_end) { None } else { Some(Buf::with_capacity(room_behind(r))) };
    }
    let head = text_head(r);
    r.header_sent = head.len() as u64;
    Some(head)
}

/// Room for a head, and for a small body behind it.
fn room_behind(r: &Request) -> usize {
    let response = &r.response;
    let small = response.content_length.filter(|length| *length <= SMALL_FILE && !response.header_only);
    HEAD_SIZE + small.unwrap_or(0) as usize
}

/// The head as HTTP/1 writes it.
fn text_head(r: &mut Request) -> Buf {
    if r.line.version == 9 || r.response.headless {
        // HTTP/0.9 has no head.
        return Buf::with_capacity(HEAD_SIZE);
    }
    let mut out = Buf::with_capacity(room_behind(r));
    status_line(r, &mut out);
    fixed_fields(r, &mut out);
    let response = &r.response;
    if response.content_type.is_some() {
        content_type(r, &mut out);
    }
    if let Some(length) = response.content_length {
        field(&mut out, b"Content-Length: ", decimal(length, &mut [0; 20]));
    }
    if let Some(time) = response.last_modified {
        field(&mut out, b"Last-Modified: ", &wire::date::format_http_time(time));
    }
    if let Some(location) = r.response.location.take() {
        let location = whole_location(r, location);
        field(&mut out, b"Location: ", &location);
        // Logs show it as it went out.
        r.response.location = Some(location);
    }
    let response = &r.response;
    if response.chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    connection_fields(r, &mut out);
    if gzip_varies(r) {
        out.extend_from_slice(b"Vary: Accept-Encoding\r\n");
    }
    if let Some(etag) = &response.etag {
        field(&mut out, b"ETag: ", etag);
    }
    for header in &response.headers.0 {
        out.extend_from_slice(&header.name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(&header.value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Whether `Vary: Accept-Encoding` is sent.
pub fn gzip_varies(r: &Request) -> bool {
    r.response.gzip_vary && r.location.set.get::<super::gzip::GzipConf>().gzip_vary
}

fn field(out: &mut Buf, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Body or none, chunked or not, kept or closed.
fn decide(r: &mut Request) {
    let core = r.location.core.clone();
    let chunks = (1001..2000).contains(&r.line.version) && core.chunked_transfer_encoding && !r.response.headless;
    let response = &mut r.response;
    // What a backend says of itself stays.
    let own = !response.disable_not_modified;
    if own && !matches!(response.status, 200 | 206 | 304) {
        response.last_modified = None;
    }
    if response.content_type.as_ref().is_some_and(|value| value.is_empty()) {
        response.content_type = None;
    }
    if matches!(response.status, 204 | 304) || response.status < 200 {
        response.header_only = true;
        if response.status != 304 {
            response.content_length = None;
        }
        if own {
            (response.content_type, response.charset) = (None, None);
        }
        // A backend's tells of what would have been sent.
        if response.status == 304 && r.upstream.is_none() {
            response.content_length = None;
        }
    } else if r.line.method_id == Method::Head && r.line.version != 9 {
        response.header_only = true;
    }
    if response.late_trailers.is_some() && !response.header_only && chunks {
        response.content_length = None;
    }
    let endless = response.content_length.is_none() && !matches!(response.status, 101 | 204 | 304);
    if endless && chunks {
        response.chunked = !response.header_only;
    } else if endless && (!response.header_only || !core.chunked_transfer_encoding) {
        r.keepalive = false;
    }
    if r.keepalive {
        r.keepalive = may_keep(r, &core);
    }
}

/// The limits on keeping a connection.
fn may_keep(r: &Request, core: &CoreLocation) -> bool {
    core.keepalive_timeout.0 > 0
        && (r.conn.requests as usize) < core.keepalive_requests
        && rt::now_ms().saturating_sub(r.conn.started_ms) < core.keepalive_time
        && r.link.as_ref().is_some_and(|link| r.http.worker.keeps(link))
        && !(core.keepalive_disable > 1 && disabled_browser(r, core.keepalive_disable))
}

fn disabled_browser(r: &Request, disable: u32) -> bool {
    let agent = r.header(KnownHeader::UserAgent).unwrap_or_default();
    let has = |text: &[u8]| memchr::memmem::find(agent, text).is_some();
    let msie6 = disable & 2 != 0 && r.line.method_id == Method::Post && (has(b"MSIE 6.") || has(b"MSIE 5."));
    let safari = disable & 4 != 0 && has(b"Safari/") && has(b"Mac OS X") && !has(b"Chrome/");
    msie6 || safari
}

fn status_line(r: &Request, out: &mut Buf) {
    let response = &r.response;
    if let Some(line) = &response.status_line {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
        return;
    }
    if response.status == 200 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    match (response.status, reason(response.status)) {
        (101, _) => out.extend_from_slice(b"101 Switching Protocols"),
        (_, Some(text)) => out.extend_from_slice(text.as_bytes()),
        (status, None) => {
            let digits =
                [b'0' + (status / 100 % 10) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8];
            out.extend_from_slice(&digits);
            out.extend_from_slice(b" ");
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The fields of a second: `Server` and `Date`.
struct Fixed {
    secs: i64,
    tokens: ServerTokens,
    text: Vec<u8>,
    server_len: usize,
}

thread_local! {
    static FIXED: RefCell<Fixed> = const {
        RefCell::new(Fixed { secs: i64::MIN, tokens: ServerTokens::Off, text: Vec::new(), server_len: 0 })
    };
}

fn fixed_fields(r: &Request, out: &mut Buf) {
    let tokens = r.location.core.server_tokens;
    let (secs, _) = engine::clock::now();
    FIXED.with_borrow_mut(|fixed| {
        if fixed.secs != secs || fixed.tokens != tokens {
            (fixed.secs, fixed.tokens) = (secs, tokens);
            fixed.text = format!("Server: {}\r\n", server_token(tokens)).into_bytes();
            fixed.server_len = fixed.text.len();
            let date = format!("Date: {}\r\n", engine::clock::times().http_date);
            fixed.text.extend_from_slice(date.as_bytes());
        }
        let from = if r.response.own_server { fixed.server_len } else { 0 };
        let to = if r.response.own_date { fixed.server_len } else { fixed.text.len() };
        if from < to {
            out.extend_from_slice(&fixed.text[from..to]);
        }
    });
}

/// What the server calls itself.
pub fn server_token(tokens: ServerTokens) -> &'static str {
    let names = engine::server_names();
    match tokens {
        ServerTokens::Off => names.name,
        ServerTokens::On => &names.version,
        ServerTokens::Build => &names.build,
    }
}

fn content_type(r: &Request, out: &mut Buf) {
    let Some(value) = &r.response.content_type else { return };
    out.extend_from_slice(b"Content-Type: ");
    out.extend_from_slice(value);
    if let Some(charset) = &r.response.charset {
        out.extend_from_slice(b"; charset=");
        out.extend_from_slice(charset);
    }
    out.extend_from_slice(b"\r\n");
}

/// A path becomes a whole URL, where `absolute_redirect` says so.
fn whole_location(r: &mut Request, location: Bytes) -> Bytes {
    let core = r.location.core.clone();
    if location.first() != Some(&b'/') || !core.absolute_redirect {
        return location;
    }
    let mut out = Vec::with_capacity(location.len() + 64);
    out.extend_from_slice(r.scheme());
    out.extend_from_slice(b"://");
    let local = r.local_addr().clone();
    let name = if core.server_name_in_redirect { &r.server.name[..] } else { &r.host[..] };
    if name.is_empty() {
        out.extend_from_slice(local_text(&local).as_bytes());
    } else {
        out.extend_from_slice(name);
    }
    let port = local.port();
    let default_port = if r.conn.is_secure() { 443 } else { 80 };
    if core.port_in_redirect && port != 0 && port != default_port {
        out.extend_from_slice(b":");
        out.extend_from_slice(decimal(u64::from(port), &mut [0; 20]));
    }
    out.extend_from_slice(&location);
    Bytes::from(out)
}

fn local_text(local: &os::SockAddr) -> String {
    match local {
        os::SockAddr::V6(addr) => format!("[{}]", addr.ip()),
        other => other.text(),
    }
}

fn connection_fields(r: &Request, out: &mut Buf) {
    if r.response.status == 101 {
        out.extend_from_slice(b"Connection: upgrade\r\n");
    } else if !r.keepalive {
        out.extend_from_slice(b"Connection: close\r\n");
    } else {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
        if let Some(seconds) = r.keepalive_header() {
            field(out, b"Keep-Alive: timeout=", decimal(seconds, &mut [0; 20]));
        }
    }
}
