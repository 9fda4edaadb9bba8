//! Balancers that compute a peer from an address or a key.

use std::rc::Rc;

use super::{Balancer, Hints, Progress, RoundRobin, smooth, take, usable};
use crate::peer::Peers;

/// After this many hashes that led to unusable peers a hash balancer goes round robin.
pub(super) const MAX_ROUNDS: u32 = 20;

/// The peer in whose share of the weights `at` lies.
pub(super) fn by_weight(peers: &Peers, at: u32) -> usize {
    let mut left = i64::from(at) % peers.total_weight.max(1);
    for (index, peer) in peers.list.iter().enumerate() {
        left -= peer.weight.get();
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
    points: Vec<(u32, Rc<str>)>,
}

/// Points of a server for each unit of its weight.
const POINTS: i64 = 160;
/// About so many points a circle has at most. Weights may be those of service records, which name servers choose.
const MOST_POINTS: i64 = 1 << 20;

impl Consistent {
    /// The circle of these peers.
    pub fn new(peers: &Peers) -> Consistent {
        let mut points = Vec::new();
        let most_weight = peers.total_weight.min(MOST_POINTS / POINTS);
        for peer in &peers.list {
            // As a key, a unix socket is its path.
            let name = peer.server.as_bytes();
            let is_unix = name.starts_with(b"unix:");
            let name = name.strip_prefix(b"unix:").unwrap_or(name);
            let (host, port) = match name.iter().rposition(|b| *b == b':') {
                Some(at) if !is_unix && name.last() != Some(&b']') => {
                    (name.get(..at).unwrap_or_default(), name.get(at + 1..).unwrap_or_default())
                }
                _ => (name, &b""[..]),
            };
            let mut base = crc32fast::Hasher::new();
            base.update(host);
            base.update(&[0]);
            base.update(port);
            let mut previous = 0_u32;
            let share = i128::from(peer.weight.get() * POINTS) * i128::from(most_weight);
            let count = share / i128::from(peers.total_weight.max(1));
            for _ in 0..count.max(1) {
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

    /// How many points the circle has.
    #[cfg(test)]
    pub(super) fn points(&self) -> usize {
        self.points.len()
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
