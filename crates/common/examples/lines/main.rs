//! A second protocol on what `common` has, as small as one can be: each line that a client sends is answered with the
//! value of `reply`, or by a backend (`pass`). The tests of `common` run it; each shared part is used once.
//!
//! `config` reads `stream {}`, `proto` says what the protocol is to the shared modules, `session` serves a connection.

mod config;
mod proto;
mod session;

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;

use common::front::blocks::{NoParameters, ServerNode};
use common::front::{Server as _, ssl};
use common::modules::Module as _;
use common::vars;
use conf::{Loader, Registry, Result};
use engine::cycle::{ConfSource, Program};
use engine::log::Log;
use engine::{App, BuildContext, Listen, Module, WorkerContext, start};
use os::SockAddr;

use crate::config::{Builder, LinesConf, PROTOCOL_MODULES};
use crate::proto::{Lines, LinesServer, Phases, Socket, Variables};

/// The whole of `stream {}`.
struct LinesApp {
    sockets: Vec<Socket>,
    variables: Rc<Variables>,
    log: Log,
    busy: Cell<usize>,
}

impl App for LinesApp {
    fn listens(&self) -> Vec<Listen> {
        self.sockets.iter().map(|socket| socket.listen.clone()).collect()
    }

    fn start_worker(self: Rc<Self>, _: &WorkerContext) {}

    fn accept(self: Rc<Self>, listen: usize, stream: rt::Stream, peer: SockAddr) {
        let Some(socket) = self.sockets.get(listen) else { return };
        let address = socket.address(|| stream.local_addr().ok());
        let session = session::LinesSession::new(&self.variables, &self.log, address.clone(), stream, peer);
        self.busy.set(self.busy.get() + 1);
        rt::spawn(async move {
            session.serve(&address).await;
            self.busy.set(self.busy.get() - 1);
        });
    }

    fn busy(&self) -> usize {
        self.busy.get()
    }
}

/// The protocol as a module of the program.
struct LinesModule;

impl Module for LinesModule {
    fn tables(&self, registry: &mut Registry) {
        config::tables(registry);
        PROTOCOL_MODULES.tables(registry);
    }

    fn build(&self, loader: &mut Loader<'_>, cx: &BuildContext<'_>) -> Result<Option<Rc<dyn App>>> {
        ssl::reading_once(loader, cx, |loader| build(loader, cx))
    }
}

fn build(loader: &mut Loader<'_>, cx: &BuildContext<'_>) -> Result<Option<Rc<dyn App>>> {
    let Some(builder) = Builder::take(loader) else { return Ok(None) };
    let sets = builder.resolve(loader)?.servers;
    for set in &sets {
        ssl::compile::<Lines>(set, loader)?;
    }
    let mut made = ssl::Servers::default();
    let mut servers = Vec::new();
    for (node, set) in builder.servers.iter().zip(sets) {
        servers.push(Rc::new(server(&builder, node, set, &mut made, loader)?));
    }
    let variables = Rc::new(vars::finish::<Lines>(loader)?);
    let sockets = builder.sockets(&servers, loader)?;
    debug_assert!(servers.iter().all(|server| server.tls().is_some() == server.has_certificate()));
    Ok(Some(Rc::new(LinesApp { sockets, variables, log: cx.log.clone(), busy: Cell::new(0) })))
}

fn server(
    builder: &Builder,
    node: &ServerNode<NoParameters>,
    set: conf::Set,
    made: &mut ssl::Servers,
    loader: &mut Loader<'_>,
) -> Result<LinesServer> {
    let tls = builder.tls(node, (&set, &config::NO_NAMES), &[], made, loader)?;
    let mut phases = Phases::default();
    PROTOCOL_MODULES.phases(&set, loader, &mut phases)?;
    let backend = config::backend(&set, loader)?;
    Ok(LinesServer { conf: set.share::<LinesConf>(), set, tls, phases, backend })
}

fn main() {
    let mut words = std::env::args().skip(1);
    let conf = PathBuf::from(words.next().expect("a configuration file"));
    let prefix = conf.parent().expect("a folder").join("");
    os::title::init();
    let mut program = Program::new(vec![Box::new(LinesModule)], prefix, ConfSource::File(conf));
    program.error_log = "error.log".into();
    std::process::exit(match words.next().as_deref() {
        Some("test") => i32::from(start::test(&program, false).is_none()),
        _ => start::run(&mut program, "lines", |_| {}),
    });
}
