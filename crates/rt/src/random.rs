//! Random bytes, of which the kernel is asked for many at a time.
//!
//! A loop begins in the process in which it runs, so that no two processes have the same stock.

/// How many the kernel is asked for.
const STOCK: usize = 4 << 10;

/// Bytes that nobody has been given yet.
#[derive(Default)]
pub(crate) struct Stock(Vec<[u8; 16]>);

impl Stock {
    /// 16 of them; they aren't kept.
    pub(crate) fn take(&mut self) -> [u8; 16] {
        if self.0.is_empty() {
            self.0.extend_from_slice(os::random_bytes::<STOCK>().as_chunks().0);
        }
        let last = self.0.last_mut().map(std::mem::take);
        self.0.pop();
        last.unwrap_or_else(os::random_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Stock;

    #[test]
    fn no_bytes_are_given_twice() {
        let mut stock = Stock::default();
        let taken: HashSet<[u8; 16]> = (0..100).map(|_| stock.take()).collect();
        assert_eq!(taken.len(), 100);
        assert!(!taken.contains(&[0; 16]));
    }
}
