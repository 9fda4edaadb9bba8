//! Stored passwords, in all their forms, and whether a password is the one that was stored.
//!
//! What nginx leaves to the system's `crypt()` is done here. Of its forms those are missing that hardly anybody uses:
//! BSDi's, Sun's, NT's, `$sha1$`, `$7$`, `$gy$`.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA1_OUTPUT_LEN, digest};
use base64::Engine as _;
use sha_crypt::{PasswordVerifier, ShaCrypt};
use wire::base64::LENIENT;
use yescrypt::Yescrypt;

use super::{des_crypt, md5_crypt};
use crate::constant_time::equal;

/// The digits of crypt's texts.
pub(super) const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The longest password of the slow forms: their time grows with its length, and crypt refuses longer ones too.
const LONGEST: usize = 511;
/// The most memory that a stored password may make its check take.
const MOST_MEMORY: u64 = 256 << 20;

/// How a password compares to a stored one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is the one that was stored.
    Right,
    /// It isn't.
    Wrong,
    /// The stored password has no form that is known here.
    UnknownForm,
}

/// The form of a stored password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `{PLAIN}`
    Plain,
    /// `{SHA}`
    Sha,
    /// `{SSHA}`
    SaltedSha,
    /// `$1$` or `$apr1$`
    Md5(&'static [u8]),
    /// `$5$` or `$6$`
    ShaCrypt,
    /// `$2a$`, `$2b$` or `$2y$`
    Bcrypt,
    /// `$y$`
    Yescrypt,
    /// Thirteen characters.
    Des,
}

const PREFIXES: [(&[u8], Form); 11] = [
    (b"{PLAIN}", Form::Plain),
    (b"{SHA}", Form::Sha),
    (b"{SSHA}", Form::SaltedSha),
    (b"$apr1$", Form::Md5(b"$apr1$")),
    (b"$1$", Form::Md5(b"$1$")),
    (b"$5$", Form::ShaCrypt),
    (b"$6$", Form::ShaCrypt),
    (b"$2a$", Form::Bcrypt),
    (b"$2b$", Form::Bcrypt),
    (b"$2y$", Form::Bcrypt),
    (b"$y$", Form::Yescrypt),
];

impl Form {
    fn of(stored: &[u8]) -> Option<Form> {
        let prefixed = PREFIXES.iter().find(|(prefix, _)| stored.starts_with(prefix)).map(|(_, form)| *form);
        let is_des = stored.len() == des_crypt::LENGTH && stored.iter().all(|byte| DIGITS.contains(byte));
        prefixed.or(is_des.then_some(Form::Des))
    }

    fn is_slow(self) -> bool {
        !matches!(self, Form::Plain | Form::Sha | Form::SaltedSha)
    }
}

/// Whether [`verify`] takes so long that others would have to wait.
pub fn is_slow(stored: &[u8]) -> bool {
    Form::of(stored).is_some_and(Form::is_slow)
}

/// Compares a password to a stored one.
pub fn verify(stored: &[u8], password: &[u8]) -> Answer {
    let Some(form) = Form::of(stored) else { return Answer::UnknownForm };
    // Crypt takes its passwords as texts that end with a NUL.
    let refused = form.is_slow() && (password.len() > LONGEST || password.contains(&0));
    if !refused && compare(form, stored, password) { Answer::Right } else { Answer::Wrong }
}

fn compare(form: Form, stored: &[u8], password: &[u8]) -> bool {
    let text = || std::str::from_utf8(stored).ok();
    match form {
        Form::Plain => equal(stored.strip_prefix(b"{PLAIN}").unwrap_or_default(), password),
        Form::Sha => sha(stored.strip_prefix(b"{SHA}").unwrap_or_default(), password, false),
        Form::SaltedSha => sha(stored.strip_prefix(b"{SSHA}").unwrap_or_default(), password, true),
        Form::Md5(magic) => md5_crypt::verify(stored, magic, password),
        Form::ShaCrypt => {
            let hash = text().and_then(|text| sha_crypt::PasswordHashRef::new(text).ok());
            hash.is_some_and(|hash| ShaCrypt::SHA512.verify_password(password, hash).is_ok())
        }
        Form::Bcrypt => text().is_some_and(|text| bcrypt::verify(password, text).unwrap_or(false)),
        Form::Yescrypt => {
            let hash = text().filter(|text| is_affordable(text));
            hash.is_some_and(|hash| Yescrypt::default().verify_password(password, hash).is_ok())
        }
        Form::Des => des_crypt::verify(stored, password),
    }
}

/// Whether the parameters of `$y$parameters$…` are within bounds.
fn is_affordable(text: &str) -> bool {
    let parameters = text.split('$').nth(2).and_then(|text| text.parse::<yescrypt::Params>().ok());
    parameters.is_some_and(|parameters| {
        let block = 128 * u64::from(parameters.r());
        parameters.n() > 1 && parameters.p() > 0 && parameters.n().saturating_mul(block) <= MOST_MEMORY
    })
}

