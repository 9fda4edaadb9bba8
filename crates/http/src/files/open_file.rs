//! Opening files for requests: `open_file_cache`, `disable_symlinks`.
//!
//! What differs from nginx: levels with equal `open_file_cache` share one cache. A hit costs one lookup: no system
//! call, and no memory but a count in the `Rc` of its description. Small files are in memory (`small_files.rs`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use buf::{Bytes, Chain, FileRange, Piece};
use conf::{Loader, Set};
use expr::vars::Template;
use foldhash::fast::RandomState;
use os::file::{Open, Stat, fstat, openat, stat};
use wire::h1::KnownHeader;

use super::made::{Made, Share};
use super::small_files::{Contents, SmallFiles};
use crate::config::core::{CoreLocation, FileCache, Symlinks};
use crate::fault::Fault;
use crate::request::Request;
use crate::response::{Body, KeptFile};

/// The error numbers that callers tell apart.
pub mod errno {
    /// Operation not permitted.
    pub const PERM: i32 = 1;
    /// No such file or directory.
    pub const NOENT: i32 = 2;
    /// No memory.
    pub const NOMEM: i32 = 12;
    /// Permission denied.
    pub const ACCES: i32 = 13;
    /// The file exists.
    pub const EXIST: i32 = 17;
    /// Not a directory.
    pub const NOTDIR: i32 = 20;
    /// Is a directory.
    pub const ISDIR: i32 = 21;
    /// No descriptors left in the system.
    pub const NFILE: i32 = 23;
    /// No descriptors left in the process.
    pub const MFILE: i32 = 24;
    /// No space left on the device.
    pub const NOSPC: i32 = 28;
    /// Too many links.
    pub const MLINK: i32 = 31;
    /// The name is too long.
    pub const NAMETOOLONG: i32 = 36;
    /// Too many symbolic links, or one where none may be.
    pub const LOOP: i32 = 40;
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A folder.
    Directory,
    /// Something else.
    Other,
}

/// What is known about a path.
#[derive(Clone, Debug)]
pub struct Found {
    /// The open file, if opening was requested and the contents aren't in memory.
    pub file: Option<Rc<File>>,
    /// Its contents, if they are in memory.
    pub content: Option<Bytes>,
    /// What a user has made of the contents, for later users of the same contents.
    pub made: Option<Made>,
    /// Its size.
    pub size: u64,
    /// When it was changed, in seconds since 1970.
    pub modified: i64,
    /// What it is.
    pub kind: Kind,
    /// Whether anybody may run it.
    pub executable: bool,
    /// The tag of a file: its time and size.
    pub etag: Bytes,
    /// The system's description of it.
    pub stat: Stat,
}

impl Found {
    /// The same without the open file and its contents.
    fn closed(&self) -> Found {
        Found { file: None, content: None, made: None, ..self.clone() }
    }

    /// Makes an open file the response; whether ranges of it are served is left to the caller.
    pub fn respond(&self, r: &mut Request) {
        let core = &r.location.core;
        let content_type = core.types.of(&r.uri).unwrap_or_else(|| core.default_type.clone());
        let etag = core.etag.then(|| self.etag.clone());
        let response = &mut r.response;
        response.status = 200;
        // The type that came with a backend's X-Accel-Redirect is kept.
        if response.content_type.is_none() && !content_type.is_empty() {
            response.content_type = Some(content_type);
        }
        response.content_length = Some(self.size);
        response.last_modified = Some(self.modified);
        match etag {
            Some(etag) => response.headers.set_fixed(KnownHeader::ETag, etag),
            None => response.headers.remove(KnownHeader::ETag),
        }
        if let (Some(contents), Some(made)) = (&self.content, &self.made) {
            response.kept_file = Some(KeptFile { contents: contents.clone(), made: made.clone() });
        }
        let mut chain = Chain::new();
        match (&self.content, &self.file) {
            (Some(content), _) => chain.push(Piece::Bytes(content.clone())),
            (None, Some(file)) => {
                chain.push(Piece::File(FileRange { file: file.clone(), offset: 0, len: self.size }));
            }
            (None, None) => {}
        }
        response.body = Body::Chain(chain);
    }
}

