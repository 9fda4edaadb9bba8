//! Whose connection a panic has ended, where no request tells it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use common::front::Visitor;
use engine::log::{Level, Log};
use engine::worker::panics;
use os::SockAddr;

use crate::server::{Address, Http};
use crate::session::connection::Connection;

/// Stands beside the work for a connection that has no request. If a panic ends that, the log is told of client and server.
pub struct Witness {
    log: Log,
    number: u64,
    peer: SockAddr,
    address: Rc<Address>,
}

impl Witness {
    /// For a connection that is about to be given away.
    pub fn new(http: &Http, conn: &Connection) -> Witness {
        Witness {
            log: http.log_of(&conn.facts.address.default.root.core),
            number: conn.link.stream.number(),
            peer: conn.facts.peer.clone(),
            address: conn.facts.address.clone(),
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&self.log, self.number, &self.peer, &self.address);
        }
    }
}

/// The same while a connection is only looked at: costs nothing.
pub struct Glance<'a>(pub &'a Http, pub &'a Connection);

impl Drop for Glance<'_> {
    #[inline]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Glance(http, conn) = self;
            say(
                &http.log_of(&conn.facts.address.default.root.core),
                conn.link.stream.number(),
                &conn.facts.peer,
                &conn.facts.address,
            );
        }
    }
}

#[cold]
fn say(log: &Log, number: u64, peer: &SockAddr, address: &Address) {
    if !panics::is_told() {
        return;
    }
    let visitor = Visitor { log: log.clone(), number, peer, server: &address.addr, starttls: false };
    // The panic may have come from the log: another one in here must not end the process.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        visitor.log(Level::Alert, format_args!("{}", panics::CONNECTION_CLOSED));
    }));
}
