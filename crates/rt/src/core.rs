//! The runtime: what the loop consists of, and its turn.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use crate::clock::{Clock, Source};
use crate::connect::ConnectError;
use crate::driver::sim::Sim;
use crate::driver::{Backend, Event, Kind};
use crate::listener::Mutex;
use crate::random::Stock;
use crate::slots::{Slot, Slots, flag};
use crate::tasks::{NONE, Tasks};
use crate::threads::Remote;
use crate::timers::{Owner, Tick, Timers};

/// How the kernel is asked which connections have something: the method of `use`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// epoll, edge-triggered.
    #[default]
    Epoll,
    /// poll.
    Poll,
    /// select: descriptors below 1024 only.
    Select,
    /// io_uring.
    Uring,
    /// A network in memory with a virtual clock, driven by this seed.
    Sim(u64),
}

/// How a runtime is set up.
#[derive(Clone, Default)]
pub struct Options {
    /// The method.
    pub driver: Driver,
    /// `worker_connections`; 0 stands for 512, and 4 million are the most.
    pub connections: usize,
    /// `timer_resolution`: unless 0, the clocks move on only once in so many milliseconds, and deadlines with them.
    pub timer_resolution_ms: u32,
    /// Is told what deserves a log line.
    pub hook: Option<Hook>,
    /// Numbers connections; without it they count from 1.
    pub serial: Option<Rc<dyn Fn() -> u64>>,
}

/// What is called with reports.
pub type Hook = Rc<dyn Fn(Report<'_>)>;

/// What happened that deserves a log line.
#[derive(Debug)]
pub enum Report<'a> {
    /// A task panicked, and was dropped; what it said.
    Panic(&'a str),
    /// A connection couldn't be accepted; `paused`: no descriptors are left, and the listener waits a while.
    Accept {
        /// Why.
        error: &'a io::Error,
        /// Whether accepting stopped for `accept_mutex_delay`.
        paused: bool,
    },
    /// Of this many `worker_connections` fewer than a sixteenth are free: silent and idle ones are asked to close.
    /// Reported once a second at most.
    ReusingConnections(usize),
    /// All of this many `worker_connections` are in use, and none is idle.
    NotEnoughConnections(usize),
    /// The driver failed; the loop goes on.
    Driver(&'a io::Error),
}

/// The number of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// In use: clients, backends and listeners.
    pub active: usize,
    /// Of these, idle, or silent so far.
    pub idle: usize,
    /// Left.
    pub free: usize,
}

/// The event loop of this thread.
pub struct Runtime {
    core: &'static Core,
}

pub(crate) struct Core {
    pub(crate) tasks: Tasks,
    pub(crate) slots: RefCell<Slots>,
    pub(crate) timers: RefCell<Timers>,
    pub(crate) clock: Clock,
    pub(crate) backend: RefCell<Backend>,
    /// Connections with more to write than one turn's share.
    pub(crate) flush: RefCell<Vec<u32>>,
    /// The layers of connections that have one, by slot.
    pub(crate) layers: RefCell<Vec<Option<Box<crate::layer::Layered>>>>,
    /// Memory for calls that receive and send datagrams, once there was one.
    pub(crate) datagrams: RefCell<Option<Box<os::datagram::Batch>>>,
    pub(crate) mutex: RefCell<Option<Mutex>>,
    /// Random bytes that the kernel has given.
    pub(crate) random: RefCell<Stock>,
    /// None once the runtime has ended.
    remote: RefCell<Option<Arc<Remote>>>,
    pub(crate) limit: usize,
    /// The driver is io_uring.
    pub(crate) ring: bool,
    /// The driver is the simulation.
    pub(crate) is_sim: bool,
    events: RefCell<Vec<Event>>,
    serial: Cell<u64>,
    /// How often it has waited for events.
    turns: Cell<u64>,
    /// The second in which reusing connections was last reported.
    reported: Cell<u64>,
    timer_resolution_ms: u32,
    /// None once the runtime has ended.
    hook: RefCell<Option<Hook>>,
    /// Numbers connections; none once the runtime has ended.
    numbers: RefCell<Option<Rc<dyn Fn() -> u64>>>,
}

thread_local! {
    static CURRENT: Cell<Option<&'static Core>> = const { Cell::new(None) };
}

/// The thread's runtime.
pub(crate) fn current() -> &'static Core {
    CURRENT.get().expect("a runtime has been made on this thread")
}

