//! Servers, the addresses they listen on, and which of them a request is for.

pub mod location;
pub mod status;
pub mod worker;

use std::any::Any;
use std::rc::Rc;

use conf::Set;
use engine::Listen;
use engine::log::Log;
use expr::lookup::Names;
use os::SockAddr;

use self::location::{Location, LocationId};
use crate::config::core::{CoreLocation, CoreServer};
use crate::request::variables::{HttpRegex, Variables};
use crate::session::h2::conf::Http2Conf;
use crate::ssl::ServerTls;

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
    /// Whether any template reads captures by number.
    pub captures: bool,
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
        self.locations[id.0 as usize].clone()
    }

    /// The address of a connection that was accepted by `listen`; if that is no longer listened on, the one that
    /// listens on its local address.
    pub fn address(&self, listen: &SockAddr, local: impl FnOnce() -> Option<SockAddr>) -> Option<Rc<Address>> {
        let all = || self.sockets.iter().flat_map(|socket| &socket.addresses);
        if let Some(same) = all().find(|address| address.addr == *listen) {
            return Some(same.clone());
        }
        let local = local().filter(|local| !local.is_unix())?;
        let wildcard = |addr: &SockAddr| {
            let same_family = matches!(addr, SockAddr::V6(_)) == matches!(local, SockAddr::V6(_));
            addr.is_wildcard() && same_family && addr.port() == local.port()
        };
        let exact = all().find(|address| address.addr == local);
        exact.or_else(|| all().find(|address| wildcard(&address.addr))).cloned()
    }

    /// The log of a location.
    pub fn log_of(&self, core: &CoreLocation) -> Log {
        core.log.as_ref().unwrap_or(&self.log).clone()
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
}

/// The server of a TLS connection, and how it was chosen.
pub struct Chosen {
    /// The server.
    pub server: Rc<Server>,
    /// Whether it was chosen by the name that the client gave.
    pub named: bool,
}

/// A listening socket, with all addresses whose connections it brings.
pub struct Socket {
    /// How it is made.
    pub listen: Listen,
    /// The addresses; the wildcard (or only) one last. Where there is more than one, the connection's local address
    /// decides.
    pub addresses: Vec<Rc<Address>>,
}

/// An address with the servers that listen on it.
pub struct Address {
    /// The address.
    pub addr: SockAddr,
    /// The server for requests whose host no other server has.
    pub default: Rc<Server>,
    /// The servers by name; empty if there is only one server.
    pub names: Names<Rc<Server>>,
    /// The servers with regexes for names, in the order of the file.
    pub regexes: Vec<(Rc<HttpRegex>, Rc<Server>)>,
    /// Whether connections begin with the PROXY protocol.
    pub proxy_protocol: bool,
    /// Whether connections speak TLS.
    pub ssl: bool,
    /// Whether HTTP/2 is spoken whatever the servers say (`listen … http2`).
    pub http2: bool,
}

impl Address {
    /// Whether connections may begin with HTTP/2, without TLS.
    pub fn begins_with_http2(&self) -> bool {
        !self.ssl && (self.http2 || self.default.set.get::<Http2Conf>().http2)
    }
}

impl Socket {
    /// The address of a connection whose local address is given by `local`, asked only if it matters.
    pub fn address(&self, local: impl FnOnce() -> Option<SockAddr>) -> Rc<Address> {
        let last = self.addresses.last().expect("a socket has an address");
        if self.addresses.len() == 1 {
            return last.clone();
        }
        let Some(local) = local() else { return last.clone() };
        self.addresses.iter().find(|address| address.addr == local).unwrap_or(last).clone()
    }
}
