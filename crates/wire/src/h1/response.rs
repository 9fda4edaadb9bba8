//! The head of an upstream's response.

use std::fmt;

use super::error::Lossy;
use super::fields::{FieldsError, HeaderSpan, Line, parse_line};
use super::known::KnownHeader;
use super::request::{Parsed, contains, parse_length};
use crate::span::Span;
use crate::swar::find_control;

/// Why a response was refused; nginx answers 502. Spans are offsets in the buffer that was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// The first line isn't a status line: HTTP/0.9, or no HTTP at all.
    NoStatusLine,
    /// A header line has bytes it must not have.
    InvalidHeader {
        /// The line up to the offending byte.
        line: Span,
        /// The offending byte.
        byte: u8,
    },
    /// The head doesn't fit into its buffer.
    TooBig,
    /// A header that must be alone came twice.
    Duplicate {
        /// Name of the second.
        name: Span,
        /// Value of the second.
        value: Span,
        /// Name of the first.
        previous_name: Span,
        /// Value of the first.
        previous_value: Span,
    },
    /// Content-Length isn't a number below 2⁶³.
    InvalidContentLength {
        /// Name of the header as sent.
        name: Span,
        /// Its value.
        value: Span,
    },
    /// Both Content-Length and Transfer-Encoding.
    LengthAndEncoding,
    /// A Transfer-Encoding other than `chunked`.
    UnknownEncoding {
        /// Its value.
        value: Span,
    },
}

impl ResponseError {
    /// nginx's text for the error log, without the action; `buf` is what was parsed.
    pub fn text(self, buf: &[u8]) -> impl fmt::Display {
        ResponseErrorText { error: self, buf }
    }
}

struct ResponseErrorText<'a> {
    error: ResponseError,
    buf: &'a [u8],
}

impl fmt::Display for ResponseErrorText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |span: Span| Lossy(span.of(self.buf));
        match self.error {
            ResponseError::NoStatusLine => f.write_str("upstream sent no valid HTTP/1.0 header"),
            ResponseError::InvalidHeader { line, byte } => {
                write!(f, "upstream sent invalid header: \"{}\\x{byte:02x}...\"", text(line))
            }
            ResponseError::TooBig => f.write_str("upstream sent too big header"),
            ResponseError::Duplicate { name, value, previous_name, previous_value } => {
                write!(f, "upstream sent duplicate header line: \"{}: {}\", ", text(name), text(value))?;
                write!(f, "previous value: \"{}: {}\"", text(previous_name), text(previous_value))
            }
            ResponseError::InvalidContentLength { name, value } => {
                write!(f, "upstream sent invalid \"Content-Length\" header: \"{}: {}\"", text(name), text(value))
            }
            ResponseError::LengthAndEncoding => {
                f.write_str("upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time")
            }
            ResponseError::UnknownEncoding { value } => {
                write!(f, "upstream sent unknown \"Transfer-Encoding\": \"{}\"", text(value))
            }
        }
    }
}

/// How the body of a response is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamFraming {
    /// There is none: the status or the request's method has none.
    None,
    /// This many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Whatever comes until the connection is closed.
    UntilClose,
}

/// A response head: spans of the buffer that was parsed. Reusable: [`ResponseHead::clear`] keeps its memory.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// 1000, 1001, …: major × 1000 + minor.
    pub version: u16,
    /// The status.
    pub status: u16,
    /// The status and what follows it on the line: `200 OK`.
    pub status_line: Span,
    /// The text after the status.
    pub reason: Span,
    /// The header lines in order.
    pub headers: Vec<HeaderSpan>,
    known: u64,
}

impl ResponseHead {
    /// Back to the empty head; memory is kept.
    pub fn clear(&mut self) {
        let mut headers = std::mem::take(&mut self.headers);
        headers.clear();
        *self = ResponseHead { headers, ..ResponseHead::default() };
    }

    /// Notes which known names there are, once all lines are there.
    pub(crate) fn index(&mut self) {
        self.known = self.headers.iter().fold(0, |known, header| known | header.known.bit());
    }

    /// The first header line of a known name.
    pub fn find(&self, known: KnownHeader) -> Option<&HeaderSpan> {
        if self.known & known.bit() == 0 {
            return None;
        }
        self.headers.iter().find(|h| h.known == known)
    }

    /// Whether there is a header line of this known name.
    pub fn has(&self, known: KnownHeader) -> bool {
        self.known & known.bit() != 0
    }

