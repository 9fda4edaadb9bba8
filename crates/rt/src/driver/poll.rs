//! poll and select: what to wait for is read from the slots before each wait, and what has been found isn't asked for
//! again until the slot's owner has used it up.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use os::poll::{self, ERR, FdSet, HUP, IN, NVAL, OUT, PollFd, RDHUP, SELECT_LIMIT};

use super::{Event, note};
use crate::core::REMOTE;
use crate::slots::{Slot, Slots, flag};
use crate::tasks::NONE;

#[derive(Default)]
pub(crate) struct Poll {
    remote: Option<RawFd>,
    fds: Vec<PollFd>,
    slots: Vec<u32>,
}

impl Poll {
    pub(crate) fn open(&mut self, slot: u32, fd: BorrowedFd<'_>) {
        if slot == REMOTE {
            self.remote = Some(fd.as_raw_fd());
        }
    }

    pub(crate) fn wait(&mut self, slots: &RefCell<Slots>, timeout_ms: i32, events: &mut Vec<Event>) -> io::Result<()> {
        self.fds.clear();
        self.slots.clear();
        if let Some(fd) = self.remote {
            self.add(REMOTE, PollFd::new(fd, IN));
        }
        for (n, slot) in slots.borrow().iter() {
            let (Some(fd), wanted) = (&slot.fd, wanted(slot)) else { continue };
            if wanted != 0 {
                self.add(n, PollFd::new(fd.as_raw_fd(), wanted));
            }
        }
        poll::poll(&mut self.fds, timeout_ms)?;
        let found = self.fds.iter().zip(&self.slots).filter(|(fd, _)| fd.found() != 0);
        events.extend(found.map(|(fd, slot)| Event::Ready { slot: *slot, bits: bits(fd.found()) }));
        Ok(())
    }

    fn add(&mut self, slot: u32, fd: PollFd) {
        self.fds.push(fd);
        self.slots.push(slot);
    }
}

/// What to ask about a slot; 0: nothing.
fn wanted(slot: &Slot) -> i16 {
    let listens = slot.has(flag::LISTENER);
    let reads = if listens { slot.driver & note::PAUSED == 0 } else { !slot.has(flag::READABLE) };
    let writes = !slot.has(flag::WRITABLE)
        && (slot.send_task != NONE || slot.queues.as_ref().is_some_and(|q| !q.out.is_empty()));
    let hang = !slot.has(flag::GONE | flag::LISTENER);
    (if reads { IN } else { 0 }) | (if writes { OUT } else { 0 }) | (if hang { RDHUP } else { 0 })
}

fn bits(found: i16) -> u16 {
    let bit = |from: i16, to: u16| if found & from == 0 { 0 } else { to };
    // After HUP and ERR reading and writing tell what it was.
    bit(IN | HUP | ERR | NVAL, flag::READABLE)
        | bit(OUT | HUP | ERR | NVAL, flag::WRITABLE)
        | bit(RDHUP, flag::RDHUP)
        | bit(HUP, flag::HUP)
        | bit(ERR | NVAL, flag::ERR)
}

#[derive(Default)]
pub(crate) struct Select {
    remote: Option<RawFd>,
}

impl Select {
    pub(crate) fn open(&mut self, slot: u32, fd: BorrowedFd<'_>) -> io::Result<()> {
        let fd = fd.as_raw_fd();
        if fd >= SELECT_LIMIT {
            return Err(io::Error::other("the descriptor's number is too high for select"));
        }
        if slot == REMOTE {
            self.remote = Some(fd);
        }
        Ok(())
    }

    pub(crate) fn wait(&mut self, slots: &RefCell<Slots>, timeout_ms: i32, events: &mut Vec<Event>) -> io::Result<()> {
        let (mut read, mut write, mut limit) = (FdSet::default(), FdSet::default(), 0);
        let mut add = |set: &mut FdSet, fd: RawFd| {
            set.insert(fd);
            limit = limit.max(fd + 1);
        };
        if let Some(fd) = self.remote {
            add(&mut read, fd);
        }
        let mut look = false;
        for (_, slot) in slots.borrow().iter() {
            let (Some(fd), wanted) = (&slot.fd, wanted(slot)) else { continue };
            look |= needs_look(slot);
            if wanted & IN != 0 {
                add(&mut read, fd.as_raw_fd());
            }
            if wanted & OUT != 0 {
                add(&mut write, fd.as_raw_fd());
            }
        }
        let timeout_ms = if look { (timeout_ms as u32).min(LOOK_MS) as i32 } else { timeout_ms };
        if poll::select(limit, &mut read, &mut write, timeout_ms)? == 0 && !look {
            return Ok(());
        }
        if self.remote.is_some_and(|fd| read.contains(fd)) {
            events.push(Event::Ready { slot: REMOTE, bits: flag::READABLE });
        }
        for (n, slot) in slots.borrow().iter() {
            let Some(fd) = slot.fd.as_ref().map(|fd| fd.as_raw_fd()) else { continue };
            let mut bits = 0;
            if read.contains(fd) {
                bits |= flag::READABLE;
            }
            if slot.hang_task != NONE && (read.contains(fd) || needs_look(slot)) {
                bits |= gone(fd)?;
            }
            if write.contains(fd) {
                bits |= flag::WRITABLE;
            }
            if bits != 0 {
                events.push(Event::Ready { slot: n, bits });
            }
        }
        Ok(())
    }
}

/// How often it is looked whether the peer has gone, in milliseconds, where select can't tell.
const LOOK_MS: u32 = 50;

/// select doesn't tell the peer's end from data. While data waits unread and somebody waits for the end, a look from
/// time to time has to do.
fn needs_look(slot: &Slot) -> bool {
    slot.hang_task != NONE && slot.has(flag::READABLE)
}

fn gone(fd: RawFd) -> io::Result<u16> {
    let mut fds = [PollFd::new(fd, RDHUP)];
    poll::poll(&mut fds, 0)?;
    Ok(bits(fds[0].found()))
}
