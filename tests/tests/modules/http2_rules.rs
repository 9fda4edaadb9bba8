//! HTTP/2 at its edges, by frames: heads that are good and bad, flow control in every order, and what the logs say.

use std::io::{Read, Write};
use std::net::Shutdown;

use e2e::frames::{
    DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, field, frame,
};
use e2e::{Backend, Connection, Server, Setup};

const WHOLE: u8 = END_HEADERS | END_STREAM;

/// The pseudo-headers that most requests have.
const BASE: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// HEADERS of a request.
fn head(stream: u32, flags: u8, method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let base = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")];
    frame(HEADERS, flags, stream, &block(&[&base[..], more].concat()))
}

/// The status of a response's head, if it is one of those that are an index (RFC 7541 appendix A).
fn status(frame: &Frame) -> u16 {
    match frame.3.first().map(|index| index & 0x7f) {
        Some(8) => 200,
        Some(9) => 204,
        Some(12) => 400,
        Some(13) => 404,
        _ => 0,
    }
}

/// What has come once the server has nothing more to say for now.
fn settled(raw: &mut Raw) -> Vec<Frame> {
    let mut frames = Vec::new();
    for _ in 0..3 {
        raw.send(&frame(PING, 0, 0, b"anything"));
        frames.extend(raw.until(PING));
    }
    frames
}

/// Payloads of DATA on a stream.
fn data_of(frames: &[Frame], stream: u32) -> Vec<u8> {
    frames.iter().filter(|frame| frame.0 == DATA && frame.2 == stream).flat_map(|frame| frame.3.clone()).collect()
}

fn window(stream: u32, n: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &n.to_be_bytes())
}

fn initial(n: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&[0, 4][..], &n.to_be_bytes()].concat())
}

/// Heads, the status that answers them, and what the log says of those that are refused.
type Heads<'a> = &'a [(&'a [(&'a str, &'a str)], u16, &'a str)];

fn check(server: &Server, heads: Heads<'_>) {
    for (fields, expected, text) in heads {
        let before = server.read("info.log").len();
        let mut raw = Raw::on(server.port());
        raw.send(&frame(HEADERS, WHOLE, 1, &block(fields)));
        let frames = raw.until(HEADERS);
        assert_eq!(status(frames.last().expect("it was found")), *expected, "{fields:?}");
        let log = server.read("info.log").split_off(before);
        assert!(log.contains(text), "{fields:?}: {log}");
        assert_eq!(log.contains("client sent"), text.contains("client sent"), "{fields:?}: {log}");
    }
}

fn for_heads() -> Server {
    Setup::http(
        "http2 on; error_log info.log info;
         server { listen 127.0.0.1:%%PORT%%; return 200 \"[$host][$http_host][$http_x][$http_cookie]\"; }",
    )
    .start()
}

fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&BASE[..], more].concat()
}

#[test]
fn hosts() {
    let twice = "client sent duplicate host header: \"host: a\", previous value: \"host: a\"";
    let differ = "client sent \":authority\" and \"Host\" headers with different values";
    let authority = "client sent invalid \":authority\" header";
    let host = "client sent invalid host header";
    let no_authority = |more: &[(&'static str, &'static str)]| [&BASE[..3], more].concat();
    check(
        &for_heads(),
        &[
            (&BASE, 200, ""),
            (&with(&[("host", "a")]), 200, ""),
            (&with(&[("host", "b")]), 400, differ),
            (&with(&[("host", "A")]), 400, differ),
            (&with(&[("host", "a:80")]), 400, differ),
            (&with(&[("host", "a"), ("host", "a")]), 400, twice),
            (&with(&[("host", "")]), 400, host),
            (&with(&[("host", "a ")]), 400, host),
            (&with(&[(":authority", "a")]), 400, "client sent duplicate \":authority\" header"),
            (&no_authority(&[("host", "a")]), 200, ""),
            (&no_authority(&[("host", "a"), ("host", "a")]), 400, twice),
            (&no_authority(&[("host", " a")]), 400, host),
            (&no_authority(&[]), 400, "client sent neither \":authority\" nor \"Host\" header"),
            (&no_authority(&[(":authority", "")]), 400, authority),
            (&no_authority(&[(":authority", "a ")]), 400, authority),
            (&no_authority(&[(":authority", "u@a")]), 400, authority),
            (&no_authority(&[("x", "y"), (":authority", "a")]), 400, "client sent out of order pseudo-headers"),
        ],
    );
}

