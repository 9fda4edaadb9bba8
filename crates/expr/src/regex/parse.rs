//! The parser of PCRE's syntax: alternatives, items, quantifiers, flags.
//!
//! Groups are in [`super::group`], escapes in [`super::escape`], sets in [`super::class`]. The texts of errors and the
//! places they name are those of PCRE2, as nginx shows them.

use super::ast::{Greed, Node, Pattern, Place};

/// Why a pattern isn't accepted, and the offset that PCRE2 would name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) why: String,
    pub(super) at: usize,
}

/// PCRE2's word for a reference that leads nowhere.
pub(super) const NO_GROUP: &str = "reference to non-existent subpattern";

pub(super) type Parsed<T> = Result<T, Problem>;

/// The flags that hold at a place of the pattern.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) caseless: bool,
    pub(super) multiline: bool,
    pub(super) dotall: bool,
    pub(super) extended: bool,
    pub(super) extended_more: bool,
    pub(super) ungreedy: bool,
    pub(super) no_capture: bool,
}

/// PCRE2's limit on nested parentheses is 250; the engine's, with what the translation adds, is lower.
const MAX_DEPTH: usize = 60;

/// PCRE2's limit on the numbers of a quantifier.
const MAX_REPEAT: u32 = 65_535;

pub(super) struct Parser<'p> {
    pub(super) text: &'p [u8],
    pub(super) at: usize,
    pub(super) flags: Flags,
    pub(super) utf: bool,
    pub(super) depth: usize,
    pub(super) groups: usize,
    pub(super) slots_of: Vec<(usize, usize)>,
    pub(super) names: Vec<(String, usize)>,
    pub(super) duplicate_names: bool,
    /// Between `\Q` and `\E`.
    pub(super) quoting: bool,
}

/// Parses a whole pattern.
pub(super) fn parse(text: &[u8], caseless: bool) -> Parsed<Pattern> {
    let flags = Flags { caseless, ..Flags::default() };
    let mut parser = Parser {
        text,
        at: 0,
        flags,
        utf: false,
        depth: 0,
        groups: 0,
        slots_of: Vec::new(),
        names: Vec::new(),
        duplicate_names: false,
        quoting: false,
    };
    parser.start_options()?;
    if parser.utf && std::str::from_utf8(text).is_err() {
        return parser.fail("UTF-8 error: illegal byte (0xfe or 0xff)");
    }
    let root = parser.alternatives()?;
    if parser.at < text.len() {
        return parser.fail("unmatched closing parenthesis");
    }
    let Parser { utf, groups, slots_of, names, .. } = parser;
    Ok(Pattern { root, utf, groups, slots: slots_of.len(), names, slots_of })
}

