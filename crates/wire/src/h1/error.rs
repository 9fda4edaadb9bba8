//! What a client did wrong, with nginx's words for it.

use std::fmt;

use super::known::KnownHeader;
use crate::span::Span;

/// Which part of a request was being read; nginx's logs name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The request line.
    Line,
    /// The header lines, and the rules over all of them.
    Headers,
}

impl Stage {
    /// The end of nginx's log line: "… while reading client request line".
    pub fn action(self) -> &'static str {
        match self {
            Stage::Line => "reading client request line",
            Stage::Headers => "reading client request headers",
        }
    }
}

/// Why a request was refused. Spans are offsets in the buffer that was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The method has bytes it must not have, or there is none.
    InvalidMethod,
    /// HTTP/0.9 knows GET alone.
    InvalidMethod09,
    /// Anything else that is wrong with the request line.
    InvalidRequest,
    /// The URI's host is empty or not a host.
    InvalidLineHost,
    /// HTTP/2.0 and above.
    InvalidVersion,
    /// The request line doesn't fit into a large buffer.
    TooLongUri,
    /// A header line has bytes it must not have: its bytes before, and the byte.
    InvalidHeader {
        /// The line up to the offending byte.
        line: Span,
        /// The offending byte.
        byte: u8,
    },
    /// A header line doesn't fit into a large buffer, or into the last one.
    TooLongHeader {
        /// The line as far as it was read.
        line: Span,
    },
    /// More header lines than `max_headers`.
    TooManyHeaders,
    /// The Host header isn't a host.
    InvalidHost,
    /// A header that must be alone came twice.
    Duplicate {
        /// Which one.
        known: KnownHeader,
        /// Name of the second.
        name: Span,
        /// Value of the second.
        value: Span,
        /// Name of the first.
        previous_name: Span,
        /// Value of the first.
        previous_value: Span,
    },
    /// HTTP/1.1 without Host.
    NoHost,
    /// Content-Length isn't a number below 2⁶³.
    InvalidContentLength,
    /// Transfer-Encoding in HTTP/1.0.
    EncodingIn10,
    /// Both Content-Length and Transfer-Encoding.
    LengthAndEncoding,
    /// A Transfer-Encoding other than `chunked`.
    UnknownEncoding {
        /// Its value.
        value: Span,
    },
    /// TRACE isn't served.
    Trace,
    /// CONNECT isn't served where no tunnel is configured.
    Connect,
    /// CONNECT with a body.
    ConnectBody,
}

impl RequestError {
    /// What was being read.
    pub fn stage(self) -> Stage {
        match self {
            RequestError::InvalidMethod
            | RequestError::InvalidMethod09
            | RequestError::InvalidRequest
            | RequestError::InvalidLineHost
            | RequestError::InvalidVersion
            | RequestError::TooLongUri => Stage::Line,
            _ => Stage::Headers,
        }
    }

    /// nginx's text for the error log, at level info, without the action; `buf` is what was parsed.
    pub fn text(self, buf: &[u8]) -> impl fmt::Display {
        RequestErrorText { error: self, buf }
    }
}

struct RequestErrorText<'a> {
    error: RequestError,
    buf: &'a [u8],
}

impl fmt::Display for RequestErrorText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |span: Span| Lossy(span.of(self.buf));
        match self.error {
            RequestError::InvalidMethod => f.write_str("client sent invalid method"),
            RequestError::InvalidMethod09 => f.write_str("client sent invalid method in HTTP/0.9 request"),
            RequestError::InvalidRequest => f.write_str("client sent invalid request"),
            RequestError::InvalidLineHost => f.write_str("client sent invalid host in request line"),
            RequestError::InvalidVersion => f.write_str("client sent invalid version"),
            RequestError::TooLongUri => f.write_str("client sent too long URI"),
            RequestError::InvalidHeader { line, byte } => {
                write!(f, "client sent invalid header line: \"{}\\x{byte:02x}...\"", text(line))
            }
            RequestError::TooLongHeader { line } if line.is_empty() => f.write_str("client sent too large request"),
            RequestError::TooLongHeader { line } => {
                let shown = Span { end: line.end.min(line.start.saturating_add(MAX_SHOWN)), ..line };
                write!(f, "client sent too long header line: \"{}...\"", text(shown))
            }
            RequestError::TooManyHeaders => f.write_str("client sent too many header lines"),
            RequestError::InvalidHost => f.write_str("client sent invalid host header"),
            RequestError::Duplicate { known, name, value, previous_name, previous_value } => {
                let what = if known == KnownHeader::Host { "host header" } else { "header line" };
                let (name, value) = (text(name), text(value));
                let (previous_name, previous_value) = (text(previous_name), text(previous_value));
                write!(f, "client sent duplicate {what}: \"{name}: {value}\", ")?;
                write!(f, "previous value: \"{previous_name}: {previous_value}\"")
            }
            RequestError::NoHost => f.write_str("client sent HTTP/1.1 request without \"Host\" header"),
            RequestError::InvalidContentLength => f.write_str("client sent invalid \"Content-Length\" header"),
            RequestError::EncodingIn10 => f.write_str("client sent HTTP/1.0 request with \"Transfer-Encoding\" header"),
            RequestError::LengthAndEncoding => {
                f.write_str("client sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time")
            }
            RequestError::UnknownEncoding { value } => {
                write!(f, "client sent unknown \"Transfer-Encoding\": \"{}\"", text(value))
            }
            RequestError::Trace => f.write_str("client sent TRACE method"),
            RequestError::Connect => f.write_str("client sent CONNECT method"),
            RequestError::ConnectBody => f.write_str("client sent CONNECT request with body"),
        }
    }
}

/// How much of an over-long header line a log shows.
const MAX_SHOWN: u32 = 1748;

/// Peer bytes in a message: what isn't UTF-8 is replaced.
pub(super) struct Lossy<'a>(pub(super) &'a [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&buf::text::encode(self.0))
    }
}
