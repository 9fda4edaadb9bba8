//! Looking up stored responses, and serving them.

use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use ::cache::keys::Now;
use ::cache::place::{Unusable, read};
use ::cache::stored::Contents;
use ::cache::{Cache, Entry, Key, Stored};
use engine::log::{Errno, Level};
use http::exchange::Exchange;
use http::files::made::Made;
use http::files::open_file::{Kind, errno};
use http::phases::Flow;
use http::request::Request;
use http::response::Response;
use wire::h1::{KnownHeader, Method, ResponseHead};

use super::{Caching, Look, Status, Work, field, vary};
use crate::engine::Backend;
use crate::respond;

/// What a cache has for a key.
pub(super) enum Found {
    /// A response.
    Stored(Rc<Stored>),
    /// A status that is remembered in place of a response.
    Error(u16),
    /// Nothing that can be served.
    Nothing,
    /// Nothing, and what is fetched isn't to be stored: it isn't asked for often enough, or its file can't be opened now.
    Aside,
}

/// Why a key's file wasn't opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unopened {
    /// There is none that could be used.
    Missing,
    /// The system had no room for another one: the file may be there.
    Refused,
}

/// Which keys belong to a request.
pub(super) struct Sought {
    /// The key that was looked up last: that of a variant, if the response varies.
    pub(super) looked: Key,
    /// The head of what stands under the key of the text.
    pub(super) known: Option<Rc<Entry>>,
    /// There is no file of the key that was looked up last.
    pub(super) missing: bool,
}

/// Looks up a key, and the variant that the request asks for.
pub(super) fn find(look: &Look<'_>, r: &mut Request, now: Now) -> (Found, Sought) {
    let mut sought = Sought { looked: look.main, known: None, missing: false };
    let stored = match find_one(look, r, &look.main, now, &mut sought.missing) {
        Ok(stored) => stored,
        Err(found) => return (found, sought),
    };
    sought.known = Some(stored.entry.clone());
    if stored.entry.vary.is_empty() {
        return (Found::Stored(stored), sought);
    }
    let variant = vary::variant(&stored.entry.vary, r);
    if variant == stored.entry.variant {
        return (Found::Stored(stored), sought);
    }
    sought.looked = look.main.variant(&variant);
    let found = match find_one(look, r, &sought.looked, now, &mut sought.missing) {
        Ok(other) if other.entry.generation == stored.entry.generation && other.entry.variant == variant => {
            Found::Stored(other)
        }
        Ok(_) => Found::Nothing,
        Err(found) => found,
    };
    (found, sought)
}

/// Looks up one key; sets `missing_file` if it has no file.
fn find_one(
    look: &Look<'_>,
    r: &mut Request,
    key: &Key,
    now: Now,
    missing_file: &mut bool,
) -> Result<Rc<Stored>, Found> {
    let cache = &look.cache;
    let mut evicted = Vec::new();
    let looked = cache.keys.look(key, now, &mut evicted);
    cache.remove_evicted(&evicted);
    let Some(looked) = looked else { return Err(Found::Nothing) };
    if let Some(status) = looked.error {
        return Err(Found::Error(status));
    }
    let missing = if looked.uses < look.caching.conf.cache_min_uses { Found::Aside } else { Found::Nothing };
    if !looked.exists {
        *missing_file = true;
        return Err(missing);
    }
    let stored = match open_or_share(look, r, key) {
        Ok(stored) => stored,
        Err(Unopened::Refused) => return Err(Found::Aside),
        Err(Unopened::Missing) => {
            if looked.known {
                cache.keys.lost(key);
            }
            *missing_file = true;
            return Err(missing);
        }
    };
    if *stored.entry.key != *look.text {
        let path = cache.path(key);
        r.log_at(Level::Crit, format_args!("cache file \"{}\" has md5 collision", buf::text::path(&path)));
        return Err(Found::Nothing);
    }
    if looked.purges && cache.keys.is_purged(&look.text, stored.entry.stored_ns) {
        cache.remove(key);
        return Err(missing);
    }
    Ok(stored)
}

/// Opens the file of a key, once for all that were woken together.
fn open_or_share(look: &Look<'_>, r: &mut Request, key: &Key) -> Result<Rc<Stored>, Unopened> {
    let Some(news) = &look.news else { return open(look.caching, r, &look.cache, key) };
    if let Some(stored) = news.find(key) {
        return Ok(stored);
    }
    let stored = open(look.caching, r, &look.cache, key)?.for_many();
    news.share(stored.clone());
    Ok(stored)
}

