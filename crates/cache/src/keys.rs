//! The zone of a cache: what is known of its files, and which of them are being fetched.
//!
//! An entry is made when a key is first asked for, before there is a file: it counts how often that has happened, holds
//! the lock of whoever fetches the response, and remembers errors. Entries are in the order of their last use. A further
//! entry, under a key that no response has, holds the sums and the wildcards of purges.

use std::rc::Rc;

use engine::cycle::zones::{Owner, SharedZone};
use shm::{Map, Node};

use crate::key::Key;

/// The zone of a cache.
pub struct Keys {
    zone: Rc<SharedZone>,
    /// After how many seconds without use an entry is removed.
    inactive: u64,
}

/// The owner of zones of caches, which belong to this module.
pub fn owner(module: &'static str) -> Owner {
    Owner { module, layout: LAYOUT }
}

/// The version of keys, records, totals and wildcards in zones.
const LAYOUT: u32 = 1;

/// The times of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Seconds since 1970.
    pub secs: i64,
    /// Milliseconds of a clock that all processes share and nobody sets.
    pub ms: u64,
}

/// What the zone knows of a key that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Whether there is a file, or may be one: not all of the folder has been looked at yet.
    pub exists: bool,
    /// Whether the zone knows of the file.
    pub known: bool,
    /// How often it was asked for, this time included.
    pub uses: u16,
    /// The status of an error that is remembered in place of a response.
    pub error: Option<u16>,
    /// Whether somebody fetches it.
    pub updating: bool,
    /// Whether a purge by wildcard may concern it.
    pub purges: bool,
}

/// The right to fetch a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// The answer to who asks for the right to fetch a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// It has the right.
    Mine(Ticket),
    /// Another request has it, and tells of its end.
    Others,
    /// Another request has stored the response since this one looked.
    Stored,
}

impl Lock {
    /// The right, if it was given.
    pub fn ticket(self) -> Option<Ticket> {
        match self {
            Lock::Mine(ticket) => Some(ticket),
            Lock::Others | Lock::Stored => None,
        }
    }
}

/// What happens to an entry whose response was fetched, or wasn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The file stands in its place, and takes so many bytes on disk.
    Stored(u64),
    /// This status is to be remembered until then (seconds since 1970).
    Error(u16, i64),
    /// What was there stays.
    Nothing,
}

/// The sums of a zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Bytes on disk.
    pub size: u64,
    /// Entries, whether with files or without.
    pub count: usize,
    /// How many entries there may be: the zone was once full.
    pub watermark: usize,
}

/// A purge of all keys with a beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wildcard {
    /// What the keys begin with.
    pub prefix: Vec<u8>,
    /// What was stored before this (nanoseconds since 1970) is purged.
    pub before_ns: u64,
}

/// An entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    flags: u16,
    uses: u16,
    error: u16,
    /// Until when the error counts.
    error_until: i64,
    /// When it may be removed.
    expires: i64,
    size: u64,
    /// The lock's number; 0 for none.
    lock: u64,
    locked_ms: u64,
    /// The process that has the lock.
    holder: i32,
}

/// There is a file.
const EXISTS: u16 = 1;
/// Somebody waits for the lock.
const AWAITED: u16 = 2;

const RECORD: usize = 52;

impl Record {
    fn read(map: &Map<'_>, node: Node) -> Option<Record> {
        let bytes: [u8; RECORD] = map.array(node)?;
        let mut rest = &bytes[..];
        Some(Record {
            flags: u16::from_le_bytes(take(&mut rest)?),
            uses: u16::from_le_bytes(take(&mut rest)?),
            error: u16::from_le_bytes(take(&mut rest)?),
            holder: {
                take::<2>(&mut rest)?;
                i32::from_le_bytes(take(&mut rest)?)
            },
            error_until: i64::from_le_bytes(take(&mut rest)?),
            expires: i64::from_le_bytes(take(&mut rest)?),
            size: u64::from_le_bytes(take(&mut rest)?),
            lock: u64::from_le_bytes(take(&mut rest)?),
            locked_ms: u64::from_le_bytes(take(&mut rest)?),
        })
    }

