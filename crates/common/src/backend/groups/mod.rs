//! `upstream {}`: groups of servers.

use std::marker::PhantomData;
use std::rc::Rc;

use buf::parse;
use conf::{Args, Directive, Error, Level, Loader, Registry, Result};
use expr::vars::Template;
use upstream::{Group, GroupSpec, Keepalive, Measure, Method, Moment, QueueSpec, ServerSpec, Time};

use crate::Proto;
use crate::backend::resolve;
use crate::vars::template_of;

mod sticky;

pub use sticky::StickyBlock;

/// Registers the tables that every protocol with backends has; beside them stand [`KeepaliveBlock`], [`IpHashBlock`] and
/// [`StickyBlock`].
pub fn tables<P: Proto>(registry: &mut Registry) {
    registry.add::<UpstreamBlock<P>>();
    registry.add::<ZoneBlock<P>>();
    registry.add::<LeastConnBlock<P>>();
    registry.add::<LeastTimeBlock<P>>();
    registry.add::<HashBlock<P>>();
    registry.add::<RandomBlock<P>>();
}

/// The groups as they are read.
pub struct Specs<P> {
    /// Those that are complete.
    done: Vec<GroupSpec>,
    /// The keys of `hash`, by the group's name.
    keys: Vec<(Vec<u8>, Rc<Template>)>,
    /// Servers whose names had no address, with what is to be said of them.
    late: Vec<(Directive, Error)>,
    /// `upstream_resolve_at_start`
    strict: bool,
    current: Option<Open>,
    of: PhantomData<fn() -> P>,
}