pub(crate) fn try_current() -> Option<&'static Core> {
    CURRENT.get()
}

pub(crate) fn forget() {
    if let Some(core) = CURRENT.take() {
        core.backend.replace(Backend::Closed);
    }
}

/// Tells the hook.
pub(crate) fn report(report: Report<'_>) {
    if let Some(hook) = try_current().and_then(|core| core.hook.borrow().clone()) {
        hook(report);
    }
}

impl Runtime {
    /// Makes the thread's runtime; an error if the kernel refuses the driver.
    ///
    /// # Panics
    /// If the thread has one already.
    pub fn new(options: Options) -> io::Result<Runtime> {
        assert!(CURRENT.get().is_none(), "a thread has one runtime");
        let limit = if options.connections == 0 { 512 } else { options.connections };
        if limit > MAX_CONNECTIONS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many worker_connections"));
        }
        let remote = Arc::new(Remote::new()?);
        let source = match (options.driver, options.timer_resolution_ms) {
            (Driver::Sim(_), _) => Source::Virtual,
            (_, 0) => Source::Exact,
            (_, ms) => Source::Every(ms),
        };
        let mut backend = Backend::new(options.driver, &remote)?;
        backend.open(REMOTE, remote.as_fd(), Kind::Other)?;
        // It lives as long as the thread may hold connections and wakers, which is to say for ever; what it holds is
        // freed by `Runtime::drop`.
        let core: &'static Core = Box::leak(Box::new(Core {
            tasks: Tasks::new(limit),
            slots: RefCell::new(Slots::new(limit)),
            timers: RefCell::new(Timers::new(limit)),
            clock: Clock::new(source),
            backend: RefCell::new(backend),
            flush: RefCell::default(),
            layers: RefCell::default(),
            datagrams: RefCell::default(),
            mutex: RefCell::default(),
            random: RefCell::default(),
            remote: RefCell::new(Some(remote)),
            limit,
            is_sim: matches!(options.driver, Driver::Sim(_)),
            ring: options.driver == Driver::Uring,
            events: RefCell::default(),
            serial: Cell::new(0),
            turns: Cell::new(0),
            reported: Cell::new(0),
            timer_resolution_ms: options.timer_resolution_ms,
            hook: RefCell::new(options.hook),
            numbers: RefCell::new(options.serial),
        }));
        CURRENT.set(Some(core));
        Ok(Runtime { core })
    }

    /// Runs the loop until the future is done.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.block_on_and_look(future, || {})
    }

    /// The same; `look` is called after each turn of the loop, while no task runs.
    pub fn block_on_and_look<F: Future>(&self, future: F, mut look: impl FnMut()) -> F::Output {
        let mut future = pin!(future);
        self.core.clock.update();
        self.core.tasks.wake_root();
        loop {
            if let Poll::Ready(output) = self.core.tasks.run_root(future.as_mut()) {
                return output;
            }
            self.core.turn();
            look();
        }
    }

    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.core.tasks.live()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if CURRENT.get().is_some_and(|core| std::ptr::eq(core, self.core)) {
            self.core.tasks.clear();
            forget();
            self.core.give_back();
        }
    }
}

/// The numbers of slots have to fit into the keys of timers, those of channels and the like included.
pub const MAX_CONNECTIONS: usize = 4 << 20;

/// The slot number that stands for the queue of other threads.
pub(crate) const REMOTE: u32 = NONE;

impl Core {
    /// Frees the tables of a runtime that has ended. A handle that is left finds its slot gone, and closes nothing.
    fn give_back(&self) {
        self.tasks.give_back();
        self.slots.replace(Slots::new(0));
        self.timers.replace(Timers::new(0));
        self.layers.take();
        self.remote.take();
        self.hook.take();
        self.numbers.take();
        self.flush.take();
        self.events.take();
    }

