//! `upstream {}`: groups of servers.

use std::marker::PhantomData;
use std::rc::Rc;

use buf::parse;
use conf::{Args, Directive, Error, Level, Loader, Registry, Result};
use expr::vars::Template;
use upstream::{Group, GroupSpec, Keepalive, Method, ServerSpec};

use crate::Proto;
use crate::vars::template_of;

/// Registers the tables that every protocol with backends has; beside them stand [`KeepaliveBlock`] and [`IpHashBlock`].
pub fn tables<P: Proto>(registry: &mut Registry) {
    registry.add::<UpstreamBlock<P>>();
    registry.add::<ZoneBlock<P>>();
    registry.add::<LeastConnBlock<P>>();
    registry.add::<HashBlock<P>>();
    registry.add::<RandomBlock<P>>();
}

/// The groups as they are read.
pub struct Specs<P> {
    /// Those that are complete.
    done: Vec<GroupSpec>,
    /// The keys of `hash`, by the group's name.
    keys: Vec<(Vec<u8>, Rc<Template>)>,
    current: Option<Open>,
    of: PhantomData<fn() -> P>,
}

// Not derived: that would ask for it of the protocol.
impl<P> Default for Specs<P> {
    fn default() -> Specs<P> {
        Specs { done: Vec::new(), keys: Vec::new(), current: None, of: PhantomData }
    }
}

impl<P: Proto> Specs<P> {
    /// Builds the groups: each with its name, in lower case, and the key of its balancer, if that wants one.
    pub fn build(&self) -> impl Iterator<Item = (Vec<u8>, Rc<Group>, Option<Rc<Template>>)> {
        self.done.iter().map(|spec| {
            let name = spec.name.to_ascii_lowercase();
            let key = self.keys.iter().find(|(group, _)| *group == name).map(|(_, key)| key.clone());
            (name, Group::new(spec), key)
        })
    }
}

#[derive(Default)]
struct Open {
    spec: GroupSpec,
    seen: Vec<&'static str>,
}

conf::table! {
    /// Groups of servers; all of it is gathered in [`Specs`].
    pub struct UpstreamBlock of P: Proto, raw UpstreamBlockRaw,
        at P::tables().upstream, block P::PLACES.block, level Level::Main;

    /// Defines a group of servers.
    "upstream" in P::PLACES.block, Args::exactly(1).block(), default none,
        block(upstream::<P>);
    /// A server of the group: its address, and parameters.
    "server" in P::PLACES.upstream, Args::at_least(1), default none,
        block(server::<P>);
}

conf::table! {
    /// What workers share.
    pub struct ZoneBlock of P: Proto, raw ZoneBlockRaw,
        at P::tables().upstream_zone, block P::PLACES.block, level Level::Main;

    /// Lets all workers share what they know of the group's servers (failures, connections, whose turn it is), in a zone
    /// of shared memory; without it each worker knows for itself. Groups may share a zone: then one of them says its
    /// size. Over a reload a server whose address stays keeps its state.
    "zone" in P::PLACES.upstream, Args::between(1, 2), default none,
        block(zone::<P>);
}

conf::table! {
    /// Idle connections.
    pub struct KeepaliveBlock of P: Proto, raw KeepaliveBlockRaw,
        at P::tables().upstream_keepalive, block P::PLACES.block, level Level::Main;

    /// How many idle connections to servers are kept; `local` keeps them apart by location.
    "keepalive" in P::PLACES.upstream, Args::between(1, 2), default computed("`keepalive 32 local;`"),
        block(keepalive::<P>);
    /// How many requests one connection serves.
    "keepalive_requests" in P::PLACES.upstream, Args::exactly(1), default computed("`keepalive_requests 1000;`"),
        block(keepalive_requests::<P>);
    /// For how long a connection is used.
    "keepalive_time" in P::PLACES.upstream, Args::exactly(1), default computed("`keepalive_time 1h;`"),
        block(keepalive_time::<P>);
    /// How long a connection may be idle.
    "keepalive_timeout" in P::PLACES.upstream, Args::exactly(1), default computed("`keepalive_timeout 60s;`"),
        block(keepalive_timeout::<P>);
}

