//! Readiness by poll and select.

use std::io;
use std::os::fd::RawFd;

use crate::check;

/// Ready to read.
pub const IN: i16 = libc::POLLIN;
/// Ready to write.
pub const OUT: i16 = libc::POLLOUT;
/// The peer has closed its side.
pub const RDHUP: i16 = libc::POLLRDHUP;
/// Both sides are closed.
pub const HUP: i16 = libc::POLLHUP;
/// An error waits.
pub const ERR: i16 = libc::POLLERR;
/// The descriptor isn't open.
pub const NVAL: i16 = libc::POLLNVAL;
/// Descriptors from this number on can't be waited for with [`select`].
pub const SELECT_LIMIT: RawFd = libc::FD_SETSIZE as RawFd;

/// One descriptor to wait for; a negative one is left out.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct PollFd(libc::pollfd);

impl PollFd {
    /// Waits for `events` of `fd`.
    pub fn new(fd: RawFd, events: i16) -> PollFd {
        PollFd(libc::pollfd { fd, events, revents: 0 })
    }

    /// What was found.
    pub fn found(&self) -> i16 {
        self.0.revents
    }
}

/// Waits up to `timeout_ms` (-1: without end); returns how many descriptors have something. A signal ends the wait with
/// 0.
pub fn poll(fds: &mut [PollFd], timeout_ms: i32) -> io::Result<usize> {
    // SAFETY: `PollFd` is a transparent `pollfd`, and the kernel touches `fds.len()` of them.
    uninterrupted(unsafe { libc::poll(fds.as_mut_ptr().cast(), fds.len() as libc::nfds_t, timeout_ms) })
}

/// A set of descriptors below [`SELECT_LIMIT`].
#[derive(Clone, Copy)]
pub struct FdSet(libc::fd_set);

impl Default for FdSet {
    fn default() -> FdSet {
        // SAFETY: `fd_set` is a bit array, for which all zeroes is a value: the empty set.
        FdSet(unsafe { std::mem::zeroed() })
    }
}

impl FdSet {
    /// Adds a descriptor; false if its number is too high.
    pub fn insert(&mut self, fd: RawFd) -> bool {
        let fits = (0..SELECT_LIMIT).contains(&fd);
        if fits {
            // SAFETY: the number lies inside the set.
            unsafe { libc::FD_SET(fd, &mut self.0) };
        }
        fits
    }

    /// Whether a descriptor is in the set.
    pub fn contains(&self, fd: RawFd) -> bool {
        // SAFETY: the number lies inside the set.
        (0..SELECT_LIMIT).contains(&fd) && unsafe { libc::FD_ISSET(fd, &self.0) }
    }
}

/// Waits for descriptors below `limit` to become readable or writable; the sets are reduced to those that are.
pub fn select(limit: RawFd, read: &mut FdSet, write: &mut FdSet, timeout_ms: i32) -> io::Result<usize> {
    let ms = i64::from(timeout_ms.max(0));
    let mut time = libc::timeval { tv_sec: ms / 1000, tv_usec: ms % 1000 * 1000 };
    let time = if timeout_ms < 0 { std::ptr::null_mut() } else { &raw mut time };
    let limit = limit.min(SELECT_LIMIT);
    // SAFETY: the sets hold SELECT_LIMIT bits, at least `limit`; the time lives over the call.
    uninterrupted(unsafe { libc::select(limit, &mut read.0, &mut write.0, std::ptr::null_mut(), time) })
}

fn uninterrupted(result: i32) -> io::Result<usize> {
    match check(result) {
        Ok(n) => Ok(n as usize),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn both_see_the_same() {
        let (a, b) = std::os::unix::net::UnixStream::pair().expect("pair");
        crate::io::write(b.as_raw_fd(), b"x").expect("write");
        let mut fds = [PollFd::new(a.as_raw_fd(), IN | OUT), PollFd::new(b.as_raw_fd(), IN), PollFd::new(-1, IN)];
        assert_eq!(poll(&mut fds, 0).expect("poll"), 1);
        assert_eq!(fds.map(|f| f.found()), [IN | OUT, 0, 0]);
        let (mut read, mut write) = (FdSet::default(), FdSet::default());
        assert!(read.insert(a.as_raw_fd()) && read.insert(b.as_raw_fd()) && write.insert(a.as_raw_fd()));
        assert!(!read.insert(SELECT_LIMIT));
        assert_eq!(select(SELECT_LIMIT, &mut read, &mut write, 0).expect("select"), 2);
        assert!(read.contains(a.as_raw_fd()) && !read.contains(b.as_raw_fd()) && write.contains(a.as_raw_fd()));
    }
}
