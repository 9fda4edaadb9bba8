//! Scripted frames, limits, and both sides of a connection against each other.

mod bounds;
mod client;
mod pair;
mod random;
mod script;
mod sending;
mod windows;

use std::fmt::Write;
use std::rc::Rc;

use buf::{Buf, Bytes, Chain, Piece};

use super::frame::{FrameHeader, write_frame};
use super::*;
use crate::hpack::{Decoder, Encoder, FieldLimits, Indexing};

use frame::{Kind, flag};

/// A frame with a payload.
fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Buf::empty();
    write_frame(&mut out, kind, flags, stream, payload);
    out.to_vec()
}

/// A header block that touches no dynamic table.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let (mut encoder, mut out) = (Encoder::new(), Buf::empty());
    for (name, value) in fields {
        // Not through the encoder where that would make capitals small.
        if name.bytes().any(|b| b.is_ascii_uppercase()) {
            out.extend_from_slice(&[0, name.len() as u8]);
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&[value.len() as u8]);
            out.extend_from_slice(value.as_bytes());
        } else {
            encoder.field(name.as_bytes(), value.as_bytes(), Indexing::Without, &mut out);
        }
    }
    out.to_vec()
}

const GET: &[(&str, &str)] = &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "localhost")];

/// The block of [`GET`] with more fields.
fn get_with(more: &[(&str, &str)]) -> Vec<u8> {
    block(&[GET, more].concat())
}

/// HEADERS of a request without a body.
fn get(stream: u32) -> Vec<u8> {
    frame(Kind::Headers, flag::END_HEADERS | flag::END_STREAM, stream, &block(GET))
}

/// HEADERS of a request with a body to come.
fn post(stream: u32) -> Vec<u8> {
    frame(Kind::Headers, flag::END_HEADERS, stream, &block(GET))
}

fn bytes_of(chain: &Chain) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in chain.pieces() {
        match piece {
            Piece::Bytes(bytes) => out.extend_from_slice(bytes),
            Piece::File(range) => out.extend(std::iter::repeat_n(b'F', range.len as usize)),
        }
    }
    out
}

/// Everything a connection wants to send now.
fn transmit(connection: &mut Connection) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(chain) = connection.poll_transmit(65_536) {
        connection.check_invariants();
        assert!(!chain.is_empty());
        out.extend(bytes_of(&chain));
    }
    assert!(!connection.wants_transmit());
    out
}

/// A server that has had the preface and has sent its own.
fn server(config: Config) -> Connection {
    let mut connection = Connection::server(Rc::new(config));
    transmit(&mut connection);
    let mut input = Bytes::copy_from(PREFACE);
    assert_eq!(connection.handle(0, &mut input), Ok(None));
    connection
}

/// Feeds bytes and names the events.
fn feed(connection: &mut Connection, input: &[u8]) -> Result<Vec<Event>, ConnectionError> {
    feed_at(connection, 0, input)
}

fn feed_at(connection: &mut Connection, now_ms: u64, input: &[u8]) -> Result<Vec<Event>, ConnectionError> {
    let (mut input, mut events) = (Bytes::copy_from(input), Vec::new());
    while let Some(event) = connection.handle(now_ms, &mut input)? {
        connection.check_invariants();
        events.push(event);
    }
    assert!(input.is_empty());
    Ok(events)
}

/// The stream of the first event that has one.
fn stream_of(events: &[Event]) -> StreamKey {
    let stream = |event: &Event| match event {
        Event::Request { stream, .. }
        | Event::Response { stream, .. }
        | Event::Data { stream, .. }
        | Event::Trailers { stream }
        | Event::BadBody { stream, .. }
        | Event::Reset { stream, .. } => Some(*stream),
        Event::GoAway { .. } | Event::SettingsAcked | Event::Pong(_) => None,
    };
    events.iter().find_map(stream).expect("an event of a stream")
}

/// Events in words.
fn words(events: &[Event]) -> String {
    let mut out = String::new();
    for event in events {
        let _ = match event {
            Event::Request { stream, end_stream } => write!(out, "request {} {end_stream}; ", stream.id()),
            Event::Response { stream, end_stream } => write!(out, "response {} {end_stream}; ", stream.id()),
            Event::Data { stream, bytes, end_stream } => {
                write!(out, "data {} {} {end_stream}; ", stream.id(), bytes.escape_ascii())
            }
            Event::Trailers { stream } => write!(out, "trailers {}; ", stream.id()),
            Event::BadBody { stream, missing } => write!(out, "bad body {} {missing}; ", stream.id()),
            Event::Reset { stream, code, reason } => {
                write!(out, "reset {} {code:?} {}; ", stream.id(), if reason.is_some() { "ours" } else { "peer" })
            }
            Event::GoAway { last_stream, code } => write!(out, "go away {last_stream} {code:?}; "),
            Event::SettingsAcked => write!(out, "acked; "),
            Event::Pong(data) => write!(out, "pong {}; ", data.escape_ascii()),
        };
    }
    out.trim_end_matches("; ").to_owned()
}

/// Sent frames in words.
fn frames(bytes: &[u8]) -> String {
    frames_with(&mut Decoder::new(), bytes)
}

fn frames_with(decoder: &mut Decoder, bytes: &[u8]) -> String {
    let (mut out, mut rest) = (String::new(), bytes);
    while let Some((header, behind)) = rest.split_first_chunk() {
        let header = FrameHeader::parse(header);
        let (payload, behind) = behind.split_at(header.length as usize);
        let FrameHeader { kind, flags, stream, length } = header;
        let _ = match kind {
            Kind::Data => write!(out, "DATA {stream} {length} {flags}; "),
            Kind::Headers => write!(out, "HEADERS {stream} {flags} {}; ", fields(decoder, payload)),
            Kind::Continuation => write!(out, "CONTINUATION {stream} {flags} {length}; "),
            Kind::Reset => write!(out, "RST {stream} {:?}; ", Code(number(payload, 0))),
            Kind::GoAway => write!(out, "GOAWAY {} {:?}; ", number(payload, 0), Code(number(payload, 4))),
            Kind::WindowUpdate => write!(out, "WINDOW {stream} {}; ", number(payload, 0)),
            Kind::Ping => write!(out, "PING {flags} {}; ", payload.escape_ascii()),
            Kind::Settings => write!(out, "SETTINGS {flags} {}; ", settings(payload)),
            other => write!(out, "{other:?}; "),
        };
        rest = behind;
    }
    assert!(rest.is_empty());
    out.trim_end_matches("; ").to_owned()
}

fn number(payload: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(payload[at..at + 4].try_into().unwrap())
}

fn settings(payload: &[u8]) -> String {
    let one = |p: &[u8]| format!("{}={}", u16::from_be_bytes([p[0], p[1]]), number(p, 2));
    payload.chunks(6).map(one).collect::<Vec<_>>().join(",")
}

fn fields(decoder: &mut Decoder, payload: &[u8]) -> String {
    let (mut text, mut rest, mut out) = (Buf::empty(), payload, String::new());
    decoder.begin();
    while let Ok(Some(field)) = decoder.next(&mut rest, &mut text, FieldLimits { field: 1 << 20, text: 1 << 22 }) {
        let (name, value) = (field.name.of(&text), field.value.of(&text));
        let _ = write!(out, "{}={},", name.escape_ascii(), value.escape_ascii());
    }
    out.trim_end_matches(',').to_owned()
}
