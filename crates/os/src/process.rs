//! Processes: fork, exec, waiting, priorities, limits.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::check;

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one, with the new one's id.
    Parent(i32),
}

/// Splits this process in two. Only a process with one thread may do it; an error if there are more.
pub fn fork() -> io::Result<Fork> {
    if threads() > 1 {
        return Err(io::Error::other("fork in a process with several threads"));
    }
    fork_unchecked()
}

pub(crate) fn fork_unchecked() -> io::Result<Fork> {
    // SAFETY: with one thread the child has a consistent copy of everything, and any code may run in it.
    match check(unsafe { libc::fork() })? {
        0 => {
            IDENTITY.store(0, Ordering::Relaxed);
            // Now: later the process may not be allowed to read /proc.
            identity();
            Ok(Fork::Child)
        }
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Runs `f` in a forked process and waits for its end, for tests of what processes share; returns the process's id.
///
/// # Panics
/// If the fork fails, or `f` panics.
#[doc(hidden)]
pub fn tests_fork(f: impl FnOnce()) -> i32 {
    let pid = tests_spawn(f);
    tests_wait(pid);
    pid
}

/// The same, without waiting.
#[doc(hidden)]
pub fn tests_spawn(f: impl FnOnce()) -> i32 {
    // The test's other threads are no concern of a child that does little and ends without cleaning up.
    match fork_unchecked().expect("a fork") {
        Fork::Child => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
            exit_now(i32::from(done.is_err()));
        }
        Fork::Parent(pid) => pid,
    }
}

/// Waits until a child of [`tests_spawn`] has ended well.
#[doc(hidden)]
pub fn tests_wait(pid: i32) {
    assert_eq!(wait_for(pid).expect("a child"), Exit::Code(0), "the child succeeds");
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// Leaves the terminal and goes to the background: only the child returns, as leader of its own session.
///
/// The parent waits until the child says by [`Launch::done`] that it has started, and exits with 0; if the child ends
/// before that, with 1. Standard input and output become `/dev/null`; standard error stays, and the file mode mask is
/// cleared.
pub fn daemonize() -> io::Result<Launch> {
    let (waiting, launch) = io::pipe()?;
    if let Fork::Parent(_) = fork()? {
        drop(launch);
        exit_now(i32::from(!is_done(waiting)));
    }
    // SAFETY: no memory is involved.
    unsafe {
        check(libc::setsid())?;
        libc::umask(0);
    }
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    crate::io::dup2(null.as_raw_fd(), 0)?;
    crate::io::dup2(null.as_raw_fd(), 1)?;
    Ok(Launch(launch))
}

/// What the parent of a daemon waits for. Dropped without a word, it is a start that failed.
#[derive(Debug)]
pub struct Launch(io::PipeWriter);

impl Launch {
    /// The start has succeeded: the parent may go.
    pub fn done(mut self) {
        // A parent that has been killed doesn't mind.
        let _ = io::Write::write_all(&mut self.0, &[1]);
    }
}

fn is_done(mut waiting: io::PipeReader) -> bool {
    let mut byte = [0];
    matches!(io::Read::read(&mut waiting, &mut byte), Ok(1))
}

/// Ends the process without running destructors or flushing anything: for a forked process that isn't to return.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// This process's id.
pub fn pid() -> i32 {
    std::process::id() as i32
}

/// Bits of an [`identity`] that are the process's id: the kernel has no higher ones (PID_MAX_LIMIT).
const PID_BITS: u32 = 22;
/// Further bits of an [`identity`]: they tell processes of the same id apart, as a rule; 0 if nothing is known.
const STAMP_BITS: u32 = 9;

/// Ours, once it was asked for; a forked child has its own.
static IDENTITY: AtomicU32 = AtomicU32::new(0);

/// This process in 31 bits: its id, and a stamp of when it was started in case the id is used again. Never 0.
pub fn identity() -> u32 {
    match IDENTITY.load(Ordering::Relaxed) {
        0 => {
            let identity = identity_of(pid());
            IDENTITY.store(identity, Ordering::Relaxed);
            identity
        }
        identity => identity,
    }
}

/// The same of another process.
pub fn identity_of(pid: i32) -> u32 {
    let stamp = stat(pid).map_or(0, |stat| stat.stamp);
    pid as u32 & ((1 << PID_BITS) - 1) | stamp << PID_BITS
}

/// The process's id in an [`identity`].
pub fn pid_of(identity: u32) -> i32 {
    (identity & ((1 << PID_BITS) - 1)) as i32
}

/// Whether the process of an [`identity`] has ended. In doubt it hasn't.
pub fn has_ended(identity: u32) -> bool {
    let pid = pid_of(identity);
    match stat(pid) {
        Some(stat) => stat.ended || ![0, stat.stamp].contains(&(identity >> PID_BITS)),
        // There is no such process, or /proc can't be read here.
        None => !exists(pid),
    }
}

struct Stat {
    ended: bool,
    stamp: u32,
}

/// What /proc says of a process: the state and when it started (proc_pid_stat(5), fields 3 and 22).
fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in brackets, which may have anything in it.
    let rest = text.get(text.iter().rposition(|byte| *byte == b')')? + 2..)?;
    let mut fields = rest.split(|byte| *byte == b' ');
    let state = fields.next()?.first()?;
    let start: u64 = std::str::from_utf8(fields.nth(18)?).ok()?.parse().ok()?;
    Some(Stat { ended: matches!(state, b'Z' | b'X' | b'x'), stamp: (start % ((1 << STAMP_BITS) - 1)) as u32 + 1 })
}

/// The parent's id.
pub fn parent_pid() -> i32 {
    // SAFETY: no memory is involved.
    unsafe { libc::getppid() }
}

/// Sends a signal; 0 only asks whether the process exists.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Whether there is a process of this id, if only to be reaped.
fn exists(pid: i32) -> bool {
    !kill(pid, 0).is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH))
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal; `true` if it left a core file.
    Signal(i32, bool),
}

