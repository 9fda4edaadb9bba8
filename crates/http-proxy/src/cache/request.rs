//! What a request demands of a stored response, and messages to those who wait.

use std::rc::Rc;

use ::cache::{Cache, Entry, Key};
use http::request::Request;
use http::server::Http;
use wire::cache_control::CacheControl;
use wire::h1::KnownHeader;

use super::path::Caches;
use super::{Caching, policy};

/// Whether a stored response may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// It is fresh.
    Fresh,
    /// It isn't, and the request says that this doesn't matter.
    StaleAccepted,
    /// It isn't.
    Stale,
    /// It is fresh, and the request wants it validated.
    Unwanted,
}

/// The request's `Cache-Control`, or what `Pragma` says in its absence (RFC 9111 §5.4).
pub(super) fn control(r: &Request) -> CacheControl {
    let mut control = CacheControl::default();
    for field in r.line.headers.iter().filter(|field| field.known == KnownHeader::CacheControl) {
        control.read(field.value.of(&r.head));
    }
    if r.header(KnownHeader::CacheControl).is_none() {
        control.no_cache = r.header(KnownHeader::Pragma).is_some_and(|value| value.eq_ignore_ascii_case(b"no-cache"));
    }
    control
}

/// Judges a stored response. By nginx's rules the request has no say.
pub(super) fn freshness(caching: &Caching, r: &Request, entry: &Entry, now: i64) -> Freshness {
    if !caching.conf.cache_rfc || entry.flags & policy::flags::RFC == 0 {
        return if entry.valid >= now { Freshness::Fresh } else { Freshness::Stale };
    }
    let control = control(r);
    judge(&control, entry, now)
}

fn judge(control: &CacheControl, entry: &Entry, now: i64) -> Freshness {
    let age = now - entry.born;
    let left = entry.valid - now;
    let older = control.max_age.is_some_and(|most| age > most as i64);
    if control.no_cache || older || control.min_fresh.is_some_and(|least| left < least as i64) {
        return if left > 0 { Freshness::Unwanted } else { Freshness::Stale };
    }
    let accepted = control.max_stale.is_some_and(|most| -left <= most as i64);
    match left {
        1.. => Freshness::Fresh,
        _ if accepted && entry.flags & policy::flags::NEVER_STALE == 0 => Freshness::StaleAccepted,
        _ => Freshness::Stale,
    }
}

/// Whether the request wants no backend to be asked.
pub(super) fn only_if_cached(caching: &Caching, r: &Request) -> bool {
    caching.conf.cache_rfc && r.header(KnownHeader::CacheControl).is_some() && control(r).only_if_cached
}

/// Tells the other workers of news of a key.
pub(super) fn tell(cache: &Cache, key: &Key) {
    let payload = [&key.0[..], cache.name.as_bytes()].concat();
    engine::notices::send(engine::notices::kind::CACHE, &payload);
}

/// Another worker has told of news of a key.
pub(crate) fn hear(http: &Rc<Http>, payload: &[u8]) {
    let Some((key, name)) = payload.split_first_chunk::<16>() else { return };
    let Some(caches) = http.part::<Caches>() else { return };
    for cache in caches.0.values().filter(|cache| cache.name.as_bytes() == name) {
        cache.waiters.wake(&Key(*key), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_their_say() {
        let entry = Entry { born: 100, valid: 160, ..Entry::default() };
        let strict = Entry { flags: policy::flags::NEVER_STALE, ..entry.clone() };
        for (text, now, expect) in [
            ("", 159, Freshness::Fresh),
            ("", 160, Freshness::Stale),
            ("no-cache", 159, Freshness::Unwanted),
            ("no-cache", 160, Freshness::Stale),
            ("max-age=10", 110, Freshness::Fresh),
            ("max-age=10", 111, Freshness::Unwanted),
            ("min-fresh=10", 150, Freshness::Fresh),
            ("min-fresh=10", 151, Freshness::Unwanted),
            ("max-stale=10", 170, Freshness::StaleAccepted),
            ("max-stale=10", 171, Freshness::Stale),
            ("max-stale", 1000, Freshness::StaleAccepted),
        ] {
            let mut control = CacheControl::default();
            control.read(text.as_bytes());
            assert_eq!(judge(&control, &entry, now), expect, "{text} {now}");
            if expect == Freshness::StaleAccepted {
                assert_eq!(judge(&control, &strict, now), Freshness::Stale, "{text} {now}");
            }
        }
    }
}
