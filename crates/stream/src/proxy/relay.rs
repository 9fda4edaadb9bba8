//! A session under way: bytes both ways between the client and the server.

use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use buf::{Bytes, Chain};
use common::pump::{Pump, Turn};
use common::vars;
use engine::handover::Handover;
use engine::log::{Errno, Level, TIMED_OUT};
use upstream::{Choice, Moment, Outcome};

use super::reach::{Reached, end_attempt};
use super::{Backend, ProxyConf, handover};
use crate::session::{Link, StreamSession};

/// A session's side to the server.
pub(super) struct Relay {
    /// The server.
    pub(super) choice: Choice,
    /// The connection to it.
    pub(super) backend: rt::Stream,
    /// When the connection began to be made.
    pub(super) began_ms: u64,
    /// Bytes a second from the client and to it; 0 for any number.
    pub(super) rates: [u64; 2],
    /// How far it has come.
    pub(super) state: State,
    /// Whether it stays in this process to its end: nobody took it when it was handed over.
    pub(super) stays: bool,
    /// The first wait for something to pass, if another process began it.
    pub(super) first_wait_ms: Option<u64>,
}

/// What changes while bytes pass.
#[derive(Clone, Copy, Default)]
pub(super) struct State {
    /// Whether the client has ended its direction, and the server knows.
    pub(super) up_ended: bool,
    /// Whether the server has.
    pub(super) down_ended: bool,
    /// When the server's first bytes came, counted from when the connection began to be made.
    pub(super) first_byte_ms: Option<u64>,
    /// When something has passed last.
    pub(super) moved_ms: Option<u64>,
}

/// Why passing bytes on is over.
enum End {
    Client,
    Server,
    TimedOut,
    Failed(io::Error, &'static str),
    /// The session goes on in another process.
    Leaves(Rc<Handover>),
}

/// A direction between two connections.
type Way<'s> = Pump<'s, rt::Stream, rt::Stream>;

/// Both directions, and what is between them.
struct Ways<'s> {
    conf: &'s ProxyConf,
    relay: &'s Relay,
    client: &'s rt::Stream,
    up: Way<'s>,
    down: Way<'s>,
}

/// Passes bytes both ways until the end, and gives the session back.
pub(super) fn run<'b>(
    b: &'b Backend,
    mut s: Box<StreamSession>,
    reached: Reached,
) -> impl Future<Output = Option<Box<StreamSession>>> + 'b {
    let Reached { choice, backend, began_ms, header } = reached;
    if !s.base.peer.is_unix()
        && s.server.core.shared.tcp_nodelay
        && let Some(client) = s.link.stream()
    {
        let _ = client.set_nodelay(true);
    }
    let first = s.take_first();
    let rates = rates(&mut s, &b.conf);
    let relay = Relay { choice, backend, began_ms, rates, state: State::default(), stays: false, first_wait_ms: None };
    relay.serve(b, s, header, first)
}

impl Relay {
    /// Passes bytes both ways. The header goes to the server first, then what the client has sent already.
    ///
    /// What is prepared outside of the future isn't in it twice: it lasts as long as the session.
    pub(super) fn serve<'b>(
        mut self,
        b: &'b Backend,
        s: Box<StreamSession>,
        header: Bytes,
        first: Bytes,
    ) -> impl Future<Output = Option<Box<StreamSession>>> + 'b {
        self.set_timeouts(&s, &b.conf);
        let may_leave = !self.stays && !self.backend.is_layered();
        async move {
            let Link::Stream(client) = &s.link else { return Some(s) };
            let mut state = self.state;
            let mut ways = Ways::new(&b.conf, &self, client, (header, first));
            let end = poll_fn(|cx| {
                if may_leave
                    && let Some(to) = s.stream.worker.successors.get()
                    && client.can_leave()
                {
                    state.keep_time(&ways);
                    return Poll::Ready(End::Leaves(to));
                }
                state.turn(cx, &mut ways)
            })
            .await;
            let (up, down) = (ways.up.into_chain(), ways.down.into_chain());
            self.state = state;
            self.end(s, end, (up, down))
        }
    }

    fn set_timeouts(&self, s: &StreamSession, conf: &ProxyConf) {
        let Link::Stream(client) = &s.link else { return };
        let timeout_ms = conf.proxy_timeout;
        client.set_recv_timeout(None);
        client.set_send_timeout(Some(timeout_ms));
        self.backend.set_send_timeout(Some(timeout_ms));
        let watched = if self.state.down_ended { client } else { &self.backend };
        watched.set_recv_timeout(Some(self.first_wait_ms.unwrap_or(timeout_ms)));
    }

    /// No more passes here; what has been read, and not sent, goes along if the session leaves.
    fn end(mut self, mut s: Box<StreamSession>, end: End, (up, down): (Chain, Chain)) -> Option<Box<StreamSession>> {
        s.has_ended = self.state.up_ended || matches!(end, End::Client);
        if let Some(attempt) = s.attempts.last_mut() {
            (attempt.sent, attempt.received) = (self.backend.sent(), self.backend.received());
            attempt.header_ms = self.state.first_byte_ms;
        }
        if let End::Leaves(to) = end {
            handover::give(&to, s, self, up, down);
            return None;
        }
        self.choice.completed();
        self.choice.release(Outcome::Good);
        end_attempt(&mut s, self.began_ms);
        log_end(&s, &end);
        Some(s)
    }
}

