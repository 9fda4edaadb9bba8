//! memcached's text protocol, as far as values are read with it.
//!
//! `get KEY` is answered by a line that repeats the key and tells flags and length, the value, and `END` on a line of its
//! own; or by `END` alone, if there is no such value.

use std::fmt;
use std::ops::Range;

use buf::Buf;

use crate::span::Span;
use crate::uri::{Escape, escape};

/// What follows a value.
pub const END: &[u8] = b"\r\nEND\r\n";

/// The first line of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// There is a value.
    Value {
        /// What was stored beside it; its bits mean what the ones who store say.
        flags: u64,
        /// How many bytes it has.
        length: u64,
    },
    /// There is none.
    NotFound,
}

/// What is wrong with the first line of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is none of the two.
    Response,
    /// It is about another key.
    Key,
    /// The flags aren't a number.
    Flags,
    /// The length isn't a number.
    Length,
}

/// A fault with the line that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineError {
    /// Which fault.
    pub fault: Fault,
    /// The line, without its end.
    pub line: Span,
}

impl LineError {
    /// nginx's text for the error log, without the action; `input` is what was parsed, for `key`.
    pub fn text<'a>(self, input: &'a [u8], key: &'a [u8]) -> impl fmt::Display + use<'a> {
        LineErrorText { error: self, input, key }
    }
}

struct LineErrorText<'a> {
    error: LineError,
    input: &'a [u8],
    key: &'a [u8],
}

impl fmt::Display for LineErrorText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, key) = (buf::text::encode(self.error.line.of(self.input)), buf::text::encode(self.key));
        match self.error.fault {
            Fault::Response => write!(f, "memcached sent invalid response: \"{line}\""),
            Fault::Key => write!(f, "memcached sent invalid key in response \"{line}\" for key \"{key}\""),
            Fault::Flags => write!(f, "memcached sent invalid flags in response \"{line}\" for key \"{key}\""),
            Fault::Length => write!(f, "memcached sent invalid length in response \"{line}\" for key \"{key}\""),
        }
    }
}

const GET: &[u8] = b"get ";
const LINE_END: &[u8] = b"\r\n";

/// Appends the request for a value to `out`. The key's control characters, spaces and percent signs are escaped, so that it
/// is one word.
pub fn get(key: &[u8], out: &mut Buf) {
    let mut word = Vec::with_capacity(key.len());
    escape(Escape::Memcached, key, &mut word);
    for part in [GET, &word, LINE_END] {
        out.extend_from_slice(part);
    }
}

/// Where the key stands in what [`get`] has written.
pub fn key(request: &[u8]) -> Range<usize> {
    GET.len()..request.len().saturating_sub(LINE_END.len()).max(GET.len())
}

/// Reads the first line of an answer about `key`, as it was sent: the line, and the offset after it. `None` if it isn't
/// complete.
pub fn first_line(input: &[u8], key: &[u8]) -> Result<Option<(Line, usize)>, LineError> {
    let Some(at) = memchr::memchr(b'\n', input) else { return Ok(None) };
    let text = input.get(..at).unwrap_or_default();
    let (text, whole) = text.strip_suffix(b"\r").map_or((text, false), |text| (text, true));
    let line = if whole { parse(text, key) } else { Err(Fault::Response) };
    match line {
        Ok(line) => Ok(Some((line, at + 1))),
        Err(fault) => Err(LineError { fault, line: Span::new(0, text.len()) }),
    }
}

fn parse(text: &[u8], key: &[u8]) -> Result<Line, Fault> {
    if text == b"END" {
        return Ok(Line::NotFound);
    }
    let rest = text.strip_prefix(b"VALUE ").ok_or(Fault::Response)?;
    let rest = rest.strip_prefix(key).ok_or(Fault::Key)?;
    let rest = rest.strip_prefix(b" ").ok_or(Fault::Response)?;
    let space = memchr::memchr(b' ', rest).ok_or(Fault::Response)?;
    let (flags, length) = rest.split_at(space);
    let flags = buf::parse::parse_number(flags).ok_or(Fault::Flags)?;
    let length = buf::parse::parse_number(length.get(1..).unwrap_or_default()).ok_or(Fault::Length)?;
    Ok(Line::Value { flags, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let mut out = Buf::empty();
        get(b"/a b%\r\n\x7f", &mut out);
        assert_eq!(out[..], *b"get /a%20b%25%0D%0A\x7f\r\n");
        assert_eq!(out[key(&out)], *b"/a%20b%25%0D%0A\x7f");
    }

    #[test]
    fn first_lines_however_they_are_cut() {
        for (input, expect) in [
            ("VALUE /k 0 5\r\n", "0 5"),
            ("VALUE /k 4294967298 0\r\n", "4294967298 0"),
            ("END\r\n", "none"),
            ("ERROR\r\n", "invalid response: \"ERROR\""),
            ("ENDX\r\n", "invalid response: \"ENDX\""),
            ("END\n", "invalid response: \"END\""),
            ("VALUE /k 0 5\n", "invalid response: \"VALUE /k 0 5\""),
            ("value /k 0 5\r\n", "invalid response: \"value /k 0 5\""),
            ("VALUE /kx 0 5\r\n", "invalid response: \"VALUE /kx 0 5\""),
            ("VALUE /k\r\n", "invalid response: \"VALUE /k\""),
            ("VALUE /k 0\r\n", "invalid response: \"VALUE /k 0\""),
            ("VALUE / 0 5\r\n", "invalid key in response \"VALUE / 0 5\" for key \"/k\""),
            ("VALUE  /k 0 5\r\n", "invalid key in response \"VALUE  /k 0 5\" for key \"/k\""),
            ("VALUE /k x 5\r\n", "invalid flags in response \"VALUE /k x 5\" for key \"/k\""),
            ("VALUE /k  5\r\n", "invalid flags in response \"VALUE /k  5\" for key \"/k\""),
            ("VALUE /k 0 -1\r\n", "invalid length in response \"VALUE /k 0 -1\" for key \"/k\""),
            ("VALUE /k 0 5 77\r\n", "invalid length in response \"VALUE /k 0 5 77\" for key \"/k\""),
            (
                "VALUE /k 0 99999999999999999999\r\n",
                "invalid length in response \"VALUE /k 0 99999999999999999999\" for key \"/k\"",
            ),
        ] {
            for cut in 0..input.len() {
                assert_eq!(first_line(&input.as_bytes()[..cut], b"/k"), Ok(None), "{input:?} cut at {cut}");
            }
            let more = [input.as_bytes(), b"hello"].concat();
            let shown = match first_line(&more, b"/k") {
                Ok(Some((line, used))) => {
                    assert_eq!(used, input.len());
                    match line {
                        Line::Value { flags, length } => format!("{flags} {length}"),
                        Line::NotFound => "none".to_owned(),
                    }
                }
                Ok(None) => "more".to_owned(),
                Err(error) => error.text(&more, b"/k").to_string().replacen("memcached sent ", "", 1),
            };
            assert_eq!(shown, expect, "{input:?}");
        }
    }
}
