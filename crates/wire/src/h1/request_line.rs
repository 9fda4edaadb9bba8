//! The request line: method, URI in its three forms, version.

use super::error::RequestError;
use super::request::{Method, RequestHead};
use crate::class::{ARGS_STOP, METHOD, PATH_STOP, SCHEME, is};
use crate::span::Span;
use crate::uri::{is_line_name, scan_host};

type Step<T> = Result<Option<T>, RequestError>;

/// Parses the line of `buf` that begins at `start`; the offset after its LF, `None` if that hasn't come.
pub(super) fn parse(buf: &[u8], start: usize, head: &mut RequestHead) -> Step<usize> {
    let (stop, id) = match buf.get(start..start + 4) {
        // As most requests begin.
        Some(b"GET ") => (start + 3, Method::Get),
        _ => {
            let Some(stop) = find(buf, start, |b| !is(b, METHOD)) else { return Ok(None) };
            if byte(buf, stop) != Some(b' ') || stop == start {
                return Err(RequestError::InvalidMethod);
            }
            (stop, method(Span::new(start, stop).of(buf)))
        }
    };
    (head.method, head.method_id) = (Span::new(start, stop), id);
    let Some(at) = find(buf, stop, |b| b != b' ') else { return Ok(None) };
    let after = match byte(buf, at) {
        _ if head.method_id == Method::Connect => authority_form(buf, at, head),
        Some(b'/') => path(buf, at, at, head),
        Some(b) if b.is_ascii_alphabetic() => absolute_form(buf, at, head),
        _ => Err(RequestError::InvalidRequest),
    }?;
    let Some(after) = after else { return Ok(None) };
    rest(buf, start, after, head)
}

/// Parses the path, with arguments and fragment, that begins at `start` and ends at a space; the offset of that.
pub(crate) fn parse_path(buf: &[u8], start: usize, head: &mut RequestHead) -> Result<usize, RequestError> {
    match byte(buf, start) {
        Some(b'/') => path(buf, start, start, head)?.ok_or(RequestError::InvalidRequest),
        _ => Err(RequestError::InvalidRequest),
    }
}

/// The method of this text; whether it may be one at all is the first result.
pub(crate) fn parse_method(text: &[u8]) -> (bool, Method) {
    (!text.is_empty() && text.iter().all(|&b| is(b, METHOD)), method(text))
}

/// `CONNECT host:port` (RFC 9112 §3.2.3).
fn authority_form(buf: &[u8], at: usize, head: &mut RequestHead) -> Step<usize> {
    let Some(end) = find(buf, at, |b| is(b, ARGS_STOP)) else { return Ok(None) };
    authority(buf, at, end, head).map_err(|_| RequestError::InvalidRequest)?;
    if byte(buf, end) != Some(b' ') || head.uri_port.is_none() {
        return Err(RequestError::InvalidRequest);
    }
    (head.uri_path, head.target) = (Span::new(end, end), Span::new(end, end));
    head.empty_path_in_uri = true;
    Ok(Some(end))
}

/// `scheme://host:port/path` (RFC 9112 §3.2.2).
fn absolute_form(buf: &[u8], at: usize, head: &mut RequestHead) -> Step<usize> {
    let Some(colon) = find(buf, at, |b| !is(b, SCHEME)) else { return Ok(None) };
    for (i, expect) in b"://".iter().enumerate() {
        match byte(buf, colon + i) {
            None => return Ok(None),
            Some(b) if b == *expect => {}
            Some(_) => return Err(RequestError::InvalidRequest),
        }
    }
    head.schema = Some(Span::new(at, colon));
    let host = colon + 3;
    let Some(end) = find(buf, host, |b| is(b, ARGS_STOP) || matches!(b, b'/' | b'?')) else { return Ok(None) };
    authority(buf, host, end, head)?;
    match byte(buf, end) {
        Some(b'/') => path(buf, end, end, head),
        Some(b'?') => {
            head.uri_path = Span::new(end, end);
            head.empty_path_in_uri = true;
            args(buf, end, end, head)
        }
        Some(b' ') => {
            (head.uri_path, head.target) = (Span::new(end, end), Span::new(end, end));
            head.empty_path_in_uri = true;
            Ok(Some(end))
        }
        _ => Err(RequestError::InvalidRequest),
    }
}

