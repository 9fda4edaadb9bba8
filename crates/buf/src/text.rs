//! Bytes within text, for what is written by way of `fmt` but has to come out as it came in: lines of the error log.
//!
//! What is UTF-8 stays as it is. Each other byte becomes a character of its own that stands for it, in a range that has no
//! characters (the end of the last private use area), and becomes that byte again when the text is written. A character of
//! that range in the bytes themselves is taken for bytes too, so nothing is ever mistaken.

use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The character that stands for byte 0.
const FIRST: u32 = 0x10_FE00;
/// How each of the range's characters begins in UTF-8: four bytes, of which the last two number it.
const BEGINNING: [u8; 2] = [0xf4, 0x8f];

/// The bytes as text.
pub fn encode(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !has_stand_ins(bytes) => return Cow::Borrowed(text),
        _ => {}
    }
    let mut text = String::with_capacity(bytes.len() * 2);
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match stands_for(char) {
                None => text.push(char),
                Some(_) => char.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| text.push(stand_in(byte))),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push(stand_in(*byte)));
    }
    Cow::Owned(text)
}

/// A path as text, for messages.
pub fn path(path: &Path) -> Cow<'_, str> {
    encode(path.as_os_str().as_bytes())
}

/// The bytes that the text stands for.
pub fn decode(text: &str) -> Cow<'_, [u8]> {
    if !has_stand_ins(text.as_bytes()) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for char in text.chars() {
        match stands_for(char) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(bytes)
}

fn has_stand_ins(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == BEGINNING)
}

fn stand_in(byte: u8) -> char {
    char::from_u32(FIRST + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn stands_for(char: char) -> Option<u8> {
    u32::from(char).checked_sub(FIRST).and_then(|byte| u8::try_from(byte).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_out_as_it_came_in() {
        let cases: [&[u8]; 9] = [
            b"",
            b"/index.html",
            "/\u{e9}t\u{e9} \u{1f600}".as_bytes(),
            b"/\xff\xe9-\x80",
            b"\xf4\x8f",
            b"\xf4\x8f\xbf\xbf\x80",
            "\u{10fe00}\u{10feff}\u{10ff00}\u{10fdff}".as_bytes(),
            b"\xed\xa0\x80\xc0\x80",
            b"\xe9",
        ];
        for bytes in cases {
            assert_eq!(*decode(&encode(bytes)), *bytes, "{bytes:x?}");
        }
        let all: Vec<u8> = (0..=255).flat_map(|a| [a, 0xf4, 0x8f, a, 0x80, a]).collect();
        assert_eq!(*decode(&encode(&all)), *all);
        assert!(matches!(encode("caf\u{e9}".as_bytes()), Cow::Borrowed(_)), "text costs nothing");
    }
}
