//! Hexadecimal digits.

/// The two digits of a byte, in small letters.
pub fn lower(byte: u8) -> [u8; 2] {
    pair(byte, b"0123456789abcdef")
}

/// The same in capitals.
pub fn upper(byte: u8) -> [u8; 2] {
    pair(byte, b"0123456789ABCDEF")
}

/// The digits of some bytes, in small letters.
pub fn text(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| lower(*byte)).map(char::from).collect()
}

/// The same in capitals.
pub fn upper_text(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| upper(*byte)).map(char::from).collect()
}

/// The value of a digit.
#[inline]
pub fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// The bytes of pairs of digits.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(value(*high)? << 4 | value(*low)?)).collect()
}

fn pair(byte: u8, digits: &[u8; 16]) -> [u8; 2] {
    [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let all: Vec<u8> = (0..=255).collect();
        for (text, byte) in [(text(&all), 0xab), (upper_text(&all), 0xAB)] {
            assert_eq!(decode(text.as_bytes()), Some(all.clone()));
            assert_eq!(u8::from_str_radix(&text[2 * byte..2 * byte + 2], 16), Ok(byte as u8));
        }
        assert_eq!((text(&[0x0f, 0xa0]), upper_text(&[0x0f, 0xa0])), ("0fa0".to_owned(), "0FA0".to_owned()));
    }

    #[test]
    fn other_texts() {
        for text in ["0", "0g", "g0", "+1", "0x", " 1", "é"] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
        assert_eq!(decode(b""), Some(Vec::new()));
    }
}
