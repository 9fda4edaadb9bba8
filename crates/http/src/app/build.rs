//! From what was read to what serves: inheritance, compiled locations, addresses with their servers.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use common::backend::targets::Groups;
use common::front::ListenSpec;
use common::front::blocks::Resolved;
use common::front::ssl::{self, ServerTls, Watched};
use conf::{Context, Error, Level, Loader, Result, Set, Sets};
use engine::cycle::core_conf::ThreadPoolConf;
use engine::cycle::event_conf::EventConf;
use engine::handover::{Handover, Parcel};
use engine::worker::helpers::CacheKeeper;
use engine::{App, BuildContext, Listen, WorkerContext};
use os::SockAddr;

use super::handover;
use crate::config::blocks::{Block, Builder};
use crate::config::core::{CoreLocation, CoreServer};
use crate::module::HttpModules;
use crate::module::LocationContext;
use crate::proto::HttpProto;
use crate::request::facts::ConnectionFacts;
use crate::server::location::{Entry, Handlers, Location, LocationId, Tree};
use crate::server::status::Status;
use crate::server::worker::{Debugs, Worker, WorkerHandle};
use crate::server::{Http, HttpListen, Server};
use crate::session::connection::{Connection, Link};
use crate::session::h1;
use crate::session::h2::conf::{self as http2, Http2Conf};

/// Builds `http {}`, if there is one.
pub fn build(loader: &mut Loader<'_>, cx: &BuildContext<'_>, modules: &HttpModules) -> Result<Option<Rc<dyn App>>> {
    let Some(mut block) = Block::take(loader) else { return Ok(None) };
    let mut builder = loader.store.take::<Builder>().unwrap_or_default();
    for module in modules.iter() {
        module.prepare(loader)?;
    }
    let Resolved { main, servers: sets, .. } = block.resolve(loader)?;
    let outer_location = block.resolve_outer(Level::Location, loader)?;
    loader.store.put(OuterLocation(Some(outer_location.share())));
    let location_sets = resolve_locations(&builder, &outer_location, loader)?;
    check_sizes(&block, &sets, loader)?;
    for set in &sets {
        ssl::compile::<HttpProto>(set, loader)?;
    }
    let compiled = compile((&block, &builder), &location_sets, modules, loader)?;
    crate::body::temp::make_folders(loader, cx.owner)?;
    let variables = common::vars::finish(loader)?;
    let tunnels = builder.locations.iter().zip(&compiled).filter(|(_, handlers)| handlers.serves_connect);
    let tunnels = tunnels.map(|(node, _)| node.server).collect();
    let locations = locations(&mut builder, location_sets, &sets, compiled);
    let roots: Vec<&Rc<Location>> = builder.roots.iter().map(|root| &locations[root.0 as usize]).collect();
    let silent = block.servers.iter_mut().filter(|node| node.listens.is_empty());
    silent.for_each(|node| node.listens.push(default_listen()));
    let mut made = ssl::Servers::default();
    let tls = server_tls(&block, &sets, &roots, &mut made, loader)?;
    let servers = servers(&block, &sets, &roots, tls, &tunnels);
    let sockets = block.sockets(&servers, loader)?;
    let counters = engine::cycle::zones::counters(loader, cx.old, crate::server::status::NAMES)
        .map_err(|error| Error::new(format!("mmap() failed{}", engine::log::Errno(&error))))?;
    let http = Http {
        main,
        locations,
        sockets,
        variables,
        hostname: engine::log::hostname(),
        log: cx.log.clone(),
        status: Rc::new(Status::of(&counters)),
        parts: modules.iter().filter_map(|module| module.part(loader)).collect(),
        worker: Worker::default(),
    };
    Ok(Some(Rc::new(HttpApp { http: Rc::new(http), modules: modules.clone(), watched: made.watched })))
}

/// What `http {}` itself says for locations, in the loader's store: for what belongs to no server.
#[derive(Default)]
pub struct OuterLocation(pub Option<Rc<CoreLocation>>);

/// Inheritance over all locations; a location stands after the one around it in the list.
fn resolve_locations(builder: &Builder, outer: &Set, loader: &mut Loader<'_>) -> Result<Vec<Set>> {
    let mut locations: Vec<Set> = Vec::with_capacity(builder.locations.len());
    for node in &builder.locations {
        let parent = node.parent.map_or(outer, |parent| &locations[parent.0 as usize]);
        let raw = &mut node.raw.borrow_mut();
        let set = Sets::resolve(Context::HTTP, Level::Location, raw, Some(parent), loader)?;
        locations.push(set);
    }
    Ok(locations)
}

