//! Tests of what touches the event loop. All of them run under each event method: `TIDEGATE_USE` names it, and
//! configurations that are written whole have `%%USE%%` in their `events` block.
#![forbid(unsafe_code)]

mod connections;
mod events;
mod files;
mod handover;
mod http2;
mod limits;
mod mail;
mod nothing_lost;
mod processes;
mod proxy;
mod resolver;
mod stream;
mod stream_udp;
mod tls;
mod tls_peers;
mod websocket;
