//! Temporary files: bodies that don't fit into memory.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use buf::Piece;
use conf::Loader;
use engine::log::Errno;
use engine::worker::sandbox::Needs;

use crate::config::core::TempPath;
use crate::server::worker::Worker;

/// A file that is removed with its last user, unless it is to be kept.
pub struct TempFile {
    file: Rc<File>,
    path: PathBuf,
    keep: bool,
}

/// The call that failed, with its file.
pub struct TempError {
    call: &'static str,
    path: PathBuf,
    /// Where it was to be moved.
    to: Option<PathBuf>,
    error: io::Error,
}

/// How a file is left that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasting {
    /// Its permissions; folders that are made for it can be searched by whoever may read it.
    pub mode: u32,
    /// When it was last changed, in seconds since 1970; `None` is now.
    pub modified: Option<i64>,
}

impl fmt::Display for TempError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed{}", self.what(), Errno(&self.error))
    }
}

impl TempError {
    fn new(call: &'static str, path: &Path, error: io::Error) -> TempError {
        TempError { call, path: path.to_path_buf(), to: None, error }
    }

    /// The call and its files.
    pub fn what(&self) -> String {
        let mut text = format!("{}() \"{}\"", self.call, buf::text::path(&self.path));
        if let Some(to) = &self.to {
            text.push_str(&format!(" to \"{}\"", buf::text::path(to)));
        }
        text
    }

    /// Its error.
    pub fn cause(&self) -> &io::Error {
        &self.error
    }
}

impl TempFile {
    /// A new file in the folder; its name is the next number that is free. After one that is taken the numbers go on somewhere
    /// else: others beside it are likely to be taken too, a million of them perhaps, and each is a call.
    pub fn create(place: &TempPath, keep: bool, numbers: &Cell<u64>) -> Result<TempFile, TempError> {
        loop {
            let number = numbers.get();
            numbers.set((number + 1) % NUMBERS);
            let path = path_of(place, number);
            let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(CREATED).open(&path);
            let error = match opened {
                Ok(file) => return Ok(TempFile { file: Rc::new(file), path, keep }),
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::AlreadyExists => numbers.set(some_number()),
                io::ErrorKind::NotFound if !place.levels.is_empty() && make_parents(place, &path) => {
                    numbers.set(number);
                }
                _ => return Err(TempError::new("open", &path, error)),
            }
        }
    }

    /// Writes at its end.
    pub fn append(&self, bytes: &[u8]) -> Result<(), TempError> {
        (&*self.file).write_all(bytes).map_err(|error| TempError::new("write", &self.path, error))
    }

    /// Writes all pieces that are in memory at its end, small ones together.
    pub fn append_all<'a>(&self, pieces: impl IntoIterator<Item = &'a Piece>) -> Result<(), TempError> {
        let mut gathered = Gathered::default();
        for piece in pieces {
            if let Piece::Bytes(bytes) = piece {
                gathered.add(bytes, |bytes| self.append(bytes))?;
            }
        }
        gathered.write(|bytes| self.append(bytes))
    }

    /// Moves the file to `to`, where it stays, and appears whole: on another file system it is copied beside its place
    /// first. Folders that are missing are made.
    pub fn persist(self, to: &Path, lasting: &Lasting) -> Result<(), TempError> {
        match self.move_to(to, lasting)? {
            Some(file) => copy(&file.path, to, lasting),
            None => Ok(()),
        }
    }

    /// The same; if it has to be copied, a thread does that.
    pub async fn persist_in_thread(self, worker: &Worker, to: &Path, lasting: Lasting) -> Result<(), TempError> {
        let Some(file) = self.move_to(to, &lasting)? else { return Ok(()) };
        let (from, to) = (file.path.clone(), to.to_path_buf());
        let copied = worker.in_thread(move || copy(&from, &to, &lasting)).await;
        copied.unwrap_or_else(|full| Err(TempError::new("write", &file.path, io::Error::other(full))))
    }

    /// Moves the file; gives it back if its place is on another file system.
    fn move_to(mut self, to: &Path, lasting: &Lasting) -> Result<Option<TempFile>, TempError> {
        prepare(&self.file, &self.path, lasting)?;
        match rename(&self.path, to, lasting) {
            Ok(()) => {
                self.keep = true;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Ok(Some(self)),
            Err(error) => Err(TempError { to: Some(to.to_path_buf()), ..TempError::new("rename", &self.path, error) }),
        }
    }

    /// The open file.
    pub fn file(&self) -> Rc<File> {
        self.file.clone()
    }

    /// Where it is.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }
}

/// Small parts that are written together: chunks of a body may have a byte each.
#[derive(Default)]
pub(crate) struct Gathered(Vec<u8>);

