//! What the error log says of sessions.

use std::fmt;
use std::fmt::Write as _;

use engine::log::{Level, Log};

use super::StreamSession;

impl StreamSession {
    /// The log of its server.
    pub fn log(&self) -> Log {
        self.server.core.shared.log.as_ref().unwrap_or(&self.stream.log).clone()
    }

    /// Logs with what is known of it.
    pub fn log_at(&self, level: Level, message: fmt::Arguments<'_>) {
        let log = self.server.core.shared.log.as_ref().unwrap_or(&self.stream.log);
        if !log.enabled(level) {
            return;
        }
        let details = |line: &mut String| self.details(line);
        match self.doing {
            "" => log.write_with(level, Some(self.base.number), message, Some(&details)),
            doing => {
                let message = format_args!("{message} while {doing}");
                log.write_with(level, Some(self.base.number), message, Some(&details));
            }
        }
    }

    /// Logs an error with what is known of it.
    pub fn log_error(&self, message: fmt::Arguments<'_>) {
        self.log_at(Level::Error, message);
    }

    /// Logs what happens, without what is known of it.
    pub(crate) fn log_plain(&self, message: fmt::Arguments<'_>) {
        self.log().write(Level::Info, Some(self.base.number), message);
    }

    fn details(&self, line: &mut String) {
        // Writing to a string doesn't fail.
        let (kind, client) = (self.link.kind(), self.base.peer.text());
        let _ = write!(line, ", {kind}client: {client}, server: {}", self.address.addr);
        if let Some(peer) = self.attempts.last().and_then(|attempt| attempt.peer.as_ref()) {
            let _ = write!(line, ", upstream: \"{peer}\"");
        }
        if self.doing.is_empty() {
            let _ = write!(line, ", {}", self.counts());
        }
    }

    /// What has gone which way.
    pub(crate) fn counts(&self) -> Counts<'_> {
        Counts(self)
    }
}

/// See [`StreamSession::counts`].
pub(crate) struct Counts<'s>(&'s StreamSession);

impl fmt::Display for Counts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts(s) = self;
        let (from, to) = s.attempts.last().map_or((0, 0), |attempt| (attempt.received, attempt.sent));
        let (received, sent) = (s.received(), s.sent());
        write!(f, "bytes from/to client:{received}/{sent}, bytes from/to upstream:{from}/{to}")
    }
}
