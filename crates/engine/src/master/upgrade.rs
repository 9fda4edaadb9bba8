//! Replacing the running program by another program file (USR2), without closing a listening socket.
//!
//! The master renames its pid file to `….oldbin` and starts its own path again, with its arguments, its environment and
//! one more variable: `NGINX=5;6;7;`, the numbers of the listening sockets. The variable is nginx's own, so nginx can be
//! replaced by this program and this program by nginx. The new master finds its sockets by their addresses, writes the
//! pid file and starts workers; both generations of programs then accept, until one of the two masters is told to end.
//!
//! Nothing else goes along. If the new program is this one too it asks the old master for a link and for its zones
//! ([`crate::handover::link`]); with nginx on either side there is none, each program closes what is idle, and zones begin
//! anew.
//!
//! What differs from nginx: a program started by a bare name is looked for in `PATH` as the shell did it; the whole
//! environment goes on instead of what `env` names; a master in the foreground can be replaced too.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use os::process::Fork;
use os::socket;

use crate::channel::Channel;
use crate::cycle::Cycle;
use crate::cycle::listening::{self, Listening};
use crate::handover::zones::Passed;
use crate::log::report::Reporter;
use crate::log::{self, Errno, Level};

/// How this process was started, to be started again in the same way.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The program's file: an absolute path if it could be found out.
    path: PathBuf,
    /// The words of the command line, the program's name first.
    words: Vec<OsString>,
    /// The environment, without [`VARIABLE`].
    environment: Vec<(OsString, OsString)>,
}

impl Invocation {
    /// That of this process, from its command line; to be asked for early, while folder and environment are the caller's.
    pub fn new(words: Vec<OsString>) -> Invocation {
        let name = words.first().cloned().unwrap_or_default();
        let folder = std::env::current_dir().unwrap_or_default();
        let path = resolve(Path::new(&name), &folder, std::env::var_os("PATH").as_deref());
        let environment = std::env::vars_os().filter(|(name, _)| name != VARIABLE).collect();
        Invocation { path, words, environment }
    }

    /// The environment of a program that gets these sockets: `NAME=value`, each.
    fn environment(&self, sockets: &[RawFd]) -> Vec<OsString> {
        let pair = |name: &OsStr, value: &OsStr| [name, value].join(OsStr::new("="));
        let mut all: Vec<OsString> = self.environment.iter().map(|(name, value)| pair(name, value)).collect();
        all.push(pair(OsStr::new(VARIABLE), OsStr::new(&format(sockets))));
        all
    }
}

/// The file that a command's first word means.
fn resolve(name: &Path, folder: &Path, search: Option<&OsStr>) -> PathBuf {
    if name.as_os_str().as_encoded_bytes().contains(&b'/') {
        return folder.join(name);
    }
    let runs =
        |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    let places = search.map(std::env::split_paths).into_iter().flatten();
    places.map(|place| folder.join(place).join(name)).find(runs).unwrap_or_else(|| name.to_path_buf())
}

/// What came from the master that started this one to take its place.
#[derive(Default)]
pub struct Inherited {
    /// Its process id; none if there was no such master.
    parent: Option<i32>,
    /// Its listening sockets, until the first cycle has taken those it wants.
    sockets: RefCell<Vec<Listening>>,
    /// The files of its unix sockets.
    files: Vec<PathBuf>,
    /// The link to it, until the master takes it.
    link: RefCell<Option<Channel>>,
    /// Its zones, until the first cycle has taken those it wants.
    zones: RefCell<Vec<Passed>>,
}

impl Inherited {
    /// Takes over what [`VARIABLE`] names. Numbers that aren't those of sockets are reported and passed over.
    pub fn take(reporter: &Reporter) -> Inherited {
        let Some(value) = std::env::var_os(VARIABLE) else { return Inherited::default() };
        let value = value.to_string_lossy();
        reporter.say(Level::Notice, &format!("using inherited sockets from \"{value}\""));
        let (numbers, error) = parse(&value);
        if let Some(error) = error {
            reporter.say(Level::Emerg, &error);
        }
        let adopted = numbers.into_iter().map(adopt);
        let (fds, errors): (Vec<_>, Vec<_>) = adopted.partition(Result::is_ok);
        errors.into_iter().filter_map(Result::err).for_each(|message| reporter.say(Level::Crit, &message));
        let (sockets, others) = listening::adopt(fds.into_iter().flatten().collect());
        for fd in others {
            let number = fd.as_raw_fd();
            reporter.say(Level::Crit, &format!("the inherited socket #{number} isn't a listening one, closed"));
        }
        // Under socket activation the files are systemd's, whoever has the sockets by now.
        let given = std::env::var_os("LISTEN_FDS").is_some();
        sockets.iter().for_each(|listening| listening.given.set(given));
        let files = sockets.iter().filter_map(Listening::path).map(Path::to_path_buf).collect();
        let parent = os::process::parent_pid();
        let (link, zones) = crate::handover::link::ask(parent, &|message| reporter.say(Level::Warn, message)).unzip();
        Inherited {
            parent: Some(parent),
            sockets: RefCell::new(sockets),
            files,
            link: RefCell::new(link),
            zones: RefCell::new(zones.unwrap_or_default()),
        }
    }