impl Parser<'_> {
    pub(super) fn fail<T>(&self, why: &str) -> Parsed<T> {
        self.fail_at(why, self.at)
    }

    pub(super) fn fail_at<T>(&self, why: &str, at: usize) -> Parsed<T> {
        Err(Problem { why: why.to_owned(), at: at.min(self.text.len()) })
    }

    pub(super) fn rest(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    pub(super) fn eat(&mut self, what: &[u8]) -> bool {
        let found = self.rest().starts_with(what);
        if found {
            self.at += what.len();
        }
        found
    }

    /// The next character: a byte, or in UTF a code point.
    pub(super) fn character(&mut self) -> Option<u32> {
        let first = self.peek()?;
        if self.utf && first >= 0x80 {
            let length = 4 - usize::from(first < 0xf0) - usize::from(first < 0xe0);
            let text = std::str::from_utf8(self.rest().get(..length)?).ok()?;
            let code = text.chars().next().map(u32::from);
            self.at += length;
            return code;
        }
        self.at += 1;
        Some(u32::from(first))
    }

    /// `(*UTF)` and the like, which may only stand in front.
    fn start_options(&mut self) -> Parsed<()> {
        const NO_EFFECT: [&[u8]; 9] = [
            b"(*LF)",
            b"(*NO_AUTO_POSSESS)",
            b"(*NO_DOTSTAR_ANCHOR)",
            b"(*NO_JIT)",
            b"(*NO_START_OPT)",
            b"(*BSR_UNICODE)",
            b"(*LIMIT_MATCH=",
            b"(*LIMIT_DEPTH=",
            b"(*LIMIT_HEAP=",
        ];
        loop {
            if self.eat(b"(*UTF8)") || self.eat(b"(*UTF)") {
                self.utf = true;
            } else if let Some(option) = NO_EFFECT.iter().find(|option| self.rest().starts_with(option)) {
                self.at += option.len();
                if option.ends_with(b"=") {
                    self.number();
                    if !self.eat(b")") {
                        return self.fail("(*VERB) not recognized or malformed");
                    }
                }
            } else {
                return Ok(());
            }
        }
    }

    /// Branches up to the end or to a closing parenthesis, which is left.
    pub(super) fn alternatives(&mut self) -> Parsed<Node> {
        let mut branches = self.branches()?;
        match branches.len() {
            1 => Ok(branches.pop().unwrap_or(Node::Empty)),
            _ => Ok(Node::Alternatives(branches)),
        }
    }

    pub(super) fn branches(&mut self) -> Parsed<Vec<Node>> {
        self.deeper()?;
        let mut branches = vec![self.branch()?];
        while self.eat(b"|") {
            branches.push(self.branch()?);
        }
        self.depth -= 1;
        Ok(branches)
    }

    pub(super) fn deeper(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail("parentheses are too deeply nested");
        }
        Ok(())
    }

    pub(super) fn branch(&mut self) -> Parsed<Node> {
        let mut items = Vec::new();
        loop {
            self.skip_ignored()?;
            if !self.quoting && matches!(self.peek(), None | Some(b'|' | b')')) || self.rest().is_empty() {
                break;
            }
            if let Some(item) = self.item()? {
                let item = self.quantified(item)?;
                items.push(item);
            }
        }
        match items.len() {
            0 => Ok(Node::Empty),
            1 => Ok(items.pop().unwrap_or(Node::Empty)),
            _ => Ok(Node::Concat(items)),
        }
    }

    /// Skips comments, white space where the flag x says so, and the marks of quoting.
    fn skip_ignored(&mut self) -> Parsed<()> {
        loop {
            if self.quoting {
                if !self.eat(b"\\E") {
                    return Ok(());
                }
                self.quoting = false;
            } else if self.eat(b"\\Q") {
                self.quoting = true;
            } else if self.eat(b"\\E") {
                // A lone one is ignored.
            } else if self.rest().starts_with(b"(?#") {
                match memchr::memchr(b')', self.rest()) {
                    Some(end) => self.at += end + 1,
                    None => return self.fail_at("missing ) after (?# comment", self.text.len()),
                }
            } else if self.flags.extended && self.peek().is_some_and(is_space) {
                self.at += 1;
            } else if self.flags.extended && self.peek() == Some(b'#') {
                let line = memchr::memchr(b'\n', self.rest()).map_or(self.rest().len(), |end| end + 1);
                self.at += line;
            } else {
                return Ok(());
            }
        }
    }

    /// An item that a quantifier may follow; `None` for a change of flags.
    fn item(&mut self) -> Parsed<Option<Node>> {
        let caseless = self.flags.caseless;
        if self.quoting {
            return Ok(self.character().map(|code| Node::Char { code, caseless }));
        }
        match self.peek() {
            Some(b'(') => return self.group(),
            Some(b'\\') => return self.escape().map(Some),
            Some(b'[') => return self.class().map(Some),
            Some(b'*' | b'+' | b'?') => return self.fail("quantifier does not follow a repeatable item"),
            Some(b'{') => {
                if let Some((_, _, end)) = self.braces(self.at)? {
                    return self.fail_at("quantifier does not follow a repeatable item", end - 1);
                }
            }
            _ => {}
        }
        let flags = self.flags;
        Ok(self.character().map(|code| match char::from_u32(code) {
            Some('.') => Node::Any { newline: flags.dotall },
            Some('^') => Node::Place(if flags.multiline { Place::LineStart } else { Place::Start }),
            Some('$') => Node::Place(if flags.multiline { Place::LineEnd } else { Place::End }),
            _ => Node::Char { code, caseless },
        }))
    }

    /// `node` with the quantifier that follows, if one does.
    fn quantified(&mut self, node: Node) -> Parsed<Node> {
        self.skip_ignored()?;
        if self.quoting || matches!(node, Node::Place(_)) {
            // A place can't be repeated: the quantifier will be refused as an item.
            return Ok(node);
        }
        let (min, max) = match self.peek() {
            Some(b'*') => (0, None),
            Some(b'+') => (1, None),
            Some(b'?') => (0, Some(1)),
            Some(b'{') => match self.braces(self.at)? {
                Some((min, max, end)) => {
                    self.at = end - 1;
                    (min, max)
                }
                None => return Ok(node),
            },
            _ => return Ok(node),
        };
        self.at += 1;
        let greed = if self.eat(b"+") {
            Greed::Possessive
        } else if self.eat(b"?") != self.flags.ungreedy {
            Greed::Lazy
        } else {
            Greed::Greedy
        };
        Ok(Node::Repeat { node: Box::new(node), min, max, greed })
    }

    /// The bounds of `{n}`, `{n,}` or `{n,m}` at `start` and the offset after it; `None` if the brace is a character like
    /// any other, as in `{,3}`.
    pub(super) fn braces(&self, start: usize) -> Parsed<Option<(u32, Option<u32>, usize)>> {
        let text = self.text.get(start..).unwrap_or_default();
        let Some(close) = memchr::memchr(b'}', text) else { return Ok(None) };
        let inside = text.get(1..close).unwrap_or_default();
        let (low, high) = match memchr::memchr(b',', inside) {
            Some(comma) => (inside.get(..comma).unwrap_or_default(), Some(inside.get(comma + 1..).unwrap_or_default())),
            None => (inside, None),
        };
        let digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
        if low.is_empty() || !digits(low) || !high.is_none_or(digits) {
            return Ok(None);
        }
        let behind_low = start + 1 + low.len();
        let number = |part: &[u8], at: usize| {
            let mut value = 0;
            for (index, digit) in part.iter().enumerate() {
                value = value * 10 + u32::from(digit - b'0');
                if value > MAX_REPEAT {
                    return self.fail_at("number too big in {} quantifier", at + index + 1);
                }
            }
            Ok(value)
        };
        let min = number(low, start + 1)?;
        let max = match high {
            None => Some(min),
            Some([]) => None,
            Some(high) => Some(number(high, behind_low + 1)?),
        };
        if max.is_some_and(|max| max < min) {
            return self.fail_at("numbers out of order in {} quantifier", start + close);
        }
        Ok(Some((min, max, start + close + 1)))
    }

    /// Decimal digits at the front as a number; `None` if there are none or too many.
    pub(super) fn number(&mut self) -> Option<usize> {
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        let value = self.rest().get(..digits).and_then(decimal)?;
        self.at += digits;
        Some(value as usize)
    }
}

fn decimal(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}
