//! Sending a response to its client: the head, then the body, portion by portion.
//!
//! Small responses go out with one call. What differs between protocols is how a head is written and how a body is framed:
//! `h1/head.rs` and `h2/head.rs`.

use std::future::{Future, poll_fn};
use std::io;
use std::os::unix::fs::FileExt;
use std::task::{Context, Poll, Waker};

use buf::{Buf, Chain, Piece};
use engine::log::{Errno, Level, TIMED_OUT};
use rt::Tried;
use wire::h1::{CHUNK_END, CHUNK_HEAD, chunk, chunk_head};

use super::client::Client;
use super::{h1, h2};
use crate::body::files::FileRule;
use crate::body::pipeline::read_failed;
use crate::body::{Body, Broken, Pipeline, Portion};
use crate::config::core::Aio;
use crate::request::{Delivery, Request};
use crate::response::field::secure_head;
use crate::response::head;

/// A file of at most this size goes out with its head in one call, even where sendfile is on: one read and one send
/// cost less than a send, a sendfile and the cork between them.
const SMALL_FILE: u64 = 32 << 10;
/// Bytes up to this many are copied after the head: a copy costs less than a second piece in the call.
const SMALL_BYTES: usize = 8 << 10;

/// As long as more of a body comes at once, so much of it is gathered before it is written. What is to be flushed isn't.
const GATHERED: u64 = 64 << 10;

/// What is left of a response that didn't go out at once.
pub enum Rest {
    /// Bytes that nothing changes on their way: they are the response's body now.
    Bytes,
    /// A body that filters, chunks or files are in the way of, or that comes in parts; with the head.
    Body(Buf),
}

/// Sends the response of a request, head and body, as far as that goes at once. After an error the connection can't be used
/// any more.
pub fn begin(r: &mut Request) -> Result<Option<Rest>, Broken> {
    let Some(mut head) = head(r, true) else { return Ok(None) };
    if let Some(bytes) = bytes_at_hand(r) {
        head.extend_from_slice(bytes);
        return send_head_and_body(r, head);
    }
    begin_to_send(r)?;
    let response = &mut r.response;
    let filtered = !response.filters.is_empty();
    let mut body = match std::mem::take(&mut response.body) {
        _ if response.header_only => Chain::new(),
        Body::Empty => Chain::new(),
        Body::Chain(chain) => chain,
        stream @ Body::Stream(_) => {
            response.body = stream;
            return Ok(Some(Rest::Body(head)));
        }
    };
    let chunked = response.chunked && !response.header_only;
    if filtered && !response.header_only || chunked && !is_small(&body) {
        response.body = Body::Chain(body);
        return Ok(Some(Rest::Body(head)));
    }
    if chunked {
        append_chunk(r, &mut head, &mut body);
    }
    if body.len() <= SMALL_FILE && r.location.core.aio == Aio::Off {
        if !is_limited(r) && h2::send_small(r, &body)? {
            return Ok(None);
        }
        append_small(r, &mut head, &mut body)?;
        if body.is_empty() && !is_limited(r) && matches!(r.client(), Some(Client::Socket(_))) {
            return send_head_and_body(r, head);
        }
    }
    if has_files(&body) {
        if !goes_by_sendfile(r, &body) {
            r.response.body = Body::Chain(body);
            return Ok(Some(Rest::Body(head)));
        }
        r.client().ok_or(Broken)?.set_nopush(r.location.core.tcp_nopush);
    }
    let mut out = Chain::from(head.freeze());
    out.append(&mut body);
    match r.client() {
        // Who waits for a socket is the task that runs, whatever its waker is.
        Some(client @ Client::Socket(_)) if !is_limited(r) => {
            match client.poll_send(&mut Context::from_waker(Waker::noop()), &mut out) {
                Poll::Ready(sent) => sent.map(|()| None).map_err(|error| send_failed(r, &error)),
                Poll::Pending => Ok(left(r, Chain::new())),
            }
        }
        _ => Ok(left(r, out)),
    }
}

/// Leaves bytes to be sent.
fn left(r: &mut Request, bytes: Chain) -> Option<Rest> {
    r.response.body = Body::Chain(bytes);
    Some(Rest::Bytes)
}

