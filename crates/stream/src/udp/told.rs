//! Lines of the error log that anybody can cause with a datagram: at most one a second of each kind, with the number of
//! datagrams that it stands for.

use std::cell::Cell;

/// What has happened, and when the log was told of it last.
#[derive(Default)]
pub(super) struct Told {
    untold: Cell<u64>,
    at_ms: Cell<Option<u64>>,
}

impl Told {
    /// Counts one more: how many the log is to be told of now, if it is to be told.
    pub(super) fn count(&self, now_ms: u64) -> Option<u64> {
        self.untold.set(self.untold.get() + 1);
        if self.at_ms.get().is_some_and(|told| now_ms < told + TELL_MS) {
            return None;
        }
        self.at_ms.set(Some(now_ms));
        Some(self.untold.take())
    }
}

/// How often the log is told.
const TELL_MS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_once_a_second_of_all() {
        let told = Told::default();
        assert_eq!(told.count(5000), Some(1));
        assert!((5000..6000).all(|now| told.count(now).is_none()));
        assert_eq!((told.count(6000), told.count(6000), told.count(9000)), (Some(1001), None, Some(2)));
    }
}
