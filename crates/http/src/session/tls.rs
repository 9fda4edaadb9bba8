//! The handshake with a client, before its first request: by the name it gives a server is chosen, whose settings hold.

use std::io;
use std::rc::Rc;

use buf::{Buf, Bytes};
use common::ocsp::{Asker, StatusCheck};
use engine::log::{Errno, Level};
use tls::{Alert, ClientVerdict, Departed, First, HandshakeError, Identity, ServerLayer};
use wire::hello::ClientHello;

use crate::request::Request;
use crate::server::{Address, Chosen, Http, Server};
use crate::session::connection::Connection;
use crate::ssl::{ServerTls, SslConf, VerifyClient};

/// The name that a client gave, while its handshake goes on: for certificates whose names have variables.
#[derive(Default)]
pub struct Pending {
    /// As in the ClientHello; empty if it gave none.
    pub server_name: Box<[u8]>,
}

/// Makes the connection a TLS connection. `None`: it is to be closed. Else the bytes that belong to the first request:
/// none, or, of a client that doesn't speak TLS, what it said.
pub async fn handshake(http: &Rc<Http>, mut conn: Connection, input: Bytes) -> Option<(Connection, Bytes)> {
    conn.link.stream.set_recv_timeout(Some(conn.facts.address.default.core.client_header_timeout));
    conn.link.stream.set_send_timeout(Some(conn.facts.address.default.root.core.send_timeout));
    let input = match input.is_empty() {
        true => match first_bytes(&conn).await {
            Ok(bytes) => bytes,
            Err(error) => return failed(http, &conn, &HandshakeError::Io(error)),
        },
        false => input,
    };
    let mut buf = Buf::empty();
    buf.extend_from_slice(&input);
    let (hello, input) = match tls::first_bytes(conn.link.stream.socket(), buf).await {
        Ok(First::Hello(hello, input)) => (hello, input),
        Ok(First::Plain(input)) => return Some((conn, input.freeze())),
        Ok(First::Closed) => return None,
        Err(error) => return failed(http, &conn, &error),
    };
    #[cfg(feature = "test-hooks")]
    crate::hooks::accident(hello.server_name.as_deref().unwrap_or_default());
    let (server, named) = choose(&conn.facts.address, &hello);
    let tls = server.tls.clone().or_else(|| conn.facts.address.default.tls.clone());
    let Some(tls) = tls.filter(|tls| !tls.reject) else {
        tls::refuse(conn.link.stream.socket(), Alert::UnrecognizedName).await;
        let error = HandshakeError::Tls("error:0A0000EA:SSL routines::callback failed".to_owned());
        return failed(http, &conn, &error);
    };
    let identity;
    (conn, identity) = match own_identity(http, conn, &server, &tls, &hello) {
        (conn, Ok(identity)) => (conn, identity),
        (conn, Err(message)) => {
            tls::refuse(conn.link.stream.socket(), Alert::InternalError).await;
            log(http, &conn, Level::Error, format_args!("{message}"));
            return None;
        }
    };
    let chosen = Rc::new(Chosen { server, named });
    match tls::accept(conn.link.stream.socket(), &tls.server, identity, *hello, input, chosen).await {
        Ok(secured) => {
            conn.facts.set_tls(secured);
            conn.link.stream.set_recv_timeout(None);
            tls.fetch_staples(&http.log);
            if let Some(status) = &tls.status {
                // In a box, so that those who don't ask have no room for it.
                Box::pin(check_status(http, &conn, &tls, status)).await;
            }
            Some((conn, Bytes::default()))
        }
        Err(error) => failed(http, &conn, &error),
    }
}

/// The first bytes behind the PROXY protocol's header, if none came with it.
async fn first_bytes(conn: &Connection) -> io::Result<Bytes> {
    conn.link.stream.set_silent();
    let bytes = conn.link.stream.recv(conn.facts.address.default.core.client_header_buffer_size).await;
    conn.link.stream.set_idle(false);
    bytes
}

/// Asks whether the client's certificate, trusted otherwise, is revoked; requests will be refused if it may be.
async fn check_status(http: &Http, conn: &Connection, tls: &ServerTls, status: &StatusCheck) {
    let Some(secured) = conn.facts.tls().filter(|secured| secured.verdict() == ClientVerdict::Trusted) else { return };
    let queries = tls.server.trust().map(|trust| trust.queries(secured.client_certificates(), status.whole));
    let reason = match queries {
        None => return,
        Some(Ok(queries)) => {
            let say = |level: Level, message: std::fmt::Arguments<'_>| log(http, conn, level, message);
            let asker = Asker { log: &http.log, connection: conn.link.stream.number(), say: &say };
            status.check(&queries, &asker).await
        }
        Some(Err(reason)) => Some(reason),
    };
    secured.set_status(reason.map_or(Ok(()), Err));
}

/// Goes on with a connection that another process has left: by the server that this configuration has for its name.
/// Returns also whether a new connection could have become the same here.
pub fn resume(address: &Address, departed: Departed) -> (ServerLayer, bool) {
    let (server, named) = choose(address, &departed.hello);
    let tls = server.tls.clone().or_else(|| address.default.tls.clone());
    let tls = tls.as_ref().filter(|tls| address.ssl && !tls.reject);
    // The status of certificates is asked for in a handshake, or not at all.
    let asked = |tls: &ServerTls| tls.status.is_none() || departed.was_good || !departed.has_certificates();
    let fits = tls.is_some_and(|tls| tls.server.would_accept(&departed) && asked(tls));
    let chosen = Rc::new(Chosen { server, named });
    (ServerLayer::resume(departed, chosen, tls.map(|tls| &tls.server)), fits)
}

