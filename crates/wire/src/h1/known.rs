//! The header names that nginx itself looks at, recognised in one step.

use std::num::NonZeroU8;

macro_rules! known {
    ($($name:ident = $text:literal),+ $(,)?) => {
        /// A header line that has a meaning of its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum KnownHeader {
            /// Any other name.
            Other,
            $(#[doc = concat!("`", $text, "`")] $name,)+
        }

        /// Names in lower case, in the order of the enum.
        pub(crate) const NAMES: &[&str] = &["", $({
            const LOWER: [u8; $text.len()] = lower($text);
            text(&LOWER)
        }),+];
        /// The same as HTTP/1 usually has them, with what separates them from their values.
        const LINES: &[&str] = &[": ", $(concat!($text, ": ")),+];
        /// The enum's values in their order.
        pub(crate) const KNOWN: &[KnownHeader] = &[KnownHeader::Other, $(KnownHeader::$name),+];
    };
}

known! {
    Host = "Host",
    Connection = "Connection",
    ContentLength = "Content-Length",
    TransferEncoding = "Transfer-Encoding",
    ContentType = "Content-Type",
    ContentRange = "Content-Range",
    IfModifiedSince = "If-Modified-Since",
    IfUnmodifiedSince = "If-Unmodified-Since",
    IfMatch = "If-Match",
    IfNoneMatch = "If-None-Match",
    IfRange = "If-Range",
    Range = "Range",
    Expect = "Expect",
    Upgrade = "Upgrade",
    Te = "TE",
    Trailer = "Trailer",
    KeepAlive = "Keep-Alive",
    ProxyConnection = "Proxy-Connection",
    UserAgent = "User-Agent",
    Referer = "Referer",
    Accept = "Accept",
    AcceptEncoding = "Accept-Encoding",
    AcceptLanguage = "Accept-Language",
    AcceptCharset = "Accept-Charset",
    Authorization = "Authorization",
    ProxyAuthorization = "Proxy-Authorization",
    Cookie = "Cookie",
    Via = "Via",
    XForwardedFor = "X-Forwarded-For",
    XRealIp = "X-Real-IP",
    Depth = "Depth",
    Destination = "Destination",
    Overwrite = "Overwrite",
    Date = "Date",
    Server = "Server",
    Location = "Location",
    Refresh = "Refresh",
    SetCookie = "Set-Cookie",
    LastModified = "Last-Modified",
    ETag = "ETag",
    CacheControl = "Cache-Control",
    Expires = "Expires",
    Pragma = "Pragma",
    Vary = "Vary",
    Age = "Age",
    Link = "Link",
    ContentEncoding = "Content-Encoding",
    ContentDisposition = "Content-Disposition",
    AcceptRanges = "Accept-Ranges",
    WwwAuthenticate = "WWW-Authenticate",
    ProxyAuthenticate = "Proxy-Authenticate",
    Status = "Status",
    XAccelRedirect = "X-Accel-Redirect",
    XAccelExpires = "X-Accel-Expires",
    XAccelLimitRate = "X-Accel-Limit-Rate",
    XAccelBuffering = "X-Accel-Buffering",
    XAccelCharset = "X-Accel-Charset",
    EarlyData = "Early-Data",
    Priority = "Priority",
    Origin = "Origin",
}

impl KnownHeader {
    /// The header of this name, in any case of letters.
    pub fn of(name: &[u8]) -> KnownHeader {
        KnownHeader::find(name)
    }

    /// The same for the parser of header lines, of which it is a part: a call would cost as much as the search.
    #[inline(always)]
    pub(super) fn find(name: &[u8]) -> KnownHeader {
        let (Some(&first), Some(&last)) = (name.first(), name.last()) else { return KnownHeader::Other };
        let middle = name.get(name.len() / 2).copied().unwrap_or(0);
        let Some(slot) = TABLE.slots[slot_of(TABLE.seed, name.len(), first, middle, last)] else {
            return KnownHeader::Other;
        };
        let at = slot.get() as usize;
        if equals(name, NAMES[at].as_bytes()) { KNOWN[at] } else { KnownHeader::Other }
    }

    /// The name in lower case; empty for [`KnownHeader::Other`].
    pub fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    /// The name as HTTP/1 usually has it, with what separates it from its value.
    #[inline]
    pub fn line(self) -> &'static [u8] {
        LINES[self as usize].as_bytes()
    }

    /// The name as HTTP/1 usually has it; empty for [`KnownHeader::Other`].
    #[inline]
    pub fn spelled(self) -> &'static [u8] {
        let line = self.line();
        &line[..line.len() - 2]
    }

    /// This header as one bit of a set; none for [`KnownHeader::Other`].
    #[inline]
    pub(super) fn bit(self) -> u64 {
        (1u64 << (self as u8)) & !1
    }

    /// Whether nginx refuses a request that has this header twice.
    #[inline]
    pub fn is_unique_in_request(self) -> bool {
        const UNIQUE: u64 = set(&[
            KnownHeader::Host,
            KnownHeader::ContentLength,
            KnownHeader::TransferEncoding,
            KnownHeader::ContentRange,
            KnownHeader::IfModifiedSince,
            KnownHeader::IfUnmodifiedSince,
            KnownHeader::IfMatch,
            KnownHeader::IfNoneMatch,
            KnownHeader::IfRange,
            KnownHeader::Expect,
            KnownHeader::Authorization,
        ]);
        self.bit() & UNIQUE != 0
    }
}

