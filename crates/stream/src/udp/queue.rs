//! Datagrams that wait for their session's task. They are bounded by the memory that they hold: an empty one holds some too.

use std::collections::VecDeque;

use buf::Buf;
use common::front::proxy::ProxyHeader;

/// A datagram that waits.
pub(super) struct Waiting {
    pub bytes: Buf,
    /// What its header of the PROXY protocol said, which has been taken off.
    pub proxy: Option<Box<ProxyHeader>>,
}

impl Waiting {
    /// The memory that it holds.
    fn cost(&self) -> usize {
        let tlvs = self.proxy.as_ref().map_or(0, |proxy| proxy.tlvs.len());
        self.bytes.capacity() + tlvs + PLACE
    }
}

/// The datagrams of a client that wait, in the order in which they came.
#[derive(Default)]
pub(super) struct Queue {
    all: VecDeque<Waiting>,
    cost: usize,
}

impl Queue {
    /// Whether there is room for a datagram.
    pub(super) fn has_room(&self, waiting: &Waiting) -> bool {
        self.cost + waiting.cost() <= MOST
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.cost += waiting.cost();
        self.all.push_back(waiting);
    }

    /// The one that has waited longest.
    pub(super) fn first(&self) -> Option<&[u8]> {
        self.all.front().map(|waiting| &*waiting.bytes)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.all.iter().map(|waiting| &*waiting.bytes)
    }

    /// Takes the one that has waited longest.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.all.pop_front()?;
        self.cost -= waiting.cost();
        Some(waiting)
    }

    /// Takes all but the first ones.
    pub(super) fn split_off(&mut self, kept: usize) -> VecDeque<Waiting> {
        let rest = self.all.split_off(kept.min(self.all.len()));
        self.cost -= rest.iter().map(Waiting::cost).sum::<usize>();
        rest
    }
}

/// What a place in the queue takes, about.
const PLACE: usize = 64;
/// How much memory waits for a session at most, in bytes: about as much as the kernel lets wait by default.
const MOST: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// How many datagrams of a length still have room.
    fn fill(queue: &mut Queue, length: usize) -> usize {
        let mut count = 0;
        loop {
            let mut bytes = Buf::with_capacity(length);
            bytes.extend_from_slice(&vec![7; length]);
            let waiting = Waiting { bytes, proxy: None };
            if !queue.has_room(&waiting) {
                return count;
            }
            queue.push(waiting);
            count += 1;
            assert!(count < MOST, "there is an end");
        }
    }

    #[test]
    fn datagrams_of_any_length_are_bounded() {
        for (length, expect) in [(0, 240), (1, 240), (1024, 240), (1025, 124), (65_000, 3)] {
            assert_eq!(fill(&mut Queue::default(), length), expect, "{length} bytes");
        }
    }

    #[test]
    fn what_is_taken_makes_room() {
        let mut queue = Queue::default();
        let most = fill(&mut queue, 0);
        assert!(queue.pop().is_some_and(|waiting| waiting.bytes.is_empty()));
        assert_eq!((fill(&mut queue, 0), queue.len()), (1, most));
        assert_eq!((queue.split_off(10).len(), queue.len()), (most - 10, 10));
        assert_eq!(fill(&mut queue, 0), most - 10);
        while queue.pop().is_some() {}
        assert_eq!(queue.cost, 0);
    }
}
