//! Modules that http and stream share.
//!
//! Most are generic over a [`Proto`]: they ask the protocol for templates and regexes, and its sessions for values.
#![forbid(unsafe_code)]

pub mod access;
pub mod limit;
pub mod limit_conn;
pub mod log;
pub mod map;
pub mod ocsp;
pub mod proto;

pub use proto::Proto;
