//! The fields of requests to backends that speak HTTP, in the form of either version.
//!
//! They are compiled at start: constant ones are joined into one text, and of the client's fields those that the
//! configuration replaces are left out by one bit test.

use std::ops::Range;
use std::rc::Rc;

use buf::Buf;
use buf::number::digits;
use expr::vars::Template;
use http::exchange::Exchange;
use http::request::Request;
use http::response::field::{breaks, safe};
use wire::h1::{HeaderSpan, KnownHeader};
use wire::hpack::write_plain;

use crate::pass::Destination;

/// Where a backend's heads are made.
pub(crate) const TO_BACKEND: &str = "creating request to upstream";

/// How a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As a line of HTTP/1.
    Line,
    /// In HPACK, as HTTP/2 has it.
    Hpack,
}

impl Form {
    /// Writes a field whose value has no line break.
    pub(crate) fn field(self, name: &[u8], value: &[u8], out: &mut Buf) {
        match self {
            Form::Hpack => write_plain(name, value, out),
            Form::Line => out.extend_from_slices([name, b": ", value, b"\r\n"]),
        }
    }

    /// The name under which the host is sent.
    fn host(self) -> &'static [u8] {
        match self {
            Form::Line => b"Host",
            Form::Hpack => b":authority",
        }
    }

    /// Whether a field of the configuration's can be sent (RFC 9113 §8.2.2).
    fn has(self, name: &[u8]) -> bool {
        let of_connections = [&b"Connection"[..], b"Keep-Alive", b"Proxy-Connection", b"Transfer-Encoding", b"Upgrade"];
        self == Form::Line || !of_connections.iter().any(|other| name.eq_ignore_ascii_case(other))
    }
}

/// The fields of requests to the backend.
pub(crate) struct RequestFields {
    form: Form,
    parts: Vec<Part>,
    /// Client's fields of known names that aren't passed on.
    known: u64,
    /// The same for other names, in lower case.
    others: Vec<Vec<u8>>,
}

enum Part {
    Text(Buf),
    /// Left out where the value is empty.
    Field(Vec<u8>, Rc<Template>),
    /// `Host`: the value, or `$proxy_host` where that is empty or there is none.
    Host(Option<Rc<Template>>),
    /// `Content-Length: $proxy_internal_body_length`
    BodyLength,
    /// `Transfer-Encoding: $proxy_internal_chunked`
    Chunked,
    /// `TE: $grpc_internal_trailers`
    Trailers,
}

/// The memory for values; most fit.
pub(crate) const VALUE: usize = 128;

/// Fields about the client's connection or the body's framing, which aren't passed on.
const DROPPED: [&str; 9] = [
    "Host",
    "Connection",
    "Content-Length",
    "Transfer-Encoding",
    "TE",
    "Keep-Alive",
    "Expect",
    "Upgrade",
    "Proxy-Connection",
];

impl RequestFields {
    /// What `…_set_header` says, and what is sent without it. `trailers`: a client's `TE: trailers` is passed on.
    pub(crate) fn new(
        form: Form,
        fields: &[(Vec<u8>, Rc<Template>)],
        target: &Destination,
        trailers: bool,
    ) -> RequestFields {
        let mut headers = RequestFields { form, parts: Vec::new(), known: 0, others: Vec::new() };
        let is = |own: &[u8], name: &str| own.eq_ignore_ascii_case(name.as_bytes());
        let own = |name: &str| fields.iter().any(|(own, _)| is(own, name));
        let host = fields.iter().rev().find(|(name, _)| is(name, "Host")).map(|(_, value)| value);
        headers.host(host, target);
        for (name, value) in fields.iter().filter(|(name, _)| !is(name, "Host")) {
            match value.is_const() {
                _ if !form.has(name) => {}
                Some(b"") => {}
                Some(text) => headers.text(name, text),
                None => headers.parts.push(Part::Field(name.clone(), value.clone())),
            }
            headers.drop_name(name);
        }
        if !own("Content-Length") {
            headers.parts.push(Part::BodyLength);
        }
        if trailers && !own("TE") {
            headers.parts.push(Part::Trailers);
        }
        if form == Form::Line && !own("Transfer-Encoding") {
            headers.parts.push(Part::Chunked);
        }
        DROPPED.iter().for_each(|name| headers.drop_name(name.as_bytes()));
        headers
    }

