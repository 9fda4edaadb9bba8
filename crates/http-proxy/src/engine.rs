//! The engine: one way of a request through its backends, for all protocols.
//!
//! A request is written once and sent to one peer after the other, until one answers, none is left, or the
//! configuration says that it is enough. With a kept connection that takes one `send` and one `recv`.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ::upstream::retry::{self, Question, failure};
use ::upstream::{Choice, Hints, Idle, Outcome};
use buf::{Buf, Bytes, Chain};
use engine::log::{Errno, Level, TIMED_OUT};
use http::body::append;
use http::exchange::{Exchange, Target};
use http::phases::Flow;
use http::request::Request;
use http::session::h2::websocket;
use rt::Tried;
use wire::h1::{KnownHeader, Method, Parsed, ResponseHead};

use crate::conf::{Bind, UpstreamConf, local_address};
use crate::pass::{Aim, Named};
use crate::protocol::{HeadError, HeadReader, Protocol};
use crate::respond::{self, Answer, Next, Reply};
use crate::ssl::{self, UpstreamTls};
use crate::tunnel;

/// What a location's requests are passed to.
pub struct Backend {
    /// The directives that all protocols have.
    pub up: Rc<UpstreamConf>,
    /// The protocol.
    pub protocol: Box<dyn Protocol>,
    /// Fields of responses that clients don't get.
    pub hidden: Hidden,
    /// The location, for connections that aren't shared.
    pub place: u32,
    /// How backends are spoken to over TLS.
    pub ssl: Option<Rc<UpstreamTls>>,
}

/// A set of field names.
pub struct Hidden {
    known: u64,
    others: Vec<Vec<u8>>,
}

impl Hidden {
    /// The default names and those of `…_hide_header`, without those of `…_pass_header`.
    pub fn new(up: &UpstreamConf, default: &[&str]) -> Hidden {
        let mut hidden = Hidden { known: 0, others: Vec::new() };
        let all = default.iter().map(|name| name.as_bytes()).chain(up.hide_header.iter().map(Vec::as_slice));
        for name in all.filter(|name| !up.pass_header.iter().any(|pass| pass.eq_ignore_ascii_case(name))) {
            match KnownHeader::of(name) {
                KnownHeader::Other => hidden.others.push(name.to_ascii_lowercase()),
                known => hidden.known |= 1 << known as u8,
            }
        }
        hidden
    }

    /// Whether a field is in the set.
    pub fn has(&self, known: KnownHeader, name: &[u8]) -> bool {
        match known {
            KnownHeader::Other => self.others.iter().any(|other| other.eq_ignore_ascii_case(name)),
            known => self.known & (1 << known as u8) != 0,
        }
    }
}

/// The size of the first read of a response: head and body, if they are small, come in one.
const FIRST_READ: usize = 16 << 10;

/// The largest part of a request's body that is sent in one go.
const MAX_CHUNK: u64 = 64 << 10;

/// What a connection has to be to serve a request.
struct Label {
    /// Over TLS, or not.
    ssl: bool,
    /// Made with these names and certificates.
    text: Option<Box<str>>,
}

/// How an attempt failed.
struct Failed {
    /// The bit of [`failure`].
    kind: u32,
    /// Whether the request may have reached the backend.
    sent: bool,
    /// The connection was an idle one, which the peer may have closed meanwhile: not the peer's fault.
    stale: bool,
}

/// Why an attempt ends without an answer.
enum Stop {
    /// The peer failed.
    Failed(Failed),
    /// The request ends with this status: the client is gone, its body can't be read.
    Status(u16),
}

/// The request as it is sent.
struct Outgoing {
    head: Bytes,
    /// The body's pieces, if it was read whole.
    body: Vec<buf::Piece>,
    /// The body is passed on as it comes.
    streamed: bool,
    /// It is put into chunks.
    chunked: bool,
}

