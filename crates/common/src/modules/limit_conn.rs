//! `limit_conn`: how many connections (in http: requests under way) there may be for one key at a time.
//!
//! An entry of the zone is a key and the tally of its `Leases`: what a killed worker held is taken back. The entry of a
//! key without leases stays, for the next session with that key, until another key needs its memory. Such entries are the
//! oldest of the table, so that they are found at once. Entries with leases are never evicted: where there is no room for
//! a key it is refused.

use std::rc::Rc;

use buf::parse::parse_number;
use conf::values::{flag, number_between, one_of};
use conf::{Args, Directive, Error, Loader, Registry, Result, Set};
use engine::cycle::zones::{self, Owner, SharedZone, Zones};
use engine::log::Level;
use expr::vars::Flags;
use shm::{Map, Node, Noted, Tally, Zone};
use smallvec::SmallVec;

use super::limit::{self, KeyValue, Kind, LOG_LEVELS};
use super::{Check, Module, Phases, Verdict};
use crate::handover::format::Pairs;
use crate::vars::text::put;
use crate::vars::{Getter, Setup};
use crate::{Proto, Session};

/// The module.
pub struct LimitConn;

conf::table! {
    /// Zones are declared for all of the protocol's block.
    pub struct LimitConnZones of P: Proto, raw LimitConnZonesRaw,
        at P::tables().limit_conn_zones, block P::PLACES.block, level conf::Level::Main;

    /// Declares a zone of shared memory in which all workers count the requests under way by a key.
    ///
    /// Form: `limit_conn_zone key zone=name:size`
    ///
    /// - `key`: a text with variables. Requests with an empty key aren't counted.
    /// - `zone=name:size`: the zone's name and size, at least 8 pages (32k).
    ///
    /// Effect: none as long as no `limit_conn` names the zone.
    ///
    /// Cost: the zone's memory.
    ///
    /// Danger: while the zone is full of keys with requests under way, requests with a new key are refused.
    ///
    /// ```nginx http
    /// limit_conn_zone $binary_remote_addr zone=clients:10m;
    /// server {
    ///     limit_conn clients 20;
    /// }
    /// ```
    ///
    /// ```nginx stream
    /// limit_conn_zone $binary_remote_addr zone=clients:10m;
    /// server {
    ///     listen 127.0.0.1:5431;
    ///     proxy_pass 127.0.0.1:5432;
    ///     limit_conn clients 20;
    /// }
    /// ```
    "limit_conn_zone" in P::PLACES.block, Args::exactly(2), default none,
        block(parse_zone::<P>);
}

