//! Shared memory, anonymous or of a file in memory.

use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;

/// Memory that this process shares with others; unmapped with its last user.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Maps at least `len` zeroed bytes, shared with the children that this process forks from now on.
    pub fn new(len: usize) -> io::Result<Rc<Mapping>> {
        let len = len.max(1);
        Ok(Rc::new(Mapping { start: os::memory::map_shared(len)?, len }))
    }

    /// Maps a file of [`os::memory::sealed_file`] with `len` bytes, shared with all who have it.
    #[cfg(not(all(test, loom)))]
    pub(crate) fn of_file(file: std::os::fd::BorrowedFd<'_>, len: usize) -> io::Result<Rc<Mapping>> {
        Ok(Rc::new(Mapping { start: os::memory::map_file(file, len)?, len }))
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is empty, which it never is.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// A place of type `T` at `offset`, which has to be aligned and inside.
    ///
    /// # Panics
    /// If it isn't.
    pub(crate) fn place<T: Shared>(self: &Rc<Self>, offset: usize) -> Place<T> {
        Place { at: NonNull::from(self.at::<T>(offset)), _mapping: self.clone() }
    }

    /// The value of type `T` at `offset`, which has to be aligned and inside.
    ///
    /// # Panics
    /// If it isn't.
    #[inline]
    pub(crate) fn at<T: Shared>(&self, offset: usize) -> &T {
        assert!(offset.is_multiple_of(align_of::<T>()) && offset + size_of::<T>() <= self.len, "a place inside");
        // SAFETY: the place is inside the mapping and aligned (asserted; the start is page-aligned), and the mapping lives
        // as long as `self`. `T: Shared` is valid for all bytes and changes only atomically, so any number of processes
        // may hold references.
        unsafe { self.start.add(offset).cast::<T>().as_ref() }
    }

    /// Where the bytes from `offset` on are, and how many: for [`crate::Memory`].
    ///
    /// # Panics
    /// If `offset` is outside.
    #[cfg(not(loom))]
    pub(crate) fn range(&self, offset: usize) -> (NonNull<u8>, usize) {
        assert!(offset <= self.len, "an offset inside");
        // SAFETY: the offset is inside the mapping (asserted).
        (unsafe { self.start.add(offset) }, self.len - offset)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours; every place holds it, and memory borrows it.
        unsafe { os::memory::unmap_shared(self.start, self.len) }
    }
}

/// A value in a mapping, which it keeps.
#[derive(Debug)]
pub(crate) struct Place<T> {
    at: NonNull<T>,
    _mapping: Rc<Mapping>,
}

impl<T> Clone for Place<T> {
    fn clone(&self) -> Place<T> {
        Place { at: self.at, _mapping: self._mapping.clone() }
    }
}

impl<T: Shared> Deref for Place<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the place is inside the mapping and aligned (asserted where it was made; the start is page-aligned),
        // and the mapping lives as long as `self`. `T: Shared` is valid for all bytes and changes only atomically, so
        // any number of processes may hold references.
        unsafe { self.at.as_ref() }
    }
}

/// Types that may lie in shared memory: any bytes are a value, and all changes are atomic.
///
/// # Safety
/// As said.
pub(crate) unsafe trait Shared: Sync {}

// SAFETY: an atomic integer is both.
unsafe impl Shared for std::sync::atomic::AtomicU64 {}
// SAFETY: an atomic integer is both.
unsafe impl Shared for std::sync::atomic::AtomicU32 {}
