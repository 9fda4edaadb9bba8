//! A response's head, and what ends its body.

use std::os::unix::fs::FileExt;

use buf::{Chain, Piece};
use wire::h1::KnownHeader;
use wire::h2::HeadWriter;
use wire::hpack::Indexing;

use super::websocket;
use crate::body::Broken;
use crate::body::pipeline::read_failed;
use crate::request::Request;
use crate::response::head::{self, HeadSink};
use crate::response::{Body, Header};

/// Bodies up to this many bytes are copied after their heads: a copy costs less than a queue and a piece of their own.
const SMALL: usize = 8 << 10;

/// Queues the head of the response. True: it is the whole response.
pub fn send(r: &mut Request, may_end: bool) -> bool {
    websocket::refuse_success(r);
    let Some(stream) = r.h2_stream() else { return false };
    let ends = may_end && is_empty(r);
    let (shared, key) = (stream.shared(), stream.key());
    let mut protocol = shared.protocol.borrow_mut();
    let before = protocol.unsent_heads();
    let chunk = r.location.set.get::<super::conf::Http2Location>().http2_chunk_size;
    protocol.set_chunk_size(key, u32::try_from(chunk).unwrap_or(u32::MAX));
    // A stream that is gone is noticed with the body.
    let _ = protocol.send_head(key, ends, |fields| head::write(r, &mut Fields(fields)));
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

/// Sends a body after the head that was sent just now, if it is small and can go out at once; it ends the response then.
pub fn send_small(r: &Request, body: &Chain) -> Result<bool, Broken> {
    let Some(stream) = r.h2_stream() else { return Ok(false) };
    let response = &r.response;
    if !response.trailers.is_empty() || response.late_trailers.is_some() {
        return Ok(false);
    }
    let sent = match body.pieces() {
        [Piece::Bytes(bytes)] if bytes.len() <= SMALL => stream.send_small(bytes.len(), |place| {
            place.copy_from_slice(bytes);
            Ok(())
        }),
        [Piece::File(range)] if range.len <= SMALL as u64 => {
            stream.send_small(range.len as usize, |place| range.file.read_exact_at(place, range.offset))
        }
        _ => Ok(false),
    };
    sent.map_err(|error| read_failed(r, &error))
}

/// Marks what is sent next as the end of the response, with the trailers that belong to it.
pub fn finish(r: &mut Request) {
    if r.h2_stream().is_none() {
        return;
    }
    let trailers = r.take_trailers();
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
    let no_trailers = response.trailers.is_empty() && response.late_trailers.is_none();
    response.header_only || (no_body && no_trailers && response.filters.is_empty())
}

/// A head as fields of HPACK.
struct Fields<'h, 'w>(&'h mut HeadWriter<'w>);

impl HeadSink for Fields<'_, '_> {
    fn begin(&mut self, r: &Request) {
        let response = &r.response;
        self.0.status(response.status);
        if !response.own_server {
            let token = head::server_token(r.location.core.server_tokens);
            self.0.known(KnownHeader::Server, token.as_bytes(), Indexing::Incremental);
        }
        if !response.own_date {
            let date = &engine::clock::times().http_date;
            self.0.known(KnownHeader::Date, date.as_bytes(), Indexing::Incremental);
        }
    }

    fn common(&mut self, known: KnownHeader, value: &[u8]) {
        self.0.known(known, value, Indexing::Incremental);
    }

    fn field(&mut self, known: KnownHeader, value: &[u8]) {
        self.0.known(known, value, Indexing::Without);
    }

    fn content_type(&mut self, value: &[u8], charset: Option<&[u8]>) {
        match charset {
            Some(charset) => {
                let value = [value, b"; charset=", charset].concat();
                self.0.known(KnownHeader::ContentType, &value, Indexing::Incremental);
            }
            None => self.0.known(KnownHeader::ContentType, value, Indexing::Incremental),
        }
    }

    fn other(&mut self, field: &Header) {
        match field.known {
            KnownHeader::Other => self.0.field(&field.name, &field.value, Indexing::Without),
            known if is_connection_specific(known) => {}
            known => self.0.known(known, &field.value, Indexing::Without),
        }
    }
}

/// Fields that mustn't be in HTTP/2 (RFC 9113 §8.2.2).
fn is_connection_specific(known: KnownHeader) -> bool {
    matches!(
        known,
        KnownHeader::Connection
            | KnownHeader::KeepAlive
            | KnownHeader::ProxyConnection
            | KnownHeader::TransferEncoding
            | KnownHeader::Upgrade
    )
}

#[cfg(test)]
mod tests {
    use wire::h1::KnownHeader;

    use super::is_connection_specific;

    #[test]
    fn fields_of_connections() {
        for (name, expect) in [("Connection", true), ("upgrade", true), ("Content-Type", false), ("", false)] {
            assert_eq!(is_connection_specific(KnownHeader::of(name.as_bytes())), expect, "{name}");
        }
    }
}
