//! A response's head, and what ends its body.

use wire::h2::HeadWriter;
use wire::hpack::Indexing;

use super::websocket;
use crate::request::Request;
use crate::response::Body;
use crate::response::field::secure_fields;
use crate::response::output;

/// Queues the head of the response, in nginx's order of fields. True: it is the whole response.
pub fn send(r: &mut Request, location: Option<buf::Bytes>, may_end: bool) -> bool {
    websocket::refuse_success(r);
    let Some(stream) = r.h2_stream() else { return false };
    let ends = may_end && is_empty(r);
    let (shared, key) = (stream.shared(), stream.key());
    let mut protocol = shared.protocol.borrow_mut();
    let before = protocol.unsent_heads();
    let chunk = r.location.set.get::<super::conf::Http2Location>().http2_chunk_size;
    protocol.set_chunk_size(key, u32::try_from(chunk).unwrap_or(u32::MAX));
    // A stream that is gone is noticed with the body.
    let _ = protocol.send_head(key, ends, |head| write(r, location.as_deref(), head));
    let sent = (protocol.unsent_heads() - before) as u64;
    drop(protocol);
    stream.count(sent);
    if ends {
        stream.end_sent();
    }
    shared.wake();
    r.header_sent = sent;
    ends
}

/// Marks what is sent next as the end of the response, with the trailers that belong to it.
pub fn finish(r: &mut Request) {
    if r.h2_stream().is_none() {
        return;
    }
    if let Some(add) = r.response.late_trailers.take() {
        add(r);
    }
    let mut trailers = std::mem::take(&mut r.response.trailers);
    secure_fields(r, &mut trailers);
    if let Some(stream) = r.h2_stream() {
        stream.end_with(trailers);
    }
}

/// Whether nothing follows the head.
fn is_empty(r: &Request) -> bool {
    let response = &r.response;
    let no_body = match &response.body {
        Body::Empty => true,
        Body::Chain(chain) => chain.is_empty(),
        Body::Stream(_) => false,
    };
    let no_trailers = response.trailers.0.is_empty() && response.late_trailers.is_none();
    response.header_only || (no_body && no_trailers && response.filters.is_empty())
}

fn write(r: &Request, location: Option<&[u8]>, head: &mut HeadWriter<'_>) {
    let response = &r.response;
    head.status(response.status);
    if !response.own_server {
        let token = output::server_token(r.location.core.server_tokens);
        head.field(b"server", token.as_bytes(), Indexing::Incremental);
    }
    if !response.own_date {
        head.field(b"date", engine::clock::times().http_date.as_bytes(), Indexing::Incremental);
    }
    content_type(r, head);
    if let Some(length) = response.content_length {
        head.field(b"content-length", buf::text::decimal(length, &mut [0; 20]), Indexing::Without);
    }
    if let Some(time) = response.last_modified {
        head.field(b"last-modified", &wire::date::format_http_time(time), Indexing::Without);
    }
    if let Some(location) = location {
        head.field(b"location", location, Indexing::Without);
    }
    if output::gzip_varies(r) {
        head.field(b"vary", b"Accept-Encoding", Indexing::Incremental);
    }
    if let Some(etag) = &response.etag {
        head.field(b"etag", etag, Indexing::Without);
    }
    for field in &response.headers.0 {
        if !is_connection_specific(&field.name) {
            head.field(&field.name, &field.value, Indexing::Without);
        }
    }
}

fn content_type(r: &Request, head: &mut HeadWriter<'_>) {
    let (Some(value), charset) = (&r.response.content_type, &r.response.charset) else { return };
    match charset {
        Some(charset) => {
            let value = [value, &b"; charset="[..], charset].concat();
            head.field(b"content-type", &value, Indexing::Incremental);
        }
        None => head.field(b"content-type", value, Indexing::Incremental),
    }
}

/// Fields that mustn't be in HTTP/2 (RFC 9113 §8.2.2).
fn is_connection_specific(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 5] = [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];
    NAMES.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden))
}

#[cfg(test)]
mod tests {
    use super::is_connection_specific;

    #[test]
    fn fields_of_connections() {
        for (name, expect) in [("Connection", true), ("upgrade", true), ("Content-Type", false), ("", false)] {
            assert_eq!(is_connection_specific(name.as_bytes()), expect, "{name}");
        }
    }
}
