//! The core module's variables.

use common::vars::define_facts;
use common::vars::text::{number, put, show_seconds};
use expr::vars::Flags;

use crate::proto::{Getter, Setup};

const CORE: &str = "ngx_stream_core_module";

/// Defines them.
pub(crate) fn define(setup: &mut Setup) {
    define_facts(setup);
    common::variables! { setup, CORE;
        /// The first `server_name` of the server. Empty if it has none.
        "server_name", Flags::NONE, Getter::Plain(|s, out| put(out, &s.server.name));
        /// How many bytes were sent to the client.
        "bytes_sent", Flags::NONE, Getter::Plain(|s, out| number(out, s.sent()));
        /// How many bytes the client has sent, as far as they have been received. The header of the PROXY protocol isn't
        /// counted.
        "bytes_received", Flags::NONE, Getter::Plain(|s, out| number(out, s.received()));
        /// The time since the session began, in seconds with milliseconds.
        "session_time", Flags::NOCACHEABLE, Getter::Plain(|s, out| show_seconds(out, rt::now_ms().saturating_sub(s.began_ms)));
        /// How the session ended: 200 without a fault, 400 if the client's first bytes could not be understood, 403 if
        /// access is denied, 500 after a fault of the server, 502 if no backend could be reached, 503 if a limit is reached.
        "status", Flags::NOCACHEABLE, Getter::Plain(|s, out| number(out, s.status.into()));
        /// The protocol of the client: `TCP` or `UDP`.
        "protocol", Flags::NONE, Getter::Plain(|s, out| put(out, s.link.protocol().as_bytes()));
        /// The name of this machine.
        "hostname", Flags::NONE, Getter::Plain(|s, out| put(out, s.stream.hostname.as_bytes()));
    }
}
