//! Mutated handshakes and records of TLS against the running server: none may end in a panic, kill a worker, hang, or keep
//! others from an answer.
//!
//! As for requests (`mutations.rs`): `TIDEGATE_SEED` (default 1) and the number of a connection say what was tried, up to the
//! randomness of the handshake itself; 3,000 of them are part of every run, `TIDEGATE_MUTATIONS=1000000` makes a long one.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use e2e::random::{Random, number};
use e2e::sealed::{Sealer, client, client_config, client_hello, flush, talk};
use e2e::{Backend, EC, Server, Setup, certificate};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection};

/// What mutations put in: parts of messages and records, lengths that lie.
const WORDS: &[&[u8]] = &[
    b"\x16\x03\x01\x00\x01",
    b"\x16\x03\x03\x00\x00",
    b"\x14\x03\x03\x00\x01\x01",
    b"\x15\x03\x03\x00\x02\x01\x00",
    b"\x15\x03\x03\x00\x02\x02\x28",
    b"\x15\x03\x03\x00\x01\x01",
    b"\x17\x03\x03\x00\x00",
    b"\x17\x03\x03\x00\x13",
    b"\x18\x03\x03\x00\x03\x01\x40\x00",
    b"\x01\x00\x00",
    b"\x01\x00\x00\x00",
    b"\x0b\x00\x00\x03\x00\x00\x00",
    b"\x10\x00\x00\x42\x41",
    b"\x14\x00\x00\x0c",
    b"\x18\x00\x00\x01\x01",
    b"\x00\x00\x00\x0e\x00\x0c\x00\x00\x09localhost",
    b"\x00\x10\x00\x05\x00\x03\x02h2",
    b"\x00\x2b\x00\x03\x02\x03\x04",
    b"\x00\x0a\x00\x04\x00\x02\x00\x1d",
    b"\x00\x33\x00\x02\x00\x00",
    b"\x00\x29\x00\x00",
    b"\x00\x2a\x00\x00",
    b"\xff\xff",
    b"\x00\x00",
    b"\x40\x00",
    b"\x00",
    b"\x01",
];

/// What peers of the library's begin with.
struct Peers {
    configs: Vec<Arc<ClientConfig>>,
    hellos: Vec<Vec<u8>>,
    /// Another connection's last words, which begin where the handshake goes on.
    flights: Vec<Vec<u8>>,
}

impl Peers {
    fn new(port: u16) -> Peers {
        let mut configs = Vec::new();
        for versions in [&[&TLS13][..], &[&TLS12], &[&TLS12, &TLS13]] {
            for alpn in [&[][..], &[b"h2".to_vec(), b"http/1.1".to_vec()]] {
                let mut config = client_config(versions);
                config.alpn_protocols = alpn.to_vec();
                configs.push(Arc::new(config));
            }
        }
        // So that some have a session to resume.
        let mut flights = Vec::new();
        for config in &configs {
            let mut socket = connect(port);
            let mut connection = client(config.clone(), "localhost");
            let mut sent = Vec::new();
            while connection.is_handshaking() {
                sent.clear();
                let _ = connection.write_tls(&mut sent);
                socket.write_all(&sent).expect("it is read");
                if connection.is_handshaking() {
                    connection.read_tls(&mut socket).expect("it is answered");
                    connection.process_new_packets().expect("it is well-formed");
                }
            }
            let _ = connection.write_tls(&mut sent);
            flights.push(sent);
        }
        let hellos = configs.iter().map(|config| client_hello(client(config.clone(), "localhost"))).collect();
        Peers { configs, hellos, flights }
    }

