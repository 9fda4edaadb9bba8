//! The error log: levels, targets, lines as nginx writes them.
//!
//! A [`Log`] is a cheap handle on the targets of one level of the configuration. The master and what has no
//! configuration of its own write to [`current`].

/// What log files are called among the loader's places.
pub const FILE: &str = "log file";

mod file;
mod parse;
mod syslog;

pub mod report;

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io;
use std::rc::Rc;

use crate::clock;

pub use file::{Buffering, Encoder};
pub use file::{LogFile, LogFiles};
pub use parse::{full_path, parse_error_log, parse_syslog};
pub use syslog::{Syslog, hostname};

/// How serious a message is; the smaller, the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The process can't go on.
    Emerg = 1,
    /// Something that has to be looked after at once: a bug, a crashed process.
    Alert,
    /// A failure that hurts more than one client.
    Crit,
    /// A request failed.
    Error,
    /// Something odd.
    Warn,
    /// What an administrator wants to know: starts, stops, signals.
    Notice,
    /// What clients do wrong.
    Info,
    /// Everything.
    Debug,
}

impl Level {
    /// Every level with its name.
    pub const NAMES: [(&'static str, Level); 8] = [
        ("emerg", Level::Emerg),
        ("alert", Level::Alert),
        ("crit", Level::Crit),
        ("error", Level::Error),
        ("warn", Level::Warn),
        ("notice", Level::Notice),
        ("info", Level::Info),
        ("debug", Level::Debug),
    ];

    /// The level of that name.
    pub fn parse(name: &[u8]) -> Option<Level> {
        Level::NAMES.iter().find(|(text, _)| text.as_bytes() == name).map(|&(_, level)| level)
    }

    /// The name in brackets in a log line.
    pub fn name(self) -> &'static str {
        Level::NAMES[self as usize - 1].0
    }
}

/// Where lines go.
#[derive(Clone)]
pub enum Target {
    /// A file.
    File(Rc<LogFile>),
    /// The standard error stream.
    Stderr,
    /// A syslog server.
    Syslog(Rc<Syslog>),
    /// The last lines, kept in memory for a debugger.
    Memory(Rc<Memory>),
}

/// One `error_log` directive: a target, and the level from which on it takes messages.
#[derive(Clone)]
pub struct ErrorLog {
    /// Where to.
    pub target: Target,
    /// The least serious level that is written.
    pub level: Level,
}

/// A ring of the last bytes that were logged (`error_log memory:SIZE`).
pub struct Memory {
    size: usize,
    bytes: RefCell<std::collections::VecDeque<u8>>,
}

impl Memory {
    /// A ring of that many bytes.
    pub fn new(size: usize) -> Memory {
        Memory { size, bytes: RefCell::default() }
    }

    fn write(&self, line: &[u8]) {
        let mut bytes = self.bytes.borrow_mut();
        let excess = (bytes.len() + line.len()).saturating_sub(self.size).min(bytes.len());
        bytes.drain(..excess);
        bytes.extend(line.iter().take(self.size));
    }

    /// What it holds, oldest first.
    pub fn contents(&self) -> Vec<u8> {
        self.bytes.borrow().iter().copied().collect()
    }
}

/// What a session adds at the end of a line: `, client: 127.0.0.1, server: x, request: "GET / HTTP/1.1"`.
pub trait Details {
    /// Appends it, comma first.
    fn append(&self, line: &mut String);
}

impl<F: Fn(&mut String)> Details for F {
    fn append(&self, line: &mut String) {
        self(line);
    }
}

/// A deadline that has passed, as nginx writes the error that it takes for it.
pub const TIMED_OUT: &str = " (110: Connection timed out)";

/// The number and text of a system error, as nginx writes it: ` (2: No such file or directory)`.
pub struct Errno<'a>(pub &'a io::Error);

impl fmt::Display for Errno<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match self.0.raw_os_error() {
            Some(code) => {
                let end = text.rfind(" (os error").unwrap_or(text.len());
                write!(f, " ({code}: {})", &text[..end])
            }
            None => write!(f, " ({text})"),
        }
    }
}

