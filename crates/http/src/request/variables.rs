//! Variables of HTTP: how they are defined and referred to, and the core module's own.

use std::rc::Rc;

use common::vars::text::put_some;
use common::vars::{self, define_facts};
use conf::{Directive, Loader, Result, Span, Word};
use expr::vars::{Flags, Template, VarId};
use wire::h1::KnownHeader;

pub use common::vars::text::{address, number, put, show, show_seconds};
pub use common::vars::{Regex as HttpRegex, Value};

use super::{Credentials, Delivery, Request};
use crate::proto::HttpProto;
use crate::response::headers::{join, same_name};

/// How a variable gets its value.
pub type Getter = vars::Getter<HttpProto>;

/// What setting a variable does to a request.
pub type Setter = vars::Setter<HttpProto>;

/// A definition: the getter, and what `set` does if not just store the value.
pub type Definition = vars::Definition<HttpProto>;

/// The variables of a configuration that is complete.
pub type Variables = vars::Variables<HttpProto>;

/// The variables of a configuration that is being read.
pub type Setup = vars::Setup<HttpProto>;

/// See [`vars::regex`].
pub fn regex(loader: &mut Loader<'_>, word: &Word, pattern: &[u8], caseless: bool) -> Result<HttpRegex> {
    vars::regex::<HttpProto>(loader, word, pattern, caseless)
}

/// See [`vars::storable`].
pub fn storable(loader: &mut Loader<'_>, word: &Word, strength: Flags) -> Result<(VarId, Option<Setter>)> {
    vars::storable::<HttpProto>(loader, word, strength)
}

/// See [`vars::template_of`].
pub fn template_of(loader: &mut Loader<'_>, d: &Directive, text: &[u8]) -> Result<Rc<Template>> {
    vars::template_of::<HttpProto>(loader, d, text)
}

/// See [`vars::template_at`].
pub fn template_at(loader: &mut Loader<'_>, place: Span, text: &[u8]) -> Result<Rc<Template>> {
    vars::template_at::<HttpProto>(loader, place, text)
}

/// See [`vars::one_variable`].
pub fn one_variable(loader: &mut Loader<'_>, word: &Word) -> Result<Rc<Template>> {
    vars::one_variable::<HttpProto>(loader, word)
}

/// See [`vars::named_variable`].
pub fn named_variable(loader: &mut Loader<'_>, word: &Word) -> Result<Rc<Template>> {
    vars::named_variable::<HttpProto>(loader, word)
}

/// See [`vars::define`].
pub fn define(loader: &mut Loader<'_>, word: &Word, flags: Flags, definition: Definition) -> Result<()> {
    vars::define::<HttpProto>(loader, word, flags, definition)
}

