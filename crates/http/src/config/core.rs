//! The core module's directives: everything of `http {}`, `server {}` and `location {}` that is not a module's own.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use conf::values::{Bufs, bitmask, bufs, flag, msec, number, offset, one_of, sec, size};
use conf::{Args, Context, Directive, Error, Loader, Result};
use engine::log::ErrorLog;
use expr::vars::Template;
use upstream::Resolver;

use super::blocks;
use super::mime::Types;
use super::resolve;
use crate::config::error_page::{self, ErrorPage};
use crate::request::variables::{self, size_template};

/// Where most directives of locations may stand.
pub const EVERYWHERE: Context = Context::HTTP.or(Context::SERVER).or(Context::LOCATION);
/// The same and `if` in a location.
pub const AND_IF: Context = EVERYWHERE.or(Context::LOCATION_IF);
/// Where directives of servers may stand.
pub const SERVERS: Context = Context::HTTP.or(Context::SERVER);

/// `max_ranges` where it isn't configured: their cost is the limit.
pub const UNLIMITED_RANGES: usize = i32::MAX as usize;

const ONE: Args = Args::exactly(1);

conf::table! {
    /// What belongs to the whole `http {}` block.
    pub struct CoreMain, raw CoreMainRaw, module "ngx_http_core_module", level HTTP Main;

    /// Opens the configuration of HTTP.
    "http" in Context::MAIN, Args::exactly(0).block(), default none,
        block(blocks::http);
    /// Accepted for compatibility: Tidegate's tables size themselves.
    "variables_hash_max_size" in Context::HTTP, ONE, default "1024",
        scalar(number) variables_hash_max_size: usize = 1024;
    /// Accepted for compatibility: Tidegate's tables size themselves.
    "variables_hash_bucket_size" in Context::HTTP, ONE, default "64",
        scalar(number) variables_hash_bucket_size: usize = 64;
    /// Accepted for compatibility: Tidegate's tables size themselves.
    "server_names_hash_max_size" in Context::HTTP, ONE, default "512",
        scalar(number) server_names_hash_max_size: usize = 512;
    /// Accepted for compatibility: Tidegate's tables size themselves.
    "server_names_hash_bucket_size" in Context::HTTP, ONE, default "64",
        scalar(number) server_names_hash_bucket_size: usize = 64;
}

conf::table! {
    /// What belongs to a server: how its connections and request heads are read.
    pub struct CoreServer, raw CoreServerRaw, module "ngx_http_core_module", level HTTP Server;

    /// Sets the configuration of a virtual server.
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
        block(blocks::listen);
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
        block(blocks::server_name);
    /// Accepted for compatibility: connections take their memory from pools of the worker.
    "connection_pool_size" in SERVERS, ONE, default "512",
        scalar(pool_size) connection_pool_size: usize = 512;
    /// Accepted for compatibility: requests take their memory from pools of the worker.
    "request_pool_size" in SERVERS, ONE, default "4k",
        scalar(pool_size) request_pool_size: usize = 4096;
    /// How long a client may take for the whole head of a request; then 408, or silence if it sent nothing.
    "client_header_timeout" in SERVERS, ONE, default "60s",
        scalar(msec) client_header_timeout: u64 = 60_000;
    /// The buffer in which a request's head is read first.
    "client_header_buffer_size" in SERVERS, ONE, default "1k",
        scalar(size) client_header_buffer_size: usize = 1024;
    /// Number and size of the buffers for larger heads. A request line longer than one of them is answered with 414, a
    /// header field with 400.
    "large_client_header_buffers" in SERVERS, Args::exactly(2), default "4 8k",
        scalar(bufs) large_client_header_buffers: Bufs = Bufs { count: 4, size: 8192 };
    /// How many header fields a request may have.
    "max_headers" in SERVERS, ONE, default "1000",
        scalar(number) max_headers: usize = 1000;
    /// Whether header fields with invalid names are ignored rather than answered with 400.
    "ignore_invalid_headers" in SERVERS, Args::FLAG, default "on",
        scalar(flag) ignore_invalid_headers: bool = true;
    /// Whether two or more adjacent slashes in a URI become one.
    "merge_slashes" in SERVERS, Args::FLAG, default "on",
        scalar(flag) merge_slashes: bool = true;
    /// Whether underscores are valid in names of header fields.
    "underscores_in_headers" in SERVERS, Args::FLAG, default "off",
        scalar(flag) underscores_in_headers: bool = false;
}

/// `satisfy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Satisfy {
    /// Every access module must allow the request.
    All,
    /// One is enough.
    Any,
}

/// `server_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerTokens {
    /// The name alone.
    Off,
    /// Name and version.
    On,
    /// Name, version and build.
    Build,
}

/// `if_modified_since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfModifiedSince {
    /// A response is always taken as modified.
    Off,
    /// The times must be equal.
    Exact,
    /// The response must not be younger.
    Before,
}

/// `lingering_close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lingering {
    /// Close at once.
    Off,
    /// Read on for a while if the client may still be sending.
    On,
    /// Read on in any case.
    Always,
}

