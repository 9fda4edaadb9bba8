//! Lines of SMTP: what is passed on of one is a line, and no more; an xtext is a word.
#![cfg_attr(fuzzing, no_main)]

use wire::mail::smtp::{Command, parse, xtext};
use wire::mail::{Line, LineEnd, is_clean, text};

tidegate_fuzz::target!(|data: &[u8]| {
    let mut word = Vec::new();
    xtext(data, &mut word);
    assert!(word.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'='));
    let Line::Whole(length) = LineEnd::default().find(data, data.len()) else { return };
    let line = text(&data[..length]);
    match parse(line) {
        Ok(Command::Helo(name) | Command::Ehlo(name)) => assert!(is_clean(name) && !name.contains(&b' ')),
        Ok(Command::Mail(whole) | Command::Rcpt(whole)) => assert!(is_clean(whole) && line.starts_with(whole)),
        Ok(Command::Auth(mechanism, initial)) => assert!(!mechanism.is_empty() && initial != Some(b"")),
        Ok(_) | Err(_) => {}
    }
});
