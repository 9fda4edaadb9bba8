//! Balancers: which peer is next.

mod hash;
mod least_time;
mod random;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use os::SockAddr;

pub use hash::{Consistent, IpHash, KeyHash};
pub use least_time::LeastTime;
pub use random::Random;

use crate::peer::{Peer, Peers};
use crate::spec::Method;

/// What a balancer may know of a request.
#[derive(Clone, Copy, Default)]
pub struct Hints<'a> {
    /// The client's address.
    pub addr: Option<&'a SockAddr>,
    /// The key of `hash`.
    pub key: &'a [u8],
    /// The route of the peer that its session is bound to; empty for none.
    pub route: &'a [u8],
}

/// A request's progress over the peers of one rank.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    tried: u64,
    more: Option<Box<More>>,
    /// What a balancer keeps between two picks of one request.
    pub hash: u32,
    /// How often a balancer has computed its hash.
    pub rounds: u32,
}

/// The bits of the peers after the first 64, which few groups have: a request's memory isn't to be larger for them.
#[derive(Clone, Debug, Default)]
struct More(Vec<u64>);

impl Progress {
    /// Whether the peer was tried.
    pub fn tried(&self, index: usize) -> bool {
        let word = match index / 64 {
            0 => self.tried,
            n => self.more.as_ref().and_then(|more| more.0.get(n - 1)).copied().unwrap_or(0),
        };
        word & (1 << (index % 64)) != 0
    }

    /// Notes that the peer was tried.
    pub fn mark(&mut self, index: usize) {
        let bit = 1 << (index % 64);
        match index / 64 {
            0 => self.tried |= bit,
            n => {
                let more = &mut self.more.get_or_insert_default().0;
                if more.len() < n {
                    more.resize(n, 0);
                }
                more[n - 1] |= bit;
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
        Method::LeastTime(time) => Box::new(LeastTime(*time)),
        Method::IpHash => Box::new(IpHash),
        Method::Hash { consistent: false } => Box::new(KeyHash),
        Method::Hash { consistent: true } => Box::new(Consistent::new(peers)),
        Method::Random { two } => Box::new(Random { two: *two }),
    }
}

fn usable<'p>(peers: &'p Peers, progress: &Progress, now: u64) -> impl Iterator<Item = (usize, &'p Rc<Peer>)> {
    let all = peers.list.iter().enumerate();
    all.filter(move |(index, peer)| !progress.tried(*index) && peer.is_usable(now))
}

/// The peer that a session is bound to, if it serves now. It counts as this peer's turn, so that others get more of the
/// unbound requests; but a peer never owes more than one turn.
pub(crate) fn bound(peers: &Peers, progress: &mut Progress, route: &[u8], now: u64) -> Option<usize> {
    let untried = peers.list.iter().enumerate().filter(|(index, _)| !progress.tried(*index));
    let mut known = untried.filter(|(_, peer)| peer.route.as_bytes() == route);
    let (index, peer) = known.find(|(_, peer)| peer.serves(now))?;
    if peer.current_weight.get() >= 0 && !peer.drain {
        let total: i64 = usable(peers, progress, now).map(|(_, peer)| grow(peer)).sum();
        peer.current_weight.set(peer.current_weight.get() - total);
    }
    take(peers, progress, index, now)
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

fn smooth<'p>(candidates: impl Iterator<Item = (usize, &'p Rc<Peer>)>) -> Option<usize> {
    let mut total = 0;
    let mut best: Option<(usize, &Rc<Peer>)> = None;
    for (index, peer) in candidates {
        total += grow(peer);
        if best.is_none_or(|(_, best)| peer.current_weight.get() > best.current_weight.get()) {
            best = Some((index, peer));
        }
    }
    let (index, peer) = best?;
    peer.current_weight.set(peer.current_weight.get() - total);
    Some(index)
}

/// Lets a peer's current weight grow, and its weight recover from failures; returns by how much it grew.
fn grow(peer: &Peer) -> i64 {
    let effective = peer.effective_weight.get();
    peer.current_weight.set(peer.current_weight.get() + effective);
    if effective < peer.weight.get() {
        peer.effective_weight.set(effective + 1);
    }
    effective
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
        let chosen = least(peers, progress, now, load)?;
        take(peers, progress, chosen, now)
    }
}

/// Of the peers that are least by `measure` (a number, and the weight that it is divided by) the one whose turn it is.
fn least(peers: &Peers, progress: &Progress, now: u64, measure: impl Fn(&Peer) -> (i64, i64)) -> Option<usize> {
    let mut best: Option<(i64, i64)> = None;
    for (_, peer) in usable(peers, progress, now) {
        let of = measure(peer);
        if best.is_none_or(|best| less(of, best)) {
            best = Some(of);
        }
    }
    let best = best?;
    smooth(usable(peers, progress, now).filter(|(_, peer)| {
        let of = measure(peer);
        !less(best, of) && !less(of, best)
    }))
}

/// Connections and weight.
fn load(peer: &Peer) -> (i64, i64) {
    (i64::from(peer.conns.get()), peer.weight.get())
}

/// Whether one share is less than the other: a number, and the weight that it is divided by.
fn less(a: (i64, i64), b: (i64, i64)) -> bool {
    i128::from(a.0) * i128::from(b.1) < i128::from(b.0) * i128::from(a.1)
}
