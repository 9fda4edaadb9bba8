//! Heads of messages: pseudo-headers, fields, and whether they are valid (RFC 9113 §8.2, §8.3).
//!
//! A request that isn't valid is still handed over, with what is wrong with it: nginx answers it with 400 and logs it. A
//! response or trailers that aren't valid end their stream instead.

use std::fmt;

use buf::Buf;

use crate::class::{NAME, NAME_BAD, is};
use crate::h1::{HeaderSpan, KnownHeader};
use crate::hpack::Field;
use crate::span::Span;

/// The head of a request or response, or trailers. Spans are offsets in `text`.
#[derive(Debug)]
pub struct Head {
    /// All names and values, one behind the other.
    pub text: Buf,
    /// `:method`.
    pub method: Option<Span>,
    /// `:scheme`.
    pub scheme: Option<Span>,
    /// `:authority`.
    pub authority: Option<Span>,
    /// `:path`, with arguments: nginx's `$request_uri`.
    pub path: Option<Span>,
    /// `:protocol` of an extended CONNECT (RFC 8441).
    pub protocol: Option<Span>,
    /// `:status` of a response.
    pub status: u16,
    /// The fields that aren't pseudo-headers, in their order; cookie crumbs are not joined. Names are in lower case;
    /// [`HeaderSpan::invalid`] marks those with bytes other than letters, digits and `-`. Spaces around values are cut.
    pub fields: Vec<HeaderSpan>,
    /// How many bytes of header block it came in.
    pub encoded: u64,
    /// The length that the body shall have.
    pub content_length: Option<u64>,
    /// What is wrong with it: the first fault found.
    pub error: Option<HeadError>,
    has_status: bool,
}

/// What may be wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// A name is empty, or has capitals, spaces, controls or a colon.
    InvalidName(Span),
    /// A value has NUL, CR or LF; the span is the name.
    InvalidValue(Span),
    /// A pseudo-header that doesn't exist, or not in this kind of head.
    UnknownPseudo(Span),
    /// `:protocol` where extended CONNECT isn't offered, or with another method.
    UnexpectedProtocol,
    /// A pseudo-header came twice.
    DuplicatePseudo(Span),
    /// A pseudo-header came behind a field.
    LatePseudo(Span),
    /// A pseudo-header is missing: its name.
    MissingPseudo(&'static str),
    /// A pseudo-header is empty: its name.
    EmptyPseudo(&'static str),
    /// A field that belongs to HTTP/1 connections: Connection and kin, or TE other than "trailers".
    ConnectionSpecific(Span),
    /// More fields than allowed.
    TooManyFields,
    /// Content-Length isn't a number below 2⁶³, or came twice.
    InvalidContentLength,
    /// Content-Length promises a body, and the stream ends with the head.
    MissingBody,
    /// `:status` isn't a number of three digits.
    InvalidStatus,
}

impl HeadError {
    /// nginx's words, behind "client sent"; `text` is [`Head::text`].
    pub fn text(self, text: &[u8]) -> impl fmt::Display {
        HeadErrorText { error: self, text }
    }
}

/// What a header block is the head of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadKind {
    Request,
    Response,
    Trailers,
}

impl Default for Head {
    fn default() -> Head {
        Head {
            text: Buf::empty(),
            method: None,
            scheme: None,
            authority: None,
            path: None,
            protocol: None,
            status: 0,
            fields: Vec::new(),
            encoded: 0,
            content_length: None,
            error: None,
            has_status: false,
        }
    }
}

impl Head {
    /// Back to the empty head; memory is kept.
    pub fn clear(&mut self) {
        let (mut text, mut fields) =
            (std::mem::replace(&mut self.text, Buf::empty()), std::mem::take(&mut self.fields));
        text.clear();
        fields.clear();
        *self = Head { text, fields, ..Head::default() };
    }

    /// The value of the first field of a known name.
    pub fn value(&self, known: KnownHeader) -> Option<&[u8]> {
        self.fields.iter().find(|field| field.known == known).map(|field| field.value.of(&self.text))
    }

