//! HTTP: locations, requests, responses, sessions, proxying, modules.
//!
//! [`Module`] is what the program registers; `core` is the way of a request, `modules` one file for each module.
#![forbid(unsafe_code)]

pub mod core;
pub mod modules;
pub mod proxy;

pub use ::tls::LIBRARY as TLS_LIBRARY;

use std::rc::Rc;

use conf::{Loader, Registry};
use engine::{App, BuildContext};

/// HTTP as a module of the program.
pub struct Module;

impl engine::Module for Module {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<core::conf::CoreMain>();
        registry.add::<core::conf::CoreServer>();
        registry.add::<core::conf::CoreLocation>();
        for module in modules::MODULES {
            module.tables(registry);
        }
    }

    fn build(&self, loader: &mut Loader<'_>, cx: &BuildContext<'_>) -> conf::Result<Option<Rc<dyn App>>> {
        ::tls::reading_once(|| core::build::build(loader, cx))
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let mut setup = core::variables::Setup::default();
        modules::define_variables(&mut setup);
        setup.names()
    }
}
