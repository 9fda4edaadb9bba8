//! Clients that have no session yet, or between sessions none: what the log says of them.

use std::fmt;
use std::fmt::Write as _;

use engine::log::{Level, Log};
use os::SockAddr;

/// A client without a session.
pub struct Visitor<'a> {
    /// The log of the address's default server.
    pub log: Log,
    /// The connection's serial number.
    pub number: u64,
    /// Its address.
    pub peer: &'a SockAddr,
    /// The listening address.
    pub server: &'a SockAddr,
    /// Whether TLS begins within its session (`starttls`).
    pub starttls: bool,
}

impl Visitor<'_> {
    /// What is done while its TLS begins.
    pub fn doing(&self) -> &'static str {
        if self.starttls { "in starttls state" } else { "SSL handshaking" }
    }

    /// Logs with what is known of it.
    pub fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        let details = |line: &mut String| {
            let starttls = if self.starttls { " using starttls" } else { "" };
            _ = write!(line, ", client: {}{starttls}, server: {}", self.peer.text(), self.server);
        };
        self.log.write_with(level, Some(self.number), message, Some(&details));
    }
}
