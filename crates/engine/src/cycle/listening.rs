//! Listening sockets: opened by the master, kept over reloads by their address, inherited by workers.
//!
//! A reload changes nothing for the old cycle until all of the new one stands: options of kept sockets are set last.
//! Beyond nginx:
//!
//! - Addresses that overlap (`127.0.0.1:80` and `*:80`) can replace one another, since for the moment of `bind()` all that
//!   stand in the way get SO_REUSEPORT.
//! - No connection is lost with a socket. Those of `reuseport` are all kept when there are fewer workers than before, and
//!   shared out. One that isn't wanted any more is retired ([`os::socket::retire`]): the kernel puts nothing new into its
//!   queue, and the workers that leave empty it.
//!
//! Sockets for datagrams live alike. A datagram belongs to no connection, but may belong to a session that a worker has, so
//! new workers leave what comes by sockets that they share with older ones to those until they leave: these look into the
//! queue once more, after the kernel has ceased to wake them, and hand their sessions over; then the new ones begin
//! (`Handover::cleared`). An unwanted socket is retired in
//! another way ([`os::socket::retire_datagrams`]), since leaving workers may still have to answer on it. With `reuseport`
//! the kernel is told which socket a client's datagrams belong to ([`os::steering`]), so that the worker that is going to
//! receive them can be given the client's session. Sockets that a reload adds count only when the old workers leave, and in
//! an upgrade, where nobody knows when that will be, from the next reload on.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use conf::{Error, Places, Sources};
use os::SockAddr;
use os::socket::{self, Kind, ListenError, ListenOptions};

use crate::cycle::holder;
use crate::log::report::Reporter;
use crate::log::{Errno, Level};
use crate::module::Listen;

/// One address on which the program listens.
#[derive(Clone)]
pub struct Listening {
    /// The application it belongs to: an index of the cycle's.
    pub app: usize,
    /// The index in that application's own list.
    pub index: usize,
    /// Address and options.
    pub listen: Listen,
    /// The sockets: one, or with `reuseport` at least one for each worker. None when the configuration is only tested
    /// and the address is in use.
    pub sockets: RefCell<Vec<Rc<OwnedFd>>>,
    /// Whether somebody else made the sockets, as systemd does: then a unix socket's file is not ours to remove.
    pub given: Cell<bool>,
    /// Whether the cycle before, or another program, listens on the same sockets.
    pub kept: Cell<bool>,
    /// Whether the kernel shares the clients of several datagram sockets out as [`os::steering`] says.
    steered: Cell<bool>,
}

impl Listening {
    fn new(app: usize, index: usize, listen: Listen) -> Listening {
        let [given, kept, steered] = [const { Cell::new(false) }; 3];
        Listening { app, index, listen, sockets: RefCell::default(), given, kept, steered }
    }

    /// How many sockets the kernel shares clients of datagrams out to, as [`os::steering`] says; `None`: in another way.
    pub fn steered(&self) -> Option<usize> {
        self.steered.get().then(|| self.sockets.borrow().len())
    }

    /// Lets all sockets of a group receive datagrams: those that were added too.
    pub(crate) fn steer_to_all(&self) {
        self.steer(self.sockets.borrow().len());
    }

    /// Lets the first sockets of a group receive datagrams.
    fn steer(&self, count: usize) {
        let options = &self.listen.options;
        if options.reuseport
            && options.kind == Kind::Datagram
            && let Some(first) = self.sockets.borrow().first()
        {
            self.steered.set(os::steering::steer(first.as_raw_fd(), count).is_ok());
        }
    }

    /// The sockets for one of so many workers, taken out: with `reuseport` its share, else all. The others are closed in
    /// this process: what a worker that quits no longer accepts must not wait in a queue that it still holds open.
    pub fn take(&self, worker: usize, workers: usize) -> Vec<Rc<OwnedFd>> {
        let share = if self.listen.options.reuseport { workers.max(1) } else { 1 };
        let sockets = self.sockets.take().into_iter().enumerate();
        sockets.filter(|(n, _)| n % share == worker % share).map(|(_, fd)| fd).collect()
    }

    /// The file of a unix socket.
    pub fn path(&self) -> Option<&Path> {
        unix_path(&self.listen.addr)
    }