/// Lets every module add to every location what it needs there.
fn compile(
    (block, builder): (&Block, &Builder),
    sets: &[Set],
    modules: &HttpModules,
    loader: &mut Loader<'_>,
) -> Result<Vec<Handlers>> {
    let mut compiled = Vec::with_capacity(builder.locations.len());
    for (index, node) in builder.locations.iter().enumerate() {
        let mut handlers = Handlers::default();
        for module in modules.iter() {
            let mut cx = LocationContext {
                id: LocationId(index as u32),
                set: &sets[index],
                sets,
                kind: &node.kind,
                name: &node.name,
                block,
                builder,
                loader,
            };
            module.location(&mut cx, &mut handlers)?;
        }
        handlers.filters.sort_by_key(|filter| filter.order());
        compiled.push(handlers);
    }
    Ok(compiled)
}

fn locations(builder: &mut Builder, sets: Vec<Set>, server_sets: &[Set], compiled: Vec<Handlers>) -> Vec<Rc<Location>> {
    let trees: Vec<Tree> = (0..builder.locations.len()).map(|index| tree(builder, index, &compiled)).collect();
    let nodes = std::mem::take(&mut builder.locations).into_iter();
    let parts = nodes.zip(sets).zip(compiled).zip(trees).enumerate();
    parts
        .map(|(index, (((node, set), handlers), children))| {
            Rc::new(Location {
                id: LocationId(index as u32),
                name: node.name,
                kind: node.kind,
                core: set.share::<CoreLocation>(),
                set,
                server_set: server_sets[node.server].clone(),
                children,
                handlers: Rc::new(handlers),
                limit_except: node.limit_except,
            })
        })
        .collect()
}

fn tree(builder: &Builder, index: usize, compiled: &[Handlers]) -> Tree {
    let children = builder.locations[index].children.iter();
    Tree::build(children.map(|&id| {
        let node = &builder.locations[id.0 as usize];
        let auto_redirect = compiled[id.0 as usize].auto_redirect;
        Entry { id, name: &node.name, kind: &node.kind, auto_redirect }
    }))
}

/// What accepts each server's TLS connections.
fn server_tls(
    block: &Block,
    sets: &[Set],
    roots: &[&Rc<Location>],
    made: &mut ssl::Servers,
    loader: &mut Loader<'_>,
) -> Result<Vec<Option<Rc<ServerTls>>>> {
    let nodes = &block.servers;
    let mut all = Vec::with_capacity(sets.len());
    // `listen … http2` offers it to every server of the address.
    let specs = nodes.iter().flat_map(|node| &node.listens);
    let addresses: HashSet<SockAddr> = specs.filter(|spec| spec.own.http2).map(|spec| spec.addr.clone()).collect();
    for ((node, set), root) in nodes.iter().zip(sets).zip(roots) {
        let listens = || node.listens.iter().any(|spec| addresses.contains(&spec.addr));
        let http2 = set.get::<Http2Conf>().http2 || listens();
        let alpn = &ALPN[usize::from(!http2)..];
        all.push(block.tls(node, (set, &root.core.shared.names()), alpn, made, loader)?);
    }
    Ok(all)
}

/// The protocols for ALPN; the first one only where it is wanted.
const ALPN: [&[u8]; 4] = [b"h2", b"http/1.1", b"http/1.0", b"http/0.9"];

/// What nginx demands of sizes for the heads of requests.
fn check_sizes(block: &Block, sets: &[Set], loader: &Loader<'_>) -> Result<()> {
    for (node, set) in block.servers.iter().zip(sets) {
        let core = set.get::<CoreServer>();
        if core.large_client_header_buffers.size < core.connection_pool_size {
            let message = "the \"large_client_header_buffers\" size must be equal to or greater than \
                           \"connection_pool_size\"";
            let at = |name| block.server_place(node, loader.registry(), name);
            let place = at("large_client_header_buffers").or_else(|| at("connection_pool_size"));
            return Err(Error::new(message).or_at(place));
        }
    }
    Ok(())
}

