//! HTTP/2 to backends: `proxy_http_version 2` and `grpc_pass` with servers that write their frames by hand.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::Duration;

use e2e::frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS};
use e2e::frames::{WINDOW_UPDATE, field, frame};
use e2e::{Backend, Server, Setup};

/// `:status: 200` in the static table.
const OK: u8 = 0x88;

fn ok(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &[OK])
}

fn data(flags: u8, stream: u32, text: &str) -> Vec<u8> {
    frame(DATA, flags, stream, text.as_bytes())
}

/// The next frame of a client: its kind, flags, stream, payload.
fn receive(socket: &mut TcpStream) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    socket.read_exact(&mut head).ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    socket.read_exact(&mut payload).ok()?;
    Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}

/// A backend that answers each whole request with the frames that a function makes of its stream and its body.
fn backend(answer: impl Fn(u32, &[u8]) -> Vec<u8> + Send + Sync + 'static) -> Backend {
    Backend::sockets(move |mut socket, _: &Mutex<_>| {
        let mut preface = [0; 24];
        if socket.read_exact(&mut preface).is_err() || socket.write_all(&frame(SETTINGS, 0, 0, &[])).is_err() {
            return;
        }
        let mut body = Vec::new();
        while let Some((kind, flags, stream, payload)) = receive(&mut socket) {
            if kind == DATA {
                body.extend(payload);
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                let frames = answer(stream, &std::mem::take(&mut body));
                if frames.is_empty() || socket.write_all(&frames).is_err() {
                    return;
                }
            }
        }
    })
}

/// A server with a location for each of these backends: `/0`, `/1`, … over `proxy_pass`, `/g0`, … over `grpc_pass`.
fn server(backends: &[&Backend], more: &str) -> Server {
    let mut text = String::new();
    for (n, backend) in backends.iter().enumerate() {
        let port = backend.port;
        text += &format!("location /{n} {{ proxy_http_version 2; proxy_pass http://127.0.0.1:{port}; }}\n");
        text += &format!("location /g{n} {{ grpc_pass grpc://127.0.0.1:{port}; }}\n");
    }
    Setup::http(&format!("{more} server {{ listen 127.0.0.1:%%PORT%%; {text} }}")).start()
}

#[test]
fn backends_that_break_the_rules() {
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), "rejected request with error 8"),
        (frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 2]), "sent goaway with error 2"),
        (frame(5, END_HEADERS, 1, &[0, 0, 0, 2, OK]), "sent unexpected push promise frame"),
        (frame(HEADERS, 5, 3, &[OK]), "sent frame for unknown stream 3"),
        (data(END_STREAM, 1, "x"), "sent unexpected http2 frame: 0"),
        (frame(CONTINUATION, END_HEADERS, 1, &[OK]), "sent unexpected http2 frame: 9"),
        ([frame(HEADERS, 0, 1, &[OK]), frame(PING, 0, 0, &[0; 8])].concat(), "sent unexpected http2 frame: 6"),
        (frame(PING, 0, 0, &[0; 7]), "sent ping frame with invalid length: 7"),
        (frame(SETTINGS, 0, 0, &[0; 5]), "sent settings frame with invalid length: 5"),
        (frame(WINDOW_UPDATE, 0, 0, &[0; 4]), "sent zero window update"),
        (frame(WINDOW_UPDATE, 0, 1, &[0x7f, 255, 255, 255]), "sent too large window update"),
        (frame(HEADERS, 5, 1, &field("a", "b")), "sent no :status header"),
        (frame(HEADERS, 5, 1, &field(":status", "2x0")), "sent invalid :status \"2x0\""),
        (frame(HEADERS, 5, 1, &[OK, OK]), "sent duplicate :status header"),
        (frame(HEADERS, 5, 1, &[&[OK][..], &field("Ab", "c")].concat()), "sent invalid header: \"Ab"),
        (frame(HEADERS, 5, 1, &[OK, 0x80]), "sent invalid http2 table index"),
        (data(0, 1, &"x".repeat(16_385)), "sent too large http2 frame: 16385"),
        (frame(HEADERS, 5, 1, &field(":status", "103")), "prematurely closed stream"),
        (frame(HEADERS, 5, 1, &field(":status", "101")), "sent unexpected :status \"101\""),
        (b"HTTP/1.1 400 Bad\r\n\r\n".to_vec(), "sent too large http2 frame: 4740180"),
    ];
    let backends: Vec<_> =
        cases.iter().map(|(frames, _)| frames.clone()).map(|f| backend(move |_, _| f.clone())).collect();
    let mut server = server(&backends.iter().collect::<Vec<_>>(), "");
    for (n, (_, text)) in cases.iter().enumerate() {
        for path in [format!("/{n}"), format!("/g{n}")] {
            assert_eq!(server.get(&path).status, 502, "{text}");
            let log = server.read("error.log");
            let line = log.lines().rev().find(|line| line.contains(&format!("GET {path} "))).expect("a line");
            assert!(log.contains(&format!("upstream {text}")), "{line}, and not {text}");
        }
    }
    server.quiet();
}

