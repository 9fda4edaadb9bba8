//! One request to a responder, and what it answers.

use std::fmt;
use std::io;

use base64::Engine as _;
use buf::{Bytes, Chain};
use engine::log::Errno;
use os::SockAddr;
use rt::{ConnectOptions, Stream};
use tls::ocsp::Query;
use upstream::Url;
use wire::h1::{KnownHeader, Parsed, ResponseHead, ResponseParser, UpstreamFraming};
use wire::uri::{Escape, escape};

/// The longest head and the longest body that a responder may send.
const MOST_HEAD: usize = 8192;
const MOST_BODY: usize = 64 << 10;
/// How much is asked of the kernel at once.
const READ: usize = 4096;
const CONTENT_TYPE: &[u8] = b"application/ocsp-response";

/// Why there is no response; nginx's words.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A system call failed: its name.
    Io(&'static str, io::Error),
    /// The connection ended too early.
    Closed,
    /// It isn't HTTP, or not of a kind that answers such a request.
    Invalid,
    /// It is HTTP, with a status other than 200.
    Status(u16),
    /// It is of another type.
    ContentType(Vec<u8>),
    /// It is too long.
    TooLarge,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Io(_, error) if error.kind() == io::ErrorKind::TimedOut => f.write_str("OCSP responder timed out"),
            Trouble::Io(call, error) => write!(f, "{call}() failed{}", Errno(error)),
            Trouble::Closed => f.write_str("OCSP responder prematurely closed connection"),
            Trouble::Invalid => f.write_str("OCSP responder sent invalid response"),
            Trouble::Status(status) => write!(f, "OCSP responder sent unexpected status {status}"),
            Trouble::ContentType(value) => {
                let value = buf::text::encode(value);
                write!(f, "OCSP responder sent invalid \"Content-Type\" header: \"{value}\"")
            }
            Trouble::TooLarge => f.write_str("OCSP responder sent too large response"),
        }
    }
}

/// The request for the status of a certificate (RFC 6960 appendix A.1).
pub(super) fn request(url: &Url, query: &Query) -> Vec<u8> {
    let mut out = b"GET ".to_vec();
    if !url.uri.starts_with(b"/") {
        out.push(b'/');
    }
    out.extend_from_slice(&url.uri);
    if !out.ends_with(b"/") {
        out.push(b'/');
    }
    let encoded = base64::engine::general_purpose::STANDARD.encode(query.request());
    escape(Escape::UriComponent, encoded.as_bytes(), &mut out);
    out.extend_from_slice(b" HTTP/1.0\r\nHost: ");
    out.extend_from_slice(if url.is_unix() { b"localhost" } else { &url.host });
    out.extend_from_slice(b"\r\n\r\n");
    out
}

/// Sends a request to an address, which has so long to accept the connection; the body of the response.
pub(super) async fn run(addr: &SockAddr, request: &[u8], connect_ms: u64) -> Result<Vec<u8>, Trouble> {
    let connected = Stream::connect(addr, &ConnectOptions::default(), connect_ms).await;
    let stream = connected.map_err(|error| Trouble::Io("connect", error.into()))?;
    let sent = stream.send(&mut Chain::from(Bytes::from(request.to_vec()))).await;
    sent.map_err(|error| Trouble::Io("send", error))?;
    let mut reader = Reader::default();
    loop {
        let more = stream.recv(READ).await.map_err(|error| Trouble::Io("recv", error))?;
        if let Some(body) = reader.take(&more)? {
            return Ok(body);
        }
    }
}

/// A response as it comes in.
#[derive(Default)]
struct Reader {
    received: Vec<u8>,
    parser: ResponseParser,
    head: ResponseHead,
    /// Where the body begins, once the head is there.
    body: Option<(usize, UpstreamFraming)>,
}