/// `client_body_in_file_only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyInFile {
    /// Only what doesn't fit the buffer.
    Off,
    /// Always, and the file stays.
    On,
    /// Always, and the file goes with the request.
    Clean,
}

/// `aio`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aio {
    /// Files are read in the worker.
    Off,
    /// The kernel's own asynchronous reads (taken as off: the ring driver has its own).
    On,
    /// In threads of the pool with this name.
    Threads(Rc<str>),
}

/// `disable_symlinks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisableSymlinks {
    /// Off, on, or only where link and target have different owners.
    pub mode: Symlinks,
    /// The leading part of the path that is not checked.
    pub from: Option<Rc<Template>>,
}

/// Which symbolic links are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symlinks {
    /// None.
    Allowed,
    /// All.
    Denied,
    /// Those of another owner than their target.
    IfNotOwner,
}

/// `root` or `alias`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The folder.
    pub path: Rc<Template>,
    /// Whether it replaces a part of the URI rather than being put before it.
    pub alias: Option<Alias>,
    /// Its text in the file.
    pub text: Rc<str>,
}

/// What an `alias` replaces: settled by the location in which it stands, also for locations inside that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alias {
    /// The first bytes of the URI: the location's name.
    Prefix(usize),
    /// All of it: the location is found by a regex.
    All,
}

/// `open_file_cache`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileCache {
    /// How many elements.
    pub max: usize,
    /// After how many seconds without use one goes.
    pub inactive: u64,
}

/// Conditions of which one must be neither empty nor `0`.
pub type Predicates = Rc<[Rc<Template>]>;

conf::table! {
    /// How variables are read; a directive of the rewrite module, since rules set them.
    pub struct VariableConf, raw VariableRaw, module "ngx_http_rewrite_module", level HTTP Location;

    /// Whether a warning is logged when a variable is read that was never set; it is empty then.
    "uninitialized_variable_warn" in EVERYWHERE.or(Context::SERVER_IF).or(Context::LOCATION_IF), Args::FLAG, default "on",
        scalar(flag) uninitialized_variable_warn: bool = true;
}

