//! The name and the password of `Authorization: Basic` (RFC 7617), and of `Proxy-Authorization`.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use buf::Secret;
use wire::h1::KnownHeader;

use super::Request;

/// As nginx: any padding is taken off before, and the bits that it hides may be anything.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// A name with its password.
pub struct Credentials {
    /// The name; it may be empty.
    pub user: Vec<u8>,
    /// The password.
    pub password: Secret,
}

impl Request {
    /// The credentials of the scheme `Basic` that the field has, if it has any.
    pub fn basic_credentials(&self, field: KnownHeader) -> Option<Credentials> {
        parse(self.header(field)?)
    }
}

fn parse(value: &[u8]) -> Option<Credentials> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let encoded = rest.trim_ascii();
    let end = encoded.iter().rposition(|&byte| byte != b'=').map_or(0, |at| at + 1);
    let pair = Secret::from(BASE64.decode(&encoded[..end]).ok()?);
    let colon = pair.iter().position(|&byte| byte == b':')?;
    Some(Credentials { user: pair[..colon].to_vec(), password: Secret::from(&pair[colon + 1..]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        for (value, expect) in [
            ("Basic dXNlcjpwYXNz", Some(("user", "pass"))),
            ("bASIC   dXNlcjpwYXNz ", Some(("user", "pass"))),
            ("Basic cGxhaW46cGFzcyB3b3Jk=====", Some(("plain", "pass word"))),
            ("Basic dTphOmI=", Some(("u", "a:b"))),
            ("Basic dTphOmI", Some(("u", "a:b"))),
            // The last digit has bits that belong to no byte.
            ("Basic dTphOmJ=", Some(("u", "a:b"))),
            ("Basic Og==", Some(("", ""))),
            ("Basic dXNlcg==", None),
            ("Basic dXNlcjpwYXNz!", None),
            ("Basic ", None),
            ("Basic", None),
            ("Bearer dXNlcjpwYXNz", None),
            ("", None),
        ] {
            let found = parse(value.as_bytes());
            let found = found.as_ref().map(|found| (&found.user[..], &found.password[..]));
            assert_eq!(found, expect.map(|(user, password)| (user.as_bytes(), password.as_bytes())), "{value}");
        }
    }
}