impl Gathered {
    /// As much as is read at a time: what comes in one piece isn't copied.
    const MOST: usize = 16 << 10;

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a part; writes what is too much.
    pub(crate) fn add<E>(&mut self, part: &[u8], mut write: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.0.len() + part.len() > Gathered::MOST {
            self.write(&mut write)?;
        }
        if part.len() >= Gathered::MOST {
            return write(part);
        }
        self.0.extend_from_slice(part);
        Ok(())
    }

    /// Writes what there is.
    pub(crate) fn write<E>(&mut self, mut write: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if !self.0.is_empty() {
            write(&self.0)?;
            self.0.clear();
        }
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Copies a file beside its place, then moves the copy there.
fn copy(from: &Path, to: &Path, lasting: &Lasting) -> Result<(), TempError> {
    let beside = beside(to);
    let fail = |call, error| TempError::new(call, &beside, error);
    let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(CREATED).open(&beside);
    let copy =
        TempFile { file: Rc::new(opened.map_err(|error| fail("open", error))?), path: beside.clone(), keep: false };
    let mut from = File::open(from).map_err(|error| TempError::new("open", from, error))?;
    io::copy(&mut from, &mut &*copy.file).map_err(|error| fail("write", error))?;
    copy.persist(to, lasting)
}

/// A hidden name in the same folder that nothing has. It doesn't depend on the name at hand, which may be as long as names
/// can be.
pub fn beside(to: &Path) -> PathBuf {
    to.with_file_name(format!(".{:016x}", u64::from_ne_bytes(os::random_bytes())))
}

/// The permissions of temporary files.
const CREATED: u32 = 0o600;

/// Gives a file its permissions and its time. In a sandbox it keeps those that it has: nobody may change them there.
fn prepare(file: &File, path: &Path, lasting: &Lasting) -> Result<(), TempError> {
    let allowed = |done: io::Result<()>| match done {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        done => done,
    };
    if lasting.mode != CREATED {
        let mode = file.set_permissions(fs::Permissions::from_mode(lasting.mode));
        allowed(mode).map_err(|error| TempError::new("chmod", path, error))?;
    }
    let time = lasting.modified.and_then(|seconds| u64::try_from(seconds).ok());
    if let Some(time) = time.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds))) {
        allowed(file.set_modified(time)).map_err(|error| TempError::new("utimes", path, error))?;
    }
    Ok(())
}

/// Moves a file, into folders that are made where they are missing.
fn rename(from: &Path, to: &Path, lasting: &Lasting) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        done => return done,
    }
    if let Some(folder) = to.parent() {
        let mode = lasting.mode | lasting.mode >> 2 & 0o111;
        fs::DirBuilder::new().recursive(true).mode(mode).create(folder)?;
    }
    fs::rename(from, to)
}

/// The key of folders for temporary files among the loader's places.
pub const FOLDER: &str = "temporary folder";

/// The folders that the configuration names.
#[derive(Default)]
pub struct TempFolders(BTreeSet<PathBuf>);

/// Makes a folder's path absolute and registers it, so that the folder is made when the server starts.
pub fn register(loader: &mut Loader<'_>, place: &mut TempPath) {
    if place.path.is_relative() {
        place.path = Rc::new(engine::personality().temp.join(&*place.path));
    }
    if place.path.is_relative() {
        place.path = Rc::new(loader.env.prefix.join(&*place.path));
    }
    loader.store.entry::<TempFolders>().0.insert(place.path.to_path_buf());
    loader.store.entry::<Needs>().change(&*place.path);
}

/// Makes the folders that aren't there yet; they belong to the workers' user.
pub(crate) fn make_folders(loader: &mut Loader<'_>, owner: Option<(u32, u32)>) -> conf::Result<()> {
    for path in std::mem::take(&mut loader.store.entry::<TempFolders>().0) {
        let place = loader.places.get(FOLDER, buf::text::path(&path));
        let fail = |call: &str, error: &io::Error| {
            conf::Error::new(format!("{call}() \"{}\" failed{}", buf::text::path(&path), Errno(error))).or_at(place)
        };
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fail("mkdir", &error)),
            _ => {}
        }
        if let Some((uid, _)) = owner {
            os::users::chown(&path, uid, None).map_err(|error| fail("chown", &error))?;
        }
    }
    Ok(())
}

/// Numbers are below this: names have ten digits.
const NUMBERS: u64 = 10_000_000_000;

/// Any number for a temporary file: where those of a worker begin, since other workers have made files, and earlier ones have
/// left some.
pub(crate) fn some_number() -> u64 {
    (u128::from_ne_bytes(rt::random_bytes()) % u128::from(NUMBERS)) as u64
}

