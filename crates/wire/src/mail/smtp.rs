//! Commands of SMTP before a client is connected to a server (RFC 5321, RFC 4954, RFC 3207), each in a line; and the
//! strings of XCLIENT.

use super::{split_word, trim_spaces};

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// The client's name.
    Helo(&'a [u8]),
    /// The same, of a client that wants to know of extensions.
    Ehlo(&'a [u8]),
    /// To log in by a mechanism, perhaps with its first response.
    Auth(&'a [u8], Option<&'a [u8]>),
    /// The sender: the whole line.
    Mail(&'a [u8]),
    /// A recipient: the whole line.
    Rcpt(&'a [u8]),
    /// To forget the sender.
    Rset,
    /// Nothing.
    Noop,
    /// TLS.
    StartTls,
    /// The end.
    Quit,
}

/// Why a line isn't a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no such command.
    Command,
    /// The command has no argument or a wrong one.
    Argument,
}

/// Reads a command; `line` has no end any more.
pub fn parse(line: &[u8]) -> Result<Command<'_>, Fault> {
    // Neither may stand in a line (RFC 5321 §2.3.8), and both could make two of it elsewhere.
    if line.iter().any(|byte| matches!(byte, 0 | b'\r')) {
        return Err(Fault::Command);
    }
    let line = trim_spaces(line);
    let (verb, rest) = split_word(line);
    let name = || Some(rest).filter(|rest| !rest.is_empty() && !rest.contains(&b' ')).ok_or(Fault::Argument);
    let whole = || if rest.is_empty() { Err(Fault::Argument) } else { Ok(line) };
    match &*verb.to_ascii_uppercase() {
        b"HELO" => name().map(Command::Helo),
        b"EHLO" => name().map(Command::Ehlo),
        b"AUTH" => {
            let (mechanism, rest) = split_word(rest);
            let (initial, rest) = split_word(rest);
            let good = !mechanism.is_empty() && rest.is_empty();
            let initial = Some(initial).filter(|initial| !initial.is_empty());
            if good { Ok(Command::Auth(mechanism, initial)) } else { Err(Fault::Argument) }
        }
        b"MAIL" => whole().map(Command::Mail),
        b"RCPT" => whole().map(Command::Rcpt),
        b"RSET" => Ok(Command::Rset),
        b"NOOP" => Ok(Command::Noop),
        b"STARTTLS" => Ok(Command::StartTls),
        b"QUIT" => Ok(Command::Quit),
        _ => Err(Fault::Command),
    }
}

/// Appends a value as XCLIENT has it (RFC 3461 §4: xtext).
pub fn xtext(value: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in value {
        if matches!(byte, b'!'..=b'~') && !matches!(byte, b'+' | b'=') {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'+', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands() {
        for (line, expect) in [
            ("EHLO c", Ok(Command::Ehlo(b"c"))),
            ("helo  c ", Ok(Command::Helo(b"c"))),
            ("EHLO", Err(Fault::Argument)),
            ("EHLO a b", Err(Fault::Argument)),
            ("AUTH PLAIN", Ok(Command::Auth(b"PLAIN", None))),
            ("AUTH PLAIN x", Ok(Command::Auth(b"PLAIN", Some(b"x")))),
            ("AUTH PLAIN x y", Err(Fault::Argument)),
            ("AUTH", Err(Fault::Argument)),
            ("mail  FROM:<a b>  SIZE=1 ", Ok(Command::Mail(b"mail  FROM:<a b>  SIZE=1"))),
            ("MAIL", Err(Fault::Argument)),
            ("RCPT TO:<a>\tx", Ok(Command::Rcpt(b"RCPT TO:<a>\tx"))),
            ("RCPT ", Err(Fault::Argument)),
            ("RSET x", Ok(Command::Rset)),
            ("NOOP", Ok(Command::Noop)),
            ("STARTTLS", Ok(Command::StartTls)),
            ("QUIT x", Ok(Command::Quit)),
            ("", Err(Fault::Command)),
            (" NOOP", Err(Fault::Command)),
            ("DATA", Err(Fault::Command)),
            ("EHLO a\0b", Err(Fault::Command)),
            ("MAIL FROM:<a>\rRSET", Err(Fault::Command)),
        ] {
            assert_eq!(parse(line.as_bytes()), expect, "{line:?}");
        }
    }

    #[test]
    fn xtexts() {
        for (value, expect) in [(&b"user@x"[..], "user@x"), (b"us er+\xff=%\t<>", "us+20er+2B+FF+3D%+09<>"), (b"", "")]
        {
            let mut out = Vec::new();
            xtext(value, &mut out);
            assert_eq!(out, expect.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn an_xtext_is_one_word_and_can_be_read(value in proptest::collection::vec(any::<u8>(), 0..20)) {
            let mut out = Vec::new();
            xtext(&value, &mut out);
            prop_assert!(out.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'='));
            let mut read = Vec::new();
            let mut bytes = out.iter();
            while let Some(&byte) = bytes.next() {
                if byte == b'+' {
                    let digits: Vec<u8> = bytes.by_ref().take(2).copied().collect();
                    let digits = String::from_utf8(digits).unwrap_or_default();
                    read.push(u8::from_str_radix(&digits, 16).expect("two digits"));
                } else {
                    read.push(byte);
                }
            }
            prop_assert_eq!(read, value);
        }

        #[test]
        fn lines_are_passed_on_as_one(line in "(MAIL|RCPT) ?[ a<>\0\r=:]{0,12}") {
            if let Ok(Command::Mail(passed) | Command::Rcpt(passed)) = parse(line.as_bytes()) {
                prop_assert!(super::super::is_clean(passed) && line.as_bytes().starts_with(passed));
            }
        }
    }
}
