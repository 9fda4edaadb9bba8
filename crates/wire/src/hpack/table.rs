//! The dynamic table (RFC 7541 §2.3.2): entries enter at the front and fall out at the back.

use std::collections::VecDeque;

use super::DEFAULT_TABLE_SIZE;
use super::statics::Found;

/// What an entry counts beyond its bytes (RFC 7541 §4.1).
const OVERHEAD: usize = 32;

/// The entries of one direction. Nothing is allocated before the first one.
#[derive(Debug)]
pub(super) struct Table {
    /// The bytes of all entries, oldest first; those before `start` are of entries that have fallen out.
    bytes: Vec<u8>,
    start: usize,
    /// Newest first.
    entries: VecDeque<Entry>,
    size: usize,
    max_size: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name_len: u16,
    value_len: u16,
    /// Where it begins in `bytes`.
    position: u32,
}

impl Table {
    pub(super) fn new() -> Table {
        let max_size = DEFAULT_TABLE_SIZE as usize;
        Table { bytes: Vec::new(), start: 0, entries: VecDeque::new(), size: 0, max_size }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The size as the RFC counts it, in bytes.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn max_size(&self) -> usize {
        self.max_size
    }

    /// Name and value of the `index`th newest entry, from 0.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        self.entries.get(index).and_then(|entry| self.parts(entry))
    }

    /// Sets the limit, at most [`DEFAULT_TABLE_SIZE`]; entries beyond it fall out.
    pub(super) fn set_max_size(&mut self, max_size: usize) {
        self.max_size = max_size.min(DEFAULT_TABLE_SIZE as usize);
        self.evict(0);
        if self.entries.is_empty() {
            (self.bytes, self.start, self.entries) = (Vec::new(), 0, VecDeque::new());
        }
    }

    /// Adds an entry. One that is larger than the table empties it, which is no error (RFC 7541 §4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + OVERHEAD;
        self.evict(size);
        if size > self.max_size {
            return;
        }
        self.compact();
        let position = self.bytes.len() as u32;
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        let (name_len, value_len) = (name.len() as u16, value.len() as u16);
        self.entries.push_front(Entry { name_len, value_len, position });
        self.size += size;
    }

    /// Where a field is, or its name; indices from 0, the newest that fits. Lengths pass over most entries.
    pub(super) fn find(&self, name: &[u8], value: &[u8]) -> Found {
        let is_as_long = |e: &Entry| usize::from(e.name_len) == name.len() && usize::from(e.value_len) == value.len();
        let exact = self.entries.iter().position(|e| is_as_long(e) && self.parts(e) == Some((name, value)));
        let same_name = |e: &Entry| usize::from(e.name_len) == name.len() && self.parts(e).is_some_and(|p| p.0 == name);
        match exact {
            Some(index) => Found::Exact(index),
            None => self.entries.iter().position(same_name).map_or(Found::Nothing, Found::Name),
        }
    }

    fn parts(&self, entry: &Entry) -> Option<(&[u8], &[u8])> {
        let from = self.bytes.get(entry.position as usize..)?;
        let (name, rest) = from.split_at_checked(usize::from(entry.name_len))?;
        Some((name, rest.get(..usize::from(entry.value_len))?))
    }

    /// Drops the oldest entries until `room` more bytes fit, or all.
    fn evict(&mut self, room: usize) {
        while self.size + room > self.max_size
            && let Some(oldest) = self.entries.pop_back()
        {
            let bytes = usize::from(oldest.name_len) + usize::from(oldest.value_len);
            self.size -= bytes + OVERHEAD;
            self.start += bytes;
        }
        if self.entries.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Moves the live bytes to the front once the dead ones outweigh them, so that each byte is moved once on average.
    fn compact(&mut self) {
        if self.start > 512 && self.start >= self.bytes.len() - self.start {
            self.bytes.drain(..self.start);
            for entry in &mut self.entries {
                entry.position -= self.start as u32;
            }
            self.start = 0;
        }
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let sum: usize = (0..self.len()).filter_map(|i| self.get(i)).map(|(n, v)| n.len() + v.len() + OVERHEAD).sum();
        assert_eq!(sum, self.size);
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
            table.insert(name.as_bytes(), b"1");
        }
        assert_eq!(table.get(2), Some((&b"aaa"[..], &b"1"[..])));
        table.insert(b"ddd", b"12");
        assert_eq!((table.len(), table.size()), (3, 109));
        assert_eq!(table.get(0), Some((&b"ddd"[..], &b"12"[..])));
        assert_eq!(table.get(3), None);
        table.insert(&[b'x'; 100], b"");
        assert_eq!((table.len(), table.size()), (0, 0));
        table.check_invariants();
    }

    #[test]
    fn stays_small() {
        let mut table = Table::new();
        for i in 0..10_000usize {
            table.insert(&vec![b'n'; i % 97], &vec![b'v'; i % 1009]);
            table.check_invariants();
        }
        table.set_max_size(0);
        assert_eq!(table.bytes.capacity(), 0);
    }

    #[test]
    fn an_entry_that_fills_it() {
        let mut table = Table::new();
        table.insert(&[b'n'; 64], &[b'v'; 4000]);
        assert_eq!((table.len(), table.size()), (1, 4096));
        assert_eq!(table.find(&[b'n'; 64], &[b'v'; 4000]), Found::Exact(0));
        assert_eq!(table.find(&[b'n'; 64], b"x"), Found::Name(0));
    }
}
