//! Connections to backends: bodies both ways, slow peers, keep-alive, backends that can't be reached, tunnels.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use e2e::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, POST, Raw, WINDOW_UPDATE, frame, request};
use e2e::{Backend, Setup};

#[test]
fn request_bodies() {
    let backend = Backend::start(|r| {
        let kind = r.field("Transfer-Encoding").or(r.field("Content-Length")).unwrap_or("none").to_string();
        let sum: u64 = r.body.iter().map(|b| u64::from(*b)).sum();
        Backend::ok(&format!("{kind} {sum}"))
    });
    let server = Setup::http(&format!(
        "client_max_body_size 10m; client_body_buffer_size 16k;
         server {{ listen 127.0.0.1:%%PORT%%; proxy_http_version 1.1;
            location / {{ proxy_pass http://127.0.0.1:{0}; }}
            location /stream {{ proxy_request_buffering off; proxy_pass http://127.0.0.1:{0}; }}
            location /nobody {{ proxy_pass_request_body off; proxy_set_header Content-Length ''; proxy_pass http://127.0.0.1:{0}; }} }}",
        backend.port
    ))
    .start();
    let large = vec![1u8; 1_000_000];
    for target in ["/", "/stream"] {
        let mut c = server.connect();
        c.send(format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", large.len())).send(&large);
        assert_eq!(c.response().text(), "1000000 1000000", "{target}");
        c.send(format!("POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
        for _ in 0..3 {
            c.send("5\r\n\x01\x01\x01\x01\x01\r\n");
            std::thread::sleep(Duration::from_millis(20));
        }
        let answer = c.send("0\r\n\r\n").response().text();
        assert!(answer.starts_with(if target == "/" { "15 15" } else { "chunked " }), "{target}: {answer}");
        c.send(format!("POST {target} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"));
        assert_eq!(c.response().status, 100, "{target}");
        assert_eq!(c.send("\x01").response().text(), "1 1", "{target}");
    }
    let mut c = server.connect();
    c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(c.response().text(), "0 0", "an empty body in chunks");
    let mut c = server.connect();
    c.send("POST /nobody HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
    assert_eq!(c.response().text(), "none 0");
    let cut = Instant::now();
    server.connect().send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab").end().rest();
    assert!(cut.elapsed() < Duration::from_secs(10), "a body that ends early");
}

/// A backend that answers with a half, and with the other one once it has so many bytes of the request's body.
fn answers_halfway(length: usize) -> Backend {
    Backend::sockets(move |mut s, _| {
        let mut received = Vec::new();
        let mut read = |s: &mut TcpStream, enough: &dyn Fn(&[u8]) -> bool| {
            let mut part = vec![0; 65_536];
            while !enough(&received) {
                match s.read(&mut part) {
                    Ok(n) if n > 0 => received.extend_from_slice(&part[..n]),
                    _ => return false,
                }
            }
            true
        };
        let head = |bytes: &[u8]| bytes.windows(4).any(|end| end == b"\r\n\r\n");
        let whole = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'~').count() == length;
        if read(&mut s, &head) && s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegun").is_ok() {
            let second = if read(&mut s, &whole) { "ended" } else { "break" };
            let _ = s.write_all(second.as_bytes());
        }
    })
}

#[test]
fn a_request_goes_on_while_its_response_comes() {
    const LENGTH: usize = 300_000;
    let backend = answers_halfway(LENGTH);
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; proxy_http_version 1.1; proxy_read_timeout 5s;
            http2 on; proxy_request_buffering off; proxy_buffering off;
            location / {{ proxy_pass http://127.0.0.1:{}; }} }}",
        backend.port
    ))
    .start();
    let body = vec![b'~'; LENGTH];
    let mut c = server.connect();
    c.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n")).send(&body[..1]);
    let mut got = Vec::new();
    while !got.ends_with(b"begun") {
        got.extend(c.take(1));
    }
    assert_eq!(c.send(&body[1..]).take(5), b"ended");

    let mut raw = Raw::on(server.port());
    raw.send(&frame(HEADERS, END_HEADERS, 1, &request(POST, "/")));
    assert_eq!(raw.until(DATA).pop().map(|frame| frame.3), Some(b"begun".to_vec()));
    let (mut window, mut rest) = (65_535, &body[..]);
    while !rest.is_empty() {
        while window == 0 {
            let update = raw.until(WINDOW_UPDATE).pop().filter(|frame| frame.2 == 1);
            window += update.map_or(0, |frame| u32::from_be_bytes(frame.3.try_into().expect("four bytes")) as usize);
        }
        let (part, after) = rest.split_at(rest.len().min(16_384).min(window));
        raw.send(&frame(DATA, if after.is_empty() { END_STREAM } else { 0 }, 1, part));
        (window, rest) = (window - part.len(), after);
    }
    assert_eq!(raw.until(DATA).pop().map(|frame| frame.3), Some(b"ended".to_vec()));
}

/// Differs from nginx: a backend's answer counts even if
#[test]
fn an_answer_counts_though_its_backend_takes_no_more() {
    // It closes with unread bytes, which resets the connection.
    let backend = Backend::sockets(|mut s, _| {
        let mut seen = vec![0; 200_000];
        while s.peek(&mut seen).is_ok_and(|n| n > 0 && n < 20_000) {
            std::thread::yield_now();
        }
        let _ = s.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge");
    });
    let server = Setup::http(&format!(
        "client_max_body_size 10m;
         server {{ listen 127.0.0.1:%%PORT%%; proxy_http_version 1.1;
            location / {{ proxy_pass http://127.0.0.1:{0}; }}
            location /stream {{ proxy_request_buffering off; proxy_pass http://127.0.0.1:{0}; }} }}",
        backend.port
    ))
    .start();
    for target in ["/", "/stream"].repeat(10) {
        let mut c = server.connect();
        c.send(format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n"));
        let _ = c.try_send(vec![0; 8_000_000]);
        let response = c.response();
        assert_eq!((response.status, response.text().as_str()), (413, "large"), "{target}");
    }
}

#[test]
fn response_framings() {
    let backend = Backend::start(|r| match r.line().split(' ').nth(1).unwrap_or_default() {
        "/chunked" => {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n".to_vec()
        }
        "/close" => b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcde".to_vec(),
        "/none" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/cut" => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nabc".to_vec(),
        "/junk" => b"not http at all\r\nConnection: close\r\n\r\n".to_vec(),
        "/empty" => Vec::new(),
        _ => Backend::ok(&"z".repeat(500_000)),
    });
    for buffering in ["on", "off"] {
        let server = Setup::http(&format!(
            "server {{ listen 127.0.0.1:%%PORT%%; proxy_buffering {buffering};
                location / {{ proxy_http_version 1.1; proxy_pass http://127.0.0.1:{0}; }}
                location /cut {{ proxy_pass http://127.0.0.1:{0}; }} }}",
            backend.port
        ))
        .start();
        let cases = [("/chunked", 200, "abcde"), ("/close", 200, "abcde"), ("/none", 204, "")];
        for (target, status, text) in cases {
            let got = server.connect().get(target, "");
            assert_eq!((got.status, got.text().as_str()), (status, text), "{target} {buffering}");
        }
        assert_eq!(server.get("/large").body.len(), 500_000);
        assert_eq!(server.get("/empty").status, 502);
        let cut = server.connect().send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n").rest();
        assert!(cut.ends_with(b"abc"), "a cut body ends the connection");
        let mut c = server.connect();
        let head = c.send("HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n").head_response();
        assert_eq!(head.status, 200);
    }
}

#[test]
fn slow_client_and_slow_backend() {
    let backend = Backend::start(|_| Backend::ok(&"z".repeat(8_000_000)));
    let silent = Backend::sockets(|mut s, _| {
        let _ = s.read(&mut [0; 1000]);
        std::thread::sleep(Duration::from_secs(10));
    });
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%;
            location / {{ proxy_pass http://127.0.0.1:{}; }}
            location /small {{ proxy_max_temp_file_size 0; proxy_pass http://127.0.0.1:{0}; }}
            location /silent {{ proxy_read_timeout 1s; proxy_pass http://127.0.0.1:{}; }}
            location /dead {{ proxy_connect_timeout 1s; proxy_pass http://127.0.0.1:1; }} }}",
        backend.port, silent.port
    ))
    .start();
    for target in ["/", "/small"] {
        let mut c = server.connect();
        c.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(server.get("/dead").status, 502, "others are served meanwhile");
        assert_eq!(c.response().body.len(), 8_000_000, "{target}");
    }
    assert_eq!(server.get("/silent").status, 504);
}

#[test]
fn keepalive_to_the_backend() {
    let backend = Backend::start(|_| Backend::ok("x"));
    let server = Setup::http(&format!(
        "upstream u {{ server 127.0.0.1:{0}; keepalive 4; }}
         server {{ listen 127.0.0.1:%%PORT%%;
            location / {{ proxy_http_version 1.1; proxy_set_header Connection ''; proxy_pass http://u; }} }}",
        backend.port
    ))
    .start();
    let mut c = server.connect();
    for _ in 0..20 {
        assert_eq!(c.get("/", "").text(), "x");
    }
    assert_eq!((backend.connections(), backend.requests().len()), (1, 20));
}

#[test]
fn balancing_and_retries() {
    let a = Backend::start(|_| Backend::ok("a"));
    let b = Backend::start(|_| Backend::ok("b"));
    let sick = Backend::start(|_| b"HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nsick".to_vec());
    let mute = Backend::start(|_| Vec::new());
    let server = Setup::http(&format!(
        "upstream weighted {{ server 127.0.0.1:{a} weight=2; server 127.0.0.1:{b}; }}
         upstream dead {{ server 127.0.0.1:1; server 127.0.0.1:{a}; }}
         upstream sick {{ server 127.0.0.1:{s} max_fails=0; server 127.0.0.1:{b} max_fails=0; }}
         upstream mute {{ server 127.0.0.1:{m} max_fails=0; server 127.0.0.1:{a} max_fails=0; }}
         upstream backup {{ server 127.0.0.1:1; server 127.0.0.1:{b} backup; }}
         upstream down {{ server 127.0.0.1:{a} down; server 127.0.0.1:{b}; }}
         upstream none {{ server 127.0.0.1:1; server 127.0.0.1:2; }}
         server {{ listen 127.0.0.1:%%PORT%%; add_header X-Tried $upstream_addr always;
            location /weighted {{ proxy_pass http://weighted; }}
            location /dead {{ proxy_pass http://dead; }}
            location /sick {{ proxy_pass http://sick; proxy_next_upstream error http_503; }}
            location /sick/kept {{ proxy_pass http://sick; }}
            location /mute {{ proxy_pass http://mute; }}
            location /backup {{ proxy_pass http://backup; }}
            location /down {{ proxy_pass http://down; }}
            location /none {{ proxy_pass http://none; }}
         }}",
        a = a.port,
        b = b.port,
        s = sick.port,
        m = mute.port
    ))
    .start();
    let many = |target: &str, n| (0..n).map(|_| server.get(target).text()).collect::<Vec<_>>().concat();
    let counts = |text: String| (text.matches('a').count(), text.matches('b').count());
    assert_eq!(counts(many("/weighted", 12)), (8, 4));
    assert_eq!(many("/dead", 4), "aaaa");
    assert_eq!(many("/sick", 4), "bbbb");
    let kept = many("/sick/kept", 4);
    assert_eq!((kept.matches("sick").count(), kept.matches('b').count()), (2, 2), "{kept}");
    assert_eq!(many("/mute", 4), "aaaa");
    assert_eq!(many("/backup", 2), "bb");
    assert_eq!(many("/down", 2), "bb");
    let none = server.get("/none");
    assert_eq!((none.status, none.field("X-Tried")), (502, Some("127.0.0.1:1, 127.0.0.1:2")));
    // A request that isn't idempotent isn't sent twice.
    let posts: Vec<_> = (0..2)
        .map(|_| server.raw("POST /mute HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx").status)
        .collect();
    assert!(posts.contains(&502) && posts.contains(&200), "{posts:?}");
}

#[test]
fn upgrades() {
    let backend = Backend::sockets(|mut s, _| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if s.read(&mut byte).unwrap_or(0) == 0 {
                return;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        assert!(head.contains("upgrade: echo") && head.contains("connection: upgrade"), "{head}");
        let _ = s.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nhello ");
        let mut buffer = [0; 65536];
        while let Ok(n @ 1..) = s.read(&mut buffer) {
            let _ = s.write_all(&buffer[..n]);
        }
    });
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%;
            location / {{ proxy_pass http://127.0.0.1:{}; proxy_http_version 1.1;
                proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }} }}",
        backend.port
    ))
    .start();
    let mut c = server.connect();
    c.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nfirst");
    assert_eq!(c.response().status, 101);
    assert_eq!(c.take(11), b"hello first");
    for size in [1, 1000, 300_000] {
        let sent = vec![b'w'; size];
        let mut writer = c.stream().try_clone().expect("a socket can be doubled");
        let copy = sent.clone();
        let thread = std::thread::spawn(move || writer.write_all(&copy));
        assert!(c.take(size) == sent, "{size} bytes there and back");
        thread.join().expect("no panic").expect("the server reads");
    }
    c.end();
    assert!(c.closed());
}
