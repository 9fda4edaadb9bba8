//! Heads of messages: pseudo-headers, fields, and whether they are valid (RFC 9113 §8.2, §8.3).
//!
//! A request that isn't valid is still handed over, with what is wrong with it: it is answered and logged. A
//! response or trailers that aren't valid end their stream instead.
//!
//! Fields are looked at in the order in which they come, and nothing is taken in after the first that is wrong: so the log
//! has what was known by then, as nginx's has.

use std::fmt;

use buf::Buf;

use crate::h1::{HeaderSpan, KnownHeader};
use crate::hpack::traits::{name_is_unusual, pseudo_is_sound, value_is_bad};
use crate::hpack::{Field, Traits};
use crate::span::Span;

/// The head of a request or response, or trailers. Spans are offsets in `text`.
#[derive(Debug)]
pub struct Head {
    /// All names and values, one after the other.
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
    /// [`HeaderSpan::invalid`] marks those with bytes other than letters, digits and `-`. Values are as they were sent, with
    /// spaces around them.
    pub fields: Vec<HeaderSpan>,
    /// How many bytes of header block it came in.
    pub encoded: u64,
    /// The length that the body shall have.
    pub content_length: Option<u64>,
    /// What is wrong with it: the first fault found.
    pub error: Option<HeadError>,
    has_status: bool,
    /// How many of `fields` are crumbs of cookies, which become one.
    crumbs: usize,
}

