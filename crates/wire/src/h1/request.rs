//! The head of a request, read as it arrives.

use std::fmt;

use super::error::RequestError;
use super::fields::{FieldsError, HeaderSpan, Line, parse_line};
use super::known::KnownHeader;
use super::request_line;
use crate::span::Span;
use crate::uri::{HostError, ScannedHost, scan_host};

/// The methods that nginx knows by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum Method {
    #[default]
    Other,
    Get,
    Head,
    Post,
    Put,
    Delete,
    Mkcol,
    Copy,
    Move,
    Options,
    Propfind,
    Proppatch,
    Lock,
    Unlock,
    Patch,
    Trace,
    Connect,
}

impl Method {
    /// All known methods, with their names.
    const NAMES: [(&'static str, Method); 16] = [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("PUT", Method::Put),
        ("DELETE", Method::Delete),
        ("MKCOL", Method::Mkcol),
        ("COPY", Method::Copy),
        ("MOVE", Method::Move),
        ("OPTIONS", Method::Options),
        ("PROPFIND", Method::Propfind),
        ("PROPPATCH", Method::Proppatch),
        ("LOCK", Method::Lock),
        ("UNLOCK", Method::Unlock),
        ("PATCH", Method::Patch),
        ("TRACE", Method::Trace),
        ("CONNECT", Method::Connect),
    ];

    /// The method of that name, in capitals.
    pub fn of(name: &[u8]) -> Option<Method> {
        Method::NAMES.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, method)| *method)
    }

    /// Its name; empty for an unknown one.
    pub fn name(self) -> &'static str {
        Method::NAMES.iter().find(|(_, method)| *method == self).map_or("", |(name, _)| name)
    }

    /// A bit of its own, for sets of methods.
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// The bounds and choices of the server that reads a request.
///
/// nginx reads into one `client_header_buffer_size` buffer, then into up to `large_client_header_buffers` others, and
/// never splits a line over two. Those buffers are only counted here: the caller keeps one contiguous buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `client_header_buffer_size`.
    pub header_buffer: usize,
    /// Size of one of the `large_client_header_buffers`: the longest line.
    pub line: usize,
    /// Number of the `large_client_header_buffers`.
    pub buffers: usize,
    /// `max_headers`.
    pub max_headers: usize,
    /// `ignore_invalid_headers`: lines with unusual names are skipped.
    pub ignore_invalid: bool,
    /// `underscores_in_headers`.
    pub underscores: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        let (header_buffer, line, buffers) = (1024, 8192, 4);
        Limits { header_buffer, line, buffers, max_headers: 1000, ignore_invalid: true, underscores: false }
    }
}

impl Limits {
    /// The most bytes that a head may take: a buffer of this size always suffices.
    pub fn total(&self) -> usize {
        self.line.saturating_mul(self.buffers).saturating_add(self.header_buffer)
    }
}

/// What a call of a parser came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed.
    Incomplete,
    /// The head is complete; this many bytes belong to it.
    Complete(usize),
}