#[test]
fn what_backends_may_send() {
    let control =
        [frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 9]), frame(PING, 0, 0, &[1; 8]), frame(0x42, 0, 0, b"x")].concat();
    let frames = move |stream: u32| {
        let hints = frame(HEADERS, END_HEADERS, stream, &[field(":status", "103"), field("link", "x")].concat());
        let head = frame(HEADERS, 0, stream, &[OK]);
        let rest = frame(CONTINUATION, END_HEADERS, stream, &field("x-field", "value"));
        let padded = frame(DATA, 8, stream, &[&[2][..], b"one\0\0"].concat());
        let trailers = frame(HEADERS, 5, stream, &field("x-trailer", "last"));
        [control.clone(), hints, head, rest, padded, data(0, stream, "two"), trailers].concat()
    };
    let backend = backend(move |stream, _| frames(stream));
    let server = server(&[&backend], "");
    for path in ["/0", "/g0"] {
        let response = server.get(path);
        assert_eq!((response.status, response.field("x-field")), (200, Some("value")), "{path}");
        assert_eq!(response.text(), "onetwo", "{path}");
    }
    let whole = server.raw("GET /g0 HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close\r\n\r\n");
    assert!(whole.text().contains("onetwo"), "{}", whole.text());
}

/// Differs from nginx: frames about streams that are over are ignored
#[test]
fn connections_serve_on() {
    let backend = backend(|stream, body| {
        let text = format!("{stream} {}", String::from_utf8_lossy(body));
        // What follows a response belongs to the connection.
        [ok(stream), data(END_STREAM, stream, &text), frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 9])].concat()
    });
    let server = Setup::http(&format!(
        "upstream u {{ server 127.0.0.1:{}; keepalive 1; }} server {{ listen 127.0.0.1:%%PORT%%;
            location / {{ grpc_pass u; }} location /p {{ proxy_http_version 2; proxy_pass http://u; }}
            location /b {{ proxy_http_version 2; proxy_set_body own; proxy_pass http://u; }} }}",
        backend.port
    ))
    .start();
    assert_eq!(server.get("/").text(), "1 ");
    let post = "POST /p HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(server.raw(post).text(), "3 hello");
    assert_eq!(server.get("/b").text(), "5 own");
    assert_eq!(server.get("/").text(), "7 ");
    assert_eq!(backend.connections(), 1);
}

/// Differs from nginx: a request that may not be repeated goes to the next server too
#[test]
fn refused_requests_go_to_the_next_server() {
    let refusals: [Vec<u8>; 2] =
        [frame(RST_STREAM, 0, 1, &[0, 0, 0, 7]), frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11])];
    for refusal in refusals {
        let refusing = backend(move |_, _| refusal.clone());
        let serving =
            backend(|stream, body| [ok(stream), data(END_STREAM, stream, &String::from_utf8_lossy(body))].concat());
        let server = Setup::http(&format!(
            "upstream u {{ server 127.0.0.1:{} max_fails=0; server 127.0.0.1:{}; }}
            server {{ listen 127.0.0.1:%%PORT%%; location / {{ grpc_pass u; }} }}",
            refusing.port, serving.port
        ))
        .start();
        for _ in 0..3 {
            let post = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
            let response = server.raw(post);
            assert_eq!((response.status, response.text()), (200, "hello".to_owned()));
        }
        assert!(refusing.connections() > 0);
    }
}

/// Differs from nginx: the same server is asked on a new connection
#[test]
fn a_server_that_leaves_is_asked_on_a_new_connection() {
    let backend = backend(|stream, _| match stream {
        1 => [ok(1), data(END_STREAM, 1, "served")].concat(),
        _ => frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]),
    });
    let server = Setup::http(&format!(
        "upstream u {{ server 127.0.0.1:{}; keepalive 1; }}
        server {{ listen 127.0.0.1:%%PORT%%; location / {{ grpc_pass u; }} }}",
        backend.port
    ))
    .start();
    for _ in 0..4 {
        let post = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
        assert_eq!(server.raw(post).text(), "served");
    }
}

