//! Sessions over UDP in the simulation: with losses, duplicates, datagrams that overtake one another, and full sockets.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;

use engine::cycle::{ConfSource, Program};
use engine::embedded::{self, Embedded};
use os::SockAddr;
use rt::sim::{DatagramFaults, set_datagram_faults};
use rt::{ConnectOptions, Driver, Transmit, UdpSocket, sim};

const CLIENTS: u8 = 15;
const NUMBERS: u8 = 20;

fn addr(text: &str) -> SockAddr {
    SockAddr::from(text.parse::<SocketAddr>().expect("an address"))
}

/// What a backend has been asked: by each client, from which addresses.
type Asked = Rc<RefCell<BTreeMap<u8, BTreeSet<SockAddr>>>>;

/// Answers each datagram with its like.
async fn backend(asked: Asked) {
    let socket = sim::bind(addr("10.0.0.2:53"));
    let mut batch = Vec::new();
    while socket.recv(&mut batch).await.is_ok() {
        for datagram in batch.drain(..) {
            let client = *datagram.bytes.first().expect("a client");
            asked.borrow_mut().entry(client).or_default().insert(datagram.from.clone());
            // One that is lost is asked for again.
            let _ = socket.send(&mut [datagram.reply(&datagram.bytes)]).await;
        }
    }
}

/// Sends each number until it has been answered.
async fn client(client: u8) {
    let socket = UdpSocket::connect(&addr("10.0.0.1:53"), &ConnectOptions::default()).await.expect("a socket");
    let mut open: BTreeSet<u8> = (0..NUMBERS).collect();
    while !open.is_empty() {
        for number in open.clone() {
            let _ = socket.send(&mut [Transmit::new(&[client, number])]).await;
        }
        socket.set_recv_timeout(Some(100));
        let mut answers = Vec::new();
        while socket.recv(&mut answers).await.is_ok() {}
        for answer in answers {
            let [from, number] = answer.bytes[..] else { panic!("a client and a number") };
            assert_eq!(from, client, "an answer to somebody else");
            open.remove(&number);
        }
    }
}

/// All clients are answered; how many sockets the backend has seen for each.
fn run(seed: u64, server: &str) -> Vec<usize> {
    let text = format!(
        "daemon off; events {{ worker_connections 1000; }}
         stream {{ server {{ listen 10.0.0.1:53 udp; proxy_pass 10.0.0.2:53; proxy_timeout 60s; {server} }} }}"
    );
    // No file is named in it.
    let mut program =
        Program::new(vec![Box::new(stream::Module)], "/prefix/".into(), ConfSource::BuiltIn("simulated", text));
    program.error_log = "/dev/null".into();
    let cycle = embedded::load(&program, None).expect("a configuration");
    let asked = Asked::default();
    let seen = asked.clone();
    let runtime = embedded::runtime(&cycle, Driver::Sim(seed)).expect("a loop");
    runtime.block_on(async move {
        let latency_ms = (0, 20);
        set_datagram_faults(DatagramFaults {
            latency_ms,
            losses: 100,
            duplicates: 50,
            full_sends: 50,
            ..Default::default()
        });
        let served = Embedded::start(cycle);
        rt::spawn(backend(asked));
        let done = Rc::new(Cell::new(0));
        for number in 0..CLIENTS {
            let done = done.clone();
            rt::spawn(async move {
                client(number).await;
                done.set(done.get() + 1);
            });
        }
        let end = rt::now_ms() + 60_000;
        while done.get() < CLIENTS && rt::now_ms() < end {
            rt::sleep(10).await;
        }
        assert_eq!(done.get(), CLIENTS, "all are answered");
        served.quit().await;
        assert_eq!(served.busy(), 0, "all sessions have ended");
    });
    let seen = seen.borrow();
    seen.values().map(BTreeSet::len).collect()
}

#[test]
fn a_client_keeps_its_session_whatever_is_lost() {
    for seed in 1..=12 {
        eprintln!("seed {seed}");
        assert_eq!(run(seed, ""), [1; CLIENTS as usize]);
    }
}

#[test]
fn each_datagram_may_be_a_session() {
    for seed in 1..=12 {
        eprintln!("seed {seed}");
        let sessions = run(seed, "proxy_requests 1; proxy_responses 1; proxy_upload_rate 1m; proxy_download_rate 1m;");
        assert!(sessions.iter().all(|count| *count >= usize::from(NUMBERS)), "{sessions:?}");
    }
}