/// A child that has ended, if there is one. `None`: there are children, all running. An error ECHILD: there are none.
pub fn wait_any() -> io::Result<Option<(i32, Exit)>> {
    let (pid, exit) = wait(-1, libc::WNOHANG)?;
    Ok((pid != 0).then_some((pid, exit)))
}

/// Waits for a child to end.
pub fn wait_for(pid: i32) -> io::Result<Exit> {
    wait(pid, 0).map(|(_, exit)| exit)
}

fn wait(pid: i32, flags: i32) -> io::Result<(i32, Exit)> {
    let mut status = 0;
    // SAFETY: the kernel writes the status into its place.
    let pid = check(unsafe { libc::waitpid(pid, &mut status, flags) })?;
    let exit = if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status), libc::WCOREDUMP(status))
    } else {
        Exit::Code(libc::WEXITSTATUS(status))
    };
    Ok((pid, exit))
}

/// Becomes another program; returns only if that fails. All descriptors not closed on exec go with it.
pub fn exec<A: AsRef<OsStr>>(path: &OsStr, args: &[A], environment: &[A]) -> io::Error {
    let strings =
        |list: &[A]| -> Result<Vec<CString>, _> { list.iter().map(|s| CString::new(s.as_ref().as_bytes())).collect() };
    let (path, args, env) = match (CString::new(path.as_bytes()), strings(args), strings(environment)) {
        (Ok(path), Ok(args), Ok(env)) => (path, args, env),
        _ => return io::ErrorKind::InvalidInput.into(),
    };
    let pointers = |list: &[CString]| list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
    let (argv, envp) = (pointers(&args), pointers(&env));
    // SAFETY: all strings end with a zero byte, both lists with a null pointer, and they live over the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// A resource whose use is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Open files.
    Files,
    /// The size of a core file, in bytes.
    Core,
}

impl Limit {
    fn raw(self) -> libc::__rlimit_resource_t {
        match self {
            Limit::Files => libc::RLIMIT_NOFILE,
            Limit::Core => libc::RLIMIT_CORE,
        }
    }
}

/// The soft and hard limit.
pub fn limit(of: Limit) -> io::Result<(u64, u64)> {
    let mut value = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills `value`.
    check(unsafe { libc::getrlimit(of.raw(), &mut value) })?;
    Ok((value.rlim_cur, value.rlim_max))
}

/// Sets soft and hard limit to the same value.
pub fn set_limit(of: Limit, value: u64) -> io::Result<()> {
    let value = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: `value` lives over the call.
    check(unsafe { libc::setrlimit(of.raw(), &value) }).map(drop)
}

