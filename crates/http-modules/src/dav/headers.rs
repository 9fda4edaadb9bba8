//! The fields of WebDAV (RFC 4918 §10) that the methods look at.

use wire::uri;

/// `Depth` (§10.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// The resource alone.
    Zero,
    /// With its members.
    One,
    /// With all below it; the same without the field.
    Infinity,
}

/// Reads `Depth`; `None` if it is invalid.
pub(super) fn depth(value: Option<&[u8]>) -> Option<Depth> {
    match value {
        None => Some(Depth::Infinity),
        Some(b"0") => Some(Depth::Zero),
        Some(b"1") => Some(Depth::One),
        Some(text) if text.eq_ignore_ascii_case(b"infinity") => Some(Depth::Infinity),
        Some(_) => None,
    }
}

/// Reads `Overwrite` (§10.6): whether what is at the destination may be replaced. `None` if it is invalid.
pub(super) fn overwrite(value: Option<&[u8]>) -> Option<bool> {
    match value {
        None | Some(b"T" | b"t") => Some(true),
        Some(b"F" | b"f") => Some(false),
        Some(_) => None,
    }
}

/// What is wrong with a `Destination`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadDestination {
    /// It isn't understood.
    Invalid,
    /// Another server has it.
    Foreign,
}

/// The normalised path of `Destination` (§10.3): a path, or a URL of the host that the request is for. Arguments are left
/// out.
pub(super) fn destination(
    value: &[u8],
    scheme: &[u8],
    host: &[u8],
    merge_slashes: bool,
) -> Result<Vec<u8>, BadDestination> {
    let path = match value.first() {
        Some(b'/') => value,
        _ => {
            let url = uri::split_url(value).filter(|url| url.scheme == scheme && url.rest.starts_with(b"/"));
            let url = url.ok_or(BadDestination::Invalid)?;
            if !is_of_host(url.authority, host) {
                return Err(BadDestination::Foreign);
            }
            url.rest
        }
    };
    let mut normal = Vec::new();
    uri::normalize(path, merge_slashes, &mut normal).map_err(|_| BadDestination::Invalid)?;
    Ok(normal)
}

/// Whether it is the host, with any port: the server may be reached by another one from outside.
fn is_of_host(authority: &[u8], host: &[u8]) -> bool {
    let Some((name, rest)) = authority.split_at_checked(host.len()) else { return false };
    let port = match rest {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    port && name.eq_ignore_ascii_case(host)
}

/// How many elements a path has.
pub(super) fn elements(path: &[u8]) -> usize {
    path.split(|&byte| byte == b'/').filter(|element| !element.is_empty()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_and_overwrites() {
        for (value, expect) in [
            ("0", Some(Depth::Zero)),
            ("1", Some(Depth::One)),
            ("infinity", Some(Depth::Infinity)),
            ("Infinity", Some(Depth::Infinity)),
            ("2", None),
            ("", None),
            ("infinity,0", None),
        ] {
            assert_eq!(depth(Some(value.as_bytes())), expect, "{value}");
        }
        assert_eq!((depth(None), overwrite(None)), (Some(Depth::Infinity), Some(true)));
        for (value, expect) in
            [("T", Some(true)), ("t", Some(true)), ("F", Some(false)), ("f", Some(false)), ("TRUE", None)]
        {
            assert_eq!(overwrite(Some(value.as_bytes())), expect, "{value}");
        }
    }

    #[test]
    fn destinations() {
        use BadDestination::{Foreign, Invalid};
        for (value, expect) in [
            ("/a", Ok("/a")),
            ("/a%20b/?x=y", Ok("/a b/")),
            ("/a//b/./c", Ok("/a/b/c")),
            ("/a/../b", Ok("/b")),
            ("http://site/a", Ok("/a")),
            ("http://SITE:8080/a/", Ok("/a/")),
            ("http://site/", Ok("/")),
            ("http://site:/a", Ok("/a")),
            ("/..", Err(Invalid)),
            ("/a/../../b", Err(Invalid)),
            ("/%2e%2e/b", Err(Invalid)),
            ("/a%2f..%2f..%2fb", Err(Invalid)),
            ("/a%00", Err(Invalid)),
            ("/a%zz", Err(Invalid)),
            ("http://site", Err(Invalid)),
            ("http://site?/a", Err(Invalid)),
            ("http://sites/a", Err(Foreign)),
            ("http://site.evil/a", Err(Foreign)),
            ("http://user@site/a", Err(Foreign)),
            ("http://site:x/a", Err(Foreign)),
            ("http://other/a", Err(Foreign)),
            ("https://site/a", Err(Invalid)),
            ("ftp://site/a", Err(Invalid)),
            ("a", Err(Invalid)),
            ("", Err(Invalid)),
        ] {
            let got = destination(value.as_bytes(), b"http", b"site", true);
            assert_eq!(got, expect.map(|path| path.as_bytes().to_vec()), "{value}");
        }
    }

    #[test]
    fn depths_of_paths() {
        for (path, expect) in [("/", 0), ("/a", 1), ("/a/", 1), ("/a//b", 2), ("/users/00/00/name", 4)] {
            assert_eq!(elements(path.as_bytes()), expect, "{path}");
        }
    }
}