/// A name in lower case.
const fn lower<const N: usize>(name: &str) -> [u8; N] {
    let mut lower = [0; N];
    let mut i = 0;
    while i < N {
        lower[i] = name.as_bytes()[i].to_ascii_lowercase();
        i += 1;
    }
    lower
}

const fn text(bytes: &'static [u8]) -> &'static str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("names are ASCII"),
    }
}

/// Whether `name` is `lower`, which is in lower case, in any case of letters; by words instead of bytes, of which the
/// last may overlap the one before.
#[inline(always)]
fn equals(name: &[u8], lower: &[u8]) -> bool {
    if name.len() != lower.len() {
        return false;
    }
    if let (Some(last), Some(lower_last)) = (name.last_chunk(), lower.last_chunk()) {
        let (mut name, mut lower) = (name, lower);
        while let (Some((word, rest)), Some((lower_word, lower_rest))) =
            (name.split_first_chunk(), lower.split_first_chunk())
        {
            if !same(u64::from_le_bytes(*word), u64::from_le_bytes(*lower_word)) {
                return false;
            }
            (name, lower) = (rest, lower_rest);
        }
        return same(u64::from_le_bytes(*last), u64::from_le_bytes(*lower_last));
    }
    match (half(name), half(lower)) {
        (Some(name), Some(lower)) => same(name, lower),
        _ => name.eq_ignore_ascii_case(lower),
    }
}

/// The four to eight bytes of a name as one word.
#[inline(always)]
fn half(name: &[u8]) -> Option<u64> {
    let (first, last) = (name.first_chunk()?, name.last_chunk()?);
    Some(u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last)))
}

#[inline(always)]
fn same(name: u64, lower: u64) -> bool {
    // Bit 5 may differ where `lower` is a letter: letters have bit 6, digits and `-` don't.
    let case = (lower & 0x4040_4040_4040_4040) >> 1;
    (name ^ lower) & !case == 0
}

const fn set(headers: &[KnownHeader]) -> u64 {
    let mut bits = 0;
    let mut i = 0;
    while i < headers.len() {
        bits |= 1u64 << (headers[i] as u8);
        i += 1;
    }
    bits
}

/// Number of slots; a power of two, large enough that a seed without collisions is found quickly.
const SLOTS: usize = 512;

/// A perfect hash over length, first, middle and last letter.
struct Table {
    seed: u32,
    slots: [Option<NonZeroU8>; SLOTS],
}

static TABLE: Table = build();

#[inline(always)]
const fn slot_of(seed: u32, len: usize, first: u8, middle: u8, last: u8) -> usize {
    // Setting bit 5 lowers a letter; what it does to other bytes doesn't matter, the comparison decides.
    let key =
        (len as u32 & 0xff) | ((first | 32) as u32) << 8 | ((middle | 32) as u32) << 16 | ((last | 32) as u32) << 24;
    (key.wrapping_mul(seed) >> (32 - SLOTS.trailing_zeros())) as usize
}

const fn build() -> Table {
    assert!(NAMES.len() <= 64, "a set of headers is one u64");
    let mut seed = 0x9e37_79b1u32;
    loop {
        if let Some(slots) = fill(seed) {
            return Table { seed, slots };
        }
        seed = seed.wrapping_mul(0x85eb_ca6b).wrapping_add(0xc2b2_ae35) | 1;
    }
}

const fn fill(seed: u32) -> Option<[Option<NonZeroU8>; SLOTS]> {
    let mut slots = [None; SLOTS];
    let mut i = 1;
    while i < NAMES.len() {
        let name = NAMES[i].as_bytes();
        let slot = slot_of(seed, name.len(), name[0], name[name.len() / 2], name[name.len() - 1]);
        if slots[slot].is_some() {
            return None;
        }
        slots[slot] = NonZeroU8::new(i as u8);
        i += 1;
    }
    Some(slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for (i, name) in NAMES.iter().enumerate().skip(1) {
            assert_eq!(KnownHeader::of(name.as_bytes()), KNOWN[i], "{name}");
            assert_eq!(KnownHeader::of(name.to_ascii_uppercase().as_bytes()), KNOWN[i], "{name}");
            assert_eq!(KNOWN[i].name(), *name);
            assert!(KNOWN[i].spelled().eq_ignore_ascii_case(name.as_bytes()));
            assert_eq!(KNOWN[i].line(), [KNOWN[i].spelled(), b": "].concat());
            assert_eq!(KnownHeader::of(name.replace('-', "\r").as_bytes()) == KNOWN[i], !name.contains('-'));
            assert_eq!(KnownHeader::of(format!("{name}x").as_bytes()), KnownHeader::Other);
        }
        for name in ["", "h", "hos", "x-foo", "content_length"] {
            assert_eq!(KnownHeader::of(name.as_bytes()), KnownHeader::Other, "{name}");
        }
    }
}