    /// nginx's words for [`Head::error`], behind "client sent".
    pub fn error_text(&self) -> Option<impl fmt::Display + '_> {
        self.error.map(|error| error.text(&self.text))
    }

    /// Takes in the next field that was decoded into `text`.
    pub(super) fn push(&mut self, field: Field, kind: HeadKind, max_fields: usize) {
        let name = field.name.of(&self.text);
        if name.first() == Some(&b':') {
            return self.pseudo(field, kind);
        }
        let Some(invalid) = name_is_unusual(name) else {
            return self.fault(HeadError::InvalidName(field.name));
        };
        if memchr::memchr3(0, b'\r', b'\n', field.value.of(&self.text)).is_some() {
            return self.fault(HeadError::InvalidValue(field.name));
        }
        if self.fields.len() >= max_fields {
            return self.fault(HeadError::TooManyFields);
        }
        let known = KnownHeader::of(name);
        let value = trim(field.value, &self.text);
        self.meaning(known, field.name, value);
        self.fields.push(HeaderSpan { name: field.name, value, known, invalid });
    }

    /// Checks what can be checked when all fields are there.
    pub(super) fn finish(&mut self, kind: HeadKind, end_stream: bool, extended_connect: bool) {
        match kind {
            HeadKind::Trailers => {}
            HeadKind::Response if !self.has_status => self.fault(HeadError::MissingPseudo(":status")),
            HeadKind::Response => {}
            HeadKind::Request => self.finish_request(end_stream, extended_connect),
        }
    }

    fn finish_request(&mut self, end_stream: bool, extended_connect: bool) {
        let connect = self.method.is_some_and(|method| method.of(&self.text) == b"CONNECT");
        // A plain CONNECT has neither scheme nor path, and nginx answers it with 405 whatever it has.
        let lenient = connect && self.protocol.is_none();
        let required =
            [(":method", self.method, false), (":scheme", self.scheme, lenient), (":path", self.path, lenient)];
        for (name, value, lenient) in required {
            match value {
                None if !lenient => self.fault(HeadError::MissingPseudo(name)),
                Some(value) if value.is_empty() => self.fault(HeadError::EmptyPseudo(name)),
                _ => {}
            }
        }
        if self.protocol.is_some() && !(connect && extended_connect) {
            self.fault(HeadError::UnexpectedProtocol);
        }
        // What comes behind it is no content (RFC 9110 §9.3.6): a length of it has no meaning.
        if connect && self.protocol.is_some() && self.content_length.is_some() {
            self.fault(HeadError::InvalidContentLength);
        }
        if end_stream && self.content_length.is_some_and(|length| length > 0) {
            self.fault(HeadError::MissingBody);
        }
    }

    fn pseudo(&mut self, field: Field, kind: HeadKind) {
        let late = !self.fields.is_empty();
        let (name, value) = (field.name.of(&self.text), field.value.of(&self.text));
        let bad_value = memchr::memchr3(0, b'\r', b'\n', value).is_some();
        let place = match (kind, name) {
            (HeadKind::Request, b":method") => &mut self.method,
            (HeadKind::Request, b":scheme") => &mut self.scheme,
            (HeadKind::Request, b":authority") => &mut self.authority,
            (HeadKind::Request, b":path") => &mut self.path,
            (HeadKind::Request, b":protocol") => &mut self.protocol,
            (HeadKind::Response, b":status") => return self.set_status(field),
            _ => return self.fault(HeadError::UnknownPseudo(field.name)),
        };
        let duplicate = place.is_some();
        if !duplicate {
            *place = Some(field.value);
        }
        match () {
            () if duplicate => self.fault(HeadError::DuplicatePseudo(field.name)),
            () if bad_value => self.fault(HeadError::InvalidValue(field.name)),
            () if late => self.fault(HeadError::LatePseudo(field.name)),
            () => {}
        }
    }

    fn set_status(&mut self, field: Field) {
        if std::mem::replace(&mut self.has_status, true) {
            return self.fault(HeadError::DuplicatePseudo(field.name));
        }
        match *field.value.of(&self.text) {
            [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
                self.status = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
            }
            _ => self.fault(HeadError::InvalidStatus),
        }
    }

    /// The rules for single names.
    fn meaning(&mut self, known: KnownHeader, name: Span, value: Span) {
        match known {
            KnownHeader::Connection
            | KnownHeader::KeepAlive
            | KnownHeader::ProxyConnection
            | KnownHeader::TransferEncoding
            | KnownHeader::Upgrade => self.fault(HeadError::ConnectionSpecific(name)),
            KnownHeader::Te if !value.of(&self.text).eq_ignore_ascii_case(b"trailers") => {
                self.fault(HeadError::ConnectionSpecific(name));
            }
            KnownHeader::ContentLength => match length(value.of(&self.text)) {
                Some(length) if self.content_length.is_none() => self.content_length = Some(length),
                _ => self.fault(HeadError::InvalidContentLength),
            },
            _ => {}
        }
    }

    fn fault(&mut self, error: HeadError) {
        self.error.get_or_insert(error);
    }
}

