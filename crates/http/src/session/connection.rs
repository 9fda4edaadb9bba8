//! A client's connection: its facts, and what carries its bytes.

use std::io;

use common::front::Visitor;
use os::SockAddr;

use super::client::Client;
use crate::request::facts::ConnectionFacts;
use crate::server::Http;

/// A client's connection. While a request is being served its two parts are the request's.
pub struct Connection {
    /// What requests may know of it.
    pub facts: ConnectionFacts,
    /// What carries its bytes.
    pub link: Link,
}

impl Http {
    /// A client's connection, as the log names it where there is no request.
    pub(crate) fn visitor<'a>(&self, conn: &'a Connection) -> Visitor<'a> {
        let Connection { facts, link } = conn;
        let log = self.log_of(&facts.address.default.root.core);
        Visitor { log, number: link.stream.number(), peer: &facts.peer, server: &facts.address.addr, starttls: false }
    }
}

/// What carries the bytes of a connection, and how it is kept.
pub struct Link {
    /// The socket, or a stream of an HTTP/2 connection.
    pub stream: Client,
    /// How long it may be idle, as the last request's location says.
    pub keepalive_ms: u32,
    /// How long of that it isn't closed for want of connections or because the worker quits.
    pub keepalive_min_ms: u32,
    /// Whether its PROXY protocol header is still to come.
    pub proxy_expected: bool,
    /// Whether a TLS handshake is still to come.
    pub tls_expected: bool,
    /// Whether it stays in this process to its end: nobody took it when it was handed over.
    pub stays: bool,
    /// Whether small packets go out without delay.
    pub nodelay: bool,
    /// Whether its task began to wait for the next request when the last one was over.
    pub(crate) rests: bool,
}

impl Link {
    /// One that is used for the first time.
    pub fn new(stream: Client) -> Link {
        Link {
            stream,
            keepalive_ms: 0,
            keepalive_min_ms: 0,
            proxy_expected: false,
            tls_expected: false,
            stays: false,
            nodelay: false,
            rests: false,
        }
    }

    /// Lets small packets go out without delay, if the location wants it; one call in a connection's life.
    pub fn set_nodelay(&mut self, wanted: bool) {
        if wanted && !self.nodelay {
            self.nodelay = true;
            // A unix socket has no such option, and needs none.
            let _ = self.stream.set_nodelay(true);
        }
    }

    /// The address that the client connected to.
    pub fn local_addr(&self) -> io::Result<SockAddr> {
        self.stream.local_addr()
    }
}
