//! Temporary files: bodies that don't fit into memory.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use conf::Loader;
use engine::log::Errno;
use engine::worker::sandbox::Needs;

use crate::config::core::TempPath;

/// A file that goes when its last user has done with it, unless it is to stay.
pub struct TempFile {
    file: Rc<File>,
    path: PathBuf,
    keep: bool,
}

/// What failed, with its file.
pub struct TempError {
    call: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl fmt::Display for TempError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}() \"{}\" failed{}", self.call, buf::text::path(&self.path), Errno(&self.error))
    }
}

impl TempFile {
    /// A new file in the folder; its name is the next number that is free.
    pub fn create(place: &TempPath, keep: bool, numbers: &Cell<u64>) -> Result<TempFile, TempError> {
        loop {
            let number = numbers.get();
            numbers.set(number + 1);
            let path = path_of(place, number);
            let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
            let error = match opened {
                Ok(file) => return Ok(TempFile { file: Rc::new(file), path, keep }),
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::AlreadyExists => {}
                io::ErrorKind::NotFound if !place.levels.is_empty() && make_parents(place, &path) => {
                    numbers.set(number);
                }
                _ => return Err(TempError { call: "open", path, error }),
            }
        }
    }

    /// Writes at its end.
    pub fn append(&self, bytes: &[u8]) -> Result<(), TempError> {
        (&*self.file).write_all(bytes).map_err(|error| TempError { call: "write", path: self.path.clone(), error })
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

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What folders for temporary files are called among the loader's places.
pub const FOLDER: &str = "temporary folder";

/// The folders that the configuration names.
#[derive(Default)]
pub struct TempFolders(BTreeSet<PathBuf>);

/// Makes a folder's path absolute and notes it, so that it is there when the server starts.
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
pub fn make_folders(loader: &mut Loader<'_>, owner: Option<(u32, u32)>) -> conf::Result<()> {
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
    fn a_file_goes_with_its_last_user() {
        let folder = std::env::temp_dir().join(format!("tidegate-temp-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let place = TempPath { path: Rc::new(folder.clone()), levels: Rc::new([2]) };
        let file = TempFile::create(&place, false, &Cell::new(7)).ok().expect("the folder is there");
        file.append(b"x").ok().expect("there is room");
        let path = file.path().clone();
        assert_eq!(fs::read(&path).unwrap(), b"x");
        drop(file);
        assert!(!path.exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
