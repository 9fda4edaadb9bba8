//! Rosters: the peers of a group, made of the servers in the configuration and of what name servers said of their names.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use os::SockAddr;
use wire::tagged::{Reader, Writer};

use crate::balance::{self, Balancer};
use crate::health::Checks;
use crate::peer::{Peer, Peers, Position};
use crate::spec::{GroupSpec, Method, ServerSpec};
use crate::zone::Places;

/// An address that a name server gave.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    /// Of a service record: records of the lowest number come first, the others are backups.
    pub priority: u16,
    /// The address.
    pub ip: IpAddr,
    /// Of a service record, its port.
    pub port: u16,
    /// Of a service record, its share.
    pub weight: u16,
}

impl Found {
    /// An address without a service record.
    pub(crate) fn address(ip: IpAddr) -> Found {
        Found { priority: 0, ip, port: 0, weight: 0 }
    }
}

/// What is known of the names of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roster(Vec<(Rc<[u8]>, Vec<Found>)>);

impl Roster {
    /// What is known of a name.
    fn of(&self, name: &[u8]) -> &[Found] {
        self.0.iter().find(|(known, _)| **known == *name).map_or(&[], |(_, found)| found)
    }

    /// Notes what is known of a name; whether it is new. The order of addresses means nothing.
    pub(crate) fn learn(&mut self, name: &Rc<[u8]>, mut found: Vec<Found>) -> bool {
        found.sort();
        if self.of(name) == found {
            return false;
        }
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.clone(), found));
        true
    }

    /// In the form that workers share.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(VERSION);
        for (name, found) in &self.0 {
            out.bytes(NAME, name);
            for found in found {
                out.bytes(
                    ADDRESS,
                    format!("{} {} {} {}", found.ip, found.port, found.weight, found.priority).as_bytes(),
                );
            }
        }
        out.finish().to_vec()
    }

    /// Reads it; nothing is known where it can't be read.
    pub(crate) fn decode(bytes: &[u8]) -> Roster {
        let mut roster = Roster::default();
        for (tag, value) in Reader::new(VERSION, bytes).iter().flat_map(Reader::iter) {
            match (tag, roster.0.last_mut()) {
                (NAME, _) => roster.0.push((value.into(), Vec::new())),
                (ADDRESS, Some((_, list))) => list.extend(found(value)),
                _ => {}
            }
        }
        roster
    }
}

const VERSION: u8 = 1;
const NAME: u8 = 1;
const ADDRESS: u8 = 2;

fn found(text: &[u8]) -> Option<Found> {
    let mut words = std::str::from_utf8(text).ok()?.split(' ');
    let ip = words.next()?.parse().ok()?;
    let mut number = || words.next()?.parse().ok();
    Some(Found { ip, port: number()?, weight: number()?, priority: number()? })
}

/// The peers of a group as they are for a time, with their balancer.
pub(crate) struct Ranks {
    pub(crate) primary: Peers,
    pub(crate) backup: Peers,
    /// A single peer is never taken for unavailable.
    pub(crate) single: bool,
    /// Whether the weight of some grows back slowly.
    pub(crate) slow: bool,
    pub(crate) balancer: Box<dyn Balancer>,
}

impl Ranks {
    /// All peers.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Rc<Peer>> {
        self.primary.list.iter().chain(&self.backup.list)
    }

    /// The peers of a rank.
    pub(crate) fn rank(&self, backup: bool) -> &Peers {
        if backup { &self.backup } else { &self.primary }
    }
}

/// What rosters are made of.
pub(crate) struct Plan {
    servers: Vec<ServerSpec>,
    method: Method,
    places: Option<Places>,
    checks: Rc<Checks>,
    next_id: Cell<usize>,
    /// What name servers said.
    pub(crate) roster: RefCell<Roster>,
}

impl Plan {
    pub(crate) fn new(spec: &GroupSpec, checks: &Rc<Checks>) -> Plan {
        Plan {
            checks: checks.clone(),
            servers: spec.servers.clone(),
            method: spec.method.clone(),
            places: spec.zone.as_ref().map(|_| Places::new(&spec.name)),
            next_id: Cell::new(0),
            roster: RefCell::default(),
        }
    }

    /// Whether the peers may change.
    pub(crate) fn changes(&self) -> bool {
        self.servers.iter().any(|server| server.lookup.is_some())
    }

    /// The servers whose names are looked up.
    pub(crate) fn lookups(&self) -> impl Iterator<Item = &crate::spec::Lookup> {
        self.servers.iter().filter_map(|server| server.lookup.as_ref())
    }

    /// The peers that follow from what is known; those that were there before keep their state.
    pub(crate) fn ranks(&self, before: Option<&Ranks>) -> Ranks {
        let mut lists = [Vec::new(), Vec::new()];
        for (at, server) in self.servers.iter().enumerate() {
            self.add(at, server, &mut lists, before);
        }
        let [primary, backup] = lists.map(Peers::new);
        Ranks {
            single: primary.list.len() == 1 && backup.list.is_empty(),
            slow: primary.list.iter().chain(&backup.list).any(|peer| peer.slow_start_ms > 0),
            balancer: balance::of(&self.method, &primary),
            primary,
            backup,
        }
    }

