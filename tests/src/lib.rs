//! The end-to-end harness: starts the real program with a configuration written inside the test, speaks to it over real
//! sockets, and sees that it ends cleanly.
//!
//! `TIDEGATE_BINARY` names the program to test (default: the newest build below `target`).
//! `TIDEGATE_USE` puts `use METHOD;` into `events` blocks: the tests in `tests/event_loop` run once for each event method.
//! `TIDEGATE_KEEP`, if it is there, leaves the tests' folders to be looked at.
#![forbid(unsafe_code)]

pub mod application;
mod backend;
mod client;
mod datagrams;
mod dns;
pub mod fcgi;
mod folder;
pub mod frames;
pub mod hooks;
pub mod load;
pub mod mail;
pub mod mutations;
pub mod random;
pub mod sealed;
pub mod secure;
mod server;
mod tools;
mod tunnel;

pub use backend::{Backend, Received};
pub use client::{Connection, Response, basic};
pub use datagrams::{DatagramBackend, DatagramClient};
pub use dns::NameServer;
pub use folder::Folder;
pub use server::{Server, Setup, binary, free_for_both, free_port, target, use_directive};
pub use tools::{
    EC, Picture, RSA, certificate, chromium, curl, openssl, picture, python, python_h2, run, sha256, tool,
};
pub use tunnel::{echo_over_reloads, pattern};
