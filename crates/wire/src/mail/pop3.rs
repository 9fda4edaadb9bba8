//! Commands of POP3 before the login (RFC 1939, RFC 2449, RFC 5034), each in a line.

use super::{skip_spaces, split_word, trim_spaces};

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// The name of the user.
    User(&'a [u8]),
    /// The password, with all its spaces.
    Pass(&'a [u8]),
    /// The name of the user, and the digest of the greeting's salt with the password.
    Apop(&'a [u8], &'a [u8]),
    /// To log in by a mechanism, perhaps with its first response.
    Auth(&'a [u8], Option<&'a [u8]>),
    /// Which mechanisms there are.
    Mechanisms,
    /// What the server can do.
    Capa,
    /// Nothing.
    Noop,
    /// TLS.
    Stls,
    /// The end.
    Quit,
}

/// Reads a command; `line` has no end any more. `None`: it is none.
pub fn parse(line: &[u8]) -> Option<Command<'_>> {
    if line.iter().any(|byte| matches!(byte, 0 | b'\r')) {
        return None;
    }
    let (verb, rest) = split_word(line);
    let words = trim_spaces(rest);
    let one = || Some(words).filter(|word| !word.is_empty());
    match &*verb.to_ascii_uppercase() {
        b"USER" => one().map(Command::User),
        b"PASS" => (!rest.is_empty()).then_some(Command::Pass(rest)),
        b"APOP" => {
            let (user, digest) = split_word(words);
            let good = !digest.is_empty() && !digest.contains(&b' ');
            good.then_some(Command::Apop(user, digest))
        }
        b"AUTH" if words.is_empty() => Some(Command::Mechanisms),
        b"AUTH" => {
            let (mechanism, rest) = split_word(words);
            let (initial, rest) = split_word(skip_spaces(rest));
            rest.is_empty().then_some(Command::Auth(mechanism, Some(initial).filter(|initial| !initial.is_empty())))
        }
        b"CAPA" => Some(Command::Capa),
        b"NOOP" => Some(Command::Noop),
        b"STLS" => Some(Command::Stls),
        b"QUIT" => Some(Command::Quit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands() {
        for (line, expect) in [
            ("USER u", Some(Command::User(b"u"))),
            ("user  u ", Some(Command::User(b"u"))),
            ("USER u v", Some(Command::User(b"u v"))),
            ("USER", None),
            ("USER ", None),
            ("PASS  p  q ", Some(Command::Pass(b"p  q "))),
            ("PASS ", None),
            ("APOP u 0123", Some(Command::Apop(b"u", b"0123"))),
            ("APOP u", None),
            ("APOP u v w", None),
            ("AUTH", Some(Command::Mechanisms)),
            ("AUTH PLAIN", Some(Command::Auth(b"PLAIN", None))),
            ("auth PLAIN =", Some(Command::Auth(b"PLAIN", Some(b"=")))),
            ("AUTH PLAIN x y", None),
            ("CAPA x", Some(Command::Capa)),
            ("noop", Some(Command::Noop)),
            ("STLS", Some(Command::Stls)),
            ("QUIT", Some(Command::Quit)),
            ("", None),
            (" NOOP", None),
            ("STAT", None),
            ("USERS u", None),
            ("USER a\0b", None),
            ("PASS a\rb", None),
        ] {
            assert_eq!(parse(line.as_bytes()), expect, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn passwords_are_whole(password in "[^\0\r\n ][^\0\r\n]{0,20}") {
            let line = format!("PASS {password}");
            prop_assert_eq!(parse(line.as_bytes()), Some(Command::Pass(password.as_bytes())));
        }

        #[test]
        fn nothing_else_is_in_a_command(line in "(USER|PASS|APOP|AUTH|NOOP|x)?[ a\0\r=]{0,12}") {
            let inside = |part: &[u8]| line.as_bytes().windows(part.len().max(1)).any(|window| window == part);
            match parse(line.as_bytes()) {
                Some(Command::User(a) | Command::Pass(a) | Command::Auth(a, None)) => prop_assert!(inside(a) && !a.is_empty()),
                Some(Command::Apop(a, b) | Command::Auth(a, Some(b))) => {
                    prop_assert!(inside(a) && inside(b) && !a.is_empty() && !b.is_empty());
                }
                Some(_) | None => {}
            }
        }
    }
}
