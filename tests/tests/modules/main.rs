//! Tests of modules and directives: what a configuration makes of a request. Each runs once, with the default event
//! method.
#![forbid(unsafe_code)]

mod access;
mod alias;
mod bodies;
mod cache;
mod events;
mod fastcgi;
mod gzip;
mod headers;
mod heads;
mod http2;
mod http2_rules;
mod line_breaks;
mod log;
mod manual;
mod map;
mod messages;
mod proxy;
mod proxy_heads;
mod proxy_redirect;
mod requests;
mod resolver;
mod rewrite;
mod ssl;
mod static_files;
mod statuses;
mod store;
mod stub_status;
mod subrequests;
mod variables;