    fn is_same(&self, listen: &Listen) -> bool {
        self.listen.addr == listen.addr && self.listen.options.kind == listen.options.kind
    }
}

/// Makes listening sockets that somebody else has opened ones that a cycle can inherit. The second list is of those that
/// aren't listening sockets.
pub fn adopt(fds: Vec<OwnedFd>) -> (Vec<Listening>, Vec<OwnedFd>) {
    let (mut all, mut others): (Vec<Listening>, Vec<OwnedFd>) = (Vec::new(), Vec::new());
    for fd in fds {
        let raw = fd.as_raw_fd();
        let kind = socket::kind(raw).ok().filter(|kind| *kind == Kind::Datagram || socket::is_listening(raw));
        let (Some(kind), Ok(()), Ok(addr)) = (kind, os::io::set_nonblocking(raw, true), socket::local_addr(raw)) else {
            others.push(fd);
            continue;
        };
        // The impossible backlog makes the configured options differ, so that they are set.
        let reuseport = socket::is_reuseport(raw);
        let options = ListenOptions { backlog: UNKNOWN, reuseport, kind, ..ListenOptions::default() };
        let listen = Listen { addr, options };
        match all.iter().find(|other| other.is_same(&listen)) {
            Some(other) => other.sockets.borrow_mut().push(Rc::new(fd)),
            None => {
                let one = Listening::new(0, 0, listen);
                one.given.set(true);
                one.sockets.borrow_mut().push(Rc::new(fd));
                all.push(one);
            }
        }
    }
    (all, others)
}

/// How sockets are opened.
pub struct Opening<'a> {
    /// Those of the old cycle, and those that others have opened.
    pub old: &'a [Listening],
    /// How many workers there will be.
    pub workers: usize,
    /// Whether the configuration is only tested: then it is no error that an address is in use.
    pub test: bool,
    /// Where failures are told.
    pub reporter: &'a Reporter,
    /// Where addresses are named.
    pub places: &'a Places,
    /// The files of the configuration.
    pub sources: &'a Sources,
}

/// What addresses are called among the loader's places.
pub const ADDRESS: &str = "address";

impl Opening<'_> {
    /// Tells that an address can't be listened on: in nginx's words, with the place and what may help the first time.
    fn tell(&self, listen: &Listen, error: &ListenError, first: bool) {
        let message = message(listen, error);
        if !first {
            self.reporter.say(Level::Emerg, &message);
            return;
        }
        let error = Error {
            caret: self.places.get(ADDRESS, &listen.addr),
            hint: holder::hint(&listen.addr, listen.options.kind, &error.error),
            ..Error::new(message)
        };
        self.reporter.configuration(Level::Emerg, self.sources, &[error]);
    }
}

/// Opens what the applications ask for, `(application, index, listen)`. `None`: it failed, and that was reported; then
/// the old sockets are as they were.
pub(crate) fn open_all(wanted: Vec<(usize, usize, Listen)>, opening: &Opening<'_>) -> Option<Vec<Listening>> {
    let all: Vec<Listening> =
        wanted.into_iter().map(|(app, index, listen)| Listening::new(app, index, listen)).collect();
    if let Some(twice) = duplicate(&all) {
        let error = ListenError { call: "bind()", error: io::Error::from_raw_os_error(EADDRINUSE) };
        opening.tell(&twice.listen, &error, false);
        return None;
    }
    for listening in &all {
        inherit(listening, opening.old);
    }
    let flags = Flags::default();
    let opened = open_with_patience(&all, opening, &flags);
    flags.restore();
    if opened {
        all.iter().for_each(|listening| settle(listening, opening.old, opening.reporter));
        return Some(all);
    }
    let new = all.into_iter().filter(|listening| !listening.sockets.borrow().is_empty()).collect::<Vec<_>>();
    remove_files(&new, opening.old, &|_| false);
    None
}

/// Which of them are in neither list: nobody is going to listen on them any more.
pub fn unwanted(old: &[Listening], new: &[Listening]) -> Vec<Listening> {
    let is_wanted = |one: &&Listening| new.iter().any(|other| other.is_same(&one.listen));
    old.iter().filter(|one| !is_wanted(one)).cloned().collect()
}

