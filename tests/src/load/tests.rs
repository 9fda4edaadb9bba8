//! The driver against servers that lose something on purpose: it must see each loss, and only those.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::content::{body, parse};
use super::exchange::field;
use super::scenarios::bare_load;
use super::{Kind, Loss, Mix, Target, Totals, origin};
use crate::Backend;

/// Runs a load of one kind against a server that spoils every `every`th answer; returns the counts and how many it spoilt.
fn lossy(kind: Kind, every: u64, spoil: fn(&mut TcpStream, Vec<u8>)) -> (Totals, u64) {
    let (count, spoilt) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let seen = spoilt.clone();
    let server = Backend::sockets(move |mut stream, _| {
        let mut ahead = Vec::new();
        while let Some((answer, close)) = next_answer(&mut stream, &mut ahead) {
            if count.fetch_add(1, Ordering::SeqCst) % every == every - 1 {
                spoilt.fetch_add(1, Ordering::SeqCst);
                return spoil(&mut stream, answer);
            }
            if stream.write_all(&answer).is_err() || close {
                return;
            }
        }
    });
    let target = Target::Tcp(SocketAddr::from(([127, 0, 0, 1], server.port)));
    let mix = Mix { pause: Duration::from_millis(2), ..Mix::only(&[kind], 4) };
    let totals = bare_load(&target, mix, Duration::from_millis(600));
    (totals, seen.load(Ordering::SeqCst))
}

/// Reads a request's head; the answer that belongs to it, and whether the connection ends with it.
fn next_answer(stream: &mut TcpStream, ahead: &mut Vec<u8>) -> Option<(Vec<u8>, bool)> {
    let end = loop {
        if let Some(at) = ahead.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).ok().filter(|n| *n > 0)?;
        ahead.extend_from_slice(&buffer[..n]);
    };
    let head = String::from_utf8_lossy(&ahead.drain(..end).collect::<Vec<u8>>()).to_ascii_lowercase();
    let (seed, length) = parse(head.split(' ').nth(1)?)?;
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    answer.extend_from_slice(body(seed, length));
    Some((answer, field(&head, "connection") == Some("close")))
}

/// Closes with a reset: linger for no time.
fn reset(stream: &mut TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO));
}

#[test]
fn a_good_server_loses_nothing() {
    for kind in [Kind::New, Kind::KeepAlive] {
        let (totals, spoilt) = lossy(kind, u64::MAX, |_, _| ());
        assert!(totals.of(kind).ok > 50, "{totals:?}");
        assert_eq!((totals.lost(), totals.all().closed_idle, spoilt), (0, 0, 0), "{totals:?}");
    }
}

