//! The state of a worker, besides its configuration.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::{Rc, Weak};

use common::handover::Successors;
use engine::cycle::Cycle;
use slab::Slab;

use crate::session::connection::Link;
use crate::session::h2::Shared;

/// State for the life of a worker under one configuration.
#[derive(Default)]
pub struct Worker {
    /// The number of the next temporary file. It begins anywhere once the worker has started.
    pub temp_numbers: Cell<u64>,
    /// Updates of stored responses for which nobody waits.
    pub updates: Cell<usize>,
    /// Connections being served.
    pub connections: Cell<usize>,
    /// What goes on without a client: subrequests without their parents, bodies that are wanted whole.
    pub apart: Cell<usize>,
    /// Whether the worker is leaving: connections aren't kept any more.
    pub quitting: Cell<bool>,
    /// The workers that take over its connections once it leaves.
    pub successors: Successors,
    /// The engine's side, once the worker runs.
    pub context: OnceCell<WorkerHandle>,
    /// Requests that have ended, kept for their memory.
    pub spare: RefCell<Vec<Box<crate::request::Request>>>,
    /// The connections of HTTP/2. They have many requests at a time, so they must be told when the worker quits.
    sessions: RefCell<Slab<Weak<Shared>>>,
}

impl Worker {
    /// The worker leaves.
    pub fn quit(&self) {
        self.quitting.set(true);
        // They hold the configuration, which holds them.
        drop(self.spare.take());
        let sessions: Vec<_> = self.sessions.borrow().iter().filter_map(|(_, session)| session.upgrade()).collect();
        sessions.iter().for_each(|session| session.wake());
    }

    /// Does work that may take long in a thread of the pool `default`.
    pub async fn in_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, rt::QueueFull> {
        match self.context.get().and_then(|context| (context.pools)("default")) {
            Some(pool) => pool.run(work).await,
            None => Ok(work()),
        }
    }

    /// Remembers a connection of HTTP/2, by the number that is given back.
    pub(crate) fn list_session(&self, session: &Rc<Shared>) -> usize {
        self.sessions.borrow_mut().insert(Rc::downgrade(session))
    }

    /// Forgets it.
    pub(crate) fn unlist_session(&self, number: usize) {
        self.sessions.borrow_mut().try_remove(number);
    }

    /// Whether a connection is kept for further requests, here or elsewhere.
    pub fn keeps(&self, link: &Link) -> bool {
        !self.quitting.get() || (!link.stays && self.successors.get().is_some())
    }
}

/// Finds a thread pool by its name.
pub(crate) type Pools = dyn Fn(&str) -> Option<Rc<rt::ThreadPool>>;

/// Knows the addresses of `debug_connection`.
pub(crate) type Debugs = dyn Fn(&os::SockAddr) -> bool;

/// What the engine gives a worker when it starts.
pub struct WorkerHandle {
    /// Finds a thread pool by its name.
    pub pools: Rc<Pools>,
    /// Whether connections from an address are logged in all detail; `None`: none are.
    pub debugs: Option<Rc<Debugs>>,
    /// The worker's cycle, which holds this.
    pub cycle: Weak<Cycle>,
}
