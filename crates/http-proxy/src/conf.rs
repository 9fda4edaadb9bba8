//! The directives that every backend protocol has, under its own prefix: `proxy_…`, `fastcgi_…` and so on.
//!
//! [`UpstreamConf`] has the rows without a prefix, in groups; a protocol's table takes those groups that the protocol has.

use std::rc::Rc;

use ::upstream::retry;
use conf::values::{Bufs, bitmask, bufs, flag, msec, size};
use conf::{Args, Directive, Error, Loader, Result};
use expr::vars::Template;
use http::HttpProto;
use http::config::core::{EVERYWHERE, Predicates, TempPath, permissions, predicates, send_lowat, temp_path};
use http::module::LocationContext;
use http::request::variables::size_template;

use crate::store::{self, Store};

const ONE: Args = Args::exactly(1);
/// How connections to backends are made.
pub type ConnectConf = common::backend::connect::ConnectConf<HttpProto>;

/// nginx's page size.
const PAGE: usize = 4096;

/// What `…_ignore_headers` names.
pub mod ignore {
    /// `X-Accel-Redirect`
    pub const XA_REDIRECT: u32 = 1 << 1;
    /// `X-Accel-Expires`
    pub const XA_EXPIRES: u32 = 1 << 2;
    /// `X-Accel-Limit-Rate`
    pub const XA_LIMIT_RATE: u32 = 1 << 3;
    /// `X-Accel-Buffering`
    pub const XA_BUFFERING: u32 = 1 << 4;
    /// `X-Accel-Charset`
    pub const XA_CHARSET: u32 = 1 << 5;
    /// `Expires`
    pub const EXPIRES: u32 = 1 << 6;
    /// `Cache-Control`
    pub const CACHE_CONTROL: u32 = 1 << 7;
    /// `Set-Cookie`
    pub const SET_COOKIE: u32 = 1 << 8;
    /// `Vary`
    pub const VARY: u32 = 1 << 9;
}

const IGNORED: &[(&str, u32)] = &[
    ("X-Accel-Redirect", ignore::XA_REDIRECT),
    ("X-Accel-Expires", ignore::XA_EXPIRES),
    ("X-Accel-Limit-Rate", ignore::XA_LIMIT_RATE),
    ("X-Accel-Buffering", ignore::XA_BUFFERING),
    ("X-Accel-Charset", ignore::XA_CHARSET),
    ("Expires", ignore::EXPIRES),
    ("Cache-Control", ignore::CACHE_CONTROL),
    ("Set-Cookie", ignore::SET_COOKIE),
    ("Vary", ignore::VARY),
];

