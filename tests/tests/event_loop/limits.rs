//! What must not hurt others: too many connections, no descriptors, clients that leave, a disk that is full.

use std::time::Duration;

use e2e::frames::Raw;
use e2e::{Backend, Connection, EC, Server, Setup, certificate, secure};

#[test]
fn idle_connections_make_room() {
    let mut server = Setup::whole(
        "daemon off; pid nginx.pid; worker_processes 1; error_log error.log info; events { worker_connections 32; %%USE%% }
         http { access_log off; client_body_temp_path cb; proxy_temp_path pt; keepalive_timeout 60s;
            server { listen 127.0.0.1:%%PORT%%; return 200 x; } }",
    )
    .start();
    let mut idle: Vec<Connection> = Vec::new();
    for n in 0..80 {
        let mut c = server.connect();
        assert_eq!(c.get("/", "").text(), "x", "connection {n}");
        idle.push(c);
    }
    let open = idle.iter_mut().rev().take(5).filter_map(|c| c.try_send("").then_some(())).count();
    assert_eq!(open, 5);
    server.read_until("error.log", "worker_connections are not enough, reusing connections");
    server.quiet();
}

/// A server with places for 64 connections, and one port for each way to begin.
fn few_places(more: &str) -> Server {
    let setup = Setup::whole(&format!(
        "daemon off; pid nginx.pid; worker_processes 1; error_log error.log info;
         events {{ worker_connections 64; %%USE%% }}
         http {{ access_log off; client_body_temp_path cb; proxy_temp_path pt; {more}
            server {{ listen 127.0.0.1:%%PORT%%; listen 127.0.0.1:%%TLS%% ssl; listen 127.0.0.1:%%PROXY%% proxy_protocol;
               ssl_certificate own.crt; ssl_certificate_key own.key; http2 on;
               location / {{ return 200 x; }} location /p {{ proxy_pass http://kept; }} }} }}"
    ));
    certificate(setup.folder(), "own", EC);
    let mut server = setup.start();
    server.quiet();
    server
}

/// Waits until hardly any of a hundred connections is still to be accepted: who comes by another port may be accepted before
/// them, and would be the one that has been silent for longest.
fn wait_for_room(server: &mut Server, silent: &[Connection]) {
    let is_gone = |connection: &Connection| {
        let stream = connection.stream();
        stream.set_nonblocking(true).expect("a socket");
        let found = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("a socket");
        found.is_ok_and(|bytes| bytes == 0)
    };
    server.wait(|_| silent.iter().filter(|connection| is_gone(connection)).count() >= 36, "room is made");
}

/// Whether five new clients are served while others hold their connections.
fn serves(server: &Server, what: &str) {
    for n in 0..5 {
        assert_eq!(server.get("/").text(), "x", "{what}, new client {n}");
    }
}

#[test]
fn who_says_nothing_makes_room() {
    let mut server = few_places("upstream kept { server 127.0.0.1:1; }");
    for name in ["PORT", "TLS", "PROXY"] {
        let silent: Vec<Connection> = (0..100).map(|_| Connection::open(server.port_of(name))).collect();
        wait_for_room(&mut server, &silent);
        serves(&server, name);
        drop(silent);
    }
    let port = server.port_of("PROXY");
    let after_header: Vec<Connection> = (0..100)
        .map(|_| {
            let mut connection = Connection::open(port);
            connection.try_send("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
            connection
        })
        .collect();
    wait_for_room(&mut server, &after_header);
    serves(&server, "after the PROXY protocol's header");
    drop(after_header);
    let log = server.read_until("error.log", "[warn]");
    assert!(log.contains("64 worker_connections are not enough, reusing connections"), "{log}");
    assert!(!log.contains("[alert]"), "{log}");
}

/// Where workers take turns, who could make room doesn't leave its turn to others: they may all be full of the silent.
#[test]
fn who_says_nothing_makes_room_at_all_workers() {
    let server = Setup::whole(
        "daemon off; pid nginx.pid; worker_processes 3; error_log error.log info;
         events { worker_connections 64; accept_mutex on; %%USE%% }
         http { access_log off; client_body_temp_path cb; proxy_temp_path pt;
            server { listen 127.0.0.1:%%PORT%%; location / { return 200 x; } } }",
    )
    .start();
    let silent: Vec<Connection> = (0..300).map(|_| server.connect()).collect();
    let start = std::time::Instant::now();
    serves(&server, "beside the silent of three workers");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    drop(silent);
}

#[test]
fn idle_http2_connections_make_room() {
    let server = few_places("upstream kept { server 127.0.0.1:1; }");
    let port = server.port();
    let idle: Vec<Raw> = (0..100).map(|_| Raw::on(port)).collect();
    serves(&server, "HTTP/2");
    drop(idle);
    let handshaken: Vec<Connection> =
        (0..80).map(|_| secure::connect(server.port_of("TLS"), &["-alpn", "h2"])).collect();
    serves(&server, "HTTP/2 without a preface");
    drop(handshaken);
}

/// Half a head is something, and isn't cut off for others.
#[test]
fn who_has_begun_keeps_the_place() {
    let server = few_places("upstream kept { server 127.0.0.1:1; }");
    let mut begun = server.connect();
    begun.send("GET / HTTP/1.1\r\n");
    let silent: Vec<Connection> = (0..150).map(|_| server.connect()).collect();
    serves(&server, "beside one that has begun");
    assert_eq!(begun.send("Host: a\r\n\r\n").response().text(), "x");
    drop(silent);
}

#[test]
fn connections_to_backends_find_places_and_make_room() {
    let backend = Backend::start(|_| Backend::ok("y"));
    let server = few_places(&format!("upstream kept {{ server 127.0.0.1:{}; keepalive 60; }}", backend.port));
    let clients: Vec<std::thread::JoinHandle<u16>> = (0..20)
        .map(|_| {
            let port = server.port();
            std::thread::spawn(move || Connection::open(port).get("/p", "Connection: close\r\n").status)
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().ok(), Some(200));
    }
    let silent: Vec<Connection> = (0..150).map(|_| server.connect()).collect();
    for n in 0..5 {
        assert_eq!(server.get("/p").text(), "y", "proxied request {n}");
    }
    serves(&server, "beside kept connections");
    drop(silent);
}

#[test]
fn out_of_descriptors() {
    let mut server = Setup::whole(
        "daemon off; pid nginx.pid; worker_processes 1; worker_rlimit_nofile 40; events { worker_connections 100; %%USE%% }
         http { access_log off; client_body_temp_path cb; proxy_temp_path pt; client_header_timeout 2s;
            server { listen 127.0.0.1:%%PORT%%; return 200 x; } }",
    )
    .start();
    let silent: Vec<Connection> = (0..60).map(|_| server.connect()).collect();
    std::thread::sleep(Duration::from_millis(500));
    drop(silent);
    server.wait(|s| s.connect().get("/", "").text() == "x", "an answer afterwards");
    server.read_until("error.log", "(24: Too many open files)");
    server.quiet();
}

#[test]
fn clients_that_leave() {
    let server =
        Setup::http("server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; }").file("big", vec![b'b'; 5_000_000]).start();
    for _ in 0..50 {
        let mut c = server.connect();
        c.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
        c.take(1000);
    }
    assert_eq!(server.get("/big").body.len(), 5_000_000);
}

#[test]
fn a_full_disk_for_logs() {
    let mut server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; access_log /dev/full; location / { return 200 x; }
            location /b { access_log /dev/full combined buffer=4k flush=1s; return 200 x; } }",
    )
    .start();
    for _ in 0..20 {
        assert_eq!(server.get("/").text(), "x");
        assert_eq!(server.get("/b").text(), "x");
    }
    server.read_until("error.log", "No space left on device");
    server.quiet();
}

#[test]
fn a_full_disk_for_temporary_files() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: only root can mount a small file system");
        return;
    }
    let backend =
        Backend::start(|r| Backend::ok(&"z".repeat(if r.line().contains("large") { 30_000_000 } else { 10 })));
    let mut server = Setup::http(&format!(
        "client_max_body_size 10m; client_body_buffer_size 16k; client_body_temp_path %%DIR%%/disk/body;
         proxy_temp_path %%DIR%%/disk/proxy;
         server {{ listen 127.0.0.1:%%PORT%%; location / {{ proxy_pass http://127.0.0.1:{}; }} }}",
        backend.port
    ))
    .tiny_disk("disk")
    .start();
    let body = vec![b'b'; 2_000_000];
    let mut up = server.connect();
    up.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
    up.try_send(&body);
    assert_eq!(up.try_response(false).map_or(500, |r| r.status), 500, "a body that can't be stored");
    let mut down = server.connect();
    down.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(server.get("/small").text(), "z".repeat(10), "others are served");
    assert!(down.rest().len() < 30_000_000, "a response that can't be stored is cut off");
    server.read_until("error.log", "No space left on device");
    assert_eq!(server.get("/small").text(), "z".repeat(10));
    server.quiet();
}
