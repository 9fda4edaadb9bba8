//! The lock of a zone: it is waited for, and it knows its owner, so that the death of one isn't the end of all.
//!
//! The word holds the owner's identity ([`os::process::identity`]: process id and a stamp of its start) and a bit that
//! says that others sleep. Owner and waiters change in one exchange, so there is no moment at which a process has the
//! lock and isn't known to have it. Who waits for long looks whether the owner lives, and takes the lock over from one
//! that doesn't; the master, who learns of it first, frees the lock at once ([`RawLock::release_dead`]). In both cases
//! the lock says so to the next one who gets it: what it protects may be half-changed.

use std::time::Duration;

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU32, Ordering};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU32, Ordering};

/// Somebody sleeps until the word changes.
const WAITERS: u32 = 1 << 31;
/// How often a taken lock is looked at before sleeping: what is done under it takes less than a microsecond.
#[cfg(not(all(test, loom)))]
const SPINS: u32 = 100;
#[cfg(all(test, loom))]
const SPINS: u32 = 1;
/// How long one sleeps before looking whether the owner lives.
const PATIENCE: Duration = Duration::from_millis(50);

/// As patience: however long it takes.
pub(crate) const FOR_EVER: u32 = u32::MAX;

/// What the lock asks of the system. Tests have another one.
pub(crate) trait System {
    /// Waits while the word has this value; false if the time ran out.
    fn wait(&self, word: &AtomicU32, value: u32, timeout: Duration) -> bool;
    /// Wakes waiters.
    fn wake(&self, word: &AtomicU32, count: u32);
    /// Whether the process has ended.
    fn has_ended(&self, identity: u32) -> bool;
}

/// The lock's two words, in shared memory.
pub(crate) struct RawLock<'a, S> {
    /// The owner and [`WAITERS`].
    pub(crate) state: &'a AtomicU32,
    /// Not 0: an owner has died, and nobody has looked at what it left yet.
    pub(crate) interrupted: &'a AtomicU32,
    pub(crate) system: S,
}

