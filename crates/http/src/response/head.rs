//! The head of a response: the fields about body and connection, and the order of all fields, for every receiver.

use std::cell::RefCell;

use buf::Bytes;
use wire::h1::{KnownHeader, Method};

use super::gzip::GzipConf;
use super::{Header, Place, browser};
use crate::config::core::{CoreLocation, ServerTokens};
use crate::request::{Ending, Request};

/// What a response's head is written to: a message of a protocol, or a list in memory.
pub trait HeadSink {
    /// The status, then `Server` and `Date` unless the response has its own.
    fn begin(&mut self, r: &Request);

    /// A field whose value is the same in many responses.
    fn common(&mut self, known: KnownHeader, value: &[u8]);

    /// A field whose value differs in each response.
    fn field(&mut self, known: KnownHeader, value: &[u8]);

    /// `Content-Type`, with a charset or without.
    fn content_type(&mut self, value: &[u8], charset: Option<&[u8]>);

    /// Fields about the connection and the framing of the body, if the protocol has them.
    fn connection(&mut self, _r: &Request) {}

    /// A field with any name.
    fn other(&mut self, field: &Header);
}

/// Writes the head of a response whose fields are safe.
#[inline]
pub fn write(r: &Request, sink: &mut impl HeadSink) {
    sink.begin(r);
    let response = &r.response;
    if let Some(value) = &response.content_type {
        sink.content_type(value, response.charset.as_deref());
    }
    if let Some(length) = response.content_length {
        sink.field(KnownHeader::ContentLength, buf::number::digits(length, &mut [0; 20]));
    }
    if let Some(time) = response.last_modified {
        with_http_time(time, |text| sink.field(KnownHeader::LastModified, text));
    }
    let headers = &response.headers;
    if let Some(location) = headers.fixed(KnownHeader::Location) {
        sink.field(KnownHeader::Location, location);
    }
    sink.connection(r);
    if gzip_varies(r) {
        sink.common(KnownHeader::Vary, b"Accept-Encoding");
    }
    if let Some(etag) = headers.fixed(KnownHeader::ETag) {
        sink.field(KnownHeader::ETag, etag);
    }
    for header in headers.iter().filter(|header| header.place == Place::Listed) {
        sink.other(header);
    }
}

/// How many times are remembered with their texts.
const TIMES: usize = 64;

/// A time in seconds since 1970, and its text.
type TimeText = (i64, [u8; 29]);

thread_local! {
    /// Times of files that were requested lately, each at the place that its last bits say.
    static TIME_TEXTS: RefCell<[Option<TimeText>; TIMES]> = const { RefCell::new([None; TIMES]) };
}

/// Calls `write` with the text of a time. That of a file's change is the same in each of its responses.
fn with_http_time(time: i64, write: impl FnOnce(&[u8])) {
    TIME_TEXTS.with_borrow_mut(|texts| {
        let known = &mut texts[time.rem_euclid(TIMES as i64) as usize];
        known.take_if(|(other, _)| *other != time);
        let (_, text) = known.get_or_insert_with(|| (time, wire::date::format_http_time(time)));
        write(text);
    });
}

/// Whether `Vary: Accept-Encoding` is sent.
pub(crate) fn gzip_varies(r: &Request) -> bool {
    r.response.gzip_vary && r.location.set.get::<GzipConf>().gzip_vary
}

/// The name of the server in `Server` and in error pages.
pub fn server_token(tokens: ServerTokens) -> &'static str {
    let names = engine::server_names();
    match tokens {
        ServerTokens::Off => names.name,
        ServerTokens::On => &names.version,
        ServerTokens::Build => &names.build,
    }
}

