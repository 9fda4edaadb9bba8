//! Variables of HTTP: how they are defined and referred to, and the core module's own.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::rc::Rc;

use conf::{Directive, Error, Loader, Result, Span, Word};
use expr::regex::{Captures, Regex};
use expr::vars::{Flags, Registry, VarId, Variables as Frozen};
use expr::vars::{Session, Template};
use wire::h1::KnownHeader;

use super::Request;
use buf::number::digits;

/// How a variable gets its value.
#[derive(Clone)]
pub enum Getter {
    /// Appends the value; false if there is none.
    Plain(fn(&mut Request, &mut Vec<u8>) -> bool),
    /// The same for a family (`$arg_…`), with the name after the prefix.
    Family(fn(&mut Request, &str, &mut Vec<u8>) -> bool),
    /// A value with data of its own, such as a map.
    Object(Rc<dyn Variable>),
    /// The value that `set` or a named capture has stored.
    Stored,
}

/// What setting a variable does to a request.
pub type Setter = fn(&mut Request, &[u8]);

/// A variable with data of its own.
pub trait Variable {
    /// Appends the value; false if there is none.
    fn value(&self, r: &mut Request, out: &mut Vec<u8>) -> bool;
}

/// A definition: the getter, and what `set` does if it doesn't just store the value.
#[derive(Clone)]
pub struct Definition {
    /// How it is read.
    pub getter: Getter,
    /// How it is set, if that changes the request.
    pub setter: Option<Setter>,
    /// The module that defines it.
    pub module: &'static str,
    /// Its text in the manual: what it holds, and when it is empty.
    pub text: &'static str,
}

/// The variables of a configuration that is complete.
pub type Variables = Frozen<Definition>;

/// The variables of a configuration that is being read.
#[derive(Default)]
pub struct Setup {
    /// Definitions and references.
    pub registry: Registry<Definition>,
    /// Where the references stand, by the number given to the registry.
    pub places: Vec<conf::Span>,
    /// Whether any template reads captures of a regex by number: if none does, none are taken.
    pub captures: bool,
    /// The regexes so far, by pattern and whether they ignore case.
    regexes: HashMap<(Box<[u8]>, bool), HttpRegex>,
}

impl Setup {
    /// All definitions for the manual; families end with `*`.
    pub fn descriptions(&self) -> Vec<engine::Variable> {
        let all = self.registry.definitions();
        all.map(|(name, flags, definition)| {
            let star = if flags.has(Flags::PREFIX) { "*" } else { "" };
            let text = definition.text.split_whitespace().collect::<Vec<_>>().join(" ");
            engine::Variable { module: definition.module, name: format!("{name}{star}"), text }
        })
        .collect()
    }
}

/// The value of a variable that a request has stored.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// Nothing was stored: the getter gives the value.
    #[default]
    Unset,
    /// It was stored that there is no value.
    Missing,
    /// Stored.
    Set(buf::Bytes),
}

/// A regex with the variables that its named groups set.
#[derive(Clone)]
pub struct HttpRegex {
    /// The regex.
    pub regex: Rc<Regex>,
    names: Rc<[(VarId, usize)]>,
}

/// One regex in two places is compiled once.
impl PartialEq for HttpRegex {
    fn eq(&self, other: &HttpRegex) -> bool {
        Rc::ptr_eq(&self.regex, &other.regex)
    }
}

impl std::fmt::Debug for HttpRegex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpRegex")
    }
}

impl HttpRegex {
    /// Whether `subject` matches; if so, the request's captures and the variables of named groups are set.
    ///
    /// An error of the engine (its limit on backtracking) is logged and taken for no match, with status 500 as the
    /// error.
    pub fn exec(&self, r: &mut Request, subject: &[u8]) -> std::result::Result<bool, u16> {
        if !r.http.captures && self.names.is_empty() {
            return self.regex.is_match(subject).map_err(|error| failed(r, subject, &error));
        }
        let mut captures = std::mem::take(&mut r.captures.pairs);
        let found = self.regex.captures(subject, &mut captures);
        r.captures.pairs = captures;
        match found {
            Ok(false) => return Ok(false),
            Ok(true) => {}
            Err(error) => return Err(failed(r, subject, &error)),
        }
        r.captures.serial = r.captures.serial.wrapping_add(1);
        r.captures.subject.clear();
        r.captures.subject.extend_from_slice(subject);
        for &(id, group) in &*self.names {
            let value = r.captures.get(group).map(buf::Bytes::copy_from);
            r.values[id.index()] = value.map_or(Value::Missing, Value::Set);
        }
        Ok(true)
    }
}

