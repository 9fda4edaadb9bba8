//! Attempts to reach a server of a group: what variables and log lines tell of them.

use std::rc::Rc;

use buf::number::digits;
use upstream::Peer;

use crate::vars::text::show_seconds;

/// One attempt to ask a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    /// The peer's address; the group's name if it had no peer.
    pub peer: Option<Rc<str>>,
    /// The server as the configuration writes it.
    pub server: Option<Rc<str>>,
    /// Milliseconds that the session waited in the group's queue.
    pub queue_ms: Option<u64>,
    /// The status of the response, or the one that its failure stands for; 0 for none.
    pub status: u16,
    /// Milliseconds until the connection was made.
    pub connect_ms: Option<u64>,
    /// Milliseconds until the head was read; without heads, until the first byte.
    pub header_ms: Option<u64>,
    /// Milliseconds until the response, or the session, was complete.
    pub response_ms: Option<u64>,
    /// Bytes of the response's body.
    pub length: u64,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Whether it is the first one after an internal redirect.
    pub redirected: bool,
}

impl Attempt {
    /// A peer has been chosen.
    pub fn begin(&mut self, peer: &Peer) {
        self.peer = Some(peer.name.clone());
        self.server = Some(peer.server.clone());
    }
}

/// Appends one value for each attempt: joined by commas, after an internal redirect by a colon. False without attempts.
pub fn join(attempts: &[Attempt], out: &mut Vec<u8>, mut each: impl FnMut(&Attempt, &mut Vec<u8>)) -> bool {
    for (n, attempt) in attempts.iter().enumerate() {
        if n > 0 {
            out.extend_from_slice(if attempt.redirected { b" : " } else { b", " });
        }
        each(attempt, out);
    }
    !attempts.is_empty()
}

/// Appends the servers' addresses.
pub fn addresses(attempts: &[Attempt], out: &mut Vec<u8>) -> bool {
    join(attempts, out, |attempt, out| out.extend_from_slice(attempt.peer.as_deref().unwrap_or_default().as_bytes()))
}

/// Appends times in seconds with milliseconds; `-` for what wasn't reached.
pub fn times(attempts: &[Attempt], out: &mut Vec<u8>, of: impl Fn(&Attempt) -> Option<u64>) -> bool {
    join(attempts, out, |attempt, out| match of(attempt) {
        Some(ms) => {
            show_seconds(out, ms);
        }
        None => out.push(b'-'),
    })
}

/// Appends numbers.
pub fn counts(attempts: &[Attempt], out: &mut Vec<u8>, of: impl Fn(&Attempt) -> u64) -> bool {
    join(attempts, out, |attempt, out| out.extend_from_slice(digits(of(attempt), &mut [0; 20])))
}