/// Why a path couldn't be used.
#[derive(Debug)]
pub struct OpenError {
    /// The call that failed, as log lines name it.
    pub call: &'static str,
    /// Its error.
    pub error: io::Error,
}

impl OpenError {
    /// The error's number; 0 for none.
    pub fn code(&self) -> i32 {
        self.error.raw_os_error().unwrap_or(0)
    }

    /// What it is to a request for the file.
    pub fn fault(&self) -> Fault {
        match self.code() {
            errno::NOENT | errno::NOTDIR | errno::NAMETOOLONG => Fault::MissingFile,
            errno::ACCES | errno::MLINK | errno::LOOP => Fault::ForbiddenFile,
            _ => Fault::FailedFile,
        }
    }
}

fn failed(call: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |error| OpenError { call, error }
}

/// How a location opens its files.
pub struct Files {
    cache: Option<Rc<Cache>>,
    small: Option<Rc<SmallFiles>>,
    rules: Rules,
    symlinks: Symlinks,
    from: Option<Rc<Template>>,
}

#[derive(Clone, Copy)]
struct Rules {
    valid_ms: u64,
    min_uses: usize,
    errors: bool,
    /// Whether small files are kept in memory.
    contents: bool,
}

/// The caches of a configuration.
#[derive(Default)]
struct Caches {
    open: Vec<(FileCache, Rc<Cache>)>,
    contents: Rc<Contents>,
    small: Rc<SmallFiles>,
}

impl Files {
    /// As the location of this configuration says.
    pub fn of(set: &Set, loader: &mut Loader<'_>) -> Files {
        let core = set.get::<CoreLocation>();
        let caches = loader.store.entry::<Caches>();
        let cache = core.open_file_cache.map(|limits| match caches.open.iter().find(|(own, _)| *own == limits) {
            Some((_, cache)) => cache.clone(),
            None => {
                let cache = Rc::new(Cache::new(limits, caches.contents.clone()));
                caches.open.push((limits, cache.clone()));
                cache
            }
        });
        let small = core.small_file_cache.then(|| caches.small.clone());
        Files {
            cache,
            small,
            rules: Rules {
                valid_ms: core.open_file_cache_valid * 1000,
                min_uses: core.open_file_cache_min_uses,
                errors: core.open_file_cache_errors,
                contents: core.small_file_cache,
            },
            symlinks: core.disable_symlinks.mode,
            from: core.disable_symlinks.from.clone(),
        }
    }

    /// As the location says, but as things are now, whatever is cached.
    pub fn uncached(set: &Set) -> Files {
        let core = set.get::<CoreLocation>();
        Files {
            cache: None,
            small: None,
            rules: Rules { valid_ms: 0, min_uses: 0, errors: false, contents: false },
            symlinks: core.disable_symlinks.mode,
            from: core.disable_symlinks.from.clone(),
        }
    }

    /// For files of the server's own, which are replaced and removed at any time: whatever the location says, none is
    /// taken for what it was a while ago, and links on the way to them are the administrator's.
    pub fn of_store(set: &Set, loader: &mut Loader<'_>) -> Files {
        let small = set.get::<CoreLocation>().small_file_cache;
        let small = small.then(|| loader.store.entry::<Caches>().small.clone());
        Files { small, symlinks: Symlinks::Allowed, from: None, ..Files::uncached(set) }
    }

    /// Opens a file for reading; anything else is only described.
    pub fn open(&self, r: &mut Request, path: &[u8]) -> Result<Rc<Found>, OpenError> {
        self.find(r, path, true)
    }

    /// Describes what is at a path.
    pub fn info(&self, r: &mut Request, path: &[u8]) -> Result<Rc<Found>, OpenError> {
        self.find(r, path, false)
    }

    fn find(&self, r: &mut Request, path: &[u8], open: bool) -> Result<Rc<Found>, OpenError> {
        let links = self.links(r, path);
        match &self.cache {
            None => match &self.small {
                Some(small) if open && links.mode == Symlinks::Allowed => look_small(small, path),
                _ => look(path, open, links).map(Rc::new),
            },
            Some(cache) => cache.find(path, open, links, self.rules, rt::now_ms()),
        }
    }

