//! The dynamic table (RFC 7541 §2.3.2): entries enter at the front and fall out at the back.

use std::collections::VecDeque;

use super::DEFAULT_TABLE_SIZE;
use super::statics::Found;
use super::traits::Traits;
use crate::h1::KnownHeader;

// A place in the bytes fits into an entry: of dead ones there are no more than live ones, and what is added next.
const _: () = assert!(3 * DEFAULT_TABLE_SIZE <= u16::MAX as u32);

/// What an entry counts beyond its bytes (RFC 7541 §4.1).
const OVERHEAD: usize = 32;

/// The entries of one direction. Nothing is allocated before the first one.
#[derive(Debug)]
pub(super) struct Table {
    /// The bytes of all entries, oldest first; those before `start` are of entries that have fallen out.
    bytes: Vec<u8>,
    start: u32,
    /// Newest first.
    entries: VecDeque<Entry>,
    size: u32,
    max_size: u32,
    /// How many entries there have been; the count wraps.
    entered: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name_len: u16,
    value_len: u16,
    /// Where it begins in `bytes`.
    position: u16,
    traits: Packed,
}

/// Traits in two bytes, so that an entry takes eight.
#[derive(Clone, Copy, Debug)]
struct Packed {
    known: KnownHeader,
    flags: u8,
}

impl Packed {
    fn of(traits: Traits) -> Packed {
        Packed { known: traits.known, flags: u8::from(traits.sound) | u8::from(traits.unusual) << 1 }
    }

    fn traits(self) -> Traits {
        Traits { sound: self.flags & 1 != 0, unusual: self.flags & 2 != 0, known: self.known }
    }
}

impl Table {
    pub(super) fn new() -> Table {
        let max_size = DEFAULT_TABLE_SIZE;
        Table { bytes: Vec::new(), start: 0, entries: VecDeque::new(), size: 0, max_size, entered: 0 }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The size as the RFC counts it, in bytes.
    pub(super) fn size(&self) -> usize {
        self.size as usize
    }

    pub(super) fn max_size(&self) -> usize {
        self.max_size as usize
    }

    /// Name and value of the `index`th newest entry, from 0.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        self.entries.get(index).and_then(|entry| self.parts(entry))
    }

    /// The traits with which the `index`th newest entry has entered.
    pub(super) fn traits(&self, index: usize) -> Traits {
        self.entries.get(index).map_or(Traits::UNKNOWN, |entry| entry.traits.traits())
    }

    /// Sets the limit, at most [`DEFAULT_TABLE_SIZE`]; entries beyond it fall out.
    pub(super) fn set_max_size(&mut self, max_size: usize) {
        self.max_size = max_size.min(DEFAULT_TABLE_SIZE as usize) as u32;
        self.evict(0);
        if self.entries.is_empty() {
            (self.bytes, self.start, self.entries) = (Vec::new(), 0, VecDeque::new());
        }
    }