    /// `Host` comes first, whatever its place in the configuration: a request of HTTP/1.1 has one.
    fn host(&mut self, own: Option<&Rc<Template>>, target: &Destination) {
        let name = self.form.host();
        match (own.map(|value| (value, value.is_const())), target) {
            (Some((_, Some(text))), _) if !text.is_empty() => self.text(name, text),
            (Some((value, None)), _) => self.parts.push(Part::Host(Some(value.clone()))),
            (_, Destination::Fixed(target)) => self.text(name, &target.host),
            (_, Destination::Variable { .. }) => self.parts.push(Part::Host(None)),
        }
    }

    fn text(&mut self, name: &[u8], value: &[u8]) {
        if !matches!(self.parts.last(), Some(Part::Text(_))) {
            self.parts.push(Part::Text(Buf::empty()));
        }
        if let Some(Part::Text(text)) = self.parts.last_mut() {
            self.form.field(name, value, text);
        }
    }

    fn drop_name(&mut self, name: &[u8]) {
        match KnownHeader::of(name) {
            KnownHeader::Other => self.others.push(name.to_ascii_lowercase()),
            known => self.known |= 1 << known as u8,
        }
    }

    fn passes(&self, known: KnownHeader, name: &[u8]) -> bool {
        match known {
            KnownHeader::Other => !self.others.iter().any(|other| other.eq_ignore_ascii_case(name)),
            known => self.known & (1 << known as u8) == 0,
        }
    }

    /// Writes all fields; those of the client if `pass_own`.
    pub(crate) fn write(&self, r: &mut Request, exchange: &Exchange, pass_own: bool, out: &mut Buf) {
        let form = self.form;
        // The memory of the values, one after the other.
        let mut memory = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Field(name, value) => {
                    memory.clear();
                    memory.reserve(VALUE);
                    value.render(r, &mut memory);
                    if !memory.is_empty() {
                        form.field(name, &safe(r, name, &memory, TO_BACKEND), out);
                    }
                }
                Part::Host(value) => {
                    memory.clear();
                    if let Some(value) = value {
                        value.render(r, &mut memory);
                    }
                    let target = exchange.target.borrow();
                    let default = target.as_ref().map_or(&b""[..], |target| &target.host);
                    let value = if memory.is_empty() { default } else { &memory };
                    form.field(form.host(), &safe(r, b"Host", value, TO_BACKEND), out);
                }
                Part::BodyLength => {
                    if let Some(length) = exchange.body_length.get() {
                        form.field(b"Content-Length", digits(length, &mut [0; 20]), out);
                    }
                }
                Part::Chunked => {
                    if exchange.chunked.get() {
                        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                    }
                }
                Part::Trailers => {
                    if takes_trailers(r) {
                        form.field(b"TE", b"trailers", out);
                    }
                }
            }
        }
        if let Some(conditions) = exchange.conditions() {
            for (known, name, value) in conditions {
                if self.passes(known, name.as_bytes()) {
                    form.field(name.as_bytes(), &value, out);
                }
            }
        }
        if pass_own {
            self.write_own(r, exchange, out);
        }
    }

    /// Lines that stand one after the other in the client's head are copied together.
    fn write_own(&self, r: &Request, exchange: &Exchange, out: &mut Buf) {
        let head = &r.head[..];
        let mut run = 0..0;
        for header in &r.line.headers {
            let name = header.name.of(head);
            if !(self.passes(header.known, name) && exchange.passes(header.known)) {
                continue;
            }
            // As it was read: no parser of heads lets a line break or NUL through.
            let value = header.value.of(head);
            debug_assert!(!breaks(value), "{}", value.escape_ascii());
            let line = line_as_written(header, head).filter(|_| self.form == Form::Line);
            if let Some(line) = &line
                && line.start == run.end
            {
                run.end = line.end;
                continue;
            }
            copy(head, run, out);
            run = line.unwrap_or_else(|| {
                self.form.field(name, value, out);
                0..0
            });
        }
        copy(head, run, out);
    }
}