/// Lets sockets get no further connections. Whoever shares them empties their queues.
pub fn retire(sockets: &[Listening]) {
    for fd in sockets.iter().flat_map(|listening| listening.sockets.take()) {
        // So that a later reload can listen there again while the last connections are accepted.
        let _ = socket::set_reuseport(fd.as_raw_fd(), true);
        let _ = match socket::kind(fd.as_raw_fd()) {
            Ok(Kind::Datagram) => socket::retire_datagrams(fd.as_raw_fd()),
            // A system older than Linux 5.0 has no such option: the queue is lost with the socket, as it is with nginx.
            _ => socket::retire(fd.as_raw_fd()),
        };
    }
}

/// One that has the address of another.
fn duplicate(all: &[Listening]) -> Option<&Listening> {
    let mut rest = all;
    while let [first, others @ ..] = rest {
        let same = others.iter().find(|other| other.is_same(&first.listen));
        if same.is_some() {
            return same;
        }
        rest = others;
    }
    None
}

fn open_with_patience(all: &[Listening], opening: &Opening<'_>, flags: &Flags) -> bool {
    for attempt in 1..=ATTEMPTS {
        match open_missing(all, opening, flags, attempt == 1) {
            Opened::All => return true,
            Opened::Failed => return false,
            Opened::InUse if attempt < ATTEMPTS => {
                opening.reporter.say(Level::Notice, "try again to bind() after 500ms");
                std::thread::sleep(Duration::from_millis(500));
            }
            Opened::InUse => opening.reporter.say(Level::Emerg, "still could not bind()"),
        }
    }
    false
}

/// What came of an attempt.
enum Opened {
    All,
    InUse,
    Failed,
}

fn open_missing(all: &[Listening], opening: &Opening<'_>, flags: &Flags, first: bool) -> Opened {
    let mut opened = Opened::All;
    for listening in all {
        let rivals = || rivals(&listening.listen, all, opening.old);
        if let Err(error) = open(listening, opening, &rivals, flags) {
            opening.tell(&listening.listen, &error, first);
            if error.error.kind() != io::ErrorKind::AddrInUse {
                return Opened::Failed;
            }
            opened = Opened::InUse;
        }
    }
    opened
}

/// Takes over the sockets of the same address from the old cycle.
fn inherit(listening: &Listening, old: &[Listening]) {
    if let Some(other) = old.iter().find(|other| other.is_same(&listening.listen)) {
        listening.sockets.borrow_mut().clone_from(&other.sockets.borrow());
        listening.given.set(other.given.get());
        listening.kept.set(!other.sockets.borrow().is_empty());
        listening.steered.set(other.steered.get());
    }
}

/// Our own sockets whose addresses may overlap with this one.
fn rivals(listen: &Listen, all: &[Listening], old: &[Listening]) -> Vec<Rc<OwnedFd>> {
    let overlaps = |other: &&Listening| {
        !other.listen.addr.is_unix()
            && other.listen.addr.port() == listen.addr.port()
            && other.listen.options.kind == listen.options.kind
    };
    let sockets = all.iter().chain(old).filter(overlaps).map(|other| other.sockets.borrow().clone());
    sockets.flatten().collect()
}

