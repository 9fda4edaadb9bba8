//! Datagrams behave alike under every driver, the simulation among them.

mod each;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use each::{KERNEL, each_of, pin_timeout};
use os::SockAddr;
use os::socket::{Kind, ListenOptions, listen};
use rt::sim::{DatagramFaults, set_datagram_faults};
use rt::*;

/// Runs a test once per driver.
fn each<F: Future<Output = ()>>(test: impl Fn(Driver) -> F) {
    let drivers = [&KERNEL[..], &[Driver::Sim(1), Driver::Sim(2)]].concat();
    each_of(&drivers, &options(), test);
}

/// Runs a test once per driver of the kernel.
fn each_real<F: Future<Output = ()>>(test: impl Fn() -> F) {
    each_of(&KERNEL, &options(), |_| test());
}

fn options() -> Options {
    Options { connections: 100, ..Options::default() }
}

fn run<T>(seed: u64, test: impl Future<Output = T>) -> T {
    Runtime::new(Options { driver: Driver::Sim(seed), ..options() }).expect("a runtime").block_on(test)
}

fn addr(text: &str) -> SockAddr {
    SockAddr::from(text.parse::<std::net::SocketAddr>().expect("an address"))
}

fn bound(addr: &SockAddr) -> OwnedFd {
    listen(addr, &ListenOptions { kind: Kind::Datagram, ..ListenOptions::default() }).expect("bound")
}

/// A socket that is bound to all addresses, and one of these.
fn server(driver: Driver) -> (UdpSocket, SockAddr) {
    let any = addr("0.0.0.0:0");
    let socket = match driver {
        Driver::Sim(_) => sim::bind(any),
        _ => UdpSocket::new(bound(&any), UdpOptions::default()).expect("a socket"),
    };
    let mut own = addr("127.0.0.1:0");
    own.set_port(socket.local_addr().expect("an address").port());
    (socket, own)
}

async fn client(to: &SockAddr) -> UdpSocket {
    UdpSocket::connect(to, &ConnectOptions::default()).await.expect("a socket")
}