#[test]
fn a_body_goes_on_while_the_response_comes() {
    // A server that begins to answer with the request's head, and sends each part back as it comes.
    let backend = Backend::sockets(|mut socket, _: &Mutex<_>| {
        let _ = socket.read_exact(&mut [0; 24]);
        let _ = socket.write_all(&frame(SETTINGS, 0, 0, &[]));
        while let Some((kind, flags, stream, payload)) = receive(&mut socket) {
            let frames = match kind {
                HEADERS => ok(stream),
                DATA => frame(DATA, flags, stream, &payload),
                _ => continue,
            };
            if socket.write_all(&frames).is_err() {
                return;
            }
        }
    });
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; location / {{ grpc_pass 127.0.0.1:{0}; }}
            location /p {{ proxy_http_version 2; proxy_request_buffering off; proxy_buffering off;
                proxy_pass http://127.0.0.1:{0}; }} }}",
        backend.port
    ))
    .start();
    for path in ["/", "/p"] {
        let mut client = server.connect();
        client.stream().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
        let mut seen = Vec::new();
        let mut until = |client: &mut e2e::Connection, text: &str| {
            while !String::from_utf8_lossy(&seen).contains(text) {
                seen.extend(client.take(1));
            }
        };
        client.send("3\r\none\r\n");
        until(&mut client, "one");
        client.send("3\r\ntwo\r\n");
        until(&mut client, "two");
        client.send("0\r\n\r\n");
        until(&mut client, "\r\n0\r\n\r\n");
    }
}

/// A server that passes bodies on as they come, and doesn't wait long for its backend to take them.
fn passing(backend: &Backend) -> Server {
    let port = backend.port;
    Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; client_max_body_size 0; proxy_http_version 2;
           proxy_request_buffering off; proxy_send_timeout 300ms;
           location / {{ proxy_pass http://127.0.0.1:{port}; }} }}"
    ))
    .start()
}

#[test]
fn a_window_that_stays_shut() {
    let backend = backend(|stream, _| [ok(stream), data(END_STREAM, stream, "all")].concat());
    let mut server = passing(&backend);
    let mut client = server.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").send(vec![b'x'; 90_000]);
    assert_eq!(client.response().status, 504);
    server.read_until("error.log", "upstream timed out (110: Connection timed out) while sending request to upstream");
}

/// Differs from nginx: an empty DATA frame is sent without one
#[test]
fn the_end_of_a_body_needs_no_window() {
    let backend = backend(|stream, body| [ok(stream), data(END_STREAM, stream, &body.len().to_string())].concat());
    let mut server = passing(&backend);
    let mut client = server.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n").send(vec![b'x'; 0xffff]);
    // Another request is answered by the same worker after that has come.
    server
        .wait(|server| server.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").text() == "0", "an answer");
    client.send(b"\r\n0\r\n\r\n");
    assert_eq!(client.response().text(), "65535");
}
