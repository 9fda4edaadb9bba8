//! The work of the cache manager and the cache loader.
//!
//! The manager removes what has been unused for long, what exceeds the limits and, if that is wanted, what a wildcard
//! has purged. The loader tells the zone of the files in the folder. If the zone is emptied later, because a process
//! died within it, the manager does that again.

use std::cell::{Cell, RefCell};
use std::fs::{self, ReadDir};
use std::future::Future;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use engine::worker::helpers::CacheKeeper;

use crate::key::Key;
use crate::keys::Now;
use crate::place::{Cache, Portions, read};
use crate::stored::Contents;

/// The manager looks again after this time at the latest.
const IDLE_MS: u64 = 10_000;
/// How long the loader may take before the manager does its work.
const LOADER_MS: u64 = 600_000;
/// A temporary file that nobody has written to for so long was left by a process that has ended.
const ABANDONED: Duration = Duration::from_secs(3600);
/// How much longer than `inactive` a wildcard is remembered: the manager may be late.
const LATE_SECS: u64 = 120;

/// The caches of an application, as the helpers see them.
pub struct Keeper {
    caches: Vec<Rc<Cache>>,
    states: Vec<State>,
    started: Instant,
}

/// How far the manager is with a cache.
#[derive(Default)]
struct State {
    due_ms: Cell<u64>,
    /// The folder is being looked at, because the zone has lost what it knew.
    loading: RefCell<Option<Walk>>,
    was_loaded: Cell<bool>,
    purging: RefCell<Option<(Walk, u64)>>,
}

impl Keeper {
    /// What keeps these caches.
    pub fn new(caches: Vec<Rc<Cache>>) -> Keeper {
        let states = caches.iter().map(|_| State::default()).collect();
        Keeper { caches, states, started: Instant::now() }
    }
}

impl CacheKeeper for Keeper {
    fn manage(&self) -> u64 {
        let now_ms = self.started.elapsed().as_millis() as u64;
        let mut wait = IDLE_MS;
        for (cache, state) in self.caches.iter().zip(&self.states) {
            if state.due_ms.get() <= now_ms {
                let pause = manage(cache, now());
                let pause = pause.min(reload(cache, state, now_ms)).min(purge(cache, state));
                state.due_ms.set(now_ms + pause);
            }
            wait = wait.min(state.due_ms.get().saturating_sub(now_ms));
        }
        wait
    }

    fn load(self: Rc<Self>) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            for cache in self.caches.iter().filter(|cache| !cache.keys.is_loaded()) {
                let mut walk = Walk::new(cache);
                while !load(cache, &mut walk) {
                    rt::sleep(cache.settings.loader.sleep_ms).await;
                }
            }
        })
    }
}

/// The time, of clocks that all processes share.
pub fn now() -> Now {
    Now { secs: now_ns() as i64 / 1_000_000_000, ms: os::clock::monotonic_ms() }
}

/// Nanoseconds since 1970.
pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}

/// A portion's limits, as they are used up.
struct Portion {
    files: usize,
    end: Instant,
}

impl Portion {
    fn new(portions: &Portions) -> Portion {
        Portion { files: portions.files, end: Instant::now() + Duration::from_millis(portions.threshold_ms) }
    }

    /// Takes one file from it; false if none is left.
    fn take(&mut self) -> bool {
        if self.files == 0 || Instant::now() >= self.end {
            return false;
        }
        self.files -= 1;
        true
    }
}

/// Removes a portion of what is to be removed; after how many milliseconds to go on.
fn manage(cache: &Cache, now: Now) -> u64 {
    let mut portion = Portion::new(&cache.settings.manager);
    loop {
        let force = exceeds(cache);
        if !force && cache.keys.next_expiry(now) != Some(0) {
            let next = cache.keys.next_expiry(now).unwrap_or(u64::MAX);
            return next.saturating_mul(1000).clamp(1000, IDLE_MS);
        }
        if !portion.take() {
            return cache.settings.manager.sleep_ms;
        }
        match cache.keys.expire(now, force) {
            Some((key, true)) => {
                cache.unlink(&key);
            }
            Some((_, false)) => {}
            None => return IDLE_MS,
        }
    }
}

/// Whether a cache is larger than it may be.
fn exceeds(cache: &Cache) -> bool {
    let sums = cache.keys.sums();
    if sums.count == 0 {
        return false;
    }
    let settings = &cache.settings;
    sums.count > sums.watermark
        || settings.max_size.is_some_and(|most| sums.size > most)
        || settings.min_free > 0 && os::file::free_space(&settings.path).is_ok_and(|free| free < settings.min_free)
}

/// Goes on with looking at the folder, if the zone doesn't know it.
fn reload(cache: &Cache, state: &State, now_ms: u64) -> u64 {
    let loaded = cache.keys.is_loaded();
    let lost = state.was_loaded.replace(loaded) && !loaded;
    let mut loading = state.loading.borrow_mut();
    if loaded {
        *loading = None;
    } else if loading.is_none() && (lost || now_ms > LOADER_MS) {
        *loading = Some(Walk::new(cache));
    }
    match &mut *loading {
        None => IDLE_MS,
        Some(walk) => {
            if load(cache, walk) {
                *loading = None;
                return IDLE_MS;
            }
            cache.settings.loader.sleep_ms
        }
    }
}

