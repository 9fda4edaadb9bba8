//! What a URI's answer must be: `/WHERE/SEED-LENGTH` names LENGTH bytes out of one long random text.

use std::sync::OnceLock;

/// The longest body.
pub(super) const LONGEST: usize = 1 << 20;

/// Seeds differ below this number; further ones repeat.
pub(super) const SEEDS: usize = 4096;

/// The bytes that belong to a seed and a length: another seed gives other bytes, and a byte left out, doubled or moved
/// shows.
pub fn body(seed: usize, length: usize) -> &'static [u8] {
    static TEXT: OnceLock<Vec<u8>> = OnceLock::new();
    let text = TEXT.get_or_init(|| random_text(LONGEST + SEEDS));
    let start = seed % SEEDS;
    text.get(start..start + length.min(LONGEST)).unwrap_or_default()
}

/// The path below a folder (`f` for files, `b` for the backend) that names these bytes.
pub fn uri(folder: &str, seed: usize, length: usize) -> String {
    format!("/{folder}/{seed}-{length}")
}

/// Seed and length in a path.
pub(super) fn parse(path: &str) -> Option<(usize, usize)> {
    let (seed, length) = path.rsplit('/').next()?.split_once('-')?;
    Some((seed.parse().ok()?, length.parse().ok()?))
}

fn random_text(length: usize) -> Vec<u8> {
    let mut random = Random::new(1);
    (0..length).map(|_| (random.next() >> 32) as u8).collect()
}

/// Random numbers that are the same in every run.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    /// A sequence of its own for each number.
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_differ() {
        assert_eq!(body(1, 3).len(), 3);
        assert_ne!(body(1, 30), body(2, 30));
        assert_eq!(body(1, LONGEST).len(), LONGEST);
        assert_eq!(body(SEEDS + 1, 30), body(1, 30));
        assert_eq!(parse(&uri("f", 7, 1000)), Some((7, 1000)));
        assert_eq!((parse("/f/x"), parse("/f/1-x")), (None, None));
    }
}