/// See [`vars::template`].
pub fn template(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<Template>>> {
    vars::template::<HttpProto>(loader, d)
}

/// See [`vars::size_template`].
pub fn size_template(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<Template>>> {
    vars::size_template::<HttpProto>(loader, d)
}

impl Request {
    /// A template's value.
    pub fn render(&mut self, template: &Template) -> Vec<u8> {
        vars::render(self, template)
    }

    /// Calls `f` with a template's value, which takes no memory of its own.
    pub fn with_value<R>(&mut self, template: &Template, f: impl FnOnce(&mut Request, &[u8]) -> R) -> R {
        vars::with_value(self, template, f)
    }

    /// A template's value to keep: one stored variable alone is shared, not copied.
    pub fn render_shared(&mut self, template: &Template) -> buf::Bytes {
        vars::render_shared(self, template)
    }

    /// Appends the value of the variable of that name, in lower case; false if there is none.
    pub fn variable_by_name(&mut self, name: &str, out: &mut Vec<u8>) -> bool {
        vars::value_by_name(self, name, out)
    }

    /// The argument of that name in the query, as it was sent.
    pub fn argument(&self, name: &[u8]) -> Option<&[u8]> {
        let mut rest = &self.args[..];
        loop {
            let end = memchr::memchr(b'&', rest);
            let pair = rest.get(..end.unwrap_or(rest.len()))?;
            if let Some((found, [b'=', value @ ..])) = pair.split_at_checked(name.len())
                && found.eq_ignore_ascii_case(name)
            {
                return Some(value);
            }
            rest = rest.get(end? + 1..)?;
        }
    }

    /// A condition: a template whose value is neither empty nor `0`.
    pub fn test(&mut self, template: &Template) -> bool {
        vars::test(self, template)
    }
}

/// Defines the core module's variables.
pub fn core(setup: &mut Setup) {
    define_facts(setup);
    define_connection(setup);
    define_request(setup);
    define_place(setup);
    define_response(setup);
    define_process(setup);
}

/// Of the connection: addresses, the PROXY protocol, the socket.
fn define_connection(setup: &mut Setup) {
    crate::variables! { setup, CORE;
        /// How many requests the connection has had, this one included.
        "connection_requests", Flags::NONE, Getter::Plain(|r, out| show(out, format_args!("{}", r.conn.requests)));
        /// The time since the connection was accepted, in seconds with milliseconds.
        "connection_time", Flags::NOCACHEABLE, Getter::Plain(|r, out| show_seconds(out, rt::now_ms().saturating_sub(r.conn.started_ms)));
        /// The smoothed round-trip time of the client's connection, in microseconds. Empty if the kernel
        /// doesn't tell it.
        "tcpinfo_rtt", Flags::NOCACHEABLE, Getter::Plain(|r, out| tcp_info(r, out, |info| info.rtt));
        /// The variance of the round-trip time of the client's connection, in microseconds. Empty if the kernel
        /// doesn't tell it.
        "tcpinfo_rttvar", Flags::NOCACHEABLE, Getter::Plain(|r, out| tcp_info(r, out, |info| info.rttvar));
        /// The congestion window of the client's connection, in segments. Empty if the kernel doesn't tell it.
        "tcpinfo_snd_cwnd", Flags::NOCACHEABLE, Getter::Plain(|r, out| tcp_info(r, out, |info| info.snd_cwnd));
        /// The receive window of the client's connection, in bytes. Empty if the kernel doesn't tell it.
        "tcpinfo_rcv_space", Flags::NOCACHEABLE, Getter::Plain(|r, out| tcp_info(r, out, |info| info.rcv_space));
        /// `p` if the request came before the response to the one before it was complete, else `.`.
        "pipe", Flags::NONE, Getter::Plain(|r, out| put(out, if r.pipelined { b"p" } else { b"." }));
    }
}

/// Of the request as the client sent it.
fn define_request(setup: &mut Setup) {
    crate::variables! { setup, CORE;
        /// The field `Content-Length` of the request; without one the length of its body, if that is known.
        /// Empty without either.
        "content_length", Flags::NONE, Getter::Plain(content_length);
        /// The field `Content-Type` of the request. Empty if there is none.
        "content_type", Flags::NONE, Getter::Plain(|r, out| request_header(r, "content_type", out));
        /// The host of the request, in lower case and without a port: of the request's line or `:authority`,
        /// else of the field `Host`, else the first name of the server.
        "host", Flags::NONE, Getter::Plain(host);
        /// The protocol of the request: `HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`. Empty for what isn't a request of
        /// HTTP.
        "server_protocol", Flags::NONE, Getter::Plain(server_protocol);
        /// The scheme of the request: `http`, or `https` over TLS.
        "scheme", Flags::NONE, Getter::Plain(|r, out| put(out, r.scheme()));
        /// `on` over TLS, else empty.
        "https", Flags::NONE, Getter::Plain(|r, out| put(out, if r.conn.is_secure() { b"on" } else { b"" }));
        /// The port that the request names, in its line or the field `Host`. Empty if it names none.
        "request_port", Flags::NONE, Getter::Plain(request_port);
        /// `:` if `$request_port` isn't empty, else empty.
        "is_request_port", Flags::NONE, Getter::Plain(|r, out| {
                        let mut port = Vec::new();
                        if request_port(r, &mut port) && !port.is_empty() { put(out, b":") } else { true }
                    });
        /// The URI as the client sent it, with its arguments. Empty for what isn't a request.
        "request_uri", Flags::NONE, Getter::Plain(|r, out| put_some(out, r.line.request_uri(&r.head)));
        /// The request's line as the client sent it; over HTTP/2 the line that it would be. Empty for what
        /// isn't a request.
        "request", Flags::NONE, Getter::Plain(|r, out| put_some(out, r.line.request_line.of(&r.head)));
        /// The method: `GET`, `POST` and so on. Empty for what isn't a request.
        "request_method", Flags::NOCACHEABLE, Getter::Plain(|r, out| put_some(out, method(r)));
        /// The user's name of HTTP's Basic authentication, whether or not it was checked. Empty without one.
        "remote_user", Flags::NONE, Getter::Plain(remote_user);
        /// The request's body, if it was read into memory as a whole; empty otherwise. Locations with
        /// `proxy_pass` read it.
        "request_body", Flags::NONE, Getter::Plain(request_body);
        /// The name of the temporary file with the request's body. Empty if there is none.
        "request_body_file", Flags::NONE, Getter::Plain(request_body_file);
        /// The length of the request in bytes: line, fields and body.
        "request_length", Flags::NOCACHEABLE, Getter::Plain(|r, out| number(out, r.request_length()));
        /// The time since the first byte of the request, in seconds with milliseconds.
        "request_time", Flags::NOCACHEABLE, Getter::Plain(|r, out| show_seconds(out, r.elapsed_ms()));
        /// An identifier of the request: 16 random bytes in hexadecimal digits.
        "request_id", Flags::NONE, Getter::Plain(request_id);
        /// The field `Host` of the request. Empty if there is none.
        "http_host", Flags::NONE, Getter::Plain(|r, out| known_header(r, KnownHeader::Host, out));
        /// The field `User-Agent` of the request. Empty if there is none.
        "http_user_agent", Flags::NONE, Getter::Plain(|r, out| known_header(r, KnownHeader::UserAgent, out));
        /// The field `Referer` of the request. Empty if there is none.
        "http_referer", Flags::NONE, Getter::Plain(|r, out| known_header(r, KnownHeader::Referer, out));
        /// The field `Via` of the request; several are joined by commas. Empty if there is none.
        "http_via", Flags::NONE, Getter::Plain(|r, out| known_header(r, KnownHeader::Via, out));
        /// The field `X-Forwarded-For` of the request; several are joined by commas. Empty if there is none.
        "http_x_forwarded_for", Flags::NONE, Getter::Plain(|r, out| known_header(r, KnownHeader::XForwardedFor, out));
        /// The field `Cookie` of the request; several are joined by semicolons. Empty if there is none.
        "http_cookie", Flags::NONE, Getter::Plain(|r, out| known_header(r, KnownHeader::Cookie, out));
        /// A field of the request by its name, in lower case and with underscores for dashes. Several fields
        /// are joined by commas, cookies by semicolons. Empty if there is none.
        "http_", Flags::PREFIX, Getter::Family(request_header);
        /// The cookie of that name in the request. Empty if there is none.
        "cookie_", Flags::PREFIX, Getter::Family(cookie);
        /// The argument of that name in the request's query, as it was sent. Empty if there is none.
        "arg_", Flags::PREFIX | Flags::NOCACHEABLE, Getter::Family(arg);
    }
}

/// Of what the request has become: its URI, server and folder.
fn define_place(setup: &mut Setup) {
    crate::variables! { setup, CORE;
        /// The current URI without arguments, normalised (decoded, without `.` and `..`); internal redirects
        /// and `rewrite` change it.
        "uri", Flags::NOCACHEABLE, Getter::Plain(uri);
        /// The same as `$uri`.
        "document_uri", Flags::NOCACHEABLE, Getter::Plain(uri);
        /// The folder of `root` or `alias` for the request. Empty if its value can't be computed.
        "document_root", Flags::NOCACHEABLE, Getter::Rendered(document_root);
        /// The same as `$document_root`, with all symbolic links resolved. Empty if the folder isn't there.
        "realpath_root", Flags::NOCACHEABLE, Getter::Rendered(realpath_root);
        /// The same as `$args`.
        "query_string", Flags::NOCACHEABLE, Getter::Plain(put_args);
        /// `?` if the request has arguments, else empty.
        "is_args", Flags::NOCACHEABLE, Getter::Plain(|r, out| put(out, if r.args.is_empty() { b"" } else { b"?" }));
        /// The path of the file for the request: of `root` or `alias`, and the URI.
        "request_filename", Flags::NOCACHEABLE, Getter::Rendered(request_filename);
        /// The first name of the server that serves the request. Empty if it has none.
        "server_name", Flags::NONE, Getter::Plain(|r, out| put(out, &r.server.name));
        /// The arguments of the request, without the question mark. `set` changes them. Empty if there are none.
        "args", Flags::CHANGEABLE | Flags::NOCACHEABLE, Getter::Plain(put_args), set |r, value| r.set_args(value);
        /// The rate of the response in bytes a second, 0 for no limit; `set` changes it. What the directive `limit_rate` says is in it
        /// once the response is begun, for the log.
        "limit_rate", Flags::CHANGEABLE | Flags::NOCACHEABLE, Getter::Plain(|r, out| number(out, r.rate.unwrap_or(0))),
            set |r, value| r.set_limit_rate(value);
    }
}

/// Of the response.
fn define_response(setup: &mut Setup) {
    crate::variables! { setup, CORE;
        /// How many bytes were sent to the client, the response's head included.
        "bytes_sent", Flags::NONE, Getter::Plain(|r, out| number(out, r.bytes_sent()));
        /// How many bytes of the response's body were sent to the client.
        "body_bytes_sent", Flags::NONE, Getter::Plain(|r, out| number(out, r.body_bytes_sent()));
        /// `OK` if the response was complete, else empty.
        "request_completion", Flags::NONE, Getter::Plain(completion);
        /// The status of the response: three digits; `000` as long as there is none.
        "status", Flags::NOCACHEABLE, Getter::Plain(status);
        /// The field `Content-Type` of the response. Empty if there is none.
        "sent_http_content_type", Flags::NONE, Getter::Plain(|r, out| r.response.content_type_text(out));
        /// The field `Content-Length` of the response. Empty if there is none.
        "sent_http_content_length", Flags::NONE, Getter::Plain(|r, out| match r.response.content_length {
                        Some(length) => show(out, format_args!("{length}")),
                        None => false,
                    });
        /// The field `Last-Modified` of the response. Empty if there is none.
        "sent_http_last_modified", Flags::NONE, Getter::Plain(|r, out| match r.response.last_modified {
                        Some(time) => put(out, &wire::date::format_http_time(time)),
                        None => r.response.headers.variable("last_modified", out),
                    });
        /// The field `Location` of the response. Empty if there is none.
        "sent_http_location", Flags::NONE, Getter::Plain(|r, out| match r.response.headers.fixed(KnownHeader::Location) {
                        Some(location) => put(out, location),
                        None => r.response.headers.variable("location", out),
                    });
        /// The field `ETag` of the response. Empty if there is none.
        "sent_http_etag", Flags::NONE, Getter::Plain(|r, out| r.response.headers.variable("etag", out));
        /// The field `Connection` of the response: `keep-alive`, `close` or `upgrade`.
        "sent_http_connection", Flags::NONE, Getter::Plain(|r, out| put(out, r.connection_text()));
        /// The field `Keep-Alive` of the response. Empty if there is none.
        "sent_http_keep_alive", Flags::NONE, Getter::Plain(|r, out| match r.keepalive_header() {
                        Some(seconds) => show(out, format_args!("timeout={seconds}")),
                        None => false,
                    });
        /// `chunked` if the response is sent in chunks, else empty.
        "sent_http_transfer_encoding", Flags::NONE, Getter::Plain(|r, out| r.response.chunked && put(out, b"chunked"));
        /// The field `Cache-Control` of the response; several are joined by commas. Empty if there is none.
        "sent_http_cache_control", Flags::NONE, Getter::Plain(|r, out| r.response.headers.variable("cache_control", out));
        /// The field `Link` of the response; several are joined by commas. Empty if there is none.
        "sent_http_link", Flags::NONE, Getter::Plain(|r, out| r.response.headers.variable("link", out));
        /// A field of the response by its name, in lower case and with underscores for dashes. Several fields
        /// are joined by commas. Empty if there is none.
        "sent_http_", Flags::PREFIX, Getter::Family(|r, name, out| r.response.headers.variable(name, out));
        /// A field after the response's body by its name, in lower case and with underscores for dashes. Empty
        /// if there is none.
        "sent_trailer_", Flags::PREFIX, Getter::Family(|r, name, out| r.response.trailers.variable(name, out));
    }
}

/// Of the process, and the time.
fn define_process(setup: &mut Setup) {
    crate::variables! { setup, CORE;
        /// The name of the machine.
        "hostname", Flags::NONE, Getter::Plain(|r, out| put(out, r.http.hostname.as_bytes()));
    }
}

/// The module whose variables these are.
const CORE: &str = "ngx_http_core_module";

fn put_args(r: &mut Request, out: &mut Vec<u8>) -> bool {
    r.has_args() && put(out, &r.args)
}

fn status(r: &mut Request, out: &mut Vec<u8>) -> bool {
    match r.status_for_log() {
        status @ 100.. => number(out, status.into()),
        odd => show(out, format_args!("{odd:03}")),
    }
}

/// An invalid version gives an empty value.
fn server_protocol(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let protocol = r.line.protocol;
    (protocol.start > 0 || !protocol.is_empty()) && put(out, protocol.of(&r.head))
}

fn content_length(r: &mut Request, out: &mut Vec<u8>) -> bool {
    if let Some(value) = r.line.value(KnownHeader::ContentLength, &r.head) {
        return put(out, value);
    }
    match r.body.known_length() {
        Some(length) => show(out, format_args!("{length}")),
        None => false,
    }
}

fn host(r: &mut Request, out: &mut Vec<u8>) -> bool {
    if r.host.is_empty() { put(out, &r.server.name) } else { put(out, &r.host) }
}

fn request_port(r: &mut Request, out: &mut Vec<u8>) -> bool {
    match r.line.port() {
        None | Some(0) => true,
        Some(port) => show(out, format_args!("{port}")),
    }
}

/// What isn't a request has no URI; a refused one has an empty one.
fn uri(r: &mut Request, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(&r.uri);
    !r.uri.is_empty() || r.internal || !r.line.method.is_empty()
}

fn document_root(r: &mut Request, out: &mut Vec<u8>) -> bool {
    match r.document_root() {
        Some(root) => put(out, &root),
        None => false,
    }
}

fn realpath_root(r: &mut Request, out: &mut Vec<u8>) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Some(root) = r.document_root() else { return false };
    match std::fs::canonicalize(std::ffi::OsStr::from_bytes(&root)) {
        Ok(path) => put(out, path.as_os_str().as_bytes()),
        Err(error) => {
            let errno = engine::log::Errno(&error);
            r.log_at(
                engine::log::Level::Crit,
                format_args!("realpath() \"{}\" failed{errno}", buf::text::encode(&root)),
            );
            false
        }
    }
}

fn request_filename(r: &mut Request, out: &mut Vec<u8>) -> bool {
    r.path_of_uri().is_ok_and(|path| put(out, &path))
}

/// The client's method, whichever one a backend is asked with.
fn method(r: &Request) -> &[u8] {
    if r.is_subrequest() { r.main_method() } else { r.method_name() }
}

fn remote_user(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let Some(Credentials { user, .. }) = r.basic_credentials(KnownHeader::Authorization) else { return false };
    !user.is_empty() && put(out, &user)
}

fn completion(r: &mut Request, out: &mut Vec<u8>) -> bool {
    put(out, if r.delivery != Delivery::Partial { b"OK" } else { b"" })
}

fn request_body(r: &mut Request, out: &mut Vec<u8>) -> bool {
    r.body.text(out)
}

fn request_body_file(r: &mut Request, out: &mut Vec<u8>) -> bool {
    use std::os::unix::ffi::OsStrExt;
    match r.body.file_path() {
        Some(path) => put(out, path.as_os_str().as_bytes()),
        None => false,
    }
}

fn request_id(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let id = match &r.family {
        Some(family) => family.id.get_or_init(new_request_id),
        None => r.id.get_or_insert_with(new_request_id),
    };
    put(out, id.as_bytes())
}

/// A value of `$request_id`.
fn new_request_id() -> String {
    buf::hex::text(&rt::random_bytes())
}

fn tcp_info(r: &Request, out: &mut Vec<u8>, of: fn(&os::socket::TcpInfo) -> u32) -> bool {
    let Some(client) = r.client() else { return false };
    match client.tcp_info() {
        Ok(info) => show(out, format_args!("{}", of(&info))),
        Err(_) => false,
    }
}

/// `$http_name`: all fields of that name, joined by `, ` (cookies by `; `).
fn request_header(r: &mut Request, name: &str, out: &mut Vec<u8>) -> bool {
    let separator: &[u8] = if name == "cookie" { b"; " } else { b", " };
    let fields = r.line.headers.iter().filter(|header| same_name(header.name.of(&r.head), name));
    join(fields.map(|header| header.value.of(&r.head)), separator, out)
}

/// The values of a field whose name is known.
fn known_header(r: &mut Request, known: KnownHeader, out: &mut Vec<u8>) -> bool {
    if !r.line.has(known) {
        return false;
    }
    let separator: &[u8] = if known == KnownHeader::Cookie { b"; " } else { b", " };
    join(r.header_lines(known), separator, out)
}

/// The cookie of that name, whatever its case.
pub fn cookie(r: &mut Request, name: &str, out: &mut Vec<u8>) -> bool {
    for header in r.line.headers.iter().filter(|header| header.known == KnownHeader::Cookie) {
        for pair in header.value.of(&r.head).split(|&c| c == b';') {
            let pair = pair.trim_ascii();
            let Some(at) = pair.iter().position(|&c| c == b'=') else { continue };
            if pair[..at].trim_ascii_end().eq_ignore_ascii_case(name.as_bytes()) {
                return put(out, pair[at + 1..].trim_ascii_start());
            }
        }
    }
    false
}

fn arg(r: &mut Request, name: &str, out: &mut Vec<u8>) -> bool {
    r.argument(name.as_bytes()).is_some_and(|value| put(out, value))
}