    // A program runs the loop at one place for almost all of its life.
    #[inline(always)]
    fn turn(&self) {
        self.tasks.run_queue();
        self.flush_more();
        self.slots.borrow_mut().next_turn();
        let (locked, longest_ms) = self.lock_accept();
        let timeout = self.timeout().min(longest_ms);
        let mut events = self.events.borrow_mut();
        let waited = self.backend.borrow_mut().wait(&self.slots, &self.clock, timeout, &mut events);
        self.turns.set(self.turns.get() + 1);
        self.clock.update();
        if let Err(error) = &waited {
            report(Report::Driver(error));
        }
        self.mark(&events);
        if locked {
            self.accept_first(&mut events);
        }
        for event in events.drain(..) {
            self.handle(event);
        }
        drop(events);
        self.run_timers();
    }

    /// Counts the turns of the loop.
    pub(crate) fn turn_number(&self) -> u64 {
        self.turns.get()
    }

    /// Milliseconds until something is due.
    fn timeout(&self) -> u64 {
        if self.tasks.has_work() || !self.flush.borrow().is_empty() {
            return 0;
        }
        let next = self.timers.borrow().next();
        // The clock stands still for `timer_resolution`: nothing can come up before.
        let resolution = u64::from(self.timer_resolution_ms);
        next.map_or(u64::MAX, |at| at.saturating_sub(self.clock.now()).max(resolution))
    }

    /// Takes down what is known now, before any task is polled: one that uses up what a later event tells of isn't told again.
    fn mark(&self, events: &[Event]) {
        let mut slots = self.slots.borrow_mut();
        for Event::Ready { slot, bits } in events {
            if let Some(slot) = slots.get_mut(*slot) {
                slot.flags |= bits & flag::EVENTS;
            }
        }
    }

    fn handle(&self, event: Event) {
        match event {
            Event::Ready { slot: REMOTE, .. } => {
                self.remote().take().into_iter().for_each(|task| self.tasks.run(task));
            }
            Event::Ready { slot, bits } => self.ready(slot, bits),
        }
    }

    /// The queue by which other threads reach this one.
    pub(crate) fn remote(&self) -> Arc<Remote> {
        self.remote.borrow().clone().expect("a runtime that runs has its queue")
    }

    /// A descriptor has something, which is marked: polls the tasks that wait for it.
    pub(crate) fn ready(&self, n: u32, bits: u16) {
        let [recv, send, hang] = {
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.get_mut(n) else { return };
            let bits = bits & slot.flags;
            if slot.has(flag::LISTENER) && slot.recv_task == NONE {
                self.backend.borrow_mut().pause(n, slot);
            }
            let take = |task: &mut u32, of: u16| if bits & of == 0 { NONE } else { std::mem::replace(task, NONE) };
            let recv = take(&mut slot.recv_task, flag::READABLE | flag::GONE);
            let hang = take(&mut slot.hang_task, flag::GONE);
            let writable = bits & (flag::WRITABLE | flag::HUP | flag::ERR) != 0;
            let send = if writable { self.write_on(n, slot) } else { NONE };
            [recv, send, hang]
        };
        self.run_each([recv, send, hang]);
    }

    /// Polls tasks, each once.
    fn run_each(&self, [a, b, c]: [u32; 3]) {
        if a != NONE {
            self.tasks.run(a);
        }
        if b != NONE && b != a {
            self.tasks.run(b);
        }
        if c != NONE && c != a && c != b {
            self.tasks.run(c);
        }
    }

    /// Goes on with the writing of those who had more than their share.
    fn flush_more(&self) {
        if self.flush.borrow().is_empty() {
            return;
        }
        let queue = self.flush.take();
        for n in queue {
            let task = {
                let mut slots = self.slots.borrow_mut();
                let Some(slot) = slots.get_mut(n) else { continue };
                slot.flags &= !flag::FLUSHING;
                self.write_on(n, slot)
            };
            self.run_each([task, NONE, NONE]);
        }
    }

    fn run_timers(&self) {
        let now = self.clock.now();
        loop {
            let Some((deadline, owner)) = self.timers.borrow_mut().pop(now) else { return };
            match owner {
                Owner::Slot(n) => self.slot_timer(n, deadline),
                Owner::Sleep(n) => {
                    let task = self.timers.borrow_mut().end_sleep(n, deadline);
                    if let Some(task) = task {
                        self.tasks.run(task);
                    }
                }
            }
        }
    }