/// Sets the soft limit alone; up to the hard one anybody may.
pub fn set_soft_limit(of: Limit, value: u64) -> io::Result<()> {
    let (_, hard) = limit(of)?;
    let value = libc::rlimit { rlim_cur: value, rlim_max: hard };
    // SAFETY: `value` lives over the call.
    check(unsafe { libc::setrlimit(of.raw(), &value) }).map(drop)
}

/// The scheduling priority, -20 to 20; lower is more favourable.
pub fn set_priority(priority: i32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, priority) }).map(drop)
}

/// Restricts the process to these processors.
pub fn set_affinity(processors: impl IntoIterator<Item = usize>) -> io::Result<()> {
    // SAFETY: `cpu_set_t` is a bit array, for which all zeroes is a value; CPU_SET checks its index.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for n in processors {
            if n < libc::CPU_SETSIZE as usize {
                libc::CPU_SET(n, &mut set);
            }
        }
        set
    };
    // SAFETY: the set is valid for its size.
    check(unsafe { libc::sched_setaffinity(0, std::mem::size_of_val(&set), &set) }).map(drop)
}

/// How many processors this process may use.
pub fn processors() -> usize {
    // SAFETY: no memory is involved.
    let n = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    n.max(1) as usize
}

/// Lets the process leave core files even after it changed its user.
pub fn set_dumpable() -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) }).map(drop)
}

/// Keeps the capabilities while the user changes, for `transparent` proxying.
pub fn keep_capabilities() -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) }).map(drop)
}

/// Makes these variables the whole environment. An error if the process has several threads, which could read it
/// meanwhile, or if a name or value can't be one.
pub fn set_environment(variables: &[(OsString, OsString)]) -> io::Result<()> {
    if threads() > 1 {
        return Err(io::Error::other("the environment of a process with several threads"));
    }
    let valid = |(name, value): &(OsString, OsString)| {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        !name.is_empty() && !name.contains(&b'=') && ![name, value].concat().contains(&0)
    };
    if !variables.iter().all(valid) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    replace_environment(variables);
    Ok(())
}

fn replace_environment(variables: &[(OsString, OsString)]) {
    for (name, _) in std::env::vars_os() {
        // SAFETY: there is one thread (or, in tests, the child of a fork), so nobody reads the environment.
        unsafe { std::env::remove_var(name) };
    }
    for (name, value) in variables {
        // SAFETY: as above; names and values have been checked.
        unsafe { std::env::set_var(name, value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_waited_for() {
        assert!(tests_fork(|| ()) > 0);
        assert!(fork().is_err(), "a test process has several threads");
    }

    #[test]
    fn a_launch_is_waited_for() {
        for done in [true, false] {
            let (waiting, launch) = io::pipe().expect("a pipe");
            let launch = Launch(launch);
            if done {
                launch.done()
            } else {
                drop(launch)
            }
            assert_eq!(is_done(waiting), done);
        }
    }

    #[test]
    fn identities() {
        let ours = identity();
        assert!(pid_of(ours) == pid() && identity() == ours && !has_ended(ours));
        let child = tests_fork(|| assert!(pid_of(identity()) == pid() && identity() != ours && !has_ended(ours)));
        assert!(has_ended(child as u32), "there is no such process any more");
        let other = if ours >> PID_BITS == 1 { 2 } else { 1 };
        assert!(has_ended(pid() as u32 | other << PID_BITS), "another process of our id");
        assert!(!has_ended(pid() as u32), "nobody knows");
    }

    #[test]
    fn an_environment_is_replaced() {
        let variables = [("TIDEGATE_A", "1"), ("TIDEGATE_B", "")].map(|(name, value)| (name.into(), value.into()));
        assert!(set_environment(&variables).is_err(), "a test process has several threads");
        tests_fork(|| {
            replace_environment(&variables);
            let mut found: Vec<_> = std::env::vars_os().collect();
            found.sort();
            assert_eq!(found, variables);
        });
    }

    #[test]
    fn limits() {
        let (soft, hard) = limit(Limit::Files).expect("limit");
        assert!(soft <= hard && processors() > 0);
        assert!(kill(pid(), 0).is_ok());
        assert!(exec(OsStr::new("/nonexistent"), &["x"], &[]).raw_os_error() == Some(libc::ENOENT));
    }
}
