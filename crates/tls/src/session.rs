//! Sessions that a server remembers (`ssl_session_cache`), bound to the server they were made with.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::server::StoresServerSessions;

/// Where sessions are kept: bytes under keys, for a time.
pub trait SessionCache: fmt::Debug + Send + Sync {
    /// Keeps a value until the time `expires` (seconds since 1970).
    fn put(&self, key: &[u8], value: &[u8], expires: u64);
    /// Finds a value that has not expired.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;
    /// The same, and forgets it.
    fn take(&self, key: &[u8]) -> Option<Vec<u8>>;
}

/// A cache in the process's own memory.
#[derive(Debug)]
pub struct LocalCache {
    state: Mutex<State>,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Box<[u8]>, Entry>,
    /// Keys, the oldest first; some may be gone already.
    order: VecDeque<Box<[u8]>>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    value: Box<[u8]>,
    /// In seconds since 1970.
    expires: u64,
}

/// What an entry costs beside its key and value.
const ENTRY: usize = 128;

impl LocalCache {
    /// A cache of about `limit` bytes.
    pub fn new(limit: usize) -> LocalCache {
        LocalCache { state: Mutex::default(), limit }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionCache for LocalCache {
    fn put(&self, key: &[u8], value: &[u8], expires: u64) {
        let size = 2 * key.len() + value.len() + ENTRY;
        if size > self.limit {
            return;
        }
        let mut state = self.lock();
        while state.bytes + size > self.limit {
            let Some(oldest) = state.order.pop_front() else { break };
            state.remove(&oldest);
        }
        state.remove(key);
        state.entries.insert(key.into(), Entry { value: value.into(), expires });
        state.order.push_back(key.into());
        state.bytes += size;
        // Keys of entries that were taken stay in the order; it may not grow by them.
        if state.order.len() > 64 && state.order.len() > 2 * state.entries.len() {
            let State { entries, order, .. } = &mut *state;
            order.retain(|key| entries.contains_key(key));
        }
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let state = self.lock();
        let entry = state.entries.get(key)?;
        (entry.expires > now()).then(|| entry.value.to_vec())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let entry = self.lock().remove(key)?;
        (entry.expires > now()).then(|| entry.value.into_vec())
    }
}

impl State {
    fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.bytes -= 2 * key.len() + entry.value.len() + ENTRY;
        Some(entry)
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A cache as one server sees it: sessions of servers with other certificates or other demands on clients are not there.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) cache: Arc<dyn SessionCache>,
    pub(crate) binding: [u8; 16],
    pub(crate) timeout_s: u32,
}

impl Bound {
    fn key(&self, key: &[u8]) -> Vec<u8> {
        [&self.binding[..], key].concat()
    }
}

impl StoresServerSessions for Bound {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.cache.put(&self.key(&key), &value, now() + u64::from(self.timeout_s));
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.cache.get(&self.key(key))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.cache.take(&self.key(key))
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_the_size_has_a_bound() {
        let cache = LocalCache::new(1000);
        let later = now() + 100;
        for n in 0..100u8 {
            cache.put(&[n], &[n; 50], later);
            assert!(cache.lock().bytes <= 1000 && cache.lock().order.len() <= 128);
        }
        assert_eq!((cache.get(&[10]), cache.get(&[99])), (None, Some(vec![99; 50])));
        assert_eq!((cache.take(&[99]), cache.take(&[99])), (Some(vec![99; 50]), None));
        cache.put(b"old", b"x", now() - 1);
        assert_eq!(cache.get(b"old"), None);
        cache.put(b"big", &[0; 2000], later);
        assert_eq!(cache.get(b"big"), None);
    }

    #[test]
    fn sessions_of_one_server_are_not_anothers() {
        let cache: Arc<dyn SessionCache> = Arc::new(LocalCache::new(10_000));
        let bound = |n: u8| Bound { cache: cache.clone(), binding: [n; 16], timeout_s: 10 };
        bound(1).put(b"key".to_vec(), b"value".to_vec());
        assert_eq!((bound(1).get(b"key"), bound(2).get(b"key")), (Some(b"value".to_vec()), None));
    }
}
