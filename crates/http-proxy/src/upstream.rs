//! `upstream {}`: groups of servers. Its directives are in `common::backend`.

use std::any::Any;
use std::rc::Rc;

use common::backend::groups::{self, IpHashBlock, KeepaliveBlock};
use conf::{Loader, Registry};
use engine::handover::Parcel;
use http::HttpProto;
use http::module::HttpModule;
use http::request::variables::Setup;
use http::server::Http;

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
    }

    fn variables(&self, setup: &mut Setup) {
        crate::variables::define(setup);
    }

    fn part(&self, loader: &mut Loader<'_>) -> Option<Box<dyn Any>> {
        Some(Box::new(pass::groups(loader)))
    }

    fn adopt(&self, http: &Rc<Http>, parcel: Parcel, back: bool) -> std::result::Result<(), Parcel> {
        handover::adopt_tunnel(http, parcel, back)
    }
}