/// Opens the file of a key. One that is damaged is removed.
pub(super) fn open(caching: &Caching, r: &mut Request, cache: &Cache, key: &Key) -> Result<Rc<Stored>, Unopened> {
    let path = cache.path(key);
    let file = match caching.files.open(r, path.as_os_str().as_bytes()) {
        Ok(file) if file.kind == Kind::File => file,
        Ok(_) => return Err(Unopened::Missing),
        Err(error) if matches!(error.code(), errno::NOENT | errno::NOTDIR) => return Err(Unopened::Missing),
        Err(error) => {
            let path = buf::text::path(&path);
            r.log_at(Level::Crit, format_args!("{} \"{path}\" failed{}", error.call, Errno(&error.error)));
            return Err(if is_passing(error.code()) { Unopened::Refused } else { Unopened::Missing });
        }
    };
    // The head of contents in memory is decoded once.
    if let Some(stored) = file.made.as_ref().and_then(Made::get) {
        return Ok(stored);
    }
    let contents = match (&file.content, &file.file) {
        (Some(content), _) => Contents::Memory(content.clone()),
        (None, Some(file)) => Contents::File(file.clone()),
        (None, None) => return Err(Unopened::Missing),
    };
    let why = match read(&contents, file.size) {
        Ok((entry, start)) => {
            let (entry, identity) = (Rc::new(entry), file.stat.identity);
            let stored = Rc::new(Stored { key: *key, entry, start, contents, identity });
            if let Some(made) = &file.made {
                made.set(stored.clone());
            }
            return Ok(stored);
        }
        Err(Unusable::Io(error)) => format!("pread() \"{}\" failed{}", buf::text::path(&path), Errno(&error)),
        Err(Unusable::Damaged) => format!("cache file \"{}\" is damaged, it is removed", buf::text::path(&path)),
    };
    r.log_at(Level::Crit, format_args!("{why}"));
    cache.unlink(key);
    Err(Unopened::Missing)
}

/// Whether an error says nothing of the file: there are no descriptors left, or no memory.
fn is_passing(code: i32) -> bool {
    matches!(code, errno::NFILE | errno::MFILE | errno::NOMEM)
}

/// Whether a request asks for a range that begins too late for the whole response to be fetched.
pub(super) fn begins_too_late(caching: &Caching, r: &Request) -> bool {
    if !caching.conf.has_max_range_offset() {
        return false;
    }
    let Some(range) = r.header(KnownHeader::Range) else { return false };
    let Some((unit, ranges)) = range.split_at_checked(6) else { return false };
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return false;
    }
    let first = ranges.split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    let digits = first.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(first.len());
    match buf::parse::parse_number(first.get(..digits).unwrap_or_default()) {
        Some(offset) => offset >= caching.conf.cache_max_range_offset,
        // From the end: nobody knows where that is.
        None => first.first() == Some(&b'-'),
    }
}

/// Makes a stored response the response.
pub(super) fn serve(
    b: &Backend,
    r: &mut Request,
    exchange: &Rc<Exchange>,
    stored: &Stored,
    status: Status,
) -> Flow<'static> {
    let entry = &stored.entry;
    {
        let mut head = exchange.head.borrow_mut();
        head.0 = entry.text.clone();
        head.1.clone_from(&entry.head);
    }
    r.lasting_slot::<Work>().status = Some(status);
    r.response.clear();
    respond::accel_fields(b, r, exchange);
    respond::copy_fields(b, r, exchange);
    if b.caching.as_ref().is_some_and(|caching| caching.conf.cache_rfc) {
        field::standard(r, exchange);
    }
    field::of_hit(b, r, entry, status);
    let response = &mut r.response;
    response.allow_ranges = ranges(response, b, &entry.head);
    response.disable_not_modified = false;
    response.content_length = Some(entry.body_len);
    if entry.body_len == 0 && (r.method == Method::Head || response.status == 304) {
        // It may have been fetched by HEAD, and have no body for that reason.
        let none = (response.status != 304).then_some(0);
        response.content_length = entry.head.content_length(&entry.text).ok().flatten().or(none);
    }
    response.body = respond::whole(stored.body());
    Flow::Respond
}

/// Whether ranges of a response are served: by nginx's rules if the backend speaks of ranges, whatever it says. The field
/// is then made here.
pub(super) fn ranges(response: &mut Response, b: &Backend, head: &ResponseHead) -> bool {
    let rfc = b.caching.as_ref().is_some_and(|caching| caching.conf.cache_rfc);
    let allowed = rfc || b.up.force_ranges || head.has(KnownHeader::AcceptRanges);
    if allowed {
        response.headers.remove(KnownHeader::AcceptRanges);
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Descriptors and memory come back; a file that may not be read has to be fetched anew.
    #[test]
    fn errors_that_pass() {
        let passing = [errno::NFILE, errno::MFILE, errno::NOMEM].map(is_passing);
        let others = [errno::NOENT, errno::NOTDIR, errno::ACCES, errno::LOOP, 5].map(is_passing);
        assert_eq!((passing, others), ([true; 3], [false; 5]));
    }
}