/// Passes a request to a backend and makes the response.
pub async fn run(b: &Backend, r: &mut Request) -> Flow<'static> {
    let mut streamed = b.streams_body(r);
    if streamed && r.body.declared_length().is_none() && r.body_is_here() {
        // It is read without waiting, and goes with its length.
        streamed = false;
    }
    let exchange = r.upstream.get_or_insert_with(Exchange::new).clone();
    exchange.enter();
    let aim = b.protocol.target(r);
    if let Ok(Aim::At(target)) = &aim {
        // Known from here on, whatever becomes of the body.
        *exchange.target.borrow_mut() = Some(target.clone());
    }
    if (r.body.exists() || r.body.is_awaited() || r.body.declared_length().is_some())
        && !streamed
        && let Err(status) = Box::pin(r.read_body()).await
    {
        return Flow::Status(status);
    }
    let target = match aim {
        Ok(Aim::At(target)) => target,
        // Few requests need it: it isn't to make their future larger.
        Ok(Aim::Name(named)) => match Box::pin(b.look_up(r, *named)).await {
            Ok(target) => target,
            Err(status) => return Flow::Status(status),
        },
        Err(status) => return Flow::Status(status),
    };
    let redirected = !exchange.attempts.borrow().is_empty();
    *exchange.target.borrow_mut() = Some(target.clone());
    let outgoing = match b.write(r, &exchange, streamed) {
        Ok(outgoing) => outgoing,
        Err(status) => return Flow::Status(status),
    };
    let mut choice = Choice::new(target.group.clone(), b.up.next_upstream_tries);
    let key = target.key.as_ref().map(|key| r.render(key)).unwrap_or_default();
    let started_ms = rt::now_ms();
    let mut first = redirected;
    loop {
        exchange.begin(std::mem::take(&mut first));
        if !choice.advance(&Hints { addr: Some(&r.conn.peer), key: &key }) {
            exchange.current(|attempt| attempt.peer = Some(target.group.name.clone()));
            r.log_error(format_args!("no live upstreams while connecting to upstream"));
            exchange.current(|attempt| attempt.status = 502);
            exchange.end();
            return Flow::Status(502);
        }
        exchange.current(|attempt| attempt.peer = choice.peer().map(|peer| peer.name.clone()));
        let terms = Terms { streamed, started_ms, late: b.is_late(started_ms) };
        let attempted = b.attempt(r, &exchange, &choice, &outgoing).await;
        match b.conclude(r, &exchange, choice, attempted, terms) {
            Concluded::Flow(flow) => return flow,
            Concluded::Tunnel(parts) => return Box::pin(tunnel::run(b, r, &exchange, parts)).await,
            Concluded::Again(again) => choice = again,
        }
    }
}

/// What decides whether another peer is asked.
#[derive(Clone, Copy)]
struct Terms {
    /// The body can't be sent again.
    streamed: bool,
    started_ms: u64,
    /// No time was left when the attempt began.
    late: bool,
}

/// What follows from an attempt.
enum Concluded {
    /// The request goes on so.
    Flow(Flow<'static>),
    /// The protocol was switched.
    Tunnel(Box<(Choice, Idle, Bytes)>),
    /// The next peer is asked.
    Again(Choice),
}

fn is_non_idempotent(r: &Request) -> bool {
    matches!(r.method, Method::Post | Method::Lock | Method::Patch)
}

impl Backend {
    /// Whether the request's body is passed on as it comes.
    fn streams_body(&self, r: &Request) -> bool {
        !self.up.request_buffering
            && self.up.pass_request_body
            && !self.protocol.has_own_body()
            && r.body.exists()
            && r.body.buffered().is_none()
            && (r.body.declared_length().is_some() || self.protocol.sends_chunks())
    }

    fn is_late(&self, started_ms: u64) -> bool {
        let limit = self.up.next_upstream_timeout;
        limit > 0 && rt::now_ms().saturating_sub(started_ms) >= limit
    }

