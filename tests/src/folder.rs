//! A folder of its own for each test, gone when the test is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempDir};

/// A temporary folder that everybody may read (workers run as another user); removed when dropped, unless `TIDEGATE_KEEP`
/// is in the environment.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// Makes an empty folder below the system's folder for temporary files. It is new: what an earlier run left is never
    /// taken for one's own.
    pub fn new() -> Folder {
        let keep = std::env::var_os("TIDEGATE_KEEP").is_some();
        let made = Builder::new().prefix("tidegate-e2e-").disable_cleanup(keep).tempdir();
        let folder = made.expect("a temporary folder can be made");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder is ours");
        Folder(folder)
    }

    /// The folder's absolute path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Makes a folder below this one into which everybody may write. Returns its absolute path.
    pub fn public(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(&path).expect("folders can be made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("the folder is ours");
        path
    }

    /// Writes a file below the folder, making the folders above it. Returns its absolute path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("folders can be made");
        fs::write(&path, content).expect("the file can be written");
        path
    }
}

impl Default for Folder {
    fn default() -> Folder {
        Folder::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_new_and_ends_with_its_test() {
        let first = Folder::new();
        // Names that could be guessed, each with what a killed run has left there.
        let all = first.path().parent().expect("it is in a folder");
        let guessed = (0..20).map(|count| all.join(format!("tidegate-e2e-{}-{count}", std::process::id())));
        let guessed: Vec<PathBuf> = guessed.filter(|path| fs::create_dir(path).is_ok()).collect();
        guessed.iter().for_each(|path| fs::write(path.join("error.log"), "old").expect("written"));
        let second = Folder::new();
        let there = fs::read_dir(second.path()).expect("it is there").count();
        let path = second.path().to_path_buf();
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        drop(second);
        guessed.iter().for_each(|path| fs::remove_dir_all(path).expect("removed"));
        assert_eq!((there, mode & 0o777), (0, 0o755));
        assert_ne!(path, first.path());
        assert!(first.path().exists());
        assert_eq!(path.exists(), std::env::var_os("TIDEGATE_KEEP").is_some());
    }
}
