//! One attempt to ask a backend: a connection, the request, the head of the response.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use ::upstream::retry::failure;
use ::upstream::{Choice, Idle, Moment};
use buf::{Buf, Bytes, Chain, Piece};
use engine::log::{Errno, TIMED_OUT};
use http::exchange::Exchange;
use http::fault::{Fault, Retry};
use http::request::Request;
use http::session::h2::websocket;
use os::SockAddr;
use rt::{ConnectError, Tried};

use crate::engine::Backend;
use crate::protocol::{Codec, HeadEvent, Note, ProtocolError};
use crate::respond::{self, Answer, Reply};
use crate::sending::{Obstacle, Patience, Sending};
use crate::ssl;

/// The size of the first read of a response: head and body, if they are small, come in one.
const FIRST_READ: usize = 16 << 10;
/// How many interim responses (1xx) may come before the response: a wait that only they end would have no end.
const MAX_INTERIM: u16 = 1000;

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

/// The request's body as it is sent; its head is with the exchange.
#[derive(Default)]
pub(super) struct Outgoing {
    /// The body's pieces, if it was read whole.
    pub(super) body: Vec<Piece>,
    /// The body is passed on as it comes.
    pub(super) streamed: bool,
}

impl Outgoing {
    /// Whether the body is passed on as it comes. A small one is kept meanwhile, and can be sent again once it is whole.
    pub(super) fn is_streamed(&self, r: &Request) -> bool {
        self.streamed && r.body.buffered().is_none()
    }
}

impl Backend {
    /// One attempt: a connection, the request, the head of the response.
    pub(super) async fn attempt(
        &self,
        r: &mut Request,
        exchange: &Exchange,
        choice: &Choice,
        outgoing: &mut Outgoing,
    ) -> Result<Answer, Failed> {
        if !self.up.allow_upstream.iter().all(|condition| r.test(condition)) {
            return Err(Fault::DeniedUpstream.log(r).into());
        }
        let streamed = outgoing.is_streamed(r);
        if self.up.request_dynamic || streamed != outgoing.streamed {
            *outgoing = self.write(r, exchange, streamed)?;
        }
        let kept = self.kept_connection(r, exchange, choice);
        let cached = kept.is_some();
        let mut idle = match kept {
            Some(idle) => idle,
            // Few requests need it: it isn't to make their future larger.
            None => {
                let Some(peer) = choice.peer() else {
                    return Err(Failed { fault: Fault::NoLiveUpstreams, stale: false });
                };
                let addr = peer.addr.clone();
                Box::pin(self.connect(r, exchange, addr)).await?
            }
        };
        let elapsed = exchange.elapsed_ms();
        exchange.current(|attempt| attempt.connect_ms = Some(elapsed));
        choice.reached(Moment::Connected);
        let mut codec = self.protocol.codec(exchange, idle.kept.take());
        let result = self.exchange(r, exchange, &idle.stream, outgoing, &mut *codec).await;
        let counts = idle.count();
        exchange.current(|attempt| (attempt.sent, attempt.received) = counts);
        match result {
            Ok(reply) => {
                choice.reached(Moment::FirstByte);
                Ok(Answer { idle, codec, reply })
            }
            Err(fault) => {
                let error = matches!(fault.retry(), Retry::Unsent(failure::ERROR) | Retry::Sent(failure::ERROR));
                // A backend that refuses a request has not been away.
                let stale = cached && error && fault != Fault::RefusedRequest;
                // A body that was passed on as it came is gone, whatever the backend did with it, unless it was kept.
                let fault = match fault {
                    Fault::RefusedRequest | Fault::LeavingUpstream if outgoing.is_streamed(r) => Fault::ShortResponse,
                    fault => fault,
                };
                Err(Failed { fault, stale })
            }
        }
    }

