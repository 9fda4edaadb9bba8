//! Attacks over HTTP/2 and TLS, each bounded in time: what they cost the worker, that its memory stays within bounds, that
//! the attacker is told to stop, and that others are served meanwhile.
//!
//! `cargo test -p e2e --test system attacks:: -- --nocapture --test-threads 1` shows the figures, with
//! `TIDEGATE_BINARY=/usr/sbin/nginx` those of nginx, for which nothing but the service of others is asserted.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use e2e::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PING, POST, RST_STREAM, Raw, SETTINGS, field,
    frame, request,
};
use e2e::load::{children, cpu_ms, forget_peak, peak, resident};
use e2e::{Connection, EC, Server, Setup, binary, certificate, curl};

/// How long an attack lasts.
const TIME: Duration = Duration::from_secs(2);
/// ENHANCE_YOUR_CALM.
const CALM: u8 = 11;

/// What an attacker has done.
#[derive(Default)]
struct Done {
    /// Frames, requests or handshakes.
    count: usize,
    /// How many connections it took.
    connections: usize,
    /// The codes of the GOAWAYs that came.
    codes: Vec<u8>,
}

fn is_ours() -> bool {
    binary().file_name().is_some_and(|name| name == "tidegate")
}

/// HTTP/2 in the words of the program, which may be an older nginx.
fn http2(conf: &str) -> Setup {
    let (listen, on) = if is_ours() { ("", "http2 on;") } else { (" http2", "") };
    Setup::http(&conf.replace("HTTP2", listen).replace("ON;", on))
}

/// A server with one worker: HTTP/2 on `PORT`, for others HTTP/1 on `PORT_other`.
fn server() -> Server {
    http2(
        "limit_req_zone $binary_remote_addr zone=slow:1m rate=1r/m; keepalive_requests 1000000;
         server { listen 127.0.0.1:%%PORT%%HTTP2; ON; root %%DIR%%/www; client_max_body_size 100m;
            location /slow { limit_req zone=slow burst=1000; }
            location /stalled/ { alias %%DIR%%/www/; send_timeout 1s; } }
         server { listen 127.0.0.1:%%PORT_other%%; root %%DIR%%/www; }",
    )
    .file("www/small", "ok")
    .file("www/big", "0123456789".repeat(100_000))
    .start()
}

/// Runs an attack, prints what it cost, and holds the worker to `most_kib` more memory.
fn attack(name: &str, server: &Server, most_kib: u64, run: impl FnOnce() -> Done) -> Done {
    let worker = *children(server.pid()).first().expect("there is a worker");
    let (over, port) = (Arc::new(AtomicBool::new(false)), server.port_of("PORT_other"));
    let other = thread::spawn({
        let over = over.clone();
        move || serve_another(port, &over)
    });
    // What is made once isn't the attack's.
    (0..5).for_each(|_| drop(Connection::open(port).get("/small", "Connection: close\r\n")));
    forget_peak(worker);
    let (before, cpu, begun) = (resident(worker), cpu_ms(worker), Instant::now());
    let done = run();
    let (elapsed, spent) = (begun.elapsed(), cpu_ms(worker) - cpu);
    let grown = peak(worker).saturating_sub(before);
    over.store(true, Ordering::SeqCst);
    let (served, slowest) = other.join().expect("another client is served");
    println!(
        "{name}: {} in {:.1} s, {} connections, {spent} ms CPU, {grown} KiB more; another client: {served} answers, \
         the slowest after {} ms",
        done.count,
        elapsed.as_secs_f64(),
        done.connections,
        slowest.as_millis(),
    );
    assert!(served > 0);
    if is_ours() {
        assert!(grown <= most_kib, "{name}: {grown} KiB");
    }
    done
}

/// How many answers another client gets, and the longest wait for one.
fn serve_another(port: u16, over: &AtomicBool) -> (usize, Duration) {
    let (mut served, mut slowest) = (0, Duration::ZERO);
    while !over.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let answer = Connection::open(port).get("/small", "Connection: close\r\n");
        assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
        slowest = slowest.max(begun.elapsed());
        served += 1;
        thread::sleep(Duration::from_millis(5));
    }
    (served, slowest)
}

