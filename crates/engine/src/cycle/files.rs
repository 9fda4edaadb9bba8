//! The real files behind the configuration's `include`.

use std::io;
use std::path::{Path, PathBuf};

/// The system's files.
pub(super) struct SystemFiles;

impl conf::Files for SystemFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    /// The paths that match, in the order of their bytes. As in the shell, a leading dot has to be matched by a dot.
    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = vec![PathBuf::new()];
        for part in pattern.components() {
            let text = part.as_os_str().as_encoded_bytes();
            found = match is_pattern(text) {
                false => found.into_iter().map(|path| path.join(part)).collect(),
                true => found.iter().flat_map(|folder| matching(folder, text)).collect(),
            };
        }
        // A link whose target is missing is there: to leave it out in silence would leave out what it was to include.
        found.retain(|path| path.symlink_metadata().is_ok());
        // By the bytes of whole paths, as glob(3) sorts: `a.b/` comes before `a/`.
        found.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
        Ok(found)
    }
}

/// The system's files, and one that is built in.
pub(super) struct WithBuiltIn<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
}

impl conf::Files for WithBuiltIn<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path == Path::new(self.name) {
            return Ok(self.text.as_bytes().to_vec());
        }
        SystemFiles.read(path)
    }

    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        SystemFiles.glob(pattern)
    }
}

fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|byte| b"*?[".contains(byte))
}

fn matching(folder: &Path, pattern: &[u8]) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
    let names = names.filter(|name| conf::glob_matches(pattern, name.as_encoded_bytes()));
    names.map(|name| folder.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_and_without_dot_files() {
        let folder = tempfile::TempDir::with_prefix("tidegate-glob-").expect("a folder");
        let folder = folder.path();
        for name in ["b.conf", "a.conf", ".c.conf", "d.txt"] {
            std::fs::write(folder.join(name), "").expect("a file");
        }
        let found = conf::Files::glob(&SystemFiles, &folder.join("*.conf")).expect("found");
        assert_eq!(found, [folder.join("a.conf"), folder.join("b.conf")]);
        assert!(conf::Files::glob(&SystemFiles, &folder.join("nothing*")).expect("found").is_empty());
    }

    #[test]
    fn links_without_a_target_and_the_order_over_folders() {
        let folder = tempfile::TempDir::with_prefix("tidegate-glob-").expect("a folder");
        let folder = folder.path();
        for site in ["example.com", "example.com.au"] {
            std::fs::create_dir(folder.join(site)).expect("a folder");
            std::fs::write(folder.join(site).join("nginx.conf"), "").expect("a file");
        }
        std::os::unix::fs::symlink("nowhere", folder.join("shop")).expect("a link");
        let glob = |pattern: &str| conf::Files::glob(&SystemFiles, &folder.join(pattern)).expect("found");
        assert_eq!(glob("s*"), [folder.join("shop")]);
        assert_eq!(
            glob("*/nginx.conf"),
            ["example.com.au", "example.com"].map(|site| folder.join(site).join("nginx.conf"))
        );
    }
}
