//! Connections of clients: what precedes the first request (the PROXY protocol, TLS), then HTTP/1 or HTTP/2.

pub mod client;
pub mod connection;
pub mod h1;
pub mod h2;
pub mod send;
mod silence;
pub mod tls;
pub mod witness;
