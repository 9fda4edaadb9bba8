//! Recoding: the same whole and cut in two; what becomes UTF-8 is UTF-8; single bytes keep a text's length.
#![cfg_attr(fuzzing, no_main)]

use std::rc::Rc;

use buf::{Bytes, Chain, Piece};
use wire::charset::{Recode, Recoder};

fn recode(recode: &Rc<Recode>, parts: [&[u8]; 2]) -> Vec<u8> {
    let mut recoder = Recoder::new(recode.clone());
    let mut out = Chain::new();
    parts.iter().for_each(|part| recoder.push(Bytes::copy_from(part), &mut out));
    let bytes = out.pieces().iter().flat_map(|piece| match piece {
        Piece::Bytes(bytes) => bytes.to_vec(),
        Piece::File(_) => unreachable!("there are no files"),
    });
    bytes.collect()
}

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((&[cut, byte, other], text)) = data.split_first_chunk() else { return };
    let (first, second) = text.split_at(usize::from(cut).min(text.len()));
    let character = char::from_u32(0x400 + u32::from(other)).expect("it is a letter");
    let [to, from] = Recode::with_utf8(&[(byte, character), (0xc0, '\u{44e}'), (0x80, '\u{20ac}')]);
    let [there, back] = Recode::between_bytes(&[(byte, other), (0xc0, 0xe0)]);
    for table in [to, from, there, back].map(Rc::new) {
        let whole = recode(&table, [text, &[]]);
        assert!(whole == recode(&table, [first, second]));
        assert!(!matches!(*table, Recode::ToUtf8(_)) || std::str::from_utf8(&whole).is_ok());
        assert!(!table.keeps_length() || whole.len() == text.len());
    }
});
