//! Passing bytes from one connection to another: a direction of a tunnel.

use std::future::Future;
use std::io;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

use buf::{Buf, Bytes, Chain};
use rt::Tried;

/// One end of a tunnel.
pub trait Side {
    /// What has been read. Only what has to wait becomes shared bytes.
    type Read: Deref<Target = [u8]> + Into<Bytes>;

    /// Reads up to about `size` bytes; none are the end.
    fn poll_recv(&self, cx: &mut Context<'_>, size: usize) -> Poll<io::Result<Self::Read>>;

    /// Sends at once what can be sent at once.
    fn try_send(&self, bytes: &[u8]) -> io::Result<Tried>;

    /// Takes over the chain; ready when all of it is with the kernel.
    fn poll_send(&self, cx: &mut Context<'_>, chain: &mut Chain) -> Poll<io::Result<()>>;
}

impl Side for rt::Stream {
    type Read = Buf;

    fn poll_recv(&self, cx: &mut Context<'_>, size: usize) -> Poll<io::Result<Buf>> {
        self.poll_recv(cx, size)
    }

    fn try_send(&self, bytes: &[u8]) -> io::Result<Tried> {
        self.try_send(bytes)
    }

    fn poll_send(&self, cx: &mut Context<'_>, chain: &mut Chain) -> Poll<io::Result<()>> {
        self.poll_send(cx, chain)
    }
}

/// One direction. It reads only when all that it has read before is sent.
pub struct Pump<'s, F, T> {
    from: &'s F,
    to: &'s T,
    /// What is to be sent.
    pub chain: Chain,
    /// Bytes that have been read and aren't held back.
    pub moved: u64,
    /// What has been read beyond the rate, and waits for its time.
    held: Bytes,
    /// The size of a read.
    size: usize,
    /// The size of the largest one: while much comes at once, reads grow.
    most: usize,
    /// Whether all that was given to the other side is with the kernel.
    sent: bool,
    end: bool,
    throttle: Option<Box<Throttle>>,
}

/// How a direction stands after a turn.
#[derive(Debug)]
pub enum Turn {
    /// It waits; the flag tells whether it moved anything.
    Waits(bool),
    /// Its source has ended, and everything is sent on.
    Ended,
    /// Reading or writing (`recv`, `send`) failed.
    Failed(io::Error, &'static str),
}

impl Turn {
    /// How both directions stand together: the end of one is that of both, and so is its failure.
    #[must_use]
    pub fn and(self, other: Turn) -> Turn {
        match (self, other) {
            (Turn::Waits(one), Turn::Waits(other)) => Turn::Waits(one | other),
            (Turn::Waits(_), over) | (over, _) => over,
        }
    }
}

impl<'s, F: Side, T: Side> Pump<'s, F, T> {
    /// Begins with bytes that have been read already. `size` is that of a read; where much comes at once, reads are up to
    /// `GROWTH` times as large.
    pub fn new(from: &'s F, to: &'s T, first: Bytes, size: usize) -> Pump<'s, F, T> {
        let moved = first.len() as u64;
        let (chain, held, most) = (Chain::from(first), Bytes::default(), size.saturating_mul(GROWTH));
        Pump { from, to, chain, moved, held, size, most, sent: false, end: false, throttle: None }
    }

    /// Reads no more than `rate` bytes a second; 0 is no limit. The bytes to begin with count.
    #[must_use]
    pub fn at_rate(mut self, rate: u64) -> Pump<'s, F, T> {
        self.throttle = (rate > 0).then(|| Box::new(Throttle { rate, began_ms: rt::now_ms(), pause: None }));
        self
    }

