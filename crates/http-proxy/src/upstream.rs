//! `upstream {}`: groups of servers. Its directives are in `common::backend`.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use common::backend::groups::{self, IpHashBlock, KeepaliveBlock, StickyBlock};
use conf::{Loader, Registry, Result};
use engine::handover::Parcel;
use http::HttpProto;
use http::module::HttpModule;
use http::request::variables::Setup;
use http::server::Http;

use crate::pass::Groups;
use crate::{handover, pass};

/// The module.
pub struct Upstream;

/// The groups as they are read.
pub type Specs = common::backend::Specs<HttpProto>;

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
        Some(Box::new(pass::groups(loader)))
    }

    fn adopt(&self, http: &Rc<Http>, parcel: Parcel, back: bool) -> std::result::Result<(), Parcel> {
        handover::adopt_tunnel(http, parcel, back)
    }
}
