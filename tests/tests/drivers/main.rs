//! Tests of what touches the event loop. All of them run under each event method: `TIDEGATE_USE` names it, and
//! configurations that are written whole have `%%USE%%` in their `events` block.
#![forbid(unsafe_code)]

mod handover;
mod limits;
mod tls_peers;
mod websocket;
