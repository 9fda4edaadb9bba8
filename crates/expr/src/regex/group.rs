//! Groups: everything that begins with a parenthesis.

use super::ast::{Condition, Name, Node, Target};
use super::parse::{NO_GROUP, Parsed, Parser};

/// What may stand after `(?` or `(*name:` for a group around a node.
#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Atomic,
    Look { behind: bool, negative: bool },
}

const AHEAD: Kind = Kind::Look { behind: false, negative: false };
const NOT_AHEAD: Kind = Kind::Look { behind: false, negative: true };
const BEHIND: Kind = Kind::Look { behind: true, negative: false };
const NOT_BEHIND: Kind = Kind::Look { behind: true, negative: true };

const KINDS: [(&[u8], Kind); 16] = [
    (b"(?:", Kind::Plain),
    (b"(?>", Kind::Atomic),
    (b"(?=", AHEAD),
    (b"(?!", NOT_AHEAD),
    (b"(?<=", BEHIND),
    (b"(?<!", NOT_BEHIND),
    (b"(*atomic:", Kind::Atomic),
    (b"(*pla:", AHEAD),
    (b"(*positive_lookahead:", AHEAD),
    (b"(*nla:", NOT_AHEAD),
    (b"(*negative_lookahead:", NOT_AHEAD),
    (b"(*plb:", BEHIND),
    (b"(*positive_lookbehind:", BEHIND),
    (b"(*nlb:", NOT_BEHIND),
    (b"(*negative_lookbehind:", NOT_BEHIND),
    (b"(?P>", Kind::Plain),
];

/// PCRE2's limit on names of groups.
const MAX_NAME: usize = 32;

