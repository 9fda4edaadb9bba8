//! The Range header: `bytes=0-99,200-,-50`, with nginx's answers to what is odd.

use smallvec::SmallVec;

/// A range of a body, end exclusive, never empty and never behind the body's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// Behind the last byte.
    pub end: u64,
}

impl ByteRange {
    /// How many bytes; at least one.
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(self) -> u64 {
        self.end - self.start
    }
}

/// What a Range header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// The whole body, 200: not a byte range, too many of them, or more bytes in all than the body has.
    Ignore,
    /// Nothing that there is, or not a range at all: 416.
    Unsatisfiable,
    /// These, 206; at least one, in the order asked for.
    Satisfiable(SmallVec<[ByteRange; 1]>),
}

/// Reads the value of a Range header for a body of `length` bytes; at most `max_ranges` ranges are served.
pub fn parse(value: &[u8], length: u64, max_ranges: usize) -> Ranges {
    let Some((unit, mut rest)) = value.split_at_checked(UNIT.len()) else { return Ranges::Ignore };
    if !unit.eq_ignore_ascii_case(UNIT) || rest.is_empty() || max_ranges == 0 {
        return Ranges::Ignore;
    }
    let mut ranges = SmallVec::new();
    let mut sum = 0u64;
    loop {
        let Some((found, after)) = one(rest, length) else { return Ranges::Unsatisfiable };
        match found {
            Found::Range(_) if ranges.len() == max_ranges => return Ranges::Ignore,
            Found::Range(range) => {
                sum = sum.saturating_add(range.len());
                ranges.push(range);
            }
            Found::AtZero => return Ranges::Ignore,
            Found::Outside => {}
        }
        match after {
            None => break,
            Some(next) => rest = next,
        }
    }
    if ranges.is_empty() {
        Ranges::Unsatisfiable
    } else if sum > length {
        Ranges::Ignore
    } else {
        Ranges::Satisfiable(ranges)
    }
}

enum Found {
    Range(ByteRange),
    /// Empty and at the start: the body is empty.
    AtZero,
    Outside,
}

/// One range and what is behind its comma; `None` if it isn't one.
fn one(text: &[u8], length: u64) -> Option<(Found, Option<&[u8]>)> {
    let text = skip_spaces(text);
    let (first, text) = number(text);
    let [b'-', text @ ..] = skip_spaces(text) else { return None };
    let (last, text) = number(skip_spaces(text));
    let (start, end) = match (first?, last?) {
        (None, None) => return None,
        (None, Some(suffix)) => (length.saturating_sub(suffix), length),
        (Some(start), None) => (start, length),
        (Some(start), Some(last)) => (start, last.saturating_add(1).min(length)),
    };
    let after = match skip_spaces(text) {
        [] => None,
        [b',', after @ ..] => Some(after),
        _ => return None,
    };
    let found = match (start < end, start) {
        (true, _) => Found::Range(ByteRange { start, end }),
        (false, 0) => Found::AtZero,
        (false, _) => Found::Outside,
    };
    Some((found, after))
}

/// Digits at the start of `text`, if any, and the rest; `None` inside for a number above 2⁶³ − 1.
#[allow(clippy::option_option, reason = "no number and no valid number differ")]
fn number(text: &[u8]) -> (Option<Option<u64>>, &[u8]) {
    let (digits, rest) = text.split_at(text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len()));
    if digits.is_empty() {
        return (Some(None), rest);
    }
    let value = digits.iter().try_fold(0u64, |n, &b| n.checked_mul(10)?.checked_add(u64::from(b - b'0')));
    (value.filter(|&n| n <= i64::MAX as u64).map(Some), rest)
}

/// Spaces alone are skipped, not tabs.
fn skip_spaces(text: &[u8]) -> &[u8] {
    let n = text.iter().position(|&b| b != b' ').unwrap_or(text.len());
    text.get(n..).unwrap_or_default()
}

const UNIT: &[u8] = b"bytes=";

#[cfg(test)]
mod tests {
    use super::*;

    fn show(value: &str, length: u64, max: usize) -> String {
        match parse(value.as_bytes(), length, max) {
            Ranges::Ignore => "200".into(),
            Ranges::Unsatisfiable => "416".into(),
            Ranges::Satisfiable(ranges) => {
                ranges.iter().map(|r| format!("{}-{}", r.start, r.end - 1)).collect::<Vec<_>>().join(",")
            }
        }
    }

    #[test]
    fn ranges_as_nginx_serves_them() {
        for (value, expect) in [
            ("bytes=0-9", "0-9"),
            ("Bytes=0-9", "0-9"),
            ("bytes =0-9", "200"),
            ("bytes= 0 - 9 ", "0-9"),
            ("bytes=0-", "0-99"),
            ("bytes=-5", "95-99"),
            ("bytes=-0", "416"),
            ("bytes=-", "416"),
            ("bytes=", "200"),
            ("bytes=a", "416"),
            ("bytes=5-3", "416"),
            ("bytes=10", "416"),
            ("bytes=100-", "416"),
            ("bytes=99-200", "99-99"),
            ("bytes=0-9,20-29", "0-9,20-29"),
            ("bytes=0-9, ,20-29", "416"),
            ("bytes=0-9,", "416"),
            ("bytes=,0-9", "416"),
            ("bytes=0-9;", "416"),
            ("bytes=-200", "0-99"),
            ("bytes=0-200,0-0", "200"),
            ("bytes=0-9,200-300", "0-9"),
            ("bytes=200-300,0-9", "0-9"),
            ("bytes=18446744073709551615-", "416"),
            ("bytes=0-18446744073709551615", "416"),
            ("bytes=0-9223372036854775807", "0-99"),
            ("bytes=9223372036854775807-", "416"),
            ("bytes=0-9223372036854775808", "416"),
            ("bytes=-9223372036854775808", "416"),
            ("bytes=0-9,0-9", "0-9,0-9"),
            ("bytes=50-99,0-49", "50-99,0-49"),
            ("bytes=50-99,0-50", "200"),
            ("items=0-9", "200"),
            ("bytes=0-9 20-29", "416"),
            ("bytes=\t0-9", "416"),
        ] {
            assert_eq!(show(value, 100, usize::MAX), expect, "{value:?}");
        }
        for value in ["bytes=0-", "bytes=-5", "bytes=0-0", "bytes=-0"] {
            assert_eq!(show(value, 0, usize::MAX), "200", "{value:?}");
        }
        assert_eq!(show("bytes=0-0,1-1,2-2", 100, 2), "200");
        assert_eq!(show("bytes=0-0,1-1", 100, 2), "0-0,1-1");
        assert_eq!(show("bytes=0-0,200-,200-", 100, 2), "0-0");
        assert_eq!(show("bytes=0-0", 100, 0), "200");
    }
}
