//! What a protocol needs to speak to backends: `upstream {}`, and TLS to servers.

pub mod attempts;
pub mod connect;
pub mod groups;
pub mod header;
pub mod health;
pub mod resolve;
pub mod ssl;
pub mod targets;

pub use groups::Specs;