    fn client(&self, random: &mut Random) -> ClientConnection {
        client(self.configs[random.below(self.configs.len())].clone(), "localhost")
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
    stream.set_nodelay(true).expect("a socket");
    stream
}

fn mutate(bytes: &mut Vec<u8>, peers: &Peers, random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let end = at + random.below((bytes.len() - at).min(40) + 1);
    match random.below(12) {
        0 | 1 if at < bytes.len() => bytes[at] = random.below(256) as u8,
        2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        3 => drop(bytes.drain(at..end)),
        4 => bytes.extend_from_within(at..end),
        5 => bytes.truncate(at),
        6 => {
            let other = &peers.flights[random.below(peers.flights.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.below(other.len())..]);
        }
        7 | 8 if bytes.len() > 5 => {
            // Something surplus inside the record, or a part of it missing, and the length fits.
            let length = usize::from(u16::from_be_bytes([bytes[3], bytes[4]])).min(bytes.len() - 5);
            let word = random.of(WORDS);
            if random.below(3) > 0 {
                bytes.splice(5 + length..5 + length, word.iter().copied());
            } else {
                bytes.truncate(5 + length - random.below(length + 1).min(length));
            }
            let length = (bytes.len() - 5).min(16_384) as u16;
            bytes[3..5].copy_from_slice(&length.to_be_bytes());
        }
        9 if bytes.len() > 10 => {
            // One record in two.
            let length = usize::from(u16::from_be_bytes([bytes[3], bytes[4]])).min(bytes.len() - 5);
            let first = random.below(length + 1);
            let header = [&bytes[..3], &((length - first) as u16).to_be_bytes()].concat();
            bytes.splice(5 + first..5 + first, header);
            bytes[3..5].copy_from_slice(&(first as u16).to_be_bytes());
        }
        _ => drop(bytes.splice(at..at, random.of(WORDS).iter().copied())),
    }
}

const REQUEST: &[u8] = b"GET /alive HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// A connection that has sent what it sends.
fn send(port: u16, peers: &Peers, seed: u64, n: u64) -> TcpStream {
    let mut random = Random::new(seed, n);
    let mut socket = connect(port);
    // A hello costs little, a handshake much: there are fewer of these.
    let _ = match random.below(20) {
        0 => later_messages(&mut socket, peers, &mut random),
        1 => records(&mut socket, peers, &mut random),
        _ => {
            let mut bytes = peers.hellos[random.below(peers.hellos.len())].clone();
            (0..=random.below(4)).for_each(|_| mutate(&mut bytes, peers, &mut random));
            let cut = if n.is_multiple_of(3) { random.below(bytes.len() + 1) } else { bytes.len() };
            socket.write_all(&bytes[..cut]).and_then(|()| socket.write_all(&bytes[cut..]))
        }
    };
    let _ = socket.shutdown(Shutdown::Write);
    socket
}

/// A handshake whose second flight is mutated.
fn later_messages(socket: &mut TcpStream, peers: &Peers, random: &mut Random) -> std::io::Result<()> {
    let mut connection = peers.client(random);
    while connection.is_handshaking() {
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes)?;
        socket.write_all(&bytes)?;
        if connection.read_tls(socket)? == 0 || connection.process_new_packets().is_err() {
            return Ok(());
        }
    }
    let _ = connection.writer().write_all(REQUEST);
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes)?;
    }
    (0..=random.below(3)).for_each(|_| mutate(&mut bytes, peers, random));
    socket.write_all(&bytes)
}

/// After the handshake, records of any kind with the right keys, or mutated.
fn records(socket: &mut TcpStream, peers: &Peers, random: &mut Random) -> std::io::Result<()> {
    let mut connection = client(peers.configs[random.below(2)].clone(), "localhost");
    if connection.complete_io(socket).is_err() {
        return Ok(());
    }
    let mut connection = connection.into();
    flush(&mut connection, socket)?;
    let mut sealer = Sealer::of(connection);
    for _ in 0..=random.below(4) {
        let kind = [20, 21, 22, 22, 22, 23, 24, 0][random.below(8)];
        let mut content: Vec<u8> = (0..random.below(4)).flat_map(|_| random.of(WORDS).to_vec()).collect();
        if random.below(4) == 0 {
            content = REQUEST.to_vec();
        }
        let mut bytes = sealer.seal(kind, &content);
        if random.below(4) == 0 {
            mutate(&mut bytes, peers, random);
        }
        socket.write_all(&bytes)?;
    }
    Ok(())
}

