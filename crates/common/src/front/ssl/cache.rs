//! `ssl_session_cache shared`: sessions in a zone, for all workers and over reloads.
//!
//! The library wants a cache that other threads could use, which a zone isn't: so what it gets is a number, by which the
//! worker's only thread finds the zone.

use std::cell::RefCell;
use std::rc::Rc;

use engine::cycle::zones::SharedZone;
use tls::SessionCache;

thread_local! {
    /// The zones of caches that live; those of others are free.
    static ZONES: RefCell<Vec<Option<Rc<SharedZone>>>> = const { RefCell::new(Vec::new()) };
}

/// A zone as a cache of sessions: each value begins with the second in which it expires.
#[derive(Debug)]
pub(super) struct ZoneCache(usize);

/// The version of the entries, which have the library's sessions: another one whenever it writes them in another way.
pub(super) const LAYOUT: u32 = 1;
/// How many old sessions may make room for a new one.
const MOST_EVICTED: usize = 16;

impl ZoneCache {
    /// The cache in a zone, to be used on this thread and in processes that are forked from it.
    pub(super) fn new(zone: Rc<SharedZone>) -> ZoneCache {
        ZONES.with_borrow_mut(|zones| {
            let at = zones.iter().position(Option::is_none).unwrap_or_else(|| {
                zones.push(None);
                zones.len() - 1
            });
            zones[at] = Some(zone);
            ZoneCache(at)
        })
    }

    fn zone(&self) -> Option<Rc<SharedZone>> {
        ZONES.with_borrow(|zones| zones.get(self.0).cloned().flatten())
    }

    fn read(&self, key: &[u8], take: bool) -> Option<Vec<u8>> {
        self.zone()?.zone().with(|map| {
            let node = map.find(key)?;
            let expires = u64::from_be_bytes(map.first(node)?);
            let found = (expires > now()).then(|| map.value(node).split_off(size_of::<u64>()));
            if take || found.is_none() {
                map.remove(node);
            }
            found
        })
    }
}

impl Drop for ZoneCache {
    fn drop(&mut self) {
        let _ = ZONES.try_with(|zones| zones.borrow_mut().get_mut(self.0).and_then(Option::take));
    }
}

fn now() -> u64 {
    u64::try_from(rt::wall().secs).unwrap_or(0)
}

impl SessionCache for ZoneCache {
    fn put(&self, key: &[u8], value: &[u8], expires: u64) {
        let Some(zone) = self.zone() else { return };
        let value = [&expires.to_be_bytes()[..], value].concat();
        zone.zone().with(|map| {
            if let Some(old) = map.find(key) {
                map.remove(old);
            }
            map.insert_evicting(key, &value, MOST_EVICTED);
        });
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.read(key, false)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.read(key, true)
    }
}
