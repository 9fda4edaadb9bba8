//! Streams as an application of the program: built from the configuration, run in each worker.

use std::cell::RefCell;
use std::rc::Rc;

use common::backend::targets::Groups;
use common::front::blocks::{Builder, Resolved};
use common::front::conf::SizesConf;
use common::front::ssl::{self, Watched};
use conf::{Error, Loader, Registry, Result};
use engine::handover::{Handover, Parcel};
use engine::{App, BuildContext, Listen, WorkerContext};
use os::SockAddr;

use crate::MODULES;
use crate::config::{CoreMain, CoreServer};
use crate::module::{self, Handlers, ServerContext};
use crate::proto::{Setup, StreamProto};
use crate::server::{Server, Stream, Worker};
use crate::session::{self, Link, StreamSession};
use crate::ssl::HandshakeConf;
use crate::udp::{self, Port};

/// Streams as a module of the program.
pub struct Module;

impl engine::Module for Module {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<CoreMain>();
        registry.add::<SizesConf<StreamProto>>();
        registry.add::<CoreServer>();
        MODULES.iter().for_each(|module| module.tables(registry));
    }

    fn build(&self, loader: &mut Loader<'_>, cx: &BuildContext<'_>) -> Result<Option<Rc<dyn App>>> {
        ssl::reading_once(loader, cx, |loader| build(loader, cx))
    }

    fn variables(&self) -> Vec<engine::Variable> {
        let mut setup = Setup::default();
        module::define_variables(&mut setup);
        setup.descriptions()
    }
}

fn build(loader: &mut Loader<'_>, cx: &BuildContext<'_>) -> Result<Option<Rc<dyn App>>> {
    let Some(builder) = Builder::<StreamProto>::take(loader) else { return Ok(None) };
    for module in MODULES {
        module.prepare(loader)?;
    }
    let resolved = builder.resolve(loader)?;
    for set in &resolved.servers {
        ssl::compile::<StreamProto>(set, loader)?;
    }
    let handlers = handlers(&builder, &resolved, loader)?;
    let variables = Rc::new(common::vars::finish(loader)?);
    let mut made = ssl::Servers::default();
    let servers = servers(&builder, &resolved, handlers, &mut made, loader)?;
    let stream = Stream {
        sockets: builder.sockets(&servers, loader)?,
        variables,
        hostname: engine::log::hostname(),
        log: cx.log.clone(),
        parts: MODULES.iter().filter_map(|module| module.part(loader)).collect(),
        worker: Worker::default(),
    };
    Ok(Some(Rc::new(StreamApp { stream: Rc::new(stream), watched: made.watched })))
}

/// Lets every module add to every server what it needs there.
fn handlers(builder: &Builder<StreamProto>, resolved: &Resolved, loader: &mut Loader<'_>) -> Result<Vec<Handlers>> {
    let mut all = Vec::with_capacity(resolved.servers.len());
    for (node, set) in builder.servers.iter().zip(&resolved.servers) {
        if node.listens.is_empty() {
            return Err(Error::place(node.place, "no \"listen\" is defined for server"));
        }
        let mut handlers = Handlers::default();
        for module in MODULES {
            let place = |registry: &Registry, name: &str| builder.server_place(node, registry, name);
            let mut cx = ServerContext { set, outer: &resolved.outer, place: &place, loader };
            module.server(&mut cx, &mut handlers)?;
        }
        all.push(handlers);
    }
    Ok(all)
}

fn servers(
    builder: &Builder<StreamProto>,
    resolved: &Resolved,
    handlers: Vec<Handlers>,
    made: &mut ssl::Servers,
    loader: &mut Loader<'_>,
) -> Result<Vec<Rc<Server>>> {
    let mut servers = Vec::with_capacity(handlers.len());
    for ((node, set), handlers) in builder.servers.iter().zip(&resolved.servers).zip(handlers) {
        let core = set.share::<CoreServer>();
        let alpn = &set.get::<HandshakeConf>().ssl_alpn;
        let alpn: Vec<&[u8]> = alpn.iter().map(Vec::as_slice).collect();
        let tls = builder.tls(node, (set, &core.shared.names()), &alpn, made, loader)?;
        servers.push(Rc::new(Server { name: node.name(), core, set: set.clone(), tls, handlers }));
    }
    Ok(servers)
}

/// Streams in a worker; in the master the servers whose certificates are watched.
pub(crate) struct StreamApp {
    pub(crate) stream: Rc<Stream>,
    watched: Watched,
}

impl App for StreamApp {
    fn quit(&self) {
        if let Some(groups) = self.stream.part::<Rc<RefCell<Groups>>>() {
            groups.borrow().resign();
        }
    }

    fn listens(&self) -> Vec<Listen> {
        self.stream.sockets.iter().map(|socket| socket.listen.clone()).collect()
    }

    fn start_worker(self: Rc<Self>, worker: &WorkerContext) {
        let _ = self.stream.worker.cycle.set(Rc::downgrade(&worker.cycle));
        MODULES.iter().for_each(|module| module.start_worker(&self.stream));
    }

    fn accept(self: Rc<Self>, listen: usize, stream: rt::Stream, peer: SockAddr) {
        let Some(socket) = self.stream.sockets.get(listen) else { return };
        let address = socket.address(|| stream.local_addr().ok());
        let session = StreamSession::new(&self.stream, address, Link::Stream(stream), peer);
        rt::spawn(session::serve(Box::new(session)));
    }

    fn datagrams(self: Rc<Self>, listen: usize, socket: Rc<rt::UdpSocket>, group: Option<usize>) {
        Port::open(&self.stream, listen, socket, group);
    }

    fn holds_datagrams(&self) -> bool {
        self.stream.worker.ports.borrow().iter().any(|port| port.holds_sessions())
    }

    fn busy(&self) -> usize {
        self.stream.worker.sessions.get()
    }

    fn hand_over(&self, to: &Rc<Handover>) {
        self.stream.worker.successors.set(to);
        self.stream.worker.ports.borrow().iter().for_each(udp::handover::leave);
    }

    fn adopt(self: Rc<Self>, mut parcel: Parcel, back: bool) -> std::result::Result<(), Parcel> {
        parcel = match udp::handover::adopt(&self.stream, parcel, back) {
            Ok(()) => return Ok(()),
            Err(parcel) => parcel,
        };
        for module in MODULES {
            parcel = match module.adopt(&self.stream, parcel, back) {
                Ok(()) => return Ok(()),
                Err(parcel) => parcel,
            };
        }
        Err(parcel)
    }

    fn looks_in_ms(&self) -> Option<u64> {
        self.watched.looks_in_ms()
    }

    fn look(&self) -> bool {
        self.watched.look(&self.stream.log)
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}
