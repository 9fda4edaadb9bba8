//! Servers, the addresses they listen on, and which of them a request is for.

pub mod location;
pub mod status;
pub mod worker;

use std::any::Any;
use std::rc::Rc;

use common::front::listen::Parameters;
use common::front::ssl::{ServerTls, SslConf};
use common::front::{self, addresses};
use conf::{Directive, Error, Loader, Result, Set, Word};
use engine::log::Log;
use os::SockAddr;

use self::location::{Location, LocationId};
use crate::config::core::{CoreLocation, CoreServer};
use crate::proto::HttpProto;
use crate::request::variables::Variables;
use crate::session::h2::conf::Http2Conf;

/// The whole of `http {}`, ready to serve.
pub struct Http {
    /// The main level's configuration.
    pub main: Set,
    /// All locations.
    pub locations: Vec<Rc<Location>>,
    /// All listening sockets.
    pub sockets: Vec<Socket>,
    /// The variables in use.
    pub variables: Variables,
    /// The name of this machine.
    pub hostname: String,
    /// The log of places without an `error_log`.
    pub log: Log,
    /// Counters shared by all workers.
    pub status: Rc<self::status::Status>,
    /// State of modules for the life of this configuration.
    pub parts: Vec<Box<dyn Any>>,
    /// State of modules for the worker's life.
    pub worker: self::worker::Worker,
}

impl Http {
    /// The state of a module, by its type.
    pub fn part<T: Any>(&self) -> Option<&T> {
        self.parts.iter().find_map(|part| part.downcast_ref())
    }

    /// A location by its id.
    pub fn location(&self, id: LocationId) -> Rc<Location> {
        self.look_at(id).clone()
    }

    /// A location by its id, for who doesn't keep it.
    pub(crate) fn look_at(&self, id: LocationId) -> &Rc<Location> {
        &self.locations[id.0 as usize]
    }

    /// The address of a connection that was accepted by `listen`; if that is no longer listened on, the one that
    /// listens on its local address.
    pub fn address(&self, listen: &SockAddr, local: impl FnOnce() -> Option<SockAddr>) -> Option<Rc<Address>> {
        addresses::find(&self.sockets, os::socket::Kind::Stream, listen, local)
    }

    /// The log of a location.
    pub fn log_of(&self, core: &CoreLocation) -> Log {
        core.shared.log.as_ref().unwrap_or(&self.log).clone()
    }
}

/// A virtual server.
pub struct Server {
    /// Its first name; empty if it has none.
    pub name: Box<[u8]>,
    /// The core module's configuration.
    pub core: Rc<CoreServer>,
    /// All modules' configuration of the server level.
    pub set: Set,
    /// Its own level as a location: what holds before one is found.
    pub root: Rc<Location>,
    /// What accepts TLS connections, if it has a certificate.
    pub tls: Option<Rc<ServerTls>>,
    /// The settings and limits of HTTP/2 connections to it.
    pub http2: Rc<wire::h2::Config>,
    /// Whether a location of it serves CONNECT.
    pub serves_connect: bool,
}

/// What a TLS connection remembers of the choice of its server.
pub type Chosen = front::tls::Chosen<Server>;

/// A listening socket, with all addresses whose connections it brings.
pub type Socket = front::Socket<HttpProto>;

/// An address with the servers that listen on it.
pub type Address = front::Address<HttpProto>;

impl front::Front for HttpProto {
    type Server = Server;
    type Listen = HttpListen;
}

impl front::Server for Server {
    fn tls(&self) -> Option<&Rc<ServerTls>> {
        self.tls.as_ref()
    }

    fn has_certificate(&self) -> bool {
        !self.set.get::<SslConf<HttpProto>>().ssl_certificate.is_empty()
    }
}

/// What `listen` takes in HTTP alone.
#[derive(Clone, Debug, Default)]
pub struct HttpListen {
    /// Whether connections may speak HTTP/2, whatever the servers' `http2` says.
    pub http2: bool,
}

impl Parameters for HttpListen {
    fn parameter(&mut self, loader: &mut Loader<'_>, d: &Directive, word: &Word) -> Result<bool> {
        match &word.text[..] {
            b"http2" => {
                let message = "the \"listen ... http2\" directive is deprecated, use the \"http2\" directive instead";
                loader.warn(d, Error::on(d, message));
                self.http2 = true;
                Ok(true)
            }
            b"quic" => Err(Error::at(word, "the \"quic\" parameter requires ngx_http_v3_module")
                .hint("this Tidegate does not have HTTP/3 yet")),
            _ => Ok(false),
        }
    }

    fn join(&mut self, other: &HttpListen) {
        self.http2 |= other.http2;
    }

    fn is_protocol(&self) -> bool {
        self.http2
    }
}

/// Whether connections to an address may begin with HTTP/2, without TLS.
pub(crate) fn begins_with_http2(address: &Address) -> bool {
    !address.ssl && (address.own.http2 || address.default.set.get::<Http2Conf>().http2)
}
