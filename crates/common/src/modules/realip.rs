//! `set_real_ip_from`: proxies that are trusted to name the client whose connection they pass on.
//!
//! Here is what protocols have in common: the addresses that are trusted, reading the client's address from lists
//! (`X-Forwarded-For`), and taking it from the PROXY protocol's header. HTTP's own module chooses the field.

use std::marker::PhantomData;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use conf::{Args, Directive, Error, Loader, Registry, Result, Set, Word};
use expr::lookup::{Network, Networks};
use expr::vars::Flags;
use os::SockAddr;
use smallvec::SmallVec;
use upstream::Url;

use super::access::checked_network;
use super::{Check, Module, Phases, Verdict};
use crate::vars::text::{address, number};
use crate::vars::{Getter, Setup};
use crate::{Facts, Proto, Session};

/// The module, for protocols in which only the PROXY protocol names clients.
pub struct Realip;

conf::table! {
    /// Who is trusted.
    pub struct RealipConf of P: Proto, raw RealipRaw,
        at P::tables().realip, block P::PLACES.block, level P::PLACES.innermost;

    /// Trusts proxies at an address to name the client whose connection they pass on.
    ///
    /// Form: `set_real_ip_from address | network | name | unix:`
    ///
    /// - `address`, `network`: an IP address, or a network such as `192.0.2.0/24` or `2001:db8::/32`.
    /// - `name`: a host name; all its addresses at the time of the start.
    /// - `unix:`: all clients over unix sockets.
    ///
    /// Effect: the address that the proxy names takes the place of its own everywhere: in `$remote_addr`, in rules of
    /// access, in limits, in logs. `$realip_remote_addr` keeps the proxy's. In HTTP `real_ip_header` says where the
    /// address is found; it is replaced before the rewrite rules of the server, where the server trusts the proxy, else
    /// before the limits of the location. The directive may be repeated. A level that has any doesn't inherit those of
    /// the level around it.
    ///
    /// Danger: whoever connects from a trusted address can pretend to be any client. Trust proxies of your own only, and
    /// see to it that they set the field.
    ///
    /// ```nginx
    /// set_real_ip_from 192.0.2.0/24;
    /// set_real_ip_from 2001:db8::/32;
    /// ```
    "set_real_ip_from" in P::PLACES.everywhere, Args::exactly(1), default none,
        list(parse) set_real_ip_from: Proxies;
    derived {
        /// Whoever is trusted, ready to be asked; none if nobody is.
        trusted: Option<Rc<Trusted>> = None;
    }
    finish(finish)
}

fn finish<P: Proto>(conf: &mut RealipConf<P>, parent: Option<&RealipConf<P>>, _: &mut Loader<'_>) -> Result<()> {
    // A level that inherits its list has the outer one's table too.
    if !parent.is_some_and(|parent| Rc::ptr_eq(&parent.set_real_ip_from, &conf.set_real_ip_from)) {
        conf.trusted = Trusted::new(&conf.set_real_ip_from).map(Rc::new);
    }
    Ok(())
}

impl<P: Proto> Module<P> for Realip {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<RealipConf<P>>();
    }

    fn variables(&self, setup: &mut Setup<P>) {
        let module = P::tables().realip.module();
        crate::variables! { setup, module;
            /// The address from which the connection comes: the proxy's, where `$remote_addr` is the one that a trusted
            /// proxy has named.
            "realip_remote_addr", Flags::NONE, Getter::<P>::Plain(|s, out| address(out, s.relay().unwrap_or(s.peer())));
            /// The port of `$realip_remote_addr`. Empty on a unix socket.
            "realip_remote_port", Flags::NONE, Getter::<P>::Plain(|s, out| {
                let port = s.relay().unwrap_or(s.peer()).port();
                port == 0 || number(out, port.into())
            });
        }
    }

    fn phases(&self, set: &Set, _: &mut Loader<'_>, out: &mut impl Phases<P>) -> Result<()> {
        if let Some(trusted) = &set.get::<RealipConf<P>>().trusted {
            out.post_read(FromProxy(trusted.clone(), PhantomData));
        }
        Ok(())
    }
}

/// Takes the client's address from the PROXY protocol's header.
pub struct FromProxy<P>(Rc<Trusted>, PhantomData<P>);

impl<P: Proto> FromProxy<P> {
    /// For connections of proxies that are trusted.
    pub fn new(trusted: Rc<Trusted>) -> FromProxy<P> {
        FromProxy(trusted, PhantomData)
    }
}

impl<P: Proto> Check<P> for FromProxy<P> {
    fn check(&self, session: &mut P::Session) -> Verdict {
        if session.relay().is_none()
            && self.0.holds(session.peer())
            && let Some(client) = session.proxy().map(|header| header.source.clone())
        {
            session.replace_peer(client);
        }
        Verdict::Next
    }
}