    /// A connection's key came up: its deadlines may have moved meanwhile.
    fn slot_timer(&self, n: u32, deadline: u64) {
        let now = self.clock.now();
        let [recv, send] = {
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.get_mut(n).filter(|slot| slot.armed == Tick::at(deadline)) else { return };
            slot.armed = Tick::NONE;
            let take = |task: &mut u32, at: Tick| if at.passed(now) { std::mem::replace(task, NONE) } else { NONE };
            let tasks = [take(&mut slot.recv_task, slot.recv_deadline), take(&mut slot.send_task, slot.send_deadline)];
            self.arm(n, slot);
            tasks
        };
        self.run_each([recv, send, NONE]);
    }

    /// Sees to it that the heap has a key no later than the slot's first deadline that somebody waits for.
    pub(crate) fn arm(&self, n: u32, slot: &mut Slot) {
        let recv = if slot.recv_task == NONE { Tick::NONE } else { slot.recv_deadline };
        let send = if slot.send_task == NONE { Tick::NONE } else { slot.send_deadline };
        let want = recv.earlier(send);
        if !want.is_some() || (slot.armed.is_some() && !want.is_before(slot.armed)) {
            return;
        }
        let mut timers = self.timers.borrow_mut();
        if slot.armed.is_some() {
            // Its old key is dead; the slots are borrowed here, so a sweep waits for the next death.
            timers.died();
        }
        let at = want.expand(self.clock.now());
        slot.armed = Tick::at(at);
        timers.push(at, Owner::Slot(n));
    }

    /// Throws dead keys out of the heap.
    pub(crate) fn sweep_timers(&self) {
        let slots = self.slots.borrow();
        let alive = |at, n| slots.get(n).is_some_and(|slot| slot.armed == Tick::at(at));
        self.timers.borrow_mut().sweep(alive);
    }

    /// Gives an open descriptor a slot.
    pub(crate) fn open(&self, fd: Option<OwnedFd>, flags: u16, kind: Kind) -> io::Result<u32> {
        let counted = flags & flag::COUNTED != 0;
        let number = if counted && flags & flag::LISTENER == 0 { self.next_number() } else { 0 };
        self.open_numbered(fd, flags, kind, number)
    }

    /// The same for a connection that has a number.
    pub(crate) fn open_numbered(&self, fd: Option<OwnedFd>, flags: u16, kind: Kind, number: u64) -> io::Result<u32> {
        let mut slots = self.slots.borrow_mut();
        let n = slots.insert(fd, flags, number);
        let slot = slots.at(n);
        let Some(fd) = &slot.fd else { return Ok(n) };
        if flags & flag::UNWATCHED != 0 {
            return Ok(n);
        }
        let opened = self.backend.borrow_mut().open(n, fd.as_fd(), kind);
        if let Err(error) = opened {
            slots.remove(n, false);
            return Err(error);
        }
        Ok(n)
    }

    /// Whether events tell of errors.
    pub(crate) fn tells_errors(&self) -> bool {
        !matches!(*self.backend.borrow(), Backend::Select(_))
    }

    /// Whether registering a connection is a system call of its own, worth putting off.
    pub(crate) fn watches_late(&self) -> bool {
        matches!(*self.backend.borrow(), Backend::Epoll(_))
    }

    /// Registers a connection with the driver, now that something has to be waited for. One that is answered and closed
    /// without a wait never costs the call.
    pub(crate) fn watch(&self, n: u32, slot: &mut Slot) -> io::Result<()> {
        if !slot.has(flag::UNWATCHED) {
            return Ok(());
        }
        slot.flags &= !flag::UNWATCHED;
        let Some(fd) = &slot.fd else { return Ok(()) };
        self.backend.borrow_mut().open(n, fd.as_fd(), Kind::Stream)
    }

    /// Closes a slot; returns its descriptor.
    pub(crate) fn close(&self, n: u32) -> Option<OwnedFd> {
        let mut slots = self.slots.borrow_mut();
        let hold = self.backend.borrow_mut().close(n, slots.get_mut(n)?, &self.clock);
        let (mut fd, armed) = slots.remove(n, hold)?;
        drop(slots);
        if hold && let Some(uring) = self.backend.borrow_mut().uring() {
            uring.keep(n, fd.take());
        }
        if armed.is_some() && self.timers.borrow_mut().died() {
            self.sweep_timers();
        }
        fd
    }

