//! Numbers, sizes and times as configurations write them.
//!
//! All functions take the whole text and know no sign, no fraction, and no space around; results never exceed
//! [`i64::MAX`], beyond which nginx calls a value invalid too.

/// A decimal number.
pub fn parse_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut value = 0i64;
    for &byte in text {
        value = push_digit(value, byte)?;
    }
    u64::try_from(value).ok()
}

/// A size in bytes: a number, with `k` or `m` for KiB and MiB.
pub fn parse_size(text: &[u8]) -> Option<u64> {
    scaled(text, 20)
}

/// An offset in bytes: a number, with `k`, `m` or `g` for KiB, MiB and GiB.
pub fn parse_offset(text: &[u8]) -> Option<u64> {
    scaled(text, 30)
}

/// A time in milliseconds: `10`, `1h 30m`, `10ms`; without a unit it is seconds. Units are `w d h m s ms`, larger ones
/// first, each once at most.
pub fn parse_msec(text: &[u8]) -> Option<u64> {
    time(text, true)
}

/// A time in seconds: as [`parse_msec`], with the units `y M w d h m s`; a year is 365 days, a month is 30.
pub fn parse_sec(text: &[u8]) -> Option<u64> {
    time(text, false)
}

fn push_digit(value: i64, byte: u8) -> Option<i64> {
    if !byte.is_ascii_digit() {
        return None;
    }
    value.checked_mul(10)?.checked_add(i64::from(byte - b'0'))
}

fn scaled(text: &[u8], most: u32) -> Option<u64> {
    let (&last, front) = text.split_last()?;
    let shift = match last {
        b'k' | b'K' => 10,
        b'm' | b'M' => 20,
        b'g' | b'G' => 30,
        _ => return parse_number(text),
    };
    if shift > most {
        return None;
    }
    let value = parse_number(front)?.checked_mul(1 << shift)?;
    i64::try_from(value).is_ok().then_some(value)
}

/// Each unit's rank and length in seconds (milliseconds are a case of their own).
const UNITS: [(u8, u8, i64); 7] = [
    (b'y', 0, 365 * 86_400),
    (b'M', 1, 30 * 86_400),
    (b'w', 2, 7 * 86_400),
    (b'd', 3, 86_400),
    (b'h', 4, 3_600),
    (b'm', 5, 60),
    (b's', 6, 1),
];
const RANK_WEEK: u8 = 2;
const RANK_MSEC: u8 = 7;
const RANK_BARE: u8 = 8;

fn time(text: &[u8], msec: bool) -> Option<u64> {
    let second = if msec { 1_000 } else { 1 };
    let (mut total, mut least_rank, mut any) = (0i64, 0, false);
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b' ' {
            // As in nginx, a unit can't follow a space at the very beginning.
            if rest.len() == text.len() {
                least_rank = RANK_BARE + 1;
            }
            rest = tail;
            continue;
        }
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let value = i64::try_from(parse_number(&rest[..digits])?).ok()?;
        rest = &rest[digits..];
        let (rank, length, unit_len) = unit(rest, second)?;
        if rank < least_rank || (msec && rank < RANK_WEEK) || (!msec && rank == RANK_MSEC) {
            return None;
        }
        // A last number without unit may follow another one.
        least_rank = if rest.is_empty() { 0 } else { rank + 1 };
        rest = &rest[unit_len..];
        total = total.checked_add(value.checked_mul(length)?)?;
        any = true;
    }
    if any { u64::try_from(total).ok() } else { None }
}

/// The unit at the start of `rest`: its rank, its length in time and in bytes.
fn unit(rest: &[u8], second: i64) -> Option<(u8, i64, usize)> {
    match rest {
        [] => Some((u8::MAX, second, 0)),
        [b' ', ..] => Some((RANK_BARE, second, 0)),
        [b'm', b's', ..] => Some((RANK_MSEC, 1, 2)),
        [byte, ..] => {
            let &(_, rank, seconds) = UNITS.iter().find(|(name, ..)| name == byte)?;
            Some((rank, seconds * second, 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parse: fn(&[u8]) -> Option<u64>, good: &[(&str, u64)], bad: &[&str]) {
        for &(text, value) in good {
            assert_eq!(parse(text.as_bytes()), Some(value), "{text:?}");
        }
        for text in bad {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn numbers() {
        let good = [("0", 0), ("01", 1), ("9223372036854775807", i64::MAX as u64)];
        check(parse_number, &good, &["", "-1", "+1", "1x", "x", "1k", " 1", "1 ", "9223372036854775808"]);
    }

    #[test]
    fn sizes() {
        let good = [("1", 1), ("1k", 1024), ("1K", 1024), ("2m", 2 << 20), ("8796093022207m", 8796093022207 << 20)];
        check(parse_size, &good, &["", "k", "1kk", "1g", "1 k", "1b", "-1", "8796093022208m", "99999999999999999999"]);
        let good = [("1g", 1 << 30), ("8589934591G", 8589934591 << 30), ("3k", 3072)];
        check(parse_offset, &good, &["", "g", "1gg", "8589934592g", "1.5m"]);
    }

    #[test]
    fn milliseconds() {
        let good = [
            ("0", 0),
            ("10", 10_000),
            ("10ms", 10),
            ("1h 30m", 5_400_000),
            ("1h30m", 5_400_000),
            ("  1", 1_000),
            ("1s  1ms", 1_001),
            ("1h ", 3_600_000),
            ("1 1", 2_000),
            ("1h 1 1", 3_602_000),
            ("1ms 1", 1_001),
            ("1w", 604_800_000),
            ("106751991167d", 106751991167 * 86_400_000),
            ("9223372036854775807ms", i64::MAX as u64),
        ];
        let bad = [
            "",
            " ",
            "-1",
            "x",
            "s",
            "1 h",
            "30m1h",
            "1m 1m",
            "1 1s",
            "1 1 1",
            "1ms 1s",
            "1M",
            "1y",
            "1S",
            "1.5s",
            "\t1",
            "1h\t1m",
            "106751991168d",
            "9223372036854776",
            "1msec",
        ];
        check(parse_msec, &good, &bad);
    }

    #[test]
    fn seconds() {
        let good = [
            ("1y", 31_536_000),
            ("1M", 2_592_000),
            ("1y 1M", 34_128_000),
            ("1M1m1", 2_592_061),
            ("1w 1d", 691_200),
            ("9223372036854775806 1", i64::MAX as u64),
        ];
        check(parse_sec, &good, &["1ms", "1M 1y", "1w1M", "9223372036854775807 1", "2ms "]);
    }
}
