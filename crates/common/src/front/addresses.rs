//! From the servers' `listen` to sockets: addresses with the servers that listen on them, and which socket serves which.

use std::collections::HashMap;
use std::rc::Rc;

use conf::{Error, Loader, Result, Span};
use engine::Listen;
use expr::lookup::Names;
use os::SockAddr;
use os::socket::Kind;

use super::listen::Parameters;
use super::{Front, ListenSpec, Server, ServerName};
use crate::vars::Regex;

/// A listening socket, with all addresses whose connections it brings.
pub struct Socket<P: Front> {
    /// How it is made.
    pub listen: Listen,
    /// The addresses; the wildcard (or only) one last. Where there is more than one, the connection's local address
    /// decides.
    pub addresses: Vec<Rc<Address<P>>>,
}

/// An address with the servers that listen on it.
pub struct Address<P: Front> {
    /// The address.
    pub addr: SockAddr,
    /// The server for clients that name no other one.
    pub default: Rc<P::Server>,
    /// The servers by name; empty if there is only one server, without regexes.
    pub names: Names<Rc<P::Server>>,
    /// The servers with regexes for names, in the order of the file.
    pub regexes: Vec<(Rc<Regex>, Rc<P::Server>)>,
    /// Whether connections begin with the PROXY protocol.
    pub proxy_protocol: bool,
    /// Whether connections speak TLS.
    pub ssl: bool,
    /// What the protocol's own parameters of `listen` say.
    pub own: P::Listen,
}

/// A server that listens.
pub struct Listener<'a, P: Front> {
    /// The server.
    pub server: &'a Rc<P::Server>,
    /// Its addresses.
    pub listens: &'a [ListenSpec<P::Listen>],
    /// Its names.
    pub names: &'a [ServerName],
    /// Where it stands.
    pub place: Span,
}

/// The sockets for all these servers.
pub fn sockets<'a, P: Front>(
    listeners: impl Iterator<Item = Listener<'a, P>>,
    loader: &mut Loader<'_>,
) -> Result<Vec<Socket<P>>> {
    let mut wanted: Vec<Wanted<'_, P>> = Vec::new();
    let mut by_addr: HashMap<(SockAddr, Kind), usize> = HashMap::new();
    for Listener { server, listens, names, place } in listeners {
        for spec in listens {
            let at = *by_addr.entry((spec.addr.clone(), spec.options.kind)).or_insert_with(|| {
                wanted.push(Wanted { spec: spec.clone(), servers: Vec::new(), place });
                wanted.len() - 1
            });
            let is_default = spec.default_server;
            wanted[at].join(spec, Listening { server: server.clone(), names, place, is_default });
        }
    }
    let addresses = wanted.into_iter().map(|wanted| wanted.address(loader)).collect::<Result<Vec<_>>>()?;
    Ok(group(addresses))
}

/// An address, and how its socket is made.
type Specified<P> = (ListenSpec<<P as Front>::Listen>, Rc<Address<P>>);

/// One address while it is put together.
struct Wanted<'a, P: Front> {
    spec: ListenSpec<P::Listen>,
    servers: Vec<Listening<'a, P>>,
    place: Span,
}

/// A server on one address.
struct Listening<'a, P: Front> {
    server: Rc<P::Server>,
    names: &'a [ServerName],
    place: Span,
    is_default: bool,
}

impl<'a, P: Front> Wanted<'a, P> {
    /// Two servers that contradict each other about an address were found when they were read.
    fn join(&mut self, spec: &ListenSpec<P::Listen>, listening: Listening<'a, P>) {
        let (proxy_protocol, ssl) = (self.spec.proxy_protocol, self.spec.ssl);
        if spec.set && !self.servers.is_empty() {
            let own = self.spec.own.clone();
            self.spec = ListenSpec { own, ..spec.clone() };
        }
        self.spec.proxy_protocol = proxy_protocol || spec.proxy_protocol;
        self.spec.ssl = ssl || spec.ssl;
        self.spec.own.join(&spec.own);
        self.servers.push(listening);
    }

    fn address(self, loader: &mut Loader<'_>) -> Result<Specified<P>> {
        let default = self.servers.iter().find(|listening| listening.is_default).or(self.servers.first());
        let default = default.ok_or_else(|| Error { span: Some(self.place), ..Error::new("no servers") })?;
        let place = default.place;
        let default = default.server.clone();
        if self.spec.ssl && default.tls().is_none() {
            return Err(no_certificate(place));
        }
        // Where the default server has no certificate either, no other one stands in for a server's own.
        if self.spec.ssl && !default.has_certificate() {
            let without = self.servers.iter().find(|listening| listening.server.tls().is_none());
            if let Some(listening) = without {
                return Err(no_certificate(listening.place));
            }
        }
        let mut address = Address {
            addr: self.spec.addr.clone(),
            default,
            names: Names::new(),
            regexes: Vec::new(),
            proxy_protocol: self.spec.proxy_protocol,
            ssl: self.spec.ssl,
            own: self.spec.own.clone(),
        };
        // Names choose among servers; they also keep a server's own regexes, with their captures, from what they match.
        let mut names = self.servers.iter().flat_map(|listening| listening.names);
        let matter = self.servers.len() > 1 || names.any(|name| name.regex.is_some());
        for Listening { server, names, .. } in &self.servers {
            let unnamed = [ServerName { text: Rc::from(&b""[..]), regex: None }];
            for name in if names.is_empty() { &unnamed[..] } else { names } {
                if let Some(regex) = &name.regex {
                    address.regexes.push((regex.clone(), server.clone()));
                } else if matter && address.names.add(&name.text, server.clone()).is_err() {
                    let shown = String::from_utf8_lossy(&name.text);
                    let message = format!("conflicting server name \"{shown}\" on {}, ignored", self.spec.addr);
                    loader.warnings.push(Error::new(message));
                }
            }
        }
        address.names.shrink();
        Ok((self.spec, Rc::new(address)))
    }
}

