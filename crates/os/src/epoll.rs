//! Readiness by epoll, and the eventfd by which another thread wakes the loop.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::check;

/// Ready to read.
pub const IN: u32 = libc::EPOLLIN as u32;
/// Ready to write.
pub const OUT: u32 = libc::EPOLLOUT as u32;
/// The peer has closed its side.
pub const RDHUP: u32 = libc::EPOLLRDHUP as u32;
/// Both sides are closed.
pub const HUP: u32 = libc::EPOLLHUP as u32;
/// An error waits at the socket.
pub const ERR: u32 = libc::EPOLLERR as u32;
/// Report changes only.
pub const ET: u32 = libc::EPOLLET as u32;
/// Of several waiting processes wake one.
pub const EXCLUSIVE: u32 = libc::EPOLLEXCLUSIVE as u32;

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
}

/// One reported event: what happened, and the number given at registration.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Event(libc::epoll_event);

impl Event {
    /// A place for an event.
    pub const EMPTY: Event = Event(libc::epoll_event { events: 0, u64: 0 });

    /// The bits [`IN`], [`OUT`] and so on.
    pub fn bits(&self) -> u32 {
        self.0.events
    }

    /// The number given at registration.
    pub fn data(&self) -> u64 {
        self.0.u64
    }
}

impl Epoll {
    /// A new instance, closed on exec.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: no memory is involved; a descriptor that isn't -1 is new and ours.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Epoll { fd })
    }

    /// Registers a descriptor.
    pub fn add(&self, fd: BorrowedFd<'_>, bits: u32, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, bits, data)
    }

    /// Takes a descriptor out.
    pub fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    fn control(&self, op: i32, fd: BorrowedFd<'_>, bits: u32, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: bits, u64: data };
        // SAFETY: both descriptors are open, `event` lives over the call.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), op, fd.as_raw_fd(), &mut event) }).map(drop)
    }

    /// Waits up to `timeout_ms` (-1: without end) and returns how many of `events` were filled. A signal ends the wait
    /// with 0.
    pub fn wait(&self, events: &mut [Event], timeout_ms: i32) -> io::Result<usize> {
        let (start, len) = (events.as_mut_ptr().cast::<libc::epoll_event>(), events.len() as i32);
        // SAFETY: `Event` is a transparent `epoll_event`, and the kernel fills at most `len` of them.
        match check(unsafe { libc::epoll_wait(self.fd.as_raw_fd(), start, len, timeout_ms) }) {
            Ok(n) => Ok(n as usize),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(e) => Err(e),
        }
    }
}

/// A descriptor that becomes readable when it is woken.
#[derive(Debug)]
pub struct Wake {
    fd: OwnedFd,
}

impl Wake {
    /// A new one, nonblocking and closed on exec.
    pub fn new() -> io::Result<Wake> {
        // SAFETY: no memory is involved; a descriptor that isn't -1 is new and ours.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?) };
        Ok(Wake { fd })
    }

    /// Makes it readable; from any thread.
    pub fn wake(&self) {
        // An overflowing counter is readable already.
        let _ = crate::io::write(self.raw(), &1u64.to_ne_bytes());
    }

    /// Makes it unreadable again.
    pub fn clear(&self) {
        let _ = crate::io::read(self.raw(), &mut [0; 8]);
    }

    fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl std::os::fd::AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn reports_a_wake_once() {
        let (epoll, wake) = (Epoll::new().expect("epoll"), Wake::new().expect("eventfd"));
        epoll.add(wake.as_fd(), IN | ET, 7).expect("add");
        let mut events = [Event::EMPTY; 4];
        assert_eq!(epoll.wait(&mut events, 0).expect("wait"), 0);
        wake.wake();
        assert_eq!(epoll.wait(&mut events, 0).expect("wait"), 1);
        assert_eq!((events[0].bits(), events[0].data()), (IN, 7));
        assert_eq!(epoll.wait(&mut events, 0).expect("wait"), 0);
        wake.clear();
        epoll.delete(wake.as_fd()).expect("delete");
    }
}
