//! Listening sockets: opened by the master, kept over reloads by their address, inherited by workers.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use os::SockAddr;
use os::socket::{self, ListenError};

use crate::log::{Errno, Level};
use crate::module::Listen;
use crate::report::Reporter;

/// One address on which the program listens.
pub struct Listening {
    /// The application it belongs to: an index of the cycle's.
    pub app: usize,
    /// The index in that application's own list.
    pub index: usize,
    /// Address and options.
    pub listen: Listen,
    /// The sockets: one, or with `reuseport` one for each worker. None when the configuration is only tested and the
    /// address is in use.
    pub sockets: RefCell<Vec<Rc<OwnedFd>>>,
}

impl Listening {
    /// The socket for a worker, taken out. All others are closed in this process: what a worker that quits no longer
    /// accepts must not wait in a queue that it still holds open.
    pub fn take(&self, worker: usize) -> Option<Rc<OwnedFd>> {
        let mut sockets = self.sockets.take();
        let at = worker.checked_rem(sockets.len())?;
        Some(sockets.swap_remove(at))
    }

    /// The file of a unix socket.
    pub fn path(&self) -> Option<&Path> {
        unix_path(&self.listen.addr)
    }
}

/// How sockets are opened.
pub struct Opening<'a> {
    /// Those of the old cycle.
    pub old: &'a [Listening],
    /// How many workers there will be.
    pub workers: usize,
    /// Whether the configuration is only tested: then it is no error that an address is in use.
    pub test: bool,
    /// Where failures are told.
    pub reporter: &'a Reporter,
}

/// Opens what the applications ask for, `(application, index, listen)`. `None`: it failed, and that was reported.
pub fn open_all(wanted: Vec<(usize, usize, Listen)>, opening: &Opening<'_>) -> Option<Vec<Listening>> {
    let mut all: Vec<Listening> = wanted
        .into_iter()
        .map(|(app, index, listen)| Listening { app, index, listen, sockets: RefCell::default() })
        .collect();
    for listening in &all {
        inherit(listening, opening.old, opening.reporter);
    }
    for attempt in 1..=ATTEMPTS {
        match open_missing(&all, opening) {
            Opened::All => return Some(all),
            Opened::Failed => break,
            Opened::InUse if attempt < ATTEMPTS => {
                opening.reporter.say(Level::Notice, "try again to bind() after 500ms");
                std::thread::sleep(Duration::from_millis(500));
            }
            Opened::InUse => opening.reporter.say(Level::Emerg, "still could not bind()"),
        }
    }
    all.retain(|listening| !listening.sockets.borrow().is_empty());
    remove_files(&all, opening.old, &|_| false);
    None
}

/// What came of an attempt.
enum Opened {
    All,
    InUse,
    Failed,
}

fn open_missing(all: &[Listening], opening: &Opening<'_>) -> Opened {
    let mut opened = Opened::All;
    for listening in all {
        if let Err(error) = open(listening, opening) {
            opening.reporter.say(Level::Emerg, &message(&listening.listen, &error));
            if error.error.kind() != io::ErrorKind::AddrInUse {
                return Opened::Failed;
            }
            opened = Opened::InUse;
        }
    }
    opened
}

/// Takes over the sockets of the same address from the old cycle.
fn inherit(listening: &Listening, old: &[Listening], reporter: &Reporter) {
    let same = |other: &&Listening| {
        other.listen.addr == listening.listen.addr
            && other.listen.options.datagram == listening.listen.options.datagram
            && other.listen.options.reuseport == listening.listen.options.reuseport
    };
    let Some(other) = old.iter().find(same) else { return };
    listening.sockets.borrow_mut().clone_from(&other.sockets.borrow());
    if other.listen.options != listening.listen.options {
        for fd in listening.sockets.borrow().iter() {
            if let Err(error) = socket::configure(fd.as_raw_fd(), &listening.listen.options, true) {
                reporter.say(Level::Alert, &message(&listening.listen, &error));
            }
        }
    }
}

