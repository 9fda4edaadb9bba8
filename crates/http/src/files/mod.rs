//! Files as responses.

pub mod encoded;
pub mod open_file;
mod regular;
pub mod small_files;
