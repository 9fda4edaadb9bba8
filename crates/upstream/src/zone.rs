//! `zone`: what workers know of the servers of a group, shared.
//!
//! In the zone each peer has an entry under the names of its group and rank, and its address. A choice is made with the
//! zone's lock: the peers' state is read from there, the balancer works on it as it does without a zone, and what comes
//! of that is written back. On a reload the entries stay, so a server whose address stays keeps its state; entries that
//! neither the old nor the new configuration knows are removed. Connections are counted by process, so that those of a
//! worker that is killed are taken back.
//!
//! Further entries of a group: its roster, which says what name servers said of its names, with a number that changes
//! with it; and which worker leads, that is, asks name servers and checks peers for all.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;

use conf::{Error, Loader, Result, Word};
use engine::cycle::zones::{self, Origin, Owner, SharedZone};
use shm::{Map, Node, Noted, Tally};

use crate::health::{Checks, Health};
use crate::peer::{Peer, Position};
use crate::roster::{Ranks, Roster};

/// What a configuration needs in a zone.
#[derive(Default)]
struct Needed {
    /// The keys of peers that are known from the start, each with what a new entry starts with.
    peers: RefCell<Vec<(Rc<[u8]>, Record)>>,
    groups: RefCell<Vec<Need>>,
    /// The number of this configuration among those that have used the zone.
    generation: Cell<u64>,
}

/// What a group needs.
struct Need {
    name: Rc<[u8]>,
    /// Whether its peers may change.
    changes: bool,
    checks: Rc<Checks>,
}

/// An entry of a zone.
#[derive(Debug)]
struct Entry {
    key: Rc<[u8]>,
    /// As it was last found.
    noted: Cell<Option<Noted>>,
}

impl Entry {
    fn new(key: Vec<u8>) -> Entry {
        Entry { key: key.into(), noted: Cell::new(None) }
    }

    fn find(&self, map: &Map<'_>) -> Option<Node> {
        let noted = self.noted.get().and_then(|noted| map.noted(noted, &self.key));
        noted.or_else(|| self.note(map, map.find(&self.key)))
    }

    /// Notes where it is now.
    fn note(&self, map: &Map<'_>, node: Option<Node>) -> Option<Node> {
        self.noted.set(node.map(|node| map.note(node)));
        node
    }

    fn set(&self, map: &mut Map<'_>, value: &[u8]) -> Option<()> {
        match self.find(map) {
            Some(node) if map.value(node).len() == value.len() => {
                map.set_value(node, value);
                Some(())
            }
            known => {
                if let Some(node) = known {
                    map.remove(node);
                }
                let node = map.insert(&self.key, value);
                self.note(map, node).map(|_| ())
            }
        }
    }
}

/// Where a peer's state is in its zone.
#[derive(Debug)]
pub(crate) struct Place {
    entry: Entry,
    /// How many connections there were when the state was read.
    conns: Cell<u32>,
}

/// Where the entries of a group are.
pub(crate) struct Places {
    group: Rc<[u8]>,
}

// What an entry is: the first byte of its key.
const PEER: u8 = b'p';
const ROSTER: u8 = b'r';
const LEADER: u8 = b'l';
const GENERATION: u8 = b'g';

impl Places {
    pub(crate) fn new(group: &[u8]) -> Places {
        Places { group: group.into() }
    }

    fn key(&self, kind: u8, rest: &[u8]) -> Vec<u8> {
        [&[kind, 0], &*self.group, &[0], rest].concat()
    }

    /// The place of a peer.
    pub(crate) fn peer(&self, position: Position, name: &str) -> Place {
        let rest = format!("{}\0{}\0{name}", u8::from(position.backup), position.twins);
        Place { entry: Entry::new(self.key(PEER, rest.as_bytes())), conns: Cell::new(0) }
    }
}

