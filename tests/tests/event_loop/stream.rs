//! Streams under each event method: much at once, silence, ends of all kinds.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use e2e::{Backend, Connection, EC, Setup, certificate, pattern, secure};

/// A backend that sends everything back, and its end too.
fn echo() -> Backend {
    Backend::sockets(|mut stream, _| {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
    })
}

/// Sends so many bytes, and reads them back: slowly, if the client is to be slower than the backend.
fn pour(mut client: TcpStream, size: usize, slowly: bool) {
    let mut writer = client.try_clone().expect("a socket can be copied");
    let writing = thread::spawn(move || {
        for at in (0..size).step_by(64 << 10) {
            writer.write_all(&pattern(at, 64 << 10)).expect("the session stands");
        }
        let _ = writer.shutdown(Shutdown::Write);
    });
    let (mut at, mut buffer) = (0, vec![0; 256 << 10]);
    loop {
        let got = client.read(&mut buffer).expect("the session stands");
        if got == 0 {
            break;
        }
        assert!(buffer[..got] == pattern(at, got), "wrong bytes after {at}");
        at += got;
        if slowly && at % 7 == 0 {
            thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(at, size, "all of it");
    writing.join().expect("everything was sent");
}

#[test]
fn much_at_once() {
    let backend = echo();
    let setup = Setup::stream(&format!(
        "proxy_half_close on;
         server {{ listen 127.0.0.1:%%PORT_PLAIN%%; proxy_pass 127.0.0.1:{0}; }}
         server {{ listen 127.0.0.1:%%PORT_SMALL%%; proxy_buffer_size 1000; proxy_pass 127.0.0.1:{0}; }}
         server {{ listen 127.0.0.1:%%PORT_INNER%% ssl; ssl_certificate site.crt; ssl_certificate_key site.key;
            proxy_pass 127.0.0.1:{0}; }}
         server {{ listen 127.0.0.1:%%PORT_TLS%%; proxy_ssl on; proxy_pass 127.0.0.1:%%PORT_INNER%%; }}",
        backend.port
    ));
    certificate(setup.folder(), "site", EC);
    let server = setup.start();
    let sessions: Vec<_> = [
        ("PORT_PLAIN", 48 << 20, false),
        ("PORT_PLAIN", 16 << 20, true),
        ("PORT_SMALL", 2 << 20, true),
        ("PORT_TLS", 16 << 20, true),
    ]
    .into_iter()
    .map(|(port, size, slowly)| {
        let client = Connection::open(server.port_of(port)).stream().try_clone().expect("a socket can be copied");
        thread::spawn(move || pour(client, size, slowly))
    })
    .collect();
    sessions.into_iter().for_each(|session| session.join().expect("it comes to its end"));
}

#[test]
fn silent_clients() {
    let backend = echo();
    let setup = Setup::stream(&format!(
        "log_format line '$server_port $status'; access_log line.log line;
         proxy_protocol_timeout 300ms; ssl_handshake_timeout 300ms; preread_timeout 300ms; proxy_timeout 300ms;
         server {{ listen 127.0.0.1:%%PORT_HEADER%% proxy_protocol; proxy_pass 127.0.0.1:{0}; }}
         server {{ listen 127.0.0.1:%%PORT_TLS%% ssl; ssl_certificate site.crt; ssl_certificate_key site.key;
            proxy_pass 127.0.0.1:{0}; }}
         server {{ listen 127.0.0.1:%%PORT_PREREAD%%; ssl_preread on; proxy_pass 127.0.0.1:{0}; }}
         server {{ listen 127.0.0.1:%%PORT_SESSION%%; proxy_pass 127.0.0.1:{0}; }}",
        backend.port
    ));
    certificate(setup.folder(), "site", EC);
    let mut server = setup.start();
    for (port, text, status) in [
        ("PORT_TLS", &b""[..], "500"),
        ("PORT_TLS", b"\x16\x03\x01\x02\x00\x01", "500"),
        ("PORT_PREREAD", b"", "200"),
        ("PORT_PREREAD", b"\x16\x03\x01\x02\x00\x01", "200"),
        ("PORT_SESSION", b"", "200"),
        ("PORT_HEADER", b"", ""),
        ("PORT_HEADER", b"PROXY TCP4 1", ""),
    ] {
        let before = server.read("line.log").lines().count();
        let mut client = Connection::open(server.port_of(port));
        client.send(text);
        assert_eq!(client.rest(), b"", "{port}");
        server.wait(|s| s.read("line.log").lines().count() > before, "a line");
        let log = server.read("line.log");
        let last = log.lines().last().unwrap_or_default();
        assert!(last.starts_with(&server.port_of(port).to_string()) && last.contains(status), "{port}: {last}");
    }
}

#[test]
fn servers_that_vanish() {
    let resets = Backend::sockets(|mut stream, _| {
        let mut buffer = [0; 5];
        let _ = stream.read_exact(&mut buffer);
        // What it has not read resets the connection.
        thread::sleep(Duration::from_millis(50));
    });
    let mut server = Setup::stream(&format!(
        "log_format line '$status $upstream_bytes_sent'; access_log line.log line;
         server {{ listen 127.0.0.1:%%PORT_A%%; proxy_pass 127.0.0.1:{}; }}",
        resets.port
    ))
    .start();
    let mut client = Connection::open(server.port_of("PORT_A"));
    client.send("hello, and more");
    let mut rest = Vec::new();
    // The end or a reset: either is the end.
    let _ = client.stream().try_clone().expect("a socket can be copied").read_to_end(&mut rest);
    assert_eq!(rest, b"");
    assert_eq!(server.read_until("line.log", "\n"), "200 15\n");
}

/// Differs from nginx: a client of a stream that leaves before its server is reached
#[test]
fn clients_that_leave_while_a_connection_is_made() {
    // A queue that is full: who connects waits.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    rustix::net::listen(&listener, 0).expect("it listens already");
    let addr = listener.local_addr().expect("it is bound");
    let _full: Vec<_> =
        (0..4).filter_map(|_| TcpStream::connect_timeout(&addr, Duration::from_millis(100)).ok()).collect();
    let mut server = Setup::stream(&format!(
        "log_format line '$status'; access_log line.log line;
         server {{ listen 127.0.0.1:%%PORT_A%%; proxy_pass {addr}; }}"
    ))
    .start();
    drop(Connection::open(server.port_of("PORT_A")));
    assert_eq!(server.read_until("line.log", "\n"), "200\n");
    server.read_until("error.log", "client disconnected, bytes from/to client:0/0, bytes from/to upstream:0/0");
}

#[test]
fn many_short_sessions() {
    let setup = Setup::stream(
        "server { listen 127.0.0.1:%%PORT_TEXT%% backlog=1024; return $connection; }
         server { listen 127.0.0.1:%%PORT_A%% backlog=1024; proxy_pass 127.0.0.1:%%PORT_TEXT%%; }
         server { listen 127.0.0.1:%%PORT_TLS%% ssl; ssl_certificate site.crt; ssl_certificate_key site.key;
            proxy_pass 127.0.0.1:%%PORT_TEXT%%; }",
    );
    certificate(setup.folder(), "site", EC);
    let server = setup.start();
    let port = server.port_of("PORT_A");
    let clients: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..200 {
                    let answer = Connection::open(port).rest();
                    assert!(!answer.is_empty() && answer.iter().all(u8::is_ascii_digit), "{}", answer.escape_ascii());
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("each gets an answer"));
    assert!(!secure::connect(server.port_of("PORT_TLS"), &[]).rest().is_empty());
}

/// Differs from nginx: clients of streams that say nothing give up their places
#[test]
fn who_says_nothing_makes_room() {
    let setup = Setup::whole(
        "daemon off; pid nginx.pid; worker_processes 1; error_log error.log info;
         events { worker_connections 64; %%USE%% }
         stream { server { listen 127.0.0.1:%%PORT_TEXT%%; return x; }
            server { listen 127.0.0.1:%%TLS%% ssl; ssl_certificate own.crt; ssl_certificate_key own.key; return x; }
            server { listen 127.0.0.1:%%PROXY%% proxy_protocol; return x; }
            server { listen 127.0.0.1:%%PREREAD%%; ssl_preread on; return x; } }",
    );
    certificate(setup.folder(), "own", EC);
    let mut server = setup.start();
    server.quiet();
    for name in ["TLS", "PROXY", "PREREAD"] {
        let silent: Vec<Connection> = (0..100).map(|_| Connection::open(server.port_of(name))).collect();
        for n in 0..5 {
            assert_eq!(Connection::open(server.port_of("PORT_TEXT")).rest(), b"x", "{name}, new client {n}");
        }
        drop(silent);
    }
}
