//! What a protocol needs to speak to backends: `upstream {}`, and TLS to servers.

pub mod groups;
pub mod resolve;
pub mod ssl;

pub use groups::Specs;
