//! Idle connections to peers, kept for later requests.
//!
//! A parked connection costs no system call: one task for each group learns from the loop that a peer has hung up, and
//! closes what has been idle for too long, or is asked to make room.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// The directives `keepalive…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// How many idle connections are kept; 0 for none.
    pub connections: usize,
    /// Whether each place (location) has its own connections.
    pub local: bool,
    /// How many requests a connection serves.
    pub requests: u32,
    /// For how long a connection is used, in milliseconds.
    pub time_ms: u64,
    /// How long one may be idle, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for Keepalive {
    /// nginx's defaults since 1.29.7.
    fn default() -> Keepalive {
        Keepalive { connections: 32, local: true, requests: 1000, time_ms: 3_600_000, timeout_ms: 60_000 }
    }
}

/// A connection with what the pool has to know of it.
pub struct Idle {
    /// The connection.
    pub stream: rt::Stream,
    /// How many requests it has served.
    pub requests: u32,
    /// When it was made, in the loop's milliseconds.
    pub since_ms: u64,
    /// What it was made with that others may not have: names and certificates that variables gave.
    pub label: Option<Box<str>>,
    /// What its protocol keeps from one exchange to the next; the protocol alone knows its type.
    pub kept: Option<Box<dyn Any>>,
    /// Bytes sent and received up to the last call of [`Idle::count`].
    counted: (u64, u64),
    watched: bool,
}

impl Idle {
    /// A new connection. It is in a box: requests and the pool hand it on and on.
    pub fn new(stream: rt::Stream) -> Box<Idle> {
        let since_ms = rt::now_ms();
        Box::new(Idle { stream, requests: 0, since_ms, label: None, kept: None, counted: (0, 0), watched: false })
    }

    /// How many bytes were sent and received since the last call.
    pub fn count(&mut self) -> (u64, u64) {
        let now = (self.stream.sent(), self.stream.received());
        let before = std::mem::replace(&mut self.counted, now);
        (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1))
    }
}

struct Parked {
    idle: Box<Idle>,
    peer: usize,
    place: u32,
    until_ms: u64,
}

/// The idle connections of a group.
pub struct Pool {
    settings: Keepalive,
    parked: RefCell<VecDeque<Parked>>,
    keeper: Cell<bool>,
    /// When the task that watches looks next, in the loop's milliseconds.
    next_look_ms: Cell<u64>,
    news: rt::Event,
}

impl Pool {
    /// A pool without connections.
    pub fn new(settings: Keepalive) -> Pool {
        Pool {
            settings,
            parked: RefCell::default(),
            keeper: Cell::new(false),
            next_look_ms: Cell::new(0),
            news: rt::Event::new(),
        }
    }

    /// Takes the youngest idle connection to a peer; one that has been hung up on, or speaks unasked, is closed instead.
    pub fn take(&self, cx: &mut Context<'_>, peer: usize, place: u32) -> Option<Box<Idle>> {
        let mut parked = self.parked.borrow_mut();
        loop {
            let fits = |other: &Parked| other.peer == peer && (!self.settings.local || other.place == place);
            let at = parked.iter().rposition(fits)?;
            let found = if at + 1 == parked.len() { parked.pop_back() } else { parked.remove(at) };
            let idle = found?.idle;
            idle.stream.set_idle(false);
            if !idle.stream.is_readable() {
                return Some(idle);
            }
            // The mark may be left over from a read that filled its buffer exactly: only a read tells.
            idle.stream.set_recv_timeout(None);
            if idle.stream.poll_recv(cx, 1).is_pending() {
                return Some(idle);
            }
        }
    }

    /// Keeps a connection whose response is complete, if it may serve another request.
    pub fn put(self: &Rc<Self>, mut idle: Box<Idle>, peer: usize, place: u32) {
        let now = rt::now_ms();
        idle.requests += 1;
        let settings = &self.settings;
        if settings.connections == 0
            || idle.requests >= settings.requests
            || now.saturating_sub(idle.since_ms) > settings.time_ms
        {
            return;
        }
        idle.stream.set_recv_timeout(None);
        // It is closed like a client's that waits for its next request if places get short, or the worker stops.
        idle.stream.set_idle(true);
        let until_ms = now + settings.timeout_ms;
        // The task that watches learns of a hangup once: if that was while the connection was in use, it has to look
        // again, as it has to if it means to sleep for longer than the connection may be idle.
        let unwatched = !idle.watched || idle.stream.is_readable() || until_ms < self.next_look_ms.get();
        let dropped = {
            let mut parked = self.parked.borrow_mut();
            let dropped = if parked.len() >= settings.connections { parked.pop_front() } else { None };
            parked.push_back(Parked { idle, peer, place, until_ms });
            dropped
        };
        drop(dropped);
        if !self.keeper.replace(true) {
            rt::spawn(keep(self.clone()));
        } else if unwatched {
            self.news.notify();
        }
    }

