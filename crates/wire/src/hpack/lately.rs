//! Huffman's code of texts that were encoded lately.
//!
//! The time of a file's change, its tag, the date: such values are the same in many responses, on many connections. To
//! compare one with the last text at its place costs a fraction of encoding it. Only values that everybody may know are
//! kept here.

use std::cell::RefCell;

use buf::Buf;

use super::huffman;

/// How many texts are remembered, each at the place that its ends say.
const PLACES: usize = 64;
/// The shortest and the longest of them: what is shorter is encoded as fast as it is found.
const SHORTEST: usize = 8;
const LONGEST: usize = 30;

#[derive(Clone, Copy)]
struct Coded {
    text: [u8; LONGEST],
    len: u8,
    /// Length of the code; 0 if the text is no longer than that.
    coded_len: u8,
    coded: [u8; LONGEST],
}

const NOTHING: Coded = Coded { text: [0; LONGEST], len: 0, coded_len: 0, coded: [0; LONGEST] };

thread_local! {
    static LATELY: RefCell<[Coded; PLACES]> = const { RefCell::new([NOTHING; PLACES]) };
}

/// Calls `write` with the code of a text, or with `None` if the text is no longer than its code. False, without a call:
/// texts of such a length aren't remembered.
pub(super) fn with_code(text: &[u8], write: impl FnOnce(Option<&[u8]>)) -> bool {
    let Some(place) = place(text) else { return false };
    LATELY.with_borrow_mut(|lately| {
        let Some(known) = lately.get_mut(place) else { return };
        if known.text.get(..usize::from(known.len)) != Some(text) {
            *known = Coded::of(text);
        }
        let coded = known.coded.get(..usize::from(known.coded_len)).unwrap_or_default();
        write((!coded.is_empty()).then_some(coded));
    });
    true
}

/// The place of a text that may be remembered.
fn place(text: &[u8]) -> Option<usize> {
    const { assert!(SHORTEST == size_of::<u64>()) };
    let (first, last) = (text.first_chunk()?, text.last_chunk()?);
    let mixed = u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(29);
    let place = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PLACES.trailing_zeros());
    (text.len() <= LONGEST).then_some(place as usize)
}

impl Coded {
    /// Of a text no longer than [`LONGEST`].
    fn of(text: &[u8]) -> Coded {
        let mut new = Coded { len: text.len() as u8, ..NOTHING };
        new.text[..text.len()].copy_from_slice(text);
        let length = huffman::encoded_len(text);
        if length < text.len() {
            let mut code = Buf::empty();
            huffman::encode(text, length, &mut code);
            new.coded[..length].copy_from_slice(&code);
            new.coded_len = length as u8;
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_right_however_often_they_are_asked_for() {
        let tag = |n: u32| format!("\"6b025df1-{n:x}\"").into_bytes();
        let mut texts: Vec<Vec<u8>> = (0..300).map(tag).collect();
        texts.extend([b"Mon, 21 Oct 2013 20:13:21 GMT".to_vec(), vec![0xff; 20], vec![b'a'; LONGEST], vec![b'a'; 8]]);
        for _ in 0..2 {
            for text in &texts {
                let length = huffman::encoded_len(text);
                let mut expect = Buf::empty();
                huffman::encode(text, length, &mut expect);
                let expect = (length < text.len()).then_some(&expect[..]);
                let mut calls = 0;
                assert!(with_code(text, |code| {
                    assert_eq!(code, expect);
                    calls += 1;
                }));
                assert_eq!(calls, 1);
            }
        }
        for length in [0, SHORTEST - 1, LONGEST + 1] {
            assert!(!with_code(&vec![b'a'; length], |_| panic!("it isn't remembered")));
        }
    }
}
