//! Settings of a location: everything of `location {}` that is not a module's own.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use common::front::conf::CoreConf;
use conf::values::{Bufs, bitmask, bufs, flag, msec, number, offset, one_of, sec, size};
use conf::{Args, Context, Directive, Error, Loader, Result};
use expr::vars::Template;

use super::values::*;
use super::{AND_IF, EVERYWHERE, ONE, UNLIMITED_RANGES};
use crate::config::blocks;
use crate::config::error_page::{self, ErrorPage};
use crate::config::mime::Types;
use crate::proto::HttpProto;
use crate::request::variables::{self, size_template};

conf::table! {
    /// How variables are read. The directive belongs to the rewrite module, whose rules set them.
    pub struct VariableConf, raw VariableRaw, module "ngx_http_rewrite_module", level HTTP Location;

    /// Logs a warning when a variable is read that was never set.
    ///
    /// Effect: the value is empty in either case. The warning (`using uninitialized "x" variable`) is logged for each
    /// such read, with level `warn`.
    ///
    /// Danger: with `off` a rule that isn't reached, or a misspelt name, goes unnoticed.
    ///
    /// ```nginx
    /// uninitialized_variable_warn off;
    /// ```
    "uninitialized_variable_warn" in EVERYWHERE.or(Context::SERVER_IF).or(Context::LOCATION_IF), Args::FLAG, default "on",
        scalar(flag) uninitialized_variable_warn: bool = true;
}

