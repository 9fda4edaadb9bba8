//! A request's head in the form that HTTP/1 has: so that what comes after a session needn't know the protocol.

use std::fmt;

use buf::{Buf, Bytes};

use super::head::{Head, HeadError};
use crate::class::{NAME, is};
use crate::h1::{HeaderSpan, KnownHeader, Limits, RequestError, RequestHead, ResponseHead, parse_method, parse_path};
use crate::span::Span;

/// Why a request is refused; its stream lives, and the answer goes there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFault {
    /// The head isn't valid in HTTP/2.
    Head(HeadError),
    /// It wouldn't be valid in HTTP/1 either.
    Request(RequestError),
    /// Neither `:authority` nor Host.
    NoHost,
    /// `:authority` and Host are two different things.
    HostMismatch,
}

impl RequestFault {
    /// nginx's text for the error log; `text` is [`Head::text`].
    pub fn text(self, text: &[u8]) -> impl fmt::Display {
        match self {
            RequestFault::Head(error) => error.text(text).to_string(),
            RequestFault::Request(error) => error.text(text).to_string(),
            RequestFault::NoHost => String::from("client sent neither \":authority\" nor \"Host\" header"),
            RequestFault::HostMismatch => {
                String::from("client sent \":authority\" and \"Host\" headers with different values")
            }
        }
    }
}

impl From<RequestError> for RequestFault {
    fn from(error: RequestError) -> RequestFault {
        RequestFault::Request(error)
    }
}

impl Head {
    /// Moves the head of a response to `parts`, with spans of the bytes that are given back.
    pub fn to_response(&mut self, parts: &mut ResponseHead) -> Bytes {
        parts.clear();
        std::mem::swap(&mut parts.headers, &mut self.fields);
        (parts.version, parts.status) = (2000, self.status);
        parts.index();
        std::mem::replace(&mut self.text, Buf::empty()).freeze()
    }

    /// Fills `line`, which must be empty, with spans of [`Head::text`].
    ///
    /// A request line is made up after what was sent (`GET /path HTTP/2.0`: nginx's `$request`); `:authority` becomes the Host
    /// header; cookie crumbs are joined (RFC 9113 §8.2.3). After an error `line` has what was understood until then,
    /// as nginx's log does. An extended CONNECT keeps its method; [`Head::protocol`] tells it apart, [`Head::upgrade`]
    /// makes a GET of it.
    pub fn to_request(&mut self, limits: &Limits, line: &mut RequestHead) -> Result<(), RequestFault> {
        self.request_line(line)?;
        if let Some(authority) = self.authority {
            line.set_host(authority, &self.text)?;
        }
        let fields = std::mem::take(&mut self.fields);
        let added = self.add_fields(&fields, limits, line);
        self.fields = fields;
        added?;
        let early = |error: &HeadError| !matches!(error, HeadError::InvalidContentLength | HeadError::MissingBody);
        if let Some(error) = self.error.filter(early) {
            return Err(RequestFault::Head(error));
        }
        self.host(line)?;
        self.error.map_or(Ok(()), |error| Err(RequestFault::Head(error)))
    }

    fn request_line(&mut self, line: &mut RequestHead) -> Result<(), RequestError> {
        line.version = 2000;
        let (method, target) = (self.method.unwrap_or_default(), self.path.unwrap_or_default());
        let has_line = self.has_line();
        let start = self.text.len();
        self.append(method);
        self.text.extend_from_slice(b" ");
        let at = self.text.len();
        self.append(target);
        self.text.extend_from_slice(b" HTTP/2.0");
        let end = self.text.len();
        if has_line {
            line.request_line = Span::new(start, end);
        }
        line.protocol = Span::new(end - PROTOCOL_LEN, end);
        line.method = Span::new(start, start + method.len());
        line.method_id = parse_method(method.of(&self.text)).1;
        if !target.is_empty() {
            // A space inside would end the path too early.
            let stop = parse_path(&self.text, at, line)?;
            debug_assert_eq!(stop, at + target.len(), "the path has been looked at");
        }
        Ok(())
    }

    /// Host: what `:authority` says, and the field.
    fn host(&mut self, line: &mut RequestHead) -> Result<(), RequestFault> {
        let host = self.fields.iter().find(|field| field.known == KnownHeader::Host).map(|field| field.value);
        match (self.authority, host) {
            (None, None) => Err(RequestFault::NoHost),
            (None, Some(_)) => Ok(()),
            (Some(authority), Some(host)) if host.of(&self.text) != authority.of(&self.text) => {
                Err(RequestFault::HostMismatch)
            }
            (Some(_), Some(_)) => Ok(()),
            (Some(authority), None) => {
                let name = self.text.len();
                self.text.extend_from_slice(b"host");
                let name = Span::new(name, self.text.len());
                // How many fields a client may send is no limit for what isn't one.
                let limits = Limits { max_headers: usize::MAX, ..Limits::default() };
                let field = HeaderSpan { name, value: authority, known: KnownHeader::Host, invalid: false };
                Ok(line.add(field, &self.text, &limits)?)
            }
        }
    }

