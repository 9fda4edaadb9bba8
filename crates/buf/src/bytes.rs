//! Shared bytes.

use std::fmt;
use std::mem::{self, ManuallyDrop};
use std::rc::Rc;

use crate::{Buf, Secret, pool};

/// Immutable bytes, cheap to clone and slice: static ones, or a part of a frozen [`Buf`], of a [`Secret`] or of a box.
#[derive(Clone)]
pub struct Bytes {
    /// Dropped by hand, so that the end of static bytes costs no more than a look.
    owner: ManuallyDrop<Owner>,
    start: usize,
    end: usize,
}

#[derive(Clone)]
enum Owner {
    Static(&'static [u8]),
    Pooled(Rc<Buf>),
    Boxed(Rc<[u8]>),
    Large(Rc<Vec<u8>>),
    Secret(Rc<Secret>),
}

/// How many bytes are few: to allocate their memory costs less than to take it from the pool and give it back.
const FEW: usize = 256;

/// From how many bytes on a vector is kept as it is. To copy fewer costs less than a second piece of memory.
const LARGE: usize = 1024;

impl Bytes {
    /// Bytes that are part of the program.
    pub const fn from_static(bytes: &'static [u8]) -> Bytes {
        Bytes { owner: ManuallyDrop::new(Owner::Static(bytes)), start: 0, end: bytes.len() }
    }

    /// A copy of `bytes`: of a few in memory of their size, of more in pooled memory.
    pub fn copy_from(bytes: &[u8]) -> Bytes {
        if bytes.len() <= FEW {
            return Bytes::from(Rc::<[u8]>::from(bytes));
        }
        let mut buf = Buf::with_capacity(bytes.len());
        buf.extend_from_slice(bytes);
        buf.freeze()
    }

