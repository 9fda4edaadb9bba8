//! A cache: its folder, its limits, its zone.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;

use buf::Bytes;
use engine::cycle::zones::SharedZone;

use crate::entry::{Damage, Entry, FIXED};
use crate::key::Key;
use crate::keys::Keys;
use crate::stored::Contents;
use crate::waiters::Waiters;

/// How much is done in one go, and how long the pause after it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portions {
    /// How many files.
    pub files: usize,
    /// The pause in milliseconds.
    pub sleep_ms: u64,
    /// For how many milliseconds at most.
    pub threshold_ms: u64,
}

/// What the configuration says of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder.
    pub path: PathBuf,
    /// The lengths of subfolders' names.
    pub levels: Vec<usize>,
    /// Whether temporary files are in the folder too, and not where those of other responses are.
    pub own_temp: bool,
    /// After how many seconds without use a file is removed.
    pub inactive: u64,
    /// How many bytes on disk there may be.
    pub max_size: Option<u64>,
    /// How many bytes of the file system are to be left free.
    pub min_free: u64,
    /// Removing files.
    pub manager: Portions,
    /// Looking at the files that are there.
    pub loader: Portions,
    /// Removing what wildcards have purged, if that is wanted.
    pub purger: Option<Portions>,
}

/// A cache.
pub struct Cache {
    /// Its name, which is that of its zone.
    pub name: Rc<str>,
    /// What the configuration says.
    pub settings: Settings,
    /// The keys of its responses.
    pub keys: Keys,
    /// Who waits for a response.
    pub waiters: Waiters,
}

impl Cache {
    /// A cache in a zone.
    pub fn new(zone: Rc<SharedZone>, settings: Settings) -> Cache {
        let name = zone.name().clone();
        Cache { name, keys: Keys::new(zone, settings.inactive), settings, waiters: Waiters::default() }
    }

    /// The file of a key.
    pub fn path(&self, key: &Key) -> PathBuf {
        key.path(&self.settings.path, &self.settings.levels)
    }

    /// Removes a response; whether there was one.
    pub fn remove(&self, key: &Key) -> bool {
        let known = self.keys.remove(key);
        self.unlink(key) || known
    }

    /// Removes the file of a key; whether there was one.
    pub fn unlink(&self, key: &Key) -> bool {
        match fs::remove_file(self.path(key)) {
            Ok(()) => true,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    let path = self.path(key);
                    let (path, error) = (buf::text::path(&path), engine::log::Errno(&error));
                    engine::log!(engine::log::current(), Crit, "unlink() \"{path}\" failed{error}");
                }
                false
            }
        }
    }

    /// Removes the files of keys that had to leave the zone.
    pub fn remove_evicted(&self, evicted: &[Key]) {
        for key in evicted {
            self.unlink(key);
        }
    }
}

/// Why a file isn't a stored response.
#[derive(Debug)]
pub enum Unusable {
    /// It can't be read.
    Io(io::Error),
    /// It is damaged, or of another format.
    Damaged,
}

/// How much of a file is read at first: most heads are shorter.
const FIRST_READ: usize = 4096;
/// How often a head is read whose checksum is wrong: it may be being replaced.
const READS: usize = 4;

/// Reads the head of a file with this length; with the offset at which the body begins.
pub fn read(contents: &Contents, size: u64) -> Result<(Entry, usize), Unusable> {
    let mut want = FIRST_READ.max(FIXED);
    for _ in 0..READS {
        let bytes = match contents {
            Contents::Memory(bytes) => bytes.clone(),
            Contents::File(file) => {
                let mut memory = vec![0; want.min(usize::try_from(size).unwrap_or(usize::MAX))];
                file.read_exact_at(&mut memory, 0).map_err(Unusable::Io)?;
                Bytes::from(memory)
            }
        };
        match Entry::decode(&bytes) {
            Ok((entry, start)) if entry.body_len.checked_add(start as u64) == Some(size) => return Ok((entry, start)),
            Err(Damage::Short(length)) if length as u64 <= size && length > want => want = length,
            Err(Damage::Sum) if matches!(contents, Contents::File(_)) => {}
            _ => return Err(Unusable::Damaged),
        }
    }
    Err(Unusable::Damaged)
}

#[cfg(test)]
pub(crate) mod testing {
    //! Zones and folders for tests.

    use conf::{Env, Loader, Registry, Sources, Word};
    use engine::cycle::zones;
    use tempfile::TempDir;

    use super::*;

    /// A zone of this size.
    pub(crate) fn zone(size: usize) -> Rc<SharedZone> {
        let registry = Registry::new();
        let mut loader = Loader::new(&registry, Env::default(), Sources::default());
        let zone = zones::declare(&mut loader, &Word::default(), b"one", size, crate::owner("cache"))
            .expect("it is the first");
        zone.open(None).expect("memory");
        zone
    }

    pub(crate) const PORTIONS: Portions = Portions { files: 2, sleep_ms: 7, threshold_ms: 10_000 };

    /// A cache in a folder of its own.
    pub(crate) fn cache(change: impl FnOnce(&mut Settings)) -> (Cache, TempDir) {
        let folder = TempDir::with_prefix("tidegate-cache-").expect("made");
        let mut settings = Settings {
            path: folder.path().to_path_buf(),
            levels: vec![1, 2],
            own_temp: true,
            inactive: 60,
            max_size: None,
            min_free: 0,
            manager: PORTIONS,
            loader: PORTIONS,
            purger: None,
        };
        change(&mut settings);
        (Cache::new(zone(65536), settings), folder)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::entry::Room;

    #[test]
    fn a_file_is_whole_or_damaged() {
        let (cache, _folder) = testing::cache(|_| {});
        for key_len in [10, 5000] {
            let entry = Entry { key: Bytes::from(vec![b'k'; key_len]), body_len: 3, ..Entry::default() };
            let head = entry.encode(Room::Short).expect("short enough");
            let path = cache.settings.path.join("f");
            for (bytes, whole) in [
                ([&head[..], b"abc"].concat(), true),
                ([&head[..], b"ab"].concat(), false),
                ([&head[..], b"abcd"].concat(), false),
                (head[..100].to_vec(), false),
                (Vec::new(), false),
            ] {
                fs::write(&path, &bytes).expect("written");
                let file = Contents::File(Rc::new(File::open(&path).expect("opened")));
                let read_file = read(&file, bytes.len() as u64);
                let size = bytes.len() as u64;
                let read_memory = read(&Contents::Memory(Bytes::from(bytes)), size);
                for read in [read_file, read_memory] {
                    assert_eq!(
                        read.ok().map(|(entry, start)| (entry.key.len(), start)),
                        whole.then_some((key_len, head.len()))
                    );
                }
            }
        }
    }
}
