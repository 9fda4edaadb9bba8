//! The Huffman code of RFC 7541 appendix B.
//!
//! The code is canonical: the lengths alone say everything, so only they are listed, and the tables are computed when
//! the program is built. Decoding looks ten bits up at once; the rare longer codes are found by their length's range.

use buf::Buf;

/// A string isn't valid: it has the end-of-string symbol, or its padding isn't of ones, eight at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HuffmanError;

/// Appends what `input` stands for to `out`.
pub fn decode(input: &[u8], out: &mut Buf) -> Result<(), HuffmanError> {
    // The shortest code has five bits.
    let most = input.len() * 8 / 5;
    out.reserve(most);
    let written = decode_into(input, &mut out.room_mut()[..most])?;
    out.filled(written);
    Ok(())
}

/// How many bytes `text` takes when encoded.
#[inline]
pub fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|&byte| usize::from(LENGTHS[usize::from(byte)])).sum();
    bits.div_ceil(8)
}

/// Appends `text` in its encoded form to `out`; `len` is its [`encoded_len`].
pub fn encode(text: &[u8], len: usize, out: &mut Buf) {
    // Whole words are written, and the last one may reach beyond the end.
    out.reserve(len + 4);
    encode_into(text, out.room_mut());
    out.filled(len);
}

fn encode_into(text: &[u8], mut room: &mut [u8]) {
    let (mut acc, mut bits) = (0u64, 0u32);
    for &byte in text {
        let len = u32::from(LENGTHS[usize::from(byte)]);
        acc = acc << len | u64::from(TABLES.codes[usize::from(byte)]);
        bits += len;
        if bits >= 32 {
            bits -= 32;
            room = put(room, (acc >> bits) as u32);
        }
    }
    // Filled up with ones: the most significant bits of the end-of-string symbol.
    put(room, (acc << (32 - bits) | ((1u64 << (32 - bits)) - 1)) as u32);
}

#[inline(always)]
fn put(room: &mut [u8], word: u32) -> &mut [u8] {
    match room.split_first_chunk_mut::<4>() {
        Some((place, rest)) => {
            *place = word.to_be_bytes();
            rest
        }
        None => &mut [],
    }
}

/// Bits that haven't been decoded yet, the next one at the top.
struct Bits<'a> {
    input: &'a [u8],
    acc: u64,
    count: u32,
}

impl Bits<'_> {
    /// Takes input until at least 32 bits are there or it is used up.
    #[inline(always)]
    fn refill(&mut self) {
        if let Some((word, rest)) = self.input.split_first_chunk::<4>() {
            self.acc |= u64::from(u32::from_be_bytes(*word)) << (32 - self.count);
            self.count += 32;
            self.input = rest;
        } else {
            self.refill_slowly();
        }
    }

    fn refill_slowly(&mut self) {
        while let Some((&byte, rest)) = self.input.split_first()
            && self.count <= 56
        {
            self.acc |= u64::from(byte) << (56 - self.count);
            self.count += 8;
            self.input = rest;
        }
    }

    #[inline(always)]
    fn consume(&mut self, len: u32) {
        self.acc <<= len;
        self.count -= len;
    }

    /// Whether what is left can be padding. As nginx this takes a whole byte of it too, which RFC 7541 §5.2 forbids.
    fn is_padding(&self) -> bool {
        self.count <= 8 && self.acc == !(u64::MAX >> self.count)
    }
}

fn decode_into(input: &[u8], out: &mut [u8]) -> Result<usize, HuffmanError> {
    let mut bits = Bits { input, acc: 0, count: 0 };
    let mut at = 0;
    loop {
        if bits.count < LONGEST {
            bits.refill();
        }
        let quick = TABLES.quick[(bits.acc >> (64 - QUICK_BITS)) as usize];
        let (symbol, len) = if quick != 0 { (u16::from(quick as u8), u32::from(quick >> 8)) } else { long(bits.acc) };
        if len > bits.count {
            return if bits.is_padding() { Ok(at) } else { Err(HuffmanError) };
        }
        if symbol == EOS {
            return Err(HuffmanError);
        }
        *out.get_mut(at).ok_or(HuffmanError)? = symbol as u8;
        at += 1;
        bits.consume(len);
    }
}

/// The symbol of a code longer than [`QUICK_BITS`] at the top of `acc`, and the code's length.
#[cold]
fn long(acc: u64) -> (u16, u32) {
    let code = (acc >> 32) as u32;
    let mut len = QUICK_BITS + 1;
    while len < LONGEST && code > TABLES.last[len as usize] {
        len += 1;
    }
    let index = (code - TABLES.first[len as usize]) >> (32 - len);
    // After the last code of 30 bits there is none: the code is complete.
    let at = usize::from(TABLES.start[len as usize]) + index as usize;
    (TABLES.sorted.get(at).copied().unwrap_or(EOS), len)
}

