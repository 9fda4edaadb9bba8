//! `image_filter`, a module of HTTP in a crate of its own: its dependencies decode hostile files, and few servers need it.
#![forbid(unsafe_code)]

pub mod image_filter;
mod picture;

use http::module::HttpModule;

/// The modules.
pub const MODULES: &[&dyn HttpModule] = &[&image_filter::ImageFilter];
