//! Commands that are in the input whole, and well-formed, as nearly all are: they are read at once. All others are left to
//! the states of the parser, which give the same.

use super::value::Value;
use super::{Command, Kind, Params};

/// The command after its mark, and how many bytes it has.
pub(super) fn command(input: &[u8], max_value: usize) -> Option<(Command, usize)> {
    let start = skip_blanks(input, 0);
    let mut at = skip_word(input, start);
    let kind = Kind::of(&input[start..at])?;
    let known = kind.params();
    let mut params = Params::new();
    loop {
        let next = skip_blanks(input, at);
        if input[next..].starts_with(b"-->") {
            at = next + 3;
            break;
        }
        if next == at {
            return None;
        }
        let end = skip_word(input, next);
        let (name, _) = known.iter().find(|(name, _)| name.as_bytes() == &input[next..end])?;
        if params.iter().any(|(own, _)| own == name) {
            return None;
        }
        at = skip_blanks(input, end);
        if input.get(at) != Some(&b'=') {
            return None;
        }
        at = skip_blanks(input, at + 1);
        let (&quote, rest) = input[at..].split_first().filter(|(quote, _)| matches!(quote, b'"' | b'\''))?;
        let longest = &rest[..rest.len().min(max_value + 1)];
        let len = memchr::memchr2(quote, b'\\', longest).filter(|len| longest[*len] == quote)?;
        params.push((*name, Value { quote, raw: rest[..len].into() }));
        at += len + 2;
    }
    kind.lacking(&params).is_none().then_some((Command { kind, params }, at))
}

fn skip_blanks(input: &[u8], at: usize) -> usize {
    at + input[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count()
}

fn skip_word(input: &[u8], at: usize) -> usize {
    at + input[at..].iter().take_while(|byte| byte.is_ascii_lowercase()).count()
}
