//! HTTP as an application of the program: built from the configuration, run in each worker.

pub mod build;
pub mod handover;

use std::rc::Rc;

use common::front::conf::SizesConf;
use common::front::ssl;
use conf::{Loader, Registry};
use engine::{App, BuildContext};

use crate::HttpProto;
use crate::config::core::{CoreLocation, CoreMain, CoreServer, VariableConf};
use crate::module::{self, HttpModule, HttpModules, Shared};
use crate::request::variables::Setup;
use crate::session::h2;

/// What the sessions need for themselves, as modules.
const OWN: [&dyn HttpModule; 2] = [&Shared(ssl::Ssl), &h2::module::Http2];

/// HTTP as a module of the program.
pub struct Module {
    modules: HttpModules,
}

impl Module {
    /// HTTP with these modules beside its own; within a phase their handlers run in this order.
    pub fn new(modules: impl IntoIterator<Item = &'static dyn HttpModule>) -> Module {
        Module { modules: OWN.iter().copied().chain(modules).collect() }
    }
}

impl engine::Module for Module {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<CoreMain>();
        registry.add::<SizesConf<HttpProto>>();
        registry.add::<CoreServer>();
        registry.add::<CoreLocation>();
        registry.add::<VariableConf>();
        for module in self.modules.iter() {
            module.tables(registry);
        }
    }

    fn begin(&self, loader: &mut Loader<'_>) {
        module::hand_in(loader, &self.modules);
    }

    fn build(&self, loader: &mut Loader<'_>, cx: &BuildContext<'_>) -> conf::Result<Option<Rc<dyn App>>> {
        ssl::reading_once(loader, cx, |loader| build::build(loader, cx, &self.modules))
    }

    fn variables(&self) -> Vec<engine::Variable> {
        let mut setup = Setup::default();
        module::define_variables(&self.modules, &mut setup);
        setup.descriptions()
    }
}
