//! Searches over eight bytes at a time in plain integers, and over 32 where texts are long.

use crate::class::{NAME, is};

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

/// How many words a search begins with: one that begins with blocks costs more where it ends soon.
const FIRST_WORDS: usize = 8;

/// The first control byte (below 0x20) at or after `at`.
#[inline(always)]
pub(crate) fn find_control(buf: &[u8], at: usize) -> Option<usize> {
    let (words, _) = buf.get(at..)?.as_chunks::<8>();
    let mut p = at;
    for bytes in words.iter().take(FIRST_WORDS) {
        let hits = below(u64::from_le_bytes(*bytes), 0x20);
        if hits != 0 {
            return Some(p + (hits.trailing_zeros() / 8) as usize);
        }
        p += 8;
    }
    find_late_control(buf, p)
}

/// The same where the text is long, or nearly over.
fn find_late_control(buf: &[u8], at: usize) -> Option<usize> {
    let is_control = |b: u8| b < 0x20;
    find(buf, skip_blocks(buf, at, is_control), |w| below(w, 0x20), is_control)
}

/// Where the search goes on after blocks of 32 bytes without a byte that is looked for.
fn skip_blocks(buf: &[u8], at: usize, byte: impl Fn(u8) -> bool) -> usize {
    let (blocks, _) = buf.get(at..).unwrap_or_default().as_chunks::<32>();
    let clean = blocks.iter().take_while(|block| !block.iter().fold(false, |found, b| found | byte(*b))).count();
    at + 32 * clean
}

/// The first colon, space or control byte at or after `at`.
#[inline(always)]
pub(crate) fn find_name_end(buf: &[u8], at: usize) -> Option<usize> {
    find(buf, at, |w| below(w, 0x21) | equal(w, b':'), |b| b < 0x21 || b == b':')
}

/// Whether all bytes are letters, digits or `-`, as those of usual names are. Long names are looked at by sixteen bytes, of which
/// the last may overlap those before.
pub(crate) fn is_usual_name(name: &[u8]) -> bool {
    let Some(last) = name.last_chunk::<16>() else { return name.iter().all(|&b| is(b, NAME)) };
    let is_odd = |b: u8| ((b | 32).wrapping_sub(b'a') >= 26) & (b.wrapping_sub(b'0') >= 10) & (b != b'-');
    let has_odd = |block: &[u8; 16]| block.iter().fold(false, |found, b| found | is_odd(*b));
    !has_odd(last) && !name.as_chunks::<16>().0.iter().any(has_odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_names() {
        for len in 0..40 {
            for place in 0..len {
                for byte in 0..=255u8 {
                    let mut name = vec![b"-09azAZ"[len % 7]; len];
                    name[place] = byte;
                    let expect = byte.is_ascii_alphanumeric() || byte == b'-';
                    assert_eq!(is_usual_name(&name), expect, "{byte} at {place} of {len}");
                }
            }
        }
    }

    #[test]
    fn every_byte_at_every_place() {
        for place in (0..40).chain([63, 64, 65, 95, 96, 130, 149]) {
            for byte in 0..=255u8 {
                let mut buf = [b'\xe9'; 150];
                buf[place] = byte;
                for at in (0..=40).chain([80, 150]) {
                    let expect = |hit: bool| (hit && place >= at).then_some(place);
                    assert_eq!(find_control(&buf, at), expect(byte < 0x20));
                    assert_eq!(find_name_end(&buf, at), expect(byte < 0x21 || byte == b':'));
                }
            }
        }
        assert_eq!(find_control(b"", 1), None);
    }
}
