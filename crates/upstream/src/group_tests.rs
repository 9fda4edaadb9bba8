//! A request's way through a group.

use super::*;
use crate::ServerSpec;

fn server(port: u16) -> ServerSpec {
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    ServerSpec::new(&addr.to_string(), vec![os::SockAddr::from(addr)])
}

fn group_of(servers: Vec<ServerSpec>) -> Rc<Group> {
    Group::new(&GroupSpec { name: b"group".to_vec(), servers, ..GroupSpec::default() })
}

fn backup(port: u16) -> ServerSpec {
    ServerSpec { backup: true, ..server(port) }
}

/// Runs a test in a loop, whose clock it moves.
fn run(test: impl Future<Output = ()>) {
    let options = rt::Options { driver: rt::Driver::Sim(1), ..rt::Options::default() };
    rt::Runtime::new(options).expect("a runtime").block_on(test);
}

/// The port that is chosen; 0 for none.
fn chosen(choice: &mut Choice, route: &[u8]) -> u16 {
    choice.advance(&Hints { route, ..Hints::default() });
    choice.peer().map_or(0, |peer| peer.addr.port())
}

#[test]
fn a_choice_of_another_process_counts() {
    run(async {
        let group = group_of(vec![server(1), server(2), backup(3)]);
        let counts = |group: &Group| {
            let ranks = group.ranks();
            (ranks.all().map(|peer| peer.conns.get()).collect::<Vec<_>>(), group.active.get())
        };
        let second = Choice::resume(group.clone(), "127.0.0.1:2");
        let backup = Choice::resume(group.clone(), "127.0.0.1:3");
        let gone = Choice::resume(group.clone(), "127.0.0.1:9");
        assert_eq!(counts(&group), (vec![0, 1, 1], 3));
        assert!(gone.peer().is_none() && backup.peer().is_some_and(|peer| &*peer.name == "127.0.0.1:3"));
        drop((second, backup, gone));
        assert_eq!(counts(&group), (vec![0, 0, 0], 0));
    });
}

#[test]
fn sessions_keep_their_peers() {
    run(async {
        let routed = |port, route: &str| ServerSpec { route: Some(route.into()), ..server(port) };
        let servers = vec![
            routed(1, "a"),
            ServerSpec { drain: true, ..routed(2, "b") },
            server(3),
            ServerSpec { backup: true, ..routed(4, "a") },
        ];
        let group = group_of(servers);
        let one = |route: &[u8]| chosen(&mut Choice::new(group.clone(), 0), route);
        assert_eq!([one(b"a"), one(b"b"), one(b"b"), one(b"a")], [1, 2, 2, 1]);
        let digest = crate::peer::digest(b"127.0.0.1:3");
        assert_eq!([one(digest.as_bytes()), one(digest.as_bytes())], [3, 3]);
        let unbound: Vec<u16> = (0..4).map(|_| one(b"x")).collect();
        assert!(!unbound.contains(&2), "it is being drained: {unbound:?}");
        // One that fails leaves its sessions to the others, and to a backup of its route when there is no other.
        let mut choice = Choice::new(group.clone(), 0);
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(chosen(&mut choice, b"a"));
            choice.release(Outcome::Failed);
        }
        assert_eq!(seen, [1, 3, 4, 0]);
    });
}

#[test]
fn a_single_peer_that_is_drained() {
    run(async {
        let group = group_of(vec![ServerSpec { drain: true, route: Some("a".into()), ..server(1) }]);
        let one = |route: &[u8]| chosen(&mut Choice::new(group.clone(), 0), route);
        assert_eq!([one(b"a"), one(b""), one(b"b")], [1, 0, 0]);
    });
}

