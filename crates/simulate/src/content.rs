//! Bytes that tell whose they are and where they stand: each depends on a key and on its position.

use crate::dice::mix;

/// Whose bytes they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A file's.
    File(usize),
    /// A backend's, in its response to this request.
    Response(u64),
    /// A client's, in the body of this request.
    Request(u64),
}

impl Key {
    fn word(self) -> u64 {
        match self {
            Key::File(n) => mix(n as u64 ^ 0xf11e_0000_0000_0000),
            Key::Response(n) => mix(n ^ 0xbac0_0000_0000_0000),
            Key::Request(n) => mix(n ^ 0xc11e_0000_0000_0000),
        }
    }

    /// `len` bytes from position `start` on.
    pub fn bytes(self, start: u64, len: u64) -> Vec<u8> {
        let (key, end) = (self.word(), start + len);
        let mut bytes = Vec::with_capacity(len as usize + 16);
        let first = start / 8;
        for word in first..end.div_ceil(8) {
            bytes.extend_from_slice(&mix(key ^ word).to_le_bytes());
        }
        bytes.drain(..(start - first * 8) as usize);
        bytes.truncate(len as usize);
        bytes
    }

    /// Where `found` first differs from the bytes from `start` on.
    pub(crate) fn difference(self, start: u64, found: &[u8]) -> Option<u64> {
        let expected = self.bytes(start, found.len() as u64);
        let at = expected.iter().zip(found).position(|(a, b)| a != b)?;
        Some(start + at as u64)
    }
}

/// The lengths of the files that the server serves, by number.
pub const FILES: [u64; 9] = [0, 1, 100, 1459, 4095, 8192, 8193, 40_000, 150_000];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_is_a_part_of_the_whole() {
        let whole = Key::File(3).bytes(0, 100);
        for (start, len) in [(0, 100), (1, 9), (7, 1), (8, 8), (15, 40), (99, 1), (50, 0)] {
            assert_eq!(Key::File(3).bytes(start, len), whole[start as usize..(start + len) as usize]);
        }
        assert_ne!(Key::File(4).bytes(0, 100), whole);
        assert_eq!(Key::File(3).difference(0, &whole), None);
        assert_eq!(Key::File(3).difference(10, &whole[11..20]), Some(10));
    }
}
