//! Proxying: one engine for all backend protocols, and the protocols, one file each.
//!
//! [`engine`] owns the control flow: choose a peer, connect or take an idle connection, send, read the head, retry,
//! respond. What differs between protocols are the pure parts of [`protocol::Protocol`]. The directives that all
//! protocols have under their own prefix are one table, [`conf::UpstreamConf`].

pub mod conf;
pub mod cookies;
pub mod engine;
pub mod pass;
pub mod protocol;
pub mod proxy;
pub mod redirect;
mod respond;
pub mod ssl;
pub mod state;
mod stream;
pub mod tunnel;
pub mod upstream;
mod variables;
