//! `auth_http…`: asks a server over HTTP whether a client may log in, and where its mail is.
//!
//! The question is a request of HTTP/1.0 whose fields say all; so do the fields of the answer. Its status and its body don't
//! matter.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use buf::{Bytes, Chain, Secret};
use common::front::ssl::variables::{client_verify, escaped_certificate};
use common::vars::text::{address, number, put};
use conf::values::{flag, msec};
use conf::{Args, Directive, Error, Loader, Result};
use engine::log::{Errno, Level, TIMED_OUT};
use os::SockAddr;
use rt::{ConnectOptions, Stream};
use tls::text;
use tls::x509::Parts;
use upstream::Url;
use wire::h1::{Parsed, ResponseHead, ResponseParser};
use wire::mail::is_clean;
use wire::uri::{Escape, escape};

use crate::config::line_text;
use crate::proto::{EVERYWHERE, Protocol};
use crate::sasl::{Login, Method};
use crate::session::{Client, MailSession};
use crate::smtp::Envelope;

conf::table! {
    /// Who says who may log in.
    pub struct AuthHttpConf, raw AuthHttpRaw, module "ngx_mail_auth_http_module", level MAIL Server;

    /// Sets the server that is asked over HTTP whether a client may log in.
    ///
    /// Form: `auth_http url`
    ///
    /// - `url`: `[http://]host[:port][/path]` or `unix:socket:/path`. A name is looked up at the start.
    ///
    /// Effect: it gets a GET request of HTTP/1.0. The fields of the request say what the client has said and how it has
    /// connected:
    /// `Auth-Method`, `Auth-User`, `Auth-Pass`, `Auth-Salt` (of digests), `Auth-Protocol`, `Auth-Login-Attempt`, `Client-IP`;
    /// in SMTP `Client-Host`, without a login `Auth-SMTP-Helo`, `Auth-SMTP-From`, `Auth-SMTP-To`; after a header of the PROXY
    /// protocol `Proxy-Protocol-Addr`, `Proxy-Protocol-Port`, `Proxy-Protocol-Server-Addr`, `Proxy-Protocol-Server-Port`; over
    /// TLS `Auth-SSL: on`, `Auth-SSL-Protocol`, `Auth-SSL-Cipher` and, where clients are asked for certificates,
    /// `Auth-SSL-Verify`, `Auth-SSL-Subject`, `Auth-SSL-Issuer`, `Auth-SSL-Serial`, `Auth-SSL-Fingerprint`. The fields of the
    /// response decide:
    /// `Auth-Status: OK` lets the client in, with `Auth-Server` and `Auth-Port` for the server that has its mail (an IP
    /// address), and if they differ `Auth-User` and `Auth-Pass` for the login there. Any other `Auth-Status` is told to the
    /// client; after `Auth-Wait` seconds it may try again, without it the connection is closed. `Auth-Error-Code` is the code
    /// of the answer in SMTP.
    ///
    /// Cost: a connection for each attempt to log in.
    ///
    /// Danger: names and passwords go to this server unencrypted: use a loopback address, a unix socket, or a network that
    /// you trust.
    ///
    /// ```nginx
    /// auth_http 127.0.0.1:9000/auth;
    /// ```
    "auth_http" in EVERYWHERE, Args::exactly(1), default none,
        scalar(|l: &mut Loader<'_>, d: &Directive| target(l, d).map(Some)) auth_http: Option<Target> = None;
    /// Limits the time that the server of `auth_http` may take.
    ///
    /// Form: `auth_http_timeout time`
    ///
    /// - `time`: for the connection, the request and the response together.
    ///
    /// Effect: when the time is over, the client is told of an error, and its connection is closed.
    ///
    /// ```nginx
    /// auth_http_timeout 10s;
    /// ```
    "auth_http_timeout" in EVERYWHERE, Args::exactly(1), default "60s",
        scalar(msec) auth_http_timeout: u64 = 60_000;
    /// Adds a field to requests to the server of `auth_http`. It may be repeated.
    ///
    /// Form: `auth_http_header name value`
    ///
    /// - `name`: the name of the field.
    /// - `value`: its value.
    ///
    /// Effect: the server can see by a secret value that the request comes from here. A level that has any such field doesn't
    /// inherit those of the level around it.
    ///
    /// ```nginx
    /// auth_http_header X-Auth-Key "secret string";
    /// ```
    "auth_http_header" in EVERYWHERE, Args::exactly(2), default none,
        list(header) auth_http_header: (String, String);
    /// Tells the server of `auth_http` the client's certificate if it is `on`.
    ///
    /// Effect: it is the field `Auth-SSL-Cert`, in PEM, escaped as in a URI.
    ///
    /// ```nginx
    /// auth_http_pass_client_cert on;
    /// ```
    "auth_http_pass_client_cert" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) auth_http_pass_client_cert: bool = false;
}

