//! `tunnel_pass`: CONNECT.

use std::io::{Read, Write};

use e2e::{Backend, Server, Setup, echo_over_reloads};

fn connect(server: &Server, target: &str, more: &str) -> String {
    let mut client = server.connect();
    client.send(format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n{more}\r\n"));
    client.send("GET /inside HTTP/1.0\r\n\r\n");
    String::from_utf8_lossy(&client.rest()).into_owned()
}

#[test]
fn bytes_go_both_ways() {
    let backend = Backend::start(|request| {
        [&b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n"[..], request.line().as_bytes()].concat()
    });
    let server = Setup::http(&format!(
        "upstream fixed {{ server 127.0.0.1:{0}; }}
        server {{ listen 127.0.0.1:%%PORT%%; tunnel_pass; add_header X-Added yes; location /plain {{ return 200 plain; }} }}
        server {{ listen 127.0.0.1:%%PORT_fixed%%; location / {{ tunnel_pass fixed; }} }}
        server {{ listen 127.0.0.1:%%PORT_if%%;
            location / {{ if ($request_method = CONNECT) {{ tunnel_pass $host:{0}; break; }} return 200 other; }} }}
        server {{ listen 127.0.0.1:%%PORT_none%%; location / {{ return 200 none; }} }}",
        backend.port
    ))
    .start();
    let target = format!("127.0.0.1:{}", backend.port);
    let text = connect(&server, &target, "");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("\r\nX-Added: yes\r\n"), "{text}");
    let (head, inside) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("\r\nConnection: close") && !head.to_lowercase().contains("transfer-encoding"), "{head}");
    assert!(inside.ends_with("GET /inside HTTP/1.0"), "{inside}");
    let at = |name: &str, target: &str| {
        let mut client = e2e::Connection::open(server.port_of(&format!("PORT_{name}")));
        client.send(format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\nGET /x HTTP/1.0\r\n\r\n"));
        String::from_utf8_lossy(&client.rest()).into_owned()
    };
    assert!(at("fixed", "elsewhere:1").ends_with("GET /x HTTP/1.0"));
    assert!(at("if", "127.0.0.1:9").ends_with("GET /x HTTP/1.0"));
    assert!(at("none", &target).starts_with("HTTP/1.1 405 "));
}

#[test]
fn what_is_refused() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; tunnel_pass; location /plain { return 200 plain; } }
        server { listen 127.0.0.1:%%PORT_other%%; location / { return 200 $request_method; } location /t { tunnel_pass; } }",
    )
    .start();
    assert_eq!(server.get("/").status, 405);
    assert_eq!(server.get("/plain").text(), "plain");
    for (target, more, status) in [
        ("127.0.0.1:1", "Content-Length: 3\r\n", 400),
        ("127.0.0.1:1", "Transfer-Encoding: chunked\r\n", 400),
        ("127.0.0.1", "", 400),
        ("127.0.0.1:", "", 400),
        ("127.0.0.1:65536", "", 400),
        ("http://127.0.0.1:1", "", 400),
        // Nobody listens there, and nobody knows the name.
        ("127.0.0.1:1", "", 502),
        ("unknown.test:80", "", 502),
    ] {
        let text = connect(&server, target, more);
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{target} {more}: {text}");
        assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
    }
    // A location that serves CONNECT opens the whole server to it; the connection isn't kept.
    let mut client = e2e::Connection::open(server.port_of("PORT_other"));
    client.send("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n");
    let text = String::from_utf8_lossy(&client.rest()).into_owned();
    assert!(text.ends_with("\r\n\r\nCONNECT") && text.contains("\r\nConnection: close\r\n"), "{text}");
    let text = server.raw("CONNECT 127.0.0.1:1 HTTP/1.0\r\n\r\n");
    assert_eq!(text.status, 405);
}

/// Not in nginx: both move to the new workers
#[test]
fn tunnels_go_on_over_reloads() {
    let backend = Backend::sockets(|mut socket, _| {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = socket.read(&mut buffer) {
            if socket.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
    });
    let mut server = Setup::http("server { listen 127.0.0.1:%%PORT%%; tunnel_pass; }").start();
    let tunnel = |_| {
        let mut client = server.connect();
        client.send(format!("CONNECT 127.0.0.1:{} HTTP/1.1\r\nHost: a\r\n\r\n", backend.port));
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(client.take(1));
        }
        assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", head.escape_ascii());
        client
    };
    let tunnels = (0..2).map(tunnel).collect();
    echo_over_reloads(&mut server, tunnels, 8 << 20);
}
