//! Lists in header values: codings of Accept-Encoding, tokens of Connection and its like.

/// Whether `value` of Accept-Encoding accepts the coding `name`, as nginx reads it.
///
/// The first occurrence of the name counts, with a `q` of up to three decimals; `*` doesn't count.
pub fn accepts_encoding(value: &[u8], name: &[u8]) -> bool {
    let mut at = 0;
    while let Some(window) = value.get(at..at + name.len()) {
        let begins = at == 0 || matches!(value.get(at - 1), Some(b',' | b' '));
        let after = value.get(at + name.len()..).unwrap_or_default();
        let ends = matches!(after.first(), None | Some(b',' | b';' | b' '));
        if begins && ends && window.eq_ignore_ascii_case(name) {
            return is_wanted(after);
        }
        at += 1;
    }
    false
}

/// Whether the list `value` has the token `name`, in any case: `Connection: keep-alive, Upgrade`.
pub fn has_token(value: &[u8], name: &[u8]) -> bool {
    tokens(value).any(|token| token.eq_ignore_ascii_case(name))
}

/// The items of a comma-separated list, trimmed, empty ones left out.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// What follows a coding's name: nothing, or a quality above zero.
fn is_wanted(after: &[u8]) -> bool {
    match skip_spaces(after) {
        [] | [b',', ..] => true,
        [b';', parameters @ ..] => match skip_spaces(parameters) {
            [] => true,
            [b'q' | b'Q', b'=', quality @ ..] => is_positive(quality),
            _ => false,
        },
        _ => false,
    }
}

/// A quality (RFC 9110 §12.4.2) above zero, with a comma, a space or nothing after it.
fn is_positive(quality: &[u8]) -> bool {
    let end = quality.iter().position(|b| matches!(b, b',' | b' ')).unwrap_or(quality.len());
    let (whole, decimals) = match quality.get(..end).unwrap_or_default() {
        [whole] => (*whole, &[] as &[u8]),
        [whole, b'.', decimals @ ..] => (*whole, decimals),
        _ => return false,
    };
    let above_zero = decimals.iter().any(|&b| b != b'0');
    decimals.len() <= 3
        && decimals.iter().all(u8::is_ascii_digit)
        && ((whole == b'1' && !above_zero) || (whole == b'0' && above_zero))
}

fn skip_spaces(text: &[u8]) -> &[u8] {
    let n = text.iter().position(|&b| b != b' ').unwrap_or(text.len());
    text.get(n..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codings_as_nginx_takes_them() {
        for (value, expect) in [
            ("gzip", true),
            ("GZIP", true),
            ("gzip;q=0", false),
            ("gzip;q=0.0", false),
            ("gzip;q=0.001", true),
            ("gzip;q=1", true),
            ("gzip; q=0", false),
            ("gzip ;q=0", false),
            ("gzip;q=0.0000", false),
            ("gzip;q=1.0", true),
            ("gzip;q=1.1", false),
            ("gzip;q=2", false),
            ("gzip;q=.5", false),
            ("gzip;q=a", false),
            ("gzip;x=0", false),
            ("*", false),
            ("deflate, gzip", true),
            ("xgzip", false),
            ("x-gzip", false),
            ("gzipx", false),
            ("gzip,", true),
            ("deflate,gzip;q=0,", false),
            ("deflate gzip", true),
            ("deflate;gzip", false),
            ("gzip;", true),
            ("gzip;q", false),
            ("gzip;q=", false),
            ("gzip;q=0,gzip", false),
            ("gzip;q=0.5;x", false),
            ("gzip;q=0.5, br", true),
            ("gzip q=0", false),
            ("gzip;Q=0", false),
            ("xgzip, gzip", true),
            ("identity;q=1, *;q=0", false),
            ("br,gzip", true),
            ("", false),
        ] {
            assert_eq!(accepts_encoding(value.as_bytes(), b"gzip"), expect, "{value:?}");
        }
    }

    #[test]
    fn token_lists() {
        assert!(has_token(b"keep-alive,  Upgrade", b"upgrade"));
        assert!(!has_token(b"keep-alive, upgrades", b"upgrade"));
        assert_eq!(tokens(b" a ,, b").collect::<Vec<_>>(), [b"a", b"b"]);
    }
}
