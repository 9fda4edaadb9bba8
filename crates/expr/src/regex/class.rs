//! Sets of characters: `[…]`, POSIX classes, `\d` and its kin.

use super::ast::{Node, Place, Set};
use super::parse::{Parsed, Parser};

pub(super) const DIGIT: &[(u32, u32)] = &[(0x30, 0x39)];
pub(super) const WORD: &[(u32, u32)] = &[(0x30, 0x39), (0x41, 0x5a), (0x5f, 0x5f), (0x61, 0x7a)];
pub(super) const SPACE: &[(u32, u32)] = &[(0x09, 0x0d), (0x20, 0x20)];
const BLANK: &[(u32, u32)] = &[
    (0x09, 0x09),
    (0x20, 0x20),
    (0xa0, 0xa0),
    (0x1680, 0x1680),
    (0x180e, 0x180e),
    (0x2000, 0x200a),
    (0x202f, 0x202f),
    (0x205f, 0x205f),
    (0x3000, 0x3000),
];
const VERTICAL: &[(u32, u32)] = &[(0x0a, 0x0d), (0x85, 0x85), (0x2028, 0x2029)];

const POSIX: [(&str, &[(u32, u32)]); 14] = [
    ("alpha", &[(0x41, 0x5a), (0x61, 0x7a)]),
    ("lower", &[(0x61, 0x7a)]),
    ("upper", &[(0x41, 0x5a)]),
    ("alnum", &[(0x30, 0x39), (0x41, 0x5a), (0x61, 0x7a)]),
    ("ascii", &[(0, 0x7f)]),
    ("blank", &[(0x09, 0x09), (0x20, 0x20)]),
    ("cntrl", &[(0, 0x1f), (0x7f, 0x7f)]),
    ("digit", DIGIT),
    ("graph", &[(0x21, 0x7e)]),
    ("print", &[(0x20, 0x7e)]),
    ("punct", &[(0x21, 0x2f), (0x3a, 0x40), (0x5b, 0x60), (0x7b, 0x7e)]),
    ("space", SPACE),
    ("word", WORD),
    ("xdigit", &[(0x30, 0x39), (0x41, 0x46), (0x61, 0x66)]),
];

/// A member of a class.
enum Member {
    Code(u32),
    Set(Set),
}

