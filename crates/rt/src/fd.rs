//! Other descriptors in the loop: channels, signals.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::Poll;

use os::signal::{Signal, SignalFd};

use crate::core::{self, Core};
use crate::driver::Kind;
use crate::slots::flag;

/// A nonblocking descriptor of any kind that can be waited for. It doesn't count as a connection.
pub struct AsyncFd<T> {
    inner: T,
    slot: u32,
    core: &'static Core,
}

impl<T: AsFd> AsyncFd<T> {
    /// Watches `inner`, which has to be nonblocking.
    pub fn new(inner: T) -> io::Result<AsyncFd<T>> {
        let core = core::current();
        // The slot has a descriptor of its own: the driver may need it longer than `inner` lives.
        let fd: OwnedFd = inner.as_fd().try_clone_to_owned()?;
        let slot = core.open(Some(fd), flag::READABLE | flag::WRITABLE, Kind::Other)?;
        Ok(AsyncFd { inner, slot, core })
    }

    /// What is watched.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// Calls `f`, which reads, until it has an answer other than `WouldBlock`; waits in between.
    pub async fn read<R>(&self, mut f: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        poll_fn(|_| self.poll(flag::READABLE, &mut f)).await
    }

    /// Calls `f`, which writes, until it has an answer other than `WouldBlock`; waits in between.
    pub async fn write<R>(&self, mut f: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        poll_fn(|_| self.poll(flag::WRITABLE, &mut f)).await
    }

    fn poll<R>(&self, bit: u16, f: &mut impl FnMut(&T) -> io::Result<R>) -> Poll<io::Result<R>> {
        let ready = |slot: &crate::slots::Slot| slot.has(bit | flag::HUP | flag::ERR);
        if ready(self.core.slots.borrow_mut().at(self.slot)) {
            if !self.core.tasks.spend() {
                return Poll::Pending;
            }
            match f(&self.inner) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                answer => return Poll::Ready(answer),
            }
        }
        let mut slots = self.core.slots.borrow_mut();
        let slot = slots.at(self.slot);
        slot.flags &= !(bit | flag::HUP | flag::ERR);
        let task = if bit == flag::READABLE { &mut slot.recv_task } else { &mut slot.send_task };
        *task = self.core.tasks.running();
        Poll::Pending
    }
}

impl<T> Drop for AsyncFd<T> {
    fn drop(&mut self) {
        self.core.close(self.slot);
    }
}

/// The signals that this process receives.
pub struct Signals {
    fd: AsyncFd<SignalFd>,
}

impl Signals {
    /// Collects these signals from now on (see [`SignalFd::new`]).
    pub fn new(signals: &[i32]) -> io::Result<Signals> {
        Ok(Signals { fd: AsyncFd::new(SignalFd::new(signals)?)? })
    }

    /// The next signal.
    pub async fn recv(&self) -> io::Result<Signal> {
        self.fd.read(|fd| fd.read()?.ok_or_else(|| io::ErrorKind::WouldBlock.into())).await
    }
}
