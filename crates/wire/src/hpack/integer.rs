//! Integers with a prefix of N bits (RFC 7541 §5.1).

use buf::Buf;

/// Why an integer couldn't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntegerError {
    /// Its last bytes are missing.
    Truncated,
    /// It takes more bytes than any size or index here needs: nginx's bound too.
    TooLong,
}

/// Reads an integer whose first byte has `prefix` bits (1 to 8) for it; the value and how many bytes it took.
///
/// At most three bytes follow the first, so a value is below 2²¹ + 255 and nothing overflows.
#[inline]
pub fn decode_integer(input: &[u8], prefix: u32) -> Result<(u32, usize), IntegerError> {
    let mask = 0xff_u32 >> (8 - prefix);
    let first = u32::from(*input.first().ok_or(IntegerError::Truncated)?) & mask;
    if first < mask { Ok((first, 1)) } else { continued(input, mask) }
}

/// Writes `value`; `first` holds the bits of the first byte above the prefix.
pub fn encode_integer(out: &mut Buf, first: u8, prefix: u32, value: u32) {
    let mask = 0xff_u32 >> (8 - prefix);
    if value < mask {
        return out.push(first | value as u8);
    }
    let mut bytes = [first | mask as u8, 0, 0, 0, 0, 0];
    let (mut rest, mut at) = (value - mask, 1);
    while rest >= 128 {
        bytes[at] = rest as u8 | 128;
        rest >>= 7;
        at += 1;
    }
    bytes[at] = rest as u8;
    out.extend_from_slice(&bytes[..=at]);
}

fn continued(input: &[u8], mask: u32) -> Result<(u32, usize), IntegerError> {
    let mut value = mask;
    for (i, &byte) in input.iter().skip(1).take(MAX_CONTINUED).enumerate() {
        value += u32::from(byte & 127) << (7 * i);
        if byte & 128 == 0 {
            return Ok((value, i + 2));
        }
    }
    Err(if input.len() > MAX_CONTINUED { IntegerError::TooLong } else { IntegerError::Truncated })
}

/// Bytes that may follow the first.
const MAX_CONTINUED: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(prefix: u32, value: u32) -> Buf {
        let mut out = Buf::with_capacity(8);
        encode_integer(&mut out, 0, prefix, value);
        out
    }

    #[test]
    fn examples_of_the_rfc() {
        assert_eq!(&encoded(5, 10)[..], [0b01010]);
        assert_eq!(&encoded(5, 1337)[..], [0b11111, 0b1001_1010, 0b1010]);
        assert_eq!(&encoded(8, 42)[..], [42]);
    }

    #[test]
    fn round_trip_and_every_cut() {
        for prefix in 1..=8 {
            for value in (0..3000).chain([16_383, 16_384, (1 << 21) - 1, 1 << 21]) {
                let bytes = encoded(prefix, value);
                assert_eq!(decode_integer(&bytes, prefix), Ok((value, bytes.len())));
                for cut in 0..bytes.len() {
                    assert_eq!(decode_integer(&bytes[..cut], prefix), Err(IntegerError::Truncated));
                }
            }
        }
    }

    #[test]
    fn bounded() {
        assert_eq!(decode_integer(&[255; 4], 7), Err(IntegerError::TooLong));
        assert_eq!(decode_integer(&[255; 3], 7), Err(IntegerError::Truncated));
        assert_eq!(decode_integer(&[255, 255, 255, 127], 8), Ok((255 + (1 << 21) - 1, 4)));
    }
}
