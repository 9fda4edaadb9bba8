//! The core of HTTP: configuration, requests, phases, responses, and the sessions of HTTP/1 and HTTP/2.
//!
//! [`Module`] is what the program registers; it is given the list of modules, which are crates above this one. `config`
//! reads, `app` builds and runs; a connection is served in `session`, its requests go through `phases` to a response.
#![forbid(unsafe_code)]

pub mod app;
pub mod body;
pub mod config;
pub mod exchange;
pub mod fault;
pub mod files;
#[cfg(feature = "test-hooks")]
pub mod hooks;
pub mod module;
pub mod phases;
mod proto;
pub mod request;
pub mod response;
#[cfg(test)]
mod reuse;
pub mod server;
pub mod session;

pub use ::tls::LIBRARY as TLS_LIBRARY;

pub use app::Module;
pub use common::variables;
pub use proto::HttpProto;
