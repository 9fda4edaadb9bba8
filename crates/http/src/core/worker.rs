//! What a worker keeps beside its configuration.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

/// State for the life of a worker under one configuration.
#[derive(Default)]
pub struct Worker {
    /// The number of the next temporary file.
    pub temp_numbers: Cell<u64>,
    /// Connections being served.
    pub connections: Cell<usize>,
    /// Whether the worker is leaving: connections aren't kept any more.
    pub quitting: Cell<bool>,
    /// The engine's side, once the worker runs.
    pub context: OnceCell<WorkerHandle>,
    /// Requests done with, for their memory.
    pub spare: RefCell<Vec<Box<super::request::Request>>>,
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
