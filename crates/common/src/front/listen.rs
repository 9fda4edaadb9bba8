//! The `listen` directive, and what servers may say of one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;

use conf::{Directive, Error, Loader, Result, Span, Word};
use expr::lookup::parse_ipv4;
use os::SockAddr;
use os::socket::{Keepalive, Kind, ListenOptions};

use super::Front;

/// Parameters of `listen` that one protocol has alone.
pub trait Parameters: Clone + Default + 'static {
    /// Reads a parameter; false if it isn't this protocol's.
    fn parameter(&mut self, loader: &mut Loader<'_>, d: &Directive, word: &Word) -> Result<bool>;

    /// Adds what another server says of the same address.
    fn join(&mut self, other: &Self);

    /// Whether it asks for a protocol that only this one knows, beside `ssl` and `proxy_protocol`.
    fn is_protocol(&self) -> bool {
        false
    }
}

/// One address of a server.
#[derive(Clone, Debug)]
pub struct ListenSpec<X> {
    /// The address.
    pub addr: SockAddr,
    /// As written, for messages.
    pub text: String,
    /// Options of the socket.
    pub options: ListenOptions,
    /// Whether an option was given that belongs to the socket: only one server may set them.
    pub set: bool,
    /// Whether the address has a socket of its own beside a wildcard's.
    pub bind: bool,
    /// Whether this server answers where no name fits.
    pub default_server: bool,
    /// Whether connections begin with the PROXY protocol.
    pub proxy_protocol: bool,
    /// Whether connections speak TLS.
    pub ssl: bool,
    /// What the protocol adds.
    pub own: X,
    /// The directive.
    pub place: Span,
}

/// Reads the directive; a name may stand for several addresses.
pub fn parse<P: Front>(loader: &mut Loader<'_>, d: &Directive) -> Result<Vec<ListenSpec<P::Listen>>> {
    let word = d.arg(0);
    let addrs = parse_addr(word, P::PORT)?;
    let mut spec = ListenSpec::<P::Listen>::of(addrs[0].clone());
    (spec.place, spec.text) = (d.span(), word.lossy().into_owned());
    for word in &d.args[1..] {
        if P::DATAGRAMS && *word == "udp" {
            spec.options.kind = Kind::Datagram;
        } else if !spec.own.parameter(loader, d, word)? {
            spec.parameter(word)?;
        }
    }
    spec.check(d)?;
    Ok(addrs.into_iter().map(|addr| ListenSpec { addr, ..spec.clone() }).collect())
}

impl<X> ListenSpec<X> {
    /// What can't be said of a socket of datagrams.
    fn check(&self, d: &Directive) -> Result<()> {
        let options = &self.options;
        let is_connected = [
            ("ssl", self.ssl),
            ("backlog", options.backlog != ListenOptions::default().backlog),
            ("fastopen", options.fastopen.is_some()),
            ("deferred", options.deferred),
            ("so_keepalive", options.so_keepalive.is_some()),
        ];
        let wrong = is_connected.iter().find(|(_, is_set)| *is_set && options.kind == Kind::Datagram);
        match wrong {
            Some((name, _)) => {
                Err(Error::on(d, format!("\"listen\" directive \"{name}\" parameter is incompatible with \"udp\"")))
            }
            None => Ok(()),
        }
    }