// Not derived: that would ask for it of the protocol.
impl<P> Default for Specs<P> {
    fn default() -> Specs<P> {
        Specs { done: Vec::new(), keys: Vec::new(), late: Vec::new(), strict: false, current: None, of: PhantomData }
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

/// Says which servers have no address yet, once all has been read.
pub fn check<P: Proto>(loader: &mut Loader<'_>) -> Result<()> {
    let late = std::mem::take(&mut loader.store.entry::<Specs<P>>().late);
    late.into_iter().try_for_each(|(d, error)| without_address::<P>(loader, &d, error))
}

/// A name has no address: a warning, or the error if that is what `upstream_resolve_at_start` asks for.
pub fn without_address<P: Proto>(loader: &mut Loader<'_>, d: &Directive, error: Error) -> Result<()> {
    if loader.store.entry::<Specs<P>>().strict {
        return Err(error);
    }
    loader.warn(d, error.hint("it is looked up again; until it has an address, requests are answered with status 502"));
    Ok(())
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

    /// Defines a group of servers, to which `proxy_pass` and its like refer by the group's name.
    ///
    /// Form: `upstream name`
    ///
    /// - `name`: a name; its case doesn't count.
    ///
    /// Effect: requests are distributed over the servers of the group: in turn and by weight, unless `least_conn`,
    /// `least_time`, `ip_hash`, `hash` or `random` chooses, or `sticky` binds a session to a server. If a server fails, the next one is tried (`proxy_next_upstream`). Idle
    /// connections are kept (`keepalive`).
    ///
    /// Cost: each worker keeps state of each server, unless a `zone` shares it.
    ///
    /// Danger: host names of servers without `resolve` are looked up at the start and on a reload only.
    ///
    /// ```nginx http
    /// upstream backend {
    ///     zone backend 64k;
    ///     server 127.0.0.1:8080 weight=2;
    ///     server 127.0.0.1:8081;
    ///     server 127.0.0.1:8082 backup;
    /// }
    /// server {
    ///     location / {
    ///         proxy_pass http://backend;
    ///     }
    /// }
    /// ```
    ///
    /// ```nginx stream
    /// upstream databases {
    ///     zone databases 64k;
    ///     server 127.0.0.1:5432 weight=2;
    ///     server 127.0.0.1:5433;
    ///     server 127.0.0.1:5434 backup;
    /// }
    /// server {
    ///     listen 127.0.0.1:5431;
    ///     proxy_pass databases;
    /// }
    /// ```
    "upstream" in P::PLACES.block, Args::exactly(1).block(), default none,
        block(upstream::<P>);
    /// Adds a server to the group.
    ///
    /// Form: `server address [parameter ...]`
    ///
    /// - `address`: a host name or an IP address with or without a port (the default is 80), or `unix:path`. A name
    ///   with several addresses is as many servers.
    /// - `weight=number`: its share of the requests; the default is 1.
    /// - `max_conns=number`: how many connections to it may be open at a time; the default is 0, no limit. Without a
    ///   `zone` each worker counts its own.
    /// - `max_fails=number`: how many failures within `fail_timeout` make it unavailable; the default is 1, and 0
    ///   switches that off.
    /// - `fail_timeout=time`: the time in which failures are counted, and for which the server is then unavailable; the
    ///   default is 10s.
    /// - `backup`: it gets requests only if the other servers are unavailable. `hash`, `ip_hash` and `random` don't
    ///   support it.
    /// - `down`: it gets no requests.
    /// - `drain`: it gets only requests that `sticky` has bound to it.
    /// - `route=string`: what `sticky` knows the server by, at most 32 bytes; the default is the MD5 of its address and
    ///   port.
    /// - `slow_start=time`: in this time its share of the requests grows back from nothing, when it was unavailable or
    ///   a `health_check` had failed; the default is 0, at once. `hash`, `ip_hash` and `random` don't support it.
    /// - `resolve`: the name's addresses are looked up again and again while the server runs, as their time says; the
    ///   group needs a `zone`. See `resolver`.
    /// - `service=name`: with `resolve`, service records (SRV) of `_name._tcp.address` are looked up; a name with a
    ///   dot stands before the address as it is. They say addresses, ports and, unless there is a `weight`, weights.
    ///   Records of the lowest priority number are ordinary servers, the others backups.
    ///
    /// Effect: an unavailable server gets no requests until `fail_timeout` has passed; then a request tries it again. A
    /// group of one server never has it unavailable. A name without an address at the start is looked up again until it
    /// has one (see `upstream_resolve_at_start`).
    ///
    /// Cost: with `resolve`, a question to a name server whenever an answer's time is over, by one worker for all.
    ///
    /// Danger: `max_fails=1` makes one failed request stop a server for 10 seconds: a slow URI can stop one server
    /// after the other. Raise it where single failures are usual.
    ///
    /// ```nginx
    /// server 127.0.0.1:8080 weight=3 max_fails=3 fail_timeout=30s;
    /// server 127.0.0.1:8081 max_conns=100;
    /// ```
    "server" in P::PLACES.upstream, Args::at_least(1), default none,
        block(server::<P>);
    /// Refuses a configuration in which the name of a server has no address.
    ///
    /// Effect: with `on` the start, or a reload, fails if a name in `upstream` or in `proxy_pass` and its kin without
    /// variables can't be looked up. With `off` a warning says so; requests for that server are answered with status
    /// 502, or by other servers of its group, until the name has an address; it is looked up again and again, and then
    /// as often as the answers' time says. Names of servers with `resolve` aren't looked up at the start.
    ///
    /// Danger: with `on` a name server that doesn't answer keeps the server from starting.
    ///
    /// ```nginx
    /// upstream_resolve_at_start on;
    /// ```
    "upstream_resolve_at_start" in P::PLACES.block, Args::FLAG, default computed("`upstream_resolve_at_start off;`"),
        block(strict::<P>);
    /// Sets the name servers that look up the names of the group's servers.
    ///
    /// Form: `resolver address ... [valid=time] [ipv4=on|off] [ipv6=on|off] [status_zone=zone]`
    ///
    /// - `address`: a name server, an IP address or a name that is looked up at the start, with a port if it isn't 53.
    ///   Several are asked in turn.
    /// - `valid=time`: how long an answer is kept; by default as long as the answer says.
    /// - `ipv4=on|off`: whether IPv4 addresses are looked up; the default is `on`.
    /// - `ipv6=on|off`: whether IPv6 addresses are looked up; the default is `on`. One of the two must be on.
    /// - `status_zone=zone`: accepted; it has no effect, and a warning says so.
    ///
    /// Effect: servers with `resolve`, and those whose names had no address at the start, are looked up there, and not
    /// by the `resolver` around the group.
    ///
    /// Danger: whoever can forge answers chooses the servers. Use name servers in a network that you trust.
    ///
    /// ```nginx
    /// zone backend 64k;
    /// resolver 127.0.0.1 valid=30s;
    /// server backend.example.com:8080 resolve;
    /// ```
    "resolver" in P::PLACES.upstream, Args::at_least(1), default none,
        block(resolver::<P>);
    /// Limits the time in which a name of the group's servers must be looked up.
    ///
    /// Form: `resolver_timeout time`
    ///
    /// - `time`: the time for all name servers together.
    ///
    /// Effect: after it the name servers are asked again; the servers stay as they are until there is an answer.
    ///
    /// ```nginx
    /// zone backend 64k;
    /// resolver 127.0.0.1;
    /// resolver_timeout 5s;
    /// server backend.example.com:8080 resolve;
    /// ```
    "resolver_timeout" in P::PLACES.upstream, Args::exactly(1), default computed("that of the level around the group"),
        block(resolver_timeout::<P>);
    /// Lets requests wait if no server can be chosen.
    ///
    /// Form: `queue number [timeout=time]`
    ///
    /// - `number`: how many requests of a worker may wait.
    /// - `timeout=time`: for how long each may wait; the default is 60s.
    ///
    /// Effect: if all servers are unavailable or have as many connections as `max_conns` allows, a request waits until
    /// one can be chosen. Requests are served in the order in which they came. One that goes to the next server waits
    /// beside the others, as long as there are servers that it hasn't asked. If the queue is full, or the time over,
    /// the answer is 502. `$upstream_queue_time` holds the time.
    ///
    /// Cost: waiting requests keep their connections and memory. The first one in the queue, and each that goes to
    /// the next server, looks twenty times a second whether another worker has freed a server.
    ///
    /// ```nginx
    /// zone backend 64k;
    /// server 127.0.0.1:8080 max_conns=100;
    /// server 127.0.0.1:8081 max_conns=100;
    /// queue 50 timeout=5s;
    /// ```
    "queue" in P::PLACES.upstream, Args::between(1, 2), default none,
        block(queue::<P>);
    /// Reads the group's servers from a file.
    ///
    /// Form: `state file`
    ///
    /// - `file`: its path, relative to the folder of the configuration file. It has directives `server` and nothing else.
    ///
    /// Effect: the servers in the file are the group's; the directive stands in place of `server`. A file that isn't
    /// there is like an empty one: requests are answered with status 502. The file is read at the start and on a reload.
    /// Nothing writes to it: programs that manage servers do, and reload.
    ///
    /// ```nginx
    /// zone backend 64k;
    /// state backend.servers;
    /// ```
    "state" in P::PLACES.upstream, Args::exactly(1), default none,
        block(state::<P>);
}

conf::table! {
    /// What workers share.
    pub struct ZoneBlock of P: Proto, raw ZoneBlockRaw,
        at P::tables().upstream_zone, block P::PLACES.block, level Level::Main;

    /// Keeps the state of the group's servers (failures, connections, whose turn it is) in a zone of shared memory for
    /// all workers.
    ///
    /// Form: `zone name [size]`
    ///
    /// - `name`: the zone's name. Groups may share a zone.
    /// - `size`: its size, at least 8 pages (32k); one of the groups that share the zone states it.
    ///
    /// Effect: all workers know of a failed server at once, and limits such as `max_conns` hold for all workers
    /// together. Without a zone each worker counts for itself. On a reload a server whose address stays keeps its
    /// state.
    ///
    /// Cost: the zone's memory, and a lock in it each time a server is chosen.
    ///
    /// ```nginx
    /// zone backend 64k;
    /// server 127.0.0.1:8080 max_conns=100;
    /// ```
    "zone" in P::PLACES.upstream, Args::between(1, 2), default none,
        block(zone::<P>);
}

conf::table! {
    /// Idle connections.
    pub struct KeepaliveBlock of P: Proto, raw KeepaliveBlockRaw,
        at P::tables().upstream_keepalive, block P::PLACES.block, level Level::Main;

    /// Keeps idle connections to the group's servers for further requests.
    ///
    /// Form: `keepalive number [local]`
    ///
    /// - `number`: how many idle connections each worker keeps for the group; 0 keeps none.
    /// - `local`: a connection is used again only by requests of the location that opened it.
    ///
    /// Effect: a request takes an idle connection, if there is one, rather than opening a new one. When there are too
    /// many, those that were used least recently are closed. The number doesn't limit the connections under way.
    ///
    /// Cost: each idle connection takes one of `worker_connections` and keeps a connection of the server open.
    ///
    /// Danger: a server that closes idle connections sooner than `keepalive_timeout` may close one just as a request is
    /// sent on it; set `keepalive_timeout` below the server's time.
    ///
    /// ```nginx
    /// server 127.0.0.1:8080;
    /// keepalive 16;
    /// ```
    "keepalive" in P::PLACES.upstream, Args::between(1, 2), default computed("`keepalive 32 local;`"),
        block(keepalive::<P>);
    /// Limits the number of requests on one connection to a server.
    ///
    /// Form: `keepalive_requests number`
    ///
    /// - `number`: after so many requests the connection is closed.
    ///
    /// Effect: connections are renewed, and with them what servers allocate for each.
    ///
    /// ```nginx
    /// server 127.0.0.1:8080;
    /// keepalive_requests 10000;
    /// ```
    "keepalive_requests" in P::PLACES.upstream, Args::exactly(1), default computed("`keepalive_requests 1000;`"),
        block(keepalive_requests::<P>);
    /// Limits the time for which a connection to a server is used.
    ///
    /// Form: `keepalive_time time`
    ///
    /// - `time`: counted from the connection's opening.
    ///
    /// Effect: a connection that is older is closed after its current request.
    ///
    /// ```nginx
    /// server 127.0.0.1:8080;
    /// keepalive_time 10m;
    /// ```
    "keepalive_time" in P::PLACES.upstream, Args::exactly(1), default computed("`keepalive_time 1h;`"),
        block(keepalive_time::<P>);
    /// Limits the time for which a connection to a server stays idle.
    ///
    /// Form: `keepalive_timeout time`
    ///
    /// - `time`: counted from the last request.
    ///
    /// Effect: a connection that is idle for longer is closed.
    ///
    /// Danger: see `keepalive`: a time longer than the server's own leads to failed requests.
    ///
    /// ```nginx
    /// server 127.0.0.1:8080;
    /// keepalive_timeout 30s;
    /// ```
    "keepalive_timeout" in P::PLACES.upstream, Args::exactly(1), default computed("`keepalive_timeout 60s;`"),
        block(keepalive_timeout::<P>);
}

conf::table! {
    /// The server with the fewest connections.
    pub struct LeastConnBlock of P: Proto, raw LeastConnBlockRaw,
        at P::tables().upstream_least_conn, block P::PLACES.block, level Level::Main;

    /// Selects the server with the fewest connections in relation to its weight.
    ///
    /// Effect: servers that answer slowly get fewer requests. Among equals the choice is made in turn, by weight.
    ///
    /// Cost: all servers are compared for each request.
    ///
    /// Danger: without a `zone` each worker counts only its own connections. A server that fails fast looks idle: keep
    /// `max_fails` above 0.
    ///
    /// ```nginx
    /// least_conn;
    /// server 127.0.0.1:8080;
    /// server 127.0.0.1:8081;
    /// ```
    "least_conn" in P::PLACES.upstream, Args::exactly(0), default none,
        block(|loader: &mut Loader<'_>, d: &Directive| balance::<P>(loader, d, Method::LeastConn));
}

conf::table! {
    /// The server that answers soonest.
    pub struct LeastTimeBlock of P: Proto, raw LeastTimeBlockRaw,
        at P::tables().upstream_least_time, block P::PLACES.block, level Level::Main;

    /// Selects the server with the shortest average response time and the fewest connections, in relation to its
    /// weight.
    ///
    /// Form: `least_time header | last_byte [inflight]`
    ///
    /// - `header`: the time until the response's head is there. Where responses have no heads, `first_byte` and
    ///   `connect` stand in its place.
    /// - `last_byte`: the time until the response is complete.
    /// - `inflight`: requests count that already take longer than the average.
    ///
    /// Effect: what is compared is the average time, in steps of 20 ms, times the number of connections and one more,
    /// divided by the weight. Among equals the choice is made in turn, by weight. A new response counts for a twentieth
    /// of the average. The average of a server without requests is halved in each `fail_timeout`, so that one that was
    /// slow is tried again.
    ///
    /// Cost: all servers are compared for each request.
    ///
    /// Danger: without a `zone` each worker counts only its own connections and times. A server that fails fast looks
    /// fast: keep `max_fails` above 0.
    ///
    /// ```nginx http
    /// least_time header;
    /// server 127.0.0.1:8080;
    /// server 127.0.0.1:8081;
    /// ```
    ///
    /// ```nginx stream
    /// least_time first_byte;
    /// server 127.0.0.1:8080;
    /// server 127.0.0.1:8081;
    /// ```
    "least_time" in P::PLACES.upstream, Args::between(1, 2), default none,
        block(least_time::<P>);
}

fn least_time<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let word = d.arg(0);
    let Some(moment) = moment::<P>(&word.text) else { return Err(conf::values::invalid_value(word)) };
    let inflight = match d.args.get(1) {
        None => false,
        Some(word) if *word == "inflight" => true,
        Some(word) => return Err(conf::values::invalid_parameter(word)),
    };
    if matches!(current::<P>(loader).method, Method::LeastTime(_)) {
        return Err(conf::table::duplicate(d));
    }
    balance::<P>(loader, d, Method::LeastTime(Time { moment, inflight }))
}

/// Which time the word of a protocol means.
fn moment<P: Proto>(word: &[u8]) -> Option<Moment> {
    match word {
        b"last_byte" => Some(Moment::LastByte),
        b"header" if P::HAS_HEADS => Some(Moment::FirstByte),
        b"first_byte" if !P::HAS_HEADS => Some(Moment::FirstByte),
        b"connect" if !P::HAS_HEADS => Some(Moment::Connected),
        _ => None,
    }
}

conf::table! {
    /// The server that the client's address says.
    pub struct IpHashBlock of P: Proto, raw IpHashBlockRaw,
        at P::tables().upstream_ip_hash, block P::PLACES.block, level Level::Main;

    /// Selects the server by the client's address.
    ///
    /// Effect: a client keeps its server as long as that is available. Of IPv4 addresses the first three bytes count,
    /// of IPv6 addresses all.
    ///
    /// Danger: clients behind one proxy or network share a server, so that the load may be uneven. Mark a server `down`
    /// rather than removing it: else most clients get another one.
    ///
    /// ```nginx
    /// ip_hash;
    /// server 127.0.0.1:8080;
    /// server 127.0.0.1:8081;
    /// ```
    "ip_hash" in P::PLACES.upstream, Args::exactly(0), default none,
        block(|loader: &mut Loader<'_>, d: &Directive| balance::<P>(loader, d, Method::IpHash));
}

conf::table! {
    /// The server that a key says.
    pub struct HashBlock of P: Proto, raw HashBlockRaw,
        at P::tables().upstream_hash, block P::PLACES.block, level Level::Main;

    /// Selects the server by a key.
    ///
    /// Form: `hash key [consistent]`
    ///
    /// - `key`: a text with variables.
    /// - `consistent`: if servers are added or removed, most keys keep their server (ketama); without it most get
    ///   another one.
    ///
    /// Effect: requests with the same key are passed to the same server as long as it is available.
    ///
    /// Cost: `consistent` takes a table of 160 points for each server and unit of weight.
    ///
    /// Danger: a key that is frequent loads one server.
    ///
    /// ```nginx http
    /// hash $request_uri consistent;
    /// server 127.0.0.1:8080;
    /// server 127.0.0.1:8081;
    /// ```
    ///
    /// ```nginx stream
    /// hash $remote_addr consistent;
    /// server 127.0.0.1:5432;
    /// server 127.0.0.1:5433;
    /// ```
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

    /// Selects a server at random, in proportion to the weights.
    ///
    /// Form: `random [two [least_conn | least_time=time]]`
    ///
    /// - `two`: two servers are picked, and the better one is taken.
    /// - `least_conn`: the better one is that with the fewest connections in relation to its weight; the default.
    /// - `least_time=time`: the better one is that which `least_time` would choose; the time is `header` or `last_byte`.
    ///
    /// Effect: requests are spread without any memory of earlier choices; `random two` avoids busy servers at little
    /// cost where several machines share the same backends.
    ///
    /// ```nginx
    /// random two least_conn;
    /// server 127.0.0.1:8080;
    /// server 127.0.0.1:8081;
    /// ```
    "random" in P::PLACES.upstream, Args::between(0, 2), default none,
        block(random::<P>);
}

fn random<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let invalid = conf::values::invalid_parameter;
    let two = match d.args.as_slice() {
        [] => None,
        [two, ..] if *two != "two" => return Err(invalid(two)),
        [_] => Some(Measure::Connections),
        [_, word, ..] if *word == "least_conn" => Some(Measure::Connections),
        [_, word, ..] => {
            let time = word.text.strip_prefix(b"least_time=").and_then(moment::<P>).ok_or_else(|| invalid(word))?;
            Some(Measure::Time(Time { moment: time, inflight: false }))
        }
    };
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
    let Some(Open { spec, seen }) = specs.current.take() else { return Ok(()) };
    let changes = spec.servers.iter().any(|server| server.lookup.as_ref().is_some_and(|lookup| !lookup.late));
    if changes && spec.zone.is_none() && !failed {
        let of = d.arg(0).lossy();
        let place = loader.sources.place(d.span());
        let what = format!("resolving names at run time requires upstream \"{of}\"{place} to be in shared memory");
        return Err(Error::new(what).caret(d.name.span));
    }
    if seen.contains(&"state") {
        specs.done.push(spec);
        return Ok(());
    }
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
    let mut parameters = d.args.iter().skip(1);
    if !P::HAS_HEADS
        && let Some(word) = parameters.find(|word| word.text.starts_with(b"route=") || **word == "drain")
    {
        // They are for `sticky`.
        return Err(conf::values::invalid_parameter(word));
    }
    let server = ServerSpec::parse(d, P::PORT)?;
    let open = loader.store.entry::<Specs<P>>().current.get_or_insert_default();
    if open.seen.contains(&"state") {
        return Err(Error::on(d, "\"server\" cannot be used along with \"state\""));
    }
    add::<P>(loader, d, server)
}

fn add<P: Proto>(loader: &mut Loader<'_>, d: &Directive, server: ServerSpec) -> Result<()> {
    let specs = loader.store.entry::<Specs<P>>();
    let spec = &mut specs.current.get_or_insert_default().spec;
    for (parameter, is_used) in [("backup", server.backup), ("slow_start", server.slow_start_ms > 0)] {
        if is_used && !spec.allows_backup() {
            return Err(Error::on(d, format!("balancing method does not support parameter \"{parameter}\"")));
        }
    }
    if server.is_late() {
        let error = Error::at(d.arg(0), format!("host not found in upstream \"{}\"", d.arg(0).lossy()));
        specs.late.push((d.clone(), error));
    }
    spec.servers.push(server);
    Ok(())
}

fn state<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    once::<P>(loader, d, "state")?;
    let word = d.arg(0);
    if !current::<P>(loader).servers.is_empty() {
        return Err(Error::on(d, "\"state\" cannot be used along with \"server\""));
    }
    let path = conf::values::conf_path(loader, d)?;
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let why = engine::log::Errno(&error);
            return Err(Error::at(word, format!("open() \"{}\" failed{why}", path.display())));
        }
    };
    let in_file = |error: &Error| Error::at(word, format!("{} in \"{}\"", error.message, path.display()));
    let (_, servers, errors) = conf::parse::parse(&path.to_string_lossy(), &text);
    if let Some(error) = errors.first() {
        return Err(in_file(error));
    }
    for server in &servers {
        if server.name != "server" || server.args.is_empty() || server.block.is_some() {
            return Err(in_file(&Error::new(format!("unexpected \"{}\"", server.name.lossy()))));
        }
        let spec = ServerSpec::parse(server, P::PORT).map_err(|error| in_file(&error))?;
        // What is said of it later is said of this directive.
        let stands = Directive { args: server.args.clone(), ..d.clone() };
        add::<P>(loader, &stands, spec).map_err(|error| in_file(&error))?;
    }
    Ok(())
}

fn strict<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    loader.store.entry::<Specs<P>>().strict = conf::values::flag(loader, d)?;
    Ok(())
}

fn resolver<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    once::<P>(loader, d, "resolver")?;
    current::<P>(loader).names.resolver = Some(resolve::servers(loader, d)?);
    Ok(())
}

fn resolver_timeout<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    once::<P>(loader, d, "resolver_timeout")?;
    current::<P>(loader).names.timeout_ms = Some(conf::values::msec(loader, d)?);
    Ok(())
}

fn queue<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    once::<P>(loader, d, "queue")?;
    let word = d.arg(0);
    let most = parse::parse_number(&word.text).filter(|most| *most > 0);
    let most = most.ok_or_else(|| conf::values::invalid_value(word))? as usize;
    let timeout_ms = match d.args.get(1) {
        None => 60_000,
        Some(word) => word
            .text
            .strip_prefix(b"timeout=")
            .and_then(parse::parse_msec)
            .ok_or_else(|| conf::values::invalid_parameter(word))?,
    };
    current::<P>(loader).queue = Some(QueueSpec { most, timeout_ms });
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
