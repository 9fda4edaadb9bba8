//! What stands before a protocol's sessions: the addresses that they come by, and what precedes their first bytes.

pub mod proxy;
