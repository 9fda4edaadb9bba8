//! The modules: one file each, and one line each in [`MODULES`].

use conf::{Loader, Registry, Result, Set};

use crate::core::blocks::Builder;
use crate::core::location::{Handlers, Kind, LocationId};
use crate::core::phase::Handler;
use crate::core::variables::Setup;

pub mod access;
pub mod autoindex;
pub mod gzip;
pub mod gzip_static;
pub mod headers;
pub mod http2;
pub mod index;
pub mod limit_conn;
pub mod limit_req;
pub mod log;
pub mod map;
pub mod not_modified;
mod proto;
pub mod range;
pub mod rewrite;
pub mod ssl;
pub mod static_files;
pub mod stub_status;
#[cfg(feature = "test-hooks")]
pub mod test_hooks;
pub mod try_files;

/// The modules; within a phase their handlers run in this order.
pub const MODULES: &[&dyn HttpModule] = &[
    &rewrite::Rewrite,
    &map::Map,
    &limit_req::LimitReq,
    &limit_conn::LimitConn,
    &access::Access,
    &try_files::TryFiles,
    &log::Log,
    &not_modified::NotModified,
    &headers::Headers,
    &gzip::Gzip,
    &range::Range,
    &ssl::Ssl,
    &http2::Http2,
    &stub_status::StubStatus,
    #[cfg(feature = "test-hooks")]
    &test_hooks::TestHooks,
    &crate::proxy::upstream::Upstream,
    &crate::proxy::proxy::Proxy,
    &index::Index,
    &autoindex::Autoindex,
    &gzip_static::GzipStatic,
    &static_files::StaticFiles,
];

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

    /// Called in each worker before it accepts.
    fn start_worker(&self, _http: &std::rc::Rc<crate::core::server::Http>) {}
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
    /// All that was read.
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
        self.builder.http_place(conf::Level::Location, registry, name)
    }
}

/// Lets the core and every module define their variables.
pub fn define_variables(setup: &mut Setup) {
    crate::core::variables::core(setup);
    for module in MODULES {
        module.variables(setup);
    }
}

/// A handler that all who need it share.
pub fn shared(handler: impl Handler + 'static) -> std::rc::Rc<dyn Handler> {
    std::rc::Rc::new(handler)
}