    fn parameter(&mut self, word: &Word) -> Result<()> {
        let text = word.lossy();
        let (name, value) = text.split_once('=').map_or((&*text, None), |(name, value)| (name, Some(value)));
        let invalid = || Error::at(word, format!("invalid {name} \"{text}\""));
        let size = |value: &str| buf::parse::parse_size(value.as_bytes()).ok_or_else(invalid);
        let options = &mut self.options;
        match (name, value) {
            ("default_server" | "default", None) => {
                self.default_server = true;
                return Ok(());
            }
            ("proxy_protocol", None) => {
                self.proxy_protocol = true;
                return Ok(());
            }
            ("bind", None) => {}
            ("backlog", Some(value)) => {
                let backlog = buf::parse::parse_number(value.as_bytes()).filter(|number| *number > 0);
                options.backlog = i32::try_from(backlog.ok_or_else(invalid)?).unwrap_or(i32::MAX);
            }
            ("rcvbuf", Some(value)) => options.rcvbuf = Some(size(value)? as u32),
            ("sndbuf", Some(value)) => options.sndbuf = Some(size(value)? as u32),
            ("fastopen", Some(value)) => options.fastopen = Some(value.parse().map_err(|_| invalid())?),
            ("accept_filter", Some(_)) => {
                let message = format!("accept filters \"{text}\" are not supported on this platform, ignored");
                return Err(Error::at(word, message));
            }
            ("setfib", Some(_)) => return Err(Error::at(word, format!("invalid parameter \"{text}\""))),
            ("deferred", None) => options.deferred = true,
            ("reuseport", None) => options.reuseport = true,
            ("ipv6only", Some(value)) => {
                let only = match value {
                    "on" => true,
                    "off" => false,
                    _ => return Err(Error::at(word, format!("invalid parameter \"{text}\""))),
                };
                // It means nothing to an address of another kind.
                if matches!(self.addr, SockAddr::V6(..)) {
                    options.ipv6only = only;
                }
            }
            ("so_keepalive", Some(value)) => {
                options.so_keepalive = Some(
                    parse_keepalive(value)
                        .ok_or_else(|| Error::at(word, format!("invalid so_keepalive value: \"{value}\"")))?,
                );
            }
            ("ssl", None) => {
                self.ssl = true;
                return Ok(());
            }
            _ => return Err(Error::at(word, format!("invalid parameter \"{text}\""))),
        }
        (self.set, self.bind) = (true, true);
        Ok(())
    }
}

/// `on`, `off` or `[idle]:[interval]:[count]`.
fn parse_keepalive(value: &str) -> Option<Option<Keepalive>> {
    match value {
        "on" => return Some(Some(Keepalive::default())),
        "off" => return Some(None),
        _ => {}
    }
    let mut parts = value.split(':');
    let mut next = |time: bool| -> Option<Option<u32>> {
        match parts.next()? {
            "" => Some(None),
            text if time => buf::parse::parse_sec(text.as_bytes()).map(|n| Some(n as u32)),
            text => text.parse().ok().map(Some),
        }
    };
    let (idle, interval, count) = (next(true)?, next(true)?, next(false)?);
    if parts.next().is_some() || (idle.is_none() && interval.is_none() && count.is_none()) {
        return None;
    }
    Some(Some(Keepalive { idle, interval, count }))
}

/// An address as `listen` writes it: `80`, `*:80`, `1.2.3.4`, `[::]:80`, `unix:/path`, `name:80`; a range of ports
/// (`1.2.3.4:80-90`) stands for one address each.
pub(crate) fn parse_addr(word: &Word, default_port: Option<u16>) -> Result<Vec<SockAddr>> {
    let text = word.lossy();
    let fail = |why: &str| Error::at(word, format!("{why} in \"{text}\" of the \"listen\" directive"));
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(fail("no path in the unix domain socket"));
        }
        return SockAddr::unix(&word.text["unix:".len()..]).map(|addr| vec![addr]).map_err(|_| fail("too long path"));
    }
    let (ips, ports) = if let Some(rest) = text.strip_prefix('[') {
        let Some((host, rest)) = rest.split_once(']') else { return Err(fail("invalid host")) };
        if host.is_empty() {
            return Err(fail("no host"));
        }
        let ip: Ipv6Addr = host.parse().map_err(|_| fail("invalid IPv6 address"))?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port),
            None if rest.is_empty() => None,
            None => return Err(fail("invalid host")),
        };
        (vec![IpAddr::V6(ip)], port)
    } else if text.contains(['/', '?']) {
        let error = fail("invalid host");
        return Err(match text.split_once("://") {
            Some(_) => error.hint("it takes an address and a port, without a scheme; \"ssl\" is a parameter"),
            None => error,
        });
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None if is_port(&text) => ("*", Some(&*text)),
            None => (&*text, None),
        };
        if let Some(port) = port {
            parse_ports(port).map_err(fail)?;
        }
        (resolve(host).map_err(fail)?, port)
    };
    let ports = match (ports, default_port) {
        (Some(ports), _) => parse_ports(ports).map_err(fail)?,
        (None, Some(port)) => port..=port,
        (None, None) => return Err(fail("no port")),
    };
    Ok(ips.iter().flat_map(|ip| ports.clone().map(|port| SockAddr::from(SocketAddr::new(*ip, port)))).collect())
}

