//! The static table (RFC 7541 appendix A).

/// How many entries the static table has; dynamic indices begin above.
pub(super) const STATIC_LEN: usize = ENTRIES.len();

/// The entry at an index from 1 on.
#[inline]
pub(super) fn entry(index: usize) -> Option<(&'static [u8], &'static [u8])> {
    let (name, value) = ENTRIES.get(index.checked_sub(1)?)?;
    Some((name.as_bytes(), value.as_bytes()))
}

/// The best index for a field: with its value if the table has that, else of its name.
#[inline]
pub(super) fn find(name: &[u8], value: &[u8]) -> Found {
    let Ok(at) = BY_NAME.binary_search_by(|&i| ENTRIES[usize::from(i)].0.as_bytes().cmp(name)) else {
        return Found::Nothing;
    };
    let first = usize::from(BY_NAME[at]);
    let same_name = ENTRIES[first..].iter().take_while(|e| e.0.as_bytes() == name);
    let exact = same_name.take_while(|e| !e.1.is_empty()).position(|e| e.1.as_bytes() == value);
    exact.map_or(Found::Name(first + 1), |i| Found::Exact(first + i + 1))
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

/// The first index (from 0) of each name, in the order of the names.
static BY_NAME: [u8; NAMES] = by_name();

const NAMES: usize = 52;

const fn by_name() -> [u8; NAMES] {
    let (mut sorted, mut len, mut i) = ([0u8; NAMES], 0, 0);
    while i < STATIC_LEN {
        if i == 0 || !matches!(compare(ENTRIES[i].0, ENTRIES[i - 1].0), Order::Same) {
            let mut at = len;
            while at > 0 && matches!(compare(ENTRIES[i].0, ENTRIES[sorted[at - 1] as usize].0), Order::Before) {
                sorted[at] = sorted[at - 1];
                at -= 1;
            }
            sorted[at] = i as u8;
            len += 1;
        }
        i += 1;
    }
    assert!(len == NAMES);
    sorted
}

enum Order {
    Before,
    Same,
    After,
}

const fn compare(a: &str, b: &str) -> Order {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut i = 0;
    loop {
        if i == a.len() || i == b.len() {
            return if a.len() < b.len() {
                Order::Before
            } else if a.len() == b.len() {
                Order::Same
            } else {
                Order::After
            };
        }
        if a[i] != b[i] {
            return if a[i] < b[i] { Order::Before } else { Order::After };
        }
        i += 1;
    }
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
}
