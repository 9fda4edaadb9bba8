//! Upgraded connections (WebSocket and the like): bytes both ways until either side ends.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use ::upstream::{Choice, Idle, Outcome};
use buf::{Bytes, Chain};
use engine::log::{Errno, Level};

use super::engine::{Backend, TIMED_OUT};
use super::state::Exchange;
use crate::core::output;
use crate::core::phase::Flow;
use crate::core::request::Request;

/// The largest single read.
const READ: usize = 16 << 10;

/// One direction.
struct Pump<'s> {
    from: &'s rt::Stream,
    to: &'s rt::Stream,
    chain: Chain,
    moved: u64,
    end: bool,
}

/// How a direction stands after a turn.
enum Turn {
    /// It waits; the flag tells whether it moved anything.
    Waits(bool),
    /// Its source has ended, and everything is sent on.
    Ended,
    /// Reading or writing failed.
    Failed(io::Error, &'static str),
}

impl<'s> Pump<'s> {
    fn new(from: &'s rt::Stream, to: &'s rt::Stream, first: Bytes) -> Pump<'s> {
        Pump { from, to, moved: first.len() as u64, chain: Chain::from(first), end: false }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Turn {
        let mut moved = false;
        loop {
            match self.to.poll_send(cx, &mut self.chain) {
                Poll::Ready(Ok(())) if self.end => return Turn::Ended,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Turn::Failed(error, "send"),
                Poll::Pending => return Turn::Waits(moved),
            }
            match self.from.poll_recv(cx, READ) {
                Poll::Ready(Ok(buf)) if buf.is_empty() => self.end = true,
                Poll::Ready(Ok(buf)) => {
                    moved = true;
                    self.moved += buf.len() as u64;
                    self.chain.push_bytes(buf.freeze());
                }
                Poll::Ready(Err(error)) => return Turn::Failed(error, "recv"),
                Poll::Pending => return Turn::Waits(moved),
            }
        }
    }
}

/// Sends the head, then passes bytes both ways. As in nginx, the tunnel ends with either side's end, once what that side
/// had sent is passed on.
pub(super) async fn run(
    b: &Backend,
    r: &mut Request,
    exchange: &Rc<Exchange>,
    parts: Box<(Choice, Idle, Bytes)>,
) -> Flow<'static> {
    let (mut choice, idle, rest) = *parts;
    r.keepalive = false;
    let sent = output::send_head(r).await;
    if sent.is_ok() {
        let unread = r.body.take_unread();
        let received = idle.stream.received();
        let moved = pass(b, r, &idle.stream, rest, unread).await;
        let received = idle.stream.received() - received;
        exchange.current(|attempt| (attempt.length, attempt.received) = (moved, attempt.received + received));
        r.completed = true;
    }
    exchange.end();
    choice.release(Outcome::Good);
    Flow::Finished
}

/// How many bytes went to the client.
async fn pass(b: &Backend, r: &Request, backend: &rt::Stream, rest: Bytes, unread: Bytes) -> u64 {
    let client = &r.conn.stream;
    client.set_recv_timeout(None);
    client.set_send_timeout(Some(r.location.core.send_timeout));
    backend.set_send_timeout(Some(b.up.send_timeout));
    backend.set_recv_timeout(Some(b.up.read_timeout));
    let mut down = Pump::new(backend, client, rest);
    let mut up = Pump::new(client, backend, unread);
    let end = poll_fn(|cx| {
        let mut moved = false;
        for (turn, who) in [(down.turn(cx), "upstream"), (up.turn(cx), "client")] {
            match turn {
                Turn::Waits(some) => moved |= some,
                Turn::Ended => return Poll::Ready(None),
                Turn::Failed(error, call) => return Poll::Ready(Some((error, call, who))),
            }
        }
        if moved {
            backend.set_recv_timeout(Some(b.up.read_timeout));
        }
        Poll::Pending
    })
    .await;
    if let Some((error, call, _)) = end {
        if error.kind() == io::ErrorKind::TimedOut {
            r.log_error(format_args!("upstream timed out{TIMED_OUT} while proxying upgraded connection"));
        } else {
            r.log_at(Level::Info, format_args!("{call}() failed{} while proxying upgraded connection", Errno(&error)));
        }
    }
    down.moved
}
