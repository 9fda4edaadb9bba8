//! Pages with server-side includes: no panic, the same whole and cut, a page without commands is its text, a command is
//! written as it is read, and its values have readable parts or none. The formats of times too.
#![cfg_attr(fuzzing, no_main)]

use wire::ssi::{Command, Event, Parser};
use wire::strftime::{self, Time};

/// The longest value.
const MAX_VALUE: usize = 32;

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((&cut, page)) = data.split_first() else { return };
    let at = usize::from(cut).min(page.len());
    let whole = read(&[page]);
    assert_eq!(read(&[&page[..at], &page[at..]]), whole);
    assert_eq!(read(&page.chunks(1).collect::<Vec<_>>()), whole);
    if is_text(page) {
        assert_eq!(whole.0, page);
    }
    for command in &whole.1 {
        let mut written = Vec::new();
        command.write(&mut written);
        assert_eq!(read(&[&written]), (Vec::new(), vec![command.clone()], Vec::new()));
        for name in ["var", "value", "expr", "timefmt", "virtual", "stub"] {
            let Some(value) = command.param(name) else { continue };
            assert!(value.plain().len() <= MAX_VALUE);
            let (_, _) = (value.parts(), value.condition());
            let mut out = Vec::new();
            strftime::format(
                &value.plain(),
                Time { seconds: i64::from(cut) << 24, offset_s: 3600, zone: "X" },
                &mut out,
            );
        }
    }
});

/// Whether there is no command in the page.
fn is_text(page: &[u8]) -> bool {
    !page.windows(5).any(|window| window == b"<!--#")
}

/// The text, the commands, and the messages.
type Seen = (Vec<u8>, Vec<Command>, Vec<String>);

fn read(pieces: &[&[u8]]) -> Seen {
    let mut parser = Parser::new(MAX_VALUE);
    let (mut text, mut commands, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let (used, event) = parser.step(rest);
            match event {
                Event::Text(range) => text.extend_from_slice(&rest[range]),
                Event::Held(held) => text.extend_from_slice(held),
                Event::Command(command) => commands.push(command),
                Event::Error(error) => errors.push(error.to_string()),
                Event::More => break,
            }
            rest = &rest[used..];
        }
    }
    match parser.finish() {
        Ok(held) => text.extend_from_slice(held),
        Err(error) => errors.push(error.to_string()),
    }
    (text, commands, errors)
}
