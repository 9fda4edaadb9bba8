//! Packets of uwsgi: what is written comes back out of them, for any names and values.
#![cfg_attr(fuzzing, no_main)]

use buf::Buf;
use wire::uwsgi::{self, Modifiers, TooBig};

/// A part of a block after its length.
fn take<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let (length, after) = rest.split_at(2);
    let (part, after) = after.split_at(usize::from(u16::from_le_bytes([length[0], length[1]])));
    *rest = after;
    part
}

tidegate_fuzz::target!(|data: &[u8]| {
    let Some(([first, second], input)) = data.split_first_chunk() else { return };
    let pairs: Vec<_> = input.split(|byte| *byte == 0xff).map(|pair| pair.split_at(pair.len() / 3)).collect();
    let mut block = Vec::new();
    for (name, value) in &pairs {
        uwsgi::variable(name, value, &mut block);
    }
    let mut out = Buf::empty();
    match uwsgi::packet(Modifiers(*first, *second), &block, &mut out) {
        Err(TooBig(size)) => assert!(size > 0xffff && out.is_empty()),
        Ok(()) => {
            assert_eq!((out[0], out[3]), (*first, *second));
            let mut rest = &out[4..];
            assert_eq!(rest.len(), usize::from(u16::from_le_bytes([out[1], out[2]])));
            for pair in pairs {
                assert_eq!((take(&mut rest), take(&mut rest)), pair);
            }
            assert!(rest.is_empty());
        }
    }
});
