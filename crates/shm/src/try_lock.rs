//! A lock that is only ever tried.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Mapping;
use crate::mapping::Place;

/// A lock between processes that is only ever tried, never waited for, such as `accept_mutex`'s.
///
/// It holds its owner's process id, so a process that dies with it can be told from one that works: who reaps it calls
/// [`TryLock::release_dead`].
#[derive(Clone, Debug)]
pub struct TryLock(Place<AtomicU32>);

impl TryLock {
    /// A free lock, shared by the processes forked after it was made.
    pub fn new() -> io::Result<TryLock> {
        Ok(TryLock(Mapping::new(64)?.place(0)))
    }

    /// Takes the lock for process `pid` if it is free or that process has it already.
    pub fn try_lock(&self, pid: i32) -> bool {
        let pid = pid as u32;
        // A failed look is much cheaper than a failed exchange when many processes try.
        match self.0.load(Ordering::Relaxed) {
            0 => self.0.compare_exchange(0, pid, Ordering::Acquire, Ordering::Relaxed).is_ok(),
            owner => owner == pid,
        }
    }

    /// Gives the lock back; nothing happens if `pid` doesn't have it.
    pub fn unlock(&self, pid: i32) -> bool {
        self.0.compare_exchange(pid as u32, 0, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Frees the lock if the process `pid`, which has ended, had it; whether it had.
    pub fn release_dead(&self, pid: i32) -> bool {
        self.unlock(pid)
    }

    /// Who has it.
    pub fn owner(&self) -> Option<i32> {
        let owner = self.0.load(Ordering::Relaxed);
        (owner != 0).then_some(owner as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_one_owner() {
        let lock = TryLock::new().expect("a mapping");
        assert!(lock.try_lock(1) && lock.try_lock(1) && !lock.try_lock(2));
        assert!(!lock.unlock(2) && lock.unlock(1) && !lock.unlock(1));
        assert!(lock.try_lock(2));
        assert_eq!(lock.owner(), Some(2));
    }

    #[test]
    fn a_dead_owner_is_released() {
        let lock = TryLock::new().expect("a mapping");
        let child = os::process::tests_fork(|| assert!(lock.try_lock(os::process::pid())));
        assert!(!lock.try_lock(1) && !lock.release_dead(1) && lock.release_dead(child) && lock.try_lock(1));
    }
}