/// How the connection shall go on, by its Connection header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// Not said: HTTP/1.1 keeps it, older versions close it.
    #[default]
    Unsaid,
    /// `close`.
    Close,
    /// `keep-alive`.
    KeepAlive,
}

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is none.
    None,
    /// This many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// A request head: spans of the buffer that was parsed. Reusable: [`RequestHead::clear`] keeps its memory.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The request line without its line end: nginx's `$request`.
    pub request_line: Span,
    /// The method as sent.
    pub method: Span,
    /// The method, if known.
    pub method_id: Method,
    /// The URI from its path on, as sent, with arguments and fragment. For a URI without a path it is empty or starts at
    /// `?`.
    pub target: Span,
    /// Scheme of an absolute URI.
    pub schema: Option<Span>,
    /// Host of an absolute URI or of CONNECT, without port and trailing dot; may hold capitals.
    pub uri_host: Option<Span>,
    /// Port of an absolute URI or of CONNECT.
    pub uri_port: Option<u16>,
    /// Host of the Host header, without port and trailing dot; may hold capitals.
    pub header_host: Option<Span>,
    /// Port of the Host header.
    pub header_port: Option<u16>,
    /// The host of the Host header holds capitals.
    header_host_upper: bool,
    /// The path as sent, without arguments.
    pub uri_path: Span,
    /// What stands after the first `?`, without a fragment.
    pub args: Option<Span>,
    /// The path needs [`crate::uri::normalize`]: it has an escape, `//` or `/.`.
    pub complex_uri: bool,
    /// The path has an escape.
    pub quoted_uri: bool,
    /// The path has a `+`.
    pub plus_in_uri: bool,
    /// The URI is absolute and has no path: `/` is meant.
    pub empty_path_in_uri: bool,
    /// 9, 1000, 1001, …: major × 1000 + minor.
    pub version: u16,
    /// The version as sent: nginx's `$server_protocol`; empty for HTTP/0.9, and at its place for what is no version.
    pub protocol: Span,
    /// The header lines in order, without those that were ignored.
    pub headers: Vec<HeaderSpan>,
    /// The header lines that `ignore_invalid_headers` dropped, for the log.
    pub ignored: Vec<Span>,
    known: u64,
    last_host: LastHost,
}

/// The last valid Host header that was scanned with this memory: most requests have the host of the one before.
#[derive(Clone, Default)]
struct LastHost {
    text: Vec<u8>,
    scanned: ScannedHost,
}

/// It saves work and is no part of a head.
impl fmt::Debug for LastHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LastHost")
    }
}

impl LastHost {
    /// Longer ones aren't remembered.
    const LONGEST: usize = 255;

    fn scan(&mut self, text: &[u8]) -> Result<ScannedHost, HostError> {
        if self.text == text && !text.is_empty() {
            return Ok(self.scanned);
        }
        let scanned = scan_host(text)?;
        if text.len() <= LastHost::LONGEST {
            self.text.clear();
            self.text.extend_from_slice(text);
            self.scanned = scanned;
        }
        Ok(scanned)
    }
}

impl RequestHead {
    /// Back to the empty head; memory is kept.
    pub fn clear(&mut self) {
        // All of them: one that is added and forgotten here doesn't compile.
        let RequestHead {
            request_line,
            method,
            method_id,
            target,
            schema,
            uri_host,
            uri_port,
            header_host,
            header_port,
            header_host_upper,
            uri_path,
            args,
            complex_uri,
            quoted_uri,
            plus_in_uri,
            empty_path_in_uri,
            version,
            protocol,
            headers,
            ignored,
            known,
            last_host: _,
        } = self;
        for span in [request_line, method, target, uri_path, protocol] {
            *span = Span::default();
        }
        for span in [schema, uri_host, header_host, args] {
            *span = None;
        }
        for flag in [header_host_upper, complex_uri, quoted_uri, plus_in_uri, empty_path_in_uri] {
            *flag = false;
        }
        (*method_id, *uri_port, *header_port, *version, *known) = (Method::default(), None, None, 0, 0);
        headers.clear();
        ignored.clear();
    }

    /// Back to the method and the version: what nginx knows of a request of HTTP/2 whose path isn't valid.
    pub fn keep_method(&mut self) {
        let (method, method_id, version, protocol) = (self.method, self.method_id, self.version, self.protocol);
        self.clear();
        (self.method, self.method_id, self.version, self.protocol) = (method, method_id, version, protocol);
    }

    /// The first header line of a known name.
    #[inline]
    pub fn find(&self, known: KnownHeader) -> Option<&HeaderSpan> {
        if self.known & known.bit() == 0 {
            return None;
        }
        self.headers.iter().find(|h| h.known == known)
    }

    /// Whether there is a header line of this known name.
    #[inline]
    pub fn has(&self, known: KnownHeader) -> bool {
        self.known & known.bit() != 0
    }