conf::table! {
    /// What belongs to a location.
    pub struct CoreLocation, raw CoreLocationRaw, module "ngx_http_core_module", level HTTP Location;

    /// Sets the configuration of requests whose URI begins with a prefix or matches a regex. The URI is compared in its
    /// normalised form: decoded, without `.` and `..`, with adjacent slashes merged.
    ///
    /// Form: `location [= | ^~ | ~ | ~*] uri | @name`
    ///
    /// - `uri`: a prefix. The longest one that matches is remembered; regexes are tried after that, and the first one
    ///   that matches is used instead.
    /// - `=`: the URI must be equal; no other location is looked for.
    /// - `^~`: a prefix; if it is the longest one, no regexes are tried.
    /// - `~`: a regex, which distinguishes upper and lower case.
    /// - `~*`: a regex that ignores case.
    /// - `@name`: a named location, for internal redirects of `error_page`, `try_files` and the like only.
    ///
    /// Effect: directives in the block hold for its requests; what isn't set is inherited from the block around it. A
    /// location whose prefix ends with `/` and that has a `proxy_pass` redirects requests for the prefix without the
    /// slash to the one with it, with status 301.
    ///
    /// Cost: prefixes are found by a binary search. Regexes are tried one after the other, in the order of the file.
    ///
    /// Danger: rules for access in one location don't hold in another one that also fits the URI: a regex that matches
    /// wins over the prefix that protects a folder, unless that has `^~`.
    ///
    /// ```nginx
    /// server {
    ///     location = / {
    ///         return 302 /index.html;
    ///     }
    ///     location ^~ /images/ {
    ///         root static;
    ///     }
    ///     location ~* \.(gif|jpg|png)$ {
    ///         expires 30d;
    ///     }
    ///     location / {
    ///         error_page 404 = @fallback;
    ///     }
    ///     location @fallback {
    ///         proxy_pass http://127.0.0.1:8080;
    ///     }
    /// }
    /// ```
    "location" in Context::SERVER.or(Context::LOCATION), Args::between(1, 2).block(), default none,
        block(blocks::location);
    /// Limits methods: the block holds for all others than those named.
    "limit_except" in Context::LOCATION, Args::at_least(1).block(), default none,
        block(blocks::limit_except);
    /// Maps extensions of file names to media types.
    "types" in EVERYWHERE, Args::exactly(0).block(), default "text/html html; image/gif gif; image/jpeg jpg;",
        set(blocks::types) types: Rc<Types> = Types::default_types();
    /// Accepted for compatibility: Tidegate's tables size themselves.
    "types_hash_max_size" in EVERYWHERE, ONE, default "1024",
        scalar(number) types_hash_max_size: usize = 1024;
    /// Accepted for compatibility: Tidegate's tables size themselves.
    "types_hash_bucket_size" in EVERYWHERE, ONE, default "64",
        scalar(number) types_hash_bucket_size: usize = 64;
    /// The media type where `types` has none.
    "default_type" in EVERYWHERE, ONE, default "text/plain",
        scalar(bytes) default_type: buf::Bytes = buf::Bytes::from_static(b"text/plain");
    /// Sets the folder of the files that respond to requests. The path of a file is the folder followed by the whole
    /// URI, that of the location included.
    ///
    /// Form: `root path`
    ///
    /// - `path`: a folder; a relative one starts at the prefix (`-p`). It may contain variables, but not
    ///   `$document_root` and `$realpath_root`.
    ///
    /// Effect: a request for `/i/a.gif` is responded to with the file `path/i/a.gif`. `alias` replaces the location's
    /// part of the URI instead. The folder is `$document_root`.
    ///
    /// Cost: a path with variables is computed for each request.
    ///
    /// Danger: all files below the folder can be requested, hidden ones too (`.git`, `.env`). A variable that the
    /// client controls (`$host`, `$arg_x`) lets it choose the folder: check the value by a `map` or a regex.
    ///
    /// ```nginx
    /// server {
    ///     root site;
    ///     location ~ /\. {
    ///         deny all;
    ///     }
    /// }
    /// ```
    "root" in AND_IF, ONE, default "html",
        set(root) root: Option<Root> = None;
    /// Sets the folder that replaces the location's part of the URI.
    ///
    /// Form: `alias path`
    ///
    /// - `path`: a folder, or with a location that is found by a regex, the path of the file. A relative one starts at
    ///   the prefix (`-p`). It may contain variables, but not `$document_root` and `$realpath_root`; with a regex
    ///   location it should contain the regex's captures.
    ///
    /// Effect: in `location /i/` with `alias images/` a request for `/i/a.gif` is responded to with the file
    /// `images/a.gif`. If the path ends like the location's prefix, `root` says the same.
    ///
    /// Danger: if the location's prefix doesn't end with a slash and the path does, as in `location /i` with `alias
    /// images/`, then `/i../secret` leads to `images/../secret`, which is outside the folder. Either both end with a
    /// slash or neither.
    ///
    /// ```nginx
    /// location /i/ {
    ///     alias images/;
    /// }
    /// location ~ ^/users/(.+\.(?:gif|jpg))$ {
    ///     alias users/images/$1;
    /// }
    /// ```
    "alias" in Context::LOCATION, ONE, default none,
        also(alias);
    /// Sets the largest body that a request may have.
    ///
    /// Form: `client_max_body_size size`
    ///
    /// - `size`: in bytes, or with `k`, `m` or `g`; `0` is no limit.
    ///
    /// Effect: a request with a larger `Content-Length` is refused with status 413 before its body is read; one whose
    /// length isn't declared, as soon as it has sent more.
    ///
    /// Cost: up to this much space in `client_body_temp_path` for each request whose body is larger than
    /// `client_body_buffer_size` and is read whole, as it is before a backend is asked (`proxy_request_buffering on`).
    ///
    /// Danger: with `0` or a large size a few clients can fill the disk. Set a large size only in the locations that
    /// accept uploads.
    ///
    /// ```nginx
    /// server {
    ///     client_max_body_size 1m;
    ///     location /upload/ {
    ///         client_max_body_size 2g;
    ///         proxy_pass http://127.0.0.1:8080;
    ///     }
    /// }
    /// ```
    "client_max_body_size" in EVERYWHERE, ONE, default "1m",
        scalar(offset) client_max_body_size: u64 = 1 << 20;
    /// How much of a request's body is kept in memory; more goes to a temporary file.
    "client_body_buffer_size" in EVERYWHERE, ONE, default "16k",
        scalar(size) client_body_buffer_size: usize = 16 << 10;
    /// How long a client may pause between two parts of a request's body; then 408.
    "client_body_timeout" in EVERYWHERE, ONE, default "60s",
        scalar(msec) client_body_timeout: u64 = 60_000;
    /// The folder for request bodies in files, with up to three levels of folders in it.
    "client_body_temp_path" in EVERYWHERE, Args::between(1, 4), default computed("`client_body_temp` in the program's folder for temporary files"),
        scalar(temp_path) client_body_temp_path: TempPath = TempPath::new("client_body_temp");
    /// Whether a request's body is always put into a file.
    "client_body_in_file_only" in EVERYWHERE, ONE, default "off",
        scalar(one_of(&[
            ("off", BodyInFile::Off), ("on", BodyInFile::On), ("clean", BodyInFile::Clean),
        ])) client_body_in_file_only: BodyInFile = BodyInFile::Off;
    /// Accepted for compatibility: a body in memory is one buffer where `$request_body` needs it.
    "client_body_in_single_buffer" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) client_body_in_single_buffer: bool = false;
    /// Whether files are sent by the kernel without being read into the worker.
    "sendfile" in AND_IF, Args::FLAG, default "off",
        scalar(flag) sendfile: bool = false;
    /// How much one call may send from a file.
    "sendfile_max_chunk" in EVERYWHERE, ONE, default "2m",
        scalar(size) sendfile_max_chunk: usize = 2 << 20;
    /// The largest response of a subrequest that is kept in memory.
    "subrequest_output_buffer_size" in EVERYWHERE, ONE, default "4k",
        scalar(size) subrequest_output_buffer_size: usize = 4096;
    /// Name servers, asked in turn for the addresses of names that are only known while the server runs: those in
    /// `proxy_pass` with variables, those of OCSP responders. `valid=` keeps answers for so long, whatever they say;
    /// `ipv4=off` and `ipv6=off` leave out addresses of a kind. `status_zone=` has no effect.
    "resolver" in EVERYWHERE, Args::at_least(1), default none,
        scalar(resolve::resolver) resolver: Option<Rc<Resolver>> = None;
    /// How long a name may be looked up.
    "resolver_timeout" in EVERYWHERE, ONE, default "30s",
        scalar(msec) resolver_timeout: u64 = 30_000;
    /// Whether files that are read rather than sent by the kernel are read in threads: `threads` or `threads=POOL`. `on`
    /// has no effect, and a warning says so.
    "aio" in EVERYWHERE, ONE, default "off",
        scalar(aio) aio: Aio = Aio::Off;
    /// Accepted for compatibility, with a warning: temporary files are written in the worker.
    "aio_write" in EVERYWHERE, Args::FLAG, default "off",
        scalar(|l: &mut Loader<'_>, d: &Directive| {
            idle_flag(l, d, true, "temporary files are written in the worker")
        }) aio_write: bool = false;
    /// Accepted for compatibility: the kernel's own read-ahead is used.
    "read_ahead" in EVERYWHERE, ONE, default "0",
        scalar(size) read_ahead: usize = 0;
    /// Accepted for compatibility, with a warning: files of any size are read through the page cache.
    "directio" in EVERYWHERE, ONE, default "off",
        scalar(directio) directio: Option<u64> = None;
    /// Accepted for compatibility: the alignment for `directio`.
    "directio_alignment" in EVERYWHERE, ONE, default "512",
        scalar(offset) directio_alignment: u64 = 512;
    /// Whether a response's head and the beginning of its file go out in one packet.
    "tcp_nopush" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) tcp_nopush: bool = false;
    /// Whether small packets are sent without delay.
    "tcp_nodelay" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) tcp_nodelay: bool = true;
    /// How long a client may take between two reads of the response; then the connection is closed.
    "send_timeout" in EVERYWHERE, ONE, default "60s",
        scalar(msec) send_timeout: u64 = 60_000;
    /// Accepted for compatibility: it does nothing on Linux.
    "send_lowat" in EVERYWHERE, ONE, default "0",
        scalar(send_lowat) send_lowat: usize = 0;
    /// Output is held back until there is this much, or its end.
    "postpone_output" in EVERYWHERE, ONE, default "1460",
        scalar(size) postpone_output: usize = 1460;
    /// How many bytes a second a response may take; 0 for no limit.
    "limit_rate" in AND_IF, ONE, default "0",
        scalar(size_template) limit_rate: Option<Rc<Template>> = None;
    /// How many bytes go out before `limit_rate` holds.
    "limit_rate_after" in AND_IF, ONE, default "0",
        scalar(size_template) limit_rate_after: Option<Rc<Template>> = None;
    /// After which time a keep-alive connection is closed behind its next request.
    "keepalive_time" in EVERYWHERE, ONE, default "1h",
        scalar(msec) keepalive_time: u64 = 3_600_000;
    /// Sets how long a client's connection stays open without a request.
    ///
    /// Form: `keepalive_timeout timeout [header_timeout]`
    ///
    /// - `timeout`: a time; `0` closes every connection after its response.
    /// - `header_timeout`: a time that the field `Keep-Alive: timeout=` of responses shows to clients. Without it the
    ///   field isn't sent.
    ///
    /// Effect: the time counts from the end of a response. Afterwards the connection is closed. `keepalive_requests`
    /// and `keepalive_time` limit connections that are used.
    ///
    /// Cost: an idle connection takes a descriptor, one of `worker_connections` and a few hundred bytes of memory, more
    /// with TLS; it holds no buffers.
    ///
    /// Danger: `0` makes each request pay for a connection, and with TLS for a handshake. A client may use a connection
    /// in the moment in which it is closed; some don't repeat a POST then.
    ///
    /// ```nginx
    /// keepalive_timeout 75s 60s;
    /// ```
    "keepalive_timeout" in EVERYWHERE, Args::between(1, 2), default "75s",
        scalar(keepalive_timeout) keepalive_timeout: (u64, Option<u64>) = (75_000, None);
    /// How long an idle connection is not closed for a graceful shutdown or for want of connections.
    "keepalive_min_timeout" in EVERYWHERE, ONE, default "0",
        scalar(msec) keepalive_min_timeout: u64 = 0;
    /// How many requests a connection serves.
    "keepalive_requests" in EVERYWHERE, ONE, default "1000",
        scalar(number) keepalive_requests: usize = 1000;
    /// Browsers whose connections aren't kept.
    "keepalive_disable" in EVERYWHERE, Args::between(1, 2), default "msie6",
        set(|raw: &mut CoreLocationRaw, l: &mut Loader<'_>, d: &Directive| bitmask(&mut raw.keepalive_disable, &[("none", 1), ("msie6", 2), ("safari", 4)], l, d))
        keepalive_disable: u32 = 2;
    /// Whether all access modules must allow a request, or any.
    "satisfy" in EVERYWHERE, ONE, default "all",
        scalar(one_of(&[("all", Satisfy::All), ("any", Satisfy::Any)]))
        satisfy: Satisfy = Satisfy::All;
    /// Accepted for compatibility, with a warning: there is no authentication yet whose failure could be delayed.
    "auth_delay" in EVERYWHERE, ONE, default "0",
        scalar(auth_delay) auth_delay: u64 = 0;
    /// Only internal requests find this location; others get 404.
    "internal" in Context::LOCATION, Args::exactly(0), default none,
        set(|raw: &mut CoreLocationRaw, _: &mut Loader<'_>, d: &Directive| {
            conf::once(&raw.internal, d)?;
            raw.internal = Some(true);
            Ok(())
        }) internal: bool = false;
    /// Whether data that a client still sends is read and thrown away before its connection is closed.
    "lingering_close" in EVERYWHERE, ONE, default "on",
        scalar(one_of(&[
            ("off", Lingering::Off), ("on", Lingering::On), ("always", Lingering::Always),
        ])) lingering_close: Lingering = Lingering::On;
    /// For how long in all.
    "lingering_time" in EVERYWHERE, ONE, default "30s",
        scalar(msec) lingering_time: u64 = 30_000;
    /// How long to wait for more.
    "lingering_timeout" in EVERYWHERE, ONE, default "5s",
        scalar(msec) lingering_timeout: u64 = 5_000;
    /// Whether timed-out connections are reset, so that the kernel keeps nothing of them.
    "reset_timedout_connection" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) reset_timedout_connection: bool = false;
    /// Whether redirects carry scheme and host.
    "absolute_redirect" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) absolute_redirect: bool = true;
    /// Whether redirects name the server's first `server_name` rather than the client's Host.
    "server_name_in_redirect" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) server_name_in_redirect: bool = false;
    /// Whether redirects name the port.
    "port_in_redirect" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) port_in_redirect: bool = true;
    /// Whether error pages are padded to 512 bytes for MSIE and Chrome.
    "msie_padding" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) msie_padding: bool = true;
    /// Whether MSIE gets refreshes instead of redirects.
    "msie_refresh" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) msie_refresh: bool = false;
    /// Whether files that aren't there are logged as errors.
    "log_not_found" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) log_not_found: bool = true;
    /// Whether subrequests have lines of their own in the access log.
    "log_subrequest" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) log_subrequest: bool = false;
    /// Whether an error on an error page may lead to another error page.
    "recursive_error_pages" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) recursive_error_pages: bool = false;
    /// What the field `Server` and error pages tell of the server.
    "server_tokens" in EVERYWHERE, ONE, default "on",
        scalar(one_of(&[
            ("off", ServerTokens::Off), ("on", ServerTokens::On), ("build", ServerTokens::Build),
        ])) server_tokens: ServerTokens = ServerTokens::On;
    /// How `If-Modified-Since` is compared.
    "if_modified_since" in EVERYWHERE, ONE, default "exact",
        scalar(one_of(&[
            ("off", IfModifiedSince::Off), ("exact", IfModifiedSince::Exact), ("before", IfModifiedSince::Before),
        ])) if_modified_since: IfModifiedSince = IfModifiedSince::Exact;
    /// Conditions of which one must hold for early hints (103) of backends to be passed on.
    "early_hints" in EVERYWHERE, Args::at_least(1), default none,
        scalar(predicates) early_hints: Predicates = Rc::new([]);
    /// How many ranges a request may ask for; 0 turns ranges off. By default their number isn't limited, but their
    /// cost is: the whole file is sent if the parts, at 256 bytes each beside their content, would take over 4096 bytes
    /// more than it. Any other number than the default turns this bound off.
    "max_ranges" in EVERYWHERE, ONE, default "2147483647",
        scalar(number) max_ranges: usize = UNLIMITED_RANGES;
    /// Whether responses of unknown length are chunked for HTTP/1.1 clients.
    "chunked_transfer_encoding" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) chunked_transfer_encoding: bool = true;
    /// Whether static files have an `ETag`.
    "etag" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) etag: bool = true;
    /// Sets the URI that responds in place of errors with the given statuses.
    ///
    /// Form: `error_page code ... [=[response]] uri`
    ///
    /// - `code`: a status from 300 to 599.
    /// - `=response`: the status that the client gets instead.
    /// - `=`: the client gets the status of the URI's own response.
    /// - `uri`: a path, to which the request is redirected internally, with the method GET; a named location (`@name`),
    ///   which keeps method and URI; or an absolute URL, to which the client is redirected with 302, or with the given
    ///   301, 303, 307 or 308. It may contain variables.
    ///
    /// Effect: holds for errors of the server itself, and with `proxy_intercept_errors on` for those of backends. A
    /// level that sets any `error_page` doesn't inherit those of the level around it. An error while an error page is
    /// made is responded to with the built-in page, unless `recursive_error_pages` is on.
    ///
    /// Danger: `error_page 404 =200 /index.html;` lets search engines and caches take every wrong URI for a page.
    ///
    /// ```nginx
    /// error_page 404 /404.html;
    /// error_page 500 502 503 504 /50x.html;
    /// server {
    ///     location / {
    ///         error_page 404 = @fallback;
    ///     }
    ///     location @fallback {
    ///         proxy_pass http://127.0.0.1:8080;
    ///     }
    /// }
    /// ```
    "error_page" in AND_IF, Args::at_least(2), default none,
        list(error_page::parse) error_page: Rc<ErrorPage>;
    /// A URI that is requested, unseen by the client, when a request is over; what doesn't begin with `/` names a
    /// location. The access log then shows that URI, and its status unless the response was an error.
    "post_action" in AND_IF, ONE, default none,
        scalar(bytes) post_action: buf::Bytes = buf::Bytes::default();
    /// Sets where errors are logged, and from which level on. It may be repeated: each log gets the messages of its
    /// level.
    ///
    /// Form: `error_log file [level]`
    ///
    /// - `file`: a file, relative to the prefix (`-p`); `stderr`; `syslog:server=address[,parameter=value...]`; or
    ///   `memory:size`, a ring in memory for debugging.
    /// - `level`: `debug`, `info`, `notice`, `warn`, `error` (the default), `crit`, `alert` or `emerg`. Messages of
    ///   this and more severe levels are logged.
    ///
    /// Effect: holds for the requests of the block, once their server or location is known. A level that sets any log
    /// doesn't inherit those of the level around it. `USR1` (`-s reopen`) opens files again after they have been moved.
    ///
    /// Cost: a system call for each message. `debug` and `info` write several lines for each request or connection.
    ///
    /// Danger: messages contain what clients send (URIs, host names, fields); logs may contain personal data and
    /// secrets in URIs.
    ///
    /// ```nginx
    /// error_log logs/error.log warn;
    /// server {
    ///     error_log logs/example.log notice;
    /// }
    /// ```
    "error_log" in EVERYWHERE, Args::at_least(1), default computed("the outermost level's"),
        list(engine::log::parse_error_log) error_log: ErrorLog;
    /// A cache of open files and of what is known about them.
    "open_file_cache" in EVERYWHERE, Args::between(1, 2), default "off",
        scalar(file_cache) open_file_cache: Option<FileCache> = None;
    /// After how many seconds what the cache says is checked again.
    "open_file_cache_valid" in EVERYWHERE, ONE, default "60s",
        scalar(sec) open_file_cache_valid: u64 = 60;
    /// How often a file must have been used to be kept open.
    "open_file_cache_min_uses" in EVERYWHERE, ONE, default "1",
        scalar(number) open_file_cache_min_uses: usize = 1;
    /// Whether errors are cached too.
    "open_file_cache_errors" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) open_file_cache_errors: bool = false;
    /// Accepted for compatibility: it needs kqueue.
    "open_file_cache_events" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) open_file_cache_events: bool = false;
    /// Whether files of at most 16 KiB that are asked for again and again are kept in memory, about 1 MiB of them in each
    /// worker. Without `open_file_cache` each request still looks whether the file has changed. Only files of local file
    /// systems are kept.
    "small_file_cache" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) small_file_cache: bool = true;
    /// Number and size of the buffers for files that are read rather than sent by the kernel.
    "output_buffers" in EVERYWHERE, Args::exactly(2), default "2 32k",
        scalar(bufs) output_buffers: Bufs = Bufs { count: 2, size: 32 << 10 };
    /// Which symbolic links are refused on the way to a file.
    "disable_symlinks" in EVERYWHERE, Args::between(1, 2), default "off",
        scalar(disable_symlinks) disable_symlinks: DisableSymlinks =
            DisableSymlinks { mode: Symlinks::Allowed, from: None };
    derived {
        /// The log that `error_log` makes, or the outer one.
        log: Option<engine::log::Log> = None;
    }
    finish(finish_location)
}

