//! Charsets: bytes of one become bytes of another.
//!
//! A table is made for two charsets of single bytes, or for one of them and UTF-8. What the other charset lacks becomes
//! `?`, but in the way from UTF-8 a reference, `&#1234;`, as HTML and XML have it. ASCII stays what it is unless the table
//! says otherwise.

use std::rc::Rc;

use buf::{Buf, Bytes, Chain};

/// How the bytes of a charset become those of another.
pub enum Recode {
    /// Each byte becomes a byte.
    Bytes(Box<[u8; 256]>),
    /// Each byte becomes a character in UTF-8.
    ToUtf8(Box<[char; 256]>),
    /// Each character becomes a byte.
    FromUtf8(Pages),
}

/// Bytes by characters: a page for each 256 of them that has any.
#[derive(Default)]
pub struct Pages(Vec<(u32, Box<[Option<u8>; 256]>)>);

/// What stands for what the other charset lacks.
const MISSING: u8 = b'?';

impl Recode {
    /// The ways there and back of a table of bytes.
    pub fn between_bytes(table: &[(u8, u8)]) -> [Recode; 2] {
        let plain = || Box::new(std::array::from_fn(|byte| if byte < 0x80 { byte as u8 } else { MISSING }));
        let (mut there, mut back): (Box<[u8; 256]>, Box<[u8; 256]>) = (plain(), plain());
        for &(from, to) in table {
            there[usize::from(from)] = to;
            back[usize::from(to)] = from;
        }
        [Recode::Bytes(there), Recode::Bytes(back)]
    }

    /// The ways to UTF-8 and back of a table of characters.
    pub fn with_utf8(table: &[(u8, char)]) -> [Recode; 2] {
        let mut there: Box<[char; 256]> =
            Box::new(std::array::from_fn(
                |byte| if byte < 0x80 { char::from(byte as u8) } else { char::from(MISSING) },
            ));
        let mut back = Pages::default();
        for &(byte, character) in table {
            there[usize::from(byte)] = character;
            back.put(character, byte);
        }
        [Recode::ToUtf8(there), Recode::FromUtf8(back)]
    }

    /// Whether a text keeps its length.
    pub fn keeps_length(&self) -> bool {
        matches!(self, Recode::Bytes(_))
    }
}

impl Pages {
    fn put(&mut self, character: char, byte: u8) {
        let (page, at) = (u32::from(character) >> 8, u32::from(character) as usize & 0xff);
        let index = self.0.iter().position(|(own, _)| *own == page).unwrap_or_else(|| {
            self.0.push((page, Box::new([None; 256])));
            self.0.len() - 1
        });
        self.0[index].1[at] = Some(byte);
    }

    fn find(&self, character: char) -> Option<u8> {
        let (page, at) = (u32::from(character) >> 8, u32::from(character) as usize & 0xff);
        self.0.iter().find(|(own, _)| *own == page)?.1[at]
    }
}

/// Recodes one text.
pub struct Recoder {
    recode: Rc<Recode>,
    /// The beginning of a character whose end is still to come.
    begun: Vec<u8>,
}

impl Recoder {
    /// From the text's beginning on.
    pub fn new(recode: Rc<Recode>) -> Recoder {
        Recoder { recode, begun: Vec::new() }
    }

    /// Takes a part of the text, and appends it recoded. A character that the text's end cuts off is lost.
    pub fn push(&mut self, part: Bytes, out: &mut Chain) {
        match &*self.recode.clone() {
            Recode::Bytes(table) => recode_bytes(table, part, out),
            Recode::ToUtf8(table) => to_utf8(table, part, out),
            Recode::FromUtf8(pages) => self.characters(pages, part, out),
        }
    }

    fn characters(&mut self, pages: &Pages, part: Bytes, out: &mut Chain) {
        if self.begun.is_empty() && part.is_ascii() {
            return out.push_bytes(part);
        }
        let begun = std::mem::take(&mut self.begun);
        let joint;
        let text = match &begun[..] {
            [] => &part[..],
            begun => {
                joint = [begun, &part].concat();
                &joint
            }
        };
        let mut to = Buf::with_capacity(text.len());
        let mut chunks = text.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            append(pages, chunk.valid(), &mut to);
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && is_begun(invalid) {
                self.begun.extend_from_slice(invalid);
            } else {
                invalid.iter().for_each(|_| to.extend_from_slice(&[MISSING]));
            }
        }
        out.push_bytes(to);
    }
}