    /// What becomes of an attempt's result.
    fn conclude(
        &self,
        r: &mut Request,
        exchange: &Rc<Exchange>,
        mut choice: Choice,
        attempted: Result<Answer, Stop>,
        terms: Terms,
    ) -> Concluded {
        let stop = match attempted {
            Ok(answer) => match self.refuses(r, &choice, terms, &answer) {
                Some(kind) => Stop::Failed(Failed { kind, sent: true, stale: false }),
                None => {
                    return match respond::respond(self, r, exchange, choice, answer) {
                        Next::Flow(flow) => Concluded::Flow(flow),
                        Next::Tunnel(parts) => Concluded::Tunnel(parts),
                    };
                }
            },
            Err(stop) => stop,
        };
        exchange.end();
        let failed = match stop {
            Stop::Status(status) => return Concluded::Flow(Flow::Status(status)),
            Stop::Failed(failed) => failed,
        };
        match self.failed(r, exchange, &mut choice, &failed, terms) {
            Some(status) => Concluded::Flow(Flow::Status(status)),
            None => Concluded::Again(choice),
        }
    }

    /// Where a host is that has to be looked up.
    async fn look_up(&self, r: &mut Request, named: Named) -> Result<Rc<Target>, u16> {
        let core = r.location.core.clone();
        match self.unless_aborted(r, named.look_up(core)).await {
            Ok(Ok(target)) => Ok(target),
            Ok(Err(why)) => {
                r.log_error(format_args!("{why}"));
                Err(502)
            }
            Err(Stop::Status(status)) => Err(status),
            Err(Stop::Failed(_)) => Err(502),
        }
    }

    /// Writes the request.
    fn write(&self, r: &mut Request, exchange: &Exchange, streamed: bool) -> Result<Outgoing, u16> {
        let chunked = streamed && r.body.declared_length().is_none();
        let length = if chunked { None } else { r.body.known_length() };
        exchange.body_length.set(length);
        exchange.chunked.set(chunked);
        let mut out = Buf::with_capacity(1024);
        self.protocol.write_request(r, exchange, &mut out)?;
        let head = out.freeze();
        let uri = exchange.uri_at.get();
        *exchange.uri.borrow_mut() = head.slice(uri.start as usize..uri.end as usize);
        let passes = self.up.pass_request_body && !self.protocol.has_own_body();
        let body = match r.body.buffered() {
            Some(body) if passes && body.len > 0 => body.pieces.clone(),
            _ => Vec::new(),
        };
        Ok(Outgoing { head, body, streamed, chunked })
    }

    /// One attempt: a connection, the request, the head of the response.
    async fn attempt(
        &self,
        r: &mut Request,
        exchange: &Exchange,
        choice: &Choice,
        outgoing: &Outgoing,
    ) -> Result<Answer, Stop> {
        let label = self.label(r, exchange);
        let idle = choice.take_idle(&mut Context::from_waker(Waker::noop()), self.place);
        // Another location may have kept a connection of the other kind, or another request one with other names.
        let idle = idle.filter(|idle| idle.stream.is_layered() == label.ssl && idle.label == label.text);
        let cached = idle.is_some();
        let idle = match idle {
            Some(idle) => idle,
            // Few requests need it: it isn't to make their future larger.
            None => Box::pin(self.connect(r, exchange, choice)).await?,
        };
        let elapsed = exchange.elapsed_ms();
        exchange.current(|attempt| attempt.connect_ms = Some(elapsed));
        let before = (idle.stream.sent(), idle.stream.received());
        let result = self.exchange(r, exchange, &idle.stream, outgoing).await;
        let counts = (idle.stream.sent() - before.0, idle.stream.received() - before.1);
        exchange.current(|attempt| (attempt.sent, attempt.received) = counts);
        match result {
            Ok(reply) => Ok(Answer { idle, reply }),
            Err(Stop::Failed(failed)) => {
                Err(Stop::Failed(Failed { stale: cached && failed.kind == failure::ERROR, ..failed }))
            }
            Err(stop) => Err(stop),
        }
    }

