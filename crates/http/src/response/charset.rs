//! The charset that a media type names.

use buf::Bytes;

use super::Response;

impl Response {
    /// The charset that is named, in the type itself or apart from it.
    pub fn named_charset(&self) -> Option<Bytes> {
        self.charset.clone().or_else(|| named(self.content_type.clone()?).1)
    }
}

/// A media type without its charset, and the charset if it names one: what follows `charset=`.
pub fn named(kind: Bytes) -> (Bytes, Option<Bytes>) {
    let parameters = kind.iter().enumerate().filter(|(_, byte)| **byte == b';').map(|(at, _)| at);
    for at in parameters {
        let parameter = kind[at + 1..].trim_ascii_start();
        let Some((name, value)) = parameter.split_at_checked(PARAMETER.len()) else { break };
        if name.eq_ignore_ascii_case(PARAMETER) {
            let value = value.strip_prefix(b"\"").unwrap_or(value);
            let value = value.strip_suffix(b"\"").unwrap_or(value);
            return (kind.slice(0..at), Some(Bytes::copy_from(value)));
        }
    }
    (kind, None)
}

const PARAMETER: &[u8] = b"charset=";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charsets_of_types() {
        for (field, expect) in [
            ("text/html", ("text/html", None)),
            ("text/html; charset=utf-8", ("text/html", Some("utf-8"))),
            ("text/html;Charset=\"A\"", ("text/html", Some("A"))),
            ("text/html; a=b;  charset=A", ("text/html; a=b", Some("A"))),
            ("text/html; charset=A; x=y", ("text/html", Some("A; x=y"))),
            ("text/html; xcharset=A", ("text/html; xcharset=A", None)),
            ("text/html;", ("text/html;", None)),
            ("charset=A", ("charset=A", None)),
        ] {
            let (kind, name) = named(Bytes::from_static(field.as_bytes()));
            let expect: (&str, Option<&str>) = expect;
            assert_eq!((&kind[..], name.as_deref()), (expect.0.as_bytes(), expect.1.map(str::as_bytes)), "{field}");
        }
    }
}