    /// The value of the first header line of a known name.
    pub fn value<'b>(&self, known: KnownHeader, buf: &'b [u8]) -> Option<&'b [u8]> {
        self.find(known).map(|h| h.value.of(buf))
    }

    /// What `Content-Length` says, if there is one.
    pub fn content_length(&self, buf: &[u8]) -> Result<Option<u64>, ResponseError> {
        let Some(&HeaderSpan { name, value, .. }) = self.find(KnownHeader::ContentLength) else { return Ok(None) };
        let length = parse_length(value.of(buf)).ok_or(ResponseError::InvalidContentLength { name, value })?;
        Ok(Some(length))
    }

    /// How the body is delimited (RFC 9112 §6.3), with `to_head` for the answer to a HEAD request.
    pub fn framing(&self, buf: &[u8], to_head: bool) -> Result<UpstreamFraming, ResponseError> {
        let length = self.content_length(buf)?;
        let chunked = match self.find(KnownHeader::TransferEncoding) {
            None => false,
            Some(h) if h.value.of(buf).eq_ignore_ascii_case(b"chunked") => true,
            Some(h) => return Err(ResponseError::UnknownEncoding { value: h.value }),
        };
        if chunked && length.is_some() {
            return Err(ResponseError::LengthAndEncoding);
        }
        if to_head || matches!(self.status, 100..=199 | 204 | 304) {
            return Ok(UpstreamFraming::None);
        }
        Ok(match length {
            _ if chunked => UpstreamFraming::Chunked,
            Some(length) => UpstreamFraming::Length(length),
            None => UpstreamFraming::UntilClose,
        })
    }

    /// Whether the upstream will take another request on this connection once the body is complete.
    pub fn keep_alive(&self, buf: &[u8]) -> bool {
        let mut keep = self.version > 1000;
        if !self.has(KnownHeader::Connection) {
            return keep;
        }
        for header in self.headers.iter().filter(|h| h.known == KnownHeader::Connection) {
            match header.value.of(buf) {
                b"keep-alive" => keep = true,
                value if contains(value, b"close") => return false,
                value => keep |= contains(value, b"keep-alive"),
            }
        }
        keep
    }

    /// Appends a header line to a head that isn't parsed but made.
    pub fn push(&mut self, field: HeaderSpan) {
        self.known |= field.known.bit();
        self.headers.push(field);
    }

    fn add(&mut self, field: HeaderSpan) -> Result<(), ResponseError> {
        let known = field.known;
        if matches!(known, KnownHeader::ContentLength | KnownHeader::TransferEncoding)
            && let Some(first) = self.find(known)
        {
            let (name, value) = (field.name, field.value);
            return Err(ResponseError::Duplicate {
                name,
                value,
                previous_name: first.name,
                previous_value: first.value,
            });
        }
        self.push(field);
        Ok(())
    }
}

/// Reads response heads, one after the other.
#[derive(Clone, Debug, Default)]
pub struct ResponseParser {
    in_fields: bool,
    line_start: usize,
}

impl ResponseParser {
    /// For heads without a status line, as CGI has them (RFC 3875 §6).
    pub fn of_fields() -> ResponseParser {
        ResponseParser { in_fields: true, line_start: 0 }
    }

    /// Ready for the next head, for instance after a 1xx.
    pub fn reset(&mut self) {
        *self = ResponseParser::default();
    }

    /// Goes on parsing `buf`, which begins with the same bytes as at the last call since [`ResponseParser::reset`].
    ///
    /// `max` bounds the head (`proxy_buffer_size`). After an error the parser must be reset.
    pub fn parse(&mut self, buf: &[u8], max: usize, head: &mut ResponseHead) -> Result<Parsed, ResponseError> {
        let seen = buf.get(..max).unwrap_or(buf);
        let parsed = self.parse_seen(seen, head)?;
        if parsed == Parsed::Incomplete && buf.len() >= max {
            return Err(ResponseError::TooBig);
        }
        Ok(parsed)
    }

    fn parse_seen(&mut self, buf: &[u8], head: &mut ResponseHead) -> Result<Parsed, ResponseError> {
        if !self.in_fields {
            let Some(next) = status_line(buf, head)? else { return Ok(Parsed::Incomplete) };
            self.line_start = next;
            self.in_fields = true;
        }
        loop {
            if buf.get(self.line_start) == Some(&b'H')
                && let Some(rest) = buf.get(self.line_start..).filter(|rest| rest.starts_with(b"HTTP/"))
            {
                // Some servers send a second status line; like nginx, any is passed over.
                let Some(end) = memchr::memchr(b'\n', rest) else { return Ok(Parsed::Incomplete) };
                self.line_start += end + 1;
                continue;
            }
            match parse_line(buf, self.line_start, true).map_err(invalid)? {
                Line::Partial => return Ok(Parsed::Incomplete),
                Line::End(next) => return Ok(Parsed::Complete(next)),
                Line::Field(field, next) => {
                    head.add(field)?;
                    self.line_start = next;
                }
            }
        }
    }
}

