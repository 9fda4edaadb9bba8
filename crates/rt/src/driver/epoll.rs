//! epoll: each connection is registered once, edge-triggered.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use os::epoll::{self, ET, EXCLUSIVE, IN, OUT, RDHUP};

use super::{Event, Kind, note};
use crate::slots::{Slot, flag};

/// How many events one wait takes.
const BATCH: usize = 512;

pub(crate) struct Epoll {
    epoll: epoll::Epoll,
    batch: Box<[epoll::Event]>,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Epoll> {
        Ok(Epoll { epoll: epoll::Epoll::new()?, batch: vec![epoll::Event::EMPTY; BATCH].into() })
    }

    pub(crate) fn open(&mut self, slot: u32, fd: BorrowedFd<'_>, kind: Kind) -> io::Result<()> {
        let bits = match kind {
            Kind::Stream | Kind::Other => IN | OUT | RDHUP | ET,
            Kind::Listener { exclusive: true } => IN | EXCLUSIVE,
            Kind::Listener { exclusive: false } => IN,
        };
        self.epoll.add(fd, bits, u64::from(slot))
    }

    /// Takes the descriptor out; closing alone wouldn't if another process has a copy.
    pub(crate) fn close(&mut self, slot: &Slot) {
        if slot.has(flag::COUNTED) && !slot.has(flag::LISTENER) || slot.has(flag::OWN) {
            return;
        }
        self.pause_fd(slot);
    }

    /// Takes a connection's descriptor out before it goes on elsewhere.
    pub(crate) fn detach(&mut self, slot: &Slot) {
        self.pause_fd(slot);
    }

    fn pause_fd(&mut self, slot: &Slot) {
        if let Some(fd) = &slot.fd {
            let _ = self.epoll.delete(fd.as_fd());
        }
    }

    pub(crate) fn pause(&mut self, slot: &mut Slot) {
        // While room is waited for each change is reported once, which does no harm.
        if slot.driver & (note::PAUSED | note::ROOM) == 0 {
            slot.driver |= note::PAUSED;
            self.pause_fd(slot);
        }
    }

    pub(crate) fn resume(&mut self, n: u32, slot: &mut Slot, exclusive: bool) {
        if slot.driver & note::PAUSED != 0 {
            slot.driver &= !note::PAUSED;
            if let Some(fd) = &slot.fd {
                let _ = self.open(n, fd.as_fd(), Kind::Listener { exclusive });
            }
        }
    }

    pub(crate) fn want_room(&mut self, n: u32, slot: &mut Slot) {
        if slot.driver & note::ROOM != 0 {
            return;
        }
        if slot.driver & note::PAUSED == 0 {
            self.pause_fd(slot);
        }
        slot.driver = slot.driver & !note::PAUSED | note::ROOM;
        if let Some(fd) = &slot.fd {
            let _ = self.epoll.add(fd.as_fd(), IN | OUT | ET, u64::from(n));
        }
    }

    pub(crate) fn end_room(&mut self, n: u32, slot: &mut Slot, exclusive: bool) {
        if slot.driver & note::ROOM == 0 {
            return;
        }
        slot.driver &= !note::ROOM;
        self.pause_fd(slot);
        if let Some(fd) = &slot.fd {
            let _ = self.open(n, fd.as_fd(), Kind::Listener { exclusive });
        }
    }

    pub(crate) fn wait(&mut self, timeout_ms: i32, events: &mut Vec<Event>) -> io::Result<()> {
        let n = self.epoll.wait(&mut self.batch, timeout_ms)?;
        events.extend(self.batch[..n].iter().map(|e| Event::Ready { slot: e.data() as u32, bits: bits(e.bits()) }));
        Ok(())
    }
}

/// What epoll reports, and io_uring's poll as well, as flags of a slot.
pub(super) fn bits(found: u32) -> u16 {
    found as u16 & flag::EVENTS
}
