//! A response as a client understands it, and whether it is one: read here without the server's own parsers.

use crate::ask::{Ask, How, Method, Place};

/// A response, as far as it has come.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Its fields, their names in small letters.
    pub fields: Vec<(String, String)>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// Its end was seen.
    pub whole: bool,
    /// The end was that of the connection, which doesn't tell whether something is missing.
    pub ended_by_close: bool,
}

/// How the body of a response is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Until the connection ends.
    Close,
}

impl Response {
    /// Reads a head of HTTP/1, without the empty line at its end.
    pub fn parse(head: &[u8]) -> Result<Response, String> {
        let text = std::str::from_utf8(head).map_err(|_| "a head that isn't text".to_owned())?;
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let rest = first.strip_prefix("HTTP/1.1 ").ok_or_else(|| format!("the status line {first:?}"))?;
        let status = rest.get(..3).and_then(|code| code.parse().ok()).filter(|_| rest.get(3..4) == Some(" "));
        let status = status.ok_or_else(|| format!("the status line {first:?}"))?;
        let mut fields = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(": ").ok_or_else(|| format!("the field {line:?}"))?;
            if name.is_empty() || name.contains(' ') || value.contains(['\r', '\n']) {
                return Err(format!("the field {line:?}"));
            }
            fields.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        Ok(Response { status, fields, ..Response::default() })
    }

    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// Whether the connection goes on after it.
    pub(crate) fn keeps_alive(&self) -> bool {
        self.field("connection").is_some_and(|value| value == "keep-alive")
    }

    /// How its body is framed in HTTP/1 (RFC 9112 §6.3), or what is wrong with it.
    pub fn framing(&self, method: Method) -> Result<Framing, String> {
        let mut lengths = self.fields.iter().filter(|(name, _)| name == "content-length").map(|(_, value)| value);
        let length = lengths.next();
        if lengths.next().is_some() {
            return Err("two fields Content-Length".into());
        }
        let chunked = match self.field("transfer-encoding") {
            None => false,
            Some("chunked") => true,
            Some(other) => return Err(format!("Transfer-Encoding: {other}")),
        };
        if chunked && length.is_some() {
            return Err("both Transfer-Encoding and Content-Length".into());
        }
        let length = length.map(|text| text.parse().map_err(|_| format!("Content-Length: {text}"))).transpose()?;
        if self.status < 200 || self.status == 204 {
            return if chunked || length.is_some() {
                Err(format!("a body after status {}", self.status))
            } else {
                Ok(Framing::None)
            };
        }
        if method == Method::Head || self.status == 304 {
            return Ok(Framing::None);
        }
        Ok(match length {
            Some(length) => Framing::Length(length),
            None if chunked => Framing::Chunked,
            None => Framing::Close,
        })
    }

    /// Whether the body is what the request is answered with, or the beginning of it if it isn't whole.
    /// `calm`: nothing but what the request asks for fails.
    pub(crate) fn check_content(&self, ask: &Ask, calm: bool) -> Result<(), String> {
        if (ask.method == Method::Head || matches!(self.status, 204 | 304)) && !self.body.is_empty() {
            return Err(format!("{} bytes of a body where there is none", self.body.len()));
        }
        let Some((key, start, length)) = ask.content(self.status) else { return Ok(()) };
        let unpacked;
        let (body, whole) = match self.field("content-encoding") {
            None => (&self.body, self.whole),
            Some("gzip") if ask.method == Method::Head => (&self.body, false),
            Some("gzip") if ask.gzip => {
                unpacked = gunzip(&self.body, length as usize + 1, self.whole && !self.ended_by_close)?;
                (&unpacked, self.whole)
            }
            Some(other) => return Err(format!("Content-Encoding: {other}")),
        };
        let packed = self.field("content-encoding").is_some();
        if let (Some(text), false) = (self.field("content-length"), packed)
            && text.parse() != Ok(length)
        {
            return Err(format!("Content-Length: {text}, but there are {length} bytes"));
        }
        if self.status == 206 && ask.method == Method::Get {
            let expected = format!("bytes {start}-{}/", start + length - 1);
            if !self.field("content-range").is_some_and(|field| field.starts_with(&expected)) {
                return Err(format!("Content-Range: {:?}, but expected {expected:?}", self.field("content-range")));
            }
        }
        if body.len() as u64 > length {
            return Err(format!("{} bytes instead of {length}", body.len()));
        }
        if let Some(at) = key.difference(start, body) {
            return Err(format!("the byte at {at} isn't that of {key:?}"));
        }
        // An end that a backend's death has made looks like the end of the body.
        let may_lack = !calm && matches!(ask.place, Place::Backend(_, How::ToTheEnd, _));
        if whole && !self.ended_by_close && !may_lack && (body.len() as u64) < length && ask.method != Method::Head {
            return Err(format!("the end after {} of {length} bytes", body.len()));
        }
        Ok(())
    }
}

