//! Peers: the addresses that requests go to, and how each is doing.

use std::cell::Cell;
use std::rc::Rc;

use os::SockAddr;

use crate::spec::ServerSpec;

/// One address of a server.
#[derive(Debug)]
pub struct Peer {
    /// Where it is.
    pub addr: SockAddr,
    /// The address as logs and `$upstream_addr` show it.
    pub name: Rc<str>,
    /// The server as the configuration writes it.
    pub server: Rc<str>,
    /// Its share.
    pub weight: i64,
    /// How many failures within `fail_timeout` make it unavailable; 0 for any.
    pub max_fails: u32,
    /// In seconds: the time for failures to add up, and how long it is unavailable then.
    pub fail_timeout: u64,
    /// How many connections it may have; 0 for any.
    pub max_conns: u32,
    /// Never used.
    pub down: bool,
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
    /// Where its state is, if the workers share it.
    pub(crate) place: Option<crate::zone::Place>,
}

impl Peer {
    fn new(server: &ServerSpec, addr: &SockAddr) -> Peer {
        Peer {
            addr: addr.clone(),
            name: addr.to_string().into(),
            server: server.name.clone(),
            weight: i64::from(server.weight),
            max_fails: server.max_fails,
            fail_timeout: server.fail_timeout,
            max_conns: server.max_conns,
            down: server.down,
            effective_weight: Cell::new(i64::from(server.weight)),
            current_weight: Cell::new(0),
            conns: Cell::new(0),
            fails: Cell::new(0),
            accessed: Cell::new(0),
            checked: Cell::new(0),
            place: None,
        }
    }

    /// Whether it may be used at this second.
    pub(crate) fn is_usable(&self, now: u64) -> bool {
        let failed = self.max_fails > 0
            && self.fails.get() >= self.max_fails
            && now.saturating_sub(self.checked.get()) <= self.fail_timeout;
        !self.down && !failed && !self.is_full()
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
        let lowered = self.effective_weight.get() - self.weight / i64::from(self.max_fails);
        self.effective_weight.set(lowered.max(0));
        self.fails.get() >= self.max_fails
    }

    /// Notes a success: one after the time of a failure is over clears it.
    pub(crate) fn succeeded(&self) {
        if self.accessed.get() < self.checked.get() {
            self.fails.set(0);
        }
    }

    /// Notes that it was chosen.
    pub(crate) fn chosen(&self, now: u64) {
        if now.saturating_sub(self.checked.get()) > self.fail_timeout {
            self.checked.set(now);
        }
    }
}

/// Peers of one rank: the ordinary ones, or the backups.
#[derive(Debug, Default)]
pub struct Peers {
    /// All of them, in the order of the configuration.
    pub list: Vec<Peer>,
    /// The sum of their weights.
    pub total_weight: i64,
    /// How many aren't `down`.
    pub tries: u32,
}

impl Peers {
    pub(crate) fn new<'s>(servers: impl Iterator<Item = &'s ServerSpec>) -> Peers {
        let mut peers = Peers::default();
        for server in servers {
            peers.list.extend(server.addrs.iter().map(|addr| Peer::new(server, addr)));
        }
        peers.total_weight = peers.list.iter().map(|peer| peer.weight).sum();
        peers.tries = peers.list.iter().filter(|peer| !peer.down).count() as u32;
        peers
    }
}