/// Whether an address without a colon is a port, or a range of them, good or bad.
fn is_port(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && (parse_ports(text) != Err(INVALID_PORT) || text.bytes().all(|b| b.is_ascii_digit()))
}

fn resolve(host: &str) -> std::result::Result<Vec<IpAddr>, &'static str> {
    if host.is_empty() {
        return Err("no host");
    }
    if host == "*" {
        return Ok(vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)]);
    }
    if let Some(ip) = parse_ipv4(host) {
        return Ok(vec![IpAddr::V4(ip)]);
    }
    match (host, 0).to_socket_addrs() {
        Ok(found) => Ok(distinct(found.map(|addr| addr.ip()))),
        Err(_) => Err("host not found"),
    }
}

/// Each address once: a name may have one twice, by two lines of /etc/hosts.
fn distinct(addrs: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for addr in addrs {
        if !all.contains(&addr) {
            all.push(addr);
        }
    }
    all
}

const INVALID_PORT: &str = "invalid port";

/// A port, or a range of ports; else why it is none.
fn parse_ports(text: &str) -> std::result::Result<RangeInclusive<u16>, &'static str> {
    let port = |text: &str| -> Option<u16> {
        let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        if digits { text.parse().ok().filter(|port| *port > 0) } else { None }
    };
    match text.split_once('-') {
        Some((low, high)) => {
            let (low, high) = (port(low).ok_or(INVALID_PORT)?, port(high).ok_or(INVALID_PORT)?);
            if low > high { Err("invalid port range") } else { Ok(low..=high) }
        }
        None => port(text).map(|port| port..=port).ok_or(INVALID_PORT),
    }
}

impl<X: Default> ListenSpec<X> {
    /// An address without options.
    pub fn of(addr: SockAddr) -> ListenSpec<X> {
        ListenSpec {
            text: addr.to_string(),
            addr,
            options: ListenOptions::default(),
            set: false,
            bind: false,
            default_server: false,
            proxy_protocol: false,
            ssl: false,
            own: X::default(),
            place: Span::default(),
        }
    }
}

/// What servers have said of addresses, and where: some of it only one of them may say.
#[derive(Default)]
pub struct Claims(HashMap<(SockAddr, Kind), Claim>);

#[derive(Default)]
struct Claim {
    options: Option<Span>,
    default_server: Option<Span>,
    protocols: Protocols,
}

/// What the servers of an address say of its protocols, as bits. One of them may say more than the others, who then have to
/// agree; nginx warns where they contradict one another.
#[derive(Clone, Copy, Default)]
struct Protocols {
    /// How many servers have spoken.
    servers: u32,
    /// What all have to say.
    common: u8,
    /// Whether one has said more already, or has the options of the socket.
    differ: bool,
}

impl Protocols {
    /// Adds a server's; `sets` and `set_before`: it, or one before it, has options of the socket. Whether it contradicts the
    /// others.
    fn add(&mut self, own: u8, sets: bool, set_before: bool) -> bool {
        let has = |all: u8, part: u8| part & !all == 0;
        let known = self.common;
        self.servers += 1;
        match self.servers {
            1 => {
                self.common = own;
                false
            }
            _ if self.differ => {
                self.common = own;
                own != known || sets
            }
            2 => {
                self.differ = sets || set_before || own != known;
                if has(known, own) {
                    self.common = own;
                }
                match (set_before, sets) {
                    (true, _) => !has(known, own),
                    (_, true) => !has(own, known),
                    _ => !has(known, own) && !has(own, known),
                }
            }
            _ => {
                self.differ = sets || own != known;
                !has(own, known)
            }
        }
    }
}