/// Sends what `next` makes until the time is up, on a new connection where the server says that it ends one. `next` gets
/// the number of the part on its connection; each counts as `worth`.
fn flood(port: u16, worth: usize, mut next: impl FnMut(u32) -> Vec<u8>) -> Done {
    let (mut done, begun) = (Done::default(), Instant::now());
    while begun.elapsed() < TIME {
        let raw = Raw::on(port);
        done.connections += 1;
        let socket = raw.socket().try_clone().expect("a socket");
        let reader = thread::spawn(move || last_code(raw));
        let mut part = 0;
        while begun.elapsed() < TIME && (&socket).write_all(&next(part)).is_ok() {
            part += 1;
            done.count += worth;
        }
        let _ = socket.shutdown(Shutdown::Both);
        done.codes.extend(reader.join().expect("it only reads"));
    }
    done
}

/// Reads to the GOAWAY, and lets nothing more be sent then; its code, unless a reset has thrown it away.
fn last_code(mut raw: Raw) -> Option<u8> {
    while let Some((kind, _, _, payload)) = raw.receive() {
        if kind == GOAWAY {
            let _ = raw.socket().shutdown(Shutdown::Both);
            return payload.get(7).copied();
        }
    }
    None
}

/// The attacker was told to stop, with this code and no other.
fn assert_stopped(done: &Done) {
    if is_ours() {
        assert!(!done.codes.is_empty() && done.connections > 1, "one connection bore {}", done.count);
        assert!(done.codes.iter().all(|code| *code == CALM), "{:?}", done.codes);
    }
}

const MIB: u64 = 1024;

#[test]
fn rapid_reset() {
    let server = server();
    let done = attack("rapid reset", &server, 16 * MIB, || {
        flood(server.port(), 50, |part| {
            let pair = |n: u32| {
                let id = 100 * part + 2 * n + 1;
                [frame(HEADERS, 5, id, &request(GET, "/big")), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
            };
            (0..50).flat_map(pair).collect()
        })
    });
    assert_stopped(&done);
}

#[test]
fn continuation_flood() {
    let server = server();
    let more: Vec<u8> = (0..20).flat_map(|_| frame(CONTINUATION, 0, 1, &field("x", "y"))).collect();
    let done = attack("CONTINUATION flood", &server, 8 * MIB, || {
        flood(server.port(), 20, |part| match part {
            0 => frame(HEADERS, END_STREAM, 1, &request(GET, "/small")),
            _ => more.clone(),
        })
    });
    assert_stopped(&done);
}

#[test]
fn hpack_bomb() {
    let server = server();
    // An entry of nearly 4 KiB, and then one byte for each time it is meant.
    let value = [b'v'; 4000];
    let entry = [&[0x40, 1, b'b', 0x7f, 0xa1, 0x1e][..], &value].concat();
    let block = [request(GET, "/small"), entry, vec![0xbe; 12_000]].concat();
    let done = attack("HPACK bomb, 48 MB from 16 KB", &server, 8 * MIB, || {
        flood(server.port(), 1, |part| frame(HEADERS, 5, 2 * part + 1, &block))
    });
    assert_stopped(&done);
}

#[test]
fn settings_and_ping_flood() {
    let server = server();
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]).repeat(100);
    let done = attack("SETTINGS flood", &server, 8 * MIB, || flood(server.port(), 100, |_| settings.clone()));
    assert_stopped(&done);
    let pings = frame(PING, 0, 0, b"whatever").repeat(100);
    let done = attack("PING flood", &server, 8 * MIB, || flood(server.port(), 100, |_| pings.clone()));
    assert_stopped(&done);
}

#[test]
fn empty_frames() {
    let server = server();
    let empty = frame(DATA, 0, 3, b"").repeat(100);
    let done = attack("empty DATA", &server, 8 * MIB, || {
        flood(server.port(), 100, |part| match part {
            // The first one of all is served at once, the others wait.
            0 => (0..2).flat_map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, &request(POST, "/slow"))).collect(),
            _ => empty.clone(),
        })
    });
    assert_stopped(&done);
}

/// A body that comes byte by byte while nobody reads it: each byte may hold the buffer that it came in.
#[test]
fn tiny_parts() {
    let server = server();
    // The first one is served at once.
    let warm = frame(HEADERS, 5, 1, &request(GET, "/slow"));
    attack("bodies byte by byte", &server, 16 * MIB, || {
        let mut raw = Raw::on(server.port());
        raw.send(&warm);
        for stream in 1..=20 {
            raw.send(&frame(HEADERS, END_HEADERS, 2 * stream + 1, &request(POST, "/slow")));
        }
        thread::sleep(Duration::from_millis(100));
        let mut done = Done { connections: 1, ..Done::default() };
        let begun = Instant::now();
        while begun.elapsed() < TIME {
            let stream = (done.count % 20 + 1) as u32;
            assert!(raw.send(&frame(DATA, 0, 2 * stream + 1, b"x")), "it is within all windows");
            done.count += 1;
            // Each is to be read alone.
            let sent = Instant::now();
            while sent.elapsed() < Duration::from_micros(50) {}
        }
        done
    });
}