impl Reader {
    /// Takes bytes, none at the connection's end; the body, once it is there.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Trouble> {
        self.received.extend_from_slice(bytes);
        let ended = bytes.is_empty();
        let (start, framing) = match self.body {
            Some(body) => body,
            None => match self.parser.parse(&self.received, MOST_HEAD, &mut self.head) {
                Ok(Parsed::Complete(start)) => *self.body.insert((start, self.check_head()?)),
                Ok(Parsed::Incomplete) if ended => return Err(Trouble::Closed),
                Ok(Parsed::Incomplete) => return Ok(None),
                Err(_) => return Err(Trouble::Invalid),
            },
        };
        let body = self.received.get(start..).unwrap_or_default();
        if body.len() > MOST_BODY {
            return Err(Trouble::TooLarge);
        }
        match framing {
            UpstreamFraming::Length(length) if length > MOST_BODY as u64 => Err(Trouble::TooLarge),
            UpstreamFraming::Length(length) => match body.get(..length as usize) {
                Some(body) => Ok(Some(body.to_vec())),
                None if ended => Err(Trouble::Closed),
                None => Ok(None),
            },
            _ => Ok(ended.then(|| body.to_vec())),
        }
    }

    fn check_head(&self) -> Result<UpstreamFraming, Trouble> {
        let head = &self.head;
        if head.status != 200 {
            return Err(Trouble::Status(head.status));
        }
        if let Some(kind) = head.value(KnownHeader::ContentType, &self.received) {
            let name = kind.split(|byte| *byte == b';').next().unwrap_or_default();
            if !name.trim_ascii().eq_ignore_ascii_case(CONTENT_TYPE) {
                return Err(Trouble::ContentType(kind.to_vec()));
            }
        }
        match head.framing(&self.received, false) {
            // In answer to HTTP/1.0 there are no chunks.
            Ok(UpstreamFraming::Chunked) | Err(_) => Err(Trouble::Invalid),
            Ok(framing) => Ok(framing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a response that comes in pieces of `size` bytes, and then the end.
    fn read(response: &[u8], size: usize) -> String {
        let mut reader = Reader::default();
        for piece in response.chunks(size).chain([&b""[..]]) {
            match reader.take(piece) {
                Ok(None) => {}
                Ok(Some(body)) => return format!("{} bytes", body.len()),
                Err(trouble) => return trouble.to_string(),
            }
        }
        "nothing".to_owned()
    }

    #[test]
    fn responses() {
        let long = [b'x'; MOST_BODY + 1];
        let closed = "OCSP responder prematurely closed connection";
        let invalid = "OCSP responder sent invalid response";
        for (fields, body, expect) in [
            ("Content-Type: application/ocsp-response", &b"abc"[..], "3 bytes"),
            ("content-type: Application/OCSP-Response; x=y", b"", "0 bytes"),
            ("Content-Type: application/ocsp-response\r\nContent-Length: 3", b"abcd", "3 bytes"),
            ("Content-Type: application/ocsp-response\r\nContent-Length: 3", b"ab", closed),
            ("Content-Type: application/ocsp-response\r\nContent-Length: x", b"ab", invalid),
            ("Content-Type: application/ocsp-response\r\nTransfer-Encoding: chunked", b"0\r\n\r\n", invalid),
            ("Content-Type: application/ocsp-response", &long, "OCSP responder sent too large response"),
            (
                "Content-Type: application/ocsp-response\r\nContent-Length: 99999",
                b"",
                "OCSP responder sent too large response",
            ),
            ("Content-Type: text/html", b"", "OCSP responder sent invalid \"Content-Type\" header: \"text/html\""),
            ("X: y", b"abc", "3 bytes"),
        ] {
            let response = [b"HTTP/1.1 200 OK\r\n", fields.as_bytes(), b"\r\n\r\n", body].concat();
            for size in [1, 7, READ] {
                assert_eq!(read(&response, size), expect, "{fields} {size}");
            }
        }
        assert_eq!(read(b"HTTP/1.0 404 Not Found\r\n\r\n", 100), "OCSP responder sent unexpected status 404");
        assert_eq!(read(b"garbage garbage", 100), invalid);
        assert_eq!(read(&[&b"HTTP/1.0 200 OK\r\nX: "[..], &long].concat(), 100), invalid);
        assert_eq!((read(b"", 1).as_str(), read(b"HTTP/1.1 200 OK\r\n", 1).as_str()), (closed, closed));
    }
}
