//! `upstream {}`: groups of servers.

use std::any::Any;
use std::rc::Rc;

use ::upstream::{GroupSpec, Keepalive, Method, ServerSpec};
use buf::parse;
use conf::{Args, Context, Directive, Error, Level, Loader, Registry, Result};
use engine::handover::Parcel;
use expr::vars::Template;
use http::module::HttpModule;
use http::request::variables::{Setup, template_of};
use http::server::Http;

use crate::{handover, pass};

/// The module.
pub struct Upstream;

/// The groups as they are read.
#[derive(Default)]
pub struct Specs {
    /// Those that are complete.
    pub done: Vec<GroupSpec>,
    /// The keys of `hash`, by the group's name.
    pub keys: Vec<(Vec<u8>, Rc<Template>)>,
    current: Option<Open>,
}

#[derive(Default)]
struct Open {
    spec: GroupSpec,
    seen: Vec<&'static str>,
}

const IN: Context = Context::UPSTREAM;

conf::table! {
    /// Groups of servers; all of it is gathered in [`Specs`].
    pub struct UpstreamBlock, raw UpstreamBlockRaw, module "ngx_http_upstream_module", level HTTP Main;

    /// Defines a group of servers.
    "upstream" in Context::HTTP, Args::exactly(1).block(), default none,
        block(upstream);
    /// A server of the group: its address, and parameters.
    "server" in IN, Args::at_least(1), default none,
        block(server);
}

conf::table! {
    /// What workers share.
    pub struct ZoneBlock, raw ZoneBlockRaw, module "ngx_http_upstream_zone_module", level HTTP Main;

    /// Lets all workers share what they know of the group's servers (failures, connections, whose turn it is), in a zone
    /// of shared memory; without it each worker knows for itself. Groups may share a zone: then one of them says its
    /// size. Over a reload a server whose address stays keeps its state.
    "zone" in IN, Args::between(1, 2), default none,
        block(zone);
}

conf::table! {
    /// Idle connections.
    pub struct KeepaliveBlock, raw KeepaliveBlockRaw, module "ngx_http_upstream_keepalive_module", level HTTP Main;

    /// How many idle connections to servers are kept; `local` keeps them apart by location.
    "keepalive" in IN, Args::between(1, 2), default computed("`keepalive 32 local;`"),
        block(keepalive);
    /// How many requests one connection serves.
    "keepalive_requests" in IN, Args::exactly(1), default computed("`keepalive_requests 1000;`"),
        block(keepalive_requests);
    /// For how long a connection is used.
    "keepalive_time" in IN, Args::exactly(1), default computed("`keepalive_time 1h;`"),
        block(keepalive_time);
    /// How long a connection may be idle.
    "keepalive_timeout" in IN, Args::exactly(1), default computed("`keepalive_timeout 60s;`"),
        block(keepalive_timeout);
}