/// What one directive names.
#[derive(Clone, Debug)]
pub enum Proxies {
    /// Whoever connects over a unix socket.
    Unix,
    /// Networks, or the addresses of a name.
    At(Vec<Network>),
}

fn parse(loader: &mut Loader<'_>, d: &Directive) -> Result<Proxies> {
    let word = d.arg(0);
    if *word == "unix:" {
        return Ok(Proxies::Unix);
    }
    if let Some(network) = Network::parse(&word.text) {
        return Ok(Proxies::At(vec![checked_network(loader, d, word, network)]));
    }
    let failed = || Error::at(word, format!("host not found in set_real_ip_from \"{}\"", word.lossy()));
    let is_name = !word.text.iter().any(|byte| matches!(byte, b'/' | b':' | b'['));
    let url = Url::parse(&word.text, false).ok().filter(|_| is_name).ok_or_else(failed)?;
    let found = url.resolve(0).map_err(|_| failed())?;
    Ok(Proxies::At(found.iter().filter_map(SockAddr::ip).map(Network::from).collect()))
}

/// A network; what isn't one is an error in the words of `geo`.
pub fn geo_network(loader: &mut Loader<'_>, line: &Directive, word: &Word) -> Result<Network> {
    let network = Network::parse(&word.text);
    let network = network.ok_or_else(|| Error::at(word, format!("invalid network \"{}\"", word.lossy())))?;
    Ok(checked_network(loader, line, word, network))
}

/// The addresses of proxies that are trusted.
#[derive(Debug)]
pub struct Trusted {
    networks: Networks<()>,
    unix: bool,
}

impl Trusted {
    /// Those of all directives; `None` without any.
    pub fn new(rules: &[Proxies]) -> Option<Trusted> {
        let networks = rules.iter().flat_map(|rule| match rule {
            Proxies::Unix => &[][..],
            Proxies::At(networks) => networks,
        });
        let networks = Networks::earlier_wins(networks.map(|network| (*network, ())));
        let unix = rules.iter().any(|rule| matches!(rule, Proxies::Unix));
        (!rules.is_empty()).then_some(Trusted { networks, unix })
    }

    /// Whether a connection from there is a trusted proxy's.
    pub fn holds(&self, peer: &SockAddr) -> bool {
        match peer.ip() {
            None => self.unix,
            Some(ip) => self.networks.lookup(ip).is_some(),
        }
    }

    /// The client of a connection from `peer`, as the lines of a field name it: each line is a list of addresses to which
    /// every proxy has appended the one that it was asked from. The last address counts; with `recursive` the last one
    /// that isn't trusted itself. `None` if `peer` isn't trusted, whose lines aren't asked for then, or names nobody.
    pub fn client<'a>(&self, peer: &SockAddr, lines: impl FnOnce() -> Lines<'a>, recursive: bool) -> Option<SockAddr> {
        if self.holds(peer) { self.last_named(&lines(), recursive) } else { None }
    }

    /// As [`Trusted::client`], of addresses without ports.
    pub fn client_of<'a>(&self, peer: IpAddr, lines: impl FnOnce() -> Lines<'a>, recursive: bool) -> Option<IpAddr> {
        self.networks.lookup(peer).and_then(|()| self.last_named(&lines(), recursive)?.ip())
    }

    fn last_named(&self, lines: &Lines<'_>, recursive: bool) -> Option<SockAddr> {
        let mut named = None;
        for address in lines.iter().rev().flat_map(|line| addresses(line)) {
            // What stands before something else than an address was written by nobody who is known.
            let Some(address) = address else { break };
            let ends = !recursive || !self.holds(&address);
            named = Some(address);
            if ends {
                break;
            }
        }
        named
    }
}

/// The proxies that name clients to a module, by `X-Forwarded-For`.
#[derive(Debug, Default)]
pub struct Forwarders {
    /// Those that are trusted.
    pub trusted: Option<Trusted>,
    /// Whether they are passed over in a list of addresses.
    pub recursive: bool,
}

impl Forwarders {
    /// The client's address: `given`, unless that is a trusted proxy's which names another one.
    pub fn client(&self, session: &impl Facts, given: IpAddr) -> IpAddr {
        let Some(trusted) = &self.trusted else { return given };
        trusted.client_of(given, || session.forwarded_for(), self.recursive).unwrap_or(given)
    }
}

/// The values of a field, which may be repeated, in their order.
pub type Lines<'a> = SmallVec<[&'a [u8]; 4]>;