/// A group's part of its zone.
pub(crate) struct Shared {
    zone: Rc<SharedZone>,
    places: Places,
    needed: Rc<Needed>,
    roster: Entry,
    /// The number of the roster that is known here.
    known: Cell<u64>,
    leader: Entry,
    checks: Rc<Checks>,
    /// This worker is about to end, and leads no more.
    resigned: Cell<bool>,
}

/// A peer's state in the zone, in front of the tally of its connections.
type Record = [u8; STATE];

const STATE: usize = 80;
/// A new tally has as many places as its entry has room, and this many at least.
const LEAST_PLACES: usize = 8;
/// The version of keys, records, rosters and leaders in zones.
const LAYOUT: u32 = 1;
/// Generation, moment of the last beat, identity.
const LEADER_SIZE: usize = 24;
/// After so many milliseconds without a beat another worker leads.
const BEATS_MS: u64 = 5000;

/// Reads `zone NAME [SIZE]`, whose owner is this module.
pub fn declare(
    loader: &mut Loader<'_>,
    name: &Word,
    size: Option<&Word>,
    module: &'static str,
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
    zones::declare(loader, name, &name.text, size, Owner { module, layout: LAYOUT })
}

impl Shared {
    /// A group's part; the entries of its peers are made once the zone has its memory.
    pub(crate) fn new(
        zone: &Rc<SharedZone>,
        group: &[u8],
        ranks: &Ranks,
        changes: bool,
        checks: &Rc<Checks>,
    ) -> Shared {
        let needed = zone.data::<Needed>().unwrap_or_else(|| {
            let needed = Rc::new(Needed::default());
            zone.set_data(needed.clone());
            zone.on_start(start);
            zone.on_death(forget);
            needed
        });
        let places = Places::new(group);
        let keys = ranks.all().filter_map(|peer| Some((peer.place.as_ref()?.entry.key.clone(), record(peer))));
        needed.peers.borrow_mut().extend(keys);
        needed.groups.borrow_mut().push(Need { name: places.group.clone(), changes, checks: checks.clone() });
        Shared {
            zone: zone.clone(),
            roster: Entry::new(places.key(ROSTER, b"")),
            leader: Entry::new(places.key(LEADER, b"")),
            places,
            needed,
            known: Cell::new(0),
            checks: checks.clone(),
            resigned: Cell::new(false),
        }
    }

    /// Does something with the state of peers as all workers share it: `news` is first given a roster that this worker
    /// doesn't know yet, `peers` then says which peers are meant.
    pub(crate) fn exchange<R>(
        &self,
        changes: bool,
        news: impl FnOnce(Roster),
        peers: impl FnOnce() -> Rc<Ranks>,
        f: impl FnOnce(&Rc<Ranks>) -> R,
    ) -> R {
        self.zone.zone().with(|map| {
            if changes && let Some(roster) = self.news(map) {
                news(roster);
            }
            let ranks = peers();
            ranks.all().for_each(|peer| load(map, peer));
            let result = f(&ranks);
            ranks.all().for_each(|peer| store(map, peer));
            result
        })
    }

    /// The same for one peer.
    pub(crate) fn exchange_one<R>(&self, peer: &Peer, f: impl FnOnce() -> R) -> R {
        self.zone.zone().with(|map| {
            load(map, peer);
            let result = f();
            store(map, peer);
            result
        })
    }

    /// The roster, if it isn't the one that is known here.
    fn news(&self, map: &Map<'_>) -> Option<Roster> {
        let number = self.number(map)?;
        if self.known.replace(number) == number {
            return None;
        }
        Some(Roster::decode(map.value(self.roster.find(map)?).get(8..)?))
    }

    /// The number of the roster in the zone, if there is one.
    fn number(&self, map: &Map<'_>) -> Option<u64> {
        Some(u64::from_ne_bytes(map.first::<8>(self.roster.find(map)?)?))
    }

