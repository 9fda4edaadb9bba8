//! Named counters, as `stub_status` shows them.
//!
//! A table has a row for each process that counts: counting is an addition to memory that nobody else writes, without a
//! lock and without waiting for another processor's cache. Who reads adds the rows up. A process without a row, as the
//! one that made the table, counts in a common one.

use std::cell::{Cell, OnceCell};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Mapping;
use crate::mapping::Place;

/// Rows begin at cache lines of their own.
const LINE: usize = 64;
/// The most rows; only those that are used take memory. A process that finds none free counts in the common one.
const ROWS: usize = 1024;
const WORD: usize = size_of::<u64>();

/// The names of a table's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// Those that only grow: what a process has counted stays when it ends.
    pub totals: &'static [&'static str],
    /// How many there are of something now: what a process has counted ends with it.
    pub gauges: &'static [&'static str],
}

impl Names {
    fn iter(self) -> impl Iterator<Item = &'static str> {
        self.totals.iter().chain(self.gauges).copied()
    }
}

/// A set of counters shared by the processes forked after it was made.
#[derive(Clone, Debug)]
pub struct Counters {
    names: Names,
    table: Rc<Table>,
}

/// The first row is the common one, and its first word the number of rows that have been used. In the other rows this is the
/// process that the row is of, or 0. The counters follow.
#[derive(Debug)]
struct Table {
    mapping: Rc<Mapping>,
    /// The bytes of a row.
    row: usize,
    /// Where this process counts.
    own: Cell<usize>,
}

/// One of them; as small as a reference.
#[derive(Clone, Debug)]
pub struct Counter(Rc<Column>);

#[derive(Debug)]
struct Column {
    table: Rc<Table>,
    /// Its place in a row.
    at: usize,
    /// The same in the row of this process, once it has counted there.
    own: OnceCell<Place<AtomicU64>>,
}

impl Counters {
    /// Counters of these names, all 0.
    pub fn new(names: Names) -> io::Result<Counters> {
        let row = ((1 + names.iter().count()) * WORD).next_multiple_of(LINE);
        let table = Table { mapping: Mapping::new(ROWS * row)?, row, own: Cell::new(0) };
        table.word(0).store(1, Ordering::Relaxed);
        Ok(Counters { names, table: Rc::new(table) })
    }

    /// The counter of this name, to be kept: looking it up costs.
    ///
    /// # Panics
    /// If there is none.
    pub fn get(&self, name: &str) -> Counter {
        let n = self.names.iter().position(|n| n == name).expect("counters are asked for by their names");
        Counter(Rc::new(Column { table: self.table.clone(), at: (1 + n) * WORD, own: OnceCell::new() }))
    }

    /// The names.
    pub fn names(&self) -> Names {
        self.names
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.names.iter().map(|name| (name, self.get(name).load()))
    }

    /// Gives this process a row of its own, if it has none yet. Its parent takes that back by [`Counters::release_dead`]; a
    /// process that has one doesn't fork others that count.
    pub fn claim(&self) {
        if self.table.own.get() != 0 {
            return;
        }
        let own = os::process::pid() as u64;
        let free = |row: &usize| {
            let owner = self.table.word(row * self.table.row);
            owner.compare_exchange(0, own, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        if let Some(row) = (1..ROWS).find(free) {
            self.table.word(0).fetch_max(row as u64 + 1, Ordering::AcqRel);
            self.table.own.set(row * self.table.row);
        }
    }

    /// Lets another process have the row of the child `pid`, which has ended: it has nothing any more.
    pub fn release_dead(&self, pid: i32) {
        let first_gauge = (1 + self.names.totals.len()) * WORD;
        for row in self.table.rows().skip(1) {
            let owner = self.table.word(row);
            if owner.load(Ordering::Acquire) == pid as u64 {
                for gauge in 0..self.names.gauges.len() {
                    self.table.word(row + first_gauge + gauge * WORD).store(0, Ordering::Relaxed);
                }
                owner.store(0, Ordering::Release);
            }
        }
    }
}

impl Table {
    fn word(&self, offset: usize) -> &AtomicU64 {
        self.mapping.at(offset)
    }

    /// Where the rows begin that have been used.
    fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        let used = self.word(0).load(Ordering::Acquire) as usize;
        (0..used.min(ROWS)).map(|row| row * self.row)
    }
}

impl Column {
    #[cold]
    fn find_own(&self) -> Option<&Place<AtomicU64>> {
        let own = self.table.own.get();
        (own > 0).then(|| self.own.get_or_init(|| self.table.mapping.place(own + self.at)))
    }
}

impl Counter {
    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        let own = self.0.own.get().or_else(|| self.0.find_own());
        match own {
            // Nobody else writes to it.
            Some(word) => word.store(word.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed),
            None => _ = self.0.table.word(self.0.at).fetch_add(n, Ordering::Relaxed),
        }
    }

