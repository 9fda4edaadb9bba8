//! What a backend's response says of its storing: by nginx's rules, or by those of RFC 9111.
//!
//! Pure rules: from fields and times to a [`Judgement`].

use wire::cache_control::{self, CacheControl};
use wire::h1::{KnownHeader, ResponseHead};

use crate::conf::ignore;

/// What a response says of its storing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Until when it is fresh, in seconds since 1970; `None`: it doesn't say.
    pub valid: Option<i64>,
    /// For how many seconds after that it may be served while it is being updated.
    pub while_updating: i64,
    /// For how many seconds after that it may be served if the backend fails.
    pub on_error: i64,
    /// The values of `Vary`, joined by commas.
    pub vary: Vec<u8>,
    /// Bits of [`flags`].
    pub flags: u16,
    /// Fields that aren't stored, in lower case.
    pub unstored: Vec<Vec<u8>>,
    /// When its age was 0, in seconds since 1970.
    pub born: i64,
}

/// What is noted in the file of a response that was judged by RFC 9111.
pub mod flags {
    /// It must not be served stale.
    pub const NEVER_STALE: u16 = 1;
    /// It was judged by RFC 9111.
    pub const RFC: u16 = 2;
}

/// A response's head, and when it was asked for and came, in seconds since 1970.
#[derive(Clone, Copy)]
pub struct Said<'a> {
    /// The head.
    pub head: &'a ResponseHead,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// When the request was sent.
    pub asked: i64,
    /// The time now.
    pub now: i64,
}

impl Said<'_> {
    fn values(&self, known: KnownHeader) -> impl Iterator<Item = &[u8]> {
        let fields = self.head.headers.iter().filter(move |field| field.known == known);
        fields.map(|field| field.value.of(self.bytes))
    }

    fn others<'s>(&'s self, name: &'s [u8]) -> impl Iterator<Item = &'s [u8]> {
        let fields = self.head.headers.iter().filter(move |field| field.name.of(self.bytes).eq_ignore_ascii_case(name));
        fields.map(|field| field.value.of(self.bytes))
    }

    fn time(&self, known: KnownHeader) -> Option<i64> {
        self.values(known).next().and_then(wire::date::parse_http_time)
    }
}

/// The values of `Vary`, joined; `None` if one is `*`.
fn vary(said: &Said<'_>, ignored: u32) -> Option<Vec<u8>> {
    if ignored & ignore::VARY != 0 {
        return Some(Vec::new());
    }
    let mut joined = Vec::new();
    for value in said.values(KnownHeader::Vary) {
        if value.split(|byte| *byte == b',').any(|name| name.trim_ascii() == b"*") {
            return None;
        }
        if !joined.is_empty() {
            joined.push(b',');
        }
        joined.extend_from_slice(value);
    }
    Some(joined)
}

/// What `X-Accel-Expires` says: the time of expiry, or that the response isn't stored.
fn accel_expires(said: &Said<'_>, ignored: u32) -> Option<Result<i64, Unstored>> {
    if ignored & ignore::XA_EXPIRES != 0 {
        return None;
    }
    // A second field is a mistake, and doesn't count.
    let value = said.values(KnownHeader::XAccelExpires).next()?;
    let number = |text: &[u8]| buf::parse::parse_number(text).and_then(|n| i64::try_from(n).ok());
    match value.strip_prefix(b"@") {
        Some(time) => number(time).map(Ok),
        None => match number(value)? {
            0 => Some(Err(Unstored)),
            seconds => Some(Ok(said.now.saturating_add(seconds))),
        },
    }
}

/// A response isn't to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unstored;

