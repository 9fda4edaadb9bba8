//! Mappings, files in memory, and the allocator's free memory.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

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

/// A file in memory with `len` zeroed bytes, closed on exec, to be mapped by [`map_file`]. Nobody who has it can make it
/// shorter or longer. `name` is shown in /proc.
pub fn sealed_file(name: &CStr, len: usize) -> io::Result<OwnedFd> {
    let file = memory_file(name, MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&file, u64::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?)?;
    rustix::fs::fcntl_add_seals(&file, SIZE_SEALS | SealFlags::SEAL)?;
    Ok(file)
}

/// A file in memory, empty, closed on exec.
pub(crate) fn memory_file(name: &CStr, flags: MemfdFlags) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | flags;
    // The kernel may insist on files that can't be executed (vm.memfd_noexec); those before 6.3 don't know the flag.
    Ok(match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        file => file?,
    })
}

/// The seals that make the size of a file final.
const SIZE_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// Maps a file of [`sealed_file`], made by whatever process, which has to have `len` bytes; until [`unmap_shared`]. An
/// error of the kind `InvalidData`: it has another length, or could get one.
pub fn map_file(file: BorrowedFd<'_>, len: usize) -> io::Result<NonNull<u8>> {
    let sealed = rustix::fs::fcntl_get_seals(file)?.contains(SIZE_SEALS);
    if !sealed || usize::try_from(rustix::fs::fstat(file)?.st_size) != Ok(len) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: the kernel chooses the place, so nothing that exists is touched; the file can't become shorter than the
    // mapping.
    let start =
        unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)? };
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// Takes a mapping out of this process; other processes keep theirs.
///
/// # Safety
/// `start` and `len` are those of a call of [`map_shared`] or [`map_file`], and nothing in this process uses the memory any more.
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
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn files_of_a_final_size() {
        let file = sealed_file(c"test", 4096).expect("a file");
        for len in [0, 4095, 4097, 8192] {
            rustix::fs::ftruncate(&file, len).expect_err("sealed");
            let error = map_file(file.as_fd(), len as usize).expect_err("another length");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{len}");
        }
        let (one, other) = (map_file(file.as_fd(), 4096), map_file(file.as_fd(), 4096));
        let (one, other) = (one.expect("mapped"), other.expect("mapped"));
        // SAFETY: both places are mapped, and used by this thread alone.
        unsafe {
            one.add(4095).write(7);
            assert_eq!(other.add(4095).read(), 7, "the same memory");
            unmap_shared(one, 4096);
            unmap_shared(other, 4096);
        }
        let null = std::fs::File::open("/dev/null").expect("a file");
        map_file(null.as_fd(), 4096).expect_err("it can't be sealed");
        let open = rustix::fs::memfd_create(c"test", MemfdFlags::ALLOW_SEALING).expect("a file");
        rustix::fs::ftruncate(&open, 4096).expect("open");
        let error = map_file(open.as_fd(), 4096).expect_err("it could shrink");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn trimming_leaves_what_is_in_use() {
        let kept = vec![7_u8; 100_000];
        drop(vec![1_u8; 100_000]);
        trim();
        assert!(kept.iter().all(|byte| *byte == 7));
    }
}
