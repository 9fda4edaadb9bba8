//! What a module of streams is: what it gives to the core.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use common::modules::{Check, Log, Phases};
use conf::{Loader, Registry, Result, Set, Span};
use engine::handover::Parcel;

use crate::proto::{Setup, StreamProto};
use crate::server::Stream;
use crate::session::StreamSession;
use crate::{MODULES, variables};

/// What a module of streams gives to the core. Everything has a default: a module says only what it has.
pub trait StreamModule: Sync {
    /// Registers its directive tables.
    fn tables(&self, _registry: &mut Registry) {}

    /// Defines its variables; called when `stream {}` begins.
    fn variables(&self, _setup: &mut Setup) {}

    /// Called when the configuration was read, before inheritance.
    fn prepare(&self, _loader: &mut Loader<'_>) -> Result<()> {
        Ok(())
    }

    /// Adds to a server what its configuration needs.
    fn server(&self, _cx: &mut ServerContext<'_, '_>, _out: &mut Handlers) -> Result<()> {
        Ok(())
    }

    /// What it keeps for the life of the configuration, if anything: found by its type with [`Stream::part`]. Called after
    /// [`StreamModule::server`] for all servers.
    fn part(&self, _loader: &mut Loader<'_>) -> Option<Box<dyn Any>> {
        None
    }

    /// Called in each worker before it accepts.
    fn start_worker(&self, _stream: &Rc<Stream>) {}

    /// Serves on what this module has given away in another worker, by the kind of the parcel; `back`: what this worker
    /// gave away and nobody took. `Err`: it isn't this module's, or there is no place for it.
    fn adopt(&self, _stream: &Rc<Stream>, parcel: Parcel, _back: bool) -> std::result::Result<(), Parcel> {
        Err(parcel)
    }
}

/// A server that is being made.
pub struct ServerContext<'a, 'r> {
    /// Its resolved configuration.
    pub set: &'a Set,
    /// What `stream {}` itself says for servers.
    pub outer: &'a Set,
    /// Where the directive of a name stands that the server has, itself or from the block around it.
    pub place: &'a dyn Fn(&conf::Registry, &str) -> Option<Span>,
    /// The loader, for what modules keep in its store, and for warnings.
    pub loader: &'a mut Loader<'r>,
}

/// What the sessions with a server go through, phase by phase; the TLS handshake comes after `access`.
#[derive(Default)]
pub struct Handlers {
    /// As soon as the client is known.
    pub post_accept: Vec<Box<dyn Check<StreamProto>>>,
    /// Before access is decided.
    pub preaccess: Vec<Box<dyn Check<StreamProto>>>,
    /// Where access is decided.
    pub access: Vec<Box<dyn Check<StreamProto>>>,
    /// Who looks at the client's first bytes.
    pub preread: Vec<Box<dyn Preread>>,
    /// Who serves the session; if nobody does, it ends.
    pub content: Option<Rc<dyn Content>>,
    /// When the session is over.
    pub log: Vec<Box<dyn Log<StreamProto>>>,
}

/// Looks at the client's first bytes, before the session is served. They stay with the session.
pub trait Preread: 'static {
    /// Looks at all that the client has sent so far: at least one byte of a connection, or one datagram.
    fn examine(&self, s: &mut StreamSession, bytes: &[u8]) -> Examined;
}

/// What the client's first bytes said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Examined {
    /// All that is wanted, or nothing at all.
    Done,
    /// More bytes are needed, as far as there are some.
    More,
}

/// Serves sessions.
pub trait Content: 'static {
    /// Serves a session to its end, and gives it back with its status; `None` if it goes on elsewhere.
    fn serve<'a>(&'a self, s: Box<StreamSession>) -> Serving<'a>;

    /// Itself, if other modules may know its type.
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }
}

/// A session that is being served.
pub type Serving<'a> = Pin<Box<dyn Future<Output = Option<Box<StreamSession>>> + 'a>>;

/// A module that streams share with other protocols.
pub struct Shared<M>(pub M);

impl<M: common::modules::Module<StreamProto> + Sync> StreamModule for Shared<M> {
    fn tables(&self, registry: &mut Registry) {
        self.0.tables(registry);
    }

    fn variables(&self, setup: &mut Setup) {
        self.0.variables(setup);
    }

    fn server(&self, cx: &mut ServerContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        self.0.phases(cx.set, cx.loader, out)
    }
}

impl Phases<StreamProto> for Handlers {
    fn post_read(&mut self, check: impl Check<StreamProto>) {
        self.post_accept.push(Box::new(check));
    }

    fn preaccess(&mut self, check: impl Check<StreamProto>) {
        self.preaccess.push(Box::new(check));
    }

    fn access(&mut self, check: impl Check<StreamProto>) {
        self.access.push(Box::new(check));
    }

    fn log(&mut self, log: impl Log<StreamProto>) {
        self.log.push(Box::new(log));
    }
}

/// Lets the core and every module define their variables.
pub(crate) fn define_variables(setup: &mut Setup) {
    variables::define(setup);
    for module in MODULES {
        module.variables(setup);
    }
}
