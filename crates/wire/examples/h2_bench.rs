//! HPACK and HTTP/2: nanoseconds per step. `cargo run --release -p wire --example h2_bench`
use std::hint::black_box;
use std::rc::Rc;
use std::time::Instant;

use buf::{Buf, Bytes, Chain};
use wire::h2::frame::{FrameHeader, Kind};
use wire::h2::{Config, Connection, Event, PREFACE, StreamKey};
use wire::hpack::{Decoder, Encoder, FieldLimits, Indexing, huffman};

const AGENT: &[u8] =
    b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";

const REQUEST: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/static/js/app.3f2a1b.js?v=20261122"),
    (":authority", "www.example.com"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-US,en;q=0.9"),
    ("cookie", "session=8f14e45fceea167a5a36dedd4bea2543; theme=dark"),
    ("referer", "https://www.example.com/index.html"),
];

const LIMITS: FieldLimits = FieldLimits { field: 8192, text: 32768 };

fn time(name: &str, per: u32, mut run: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..600 {
        let start = Instant::now();
        for _ in 0..25 {
            run();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / 25.0 / f64::from(per));
    }
    println!("{name:44} {best:8.1} ns");
}

fn block(encoder: &mut Encoder, fields: &[(&str, &str)], indexing: Indexing) -> Buf {
    let mut out = Buf::with_capacity(1024);
    encoder.begin(&mut out);
    for (name, value) in fields {
        encoder.field(name.as_bytes(), value.as_bytes(), indexing, &mut out);
    }
    out
}

fn decode(decoder: &mut Decoder, block: &[u8], text: &mut Buf) {
    text.clear();
    decoder.begin();
    let mut rest = block;
    while let Ok(Some(field)) = decoder.next(&mut rest, text, LIMITS) {
        black_box(field);
    }
}

fn hpack() {
    let (mut encoded, mut out) = (Buf::empty(), Buf::with_capacity(1024));
    huffman::encode(AGENT, huffman::encoded_len(AGENT), &mut encoded);
    time("huffman encode, 100 bytes", 1, || {
        out.clear();
        huffman::encode(black_box(AGENT), huffman::encoded_len(AGENT), &mut out);
    });
    time("huffman decode, 100 bytes", 1, || {
        out.clear();
        let _ = huffman::decode(black_box(&encoded), &mut out);
    });
    let literal = block(&mut Encoder::new(), REQUEST, Indexing::Without);
    let (mut decoder, mut text) = (Decoder::new(), Buf::with_capacity(4096));
    time("decode a request of literals, 9 fields", 1, || decode(&mut decoder, &literal, &mut text));
    let mut encoder = Encoder::new();
    let first = block(&mut encoder, REQUEST, Indexing::Incremental);
    let again = block(&mut encoder, REQUEST, Indexing::Incremental);
    decode(&mut decoder, &first, &mut text);
    time("decode a request of indices, 9 fields", 1, || decode(&mut decoder, &again, &mut text));
    time("encode a request of literals, 9 fields", 1, || {
        black_box(block(&mut Encoder::new(), REQUEST, Indexing::Without));
    });
}

/// One read with 100 requests, their responses, one write.
fn requests(first: u32, block: &[u8]) -> Bytes {
    let mut input = Buf::with_capacity(8192);
    for i in 0..100 {
        let header = FrameHeader { length: block.len() as u32, kind: Kind::Headers, flags: 5, stream: first + 2 * i };
        input.extend_from_slice(&header.bytes());
        input.extend_from_slice(block);
    }
    input.freeze()
}

fn serve(connection: &mut Connection, mut input: Bytes, body: &Bytes) {
    while let Ok(Some(event)) = connection.handle(0, &mut input) {
        if let Event::Request { stream, .. } = event {
            respond(connection, stream, body);
        }
    }
    while let Some(chain) = connection.poll_transmit(65_536) {
        black_box(chain);
    }
    while connection.poll_drained().is_some() {}
}

fn respond(connection: &mut Connection, stream: StreamKey, body: &Bytes) {
    let _ = connection.send_head(stream, false, |head| {
        head.status(200);
        head.field(b"server", b"tidegate", Indexing::Incremental);
        head.field(b"date", b"Sun, 22 Nov 2026 05:00:00 GMT", Indexing::Incremental);
        head.field(b"content-type", b"text/html", Indexing::Incremental);
        head.field(b"content-length", b"1024", Indexing::Without);
    });
    let _ = connection.send_data(stream, Chain::from(body.clone()), true);
}

fn main() {
    hpack();
    let mut encoder = Encoder::new();
    block(&mut encoder, REQUEST, Indexing::Incremental);
    let again = block(&mut encoder, REQUEST, Indexing::Incremental);
    let prime = block(&mut Encoder::new(), REQUEST, Indexing::Incremental);
    let mut connection = Connection::server(Rc::new(Config::default()));
    let _ = connection.handle(0, &mut Bytes::copy_from(PREFACE));
    let body = Bytes::from(vec![b'x'; 1024]);
    let increment = (1u32 << 29).to_be_bytes();
    let window =
        [&FrameHeader { length: 4, kind: Kind::WindowUpdate, flags: 0, stream: 0 }.bytes()[..], &increment].concat();
    serve(&mut connection, Bytes::copy_from(&window), &body);
    serve(&mut connection, requests(1, &prime).slice(0..9 + prime.len()), &body);
    let mut next = 3;
    time("a request and its response of 1 KiB, of 100", 100, || {
        serve(&mut connection, requests(next, &again), &body);
        next += 200;
        if next % 1_000_000 < 200 {
            serve(&mut connection, Bytes::copy_from(&window), &body);
        }
    });
    assert_eq!(connection.error(), None);
    println!("an idle connection takes {} bytes and its dynamic tables", size_of::<Connection>());
}
