//! `queue`: requests that wait until a peer can be chosen.

use std::cell::RefCell;
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
}

/// How often the first one looks for a peer that another worker has freed, or whose `fail_timeout` is over.
const LOOK_MS: u64 = 50;

impl Queue {
    pub(crate) fn new(spec: QueueSpec) -> Queue {
        Queue { spec, waiting: RefCell::default() }
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// Lets the first one look for a peer.
    pub(crate) fn tell_first(&self) {
        if let Some(first) = self.waiting.borrow().front() {
            first.notify();
        }
    }

    /// A place at the end, if there is room.
    fn enter(&self) -> Option<Ticket<'_>> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= self.spec.most {
            return None;
        }
        let turn = Rc::<rt::Event>::default();
        waiting.push_back(turn.clone());
        Some(Ticket { queue: self, turn })
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

impl Choice {
    /// Waits for a peer in the group's queue; false if there is no queue, no room in it, or no peer in time.
    pub async fn wait(&mut self, hints: &Hints<'_>) -> bool {
        let group = self.group().clone();
        let Some(queue) = &group.queue else { return false };
        let Some(ticket) = queue.enter() else { return false };
        let until_ms = rt::now_ms() + queue.spec.timeout_ms;
        loop {
            if ticket.is_first() && self.choose(hints) {
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
}
