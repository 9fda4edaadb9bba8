//! Deadlines: a heap of 64-bit keys.
//!
//! A key is the deadline in milliseconds (40 bits) and what it belongs to (24 bits). Keys are never searched: one that no
//! longer stands for anything is recognised when it comes up. A connection has one key at most, however often its
//! deadline moves: the deadline is a number in its slot, and when the key comes up too early it is put back later. If
//! dead keys become many, the heap is swept.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use crate::core::{self, Core};
use crate::tasks::NONE;

const INDEX_BITS: u32 = 24;
const SLEEP: u32 = 1 << (INDEX_BITS - 1);

/// What a deadline belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Slot(u32),
    Sleep(u32),
}

/// The heap, and the sleeping futures.
#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<u64>>,
    sleeps: slab::Slab<Sleeping>,
    dead: usize,
}

struct Sleeping {
    deadline: u64,
    task: u32,
    done: bool,
}

impl Timers {
    /// Room for `capacity` keys is reserved, but touched only as they come.
    pub(crate) fn new(capacity: usize) -> Timers {
        Timers { heap: BinaryHeap::with_capacity(capacity.min(1 << 20) + 16), ..Timers::default() }
    }

    pub(crate) fn push(&mut self, deadline: u64, owner: Owner) {
        let index = match owner {
            Owner::Slot(n) => n,
            Owner::Sleep(n) => n | SLEEP,
        };
        self.heap.push(Reverse(deadline << INDEX_BITS | u64::from(index)));
    }

    /// When the first key comes up.
    pub(crate) fn next(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(key)| key >> INDEX_BITS)
    }

    /// Takes out a key that has come up by `now`.
    pub(crate) fn pop(&mut self, now: u64) -> Option<(u64, Owner)> {
        let Reverse(key) = *self.heap.peek()?;
        if key >> INDEX_BITS > now {
            return None;
        }
        self.heap.pop();
        Some(split(key))
    }

    /// Counts a key as dead; true if it is time to [`Timers::sweep`].
    pub(crate) fn died(&mut self) -> bool {
        self.dead += 1;
        self.dead > 1024 && self.dead > self.heap.len() / 2
    }

    /// Throws out all keys that `alive` doesn't know.
    pub(crate) fn sweep(&mut self, alive: impl Fn(u64, u32) -> bool) {
        self.dead = 0;
        let sleeps = &self.sleeps;
        self.heap.retain(|Reverse(key)| match split(*key) {
            (deadline, Owner::Slot(n)) => alive(deadline, n),
            (deadline, Owner::Sleep(n)) => sleeps.get(n as usize).is_some_and(|s| s.deadline == deadline),
        });
    }

    /// The tasks that wait for a point in time.
    pub(crate) fn sleepers(&self) -> impl Iterator<Item = u32> {
        self.sleeps.iter().filter(|(_, sleeping)| !sleeping.done).map(|(_, sleeping)| sleeping.task)
    }

    /// Ends a sleep; the task to wake.
    pub(crate) fn end_sleep(&mut self, n: u32, deadline: u64) -> Option<u32> {
        let sleep = self.sleeps.get_mut(n as usize)?;
        if sleep.deadline != deadline {
            return None;
        }
        sleep.done = true;
        Some(sleep.task)
    }
}

fn split(key: u64) -> (u64, Owner) {
    let index = key as u32 & ((1 << INDEX_BITS) - 1);
    let owner = if index & SLEEP == 0 { Owner::Slot(index) } else { Owner::Sleep(index & !SLEEP) };
    (key >> INDEX_BITS, owner)
}

/// A deadline of a connection: the low half of the milliseconds, never 0, which stands for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tick(u32);

impl Tick {
    pub(crate) const NONE: Tick = Tick(0);

    /// `ms` from now; at most 24 days.
    pub(crate) fn after(now: u64, ms: u64) -> Tick {
        Tick::at(now + ms.min(i32::MAX as u64))
    }

    pub(crate) fn at(deadline: u64) -> Tick {
        Tick((deadline as u32).max(1))
    }

