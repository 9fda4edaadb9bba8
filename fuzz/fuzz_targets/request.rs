//! Request heads: no panic, and the same outcome whole, cut in two, and with other limits on the way.
#![cfg_attr(fuzzing, no_main)]

use wire::h1::{Limits, Parsed, RequestError, RequestHead, RequestParser};

type Outcome = Option<Result<usize, RequestError>>;

fn parse(input: &[u8], cut: usize, limits: &Limits, head: &mut RequestHead) -> Outcome {
    let mut parser = RequestParser::default();
    for end in [cut, input.len()] {
        match parser.parse(&input[..end], limits, head) {
            Ok(Parsed::Incomplete) => {}
            Ok(Parsed::Complete(used)) => return Some(Ok(used)),
            Err(error) => return Some(Err(error)),
        }
    }
    None
}

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((&[cut, choice], input)) = data.split_first_chunk() else { return };
    let limits = Limits {
        header_buffer: 16 + usize::from(choice & 0x3f),
        line: 128,
        buffers: usize::from(choice >> 6),
        max_headers: 8,
        ignore_invalid: cut & 1 == 0,
        underscores: cut & 2 == 0,
    };
    for limits in [limits, Limits::default()] {
        let (mut whole, mut split) = (RequestHead::default(), RequestHead::default());
        let outcome = parse(input, input.len(), &limits, &mut whole);
        assert_eq!(outcome, parse(input, usize::from(cut).min(input.len()), &limits, &mut split));
        match outcome {
            Some(Ok(used)) => {
                assert!(used <= input.len());
                assert_eq!(whole.headers, split.headers);
                assert_eq!(whole.target, split.target);
                let _ = (whole.framing(input), whole.keep_alive(input), whole.expects_continue(input));
                if !whole.complex_uri && !whole.empty_path_in_uri {
                    assert!(wire::uri::is_simple(whole.uri_path.of(input)));
                }
                let mut out = Vec::new();
                let _ = wire::uri::normalize(whole.uri_path.of(input), true, &mut out);
            }
            Some(Err(error)) => {
                let _ = (error.text(input).to_string(), error.stage());
            }
            None => {}
        }
    }
});
