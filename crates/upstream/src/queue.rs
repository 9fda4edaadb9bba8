//! `queue`: requests that wait until a peer can be chosen.
//!
//! They stand in a line. A request that has asked some of the peers already needs one of the others; it waits beside the
//! line, so that nobody waits behind it for a peer that is free.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::balance::Hints;
use crate::group::Choice;

/// The directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSpec {
    /// How many requests may wait.
    pub most: usize,
    /// For how long each may wait, in milliseconds.
    pub timeout_ms: u64,
}

/// The requests of a worker that wait for a group, first come first served.
pub(crate) struct Queue {
    spec: QueueSpec,
    waiting: RefCell<VecDeque<Rc<rt::Event>>>,
    /// How many wait beside the line.
    beside: Cell<usize>,
}

/// How often the first one, and those beside the line, look for a peer that another worker has freed, or whose
/// `fail_timeout` is over.
const LOOK_MS: u64 = 50;

impl Queue {
    pub(crate) fn new(spec: QueueSpec) -> Queue {
        Queue { spec, waiting: RefCell::default(), beside: Cell::new(0) }
    }

    /// Whether nobody waits in the line.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// Lets the first one look for a peer.
    pub(crate) fn tell_first(&self) {
        if let Some(first) = self.waiting.borrow().front() {
            first.notify();
        }
    }

    fn is_full(&self) -> bool {
        self.waiting.borrow().len() + self.beside.get() >= self.spec.most
    }

    /// A place at the end, if there is room.
    fn enter(&self) -> Option<Ticket<'_>> {
        if self.is_full() {
            return None;
        }
        let turn = Rc::<rt::Event>::default();
        self.waiting.borrow_mut().push_back(turn.clone());
        Some(Ticket { queue: self, turn })
    }

    /// A place beside the line, if there is room.
    fn stand_by(&self) -> Option<Beside<'_>> {
        if self.is_full() {
            return None;
        }
        self.beside.set(self.beside.get() + 1);
        Some(Beside(self))
    }
}

/// A place in a queue; dropped, it lets the next one come.
struct Ticket<'q> {
    queue: &'q Queue,
    turn: Rc<rt::Event>,
}

impl Ticket<'_> {
    fn is_first(&self) -> bool {
        self.queue.waiting.borrow().front().is_some_and(|first| Rc::ptr_eq(first, &self.turn))
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.queue.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.turn));
        self.queue.tell_first();
    }
}

/// A place beside the line.
struct Beside<'q>(&'q Queue);

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        self.0.beside.set(self.0.beside.get().saturating_sub(1));
    }
}

impl Choice {
    /// Waits for a peer in the group's queue; false if there is no queue, no room in it, or no peer in time.
    pub async fn wait(&mut self, hints: &Hints<'_>) -> bool {
        let group = self.group().clone();
        let Some(queue) = &group.queue else { return false };
        let until_ms = rt::now_ms() + queue.spec.timeout_ms;
        if self.has_begun() {
            return self.wait_beside(queue, hints, until_ms).await;
        }
        let Some(ticket) = queue.enter() else { return false };
        loop {
            if ticket.is_first() && self.choose_again(hints) {
                return true;
            }
            let now_ms = rt::now_ms();
            if now_ms >= until_ms {
                return false;
            }
            // The others are told when it is their turn.
            let pause = if ticket.is_first() { LOOK_MS } else { u64::MAX };
            rt::timeout(pause.min(until_ms - now_ms), ticket.turn.wait()).await;
        }
    }

    /// Waits for one of the peers that haven't been asked; false at once if there are none.
    async fn wait_beside(&mut self, queue: &Queue, hints: &Hints<'_>, until_ms: u64) -> bool {
        let Some(_place) = queue.stand_by() else { return false };
        loop {
            let left_ms = until_ms.saturating_sub(rt::now_ms());
            if left_ms == 0 || !self.has_others() {
                return false;
            }
            rt::sleep(LOOK_MS.min(left_ms)).await;
            if self.choose_again(hints) {
                return true;
            }
        }
    }
}
