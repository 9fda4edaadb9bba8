//! Files as responses.

pub mod encoded;
pub mod made;
pub mod open_file;
pub mod regular;
pub mod small_files;
