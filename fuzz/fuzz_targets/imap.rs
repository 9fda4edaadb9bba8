//! Commands of IMAP: the same ones however the bytes are cut, none longer than the limit, and no byte used twice.
#![cfg_attr(fuzzing, no_main)]

use wire::mail::imap::{Event, Parser};

/// The longest command.
const LIMIT: usize = 64;

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((&size, input)) = data.split_first() else { return };
    let whole = read(input, input.len().max(1));
    assert_eq!(read(input, usize::from(size).max(1)), whole);
    assert_eq!(read(input, 1), whole);
});

/// The events, without those that are about pieces.
fn read(input: &[u8], size: usize) -> Vec<Event> {
    let (mut parser, mut held, mut events) = (Parser::default(), Vec::new(), Vec::new());
    for piece in input.chunks(size) {
        held.extend_from_slice(piece);
        loop {
            let (used, event) = parser.step(&held, LIMIT);
            held.drain(..used);
            match event {
                Event::More => break,
                Event::Skipped => assert!(used > 0),
                Event::TooLong(_) => {
                    events.push(event);
                    return events;
                }
                Event::Command(_) | Event::Invalid(_) => {
                    assert!(used > 0 && used <= LIMIT);
                    events.push(event);
                }
                Event::Continue => events.push(event),
            }
        }
    }
    events
}
