//! Balancers, pick by pick.

use std::rc::Rc;

use os::SockAddr;

use super::*;
use crate::peer::Position;
use crate::spec::ServerSpec;

pub(super) fn peers(weights: &[u32]) -> Peers {
    let peer = |(n, weight): (usize, &u32)| {
        let addr = SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], 8000 + n as u16)));
        let server = ServerSpec::new("x", vec![addr.clone()]);
        Rc::new(Peer::new(n, Position::default(), &server, &addr, *weight, None, &Rc::default()))
    };
    Peers::new(weights.iter().enumerate().map(peer).collect())
}

pub(super) fn picks(balancer: &dyn Balancer, peers: &Peers, hints: &Hints<'_>, n: usize) -> String {
    let pick = |_| balancer.pick(peers, &mut Progress::default(), hints, 1);
    (0..n).map(|n| pick(n).map_or('-', |index| (b'a' + index as u8) as char)).collect()
}

#[test]
fn weights_are_spread_smoothly() {
    assert_eq!(picks(&RoundRobin, &peers(&[5, 1, 1]), &Hints::default(), 14), "aabacaaaabacaa");
    assert_eq!(picks(&RoundRobin, &peers(&[1, 1]), &Hints::default(), 4), "abab");
}

#[test]
fn tried_peers_are_left_out() {
    let peers = peers(&[1; 70]);
    let mut progress = Progress::default();
    let mut seen = Vec::new();
    while let Some(index) = RoundRobin.pick(&peers, &mut progress, &Hints::default(), 1) {
        seen.push(index);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..70).collect::<Vec<_>>());
}

#[test]
fn fewest_connections() {
    let peers = peers(&[1, 2, 1]);
    for (conns, expect) in [([1, 1, 1], "b"), ([0, 0, 0], "b"), ([1, 3, 1], "a"), ([2, 4, 1], "c")] {
        for (peer, conns) in peers.list.iter().zip(conns) {
            peer.conns.set(conns);
            peer.current_weight.set(0);
        }
        assert_eq!(picks(&LeastConn, &peers, &Hints::default(), 1), expect, "{conns:?}");
    }
}

#[test]
fn a_key_keeps_its_peer() {
    let peers = peers(&[1, 1, 1]);
    let addr = SockAddr::from(std::net::SocketAddr::from(([10, 1, 2, 3], 5)));
    for (balancer, hints) in [
        (&IpHash as &dyn Balancer, Hints { addr: Some(&addr), key: b"", route: b"" }),
        (&KeyHash, Hints { addr: None, key: b"/index.html", route: b"" }),
    ] {
        let seen = picks(balancer, &peers, &hints, 5);
        assert!(seen.bytes().all(|byte| byte == seen.as_bytes()[0]), "{seen}");
    }
}

#[test]
fn failures_make_unavailable_for_a_time() {
    let peers = peers(&[1, 1]);
    assert!(peers.list[0].failed(100), "max_fails is 1");
    assert_eq!(peers.list[0].effective_weight.get(), 0);
    for (now, expect) in [(105, "b"), (110, "b"), (111, "a")] {
        let pick = RoundRobin.pick(&peers, &mut Progress::default(), &Hints::default(), now);
        let _ = pick;
        assert_eq!(peers.list[0].is_usable(now), expect == "a", "{now}");
    }
    peers.list[0].chosen(111);
    peers.list[0].succeeded(111_000);
    assert_eq!(peers.list[0].fails.get(), 0);
}

#[test]
fn bound_sessions_count_as_turns() {
    // As nginx 1.31.5 with `sticky route` over weights of 1, 1 and 3.
    let peers = peers(&[1, 1, 3]);
    let bind = |index: usize| {
        let route = peers.list[index].route.clone();
        for _ in 0..5 {
            assert_eq!(bound(&peers, &mut Progress::default(), route.as_bytes(), 1), Some(index));
        }
    };
    let next = |n| picks(&RoundRobin, &peers, &Hints::default(), n);
    assert_eq!(next(10), "cacbccacbc");
    bind(1);
    assert_eq!(next(15), "ccaccacbccacbcc");
    bind(2);
    assert_eq!(next(15), "acbccacbccacbcc");
}

/// Whom nginx 1.31.5 asks for `key0`, `key1` and so on.
#[test]
fn keys_lead_where_nginx_has_them() {
    let server = |name: &str, weight: u32| {
        let addr = crate::Url::parse(name.as_bytes(), false).expect("an address").resolve(80).expect("no name");
        ServerSpec { weight: Some(weight), ..ServerSpec::new(name, addr) }
    };
    let peers = |servers: Vec<ServerSpec>| {
        let spec = crate::GroupSpec { servers, ..crate::GroupSpec::default() };
        crate::roster::Plan::new(&spec, &Rc::default()).ranks(None).primary
    };
    let weights = [1, 2, 1, 3].iter().zip(1..);
    let weighted = peers(weights.map(|(weight, port)| server(&format!("127.0.0.1:{port}"), *weight)).collect());
    let named = ["127.0.0.1:80", "unix:/tmp/gx.none", "127.0.0.2", "[::1]:81"].map(|name| server(name, 1));
    let named = peers(named.to_vec());
    let pick = |balancer: &dyn Balancer, peers: &Peers, n: u32| {
        let ip = [127, (n * 37 % 251) as u8, (n * 91 % 253) as u8, 1 + n as u8];
        let (addr, key) = (SockAddr::from(std::net::SocketAddr::from((ip, 1))), format!("key{n}"));
        picks(balancer, peers, &Hints { addr: Some(&addr), key: key.as_bytes(), route: b"" }, 1)
    };
    for (balancer, peers, expect) in [
        (
            &KeyHash as &dyn Balancer,
            &weighted,
            "abccbddcddadcdbddadcabdadbbcbdabdacdddbddddddddbdbdbbdbbbdacbcdadcdaddaadbabdddbabdbadaadaddbccadccbabaccbbbdbcddabddcdd",
        ),
        (
            &Consistent::new(&weighted),
            &weighted,
            "dddbdddddcbcdddbdbdaddadbdbacbbaaddbcbbdababccbaabddabbbccaddccadddddcdbdddbabbbdbddadbbcbbccdbdbbbdbdddddddddbadddbcbbc",
        ),
        (
            &Consistent::new(&named),
            &named,
            "baadccabcddadbccdaaaadcbbbcbddbccabccdbdcadddbcdcaacbbacccdababcaacaadbcbaabccccccaabcccbbacbbabdbadabbbadadbcabacbacbaa",
        ),
        (
            &IpHash,
            &weighted,
            "bdabdabacdacdadbddbdddabdabdcdbcdbdbddbdddacdacdcdbddbdcdacdacbcdbcddabdabdcdbbdbbbddbddbabdabdcdbcdbcbdabdabacdacdaabda",
        ),
    ] {
        assert_eq!((0..120).map(|n| pick(balancer, peers, n)).collect::<String>(), expect);
    }
}

#[test]
fn a_circle_has_not_too_many_points() {
    let of = |weights: &[u32]| Consistent::new(&peers(weights)).points();
    assert_eq!(of(&[3]), 480);
    assert!((1_000_000..1_100_000).contains(&of(&[65_535])));
}
