//! What everybody in a run shares: what was found, what was seen, and the last events.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use os::SockAddr;

use crate::ask::Ask;
use crate::dice::mix;
use crate::response::Response;

/// The shared part of a run.
pub struct World {
    /// Nothing may fail.
    pub calm: bool,
    /// What is wrong.
    findings: RefCell<Vec<String>>,
    events: RefCell<VecDeque<String>>,
    /// A number that depends on every event.
    digest: Cell<u64>,
    /// The final status that each request's client saw.
    pub seen: RefCell<BTreeMap<u64, u16>>,
    /// How often a backend got the whole head of each request.
    pub attempts: RefCell<BTreeMap<u64, u64>>,
    /// The configuration was read again: connections without a request under way may be closed at any time from then on.
    pub reloaded: Cell<bool>,
    /// Clients that aren't done.
    pub clients: Cell<usize>,
    /// Everybody goes home.
    pub over: rt::Event,
    /// To clients: how TLS is spoken.
    pub tls: Rc<tls::Client>,
    /// The same with HTTP/2.
    pub tls_h2: Rc<tls::Client>,
}

/// How many events are kept.
const KEPT: usize = 60;

impl World {
    /// At the beginning.
    pub fn new(calm: bool, tls: Rc<tls::Client>, tls_h2: Rc<tls::Client>) -> World {
        World {
            calm,
            findings: RefCell::default(),
            events: RefCell::default(),
            digest: Cell::new(0),
            seen: RefCell::default(),
            attempts: RefCell::default(),
            reloaded: Cell::new(false),
            clients: Cell::new(0),
            over: rt::Event::new(),
            tls,
            tls_h2,
        }
    }

    /// Something is wrong.
    pub fn found(&self, what: impl Into<String>) {
        let what = what.into();
        self.tell(&format!("WRONG: {what}"));
        let mut findings = self.findings.borrow_mut();
        if findings.len() < 20 {
            findings.push(format!("{}: {what}", rt::now_ms()));
        }
    }

    /// Something is wrong unless things may fail.
    pub fn failed(&self, what: impl Into<String>) {
        if self.calm {
            self.found(what);
        } else {
            self.tell(&what.into());
        }
    }

    /// What was found.
    pub fn findings(&self) -> Vec<String> {
        self.findings.borrow().clone()
    }

    /// Notes an event.
    pub fn tell(&self, what: &str) {
        let words = what
            .bytes()
            .fold(self.digest.get(), |digest, byte| (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        self.digest.set(words ^ mix(rt::now_ms()));
        let mut events = self.events.borrow_mut();
        if events.len() == KEPT {
            events.pop_front();
        }
        events.push_back(format!("{} {what}", rt::now_ms()));
    }

    /// A number that differs if any event differed.
    pub fn digest(&self) -> u64 {
        self.digest.get()
    }

    /// The last events.
    pub fn events(&self) -> Vec<String> {
        self.events.borrow().iter().cloned().collect()
    }

    /// A client has seen the final head of a response.
    pub(crate) fn saw(&self, ask: &Ask, status: u16) {
        if let Some(before) = self.seen.borrow_mut().insert(ask.id, status) {
            self.found(format!("request {} was answered twice: {before}, {status}", ask.id));
        }
    }

    /// A response has come, as far as it has come: whether it is one that the request may get.
    pub fn check(&self, ask: &Ask, response: &Response) {
        let (id, status) = (ask.id, response.status);
        let say = |what: String| self.found(format!("request {id} ({:?}): {what}", ask.place));
        self.tell(&format!("request {id} got {status}, {} bytes, whole: {}", response.body.len(), response.whole));
        let may = ask.statuses();
        let interrupted = !self.calm && matches!(status, 400 | 408) && ask.body.is_some();
        if !may.contains(&status) && !interrupted {
            return say(format!("status {status}, but expected one of {may:?}"));
        }
        if self.calm && ask.is_sure() && (status != may[0] || !response.whole) {
            say(format!("status {status}, whole: {}, in a calm network", response.whole));
        }
        match response.field("x-id") {
            Some(field) if field != id.to_string() => say(format!("the response of request {field}")),
            _ => {}
        }
        if let Err(what) = response.check_content(ask, self.calm) {
            say(what);
        }
    }
}

/// An address from its text.
pub fn addr(text: &str) -> SockAddr {
    let addr: std::net::SocketAddr = text.parse().expect("the texts of this crate are addresses");
    addr.into()
}