/// A handle on the logs of one place in the configuration.
#[derive(Clone)]
pub struct Log(Rc<Inner>);

struct Inner {
    targets: Box<[ErrorLog]>,
    level: Level,
    all: bool,
}

impl Log {
    /// A log with these targets.
    pub fn new(targets: &[ErrorLog]) -> Log {
        let level = targets.iter().map(|target| target.level).max().unwrap_or(Level::Emerg);
        Log(Rc::new(Inner { targets: targets.into(), level, all: false }))
    }

    /// A log that writes to the standard error stream.
    pub fn stderr(level: Level) -> Log {
        Log::new(&[ErrorLog { target: Target::Stderr, level }])
    }

    /// The same targets for every level: for the addresses of `debug_connection`.
    #[must_use]
    pub fn debugging(&self) -> Log {
        Log(Rc::new(Inner { targets: self.0.targets.clone(), level: Level::Debug, all: true }))
    }

    /// Whether a message of that level is written anywhere. Ask before making a costly message.
    #[inline]
    pub fn enabled(&self, level: Level) -> bool {
        level <= self.0.level
    }

    /// Writes a message, with the connection's number where there is one.
    pub fn write(&self, level: Level, connection: Option<u64>, message: fmt::Arguments<'_>) {
        self.write_with(level, connection, message, None);
    }

    /// Writes a message with a session's details after it.
    pub fn write_with(
        &self,
        level: Level,
        connection: Option<u64>,
        message: fmt::Arguments<'_>,
        details: Option<&dyn Details>,
    ) {
        if !self.enabled(level) {
            return;
        }
        let line = line(level, connection, message, details);
        for target in &self.0.targets {
            if self.0.all || level <= target.level {
                write_to(&target.target, level, &line);
            }
        }
    }

    /// Its first file.
    pub(crate) fn first_file(&self) -> Option<&Rc<LogFile>> {
        self.0.targets.iter().find_map(|log| if let Target::File(file) = &log.target { Some(file) } else { None })
    }

    /// What it keeps in memory (`error_log memory:SIZE`), if it does.
    pub fn memory(&self) -> Option<&Rc<Memory>> {
        self.0.targets.iter().find_map(|log| if let Target::Memory(memory) = &log.target { Some(memory) } else { None })
    }

    /// Whether it writes to the standard error stream anyway.
    pub(crate) fn is_stderr(&self) -> bool {
        self.0.targets.iter().any(|target| matches!(target.target, Target::Stderr))
    }
}

/// One whole line, its end included; ends of lines in the message are escaped so that a line stays a line. Bytes that
/// aren't UTF-8 and came by [`buf::text::encode`] are as they were.
fn line(level: Level, connection: Option<u64>, message: fmt::Arguments<'_>, details: Option<&dyn Details>) -> Vec<u8> {
    let pid = std::process::id();
    let mut line = String::with_capacity(256);
    let _ = write!(line, "{} [{}] {pid}#{pid}: ", clock::times().error_log, level.name());
    if let Some(number) = connection {
        let _ = write!(line, "*{number} ");
    }
    let start = line.len();
    let _ = line.write_fmt(message);
    if let Some(details) = details {
        details.append(&mut line);
    }
    if line[start..].contains('\n') {
        let escaped = line[start..].replace('\n', "\\n");
        line.replace_range(start.., &escaped);
    }
    let mut line = match buf::text::decode(&line) {
        Cow::Borrowed(_) => line.into_bytes(),
        Cow::Owned(bytes) => bytes,
    };
    if line.len() >= MAX_LINE {
        line.truncate(end_of_char(&line, MAX_LINE - 1));
    }
    line.push(b'\n');
    line
}

/// Where to cut at the latest so that no character is cut in two.
fn end_of_char(line: &[u8], at: usize) -> usize {
    let is_inside = |at: &usize| line.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    (at.saturating_sub(3)..=at).rev().find(|at| !is_inside(at)).unwrap_or(at)
}

