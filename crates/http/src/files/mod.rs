//! Files that responses are made of.

pub mod open_file;
pub mod small_files;