    async fn connect(&self, r: &mut Request, exchange: &Exchange, choice: &Choice) -> Result<Idle, Stop> {
        let Some(peer) = choice.peer() else { return Err(Stop::Status(502)) };
        let addr = peer.addr.clone();
        let options = rt::ConnectOptions {
            bind: self.bind(r),
            rcvbuf: Some(self.up.socket_rcvbuf as u32).filter(|size| *size > 0),
            sndbuf: Some(self.up.socket_sndbuf as u32).filter(|size| *size > 0),
            keepalive: self.up.socket_keepalive,
        };
        let connecting = rt::Stream::connect(&addr, &options, self.up.connect_timeout);
        let error = match self.unless_aborted(r, connecting).await? {
            Ok(stream) => {
                if !addr.is_unix() && r.location.core.tcp_nodelay {
                    let _ = stream.set_nodelay(true);
                }
                let mut idle = Idle::new(stream);
                idle.label = self.handshake(r, exchange, &idle.stream).await?;
                return Ok(idle);
            }
            Err(error) => error,
        };
        let kind = if error.kind() == io::ErrorKind::TimedOut { failure::TIMEOUT } else { failure::ERROR };
        if kind == failure::TIMEOUT {
            r.log_error(format_args!("upstream timed out{TIMED_OUT} while connecting to upstream"));
        } else {
            r.log_error(format_args!("connect() failed{} while connecting to upstream", Errno(&error)));
        }
        Err(Stop::Failed(Failed { kind, sent: false, stale: false }))
    }

    /// What a connection for this request has to be.
    fn label(&self, r: &mut Request, exchange: &Exchange) -> Label {
        let target = exchange.target.borrow().clone();
        match (&self.ssl, target.filter(|target| target.ssl)) {
            (Some(ssl), Some(_)) => Label { ssl: true, text: ssl.label(r) },
            _ => Label { ssl: false, text: None },
        }
    }

    /// The TLS handshake, if the target wants one.
    async fn handshake(
        &self,
        r: &mut Request,
        exchange: &Exchange,
        stream: &rt::Stream,
    ) -> Result<Option<Box<str>>, Stop> {
        let target = exchange.target.borrow().clone();
        let (Some(ssl), Some(target)) = (&self.ssl, target.filter(|target| target.ssl)) else { return Ok(None) };
        let label = ssl.label(r);
        stream.set_recv_timeout(Some(self.up.connect_timeout));
        stream.set_send_timeout(Some(self.up.connect_timeout));
        let kind = match ssl.connect(r, stream, &target.host).await {
            Ok(()) => {
                stream.set_recv_timeout(None);
                return Ok(label);
            }
            Err(ssl::Failure::OwnCertificate) => return Err(Stop::Status(500)),
            Err(ssl::Failure::TimedOut) => failure::TIMEOUT,
            Err(ssl::Failure::Error) => failure::ERROR,
        };
        Err(Stop::Failed(Failed { kind, sent: false, stale: false }))
    }

    fn bind(&self, r: &mut Request) -> Option<os::SockAddr> {
        match &self.up.bind {
            Bind::Off => None,
            Bind::Address(addr) => Some(addr.clone()),
            Bind::Variable(template) => {
                let text = r.render(template);
                let addr = local_address(&text);
                if addr.is_none() && !text.is_empty() {
                    let text = buf::text::encode(&text);
                    r.log_error(format_args!("invalid local address \"{text}\" while connecting to upstream"));
                }
                addr
            }
        }
    }