/// Reads until the server closes: it must, since nothing more comes.
fn finish(n: u64, seed: u64, mut socket: TcpStream) {
    let mut buffer = [0; 16384];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("connection {n} (seed {seed}) hangs");
            }
            Err(_) => return,
        }
    }
}

fn check(server: &Server, workers: &[u32], n: u64) {
    let (_, _, answer) = talk(server.port(), "GET /alive HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(answer.ends_with("alive"), "after connection {n}: {answer}");
    assert_eq!(server.children(), workers, "no worker was replaced");
    let log = server.read("error.log");
    assert!(!log.contains("[alert]") && !log.contains("panic"), "by connection {n}: {log}");
}

#[test]
fn mutated_clients() {
    let (count, seed) = (number("TIDEGATE_MUTATIONS", 3000), number("TIDEGATE_SEED", 1));
    let setup = Setup::http(
        "client_header_timeout 2s; keepalive_timeout 2s; lingering_timeout 1s; access_log off; error_log error.log crit;
        server { listen 127.0.0.1:%%PORT%% ssl; http2 on; ssl_session_cache shared:s:1m;
            ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.key; ssl_verify_client optional_no_ca;
            location = /alive { return 200 alive; } }",
    );
    certificate(setup.folder(), "one", EC);
    let server = setup.start();
    let (workers, peers) = (server.children(), Peers::new(server.port()));
    let mut open = VecDeque::new();
    for n in 0..count {
        open.push_back((n, send(server.port(), &peers, seed, n)));
        if open.len() > 50 {
            open.pop_front().into_iter().for_each(|(n, socket)| finish(n, seed, socket));
        }
        if n.is_multiple_of(1000) {
            check(&server, &workers, n);
        }
    }
    open.into_iter().for_each(|(n, socket)| finish(n, seed, socket));
    check(&server, &workers, count);
}

/// Backends whose first flight is mutated: each request has an answer.
#[test]
fn mutated_backends() {
    let (count, seed) = (number("TIDEGATE_MUTATIONS", 3000) / 10, number("TIDEGATE_SEED", 1));
    let folder = e2e::Folder::new();
    certificate(&folder, "back", EC);
    let path = folder.path().to_path_buf();
    let connections = std::sync::atomic::AtomicU64::new(0);
    let backend = Backend::sockets(move |mut socket, _| {
        let n = connections.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut random = Random::new(seed, n);
        let versions: &[_] = if random.below(2) == 0 { &[&TLS13] } else { &[&TLS12] };
        let mut connection = e2e::sealed::server(&path, "back", versions);
        let (mut hello, mut bytes) = (vec![0; 8192], Vec::new());
        let Ok(length) = socket.read(&mut hello) else { return };
        let _ = connection.read_tls(&mut &hello[..length]);
        let _ = connection.process_new_packets();
        while connection.wants_write() {
            let _ = connection.write_tls(&mut bytes);
        }
        let peers = Peers { configs: Vec::new(), hellos: Vec::new(), flights: vec![bytes.clone()] };
        (0..=random.below(4)).for_each(|_| mutate(&mut bytes, &peers, &mut random));
        let _ = socket.write_all(&bytes);
    });
    let server = Setup::http(&format!(
        "access_log off; error_log error.log crit;
        server {{ listen 127.0.0.1:%%PORT%%; location = /alive {{ return 200 alive; }}
            location / {{ proxy_pass https://127.0.0.1:{}; proxy_read_timeout 5s; proxy_connect_timeout 5s; }} }}",
        backend.port
    ))
    .start();
    let workers = server.children();
    for n in 0..count {
        let status = server.get("/").status;
        assert!(matches!(status, 502 | 504), "connection {n} (seed {seed}): {status}");
    }
    assert_eq!((server.get("/alive").text().as_str(), server.children()), ("alive", workers));
    let log = server.read("error.log");
    assert!(!log.contains("[alert]") && !log.contains("panic"), "{log}");
}
