//! Servers, the addresses they listen on, and what sessions with them go through.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::{Rc, Weak};

use common::front::ssl::{ServerTls, SslConf};
use common::front::{self, Front, Sessions};
use common::handover::Successors;
use conf::Set;
use engine::Cycle;
use engine::log::Log;

use crate::config::CoreServer;
use crate::module::Handlers;
use crate::proto::{StreamProto, Variables};
use crate::udp::{ListenParameters, Port};

/// The whole of `stream {}`, ready to serve.
pub struct Stream {
    /// All listening sockets.
    pub sockets: Vec<Socket>,
    /// The variables in use.
    pub variables: Rc<Variables>,
    /// The name of this machine.
    pub hostname: String,
    /// The log of places without an `error_log`.
    pub log: Log,
    /// State of modules for the life of this configuration.
    pub parts: Vec<Box<dyn Any>>,
    /// State of modules for the worker's life.
    pub worker: Worker,
}

impl Stream {
    /// The state of a module, by its type.
    pub fn part<T: Any>(&self) -> Option<&T> {
        self.parts.iter().find_map(|part| part.downcast_ref())
    }
}

/// The state of a worker, besides its configuration.
#[derive(Default)]
pub struct Worker {
    /// Sessions that are being served.
    pub sessions: Sessions,
    /// The workers that take over its sessions once it leaves.
    pub successors: Successors,
    /// Sessions over UDP that have no backend yet.
    pub beginning: Cell<usize>,
    /// Its datagram sockets.
    pub ports: RefCell<Vec<Rc<Port>>>,
    /// The worker's cycle, which holds this.
    pub cycle: OnceCell<Weak<Cycle>>,
}

/// A server.
pub struct Server {
    /// Its first name; empty if it has none.
    pub name: Box<[u8]>,
    /// The core module's configuration.
    pub core: Rc<CoreServer>,
    /// All modules' configuration.
    pub set: Set,
    /// What accepts TLS connections, if it has a certificate.
    pub tls: Option<Rc<ServerTls>>,
    /// What its sessions go through.
    pub handlers: Handlers,
}

/// A listening socket, with all addresses whose connections it brings.
pub type Socket = front::Socket<StreamProto>;
/// An address with the servers that listen on it.
pub type Address = front::Address<StreamProto>;

impl Front for StreamProto {
    const DATAGRAMS: bool = true;

    type Server = Server;
    type Listen = ListenParameters;
}

impl front::Server for Server {
    fn tls(&self) -> Option<&Rc<ServerTls>> {
        self.tls.as_ref()
    }

    fn has_certificate(&self) -> bool {
        !self.set.get::<SslConf<StreamProto>>().ssl_certificate.is_empty()
    }
}
