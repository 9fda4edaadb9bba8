//! The static table (RFC 7541 appendix A).

use super::traits::Traits;
use crate::h1::{KNOWN_HEADERS, KNOWN_NAMES, KnownHeader};

/// How many entries the static table has; dynamic indices begin above.
pub(super) const STATIC_LEN: usize = ENTRIES.len();

/// The entry at an index from 1 on.
#[inline]
pub(super) fn entry(index: usize) -> Option<(&'static [u8], &'static [u8])> {
    let (name, value) = ENTRIES.get(index.checked_sub(1)?)?;
    Some((name.as_bytes(), value.as_bytes()))
}

/// What the entry at an index is; those without a value, of which one is needed, aren't sound.
#[inline]
pub(super) fn traits(index: usize) -> Traits {
    index.checked_sub(1).and_then(|at| TRAITS.get(at)).copied().unwrap_or(Traits::UNKNOWN)
}

static TRAITS: [Traits; STATIC_LEN] = all_traits();

const fn all_traits() -> [Traits; STATIC_LEN] {
    let mut all = [Traits::UNKNOWN; STATIC_LEN];
    let mut i = 0;
    while i < STATIC_LEN {
        let (name, value) = ENTRIES[i];
        let mut n = 0;
        while n < KNOWN_NAMES.len() {
            if same(name, KNOWN_NAMES[n]) {
                all[i].known = KNOWN_HEADERS[n];
            }
            n += 1;
        }
        all[i].sound = name.as_bytes()[0] != b':' || !value.is_empty();
        i += 1;
    }
    all
}

/// The best index for a field: with its value if the table has that, else of its name.
#[inline]
pub(super) fn find(name: &[u8], value: &[u8]) -> Found {
    let (Some(&from), Some(&to)) = (NAMES.start.get(name.len()), NAMES.start.get(name.len() + 1)) else {
        return Found::Nothing;
    };
    let same_length = NAMES.by_length.get(usize::from(from)..usize::from(to)).unwrap_or_default();
    let same = |&&first: &&u8| {
        let known = ENTRIES[usize::from(first)].0.as_bytes();
        known.last() == name.last() && known == name
    };
    let Some(first) = same_length.iter().find(same).map(|&first| usize::from(first)) else { return Found::Nothing };
    let values = ENTRIES[first..].iter().take_while(|e| !e.1.is_empty() && e.0.len() == name.len());
    let exact = values.take_while(|e| e.0.as_bytes() == name).position(|e| e.1.as_bytes() == value);
    exact.map_or(Found::Name(first + 1), |i| Found::Exact(first + i + 1))
}

/// The first index of a known field's name; 0 for none.
#[inline]
pub(super) fn of_known(known: KnownHeader) -> usize {
    KNOWN.get(known as usize).map_or(0, |index| usize::from(*index))
}

/// By the order of [`KnownHeader`].
static KNOWN: [u8; KNOWN_NAMES.len()] = known();

const fn known() -> [u8; KNOWN_NAMES.len()] {
    let mut known = [0; KNOWN_NAMES.len()];
    let mut n = 0;
    while n < KNOWN_NAMES.len() {
        let mut i = STATIC_LEN;
        while i > 0 {
            if same(ENTRIES[i - 1].0, KNOWN_NAMES[n]) {
                known[n] = i as u8;
            }
            i -= 1;
        }
        n += 1;
    }
    known
}

/// What a table knows of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Not even the name.
    Nothing,
    /// The name, at this index.
    Name(usize),
    /// Name and value, at this index.
    Exact(usize),
}

/// Names by their length: of one length there are few.
struct Names {
    /// The first entry (from 0) of each name, shorter names first.
    by_length: [u8; COUNT],
    /// By length: where names of it begin in `by_length`.
    start: [u8; LONGEST + 2],
}

/// How many different names there are.
const COUNT: usize = 52;
/// The longest name.
const LONGEST: usize = 27;

static NAMES: Names = names();

const fn names() -> Names {
    let mut names = Names { by_length: [0; COUNT], start: [0; LONGEST + 2] };
    let (mut at, mut len) = (0, 0);
    while len <= LONGEST {
        names.start[len] = at as u8;
        let mut i = 0;
        while i < STATIC_LEN {
            // Entries of one name follow each other.
            if ENTRIES[i].0.len() == len && (i == 0 || !same(ENTRIES[i].0, ENTRIES[i - 1].0)) {
                names.by_length[at] = i as u8;
                at += 1;
            }
            i += 1;
        }
        len += 1;
    }
    names.start[LONGEST + 1] = at as u8;
    assert!(at == COUNT);
    names
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut i = 0;
    while i < a.len() && i < b.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    a.len() == b.len()
}

const ENTRIES: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_entry() {
        for (i, (name, value)) in ENTRIES.iter().enumerate() {
            let found = find(name.as_bytes(), value.as_bytes());
            let expected = if value.is_empty() { Found::Name(i + 1) } else { Found::Exact(i + 1) };
            assert_eq!(found, expected, "{name}: {value}");
            assert_eq!(entry(i + 1), Some((name.as_bytes(), value.as_bytes())));
        }
        assert_eq!(entry(0), None);
        assert_eq!(entry(62), None);
    }

    #[test]
    fn knows_names_apart_from_values() {
        assert_eq!(find(b":status", b"418"), Found::Name(8));
        assert_eq!(find(b":path", b"/x"), Found::Name(4));
        assert_eq!(find(b"x-foo", b""), Found::Nothing);
        assert_eq!(find(b"accept-encoding", b"gzip, deflate"), Found::Exact(16));
    }

    #[test]
    fn traits_are_those_that_a_look_would_find() {
        for (i, (name, value)) in ENTRIES.iter().enumerate() {
            assert_eq!(traits(i + 1), Traits::of(name.as_bytes(), value.as_bytes()), "{name}");
        }
        assert_eq!((traits(0), traits(STATIC_LEN + 1)), (Traits::UNKNOWN, Traits::UNKNOWN));
    }
}
