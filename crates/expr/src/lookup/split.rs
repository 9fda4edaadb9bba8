//! Shares of clients, by the hash of a key (`split_clients`).

use std::fmt;

/// The 32-bit MurmurHash2 with seed 0.
pub(crate) fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let (words, rest) = key.as_chunks::<4>();
    let mut hash = key.len() as u32;
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        let last = rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = (hash ^ last).wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    hash ^ hash >> 15
}

/// Why a share can't be added; the text is nginx's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PercentError {
    /// Not a number between 0.01 and 100 with at most two decimals, followed by `%`.
    Invalid(String),
    /// All shares together are more than everything.
    Total,
}

impl fmt::Display for PercentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PercentError::Invalid(text) => write!(f, "invalid percent value \"{text}\""),
            PercentError::Total => f.write_str("percent total is greater than 100%"),
        }
    }
}

impl std::error::Error for PercentError {}

/// Values with shares, in order.
#[derive(Clone, Debug)]
pub struct Split<T> {
    /// The first hash that isn't part of the share any more, and the value.
    parts: Vec<(u32, T)>,
    rest: Option<T>,
    /// Hundredths of a percent given away.
    total: u32,
}

impl<T> Default for Split<T> {
    fn default() -> Split<T> {
        Split { parts: Vec::new(), rest: None, total: 0 }
    }
}

impl<T> Split<T> {
    /// No shares.
    pub fn new() -> Split<T> {
        Split::default()
    }

    /// Adds a share such as `0.5%`, or `*` for what the others leave. Of several `*` the first counts; a share after
    /// it is one too many.
    pub fn add(&mut self, share: &str, value: T) -> Result<(), PercentError> {
        if share == "*" {
            self.rest.get_or_insert(value);
            return Ok(());
        }
        let invalid = || PercentError::Invalid(share.to_owned());
        let hundredths = share.strip_suffix('%').and_then(parse_hundredths).ok_or_else(invalid)?;
        if hundredths == 0 {
            return Err(invalid());
        }
        self.total = self.total.saturating_add(hundredths);
        if self.total > 10_000 || self.rest.is_some() {
            return Err(PercentError::Total);
        }
        let width = u64::from(u32::MAX) * u64::from(hundredths) / 10_000;
        let start = self.parts.last().map_or(0, |(end, _)| *end);
        self.parts.push((start.saturating_add(width as u32), value));
        Ok(())
    }

    /// The value for a key.
    pub fn lookup(&self, key: &[u8]) -> Option<&T> {
        self.at(murmur2(key))
    }

    fn at(&self, hash: u32) -> Option<&T> {
        self.parts.iter().find(|(end, _)| hash < *end).map(|(_, value)| value).or(self.rest.as_ref())
    }
}

/// `12`, `12.3`, `12.34` or `.5` in hundredths.
fn parse_hundredths(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if decimals.len() > 2 || !digits(whole) || !digits(decimals) {
        return None;
    }
    let cents = format!("{decimals:0<2}").parse::<u32>().ok()?;
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u32>().ok()? };
    whole.checked_mul(100)?.checked_add(cents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        let mut split = Split::new();
        split.add("0.5%", ".one").expect("a share");
        split.add("2.0%", ".two").expect("a share");
        split.add("*", "").expect("the rest");
        // The figures of nginx's documentation.
        for (hash, expect) in [
            (0, ".one"),
            (21_474_835 - 1, ".one"),
            (21_474_836, ".two"),
            (107_374_180 - 1, ".two"),
            (107_374_181, ""),
            (u32::MAX, ""),
        ] {
            assert_eq!(split.at(hash), Some(&expect), "{hash}");
        }
    }

    /// Answers of nginx with a hundred shares of 1 %.
    #[test]
    fn hashes_are_those_of_nginx() {
        let mut split = Split::new();
        (0..100).for_each(|i| split.add("1%", i).expect("a share"));
        for (key, expect) in [
            ("", 0),
            ("a", 57),
            ("ab", 10),
            ("abc", 7),
            ("abcd", 15),
            ("abcde", 37),
            ("hello", 89),
            ("127.0.0.1", 71),
            ("192.168.0.1AAA", 25),
            ("The_quick_brown_fox", 42),
        ] {
            assert_eq!(split.lookup(key.as_bytes()), Some(&expect), "{key}");
        }
    }

    #[test]
    fn errors() {
        for (shares, expect) in [
            (vec!["10%", "*"], None),
            (vec!["50%", "50%", "*"], None),
            (vec!["*", "*"], None),
            (vec!["0.5%", "99.6%"], Some("percent total is greater than 100%")),
            (vec!["101%"], Some("percent total is greater than 100%")),
            (vec!["50%", "50.01%"], Some("percent total is greater than 100%")),
            (vec!["50%", "*", "10%"], Some("percent total is greater than 100%")),
            (vec![".5%", ".05%", "5.%"], None),
            (vec![".%"], Some("invalid percent value \".%\"")),
            (vec!["0%"], Some("invalid percent value \"0%\"")),
            (vec!["0.001%"], Some("invalid percent value \"0.001%\"")),
            (vec!["x%"], Some("invalid percent value \"x%\"")),
            (vec!["10"], Some("invalid percent value \"10\"")),
            (vec!["%"], Some("invalid percent value \"%\"")),
        ] {
            let mut split = Split::new();
            let error = shares.iter().find_map(|share| split.add(share, ()).err());
            assert_eq!(error.map(|e| e.to_string()).as_deref(), expect, "{shares:?}");
        }
    }
}