/// Sends what [`begin`] has left.
pub async fn go_on(r: &mut Request, rest: Rest) -> Result<(), Broken> {
    // These futures are boxes, so that a request's stays small.
    match rest {
        Rest::Bytes => {
            let bytes = std::mem::take(&mut r.response.body);
            Box::pin(async move {
                let mut bytes = if let Body::Chain(bytes) = bytes { bytes } else { Chain::new() };
                write(r, &mut bytes, None, true).await
            })
            .await
        }
        Rest::Body(head) => Box::pin(send_body(r, head)).await,
    }
}

/// The body of a response that goes out as it is in one call with the head: one in memory that is small, or none.
fn bytes_at_hand(r: &Request) -> Option<&[u8]> {
    let response = &r.response;
    if is_limited(r) || !matches!(r.client(), Some(Client::Socket(_))) {
        return None;
    }
    match &response.body {
        Body::Stream(_) => None,
        _ if response.header_only => Some(b""),
        _ if response.chunked || !response.filters.is_empty() => None,
        Body::Empty => Some(b""),
        Body::Chain(chain) => match chain.pieces() {
            [] => Some(b""),
            [Piece::Bytes(bytes)] if bytes.len() <= SMALL_BYTES => Some(bytes),
            _ => None,
        },
    }
}

/// Sends a whole response over a socket in one call, as far as that goes at once.
fn send_head_and_body(r: &mut Request, mut response: Buf) -> Result<Option<Rest>, Broken> {
    let client = r.client().ok_or(Broken)?;
    if client.is_layered() {
        begin_to_send(r)?;
    }
    match client.try_send(&response).map_err(|error| send_failed(r, &error))? {
        Tried::Sent(sent) if sent == response.len() => {
            h1::head::keep(r, response);
            return Ok(None);
        }
        Tried::Sent(sent) => response.consume(sent),
        Tried::Taken => return Ok(left(r, Chain::new())),
        Tried::Nothing => {}
    }
    begin_to_send(r)?;
    Ok(left(r, Chain::from(response.freeze())))
}

/// Sets the time that the client has for what follows.
fn begin_to_send(r: &Request) -> Result<(), Broken> {
    r.client().ok_or(Broken)?.set_send_timeout(Some(r.location.core.send_timeout));
    Ok(())
}

/// Whether the rate of the response may be limited.
fn is_limited(r: &Request) -> bool {
    r.location.core.limit_rate.is_some() || r.rate.is_some()
}

/// Sends the head alone, for handlers that go on with the connection themselves.
pub async fn send_head(r: &mut Request) -> Result<(), Broken> {
    begin_to_send(r)?;
    match head(r, false) {
        Some(head) => write(r, &mut Chain::from(head.freeze()), None, false).await,
        None => Ok(()),
    }
}

/// Sends the head and a body that goes through the pipeline.
async fn send_body(r: &mut Request, head: Buf) -> Result<(), Broken> {
    let files = FileRule::of_client(r);
    let mut body = Pipeline::new(&mut r.response, files);
    let core = r.location.core.clone();
    if let Some(link) = &mut r.link {
        match body.is_whole() {
            true => link.stream.set_nopush(core.tcp_nopush),
            false => link.set_nodelay(core.shared.tcp_nodelay),
        }
    }
    let result = send_portions(r, head, &mut body).await;
    let sent = r.body_bytes_sent();
    body.finish(sent, result.is_ok());
    result
}

async fn send_portions(r: &mut Request, head: Buf, body: &mut Pipeline) -> Result<(), Broken> {
    let mut out = Chain::from(head.freeze());
    let enough = GATHERED.max(r.location.core.postpone_output as u64);
    loop {
        let Portion { chain, flush, end } = match next_portion(r, &mut out, body).await {
            Ok(portion) => portion,
            Err(Broken) => {
                // What was received goes out before the connection is closed, so that the client can tell.
                if !body.is_whole() && !body.holds_back() && write(r, &mut out, None, false).await.is_ok() {
                    r.delivery = Delivery::CutShort;
                }
                return Err(Broken);
            }
        };
        frame(r, chain, end, &mut out);
        if out.len() >= enough || flush || end {
            write(r, &mut out, Some(body), end).await?;
            if end {
                return Ok(());
            }
            if body.is_whole() {
                rt::yield_now().await;
            }
        }
    }
}

/// The next portion of a body. What is held back goes out when none comes at once.
async fn next_portion(r: &mut Request, out: &mut Chain, body: &mut Pipeline) -> Result<Portion, Broken> {
    if !out.is_empty() {
        match poll_fn(|cx| Poll::Ready(body.poll_portion(r, cx))).await {
            Poll::Ready(portion) => return portion,
            Poll::Pending if body.holds_back() => {}
            Poll::Pending => write(r, out, Some(body), false).await?,
        }
    }
    poll_fn(|cx| body.poll_portion(r, cx)).await
}

