//! Balancers: which peer is next.

use os::SockAddr;

use crate::peer::{Peer, Peers};
use crate::spec::Method;

/// What a balancer may know of a request.
#[derive(Clone, Copy, Default)]
pub struct Hints<'a> {
    /// The client's address.
    pub addr: Option<&'a SockAddr>,
    /// The key of `hash`.
    pub key: &'a [u8],
}

/// A request's progress over the peers of one rank.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    tried: u64,
    more: Vec<u64>,
    /// What a balancer keeps between two picks of one request.
    pub hash: u32,
    /// How often a balancer has computed its hash.
    pub rounds: u32,
}

impl Progress {
    /// Whether the peer was tried.
    pub fn tried(&self, index: usize) -> bool {
        let word = match index / 64 {
            0 => self.tried,
            n => self.more.get(n - 1).copied().unwrap_or(0),
        };
        word & (1 << (index % 64)) != 0
    }

    /// Notes that the peer was tried.
    pub fn mark(&mut self, index: usize) {
        let bit = 1 << (index % 64);
        match index / 64 {
            0 => self.tried |= bit,
            n => {
                if self.more.len() < n {
                    self.more.resize(n, 0);
                }
                self.more[n - 1] |= bit;
            }
        }
    }
}

/// Chooses peers.
pub trait Balancer {
    /// The next peer among those not tried yet; it is marked as tried. `now` is in seconds.
    fn pick(&self, peers: &Peers, progress: &mut Progress, hints: &Hints<'_>, now: u64) -> Option<usize>;
}

/// The balancer of a method for these peers.
pub fn of(method: &Method, peers: &Peers) -> Box<dyn Balancer> {
    match method {
        Method::RoundRobin => Box::new(RoundRobin),
        Method::LeastConn => Box::new(LeastConn),
        Method::IpHash => Box::new(IpHash),
        Method::Hash { consistent: false } => Box::new(KeyHash),
        Method::Hash { consistent: true } => Box::new(Consistent::new(peers)),
        Method::Random { two } => Box::new(Random { two: *two }),
    }
}

fn usable<'p>(peers: &'p Peers, progress: &Progress, now: u64) -> impl Iterator<Item = (usize, &'p Peer)> {
    let all = peers.list.iter().enumerate();
    all.filter(move |(index, peer)| !progress.tried(*index) && peer.is_usable(now))
}

/// Smooth weighted round robin: each peer's current weight grows by its own weight, the greatest is chosen and pays the
/// sum; so a peer of weight 5 among others isn't chosen five times in a row.
pub struct RoundRobin;

impl Balancer for RoundRobin {
    fn pick(&self, peers: &Peers, progress: &mut Progress, _: &Hints<'_>, now: u64) -> Option<usize> {
        let chosen = smooth(usable(peers, progress, now))?;
        take(peers, progress, chosen, now)
    }
}

fn smooth<'p>(candidates: impl Iterator<Item = (usize, &'p Peer)>) -> Option<usize> {
    let mut total = 0;
    let mut best: Option<(usize, &Peer)> = None;
    for (index, peer) in candidates {
        let effective = peer.effective_weight.get();
        peer.current_weight.set(peer.current_weight.get() + effective);
        total += effective;
        if effective < peer.weight {
            peer.effective_weight.set(effective + 1);
        }
        if best.is_none_or(|(_, best)| peer.current_weight.get() > best.current_weight.get()) {
            best = Some((index, peer));
        }
    }
    let (index, peer) = best?;
    peer.current_weight.set(peer.current_weight.get() - total);
    Some(index)
}

fn take(peers: &Peers, progress: &mut Progress, index: usize, now: u64) -> Option<usize> {
    progress.mark(index);
    peers.list.get(index)?.chosen(now);
    Some(index)
}

/// The peer with the fewest connections for its weight; round robin among equals.
pub struct LeastConn;