/// Whom to ask.
#[derive(Clone, Debug)]
pub struct Target {
    addrs: Vec<SockAddr>,
    host: Vec<u8>,
    uri: Vec<u8>,
}

fn target(_: &mut Loader<'_>, d: &Directive) -> Result<Target> {
    let word = d.arg(0);
    line_text(d, word)?;
    let scheme = word.text.get(..SCHEME.len()).filter(|start| start.eq_ignore_ascii_case(SCHEME));
    let text = word.text.get(scheme.map_or(0, <[u8]>::len)..).unwrap_or_default();
    let fault =
        |why: &dyn fmt::Display| Error::at(word, format!("{why} in auth_http \"{}\"", String::from_utf8_lossy(text)));
    let url = Url::parse(text, true).map_err(|error| fault(&error))?;
    let addrs = url.resolve(PORT).map_err(|error| fault(&error))?;
    let mut uri = url.uri.clone();
    if !uri.starts_with(b"/") {
        uri.insert(0, b'/');
    }
    let host = if url.is_unix() { b"localhost".to_vec() } else { url.host };
    Ok(Target { addrs, host, uri })
}

fn header(_: &mut Loader<'_>, d: &Directive) -> Result<(String, String)> {
    Ok((line_text(d, d.arg(0))?, line_text(d, d.arg(1))?))
}

const SCHEME: &[u8] = b"http://";
const PORT: u16 = 80;
/// The longest head of a response.
const MOST_HEAD: usize = 8192;
/// The longest wait that an `Auth-Wait` asks for, in seconds: a day.
const LONGEST_WAIT_S: u64 = 86_400;
/// How much is asked of the kernel at once.
const READ: usize = 4096;

/// What was decided.
#[derive(Debug)]
pub enum Decision {
    /// The client may log in.
    Allowed(Allowed),
    /// It may not.
    Refused(Refusal),
}

/// Where a client's mail is.
#[derive(Debug)]
pub struct Allowed {
    /// The server that has it.
    pub server: SockAddr,
    /// The name for the login there, if it is another one.
    pub user: Option<Vec<u8>>,
    /// The password for the login there, if it is another one.
    pub password: Option<Secret>,
}

/// Why a client may not log in.
#[derive(Debug)]
pub struct Refusal {
    /// What it is told.
    pub reason: Vec<u8>,
    /// The code before that in SMTP.
    pub code: Option<Vec<u8>>,
    /// After how many seconds; 0 ends the session.
    pub wait_s: u64,
}