impl Parser<'_> {
    /// A group; `None` if it only sets flags.
    pub(super) fn group(&mut self) -> Parsed<Option<Node>> {
        if self.rest().starts_with(b"(?P>") {
            self.at += 4;
            return self.named_target(b')').map(|target| Some(Node::Call(target)));
        }
        if let Some((text, kind)) = KINDS.iter().find(|(text, _)| self.rest().starts_with(text)) {
            let kind = *kind;
            self.at += text.len();
            return self.enclosed(kind).map(Some);
        }
        if self.rest().starts_with(b"(*")
            && self.text.get(self.at + 2).is_none_or(|b| b.is_ascii_alphabetic() || *b == b':')
        {
            return self.verb().map(Some);
        }
        if !self.rest().starts_with(b"(?") {
            self.at += 1;
            let kind = self.flags.no_capture;
            return if kind { self.enclosed(Kind::Plain).map(Some) } else { self.capturing(None).map(Some) };
        }
        self.at += 2;
        match (self.peek(), self.text.get(self.at + 1).copied()) {
            (Some(b'|'), _) => self.branch_reset().map(Some),
            (Some(b'('), _) => self.conditional().map(Some),
            (Some(b'<'), _) | (Some(b'P'), Some(b'<')) => self.named(b'>').map(Some),
            (Some(b'\''), _) => self.named(b'\'').map(Some),
            (Some(b'P'), Some(b'=')) => {
                self.at += 2;
                let target = self.named_target(b')')?;
                Ok(Some(Node::Back { target, caseless: self.flags.caseless }))
            }
            (Some(b'P'), None) => self.fail_at("missing closing parenthesis", self.at + 1),
            (Some(b'P'), _) => self.fail_at("unrecognized character after (?P", self.at + 1),
            (Some(b'&'), _) => {
                self.at += 1;
                self.named_target(b')').map(|target| Some(Node::Call(target)))
            }
            (Some(b'R' | b'+' | b'0'..=b'9'), _) | (Some(b'-'), Some(b'0'..=b'9')) => self.numbered_call().map(Some),
            (Some(b'C'), _) => self.fail("callouts are not supported"),
            _ => self.flags_group(),
        }
    }

    /// What is left of a group up to its closing parenthesis; flags set inside end with it.
    fn body(&mut self) -> Parsed<Node> {
        let flags = self.flags;
        let node = self.alternatives()?;
        self.close()?;
        self.flags = flags;
        Ok(node)
    }

    fn close(&mut self) -> Parsed<()> {
        if self.eat(b")") { Ok(()) } else { self.fail("missing closing parenthesis") }
    }

    fn enclosed(&mut self, kind: Kind) -> Parsed<Node> {
        let at = memchr::memrchr(b'(', self.text.get(..self.at).unwrap_or_default()).unwrap_or(0);
        let node = Box::new(self.body()?);
        Ok(match kind {
            // A group of its own, so that a quantifier holds for all of it.
            Kind::Plain => Node::Concat(vec![*node]),
            Kind::Atomic => Node::Atomic(node),
            Kind::Look { behind, negative } => Node::Look { behind, negative, node, at },
        })
    }

    fn capturing(&mut self, name: Option<String>) -> Parsed<Node> {
        self.groups += 1;
        let number = self.groups;
        let slot = self.slots_of.len() + 1;
        self.slots_of.push((number, slot));
        if let Some(name) = name {
            self.define_name(name, number)?;
        }
        let node = Box::new(self.body()?);
        Ok(Node::Group { number, node })
    }

    fn define_name(&mut self, name: String, number: usize) -> Parsed<()> {
        let known = self.names.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
        match known {
            Some(same) if same == number => return Ok(()),
            Some(_) if !self.duplicate_names => {
                return self.fail("two named subpatterns have the same name (PCRE2_DUPNAMES not set)");
            }
            _ => {}
        }
        if known.is_none() && self.names.iter().any(|(_, taken)| *taken == number) {
            return self.fail("different names for subpatterns of the same number are not allowed");
        }
        self.names.push((name, number));
        Ok(())
    }

    fn named(&mut self, close: u8) -> Parsed<Node> {
        self.at += if self.peek() == Some(b'P') { 2 } else { 1 };
        let name = self.group_name(close)?;
        self.capturing(Some(name))
    }

    /// A reference by name.
    pub(super) fn named_target(&mut self, close: u8) -> Parsed<Target> {
        let at = self.at;
        Ok(Target { name: Name::Text(self.group_name(close)?), at })
    }

    /// A name and the character that closes it.
    pub(super) fn group_name(&mut self, close: u8) -> Parsed<String> {
        let length = self.rest().iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        let name = String::from_utf8_lossy(self.rest().get(..length).unwrap_or_default()).into_owned();
        if name.is_empty() {
            return self.fail("subpattern name expected");
        }
        if name.starts_with(|first: char| first.is_ascii_digit()) {
            return self.fail("subpattern name must start with a non-digit");
        }
        if length > MAX_NAME {
            return self.fail_at("subpattern name is too long (maximum 32 code units)", self.at + MAX_NAME + 1);
        }
        self.at += length;
        if self.peek() != Some(close) {
            return self.fail("syntax error in subpattern name (missing terminator?)");
        }
        self.at += 1;
        Ok(name)
    }

    /// A name, or a number that may be relative, and what closes it.
    pub(super) fn reference(&mut self, close: u8) -> Parsed<Target> {
        match self.relative_number()? {
            None => self.named_target(close),
            Some(n) if self.peek() == Some(close) => {
                self.at += 1;
                Ok(Target { name: Name::Number(n), at: self.at - usize::from(n > 0) })
            }
            Some(_) => self
                .fail("\\g is not followed by a braced, angle-bracketed, or quoted name/number or by a plain number"),
        }
    }

    /// `N`, `-N` (groups so far, counted back) or `+N` (groups to come); `None`, with nothing taken, if there is none.
    pub(super) fn relative_number(&mut self) -> Parsed<Option<usize>> {
        let sign = self.peek().filter(|byte| matches!(byte, b'+' | b'-'));
        let start = self.at;
        self.at += usize::from(sign.is_some());
        let Some(n) = self.number() else {
            self.at = start;
            return Ok(None);
        };
        match sign {
            None => Ok(Some(n)),
            Some(_) if n == 0 => self.fail("a relative value of zero is not allowed"),
            Some(b'+') => Ok(Some(self.groups + n)),
            Some(_) if n > self.groups => self.fail(NO_GROUP),
            Some(_) => Ok(Some(self.groups + 1 - n)),
        }
    }

    fn numbered_call(&mut self) -> Parsed<Node> {
        let number = if self.eat(b"R") { Some(0) } else { self.relative_number()? };
        let Some(number) = number else {
            return self.fail("(?+ or (?- or (?(+ or (?(- must be followed by a non-zero digit");
        };
        if !self.eat(b")") {
            return self.fail(match number {
                0 => "(?R (recursive pattern call) must be followed by a closing parenthesis",
                _ => "missing closing parenthesis",
            });
        }
        Ok(Node::Call(Target { name: Name::Number(number), at: self.at - 1 }))
    }

    /// `(?|…)`: each branch counts its groups from the same number.
    fn branch_reset(&mut self) -> Parsed<Node> {
        self.at += 1;
        let flags = self.flags;
        let first = self.groups;
        let mut most = first;
        let mut branches = Vec::new();
        self.deeper()?;
        loop {
            self.groups = first;
            branches.push(self.branch()?);
            most = most.max(self.groups);
            if !self.eat(b"|") {
                break;
            }
        }
        self.depth -= 1;
        self.groups = most;
        self.close()?;
        self.flags = flags;
        Ok(Node::Concat(vec![Node::Alternatives(branches)]))
    }

    fn conditional(&mut self) -> Parsed<Node> {
        let start = self.at;
        let condition = self.condition()?;
        let flags = self.flags;
        let mut branches = self.branches()?;
        let define = matches!(condition, Condition::Define);
        if define && branches.len() > 1 {
            return self.fail_at("DEFINE subpattern contains more than one branch", start + 1);
        }
        if branches.len() > 2 {
            return self.fail_at("conditional subpattern contains more than two branches", start - 2);
        }
        self.close()?;
        self.flags = flags;
        let no = if branches.len() == 2 { branches.pop() } else { None };
        let yes = branches.pop().unwrap_or(Node::Empty);
        Ok(Node::If { condition, yes: Box::new(yes), no: Box::new(no.unwrap_or(Node::Empty)) })
    }

    /// From the second parenthesis of `(?(` to after the one that closes the condition.
    fn condition(&mut self) -> Parsed<Condition> {
        if let Some((text, Kind::Look { behind, negative })) =
            KINDS.iter().find(|(text, _)| self.rest().starts_with(text)).copied()
        {
            self.at += text.len();
            let node = self.enclosed(Kind::Look { behind, negative })?;
            return Ok(Condition::Look(Box::new(node)));
        }
        self.at += 1;
        if self.eat(b"DEFINE)") {
            return Ok(Condition::Define);
        }
        let start = self.at - 1;
        let target = match self.peek() {
            Some(b'<') => {
                self.at += 1;
                self.named_target(b'>')?
            }
            Some(b'\'') => {
                self.at += 1;
                self.named_target(b'\'')?
            }
            None => return self.fail("missing closing parenthesis"),
            Some(b'R') => return self.fail("recursion in a condition is not supported"),
            _ => match self.relative_number()? {
                Some(0) => return self.fail(NO_GROUP),
                Some(n) => {
                    let signed = matches!(self.text.get(start + 1), Some(b'+' | b'-'));
                    Target { name: Name::Number(n), at: start + usize::from(signed) }
                }
                None => {
                    let target = self.named_target(b')')?;
                    self.at -= 1;
                    target
                }
            },
        };
        if !self.eat(b")") {
            return self.fail("missing closing parenthesis for condition");
        }
        Ok(Condition::Matched(target))
    }

    /// `(?i)`, `(?i-s:…)`, `(?^)`
    fn flags_group(&mut self) -> Parsed<Option<Node>> {
        let before = self.flags;
        let mut on = true;
        let reset = self.eat(b"^");
        if reset {
            self.flags = super::parse::Flags { ungreedy: before.ungreedy, ..Default::default() };
        }
        loop {
            let Some(letter) = self.peek() else { return self.fail("missing closing parenthesis") };
            self.at += 1;
            match letter {
                b')' => return Ok(None),
                b':' => {
                    let node = self.enclosed(Kind::Plain)?;
                    self.flags = before;
                    return Ok(Some(node));
                }
                b'-' if on && !reset => on = false,
                b'-' => return self.fail_at("invalid hyphen in option setting", self.at - 1),
                b'i' => self.flags.caseless = on,
                b'm' => self.flags.multiline = on,
                b's' => self.flags.dotall = on,
                b'n' => self.flags.no_capture = on,
                b'U' => self.flags.ungreedy = on,
                b'J' => self.duplicate_names = on,
                b'x' => {
                    self.flags.extended = on;
                    let more = self.eat(b"x");
                    self.flags.extended_more = on && more;
                }
                _ => return self.fail_at("unrecognized character after (? or (?-", self.at - 1),
            }
        }
    }

    /// `(*FAIL)`; the other verbs steer a backtracking that the engine does in its own way.
    fn verb(&mut self) -> Parsed<Node> {
        if self.eat(b"(*FAIL)") || self.eat(b"(*F)") {
            return Ok(Node::Fail);
        }
        let end = memchr::memchr(b')', self.rest()).unwrap_or(self.rest().len());
        let name = self.rest().get(2..end).unwrap_or_default();
        const KNOWN: [&[u8]; 6] = [b"ACCEPT", b"COMMIT", b"PRUNE", b"SKIP", b"THEN", b"MARK"];
        if end < self.rest().len() && KNOWN.iter().any(|known| name.starts_with(known)) {
            return self.fail("backtracking control verbs are not supported");
        }
        self.fail_at(
            "(*VERB) not recognized or malformed",
            self.at + 2 + name.iter().take_while(|b| b.is_ascii_alphabetic()).count(),
        )
    }
}