    /// Changes the roster for all workers: `change` gets what is known, and says whether it has changed; `ranks` makes the
    /// peers that follow from it. Entries of peers that are gone are removed. False if the zone has no memory for it.
    pub(crate) fn publish(
        &self,
        roster: &RefCell<Roster>,
        change: impl Fn(&mut Roster) -> bool,
        ranks: impl Fn() -> Rc<Ranks>,
    ) -> bool {
        loop {
            let (news, is_there) = self.zone.zone().with(|map| (self.news(map), self.roster.find(map).is_some()));
            let has_news = news.is_some();
            if let Some(news) = news {
                roster.replace(news);
            }
            let has_changed = change(&mut roster.borrow_mut());
            // Peers may be many: they are made while others may use the zone.
            let ranks = (has_changed || has_news).then(&ranks);
            if !has_changed && is_there {
                return true;
            }
            let known = self.known.get();
            let number = known.wrapping_add(1).max(1);
            let value = [&number.to_ne_bytes()[..], &roster.borrow().encode()].concat();
            let written = self.zone.zone().with(|map| {
                if self.number(map).is_some_and(|number| number != known) {
                    return None;
                }
                self.known.set(number);
                if let Some(ranks) = &ranks {
                    self.sweep(map, ranks);
                }
                Some(self.roster.set(map, &value).is_some())
            });
            // Somebody else has changed it meanwhile, otherwise.
            if let Some(written) = written {
                return written;
            }
        }
    }

    /// Removes the entries of peers that the group has no longer and that serve nothing.
    fn sweep(&self, map: &mut Map<'_>, ranks: &Ranks) {
        let keys: HashSet<&[u8]> = ranks.all().filter_map(|peer| Some(&*peer.place.as_ref()?.entry.key)).collect();
        let prefix = self.places.key(PEER, b"");
        let mut at = map.oldest();
        while let Some(node) = at {
            at = map.newer(node);
            let key = map.key(node);
            if key.starts_with(&prefix) && !keys.contains(&*key) && tally(map, node).sum() == 0 {
                map.remove(node);
            }
        }
    }

    /// Whether this worker leads, from now on or still. A worker that leads has to ask again within
    /// a few seconds; otherwise another one takes over.
    pub(crate) fn lead(&self, now_ms: u64) -> bool {
        if self.resigned.get() {
            return false;
        }
        let (me, mine) = (u64::from(os::process::identity()), self.needed.generation.get());
        self.zone.zone().with(|map| {
            let record = self.leader.find(map).and_then(|node| map.first::<LEADER_SIZE>(node)).map(numbers::<3>);
            let [generation, beat_ms, leader] = record.unwrap_or_default();
            let is_me = (generation, leader) == (mine, me);
            let is_late = now_ms.saturating_sub(beat_ms) > BEATS_MS;
            let is_free = match leader {
                0 => true,
                // One of a later configuration leads, even if it is late; but it ends if an upgrade is taken back.
                leader if generation > mine => is_late && os::process::has_ended(leader as u32),
                _ => generation < mine || is_late,
            };
            if !is_me && !is_free {
                return false;
            }
            if generation < mine {
                // Not sooner: a configuration that no worker ever has changes nothing.
                self.begin_checks(map);
            }
            self.leader.set(map, &leader_record(mine, now_ms, me)).is_some()
        })
    }

    /// Leads no more: this worker is about to end, which may take long.
    pub(crate) fn resign(&self) {
        self.resigned.set(true);
        self.zone.zone().with(|map| {
            let node = self.leader.find(map)?;
            let [generation, _, leader] = numbers(map.first::<LEADER_SIZE>(node)?);
            if leader == u64::from(os::process::identity()) {
                self.leader.set(map, &leader_record(generation, 0, 0));
            }
            Some(())
        });
    }

    /// Sets what is to be checked before peers are used; what earlier checks said stays.
    fn begin_checks(&self, map: &mut Map<'_>) {
        let prefix = self.places.key(PEER, b"");
        let mut at = map.oldest();
        while let Some(node) = at {
            at = map.newer(node);
            if map.key(node).starts_with(&prefix)
                && let Some(mut record) = map.first::<STATE>(node)
            {
                let health = self.checks.after_start(Health::of(numbers::<10>(record)[HEALTH]));
                record[HEALTH * 8..].copy_from_slice(&health.number().to_ne_bytes());
                map.set_first(node, &record);
            }
        }
    }
}

