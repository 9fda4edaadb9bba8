//! Tasks: the table of futures, the queue of those to be polled, and their wakers.
//!
//! A task is its boxed future and one row of the table. A waker is the row's number and its generation, packed into the
//! waker's data pointer: cloning and dropping one costs nothing, and waking a task that has ended does nothing. Wakers
//! work on their own thread only; other threads use [`crate::ThreadPool`]'s queue.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use crate::core;

/// No task.
pub(crate) const NONE: u32 = u32::MAX;
/// The future given to `block_on`.
pub(crate) const ROOT: u32 = 0;
/// How many reads and the like a task may do in one poll before the others get their turn.
const BUDGET: u32 = 32;

type Boxed = Pin<Box<dyn Future<Output = ()>>>;

/// All tasks of a runtime.
pub(crate) struct Tasks {
    table: RefCell<Vec<Row>>,
    free: RefCell<Vec<u32>>,
    queue: RefCell<VecDeque<u32>>,
    running: Cell<u32>,
    budget: Cell<u32>,
    root_woken: Cell<bool>,
    live: Cell<usize>,
}

struct Row {
    future: Option<Boxed>,
    generation: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Waiting,
    Queued,
    Running,
    /// Running, and woken meanwhile.
    Again,
}

impl Tasks {
    /// Room for `capacity` tasks is reserved, but touched only as they come.
    pub(crate) fn new(capacity: usize) -> Tasks {
        let mut table = Vec::with_capacity(capacity.min(1 << 20) + 16);
        table.push(Row { future: None, generation: 0, state: State::Waiting });
        Tasks {
            table: RefCell::new(table),
            free: RefCell::default(),
            queue: RefCell::default(),
            running: Cell::new(NONE),
            budget: Cell::new(0),
            root_woken: Cell::new(true),
            live: Cell::new(0),
        }
    }

    /// Takes a future over and queues it for its first poll.
    pub(crate) fn spawn(&self, future: Boxed) {
        let id = self.add(future, State::Queued);
        self.queue.borrow_mut().push_back(id);
    }

    /// Takes a future over and polls it at once, inside of the task that makes it; that one's turn goes on afterwards.
    pub(crate) fn spawn_now(&self, future: Boxed) {
        let id = self.add(future, State::Waiting);
        let (running, budget) = (self.running.get(), self.budget.get());
        self.run(id);
        self.running.set(running);
        self.budget.set(budget);
    }

    fn add(&self, future: Boxed, state: State) -> u32 {
        let mut table = self.table.borrow_mut();
        let id = self.free.borrow_mut().pop().unwrap_or_else(|| {
            table.push(Row { future: None, generation: 0, state: State::Free });
            (table.len() - 1) as u32
        });
        let row = &mut table[id as usize];
        (row.future, row.state) = (Some(future), state);
        self.live.set(self.live.get() + 1);
        id
    }

    /// The task that is being polled.
    pub(crate) fn running(&self) -> u32 {
        self.running.get()
    }

    /// How many tasks there are, the root apart.
    pub(crate) fn live(&self) -> usize {
        self.live.get()
    }

    /// Whether the task is there and sleeps until it is woken.
    pub(crate) fn is_waiting(&self, id: u32) -> bool {
        self.table.borrow().get(id as usize).is_some_and(|row| row.state == State::Waiting)
    }

    /// Counts one piece of work of the running task; false, with the task queued again, if it has had its share.
    pub(crate) fn spend(&self) -> bool {
        match self.budget.get() {
            0 => {
                self.wake(self.running());
                false
            }
            n => {
                self.budget.set(n - 1);
                true
            }
        }
    }

    /// Queues a task for a poll.
    pub(crate) fn wake(&self, id: u32) {
        if id == ROOT {
            self.root_woken.set(true);
            return;
        }
        let mut table = self.table.borrow_mut();
        let Some(row) = table.get_mut(id as usize) else { return };
        match row.state {
            State::Waiting => {
                row.state = State::Queued;
                self.queue.borrow_mut().push_back(id);
            }
            State::Running => row.state = State::Again,
            State::Free | State::Queued | State::Again => {}
        }
    }

    /// Whether something waits to be polled.
    pub(crate) fn has_work(&self) -> bool {
        self.root_woken.get() || !self.queue.borrow().is_empty()
    }

