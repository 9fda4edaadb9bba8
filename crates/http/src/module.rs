//! What a module of HTTP is: what it gives to the core.

use std::any::Any;
use std::rc::Rc;

use common::modules::{Check, Log, Phases, Verdict};
use conf::{Loader, Registry, Result, Set};
use engine::handover::Parcel;
use engine::worker::helpers::CacheKeeper;

use crate::config::blocks::{Block, Builder};
use crate::phases::{Flow, Handler, PromptHandler};
use crate::proto::HttpProto;
use crate::request::Request;
use crate::request::variables::{self, Setup};
use crate::server::Http;
use crate::server::location::{Handlers, Kind, LocationId, LogHandler};

/// The modules of a program; within a phase their handlers run in this order.
pub(crate) type HttpModules = Rc<[&'static dyn HttpModule]>;

/// What a module of HTTP gives to the core. Everything has a default: a module says only what it has.
pub trait HttpModule: Sync {
    /// Registers its directive tables.
    fn tables(&self, _registry: &mut Registry) {}

    /// Defines its variables; called when `http {}` begins.
    fn variables(&self, _setup: &mut Setup) {}

    /// Called when the configuration was read, before inheritance.
    fn prepare(&self, _loader: &mut Loader<'_>) -> Result<()> {
        Ok(())
    }

    /// Adds to a location (or a server's own level) the handlers and filters that its configuration needs.
    fn location(&self, _cx: &mut LocationContext<'_, '_>, _out: &mut Handlers) -> Result<()> {
        Ok(())
    }

    /// What it keeps for the life of the configuration, if anything: found by its type with [`Http::part`]. Called after
    /// [`HttpModule::location`] for all locations.
    fn part(&self, _loader: &mut Loader<'_>) -> Option<Box<dyn Any>> {
        None
    }

    /// What it leaves to the cache manager and the cache loader, if anything.
    fn cache_keeper(&self, _http: &Rc<Http>) -> Option<Rc<dyn CacheKeeper>> {
        None
    }

    /// Another worker tells of something, by the kind of the notice ([`engine::notices`]).
    fn notice(&self, _http: &Rc<Http>, _kind: u8, _payload: &[u8]) {}

    /// Called in each worker before it accepts.
    fn start_worker(&self, _http: &Rc<Http>) {}

    /// Serves on what this module has given away in another worker, by the kind of the parcel; `back`: what this worker
    /// gave away and nobody took. `Err`: it isn't this module's, or there is no place for it.
    fn adopt(&self, _http: &Rc<Http>, parcel: Parcel, _back: bool) -> std::result::Result<(), Parcel> {
        Err(parcel)
    }
}

/// A location that is being compiled.
pub struct LocationContext<'a, 'r> {
    /// Which one.
    pub id: LocationId,
    /// Its resolved configuration.
    pub set: &'a Set,
    /// Those of all locations, by id.
    pub sets: &'a [Set],
    /// How it is found.
    pub kind: &'a Kind,
    /// Its name.
    pub name: &'a [u8],
    /// `http {}` with its servers as they were read.
    pub block: &'a Block,
    /// The locations as they were read.
    pub builder: &'a Builder,
    /// The loader, for what modules keep in its store, and for warnings.
    pub loader: &'a mut Loader<'r>,
}

impl LocationContext<'_, '_> {
    /// The location itself and, if it is a block inside one (`if`, `limit_except`), the locations around it up to the
    /// first that is found by itself: where a module looks for what isn't inherited otherwise, such as `proxy_pass`.
    pub fn owners(&self) -> Vec<LocationId> {
        let mut owners = vec![self.id];
        let mut at = self.id;
        loop {
            let node = &self.builder.locations[at.0 as usize];
            match (&node.kind, node.parent) {
                (Kind::Inner, Some(parent)) => {
                    owners.push(parent);
                    at = parent;
                }
                _ => return owners,
            }
        }
    }
}

impl<'a> LocationContext<'a, '_> {
    /// The configurations of type `C` of the location and of its [`owners`](LocationContext::owners).
    pub fn of_owners<C: conf::Conf>(&self) -> impl Iterator<Item = &'a C> + use<'a, C> {
        let sets = self.sets;
        self.owners().into_iter().map(move |owner| sets[owner.0 as usize].get::<C>())
    }
}

impl LocationContext<'_, '_> {
    /// Where the directive of that name stands that the location has, itself or from a level around it.
    pub fn place(&self, name: &str) -> Option<conf::Span> {
        let registry = self.loader.registry();
        let mut at = Some(self.id);
        while let Some(id) = at {
            let node = &self.builder.locations[id.0 as usize];
            if let Some(place) = node.raw.borrow().places(registry, name).last() {
                return Some(place);
            }
            at = node.parent;
        }
        self.block.outer_place(conf::Level::Location, registry, name)
    }
}

/// The modules of the program, for the blocks that are being read.
#[derive(Default)]
struct HandedIn(Option<HttpModules>);

/// Lets the modules take part in the configuration that is about to be read.
pub(crate) fn hand_in(loader: &mut Loader<'_>, modules: &HttpModules) {
    loader.store.entry::<HandedIn>().0 = Some(modules.clone());
}

/// Defines the variables for the `http {}` that begins.
pub(crate) fn begin_http(loader: &mut Loader<'_>) {
    let modules = loader.store.entry::<HandedIn>().0.clone().unwrap_or_default();
    define_variables(&modules, loader.store.entry());
}

/// Lets the core and every module define their variables.
pub(crate) fn define_variables(modules: &HttpModules, setup: &mut Setup) {
    variables::core(setup);
    for module in modules.iter() {
        module.variables(setup);
    }
}

/// A handler that all who need it share.
pub fn shared(handler: impl Handler + 'static) -> Rc<dyn Handler> {
    Rc::new(handler)
}

/// A module that HTTP shares with other protocols.
pub struct Shared<M>(pub M);

impl<M: common::modules::Module<HttpProto> + Sync> HttpModule for Shared<M> {
    fn tables(&self, registry: &mut Registry) {
        self.0.tables(registry);
    }

    fn variables(&self, setup: &mut Setup) {
        self.0.variables(setup);
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        self.0.phases(cx.set, cx.loader, out)
    }
}

impl Phases<HttpProto> for Handlers {
    fn post_read(&mut self, check: impl Check<HttpProto>) {
        self.post_read.push(Rc::new(Checks(check)));
    }

    fn preaccess(&mut self, check: impl Check<HttpProto>) {
        self.preaccess.push(Rc::new(Checks(check)));
    }

    fn access(&mut self, check: impl Check<HttpProto>) {
        self.access.push(Rc::new(Checks(check)));
    }

    fn log(&mut self, log: impl Log<HttpProto>) {
        self.log.push(Rc::new(Logs(log)));
    }
}

struct Checks<C>(C);

impl<C: Check<HttpProto>> PromptHandler for Checks<C> {
    fn answer(&self, r: &mut Request) -> Flow<'static> {
        match self.0.check(r) {
            Verdict::Next => Flow::Next,
            Verdict::Allow => Flow::Allow,
            Verdict::Refuse(status) => Flow::Status(status),
        }
    }

    fn again(&self, r: &mut Request) {
        self.0.again(r);
    }
}

struct Logs<L>(L);

impl<L: Log<HttpProto>> LogHandler for Logs<L> {
    fn log(&self, r: &mut Request) {
        self.0.log(r);
    }
}