/// Heads of very many fields that are nearly nothing: one byte each, after the first.
#[test]
fn tiny_fields() {
    let server = server();
    let block = [request(GET, "/small"), vec![0x40, 1, b'x', 0], vec![0xbe; 65_000]].concat();
    let done = attack("heads of 65,000 fields", &server, 8 * MIB, || {
        flood(server.port(), 1, |part| frame(HEADERS, 5, 2 * part + 1, &block))
    });
    assert_stopped(&done);
}

/// As many of them as a head may have, on all streams that there may be, and windows that stay closed: what waits is bounded,
/// and given up when nothing moves.
#[test]
fn tiny_fields_and_closed_windows() {
    let server = server();
    let block = [request(GET, "/stalled/big"), vec![0x40, 1, b'x', 0], vec![0xbe; 990]].concat();
    attack("heads of 1000 fields, windows closed", &server, 64 * MIB, || {
        let mut clients: Vec<_> = (0..10).map(|_| Raw::with(server.port(), &[(4, 0)])).collect();
        for client in &mut clients {
            client.send(&(0..100).flat_map(|n| frame(HEADERS, 5, 2 * n + 1, &block)).collect::<Vec<_>>());
        }
        let begun = Instant::now();
        for client in &mut clients {
            (0..100).for_each(|_| drop(client.until(RST_STREAM)));
        }
        assert!(begun.elapsed() < 10 * TIME, "streams are given up");
        Done { count: 1000, connections: 10, ..Done::default() }
    });
}

/// Many streams whose responses nobody takes.
#[test]
fn slow_readers() {
    let server = server();
    attack("responses that nobody takes", &server, 48 * MIB, || {
        let mut clients: Vec<_> = (0..20).map(|_| Raw::with(server.port(), &[(4, 0x7fff_ffff)])).collect();
        for client in &mut clients {
            let requests: Vec<u8> =
                (0..128).flat_map(|n| frame(HEADERS, 5, 2 * n + 1, &request(GET, "/big"))).collect();
            client.send(&requests);
        }
        thread::sleep(TIME);
        Done { count: 20 * 128, connections: 20, ..Done::default() }
    });
}

/// A server with TLS, as [`server`].
fn tls_server() -> Server {
    let setup = http2(
        "server { listen 127.0.0.1:%%PORT%% sslHTTP2; ON; root %%DIR%%/www;
            ssl_certificate %%DIR%%/localhost.crt; ssl_certificate_key %%DIR%%/localhost.key; }
         server { listen 127.0.0.1:%%PORT_other%%; root %%DIR%%/www; }",
    )
    .file("www/small", "ok");
    certificate(setup.folder(), "localhost", EC);
    let server = setup.start();
    (0..5).for_each(|_| drop(curl(&["-k", &format!("https://127.0.0.1:{}/small", server.port())])));
    server
}

/// What openssl says first.
fn client_hello() -> Vec<u8> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &address])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let (mut stream, _) = listener.accept().expect("it connects");
    let mut head = [0; 5];
    stream.read_exact(&mut head).expect("it speaks first");
    let mut body = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    stream.read_exact(&mut body).expect("a whole record");
    drop(stream);
    let _ = child.wait();
    [&head[..], &body].concat()
}

#[test]
fn handshakes_half_open() {
    let server = tls_server();
    let hello = client_hello();
    attack("ClientHellos, half-open", &server, 48 * MIB, || {
        let begun = Instant::now();
        let clients: Vec<_> = (0..800)
            .map(|_| {
                let mut client = TcpStream::connect(("127.0.0.1", server.port())).expect("it listens");
                client.write_all(&hello).expect("it reads");
                client
            })
            .collect();
        thread::sleep(TIME.saturating_sub(begun.elapsed()));
        Done { count: clients.len(), connections: clients.len(), ..Done::default() }
    });
}

#[test]
fn handshakes_in_full() {
    let server = tls_server();
    let address = format!("127.0.0.1:{}", server.port());
    attack("full handshakes", &server, 8 * MIB, || {
        let args = ["s_time", "-connect", &address, "-new", "-time", "2"];
        let out = Command::new("openssl").args(args).output().expect("openssl is installed");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        // `2139 connections in 2.31s; …`, and another line of real seconds.
        let line = text.lines().find(|line| line.contains(" connections in ")).unwrap_or_default();
        let count = line.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{text}"));
        Done { count, connections: count, ..Done::default() }
    });
}