conf::table! {
    /// What backend protocols can be told, beside what [`ConnectConf`] has. All have `connection` and `buffer`, memcached
    /// nothing else; gRPC also has `failures`, `errors` and `fields`, the others `request`, `response` and `store` too;
    /// FastCGI and HTTP have `lowat`, HTTP alone has `trailers`.
    pub groups UpstreamConf, raw UpstreamRaw;

    group connection {
        /// Sets conditions under which a server of the group may be asked.
        ///
        /// Form: `{}allow_upstream condition ...`
        ///
        /// - `condition`: a text with variables; it holds if its value is neither empty nor `0`.
        ///
        /// Effect: all conditions are evaluated before each attempt, when the server is chosen: `$upstream_addr` ends with
        /// its address. If one doesn't hold, it is a failure of kind `denied`: the request is passed to the next server, as
        /// `{}next_upstream` says, or is answered with 403. It counts as a failure of the server (`max_fails`). A `map` or
        /// `geo` whose value differs from one attempt to the next has to be `volatile`.
        ///
        /// ```nginx
        /// map $upstream_addr $allowed {
        ///     volatile;
        ///     default 0;
        ///     ~(^|\\s)10\\.0\\.[^,:]+:\\d+$ 1;
        /// }
        /// server {
        ///     location / {
        ///         {}allow_upstream $allowed;
        ///     }
        /// }
        /// ```
        "allow_upstream" in EVERYWHERE, Args::at_least(1), default none,
            scalar(predicates) allow_upstream: Predicates = Rc::new([]);
        /// Limits how long a backend may pause while it receives a request.
        ///
        /// Form: `{}send_timeout time`
        ///
        /// - `time`: the time between two writes, not that of the whole request.
        ///
        /// Effect: if the backend takes nothing for that long, the connection is closed. It is a failure of kind
        /// `timeout`: the request is passed to the next server, as `{}next_upstream` says, or is answered with 504.
        ///
        /// ```nginx
        /// {}send_timeout 30s;
        /// ```
        "send_timeout" in EVERYWHERE, ONE, default "60s",
            scalar(msec) send_timeout: u64 = 60_000;
        /// Limits how long a backend may pause while it sends a response.
        ///
        /// Form: `{}read_timeout time`
        ///
        /// - `time`: the time between two reads, not that of the whole response.
        ///
        /// Effect: if the backend sends nothing for that long, the connection is closed. Before the response's head it
        /// is a failure of kind `timeout`: the request is passed to the next server, as `{}next_upstream` says, or is
        /// answered with 504. After it the response to the client is cut.
        ///
        /// Danger: a short time cuts slow applications, long polling and idle WebSocket connections; a long one lets a
        /// hanging backend hold clients and memory.
        ///
        /// ```nginx
        /// {}read_timeout 5m;
        /// ```
        "read_timeout" in EVERYWHERE, ONE, default "60s",
            scalar(msec) read_timeout: u64 = 60_000;
    }
    group buffer {
        /// Sets the size of the buffer for the first part of a response, which contains its head.
        ///
        /// Form: `{}buffer_size size`
        ///
        /// - `size`: also the size of the largest head.
        ///
        /// Effect: a response with a larger head is answered with 502, and the error log says that the head is too big.
        ///
        /// Cost: as much memory for each request under way.
        ///
        /// Danger: applications with many or large cookies exceed the default. Where a protocol has `{}buffers`, they
        /// bound it: with `{}buffer_size` larger than they allow, the configuration is refused.
        ///
        /// ```nginx
        /// {}buffer_size 8k;
        /// ```
        "buffer_size" in EVERYWHERE, ONE, default "4k",
            scalar(size) buffer_size: usize = PAGE;
    }
    group failures {
        /// Selects the failures after which a request is passed to the next server.
        ///
        /// Form: `{}next_upstream failure ...`
        ///
        /// - `error`: the connection could not be opened, or broke before the response's head.
        /// - `timeout`: connecting, sending or reading took too long.
        /// - `invalid_header`: the response was empty or its head was invalid.
        /// - `http_500`, `http_503`, `http_403`, `http_404`, `http_429`: the response has this status.
        /// - `http_502`, `http_504`: the same, with `proxy_next_upstream` and `grpc_next_upstream` alone.
        /// - `denied`: `{}allow_upstream` forbids the server.
        /// - `non_idempotent`: also requests with the methods POST, LOCK and PATCH that have been sent to a server
        ///   already.
        /// - `updating`: accepted for compatibility, but not with `grpc_next_upstream`; it means something in
        ///   `{}cache_use_stale` only.
        /// - `off`: a request isn't passed on.
        ///
        /// Effect: another server of the group is tried, unless a part of the response has been sent to the client.
        /// Failures of the kinds `error`, `timeout`, `denied` and `invalid_header` count as failures of the server (`max_fails`)
        /// whether listed or not; those of statuses 500, 502, 503, 504 and 429 only if listed. `tunnel_next_upstream` takes
        /// `error`, `timeout`, `denied` and `off` alone.
        ///
        /// Cost: a client waits for each server that is tried; `{}next_upstream_tries` and `{}next_upstream_timeout`
        /// bound it.
        ///
        /// Danger: a request may be executed twice: the first server may have done its work before it failed.
        /// `non_idempotent` extends that to orders and payments.
        ///
        /// ```nginx
        /// {}next_upstream error;
        /// ```
        "next_upstream" in EVERYWHERE, Args::at_least(1), default "error timeout",
            set(next_upstream) next_upstream: u32 = retry::failure::DEFAULT;
    }
    group lowat {
        /// Accepted for compatibility: it does nothing on Linux.
        "send_lowat" in EVERYWHERE, ONE, default "0",
            scalar(send_lowat) send_lowat: usize = 0;
    }
    group errors {
        /// Applies `error_page` to responses of backends with a status of 300 or more if it is `on`.
        ///
        /// Effect: if an `error_page` is set for the status, its page is sent in place of the backend's response; if
        /// none is, the backend's response is passed on.
        ///
        /// ```nginx
        /// {}intercept_errors on;
        /// error_page 502 503 504 /unavailable.html;
        /// ```
        "intercept_errors" in EVERYWHERE, Args::FLAG, default "off",
            scalar(flag) intercept_errors: bool = false;
    }
    group fields {
        /// Writes the request anew for each server that is asked if it is `on`.
        ///
        /// Effect: values of variables may differ from one server to the next, as those of `$upstream_addr` do. With `off`
        /// the request is written once, before a server is chosen.
        ///
        /// Cost: the request is written once more for each server.
        ///
        /// ```nginx
        /// {}request_dynamic on;
        /// ```
        "request_dynamic" in EVERYWHERE, Args::FLAG, default "off",
            scalar(flag) request_dynamic: bool = false;
        /// Passes a response field to the client that is hidden by default.
        ///
        /// Form: `{}pass_header name`
        ///
        /// - `name`: the field's name, in any case.
        ///
        /// Effect: the client gets the field as the backend sent it. The directive may be repeated, and levels that set
        /// any don't inherit those of the level around them.
        ///
        /// ```nginx
        /// {}pass_header Server;
        /// ```
        "pass_header" in EVERYWHERE, ONE, default none,
            list(field) pass_header: Vec<u8>;
        /// Removes a field from responses before they are passed to clients.
        ///
        /// Form: `{}hide_header name`
        ///
        /// - `name`: the field's name, in any case.
        ///
        /// Effect: the field is removed in addition to those that are hidden by default. It still acts inside the
        /// server (`X-Accel-Redirect`, for example), and a variable `$upstream_http_name` shows it. The directive may
        /// be repeated, and levels that set any don't inherit those of the level around them.
        ///
        /// ```nginx
        /// {}hide_header X-Powered-By;
        /// ```
        "hide_header" in EVERYWHERE, ONE, default none,
            list(field) hide_header: Vec<u8>;
        /// Disables the effect of response fields of backends.
        ///
        /// Form: `{}ignore_headers name ...`
        ///
        /// - `X-Accel-Redirect`: no internal redirect is made.
        /// - `X-Accel-Limit-Rate`: the rate to the client isn't changed.
        /// - `X-Accel-Buffering`: buffering isn't switched.
        /// - `X-Accel-Charset`: the charset of the response isn't changed.
        /// - `X-Accel-Expires`, `Expires`, `Cache-Control`, `Set-Cookie`, `Vary`: the cache doesn't heed them.
        ///
        /// Effect: the fields named don't act. Whether they are passed to the client is decided by `{}hide_header` and
        /// `{}pass_header`.
        ///
        /// Danger: without `X-Accel-Redirect` here, a backend that can be made to send this field chooses which
        /// internal location serves the response. Name it for backends that you don't trust.
        ///
        /// ```nginx
        /// {}ignore_headers X-Accel-Redirect X-Accel-Limit-Rate;
        /// ```
        "ignore_headers" in EVERYWHERE, Args::at_least(1), default none,
            set(|raw: &mut UpstreamRaw, l: &mut Loader<'_>, d: &Directive| bitmask(&mut raw.ignore_headers, IGNORED, l, d))
            ignore_headers: u32 = 0;
    }
    group request {
        /// Reads a request's body whole before a backend is connected if it is `on`; `off` passes it on while it
        /// arrives.
        ///
        /// Effect: with `on` backends are busy only as long as they need, however slow the client is. With `off` the
        /// backend gets the first part at once; when a part has been sent, the request can't be passed to another
        /// server.
        ///
        /// Cost: with `on`, bodies larger than `client_body_buffer_size` are written to files and read again.
        ///
        /// Danger: with `off`, slow clients keep connections and processes of backends busy.
        ///
        /// ```nginx
        /// {}request_buffering off;
        /// ```
        "request_buffering" in EVERYWHERE, Args::FLAG, default "on",
            scalar(flag) request_buffering: bool = true;
        /// Finishes the exchange with the backend although the client has closed its connection if it is `on`.
        ///
        /// Effect: with `off`, the connection to the backend is closed when the client closes its own, and the request
        /// is logged with status 499.
        ///
        /// Cost: with `on`, clients that leave and return keep backends busy with requests that nobody waits for.
        ///
        /// ```nginx
        /// {}ignore_client_abort on;
        /// ```
        "ignore_client_abort" in EVERYWHERE, Args::FLAG, default "off",
            scalar(flag) ignore_client_abort: bool = false;
        /// Passes the header fields of the client's request to the backend if it is `on`.
        ///
        /// Effect: with `off`, the backend gets only the fields that the protocol and the configuration set.
        ///
        /// ```nginx
        /// {}pass_request_headers off;
        /// ```
        "pass_request_headers" in EVERYWHERE, Args::FLAG, default "on",
            scalar(flag) pass_request_headers: bool = true;
        /// Passes the body of the client's request to the backend if it is `on`.
        ///
        /// Effect: with `off`, the backend gets a request without a body.
        ///
        /// Danger: the request still has the length of the client's body in `Content-Length`, and a backend waits for
        /// that body, unless the configuration sets the field to an empty value.
        ///
        /// ```nginx
        /// {}pass_request_body off;
        /// ```
        "pass_request_body" in EVERYWHERE, Args::FLAG, default "on",
            scalar(flag) pass_request_body: bool = true;
    }
    group response {
        /// Reads a response from the backend as fast as it arrives, and keeps it until the client takes it, if it is
        /// `on`. `off` passes each part on before the next is read.
        ///
        /// Effect: with `on`, a slow client doesn't keep the backend busy: what doesn't fit into `{}buffers` goes to a
        /// file. With `off`, the response comes at the client's speed and each part without delay. The response field
        /// `X-Accel-Buffering: yes` or `no` overrides it.
        ///
        /// Cost: `on` takes memory (`{}buffers`) and disk space (`{}max_temp_file_size`) for each response. `off` keeps
        /// the backend's connection for as long as the client takes.
        ///
        /// ```nginx
        /// {}buffering off;
        /// ```
        "buffering" in EVERYWHERE, Args::FLAG, default "on",
            scalar(flag) buffering: bool = true;
        /// Sets the number and size of the buffers for one response.
        ///
        /// Form: `{}buffers number size`
        ///
        /// - `number`: how many buffers a response may take, at least 2.
        /// - `size`: the size of each.
        ///
        /// Effect: with `{}buffering on`, so much of a response is kept in memory for a client that is slower than the
        /// backend; the rest goes to a file.
        ///
        /// Cost: at most their product for each request under way, beside `{}buffer_size`.
        ///
        /// ```nginx
        /// {}buffers 16 8k;
        /// ```
        "buffers" in EVERYWHERE, Args::exactly(2), default "8 4k",
            scalar(bufs) buffers: Bufs = Bufs { count: 8, size: PAGE };
        /// Accepted for compatibility: whatever was read may be on its way to the client.
        "busy_buffers_size" in EVERYWHERE, ONE, default computed("twice the larger of `{}buffer_size` and one of `{}buffers`"),
            scalar(|l: &mut Loader<'_>, d: &Directive| size(l, d).map(Some)) busy_buffers_size: Option<usize> = None;
        /// Serves ranges of a response even if the backend doesn't announce that it can (`Accept-Ranges`), if it is
        /// `on`.
        ///
        /// Effect: a request with `Range` gets the part (206) that is cut from the backend's whole response.
        ///
        /// Cost: the whole response is read from the backend for each part.
        ///
        /// Danger: a client that puts parts together needs each response to have the same content.
        ///
        /// ```nginx
        /// {}force_ranges on;
        /// ```
        "force_ranges" in EVERYWHERE, Args::FLAG, default "off",
            scalar(flag) force_ranges: bool = false;
        /// Limits the speed at which responses are read from backends.
        ///
        /// Form: `{}limit_rate rate`
        ///
        /// - `rate`: bytes a second for each connection, or a text with variables; 0 is no limit.
        ///
        /// Effect: the limit holds for one request; a client with two requests gets twice as much. A response that isn't
        /// buffered (`{}buffering off`) has no limit but the client's.
        ///
        /// Danger: a slow rate keeps the backend's connection for longer.
        ///
        /// ```nginx
        /// {}limit_rate 1m;
        /// ```
        "limit_rate" in EVERYWHERE, ONE, default "0",
            scalar(size_template) limit_rate: Option<Rc<Template>> = None;
        /// Sets the folder for parts of responses that don't fit into the buffers.
        ///
        /// Form: `{}temp_path path [level ...]`
        ///
        /// - `path`: a folder, relative to the prefix (`-p`).
        /// - `level`: up to three lengths of subfolders' names, from 1 to 10 digits, 10 together at most; by default
        ///   there are no subfolders.
        ///
        /// Effect: files get numbers as names and are removed when the request ends.
        ///
        /// Cost: disk space of up to `{}max_temp_file_size` for each request under way.
        ///
        /// Danger: files contain responses, with whatever is confidential in them: keep the folder closed to other
        /// users.
        ///
        /// ```nginx
        /// {}temp_path temp 1 2;
        /// ```
        "temp_path" in EVERYWHERE, Args::between(1, 4), default computed("`{}temp` in the program's folder for temporary files"),
            scalar(temp_path) temp_path: TempPath = TempPath::new("");
        /// Limits the size of the file for a response that the client takes more slowly than the backend sends it.
        ///
        /// Form: `{}max_temp_file_size size`
        ///
        /// - `size`: 0 uses no files; else at least as large as `{}buffer_size` and one of `{}buffers`.
        ///
        /// Effect: when the file is full, or there is none, the backend is read at the client's speed.
        ///
        /// Cost: disk space of this size for each request under way.
        ///
        /// Danger: workers wait while the disk is written and read.
        ///
        /// ```nginx
        /// {}max_temp_file_size 64m;
        /// ```
        "max_temp_file_size" in EVERYWHERE, ONE, default "1024m",
            scalar(size) max_temp_file_size: usize = 1 << 30;
        /// Accepted for compatibility: what was read is written.
        "temp_file_write_size" in EVERYWHERE, ONE, default computed("twice the larger of `{}buffer_size` and one of `{}buffers`"),
            scalar(|l: &mut Loader<'_>, d: &Directive| size(l, d).map(Some)) temp_file_write_size: Option<usize> = None;
    }
    group store {
        /// Stores responses of status 200 as files, so that they are served from there later.
        ///
        /// Form: `{}store on | off | path`
        ///
        /// - `on`: the file is the one that `root` or `alias` has for the URI.
        /// - `off`: nothing is stored.
        /// - `path`: the file; it may contain variables. A relative path counts from the prefix.
        ///
        /// Effect: a response is written to a temporary file in `{}temp_path` and moved to its place when it is whole, with
        /// the time in its `Last-Modified`. A response that breaks off leaves no file; a client that leaves doesn't end it.
        /// Folders that are missing are made. Responses to HEAD aren't stored.
        ///
        /// Cost: each response is written to disk, large ones by a task of their own. Where the temporary folder is on
        /// another file system, the file is copied.
        ///
        /// Danger: nothing is ever removed, and fields of the response are lost except the time. With variables that
        /// clients control in `path`, clients choose which files are written. In a sandbox permissions and time aren't
        /// set.
        ///
        /// ```nginx
        /// {}store on;
        /// ```
        "store" in EVERYWHERE, ONE, default "off",
            scalar(store::store) store: Store = Store::Off;
        /// Sets the permissions of stored files and, with the right to search, of folders made for them.
        ///
        /// Form: `{}store_access who:rights ...`
        ///
        /// - `who`: `user`, `group` or `all`.
        /// - `rights`: `rw` or `r`.
        ///
        /// Effect: without `user` the owner may read and write.
        ///
        /// ```nginx
        /// {}store_access user:rw group:rw all:r;
        /// ```
        "store_access" in EVERYWHERE, Args::between(1, 3), default "user:rw",
            scalar(permissions) store_access: u32 = 0o600;
    }
    group trailers {
        /// Passes the trailer fields of a response on to the client if it is `on`.
        ///
        /// Effect: fields after the backend's body follow the body sent to the client, if its protocol can carry them
        /// (HTTP/2, or chunks in HTTP/1.1).
        ///
        /// ```nginx
        /// {}pass_trailers on;
        /// ```
        "pass_trailers" in EVERYWHERE, Args::FLAG, default "off",
            scalar(flag) pass_trailers: bool = false;
    }
    finish(finish)
}

fn field(_: &mut Loader<'_>, d: &Directive) -> Result<Vec<u8>> {
    Ok(d.arg(0).text.clone())
}

fn next_upstream(raw: &mut UpstreamRaw, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let words = match d.name.text.split(|byte| *byte == b'_').next() {
        Some(b"proxy") => retry::WORDS,
        Some(b"grpc") => retry::GRPC_WORDS,
        Some(b"tunnel") => retry::TUNNEL_WORDS,
        _ => retry::CGI_WORDS,
    };
    bitmask(&mut raw.next_upstream, words, loader, d)
}

fn finish(conf: &mut UpstreamConf, _: Option<&UpstreamConf>, prefix: &str, loader: &mut Loader<'_>) -> Result<()> {
    let has_files = loader.registry().rows(&format!("{prefix}temp_path")).next().is_some();
    if conf.temp_path.path.as_os_str().is_empty() {
        conf.temp_path = TempPath::new(&format!("{prefix}temp"));
    }
    if has_files {
        http::body::temp::register(loader, &mut conf.temp_path);
    }
    Ok(())
}

/// The directives that [`check_buffers`] checks: if the one that an error names isn't set, another of these is.
pub const BUFFERS: &[&str] = &["buffer_size", "buffers", "busy_buffers_size"];

/// Checks nginx's rules for the sizes of buffers; `prefix` is that of the directives. The error names the
/// directive that it is about.
pub fn check_buffers(conf: &UpstreamConf, prefix: &str) -> std::result::Result<(), (&'static str, String)> {
    let largest = conf.buffer_size.max(conf.buffers.size);
    let maximum = format!("the maximum of the value of \"{prefix}buffer_size\" and one of the \"{prefix}buffers\"");
    if conf.buffers.count < 2 {
        return Err(("buffers", format!("there must be at least 2 \"{prefix}buffers\"")));
    }
    let busy = conf.busy_buffers_size.unwrap_or(2 * largest);
    if busy < largest {
        let message = format!("\"{prefix}busy_buffers_size\" must be equal to or greater than {maximum}");
        return Err(("busy_buffers_size", message));
    }
    if busy > (conf.buffers.count - 1).saturating_mul(conf.buffers.size) {
        let all = format!("the size of all \"{prefix}buffers\" minus one buffer");
        return Err(("busy_buffers_size", format!("\"{prefix}busy_buffers_size\" must be less than {all}")));
    }
    if conf.temp_file_write_size.is_some_and(|size| size < largest) {
        let message = format!("\"{prefix}temp_file_write_size\" must be equal to or greater than {maximum}");
        return Err(("temp_file_write_size", message));
    }
    if conf.max_temp_file_size != 0 && conf.max_temp_file_size < largest {
        let message = format!(
            "\"{prefix}max_temp_file_size\" must be equal to zero to disable temporary files usage or must be equal to \
             or greater than {maximum}"
        );
        return Err(("max_temp_file_size", message));
    }
    Ok(())
}

/// As [`check_buffers`], for a location.
pub fn check_location(cx: &LocationContext<'_, '_>, conf: &UpstreamConf, prefix: &str) -> Result<()> {
    check_buffers(conf, prefix).map_err(|(name, message)| {
        let at = |name: &&str| cx.place(&format!("{prefix}{name}"));
        let place = [name].iter().find_map(at).or_else(|| BUFFERS.iter().find_map(at));
        Error::new(message).or_at(place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf() -> UpstreamConf {
        let registry = conf::Registry::new();
        let (sources, _, _) = conf::parse::parse("x", "");
        let mut loader = Loader::new(&registry, conf::Env::default(), sources);
        let resolved = <UpstreamConf as conf::table::Groups>::resolve(None, None, "proxy_", &mut loader);
        resolved.expect("nothing was set, so nothing is wrong")
    }

    #[test]
    fn memcached_has_its_thirteen_directives() {
        let mut rows: Vec<_> = <crate::memcached::MemcachedConf as conf::Conf>::table()
            .rows
            .iter()
            .map(|row| row.name.to_string())
            .collect();
        rows.sort();
        let expect = [
            "allow_upstream",
            "bind",
            "bind_dynamic",
            "buffer_size",
            "connect_timeout",
            "gzip_flag",
            "next_upstream",
            "next_upstream_timeout",
            "next_upstream_tries",
            "pass",
            "read_timeout",
            "send_timeout",
            "socket_keepalive",
        ];
        assert_eq!(rows, expect.map(|name| format!("memcached_{name}")));
    }

    #[test]
    fn sizes_of_buffers() {
        let check = |change: fn(&mut UpstreamConf)| {
            let mut conf = conf();
            change(&mut conf);
            check_buffers(&conf, "proxy_").err().map_or_else(String::new, |(_, message)| message)
        };
        assert_eq!(check(|_| ()), "");
        for (change, expect) in [
            ((|conf| conf.buffers.count = 1) as fn(&mut UpstreamConf), "there must be at least 2"),
            (
                |conf| conf.buffer_size = 16 << 10,
                "must be less than the size of all \"proxy_buffers\" minus one buffer",
            ),
            (|conf| conf.busy_buffers_size = Some(1), "\"proxy_busy_buffers_size\" must be equal to or greater"),
            (|conf| conf.temp_file_write_size = Some(1), "\"proxy_temp_file_write_size\" must be equal to or greater"),
            (|conf| conf.max_temp_file_size = 1, "\"proxy_max_temp_file_size\" must be equal to zero"),
        ] {
            let error = check(change);
            assert!(error.contains(expect), "{error}");
        }
        assert_eq!(check(|conf| conf.max_temp_file_size = 0), "");
    }
}
