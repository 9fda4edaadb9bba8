//! What a backslash may introduce outside a class, and the characters it may stand for anywhere.

use super::ast::{Name, Node, Place, Set, Target};
use super::parse::{NO_GROUP, Parsed, Parser, Problem};

impl Parser<'_> {
    /// An escape outside a class.
    pub(super) fn escape(&mut self) -> Parsed<Node> {
        let start = self.at;
        let caseless = self.flags.caseless;
        let Some(letter) = self.text.get(start + 1).copied() else {
            return self.fail_at("\\ at end of pattern", self.text.len());
        };
        if let Some(set) = self.set_of(letter) {
            self.at += 2;
            return Ok(Node::Set { set, negated: false, caseless: false });
        }
        let place = match letter {
            b'A' | b'G' => Place::Start,
            b'Z' => Place::End,
            b'z' => Place::VeryEnd,
            b'b' => Place::WordEdge,
            b'B' => Place::NoWordEdge,
            b'K' => Place::Keep,
            _ => return self.other_escape(letter, caseless),
        };
        self.at += 2;
        Ok(Node::Place(place))
    }

    fn other_escape(&mut self, letter: u8, caseless: bool) -> Parsed<Node> {
        match letter {
            b'R' | b'N' | b'C' => {
                self.at += 2;
                if letter == b'N' && !self.utf && self.rest().starts_with(b"{U+") {
                    return self.fail("\\N{U+dddd} is supported only in Unicode (UTF) mode");
                }
                if letter == b'N' && self.peek() == Some(b'{') && self.braces(self.at)?.is_none() {
                    return self.fail("PCRE2 does not support \\F, \\L, \\l, \\N{name}, \\U, or \\u");
                }
                if letter == b'C' && self.utf {
                    return self.fail("using \\C is disabled in this PCRE2 library");
                }
                Ok(if letter == b'R' { Node::Newline } else { Node::Any { newline: letter == b'C' } })
            }
            b'X' => {
                self.at += 2;
                self.fail("this version of PCRE2 does not have support for \\P, \\p, or \\X")
            }
            b'p' | b'P' => {
                let set = self.property()?;
                Ok(Node::Set { set, negated: false, caseless })
            }
            b'1'..=b'9' => self.digits_escape(caseless),
            b'g' => self.g_escape(caseless),
            b'k' => {
                self.at += 2;
                let close = match self.peek() {
                    Some(b'{') => b'}',
                    Some(b'<') => b'>',
                    Some(b'\'') => b'\'',
                    _ => {
                        return self.fail("\\k is not followed by a braced, angle-bracketed, or quoted name");
                    }
                };
                self.at += 1;
                let target = self.named_target(close)?;
                Ok(Node::Back { target, caseless })
            }
            _ => self.code_escape().map(|code| Node::Char { code, caseless }),
        }
    }

    /// `\1` to `\9`, or more digits: a back-reference if there are so many groups already, else an octal character.
    fn digits_escape(&mut self, caseless: bool) -> Parsed<Node> {
        let start = self.at;
        self.at += 1;
        let leading = self.peek().unwrap_or(0);
        match self.number() {
            Some(n) if n < 10 || leading >= b'8' || n <= self.groups => {
                let target = Target { name: Name::Number(n), at: self.at - 1 };
                Ok(Node::Back { target, caseless })
            }
            None if leading >= b'8' => self.fail("number is too big"),
            _ => {
                self.at = start;
                self.octal(3).map(|code| Node::Char { code, caseless })
            }
        }
    }

    /// `\g{…}` and `\gN` refer back, `\g<…>` and `\g'…'` call.
    fn g_escape(&mut self, caseless: bool) -> Parsed<Node> {
        const WRONG: &str =
            "\\g is not followed by a braced, angle-bracketed, or quoted name/number or by a plain number";
        self.at += 2;
        if let Some(open @ (b'<' | b'\'')) = self.peek() {
            self.at += 1;
            let close = if open == b'<' { b'>' } else { b'\'' };
            return self.reference(close).map(Node::Call);
        }
        let start = self.at;
        let target = if self.eat(b"{") {
            self.reference(b'}').map_err(|problem| {
                // A number that goes too far back is reported where it starts.
                let relative = self.text.get(start + 1) == Some(&b'-') && problem.why == NO_GROUP;
                if relative { Problem { at: start, ..problem } } else { problem }
            })?
        } else {
            match self.relative_number()? {
                Some(n) => Target { name: Name::Number(n), at: self.at - usize::from(n > 0) },
                None => return self.fail(WRONG),
            }
        };
        Ok(Node::Back { target, caseless })
    }

    /// A character written as an escape.
    pub(super) fn code_escape(&mut self) -> Parsed<u32> {
        self.at += 1;
        if self.rest().is_empty() {
            return self.fail("\\ at end of pattern");
        }
        let letter = self.peek().unwrap_or(0);
        if letter >= 0x80 {
            return Ok(self.character().unwrap_or(0));
        }
        let code = match letter {
            b'a' => 7,
            b'e' => 0x1b,
            b'f' => 0x0c,
            b'n' => 0x0a,
            b'r' => 0x0d,
            b't' => 0x09,
            b'0' => {
                self.at -= 1;
                return self.octal(3);
            }
            b'c' => return self.control(),
            b'o' => return self.braced_octal(),
            b'x' => return self.hex(),
            b'F' | b'L' | b'l' | b'U' | b'u' => {
                self.at += 1;
                return self.fail("PCRE2 does not support \\F, \\L, \\l, \\N{name}, \\U, or \\u");
            }
            letter if letter.is_ascii_alphanumeric() => {
                return self.fail("unrecognized character follows \\");
            }
            letter => u32::from(letter),
        };
        self.at += 1;
        Ok(code)
    }

    /// `\cX`
    fn control(&mut self) -> Parsed<u32> {
        self.at += 1;
        match self.peek() {
            None => self.fail("\\c at end of pattern"),
            Some(letter @ b' '..=b'~') => {
                self.at += 1;
                Ok(u32::from(letter.to_ascii_uppercase() ^ 0x40))
            }
            Some(_) => self.fail("\\c must be followed by a printable ASCII character"),
        }
    }

    /// A backslash and up to `most` octal digits.
    pub(super) fn octal(&mut self, most: usize) -> Parsed<u32> {
        self.at += 1;
        let mut code = 0;
        for _ in 0..most {
            match self.peek() {
                Some(digit @ b'0'..=b'7') => {
                    self.at += 1;
                    code = code * 8 + u32::from(digit - b'0');
                }
                _ => break,
            }
        }
        if code > 0xff && !self.utf {
            return self.fail("octal value is greater than \\377 in 8-bit non-UTF-8 mode");
        }
        Ok(code)
    }

    /// `\o{…}`
    fn braced_octal(&mut self) -> Parsed<u32> {
        self.at += 1;
        if !self.eat(b"{") {
            return self.fail("missing opening brace after \\o");
        }
        self.braced_code(8, "non-octal character in \\o{} (closing brace missing?)")
    }

    /// `\x`, up to two digits; or `\x{…}`
    fn hex(&mut self) -> Parsed<u32> {
        self.at += 1;
        if self.eat(b"{") {
            return self.braced_code(16, "non-hex character in \\x{} (closing brace missing?)");
        }
        let mut code = 0;
        for _ in 0..2 {
            let Some(digit) = self.peek().and_then(|byte| char::from(byte).to_digit(16)) else { break };
            self.at += 1;
            code = code * 16 + digit;
        }
        Ok(code)
    }

    fn braced_code(&mut self, radix: u32, wrong: &str) -> Parsed<u32> {
        let mut code = 0u32;
        if self.peek() == Some(b'}') {
            return self.fail("digits missing in \\x{} or \\o{} or \\N{U+}");
        }
        while let Some(digit) = self.peek().and_then(|byte| char::from(byte).to_digit(radix)) {
            self.at += 1;
            code = code.saturating_mul(radix).saturating_add(digit);
            if code > self.max_code() {
                self.at += self.rest().iter().take_while(|byte| char::from(**byte).is_digit(radix)).count();
                return self.fail("character code point value in \\x{} or \\o{} is too large");
            }
        }
        if self.peek() == Some(b'}') && (0xd800..0xe000).contains(&code) {
            return self.fail("disallowed Unicode code point (>= 0xd800 && <= 0xdfff)");
        }
        if !self.eat(b"}") {
            return self.fail_at(wrong, self.at - usize::from(self.rest().is_empty()));
        }
        Ok(code)
    }

    /// `\pL`, `\p{Name}`, `\P{^Name}`. Outside UTF patterns a byte has the properties of the character with its number.
    pub(super) fn property(&mut self) -> Parsed<Set> {
        let mut negated = self.text.get(self.at + 1) == Some(&b'P');
        self.at += 2;
        let mut name = if self.eat(b"{") {
            let Some(end) = memchr::memchr(b'}', self.rest()) else {
                return self.fail_at("malformed \\P or \\p sequence", self.text.len());
            };
            let name = String::from_utf8_lossy(self.rest().get(..end).unwrap_or_default()).into_owned();
            self.at += end + 1;
            name
        } else {
            let letter = self.character().and_then(char::from_u32);
            letter.map(String::from).unwrap_or_default()
        };
        if let Some(rest) = name.strip_prefix('^') {
            negated = !negated;
            name = rest.to_owned();
        }
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_ -".contains(&byte)) {
            return self.fail("unknown property after \\P or \\p");
        }
        let property = format!("\\{}{{{name}}}", if negated { 'P' } else { 'p' });
        if self.utf {
            return Ok(Set::property(property));
        }
        match set_of_bytes(&property) {
            Some(set) => Ok(set),
            None => self.fail("unknown property after \\P or \\p"),
        }
    }
}

/// The characters below 256 that have a property; `None` for a property that the engine doesn't know.
fn set_of_bytes(property: &str) -> Option<Set> {
    let engine = fancy_regex::Regex::new(&format!("^{property}$")).ok()?;
    let mut set = Set::default();
    for code in 0..=255_u8 {
        let character = char::from(code);
        if engine.is_match(character.encode_utf8(&mut [0; 4])).unwrap_or(false) {
            set.add(u32::from(code), u32::from(code));
        }
    }
    Some(set)
}
