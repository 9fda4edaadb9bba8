//! The decision whether a request goes to another peer.

/// How an attempt failed: one bit each, as `…_next_upstream` names them.
pub mod failure {
    /// Connecting, sending or reading the head failed.
    pub const ERROR: u32 = 1 << 1;
    /// The same took too long.
    pub const TIMEOUT: u32 = 1 << 2;
    /// The response was empty or invalid.
    pub const INVALID_HEADER: u32 = 1 << 3;
    /// Status 500.
    pub const HTTP_500: u32 = 1 << 4;
    /// Status 502.
    pub const HTTP_502: u32 = 1 << 5;
    /// Status 503.
    pub const HTTP_503: u32 = 1 << 6;
    /// Status 504.
    pub const HTTP_504: u32 = 1 << 7;
    /// Status 403.
    pub const HTTP_403: u32 = 1 << 8;
    /// Status 404.
    pub const HTTP_404: u32 = 1 << 9;
    /// Status 429.
    pub const HTTP_429: u32 = 1 << 10;
    /// The request must not be repeated, and was sent.
    pub const NON_IDEMPOTENT: u32 = 1 << 11;
    /// Nobody could be asked.
    pub const NO_LIVE: u32 = 1 << 12;
    /// The configuration forbids the server.
    pub const DENIED: u32 = 1 << 13;
    /// `off`: nothing leads to another peer, whatever else is listed.
    pub const OFF: u32 = 1 << 31;
    /// The default.
    pub const DEFAULT: u32 = ERROR | TIMEOUT;

    /// The kinds that a list names: none, if `off` is among them.
    pub const fn listed(list: u32) -> u32 {
        if list & OFF == 0 { list } else { 0 }
    }
}

use failure::*;

/// The words of `…_next_upstream` for servers that may be gateways themselves.
pub const WORDS: &[(&str, u32)] = &[
    ("http_502", HTTP_502),
    ("http_504", HTTP_504),
    ("error", ERROR),
    ("timeout", TIMEOUT),
    ("denied", DENIED),
    ("invalid_header", INVALID_HEADER),
    ("non_idempotent", NON_IDEMPOTENT),
    ("http_500", HTTP_500),
    ("http_503", HTTP_503),
    ("http_403", HTTP_403),
    ("http_404", HTTP_404),
    ("http_429", HTTP_429),
    ("off", OFF),
    // Of no effect here.
    ("updating", 0),
];

/// The words for applications: the others without those of gateways.
pub const CGI_WORDS: &[(&str, u32)] = WORDS.split_at(2).1;

/// The words for gRPC, which has no cache.
pub const GRPC_WORDS: &[(&str, u32)] = WORDS.split_at(WORDS.len() - 1).0;

/// The words for tunnels.
pub const TUNNEL_WORDS: &[(&str, u32)] = &[("error", ERROR), ("timeout", TIMEOUT), ("denied", DENIED), ("off", OFF)];

/// The words for memcached.
pub const MEMCACHED_WORDS: &[(&str, u32)] = &[
    ("error", ERROR),
    ("timeout", TIMEOUT),
    ("denied", DENIED),
    ("invalid_response", INVALID_HEADER),
    ("not_found", HTTP_404),
    ("off", OFF),
];

/// What is known when an attempt has failed.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// The failure.
    pub kind: u32,
    /// What the configuration allows.
    pub allowed: u32,
    /// Attempts that are left.
    pub tries: u32,
    /// Whether any byte of the request was sent.
    pub sent: bool,
    /// Whether the method may not be repeated (POST, LOCK, PATCH).
    pub non_idempotent: bool,
    /// Whether the body was passed on without being kept.
    pub body_lost: bool,
    /// Whether the time for attempts is over.
    pub late: bool,
}

impl Question {
    /// Whether the next peer is asked.
    pub fn again(&self) -> bool {
        let kind = if self.sent && self.non_idempotent { self.kind | NON_IDEMPOTENT } else { self.kind };
        self.tries > 0 && kind & listed(self.allowed) == kind && !(self.sent && self.body_lost) && !self.late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let has = |words: &[(&str, u32)], word| words.iter().any(|(name, _)| *name == word);
        for (word, expect) in [
            ("http_502", [true, true, false, false]),
            ("http_504", [true, true, false, false]),
            ("http_500", [true, true, true, false]),
            ("updating", [true, false, true, false]),
            ("invalid_header", [true, true, true, false]),
            ("invalid_response", [false, false, false, true]),
            ("not_found", [false, false, false, true]),
            ("off", [true, true, true, true]),
        ] {
            assert_eq!([WORDS, GRPC_WORDS, CGI_WORDS, MEMCACHED_WORDS].map(|words| has(words, word)), expect, "{word}");
        }
    }

    #[test]
    fn decisions() {
        let base = Question {
            kind: ERROR,
            allowed: DEFAULT,
            tries: 1,
            sent: true,
            non_idempotent: false,
            body_lost: false,
            late: false,
        };
        for (question, expect) in [
            (base, true),
            (Question { tries: 0, ..base }, false),
            (Question { kind: HTTP_500, ..base }, false),
            (Question { kind: HTTP_500, allowed: DEFAULT | HTTP_500, ..base }, true),
            (Question { non_idempotent: true, ..base }, false),
            (Question { non_idempotent: true, sent: false, ..base }, true),
            (Question { non_idempotent: true, allowed: DEFAULT | NON_IDEMPOTENT, ..base }, true),
            (Question { body_lost: true, ..base }, false),
            (Question { late: true, ..base }, false),
            (Question { allowed: OFF, ..base }, false),
            (Question { allowed: DEFAULT | OFF, ..base }, false),
        ] {
            assert_eq!(question.again(), expect, "{question:?}");
        }
    }
}
