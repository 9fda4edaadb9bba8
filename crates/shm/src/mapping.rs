//! Anonymous shared memory.

use std::io;
use std::ptr::NonNull;

/// Zeroed memory that this process shares with the children it forks from now on. It stays mapped until the process
/// ends.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Maps at least `len` bytes.
    pub fn new(len: usize) -> io::Result<Mapping> {
        let len = len.max(1);
        Ok(Mapping { start: os::memory::map_shared(len)?, len })
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
    pub(crate) fn place<T: Shared>(&self, offset: usize) -> &'static T {
        assert!(offset.is_multiple_of(align_of::<T>()) && offset + size_of::<T>() <= self.len, "a place inside");
        // SAFETY: the place is inside the mapping and aligned (asserted; the start is page-aligned). `T: Shared` is
        // valid for all bytes and changes only atomically, so any number of processes may hold references. The memory
        // is never unmapped while a place is in use: nothing in this crate unmaps.
        unsafe { self.start.add(offset).cast::<T>().as_ref() }
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