fn no_certificate(server: Span) -> Error {
    let error = Error::place(server, "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive");
    error.hint("this server needs \"ssl_certificate\" and \"ssl_certificate_key\"")
}

/// Addresses without options of their own are served by the wildcard socket of their port.
fn group<P: Front>(addresses: Vec<Specified<P>>) -> Vec<Socket<P>> {
    let mut wildcards: HashMap<(bool, u16, Kind), usize> = HashMap::new();
    let mut sockets: Vec<Socket<P>> = Vec::new();
    let key =
        |spec: &ListenSpec<P::Listen>| (matches!(spec.addr, SockAddr::V6(_)), spec.addr.port(), spec.options.kind);
    let mut rest = Vec::new();
    for (spec, address) in addresses {
        if spec.addr.is_wildcard() {
            wildcards.insert(key(&spec), sockets.len());
        } else if !spec.bind && !spec.addr.is_unix() {
            rest.push((spec, address));
            continue;
        }
        sockets.push(Socket::of(spec, address));
    }
    for (spec, address) in rest {
        match wildcards.get(&key(&spec)) {
            Some(&at) => sockets[at].addresses.insert(0, address),
            None => sockets.push(Socket::of(spec, address)),
        }
    }
    sockets
}

impl<P: Front> Socket<P> {
    fn of(spec: ListenSpec<P::Listen>, address: Rc<Address<P>>) -> Socket<P> {
        Socket { listen: Listen { addr: spec.addr, options: spec.options }, addresses: vec![address] }
    }

    /// The address of a connection whose local address is given by `local`, asked only if it matters.
    pub fn address(&self, local: impl FnOnce() -> Option<SockAddr>) -> Rc<Address<P>> {
        let last = self.addresses.last().expect("a socket has an address");
        if self.addresses.len() == 1 {
            return last.clone();
        }
        let Some(local) = local() else { return last.clone() };
        self.addresses.iter().find(|address| is_at(&address.addr, &local)).unwrap_or(last).clone()
    }
}

/// The address of a connection (or datagram) that came by `listen`; if nobody listens there any more, the one that listens
/// on its local address.
pub fn find<P: Front>(
    sockets: &[Socket<P>],
    kind: Kind,
    listen: &SockAddr,
    local: impl FnOnce() -> Option<SockAddr>,
) -> Option<Rc<Address<P>>> {
    let alike = || sockets.iter().filter(|socket| socket.listen.options.kind == kind);
    let all = || alike().flat_map(|socket| &socket.addresses);
    if let Some(same) = all().find(|address| address.addr == *listen) {
        return Some(same.clone());
    }
    let local = local().filter(|local| !local.is_unix())?;
    let wildcard = |addr: &SockAddr| {
        let same_family = matches!(addr, SockAddr::V6(_)) == matches!(local, SockAddr::V6(_));
        addr.is_wildcard() && same_family && addr.port() == local.port()
    };
    let exact = all().find(|address| is_at(&address.addr, &local));
    exact.or_else(|| all().find(|address| wildcard(&address.addr))).cloned()
}

/// Whether a connection with this local address has come to `addr`. The kernel tells the scope of a link-local one, which
/// `listen` doesn't know.
fn is_at(addr: &SockAddr, local: &SockAddr) -> bool {
    addr.ip() == local.ip() && addr.port() == local.port()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4, SocketAddrV6};

    use super::*;

    #[test]
    fn connections_come_to_addresses_without_their_scope() {
        let v6 = |ip: &str, port, scope| -> SockAddr {
            SockAddr::V6(SocketAddrV6::new(ip.parse().expect("an address"), port, 0, scope))
        };
        let v4 = SockAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80));
        for (addr, local, expect) in [
            (v6("fe80::1", 80, 0), v6("fe80::1", 80, 2), true),
            (v6("fe80::1", 80, 0), v6("fe80::1", 81, 2), false),
            (v6("fe80::1", 80, 0), v6("fe80::2", 80, 2), false),
            (v6("::1", 80, 0), v6("::1", 80, 0), true),
            (v4.clone(), v4.clone(), true),
            (v6("::ffff:127.0.0.1", 80, 0), v4, false),
        ] {
            assert_eq!(is_at(&addr, &local), expect, "{addr} {local}");
        }
    }
}
