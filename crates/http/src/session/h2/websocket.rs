//! WebSocket over HTTP/2 (RFC 8441): an extended CONNECT becomes the request for an upgrade that handlers know from
//! HTTP/1, and a backend's 101 the 200 that its client waits for.
//!
//! The key of HTTP/1's handshake is ours, and so is the check of the answer to it: clients have neither in HTTP/2.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wire::h1::{RequestHead, ResponseHead};
use wire::h2::Head;

use crate::request::Request;

/// What is appended to a key before it is hashed (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// How far a stream has come that was opened by CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tunnel {
    /// It wasn't: it is an ordinary request.
    No,
    /// Its client waits for an answer.
    Asked,
    /// Bytes go both ways.
    Made,
}

/// Whether an extended CONNECT is one for WebSocket, the only protocol there is for it.
pub(super) fn is_meant(head: &Head) -> bool {
    head.protocol.is_some_and(|protocol| protocol.of(&head.text).eq_ignore_ascii_case(b"websocket"))
}

/// Makes a request for an upgrade of an extended CONNECT.
pub(super) fn begin(head: &mut Head, line: &mut RequestHead) {
    let key = STANDARD.encode(rt::random_bytes());
    head.upgrade(key.as_bytes(), line);
}

/// Whether a backend may switch protocols on this request with this head: where the handshake's key is ours, its answer
/// must be right.
pub fn is_agreed(r: &Request, head: &ResponseHead, bytes: &[u8]) -> bool {
    if !r.h2_stream().is_some_and(|stream| stream.tunnel() == Tunnel::Asked) {
        return true;
    }
    let mut fields = r.line.headers.iter();
    let key = fields.find(|field| field.name.of(&r.head).eq_ignore_ascii_case(b"Sec-WebSocket-Key"));
    let mut answers = head.headers.iter().filter(|field| is_accept(field.name.of(bytes)));
    match (key, answers.next(), answers.next()) {
        (Some(key), Some(answer), None) => answer.value.of(bytes) == accept(key.value.of(&r.head)).as_bytes(),
        _ => false,
    }
}

fn is_accept(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"Sec-WebSocket-Accept")
}

/// The answer to a key.
fn accept(key: &[u8]) -> String {
    STANDARD.encode(tls::sha1(&[key, GUID].concat()))
}

/// Makes the backend's 101 what it is in HTTP/2, if the client speaks that: 200, without the answer to a key that the
/// client doesn't know.
pub fn switch(r: &mut Request) {
    let Some(stream) = r.h2_stream() else { return };
    stream.set_tunnel(Tunnel::Made);
    r.response.status = 200;
    r.response.status_line = None;
    r.response.headers.retain(|field| !is_accept(&field.name));
}

/// Any success would tell the client that it has its tunnel (RFC 9110 §9.3.6). One that isn't of the tunnel, such as a
/// page, is answered as what isn't implemented here.
pub(super) fn refuse_success(r: &mut Request) {
    let asked = r.h2_stream().is_some_and(|stream| stream.tunnel() == Tunnel::Asked);
    if asked && (200..300).contains(&r.response.status) {
        (r.response.status, r.response.status_line) = (501, None);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_answer_to_a_key() {
        // The example of RFC 6455 §1.3.
        assert_eq!(super::accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
