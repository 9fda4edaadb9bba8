//! A buffer with one owner.

use std::fmt;

use crate::{Bytes, pool};

/// Pooled memory with a filled part: bytes are added at its end and consumed at its start.
///
/// The memory is initialised and of fixed size, at least what was asked for; dropping the buffer gives it back to the
/// thread's pool.
pub struct Buf {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buf {
    /// A buffer that holds nothing and has no memory.
    pub fn empty() -> Buf {
        Buf { memory: Box::default(), start: 0, end: 0 }
    }

    /// An empty buffer for at least `size` bytes.
    pub fn with_capacity(size: usize) -> Buf {
        Buf { memory: pool::take(size), start: 0, end: 0 }
    }

    /// What `read` puts into memory for at least `size` bytes; it says how many.
    #[inline]
    pub fn read<E>(size: usize, read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<Buf, E> {
        let mut buf = Buf::with_capacity(size);
        let len = read(buf.room_mut())?;
        buf.filled(len);
        Ok(buf)
    }

    /// Wraps memory of which `start..end` is filled.
    ///
    /// # Panics
    /// If the range isn't inside the memory.
    pub fn from_memory(memory: Box<[u8]>, start: usize, end: usize) -> Buf {
        assert!(start <= end && end <= memory.len(), "the filled part lies inside the memory");
        Buf { memory, start, end }
    }

    /// Takes the memory out, for a driver that lends it to the kernel.
    pub fn into_memory(mut self) -> Box<[u8]> {
        std::mem::take(&mut self.memory)
    }

    /// The filled part.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// The filled part, to change in place.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.end]
    }

    /// The number of filled bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is filled.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The size of the memory.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// How many bytes can still be added.
    #[inline]
    pub fn room(&self) -> usize {
        self.memory.len() - self.end
    }

    /// The unfilled end of the memory, to write into; [`Buf::filled`] then says how much was written.
    #[inline]
    pub fn room_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.end..]
    }

    /// Counts `n` more bytes, written through [`Buf::room_mut`], as filled.
    ///
    /// # Panics
    /// If there is no room for `n` bytes.
    #[inline]
    pub fn filled(&mut self, n: usize) {
        assert!(n <= self.room(), "no more is filled than there is room");
        self.end += n;
    }

    /// Drops `n` bytes from the start of the filled part.
    ///
    /// # Panics
    /// If fewer are filled.
    #[inline]
    pub fn consume(&mut self, n: usize) {
        assert!(n <= self.len(), "no more is consumed than is filled");
        self.start += n;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Forgets the filled part.
    #[inline]
    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Adds bytes at the end; takes larger memory if there is no room for them.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.memory[self.end..][..bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Adds a byte at the end.
    #[inline]
    pub fn push(&mut self, byte: u8) {
        self.reserve(1);
        self.memory[self.end] = byte;
        self.end += 1;
    }

    /// Adds several slices at the end, one after the other.
    #[inline]
    pub fn extend_from_slices<const N: usize>(&mut self, slices: [&[u8]; N]) {
        let len = slices.iter().map(|slice| slice.len()).sum();
        self.reserve(len);
        let mut room = &mut self.memory[self.end..][..len];
        for slice in slices {
            let (place, rest) = room.split_at_mut(slice.len());
            place.copy_from_slice(slice);
            room = rest;
        }
        self.end += len;
    }

    /// Adds a copy of a part of what is filled.
    ///
    /// # Panics
    /// If the range isn't inside of it.
    pub fn extend_from_within(&mut self, range: std::ops::Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.len(), "a part lies inside");
        self.reserve(range.len());
        let from = self.start + range.start..self.start + range.end;
        self.memory.copy_within(from, self.end);
        self.end += range.len();
    }

    /// Makes room for at least `n` more bytes, by moving what is filled to the front or into larger memory.
    #[inline]
    pub fn reserve(&mut self, n: usize) {
        if self.room() < n {
            self.make_room(n);
        }
    }

    #[cold]
    fn make_room(&mut self, n: usize) {
        let len = self.len();
        if self.memory.len() - len >= n {
            self.memory.copy_within(self.start..self.end, 0);
        } else {
            let mut memory = pool::take((len + n).max(self.memory.len() * 2));
            memory[..len].copy_from_slice(self.as_slice());
            pool::give(std::mem::replace(&mut self.memory, memory));
        }
        (self.start, self.end) = (0, len);
    }

    /// Moves what is filled into memory of its size if it fills less than an eighth of this. Whoever keeps what came in a
    /// small read keeps no large memory for it.
    pub fn fit(self) -> Buf {
        if self.len() >= self.capacity() / 8 {
            return self;
        }
        let mut small = Buf::with_capacity(self.len());
        small.extend_from_slice(&self);
        small
    }

    /// Makes what is filled immutable and shareable.
    pub fn freeze(self) -> Bytes {
        Bytes::from(self)
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        if !self.memory.is_empty() {
            pool::give(std::mem::take(&mut self.memory));
        }
    }
}

impl std::ops::Deref for Buf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl std::io::Write for Buf {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf(\"{}\")", self.as_slice().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_and_consumes() {
        let mut buf = Buf::with_capacity(4);
        assert_eq!(buf.capacity(), 1024);
        buf.extend_from_slice(b"hello world");
        buf.consume(6);
        assert_eq!(&buf[..], b"world");
        buf.consume(5);
        assert_eq!(buf.room(), 1024);
    }

    #[test]
    fn grows_and_moves() {
        let mut buf = Buf::with_capacity(1024);
        buf.extend_from_slice(&[1; 1000]);
        buf.consume(900);
        buf.extend_from_slice(&[2; 900]);
        assert_eq!(buf.capacity(), 1024, "what is filled moves to the front first");
        buf.extend_from_slice(&[3; 2000]);
        assert_eq!(buf.len(), 3000);
        assert_eq!((buf[0], buf[100], buf[2999]), (1, 2, 3));
        (0..2000).for_each(|_| buf.push(4));
        assert_eq!((buf.len(), buf[2999], buf[3000], buf[4999]), (5000, 3, 4, 4));
    }

    #[test]
    fn slices_are_joined() {
        let mut buf = Buf::empty();
        buf.extend_from_slices([b"ab", b"", b"c"]);
        buf.extend_from_slices([&[1; 1021], b"d"]);
        assert_eq!((buf.len(), &buf[..3], buf[1024]), (1025, &b"abc"[..], b'd'));
    }

    #[test]
    fn parts_are_repeated() {
        let mut buf = Buf::with_capacity(1024);
        buf.extend_from_slice(&[1; 1020]);
        buf.consume(1017);
        buf.extend_from_slice(b"ab");
        buf.extend_from_within(1..5);
        buf.extend_from_within(2..2);
        assert_eq!(&buf[..], b"\x01\x01\x01ab\x01\x01ab");
    }

    #[test]
    fn little_takes_little_memory() {
        for (filled, expect) in [(0, 1024), (1, 1024), (1025, 2048), (8191, 8192), (8192, 65536), (65536, 65536)] {
            let mut buf = Buf::with_capacity(65536);
            buf.extend_from_slice(&vec![7; filled]);
            let fitted = buf.fit();
            assert_eq!((fitted.len(), fitted.capacity()), (filled, expect), "{filled}");
            assert!(fitted.iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn memory_returns_to_the_pool() {
        let address = {
            let buf = Buf::with_capacity(32 << 10);
            buf.memory.as_ptr()
        };
        assert_eq!(Buf::with_capacity(32 << 10).memory.as_ptr(), address);
    }
}