    /// From which byte of the path on links are checked.
    fn links(&self, r: &mut Request, path: &[u8]) -> Links {
        if self.symlinks == Symlinks::Allowed {
            return Links { mode: Symlinks::Allowed, from: 0 };
        }
        let mut from = 0;
        if let Some(template) = &self.from {
            let prefix = r.render(template);
            let folder = prefix.strip_suffix(b"/").unwrap_or(&prefix);
            match path.strip_prefix(folder) {
                // All of it is trusted.
                _ if prefix.is_empty() => return Links { mode: Symlinks::Allowed, from: 0 },
                Some(b"") => return Links { mode: Symlinks::Allowed, from: 0 },
                Some([b'/', ..]) => from = folder.len(),
                _ => {}
            }
        }
        Links { mode: self.symlinks, from }
    }
}

/// Which links on a path are refused.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Links {
    mode: Symlinks,
    from: usize,
}

/// Looks at the file system.
fn look(path: &[u8], open: bool, links: Links) -> Result<Found, OpenError> {
    if links.mode != Symlinks::Allowed {
        return look_checked(path, open, links);
    }
    if !open {
        return stat(path).map(|stat| opened(stat, None)).map_err(failed("stat()"));
    }
    // A pipe without a writer must not block the worker.
    let how = Open { nonblocking: true, ..Open::default() };
    let file = File::from(openat(None, path, how).map_err(failed("open()"))?);
    let stat = fstat(&file).map_err(failed("fstat()"))?;
    Ok(opened(stat, Some(file)))
}

/// Opens a file, unless its contents are in memory.
fn look_small(small: &SmallFiles, path: &[u8]) -> Result<Rc<Found>, OpenError> {
    let turn = rt::turn();
    if let Some(found) = small.find(path, turn) {
        return Ok(found);
    }
    let found = look(path, true, Links { mode: Symlinks::Allowed, from: 0 })?;
    Ok(small.offer(path, found, engine::clock::now().0, turn))
}

/// The description of a path from the system's answer, with the file if it was opened.
pub fn opened(stat: Stat, file: Option<File>) -> Found {
    let kind = match stat {
        stat if stat.is_dir() => Kind::Directory,
        stat if stat.is_file() => Kind::File,
        _ => Kind::Other,
    };
    let (size, modified) = (stat.size, stat.modified.0);
    Found {
        file: file.filter(|_| kind == Kind::File).map(Rc::new),
        content: None,
        made: None,
        size,
        modified,
        kind,
        executable: stat.mode & 0o111 != 0,
        etag: if kind == Kind::File { etag(modified, size) } else { Bytes::default() },
        stat,
    }
}

/// The tag of a file: its time and size.
pub fn etag(modified: i64, size: u64) -> Bytes {
    // Two numbers of at most 16 digits, written from their ends.
    let mut text = [b'"'; 40];
    let at = hex(size, &mut text, 39);
    text[at - 1] = b'-';
    let at = hex(modified as u64, &mut text, at - 1);
    Bytes::from(Rc::<[u8]>::from(&text[at - 1..]))
}

/// Writes a number that ends before `end`; returns where it begins.
fn hex(mut n: u64, text: &mut [u8; 40], end: usize) -> usize {
    let mut at = end;
    loop {
        at -= 1;
        text[at] = b"0123456789abcdef"[(n % 16) as usize];
        n /= 16;
        if n == 0 {
            return at;
        }
    }
}

/// Opens a path part by part, and checks every link.
fn look_checked(path: &[u8], open: bool, links: Links) -> Result<Found, OpenError> {
    let (start, rest) = match path.split_at(links.from) {
        (b"", rest) => match rest.strip_prefix(b"/") {
            Some(rest) => (&b"/"[..], rest),
            None => (&b"."[..], rest),
        },
        (start, rest) => (start, rest.strip_prefix(b"/").unwrap_or(rest)),
    };
    let folder = Open { directory: true, path_only: true, ..Open::default() };
    let mut at = openat(None, start, folder).map_err(failed("open()"))?;
    let mut parts = rest.split(|&c| c == b'/').filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        let how = if parts.peek().is_some() || rest.ends_with(b"/") {
            folder
        } else {
            Open { path_only: !open, nonblocking: open, ..Open::default() }
        };
        at = step(&at, part, how, links.mode).map_err(failed("openat()"))?;
    }
    let file = File::from(at);
    let stat = fstat(&file).map_err(failed("fstat()"))?;
    Ok(opened(stat, open.then_some(file)))
}

