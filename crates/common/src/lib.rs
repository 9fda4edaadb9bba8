//! Modules that http and stream share.
//!
//! Each is generic over a [`Proto`]: it asks the protocol for templates and regexes, and its sessions for values.
#![forbid(unsafe_code)]

pub mod access;
pub mod limit;
pub mod limit_conn;
pub mod log;
pub mod map;
pub mod proto;

pub use proto::Proto;
