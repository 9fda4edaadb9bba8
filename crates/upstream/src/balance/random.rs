//! Balancers that choose by chance.

use super::hash::{MAX_ROUNDS, by_weight};
use super::least_time::score;
use super::{Balancer, Hints, Progress, RoundRobin, less, load, take};
use crate::peer::{Peer, Peers};
use crate::spec::Measure;

/// By chance, by weight.
pub struct Random {
    /// Two are chosen so, and compared by this.
    pub two: Option<Measure>,
}

impl Random {
    fn is_better(measure: Measure, peer: &Peer, other: &Peer, now: u64) -> bool {
        match measure {
            Measure::Connections => less(load(peer), load(other)),
            Measure::Time(time) => less(score(peer, time, now), score(other, time, now)),
        }
    }
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
            let Some(measure) = self.two else { return take(peers, progress, index, now) };
            let Some(other) = first.and_then(|at| peers.list.get(at)) else {
                first = Some(index);
                continue;
            };
            let better = Random::is_better(measure, peer, other, now);
            return take(peers, progress, if better { index } else { first? }, now);
        }
        match first {
            Some(index) => take(peers, progress, index, now),
            None => RoundRobin.pick(peers, progress, hints, now),
        }
    }
}
