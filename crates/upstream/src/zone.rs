//! `zone`: what workers know of the servers of a group, shared.
//!
//! In the zone each peer has an entry under the names of its group and rank, and its address. A choice is made with the
//! zone's lock: the peers' state is read from there, the balancer works on it as it does without a zone, and what comes
//! of that is written back. On a reload the entries stay, so a server whose address stays keeps its state; entries that
//! neither the old nor the new configuration knows are removed. Connections are counted by process, so that those of a
//! worker that is killed are taken back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use conf::{Error, Loader, Result, Word};
use engine::cycle::zones::{self, SharedZone};
use shm::{Map, Node, Tally};

use crate::peer::{Peer, Peers};
use crate::spec::GroupSpec;

/// The keys of all entries that a configuration needs in a zone, each with what a new entry starts with.
#[derive(Default)]
struct Needed(RefCell<Vec<(Rc<[u8]>, Record)>>);

/// Where a peer's state is in its zone.
#[derive(Debug)]
pub(crate) struct Place {
    key: Rc<[u8]>,
    /// The entry, as it was last found.
    node: Cell<Option<Node>>,
    /// How many connections there were when the state was read.
    conns: Cell<u32>,
}

/// A peer's state in the zone, in front of the tally of its connections.
type Record = [u8; STATE];

const STATE: usize = 40;
/// A tally has as many places as its entry has room, and this many at least.
const LEAST_PLACES: usize = 8;

/// Reads `zone NAME [SIZE]`.
pub fn declare(
    loader: &mut Loader<'_>,
    name: &Word,
    size: Option<&Word>,
    owner: &'static str,
) -> Result<Rc<SharedZone>> {
    if name.text.is_empty() {
        return Err(Error::at(name, "invalid zone name \"\""));
    }
    let size = match size {
        None => 0,
        Some(word) => {
            let size = buf::parse::parse_size(&word.text);
            let size = size.ok_or_else(|| Error::at(word, format!("invalid zone size \"{}\"", word.lossy())))?;
            zones::large_enough(name, size)?
        }
    };
    zones::declare(loader, name, &name.text, size, owner)
}

/// Gives the peers of a group their places, and has their entries made once the zone has its memory.
pub(crate) fn enter(zone: &SharedZone, spec: &GroupSpec, ranks: [&mut Peers; 2]) {
    let needed = zone.data::<Needed>().unwrap_or_else(|| {
        let needed = Rc::new(Needed::default());
        zone.set_data(needed.clone());
        zone.on_start(start);
        zone.on_death(forget);
        needed
    });
    let mut needed = needed.0.borrow_mut();
    for (rank, peers) in ranks.into_iter().enumerate() {
        for at in 0..peers.list.len() {
            let (before, rest) = peers.list.split_at_mut(at);
            let Some(peer) = rest.first_mut() else { continue };
            // An address may be there several times.
            let twins = before.iter().filter(|other| other.name == peer.name).count();
            let text = [&spec.name, format!("\0{rank}\0{twins}\0{}", peer.name).as_bytes()].concat();
            let key: Rc<[u8]> = text.into();
            needed.push((key.clone(), record(peer)));
            peer.place = Some(Place { key, node: Cell::new(None), conns: Cell::new(0) });
        }
    }
}

/// Makes the entries that are missing. Those that a failing reload would still need stay.
fn start(zone: &SharedZone, old: Option<&SharedZone>) -> std::result::Result<(), String> {
    let needed = zone.data::<Needed>().unwrap_or_default();
    let before = old.and_then(|old| old.data::<Needed>()).unwrap_or_default();
    let known: std::collections::HashSet<Rc<[u8]>> =
        needed.0.borrow().iter().chain(before.0.borrow().iter()).map(|(key, _)| key.clone()).collect();
    zone.with_soon(|map| {
        let mut at = map.oldest();
        while let Some(node) = at {
            at = map.newer(node);
            if !known.contains(&*map.key(node)) {
                map.remove(node);
            }
        }
        let needed = needed.0.borrow();
        let made = needed.iter().all(|(key, record)| map.find(key).or_else(|| insert(map, key, record)).is_some());
        if made { Ok(()) } else { Err(format!("no memory in upstream zone \"{}\"", zone.name())) }
    })?
}

