//! Accepting connections.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::Poll;

use os::SockAddr;
use os::socket;

use crate::core::{self, Core, Counts, Report};
use crate::driver::{Event, Kind};
use crate::slots::flag;
use crate::tasks::NONE;
use crate::{Stream, sleep};

/// How a listener accepts.
#[derive(Clone, Copy, Debug, Default)]
pub struct AcceptOptions {
    /// Of the processes that share the socket one is woken for a connection (EPOLLEXCLUSIVE); for several workers
    /// without `accept_mutex`.
    pub exclusive: bool,
    /// Take all waiting connections at once instead of one a turn.
    pub multi_accept: bool,
    /// Accept only while this process holds the lock of [`set_accept_mutex`].
    pub mutex: bool,
    /// Data is there when a connection is (TCP_DEFER_ACCEPT): read at once.
    pub deferred: bool,
    /// How long to stop after running out of descriptors (`accept_mutex_delay`); 0 stands for 500 ms.
    pub delay_ms: u64,
}

/// A lock that the workers share: who has it accepts.
pub trait AcceptLock {
    /// Takes the lock if it is free.
    fn try_lock(&self) -> bool;
    /// Gives it back.
    fn unlock(&self);
}

/// The lock in use, and who has it.
pub(crate) struct Mutex {
    lock: Rc<dyn AcceptLock>,
    delay_ms: u64,
    listeners: Vec<u32>,
    accepting: bool,
    held: bool,
    /// How many turns this process leaves to the others.
    step_back: usize,
}

/// From now on accept, on listeners that ask for it, only while `lock` is held; a process that didn't get it tries
/// again after `delay_ms` at the latest. With it goes nginx's rule that a process with fewer than an eighth of its
/// connections free leaves the lock to others for as many turns as it lacks connections; those that say nothing or are
/// idle don't count as lacking, since they make room.
pub fn set_accept_mutex(lock: Rc<dyn AcceptLock>, delay_ms: u64) {
    let mutex = Mutex { lock, delay_ms, listeners: Vec::new(), accepting: true, held: false, step_back: 0 };
    core::current().mutex.replace(Some(mutex));
}

/// A listening socket.
pub struct Listener {
    slot: u32,
    core: &'static Core,
    options: AcceptOptions,
    /// Accepting has been stopped by the owner.
    paused: Cell<bool>,
}

impl Listener {
    /// Makes an open, listening, nonblocking socket a listener.
    pub fn new(fd: OwnedFd, options: AcceptOptions) -> io::Result<Listener> {
        let core = core::current();
        let kind = Kind::Listener { exclusive: options.exclusive && !options.mutex };
        let slot = core.open(Some(fd), flag::LISTENER | flag::COUNTED, kind)?;
        if options.mutex
            && let Some(mutex) = core.mutex.borrow_mut().as_mut()
        {
            mutex.listeners.push(slot);
            if !mutex.accepting {
                core.backend.borrow_mut().pause(slot, core.slots.borrow_mut().at(slot));
            }
        }
        Ok(Listener { slot, core, options, paused: Cell::new(false) })
    }

    /// A listener of the sim driver.
    pub(crate) fn open_sim(addr: SockAddr) -> Listener {
        let core = core::current();
        let slot = core.open(None, flag::LISTENER | flag::COUNTED, Kind::Listener { exclusive: false });
        let slot = slot.expect("there is nothing to watch");
        core.sim(|sim| sim.listen(slot, addr));
        Listener {
            slot,
            core,
            options: AcceptOptions { multi_accept: true, ..AcceptOptions::default() },
            paused: Cell::new(false),
        }
    }

    /// The next connection. Passing failures are reported to the hook and not returned; an error means that the
    /// listener is of no more use.
    pub async fn accept(&self) -> io::Result<(Stream, SockAddr)> {
        let mut waited = 0;
        loop {
            poll_fn(|_| self.poll_ready()).await;
            let fd = self.core.slots.borrow_mut().at(self.slot).fd.as_ref().map_or(-1, |fd| fd.as_raw_fd());
            let full = !self.core.make_room();
            if full && self.core.room_may_come(waited) {
                waited += 1;
                crate::yield_now().await;
                continue;
            }
            if self.core.is_sim {
                match self.core.sim(|sim| sim.accept(self.slot)) {
                    Some((end, _)) if full => {
                        self.core.sim(|sim| sim.reject(end, self.core.clock.now()));
                        core::report(Report::NotEnoughConnections(self.core.limit));
                    }
                    Some((end, addr)) => {
                        return Ok((Stream::open_sim(end, flag::ACCEPTED | flag::WRITABLE | flag::READABLE), addr));
                    }
                    None => self.core.slots.borrow_mut().at(self.slot).flags &= !flag::READABLE,
                }
                continue;
            }
            match socket::accept(fd) {
                Ok(accepted) if full => {
                    self.accepted();
                    drop(accepted);
                    core::report(Report::NotEnoughConnections(self.core.limit));
                }
                Ok((fd, addr)) => {
                    self.accepted();
                    // Under epoll the first request is looked for before anything is registered: mostly it is there.
                    let ready = match (self.core.watches_late(), self.options.deferred) {
                        (true, _) => flag::READABLE | flag::UNWATCHED,
                        (false, true) => flag::READABLE,
                        (false, false) => 0,
                    };
                    match Stream::open(fd, flag::ACCEPTED | flag::WRITABLE | ready) {
                        Ok(stream) => return Ok((stream, addr)),
                        // Such as a descriptor whose number is too high for select.
                        Err(error) => core::report(Report::Accept { error: &error, paused: false }),
                    }
                }
                Err(error) => self.failed(error).await?,
            }
        }
    }

