//! The engine with the smallest application ([`app`]), as a program. The tests of the processes run it.

mod app;

use std::path::PathBuf;
use std::rc::Rc;

use app::{Echo, Files};
use conf::{Args, Context, Directive, Error, Loader, Registry};
use engine::cycle::{ConfSource, Program};
use engine::{App, BuildContext, Listen, Module, start};
use os::socket::{Kind, ListenOptions};

conf::table! {
    /// Where to listen.
    pub struct EchoConf, raw EchoRaw, module "echo", level MAIN Main;

    /// An address; `udp` and `reuseport` after it.
    "echo_listen" in Context::MAIN, Args::between(1, 3), default none,
        also(parse_listen);
    /// Whether there is something to be kept on disk.
    "echo_cache" in Context::MAIN, Args::FLAG, default none,
        also(parse_cache);
    /// A file: a worker that finds it at its start is killed.
    "echo_dies" in Context::MAIN, Args::exactly(1), default none,
        also(parse_dies);
    /// A file: a worker that finds it at its start stops, a cache manager is killed.
    "echo_stops" in Context::MAIN, Args::exactly(1), default none,
        also(parse_stops);
}

fn parse_dies(_: &mut EchoRaw, loader: &mut Loader<'_>, directive: &Directive) -> conf::Result<()> {
    loader.store.entry::<Files>().dies = Some(directive.arg(0).lossy().into_owned().into());
    Ok(())
}

fn parse_stops(_: &mut EchoRaw, loader: &mut Loader<'_>, directive: &Directive) -> conf::Result<()> {
    loader.store.entry::<Files>().stops = Some(directive.arg(0).lossy().into_owned().into());
    Ok(())
}

/// Whether the cache processes are wanted.
#[derive(Default)]
struct Cached(bool);

fn parse_cache(_: &mut EchoRaw, loader: &mut Loader<'_>, directive: &Directive) -> conf::Result<()> {
    loader.store.entry::<Cached>().0 = directive.arg(0) == "on";
    Ok(())
}

#[derive(Default)]
struct Listens(Vec<Listen>);

fn parse_listen(_: &mut EchoRaw, loader: &mut Loader<'_>, directive: &Directive) -> conf::Result<()> {
    let text = directive.arg(0).lossy();
    let addr = match (text.strip_prefix("unix:"), text.parse()) {
        (Some(path), _) => os::SockAddr::unix(path.as_bytes()).map_err(|_| Error::on(directive, "path too long"))?,
        (None, Ok(addr)) => os::SockAddr::V4(addr),
        (None, Err(_)) => return Err(Error::on(directive, format!("invalid address \"{text}\""))),
    };
    let has = |wanted: &str| directive.args.iter().skip(1).any(|word| word == wanted);
    let kind = if has("udp") { Kind::Datagram } else { Kind::Stream };
    let options = ListenOptions { kind, reuseport: has("reuseport"), ..Default::default() };
    loader.store.entry::<Listens>().0.push(Listen { addr, options });
    Ok(())
}

struct EchoModule;

impl Module for EchoModule {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<EchoConf>();
    }

    fn build(&self, loader: &mut Loader<'_>, _: &BuildContext<'_>) -> conf::Result<Option<Rc<dyn App>>> {
        let listens = std::mem::take(&mut loader.store.entry::<Listens>().0);
        let cache = loader.store.entry::<Cached>().0;
        let files = std::mem::take(loader.store.entry::<Files>());
        Ok(Some(Rc::new(Echo::new(listens, cache, files))))
    }
}

fn main() {
    let mut words = std::env::args().skip(1);
    let conf = PathBuf::from(words.next().expect("a configuration file"));
    let prefix = conf.parent().expect("a folder").join("");
    os::title::init();
    let mut program = Program::new(vec![Box::new(EchoModule)], prefix, ConfSource::File(conf));
    program.error_log = "error.log".into();
    std::process::exit(match words.next().as_deref() {
        Some("test") => i32::from(start::test(&program, false).is_none()),
        Some(word) => i32::from(!start::signal(&program, word)),
        None => start::run(&mut program, "echo", |_| {}),
    });
}