    fn bytes(&self) -> [u8; RECORD] {
        let mut out = [0; RECORD];
        let numbers = [self.error_until as u64, self.expires as u64, self.size, self.lock, self.locked_ms];
        out[0..2].copy_from_slice(&self.flags.to_le_bytes());
        out[2..4].copy_from_slice(&self.uses.to_le_bytes());
        out[4..6].copy_from_slice(&self.error.to_le_bytes());
        out[8..12].copy_from_slice(&self.holder.to_le_bytes());
        for (place, number) in out[12..].as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *place = number.to_le_bytes();
        }
        out
    }

    /// Whether somebody fetches it.
    fn is_locked(&self) -> bool {
        self.lock != 0
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}

/// The entry of the sums: responses' keys have 16 bytes.
const SUMS: &[u8] = b"sums";

/// What stands in the entry of the sums, before the wildcards.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    size: u64,
    watermark: u64,
    /// The number of the last lock.
    locks: u64,
    /// Whether the folder has been looked at.
    loaded: u64,
    wildcards: u64,
}

const TOTALS: usize = 40;

impl Totals {
    /// The sums of a zone; made where there are none, with whatever has to make room.
    fn of(map: &mut Map<'_>) -> (Totals, Option<Node>) {
        let node = map.anchor(SUMS).or_else(|| map.insert_evicting(SUMS, &[0; TOTALS], 1000));
        (Totals::read(map, node), node)
    }

    fn read(map: &Map<'_>, node: Option<Node>) -> Totals {
        let bytes = node.and_then(|node| map.array::<TOTALS>(node)).unwrap_or([0; TOTALS]);
        let mut words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let mut next = || words.next().unwrap_or(0);
        let (size, watermark, locks, loaded, wildcards) = (next(), next(), next(), next(), next());
        Totals { size, watermark, locks, loaded, wildcards }
    }

    fn write(&self, map: &mut Map<'_>, node: Option<Node>) {
        let mut bytes = [0; TOTALS];
        let words = [self.size, self.watermark, self.locks, self.loaded, self.wildcards];
        for (place, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        if let Some(node) = node {
            map.set_value(node, &bytes);
        }
    }

    fn change<R>(map: &mut Map<'_>, f: impl FnOnce(&mut Totals) -> R) -> R {
        let (mut totals, node) = Totals::of(map);
        let result = f(&mut totals);
        totals.write(map, node);
        result
    }
}

/// How many entries are removed at most to make room for one.
const EVICTED: usize = 20;
/// How many wildcards a zone remembers; further ones are joined with the oldest, by what both begin with.
const WILDCARDS: u64 = 64;

impl Keys {
    /// The keys in a zone.
    pub fn new(zone: Rc<SharedZone>, inactive: u64) -> Keys {
        zone.on_death(forget_locks);
        Keys { zone, inactive }
    }

    /// The zone.
    pub fn zone(&self) -> &Rc<SharedZone> {
        &self.zone
    }

    /// A request asks for a key: counts that. `None`: the zone is full. Files of the keys that had to make room are to be
    /// removed.
    pub fn look(&self, key: &Key, now: Now, evicted: &mut Vec<Key>) -> Option<Looked> {
        self.zone.zone().with(|map| {
            let (node, mut record) = match find(map, key) {
                Some(found) => found,
                None => {
                    let record = Record::default();
                    (insert(map, key, &record, evicted)?, record)
                }
            };
            record.uses = record.uses.saturating_add(1);
            self.used(map, node, &mut record, now);
            if record.error != 0 && record.error_until < now.secs {
                record.error = 0;
            }
            map.set_value(node, &record.bytes());
            let (totals, _) = Totals::of(map);
            let known = record.flags & EXISTS != 0;
            let exists = known || totals.loaded == 0;
            let purges = totals.wildcards > 0;
            let error = Some(record.error).filter(|error| *error != 0);
            Some(Looked { exists, known, uses: record.uses, error, updating: record.is_locked(), purges })
        })
    }

