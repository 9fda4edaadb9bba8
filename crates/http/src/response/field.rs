//! The last check of a head: no value contains what would end its line.
//!
//! Variables may hold line breaks and NULs: the URI is decoded, regexes capture parts of it. nginx writes them as they
//! are, so that `return 302 /x$uri` lets a client add fields to the response, or a response of its own. Here such bytes
//! go out percent-encoded, in every field, request line and trailer, and a log line says where. A value costs one
//! search for them; nothing is copied but where they are found.

use std::borrow::Cow;

use buf::Bytes;

use super::Headers;
use crate::request::Request;

/// Whether `value` would end the line that it stands in.
///
/// Control characters are looked for first, 32 bytes at a time and the rest by 16 that may overlap, and only then is it checked
/// which one it is.
#[inline]
pub fn breaks(value: &[u8]) -> bool {
    has_control(value) && memchr::memchr3(b'\r', b'\n', 0, value).is_some()
}

/// Whether a byte is below 16, as line breaks, NUL and tab are.
#[inline]
fn has_control(value: &[u8]) -> bool {
    let Some(last) = value.last_chunk() else { return has_control_word(value) };
    let (blocks, rest) = value.as_chunks::<32>();
    blocks.iter().any(is_low) || is_low::<16>(last) || rest.first_chunk::<16>().is_some_and(is_low)
}

/// Whether one of these bytes is below 16.
#[inline(always)]
fn is_low<const N: usize>(block: &[u8; N]) -> bool {
    block.iter().fold(false, |found, byte| found | (*byte < 16))
}

/// As [`has_control`], of fewer than 16 bytes.
#[inline]
fn has_control_word(value: &[u8]) -> bool {
    // Taking 16 from a byte below it borrows, which sets its highest bit; a byte above 127 has had that.
    let asked = |word: [u8; 8]| {
        let word = u64::from_ne_bytes(word);
        word.wrapping_sub(0x1010_1010_1010_1010) & !word & 0x8080_8080_8080_8080
    };
    match (value.first_chunk(), value.last_chunk()) {
        (Some(first), Some(last)) => asked(*first) | asked(*last) != 0,
        _ => value.iter().any(|byte| *byte < 16),
    }
}

/// `value` in a form that is safe in a head; for the log `what` names the field, and `place` the receiver.
#[inline]
pub fn safe<'v>(r: &Request, what: &[u8], value: &'v [u8], place: &str) -> Cow<'v, [u8]> {
    if breaks(value) { Cow::Owned(encode(r, what, value, place)) } else { Cow::Borrowed(value) }
}

#[cold]
fn encode(r: &Request, what: &[u8], value: &[u8], place: &str) -> Vec<u8> {
    let name = what.escape_ascii();
    r.log_error(format_args!("line break or NUL in \"{name}\" was encoded while {place}"));
    encoded(value)
}

fn encoded(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 8);
    for byte in value {
        match byte {
            b'\r' => out.extend_from_slice(b"%0D"),
            b'\n' => out.extend_from_slice(b"%0A"),
            0 => out.extend_from_slice(b"%00"),
            byte => out.push(*byte),
        }
    }
    out
}

/// Where the client's heads and trailers are made.
const TO_CLIENT: &str = "sending response to client";

/// Makes the head of the response safe, whatever the protocol.
pub(crate) fn secure_head(r: &mut Request) {
    let response = &r.response;
    let own = [&response.content_type, &response.charset, &response.status_line];
    let unsafe_own = own.into_iter().flatten().any(|value| breaks(value));
    if unsafe_own {
        encode_own(r);
    }
    if r.response.headers.iter().any(|field| breaks(&field.value)) {
        let mut fields = std::mem::take(&mut r.response.headers);
        secure_fields(r, &mut fields);
        r.response.headers = fields;
    }
}

/// The fields that a response keeps apart from the others.
type Slot = fn(&mut Request) -> &mut Option<Bytes>;

#[cold]
fn encode_own(r: &mut Request) {
    let slots: [(&str, Slot); 3] = [
        ("Content-Type", |r| &mut r.response.content_type),
        ("charset", |r| &mut r.response.charset),
        ("status line", |r| &mut r.response.status_line),
    ];
    for (name, slot) in slots {
        let Some(value) = slot(r).clone().filter(|value| breaks(value)) else { continue };
        let value = encode(r, name.as_bytes(), &value, TO_CLIENT);
        *slot(r) = Some(Bytes::from(value));
    }
}

/// Makes trailers, or the fields of a head before the final one, safe.
pub fn secure_fields(r: &Request, fields: &mut Headers) {
    for field in fields.iter_mut() {
        if breaks(&field.value) {
            field.value = Bytes::from(encode(r, &field.name, &field.value, TO_CLIENT));
        }
    }
}

impl Request {
    /// The trailers of the response, complete and safe, once its body is over.
    pub(crate) fn take_trailers(&mut self) -> Headers {
        if let Some(add) = self.response.late_trailers.take() {
            add(self);
        }
        let mut trailers = std::mem::take(&mut self.response.trailers);
        secure_fields(self, &mut trailers);
        trailers
    }
}

/// A text of the configuration as a field may have it: a line break, with the blanks around it, is one blank (RFC 9112
/// §5.2). People write long values over several lines.
pub fn unfolded(text: &[u8]) -> Cow<'_, [u8]> {
    if !breaks(text) {
        return Cow::Borrowed(text);
    }
    let lines = text.split(|byte| matches!(byte, b'\r' | b'\n')).map(<[u8]>::trim_ascii);
    Cow::Owned(lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(&b' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_anywhere() {
        for len in 0..80 {
            assert!(!has_control(&vec![b' '; len]) && !has_control(&vec![255; len]) && !has_control(&vec![16; len]));
            for at in 0..len {
                for byte in [0, 9, 10, 13, 15] {
                    let mut value = vec![b"\x7f\x80\xff"[at % 3]; len];
                    value[at] = byte;
                    assert!(has_control(&value), "{byte} at {at} of {len}");
                    assert_eq!(breaks(&value), matches!(byte, 0 | 10 | 13), "{byte} at {at} of {len}");
                }
            }
        }
    }

    #[test]
    fn values() {
        for (value, expect) in [
            ("", ""),
            ("a b\tc", "a b\tc"),
            ("a\r\nX: y", "a%0D%0AX: y"),
            ("\n", "%0A"),
            ("a\0", "a%00"),
            ("%0D\u{e9}", "%0D\u{e9}"),
        ] {
            assert_eq!(String::from_utf8_lossy(&encoded(value.as_bytes())), expect, "{value:?}");
            assert_eq!(breaks(value.as_bytes()), value != expect, "{value:?}");
        }
    }

    #[test]
    fn values_over_several_lines() {
        for (text, expect) in [
            ("a; b", "a; b"),
            ("default-src 'self';\n    img-src *;\r\n", "default-src 'self'; img-src *;"),
            (" a ", " a "),
            ("\n\n", ""),
        ] {
            assert_eq!(String::from_utf8_lossy(&unfolded(text.as_bytes())), expect, "{text:?}");
        }
    }
}