/// Whether a name has unusual bytes; `None` if it has forbidden ones (RFC 9113 §8.2.1).
fn name_is_unusual(name: &[u8]) -> Option<bool> {
    let seen = name.iter().fold(0, |seen, &byte| seen | NAME_BYTES[usize::from(byte)]);
    if name.is_empty() || seen & FORBIDDEN != 0 { None } else { Some(seen != 0) }
}

/// What each byte is in a name: 0 for small letters, digits and `-`.
static NAME_BYTES: [u8; 256] = name_bytes();
const UNUSUAL: u8 = 1;
const FORBIDDEN: u8 = 2;

const fn name_bytes() -> [u8; 256] {
    let (mut table, mut i) = ([UNUSUAL; 256], 0);
    while i < 256 {
        let byte = i as u8;
        if is(byte, NAME_BAD) || byte.is_ascii_uppercase() || byte == b':' {
            table[i] = FORBIDDEN;
        } else if is(byte, NAME) {
            table[i] = 0;
        }
        i += 1;
    }
    table
}

/// `value` without the spaces and tabs around it.
fn trim(value: Span, text: &[u8]) -> Span {
    let bytes = value.of(text);
    let start = bytes.iter().take_while(|&&b| b == b' ' || b == b'\t').count();
    let end = bytes.iter().rev().take_while(|&&b| b == b' ' || b == b'\t').count();
    if start == 0 && end == 0 {
        return value;
    }
    let from = value.start as usize;
    Span::new(from + start, (from + start).max(from + bytes.len() - end))
}

fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    Some(length).filter(|&length| length <= i64::MAX as u64)
}

struct HeadErrorText<'a> {
    error: HeadError,
    text: &'a [u8],
}