impl Balancer for LeastConn {
    fn pick(&self, peers: &Peers, progress: &mut Progress, _: &Hints<'_>, now: u64) -> Option<usize> {
        let load = |peer: &Peer| (i64::from(peer.conns.get()), peer.weight);
        let less = |a: (i64, i64), b: (i64, i64)| a.0 * b.1 < b.0 * a.1;
        let mut best: Option<(i64, i64)> = None;
        for (_, peer) in usable(peers, progress, now) {
            if best.is_none_or(|best| less(load(peer), best)) {
                best = Some(load(peer));
            }
        }
        let best = best?;
        let equal = |peer: &Peer| !less(best, load(peer)) && !less(load(peer), best);
        let chosen = smooth(usable(peers, progress, now).filter(|(_, peer)| equal(peer)))?;
        take(peers, progress, chosen, now)
    }
}

/// After this many hashes that led to unusable peers a hash balancer goes round robin.
const MAX_ROUNDS: u32 = 20;

/// The peer in whose share of the weights `at` lies.
fn by_weight(peers: &Peers, at: u32) -> usize {
    let mut left = i64::from(at) % peers.total_weight.max(1);
    for (index, peer) in peers.list.iter().enumerate() {
        left -= peer.weight;
        if left < 0 {
            return index;
        }
    }
    0
}

/// By the client's address: the first three bytes of IPv4, all of IPv6.
pub struct IpHash;

impl Balancer for IpHash {
    fn pick(&self, peers: &Peers, progress: &mut Progress, hints: &Hints<'_>, now: u64) -> Option<usize> {
        let binary = match hints.addr {
            Some(addr) if !addr.is_unix() => addr.binary(),
            _ => vec![0; 3],
        };
        let bytes = if binary.len() == 4 { &binary[..3] } else { &binary[..] };
        if progress.rounds == 0 {
            progress.hash = 89;
        }
        while progress.rounds < MAX_ROUNDS {
            progress.rounds += 1;
            for byte in bytes {
                progress.hash = (progress.hash * 113 + u32::from(*byte)) % 6271;
            }
            let index = by_weight(peers, progress.hash);
            if !progress.tried(index) && peers.list.get(index).is_some_and(|peer| peer.is_usable(now)) {
                return take(peers, progress, index, now);
            }
        }
        RoundRobin.pick(peers, progress, hints, now)
    }
}

/// By a key: its CRC-32, compatible with Cache::Memcached.
pub struct KeyHash;

impl Balancer for KeyHash {
    fn pick(&self, peers: &Peers, progress: &mut Progress, hints: &Hints<'_>, now: u64) -> Option<usize> {
        if hints.key.is_empty() {
            return RoundRobin.pick(peers, progress, hints, now);
        }
        while progress.rounds <= MAX_ROUNDS {
            let mut crc = crc32fast::Hasher::new();
            if progress.rounds > 0 {
                crc.update(progress.rounds.to_string().as_bytes());
            }
            crc.update(hints.key);
            progress.rounds += 1;
            progress.hash = progress.hash.wrapping_add((crc.finalize() >> 16) & 0x7fff);
            let index = by_weight(peers, progress.hash);
            if !progress.tried(index) && peers.list.get(index).is_some_and(|peer| peer.is_usable(now)) {
                return take(peers, progress, index, now);
            }
        }
        RoundRobin.pick(peers, progress, hints, now)
    }
}

/// By a key, on a circle of points (ketama, as Cache::Memcached::Fast has it): when a server comes or goes, only its own
/// share of the keys moves.
pub struct Consistent {
    /// Hashes in order, each with a server's name.
    points: Vec<(u32, std::rc::Rc<str>)>,
}

/// Points of a server for each unit of its weight.
const POINTS: i64 = 160;

