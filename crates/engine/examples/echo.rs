//! The engine with the smallest application: it answers each connection with the worker's process id and then sends
//! back what it receives. The tests of the processes run it.

use std::cell::Cell;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;

use buf::Chain;
use conf::{Args, Context, Directive, Error, Loader, Registry};
use engine::cycle::{ConfSource, Program};
use engine::worker::helpers::CacheKeeper;
use engine::{App, BuildContext, Listen, Module, WorkerContext, start};

conf::table! {
    /// Where to listen.
    pub struct EchoConf, raw EchoRaw, module "echo", level MAIN Main;

    /// An address.
    "echo_listen" in Context::MAIN, Args::between(1, 2), default none,
        also(parse_listen);
    /// Whether there is something to be kept on disk.
    "echo_cache" in Context::MAIN, Args::FLAG, default none,
        also(parse_cache);
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
    let reuseport = directive.args.get(1).is_some_and(|word| word == "reuseport");
    let options = os::socket::ListenOptions { reuseport, ..Default::default() };
    loader.store.entry::<Listens>().0.push(Listen { addr, options });
    Ok(())
}

struct Echo {
    listens: Vec<Listen>,
    busy: Cell<usize>,
    cache: bool,
}

/// Counts a connection while it lives.
struct Serving(Rc<Echo>);

impl Serving {
    fn new(echo: Rc<Echo>) -> Serving {
        echo.busy.set(echo.busy.get() + 1);
        Serving(echo)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get() - 1);
    }
}

impl App for Echo {
    fn listens(&self) -> Vec<Listen> {
        self.listens.clone()
    }

    fn start_worker(self: Rc<Self>, _: &WorkerContext) {}

    fn accept(self: Rc<Self>, _: usize, stream: rt::Stream, _: os::SockAddr) {
        let serving = Serving::new(self);
        rt::spawn(async move {
            let _serving = serving;
            let mut chain = Chain::new();
            chain.push_bytes(format!("{}\n", std::process::id()).into_bytes());
            let _ = stream.send(&mut chain).await;
            loop {
                stream.set_idle(true);
                let received = stream.recv(1000).await;
                stream.set_idle(false);
                match received {
                    Ok(bytes) if !bytes.is_empty() => {
                        assert!(bytes.as_ref() != b"panic\n", "asked for");
                        let mut chain = Chain::new();
                        chain.push_bytes(bytes);
                        if stream.send(&mut chain).await.is_err() {
                            break;
                        }
                    }
                    _ => break,
                }
            }
        });
    }

    fn busy(&self) -> usize {
        self.busy.get()
    }

    fn cache_keeper(self: Rc<Self>) -> Option<Rc<dyn CacheKeeper>> {
        self.cache.then_some(self as Rc<dyn CacheKeeper>)
    }
}

impl CacheKeeper for Echo {
    fn manage(&self) -> u64 {
        engine::log!(engine::log::current(), Notice, "managed by {}", std::process::id());
        50
    }

    fn load(self: Rc<Self>) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async { engine::log!(engine::log::current(), Notice, "loaded by {}", std::process::id()) })
    }

    fn load_after_ms(&self) -> u64 {
        200
    }
}

struct EchoModule;

impl Module for EchoModule {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<EchoConf>();
    }

    fn build(&self, loader: &mut Loader<'_>, _: &BuildContext<'_>) -> conf::Result<Option<Rc<dyn App>>> {
        let listens = std::mem::take(&mut loader.store.entry::<Listens>().0);
        let cache = loader.store.entry::<Cached>().0;
        Ok(Some(Rc::new(Echo { listens, busy: Cell::new(0), cache })))
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