impl fmt::Display for HeadErrorText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |span: Span| buf::text::encode(span.of(self.text)).into_owned();
        match self.error {
            HeadError::InvalidName(name) => write!(f, "invalid header name: \"{}\"", text(name)),
            HeadError::InvalidValue(name) => write!(f, "header \"{}\" with invalid value", text(name)),
            HeadError::UnknownPseudo(name) => write!(f, "unknown pseudo-header \"{}\"", text(name)),
            HeadError::UnexpectedProtocol => f.write_str("unknown pseudo-header \":protocol\""),
            HeadError::DuplicatePseudo(name) => write!(f, "duplicate {} header", text(name)),
            HeadError::LatePseudo(name) => write!(f, "pseudo-header \"{}\" behind a header", text(name)),
            HeadError::MissingPseudo(name) => write!(f, "no {name} header"),
            HeadError::EmptyPseudo(name) => write!(f, "empty {name} header"),
            HeadError::ConnectionSpecific(name) => write!(f, "connection-specific header \"{}\"", text(name)),
            HeadError::TooManyFields => f.write_str("too many header lines"),
            HeadError::InvalidContentLength => f.write_str("invalid \"Content-Length\" header"),
            HeadError::MissingBody => f.write_str("\"Content-Length\" without a body"),
            HeadError::InvalidStatus => f.write_str("invalid :status header"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 4;

    fn head(kind: HeadKind, end_stream: bool, fields: &[(&str, &str)]) -> Head {
        let mut head = Head::default();
        for (name, value) in fields {
            let start = head.text.len();
            head.text.extend_from_slice(name.as_bytes());
            head.text.extend_from_slice(value.as_bytes());
            let middle = start + name.len();
            let (name, value) = (Span::new(start, middle), Span::new(middle, head.text.len()));
            head.push(Field { name, value, never_indexed: false }, kind, MAX);
        }
        head.finish(kind, end_stream, true);
        head
    }

    fn request_error(more: &[(&str, &str)]) -> String {
        let mut fields = vec![(":method", "GET"), (":scheme", "http"), (":path", "/")];
        fields.extend_from_slice(more);
        let head = head(HeadKind::Request, true, &fields);
        head.error_text().map_or(String::new(), |text| text.to_string())
    }

    #[test]
    fn requests() {
        for (more, expected) in [
            (&[][..], ""),
            (&[(":authority", "a"), ("x_y", "1"), ("x-\u{e9}", "1")], ""),
            (&[("X", "y")], "invalid header name: \"X\""),
            (&[("", "y")], "invalid header name: \"\""),
            (&[("x:y", "y")], "invalid header name: \"x:y\""),
            (&[("x y", "y")], "invalid header name: \"x y\""),
            (&[("x\u{2}", "y")], "invalid header name: \"x\u{2}\""),
            (&[("x", "a\r\nb: c")], "header \"x\" with invalid value"),
            (&[("x", "a\0")], "header \"x\" with invalid value"),
            (&[(":authority", "a\n")], "header \":authority\" with invalid value"),
            (&[(":foo", "y")], "unknown pseudo-header \":foo\""),
            (&[(":status", "200")], "unknown pseudo-header \":status\""),
            (&[(":protocol", "websocket")], "unknown pseudo-header \":protocol\""),
            (&[(":path", "/")], "duplicate :path header"),
            (&[("a", "b"), (":authority", "a")], "pseudo-header \":authority\" behind a header"),
            (&[("connection", "close")], "connection-specific header \"connection\""),
            (&[("transfer-encoding", "chunked")], "connection-specific header \"transfer-encoding\""),
            (&[("te", "gzip")], "connection-specific header \"te\""),
            (&[("te", "trailers")], ""),
            (&[("a", ""), ("a", ""), ("a", ""), ("a", "")], ""),
            (&[("a", ""), ("a", ""), ("a", ""), ("a", ""), ("a", "")], "too many header lines"),
            (&[("content-length", "0")], ""),
            (&[("content-length", "5")], "\"Content-Length\" without a body"),
            (&[("content-length", "+5")], "invalid \"Content-Length\" header"),
            (&[("content-length", "9223372036854775808")], "invalid \"Content-Length\" header"),
            (&[("content-length", "0"), ("content-length", "0")], "invalid \"Content-Length\" header"),
        ] {
            assert_eq!(request_error(more), expected, "{more:?}");
        }
    }

    #[test]
    fn what_must_be_there() {
        for (fields, expected) in [
            (&[(":scheme", "http"), (":path", "/")][..], Some(HeadError::MissingPseudo(":method"))),
            (&[(":method", "GET"), (":path", "/")], Some(HeadError::MissingPseudo(":scheme"))),
            (&[(":method", "GET"), (":scheme", "http")], Some(HeadError::MissingPseudo(":path"))),
            (&[(":method", "GET"), (":scheme", "http"), (":path", "")], Some(HeadError::EmptyPseudo(":path"))),
            (&[(":method", ""), (":scheme", "http"), (":path", "/")], Some(HeadError::EmptyPseudo(":method"))),
            (&[(":method", "CONNECT"), (":authority", "a:1")], None),
            (&[(":method", "CONNECT"), (":scheme", "http"), (":path", "/")], None),
            (&[(":method", "CONNECT"), (":protocol", "websocket")], Some(HeadError::MissingPseudo(":scheme"))),
            (&[(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/")], None),
            (
                &[
                    (":method", "CONNECT"),
                    (":protocol", "websocket"),
                    (":scheme", "http"),
                    (":path", "/"),
                    ("content-length", "0"),
                ],
                Some(HeadError::InvalidContentLength),
            ),
        ] {
            assert_eq!(head(HeadKind::Request, false, fields).error, expected, "{fields:?}");
        }
    }

    #[test]
    fn responses_and_trailers() {
        for (kind, fields, status, good) in [
            (HeadKind::Response, &[(":status", "204"), ("a", "b")][..], 204, true),
            (HeadKind::Response, &[("a", "b")], 0, false),
            (HeadKind::Response, &[(":status", "2x4")], 0, false),
            (HeadKind::Response, &[(":status", "200"), (":status", "200")], 200, false),
            (HeadKind::Response, &[(":path", "/")], 0, false),
            (HeadKind::Trailers, &[("a", "b")], 0, true),
            (HeadKind::Trailers, &[(":status", "200")], 0, false),
        ] {
            let head = head(kind, false, fields);
            assert_eq!((head.status, head.error.is_none()), (status, good), "{fields:?}");
        }
    }

    #[test]
    fn spaces_around_values_go() {
        for (value, expected) in [(" a b\t", "a b"), ("", ""), ("  ", ""), ("a", "a")] {
            let head = head(HeadKind::Trailers, true, &[("cookie", value)]);
            assert_eq!(head.value(KnownHeader::Cookie), Some(expected.as_bytes()));
        }
    }
}