    /// As [`Buf::read`]. Where few bytes are asked for, no memory is moved from place to place.
    #[inline]
    pub fn read<E>(size: usize, read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<Bytes, E> {
        let mut bytes = Bytes::whole(Owner::Pooled(pool::take_shared(size)), 0);
        if let Owner::Pooled(buf) = &mut *bytes.owner
            && let Some(buf) = Rc::get_mut(buf)
        {
            let len = read(buf.room_mut())?;
            buf.filled(len);
            bytes.end = len;
        }
        Ok(bytes)
    }

    #[inline]
    fn whole(owner: Owner, end: usize) -> Bytes {
        Bytes { owner: ManuallyDrop::new(owner), start: 0, end }
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        let all = match &*self.owner {
            Owner::Static(bytes) => bytes,
            Owner::Pooled(buf) => buf.as_slice(),
            Owner::Boxed(bytes) => bytes,
            Owner::Large(bytes) => bytes,
            Owner::Secret(bytes) => bytes,
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

    /// Adds bytes at the end, if they have room in the memory and nobody else has a part of that; whether they had.
    pub(crate) fn extend(&mut self, bytes: &[u8]) -> bool {
        let Owner::Pooled(buf) = &mut *self.owner else { return false };
        let Some(buf) = Rc::get_mut(buf).filter(|buf| buf.len() == self.end && buf.room() >= bytes.len()) else {
            return false;
        };
        buf.extend_from_slice(bytes);
        self.end += bytes.len();
        true
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
        Bytes::whole(Owner::Pooled(pool::share(buf)), end)
    }
}

impl Drop for Bytes {
    #[inline]
    fn drop(&mut self) {
        if !matches!(*self.owner, Owner::Static(_)) {
            let owner = mem::replace(&mut self.owner, ManuallyDrop::new(Owner::Static(b"")));
            release(ManuallyDrop::into_inner(owner));
        }
    }
}

/// One user less.
#[inline(never)]
fn release(owner: Owner) {
    match owner {
        Owner::Pooled(buf) if Rc::strong_count(&buf) == 1 => pool::give_shared(buf),
        _ => {}
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(mut bytes: Vec<u8>) -> Bytes {
        let end = bytes.len();
        if end < LARGE {
            return Bytes::from(Rc::<[u8]>::from(bytes));
        }
        bytes.shrink_to_fit();
        Bytes::whole(Owner::Large(Rc::new(bytes)), end)
    }
}

impl From<Rc<[u8]>> for Bytes {
    fn from(bytes: Rc<[u8]>) -> Bytes {
        let end = bytes.len();
        Bytes::whole(Owner::Boxed(bytes), end)
    }
}

/// They are overwritten when the last copy is dropped.
impl From<Secret> for Bytes {
    fn from(bytes: Secret) -> Bytes {
        let end = bytes.len();
        Bytes::whole(Owner::Secret(Rc::new(bytes)), end)
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

#[cfg(test)]
mod tests {
    use super::*;

    impl Bytes {
        /// Where the memory begins that they are in, if it is pooled.
        fn owner_address(&self) -> Option<*const u8> {
            let Owner::Pooled(buf) = &*self.owner else { return None };
            Some(buf.as_slice().as_ptr())
        }
    }

    #[test]
    fn large_vectors_are_not_copied() {
        for len in [0, 1, LARGE - 1, LARGE, 5 * LARGE] {
            let vector: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let (address, expect) = (vector.as_ptr(), vector.clone());
            let bytes = Bytes::from(vector);
            assert_eq!(bytes[..], expect);
            assert_eq!(bytes.as_ptr() == address, len >= LARGE, "{len}");
            assert_eq!(bytes.slice(len / 2..len)[..], expect[len / 2..]);
        }
    }

    #[test]
    fn reads() {
        let read = |size: usize, text: &[u8]| {
            Bytes::read(size, |memory| {
                assert!(memory.len() >= size);
                memory[..text.len()].copy_from_slice(text);
                Ok::<_, ()>(text.len())
            })
        };
        for size in [1, 4096, 4097, 100_000, 1 << 20] {
            let first = read(size, b"a").unwrap();
            let (address, kept) = (first.as_ptr(), first.clone());
            drop(first);
            let second = read(size, b"bc").unwrap();
            assert_eq!((&kept[..], &second[..]), (&b"a"[..], &b"bc"[..]), "{size}: memory in use isn't given out");
            drop(kept);
            if size <= 100_000 {
                assert_eq!(read(size, b"").unwrap().owner_address(), Some(address), "{size}: it is used again");
            }
        }
        assert_eq!(Bytes::read(8, |_| Err::<usize, _>("refused")).unwrap_err(), "refused");
        let all: Vec<Bytes> = (0..100u8).map(|n| read(4096, &[n; 3]).unwrap()).collect();
        assert!(all.iter().zip(0..).all(|(bytes, n)| bytes[..] == [n; 3]));
    }

    #[test]
    fn bytes_are_added_where_nobody_sees_it() {
        let pooled = |bytes: &[u8]| {
            let mut buf = Buf::with_capacity(bytes.len());
            buf.extend_from_slice(bytes);
            buf.freeze()
        };
        let mut bytes = pooled(b"tide");
        assert!(bytes.extend(b"gate"));
        let other = bytes.slice(0..4);
        assert!(!bytes.extend(b"!"), "the other one has a part of the memory");
        assert_eq!((&bytes[..], &other[..]), (&b"tidegate"[..], &b"tide"[..]));
        drop(other);
        let mut front = bytes.slice(0..4);
        drop(bytes);
        assert!(!front.extend(b"!"), "it isn't the end of what is filled");
        assert!(!Bytes::from_static(b"a").extend(b"b") && !Bytes::from(b"a".to_vec()).extend(b"b"));
        let mut full = pooled(&[1; 1020]);
        assert!(!full.extend(&[2; 5]) && full.extend(&[2; 4]) && full.len() == 1024);
    }
}
