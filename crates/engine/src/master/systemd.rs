//! systemd: the sockets that it passes at the start (`LISTEN_FDS`), and what it is told (`NOTIFY_SOCKET`).
//!
//! Both protocols are a few lines of text, documented in sd_listen_fds(3) and sd_notify(3). Without the environment
//! variables nothing happens. nginx knows neither.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use os::SockAddr;

use crate::log::Level;
use crate::log::report::Reporter;

/// Remembers where systemd is to be told; to be called at the start, while the environment is whole.
pub fn init() {
    SOCKET.get_or_init(|| std::env::var_os("NOTIFY_SOCKET").and_then(|path| notify_address(&path)));
}

/// The program listens and its pid file is written, or a reload is over.
pub fn ready(status: &str) {
    notify(&format!("READY=1\nMAINPID={}\nSTATUS={status}", os::process::pid()));
}

/// A reload begins; [`ready`] is to follow whatever comes of it.
pub(crate) fn reloading() {
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={}", os::clock::monotonic_ns() / 1000));
}

/// The program is told to end.
pub fn stopping() {
    notify("STOPPING=1");
}

/// The descriptors that systemd has passed to this process, not inherited on exec any more.
pub(crate) fn passed_sockets() -> Vec<OwnedFd> {
    let variable = |name| std::env::var_os(name).unwrap_or_default();
    let count = passed(&variable("LISTEN_PID"), &variable("LISTEN_FDS"), os::process::pid());
    let adopt = |number| {
        os::io::set_cloexec(number, true).ok()?;
        os::io::adopt(number).ok()
    };
    (FIRST..FIRST + count).filter_map(adopt).collect()
}

/// Makes the passed sockets ones that the first cycle may inherit; what is no listening socket is closed.
pub fn given(reporter: &Reporter) -> Vec<crate::cycle::listening::Listening> {
    let (given, others) = crate::cycle::listening::adopt(passed_sockets());
    for fd in others {
        reporter.say(Level::Warn, &format!("descriptor {} of LISTEN_FDS is no listening socket", fd.as_raw_fd()));
    }
    given
}

/// How many descriptors were passed to the process with this id.
fn passed(listen_pid: &OsStr, listen_fds: &OsStr, pid: i32) -> i32 {
    let number = |text: &OsStr| text.to_str().and_then(|text| text.parse::<i32>().ok());
    if number(listen_pid) != Some(pid) {
        return 0;
    }
    number(listen_fds).unwrap_or(0).clamp(0, MAX_PASSED)
}

/// The address in `NOTIFY_SOCKET`: a path, or a name after `@`. Other kinds, such as `vsock:`, aren't spoken here.
fn notify_address(path: &OsString) -> Option<SockAddr> {
    let mut path = path.as_bytes().to_vec();
    match path.first_mut() {
        Some(at @ b'@') => *at = 0,
        Some(b'/') => {}
        _ => return None,
    }
    SockAddr::unix(&path).ok()
}

/// Sends the lines; whether they arrive is no concern of the server's.
fn notify(lines: &str) {
    let Some(address) = SOCKET.get().and_then(Option::as_ref) else { return };
    if let Ok(fd) = os::socket::socket(address, os::socket::Kind::Datagram) {
        let _ = os::socket::send_to(fd.as_raw_fd(), lines.as_bytes(), address);
    }
}

static SOCKET: OnceLock<Option<SockAddr>> = OnceLock::new();
/// The number of the first passed descriptor.
const FIRST: i32 = 3;
const MAX_PASSED: i32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_was_passed() {
        for (pid, fds, expect) in
            [("7", "2", 2), ("8", "2", 0), ("", "2", 0), ("7", "", 0), ("7", "-1", 0), ("7", "99999", MAX_PASSED)]
        {
            assert_eq!(passed(OsStr::new(pid), OsStr::new(fds), 7), expect, "{pid} {fds}");
        }
    }

    #[test]
    fn addresses() {
        for (text, expect) in [
            ("/run/notify", Some(&b"/run/notify"[..])),
            ("@abstract", Some(b"\0abstract")),
            ("vsock:2:1234", None),
            ("", None),
        ] {
            let expect = expect.map(|path| SockAddr::Unix(path.into()));
            assert_eq!(notify_address(&OsString::from(text)), expect);
        }
    }
}
