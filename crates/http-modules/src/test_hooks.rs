//! `test_hook`: accidents on demand, for tests of what a crash costs. Built with the feature `test-hooks` only, which no
//! shipped program has.

use conf::{Args, Context, Directive, Error, Loader, Registry, Result};
use http::module::HttpModule;
use http::module::LocationContext;
use http::module::shared;
use http::phases::{Flow, Handler};
use http::request::Request;
use http::server::location::Handlers;

/// The module.
pub struct TestHooks;

conf::table! {
    /// Accidents.
    pub struct TestHooksConf, raw TestHooksRaw, module "tidegate_http_test_hooks_module", level HTTP Location;

    /// What happens to each request in this location: `panic`, `panic_later` (after a wait), or `abort`, which ends the
    /// worker.
    "test_hook" in Context::LOCATION, Args::exactly(1), default none,
        scalar(parse) hook: Option<Accident> = None;
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accident {
    /// A panic in the handler.
    Panic,
    /// A panic after the handler had to wait.
    PanicLater,
    /// The end of the process.
    Abort,
}

fn parse(_: &mut Loader<'_>, directive: &Directive) -> Result<Option<Accident>> {
    match directive.arg(0) {
        word if word == "panic" => Ok(Some(Accident::Panic)),
        word if word == "panic_later" => Ok(Some(Accident::PanicLater)),
        word if word == "abort" => Ok(Some(Accident::Abort)),
        word => Err(Error::at(word, format!("invalid value \"{}\"", word.lossy()))),
    }
}

impl HttpModule for TestHooks {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<TestHooksConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        if let Some(accident) = cx.set.get::<TestHooksConf>().hook {
            out.access.push(shared(accident));
        }
        Ok(())
    }
}

impl Handler for Accident {
    fn handle<'a>(&'a self, _: &'a mut Request) -> Flow<'a> {
        match self {
            Accident::Panic => panic!("test hook"),
            Accident::Abort => std::process::abort(),
            Accident::PanicLater => Flow::wait(async {
                rt::sleep(10).await;
                panic!("test hook")
            }),
        }
    }
}
