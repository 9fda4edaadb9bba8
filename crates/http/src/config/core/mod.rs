//! The core module's directives: everything of `http {}`, `server {}` and `location {}` that is not a module's own.

mod location;
mod values;

use std::rc::Rc;

use conf::values::{Bufs, bufs, flag, msec, number, size};
use conf::{Args, Context, Directive, Loader};

use common::front::blocks::{listen, server_name};

use super::blocks;
use crate::proto::HttpProto;
pub(crate) use location::CoreLocationRaw;
pub use location::{CoreLocation, VariableConf};
pub(crate) use values::pool_size;
pub use values::{
    Aio, Alias, BodyInFile, DisableSymlinks, FileCache, IfModifiedSince, Lingering, Predicates, Root, Satisfy,
    ServerTokens, Symlinks, TempPath, bytes, idle_flag, permissions, predicates, send_lowat, temp_path,
};

/// Where most directives of locations may stand.
pub const EVERYWHERE: Context = Context::HTTP.or(Context::SERVER).or(Context::LOCATION);
/// The same and `if` in a location.
pub const AND_IF: Context = EVERYWHERE.or(Context::LOCATION_IF);
/// Where directives of servers may stand.
pub const SERVERS: Context = Context::HTTP.or(Context::SERVER);

/// `max_ranges` if it isn't configured: then the cost of the ranges is limited.
pub const UNLIMITED_RANGES: usize = i32::MAX as usize;

const ONE: Args = Args::exactly(1);

conf::table! {
    /// Settings of the whole `http {}` block.
    pub struct CoreMain, raw CoreMainRaw, module "ngx_http_core_module", level HTTP Main;

    /// Sets the configuration of HTTP: its servers, and what they inherit.
    ///
    /// Effect: directives in the block hold for all servers in it. There is one such block in a configuration; without
    /// it nothing of HTTP is served.
    ///
    /// ```nginx
    /// http {
    ///     server {
    ///         listen 127.0.0.1:8080;
    ///         root site;
    ///     }
    /// }
    /// ```
    "http" in Context::MAIN, Args::exactly(0).block(), default none,
        block(blocks::http);
}

