//! What stands before a protocol's sessions: the addresses that they come by, and what precedes their first bytes.

pub mod addresses;
pub mod blocks;
pub mod conf;
pub mod listen;
pub mod names;
pub mod proxy;
mod sessions;
pub mod ssl;
pub mod tls;
mod visitor;

use std::fmt;
use std::rc::Rc;

pub use addresses::{Address, Socket};
pub use listen::ListenSpec;
pub use names::ServerName;
pub use sessions::{Counted, Sessions};
pub use visitor::Visitor;

use self::listen::Parameters;
use self::ssl::ServerTls;
use crate::Proto;

/// A protocol with servers that listen on addresses.
pub trait Front: Proto {
    /// Whether it also takes datagrams (`listen … udp`).
    const DATAGRAMS: bool = false;
    /// A server.
    type Server: Server;
    /// What its `listen` takes beside what all have.
    type Listen: Parameters + fmt::Debug;
}

/// A server, as addresses know it.
pub trait Server: 'static {
    /// What accepts TLS connections, if it has a certificate.
    fn tls(&self) -> Option<&Rc<ServerTls>>;

    /// Whether it has a certificate, which may stand in for that of another server on the same address.
    fn has_certificate(&self) -> bool;
}