/// nginx's rules: `X-Accel-Expires`, then `Cache-Control`, then `Expires`; a cookie or `Vary: *` forbids storing.
pub fn by_nginx(said: &Said<'_>, ignored: u32) -> Result<Judgement, Unstored> {
    if ignored & ignore::SET_COOKIE == 0 && said.head.has(KnownHeader::SetCookie) {
        return Err(Unstored);
    }
    let mut judgement =
        Judgement { born: said.now, vary: vary(said, ignored).ok_or(Unstored)?, ..Judgement::default() };
    let mut control = Lenient::default();
    if ignored & ignore::CACHE_CONTROL == 0 {
        said.values(KnownHeader::CacheControl).for_each(|value| control.read(value));
        judgement.while_updating = control.while_updating;
        judgement.on_error = control.on_error;
    }
    judgement.valid = match accel_expires(said, ignored) {
        Some(time) => Some(time?),
        None if control.unstored => return Err(Unstored),
        None => match control.lifetime {
            Some(lifetime) => Some(said.now.saturating_add(lifetime)),
            None if ignored & ignore::EXPIRES == 0 && said.head.has(KnownHeader::Expires) => {
                let expires = said.time(KnownHeader::Expires).filter(|time| *time > said.now);
                Some(expires.ok_or(Unstored)?)
            }
            None => None,
        },
    };
    Ok(judgement)
}

/// `Cache-Control` as nginx reads it: words anywhere in the value.
#[derive(Default)]
struct Lenient {
    unstored: bool,
    lifetime: Option<i64>,
    while_updating: i64,
    on_error: i64,
}

impl Lenient {
    fn read(&mut self, value: &[u8]) {
        let value = value.to_ascii_lowercase();
        let has = |word: &[u8]| memchr::memmem::find(&value, word).is_some();
        if has(b"no-cache") || has(b"no-store") || has(b"private") {
            self.unstored = true;
        } else if let Some(lifetime) = number_after(&value, b"s-maxage=").or_else(|| number_after(&value, b"max-age="))
        {
            match lifetime {
                Some(0) | None => self.unstored = true,
                Some(seconds) => self.lifetime = Some(seconds),
            }
        }
        if let Some(Some(seconds)) = number_after(&value, b"stale-while-revalidate=") {
            self.while_updating = seconds;
        }
        if let Some(Some(seconds)) = number_after(&value, b"stale-if-error=") {
            self.on_error = seconds;
        }
    }
}

/// The number after a word, up to a comma, a semicolon or a space: `Some(None)` if it isn't one.
fn number_after(text: &[u8], word: &[u8]) -> Option<Option<i64>> {
    let at = memchr::memmem::find(text, word)? + word.len();
    let rest = text.get(at..).unwrap_or_default();
    let end = rest.iter().position(|byte| matches!(byte, b',' | b';' | b' ')).unwrap_or(rest.len());
    let digits = rest.get(..end).unwrap_or_default();
    if !digits.iter().all(u8::is_ascii_digit) {
        return Some(None);
    }
    let number = digits.iter().fold(0_i64, |n, digit| n.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    Some(Some(number))
}

/// What RFC 9111 looks at beside the response's head.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// Whether the request had `Authorization`.
    pub authorized: bool,
    /// Whether the request forbade to store the response.
    pub no_store: bool,
    /// Names of targeted fields (RFC 9213), the first first.
    pub targeted: &'a [Vec<u8>],
    /// The time for which the configuration stores responses of this status that say nothing.
    pub configured: Option<i64>,
}