/// What may be wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// A name has capitals, spaces, controls or a colon.
    InvalidName(Span),
    /// A value has NUL, CR or LF.
    InvalidValue {
        /// Whose.
        name: Span,
        /// The value.
        value: Span,
    },
    /// A pseudo-header that doesn't exist, or not in this kind of head.
    UnknownPseudo(Span),
    /// `:protocol` where extended CONNECT isn't offered, or with another method.
    UnexpectedProtocol,
    /// A pseudo-header came twice.
    DuplicatePseudo(Span),
    /// A pseudo-header came after a field.
    LatePseudo,
    /// A pseudo-header is missing: its name.
    MissingPseudo(&'static str),
    /// A pseudo-header is empty.
    EmptyPseudo(Span),
    /// `:method` has other bytes than a method may have.
    InvalidMethod(Span),
    /// `:scheme` isn't one (RFC 3986 §3.1).
    InvalidScheme(Span),
    /// `:path` isn't a path: it begins otherwise than with `/`, or has spaces or controls.
    InvalidPath(Span),
    /// `:authority` isn't a host with or without a port.
    InvalidAuthority,
    /// A field that belongs to HTTP/1 connections: its name.
    ConnectionSpecific(&'static str),
    /// TE is something else than "trailers".
    InvalidTe,
    /// More fields than allowed.
    TooManyFields,
    /// Content-Length isn't a number below 2⁶³, or came twice.
    InvalidContentLength,
    /// Content-Length promises a body, and the stream ends with the head.
    MissingBody,
    /// `:status` isn't a number of three digits.
    InvalidStatus(Span),
}

impl HeadError {
    /// nginx's words, from "client" on; `text` is [`Head::text`].
    pub fn text(self, text: &[u8]) -> impl fmt::Display {
        HeadErrorText { error: self, text }
    }

    /// It was found when all fields were there, and is about one of them or what is missing.
    pub(super) fn is_of_the_whole(self) -> bool {
        matches!(
            self,
            HeadError::ConnectionSpecific(_)
                | HeadError::InvalidTe
                | HeadError::InvalidContentLength
                | HeadError::MissingBody
        )
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
            crumbs: 0,
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

    /// nginx's words for [`Head::error`].
    pub fn error_text(&self) -> Option<impl fmt::Display + '_> {
        self.error.map(|error| error.text(&self.text))
    }

    /// Whether the request line is known: fields came after the pseudo-headers, or could have.
    pub(super) fn has_line(&self) -> bool {
        !self.fields.is_empty() || self.error.is_none_or(HeadError::is_of_the_whole)
    }

    /// Takes in the next field that was decoded into `text`. Its name isn't empty.
    pub(super) fn push(&mut self, field: Field, kind: HeadKind, max_fields: usize) {
        if self.error.is_some() {
            return;
        }
        let Traits { unusual: invalid, known, .. } = match self.traits(field) {
            Ok(traits) => traits,
            Err(error) => return self.fault(error),
        };
        if field.name.of(&self.text).first() == Some(&b':') {
            return self.pseudo(field, kind);
        }
        if self.fields.is_empty() && kind == HeadKind::Request {
            self.check_line();
        }
        if known == KnownHeader::Cookie {
            self.crumbs += 1;
        } else if self.fields.len() - self.crumbs >= max_fields {
            self.fault(HeadError::TooManyFields);
        }
        if self.error.is_none() {
            self.fields.push(HeaderSpan { name: field.name, value: field.value, known, invalid });
        }
    }

    /// Checks what can be checked when all fields are there.
    pub(super) fn finish(&mut self, kind: HeadKind, end_stream: bool, extended_connect: bool) {
        match kind {
            HeadKind::Trailers => {}
            HeadKind::Response if !self.has_status => self.fault(HeadError::MissingPseudo(":status")),
            HeadKind::Response => {}
            HeadKind::Request if self.fields.is_empty() => self.check_line(),
            HeadKind::Request => {}
        }
        let mut te = 0;
        for at in 0..self.fields.len() {
            // Servers that send fields of HTTP/1 connections are tolerated, as nginx does.
            if let Some(field) = self.fields.get(at).copied()
                && (kind == HeadKind::Request || field.known == KnownHeader::ContentLength)
            {
                self.meaning(field.known, field.value, &mut te);
            }
        }
        if kind == HeadKind::Request {
            self.finish_request(end_stream, extended_connect);
        }
    }

    /// What the request line is made of is there.
    fn check_line(&mut self) {
        for (name, value) in [(":method", self.method), (":scheme", self.scheme), (":path", self.path)] {
            if value.is_none() {
                self.fault(HeadError::MissingPseudo(name));
            }
        }
    }

    fn finish_request(&mut self, end_stream: bool, extended_connect: bool) {
        if self.protocol.is_some() {
            let connect = self.method.is_some_and(|method| method.of(&self.text) == b"CONNECT");
            if !(connect && extended_connect) {
                self.fault(HeadError::UnexpectedProtocol);
            }
            // What comes after it is no content (RFC 9110 §9.3.6): a length of it has no meaning.
            if connect && self.content_length.is_some() {
                self.fault(HeadError::InvalidContentLength);
            }
        }
        if end_stream && self.content_length.is_some_and(|length| length > 0) {
            self.fault(HeadError::MissingBody);
        }
    }

    /// What a field is by its name and value, of which the latter isn't looked at for what a pseudo-header may be.
    fn traits(&self, field: Field) -> Result<Traits, HeadError> {
        if field.traits.sound {
            return Ok(field.traits);
        }
        let (name, value) = (field.name.of(&self.text), field.value.of(&self.text));
        let unusual = name_is_unusual(name).ok_or(HeadError::InvalidName(field.name))?;
        if value_is_bad(value) {
            return Err(HeadError::InvalidValue { name: field.name, value: field.value });
        }
        let is_pseudo = name.first() == Some(&b':');
        let known = if is_pseudo { KnownHeader::Other } else { KnownHeader::of(name) };
        Ok(Traits { sound: false, unusual, known })
    }

    fn pseudo(&mut self, field: Field, kind: HeadKind) {
        let late = !self.fields.is_empty();
        let place = match (kind, field.name.of(&self.text)) {
            (HeadKind::Request | HeadKind::Response, _) if late => return self.fault(HeadError::LatePseudo),
            (HeadKind::Request, b":method") => &mut self.method,
            (HeadKind::Request, b":scheme") => &mut self.scheme,
            (HeadKind::Request, b":authority") => &mut self.authority,
            (HeadKind::Request, b":path") => &mut self.path,
            (HeadKind::Request, b":protocol") => &mut self.protocol,
            (HeadKind::Response, b":status") => return self.set_status(field),
            _ => return self.fault(HeadError::UnknownPseudo(field.name)),
        };
        if place.is_some() {
            return self.fault(HeadError::DuplicatePseudo(field.name));
        }
        match pseudo_fault(field, &self.text) {
            None => *place = Some(field.value),
            Some(error) => self.fault(error),
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
            _ => self.fault(HeadError::InvalidStatus(field.value)),
        }
    }

    /// The rules for single names; `te` counts the fields TE.
    fn meaning(&mut self, known: KnownHeader, value: Span, te: &mut usize) {
        match known {
            KnownHeader::Connection => self.fault(HeadError::ConnectionSpecific("Connection")),
            KnownHeader::KeepAlive => self.fault(HeadError::ConnectionSpecific("Keep-Alive")),
            KnownHeader::ProxyConnection => self.fault(HeadError::ConnectionSpecific("Proxy-Connection")),
            KnownHeader::TransferEncoding => self.fault(HeadError::ConnectionSpecific("Transfer-Encoding")),
            KnownHeader::Upgrade => self.fault(HeadError::ConnectionSpecific("Upgrade")),
            KnownHeader::Te => {
                *te += 1;
                if *te > 1 || !value.of(&self.text).eq_ignore_ascii_case(b"trailers") {
                    self.fault(HeadError::InvalidTe);
                }
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

/// What is wrong with a pseudo-header of a request by itself.
fn pseudo_fault(field: Field, text: &[u8]) -> Option<HeadError> {
    let (name, value) = (field.name.of(text), field.value.of(text));
    if field.traits.sound || pseudo_is_sound(name, value) {
        return None;
    }
    Some(match name {
        b":authority" => HeadError::InvalidAuthority,
        _ if value.is_empty() => HeadError::EmptyPseudo(field.name),
        b":method" => HeadError::InvalidMethod(field.value),
        b":scheme" => HeadError::InvalidScheme(field.value),
        _ => HeadError::InvalidPath(field.value),
    })
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
        if self.error == HeadError::MissingBody {
            return f.write_str("client prematurely closed stream");
        }
        f.write_str("client sent ")?;
        match self.error {
            HeadError::InvalidName(name) => write!(f, "invalid header name: \"{}\"", text(name)),
            HeadError::InvalidValue { name, value } => {
                write!(f, "header \"{}\" with invalid value: \"{}\"", text(name), text(value))
            }
            HeadError::UnknownPseudo(name) => write!(f, "unknown pseudo-header \"{}\"", text(name)),
            HeadError::UnexpectedProtocol => f.write_str("unknown pseudo-header \":protocol\""),
            HeadError::DuplicatePseudo(name) if name.of(self.text) == b":authority" => {
                f.write_str("duplicate \":authority\" header")
            }
            HeadError::DuplicatePseudo(name) => write!(f, "duplicate {} header", text(name)),
            HeadError::LatePseudo => f.write_str("out of order pseudo-headers"),
            HeadError::MissingPseudo(name) => write!(f, "no {name} header"),
            HeadError::EmptyPseudo(name) => write!(f, "empty {} header", text(name)),
            HeadError::InvalidMethod(value) => write!(f, "invalid method: \"{}\"", text(value)),
            HeadError::InvalidScheme(value) => write!(f, "invalid :scheme header: \"{}\"", text(value)),
            HeadError::InvalidPath(value) => write!(f, "invalid :path header: \"{}\"", text(value)),
            HeadError::InvalidAuthority => f.write_str("invalid \":authority\" header"),
            HeadError::ConnectionSpecific(name) => write!(f, "\"{name}\" header"),
            HeadError::InvalidTe => f.write_str("invalid \"TE\" header"),
            HeadError::TooManyFields => f.write_str("too many header lines"),
            HeadError::InvalidContentLength => f.write_str("invalid \"Content-Length\" header"),
            HeadError::MissingBody => Ok(()),
            HeadError::InvalidStatus(_) => f.write_str("invalid :status header"),
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
            head.push(Field { name, value, never_indexed: false, traits: Traits::UNKNOWN }, kind, MAX);
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
            (&[("X", "y")], "client sent invalid header name: \"X\""),
            (&[(":Path", "y")], "client sent invalid header name: \":Path\""),
            (&[(":", "y")], "client sent invalid header name: \":\""),
            (&[("x:y", "y")], "client sent invalid header name: \"x:y\""),
            (&[("x y", "y")], "client sent invalid header name: \"x y\""),
            (&[("x\u{2}", "y")], "client sent invalid header name: \"x\u{2}\""),
            (&[("x", "a\r\nb: c")], "client sent header \"x\" with invalid value: \"a\r\nb: c\""),
            (&[("x", "a\0")], "client sent header \"x\" with invalid value: \"a\0\""),
            (&[(":authority", "a\n")], "client sent header \":authority\" with invalid value: \"a\n\""),
            (&[(":authority", "")], "client sent invalid \":authority\" header"),
            (&[(":authority", "a b")], "client sent invalid \":authority\" header"),
            (&[(":authority", "a"), (":authority", "a")], "client sent duplicate \":authority\" header"),
            (&[(":foo", "y")], "client sent unknown pseudo-header \":foo\""),
            (&[(":status", "200")], "client sent unknown pseudo-header \":status\""),
            (&[(":protocol", "websocket")], "client sent unknown pseudo-header \":protocol\""),
            (&[(":path", "/")], "client sent duplicate :path header"),
            (&[("a", "b"), (":authority", "a")], "client sent out of order pseudo-headers"),
            (&[("a", "b"), (":foo", "a")], "client sent out of order pseudo-headers"),
            (&[("connection", "close")], "client sent \"Connection\" header"),
            (&[("transfer-encoding", "chunked")], "client sent \"Transfer-Encoding\" header"),
            (&[("te", "gzip")], "client sent invalid \"TE\" header"),
            (&[("te", "trailers"), ("te", "trailers")], "client sent invalid \"TE\" header"),
            (&[("te", "Trailers")], ""),
            (&[("a", ""), ("a", ""), ("a", ""), ("a", "")], ""),
            (&[("a", ""), ("a", ""), ("a", ""), ("a", ""), ("a", "")], "client sent too many header lines"),
            (&[("content-length", "0")], ""),
            (&[("content-length", "5")], "client prematurely closed stream"),
            (&[("content-length", "+5")], "client sent invalid \"Content-Length\" header"),
            (&[("content-length", " 0")], "client sent invalid \"Content-Length\" header"),
            (&[("content-length", "0 ")], "client sent invalid \"Content-Length\" header"),
            (&[("content-length", "9223372036854775808")], "client sent invalid \"Content-Length\" header"),
            (&[("content-length", "0"), ("content-length", "0")], "client sent invalid \"Content-Length\" header"),
        ] {
            assert_eq!(request_error(more), expected, "{more:?}");
        }
    }

    #[test]
    fn crumbs_count_as_one_cookie() {
        let fields: Vec<_> = std::iter::repeat_n(("cookie", "a=b"), 100).chain([("x", "y"); MAX]).collect();
        assert_eq!(request_error(&fields), "");
    }

    #[test]
    fn what_must_be_there() {
        for (fields, expected) in [
            (&[(":scheme", "http"), (":path", "/")][..], Some(HeadError::MissingPseudo(":method"))),
            (&[(":method", "GET"), (":path", "/")], Some(HeadError::MissingPseudo(":scheme"))),
            (&[(":method", "GET"), (":scheme", "http")], Some(HeadError::MissingPseudo(":path"))),
            // The first field ends what the request line is made of.
            (
                &[(":method", "GET"), (":scheme", "http"), ("a", "b"), (":path", "/")],
                Some(HeadError::MissingPseudo(":path")),
            ),
            (&[(":method", "CONNECT"), (":authority", "a:1")], Some(HeadError::MissingPseudo(":scheme"))),
            (&[(":method", "CONNECT"), (":scheme", "http"), (":path", "/")], None),
            (&[(":method", "CONNECT"), (":protocol", "websocket")], Some(HeadError::MissingPseudo(":scheme"))),
            (&[(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/")], None),
            (&[(":method", "CONNECT"), (":protocol", ""), (":scheme", "http"), (":path", "/")], None),
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
    fn values_of_pseudo_headers() {
        for (name, good, bad) in [
            (":method", &["GET", "A_B-C"][..], &["", "get", " GET", "G T", "GET1", "G\u{e9}T"][..]),
            (":scheme", &["http", "HTTPS", "h+-.1"], &["", "h ttp", " http", "http ", "1http", "h_p", "http:", "+h"]),
            (
                ":path",
                &["/", "//", "/a#b?c", "/\u{e9}", "/?a"],
                &["", "*", "a", "?a", "http://a/", "/ ", "/a b", "/?\t", "/\u{7f}"],
            ),
        ] {
            for (values, expected) in [(good, true), (bad, false)] {
                for value in values {
                    let text = [(name, *value)];
                    let head = head(HeadKind::Request, false, &text);
                    let own = matches!(head.error, Some(HeadError::MissingPseudo(_)));
                    assert_eq!(own, expected, "{name}: {value}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_taken_in_after_a_fault() {
        let base = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
        let more = [("a", "b"), ("X", "y"), ("c", "d"), (":authority", "a")];
        let head = head(HeadKind::Request, true, &[&base[..], &more].concat());
        assert!(matches!(head.error, Some(HeadError::InvalidName(_))));
        assert_eq!((head.fields.len(), head.authority, head.has_line()), (1, None, true));
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
    fn spaces_around_values_stay() {
        for value in [" a b\t", "", "  ", "a"] {
            let head = head(HeadKind::Trailers, true, &[("cookie", value)]);
            assert_eq!(head.value(KnownHeader::Cookie), Some(value.as_bytes()));
        }
    }
}