    fn add_fields(
        &mut self,
        fields: &[HeaderSpan],
        limits: &Limits,
        line: &mut RequestHead,
    ) -> Result<(), RequestFault> {
        let crumbs = fields.iter().filter(|field| field.known == KnownHeader::Cookie).count();
        // They are one field, which isn't counted.
        let limits = &Limits { max_headers: limits.max_headers.saturating_add(crumbs.min(1)), ..*limits };
        for field in fields {
            if field.known == KnownHeader::Cookie && crumbs > 1 {
                continue;
            }
            let usual = |&byte: &u8| is(byte, NAME) || (limits.underscores && byte == b'_');
            let invalid = field.invalid && !field.name.of(&self.text).iter().all(usual);
            line.add(HeaderSpan { invalid, ..*field }, &self.text, limits)?;
            if field.known == KnownHeader::Host
                && let Some(authority) = self.authority
            {
                line.set_host(authority, &self.text)?;
            }
        }
        if crumbs > 1 {
            let cookie = self.joined_cookie(fields);
            line.add(cookie, &self.text, limits)?;
        }
        Ok(())
    }

    fn joined_cookie(&mut self, fields: &[HeaderSpan]) -> HeaderSpan {
        let start = self.text.len();
        let mut name = Span::default();
        for (n, field) in fields.iter().filter(|field| field.known == KnownHeader::Cookie).enumerate() {
            if n > 0 {
                self.text.extend_from_slice(b"; ");
            }
            self.append(field.value);
            name = field.name;
        }
        let value = Span::new(start, self.text.len());
        HeaderSpan { name, value, known: KnownHeader::Cookie, invalid: false }
    }

    /// Appends a copy of a part of the text.
    fn append(&mut self, span: Span) {
        let end = (span.end as usize).min(self.text.len());
        self.text.extend_from_within((span.start as usize).min(end)..end);
    }
}

