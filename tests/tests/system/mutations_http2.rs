//! Mutated connections of HTTP/2 against the running server: frames, header blocks and their order, changed before and
//! after they are put together. None may kill it, hang it, or keep others from an answer.
//!
//! 20,000 of them are part of every run; `TIDEGATE_MUTATIONS=1000000 cargo test -p e2e --test system mutations_http2::` makes a
//! long one.

use e2e::Setup;
use e2e::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    field, frame,
};
use e2e::mutations::{backend, mutate, storm};
use e2e::random::Random;

/// Kinds of frames that clients have and the harness doesn't.
const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const PRIORITY_UPDATE: u8 = 16;

const CONFIGURATION: &str = r#"
    client_header_timeout 1s; client_body_timeout 1s; send_timeout 1s; keepalive_timeout 2s; lingering_timeout 1s;
    access_log off; error_log error.log crit; client_body_buffer_size 1k; http2 on; keepalive_requests 10;
    upstream backend { server 127.0.0.1:BACKEND; keepalive 4; }
    server {
        listen 127.0.0.1:%%PORT%%; root %%DIR%%; error_page 404 /error.html; server_name localhost ~^(?<sub>\w+)\.example;
        location = /alive { return 200 alive; }
        location /p { proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_read_timeout 2s; }
        location /u { proxy_pass http://127.0.0.1:BACKEND/up; proxy_buffering off; proxy_request_buffering off;
            proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;
            proxy_read_timeout 2s; }
        location /m { add_trailer x-t $host; return 200 "$uri $args $cookie_c $request_uri $host $request_length"; }
        location /z { gzip on; gzip_types text/plain; gzip_min_length 1; alias %%DIR%%; }
        location /small { client_max_body_size 10; proxy_pass http://backend; }
        location /444 { return 444; }
    }
"#;

const PATHS: &[&str] =
    &["/", "/large.txt", "/z/large.txt", "/p/ok?x=1", "/u/x", "/m/a?b=c", "/small", "/444", "/missing", "/alive", "*"];

const FIELDS: &[(&str, &str)] = &[
    ("cookie", "c=1"),
    ("cookie", "d=2"),
    ("host", "localhost"),
    ("host", "b.example:80"),
    ("content-length", "5"),
    ("content-length", "0"),
    ("content-length", "18446744073709551616"),
    ("te", "trailers"),
    ("connection", "close"),
    ("transfer-encoding", "chunked"),
    ("expect", "100-continue"),
    ("range", "bytes=0-1,3-4,-2"),
    ("accept-encoding", "gzip"),
    ("if-match", "*"),
    ("priority", "u=1, i"),
    ("x-a", " b "),
    ("x_a", ""),
    ("X", "y"),
    (":path", "/late"),
    (":unknown", ""),
    ("", "no name"),
    ("sec-websocket-version", "13"),
];

/// Parts of frames and of header blocks that are put in anywhere.
const WORDS: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\x80",
    b"\x82\x86\x84",
    b"\xbe",
    b"\xbf",
    b"\x20",
    b"\x3f\xe1\x1f",
    b"\x3f\xff\xff\xff\xff\x0f",
    b"\x40\x01x\x01y",
    b"\x10\x01x\x81\xff",
    b"\x7f\xff\xff\xff\xff\xff",
    b"\x0f\x0d\x015",
    b"\0\0\0\x04\x01\0\0\0\0",
    b"\0\0\x08\x06\0\0\0\0\0whatever",
    b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\xff\xff",
    b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
    b"\0\0\0\0\x01\0\0\0\x01",
    b"\0\0\0\x09\x04\0\0\0\x01",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    PREFACE,
];

/// A stream's number: mostly one of a few that clients open, now and then any.
fn stream(random: &mut Random) -> u32 {
    match random.below(20) {
        0 => 0,
        1 => random.below(10) as u32,
        2 => random.of(&[0x7fff_ffff, 0xffff_ffff, 2, 101]),
        _ => 2 * random.below(4) as u32 + 1,
    }
}

fn word(random: &mut Random) -> [u8; 4] {
    let small = random.below(100_000) as u32;
    random.of(&[0, 1, small, 5, 16_384, 65_535, 0x7fff_ffff, 0x8000_0000, u32::MAX]).to_be_bytes()
}

