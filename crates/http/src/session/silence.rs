//! What the log says of clients that leave, or stay away too long, where a request or a header is awaited.

use std::io;

use engine::log::{Errno, Level, TIMED_OUT};

use crate::server::Http;
use crate::session::connection::Connection;

/// A client has closed its connection instead of a request.
pub(super) fn log_close(http: &Http, conn: &Connection) {
    if conn.facts.requests == 0 {
        return log_waiting(http, conn, format_args!("client closed connection"));
    }
    let log = http.log_of(&conn.facts.address.default.root.core);
    let message = format_args!("client {} closed keepalive connection", conn.facts.peer.text());
    log.write_with(Level::Info, Some(conn.link.stream.number()), message, None);
}

/// What became of a client that has said nothing.
fn log_waiting(http: &Http, conn: &Connection, what: std::fmt::Arguments<'_>) {
    let awaited = if conn.link.proxy_expected { "reading PROXY protocol" } else { "waiting for request" };
    http.visitor(conn).log(Level::Info, format_args!("{what} while {awaited}"));
}

/// The wait for a request has failed, or taken too long.
pub(super) fn log_read_error(http: &Http, conn: &Connection, error: &io::Error, first: bool) {
    let expected = error.kind() == io::ErrorKind::TimedOut || rt::is_closing(error);
    if expected {
        if error.kind() == io::ErrorKind::TimedOut && first {
            log_waiting(http, conn, format_args!("client timed out{TIMED_OUT}"));
        }
        if error.kind() == io::ErrorKind::TimedOut
            && first
            && conn.facts.address.default.root.core.reset_timedout_connection
        {
            conn.link.stream.linger_reset();
        }
        return;
    }
    let what = if first { "waiting for request" } else { "keepalive" };
    http.visitor(conn).log(Level::Info, format_args!("recv() failed{} while {what}", Errno(error)));
}