/// Length of "HTTP/2.0".
const PROTOCOL_LEN: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::head::HeadKind;
    use super::*;
    use crate::h1::Method;
    use crate::hpack::{Field, Traits};

    const BASE: [(&str, &str); 3] = [(":method", "GET"), (":scheme", "http"), (":path", "/a%20b?c=d")];

    fn head(fields: &[(&str, &str)]) -> Head {
        let mut head = Head::default();
        for (name, value) in fields {
            let start = head.text.len();
            head.text.extend_from_slice(name.as_bytes());
            let middle = head.text.len();
            head.text.extend_from_slice(value.as_bytes());
            let (name, value) = (Span::new(start, middle), Span::new(middle, head.text.len()));
            head.push(Field { name, value, never_indexed: false, traits: Traits::UNKNOWN }, HeadKind::Request, 10);
        }
        head.finish(HeadKind::Request, false, true);
        head
    }

    /// The request line, host and header lines; or the text of the fault.
    fn check(fields: &[(&str, &str)], expected: &str) {
        let (mut head, mut line) = (head(fields), RequestHead::default());
        let shown = match head.to_request(&Limits { max_headers: 4, ..Limits::default() }, &mut line) {
            Err(fault) => fault.text(&head.text).to_string(),
            Ok(()) => {
                let text = |span: Span| String::from_utf8_lossy(span.of(&head.text)).into_owned();
                let headers: Vec<_> =
                    line.headers.iter().map(|h| format!("{}={}", text(h.name), text(h.value))).collect();
                format!("{}|{}|{}", text(line.request_line), text(line.host().unwrap_or_default()), headers.join(","))
            }
        };
        assert_eq!(shown, expected, "{fields:?}");
    }

    fn with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
        [&BASE[..], more].concat()
    }

    #[test]
    fn becomes_a_request() {
        check(&with(&[(":authority", "a:80"), ("x", "y")]), "GET /a%20b?c=d HTTP/2.0|a|x=y,host=a:80");
        check(&with(&[("host", "b"), ("x_y", "z")]), "GET /a%20b?c=d HTTP/2.0|b|host=b");
        check(&with(&[(":authority", "a"), ("host", "a")]), "GET /a%20b?c=d HTTP/2.0|a|host=a");
        check(
            &with(&[(":authority", "a"), ("cookie", "a=b"), ("x", " y "), ("cookie", "c=d")]),
            "GET /a%20b?c=d HTTP/2.0|a|x= y ,cookie=a=b; c=d,host=a",
        );
        check(&with(&[("host", "a"), ("cookie", ""), ("cookie", "c")]), "GET /a%20b?c=d HTTP/2.0|a|host=a,cookie=; c");
        check(
            &[(":method", "CONNECT"), BASE[1], BASE[2], (":authority", "a:1")],
            "CONNECT /a%20b?c=d HTTP/2.0|a|host=a:1",
        );
        check(
            &[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":path", "/x"),
                (":authority", "a"),
            ],
            "CONNECT /x HTTP/2.0|a|host=a",
        );
    }

    /// The request line, `:authority`'s host and the header lines of a head that is refused.
    fn known(more: &[(&'static str, &'static str)]) -> String {
        let (mut head, mut line) = (head(&with(more)), RequestHead::default());
        assert!(head.to_request(&Limits::default(), &mut line).is_err(), "{more:?}");
        let text = |span: Span| String::from_utf8_lossy(span.of(&head.text)).into_owned();
        let headers: Vec<_> = line.headers.iter().map(|h| format!("{}={}", text(h.name), text(h.value))).collect();
        format!("{}|{}|{}", text(line.request_line), text(line.host().unwrap_or_default()), headers.join(","))
    }

    #[test]
    fn what_is_known_of_those_that_are_refused() {
        let line = "GET /a%20b?c=d HTTP/2.0";
        for (more, expected) in [
            (&[(":authority", "a"), (":foo", "b")][..], "|a|".to_string()),
            (&[(":authority", "a"), ("X", "b")], "|a|".into()),
            (&[("x", "b"), (":authority", "a")], format!("{line}||x=b")),
            (&[(":authority", "a"), ("x", "b"), ("X", "b"), ("y", "b")], format!("{line}|a|x=b")),
            (&[(":authority", "a"), ("connection", "close")], format!("{line}|a|connection=close")),
            (&[(":authority", "a"), ("content-length", "+5")], format!("{line}|a|content-length=+5,host=a")),
            (&[(":authority", "a"), ("host", "b")], format!("{line}|a|host=b")),
        ] {
            assert_eq!(known(more), expected, "{more:?}");
        }
    }

    #[test]
    fn its_parts_are_those_of_http1() {
        let (mut head, mut line) = (head(&with(&[(":authority", "a:80")])), RequestHead::default());
        head.to_request(&Limits::default(), &mut line).unwrap();
        let text = |span: Span| String::from_utf8_lossy(span.of(&head.text)).into_owned();
        assert_eq!((text(line.method), line.method_id, line.version), ("GET".into(), Method::Get, 2000));
        assert_eq!((text(line.target), text(line.uri_path)), ("/a%20b?c=d".into(), "/a%20b".into()));
        assert_eq!((text(line.args.unwrap()), text(line.protocol)), ("c=d".into(), "HTTP/2.0".into()));
        assert!(line.complex_uri && line.quoted_uri && !line.plus_in_uri);
        assert_eq!((line.port(), line.has(KnownHeader::Host)), (Some(80), true));
    }

    #[test]
    fn faults() {
        let path =
            |path: &'static str| vec![(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")];
        check(&with(&[]), "client sent neither \":authority\" nor \"Host\" header");
        check(&with(&[(":authority", "")]), "client sent invalid \":authority\" header");
        check(&with(&[("host", "a b")]), "client sent invalid host header");
        check(&with(&[("host", "a ")]), "client sent invalid host header");
        check(&with(&[(":authority", "a"), ("host", "")]), "client sent invalid host header");
        check(
            &with(&[(":authority", "a:1"), ("host", "a:2")]),
            "client sent \":authority\" and \"Host\" headers with different values",
        );
        let twice = "client sent duplicate host header: \"host: a\", previous value: \"host: a\"";
        check(&with(&[("host", "a"), ("host", "a")]), twice);
        check(&with(&[(":authority", "a"), ("host", "a"), ("host", "a")]), twice);
        // What comes first is told first.
        check(&with(&[(":authority", "a"), ("host", "a"), ("host", "a"), ("X", "y")]), twice);
        check(
            &with(&[(":authority", "a"), ("content-length", "0"), ("content-length", "0")]),
            "client sent duplicate header line: \"content-length: 0\", previous value: \"content-length: 0\"",
        );
        for bad in ["a.html", "/a\u{2}", "/a HTTP/1.1", "*"] {
            check(&path(bad), &format!("client sent invalid :path header: \"{bad}\""));
        }
        check(&with(&[("X", "y")]), "client sent invalid header name: \"X\"");
        let many = [(":authority", "a"), ("a", ""), ("b", ""), ("c", ""), ("d", ""), ("e", "")];
        check(&with(&many[..5]), "GET /a%20b?c=d HTTP/2.0|a|a=,b=,c=,d=,host=a");
        check(&with(&many), "client sent too many header lines");
    }
}
