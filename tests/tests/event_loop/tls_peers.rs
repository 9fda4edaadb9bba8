//! TLS peers that send what no library sends, or what few do: each is told what was wrong, and costs nobody else anything.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use e2e::sealed::{self, Sealer, client, client_config, client_hello, connect, flush, record, talk};
use e2e::{Backend, EC, Server, Setup, binary, certificate};
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

const VERSIONS: [&[&SupportedProtocolVersion]; 2] = [&[&TLS13], &[&TLS12]];
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

fn start(more: &str) -> Server {
    start_with("", more)
}

fn start_with(http: &str, more: &str) -> Server {
    let setup = Setup::http(&format!(
        "{http} error_log %%DIR%%/tls.log info;
        server {{ listen 127.0.0.1:%%PORT%% ssl; ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.key;
            location / {{ return 200 ok; }} {more} }}"
    ));
    certificate(setup.folder(), "one", EC);
    setup.start()
}

/// What is sent until the connection ends.
fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = socket.read_to_end(&mut all);
    all
}

/// Nobody has noticed anything: the worker is the same, and serves.
fn check(server: &Server, workers: &[u32]) {
    let (_, _, answer) = talk(server.port(), REQUEST);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(server.children(), workers);
    let log = server.read("tls.log") + &server.read("error.log");
    assert!(!log.contains("panic") && !log.contains("[alert]"), "{log}");
}

/// Milliseconds of processor time that a process has had.
fn cpu_ms(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("its name stands in brackets").split_whitespace().collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}

#[test]
fn a_hello_with_something_surplus() {
    let mut server = start("");
    let workers = server.children();
    let hello = client_hello(client(client_config(VERSIONS[0]), "localhost"));
    let surplus: [&[u8]; 3] = [b"\x01", b"\x00\x10\x00aa", b"\x0b\x00\x00"];
    for (n, surplus) in surplus.iter().enumerate() {
        let mut socket = connect(server.port());
        socket.write_all(&record(HANDSHAKE, &[&hello[5..], surplus].concat())).unwrap();
        let answer = rest(&mut socket);
        assert_eq!(answer.first(), Some(&ALERT), "{surplus:?}: {answer:?}");
        server.wait(|s| s.read("tls.log").matches("SSL_do_handshake() failed").count() == n + 1, "its line");
    }
    let log = server.read("tls.log");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("SSL_do_handshake() failed")).collect();
    for line in lines {
        // What OpenSSL doesn't count among a client's faults is `crit` in nginx.
        assert!(line.contains("[info]") || binary().ends_with("nginx"), "{line}");
        assert!(line.contains("client: 127.0.0.1, server: 127.0.0.1:"), "{line}");
    }
    check(&server, &workers);
}