    /// Asks for the right to fetch a key. A lock that is older than `age_ms` doesn't count; without `age_ms` it does,
    /// however old. `missing`: a look has found no file, so if there is one it has been stored since.
    pub fn lock(&self, key: &Key, age_ms: Option<u64>, missing: bool, now: Now, evicted: &mut Vec<Key>) -> Lock {
        self.zone.zone().with(|map| {
            let (node, mut record) = match find(map, key) {
                Some(found) => found,
                None => {
                    let record = Record { expires: now.secs + self.inactive as i64, ..Record::default() };
                    match insert(map, key, &record, evicted) {
                        Some(node) => (node, record),
                        // Nobody can be found to have it.
                        None => return Lock::Mine(Ticket(0)),
                    }
                }
            };
            if missing && record.flags & EXISTS != 0 {
                return Lock::Stored;
            }
            let old = age_ms.is_some_and(|age| now.ms.saturating_sub(record.locked_ms) >= age);
            if record.is_locked() && !old {
                record.flags |= AWAITED;
                map.set_value(node, &record.bytes());
                return Lock::Others;
            }
            record.lock = Totals::change(map, |totals| {
                totals.locks += 1;
                totals.locks
            });
            (record.locked_ms, record.holder) = (now.ms, os::process::pid());
            map.set_value(node, &record.bytes());
            Lock::Mine(Ticket(record.lock))
        })
    }

    /// Whether somebody has the right to fetch a key.
    pub fn is_locked(&self, key: &Key) -> bool {
        self.zone.zone().with(|map| find(map, key).is_some_and(|(_, record)| record.is_locked()))
    }

    /// A response was fetched, or its fetching has ended otherwise. Gives the lock back, if the ticket is still the one of
    /// the lock. Whether somebody in another process may be waiting for that.
    pub fn fetched(
        &self,
        key: &Key,
        ticket: Option<Ticket>,
        fetched: Fetched,
        now: Now,
        evicted: &mut Vec<Key>,
    ) -> bool {
        self.zone.zone().with(|map| {
            let (node, mut record) = match (find(map, key), fetched) {
                (Some(found), _) => found,
                (None, Fetched::Nothing) => return false,
                (None, _) => {
                    let record = Record { uses: 1, ..Record::default() };
                    let Some(node) = insert(map, key, &record, evicted) else { return false };
                    (node, record)
                }
            };
            self.used(map, node, &mut record, now);
            match fetched {
                Fetched::Stored(size) => {
                    resize(map, &mut record, size);
                    record.flags |= EXISTS;
                    record.error = 0;
                }
                Fetched::Error(status, until) => (record.error, record.error_until) = (status, until),
                Fetched::Nothing => {}
            }
            let ends = ticket.is_some_and(|ticket| record.lock == ticket.0) || fetched != Fetched::Nothing;
            let awaited = ends && record.flags & AWAITED != 0;
            if ticket.is_some_and(|ticket| record.lock == ticket.0) {
                record.lock = 0;
            }
            if ends {
                record.flags &= !AWAITED;
            }
            map.set_value(node, &record.bytes());
            awaited
        })
    }

    /// There is no file, or none that can be used.
    pub fn lost(&self, key: &Key) {
        self.zone.zone().with(|map| {
            if let Some((node, mut record)) = find(map, key) {
                resize(map, &mut record, 0);
                record.flags &= !EXISTS;
                map.set_value(node, &record.bytes());
            }
        });
    }

    /// Removes what is known of a key; whether there was a file.
    pub fn remove(&self, key: &Key) -> bool {
        self.zone.zone().with(|map| {
            let Some((node, record)) = find(map, key) else { return false };
            remove(map, node, &record)
        })
    }

