//! Mappings, and the allocator's free memory.

use std::io;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// The size of a page of memory.
pub fn page_size() -> usize {
    rustix::param::page_size()
}

/// Maps `len` zeroed bytes that this process shares with the children it forks from now on; until [`unmap_shared`].
pub fn map_shared(len: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: the kernel chooses the place, so nothing that exists is touched.
    let start =
        unsafe { mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)? };
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// Takes a mapping out of this process; other processes keep theirs.
///
/// # Safety
/// `start` and `len` are those of a call of [`map_shared`], and nothing in this process uses the memory any more.
pub unsafe fn unmap_shared(start: NonNull<u8>, len: usize) {
    // SAFETY: as the caller says. An error would mean that there is no such mapping.
    let _ = unsafe { munmap(start.as_ptr().cast(), len) };
}

/// Joins the allocator's free memory and gives the kernel back what it can. Before a fork, so that the children don't do
/// it each in a copy of their own.
pub fn trim() {
    // SAFETY: the call only touches memory that is free.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
    // What was joined is sorted by size when the next large piece is asked for, some thousands at a time.
    for n in 0..32 {
        drop(std::hint::black_box(Vec::<u8>::with_capacity(50_000 + 64 * n)));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn trimming_leaves_what_is_in_use() {
        let kept = vec![7_u8; 100_000];
        drop(vec![1_u8; 100_000]);
        super::trim();
        assert!(kept.iter().all(|byte| *byte == 7));
    }
}
