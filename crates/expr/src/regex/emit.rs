//! Writes a pattern in the engine's syntax, in forms that mean the same there and in PCRE.
//!
//! Nothing of the source is copied: a character is itself if it is a letter or a digit and an escape otherwise, sets are
//! spelt out, flags are applied already, groups are numbered. `$` is written for texts that don't end in a newline, as
//! nearly all: there it is the very end, which keeps simple patterns simple for the engine. For the other texts there is
//! a second form ([`End::Newline`]).

use std::fmt::Write;

use super::ast::{Condition, Greed, Name, Node, Pattern, Place, Set, Target};
use super::parse::{NO_GROUP, Parsed, Problem};

/// How the texts end that the engine will search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Not in a newline.
    Other,
    /// In a newline.
    Newline,
}

/// Whether the pattern means different things for texts of the two ends.
pub(super) fn depends_on_end(pattern: &Pattern) -> bool {
    pattern.root.any(&mut |node| matches!(node, Node::Place(Place::End | Place::LineStart)))
}

/// The pattern in the engine's syntax.
pub(super) fn emit(pattern: &Pattern, end: End) -> Parsed<String> {
    let mut emitter = Emitter { pattern, end, out: String::new(), active: Vec::new(), capturing: true };
    emitter.node(&pattern.root, Around::Nothing)?;
    Ok(emitter.out)
}

/// What stands around a node, and so whether it needs a group.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    Nothing,
    Neighbours,
    Quantifier,
}

/// No pattern grows beyond this by calls of its groups.
const MAX_OUTPUT: usize = 1 << 20;

struct Emitter<'p> {
    pattern: &'p Pattern,
    end: End,
    out: String,
    /// The groups that are being written.
    active: Vec<usize>,
    /// False inside a called group.
    capturing: bool,
}