/// The addresses of a line, the last one first; `None` for what isn't one, and for a line without any.
fn addresses(line: &[u8]) -> impl Iterator<Item = Option<SockAddr>> {
    let is_separator = |byte: &u8| matches!(byte, b' ' | b',');
    let mut words = line.rsplit(is_separator).filter(|word| !word.is_empty()).peekable();
    let empty = words.peek().is_none();
    words.map(parse_address).chain(empty.then_some(None))
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`.
fn parse_address(text: &[u8]) -> Option<SockAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let bare = bare.map_or_else(|| text.parse::<IpAddr>(), |inner| inner.parse::<Ipv6Addr>().map(IpAddr::V6));
    match bare {
        Ok(ip) => Some(SocketAddr::new(ip, 0).into()),
        Err(_) => text.parse::<SocketAddr>().ok().filter(|address| address.port() > 0).map(SockAddr::from),
    }
}

#[cfg(test)]
mod tests {
    use conf::{Env, Sources};

    use super::*;

    fn trusted(rules: &[&str]) -> Result<Option<Trusted>> {
        let registry = Registry::new();
        let mut loader = Loader::new(&registry, Env::default(), Sources::default());
        let rules: Result<Vec<Proxies>> = rules
            .iter()
            .map(|rule| {
                let word = Word { text: (*rule).into(), ..Word::default() };
                parse(&mut loader, &Directive { args: vec![word], ..Directive::default() })
            })
            .collect();
        Ok(Trusted::new(&rules?))
    }

    fn peer(text: &str) -> SockAddr {
        parse_address(text.as_bytes()).unwrap_or_else(|| SockAddr::Unix(Box::default()))
    }

    /// What nginx answers to the same fields.
    #[test]
    fn clients() {
        let proxies = trusted(&["127.0.0.1", "10.0.0.0/8"]).expect("valid").expect("some");
        for (lines, last, recursive) in [
            (&["1.1.1.1:80"][..], Some("1.1.1.1:80"), Some("1.1.1.1:80")),
            (&["[::1]:80"], Some("[::1]:80"), Some("[::1]:80")),
            (&["::1"], Some("[::1]:0"), Some("[::1]:0")),
            (&["[::1]"], Some("[::1]:0"), Some("[::1]:0")),
            (&["1.1.1.1, x"], None, None),
            (&["x, 10.0.0.1"], Some("10.0.0.1:0"), Some("10.0.0.1:0")),
            (&["1.1.1.1,10.0.0.1, ,"], Some("10.0.0.1:0"), Some("1.1.1.1:0")),
            (&["1.1.1.1 10.0.0.2"], Some("10.0.0.2:0"), Some("1.1.1.1:0")),
            (&["9.9.9.9\t10.0.0.3"], None, None),
            (&["9.9.9.9,::ffff:10.0.0.1"], Some("[::ffff:10.0.0.1]:0"), Some("9.9.9.9:0")),
            (&["8.8.8.8, 10.0.0.1:5, 10.0.0.2:6"], Some("10.0.0.2:6"), Some("8.8.8.8:0")),
            (&["10.0.0.1, 10.0.0.2"], Some("10.0.0.2:0"), Some("10.0.0.1:0")),
            (&["1.2.3.4", "", "10.0.0.1"], Some("10.0.0.1:0"), Some("10.0.0.1:0")),
            (&["1.2.3.4", "10.0.0.1"], Some("10.0.0.1:0"), Some("1.2.3.4:0")),
            (&["1.2.3.4", ""], None, None),
            (&["1.2.3.4", ", "], None, None),
            (&["unix:"], None, None),
            (&["1.1.1.1:0"], None, None),
            (&["1.1.1.1:70000"], None, None),
            (&[], None, None),
        ] {
            let bytes: Lines<'_> = lines.iter().map(|line| line.as_bytes()).collect();
            let named =
                |recursive| proxies.client(&peer("127.0.0.1"), || bytes.clone(), recursive).map(|a| a.to_string());
            assert_eq!(named(false).as_deref(), last, "{lines:?}");
            assert_eq!(named(true).as_deref(), recursive, "{lines:?}, recursive");
        }
    }

    #[test]
    fn the_lines_of_others_are_not_read() {
        let proxies = trusted(&["127.0.0.1"]).expect("valid").expect("some");
        let lines = || -> Lines<'static> { panic!("they are read") };
        assert_eq!(proxies.client(&peer("127.0.0.2"), lines, true), None);
        assert_eq!(proxies.client_of(IpAddr::V6(Ipv6Addr::LOCALHOST), lines, true), None);
    }

    #[test]
    fn who_is_trusted() {
        assert!(trusted(&[]).is_ok_and(|trusted| trusted.is_none()));
        let named = trusted(&["localhost", "unix:"]).expect("valid").expect("some");
        assert!(named.holds(&peer("127.0.0.1:5")) && named.holds(&peer("unix:")) && !named.holds(&peer("10.0.0.1")));
        let other = trusted(&["2001:db8::/32"]).expect("valid").expect("some");
        assert!(other.holds(&peer("2001:db8::5")) && !other.holds(&peer("unix:")));
        for text in ["1.2.3.4/33", "", "unix:x", "1.2.3.4:80", "[::1]", "UNIX:", "no.host.invalid"] {
            let error = trusted(&[text]).err().map(|error| error.message);
            assert_eq!(error, Some(format!("host not found in set_real_ip_from \"{text}\"")));
        }
    }
}
