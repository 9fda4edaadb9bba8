//! The core of HTTP: configuration, locations, requests, phases, responses, the HTTP/1 session and that of HTTP/2.

pub mod blocks;
pub mod body;
pub mod build;
pub mod client;
pub mod conf;
pub mod error_page;
pub mod gzip;
pub mod h2;
pub mod handover;
pub mod listen;
pub mod location;
pub mod mime;
pub mod open_file;
pub mod output;
pub mod phase;
pub mod request;
pub mod response;
pub mod server;
pub mod session;
pub mod small_files;
pub mod ssl_values;
pub mod status;
pub mod temp;
pub mod tls;
pub mod variables;
pub mod worker;
