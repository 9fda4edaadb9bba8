//! Counts that processes hold: how many of something there are, and how many of them each process has, so that those of
//! one that dies can be taken back.
//!
//! A tally is a part of an entry's value: places of 8 bytes, each for one process and its count. The last place is for
//! all who found no place of their own; what they hold isn't known by whom. It is needed only where a zone has no memory
//! for more places ([`Tally::make_place`]).

use crate::map::{Map, Node};
use crate::memory::Memory;

/// A place: an identity, a count.
const PLACE: usize = 8;

/// A tally in these bytes.
pub struct Tally<'a>(Memory<'a>);

impl<'a> Tally<'a> {
    /// The bytes of a tally with this number of places.
    pub const fn bytes(places: usize) -> usize {
        places * PLACE
    }

    /// The tally in this memory; all zeros are one of nothing.
    pub fn of(memory: Memory<'a>) -> Tally<'a> {
        Tally(memory)
    }

    /// The sum of all.
    pub fn sum(&self) -> u32 {
        self.places().fold(0, |sum, place| sum.saturating_add(self.count(place)))
    }

    /// Sees to it that the process `identity` finds a place of its own in the tally that an entry's value has from `from`
    /// on. The entry may move; it stays as it is if there is no memory.
    pub fn make_place(map: &mut Map<'_>, node: Node, from: usize, identity: u32) -> Node {
        let tally = Tally::of(map.value_mut(node).after(from));
        let Some(last) = tally.places().next_back().filter(|_| !tally.has_place(identity)) else { return node };
        let (key, value) = (map.key(node), map.value(node));
        let (before, shared) = value.split_at(from + last);
        let more = [before, &vec![0; last + PLACE], shared].concat();
        map.remove(node);
        // What it had before there is room for at least.
        map.insert(&key, &more).or_else(|| map.insert(&key, &value)).unwrap_or(node)
    }

    fn has_place(&self, identity: u32) -> bool {
        self.places_of_processes().any(|place| self.holder(place) == identity || self.count(place) == 0)
    }

    /// Adds `n` that the process `identity` holds.
    pub fn add(&mut self, identity: u32, n: u32) {
        let own = self.places_of_processes().find(|place| self.holder(*place) == identity);
        let free = || self.places_of_processes().find(|place| self.count(*place) == 0);
        if let Some(place) = own.or_else(free).or(self.places().next_back()) {
            self.0.set_u32(place, identity);
            self.0.set_u32(place + 4, self.count(place).saturating_add(n));
        }
    }

    /// Takes back `n` of what the process `identity` holds.
    pub fn sub(&mut self, identity: u32, n: u32) {
        let own = self.places_of_processes().find(|place| self.holder(*place) == identity);
        let mut left = n;
        for place in own.into_iter().chain(self.places().next_back()) {
            let taken = self.count(place).min(left);
            self.0.set_u32(place + 4, self.count(place) - taken);
            left -= taken;
        }
    }

    /// Takes back all that processes hold for which `ended` is true.
    pub fn forget(&mut self, ended: impl Fn(u32) -> bool) {
        for place in self.places_of_processes() {
            if ended(self.holder(place)) {
                self.0.set_u32(place + 4, 0);
            }
        }
    }

    fn places(&self) -> std::iter::StepBy<std::ops::Range<usize>> {
        (0..self.0.len() / PLACE * PLACE).step_by(PLACE)
    }

    fn places_of_processes(&self) -> std::iter::StepBy<std::ops::Range<usize>> {
        (0..(self.0.len() / PLACE * PLACE).saturating_sub(PLACE)).step_by(PLACE)
    }

    fn holder(&self, place: usize) -> u32 {
        self.0.u32(place)
    }

    fn count(&self, place: usize) -> u32 {
        self.0.u32(place + 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_held_comes_back() {
        let mut bytes = [0; Tally::bytes(3)];
        let mut tally = Tally::of(Memory::of(&mut bytes));
        // The third and fourth process share the last place.
        for (identity, n) in [(1, 2), (2, 1), (3, 5), (4, 1), (1, 1)] {
            tally.add(identity, n);
        }
        assert_eq!(tally.sum(), 10);
        tally.sub(3, 2);
        tally.sub(1, 1);
        assert_eq!(tally.sum(), 7);
        tally.forget(|identity| identity == 1);
        assert_eq!(tally.sum(), 5);
        tally.add(3, 1);
        tally.sub(3, 4);
        assert_eq!(tally.sum(), 2);
        tally.forget(|identity| identity == 4 || identity == 3);
        assert_eq!(tally.sum(), 2, "the last place is nobody's");
        tally.sub(9, 9);
        assert_eq!(tally.sum(), 1);
    }

    #[test]
    fn there_is_a_place_for_each_process() {
        let mut bytes = vec![0; 32 << 10];
        let mut map = Map::format(Memory::of(&mut bytes), 7).expect("large enough");
        let mut node = map.insert(b"key", &[&b"front"[..], &[0; Tally::bytes(3)]].concat()).expect("room");
        let noted = map.note(node);
        for identity in 1..100 {
            node = Tally::make_place(&mut map, node, 5, identity);
            Tally::of(map.value_mut(node).after(5)).add(identity, identity);
        }
        assert_eq!((map.noted(noted, b"key"), map.first(node)), (Some(node), Some(*b"front")));
        let mut tally = Tally::of(map.value_mut(node).after(5));
        assert_eq!(tally.sum(), 4950);
        tally.forget(|identity| identity > 1);
        assert_eq!(tally.sum(), 1);
        // In a full zone they share one.
        while map.insert(format!("{}", map.len()).as_bytes(), &[0; 900]).is_some() {}
        for identity in 1..500 {
            node = Tally::make_place(&mut map, node, 5, identity);
            Tally::of(map.value_mut(node).after(5)).add(identity, 1);
        }
        assert!(map.check());
        assert_eq!(Tally::of(map.value_mut(node).after(5)).sum(), 500);
    }

    #[test]
    fn without_places_nothing_is_counted() {
        let mut bytes = [0; 7];
        let mut tally = Tally::of(Memory::of(&mut bytes));
        tally.add(1, 1);
        tally.sub(1, 1);
        assert_eq!(tally.sum(), 0);
    }
}