fn servers(
    block: &Block,
    sets: &[Set],
    roots: &[&Rc<Location>],
    tls: Vec<Option<Rc<ServerTls>>>,
    tunnels: &HashSet<usize>,
) -> Vec<Rc<Server>> {
    let nodes = block.servers.iter().zip(sets).zip(roots).zip(tls).enumerate();
    nodes
        .map(|(index, (((node, set), root), tls))| {
            let (name, root) = (node.name(), Rc::clone(root));
            let http2 = http2::config(set);
            let serves_connect = tunnels.contains(&index);
            let core = set.share::<CoreServer>();
            Rc::new(Server { name, core, set: set.clone(), root, tls, http2, serves_connect })
        })
        .collect()
}

/// Where nothing is said: port 80, or 8000 for whoever may not take that.
fn default_listen() -> ListenSpec<HttpListen> {
    let port = if os::users::effective_uid() == 0 { 80 } else { 8000 };
    ListenSpec::of(SockAddr::from(std::net::SocketAddr::from(([0, 0, 0, 0], port))))
}

/// HTTP in a worker; in the master the servers whose certificates are watched.
struct HttpApp {
    http: Rc<Http>,
    modules: HttpModules,
    watched: Watched,
}

impl App for HttpApp {
    fn listens(&self) -> Vec<Listen> {
        self.http.sockets.iter().map(|socket| socket.listen.clone()).collect()
    }

    fn start_worker(self: Rc<Self>, worker: &WorkerContext) {
        self.http.worker.temp_numbers.set(crate::body::temp::some_number());
        // They hold configurations and not the cycle, which holds this application.
        let event = worker.cycle.events.share::<EventConf>();
        let debugs = (!event.debug_connection.is_empty())
            .then(|| -> Rc<Debugs> { Rc::new(move |peer: &SockAddr| event.debugs(peer)) });
        let described = worker.cycle.main.share::<ThreadPoolConf>();
        let pools = Rc::new(move |name: &str| engine::cycle::thread_pool::get(&described, name));
        let cycle = Rc::downgrade(&worker.cycle);
        let _ = self.http.worker.context.set(WorkerHandle { pools, debugs, cycle });
        for module in self.modules.iter() {
            module.start_worker(&self.http);
        }
    }

    fn accept(self: Rc<Self>, listen: usize, stream: rt::Stream, peer: SockAddr) {
        let Some(socket) = self.http.sockets.get(listen) else { return };
        let address = socket.address(|| stream.local_addr().ok());
        let debugs = self.http.worker.context.get().and_then(|worker| worker.debugs.as_ref());
        let debug = debugs.is_some_and(|debugs| debugs(&peer));
        if debug {
            let message = format_args!("accept: {peer} fd:{}", stream.raw());
            self.http.log.debugging().write(engine::log::Level::Debug, Some(stream.number()), message);
        }
        let (proxy_expected, tls_expected) = (address.proxy_protocol, address.ssl);
        let conn = Connection {
            facts: ConnectionFacts { debug, ..ConnectionFacts::new(address, peer) },
            link: Link { proxy_expected, tls_expected, ..Link::new(stream.into()) },
        };
        rt::spawn(h1::serve(self.http.clone(), conn));
    }

    fn busy(&self) -> usize {
        self.http.worker.connections.get() + self.http.worker.apart.get()
    }

    fn quit(&self) {
        if let Some(groups) = self.http.part::<Rc<RefCell<Groups>>>() {
            groups.borrow().resign();
        }
        self.http.worker.quit();
    }

    fn hand_over(&self, to: &Rc<Handover>) {
        self.http.worker.successors.set(to);
    }

    fn adopt(self: Rc<Self>, parcel: Parcel, back: bool) -> std::result::Result<(), Parcel> {
        let mut parcel = match handover::adopt_idle(&self.http, parcel, back) {
            Ok(()) => return Ok(()),
            Err(parcel) => parcel,
        };
        for module in self.modules.iter() {
            parcel = match module.adopt(&self.http, parcel, back) {
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
        self.watched.look(&self.http.log)
    }

    fn notice(&self, kind: u8, payload: &[u8]) {
        self.modules.iter().for_each(|module| module.notice(&self.http, kind, payload));
    }

    fn cache_keeper(self: Rc<Self>) -> Option<Rc<dyn CacheKeeper>> {
        self.modules.iter().find_map(|module| module.cache_keeper(&self.http))
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}