    fn add(&self, at: usize, server: &ServerSpec, lists: &mut [Vec<Rc<Peer>>; 2], before: Option<&Ranks>) {
        let weight = server.weight.unwrap_or(1);
        let mut push = |backup: bool, addr: &SockAddr, weight: u32| {
            let list = &mut lists[usize::from(backup)];
            let name = addr.to_string();
            let twins = list.iter().filter(|peer| *peer.name == name).count();
            let position = Position { backup, server: at, twins };
            let known = before.and_then(|before| {
                before.rank(backup).list.iter().find(|peer| peer.position == position && *peer.name == name)
            });
            list.push(match known {
                Some(peer) => {
                    peer.set_weight(i64::from(weight));
                    peer.clone()
                }
                None => Rc::new(self.peer(position, server, addr, weight)),
            });
        };
        server.addrs.iter().for_each(|addr| push(server.backup, addr, weight));
        let Some(lookup) = &server.lookup else { return };
        let roster = self.roster.borrow();
        let found = roster.of(&lookup.name);
        let first = found.iter().map(|found| found.priority).min();
        for found in found {
            let port = if lookup.is_service { found.port } else { lookup.port };
            let addr = SockAddr::from(SocketAddr::new(found.ip, port));
            let weight = match server.weight {
                None if lookup.is_service => u32::from(found.weight).max(1),
                _ => weight,
            };
            match (Some(found.priority) == first, server.backup) {
                (true, backup) => push(backup, &addr, weight),
                (false, false) => push(true, &addr, weight),
                // There is no rank below the backups.
                (false, true) => {}
            }
        }
    }

    fn peer(&self, position: Position, server: &ServerSpec, addr: &SockAddr, weight: u32) -> Peer {
        let id = self.next_id.replace(self.next_id.get() + 1);
        let place = self.places.as_ref().map(|places| places.peer(position, &addr.to_string()));
        Peer::new(id, position, server, addr, weight, place, &self.checks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Lookup;

    fn server(name: &str, is_service: bool) -> ServerSpec {
        let lookup = Lookup { name: name.as_bytes().into(), is_service, port: 80, late: false };
        ServerSpec { lookup: Some(lookup), ..ServerSpec::new(name, Vec::new()) }
    }

    fn service(text: &str) -> Found {
        found(text.as_bytes()).expect("a record")
    }

    fn shown(ranks: &Ranks) -> String {
        let of = |peers: &Peers| {
            let each = peers.list.iter().map(|peer| format!("{}*{}#{}", peer.name, peer.weight.get(), peer.id));
            each.collect::<Vec<_>>().join(" ")
        };
        format!("{} | {}", of(&ranks.primary), of(&ranks.backup))
    }

    #[test]
    fn names_come_and_go() {
        let fixed = ServerSpec::new("127.0.0.9:80", vec![SockAddr::from(SocketAddr::from(([127, 0, 0, 9], 80)))]);
        let servers = vec![server("a.test", false), fixed];
        let plan = Plan::new(&GroupSpec { servers, ..GroupSpec::default() }, &Rc::default());
        let first = plan.ranks(None);
        assert_eq!(shown(&first), "127.0.0.9:80*1#0 | ");
        let name: Rc<[u8]> = b"a.test"[..].into();
        let addrs = |last: &[u8]| last.iter().map(|n| Found::address([127, 0, 0, *n].into())).collect::<Vec<_>>();
        assert!(plan.roster.borrow_mut().learn(&name, addrs(&[2, 1])));
        let second = plan.ranks(Some(&first));
        assert_eq!(shown(&second), "127.0.0.1:80*1#1 127.0.0.2:80*1#2 127.0.0.9:80*1#0 | ");
        assert!(!plan.roster.borrow_mut().learn(&name, addrs(&[1, 2])), "another order is nothing new");
        second.primary.list[1].conns.set(3);
        assert!(plan.roster.borrow_mut().learn(&name, addrs(&[2])));
        let third = plan.ranks(Some(&second));
        assert_eq!(shown(&third), "127.0.0.2:80*1#2 127.0.0.9:80*1#0 | ");
        assert_eq!(third.primary.list[0].conns.get(), 3);
    }

    #[test]
    fn services() {
        let record = ["127.0.0.1 81 5 1", "127.0.0.1 82 0 2", "127.0.0.1 81 5 1"].map(service);
        let check = |change: fn(&mut ServerSpec), expect: &str| {
            let mut server = server("_http._tcp.a.test", true);
            change(&mut server);
            let plan = Plan::new(&GroupSpec { servers: vec![server], ..GroupSpec::default() }, &Rc::default());
            plan.roster.borrow_mut().learn(&b"_http._tcp.a.test"[..].into(), record.to_vec());
            let encoded = plan.roster.borrow().encode();
            assert_eq!(Roster::decode(&encoded), *plan.roster.borrow());
            assert_eq!(shown(&plan.ranks(None)), expect);
        };
        check(|_| {}, "127.0.0.1:81*5#0 127.0.0.1:81*5#1 | 127.0.0.1:82*1#2");
        check(|server| server.weight = Some(3), "127.0.0.1:81*3#0 127.0.0.1:81*3#1 | 127.0.0.1:82*3#2");
        check(|server| server.backup = true, " | 127.0.0.1:81*5#0 127.0.0.1:81*5#1");
    }

    #[test]
    fn damaged_rosters_say_nothing() {
        for bytes in [&b""[..], b"x", b"\x01\x01\xff", b"\x01\x02\0\0\0\0"] {
            assert_eq!(Roster::decode(bytes), Roster::default());
        }
    }
}
