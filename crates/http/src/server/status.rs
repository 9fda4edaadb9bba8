//! Counters of connections and requests over all workers: what stub_status shows.

use std::io;

use shm::{Counter, Counters, Names};

/// The counters, in memory that all workers share.
pub struct Status {
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections handled.
    pub handled: Counter,
    /// Requests.
    pub requests: Counter,
    /// Connections open.
    pub active: Counter,
    /// Connections whose request head is being read.
    pub reading: Counter,
    /// Connections whose request is being answered.
    pub writing: Counter,
    /// Idle connections.
    pub waiting: Counter,
}

impl Status {
    /// New counters.
    pub fn new() -> io::Result<Status> {
        Counters::new(NAMES).map(|counters| Status::of(&counters))
    }

    /// These counters, of [`NAMES`].
    pub fn of(counters: &Counters) -> Status {
        Status {
            accepted: counters.get("accepted"),
            handled: counters.get("handled"),
            requests: counters.get("requests"),
            active: counters.get("active"),
            reading: counters.get("reading"),
            writing: counters.get("writing"),
            waiting: counters.get("waiting"),
        }
    }
}

/// The counters' names.
pub const NAMES: Names =
    Names { totals: &["accepted", "handled", "requests"], gauges: &["active", "reading", "writing", "waiting"] };
