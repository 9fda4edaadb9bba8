//! Searches over eight bytes at a time, in plain integers.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The high bit of each byte of `word` that is below `n`; exact up to and including the lowest.
#[inline(always)]
fn below(word: u64, n: u8) -> u64 {
    word.wrapping_sub(ONES * n as u64) & !word & HIGH
}

#[inline(always)]
fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * byte as u64), 1)
}

/// Offset from `at` on of the first byte for which `word` marks a bit; `byte` says the same of one byte.
#[inline(always)]
fn find(buf: &[u8], at: usize, word: impl Fn(u64) -> u64, byte: impl Fn(u8) -> bool) -> Option<usize> {
    let (words, tail) = buf.get(at..)?.as_chunks::<8>();
    let mut p = at;
    for bytes in words {
        let hits = word(u64::from_le_bytes(*bytes));
        if hits != 0 {
            return Some(p + (hits.trailing_zeros() / 8) as usize);
        }
        p += 8;
    }
    tail.iter().position(|&b| byte(b)).map(|n| p + n)
}

/// The first control byte (below 0x20) at or after `at`.
#[inline(always)]
pub(crate) fn find_control(buf: &[u8], at: usize) -> Option<usize> {
    find(buf, at, |w| below(w, 0x20), |b| b < 0x20)
}

/// The first colon, space or control byte at or after `at`.
#[inline(always)]
pub(crate) fn find_name_end(buf: &[u8], at: usize) -> Option<usize> {
    find(buf, at, |w| below(w, 0x21) | equal(w, b':'), |b| b < 0x21 || b == b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place() {
        for place in 0..40 {
            for byte in 0..=255u8 {
                let mut buf = [b'\xe9'; 40];
                buf[place] = byte;
                for at in 0..=40 {
                    let expect = |hit: bool| (hit && place >= at).then_some(place);
                    assert_eq!(find_control(&buf, at), expect(byte < 0x20));
                    assert_eq!(find_name_end(&buf, at), expect(byte < 0x21 || byte == b':'));
                }
            }
        }
        assert_eq!(find_control(b"", 1), None);
    }
}
