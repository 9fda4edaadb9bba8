//! Shared bytes.

use std::fmt;
use std::rc::Rc;

use crate::{Buf, pool};

/// Immutable bytes, cheap to clone and slice: static ones, or a part of a frozen [`Buf`].
#[derive(Clone)]
pub struct Bytes {
    owner: Owner,
    start: usize,
    end: usize,
}

#[derive(Clone)]
enum Owner {
    Static(&'static [u8]),
    Pooled(Rc<Buf>),
    Boxed(Rc<[u8]>),
}

impl Bytes {
    /// Bytes that are part of the program.
    pub const fn from_static(bytes: &'static [u8]) -> Bytes {
        Bytes { owner: Owner::Static(bytes), start: 0, end: bytes.len() }
    }

    /// A copy of `bytes` in pooled memory.
    pub fn copy_from(bytes: &[u8]) -> Bytes {
        let mut buf = Buf::with_capacity(bytes.len());
        buf.extend_from_slice(bytes);
        buf.freeze()
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        let all = match &self.owner {
            Owner::Static(bytes) => bytes,
            Owner::Pooled(buf) => buf.as_slice(),
            Owner::Boxed(bytes) => bytes,
        };
        &all[self.start..self.end]
    }

    /// Whether these are the same bytes at the same place, not only equal ones.
    pub fn is_same(&self, other: &Bytes) -> bool {
        std::ptr::eq(self.as_slice(), other.as_slice())
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// A part of them.
    ///
    /// # Panics
    /// If the range isn't inside.
    #[inline]
    pub fn slice(&self, range: std::ops::Range<usize>) -> Bytes {
        assert!(range.start <= range.end && range.end <= self.len(), "a slice lies inside");
        if range.is_empty() {
            return Bytes::default();
        }
        Bytes { owner: self.owner.clone(), start: self.start + range.start, end: self.start + range.end }
    }

    /// Takes what follows the first `n` bytes off.
    ///
    /// # Panics
    /// If there are fewer.
    #[inline]
    pub fn split_off(&mut self, n: usize) -> Bytes {
        let rest = self.slice(n..self.len());
        self.end = self.start + n;
        rest
    }

    /// Drops `n` bytes from the front.
    ///
    /// # Panics
    /// If there are fewer.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len(), "no more is dropped than there is");
        if n == self.len() {
            *self = Bytes::default();
        } else {
            self.start += n;
        }
    }
}

impl Default for Bytes {
    #[inline]
    fn default() -> Bytes {
        Bytes::from_static(b"")
    }
}

impl From<Buf> for Bytes {
    fn from(buf: Buf) -> Bytes {
        let end = buf.len();
        Bytes { owner: Owner::Pooled(pool::share(buf)), start: 0, end }
    }
}

impl Drop for Bytes {
    #[inline]
    fn drop(&mut self) {
        if let Owner::Pooled(buf) = &self.owner
            && Rc::strong_count(buf) == 1
            && let Owner::Pooled(buf) = std::mem::replace(&mut self.owner, Owner::Static(b""))
        {
            pool::give_shared(buf);
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes::from(Rc::<[u8]>::from(bytes))
    }
}

impl From<Rc<[u8]>> for Bytes {
    fn from(bytes: Rc<[u8]>) -> Bytes {
        let end = bytes.len();
        Bytes { owner: Owner::Boxed(bytes), start: 0, end }
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Bytes {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Bytes) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Bytes {}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.as_slice().escape_ascii())
    }
}