    /// A file was found in the folder. Whether it is to stay: there was room for it.
    pub fn found(&self, key: &Key, size: u64, now: Now) -> bool {
        self.zone.zone().with(|map| {
            let (node, mut record) = match find(map, key) {
                Some((_, record)) if record.flags & EXISTS != 0 => return true,
                Some(found) => found,
                None => {
                    let record = Record { expires: now.secs + self.inactive as i64, ..Record::default() };
                    let Some(node) = map.insert(&key.0, &record.bytes()) else { return false };
                    (node, record)
                }
            };
            resize(map, &mut record, size);
            record.flags |= EXISTS;
            map.set_value(node, &record.bytes());
            true
        })
    }

    /// The whole folder has been looked at: a file that isn't known isn't there.
    pub fn set_loaded(&self) {
        self.zone.zone().with(|map| Totals::change(map, |totals| totals.loaded = 1));
    }

    /// Whether the whole folder has been looked at.
    pub fn is_loaded(&self) -> bool {
        self.zone.zone().with(|map| Totals::of(map).0.loaded != 0)
    }

    /// The sums.
    pub fn sums(&self) -> Sums {
        self.zone.zone().with(|map| {
            let (totals, _) = Totals::of(map);
            let count = map.len().saturating_sub(1 + totals.wildcards as usize);
            let watermark = if totals.watermark == 0 { usize::MAX } else { totals.watermark as usize };
            Sums { size: totals.size, count, watermark }
        })
    }

    /// Removes the entry that has been unused for longest, if it has been so for long enough (`force`: in any case); its
    /// key, and whether it has a file.
    pub fn expire(&self, now: Now, force: bool) -> Option<(Key, bool)> {
        self.zone.zone().with(|map| {
            let (key, node, record) = oldest(map)?;
            if !force && record.expires > now.secs {
                return None;
            }
            if record.is_locked() && !force {
                // Whoever fetches it will use it.
                let mut record = record;
                record.expires = now.secs + self.inactive as i64;
                map.set_value(node, &record.bytes());
                map.touch(node);
                return Some((key, false));
            }
            Some((key, remove(map, node, &record)))
        })
    }

    /// In how many seconds the next entry has been unused for long enough.
    pub fn next_expiry(&self, now: Now) -> Option<u64> {
        self.zone.zone().with(|map| oldest(map).map(|(_, _, record)| (record.expires - now.secs).max(0) as u64))
    }

    /// Purges all keys with a beginning. False if the zone has no room for that. Files of the keys that had to make room are to be
    /// removed.
    pub fn purge_wildcard(&self, wildcard: &Wildcard, evicted: &mut Vec<Key>) -> bool {
        self.zone.zone().with(|map| {
            let count = Totals::of(map).0.wildcards;
            let mut all: Vec<Wildcard> = (0..count).filter_map(|n| read_wildcard(map, n)).collect();
            // A longer beginning is contained in a shorter one.
            all.retain(|old| !old.prefix.starts_with(&wildcard.prefix));
            all.push(wildcard.clone());
            if all.len() as u64 > WILDCARDS {
                join_oldest(&mut all);
            }
            write_wildcards(map, count, all, evicted)
        })
    }

    /// The purges that may concern files yet.
    pub fn wildcards(&self) -> Vec<Wildcard> {
        self.zone.zone().with(|map| {
            let count = Totals::of(map).0.wildcards;
            (0..count).filter_map(|n| read_wildcard(map, n)).collect()
        })
    }

    /// Whether a file was purged that was stored then.
    pub fn is_purged(&self, key: &[u8], stored_ns: u64) -> bool {
        self.zone.zone().with(|map| {
            let count = Totals::of(map).0.wildcards;
            (0..count)
                .filter_map(|n| read_wildcard(map, n))
                .any(|wildcard| stored_ns < wildcard.before_ns && key.starts_with(&wildcard.prefix))
        })
    }

    /// Forgets the purges before a time (nanoseconds since 1970): no file is left that they concern.
    pub fn forget_wildcards(&self, before_ns: u64) {
        self.zone.zone().with(|map| {
            let count = Totals::of(map).0.wildcards;
            let mut all: Vec<Wildcard> = (0..count).filter_map(|n| read_wildcard(map, n)).collect();
            all.retain(|wildcard| wildcard.before_ns >= before_ns);
            if all.len() as u64 != count {
                // They take less room than before.
                write_wildcards(map, count, all, &mut Vec::new());
            }
        });
    }