    /// Whether this process takes another's place, or took it.
    pub(crate) fn is_upgrade(&self) -> bool {
        self.parent.is_some()
    }

    /// Whether the master that started this one still lives.
    pub(crate) fn parent_lives(&self) -> bool {
        self.parent == Some(os::process::parent_pid())
    }

    /// The sockets, for the first cycle; what that doesn't want is closed with the list.
    pub fn sockets(&self) -> Vec<Listening> {
        self.sockets.take()
    }

    /// The link to the master that started this one, for whoever asks first; none if that is another program.
    pub fn link(&self) -> Option<Channel> {
        self.link.take()
    }

    /// The zones, for the first cycle; what that doesn't want is closed with the list.
    pub(crate) fn zones(&self) -> Vec<Passed> {
        self.zones.take()
    }

    /// Whether the file of a unix socket belongs to the other master too, so that it must outlive this one.
    pub fn keeps(&self, file: &Path) -> bool {
        self.parent_lives() && self.files.iter().any(|path| path == file)
    }
}

/// Where the program that this one takes the place of listens, but for unix sockets; nowhere if there is none.
pub fn addresses() -> Vec<SocketAddr> {
    let value = std::env::var_os(VARIABLE).unwrap_or_default();
    let (numbers, _) = parse(&value.to_string_lossy());
    let found = numbers.into_iter().filter_map(|number| socket::local_addr(number).ok());
    found.filter_map(|address| Some(SocketAddr::new(address.ip()?, address.port()))).collect()
}

/// Makes a socket that another program left open this one's.
fn adopt(number: RawFd) -> Result<OwnedFd, String> {
    let failed = |error: io::Error| format!("getsockname() of the inherited socket #{number} failed{}", Errno(&error));
    socket::local_addr(number).map_err(failed)?;
    os::io::set_cloexec(number, true).and_then(|()| os::io::adopt(number)).map_err(failed)
}

/// The numbers in the variable's value, each once, and what is wrong with it; what stands after a wrong one is ignored.
fn parse(value: &str) -> (Vec<RawFd>, Option<String>) {
    let mut numbers: Vec<RawFd> = Vec::new();
    let mut rest = value;
    while let Some(end) = rest.find([';', ':']) {
        // Standard streams are never listening sockets of ours.
        let Some(number) = rest[..end].parse().ok().filter(|number| *number >= 0) else {
            let message = "environment variable, ignoring the rest of the variable";
            return (numbers, Some(format!("invalid socket number \"{rest}\" in {VARIABLE} {message}")));
        };
        if !numbers.contains(&number) {
            numbers.push(number);
        }
        rest = &rest[end + 1..];
    }
    let message = (!rest.is_empty())
        .then(|| format!("invalid socket number \"{rest}\" in {VARIABLE} environment variable, ignoring"));
    (numbers, message)
}

fn format(sockets: &[RawFd]) -> String {
    sockets.iter().map(|number| format!("{number};")).collect()
}

/// Starts the program again beside this one: its process id. `None`: that failed, and was logged. The pid file has then
/// its old name.
pub fn start(invocation: &Invocation, cycle: &Cycle) -> Option<i32> {
    let (pid, old) = (&cycle.core().pid, old_pid_file(&cycle.core().pid));
    if let Err(error) = std::fs::rename(pid, &old) {
        let (pid, old, path) = (buf::text::path(pid), buf::text::path(&old), buf::text::path(&invocation.path));
        crate::log!(
            log::current(),
            Alert,
            "rename() {pid} to {old} failed before executing new binary process \"{path}\"{}",
            Errno(&error)
        );
        return None;
    }
    let sockets: Vec<RawFd> = cycle
        .listening
        .iter()
        .flat_map(|listening| listening.sockets.borrow().iter().map(|fd| fd.as_raw_fd()).collect::<Vec<_>>())
        .collect();
    match os::process::fork() {
        Ok(Fork::Child) => become_new_binary(invocation, &sockets),
        Ok(Fork::Parent(pid)) => {
            crate::log!(log::current(), Notice, "start new binary process {pid}");
            Some(pid)
        }
        Err(error) => {
            crate::log!(log::current(), Alert, "fork() failed while spawning \"new binary process\"{}", Errno(&error));
            restore_pid_file(cycle);
            None
        }
    }
}