impl Emitter<'_> {
    fn node(&mut self, node: &Node, around: Around) -> Parsed<()> {
        if self.out.len() > MAX_OUTPUT {
            return problem("regular expression is too large", usize::MAX);
        }
        match node {
            Node::Empty => {}
            Node::Fail => self.out.push_str("(?!)"),
            Node::Char { code, caseless } => self.character(*code, *caseless),
            Node::Set { set, negated, caseless } => self.set(set, *negated, *caseless),
            Node::Any { newline } => self.out.push_str(if *newline { "(?s:.)" } else { "." }),
            Node::Newline if self.pattern.utf => {
                self.out.push_str("(?>\\r\\n|[\\x0A-\\x0D\\x{85}\\x{2028}\\x{2029}])");
            }
            Node::Newline => self.out.push_str("(?>\\r\\n|[\\x0A-\\x0D\\x85])"),
            Node::Place(place) => self.place(*place),
            Node::Concat(nodes) => self.concat(nodes, around)?,
            Node::Alternatives(nodes) => self.alternatives(nodes, around)?,
            Node::Group { number, node, .. } => self.group(*number, node)?,
            Node::Atomic(node) => self.wrapped("(?>", node)?,
            Node::Look { behind, negative, node, at } => {
                self.check_width(*behind, node, *at)?;
                self.look(*behind, *negative, node)?;
            }
            Node::Repeat { node, min, max, greed } => self.repeat(node, (*min, *max), *greed, around)?,
            Node::Back { target, caseless } => self.back(target, *caseless)?,
            Node::Call(target) => self.call(target)?,
            Node::If { condition, yes, no } => self.conditional(condition, yes, no)?,
        }
        Ok(())
    }

    fn wrapped(&mut self, open: &str, node: &Node) -> Parsed<()> {
        self.out.push_str(open);
        self.node(node, Around::Nothing)?;
        self.out.push(')');
        Ok(())
    }

    fn concat(&mut self, nodes: &[Node], around: Around) -> Parsed<()> {
        if let [single] = nodes {
            return self.node(single, around);
        }
        let group = around == Around::Quantifier;
        self.out.push_str(if group { "(?:" } else { "" });
        nodes.iter().try_for_each(|node| self.node(node, Around::Neighbours))?;
        self.out.push_str(if group { ")" } else { "" });
        Ok(())
    }

    fn alternatives(&mut self, nodes: &[Node], around: Around) -> Parsed<()> {
        let group = around != Around::Nothing;
        self.out.push_str(if group { "(?:" } else { "" });
        for (index, node) in nodes.iter().enumerate() {
            self.out.push_str(if index > 0 { "|" } else { "" });
            self.node(node, Around::Neighbours)?;
        }
        self.out.push_str(if group { ")" } else { "" });
        Ok(())
    }

    fn group(&mut self, number: usize, node: &Node) -> Parsed<()> {
        self.active.push(number);
        self.wrapped(if self.capturing { "(" } else { "(?:" }, node)?;
        self.active.pop();
        Ok(())
    }

    fn character(&mut self, code: u32, caseless: bool) {
        let letter = u8::try_from(code).ok().filter(u8::is_ascii_alphabetic);
        if self.pattern.utf {
            self.out.push_str(if caseless { "(?i:" } else { "" });
            self.code(code);
            self.out.push_str(if caseless { ")" } else { "" });
        } else if let Some(letter) = letter.filter(|_| caseless) {
            let letter = char::from(letter);
            let (lower, upper) = (letter.to_ascii_lowercase(), letter.to_ascii_uppercase());
            self.out.extend(['[', upper, lower, ']']);
        } else {
            self.code(code);
        }
    }

    fn code(&mut self, code: u32) {
        let plain = char::from_u32(code).filter(char::is_ascii_alphanumeric);
        match plain {
            Some(letter) => self.out.push(letter),
            // Writing to a string doesn't fail.
            None if self.pattern.utf => drop(write!(self.out, "\\x{{{code:X}}}")),
            None => drop(write!(self.out, "\\x{code:02X}")),
        }
    }

    fn set(&mut self, set: &Set, negated: bool, caseless: bool) {
        let utf = self.pattern.utf;
        let spelt = self.spelt(set, negated);
        if spelt.ranges().is_empty() && spelt.properties.is_empty() {
            self.out.push_str(if negated && utf { "(?s:.)" } else { "(?!)" });
            return;
        }
        if spelt.ranges() == [(0, 0xff)] && !utf {
            self.out.push_str("(?s:.)");
            return;
        }
        self.out.push_str(if utf && caseless { "(?i:[" } else { "[" });
        self.out.push_str(if utf && negated { "^" } else { "" });
        for (low, high) in spelt.ranges() {
            self.code(*low);
            if low != high {
                self.out.push('-');
                self.code(*high);
            }
        }
        spelt.properties.iter().for_each(|property| self.out.push_str(property));
        self.out.push_str(if utf && caseless { "])" } else { "]" });
    }

    /// The set as it is written: without a negation, unless the pattern is UTF.
    fn spelt(&self, set: &Set, negated: bool) -> Set {
        if negated && !self.pattern.utf { set.complement(0xff) } else { set.clone() }
    }

    fn place(&mut self, place: Place) {
        const EDGE: &str = "(?:(?<=[0-9A-Z_a-z])(?![0-9A-Z_a-z])|(?<![0-9A-Z_a-z])(?=[0-9A-Z_a-z]))";
        const NO_EDGE: &str = "(?:(?<=[0-9A-Z_a-z])(?=[0-9A-Z_a-z])|(?<![0-9A-Z_a-z])(?![0-9A-Z_a-z]))";
        self.out.push_str(match (place, self.end) {
            (Place::Start, _) => "\\A",
            (Place::LineStart, End::Other) => "(?m:^)",
            (Place::LineStart, End::Newline) => "(?:\\A|(?m:^)(?!\\z))",
            (Place::End, End::Other) | (Place::VeryEnd, _) => "\\z",
            (Place::End, End::Newline) => "(?=\\x0A?\\z)",
            (Place::LineEnd, _) => "(?m:$)",
            // The engine's `\b` knows Unicode letters in UTF patterns, PCRE's doesn't.
            (Place::WordEdge, _) if self.pattern.utf => EDGE,
            (Place::NoWordEdge, _) if self.pattern.utf => NO_EDGE,
            (Place::WordEdge, _) => "\\b",
            (Place::NoWordEdge, _) => "\\B",
            (Place::WordStart, _) => "(?<![0-9A-Z_a-z])(?=[0-9A-Z_a-z])",
            (Place::WordEnd, _) => "(?<=[0-9A-Z_a-z])(?![0-9A-Z_a-z])",
            (Place::Keep, _) => "\\K",
        });
    }

    /// A look-around; one that looks behind is split at its alternatives, each of which has a length of its own.
    fn look(&mut self, behind: bool, negative: bool, node: &Node) -> Parsed<()> {
        let open = match (behind, negative) {
            (false, false) => "(?=",
            (false, true) => "(?!",
            (true, false) => "(?<=",
            (true, true) => "(?<!",
        };
        match node {
            Node::Alternatives(nodes) if behind => {
                self.out.push_str(if negative { "" } else { "(?:" });
                for (index, node) in nodes.iter().enumerate() {
                    self.out.push_str(if index > 0 && !negative { "|" } else { "" });
                    self.wrapped(open, node)?;
                }
                self.out.push_str(if negative { "" } else { ")" });
                Ok(())
            }
            _ => self.wrapped(open, node),
        }
    }

    /// What looks behind needs alternatives of fixed lengths.
    fn check_width(&self, behind: bool, node: &Node, at: usize) -> Parsed<()> {
        let alternatives = match node {
            Node::Alternatives(nodes) => nodes.as_slice(),
            node => std::slice::from_ref(node),
        };
        if behind && alternatives.iter().any(|node| self.width(node, 0).is_none()) {
            return problem("lookbehind assertion is not fixed length", at);
        }
        Ok(())
    }

    /// How many characters `node` matches, if that is always the same. Calls count to a depth.
    fn width(&self, node: &Node, depth: usize) -> Option<usize> {
        match node {
            Node::Empty | Node::Fail | Node::Place(_) | Node::Look { .. } => Some(0),
            Node::Char { .. } | Node::Set { .. } | Node::Any { .. } => Some(1),
            Node::Newline | Node::Back { .. } => None,
            Node::Concat(nodes) => nodes.iter().map(|node| self.width(node, depth)).sum(),
            Node::Alternatives(nodes) => {
                let mut widths = nodes.iter().map(|node| self.width(node, depth));
                let first = widths.next()??;
                widths.all(|width| width == Some(first)).then_some(first)
            }
            Node::Group { node, .. } | Node::Atomic(node) => self.width(node, depth),
            Node::Repeat { node, min, max, .. } if Some(*min) == *max => {
                self.width(node, depth)?.checked_mul(*min as usize)
            }
            Node::Repeat { .. } => None,
            Node::Call(target) => {
                let called = self.pattern.root.group(*self.numbers(target).first()?)?;
                if depth < 8 { self.width(called, depth + 1) } else { None }
            }
            Node::If { condition: Condition::Define, .. } => Some(0),
            Node::If { yes, no, .. } => {
                let width = self.width(yes, depth)?;
                (self.width(no, depth)? == width).then_some(width)
            }
        }
    }

    fn repeat(&mut self, node: &Node, (min, max): (u32, Option<u32>), greed: Greed, around: Around) -> Parsed<()> {
        let captures = node.any(&mut |node| matches!(node, Node::Group { .. }));
        if max == Some(0) && !captures {
            return Ok(());
        }
        if self.is_zero_width(node, 0) {
            return self.repeat_zero_width(node, min, greed);
        }
        let possessive = greed == Greed::Possessive;
        let open = if possessive { "(?>" } else { "(?:" };
        let group = possessive || around == Around::Quantifier;
        self.out.push_str(if group { open } else { "" });
        self.node(node, Around::Quantifier)?;
        match (min, max) {
            (0, None) => self.out.push('*'),
            (1, None) => self.out.push('+'),
            (0, Some(1)) => self.out.push('?'),
            (min, None) => drop(write!(self.out, "{{{min},}}")),
            (min, Some(max)) => drop(write!(self.out, "{{{min},{max}}}")),
        }
        self.out.push_str(if greed == Greed::Lazy { "?" } else { "" });
        self.out.push_str(if group { ")" } else { "" });
        Ok(())
    }

    /// Whether repeating `node` makes no difference, because it is a test of a place or nothing at all, and sets no group.
    fn is_zero_width(&self, node: &Node, depth: usize) -> bool {
        match node {
            Node::Empty | Node::Fail | Node::Place(_) | Node::Look { .. } => true,
            Node::Set { set, negated, .. } => {
                let spelt = self.spelt(set, *negated);
                spelt.ranges().is_empty() && spelt.properties.is_empty()
            }
            Node::Concat(nodes) | Node::Alternatives(nodes) => nodes.iter().all(|node| self.is_zero_width(node, depth)),
            Node::Repeat { node, max, .. } => *max == Some(0) || self.is_zero_width(node, depth),
            Node::Group { node, .. } => !self.capturing && self.is_zero_width(node, depth),
            Node::Call(target) => {
                match self.numbers(target).first().and_then(|number| self.pattern.root.group(*number)) {
                    Some(Node::Group { node, .. }) if depth < 8 => self.is_zero_width(node, depth + 1),
                    _ => false,
                }
            }
            Node::If { condition: Condition::Define, .. } => true,
            _ => false,
        }
    }

    /// The engine doesn't repeat what has no width; once is as good as often.
    fn repeat_zero_width(&mut self, node: &Node, min: u32, greed: Greed) -> Parsed<()> {
        if min > 0 {
            return self.node(node, Around::Neighbours);
        }
        self.out.push_str(if greed == Greed::Lazy { "(?:|" } else { "(?:" });
        self.node(node, Around::Neighbours)?;
        self.out.push_str(if greed == Greed::Lazy { ")" } else { "|)" });
        Ok(())
    }

    fn back(&mut self, target: &Target, caseless: bool) -> Parsed<()> {
        let slots = self.slots(target)?;
        self.refuse_inside(target)?;
        if !self.capturing && self.inside_call(target) {
            return problem("a reference inside a called group is not supported", target.at);
        }
        self.out.push_str(if caseless { "(?i:" } else { "(?:" });
        for (index, slot) in slots.iter().rev().enumerate() {
            self.out.push_str(if index > 0 { "|" } else { "" });
            let _ = write!(self.out, "\\k<{slot}>");
        }
        self.out.push(')');
        Ok(())
    }

    /// Inside a group the engine's idea of what it has matched isn't PCRE's.
    fn refuse_inside(&self, target: &Target) -> Parsed<()> {
        if self.numbers(target).iter().any(|number| self.active.contains(number)) {
            return problem("a reference inside its own group is not supported", target.at);
        }
        Ok(())
    }

    fn inside_call(&self, target: &Target) -> bool {
        let numbers = self.numbers(target);
        let called = self.active.last().and_then(|number| self.pattern.root.group(*number));
        called.is_some_and(|node| numbers.iter().any(|number| node.group(*number).is_some()))
    }

    /// A call is written as the called group, its captures left out: PCRE puts them back after a call.
    fn call(&mut self, target: &Target) -> Parsed<()> {
        let number = self.numbers(target).first().copied();
        let called = number.and_then(|number| Some((number, self.pattern.root.group(number)?)));
        if target.name == Name::Number(0) || called.as_ref().is_some_and(|(number, _)| self.active.contains(number)) {
            return problem("recursion is not supported", target.at);
        }
        let Some((number, node)) = called else { return problem(NO_GROUP, target.at) };
        let before = std::mem::replace(&mut self.capturing, false);
        let Node::Group { node: body, .. } = node else { return Ok(()) };
        self.group(number, body)?;
        self.capturing = before;
        Ok(())
    }

    fn conditional(&mut self, condition: &Condition, yes: &Node, no: &Node) -> Parsed<()> {
        match condition {
            Condition::Define => {
                self.out.push_str("(?:(?!)");
                self.node(yes, Around::Neighbours)?;
                self.out.push_str("|)");
            }
            Condition::Look(look) => {
                let Node::Look { behind, negative, node, at } = &**look else { return Ok(()) };
                if look.any(&mut |node| matches!(node, Node::Group { .. })) {
                    return problem("capturing in a condition is not supported", usize::MAX);
                }
                self.check_width(*behind, node, *at)?;
                self.out.push_str("(?:");
                self.look(*behind, *negative, node)?;
                self.node(yes, Around::Neighbours)?;
                self.out.push('|');
                self.look(*behind, !*negative, node)?;
                self.node(no, Around::Neighbours)?;
                self.out.push(')');
            }
            Condition::Matched(target) => {
                let slots = self.slots(target)?;
                self.refuse_inside(target)?;
                let [slot] = *slots else {
                    return problem("a condition on one of several groups is not supported", target.at);
                };
                let _ = write!(self.out, "(?({slot})(?:");
                self.node(yes, Around::Nothing)?;
                self.out.push_str(")|(?:");
                self.node(no, Around::Nothing)?;
                self.out.push_str("))");
            }
        }
        Ok(())
    }

    fn numbers(&self, target: &Target) -> Vec<usize> {
        match &target.name {
            Name::Number(number) => vec![*number],
            Name::Text(text) => {
                self.pattern.names.iter().filter(|(name, _)| name == text).map(|named| named.1).collect()
            }
        }
    }

    fn slots(&self, target: &Target) -> Parsed<Vec<usize>> {
        let numbers = self.numbers(target);
        let slots_of = self.pattern.slots_of.iter();
        let slots: Vec<usize> = slots_of.filter(|(number, _)| numbers.contains(number)).map(|pair| pair.1).collect();
        if slots.is_empty() { problem(NO_GROUP, target.at) } else { Ok(slots) }
    }
}

fn problem<T>(why: &str, at: usize) -> Parsed<T> {
    Err(Problem { why: why.to_owned(), at })
}
