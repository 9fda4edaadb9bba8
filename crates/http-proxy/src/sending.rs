//! A request on its way to its backend.
//!
//! A body that isn't read whole beforehand is passed on as the client sends it, while the response comes as well as before
//! it: a backend may answer before it has the whole request, and wait for the rest in the middle of its response.

use std::io;
use std::task::{Context, Poll};

use buf::{Bytes, Chain, Piece};
use http::body::append;
use http::fault::Fault;
use http::request::Request;

use crate::protocol::Codec;

/// The largest part of a request's body that is sent in one go.
const MAX_PART: u64 = 64 << 10;

/// What is still to be sent.
pub(super) struct Sending {
    chain: Chain,
    /// The body isn't complete.
    more: bool,
    /// The kernel takes no more for now.
    blocked: bool,
    /// The backend's window is shut, and a part of the body waits for it.
    shut: bool,
    /// The whole request was given to the kernel. What the protocol has to say by itself may follow.
    done: bool,
    /// The body and its length, while it is small: for `$request_body`.
    kept: Option<(Vec<Piece>, usize)>,
    /// The backend takes no more.
    broken: bool,
    /// Why that is so.
    error: Option<io::Error>,
}

/// How long a backend may take before the head of its response.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// Its window may be shut for so many milliseconds.
    pub(super) send_ms: u64,
    /// Once there is nothing to send, it may take so many to answer.
    pub(super) read_ms: u64,
}

/// Why a request isn't sent to its end.
pub(super) enum Obstacle {
    /// The client's body can't be read.
    Client(Fault),
    /// The backend took nothing for too long.
    TimedOut,
}

impl Sending {
    /// Begins with these bytes. `streamed`: the body follows as the client sends it. `done`: there is nothing to send.
    pub(super) fn new(chain: Chain, streamed: bool, done: bool) -> Sending {
        Sending {
            chain,
            more: streamed,
            blocked: false,
            shut: false,
            done,
            kept: Some((Vec::new(), 0)),
            broken: false,
            error: None,
        }
    }

    /// Whether everything was given to the kernel.
    pub(super) fn is_complete(&self) -> bool {
        self.done && self.chain.is_empty()
    }

    /// Whether the backend's window is shut while there is more of the body.
    pub(super) fn is_shut(&self) -> bool {
        self.shut
    }

    /// Why the backend takes no more. Told once.
    pub(super) fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// Sends what there is, that of the codec included. A backend that takes no more isn't an error: its answer may have
    /// come already. Without `r` no more of the body is taken. `patience` is for the time before the response's head.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut r: Option<&mut Request>,
        stream: &rt::Stream,
        codec: &mut dyn Codec,
        patience: Option<Patience>,
    ) -> Result<(), Obstacle> {
        codec.transmit(&mut self.chain);
        if self.is_complete() {
            return Ok(());
        }
        while !self.broken {
            let waiting = match r.as_deref_mut() {
                Some(r) => self.more && !self.blocked && !self.gather(cx, r, codec)?,
                None => true,
            };
            let shut = self.more && codec.holds_back();
            if let Some(patience) = patience
                && shut != self.shut
            {
                self.shut = shut;
                stream.set_recv_timeout(shut.then_some(patience.send_ms));
            }
            match stream.poll_send(cx, &mut self.chain) {
                Poll::Ready(Ok(())) => self.blocked = false,
                Poll::Pending => {
                    self.blocked = true;
                    return Ok(());
                }
                Poll::Ready(Err(error)) => {
                    self.broken = true;
                    if error.kind() == io::ErrorKind::TimedOut {
                        return Err(Obstacle::TimedOut);
                    }
                    self.error = Some(error);
                }
            }
            if !self.more || self.broken {
                // What is held back waits for the backend, as for a response.
                if let Some(patience) = patience
                    && !self.done
                {
                    stream.set_recv_timeout(Some(patience.read_ms));
                }
                self.done = !self.broken && !codec.holds_back();
                return Ok(());
            }
            if waiting {
                return Ok(());
            }
        }
        self.chain.clear();
        Ok(())
    }

    /// Takes what there is of the request's body, as one part; false if more is to be waited for.
    fn gather(&mut self, cx: &mut Context<'_>, r: &mut Request, codec: &mut dyn Codec) -> Result<bool, Obstacle> {
        let limit = r.location.core.client_body_buffer_size;
        let most = MAX_PART.min(codec.window());
        let mut part = Chain::new();
        let mut ready = most > 0;
        // After enough of it, one look tells whether that was the end. What it finds instead is held back.
        let mut looks = u32::from(ready || !codec.holds_back());
        while self.more && (part.len() < most || std::mem::take(&mut looks) > 0) {
            match r.poll_body(cx) {
                Poll::Ready(Ok(Some(data))) => {
                    self.note(&data, limit);
                    part.push_bytes(data);
                }
                Poll::Ready(Ok(None)) => self.more = false,
                Poll::Ready(Err(fault)) => return Err(Obstacle::Client(fault)),
                Poll::Pending => {
                    ready = false;
                    break;
                }
            }
        }
        if !part.is_empty() || !self.more {
            codec.body(part, !self.more, &mut self.chain);
        }
        if !self.more
            && let Some((kept, _)) = self.kept.take()
        {
            r.body.keep(kept);
        }
        Ok(ready)
    }

    /// Keeps the body while it is no larger than `limit`.
    fn note(&mut self, data: &Bytes, limit: usize) {
        if let Some((kept, length)) = &mut self.kept {
            *length += data.len();
            if *length > limit {
                self.kept = None;
            } else {
                append(kept, data.clone());
            }
        }
    }
}