/// Puts a portion into chunks, if the response goes out in chunks.
fn frame(r: &mut Request, mut part: Chain, end: bool, out: &mut Chain) {
    if !r.response.chunked {
        out.append(&mut part);
        return;
    }
    chunk(part, out);
    if end {
        let trailers = r.take_trailers();
        out.push_bytes(h1::head::last_chunk(&trailers));
        r.response.trailers = trailers;
    }
}

/// Writes to the client; a body that comes in parts may read ahead while the client is slow.
/// With `end` the response is over.
async fn write(r: &mut Request, out: &mut Chain, ahead: Option<&mut Pipeline>, end: bool) -> Result<(), Broken> {
    let rate = if is_limited(r) { r.limit_rate() } else { 0 };
    if rate > 0 {
        return Box::pin(write_slowly(r, out, rate, end)).await;
    }
    if end {
        h2::finish_response(r);
    }
    let mut ahead = ahead;
    poll_fn(|cx| {
        let Some(client) = r.client() else { return Poll::Ready(Err(Broken)) };
        match client.poll_send(cx, out) {
            Poll::Ready(sent) => Poll::Ready(sent.map_err(|error| send_failed(r, &error))),
            Poll::Pending if client.poll_hangup(cx).is_ready() => Poll::Ready(Err(client_gone(r))),
            Poll::Pending => {
                if let Some(body) = &mut ahead {
                    body.poll_ahead(r, cx);
                }
                Poll::Pending
            }
        }
    })
    .await
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
        r.log_at(Level::Info, format_args!("client timed out{TIMED_OUT} while sending response to client"));
        r.give_up();
    } else {
        let action = "while sending response to client";
        match r.h2_stream() {
            Some(_) => r.log_at(Level::Info, format_args!("client prematurely closed connection {action}")),
            None => r.log_at(Level::Info, format_args!("send() failed{} {action}", Errno(error))),
        }
    }
    Broken
}

/// Decides what the head says of body and connection, and makes it; on a stream of HTTP/2 it is queued at once, and what
/// is given back is the place for a body. `None`: that was the whole response, which it may be if `may_end`.
fn head(r: &mut Request, may_end: bool) -> Option<Buf> {
    head::decide(r);
    head::complete_location(r);
    secure_head(r);
    if r.h2_stream().is_some() {
        return if h2::send_head(r, may_end) { None } else { Some(Buf::empty()) };
    }
    let room = small_body(r);
    let head = h1::head::write(r, room);
    r.header_sent = head.len() as u64;
    Some(head)
}

/// The length of a body that is small enough to be copied after its head.
fn small_body(r: &Request) -> usize {
    let response = &r.response;
    let small = response.content_length.filter(|length| *length <= SMALL_FILE && !response.header_only);
    small.unwrap_or(0) as usize
}

/// Whether a body is in memory, and short enough to be copied after its head.
fn is_small(body: &Chain) -> bool {
    body.len() <= SMALL_BYTES as u64 && !has_files(body)
}

/// Appends a small body to the head as a chunk, and the end of all chunks.
fn append_chunk(r: &mut Request, head: &mut Buf, body: &mut Chain) {
    if !body.is_empty() {
        head.extend_from_slice(chunk_head(body.len(), &mut [0; CHUNK_HEAD]));
        for piece in body.pieces() {
            if let Piece::Bytes(bytes) = piece {
                head.extend_from_slice(bytes);
            }
        }
        head.extend_from_slice(CHUNK_END);
    }
    body.clear();
    let trailers = r.take_trailers();
    head.extend_from_slice(&h1::head::last_chunk(&trailers));
    r.response.trailers = trailers;
}

/// Appends a small body to the head, so that one send of one buffer takes both.
fn append_small(r: &Request, head: &mut Buf, body: &mut Chain) -> Result<(), Broken> {
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

/// Whether a body that nothing changes goes out as it is, files included.
fn goes_by_sendfile(r: &Request, body: &Chain) -> bool {
    let rule = FileRule::of_client(r);
    !rule.read && body.len() <= rule.most
}

fn has_files(chain: &Chain) -> bool {
    chain.pieces().iter().any(|piece| matches!(piece, Piece::File(_)))
}
