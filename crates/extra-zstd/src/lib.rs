//! `zstd`, a module of HTTP in a crate of its own: the library that it needs is written in C.
#![forbid(unsafe_code)]

pub mod zstd;

use http::module::HttpModule;

/// The modules.
pub const MODULES: &[&dyn HttpModule] = &[&zstd::Zstd];
