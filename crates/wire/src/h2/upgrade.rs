//! An extended CONNECT (RFC 8441) in the form that HTTP/1 has for the same: a request for an upgrade.

use super::head::Head;
use crate::h1::{HeaderSpan, KnownHeader, Limits, Method, RequestHead};
use crate::span::Span;

/// The field that proves to the client of a WebSocket that its server knows what it agrees to (RFC 6455 §4.1).
const KEY: &[u8] = b"Sec-WebSocket-Key";

impl Head {
    /// Makes `line`, which [`Head::to_request`] has filled, the request for an upgrade to WebSocket with this key: GET, with
    /// `Upgrade`, `Connection` and `Sec-WebSocket-Key`. The request line stays as the client sent it.
    ///
    /// The key is ours: in HTTP/2 a client has none that means anything, and one that it sends is left out.
    pub fn upgrade(&mut self, key: &[u8], line: &mut RequestHead) {
        let text = &self.text;
        line.headers.retain(|field| !field.name.of(text).eq_ignore_ascii_case(KEY));
        line.method = self.own(b"GET");
        line.method_id = Method::Get;
        let protocol = self.protocol.unwrap_or_default();
        let (connection, upgrade) = (self.own(b"Connection"), self.own(b"Upgrade"));
        let (name, key) = (self.own(KEY), self.own(key));
        // How many a client may send is no limit for what it hasn't sent.
        let limits = Limits { max_headers: usize::MAX, ..Limits::default() };
        for (name, value, known) in [
            (connection, upgrade, KnownHeader::Connection),
            (upgrade, protocol, KnownHeader::Upgrade),
            (name, key, KnownHeader::Other),
        ] {
            let added = line.add(HeaderSpan { name, value, known, invalid: false }, &self.text, &limits);
            debug_assert!(added.is_ok(), "these names aren't checked");
        }
    }

    /// Puts a text of our own after what was sent.
    fn own(&mut self, text: &[u8]) -> Span {
        let start = self.text.len();
        self.text.extend_from_slice(text);
        Span::new(start, self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::HeadKind;
    use super::*;
    use crate::hpack::{Field, Traits};

    #[test]
    fn becomes_an_upgrade() {
        let mut head = Head::default();
        for (name, value) in [
            (&b":method"[..], &b"CONNECT"[..]),
            (b":protocol", b"websocket"),
            (b":scheme", b"https"),
            (b":path", b"/chat?x=1"),
            (b":authority", b"a"),
            (b"sec-websocket-key", b"theirs"),
            (b"sec-websocket-version", b"13"),
        ] {
            let (name, value) = (head.own(name), head.own(value));
            head.push(Field { name, value, never_indexed: false, traits: Traits::UNKNOWN }, HeadKind::Request, 10);
        }
        head.finish(HeadKind::Request, false, true);
        let mut line = RequestHead::default();
        head.to_request(&Limits { max_headers: 2, ..Limits::default() }, &mut line).unwrap();
        head.upgrade(b"a2V5", &mut line);
        let text = |span: Span| String::from_utf8_lossy(span.of(&head.text)).into_owned();
        assert_eq!((text(line.method), line.method_id), ("GET".into(), Method::Get));
        assert_eq!(text(line.request_line), "CONNECT /chat?x=1 HTTP/2.0");
        assert_eq!(line.value(KnownHeader::Upgrade, &head.text), Some(&b"websocket"[..]));
        let fields: Vec<_> = line.headers.iter().map(|h| format!("{}={}", text(h.name), text(h.value))).collect();
        let expected = "sec-websocket-version=13,host=a,Connection=Upgrade,Upgrade=websocket,Sec-WebSocket-Key=a2V5";
        assert_eq!(fields.join(","), expected);
    }
}