/// `0000000123` below folders of its last digits: with levels 1 and 2, `3/12/0000000123`.
fn path_of(place: &TempPath, number: u64) -> PathBuf {
    let name = format!("{number:010}");
    let mut path = place.path.to_path_buf();
    let mut end = name.len();
    for &level in place.levels.iter() {
        let start = end.saturating_sub(level);
        path.push(&name[start..end]);
        end = start;
    }
    path.push(name);
    path
}

fn make_parents(place: &TempPath, path: &Path) -> bool {
    place.path.is_dir() && path.parent().is_some_and(|parent| fs::create_dir_all(parent).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        let place = TempPath { path: Rc::new("/t".into()), levels: Rc::new([1, 2]) };
        assert_eq!(path_of(&place, 123), Path::new("/t/3/12/0000000123"));
    }

    #[test]
    fn a_number_that_is_taken_is_left_with_its_neighbours() {
        let folder = tempfile::TempDir::with_prefix("tidegate-numbers-").unwrap();
        let folder = folder.path();
        let place = TempPath { path: Rc::new(folder.to_path_buf()), levels: Rc::new([]) };
        for number in 0..1000 {
            File::create(path_of(&place, number)).unwrap();
        }
        let numbers = Cell::new(0);
        let file = TempFile::create(&place, false, &numbers).ok().expect("the folder is there");
        let name = file.path().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.len() == 10 && name.parse::<u64>().is_ok_and(|number| number >= 1000), "{name}");
        assert_eq!(Some(numbers.get()), name.parse::<u64>().ok().map(|number| (number + 1) % NUMBERS));
        let numbers = Cell::new(NUMBERS - 1);
        let last = TempFile::create(&place, false, &numbers).ok().expect("the folder is there");
        assert_eq!((last.path(), numbers.get()), (&folder.join("9999999999"), 0));
    }

    #[test]
    fn small_parts_are_written_together() {
        let writes = |sizes: &[usize]| {
            let (mut gathered, mut writes) = (Gathered::default(), Vec::new());
            let mut write = |bytes: &[u8]| {
                writes.push(bytes.len());
                Ok::<(), ()>(())
            };
            for size in sizes {
                gathered.add(&vec![0; *size], &mut write).unwrap();
            }
            gathered.write(&mut write).unwrap();
            assert!(gathered.is_empty());
            writes
        };
        assert_eq!(writes(&[1; 20_000]), [16_384, 3616]);
        assert_eq!(writes(&[10_000, 10_000, 20_000, 5]), [10_000, 10_000, 20_000, 5]);
        assert_eq!(writes(&[16_384, 16_384]), [16_384, 16_384]);
        assert!(writes(&[]).is_empty());
    }

    #[test]
    fn a_file_goes_with_its_last_user() {
        let folder = tempfile::TempDir::with_prefix("tidegate-temp-").unwrap();
        let folder = folder.path();
        let place = TempPath { path: Rc::new(folder.to_path_buf()), levels: Rc::new([2]) };
        let file = TempFile::create(&place, false, &Cell::new(7)).ok().expect("the folder is there");
        file.append(b"x").ok().expect("there is room");
        let path = file.path().clone();
        assert_eq!(fs::read(&path).unwrap(), b"x");
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_stays() {
        let folder = tempfile::TempDir::with_prefix("tidegate-lasting-").unwrap();
        let folder = folder.path();
        let place = TempPath { path: Rc::new(folder.to_path_buf()), levels: Rc::new([]) };
        let make = || {
            let file = TempFile::create(&place, false, &Cell::new(7)).ok().expect("the folder is there");
            file.append(b"x").ok().expect("there is room");
            file
        };
        let lasting = Lasting { mode: 0o640, modified: Some(784_111_777) };
        let to = folder.join("a/b/c");
        let file = make();
        let from = file.path().clone();
        assert_eq!(file.persist(&to, &lasting).map_err(|error| error.to_string()), Ok(()));
        let found = fs::metadata(&to).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, 0o640);
        assert_eq!(found.modified().unwrap(), UNIX_EPOCH + Duration::from_secs(784_111_777));
        assert!(!from.exists());
        let (file, other) = (make(), folder.join("o".repeat(255)));
        assert_eq!(copy(file.path(), &other, &lasting).map_err(|error| error.to_string()), Ok(()));
        assert_eq!((fs::read(&other).unwrap(), fs::read_dir(folder).unwrap().count()), (b"x".to_vec(), 3));
        drop(file);
        let error = make().persist(&to.join("below"), &lasting).expect_err("it is below a file").to_string();
        assert!(error.starts_with("rename() \"") && error.contains("/c/below\" failed"), "{error}");
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2, "nothing is left over");
    }
}
