//! The other workers, as one worker knows them: by their channels.

use std::rc::Rc;

use crate::channel::Channel;

/// Another worker.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its place in the master's process table.
    pub slot: u16,
    /// Its process id.
    pub pid: i32,
    /// Its generation: workers of a higher one are this one's successors.
    pub generation: u64,
    /// Where it listens to what it is told.
    pub channel: Rc<Channel>,
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

    /// Those of the newest generation, if that is newer than this one: who takes over what a worker leaves.
    pub fn successors(&self, generation: u64) -> Vec<Peer> {
        let newest = self.list.iter().map(|peer| peer.generation).max().filter(|newest| *newest > generation);
        self.list.iter().filter(|peer| Some(peer.generation) == newest).cloned().collect()
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
        assert_eq!(pids(peers.successors(0)), [13, 14]);
        assert_eq!(pids(peers.successors(1)), [13, 14]);
        assert!(peers.successors(2).is_empty());
        peers.close(3, 99);
        peers.close(4, 14);
        assert_eq!(pids(peers.successors(0)), [13]);
        peers.open(3, 15, 3, fd());
        assert_eq!(pids(peers.successors(0)), [15], "a slot has one process");
        assert_eq!(peers.iter().count(), 4);
    }
}
