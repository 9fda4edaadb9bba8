//! `events {}`: how workers wait and accept.

use std::net::IpAddr;
use std::rc::Rc;

use conf::values::{flag, msec, number};
use conf::{Args, Context, Directive, Error, Level, Loader, Registry, Result, Set, Sets};

conf::table! {
    /// The block itself.
    pub struct EventsConf, raw EventsRaw, module "ngx_events_module", level MAIN Main;

    /// Contains the directives about waiting for events and accepting connections.
    ///
    /// Effect: its settings hold for all workers. The block must be there once, even if it is empty.
    ///
    /// ```nginx
    /// events {
    ///     worker_connections 4096;
    /// }
    /// ```
    "events" in Context::MAIN, Args::exactly(0).block(), default none,
        block(parse_events);
}

conf::table! {
    /// How workers wait for events and accept connections.
    pub struct EventConf, raw EventRaw, module "ngx_event_core_module", level EVENTS Main;

    /// Sets how many connections a worker may have open.
    ///
    /// Form: `worker_connections number`
    ///
    /// - `number`: up to 4 million. Connections to backends count too.
    ///
    /// Effect: if none is free, idle connections of clients are closed to make room; then new clients wait, and the
    /// error log says so.
    ///
    /// Cost: a small place in memory for each, used or not, and a file descriptor for each open one: see
    /// `worker_rlimit_nofile`.
    ///
    /// Danger: a proxied request takes two connections: with too few, clients are turned away.
    ///
    /// ```nginx
    /// events {
    ///     worker_connections 8192;
    /// }
    /// ```
    "worker_connections" in Context::EVENTS, Args::exactly(1), default "512",
        scalar(parse_worker_connections) worker_connections: usize = 512;
    /// Selects the method of waiting for events.
    ///
    /// Form: `use method`
    ///
    /// - `epoll`: the default.
    /// - `io_uring`: operations are given to the kernel in batches; it needs a kernel that has it and allows it.
    /// - `poll`, `select`: for tests and comparisons.
    ///
    /// Effect: all workers use it. A method that the system refuses is an error at the start.
    ///
    /// Cost: `poll` and `select` look at every connection for each event: they are slow with many connections.
    ///
    /// ```nginx
    /// events {
    ///     use epoll;
    /// }
    /// ```
    "use" in Context::EVENTS, Args::exactly(1), default none,
        scalar(parse_use) method: Option<rt::Driver> = None;
    /// Accepts all waiting connections at a time if it is `on`. With `off` a worker accepts one at a time.
    ///
    /// Effect: fewer rounds of the event loop when many connections arrive at once.
    ///
    /// Danger: one worker may take them all while the others are idle.
    ///
    /// ```nginx
    /// events {
    ///     multi_accept on;
    /// }
    /// ```
    "multi_accept" in Context::EVENTS, Args::FLAG, default "off",
        scalar(flag) multi_accept: bool = false;
    /// Has workers accept connections in turn if it is `on`. With `off` the kernel wakes one of the waiting workers for
    /// each connection.
    ///
    /// Effect: none with one worker. Sockets with `reuseport` don't need it.
    ///
    /// Cost: with `on`, an attempt to take a lock in shared memory in each round of the event loop, and a delay of up
    /// to `accept_mutex_delay` if the worker whose turn it is doesn't pass it on.
    ///
    /// ```nginx
    /// events {
    ///     accept_mutex on;
    /// }
    /// ```
    "accept_mutex" in Context::EVENTS, Args::FLAG, default "off",
        scalar(flag) accept_mutex: bool = false;
    /// Sets how long a worker waits before it tries again to get its turn to accept connections.
    ///
    /// Form: `accept_mutex_delay time`
    ///
    /// - `time`: the longest time between two attempts.
    ///
    /// Effect: it holds with `accept_mutex on`. It is also how long a worker stops accepting after it has run out of
    /// file descriptors.
    ///
    /// ```nginx
    /// events {
    ///     accept_mutex on;
    ///     accept_mutex_delay 100ms;
    /// }
    /// ```
    "accept_mutex_delay" in Context::EVENTS, Args::exactly(1), default "500ms",
        scalar(msec) accept_mutex_delay_ms: u64 = 500;
    /// Logs everything about connections from certain addresses, as with `error_log ... debug`.
    ///
    /// Form: `debug_connection address | network | unix:`
    ///
    /// - `address`: an IP address, or a host name, which is resolved at the start.
    /// - `network`: such as `192.0.2.0/24` or `2001:db8::/32`.
    /// - `unix:`: all connections over unix sockets.
    ///
    /// Effect: other connections are logged at the level that `error_log` sets. The directive may be repeated.
    ///
    /// Cost: many lines in the error log for each request.
    ///
    /// Danger: these lines contain what clients send.
    ///
    /// ```nginx
    /// events {
    ///     debug_connection 192.0.2.0/24;
    ///     debug_connection ::1;
    /// }
    /// ```
    "debug_connection" in Context::EVENTS, Args::exactly(1), default none,
        set(parse_debug_connection) debug_connection: Rc<[Network]> = Rc::new([]);
}