fn authority(buf: &[u8], start: usize, end: usize, head: &mut RequestHead) -> Result<(), RequestError> {
    let text = Span::new(start, end).of(buf);
    if text.is_empty() || text.starts_with(b":") {
        return Err(RequestError::InvalidLineHost);
    }
    let host = scan_host(text).map_err(|_| RequestError::InvalidRequest)?;
    if !is_line_name(text.get(..host.len).unwrap_or_default()) {
        return Err(RequestError::InvalidRequest);
    }
    head.uri_host = Some(Span::new(start, start + host.len));
    head.uri_port = host.port;
    Ok(())
}

/// From the `/` at `at` to the end of the URI, which begins at `start`.
fn path(buf: &[u8], start: usize, at: usize, head: &mut RequestHead) -> Step<usize> {
    let mut p = at;
    loop {
        let Some(stop) = find(buf, p, |b| is(b, PATH_STOP)) else { return Ok(None) };
        match byte(buf, stop) {
            Some(b'/') => match byte(buf, stop + 1) {
                None => return Ok(None),
                Some(b'/' | b'.') => head.complex_uri = true,
                Some(_) => {}
            },
            Some(b'%') => (head.quoted_uri, head.complex_uri) = (true, true),
            Some(b'+') => head.plus_in_uri = true,
            Some(b'?') => {
                head.uri_path = Span::new(at, stop);
                return args(buf, start, stop, head);
            }
            Some(b'#') => {
                head.uri_path = Span::new(at, stop);
                return fragment(buf, start, stop, head);
            }
            Some(b' ' | b'\r' | b'\n') => {
                (head.uri_path, head.target) = (Span::new(at, stop), Span::new(start, stop));
                return Ok(Some(stop));
            }
            _ => return Err(RequestError::InvalidRequest),
        }
        p = stop + 1;
    }
}

/// From the `?` at `at` to the end of the URI.
fn args(buf: &[u8], start: usize, at: usize, head: &mut RequestHead) -> Step<usize> {
    let Some(stop) = find(buf, at + 1, |b| is(b, ARGS_STOP)) else { return Ok(None) };
    head.args = Some(Span::new(at + 1, stop));
    match byte(buf, stop) {
        Some(b'#') => fragment(buf, start, stop, head),
        Some(b' ' | b'\r' | b'\n') => {
            head.target = Span::new(start, stop);
            Ok(Some(stop))
        }
        _ => Err(RequestError::InvalidRequest),
    }
}

/// From the `#` at `at` to the end of the URI.
fn fragment(buf: &[u8], start: usize, at: usize, head: &mut RequestHead) -> Step<usize> {
    let Some(stop) = find(buf, at, |b| b <= b' ' || b == 0x7f) else { return Ok(None) };
    if !matches!(byte(buf, stop), Some(b' ' | b'\r' | b'\n')) {
        return Err(RequestError::InvalidRequest);
    }
    head.target = Span::new(start, stop);
    Ok(Some(stop))
}

/// What follows the URI: nothing (HTTP/0.9), or spaces and a version.
fn rest(buf: &[u8], start: usize, at: usize, head: &mut RequestHead) -> Step<usize> {
    let Some(p) = find(buf, at, |b| b != b' ') else { return Ok(None) };
    match byte(buf, p) {
        Some(b'\r' | b'\n') => {
            let Some(next) = line_end(buf, p)? else { return Ok(None) };
            head.version = 9;
            if head.method_id != Method::Get {
                return Err(RequestError::InvalidMethod09);
            }
            head.request_line = Span::new(start, p);
            Ok(Some(next))
        }
        first => {
            if first == Some(b'H') {
                head.protocol = Span::new(p, p);
            }
            let Some((version, after)) = version(buf, p)? else { return Ok(None) };
            let Some(end) = find(buf, after, |b| b != b' ') else { return Ok(None) };
            let Some(next) = line_end(buf, end)? else { return Ok(None) };
            head.version = version;
            (head.request_line, head.protocol) = (Span::new(start, end), Span::new(p, end));
            Ok(Some(next))
        }
    }
}

