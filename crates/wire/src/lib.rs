//! Protocols without input and output.
//!
//! Everything here turns bytes into facts and facts into bytes. It reads no clock, opens nothing, and allocates only
//! where its caller hands it something to fill. Parsers keep their position: they may be called again with more bytes
//! after the same prefix, and give the same answer however the input was split.
#![forbid(unsafe_code)]

pub mod accept;
pub mod base64;
pub mod cache_control;
pub mod charset;
mod class;
pub mod date;
pub mod dns;
pub mod etag;
pub mod fcgi;
pub mod geoip;
pub mod h1;
pub mod h2;
pub mod hello;
pub mod hpack;
pub mod json;
pub mod mail;
pub mod memcached;
pub mod mmdb;
pub mod mp4;
pub mod mqtt;
pub mod proxy_protocol;
pub mod range;
pub mod rdp;
pub mod replace;
pub mod scgi;
mod span;
pub mod ssi;
pub mod strftime;
mod swar;
pub mod tagged;
pub mod uri;
pub mod uwsgi;

pub use span::Span;