    pub(crate) fn is_some(self) -> bool {
        self.0 != 0
    }

    pub(crate) fn is_before(self, other: Tick) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// Whether the deadline is there and over.
    pub(crate) fn passed(self, now: u64) -> bool {
        self.is_some() && (self.0.wrapping_sub(now as u32) as i32) <= 0
    }

    /// The whole number of milliseconds.
    pub(crate) fn expand(self, now: u64) -> u64 {
        now.saturating_add_signed(i64::from(self.0.wrapping_sub(now as u32) as i32))
    }

    /// The earlier of two deadlines, either of which may be missing.
    pub(crate) fn earlier(self, other: Tick) -> Tick {
        if !self.is_some() || (other.is_some() && other.is_before(self)) { other } else { self }
    }
}

/// Waits `ms` milliseconds.
pub fn sleep(ms: u64) -> Sleep {
    sleep_until(core::current().clock.now().saturating_add(ms))
}

/// Waits until [`crate::now_ms`] reaches `deadline`.
pub fn sleep_until(deadline: u64) -> Sleep {
    Sleep { deadline, entry: NONE, core: core::current() }
}

/// Waits for a future, `ms` milliseconds at most; `None`: the time is over.
pub async fn timeout<F: Future>(ms: u64, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut end = pin!(sleep(ms));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => end.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// A future that waits for a point in time.
pub struct Sleep {
    deadline: u64,
    entry: u32,
    core: &'static Core,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let timers: &RefCell<Timers> = &self.core.timers;
        let task = self.core.tasks.running();
        if self.entry != NONE {
            let mut timers = timers.borrow_mut();
            let Some(sleeping) = timers.sleeps.get_mut(self.entry as usize) else { return Poll::Ready(()) };
            sleeping.task = task;
            return if sleeping.done { Poll::Ready(()) } else { Poll::Pending };
        }
        if self.deadline <= self.core.clock.now() {
            return Poll::Ready(());
        }
        let mut timers = timers.borrow_mut();
        let entry = timers.sleeps.insert(Sleeping { deadline: self.deadline, task, done: false }) as u32;
        timers.push(self.deadline, Owner::Sleep(entry));
        drop(timers);
        self.entry = entry;
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if self.entry == NONE {
            return;
        }
        let mut timers = self.core.timers.borrow_mut();
        let ended = timers.sleeps.try_remove(self.entry as usize).is_some_and(|s| s.done);
        if !ended && timers.died() {
            drop(timers);
            self.core.sweep_timers();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_up_in_order() {
        let mut timers = Timers::default();
        for (at, owner) in [(30, Owner::Slot(1)), (10, Owner::Sleep(2)), (20, Owner::Slot(3))] {
            timers.push(at, owner);
        }
        assert_eq!(timers.next(), Some(10));
        assert_eq!(timers.pop(9), None);
        assert_eq!(timers.pop(25), Some((10, Owner::Sleep(2))));
        assert_eq!(timers.pop(25), Some((20, Owner::Slot(3))));
        assert_eq!(timers.pop(25), None);
    }

    #[test]
    fn ticks_wrap() {
        let now = u64::from(u32::MAX) - 5;
        let soon = Tick::after(now, 10);
        assert!(soon.is_some() && !soon.passed(now) && !soon.passed(now + 9) && soon.passed(now + 10));
        assert_eq!(soon.expand(now), now + 10);
        assert!(Tick::after(now, 3).is_before(soon));
        assert_eq!(soon.earlier(Tick::NONE), soon);
        assert_eq!(Tick::NONE.earlier(soon), soon);
        assert_eq!(soon.earlier(Tick::after(now, 3)), Tick::after(now, 3));
    }

    #[test]
    fn dead_keys_are_swept() {
        let mut timers = Timers::default();
        (0..4000).for_each(|n| timers.push(n, Owner::Slot(n as u32)));
        let swept = (0..4000).any(|_| timers.died());
        assert!(swept);
        timers.sweep(|deadline, _| deadline >= 3990);
        assert_eq!((timers.heap.len(), timers.next()), (10, Some(3990)));
    }
}
