//! Requests that remove what is stored.

use ::cache::keeper::now_ns;
use ::cache::keys::Wildcard;
use ::cache::{Cache, Key};
use engine::log::Level;
use http::phases::Flow;
use http::request::Request;

use super::{Caching, hit};

/// Removes what is stored under a key, or under all keys with a beginning.
pub(super) fn purge(r: &mut Request, caching: &Caching, cache: &Cache, text: &[u8]) -> Flow<'static> {
    if let Some(prefix) = text.strip_suffix(b"*") {
        let mut evicted = Vec::new();
        let purged =
            cache.keys.purge_wildcard(&Wildcard { prefix: prefix.to_vec(), before_ns: now_ns() }, &mut evicted);
        cache.remove_evicted(&evicted);
        if !purged {
            r.log_at(Level::Crit, format_args!("no room for a purge in cache zone \"{}\"", cache.name));
            return Flow::Status(500);
        }
        return done(r);
    }
    // The variants of a response are those of its generation: without it they aren't served.
    let key = Key::of(text);
    let purged = hit::open(caching, r, cache, &key)
        .is_ok_and(|stored| cache.keys.is_purged(&stored.entry.key, stored.entry.stored_ns));
    if cache.remove(&key) && !purged { done(r) } else { Flow::Status(404) }
}

fn done(r: &mut Request) -> Flow<'static> {
    r.response.clear();
    r.response.status = 204;
    Flow::Respond
}