    /// Waits for `future`, but no longer than the client does.
    async fn unless_aborted<T>(&self, r: &Request, future: impl Future<Output = T>) -> Result<T, Stop> {
        let mut future = pin!(future);
        let waited = poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if self.aborted(r, cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        waited.await.ok_or_else(|| client_gone(r, "connecting to upstream"))
    }

    fn aborted(&self, r: &Request, cx: &mut Context<'_>) -> bool {
        !self.up.ignore_client_abort && r.client().is_some_and(|client| client.poll_hangup(cx).is_ready())
    }

    /// Sends the request and reads the head of the response.
    async fn exchange(
        &self,
        r: &mut Request,
        exchange: &Exchange,
        stream: &rt::Stream,
        outgoing: &Outgoing,
    ) -> Result<Reply, Stop> {
        stream.set_send_timeout(Some(self.up.send_timeout));
        let mut sending = self.begin_sending(r, stream, outgoing)?;
        let mut head = std::mem::take(&mut exchange.head.borrow_mut().1);
        head.clear();
        let mut reader = HeadReader::default();
        let mut buf: Option<Buf> = None;
        loop {
            let more = poll_fn(|cx| self.poll_exchange(cx, r, stream, &mut sending)).await;
            let more = match more {
                Ok(more) if !more.is_empty() => more,
                Ok(_) => {
                    r.log_error(format_args!(
                        "upstream prematurely closed connection while reading response header from upstream"
                    ));
                    return Err(failed(failure::ERROR));
                }
                Err(stop) => return Err(stop),
            };
            let data = match &mut buf {
                Some(buf) => {
                    buf.extend_from_slice(&more);
                    buf
                }
                None => buf.insert(more),
            };
            if let Some(used) = self.read_head(r, &mut reader, data, &mut head)? {
                let elapsed = exchange.elapsed_ms();
                exchange.current(|attempt| (attempt.status, attempt.header_ms) = (head.status, Some(elapsed)));
                let bytes = buf.take().map(Buf::freeze).unwrap_or_default();
                if head.status == 101 && !websocket::is_agreed(r, &head, &bytes) {
                    let what = "upstream sent invalid \"Sec-WebSocket-Accept\" header";
                    r.log_error(format_args!("{what} while reading response header from upstream"));
                    return Err(failed(failure::INVALID_HEADER));
                }
                let framing = self.protocol.framing(&head, &bytes, exchange.to_head.get());
                let framing = framing.map_err(|text| {
                    r.log_error(format_args!("{text} while reading response header from upstream"));
                    failed(failure::INVALID_HEADER)
                })?;
                return Ok(Reply { buf: bytes, head, used, framing, sent_all: sending.done });
            }
        }
    }

    /// What is left to send once the head, if it is all there is, was given to the kernel.
    fn begin_sending(&self, r: &Request, stream: &rt::Stream, outgoing: &Outgoing) -> Result<Sending, Stop> {
        let mut left = outgoing.head.clone();
        let mut done = false;
        if outgoing.body.is_empty() && !outgoing.streamed {
            match stream.try_send(&left).map_err(|error| send_failed(r, &error))? {
                Tried::Sent(sent) => {
                    left.advance(sent);
                    done = left.is_empty();
                }
                Tried::Taken => left = Bytes::default(),
                Tried::Nothing => {}
            }
        }
        if done {
            stream.set_recv_timeout(Some(self.up.read_timeout));
        }
        let mut chain = Chain::from(left);
        for piece in &outgoing.body {
            chain.push(piece.clone());
        }
        let (more, chunked) = (outgoing.streamed, outgoing.chunked);
        Ok(Sending { chain, more, chunked, blocked: false, done, kept: Some(Vec::new()) })
    }

    /// Reads what there is of a head; 1xx responses are stepped over.
    fn read_head(
        &self,
        r: &mut Request,
        reader: &mut HeadReader,
        data: &mut Buf,
        head: &mut ResponseHead,
    ) -> Result<Option<usize>, Stop> {
        loop {
            match self.protocol.read_head(reader, data, self.up.buffer_size, head) {
                Ok(Parsed::Incomplete) => return Ok(None),
                Ok(Parsed::Complete(used)) if matches!(head.status, 100 | 102..=199) => {
                    if head.status == 103
                        && let Some(hints) = respond::early_hints(self, r, data, head)
                        && let Some(client) = r.client()
                    {
                        client.send_interim("103 Early Hints", &hints);
                    }
                    data.consume(used);
                    *reader = HeadReader::default();
                    head.clear();
                    if data.is_empty() {
                        return Ok(None);
                    }
                }
                Ok(Parsed::Complete(used)) => return Ok(Some(used)),
                Err(HeadError::Missing(text)) => {
                    r.log_error(format_args!("{text} while reading response header from upstream"));
                    head.clear();
                    (head.status, head.version) = (200, 9);
                    return Ok(Some(0));
                }
                Err(HeadError::Invalid(text)) => {
                    r.log_error(format_args!("{text} while reading response header from upstream"));
                    return Err(failed(failure::INVALID_HEADER));
                }
            }
        }
    }

    /// Sends on, and waits for bytes of the response.
    fn poll_exchange(
        &self,
        cx: &mut Context<'_>,
        r: &mut Request,
        stream: &rt::Stream,
        sending: &mut Sending,
    ) -> Poll<Result<Buf, Stop>> {
        if !sending.done
            && let Err(stop) = self.poll_sending(cx, r, stream, sending)
        {
            return Poll::Ready(Err(stop));
        }
        match stream.poll_recv(cx, FIRST_READ) {
            Poll::Ready(Ok(buf)) => return Poll::Ready(Ok(buf)),
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                let what = "while reading response header from upstream";
                r.log_error(format_args!("upstream timed out{TIMED_OUT} {what}"));
                return Poll::Ready(Err(failed(failure::TIMEOUT)));
            }
            Poll::Ready(Err(error)) => {
                let what = "while reading response header from upstream";
                r.log_error(format_args!("recv() failed{} {what}", Errno(&error)));
                return Poll::Ready(Err(failed(failure::ERROR)));
            }
            Poll::Pending => {}
        }
        if self.aborted(r, cx) {
            return Poll::Ready(Err(client_gone(r, "reading response header from upstream")));
        }
        Poll::Pending
    }

