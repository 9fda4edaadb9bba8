//! The PCRE front end: any pattern compiles or is refused, and what compiles can be matched.
#![cfg_attr(fuzzing, no_main)]

use expr::regex::{Captures, Regex};

tidegate_fuzz::target!(|data: &[u8]| {
    let (pattern, text) = data.split_at(data.len() / 2);
    let Ok(regex) = Regex::new(pattern, false) else { return };
    let mut captures = Captures::new();
    let found = regex.captures(text, &mut captures);
    assert_eq!(found.is_ok_and(|found| found), regex.is_match(text).is_ok_and(|found| found));
});