/// Appends the lines of a head that stand there.
fn copy(head: &[u8], lines: Range<usize>, out: &mut Buf) {
    if !lines.is_empty() {
        out.extend_from_slice(head.get(lines).unwrap_or_default());
    }
}

/// Where a field stands in the head, if its line there is the one that [`Form::Line`] would write.
fn line_as_written(field: &HeaderSpan, head: &[u8]) -> Option<Range<usize>> {
    let (start, end) = (field.name.start as usize, field.value.end as usize + 2);
    let as_written = head.get(field.name.end as usize..field.value.start as usize) == Some(b": ")
        && head.get(field.value.end as usize..end) == Some(b"\r\n");
    as_written.then_some(start..end)
}

/// Whether the client says that it takes trailers.
fn takes_trailers(r: &Request) -> bool {
    let Some(value) = r.header(KnownHeader::Te) else { return false };
    value.split(|byte| *byte == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

#[cfg(test)]
mod tests {
    use ::upstream::Url;

    use super::*;
    use crate::pass;
    use crate::protocol::Scheme;

    const SCHEME: Scheme = Scheme { prefix: "", label: "http://", default_port: Some(80), ssl: false };

    fn fields(form: Form, own: &[(&str, &str)]) -> (RequestFields, String) {
        let own =
            own.iter().map(|(name, value)| (name.as_bytes().to_vec(), Rc::new(Template::constant(value.as_bytes()))));
        let url = Url::parse(b"backend:8080", true).expect("it parses");
        let spec = ::upstream::GroupSpec::default();
        let found = common::backend::targets::Found { group: ::upstream::Group::new(&spec), key: None };
        let target = Destination::Fixed(pass::target(found, &url, &SCHEME));
        let headers = RequestFields::new(form, &own.collect::<Vec<_>>(), &target, form == Form::Hpack);
        let text = headers.parts.iter().map(|part| match part {
            Part::Text(text) => text.escape_ascii().to_string().replace("\\r\\n", "|"),
            Part::BodyLength => "<length>".to_owned(),
            Part::Chunked => "<chunked>".to_owned(),
            Part::Trailers => "<te>".to_owned(),
            Part::Field(..) | Part::Host(_) => "<variable>".to_owned(),
        });
        let text = text.collect();
        (headers, text)
    }

    #[test]
    fn fields_are_joined() {
        for (own, expect) in [
            (&[][..], "Host: backend:8080|<length><chunked>"),
            (&[("host", "x"), ("A", "b")], "Host: x|A: b|<length><chunked>"),
            (&[("A", "b"), ("Host", "x"), ("HOST", "y")], "Host: y|A: b|<length><chunked>"),
            (&[("Host", "x"), ("Host", "")], "Host: backend:8080|<length><chunked>"),
            (&[("Connection", ""), ("Content-Length", "")], "Host: backend:8080|<chunked>"),
        ] {
            assert_eq!(fields(Form::Line, own).1, expect, "{own:?}");
        }
    }

    #[test]
    fn fields_in_hpack() {
        for (own, expect) in [
            (&[][..], "\\x01\\x0cbackend:8080<length><te>"),
            (&[("Host", "x"), ("A", "b"), ("Connection", "upgrade")], "\\x01\\x01x\\x00\\x01a\\x01b<length><te>"),
            (&[("TE", ""), ("Content-Length", "")], "\\x01\\x0cbackend:8080"),
        ] {
            assert_eq!(fields(Form::Hpack, own).1, expect, "{own:?}");
        }
    }

    #[test]
    fn fields_of_the_client() {
        let (headers, _) = fields(Form::Line, &[("X-Real-IP", "x"), ("X-Mine", "")]);
        for (name, expect) in [
            ("Accept", true),
            ("host", false),
            ("Connection", false),
            ("upgrade", false),
            ("TE", false),
            ("proxy-connection", false),
            ("X-Real-Ip", false),
            ("x-mine", false),
            ("X-Other", true),
        ] {
            let name = name.as_bytes();
            assert_eq!(headers.passes(KnownHeader::of(name), name), expect, "{}", String::from_utf8_lossy(name));
        }
    }
}
