//! Named counters, as `stub_status` shows them.

use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Mapping;
use crate::mapping::Place;

/// Each counter has a cache line of its own, since all workers write to it.
const LINE: usize = 64;

/// A set of counters shared by the processes forked after it was made.
#[derive(Clone, Debug)]
pub struct Counters {
    names: &'static [&'static str],
    mapping: Rc<Mapping>,
}

/// One of them; as small as a reference.
#[derive(Clone, Debug)]
pub struct Counter(Rc<Place<AtomicU64>>);

impl Counters {
    /// Counters of these names, all 0.
    pub fn new(names: &'static [&'static str]) -> io::Result<Counters> {
        Ok(Counters { names, mapping: Mapping::new(names.len() * LINE)? })
    }

    /// The counter of this name, to be kept: looking it up costs.
    ///
    /// # Panics
    /// If there is none.
    pub fn get(&self, name: &str) -> Counter {
        let n = self.names.iter().position(|n| *n == name).expect("counters are asked for by their names");
        Counter(Rc::new(self.mapping.place(n * LINE)))
    }

    /// The names.
    pub fn names(&self) -> &'static [&'static str] {
        self.names
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.names.iter().map(|name| (*name, self.get(name).load()))
    }
}

impl Counter {
    /// Adds `n`; returns the new value.
    pub fn add(&self, n: u64) -> u64 {
        self.0.fetch_add(n, Ordering::Relaxed).wrapping_add(n)
    }

    /// Takes `n` off.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// The value.
    pub fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the value.
    pub fn store(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_across_processes() {
        let counters = Counters::new(&["accepted", "handled"]).expect("a mapping");
        let (accepted, handled) = (counters.get("accepted"), counters.get("handled"));
        assert_eq!((accepted.add(3), handled.add(2)), (3, 2));
        os::process::tests_fork(|| {
            accepted.add(40);
            handled.sub(1);
        });
        assert_eq!(counters.iter().collect::<Vec<_>>(), [("accepted", 43), ("handled", 1)]);
    }
}
