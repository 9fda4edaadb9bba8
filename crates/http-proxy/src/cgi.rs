//! Responses of CGI (RFC 3875 §6), as applications behind FastCGI, uwsgi and SCGI give them: fields, the status among them,
//! an empty line, the body.
//!
//! [`Cgi`] reads one that has its connection for itself, as with uwsgi and SCGI: it may begin with a status line of HTTP,
//! and a body without a length ends with the connection.

use std::borrow::Cow;

use buf::{Buf, Bytes, Chain};
use wire::h1::{KnownHeader, Parsed, ResponseError, ResponseHead, ResponseParser};

use crate::protocol::{BodyEvent, Codec, End, Head, HeadEvent, Kept, ProtocolError};

/// Fields of responses that clients don't get.
pub(crate) const HIDDEN: &[&str] =
    &["Status", "X-Accel-Expires", "X-Accel-Redirect", "X-Accel-Limit-Rate", "X-Accel-Buffering", "X-Accel-Charset"];

/// Ends a complete head: sets the status, unless a status line has, and says how long the body is, if that is known.
pub(crate) fn finish_head(head: &mut ResponseHead, bytes: &[u8]) -> Result<Option<u64>, ProtocolError> {
    let fault = |error: ResponseError| ProtocolError::invalid(error.text(bytes).to_string());
    let length = head.content_length(bytes).map_err(fault)?;
    if length.is_some() && head.has(KnownHeader::TransferEncoding) {
        return Err(fault(ResponseError::LengthAndEncoding));
    }
    if head.status == 0 {
        set_status(head, bytes)?;
    }
    Ok(length)
}

/// `Status`, or what the other fields mean.
fn set_status(head: &mut ResponseHead, bytes: &[u8]) -> Result<(), ProtocolError> {
    let Some(field) = head.find(KnownHeader::Status) else {
        head.status = if head.has(KnownHeader::Location) { 302 } else { 200 };
        return Ok(());
    };
    let span = field.value;
    let value = span.of(bytes);
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let status = value.get(..digits).and_then(buf::parse::parse_number).and_then(|status| u16::try_from(status).ok());
    let Some(status) = status.filter(|status| digits == 3 && *status >= 100) else {
        return Err(invalid_status(value));
    };
    head.status = status;
    if value.len() > digits {
        head.status_line = span;
    }
    Ok(())
}

/// The fault of a head whose status isn't a final one.
pub(crate) fn unfinished(head: &ResponseHead, bytes: &[u8]) -> ProtocolError {
    let line = head.status_line.of(bytes);
    if line.is_empty() { invalid_status(head.status.to_string().as_bytes()) } else { invalid_status(line) }
}

fn invalid_status(value: &[u8]) -> ProtocolError {
    ProtocolError::invalid(format!("upstream sent invalid status \"{}\"", buf::text::encode(value)))
}

/// What is left of a body whose head says this: none after some statuses.
pub(crate) fn left(head: &ResponseHead, length: Option<u64>) -> Option<u64> {
    if matches!(head.status, 101 | 204 | 304) { Some(0) } else { length }
}

/// Takes what belongs to the body off the front of `input`.
pub(crate) fn take_body(left: &mut Option<u64>, input: &mut Bytes) -> Bytes {
    let Some(left) = left else { return std::mem::take(input) };
    let n = (*left).min(input.len() as u64);
    *left -= n;
    let part = input.slice(0..n as usize);
    input.advance(n as usize);
    part
}

/// The state machine of an exchange.
pub(crate) struct Cgi {
    /// The largest head, in bytes.
    max_head: usize,
    to_head: bool,
    parser: ResponseParser,
    /// What came while the head isn't complete.
    gathered: Option<Buf>,
    in_body: bool,
    /// What came after the head and isn't used.
    input: Bytes,
    /// How many bytes of the body are still to come, if that is known.
    left: Option<u64>,
    over: bool,
}

impl Cgi {
    /// The codec of an exchange; `to_head`: the client wants the head alone.
    pub(crate) fn new(max_head: usize, to_head: bool) -> Cgi {
        Cgi {
            max_head,
            to_head,
            parser: ResponseParser::default(),
            gathered: None,
            in_body: false,
            input: Bytes::default(),
            left: None,
            over: false,
        }
    }

    fn parse_head(&mut self, (bytes, parts): &mut Head) -> Result<HeadEvent, ProtocolError> {
        let Some(data) = &self.gathered else { return Ok(HeadEvent::More) };
        let mut parsed = self.parser.parse(data, self.max_head, parts);
        if matches!(parsed, Err(ResponseError::NoStatusLine)) {
            parts.clear();
            self.parser = ResponseParser::of_fields();
            parsed = self.parser.parse(data, self.max_head, parts);
        }
        let used = match parsed.map_err(|error| ProtocolError::invalid(error.text(data).to_string()))? {
            Parsed::Incomplete => return Ok(HeadEvent::More),
            Parsed::Complete(used) => used,
        };
        let data = self.gathered.take().map(Buf::freeze).unwrap_or_default();
        // The fields are those of CGI, whatever the first line says.
        parts.version = 0;
        let length = finish_head(parts, &data)?;
        // The switch to another protocol is the one of them that ends a head for the client.
        if parts.status < 200 && parts.status != 101 {
            return Err(unfinished(parts, &data));
        }
        self.left = left(parts, length);
        self.over = self.to_head;
        self.in_body = true;
        *bytes = data.slice(0..used);
        self.input = data;
        self.input.advance(used);
        Ok(HeadEvent::Done(length))
    }
}