/// Opens one part of a path. A link is refused, or followed if it and its target have the same owner. If no link is
/// allowed, a link in the place of a folder gives the error ENOTDIR, as from a system call that doesn't follow links.
fn step(at: &impl AsFd, part: &[u8], how: Open, mode: Symlinks) -> io::Result<std::os::fd::OwnedFd> {
    let dir = Some(at.as_fd());
    let link = File::from(openat(dir, part, Open { no_follow: true, path_only: true, ..Open::default() })?);
    let link = link.metadata()?;
    if !link.is_symlink() {
        // If it has become a link in the meantime, the system refuses it.
        return openat(dir, part, Open { no_follow: true, ..how });
    }
    if mode == Symlinks::IfNotOwner {
        let target = File::from(openat(dir, part, how)?);
        if target.metadata()?.uid() == link.uid() {
            return Ok(target.into());
        }
    }
    let code = if how.directory && mode == Symlinks::Denied { errno::NOTDIR } else { errno::LOOP };
    Err(io::Error::from_raw_os_error(code))
}

/// `open_file_cache`: what is known about paths. The least recently used entry is removed first.
struct Cache {
    limits: FileCache,
    contents: Rc<Contents>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    by_path: HashMap<Rc<[u8]>, u32, RandomState>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// The most and the least recently used entries.
    newest: u32,
    oldest: u32,
}

/// No entry.
const NONE: u32 = u32::MAX;

