//! Proxying: one engine for all backend protocols, and a file for each protocol.
#![forbid(unsafe_code)]

mod attempt;
pub mod cache;
mod cgi;
#[cfg(test)]
mod codec_tests;
pub mod conf;
pub mod connect;
pub mod cookies;
pub mod engine;
pub mod fastcgi;
pub mod grpc;
pub mod handover;
pub mod health;
mod http1;
mod http2;
pub mod memcached;
pub mod params;
pub mod pass;
pub mod protocol;
pub mod proxy;
pub mod redirect;
mod request_fields;
pub mod respond;
pub mod scgi;
mod sending;
mod shared;
pub mod ssl;
mod sticky;
pub mod store;
pub mod stream;
pub mod tunnel;
pub mod upstream;
pub mod uwsgi;
pub mod variables;

use http::module::HttpModule;

/// The modules of this crate, in the order in which their handlers run.
pub const MODULES: &[&dyn HttpModule] = &[
    &upstream::Upstream,
    &proxy::Proxy,
    &fastcgi::Fastcgi,
    &uwsgi::Uwsgi,
    &scgi::Scgi,
    &memcached::Memcached,
    &grpc::Grpc,
    &connect::Tunnel,
    &health::HealthChecks,
];