    /// The value of the first header line of a known name.
    #[inline]
    pub fn value<'b>(&self, known: KnownHeader, buf: &'b [u8]) -> Option<&'b [u8]> {
        self.find(known).map(|h| h.value.of(buf))
    }

    /// The host asked for: the URI's, else the Host header's. May hold capitals.
    pub fn host(&self) -> Option<Span> {
        self.uri_host.or(self.header_host)
    }

    /// Whether the host asked for may hold capitals.
    pub fn host_has_capitals(&self) -> bool {
        self.uri_host.is_some() || self.header_host_upper
    }

    /// Forgets the header lines, as if the request had been refused by its first line, and the URI, which is none.
    pub fn refuse_uri(&mut self) {
        self.headers.clear();
        (self.known, self.header_host, self.header_port, self.target) = (0, None, None, Span::default());
    }

    /// Adds a header line, which the server has appended to the head.
    pub fn add_header(&mut self, header: HeaderSpan) {
        self.known |= header.known.bit();
        self.headers.push(header);
    }

    /// Forgets the header lines for which `is` says so.
    pub fn remove_headers(&mut self, is: impl Fn(&HeaderSpan) -> bool) {
        self.headers.retain(|header| !is(header));
        self.known = self.headers.iter().fold(0, |known, header| known | header.known.bit());
    }

    /// nginx's `$request_uri`: a URI that is only a host means `/`.
    pub fn request_uri<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        if self.target.is_empty() && self.empty_path_in_uri { b"/" } else { self.target.of(buf) }
    }

    /// The port asked for: the URI's if that has a host, else the Host header's.
    pub fn port(&self) -> Option<u16> {
        if self.uri_host.is_some() { self.uri_port } else { self.header_port }
    }

    /// The rules over the whole head (RFC 9112 §3.2, §6.3): Host in HTTP/1.1, the length of the body.
    pub fn framing(&self, buf: &[u8]) -> Result<BodyFraming, RequestError> {
        if self.version > 1000 && !self.has(KnownHeader::Host) {
            return Err(RequestError::NoHost);
        }
        let length = match self.value(KnownHeader::ContentLength, buf) {
            None => None,
            Some(value) => Some(parse_length(value).ok_or(RequestError::InvalidContentLength)?),
        };
        let Some(encoding) = self.find(KnownHeader::TransferEncoding) else {
            return Ok(length.map_or(BodyFraming::None, BodyFraming::Length));
        };
        if self.version < 1001 {
            Err(RequestError::EncodingIn10)
        } else if !encoding.value.of(buf).eq_ignore_ascii_case(b"chunked") {
            Err(RequestError::UnknownEncoding { value: encoding.value })
        } else if length.is_some() {
            Err(RequestError::LengthAndEncoding)
        } else {
            Ok(BodyFraming::Chunked)
        }
    }

    /// TRACE, and CONNECT unless the server has a tunnel and its client speaks HTTP/1.1, are refused; so is CONNECT with a
    /// body, which has no meaning (RFC 9110 §9.3.6).
    pub fn check_method(&self, tunnel: bool, body: BodyFraming) -> Result<(), RequestError> {
        match self.method_id {
            Method::Trace => Err(RequestError::Trace),
            Method::Connect if !tunnel || self.version < 1001 => Err(RequestError::Connect),
            Method::Connect if body != BodyFraming::None => Err(RequestError::ConnectBody),
            _ => Ok(()),
        }
    }

    /// What the Connection header lines say; the last that says anything counts.
    pub fn connection(&self, buf: &[u8]) -> Connection {
        let mut connection = Connection::Unsaid;
        if !self.has(KnownHeader::Connection) {
            return connection;
        }
        for header in self.headers.iter().filter(|h| h.known == KnownHeader::Connection) {
            connection = match header.value.of(buf) {
                b"keep-alive" => Connection::KeepAlive,
                value if contains(value, b"close") => Connection::Close,
                value if contains(value, b"keep-alive") => Connection::KeepAlive,
                _ => connection,
            };
        }
        connection
    }

    /// Whether the connection may serve another request.
    pub fn keep_alive(&self, buf: &[u8]) -> bool {
        match self.connection(buf) {
            Connection::Unsaid => self.version > 1000,
            Connection::Close => false,
            Connection::KeepAlive => true,
        }
    }

    /// Whether the client waits for `100 Continue` before it sends a body.
    pub fn expects_continue(&self, buf: &[u8]) -> bool {
        self.version > 1000
            && self.value(KnownHeader::Expect, buf).is_some_and(|v| v.eq_ignore_ascii_case(b"100-continue"))
    }

    /// Adds a header line, unless it is one to be ignored.
    #[inline]
    pub(crate) fn add(&mut self, field: HeaderSpan, buf: &[u8], limits: &Limits) -> Result<(), RequestError> {
        if field.invalid && limits.ignore_invalid {
            // As a line in HTTP/1, by its name in HTTP/2: as nginx logs them.
            let end = if self.version < 2000 { field.value.end.max(field.name.end) } else { field.name.end };
            self.ignored.push(Span { end, ..field.name });
            return Ok(());
        }
        if self.headers.len() >= limits.max_headers {
            return Err(RequestError::TooManyHeaders);
        }
        let known = field.known;
        if known != KnownHeader::Other {
            if known.is_unique_in_request()
                && let Some(first) = self.find(known)
            {
                let (name, value) = (field.name, field.value);
                let (previous_name, previous_value) = (first.name, first.value);
                return Err(RequestError::Duplicate { known, name, value, previous_name, previous_value });
            }
            self.known |= known.bit();
            if known == KnownHeader::Host {
                // A refused one is there too: logs show it.
                let checked = self.set_host(field.value, buf);
                self.headers.push(field);
                return checked;
            }
        }
        self.headers.push(field);
        Ok(())
    }

    /// Takes the host and port that a Host header, or `:authority`, asks for.
    pub(crate) fn set_host(&mut self, value: Span, buf: &[u8]) -> Result<(), RequestError> {
        let host = self.last_host.scan(value.of(buf)).map_err(|_| RequestError::InvalidHost)?;
        self.header_host = Some(Span { end: value.start + host.len as u32, ..value });
        (self.header_port, self.header_host_upper) = (host.port, host.upper);
        Ok(())
    }
}

