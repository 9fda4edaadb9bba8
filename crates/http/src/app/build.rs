//! From what was read to what serves: inheritance, compiled locations, addresses with their servers.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use conf::{Context, Error, Level, Loader, Result, Set, Sets, Span};
use engine::cycle::core_conf::ThreadPoolConf;
use engine::cycle::event_conf::EventConf;
use engine::handover::{Handover, Parcel};
use engine::{App, BuildContext, Listen, WorkerContext};
use expr::lookup::Names;
use os::SockAddr;

use super::handover;
use crate::config::blocks::{Builder, ServerName, ServerNode};
use crate::config::core::{CoreLocation, CoreServer};
use crate::config::listen::ListenSpec;
use crate::module::HttpModules;
use crate::module::LocationContext;
use crate::request::facts::ConnectionFacts;
use crate::request::variables::{Setup, Variables};
use crate::server::location::{Entry, Handlers, Location, LocationId, Tree};
use crate::server::status::Status;
use crate::server::worker::{Debugs, Worker, WorkerHandle};
use crate::server::{Address, Http, Server, Socket};
use crate::session::connection::{Connection, Link};
use crate::session::h1;
use crate::session::h2::conf::{self as http2, Http2Conf};
use crate::ssl::{self, ServerTls, SslConf};

/// Builds `http {}`, if there is one.
pub fn build(loader: &mut Loader<'_>, cx: &BuildContext<'_>, modules: &HttpModules) -> Result<Option<Rc<dyn App>>> {
    let Some(mut builder) = loader.store.take::<Builder>() else { return Ok(None) };
    let Some(frame) = builder.http.clone() else { return Ok(None) };
    for module in modules.iter() {
        module.prepare(loader)?;
    }
    let level = |level: Level, loader: &mut Loader<'_>| {
        Sets::resolve(Context::HTTP, level, &mut frame.levels[level as usize].borrow_mut(), None, loader)
    };
    let main = level(Level::Main, loader)?;
    let outer_server = level(Level::Server, loader)?;
    let outer_location = level(Level::Location, loader)?;
    let sets = resolve_sets(&mut builder, &outer_server, &outer_location, loader)?;
    check_sizes(&builder, &sets.servers, loader)?;
    for set in &sets.servers {
        ssl::compile(set, loader)?;
    }
    let compiled = compile(&builder, &sets, modules, loader)?;
    crate::body::temp::make_folders(loader, cx.owner)?;
    let variables = finish_variables(loader)?;
    let setup_captures = variables.1;
    let locations = locations(&mut builder, sets.locations, &sets.servers, compiled);
    let tls = server_tls(&builder, &sets.servers, &locations, loader)?;
    let watched = watched(&tls);
    let servers = servers(&mut builder, &sets.servers, &locations, tls);
    let sockets = sockets(&builder.servers, &servers, loader)?;
    let counters = engine::cycle::zones::counters(loader, cx.old, crate::server::status::NAMES)
        .map_err(|error| Error::new(format!("mmap() failed{}", engine::log::Errno(&error))))?;
    let http = Http {
        main,
        locations,
        sockets,
        variables: variables.0,
        captures: setup_captures,
        hostname: engine::log::hostname(),
        log: cx.log.clone(),
        status: Rc::new(Status::of(&counters)),
        parts: modules.iter().filter_map(|module| module.part(loader)).collect(),
        worker: Worker::default(),
    };
    Ok(Some(Rc::new(HttpApp { http: Rc::new(http), modules: modules.clone(), watched })))
}

struct Resolved {
    servers: Vec<Set>,
    locations: Vec<Set>,
}

/// Inheritance over all servers and locations; a location stands behind the one around it in the list.
fn resolve_sets(
    builder: &mut Builder,
    outer_server: &Set,
    outer_location: &Set,
    loader: &mut Loader<'_>,
) -> Result<Resolved> {
    let mut servers = Vec::with_capacity(builder.servers.len());
    for server in &builder.servers {
        let raw = &mut server.frame.levels[Level::Server as usize].borrow_mut();
        servers.push(Sets::resolve(Context::HTTP, Level::Server, raw, Some(outer_server), loader)?);
    }
    let mut locations: Vec<Set> = Vec::with_capacity(builder.locations.len());
    for node in &builder.locations {
        let parent = node.parent.map_or(outer_location, |parent| &locations[parent.0 as usize]);
        let raw = &mut node.raw.borrow_mut();
        let set = Sets::resolve(Context::HTTP, Level::Location, raw, Some(parent), loader)?;
        locations.push(set);
    }
    Ok(Resolved { servers, locations })
}