/// Opens the sockets that are missing.
fn open(listening: &Listening, opening: &Opening<'_>) -> Result<(), ListenError> {
    let count = if listening.listen.options.reuseport && !opening.test { opening.workers.max(1) } else { 1 };
    let mut sockets = listening.sockets.borrow_mut();
    sockets.truncate(count);
    while sockets.len() < count {
        match open_one(&listening.listen, opening.test) {
            Ok(fd) => sockets.push(Rc::new(fd)),
            Err(error) if opening.test && error.error.kind() == io::ErrorKind::AddrInUse => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn open_one(listen: &Listen, test: bool) -> Result<OwnedFd, ListenError> {
    let path = unix_path(&listen.addr);
    let existed = path.is_some_and(Path::exists);
    let mut result = socket::listen(&listen.addr, &listen.options);
    if let (Err(error), Some(path), false) = (&result, path, test)
        && error.error.kind() == io::ErrorKind::AddrInUse
        && is_stale(path)
        && std::fs::remove_file(path).is_ok()
    {
        result = socket::listen(&listen.addr, &listen.options);
    }
    if let (true, false, Some(path)) = (test, existed, path) {
        let _ = std::fs::remove_file(path);
    }
    result
}

/// Whether nobody listens on a unix socket's file any more.
fn is_stale(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let refused = std::os::unix::net::UnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    is_socket && refused
}

fn unix_path(addr: &SockAddr) -> Option<&Path> {
    match addr {
        SockAddr::Unix(path) if path.first().is_some_and(|&byte| byte != 0) => {
            Some(Path::new(std::ffi::OsStr::from_bytes(path)))
        }
        _ => None,
    }
}

/// `bind() to 0.0.0.0:80 failed (98: Address already in use)`.
fn message(listen: &Listen, error: &ListenError) -> String {
    let (addr, errno) = (&listen.addr, Errno(&error.error));
    match error.call {
        "bind()" => format!("bind() to {addr} failed{errno}"),
        "listen()" => format!("listen() to {addr}, backlog {} failed{errno}", listen.options.backlog),
        call => format!("{call} {addr} failed{errno}"),
    }
}

/// Removes the files of unix sockets that are in `old` and not in `new`, but for those that `kept` says yes to.
pub fn remove_files(old: &[Listening], new: &[Listening], kept: &dyn Fn(&Path) -> bool) {
    for path in old.iter().filter_map(Listening::path) {
        if !kept(path) && !new.iter().any(|listening| listening.path() == Some(path)) {
            let _ = std::fs::remove_file(path);
        }
    }
}

const ATTEMPTS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Log;

    fn local() -> Listen {
        let addr = SockAddr::V4("127.0.0.1:0".parse().expect("an address"));
        Listen { addr, options: Default::default() }
    }

    fn opening<'a>(old: &'a [Listening], test: bool, reporter: &'a Reporter) -> Opening<'a> {
        Opening { old, workers: 3, test, reporter }
    }

    #[test]
    fn keeps_sockets_by_address() {
        let reporter = Reporter::running(Log::new(&[]));
        let first = open_all(vec![(0, 0, local())], &opening(&[], false, &reporter)).expect("opens");
        let second = open_all(vec![(0, 0, local())], &opening(&first, false, &reporter)).expect("opens");
        assert!(Rc::ptr_eq(&first[0].sockets.borrow()[0], &second[0].sockets.borrow()[0]));
    }

    #[test]
    fn one_socket_for_each_worker() {
        let reporter = Reporter::running(Log::new(&[]));
        let mut listen = local();
        listen.options.reuseport = true;
        let all = open_all(vec![(0, 0, listen)], &opening(&[], false, &reporter)).expect("opens");
        assert_eq!(all[0].sockets.borrow().len(), 3);
    }

    #[test]
    fn an_address_in_use_is_no_error_in_a_test() {
        let reporter = Reporter::running(Log::new(&[]));
        let first = open_all(vec![(0, 0, local())], &opening(&[], false, &reporter)).expect("opens");
        let mut again = local();
        again.addr = socket::local_addr(first[0].sockets.borrow()[0].as_raw_fd()).expect("an address");
        let error = open_one(&again, true).expect_err("in use");
        assert_eq!(message(&again, &error), format!("bind() to {} failed (98: Address already in use)", again.addr));
        let tested = open_all(vec![(0, 0, again)], &opening(&[], true, &reporter)).expect("tests");
        assert!(tested[0].sockets.borrow().is_empty());
    }

    #[test]
    fn a_stale_unix_socket_is_removed() {
        let path = std::env::temp_dir().join(format!("tidegate-stale-{}", std::process::id()));
        let addr = SockAddr::unix(path.as_os_str().as_bytes()).expect("an address");
        let listen = Listen { addr, options: Default::default() };
        drop(open_one(&listen, false).expect("opens"));
        let second = open_one(&listen, false).expect("opens again");
        assert!(open_one(&listen, false).is_err(), "one that is in use stays");
        drop(second);
        std::fs::remove_file(&path).expect("removes");
    }
}
