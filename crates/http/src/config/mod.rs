//! What is read of `http {}`: the core's directives, the blocks, and values of directives.

pub mod blocks;
pub mod core;
pub mod error_page;
pub mod mime;
