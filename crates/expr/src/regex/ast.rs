//! A pattern as PCRE understands it: every flag applied, every escape resolved.

/// A set of characters (bytes, unless the pattern is UTF): sorted ranges that don't touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    ranges: Vec<(u32, u32)>,
    /// Unicode properties, as `\p{…}` or `\P{…}`.
    pub(super) properties: Vec<String>,
}

impl Set {
    pub(super) fn of(ranges: &[(u32, u32)]) -> Set {
        let mut set = Set::default();
        ranges.iter().for_each(|(low, high)| set.add(*low, *high));
        set
    }

    pub(super) fn property(property: String) -> Set {
        Set { ranges: Vec::new(), properties: vec![property] }
    }

    pub(super) fn add(&mut self, low: u32, high: u32) {
        self.ranges.push((low, high));
        self.ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(self.ranges.len());
        for (low, high) in self.ranges.drain(..) {
            match merged.last_mut() {
                Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        self.ranges = merged;
    }

    pub(super) fn extend(&mut self, other: &Set) {
        other.ranges.iter().for_each(|(low, high)| self.add(*low, *high));
        self.properties.extend(other.properties.iter().cloned());
    }

    pub(super) fn ranges(&self) -> &[(u32, u32)] {
        &self.ranges
    }

    /// All of `0..=max` that isn't in the set; properties are kept as they are.
    pub(super) fn complement(&self, max: u32) -> Set {
        let mut next = 0;
        let mut out = Set { ranges: Vec::new(), properties: self.properties.clone() };
        for (low, high) in self.ranges.iter().filter(|range| range.0 <= max) {
            if next < *low {
                out.ranges.push((next, low - 1));
            }
            next = high.saturating_add(1);
        }
        if next <= max {
            out.ranges.push((next, max));
        }
        out
    }

    /// Adds the other case of every ASCII letter.
    pub(super) fn fold(&mut self) {
        for (low, high) in self.ranges.clone() {
            for (from, to, other) in [(0x41, 0x5a, 0x61), (0x61, 0x7a, 0x41)] {
                let (low, high) = (low.max(from), high.min(to));
                if low <= high {
                    self.add(low - from + other, high - from + other);
                }
            }
        }
    }
}

/// How a repetition chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greed {
    Greedy,
    Lazy,
    Possessive,
}

/// A zero-width test of the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `^`, `\A`, and `\G`: nginx always searches from the start.
    Start,
    /// `^` with the flag m.
    LineStart,
    /// `$` and `\Z`: the end, or before a newline there.
    End,
    /// `$` with the flag m.
    LineEnd,
    /// `\z`
    VeryEnd,
    /// `\b`
    WordEdge,
    /// `\B`
    NoWordEdge,
    /// `[[:<:]]`
    WordStart,
    /// `[[:>:]]`
    WordEnd,
    /// `\K`: the match starts here.
    Keep,
}

/// A group that something refers to, and where in the pattern it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: Name,
    pub(super) at: usize,
}

/// How a reference names its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Number(usize),
    Text(String),
}

/// What decides between the branches of a conditional group.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    /// A group has matched.
    Matched(Target),
    /// A look-around.
    Look(Box<Node>),
    /// `(?(DEFINE)…)`: never true, the groups in it are called from elsewhere.
    Define,
}

/// A node of the pattern.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Empty,
    /// `(*FAIL)`
    Fail,
    Char {
        code: u32,
        caseless: bool,
    },
    Set {
        set: Set,
        negated: bool,
        caseless: bool,
    },
    /// A dot.
    Any {
        newline: bool,
    },
    /// `\R`
    Newline,
    Place(Place),
    Concat(Vec<Node>),
    Alternatives(Vec<Node>),
    /// A capturing group and its number in the pattern.
    Group {
        number: usize,
        node: Box<Node>,
    },
    Atomic(Box<Node>),
    Look {
        behind: bool,
        negative: bool,
        node: Box<Node>,
        /// Where it begins in the pattern.
        at: usize,
    },
    Repeat {
        node: Box<Node>,
        min: u32,
        max: Option<u32>,
        greed: Greed,
    },
    Back {
        target: Target,
        caseless: bool,
    },
    Call(Target),
    If {
        condition: Condition,
        yes: Box<Node>,
        no: Box<Node>,
    },
}

impl Node {
    /// The nodes directly below.
    pub(super) fn children(&self) -> Vec<&Node> {
        match self {
            Node::Concat(nodes) | Node::Alternatives(nodes) => nodes.iter().collect(),
            Node::Group { node, .. } | Node::Atomic(node) | Node::Look { node, .. } | Node::Repeat { node, .. } => {
                vec![node]
            }
            Node::If { condition: Condition::Look(look), yes, no } => vec![look, yes, no],
            Node::If { yes, no, .. } => vec![yes, no],
            _ => Vec::new(),
        }
    }

    /// Whether `test` holds for this node or one below it.
    pub(super) fn any(&self, test: &mut dyn FnMut(&Node) -> bool) -> bool {
        test(self) || self.children().into_iter().any(|child| child.any(test))
    }

    /// The first capturing group with this number.
    pub(super) fn group(&self, wanted: usize) -> Option<&Node> {
        match self {
            Node::Group { number, .. } if *number == wanted => Some(self),
            _ => self.children().into_iter().find_map(|child| child.group(wanted)),
        }
    }
}

/// A parsed pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    pub(super) root: Node,
    pub(super) utf: bool,
    /// Capturing groups, group 0 not counted.
    pub(super) groups: usize,
    /// The same in the engine's count.
    pub(super) slots: usize,
    pub(super) names: Vec<(String, usize)>,
    /// Which slots stand for which group: pairs of number and slot, in order of slots.
    pub(super) slots_of: Vec<(usize, usize)>,
}
