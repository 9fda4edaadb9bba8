//! The core module's directives: `stream`, `server`, `listen` and what else every server has.

use common::front::blocks;
use common::front::conf::CoreConf;
use conf::values::{msec, size};
use conf::{Args, Context, Directive, Loader, Result};

use crate::module;
use crate::proto::{EVERYWHERE, StreamProto};

const ONE: Args = Args::exactly(1);

conf::table! {
    /// The block.
    pub struct CoreMain, raw CoreMainRaw, module "ngx_stream_core_module", level MAIN Main;

    /// Sets the configuration of TCP and UDP: servers that pass connections and datagrams on as they are.
    ///
    /// Effect: directives in the block hold for all servers in it. There is one such block in a configuration, beside
    /// `http`.
    ///
    /// ```nginx
    /// stream {
    ///     server {
    ///         listen 127.0.0.1:5432;
    ///         proxy_pass 127.0.0.1:5433;
    ///     }
    /// }
    /// ```
    "stream" in Context::MAIN, Args::exactly(0).block(), default none,
        block(stream);
}

conf::table! {
    /// Settings of a server.
    pub struct CoreServer, raw CoreServerRaw, module "ngx_stream_core_module", level STREAM Server;

    under "" {
        /// What other protocols have too.
        shared: CoreConf<StreamProto> [resolving, sockets, logs];
    }
    /// Sets the configuration of a server: the addresses on which it accepts connections or datagrams, and where they go.
    ///
    /// Effect: `listen` chooses the server of a session; where several listen on one address, the name that the client
    /// gives in its TLS handshake does (`server_name`). A server needs `proxy_pass`, `return` or `pass`.
    ///
    /// ```nginx
    /// server {
    ///     listen 127.0.0.1:5432;
    ///     proxy_pass 127.0.0.1:5433;
    /// }
    /// ```
    "server" in Context::STREAM, Args::exactly(0).block(), default none,
        block(blocks::server::<StreamProto>);
    /// Sets an address and port, or a unix socket, on which the server accepts connections or datagrams. It may be repeated;
    /// servers may share an address, and are then told apart by `server_name`.
    ///
    /// Form: `listen address:port | port | unix:path [parameter ...]`
    ///
    /// - `address:port`: an IPv4 address, an IPv6 address in brackets, `*` for all IPv4 addresses, or a name that is looked up
    ///   at the start. A range of ports (`8000-8010`) stands for one address each.
    /// - `port`: the same as `*:port`.
    /// - `unix:path`: a unix socket.
    /// - `default_server`: this server gets the sessions whose name matches no `server_name` of the address. Without it that
    ///   is the first server of the address in the file.
    /// - `ssl`: connections speak TLS, which ends here; the server needs `ssl_certificate`.
    /// - `udp`: the socket is for datagrams. Those of one client are a session (see `proxy_requests` and `proxy_responses`).
    /// - `proxy_protocol`: connections begin with a header of the PROXY protocol, version 1 or 2. Its addresses are in
    ///   `$proxy_protocol_addr` and its relatives. With `udp` the first datagram of a session begins with it; what begins
    ///   with none is dropped.
    /// - `proxy_protocol=each`: with `udp`, each datagram begins with a header; the first one's counts.
    /// - `backlog=number`: how many connections may wait to be accepted; the default is 511, and the system's limit
    ///   (`net.core.somaxconn`) holds as well.
    /// - `rcvbuf=size`: SO_RCVBUF; by default the system chooses.
    /// - `sndbuf=size`: SO_SNDBUF; by default the system chooses.
    /// - `fastopen=number`: TCP Fast Open, and how many connections may wait whose handshake isn't complete.
    /// - `deferred`: the kernel reports a connection when its first bytes are there (TCP_DEFER_ACCEPT).
    /// - `bind`: a socket of its own for an address that a wildcard on the same port covers. All parameters of the socket
    ///   imply it.
    /// - `ipv6only=on|off`: whether a socket on `[::]` accepts IPv6 connections only; the default is `on`.
    /// - `reuseport`: a socket for each worker (SO_REUSEPORT), so that the kernel distributes connections and datagrams. With
    ///   `udp` it makes all datagrams of a client reach the same worker.
    /// - `so_keepalive=on|off|[idle]:[interval]:[count]`: SO_KEEPALIVE with the given times in seconds and number of probes;
    ///   by default the system's setting holds.
    ///
    /// Effect: the master opens the socket at the start and on a reload; sockets that stay are kept, so no connection is
    /// refused meanwhile. Of servers on one address only one may give the parameters of the socket.
    ///
    /// Danger: with `proxy_protocol` anybody who can connect directly chooses the address that `$proxy_protocol_addr` shows:
    /// let only your proxies reach the port. With `deferred` and `fastopen`, protocols in which the server speaks first don't
    /// work, or begin late.
    ///
    /// ```nginx
    /// server {
    ///     listen 127.0.0.1:5432 so_keepalive=30s::10;
    ///     listen [::1]:5432;
    ///     proxy_pass 127.0.0.1:5433;
    /// }
    /// ```
    "listen" in Context::STREAM_SERVER, Args::at_least(1), default none,
        block(blocks::listen::<StreamProto>);
    /// Sets the names of the server. The name that a client gives in its TLS handshake (SNI) chooses among the servers of the
    /// address: an exact name first, then the longest name with a wildcard at its beginning, then the longest with one at its
    /// end, then the first regex in the file that matches.
    ///
    /// Form: `server_name name ...`
    ///
    /// - `name`: a host name, with or without a wildcard (`*.example.com`, `www.example.*`); `.example.com` stands for
    ///   `example.com` and `*.example.com`; after `~` a regex, whose captures may be used in other directives; `$hostname` is
    ///   this machine's name.
    ///
    /// Effect: it needs TLS that ends here (`listen ... ssl`), or `ssl_preread`. Sessions without a name, or with another one,
    /// get the default server of the address. The first name is `$server_name`.
    ///
    /// ```nginx
    /// server {
    ///     listen 127.0.0.1:8443 ssl;
    ///     server_name database.example.com;
    ///     ssl_certificate site.crt;
    ///     ssl_certificate_key site.key;
    ///     proxy_pass 127.0.0.1:5433;
    /// }
    /// ```
    "server_name" in Context::STREAM_SERVER, Args::at_least(1), default computed("no name"),
        block(blocks::server_name::<StreamProto>);
    /// Limits the time in which a client must send the whole header of the PROXY protocol.
    ///
    /// Form: `proxy_protocol_timeout time`
    ///
    /// - `time`: counted from when the connection was accepted.
    ///
    /// Effect: when the time is over, the connection is closed.
    ///
    /// ```nginx
    /// proxy_protocol_timeout 5s;
    /// ```
    "proxy_protocol_timeout" in EVERYWHERE, ONE, default "30s",
        scalar(msec) proxy_protocol_timeout: u64 = 30_000;
    /// Limits how many of a client's first bytes are looked at before the session is passed on.
    ///
    /// Form: `preread_buffer_size size`
    ///
    /// - `size`: in bytes, or with `k` or `m`.
    ///
    /// Effect: a client whose first message is longer is refused, with status 400 in the log. It matters only where
    /// something looks at them, such as `ssl_preread`.
    ///
    /// Cost: up to this much memory for each such session until it is passed on.
    ///
    /// ```nginx
    /// preread_buffer_size 4k;
    /// ```
    "preread_buffer_size" in EVERYWHERE, ONE, default "16k",
        scalar(size) preread_buffer_size: usize = 16384;
    /// Limits the time in which a client must send its first message, where something looks at it.
    ///
    /// Form: `preread_timeout time`
    ///
    /// - `time`: for all of the message.
    ///
    /// Effect: when the time is over, the session ends.
    ///
    /// ```nginx
    /// preread_timeout 5s;
    /// ```
    "preread_timeout" in EVERYWHERE, ONE, default "30s",
        scalar(msec) preread_timeout: u64 = 30_000;
}

fn stream(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    blocks::block::<StreamProto>(loader, d, |loader| module::define_variables(loader.store.entry()))
}
