//! Variables of HTTP: how they are defined and referred to, and the core module's own.

use std::fmt::Write as _;
use std::rc::Rc;

use common::vars::text::put_some;
use common::vars::{self, define_facts};
use conf::{Directive, Loader, Result, Span, Word};
use expr::vars::{Flags, Template, VarId};
use wire::h1::KnownHeader;

pub use common::vars::text::{number, put, show, show_seconds};
pub use common::vars::{Regex as HttpRegex, Value, add_all};

use super::Request;
use crate::proto::HttpProto;

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
pub fn storable(loader: &mut Loader<'_>, word: &Word) -> Result<(VarId, Option<Setter>)> {
    vars::storable::<HttpProto>(loader, word)
}

/// See [`vars::template_of`].
pub fn template_of(loader: &mut Loader<'_>, d: &Directive, text: &[u8]) -> Result<Rc<Template>> {
    vars::template_of::<HttpProto>(loader, d, text)
}

/// See [`vars::template_at`].
pub fn template_at(loader: &mut Loader<'_>, place: Span, text: &[u8]) -> Result<Rc<Template>> {
    vars::template_at::<HttpProto>(loader, place, text)
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

    /// A template's value to keep: one stored variable alone is shared, not copied.
    pub fn render_shared(&mut self, template: &Template) -> buf::Bytes {
        vars::render_shared(self, template)
    }

    /// A condition: a template whose value is neither empty nor `0`.
    pub fn test(&mut self, template: &Template) -> bool {
        vars::test(self, template)
    }
}

/// Defines the core module's variables.
pub fn core(setup: &mut Setup) {
    define_facts(setup);
    let module = "ngx_http_core_module";
    let none = Flags::NONE;
    let live = Flags::NOCACHEABLE;
    add_all(
        setup,
        module,
        &[
            ("content_length", none, Getter::Plain(content_length)),
            ("content_type", none, Getter::Plain(|r, out| request_header(r, "content_type", out))),
            ("host", none, Getter::Plain(host)),
            ("server_protocol", none, Getter::Plain(server_protocol)),
            ("scheme", none, Getter::Plain(|r, out| put(out, r.scheme()))),
            ("https", none, Getter::Plain(|r, out| put(out, if r.conn.is_secure() { b"on" } else { b"" }))),
            ("request_port", none, Getter::Plain(request_port)),
            (
                "is_request_port",
                none,
                Getter::Plain(|r, out| {
                    let mut port = Vec::new();
                    if request_port(r, &mut port) && !port.is_empty() { put(out, b":") } else { true }
                }),
            ),
            ("request_uri", none, Getter::Plain(|r, out| put_some(out, r.line.request_uri(&r.head)))),
            ("uri", live, Getter::Plain(uri)),
            ("document_uri", live, Getter::Plain(uri)),
            ("request", none, Getter::Plain(|r, out| put_some(out, r.line.request_line.of(&r.head)))),
            ("document_root", live, Getter::Plain(document_root)),
            ("realpath_root", live, Getter::Plain(realpath_root)),
            ("query_string", live, Getter::Plain(put_args)),
            ("is_args", live, Getter::Plain(|r, out| put(out, if r.args.is_empty() { b"" } else { b"?" }))),
            ("request_filename", live, Getter::Plain(request_filename)),
            ("server_name", none, Getter::Plain(|r, out| put(out, &r.server.name))),
            ("request_method", live, Getter::Plain(|r, out| put_some(out, r.method_name()))),
            ("remote_user", none, Getter::Plain(remote_user)),
            ("bytes_sent", none, Getter::Plain(|r, out| number(out, r.bytes_sent()))),
            ("body_bytes_sent", none, Getter::Plain(|r, out| number(out, r.body_bytes_sent()))),
            ("pipe", none, Getter::Plain(|r, out| put(out, if r.pipelined { b"p" } else { b"." }))),
            ("request_completion", none, Getter::Plain(completion)),
            ("request_body", none, Getter::Plain(request_body)),
            ("request_body_file", none, Getter::Plain(request_body_file)),
            ("request_length", live, Getter::Plain(|r, out| number(out, r.request_length()))),
            ("request_time", live, Getter::Plain(|r, out| show_seconds(out, r.elapsed_ms()))),
            ("request_id", none, Getter::Plain(request_id)),
            ("status", live, Getter::Plain(status)),
            ("sent_http_content_type", none, Getter::Plain(|r, out| r.response.content_type_text(out))),
            (
                "sent_http_content_length",
                none,
                Getter::Plain(|r, out| match r.response.content_length {
                    Some(length) => show(out, format_args!("{length}")),
                    None => false,
                }),
            ),
            (
                "sent_http_last_modified",
                none,
                Getter::Plain(|r, out| match r.response.last_modified {
                    Some(time) => put(out, &wire::date::format_http_time(time)),
                    None => r.response.headers.variable("last_modified", out),
                }),
            ),
            (
                "sent_http_location",
                none,
                Getter::Plain(|r, out| match &r.response.location {
                    Some(location) => put(out, location),
                    None => r.response.headers.variable("location", out),
                }),
            ),
            (
                "sent_http_etag",
                none,
                Getter::Plain(|r, out| match &r.response.etag {
                    Some(etag) => put(out, etag),
                    None => r.response.headers.variable("etag", out),
                }),
            ),
            ("sent_http_connection", none, Getter::Plain(|r, out| put(out, r.connection_text()))),
            (
                "sent_http_keep_alive",
                none,
                Getter::Plain(|r, out| match r.keepalive_header() {
                    Some(seconds) => show(out, format_args!("timeout={seconds}")),
                    None => false,
                }),
            ),
            ("sent_http_transfer_encoding", none, Getter::Plain(|r, out| r.response.chunked && put(out, b"chunked"))),
            ("connection_requests", none, Getter::Plain(|r, out| show(out, format_args!("{}", r.conn.requests)))),
            (
                "connection_time",
                live,
                Getter::Plain(|r, out| show_seconds(out, rt::now_ms().saturating_sub(r.conn.started_ms))),
            ),
            ("hostname", none, Getter::Plain(|r, out| put(out, r.http.hostname.as_bytes()))),
            ("tcpinfo_rtt", live, Getter::Plain(|r, out| tcp_info(r, out, |info| info.rtt))),
            ("tcpinfo_rttvar", live, Getter::Plain(|r, out| tcp_info(r, out, |info| info.rttvar))),
            ("tcpinfo_snd_cwnd", live, Getter::Plain(|r, out| tcp_info(r, out, |info| info.snd_cwnd))),
            ("tcpinfo_rcv_space", live, Getter::Plain(|r, out| tcp_info(r, out, |info| info.rcv_space))),
            ("http_", Flags::PREFIX, Getter::Family(request_header)),
            ("sent_http_", Flags::PREFIX, Getter::Family(|r, name, out| r.response.headers.variable(name, out))),
            ("sent_trailer_", Flags::PREFIX, Getter::Family(|r, name, out| r.response.trailers.variable(name, out))),
            ("cookie_", Flags::PREFIX, Getter::Family(cookie)),
            ("arg_", Flags::PREFIX | Flags::NOCACHEABLE, Getter::Family(arg)),
        ],
    );
    let settable = |getter, setter| Definition { getter, setter: Some(setter), module };
    let flags = Flags::CHANGEABLE | Flags::NOCACHEABLE;
    let args = settable(Getter::Plain(put_args), |r, value| r.set_args(value));
    let rate = settable(Getter::Plain(|r, out| show(out, format_args!("{}", r.limit_rate()))), |r, value| {
        r.set_limit_rate(value)
    });
    for (name, definition) in [("args", args), ("limit_rate", rate)] {
        setup.add(name, flags, definition);
    }
}

