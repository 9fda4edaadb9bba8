//! The hash of the tables of names.
//!
//! The keys of a table come from the configuration, so a client can't choose collisions: speed is all that counts.

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const STEP: u64 = 0xff51_afd7_ed55_8ccd;

/// The hash of a whole key.
pub(super) fn hash(key: &[u8]) -> u64 {
    let (words, rest) = key.as_chunks::<8>();
    let mut state = SEED ^ key.len() as u64;
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    finish(fold(state ^ u64::from_le_bytes(last)))
}

fn fold(state: u64) -> u64 {
    let wide = u128::from(state) * u128::from(STEP);
    (wide as u64) ^ (wide >> 64) as u64
}

fn finish(state: u64) -> u64 {
    state ^ (state >> 32)
}

/// A hash that grows by one byte at a time, so that one pass over a name gives those of all its tails, or heads.
#[derive(Clone, Copy)]
pub(super) struct Rolling(u64);

impl Rolling {
    pub(super) fn new() -> Rolling {
        Rolling(SEED)
    }

    pub(super) fn push(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(STEP).rotate_left(23);
    }

    pub(super) fn value(self) -> u64 {
        finish(fold(self.0))
    }
}
