//! The server under simulation: the one place that knows how the program is put together from its crates.

use std::path::Path;
use std::rc::Rc;

use engine::Cycle;
use engine::cycle::{ConfSource, Program};
use engine::embedded::{self, Embedded};

/// The program's modules, as `server` lists them.
fn modules() -> Vec<Box<dyn engine::Module>> {
    let modules = [http_modules::MODULES, http_proxy::MODULES, http_modules::FILES];
    vec![Box::new(http::Module::new(modules.concat()))]
}

/// A configuration that was read, as at a start or as at a reload of the cycle that runs; what it names in files is
/// relative to `folder`.
pub fn load(folder: &Path, text: String, running: Option<&Cycle>) -> Result<Rc<Cycle>, String> {
    let mut program = Program::new(modules(), folder.join(""), ConfSource::BuiltIn("simulated", text));
    program.error_log = "/dev/null".into();
    embedded::load(&program, running)
}

/// Its event loop under the simulated network of this seed.
pub fn runtime(cycle: &Cycle, seed: u64) -> std::io::Result<rt::Runtime> {
    embedded::runtime(cycle, rt::Driver::Sim(seed))
}

/// Starts to serve.
pub fn start(cycle: &Rc<Cycle>) -> Rc<Embedded> {
    Rc::new(Embedded::start(cycle.clone()))
}

/// Starts to serve the next cycle in place of the one that is being served.
pub fn replace(running: &Embedded, next: &Rc<Cycle>) -> Rc<Embedded> {
    Rc::new(running.replace(next.clone()))
}

/// What it has written to its error log, in memory.
pub fn error_log(cycle: &Cycle) -> String {
    let contents = cycle.log.memory().map(|memory| memory.contents()).unwrap_or_default();
    String::from_utf8_lossy(&contents).into_owned()
}

/// How many connections are counted in the zone of that name, one of `limit_conn_zone`.
pub(crate) fn counted(cycle: &Cycle, name: &str) -> Option<u64> {
    let zone = cycle.zones.iter().find(|zone| &**zone.name() == name)?;
    zone.with_soon(common::modules::limit_conn::counted).ok()
}
