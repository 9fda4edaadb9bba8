//! Mail protocols, as far as somebody needs them who lets clients log in and connects them to a server: the commands
//! before the login ([`imap`], [`pop3`], [`smtp`]), the exchange of credentials ([`sasl`]), and what servers answer
//! ([`reply`]).
//!
//! A parser is given what has come of a command from its first byte on, again with each byte more, and gives the same
//! answer however that was cut. Nothing is longer than the limit that the caller sets.

pub mod imap;
pub mod pop3;
pub mod reply;
pub mod sasl;
pub mod smtp;

/// Finds the end of a line that comes in pieces, without looking at a byte twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineEnd {
    /// So many bytes have been looked at.
    seen: usize,
}

/// How far a line has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// There is no end yet.
    More,
    /// It ends before this offset.
    Whole(usize),
    /// It is longer than it may be.
    TooLong,
}

impl LineEnd {
    /// Looks for the end in `input`, which begins as it did before; with its end the line has at most `limit` bytes.
    pub fn find(&mut self, input: &[u8], limit: usize) -> Line {
        let fresh = input.get(self.seen..).unwrap_or_default();
        let Some(at) = memchr::memchr(b'\n', fresh) else {
            self.seen = self.seen.max(input.len());
            return if input.len() >= limit { Line::TooLong } else { Line::More };
        };
        let end = self.seen + at + 1;
        if end > limit { Line::TooLong } else { Line::Whole(end) }
    }
}

/// The text of a line without its end, which is a line feed or both a carriage return and a line feed.
pub fn text(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether a line of a protocol can hold the value, and a string of C: without NUL, carriage return and line feed.
pub fn is_clean(value: &[u8]) -> bool {
    !value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'))
}

/// The first word of a text, and what follows the spaces after it.
fn split_word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b' ', text).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, skip_spaces(rest))
}

fn skip_spaces(text: &[u8]) -> &[u8] {
    let spaces = text.iter().take_while(|byte| **byte == b' ').count();
    text.get(spaces..).unwrap_or_default()
}

/// The text without spaces at its end.
fn trim_spaces(text: &[u8]) -> &[u8] {
    let spaces = text.iter().rev().take_while(|byte| **byte == b' ').count();
    text.get(..text.len() - spaces).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_however_they_are_cut() {
        for (input, limit, expect) in [
            ("abc\r\nx", 10, Line::Whole(5)),
            ("\n", 1, Line::Whole(1)),
            ("abc", 4, Line::More),
            ("abcd", 4, Line::TooLong),
            ("abcd\n", 4, Line::TooLong),
            ("abc\n", 4, Line::Whole(4)),
        ] {
            for step in 1..=input.len() {
                let mut end = LineEnd::default();
                let mut found = Line::More;
                for upto in (step..input.len()).step_by(step).chain([input.len()]) {
                    found = end.find(&input.as_bytes()[..upto], limit);
                    if found != Line::More {
                        break;
                    }
                }
                assert_eq!(found, expect, "{input:?} by {step}");
            }
        }
    }

    #[test]
    fn texts() {
        for (line, expect) in [("a\r\n", "a"), ("a\n", "a"), ("a", "a"), ("\r\n", ""), ("a\r\r\n", "a\r")] {
            assert_eq!(text(line.as_bytes()), expect.as_bytes());
        }
        assert!(is_clean(b"a \xff\t") && !is_clean(b"a\0") && !is_clean(b"a\r") && !is_clean(b"\n"));
    }
}
