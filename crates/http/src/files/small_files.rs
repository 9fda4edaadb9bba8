//! Small files in memory.
//!
//! nginx doesn't have this, and no client sees it: a file that is requested again and again is checked for each request
//! (`stat`), but no longer opened, read and closed, which costs three times as much as the rest of its request. What is
//! kept is used only while the file is the same to the nanosecond of its last change. Requests that came together, in one
//! turn of the event loop, share a check. No descriptor is kept, so nothing holds a deleted file or a file system.
//!
//! A change could go unseen if it falls into the same tick of the system's clock as the reading, so a file is kept only
//! when its last change is some time ago; and where others write behind the system's back, so only files of local file
//! systems are kept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::hash::BuildHasher;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use buf::Bytes;
use foldhash::fast::RandomState;
use os::file::{Stat, is_local, stat};

use super::made::{Made, Room, Share};
use super::open_file::Found;

/// The largest file that is kept, in bytes.
pub(crate) const MAX_FILE: u64 = 32 << 10;
/// How many bytes a generation holds; there are two.
const GENERATION: usize = 512 << 10;
/// How many bytes may be kept of what is made of the files of both.
const FORMS: usize = GENERATION;
/// About how many bytes a kept file takes besides its contents.
const OVERHEAD: usize = 256;
/// How many paths that were requested once are remembered.
const SEEN: usize = 512;
/// How many seconds must have passed since a file's last change when it is read.
const SETTLED: i64 = 2;

/// The files that a worker keeps.
///
/// There are two generations. When the young one is full it becomes the old one, and the old one is dropped; a file
/// that is found in the old one moves to the young one. What is made of a file is dropped with it.
pub struct SmallFiles {
    generations: RefCell<Generations>,
    hasher: RandomState,
    /// Hashes of paths that were requested once: a file that is requested a single time isn't kept.
    seen: RefCell<Vec<u64>>,
    /// Counts what is made of the files.
    forms: Room,
    locals: Locals,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Box<[u8]>, Kept, RandomState>,
    old: HashMap<Box<[u8]>, Kept, RandomState>,
    /// How many bytes the young ones take.
    bytes: usize,
}

/// A file that is kept.
struct Kept {
    found: Rc<Found>,
    /// In which turn of the event loop it was found unchanged.
    checked: u64,
}

impl Default for SmallFiles {
    fn default() -> SmallFiles {
        SmallFiles {
            generations: RefCell::default(),
            hasher: RandomState::default(),
            seen: RefCell::default(),
            forms: Room::new(FORMS),
            locals: Locals::default(),
        }
    }
}

impl SmallFiles {
    /// The file at a path, if it is kept and has not changed; `turn` is that of the event loop.
    pub fn find(&self, path: &[u8], turn: u64) -> Option<Rc<Found>> {
        let mut generations = self.generations.borrow_mut();
        let known = generations.find(path)?;
        if known.checked == turn {
            return Some(known.found.clone());
        }
        if stat(path).is_ok_and(|now| now == known.found.stat) {
            known.checked = turn;
            return Some(known.found.clone());
        }
        generations.remove(path);
        None
    }

    /// Counts the use of a file that was opened in this turn. If it was requested before, it is kept, and gets its contents.
    pub fn offer(&self, path: &[u8], mut found: Found, now_secs: i64, turn: u64) -> Rc<Found> {
        if found.size > MAX_FILE || !self.is_second(path) {
            return Rc::new(found);
        }
        let content = found.file.as_ref().and_then(|file| read(file, &found.stat, &self.locals, now_secs));
        if content.is_none() {
            return Rc::new(found);
        }
        (found.content, found.file, found.made) = (content, None, Some(Made::new(&self.forms)));
        let found = Rc::new(found);
        self.generations.borrow_mut().insert(path, Kept { found: found.clone(), checked: turn });
        found
    }

    fn is_second(&self, path: &[u8]) -> bool {
        let hash = self.hasher.hash_one(path);
        let mut seen = self.seen.borrow_mut();
        seen.resize(SEEN, 0);
        let place = &mut seen[hash as usize % SEEN];
        std::mem::replace(place, hash) == hash
    }
}