#[test]
fn weights_grow_back() {
    run(async {
        let group = group_of(vec![ServerSpec { slow_start_ms: 1000, ..server(1) }, server(2)]);
        rt::sleep(10).await;
        group.ranks().primary.list[0].begin_slowly(rt::now_ms());
        let share = || (0..1000).filter(|_| chosen(&mut Choice::new(group.clone(), 0), b"") == 1).count();
        assert_eq!(share(), 0);
        rt::sleep(500).await;
        let half = share();
        assert!((150..350).contains(&half), "{half}");
        rt::sleep(500).await;
        assert_eq!(share(), 500);
        // While it is the only one it gets everything.
        group.ranks().primary.list[0].begin_slowly(rt::now_ms());
        group.ranks().primary.list[1].fails.set(1);
        group.ranks().primary.list[1].checked.set(rt::wall().secs as u64);
        assert_eq!(share(), 1000);
    });
}

#[test]
fn names_become_peers() {
    run(async {
        let lookup = Lookup { name: b"a.test"[..].into(), is_service: false, port: 80, late: false };
        let group = group_of(vec![ServerSpec { addrs: Vec::new(), lookup: Some(lookup.clone()), ..server(80) }]);
        let mut early = Choice::new(group.clone(), 0);
        assert_eq!((early.tries, chosen(&mut early, b"")), (0, 0));
        assert!(group.learn(&lookup.name, vec![Found::address([127, 0, 0, 1].into())]));
        assert_eq!((chosen(&mut early, b""), early.tries), (80, 1));
        early.release(Outcome::Failed);
        // The second attempt of a request that began with other peers.
        let mut late = Choice::new(group.clone(), 0);
        assert_eq!(chosen(&mut late, b""), 80);
        late.tries += 1;
        late.release(Outcome::Failed);
        let two = [2, 3].map(|n| Found::address([127, 0, 0, n].into())).to_vec();
        assert!(group.learn(&lookup.name, two));
        assert_eq!((chosen(&mut late, b""), late.tries), (80, 1));
        assert!(late.peer().is_some_and(|peer| &*peer.name != "127.0.0.1:80"));
    });
}

#[test]
fn requests_wait_for_a_peer() {
    run(async {
        let servers = vec![ServerSpec { max_conns: 1, ..server(1) }];
        let queue = Some(crate::queue::QueueSpec { most: 2, timeout_ms: 1000 });
        let group = Group::new(&GroupSpec { servers, queue, ..GroupSpec::default() });
        let mut first = Choice::new(group.clone(), 0);
        assert_eq!(chosen(&mut first, b""), 1);
        let order = Rc::new(RefCell::new(Vec::new()));
        for (name, hold_ms) in [("a", 100), ("b", 2000), ("no room", 0)] {
            let (group, order) = (group.clone(), order.clone());
            rt::spawn(async move {
                let mut choice = Choice::new(group, 0);
                let found = choice.wait(&Hints::default()).await;
                order.borrow_mut().push((name, found));
                rt::sleep(hold_ms).await;
            });
        }
        rt::sleep(10).await;
        assert_eq!(*order.borrow(), [("no room", false)]);
        assert!(!Choice::new(group.clone(), 0).advance(&Hints::default()));
        drop(first);
        rt::sleep(5).await;
        assert_eq!(order.borrow()[1..], [("a", true)]);
        rt::sleep(110).await;
        assert_eq!(order.borrow()[2..], [("b", true)]);
        // Nobody gives it back in time.
        assert!(!Choice::new(group.clone(), 0).wait(&Hints::default()).await);
        rt::sleep(2000).await;
        assert!(Choice::new(group, 0).advance(&Hints::default()));
    });
}

fn queue_of(servers: Vec<ServerSpec>) -> Rc<Group> {
    let queue = Some(crate::queue::QueueSpec { most: 2, timeout_ms: 1000 });
    Group::new(&GroupSpec { servers, queue, ..GroupSpec::default() })
}

/// Waits in the queue; the port that was found, at last, and the moment.
fn wait(mut choice: Choice) -> Rc<Cell<Option<(u16, u64)>>> {
    let found = Rc::<Cell<_>>::default();
    let tell = found.clone();
    rt::spawn(async move {
        choice.wait(&Hints::default()).await;
        tell.set(Some((choice.peer().map_or(0, |peer| peer.addr.port()), rt::now_ms())));
    });
    found
}

