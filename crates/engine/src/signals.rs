//! The signals of master and workers, and what the log says of them.

use os::signal::{
    self, SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGIO, SIGPIPE, SIGQUIT, SIGSYS, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH,
    SIGXFSZ, Signal,
};

use crate::log;

/// All signals that a process of the program receives through its descriptor. SIGSYS, SIGPIPE and SIGXFSZ are ignored.
pub(crate) const HANDLED: [i32; 10] =
    [SIGHUP, SIGUSR1, SIGWINCH, SIGTERM, SIGQUIT, SIGUSR2, SIGALRM, SIGINT, SIGIO, SIGCHLD];

/// What a signal asks a process to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Stop at once.
    Terminate,
    /// Finish what runs, then stop.
    Quit,
    /// Read the configuration again.
    Reconfigure,
    /// Open the logs again.
    Reopen,
    /// Replace the program.
    ChangeBinary,
    /// Let the workers quit and stay.
    NoAccept,
    /// A child ended.
    Reap,
    /// Nothing, and that is worth a word.
    Refuse,
    /// Nothing.
    Ignore,
}

/// What the master does on a signal. WINCH counts in the background only: a terminal sends it whenever its window
/// changes.
pub(crate) fn of_master(number: i32, daemon: bool) -> Action {
    match number {
        SIGTERM | SIGINT => Action::Terminate,
        SIGQUIT => Action::Quit,
        SIGHUP => Action::Reconfigure,
        SIGUSR1 => Action::Reopen,
        SIGUSR2 => Action::ChangeBinary,
        SIGWINCH if daemon => Action::NoAccept,
        SIGCHLD => Action::Reap,
        _ => Action::Ignore,
    }
}

/// What a process without a master does on a signal: it has no workers to send away, and nobody to watch a successor.
pub(crate) fn of_single(number: i32, daemon: bool) -> Action {
    match of_master(number, daemon) {
        Action::ChangeBinary | Action::NoAccept => Action::Refuse,
        Action::Reap => Action::Ignore,
        action => action,
    }
}

/// What a worker does on a signal; as for WINCH, see [`of_master`].
pub(crate) fn of_worker(number: i32, daemon: bool) -> Action {
    match number {
        SIGTERM | SIGINT => Action::Terminate,
        SIGQUIT => Action::Quit,
        SIGWINCH if daemon => Action::Quit,
        SIGUSR1 => Action::Reopen,
        SIGHUP | SIGUSR2 | SIGIO => Action::Refuse,
        _ => Action::Ignore,
    }
}

/// Notes a signal in the log: `signal 1 (SIGHUP) received from 123, reconfiguring`.
pub fn note(received: Signal, action: Action) {
    let words = match action {
        Action::Terminate => ", exiting",
        Action::Quit => ", shutting down",
        Action::Reconfigure => ", reconfiguring",
        Action::Reopen => ", reopening logs",
        Action::ChangeBinary => ", changing binary",
        Action::NoAccept => ", stop accepting connections",
        Action::Refuse => ", ignoring",
        Action::Reap | Action::Ignore => "",
    };
    let (number, name) = (received.number, signal::name(received.number));
    match received.pid {
        0 => crate::log!(log::current(), Notice, "signal {number} ({name}) received{words}"),
        pid => crate::log!(log::current(), Notice, "signal {number} ({name}) received from {pid}{words}"),
    }
}

/// From now on signals wait until they are read, and none has its default effect. Whoever reads the pid file may send
/// one at once: so this comes before that is written.
pub fn hold() -> std::io::Result<()> {
    signal::SignalFd::new(&HANDLED).map(drop)
}

/// Ignores what has to be ignored in every process.
pub fn ignore() {
    signal::ignore(SIGSYS);
    signal::ignore(SIGPIPE);
    // A file, a log or a zone, that becomes larger than a limit is an error of the call, not the end of the process.
    signal::ignore(SIGXFSZ);
}