/// Lets every module add to every location what it needs there.
fn compile(
    builder: &Builder,
    sets: &Resolved,
    modules: &HttpModules,
    loader: &mut Loader<'_>,
) -> Result<Vec<Handlers>> {
    let mut compiled = Vec::with_capacity(builder.locations.len());
    for (index, node) in builder.locations.iter().enumerate() {
        let mut handlers = Handlers::default();
        for module in modules.iter() {
            let mut cx = LocationContext {
                id: LocationId(index as u32),
                set: &sets.locations[index],
                sets: &sets.locations,
                kind: &node.kind,
                name: &node.name,
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

fn finish_variables(loader: &mut Loader<'_>) -> Result<(Variables, bool)> {
    let setup = loader.store.take::<Setup>().unwrap_or_default();
    let captures = setup.captures;
    let names = setup.registry.names();
    match setup.registry.finish() {
        Ok(variables) => Ok((variables, captures)),
        Err(unknown) => {
            let mut errors = unknown.into_iter().map(|unknown| {
                let span = unknown.place.and_then(|place| setup.places.get(place as usize)).copied();
                let error = Error { span, ..Error::new(format!("unknown \"{}\" variable", unknown.name)) };
                explain_unknown(error, &unknown.name, &names, &loader.sources)
            });
            let first = errors.next().unwrap_or_else(|| Error::new("unknown variable"));
            loader.errors.extend(errors);
            Err(first)
        }
    }
}

/// An unknown variable with its own place, and the name that may have been meant.
fn explain_unknown(error: Error, name: &str, names: &[String], sources: &conf::Sources) -> Error {
    let caret = error.span.and_then(|span| {
        let text = sources.file(span)?.text.get(span.start as usize..span.end as usize)?;
        let (at, len) = variable_at(text, name)?;
        let start = span.start + at as u32;
        Some(Span { start, end: start + len as u32, ..span })
    });
    let error = Error { caret: caret.or(error.caret), ..error };
    let near = conf::similar_name(name, names.iter().map(String::as_str));
    error.or_hint(|| near.map(|near| format!("did you mean \"${near}\"?")))
}

/// Where `$name` or `${name}` stands in a text, and how long it is.
fn variable_at(text: &[u8], name: &str) -> Option<(usize, usize)> {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    memchr::memchr_iter(b'$', text).find_map(|at| {
        let rest = &text[at + 1..];
        let braces = usize::from(rest.first() == Some(&b'{'));
        let len = rest[braces..].iter().take_while(|byte| is_name(byte)).count();
        let found = rest[braces..braces + len].eq_ignore_ascii_case(name.as_bytes());
        found.then_some((at, 1 + len + 2 * braces))
    })
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

/// What a server's TLS depends on: its directives, whether HTTP/2 is offered, and who looks up names of responders.
type TlsKey = (*const SslConf, bool, *const upstream::Resolver, u64);

/// What accepts each server's TLS connections. Servers with the same directives share it.
fn server_tls(
    builder: &Builder,
    sets: &[Set],
    locations: &[Rc<Location>],
    loader: &mut Loader<'_>,
) -> Result<Vec<Option<Rc<ServerTls>>>> {
    let nodes = &builder.servers;
    let mut made: HashMap<TlsKey, Option<Rc<ServerTls>>> = HashMap::new();
    let mut all = Vec::with_capacity(sets.len());
    // `listen … http2` offers it to every server of the address.
    let specs = nodes.iter().flat_map(|node| &node.listens);
    let addresses: HashSet<SockAddr> = specs.filter(|spec| spec.http2).map(|spec| spec.addr.clone()).collect();
    for (node, set) in nodes.iter().zip(sets) {
        let conf: *const SslConf = set.get::<SslConf>();
        let listens = || node.listens.iter().any(|spec| addresses.contains(&spec.addr));
        let http2 = set.get::<Http2Conf>().http2 || listens();
        let core = &locations[node.root.0 as usize].core;
        let resolver = core.resolver.as_ref().map_or(std::ptr::null(), Rc::as_ptr);
        let key = (conf, http2, resolver, core.resolver_timeout);
        let tls = match made.get(&key) {
            Some(tls) => tls.clone(),
            None => {
                let registry = loader.registry();
                let tls = ssl::server(set, core, http2, loader);
                let at = |name: &str| builder.server_place(node, registry, name);
                tls.map_err(|error| at_directive(error, &at).or_at(Some(node.span)))?.map(Rc::new)
            }
        };
        made.insert(key, tls.clone());
        all.push(tls);
    }
    Ok(all)
}

/// An error of TLS at the directive that its message is about.
fn at_directive(error: Error, at: &dyn Fn(&str) -> Option<Span>) -> Error {
    let place = TLS_ERRORS.iter().filter(|(words, _)| error.message.contains(words)).find_map(|(_, name)| at(name));
    error.or_at(place)
}

/// Words of messages, and the directives that they are about.
const TLS_ERRORS: &[(&str, &str)] = &[
    ("ssl_ocsp_responder", "ssl_ocsp_responder"),
    ("ssl_ocsp", "ssl_ocsp"),
    ("ssl_verify_client", "ssl_verify_client"),
    ("SSL_CONF_cmd", "ssl_conf_command"),
    ("cipher", "ssl_ciphers"),
    ("curves", "ssl_ecdh_curve"),
    ("", "ssl_certificate"),
    ("", "ssl_reject_handshake"),
];

/// What nginx demands of sizes for the heads of requests.
fn check_sizes(builder: &Builder, sets: &[Set], loader: &Loader<'_>) -> Result<()> {
    for (node, set) in builder.servers.iter().zip(sets) {
        let core = set.get::<CoreServer>();
        if core.large_client_header_buffers.size < core.connection_pool_size {
            let message = "the \"large_client_header_buffers\" size must be equal to or greater than \
                           \"connection_pool_size\"";
            let at = |name| builder.server_place(node, loader.registry(), name);
            let place = at("large_client_header_buffers").or_else(|| at("connection_pool_size"));
            return Err(Error::new(message).or_at(place));
        }
    }
    Ok(())
}

/// Those of them whose certificates are watched, each once.
fn watched(tls: &[Option<Rc<ServerTls>>]) -> Vec<Rc<ServerTls>> {
    let mut watched: Vec<Rc<ServerTls>> = Vec::new();
    for tls in tls.iter().flatten().filter(|tls| tls.looks_in_ms().is_some()) {
        if !watched.iter().any(|known| Rc::ptr_eq(known, tls)) {
            watched.push(tls.clone());
        }
    }
    watched
}

fn servers(
    builder: &mut Builder,
    sets: &[Set],
    locations: &[Rc<Location>],
    tls: Vec<Option<Rc<ServerTls>>>,
) -> Vec<Rc<Server>> {
    let nodes = builder.servers.iter().zip(sets).zip(tls);
    nodes
        .map(|((node, set), tls)| {
            let root = locations[node.root.0 as usize].clone();
            let name = node.names.first().map(|name| shown_name(&name.text)).unwrap_or_default();
            let http2 = http2::config(set);
            Rc::new(Server { name, core: set.share::<CoreServer>(), set: set.clone(), root, tls, http2 })
        })
        .collect()
}

/// `$server_name`: a leading dot stands for the name itself.
fn shown_name(text: &[u8]) -> Box<[u8]> {
    text.strip_prefix(b".").unwrap_or(text).into()
}

/// One address while it is put together.
struct Wanted<'a> {
    spec: ListenSpec,
    servers: Vec<(&'a ServerNode, Rc<Server>, bool)>,
    span: Span,
}

fn sockets(nodes: &[ServerNode], servers: &[Rc<Server>], loader: &mut Loader<'_>) -> Result<Vec<Socket>> {
    let mut wanted: Vec<Wanted<'_>> = Vec::new();
    let mut by_addr: HashMap<SockAddr, usize> = HashMap::new();
    for (node, server) in nodes.iter().zip(servers) {
        let default;
        let listens = if node.listens.is_empty() {
            default = [default_listen()];
            &default[..]
        } else {
            &node.listens[..]
        };
        for spec in listens {
            let at = *by_addr.entry(spec.addr.clone()).or_insert_with(|| {
                wanted.push(Wanted { spec: spec.clone(), servers: Vec::new(), span: node.span });
                wanted.len() - 1
            });
            join(&mut wanted[at], spec, node, server);
        }
    }
    let addresses = wanted.into_iter().map(|wanted| address(wanted, loader)).collect::<Result<Vec<_>>>()?;
    Ok(group(addresses))
}

/// Where nothing is said: port 80, or 8000 for whoever may not take that.
fn default_listen() -> ListenSpec {
    let port = if os::users::effective_uid() == 0 { 80 } else { 8000 };
    ListenSpec::of(SockAddr::from(std::net::SocketAddr::from(([0, 0, 0, 0], port))))
}

/// Two servers that contradict each other about an address were found when they were read.
fn join<'a>(wanted: &mut Wanted<'a>, spec: &ListenSpec, node: &'a ServerNode, server: &Rc<Server>) {
    if spec.set && !wanted.servers.is_empty() {
        let (proxy_protocol, ssl, http2) = (wanted.spec.proxy_protocol, wanted.spec.ssl, wanted.spec.http2);
        wanted.spec = ListenSpec { proxy_protocol, ssl, http2, ..spec.clone() };
    }
    wanted.spec.proxy_protocol |= spec.proxy_protocol;
    wanted.spec.ssl |= spec.ssl;
    wanted.spec.http2 |= spec.http2;
    wanted.servers.push((node, server.clone(), spec.default_server));
}

fn address(wanted: Wanted<'_>, loader: &mut Loader<'_>) -> Result<(ListenSpec, Rc<Address>)> {
    let default = wanted.servers.iter().find(|(_, _, default)| *default).or(wanted.servers.first());
    let span = default.map_or(wanted.span, |(node, ..)| node.span);
    let default = default.map(|(_, server, _)| server.clone());
    let default = default.ok_or_else(|| Error { span: Some(wanted.span), ..Error::new("no servers") })?;
    if wanted.spec.ssl && default.tls.is_none() {
        return Err(no_certificate(span));
    }
    // Where the default server has no certificate either, no other one stands in for a server's own.
    if wanted.spec.ssl && default.set.get::<SslConf>().ssl_certificate.is_empty() {
        let without = wanted.servers.iter().find(|(_, server, _)| server.tls.is_none());
        if let Some((node, ..)) = without {
            return Err(no_certificate(node.span));
        }
    }
    let mut address = Address {
        addr: wanted.spec.addr.clone(),
        default,
        names: Names::new(),
        regexes: Vec::new(),
        proxy_protocol: wanted.spec.proxy_protocol,
        ssl: wanted.spec.ssl,
        http2: wanted.spec.http2,
    };
    let several = wanted.servers.len() > 1;
    for (node, server, _) in &wanted.servers {
        let unnamed = [ServerName { text: Rc::from(&b""[..]), regex: None }];
        for name in if node.names.is_empty() { &unnamed[..] } else { &node.names[..] } {
            if let Some(regex) = &name.regex {
                address.regexes.push((regex.clone(), server.clone()));
            } else if several && address.names.add(&name.text, server.clone()).is_err() {
                let shown = String::from_utf8_lossy(&name.text);
                let message = format!("conflicting server name \"{shown}\" on {}, ignored", wanted.spec.addr);
                loader.warnings.push(Error::new(message));
            }
        }
    }
    address.names.shrink();
    Ok((wanted.spec, Rc::new(address)))
}

fn no_certificate(server: Span) -> Error {
    let error = Error::place(server, "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive");
    error.hint("this server needs \"ssl_certificate\" and \"ssl_certificate_key\"")
}

/// Addresses without options of their own are served by the wildcard socket of their port.
fn group(addresses: Vec<(ListenSpec, Rc<Address>)>) -> Vec<Socket> {
    let mut wildcards: HashMap<(bool, u16), usize> = HashMap::new();
    let mut sockets: Vec<Socket> = Vec::new();
    let key = |addr: &SockAddr| (matches!(addr, SockAddr::V6(_)), addr.port());
    let mut rest = Vec::new();
    for (spec, address) in addresses {
        if spec.addr.is_wildcard() {
            wildcards.insert(key(&spec.addr), sockets.len());
        } else if !spec.bind && !spec.addr.is_unix() {
            rest.push((spec, address));
            continue;
        }
        sockets.push(Socket { listen: listen_of(spec), addresses: vec![address] });
    }
    for (spec, address) in rest {
        match wildcards.get(&key(&spec.addr)) {
            Some(&at) => sockets[at].addresses.insert(0, address),
            None => sockets.push(Socket { listen: listen_of(spec), addresses: vec![address] }),
        }
    }
    sockets
}

fn listen_of(spec: ListenSpec) -> Listen {
    Listen { addr: spec.addr, options: spec.options }
}

/// HTTP in a worker; in the master the servers whose certificates are watched.
struct HttpApp {
    http: Rc<Http>,
    modules: HttpModules,
    watched: Vec<Rc<ServerTls>>,
}

impl App for HttpApp {
    fn listens(&self) -> Vec<Listen> {
        self.http.sockets.iter().map(|socket| socket.listen.clone()).collect()
    }

    fn start_worker(self: Rc<Self>, worker: &WorkerContext) {
        // They hold configurations and not the cycle, which holds this application.
        let event = worker.cycle.events.share::<EventConf>();
        let debugs = (!event.debug_connection.is_empty())
            .then(|| -> Rc<Debugs> { Rc::new(move |peer: &SockAddr| event.debugs(peer)) });
        let described = worker.cycle.main.share::<ThreadPoolConf>();
        let pools = Rc::new(move |name: &str| engine::cycle::thread_pool::get(&described, name));
        let _ = self.http.worker.context.set(WorkerHandle { pools, debugs });
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
        self.http.worker.quit();
    }

    fn hand_over(&self, to: &Rc<Handover>) {
        self.http.worker.handover.replace(Some(to.clone()));
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
        self.watched.iter().filter_map(|tls| tls.looks_in_ms()).min()
    }

    fn look(&self) -> bool {
        // Each of them, whatever the others say.
        self.watched.iter().filter(|tls| tls.look(&self.http.log)).count() > 0
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}
