//! Active checks: what they say of peers, and who makes them when.
//!
//! One worker checks the peers of a group for all, and writes into the zone what it finds. What a check is, a protocol
//! says ([`Probe`]). Each peer is checked by a task of its own, so that one that doesn't answer delays no others.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};

use engine::log;
use os::SockAddr;

use crate::group::Group;
use crate::peer::Peer;

/// What the checks of a group say of a peer: a bit for each of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Those that have failed.
    failing: u32,
    /// Those that have to pass before the peer is used at all.
    pending: u32,
}

impl Health {
    /// Whether requests may use the peer, as far as these checks say. What others say, those of a configuration before or
    /// after this one, doesn't count: nobody would ever take it back.
    pub(crate) fn is_up(self, checks: &Checks) -> bool {
        (self.failing | self.pending) & checks.all() == 0
    }

    /// As it lies in a zone.
    pub(crate) fn number(self) -> u64 {
        u64::from(self.failing) << 32 | u64::from(self.pending)
    }

    /// Reads that.
    pub(crate) fn of(number: u64) -> Health {
        Health { failing: (number >> 32) as u32, pending: number as u32 }
    }

    /// After a check has passed, or failed.
    fn after(self, bit: u32, passed: bool) -> Health {
        let failing = if passed { self.failing & !bit } else { self.failing | bit };
        Health { failing, pending: self.pending & !bit }
    }
}

/// A check of a group's peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// How long after one check the next one is made, in milliseconds.
    pub interval_ms: u64,
    /// By how much a check may be late, at random.
    pub jitter_ms: u64,
    /// So many checks in a row have to fail.
    pub fails: u32,
    /// So many have to pass.
    pub passes: u32,
    /// Whether a peer has to pass before it is used.
    pub mandatory: bool,
    /// Whether that isn't asked of a peer that was used before a reload.
    pub persistent: bool,
    /// The port to connect to, if it isn't the peer's.
    pub port: Option<u16>,
}

impl Default for Check {
    /// As documented.
    fn default() -> Check {
        Check { interval_ms: 5000, jitter_ms: 0, fails: 1, passes: 1, mandatory: false, persistent: false, port: None }
    }
}

/// How a peer is checked.
pub trait Probe {
    /// Checks the peer at this address. It comes to an end in a time of its own.
    fn probe<'a>(&'a self, peer: &'a Peer, addr: SockAddr) -> Probing<'a>;
}

/// A check under way.
pub type Probing<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

/// Why a check hasn't passed.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The peer is to blame; while doing what, such as `checking status`.
    Peer(String),
    /// It couldn't be made, which says nothing of the peer. Whoever found out has logged it.
    NotMade,
}

impl From<String> for Failure {
    fn from(doing: String) -> Failure {
        Failure::Peer(doing)
    }
}

/// The checks of a group.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    count: Cell<u32>,
    mandatory: Cell<u32>,
    persistent: Cell<u32>,
}

/// How many checks a group may have.
pub const MOST_CHECKS: u32 = 32;

impl Checks {
    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.count.get() > 0
    }

    /// The bit of a further check; `None` if there are too many.
    pub(crate) fn add(&self, check: &Check) -> Option<u32> {
        let bit = 1_u32.checked_shl(self.count.get())?;
        self.count.set(self.count.get() + 1);
        if check.mandatory {
            self.mandatory.set(self.mandatory.get() | bit);
        }
        if check.persistent {
            self.persistent.set(self.persistent.get() | bit);
        }
        Some(bit)
    }

    /// The bits of all.
    fn all(&self) -> u32 {
        1_u32.checked_shl(self.count.get()).map_or(u32::MAX, |bit| bit - 1)
    }

    /// What is known of a new peer.
    pub(crate) fn of_new(&self) -> Health {
        Health { failing: 0, pending: self.mandatory.get() }
    }

    /// What is known of a peer when a configuration that has it begins.
    pub(crate) fn after_start(&self, before: Health) -> Health {
        let all = self.all();
        let again = self.mandatory.get() & !self.persistent.get();
        // One that has failed is known not to work.
        let pending = (before.pending & all | again) & !before.failing;
        Health { failing: before.failing & all, pending }
    }
}

/// Checks the peers of a group for the life of the worker's configuration, whenever this worker is the one that does.
pub fn watch(group: &Rc<Group>, check: Check, bit: u32, probe: Rc<dyn Probe>) {
    let watch = Rc::new(Watch { group: Rc::downgrade(group), check, bit, probe, checked: RefCell::default() });
    rt::spawn(watch.run());
}

struct Watch {
    group: Weak<Group>,
    check: Check,
    bit: u32,
    probe: Rc<dyn Probe>,
    /// The peers that have a task.
    checked: RefCell<HashSet<usize>>,
}