/// The record of the leader; 0: nobody leads.
fn leader_record(generation: u64, beat_ms: u64, leader: u64) -> Vec<u8> {
    [generation, beat_ms, leader].map(u64::to_ne_bytes).concat()
}

fn numbers<const N: usize>(bytes: impl AsRef<[u8]>) -> [u64; N] {
    let mut numbers = [0; N];
    for (number, chunk) in numbers.iter_mut().zip(bytes.as_ref().chunks_exact(8)) {
        *number = chunk.try_into().map_or(0, u64::from_ne_bytes);
    }
    numbers
}

/// Makes the entries that are missing. Those that a failing reload would still need stay, and all that another program has
/// made, as long as there is room: what it needs isn't known.
fn start(zone: &SharedZone, origin: Origin<'_>) -> std::result::Result<(), String> {
    let needed = zone.data::<Needed>().unwrap_or_default();
    let before = origin.declaration().and_then(|old| old.data::<Needed>()).unwrap_or_default();
    zone.with_soon(|map| {
        if !origin.is_shared() {
            remove_unknown(map, &[&needed, &before]);
        }
        needed.generation.set(next_generation(map));
        let mut made = make(map, &needed);
        if !made && origin.is_shared() {
            // The other program makes again what it misses.
            remove_unknown(map, &[&needed, &before]);
            made = make(map, &needed);
        }
        if made { Ok(()) } else { Err(format!("no memory in upstream zone \"{}\"", zone.name())) }
    })?
}

/// Makes the entries of peers that are missing; false if there is no memory for them.
fn make(map: &mut Map<'_>, needed: &Needed) -> bool {
    let (peers, groups) = (needed.peers.borrow(), needed.groups.borrow());
    peers.iter().all(|(key, record)| {
        let known = map.find(key);
        known.or_else(|| insert(map, key, &unchecked(&groups, key, *record))).is_some()
    })
}

/// The record of a new peer, with the checks that it has to pass first: they weren't known when the group was built.
fn unchecked(groups: &[Need], key: &[u8], mut record: Record) -> Record {
    let name = group_of(key);
    if let Some(group) = groups.iter().find(|group| *group.name == *name) {
        record[HEALTH * 8..].copy_from_slice(&group.checks.of_new().number().to_ne_bytes());
    }
    record
}

/// The group's name in the key of an entry.
fn group_of(key: &[u8]) -> &[u8] {
    key.split(|byte| *byte == 0).nth(1).unwrap_or_default()
}

fn remove_unknown(map: &mut Map<'_>, configurations: &[&Rc<Needed>; 2]) {
    let mut keys: HashSet<Rc<[u8]>> = HashSet::new();
    let mut changing = HashSet::new();
    let mut groups = HashSet::new();
    for needed in configurations {
        keys.extend(needed.peers.borrow().iter().map(|(key, _)| key.clone()));
        for group in needed.groups.borrow().iter() {
            groups.insert(group.name.clone());
            if group.changes {
                changing.insert(group.name.clone());
            }
        }
    }
    let mut at = map.oldest();
    while let Some(node) = at {
        at = map.newer(node);
        let key = map.key(node);
        let group = group_of(&key);
        let is_known = match key.first() {
            Some(&PEER) => keys.contains(&*key) || changing.contains(group),
            Some(&ROSTER) => changing.contains(group),
            Some(&LEADER) => groups.contains(group),
            _ => true,
        };
        if !is_known {
            map.remove(node);
        }
    }
}

/// Counts the configurations that use the zone.
fn next_generation(map: &mut Map<'_>) -> u64 {
    let entry = Entry::new(vec![GENERATION]);
    let last = entry.find(map).and_then(|node| map.first::<8>(node)).map_or(0, u64::from_ne_bytes);
    entry.set(map, &(last + 1).to_ne_bytes());
    last + 1
}

