//! The handshake with a client, before its first request: by the name it gives a server is chosen, whose settings hold.

use std::rc::Rc;

use buf::Bytes;
use common::front;
use common::front::ssl::{ServerTls, VerifyClient};
use common::front::tls::{Greeted, Unproved, greet};
use tls::Identity;
use wire::hello::ClientHello;

use crate::fault::Fault;
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
    let greeted = greet(conn.link.stream.socket(), input, &conn.facts.address, || http.visitor(&conn)).await?;
    let greeting = match greeted {
        Greeted::Hello(greeting) => greeting,
        Greeted::Plain(input) => return Some((conn, input)),
    };
    #[cfg(feature = "test-hooks")]
    crate::hooks::accident(greeting.hello.server_name.as_deref().unwrap_or_default());
    let identity;
    (conn, identity) = own_identity(http, conn, &greeting.chosen.server, &greeting.tls, &greeting.hello);
    let secured = greeting.finish(conn.link.stream.socket(), identity, &http.log, || http.visitor(&conn)).await?;
    conn.facts.set_tls(secured);
    Some((conn, Bytes::default()))
}

/// The certificate for this connection alone, where variables name it.
fn own_identity(
    http: &Rc<Http>,
    conn: Connection,
    server: &Rc<Server>,
    tls: &ServerTls,
    hello: &ClientHello,
) -> (Connection, tls::Result<Option<Identity>>) {
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

/// What TLS demands of a request whose server is known.
pub fn check(r: &mut Request) -> Result<(), Fault> {
    let checked = if r.conn.is_secure() {
        check_name(r).and_then(|()| check_certificate(r))
    } else if r.conn.address.ssl {
        Err(Fault::PlainRequest.log(r))
    } else {
        Ok(())
    };
    checked.inspect_err(|_| r.close_after())
}

/// A server that demands certificates isn't reached by a connection to another name.
fn check_name(r: &Request) -> Result<(), Fault> {
    let verifies = r.server.set.get::<SslConf>().ssl_verify_client != VerifyClient::Off;
    if !verifies || r.host.is_empty() || is_chosen(r) || !r.conn.chosen().is_some_and(|chosen| chosen.named) {
        return Ok(());
    }
    Err(Fault::OtherName.log(r))
}

/// The client's certificate, as the server demands it.
fn check_certificate(r: &Request) -> Result<(), Fault> {
    let Some(tls) = r.conn.tls() else { return Ok(()) };
    let checked = r.server.set.get::<SslConf>().ssl_verify_client.check(tls);
    checked.map_err(|unproved| match unproved {
        Unproved::Bad(reason) => Fault::BadCertificate.log_with(r, &reason),
        Unproved::Nobody => Fault::NoCertificate.log(r),
    })
}