/// What the cache knows of a path: a description, or the call that failed and its error.
type Known = Result<Rc<Found>, (&'static str, i32)>;

struct Entry {
    path: Rc<[u8]>,
    known: Known,
    links: Links,
    checked_ms: u64,
    used_ms: u64,
    uses: usize,
    /// Its share of the memory for contents.
    share: Option<Share>,
    newer: u32,
    older: u32,
}

impl Cache {
    fn new(limits: FileCache, contents: Rc<Contents>) -> Cache {
        let state = State { newest: NONE, oldest: NONE, ..State::default() };
        Cache { limits, contents, state: RefCell::new(state) }
    }

    fn find(&self, path: &[u8], open: bool, links: Links, rules: Rules, now_ms: u64) -> Result<Rc<Found>, OpenError> {
        let mut state = self.state.borrow_mut();
        let inactive_ms = self.limits.inactive * 1000;
        let Some(at) = state.by_path.get(path).copied() else {
            state.expire(now_ms, inactive_ms);
            let seen = look(path, open, links).map(Rc::new);
            if seen.is_ok() || rules.errors {
                while state.by_path.len() >= self.limits.max {
                    let oldest = state.oldest;
                    state.remove(oldest);
                }
                state.insert(path, links, known(&seen, rules, 1), now_ms);
            }
            return seen;
        };
        state.touch(at, now_ms);
        let entry = &mut state.entries[at as usize];
        entry.uses += 1;
        let fresh = now_ms.saturating_sub(entry.checked_ms) < rules.valid_ms && entry.links == links;
        if fresh && rules.contents && open {
            entry.load(&self.contents);
        }
        if fresh && let Some(answer) = entry.answer(open) {
            return answer;
        }
        let seen = entry.again(path, open, links);
        (entry.checked_ms, entry.links) = (now_ms, links);
        if seen.is_err() && !rules.errors {
            state.remove(at);
        } else {
            entry.known = known(&seen, rules, entry.uses);
        }
        state.expire(now_ms, inactive_ms);
        seen
    }
}

/// What the cache keeps of a result: below `min_uses` a file isn't kept open.
fn known(seen: &Result<Rc<Found>, OpenError>, rules: Rules, uses: usize) -> Known {
    match seen {
        Ok(found) if uses < rules.min_uses => Ok(Rc::new(found.closed())),
        Ok(found) => Ok(found.clone()),
        Err(error) => Err((error.call, error.code())),
    }
}

impl Entry {
    /// The answer, if the file system isn't needed for it.
    fn answer(&self, open: bool) -> Option<Result<Rc<Found>, OpenError>> {
        match &self.known {
            Ok(found) if open && found.kind == Kind::File && found.file.is_none() => None,
            Ok(found) => Some(Ok(found.clone())),
            Err((call, code)) => Some(Err(OpenError { call, error: io::Error::from_raw_os_error(*code) })),
        }
    }

    /// Reads the open file into memory.
    fn load(&mut self, contents: &Contents) {
        if let Ok(found) = &mut self.known
            && let Some((loaded, share)) = contents.load(found, engine::clock::now().0)
        {
            (*found, self.share) = (Rc::new(loaded), Some(share));
        }
    }

    /// Checks the path again; an open file that is still the one at this path stays in use.
    fn again(&self, path: &[u8], open: bool, links: Links) -> Result<Rc<Found>, OpenError> {
        if let Ok(old) = &self.known
            && old.file.is_some()
            && self.links == links
            && look(path, false, links)?.stat == old.stat
        {
            return Ok(old.clone());
        }
        look(path, open, links).map(Rc::new)
    }
}

impl State {
    fn insert(&mut self, path: &[u8], links: Links, known: Known, now_ms: u64) {
        let path: Rc<[u8]> = path.into();
        let entry = Entry {
            path: path.clone(),
            known,
            links,
            checked_ms: now_ms,
            used_ms: now_ms,
            uses: 1,
            share: None,
            newer: NONE,
            older: NONE,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        self.by_path.insert(path, at);
        self.link(at);
    }

    fn touch(&mut self, at: u32, now_ms: u64) {
        self.entries[at as usize].used_ms = now_ms;
        if self.newest != at {
            self.unlink(at);
            self.link(at);
        }
    }

    /// Removes up to two entries that were unused for so long; two, so that the work of a lookup is bounded.
    fn expire(&mut self, now_ms: u64, inactive_ms: u64) {
        for _ in 0..2 {
            let at = self.oldest;
            let Some(entry) = self.entries.get(at as usize) else { return };
            if now_ms.saturating_sub(entry.used_ms) <= inactive_ms {
                return;
            }
            self.remove(at);
        }
    }

    fn remove(&mut self, at: u32) {
        self.unlink(at);
        let entry = &mut self.entries[at as usize];
        (entry.known, entry.share) = (Err(("", 0)), None);
        self.by_path.remove(&std::mem::take(&mut entry.path));
        self.free.push(at);
    }

    fn link(&mut self, at: u32) {
        let older = self.newest;
        let entry = &mut self.entries[at as usize];
        (entry.newer, entry.older) = (NONE, older);
        match older {
            NONE => self.oldest = at,
            older => self.entries[older as usize].newer = at,
        }
        self.newest = at;
    }

    fn unlink(&mut self, at: u32) {
        let (newer, older) = (self.entries[at as usize].newer, self.entries[at as usize].older);
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLLOW: Links = Links { mode: Symlinks::Allowed, from: 0 };
    const RULES: Rules = Rules { valid_ms: 1000, min_uses: 2, errors: true, contents: true };

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Folder {
            Folder(tempfile::TempDir::with_prefix("tidegate-open-file-").expect("create"))
        }

        fn path(&self, name: &str) -> Vec<u8> {
            self.0.path().join(name).into_os_string().into_encoded_bytes()
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.path().join(name), text).expect("write");
        }
    }

    #[test]
    fn caches_files_and_errors() {
        let folder = Folder::new();
        folder.write("a", "x");
        let cache = Cache::new(FileCache { max: 2, inactive: 10 }, Rc::default());
        let size = |name: &str, now| {
            cache.find(&folder.path(name), true, FOLLOW, RULES, now).map(|found| found.size).map_err(|e| e.code())
        };
        assert_eq!(size("a", 0), Ok(1));
        assert_eq!(size("b", 0), Err(errno::NOENT));
        folder.write("b", "x");
        folder.write("a", "xy");
        // Not open yet, so it is opened and seen anew; the error is still valid.
        assert_eq!(size("a", 10), Ok(2));
        folder.write("a", "xyz");
        assert_eq!(size("a", 20), Ok(2));
        assert_eq!(size("b", 20), Err(errno::NOENT));
        assert_eq!(size("a", 2000), Ok(3));
        assert_eq!(size("b", 2000), Ok(1));
        // Full: the oldest goes.
        folder.write("c", "");
        assert_eq!(size("c", 2000), Ok(0));
        assert_eq!(cache.state.borrow().by_path.len(), 2);
        assert!(!cache.state.borrow().by_path.contains_key(&folder.path("a")[..]));
        // Nobody uses them: they go.
        assert_eq!(size("d", 20_000), Err(errno::NOENT));
        assert_eq!(cache.state.borrow().by_path.len(), 1);
    }

    #[test]
    fn contents_of_an_open_file_last_as_long_as_what_is_known_of_it() {
        let folder = Folder::new();
        folder.write("a", "one");
        let contents = Rc::<Contents>::default();
        let cache = Cache::new(FileCache { max: 2, inactive: 100 }, contents.clone());
        let rules = Rules { min_uses: 1, ..RULES };
        let content = |now| {
            let found = cache.find(&folder.path("a"), true, FOLLOW, rules, now).expect("a file");
            assert!(found.file.is_some(), "the descriptor stays");
            found.content.as_ref().map(|content| content.to_vec())
        };
        assert_eq!((content(0), content(1)), (None, None), "it was changed a moment ago");
        age_of_changes(3);
        assert_eq!(content(2).as_deref(), Some(&b"one"[..]));
        folder.write("a", "two");
        assert_eq!(content(3).as_deref(), Some(&b"one"[..]), "still valid");
        assert_eq!(content(1500), None, "seen anew");
        age_of_changes(6);
        assert_eq!(content(1501).as_deref(), Some(&b"two"[..]));
        assert_eq!(contents.bytes(), 3);
        drop(cache);
        assert_eq!(contents.bytes(), 0);
        engine::clock::set_source(engine::clock::system);
    }

    /// From now on the clock is so many seconds ahead of the system's.
    fn age_of_changes(secs: i64) {
        thread_local!(static AHEAD: std::cell::Cell<i64> = const { std::cell::Cell::new(0) });
        AHEAD.set(secs);
        engine::clock::set_source(|| (engine::clock::system().0 + AHEAD.get(), 0));
    }

    #[test]
    fn checks_links() {
        let folder = Folder::new();
        folder.write("a", "x");
        std::fs::create_dir(folder.0.path().join("d")).expect("create");
        folder.write("d/a", "xy");
        std::os::unix::fs::symlink("a", folder.0.path().join("l")).expect("link");
        std::os::unix::fs::symlink("d", folder.0.path().join("m")).expect("link");
        let size = |name: &str, mode, from| {
            let links = Links { mode, from };
            look(&folder.path(name), true, links).map(|found| found.size).map_err(|e| e.code())
        };
        let length = folder.path("").len() - 1;
        assert_eq!(size("a", Symlinks::Denied, length), Ok(1));
        assert_eq!(size("d/a", Symlinks::Denied, length), Ok(2));
        assert_eq!(size("l", Symlinks::Denied, length), Err(errno::LOOP));
        assert_eq!(size("m/a", Symlinks::Denied, length), Err(errno::NOTDIR), "as the kernel says of a linked folder");
        assert_eq!(size("m/a", Symlinks::Denied, length + 2), Ok(2));
        assert_eq!(size("m/a", Symlinks::IfNotOwner, length), Ok(2));
        assert_eq!(size("x", Symlinks::Denied, length), Err(errno::NOENT));
        assert_eq!(size("a/x", Symlinks::Denied, length), Err(errno::NOTDIR));
    }

    #[test]
    fn tags() {
        assert_eq!(&etag(0x6b02_5df1, 3)[..], b"\"6b025df1-3\"");
        assert_eq!(&etag(i64::MIN, u64::MAX)[..], b"\"8000000000000000-ffffffffffffffff\"");
    }
}
