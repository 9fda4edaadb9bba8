//! Proxying: one engine for all backend protocols, and a file for each protocol.
#![forbid(unsafe_code)]

mod attempt;
pub mod cache;
pub mod conf;
pub mod cookies;
pub mod engine;
pub mod fastcgi;
pub mod handover;
mod http1;
pub mod pass;
pub mod protocol;
pub mod proxy;
pub mod redirect;
pub mod respond;
mod shared;
pub mod ssl;
pub mod store;
pub mod stream;
pub mod tunnel;
pub mod upstream;
pub mod variables;

use http::module::HttpModule;

/// The modules of this crate, in the order in which their handlers run.
pub const MODULES: &[&dyn HttpModule] = &[&upstream::Upstream, &proxy::Proxy, &fastcgi::Fastcgi];