impl Claims {
    /// Takes note of an address of a server that listens on `others` already; the error is about what can't be said of it
    /// any more.
    pub fn add<X: Parameters>(
        &mut self,
        spec: &ListenSpec<X>,
        others: &[ListenSpec<X>],
        loader: &mut Loader<'_>,
        d: &Directive,
    ) -> Result<()> {
        let addr = &spec.addr;
        let kind = spec.options.kind;
        let claim = self.0.entry((addr.clone(), kind)).or_default();
        let twice = |message: String, first: Span| Err(Error::on(d, message).hint(loader.stands_first(first)));
        if let Some(other) = others.iter().find(|other| other.addr == *addr && other.options.kind == kind) {
            return twice(format!("a duplicate listen {addr}"), other.place);
        }
        if let (true, Some(first)) = (spec.set, claim.options) {
            return twice(format!("duplicate listen options for {addr}"), first);
        }
        if let (true, Some(first)) = (spec.default_server, claim.default_server) {
            return twice(format!("a duplicate default server for {addr}"), first);
        }
        let own = u8::from(spec.ssl) | u8::from(spec.proxy_protocol) << 1 | u8::from(spec.own.is_protocol()) << 2;
        if claim.protocols.add(own, spec.set, claim.options.is_some()) {
            loader.warn(d, Error::on(d, format!("protocol options redefined for {addr}")));
        }
        claim.options = claim.options.or(spec.set.then_some(spec.place));
        claim.default_server = claim.default_server.or(spec.default_server.then_some(spec.place));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What nginx says to servers of one address: `s` is `ssl`, `p` is `proxy_protocol`, `b` is `bind`.
    #[test]
    fn protocols_that_contradict() {
        for (servers, warned) in [
            ("s -", ""),
            ("- s", ""),
            ("s sp", ""),
            ("sp s", ""),
            ("s p", "1"),
            ("s b", "1"),
            ("s sb", ""),
            ("b s", "1"),
            ("sb s", ""),
            ("sb p", "1"),
            ("- b", ""),
            ("- sb", ""),
            ("sp sb", "1"),
            ("s s s", ""),
            ("s s -", "2"),
            ("s s sp", ""),
            ("s s b", "2"),
            ("- - s", ""),
            ("- s -", ""),
            ("- s s", "2"),
            ("s - s", "2"),
            ("s - -", ""),
            ("s - b", "2"),
            ("sp s s", ""),
            ("s p s", "1"),
            ("sb s -", "2"),
            ("s p p", "12"),
        ] {
            let (mut protocols, mut set, mut found) = (Protocols::default(), false, String::new());
            for (n, server) in servers.split(' ').enumerate() {
                let own = u8::from(server.contains('s')) | u8::from(server.contains('p')) << 1;
                if protocols.add(own, server.contains('b'), set) {
                    found.push_str(&n.to_string());
                }
                set |= server.contains('b');
            }
            assert_eq!(found, warned, "{servers}");
        }
    }

    #[test]
    fn addresses_of_a_name_are_taken_once() {
        let found = ["127.0.0.2", "::1", "127.0.0.2", "127.0.0.1", "::1"].map(|text| text.parse().expect("an address"));
        let texts: Vec<_> = distinct(found.into_iter()).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["127.0.0.2", "::1", "127.0.0.1"]);
    }

    #[test]
    fn addresses() {
        let check_with = |port: Option<u16>, text: &str, expect: &str| {
            let word = Word { text: text.as_bytes().to_vec(), ..Word::default() };
            let found = parse_addr(&word, port)
                .map(|addrs| addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
            assert_eq!(found.unwrap_or_else(|error| error.message), expect, "{text}");
        };
        let check = |text: &str, expect: &str| check_with(Some(80), text, expect);
        check("80", "0.0.0.0:80");
        check("*:8080", "0.0.0.0:8080");
        check("127.0.0.1", "127.0.0.1:80");
        check("127.0.0.1:81-83", "127.0.0.1:81 127.0.0.1:82 127.0.0.1:83");
        check("[::1]:8080-8081", "[::1]:8080 [::1]:8081");
        check("[::]", "[::]:80");
        check("unix:/a", "unix:/a");
        check("127.0.0.1:0", "invalid port in \"127.0.0.1:0\" of the \"listen\" directive");
        check("127.0.0.1:82-81", "invalid port range in \"127.0.0.1:82-81\" of the \"listen\" directive");
        check("[]", "no host in \"[]\" of the \"listen\" directive");
        check_with(None, "127.0.0.1:1", "127.0.0.1:1");
        check_with(None, "127.0.0.1", "no port in \"127.0.0.1\" of the \"listen\" directive");
        check(":80", "no host in \":80\" of the \"listen\" directive");
    }
}
