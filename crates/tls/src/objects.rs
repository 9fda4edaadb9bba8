//! What a configuration has read of TLS: chains of certificates, keys, authorities and revocation lists, each of them
//! once. The configuration after it takes over those whose files have not changed (`ssl_object_cache_inheritable`).
//!
//! As in nginx, a file has not changed if it has the same inode and the same time of its last change, in seconds. An
//! encrypted key is decrypted anew by each configuration, since its password may have changed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::rc::Rc;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SigningKey};

use crate::error::{Error, Result, cannot_open};
use crate::pem;
use crate::x509::RevocationList;

/// What a configuration has read of TLS.
#[derive(Default)]
pub struct Objects {
    /// Each chain together with the key that it was used with last.
    pub(crate) chains: Table<Arc<CertifiedKey>>,
    /// Keys that are not encrypted.
    pub(crate) keys: Table<Arc<dyn SigningKey>>,
    pub(crate) authorities: Table<Arc<[CertificateDer<'static>]>>,
    pub(crate) lists: Table<Arc<[RevocationList]>>,
}

/// Objects of one kind, by the names of their files.
pub(crate) struct Table<T>(RefCell<HashMap<String, Kept<T>>>);

#[derive(Clone)]
struct Kept<T> {
    version: Version,
    value: T,
}

/// What tells whether a file has changed: its device, its inode, and the second of its last change. A text after `data:`
/// has none of them: its name says all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version(u64, u64, i64);

/// What stands in a file, or after `data:`.
#[derive(Clone)]
pub(crate) struct Text {
    pub(crate) bytes: Rc<[u8]>,
    pub(crate) version: Version,
}

/// A configuration that is being built.
struct Building {
    objects: Rc<Objects>,
    /// Those of the configuration before it, if it may have them.
    older: Option<Rc<Objects>>,
    /// The files that have been read.
    texts: HashMap<String, Text>,
    /// The keys that have been decrypted.
    decrypted: HashMap<Locked, Arc<dyn SigningKey>>,
}

/// The name of an encrypted key's file, and the passwords that were given for it.
type Locked = (String, Vec<Vec<u8>>);

thread_local! {
    static BUILDING: RefCell<Option<Building>> = const { RefCell::new(None) };
}

/// While `build` runs, each file is read once, and each object made once and kept in `objects`: servers share them, and
/// see the same. Those of `older` whose files have not changed are taken over.
pub fn reading<T>(objects: &Rc<Objects>, older: Option<Rc<Objects>>, build: impl FnOnce() -> T) -> T {
    let (texts, decrypted) = (HashMap::new(), HashMap::new());
    BUILDING.set(Some(Building { objects: objects.clone(), older, texts, decrypted }));
    let built = build();
    BUILDING.set(None);
    built
}

/// While `build` runs, this certificate and this key are read from their files, whatever was read before: the
/// configuration after that of `objects` takes over what was read last.
pub fn reading_again<T>(objects: &Rc<Objects>, certificate: &str, key: &str, build: impl FnOnce() -> T) -> T {
    objects.chains.0.borrow_mut().remove(certificate);
    objects.keys.0.borrow_mut().remove(key);
    reading(objects, None, build)
}

/// The object of the file `name` if it is known: this configuration has read it, or the one before it has, and the file
/// has not changed since.
pub(crate) fn known<T: Clone>(name: &str, table: fn(&Objects) -> &Table<T>) -> Option<T> {
    BUILDING.with_borrow(|building| {
        let building = building.as_ref()?;
        let own = table(&building.objects);
        if let Some(kept) = own.0.borrow().get(name) {
            return Some(kept.value.clone());
        }
        let kept = table(building.older.as_ref()?).unchanged(name)?;
        own.0.borrow_mut().insert(name.to_owned(), kept.clone());
        Some(kept.value)
    })
}

/// Keeps what was made of the file `name`.
pub(crate) fn keep<T>(name: &str, table: fn(&Objects) -> &Table<T>, version: Version, value: T) {
    BUILDING.with_borrow(|building| {
        if let Some(building) = building {
            table(&building.objects).0.borrow_mut().insert(name.to_owned(), Kept { version, value });
        }
    });
}

/// Keeps another object for the same contents of the file `name`.
pub(crate) fn replace<T>(name: &str, table: fn(&Objects) -> &Table<T>, value: T) {
    BUILDING.with_borrow(|building| {
        let Some(building) = building else { return };
        if let Some(kept) = table(&building.objects).0.borrow_mut().get_mut(name) {
            kept.value = value;
        }
    });
}

/// The encrypted key of the file `name`, if this configuration has decrypted it with these passwords.
pub(crate) fn decrypted(name: &str, passwords: &[Vec<u8>]) -> Option<Arc<dyn SigningKey>> {
    let names = (name.to_owned(), passwords.to_owned());
    BUILDING.with_borrow(|building| building.as_ref()?.decrypted.get(&names).cloned())
}

/// Keeps an encrypted key until the configuration is built.
pub(crate) fn keep_decrypted(name: &str, passwords: &[Vec<u8>], key: Arc<dyn SigningKey>) {
    BUILDING.with_borrow_mut(|building| {
        if let Some(building) = building {
            building.decrypted.insert((name.to_owned(), passwords.to_owned()), key);
        }
    });
}

/// The text that a name stands for: a file's, or what stands after `data:`.
pub(crate) fn read(name: &str) -> Result<Text> {
    if let Some(text) = name.strip_prefix("data:") {
        return Ok(Text { bytes: text.as_bytes().into(), version: Version::default() });
    }
    let known = BUILDING.with_borrow(|building| building.as_ref()?.texts.get(name).cloned());
    if let Some(text) = known {
        return Ok(text);
    }
    let text = read_file(name)?;
    BUILDING.with_borrow_mut(|building| {
        if let Some(building) = building {
            building.texts.insert(name.to_owned(), text.clone());
        }
    });
    Ok(text)
}

fn read_file(name: &str) -> Result<Text> {
    let failed = |error: io::Error| Error::new(format!("BIO_new_file() failed ({})", cannot_open(name, "r", &error)));
    let mut file = File::open(name).map_err(failed)?;
    // Of the open file: what another one may have in its place meanwhile is a change.
    let known = file.metadata().map_err(failed)?;
    let mut bytes = Vec::new();
    // A folder can be opened, and nothing is read.
    if !known.is_dir() {
        if known.len() > pem::MAX_SIZE as u64 {
            return Err(Error::new("BIO_new_file() failed (the file is too large)"));
        }
        file.read_to_end(&mut bytes).map_err(failed)?;
    }
    Ok(Text { bytes: bytes.into(), version: Version::from(&known) })
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table(RefCell::default())
    }
}