/// What is wrong with the server or its answer.
#[derive(Debug)]
enum Trouble {
    /// A system call failed: its name.
    Io(&'static str, io::Error),
    TimedOut,
    Closed,
    Invalid,
    TooLarge,
    NoServer,
    NoPassword,
    Server(Vec<u8>),
    Port(Vec<u8>),
}

/// Asks whether the client may log in. `None`: that can't be told, and the log knows why.
pub async fn ask(client: &Client, login: &Login, envelope: &Envelope) -> Option<Decision> {
    let session = &client.session;
    let conf = &session.server.auth;
    let target = conf.auth_http.as_ref()?;
    let request = Bytes::from(request(client, target, login, envelope));
    let until_ms = rt::now_ms().saturating_add(conf.auth_http_timeout);
    for addr in &target.addrs {
        let left_ms = until_ms.saturating_sub(rt::now_ms());
        let asked = rt::timeout(left_ms, exchange(addr, &request)).await.unwrap_or(Err(Trouble::TimedOut));
        match asked.and_then(|(head, bytes)| decide(&head, &bytes, session, login)) {
            Ok(decision) => return Some(decision),
            Err(trouble) => {
                report(session, addr, &trouble);
                // Only if nobody listens at this address the next one is asked.
                if !matches!(trouble, Trouble::Io("connect", _)) {
                    return None;
                }
            }
        }
    }
    None
}

fn report(session: &MailSession, addr: &SockAddr, trouble: &Trouble) {
    let log = |level: Level, message: fmt::Arguments<'_>| {
        session.log_at(level, format_args!("{message} while in http auth state"));
    };
    let error = |message: fmt::Arguments<'_>| log(Level::Error, format_args!("auth http server {addr} {message}"));
    match trouble {
        Trouble::Io(call, cause) if addr.is_unix() => {
            log(Level::Crit, format_args!("{call}() to {addr} failed{}", Errno(cause)));
        }
        Trouble::Io(call, cause) => log(Level::Error, format_args!("{call}() to {addr} failed{}", Errno(cause))),
        Trouble::TimedOut => error(format_args!("timed out{TIMED_OUT}")),
        Trouble::Closed => error(format_args!("closed the connection before its response was complete")),
        Trouble::Invalid => error(format_args!("sent invalid header in response")),
        Trouble::TooLarge => error(format_args!("sent too large header in response")),
        Trouble::NoServer => error(format_args!("did not send server or port")),
        Trouble::NoPassword => error(format_args!("did not send password")),
        Trouble::Server(text) => error(format_args!("sent invalid server address:\"{}\"", buf::text::encode(text))),
        Trouble::Port(text) => error(format_args!("sent invalid server port:\"{}\"", buf::text::encode(text))),
    }
}

/// The request, with all that is known.
fn request(client: &Client, target: &Target, login: &Login, envelope: &Envelope) -> Secret {
    let session = &client.session;
    let mut out = Request(Secret::default());
    out.0.extend_from_slice(b"GET ");
    out.0.extend_from_slice(&target.uri);
    out.0.extend_from_slice(b" HTTP/1.0\r\n");
    out.field("Host", &target.host);
    out.field("Auth-Method", login.method.name().as_bytes());
    out.escaped("Auth-User", &login.user);
    out.escaped("Auth-Pass", &login.password);
    if login.method.has_salt() {
        out.field("Auth-Salt", login.salt.as_bytes());
    }
    out.field("Auth-Protocol", session.server.protocol.name().as_bytes());
    out.shown("Auth-Login-Attempt", |value| number(value, client.attempts.into()));
    out.shown("Client-IP", |value| address(value, &session.base.peer));
    if let Some(host) = &client.host {
        out.field("Client-Host", host.as_bytes());
    }
    if login.method == Method::None {
        out.field("Auth-SMTP-Helo", &envelope.helo);
        out.field("Auth-SMTP-From", &envelope.from);
        out.field("Auth-SMTP-To", &envelope.to);
    }
    if let Some(proxy) = &session.base.proxy {
        out.shown("Proxy-Protocol-Addr", |value| address(value, &proxy.source));
        out.shown("Proxy-Protocol-Port", |value| number(value, proxy.source.port().into()));
        out.shown("Proxy-Protocol-Server-Addr", |value| address(value, &proxy.destination));
        out.shown("Proxy-Protocol-Server-Port", |value| number(value, proxy.destination.port().into()));
    }
    out.tls(session);
    for (name, value) in session.server.auth.auth_http_header.iter() {
        out.field(name, value.as_bytes());
    }
    out.0.extend_from_slice(b"\r\n");
    out.0
}

/// A request that is being written.
struct Request(Secret);

impl Request {
    /// A field. What would make two lines of it is left out: clients' commands can't hold that, but who knows.
    fn field(&mut self, name: &str, value: &[u8]) {
        debug_assert!(is_clean(value), "{name} would be several lines");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
        value.split(|byte| matches!(byte, 0 | b'\r' | b'\n')).for_each(|part| self.0.extend_from_slice(part));
        self.0.extend_from_slice(b"\r\n");
    }

    fn escaped(&mut self, name: &str, value: &[u8]) {
        let mut out = Vec::with_capacity(3 * value.len());
        escape(Escape::Memcached, value, &mut out);
        self.field(name, &Secret::from(out));
    }

    fn shown(&mut self, name: &str, show: impl FnOnce(&mut Vec<u8>) -> bool) {
        let mut value = Vec::new();
        show(&mut value);
        self.field(name, &value);
    }