impl Parser<'_> {
    /// The highest character there is.
    pub(super) fn max_code(&self) -> u32 {
        if self.utf { 0x10_ffff } else { 0xff }
    }

    /// The set of `\d`, `\D` and so on; `None` if the letter isn't one of a set.
    pub(super) fn set_of(&self, letter: u8) -> Option<Set> {
        let ranges = match letter.to_ascii_lowercase() {
            b'd' => DIGIT,
            b'w' => WORD,
            b's' => SPACE,
            b'h' => BLANK,
            b'v' => VERTICAL,
            _ => return None,
        };
        let max = self.max_code();
        let set = Set::of(&ranges.iter().copied().filter(|range| range.0 <= max).collect::<Vec<_>>());
        Some(if letter.is_ascii_uppercase() { set.complement(max) } else { set })
    }

    /// `[…]`, or one of the two POSIX word edges that look like a class.
    pub(super) fn class(&mut self) -> Parsed<Node> {
        for (text, place) in [(b"[[:<:]]", Place::WordStart), (b"[[:>:]]", Place::WordEnd)] {
            if self.eat(text) {
                return Ok(Node::Place(place));
            }
        }
        if self.posix_name(self.at).is_some() {
            if self.text.get(self.at + 1) != Some(&b':') {
                return self.fail("POSIX collating elements are not supported");
            }
            return self.fail("POSIX named classes are supported only within a class");
        }
        self.at += 1;
        let negated = self.eat(b"^");
        let mut set = Set::default();
        let mut first = true;
        while let Some(member) = self.member(first)? {
            first = false;
            let low = match member {
                Member::Set(other) => {
                    set.extend(&other);
                    self.no_range()?;
                    continue;
                }
                Member::Code(low) => low,
            };
            set.add(low, self.high_of(low)?);
        }
        let caseless = self.flags.caseless;
        if caseless && !self.utf {
            set.fold();
        }
        Ok(Node::Set { set, negated, caseless })
    }

    /// The end of a range that begins with `low`: `low` itself if there is no range.
    fn high_of(&mut self, low: u32) -> Parsed<u32> {
        self.class_marks();
        if self.quoting || self.peek() != Some(b'-') || matches!(self.text.get(self.at + 1), None | Some(b']')) {
            return Ok(low);
        }
        let hyphen = self.at;
        self.at += 1;
        match self.member(false)? {
            Some(Member::Code(high)) if high >= low => Ok(high),
            Some(Member::Code(_)) => self.fail_at("range out of order in character class", self.at - 1),
            Some(Member::Set(_)) => {
                let posix = self.text.get(hyphen + 1) == Some(&b'[');
                self.fail_at("invalid range in character class", if posix { hyphen + 2 } else { self.at })
            }
            None => {
                // The hyphen was the last one after all, after an empty quotation.
                self.at = hyphen;
                Ok(low)
            }
        }
    }

    /// A hyphen after a set is only one if it is the last character.
    fn no_range(&mut self) -> Parsed<()> {
        let ranged = !self.quoting && self.peek() == Some(b'-');
        if ranged && !matches!(self.text.get(self.at + 1), None | Some(b']')) {
            return self.fail_at("invalid range in character class", self.at);
        }
        Ok(())
    }

    /// Skips `\Q` and `\E`, and spaces with the flag xx.
    fn class_marks(&mut self) {
        loop {
            if self.eat(b"\\E") {
                self.quoting = false;
            } else if !self.quoting && self.eat(b"\\Q") {
                self.quoting = true;
            } else if !self.quoting && self.flags.extended_more && matches!(self.peek(), Some(b' ' | b'\t')) {
                self.at += 1;
            } else {
                return;
            }
        }
    }

    /// The next member; `None`, with the bracket taken, at the end. In front a bracket is a character.
    fn member(&mut self, first: bool) -> Parsed<Option<Member>> {
        self.class_marks();
        if self.quoting {
            return self.plain_member();
        }
        match self.peek() {
            Some(b']') if !first => {
                self.at += 1;
                Ok(None)
            }
            Some(b'[') if self.posix_name(self.at).is_some() => self.posix().map(|set| Some(Member::Set(set))),
            Some(b'\\') => self.class_escape().map(Some),
            _ => self.plain_member(),
        }
    }

    fn plain_member(&mut self) -> Parsed<Option<Member>> {
        match self.character() {
            Some(code) => Ok(Some(Member::Code(code))),
            None => self.fail_at("missing terminating ] for character class", self.text.len()),
        }
    }

    fn class_escape(&mut self) -> Parsed<Member> {
        let letter = self.text.get(self.at + 1).copied().unwrap_or(0);
        if let Some(set) = self.set_of(letter) {
            self.at += 2;
            return Ok(Member::Set(set));
        }
        match letter {
            b'b' => {
                self.at += 2;
                Ok(Member::Code(8))
            }
            b'p' | b'P' => self.property().map(Member::Set),
            b'B' | b'R' | b'X' => self.fail_at("escape sequence is invalid in character class", self.at + 1),
            b'N' => self.fail_at("\\N is not supported in a class", self.at + 2),
            b'0'..=b'7' => self.octal(3).map(Member::Code),
            b'8' | b'9' => {
                self.at += 2;
                Ok(Member::Code(u32::from(letter)))
            }
            _ => self.code_escape().map(Member::Code),
        }
    }

    /// The name, its negation and the offset after it, if `[:name:]` stands at `at`.
    fn posix_name(&self, at: usize) -> Option<(&[u8], bool, usize)> {
        let text = self.text.get(at..)?;
        let mark = *text.get(1)?;
        if text.first() != Some(&b'[') || !matches!(mark, b':' | b'.' | b'=') {
            return None;
        }
        let inside = text.get(2..)?;
        let negated = inside.first() == Some(&b'^');
        let name = inside.get(usize::from(negated)..)?;
        let length = name.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        if name.get(length..length + 2)? != [mark, b']'] {
            return None;
        }
        Some((name.get(..length)?, negated, at + 2 + usize::from(negated) + length + 2))
    }

    fn posix(&mut self) -> Parsed<Set> {
        let start = self.at;
        let Some((name, negated, end)) = self.posix_name(start) else {
            return self.fail("unknown POSIX class name");
        };
        if self.text.get(start + 1) != Some(&b':') {
            return self.fail_at("POSIX collating elements are not supported", start);
        }
        let Some((name, ranges)) = POSIX.iter().find(|(known, _)| known.as_bytes() == name) else {
            return self.fail_at("unknown POSIX class name", start + 2);
        };
        let ranges = if self.flags.caseless && matches!(*name, "lower" | "upper") { POSIX[0].1 } else { ranges };
        self.at = end;
        let set = Set::of(ranges);
        Ok(if negated { set.complement(self.max_code()) } else { set })
    }
}