conf::table! {
    /// The limits of a level.
    pub struct LimitConnConf of P: Proto, raw LimitConnRaw,
        at P::tables().limit_conn, block P::PLACES.block, level P::PLACES.innermost;

    /// Limits the number of requests under way with the same key.
    ///
    /// Form: `limit_conn zone number`
    ///
    /// - `zone`: the zone, which `limit_conn_zone` declares.
    /// - `number`: how many requests may be under way with one value of its key.
    ///
    /// Effect: a request beyond the limit is refused with `limit_conn_status`. A connection counts from when the head
    /// of a request has been read until the request ends; with HTTP/2 each request counts. `$limit_conn_status` shows
    /// what happened. The directive may be repeated for several zones. A level with any limit doesn't inherit those of
    /// the level around it.
    ///
    /// Cost: a lookup in shared memory at the beginning and the end of each request.
    ///
    /// Danger: clients behind one address (a company, a mobile network) share a key of addresses.
    ///
    /// ```nginx http
    /// limit_conn_zone $binary_remote_addr zone=clients:10m;
    /// limit_conn_zone $server_port zone=servers:1m;
    /// server {
    ///     limit_conn clients 20;
    ///     limit_conn servers 1000;
    /// }
    /// ```
    ///
    /// ```nginx stream
    /// limit_conn_zone $binary_remote_addr zone=clients:10m;
    /// limit_conn_zone $server_port zone=servers:1m;
    /// server {
    ///     listen 127.0.0.1:5431;
    ///     proxy_pass 127.0.0.1:5432;
    ///     limit_conn clients 20;
    ///     limit_conn servers 1000;
    /// }
    /// ```
    "limit_conn" in P::PLACES.everywhere, Args::exactly(2), default none,
        set(limit::<P>) limits: Vec<Limit> = Vec::new();
    /// Sets the level at which refused requests are logged.
    ///
    /// Form: `limit_conn_log_level level`
    ///
    /// - `level`: `info`, `notice`, `warn` or `error`.
    ///
    /// Effect: a line in the error log for each refused request, if `error_log` has this level.
    ///
    /// ```nginx
    /// limit_conn_log_level warn;
    /// ```
    "limit_conn_log_level" in P::PLACES.everywhere, Args::exactly(1), default "error",
        scalar(one_of(LOG_LEVELS)) log_level: Level = Level::Error;
    /// Sets the status of refused requests.
    ///
    /// Form: `limit_conn_status status`
    ///
    /// - `status`: from 400 to 599.
    ///
    /// Effect: requests beyond a `limit_conn` get it; `error_page` can give it a page.
    ///
    /// ```nginx
    /// limit_conn_status 429;
    /// ```
    "limit_conn_status" in P::PLACES.everywhere, Args::exactly(1), default "503",
        scalar(number_between(400, 599)) status: u16 = 503;
    /// Only logs requests beyond the limit, and doesn't refuse them, if it is `on`.
    ///
    /// Effect: limits can be tried: `$limit_conn_status` is `REJECTED_DRY_RUN` for requests that would be refused.
    ///
    /// ```nginx
    /// limit_conn_dry_run on;
    /// ```
    "limit_conn_dry_run" in P::PLACES.everywhere, Args::FLAG, default "off",
        scalar(flag) dry_run: bool = false;
}

fn limit<P: Proto>(raw: &mut LimitConnRaw, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    parse(raw.limits.get_or_insert_default(), loader, d, P::tables().limit_conn.module())
}

impl<P: Proto> Module<P> for LimitConn {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<LimitConnZones<P>>();
        registry.add::<LimitConnConf<P>>();
    }

    fn variables(&self, setup: &mut Setup<P>) {
        let module = P::tables().limit_conn.module();
        crate::variables! { setup, module;
            /// What `limit_conn` did: `PASSED`, `REJECTED` or `REJECTED_DRY_RUN`. Empty where no limit applied.
            "limit_conn_status", Flags::NOCACHEABLE, Getter::Plain(status);
        }
    }

    fn phases(&self, set: &Set, _: &mut Loader<'_>, out: &mut impl Phases<P>) -> Result<()> {
        let conf = set.share::<LimitConnConf<P>>();
        if !conf.limits.is_empty() {
            out.preaccess(Limiter(conf));
        }
        Ok(())
    }
}

fn status<S: Session>(session: &mut S, out: &mut Vec<u8>) -> bool {
    session.with_family_slot(|status: &mut Status| status.name()).is_some_and(|name| put(out, name.as_bytes()))
}

struct Limiter<P: Proto>(Rc<LimitConnConf<P>>);

impl<P: Proto> Check<P> for Limiter<P> {
    fn check(&self, session: &mut P::Session) -> Verdict {
        // Once for a client's request, wherever it is redirected, whatever subrequests it has.
        if session.with_family_slot(|status: &mut Status| *status != Status::None) {
            return Verdict::Next;
        }
        let owner = owner(P::tables().limit_conn.module());
        let manner = Manner { owner, level: self.0.log_level, dry_run: self.0.dry_run };
        let (status, leases) = admit::<P>(&self.0.limits, session, manner);
        keep(session, status, leases);
        if status == Status::Rejected { Verdict::Refuse(self.0.status) } else { Verdict::Next }
    }

