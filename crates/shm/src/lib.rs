//! Shared memory: what workers and master have in common.
//!
//! A mapping is made by the master before it forks, and unmapped in a process when its last user there goes. That of a
//! zone is of a file in memory, which another program can map too. Inside it is plain data only: counters and locks that change atomically, and
//! in zones bytes that are copied in and out under the zone's lock ([`Memory`]). No reference points to bytes that another
//! process may change, lock or no lock: who keeps to the lock is a matter of trust.
//!
//! A [`Zone`] is a mapping with a lock that knows its owner, an allocator ([`slab`]) and a table of entries ([`Map`]). Everything in
//! it is found by offsets that are checked at each step, so bytes that a killed process left half-changed can lose
//! entries and nothing else.

mod counters;
mod lock;
pub mod map;
mod mapping;
mod memory;
pub mod slab;
mod tally;
mod try_lock;
#[cfg(not(all(test, loom)))]
mod zone;

pub use counters::{Counter, Counters, Names};
pub use map::{Map, Node, Noted};
pub use mapping::Mapping;
pub use memory::Memory;
pub use tally::Tally;
pub use try_lock::TryLock;
#[cfg(not(all(test, loom)))]
pub use zone::{Recovery, Stuck, Zone, format};