/// Opens the sockets that are missing.
fn open(
    listening: &Listening,
    opening: &Opening<'_>,
    rivals: &dyn Fn() -> Vec<Rc<OwnedFd>>,
    flags: &Flags,
) -> Result<(), ListenError> {
    let reuseport = listening.listen.options.reuseport;
    let count = if reuseport && !opening.test { opening.workers.max(1) } else { 1 };
    let have = listening.sockets.borrow().clone();
    if reuseport && have.len() < count {
        // One that was opened without it would stand in the way.
        have.iter().for_each(|fd| flags.set(fd));
    }
    for _ in have.len()..count {
        match open_one(&listening.listen, opening.test, rivals, flags) {
            Ok(fd) => listening.sockets.borrow_mut().push(Rc::new(fd)),
            Err(error) if opening.test && error.error.kind() == io::ErrorKind::AddrInUse => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    if !opening.test && !listening.steered.get() {
        listening.steer(if have.is_empty() { count } else { have.len() });
    }
    Ok(())
}

fn open_one(
    listen: &Listen,
    test: bool,
    rivals: &dyn Fn() -> Vec<Rc<OwnedFd>>,
    flags: &Flags,
) -> Result<OwnedFd, ListenError> {
    let path = unix_path(&listen.addr);
    let existed = path.is_some_and(Path::exists);
    let mut result = socket::listen(&listen.addr, &listen.options);
    if result.as_ref().is_err_and(|error| error.error.kind() == io::ErrorKind::AddrInUse) && !test {
        result = match path {
            Some(path) if is_stale(path, listen.options.kind) && std::fs::remove_file(path).is_ok() => {
                socket::listen(&listen.addr, &listen.options)
            }
            Some(_) => result,
            None => beside(listen, &rivals(), flags).unwrap_or(result),
        };
    }
    if let (true, false, Some(path)) = (test, existed, path) {
        let _ = std::fs::remove_file(path);
    }
    result
}

/// Listens beside sockets of our own with which the address overlaps. `None`: there are none, and none that older
/// workers are emptying: those have been retired, hear nothing more, and leave room for another.
fn beside(listen: &Listen, rivals: &[Rc<OwnedFd>], flags: &Flags) -> Option<Result<OwnedFd, ListenError>> {
    if rivals.is_empty() && !is_deaf(listen) {
        return None;
    }
    rivals.iter().for_each(|fd| flags.set(fd));
    let options = ListenOptions { reuseport: true, ..listen.options.clone() };
    Some(socket::listen(&listen.addr, &options).inspect(|fd| {
        let _ = socket::set_reuseport(fd.as_raw_fd(), listen.options.reuseport);
    }))
}

/// Whether the address is taken, and yet nobody hears who connects or sends to it.
fn is_deaf(listen: &Listen) -> bool {
    let addr = match &listen.addr {
        SockAddr::Unix(_) => return false,
        addr if listen.options.kind == Kind::Datagram => return !holder::receives_datagrams(addr),
        SockAddr::V4(addr) => SocketAddr::V4(*addr),
        SockAddr::V6(addr) => SocketAddr::V6(*addr),
    };
    TcpStream::connect_timeout(&addr, DEAF).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Sockets that have SO_REUSEPORT for as long as others are opened.
#[derive(Default)]
struct Flags(RefCell<Vec<Rc<OwnedFd>>>);

impl Flags {
    fn set(&self, fd: &Rc<OwnedFd>) {
        if !socket::is_reuseport(fd.as_raw_fd()) && socket::set_reuseport(fd.as_raw_fd(), true).is_ok() {
            self.0.borrow_mut().push(fd.clone());
        }
    }

    fn restore(self) {
        for fd in self.0.take() {
            let _ = socket::set_reuseport(fd.as_raw_fd(), false);
        }
    }
}

/// Gives a socket that is in `old` too the options that it is to have now.
pub(crate) fn settle(listening: &Listening, old: &[Listening], reporter: &Reporter) {
    let listen = &listening.listen;
    let Some(old) = old.iter().find(|other| other.is_same(listen)) else { return };
    for fd in listening.sockets.borrow().iter().map(|fd| fd.as_raw_fd()) {
        if !listen.addr.is_unix() && socket::is_reuseport(fd) != listen.options.reuseport {
            let _ = socket::set_reuseport(fd, listen.options.reuseport);
        }
        if old.listen.options != listen.options
            && let Err(error) = socket::configure(fd, &listen.options, true)
        {
            reporter.say(Level::Alert, &message(listen, &error));
        }
    }
}

/// Whether nobody listens on a unix socket's file any more.
fn is_stale(path: &Path, kind: Kind) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let connected = match kind {
        Kind::Stream => UnixStream::connect(path).map(drop),
        Kind::Datagram => UnixDatagram::unbound().and_then(|socket| socket.connect(path)),
    };
    is_socket && connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
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

/// Removes the files of unix sockets that are in `old` and not in `new`, if they are ours and `kept` doesn't say that
/// they are another master's too.
pub(crate) fn remove_files(old: &[Listening], new: &[Listening], kept: &dyn Fn(&Path) -> bool) {
    for path in old.iter().filter(|listening| !listening.given.get()).filter_map(Listening::path) {
        if !kept(path) && !new.iter().any(|listening| listening.path() == Some(path)) {
            let _ = std::fs::remove_file(path);
        }
    }
}

const ATTEMPTS: usize = 5;
/// How long an address is asked whether somebody listens there. Those of this machine answer at once.
const DEAF: Duration = Duration::from_millis(100);
/// No configuration has this backlog.
const UNKNOWN: i32 = i32::MIN;
const EADDRINUSE: i32 = 98;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Log;
    use std::net::UdpSocket;

    fn local() -> Listen {
        let addr = SockAddr::V4("127.0.0.1:0".parse().expect("an address"));
        Listen { addr, options: Default::default() }
    }

    fn opening<'a>(old: &'a [Listening], test: bool, reporter: &'a Reporter) -> Opening<'a> {
        let (places, sources) = (Box::leak(Box::default()), Box::leak(Box::default()));
        Opening { old, workers: 3, test, reporter, places, sources }
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
        assert_eq!(all[0].clone().take(1, 2).len(), 1);
        assert_eq!(all[0].take(0, 2).len(), 2, "fewer workers share them all");
    }

    const KINDS: [Kind; 2] = [Kind::Stream, Kind::Datagram];

    fn at(address: &str, kind: Kind) -> Listen {
        let addr = SockAddr::from(address.parse::<std::net::SocketAddr>().expect("an address"));
        Listen { addr, options: ListenOptions { kind, ..Default::default() } }
    }

    fn port(listening: &Listening) -> u16 {
        socket::local_addr(listening.sockets.borrow()[0].as_raw_fd()).expect("an address").port()
    }

    #[test]
    fn addresses_that_overlap_replace_one_another() {
        let reporter = Reporter::running(Log::new(&[]));
        for kind in KINDS {
            let wanted = vec![(0, 0, at("127.0.0.1:0", kind))];
            let mut old = open_all(wanted, &opening(&[], false, &reporter)).expect("opens");
            let port = port(&old[0]);
            old[0].listen.addr.set_port(port);
            for address in ["0.0.0.0", "127.0.0.1", "0.0.0.0"] {
                let wanted = vec![(0, 0, at(&format!("{address}:{port}"), kind))];
                let new = open_all(wanted, &opening(&old, false, &reporter)).expect("opens");
                let leaving = unwanted(&old, &new);
                assert_eq!(leaving.len(), 1);
                for listening in leaving.iter().chain(&new) {
                    assert!(!socket::is_reuseport(listening.sockets.borrow()[0].as_raw_fd()), "all is as before");
                }
                retire(&leaving);
                old = new;
            }
        }
    }

    #[test]
    fn a_retired_socket_that_nobody_remembers_leaves_room() {
        let reporter = Reporter::running(Log::new(&[]));
        for kind in KINDS {
            let wanted = vec![(0, 0, at("127.0.0.1:0", kind))];
            let old = open_all(wanted, &opening(&[], false, &reporter)).expect("opens");
            let address = format!("127.0.0.1:{}", port(&old[0]));
            assert!(!is_deaf(&at(&address, kind)), "somebody listens");
            let held_by_a_worker = old[0].sockets.borrow()[0].clone();
            retire(&old);
            let new = open_all(vec![(0, 0, at(&address, kind))], &opening(&[], false, &reporter)).expect("opens");
            let fd = new[0].sockets.borrow()[0].as_raw_fd();
            assert!(!socket::is_reuseport(fd));
            match kind {
                Kind::Stream => drop(TcpStream::connect(&address).expect("the new one hears")),
                Kind::Datagram => {
                    let client = UdpSocket::bind("127.0.0.1:0").expect("bound");
                    client.send_to(b"x", &address).expect("sent");
                    assert_eq!(os::datagram::Batch::new().recv(fd, 1).expect("the new one hears"), 1);
                }
            }
            drop(held_by_a_worker);
        }
    }

    #[test]
    fn one_port_of_both_kinds() {
        let reporter = Reporter::running(Log::new(&[]));
        let tcp = open_all(vec![(0, 0, at("127.0.0.1:0", Kind::Stream))], &opening(&[], false, &reporter));
        let address = format!("127.0.0.1:{}", port(&tcp.as_ref().expect("opens")[0]));
        let both = || vec![(0, 0, at(&address, Kind::Stream)), (0, 1, at(&address, Kind::Datagram))];
        drop(tcp);
        let first = open_all(both(), &opening(&[], false, &reporter)).expect("opens");
        // Handed over by their numbers, they are told apart by their types.
        let numbers = first.iter().map(|one| one.sockets.borrow()[0].try_clone().expect("a copy")).collect();
        let (given, others) = adopt(numbers);
        assert_eq!((given.len(), others.len()), (2, 0));
        let second = open_all(both(), &opening(&given, false, &reporter)).expect("opens");
        for (n, one) in second.iter().enumerate() {
            assert!(Rc::ptr_eq(&one.sockets.borrow()[0], &given[n].sockets.borrow()[0]));
        }
        let datagrams = &second[1].sockets.borrow()[0];
        assert_eq!(socket::kind(datagrams.as_raw_fd()).expect("a socket"), Kind::Datagram);
    }

    #[test]
    fn reuseport_comes_and_goes() {
        let reporter = Reporter::running(Log::new(&[]));
        for kind in KINDS {
            let wanted = vec![(0, 0, at("127.0.0.1:0", kind))];
            let mut old = open_all(wanted, &opening(&[], false, &reporter)).expect("opens");
            let port = port(&old[0]);
            old[0].listen.addr.set_port(port);
            for (reuseport, count) in [(true, 3), (false, 3), (true, 3)] {
                let mut listen = old[0].listen.clone();
                listen.options.reuseport = reuseport;
                let new = open_all(vec![(0, 0, listen)], &opening(&old, false, &reporter)).expect("opens");
                assert_eq!(new[0].sockets.borrow().len(), count);
                assert_eq!(socket::is_reuseport(new[0].sockets.borrow()[0].as_raw_fd()), reuseport);
                old = new;
            }
        }
    }

    #[test]
    fn the_same_address_twice_is_in_use() {
        let reporter = Reporter::running(Log::new(&[]));
        let old = open_all(vec![(0, 0, local())], &opening(&[], false, &reporter)).expect("opens");
        assert!(open_all(vec![(0, 0, local()), (1, 0, local())], &opening(&old, false, &reporter)).is_none());
    }

    #[test]
    fn given_sockets_are_inherited() {
        let reporter = Reporter::running(Log::new(&[]));
        let fd = socket::listen(&local().addr, &ListenOptions::default()).expect("listens");
        let addr = socket::local_addr(fd.as_raw_fd()).expect("an address");
        let other = socket::socket(&addr, Kind::Stream).expect("a socket");
        let (given, others) = adopt(vec![fd, other]);
        assert_eq!((given.len(), others.len()), (1, 1));
        let listen = Listen { addr, options: Default::default() };
        let all = open_all(vec![(0, 0, listen)], &opening(&given, false, &reporter)).expect("opens");
        assert!(Rc::ptr_eq(&all[0].sockets.borrow()[0], &given[0].sockets.borrow()[0]) && all[0].given.get());
    }

    #[test]
    fn an_address_in_use_is_no_error_in_a_test() {
        let reporter = Reporter::running(Log::new(&[]));
        let first = open_all(vec![(0, 0, local())], &opening(&[], false, &reporter)).expect("opens");
        let mut again = local();
        again.addr = socket::local_addr(first[0].sockets.borrow()[0].as_raw_fd()).expect("an address");
        let error = open_one(&again, true, &Vec::new, &Flags::default()).expect_err("in use");
        assert_eq!(message(&again, &error), format!("bind() to {} failed (98: Address already in use)", again.addr));
        let tested = open_all(vec![(0, 0, again)], &opening(&[], true, &reporter)).expect("tests");
        assert!(tested[0].sockets.borrow().is_empty());
    }

    #[test]
    fn a_stale_unix_socket_is_removed() {
        let folder = tempfile::TempDir::with_prefix("tidegate-stale-").expect("a folder");
        let path = folder.path().join("s");
        let addr = SockAddr::unix(path.as_os_str().as_bytes()).expect("an address");
        for kind in KINDS {
            let listen = Listen { addr: addr.clone(), options: ListenOptions { kind, ..Default::default() } };
            drop(open_one(&listen, false, &Vec::new, &Flags::default()).expect("opens"));
            let second = open_one(&listen, false, &Vec::new, &Flags::default()).expect("opens again");
            assert!(open_one(&listen, false, &Vec::new, &Flags::default()).is_err(), "one that is in use stays");
            drop(second);
            std::fs::remove_file(&path).expect("removes");
        }
    }
}