    fn used(&self, map: &mut Map<'_>, node: Node, record: &mut Record, now: Now) {
        record.expires = now.secs + self.inactive as i64;
        map.touch(node);
    }
}

fn find(map: &Map<'_>, key: &Key) -> Option<(Node, Record)> {
    let node = map.find(&key.0)?;
    Some((node, Record::read(map, node)?))
}

/// Adds an entry. If there is no room the oldest ones make some, and the zone's watermark is set: the manager keeps a
/// part of it free from then on.
fn insert(map: &mut Map<'_>, key: &Key, record: &Record, evicted: &mut Vec<Key>) -> Option<Node> {
    // The sums come first: with them missing, as after damage, the folder has to be looked at.
    Totals::of(map);
    for _ in 0..EVICTED {
        if let Some(node) = map.insert(&key.0, &record.bytes()) {
            return Some(node);
        }
        let count = map.len() as u64;
        Totals::change(map, |totals| totals.watermark = count - count / 8);
        let (old, node, old_record) = oldest(map)?;
        if remove(map, node, &old_record) {
            evicted.push(old);
        }
    }
    map.insert(&key.0, &record.bytes())
}

/// Removes an entry; whether it had a file.
fn remove(map: &mut Map<'_>, node: Node, record: &Record) -> bool {
    let mut record = *record;
    resize(map, &mut record, 0);
    map.remove(node);
    record.flags & EXISTS != 0
}

fn resize(map: &mut Map<'_>, record: &mut Record, size: u64) {
    let old = std::mem::replace(&mut record.size, size);
    Totals::change(map, |totals| totals.size = totals.size.saturating_sub(old).saturating_add(size));
}

/// The response's entry that has been unused for longest. Other entries that stand there become the newest.
fn oldest(map: &mut Map<'_>) -> Option<(Key, Node, Record)> {
    for _ in 0..WILDCARDS + 2 {
        let node = map.oldest()?;
        let key = <[u8; 16]>::try_from(&map.key(node)[..]);
        match (key, Record::read(map, node)) {
            (Ok(key), Some(record)) => return Some((Key(key), node, record)),
            _ => map.touch(node),
        }
    }
    None
}

/// A process that has died fetches nothing any more.
fn forget_locks(map: &mut Map<'_>, pid: i32) {
    let mut at = map.oldest();
    for _ in 0..map.len() {
        let Some(node) = at else { break };
        if let Some(mut record) = Record::read(map, node)
            && record.is_locked()
            && record.holder == pid
        {
            record.lock = 0;
            map.set_value(node, &record.bytes());
        }
        at = map.newer(node);
    }
}

fn wildcard_key(n: u64) -> Vec<u8> {
    format!("wildcard {n:03}").into_bytes()
}

fn read_wildcard(map: &Map<'_>, n: u64) -> Option<Wildcard> {
    let value = map.value(map.find(&wildcard_key(n))?);
    let (time, prefix) = value.split_first_chunk::<8>()?;
    Some(Wildcard { prefix: prefix.to_vec(), before_ns: u64::from_le_bytes(*time) })
}

/// Writes wildcards in place of so many old ones; whether there is room. The oldest entries make some; if that isn't enough
/// the oldest wildcards are joined.
fn write_wildcards(map: &mut Map<'_>, old: u64, mut all: Vec<Wildcard>, evicted: &mut Vec<Key>) -> bool {
    for n in 0..old {
        remove_wildcard(map, n);
    }
    loop {
        let written = (0..).zip(&all).take_while(|(n, wildcard)| write_wildcard(map, *n, wildcard, evicted)).count();
        let fits = written == all.len();
        if fits || all.len() < 2 {
            Totals::change(map, |totals| totals.wildcards = written as u64);
            return fits;
        }
        (0..written as u64).for_each(|n| remove_wildcard(map, n));
        join_oldest(&mut all);
    }
}

fn write_wildcard(map: &mut Map<'_>, n: u64, wildcard: &Wildcard, evicted: &mut Vec<Key>) -> bool {
    let value = [&wildcard.before_ns.to_le_bytes()[..], &wildcard.prefix].concat();
    while map.insert(&wildcard_key(n), &value).is_none() {
        let Some((key, node, record)) = oldest(map) else { return false };
        if remove(map, node, &record) {
            evicted.push(key);
        }
    }
    true
}

fn remove_wildcard(map: &mut Map<'_>, n: u64) {
    if let Some(node) = map.find(&wildcard_key(n)) {
        map.remove(node);
    }
}

/// Puts one purge that contains both in the place of the two oldest.
fn join_oldest(all: &mut Vec<Wildcard>) {
    let (first, second) = (all.remove(0), all.remove(0));
    all.insert(0, join(&first, &second));
}

/// A purge that contains both.
fn join(one: &Wildcard, other: &Wildcard) -> Wildcard {
    let same = one.prefix.iter().zip(&other.prefix).take_while(|(a, b)| a == b).count();
    Wildcard {
        prefix: one.prefix.get(..same).unwrap_or_default().to_vec(),
        before_ns: one.before_ns.max(other.before_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::testing::zone;

    const NOW: Now = Now { secs: 1000, ms: 5000 };

    fn keys(size: usize) -> Keys {
        Keys::new(zone(size), 60)
    }

    fn key(n: u32) -> Key {
        Key::of(&n.to_le_bytes())
    }

    fn later(secs: i64) -> Now {
        Now { secs: NOW.secs + secs, ms: NOW.ms + 1000 * secs as u64 }
    }

    fn look(keys: &Keys, n: u32, now: Now) -> Looked {
        keys.look(&key(n), now, &mut Vec::new()).expect("room")
    }

    fn fetched(keys: &Keys, n: u32, ticket: Option<Ticket>, fetched: Fetched) -> bool {
        keys.fetched(&key(n), ticket, fetched, NOW, &mut Vec::new())
    }

    #[test]
    fn a_record_keeps_all_it_says() {
        let record = Record {
            flags: 3,
            uses: 4,
            error: 502,
            error_until: -5,
            expires: 6,
            size: 7,
            lock: u64::MAX,
            locked_ms: 8,
            holder: -9,
        };
        keys(65536).zone.zone().with(|map| {
            let node = map.insert(b"k", &record.bytes()).expect("room");
            assert_eq!(Record::read(map, node), Some(record));
        });
        // Other bytes need another `LAYOUT`: a program that was there before may read them.
        let words = ["03000400f6010000f7ffffff", "fbffffffffffffff", "0600000000000000", "0700000000000000"];
        let last = ["ffffffffffffffff", "0800000000000000"];
        assert_eq!(buf::hex::text(&record.bytes()), [&words[..], &last].concat().concat());
        assert_eq!((LAYOUT, SUMS, TOTALS, wildcard_key(7)), (1, &b"sums"[..], 40, b"wildcard 007".to_vec()));
    }

    #[test]
    fn uses_and_files() {
        let keys = keys(65536);
        assert!(look(&keys, 1, NOW).exists, "there may be a file that nobody has seen");
        keys.set_loaded();
        let expect = Looked { uses: 2, ..Looked::default() };
        assert_eq!(look(&keys, 1, NOW), expect);
        fetched(&keys, 1, None, Fetched::Stored(4096));
        assert_eq!(look(&keys, 1, NOW), Looked { exists: true, known: true, uses: 3, ..expect });
        assert_eq!(keys.sums().size, 4096);
        fetched(&keys, 1, None, Fetched::Stored(8192));
        assert!(keys.found(&key(1), 1, NOW) && keys.found(&key(2), 100, NOW));
        assert_eq!(keys.sums(), Sums { size: 8292, count: 2, watermark: usize::MAX });
        keys.lost(&key(1));
        assert_eq!((look(&keys, 1, NOW).exists, keys.sums().size), (false, 100));
        assert!(keys.remove(&key(2)) && !keys.remove(&key(2)) && !keys.remove(&key(1)));
        assert_eq!(keys.sums(), Sums { size: 0, count: 0, watermark: usize::MAX });
    }

    #[test]
    fn one_fetches_and_the_others_wait() {
        let keys = keys(65536);
        let lock = |now, age| keys.lock(&key(1), age, false, now, &mut Vec::new()).ticket();
        let first = lock(NOW, Some(5000)).expect("it is the first");
        assert!(keys.is_locked(&key(1)) && look(&keys, 1, NOW).updating);
        assert!(!fetched(&keys, 1, None, Fetched::Nothing), "who has no ticket can't end it");
        assert_eq!(lock(later(4), Some(5000)), None);
        let second = lock(later(5), Some(5000)).expect("the first is old");
        assert!(!fetched(&keys, 1, Some(first), Fetched::Nothing), "it has lost the lock");
        assert_eq!(lock(later(6), Some(5000)), None);
        assert!(fetched(&keys, 1, Some(first), Fetched::Error(502, NOW.secs)), "its error is remembered all the same");
        assert_eq!(lock(later(100), None), None);
        assert!(fetched(&keys, 1, Some(second), Fetched::Stored(1)), "there is one who waits");
        assert!(!keys.is_locked(&key(1)));
        let third = lock(NOW, None).expect("it was given back");
        assert!(!fetched(&keys, 1, Some(third), Fetched::Nothing), "nobody waits");
    }

    /// Between a look and the lock another process may have stored the response.
    #[test]
    fn what_was_stored_since_the_look_is_not_fetched_again() {
        let keys = keys(65536);
        let lock = |missing| keys.lock(&key(1), None, missing, NOW, &mut Vec::new());
        keys.set_loaded();
        assert!(!look(&keys, 1, NOW).exists);
        let ticket = lock(true).ticket().expect("nobody else has it");
        assert_eq!(lock(true), Lock::Others);
        fetched(&keys, 1, Some(ticket), Fetched::Stored(1));
        assert_eq!(lock(true), Lock::Stored);
        keys.lost(&key(1));
        assert!(lock(true).ticket().is_some(), "its file is gone");
    }

    #[test]
    fn errors_are_remembered_for_a_time() {
        let keys = keys(65536);
        fetched(&keys, 1, None, Fetched::Error(404, NOW.secs + 10));
        assert_eq!(look(&keys, 1, later(10)).error, Some(404));
        assert_eq!(look(&keys, 1, later(11)).error, None);
        fetched(&keys, 1, None, Fetched::Error(404, NOW.secs + 10));
        fetched(&keys, 1, None, Fetched::Stored(1));
        assert_eq!(look(&keys, 1, NOW).error, None);
    }

    #[test]
    fn a_full_zone_removes_what_was_used_least_recently() {
        let keys = keys(32768);
        let mut evicted = Vec::new();
        let mut stored = 0;
        for n in 0..2000 {
            keys.look(&key(0), NOW, &mut evicted).expect("it is used again and again");
            keys.look(&key(n), NOW, &mut evicted).expect("room is made");
            stored += u32::from(!keys.fetched(&key(n), None, Fetched::Stored(10), NOW, &mut evicted));
            assert!(keys.zone.zone().check(), "{n}");
        }
        let sums = keys.sums();
        assert_eq!((stored, evicted.len() + sums.count), (2000, 2000));
        assert_eq!((sums.size, evicted[0]), (10 * sums.count as u64, key(1)));
        assert!(sums.watermark < sums.count, "{sums:?}");
        assert!(look(&keys, 0, NOW).uses > 1000);
    }

    #[test]
    fn what_is_unused_expires() {
        let keys = keys(65536);
        for n in 0..3 {
            keys.found(&key(n), 10, later(i64::from(n)));
        }
        assert_eq!(keys.next_expiry(NOW), Some(60));
        assert_eq!(keys.expire(later(59), false), None);
        assert_eq!(keys.expire(later(60), false), Some((key(0), true)));
        assert_eq!(keys.expire(later(60), false), None);
        look(&keys, 1, later(60));
        assert_eq!(keys.expire(later(60), true), Some((key(2), true)));
        let ticket = keys.lock(&key(1), None, false, NOW, &mut Vec::new()).ticket();
        assert_eq!(keys.expire(later(120), false), Some((key(1), false)), "it is being fetched, and stays");
        assert_eq!(keys.expire(later(120), false), None);
        fetched(&keys, 1, ticket, Fetched::Nothing);
        assert_eq!(keys.expire(later(500), false), Some((key(1), true)));
        assert_eq!((keys.expire(later(500), true), keys.next_expiry(NOW)), (None, None));
    }

    #[test]
    fn locks_of_the_dead_end() {
        let keys = keys(65536);
        let lock = |n| keys.lock(&key(n), None, false, NOW, &mut Vec::new()).ticket();
        let child = os::process::tests_fork(|| {
            lock(1).expect("it is free");
        });
        lock(2).expect("it is free");
        assert_eq!((lock(1), lock(2)), (None, None));
        keys.zone.zone().with(|map| forget_locks(map, child));
        assert!(lock(1).is_some() && lock(2).is_none());
    }

    #[test]
    fn wildcards() {
        let keys = keys(65536);
        let purge = |prefix: &str, before_ns| {
            keys.purge_wildcard(&Wildcard { prefix: prefix.as_bytes().to_vec(), before_ns }, &mut Vec::new())
        };
        assert!(purge("/a/", 10));
        assert!(purge("/b", 20));
        for (text, stored, expect) in
            [("/a/x", 9, true), ("/a/x", 10, false), ("/ax", 9, false), ("/b", 19, true), ("/c", 0, false)]
        {
            assert_eq!(keys.is_purged(text.as_bytes(), stored), expect, "{text} {stored}");
        }
        assert!(purge("/a", 30));
        assert_eq!(keys.wildcards().len(), 2, "the longer one is contained");
        keys.forget_wildcards(30);
        assert_eq!(keys.wildcards(), [Wildcard { prefix: b"/a".to_vec(), before_ns: 30 }]);
        for n in 0..200 {
            assert!(purge(&format!("/x/{n:03}/"), 100 + n));
        }
        assert_eq!(keys.wildcards().len() as u64, WILDCARDS);
        for n in 0..200 {
            assert!(keys.is_purged(format!("/x/{n:03}/y").as_bytes(), 99 + n), "{n}");
        }
        assert_eq!(keys.sums().count, 0);
        assert!(keys.zone.zone().check());
    }

    #[test]
    fn wildcards_make_room() {
        let keys = keys(32768);
        let mut evicted = Vec::new();
        for n in 0..2000 {
            keys.look(&key(n), NOW, &mut evicted).expect("room is made");
            keys.fetched(&key(n), None, Fetched::Stored(10), NOW, &mut evicted);
        }
        let mut purge = |prefix: Vec<u8>, before_ns| keys.purge_wildcard(&Wildcard { prefix, before_ns }, &mut evicted);
        // More than fits: what is purged stays so, whatever else.
        for n in 0..30 {
            assert!(purge([format!("/{n}/").as_bytes(), &[b'x'; 1000]].concat(), 100 + n), "{n}");
        }
        for n in 0..30 {
            let text = [format!("/{n}/").as_bytes(), &[b'x'; 1001]].concat();
            assert!(keys.is_purged(&text, 99 + n), "{n}");
        }
        let long = Wildcard { prefix: vec![b'x'; 40_000], before_ns: 200 };
        assert!(!self::keys(32768).purge_wildcard(&long, &mut Vec::new()), "no zone of this size has room");
        let sums = keys.sums();
        assert_eq!((sums.size, evicted.len() + sums.count), (10 * sums.count as u64, 2000));
        assert!(keys.zone.zone().check());
    }
}