impl Generations {
    /// What is known about a path; it moves to the young ones.
    fn find(&mut self, path: &[u8]) -> Option<&mut Kept> {
        if !self.old.is_empty()
            && let Some((path, kept)) = self.old.remove_entry(path)
        {
            self.put(path, kept);
        }
        self.young.get_mut(path)
    }

    fn insert(&mut self, path: &[u8], kept: Kept) {
        self.remove(path);
        self.put(path.into(), kept);
    }

    fn put(&mut self, path: Box<[u8]>, kept: Kept) {
        let size = cost(&path, &kept.found);
        if self.bytes + size > GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += size;
        self.young.insert(path, kept);
    }

    fn remove(&mut self, path: &[u8]) {
        if let Some(kept) = self.young.remove(path) {
            self.bytes -= cost(path, &kept.found);
        }
    }
}

fn cost(path: &[u8], found: &Found) -> usize {
    path.len() + found.size as usize + OVERHEAD
}

/// Which devices are local file systems, of those that were looked at so far.
#[derive(Default)]
pub struct Locals(RefCell<Vec<(u64, bool)>>);

impl Locals {
    fn has(&self, file: &File, device: u64) -> bool {
        let mut known = self.0.borrow_mut();
        if let Some((_, local)) = known.iter().find(|(own, _)| *own == device) {
            return *local;
        }
        let local = is_local(file);
        known.push((device, local));
        local
    }
}

/// The contents of an open file, if they may be kept.
fn read(file: &File, stat: &Stat, locals: &Locals, now_secs: i64) -> Option<Bytes> {
    if stat.changed.0 + SETTLED > now_secs || !locals.has(file, stat.identity.0) {
        return None;
    }
    let mut bytes = vec![0; stat.size as usize];
    file.read_exact_at(&mut bytes, 0).ok()?;
    Some(Bytes::from(bytes))
}

/// The contents that `open_file_cache` keeps besides descriptors, and what is made of them: within a bound, and as long as
/// an entry is valid.
pub struct Contents {
    room: Room,
    locals: Locals,
}

impl Default for Contents {
    fn default() -> Contents {
        Contents { room: Room::new(2 * GENERATION), locals: Locals::default() }
    }
}

impl Contents {
    /// How many bytes are kept.
    pub fn bytes(&self) -> usize {
        self.room.taken()
    }

    /// A small file with its contents, if they may be kept and there is room for them.
    pub fn load(&self, found: &Found, now_secs: i64) -> Option<(Found, Share)> {
        if found.size > MAX_FILE || found.content.is_some() {
            return None;
        }
        let share = self.room.take(found.size as usize)?;
        let content = read(found.file.as_ref()?, &found.stat, &self.locals, now_secs)?;
        Some((Found { content: Some(content), made: Some(Made::new(&self.room)), ..found.clone() }, share))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use os::file::fstat;

    use super::*;
    use crate::files::open_file::opened;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Folder {
            Folder(tempfile::TempDir::with_prefix("tidegate-small-files-").expect("create"))
        }

        fn write(&self, name: &str, text: &[u8]) -> Vec<u8> {
            let path = self.0.path().join(name);
            std::fs::write(&path, text).expect("write");
            path.into_os_string().into_encoded_bytes()
        }
    }

    /// Another turn of the event loop.
    fn next_turn() -> u64 {
        static TURNS: AtomicU64 = AtomicU64::new(100);
        TURNS.fetch_add(1, Ordering::Relaxed)
    }

    /// A time at which what is written now has settled.
    fn later() -> i64 {
        engine::clock::system().0 + SETTLED + 1
    }

    fn open(path: &[u8]) -> Found {
        let file = File::from(os::file::openat(None, path, os::file::Open::default()).expect("open"));
        opened(fstat(&file).expect("stat"), Some(file))
    }