/// The digest in Base64, with its salt after it if it is salted.
fn sha(encoded: &[u8], password: &[u8], salted: bool) -> bool {
    let Ok(decoded) = LENIENT.decode(encoded) else { return false };
    let Some((expected, salt)) = decoded.split_at_checked(SHA1_OUTPUT_LEN) else { return false };
    let salt = if salted { salt } else { &[] };
    let made = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[password, salt].concat());
    equal(made.as_ref(), expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by libxcrypt and OpenSSL.
    #[test]
    fn forms() {
        let (long, longest) = ("a very long password, longer than sixteen", "x".repeat(100));
        for (stored, password) in [
            ("sa3tHJ3/KuYvI", &b"password"[..]),
            ("zZ/Dc0K.bMxrQ", b"a"),
            ("./yPRzyX/WeSM", b"longer than eight"),
            ("./yPRzyX/WeSM", b"longer tEIGHT"),
            ("abmF1QH4PEr.E", b""),
            ("9A/DpQdj2Bfi6", b"\xff\x80x"),
            ("$1$$qRPK7m23GJusamGpoGLby/", b""),
            ("$1$abcdefgh$G//4keteveJp0qb8z2DxG/", b"password"),
            ("$1$x$so23PxZYZ3TZmvGw3sJZ5.", long.as_bytes()),
            ("$apr1$salt$Xxd1irWT9ycqoYxGFn4cb.", b"password"),
            ("$apr1$12345678$U3F6pDTfMipt/OjyrIGnJ1", long.as_bytes()),
            ("$5$a$CZ9Csdk0HaS3TQcxgDHTwM2gwOEDCViPn83i6BpFdH.", b""),
            ("$5$rounds=1000$0123456789abcdef$EykIVlp20QRpU4fzYf8qpt7TDbtXufboFi49oxOouX5", "é".as_bytes()),
            ("$6$a$Z6IPkDduHdwavesVY2NFMpOHkigshxPYdhfLg0D3A7/XFQcso9RV2E8qczyJ2su.dj6RRLaTpvgwN1rZfK0I9.", b""),
            (
                "$6$rounds=1234$0123456789abcdef$xcyIGvJoEAqzATOCjPqN2JzIX6EhCffsCU2d77o55h9FIYkaUEZvP2Amd4JKPdc8gQ8ME6L\
                 n8L1glIoCts0ez0",
                long.as_bytes(),
            ),
            ("$2y$04$abcdefghijklmnopqrstuubzadhGtS2zEF.gu0yd0opP6cVzb.e0i", longest.as_bytes()),
            ("$2a$04$abcdefghijklmnopqrstuubyCG3zY1GIXMyxfivm.ClDiInHzxjiq", b""),
            ("$2b$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu", b"password"),
            ("$y$j75$saltsalt$BT/eINL.qJ28Ek8xmIKTrnDwZkROSVFFX9HKxdqaWAD", b""),
            ("$y$jD5.7$LdJMENpBABJJ3hIHjB1Bi.$TyDI3HanZm6CbVPjw7EQz9N2DwYqytHiwJv7wd5p510", b"pw"),
            ("$y$j9T$F5Jx5fExrKuPp53xLKQ..1$tnSYvahCwPBHKZUspmcxMfb0.WiB9W.zEaKlOBL35rC", b"password"),
            ("{PLAIN}password", b"password"),
            ("{PLAIN}", b""),
            ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", b"password"),
            ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g", b"password"),
            ("{SSHA}yI6cZwQadOA1e+/f+T+H3eCQQhRzYWx0", b"password"),
        ] {
            let wrong = [password, b"!"].concat();
            let truncated = stored.len() == des_crypt::LENGTH && password.len() >= 8 || password.len() > 72;
            assert_eq!(verify(stored.as_bytes(), password), Answer::Right, "{stored}");
            assert_eq!(verify(stored.as_bytes(), &wrong) == Answer::Right, truncated, "{stored}");
        }
    }

    #[test]
    fn what_is_broken_fits_no_password() {
        for stored in [
            "$1$",
            "$1$salt",
            "$apr1$",
            "$apr1$$",
            "$5$",
            "$6$salt",
            "$6$rounds=1000$salt",
            "$6$rounds=999999999999$salt$x",
            "$2b$05$x",
            "$2b$99$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu",
            "$y$",
            "$y$j9T",
            "$y$j9T$$",
            "$y$zzzzzz$F5Jx5fExrKuPp53xLKQ..1$tnSYvahCwPBHKZUspmcxMfb0.WiB9W.zEaKlOBL35rC",
            "{SHA}",
            "{SHA}Zm9vCg==",
            "{SHA}_____Mm5Pz8GgiULbPgzG37mj9g=",
            "{SSHA}Zm9vCg==",
        ] {
            for password in [&b""[..], b"1", b"x"] {
                assert_eq!(verify(stored.as_bytes(), password), Answer::Wrong, "{stored}");
            }
        }
        for stored in ["", "x", "*", "sa", "$9$xx", "{MD5}x", "{plain}x", "_J9..rasmEedsvB6g8/6", "sa3tHJ3/KuYv!"] {
            assert_eq!(verify(stored.as_bytes(), stored.as_bytes()), Answer::UnknownForm, "{stored}");
        }
    }

    #[test]
    fn passwords_of_the_slow_forms_are_texts_of_bounded_length() {
        let stored = b"$1$$qRPK7m23GJusamGpoGLby/";
        assert_eq!(verify(stored, b""), Answer::Right);
        assert_eq!(verify(stored, b"\0"), Answer::Wrong);
        assert_eq!(verify(b"{PLAIN}a\0b", b"a\0b"), Answer::Right);
        let long = vec![b'x'; LONGEST + 1];
        assert_eq!(verify(&[b"{PLAIN}", &long[..]].concat(), &long), Answer::Right);
        assert!(!is_slow(b"{PLAIN}x") && !is_slow(b"{SHA}") && is_slow(b"$6$") && is_slow(b"sa3tHJ3/KuYvI"));
    }
}
