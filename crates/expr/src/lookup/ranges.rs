//! Values of address ranges: the networks of `geo` and `access`, flattened into disjoint ranges at start-up.
//!
//! A search is one binary search, however the networks nest.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, Ipv6Addr};

/// An address as a number: `u32` for IPv4, `u128` for IPv6.
pub trait Address: Copy + Ord {
    /// The lowest address.
    const LOWEST: Self;

    /// How many bits an address has.
    const BITS: u8;

    /// The address after this one, if there is one.
    fn next(self) -> Option<Self>;

    /// The first and the last address of a network. Bits of `self` below the prefix don't count, prefixes longer than
    /// an address count as whole.
    fn network(self, prefix: u8) -> (Self, Self);
}

macro_rules! address {
    ($int:ty) => {
        impl Address for $int {
            const LOWEST: $int = 0;
            const BITS: u8 = <$int>::BITS as u8;

            fn next(self) -> Option<$int> {
                self.checked_add(1)
            }

            fn network(self, prefix: u8) -> ($int, $int) {
                let host = <$int>::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
                (self & !host, self | host)
            }
        }
    };
}

address!(u32);
address!(u128);

/// Disjoint ranges of addresses with values.
#[derive(Clone, Debug)]
pub struct Ranges<K, T> {
    /// Where a range begins; it ends before the next.
    starts: Box<[K]>,
    /// For each range an index into `values`, or [`NONE`].
    which: Box<[u32]>,
    values: Box<[T]>,
}

const NONE: u32 = u32::MAX;

impl<K: Address, T> Ranges<K, T> {
    /// From ranges (first and last address, both included) of which a later one covers an earlier one, as with the
    /// `ranges` of `geo`. A range that ends before it starts is left out.
    pub fn later_wins(rules: Vec<(K, K, T)>) -> Ranges<K, T> {
        let spans: Vec<(K, K)> = rules.iter().map(|(first, last, _)| (*first, *last)).collect();
        let (starts, which) = flatten(&spans);
        Ranges { starts, which, values: rules.into_iter().map(|(_, _, value)| value).collect() }
    }

    /// From ranges of which an earlier one covers a later one, as with the rules of `access`.
    pub fn earlier_wins(mut rules: Vec<(K, K, T)>) -> Ranges<K, T> {
        rules.reverse();
        Ranges::later_wins(rules)
    }

    /// The value of the range that holds `address`.
    pub fn lookup(&self, address: K) -> Option<&T> {
        let behind = self.starts.partition_point(|start| *start <= address);
        let which = *self.which.get(behind.checked_sub(1)?)?;
        self.values.get(which as usize)
    }

    /// How many ranges there are, those without a value included.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether no address has a value.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }
}

impl<T> Ranges<u32, T> {
    /// The value for an IPv4 address.
    pub fn lookup_ip(&self, address: Ipv4Addr) -> Option<&T> {
        self.lookup(address.to_bits())
    }
}

impl<T> Ranges<u128, T> {
    /// The value for an IPv6 address.
    pub fn lookup_ip(&self, address: Ipv6Addr) -> Option<&T> {
        self.lookup(address.to_bits())
    }
}

/// Starts of disjoint ranges, each with the highest of the spans that cover it.
fn flatten<K: Address>(spans: &[(K, K)]) -> (Box<[K]>, Box<[u32]>) {
    let mut by_start: Vec<u32> = (0..spans.len() as u32).filter(|i| span(spans, *i).is_some()).collect();
    by_start.sort_by_key(|i| span(spans, *i).map(|s| s.0));
    let mut edges: Vec<K> = Vec::with_capacity(2 * by_start.len());
    for (first, last) in by_start.iter().filter_map(|i| span(spans, *i)) {
        edges.push(first);
        edges.extend(last.next());
    }
    edges.sort_unstable();
    edges.dedup();

    let (mut starts, mut which) = (Vec::new(), Vec::new());
    let mut waiting = by_start.into_iter().peekable();
    let mut open: BinaryHeap<(u32, Reverse<K>)> = BinaryHeap::new();
    for edge in edges {
        while let Some(i) = waiting.next_if(|i| span(spans, *i).is_some_and(|s| s.0 <= edge)) {
            open.extend(span(spans, i).map(|s| (i, Reverse(s.1))));
        }
        while open.peek().is_some_and(|top| top.1.0 < edge) {
            open.pop();
        }
        let top = open.peek().map_or(NONE, |top| top.0);
        if which.last() != Some(&top) {
            starts.push(edge);
            which.push(top);
        }
    }
    (starts.into(), which.into())
}

fn span<K: Address>(spans: &[(K, K)], index: u32) -> Option<(K, K)> {
    spans.get(index as usize).copied().filter(|(first, last)| first <= last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn everything_and_nothing() {
        let all = Ranges::later_wins(vec![(0u128, u128::MAX, 1), (1, 1, 2)]);
        assert_eq!(all.lookup_ip(Ipv6Addr::LOCALHOST), Some(&2));
        assert_eq!(all.lookup(u128::MAX), Some(&1));
        let none: Ranges<u32, ()> = Ranges::later_wins(vec![(2, 1, ())]);
        assert!(none.is_empty() && none.lookup(1).is_none());
    }

    proptest! {
        #[test]
        fn as_a_walk_over_the_rules(rules in proptest::collection::vec((0u32..40, 0u32..40), 0..20), address in 0u32..42) {
            let rules: Vec<_> = rules.into_iter().enumerate().map(|(i, (a, b))| (a, b, i)).collect();
            let holds = |rule: &&(u32, u32, usize)| rule.0 <= address && address <= rule.1;
            let last = rules.iter().rev().find(holds).map(|rule| rule.2);
            let first = rules.iter().find(holds).map(|rule| rule.2);
            prop_assert_eq!(Ranges::later_wins(rules.clone()).lookup(address).copied(), last);
            prop_assert_eq!(Ranges::earlier_wins(rules.clone()).lookup(address).copied(), first);
        }
    }
}
