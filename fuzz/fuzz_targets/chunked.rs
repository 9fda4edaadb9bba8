//! Chunked bodies: no panic, no loop without progress, and the same body whole and cut in two.
#![cfg_attr(fuzzing, no_main)]

use wire::h1::{ChunkEvent, ChunkedDecoder, ChunkedError};

fn decode(pieces: [&[u8]; 2]) -> (Vec<u8>, Result<bool, ChunkedError>, Vec<u8>) {
    let (mut decoder, mut body) = (ChunkedDecoder::new(Some(256)), Vec::new());
    for mut piece in pieces {
        loop {
            match decoder.step(piece) {
                Err(error) => return (body, Err(error), Vec::new()),
                Ok((used, ChunkEvent::Data(range))) => {
                    assert!(used > 0 && range.end == used);
                    body.extend_from_slice(&piece[range]);
                    piece = &piece[used..];
                }
                Ok((used, ChunkEvent::More)) => {
                    assert_eq!(used, piece.len());
                    assert!(decoder.wants() > 0);
                    break;
                }
                Ok((_, ChunkEvent::Done)) => {
                    let _ = decoder.parse_trailers(true, 10);
                    return (body, Ok(true), decoder.trailers().to_vec());
                }
            }
        }
    }
    (body, Ok(false), Vec::new())
}

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((&cut, input)) = data.split_first() else { return };
    let (first, second) = input.split_at(usize::from(cut).min(input.len()));
    assert_eq!(decode([input, &[]]), decode([first, second]));
});