/// A new entry: the state, and an empty tally.
fn insert(map: &mut Map<'_>, key: &[u8], record: &Record) -> Option<Node> {
    let mut value = vec![0; Map::room(key.len(), STATE + Tally::bytes(LEAST_PLACES))];
    value.get_mut(..STATE)?.copy_from_slice(record);
    map.insert(key, &value)
}

/// Takes back the connections of a process that has been killed, and what it led.
fn forget(map: &mut Map<'_>, pid: i32) {
    let mut at = map.oldest();
    while let Some(node) = at {
        match map.key(node).first() {
            Some(&PEER) => forget_connections(map, node, pid),
            Some(&LEADER) => {
                let [generation, _, leader] = map.first::<LEADER_SIZE>(node).map_or([0; 3], numbers);
                if os::process::pid_of(leader as u32) == pid {
                    map.set_value(node, &leader_record(generation, 0, 0));
                }
            }
            _ => {}
        }
        at = map.newer(node);
    }
}

/// Takes back a process's connections to a peer. When they began isn't known of each: on average like the others.
fn forget_connections(map: &mut Map<'_>, node: Node, pid: i32) {
    let mut tally = tally(map, node);
    let before = u128::from(tally.sum());
    tally.forget(|identity| os::process::pid_of(identity) == pid);
    let after = u128::from(tally.sum());
    if let Some(mut record) = map.first::<STATE>(node).filter(|_| after < before) {
        let begun = u128::from(numbers::<10>(record)[BEGUN]) * after / before;
        record[BEGUN * 8..][..8].copy_from_slice(&(begun as u64).to_ne_bytes());
        map.set_first(node, &record);
    }
}

fn tally<'m>(map: &'m mut Map<'_>, node: Node) -> Tally<'m> {
    Tally::of(map.value_mut(node).after(STATE))
}

/// The entry of a peer; made if it is missing, which it is if the zone had to be emptied, or the peer is new.
fn node_of(map: &mut Map<'_>, peer: &Peer) -> Option<Node> {
    let entry = &peer.place.as_ref()?.entry;
    entry.find(map).or_else(|| {
        // All start again; connections that are open aren't known any more.
        let node = insert(map, &entry.key, &record(peer));
        entry.note(map, node)
    })
}

fn load(map: &mut Map<'_>, peer: &Peer) {
    let (Some(node), Some(place)) = (node_of(map, peer), &peer.place) else { return };
    let conns = tally(map, node).sum();
    place.conns.set(conns);
    peer.conns.set(conns);
    let Some(record) = map.first::<STATE>(node) else { return };
    let [effective, current, accessed, checked, fails, average, asked, begun, slow, health] = numbers(record);
    // After a reload its weight may be another one.
    peer.effective_weight.set((effective as i64).clamp(0, peer.weight.get()));
    peer.current_weight.set((current as i64).clamp(-MOST_WEIGHT, MOST_WEIGHT));
    peer.accessed.set(accessed);
    peer.checked.set(checked);
    peer.fails.set(fails as u32);
    peer.average.set(average.min(MOST_AVERAGE));
    peer.asked.set(asked);
    peer.begun_ms.set(begun);
    peer.slow_since_ms.set(slow);
    peer.health.set(Health::of(health));
}

fn store(map: &mut Map<'_>, peer: &Peer) {
    let (Some(node), Some(place)) = (node_of(map, peer), &peer.place) else { return };
    map.set_first(node, &record(peer));
    let (before, now, me) = (place.conns.get(), peer.conns.get(), os::process::identity());
    match now.checked_sub(before) {
        Some(0) => {}
        Some(more) => {
            let node = Tally::make_place(map, node, STATE, me);
            place.entry.note(map, Some(node));
            tally(map, node).add(me, more);
        }
        None => tally(map, node).sub(me, before - now),
    }
}

