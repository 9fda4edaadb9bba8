//! The simulated network, in virtual time.

use std::cell::RefCell;
use std::future::Future;
use std::io::ErrorKind;
use std::rc::Rc;

use buf::{Bytes, Chain};
use os::SockAddr;
use rt::sim::{Faults, set_faults};
use rt::*;

fn run<T>(seed: u64, test: impl Future<Output = T>) -> T {
    let options = Options { driver: Driver::Sim(seed), connections: 100, ..Options::default() };
    Runtime::new(options).expect("a runtime").block_on(test)
}

fn addr(port: u16) -> SockAddr {
    SockAddr::from(std::net::SocketAddr::from(([10, 0, 0, 1], port)))
}

fn chain(bytes: &[u8]) -> Chain {
    Chain::from(Bytes::copy_from(bytes))
}

async fn connect(port: u16) -> Result<Stream, ConnectError> {
    Stream::connect(&addr(port), &ConnectOptions::default(), 1000).await
}

/// Echoes everything on this port.
fn echo(port: u16) {
    let listener = sim::listen(addr(port));
    spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn(async move {
                while let Ok(buf) = stream.recv(1000).await {
                    if buf.is_empty() || stream.send_all(Chain::from(buf.freeze())).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// Sends `bytes` to an echo and reads them back; what happened, with times.
async fn round_trip(bytes: Vec<u8>) -> (Vec<u8>, Vec<String>) {
    let mut trace = Vec::new();
    let client = Rc::new(connect(1).await.expect("connect"));
    trace.push(format!("{} connected", now_ms()));
    let (sender, whole) = (client.clone(), bytes.clone());
    spawn(async move {
        sender.send(&mut chain(&whole)).await.expect("send");
        sender.shutdown_write().expect("shutdown");
    });
    let mut got = Vec::new();
    loop {
        let buf = client.recv(500).await.expect("recv");
        trace.push(format!("{} {}", now_ms(), buf.len()));
        if buf.is_empty() {
            return (got, trace);
        }
        got.extend_from_slice(&buf);
    }
}

#[test]
fn echoes_under_every_seed_and_alike_under_the_same() {
    let bytes: Vec<u8> = (0..200_000).map(|n| (n % 251) as u8).collect();
    let mut traces = Vec::new();
    for seed in [1, 2, 3, 4, 5, 6, 7, 8, 1] {
        let (got, trace) = run(seed, async {
            echo(1);
            round_trip(bytes.clone()).await
        });
        assert!(got == bytes, "seed {seed}: {} bytes", got.len());
        traces.push(trace);
    }
    assert_eq!(traces[0], traces[8]);
    assert_ne!(traces[0], traces[1]);
}

#[test]
fn time_is_virtual() {
    let start = std::time::Instant::now();
    run(1, async {
        let (before, wall_before) = (now_ms(), wall());
        sleep(3_600_000).await;
        assert_eq!((now_ms() - before, wall().secs - wall_before.secs), (3_600_000, 3600));
    });
    assert!(start.elapsed().as_secs() < 5);
}

#[test]
fn deadlines_are_met_exactly() {
    run(1, async {
        let listener = sim::listen(addr(1));
        let client = connect(1).await.expect("connect");
        let (server, from) = listener.accept().await.expect("accept");
        assert_eq!((from, server.local_addr().expect("address")), (client.local_addr().expect("address"), addr(1)));
        server.set_recv_timeout(Some(60_000));
        let start = now_ms();
        assert_eq!(server.recv(100).await.expect_err("silence").kind(), ErrorKind::TimedOut);
        assert_eq!(now_ms() - start, 60_000);
        sim::cut(&client);
        server.set_send_timeout(Some(5_000));
        let start = now_ms();
        assert_eq!(
            server.send(&mut chain(&vec![0; 1 << 20])).await.expect_err("a dead peer").kind(),
            ErrorKind::TimedOut
        );
        assert!((5_000..5_010).contains(&(now_ms() - start)));
        let again = server.send(&mut chain(b"x")).await;
        assert_eq!(again.expect_err("nobody waits for a dead peer without a deadline").kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn resets_reach_both_ends() {
    run(1, async {
        let listener = sim::listen(addr(1));
        let client = connect(1).await.expect("connect");
        let (server, _) = listener.accept().await.expect("accept");
        set_faults(Faults { resets: 1000, ..Faults::default() });
        assert_eq!(client.send(&mut chain(b"x")).await.expect_err("a reset").kind(), ErrorKind::ConnectionReset);
        server.hangup().await;
        assert_eq!(server.recv(100).await.expect_err("a reset").kind(), ErrorKind::ConnectionReset);
        drop(listener);
        assert_eq!(connect(1).await.expect_err("nobody listens").kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_crowd_is_served() {
    run(7, async {
        echo(1);
        let done = Rc::new(RefCell::new(0));
        for n in 0..40u8 {
            let done = done.clone();
            spawn(async move {
                let client = connect(1).await.expect("connect");
                client.send(&mut chain(&vec![n; 5000])).await.expect("send");
                let mut got = 0;
                while got < 5000 {
                    let buf = client.recv(4096).await.expect("recv");
                    assert!(buf.iter().all(|b| *b == n));
                    got += buf.len();
                }
                *done.borrow_mut() += 1;
            });
        }
        sleep(60_000).await;
        assert_eq!((*done.borrow(), connections().active), (40, 1));
    });
}

#[test]
fn threads_are_waited_for() {
    run(1, async {
        let pool = ThreadPool::new("default", 1, 10);
        let start = now_ms();
        let answer = pool.run(|| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            5
        });
        assert_eq!((answer.await, now_ms()), (Ok(5), start));
    });
}

#[test]
fn waits_without_a_deadline_are_found() {
    run(1, async {
        let listener = sim::listen(addr(1));
        let client = connect(1).await.expect("connect");
        let (server, _) = listener.accept().await.expect("accept");
        let (number, tasks) = (server.number(), inspect::tasks());
        spawn(async move {
            let _ = server.recv(100).await;
            server.set_recv_timeout(Some(1000));
            let _ = server.recv(100).await;
            server.set_recv_timeout(None);
            timeout(1000, server.recv(100)).await;
        });
        yield_now().await;
        let endless = inspect::Endless { connection: number, receives: true };
        assert_eq!((inspect::endless_waits(), inspect::tasks()), (vec![endless], tasks + 1));
        client.send(&mut chain(b"x")).await.expect("send");
        sleep(100).await;
        assert_eq!(inspect::endless_waits(), [], "the connection has a deadline");
        client.send(&mut chain(b"x")).await.expect("send");
        sleep(100).await;
        assert_eq!(inspect::endless_waits(), [], "the task has one");
        sleep(1000).await;
        assert_eq!(inspect::tasks(), tasks);
    });
}

#[test]
fn who_is_silent_lets_nobody_connect() {
    run(1, async {
        sim::silence(addr(1));
        let start = now_ms();
        assert_eq!(connect(1).await.expect_err("nobody answers").kind(), ErrorKind::TimedOut);
        assert_eq!(now_ms() - start, 1000);
    });
}

#[test]
fn a_cut_cable_tells_nobody() {
    run(1, async {
        let listener = sim::listen(addr(1));
        let client = connect(1).await.expect("connect");
        let (server, _) = listener.accept().await.expect("accept");
        set_faults(Faults { cuts: 1000, ..Faults::default() });
        client.send(&mut chain(b"x")).await.expect("it is taken");
        drop(client);
        server.set_recv_timeout(Some(60_000));
        assert_eq!(server.recv(100).await.expect_err("silence").kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn bytes_for_an_end_that_is_closed_are_answered_with_a_reset() {
    run(1, async {
        set_faults(Faults { latency_ms: (5, 5), ..Faults::default() });
        let listener = sim::listen(addr(1));
        let client = connect(1).await.expect("connect");
        let (server, _) = listener.accept().await.expect("accept");
        client.send(&mut chain(b"x")).await.expect("send");
        drop(server);
        sleep(100).await;
        assert_eq!(client.recv(100).await.expect_err("a reset").kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn chance_follows_from_the_seed() {
    let bytes = |seed| run(seed, async { (random_bytes(), random_bytes()) });
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
    let (first, second) = bytes(1);
    assert_ne!(first, second);
    assert_ne!(random_bytes(), random_bytes(), "without a simulation they are the system's");
}

#[test]
fn a_loop_that_has_ended_holds_nothing_of_its_owner() {
    let owner = Rc::new(());
    let (numbers, hook) = (owner.clone(), owner.clone());
    let options = Options {
        driver: Driver::Sim(1),
        serial: Some(Rc::new(move || Rc::strong_count(&numbers) as u64)),
        hook: Some(Rc::new(move |_| drop(hook.clone()))),
        ..Options::default()
    };
    let runtime = Runtime::new(options).expect("a runtime");
    assert_eq!(Rc::strong_count(&owner), 3);
    drop(runtime);
    assert_eq!(Rc::strong_count(&owner), 1);
}