fn write_to(target: &Target, level: Level, line: &[u8]) {
    match target {
        Target::File(file) => file.write_now(line),
        Target::Stderr => {
            let _ = io::Write::write_all(&mut io::stderr(), line);
        }
        Target::Syslog(syslog) => syslog.send(syslog::severity(level), line.strip_suffix(b"\n").unwrap_or(line)),
        Target::Memory(memory) => memory.write(line),
    }
}

thread_local! {
    static CURRENT: RefCell<Log> = RefCell::new(Log::stderr(Level::Notice));
}

/// The log of the process: the outermost `error_log`, or the one from before the configuration is read.
pub fn current() -> Log {
    CURRENT.with_borrow(Clone::clone)
}

/// Sets the log of the process.
pub fn set_current(log: Log) {
    CURRENT.set(log);
}

/// Writes a message to a log: `log!(log, Notice, "start worker process {pid}")`.
#[macro_export]
macro_rules! log {
    ($log:expr, $level:ident, $($message:tt)+) => {{
        let log = &$log;
        if log.enabled($crate::log::Level::$level) {
            log.write($crate::log::Level::$level, None, format_args!($($message)+));
        }
    }};
}

/// The longest line; what is beyond is cut off.
pub(crate) const MAX_LINE: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let pid = std::process::id();
        let details = |line: &mut String| line.push_str(", client: 127.0.0.1");
        let line = |level, number, message: fmt::Arguments<'_>, details| {
            String::from_utf8(line(level, number, message, details)).expect("text")
        };
        let text = line(Level::Error, Some(5), format_args!("no\nend"), Some(&details));
        assert_eq!(&text[19..], format!(" [error] {pid}#{pid}: *5 no\\nend, client: 127.0.0.1\n"));
        let text = line(Level::Info, None, format_args!("{}", "ü".repeat(MAX_LINE)), None);
        assert!(text.len() <= MAX_LINE && text.ends_with("ü\n"));
    }

    #[test]
    fn bytes_are_written_as_they_are() {
        let name = b"/\xff\xe9\xc3\xa9\xf4\x8f\xbf\xbf\x80";
        let details = |line: &mut String| line.push_str(&buf::text::encode(name));
        let found = line(Level::Info, None, format_args!("open() \"{}\"", buf::text::encode(name)), Some(&details));
        assert!(found.ends_with(&[&b"open() \""[..], name, b"\"", name, b"\n"].concat()));
        let long = [b'\xff'; 2 * MAX_LINE];
        let found = line(Level::Info, None, format_args!("{}", buf::text::encode(&long)), None);
        assert_eq!((found.len(), found.ends_with(b"\xff\n")), (MAX_LINE, true));
    }

    #[test]
    fn levels_reach_their_targets() {
        let rings = [Rc::new(Memory::new(1000)), Rc::new(Memory::new(1000))];
        let targets: Vec<ErrorLog> = [Level::Emerg, Level::Error]
            .iter()
            .zip(&rings)
            .map(|(&level, ring)| ErrorLog { target: Target::Memory(ring.clone()), level })
            .collect();
        let log = Log::new(&targets);
        assert!(log.enabled(Level::Error) && !log.enabled(Level::Warn));
        log!(log, Error, "one");
        log!(log.debugging(), Debug, "two");
        let count = |ring: &Memory| ring.contents().iter().filter(|&&byte| byte == b'\n').count();
        assert_eq!((count(&rings[0]), count(&rings[1])), (1, 2));
    }

    #[test]
    fn memory_is_a_ring() {
        let ring = Memory::new(4);
        ring.write(b"ab");
        ring.write(b"cde");
        assert_eq!(ring.contents(), b"bcde");
    }

    #[test]
    fn errno() {
        let error = io::Error::from_raw_os_error(2);
        assert_eq!(Errno(&error).to_string(), " (2: No such file or directory)");
    }
}
