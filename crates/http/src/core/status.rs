//! Counters of connections and requests over all workers: what stub_status shows.

use std::rc::Rc;

use shm::Counters;

/// The counters; in memory that all workers share.
pub struct Status(Rc<Counters>);

/// Which counter.
#[derive(Clone, Copy, Debug)]
pub enum Counter {
    /// Connections accepted.
    Accepted = 0,
    /// Connections handled.
    Handled = 1,
    /// Requests.
    Requests = 2,
    /// Connections open.
    Active = 3,
    /// Connections whose request head is being read.
    Reading = 4,
    /// Connections whose request is being answered.
    Writing = 5,
    /// Idle connections.
    Waiting = 6,
}

/// How many counters there are.
pub const COUNTERS: usize = 7;

impl Status {
    /// Wraps the shared counters.
    pub fn new(counters: Rc<Counters>) -> Status {
        Status(counters)
    }

    /// The current value.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(counter as usize)
    }

    /// Adds to a counter.
    pub fn add(&self, counter: Counter, n: u64) {
        self.0.add(counter as usize, n);
    }

    /// Takes from a counter.
    pub fn sub(&self, counter: Counter, n: u64) {
        self.0.sub(counter as usize, n);
    }
}
