//! What is found out about a field when it enters a table, so that it isn't looked at again each time it comes.

use crate::class::{NAME, NAME_BAD, SCHEME, is};
use crate::h1::{KnownHeader, parse_method};
use crate::swar::find_control;
use crate::uri::scan_host;

/// What a field is, as far as its name and value alone say (RFC 9113 §8.2.1, §8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// Name and value have been looked at, and break none of the rules. If not, nothing else here is known.
    pub sound: bool,
    /// The name has bytes other than letters, digits and `-`.
    pub unusual: bool,
    /// The id of the name.
    pub known: KnownHeader,
}

impl Traits {
    /// Of a field that hasn't been looked at.
    pub const UNKNOWN: Traits = Traits { sound: false, unusual: false, known: KnownHeader::Other };

    /// Looks at a field.
    pub(super) fn of(name: &[u8], value: &[u8]) -> Traits {
        let is_pseudo = name.first() == Some(&b':');
        let Some(unusual) = name_is_unusual(name) else { return Traits::UNKNOWN };
        if value_is_bad(value) || is_pseudo && !pseudo_is_sound(name, value) {
            return Traits::UNKNOWN;
        }
        Traits { sound: true, unusual, known: KnownHeader::of(name) }
    }
}

/// Whether a name has unusual bytes; `None` if it has forbidden ones (RFC 9113 §8.2.1). The colon before that of a
/// pseudo-header is no part of it.
pub(crate) fn name_is_unusual(name: &[u8]) -> Option<bool> {
    let name = name.strip_prefix(b":").unwrap_or(name);
    let seen = name.iter().fold(0, |seen, &byte| seen | NAME_BYTES[usize::from(byte)]);
    if name.is_empty() || seen & FORBIDDEN != 0 { None } else { Some(seen != 0) }
}

/// Whether a value has NUL, CR or LF.
pub(crate) fn value_is_bad(value: &[u8]) -> bool {
    find_control(value, 0).is_some() && memchr::memchr3(0, b'\r', b'\n', value).is_some()
}

/// Whether the value of a request's pseudo-header is what it may be by itself. What `:protocol` names, nothing included,
/// is known or not: the owner says.
pub(crate) fn pseudo_is_sound(name: &[u8], value: &[u8]) -> bool {
    match name {
        b":authority" => scan_host(value).is_ok(),
        b":method" => parse_method(value).0,
        b":scheme" => value.first().is_some_and(u8::is_ascii_alphabetic) && value.iter().all(|&byte| is(byte, SCHEME)),
        // It begins as a path, and has no byte that would end it in HTTP/1.
        b":path" => value.first() == Some(&b'/') && !value.iter().any(|&byte| is(byte, NAME_BAD)),
        _ => true,
    }
}

/// What each byte is in a name: 0 for small letters, digits and `-`.
static NAME_BYTES: [u8; 256] = name_bytes();
const UNUSUAL: u8 = 1;
const FORBIDDEN: u8 = 2;

const fn name_bytes() -> [u8; 256] {
    let (mut table, mut i) = ([UNUSUAL; 256], 0);
    while i < 256 {
        let byte = i as u8;
        if is(byte, NAME_BAD) || byte.is_ascii_uppercase() || byte == b':' {
            table[i] = FORBIDDEN;
        } else if is(byte, NAME) {
            table[i] = 0;
        }
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        for (name, value, expect) in [
            (":method", "GET", Some((false, KnownHeader::Other))),
            (":method", "", None),
            (":authority", "a b", None),
            (":path", "x", None),
            (":scheme", "1", None),
            (":status", "200", Some((false, KnownHeader::Other))),
            ("user-agent", "", Some((false, KnownHeader::UserAgent))),
            ("user-agent", "a\nb", None),
            ("User-agent", "a", None),
            ("x_y", "1\t", Some((true, KnownHeader::Other))),
            ("", "1", None),
        ] {
            let Traits { sound, unusual, known } = Traits::of(name.as_bytes(), value.as_bytes());
            assert_eq!(sound.then_some((unusual, known)), expect, "{name}");
        }
    }
}