/// A folder for temporary files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TempPath {
    /// The folder.
    pub path: Rc<PathBuf>,
    /// The lengths of the names of folders in it.
    pub levels: Rc<[usize]>,
}

impl TempPath {
    /// A folder without levels, relative to the prefix.
    pub fn new(path: &str) -> TempPath {
        TempPath { path: Rc::new(path.into()), levels: Rc::new([]) }
    }
}

/// A folder for temporary files, with the levels of folders in it.
pub fn temp_path(loader: &mut Loader<'_>, d: &Directive) -> Result<TempPath> {
    let path = loader.env.prefix.join(OsStr::from_bytes(&d.arg(0).text));
    loader.places.note(crate::body::temp::FOLDER, buf::text::path(&path), d.span());
    let levels = d.args[1..]
        .iter()
        .map(|word| match &word.text[..] {
            b"10" => Ok(10),
            [digit @ b'1'..=b'9'] => Ok(usize::from(digit - b'0')),
            _ => Err(conf::values::invalid(d, word)),
        })
        .collect::<Result<Vec<_>>>()?;
    // The names of files have no more digits.
    if levels.iter().sum::<usize>() > 10 {
        return Err(conf::values::invalid(d, d.arg(d.args.len() - 1)));
    }
    Ok(TempPath { path: Rc::new(path), levels: levels.into() })
}