impl EventConf {
    /// Whether connections from this address are logged in all detail (`debug_connection`).
    pub fn debugs(&self, peer: &os::SockAddr) -> bool {
        self.debug_connection.iter().any(|network| network.contains(peer))
    }
}

conf::table! {
    /// Settings of `use epoll`.
    pub struct EpollConf, raw EpollRaw, module "ngx_epoll_module", level EVENTS Main;

    /// Accepted for compatibility: the number of events that are taken from the kernel at a time isn't a setting here.
    "epoll_events" in Context::EVENTS, Args::exactly(1), default "512",
        scalar(parse_count) epoll_events: usize = 512;
    /// Accepted for compatibility: files aren't read with the kernel's asynchronous operations, whose number it limits;
    /// see `aio threads`.
    "worker_aio_requests" in Context::EVENTS, Args::exactly(1), default "32",
        scalar(parse_count) worker_aio_requests: usize = 32;
}

/// Registers the tables of this file.
pub fn tables(registry: &mut Registry) {
    registry.add::<EventsConf>();
    registry.add::<EventConf>();
    registry.add::<EpollConf>();
}

/// The configurations of `events {}`, left in the loader's store by the block.
#[derive(Default)]
pub struct Events(pub Option<Set>);

/// Addresses with a common prefix, or all unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// An address and the length of the prefix in bits.
    Ip(IpAddr, u32),
    /// Every unix socket.
    Unix,
}