    /// Sends what there is; sets `done` when all is with the kernel.
    fn poll_sending(
        &self,
        cx: &mut Context<'_>,
        r: &mut Request,
        stream: &rt::Stream,
        sending: &mut Sending,
    ) -> Result<(), Stop> {
        loop {
            let waiting = sending.more && !sending.blocked && !self.gather(cx, r, sending)?;
            match stream.poll_send(cx, &mut sending.chain) {
                Poll::Ready(Ok(())) => sending.blocked = false,
                Poll::Pending => {
                    sending.blocked = true;
                    return Ok(());
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                    r.log_error(format_args!("upstream timed out{TIMED_OUT} while sending request to upstream"));
                    return Err(failed(failure::TIMEOUT));
                }
                Poll::Ready(Err(error)) => return Err(send_failed(r, &error)),
            }
            if !sending.more {
                sending.done = true;
                stream.set_recv_timeout(Some(self.up.read_timeout));
                return Ok(());
            }
            if waiting {
                return Ok(());
            }
        }
    }

    /// Takes what there is of the request's body, as one chunk; false if more is to be waited for.
    fn gather(&self, cx: &mut Context<'_>, r: &mut Request, sending: &mut Sending) -> Result<bool, Stop> {
        let limit = r.location.core.client_body_buffer_size;
        let mut part = Chain::new();
        let mut ready = true;
        while sending.more && part.len() < MAX_CHUNK {
            match r.poll_body(cx) {
                Poll::Ready(Ok(Some(data))) => {
                    sending.note(&data, limit);
                    part.push_bytes(data);
                }
                Poll::Ready(Ok(None)) => sending.more = false,
                Poll::Ready(Err(status)) => return Err(Stop::Status(status)),
                Poll::Pending => {
                    ready = false;
                    break;
                }
            }
        }
        sending.push(part);
        if !sending.more
            && let Some(kept) = sending.kept.take()
        {
            r.body.keep(kept);
        }
        Ok(ready)
    }