conf::table! {
    /// Settings of a server: how its connections and request heads are read.
    pub struct CoreServer, raw CoreServerRaw, module "ngx_http_core_module", level HTTP Server;

    /// Sets the configuration of a virtual server: the addresses on which it accepts connections, the names that it
    /// has, and how it responds.
    ///
    /// Effect: `listen` and `server_name` choose the server of a request. Directives in the block hold for its
    /// requests, and its locations inherit them.
    ///
    /// ```nginx
    /// server {
    ///     listen 127.0.0.1:8080;
    ///     server_name example.com;
    ///     root site;
    ///     location /old/ {
    ///         return 301 /new/;
    ///     }
    /// }
    /// ```
    "server" in Context::HTTP, Args::exactly(0).block(), default none,
        block(blocks::server);
    /// Sets an address and port, or a unix socket, on which the server accepts connections. It may be repeated; servers
    /// may share an address, and are then told apart by `server_name`.
    ///
    /// Form: `listen address[:port] | port | unix:path [parameter ...]`
    ///
    /// - `address[:port]`: an IPv4 address, an IPv6 address in brackets, `*` for all IPv4 addresses, or a name that is
    ///   looked up at the start. Without a port it is 80. A range of ports (`8000-8010`) stands for one address each.
    /// - `port`: the same as `*:port`.
    /// - `unix:path`: a unix socket.
    /// - `default_server`: this server responds to requests whose host matches no `server_name` of the address. Without
    ///   it that is the first server of the address in the file.
    /// - `ssl`: connections speak TLS; the server needs `ssl_certificate`.
    /// - `http2`: deprecated, use the directive `http2`.
    /// - `proxy_protocol`: connections begin with a header of the PROXY protocol, version 1 or 2. Its addresses are in
    ///   `$proxy_protocol_addr` and its relatives.
    /// - `backlog=number`: how many connections may wait to be accepted; the default is 511, and the system's limit
    ///   (`net.core.somaxconn`) holds as well.
    /// - `rcvbuf=size`: SO_RCVBUF of the connections; by default the system chooses.
    /// - `sndbuf=size`: SO_SNDBUF of the connections; by default the system chooses.
    /// - `fastopen=number`: TCP Fast Open, and how many connections may wait whose handshake isn't complete.
    /// - `deferred`: the kernel reports a connection when its first bytes are there (TCP_DEFER_ACCEPT).
    /// - `bind`: a socket of its own for an address that a wildcard on the same port covers. All parameters of the
    ///   socket imply it.
    /// - `ipv6only=on|off`: whether a socket on `[::]` accepts IPv6 connections only; the default is `on`.
    /// - `reuseport`: a socket for each worker (SO_REUSEPORT), so that the kernel distributes connections.
    /// - `so_keepalive=on|off|[idle]:[interval]:[count]`: SO_KEEPALIVE with the given times in seconds and number of
    ///   probes; by default the system's setting holds.
    ///
    /// Effect: the master opens the socket at the start and on a reload; sockets that stay are kept, so no connection
    /// is refused meanwhile. Of servers on one address only one may give the parameters of the socket.
    ///
    /// Cost: a descriptor for each address, with `reuseport` for each worker and address. `backlog` and the buffers are
    /// memory of the kernel.
    ///
    /// Danger: with `proxy_protocol` anybody who can connect directly chooses the address that `$proxy_protocol_addr`
    /// shows: let only your proxies reach the port. `reuseport` can leave one worker with more connections than others.
    /// `fastopen` lets a client's first bytes be replayed.
    ///
    /// ```nginx
    /// server {
    ///     listen 80;
    ///     listen [::]:80;
    ///     server_name example.com;
    /// }
    /// server {
    ///     listen 127.0.0.1:8080 default_server backlog=1024;
    ///     listen unix:example.sock;
    /// }
    /// ```
    "listen" in Context::SERVER, Args::at_least(1), default computed("`listen *:80;`, without the rights of root `listen *:8000;`"),
        block(listen::<HttpProto>);
    /// Sets the names of the server. The host of a request (of `Host`, `:authority`, or the request's line) chooses
    /// among the servers of the address: an exact name first, then the longest name with a wildcard at its beginning,
    /// then the longest with one at its end, then the first regex in the file that matches.
    ///
    /// Form: `server_name name ...`
    ///
    /// - `name`: a name without a port, in any case. `*.example.com` stands for all names below `example.com`,
    ///   `.example.com` for these and the name itself, `www.example.*` for all endings. `""` stands for requests
    ///   without a host.
    /// - `~regex`: a regex that the name must match; upper case in it makes it ignore case. Its named captures become
    ///   variables.
    /// - `$hostname`: the name of the machine.
    ///
    /// Effect: the first name is `$server_name`, and with `server_name_in_redirect` the name in redirects. Requests
    /// with a host that no server has go to the address's default server.
    ///
    /// Cost: exact names and wildcards are found in one lookup, however many there are. Regexes are tried one after the
    /// other.
    ///
    /// Danger: the default server responds to any host that a client makes up. Let it be one that refuses (`return
    /// 444;`) if pages or redirects contain `$host`.
    ///
    /// ```nginx
    /// server {
    ///     server_name example.com www.example.com *.example.org;
    /// }
    /// server {
    ///     server_name ~^(?<user>[a-z]+)\.example\.net$;
    ///     root sites/$user;
    /// }
    /// ```
    "server_name" in Context::SERVER, Args::at_least(1), default computed("`server_name \"\";`"),
        block(server_name::<HttpProto>);
    /// Accepted for compatibility: connections take their memory from pools of the worker.
    "connection_pool_size" in SERVERS, ONE, default "512",
        scalar(pool_size) connection_pool_size: usize = 512;
    /// Accepted for compatibility: requests take their memory from pools of the worker.
    "request_pool_size" in SERVERS, ONE, default "4k",
        scalar(pool_size) request_pool_size: usize = 4096;
    /// Limits the time in which a client must send the whole head of a request.
    ///
    /// Form: `client_header_timeout time`
    ///
    /// - `time`: the time from the first byte of the head to its end; on a new connection also the time until the first
    ///   byte.
    ///
    /// Effect: when the time is over, the connection is closed without a response; if a part of a head has arrived, the
    /// access log shows status 408. On a kept connection `keepalive_timeout` limits the wait for the next request. In a
    /// `server` the value of the address's default server holds, as the host isn't known yet.
    ///
    /// Cost: a connection that sends slowly keeps its descriptor and its buffer for so long.
    ///
    /// Danger: a long time lets few clients that send a byte now and then hold many connections. A short one cuts off
    /// clients on slow networks.
    ///
    /// ```nginx
    /// client_header_timeout 15s;
    /// ```
    "client_header_timeout" in SERVERS, ONE, default "60s",
        scalar(msec) client_header_timeout: u64 = 60_000;
    /// Sets the size of the buffer into which the beginning of a request is read.
    ///
    /// Form: `client_header_buffer_size size`
    ///
    /// - `size`: in bytes, or with `k` or `m`.
    ///
    /// Effect: a head that is larger takes `large_client_header_buffers`. In a `server` the value of the address's
    /// default server holds, as the host isn't known yet.
    ///
    /// Cost: this much memory for each request whose head is being read; idle connections hold none. A head that
    /// doesn't fit takes further reads and a larger buffer.
    ///
    /// ```nginx
    /// client_header_buffer_size 2k;
    /// ```
    "client_header_buffer_size" in SERVERS, ONE, default "1k",
        scalar(size) client_header_buffer_size: usize = 1024;
    /// Sets number and size of the buffers for heads of requests that don't fit into `client_header_buffer_size`.
    ///
    /// Form: `large_client_header_buffers number size`
    ///
    /// - `number`: how many such buffers a head may fill.
    /// - `size`: the size of one buffer. The request line must fit into one, and so must each header field.
    ///
    /// Effect: a request line longer than one buffer is refused with status 414, a longer field or a head that fills
    /// all buffers with 400. In HTTP/2 the size limits each name and each value, and number times size limits the whole
    /// head. In a `server` the value of the address's default server holds, as the host isn't known yet.
    ///
    /// Cost: up to number times size of memory for each request whose head is being read; only what a head needs is
    /// taken.
    ///
    /// Danger: large values let each connection take as much memory before its request is known. Long cookies or tokens
    /// need a larger size: 16k, say.
    ///
    /// ```nginx
    /// large_client_header_buffers 4 16k;
    /// ```
    "large_client_header_buffers" in SERVERS, Args::exactly(2), default "4 8k",
        scalar(bufs) large_client_header_buffers: Bufs = Bufs { count: 4, size: 8192 };
    /// Limits how many header fields a request may have.
    ///
    /// Form: `max_headers number`
    ///
    /// - `number`: the number of fields.
    ///
    /// Effect: a request with more is refused with status 400. In a `server` the value of the address's default server
    /// holds, as the host isn't known yet; under TLS that of the name in the handshake.
    ///
    /// Cost: each field takes a few bytes of memory and is compared where fields are looked for.
    ///
    /// ```nginx
    /// max_headers 100;
    /// ```
    "max_headers" in SERVERS, ONE, default "1000",
        scalar(number) max_headers: usize = 1000;
    /// Ignores header fields with invalid names. Valid names consist of letters, digits, hyphens and, with
    /// `underscores_in_headers on`, underscores.
    ///
    /// Effect: with `on` such a field is left out, as if the client hadn't sent it, and a line in the error log
    /// (`info`) says so. With `off` the field is kept. In a `server` the value of the address's default server holds,
    /// as the host isn't known yet.
    ///
    /// Danger: with `off` backends get names that they may confuse with other ones.
    ///
    /// ```nginx
    /// ignore_invalid_headers on;
    /// ```
    "ignore_invalid_headers" in SERVERS, Args::FLAG, default "on",
        scalar(flag) ignore_invalid_headers: bool = true;
    /// Replaces two or more adjacent slashes in a URI by one.
    ///
    /// Effect: locations, `rewrite` and paths of files see the URI with single slashes; `$request_uri` stays as it was
    /// sent.
    ///
    /// Danger: with `off` a prefix that protects a folder doesn't match the same path with two slashes: `location
    /// /private/` isn't used for `//private/`, while the file system finds the same file.
    ///
    /// ```nginx
    /// merge_slashes off;
    /// ```
    "merge_slashes" in SERVERS, Args::FLAG, default "on",
        scalar(flag) merge_slashes: bool = true;
    /// Accepts underscores in the names of header fields.
    ///
    /// Effect: with `off` a name that contains an underscore is invalid, and `ignore_invalid_headers` says what
    /// follows. In a `server` the value of the address's default server holds, as the host isn't known yet.
    ///
    /// Danger: many backends turn hyphens into underscores, so that `X_Real_IP` of a client looks to them like the
    /// field `X-Real-IP` that a proxy sets.
    ///
    /// ```nginx
    /// underscores_in_headers on;
    /// ```
    "underscores_in_headers" in SERVERS, Args::FLAG, default "off",
        scalar(flag) underscores_in_headers: bool = false;
    /// Reads the bodies of requests before a location is looked for, so that locations, rules and checks of access may
    /// depend on `$request_body`.
    ///
    /// Form: `client_body_early_read condition ...`
    ///
    /// - `condition`: a text with variables. The body is read if at least one is neither empty nor `0`: `on` and any other
    ///   word always holds, `off` too.
    ///
    /// Effect: the server's values of `client_max_body_size`, `client_body_buffer_size` and the like hold while it is read;
    /// after that the location's `client_max_body_size` is checked too. `client_body_in_file_only` has no effect. Backends
    /// get the body once it is complete.
    ///
    /// Cost: each such body is in memory, or in a file, before anybody has checked who may send it.
    ///
    /// Danger: `$request_body` is empty for a body that went to a file: give `client_body_buffer_size` the size of
    /// `client_max_body_size`. Streams of gRPC that go both ways would wait for ever.
    ///
    /// ```nginx
    /// server {
    ///     client_body_early_read on;
    ///     client_max_body_size 16k;
    ///     client_body_buffer_size 16k;
    ///     location / {
    ///         return 200 $request_body;
    ///     }
    /// }
    /// ```
    "client_body_early_read" in SERVERS, Args::at_least(1), default none,
        set(|raw: &mut CoreServerRaw, l: &mut Loader<'_>, d: &Directive| {
            let conditions = raw.client_body_early_read.iter().flat_map(|known| known.iter().cloned());
            let conditions = conditions.chain(predicates(l, d)?.iter().cloned()).collect();
            raw.client_body_early_read = Some(conditions);
            Ok(())
        }) client_body_early_read: Predicates = Rc::new([]);
}
