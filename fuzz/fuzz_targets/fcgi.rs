//! Records of FastCGI applications: no panic, no loop without progress, and the same streams whole and cut in two; and
//! what is sent to applications comes back out of its records.
#![cfg_attr(fuzzing, no_main)]

use buf::{Buf, Bytes, Chain, Piece};
use wire::fcgi::{self, Decoder, Output, RecordError, Step};

/// Both streams, what ended in which order, and the fault.
type Found = (Vec<u8>, Vec<u8>, Vec<Option<Output>>, Option<RecordError>);

fn decode(pieces: [&[u8]; 2]) -> Found {
    let (mut decoder, mut found) = (Decoder::default(), Found::default());
    for mut piece in pieces {
        loop {
            let (used, step) = match decoder.step(piece) {
                Ok(step) => step,
                Err(error) => {
                    found.3 = Some(error);
                    return found;
                }
            };
            match step {
                Step::More => {
                    assert_eq!(used, piece.len());
                    break;
                }
                Step::Data(output, range, _) => {
                    assert!(range.end == used && !range.is_empty());
                    let stream = if output == Output::Stdout { &mut found.0 } else { &mut found.1 };
                    stream.extend_from_slice(&piece[range]);
                }
                Step::Closed(output) => found.2.push(Some(output)),
                Step::End => found.2.push(None),
            }
            piece = &piece[used..];
        }
    }
    found
}

/// A record's type, its content, and what follows it.
fn split(bytes: &[u8]) -> (u8, &[u8], &[u8]) {
    let length = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
    let (content, rest) = bytes[8..].split_at(length);
    (bytes[1], content, &rest[usize::from(bytes[6])..])
}

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((&cut, input)) = data.split_first() else { return };
    let (first, second) = input.split_at(usize::from(cut).min(input.len()));
    assert_eq!(decode([input, &[]]), decode([first, second]));

    let mut out = Buf::empty();
    fcgi::params(input, &mut out);
    let (mut rest, mut content) = (&out[..], Vec::new());
    loop {
        let (kind, part, after) = split(rest);
        assert_eq!(kind, 4);
        content.extend_from_slice(part);
        rest = after;
        if part.is_empty() {
            break;
        }
    }
    assert!(rest.is_empty() && content == input);

    let mut chain = Chain::new();
    fcgi::stdin(Chain::from(Bytes::copy_from(input)), true, &mut chain);
    let sent: Vec<u8> = chain
        .pieces()
        .iter()
        .flat_map(|piece| match piece {
            Piece::Bytes(bytes) => bytes.to_vec(),
            Piece::File(_) => unreachable!("there are no files"),
        })
        .collect();
    assert!(sent.ends_with(fcgi::END_OF_STDIN));
});