    /// Whether an answer's status sends the request on to the next server.
    fn refuses(&self, r: &Request, choice: &Choice, terms: Terms, answer: &Answer) -> Option<u32> {
        let status = answer.reply.head.status;
        if status < 300 {
            return None;
        }
        let kind = retry::of_status(status)?;
        let question = Question {
            kind,
            allowed: self.up.next_upstream,
            tries: choice.tries.saturating_sub(1),
            sent: true,
            non_idempotent: is_non_idempotent(r),
            body_lost: terms.streamed,
            late: terms.late,
        };
        question.again().then_some(kind)
    }

    /// After a failure: tells the group, and says with which status the request ends, if it does.
    fn failed(
        &self,
        r: &Request,
        exchange: &Exchange,
        choice: &mut Choice,
        failed: &Failed,
        terms: Terms,
    ) -> Option<u16> {
        let fault = !matches!(failed.kind, failure::HTTP_403 | failure::HTTP_404);
        if choice.release(if fault { Outcome::Failed } else { Outcome::Neutral }) {
            r.log_at(Level::Warn, format_args!("upstream server temporarily disabled while connecting to upstream"));
        }
        if failed.stale {
            choice.tries += 1;
        }
        let status = retry::status_of(failed.kind);
        exchange.current(|attempt| attempt.status = status);
        let question = Question {
            kind: failed.kind,
            allowed: self.up.next_upstream,
            tries: choice.tries,
            sent: failed.sent,
            non_idempotent: is_non_idempotent(r),
            body_lost: terms.streamed,
            late: self.is_late(terms.started_ms),
        };
        (!question.again()).then_some(status)
    }
}

/// What is still to be sent.
struct Sending {
    chain: Chain,
    /// The body isn't complete.
    more: bool,
    chunked: bool,
    /// The kernel takes no more for now.
    blocked: bool,
    done: bool,
    /// The body, while it is small: for `$request_body`.
    kept: Option<Vec<buf::Piece>>,
}

impl Sending {
    /// Keeps the body while it is no larger than `limit`.
    fn note(&mut self, data: &Bytes, limit: usize) {
        if let Some(kept) = &mut self.kept {
            append(kept, data.clone());
            if kept.iter().map(buf::Piece::len).sum::<u64>() > limit as u64 {
                self.kept = None;
            }
        }
    }

    /// Adds a part of the body, and its end if it was the last one.
    fn push(&mut self, mut part: Chain) {
        if !self.chunked {
            return self.chain.append(&mut part);
        }
        if !part.is_empty() {
            let mut size = Vec::with_capacity(12);
            wire::h1::chunk_head(part.len(), &mut size);
            self.chain.push_bytes(size);
            self.chain.append(&mut part);
            self.chain.push_bytes(Bytes::from_static(b"\r\n"));
        }
        if !self.more {
            self.chain.push_bytes(Bytes::from_static(wire::h1::LAST_CHUNK));
        }
    }
}

fn failed(kind: u32) -> Stop {
    Stop::Failed(Failed { kind, sent: true, stale: false })
}

fn send_failed(r: &Request, error: &io::Error) -> Stop {
    r.log_error(format_args!("send() failed{} while sending request to upstream", Errno(error)));
    failed(failure::ERROR)
}

fn client_gone(r: &Request, action: &str) -> Stop {
    r.log_at(
        Level::Info,
        format_args!("client prematurely closed connection, so upstream connection is closed too while {action}"),
    );
    Stop::Status(499)
}
