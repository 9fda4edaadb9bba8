//! Upgraded connections (WebSocket and the like): bytes both ways until either side ends.
//!
//! An HTTP/2 client ends its stream's half alone: the backend is told, and what it still says goes to the client.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use ::upstream::{Choice, Idle, Outcome};
use buf::{Bytes, Chain};
use common::pump::{Pump, Turn};
use engine::handover::Handover;
use engine::log::{Errno, Level, TIMED_OUT};
use http::exchange::Exchange;
use http::phases::Flow;
use http::request::{Delivery, Request};
use http::response::respond::apply_filters;
use http::session::client::Client;
use http::session::h2;
use http::session::send;
use wire::h1::Method;

use crate::cache;
use crate::engine::Backend;
use crate::handover;

/// The largest single read.
const READ: usize = 16 << 10;

/// The waits that a tunnel bears, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the client to take something.
    pub client_send_ms: u64,
    /// For the backend to take something.
    pub send_ms: u64,
    /// For anything to pass.
    pub read_ms: u64,
}

/// An upgraded connection's side to the backend, and what is counted of it.
pub struct Tunnel {
    /// The request's dealings with backends.
    pub exchange: Rc<Exchange>,
    /// The server.
    pub choice: Choice,
    /// The connection to it.
    pub backend: rt::Stream,
    /// The waits that it bears.
    pub timeouts: Timeouts,
    /// The first wait for something to pass, if another process began it.
    pub first_read_ms: Option<u64>,
    /// Bytes that went to the client.
    pub moved: u64,
    /// What had gone to the backend, and come from it, before, and is counted already.
    pub before: (u64, u64),
}

/// Why passing bytes on is over.
enum End {
    /// One side has ended.
    Over,
    /// One side has failed.
    Failed,
    /// The tunnel goes on in another process; these bytes, down and up, have been read and not sent.
    Leaves(Box<(Rc<Handover>, Chain, Chain)>),
}

/// Sends the head, then passes bytes both ways. As in nginx, the tunnel ends with either side's end, once what that side
/// had sent is passed on.
pub(super) async fn run(
    b: &Backend,
    r: &mut Request,
    exchange: &Rc<Exchange>,
    parts: Box<(Choice, Box<Idle>, Bytes)>,
) -> Flow<'static> {
    let (mut choice, idle, rest) = *parts;
    choice.completed();
    if b.caching.is_some() {
        // Nothing will be stored, and others may be waiting for it.
        cache::dismiss(r);
    }
    r.close_after();
    h2::websocket::switch(r);
    if r.method == Method::Connect {
        // No condition of the request's is judged: there is no page in its place.
        let _ = apply_filters(r, true);
    }
    if send::send_head(r).await.is_err() {
        exchange.end();
        choice.release(Outcome::Good);
        return Flow::Finished;
    }
    let unread = r.body.take_unread();
    let timeouts = Timeouts {
        client_send_ms: r.location.core.send_timeout,
        send_ms: b.up.send_timeout,
        read_ms: b.up.read_timeout,
    };
    let (exchange, backend) = (exchange.clone(), idle.stream);
    let before = (backend.sent(), backend.received());
    let tunnel = Tunnel { exchange, choice, backend, timeouts, first_read_ms: None, moved: 0, before };
    tunnel.serve(r, rest, unread).await;
    Flow::Finished
}

impl Tunnel {
    /// Passes bytes both ways until the end, beginning with those that have been read: `rest` is for the client, `unread`
    /// for the backend. If another process takes over, the request is left without its connection.
    pub async fn serve(mut self, r: &mut Request, rest: Bytes, unread: Bytes) {
        match self.pass(r, rest, unread).await {
            End::Leaves(parts) => {
                let (to, down, up) = *parts;
                handover::give_tunnel(&to, r, self, down, up);
            }
            end @ (End::Over | End::Failed) => {
                if matches!(end, End::Over) && r.h2_stream().is_some() {
                    h2::finish_response(r);
                    if let Some(client) = r.client() {
                        let _ = client.send(&mut Chain::new()).await;
                    }
                }
                self.count();
                self.exchange.current(|attempt| attempt.length = self.moved);
                r.delivery = Delivery::Whole;
                self.exchange.end();
                self.choice.release(Outcome::Good);
            }
        }
    }

    /// Adds what has gone to the backend and come from it to the attempt's counts.
    pub fn count(&self) {
        let (sent, received) = (self.backend.sent() - self.before.0, self.backend.received() - self.before.1);
        self.exchange.current(|attempt| {
            attempt.sent += sent;
            attempt.received += received;
        });
    }

    async fn pass(&mut self, r: &Request, rest: Bytes, unread: Bytes) -> End {
        let Some(link) = &r.link else { return End::Failed };
        let (client, backend, timeouts) = (&link.stream, &self.backend, self.timeouts);
        client.set_recv_timeout(None);
        client.set_send_timeout(Some(timeouts.client_send_ms));
        backend.set_send_timeout(Some(timeouts.send_ms));
        backend.set_recv_timeout(Some(self.first_read_ms.unwrap_or(timeouts.read_ms)));
        let mut down = Pump::new(backend, client, rest, READ);
        let mut up = Pump::new(client, backend, unread, READ);
        // Whether the client has ended its half, and the backend knows.
        let mut half = false;
        let (failed, to) = poll_fn(|cx| {
            // The keys of TLS to a backend don't travel.
            if !link.stays
                && !backend.is_layered()
                && let Some(to) = r.http.worker.successors.get()
                && client.socket().can_leave()
            {
                return Poll::Ready((None, Some(to)));
            }
            let down = down.turn(cx);
            let up = match if half { Turn::Ended } else { up.turn(cx) } {
                Turn::Ended if client.stream().is_some() => {
                    if !std::mem::replace(&mut half, true) {
                        let _ = backend.shutdown_write();
                    }
                    hangup(client, cx)
                }
                turn => turn,
            };
            match down.and(up) {
                Turn::Waits(true) => backend.set_recv_timeout(Some(timeouts.read_ms)),
                Turn::Waits(false) => {}
                Turn::Ended => return Poll::Ready((None, None)),
                Turn::Failed(error, call) => return Poll::Ready((Some((error, call)), None)),
            }
            Poll::Pending
        })
        .await;
        self.moved += down.moved;
        match (failed, to) {
            (Some((error, call)), _) => {
                log_failure(r, &error, call);
                End::Failed
            }
            (None, Some(to)) => End::Leaves(Box::new((to, down.into_chain(), up.into_chain()))),
            (None, None) => End::Over,
        }
    }
}

/// The turn of a client whose half has ended: it may still give the other one up.
fn hangup(client: &Client, cx: &mut Context<'_>) -> Turn {
    match client.poll_hangup(cx) {
        Poll::Ready(()) => Turn::Failed(io::ErrorKind::ConnectionReset.into(), "recv"),
        Poll::Pending => Turn::Waits(false),
    }
}

fn log_failure(r: &Request, error: &io::Error, call: &str) {
    if error.kind() == io::ErrorKind::TimedOut {
        r.log_error(format_args!("upstream timed out{TIMED_OUT} while proxying upgraded connection"));
    } else {
        r.log_at(Level::Info, format_args!("{call}() failed{} while proxying upgraded connection", Errno(error)));
    }
}
