//! WebSocket over HTTP/2 (RFC 8441), frames by hand: what backends get of it, what clients get, how each side ends. The
//! real clients are in `sites.rs`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use e2e::frames::{
    DATA, END_HEADERS, END_STREAM, Frame, HEADERS, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, field, frame,
};
use e2e::{Backend, Received, Server, Setup};

/// A backend that takes every upgrade: it repeats the client's bytes in capitals, and obeys some of them.
fn backend() -> Backend {
    Backend::sockets(|mut stream, requests: &Mutex<Vec<Received>>| {
        let Some(request) = head(&mut stream) else { return };
        requests.lock().expect("no test thread panics here").push(request.clone());
        let answer = match request.line() {
            "GET /plain HTTP/1.1" => "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok".to_owned(),
            "GET /refused HTTP/1.1" => {
                "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno".to_owned()
            }
            "GET /wrong HTTP/1.1" => switching("AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            _ => switching(&accept(request.field("Sec-WebSocket-Key").unwrap_or_default())),
        };
        let _ = stream.write_all(answer.as_bytes());
        let mut buffer = [0; 65536];
        while let Ok(n) = stream.read(&mut buffer) {
            match &buffer[..n] {
                b"" => {
                    let ended = Received { head: "ended".to_owned(), body: Vec::new() };
                    requests.lock().expect("no test thread panics here").push(ended);
                    let _ = stream.write_all(b"last words");
                    return;
                }
                b"leave" => return,
                b"flood" => {
                    for _ in 0..200 {
                        if stream.write_all(&[b'x'; 10_000]).is_err() {
                            return;
                        }
                    }
                }
                b"sleep" => std::thread::sleep(Duration::from_secs(2)),
                bytes => {
                    let _ = stream.write_all(&bytes.to_ascii_uppercase());
                }
            }
        }
    })
}

fn head(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
    }
    Some(Received { head: String::from_utf8_lossy(&bytes).trim_end().to_owned(), body: Vec::new() })
}

fn switching(accept: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Own: 1\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    )
}

