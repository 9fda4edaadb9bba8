//! Counters of connections and requests over all workers: what stub_status shows.

use std::cell::OnceCell;
use std::io;

use shm::{Counter, Counters};

/// The counters, in memory that all workers share.
#[derive(Clone, Copy)]
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
    /// The counters of this process: made when first asked for, and the same ones after each reload, as nginx's go on.
    pub fn kept() -> io::Result<Status> {
        thread_local! {
            static KEPT: OnceCell<Status> = const { OnceCell::new() };
        }
        KEPT.with(|kept| match kept.get() {
            Some(status) => Ok(*status),
            None => Status::new().map(|status| *kept.get_or_init(|| status)),
        })
    }

    /// New counters.
    pub fn new() -> io::Result<Status> {
        let names = &["accepted", "handled", "requests", "active", "reading", "writing", "waiting"];
        let counters = Counters::new(names)?;
        Ok(Status {
            accepted: counters.get("accepted"),
            handled: counters.get("handled"),
            requests: counters.get("requests"),
            active: counters.get("active"),
            reading: counters.get("reading"),
            writing: counters.get("writing"),
            waiting: counters.get("waiting"),
        })
    }
}