async fn send_all(socket: &UdpSocket, batch: &mut [Transmit<'_>]) {
    let mut sent = 0;
    while sent < batch.len() {
        sent += socket.send(&mut batch[sent..]).await.expect("sent");
    }
}

async fn send(socket: &UdpSocket, bytes: &[u8]) {
    send_all(socket, &mut [Transmit::new(bytes)]).await;
}

async fn recv(socket: &UdpSocket) -> Vec<Datagram> {
    let mut batch = Vec::new();
    socket.recv(&mut batch).await.expect("received");
    batch
}

/// Answers every datagram with its like.
async fn echo(socket: &UdpSocket) {
    let mut batch = Vec::new();
    while socket.recv(&mut batch).await.is_ok() {
        let mut answers: Vec<Transmit<'_>> = batch.iter().map(|datagram| datagram.reply(&datagram.bytes)).collect();
        send_all(socket, &mut answers).await;
        batch.clear();
    }
}

#[test]
fn echoes() {
    each(async |driver| {
        let (server, to) = server(driver);
        spawn(async move { echo(&server).await });
        let client = client(&to).await;
        for len in [0, 1, 1200, 60_000] {
            let bytes: Vec<u8> = (0..len).map(|n| n as u8).collect();
            send(&client, &bytes).await;
            let batch = recv(&client).await;
            assert_eq!((batch.len(), &batch[0].bytes[..]), (1, &bytes[..]));
        }
    });
}

#[test]
fn addresses_and_marks_arrive() {
    each(async |driver| {
        let (server, mut to) = server(driver);
        let client = client(&to).await;
        send_all(&client, &mut [Transmit { ecn: 1, ..Transmit::new(b"x") }]).await;
        let batch = recv(&server).await;
        assert_eq!((batch[0].to, batch[0].ecn, batch[0].segment), (to.ip(), 1, 0));
        assert_eq!(batch[0].from, client.local_addr().expect("an address"));
        // Another of the server's addresses answers as that one.
        if let SockAddr::V4(v4) = &mut to {
            v4.set_ip([127, 0, 0, 9].into());
        }
        let client = match driver {
            Driver::Sim(_) => sim::bind(addr("127.0.0.1:0")),
            _ => UdpSocket::new(bound(&addr("127.0.0.1:0")), UdpOptions::default()).expect("a socket"),
        };
        send_all(&client, &mut [Transmit { to: Some(&to), ..Transmit::new(b"y") }]).await;
        let asked = recv(&server).await;
        send_all(&server, &mut [asked[0].reply(b"z")]).await;
        let answer = recv(&client).await;
        assert_eq!((&answer[0].from, &answer[0].bytes[..]), (&to, &b"z"[..]));
    });
}

#[test]
fn many_go_at_once() {
    each(async |driver| {
        let (server, to) = server(driver);
        let client = client(&to).await;
        let texts: Vec<String> = (0..100).map(|n| format!("{n}")).collect();
        let mut all: Vec<Transmit<'_>> = texts.iter().map(|text| Transmit::new(text.as_bytes())).collect();
        send_all(&client, &mut all).await;
        let (mut got, mut calls) = (BTreeSet::new(), 0);
        while got.len() < 100 {
            let batch = recv(&server).await;
            calls += 1;
            assert!(batch.len() <= 32);
            got.extend(batch.iter().map(|datagram| datagram.bytes.to_vec()));
        }
        // The first call looks for few.
        assert!(calls == 5 || matches!(driver, Driver::Sim(_)), "{calls}");
        assert!(texts.iter().all(|text| got.contains(text.as_bytes())));
    });
}

#[test]
fn times_out_and_loses_nothing_by_it() {
    each(async |driver| {
        let (server, to) = server(driver);
        let client = client(&to).await;
        let start = now_ms();
        server.set_recv_timeout(Some(30));
        let error = server.recv(&mut Vec::new()).await.expect_err("nothing comes");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!((30..300).contains(&(now_ms() - start)), "{}", now_ms() - start);
        // Futures are dropped again and again while datagrams come.
        spawn(async move {
            for n in 0..50u8 {
                send(&client, &[n]).await;
                sleep(u64::from(n % 3)).await;
            }
            client.set_recv_timeout(Some(1));
        });
        let (mut got, mut batch) = (BTreeSet::new(), Vec::new());
        while got.len() < 50 {
            let _ = pin_timeout(1, server.recv(&mut batch)).await;
            got.extend(batch.drain(..).map(|datagram| datagram.bytes[0]));
        }
    });
}

#[test]
fn what_waits_is_small() {
    each(async |driver| {
        let (server, _) = server(driver);
        let mut batch = Vec::new();
        {
            let mut waiting = Box::pin(server.recv(&mut batch));
            assert!(std::mem::size_of_val(&*waiting) <= 40, "{}", std::mem::size_of_val(&*waiting));
            assert!(pin_timeout(3, waiting.as_mut()).await.is_none());
        }
        assert_eq!(batch.capacity(), 0);
    });
}

/// Nanoseconds that this thread has run.
fn busy_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    text.split(' ').next().and_then(|field| field.parse().ok()).expect("a number")
}

#[test]
fn what_nobody_takes_waits_without_a_stir() {
    each(async |driver| {
        let (server, to) = server(driver);
        let client = client(&to).await;
        send(&client, b"before").await;
        let first = recv(&server).await;
        assert_eq!(&first[0].bytes[..], b"before");
        send(&client, b"1").await;
        sleep(5).await;
        let before = busy_ns();
        send(&client, b"2").await;
        sleep(100).await;
        let ran = busy_ns() - before;
        assert!(ran < 50_000_000, "{ran} ns of 100 ms");
        let mut got: Vec<Vec<u8>> = recv(&server).await.iter().map(|datagram| datagram.bytes.to_vec()).collect();
        got.sort();
        assert_eq!(got, [b"1", b"2"]);
    });
}