/// The rules of RFC 9111, for a shared cache.
pub fn by_rfc(said: &Said<'_>, asked: &Asked<'_>, ignored: u32) -> Result<Judgement, Unstored> {
    let (control, targeted) = control(said, asked, ignored);
    let understood = is_understood(said.head.status);
    if asked.no_store || control.private || control.no_store && !(control.must_understand && understood) {
        return Err(Unstored);
    }
    if control.must_understand && !understood {
        return Err(Unstored);
    }
    if asked.authorized && !(control.public || control.must_revalidate || control.s_maxage.is_some()) {
        return Err(Unstored);
    }
    let vary = vary(said, ignored).ok_or(Unstored)?;
    let born = born(said);
    let explicit = accel_expires(said, ignored).transpose()?.or_else(|| {
        let lifetime = lifetime(said, &control, targeted, ignored)?;
        Some(born.saturating_add(lifetime))
    });
    let has_cookie = ignored & ignore::SET_COOKIE == 0 && said.head.has(KnownHeader::SetCookie);
    let implicit = || {
        // What says nothing may be for one user alone.
        let heuristic = asked.configured.or_else(|| heuristic(said, control.public));
        heuristic.filter(|_| !has_cookie).map(|lifetime| born.saturating_add(lifetime))
    };
    let mut valid = explicit.or_else(implicit);
    let never_stale =
        control.must_revalidate || control.proxy_revalidate || control.s_maxage.is_some() || control.no_cache;
    if control.no_cache {
        valid = Some(born.min(said.now) - 1);
    }
    let mut unstored = control.fields;
    let listed = said.values(KnownHeader::Connection).flat_map(|value| value.split(|byte| *byte == b','));
    unstored.extend(listed.map(|name| name.trim_ascii().to_ascii_lowercase()));
    unstored.extend(HOP_BY_HOP.iter().map(|name| name.as_bytes().to_vec()));
    Ok(Judgement {
        valid: Some(valid.ok_or(Unstored)?),
        while_updating: control.stale_while_revalidate.map_or(0, |seconds| seconds as i64),
        on_error: control.stale_if_error.map_or(0, |seconds| seconds as i64),
        vary,
        flags: flags::RFC | if never_stale { flags::NEVER_STALE } else { 0 },
        unstored,
        born,
    })
}

/// Fields of one connection (RFC 9111 §3.1), besides those that no response keeps.
const HOP_BY_HOP: [&str; 8] = [
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "upgrade",
    "keep-alive",
    "connection",
];

/// The directives that count: those of the first targeted field that can be parsed, else of `Cache-Control`; and whether
/// they are targeted.
fn control(said: &Said<'_>, asked: &Asked<'_>, ignored: u32) -> (CacheControl, bool) {
    if ignored & ignore::CACHE_CONTROL != 0 {
        return (CacheControl::default(), false);
    }
    for name in asked.targeted {
        let lines: Vec<&[u8]> = said.others(name).collect();
        if lines.iter().any(|line| !line.trim_ascii().is_empty())
            && let Some(control) = CacheControl::of_dictionary(&lines.join(&b", "[..]))
        {
            return (control, true);
        }
    }
    let mut control = CacheControl::default();
    said.values(KnownHeader::CacheControl).for_each(|value| control.read(value));
    let pragma = said.values(KnownHeader::Pragma).any(|value| value.eq_ignore_ascii_case(b"no-cache"));
    control.no_cache |= pragma && !said.head.has(KnownHeader::CacheControl);
    (control, false)
}

/// The lifetime that a response names (RFC 9111 §4.2.1), in seconds. `Expires` doesn't count beside a targeted field.
fn lifetime(said: &Said<'_>, control: &CacheControl, targeted: bool, ignored: u32) -> Option<i64> {
    if let Some(seconds) = control.s_maxage.or(control.max_age) {
        return Some(seconds as i64);
    }
    if targeted || ignored & ignore::EXPIRES != 0 {
        return None;
    }
    let mut values = said.values(KnownHeader::Expires);
    let first = values.next()?;
    let expires = wire::date::parse_canonical_time(first).filter(|_| values.next().is_none());
    let date = said.time(KnownHeader::Date).unwrap_or(said.now);
    Some(expires.map_or(0, |expires| expires.saturating_sub(date)))
}

/// When the response's age was 0 (RFC 9111 §4.2.3).
fn born(said: &Said<'_>) -> i64 {
    let apparent = said.time(KnownHeader::Date).map_or(0, |date| (said.now - date).max(0));
    let age = said.values(KnownHeader::Age).next().and_then(cache_control::age).unwrap_or(0) as i64;
    let corrected = age.saturating_add((said.now - said.asked).max(0));
    said.now.saturating_sub(apparent.max(corrected))
}