/// The first argument as it stands.
pub fn bytes(_: &mut Loader<'_>, d: &Directive) -> Result<buf::Bytes> {
    Ok(buf::Bytes::from(d.arg(0).text.to_vec()))
}

fn root(raw: &mut CoreLocationRaw, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    set_root(raw, loader, d, false)
}

fn alias(raw: &mut CoreLocationRaw, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    if blocks::in_named_location(loader) {
        return Err(Error::on(d, "the \"alias\" directive cannot be used inside the named location"));
    }
    set_root(raw, loader, d, true)
}

fn set_root(raw: &mut CoreLocationRaw, loader: &mut Loader<'_>, d: &Directive, alias: bool) -> Result<()> {
    let name = d.name.lossy();
    if let Some(Some(root)) = &raw.root {
        if root.alias.is_some() == alias {
            return Err(Error::on(d, format!("\"{name}\" directive is duplicate")));
        }
        let other = if root.alias.is_some() { "alias" } else { "root" };
        return Err(Error::on(
            d,
            format!("\"{name}\" directive is duplicate, \"{other}\" directive was specified earlier"),
        ));
    }
    let mut text = d.arg(0).text.to_vec();
    for variable in [&b"$document_root"[..], b"${document_root}", b"$realpath_root", b"${realpath_root}"] {
        if memchr::memmem::find(&text, variable).is_some() {
            let variable = String::from_utf8_lossy(&variable[1..]);
            let variable = variable.trim_matches(['{', '}']);
            return Err(Error::on(d, format!("the ${variable} variable cannot be used in the \"{name}\" directive")));
        }
    }
    if !alias && text.last() == Some(&b'/') {
        text.pop();
    }
    if !text.starts_with(b"$") && !text.starts_with(b"/") {
        text = under_prefix(loader, &text);
    }
    loader.store.entry::<engine::worker::sandbox::Needs>().read(OsStr::from_bytes(&text));
    // A dollar of the prefix is no variable's.
    let path = match d.arg(0).text.contains(&b'$') {
        true => variables::template_of(loader, d, &text)?,
        false => Rc::new(Template::constant(&text)),
    };
    let alias = alias.then(|| match blocks::current_location(loader) {
        (_, blocks::CurrentKind::Regex) => Alias::All,
        (name, _) => Alias::Prefix(name.len()),
    });
    raw.root = Some(Some(Root { path, alias, text: String::from_utf8_lossy(&text).into() }));
    Ok(())
}

