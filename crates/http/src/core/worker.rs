//! What a worker keeps beside its configuration.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use engine::handover::Handover;

use super::request::Connection;

/// State for the life of a worker under one configuration.
#[derive(Default)]
pub struct Worker {
    /// The number of the next temporary file.
    pub temp_numbers: Cell<u64>,
    /// Connections being served.
    pub connections: Cell<usize>,
    /// Whether the worker is leaving: connections aren't kept any more.
    pub quitting: Cell<bool>,
    /// Where connections go, once the worker is leaving and has successors.
    pub handover: RefCell<Option<Rc<Handover>>>,
    /// The engine's side, once the worker runs.
    pub context: OnceCell<WorkerHandle>,
    /// Requests done with, for their memory.
    pub spare: RefCell<Vec<Box<super::request::Request>>>,
}

impl Worker {
    /// Who takes over connections, if they are to leave now.
    pub fn successors(&self) -> Option<Rc<Handover>> {
        self.handover.borrow().as_ref().filter(|handover| handover.is_open()).cloned()
    }

    /// Whether a connection is kept for further requests, here or elsewhere.
    pub fn keeps(&self, conn: &Connection) -> bool {
        !self.quitting.get() || (!conn.stays && self.successors().is_some())
    }
}

/// Finds a thread pool by its name.
pub type Pools = dyn Fn(&str) -> Option<Rc<rt::ThreadPool>>;

/// Knows the addresses of `debug_connection`.
pub type Debugs = dyn Fn(&os::SockAddr) -> bool;

/// What the worker's start gave.
pub struct WorkerHandle {
    /// Finds a thread pool by its name.
    pub pools: Rc<Pools>,
    /// Whether connections from an address are logged in all detail; `None`: none are.
    pub debugs: Option<Rc<Debugs>>,
}