impl Consistent {
    /// The circle of these peers.
    pub fn new(peers: &Peers) -> Consistent {
        let mut points = Vec::new();
        for peer in &peers.list {
            let name = peer.server.as_bytes();
            let (host, port) = match name.iter().rposition(|b| *b == b':') {
                Some(at) if !name.starts_with(b"unix:") && name.last() != Some(&b']') => {
                    (name.get(..at).unwrap_or_default(), name.get(at + 1..).unwrap_or_default())
                }
                _ => (name, &b""[..]),
            };
            let mut base = crc32fast::Hasher::new();
            base.update(host);
            base.update(&[0]);
            base.update(port);
            let mut previous = 0_u32;
            for _ in 0..peer.weight * POINTS {
                let mut hasher = base.clone();
                hasher.update(&previous.to_le_bytes());
                previous = hasher.finalize();
                points.push((previous, peer.server.clone()));
            }
        }
        points.sort_by_key(|point| point.0);
        points.dedup_by_key(|point| point.0);
        Consistent { points }
    }
}

impl Balancer for Consistent {
    fn pick(&self, peers: &Peers, progress: &mut Progress, hints: &Hints<'_>, now: u64) -> Option<usize> {
        if hints.key.is_empty() {
            return RoundRobin.pick(peers, progress, hints, now);
        }
        if progress.rounds == 0 {
            let hash = crc32fast::hash(hints.key);
            progress.hash = self.points.partition_point(|point| point.0 < hash) as u32;
        }
        while progress.rounds <= MAX_ROUNDS {
            let at = progress.hash as usize % self.points.len().max(1);
            let (_, server) = self.points.get(at)?;
            let chosen = smooth(usable(peers, progress, now).filter(|(_, peer)| peer.server == *server));
            progress.rounds += 1;
            if let Some(index) = chosen {
                return take(peers, progress, index, now);
            }
            progress.hash = progress.hash.wrapping_add(1);
        }
        RoundRobin.pick(peers, progress, hints, now)
    }
}

/// By chance, by weight.
pub struct Random {
    /// Of two chosen so, the one with fewer connections.
    pub two: bool,
}

impl Balancer for Random {
    fn pick(&self, peers: &Peers, progress: &mut Progress, hints: &Hints<'_>, now: u64) -> Option<usize> {
        let mut first: Option<usize> = None;
        for round in 0..MAX_ROUNDS {
            let bytes = rt::random_bytes();
            let (chunk, _) = bytes.split_first_chunk::<4>()?;
            let index = by_weight(peers, u32::from_le_bytes(*chunk) >> (round % 2));
            let Some(peer) = peers.list.get(index) else { continue };
            if progress.tried(index) || !peer.is_usable(now) || first == Some(index) {
                continue;
            }
            let Some(other) = first.and_then(|at| peers.list.get(at)) else {
                if !self.two {
                    return take(peers, progress, index, now);
                }
                first = Some(index);
                continue;
            };
            let lighter = i64::from(peer.conns.get()) * other.weight < i64::from(other.conns.get()) * peer.weight;
            return take(peers, progress, if lighter { index } else { first? }, now);
        }
        match first {
            Some(index) => take(peers, progress, index, now),
            None => RoundRobin.pick(peers, progress, hints, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ServerSpec;

    fn peers(weights: &[u32]) -> Peers {
        let servers: Vec<ServerSpec> = weights
            .iter()
            .enumerate()
            .map(|(n, weight)| {
                let addr = SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], 8000 + n as u16)));
                ServerSpec { weight: *weight, ..ServerSpec::new("x", vec![addr]) }
            })
            .collect();
        Peers::new(servers.iter())
    }

    fn picks(balancer: &dyn Balancer, peers: &Peers, hints: &Hints<'_>, n: usize) -> String {
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
            (&IpHash as &dyn Balancer, Hints { addr: Some(&addr), key: b"" }),
            (&KeyHash, Hints { addr: None, key: b"/index.html" }),
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
        peers.list[0].succeeded();
        assert_eq!(peers.list[0].fails.get(), 0);
    }
}