impl Codec for Cgi {
    fn head<'r>(&mut self, request: &'r [u8], _alone: bool) -> Cow<'r, [u8]> {
        request.into()
    }

    fn body(&mut self, mut part: Chain, _last: bool, out: &mut Chain) {
        out.append(&mut part);
    }

    fn receive(&mut self, input: Buf) {
        match &mut self.gathered {
            _ if self.in_body => self.input = input.freeze(),
            Some(gathered) => gathered.extend_from_slice(&input),
            None => self.gathered = Some(input),
        }
    }

    fn read_head(&mut self, head: &mut Head) -> Result<HeadEvent, ProtocolError> {
        self.parse_head(head)
    }

    fn read_body(&mut self) -> Result<BodyEvent, ProtocolError> {
        if self.over {
            return Ok(BodyEvent::End(End { keep: false, extra: false }));
        }
        let part = take_body(&mut self.left, &mut self.input);
        Ok(match self.left {
            _ if !part.is_empty() => BodyEvent::Body(part),
            Some(0) => BodyEvent::End(End { keep: false, extra: !self.input.is_empty() }),
            _ => BodyEvent::More,
        })
    }

    fn receive_end(&mut self) -> Result<(), ProtocolError> {
        if !self.in_body || self.left.is_some_and(|left| left > 0) {
            return Err(ProtocolError::closed());
        }
        self.over = true;
        Ok(())
    }

    fn wants(&self) -> Option<u64> {
        self.left
    }

    fn take_rest(&mut self) -> Bytes {
        std::mem::take(&mut self.input)
    }

    fn keep(self: Box<Self>) -> Option<Kept> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec_tests;

    /// What a response means, as text; it comes in pieces of `size` bytes.
    fn events(input: &[u8], size: usize, to_head: bool) -> String {
        let head = |(bytes, parts): &Head, length| {
            let line = String::from_utf8_lossy(parts.status_line.of(bytes)).into_owned();
            format!("{} [{line}] {} {length:?}", parts.status, parts.headers.len())
        };
        codec_tests::events(&mut Cgi::new(100, to_head), input, size, head, |_| "end".to_owned())
    }

    #[test]
    fn responses_however_they_are_cut() {
        const CLOSED: &str = "ShortResponse upstream prematurely closed connection";
        for (input, expect) in [
            ("A: b\r\n\r\nhello", "200 [] 1 None hello end"),
            ("A: b\n\nhello", "200 [] 1 None hello end"),
            ("HTTP/1.1 201 Made\r\nA: b\r\n\r\nhello", "201 [201 Made] 1 None hello end"),
            ("HTTP/1.1 200 OK\r\nStatus: 404 X\r\n\r\n", "200 [200 OK] 1 None  end"),
            ("HTTP/1.1 200 OK\r\nLocation: /x\r\n\r\n", "200 [200 OK] 1 None  end"),
            ("Status: 404 Not\r\n\r\nhello", "404 [404 Not] 1 None hello end"),
            ("Status: 404x\r\n\r\n", "404 [404x] 1 None  end"),
            ("Status: 404\r\n\r\n", "404 [] 1 None  end"),
            ("Location: /x\r\n\r\n", "302 [] 1 None  end"),
            ("\r\nhello", "200 [] 0 None hello end"),
            ("HTTP/1.x 200 OK\r\nA: b\r\n\r\nhello", "200 [] 1 None hello end"),
            ("HTTP-X: b\r\n\r\nhello", "200 [] 1 None hello end"),
            ("HTTP/1.1 101 Sw\r\nUpgrade: x\r\n\r\nhello", "101 [101 Sw] 1 None  end"),
            ("HTTP/1.1 103 Early\r\n\r\n", "InvalidResponse upstream sent invalid status \"103 Early\""),
            ("Content-Length: 5\r\n\r\nhello, world", "200 [] 1 Some(5) hello end"),
            ("Status: 204 No\r\nContent-Length: 5\r\n\r\nhello", "204 [204 No] 2 Some(5)  end"),
            ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "200 [] 1 None 0\r\n\r\n end"),
            ("Content-Length: 9\r\n\r\nhello", &format!("200 [] 1 Some(9) hello {CLOSED}")),
            ("A: b\r\n", CLOSED),
            ("HTTP/1.1 200", CLOSED),
            ("", CLOSED),
            ("Status: xx\r\n\r\n", "InvalidResponse upstream sent invalid status \"xx\""),
            ("Status: 99 x\r\n\r\n", "InvalidResponse upstream sent invalid status \"99 x\""),
            ("Status: 1000 x\r\n\r\n", "InvalidResponse upstream sent invalid status \"1000 x\""),
            ("A b\r\n\r\n", "InvalidResponse upstream sent invalid header: \"A\\x20...\""),
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                "InvalidResponse upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time",
            ),
            (&format!("A: {}\r\n\r\n", "x".repeat(200)), "InvalidResponse upstream sent too big header"),
        ] {
            for size in 1..=input.len().max(1) {
                assert_eq!(events(input.as_bytes(), size, false), expect, "{input:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_head_alone() {
        assert_eq!(events(b"Content-Length: 9\r\n\r\nhello", 40, true), "200 [] 1 Some(9)  end");
    }

    #[test]
    fn more_than_was_announced() {
        let mut codec = Cgi::new(100, false);
        let mut buf = Buf::empty();
        buf.extend_from_slice(b"Content-Length: 2\r\n\r\nhello");
        codec.receive(buf);
        assert!(matches!(codec.read_head(&mut Head::default()), Ok(HeadEvent::Done(Some(2)))));
        assert!(matches!(codec.read_body(), Ok(BodyEvent::Body(part)) if &part[..] == b"he"));
        assert!(matches!(codec.read_body(), Ok(BodyEvent::End(End { keep: false, extra: true }))));
    }
}
