//! One attempt to ask a backend: a connection, the request, the head of the response.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use ::upstream::retry::failure;
use ::upstream::{Choice, Idle};
use buf::{Buf, Bytes, Chain, Piece};
use engine::log::{Errno, Level, TIMED_OUT};
use http::body::append;
use http::exchange::Exchange;
use http::request::Request;
use http::session::h2::websocket;
use rt::Tried;

use crate::conf::{Bind, local_address};
use crate::engine::Backend;
use crate::protocol::{Codec, Fault, FaultKind, HeadEvent};
use crate::respond::{self, Answer, Reply};
use crate::ssl;

/// The size of the first read of a response: head and body, if they are small, come in one.
const FIRST_READ: usize = 16 << 10;

/// The largest part of a request's body that is sent in one go.
const MAX_PART: u64 = 64 << 10;

/// Properties that a connection needs to serve a request.
struct Label {
    /// Over TLS, or not.
    ssl: bool,
    /// Made with these names and certificates.
    text: Option<Box<str>>,
}

/// How an attempt failed.
pub(super) struct Failed {
    /// The bit of [`failure`].
    pub(super) kind: u32,
    /// Whether the request may have reached the backend.
    pub(super) sent: bool,
    /// The connection was an idle one, which the peer may have closed meanwhile: not the peer's fault.
    pub(super) stale: bool,
}

/// Why an attempt ends without an answer.
pub(super) enum Stop {
    /// The peer failed.
    Failed(Failed),
    /// The request ends with this status: the client has gone, or its body can't be read.
    Status(u16),
}

/// The request as it is sent.
pub(super) struct Outgoing {
    pub(super) head: Bytes,
    /// The body's pieces, if it was read whole.
    pub(super) body: Vec<Piece>,
    /// The body is passed on as it comes.
    pub(super) streamed: bool,
}