fn under_prefix(loader: &Loader<'_>, text: &[u8]) -> Vec<u8> {
    [loader.env.prefix.as_os_str().as_encoded_bytes(), text].concat()
}

/// The folder of levels that name none.
fn default_root(loader: &mut Loader<'_>) -> Root {
    let text = under_prefix(loader, b"html");
    loader.store.entry::<engine::worker::sandbox::Needs>().read(OsStr::from_bytes(&text));
    Root { path: Rc::new(Template::constant(&text)), alias: None, text: String::from_utf8_lossy(&text).into() }
}

/// Conditions of which one must be neither empty nor `0`.
pub fn predicates(loader: &mut Loader<'_>, d: &Directive) -> Result<Predicates> {
    d.args.iter().map(|word| variables::template_of(loader, d, &word.text)).collect()
}

/// The least data that is sent at a time, which Linux doesn't know: the words of the warning are nginx's.
pub fn send_lowat(loader: &mut Loader<'_>, d: &Directive) -> Result<usize> {
    let bytes = size(loader, d)?;
    let message = format!("\"{}\" is not supported, ignored", d.name.lossy());
    loader.warn(d, Error::on(d, message));
    Ok(bytes)
}

/// A size that nginx takes for a pool of memory.
pub fn pool_size(loader: &mut Loader<'_>, d: &Directive) -> Result<usize> {
    let bytes = size(loader, d)?;
    if bytes < LEAST_POOL {
        return Err(Error::at(d.arg(0), format!("the pool size must be no less than {LEAST_POOL}")));
    }
    if bytes % POOL_UNIT != 0 {
        return Err(Error::at(d.arg(0), format!("the pool size must be a multiple of {POOL_UNIT}")));
    }
    Ok(bytes)
}

