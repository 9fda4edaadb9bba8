//! Datagrams over loopback and unix sockets.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use super::*;
use crate::socket::{Kind, ListenOptions, connect, listen, local_addr, socket};

fn bound(addr: &str) -> (OwnedFd, SockAddr) {
    let addr = SockAddr::from(addr.parse::<SocketAddr>().expect("an address"));
    let options = ListenOptions { kind: Kind::Datagram, ipv6only: false, ..ListenOptions::default() };
    let fd = listen(&addr, &options).expect("bound");
    prepare(fd.as_raw_fd(), &addr);
    let addr = local_addr(fd.as_raw_fd()).expect("an address");
    (fd, addr)
}

/// The address by which a socket that is bound to all of them is reached.
fn by(ip: &str, addr: &SockAddr) -> SockAddr {
    SockAddr::from(SocketAddr::new(ip.parse().expect("an address"), addr.port()))
}

#[test]
fn both_addresses_and_the_mark_arrive() {
    for (socket, to, seen) in [
        ("0.0.0.0:0", "127.0.0.2", Some("127.0.0.2")),
        ("127.0.0.1:0", "127.0.0.1", None),
        ("[::]:0", "::1", Some("::1")),
        ("[::]:0", "127.0.0.3", Some("::ffff:127.0.0.3")),
    ] {
        let (server, addr) = bound(socket);
        let to = by(to, &addr);
        let (client, own) = bound(if matches!(to, SockAddr::V4(_)) { "127.0.0.1:0" } else { "[::1]:0" });
        let mut batch = Batch::new();
        let mut request = [Transmit { to: Some(&to), ecn: 2, ..Transmit::new(b"request") }];
        assert_eq!(batch.send(client.as_raw_fd(), &mut request, false).expect("sent"), 1);
        assert_eq!(batch.recv(server.as_raw_fd(), BATCH).expect("received"), 1);
        let (from, local) = {
            let received = batch.received().next().expect("a message");
            assert_eq!((received.bytes, received.ecn, received.segment), (&b"request"[..], 2, 0), "{socket}");
            assert_eq!(received.from.port(), own.port());
            (received.from, received.to)
        };
        assert_eq!(local, seen.map(|ip| ip.parse().expect("an address")), "{socket}");
        // The answer comes from the address that was asked, though the socket has them all.
        let mut answer = [Transmit { to: Some(&from), from: local, ecn: 1, ..Transmit::new(b"") }];
        assert_eq!(batch.send(server.as_raw_fd(), &mut answer, false).expect("sent"), 1);
        assert_eq!(batch.recv(client.as_raw_fd(), BATCH).expect("received"), 1);
        let received = batch.received().next().expect("a message");
        assert_eq!((received.bytes, &received.from, received.ecn), (&b""[..], &to, 1));
    }
}

#[test]
fn many_go_by_one_call() {
    let ((server, to), (client, _)) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
    let texts: Vec<String> = (0..BATCH + 5).map(|n| format!("{n}")).collect();
    let mut all: Vec<Transmit<'_>> =
        texts.iter().map(|text| Transmit { to: Some(&to), ..Transmit::new(text.as_bytes()) }).collect();
    let mut batch = Batch::new();
    assert_eq!(batch.send(client.as_raw_fd(), &mut all, true).expect("sent"), BATCH);
    assert_eq!(batch.send(client.as_raw_fd(), &mut all[BATCH..], true).expect("sent"), 5);
    for part in [&texts[..BATCH], &texts[BATCH..]] {
        assert_eq!(batch.recv(server.as_raw_fd(), BATCH).expect("received"), part.len());
        let got: Vec<&[u8]> = batch.received().map(|received| received.bytes).collect();
        assert!(got.iter().eq(part.iter().map(|text| text.as_bytes()).collect::<Vec<_>>().iter()));
    }
    let empty = batch.recv(server.as_raw_fd(), BATCH).expect_err("nothing is left");
    assert_eq!((empty.kind(), batch.received().count()), (io::ErrorKind::WouldBlock, 0));
}

/// What arrives of one piece of 10 × 1000 + 500 bytes.
fn segments(gso: bool, gro: bool) -> Vec<usize> {
    let ((server, to), (client, _)) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
    assert!(!gro || set_gro(server.as_raw_fd(), true));
    let bytes: Vec<u8> = (0..10_500).map(|n| (n % 251) as u8).collect();
    let mut piece = [Transmit { to: Some(&to), segment: 1000, ..Transmit::new(&bytes) }];
    let mut batch = Batch::new();
    assert_eq!(batch.send(client.as_raw_fd(), &mut piece, gso).expect("sent"), 1);
    let (mut lengths, mut got) = (Vec::new(), Vec::new());
    while batch.recv(server.as_raw_fd(), BATCH).is_ok() {
        for received in batch.received() {
            let segment = if received.segment == 0 { received.bytes.len() } else { received.segment };
            assert!(gro || received.segment == 0);
            lengths.extend(received.bytes.chunks(segment).map(<[u8]>::len));
            got.extend_from_slice(received.bytes);
        }
    }
    assert!(got == bytes);
    lengths
}

