//! Entity tags (RFC 9110 §8.8.3, §13.1): `If-Match`, `If-None-Match`, `If-Range`.

/// Whether `list`, the value of If-None-Match, has `etag`; weak tags equal strong ones of the same text.
pub fn if_none_match(list: &[u8], etag: Option<&[u8]>) -> bool {
    matches(list, etag, true)
}

/// Whether `list`, the value of If-Match, has `etag`; a weak tag equals nothing.
pub fn if_match(list: &[u8], etag: Option<&[u8]>) -> bool {
    matches(list, etag, false)
}

/// Whether `value` of If-Range, if it is a tag, is exactly `etag`; `None` if it isn't a tag but should be a date.
pub fn if_range(value: &[u8], etag: Option<&[u8]>) -> Option<bool> {
    (value.len() >= 2 && value.last() == Some(&b'"')).then(|| etag == Some(value))
}

fn matches(list: &[u8], etag: Option<&[u8]>, weak: bool) -> bool {
    if list == b"*" {
        return true;
    }
    let Some(etag) = etag else { return false };
    let strong = etag.strip_prefix(b"W/");
    let etag = match strong {
        Some(_) if !weak => return false,
        Some(strong) => strong,
        None => etag,
    };
    let mut rest = list;
    while !rest.is_empty() {
        if weak && let Some(tag) = rest.strip_prefix(b"W/") {
            rest = tag;
        }
        if let Some(after) = rest.strip_prefix(etag)
            && matches!(skip(after, b" \t").first(), None | Some(b','))
        {
            return true;
        }
        let Some(comma) = memchr::memchr(b',', rest) else { return false };
        rest = skip(rest.get(comma + 1..).unwrap_or_default(), b" \t,");
    }
    false
}

fn skip<'a>(text: &'a [u8], any: &[u8]) -> &'a [u8] {
    let n = text.iter().position(|b| !any.contains(b)).unwrap_or(text.len());
    text.get(n..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison() {
        for (list, etag, weak, strong) in [
            ("*", Some("\"a\""), true, true),
            ("*", None, true, true),
            ("\"a\"", None, false, false),
            ("\"a\"", Some("\"a\""), true, true),
            ("\"b\", \"a\"", Some("\"a\""), true, true),
            ("\"b\",\t\"a\" , \"c\"", Some("\"a\""), true, true),
            ("\"b\",, \"a\"", Some("\"a\""), true, true),
            ("W/\"a\"", Some("\"a\""), true, false),
            ("W/\"a\"", Some("W/\"a\""), true, false),
            ("\"a\"", Some("W/\"a\""), true, false),
            ("\"ab\"", Some("\"a\""), false, false),
            ("\"a\"b", Some("\"a\""), false, false),
            ("\"b\" \"a\"", Some("\"a\""), false, false),
            ("", Some("\"a\""), false, false),
        ] {
            let tag = etag.map(str::as_bytes);
            assert_eq!(if_none_match(list.as_bytes(), tag), weak, "{list} {etag:?}");
            assert_eq!(if_match(list.as_bytes(), tag), strong, "{list} {etag:?}");
        }
        assert_eq!(if_range(b"\"a\"", Some(b"\"a\"")), Some(true));
        assert_eq!(if_range(b"W/\"a\"", Some(b"\"a\"")), Some(false));
        assert_eq!(if_range(b"Sun, 06 Nov 1994 08:49:37 GMT", Some(b"\"a\"")), None);
    }
}
