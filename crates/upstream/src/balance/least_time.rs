//! `least_time`: the peer that answers soonest.

use super::{Balancer, Hints, Progress, least, take};
use crate::peer::{Peer, Peers};
use crate::spec::Time;

/// The peer with the shortest average time of its responses and the fewest connections, for its weight; round robin
/// among equals.
pub struct LeastTime(pub Time);

/// Times that differ by less than this are equal.
const STEP_MS: u64 = 20;
/// A peer that isn't asked forgets no further than to a share of 2 to this power.
const MOST_HALVINGS: u64 = 40;

impl Balancer for LeastTime {
    fn pick(&self, peers: &Peers, progress: &mut Progress, _: &Hints<'_>, now: u64) -> Option<usize> {
        let chosen = least(peers, progress, now, |peer| score(peer, self.0, now))?;
        take(peers, progress, chosen, now)
    }
}

/// What is compared: the time for all its connections and one more, and the weight.
pub(super) fn score(peer: &Peer, time: Time, now: u64) -> (i64, i64) {
    let conns = i64::from(peer.conns.get());
    let steps = expected_ms(peer, time.inflight, now) / STEP_MS + 1;
    ((conns + 1).saturating_mul(steps as i64), peer.weight.get())
}

/// The average of its times. It is halved in each `fail_timeout` without a request, so that a peer that was slow once
/// gets another request in the end.
fn expected_ms(peer: &Peer, inflight: bool, now: u64) -> u64 {
    let idle = now.saturating_sub(peer.asked.get());
    let halvings = (idle / peer.fail_timeout.saturating_add(1)).min(MOST_HALVINGS);
    let average = peer.average.get() >> 8 >> halvings;
    if !inflight {
        return average;
    }
    // Requests that take longer than the average already count as responses that took so long.
    let conns = u64::from(peer.conns.get());
    let elapsed = (conns * rt::now_ms()).saturating_sub(peer.begun_ms.get());
    average + elapsed.saturating_sub(conns * average) / 20
}

#[cfg(test)]
mod tests {
    use super::super::tests::{peers, picks};
    use super::*;
    use crate::spec::Moment;

    const HEADER: Time = Time { moment: Moment::FirstByte, inflight: false };

    #[test]
    fn the_fastest_for_its_connections_and_weight() {
        // Held connections to two servers, as nginx 1.31.5 spreads them: (average of a, of b; who is chosen).
        for (averages, expect) in [
            ([41, 101], "abaaababaaab"),
            ([11, 31], "aababaaababaaa"),
            ([51, 301], "aaaaabaaaaabaa"),
            ([0, 301], "aaaaaaaaaaaaaa"),
        ] {
            let peers = peers(&[1, 1]);
            for (peer, ms) in peers.list.iter().zip(averages) {
                peer.took(ms);
            }
            // The second has been chosen because the first was slow: of equal ones it is next.
            let turn = i64::from(averages[0] >= STEP_MS);
            peers.list[0].current_weight.set(-turn);
            peers.list[1].current_weight.set(turn);
            let mut seen = String::new();
            for _ in 0..expect.len() {
                let index = LeastTime(HEADER).pick(&peers, &mut Progress::default(), &Hints::default(), 1);
                let index = index.expect("one is usable");
                peers.list[index].begin(0);
                seen.push((b'a' + index as u8) as char);
            }
            assert_eq!(seen, expect, "{averages:?}");
        }
    }

    #[test]
    fn averages_move_by_a_twentieth() {
        // After how many slow responses the other server is chosen, as nginx 1.31.5 does.
        for (first, other, later, expect) in
            [(41, 101, 401, 4), (41, 201, 401, 12), (41, 301, 401, 25), (201, 301, 401, 14)]
        {
            let peers = peers(&[1, 1]);
            peers.list[0].took(first);
            peers.list[1].took(other);
            // Among equals it is the other's turn.
            peers.list[1].current_weight.set(1);
            let mut n = 0;
            while picks(&LeastTime(HEADER), &peers, &Hints::default(), 1) == "a" {
                peers.list[0].took(later);
                n += 1;
            }
            assert_eq!(n, expect, "{first} {other} {later}");
        }
    }

    #[test]
    fn slowness_is_forgotten() {
        let peers = peers(&[1]);
        let peer = &peers.list[0];
        peer.chosen(100);
        peer.took(400);
        for (now, expect) in [(100, 400), (110, 400), (111, 200), (122, 100), (1000, 0)] {
            assert_eq!(expected_ms(peer, false, now), expect, "{now}");
        }
    }
}
