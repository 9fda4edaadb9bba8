//! What requests may know of their client's connection, apart from what carries its bytes.

use std::cell::OnceCell;
use std::rc::Rc;

use common::front::proxy::ProxyHeader;
use os::SockAddr;
use tls::Secured;

use crate::server::{Address, Chosen, Server};

/// The facts of a client's connection: of a socket, of a stream, or of the request that a subrequest belongs to.
#[derive(Clone)]
pub struct ConnectionFacts {
    /// The listening address with its servers.
    pub address: Rc<Address>,
    /// The client's address; a request may have replaced it by the one that a trusted proxy names.
    pub peer: SockAddr,
    /// Facts that few connections have.
    pub rare: Option<Rc<Rare>>,
    /// When it was accepted, in the loop's milliseconds.
    pub started_ms: u64,
    /// How many requests it has brought.
    pub requests: u32,
    /// Whether it is logged in all detail (`debug_connection`).
    pub debug: bool,
}

/// Facts that few connections have. They are kept apart, so that the many idle connections stay small.
#[derive(Clone, Default)]
pub struct Rare {
    /// The address that the client connected to, once it has been asked for.
    pub local: OnceCell<SockAddr>,
    /// The header of the PROXY protocol.
    pub proxy: Option<Box<ProxyHeader>>,
    /// The facts of its TLS.
    pub tls: Option<Rc<Secured>>,
}

impl Rare {
    /// The facts of a connection with this header of the PROXY protocol; none if it had no header.
    pub(crate) fn of_proxy(proxy: Option<ProxyHeader>) -> Option<Rc<Rare>> {
        proxy.map(|proxy| Rc::new(Rare { proxy: Some(Box::new(proxy)), ..Rare::default() }))
    }
}

/// The name that a client gave, while its handshake goes on: for certificates whose names have variables.
#[derive(Default)]
pub struct Pending {
    /// As in the ClientHello; empty if it gave none.
    pub server_name: Box<[u8]>,
}

impl ConnectionFacts {
    /// The facts of a client's connection that has just been accepted.
    pub fn new(address: Rc<Address>, peer: SockAddr) -> ConnectionFacts {
        ConnectionFacts { address, peer, rare: None, started_ms: rt::now_ms(), requests: 0, debug: false }
    }

    /// The facts of no connection, for the memory of requests that have ended.
    pub(crate) fn nobody(address: Rc<Address>) -> ConnectionFacts {
        ConnectionFacts {
            address,
            peer: SockAddr::Unix(Box::default()),
            rare: None,
            started_ms: 0,
            requests: 0,
            debug: false,
        }
    }

    /// The header of the PROXY protocol.
    pub fn proxy(&self) -> Option<&ProxyHeader> {
        self.rare.as_ref()?.proxy.as_deref()
    }

    /// The facts of its TLS; `None` without TLS.
    pub fn tls(&self) -> Option<&Rc<Secured>> {
        self.rare.as_ref()?.tls.as_ref()
    }

    /// Stores the facts of its TLS.
    pub(crate) fn set_tls(&mut self, tls: Rc<Secured>) {
        Rc::make_mut(self.rare.get_or_insert_default()).tls = Some(tls);
    }

    /// Whether it is a TLS connection.
    pub(crate) fn is_secure(&self) -> bool {
        self.tls().is_some()
    }

    /// The server that was chosen in the TLS handshake.
    pub fn chosen(&self) -> Option<&Chosen> {
        self.tls()?.owner.downcast_ref()
    }

    /// The server for its requests until their host names another one.
    pub fn server(&self) -> &Rc<Server> {
        self.chosen().map_or(&self.address.default, |chosen| &chosen.server)
    }

    /// Whether TLS and the client have agreed on HTTP/2.
    pub(crate) fn negotiated_http2(&self) -> bool {
        self.tls().is_some_and(|tls| tls.alpn() == Some(b"h2"))
    }
}