    /// Asks for a path as the first request of a turn does; whether the contents were at hand, and what they were.
    fn ask(small: &SmallFiles, path: &[u8], now: i64) -> (bool, Option<Bytes>) {
        match small.find(path, next_turn()) {
            Some(found) => (true, found.content.clone()),
            None => {
                let found = small.offer(path, open(path), now, next_turn());
                assert_ne!(found.file.is_some(), found.content.is_some());
                (false, found.content.clone())
            }
        }
    }

    #[test]
    fn kept_when_asked_for_again_and_dropped_when_changed() {
        let folder = Folder::new();
        let path = folder.write("a", b"one");
        let small = SmallFiles::default();
        let text = |text: &'static [u8]| Some(Bytes::from_static(text));
        assert_eq!(ask(&small, &path, later()), (false, None));
        assert_eq!(ask(&small, &path, later()), (false, text(b"one")));
        assert_eq!(ask(&small, &path, later()), (true, text(b"one")));
        // As long, and as old as far as its time says: but it was changed.
        let modified = std::fs::metadata(folder.0.path().join("a")).and_then(|meta| meta.modified()).expect("a time");
        folder.write("a", b"two");
        let file = File::options().write(true).open(folder.0.path().join("a")).expect("open");
        file.set_modified(modified).expect("set");
        assert_eq!(ask(&small, &path, later()), (false, text(b"two")));
        assert_eq!(ask(&small, &path, later()), (true, text(b"two")));
        // Another file of that name, and none.
        let other = folder.write("b", b"six");
        std::fs::rename(folder.0.path().join("b"), folder.0.path().join("a")).expect("rename");
        assert_eq!(ask(&small, &path, later()), (false, text(b"six")));
        std::fs::remove_file(folder.0.path().join("a")).expect("remove");
        assert!(small.find(&path, next_turn()).is_none() && small.find(&other, next_turn()).is_none());
    }

    #[test]
    fn checked_once_a_turn() {
        let folder = Folder::new();
        let path = folder.write("a", b"x");
        let small = SmallFiles::default();
        for _ in 0..2 {
            small.offer(&path, open(&path), later(), 7);
        }
        std::fs::remove_file(folder.0.path().join("a")).expect("remove");
        assert!(small.find(&path, 7).is_some(), "it was there in this turn");
        assert!(small.find(&path, 8).is_none() && small.find(&path, 8).is_none());
    }

    #[test]
    fn what_was_just_changed_or_is_large_is_not_kept() {
        let folder = Folder::new();
        let small = SmallFiles::default();
        let kept = |path: &[u8], now| {
            ask(&small, path, now);
            ask(&small, path, now);
            small.find(path, next_turn()).is_some()
        };
        let now = engine::clock::system().0;
        assert!(!kept(&folder.write("fresh", b"x"), now));
        assert!(kept(&folder.write("settled", b"x"), later()));
        assert!(kept(&folder.write("most", &[b'x'; MAX_FILE as usize]), later()));
        assert!(!kept(&folder.write("more", &[b'x'; MAX_FILE as usize + 1]), later()));
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_used_stays() {
        let folder = Folder::new();
        let small = SmallFiles::default();
        let used = folder.write("used", b"x");
        let used_is_kept = || ask(&small, &used, later()).1.is_some();
        used_is_kept();
        for n in 0..200 {
            assert!(used_is_kept(), "{n}");
            let path = folder.write(&n.to_string(), &[b'x'; MAX_FILE as usize]);
            ask(&small, &path, later());
            ask(&small, &path, later());
            let generations = small.generations.borrow();
            let bytes = |files: &HashMap<Box<[u8]>, Kept, RandomState>| {
                files.iter().map(|(path, kept)| cost(path, &kept.found)).sum()
            };
            let (young, old): (usize, usize) = (bytes(&generations.young), bytes(&generations.old));
            assert_eq!(young, generations.bytes);
            assert!(young <= GENERATION && old <= GENERATION);
        }
        assert!(small.find(&folder.write("0", b"x"), next_turn()).is_none());
    }
}
