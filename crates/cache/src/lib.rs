//! Stored responses: the files, the zone of shared memory that knows their keys, the work of manager and loader.
//!
//! A response is stored under the MD5 of its key, in a file that holds the key, the head and the body ([`entry`]). The
//! zone ([`keys`]) knows which files exist, in the order of their last use, and which request is about to fetch what.
//! It only saves work: what is served is decided by the file, whose head is protected by a checksum and names its key. A
//! zone that a killed process has damaged is emptied, and filled again from the folder.
//!
//! Here nothing is known of requests or of HTTP's rules: those are in `http-proxy`.
#![forbid(unsafe_code)]

pub mod entry;
pub mod keeper;
pub mod key;
pub mod keys;
pub mod place;
pub mod stored;
pub mod waiters;

pub use entry::Entry;
pub use key::Key;
pub use keys::{Keys, owner};
pub use place::{Cache, Settings};
pub use stored::Stored;
