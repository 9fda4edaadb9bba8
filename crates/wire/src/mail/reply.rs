//! What mail servers answer to somebody who logs in.
//!
//! Each function is given what has come since the command was sent, and says how long the answer is: `None` if it isn't
//! whole yet.

use memchr::memchr;

use super::text;

/// It isn't the answer that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unexpected;

/// What is known of an answer.
pub type Answer = Result<Option<usize>, Unexpected>;

/// A line that begins with `start`: what servers of IMAP and POP3 say first, and the leave to send a literal.
pub fn line(input: &[u8], start: &[u8]) -> Answer {
    let Some(at) = memchr(b'\n', input) else { return Ok(None) };
    if begins(input, start) { Ok(Some(at + 1)) } else { Err(Unexpected) }
}

/// The answer of IMAP to the command of this tag: any number of untagged lines, then that it was done.
pub fn tagged(input: &[u8], tag: &[u8]) -> Answer {
    let mut at = 0;
    loop {
        let rest = input.get(at..).unwrap_or_default();
        let Some(end) = memchr(b'\n', rest) else { return Ok(None) };
        if !rest.starts_with(b"* ") {
            let after = rest.strip_prefix(tag).and_then(|rest| rest.strip_prefix(b" "));
            let is_done = after.is_some_and(|after| begins(after, b"OK"));
            return if is_done { Ok(Some(at + end + 1)) } else { Err(Unexpected) };
        }
        at += end + 1;
    }
}

/// An answer of SMTP (RFC 5321 §4.2): its code and its length.
pub fn smtp(input: &[u8]) -> Result<Option<(u16, usize)>, Unexpected> {
    let mut at = 0;
    loop {
        let rest = input.get(at..).unwrap_or_default();
        let Some(end) = memchr(b'\n', rest) else { return Ok(None) };
        let (code, is_last) = match *text(rest.get(..=end).unwrap_or_default()) {
            [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', ref more @ ..] => {
                let code = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
                (code, !more.starts_with(b"-"))
            }
            _ => return Err(Unexpected),
        };
        at += end + 1;
        if is_last {
            return Ok(Some((code, at)));
        }
    }
}

fn begins(input: &[u8], start: &[u8]) -> bool {
    input.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines() {
        for (input, start, expect) in [
            ("* OK ready\r\nx", "* OK", Ok(Some(12))),
            ("* OK", "* OK", Ok(None)),
            ("* BYE\r\n", "* OK", Err(Unexpected)),
            ("*\n", "* OK", Err(Unexpected)),
            ("+ \r\n", "+ ", Ok(Some(4))),
            ("+ok\r\n", "+OK", Ok(Some(5))),
        ] {
            assert_eq!(line(input.as_bytes(), start.as_bytes()), expect, "{input:?}");
        }
    }

    #[test]
    fn tagged_answers() {
        for (input, expect) in [
            ("a OK in\r\nmore", Ok(Some(9))),
            ("* CAPABILITY X\r\n* x\r\na ok\r\n", Ok(Some(27))),
            ("* CAPABILITY X\r\na O", Ok(None)),
            ("a NO bad\r\n", Err(Unexpected)),
            ("ab OK\r\n", Err(Unexpected)),
            ("* x\r\nb OK\r\n", Err(Unexpected)),
        ] {
            assert_eq!(tagged(input.as_bytes(), b"a"), expect, "{input:?}");
        }
    }

    #[test]
    fn smtp_answers() {
        for (input, expect) in [
            ("220 ready\r\nx", Ok(Some((220, 11)))),
            ("250-a\r\n250-b\r\n250 c\r\n", Ok(Some((250, 21)))),
            ("250\r\n", Ok(Some((250, 5)))),
            ("250-a\r\n25", Ok(None)),
            ("xx\r\n", Err(Unexpected)),
            ("250-a\r\nxx\r\n", Err(Unexpected)),
            ("650 x\r\n", Err(Unexpected)),
        ] {
            assert_eq!(smtp(input.as_bytes()), expect, "{input:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_said_before_it_is_whole(input in "([* a+]|OK|250|[- ]|\r\n){0,10}") {
            let bytes = input.as_bytes();
            for cut in 0..bytes.len() {
                if let Ok(Some((code, end))) = smtp(&bytes[..cut]) {
                    prop_assert_eq!(smtp(bytes), Ok(Some((code, end))));
                }
                if let Ok(Some(end)) = tagged(&bytes[..cut], b"a") {
                    prop_assert_eq!(tagged(bytes, b"a"), Ok(Some(end)));
                }
            }
        }
    }
}