impl Network {
    /// Whether the address is in it.
    pub fn contains(&self, addr: &os::SockAddr) -> bool {
        match (*self, addr.ip()) {
            (Network::Unix, None) => true,
            (Network::Ip(IpAddr::V4(net), bits), Some(IpAddr::V4(ip))) => {
                (net.to_bits() ^ ip.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
            }
            (Network::Ip(IpAddr::V6(net), bits), Some(IpAddr::V6(ip))) => {
                (net.to_bits() ^ ip.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// Parses `192.0.2.0/24`, `2001:db8::/32`, an address, or `unix:`.
    pub fn parse(text: &str) -> Option<Network> {
        if text == "unix:" {
            return Some(Network::Unix);
        }
        let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let ip: IpAddr = ip.parse().ok()?;
        let width = if ip.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(width), |bits| bits.parse().ok().filter(|&bits| bits <= width))?;
        Some(Network::Ip(ip, bits))
    }

    /// Whether the address has no bits set after the prefix.
    fn is_whole(&self) -> bool {
        match *self {
            Network::Unix => true,
            Network::Ip(IpAddr::V4(ip), bits) => ip.to_bits().checked_shl(bits).unwrap_or(0) == 0,
            Network::Ip(IpAddr::V6(ip), bits) => ip.to_bits().checked_shl(bits).unwrap_or(0) == 0,
        }
    }
}

/// The methods of `use`, by name.
pub(crate) const METHODS: [(&str, rt::Driver); 5] = [
    ("epoll", rt::Driver::Epoll),
    ("poll", rt::Driver::Poll),
    ("select", rt::Driver::Select),
    ("io_uring", rt::Driver::Uring),
    ("uring", rt::Driver::Uring),
];

/// The method if `use` isn't set.
pub(crate) const DEFAULT_METHOD: rt::Driver = rt::Driver::Epoll;

fn parse_events(loader: &mut Loader<'_>, directive: &Directive) -> Result<()> {
    if loader.store.entry::<Events>().0.is_some() {
        return Err(conf::table::duplicate(directive));
    }
    let frame = loader.frame().nested(Level::Main);
    loader.block(directive.block.as_deref().unwrap_or_default(), Context::EVENTS, frame.clone());
    let mut raw = frame.levels[Level::Main as usize].borrow_mut();
    let set = Sets::resolve(Context::EVENTS, Level::Main, &mut raw, None, loader)?;
    loader.store.entry::<Events>().0 = Some(set);
    Ok(())
}

fn parse_worker_connections(loader: &mut Loader<'_>, directive: &Directive) -> Result<usize> {
    let word = directive.arg(0);
    number(loader, directive).map_err(|_| Error::at(word, format!("invalid number \"{}\"", word.lossy())))
}

fn parse_count(loader: &mut Loader<'_>, directive: &Directive) -> Result<usize> {
    number(loader, directive)
}

fn parse_use(_: &mut Loader<'_>, directive: &Directive) -> Result<Option<rt::Driver>> {
    let word = directive.arg(0);
    let found = METHODS.iter().find(|(name, _)| word == name);
    found.map(|&(_, driver)| Some(driver)).ok_or_else(|| {
        Error::at(word, format!("invalid event type \"{}\"", word.lossy()))
            .hint("the methods are epoll, poll, select and io_uring")
    })
}

fn parse_debug_connection(raw: &mut EventRaw, loader: &mut Loader<'_>, directive: &Directive) -> Result<()> {
    use std::net::ToSocketAddrs;
    let text = directive.arg(0).lossy();
    let found: Vec<Network> = match Network::parse(&text) {
        Some(network) => {
            if !network.is_whole() {
                let message = format!("low address bits of {text} are meaningless");
                loader.warn(directive, Error::at(directive.arg(0), message));
            }
            vec![network]
        }
        None if text.contains('/') => Vec::new(),
        None => {
            let found = (&*text, 0).to_socket_addrs().into_iter().flatten();
            found.map(|addr| Network::Ip(addr.ip(), if addr.is_ipv4() { 32 } else { 128 })).collect()
        }
    };
    if found.is_empty() {
        return Err(Error::on(directive, format!("host not found in debug_connection \"{text}\"")));
    }
    let old = raw.debug_connection.take().unwrap_or_else(|| Rc::new([]));
    raw.debug_connection = Some(old.iter().copied().chain(found).collect());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let addr = |text: &str| match text.parse().expect("an address") {
            std::net::SocketAddr::V4(addr) => os::SockAddr::V4(addr),
            std::net::SocketAddr::V6(addr) => os::SockAddr::V6(addr),
        };
        for (network, address, expect) in [
            ("127.0.0.0/8", "127.1.2.3:80", true),
            ("127.0.0.0/8", "128.1.2.3:80", false),
            ("0.0.0.0/0", "128.1.2.3:80", true),
            ("::1", "[::1]:80", true),
            ("::/0", "[::1]:80", true),
            ("::1", "127.0.0.1:80", false),
        ] {
            let network = Network::parse(network).expect("a network");
            assert_eq!(network.contains(&addr(address)), expect, "{network:?} {address}");
        }
        assert_eq!(Network::parse("1.2.3.4/50"), None);
    }
}