/// `HTTP/1.1` at `at`; the version and the offset after it.
fn version(buf: &[u8], at: usize) -> Step<(u16, usize)> {
    if let Some(digits) = buf.get(at..at + 8)
        && digits.starts_with(b"HTTP/1.")
        && let Some(minor @ b'0'..=b'9') = digits.last()
        && buf.get(at + 8).is_some_and(|b| !b.is_ascii_digit())
    {
        return Ok(Some((1000 + u16::from(minor - b'0'), at + 8)));
    }
    odd_version(buf, at)
}

#[cold]
fn odd_version(buf: &[u8], at: usize) -> Step<(u16, usize)> {
    for (i, expect) in b"HTTP/".iter().enumerate() {
        match byte(buf, at + i) {
            None => return Ok(None),
            Some(b) if b == *expect => {}
            Some(_) => return Err(RequestError::InvalidRequest),
        }
    }
    let major = at + 5;
    match (byte(buf, major), byte(buf, major + 1)) {
        (None, _) => return Ok(None),
        (Some(b'2'..=b'9'), _) | (Some(b'1'), Some(b'0'..=b'9')) => return Err(RequestError::InvalidVersion),
        (Some(b'1'), None) => return Ok(None),
        (Some(b'1'), Some(b'.')) => {}
        _ => return Err(RequestError::InvalidRequest),
    }
    let mut minor = 0u16;
    let mut p = major + 2;
    loop {
        match byte(buf, p) {
            None => return Ok(None),
            Some(b @ b'0'..=b'9') if minor <= 99 => minor = minor * 10 + u16::from(b - b'0'),
            Some(b' ' | b'\r' | b'\n') if p > major + 2 => return Ok(Some((1000 + minor, p))),
            Some(_) => return Err(RequestError::InvalidRequest),
        }
        p += 1;
    }
}

/// LF or CRLF at `at`; the offset after it.
fn line_end(buf: &[u8], at: usize) -> Step<usize> {
    match (byte(buf, at), byte(buf, at + 1)) {
        (Some(b'\n'), _) => Ok(Some(at + 1)),
        (Some(b'\r'), Some(b'\n')) => Ok(Some(at + 2)),
        (None, _) | (Some(b'\r'), None) => Ok(None),
        _ => Err(RequestError::InvalidRequest),
    }
}

#[inline(always)]
fn byte(buf: &[u8], at: usize) -> Option<u8> {
    buf.get(at).copied()
}

/// The first offset from `at` on whose byte `stops`.
#[inline(always)]
fn find(buf: &[u8], at: usize, stops: impl Fn(u8) -> bool) -> Option<usize> {
    buf.get(at..)?.iter().position(|&b| stops(b)).map(|n| at + n)
}

fn method(name: &[u8]) -> Method {
    match name {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        b"PUT" => Method::Put,
        b"DELETE" => Method::Delete,
        b"MKCOL" => Method::Mkcol,
        b"COPY" => Method::Copy,
        b"MOVE" => Method::Move,
        b"OPTIONS" => Method::Options,
        b"PROPFIND" => Method::Propfind,
        b"PROPPATCH" => Method::Proppatch,
        b"LOCK" => Method::Lock,
        b"UNLOCK" => Method::Unlock,
        b"PATCH" => Method::Patch,
        b"TRACE" => Method::Trace,
        b"CONNECT" => Method::Connect,
        _ => Method::Other,
    }
}
