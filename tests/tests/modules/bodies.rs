//! Bodies of requests: when a client is told to go on, what is too large, what isn't a body, and what becomes of the
//! connection.

use e2e::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, POST, Raw, field, frame, request};
use e2e::{Backend, Connection, Server, Setup};

/// A server with a location for each way that a body goes, and a backend that sends back what it got.
fn site() -> (Server, Backend) {
    let backend = Backend::start(|request| Backend::ok(&String::from_utf8_lossy(&request.body)));
    let port = backend.port;
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; root %%DIR%%/html; client_max_body_size 1k; client_body_timeout 5s;
            lingering_timeout 100ms;
            location /p {{ proxy_pass http://127.0.0.1:{port}; }}
            location /u {{ proxy_pass http://127.0.0.1:{port}; proxy_request_buffering off; }}
            location /free {{ proxy_pass http://127.0.0.1:{port}; client_max_body_size 0; }}
            location /text {{ return 200 ok; }}
            location /own {{ return 403 'own words'; }}
            location /403 {{ return 403; }}
            location /denied {{ deny all; }}
            location /moved {{ rewrite ^ /text redirect; }}
            location /elsewhere {{ error_page 403 http://example.com/; return 403; }}
            location = /page {{ error_page 403 /error.html; deny all; }}
            location /answered {{ error_page 403 =200 /error.html; deny all; }}
            location /inner {{ internal; }}
            location /read {{ limit_except GET {{ deny all; }} proxy_pass http://127.0.0.1:{port}; }}
            location /larger {{ error_page 413 = @larger; proxy_pass http://127.0.0.1:{port}; }}
            location @larger {{ client_max_body_size 1m; proxy_pass http://127.0.0.1:{port}; }}
            location /rewritten {{ rewrite ^ /p last; }}
        }}"
    ))
    .file("html/error.html", "page")
    .file("html/folder/file", "x")
    .start();
    (server, backend)
}

fn ask(server: &Server, target: &str, fields: &str, body: &str) -> Connection {
    let mut c = server.connect();
    c.send(format!("POST {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}"));
    c
}

#[test]
fn a_refused_request_isnt_told_to_go_on() {
    let (server, _backend) = site();
    for length in ["Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"] {
        for (target, status) in [
            ("/403", 403),
            ("/denied", 403),
            ("/none", 404),
            ("/error.html", 405),
            ("/folder", 301),
            ("/folder/", 403),
            ("/moved", 302),
            ("/elsewhere", 302),
            ("/page", 403),
            ("/inner", 404),
            ("/read", 403),
        ] {
            let mut c = ask(&server, target, &format!("Expect: 100-continue\r\n{length}"), "");
            let got = c.response();
            assert_eq!((got.status, got.field("Connection")), (status, Some("keep-alive")), "{target} {length}");
            // The head said that a body follows: it is still awaited, and then comes the next request.
            let body = if length.starts_with('C') { "0123456789" } else { "3\r\nabc\r\n0\r\n\r\n" };
            c.send(body);
            assert_eq!(c.get("/text", "").text(), "ok", "{target} {length}");
        }
    }
    for (target, status) in [("/p", 413), ("/u", 413), ("/403", 413), ("/text", 413), ("/inner", 404)] {
        let got = ask(&server, target, "Expect: 100-continue\r\nContent-Length: 5000\r\n", "").response();
        assert_eq!(got.status, status, "{target}");
    }
}

#[test]
fn a_request_that_goes_well_is_told_to_go_on() {
    let (server, _backend) = site();
    for (target, expect, text) in [
        ("/p", "100-continue", "0123456789"),
        ("/u", "100-Continue", "0123456789"),
        ("/text", "100-continue", "ok"),
        ("/own", "100-continue", "own words"),
        ("/answered", "100-continue", "page"),
    ] {
        let mut c = ask(&server, target, &format!("Expect: {expect}\r\nContent-Length: 10\r\n"), "");
        assert_eq!(c.response().status, 100, "{target}");
        c.send("0123456789");
        assert_eq!(c.response().text(), text, "{target}");
        assert_eq!(c.get("/text", "").text(), "ok", "{target}");
    }
    for fields in ["Expect: x\r\n", "Expect: 100-continue, x\r\n", "Expect:\r\n"] {
        let mut c = ask(&server, "/p", &format!("{fields}Content-Length: 3\r\n"), "");
        assert_eq!(c.send("abc").response().status, 200, "{fields}");
    }
    let mut c = server.connect();
    c.send("POST /p HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(c.response().text(), "abc");
}

#[test]
fn a_chunk_counts_whole_once_its_size_is_known() {
    let (server, _backend) = site();
    let full = format!("400\r\n{}\r\n", "x".repeat(1024));
    let cases = [
        (format!("{full}0\r\n\r\n"), 200),
        ("401\r\nx".to_string(), 413),
        ("40000000\r\nx".to_string(), 413),
        ("7ffffffffffffff\r\nx".to_string(), 413),
        ("800000000000000\r\nx".to_string(), 400),
        ("7FFFFFFFFFFFFFFF\r\nx".to_string(), 400),
        ("8000000000000000\r\nx".to_string(), 400),
        ("10000000000000000\r\nx".to_string(), 400),
        (format!("{full}1\r\nx"), 413),
        (format!("{full}7FFFFFFFFFFFFFFF\r\nx"), 400),
    ];
    for target in ["/p", "/u", "/rewritten"] {
        for (body, status) in &cases {
            let got = ask(&server, target, "Transfer-Encoding: chunked\r\n", body).response();
            let connection = if *status == 200 { "keep-alive" } else { "close" };
            let shown = &body[body.len().saturating_sub(30)..];
            assert_eq!((got.status, got.field("Connection")), (*status, Some(connection)), "{target} {shown:?}");
        }
    }
    for (body, status) in [("7ffffffffffffff\r\nx", None), ("800000000000000\r\nx", Some(400))] {
        let mut c = ask(&server, "/free", "Transfer-Encoding: chunked\r\n", body);
        assert_eq!(c.end().try_response(false).map(|r| r.status), status, "{body:?}");
    }
    assert!(server.read("error.log").contains("client intended to send too large chunked body: 0+1025 bytes"));
}

#[test]
fn a_body_that_nobody_wants_is_dropped() {
    let (server, _backend) = site();
    // However long it is: the limit is on what is kept or passed on.
    let long = format!("800\r\n{}\r\n0\r\n\r\n", "x".repeat(2048));
    for (target, status) in [("/text", 200), ("/403", 403), ("/none", 404), ("/error.html", 405)] {
        let mut c = ask(&server, target, "Transfer-Encoding: chunked\r\n", &long);
        assert_eq!(c.response().status, status, "{target}");
        assert_eq!(c.get("/text", "").text(), "ok", "{target}");
    }
    // A broken one changes a success, not an error.
    for body in ["5x\r\nhello\r\n0\r\n\r\n", "7FFFFFFFFFFFFFFF\r\nhello"] {
        for (target, status) in [("/text", 400), ("/403", 403), ("/none", 404), ("/error.html", 405)] {
            let mut c = ask(&server, target, "Transfer-Encoding: chunked\r\n", body);
            let got = c.response();
            assert_eq!((got.status, got.field("Connection")), (status, Some("close")), "{target} {body:?}");
            assert!(c.closed(), "{target} {body:?}");
        }
    }
}

#[test]
fn the_page_of_a_body_too_large_may_come_from_a_backend() {
    let (server, backend) = site();
    let body = "y".repeat(2000);
    let chunked = "401\r\nxy".to_string();
    for (fields, body) in [("Content-Length: 2000\r\n", body), ("Transfer-Encoding: chunked\r\n", chunked)] {
        let got = ask(&server, "/larger", fields, &body).response();
        assert_eq!((got.status, got.text().as_str(), got.field("Connection")), (200, "", Some("close")), "{fields}");
    }
    let passed: Vec<_> = backend.requests().iter().map(|r| r.field("Content-Length").map(str::to_string)).collect();
    assert_eq!(passed, [Some("0".to_string()), Some("0".to_string())]);
}

#[test]
fn extensions_and_trailers_of_any_length_are_dropped() {
    let (server, backend) = site();
    let (extension, value, lines) = ("x".repeat(30_000), "y".repeat(100_000), "A: b\r\n".repeat(20_000));
    for target in ["/p", "/u"] {
        for (first, last) in [
            (format!(";{extension}"), String::new()),
            (String::new(), format!(";{extension}\r\nX-T: {value}")),
            (String::new(), format!("\r\n{}", lines.trim_end())),
        ] {
            let body = format!("5{first}\r\nhello\r\n0{last}\r\n\r\n");
            let mut c = ask(&server, target, "Transfer-Encoding: chunked\r\n", &body);
            assert_eq!(c.response().status, 200, "{target}");
            assert_eq!(c.get("/text", "").text(), "ok", "{target}");
        }
    }
    let passed = backend.requests();
    assert!(passed.iter().all(|r| matches!(&r.body[..], b"hello" | b"5\r\nhello\r\n0\r\n\r\n")), "{passed:?}");
}

/// Differs from nginx: is announced with its length to the backend of an `error_page`
#[test]
fn a_body_that_is_lost_is_an_empty_one() {
    let first = Backend::start(|_| b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec());
    let second = Backend::start(|r| {
        let framing = r.field("Content-Length").or(r.field("Transfer-Encoding")).unwrap_or("none");
        Backend::ok(&format!("{framing} {}", r.body.len()))
    });
    let (one, other) = (first.port, second.port);
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; http2 on; client_body_buffer_size 1k; proxy_intercept_errors on;
            proxy_http_version 1.1; client_max_body_size 1m;
            location /streamed {{ proxy_request_buffering off; proxy_pass http://127.0.0.1:{one}; error_page 503 = @second; }}
            location /again {{ proxy_request_buffering off; proxy_pass http://127.0.0.1:{one}; error_page 503 = @streamed; }}
            location /whole {{ proxy_pass http://127.0.0.1:{one}; error_page 400 413 503 = @second; }}
            location @second {{ proxy_pass http://127.0.0.1:{other}; }}
            location @streamed {{ proxy_request_buffering off; proxy_pass http://127.0.0.1:{other}; }} }}"
    ))
    .start();
    let long = "x".repeat(100_000);
    let length = format!("Content-Length: {}\r\n", long.len());
    let chunks = format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    for (target, fields, body, expect) in [
        ("/streamed", &*length, &*long, "0 0"),
        ("/again", &length, &long, "0 0"),
        ("/streamed", "Transfer-Encoding: chunked\r\n", &chunks, "0 0"),
        ("/again", "Transfer-Encoding: chunked\r\n", &chunks, "0 0"),
        // One that is kept goes to both.
        ("/streamed", "Content-Length: 5\r\n", "short", "5 5"),
        ("/again", "Transfer-Encoding: chunked\r\n", "5\r\nshort\r\n0\r\n\r\n", "5 5"),
        ("/whole", &length, &long, "100000 100000"),
    ] {
        assert_eq!(ask(&server, target, fields, body).response().text(), expect, "{target} {fields}");
    }
    // Streams that are shorter or longer than they say.
    for sent in [10, 2000] {
        let mut raw = Raw::on(server.port());
        let block = [request(POST, "/whole"), field("content-length", "1000")].concat();
        raw.send(&frame(HEADERS, END_HEADERS, 1, &block));
        raw.send(&frame(DATA, END_STREAM, 1, &vec![b'x'; sent]));
        let frames = raw.until(DATA);
        assert_eq!(String::from_utf8_lossy(&frames.last().expect("it was found").3), "0 0", "{sent}");
    }
}
