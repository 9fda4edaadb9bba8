//! Response heads: no panic, and the same outcome whole and cut in two.
#![cfg_attr(fuzzing, no_main)]

use wire::h1::{Parsed, ResponseError, ResponseHead, ResponseParser};

fn parse(input: &[u8], cut: usize, head: &mut ResponseHead) -> Option<Result<usize, ResponseError>> {
    let mut parser = ResponseParser::default();
    for end in [cut, input.len()] {
        match parser.parse(&input[..end], 512, head) {
            Ok(Parsed::Incomplete) => {}
            Ok(Parsed::Complete(used)) => return Some(Ok(used)),
            Err(error) => return Some(Err(error)),
        }
    }
    None
}

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((&cut, input)) = data.split_first() else { return };
    let (mut whole, mut split) = (ResponseHead::default(), ResponseHead::default());
    let outcome = parse(input, input.len(), &mut whole);
    assert_eq!(outcome, parse(input, usize::from(cut).min(input.len()), &mut split));
    match outcome {
        Some(Ok(used)) => {
            assert!(used <= input.len());
            assert_eq!(whole.headers, split.headers);
            let _ = whole.keep_alive(input);
            if let Err(error) = whole.framing(input, false) {
                let _ = error.text(input).to_string();
            }
        }
        Some(Err(error)) => {
            let _ = error.text(input).to_string();
        }
        None => {}
    }
});
