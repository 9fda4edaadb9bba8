//! The pid file.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::log::Errno;

/// Writes the process's id; the error is nginx's message.
pub fn write(path: &Path) -> Result<(), String> {
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path);
    let written = opened.and_then(|mut file| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
    written.map_err(|error| open_failed(path, &error))
}

/// Whether it could be written (`-t`): it is made if there is none, and left as it is if there is one.
pub fn check(path: &Path) -> Result<(), String> {
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(MODE).open(path);
    opened.map(drop).map_err(|error| open_failed(path, &error))
}

/// Reads the id of the running master.
pub fn read(path: &Path) -> Result<i32, String> {
    let text = fs::read_to_string(path).map_err(|error| open_failed(path, &error))?;
    let text = text.trim_end_matches(['\r', '\n']);
    let id = text.parse::<i32>().ok().filter(|&id| id > 0);
    id.ok_or_else(|| format!("invalid PID number \"{text}\" in \"{}\"", buf::text::path(path)))
}

/// Removes it; the error is nginx's message.
pub fn remove(path: &Path) -> Result<(), String> {
    fs::remove_file(path).map_err(|error| format!("unlink() \"{}\" failed{}", buf::text::path(path), Errno(&error)))
}

fn open_failed(path: &Path, error: &std::io::Error) -> String {
    format!("open() \"{}\" failed{}", buf::text::path(path), Errno(error))
}

/// A daemon has no umask. Who may write the file chooses whom root's next signal goes to.
const MODE: u32 = 0o644;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn round_trip() {
        let folder = tempfile::TempDir::with_prefix("tidegate-pid-").expect("a folder");
        let path = folder.path().join("pid");
        write(&path).expect("writes");
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o133, 0, "only its owner writes");
        check(&path).expect("checks");
        assert_eq!(read(&path), Ok(std::process::id() as i32));
        fs::write(&path, "x1\n").expect("writes");
        assert_eq!(read(&path), Err(format!("invalid PID number \"x1\" in \"{}\"", path.display())));
        remove(&path).expect("removes");
        assert_eq!(read(&path), Err(format!("open() \"{}\" failed (2: No such file or directory)", path.display())));
    }
}