    /// An idle connection on which the request can be served.
    fn kept_connection(&self, r: &mut Request, exchange: &Exchange, choice: &Choice) -> Option<Box<Idle>> {
        let label = self.label(r, exchange);
        let idle = choice.take_idle(&mut Context::from_waker(Waker::noop()), self.place);
        // Another location may have kept a connection of another kind, or another request one with other names.
        idle.filter(|idle| {
            idle.stream.is_layered() == label.ssl
                && idle.label == label.text
                && idle.kept.as_deref().is_some_and(|kept| self.protocol.knows(kept))
        })
    }

    /// A connection to an address, over TLS if the target wants it.
    pub(super) async fn connect(
        &self,
        r: &mut Request,
        exchange: &Exchange,
        addr: SockAddr,
    ) -> Result<Box<Idle>, Fault> {
        let options = self.connect.options(r);
        let connecting = rt::Stream::connect(&addr, &options, self.connect.connect_timeout);
        let error = match self.unless_aborted(r, connecting).await? {
            Ok(stream) => {
                if !addr.is_unix() && r.location.core.shared.tcp_nodelay {
                    let _ = stream.set_nodelay(true);
                }
                let mut idle = Idle::new(stream);
                idle.label = self.handshake(r, exchange, &idle.stream).await?;
                // The handshake doesn't count.
                idle.count();
                return Ok(idle);
            }
            Err(error) => error,
        };
        Err(match error {
            ConnectError::Full => Fault::NoConnections,
            ConnectError::Own(call, error) => {
                Fault::FailedSocket.log_with(r, &format_args!("{call} failed{}", Errno(&error)))
            }
            ConnectError::Peer(error) if error.kind() == io::ErrorKind::TimedOut => {
                Fault::SlowConnect.log_with(r, &TIMED_OUT)
            }
            ConnectError::Peer(error) => Fault::FailedConnect.log_with(r, &Errno(&error)),
        })
    }

