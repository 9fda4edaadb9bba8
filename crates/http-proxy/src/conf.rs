//! The directives that every backend protocol has, under its own prefix: `proxy_…`, `fastcgi_…` and so on.
//!
//! [`UpstreamConf`] has the rows without a prefix, in groups; a protocol's table takes those groups that the protocol has.

use std::rc::Rc;

use ::upstream::retry;
use conf::values::{Bufs, bitmask, bufs, flag, msec, number, size};
use conf::{Args, Directive, Error, Loader, Result};
use expr::vars::Template;
use http::config::core::{EVERYWHERE, TempPath, send_lowat, temp_path};
use http::module::LocationContext;
use http::request::variables::{size_template, template_of};
use os::SockAddr;

use crate::store::{self, Store};

const ONE: Args = Args::exactly(1);
/// nginx's page size.
const PAGE: usize = 4096;

/// `…_bind`.
#[derive(Clone, Debug)]
pub enum Bind {
    /// The kernel chooses the address.
    Off,
    /// This one.
    Address(SockAddr),
    /// The value of a template, if it is an address.
    Variable(Rc<Template>),
}

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
    /// What backend protocols can be told. All have `connection`, `buffer` and `retries`, memcached nothing else; gRPC also
    /// has `sockets`, `errors` and `fields`, the others `request`, `response` and `store` too; FastCGI and HTTP have `lowat`, HTTP
    /// alone has `trailers`.
    pub groups UpstreamConf, raw UpstreamRaw;

    group connection {
        /// The own address for connections to backends.
        "bind" in EVERYWHERE, Args::between(1, 2), default none,
            scalar(bind) bind: Bind = Bind::Off;
        /// Whether connections to backends have SO_KEEPALIVE.
        "socket_keepalive" in EVERYWHERE, Args::FLAG, default "off",
            scalar(flag) socket_keepalive: bool = false;
        /// How long a backend may take to accept a connection.
        "connect_timeout" in EVERYWHERE, ONE, default "60s",
            scalar(msec) connect_timeout: u64 = 60_000;
        /// How long a backend may pause while it takes a request.
        "send_timeout" in EVERYWHERE, ONE, default "60s",
            scalar(msec) send_timeout: u64 = 60_000;
        /// How long a backend may pause while it sends a response.
        "read_timeout" in EVERYWHERE, ONE, default "60s",
            scalar(msec) read_timeout: u64 = 60_000;
    }
    group buffer {
        /// The size of the buffer for the head of a response: the largest head.
        "buffer_size" in EVERYWHERE, ONE, default "4k",
            scalar(size) buffer_size: usize = PAGE;
    }
    group retries {
        /// After which failures a request is passed to the next server.
        "next_upstream" in EVERYWHERE, Args::at_least(1), default "error timeout",
            set(|raw: &mut UpstreamRaw, l: &mut Loader<'_>, d: &Directive| bitmask(&mut raw.next_upstream, retry::WORDS, l, d))
            next_upstream: u32 = retry::failure::DEFAULT;
        /// How many servers are tried; 0 for all.
        "next_upstream_tries" in EVERYWHERE, ONE, default "0",
            scalar(number) next_upstream_tries: u32 = 0;
        /// For how long servers are tried; 0 for any time.
        "next_upstream_timeout" in EVERYWHERE, ONE, default "0",
            scalar(msec) next_upstream_timeout: u64 = 0;
    }
    group sockets {
        /// SO_RCVBUF of connections to backends; 0 leaves it to the system.
        "socket_rcvbuf" in EVERYWHERE, ONE, default "0",
            scalar(size) socket_rcvbuf: usize = 0;
        /// SO_SNDBUF of connections to backends; 0 leaves it to the system.
        "socket_sndbuf" in EVERYWHERE, ONE, default "0",
            scalar(size) socket_sndbuf: usize = 0;
    }
    group lowat {
        /// Accepted for compatibility: it does nothing on Linux.
        "send_lowat" in EVERYWHERE, ONE, default "0",
            scalar(send_lowat) send_lowat: usize = 0;
    }
    group errors {
        /// Whether responses of status 300 and more are replaced by `error_page`.
        "intercept_errors" in EVERYWHERE, Args::FLAG, default "off",
            scalar(flag) intercept_errors: bool = false;
    }
    group fields {
        /// A field of responses that is passed on though it is hidden by default.
        "pass_header" in EVERYWHERE, ONE, default none,
            list(field) pass_header: Vec<u8>;
        /// A field of responses that isn't passed on.
        "hide_header" in EVERYWHERE, ONE, default none,
            list(field) hide_header: Vec<u8>;
        /// Fields of responses that aren't acted on.
        "ignore_headers" in EVERYWHERE, Args::at_least(1), default none,
            set(|raw: &mut UpstreamRaw, l: &mut Loader<'_>, d: &Directive| bitmask(&mut raw.ignore_headers, IGNORED, l, d))
            ignore_headers: u32 = 0;
    }
    group request {
        /// Whether a request's body is read whole before the backend is asked.
        "request_buffering" in EVERYWHERE, Args::FLAG, default "on",
            scalar(flag) request_buffering: bool = true;
        /// Whether the backend's connection is kept when the client closes its own.
        "ignore_client_abort" in EVERYWHERE, Args::FLAG, default "off",
            scalar(flag) ignore_client_abort: bool = false;
        /// Whether the header fields of the request are passed on.
        "pass_request_headers" in EVERYWHERE, Args::FLAG, default "on",
            scalar(flag) pass_request_headers: bool = true;
        /// Whether the body of the request is passed on.
        "pass_request_body" in EVERYWHERE, Args::FLAG, default "on",
            scalar(flag) pass_request_body: bool = true;
    }
    group response {
        /// Whether a response is read from the backend as fast as it comes, and kept until the client takes it.
        "buffering" in EVERYWHERE, Args::FLAG, default "on",
            scalar(flag) buffering: bool = true;
        /// Number and size of the buffers for a response that the client takes slowly.
        "buffers" in EVERYWHERE, Args::exactly(2), default "8 4k",
            scalar(bufs) buffers: Bufs = Bufs { count: 8, size: PAGE };
        /// Accepted for compatibility: whatever was read may be on its way to the client.
        "busy_buffers_size" in EVERYWHERE, ONE, default computed("twice the larger of `{}buffer_size` and one of `{}buffers`"),
            scalar(|l: &mut Loader<'_>, d: &Directive| size(l, d).map(Some)) busy_buffers_size: Option<usize> = None;
        /// Whether ranges are served of responses whatever they say of it.
        "force_ranges" in EVERYWHERE, Args::FLAG, default "off",
            scalar(flag) force_ranges: bool = false;
        /// How many bytes a second are read of a response; 0 for no limit.
        "limit_rate" in EVERYWHERE, ONE, default "0",
            scalar(size_template) limit_rate: Option<Rc<Template>> = None;
        /// The folder for responses that don't fit into the buffers.
        "temp_path" in EVERYWHERE, Args::between(1, 4), default computed("`{}temp` in the program's folder for temporary files"),
            scalar(temp_path) temp_path: TempPath = TempPath::new("");
        /// The largest such file; 0 for none.
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
            scalar(store::store_access) store_access: u32 = 0o600;
    }
    group trailers {
        /// Whether trailer fields of the response are passed on.
        "pass_trailers" in EVERYWHERE, Args::FLAG, default "off",
            scalar(flag) pass_trailers: bool = false;
    }
    finish(finish)
}

fn field(_: &mut Loader<'_>, d: &Directive) -> Result<Vec<u8>> {
    Ok(d.arg(0).text.clone())
}

fn bind(loader: &mut Loader<'_>, d: &Directive) -> Result<Bind> {
    let word = d.arg(0);
    if let Some(extra) = d.args.get(1)
        && *extra != "transparent"
    {
        return Err(Error::at(extra, format!("invalid parameter \"{}\"", extra.lossy())));
    }
    if d.args.len() > 1 {
        loader.store.entry::<engine::worker::sandbox::Needs>().transparent();
    }
    if *word == "off" && d.args.len() == 1 {
        return Ok(Bind::Off);
    }
    if word.text.contains(&b'$') {
        return Ok(Bind::Variable(template_of(loader, d, &word.text)?));
    }
    let address = local_address(&word.text).map(Bind::Address);
    address.ok_or_else(|| Error::at(word, format!("invalid address \"{}\"", word.lossy())))
}

/// An address, with or without a port, to bind to.
pub fn local_address(text: &[u8]) -> Option<SockAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(addr) = text.parse::<std::net::SocketAddr>() {
        return Some(SockAddr::from(addr));
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let ip: std::net::IpAddr = bare.parse().ok()?;
    Some(SockAddr::from(std::net::SocketAddr::new(ip, 0)))
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

/// The directives that [`check_buffers`] looks at: where the one that it names isn't set, another of them was.
pub const BUFFERS: &[&str] = &["buffer_size", "buffers", "busy_buffers_size"];

/// nginx's rules for the sizes of buffers, for every location; `prefix` is that of the directives. The error has the
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

    conf::table! {
        /// The directives of nginx's memcached module.
        pub struct MemcachedConf, raw MemcachedRaw, module "ngx_http_memcached_module", level HTTP Location;

        under "memcached_" {
            /// What all protocols have.
            up: UpstreamConf [connection, buffer, retries];
        }
        /// The server.
        "memcached_pass" in EVERYWHERE, ONE, default none, here(field) pass: Vec<u8>;
        /// A flag of values.
        "memcached_gzip_flag" in EVERYWHERE, ONE, default "0", scalar(number) gzip_flag: u32 = 0;
    }

    #[test]
    fn memcached_has_its_eleven_directives() {
        let mut rows: Vec<_> =
            <MemcachedConf as conf::Conf>::table().rows.iter().map(|row| row.name.to_string()).collect();
        rows.sort();
        let expect = [
            "bind",
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

    #[test]
    fn own_addresses() {
        for (text, expect) in [
            ("127.0.0.1", Some("127.0.0.1:0")),
            ("127.0.0.1:5", Some("127.0.0.1:5")),
            ("::1", Some("[::1]:0")),
            ("[::1]", Some("[::1]:0")),
            ("[::1]:7", Some("[::1]:7")),
            ("x", None),
            ("", None),
        ] {
            let addr = local_address(text.as_bytes()).map(|addr| addr.to_string());
            assert_eq!(addr.as_deref(), expect, "{text}");
        }
    }
}
