//! Lines of POP3: they end at the same place however they are cut, and a command's arguments stand in its line.
#![cfg_attr(fuzzing, no_main)]

use wire::mail::pop3::{Command, parse};
use wire::mail::{Line, LineEnd, is_clean, text};

/// The longest line.
const LIMIT: usize = 64;

tidegate_fuzz::target!(|data: &[u8]| {
    let whole = LineEnd::default().find(data, LIMIT);
    let (mut end, mut found) = (LineEnd::default(), Line::More);
    for upto in 1..=data.len() {
        found = end.find(&data[..upto], LIMIT);
        if found != Line::More {
            break;
        }
    }
    assert_eq!(found, whole);
    let Line::Whole(length) = whole else { return };
    assert!(length <= LIMIT);
    let line = text(&data[..length]);
    let arguments = match parse(line) {
        Some(Command::User(one) | Command::Pass(one) | Command::Auth(one, None)) => vec![one],
        Some(Command::Apop(one, two) | Command::Auth(one, Some(two))) => vec![one, two],
        Some(_) | None => Vec::new(),
    };
    for argument in arguments {
        assert!(is_clean(argument) && !argument.is_empty() && argument.len() < line.len());
    }
});
