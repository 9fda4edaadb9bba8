//! What std's files lack.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::check;
use crate::memory::memory_file;

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
    let mut flags = OFlags::RDONLY | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, how.no_follow);
    flags.set(OFlags::DIRECTORY, how.directory);
    flags.set(OFlags::PATH, how.path_only);
    flags.set(OFlags::NONBLOCK, how.nonblocking);
    Ok(rustix::fs::openat(dir.unwrap_or(CWD), path, flags, Mode::empty())?)
}

/// What the system knows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Device and number, by which it is known again.
    pub identity: (u64, u64),
    /// Its size in bytes.
    pub size: u64,
    /// When its contents were last changed, or are said to have been: seconds since 1970, and nanoseconds.
    pub modified: (i64, u64),
    /// When anything about it was last changed, by the system's own clock: nobody can set it.
    pub changed: (i64, u64),
    /// Its type and permissions (`st_mode`).
    pub mode: u32,
}

impl Stat {
    fn of(stat: &rustix::fs::Stat) -> Stat {
        Stat {
            identity: (stat.st_dev, stat.st_ino),
            size: stat.st_size.max(0) as u64,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
            mode: stat.st_mode,
        }
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::RegularFile
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Directory
    }
}

/// What is at `path`; links are followed.
pub fn stat(path: &[u8]) -> io::Result<Stat> {
    Ok(Stat::of(&rustix::fs::stat(path)?))
}

/// What is open.
pub fn fstat(file: impl AsFd) -> io::Result<Stat> {
    Ok(Stat::of(&rustix::fs::fstat(file)?))
}

/// Whether the file lies on a file system that only this machine writes to, as far as its type tells: there, what
/// [`stat`] says is never older than the file.
pub fn is_local(file: impl AsFd) -> bool {
    /// ext2 to ext4, XFS, Btrfs, tmpfs, overlayfs, F2FS, ZFS, bcachefs, squashfs, EROFS, ramfs.
    const LOCAL: [u64; 11] = [
        0xef53,
        0x5846_5342,
        0x9123_683e,
        0x0102_1994,
        0x794c_7630,
        0xf2f5_2010,
        0x2fc1_2fc1,
        0xca45_1a4e,
        0x7371_7368,
        0xe0f5_e1e2,
        0x8584_58f6,
    ];
    rustix::fs::fstatfs(file).is_ok_and(|stat| LOCAL.contains(&(stat.f_type as u64 & 0xffff_ffff)))
}

/// How many bytes are free on the file system of a path, for those who aren't the superuser.
pub fn free_space(path: &std::path::Path) -> io::Result<u64> {
    let system = rustix::fs::statvfs(path)?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}

/// A file without a name, in memory, that holds `bytes`: to be passed to another process.
pub fn anonymous(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memory_file(c"handed over", rustix::fs::MemfdFlags::empty())?);
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
        let dir = tempfile::TempDir::with_prefix("tidegate-file-").expect("create");
        let dir = dir.path();
        std::fs::write(dir.join("a"), "x").expect("write");
        std::os::unix::fs::symlink("a", dir.join("l")).expect("link");
        let path = dir.as_os_str().as_encoded_bytes();
        let handle = openat(None, path, Open { directory: true, ..Open::default() }).expect("open");
        let at = Some(std::os::fd::AsFd::as_fd(&handle));
        assert!(openat(at, b"a", Open::default()).is_ok());
        assert!(openat(at, b"l", Open::default()).is_ok());
        assert!(openat(at, b"l", Open { no_follow: true, ..Open::default() }).is_err());
        assert!(openat(at, b"a\0b", Open::default()).is_err());
    }
}
