//! Futexes: waiting for a word in shared memory to change.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::thread::futex::{Flags, Timespec, wait as futex_wait, wake as futex_wake};

/// Waits, while the word has the value `expected`, to be woken by [`wake`], for `timeout` at most. False: the time ran
/// out. It may come back early for no reason.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Duration) -> bool {
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    futex_wait(word, Flags::empty(), expected, Some(&timeout)) != Err(rustix::io::Errno::TIMEDOUT)
}

/// Wakes up to `count` of those who wait for the word, in whatever process.
pub fn wake(word: &AtomicU32, count: u32) {
    let _ = futex_wake(word, Flags::empty(), count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_a_change() {
        let word = AtomicU32::new(1);
        assert!(wait(&word, 0, Duration::from_secs(60)), "another value: no wait");
        assert!(!wait(&word, 1, Duration::from_millis(5)), "the time runs out");
        wake(&word, 1);
    }
}