    /// What a connection for this request has to be.
    fn label(&self, r: &mut Request, exchange: &Exchange) -> Label {
        match &self.ssl {
            Some(ssl) if exchange.target.borrow().as_ref().is_some_and(|target| target.ssl) => {
                Label { ssl: true, text: ssl.label(r) }
            }
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
        stream.set_recv_timeout(Some(self.connect.connect_timeout));
        stream.set_send_timeout(Some(self.connect.connect_timeout));
        match ssl.connect(r, stream, &target.host, None).await {
            Ok(()) => {
                stream.set_recv_timeout(None);
                Ok(label)
            }
            Err(ssl::Failure::OwnCertificate) => Err(Fault::OwnCertificate),
            Err(ssl::Failure::TimedOut) => Err(Fault::SlowHandshake),
            Err(ssl::Failure::Error) => Err(Fault::FailedHandshake),
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
    pub(super) async fn exchange(
        &self,
        r: &mut Request,
        exchange: &Exchange,
        stream: &rt::Stream,
        outgoing: &Outgoing,
        codec: &mut dyn Codec,
    ) -> Result<Reply, Fault> {
        if codec.is_tunnel() {
            let elapsed = exchange.elapsed_ms();
            exchange.current(|attempt| attempt.header_ms = Some(elapsed));
            return Ok(Reply { status: 200, length: None, unsent: None });
        }
        stream.set_send_timeout(Some(self.up.send_timeout));
        let mut sending = self.begin_sending(r, exchange, stream, outgoing, codec)?;
        let mut interim = 0;
        loop {
            let more = poll_fn(|cx| self.poll_exchange(cx, r, stream, sending.as_deref_mut(), codec)).await?;
            let found = self.read_head(r, exchange, codec, more, &mut interim).map_err(|error| log(r, &error))?;
            let Some(length) = found else { continue };
            let (status, elapsed) = (exchange.head.borrow().1.status, exchange.elapsed_ms());
            exchange.current(|attempt| (attempt.status, attempt.header_ms) = (status, Some(elapsed)));
            if status == 101 && !is_agreed(r, exchange) {
                return Err(
                    Fault::InvalidResponse.log_with(r, &"upstream sent invalid \"Sec-WebSocket-Accept\" header")
                );
            }
            let unsent = sending.take().filter(|sending| !sending.is_complete());
            return Ok(Reply { status, length, unsent });
        }
    }

    /// What is left to send once the head, if it is all there is, was given to the kernel; `None`: nothing, now or later.
    fn begin_sending(
        &self,
        r: &Request,
        exchange: &Exchange,
        stream: &rt::Stream,
        outgoing: &Outgoing,
        codec: &mut dyn Codec,
    ) -> Result<Option<Box<Sending>>, Fault> {
        let alone = outgoing.body.is_empty() && !outgoing.streamed;
        let asked = exchange.request.borrow();
        let head = codec.head(&asked.head, alone);
        let mut left = &head[..];
        let mut done = false;
        if alone {
            match stream.try_send(left).map_err(|error| send_failed(r, &error))? {
                Tried::Sent(sent) => {
                    left = left.get(sent..).unwrap_or_default();
                    done = left.is_empty();
                }
                Tried::Taken => left = b"",
                Tried::Nothing => {}
            }
        }
        if done {
            stream.set_recv_timeout(Some(self.up.read_timeout));
            if !codec.transmits() {
                return Ok(None);
            }
        }
        let mut chain = Chain::new();
        if !left.is_empty() {
            chain.push_bytes(Bytes::copy_from(left));
        }
        if !outgoing.body.is_empty() {
            let mut body = Chain::new();
            for piece in &outgoing.body {
                body.push(piece.clone());
            }
            codec.body(body, true, &mut chain);
        }
        Ok(Some(Box::new(Sending::new(chain, outgoing.streamed, done && !codec.holds_back()))))
    }

    /// Reads on until the head is there; `None`: more bytes are needed. None at all are the end. `interim` counts heads
    /// that came before it.
    fn read_head(
        &self,
        r: &mut Request,
        exchange: &Exchange,
        codec: &mut dyn Codec,
        more: Buf,
        interim: &mut u16,
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
                HeadEvent::Interim if *interim >= MAX_INTERIM => {
                    return Err(ProtocolError::invalid("upstream sent too many interim responses"));
                }
                HeadEvent::Interim => {
                    *interim += 1;
                    self.pass_interim(r, exchange);
                }
                HeadEvent::Note(Note { level, text }) => {
                    r.log_at(level, format_args!("{text} while reading response header from upstream"));
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
        mut sending: Option<&mut Sending>,
        codec: &mut dyn Codec,
    ) -> Poll<Result<Buf, Fault>> {
        if let Some(sending) = &mut sending {
            let patience = Patience { send_ms: self.up.send_timeout, read_ms: self.up.read_timeout };
            match sending.poll(cx, Some(r), stream, codec, Some(patience)) {
                Ok(()) => {}
                Err(Obstacle::Client(fault)) => return Poll::Ready(Err(fault)),
                Err(Obstacle::TimedOut) => return Poll::Ready(Err(Fault::SlowSend.log_with(r, &TIMED_OUT))),
            }
        }
        let is_shut = sending.as_ref().is_some_and(|sending| sending.is_shut());
        let received = stream.poll_recv(cx, FIRST_READ);
        if let Poll::Ready(result) = &received
            && result.as_ref().map_or(true, Buf::is_empty)
            && let Some(error) = sending.and_then(Sending::take_error)
        {
            // There is no answer either.
            return Poll::Ready(Err(send_failed(r, &error)));
        }
        match received {
            Poll::Ready(Ok(buf)) => return Poll::Ready(Ok(buf)),
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                let fault = if is_shut { Fault::SlowSend } else { Fault::SlowUpstream };
                return Poll::Ready(Err(fault.log_with(r, &TIMED_OUT)));
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::FailedReceive.log_with(r, &Errno(&error)))),
            Poll::Pending => {}
        }
        if self.aborted(r, cx) {
            return Poll::Ready(Err(client_gone(r, "reading response header from upstream")));
        }
        Poll::Pending
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