conf::table! {
    /// The server with the fewest connections.
    pub struct LeastConnBlock, raw LeastConnBlockRaw, module "ngx_http_upstream_least_conn_module", level HTTP Main;

    /// The next server is the one with the fewest connections for its weight.
    "least_conn" in IN, Args::exactly(0), default none,
        block(|loader: &mut Loader<'_>, d: &Directive| balance(loader, d, Method::LeastConn));
}

conf::table! {
    /// The server that the client's address says.
    pub struct IpHashBlock, raw IpHashBlockRaw, module "ngx_http_upstream_ip_hash_module", level HTTP Main;

    /// The next server depends on the client's address.
    "ip_hash" in IN, Args::exactly(0), default none,
        block(|loader: &mut Loader<'_>, d: &Directive| balance(loader, d, Method::IpHash));
}

conf::table! {
    /// The server that a key says.
    pub struct HashBlock, raw HashBlockRaw, module "ngx_http_upstream_hash_module", level HTTP Main;

    /// The next server depends on a key; with `consistent` most keys keep theirs when servers change.
    "hash" in IN, Args::between(1, 2), default none,
        block(hash);
}

fn hash(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let consistent = match d.args.get(1) {
        None => false,
        Some(word) if *word == "consistent" => true,
        Some(word) => return Err(Error::at(word, format!("invalid parameter \"{}\"", word.lossy()))),
    };
    let key = template_of(loader, d, &d.arg(0).text)?;
    balance(loader, d, Method::Hash { consistent })?;
    let name = current(loader).name.to_ascii_lowercase();
    loader.store.entry::<Specs>().keys.push((name, key));
    Ok(())
}

conf::table! {
    /// A server by chance.
    pub struct RandomBlock, raw RandomBlockRaw, module "ngx_http_upstream_random_module", level HTTP Main;

    /// The next server is chosen by chance; with `two` it is the better one of two.
    "random" in IN, Args::between(0, 2), default none,
        block(random);
}

fn random(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let two = d.args.first().is_some_and(|word| *word == "two");
    for (n, word) in d.args.iter().enumerate() {
        let known = match n {
            0 => *word == "two",
            _ => *word == "least_conn",
        };
        if !known {
            return Err(Error::at(word, format!("invalid parameter \"{}\"", word.lossy())));
        }
    }
    balance(loader, d, Method::Random { two })
}

fn balance(loader: &mut Loader<'_>, d: &Directive, method: Method) -> Result<()> {
    if current(loader).method != Method::RoundRobin {
        loader.warn(d, Error::on(d, "load balancing method redefined"));
    }
    current(loader).method = method;
    Ok(())
}

impl HttpModule for Upstream {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<UpstreamBlock>();
        registry.add::<ZoneBlock>();
        registry.add::<KeepaliveBlock>();
        registry.add::<LeastConnBlock>();
        registry.add::<IpHashBlock>();
        registry.add::<HashBlock>();
        registry.add::<RandomBlock>();
    }

    fn variables(&self, setup: &mut Setup) {
        crate::variables::define(setup);
    }

    fn part(&self, loader: &mut Loader<'_>) -> Option<Box<dyn Any>> {
        Some(Box::new(pass::groups(loader)))
    }

    fn adopt(&self, http: &Rc<Http>, parcel: Parcel, back: bool) -> std::result::Result<(), Parcel> {
        handover::adopt_tunnel(http, parcel, back)
    }
}

fn upstream(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let name = d.arg(0);
    let specs = loader.store.entry::<Specs>();
    if specs.done.iter().any(|spec| spec.name.eq_ignore_ascii_case(&name.text)) {
        let first = loader.places.get("upstream", name.lossy().to_ascii_lowercase());
        let error = Error::at(name, format!("duplicate upstream \"{}\"", name.lossy()));
        return Err(error.or_hint(|| first.map(|first| loader.stands_first(first))));
    }
    loader.places.note("upstream", name.lossy().to_ascii_lowercase(), d.span());
    let specs = loader.store.entry::<Specs>();
    let spec = GroupSpec { name: name.text.clone(), ..GroupSpec::default() };
    specs.current = Some(Open { spec, seen: Vec::new() });
    let frame = loader.frame().nested(Level::Server);
    let errors = loader.errors.len();
    loader.block(d.block.as_deref().unwrap_or_default(), Context::UPSTREAM, frame);
    let failed = loader.errors.len() > errors;
    let specs = loader.store.entry::<Specs>();
    let Some(Open { spec, .. }) = specs.current.take() else { return Ok(()) };
    if !spec.servers.iter().any(|server| !server.backup) && !failed {
        // With backups alone nginx finds it later.
        return Err(match spec.servers.is_empty() {
            true => Error::in_block(d, "no servers are inside upstream"),
            false => Error::on(d, format!("no servers in upstream \"{}\"", d.arg(0).lossy())),
        });
    }
    specs.done.push(spec);
    Ok(())
}

/// The group that is being read.
pub fn current<'l>(loader: &'l mut Loader<'_>) -> &'l mut GroupSpec {
    &mut loader.store.entry::<Specs>().current.get_or_insert_default().spec
}

fn once(loader: &mut Loader<'_>, d: &Directive, name: &'static str) -> Result<()> {
    let open = loader.store.entry::<Specs>().current.get_or_insert_default();
    if open.seen.contains(&name) {
        return Err(conf::table::duplicate(d));
    }
    open.seen.push(name);
    Ok(())
}

fn server(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let server = ServerSpec::parse(d, 80)?;
    let spec = current(loader);
    if server.backup && !spec.allows_backup() {
        return Err(Error::on(d, "balancing method does not support parameter \"backup\""));
    }
    spec.servers.push(server);
    Ok(())
}

fn zone(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    once(loader, d, "zone")?;
    let zone = ::upstream::zone::declare(loader, d.arg(0), d.args.get(1), "ngx_http_upstream_module")?;
    current(loader).zone = Some(zone);
    Ok(())
}

fn keepalive(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    once(loader, d, "keepalive")?;
    let word = d.arg(0);
    let invalid =
        |word: &conf::Word| Error::at(word, format!("invalid value \"{}\" in \"keepalive\" directive", word.lossy()));
    let connections = parse::parse_number(&word.text).ok_or_else(|| invalid(word))?;
    let local = match d.args.get(1) {
        None => false,
        Some(word) if *word == "local" => true,
        Some(word) => return Err(Error::at(word, format!("invalid parameter \"{}\"", word.lossy()))),
    };
    let settings = &mut current(loader).keepalive;
    (settings.connections, settings.local) = (connections as usize, local);
    Ok(())
}

fn keepalive_requests(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    once(loader, d, "keepalive_requests")?;
    let value = conf::values::number(loader, d)?;
    current(loader).keepalive.requests = value;
    Ok(())
}

fn keepalive_time(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    set_time(loader, d, "keepalive_time", |settings, ms| settings.time_ms = ms)
}

fn keepalive_timeout(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    set_time(loader, d, "keepalive_timeout", |settings, ms| settings.timeout_ms = ms)
}

fn set_time(loader: &mut Loader<'_>, d: &Directive, name: &'static str, set: fn(&mut Keepalive, u64)) -> Result<()> {
    once(loader, d, name)?;
    let value = conf::values::msec(loader, d)?;
    set(&mut current(loader).keepalive, value);
    Ok(())
}
