//! The handshake with a client, before its first request: by the name it gives a server is chosen, whose settings hold.

use std::io;
use std::rc::Rc;

use buf::Bytes;
use common::front;
use common::front::ssl::{ServerTls, VerifyClient};
use common::front::tls::{Greeted, greet, log_failure};
use engine::log::Level;
use tls::{ClientVerdict, HandshakeError, Identity};
use wire::hello::ClientHello;

use crate::proto::HttpProto;
use crate::request::Request;
use crate::request::facts::Pending;
use crate::server::{Http, Server};
use crate::session::connection::Connection;

type SslConf = front::ssl::SslConf<HttpProto>;

/// Makes the connection a TLS connection. `None`: it is to be closed. Else the bytes that belong to the first request:
/// none, or, of a client that doesn't speak TLS, what it said.
pub async fn handshake(http: &Rc<Http>, mut conn: Connection, input: Bytes) -> Option<(Connection, Bytes)> {
    conn.link.stream.set_recv_timeout(Some(conn.facts.address.default.core.client_header_timeout));
    conn.link.stream.set_send_timeout(Some(conn.facts.address.default.root.core.send_timeout));
    let input = match input.is_empty() {
        true => match first_bytes(&conn).await {
            Ok(bytes) => bytes,
            Err(error) => {
                log_failure(&http.visitor(&conn), &HandshakeError::Io(error));
                return None;
            }
        },
        false => input,
    };
    let greeted = greet(conn.link.stream.socket(), input, &conn.facts.address, || http.visitor(&conn)).await?;
    let greeting = match greeted {
        Greeted::Hello(greeting) => greeting,
        Greeted::Plain(input) => return Some((conn, input)),
    };
    #[cfg(feature = "test-hooks")]
    crate::hooks::accident(greeting.hello.server_name.as_deref().unwrap_or_default());
    let identity;
    (conn, identity) = own_identity(http, conn, &greeting.server, &greeting.tls, &greeting.hello);
    let secured = greeting.finish(conn.link.stream.socket(), identity, &http.log, || http.visitor(&conn)).await?;
    conn.facts.set_tls(secured);
    Some((conn, Bytes::default()))
}

/// The first bytes after the PROXY protocol's header, if none came with it.
async fn first_bytes(conn: &Connection) -> io::Result<Bytes> {
    conn.link.stream.set_silent();
    let bytes = conn.link.stream.recv(conn.facts.address.default.core.client_header_buffer_size).await;
    conn.link.stream.set_idle(false);
    bytes
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
    let identity = tls.identity(&mut *r);
    (r.end().expect("the request was begun with its connection"), identity)
}

/// Whether the request's host is the name by which TLS has chosen the server: then that server it is.
pub(crate) fn is_chosen(r: &Request) -> bool {
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
            r.close_after();
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