/// Everything that follows from the lengths.
struct Tables {
    /// The code of each symbol, in its low bits.
    codes: [u32; SYMBOLS],
    /// By the next ten bits: length × 256 + symbol, or 0 where the code is longer.
    quick: [u16; 1 << QUICK_BITS],
    /// By length: the first code of it, at the top of 32 bits.
    first: [u32; LONGEST as usize + 1],
    /// By length: the last 32 bits that begin with a code of this length or a shorter one.
    last: [u32; LONGEST as usize + 1],
    /// By length: where its symbols begin in `sorted`.
    start: [u16; LONGEST as usize + 1],
    /// The symbols by length, then by value.
    sorted: [u16; SYMBOLS],
}

static TABLES: Tables = tables();

const fn tables() -> Tables {
    let mut t = Tables {
        codes: [0; SYMBOLS],
        quick: [0; 1 << QUICK_BITS],
        first: [0; LONGEST as usize + 1],
        last: [0; LONGEST as usize + 1],
        start: [0; LONGEST as usize + 1],
        sorted: [0; SYMBOLS],
    };
    let (mut code, mut at, mut len) = (0u32, 0, 1);
    while len <= LONGEST {
        code <<= 1;
        t.first[len as usize] = code << (32 - len);
        t.start[len as usize] = at as u16;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as u32 == len {
                t.codes[symbol] = code;
                t.sorted[at] = symbol as u16;
                if len <= QUICK_BITS {
                    fill(&mut t.quick, code, len, symbol as u16);
                }
                code += 1;
                at += 1;
            }
            symbol += 1;
        }
        t.last[len as usize] = ((code as u64) << (32 - len)).saturating_sub(1) as u32;
        len += 1;
    }
    t
}

/// Enters a short code at every index that begins with it.
const fn fill(quick: &mut [u16; 1 << QUICK_BITS], code: u32, len: u32, symbol: u16) {
    let free = QUICK_BITS - len;
    let mut i = 0;
    while i < 1 << free {
        quick[(code << free) as usize + i] = (len as u16) << 8 | symbol;
        i += 1;
    }
}

/// Bytes, and the end of a string.
const SYMBOLS: usize = 257;
/// The end of a string: never sent.
const EOS: u16 = 256;
/// The longest code, in bits.
const LONGEST: u32 = 30;
/// How many bits are looked up at once.
const QUICK_BITS: u32 = 10;

/// The length of each symbol's code, in bits.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28,
    28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6,
    12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15,
    5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20,
    22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22,
    23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26,
    27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &[u8]) -> Buf {
        let mut out = Buf::empty();
        encode(text, encoded_len(text), &mut out);
        out
    }

    fn decoded(input: &[u8]) -> Option<Vec<u8>> {
        let mut out = Buf::empty();
        decode(input, &mut out).ok().map(|()| out.to_vec())
    }

    #[test]
    fn codes_of_the_rfc() {
        // RFC 7541 appendix B: a few of each length.
        for (symbol, code, len) in
            [(0u8, 0x1ff8, 13), (b'0', 0, 5), (b'a', 3, 5), (b'z', 0x7b, 7), (b'{', 0x7ffe, 15), (255, 0x3ff_ffee, 26)]
        {
            assert_eq!(TABLES.codes[usize::from(symbol)], code);
            assert_eq!(LENGTHS[usize::from(symbol)], len);
        }
        assert_eq!((TABLES.codes[10], TABLES.codes[256]), (0x3fff_fffc, 0x3fff_ffff));
    }

    #[test]
    fn every_pair_comes_back() {
        for a in 0..=255 {
            for b in 0..=255 {
                let text = [a, b, b'-', a];
                assert_eq!(decoded(&encoded(&text)).as_deref(), Some(&text[..]));
            }
        }
    }

    #[test]
    fn every_length_comes_back() {
        let text: Vec<u8> = (0..600u32).map(|i| (i * 7 % 256) as u8).collect();
        for len in 0..text.len() {
            assert_eq!(decoded(&encoded(&text[..len])).as_deref(), Some(&text[..len]));
        }
    }

    #[test]
    fn refuses_bad_endings() {
        for bad in [
            &[0xff, 0xff, 0xff, 0xff][..], // The end-of-string symbol.
            &[0x00],                       // "0" and padding of zeros.
            &[0x1f, 0xff],                 // "a" and eleven ones.
            &[0x18],                       // "a" and zeros.
        ] {
            assert_eq!(decoded(bad), None, "{bad:x?}");
        }
        assert_eq!(decoded(&[0x1f]).as_deref(), Some(&b"a"[..]));
        assert_eq!(decoded(&[0xff]).as_deref(), Some(&b""[..]), "eight bits of padding are borne");
        assert_eq!(decoded(&[]).as_deref(), Some(&b""[..]));
    }
}
