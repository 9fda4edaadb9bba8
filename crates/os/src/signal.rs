//! Signals, read from a descriptor.
//!
//! The signals of interest are blocked and then read from a signalfd: the kernel keeps each until it is read, so none is
//! lost between a look and a wait, and no code of ours runs inside a handler.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::check;

pub use libc::{
    SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGIO, SIGKILL, SIGPIPE, SIGQUIT, SIGSEGV, SIGSTOP, SIGSYS, SIGTERM,
    SIGUSR1, SIGUSR2, SIGWINCH, SIGXFSZ,
};

/// A received signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Its number.
    pub number: i32,
    /// The process that sent it; 0 if the kernel did.
    pub pid: i32,
}

/// Some signals, blocked for this process and readable here.
#[derive(Debug)]
pub struct SignalFd {
    fd: OwnedFd,
}

impl SignalFd {
    /// Blocks these signals for the calling thread (and the threads it starts) and collects them here.
    ///
    /// To be called again in a forked child: a signalfd reports the signals of the process that waits on it, but an
    /// event queue keeps reporting those of the process that registered it.
    pub fn new(signals: &[i32]) -> io::Result<SignalFd> {
        let set = set(signals);
        // SAFETY: the set lives over the calls; a descriptor that isn't -1 is new and ours.
        unsafe {
            check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()))?;
            let fd = check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
            Ok(SignalFd { fd: OwnedFd::from_raw_fd(fd) })
        }
    }

    /// The next signal, if one has come.
    pub fn read(&self) -> io::Result<Option<Signal>> {
        let mut info = [0u8; mem::size_of::<libc::signalfd_siginfo>()];
        match crate::io::read(self.fd.as_raw_fd(), &mut info) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        }
        // SAFETY: the buffer has the structure's size and any bytes are a value of plain data; the read is unaligned.
        let info = unsafe { info.as_ptr().cast::<libc::signalfd_siginfo>().read_unaligned() };
        Ok(Some(Signal { number: info.ssi_signo as i32, pid: info.ssi_pid as i32 }))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Ends the blocking of all signals, as a program started by exec expects it.
pub fn unblock_all() {
    let empty = set(&[]);
    // SAFETY: the set lives over the call.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &empty, std::ptr::null_mut()) };
}

/// Sends a signal to the calling thread.
pub fn raise(signal: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::pthread_kill(libc::pthread_self(), signal) };
}

/// Ignores a signal.
pub fn ignore(signal: i32) {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Gives a signal its default effect.
pub fn reset(signal: i32) {
    // SAFETY: SIG_DFL runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// The name, as in `SIGTERM`; empty for an unknown one.
pub fn name(signal: i32) -> &'static str {
    const NAMES: &[(i32, &str)] = &[
        (SIGALRM, "SIGALRM"),
        (SIGCHLD, "SIGCHLD"),
        (SIGHUP, "SIGHUP"),
        (SIGINT, "SIGINT"),
        (SIGIO, "SIGIO"),
        (SIGPIPE, "SIGPIPE"),
        (SIGQUIT, "SIGQUIT"),
        (SIGSYS, "SIGSYS"),
        (SIGTERM, "SIGTERM"),
        (SIGUSR1, "SIGUSR1"),
        (SIGUSR2, "SIGUSR2"),
        (SIGWINCH, "SIGWINCH"),
    ];
    NAMES.iter().find(|(n, _)| *n == signal).map_or("", |(_, name)| name)
}

fn set(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: `sigset_t` is plain old data; sigemptyset and sigaddset fill it, and reject numbers out of range.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_came_before_the_read() {
        let signals = SignalFd::new(&[SIGUSR2]).expect("signalfd");
        assert_eq!(signals.read().expect("read"), None);
        // Directed at this thread: other tests' threads don't block it.
        raise(SIGUSR2);
        assert_eq!(signals.read().expect("read").map(|s| s.number), Some(SIGUSR2));
        assert_eq!(signals.read().expect("read"), None);
    }
}