fn invalid(error: FieldsError) -> ResponseError {
    match error {
        FieldsError::Invalid { line, byte } => ResponseError::InvalidHeader { line, byte },
        FieldsError::TooMany | FieldsError::Incomplete => ResponseError::TooBig,
    }
}

/// `HTTP/1.1 200 OK`: offset after its LF; `None` if that hasn't come.
fn status_line(buf: &[u8], head: &mut ResponseHead) -> Result<Option<usize>, ResponseError> {
    let found = match usual_status(buf) {
        Some((minor, status)) => Some((1000 + minor, status, USUAL_STATUS)),
        None => odd_status(buf)?,
    };
    let Some((version, status, from)) = found else { return Ok(None) };
    let after = from + 3;
    let mut text_end = after;
    let next = loop {
        let Some(stop) = find_control(buf, text_end) else { return Ok(None) };
        text_end = stop;
        match (buf.get(stop), buf.get(stop + 1)) {
            (Some(b'\n'), _) => break stop + 1,
            (Some(b'\r'), Some(b'\n')) => break stop + 2,
            (Some(b'\r'), None) => return Ok(None),
            (Some(b'\r'), _) => return Err(ResponseError::NoStatusLine),
            _ => text_end = stop + 1,
        }
    };
    head.version = version;
    head.status = status;
    head.status_line = Span::new(from, text_end);
    head.reason = Span::new(text_end.min(after + 1), text_end);
    Ok(Some(next))
}

/// Where the status of a line that begins with `HTTP/1.1 ` stands.
const USUAL_STATUS: usize = 9;

/// The minor version and the status of a line written as nearly all are.
#[inline]
fn usual_status(buf: &[u8]) -> Option<(u16, u16)> {
    let [start @ .., minor @ b'0'..=b'9', b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ' | b'\r'] =
        buf.first_chunk::<13>()?
    else {
        return None;
    };
    if start != b"HTTP/1." {
        return None;
    }
    let value = |digit: &u8| u16::from(digit - b'0');
    Some((value(minor), value(a) * 100 + value(b) * 10 + value(c)))
}

/// The version, the status, and where that stands, of any status line; `None` if it isn't complete.
#[cold]
fn odd_status(buf: &[u8]) -> Result<Option<(u16, u16, usize)>, ResponseError> {
    let mut cursor = Cursor { buf, at: 0 };
    let Some(()) = cursor.literal(b"HTTP/")? else { return Ok(None) };
    if buf.get(cursor.at) == Some(&b'0') {
        return Err(ResponseError::NoStatusLine);
    }
    let Some(major) = cursor.digits(b".")? else { return Ok(None) };
    let Some(minor) = cursor.digits(b" ")? else { return Ok(None) };
    cursor.skip_spaces();
    let from = cursor.at;
    let Some(status) = cursor.digits(b" .\r\n")? else { return Ok(None) };
    if cursor.at - 1 != from + 3 || !(100..=999).contains(&status) {
        return Err(ResponseError::NoStatusLine);
    }
    Ok(Some((major.saturating_mul(1000).saturating_add(minor), status, from)))
}

struct Cursor<'a> {
    buf: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn literal(&mut self, text: &[u8]) -> Result<Option<()>, ResponseError> {
        for &expect in text {
            match self.buf.get(self.at) {
                None => return Ok(None),
                Some(&byte) if byte == expect => self.at += 1,
                Some(_) => return Err(ResponseError::NoStatusLine),
            }
        }
        Ok(Some(()))
    }

    /// One to three digits and one of `ends`, which is stepped over.
    fn digits(&mut self, ends: &[u8]) -> Result<Option<u16>, ResponseError> {
        let (mut value, mut count) = (0, 0);
        loop {
            match self.buf.get(self.at) {
                None => return Ok(None),
                Some(&byte @ b'0'..=b'9') if count < 3 => value = value * 10 + u16::from(byte - b'0'),
                Some(byte) if count > 0 && ends.contains(byte) => {
                    self.at += 1;
                    return Ok(Some(value));
                }
                Some(_) => return Err(ResponseError::NoStatusLine),
            }
            self.at += 1;
            count += 1;
        }
    }

    fn skip_spaces(&mut self) {
        while self.buf.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
    }
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
