//! The values of parameters: texts with variables, and conditions.

use std::borrow::Cow;
use std::fmt;

use buf::text::encode;
use smallvec::SmallVec;

/// A value as the page has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// The quote around it.
    pub(super) quote: u8,
    /// What stands between the quotes, with its backslashes.
    pub(super) raw: SmallVec<[u8; 24]>,
}

/// A part of a value in which variables are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'v> {
    /// Bytes as they are.
    Text(&'v [u8]),
    /// The variable of this name.
    Variable(&'v [u8]),
}

/// The parts of a value, of which there are few.
pub type Parts<'v> = SmallVec<[Part<'v>; 4]>;

/// A reference to a variable that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueError {
    /// A dollar without a name.
    InvalidName(String),
    /// `${name` without a brace at its end.
    Unclosed(String),
    /// A condition that can't be read.
    InvalidExpression(String),
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueError::InvalidName(text) => write!(f, "invalid variable name in \"{text}\""),
            ValueError::Unclosed(name) => write!(f, "the closing bracket in \"{name}\" variable is missing"),
            ValueError::InvalidExpression(text) => write!(f, "invalid expression in \"{text}\""),
        }
    }
}

impl Value {
    /// The value without variables: a dollar is a dollar.
    pub fn plain(&self) -> Cow<'_, [u8]> {
        if memchr::memchr(b'\\', &self.raw).is_none() {
            return Cow::Borrowed(&self.raw);
        }
        let mut out = Vec::with_capacity(self.raw.len());
        let mut rest = &self.raw[..];
        while let Some((&byte, behind)) = rest.split_first() {
            rest = behind;
            if byte == b'\\'
                && let Some((&next, behind)) = rest.split_first()
                && (next == b'\\' || next == self.quote)
            {
                out.push(next);
                rest = behind;
                continue;
            }
            out.push(byte);
        }
        Cow::Owned(out)
    }

    /// The parts of the value, in order.
    pub fn parts(&self) -> Result<Parts<'_>, ValueError> {
        parts(&self.raw, self.quote)
    }

    /// The value as a condition.
    pub fn condition(&self) -> Result<Condition<'_>, ValueError> {
        let invalid = || ValueError::InvalidExpression(encode(&self.raw).into_owned());
        let is_left = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'{' | b'}');
        let len = self.raw.iter().take_while(|byte| is_left(byte)).count();
        let (left, rest) = self.raw.split_at(len);
        let left = parts(left, self.quote)?;
        let rest = skip_spaces(rest);
        let (operator, rest) = match rest {
            [] => return Ok(Condition { left, operator: Operator::IsSet, right: Parts::new() }),
            [b'=', rest @ ..] => (Operator::Equal, rest),
            [b'!', b'=', rest @ ..] => (Operator::Unequal, rest),
            _ => return Err(invalid()),
        };
        let (operator, right) = match (operator, skip_spaces(rest)) {
            (operator, [b'/', pattern @ .., b'/']) => match operator {
                Operator::Unequal => (Operator::Mismatch, pattern),
                _ => (Operator::Match, pattern),
            },
            (_, [b'/', _, ..]) => return Err(invalid()),
            (operator, text) => (operator, text),
        };
        Ok(Condition { left, operator, right: parts(right, self.quote)? })
    }
}

/// The condition of `if` and `elif`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition<'v> {
    /// What is tested.
    pub left: Parts<'v>,
    /// How.
    pub operator: Operator,
    /// What it is compared with.
    pub right: Parts<'v>,
}

/// How the sides of a condition are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The left side isn't empty.
    IsSet,
    /// The sides are equal.
    Equal,
    /// They aren't.
    Unequal,
    /// The right side is a regex that matches the left one.
    Match,
    /// It doesn't match.
    Mismatch,
}

fn skip_spaces(text: &[u8]) -> &[u8] {
    let spaces = text.iter().take_while(|byte| **byte == b' ').count();
    &text[spaces..]
}

fn parts(raw: &[u8], quote: u8) -> Result<Parts<'_>, ValueError> {
    let mut parts = Parts::new();
    let (mut start, mut at) = (0, 0);
    while let Some(found) = memchr::memchr2(b'\\', b'$', &raw[at..]) {
        let here = at + found;
        let after = &raw[here + 1..];
        if raw[here] == b'\\' {
            at = here + 1;
            if after.first().is_some_and(|next| matches!(next, b'\\' | b'$') || *next == quote) {
                push_text(&mut parts, &raw[start..here]);
                // The byte after the backslash begins the next text.
                start = at;
                at += 1;
            }
            continue;
        }
        push_text(&mut parts, &raw[start..here]);
        let (name, len) = reference(after).ok_or_else(|| match unclosed(after) {
            Some(name) => ValueError::Unclosed(encode(name).into_owned()),
            None => ValueError::InvalidName(encode(raw).into_owned()),
        })?;
        parts.push(Part::Variable(name));
        at = here + 1 + len;
        start = at;
    }
    push_text(&mut parts, &raw[start..]);
    Ok(parts)
}

fn push_text<'v>(parts: &mut Parts<'v>, text: &'v [u8]) {
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
}

/// The name after a dollar, and how many bytes it takes with its braces.
fn reference(after: &[u8]) -> Option<(&[u8], usize)> {
    let (inside, braced) = match after.strip_prefix(b"{") {
        Some(inside) => (inside, true),
        None => (after, false),
    };
    let name = &inside[..name_len(inside)];
    let closed = !braced || inside.get(name.len()) == Some(&b'}');
    (!name.is_empty() && closed).then_some((name, name.len() + if braced { 2 } else { 0 }))
}

/// The name in `{name`.
fn unclosed(after: &[u8]) -> Option<&[u8]> {
    let inside = after.strip_prefix(b"{")?;
    let name = &inside[..name_len(inside)];
    (!name.is_empty()).then_some(name)
}

fn name_len(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count()
}
