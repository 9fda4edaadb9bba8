//! Replacing strings: the same as the plain way, whole and cut in two.
#![cfg_attr(fuzzing, no_main)]

use std::rc::Rc;

use buf::{Bytes, Chain, Piece};
use wire::replace::{Needles, Replacer, replace_naively};

fn replace(parts: [&[u8]; 2], needles: &[&[u8]], replacements: &[&[u8]], once: bool) -> Vec<u8> {
    let needles = Rc::new(Needles::new(needles.iter().copied()));
    let mut replacer = Replacer::new(needles, replacements.iter().map(|text| Bytes::copy_from(text)).collect(), once);
    let mut out = Chain::new();
    parts.iter().for_each(|part| replacer.push(Bytes::copy_from(part), false, &mut out));
    replacer.push(Bytes::default(), true, &mut out);
    let bytes = out.pieces().iter().flat_map(|piece| match piece {
        Piece::Bytes(bytes) => bytes.to_vec(),
        Piece::File(_) => unreachable!("there are no files"),
    });
    bytes.collect()
}

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((&[first, cut], mut rest)) = data.split_first_chunk() else { return };
    let (once, count) = (first > 127, usize::from(first % 4));
    let mut needles = Vec::new();
    for _ in 0..count {
        let Some((&len, after)) = rest.split_first() else { break };
        let (needle, after) = after.split_at(usize::from(len).min(after.len()));
        needles.push(needle);
        rest = after;
    }
    let replacements: Vec<&[u8]> = [&b"<0>"[..], b"", b"a"][..needles.len()].to_vec();
    let expect = replace_naively(rest, &needles, &replacements, once);
    let (one, other) = rest.split_at(usize::from(cut).min(rest.len()));
    assert!(replace([rest, &[]], &needles, &replacements, once) == expect);
    assert!(replace([one, other], &needles, &replacements, once) == expect);
});
