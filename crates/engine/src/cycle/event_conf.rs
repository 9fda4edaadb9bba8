//! `events {}`: how workers wait and accept.

use std::net::IpAddr;
use std::rc::Rc;

use conf::values::{flag, msec, number};
use conf::{Args, Context, Directive, Error, Level, Loader, Registry, Result, Set, Sets};

conf::table! {
    /// The block itself.
    pub struct EventsConf, raw EventsRaw, module "ngx_events_module", level MAIN Main;

    /// How connections are waited for and accepted.
    "events" in Context::MAIN, Args::exactly(0).block(), default none,
        block(parse_events);
}

conf::table! {
    /// How workers wait for events and accept connections.
    pub struct EventConf, raw EventRaw, module "ngx_event_core_module", level EVENTS Main;

    /// How many connections a worker may have open, those to backends included.
    "worker_connections" in Context::EVENTS, Args::exactly(1), default "512",
        scalar(parse_worker_connections) worker_connections: usize = 512;
    /// How events are waited for: `epoll`, `poll`, `select` or `io_uring`.
    "use" in Context::EVENTS, Args::exactly(1), default none,
        scalar(parse_use) method: Option<rt::Driver> = None;
    /// Whether a worker accepts all waiting connections at once.
    "multi_accept" in Context::EVENTS, Args::FLAG, default "off",
        scalar(flag) multi_accept: bool = false;
    /// Whether workers accept in turns.
    "accept_mutex" in Context::EVENTS, Args::FLAG, default "off",
        scalar(flag) accept_mutex: bool = false;
    /// How long a worker waits before it asks again for its turn.
    "accept_mutex_delay" in Context::EVENTS, Args::exactly(1), default "500ms",
        scalar(msec) accept_mutex_delay_ms: u64 = 500;
    /// Logs everything that happens on connections from these addresses.
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

    /// How many events are taken at a time.
    "epoll_events" in Context::EVENTS, Args::exactly(1), default "512",
        scalar(parse_count) epoll_events: usize = 512;
    /// How many file operations of a worker may be under way with `aio`.
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
    /// An address and how many of its bits count.
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

    /// Whether no bit of its address is set that doesn't count.
    fn is_whole(&self) -> bool {
        match *self {
            Network::Unix => true,
            Network::Ip(IpAddr::V4(ip), bits) => ip.to_bits().checked_shl(bits).unwrap_or(0) == 0,
            Network::Ip(IpAddr::V6(ip), bits) => ip.to_bits().checked_shl(bits).unwrap_or(0) == 0,
        }
    }
}

/// The methods of `use`, by name.
pub const METHODS: [(&str, rt::Driver); 5] = [
    ("epoll", rt::Driver::Epoll),
    ("poll", rt::Driver::Poll),
    ("select", rt::Driver::Select),
    ("io_uring", rt::Driver::Uring),
    ("uring", rt::Driver::Uring),
];

/// The method where `use` says nothing.
pub const DEFAULT_METHOD: rt::Driver = rt::Driver::Epoll;

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
