//! What std's files lack.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use crate::check;

/// How a path is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open {
    /// Don't follow a symbolic link at the end.
    pub no_follow: bool,
    /// Only a directory.
    pub directory: bool,
    /// Only a handle for further [`openat`] calls, not for reading (O_PATH).
    pub path_only: bool,
    /// Don't wait for a writer at a pipe.
    pub nonblocking: bool,
}

/// Opens `path` for reading, relative to `dir` if there is one; closed on exec.
pub fn openat(dir: Option<BorrowedFd<'_>>, path: &[u8], how: Open) -> io::Result<OwnedFd> {
    let path = CString::new(path)?;
    let dir = dir.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd());
    let flag = |on: bool, bit: i32| if on { bit } else { 0 };
    let flags = libc::O_RDONLY
        | libc::O_CLOEXEC
        | flag(how.no_follow, libc::O_NOFOLLOW)
        | flag(how.directory, libc::O_DIRECTORY)
        | flag(how.path_only, libc::O_PATH)
        | flag(how.nonblocking, libc::O_NONBLOCK);
    // SAFETY: the path ends with a zero byte; a descriptor that isn't -1 is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(check(libc::openat(dir, path.as_ptr(), flags))?) })
}

/// A file without a name, in memory, that holds `bytes`: to be passed to another process.
pub fn anonymous(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("handed over", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    Ok(file.into())
}

/// All of a file, from its start, wherever its position is. An error if it is longer than `limit`.
pub fn read_all(fd: OwnedFd, limit: usize) -> io::Result<Vec<u8>> {
    let file = File::from(fd);
    let length = usize::try_from(file.metadata()?.len()).ok().filter(|length| *length <= limit);
    let mut bytes = vec![0; length.ok_or(io::ErrorKind::FileTooLarge)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Tells the kernel that the file will be read from front to back, so that it reads ahead.
pub fn advise_sequential(file: &File) {
    // SAFETY: no memory is involved. It is a hint; failure has no consequence.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_SEQUENTIAL) };
}

/// Switches reads and writes around the page cache on or off (O_DIRECT).
pub fn set_direct(file: &File, on: bool) -> io::Result<()> {
    let fd = file.as_raw_fd();
    // SAFETY: no memory is involved.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    let flags = if on { flags | libc::O_DIRECT } else { flags & !libc::O_DIRECT };
    // SAFETY: no memory is involved.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags) }).map(drop)
}

/// Takes an exclusive write lock on the whole file if nobody has one; the lock ends with the process.
pub fn try_lock(file: &File) -> io::Result<()> {
    // SAFETY: `flock` is plain old data, for which all zeroes is a value: the whole file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    (lock.l_type, lock.l_whence) = (libc::F_WRLCK as i16, libc::SEEK_SET as i16);
    // SAFETY: `lock` lives over the call.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &lock) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_relative_and_refuses_links() {
        let dir = std::env::temp_dir().join(format!("tidegate-file-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("create");
        std::fs::write(dir.join("a"), "x").expect("write");
        let _ = std::os::unix::fs::symlink("a", dir.join("l"));
        let path = dir.as_os_str().as_encoded_bytes();
        let handle = openat(None, path, Open { directory: true, ..Open::default() }).expect("open");
        let at = Some(std::os::fd::AsFd::as_fd(&handle));
        assert!(openat(at, b"a", Open::default()).is_ok());
        assert!(openat(at, b"l", Open::default()).is_ok());
        assert!(openat(at, b"l", Open { no_follow: true, ..Open::default() }).is_err());
        assert!(openat(at, b"a\0b", Open::default()).is_err());
        std::fs::remove_dir_all(&dir).expect("remove");
    }
}