    /// Polls what is queued now; what is queued meanwhile waits for the next turn.
    pub(crate) fn run_queue(&self) {
        let n = self.queue.borrow().len();
        for _ in 0..n {
            let Some(id) = self.queue.borrow_mut().pop_front() else { return };
            if self.table.borrow()[id as usize].state == State::Queued {
                self.run(id);
            }
        }
    }

    /// Polls a task at once. Only the loop calls this, and [`Tasks::spawn_now`] with a task that nobody knows yet.
    pub(crate) fn run(&self, id: u32) {
        if id == ROOT {
            self.root_woken.set(true);
            return;
        }
        let (mut future, generation) = {
            let mut table = self.table.borrow_mut();
            let Some(row) = table.get_mut(id as usize) else { return };
            let Some(future) = row.future.take() else { return };
            row.state = State::Running;
            (future, row.generation)
        };
        self.running.set(id);
        self.budget.set(BUDGET);
        let waker = waker(id, generation);
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
        match polled {
            Ok(Poll::Pending) => self.park(id, future),
            Ok(Poll::Ready(())) => self.end(id, future),
            Err(panic) => {
                core::report(crate::Report::Panic(panic_text(&*panic)));
                self.end(id, future);
            }
        }
        self.running.set(NONE);
    }

    fn park(&self, id: u32, future: Boxed) {
        let row = &mut self.table.borrow_mut()[id as usize];
        row.future = Some(future);
        if row.state == State::Again {
            row.state = State::Queued;
            self.queue.borrow_mut().push_back(id);
        } else {
            row.state = State::Waiting;
        }
    }

    fn end(&self, id: u32, future: Boxed) {
        // Destructors run first: they may spawn, wake and close.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(future))) {
            core::report(crate::Report::Panic(panic_text(&*panic)));
        }
        let row = &mut self.table.borrow_mut()[id as usize];
        row.state = State::Free;
        row.generation = row.generation.wrapping_add(1);
        self.live.set(self.live.get() - 1);
        self.free.borrow_mut().push(id);
    }

    /// Polls the root future if it was woken.
    pub(crate) fn run_root<F: Future>(&self, root: Pin<&mut F>) -> Poll<F::Output> {
        if !self.root_woken.replace(false) {
            return Poll::Pending;
        }
        self.running.set(ROOT);
        self.budget.set(BUDGET);
        let polled = root.poll(&mut Context::from_waker(&waker(ROOT, 0)));
        self.running.set(NONE);
        polled
    }

    /// Has the root polled in the next turn.
    pub(crate) fn wake_root(&self) {
        self.root_woken.set(true);
    }

    /// Drops all tasks.
    pub(crate) fn clear(&self) {
        let mut id = 1;
        while id < self.table.borrow().len() {
            let future = self.table.borrow_mut()[id].future.take();
            if let Some(future) = future {
                self.end(id as u32, future);
            }
            id += 1;
        }
        self.queue.borrow_mut().clear();
    }

    /// Frees the table, once all tasks have been dropped and no waker reaches it any more.
    pub(crate) fn give_back(&self) {
        self.table.take();
        self.free.take();
        self.queue.take();
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}

fn waker(id: u32, generation: u32) -> Waker {
    // SAFETY: the vtable's functions keep RawWaker's contract: they treat the data as a number, own nothing, and reach
    // the runtime through a thread-local, so that calls from any thread are sound (elsewhere they do nothing).
    unsafe { Waker::from_raw(raw_waker(pack(id, generation))) }
}

fn raw_waker(data: *const ()) -> RawWaker {
    RawWaker::new(data, &VTABLE)
}

fn pack(id: u32, generation: u32) -> *const () {
    const { assert!(usize::BITS == 64) };
    std::ptr::without_provenance((generation as usize) << 32 | id as usize)
}

fn wake_packed(data: *const ()) {
    let (id, generation) = (data.addr() as u32, (data.addr() >> 32) as u32);
    if let Some(core) = core::try_current() {
        let current = core.tasks.table.borrow().get(id as usize).is_some_and(|row| row.generation == generation);
        if current {
            core.tasks.wake(id);
        }
    }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(raw_waker, wake_packed, wake_packed, |_| ());