conf::table! {
    /// The server with the fewest connections.
    pub struct LeastConnBlock of P: Proto, raw LeastConnBlockRaw,
        at P::tables().upstream_least_conn, block P::PLACES.block, level Level::Main;

    /// The next server is the one with the fewest connections for its weight.
    "least_conn" in P::PLACES.upstream, Args::exactly(0), default none,
        block(|loader: &mut Loader<'_>, d: &Directive| balance::<P>(loader, d, Method::LeastConn));
}

conf::table! {
    /// The server that the client's address says.
    pub struct IpHashBlock of P: Proto, raw IpHashBlockRaw,
        at P::tables().upstream_ip_hash, block P::PLACES.block, level Level::Main;

    /// The next server depends on the client's address.
    "ip_hash" in P::PLACES.upstream, Args::exactly(0), default none,
        block(|loader: &mut Loader<'_>, d: &Directive| balance::<P>(loader, d, Method::IpHash));
}

conf::table! {
    /// The server that a key says.
    pub struct HashBlock of P: Proto, raw HashBlockRaw,
        at P::tables().upstream_hash, block P::PLACES.block, level Level::Main;

    /// The next server depends on a key; with `consistent` most keys keep theirs when servers change.
    "hash" in P::PLACES.upstream, Args::between(1, 2), default none,
        block(hash::<P>);
}

fn hash<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let consistent = match d.args.get(1) {
        None => false,
        Some(word) if *word == "consistent" => true,
        Some(word) => return Err(Error::at(word, format!("invalid parameter \"{}\"", word.lossy()))),
    };
    let key = template_of::<P>(loader, d, &d.arg(0).text)?;
    balance::<P>(loader, d, Method::Hash { consistent })?;
    let name = current::<P>(loader).name.to_ascii_lowercase();
    loader.store.entry::<Specs<P>>().keys.push((name, key));
    Ok(())
}

conf::table! {
    /// A server by chance.
    pub struct RandomBlock of P: Proto, raw RandomBlockRaw,
        at P::tables().upstream_random, block P::PLACES.block, level Level::Main;

    /// The next server is chosen by chance; with `two` it is the better one of two.
    "random" in P::PLACES.upstream, Args::between(0, 2), default none,
        block(random::<P>);
}

fn random<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
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
    balance::<P>(loader, d, Method::Random { two })
}

fn balance<P: Proto>(loader: &mut Loader<'_>, d: &Directive, method: Method) -> Result<()> {
    if current::<P>(loader).method != Method::RoundRobin {
        loader.warn(d, Error::on(d, "load balancing method redefined"));
    }
    current::<P>(loader).method = method;
    Ok(())
}

fn upstream<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let name = d.arg(0);
    let specs = loader.store.entry::<Specs<P>>();
    if specs.done.iter().any(|spec| spec.name.eq_ignore_ascii_case(&name.text)) {
        let first = loader.places.get(P::tables().upstream.module(), name.lossy().to_ascii_lowercase());
        let error = Error::at(name, format!("duplicate upstream \"{}\"", name.lossy()));
        return Err(error.or_hint(|| first.map(|first| loader.stands_first(first))));
    }
    loader.places.note(P::tables().upstream.module(), name.lossy().to_ascii_lowercase(), d.span());
    let specs = loader.store.entry::<Specs<P>>();
    let spec = GroupSpec { name: name.text.clone(), ..GroupSpec::default() };
    specs.current = Some(Open { spec, seen: Vec::new() });
    let frame = loader.frame().nested(Level::Server);
    let errors = loader.errors.len();
    loader.block(d.block.as_deref().unwrap_or_default(), P::PLACES.upstream, frame);
    let failed = loader.errors.len() > errors;
    let specs = loader.store.entry::<Specs<P>>();
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
fn current<'l, P: Proto>(loader: &'l mut Loader<'_>) -> &'l mut GroupSpec {
    &mut loader.store.entry::<Specs<P>>().current.get_or_insert_default().spec
}

fn once<P: Proto>(loader: &mut Loader<'_>, d: &Directive, name: &'static str) -> Result<()> {
    let open = loader.store.entry::<Specs<P>>().current.get_or_insert_default();
    if open.seen.contains(&name) {
        return Err(conf::table::duplicate(d));
    }
    open.seen.push(name);
    Ok(())
}

fn server<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let server = ServerSpec::parse(d, P::PORT)?;
    let spec = current::<P>(loader);
    if server.backup && !spec.allows_backup() {
        return Err(Error::on(d, "balancing method does not support parameter \"backup\""));
    }
    spec.servers.push(server);
    Ok(())
}

fn zone<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    once::<P>(loader, d, "zone")?;
    let zone = upstream::zone::declare(loader, d.arg(0), d.args.get(1), P::tables().upstream.module())?;
    current::<P>(loader).zone = Some(zone);
    Ok(())
}

fn keepalive<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    once::<P>(loader, d, "keepalive")?;
    let word = d.arg(0);
    let invalid =
        |word: &conf::Word| Error::at(word, format!("invalid value \"{}\" in \"keepalive\" directive", word.lossy()));
    let connections = parse::parse_number(&word.text).ok_or_else(|| invalid(word))?;
    let local = match d.args.get(1) {
        None => false,
        Some(word) if *word == "local" => true,
        Some(word) => return Err(Error::at(word, format!("invalid parameter \"{}\"", word.lossy()))),
    };
    let settings = &mut current::<P>(loader).keepalive;
    (settings.connections, settings.local) = (connections as usize, local);
    Ok(())
}

fn keepalive_requests<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    once::<P>(loader, d, "keepalive_requests")?;
    let value = conf::values::number(loader, d)?;
    current::<P>(loader).keepalive.requests = value;
    Ok(())
}

fn keepalive_time<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    set_time::<P>(loader, d, "keepalive_time", |settings, ms| settings.time_ms = ms)
}

fn keepalive_timeout<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    set_time::<P>(loader, d, "keepalive_timeout", |settings, ms| settings.timeout_ms = ms)
}

fn set_time<P: Proto>(
    loader: &mut Loader<'_>,
    d: &Directive,
    name: &'static str,
    set: fn(&mut Keepalive, u64),
) -> Result<()> {
    once::<P>(loader, d, name)?;
    let value = conf::values::msec(loader, d)?;
    set(&mut current::<P>(loader).keepalive, value);
    Ok(())
}
