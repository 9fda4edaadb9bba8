//! A request on its way to a backend: while the head of the response is awaited, and while its body comes.

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
    /// Framed bytes.
    pub(super) chain: Chain,
    /// The body isn't complete.
    pub(super) more: bool,
    /// The kernel takes no more for now.
    blocked: bool,
    /// The whole request is with the kernel.
    pub(super) done: bool,
    /// The body, while it is small: for `$request_body`.
    kept: Option<Vec<Piece>>,
}

/// Why a request can't be sent on.
pub(super) enum Unsent {
    /// The client's body can't be read.
    Body(Fault),
    /// The connection to the backend failed.
    Failed(io::Error),
}

impl Sending {
    /// A request whose head, and what is known of the body, is in `chain`. `more`: the client's body is to be read.
    /// `done`: all of it is with the kernel.
    pub(super) fn new(chain: Chain, more: bool, done: bool) -> Sending {
        Sending { chain, more, blocked: false, done, kept: more.then(Vec::new) }
    }

    /// Sends what there is, and reads the client's body on. Whether the last byte went to the kernel just now.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        r: &mut Request,
        stream: &rt::Stream,
        codec: &mut dyn Codec,
    ) -> Result<bool, Unsent> {
        codec.transmit(&mut self.chain);
        loop {
            let waiting = self.more && !self.blocked && !self.gather(cx, r, codec)?;
            if !self.push(cx, stream)? {
                return Ok(false);
            }
            if !self.more {
                // What is held back waits for the backend, as for a response.
                return Ok(!std::mem::replace(&mut self.done, !codec.holds_back()));
            }
            if waiting {
                return Ok(false);
            }
        }
    }

    /// Sends what the protocol has to say, and what of the body it held back; the client's body isn't read.
    pub(super) fn poll_own(
        &mut self,
        cx: &mut Context<'_>,
        stream: &rt::Stream,
        codec: &mut dyn Codec,
    ) -> Result<(), Unsent> {
        codec.transmit(&mut self.chain);
        if !self.chain.is_empty() && self.push(cx, stream)? && !self.more {
            self.done = !codec.holds_back();
        }
        Ok(())
    }

    /// Gives the kernel what there is; whether it took all.
    fn push(&mut self, cx: &mut Context<'_>, stream: &rt::Stream) -> Result<bool, Unsent> {
        match stream.poll_send(cx, &mut self.chain) {
            Poll::Ready(Ok(())) => self.blocked = false,
            Poll::Pending => self.blocked = true,
            Poll::Ready(Err(error)) => return Err(Unsent::Failed(error)),
        }
        Ok(!self.blocked)
    }

    /// Takes what there is of the request's body, as one part; false if more is to be waited for.
    fn gather(&mut self, cx: &mut Context<'_>, r: &mut Request, codec: &mut dyn Codec) -> Result<bool, Unsent> {
        let limit = r.location.core.client_body_buffer_size;
        let most = MAX_PART.min(codec.window());
        let mut part = Chain::new();
        let mut ready = most > 0;
        // After enough of it, one look tells whether that was the end.
        let mut looks = u32::from(ready);
        while self.more && (part.len() < most || std::mem::take(&mut looks) > 0) {
            match r.poll_body(cx) {
                Poll::Ready(Ok(Some(data))) => {
                    self.note(&data, limit);
                    part.push_bytes(data);
                }
                Poll::Ready(Ok(None)) => self.more = false,
                Poll::Ready(Err(fault)) => return Err(Unsent::Body(fault)),
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
            && let Some(kept) = self.kept.take()
        {
            r.body.keep(kept);
        }
        Ok(ready)
    }

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
