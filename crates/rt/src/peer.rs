//! Waiting for something on behalf of a peer, which may leave meanwhile.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

use crate::Stream;

/// A peer that something is done for.
pub trait Peer {
    /// Ready once the peer has closed its side, or is gone.
    fn poll_hangup(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ready once the peer is gone: what it is sent reaches nobody.
    fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()>;
}

impl Peer for Stream {
    fn poll_hangup(&self, cx: &mut Context<'_>) -> Poll<()> {
        Stream::poll_hangup(self, cx)
    }

    fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        Stream::poll_reset(self, cx)
    }
}

/// Nobody never leaves.
impl<P: Peer> Peer for Option<&P> {
    fn poll_hangup(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.map_or(Poll::Pending, |peer| peer.poll_hangup(cx))
    }

    fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.map_or(Poll::Pending, |peer| peer.poll_reset(cx))
    }
}

/// Waits for something, unless the peer is gone: then it is `None`. A peer that has only closed its side may still read
/// what comes of it; `closed` is called when it has.
pub async fn unless_gone<T>(peer: &impl Peer, awaited: impl Future<Output = T>, closed: impl FnOnce()) -> Option<T> {
    let (mut awaited, mut closed) = (pin!(awaited), Some(closed));
    poll_fn(|cx| {
        if let Poll::Ready(done) = awaited.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        if peer.poll_reset(cx).is_ready() {
            return Poll::Ready(None);
        }
        if closed.is_some()
            && peer.poll_hangup(cx).is_ready()
            && let Some(closed) = closed.take()
        {
            closed();
        }
        Poll::Pending
    })
    .await
}
