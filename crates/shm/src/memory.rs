//! Memory that other processes may write to at any time: copies go in and out, and nothing refers into it.

use std::marker::PhantomData;
use std::ptr::NonNull;

/// Bytes that are read and written as numbers and strings, by copying. Outside of them there is nothing: what is read there
/// is 0, what is written there is lost. So a wrong offset, left behind by a process that was killed while it changed
/// something, leads to a wrong answer and not to a panic; and what another process writes meanwhile leads to an answer that
/// is old, new or mixed, and to nothing worse.
pub struct Memory<'a> {
    start: NonNull<u8>,
    len: usize,
    _owner: PhantomData<&'a mut [u8]>,
}

impl<'a> Memory<'a> {
    /// Bytes of this process alone.
    pub fn of(bytes: &'a mut [u8]) -> Memory<'a> {
        Memory { len: bytes.len(), start: NonNull::from(bytes).cast(), _owner: PhantomData }
    }

    /// All of a mapping from an offset on.
    #[cfg(not(loom))]
    pub(crate) fn of_mapping(mapping: &'a crate::Mapping, offset: usize) -> Memory<'a> {
        let (start, len) = mapping.range(offset);
        Memory { start, len, _owner: PhantomData }
    }

    /// The same bytes, for a shorter time.
    #[cfg(not(loom))]
    pub(crate) fn again(&mut self) -> Memory<'_> {
        Memory { start: self.start, len: self.len, _owner: PhantomData }
    }

    /// `len` bytes of these; none if they aren't all inside.
    pub fn part(&mut self, at: usize, len: usize) -> Memory<'_> {
        match self.place(at, len).and_then(NonNull::new) {
            Some(start) => Memory { start, len, _owner: PhantomData },
            None => Memory { start: NonNull::dangling(), len: 0, _owner: PhantomData },
        }
    }

    /// The bytes from here on; none if there are fewer.
    #[must_use]
    pub fn after(self, at: usize) -> Memory<'a> {
        let len = self.len.saturating_sub(at);
        let start = self.place(at, len).and_then(NonNull::new).unwrap_or(self.start);
        Memory { start, len, _owner: PhantomData }
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.load(at))
    }

    #[inline]
    pub(crate) fn set_u32(&mut self, at: usize, value: u32) {
        self.store(at, value.to_ne_bytes());
    }

    #[inline]
    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.load(at))
    }

    #[inline]
    pub(crate) fn set_u64(&mut self, at: usize, value: u64) {
        self.store(at, value.to_ne_bytes());
    }

    /// A copy of `N` bytes; `None` if they aren't all inside.
    pub(crate) fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.place(at, N)?;
        let mut copy = [0; N];
        self.copy_to(at, &mut copy);
        Some(copy)
    }

    /// A copy of `len` bytes; an empty one if they aren't all inside.
    pub(crate) fn bytes(&self, at: usize, len: usize) -> Vec<u8> {
        let mut copy = vec![0; if self.place(at, len).is_some() { len } else { 0 }];
        self.copy_to(at, &mut copy);
        copy
    }

    /// Writes these bytes; nothing happens if not all of their places are inside.
    pub(crate) fn set_bytes(&mut self, at: usize, bytes: &[u8]) {
        if self.place(at, bytes.len()).is_none() {
            return;
        }
        let (words, rest) = bytes.as_chunks::<WORD>();
        words.iter().enumerate().for_each(|(n, word)| self.store(at + n * WORD, *word));
        let at = at + words.len() * WORD;
        rest.iter().enumerate().for_each(|(n, byte)| self.store(at + n, [*byte]));
    }

    /// Writes `len` zeros; nothing happens if not all of their places are inside.
    pub(crate) fn clear(&mut self, at: usize, len: usize) {
        if self.place(at, len).is_none() {
            return;
        }
        let words = len / WORD;
        (0..words).for_each(|n| self.store(at + n * WORD, [0; WORD]));
        (words * WORD..len).for_each(|n| self.store(at + n, [0]));
    }

    /// Whether these bytes are there.
    pub(crate) fn holds(&self, at: usize, bytes: &[u8]) -> bool {
        if self.place(at, bytes.len()).is_none() {
            return false;
        }
        let (words, rest) = bytes.as_chunks::<WORD>();
        let end = at + words.len() * WORD;
        words.iter().enumerate().all(|(n, word)| self.load::<WORD>(at + n * WORD) == *word)
            && rest.iter().enumerate().all(|(n, byte)| self.load::<1>(end + n) == [*byte])
    }

    fn copy_to(&self, at: usize, copy: &mut [u8]) {
        let (words, rest) = copy.as_chunks_mut::<WORD>();
        let end = at + words.len() * WORD;
        words.iter_mut().enumerate().for_each(|(n, word)| *word = self.load(at + n * WORD));
        rest.iter_mut().enumerate().for_each(|(n, byte)| [*byte] = self.load(end + n));
    }

    /// The place of `len` bytes, if they are all inside.
    #[inline]
    fn place(&self, at: usize, len: usize) -> Option<*mut u8> {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.len);
        inside.then(|| self.start.as_ptr().wrapping_add(at))
    }

    #[inline]
    fn load<const N: usize>(&self, at: usize) -> [u8; N] {
        let Some(place) = self.place(at, N) else { return [0; N] };
        // SAFETY: the bytes are inside what `self` stands for (checked), which lives as long as `self`; any bytes are a
        // value, and none needs to be aligned. Volatile: read once, whoever writes to them meanwhile.
        unsafe { place.cast::<[u8; N]>().read_volatile() }
    }

    #[inline]
    fn store<const N: usize>(&mut self, at: usize, value: [u8; N]) {
        let Some(place) = self.place(at, N) else { return };
        // SAFETY: as for `load`; nothing refers to the bytes, as `self` is the only way to them in this process.
        unsafe { place.cast::<[u8; N]>().write_volatile(value) }
    }
}

/// How much is copied at once.
const WORD: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies() {
        let mut bytes = [0; 40];
        for (at, len) in [(0, 0), (0, 40), (3, 8), (5, 17), (39, 1), (40, 0)] {
            let data: Vec<u8> = (1..=len as u8).collect();
            let mut memory = Memory::of(&mut bytes);
            memory.clear(0, 40);
            memory.set_bytes(at, &data);
            assert!(memory.bytes(at, len) == data && memory.holds(at, &data), "{at} {len}");
            assert!(len == 0 || !memory.holds(at, &vec![0; len]), "{at} {len}");
            let mut expect = [0; 40];
            expect[at..at + len].copy_from_slice(&data);
            assert_eq!(bytes, expect, "{at} {len}");
        }
    }

    #[test]
    fn outside_there_is_nothing() {
        let mut bytes = [7; 16];
        let mut memory = Memory::of(&mut bytes);
        for at in [9, 16, 17, usize::MAX - 3, usize::MAX] {
            memory.set_bytes(at, &[1; 8]);
            memory.set_u64(at, 1);
            memory.clear(at, 8);
            assert_eq!((memory.u64(at), memory.bytes(at, 8), memory.array::<8>(at)), (0, Vec::new(), None));
            assert!(!memory.holds(at, &[7; 8]) && memory.part(at, 8).is_empty());
        }
        memory.part(8, 4).set_u32(0, 0);
        memory.part(8, 4).set_u32(4, 1);
        assert_eq!(bytes, [7, 7, 7, 7, 7, 7, 7, 7, 0, 0, 0, 0, 7, 7, 7, 7]);
    }
}