    /// As [`hold_again`], where it isn't known what the session was counted for.
    fn again(&self, session: &mut P::Session) {
        let kind = kind(owner(P::tables().limit_conn.module()));
        let mut keys = Vec::new();
        for Limit { zone, .. } in &self.0.limits {
            keys.extend(limit::key_again::<P>(zone, session, kind).map(|key| (zone, key)));
        }
        hold(session, keys);
    }
}

/// What a session is counted for, to be told to another worker: names of zones, each with a key. Where it was counted need not
/// be where it is now: it may have been redirected since, or its server chosen.
pub fn held<S: Session>(session: &mut S) -> Pairs {
    let pairs = |leases: &Leases| -> Pairs {
        leases.0.iter().map(|lease| (lease.zone.name().as_bytes().to_vec(), lease.key.to_vec())).collect()
    };
    match session.store().slots.find::<Leases>() {
        Some(own) if !own.0.is_empty() => pairs(own),
        _ => session.with_family_slot(|held: &mut Leases| pairs(held)),
    }
}

/// Counts a session of another worker for what it was counted there, as far as there are such zones. It counts even if by now
/// there are more than may be: it is to keep others out.
pub fn hold_again<P: Proto>(session: &mut P::Session, zones: &Zones, held: &Pairs) {
    let owner = owner(P::tables().limit_conn.module());
    hold(session, held.iter().filter_map(|(name, key)| Some((zones.find(name, owner)?, key[..].into()))));
}

/// Counts a session under these keys, however many there are.
fn hold<'z, S: Session>(session: &mut S, keys: impl IntoIterator<Item = (&'z Rc<SharedZone>, KeyValue)>) {
    let mut leases = Leases::default();
    for (zone, key) in keys {
        if let Ok(node) = take(zone.zone(), &key, u32::MAX) {
            leases.0.push(Lease { zone: zone.zone().clone(), key, node });
        }
    }
    if !leases.0.is_empty() {
        keep(session, Status::Passed, leases);
    }
}

/// Keeps what the limits said of a session, and what it holds until it is over. What a subrequest took it holds as long
/// as the client's request: no other one of its subrequests is counted. What the client's request took is its own, since
/// subrequests may go on without it.
fn keep<S: Session>(session: &mut S, status: Status, leases: Leases) {
    if status == Status::None {
        return;
    }
    session.with_family_slot(|known| *known = status);
    if leases.0.is_empty() {
        return;
    }
    match session.is_subrequest() {
        true => session.with_family_slot(|held| *held = leases),
        false => *session.store_mut().slots.entry() = leases,
    }
}

/// One `limit_conn`.
#[derive(Clone)]
pub struct Limit {
    zone: Rc<SharedZone>,
    most: u32,
}

/// What a session holds in the zones; dropping it gives all back.
#[derive(Default)]
struct Leases(SmallVec<[Lease; 1]>);

/// What it holds in one: a part of the tally of this key, which is in this entry.
struct Lease {
    zone: Rc<Zone>,
    key: KeyValue,
    node: Noted,
}

/// What the limits said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Status {
    /// They weren't asked, or none applied.
    #[default]
    None,
    /// Nothing against it.
    Passed,
    /// One is reached.
    Rejected,
    /// One is reached, but `limit_conn_dry_run` is on.
    RejectedDryRun,
}

impl Status {
    /// The value of `$limit_conn_status`.
    fn name(self) -> Option<&'static str> {
        match self {
            Status::None => None,
            Status::Passed => Some("PASSED"),
            Status::Rejected => Some("REJECTED"),
            Status::RejectedDryRun => Some("REJECTED_DRY_RUN"),
        }
    }
}

