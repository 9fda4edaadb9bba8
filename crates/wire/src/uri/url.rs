//! URLs of HTTP, split into their parts (RFC 3986 §3).

/// The parts of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitUrl<'a> {
    /// `http` or `https`, in the case that it was written in.
    pub scheme: &'a [u8],
    /// What follows `://`: the authority with all after it.
    pub after_scheme: &'a [u8],
    /// The host, as a rule, and the port.
    pub authority: &'a [u8],
    /// From the first `/`, `?` or `#` after the authority to the end.
    pub rest: &'a [u8],
}

/// Splits a URL whose scheme is `http` or `https`; `None` for any other text. Nothing in the parts is checked.
pub fn split_url(url: &[u8]) -> Option<SplitUrl<'_>> {
    let colon = [&b"http"[..], b"https"].into_iter().find_map(|scheme| {
        let start = url.get(..scheme.len())?;
        (start.eq_ignore_ascii_case(scheme) && url.get(scheme.len()) == Some(&b':')).then_some(scheme.len())
    })?;
    let (scheme, rest) = url.split_at(colon);
    let after_scheme = rest.strip_prefix(b"://")?;
    let (authority, rest) = split_authority(after_scheme);
    Some(SplitUrl { scheme, after_scheme, authority, rest })
}

/// Splits what follows `//` in a reference: the authority, and the rest.
pub fn split_authority(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    text.split_at(end.unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, expect) in [
            ("http://a/b?c", Some(("http", "a", "/b?c"))),
            ("HTTPS://a.example:81", Some(("HTTPS", "a.example:81", ""))),
            ("https://a?b/c", Some(("https", "a", "?b/c"))),
            ("http://a#b", Some(("http", "a", "#b"))),
            ("http://", Some(("http", "", ""))),
            ("http:///x", Some(("http", "", "/x"))),
            ("http:/a", None),
            ("httpss://a", None),
            ("ftp://a", None),
            ("//a/b", None),
            ("http", None),
            ("", None),
        ] {
            let split = split_url(url.as_bytes());
            let parts = split.map(|split| {
                assert_eq!([split.authority, split.rest].concat(), split.after_scheme, "{url}");
                [split.scheme, split.authority, split.rest].map(|part| String::from_utf8_lossy(part).into_owned())
            });
            assert_eq!(parts, expect.map(|(a, b, c)| [a, b, c].map(str::to_owned)), "{url}");
        }
    }
}