/// Where a datagram mostly comes alone, no other is looked for, and those that come together are all found.
#[test]
fn one_by_one_and_many() {
    each_real(async || {
        let server = UdpSocket::new(bound(&addr("127.0.0.1:0")), UdpOptions::default()).expect("a socket");
        server.set_bare();
        let client = client(&server.local_addr().expect("an address")).await;
        for count in [1, 1, 3, 1, 40] {
            sleep(2).await;
            let texts: Vec<String> = (0..count).map(|n| format!("{n}")).collect();
            let mut all: Vec<Transmit<'_>> = texts.iter().map(|text| Transmit::new(text.as_bytes())).collect();
            send_all(&client, &mut all).await;
            let mut got = Vec::new();
            while got.len() < count {
                got.append(&mut recv(&server).await);
            }
            assert!(got.iter().map(|datagram| &datagram.bytes[..]).eq(texts.iter().map(String::as_bytes)));
            let own = client.local_addr().expect("an address");
            assert!(got.iter().all(|datagram| datagram.from == own && datagram.to.is_none()));
        }
    });
}

/// A unix socket and one connected to it: the only ones that make senders wait.
fn unix_pair() -> (UdpSocket, Rc<UdpSocket>, SockAddr) {
    let folder = tempfile::TempDir::with_prefix("tidegate-rt-").expect("a folder");
    let path = folder.path().join("s");
    let addr = SockAddr::unix(path.as_os_str().as_encoded_bytes()).expect("an address");
    let server = UdpSocket::new(bound(&addr), UdpOptions::default()).expect("a socket");
    let fd = os::socket::socket(&addr, Kind::Datagram).expect("a socket");
    os::socket::connect(os::AsRawFd::as_raw_fd(&fd), &addr).expect("connected");
    let client = UdpSocket::new(fd, UdpOptions::default()).expect("a socket");
    (server, Rc::new(client), addr)
}