/// The answer to a key, by openssl.
fn accept(key: &str) -> String {
    let script = "printf '%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11' \"$0\" | openssl dgst -sha1 -binary | openssl base64";
    let out = std::process::Command::new("sh").args(["-c", script, key]).output().expect("a shell is there");
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

const CONF: &str = "error_log error.log info; http2 on; log_format ws '$request|$request_method|$status|$http_upgrade|$http_connection|$http2|\
        $body_bytes_sent|$upstream_status|$upstream_bytes_received';
    map $http_upgrade $connection_upgrade { default upgrade; '' close; }
    proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
    server { listen 127.0.0.1:%%PORT%%; access_log access.log ws;
        location / { proxy_pass http://127.0.0.1:BACKEND; }
        location /fixed { proxy_pass http://127.0.0.1:BACKEND; proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection \"upgrade\"; }
        location /short { proxy_pass http://127.0.0.1:BACKEND; proxy_read_timeout 1s; }
        location /page { return 200 page; }
        location /gone { error_page 404 =200 /page; return 404; }
        location /only { limit_except GET { deny all; } if ($request_method !~ ^GET$) { return 405; }
            proxy_pass http://127.0.0.1:BACKEND; } }
    server { listen 127.0.0.1:%%PORT_off%%; http2_websocket off; location / { return 200 ok; } }";

fn start(backend: &Backend) -> Server {
    Setup::http(&CONF.replace("BACKEND", &backend.port.to_string())).start()
}

/// The block of an extended CONNECT.
fn connect(protocol: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let first = [(":method", "CONNECT"), (":protocol", protocol), (":scheme", "http"), (":path", path)];
    let fields = first.iter().chain(&[(":authority", "a")]).chain(more);
    fields.flat_map(|(name, value)| field(name, value)).collect()
}

fn open(raw: &mut Raw, stream: u32, path: &str) -> u16 {
    let more = [("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat"), ("origin", "http://a")];
    raw.send(&frame(HEADERS, END_HEADERS, stream, &connect("websocket", path, &more)));
    status(raw.until(HEADERS).last().expect("it was found"))
}

/// The status in a head of ours: it comes first, as an index or as three digits.
fn status(frame: &Frame) -> u16 {
    let indexed = [200, 204, 206, 304, 400, 404, 500];
    match frame.3[..] {
        [byte @ 0x88..=0x8e, ..] => indexed[usize::from(byte - 0x88)],
        [_, 3, a, b, c, ..] => [a, b, c].iter().fold(0, |n, digit| n * 10 + u16::from(digit - b'0')),
        [_, 0x82, ..] => huffman_status(&frame.3[2..4]),
        _ => panic!("no status in {frame:?}"),
    }
}

/// Three digits in Huffman's code: those below 3 take five bits, the others six.
fn huffman_status(bytes: &[u8]) -> u16 {
    let (mut bits, mut at, mut number) = (u32::from(bytes[0]) << 24 | u32::from(bytes[1]) << 16, 0, 0);
    while at < 3 {
        let (digit, length) = if bits >> 27 < 3 { (bits >> 27, 5) } else { ((bits >> 26) - 0x16, 6) };
        number = number * 10 + digit as u16;
        bits <<= length;
        at += 1;
    }
    number
}

/// So many bytes of DATA; the flags of the last one.
fn take(raw: &mut Raw, count: usize) -> (Vec<u8>, u8) {
    let (mut bytes, mut flags) = (Vec::new(), 0);
    while bytes.len() < count {
        let frame = raw.until(DATA).pop().expect("it was found");
        bytes.extend(frame.3);
        flags = frame.1;
    }
    (bytes, flags)
}

/// Not in nginx: http2_websocket off
#[test]
fn a_backend_gets_an_ordinary_handshake() {
    let backend = backend();
    let mut server = start(&backend);
    let mut raw = Raw::on(server.port());
    let offered = raw.until(SETTINGS).pop().expect("it was found").3;
    assert!(offered.chunks(6).any(|setting| setting == [0, 8, 0, 0, 0, 1]), "{offered:?}");
    for (stream, path) in [(1, "/chat?x=1"), (3, "/fixed"), (5, "/only")] {
        assert_eq!(open(&mut raw, stream, path), 200);
        raw.send(&frame(DATA, 0, stream, b"hello"));
        assert_eq!(take(&mut raw, 5).0, b"HELLO");
        let request = backend.requests().pop().expect("it came");
        assert_eq!(request.line(), format!("GET {path} HTTP/1.1"));
        for (name, value) in [
            ("Upgrade", "websocket"),
            ("Connection", "upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Protocol", "chat"),
            ("Origin", "http://a"),
        ] {
            assert_eq!(request.field(name), Some(value), "{}", request.head);
        }
        assert_eq!(request.field("Sec-WebSocket-Key").map(str::len), Some(24), "{}", request.head);
        assert_eq!((request.field("Content-Length"), request.field("Transfer-Encoding")), (None, None));
        raw.send(&frame(DATA, 0, stream, b"leave"));
        let (last, flags) = (raw.until(DATA).pop().expect("it was found"), END_STREAM);
        assert_eq!((last.1 & flags, last.2, last.3.len()), (flags, stream, 0), "the backend's end");
    }
    let keys = backend.requests().iter().filter_map(|r| r.field("Sec-WebSocket-Key").map(str::to_owned)).collect();
    let keys: std::collections::BTreeSet<String> = keys;
    assert_eq!(keys.len(), 3, "each handshake has a key of its own");
    let log = server.read_until("access.log", "/only");
    assert!(log.contains("CONNECT /chat?x=1 HTTP/2.0|GET|200|websocket|Upgrade|h2c|5|101|"), "{log}");
}

/// Not in nginx: http2_websocket off
#[test]
fn other_answers_than_a_tunnel() {
    let backend = backend();
    let mut server = start(&backend);
    let cases = [
        ("websocket", "/page", 501),
        ("websocket", "/gone", 501),
        ("websocket", "/plain", 501),
        ("websocket", "/refused", 403),
        ("websocket", "/wrong", 502),
        ("WebSocket", "/chat", 200),
        ("connect-udp", "/chat", 501),
        ("", "/chat", 501),
    ];
    let mut raw = Raw::on(server.port());
    for (n, (protocol, path, expected)) in cases.into_iter().enumerate() {
        let stream = n as u32 * 2 + 1;
        raw.send(&frame(HEADERS, END_HEADERS, stream, &connect(protocol, path, &[])));
        assert_eq!(status(raw.until(HEADERS).last().expect("it was found")), expected, "{protocol} {path}");
    }
    let log = server.read_until("error.log", "unknown protocol");
    assert!(log.contains("upstream sent invalid \"Sec-WebSocket-Accept\" header while reading"), "{log}");
    // What isn't well-formed, and what isn't offered.
    let get: Vec<u8> = [(":method", "GET"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/")]
        .iter()
        .flat_map(|(name, value)| field(name, value))
        .chain(field(":authority", "a"))
        .collect();
    let no_path: Vec<u8> =
        [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a")]
            .iter()
            .flat_map(|(name, value)| field(name, value))
            .collect();
    let length = connect("websocket", "/chat", &[("content-length", "5")]);
    let mut raw = Raw::on(server.port());
    for (stream, block) in [(1, &get), (3, &no_path), (5, &length)] {
        raw.send(&frame(HEADERS, END_HEADERS, stream, block));
        assert_eq!(status(raw.until(HEADERS).last().expect("it was found")), 400);
    }
    let mut raw = Raw::on(server.port_of("PORT_off"));
    let offered = raw.until(SETTINGS).pop().expect("it was found").3;
    assert!(!offered.chunks(6).any(|setting| setting[1] == 8), "{offered:?}");
    raw.send(&frame(HEADERS, END_HEADERS, 1, &connect("websocket", "/", &[])));
    assert_eq!(status(raw.until(HEADERS).last().expect("it was found")), 400);
}

/// Not in nginx: http2_websocket off
#[test]
fn each_side_can_end_it() {
    let backend = backend();
    let mut server = start(&backend);
    let mut raw = Raw::on(server.port());
    // The client's half alone: what the backend says then still comes.
    assert_eq!(open(&mut raw, 1, "/chat"), 200);
    raw.send(&frame(DATA, END_STREAM, 1, b"bye"));
    let (mut bytes, mut flags) = take(&mut raw, 13);
    assert_eq!(bytes, b"BYElast words");
    if flags & END_STREAM == 0 {
        (bytes, flags) = (Vec::new(), raw.until(DATA).pop().expect("it was found").1);
    }
    assert_eq!(flags & END_STREAM, END_STREAM, "{bytes:?}");
    // A reset closes the backend's connection.
    assert_eq!(open(&mut raw, 3, "/chat"), 200);
    raw.send(&frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]));
    server.read_until("error.log", "failed (connection reset) while proxying upgraded connection");
    server.wait(|_| backend.requests().iter().filter(|request| request.head == "ended").count() == 2, "the end");
    // A backend that says nothing for too long: CANCEL.
    assert_eq!(open(&mut raw, 5, "/short"), 200);
    raw.send(&frame(DATA, 0, 5, b"sleep"));
    let reset = raw.until(RST_STREAM).pop().expect("it was found");
    assert_eq!((reset.2, &reset.3[..]), (5, &[0, 0, 0, 8][..]));
    let log = server.read_until("error.log", "upstream timed out");
    assert!(log.contains("while proxying upgraded connection"), "{log}");
    // The connection serves on.
    assert_eq!(open(&mut raw, 7, "/page"), 501);
    // It ends while a tunnel is open.
    assert_eq!(open(&mut raw, 9, "/chat?last"), 200);
    drop(raw);
    server.read_until("access.log", "/chat?last");
}

/// Not in nginx: http2_websocket off
#[test]
fn windows_hold_both_ways() {
    let backend = backend();
    let server = start(&backend);
    let mut raw = Raw::with(server.port(), &[(4, 1000)]);
    assert_eq!(open(&mut raw, 1, "/chat"), 200);
    raw.send(&frame(DATA, 0, 1, b"flood"));
    assert_eq!(take(&mut raw, 1000).0.len(), 1000);
    raw.socket().set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
    assert!(raw.receive().is_none(), "nothing beyond the window");
    raw.socket().set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    for stream in [0, 1] {
        raw.send(&frame(WINDOW_UPDATE, 0, stream, &3_000_000_u32.to_be_bytes()));
    }
    assert_eq!(take(&mut raw, 1_999_000).0.len(), 1_999_000, "all of it");
    // The other way: nearly the window, while the backend sleeps; more is let in when it reads.
    raw.send(&frame(DATA, 0, 1, b"sleep"));
    std::thread::sleep(Duration::from_millis(100));
    let (part, begun) = ([b'y'; 8192], Instant::now());
    for _ in 0..7 {
        raw.send(&frame(DATA, 0, 1, &part));
    }
    let (mut bytes, mut window) = (0, 0);
    while bytes < 7 * part.len() {
        let (kind, _, stream, payload) = raw.receive().expect("it goes on");
        bytes += if kind == DATA { payload.len() } else { 0 };
        window += if (kind, stream) == (WINDOW_UPDATE, 1) {
            u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]])
        } else {
            0
        };
    }
    assert!(begun.elapsed() > Duration::from_secs(1) && window > 8_000, "{window}");
}
