//! Writing a session's line.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;

use engine::log::{Errno, Level, LogFile, Syslog};
use expr::vars::Template;

use super::{Format, LogCache, LogProto};
use crate::Session;

/// One access log of a level.
pub struct AccessLog {
    pub(super) target: Target,
    pub(super) format: Rc<Format>,
    pub(super) condition: Option<Rc<Template>>,
    pub(super) warned: Cell<i64>,
}

/// Where lines go.
pub(super) enum Target {
    /// A file.
    File(Rc<LogFile>),
    /// The standard error stream.
    Stderr,
    /// A server of syslog.
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
                session.log_at(Level::Crit, format_args!("open() \"{shown}\" failed{}", Errno(&error)));
                return;
            }
        };
        if let Err(error) = (&*file).write_all(line)
            && self.may_warn()
        {
            session.log_at(Level::Alert, format_args!("write() to \"{shown}\" failed{}", Errno(&error)));
        }
    }

    /// Once a second.
    fn may_warn(&self) -> bool {
        let (now, _) = engine::clock::now();
        self.warned.replace(now) != now
    }
}

pub(super) fn open(path: &[u8]) -> io::Result<File> {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    File::options().append(true).create(true).mode(0o644).open(path)
}

/// A line's buffer that has grown beyond this isn't kept.
const MAX_KEPT: usize = 64 << 10;
