//! Access logs: formats, targets, conditions.
//!
//! A line is rendered into one buffer that is used again and again, and goes from there to its file (or the file's own
//! buffer) in one piece. A full disk costs lines and one alert a second, nothing else.

mod cache;
mod format;
mod gzip;
mod parse;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;

use engine::log::{Errno, Level, LogFile, Syslog};
use expr::vars::Template;

pub use cache::{LogCache, parse_cache};
pub use format::{Escape, Format, Formats, log_format};
pub use parse::{AccessLogs, access_log, default_log};

use crate::Proto;

/// What access logs ask of a protocol besides.
pub trait LogProto: Proto {
    /// The text of the format `combined`, where the protocol has one.
    const COMBINED: Option<&'static str>;

    /// Whether a log whose name has variables may be made for this session; what speaks against it has been logged.
    fn may_create(session: &mut Self::Session) -> bool;

    /// Writes to the session's error log.
    fn report(session: &Self::Session, level: Level, message: std::fmt::Arguments<'_>);
}

/// One access log of a level.
pub struct AccessLog {
    target: Target,
    format: Rc<Format>,
    condition: Option<Rc<Template>>,
    warned: Cell<i64>,
}

/// Where lines go.
enum Target {
    File(Rc<LogFile>),
    /// The standard error stream.
    Stderr,
    Syslog(Rc<Syslog>),
    /// A file whose name has variables: opened for each line, or kept in a [`LogCache`].
    Named(Rc<Template>),
}

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl AccessLog {
    /// Writes the session's line, unless the condition says otherwise.
    pub fn write<P: LogProto>(&self, session: &mut P::Session, cache: Option<&LogCache>) {
        // Taken, not borrowed: a variable may do whatever it likes.
        let mut line = LINE.take();
        line.clear();
        if self.wanted::<P>(session, &mut line) {
            self.format.render(session, &mut line);
            match &self.target {
                Target::Syslog(syslog) => syslog.send_access(&line),
                Target::File(file) => {
                    line.push(b'\n');
                    file.write(&line);
                }
                Target::Stderr => {
                    line.push(b'\n');
                    let _ = io::stderr().write_all(&line);
                }
                Target::Named(name) => {
                    line.push(b'\n');
                    self.write_named::<P>(session, name, &line, cache);
                }
            }
        }
        if line.capacity() <= MAX_KEPT {
            LINE.set(line);
        }
    }

    fn wanted<P: LogProto>(&self, session: &mut P::Session, scratch: &mut Vec<u8>) -> bool {
        let Some(condition) = &self.condition else { return true };
        condition.render(session, scratch);
        let wanted = !scratch.is_empty() && *scratch != b"0";
        scratch.clear();
        wanted
    }

    fn write_named<P: LogProto>(
        &self,
        session: &mut P::Session,
        name: &Template,
        line: &[u8],
        cache: Option<&LogCache>,
    ) {
        if !P::may_create(session) {
            return;
        }
        let mut path = Vec::with_capacity(128);
        name.render(session, &mut path);
        let opened = match cache {
            Some(cache) => cache.open(&path, rt::now_ms()),
            None => open(&path).map(Rc::new),
        };
        let shown = buf::text::encode(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                P::report(session, Level::Crit, format_args!("open() \"{shown}\" failed{}", Errno(&error)));
                return;
            }
        };
        if let Err(error) = (&*file).write_all(line)
            && self.may_warn()
        {
            P::report(session, Level::Alert, format_args!("write() to \"{shown}\" failed{}", Errno(&error)));
        }
    }

    /// Once a second.
    fn may_warn(&self) -> bool {
        let (now, _) = engine::clock::now();
        self.warned.replace(now) != now
    }
}

fn open(path: &[u8]) -> io::Result<File> {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    File::options().append(true).create(true).mode(0o644).open(path)
}

/// A line's buffer that has grown beyond this isn't kept.
const MAX_KEPT: usize = 64 << 10;