/// The server for the name of the ClientHello, and whether it has that name: else it is the default.
fn choose(address: &Address, hello: &ClientHello) -> (Rc<Server>, bool) {
    let named = hello.host().and_then(|name| {
        let by_regex = || address.regexes.iter().find(|(regex, _)| regex.regex.is_match(&name).unwrap_or(false));
        address.names.lookup(&name).or_else(|| by_regex().map(|(_, server)| server))
    });
    (named.unwrap_or(&address.default).clone(), named.is_some())
}

/// The certificate for this connection alone, where variables name it.
fn own_identity(
    http: &Rc<Http>,
    conn: Connection,
    server: &Rc<Server>,
    tls: &ServerTls,
    hello: &ClientHello,
) -> (Connection, Result<Option<Identity>, String>) {
    if !tls.is_dynamic() {
        return (conn, Ok(None));
    }
    let mut r = Request::begin(conn, http);
    r.server.clone_from(server);
    r.location.clone_from(&server.root);
    r.slot::<Pending>().server_name = hello.server_name.clone().unwrap_or_default();
    let identity = tls.identity(&mut r);
    (r.end().expect("the request was begun with its connection"), identity)
}

fn failed<T>(http: &Http, conn: &Connection, error: &HandshakeError) -> Option<T> {
    match error {
        HandshakeError::Io(error) if rt::is_closing(error) => {}
        HandshakeError::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
            let timed_out = io::Error::from_raw_os_error(110);
            log(http, conn, Level::Info, format_args!("client timed out{} while SSL handshaking", Errno(&timed_out)));
        }
        HandshakeError::Io(error) => {
            log(
                http,
                conn,
                Level::Info,
                format_args!("SSL_do_handshake() failed{} while SSL handshaking", Errno(error)),
            );
        }
        HandshakeError::Closed => {
            log(http, conn, Level::Info, format_args!("peer closed connection in SSL handshake while SSL handshaking"));
        }
        HandshakeError::Tls(text) => {
            let message = format_args!("SSL_do_handshake() failed (SSL: {text}) while SSL handshaking");
            log(http, conn, Level::Info, message);
        }
    }
    None
}

fn log(http: &Http, conn: &Connection, level: Level, message: std::fmt::Arguments<'_>) {
    let details = |line: &mut String| {
        line.push_str(&format!(", client: {}, server: {}", conn.facts.peer.text(), conn.facts.address.addr));
    };
    let log = http.log_of(&conn.facts.address.default.root.core);
    log.write_with(level, Some(conn.link.stream.number()), message, Some(&details));
}

/// Whether the request's host is the name by which TLS has chosen the server: then that server it is.
pub fn is_chosen(r: &Request) -> bool {
    let host = &r.host[..];
    r.conn.tls().is_some_and(|tls| !host.is_empty() && tls.hello.is_for(host))
}

/// What TLS demands of a request whose server is known; else the status that refuses it.
pub fn check(r: &mut Request) -> Result<(), u16> {
    let status = if r.conn.is_secure() {
        misdirected(r).or_else(|| bad_certificate(r))
    } else if r.conn.address.ssl {
        let message = format_args!("client sent plain HTTP request to HTTPS port while reading client request headers");
        r.log_at(Level::Info, message);
        Some(497)
    } else {
        None
    };
    match status {
        Some(status) => {
            r.keepalive = false;
            Err(status)
        }
        None => Ok(()),
    }
}

/// A server that demands certificates isn't reached by a connection to another name.
fn misdirected(r: &Request) -> Option<u16> {
    let verifies = r.server.set.get::<SslConf>().ssl_verify_client != VerifyClient::Off;
    if !verifies || r.host.is_empty() || is_chosen(r) || !r.conn.chosen().is_some_and(|chosen| chosen.named) {
        return None;
    }
    let message =
        format_args!("client attempted to request the server name different from the one that was negotiated");
    r.log_at(Level::Info, format_args!("{message} while reading client request headers"));
    Some(421)
}

/// What is wrong with the client's certificate.
fn bad_certificate(r: &Request) -> Option<u16> {
    let mode = r.server.set.get::<SslConf>().ssl_verify_client;
    if mode == VerifyClient::Off {
        return None;
    }
    match r.conn.tls()?.verdict() {
        ClientVerdict::Trusted => None,
        ClientVerdict::Failed(reason) if mode == VerifyClient::OptionalNoCa && reason.is_untrusted() => None,
        ClientVerdict::Failed(reason) => {
            let message = format_args!("client SSL certificate verify error: {reason}");
            r.log_at(Level::Info, format_args!("{message} while reading client request headers"));
            Some(495)
        }
        ClientVerdict::None if mode == VerifyClient::On => {
            let message = format_args!("client sent no required SSL certificate while reading client request headers");
            r.log_at(Level::Info, message);
            Some(496)
        }
        ClientVerdict::None => None,
    }
}