/// Tells the zone of a portion of the files; whether these were the last ones.
fn load(cache: &Cache, walk: &mut Walk) -> bool {
    let mut portion = Portion::new(&cache.settings.loader);
    while portion.take() {
        let Some(file) = walk.next() else {
            cache.keys.set_loaded();
            return true;
        };
        let Ok(metadata) = fs::metadata(&file.path) else { continue };
        match file.key {
            // The zone is too small for it: nobody would remove it later.
            Some(key) if !cache.keys.found(&key, metadata.blocks() * 512, now()) => {
                let _ = fs::remove_file(&file.path);
            }
            Some(_) => {}
            None if metadata.modified().is_ok_and(|time| time.elapsed().is_ok_and(|age| age > ABANDONED)) => {
                let _ = fs::remove_file(&file.path);
            }
            None => {}
        }
    }
    false
}

/// Removes a portion of what wildcards have purged, or forgets wildcards that concern no file any more.
fn purge(cache: &Cache, state: &State) -> u64 {
    let wildcards = cache.keys.wildcards();
    if wildcards.is_empty() {
        return IDLE_MS;
    }
    let Some(purger) = &cache.settings.purger else {
        let unused = (cache.settings.inactive + LATE_SECS).saturating_mul(1_000_000_000);
        cache.keys.forget_wildcards(now_ns().saturating_sub(unused));
        return IDLE_MS;
    };
    let mut purging = state.purging.borrow_mut();
    let (walk, begun_ns) = purging.get_or_insert_with(|| (Walk::new(cache), now_ns()));
    let mut portion = Portion::new(purger);
    while portion.take() {
        let Some(file) = walk.next() else {
            cache.keys.forget_wildcards(*begun_ns);
            *purging = None;
            return purger.sleep_ms;
        };
        let Some(key) = file.key else { continue };
        let Ok(opened) = fs::File::open(&file.path) else { continue };
        let size = opened.metadata().map_or(0, |metadata| metadata.len());
        if let Ok((entry, _)) = read(&Contents::File(Rc::new(opened)), size)
            && cache.keys.is_purged(&entry.key, entry.stored_ns)
        {
            cache.remove(&key);
        }
    }
    purger.sleep_ms
}

/// The files below a cache's folder, one after the other.
struct Walk {
    /// The folders from the cache's own down to the one at hand.
    folders: Vec<ReadDir>,
    depth: usize,
    temp: bool,
}

/// A file that was found.
struct Found {
    path: PathBuf,
    /// The key that its name stands for; none for a temporary file.
    key: Option<Key>,
}

impl Walk {
    fn new(cache: &Cache) -> Walk {
        Walk {
            folders: fs::read_dir(&cache.settings.path).into_iter().collect(),
            depth: cache.settings.levels.len(),
            temp: cache.settings.own_temp,
        }
    }

    /// The next file of a response, or temporary file.
    fn next(&mut self) -> Option<Found> {
        loop {
            let level = self.folders.len();
            let Some(entry) = self.folders.last_mut()?.next() else {
                self.folders.pop();
                continue;
            };
            let Ok(entry) = entry else { continue };
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            if level <= self.depth && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.folders.extend(fs::read_dir(entry.path()));
                continue;
            }
            match Key::parse(name) {
                Some(key) if level == self.depth + 1 => return Some(Found { path: entry.path(), key: Some(key) }),
                None if level == 1 && self.temp && is_temporary(name) => {
                    return Some(Found { path: entry.path(), key: None });
                }
                _ => {}
            }
        }
    }
}