    /// How many connections are idle.
    pub fn len(&self) -> usize {
        self.parked.borrow().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops what has been hung up on or is too old, and registers the task for what is new; when the next one is due.
    fn sweep(&self, cx: &mut Context<'_>) -> Option<u64> {
        let now = rt::now_ms();
        let mut gone = Vec::new();
        let mut parked = self.parked.borrow_mut();
        let mut at = 0;
        while let Some(entry) = parked.get_mut(at) {
            entry.idle.watched = true;
            if entry.until_ms <= now || entry.idle.stream.poll_hangup(cx).is_ready() {
                gone.extend(parked.remove(at));
            } else {
                at += 1;
            }
        }
        parked.front().map(|entry| entry.until_ms)
    }
}

/// Watches the idle connections of a group for the life of the worker.
async fn keep(pool: Rc<Pool>) {
    loop {
        let seen = pool.news.count();
        let due = std::future::poll_fn(|cx| Poll::Ready(pool.sweep(cx))).await;
        // Without idle connections there is nothing to do until one comes.
        let due = due.unwrap_or(u64::MAX / 2).max(rt::now_ms() + 1);
        pool.next_look_ms.set(due);
        let mut sleep = pin!(rt::sleep_until(due));
        let mut first = true;
        std::future::poll_fn(|cx| {
            if pool.news.poll_since(cx, seen).is_ready() || sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            // Woken by neither: a peer has hung up, or places are short.
            if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use buf::{Bytes, Chain};

    use super::*;

    /// A pool, and the two ends of a connection that it is to keep for a second at most.
    async fn pool() -> (Rc<Pool>, Box<Idle>, rt::Stream) {
        let addr: std::net::SocketAddr = ([10, 0, 0, 1], 80).into();
        let listener = rt::sim::listen(addr.into());
        let stream = rt::Stream::connect(&addr.into(), &rt::ConnectOptions::default(), 1000).await.expect("it listens");
        let (backend, _) = listener.accept().await.expect("it was connected to");
        let settings = Keepalive { timeout_ms: 1000, ..Keepalive::default() };
        (Rc::new(Pool::new(settings)), Idle::new(stream), backend)
    }

    async fn take(pool: &Pool) -> Option<Box<Idle>> {
        std::future::poll_fn(|cx| Poll::Ready(pool.take(cx, 0, 0))).await
    }

    fn run(test: impl Future<Output = ()>) {
        let options = rt::Options { driver: rt::Driver::Sim(1), ..rt::Options::default() };
        rt::Runtime::new(options).expect("a runtime").block_on(test);
    }

    #[test]
    fn what_comes_back_late_is_closed_in_time_too() {
        run(async {
            let (pool, idle, backend) = pool().await;
            pool.put(idle, 0, 0);
            rt::sleep(500).await;
            let idle = take(&pool).await.expect("it waits");
            // The task that watches finds none, and none that it could wait for.
            rt::sleep(5000).await;
            pool.put(idle, 0, 0);
            rt::sleep(999).await;
            assert_eq!(pool.len(), 1);
            rt::sleep(2).await;
            assert_eq!(pool.len(), 0);
            drop(backend);
        });
    }

    #[test]
    fn bytes_are_counted_once() {
        run(async {
            let (_, mut idle, backend) = pool().await;
            assert_eq!(idle.count(), (0, 0));
            idle.stream.send_all(Chain::from(Bytes::from_static(b"ask"))).await.expect("it is sent");
            backend.send_all(Chain::from(Bytes::from_static(b"answer"))).await.expect("it is sent");
            idle.stream.recv(100).await.expect("it comes");
            assert_eq!(idle.count(), (3, 6));
            assert_eq!(idle.count(), (0, 0));
        });
    }

    #[test]
    fn a_hangup_during_a_request_is_seen_after_it() {
        run(async {
            let (pool, idle, backend) = pool().await;
            pool.put(idle, 0, 0);
            rt::sleep(100).await;
            let idle = take(&pool).await.expect("it waits");
            drop(backend);
            rt::sleep(100).await;
            pool.put(idle, 0, 0);
            rt::sleep(1).await;
            assert_eq!(pool.len(), 0);
        });
    }
}
