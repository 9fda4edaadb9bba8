//! Modules that http and stream share.
//!
//! Most are generic over a [`Proto`]: they ask the protocol for templates and regexes, and its sessions for values.
#![forbid(unsafe_code)]

pub mod backend;
mod base;
pub mod front;
pub mod handover;
pub mod modules;
pub mod ocsp;
mod proto;
pub mod pump;
pub mod slots;
#[cfg(test)]
mod testing;
pub mod vars;

pub use base::{Base, Based};
pub use conf::table::Place;
pub use proto::{Facts, Places, Proto, Session, Tables};