/// A new entry: the state, and an empty tally.
fn insert(map: &mut Map<'_>, key: &[u8], record: &Record) -> Option<Node> {
    let mut value = vec![0; Map::room(key.len(), STATE + Tally::bytes(LEAST_PLACES))];
    value.get_mut(..STATE)?.copy_from_slice(record);
    map.insert(key, &value)
}

/// Takes back the connections of a process that has been killed.
fn forget(map: &mut Map<'_>, pid: i32) {
    let mut at = map.oldest();
    while let Some(node) = at {
        tally(map, node).forget(|identity| os::process::pid_of(identity) == pid);
        at = map.newer(node);
    }
}

fn tally<'m>(map: &'m mut Map<'_>, node: Node) -> Tally<'m> {
    Tally::of(map.value_mut(node).after(STATE))
}

/// Does something with the state of these peers as all workers share it.
pub(crate) fn exchange<R>(zone: &SharedZone, peers: &[&[Peer]], f: impl FnOnce() -> R) -> R {
    zone.zone().with(|map| {
        let all = || peers.iter().copied().flatten();
        all().for_each(|peer| load(map, peer));
        let result = f();
        all().for_each(|peer| store(map, peer));
        result
    })
}

/// The entry of a peer; made if it is missing, which it is if the zone had to be emptied.
fn node_of(map: &mut Map<'_>, peer: &Peer) -> Option<Node> {
    let place = peer.place.as_ref()?;
    if let Some(node) = place.node.get()
        && map.has_key(node, &place.key)
    {
        return Some(node);
    }
    let node = map.find(&place.key).or_else(|| {
        // All start again; connections that are open aren't known any more.
        insert(map, &place.key, &record(peer))
    });
    place.node.set(node);
    node
}

fn load(map: &mut Map<'_>, peer: &Peer) {
    let (Some(node), Some(place)) = (node_of(map, peer), &peer.place) else { return };
    let conns = tally(map, node).sum();
    place.conns.set(conns);
    peer.conns.set(conns);
    let Some(record) = map.first::<STATE>(node) else { return };
    let mut numbers = record.chunks_exact(8).map(|chunk| chunk.try_into().map_or(0, u64::from_ne_bytes));
    let mut next = || numbers.next().unwrap_or_default();
    // After a reload its weight may be another one.
    peer.effective_weight.set((next() as i64).clamp(0, peer.weight));
    peer.current_weight.set((next() as i64).clamp(-MOST_WEIGHT, MOST_WEIGHT));
    peer.accessed.set(next());
    peer.checked.set(next());
    peer.fails.set(next() as u32);
}

fn store(map: &mut Map<'_>, peer: &Peer) {
    let (Some(node), Some(place)) = (node_of(map, peer), &peer.place) else { return };
    map.set_first(node, &record(peer));
    let (before, now, me) = (place.conns.get(), peer.conns.get(), os::process::identity());
    match now.checked_sub(before) {
        Some(0) => {}
        Some(more) => tally(map, node).add(me, more),
        None => tally(map, node).sub(me, before - now),
    }
}

fn record(peer: &Peer) -> Record {
    let (effective, current) = (peer.effective_weight.get() as u64, peer.current_weight.get() as u64);
    let mut record = [0; STATE];
    let numbers = [effective, current, peer.accessed.get(), peer.checked.get(), peer.fails.get().into()];
    for (place, number) in record.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_ne_bytes());
    }
    record
}