impl<'s> Ways<'s> {
    /// `header` goes to the server before `first`, which the client has sent.
    fn new(conf: &'s ProxyConf, relay: &'s Relay, client: &'s rt::Stream, (header, first): (Bytes, Bytes)) -> Ways<'s> {
        let ([upload, download], size) = (relay.rates, conf.proxy_buffer_size);
        let mut up = Way::new(client, &relay.backend, first, size).at_rate(upload);
        if !header.is_empty() {
            let mut rest = std::mem::replace(&mut up.chain, Chain::from(header));
            up.chain.append(&mut rest);
        }
        let down = Way::new(&relay.backend, client, Bytes::default(), size).at_rate(download);
        Ways { conf, relay, client, up, down }
    }
}

impl State {
    fn turn(&mut self, cx: &mut Context<'_>, ways: &mut Ways<'_>) -> Poll<End> {
        let timeout_ms = ways.conf.proxy_timeout;
        loop {
            match self.pass(cx, ways) {
                // Something has passed since the deadline was set.
                Poll::Ready(End::TimedOut) if self.has_moved_within(timeout_ms) => {
                    ways.client.set_send_timeout(Some(timeout_ms));
                    ways.relay.backend.set_send_timeout(Some(timeout_ms));
                    self.keep_time(ways);
                }
                passed => return passed,
            }
        }
    }

    fn has_moved_within(&self, ms: u64) -> bool {
        self.moved_ms.is_some_and(|moved_ms| rt::now_ms() < moved_ms.saturating_add(ms))
    }

    /// Sets the deadline, which isn't moved with all that passes. The connection that is read to the last has it.
    fn keep_time(&self, ways: &Ways<'_>) {
        let Some(moved_ms) = self.moved_ms else { return };
        let watched = if self.down_ended { ways.client } else { &ways.relay.backend };
        watched.set_recv_timeout(Some(moved_ms.saturating_add(ways.conf.proxy_timeout).saturating_sub(rt::now_ms())));
    }

    fn pass(&mut self, cx: &mut Context<'_>, ways: &mut Ways<'_>) -> Poll<End> {
        let Ways { conf, relay, client, up, down } = ways;
        let (mut moved, down_ended) = (false, self.down_ended);
        if !self.down_ended {
            let turn = down.turn(cx);
            if self.first_byte_ms.is_none() && down.moved > 0 {
                self.first_byte_ms = Some(rt::now_ms().saturating_sub(relay.began_ms));
                relay.choice.reached(Moment::FirstByte);
            }
            let goes_on = conf.proxy_half_close && !self.up_ended;
            match after(turn, goes_on.then_some(*client), &mut self.down_ended) {
                Ok(some) => moved |= some,
                Err(end) => return Poll::Ready(end.unwrap_or(End::Server)),
            }
        }
        if !self.up_ended {
            let goes_on = conf.proxy_half_close && !self.down_ended;
            match after(up.turn(cx), goes_on.then_some(&relay.backend), &mut self.up_ended) {
                Ok(some) => moved |= some,
                Err(end) => return Poll::Ready(end.unwrap_or(End::Client)),
            }
        }
        if moved {
            self.moved_ms = Some(rt::now_ms());
        }
        if self.down_ended != down_ended {
            self.keep_time(ways);
        }
        Poll::Pending
    }
}

/// Whether a direction has moved something in this turn. When it ends, that ends too where it leads to, if the other direction
/// goes on without it; else all is over: `None`, or what has failed.
fn after(turn: Turn, to: Option<&rt::Stream>, ended: &mut bool) -> Result<bool, Option<End>> {
    match (turn, to) {
        (Turn::Waits(moved), _) => Ok(moved),
        (Turn::Ended, Some(to)) => {
            *ended = true;
            let _ = to.shutdown_write();
            Ok(true)
        }
        (Turn::Ended, None) => Err(None),
        (Turn::Failed(error, _), _) if error.kind() == io::ErrorKind::TimedOut => Err(Some(End::TimedOut)),
        (Turn::Failed(error, call), _) => Err(Some(End::Failed(error, call))),
    }
}

fn log_end(s: &StreamSession, end: &End) {
    match end {
        End::Client => s.log_plain(format_args!("client disconnected, {}", s.counts())),
        End::Server => s.log_plain(format_args!("upstream disconnected, {}", s.counts())),
        End::TimedOut => {
            s.log_at(Level::Info, format_args!("connection timed out{TIMED_OUT} while proxying connection"));
        }
        End::Failed(error, call) if !rt::is_closing(error) => {
            s.log_at(Level::Info, format_args!("{call}() failed{} while proxying connection", Errno(error)));
        }
        End::Failed(..) | End::Leaves(_) => {}
    }
}

/// The limits of a session, in bytes a second from the client and to it; 0 for none.
pub(super) fn rates(s: &mut StreamSession, conf: &ProxyConf) -> [u64; 2] {
    [&conf.proxy_upload_rate, &conf.proxy_download_rate].map(|template| {
        let size = template.as_ref().and_then(|template| buf::parse::parse_size(&vars::render(s, template)));
        size.unwrap_or(0)
    })
}