fn failed(r: &Request, subject: &[u8], error: &dyn std::fmt::Display) -> u16 {
    r.log_at(engine::log::Level::Alert, format_args!("regex on \"{}\" failed: {error}", subject.escape_ascii()));
    500
}

/// The captures of the last regex that matched.
#[derive(Default)]
pub struct LastCaptures {
    /// Pairs of offsets.
    pub pairs: Captures,
    /// The text that the offsets refer to.
    pub subject: Vec<u8>,
    /// Changes with each match.
    serial: u32,
}

impl LastCaptures {
    /// The group with that number; 0 is the whole match.
    pub fn get(&self, group: usize) -> Option<&[u8]> {
        self.pairs.slice(&self.subject, group)
    }

    /// No match.
    pub fn clear(&mut self) {
        self.pairs.clear();
        self.subject.clear();
    }
}

/// Compiles a regex of the configuration; its named groups define variables. One that stands in many places, as in
/// configurations that were generated, is compiled once.
pub fn regex(loader: &mut Loader<'_>, word: &Word, pattern: &[u8], caseless: bool) -> Result<HttpRegex> {
    let setup = loader.store.entry::<Setup>();
    let key = (Box::from(pattern), caseless);
    if let Some(known) = setup.regexes.get(&key) {
        return Ok(known.clone());
    }
    let regex = Regex::new(pattern, caseless).map_err(|error| Error::at(word, error.to_string()))?;
    let mut names = Vec::new();
    for (name, group) in regex.names() {
        may_change(setup, word, name)?;
        define_stored(setup, name);
        names.push((setup.registry.reference(name), *group));
    }
    let regex = HttpRegex { regex: Rc::new(regex), names: names.into() };
    setup.regexes.insert(key, regex.clone());
    Ok(regex)
}

/// Makes sure that `name` is a variable that can be stored to.
fn define_stored(setup: &mut Setup, name: &str) {
    if setup.registry.definition(name).is_none() {
        let module = "ngx_http_rewrite_module";
        let text = "What `set` or a named capture of a regex stores. Empty if nothing was stored.";
        let definition = Definition { getter: Getter::Stored, setter: None, module, text };
        // It isn't defined, so it isn't a duplicate.
        let _ = setup.registry.add(name, Flags::CHANGEABLE, definition);
    }
}

/// Variables that are the server's own can't be stored to.
fn may_change(setup: &Setup, word: &Word, name: &str) -> Result<()> {
    match setup.registry.definition(name) {
        Some((_, flags)) if !flags.has(Flags::CHANGEABLE) => {
            Err(Error::at(word, format!("the duplicate \"{name}\" variable")))
        }
        _ => Ok(()),
    }
}

/// The id of a variable to be stored to by `set` or the like; defined if it isn't yet.
pub fn storable(loader: &mut Loader<'_>, word: &Word) -> Result<(VarId, Option<Setter>)> {
    let name = variable_name(word)?;
    let setup = loader.store.entry::<Setup>();
    may_change(setup, word, &name)?;
    define_stored(setup, &name);
    let setter = setup.registry.definition(&name).and_then(|(definition, _)| definition.setter);
    Ok((setup.registry.reference(&name), setter))
}

/// Defines a variable by a directive, such as `map`.
pub fn define(loader: &mut Loader<'_>, word: &Word, flags: Flags, definition: Definition) -> Result<()> {
    let name = variable_name(word)?;
    let setup = loader.store.entry::<Setup>();
    let added = setup.registry.add(&name, flags, definition);
    added.map_err(|_| Error::at(word, format!("the duplicate \"{name}\" variable")))
}

fn variable_name(word: &Word) -> Result<String> {
    match expr::vars::variable_name(&word.lossy()) {
        Ok(name) => Ok(name.to_owned()),
        Err(error) => Err(Error::at(word, error.to_string())),
    }
}