#[test]
fn request_lines() {
    let line = |method: &'static str, scheme: &'static str, path: &'static str| {
        [(":method", method), (":scheme", scheme), (":path", path), (":authority", "a")]
    };
    check(
        &for_heads(),
        &[
            (&line("A_B-C", "http", "/"), 200, ""),
            (&line("get", "http", "/"), 400, "client sent invalid method: \"get\""),
            (&line("GET ", "http", "/"), 400, "client sent invalid method: \"GET \""),
            (&line("GET", "h+-.1", "/"), 200, ""),
            (&line("GET", "h ttp", "/"), 400, "client sent invalid :scheme header: \"h ttp\""),
            (&line("GET", "http ", "/"), 400, "client sent invalid :scheme header: \"http \""),
            (&line("GET", "1http", "/"), 400, "client sent invalid :scheme header: \"1http\""),
            (&line("GET", "http", "//a#b"), 200, ""),
            (&line("GET", "http", "*"), 400, "client sent invalid :path header: \"*\""),
            (&line("OPTIONS", "http", "*"), 400, "client sent invalid :path header: \"*\""),
            (&line("GET", "http", "a"), 400, "client sent invalid :path header: \"a\""),
            (&line("GET", "http", "http://a/"), 400, "client sent invalid :path header: \"http://a/\""),
            (&line("GET", "http", "/a b"), 400, "client sent invalid :path header: \"/a b\""),
            (&line("GET", "http", "/?\u{7f}"), 400, "client sent invalid :path header: \"/?\u{7f}\""),
            (&line("GET", "http", "/../x"), 400, "client sent invalid request while reading client request headers"),
            (&with(&[(":path", "/")]), 400, "client sent duplicate :path header"),
            (&with(&[(":foo", "/")]), 400, "client sent unknown pseudo-header \":foo\""),
            (&with(&[(":Path", "/")]), 400, "client sent invalid header name: \":Path\""),
            (&[BASE[0], BASE[1], ("x", "y"), BASE[2]], 400, "client sent no :path header"),
            // RFC 9113 §8.5 leaves them out; nginx takes no such request.
            (&[(":method", "CONNECT"), (":authority", "a:1")], 400, "client sent no :scheme header"),
        ],
    );
}

#[test]
fn fields() {
    let connection = |name: &str| format!("client sent \"{name}\" header while reading client request headers");
    let large = "client sent too many header lines";
    let many = |name: &'static str, n: usize| with(&vec![(name, "b"); n]);
    check(
        &for_heads(),
        &[
            (&with(&[("x", "a\rb")]), 400, "client sent header \"x\" with invalid value: "),
            (&with(&[("x", "a\0b")]), 400, "client sent header \"x\" with invalid value: "),
            (&with(&[("X", "a")]), 400, "client sent invalid header name: \"X\""),
            (&with(&[("x!y", "a")]), 200, "client sent invalid header: \"x!y\" while reading client request headers"),
            (&with(&[("connection", "close")]), 400, &connection("Connection")),
            (&with(&[("keep-alive", "1")]), 400, &connection("Keep-Alive")),
            (&with(&[("proxy-connection", "a")]), 400, &connection("Proxy-Connection")),
            (&with(&[("transfer-encoding", "chunked")]), 400, &connection("Transfer-Encoding")),
            (&with(&[("upgrade", "websocket")]), 400, &connection("Upgrade")),
            (&with(&[("te", "trailers")]), 200, ""),
            (&with(&[("te", "gzip")]), 400, "client sent invalid \"TE\" header"),
            (&with(&[("te", "trailers"), ("te", "trailers")]), 400, "client sent invalid \"TE\" header"),
            (&with(&[("content-length", "0 ")]), 400, "client sent invalid \"Content-Length\" header"),
            (&with(&[("content-length", "+0")]), 400, "client sent invalid \"Content-Length\" header"),
            (
                &with(&[("content-length", "0"), ("content-length", "0")]),
                400,
                "client sent duplicate header line: \"content-length: 0\", previous value: \"content-length: 0\"",
            ),
            (&with(&[("content-length", "5")]), 400, "client prematurely closed stream"),
            (&many("x", 1000), 200, ""),
            (&many("x", 1001), 400, large),
            // The crumbs of a cookie aren't counted.
            (&many("cookie", 1500), 200, ""),
        ],
    );
}