#[test]
fn each_loss_is_seen_and_named() {
    type Spoil = fn(&mut TcpStream, Vec<u8>);
    let cases: [(&str, Kind, Loss, Spoil); 9] = [
        ("a reset", Kind::New, Loss::Reset, |s, _| reset(s)),
        ("a reset after some requests", Kind::KeepAlive, Loss::Unanswered, |s, _| reset(s)),
        ("a close", Kind::New, Loss::Unanswered, |_, _| ()),
        ("a close after some requests", Kind::KeepAlive, Loss::Unanswered, |_, _| ()),
        ("half a head", Kind::New, Loss::Truncated, |s, a| drop(s.write_all(&a[..20]))),
        ("a byte too few", Kind::New, Loss::Truncated, |s, a| drop(s.write_all(&a[..a.len() - 1]))),
        ("a wrong byte", Kind::New, Loss::Wrong, |s, mut a| {
            // An empty body has no last byte: then it is the status's.
            let at = if a.ends_with(b"\r\n\r\n") { 9 } else { a.len() - 1 };
            a[at] ^= 1;
            drop(s.write_all(&a));
        }),
        ("a byte too many", Kind::New, Loss::Wrong, |s, mut a| {
            a.push(b'x');
            drop(s.write_all(&a));
        }),
        ("another status", Kind::KeepAlive, Loss::Wrong, |s, _| {
            drop(s.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"));
        }),
    ];
    for (name, kind, loss, spoil) in cases {
        let (totals, spoilt) = lossy(kind, 7, spoil);
        let counts = totals.of(kind);
        assert!(spoilt > 3 && counts.ok > 10, "{name}: {spoilt} {counts:?}");
        // The first answer of a kept connection may be the one that is reset.
        let fresh = if name == "a reset after some requests" { counts.of(Loss::Reset) } else { 0 };
        assert_eq!((counts.of(loss) + fresh, counts.lost()), (spoilt, spoilt), "{name}: {totals:?}");
        assert!(counts.of(loss) > 0 && totals.stories.len() as u64 == spoilt.min(40), "{name}: {totals:?}");
    }
}

#[test]
fn a_reset_within_an_answer_is_a_reset() {
    let (totals, spoilt) = lossy(Kind::KeepAlive, 7, |s, a| {
        let _ = s.write_all(&a[..a.len() - 1]);
        std::thread::sleep(Duration::from_millis(20)); // A reset throws away what the client hasn't read yet.
        reset(s);
    });
    assert_eq!((totals.all().of(Loss::Reset), totals.lost()), (spoilt, spoilt), "{totals:?}");
}

#[test]
fn nobody_there_is_refused() {
    let (port, _reserved) = crate::free_port();
    let target = Target::Tcp(SocketAddr::from(([127, 0, 0, 1], port)));
    let totals = bare_load(&target, Mix::only(&[Kind::New, Kind::WebSocket], 2), Duration::from_millis(200));
    assert!(totals.all().of(Loss::Refused) > 4, "{totals:?}");
    assert_eq!((totals.lost(), totals.all().ok), (totals.all().of(Loss::Refused), 0));
}

#[test]
fn a_close_between_requests_is_no_loss() {
    let server = Backend::sockets(|mut stream, _| {
        if let Some((answer, _)) = next_answer(&mut stream, &mut Vec::new()) {
            let _ = stream.write_all(&answer);
            let _ = stream.shutdown(Shutdown::Both);
        }
    });
    let target = Target::Tcp(SocketAddr::from(([127, 0, 0, 1], server.port)));
    let mix = Mix { pause: Duration::from_millis(100), ..Mix::only(&[Kind::KeepAlive], 2) };
    let totals = bare_load(&target, mix, Duration::from_millis(800));
    let counts = totals.of(Kind::KeepAlive);
    assert!(counts.closed_idle > 2 && counts.closed_idle + counts.lost() <= counts.ok, "{totals:?}");
}

#[test]
fn cut_and_spoilt_tunnels() {
    let front = |spoil: fn(&mut Vec<u8>) -> bool| {
        let back = origin();
        let front = Backend::sockets(move |mut client, _| {
            let Ok(mut backend) = TcpStream::connect(("127.0.0.1", back.port)) else { return };
            let (mut up, mut to) = (client.try_clone().expect("a copy"), backend.try_clone().expect("a copy"));
            std::thread::spawn(move || std::io::copy(&mut up, &mut to));
            let mut buffer = [0; 4096];
            let mut chunks = 0;
            while let Ok(n) = backend.read(&mut buffer) {
                let mut bytes = buffer[..n].to_vec();
                chunks += 1;
                if n == 0 || chunks == 6 && spoil(&mut bytes) || client.write_all(&bytes).is_err() {
                    let _ = client.shutdown(Shutdown::Both);
                    return;
                }
            }
        });
        let target = Target::Tcp(SocketAddr::from(([127, 0, 0, 1], front.port)));
        bare_load(&target, Mix::only(&[Kind::WebSocket], 2), Duration::from_millis(600))
    };
    let good = front(|_| false);
    assert!(good.of(Kind::WebSocket).ok > 20 && good.lost() == 0, "{good:?}");
    let cut = front(|_| true);
    assert!(cut.all().of(Loss::Truncated) > 0 && cut.all().of(Loss::Wrong) == 0, "{cut:?}");
    let spoilt = front(|bytes| {
        bytes.iter_mut().for_each(|b| *b ^= 1);
        false
    });
    assert!(spoilt.all().of(Loss::Wrong) > 0, "{spoilt:?}");
}