/// Who begins with something else than a hello is told what was wrong with it, whole or in pieces, and stands in the log.
#[test]
fn what_is_no_hello() {
    let mut server = start("");
    let workers = server.children();
    let old = [b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", &[7; 37][..]].concat();
    let others: [(&[u8], u8); 5] = [
        (&record(HANDSHAKE, b"\x02\x00\x00\x04abcd"), 10),
        (&[b"\x16\x03\x01\x48\x01\x01\x00\x48\x00", &[0; 20_000][..]].concat(), 22),
        (&record(HANDSHAKE, &[b"\x01\xff\xff\xff", &[0; 100][..]].concat()), 47),
        (&record(HANDSHAKE, b"\x01\x00\x00\x00"), 50),
        (&old, 70),
    ];
    for (n, (bytes, alert)) in others.into_iter().enumerate() {
        let mut socket = connect(server.port());
        socket.write_all(&bytes[..bytes.len().min(16)]).unwrap();
        let _ = socket.write_all(&bytes[bytes.len().min(16)..]);
        // What was refused before all of it came may be followed by a reset.
        let mut answer = [0; 7];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!((answer[0], answer[6]), (ALERT, alert), "{:?}", &bytes[..9]);
        server.wait(|s| s.read("tls.log").matches("SSL_do_handshake() failed").count() == n + 1, "its line");
    }
    // Half a hello, and the end.
    let hello = client_hello(client(client_config(VERSIONS[0]), "localhost"));
    for length in [1, 5, 100] {
        let mut socket = connect(server.port());
        socket.write_all(&hello[..length]).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(rest(&mut socket).is_empty());
    }
    let closed = "peer closed connection in SSL handshake while SSL handshaking, client: 127.0.0.1, server: 127.0.0.1:";
    server.wait(|s| s.read("tls.log").matches(closed).count() == 3, "their lines");
    check(&server, &workers);
}

#[test]
fn half_a_message_before_the_end() {
    let server = start("");
    let workers = server.children();
    let halves: [(u8, &[u8]); 4] =
        [(HANDSHAKE, b"\x18\0"), (HANDSHAKE, b"\x18"), (HANDSHAKE, b"\x04\0\x10\0abc"), (HANDSHAKE, b"\x01\0\0")];
    for (kind, content) in halves {
        for request in ["", REQUEST] {
            // The connection ends, with the message in one record or in two, or with a farewell after it.
            let (mut socket, mut sealer, _) = talk(server.port(), request);
            let _ = socket.write_all(&sealer.seal(kind, content));
            drop(socket);
            let (mut socket, mut sealer, _) = talk(server.port(), request);
            let _ = socket.write_all(&sealer.seal(kind, &content[..1]));
            let _ = socket.write_all(&sealer.seal(kind, &content[1..]));
            let _ = socket.write_all(&sealer.seal(ALERT, &[1, 0]));
            drop(rest(&mut socket));
        }
    }
    check(&server, &workers);
}

/// What breaks the protocol after the handshake is told, and ends the connection.
#[test]
fn who_breaks_the_protocol_is_told() {
    let server = start("");
    let workers = server.children();
    let sent: [&[(u8, &[u8])]; 4] = [
        &[(HANDSHAKE, b"\x18\0"), (DATA, b"GET / ")],
        &[(HANDSHAKE, b"\x01\0\0\0")],
        &[(HANDSHAKE, b"\x18\0\0\x01\x07")],
        &[(24, b"x")],
    ];
    for records in sent {
        let (mut socket, mut sealer, _) = talk(server.port(), REQUEST);
        let bytes: Vec<u8> = records.iter().flat_map(|(kind, content)| sealer.seal(*kind, content)).collect();
        socket.write_all(&bytes).unwrap();
        // An alert of two bytes, its kind, and a tag.
        let answer = rest(&mut socket);
        assert_eq!((answer.first(), answer.len()), (Some(&DATA), 24), "{records:?}: {answer:?}");
    }
    check(&server, &workers);
}

/// While such a connection is idle, its worker is replaced.
#[test]
fn half_a_message_over_a_reload() {
    let mut server = start_with("client_header_timeout 2s;", "");
    let mut open = Vec::new();
    for content in [&b"\x18\0"[..], b"\x04\0\x10\0abc"] {
        for request in ["", REQUEST] {
            let (mut socket, mut sealer, _) = talk(server.port(), request);
            socket.write_all(&sealer.seal(HANDSHAKE, content)).unwrap();
            open.push((socket, sealer));
        }
    }
    // The worker has read them when it has answered who came later.
    check(&server, &server.children());
    server.reload();
    let workers = server.children();
    for (mut socket, mut sealer) in open {
        let _ = socket.write_all(&sealer.seal(DATA, REQUEST.as_bytes()));
        drop(rest(&mut socket));
    }
    check(&server, &workers);
}

/// A backend whose first flight makes no sense.
#[test]
fn a_backend_with_half_a_message() {
    const FLIGHT: &[u8] = b"\x16\x03\x03\x00\x0b\x02\x00\x00\x01\xff\x0b\x00\x10\x00aa";
    let flights: [&'static [u8]; 4] =
        [FLIGHT, &FLIGHT[..7], b"\x15\x03\x03\x00\x01\x02", b"\x16\x03\x03\x00\x02\x02\x00"];
    for flight in flights {
        let bad = Backend::sockets(move |mut socket, _| {
            let _ = socket.read(&mut [0; 4096]);
            let _ = socket.write_all(flight);
        });
        let setup = Setup::http(&format!(
            "upstream two {{ server 127.0.0.1:{0}; server 127.0.0.1:%%PORT_b%%; }}
            server {{ listen 127.0.0.1:%%PORT%%;
                location / {{ proxy_pass https://127.0.0.1:{0}; }} location /two {{ proxy_pass https://two; }} }}
            server {{ listen 127.0.0.1:%%PORT_b%% ssl; return 200 good;
                ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.key; }}",
            bad.port
        ));
        certificate(setup.folder(), "one", EC);
        let server = setup.start();
        assert_eq!(server.get("/").status, 502, "{flight:?}");
        for _ in 0..2 {
            assert_eq!(server.get("/two").text(), "good", "{flight:?}");
        }
        let log = server.read("error.log");
        assert!(log.contains("while SSL handshaking to upstream") && !log.contains("panic"), "{log}");
    }
}

/// Bodies of some length in pieces, between which something else comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    Nothing,
    NewKeys,
    EmptyRecords,
}

const PIECES: usize = 300;

fn piece(n: usize) -> Vec<u8> {
    (0..1 + n % 7).map(|at| b'a' + ((n + at) % 26) as u8).collect()
}

/// Writes a message in tiny records.
fn pour(
    mut stream: rustls::Connection,
    socket: &mut TcpStream,
    head: &str,
    between: Between,
) -> Option<rustls::Connection> {
    stream.writer().write_all(head.as_bytes()).ok()?;
    if between == Between::EmptyRecords {
        flush(&mut stream, socket).ok()?;
        let mut sealer = Sealer::of(stream);
        for n in 0..PIECES {
            socket.write_all(&[sealer.seal(DATA, b""), sealer.seal(DATA, &piece(n))].concat()).ok()?;
        }
        return None;
    }
    for n in 0..PIECES {
        stream.writer().write_all(&piece(n)).ok()?;
        if between == Between::NewKeys && n.is_multiple_of(20) {
            stream.refresh_traffic_keys().ok()?;
        }
        flush(&mut stream, socket).ok()?;
    }
    Some(stream)
}

fn body() -> Vec<u8> {
    (0..PIECES).flat_map(piece).collect()
}

#[test]
fn bodies_of_requests_in_all_shapes() {
    let backend = Backend::start(|request| {
        let whole = request.body == body();
        Backend::ok(if whole { "whole" } else { "broken" })
    });
    let server = start(&format!(
        "location /up {{ proxy_pass http://127.0.0.1:{0}; }}
        location /through {{ proxy_pass http://127.0.0.1:{0}; proxy_request_buffering off; proxy_http_version 1.1; }}",
        backend.port
    ));
    let workers = server.children();
    for versions in VERSIONS {
        for between in [Between::Nothing, Between::NewKeys, Between::EmptyRecords] {
            if between != Between::Nothing && versions == VERSIONS[1] {
                continue;
            }
            for path in ["/up", "/through"] {
                let mut socket = connect(server.port());
                let mut connection = client(client_config(versions), "localhost");
                connection.complete_io(&mut socket).expect("the handshake succeeds");
                let length = body().len();
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                match pour(connection.into(), &mut socket, &head, between) {
                    Some(mut connection) => {
                        let mut answer = Vec::new();
                        while !answer.ends_with(b"whole") {
                            let read = connection.read_tls(&mut socket).expect("an answer");
                            connection.process_new_packets().expect("it is well-formed");
                            let _ = connection.reader().read_to_end(&mut answer);
                            let shown = String::from_utf8_lossy(&answer);
                            assert!(read > 0 || answer.ends_with(b"whole"), "{path} {between:?}: {shown}");
                        }
                    }
                    // Its keys are with the sealer: what is answered can't be read, but the backend knows.
                    None => assert!(rest(&mut socket).len() > 100, "{path} {between:?}"),
                }
            }
        }
    }
    let bodies: Vec<_> = backend.requests().iter().map(|request| request.body == body()).collect();
    assert_eq!(bodies, [true; 8]);
    check(&server, &workers);
}

#[test]
fn bodies_of_responses_in_all_shapes() {
    for versions in VERSIONS {
        for between in [Between::Nothing, Between::NewKeys, Between::EmptyRecords] {
            if between != Between::Nothing && versions == VERSIONS[1] {
                continue;
            }
            let folder = e2e::Folder::new();
            certificate(&folder, "back", EC);
            let path = folder.path().to_path_buf();
            let backend = Backend::sockets(move |mut socket, _| {
                let mut connection = sealed::server(&path, "back", versions);
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    if connection.complete_io(&mut socket).is_err() {
                        return;
                    }
                    let _ = connection.reader().read_to_end(&mut asked);
                }
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body().len());
                let left = pour(connection.into(), &mut socket, &head, between);
                // It stays until the other side goes.
                drop((rest(&mut socket), left));
            });
            let setup = Setup::http(&format!(
                "server {{ listen 127.0.0.1:%%PORT%%; location / {{ proxy_pass https://127.0.0.1:{0}; }}
                    location /slow {{ proxy_pass https://127.0.0.1:{0}; proxy_buffering off; }} }}",
                backend.port
            ));
            let server = setup.start();
            for path in ["/", "/slow"] {
                let response = server.get(path);
                assert!(response.status == 200 && response.body == body(), "{versions:?} {between:?} {path}");
            }
        }
    }
}

/// Peers that go in the middle of a body, without a farewell, cost no time.
#[test]
fn early_ends_do_not_spin() {
    let silent = Backend::sockets(|mut socket, _| drop(rest(&mut socket)));
    let folder = e2e::Folder::new();
    certificate(&folder, "back", EC);
    let path = folder.path().to_path_buf();
    let short = Backend::sockets(move |mut socket, _| {
        let mut connection = sealed::server(&path, "back", VERSIONS[0]);
        while connection.reader().read(&mut [0; 4096]).is_err() {
            if connection.complete_io(&mut socket).is_err() {
                return;
            }
        }
        let _ = connection.writer().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.");
        let mut connection = connection.into();
        let _ = flush(&mut connection, &mut socket);
        // Half a message, and no farewell.
        let _ = socket.write_all(&Sealer::of(connection).seal(HANDSHAKE, b"\x18\0"));
    });
    let server = start(&format!(
        "location /up {{ proxy_pass http://127.0.0.1:{}; proxy_request_buffering off; proxy_http_version 1.1; }}
        location /down {{ proxy_pass https://127.0.0.1:{}; }}",
        silent.port, short.port
    ));
    let workers = server.children();
    let post = "POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nbegin";
    let mut open = Vec::new();
    for versions in VERSIONS {
        for end in 0..4 {
            let mut socket = connect(server.port());
            let mut connection = client(client_config(versions), "localhost");
            connection.complete_io(&mut socket).expect("the handshake succeeds");
            connection.writer().write_all(post.as_bytes()).unwrap();
            let mut connection = connection.into();
            flush(&mut connection, &mut socket).unwrap();
            match end {
                0 => drop(socket),
                1 => {
                    socket.shutdown(std::net::Shutdown::Write).unwrap();
                    open.push(socket);
                }
                2 => {
                    connection.send_close_notify();
                    flush(&mut connection, &mut socket).unwrap();
                    open.push(socket);
                }
                _ if versions == VERSIONS[1] => {}
                _ => {
                    let mut sealer = Sealer::of(connection);
                    socket.write_all(&sealer.seal(HANDSHAKE, b"\x18\0")[..]).unwrap();
                    socket.shutdown(std::net::Shutdown::Write).unwrap();
                    open.push(socket);
                }
            }
        }
    }
    for _ in 0..3 {
        let mut socket = connect(server.port());
        let mut connection = client(client_config(VERSIONS[0]), "localhost");
        let request = "GET /down HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let mut stream = rustls::Stream::new(&mut connection, &mut socket);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
    }
    let before = cpu_ms(workers[0]);
    // What spins is seen in a second.
    thread::sleep(Duration::from_secs(1));
    let spent = cpu_ms(workers[0]) - before;
    assert!(spent < 300, "{spent} ms of processor time in a second");
    drop(open);
    check(&server, &workers);
}