#[test]
fn values_are_passed_on_as_they_are() {
    let server = Setup::http(
        "http2 on; server { listen 127.0.0.1:%%PORT%%; location / { return 200 \"[$http_x][$http_cookie]\"; }
            location /p { proxy_pass http://127.0.0.1:%%PORT_back%%; } }
         server { listen 127.0.0.1:%%PORT_back%%; return 200 [$http_cookie]; }",
    )
    .start();
    for (fields, expected) in [
        (&[("x", " y "), ("x", "\t"), ("cookie", "a=b"), ("cookie", " c=d")][..], "[ y , \t][a=b;  c=d]"),
        (&[("cookie", ""), ("cookie", "c=d")], "[][; c=d]"),
    ] {
        let mut raw = Raw::on(server.port());
        raw.send(&head(1, WHOLE, "GET", "/", fields));
        assert_eq!(String::from_utf8_lossy(&data_of(&raw.until(DATA), 1)), expected);
    }
    let mut raw = Raw::on(server.port());
    raw.send(&head(1, WHOLE, "GET", "/p", &[("cookie", "a=b"), ("cookie", "c=d")]));
    assert_eq!(String::from_utf8_lossy(&data_of(&raw.until(DATA), 1)), "[a=b; c=d]");
}

#[test]
fn a_field_without_a_name_ends_the_connection() {
    let server = for_heads();
    let mut raw = Raw::on(server.port());
    raw.send(&head(1, WHOLE, "GET", "/", &[("", "x")]));
    assert_eq!(raw.go_away_code(), 1);
    assert!(server.read("info.log").contains("client sent zero header name length while processing HTTP/2 connection"));
}

#[test]
fn bodies_of_other_lengths() {
    let server = Setup::http(
        "http2 on; error_log info.log info; server { listen 127.0.0.1:%%PORT%%;
            location / { proxy_pass http://127.0.0.1:%%PORT_back%%; } }
         server { listen 127.0.0.1:%%PORT_back%%; return 200 ok; }",
    )
    .start();
    let only = "client prematurely closed stream: only 3 out of 5 bytes of request body received";
    let larger = "client intended to send body data larger than declared";
    for (length, parts, expected, text) in [
        ("5", &["abc", "de"][..], 200, ""),
        ("5", &["abc"], 400, only),
        ("5", &["ab", "c"], 400, only),
        ("5", &["abcdef"], 400, larger),
        ("5", &["abcd", "ef"], 400, larger),
        ("0", &["a"], 400, larger),
        ("0", &[""], 200, ""),
    ] {
        let before = server.read("info.log").len();
        let mut raw = Raw::on(server.port());
        let mut bytes = head(1, END_HEADERS, "POST", "/", &[("content-length", length)]);
        for (n, part) in parts.iter().enumerate() {
            bytes.extend(frame(DATA, u8::from(n + 1 == parts.len()), 1, part.as_bytes()));
        }
        raw.send(&bytes);
        let frames = raw.until(HEADERS);
        assert_eq!(status(frames.last().expect("it was found")), expected, "{length} {parts:?}");
        let log = server.read("info.log").split_off(before);
        assert!(log.contains(text), "{length} {parts:?}: {log}");
    }
}

/// A server whose `/big` is 300,000 bytes.
fn for_windows() -> Server {
    Setup::http(
        "http2 on; server { listen 127.0.0.1:%%PORT%%; root %%DIR%%/www; location /r { return 200 ok; }
            location /p { proxy_pass http://127.0.0.1:%%PORT_back%%; } }
         server { listen 127.0.0.1:%%PORT_back%%; return 200 0123456789; }",
    )
    .file("www/big", "0123456789".repeat(30_000))
    .start()
}

#[test]
fn windows_below_zero() {
    let server = for_windows();
    let mut raw = Raw::with(server.port(), &[(4, 100)]);
    raw.send(&head(1, WHOLE, "GET", "/big", &[]));
    assert_eq!(data_of(&raw.until(DATA), 1).len(), 100);
    // Minus 100: what was given before has been used.
    raw.send(&initial(0));
    assert_eq!(data_of(&settled(&mut raw), 1).len(), 0);
    raw.send(&window(1, 99));
    assert_eq!(data_of(&settled(&mut raw), 1).len(), 0);
    raw.send(&window(1, 1));
    assert_eq!(data_of(&settled(&mut raw), 1).len(), 0);
    raw.send(&window(1, 50));
    assert_eq!(data_of(&settled(&mut raw), 1).len(), 50);
    // Up and down again within one reading.
    raw.send(&[initial(0x7fff_ffff - 100), initial(0), initial(7), initial(3), initial(7)].concat());
    let sent = data_of(&settled(&mut raw), 1).len();
    assert!(sent == 7 || sent == 65_535 - 150, "{sent}");
    // A window of streams to come is another thing than the connection's.
    raw.send(&head(3, WHOLE, "GET", "/r", &[]));
    let all = settled(&mut raw);
    assert!(sent > 7 || data_of(&all, 3) == b"ok", "{all:?}");
}

#[test]
fn windows_beyond_their_bound() {
    let server = for_windows();
    let most = 0x7fff_ffff;
    // The connection's: before, while, and after a response.
    for (before, requests) in [(0, 0), (0, 1), (100, 1)] {
        let mut raw = Raw::with(server.port(), &[(4, before)]);
        for n in 0..requests {
            raw.send(&head(2 * n + 1, WHOLE, "GET", "/big", &[]));
        }
        raw.send(&window(0, most - 65_535));
        settled(&mut raw);
        raw.send(&[window(0, most), window(0, most)].concat());
        assert_eq!(raw.go_away_code(), 3, "{before} {requests}");
    }
    // A stream's costs the stream, by WINDOW_UPDATE, while its body waits.
    let mut raw = Raw::with(server.port(), &[(4, 0)]);
    raw.send(&head(1, WHOLE, "GET", "/big", &[]));
    raw.until(HEADERS);
    raw.send(&head(3, WHOLE, "GET", "/r", &[]));
    raw.until(HEADERS);
    raw.send(&[window(1, most), window(1, most)].concat());
    let frames = raw.until(RST_STREAM);
    assert_eq!(frames.last().map(|frame| (frame.2, frame.3[3])), Some((1, 3)), "{frames:?}");
    // Those that are over or reset have none: nothing is said, and others go on.
    raw.send(&[window(0, 1_000_000), window(3, 10)].concat());
    raw.until(DATA);
    raw.send(&[window(1, most), window(1, most), window(3, most), window(3, most)].concat());
    raw.send(&frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]));
    raw.send(&[window(3, most), window(3, most), initial(most), initial(10), initial(1000)].concat());
    raw.send(&head(5, WHOLE, "GET", "/r", &[]));
    let frames = raw.until(DATA);
    assert_eq!(data_of(&frames, 5), b"ok");
    assert!(!frames.iter().any(|frame| frame.0 == GOAWAY || frame.0 == RST_STREAM), "{frames:?}");
    let mut raw = Raw::on(server.port());
    raw.send(&initial(most + 1));
    assert_eq!(raw.go_away_code(), 3);
    let mut raw = Raw::on(server.port());
    raw.send(&window(0, 0));
    assert_eq!(raw.go_away_code(), 1);
}

/// Differs from nginx: a window that SETTINGS moves beyond its bound
#[test]
fn a_window_that_settings_move_beyond_its_bound() {
    let server = for_windows();
    let mut raw = Raw::with(server.port(), &[(4, 0)]);
    raw.send(&head(1, WHOLE, "GET", "/big", &[]));
    raw.until(HEADERS);
    raw.send(&[window(1, 0x7fff_ffff), initial(0x7fff_ffff)].concat());
    assert_eq!(raw.go_away_code(), 3);
}

#[test]
fn windows_while_a_body_comes() {
    let server = for_windows();
    let mut raw = Raw::with(server.port(), &[(4, 0)]);
    // Moved while the request's body waits, and while the response waits.
    raw.send(&head(1, END_HEADERS, "POST", "/p", &[("content-length", "5")]));
    raw.send(&[frame(DATA, 0, 1, b"abc"), initial(4), window(1, 3), initial(0)].concat());
    settled(&mut raw);
    raw.send(&frame(DATA, END_STREAM, 1, b"de"));
    assert_eq!(data_of(&raw.until(DATA), 1), b"012");
    raw.send(&[initial(2), initial(1)].concat());
    let sent = data_of(&settled(&mut raw), 1).len();
    assert!((1..=2).contains(&sent), "{sent}");
    raw.send(&window(1, 0x7fff_0000));
    let mut rest = Vec::new();
    while rest.len() + sent < 7 {
        rest.extend(data_of(&raw.until(DATA), 1));
    }
    assert_eq!(rest.last(), Some(&b'9'));
    // No window is needed to end what has no body.
    raw.send(&head(3, WHOLE, "HEAD", "/big", &[]));
    let frames = raw.until(HEADERS);
    assert_eq!(frames.last().map(|frame| (frame.1 & END_STREAM, frame.2)), Some((END_STREAM, 3)));
}

/// The window is opened for a body that is read while its first frame, larger than the window was, arrives.
#[test]
fn a_frame_that_begins_before_the_window_is_open() {
    let server = for_windows();
    let mut raw = Raw::on(server.port());
    let body = vec![b'x'; 66_000];
    let head = head(1, END_HEADERS, "POST", "/p", &[("content-length", "66000")]);
    raw.send(&[head, frame(DATA, END_STREAM, 1, &body)].concat());
    assert_eq!(data_of(&raw.until(DATA), 1), b"0123456789");
}

/// Differs from nginx: points for each frame that serves no request
#[test]
fn a_stalled_client_that_asks_and_asks() {
    let server = for_windows();
    for again in [frame(PING, 0, 0, &[0; 8]), initial(0), frame(2, 0, 1, &[0, 0, 0, 3, 9])] {
        let mut raw = Raw::with(server.port(), &[(4, 0)]);
        raw.send(&head(1, WHOLE, "GET", "/big", &[]));
        raw.send(&again.repeat(10_000));
        assert_eq!(raw.go_away_code(), 11, "{again:?}");
    }
    assert_eq!(server.get("/r").text(), "ok");
}

/// What was received of a stream, as `$bytes_sent` counts it.
fn bytes_of(frames: &[Frame], stream: u32) -> usize {
    let of_it = frames.iter().filter(|frame| frame.2 == stream && matches!(frame.0, HEADERS | DATA));
    of_it.map(|frame| 9 + frame.3.len()).sum()
}

fn for_logs() -> Server {
    Setup::http(
        "http2 on; log_format all '$request_length|$bytes_sent|$body_bytes_sent|$status|$request|$request_uri|$http_host|'
            '$host|$content_length|$connection_requests|$http2|$request_completion'; access_log all.log all;
         server { listen 127.0.0.1:%%PORT%%; server_name one; root %%DIR%%/www; location /r { return 200 ok; }
            location /444 { return 444; } location /none { return 204; }
            location /t { add_trailer x-t value; return 200 ok; }
            location /p { proxy_pass http://127.0.0.1:%%PORT_back%%; } }
         server { listen 127.0.0.1:%%PORT_back%%; access_log off; return 200 0123456789; }",
    )
    .file("www/big", "0123456789".repeat(30_000))
    .start()
}

/// The access log's line number `n`, once it is there.
fn line(server: &mut Server, n: usize) -> String {
    server.wait(|server| server.read("all.log").lines().count() > n, "a line in the access log");
    server.read("all.log").lines().nth(n).expect("it was counted").to_string()
}

#[test]
fn the_log_of_requests() {
    let mut server = for_logs();
    let post = [("content-length", "5")];
    let length = |method: &str, path: &str, more: &[(&str, &str)]| head(1, 5, method, path, more).len() - 9;
    let simple = length("GET", "/r", &[]);
    let cases = [
        (head(1, WHOLE, "GET", "/r?a", &[]), "2|200|GET /r?a HTTP/2.0|/r?a|a|a|-|1|h2c|OK".to_string(), simple + 2),
        (head(1, WHOLE, "HEAD", "/r", &[]), "0|200|HEAD /r HTTP/2.0|/r|a|a|-|1|h2c|OK".into(), simple + 1),
        (head(1, WHOLE, "GET", "/none", &[]), "0|204|GET /none HTTP/2.0|/none|a|a|-|1|h2c|OK".into(), simple + 3),
        (head(1, WHOLE, "GET", "/t", &[]), "2|200|GET /t HTTP/2.0|/t|a|a|-|1|h2c|OK".into(), simple),
        (
            [head(1, END_HEADERS, "POST", "/p", &post), frame(DATA, END_STREAM, 1, b"abcde")].concat(),
            "10|200|POST /p HTTP/2.0|/p|a|a|5|1|h2c|OK".into(),
            length("POST", "/p", &post) + 5,
        ),
    ];
    for (n, (sent, expected, length)) in cases.into_iter().enumerate() {
        let mut raw = Raw::on(server.port());
        raw.send(&sent);
        let mut frames = Vec::new();
        while !frames.last().is_some_and(|frame: &Frame| frame.2 == 1 && frame.0 != WINDOW_UPDATE && frame.1 & 1 == 1) {
            frames.push(raw.receive().expect("it goes on"));
        }
        let bytes = bytes_of(&frames, 1);
        assert_eq!(line(&mut server, n), format!("{length}|{bytes}|{expected}"));
    }
    // HTTP/1 beside it.
    Connection::open(server.port()).get("/none", "Connection: close\r\n");
    assert!(line(&mut server, 5).ends_with("|1||OK"), "{}", line(&mut server, 5));
}

#[test]
fn the_log_of_requests_that_are_refused() {
    let mut server = for_logs();
    for (n, (more, expected)) in [
        (&[("host", "b")][..], "GET / HTTP/2.0|/|b|a|-|1|h2c|OK"),
        (&[("host", "a"), ("host", "a")], "GET / HTTP/2.0|/|a|a|-|1|h2c|OK"),
        (&[("connection", "close")], "GET / HTTP/2.0|/|-|a|-|1|h2c|OK"),
        (&[("content-length", "+5")], "GET / HTTP/2.0|/|a|a|+5|1|h2c|OK"),
        (&[("x", "y"), ("X", "y")], "GET / HTTP/2.0|/|-|a|-|1|h2c|OK"),
        (&[("X", "y")], "-|/|-|a|-|1|h2c|OK"),
        (&[(":foo", "y")], "-|/|-|a|-|1|h2c|OK"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut raw = Raw::on(server.port());
        raw.send(&head(1, WHOLE, "GET", "/", more));
        raw.until(DATA);
        let line = line(&mut server, n);
        let rest = line.splitn(4, '|').nth(3).unwrap_or_default();
        assert_eq!(rest, format!("400|{expected}"), "{more:?}");
    }
}

#[test]
fn the_log_of_requests_that_are_given_up() {
    let mut server = for_logs();
    let cancel = frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    // The client takes no more: what was sent counts.
    let mut raw = Raw::with(server.port(), &[(4, 1000)]);
    raw.send(&head(1, WHOLE, "GET", "/big", &[]));
    let frames = raw.until(DATA);
    raw.send(&cancel);
    let expected = format!("{}|1000|200|GET /big HTTP/2.0|/big|a|a|-|1|h2c|", bytes_of(&frames, 1));
    assert_eq!(line(&mut server, 0).split_once('|').map(|parts| parts.1), Some(&expected[..]));
    // It takes its body back.
    let mut raw = Raw::on(server.port());
    let post = head(1, END_HEADERS, "POST", "/p", &[("content-length", "5")]);
    raw.send(&[post, frame(DATA, 0, 1, b"ab")].concat());
    settled(&mut raw);
    raw.send(&cancel);
    let line_1 = line(&mut server, 1);
    assert!(line_1.ends_with("|0|0|499|POST /p HTTP/2.0|/p|a|a|5|1|h2c|"), "{line_1}");
    // Nothing is answered.
    let mut raw = Raw::on(server.port());
    raw.send(&head(1, WHOLE, "GET", "/444", &[]));
    assert_eq!(raw.until(RST_STREAM).last().map(|frame| frame.3[3]), Some(1));
    assert!(line(&mut server, 2).contains("|0|0|444|"));
    // Two at once have each their number.
    let mut raw = Raw::on(server.port());
    raw.send(&[head(1, WHOLE, "GET", "/r?1", &[]), head(3, WHOLE, "GET", "/r?2", &[])].concat());
    assert!(line(&mut server, 4).contains("HTTP/2.0"));
    let log = server.read("all.log");
    for n in 1..=2 {
        assert!(log.contains(&format!("|/r?{n}|a|a|-|{n}|h2c|OK")), "{log}");
    }
}

#[test]
fn a_stream_whose_windows_stay_closed_is_given_up() {
    // It promises more than it sends.
    let backend = Backend::sockets(|mut stream, _| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort");
    });
    let server = Setup::http(&format!(
        "http2 on; send_timeout 100ms; server {{ listen 127.0.0.1:%%PORT%%; root %%DIR%%/www;
            location /p {{ proxy_pass http://127.0.0.1:{}; }} }}",
        backend.port
    ))
    .file("www/big", "0123456789".repeat(30_000))
    .start();
    let mut raw = Raw::with(server.port(), &[(4, 10)]);
    raw.send(&head(1, WHOLE, "GET", "/big", &[]));
    assert_eq!(raw.until(RST_STREAM).last().map(|frame| frame.3[3]), Some(1), "the client's fault");
    raw.send(&head(3, WHOLE, "GET", "/p", &[]));
    assert_eq!(raw.until(RST_STREAM).last().map(|frame| frame.3[3]), Some(2), "the backend's fault");
}

#[test]
fn a_client_that_closes_its_side_is_answered() {
    let server = for_windows();
    let mut raw = Raw::on(server.port());
    settled(&mut raw);
    raw.send(&[head(1, WHOLE, "GET", "/r", &[]), head(3, WHOLE, "GET", "/r", &[])].concat());
    raw.socket().shutdown(Shutdown::Write).expect("it is connected");
    let mut frames = Vec::new();
    while let Some(frame) = raw.receive() {
        frames.push(frame);
    }
    assert_eq!((&data_of(&frames, 1)[..], &data_of(&frames, 3)[..]), (&b"ok"[..], &b"ok"[..]), "{frames:?}");
}
