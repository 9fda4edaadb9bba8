//! The other workers, as one worker knows them: by their channels.

use std::rc::Rc;

use crate::channel::Channel;
use crate::handover::link::FOREIGN;

/// Another worker.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its place in the master's process table; from [`FOREIGN`] on: in another master's.
    pub slot: u16,
    /// Its process id.
    pub pid: i32,
    /// Its generation, as its master counts: workers of a higher one are this one's successors.
    pub generation: u64,
    /// Where it listens to what it is told.
    pub channel: Rc<Channel>,
}

impl Peer {
    /// Whether it is another master's worker: there is one during an upgrade.
    pub fn is_foreign(&self) -> bool {
        usize::from(self.slot) >= FOREIGN
    }
}

/// All other workers that run, whatever their generation.
#[derive(Debug, Default)]
pub struct Peers {
    list: Vec<Peer>,
}

impl Peers {
    /// No others yet.
    pub fn new() -> Peers {
        Peers::default()
    }

    /// There is another one, in place of whoever had its slot.
    pub fn open(&mut self, slot: u16, pid: i32, generation: u64, channel: Channel) {
        self.list.retain(|peer| peer.slot != slot);
        self.list.push(Peer { slot, pid, generation, channel: Rc::new(channel) });
    }

    /// One is gone; its channel is closed. Nothing happens if its slot has another process by now.
    pub fn close(&mut self, slot: u16, pid: i32) {
        self.list.retain(|peer| (peer.slot, peer.pid) != (slot, pid));
    }

    /// All, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.list.iter()
    }

    /// Who takes over what a worker leaves: those of the newest generation, if that is newer than this one; else, where
    /// `foreign` allows it, those of the other master's newest.
    pub fn successors(&self, generation: u64, foreign: bool) -> Vec<Peer> {
        let own = self.newest(|peer| !peer.is_foreign() && peer.generation > generation);
        if own.is_empty() && foreign { self.newest(Peer::is_foreign) } else { own }
    }

    /// Who may be giving something to a worker of this generation.
    pub(crate) fn predecessors(&self, generation: u64) -> impl Iterator<Item = &Peer> {
        self.list.iter().filter(move |peer| peer.is_foreign() || peer.generation < generation)
    }

    /// Those of some that are of the newest generation among them.
    fn newest(&self, of: impl Fn(&Peer) -> bool) -> Vec<Peer> {
        let newest = self.list.iter().filter(|peer| of(peer)).map(|peer| peer.generation).max();
        self.list.iter().filter(|peer| of(peer) && Some(peer.generation) == newest).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn come_and_go() {
        let mut peers = Peers::new();
        let fd = || Channel::pair().expect("a pair").0;
        for (slot, pid, generation) in [(0, 10, 0), (1, 11, 0), (2, 12, 1), (3, 13, 2), (4, 14, 2)] {
            peers.open(slot, pid, generation, fd());
        }
        let pids = |list: Vec<Peer>| list.iter().map(|peer| peer.pid).collect::<Vec<_>>();
        assert_eq!(pids(peers.successors(0, false)), [13, 14]);
        assert_eq!(pids(peers.successors(1, true)), [13, 14]);
        assert!(peers.successors(2, true).is_empty());
        peers.close(3, 99);
        peers.close(4, 14);
        assert_eq!(pids(peers.successors(0, false)), [13]);
        peers.open(3, 15, 3, fd());
        assert_eq!(pids(peers.successors(0, false)), [15], "a slot has one process");
        assert_eq!(peers.iter().count(), 4);
    }
    #[test]
    fn foreign_ones() {
        let mut peers = Peers::new();
        let fd = || Channel::pair().expect("a pair").0;
        let foreign = FOREIGN as u16;
        for (slot, pid, generation) in [(0, 10, 4), (foreign, 20, 8), (foreign + 1, 21, 9), (foreign + 2, 22, 9)] {
            peers.open(slot, pid, generation, fd());
        }
        let pids = |list: Vec<Peer>| list.iter().map(|peer| peer.pid).collect::<Vec<_>>();
        assert_eq!(pids(peers.successors(3, true)), [10], "the own ones first, however the others count");
        assert!(peers.successors(4, false).is_empty());
        assert_eq!(pids(peers.successors(4, true)), [21, 22]);
        assert_eq!(pids(peers.predecessors(4).cloned().collect()), [20, 21, 22]);
        assert_eq!(peers.predecessors(5).count(), 4);
    }
}
