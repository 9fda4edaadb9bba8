//! How much a peer may make us work for nothing.
//!
//! Every frame that serves no request costs points: PING, SETTINGS, an empty DATA, a stream that is opened only to be reset.
//! Whatever serves one gives points back: DATA sent, a response finished; so does time. WINDOW_UPDATEs are free as far as the
//! bytes sent call for them. A peer without points is told ENHANCE_YOUR_CALM. An honest client never comes near, however busy; a flood of any kind, or a mix of
//! them, ends after a bounded amount of work (CVE-2019-9511 to 9518, CVE-2023-44487, CVE-2024-24549, CVE-2025-8671).

use super::error::{ConnectionError, Reason};

/// Points for one frame that only has to be read: PING, an empty DATA, WINDOW_UPDATE beyond those that are free, an unknown
/// frame.
pub const COST_FRAME: u32 = 1;
/// Points for PRIORITY and PRIORITY_UPDATE, after which streams are put in order again.
pub const COST_PRIORITY: u32 = 4;
/// Points for SETTINGS, which touch every stream and ask for an answer.
pub const COST_SETTINGS: u32 = 8;
/// Points for a stream that ends by RST_STREAM, whoever sends it, or is refused: a request was read for nothing.
pub const COST_RESET: u32 = 8;
/// Points for RST_STREAM of a stream that is over: a response was made for nothing. They are more than were given back for
/// it, so that a flood of them ends; a client that leaves a page may send as many as it may have streams.
pub const COST_LATE_RESET: u32 = 14;
const _: () = assert!(COST_LATE_RESET > GAIN_RESPONSE + GAIN_DATA);
/// Points given back for a DATA frame sent: the peer may answer it with two WINDOW_UPDATEs, however short it is.
pub const GAIN_DATA: u32 = 2;
/// For so many bytes of DATA sent the peer has one WINDOW_UPDATE free, beside those points: clients open two windows after each
/// read, and some read 4 KiB at a time. These pay for nothing else: points for bytes would pay for resets too.
const BYTES_PER_UPDATE: u32 = 1024;
/// As many free WINDOW_UPDATEs are kept as 64 MiB under way call for.
const MAX_FREE_UPDATES: u32 = 64 << 10;
/// Points given back for a finished response.
pub const GAIN_RESPONSE: u32 = 8;

/// The points of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    points: u32,
    /// How many WINDOW_UPDATEs cost nothing.
    free_updates: u32,
    /// When points were last given for time, in milliseconds.
    refilled_ms: u64,
}

impl Budget {
    pub(super) fn new(points: u32) -> Budget {
        Budget { points, free_updates: 0, refilled_ms: 0 }
    }

    /// Takes points; the connection ends when there are too few.
    #[inline]
    pub(super) fn take(&mut self, points: u32) -> Result<(), ConnectionError> {
        self.points = self.points.checked_sub(points).ok_or(Reason::Flood)?;
        Ok(())
    }

    /// Takes what a WINDOW_UPDATE costs.
    #[inline]
    pub(super) fn take_update(&mut self) -> Result<(), ConnectionError> {
        match self.free_updates.checked_sub(1) {
            Some(left) => {
                self.free_updates = left;
                Ok(())
            }
            None => self.take(COST_FRAME),
        }
    }

    /// Gives what a DATA of this length gives that was sent.
    #[inline]
    pub(super) fn give_for_data(&mut self, length: u32, most: u32) {
        self.give(GAIN_DATA, most);
        self.free_updates = (self.free_updates + length / BYTES_PER_UPDATE).min(MAX_FREE_UPDATES);
    }

    /// Gives points back, up to `most`.
    #[inline]
    pub(super) fn give(&mut self, points: u32, most: u32) {
        self.points = self.points.saturating_add(points).min(most);
    }

    /// Gives what time gives: `per_second` points.
    pub(super) fn refill(&mut self, now_ms: u64, per_second: u32, most: u32) {
        let elapsed = now_ms.saturating_sub(self.refilled_ms);
        let points = elapsed.saturating_mul(u64::from(per_second)) / 1000;
        if points > 0 {
            self.refilled_ms = now_ms;
            self.give(u32::try_from(points).unwrap_or(u32::MAX), most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pay_for_updates_only() {
        let mut budget = Budget::new(10);
        budget.give_for_data(8192, 10);
        (0..8).for_each(|_| assert!(budget.take_update().is_ok()));
        assert!(budget.take(10).is_ok());
        assert_eq!(budget.take_update().unwrap_err().reason, Reason::Flood);
        (0..20_000).for_each(|_| budget.give_for_data(16_384, 10));
        assert_eq!((budget.points, budget.free_updates), (10, MAX_FREE_UPDATES));
    }

    #[test]
    fn is_spent_and_refilled() {
        let mut budget = Budget::new(10);
        assert!(budget.take(8).is_ok());
        assert!(budget.take(2).is_ok());
        assert_eq!(budget.take(1).unwrap_err().reason, Reason::Flood);
        budget.refill(9, 100, 10);
        assert!(budget.take(1).is_err());
        budget.refill(30, 100, 10);
        assert!(budget.take(3).is_ok());
        assert!(budget.take(1).is_err());
        budget.refill(u64::MAX, 100, 10);
        assert!(budget.take(10).is_ok());
        assert!(budget.take(1).is_err());
    }
}