    fn poll_ready(&self) -> Poll<()> {
        let mut slots = self.core.slots.borrow_mut();
        let slot = slots.at(self.slot);
        if self.paused.get() {
            slot.recv_task = NONE;
            return Poll::Pending;
        }
        if slot.has(flag::READABLE | flag::GONE) && self.core.tasks.spend() {
            return Poll::Ready(());
        }
        slot.recv_task = self.core.tasks.running();
        let waits_for_lock = self.options.mutex && self.core.mutex.borrow().as_ref().is_some_and(|m| !m.accepting);
        if !waits_for_lock {
            self.core.backend.borrow_mut().resume(self.slot, slot, self.options.exclusive && !self.options.mutex);
        }
        Poll::Pending
    }

    /// One connection is taken: others wait for the next turn, unless all are to be taken at once.
    fn accepted(&self) {
        if !self.options.multi_accept {
            self.core.slots.borrow_mut().at(self.slot).flags &= !flag::READABLE;
        }
        if let Some(mutex) = self.core.mutex.borrow_mut().as_mut() {
            mutex.step_back = self.core.lacks();
        }
    }

    async fn failed(&self, error: io::Error) -> io::Result<()> {
        self.core.slots.borrow_mut().at(self.slot).flags &= !flag::READABLE;
        match error.raw_os_error() {
            Some(AGAIN | CONNABORTED | INTR) => Ok(()),
            Some(MFILE | NFILE | NOBUFS | NOMEM) => {
                core::report(Report::Accept { error: &error, paused: true });
                self.core.backend.borrow_mut().pause(self.slot, self.core.slots.borrow_mut().at(self.slot));
                sleep(if self.options.delay_ms == 0 { 500 } else { self.options.delay_ms }).await;
                Ok(())
            }
            Some(BADF | INVAL | NOTSOCK | OPNOTSUPP) => Err(error),
            _ => {
                core::report(Report::Accept { error: &error, paused: false });
                Ok(())
            }
        }
    }

    /// Stops accepting, or goes on; connections queue up in the kernel meanwhile.
    pub fn pause(&self, paused: bool) {
        self.paused.set(paused);
        let mut slots = self.core.slots.borrow_mut();
        let slot = slots.at(self.slot);
        let task = std::mem::replace(&mut slot.recv_task, NONE);
        if paused {
            self.core.backend.borrow_mut().pause(self.slot, slot);
        }
        if task != NONE {
            self.core.tasks.wake(task);
        }
    }

    /// The socket's address.
    pub fn local_addr(&self) -> io::Result<SockAddr> {
        if self.core.is_sim {
            return Ok(self.core.sim(|sim| sim.addresses(self.slot).0));
        }
        socket::local_addr(self.core.slots.borrow_mut().at(self.slot).fd.as_ref().map_or(-1, |fd| fd.as_raw_fd()))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(mutex) = self.core.mutex.borrow_mut().as_mut() {
            mutex.listeners.retain(|slot| *slot != self.slot);
        }
        self.core.close(self.slot);
    }
}

impl Core {
    /// How many connections are missing to an eighth that are free, or whose places may be had: of those that say nothing
    /// or are idle. Were they not counted, such connections at all workers would keep everybody out for many turns.
    fn lacks(&self) -> usize {
        let Counts { free, idle, .. } = self.counts();
        let expected = self.slots.borrow().evicted;
        (self.limit / 8).saturating_sub(free + idle + expected)
    }

    /// Before a wait: tries to get the lock; whether this process holds it, and the longest wait.
    pub(crate) fn lock_accept(&self) -> (bool, u64) {
        let mut mutex = self.mutex.borrow_mut();
        let Some(mutex) = mutex.as_mut().filter(|m| !m.listeners.is_empty()) else { return (false, u64::MAX) };
        // Places that have become free since count.
        mutex.step_back = mutex.step_back.min(self.lacks());
        mutex.held = if mutex.step_back > 0 {
            mutex.step_back -= 1;
            false
        } else {
            // Who has no place left, and nobody idle to take one from, would only close what it accepts.
            let counts = self.counts();
            let full = counts.free == 0 && counts.idle == 0 && !self.expects_room();
            !full && mutex.lock.try_lock()
        };
        if mutex.held != mutex.accepting {
            mutex.accepting = mutex.held;
            let (mut slots, mut backend) = (self.slots.borrow_mut(), self.backend.borrow_mut());
            for n in &mutex.listeners {
                let slot = slots.at(*n);
                if !mutex.held {
                    backend.pause(*n, slot);
                } else if slot.recv_task != NONE {
                    backend.resume(*n, slot, false);
                }
            }
        }
        (mutex.held, if mutex.held { u64::MAX } else { mutex.delay_ms })
    }

    /// Accepts before anything else is done, so that the lock is soon free for others.
    pub(crate) fn accept_first(&self, events: &mut [Event]) {
        for event in events {
            #[allow(irrefutable_let_patterns)]
            if let Event::Ready { slot, bits } = event
                && self.slots.borrow().get(*slot).is_some_and(|s| s.has(flag::LISTENER))
            {
                self.ready(*slot, std::mem::take(bits));
            }
        }
        if let Some(mutex) = self.mutex.borrow_mut().as_mut().filter(|m| m.held) {
            mutex.held = false;
            mutex.lock.unlock();
        }
    }
}

const AGAIN: i32 = 11;
const INTR: i32 = 4;
const BADF: i32 = 9;
const NOMEM: i32 = 12;
const INVAL: i32 = 22;
const NFILE: i32 = 23;
const MFILE: i32 = 24;
const NOTSOCK: i32 = 88;
const OPNOTSUPP: i32 = 95;
const CONNABORTED: i32 = 103;
const NOBUFS: i32 = 105;