fn recode_bytes(table: &[u8; 256], part: Bytes, out: &mut Chain) {
    let Some(first) = part.iter().position(|&byte| table[usize::from(byte)] != byte) else {
        return out.push_bytes(part);
    };
    let mut to = Buf::with_capacity(part.len());
    to.extend_from_slice(&part);
    for byte in &mut to.as_mut_slice()[first..] {
        *byte = table[usize::from(*byte)];
    }
    out.push_bytes(to);
}

fn to_utf8(table: &[char; 256], part: Bytes, out: &mut Chain) {
    if part.iter().all(|&byte| byte < 0x80 && table[usize::from(byte)] == char::from(byte)) {
        return out.push_bytes(part);
    }
    let mut to = Buf::with_capacity(part.len() * 2);
    for &byte in &*part {
        to.extend_from_slice(table[usize::from(byte)].encode_utf8(&mut [0; 4]).as_bytes());
    }
    out.push_bytes(to);
}

fn append(pages: &Pages, text: &str, to: &mut Buf) {
    for character in text.chars() {
        match (u8::try_from(character).ok().filter(u8::is_ascii)).or_else(|| pages.find(character)) {
            Some(byte) => to.extend_from_slice(&[byte]),
            None => {
                to.extend_from_slice(b"&#");
                to.extend_from_slice(buf::number::digits(u64::from(u32::from(character)), &mut [0; 20]));
                to.extend_from_slice(b";");
            }
        }
    }
}

/// Whether it is the beginning of a character in UTF-8.
fn is_begun(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// The character of that encoding in UTF-8, which is longer than a byte.
pub fn character(encoding: &[u8]) -> Option<char> {
    let mut characters = std::str::from_utf8(encoding).ok()?.chars();
    characters.next().filter(|character| !character.is_ascii() && characters.next().is_none())
}

#[cfg(test)]
mod tests {
    use buf::Piece;

    use super::*;

    fn check(recode: &Rc<Recode>, text: &[u8], expect: &[u8]) {
        for cut in 0..=text.len() {
            let mut recoder = Recoder::new(recode.clone());
            let mut out = Chain::new();
            for part in [&text[..cut], &text[cut..]] {
                recoder.push(Bytes::copy_from(part), &mut out);
            }
            let found: Vec<u8> = out
                .pieces()
                .iter()
                .flat_map(|piece| match piece {
                    Piece::Bytes(bytes) => bytes.to_vec(),
                    Piece::File(_) => Vec::new(),
                })
                .collect();
            assert!(found == expect, "{} cut at {cut}: {}", text.escape_ascii(), found.escape_ascii());
        }
    }

    #[test]
    fn bytes_to_bytes() {
        let [there, back] = Recode::between_bytes(&[(0xc0, 0xe0), (b'X', b'Y')]).map(Rc::new);
        check(&there, b"abc\xc0XYZ\x80", b"abc\xe0YYZ?");
        check(&back, b"abc\xe0XYZ\x80", b"abc\xc0XXZ?");
        check(&there, b"", b"");
    }

    #[test]
    fn utf8() {
        let table = [(0xc0, '\u{44e}'), (0x80, '\u{20ac}'), (b'a', '\u{430}'), (0x81, '\u{44e}')];
        let [there, back] = Recode::with_utf8(&table).map(Rc::new);
        check(&there, b"abc\xc0\x80\x81\xff", "\u{430}bc\u{44e}\u{20ac}\u{44e}?".as_bytes());
        check(&there, b"bc", b"bc");
        let text = "abc\u{44e}\u{430}\u{431}\u{20ac}\u{1f600}".as_bytes();
        check(&back, text, b"abc\x81a&#1073;\x80&#128512;");
        check(&back, b"\xff\xc0\x80 \xe2\x82", b"??? ");
        check(&back, b"\xe2\x82a\xd1\xd1\x8e", b"??a?\x81");
    }

    #[test]
    fn characters() {
        for (encoding, expect) in [
            (&b"\xd1\x8e"[..], Some('\u{44e}')),
            (b"\xe2\x82\xac", Some('\u{20ac}')),
            (b"b", None),
            (b"", None),
            (b"\xc2", None),
            (b"\xd1\x8e\xd1\x8e", None),
            (b"\xff\xff", None),
        ] {
            assert_eq!(character(encoding), expect, "{}", encoding.escape_ascii());
        }
    }
}
