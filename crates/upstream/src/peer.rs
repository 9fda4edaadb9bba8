//! Peers: the addresses that requests go to, and how each is doing.

use std::cell::Cell;
use std::rc::Rc;

use md5::{Digest, Md5};
use os::SockAddr;

use crate::health::{Checks, Health};
use crate::spec::ServerSpec;
use crate::zone::Place;

/// One address of a server.
#[derive(Debug)]
pub struct Peer {
    /// A number that no other peer of the group has, or had before.
    pub(crate) id: usize,
    /// Where it is.
    pub addr: SockAddr,
    /// The address as logs and `$upstream_addr` show it.
    pub name: Rc<str>,
    /// The server as the configuration writes it.
    pub server: Rc<str>,
    /// What binds a session to it: `route=`, or the MD5 of its name in hexadecimal digits.
    pub route: Rc<str>,
    /// Its share.
    pub weight: Cell<i64>,
    /// How many failures within `fail_timeout` make it unavailable; 0 for any.
    pub max_fails: u32,
    /// In seconds: the time for failures to add up, and how long it is unavailable then.
    pub fail_timeout: u64,
    /// How many connections it may have; 0 for any.
    pub max_conns: u32,
    /// Never used.
    pub down: bool,
    /// Used by sessions that are bound to it, and by no others.
    pub drain: bool,
    /// In how many milliseconds its weight grows back after it was unavailable; 0 for at once.
    pub slow_start_ms: u64,
    /// Its rank and server, and which of several equal addresses it is.
    pub(crate) position: Position,
    /// The weight as failures have lowered it.
    pub effective_weight: Cell<i64>,
    /// The state of smooth round robin.
    pub current_weight: Cell<i64>,
    /// Requests that it is serving.
    pub conns: Cell<u32>,
    /// Failures that count yet.
    pub fails: Cell<u32>,
    /// The second of the last failure.
    pub accessed: Cell<u64>,
    /// The second from which `fail_timeout` runs.
    pub checked: Cell<u64>,
    /// How long its responses take, on average, in 1/256 ms; 0 if nothing is known.
    pub average: Cell<u64>,
    /// The second in which it was chosen last.
    pub asked: Cell<u64>,
    /// The sum of the times, in milliseconds, at which the requests that it is serving began.
    pub begun_ms: Cell<u64>,
    /// When its weight began to grow back, in milliseconds; 0 if it doesn't.
    pub slow_since_ms: Cell<u64>,
    /// What checks say of it.
    pub health: Cell<Health>,
    /// The checks that its group has.
    pub(crate) checks: Rc<Checks>,
    /// For the present choice it is left out, because its weight is growing back.
    pub(crate) resting: Cell<bool>,
    /// Where its state is, if the workers share it.
    pub(crate) place: Option<Place>,
}

/// Which peer of its group one is; a peer of the same position and name is the same peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Whether it is a backup.
    pub(crate) backup: bool,
    /// The server's place in the configuration.
    pub(crate) server: usize,
    /// How many peers of its rank before it have its address.
    pub(crate) twins: usize,
}

impl Peer {
    pub(crate) fn new(
        id: usize,
        position: Position,
        server: &ServerSpec,
        addr: &SockAddr,
        weight: u32,
        place: Option<Place>,
        checks: &Rc<Checks>,
    ) -> Peer {
        let name: Rc<str> = addr.to_string().into();
        Peer {
            id,
            addr: addr.clone(),
            server: server.name.clone(),
            route: server.route.clone().unwrap_or_else(|| digest(name.as_bytes())),
            name,
            weight: Cell::new(i64::from(weight)),
            max_fails: server.max_fails,
            fail_timeout: server.fail_timeout,
            max_conns: server.max_conns,
            down: server.down,
            drain: server.drain,
            slow_start_ms: server.slow_start_ms,
            position,
            effective_weight: Cell::new(i64::from(weight)),
            current_weight: Cell::new(0),
            conns: Cell::new(0),
            fails: Cell::new(0),
            accessed: Cell::new(0),
            checked: Cell::new(0),
            average: Cell::new(0),
            asked: Cell::new(0),
            begun_ms: Cell::new(0),
            slow_since_ms: Cell::new(0),
            health: Cell::new(checks.of_new()),
            checks: checks.clone(),
            resting: Cell::new(false),
            place,
        }
    }

    /// A number that no other peer of the group has, or had before.
    pub fn id(&self) -> usize {
        self.id
    }

    /// Gives it another share; what failures have taken from it comes back pick by pick.
    pub(crate) fn set_weight(&self, weight: i64) {
        if self.weight.replace(weight) != weight {
            self.effective_weight.set(weight);
        }
    }

    /// Whether any request may use it at this second.
    pub(crate) fn is_usable(&self, now: u64) -> bool {
        !self.drain && !self.resting.get() && self.serves(now)
    }

