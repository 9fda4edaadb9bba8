//! HTTP/2 connections (RFC 9113): the protocol is `wire::h2`; here are its tasks.
//!
//! One task owns the connection: it reads, hands over what arrives, and sends what the streams have queued
//! (`session.rs`). Each request is a task of its own that uses its stream as an HTTP/1 request uses its socket
//! (`stream.rs`). They share a [`Shared`], which is borrowed only for a moment, never across a wait; news go by wakers.
//!
//! - `session.rs`: a connection's life, from the preface to the lingering close.
//! - `stream.rs`: what a request sees of its stream.
//! - `request.rs`: from a head to a request that runs through the phases.
//! - `head.rs`: a response's head.
//! - `websocket.rs`: streams that become tunnels.

pub mod conf;
mod head;
pub mod module;
mod request;
mod session;
mod shared;
mod stream;
pub mod websocket;

use wire::h2::PREFACE;

pub use head::{finish as finish_response, send as send_head, send_small};
pub use session::serve;
pub use shared::Shared;
pub use stream::StreamHandle;

/// Whether bytes begin, or may begin, as an HTTP/2 connection without TLS does; `None`: more are needed to tell.
pub(crate) fn is_preface(bytes: &[u8]) -> Option<bool> {
    let n = bytes.len().min(PREFACE.len());
    if bytes.get(..n) != PREFACE.get(..n) {
        return Some(false);
    }
    (n == PREFACE.len()).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefaces() {
        for (bytes, expect) in [
            (&b""[..], None),
            (b"PRI * HTTP/2.0", None),
            (PREFACE, Some(true)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", Some(true)),
            (b"PROPFIND / HTTP/1.1", Some(false)),
            (b"G", Some(false)),
        ] {
            assert_eq!(is_preface(bytes), expect, "{}", bytes.escape_ascii());
        }
    }
}