    /// Adds an entry. One that is larger than the table empties it, which is no error (RFC 7541 §4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], traits: Traits) {
        let size = name.len() + value.len() + OVERHEAD;
        self.evict(size);
        if size > self.max_size() {
            return;
        }
        self.compact();
        let (position, traits) = (self.bytes.len() as u16, Packed::of(traits));
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        let (name_len, value_len) = (name.len() as u16, value.len() as u16);
        self.entries.push_front(Entry { name_len, value_len, position, traits });
        self.entered = self.entered.wrapping_add(1);
        self.size += size as u32;
    }

    /// The number of the entry at an index: it stays the same while the index grows.
    pub(super) fn number(&self, index: usize) -> u32 {
        self.entered.wrapping_sub(index as u32)
    }

    /// The index of a field, which may be the entry of that number.
    pub(super) fn find_exact(&self, name: &[u8], value: &[u8], number: u32) -> Option<usize> {
        let index = self.entered.wrapping_sub(number) as usize;
        if self.get(index) == Some((name, value)) {
            return Some(index);
        }
        let is_as_long = |e: &Entry| usize::from(e.name_len) == name.len() && usize::from(e.value_len) == value.len();
        self.entries.iter().position(|e| is_as_long(e) && self.parts(e) == Some((name, value)))
    }

    /// Where a field is, or its name; indices from 0, the newest that fits. Lengths pass over most entries.
    pub(super) fn find(&self, name: &[u8], value: &[u8]) -> Found {
        let same_name = |e: &Entry| usize::from(e.name_len) == name.len() && self.parts(e).is_some_and(|p| p.0 == name);
        match self.find_exact(name, value, self.entered) {
            Some(index) => Found::Exact(index),
            None => self.entries.iter().position(same_name).map_or(Found::Nothing, Found::Name),
        }
    }

    fn parts(&self, entry: &Entry) -> Option<(&[u8], &[u8])> {
        let from = self.bytes.get(usize::from(entry.position)..)?;
        let (name, rest) = from.split_at_checked(usize::from(entry.name_len))?;
        Some((name, rest.get(..usize::from(entry.value_len))?))
    }

    /// Drops the oldest entries until `room` more bytes fit, or all.
    fn evict(&mut self, room: usize) {
        while self.size() + room > self.max_size()
            && let Some(oldest) = self.entries.pop_back()
        {
            let bytes = usize::from(oldest.name_len) + usize::from(oldest.value_len);
            self.size -= (bytes + OVERHEAD) as u32;
            self.start += bytes as u32;
        }
        if self.entries.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Moves the live bytes to the front once the dead ones outweigh them, so that each byte is moved once on average.
    fn compact(&mut self) {
        let start = self.start as usize;
        if start > 512 && start >= self.bytes.len() - start {
            self.bytes.drain(..start);
            for entry in &mut self.entries {
                entry.position -= self.start as u16;
            }
            self.start = 0;
        }
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let sum: usize = (0..self.len()).filter_map(|i| self.get(i)).map(|(n, v)| n.len() + v.len() + OVERHEAD).sum();
        assert_eq!(sum, self.size());
        assert!(self.size <= self.max_size);
        assert!(self.bytes.len() <= 3 * DEFAULT_TABLE_SIZE as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evicts_the_oldest() {
        let mut table = Table::new();
        table.set_max_size(110);
        for name in ["aaa", "bbb", "ccc"] {
            table.insert(name.as_bytes(), b"1", Traits::UNKNOWN);
        }
        assert_eq!(table.get(2), Some((&b"aaa"[..], &b"1"[..])));
        table.insert(b"ddd", b"12", Traits::UNKNOWN);
        assert_eq!((table.len(), table.size()), (3, 109));
        assert_eq!(table.get(0), Some((&b"ddd"[..], &b"12"[..])));
        assert_eq!(table.get(3), None);
        table.insert(&[b'x'; 100], b"", Traits::UNKNOWN);
        assert_eq!((table.len(), table.size()), (0, 0));
        table.check_invariants();
    }

    #[test]
    fn stays_small() {
        let mut table = Table::new();
        for i in 0..10_000usize {
            table.insert(&vec![b'n'; i % 97], &vec![b'v'; i % 1009], Traits::UNKNOWN);
            table.check_invariants();
        }
        table.set_max_size(0);
        assert_eq!(table.bytes.capacity(), 0);
    }

    #[test]
    fn an_entry_that_fills_it() {
        let mut table = Table::new();
        table.insert(&[b'n'; 64], &[b'v'; 4000], Traits::UNKNOWN);
        assert_eq!((table.len(), table.size()), (1, 4096));
        assert_eq!(table.find(&[b'n'; 64], &[b'v'; 4000]), Found::Exact(0));
        assert_eq!(table.find(&[b'n'; 64], b"x"), Found::Name(0));
    }
}
