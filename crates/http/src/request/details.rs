//! What the lines of the error log tell of a request.

use std::fmt::Write as _;
use std::rc::Rc;

use buf::Bytes;
use os::SockAddr;
use wire::Span;
use wire::h1::KnownHeader;

use super::Request;
use crate::exchange::Exchange;
use crate::server::Server;

/// What a line tells of a request, as it was when this was made. It is cheap to make: the text is written with a line.
pub struct Details {
    client: SockAddr,
    server: Rc<Server>,
    head: Bytes,
    request_line: Span,
    /// The URI of a subrequest.
    subrequest: Option<Vec<u8>>,
    exchange: Option<Rc<Exchange>>,
    host: Option<Span>,
    referrer: Option<Span>,
}

impl Details {
    /// What there is to tell of a request.
    pub fn of(r: &Request) -> Details {
        let value = |known| r.line.find(known).map(|field| field.value);
        Details {
            client: r.conn.peer.clone(),
            server: r.server.clone(),
            head: r.head.clone(),
            request_line: r.line.request_line,
            subrequest: r.is_subrequest().then(|| r.uri.clone()),
            exchange: r.upstream.clone(),
            host: value(KnownHeader::Host),
            referrer: value(KnownHeader::Referer),
        }
    }

    /// Appends `, client: …, server: …, request: "…"` and so on.
    pub fn write(&self, line: &mut String) {
        let _ = write!(line, ", client: {}", self.client.text());
        let _ = write!(line, ", server: {}", buf::text::encode(&self.server.name));
        if !self.request_line.is_empty() {
            let _ = write!(line, ", request: \"{}\"", buf::text::encode(self.request_line.of(&self.head)));
        }
        if let Some(uri) = &self.subrequest {
            let _ = write!(line, ", subrequest: \"{}\"", buf::text::encode(uri));
        }
        if let Some(url) = self.exchange.as_ref().and_then(|exchange| exchange.url()) {
            let _ = write!(line, ", upstream: \"{url}\"");
        }
        for (name, span) in [("host", self.host), ("referrer", self.referrer)] {
            if let Some(span) = span {
                let _ = write!(line, ", {name}: \"{}\"", buf::text::encode(span.of(&self.head)));
            }
        }
    }
}