    /// What is known of the connection's TLS.
    fn tls(&mut self, session: &MailSession) {
        let Some(tls) = &session.base.tls else { return };
        self.field("Auth-SSL", b"on");
        self.field("Auth-SSL-Protocol", tls.protocol().as_bytes());
        self.field("Auth-SSL-Cipher", tls.cipher().as_bytes());
        if session.verify_client() == common::front::ssl::VerifyClient::Off {
            return;
        }
        self.shown("Auth-SSL-Verify", |value| client_verify(session, value));
        let Some(leaf) = tls.client_certificates().first() else { return };
        if let Some(parts) = Parts::parse(leaf) {
            self.shown("Auth-SSL-Subject", |value| put(value, text::name(parts.subject).as_bytes()));
            self.shown("Auth-SSL-Issuer", |value| put(value, text::name(parts.issuer).as_bytes()));
            self.shown("Auth-SSL-Serial", |value| put(value, text::serial(&parts).as_bytes()));
            self.shown("Auth-SSL-Fingerprint", |value| put(value, text::fingerprint(leaf).as_bytes()));
        }
        if session.server.auth.auth_http_pass_client_cert {
            self.field("Auth-SSL-Cert", escaped_certificate(leaf).as_bytes());
        }
    }
}

/// Sends the request to an address; the head of the response, and the bytes that it is made of.
async fn exchange(addr: &SockAddr, request: &Bytes) -> std::result::Result<(ResponseHead, Secret), Trouble> {
    // The caller's time is the limit.
    let connected = Stream::connect(addr, &ConnectOptions::default(), u64::MAX).await;
    let stream = connected.map_err(|error| Trouble::Io("connect", error.into()))?;
    let sent = stream.send_all(Chain::from(request.clone())).await;
    sent.map_err(|error| Trouble::Io("send", error))?;
    let (mut received, mut parser, mut head) = (Secret::default(), ResponseParser::default(), ResponseHead::default());
    loop {
        let more = stream.recv(READ).await.map_err(|error| Trouble::Io("recv", error))?;
        if more.is_empty() {
            return Err(Trouble::Closed);
        }
        received.extend_from_slice(&more);
        match parser.parse(&received, MOST_HEAD, &mut head) {
            Ok(Parsed::Complete(_)) => return Ok((head, received)),
            Ok(Parsed::Incomplete) => {}
            Err(wire::h1::ResponseError::TooBig) => return Err(Trouble::TooLarge),
            Err(_) => return Err(Trouble::Invalid),
        }
    }
}

/// What the fields of the response mean.
fn decide(
    head: &ResponseHead,
    bytes: &[u8],
    session: &MailSession,
    login: &Login,
) -> std::result::Result<Decision, Trouble> {
    // As in nginx, of several fields the last one counts.
    let field = |name: &[u8]| {
        let fields = head.headers.iter().rev();
        let mut found = fields.filter(|field| field.name.of(bytes).eq_ignore_ascii_case(name));
        found.next().map(|field| field.value.of(bytes))
    };
    if let Some(status) = field(b"Auth-Status").filter(|status| *status != b"OK") {
        let wait_s = field(b"Auth-Wait").and_then(buf::parse::parse_number).unwrap_or(0).min(LONGEST_WAIT_S);
        let code = field(b"Auth-Error-Code").map(<[u8]>::to_vec);
        return Ok(Decision::Refused(Refusal { reason: status.to_vec(), code, wait_s }));
    }
    let (Some(server), Some(port)) = (field(b"Auth-Server"), field(b"Auth-Port")) else {
        return Err(Trouble::NoServer);
    };
    let ip = std::str::from_utf8(server).ok().and_then(|text| text.parse::<IpAddr>().ok());
    let ip = ip.ok_or_else(|| Trouble::Server(server.to_vec()))?;
    let number = buf::parse::parse_number(port).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    let number = number.ok_or_else(|| Trouble::Port(port.to_vec()))?;
    let password = field(b"Auth-Pass").map(Secret::from);
    // A digest is no password, with which one could log in elsewhere. In SMTP one needn't.
    let lacks_password = password.is_none() && login.method != Method::Plain;
    if lacks_password && session.server.protocol != Protocol::Smtp {
        return Err(Trouble::NoPassword);
    }
    let server = SockAddr::from(SocketAddr::new(ip, number));
    Ok(Decision::Allowed(Allowed { server, user: field(b"Auth-User").map(<[u8]>::to_vec), password }))
}
