//! Mappings.

use std::io;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Maps `len` zeroed bytes that this process shares with the children it forks from now on; until the process ends.
pub fn map_shared(len: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: the kernel chooses the place, so nothing that exists is touched.
    let start =
        unsafe { mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)? };
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}
