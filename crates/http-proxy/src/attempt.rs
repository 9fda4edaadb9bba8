//! One attempt to ask a backend: a connection, the request, the head of the response.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use ::upstream::retry::failure;
use ::upstream::{Choice, Idle};
use buf::{Buf, Bytes, Chain, Piece};
use engine::log::{Errno, TIMED_OUT};
use http::body::append;
use http::exchange::Exchange;
use http::fault::{Fault, Retry};
use http::request::Request;
use http::session::h2::websocket;
use rt::Tried;

use crate::conf::{Bind, local_address};
use crate::engine::Backend;
use crate::protocol::{Codec, HeadEvent, ProtocolError};
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

/// Why an attempt ends without an answer.
#[derive(Clone, Copy)]
pub(super) struct Failed {
    /// What went wrong, and was logged.
    pub(super) fault: Fault,
    /// The connection was an idle one, which the peer may have closed meanwhile: the attempt doesn't count.
    pub(super) stale: bool,
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Failed {
        Failed { fault, stale: false }
    }
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
    ) -> Result<Answer, Failed> {
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
            Err(fault) => {
                let error = matches!(fault.retry(), Retry::Unsent(failure::ERROR) | Retry::Sent(failure::ERROR));
                Err(Failed { fault, stale: cached && error })
            }
        }
    }

    async fn connect(&self, r: &mut Request, exchange: &Exchange, choice: &Choice) -> Result<Idle, Fault> {
        let Some(peer) = choice.peer() else { return Err(Fault::NoLiveUpstreams) };
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
        Err(match error.kind() {
            io::ErrorKind::TimedOut => Fault::SlowConnect.log_with(r, &TIMED_OUT),
            _ => Fault::FailedConnect.log_with(r, &Errno(&error)),
        })
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
    ) -> Result<Option<Box<str>>, Fault> {
        let target = exchange.target.borrow().clone();
        let (Some(ssl), Some(target)) = (&self.ssl, target.filter(|target| target.ssl)) else { return Ok(None) };
        let label = ssl.label(r);
        stream.set_recv_timeout(Some(self.up.connect_timeout));
        stream.set_send_timeout(Some(self.up.connect_timeout));
        match ssl.connect(r, stream, &target.host).await {
            Ok(()) => {
                stream.set_recv_timeout(None);
                Ok(label)
            }
            Err(ssl::Failure::OwnCertificate) => Err(Fault::OwnCertificate),
            Err(ssl::Failure::TimedOut) => Err(Fault::SlowHandshake),
            Err(ssl::Failure::Error) => Err(Fault::FailedHandshake),
        }
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
    pub(super) async fn unless_aborted<T>(&self, r: &Request, future: impl Future<Output = T>) -> Result<T, Fault> {
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
    ) -> Result<Reply, Fault> {
        stream.set_send_timeout(Some(self.up.send_timeout));
        let mut sending = self.begin_sending(r, stream, outgoing, codec)?;
        loop {
            let more = poll_fn(|cx| self.poll_exchange(cx, r, stream, &mut sending, codec)).await?;
            let found = self.read_head(r, exchange, codec, more).map_err(|error| log(r, &error))?;
            let Some(length) = found else { continue };
            let (status, elapsed) = (exchange.head.borrow().1.status, exchange.elapsed_ms());
            exchange.current(|attempt| (attempt.status, attempt.header_ms) = (status, Some(elapsed)));
            if status == 101 && !is_agreed(r, exchange) {
                return Err(
                    Fault::InvalidResponse.log_with(r, &"upstream sent invalid \"Sec-WebSocket-Accept\" header")
                );
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
    ) -> Result<Sending, Fault> {
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
    ) -> Result<Option<Option<u64>>, ProtocolError> {
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
                HeadEvent::More if over => return Err(ProtocolError::closed()),
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
    ) -> Poll<Result<Buf, Fault>> {
        codec.transmit(&mut sending.chain);
        if (!sending.done || !sending.chain.is_empty())
            && let Err(fault) = self.poll_sending(cx, r, stream, sending, codec)
        {
            return Poll::Ready(Err(fault));
        }
        match stream.poll_recv(cx, FIRST_READ) {
            Poll::Ready(Ok(buf)) => return Poll::Ready(Ok(buf)),
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                return Poll::Ready(Err(Fault::SlowUpstream.log_with(r, &TIMED_OUT)));
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::FailedReceive.log_with(r, &Errno(&error)))),
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
    ) -> Result<(), Fault> {
        loop {
            let waiting = sending.more && !sending.blocked && !self.gather(cx, r, sending, codec)?;
            match stream.poll_send(cx, &mut sending.chain) {
                Poll::Ready(Ok(())) => sending.blocked = false,
                Poll::Pending => {
                    sending.blocked = true;
                    return Ok(());
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(Fault::SlowSend.log_with(r, &TIMED_OUT));
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
    ) -> Result<bool, Fault> {
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
                Poll::Ready(Err(fault)) => return Err(fault),
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

/// Logs what was wrong before the end of a response's head.
fn log(r: &Request, error: &ProtocolError) -> Fault {
    match &error.text[..] {
        "" => error.fault,
        text => error.fault.log_with(r, &text),
    }
}

/// Whether a switch of protocols is the one that the client asked for.
fn is_agreed(r: &Request, exchange: &Exchange) -> bool {
    let head = exchange.head.borrow();
    websocket::is_agreed(r, &head.1, &head.0)
}

fn send_failed(r: &Request, error: &io::Error) -> Fault {
    Fault::FailedSend.log_with(r, &Errno(error))
}

fn client_gone(r: &Request, action: &str) -> Fault {
    Fault::ClientLeft.log_with(r, &format_args!(", so upstream connection is closed too while {action}"))
}