conf::table! {
    /// Settings of a location.
    pub struct CoreLocation, raw CoreLocationRaw, module "ngx_http_core_module", level HTTP Location;

    under "" {
        /// What other protocols have too.
        shared: CoreConf<HttpProto> [resolving, sockets, logs];
    }
    /// Sets the configuration of requests whose URI begins with a prefix or matches a regex, or for which a variable has a
    /// value. The URI is compared in its normalised form: decoded, without `.` and `..`, with adjacent slashes merged.
    ///
    /// Form: `location [= | ^~ | ~ | ~*] uri | $variable | @name`
    ///
    /// - `uri`: a prefix. The longest one that matches is remembered; regexes are tried after that, and the first one
    ///   that matches is used instead.
    /// - `=`: the URI must be equal; no other location is looked for.
    /// - `^~`: a prefix; if it is the longest one, neither regexes nor variables are tried.
    /// - `~`: a regex, which distinguishes upper and lower case.
    /// - `~*`: a regex that ignores case.
    /// - `$variable`: if no regex matches, the first variable that is neither empty nor `0` is used instead of the prefix.
    ///   Such a location may stand in any prefix or regex, and contain locations of any name.
    /// - `@name`: a named location, for internal redirects of `error_page`, `try_files` and the like only.
    ///
    /// Effect: directives in the block hold for its requests; what isn't set is inherited from the block around it. A
    /// location whose prefix ends with `/` and that has a `proxy_pass` redirects requests for the prefix without the
    /// slash to the one with it, with status 301.
    ///
    /// Cost: prefixes are found by a binary search. Regexes and variables are tried one after the other, in the order of the
    /// file.
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
    /// Sets rules for all methods other than the named ones.
    ///
    /// Form: `limit_except method ...`
    ///
    /// - `method`: a method that the block doesn't hold for, such as `GET` or `PUT`. `GET` includes `HEAD`.
    ///
    /// Effect: requests with other methods follow the directives in the block, which are those for access and for
    /// backends; what isn't set is inherited from the location.
    ///
    /// Danger: the block holds for the methods that aren't named: `limit_except GET { deny all; }` allows GET and HEAD,
    /// and nothing else.
    ///
    /// ```nginx
    /// location / {
    ///     limit_except GET {
    ///         allow 127.0.0.1;
    ///         deny all;
    ///     }
    /// }
    /// ```
    "limit_except" in Context::LOCATION, Args::at_least(1).block(), default none,
        block(blocks::limit_except);
    /// Maps extensions of file names to media types. Each line in the block is a type, followed by the extensions that
    /// have it; upper and lower case are the same.
    ///
    /// Effect: the type is sent as `Content-Type` with files and texts; what has no entry gets `default_type`. A block
    /// on a level takes the place of the inherited one, so it names all types that are needed; `include mime.types;` in
    /// it is the usual way. If an extension occurs twice, the last entry counts and a warning is logged.
    ///
    /// Danger: a browser treats a file as what its type says: pages that users upload run scripts with the site's
    /// rights if they are sent as `text/html`.
    ///
    /// ```nginx
    /// types {
    ///     text/html html htm;
    ///     text/css css;
    ///     image/png png;
    ///     application/javascript js;
    /// }
    /// ```
    "types" in EVERYWHERE, Args::exactly(0).block(), default "text/html html; image/gif gif; image/jpeg jpg;",
        set(blocks::types) types: Rc<Types> = Types::default_types();
    /// Accepted for compatibility: Tidegate's tables size themselves.
    "types_hash_max_size" in EVERYWHERE, ONE, default "1024",
        scalar(number) types_hash_max_size: usize = 1024;
    /// Accepted for compatibility: Tidegate's tables size themselves.
    "types_hash_bucket_size" in EVERYWHERE, ONE, default "64",
        scalar(number) types_hash_bucket_size: usize = 64;
    /// Sets the media type of files and texts whose extension has none in `types`.
    ///
    /// Form: `default_type type`
    ///
    /// - `type`: a media type; `""` sends no `Content-Type`.
    ///
    /// Effect: it is sent as `Content-Type` with files and with the text of `return`.
    ///
    /// Danger: with `text/html` files of unknown kinds are shown as pages, and scripts in them run.
    /// `application/octet-stream` makes browsers save them.
    ///
    /// ```nginx
    /// default_type application/octet-stream;
    /// ```
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
    /// Sets how much of a request's body is kept in memory while it is read whole.
    ///
    /// Form: `client_body_buffer_size size`
    ///
    /// - `size`: in bytes, or with `k` or `m`.
    ///
    /// Effect: a longer body is written to a temporary file in `client_body_temp_path`, and a line in the error log
    /// (`warn`) says so; a body that came together with its head stays in memory. `$request_body` holds only what is in
    /// memory. In HTTP/2 the size is also the window that the client gets while a body is passed on as it comes.
    ///
    /// Cost: up to this much memory for each request with a body; beyond it, writing to a file and reading it again.
    ///
    /// ```nginx
    /// location /api/ {
    ///     client_body_buffer_size 64k;
    ///     proxy_pass http://127.0.0.1:8080;
    /// }
    /// ```
    "client_body_buffer_size" in EVERYWHERE, ONE, default "16k",
        scalar(size) client_body_buffer_size: usize = 16 << 10;
    /// Limits the time between two reads of a request's body.
    ///
    /// Form: `client_body_timeout time`
    ///
    /// - `time`: how long the client may send nothing; it starts anew with each part that arrives.
    ///
    /// Effect: when it is over, the connection (in HTTP/2 the stream) is closed without a response; the access log
    /// shows status 408.
    ///
    /// Danger: it doesn't limit the time of the whole body: a client that sends a byte now and then holds its
    /// connection, and with `proxy_request_buffering off` one to the backend.
    ///
    /// ```nginx
    /// client_body_timeout 20s;
    /// ```
    "client_body_timeout" in EVERYWHERE, ONE, default "60s",
        scalar(msec) client_body_timeout: u64 = 60_000;
    /// Sets the folder for request bodies that are kept in files, and the levels of folders in it.
    ///
    /// Form: `client_body_temp_path path [level1 [level2 [level3]]]`
    ///
    /// - `path`: a folder; a relative one starts at the prefix (`-p`). It is made at the start if it isn't there.
    /// - `level1`, `level2`, `level3`: how many digits of a file's number name the folder on this level, from 1 to 10,
    ///   together at most 10. Without them the files lie in the folder itself.
    ///
    /// Effect: with `client_temp 1 2` a file has a path such as `client_temp/7/45/0000123457`. A file is removed with
    /// its request, unless `client_body_in_file_only on` keeps it.
    ///
    /// Cost: the size of the body, for each request whose body is larger than `client_body_buffer_size`.
    ///
    /// Danger: the files contain what clients send, passwords too: only the workers' user may read the folder. If it
    /// lies on the file system of something else, uploads can fill that.
    ///
    /// ```nginx
    /// client_body_temp_path client_temp 1 2;
    /// ```
    "client_body_temp_path" in EVERYWHERE, Args::between(1, 4), default computed("`client_body_temp` in the program's folder for temporary files"),
        scalar(temp_path) client_body_temp_path: TempPath = TempPath::new("client_body_temp");
    /// Writes every request body that is read whole to a file.
    ///
    /// Form: `client_body_in_file_only on | clean | off`
    ///
    /// - `on`: all bodies are in files, and the files stay after the requests.
    /// - `clean`: all bodies are in files, which are removed with the requests.
    /// - `off`: only bodies larger than `client_body_buffer_size` are in files, which are removed with the requests.
    ///
    /// Effect: `$request_body_file` is the path. Bodies that are passed on as they come (`proxy_request_buffering off`)
    /// aren't written.
    ///
    /// Cost: a file is made and written for each request with a body.
    ///
    /// Danger: with `on` nothing ever removes the files: they fill the disk, and keep what clients sent.
    ///
    /// ```nginx
    /// location /upload/ {
    ///     client_body_in_file_only clean;
    ///     proxy_set_header X-File $request_body_file;
    ///     proxy_pass http://127.0.0.1:8080;
    /// }
    /// ```
    "client_body_in_file_only" in EVERYWHERE, ONE, default "off",
        scalar(one_of(&[
            ("off", BodyInFile::Off), ("on", BodyInFile::On), ("clean", BodyInFile::Clean),
        ])) client_body_in_file_only: BodyInFile = BodyInFile::Off;
    /// Accepted for compatibility: a body in memory is one buffer wherever `$request_body` needs it.
    "client_body_in_single_buffer" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) client_body_in_single_buffer: bool = false;
    /// Lets the kernel send files without reading them into the worker's memory.
    ///
    /// Effect: holds for bodies that are files and go out unchanged on connections without TLS. Under TLS, in HTTP/2,
    /// and where a filter such as gzip changes the body, files are read. Files of at most 32 KiB are read and sent
    /// together with the head in any case, unless `aio` is set.
    ///
    /// Cost: without it each part of a file takes a read, a copy and a buffer (`output_buffers`).
    ///
    /// Danger: on some network and user-space file systems the kernel sends old contents after a change: turn it off
    /// there. A file that isn't in the page cache blocks the worker while the disk is read.
    ///
    /// ```nginx
    /// sendfile on;
    /// tcp_nopush on;
    /// ```
    "sendfile" in AND_IF, Args::FLAG, default "off",
        scalar(flag) sendfile: bool = false;
    /// Limits how much of a file is sent before the worker serves other connections.
    ///
    /// Form: `sendfile_max_chunk size`
    ///
    /// - `size`: in bytes, or with `k` or `m`; `0` is no limit.
    ///
    /// Effect: a file is passed to the connection in parts of this size, with or without `sendfile`.
    ///
    /// Cost: more system calls if the size is small.
    ///
    /// Danger: with `0` one fast client can keep a worker busy for the length of a whole file.
    ///
    /// ```nginx
    /// sendfile on;
    /// sendfile_max_chunk 512k;
    /// ```
    "sendfile_max_chunk" in EVERYWHERE, ONE, default "2m",
        scalar(size) sendfile_max_chunk: usize = 2 << 20;
    /// Sets the longest response to a subrequest that may become the value of a variable.
    ///
    /// Form: `subrequest_output_buffer_size size`
    ///
    /// - `size`: in bytes, or with `k` or `m`.
    ///
    /// Effect: holds in the location of the subrequest, for `include` with `set` of server-side includes. A longer response
    /// ends the page, and the connection is closed.
    ///
    /// Cost: up to this much memory for each such response.
    ///
    /// ```nginx
    /// location /parts/ {
    ///     subrequest_output_buffer_size 64k;
    ///     proxy_pass http://127.0.0.1:8080;
    /// }
    /// ```
    "subrequest_output_buffer_size" in EVERYWHERE, ONE, default "4k",
        scalar(size) subrequest_output_buffer_size: usize = 4096;
    /// Reads files in threads, so that a slow disk doesn't block the worker.
    ///
    /// Form: `aio off | threads[=pool] | on`
    ///
    /// - `off`: the worker reads files itself.
    /// - `threads`: threads of the pool `default` read files.
    /// - `threads=pool`: threads of another pool, which `thread_pool` declares; the name may contain variables.
    /// - `on`: accepted; it has no effect, and a warning says so.
    ///
    /// Effect: holds for files that are read: with `sendfile off`, under a filter such as gzip, and in HTTP/2 with
    /// `sendfile off`. Files that the kernel sends (`sendfile on`) aren't affected.
    ///
    /// Cost: each part of a file is handed to a thread and back, which is slower than reading what is in the page
    /// cache.
    ///
    /// ```nginx
    /// location /video/ {
    ///     sendfile off;
    ///     aio threads;
    /// }
    /// ```
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
    /// Accepted for compatibility: it is the alignment for `directio`, which has no effect.
    "directio_alignment" in EVERYWHERE, ONE, default "512",
        scalar(offset) directio_alignment: u64 = 512;
    /// Sends the head of a response and the beginning of its file in one packet.
    ///
    /// Effect: holds for responses whose body is there as a whole, such as files, in HTTP/1. Bodies that come in parts,
    /// from a backend, are sent as `tcp_nodelay` says. Files of at most 32 KiB are sent together with the head in any
    /// case, unless `aio` is set.
    ///
    /// ```nginx
    /// sendfile on;
    /// tcp_nopush on;
    /// ```
    "tcp_nopush" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) tcp_nopush: bool = false;
    /// Limits the time in which a client must take a part of the response.
    ///
    /// Form: `send_timeout time`
    ///
    /// - `time`: how long the client may take nothing; it starts anew with each part that it takes.
    ///
    /// Effect: when it is over, the connection is closed.
    ///
    /// Danger: it doesn't limit the time of a whole response: a client that reads slowly holds its connection and its
    /// buffers.
    ///
    /// ```nginx
    /// send_timeout 20s;
    /// ```
    "send_timeout" in EVERYWHERE, ONE, default "60s",
        scalar(msec) send_timeout: u64 = 60_000;
    /// Accepted for compatibility, with a warning: Linux has no such setting of sockets.
    "send_lowat" in EVERYWHERE, ONE, default "0",
        scalar(send_lowat) send_lowat: usize = 0;
    /// Sets how much output is gathered before it is sent.
    ///
    /// Form: `postpone_output size`
    ///
    /// - `size`: in bytes; `0` sends each part at once.
    ///
    /// Effect: holds for bodies that come in parts or pass through filters. Less than this is held back only while
    /// further parts are ready, so nothing waits for a slow backend; the end of a response is sent in any case.
    ///
    /// Cost: a small size takes more system calls and packets.
    ///
    /// ```nginx
    /// postpone_output 1460;
    /// ```
    "postpone_output" in EVERYWHERE, ONE, default "1460",
        scalar(size) postpone_output: usize = 1460;
    /// Limits how fast a response is sent.
    ///
    /// Form: `limit_rate rate`
    ///
    /// - `rate`: bytes in a second, or with `k` or `m`; `0` is no limit. It may contain variables.
    ///
    /// Effect: holds for each response by itself, so a client with two connections, or two streams of HTTP/2, gets
    /// twice the rate. Storing to `$limit_rate` (`set`), and `X-Accel-Limit-Rate` of a backend, take its place for a
    /// request. `limit_rate_after` sends the first bytes without a limit.
    ///
    /// Cost: timers, and responses that hold connections for longer.
    ///
    /// ```nginx
    /// location /downloads/ {
    ///     limit_rate_after 1m;
    ///     limit_rate 200k;
    /// }
    /// ```
    "limit_rate" in AND_IF, ONE, default "0",
        scalar(size_template) limit_rate: Option<Rc<Template>> = None;
    /// Sets how many bytes of a response are sent before `limit_rate` holds.
    ///
    /// Form: `limit_rate_after size`
    ///
    /// - `size`: in bytes, or with `k` or `m`. It may contain variables.
    ///
    /// Effect: the beginning of a response is sent at full speed; without a `limit_rate` nothing changes.
    ///
    /// ```nginx
    /// location /video/ {
    ///     limit_rate_after 500k;
    ///     limit_rate 100k;
    /// }
    /// ```
    "limit_rate_after" in AND_IF, ONE, default "0",
        scalar(size_template) limit_rate_after: Option<Rc<Template>> = None;
    /// Limits how long a client's connection serves requests.
    ///
    /// Form: `keepalive_time time`
    ///
    /// - `time`: the age of a connection from which on it serves no further request after the current one.
    ///
    /// Effect: the first response that begins later tells the client that the connection closes. It frees what a
    /// connection has gathered in memory, and lets clients connect anew to other servers behind an address.
    ///
    /// Danger: with a short time clients connect again and again, and under TLS shake hands.
    ///
    /// ```nginx
    /// keepalive_time 30m;
    /// ```
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
    /// Sets how long an idle client's connection is protected from being closed early.
    ///
    /// Form: `keepalive_min_timeout time`
    ///
    /// - `time`: the time after a response; `0` protects no connection.
    ///
    /// Effect: until it is over, a connection isn't closed because the worker quits or needs the place for another
    /// client (`worker_connections`). A client that reuses the connection at once doesn't lose its request.
    ///
    /// Cost: a worker that quits waits for so long; a timer for each idle connection.
    ///
    /// ```nginx
    /// keepalive_min_timeout 2s;
    /// ```
    "keepalive_min_timeout" in EVERYWHERE, ONE, default "0",
        scalar(msec) keepalive_min_timeout: u64 = 0;
    /// Limits how many requests a client's connection serves.
    ///
    /// Form: `keepalive_requests number`
    ///
    /// - `number`: the number of requests, of all streams in HTTP/2.
    ///
    /// Effect: the response to the last one tells the client that the connection closes; in HTTP/2 a GOAWAY frame does.
    ///
    /// Danger: with a small number clients connect again and again, and under TLS shake hands.
    ///
    /// ```nginx
    /// keepalive_requests 10000;
    /// ```
    "keepalive_requests" in EVERYWHERE, ONE, default "1000",
        scalar(number) keepalive_requests: usize = 1000;
    /// Closes the connections of browsers that don't handle kept ones well.
    ///
    /// Form: `keepalive_disable none | browser ...`
    ///
    /// - `none`: no browser.
    /// - `msie6`: Internet Explorer 4 to 6, without the one of Windows XP's service pack 2, after a POST.
    /// - `safari`: Safari on macOS, and browsers that name themselves alike.
    ///
    /// Effect: the connection is closed after the response. The browser is known by `User-Agent`.
    ///
    /// ```nginx
    /// keepalive_disable none;
    /// ```
    "keepalive_disable" in EVERYWHERE, Args::between(1, 2), default "msie6",
        set(|raw: &mut CoreLocationRaw, l: &mut Loader<'_>, d: &Directive| bitmask(&mut raw.keepalive_disable, &[("none", 1), ("msie6", 2), ("safari", 4)], l, d))
        keepalive_disable: u32 = 2;
    /// Sets whether all modules that check access must allow a request, or one of them.
    ///
    /// Form: `satisfy all | any`
    ///
    /// - `all`: a request is refused if one module refuses it.
    /// - `any`: a request is served if one module allows it.
    ///
    /// Effect: `allow` and `deny` are one such module, `auth_basic` is another. If none of them allows a request, its status
    /// is 401 rather than 403, so that the client may try a password.
    ///
    /// Danger: with `any` an address that is allowed needs no password.
    ///
    /// ```nginx
    /// location / {
    ///     satisfy any;
    ///     allow 127.0.0.1;
    ///     deny all;
    ///     auth_basic "members only";
    ///     auth_basic_user_file passwords;
    /// }
    /// ```
    "satisfy" in EVERYWHERE, ONE, default "all",
        scalar(one_of(&[("all", Satisfy::All), ("any", Satisfy::Any)]))
        satisfy: Satisfy = Satisfy::All;
    /// Delays the responses of status 401 to requests whose credentials are missing or wrong, so that guessing takes long.
    ///
    /// Form: `auth_delay time`
    ///
    /// - `time`: how much later than the request the response comes. It counts from the beginning of the check of access.
    ///
    /// Effect: clients can't tell by the time whether the name or the password was wrong, if the delay is longer than
    /// the check of a password. Requests that are allowed aren't delayed. It holds for all modules that check access.
    ///
    /// Cost: a delayed request keeps its connection and its memory.
    ///
    /// Danger: somebody may guess with many connections at a time; `limit_conn` or `limit_req` bounds that.
    ///
    /// ```nginx
    /// location /private/ {
    ///     auth_basic "members only";
    ///     auth_basic_user_file passwords;
    ///     auth_delay 2s;
    /// }
    /// ```
    "auth_delay" in EVERYWHERE, ONE, default "0",
        scalar(msec) auth_delay: u64 = 0;
    /// Serves internal requests only in this location.
    ///
    /// Effect: a client's own request for it gets status 404. Internal are requests that `error_page`, `index`,
    /// `try_files`, `rewrite`, or a backend's `X-Accel-Redirect` have led there, and subrequests. A file that an
    /// application hands out after checking the user is such a case.
    ///
    /// ```nginx
    /// location /files/ {
    ///     internal;
    ///     alias files/;
    /// }
    /// ```
    "internal" in Context::LOCATION, Args::exactly(0), default none,
        set(|raw: &mut CoreLocationRaw, _: &mut Loader<'_>, d: &Directive| {
            conf::once(&raw.internal, d)?;
            raw.internal = Some(true);
            Ok(())
        }) internal: bool = false;
    /// Reads what a client still sends before its connection is closed, so that the client gets the response.
    ///
    /// Form: `lingering_close off | on | always`
    ///
    /// - `off`: the connection is closed at once.
    /// - `on`: reads on if the client may still be sending, after a body that was refused, say.
    /// - `always`: reads on in any case.
    ///
    /// Effect: what is read is dropped. `lingering_time` and `lingering_timeout` limit it. An HTTP/2 connection follows
    /// the value of the address's default server, or under TLS of the server that the handshake names; for it `on` is
    /// `always`.
    ///
    /// Cost: connections stay open for a while after their response.
    ///
    /// Danger: with `off` the kernel resets a connection on which unread data arrives, and the client may lose the
    /// response, a 413 for instance.
    ///
    /// ```nginx
    /// lingering_close always;
    /// ```
    "lingering_close" in EVERYWHERE, ONE, default "on",
        scalar(one_of(&[
            ("off", Lingering::Off), ("on", Lingering::On), ("always", Lingering::Always),
        ])) lingering_close: Lingering = Lingering::On;
    /// Limits for how long in all the data of a client is read and dropped before its connection is closed.
    ///
    /// Form: `lingering_time time`
    ///
    /// - `time`: the time from the end of the response.
    ///
    /// Effect: holds where `lingering_close` reads on. When it is over, the connection is closed, even if data still
    /// arrives.
    ///
    /// ```nginx
    /// lingering_time 10s;
    /// ```
    "lingering_time" in EVERYWHERE, ONE, default "30s",
        scalar(msec) lingering_time: u64 = 30_000;
    /// Limits how long further data of a client is waited for before its connection is closed.
    ///
    /// Form: `lingering_timeout time`
    ///
    /// - `time`: how long the client may send nothing.
    ///
    /// Effect: holds where `lingering_close` reads on, within `lingering_time`.
    ///
    /// ```nginx
    /// lingering_timeout 2s;
    /// ```
    "lingering_timeout" in EVERYWHERE, ONE, default "5s",
        scalar(msec) lingering_timeout: u64 = 5_000;
    /// Resets the connections of clients that have timed out, instead of closing them.
    ///
    /// Effect: holds for clients that are too slow to send a head (`client_header_timeout`) or to take a response
    /// (`send_timeout`). The kernel frees the memory of the connection at once, with the data that the client hasn't
    /// taken; otherwise it keeps trying to send them for a long time. Kept connections whose `keepalive_timeout` is over
    /// are closed normally.
    ///
    /// Danger: a client that is only slow gets an error instead of the rest of its response.
    ///
    /// ```nginx
    /// reset_timedout_connection on;
    /// ```
    "reset_timedout_connection" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) reset_timedout_connection: bool = false;
    /// Sends scheme and host in redirects to paths of the server.
    ///
    /// Effect: with `on` a `Location` that begins with `/` is completed to a whole URL, in which
    /// `server_name_in_redirect` and `port_in_redirect` choose host and port. With `off` it is sent as a path.
    ///
    /// Danger: behind a proxy that ends TLS, or listens on another port, the URL names the scheme and port that this
    /// server sees: `off` avoids that.
    ///
    /// ```nginx
    /// absolute_redirect off;
    /// ```
    "absolute_redirect" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) absolute_redirect: bool = true;
    /// Uses the first `server_name` in redirects, instead of the host that the client asked for.
    ///
    /// Effect: holds for redirects that `absolute_redirect` completes. Without a host, or a name, it is the address of
    /// the server.
    ///
    /// Danger: with `off` a client chooses the host in the response by `Host`; a cache that doesn't distinguish hosts
    /// could keep such a redirect. A default server that refuses unknown hosts avoids that.
    ///
    /// ```nginx
    /// server {
    ///     server_name example.com www.example.com;
    ///     server_name_in_redirect on;
    /// }
    /// ```
    "server_name_in_redirect" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) server_name_in_redirect: bool = false;
    /// Sends the port in redirects to paths of the server.
    ///
    /// Effect: holds for redirects that `absolute_redirect` completes, unless the port is the usual one of the scheme
    /// (80, 443). With `off` no port is sent.
    ///
    /// ```nginx
    /// server {
    ///     listen 127.0.0.1:8080;
    ///     port_in_redirect off;
    /// }
    /// ```
    "port_in_redirect" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) port_in_redirect: bool = true;
    /// Pads error pages to over 512 bytes for Internet Explorer and Chrome, which show a page of their own instead of a
    /// short one.
    ///
    /// Effect: comments are appended to built-in pages of statuses from 400 on. The browser is known by `User-Agent`.
    ///
    /// Cost: about 400 bytes for each such page.
    ///
    /// ```nginx
    /// msie_padding off;
    /// ```
    "msie_padding" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) msie_padding: bool = true;
    /// Sends Internet Explorer a page that refreshes to the new address, instead of a redirect.
    ///
    /// Effect: holds for 301 and 302. The browser is known by `User-Agent`.
    ///
    /// ```nginx
    /// msie_refresh on;
    /// ```
    "msie_refresh" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) msie_refresh: bool = false;
    /// Logs files that aren't found.
    ///
    /// Effect: with `off` a request for a missing file gets status 404 without a line in the error log; the access log
    /// has it in any case.
    ///
    /// Cost: with `on` a line for each such request, and scanners make many.
    ///
    /// ```nginx
    /// location = /favicon.ico {
    ///     log_not_found off;
    /// }
    /// ```
    "log_not_found" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) log_not_found: bool = true;
    /// Logs subrequests in the access log, each with a line of its own.
    ///
    /// Effect: the access logs of the location in which a subrequest ends get a line for it, as for a request. With `off`
    /// only the client's request is logged.
    ///
    /// Cost: a line for each subrequest.
    ///
    /// ```nginx
    /// log_subrequest on;
    /// ```
    "log_subrequest" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) log_subrequest: bool = false;
    /// Lets an error that occurs while an error page is made lead to another error page.
    ///
    /// Effect: with `off` such an error gets its built-in page. With `on` each error follows `error_page` of the
    /// location in which it occurs, up to ten changes of the URI.
    ///
    /// Danger: pages that fail themselves lead to one another until the limit is reached.
    ///
    /// ```nginx
    /// location / {
    ///     recursive_error_pages on;
    ///     error_page 404 = @first;
    ///     proxy_pass http://127.0.0.1:8080;
    ///     proxy_intercept_errors on;
    /// }
    /// location @first {
    ///     error_page 502 /down.html;
    ///     proxy_pass http://127.0.0.1:8081;
    /// }
    /// ```
    "recursive_error_pages" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) recursive_error_pages: bool = false;
    /// Sets what the field `Server` and the built-in error pages tell of the server.
    ///
    /// Form: `server_tokens on | off | build`
    ///
    /// - `on`: name and version.
    /// - `off`: the name only.
    /// - `build`: name, version and the name of the build.
    ///
    /// Effect: holds for responses whose `Server` isn't set by a backend that passes its own (`proxy_pass_header
    /// Server`).
    ///
    /// ```nginx
    /// server_tokens off;
    /// ```
    "server_tokens" in EVERYWHERE, ONE, default "on",
        scalar(one_of(&[
            ("off", ServerTokens::Off), ("on", ServerTokens::On), ("build", ServerTokens::Build),
        ])) server_tokens: ServerTokens = ServerTokens::On;
    /// Sets how the field `If-Modified-Since` is compared with the time of a response's last change.
    ///
    /// Form: `if_modified_since off | exact | before`
    ///
    /// - `off`: the field is ignored; the response is always sent.
    /// - `exact`: the times must be equal for a 304.
    /// - `before`: the response must not be newer than the time in the field for a 304.
    ///
    /// Effect: if the comparison holds, the client gets status 304 without a body. `If-None-Match` is compared by
    /// itself, whatever is set here.
    ///
    /// Danger: with `before` a file that was replaced by one with an older time isn't sent again.
    ///
    /// ```nginx
    /// if_modified_since before;
    /// ```
    "if_modified_since" in EVERYWHERE, ONE, default "exact",
        scalar(one_of(&[
            ("off", IfModifiedSince::Off), ("exact", IfModifiedSince::Exact), ("before", IfModifiedSince::Before),
        ])) if_modified_since: IfModifiedSince = IfModifiedSince::Exact;
    /// Sets for which requests the early hints (status 103) of a backend are passed on.
    ///
    /// Form: `early_hints condition ...`
    ///
    /// - `condition`: a text with variables. Hints are passed on if at least one is neither empty nor `0`.
    ///
    /// Effect: clients of HTTP/1.1 and HTTP/2 get the hints before the response. Without the directive none are passed
    /// on. Fields about the connection and those that are hidden (`proxy_hide_header`) are left out.
    ///
    /// Danger: some old HTTP/1.1 clients take a 103 for the response: pass them on only to those that can handle them.
    ///
    /// ```nginx
    /// early_hints $http2;
    /// server {
    ///     location / {
    ///         proxy_pass http://127.0.0.1:8080;
    ///     }
    /// }
    /// ```
    "early_hints" in EVERYWHERE, Args::at_least(1), default none,
        set(|raw: &mut CoreLocationRaw, l: &mut Loader<'_>, d: &Directive| {
            let more = predicates(l, d)?;
            let all = raw.early_hints.take().unwrap_or_default();
            raw.early_hints = Some(all.iter().chain(more.iter()).cloned().collect());
            Ok(())
        })
            early_hints: Predicates = Rc::new([]);
    /// Limits how many ranges of a response a request may ask for.
    ///
    /// Form: `max_ranges number`
    ///
    /// - `number`: the number of ranges; `0` turns ranges off. By default the number isn't limited but the cost is: the
    ///   whole response is sent if the parts, at 256 bytes each beside their content, took over 4096 bytes more than
    ///   it. Any other number turns that bound off.
    ///
    /// Effect: a request with more ranges gets the whole response with status 200. With `0` responses have no
    /// `Accept-Ranges`.
    ///
    /// Danger: a large number lets a short request ask for the same bytes many times.
    ///
    /// ```nginx
    /// location /downloads/ {
    ///     max_ranges 1;
    /// }
    /// ```
    "max_ranges" in EVERYWHERE, ONE, default "2147483647",
        scalar(number) max_ranges: usize = UNLIMITED_RANGES;
    /// Sends responses of unknown length to HTTP/1.1 clients in chunks.
    ///
    /// Effect: with `off` the end of the connection is the end of such a response, so that connection isn't kept.
    ///
    /// Danger: with `off` a client can't tell a whole response from one that was cut off.
    ///
    /// ```nginx
    /// chunked_transfer_encoding off;
    /// ```
    "chunked_transfer_encoding" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) chunked_transfer_encoding: bool = true;
    /// Sends the field `ETag` with files: a tag of time and size.
    ///
    /// Effect: clients ask by `If-None-Match` whether a file has changed, and get status 304 if it hasn't.
    ///
    /// Danger: servers that share a site have equal tags only if the times of the files are equal.
    ///
    /// ```nginx
    /// etag off;
    /// ```
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
    /// Requests another URI after a request has ended, for its effects: to tell a backend that a download is complete,
    /// say.
    ///
    /// Form: `post_action uri`
    ///
    /// - `uri`: a path, or else the name of a location (`@name`).
    ///
    /// Effect: it is requested after a response that was sent whole; what it responds is dropped. The access log shows
    /// its URI, and its status unless the response was an error.
    ///
    /// Cost: a second request's work. The client's connection serves no further request until it is over.
    ///
    /// Danger: the client doesn't get to know of a failure, and a response that is cut off leaves it out: nothing that
    /// must not be lost belongs there.
    ///
    /// ```nginx
    /// location /downloads/ {
    ///     post_action @done;
    /// }
    /// location @done {
    ///     proxy_pass http://127.0.0.1:8080;
    /// }
    /// ```
    "post_action" in AND_IF, ONE, default none,
        scalar(bytes) post_action: buf::Bytes = buf::Bytes::default();
    /// Caches open files, their sizes and times, and what else is known about paths.
    ///
    /// Form: `open_file_cache off | max=number [inactive=time]`
    ///
    /// - `off`: no cache.
    /// - `max=number`: how many paths are kept; if there are more, those that weren't used for longest are dropped.
    /// - `inactive=time`: after which time without use a path is dropped; the default is 60 seconds.
    ///
    /// Effect: a file that is in the cache is sent without system calls that open and describe it, for
    /// `open_file_cache_valid`. `open_file_cache_min_uses` and `open_file_cache_errors` say what is kept. Levels with
    /// equal settings share one cache; each worker has its own.
    ///
    /// Cost: a descriptor for each open file (`worker_rlimit_nofile`), some memory for each path.
    ///
    /// Danger: changes are seen late: a replaced file is still sent, and a deleted one keeps its space, while the entry
    /// is valid. A file that is changed in place may be sent with its old length.
    ///
    /// ```nginx
    /// open_file_cache max=1000 inactive=20s;
    /// open_file_cache_valid 30s;
    /// open_file_cache_min_uses 2;
    /// open_file_cache_errors on;
    /// ```
    "open_file_cache" in EVERYWHERE, Args::between(1, 2), default "off",
        scalar(file_cache) open_file_cache: Option<FileCache> = None;
    /// Sets how long an entry of `open_file_cache` is used before it is checked again.
    ///
    /// Form: `open_file_cache_valid time`
    ///
    /// - `time`: in whole seconds.
    ///
    /// Effect: after it the path is looked at with the next request; an open file that is still the same stays in use.
    ///
    /// Cost: a system call for each path and this time.
    ///
    /// Danger: a change of a file may go unseen for so long.
    ///
    /// ```nginx
    /// open_file_cache max=1000;
    /// open_file_cache_valid 10s;
    /// ```
    "open_file_cache_valid" in EVERYWHERE, ONE, default "60s",
        scalar(sec) open_file_cache_valid: u64 = 60;
    /// Sets how often a file must have been used for `open_file_cache` to keep it open.
    ///
    /// Form: `open_file_cache_min_uses number`
    ///
    /// - `number`: the number of uses within the cache's `inactive` time.
    ///
    /// Effect: with fewer uses only size, time and kind are kept, and the file is opened for each request.
    ///
    /// Cost: a small number keeps more descriptors open.
    ///
    /// ```nginx
    /// open_file_cache max=1000 inactive=20s;
    /// open_file_cache_min_uses 2;
    /// ```
    "open_file_cache_min_uses" in EVERYWHERE, ONE, default "1",
        scalar(number) open_file_cache_min_uses: usize = 1;
    /// Caches errors too: that a file isn't there, or can't be opened.
    ///
    /// Effect: a request for a path with a kept error fails without a look at the file system, for
    /// `open_file_cache_valid`. It helps `try_files` and `index`, which look for files that are often missing.
    ///
    /// Danger: a file that is made meanwhile stays unseen for so long. Requests for many missing paths push the good
    /// entries out of the cache.
    ///
    /// ```nginx
    /// open_file_cache max=1000;
    /// open_file_cache_errors on;
    /// ```
    "open_file_cache_errors" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) open_file_cache_errors: bool = false;
    /// Accepted for compatibility: it needs kqueue, which Linux doesn't have.
    "open_file_cache_events" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) open_file_cache_events: bool = false;
    /// Keeps small files in memory that are requested again and again: files of at most 32 KiB on local file systems,
    /// with the compressed forms in which clients were sent them.
    ///
    /// Effect: a file that is kept is sent without being opened and read. Without `open_file_cache` each request still
    /// looks whether the file has changed; with it, when an entry is checked again. With `disable_symlinks` files are
    /// kept only under `open_file_cache`.
    ///
    /// Cost: about 1 MiB of memory in each worker for the files, half as much for their compressed forms, and 1 MiB for both
    /// of `open_file_cache`.
    ///
    /// Danger: what a program writes through a shared mapping is seen when the kernel notes the change, which may take
    /// half a minute.
    ///
    /// ```nginx
    /// small_file_cache off;
    /// ```
    "small_file_cache" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) small_file_cache: bool = true;
    /// Sets the size of the parts in which files are read that the kernel doesn't send.
    ///
    /// Form: `output_buffers number size`
    ///
    /// - `number`: accepted and unused: one part is read at a time.
    /// - `size`: the size of a part; less than 1k counts as 1k, more than 1m as 1m.
    ///
    /// Effect: holds with `sendfile off`, and where a filter such as gzip changes the body.
    ///
    /// Cost: this much memory for each response that is being sent; a small size takes more reads.
    ///
    /// ```nginx
    /// output_buffers 2 128k;
    /// ```
    "output_buffers" in EVERYWHERE, Args::exactly(2), default "2 32k",
        scalar(bufs) output_buffers: Bufs = Bufs { count: 2, size: 32 << 10 };
    /// Refuses files whose path contains symbolic links.
    ///
    /// Form: `disable_symlinks off | on | if_not_owner [from=part]`
    ///
    /// - `off`: links are followed.
    /// - `on`: a path with a link in any part is refused.
    /// - `if_not_owner`: a path is refused if a link in it and the link's target have different owners.
    /// - `from=part`: the beginning of the path that isn't checked, such as `$document_root`; it may contain variables.
    ///   If the path doesn't begin with it, the whole path is checked.
    ///
    /// Effect: a refused file gives status 403, or 404 for a link to a folder with `on`, and a line in the error log.
    /// Lists of `autoindex` aren't checked.
    ///
    /// Cost: several system calls for each part of a path, unless `open_file_cache` has it.
    ///
    /// Danger: without it whoever may write below `root` can make a link to any file that the workers may read.
    ///
    /// ```nginx
    /// server {
    ///     root site;
    ///     disable_symlinks if_not_owner from=$document_root;
    /// }
    /// ```
    "disable_symlinks" in EVERYWHERE, Args::between(1, 2), default "off",
        scalar(disable_symlinks) disable_symlinks: DisableSymlinks =
            DisableSymlinks { mode: Symlinks::Allowed, from: None };
    finish(finish_location)
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
    // A dollar sign in the prefix doesn't begin a variable.
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

/// The folder of levels without `root` and `alias`.
fn default_root(loader: &mut Loader<'_>) -> Root {
    let text = under_prefix(loader, b"html");
    loader.store.entry::<engine::worker::sandbox::Needs>().read(OsStr::from_bytes(&text));
    Root { path: Rc::new(Template::constant(&text)), alias: None, text: String::from_utf8_lossy(&text).into() }
}

fn finish_location(conf: &mut CoreLocation, _: Option<&CoreLocation>, loader: &mut Loader<'_>) -> Result<()> {
    crate::body::temp::register(loader, &mut conf.client_body_temp_path);
    if conf.root.is_none() {
        conf.root = Some(default_root(loader));
    }
    Ok(())
}