fn put_args(r: &mut Request, out: &mut Vec<u8>) -> bool {
    (r.has_args || !r.args.is_empty()) && put(out, &r.args)
}

fn status(r: &mut Request, out: &mut Vec<u8>) -> bool {
    match r.status_for_log() {
        status @ 100.. => number(out, status.into()),
        odd => show(out, format_args!("{odd:03}")),
    }
}

/// What isn't a version is one that is empty.
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
    match r.path_of_uri() {
        Some(path) => put(out, &path),
        None => false,
    }
}

fn remote_user(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let Some(user) = r.basic_user() else { return false };
    put(out, &user)
}

fn completion(r: &mut Request, out: &mut Vec<u8>) -> bool {
    put(out, if r.completed || r.cut_short { b"OK" } else { b"" })
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
    let id = r.id.get_or_insert_with(|| {
        let mut text = String::with_capacity(32);
        for byte in os::random_bytes() {
            let _ = write!(text, "{byte:02x}");
        }
        text
    });
    put(out, id.as_bytes())
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
    let mut found = false;
    for header in &r.line.headers {
        if same_name(header.name.of(&r.head), name) {
            if found {
                out.extend_from_slice(if name == "cookie" { b"; " } else { b", " });
            }
            out.extend_from_slice(header.value.of(&r.head));
            found = true;
        }
    }
    found
}

/// Whether a field's name is that of a variable: in lower case, with underscores for dashes.
pub fn same_name(field: &[u8], variable: &str) -> bool {
    field.len() == variable.len()
        && field
            .iter()
            .zip(variable.bytes())
            .all(|(&a, b)| (if a == b'-' { b'_' } else { a.to_ascii_lowercase() }) == b)
}

fn cookie(r: &mut Request, name: &str, out: &mut Vec<u8>) -> bool {
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
    for pair in r.args.split(|&c| c == b'&') {
        let Some(at) = pair.iter().position(|&c| c == b'=') else { continue };
        if pair[..at].eq_ignore_ascii_case(name.as_bytes()) {
            return put(out, &pair[at + 1..]);
        }
    }
    false
}
