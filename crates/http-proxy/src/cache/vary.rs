//! Variants of a response (RFC 9111 §4.1): what the request's fields are that `Vary` names.

use ::cache::key::digest;
use http::request::Request;

/// The variant that a request asks for; all zeros if nothing varies. Spaces and empty members of lists don't count.
pub(super) fn variant(vary: &[u8], r: &Request) -> [u8; 16] {
    let mut text = Vec::new();
    for name in names(vary) {
        text.extend(name.to_ascii_lowercase());
        let fields = r.line.headers.iter().filter(|field| field.name.of(&r.head).eq_ignore_ascii_case(name));
        append(fields.map(|field| field.value.of(&r.head)), &mut text);
    }
    if text.is_empty() { [0; 16] } else { digest(&[&text]) }
}

/// The names in `Vary`.
pub(super) fn names(vary: &[u8]) -> impl Iterator<Item = &[u8]> {
    vary.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty())
}

fn append<'a>(values: impl Iterator<Item = &'a [u8]>, text: &mut Vec<u8>) {
    let mut first = true;
    for value in values {
        if std::mem::take(&mut first) {
            text.push(b':');
        }
        for member in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty()) {
            text.extend_from_slice(member);
            text.push(b',');
        }
    }
    text.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(values: &[&str]) -> String {
        let mut text = Vec::new();
        append(values.iter().map(|value| value.as_bytes()), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    #[test]
    fn equal_values_are_equal() {
        for (values, expect) in [
            (&["foo, bar"][..], ":foo,bar,\n"),
            (&["foo,,  ,bar , "], ":foo,bar,\n"),
            (&["foo", "bar"], ":foo,bar,\n"),
            (&["foobar"], ":foobar,\n"),
            (&[""], ":\n"),
            (&[], "\n"),
        ] {
            assert_eq!(normal(values), expect, "{values:?}");
        }
        assert_eq!(names(b",, A , ,b").collect::<Vec<_>>(), [&b"A"[..], b"b"]);
    }
}