/// Digits alone, below 2⁶³.
pub(super) fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    let mut length = 0u64;
    for &byte in value {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        length = length.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    (length <= i64::MAX as u64).then_some(length)
}

/// Whether `needle`, given in lower case, is in `value` in any case.
pub(super) fn contains(value: &[u8], needle: &[u8]) -> bool {
    if value == needle {
        return true;
    }
    let Some(&first) = needle.first() else { return true };
    // One byte rules most places out.
    value.windows(needle.len()).any(|w| w.first().is_some_and(|b| b | 32 == first) && w.eq_ignore_ascii_case(needle))
}

/// Reads request heads, one after the other.
#[derive(Clone, Debug, Default)]
pub struct RequestParser {
    stage: ParserStage,
    /// Where the line begins that isn't complete yet.
    line_start: usize,
    /// Where the request line begins: empty lines before it don't belong to the request.
    begin: usize,
    /// Where the header lines begin.
    fields_start: usize,
    account: Account,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ParserStage {
    #[default]
    Line,
    Fields,
}

impl RequestParser {
    /// Ready for the next request.
    pub fn reset(&mut self) {
        *self = RequestParser::default();
    }

    /// Whether any byte of a request line has been seen, other than the empty lines before it.
    pub fn has_begun(&self, buf: &[u8]) -> bool {
        self.stage != ParserStage::Line || buf.len() > self.line_start
    }

    /// Forgets the header lines.
    pub fn refuse_uri(&mut self) {
        self.line_start = self.fields_start;
    }

    /// How many bytes of the head are in lines that were read.
    pub fn length(&self) -> usize {
        if self.has_line() { self.line_start - self.begin } else { 0 }
    }