/// What a process left half-written must not make sums of weights overflow.
const MOST_WEIGHT: i64 = 1 << 40;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use conf::{Env, Registry, Sources};
    use os::SockAddr;

    use super::*;
    use crate::spec::ServerSpec;

    /// The peers of a configuration with these servers (port and weight), in a zone.
    fn peers(servers: &[(u16, u32)]) -> (Rc<SharedZone>, Peers) {
        let registry = Registry::new();
        let mut loader = Loader::new(&registry, Env::default(), Sources::default());
        let word = Word { text: b"z".into(), ..Word::default() };
        let zone = zones::declare(&mut loader, &word, b"z", zones::SMALLEST, "test").expect("declared");
        let servers = servers.iter().map(|(port, weight)| {
            let addr = SockAddr::from(SocketAddr::from(([127, 0, 0, 1], *port)));
            ServerSpec { weight: *weight, ..ServerSpec::new("x", vec![addr]) }
        });
        let spec = GroupSpec { name: b"u".into(), servers: servers.collect(), ..GroupSpec::default() };
        let mut peers = Peers::new(spec.servers.iter());
        enter(&zone, &spec, [&mut peers, &mut Peers::default()]);
        (zone, peers)
    }

    fn known(zone: &SharedZone) -> usize {
        zone.zone().with(|map| map.len())
    }

    #[test]
    fn state_is_shared_and_outlives_reloads() {
        let (zone, one) = peers(&[(1, 5), (2, 1), (2, 1)]);
        zone.open(None).expect("memory");
        exchange(&zone, &[&one.list], || {
            one.list[0].conns.set(7);
            one.list[0].effective_weight.set(5);
            assert!(one.list[1].failed(100));
            one.list[2].current_weight.set(-3);
        });
        // Another worker; then a reload that changes a weight, and takes one server away.
        let (_, other) = peers(&[(1, 5), (2, 1), (2, 1)]);
        let state = |peers: &Peers| -> Vec<_> {
            let of = |peer: &Peer| (peer.conns.get(), peer.fails.get(), peer.effective_weight.get());
            peers.list.iter().map(of).collect()
        };
        let seen = exchange(&zone, &[&other.list], || state(&other));
        assert_eq!(seen, [(7, 0, 5), (0, 1, 0), (0, 0, 1)]);
        assert_eq!(other.list[2].current_weight.get(), -3);
        let (next, three) = peers(&[(3, 1), (1, 2)]);
        next.open(Some(&zone)).expect("memory");
        assert_eq!(exchange(&next, &[&three.list], || state(&three)), [(0, 0, 1), (7, 0, 2)]);
        assert_eq!(known(&next), 4, "the old workers go on");
        let (last, _) = peers(&[(3, 1), (1, 2)]);
        last.open(Some(&next)).expect("memory");
        assert_eq!(known(&last), 2);
    }

    #[test]
    fn connections_of_a_killed_worker_are_taken_back() {
        let (zone, one) = peers(&[(1, 1)]);
        zone.open(None).expect("memory");
        let child = os::process::tests_fork(|| exchange(&zone, &[&one.list], || one.list[0].conns.set(2)));
        let open = |more| {
            exchange(&zone, &[&one.list], || {
                one.list[0].conns.set(one.list[0].conns.get() + more);
                one.list[0].conns.get()
            })
        };
        assert_eq!(open(3), 5);
        zone.zone().with(|map| forget(map, child));
        assert_eq!(open(0), 3);
    }

    #[test]
    fn an_emptied_zone_fills_again() {
        let (zone, one) = peers(&[(1, 1)]);
        zone.open(None).expect("memory");
        exchange(&zone, &[&one.list], || one.list[0].conns.set(3));
        zone.zone().with(|map| map.oldest().map(|node| map.remove(node)));
        assert_eq!(exchange(&zone, &[&one.list], || one.list[0].conns.get()), 0);
        assert_eq!(known(&zone), 1);
    }

    #[test]
    fn too_many_for_the_zone() {
        let servers: Vec<(u16, u32)> = (1..1000).map(|port| (port, 1)).collect();
        let (zone, _) = peers(&servers);
        assert_eq!(zone.open(None), Err("no memory in upstream zone \"z\"".to_owned()));
    }
}
