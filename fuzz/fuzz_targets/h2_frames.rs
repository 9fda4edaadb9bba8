//! Frames: the same whole and cut in two, and no step without progress.
#![cfg_attr(fuzzing, no_main)]

use buf::Bytes;
use wire::h2::{ConnectionError, Frame, FrameReader};

/// Reads frames; parts of one body or header block are joined.
fn read(parts: [&[u8]; 2], max: u32) -> (Vec<Frame>, Vec<u8>, Option<ConnectionError>) {
    let (mut reader, mut frames, mut bodies) = (FrameReader::new(max), Vec::new(), Vec::new());
    for part in parts {
        let mut input = Bytes::copy_from(part);
        let mut idle = 0;
        loop {
            let before = input.len();
            match reader.next(&mut input) {
                Err(error) => return (frames, bodies, Some(error)),
                Ok(None) => break,
                Ok(Some(Frame::Data { bytes, last })) => {
                    bodies.extend_from_slice(&bytes);
                    frames.extend(last.then_some(Frame::Data { bytes: Bytes::default(), last }));
                }
                Ok(Some(Frame::Fragment { bytes, continues, last })) => {
                    bodies.extend_from_slice(&bytes);
                    let both = continues || last;
                    frames.extend(both.then_some(Frame::Fragment { bytes: Bytes::default(), continues, last }));
                }
                Ok(Some(frame)) => frames.push(frame),
            }
            idle = if input.len() < before { 0 } else { idle + 1 };
            assert!(idle < 3, "nothing is made of nothing");
        }
        assert!(input.is_empty());
    }
    (frames, bodies, None)
}

/// `continues` and `last` of one fragment may come in one part or in two.
fn flat((frames, bodies, error): (Vec<Frame>, Vec<u8>, Option<ConnectionError>)) -> (Vec<Frame>, Vec<u8>, bool) {
    let mut out = Vec::new();
    for frame in frames {
        match frame {
            Frame::Fragment { bytes, continues: true, last: true } => {
                out.push(Frame::Fragment { bytes: bytes.clone(), continues: true, last: false });
                out.push(Frame::Fragment { bytes, continues: false, last: true });
            }
            frame => out.push(frame),
        }
    }
    (out, bodies, error.is_some())
}

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((&cut, input)) = data.split_first() else { return };
    let (first, second) = input.split_at(usize::from(cut).min(input.len()));
    assert_eq!(flat(read([input, &[]], 16_384)), flat(read([first, second], 16_384)));
});