#[test]
fn the_kernel_cuts_and_joins() {
    let expect: Vec<usize> = [1000; 10].into_iter().chain([500]).collect();
    let (probe, _) = bound("127.0.0.1:0");
    let (gso, gro) = (can_segment(probe.as_raw_fd()), set_gro(probe.as_raw_fd(), true));
    let cases = BTreeSet::from([(false, false), (gso, false), (false, gro), (gso, gro)]);
    for (gso, gro) in cases {
        assert_eq!(segments(gso, gro), expect, "{gso} {gro}");
    }
}

#[test]
fn pieces_are_cut_to_what_the_kernel_takes() {
    for (len, segment, gso, expect) in [
        (5000, 0, true, 5000),
        (5000, 1000, false, 1000),
        (500, 1000, false, 500),
        (5000, 1000, true, 5000),
        (100_000, 1000, true, 64_000),
        (100_000, 1500, true, 64_500),
        (100_000, 60_000, true, 60_000),
    ] {
        let bytes = vec![0; len];
        assert_eq!(Transmit { segment, ..Transmit::new(&bytes) }.message(gso), expect, "{len} {segment} {gso}");
    }
}

#[test]
fn a_full_queue_stops_in_the_middle() {
    let folder = tempfile::TempDir::with_prefix("tidegate-datagram-").expect("a folder");
    let addr = SockAddr::unix(folder.path().join("s").as_os_str().as_encoded_bytes()).expect("an address");
    let server = listen(&addr, &ListenOptions { kind: Kind::Datagram, ..ListenOptions::default() }).expect("bound");
    let client = socket(&addr, Kind::Datagram).expect("a socket");
    connect(client.as_raw_fd(), &addr).expect("connected");
    let bytes: Vec<u8> = (0..=255).collect();
    let mut piece = [Transmit { segment: 1, ..Transmit::new(&bytes) }];
    let mut batch = Batch::new();
    let (mut got, mut blocked) = (Vec::<u8>::new(), 0);
    while !piece[0].bytes.is_empty() {
        match batch.send(client.as_raw_fd(), &mut piece, false) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                blocked += 1;
                batch.recv(server.as_raw_fd(), BATCH).expect("received");
                got.extend(batch.received().flat_map(|received| received.bytes));
            }
        }
    }
    while batch.recv(server.as_raw_fd(), BATCH).is_ok() {
        got.extend(batch.received().flat_map(|received| received.bytes));
    }
    assert!(got == bytes && blocked > 0);
    // What is longer than a message may be over a network is left out.
    crate::socket::set_sndbuf(client.as_raw_fd(), 200_000).expect("a larger buffer");
    for bytes in [&vec![1; 100_000][..], b"x"] {
        batch.send(client.as_raw_fd(), &mut [Transmit::new(bytes)], false).expect("sent");
    }
    assert_eq!(batch.recv(server.as_raw_fd(), BATCH).expect("received"), 2);
    assert!(batch.received().map(|received| received.bytes).eq([b"x"]));
}

#[test]
fn an_address_is_bound_once() {
    let (_one, addr) = bound("127.0.0.1:0");
    let options = ListenOptions { kind: Kind::Datagram, ..ListenOptions::default() };
    assert_eq!(listen(&addr, &options).expect_err("in use").error.raw_os_error(), Some(libc::EADDRINUSE));
}

#[test]
fn what_stands_beside_it_may_be_anything() {
    let mut control = Control([0; CONTROL]);
    let from = Some(IpAddr::V6(Ipv6Addr::LOCALHOST));
    let len = control.write(10, &Transmit { from, ecn: 3, segment: 4, ..Transmit::new(b"0123456789") });
    let received = || Received { bytes: b"x", from: SockAddr::Unix(Box::default()), to: None, segment: 0, ecn: 0 };
    for cut in 0..=len {
        let mut into = received();
        control.read(cut, &mut into);
        assert!(into.to == from || cut < 40, "{cut}");
    }
    for byte in [0, 1, 0x7f, 0xff] {
        Control([byte; CONTROL]).read(CONTROL, &mut received());
    }
}
