//! The drivers: how the loop learns what its descriptors have.

mod epoll;
mod poll;
pub(crate) mod sim;
mod uring;

use std::cell::RefCell;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::clock::Clock;
use crate::core::{Driver, REMOTE};
use crate::slots::{Slot, Slots};
use crate::threads::Remote;

/// What a driver found.
pub(crate) enum Event {
    /// A descriptor has something; `bits` are those of [`crate::slots::flag`].
    Ready { slot: u32, bits: u16 },
}

/// What a descriptor is to the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A connection: changes are reported once.
    Stream,
    /// A socket of connections or datagrams to be taken: reported as long as there are any. `exclusive`: to one of the
    /// waiting processes.
    Listener { exclusive: bool },
    /// Anything else: changes are reported once.
    Other,
}

/// The driver in use.
pub(crate) enum Backend {
    Epoll(epoll::Epoll),
    Poll(poll::Poll),
    Select(poll::Select),
    Uring(Box<uring::Uring>),
    Sim(Box<sim::Sim>),
    Closed,
}

impl Backend {
    pub(crate) fn new(driver: Driver, remote: &Arc<Remote>) -> io::Result<Backend> {
        match driver {
            Driver::Epoll => Ok(Backend::Epoll(epoll::Epoll::new()?)),
            Driver::Poll => Ok(Backend::Poll(poll::Poll::default())),
            Driver::Select => Ok(Backend::Select(poll::Select::default())),
            Driver::Uring => Ok(Backend::Uring(Box::new(uring::Uring::new()?))),
            Driver::Sim(seed) => Ok(Backend::Sim(Box::new(sim::Sim::new(seed, remote.clone())))),
        }
    }

    /// Begins to watch a descriptor.
    pub(crate) fn open(&mut self, slot: u32, fd: BorrowedFd<'_>, kind: Kind) -> io::Result<()> {
        match self {
            Backend::Epoll(epoll) => epoll.open(slot, fd, kind),
            Backend::Poll(poll) => {
                poll.open(slot, fd);
                Ok(())
            }
            Backend::Select(select) => select.open(slot, fd),
            Backend::Uring(uring) => {
                uring.open(slot, fd, kind);
                Ok(())
            }
            Backend::Sim(_) if slot != REMOTE => Err(io::ErrorKind::Unsupported.into()),
            Backend::Sim(_) | Backend::Closed => Ok(()),
        }
    }

    /// Stops watching a slot that is about to be closed; whether its number has to be held until the kernel is done.
    pub(crate) fn close(&mut self, n: u32, slot: &mut Slot, clock: &Clock) -> bool {
        match self {
            Backend::Sim(sim) => sim.close(n, clock.now()),
            Backend::Uring(uring) => return uring.close(n),
            Backend::Epoll(epoll) => epoll.close(slot),
            Backend::Poll(_) | Backend::Select(_) | Backend::Closed => {}
        }
        false
    }

    /// Stops watching a slot whose descriptor lives on.
    pub(crate) fn detach(&mut self, n: u32, slots: &RefCell<Slots>, clock: &Clock) {
        match self {
            Backend::Uring(uring) => uring.detach(n, slots, clock),
            Backend::Epoll(epoll) => epoll.detach(slots.borrow_mut().at(n)),
            Backend::Sim(_) | Backend::Poll(_) | Backend::Select(_) | Backend::Closed => {}
        }
    }

    /// Stops reporting a listener until it is resumed.
    pub(crate) fn pause(&mut self, n: u32, slot: &mut Slot) {
        match self {
            Backend::Uring(uring) => uring.pause(n),
            Backend::Epoll(epoll) => epoll.pause(slot),
            Backend::Sim(_) | Backend::Poll(_) | Backend::Select(_) => slot.driver |= note::PAUSED,
            Backend::Closed => {}
        }
    }

    /// Reports a paused listener again.
    pub(crate) fn resume(&mut self, n: u32, slot: &mut Slot, exclusive: bool) {
        match self {
            Backend::Epoll(epoll) => epoll.resume(n, slot, exclusive),
            Backend::Uring(uring) => uring.resume(n, slot, exclusive),
            Backend::Poll(_) | Backend::Select(_) => slot.driver &= !note::PAUSED,
            Backend::Sim(sim) => {
                slot.driver &= !note::PAUSED;
                sim.resume(n);
            }
            Backend::Closed => {}
        }
    }

    /// Has a datagram socket reported once it can be written to. It isn't otherwise: the kernel would report each
    /// datagram that has left.
    pub(crate) fn want_room(&mut self, n: u32, slot: &mut Slot) {
        match self {
            Backend::Epoll(epoll) => epoll.want_room(n, slot),
            Backend::Uring(uring) => uring.want_room(n, slot),
            Backend::Sim(_) | Backend::Poll(_) | Backend::Select(_) | Backend::Closed => {}
        }
    }

    /// Nobody waits to write to it any more.
    pub(crate) fn end_room(&mut self, n: u32, slot: &mut Slot, exclusive: bool) {
        if let Backend::Epoll(epoll) = self {
            epoll.end_room(n, slot, exclusive);
        }
    }

    /// The simulation, if that is the driver.
    pub(crate) fn sim(&mut self) -> Option<&mut sim::Sim> {
        match self {
            Backend::Sim(sim) => Some(sim),
            _ => None,
        }
    }

    /// io_uring, if that is the driver.
    pub(crate) fn uring(&mut self) -> Option<&mut uring::Uring> {
        match self {
            Backend::Uring(uring) => Some(uring),
            _ => None,
        }
    }

    /// Waits up to `timeout_ms` (`u64::MAX`: without end) and appends what happened.
    pub(crate) fn wait(
        &mut self,
        slots: &RefCell<Slots>,
        clock: &Clock,
        timeout_ms: u64,
        events: &mut Vec<Event>,
    ) -> io::Result<()> {
        match self {
            Backend::Epoll(epoll) => epoll.wait(kernel_timeout(timeout_ms), events),
            Backend::Sim(sim) => sim.wait(clock, timeout_ms, events),
            Backend::Uring(uring) => uring.wait(slots, clock, timeout_ms, events),
            Backend::Poll(poll) => poll.wait(slots, kernel_timeout(timeout_ms), events),
            Backend::Select(select) => select.wait(slots, kernel_timeout(timeout_ms), events),
            Backend::Closed => Ok(()),
        }
    }
}

/// The kernel's form of a timeout.
fn kernel_timeout(ms: u64) -> i32 {
    if ms == u64::MAX { -1 } else { ms.min(i32::MAX as u64) as i32 }
}

/// What the drivers note in [`Slot::driver`].
mod note {
    /// A listener isn't watched.
    pub(super) const PAUSED: u16 = 1;
    /// A datagram socket is watched for room.
    pub(super) const ROOM: u16 = 2;
}
