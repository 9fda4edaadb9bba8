//! What happened to requests, counted exactly.

use std::collections::BTreeMap;
use std::time::Duration;

/// How many losses are kept with their story.
const STORIES: usize = 40;

/// The kinds of connections that a load keeps busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One request, one connection.
    New,
    /// The same over the unix socket.
    Unix,
    /// Many requests for files on one connection.
    KeepAlive,
    /// Many requests on one connection, answered by the backend.
    Proxied,
    /// Head and body dribbled, a long answer read slowly.
    Slow,
    /// Numbered frames, echoed by the backend through the proxy.
    WebSocket,
}

impl Kind {
    /// All of them, as they stand in tables.
    pub const ALL: [Kind; 6] = [Kind::New, Kind::Unix, Kind::KeepAlive, Kind::Proxied, Kind::Slow, Kind::WebSocket];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::New => "new",
            Kind::Unix => "new, unix",
            Kind::KeepAlive => "keep-alive",
            Kind::Proxied => "proxied",
            Kind::Slow => "slow",
            Kind::WebSocket => "WebSocket",
        }
    }
}

/// How a request, or a tunnel, is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// No connection came about.
    Refused,
    /// The connection was reset, in the answer or before it.
    Reset,
    /// The answer, or the tunnel, ended early.
    Truncated,
    /// Another status, another length, other bytes.
    Wrong,
    /// Nothing came for long.
    TimedOut,
    /// The request was sent, and the connection closed without a byte of an answer. On a connection used before, a reset
    /// at this point counts here too: it is the race of a server that closes while the client writes.
    Unanswered,
}

impl Loss {
    /// All of them, as they stand in tables.
    pub const ALL: [Loss; 6] =
        [Loss::Refused, Loss::Reset, Loss::Truncated, Loss::Wrong, Loss::TimedOut, Loss::Unanswered];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Loss::Refused => "refused",
            Loss::Reset => "reset",
            Loss::Truncated => "truncated",
            Loss::Wrong => "wrong",
            Loss::TimedOut => "timed out",
            Loss::Unanswered => "unanswered",
        }
    }
}

/// The counts of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answers (for WebSockets: echoes) that came whole and right.
    pub ok: u64,
    /// Connections that the server closed while they were idle. HTTP allows it, and the client has lost nothing.
    pub closed_idle: u64,
    losses: BTreeMap<Loss, u64>,
}

impl Counts {
    /// How many were lost in this way.
    pub fn of(&self, loss: Loss) -> u64 {
        self.losses.get(&loss).copied().unwrap_or(0)
    }

    /// How many were lost.
    pub fn lost(&self) -> u64 {
        self.losses.values().sum()
    }

    fn add(&mut self, other: &Counts) {
        self.ok += other.ok;
        self.closed_idle += other.closed_idle;
        other.losses.iter().for_each(|(loss, n)| *self.losses.entry(*loss).or_insert(0) += n);
    }
}

/// The counts of a whole load.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    kinds: BTreeMap<Kind, Counts>,
    /// The first losses: when, what, why.
    pub stories: Vec<String>,
}

impl Totals {
    /// The counts of one kind.
    pub fn of(&self, kind: Kind) -> Counts {
        self.kinds.get(&kind).cloned().unwrap_or_default()
    }

    /// The counts of all kinds together.
    pub fn all(&self) -> Counts {
        let mut sum = Counts::default();
        self.kinds.values().for_each(|c| sum.add(c));
        sum
    }

    /// How many were lost.
    pub fn lost(&self) -> u64 {
        self.kinds.values().map(Counts::lost).sum()
    }

    /// Counts one that went well.
    pub fn ok(&mut self, kind: Kind) {
        self.kinds.entry(kind).or_default().ok += 1;
    }

    /// Counts a connection that the server closed while it was idle.
    pub fn closed_idle(&mut self, kind: Kind) {
        self.kinds.entry(kind).or_default().closed_idle += 1;
    }

    /// Counts a loss.
    pub fn loss(&mut self, kind: Kind, loss: Loss, at: Duration, story: &str) {
        *self.kinds.entry(kind).or_default().losses.entry(loss).or_insert(0) += 1;
        if self.stories.len() < STORIES {
            self.stories.push(format!("{:.3} s: {}: {}: {story}", at.as_secs_f64(), kind.name(), loss.name()));
        }
    }

    /// Adds the counts of another load.
    pub fn add(&mut self, other: Totals) {
        other.kinds.iter().for_each(|(kind, counts)| self.kinds.entry(*kind).or_default().add(counts));
        self.stories.extend(other.stories);
        self.stories.truncate(STORIES);
    }
}
