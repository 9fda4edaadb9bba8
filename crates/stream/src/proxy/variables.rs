//! `$upstream_…`

use common::backend::attempts::{addresses, counts, times};
use expr::vars::Flags;

use crate::proto::{Getter, Setup};

/// Defines the variables.
pub(super) fn define(setup: &mut Setup) {
    let live = Flags::NOCACHEABLE;
    common::variables! { setup, "ngx_stream_upstream_module";
        /// The addresses of the servers that were tried, in order, joined by commas. Empty if none was.
        "upstream_addr", live, Getter::Plain(|s, out| addresses(&s.attempts, out));
        /// How many bytes were sent to the servers. Joined like `$upstream_addr`.
        "upstream_bytes_sent", live, Getter::Plain(|s, out| counts(&s.attempts, out, |attempt| attempt.sent));
        /// How many bytes the servers sent. Joined like `$upstream_addr`.
        "upstream_bytes_received", live, Getter::Plain(|s, out| counts(&s.attempts, out, |attempt| attempt.received));
        /// The times that connecting to the servers took, in seconds with milliseconds, with TLS's handshake. `-` where it
        /// failed. Joined like `$upstream_addr`.
        "upstream_connect_time", live, Getter::Plain(|s, out| times(&s.attempts, out, |attempt| attempt.connect_ms));
        /// The times until the servers sent their first bytes, in seconds with milliseconds. `-` where they sent none. Joined
        /// like `$upstream_addr`.
        "upstream_first_byte_time", live, Getter::Plain(|s, out| times(&s.attempts, out, |attempt| attempt.header_ms));
        /// The times that sessions with the servers lasted, in seconds with milliseconds. Joined like `$upstream_addr`.
        "upstream_session_time", live, Getter::Plain(|s, out| times(&s.attempts, out, |attempt| attempt.response_ms));
    }
}