/// Reads `limit_conn_zone KEY zone=NAME:SIZE`.
fn parse_zone<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let word = d.arg(1);
    let Some(value) = limit::parameter(word, "zone") else {
        return Err(conf::values::invalid_parameter(word));
    };
    let (name, size) = zones::parse(word, value)?;
    if name.is_empty() {
        return Err(Error::on(d, "\"limit_conn_zone\" must have \"zone\" parameter"));
    }
    let owner = owner(P::tables().limit_conn_zones.module());
    limit::declare::<P>(loader, d, name, size, kind(owner))?.on_death(forget);
    Ok(())
}

/// Reads `limit_conn ZONE NUMBER` and adds it to its level's.
fn parse(limits: &mut Vec<Limit>, loader: &mut Loader<'_>, d: &Directive, module: &'static str) -> Result<()> {
    let zone = zones::declare(loader, d.arg(0), &d.arg(0).text, 0, owner(module))?;
    if limits.iter().any(|limit| Rc::ptr_eq(&limit.zone, &zone)) {
        return Err(conf::table::duplicate(d));
    }
    let word = d.arg(1);
    let number = parse_number(&word.text).filter(|number| *number > 0);
    let number =
        number.ok_or_else(|| Error::at(word, format!("invalid number of connections \"{}\"", word.lossy())))?;
    let most = u16::try_from(number).map_err(|_| Error::at(word, "connection limit must be less 65536"))?;
    limits.push(Limit { zone, most: most.into() });
    Ok(())
}

/// How [`admit`] treats what goes beyond a limit.
#[derive(Clone, Copy, Debug)]
struct Manner {
    /// The owner of the zones.
    owner: Owner,
    /// The level of the message.
    level: Level,
    /// Whether it is only counted and logged.
    dry_run: bool,
}

/// Counts a session under all limits, or (leaving nothing counted) under none if one is reached.
fn admit<P: Proto>(limits: &[Limit], session: &mut P::Session, manner: Manner) -> (Status, Leases) {
    let mut leases = Leases::default();
    let mut status = Status::None;
    for Limit { zone, most } in limits {
        let Some(key) = limit::key::<P>(zone, session, kind(manner.owner)) else { continue };
        status = Status::Passed;
        match take(zone.zone(), &key, *most) {
            Ok(node) => leases.0.push(Lease { zone: zone.zone().clone(), key, node }),
            Err(refused) => {
                let dry = if manner.dry_run { ", dry run," } else { "" };
                if refused == Refused::Limit {
                    let name = zone.name();
                    let message = format_args!("limiting connections{dry} by zone \"{name}\"");
                    session.log_at(manner.level, message);
                }
                let status = if manner.dry_run { Status::RejectedDryRun } else { Status::Rejected };
                return (status, Leases::default());
            }
        }
    }
    (status, leases)
}

/// Why a session isn't counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// The limit is reached.
    Limit,
    /// There is no room in the zone.
    NoMemory,
}

/// Counts a session under a key; the entry of this.
fn take(zone: &Zone, key: &[u8], most: u32) -> std::result::Result<Noted, Refused> {
    zone.with(|map| {
        let node = entry(map, key).ok_or(Refused::NoMemory)?;
        let sum = Tally::of(map.value_mut(node)).sum();
        if sum >= most {
            return Err(Refused::Limit);
        }
        let me = os::process::identity();
        let node = Tally::make_place(map, node, 0, me);
        Tally::of(map.value_mut(node)).add(me, 1);
        if sum == 0 {
            map.touch(node);
        }
        Ok(map.note(node))
    })
}

/// The entry of a key; a new one may take the memory of others that hold nothing.
fn entry(map: &mut Map<'_>, key: &[u8]) -> Option<Node> {
    let room = Map::room(key.len(), Tally::bytes(LEAST_PLACES));
    let none = NONE.get(..room).unwrap_or(&NONE);
    let mut found = map.find_or_insert(key, none);
    for _ in 0..MOST_EVICTED {
        if found.is_some() {
            break;
        }
        let oldest = map.oldest()?;
        if Tally::of(map.value_mut(oldest)).sum() > 0 {
            return None;
        }
        map.remove(oldest);
        found = map.find_or_insert(key, none);
    }
    found
}

