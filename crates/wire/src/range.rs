//! The Range header: `bytes=0-99,200-,-50`, with nginx's answers to what is odd.

use smallvec::SmallVec;

/// A range of a body, end exclusive, never empty and never after the body's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// After the last byte.
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

/// Reads the value of a Range header for a body of `length` bytes; at most `max_ranges` ranges are served. Without that
/// bound it is as many as cost about as much as the whole body, so that small ranges can't be used to amplify.
pub fn parse(value: &[u8], length: u64, max_ranges: Option<usize>) -> Ranges {
    let max = max_ranges.unwrap_or(usize::MAX);
    let Some((unit, mut rest)) = value.split_at_checked(UNIT.len()) else { return Ranges::Ignore };
    if !unit.eq_ignore_ascii_case(UNIT) || rest.is_empty() || max == 0 {
        return Ranges::Ignore;
    }
    let mut ranges = SmallVec::new();
    let mut sum = 0u64;
    loop {
        let Some((found, after)) = one(rest, length) else { return Ranges::Unsatisfiable };
        match found {
            Found::Range(_) if ranges.len() == max => return Ranges::Ignore,
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
    let cost = sum.saturating_add(PART_COST * ranges.len() as u64);
    if ranges.is_empty() {
        Ranges::Unsatisfiable
    } else if sum > length || max_ranges.is_none() && cost > length.saturating_add(FREE_COST) {
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

/// One range and what is after its comma; `None` if it isn't one.
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

/// What the head of a part is taken for, in bytes.
const PART_COST: u64 = 256;

/// How much more than the whole body its ranges may cost.
const FREE_COST: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn show(value: &str, length: u64, max: Option<usize>) -> String {
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
            assert_eq!(show(value, 100, None), expect, "{value:?}");
        }
        for value in ["bytes=0-", "bytes=-5", "bytes=0-0", "bytes=-0"] {
            assert_eq!(show(value, 0, None), "200", "{value:?}");
        }
        assert_eq!(show("bytes=0-0,1-1,2-2", 100, Some(2)), "200");
        assert_eq!(show("bytes=0-0,1-1", 100, Some(2)), "0-0,1-1");
        assert_eq!(show("bytes=0-0,200-,200-", 100, Some(2)), "0-0");
        assert_eq!(show("bytes=0-0", 100, Some(0)), "200");
    }
    #[test]
    fn ranges_that_cost_more_than_the_body_are_ignored() {
        let small = |n: usize| {
            let ranges: Vec<_> = (0..n).map(|i| format!("{}-{}", i * 2, i * 2)).collect();
            format!("bytes={}", ranges.join(","))
        };
        let served = |value: &str, length, max| matches!(parse(value.as_bytes(), length, max), Ranges::Satisfiable(_));
        for (n, length, expect) in
            [(17, 273, true), (17, 272, false), (93, 20000, true), (94, 20000, false), (2, 4, true), (1, 1, true)]
        {
            assert_eq!(served(&small(n), length, None), expect, "{n} of {length}");
            assert!(served(&small(n), length, Some(n)), "{n} of {length}");
        }
        for (last, expect) in [(3736, true), (3737, false)] {
            assert_eq!(served(&format!("{},200-{last}", small(79)), 20000, None), expect, "to {last}");
        }
        // What lies after the end costs nothing; what isn't a range is still one too many.
        assert!(served(&format!("{},30000-,30000-", small(93)), 20000, None));
        assert_eq!(parse(format!("{},x", small(94)).as_bytes(), 20000, None), Ranges::Unsatisfiable);
    }
}