/// Decides whether there is a body, whether it is chunked, and whether the connection is kept.
pub(crate) fn decide(r: &mut Request) {
    let chunked_transfer_encoding = r.location.core.chunked_transfer_encoding;
    let chunks = (1001..2000).contains(&r.line.version) && chunked_transfer_encoding && !r.response.headless;
    // Fields of a backend are kept, of stored responses too.
    let fetched = r.upstream.as_ref().is_some_and(|exchange| !exchange.left.get());
    let response = &mut r.response;
    let own = !response.disable_not_modified && !fetched;
    if own && !matches!(response.status, 200 | 206 | 304) {
        response.last_modified = None;
    }
    if response.content_type.as_ref().is_some_and(|value| value.is_empty()) {
        response.content_type = None;
    }
    if matches!(response.status, 204 | 304) || response.status < 200 {
        response.header_only = true;
        if response.status != 304 {
            response.content_length = None;
        }
        if own {
            (response.content_type, response.charset) = (None, None);
        }
        // A backend's length is kept: it is that of the response to GET.
        if response.status == 304 && r.upstream.is_none() {
            response.content_length = None;
        }
    } else if r.line.method_id == Method::Head && r.line.version != 9 {
        response.header_only = true;
    }
    if response.late_trailers.is_some() && !response.header_only && chunks {
        response.content_length = None;
    }
    let endless = response.content_length.is_none() && !matches!(response.status, 101 | 204 | 304);
    if endless && chunks {
        response.chunked = !response.header_only;
    } else if endless && !response.header_only {
        r.close_after();
    }
    if r.ending == Ending::Keep && !may_keep(r, &r.location.core) {
        r.ending = Ending::Close;
    }
}

/// Whether the limits allow to keep the connection.
fn may_keep(r: &Request, core: &CoreLocation) -> bool {
    core.keepalive_timeout.0 > 0
        && (r.conn.requests as usize) < core.keepalive_requests
        && rt::now_ms().saturating_sub(r.conn.started_ms) < core.keepalive_time
        && r.link.as_ref().is_some_and(|link| r.http.worker.keeps(link))
        && !(core.keepalive_disable > 1 && disabled_browser(r, core.keepalive_disable))
}

fn disabled_browser(r: &Request, disable: u32) -> bool {
    let (msie6, safari) = (disable & 2 != 0 && r.line.method_id == Method::Post, disable & 4 != 0);
    if !msie6 && !safari {
        return false;
    }
    let agent = r.header(KnownHeader::UserAgent).unwrap_or_default();
    msie6 && browser::is_msie6(agent) || safari && browser::is_safari(agent)
}

/// Completes `Location` to the form that is sent and logged: a path becomes a whole URL if `absolute_redirect` is on.
pub(crate) fn complete_location(r: &mut Request) {
    let Some(location) = r.response.headers.fixed_mut(KnownHeader::Location).map(std::mem::take) else { return };
    let location = whole_location(r, location);
    r.response.headers.set_fixed(KnownHeader::Location, location);
}

/// The value of `Location` to send: a path becomes a whole URL if `absolute_redirect` is on.
fn whole_location(r: &mut Request, location: Bytes) -> Bytes {
    let core = r.location.core.clone();
    if location.first() != Some(&b'/') || !core.absolute_redirect {
        return location;
    }
    let mut out = Vec::with_capacity(location.len() + 64);
    out.extend_from_slice(r.scheme());
    out.extend_from_slice(b"://");
    let local = r.local_addr().clone();
    let name = if core.server_name_in_redirect { &r.server.name[..] } else { &r.host[..] };
    if name.is_empty() {
        out.extend_from_slice(local_text(&local).as_bytes());
    } else {
        out.extend_from_slice(name);
    }
    let port = local.port();
    let default_port = if r.conn.is_secure() { 443 } else { 80 };
    if core.port_in_redirect && port != 0 && port != default_port {
        out.extend_from_slice(b":");
        out.extend_from_slice(buf::number::digits(u64::from(port), &mut [0; 20]));
    }
    out.extend_from_slice(&location);
    Bytes::from(out)
}

fn local_text(local: &os::SockAddr) -> String {
    match local {
        os::SockAddr::V6(addr) => format!("[{}]", addr.ip()),
        other => other.text(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_at_one_place() {
        for time in [0, 784_111_777, 784_111_777 + TIMES as i64, 784_111_777, -1, i64::from(u32::MAX)] {
            with_http_time(time, |text| assert_eq!(text, wire::date::format_http_time(time)));
        }
    }
}