#[test]
fn one_that_needs_another_peer_keeps_nobody_waiting() {
    run(async {
        let group = queue_of(vec![ServerSpec { max_conns: 1, ..server(1) }, server(2)]);
        let away = group.ranks().primary.list[1].clone();
        let now = rt::wall().secs as u64;
        let mut first = Choice::new(group.clone(), 0);
        assert_eq!(chosen(&mut first, b""), 1);
        away.failed(now);
        first.release(Outcome::Neutral);
        assert_eq!(chosen(&mut first, b""), 0);
        let first = wait(first);
        rt::sleep(10).await;
        let mut second = Choice::new(group.clone(), 0);
        assert_eq!(chosen(&mut second, b""), 1, "nobody waits for it");
        let third = wait(Choice::new(group.clone(), 0));
        rt::sleep(10).await;
        assert!(!Choice::new(group.clone(), 0).wait(&Hints::default()).await, "there is room for two");
        drop(second);
        rt::sleep(10).await;
        assert_eq!((first.get(), third.get().map(|(port, _)| port)), (None, Some(1)));
        away.fails.set(0);
        rt::sleep(60).await;
        assert_eq!(first.get().map(|(port, _)| port), Some(2));
    });
}

#[test]
fn one_that_has_asked_all_does_not_wait() {
    run(async {
        let group = queue_of(vec![server(1), backup(2), ServerSpec { down: true, ..server(3) }]);
        let mut choice = Choice::new(group.clone(), 0);
        for port in [1, 2, 0] {
            assert_eq!(chosen(&mut choice, b""), port);
            choice.release(Outcome::Failed);
        }
        let before_ms = rt::now_ms();
        assert!(!choice.wait(&Hints::default()).await && rt::now_ms() == before_ms);
        // An attempt that doesn't count is none: it stands in the line, for any peer.
        let mut other = Choice::new(queue_of(vec![server(1), ServerSpec { down: true, ..server(2) }]), 0);
        assert_eq!(chosen(&mut other, b""), 1);
        other.release(Outcome::Neutral);
        other.forgive();
        assert!(chosen(&mut other, b"") == 0 && other.wait(&Hints::default()).await);
    });
}

#[test]
fn whoever_waits_waits_for_any_rank() {
    run(async {
        let one = |spec| ServerSpec { max_conns: 1, ..spec };
        let group = queue_of(vec![one(server(1)), one(server(2)), one(backup(3))]);
        let mut held: Vec<Choice> = (0..3).map(|_| Choice::new(group.clone(), 0)).collect();
        let ports: Vec<u16> = held.iter_mut().map(|choice| chosen(choice, b"")).collect();
        assert_eq!(ports, [1, 2, 3]);
        let found = wait(Choice::new(group.clone(), 0));
        rt::sleep(60).await;
        held.remove(1);
        rt::sleep(10).await;
        assert_eq!(found.get().map(|(port, _)| port), Some(2));
    });
}

#[test]
fn what_was_asked_counts_among_other_peers() {
    run(async {
        let lookup = Lookup { name: b"a.test"[..].into(), is_service: false, port: 80, late: false };
        let servers = vec![ServerSpec { lookup: Some(lookup.clone()), addrs: Vec::new(), ..server(80) }, server(81)];
        let group = group_of(servers);
        let learn = |last: &[u8]| {
            group.learn(&lookup.name, last.iter().map(|n| Found::address([127, 0, 0, *n].into())).collect());
        };
        learn(&[2, 3]);
        let mut choice = Choice::new(group.clone(), 0);
        let mut seen = Vec::new();
        for names in [&[2, 3][..], &[1, 2, 3], &[1, 2, 3], &[1, 2]] {
            learn(names);
            assert!(choice.advance(&Hints::default()), "{seen:?}");
            seen.extend(choice.peer().map(|peer| peer.name.to_string()));
            choice.release(Outcome::Neutral);
        }
        learn(&[1, 2, 4]);
        assert!(choice.advance(&Hints::default()));
        assert!(choice.peer().is_some_and(|peer| &*peer.name == "127.0.0.4:80"));
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 4, "{seen:?}");
    });
}
