//! What an accident costs: a panic its connection, a crash those of its worker. The program under test is one with the
//! feature `test-hooks`; if `TIDEGATE_BINARY` is a Tidegate without it, one is built.

use std::io::{Read, Write};

use e2e::frames::{PING, Raw, frame};
use e2e::hooks::program;
use e2e::sealed::{client, client_config, client_hello, connect, talk};
use e2e::{EC, Server, Setup, certificate};

fn start(more: &str) -> Server {
    let http = "server { listen 127.0.0.1:%%PORT%%; server_name site;
         location / { return 200 one; }
         location /panic { test_hook panic; }
         location /later { test_hook panic_later; }
         location /abort { test_hook abort; } }";
    let main = format!("worker_rlimit_core 0; {more}");
    let mut server = Setup::http(http).main(&main).program(program()).start();
    server.quiet();
    server
}

/// Not in nginx: a panic costs the connection
#[test]
fn a_panic_costs_its_connection() {
    for more in ["", "sandbox on;"] {
        let mut server = start(more);
        let mut other = server.connect();
        assert_eq!(other.get("/", "").text(), "one");
        let workers = server.children();
        for (path, count) in [("/panic", 1), ("/later", 2), ("/panic?again", 3)] {
            let mut unlucky = server.connect();
            assert_eq!(unlucky.get("/", "").text(), "one");
            unlucky.send(format!("GET {path} HTTP/1.1\r\nHost: example.com\r\n\r\n"));
            assert!(unlucky.closed(), "{path}");
            server.wait(|s| s.read("error.log").matches("closed after a panic").count() == count, "its line");
            let log = server.read("error.log");
            let line = log.lines().rfind(|line| line.contains("closed after a panic")).expect("a line");
            let details =
                format!("client: 127.0.0.1, server: site, request: \"GET {path} HTTP/1.1\", host: \"example.com\"");
            assert!(line.contains("[alert]") && line.ends_with(&details), "{line}");
            assert!(log.contains("[alert]") && log.contains("panic: test hook in "), "{log}");
        }
        assert_eq!((other.get("/", "").text().as_str(), server.children()), ("one", workers));
    }
}

/// Not in nginx: a panic costs the connection
#[test]
fn a_crash_costs_the_connections_of_its_worker() {
    let mut server = start("");
    let text = server.read("nginx.conf").replace("worker_processes 1;", "worker_processes 2;");
    server.configure(&text);
    server.reload();
    server.wait(|s| s.children().len() == 2, "two workers");
    // Connections of both workers: who answers is seen by who is left.
    let mut all: Vec<_> = (0..20).map(|_| server.connect()).collect();
    assert!(all.iter_mut().all(|connection| connection.get("/", "").text() == "one"));
    let before = server.children();
    let mut unlucky = server.connect();
    unlucky.send("GET /abort HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(unlucky.closed());
    server.read_until("error.log", "exited on signal 6");
    server.wait(|s| s.children().len() == 2, "another worker");
    let kept = before.iter().filter(|pid| server.children().contains(pid)).count();
    assert_eq!(kept, 1, "the other worker is still there");
    assert!((0..20).all(|_| server.get("/").text() == "one"));
}

/// Where there is no request to tell of, client and server are told all the same.
/// Not in nginx: a panic costs the connection
#[test]
fn a_panic_without_a_request() {
    let http =
        "server { listen 127.0.0.1:%%PORT%% ssl; ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.key;
            location / { return 200 one; } }
        server { listen 127.0.0.1:%%PORT_b%%; http2 on; location / { return 200 two; } }";
    let setup = Setup::http(http).program(program());
    certificate(setup.folder(), "one", EC);
    let mut server = setup.start();
    server.quiet();
    let (port, plain, workers) = (server.port(), server.port_of("PORT_b"), server.children());
    // In the handshake, by the server's name.
    let mut socket = connect(port);
    socket.write_all(&client_hello(client(client_config(rustls::ALL_VERSIONS), "panic.test"))).expect("it listens");
    let _ = socket.read_to_end(&mut Vec::new());
    // Between two requests.
    let (mut socket, mut sealer, _) = talk(port, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    socket.write_all(&sealer.seal(23, b"panic.test")).expect("it is open");
    let _ = socket.read_to_end(&mut Vec::new());
    // On a connection of HTTP/2.
    let mut raw = Raw::on(plain);
    raw.until(PING - 2);
    raw.send(&frame(PING, 0, 0, b"12345678"));
    raw.until(PING);
    raw.send(&frame(0xfa, 0, 0, b"panic.test"));
    while raw.receive().is_some() {}
    server.wait(|s| s.read("error.log").matches("closed after a panic").count() == 3, "three lines");
    let log = server.read("error.log");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("closed after a panic")).collect();
    for (line, port) in lines.iter().zip([port, port, plain]) {
        let details = format!(", client: 127.0.0.1, server: 127.0.0.1:{port}");
        assert!(line.contains("[alert]") && line.contains('*') && line.ends_with(&details), "{line}");
    }
    assert_eq!(server.children(), workers);
    assert_eq!(talk(port, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").2.lines().last(), Some("one"));
}

/// Of many panics the log tells ten in a second, and how many there were beside.
/// Not in nginx: a panic costs the connection
#[test]
fn many_panics_do_not_fill_the_log() {
    let mut server = start("");
    let workers = server.children();
    let start = std::time::Instant::now();
    let mut count = 0;
    while start.elapsed() < std::time::Duration::from_millis(1500) {
        let mut unlucky = server.connect();
        unlucky.send("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(unlucky.closed());
        count += 1;
    }
    let left_out = |log: &str| {
        let lines = log.lines().filter_map(|line| line.split_once(" panics more in a second"));
        lines
            .map(|(line, _)| line.rsplit(' ').next().and_then(|n| n.parse::<usize>().ok()).expect("a number"))
            .sum::<usize>()
    };
    let told = |log: &str| log.matches("panic: test hook in ").count();
    server.wait(
        |s| {
            let log = s.read("error.log");
            told(&log) + left_out(&log) == count
        },
        "all of them",
    );
    let log = server.read("error.log");
    assert!(told(&log) <= 10 * (start.elapsed().as_secs() as usize + 2) && told(&log) < count, "{log}");
    assert_eq!(log.matches("closed after a panic").count(), told(&log));
    assert_eq!((server.get("/").text().as_str(), server.children()), ("one", workers));
}
