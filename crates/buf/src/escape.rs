//! Escapes.

/// Removes the escapes of the configuration language: `\"`, `\'`, `\\`, `\t`, `\r` and `\n` become the character that
/// they stand for; before any other character the backslash stays.
pub fn unescape_conf(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(n) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..n]);
        let next = rest.get(n + 1).copied();
        let replaced = match next {
            Some(byte @ (b'"' | b'\'' | b'\\')) => Some(byte),
            Some(b't') => Some(b'\t'),
            Some(b'r') => Some(b'\r'),
            Some(b'n') => Some(b'\n'),
            _ => None,
        };
        match replaced {
            Some(byte) => out.push(byte),
            None => {
                out.push(b'\\');
                out.extend(next);
            }
        }
        rest = rest.get(n + 2..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unescapes() {
        let check = |raw: &str, expect: &str| assert_eq!(unescape_conf(raw.as_bytes()), expect.as_bytes(), "{raw}");
        check("", "");
        check("abc", "abc");
        check(r#"\"\'\\\t\r\n"#, "\"'\\\t\r\n");
        check(r"\\n\$\.\", "\\n\\$\\.\\");
    }
}