/// How many connections a zone counts, of all keys.
pub fn counted(map: &mut Map<'_>) -> u64 {
    let mut sum = 0;
    let mut at = map.oldest();
    while let Some(node) = at {
        at = map.newer(node);
        sum += u64::from(Tally::of(map.value_mut(node)).sum());
    }
    sum
}

/// Takes back what a process held that has been killed.
fn forget(map: &mut Map<'_>, pid: i32) {
    let mut at = map.oldest();
    while let Some(node) = at {
        at = map.newer(node);
        let mut tally = Tally::of(map.value_mut(node));
        tally.forget(|identity| os::process::pid_of(identity) == pid);
        if tally.sum() == 0 {
            map.remove(node);
        }
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        for Lease { zone, key, node } in &self.0 {
            zone.with(|map| {
                // It is gone if the zone had to be emptied.
                let Some(node) = map.noted(*node, key) else { return };
                let mut tally = Tally::of(map.value_mut(node));
                tally.sub(os::process::identity(), 1);
                if tally.sum() == 0 {
                    map.age(node);
                }
            });
        }
    }
}

/// How many entries that hold nothing make room for one, should the zone be full: they may be of other sizes than the one
/// that comes.
const MOST_EVICTED: usize = 1000;
/// A tally has as many places as its entry has room, and this many at least.
const LEAST_PLACES: usize = 2;
/// A tally of nothing, of the most places that an entry has.
static NONE: [u8; 512] = [0; 512];

/// The owner of zones with tallies under their keys.
fn owner(module: &'static str) -> Owner {
    Owner { module, layout: 1 }
}

