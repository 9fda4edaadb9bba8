//! The resolver against name servers in threads of the test.

use std::collections::HashSet;
use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A name server on a port of its own, over UDP and TCP; counts what it is asked.
struct NameServer {
    addr: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl NameServer {
    /// `answer` makes the answer to a question, told whether it came over TCP; `None` is silence.
    fn start(answer: impl Fn(&[u8], bool) -> Option<Vec<u8>> + Send + Sync + 'static) -> NameServer {
        // A port that is free for UDP may be in use for TCP.
        let pair = || {
            std::net::UdpSocket::bind("127.0.0.1:0").and_then(|udp| Ok((TcpListener::bind(udp.local_addr()?)?, udp)))
        };
        let (tcp, udp) = (0..100).find_map(|_| pair().ok()).expect("some port is free for both");
        let addr = udp.local_addr().unwrap();
        let (answer, asked) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
        let (answer_tcp, count) = (answer.clone(), asked.clone());
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((len, peer)) = udp.recv_from(&mut question) {
                count.fetch_add(1, Ordering::SeqCst);
                if let Some(answer) = answer(&question[..len], false) {
                    udp.send_to(&answer, peer).unwrap();
                }
            }
        });
        std::thread::spawn(move || {
            while let Ok((mut peer, _)) = tcp.accept() {
                let mut question = [0; 512];
                let len = peer.read(&mut question).unwrap();
                let answer = answer_tcp(&question[2..len], true).unwrap();
                peer.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
                // In pieces, as TCP may have it.
                answer.chunks(10).for_each(|piece| peer.write_all(piece).unwrap());
            }
        });
        NameServer { addr, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// The answer to a question: flags, and records (type, time, data) of the name that was asked for.
fn reply(question: &[u8], flags: u16, records: &[(u16, u32, &[u8])]) -> Option<Vec<u8>> {
    let mut out = question.to_vec();
    out[2..4].copy_from_slice(&(0x8180 | flags).to_be_bytes());
    out[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
    for (kind, ttl, data) in records {
        out.extend_from_slice(&[0xc0, 12]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1]);
        out.extend_from_slice(&ttl.to_be_bytes());
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(data);
    }
    Some(out)
}

fn is_six(question: &[u8]) -> bool {
    question[question.len() - 3] == 28
}

fn resolver(servers: &[&NameServer], valid_s: Option<u64>, ipv6: bool) -> Rc<Resolver> {
    let servers = servers.iter().map(|server| server.addr).collect();
    Resolver::new(ResolverSpec { servers, valid_s, ipv6, ..ResolverSpec::default() })
}

fn run(future: impl Future<Output = ()> + 'static) {
    rt::Runtime::new(rt::Options::default()).unwrap().block_on(future);
}

async fn look(resolver: &Rc<Resolver>, name: &str) -> String {
    match resolver.resolve(name.as_bytes(), 2000).await {
        Ok(mut list) => {
            list.sort();
            list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn answers_are_kept_and_shared() {
    run(async {
        let server = NameServer::start(|question, _| {
            if is_six(question) {
                return reply(question, 0, &[(28, 9, &[0; 16])]);
            }
            reply(question, 0, &[(1, 9, &[127, 0, 0, 1]), (1, 9, &[127, 0, 0, 2])])
        });
        let both = resolver(&[&server], None, true);
        let (one, two) = rt::join(look(&both, "a.test"), look(&both, "A.test.")).await;
        assert_eq!((one.as_str(), one == two, server.asked()), ("127.0.0.1 127.0.0.2 ::", true, 2));
        assert_eq!((look(&both, "a.test").await, server.asked()), (one, 2));
        // Those of IPv4 come first, in some order.
        let mut first = std::collections::BTreeSet::new();
        for _ in 0..64 {
            let all = both.resolve(b"a.test", 2000).await.unwrap();
            assert!(all[2].is_ipv6());
            first.insert(all[0]);
        }
        assert_eq!(first.len(), 2);
        let four = resolver(&[&server], None, false);
        assert_eq!((look(&four, "a.test").await.as_str(), server.asked()), ("127.0.0.1 127.0.0.2", 3));
        for name in ["", "a..b", &"x".repeat(64)] {
            assert_eq!(look(&four, name).await, "3: Host not found");
        }
    });
}

#[test]
fn failures_are_not_kept() {
    run(async {
        let server = NameServer::start(|question, _| reply(question, question[13].into(), &[(1, 9, &[1, 2, 3, 4])]));
        let resolver = resolver(&[&server], None, false);
        for (name, expect) in [
            ("\u{1}", "1: Format error"),
            ("\u{2}", "2: Server failure"),
            ("\u{3}", "3: Host not found"),
            ("\u{3}", "3: Host not found"),
            ("\u{5}", "5: Operation refused"),
            ("\u{9}", "9: Unknown error"),
        ] {
            assert_eq!(look(&resolver, name).await, expect);
        }
        assert_eq!(server.asked(), 6);
        let silent = NameServer::start(|_, _| None);
        let silent = Resolver::new(ResolverSpec { servers: vec![silent.addr], ..resolver.spec.clone() });
        assert_eq!(silent.resolve(b"a", 30).await, Err(ResolveError::TIMED_OUT));
    });
}

#[test]
fn a_server_that_does_not_understand_is_passed_over() {
    run(async {
        let bad = NameServer::start(|question, _| reply(question, 1, &[]));
        let good = NameServer::start(|question, _| reply(question, 0, &[(1, 9, &[1, 2, 3, 4])]));
        let resolver = resolver(&[&bad, &good], None, false);
        assert_eq!((look(&resolver, "a.test").await.as_str(), bad.asked(), good.asked()), ("1.2.3.4", 1, 1));
        // Whichever it is that begins, and with two questions at a time.
        let both = self::resolver(&[&bad, &good], None, true);
        for name in ["a.test", "b.test", "c.test", "d.test"] {
            assert_eq!(look(&both, name).await, "1.2.3.4");
            both.next.set(both.next.get() + 1);
        }
    });
}

#[test]
fn times_end() {
    run(async {
        let server = NameServer::start(|question, _| reply(question, 0, &[(1, 0, &[1, 2, 3, 4])]));
        let (of_answer, own) = (resolver(&[&server], None, false), resolver(&[&server], Some(1), false));
        for resolver in [&of_answer, &of_answer, &own, &own] {
            assert_eq!(look(resolver, "a").await, "1.2.3.4");
        }
        assert_eq!(server.asked(), 3);
        rt::sleep(1100).await;
        look(&own, "a").await;
        assert_eq!(server.asked(), 4);
    });
}

#[test]
fn aliases_are_followed() {
    run(async {
        let server = NameServer::start(|question, _| match question[13] {
            b'a' => reply(question, 0, &[(5, 9, &[1, b'b', 0xc0, 14])]),
            b'b' => reply(question, 0, &[(1, 9, &[1, 2, 3, 4])]),
            _ => reply(question, 0, &[(5, 9, &[1, b'd' + (question[13] - b'd' + 1) % 20, 0xc0, 14])]),
        });
        let resolver = resolver(&[&server], None, false);
        assert_eq!(look(&resolver, "a.test").await, "1.2.3.4");
        let before = server.asked();
        assert_eq!(look(&resolver, "d.test").await, "3: Host not found");
        assert_eq!(server.asked() - before, MOST_ALIASES);
    });
}

#[test]
fn what_does_not_fit_comes_over_tcp() {
    run(async {
        let server = NameServer::start(|question, tcp| {
            let addr = if tcp { [1, 2, 3, 4] } else { [9; 4] };
            reply(question, if tcp { 0 } else { 0x200 }, &[(1, 9, &addr)])
        });
        assert_eq!(look(&resolver(&[&server], None, false), "a.test").await, "1.2.3.4");
    });
}

#[test]
fn forged_answers_are_passed_over() {
    run(async {
        let server = NameServer::start(|question, _| {
            let mut forged = reply(question, 0, &[(1, 9, &[9; 4])])?;
            forged[0] ^= 1;
            Some(forged)
        });
        let resolver = resolver(&[&server], None, false);
        assert_eq!(resolver.resolve(b"a.test", 100).await, Err(ResolveError::TIMED_OUT));
    });
}

#[test]
fn addresses_have_names() {
    run(async {
        let server =
            NameServer::start(|question, _| match question[12..].starts_with(b"\x011\x010\x010\x03127\x07in-addr") {
                // The first isn't the name of a host.
                true => reply(question, 0, &[(12, 9, b"\x03a b\0"), (12, 9, b"\x01b\x04test\0")]),
                false => reply(question, 3, &[]),
            });
        let resolver = resolver(&[&server], None, true);
        let name = async |address: &str| resolver.name_of(address.parse().unwrap(), 2000).await;
        assert_eq!(name("127.0.0.1").await.as_deref(), Ok("b.test"));
        // Kept, as addresses are.
        assert_eq!((name("127.0.0.1").await.as_deref(), server.asked()), (Ok("b.test"), 1));
        assert_eq!(name("::1").await, Err(ResolveError::NOT_FOUND));
    });
}

/// Looks a name up in the simulation, of whose datagrams so many of 1000 are lost: how long that took, in milliseconds.
fn over_a_lossy_network(seed: u64, losses: u32) -> u64 {
    let options = rt::Options { driver: rt::Driver::Sim(seed), ..rt::Options::default() };
    rt::Runtime::new(options).expect("a runtime").block_on(async {
        let faults = rt::sim::DatagramFaults { losses, duplicates: 200, ..rt::sim::DatagramFaults::default() };
        rt::sim::set_datagram_faults(faults);
        let addr: SocketAddr = "10.0.0.53:53".parse().expect("an address");
        let server = rt::sim::bind(addr.into());
        rt::spawn(async move {
            let mut questions = Vec::new();
            while server.recv(&mut questions).await.is_ok() {
                for question in questions.drain(..) {
                    let answer = reply(&question.bytes, 0, &[(1, 60, &[192, 0, 2, 1])]).expect("an answer");
                    server.send(&mut [question.reply(&answer)]).await.expect("sent");
                }
            }
        });
        let spec = ResolverSpec { servers: vec![addr], valid_s: None, ipv4: true, ipv6: false };
        let start = rt::now_ms();
        let found = Resolver::new(spec).resolve(b"a.example", 600_000).await;
        assert_eq!(found.expect("an answer"), [IpAddr::from([192, 0, 2, 1])], "seed {seed}");
        rt::now_ms() - start
    })
}

#[test]
fn what_is_lost_is_asked_again() {
    assert!((1..20).all(|seed| over_a_lossy_network(seed, 0) < 10));
    let times: Vec<u64> = (1..50).map(|seed| over_a_lossy_network(seed, 200)).collect();
    assert!(times.iter().any(|ms| *ms < 10) && times.iter().any(|ms| *ms >= RESEND_MS), "{times:?}");
}

/// A name server of the simulation: silent about names that begin with `s`, else it has an address, for so many seconds.
/// What it gives holds the ports that questions came from.
fn simulated(addr: SocketAddr, ttl: u32) -> Rc<RefCell<HashSet<String>>> {
    let (server, ports) = (rt::sim::bind(addr.into()), Rc::<RefCell<HashSet<String>>>::default());
    let seen = ports.clone();
    rt::spawn(async move {
        let mut questions = Vec::new();
        while server.recv(&mut questions).await.is_ok() {
            for question in questions.drain(..) {
                seen.borrow_mut().insert(format!("{:?}", question.from));
                if question.bytes[13] != b's' {
                    let answer = reply(&question.bytes, 0, &[(1, ttl, &[192, 0, 2, 1])]).expect("an answer");
                    server.send(&mut [question.reply(&answer)]).await.expect("sent");
                }
            }
        }
    });
    ports
}

fn simulate(test: impl Future<Output = ()>) {
    let options = rt::Options { driver: rt::Driver::Sim(1), ..rt::Options::default() };
    rt::Runtime::new(options).expect("a runtime").block_on(test);
}

#[test]
fn slow_names_do_not_hold_up_others() {
    simulate(async {
        let addr = SocketAddr::from(([10, 0, 0, 53], 53));
        let ports = simulated(addr, 0);
        let resolver = Resolver::new(ResolverSpec { servers: vec![addr], ..ResolverSpec::default() });
        for number in 0..1000 {
            let resolver = resolver.clone();
            rt::spawn(async move {
                let found = resolver.resolve(format!("s{number}.test").as_bytes(), 12_000).await;
                assert_eq!(found, Err(ResolveError::TIMED_OUT));
            });
        }
        for _ in 0..15 {
            rt::sleep(1000).await;
            let start = rt::now_ms();
            assert_eq!(look(&resolver, "a.test").await, "192.0.2.1");
            assert!(rt::now_ms() - start < 100);
        }
        assert!(ports.borrow().len() < 6 * ports::MOST_PORTS, "{}", ports.borrow().len());
        rt::sleep(5000).await;
        assert!(resolver.ports.is_empty(), "nobody asks any more");
        ports.borrow_mut().clear();
        for _ in 0..10 {
            look(&resolver, "a.test").await;
        }
        assert_eq!(ports.borrow().len(), 20, "each question has a port of its own");
    });
}

#[test]
fn the_oldest_names_make_room() {
    simulate(async {
        let addr = SocketAddr::from(([10, 0, 0, 53], 53));
        simulated(addr, 86_400);
        let resolver = Resolver::new(ResolverSpec { servers: vec![addr], ipv6: false, ..ResolverSpec::default() });
        let is_kept = |name: &str| {
            let name = Name::parse(name.as_bytes()).expect("a name");
            resolver.kept(&Query { name, wanted: Wanted::Addresses }).is_some()
        };
        for number in 0..MOST_NAMES + 10 {
            look(&resolver, &format!("a{number}.test")).await;
            assert!(is_kept(&format!("a{number}.test")));
            assert!(is_kept("a0.test"), "it is in use");
        }
        assert!(!is_kept("a1.test"));
        let known = resolver.known.borrow();
        assert!(known.young.len() + known.old.len() <= MOST_NAMES);
    });
}

/// A name server of the simulation that says of everything what its number is in, after so many milliseconds.
fn numbered(number: u8, after_ms: u64) {
    let server = rt::sim::bind(SocketAddr::from(([10, 0, 0, number], 53)).into());
    rt::spawn(async move {
        let mut questions = Vec::new();
        while server.recv(&mut questions).await.is_ok() {
            rt::sleep(after_ms).await;
            for question in questions.drain(..) {
                let name = [1, b'h', 1, b'0' + number, 0];
                let service = [&[0, 0, 0, 0, 0, 80][..], &name].concat();
                let records: [(u16, u32, &[u8]); 3] =
                    [(1, 600, &[10, 1, 1, number]), (33, 600, &service), (12, 600, &name)];
                let kind = u16::from(question.bytes[question.bytes.len() - 3]);
                let records: Vec<_> = records.into_iter().filter(|record| record.0 == kind).collect();
                let answer = reply(&question.bytes, 0, &records).expect("an answer");
                server.send(&mut [question.reply(&answer)]).await.expect("sent");
            }
        }
    });
}

#[test]
fn changes_of_the_system_are_followed_by_all() {
    simulate(async {
        numbered(1, 1);
        numbered(2, 1);
        numbered(3, 500);
        let folder = tempfile::TempDir::with_prefix("tidegate-resolver-").expect("a folder");
        let folder = folder.path();
        let (resolv, hosts) = (folder.join("resolv.conf"), folder.join("hosts"));
        let choose = async |number: u8| {
            rt::sleep(system::LOOK_MS).await;
            std::fs::write(&resolv, format!("{}nameserver 10.0.0.{number}\n", "#\n".repeat(number.into())))
                .expect("written");
        };
        std::fs::write(&hosts, "10.9.9.9 H.1\n").expect("written");
        choose(1).await;
        let resolver = Resolver::of(ResolverSpec::default(), Some(System::of(&resolv, &hosts)));
        let service = async || {
            let found = resolver.services(b"_http._tcp.test", 2000).await.expect("a service").0;
            (found[0].0.target.host().expect("a host"), found[0].1[0].to_string())
        };
        let name = async || resolver.name_of([10, 1, 1, 1].into(), 2000).await.expect("a name");
        // A host of a service may stand in /etc/hosts.
        assert_eq!(service().await, ("h.1".to_owned(), "10.9.9.9".to_owned()));
        assert_eq!((name().await.as_str(), look(&resolver, "a.test").await.as_str()), ("h.1", "10.1.1.1"));
        // Whoever sees the change first.
        choose(2).await;
        assert_eq!(service().await, ("h.2".to_owned(), "10.1.1.2".to_owned()));
        assert_eq!((name().await.as_str(), look(&resolver, "a.test").await.as_str()), ("h.2", "10.1.1.2"));
        choose(1).await;
        assert_eq!((name().await.as_str(), look(&resolver, "a.test").await.as_str()), ("h.1", "10.1.1.1"));
        // What a former one says later isn't kept.
        choose(3).await;
        name().await;
        rt::sleep(system::LOOK_MS - 700).await;
        let late = look(&resolver, "b.test");
        let (late, ()) = rt::join(late, async {
            std::fs::write(&resolv, "nameserver 10.0.0.2\n").expect("written");
            rt::sleep(300).await;
            assert_eq!(look(&resolver, "b.test").await, "10.1.1.2");
        })
        .await;
        assert_eq!((late.as_str(), look(&resolver, "b.test").await.as_str()), ("10.1.1.3", "10.1.1.2"));
    });
}
