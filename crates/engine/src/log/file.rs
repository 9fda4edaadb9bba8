//! Log files: shared by path, buffered where asked, reopened on a signal.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{Errno, current};
use crate::clock;

/// Turns what is buffered into what is written (compression).
pub type Encoder = Rc<dyn Fn(&[u8]) -> Vec<u8>>;

/// A file that is only appended to, shared by all logs of its path.
pub struct LogFile {
    path: PathBuf,
    file: RefCell<Option<File>>,
    buffer: RefCell<Vec<u8>>,
    buffering: RefCell<Option<Buffering>>,
    flush_armed: Cell<bool>,
    full_since: Cell<i64>,
    warned: Cell<i64>,
    /// Whether it is made for its owner alone.
    private: Cell<bool>,
}

/// How a file is buffered.
#[derive(Clone)]
pub struct Buffering {
    /// Bytes that are gathered before they are written.
    pub size: usize,
    /// How long they may wait, if there is a limit.
    pub flush_ms: Option<u64>,
    /// What they go through on their way.
    pub encoder: Option<Encoder>,
}

impl LogFile {
    /// A file that isn't open yet.
    pub fn new(path: PathBuf) -> LogFile {
        LogFile {
            path,
            file: RefCell::default(),
            buffer: RefCell::default(),
            buffering: RefCell::default(),
            flush_armed: Cell::default(),
            full_since: Cell::new(i64::MIN),
            warned: Cell::new(i64::MIN),
            private: Cell::default(),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.file.borrow().is_some()
    }

    /// Calls `f` with its descriptor, if it is open.
    pub(crate) fn with_descriptor<T>(&self, f: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        self.file.borrow().as_ref().map(|file| f(file.as_fd()))
    }

    /// Opens it for appending, and makes it if there is none.
    pub fn open(&self) -> io::Result<()> {
        let mode = if self.private.get() { 0o600 } else { 0o644 };
        let file = OpenOptions::new().append(true).create(true).mode(mode).open(&self.path)?;
        *self.file.borrow_mut() = Some(file);
        Ok(())
    }

    /// How it is buffered, if it is.
    pub fn buffering(&self) -> Option<Buffering> {
        self.buffering.borrow().clone()
    }

    /// Makes it buffered.
    pub fn set_buffering(&self, buffering: Buffering) {
        *self.buffering.borrow_mut() = Some(buffering);
    }

    /// Writes what is buffered and opens the path again. The master, as root, gives the file to `owner`, so that
    /// workers can open it in their turn.
    pub fn reopen(&self, owner: Option<u32>) -> io::Result<()> {
        self.flush();
        self.open()?;
        let Some(uid) = owner else { return Ok(()) };
        let file = self.file.borrow();
        let Some(file) = file.as_ref() else { return Ok(()) };
        let meta = file.metadata()?;
        if meta.is_file() && meta.uid() != uid {
            std::os::unix::fs::fchown(file, Some(uid), None)?;
        }
        if meta.is_file() && meta.mode() & 0o600 != 0o600 {
            file.set_permissions(std::fs::Permissions::from_mode(meta.mode() & 0o7777 | 0o600))?;
        }
        Ok(())
    }

    /// Writes a line, or buffers it if the file is buffered. Never fails: see [`LogFile`]'s rule on full disks, which
    /// is silence for a second and one warning in the error log.
    pub fn write(self: &Rc<Self>, line: &[u8]) {
        let Some((size, flush_ms)) = self.buffering.borrow().as_ref().map(|b| (b.size, b.flush_ms)) else {
            self.write_reporting(line);
            return;
        };
        if self.buffer.borrow().len() + line.len() > size {
            self.flush();
        }
        if line.len() > size {
            self.put(line);
            return;
        }
        self.buffer.borrow_mut().extend_from_slice(line);
        if let Some(ms) = flush_ms {
            self.arm_flush(ms);
        }
    }

    fn arm_flush(self: &Rc<Self>, ms: u64) {
        if self.flush_armed.replace(true) {
            return;
        }
        let file = self.clone();
        crate::worker::after(ms, move || {
            file.flush_armed.set(false);
            file.flush();
        });
    }

    /// Writes what is buffered.
    pub fn flush(&self) {
        let bytes = std::mem::take(&mut *self.buffer.borrow_mut());
        if !bytes.is_empty() {
            self.put(&bytes);
            // The allocation is worth keeping.
            let mut bytes = bytes;
            bytes.clear();
            *self.buffer.borrow_mut() = bytes;
        }
    }

    fn put(&self, bytes: &[u8]) {
        let encoder = self.buffering.borrow().as_ref().and_then(|buffering| buffering.encoder.clone());
        match encoder {
            Some(encode) => self.write_reporting(&encode(bytes)),
            None => self.write_reporting(bytes),
        }
    }

    fn write_reporting(&self, bytes: &[u8]) {
        let Err(error) = self.try_write(bytes) else { return };
        let (now, _) = clock::now();
        if self.warned.replace(now) != now {
            crate::log!(current(), Alert, "write() to \"{}\" failed{}", buf::text::path(&self.path), Errno(&error));
        }
    }

    /// Writes at once and says nothing of errors: for the error log itself.
    pub(crate) fn write_now(&self, bytes: &[u8]) {
        let _ = self.try_write(bytes);
    }

    /// One write, none for a second after the disk was full.
    fn try_write(&self, bytes: &[u8]) -> io::Result<()> {
        let (now, _) = clock::now();
        if self.full_since.get() == now {
            return Ok(());
        }
        let file = self.file.borrow();
        let Some(file) = file.as_ref() else { return Ok(()) };
        let mut writer: &File = file;
        let result = writer.write_all(bytes);
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::StorageFull) {
            self.full_since.set(now);
        }
        result
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The log files of one cycle.
#[derive(Default)]
pub struct LogFiles {
    by_path: HashMap<PathBuf, Rc<LogFile>>,
    in_order: Vec<Rc<LogFile>>,
    stderr: bool,
}

impl LogFiles {
    /// The file of that path, one for all who ask.
    pub fn get(&mut self, path: &Path) -> Rc<LogFile> {
        if let Some(file) = self.by_path.get(path) {
            return file.clone();
        }
        let file = Rc::new(LogFile::new(path.to_path_buf()));
        self.by_path.insert(path.to_path_buf(), file.clone());
        self.in_order.push(file.clone());
        file
    }

    /// The same; if there is no such file yet, nobody but its owner may read it.
    pub fn get_private(&mut self, path: &Path) -> Rc<LogFile> {
        let file = self.get(path);
        file.private.set(true);
        file
    }

    /// Notes that some level's log is the standard error stream, which then stays what it is.
    pub fn note_stderr(&mut self) {
        self.stderr = true;
    }

    /// Whether some level's log is the standard error stream.
    pub(crate) fn uses_stderr(&self) -> bool {
        self.stderr
    }

    /// All files, in the order in which they were met.
    pub fn iter(&self) -> impl Iterator<Item = &Rc<LogFile>> {
        self.in_order.iter()
    }

    /// Opens those that aren't open; the first failure, in nginx's words, ends it. `places` knows where they are named.
    pub(crate) fn open_all(&self, places: &conf::Places) -> conf::Result<()> {
        for file in self.iter().filter(|file| !file.is_open()) {
            let path = buf::text::path(file.path());
            file.open().map_err(|error| {
                let error = conf::Error::new(format!("open() \"{path}\" failed{}", Errno(&error)));
                error.or_at(places.get(super::FILE, &path))
            })?;
        }
        Ok(())
    }

    /// Reopens all, as [`LogFile::reopen`] says; one that can't be stays as it is.
    pub(crate) fn reopen_all(&self, owner: Option<u32>) {
        for file in self.iter() {
            if let Err(error) = file.reopen(owner) {
                crate::log!(current(), Emerg, "open() \"{}\" failed{}", buf::text::path(file.path()), Errno(&error));
            }
        }
    }

    /// Writes what is buffered anywhere.
    pub(crate) fn flush_all(&self) {
        self.iter().for_each(|file| file.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_and_reopens() {
        let folder = tempfile::TempDir::with_prefix("tidegate-log-").expect("a temporary folder");
        let folder = folder.path();
        let path = folder.join("a.log");
        let read = || std::fs::read_to_string(&path).expect("the log");
        let mut files = LogFiles::default();
        let file = files.get(&path);
        assert!(Rc::ptr_eq(&file, &files.get(&path)));
        files.open_all(&conf::Places::default()).expect("opens");
        file.set_buffering(Buffering { size: 8, flush_ms: None, encoder: None });
        file.write(b"12345\n");
        assert_eq!(read(), "");
        file.write(b"678\n");
        assert_eq!(read(), "12345\n");
        file.write(b"a long line\n");
        assert_eq!(read(), "12345\n678\na long line\n");
        file.write(b"x\n");
        std::fs::rename(&path, folder.join("b.log")).expect("renames");
        files.reopen_all(None);
        file.write(b"y\n");
        files.flush_all();
        assert_eq!(read(), "y\n");
    }

    #[test]
    fn a_full_disk_hurts_nobody() {
        let file = Rc::new(LogFile::new("/dev/full".into()));
        file.open().expect("opens");
        file.write(b"x\n");
        file.write(b"x\n");
        file.write_now(b"x\n");
    }

    #[test]
    fn names_the_file_that_fails() {
        let mut files = LogFiles::default();
        files.get(Path::new("/nonexistent/x"));
        let message = "open() \"/nonexistent/x\" failed (2: No such file or directory)";
        let error = files.open_all(&conf::Places::default()).expect_err("there is no such folder");
        assert_eq!(error.message, message);
    }
}
