//! The load: threads that each keep one connection after another busy, and count.
//!
//! A client pauses between requests, so that a load of some fifty connections leaves the machine to the server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::content::{Random, SEEDS};
use super::exchange::{Fault, Link, Request};
use super::{Kind, Totals, Tunnel};

/// Lengths of files that every subject has, for each seed below [`FILE_SEEDS`].
pub(super) const FILE_LENGTHS: [usize; 6] = [0, 1, 1000, 10_000, 100_000, 400_000];

/// Seeds of these files.
pub(super) const FILE_SEEDS: usize = 8;

/// Stack of a client's thread.
const STACK: usize = 256 * 1024;

/// Where a load goes.
#[derive(Debug, Clone)]
pub enum Target {
    /// An address and port.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
    /// The same, over TLS.
    Secure(SocketAddr),
}

/// How many connections of each kind are kept busy.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// Clients of each kind.
    pub clients: [(Kind, usize); 6],
    /// The longest pause between two requests of a client.
    pub pause: Duration,
}

impl Mix {
    /// A load of 36 connections.
    pub fn usual() -> Mix {
        let clients = [
            (Kind::New, 8),
            (Kind::Unix, 4),
            (Kind::KeepAlive, 8),
            (Kind::Proxied, 6),
            (Kind::Slow, 4),
            (Kind::WebSocket, 6),
        ];
        Mix { clients, pause: Duration::from_millis(30) }
    }

    /// Only these kinds, with this many clients each.
    pub fn only(kinds: &[Kind], clients: usize) -> Mix {
        let mix = Mix::usual();
        Mix { clients: mix.clients.map(|(kind, _)| (kind, if kinds.contains(&kind) { clients } else { 0 })), ..mix }
    }
}

/// A load that runs.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    begun: Instant,
    totals: Mutex<Totals>,
    pause: Duration,
}

impl Load {
    /// Starts the clients; those of [`Kind::Unix`] only if there is a unix socket.
    pub fn start(web: &Target, unix: Option<&Target>, mix: Mix) -> Load {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            begun: Instant::now(),
            totals: Mutex::new(Totals::default()),
            pause: mix.pause,
        });
        let mut threads = Vec::new();
        for (kind, count) in mix.clients {
            let target = if kind == Kind::Unix { unix } else { Some(web) };
            for _ in 0..target.map_or(0, |_| count) {
                let target = target.cloned().into_iter();
                let (shared, seed) = (shared.clone(), threads.len() as u64 + 1);
                let client = move || target.for_each(|t| Client::new(kind, t, &shared, seed).run());
                let thread = std::thread::Builder::new().name(kind.name().into()).stack_size(STACK).spawn(client);
                threads.push(thread.expect("a thread can be started"));
            }
        }
        Load { shared, threads }
    }

    /// The counts so far.
    pub fn totals(&self) -> Totals {
        self.shared.totals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Time since the start, as in the stories of losses.
    pub fn elapsed(&self) -> Duration {
        self.shared.begun.elapsed()
    }

    /// Lets every client finish what it is at, and returns the counts.
    pub fn finish(mut self) -> Totals {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|t| t.join().expect("clients count, they don't panic"));
        self.totals()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// One client.
struct Client<'a> {
    kind: Kind,
    target: Target,
    shared: &'a Shared,
    random: Random,
}

impl<'a> Client<'a> {
    fn new(kind: Kind, target: Target, shared: &'a Shared, seed: u64) -> Client<'a> {
        Client { kind, target, shared, random: Random::new(seed) }
    }

    fn run(&mut self) {
        while !self.stopping() {
            let result = match self.kind {
                Kind::New | Kind::Unix => self.single(),
                Kind::KeepAlive | Kind::Proxied => self.many(),
                Kind::Slow => self.slow(),
                Kind::WebSocket => self.tunnel(),
            };
            if let Err((loss, story)) = result {
                let at = self.shared.begun.elapsed();
                self.count(|t, kind| t.loss(kind, loss, at, &story));
                // A server that is away is asked again in a moment, not in a tight loop.
                std::thread::sleep(Duration::from_millis(20));
            }
            self.pause();
        }
    }

    fn single(&mut self) -> Result<(), Fault> {
        let request = Request { close: true, ..self.request() };
        Link::open(&self.target)?.exchange(&request)?;
        self.count(Totals::ok);
        Ok(())
    }

    /// Requests on one connection until the server, or the load, ends it.
    fn many(&mut self) -> Result<(), Fault> {
        let mut link = Link::open(&self.target)?;
        while !self.stopping() {
            let request = self.request();
            let stays = link.exchange(&request)?;
            self.count(Totals::ok);
            if !stays {
                return Ok(());
            }
            self.pause();
            if link.is_closed() {
                self.count(Totals::closed_idle);
                return Ok(());
            }
        }
        Ok(())
    }

    /// A dribbled upload, then a dribbled request for a long answer that is read slowly, on one connection.
    fn slow(&mut self) -> Result<(), Fault> {
        let mut link = Link::open(&self.target)?;
        link.small_window();
        let pause = Duration::from_millis(15);
        let seed = self.random.below(SEEDS);
        let upload = Request { folder: "b", seed, length: 2000, upload: 3000, pieces: 12, pause, close: false };
        if !link.exchange(&upload)? {
            self.count(Totals::ok);
            return Ok(());
        }
        self.count(Totals::ok);
        let folder = if self.random.below(2) == 0 { "b" } else { "f" };
        let seed = self.random.below(FILE_SEEDS);
        let read = Request { folder, seed, length: 400_000, upload: 0, pieces: 25, pause, close: true };
        if link.is_closed() {
            self.count(Totals::closed_idle);
            return Ok(());
        }
        link.exchange(&read)?;
        self.count(Totals::ok);
        Ok(())
    }

    /// A session of some hundred frames, up to four of them out at a time.
    fn tunnel(&mut self) -> Result<(), Fault> {
        let mut tunnel = Tunnel::open(&self.target)?;
        for _ in 0..10 + self.random.below(60) {
            let out = 1 + self.random.below(4);
            (0..out).try_for_each(|_| tunnel.send())?;
            for _ in 0..out {
                tunnel.receive()?;
                self.count(Totals::ok);
            }
            if self.stopping() {
                break;
            }
            self.pause();
        }
        tunnel.close()
    }

    fn request(&mut self) -> Request {
        let length = FILE_LENGTHS.get(self.random.below(FILE_LENGTHS.len())).copied().unwrap_or(0);
        let folder = if self.kind == Kind::Proxied { "b" } else { "f" };
        Request { folder, seed: self.random.below(FILE_SEEDS), length, ..Request::default() }
    }

    fn pause(&mut self) {
        let most = self.shared.pause.as_micros() as usize;
        std::thread::sleep(Duration::from_micros(self.random.below(most) as u64));
    }

    fn stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    fn count(&self, what: impl FnOnce(&mut Totals, Kind)) {
        what(&mut self.shared.totals.lock().unwrap_or_else(PoisonError::into_inner), self.kind);
    }
}