impl<S: System> RawLock<'_, S> {
    /// Takes the lock for the process `me`, which hasn't got it (if the word says otherwise, a process of that identity
    /// died with it). True if what it protects may be half-changed: whoever gets this has to repair it and then call
    /// [`RawLock::repaired`]; should it die over that, the next one will be told the same. `None` if somebody who lives has
    /// kept the lock for `patience` times [`PATIENCE`]: a process that is stopped.
    pub(crate) fn lock(&self, me: u32, patience: u32) -> Option<bool> {
        if !self.spin(me) && !self.wait(me, patience) {
            return None;
        }
        // Written before the word was released, or by us.
        Some(self.interrupted.load(Ordering::Relaxed) != 0)
    }

    /// Who has it.
    #[cfg(not(all(test, loom)))]
    pub(crate) fn owner(&self) -> u32 {
        self.state.load(Ordering::Relaxed) & !WAITERS
    }

    fn spin(&self, me: u32) -> bool {
        for _ in 0..SPINS {
            if self.state.load(Ordering::Relaxed) == 0
                && self.state.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    fn wait(&self, me: u32, mut patience: u32) -> bool {
        loop {
            let seen = self.state.load(Ordering::Relaxed);
            let owner = seen & !WAITERS;
            if owner == 0 || owner == me {
                // Others may sleep beside us, so the mark is set whether it was or not: one wake too many does no harm.
                if self.take(seen, me) {
                    self.note(owner == me);
                    return true;
                }
                continue;
            }
            let marked = owner | WAITERS;
            if seen != marked
                && self.state.compare_exchange(seen, marked, Ordering::Relaxed, Ordering::Relaxed).is_err()
            {
                continue;
            }
            if self.system.wait(self.state, marked, PATIENCE) {
                continue;
            }
            if self.system.has_ended(owner) && self.take(marked, me) {
                self.note(true);
                return true;
            }
            if patience != FOR_EVER {
                patience = patience.saturating_sub(1);
            }
            if patience == 0 {
                return false;
            }
        }
    }

    fn take(&self, seen: u32, me: u32) -> bool {
        self.state.compare_exchange(seen, me | WAITERS, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn note(&self, interrupted: bool) {
        if interrupted {
            self.interrupted.store(1, Ordering::Relaxed);
        }
    }

    /// What the lock protects is whole again. Called by the owner.
    pub(crate) fn repaired(&self) {
        self.interrupted.store(0, Ordering::Relaxed);
    }

    /// Gives the lock back; `whole`: what it protects is.
    pub(crate) fn unlock(&self, whole: bool) {
        self.note(!whole);
        if self.state.swap(0, Ordering::Release) & WAITERS != 0 {
            self.system.wake(self.state, 1);
        }
    }

    /// Frees the lock if the process that `is_dead` recognises, which has ended, had it; whether it had.
    pub(crate) fn release_dead(&self, is_dead: impl Fn(u32) -> bool) -> bool {
        let seen = self.state.load(Ordering::Relaxed);
        let owner = seen & !WAITERS;
        if owner == 0 || !is_dead(owner) {
            return false;
        }
        // First the mark. If a waiter is faster with the lock it looks once too often.
        self.interrupted.store(1, Ordering::Relaxed);
        let mut seen = seen;
        while seen & !WAITERS == owner {
            match self.state.compare_exchange(seen, 0, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => {
                    self.system.wake(self.state, u32::MAX >> 1);
                    return true;
                }
                Err(other) => seen = other,
            }
        }
        false
    }
}

/// The kernel.
#[cfg(not(all(test, loom)))]
#[derive(Clone, Copy)]
pub(crate) struct Kernel;

#[cfg(not(all(test, loom)))]
impl System for Kernel {
    fn wait(&self, word: &AtomicU32, value: u32, timeout: Duration) -> bool {
        os::futex::wait(word, value, timeout)
    }

    fn wake(&self, word: &AtomicU32, count: u32) {
        os::futex::wake(word, count);
    }

    fn has_ended(&self, identity: u32) -> bool {
        os::process::has_ended(identity)
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::AtomicBool;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use super::*;

    /// A zone with its lock, and a kernel whose futexes work by a mutex, as they do.
    struct Model {
        state: AtomicU32,
        interrupted: AtomicU32,
        /// Even: whole. Everybody makes it odd and then even again.
        data: UnsafeCell<u32>,
        bucket: Mutex<()>,
        sleepers: Condvar,
        /// Whether the process 1 has ended.
        ended: AtomicBool,
        /// Whether waiting ends by time rather than by a wake.
        impatient: bool,
    }

    impl System for &Model {
        fn wait(&self, word: &AtomicU32, value: u32, _: Duration) -> bool {
            if self.impatient {
                thread::yield_now();
                return false;
            }
            let guard = self.bucket.lock().expect("nobody panics");
            if word.load(Ordering::Relaxed) == value {
                drop(self.sleepers.wait(guard).expect("nobody panics"));
            }
            true
        }

        fn wake(&self, _: &AtomicU32, count: u32) {
            let _guard = self.bucket.lock().expect("nobody panics");
            if count == 1 {
                self.sleepers.notify_one();
            } else {
                self.sleepers.notify_all();
            }
        }

        fn has_ended(&self, identity: u32) -> bool {
            identity == 1 && self.ended.load(Ordering::Acquire)
        }
    }

    impl Model {
        fn new(impatient: bool) -> Arc<Model> {
            Arc::new(Model {
                state: AtomicU32::new(0),
                interrupted: AtomicU32::new(0),
                data: UnsafeCell::new(0),
                bucket: Mutex::new(()),
                sleepers: Condvar::new(),
                ended: AtomicBool::new(false),
                impatient,
            })
        }

        fn lock(&self) -> RawLock<'_, &Model> {
            RawLock { state: &self.state, interrupted: &self.interrupted, system: self }
        }

        /// Locks, changes, unlocks.
        fn work(&self, me: u32) {
            let lock = self.lock();
            let interrupted = lock.lock(me, FOR_EVER).expect("it waits");
            self.data.with_mut(|data| {
                // SAFETY: loom checks that nobody else is here.
                let data = unsafe { &mut *data };
                assert!(interrupted || data.is_multiple_of(2), "half-changed, and not told");
                *data += *data % 2 + 2;
            });
            if interrupted {
                lock.repaired();
            }
            lock.unlock(true);
        }

        /// Dies in the middle.
        fn die(&self) {
            self.lock().lock(1, FOR_EVER);
            // SAFETY: loom checks that nobody else is here.
            self.data.with_mut(|data| unsafe { *data += 1 });
            self.ended.store(true, Ordering::Release);
        }
    }

    fn check(model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(3));
        builder.check(model);
    }

    #[test]
    fn one_at_a_time_and_nobody_sleeps_for_ever() {
        check(|| {
            let model = Model::new(false);
            let others: Vec<_> = [2, 3]
                .map(|me| {
                    let model = model.clone();
                    thread::spawn(move || model.work(me))
                })
                .into();
            model.work(4);
            others.into_iter().for_each(|other| other.join().expect("no panic"));
            assert_eq!(model.state.load(Ordering::Relaxed), 0);
        });
    }

    #[test]
    fn the_master_frees_what_the_dead_had() {
        check(|| {
            let model = Model::new(false);
            let worker = {
                let model = model.clone();
                thread::spawn(move || model.work(2))
            };
            let dying = {
                let model = model.clone();
                thread::spawn(move || model.die())
            };
            dying.join().expect("no panic");
            model.lock().release_dead(|identity| identity == 1);
            worker.join().expect("no panic");
            assert!(model.state.load(Ordering::Relaxed) == 0);
        });
    }

    #[test]
    fn who_waits_finds_the_dead() {
        check(|| {
            let model = Model::new(true);
            let dying = {
                let model = model.clone();
                thread::spawn(move || model.die())
            };
            model.work(2);
            dying.join().expect("no panic");
            model.work(3);
            assert!(model.interrupted.load(Ordering::Relaxed) == 0);
        });
    }
}