#[test]
fn senders_wait_for_room() {
    each_real(async || {
        let (server, client, _) = unix_pair();
        let done = Rc::new(Cell::new(0));
        for sender in 0..5u8 {
            let (client, done) = (client.clone(), done.clone());
            spawn(async move {
                for n in 0..100 {
                    send(&client, &[sender, n]).await;
                }
                done.set(done.get() + 1);
            });
        }
        sleep(2).await;
        // Some give up while they wait.
        for _ in 0..3 {
            assert!(pin_timeout(2, send(&client, &[99, 0])).await.is_none());
        }
        assert_eq!(done.get(), 0);
        let mut next = [0; 5];
        let total = |next: &[u8; 5]| next.iter().map(|n| u32::from(*n)).sum::<u32>();
        while total(&next) < 500 {
            for datagram in recv(&server).await {
                let [sender, n] = datagram.bytes[..] else { panic!("two bytes") };
                if sender != 99 {
                    assert_eq!(std::mem::replace(&mut next[usize::from(sender)], n + 1), n);
                }
            }
            yield_now().await;
        }
        sleep(1).await;
        assert_eq!(done.get(), 5);
        client.set_send_timeout(Some(30));
        let start = now_ms();
        let error = loop {
            if let Err(error) = client.send(&mut [Transmit::new(b"x")]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!((30..300).contains(&(now_ms() - start)));
    });
}

#[test]
fn both_directions_wait_at_once() {
    each_real(async || {
        let (server, client, _) = unix_pair();
        // The client has no name, so nothing comes back, but it waits for it all the time.
        let reader = client.clone();
        spawn(async move { drop(reader.recv(&mut Vec::new()).await) });
        let writer = client.clone();
        spawn(async move {
            for n in 0..200 {
                send(&writer, &[n]).await;
            }
        });
        let mut next = 0;
        while next < 200 {
            sleep(1).await;
            for datagram in recv(&server).await {
                assert_eq!(datagram.bytes[0], next);
                next += 1;
            }
        }
    });
}

#[test]
fn full_sends_are_tried_again() {
    run(3, async {
        set_datagram_faults(DatagramFaults { full_sends: 900, ..DatagramFaults::default() });
        let (server, to) = server(Driver::Sim(3));
        let client = Rc::new(client(&to).await);
        for n in 0..20u8 {
            let client = client.clone();
            spawn(async move { send(&client, &[n]).await });
        }
        let mut got = BTreeSet::new();
        while got.len() < 20 {
            got.extend(recv(&server).await.iter().map(|datagram| datagram.bytes[0]));
        }
    });
}

#[test]
fn who_is_not_there_refuses() {
    each(async |driver| {
        let (server, to) = server(driver);
        drop(server);
        sleep(1).await;
        let client = client(&to).await;
        send(&client, b"x").await;
        let error = client.recv(&mut Vec::new()).await.expect_err("nobody is there");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        client.set_recv_timeout(Some(10));
        assert_eq!(client.recv(&mut Vec::new()).await.expect_err("silence").kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn a_stopped_one_takes_what_waits_and_no_more() {
    each(async |driver| {
        let (server, to) = server(driver);
        let client = client(&to).await;
        let texts: Vec<String> = (0..70).map(|n| format!("{n}")).collect();
        let mut all: Vec<Transmit<'_>> = texts.iter().map(|text| Transmit::new(text.as_bytes())).collect();
        send_all(&client, &mut all).await;
        sleep(10).await;
        let (server, got) = (Rc::new(server), Rc::new(RefCell::new(Vec::new())));
        let (receiver, into) = (server.clone(), got.clone());
        spawn(async move {
            // It has been told before it begins.
            loop {
                let mut batch = Vec::new();
                match receiver.recv(&mut batch).await {
                    Ok(()) => into.borrow_mut().append(&mut batch),
                    Err(error) => return assert!(is_closing(&error), "{error}"),
                }
            }
        });
        server.stop(1000).await;
        assert_eq!(got.borrow().len(), 70);
        send(&client, b"later").await;
        sleep(10).await;
        assert!(is_closing(&server.recv(&mut Vec::new()).await.expect_err("it is over")));
        assert_eq!(got.borrow().len(), 70);
        // It still answers.
        let first = got.borrow_mut().remove(0);
        send_all(&server, &mut [first.reply(b"answer")]).await;
        assert_eq!(&recv(&client).await[0].bytes[..], b"answer");
    });
}

#[test]
fn one_that_is_held_sends_and_receives_later() {
    each(async |driver| {
        let (server, to) = server(driver);
        let client = client(&to).await;
        server.hold();
        let server = Rc::new(server);
        let got = Rc::new(RefCell::new(Vec::new()));
        spawn({
            let (server, got) = (server.clone(), got.clone());
            async move {
                let mut batch = Vec::new();
                while server.recv(&mut batch).await.is_ok() {
                    got.borrow_mut().append(&mut batch);
                }
            }
        });
        send(&client, b"early").await;
        let own = client.local_addr().expect("an address");
        send_all(&server, &mut [Transmit { to: Some(&own), from: to.ip(), ..Transmit::new(b"sent") }]).await;
        assert_eq!(recv(&client).await[0].bytes[..], b"sent"[..]);
        sleep(20).await;
        assert!(got.borrow().is_empty(), "it waits, and the datagram too");
        server.release();
        sleep(20).await;
        server.stop(1000).await;
        assert_eq!(got.borrow().iter().map(|one| one.bytes.to_vec()).collect::<Vec<_>>(), [b"early"]);
    });
    // Stopped before it was released it leaves all to others.
    each(async |driver| {
        let (server, to) = server(driver);
        let client = client(&to).await;
        server.hold();
        send(&client, b"left").await;
        let server = Rc::new(server);
        let ended = Rc::new(Cell::new(false));
        spawn({
            let (server, ended) = (server.clone(), ended.clone());
            async move {
                let error = server.recv(&mut Vec::new()).await.expect_err("stopped");
                ended.set(is_closing(&error));
            }
        });
        yield_now().await;
        server.stop(1000).await;
        yield_now().await;
        assert!(ended.get());
    });
}

#[test]
fn one_that_waits_is_stopped() {
    each(async |driver| {
        let (server, to) = server(driver);
        let server = Rc::new(server);
        let receiver = server.clone();
        spawn(async move { assert!(is_closing(&receiver.recv(&mut Vec::new()).await.expect_err("it is over"))) });
        sleep(3).await;
        server.stop(1000).await;
        drop((server, to));
    });
}

#[test]
fn one_that_is_never_empty_is_stopped_in_time() {
    each_real(async || {
        let server = Rc::new(UdpSocket::new(bound(&addr("127.0.0.1:0")), UdpOptions::default()).expect("a socket"));
        let client = client(&server.local_addr().expect("an address")).await;
        let flood = async move |count: usize| send_all(&client, &mut vec![Transmit::new(b"x"); count]).await;
        flood(70).await;
        let (receiver, got, ended) = (server.clone(), Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let (count, end, start) = (got.clone(), ended.clone(), Instant::now());
        spawn(async move {
            let mut batch = Vec::new();
            while let Ok(()) = receiver.recv(&mut batch).await {
                assert!(start.elapsed() < Duration::from_secs(5), "it goes on and on");
                count.set(count.get() + batch.len());
                // As many come as are received at a time: there are always some.
                flood(batch.drain(..).count()).await;
            }
            end.set(true);
        });
        server.stop(20).await;
        sleep(5).await;
        assert!(ended.get() && got.get() > 70, "{} {}", ended.get(), got.get());
    });
}

#[test]
fn whoever_shares_it_takes_what_others_leave() {
    each_real(async || {
        let fd = bound(&addr("127.0.0.1:0"));
        let to = os::socket::local_addr(os::AsRawFd::as_raw_fd(&fd)).expect("an address");
        let client = client(&to).await;
        let counts = Rc::new(RefCell::new([0; 8]));
        let open = || {
            let fd = fd.try_clone().expect("a copy");
            Rc::new(UdpSocket::new(fd, UdpOptions { exclusive: true }).expect("a socket"))
        };
        let begin = |n: usize, socket: Rc<UdpSocket>| {
            let counts = counts.clone();
            spawn(async move {
                let mut batch = Vec::new();
                while socket.recv(&mut batch).await.is_ok() {
                    counts.borrow_mut()[n] += batch.drain(..).count();
                }
            });
        };
        let sockets: Vec<Rc<UdpSocket>> = (0..8).map(|_| open()).collect();
        sockets.iter().enumerate().for_each(|(n, socket)| begin(n, socket.clone()));
        sleep(1).await;
        // One after another leaves, at the moment when something comes.
        for (n, socket) in sockets.iter().enumerate() {
            send(&client, b"x").await;
            if n < 7 {
                socket.stop(1000).await;
            }
            let taken = || counts.borrow().iter().sum::<usize>();
            while taken() < n + 1 {
                sleep(1).await;
            }
            assert_eq!(taken(), n + 1);
        }
    });
}

#[test]
fn joined_ones_are_told_or_taken_apart() {
    each_real(async || {
        let bytes: Vec<u8> = (0..5500).map(|n| (n % 251) as u8).collect();
        for joined in [true, false] {
            let (server, to) = server(Driver::Epoll);
            // Whoever shares the socket may have asked for it.
            server.set_gro(true);
            server.set_gro(joined);
            let client = client(&to).await;
            send_all(&client, &mut [Transmit { segment: 1000, ..Transmit::new(&bytes) }]).await;
            let (mut got, mut lengths) = (Vec::new(), Vec::new());
            while got.len() < bytes.len() {
                for datagram in recv(&server).await {
                    assert!(joined || datagram.segment == 0);
                    let segment = if datagram.segment == 0 { datagram.bytes.len() } else { datagram.segment };
                    lengths.extend(datagram.bytes.chunks(segment).map(<[u8]>::len));
                    got.extend_from_slice(&datagram.bytes);
                }
            }
            assert!(got == bytes);
            assert_eq!(lengths, [1000, 1000, 1000, 1000, 1000, 500]);
        }
    });
}

#[test]
fn they_count_as_connections() {
    each_of(&KERNEL, &Options { connections: 2, ..options() }, async |driver| {
        let (one, to) = server(driver);
        let two = client(&to).await;
        assert_eq!(connections().free, 0);
        let full = UdpSocket::connect(&to, &ConnectOptions::default()).await.err().expect("no place is left");
        assert_eq!(full.kind(), ErrorKind::QuotaExceeded);
        drop((one, two));
        assert_eq!(connections().active, 0);
    });
}

/// Asks until each of 50 questions has been answered: what arrived at the server, with times.
async fn ask_under(faults: DatagramFaults) -> Vec<String> {
    set_datagram_faults(faults);
    let (server, to) = server(Driver::Sim(0));
    let trace = Rc::new(RefCell::new(Vec::new()));
    let into = trace.clone();
    spawn(async move {
        loop {
            for datagram in recv(&server).await {
                into.borrow_mut().push(format!("{} {}", now_ms(), datagram.bytes[0]));
                send_all(&server, &mut [datagram.reply(&datagram.bytes)]).await;
            }
        }
    });
    let client = client(&to).await;
    let mut open: BTreeSet<u8> = (0..50).collect();
    while !open.is_empty() {
        let questions: Vec<[u8; 1]> = open.iter().map(|n| [*n]).collect();
        let mut all: Vec<Transmit<'_>> = questions.iter().map(|question| Transmit::new(question)).collect();
        send_all(&client, &mut all).await;
        client.set_recv_timeout(Some(20));
        let mut batch = Vec::new();
        while client.recv(&mut batch).await.is_ok() {
            open.retain(|n| batch.iter().all(|answer| answer.bytes[0] != *n));
            batch.clear();
        }
    }
    trace.take()
}

#[test]
fn faults_follow_from_the_seed() {
    let none = DatagramFaults { latency_ms: (1, 1), full_sends: 0, ..DatagramFaults::default() };
    let numbers = |trace: &[String]| -> Vec<u8> {
        trace.iter().filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect()
    };
    let orderly = run(1, ask_under(none));
    assert!(numbers(&orderly).iter().copied().eq(0..50), "no fault, and all in order");
    let late = run(1, ask_under(DatagramFaults { latency_ms: (0, 9), ..none }));
    assert!(late.len() == 50 && !numbers(&late).is_sorted(), "later ones overtake");
    let twice = run(1, ask_under(DatagramFaults { duplicates: 500, ..none }));
    assert!((60..100).contains(&twice.len()), "{}", twice.len());
    let all = DatagramFaults { latency_ms: (0, 9), losses: 300, duplicates: 100, full_sends: 300, ..none };
    let traces = [7, 8, 7].map(|seed| run(seed, ask_under(all)));
    assert_eq!(traces[0], traces[2]);
    assert_ne!(traces[0], traces[1]);
    let tiny = DatagramFaults { queue: 10, ..none };
    assert!(run(1, ask_under(tiny)).len() > 45, "what finds no room is asked for again");
}

#[test]
fn sockets_of_one_address_share_the_senders_out() {
    run(1, async {
        let (one, two) = (sim::bind(addr("10.0.0.1:53")), sim::bind(addr("10.0.0.1:53")));
        let to = addr("10.0.0.1:53");
        for _ in 0..20 {
            let client = client(&to).await;
            send(&client, b"a").await;
            send(&client, b"b").await;
            sleep(10).await;
        }
        let (one, two) = (recv(&one).await, recv(&two).await);
        assert_eq!(one.len() + two.len(), 40);
        let clients = |batch: &[Datagram]| batch.iter().map(|d| d.from.to_string()).collect::<BTreeSet<_>>();
        assert!(clients(&one).is_disjoint(&clients(&two)), "each client stays with one");
    });
}

/// However much their peers say, and while they wait for something else than those.
#[test]
fn sessions_end_at_once() {
    each(async |driver| {
        let (server, to) = server(driver);
        let (busy, held) = (client(&to).await, Rc::new(client(&to).await));
        for client in [&busy, &*held] {
            send(client, b"x").await;
        }
        let mut asked = Vec::new();
        while asked.len() < 2 {
            asked.extend(recv(&server).await);
        }
        for datagram in &asked {
            send_all(&server, &mut [datagram.reply(b"y"), datagram.reply(b"z")]).await;
        }
        let (ended, polls) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        spawn({
            let (held, ended, polls) = (held.clone(), ended.clone(), polls.clone());
            async move {
                std::future::poll_fn(|cx| {
                    polls.set(polls.get() + 1);
                    held.poll_ended(cx)
                })
                .await;
                ended.set(true);
            }
        });
        sleep(5).await;
        // What isn't received doesn't keep the loop busy.
        assert!(!ended.get() && polls.get() < 5, "{}", polls.get());
        rt::close_accepted();
        assert!(busy.recv(&mut Vec::new()).await.is_err_and(|error| rt::is_closing(&error)));
        sleep(5).await;
        assert!(ended.get());
    });
}
