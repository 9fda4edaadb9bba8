//! The exchange of credentials (RFC 4422): the responses of PLAIN, LOGIN, CRAM-MD5 and EXTERNAL.

use std::fmt;

use base64::Engine as _;

use super::is_clean;
use crate::base64::LENIENT;

/// A mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Name and password in one response (RFC 4616).
    Plain,
    /// The same in two responses.
    Login,
    /// A digest of the password with a challenge (RFC 2195).
    CramMd5,
    /// The name alone; another layer vouches for it.
    External,
}

impl Mechanism {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Mechanism; 4] = [Mechanism::Plain, Mechanism::Login, Mechanism::CramMd5, Mechanism::External];

    /// The one of this name, in any case.
    pub fn of(name: &[u8]) -> Option<Mechanism> {
        Mechanism::ALL.into_iter().find(|known| known.name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::CramMd5 => "CRAM-MD5",
            Mechanism::External => "EXTERNAL",
        }
    }
}

/// What is wrong with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It isn't Base64. That is also how a client gives up: by an asterisk.
    Base64,
    /// There is no name, or one that no name can be.
    Login,
    /// There is no password, or one that no password can be.
    Password,
    /// There is no digest after the name.
    Digest,
}

/// nginx's words.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Base64 => "invalid base64 encoding",
            Fault::Login => "invalid login",
            Fault::Password => "invalid password",
            Fault::Digest => "invalid CRAM-MD5 hash",
        })
    }
}

/// The length of a digest.
const DIGEST: usize = 32;

/// Appends Base64.
pub fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(LENIENT.encode(bytes).as_bytes());
}

/// Reads the line of a response, without its end; `=` is an empty one.
pub fn decode(line: &[u8]) -> Result<Vec<u8>, Fault> {
    match line {
        b"=" => Ok(Vec::new()),
        line => LENIENT.decode(line).map_err(|_| Fault::Base64),
    }
}

/// Name and password of PLAIN; on whose behalf the client acts doesn't matter.
pub fn plain(response: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let at = memchr::memchr(0, response).ok_or(Fault::Login)?;
    let rest = response.get(at + 1..).unwrap_or_default();
    let at = memchr::memchr(0, rest).ok_or(Fault::Password)?;
    Ok((login(rest.get(..at).unwrap_or_default())?, password(rest.get(at + 1..).unwrap_or_default())?))
}

/// Name and digest of CRAM-MD5.
pub fn cram_md5(response: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let at = memchr::memchr(b' ', response).ok_or(Fault::Digest)?;
    let (name, digest) = (response.get(..at).unwrap_or_default(), response.get(at + 1..).unwrap_or_default());
    let good = digest.len() == DIGEST && digest.iter().all(|byte| byte.is_ascii_graphic());
    if good { Ok((login(name)?, digest)) } else { Err(Fault::Digest) }
}

/// A name, if lines can hold it.
pub fn login(name: &[u8]) -> Result<&[u8], Fault> {
    if is_clean(name) { Ok(name) } else { Err(Fault::Login) }
}

/// A password, if lines can hold it.
pub fn password(password: &[u8]) -> Result<&[u8], Fault> {
    if is_clean(password) { Ok(password) } else { Err(Fault::Password) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn base64() {
        for (line, expect) in [
            ("AGEAYg==", Ok(&b"\0a\0b"[..])),
            ("AGEAYg", Ok(b"\0a\0b")),
            ("=", Ok(b"")),
            ("", Ok(b"")),
            ("*", Err(Fault::Base64)),
            ("!!!", Err(Fault::Base64)),
            ("A", Err(Fault::Base64)),
            ("AGEA Yg==", Err(Fault::Base64)),
        ] {
            assert_eq!(decode(line.as_bytes()).as_deref(), expect.as_deref(), "{line:?}");
        }
    }

    #[test]
    fn plains() {
        for (response, expect) in [
            ("\0u\0p", Ok(("u", "p"))),
            ("z\0u\0p q", Ok(("u", "p q"))),
            ("\0\0", Ok(("", ""))),
            ("u", Err(Fault::Login)),
            ("\0u", Err(Fault::Password)),
            ("\0u\0p\0q", Err(Fault::Password)),
            ("\0u\r\0p", Err(Fault::Login)),
            ("\0u\0p\nQUIT", Err(Fault::Password)),
        ] {
            let expect = expect.map(|(user, password)| (user.as_bytes(), password.as_bytes()));
            assert_eq!(plain(response.as_bytes()), expect, "{response:?}");
        }
    }

    #[test]
    fn digests() {
        let digest = "0123456789abcdef0123456789abcdef";
        let check = |response: String, expect: Result<&str, Fault>| {
            assert_eq!(cram_md5(response.as_bytes()).map(|(user, _)| user), expect.map(str::as_bytes), "{response:?}");
        };
        check(format!("u {digest}"), Ok("u"));
        check(format!(" {digest}"), Ok(""));
        check(format!("u v {digest}"), Err(Fault::Digest));
        check(format!("u {digest}0"), Err(Fault::Digest));
        check(format!("u\0 {digest}"), Err(Fault::Login));
        check(format!("u {}\0", &digest[1..]), Err(Fault::Digest));
        check("u".to_owned(), Err(Fault::Digest));
    }

    #[test]
    fn mechanisms() {
        assert_eq!(Mechanism::of(b"cram-md5"), Some(Mechanism::CramMd5));
        assert_eq!(Mechanism::of(b"PLAI"), None);
    }

    proptest! {
        #[test]
        fn round_trips(user in "[^\0\r\n]{0,12}", password in "[^\0\r\n]{0,12}") {
            let mut line = Vec::new();
            encode(format!("\0{user}\0{password}").as_bytes(), &mut line);
            let response = decode(&line).expect("it was encoded");
            prop_assert_eq!(plain(&response), Ok((user.as_bytes(), password.as_bytes())));
        }

        #[test]
        fn what_is_taken_is_clean(response in "[a \0\r\n]{0,12}") {
            if let Ok((user, password)) = plain(response.as_bytes()) {
                prop_assert!(is_clean(user) && is_clean(password));
            }
        }
    }
}