/// The block of a request's head.
fn block(random: &mut Random) -> Vec<u8> {
    let method = random.of(&["GET", "POST", "HEAD", "PUT", "CONNECT", "OPTIONS", "get"]);
    let mut fields = vec![(":method", method), (":scheme", "http"), (":path", random.of(PATHS))];
    if method == "CONNECT" && random.below(2) == 0 {
        fields.push((":protocol", "websocket"));
    }
    if random.below(8) > 0 {
        fields.push((":authority", random.of(&["localhost", "a", "www.example", "", "a b", "[::1]:80"])));
    }
    (0..random.below(5)).for_each(|_| fields.push(random.of(FIELDS)));
    if random.below(10) == 0 {
        let (from, to) = (random.below(fields.len()), random.below(fields.len()));
        fields.swap(from, to);
    }
    let mut block = Vec::new();
    for (name, value) in fields {
        let at = block.len();
        block.extend(field(name, value));
        // Some are put into the table, and some are never to be.
        block[at] = random.of(&[0, 0, 0x40, 0x10]);
    }
    if random.below(30) == 0 {
        let (name, length) = (random.of(&["x", ""]), random.of(&[1, 300, 2000]));
        (0..length).for_each(|_| block.extend(field(name, "")));
    }
    if random.below(8) == 0 {
        mutate(&mut block, WORDS, random);
    }
    block
}

/// A head in one frame or several, with what may stand before and after it in a frame.
fn head(random: &mut Random) -> Vec<u8> {
    let (id, block, end) = (stream(random), block(random), random.of(&[0, END_STREAM, END_STREAM]));
    match random.below(6) {
        0 => {
            let cut = random.below(block.len());
            let more = random.of(&[CONTINUATION, CONTINUATION, CONTINUATION, PING]);
            [frame(HEADERS, end, id, &block[..cut]), frame(more, END_HEADERS, id, &block[cut..])].concat()
        }
        1 => {
            let padding = random.below(20);
            let payload = [&[padding as u8][..], &word(random), &[7], &block, &vec![0; padding]].concat();
            frame(HEADERS, END_HEADERS | 0x28 | end, id, &payload)
        }
        _ => frame(HEADERS, END_HEADERS | end, id, &block),
    }
}

/// A frame of any kind.
fn any_frame(random: &mut Random) -> Vec<u8> {
    let id = stream(random);
    match random.below(16) {
        0..5 => head(random),
        5..8 => {
            let length = random.of(&[0, 1, 5, 11, 1000, 20_000]);
            frame(DATA, random.of(&[0, END_STREAM, 8, 9]), id, &vec![random.below(256) as u8; length])
        }
        8 => frame(HEADERS, random.of(&[5, 4]), id, &field("x-trailer", "v")),
        9 => frame(RST_STREAM, 0, id, &word(random)),
        10 => {
            let mut payload = Vec::new();
            for _ in 0..random.below(4) {
                payload.extend([0, random.below(10) as u8]);
                payload.extend(word(random));
            }
            frame(SETTINGS, random.of(&[0, 0, 0, 1]), random.of(&[0, 0, 0, 1]), &payload)
        }
        11 => frame(PING, random.of(&[0, 1]), 0, b"whatever"),
        12 => frame(WINDOW_UPDATE, 0, id, &word(random)),
        13 => frame(PRIORITY, 0, id, &[&word(random)[..], &[9]].concat()),
        14 => frame(PRIORITY_UPDATE, 0, 0, &[&id.to_be_bytes()[..], b"u=0, i"].concat()),
        _ => frame(random.of(&[GOAWAY, PUSH_PROMISE, CONTINUATION, 0x42]), random.below(256) as u8, id, &[0; 8]),
    }
}

/// Connection number `n` of a run.
fn connection(seed: u64, n: u64) -> Vec<u8> {
    let mut random = Random::new(seed, n);
    let mut frames = vec![frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, 1, 0, &[])];
    if random.below(4) == 0 {
        frames.push(frame(SETTINGS, 0, 0, &[&[0, 4][..], &word(&mut random)].concat()));
    }
    frames.push(head(&mut random));
    (0..random.below(10)).for_each(|_| frames.push(any_frame(&mut random)));
    if random.below(20) == 0 {
        // One thing again and again.
        let again = any_frame(&mut random);
        frames.extend(std::iter::repeat_n(again, 100));
    }
    for _ in 0..random.below(3) {
        let (from, to) = (random.below(frames.len()), random.below(frames.len()));
        frames.swap(from, to);
    }
    let mut bytes = [PREFACE, &frames.concat()].concat();
    for _ in 0..random.below(4) {
        let at = if random.below(30) == 0 { 0 } else { PREFACE.len().min(bytes.len()) };
        let mut rest = bytes.split_off(at);
        mutate(&mut rest, WORDS, &mut random);
        bytes.extend(rest);
    }
    bytes
}

#[test]
fn mutated_connections() {
    let backend = backend();
    let server = Setup::http(&CONFIGURATION.replace("BACKEND", &backend.port.to_string()))
        .file("index.html", "index")
        .file("error.html", "error")
        .file("large.txt", "0123456789abcdef".repeat(6400))
        .start();
    storm(&server, 20_000, connection);
}