/// A tenth of the time since the last change (RFC 9111 §4.2.2), at most a day; for statuses that allow it.
fn heuristic(said: &Said<'_>, public: bool) -> Option<i64> {
    const DAY: i64 = 86_400;
    let allowed = public || matches!(said.head.status, 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501);
    let modified = said.time(KnownHeader::LastModified)?;
    let date = said.time(KnownHeader::Date).unwrap_or(said.now);
    (allowed && modified < date).then(|| ((date - modified) / 10).min(DAY))
}

/// Whether a status is one whose meaning for a cache is known.
fn is_understood(status: u16) -> bool {
    matches!(status, 200..=206 | 300..=304 | 307 | 308 | 400..=417 | 421..=426 | 428 | 429 | 431 | 451 | 500..=508 | 511)
}

#[cfg(test)]
mod tests {
    use wire::h1::{Parsed, ResponseParser};

    use super::*;

    const NOW: i64 = 784_111_777;
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const SOON: &str = "Sun, 06 Nov 1994 08:50:37 GMT";

    fn with<R>(fields: &str, f: impl FnOnce(&Said<'_>) -> R) -> R {
        let fields: String = fields.split('|').filter(|f| !f.is_empty()).map(|field| format!("{field}\r\n")).collect();
        let status = if fields.contains("599") { 599 } else { 200 };
        let text = format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
        let mut head = ResponseHead::default();
        let parsed = ResponseParser::default().parse(text.as_bytes(), 10_000, &mut head);
        assert!(matches!(parsed, Ok(Parsed::Complete(_))), "{text}");
        f(&Said { head: &head, bytes: text.as_bytes(), asked: NOW, now: NOW })
    }

    /// The remaining lifetime; -99 for a response that isn't stored, 0 for one that says nothing.
    fn nginx(fields: &str) -> i64 {
        let judged = with(fields, |said| by_nginx(said, 0));
        judged.map_or(-99, |judgement| judgement.valid.map_or(0, |valid| valid - NOW))
    }

    fn rfc(fields: &str) -> i64 {
        let judged = with(fields, |said| by_rfc(said, &Asked::default(), 0));
        judged.map_or(-99, |judgement| judgement.valid.map_or(0, |valid| valid - NOW))
    }

    #[test]
    fn nginx_reads_what_matters_most_first() {
        for (fields, expect) in [
            ("", 0),
            ("Cache-Control: max-age=60", 60),
            ("Cache-Control: max-age=60, s-maxage=10", 10),
            ("Cache-Control: x-max-age=7", 7),
            ("Cache-Control: max-age=9223372036854775808", i64::MAX - NOW),
            ("Cache-Control: max-age=0", -99),
            ("Cache-Control: max-age=x", -99),
            ("Cache-Control: no-cache, max-age=60", -99),
            ("Cache-Control: max-age=60|Cache-Control: PRIVATE", -99),
            ("X-Accel-Expires: 60|Cache-Control: no-cache", 60),
            ("X-Accel-Expires: 60|X-Accel-Expires: 0", 60),
            ("X-Accel-Expires: 0|Cache-Control: max-age=60", -99),
            ("X-Accel-Expires: @784111780", 3),
            ("X-Accel-Expires: x|Cache-Control: max-age=60", 60),
            ("Set-Cookie: a|Cache-Control: max-age=60", -99),
            ("Vary: a, *|Cache-Control: max-age=60", -99),
            (&format!("Expires: {SOON}"), 60),
            (&format!("Expires: {DATE}"), -99),
            (&format!("Expires: {DATE}|Cache-Control: max-age=60"), 60),
            ("Expires: 0", -99),
        ] {
            assert_eq!(nginx(fields), expect, "{fields}");
        }
        let judged = with("X-Accel-Expires: @1|Cache-Control: stale-while-revalidate=5, stale-if-error=6", |said| {
            by_nginx(said, 0)
        });
        let judged = judged.expect("stored");
        assert_eq!((judged.valid, judged.while_updating, judged.on_error), (Some(1), 5, 6));
    }

    #[test]
    fn what_is_ignored_has_no_effect() {
        let all = ignore::XA_EXPIRES | ignore::EXPIRES | ignore::CACHE_CONTROL | ignore::SET_COOKIE | ignore::VARY;
        let fields = format!("X-Accel-Expires: 0|Expires: {DATE}|Cache-Control: no-cache|Set-Cookie: a|Vary: *");
        assert_eq!(with(&fields, |said| by_nginx(said, all)), Ok(Judgement { born: NOW, ..Judgement::default() }));
    }

    #[test]
    fn the_standard() {
        for (fields, expect) in [
            ("", -99),
            ("Cache-Control: max-age=60", 60),
            ("Cache-Control: max-age=60|Age: 20", 40),
            ("Cache-Control: max-age=60|Age: x", 60),
            ("Cache-Control: max-age=60|Age: 2147483648", 60 - (1 << 31)),
            ("Cache-Control: max-age=60, s-maxage=10", 10),
            ("Cache-Control: max-age=60, no-store", -99),
            ("Cache-Control: max-age=60, private", -99),
            ("Cache-Control: max-age=60, private=\"a\"", 60),
            ("Cache-Control: max-age=60, no-cache", -1),
            ("Cache-Control: max-age=60|Set-Cookie: a", 60),
            ("Cache-Control: max-age=60, no-store, must-understand", 60),
            ("Cache-Control: max-age=60, no-store, must-understand|X: 599", -99),
            ("Cache-Control: max-age=60|Vary: *", -99),
            ("Pragma: no-cache|Last-Modified: Sat, 05 Nov 1994 08:49:37 GMT", -1),
            (&format!("Expires: {SOON}|Date: {DATE}"), 60),
            (&format!("Expires: {SOON}|Date: {SOON}"), 0),
            (&format!("Expires: {SOON}|Expires: {SOON}|Date: {DATE}"), 0),
            (&format!("Expires: 0|Date: {DATE}"), 0),
            ("Last-Modified: Sun, 06 Nov 1994 08:47:57 GMT", 10),
            ("Last-Modified: Sun, 06 Nov 1994 08:47:57 GMT|Set-Cookie: a", -99),
            ("Last-Modified: Sun, 06 Nov 1994 08:47:57 GMT|X: 599", -99),
            ("Last-Modified: Sun, 06 Nov 1994 08:47:57 GMT|X: 599|Cache-Control: public", 10),
        ] {
            assert_eq!(rfc(fields), expect, "{fields}");
        }
    }

    #[test]
    fn what_the_request_had() {
        let judge = |fields: &str, asked: Asked<'_>| with(fields, |said| by_rfc(said, &asked, 0)).is_ok();
        let authorized = Asked { authorized: true, ..Asked::default() };
        for (control, expect) in
            [("max-age=60", false), ("public", true), ("must-revalidate", true), ("s-maxage=9", true)]
        {
            assert_eq!(judge(&format!("Cache-Control: max-age=60, {control}"), authorized), expect, "{control}");
        }
        assert!(!judge("Cache-Control: max-age=60", Asked { no_store: true, ..Asked::default() }));
        assert!(judge("", Asked { configured: Some(5), ..Asked::default() }));
        let targeted = [b"cdn-cache-control".to_vec()];
        let targeted = Asked { targeted: &targeted, ..Asked::default() };
        assert!(judge("CDN-Cache-Control: max-age=60|Cache-Control: no-store", targeted));
        assert!(!judge("CDN-Cache-Control: no-store|Cache-Control: max-age=60", targeted));
        assert!(judge("CDN-Cache-Control: no-store, |Cache-Control: max-age=60", targeted), "it can't be parsed");
    }

    #[test]
    fn what_is_not_to_be_stored() {
        let judged = with("Cache-Control: max-age=1, no-cache=\"a\"|Connection: b, c", |said| {
            by_rfc(said, &Asked::default(), 0)
        });
        let unstored = judged.expect("stored").unstored;
        for name in [&b"a"[..], b"b", b"c", b"te"] {
            assert!(unstored.iter().any(|own| own == name));
        }
    }
}
