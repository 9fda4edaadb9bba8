//! HTTP/2: its directives, and the protocol's configuration of a server.
//!
//! What differs from nginx: buffers aren't shared, so `http2_recv_buffer_size` has no effect; `http2_websocket` is ours.

use std::rc::Rc;

use conf::values::{clamped, flag, number, size, string};
use conf::{Args, Context, Directive, Error, Loader, Result, Set};
use wire::h2::Config;

use crate::config::core::{CoreServer, EVERYWHERE, SERVERS, pool_size};

const ONE: Args = Args::exactly(1);

conf::table! {
    /// HTTP/2 on a server's connections.
    pub struct Http2Conf, raw Http2Raw, module "ngx_http_v2_module", level HTTP Server;

    /// Accepts HTTP/2 on connections of the server.
    ///
    /// Effect: under TLS clients choose it in the handshake (ALPN `h2`); without TLS a connection that begins with
    /// HTTP/2's preface speaks it. HTTP/1 is served on the same port.
    ///
    /// Cost: a connection takes more memory than one of HTTP/1, for the tables of header compression and its streams.
    ///
    /// Danger: one connection may have many requests at the same time (`http2_max_concurrent_streams`), so limits on
    /// connections don't limit requests: use `limit_req`.
    ///
    /// ```nginx
    /// server {
    ///     listen 127.0.0.1:8443 ssl;
    ///     http2 on;
    ///     ssl_certificate site.crt;
    ///     ssl_certificate_key site.key;
    /// }
    /// ```
    "http2" in SERVERS, Args::FLAG, default "off",
        scalar(flag) http2: bool = false;
    /// Limits how many requests an HTTP/2 connection may have at the same time.
    ///
    /// Form: `http2_max_concurrent_streams number`
    ///
    /// - `number`: the number of streams, which clients are told when they connect.
    ///
    /// Effect: a stream beyond it is refused (REFUSED_STREAM), and the client may try it again. It doesn't limit how
    /// many requests a connection has one after the other: `keepalive_requests` does.
    ///
    /// Cost: each stream takes a request's memory, and perhaps a connection to a backend.
    ///
    /// Danger: a large number lets one connection take much of the server; a small one makes pages of many parts slow.
    ///
    /// ```nginx
    /// http2_max_concurrent_streams 64;
    /// ```
    "http2_max_concurrent_streams" in SERVERS, ONE, default "128",
        scalar(clamped) http2_max_concurrent_streams: u32 = 128;
    /// Sets how much of a request's body an HTTP/2 client may send before it is read.
    ///
    /// Form: `http2_body_preread_size size`
    ///
    /// - `size`: in bytes, or with `k` or `m`, at most 2147483647: the window with which a stream begins.
    ///
    /// Effect: more may be sent once the body is read, or passed to a backend.
    ///
    /// Cost: up to this much memory for each stream whose body isn't read yet.
    ///
    /// Danger: below 64k requests with a body are refused (REFUSED_STREAM) until the client has acknowledged the
    /// settings; clients repeat them, which takes a round trip.
    ///
    /// ```nginx
    /// http2_body_preread_size 128k;
    /// ```
    "http2_body_preread_size" in SERVERS, ONE, default "64k",
        scalar(preread_size) http2_body_preread_size: usize = 65536;
    /// Lets clients open WebSockets on HTTP/2 connections (RFC 8441), each as a stream.
    ///
    /// Effect: for locations such a request is an upgrade as in HTTP/1, so a `proxy_pass` for WebSockets works for
    /// both. With `off` it isn't offered, and browsers open an HTTP/1 connection.
    ///
    /// ```nginx
    /// server {
    ///     http2 on;
    ///     http2_websocket off;
    /// }
    /// ```
    "http2_websocket" in SERVERS, Args::FLAG, default "on",
        scalar(flag) http2_websocket: bool = true;
    /// Accepted for compatibility: requests take their memory from pools of the worker.
    "http2_pool_size" in SERVERS, ONE, default "4k",
        scalar(pool_size) http2_pool_size: usize = 4096;
    /// Accepted for compatibility: streams are found without an index.
    "http2_streams_index_size" in SERVERS, ONE, default "32",
        scalar(index_size) http2_streams_index_size: usize = 32;
    /// Obsolete: use `keepalive_timeout`. The value is ignored, and a warning says so.
    "http2_idle_timeout" in SERVERS, ONE, default none,
        list(obsolete("keepalive_timeout")) http2_idle_timeout: String;
    /// Obsolete: use `client_header_timeout`. The value is ignored, and a warning says so.
    "http2_recv_timeout" in SERVERS, ONE, default none,
        list(obsolete("client_header_timeout")) http2_recv_timeout: String;
    /// Obsolete: use `keepalive_requests`. The value is ignored, and a warning says so.
    "http2_max_requests" in SERVERS, ONE, default none,
        list(obsolete("keepalive_requests")) http2_max_requests: String;
    /// Obsolete: use `large_client_header_buffers`. The value is ignored, and a warning says so.
    "http2_max_field_size" in SERVERS, ONE, default none,
        list(obsolete("large_client_header_buffers")) http2_max_field_size: String;
    /// Obsolete: use `large_client_header_buffers`. The value is ignored, and a warning says so.
    "http2_max_header_size" in SERVERS, ONE, default none,
        list(obsolete("large_client_header_buffers")) http2_max_header_size: String;
    /// Obsolete: browsers have dropped server push, and nothing is pushed. A warning says so.
    "http2_max_concurrent_pushes" in SERVERS, ONE, default none,
        list(ignored) http2_max_concurrent_pushes: String;
}

conf::table! {
    /// How HTTP/2 sends bodies.
    pub struct Http2Location, raw Http2LocationRaw, module "ngx_http_v2_module", level HTTP Location;

    /// Sets the largest part in which the body of a response is sent over HTTP/2.
    ///
    /// Form: `http2_chunk_size size`
    ///
    /// - `size`: the most bytes of a DATA frame; more than 16777215 counts as that.
    ///
    /// Effect: with smaller parts other responses of the connection, and more important ones, get their turn sooner.
    ///
    /// Cost: each frame takes 9 bytes and some work; a small size makes large responses slower.
    ///
    /// ```nginx
    /// http2_chunk_size 16k;
    /// ```
    "http2_chunk_size" in EVERYWHERE, ONE, default "8k",
        scalar(chunk_size) http2_chunk_size: usize = 8192;
    /// Obsolete: browsers have dropped server push, and nothing is pushed. `early_hints` passes a backend's hints on
    /// instead.
    "http2_push" in EVERYWHERE, ONE, default none,
        list(ignored) http2_push: String;
    /// Obsolete: browsers have dropped server push, and nothing is pushed. `early_hints` passes a backend's hints on
    /// instead.
    "http2_push_preload" in EVERYWHERE, Args::FLAG, default none,
        list(ignored) http2_push_preload: String;
}

conf::table! {
    /// HTTP/2's part of the whole `http {}` block.
    pub struct Http2Main, raw Http2MainRaw, module "ngx_http_v2_module", level HTTP Main;

    /// Accepted for compatibility: what is read takes its memory from pools of the worker.
    "http2_recv_buffer_size" in Context::HTTP, ONE, default "256k",
        scalar(size) http2_recv_buffer_size: usize = 256 << 10;
}

/// The protocol's configuration on a server's connections.
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
        return Err(Error::on(d, "\"http2_streams_index_size\" directive must be a power of two"));
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