    /// Whether the requests that are bound to it may use it at this second.
    pub(crate) fn serves(&self, now: u64) -> bool {
        let failed = self.max_fails > 0
            && self.fails.get() >= self.max_fails
            && now.saturating_sub(self.checked.get()) <= self.fail_timeout;
        !self.down && !failed && !self.is_full() && self.is_healthy()
    }

    /// Whether requests with this route may use it, if it is the only peer: then failures don't count.
    pub(crate) fn is_open(&self, route: &[u8]) -> bool {
        let admits = !self.drain || self.route.as_bytes() == route;
        !self.down && admits && !self.is_full() && self.is_healthy()
    }

    /// Whether no check speaks against it.
    fn is_healthy(&self) -> bool {
        self.health.get().is_up(&self.checks)
    }

    /// Whether it has all the connections that it may have.
    pub fn is_full(&self) -> bool {
        self.max_conns > 0 && self.conns.get() >= self.max_conns
    }

    /// Notes a failure; true if this one made it unavailable.
    pub(crate) fn failed(&self, now: u64) -> bool {
        self.fails.set(self.fails.get() + 1);
        self.accessed.set(now);
        self.checked.set(now);
        if self.max_fails == 0 {
            return false;
        }
        let lowered = self.effective_weight.get() - self.weight.get() / i64::from(self.max_fails);
        self.effective_weight.set(lowered.max(0));
        self.fails.get() >= self.max_fails
    }

    /// Notes a success: one after the time of a failure is over clears it.
    pub(crate) fn succeeded(&self, now_ms: u64) {
        if self.accessed.get() < self.checked.get() {
            if self.max_fails > 0 && self.fails.get() >= self.max_fails {
                self.begin_slowly(now_ms);
            }
            self.fails.set(0);
        }
    }

    /// Lets its weight grow back from 0.
    pub(crate) fn begin_slowly(&self, now_ms: u64) {
        if self.slow_start_ms > 0 {
            self.slow_since_ms.set(now_ms.max(1));
        }
    }

    /// Decides whether it is left out of the present choice: while its weight grows back, of as many choices as it lacks
    /// of its weight. `dice` is any number.
    pub(crate) fn rest(&self, dice: u64, now_ms: u64) {
        let since = self.slow_since_ms.get();
        if since == 0 {
            return self.resting.set(false);
        }
        let elapsed = now_ms.saturating_sub(since);
        if elapsed >= self.slow_start_ms {
            self.slow_since_ms.set(0);
        }
        self.resting.set(elapsed < self.slow_start_ms && dice % self.slow_start_ms >= elapsed);
    }

    /// Notes that it was chosen.
    pub(crate) fn chosen(&self, now: u64) {
        self.asked.set(now);
        if now.saturating_sub(self.checked.get()) > self.fail_timeout {
            self.checked.set(now);
        }
    }

    /// Counts a request that it begins to serve.
    pub(crate) fn begin(&self, now_ms: u64) {
        self.conns.set(self.conns.get() + 1);
        self.begun_ms.set(self.begun_ms.get().wrapping_add(now_ms));
    }

    /// The request that began at `began_ms` is over.
    pub(crate) fn end(&self, began_ms: u64) {
        self.conns.set(self.conns.get().saturating_sub(1));
        let begun_ms = if self.conns.get() == 0 { 0 } else { self.begun_ms.get().saturating_sub(began_ms) };
        self.begun_ms.set(begun_ms);
    }

    /// Notes how long a response took. A newer one counts for a twentieth of the average.
    pub(crate) fn took(&self, ms: u64) {
        let ms = ms.min(LONGEST_MS) << 8;
        let average = match self.average.get() {
            0 => ms,
            average => (average * 19 + ms) / 20,
        };
        self.average.set(average.max(1));
    }
}

/// No response counts for longer: sums don't overflow.
const LONGEST_MS: u64 = 1 << 32;

/// The MD5 of a text in hexadecimal digits.
pub(crate) fn digest(text: &[u8]) -> Rc<str> {
    buf::hex::text(&Md5::digest(text)).into()
}

/// Peers of one rank: the ordinary ones, or the backups.
#[derive(Debug, Default)]
pub struct Peers {
    /// All of them, in the order of the configuration.
    pub list: Vec<Rc<Peer>>,
    /// The sum of their weights.
    pub total_weight: i64,
    /// How many aren't `down`.
    pub tries: u32,
}

impl Peers {
    pub(crate) fn new(list: Vec<Rc<Peer>>) -> Peers {
        let total_weight = list.iter().map(|peer| peer.weight.get()).sum();
        let tries = list.iter().filter(|peer| !peer.down).count() as u32;
        Peers { list, total_weight, tries }
    }
}