/// A template of any text of a directive.
pub fn template_of(loader: &mut Loader<'_>, d: &Directive, text: &[u8]) -> Result<Rc<Template>> {
    let has = |word: &&Word| memchr::memmem::find(&word.text, text).is_some();
    let word = d.args.iter().find(has).unwrap_or(&d.name);
    template_at(loader, Span { line: d.end.line, ..word.span }, text)
}

/// A text with variables that stands at a place.
pub fn template_at(loader: &mut Loader<'_>, place: Span, text: &[u8]) -> Result<Rc<Template>> {
    let setup = loader.store.entry::<Setup>();
    setup.registry.set_place(setup.places.len() as u32);
    setup.places.push(place);
    let registry = &mut setup.registry;
    let template = Template::parse(text, &mut |name| registry.reference(name));
    let template = template.map_err(|error| Error::place(place, error.to_string()))?;
    setup.captures |= template.max_capture() > 0;
    Ok(Rc::new(template))
}

/// The first argument as a template.
pub fn template(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<Template>>> {
    template_of(loader, d, &d.arg(0).text).map(Some)
}

/// As [`template`], for a size: one without variables is checked now, and 0 gives `None`.
pub fn size_template(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<Template>>> {
    let template = template(loader, d)?;
    let text = template.as_ref().and_then(|template| template.is_const());
    match text.map(buf::parse::parse_size) {
        Some(None) => Err(conf::values::invalid(d, d.arg(0))),
        Some(Some(0)) => Ok(None),
        _ => Ok(template),
    }
}

impl Session for Request {
    fn variable(&mut self, id: VarId, out: &mut Vec<u8>) -> bool {
        match &self.values[id.index()] {
            Value::Set(bytes) => {
                out.extend_from_slice(bytes);
                return true;
            }
            Value::Missing => return false,
            Value::Unset => {}
        }
        let http = self.http.clone();
        let entry = http.variables.entry(id);
        match &entry.payload.getter {
            Getter::Plain(get) => get(self, out),
            Getter::Family(get) => get(self, entry.suffix(), out),
            Getter::Stored => {
                // It is empty from now on, and logged once.
                self.warn_uninitialized(&entry.name);
                self.values[id.index()] = Value::Set(buf::Bytes::default());
                true
            }
            Getter::Object(object) => self.object(object, id, entry.flags, out),
        }
    }

    fn capture(&self, n: usize) -> Option<&[u8]> {
        self.captures.get(n)
    }

    fn captures_serial(&self) -> u32 {
        self.captures.serial
    }
}

impl Request {
    fn object(&mut self, object: &Rc<dyn Variable>, id: VarId, flags: Flags, out: &mut Vec<u8>) -> bool {
        if self.variable_depth == 0 {
            self.log_error(format_args!("cycle while evaluating variable \"{}\"", self.http.variables.entry(id).name));
            return false;
        }
        self.variable_depth -= 1;
        let start = out.len();
        let found = object.value(self, out);
        self.variable_depth += 1;
        if !flags.has(Flags::NOCACHEABLE) {
            let value = if found { Value::Set(buf::Bytes::copy_from(&out[start..])) } else { Value::Missing };
            self.values[id.index()] = value;
        }
        found
    }

    /// A template's value.
    pub fn render(&mut self, template: &Template) -> Vec<u8> {
        let mut out = Vec::new();
        template.render(self, &mut out);
        out
    }

    /// A template's value to keep: one stored variable alone is shared, not copied.
    pub fn render_shared(&mut self, template: &Template) -> buf::Bytes {
        if let Some(Value::Set(bytes)) = template.is_variable().and_then(|id| self.values.get(id.index())) {
            return bytes.clone();
        }
        buf::Bytes::from(self.render(template))
    }

    /// A condition: a template whose value is neither empty nor `0`.
    pub fn test(&mut self, template: &Template) -> bool {
        let value = self.render(template);
        !value.is_empty() && value != b"0"
    }

    fn warn_uninitialized(&self, name: &str) {
        if self.location.set.get::<crate::config::core::VariableConf>().uninitialized_variable_warn {
            self.log_at(engine::log::Level::Warn, format_args!("using uninitialized \"{name}\" variable"));
        }
    }
}

/// Defines variables that are functions of a request: `variables! { setup, "module"; ... }`, with a row for each. Its
/// text says what the variable holds and when it is empty; `set` says what storing to it does.
///
/// ```ignore
/// http::variables! { setup, "ngx_http_core_module";
///     /// The port on which the connection was accepted. Empty on a unix socket.
///     "server_port", Flags::NONE, Getter::Plain(server_port);
/// }
/// ```
#[macro_export]
macro_rules! variables {
    ($setup:expr, $module:expr; $($(#[doc = $text:literal])+ $name:literal, $flags:expr, $getter:expr $(, set $set:expr)?;)+) => {
        $($crate::request::variables::add($setup, $name, $flags, $crate::request::variables::Definition {
            getter: $getter,
            setter: $crate::variables!(@setter $($set)?),
            module: $module,
            text: concat!($($text),+),
        });)+
    };
    (@setter) => { None };
    (@setter $set:expr) => { Some($set) };
}

/// Defines a variable that no other module has; for [`variables!`](crate::variables).
pub fn add(setup: &mut Setup, name: &str, flags: Flags, definition: Definition) {
    let added = setup.registry.add(name, flags, definition);
    debug_assert!(added.is_ok(), "two modules define ${name}");
}

/// Defines the core module's variables.
pub fn core(setup: &mut Setup) {
    define_connection(setup);
    define_request(setup);
    define_place(setup);
    define_response(setup);
    define_process(setup);
}

/// Of the connection: addresses, the PROXY protocol, the socket.
fn define_connection(setup: &mut Setup) {
    crate::variables! { setup, CORE;
        /// The client's address in binary: 4 bytes for IPv4, 16 for IPv6, `unix:` for a client on a unix
        /// socket.
        "binary_remote_addr", Flags::NONE, Getter::Plain(binary_remote_addr);
        /// The client's address; `unix:` on a unix socket.
        "remote_addr", Flags::NONE, Getter::Plain(|r, out| address(out, &r.conn.peer));
        /// The client's port. Empty on a unix socket.
        "remote_port", Flags::NONE, Getter::Plain(remote_port);
        /// The client's address of the PROXY protocol's header. Empty without `proxy_protocol` in `listen`.
        "proxy_protocol_addr", Flags::NONE, Getter::Plain(|r, out| proxied(r, out, |p| p.source.text()));
        /// The client's port of the PROXY protocol's header. Empty without `proxy_protocol` in `listen`.
        "proxy_protocol_port", Flags::NONE, Getter::Plain(|r, out| proxied(r, out, |p| p.source.port().to_string()));
        /// The address that the client connected to, of the PROXY protocol's header. Empty without
        /// `proxy_protocol` in `listen`.
        "proxy_protocol_server_addr", Flags::NONE, Getter::Plain(|r, out| proxied(r, out, |p| p.destination.text()));
        /// The port that the client connected to, of the PROXY protocol's header. Empty without
        /// `proxy_protocol` in `listen`.
        "proxy_protocol_server_port", Flags::NONE, Getter::Plain(|r, out| proxied(r, out, |p| p.destination.port().to_string()));
        /// A field (TLV) of the PROXY protocol's header, version 2, by its name (`alpn`, `authority`,
        /// `unique_id`, `netns`; `ssl_version`, `ssl_cn`, `ssl_cipher`, `ssl_sig_alg`, `ssl_key_alg`,
        /// `ssl_verify`) or number (`0x01`, `ssl_0x21`). Empty if the header doesn't have it.
        "proxy_protocol_tlv_", Flags::PREFIX, Getter::Family(proxy_tlv);
        /// The address on which the connection was accepted; `unix:` and the path on a unix socket.
        "server_addr", Flags::NONE, Getter::Plain(server_addr);
        /// The port on which the connection was accepted. Empty on a unix socket.
        "server_port", Flags::NONE, Getter::Plain(server_port);
        /// The number of the connection; unique in its worker.
        "connection", Flags::NONE, Getter::Plain(|r, out| show(out, format_args!("{}", r.number)));
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
        "request_method", Flags::NOCACHEABLE, Getter::Plain(|r, out| put_some(out, r.method_name()));
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
        "document_root", Flags::NOCACHEABLE, Getter::Plain(document_root);
        /// The same as `$document_root`, with all symbolic links resolved. Empty if the folder isn't there.
        "realpath_root", Flags::NOCACHEABLE, Getter::Plain(realpath_root);
        /// The same as `$args`.
        "query_string", Flags::NOCACHEABLE, Getter::Plain(put_args);
        /// `?` if the request has arguments, else empty.
        "is_args", Flags::NOCACHEABLE, Getter::Plain(|r, out| put(out, if r.args.is_empty() { b"" } else { b"?" }));
        /// The path of the file for the request: of `root` or `alias`, and the URI.
        "request_filename", Flags::NOCACHEABLE, Getter::Plain(request_filename);
        /// The first name of the server that serves the request. Empty if it has none.
        "server_name", Flags::NONE, Getter::Plain(|r, out| put(out, &r.server.name));
        /// The arguments of the request, without the question mark. `set` changes them. Empty if there are none.
        "args", Flags::CHANGEABLE | Flags::NOCACHEABLE, Getter::Plain(put_args), set |r, value| r.set_args(value);
        /// The rate of the response in bytes a second, 0 for no limit; `set` changes it.
        "limit_rate", Flags::CHANGEABLE | Flags::NOCACHEABLE, Getter::Plain(|r, out| show(out, format_args!("{}", r.limit_rate()))),
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
        "sent_http_location", Flags::NONE, Getter::Plain(|r, out| match &r.response.location {
                        Some(location) => put(out, location),
                        None => r.response.headers.variable("location", out),
                    });
        /// The field `ETag` of the response. Empty if there is none.
        "sent_http_etag", Flags::NONE, Getter::Plain(|r, out| match &r.response.etag {
                        Some(etag) => put(out, etag),
                        None => r.response.headers.variable("etag", out),
                    });
        /// The field `Connection` of the response: `keep-alive`, `close` or `upgrade`.
        "sent_http_connection", Flags::NONE, Getter::Plain(|r, out| put(out, r.connection_text()));
        /// The field `Keep-Alive` of the response. Empty if there is none.
        "sent_http_keep_alive", Flags::NONE, Getter::Plain(|r, out| match r.keepalive_header() {
                        Some(seconds) => show(out, format_args!("timeout={seconds}")),
                        None => false,
                    });
        /// `chunked` if the response is sent in chunks, else empty.
        "sent_http_transfer_encoding", Flags::NONE, Getter::Plain(|r, out| r.response.chunked && put(out, b"chunked"));
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
        /// The version of nginx that this program follows.
        "nginx_version", Flags::NONE, Getter::Plain(|_, out| put(out, engine::NGINX_VERSION.as_bytes()));
        /// The name of the machine.
        "hostname", Flags::NONE, Getter::Plain(|r, out| put(out, r.http.hostname.as_bytes()));
        /// The process id of the worker.
        "pid", Flags::NONE, Getter::Plain(|_, out| show(out, format_args!("{}", std::process::id())));
        /// The current time in seconds since 1970, with milliseconds.
        "msec", Flags::NOCACHEABLE, Getter::Plain(|_, out| {
                        let (secs, msec) = engine::clock::now();
                        show(out, format_args!("{secs}.{msec:03}"))
                    });
        /// The local time in the form of ISO 8601.
        "time_iso8601", Flags::NOCACHEABLE, Getter::Plain(|_, out| put(out, engine::clock::times().iso8601.as_bytes()));
        /// The local time in the form of the common log format.
        "time_local", Flags::NOCACHEABLE, Getter::Plain(|_, out| put(out, engine::clock::times().http_log.as_bytes()));
    }
}

/// The module whose variables these are.
const CORE: &str = "ngx_http_core_module";

/// Appends bytes.
pub fn put(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    out.extend_from_slice(bytes);
    true
}

/// Appends bytes; no bytes are no value.
fn put_some(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    !bytes.is_empty() && put(out, bytes)
}

fn put_args(r: &mut Request, out: &mut Vec<u8>) -> bool {
    (r.has_args || !r.args.is_empty()) && put(out, &r.args)
}

/// Appends a number's digits.
pub fn number(out: &mut Vec<u8>, n: u64) -> bool {
    put(out, digits(n, &mut [0; 20]))
}

/// Appends formatted text.
pub fn show(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) -> bool {
    // Writing into a Vec can't fail.
    let _ = out.write_fmt(text);
    true
}

/// Appends an address without its port.
fn address(out: &mut Vec<u8>, address: &os::SockAddr) -> bool {
    match address.ip() {
        Some(IpAddr::V4(ip)) => {
            let [first, rest @ ..] = ip.octets();
            number(out, first.into());
            rest.iter().all(|octet| put(out, b".") && number(out, (*octet).into()))
        }
        Some(ip) => show(out, format_args!("{ip}")),
        None => put(out, b"unix:"),
    }
}

fn binary_remote_addr(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let peer = &r.conn.peer;
    if peer.is_unix() { address(out, peer) } else { put(out, &peer.binary()) }
}

/// A unix socket of ours is shown with its path; a client's has none.
fn server_addr(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let local = r.local_addr();
    address(out, local) && (!local.is_unix() || put(out, &local.binary()))
}

/// Appends milliseconds as seconds with three decimals.
pub fn show_seconds(out: &mut Vec<u8>, ms: u64) -> bool {
    let [tenths, hundredths, thousandths] = [ms / 100 % 10, ms / 10 % 10, ms % 10].map(|digit| b'0' + digit as u8);
    number(out, ms / 1000) && put(out, &[b'.', tenths, hundredths, thousandths])
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

fn remote_port(r: &mut Request, out: &mut Vec<u8>) -> bool {
    match r.conn.peer.port() {
        0 => true,
        port => show(out, format_args!("{port}")),
    }
}

fn server_port(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let local = r.local_addr();
    if local.is_unix() { true } else { show(out, format_args!("{}", local.port())) }
}

fn request_port(r: &mut Request, out: &mut Vec<u8>) -> bool {
    match r.line.port() {
        None | Some(0) => true,
        Some(port) => show(out, format_args!("{port}")),
    }
}

fn proxied(r: &Request, out: &mut Vec<u8>, of: fn(&super::facts::ProxyHeader) -> String) -> bool {
    match r.conn.proxy() {
        Some(header) => put(out, of(header).as_bytes()),
        None => false,
    }
}

/// `$proxy_protocol_tlv_name`, by name or number (`0x01`).
fn proxy_tlv(r: &mut Request, name: &str, out: &mut Vec<u8>) -> bool {
    use wire::proxy_protocol::tlv;
    let Some(header) = r.conn.proxy() else { return false };
    if let Some(name) = name.strip_prefix("ssl_") {
        // The TLS one begins with a byte of flags and the four of the result of the client's verification.
        let Ok(Some(value)) = tlv(&header.tlvs, 0x20) else { return false };
        let Some((verify, rest)) = value.get(1..).and_then(|value| value.split_first_chunk::<4>()) else {
            return false;
        };
        let kind = match name {
            "verify" => return show(out, format_args!("{}", u32::from_be_bytes(*verify))),
            "version" => Some(0x21),
            "cn" => Some(0x22),
            "cipher" => Some(0x23),
            "sig_alg" => Some(0x24),
            "key_alg" => Some(0x25),
            _ => tlv_number(name),
        };
        return kind.is_some_and(|kind| matches!(tlv(rest, kind), Ok(Some(value)) if put(out, value)));
    }
    let kind = match name {
        "alpn" => Some(0x01),
        "authority" => Some(0x02),
        "unique_id" => Some(0x05),
        "ssl" => Some(0x20),
        "netns" => Some(0x30),
        _ => tlv_number(name),
    };
    kind.is_some_and(|kind| matches!(tlv(&header.tlvs, kind), Ok(Some(value)) if put(out, value)))
}

/// `0x1f`, with any number of leading zeros.
fn tlv_number(name: &str) -> Option<u8> {
    u8::from_str_radix(name.strip_prefix("0x")?.trim_start_matches('0'), 16).ok()
}

/// Whether there is a URI: without a valid request there is none; a refused request has an empty one.
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
        for byte in rt::random_bytes() {
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