impl Backend {
    /// One attempt: a connection, the request, the head of the response.
    pub(super) async fn attempt(
        &self,
        r: &mut Request,
        exchange: &Exchange,
        choice: &Choice,
        outgoing: &Outgoing,
    ) -> Result<Answer, Stop> {
        let label = self.label(r, exchange);
        let idle = choice.take_idle(&mut Context::from_waker(Waker::noop()), self.place);
        // Another location may have kept a connection of another kind, or another request one with other names.
        let idle = idle.filter(|idle| {
            idle.stream.is_layered() == label.ssl
                && idle.label == label.text
                && idle.kept.as_deref().is_some_and(|kept| self.protocol.knows(kept))
        });
        let cached = idle.is_some();
        let mut idle = match idle {
            Some(idle) => idle,
            // Few requests need it: it isn't to make their future larger.
            None => Box::pin(self.connect(r, exchange, choice)).await?,
        };
        let elapsed = exchange.elapsed_ms();
        exchange.current(|attempt| attempt.connect_ms = Some(elapsed));
        let before = (idle.stream.sent(), idle.stream.received());
        let mut codec = self.protocol.codec(exchange, idle.kept.take());
        let result = self.exchange(r, exchange, &idle.stream, outgoing, &mut *codec).await;
        let counts = (idle.stream.sent() - before.0, idle.stream.received() - before.1);
        exchange.current(|attempt| (attempt.sent, attempt.received) = counts);
        match result {
            Ok(reply) => Ok(Answer { idle, codec, reply }),
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
    pub(super) async fn unless_aborted<T>(&self, r: &Request, future: impl Future<Output = T>) -> Result<T, Stop> {
        let mut future = pin!(future);
        let waited = poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if self.aborted(r, cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        waited.await.ok_or_else(|| client_gone(r, "connecting to upstream"))
    }

    fn aborted(&self, r: &Request, cx: &mut Context<'_>) -> bool {
        !self.up.ignore_client_abort
            && !self.up.stores()
            && !r.upstream.as_ref().is_some_and(|exchange| exchange.whole.get())
            && r.client().is_some_and(|client| client.poll_hangup(cx).is_ready())
    }

    /// Sends the request and reads the head of the response.
    async fn exchange(
        &self,
        r: &mut Request,
        exchange: &Exchange,
        stream: &rt::Stream,
        outgoing: &Outgoing,
        codec: &mut dyn Codec,
    ) -> Result<Reply, Stop> {
        stream.set_send_timeout(Some(self.up.send_timeout));
        let mut sending = self.begin_sending(r, stream, outgoing, codec)?;
        loop {
            let more = poll_fn(|cx| self.poll_exchange(cx, r, stream, &mut sending, codec)).await?;
            let found = self.read_head(r, exchange, codec, more).map_err(|fault| stop(r, &fault))?;
            let Some(length) = found else { continue };
            let (status, elapsed) = (exchange.head.borrow().1.status, exchange.elapsed_ms());
            exchange.current(|attempt| (attempt.status, attempt.header_ms) = (status, Some(elapsed)));
            if status == 101 && !is_agreed(r, exchange) {
                return Err(stop(r, &Fault::invalid("upstream sent invalid \"Sec-WebSocket-Accept\" header")));
            }
            let sent_all = sending.done && sending.chain.is_empty();
            let unsent = (codec.sends_on() && !sent_all).then(|| Box::new(sending.chain));
            return Ok(Reply { status, length, sent_all, unsent });
        }
    }

    /// What is left to send once the head, if it is all there is, was given to the kernel.
    fn begin_sending(
        &self,
        r: &Request,
        stream: &rt::Stream,
        outgoing: &Outgoing,
        codec: &mut dyn Codec,
    ) -> Result<Sending, Stop> {
        let alone = outgoing.body.is_empty() && !outgoing.streamed;
        let mut left = codec.head(&outgoing.head, alone);
        let mut done = false;
        if alone {
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
        if !outgoing.body.is_empty() {
            let mut body = Chain::new();
            for piece in &outgoing.body {
                body.push(piece.clone());
            }
            codec.body(body, true, &mut chain);
        }
        Ok(Sending { chain, more: outgoing.streamed, blocked: false, done, kept: Some(Vec::new()) })
    }

    /// Reads on until the head is there; `None`: more bytes are needed. None at all are the end.
    fn read_head(
        &self,
        r: &mut Request,
        exchange: &Exchange,
        codec: &mut dyn Codec,
        more: Buf,
    ) -> Result<Option<Option<u64>>, Fault> {
        let over = more.is_empty();
        if over {
            codec.receive_end()?;
        } else {
            codec.receive(more);
        }
        loop {
            let event = codec.read_head(&mut exchange.head.borrow_mut())?;
            match event {
                HeadEvent::Done(length) => return Ok(Some(length)),
                HeadEvent::More if over => return Err(Fault::closed()),
                HeadEvent::More => return Ok(None),
                HeadEvent::Interim => self.pass_interim(r, exchange),
                HeadEvent::Note(text) => {
                    r.log_error(format_args!("{text} while reading response header from upstream"));
                }
            }
        }
    }

    /// Early hints go to the client, other interim heads don't.
    fn pass_interim(&self, r: &mut Request, exchange: &Exchange) {
        let head = std::mem::take(&mut *exchange.head.borrow_mut());
        if head.1.status == 103
            && let Some(hints) = respond::early_hints(self, r, &head.0, &head.1)
            && let Some(client) = r.client()
        {
            client.send_interim("103 Early Hints", &hints);
        }
    }

    /// Sends on, and waits for bytes of the response.
    fn poll_exchange(
        &self,
        cx: &mut Context<'_>,
        r: &mut Request,
        stream: &rt::Stream,
        sending: &mut Sending,
        codec: &mut dyn Codec,
    ) -> Poll<Result<Buf, Stop>> {
        codec.transmit(&mut sending.chain);
        if (!sending.done || !sending.chain.is_empty())
            && let Err(stop) = self.poll_sending(cx, r, stream, sending, codec)
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
        codec: &mut dyn Codec,
    ) -> Result<(), Stop> {
        loop {
            let waiting = sending.more && !sending.blocked && !self.gather(cx, r, sending, codec)?;
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
                // What is held back waits for the backend, as for a response.
                if !sending.done {
                    stream.set_recv_timeout(Some(self.up.read_timeout));
                }
                sending.done = !codec.holds_back();
                return Ok(());
            }
            if waiting {
                return Ok(());
            }
        }
    }

    /// Takes what there is of the request's body, as one part; false if more is to be waited for.
    fn gather(
        &self,
        cx: &mut Context<'_>,
        r: &mut Request,
        sending: &mut Sending,
        codec: &mut dyn Codec,
    ) -> Result<bool, Stop> {
        let limit = r.location.core.client_body_buffer_size;
        let most = MAX_PART.min(codec.window());
        let mut part = Chain::new();
        let mut ready = most > 0;
        while sending.more && part.len() < most {
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
        if !part.is_empty() || !sending.more {
            codec.body(part, !sending.more, &mut sending.chain);
        }
        if !sending.more
            && let Some(kept) = sending.kept.take()
        {
            r.body.keep(kept);
        }
        Ok(ready)
    }
}

/// What is still to be sent.
struct Sending {
    chain: Chain,
    /// The body isn't complete.
    more: bool,
    /// The kernel takes no more for now.
    blocked: bool,
    done: bool,
    /// The body, while it is small: for `$request_body`.
    kept: Option<Vec<Piece>>,
}

impl Sending {
    /// Keeps the body while it is no larger than `limit`.
    fn note(&mut self, data: &Bytes, limit: usize) {
        if let Some(kept) = &mut self.kept {
            append(kept, data.clone());
            if kept.iter().map(Piece::len).sum::<u64>() > limit as u64 {
                self.kept = None;
            }
        }
    }
}

/// What a fault before the head of a response leads to; logs it.
fn stop(r: &Request, fault: &Fault) -> Stop {
    if !fault.text.is_empty() {
        r.log_error(format_args!("{} while reading response header from upstream", fault.text));
    }
    match fault.kind {
        FaultKind::Invalid => failed(failure::INVALID_HEADER),
        FaultKind::Closed => failed(failure::ERROR),
        FaultKind::Refused => Stop::Failed(Failed { kind: failure::ERROR, sent: false, stale: false }),
    }
}

/// Whether a switch of protocols is the one that the client asked for.
fn is_agreed(r: &Request, exchange: &Exchange) -> bool {
    let head = exchange.head.borrow();
    websocket::is_agreed(r, &head.1, &head.0)
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
