//! `upstream {}`: groups of servers. Its directives are in `common::backend`.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use ::cache::keeper::Keeper;
use common::backend::groups::{self, IpHashBlock, KeepaliveBlock, StickyBlock};
use common::backend::targets::{self, Groups};
use conf::{Loader, Registry, Result};
use engine::handover::Parcel;
use engine::worker::helpers::CacheKeeper;
use http::HttpProto;
use http::app::build::OuterLocation;
use http::module::HttpModule;
use http::request::variables::Setup;
use http::server::Http;

use crate::cache::path::Caches;
use crate::{cache, handover};

/// The module.
pub struct Upstream;

impl HttpModule for Upstream {
    fn tables(&self, registry: &mut Registry) {
        groups::tables::<HttpProto>(registry);
        registry.add::<KeepaliveBlock<HttpProto>>();
        registry.add::<IpHashBlock<HttpProto>>();
        registry.add::<StickyBlock<HttpProto>>();
    }

    fn variables(&self, setup: &mut Setup) {
        crate::variables::define(setup);
    }

    fn prepare(&self, loader: &mut Loader<'_>) -> Result<()> {
        groups::check::<HttpProto>(loader)
    }

    fn start_worker(&self, http: &Rc<Http>) {
        if let Some(groups) = http.part::<Rc<RefCell<Groups>>>() {
            groups.borrow().start();
        }
    }

    fn part(&self, loader: &mut Loader<'_>) -> Option<Box<dyn Any>> {
        let groups = targets::groups::<HttpProto>(loader);
        if let Some(core) = &loader.store.entry::<OuterLocation>().0 {
            groups.borrow_mut().set_names(core.shared.names());
        }
        Some(Box::new(groups))
    }

    fn notice(&self, http: &Rc<Http>, kind: u8, payload: &[u8]) {
        if kind == engine::notices::kind::CACHE {
            cache::request::hear(http, payload);
        }
    }

    fn cache_keeper(&self, http: &Rc<Http>) -> Option<Rc<dyn CacheKeeper>> {
        let caches: Vec<_> = http.part::<Caches>()?.0.values().cloned().collect();
        (!caches.is_empty()).then(|| -> Rc<dyn CacheKeeper> { Rc::new(Keeper::new(caches)) })
    }

    fn adopt(&self, http: &Rc<Http>, parcel: Parcel, back: bool) -> std::result::Result<(), Parcel> {
        handover::adopt_tunnel(http, parcel, back)
    }
}
