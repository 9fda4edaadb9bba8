//! What the tasks of one connection share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use buf::Bytes;
use wire::h2::{Code, StreamKey};

use super::stream::StreamState;
use crate::request::facts::ConnectionFacts;
use crate::server::{Http, Server};
use crate::session::connection::Connection;

/// A connection: its socket, its protocol, and its streams.
pub struct Shared {
    /// The server of `http {}` and its worker.
    pub http: Rc<Http>,
    pub(super) socket: rt::Stream,
    pub(super) protocol: RefCell<wire::h2::Connection>,
    /// The server whose settings hold for the connection: the default one, or the one that TLS has chosen.
    pub(super) server: Rc<Server>,
    pub(super) facts: ConnectionFacts,
    /// How many requests it has brought.
    pub(super) requests: Cell<u32>,
    /// How many of them aren't over.
    pub(super) running: Cell<usize>,
    streams: RefCell<Vec<Option<Rc<StreamState>>>>,
    task: RefCell<Option<Waker>>,
}

impl Shared {
    pub(super) fn new(http: &Rc<Http>, conn: Connection) -> Option<Shared> {
        let server = conn.facts.server().clone();
        let protocol = wire::h2::Connection::server(server.http2.clone());
        Some(Shared {
            http: http.clone(),
            socket: conn.link.stream.into_socket()?,
            protocol: RefCell::new(protocol),
            server,
            facts: conn.facts,
            requests: Cell::new(0),
            running: Cell::new(0),
            streams: RefCell::default(),
            task: RefCell::default(),
        })
    }

    /// Has the connection's task look for what is to be done.
    pub fn wake(&self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    pub(super) fn wake_me(&self, waker: &Waker) {
        self.task.replace(Some(waker.clone()));
    }

    pub(super) fn add(&self, state: Rc<StreamState>) {
        let key = state.key;
        let mut streams = self.streams.borrow_mut();
        if streams.len() <= key.slot() {
            streams.resize_with(key.slot() + 1, || None);
        }
        if let Some(place) = streams.get_mut(key.slot()) {
            *place = Some(state);
        }
    }

    pub(super) fn find(&self, key: StreamKey) -> Option<Rc<StreamState>> {
        self.streams.borrow().get(key.slot())?.as_ref().filter(|state| state.key == key).cloned()
    }

    pub(super) fn remove(&self, key: StreamKey) {
        let mut streams = self.streams.borrow_mut();
        let Some(place) = streams.get_mut(key.slot()) else { return };
        if place.as_ref().is_some_and(|state| state.key == key) {
            *place = None;
        }
        if self.running.get() == 0 && streams.capacity() > KEEP {
            *streams = Vec::new();
        }
    }

    /// The streams are no longer needed.
    pub(super) fn fail_streams(&self) {
        let all: Vec<_> = self.streams.borrow().iter().flatten().cloned().collect();
        all.iter().for_each(|state| state.fail(Code::INTERNAL_ERROR));
    }

    pub(super) fn deliver(&self, key: StreamKey, bytes: Bytes, end: bool) {
        if let Some(state) = self.find(key) {
            state.receive(bytes, end);
        }
    }
}

/// For how many streams an idle connection keeps places.
const KEEP: usize = 8;