/// How often peers are looked for that have no task yet, in milliseconds.
const LOOK_MS: u64 = 1000;

impl Watch {
    async fn run(self: Rc<Self>) {
        while let Some(group) = self.group.upgrade() {
            if group.leads() {
                for peer in group.peers() {
                    if !peer.down && self.checked.borrow_mut().insert(peer.id) {
                        rt::spawn(self.clone().check_on(peer));
                    }
                }
            }
            drop(group);
            rt::sleep(LOOK_MS).await;
        }
    }

    /// Checks one peer as long as it is one, and this worker leads.
    async fn check_on(self: Rc<Self>, peer: Rc<Peer>) {
        let (mut fails, mut passes) = (0, 0);
        while self.is_on(&peer) {
            rt::sleep(self.jitter_ms()).await;
            let mut addr = peer.addr.clone();
            if let Some(port) = self.check.port {
                addr.set_port(port);
            }
            let result = self.probe.probe(&peer, addr).await;
            let Some(group) = self.group.upgrade().filter(|group| group.leads()) else { break };
            (fails, passes) = match result {
                Ok(()) => (0, passes + 1),
                Err(Failure::Peer(_)) => (fails + 1, 0),
                Err(Failure::NotMade) => (fails, passes),
            };
            match result {
                Ok(()) if passes >= self.check.passes => self.report(&group, &peer, None),
                Err(Failure::Peer(why)) if fails >= self.check.fails => self.report(&group, &peer, Some(&why)),
                _ => {}
            }
            drop(group);
            rt::sleep(self.check.interval_ms).await;
        }
        self.checked.borrow_mut().remove(&peer.id);
    }

    fn is_on(&self, peer: &Rc<Peer>) -> bool {
        let is_among = |group: &Rc<Group>| group.peers().iter().any(|other| Rc::ptr_eq(other, peer));
        self.group.upgrade().is_some_and(|group| group.leads() && is_among(&group))
    }

    fn jitter_ms(&self) -> u64 {
        let random = rt::random_bytes();
        let random = random.first_chunk().map_or(0, |chunk| u64::from_ne_bytes(*chunk));
        random.checked_rem(self.check.jitter_ms).unwrap_or(0)
    }

    fn report(&self, group: &Group, peer: &Peer, failure: Option<&str>) {
        let (before, after) = group.with_peer(peer, || {
            let before = peer.health.get();
            let after = before.after(self.bit, failure.is_none());
            peer.health.set(after);
            if after.is_up(&peer.checks) && before.failing & peer.checks.all() != 0 {
                peer.begin_slowly(rt::now_ms());
            }
            (before, after)
        });
        let (name, of) = (&group.name, &peer.name);
        if let Some(why) = failure
            && before.failing & self.bit == 0
        {
            engine::log!(
                log::current(),
                Warn,
                "peer is unhealthy while {why}, health check of peer {of} in upstream \"{name}\""
            );
        } else if after.is_up(&peer.checks) && !before.is_up(&peer.checks) {
            engine::log!(log::current(), Notice, "peer is healthy, health check of peer {of} in upstream \"{name}\"");
            group.tell_queue();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states() {
        let checks = Checks::default();
        let one = checks.add(&Check::default()).expect("the first");
        let two = checks.add(&Check { mandatory: true, ..Check::default() }).expect("the second");
        let new = checks.of_new();
        assert!(!new.is_up(&checks) && new.after(two, true).is_up(&checks) && !new.after(two, false).is_up(&checks));
        assert!(!new.after(two, true).after(one, false).is_up(&checks));
        // Checks that another configuration has.
        assert!(Health { failing: 4, pending: 8 }.is_up(&checks) && !Health { failing: 4, pending: 2 }.is_up(&checks));
        assert_eq!(Health::of(new.after(one, false).number()), new.after(one, false));
        // A reload: what has failed has failed, and what is to be checked is checked again.
        assert_eq!(checks.after_start(Health { failing: one, pending: 0 }), Health { failing: one, pending: two });
        assert_eq!(checks.after_start(Health { failing: two | 4, pending: 8 }), Health { failing: two, pending: 0 });
        let persistent = Checks::default();
        let bit = persistent.add(&Check { mandatory: true, persistent: true, ..Check::default() }).expect("one");
        assert!(!persistent.of_new().is_up(&persistent));
        assert!(persistent.after_start(Health::default()).is_up(&persistent));
        assert!(!persistent.after_start(Health { failing: 0, pending: bit }).is_up(&persistent));
        (1..MOST_CHECKS).for_each(|_| assert!(persistent.add(&Check::default()).is_some()));
        assert_eq!(persistent.add(&Check::default()), None);
        assert_eq!(persistent.after_start(Health { failing: u32::MAX, pending: 0 }).failing, u32::MAX);
    }
}