/// Whether this is the name of a temporary file.
fn is_temporary(name: &[u8]) -> bool {
    name.len() == 10 && name.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::entry::{Entry, Room};
    use crate::keys::{Fetched, Wildcard};
    use crate::place::testing;

    /// Stores a response with a body of `n` times 10,000 bytes.
    fn store(cache: &Cache, n: u32, stored_ns: u64) -> Key {
        let (key, size) = write(cache, n, 10_000 * n as usize, stored_ns);
        cache.keys.fetched(&key, None, Fetched::Stored(size), now(), &mut Vec::new());
        key
    }

    /// Writes the file of a response: its key, and what it takes on disk.
    fn write(cache: &Cache, n: u32, len: usize, stored_ns: u64) -> (Key, u64) {
        let text = format!("/x/{n}").into_bytes();
        let key = Key::of(&text);
        let body = vec![b'b'; len];
        let entry = Entry { key: text.into(), stored_ns, body_len: body.len() as u64, ..Entry::default() };
        let path = cache.path(&key);
        fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        fs::write(&path, [entry.encode(Room::Short).expect("short"), body].concat()).expect("written");
        (key, fs::metadata(&path).expect("written").blocks() * 512)
    }

    fn files(folder: &Path) -> usize {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
    }

    #[test]
    fn sizes_are_kept_in_portions() {
        let (cache, folder) = testing::cache(|settings| settings.max_size = Some(35_000));
        for n in 1..=5 {
            store(&cache, n, 0);
        }
        cache.keys.set_loaded();
        assert_eq!((files(folder.path()), manage(&cache, now())), (5, 7), "two at a time, then a pause");
        assert_eq!(files(folder.path()), 3);
        manage(&cache, now());
        assert_eq!((files(folder.path()), cache.keys.sums().count), (1, 1));
        manage(&cache, now());
        assert_eq!((files(folder.path()), cache.keys.sums().size), (0, 0), "the last one is too large too");
    }

    #[test]
    fn what_is_unused_goes() {
        let (cache, folder) = testing::cache(|_| {});
        store(&cache, 1, 0);
        let before = manage(&cache, now());
        assert!((1000..=IDLE_MS).contains(&before) && files(folder.path()) == 1);
        let later = Now { secs: now().secs + 61, ..now() };
        manage(&cache, later);
        assert_eq!((files(folder.path()), cache.keys.sums().count), (0, 0));
    }

    #[test]
    fn the_disk_is_kept_free() {
        let (cache, folder) = testing::cache(|settings| settings.min_free = u64::MAX);
        store(&cache, 1, 0);
        manage(&cache, now());
        assert_eq!(files(folder.path()), 0);
    }

    #[test]
    fn the_loader_finds_files_and_nothing_else() {
        let (cache, folder) = testing::cache(|_| {});
        let keys: Vec<Key> = (1..=5).map(|n| store(&cache, n, 0)).collect();
        let size = cache.keys.sums().size;
        assert!(keys.iter().all(|key| cache.keys.remove(key)));
        for name in ["0000000001", "0000000002", "other", "d41d8cd98f00b204e9800998ecf8427e"] {
            fs::write(folder.path().join(name), "").expect("written");
        }
        let old = fs::File::options().write(true).open(folder.path().join("0000000001")).expect("opened");
        old.set_modified(SystemTime::now() - 2 * ABANDONED).expect("set");
        let mut walk = Walk::new(&cache);
        let mut portions = 1;
        while !load(&cache, &mut walk) {
            assert!(!cache.keys.is_loaded());
            portions += 1;
        }
        assert!(portions >= 3, "two files at a time");
        assert_eq!((cache.keys.sums().count, cache.keys.sums().size), (5, size));
        assert!(cache.keys.is_loaded() && !folder.path().join("0000000001").exists());
        assert!(folder.path().join("0000000002").exists() && folder.path().join("other").exists());
    }

    #[test]
    fn as_many_files_stay_as_the_zone_has_room_for() {
        let (cache, folder) = testing::cache(|settings| settings.loader.files = 100);
        let keys: Vec<Key> = (0..2000).map(|n| write(&cache, n, 0, 0).0).collect();
        let (mut walk, mut portions) = (Walk::new(&cache), 1);
        while !load(&cache, &mut walk) {
            portions += 1;
        }
        assert_eq!(portions, 21, "a hundred files each");
        let count = cache.keys.sums().count;
        assert!((300..1000).contains(&count), "{count} in 64 KiB");
        assert_eq!(files(folder.path()), count, "nobody would ever remove the others");
        let known = keys.iter().filter(|key| cache.path(key).exists());
        assert_eq!(known.filter(|key| cache.keys.remove(key)).count(), count);
        assert_eq!(cache.keys.sums().size, 0);
    }

    #[test]
    fn a_zone_that_was_emptied_is_filled_again() {
        let (cache, _folder) = testing::cache(|_| {});
        let key = store(&cache, 1, 0);
        cache.keys.set_loaded();
        let keeper = Keeper::new(vec![Rc::new(cache)]);
        keeper.manage();
        let cache = &keeper.caches[0];
        cache.keys.zone().zone().with(|map| {
            while let Some(node) = map.oldest() {
                map.remove(node);
            }
        });
        assert!(cache.keys.sums().count == 0 && !cache.keys.is_loaded());
        let state = &keeper.states[0];
        while !cache.keys.is_loaded() {
            reload(cache, state, 0);
        }
        assert!(cache.keys.remove(&key));
    }

    #[test]
    fn the_purger_removes_what_wildcards_name() {
        let (cache, folder) = testing::cache(|settings| settings.purger = Some(testing::PORTIONS));
        let old: Vec<Key> = (1..=3).map(|n| store(&cache, n, 100)).collect();
        store(&cache, 4, 300);
        let wildcard = Wildcard { prefix: b"/x/".to_vec(), before_ns: 200 };
        assert!(cache.keys.purge_wildcard(&wildcard, &mut Vec::new()));
        let state = State::default();
        while !cache.keys.wildcards().is_empty() {
            purge(&cache, &state);
        }
        assert_eq!(files(folder.path()), 1);
        assert!(old.iter().all(|key| !cache.keys.remove(key)));
    }
}