fn become_new_binary(invocation: &Invocation, sockets: &[RawFd]) -> ! {
    for number in sockets {
        let _ = os::io::set_cloexec(*number, false);
    }
    os::signal::unblock_all();
    let path = invocation.path.as_os_str();
    let error = os::process::exec(path, &invocation.words, &invocation.environment(sockets));
    let path = buf::text::path(&invocation.path);
    crate::log!(
        log::current(),
        Alert,
        "execve() failed while executing new binary process \"{path}\"{}",
        Errno(&error)
    );
    os::process::exit_now(1)
}

/// The name of the pid file while another master has its own.
pub(crate) fn old_pid_file(pid: &Path) -> PathBuf {
    let mut name = pid.as_os_str().to_owned();
    name.push(".oldbin");
    name.into()
}

/// The new master is gone: the pid file gets its name back.
pub(crate) fn restore_pid_file(cycle: &Cycle) {
    let (pid, old) = (&cycle.core().pid, old_pid_file(&cycle.core().pid));
    if let Err(error) = std::fs::rename(&old, pid) {
        let (pid, old) = (buf::text::path(pid), buf::text::path(&old));
        crate::log!(
            log::current(),
            Alert,
            "rename() {old} back to {pid} failed after the new binary process exited{}",
            Errno(&error)
        );
    }
}

/// The environment's variable that names the sockets.
pub const VARIABLE: &str = "NGINX";

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    #[test]
    fn variables() {
        let rest = "environment variable, ignoring the rest of the variable";
        let cases: [(&str, &[RawFd], Option<String>); 8] = [
            ("5;6;7;", &[5, 6, 7], None),
            ("5:6;", &[5, 6], None),
            ("", &[], None),
            ("7;7;", &[7], None),
            ("5;6", &[5], Some("invalid socket number \"6\" in NGINX environment variable, ignoring".into())),
            ("5;x;7;", &[5], Some(format!("invalid socket number \"x;7;\" in NGINX {rest}"))),
            (";;", &[], Some(format!("invalid socket number \";;\" in NGINX {rest}"))),
            ("-1;", &[], Some(format!("invalid socket number \"-1;\" in NGINX {rest}"))),
        ];
        for (value, numbers, error) in cases {
            assert_eq!(parse(value), (numbers.to_vec(), error), "{value}");
        }
        assert_eq!(parse(&format(&[3, 14])), (vec![3, 14], None));
    }

    #[test]
    fn environments() {
        let environment = vec![(OsString::from("A"), OsString::from("b"))];
        let invocation = Invocation { path: PathBuf::new(), words: Vec::new(), environment };
        assert_eq!(invocation.environment(&[5, 6]), ["A=b", "NGINX=5;6;"]);
        assert_eq!(invocation.environment(&[]), ["A=b", "NGINX="]);
    }

    #[test]
    fn paths() {
        let folder = Path::new("/work");
        for (name, expect) in
            [("/x/nginx", "/x/nginx"), ("./nginx", "/work/./nginx"), ("no such program", "no such program")]
        {
            assert_eq!(resolve(Path::new(name), folder, Some(OsStr::new("/bin:/usr/bin"))), Path::new(expect));
        }
        assert!(resolve(Path::new("sh"), folder, Some(OsStr::new("/nowhere:/bin:/usr/bin"))).ends_with("bin/sh"));
        assert_eq!(old_pid_file(Path::new("/run/nginx.pid")), Path::new("/run/nginx.pid.oldbin"));
    }

    #[test]
    fn only_sockets_are_adopted() {
        let (one, _other) = os::channel::pair().expect("a pair");
        let number = one.into_raw_fd();
        assert_eq!(adopt(number).map(|fd| fd.as_raw_fd()), Ok(number));
        let message = "getsockname() of the inherited socket #-1 failed (9: Bad file descriptor)";
        assert_eq!(adopt(-1).map(drop), Err(message.to_string()));
        let file = std::fs::File::open("/dev/null").expect("a file");
        assert!(adopt(file.as_raw_fd()).is_err_and(|message| message.contains("(88: ")));
    }
}