    /// Moves what can be moved now.
    pub fn turn(&mut self, cx: &mut Context<'_>) -> Turn {
        let mut moved = false;
        loop {
            if !self.sent {
                match self.to.poll_send(cx, &mut self.chain) {
                    Poll::Ready(Ok(())) => self.sent = true,
                    Poll::Ready(Err(error)) => return Turn::Failed(error, "send"),
                    Poll::Pending => return Turn::Waits(moved),
                }
            }
            if self.end {
                return Turn::Ended;
            }
            let size = match &mut self.throttle {
                None => self.size,
                Some(throttle) => match throttle.poll(cx, self.moved) {
                    Poll::Ready(allowed) => self.size.min(usize::try_from(allowed).unwrap_or(usize::MAX)),
                    Poll::Pending => return Turn::Waits(moved),
                },
            };
            let passed = match self.held.is_empty() {
                false => {
                    let held = std::mem::take(&mut self.held);
                    self.pass_some(held, size)
                }
                true => match self.from.poll_recv(cx, size) {
                    Poll::Ready(Ok(bytes)) if bytes.is_empty() => {
                        self.end = true;
                        continue;
                    }
                    Poll::Ready(Ok(bytes)) if self.throttle.is_some() => self.pass_some(bytes.into(), size),
                    Poll::Ready(Ok(bytes)) => {
                        if bytes.len() >= size {
                            self.size = self.size.saturating_mul(2).min(self.most);
                        }
                        self.pass(bytes)
                    }
                    Poll::Ready(Err(error)) => return Turn::Failed(error, "recv"),
                    Poll::Pending => return Turn::Waits(moved),
                },
            };
            moved = true;
            if let Err(error) = passed {
                return Turn::Failed(error, "send");
            }
        }
    }

    /// Passes on as much of what has been read as the rate allows now.
    fn pass_some(&mut self, mut bytes: Bytes, size: usize) -> io::Result<()> {
        if bytes.len() > size {
            self.held = bytes.slice(size..bytes.len());
            bytes = bytes.slice(0..size);
        }
        if let Some(throttle) = &mut self.throttle {
            throttle.rest(bytes.len() as u64);
        }
        self.pass(bytes)
    }

    /// Passes on what has been read. Nothing waits to be sent: it was before more was read.
    fn pass(&mut self, bytes: impl Deref<Target = [u8]> + Into<Bytes>) -> io::Result<()> {
        self.moved += bytes.len() as u64;
        let sent = match self.to.try_send(&bytes)? {
            Tried::Sent(sent) => sent,
            Tried::Taken => {
                self.sent = false;
                return Ok(());
            }
            Tried::Nothing => 0,
        };
        if sent < bytes.len() {
            let bytes: Bytes = bytes.into();
            self.chain.push_bytes(bytes.slice(sent..bytes.len()));
            self.sent = false;
        }
        Ok(())
    }

    /// What has been read, and not taken over for sending.
    pub fn into_chain(self) -> Chain {
        let mut chain = self.chain;
        if !self.held.is_empty() {
            chain.push_bytes(self.held);
        }
        chain
    }
}

/// How many times larger reads get while much comes at once.
const GROWTH: usize = 4;

/// Holds a direction back.
struct Throttle {
    rate: u64,
    began_ms: u64,
    pause: Option<Pin<Box<rt::Sleep>>>,
}

impl Throttle {
    /// How many bytes may be read now, of which so many have been read in all.
    fn poll(&mut self, cx: &mut Context<'_>, moved: u64) -> Poll<u64> {
        loop {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.pause = None;
            }
            // As in nginx: what the seconds that have begun allow.
            let seconds = rt::now_ms().saturating_sub(self.began_ms) / 1000 + 1;
            let all = self.rate.saturating_mul(seconds);
            if all > moved {
                return Poll::Ready(all - moved);
            }
            let late_ms = (moved - all).saturating_mul(1000) / self.rate + 1;
            self.pause = Some(Box::pin(rt::sleep(late_ms)));
        }
    }

    /// So many bytes take their time.
    fn rest(&mut self, bytes: u64) {
        let ms = bytes.saturating_mul(1000) / self.rate;
        self.pause = (ms > 0).then(|| Box::pin(rt::sleep(ms)));
    }
}
