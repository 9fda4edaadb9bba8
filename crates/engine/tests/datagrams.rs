//! An application that takes datagrams, in the simulation: with losses, duplicates and a successor.

#[path = "../examples/echo/app.rs"]
mod app;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use app::{Echo, Files};
use engine::App;
use os::SockAddr;
use rt::sim::{DatagramFaults, set_datagram_faults};
use rt::{ConnectOptions, Driver, Options, Runtime, Transmit, UdpSocket, sim};

fn server() -> SockAddr {
    SockAddr::from(std::net::SocketAddr::from(([10, 0, 0, 1], 7)))
}

/// An application and the socket that it has been given.
fn start() -> (Rc<Echo>, Rc<UdpSocket>) {
    let (app, socket) = (Rc::new(Echo::new(Vec::new(), false, Files::default())), Rc::new(sim::bind(server())));
    app.clone().datagrams(0, socket.clone(), None);
    (app, socket)
}

/// Sends each of 20 numbers until it has been answered; how many datagrams that took.
async fn ask(client: u8) -> usize {
    let socket = UdpSocket::connect(&server(), &ConnectOptions::default()).await.expect("a socket");
    let (mut open, mut sent): (BTreeSet<u8>, usize) = ((0..20).collect(), 0);
    while !open.is_empty() {
        for number in open.clone() {
            socket.send(&mut [Transmit::new(&[client, number])]).await.expect("sent");
            sent += 1;
        }
        socket.set_recv_timeout(Some(30));
        let mut answers = Vec::new();
        while socket.recv(&mut answers).await.is_ok() {}
        for answer in answers {
            let [.., from, number] = answer.bytes[..] else { panic!("a process, a client, a number") };
            assert_eq!(from, client, "an answer to somebody else");
            open.remove(&number);
        }
    }
    sent
}

async fn all_are_answered() {
    let faults = DatagramFaults { latency_ms: (0, 10), losses: 200, duplicates: 100, ..DatagramFaults::default() };
    set_datagram_faults(faults);
    let (old, socket) = start();
    let (asked, done) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    for client in 0..10 {
        let (asked, done) = (asked.clone(), done.clone());
        rt::spawn(async move {
            let sent = ask(client).await;
            asked.set(asked.get() + sent);
            done.set(done.get() + 1);
        });
    }
    rt::sleep(15).await;
    assert_eq!(done.get(), 0);
    let (new, _socket) = start();
    socket.stop(1000).await;
    while old.busy() > 0 {
        rt::sleep(1).await;
    }
    drop((old, socket));
    rt::sleep(60_000).await;
    assert_eq!((done.get(), new.busy()), (10, 0));
    assert!(asked.get() > 200, "nothing was lost");
}

#[test]
fn every_seed_is_answered() {
    for seed in 1..=100 {
        eprintln!("seed {seed}");
        let options = Options { driver: Driver::Sim(seed), connections: 100, ..Options::default() };
        Runtime::new(options).expect("a runtime").block_on(all_are_answered());
    }
}