    /// Whether the request line is complete.
    pub fn has_line(&self) -> bool {
        self.stage == ParserStage::Fields
    }

    /// Goes on parsing `buf`, which begins with the same bytes as at the last call since [`RequestParser::reset`].
    ///
    /// `head` must be the same too, and empty at first. After an error the parser must be reset.
    pub fn parse(&mut self, buf: &[u8], limits: &Limits, head: &mut RequestHead) -> Result<Parsed, RequestError> {
        if self.stage == ParserStage::Line {
            let Some(next) = self.line(buf, limits, head)? else { return Ok(Parsed::Incomplete) };
            (self.begin, self.fields_start, self.line_start) = (self.line_start, next, next);
            self.stage = ParserStage::Fields;
        }
        if head.version == 9 {
            return Ok(Parsed::Complete(self.line_start));
        }
        self.fields(buf, limits, head)
    }

    fn line(&mut self, buf: &[u8], limits: &Limits, head: &mut RequestHead) -> Result<Option<usize>, RequestError> {
        // Empty lines before a request are skipped (RFC 9112 §2.2), within reason.
        let rest = buf.get(self.line_start..).unwrap_or_default();
        self.line_start += rest.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(rest.len());
        let start = self.line_start;
        if start > limits.total() {
            return Err(RequestError::TooLongUri);
        }
        self.account.begin(limits);
        let room = self.account.room(limits);
        match request_line::parse(upto(buf, start + room), start, head)? {
            Some(next) => {
                self.account.take(next - start, limits);
                Ok(Some(next))
            }
            None if buf.len() - start < room => Ok(None),
            None => Err(RequestError::TooLongUri),
        }
    }

    fn fields(&mut self, buf: &[u8], limits: &Limits, head: &mut RequestHead) -> Result<Parsed, RequestError> {
        loop {
            let start = self.line_start;
            let room = self.account.room(limits);
            let seen = upto(buf, start + room);
            match parse_line(seen, start, limits.underscores).map_err(invalid)? {
                Line::Field(field, next) => {
                    self.account.take(next - start, limits);
                    self.line_start = next;
                    head.add(field, buf, limits)?;
                }
                Line::End(next) => {
                    self.line_start = next;
                    return Ok(Parsed::Complete(next));
                }
                Line::Partial if buf.len().saturating_sub(start) < room => return Ok(Parsed::Incomplete),
                Line::Partial => return Err(RequestError::TooLongHeader { line: Span::new(start, seen.len()) }),
            }
        }
    }
}

/// What a buffer of nginx would show of `buf`: the answer doesn't depend on how much more has come.
#[inline]
fn upto(buf: &[u8], end: usize) -> &[u8] {
    buf.get(..end).unwrap_or(buf)
}

fn invalid(error: FieldsError) -> RequestError {
    match error {
        FieldsError::Invalid { line, byte } => RequestError::InvalidHeader { line, byte },
        FieldsError::TooMany | FieldsError::Incomplete => RequestError::TooManyHeaders,
    }
}

/// Counts the buffers that nginx would have used.
#[derive(Clone, Debug, Default)]
struct Account {
    used: usize,
    size: usize,
    large: usize,
}

impl Account {
    fn begin(&mut self, limits: &Limits) {
        *self = Account { used: 0, size: limits.header_buffer, large: 0 };
    }

    /// The longest line, with its line end, that a buffer can be found for.
    #[inline]
    fn room(&self, limits: &Limits) -> usize {
        let rest = self.size.saturating_sub(self.used);
        if self.large < limits.buffers { rest.max(limits.line) } else { rest }
    }

    /// A line of this length, at most [`Account::room`], is complete.
    #[inline]
    fn take(&mut self, len: usize, limits: &Limits) {
        if self.used + len <= self.size {
            self.used += len;
        } else {
            *self = Account { used: len, size: limits.line, large: self.large + 1 };
        }
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
