//! How many datagrams a session has passed, and how many it expects: when a client's next datagram begins another session,
//! when a session is over, and whether its backend owes answers.

/// What `proxy_requests` and `proxy_responses` say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The client's datagrams of one session; 0: any number.
    pub requests: u64,
    /// The backend's datagrams for each of the client's; `None`: any number.
    pub responses: Option<u64>,
}

/// The datagrams of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Those of the client.
    pub requests: u64,
    /// Those of the backend. One that could not be received, because the backend's machine refuses, counts too.
    pub responses: u64,
    /// Those of the client that could not be sent to the backend, which owes nothing for them.
    pub lost: u64,
    /// What is expected.
    pub expected: Expected,
}

impl Tally {
    /// Whether the client's next datagram belongs to another session.
    pub(crate) fn is_full(&self) -> bool {
        self.expected.requests > 0 && self.requests >= self.expected.requests
    }

    /// Whether no answer is owed, nor will be for those that wait.
    fn is_answered(&self) -> bool {
        !self.owes(0)
    }

    /// Whether the backend owes answers; so many of the client's datagrams have been held back from it.
    pub(crate) fn owes(&self, held_back: u64) -> bool {
        let sent = self.requests.saturating_sub(self.lost).saturating_sub(held_back);
        self.expected.responses.is_some_and(|each| self.responses < each.saturating_mul(sent))
    }

    /// Whether nothing more is expected from either side.
    pub(crate) fn is_done(&self) -> bool {
        let all_asked = self.expected.requests == 0 || self.is_full();
        self.expected.responses.is_some() && self.is_answered() && all_asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_end() {
        let check = |expected: (u64, Option<u64>), passed: (u64, u64), expect: [bool; 3]| {
            let expected = Expected { requests: expected.0, responses: expected.1 };
            let tally = Tally { requests: passed.0, responses: passed.1, lost: 0, expected };
            assert_eq!([tally.is_full(), tally.is_answered(), tally.is_done()], expect, "{tally:?}");
        };
        // Without any expectation only time ends a session.
        check((0, None), (5, 5), [false, true, false]);
        check((1, None), (1, 0), [true, true, false]);
        // A question and its answer.
        check((0, Some(1)), (1, 0), [false, false, false]);
        check((0, Some(1)), (1, 1), [false, true, true]);
        check((0, Some(1)), (2, 1), [false, false, false]);
        check((0, Some(2)), (1, 3), [false, true, true]);
        // No answers.
        check((0, Some(0)), (1, 0), [false, true, true]);
        check((2, Some(0)), (1, 0), [false, true, false]);
        check((2, Some(0)), (2, 0), [true, true, true]);
        // Several questions before it is over.
        check((2, Some(1)), (1, 1), [false, true, false]);
        check((2, Some(1)), (2, 1), [true, false, false]);
        check((2, Some(1)), (2, 2), [true, true, true]);
        check((0, Some(u64::MAX)), (2, 2), [false, false, false]);
    }

    #[test]
    fn only_what_was_sent_is_owed() {
        let check = |(requests, responses, lost): (u64, u64, u64), held_back: u64, expect: [bool; 2]| {
            let tally = Tally { requests, responses, lost, expected: Expected { requests: 0, responses: Some(1) } };
            assert_eq!([tally.owes(held_back), tally.is_done()], expect, "{tally:?}, {held_back}");
        };
        check((2, 1, 0), 0, [true, false]);
        check((2, 1, 0), 1, [false, false]);
        check((2, 0, 0), 1, [true, false]);
        check((2, 1, 1), 0, [false, true]);
        check((1, 0, 1), 0, [false, true]);
        check((3, 0, 1), 1, [true, false]);
        check((1, 0, 2), 3, [false, true]);
        let any = Tally { requests: 1, ..Tally::default() };
        assert!(!any.owes(0) && !any.is_done());
    }
}
