//! Files as responses.

pub mod open_file;
pub mod small_files;
