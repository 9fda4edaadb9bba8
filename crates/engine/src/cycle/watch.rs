//! Files that may change while a configuration is in force: certificates that are renewed.
//!
//! Workers aren't allowed to read all of them, keys above all. So the master looks, takes what has changed into its own
//! memory, and starts workers from that, as on a reload; but nothing is read of the configuration itself, which somebody may
//! be editing. A single process needs no more than the look.

use std::rc::Weak;
use std::time::{Duration, Instant};

use crate::cycle::Cycle;

/// When the master looks next, and what has come of it.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    next: Option<Instant>,
    /// Workers have what was before.
    stale: bool,
    /// They couldn't be replaced.
    owed: bool,
}

impl Watch {
    /// For a cycle that comes into force.
    pub(crate) fn new(cycle: &Cycle) -> Watch {
        Watch { next: next(cycle).map(|wait| Instant::now() + wait), stale: false, owed: false }
    }

    /// The time of the next look.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Looks, if it is time to.
    pub(crate) fn look(&mut self, cycle: &Cycle) {
        if self.next.is_some_and(|next| Instant::now() >= next) {
            self.stale |= look(cycle) | std::mem::take(&mut self.owed);
            self.next = next(cycle).map(|wait| Instant::now() + wait);
        }
    }

    /// Workers couldn't be replaced: that is tried again after the next look.
    pub(crate) fn put_off(&mut self) {
        self.owed = true;
    }

    /// Whether workers are to be replaced; asked by who does that.
    pub(crate) fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.stale)
    }
}

/// Looks again and again, in a process that serves by itself, as long as the cycle is there.
pub(crate) async fn keep_looking(cycle: Weak<Cycle>) {
    loop {
        let Some(wait) = cycle.upgrade().and_then(|cycle| next(&cycle)) else { return };
        rt::sleep(wait.as_millis() as u64).await;
        let Some(cycle) = cycle.upgrade() else { return };
        look(&cycle);
    }
}

fn next(cycle: &Cycle) -> Option<Duration> {
    cycle.apps.iter().filter_map(|app| app.looks_in_ms()).min().map(Duration::from_millis)
}

fn look(cycle: &Cycle) -> bool {
    // Each of them, whatever the others say.
    cycle.apps.iter().filter(|app| app.look()).count() > 0
}
