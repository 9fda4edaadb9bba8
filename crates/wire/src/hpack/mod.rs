//! HPACK: header compression for HTTP/2 (RFC 7541).
//!
//! A [`Decoder`] reads header blocks, in parts if need be, and appends names and values to one buffer, so that a head
//! costs no allocation per field. An [`Encoder`] writes blocks; which fields may enter its dynamic table is the
//! caller's choice by [`Indexing`]. Both allocate their dynamic table with the first entry, so an idle connection holds none.
//!
//! Unlike nginx, whose encoder uses the static table alone, ours can index what repeats in every response.

mod decoder;
mod encoder;
pub mod huffman;
mod integer;
mod lately;
mod statics;
mod table;
#[cfg(test)]
mod tests;
pub(crate) mod traits;

pub use decoder::{DecodeError, Decoder, Field, FieldLimits};
pub use encoder::{Encoder, Indexing, write_plain};
pub use integer::{IntegerError, decode_integer, encode_integer};
pub use traits::Traits;

/// The dynamic table's size where nothing else is said (RFC 9113 §6.5.2), and the largest that either side here uses.
pub const DEFAULT_TABLE_SIZE: u32 = 4096;
