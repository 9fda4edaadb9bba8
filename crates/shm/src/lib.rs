//! Shared memory: what workers and master have in common.
//!
//! A mapping is made by the master before it forks, lies at the same address in all its children, and lives as long as
//! the last of them. Inside it is plain data only.

mod counters;
mod lock;
mod mapping;

pub use counters::{Counter, Counters};
pub use lock::TryLock;
pub use mapping::Mapping;