/// What nginx demands of the size of a pool.
const LEAST_POOL: usize = 112;
const POOL_UNIT: usize = 16;

fn aio(loader: &mut Loader<'_>, d: &Directive) -> Result<Aio> {
    let word = d.arg(0);
    let name = match &word.text[..] {
        b"off" => return Ok(Aio::Off),
        b"on" => {
            loader.no_effect(d, "files are read in the worker, or with \"aio threads\" in threads");
            return Ok(Aio::On);
        }
        b"threads" => return Ok(Aio::Threads("default".into())),
        text => text.strip_prefix(b"threads=").ok_or_else(|| conf::values::invalid(d, word))?,
    };
    let name = String::from_utf8_lossy(name);
    if name.contains('$') {
        // Which pool it is shows with each request; the variables have to be there now.
        variables::template_of(loader, d, name.as_bytes())?;
    } else {
        engine::cycle::thread_pool::refer(loader, &name, conf::Span { line: d.end.line, ..word.span });
    }
    Ok(Aio::Threads((&*name).into()))
}

fn directio(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<u64>> {
    if *d.arg(0) == "off" {
        return Ok(None);
    }
    let least = offset(loader, d)?;
    loader.no_effect(d, "files are read through the page cache");
    Ok(Some(least))
}

fn auth_delay(loader: &mut Loader<'_>, d: &Directive) -> Result<u64> {
    let delay = msec(loader, d)?;
    if delay > 0 {
        loader.no_effect(d, "there is no authentication yet");
    }
    Ok(delay)
}

/// A flag that nothing follows from: a warning says so if it has the value that asks for something.
pub fn idle_flag(loader: &mut Loader<'_>, d: &Directive, asks: bool, why: &str) -> Result<bool> {
    let value = flag(loader, d)?;
    if value == asks {
        loader.no_effect(d, why);
    }
    Ok(value)
}

fn keepalive_timeout(_: &mut Loader<'_>, d: &Directive) -> Result<(u64, Option<u64>)> {
    let invalid = || conf::values::invalid(d, d.arg(0));
    let timeout = buf::parse::parse_msec(&d.arg(0).text).ok_or_else(invalid)?;
    let header = match d.args.get(1) {
        Some(word) => Some(buf::parse::parse_sec(&word.text).ok_or_else(invalid)?),
        None => None,
    };
    Ok((timeout, header))
}

fn file_cache(_: &mut Loader<'_>, d: &Directive) -> Result<Option<FileCache>> {
    let (mut max, mut inactive) = (0, 60);
    for word in &d.args {
        let invalid = || Error::at(word, format!("invalid \"open_file_cache\" parameter \"{}\"", word.lossy()));
        if let Some(value) = word.text.strip_prefix(b"max=") {
            max = buf::parse::parse_number(value).filter(|n| *n > 0).ok_or_else(invalid)?;
        } else if let Some(value) = word.text.strip_prefix(b"inactive=") {
            inactive = buf::parse::parse_sec(value).ok_or_else(invalid)?;
        } else if *word == "off" {
            return Ok(None);
        } else {
            return Err(invalid());
        }
    }
    if max == 0 {
        return Err(Error::on(d, "\"open_file_cache\" must have the \"max\" parameter"));
    }
    Ok(Some(FileCache { max: max as usize, inactive }))
}

fn disable_symlinks(loader: &mut Loader<'_>, d: &Directive) -> Result<DisableSymlinks> {
    let (mut mode, mut from) = (None, None);
    for word in &d.args {
        match &word.text[..] {
            b"off" => mode = Some(Symlinks::Allowed),
            b"on" => mode = Some(Symlinks::Denied),
            b"if_not_owner" => mode = Some(Symlinks::IfNotOwner),
            text => match text.strip_prefix(b"from=") {
                Some(path) => from = Some(variables::template_of(loader, d, path)?),
                None => return Err(Error::at(word, format!("invalid parameter \"{}\"", word.lossy()))),
            },
        }
    }
    let Some(mode) = mode else {
        return Err(Error::on(d, "\"disable_symlinks\" must have \"off\", \"on\" or \"if_not_owner\" parameter"));
    };
    if mode == Symlinks::Allowed && from.is_some() {
        return Err(Error::on(d, "duplicate parameter \"off\""));
    }
    Ok(DisableSymlinks { mode, from })
}

fn finish_location(conf: &mut CoreLocation, parent: Option<&CoreLocation>, loader: &mut Loader<'_>) -> Result<()> {
    crate::body::temp::register(loader, &mut conf.client_body_temp_path);
    if conf.root.is_none() {
        conf.root = Some(default_root(loader));
    }
    conf.log = if parent.is_some_and(|parent| Rc::ptr_eq(&parent.error_log, &conf.error_log)) {
        conf.log.take()
    } else {
        (!conf.error_log.is_empty()).then(|| engine::log::Log::new(&conf.error_log))
    };
    Ok(())
}
