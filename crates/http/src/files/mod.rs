//! Files as responses.

pub mod encoded;
pub mod open_file;
pub mod regular;
pub mod small_files;