    /// Takes `n` off.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.add(n.wrapping_neg());
    }

    /// The next number, beginning with 1, which no other process gets.
    pub fn next(&self) -> u64 {
        self.0.table.word(self.0.at).fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// The value: the sum of what all processes have counted.
    pub fn load(&self) -> u64 {
        let Column { table, at, .. } = &*self.0;
        let sum = table.rows().fold(0u64, |sum, row| sum.wrapping_add(table.word(row + at).load(Ordering::Relaxed)));
        // What moved from one process to another while they were read may be missing in both.
        if sum > i64::MAX as u64 { 0 } else { sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names = Names { totals: &["accepted", "handled"], gauges: &["active"] };

    fn values(counters: &Counters) -> Vec<u64> {
        counters.iter().map(|(_, value)| value).collect()
    }

    #[test]
    fn count_across_processes() {
        let counters = Counters::new(NAMES).expect("a mapping");
        let [accepted, handled, active] = ["accepted", "handled", "active"].map(|name| counters.get(name));
        accepted.add(3);
        handled.add(2);
        for _ in 0..3 {
            os::process::tests_fork(|| {
                counters.claim();
                counters.claim();
                accepted.add(40);
                active.add(5);
                // A connection that the common row has counted.
                handled.sub(1);
                handled.add(1);
            });
        }
        assert_eq!(values(&counters), [123, 2, 15]);
        assert_eq!(counters.table.rows().count(), 4, "each has had a row");
    }

    #[test]
    fn what_a_process_had_ends_with_it() {
        let counters = Counters::new(NAMES).expect("a mapping");
        let (accepted, active) = (counters.get("accepted"), counters.get("active"));
        active.add(2);
        for _ in 0..3 {
            os::process::tests_fork(|| {
                counters.claim();
                accepted.add(1);
                active.add(7);
            });
            let owner = counters.table.word(counters.table.row).load(Ordering::Relaxed);
            counters.release_dead(1);
            assert_eq!(active.load(), 9, "another process has ended");
            counters.release_dead(owner as i32);
            assert_eq!(active.load(), 2);
        }
        assert_eq!((accepted.load(), counters.table.rows().count()), (3, 2), "the row was used again");
    }

    #[test]
    fn what_is_on_its_way_is_no_huge_number() {
        let active = Counters::new(NAMES).expect("a mapping").get("active");
        active.sub(1);
        assert_eq!(active.load(), 0);
        active.add(3);
        assert_eq!(active.load(), 2);
    }

    #[test]
    fn who_finds_no_row_counts_too() {
        let counters = Counters::new(NAMES).expect("a mapping");
        (1..ROWS).for_each(|row| counters.table.word(row * counters.table.row).store(1, Ordering::Relaxed));
        counters.claim();
        let active = counters.get("active");
        active.add(1);
        assert_eq!((counters.table.own.get(), active.load()), (0, 1));
    }
}