impl<T: Clone> Table<T> {
    /// The object of the file `name`, unless the file has changed.
    fn unchanged(&self, name: &str) -> Option<Kept<T>> {
        let table = self.0.borrow();
        let kept = table.get(name)?;
        (Version::of(name) == Some(kept.version)).then(|| kept.clone())
    }
}

impl Version {
    fn of(name: &str) -> Option<Version> {
        match name.starts_with("data:") {
            true => Some(Version::default()),
            false => std::fs::metadata(name).ok().as_ref().map(Version::from),
        }
    }
}

impl From<&Metadata> for Version {
    fn from(known: &Metadata) -> Version {
        Version(known.dev(), known.ino(), known.mtime())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::certs::{Identity, identity};

    /// A folder for a test, removed at its end.
    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Folder {
            Folder(tempfile::TempDir::with_prefix("tidegate-tls-").unwrap())
        }

        fn path(&self, name: &str) -> String {
            self.0.path().join(name).to_str().unwrap().to_owned()
        }

        /// Writes a file in place, with this time of its last change.
        fn write(&self, name: &str, text: &str, changed: Duration) {
            fs::write(self.path(name), text).unwrap();
            let file = File::options().write(true).open(self.path(name)).unwrap();
            file.set_modified(UNIX_EPOCH + changed).unwrap();
        }

        fn pair(&self) -> Identity {
            identity(&self.path("crt"), &self.path("key"), &[]).unwrap()
        }
    }

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["example.com".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    /// What a configuration reads after the one that has `older`.
    fn next<T>(older: &Rc<Objects>, build: impl Fn() -> T) -> (Rc<Objects>, T) {
        let objects = Rc::default();
        let built = reading(&objects, Some(older.clone()), build);
        (objects, built)
    }

    fn is_same(one: &Identity, other: &Identity) -> bool {
        Arc::ptr_eq(&one.key, &other.key)
    }

    #[test]
    fn what_is_unchanged_is_taken_over() {
        let folder = Folder::new();
        let second = Duration::from_secs(1_700_000_000);
        let write = |pair: &(String, String), changed| {
            folder.write("crt", &pair.0, changed);
            folder.write("key", &pair.1, changed);
        };
        let (one, two) = (made(), made());
        write(&one, second);
        let nothing = Rc::default();
        let (objects, (first, again)) = next(&nothing, || (folder.pair(), folder.pair()));
        assert!(is_same(&first, &again), "servers share it");
        assert!(!is_same(&first, &folder.pair()), "nothing is built");
        // The same second.
        write(&two, second + Duration::from_millis(900));
        let (objects, taken) = next(&objects, || folder.pair());
        assert!(is_same(&first, &taken));
        let (objects, taken) = next(&objects, || folder.pair());
        assert!(is_same(&first, &taken), "over several configurations");
        assert!(!is_same(&first, &next(&nothing, || folder.pair()).1));
        // Read again while it runs.
        let renewed = reading_again(&objects, &folder.path("crt"), &folder.path("key"), || folder.pair());
        assert_ne!(first.chain(), renewed.chain());
        let (objects, taken) = next(&objects, || folder.pair());
        assert!(is_same(&renewed, &taken));
        write(&one, second + Duration::from_secs(1));
        assert_eq!(next(&objects, || folder.pair()).1.chain(), first.chain());
        // Another file, which looks as the one before it.
        folder.write("aside", &one.0, second);
        fs::rename(folder.path("aside"), folder.path("crt")).unwrap();
        folder.write("key", &one.1, second);
        assert_eq!(next(&objects, || folder.pair()).1.chain(), first.chain());
    }

    #[test]
    fn keys_after_data_are_taken_over() {
        let (crt, key) = made();
        let pair = || identity(&format!("data:{crt}"), &format!("data:{key}"), &[]).unwrap();
        let (objects, first) = next(&Rc::default(), pair);
        assert!(is_same(&first, &next(&objects, pair).1));
    }

    #[test]
    fn all_keys_of_a_file_are_found() {
        let folder = Folder::new();
        let (one, two) = (made(), made());
        let changed = Duration::from_secs(1);
        folder.write("one", &one.0, changed);
        folder.write("two", &two.0, changed);
        folder.write("keys", &(one.1 + &two.1), changed);
        let both = || {
            ["one", "two", "one"]
                .map(|name| identity(&folder.path(name), &folder.path("keys"), &[]).unwrap().chain().len())
        };
        let (objects, found) = next(&Rc::default(), both);
        assert_eq!((found, next(&objects, both).1), ([1; 3], [1; 3]));
    }

    #[test]
    fn folders_are_empty_and_large_files_refused() {
        let folder = Folder::new();
        assert!(read(&folder.path("")).unwrap().bytes.is_empty());
        File::create(folder.path("large")).unwrap().set_len(pem::MAX_SIZE as u64 + 1).unwrap();
        assert!(read(&folder.path("large")).is_err_and(|error| error.0.contains("too large")));
    }
}
