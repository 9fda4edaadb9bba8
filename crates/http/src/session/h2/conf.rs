//! HTTP/2: its directives, its variable, and the protocol's configuration of a server. The connections are in `core/h2`.
//!
//! What differs from nginx: buffers aren't shared, so `http2_recv_buffer_size` has no effect; `http2_websocket` is ours.

use std::rc::Rc;

use conf::values::{flag, number, size, string};
use conf::{Args, Context, Directive, Error, Loader, Result, Set};
use wire::h2::Config;

use crate::config::core::{CoreServer, EVERYWHERE, SERVERS, pool_size};

const ONE: Args = Args::exactly(1);

conf::table! {
    /// HTTP/2 on a server's connections.
    pub struct Http2Conf, raw Http2Raw, module "ngx_http_v2_module", level HTTP Server;

    /// Whether HTTP/2 is spoken: with TLS where the client offers `h2`, without TLS where it begins with it.
    "http2" in SERVERS, Args::FLAG, default "off",
        scalar(flag) http2: bool = false;
    /// How many requests a connection may have at the same time.
    "http2_max_concurrent_streams" in SERVERS, ONE, default "128",
        scalar(number) http2_max_concurrent_streams: u32 = 128;
    /// How much of a request's body may come before it is read.
    "http2_body_preread_size" in SERVERS, ONE, default "64k",
        scalar(preread_size) http2_body_preread_size: usize = 65536;
    /// Whether clients may open WebSockets on HTTP/2 connections (RFC 8441). Locations get them as they get those of
    /// HTTP/1.
    "http2_websocket" in SERVERS, Args::FLAG, default "on",
        scalar(flag) http2_websocket: bool = true;
    /// Accepted for compatibility: requests take their memory from pools of the worker.
    "http2_pool_size" in SERVERS, ONE, default "4k",
        scalar(pool_size) http2_pool_size: usize = 4096;
    /// Accepted for compatibility: streams are found without an index.
    "http2_streams_index_size" in SERVERS, ONE, default "32",
        scalar(index_size) http2_streams_index_size: usize = 32;
    /// Obsolete: `keepalive_timeout` counts.
    "http2_idle_timeout" in SERVERS, ONE, default none,
        scalar(obsolete("keepalive_timeout")) http2_idle_timeout: String = String::new();
    /// Obsolete: `client_header_timeout` counts.
    "http2_recv_timeout" in SERVERS, ONE, default none,
        scalar(obsolete("client_header_timeout")) http2_recv_timeout: String = String::new();
    /// Obsolete: `keepalive_requests` counts.
    "http2_max_requests" in SERVERS, ONE, default none,
        scalar(obsolete("keepalive_requests")) http2_max_requests: String = String::new();
    /// Obsolete: `large_client_header_buffers` counts.
    "http2_max_field_size" in SERVERS, ONE, default none,
        scalar(obsolete("large_client_header_buffers")) http2_max_field_size: String = String::new();
    /// Obsolete: `large_client_header_buffers` counts.
    "http2_max_header_size" in SERVERS, ONE, default none,
        scalar(obsolete("large_client_header_buffers")) http2_max_header_size: String = String::new();
    /// Obsolete: nothing is pushed.
    "http2_max_concurrent_pushes" in SERVERS, ONE, default none,
        scalar(ignored) http2_max_concurrent_pushes: String = String::new();
}

conf::table! {
    /// HTTP/2's way of sending.
    pub struct Http2Location, raw Http2LocationRaw, module "ngx_http_v2_module", level HTTP Location;

    /// The largest part in which a response's body is sent: smaller ones let other responses in between sooner.
    "http2_chunk_size" in EVERYWHERE, ONE, default "8k",
        scalar(chunk_size) http2_chunk_size: usize = 8192;
    /// Obsolete: nothing is pushed. `early_hints` is the way.
    "http2_push" in EVERYWHERE, ONE, default none,
        list(ignored) http2_push: String;
    /// Obsolete: nothing is pushed.
    "http2_push_preload" in EVERYWHERE, Args::FLAG, default none,
        scalar(ignored) http2_push_preload: String = String::new();
}

conf::table! {
    /// HTTP/2's part of the whole `http {}` block.
    pub struct Http2Main, raw Http2MainRaw, module "ngx_http_v2_module", level HTTP Main;

    /// Accepted for compatibility: what is read takes its memory from pools of the worker.
    "http2_recv_buffer_size" in Context::HTTP, ONE, default "256k",
        scalar(size) http2_recv_buffer_size: usize = 256 << 10;
}

/// What the protocol is configured to on a server's connections.
pub fn config(set: &Set) -> Rc<Config> {
    let (conf, core) = (set.get::<Http2Conf>(), set.get::<CoreServer>());
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let buffers = &core.large_client_header_buffers;
    Rc::new(Config {
        max_concurrent_streams: conf.http2_max_concurrent_streams,
        initial_window: small(conf.http2_body_preread_size),
        max_field_size: buffers.size,
        max_list_size: buffers.size.saturating_mul(buffers.count),
        max_fields: core.max_headers,
        enable_connect_protocol: conf.http2_websocket,
        ..Config::default()
    })
}

/// The largest window.
const MAX_WINDOW: usize = (1 << 31) - 1;
/// The largest frame.
const MAX_FRAME: usize = (1 << 24) - 1;

fn preread_size(loader: &mut Loader<'_>, d: &Directive) -> Result<usize> {
    let size = size(loader, d)?;
    if size > MAX_WINDOW {
        return Err(Error::on(d, format!("the maximum body preread buffer size is {MAX_WINDOW}")));
    }
    Ok(size)
}

fn index_size(loader: &mut Loader<'_>, d: &Directive) -> Result<usize> {
    let size: usize = number(loader, d)?;
    if !size.is_power_of_two() {
        return Err(Error::on(d, "number of index must be a power of two"));
    }
    Ok(size)
}

fn chunk_size(loader: &mut Loader<'_>, d: &Directive) -> Result<usize> {
    match size(loader, d)? {
        0 => Err(Error::on(d, "the http2 chunk size cannot be zero")),
        size => Ok(size.min(MAX_FRAME)),
    }
}

fn obsolete(instead: &'static str) -> impl Fn(&mut Loader<'_>, &Directive) -> Result<String> {
    move |loader, d| {
        let name = d.name.lossy();
        let message = format!("the \"{name}\" directive is obsolete, use the \"{instead}\" directive instead");
        loader.warn(d, Error::on(d, message));
        string(loader, d)
    }
}

fn ignored(loader: &mut Loader<'_>, d: &Directive) -> Result<String> {
    loader.warn(d, Error::on(d, format!("the \"{}\" directive is obsolete, ignored", d.name.lossy())));
    string(loader, d)
}