fn record(peer: &Peer) -> Record {
    let mut record = [0; STATE];
    let numbers = [
        peer.effective_weight.get() as u64,
        peer.current_weight.get() as u64,
        peer.accessed.get(),
        peer.checked.get(),
        peer.fails.get().into(),
        peer.average.get(),
        peer.asked.get(),
        peer.begun_ms.get(),
        peer.slow_since_ms.get(),
        peer.health.get().number(),
    ];
    for (place, number) in record.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_ne_bytes());
    }
    record
}

/// Where a record has when its connections began.
const BEGUN: usize = 7;
/// Where it has what checks say.
const HEALTH: usize = 9;
/// What a process left half-written must not make sums of weights overflow.
const MOST_WEIGHT: i64 = 1 << 40;
/// The same for averages.
const MOST_AVERAGE: u64 = 1 << 44;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use conf::{Env, Registry, Sources};
    use os::SockAddr;

    use super::*;
    use crate::health::Check;
    use crate::roster::{Found, Plan};
    use crate::spec::{GroupSpec, ServerSpec};

    /// A group of these servers (port and weight), in a zone.
    struct Group {
        zone: Rc<SharedZone>,
        shared: Shared,
        list: Vec<Rc<Peer>>,
        ranks: Rc<Ranks>,
    }

    impl Group {
        fn new(servers: &[(u16, u32)]) -> Group {
            let registry = Registry::new();
            let mut loader = Loader::new(&registry, Env::default(), Sources::default());
            let [word, size] = [&b"z"[..], b"32k"].map(|text| Word { text: text.into(), ..Word::default() });
            let zone = declare(&mut loader, &word, Some(&size), "test").expect("declared");
            let servers = servers.iter().map(|(port, weight)| {
                let addr = SockAddr::from(SocketAddr::from(([127, 0, 0, 1], *port)));
                ServerSpec { weight: Some(*weight), ..ServerSpec::new("x", vec![addr]) }
            });
            let spec = GroupSpec {
                name: b"u".into(),
                servers: servers.collect(),
                zone: Some(zone.clone()),
                ..GroupSpec::default()
            };
            let checks = Rc::<Checks>::default();
            let ranks = Rc::new(Plan::new(&spec, &checks).ranks(None));
            let shared = Shared::new(&zone, b"u", &ranks, false, &checks);
            Group { zone, shared, list: ranks.primary.list.clone(), ranks }
        }

        fn exchange<R>(&self, f: impl FnOnce() -> R) -> R {
            self.shared.exchange(false, |_| (), || self.ranks.clone(), |_| f())
        }
    }

    fn known(zone: &SharedZone) -> usize {
        let is_peer = |map: &Map<'_>, node| map.key(node).first() == Some(&PEER);
        zone.zone().with(|map| {
            let all = std::iter::successors(map.oldest(), |node| map.newer(*node));
            all.filter(|node| is_peer(map, *node)).count()
        })
    }

    #[test]
    fn state_is_shared_and_outlives_reloads() {
        let one = Group::new(&[(1, 5), (2, 1), (2, 1)]);
        one.zone.open(None).expect("memory");
        one.exchange(|| {
            one.list[0].conns.set(7);
            one.list[0].effective_weight.set(5);
            assert!(one.list[1].failed(100));
            one.list[2].current_weight.set(-3);
        });
        // Another worker; then a reload that changes a weight, and takes one server away.
        let other = Group::new(&[(1, 5), (2, 1), (2, 1)]);
        let state = |group: &Group| -> Vec<_> {
            let of = |peer: &Rc<Peer>| (peer.conns.get(), peer.fails.get(), peer.effective_weight.get());
            group.list.iter().map(of).collect()
        };
        let other = Group { zone: one.zone.clone(), shared: one.shared, ..other };
        let seen = other.exchange(|| state(&other));
        assert_eq!(seen, [(7, 0, 5), (0, 1, 0), (0, 0, 1)]);
        assert_eq!(other.list[2].current_weight.get(), -3);
        let next = Group::new(&[(3, 1), (1, 2)]);
        next.zone.open(Some(&other.zone)).expect("memory");
        assert_eq!(next.exchange(|| state(&next)), [(0, 0, 1), (7, 0, 2)]);
        assert_eq!(known(&next.zone), 4, "the old workers go on");
        let last = Group::new(&[(3, 1), (1, 2)]);
        last.zone.open(Some(&next.zone)).expect("memory");
        assert_eq!(known(&last.zone), 2);
    }

    #[test]
    fn connections_of_a_killed_worker_are_taken_back() {
        let one = Group::new(&[(1, 1)]);
        one.zone.open(None).expect("memory");
        let child = os::process::tests_fork(|| {
            one.exchange(|| {
                one.list[0].conns.set(2);
                one.list[0].begun_ms.set(200);
            });
        });
        let open = |more| {
            one.exchange(|| {
                one.list[0].conns.set(one.list[0].conns.get() + more);
                one.list[0].conns.get()
            })
        };
        assert_eq!(open(3), 5);
        one.exchange(|| one.list[0].begun_ms.set(500));
        one.zone.zone().with(|map| forget(map, child));
        assert_eq!(open(0), 3);
        assert_eq!(one.list[0].begun_ms.get(), 300, "what is left began at 100, on average");
    }

    #[test]
    fn of_many_workers_each_may_be_killed() {
        let one = Group::new(&[(1, 1)]);
        one.zone.open(None).expect("memory");
        let open = || one.exchange(|| one.list[0].conns.set(one.list[0].conns.get() + 1));
        open();
        let workers: Vec<i32> = (0..30).map(|_| os::process::tests_fork(open)).collect();
        open();
        assert_eq!(one.exchange(|| one.list[0].conns.get()), 32);
        one.zone.zone().with(|map| workers.iter().for_each(|pid| forget(map, *pid)));
        assert_eq!(one.exchange(|| one.list[0].conns.get()), 2);
    }

    #[test]
    fn an_emptied_zone_fills_again() {
        let one = Group::new(&[(1, 1)]);
        one.zone.open(None).expect("memory");
        one.exchange(|| one.list[0].conns.set(3));
        one.zone.zone().tests_empty();
        assert_eq!(one.exchange(|| one.list[0].conns.get()), 0);
        assert_eq!(known(&one.zone), 1);
    }

    #[test]
    fn peers_are_made_anew_when_something_has_changed() {
        let one = Group::new(&[(1, 1)]);
        one.zone.open(None).expect("memory");
        let (roster, made) = (RefCell::default(), Cell::new(0));
        let publish = |last| {
            let learn = |roster: &mut Roster| roster.learn(&b"a.test"[..].into(), vec![found(last)]);
            let ranks = || {
                made.set(made.get() + 1);
                assert!(one.zone.zone().with_soon(|_| ()).is_ok(), "nobody has to wait for it");
                one.ranks.clone()
            };
            assert!(one.shared.publish(&roster, learn, ranks));
            made.get()
        };
        assert_eq!([publish(1), publish(1), publish(2), publish(2)], [1, 1, 2, 2]);
        os::process::tests_fork(|| assert_eq!(publish(3), 3));
        assert_eq!(publish(3), 3, "another worker has said it");
        let is_shared = || one.zone.zone().with(|map| one.shared.number(map)).is_some();
        one.zone.zone().tests_empty();
        assert!(!is_shared());
        assert_eq!((publish(3), is_shared()), (3, true), "only the zone has to learn it");
    }

    fn found(last: u8) -> Found {
        Found::address([127, 0, 0, last].into())
    }

    #[test]
    fn one_worker_leads() {
        let one = Group::new(&[(1, 1)]);
        one.zone.open(None).expect("memory");
        assert!(one.shared.lead(1000) && one.shared.lead(2000));
        os::process::tests_fork(|| assert!(!one.shared.lead(2000 + BEATS_MS)));
        let late = os::process::tests_fork(|| assert!(one.shared.lead(2001 + BEATS_MS), "it was silent for too long"));
        assert!(!one.shared.lead(2002 + BEATS_MS));
        one.zone.zone().with(|map| forget(map, late));
        assert!(one.shared.lead(2003 + BEATS_MS), "it was killed");
        // A later configuration leads at once, and for good.
        let next = Group::new(&[(1, 1)]);
        next.zone.open(Some(&one.zone)).expect("memory");
        let late = os::process::tests_fork(|| assert!(next.shared.lead(2004 + BEATS_MS)));
        assert!(!one.shared.lead(2005 + BEATS_MS));
        assert!(one.shared.lead(3000 + 2 * BEATS_MS), "{late} has ended, late as it is");
        assert!(next.shared.lead(3001 + 2 * BEATS_MS));
        assert!(!one.shared.lead(99_000), "it is late, and lives");
        // One that is about to end gives up what it has, and only that.
        one.shared.resign();
        assert!(next.shared.lead(99_001));
        next.shared.resign();
        let last = Group::new(&[(1, 1)]);
        last.zone.open(Some(&next.zone)).expect("memory");
        assert!(!one.shared.lead(99_002) && !next.shared.lead(99_002) && last.shared.lead(99_002));
    }

    #[test]
    fn checks_begin_with_the_first_worker() {
        let check = Check { mandatory: true, ..Check::default() };
        let is_healthy = |group: &Group| group.exchange(|| group.list[0].serves(0));
        let old = Group::new(&[(1, 1)]);
        old.zone.open(None).expect("memory");
        assert!(old.shared.lead(1000) && is_healthy(&old));
        let new = Group::new(&[(1, 1)]);
        new.shared.checks.add(&check).expect("the first");
        new.zone.open(Some(&old.zone)).expect("memory");
        assert!(is_healthy(&new), "nobody checks yet: the configuration may still fail");
        assert!(new.shared.lead(1001) && !is_healthy(&new));
        assert!(is_healthy(&old), "it has no such check");
        // What was said of a peer isn't asked again for a worker that takes the place of another.
        new.exchange(|| new.list[0].health.set(Health::default()));
        new.shared.resign();
        let again = os::process::tests_fork(|| assert!(is_healthy(&new)));
        new.shared.zone.zone().with(|map| forget(map, again));
        new.shared.resigned.set(false);
        assert!(new.shared.lead(1002) && is_healthy(&new));
    }

    #[test]
    fn the_layout_is_that_of_its_number() {
        let places = Places::new(b"u");
        let place = places.peer(Position { backup: true, server: 3, twins: 2 }, "10.0.0.1:80");
        assert_eq!((LAYOUT, &*place.entry.key), (1, &b"p\x00u\x001\x002\x0010.0.0.1:80"[..]));
        assert_eq!([ROSTER, LEADER, GENERATION].map(|kind| places.key(kind, b"")[0]), *b"rlg");
        let group = Group::new(&[(1, 5)]);
        let peer = &group.list[0];
        peer.current_weight.set(-3);
        peer.fails.set(2);
        peer.health.set(Health::of(1 << 32 | 2));
        let numbers = numbers::<10>(record(peer)).map(|number| number as i64);
        let [effective, current, accessed, checked, fails, average, asked, begun, slow, health] = numbers;
        assert_eq!([effective, current, accessed, checked, fails], [5, -3, 0, 0, 2]);
        assert_eq!([average, asked, begun, slow, health], [0, 0, 0, 0, 0x1_0000_0002]);
    }

    #[test]
    fn too_many_for_the_zone() {
        let servers: Vec<(u16, u32)> = (1..1000).map(|port| (port, 1)).collect();
        let group = Group::new(&servers);
        assert_eq!(group.zone.open(None), Err("no memory in upstream zone \"z\"".to_owned()));
    }
}
