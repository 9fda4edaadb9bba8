//! Mutated input against a running server: a backend that answers in wrong ways too, and the run
//! itself, which holds the server to what must hold whatever it reads.
//!
//! A run is reproducible: `TIDEGATE_SEED` (default 1) and the number of an input say what it was.
//! `TIDEGATE_MUTATIONS=1000000` makes a long one.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::random::{Random, number};
use crate::{Backend, Server};

/// Changes bytes in one of many ways: single bytes and bits, parts that are left out, repeated or cut, `words` put in.
pub fn mutate(bytes: &mut Vec<u8>, words: &[&[u8]], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let end = at + random.below((bytes.len() - at).min(40) + 1);
    match random.below(8) {
        0 | 1 if at < bytes.len() => bytes[at] = random.below(256) as u8,
        2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        3 => drop(bytes.drain(at..end)),
        4 => bytes.extend_from_within(at..end),
        5 => bytes.truncate(at),
        _ => drop(bytes.splice(at..at, random.of(words).iter().copied())),
    }
}

/// A backend that answers whatever it reads in one of several ways, some of them wrong.
pub fn backend() -> Backend {
    const ANSWERS: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1/p/\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nshort",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 2",
        b"",
    ];
    Backend::sockets(|mut stream, _| {
        let mut buffer = [0; 16384];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            let sum: usize = buffer[..n].iter().map(|b| usize::from(*b)).sum();
            let answer = ANSWERS[if sum.is_multiple_of(3) { sum / 3 % ANSWERS.len() } else { 0 }];
            if stream.write_all(answer).is_err() || answer != ANSWERS[0] {
                return;
            }
        }
    })
}

/// Sends a server the inputs that `input` makes of a run's seed and their numbers, many at once, `default` of them if the
/// environment doesn't say. None may kill the worker, hang it, or keep `/alive` from being served on `alive`.
pub fn storm(server: &Server, port: u16, alive: u16, default: u64, input: impl Fn(u64, u64) -> Vec<u8>) {
    let (count, seed) = (number("TIDEGATE_MUTATIONS", default), number("TIDEGATE_SEED", 1));
    let (workers, mut open) = (server.children(), VecDeque::new());
    for n in 0..count {
        open.push_back((n, send(port, n, &input(seed, n))));
        if open.len() > 200 {
            open.pop_front().into_iter().for_each(|(n, stream)| finish(n, stream, seed, &input));
        }
        if n.is_multiple_of(500) {
            check_alive(alive, n);
        }
    }
    open.into_iter().for_each(|(n, stream)| finish(n, stream, seed, &input));
    check_alive(alive, count);
    assert_eq!(server.children(), workers, "no worker was replaced");
    assert!(!server.read("stderr").contains("panicked"), "{}", server.read("stderr"));
}

fn send(port: u16, n: u64, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|e| panic!("connection {n}: {e}"));
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
    // Every third input comes in two parts.
    let cut = if n.is_multiple_of(3) { bytes.len() / 2 } else { bytes.len() };
    let sent = stream.write_all(&bytes[..cut]).and_then(|()| stream.write_all(&bytes[cut..]));
    // A server that has refused it may have closed the connection.
    if sent.is_ok() && !n.is_multiple_of(1000) {
        let _ = stream.shutdown(Shutdown::Write);
    }
    stream
}

/// Reads until the server closes: it must, since nothing more comes.
fn finish(n: u64, mut stream: TcpStream, seed: u64, input: &impl Fn(u64, u64) -> Vec<u8>) {
    let mut buffer = [0; 16384];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("input {n} (seed {seed}) hangs: {}", input(seed, n).escape_ascii());
            }
            Err(_) => return,
        }
    }
}

fn check_alive(port: u16, n: u64) {
    let response = crate::Connection::open(port).get("/alive", "Connection: close\r\n");
    assert_eq!((response.status, response.text().as_str()), (200, "alive"), "after input {n}");
}