    pub(crate) fn next_number(&self) -> u64 {
        match &*self.numbers.borrow() {
            Some(next) => next(),
            None => {
                self.serial.set(self.serial.get() + 1);
                self.serial.get()
            }
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let slots = self.slots.borrow();
        let active = slots.counted;
        Counts { active, idle: slots.idle, free: self.limit.saturating_sub(active) }
    }

    /// Makes room if it gets tight: when fewer than a sixteenth of the connections are free, some of those that say
    /// nothing or are idle are asked to close. Returns whether a connection is free now.
    pub(crate) fn make_room(&self) -> bool {
        let counts = self.counts();
        let expected = self.slots.borrow().evicted;
        if counts.free + expected > self.limit / 16 {
            return counts.free > 0;
        }
        let second = self.clock.now() / 1000;
        if counts.idle > 0 && self.reported.replace(second) != second {
            report(Report::ReusingConnections(self.limit));
        }
        if counts.idle > 0 {
            self.close_oldest();
        }
        counts.free > 0
    }

    /// Waits for the place of a connection that is to be made from here: a turn or a few, if somebody may leave one. An
    /// error, which is reported: all are in use.
    pub(crate) async fn place(&self) -> Result<(), ConnectError> {
        let mut waited = 0;
        while !self.make_room() {
            if !self.room_may_come(waited) {
                report(Report::NotEnoughConnections(self.limit));
                return Err(ConnectError::Full);
            }
            waited += 1;
            crate::yield_now().await;
        }
        Ok(())
    }

    /// Asks an eighth of those that say nothing or are idle to close, 32 at most.
    pub(crate) fn close_oldest(&self) {
        self.look();
        let mut slots = self.slots.borrow_mut();
        let count = (slots.idle / 8).clamp(1, 32);
        let tasks = slots.evict_oldest(count, self.clock.now());
        drop(slots);
        tasks.into_iter().for_each(|task| self.tasks.wake(task));
    }

    /// Whether who was asked to close, or accepted and not yet polled, is worth another turn's wait.
    pub(crate) fn room_may_come(&self, waited: u32) -> bool {
        waited < if self.expects_room() { 8 } else { 1 }
    }

    /// Whether somebody was asked to close and may soon leave a place.
    pub(crate) fn expects_room(&self) -> bool {
        self.slots.borrow().evicted > 0
    }

    /// Ends all connections that were accepted: their reading, writing and waiting fails; and the receiving by datagram
    /// sockets that were connected, which may be for sessions of clients.
    pub(crate) fn close_accepted(&self) {
        let mut tasks = Vec::new();
        let mut slots = self.slots.borrow_mut();
        for slot in slots.iter_mut().filter(|slot| slot.has(flag::ACCEPTED)) {
            slot.flags |= flag::ENDED | flag::RDHUP;
            for task in [&mut slot.recv_task, &mut slot.send_task, &mut slot.hang_task] {
                tasks.push(std::mem::replace(task, NONE));
            }
        }
        drop(slots);
        tasks.into_iter().filter(|task| *task != NONE).for_each(|task| self.tasks.wake(task));
    }

    pub(crate) fn close_idle(&self) {
        self.look();
        let tasks = self.slots.borrow_mut().evict_idle();
        tasks.into_iter().for_each(|task| self.tasks.wake(task));
    }

    /// What the ring has received belongs to connections that aren't idle any more.
    pub(crate) fn look(&self) {
        if let Some(uring) = self.backend.borrow_mut().uring() {
            uring.look(&self.slots, &self.clock);
        }
    }

    /// Polls everybody who waits for a connection.
    pub(crate) fn wake_connections(&self) {
        let slots = self.slots.borrow();
        let connections = slots.iter().filter(|(_, slot)| slot.has(flag::COUNTED) && !slot.has(flag::LISTENER));
        for (_, slot) in connections {
            for task in [slot.recv_task, slot.send_task, slot.hang_task] {
                if task != NONE {
                    self.tasks.wake(task);
                }
            }
        }
    }
}

impl Core {
    /// Calls `f` with the simulation, which has to be the driver.
    pub(crate) fn sim<T>(&self, f: impl FnOnce(&mut Sim) -> T) -> T {
        f(self.backend.borrow_mut().sim().expect("only asked for with the sim driver"))
    }

    /// Stops watching a connection whose descriptor lives on.
    pub(crate) fn detach(&self, n: u32) {
        self.backend.borrow_mut().detach(n, &self.slots, &self.clock);
    }
}
