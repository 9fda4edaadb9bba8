//! Notices: short messages that a worker sends to all the others.
//!
//! They are hints: one may get lost, because a channel is full or a process has just started. Whoever waits for one looks
//! from time to time.

use std::cell::RefCell;
use std::rc::Rc;

use crate::channel::Message;
use crate::handover::peers::Peers;

/// What a notice is about.
pub mod kind {
    /// HTTP's cache: a response that others wait for was fetched.
    pub const CACHE: u8 = 1;
}

/// The longest payload.
pub const MAX_PAYLOAD: usize = 1024;

thread_local! {
    /// The other workers, while this one runs.
    static PEERS: RefCell<Option<Rc<RefCell<Peers>>>> = const { RefCell::new(None) };
}

/// Notices of this worker go to these from now on.
pub(crate) fn set_peers(peers: &Rc<RefCell<Peers>>) {
    PEERS.set(Some(peers.clone()));
}

/// Tells all other workers; a payload that is too long isn't sent.
pub fn send(kind: u8, payload: &[u8]) {
    if payload.len() > MAX_PAYLOAD {
        return;
    }
    let peers = PEERS.with_borrow(Clone::clone);
    let Some(peers) = peers else { return };
    let message = Message::Notice { kind, payload: payload.to_vec() };
    for peer in peers.borrow().iter() {
        // A full channel, or a process that has ended: it is a hint.
        let _ = peer.channel.send(&message, &[]);
    }
}
