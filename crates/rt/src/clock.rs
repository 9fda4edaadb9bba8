//! The clocks, read once a turn.

use std::cell::Cell;

/// A time of day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wall {
    /// Seconds since 1970.
    pub secs: i64,
    /// Milliseconds of the second.
    pub msec: u32,
}

/// Both clocks as of the last update.
pub(crate) struct Clock {
    now: Cell<u64>,
    wall: Cell<Wall>,
    source: Source,
}

/// Where the time comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Exact,
    /// Once in so many milliseconds (`timer_resolution`).
    Every(u32),
    /// Set by the sim driver.
    Virtual,
}

impl Clock {
    pub(crate) fn new(source: Source) -> Clock {
        let clock = Clock { now: Cell::new(0), wall: Cell::default(), source };
        if source == Source::Virtual {
            clock.set(1_000);
        }
        clock.update();
        clock
    }

    pub(crate) fn now(&self) -> u64 {
        self.now.get()
    }

    pub(crate) fn wall(&self) -> Wall {
        self.wall.get()
    }

    pub(crate) fn update(&self) {
        let (now, (secs, msec)) = match self.source {
            Source::Exact => (os::clock::monotonic_ms(), os::clock::wall()),
            Source::Every(ms) => {
                let now = os::clock::monotonic_coarse_ms();
                if now < self.now.get() + u64::from(ms) {
                    return;
                }
                (now, os::clock::wall_coarse())
            }
            Source::Virtual => return,
        };
        self.now.set(now);
        self.wall.set(Wall { secs, msec });
    }

    /// Moves virtual time.
    pub(crate) fn set(&self, now: u64) {
        self.now.set(now);
        self.wall.set(Wall { secs: 1_000_000_000 + (now / 1000) as i64, msec: (now % 1000) as u32 });
    }
}