fn kind(owner: Owner) -> Kind {
    Kind { owner, bound: "limit_conn_zone", changed: "limit_conn_zone", longest_key: 255 }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;

    #[test]
    fn leases_are_counted_and_given_back() {
        let zone = Rc::new(Zone::new("one", 65536, |_, _| ()).expect("memory"));
        let lease = |key: &[u8], most| {
            let node = take(&zone, key, most).ok()?;
            Some(Leases(smallvec![Lease { zone: zone.clone(), key: key.into(), node }]))
        };
        let (a, b) = (lease(b"a", 2), lease(b"a", 2));
        assert!(a.is_some() && b.is_some() && lease(b"a", 2).is_none());
        let (other, third) = (lease(b"b", 1), lease(b"a", 3));
        assert!(other.is_some() && third.is_some());
        drop((b, third));
        assert!(lease(b"a", 2).is_some(), "given back at once again");
        assert!(lease(b"a", 1).is_none());
        drop((a, other));
        assert!(zone.with(|map| map.check()));
        assert_eq!(zone.with(counted), 0);
        let held = [lease(b"a", 2), lease(b"a", 2), lease(b"b", 1)];
        assert_eq!(zone.with(counted), 3);
        // What was held before the zone had to be emptied isn't taken from what is held now.
        zone.tests_empty();
        let again = [lease(b"b", 1), lease(b"a", 1)];
        drop(held);
        assert_eq!(zone.with(counted), 2);
        assert!(zone.with(|map| map.check()));
        drop(again);
    }

    /// Takes a lease for each of the keys of so many bytes, as long as there is room.
    fn fill(zone: &Rc<Zone>, len: usize) -> Vec<Leases> {
        let leases = (0_u32..).map_while(|n| {
            let mut key = KeyValue::from_slice(&n.to_ne_bytes());
            key.resize(len, 0);
            let node = take(zone, &key, 1).ok()?;
            Some(Leases(smallvec![Lease { zone: zone.clone(), key, node }]))
        });
        leases.collect()
    }

    #[test]
    fn entries_without_leases_make_room() {
        let zone = Rc::new(Zone::new("one", zones::SMALLEST, |_, _| ()).expect("memory"));
        let mut short = fill(&zone, 4);
        let first = zone.with(|map| (map.find(&0_u32.to_ne_bytes()), map.len()));
        drop(short.swap_remove(0));
        assert_eq!(zone.with(|map| (map.find(&0_u32.to_ne_bytes()), map.len())), first, "it stays");
        assert!(take(&zone, b"other", 1).is_ok() && take(&zone, b"another", 1) == Err(Refused::NoMemory));
        assert_eq!(zone.with(|map| (map.find(&0_u32.to_ne_bytes()), map.len())), (None, first.1));
        // A page of another size.
        assert_eq!(fill(&zone, 200).len(), 0);
        drop(short);
        assert!(fill(&zone, 200).len() > 50);
        assert!(take(&zone, b"other", 1) == Err(Refused::Limit) && zone.check());
    }

    #[test]
    fn a_session_evicts_few() {
        let zone = Rc::new(Zone::new("one", 1 << 20, |_, _| ()).expect("memory"));
        let mut leases: Vec<_> = fill(&zone, 4).into_iter().map(Some).collect();
        // One of each page, and so on: all have to go before a page is free.
        (0..64).for_each(|first| leases.iter_mut().skip(first).step_by(64).for_each(|lease| *lease = None));
        let before = zone.with(|map| map.len());
        assert_eq!(take(&zone, &[1; 200], 1), Err(Refused::NoMemory));
        assert_eq!(before - zone.with(|map| map.len()), MOST_EVICTED);
        assert!((0..before / MOST_EVICTED + 1).any(|_| take(&zone, &[1; 200], 1).is_ok()));
    }

    #[test]
    fn what_a_killed_worker_held_is_taken_back() {
        let zone = Zone::new("one", 65536, |_, _| ()).expect("memory");
        let child = os::process::tests_fork(|| {
            for key in [b"a", b"a", b"b"] {
                assert!(take(&zone, key, 2).is_ok());
            }
        });
        assert!(take(&zone, b"a", 2) == Err(Refused::Limit) && take(&zone, b"b", 2).is_ok());
        zone.with(|map| forget(map, child));
        let left = zone.with(|map| (map.find(b"a").is_some(), map.find(b"b").is_some()));
        assert_eq!(left, (false, true));
        // However many there are.
        let take = || assert!(take(&zone, b"a", u32::MAX).is_ok());
        let workers: Vec<i32> = (0..20).map(|_| os::process::tests_fork(take)).collect();
        zone.with(|map| workers.iter().for_each(|pid| forget(map, *pid)));
        assert!(zone.with(|map| map.find(b"a").is_none()));
    }

    #[test]
    fn the_layout_is_that_of_its_number() {
        let zone = Zone::new("one", 65536, |_, _| ()).expect("memory");
        assert!(take(&zone, b"a", 2).is_ok());
        let value = zone.with(|map| map.find(b"a").map(|node| map.value(node))).expect("it is there");
        let place = [os::process::identity().to_le_bytes(), 1_u32.to_le_bytes()].concat();
        // Other bytes need another number of the layout: a program that was there before may read them.
        assert_eq!((owner("test").layout, &value[..8]), (1, &place[..]));
    }

    #[test]
    fn a_full_zone_refuses() {
        let zone = Zone::new("one", zones::SMALLEST, |_, _| ()).expect("memory");
        let first = (0..100_000_u32).find(|n| take(&zone, &n.to_ne_bytes(), 1).is_err());
        let full = first.expect("it gets full");
        assert_eq!(take(&zone, &full.to_ne_bytes(), 1), Err(Refused::NoMemory));
        assert_eq!(take(&zone, &0_u32.to_ne_bytes(), 1), Err(Refused::Limit));
    }
}