/// Unpacks at most `most` bytes; what isn't whole as far as it goes.
fn gunzip(packed: &[u8], most: usize, whole: bool) -> Result<Vec<u8>, String> {
    let mut room = vec![0; most.max(64)];
    let config = zlib_rs::InflateConfig { window_bits: 31 };
    let (unpacked, code) = zlib_rs::decompress_slice(&mut room, packed, config);
    let length = unpacked.len();
    let good = match code {
        zlib_rs::ReturnCode::Ok | zlib_rs::ReturnCode::StreamEnd => true,
        zlib_rs::ReturnCode::BufError | zlib_rs::ReturnCode::DataError => !whole,
        _ => false,
    };
    if !good {
        return Err(format!("gzip: {code:?} after {length} bytes"));
    }
    room.truncate(length);
    Ok(room)
}

#[cfg(test)]
mod tests {
    use crate::content::Key;

    use super::*;

    #[test]
    fn framings() {
        for (head, method, expect) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5", Method::Get, Ok(Framing::Length(5))),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5", Method::Head, Ok(Framing::None)),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5", Method::Get, Ok(Framing::None)),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", Method::Get, Ok(Framing::Chunked)),
            ("HTTP/1.1 200 OK\r\nServer: x", Method::Get, Ok(Framing::Close)),
            ("HTTP/1.1 103 Early Hints\r\nLink: x", Method::Get, Ok(Framing::None)),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 5", Method::Get, Err("a body after status 204")),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
                Method::Get,
                Err("both Transfer-Encoding and Content-Length"),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5",
                Method::Get,
                Err("two fields Content-Length"),
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: x", Method::Get, Err("Content-Length: x")),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip", Method::Get, Err("Transfer-Encoding: gzip")),
        ] {
            let response = Response::parse(head.as_bytes()).expect(head);
            assert_eq!(response.framing(method), expect.map_err(str::to_owned), "{head}");
        }
        for head in [
            "HTTP/1.1 2000 OK",
            "HTTP/1.0 200 OK",
            "200 OK",
            "HTTP/1.1 200 OK\r\nno colon",
            "HTTP/1.1 200 OK\r\na b: c",
        ] {
            assert!(Response::parse(head.as_bytes()).is_err(), "{head}");
        }
    }

    #[test]
    fn wrong_contents_are_found() {
        let ask = Ask::get(7, Place::File(2));
        let right = Key::File(2).bytes(0, 100);
        let check = |body: &[u8], whole: bool, length: &str| {
            let fields = vec![("content-length".to_owned(), length.to_owned())];
            let response = Response { status: 200, fields, body: body.to_vec(), whole, ended_by_close: false };
            response.check_content(&ask, true)
        };
        let mut flipped = right.clone();
        flipped[99] ^= 1;
        let (another, more) = (Key::File(3).bytes(0, 100), Key::File(2).bytes(0, 101));
        assert_eq!(check(&right, true, "100"), Ok(()));
        assert_eq!(check(&right[..40], false, "100"), Ok(()), "cut short, and known to be");
        assert!(check(&right[..40], true, "100").is_err(), "cut short, but said to be whole");
        assert!(check(&flipped, true, "100").is_err() && check(&flipped, false, "100").is_err());
        assert!(check(&another, true, "100").is_err() && check(&right[1..], false, "100").is_err());
        assert!(check(&more, false, "100").is_err() && check(&right, true, "99").is_err());
    }

    #[test]
    fn packed_contents_are_unpacked() {
        let ask = Ask { gzip: true, ..Ask::get(7, Place::File(2)) };
        let mut room = vec![0; 1000];
        let config = zlib_rs::DeflateConfig { window_bits: 31, ..zlib_rs::DeflateConfig::default() };
        let (packed, _) = zlib_rs::compress_slice(&mut room, &Key::File(2).bytes(0, 100), config);
        let check = |body: &[u8], whole: bool| {
            let fields = vec![("content-encoding".to_owned(), "gzip".to_owned())];
            let response = Response { status: 200, fields, body: body.to_vec(), whole, ended_by_close: false };
            response.check_content(&ask, true)
        };
        assert_eq!((check(packed, true), check(&packed[..50], false)), (Ok(()), Ok(())));
        assert!(check(&packed[..50], true).is_err(), "cut short, but said to be whole");
    }
}
