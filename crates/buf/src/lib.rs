//! Buffers, chains, byte strings, secrets, parsing of sizes and times, escaping.
//!
//! Everything a connection reads lands in a [`Buf`]: memory from a pool of the thread, owned by one place at a time.
//! Once nothing is written to it any more it is frozen into [`Bytes`], which are cheap to clone and to slice. What a
//! connection sends is a [`Chain`] of pieces: bytes and ranges of files.
#![forbid(unsafe_code)]

mod buffer;
mod bytes;
mod chain;
pub mod escape;
pub mod hex;
pub mod number;
pub mod parse;
mod pool;
mod secret;
pub mod text;

pub use buffer::Buf;
pub use bytes::Bytes;
pub use chain::{Chain, FileRange, Piece};
#[cfg(feature = "audit")]
pub use pool::lent;
pub use secret::{Secret, wipe};
