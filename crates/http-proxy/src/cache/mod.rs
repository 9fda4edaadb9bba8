//! Responses that are stored: `proxy_cache` and its kin.
//!
//! A request is first looked up (`begin`). What is stored and fresh is served; else the request goes to the backend
//! with a `Fill`, the right to store what comes. The response is judged when its head has come ([`fill`]), and its body
//! goes by way of the file to the client. A fill that isn't used gives its lock back when it is dropped.

pub mod conf;
pub mod field;
pub mod fill;
pub mod hit;
pub mod path;
pub mod policy;
pub mod purge;
pub mod refresh;
pub mod request;
pub(crate) mod variables;
pub mod vary;

use std::rc::Rc;

use ::cache::keeper::{now, now_ns};
use ::cache::keys::{Fetched, Ticket};
use ::cache::{Cache, Entry, Key};
use ::conf::{Error, Result};
use ::upstream::retry::failure;
use buf::Bytes;
use expr::vars::Template;
use http::exchange::{Exchange, Validators};
use http::fault::{Fault, Retry, Source};
use http::files::open_file::Files;
use http::module::LocationContext;
use http::phases::Flow;
use http::request::Request;
use wire::h1::{KnownHeader, Method};

use self::conf::{CacheConf, Zone};
use self::hit::{Found, Stored};
use self::path::Caches;
use crate::engine::Backend;

/// How a location's responses are stored.
pub struct Caching {
    /// The directives.
    conf: Rc<CacheConf>,
    place: Place,
    files: Files,
    /// Whether backends are asked with GET for responses to HEAD.
    converts_head: bool,
}

enum Place {
    Fixed(Rc<Cache>),
    Variable(Rc<Template>, &'static str),
}

/// What was done, as `$upstream_cache_status` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Miss,
    Bypass,
    Expired,
    Stale,
    Updating,
    Revalidated,
    Hit,
}

impl Status {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Status::Miss => "MISS",
            Status::Bypass => "BYPASS",
            Status::Expired => "EXPIRED",
            Status::Stale => "STALE",
            Status::Updating => "UPDATING",
            Status::Revalidated => "REVALIDATED",
            Status::Hit => "HIT",
        }
    }
}

/// What is known of a request and the cache.
#[derive(Default)]
pub(super) struct Work {
    /// What was done.
    status: Option<Status>,
    /// The text of the key.
    key: Bytes,
    /// The right to store the response.
    fill: Option<Box<Fill>>,
    /// What an unsafe request removes if it succeeds.
    invalidates: Option<(Rc<Cache>, Key)>,
    /// It updates a response that has been served already.
    background: bool,
    /// What `Cache-Status` says.
    report: field::Report,
}

/// The right to store a response.
pub(super) struct Fill {
    caching: Rc<Caching>,
    cache: Rc<Cache>,
    /// The text of the key.
    text: Bytes,
    /// The key of the text.
    main: Key,
    /// The key that was looked up: that of a variant, if the response varies.
    looked: Key,
    ticket: Option<Ticket>,
    /// What stands under the main key.
    known: Option<Known>,
    /// What was found and isn't fresh.
    stale: Option<Box<Stored>>,
    /// When the request was made, in nanoseconds since 1970.
    asked_ns: u64,
    /// When it was made, in seconds since 1970.
    asked: i64,
}

/// What the response under a main key says of variants.
#[derive(Clone, Debug)]
pub(super) struct Known {
    vary: Bytes,
    variant: [u8; 16],
    generation: u64,
}

impl Known {
    fn of(entry: &Entry) -> Known {
        Known { vary: entry.vary.clone(), variant: entry.variant, generation: entry.generation }
    }
}

impl Fill {
    /// Where a response with this variant is stored, and of which generation it is.
    pub(super) fn place(&self, vary: &[u8], variant: &[u8; 16]) -> (Key, u64) {
        let fresh = || os::random_bytes().first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk));
        match &self.known {
            Some(known) if known.vary.eq_ignore_ascii_case(vary) => {
                let main = vary.is_empty() || known.variant == *variant;
                (if main { self.main } else { self.main.variant(variant) }, known.generation)
            }
            _ => (self.main, fresh()),
        }
    }

    /// Gives the right back, with what has become of it.
    pub(super) fn end(mut self, key: &Key, fetched: Fetched) {
        self.settle(key, fetched);
    }

    fn settle(&mut self, key: &Key, fetched: Fetched) {
        let ticket = self.ticket.take();
        let mut evicted = Vec::new();
        let mut told = false;
        let keys = &self.cache.keys;
        if *key == self.looked {
            if ticket.is_some() || fetched != Fetched::Nothing {
                told = keys.fetched(key, ticket, fetched, now(), &mut evicted);
            }
        } else {
            keys.fetched(key, None, fetched, now(), &mut evicted);
            if ticket.is_some() {
                told = keys.fetched(&self.looked, ticket, Fetched::Nothing, now(), &mut evicted);
            }
        }
        self.cache.remove_evicted(&evicted);
        self.cache.waiters.wake(&self.looked);
        if told {
            request::tell(&self.cache, &self.looked);
        }
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            let looked = self.looked;
            self.settle(&looked, Fetched::Nothing);
        }
    }
}

/// How a location caches, if it does. `prefix` is that of the directives.
pub fn caching(
    cx: &mut LocationContext<'_, '_>,
    conf: &Rc<CacheConf>,
    stores: bool,
    prefix: &str,
) -> Result<Option<Rc<Caching>>> {
    let place = match &conf.cache {
        Zone::Off => return Ok(None),
        Zone::Named(named) => Place::Fixed(named.find(cx.loader, prefix)?),
        Zone::Variable(name) => Place::Variable(name.clone(), path::owner(prefix.as_bytes())),
    };
    let at = cx.place(&format!("{prefix}cache"));
    if stores {
        let message = format!("\"{prefix}cache\" directive is incompatible with \"{prefix}store\"");
        return Err(Error::new(message).or_at(at));
    }
    if conf.cache_key.is_none() && prefix != "proxy_" {
        let message = format!("no \"{prefix}cache_key\" for \"{prefix}cache\"");
        cx.loader.warnings.push(Error::new(message).or_at(at));
    }
    let files = Files::of(cx.set, cx.loader);
    // nginx has the directive for HTTP alone, and doesn't change other protocols' requests.
    let converts_head = conf.cache_convert_head && prefix == "proxy_";
    Ok(Some(Rc::new(Caching { conf: conf.clone(), place, files, converts_head })))
}

impl Caching {
    /// The cache for a request, if there is one for it.
    fn cache(&self, r: &mut Request) -> std::result::Result<Option<Rc<Cache>>, Fault> {
        let (template, owner) = match &self.place {
            Place::Fixed(cache) => return Ok(Some(cache.clone())),
            Place::Variable(template, owner) => (template.clone(), *owner),
        };
        let name = r.render(&template);
        if name.is_empty() || name == b"off" {
            return Ok(None);
        }
        let name: Rc<str> = String::from_utf8_lossy(&name).into();
        match r.http.part::<Caches>().and_then(|caches| caches.0.get(&(owner, name.clone()))) {
            Some(cache) => Ok(Some(cache.clone())),
            None => Err(Fault::NoCache.log_with(r, &name)),
        }
    }

    /// Whether a condition holds.
    pub(super) fn any(conditions: &conf::Conditions, r: &mut Request) -> bool {
        conditions.iter().any(|condition| r.test(condition))
    }
}

/// Answers a request from the cache, or prepares for the backend's response. `Some`: it is answered.
pub(super) async fn begin(
    b: &Backend,
    caching: &Rc<Caching>,
    r: &mut Request,
    exchange: &Rc<Exchange>,
) -> Option<Flow<'static>> {
    let work = r.lasting_slot::<Work>();
    if work.background {
        prepare(caching, r, exchange);
        return None;
    }
    *work = Work::default();
    let cache = match caching.cache(r) {
        Ok(cache) => cache?,
        Err(fault) => return Some(fault.into()),
    };
    let purges = Caching::any(&caching.conf.cache_purge, r);
    if !purges && caching.conf.cache_methods & r.method.bit() == 0 {
        if caching.conf.cache_rfc && !matches!(r.method, Method::Options | Method::Trace | Method::Propfind) {
            let text = key_text(b, caching, r, exchange);
            r.lasting_slot::<Work>().invalidates = Some((cache, Key::of(&text)));
        }
        return None;
    }
    if r.method == Method::Head && caching.converts_head {
        exchange.as_get.set(true);
    }
    let text = Bytes::from(key_text(b, caching, r, exchange));
    r.lasting_slot::<Work>().key = text.clone();
    if purges {
        return Some(purge::purge(r, caching, &cache, &text));
    }
    look_up(b, caching, r, exchange, cache, text).await
}

fn key_text(b: &Backend, caching: &Caching, r: &mut Request, exchange: &Exchange) -> Vec<u8> {
    match &caching.conf.cache_key {
        Some(key) => r.render(key),
        None => b.protocol.cache_key(r, exchange),
    }
}

/// What follows from a look into the cache.
enum Next {
    /// It is answered.
    Answer(Flow<'static>),
    /// The backend is asked; its response isn't stored without a fill.
    Ask(Option<Box<Fill>>, Status),
    /// Somebody else fetches the response.
    Wait(Key),
}

async fn look_up(
    b: &Backend,
    caching: &Rc<Caching>,
    r: &mut Request,
    exchange: &Rc<Exchange>,
    cache: Rc<Cache>,
    text: Bytes,
) -> Option<Flow<'static>> {
    let bypass = Caching::any(&caching.conf.cache_bypass, r);
    let mut wait_until = None;
    loop {
        let (fill, status) = match next(b, caching, r, exchange, &cache, &text, bypass) {
            Next::Answer(flow) => return Some(flow),
            Next::Ask(fill, status) => (fill, status),
            Next::Wait(key) => {
                let now_ms = rt::now_ms();
                let until = *wait_until.get_or_insert(now_ms + caching.conf.cache_lock_timeout);
                if now_ms < until {
                    match b.unless_aborted(r, cache.waiters.wait(&key, until - now_ms)).await {
                        Ok(()) => continue,
                        Err(fault) => return Some(fault.into()),
                    }
                }
                r.lasting_slot::<Work>().report.collapsed = true;
                (None, Status::Miss)
            }
        };
        if request::only_if_cached(caching, r) {
            return Some(Flow::Status(504));
        }
        let work = r.lasting_slot::<Work>();
        work.status = Some(status);
        work.fill = fill;
        prepare(caching, r, exchange);
        return None;
    }
}

/// One look into the cache.
fn next(
    b: &Backend,
    caching: &Rc<Caching>,
    r: &mut Request,
    exchange: &Rc<Exchange>,
    cache: &Rc<Cache>,
    text: &Bytes,
    bypass: bool,
) -> Next {
    let main = Key::of(text);
    let mut fill = Box::new(Fill {
        caching: caching.clone(),
        cache: cache.clone(),
        text: text.clone(),
        main,
        looked: main,
        ticket: None,
        known: None,
        stale: None,
        asked_ns: now_ns(),
        asked: now().secs,
    });
    let found = hit::find(caching, r, cache, text, &mut fill);
    r.lasting_slot::<Work>().report.vary_miss = fill.looked != main;
    if bypass {
        return Next::Ask(Some(fill), Status::Bypass);
    }
    let now = now();
    match found {
        Found::Error(status) => {
            r.lasting_slot::<Work>().status = Some(Status::Hit);
            Next::Answer(Flow::Status(status))
        }
        Found::Rare => Next::Ask(None, Status::Miss),
        Found::Nothing => {
            if hit::begins_too_late(caching, r) {
                return Next::Ask(None, Status::Miss);
            }
            if caching.conf.cache_lock {
                let mut evicted = Vec::new();
                let age = Some(caching.conf.cache_lock_age);
                fill.ticket = cache.keys.lock(&fill.looked, age, now, &mut evicted);
                cache.remove_evicted(&evicted);
                if fill.ticket.is_none() {
                    return Next::Wait(fill.looked);
                }
            }
            Next::Ask(Some(fill), Status::Miss)
        }
        Found::Stored(stored) => match request::freshness(caching, r, &stored.entry, now.secs) {
            request::Freshness::Fresh => Next::Answer(hit::serve(b, r, exchange, *stored, Status::Hit)),
            request::Freshness::StaleAccepted => Next::Answer(hit::serve(b, r, exchange, *stored, Status::Stale)),
            request::Freshness::Unwanted => {
                fill.stale = Some(stored);
                r.lasting_slot::<Work>().report.requested = true;
                Next::Ask(Some(fill), Status::Bypass)
            }
            request::Freshness::Stale => stale(b, caching, r, exchange, fill, stored),
        },
    }
}

/// What is stored isn't fresh any more.
fn stale(
    b: &Backend,
    caching: &Rc<Caching>,
    r: &mut Request,
    exchange: &Rc<Exchange>,
    mut fill: Box<Fill>,
    stored: Box<Stored>,
) -> Next {
    let now = now();
    let entry = &stored.entry;
    let may_be_stale = entry.flags & policy::flags::NEVER_STALE == 0
        && (caching.conf.cache_use_stale & conf::UPDATING != 0 || entry.while_updating >= now.secs);
    let mut evicted = Vec::new();
    fill.ticket = fill.cache.keys.lock(&fill.looked, None, now, &mut evicted);
    fill.cache.remove_evicted(&evicted);
    if fill.ticket.is_none() {
        if may_be_stale {
            return Next::Answer(hit::serve(b, r, exchange, *stored, Status::Updating));
        }
    } else if may_be_stale && caching.conf.cache_background_update {
        fill.stale = Some(Box::new(stored.again()));
        let http = r.http.clone();
        let status = Status::Expired;
        let cloned = r.clone_request(|child| {
            let work = child.lasting_slot::<Work>();
            work.key = fill.text.clone();
            (work.background, work.status, work.fill) = (true, Some(status), Some(fill));
        });
        return match cloned {
            Ok(update) => {
                update.detach_without_body(&http);
                Next::Answer(hit::serve(b, r, exchange, *stored, Status::Stale))
            }
            Err(fault) => Next::Answer(fault.into()),
        };
    }
    fill.stale = Some(stored);
    Next::Ask(Some(fill), Status::Expired)
}

/// Prepares the exchange with the backend for what is to be stored.
fn prepare(caching: &Caching, r: &mut Request, exchange: &Exchange) {
    let Some(fill) = &r.lasting_slot::<Work>().fill else { return };
    exchange.whole.set(true);
    let revalidates = caching.conf.cache_revalidate || caching.conf.cache_rfc;
    if let Some(stored) = fill.stale.as_ref().filter(|_| revalidates) {
        let modified = stored.entry.last_modified.map(|time| Bytes::copy_from(&wire::date::format_http_time(time)));
        let etag = Some(stored.entry.etag.clone()).filter(|etag| !etag.is_empty());
        if modified.is_some() || etag.is_some() {
            exchange.validators.replace(Some(Box::new(Validators { modified, etag })));
        }
    }
}

/// The request ends without a response that is stored.
pub(super) fn dismiss(r: &mut Request) {
    r.lasting_slot::<Work>().fill = None;
}

/// The backend has failed for good: what is stored is served, if it may be; else the status is remembered, if it is to be.
pub(super) fn failed(b: &Backend, r: &mut Request, exchange: &Rc<Exchange>, fault: Fault) -> Option<Flow<'static>> {
    // A client that has left says nothing of the backend.
    b.caching.as_ref().filter(|_| fault.source() == Source::Upstream)?;
    let mut fill = r.lasting_slot::<Work>().fill.take()?;
    if let Some(stored) = fill.stale.take() {
        let kind = match fault.retry() {
            Retry::Unsent(kind) | Retry::Sent(kind) => kind,
            Retry::Never => failure::ERROR,
        };
        let entry = &stored.entry;
        let allowed = fill.caching.conf.cache_use_stale & kind != 0 || entry.on_error >= now().secs;
        if allowed && entry.flags & policy::flags::NEVER_STALE == 0 {
            drop(fill);
            return Some(hit::serve(b, r, exchange, *stored, Status::Stale));
        }
    }
    remember(*fill, fault.status());
    None
}

/// Remembers an error for as long as the configuration says.
fn remember(fill: Fill, status: u16) {
    if let Some(seconds) = fill.caching.conf.valid(status) {
        let looked = fill.looked;
        fill.end(&looked, Fetched::Error(status, now().secs.saturating_add(seconds)));
    }
}

/// A response's status is an error whose page is made here: it is remembered, if the response may be stored.
pub(super) fn intercepted(b: &Backend, r: &mut Request, exchange: &Exchange, status: u16) {
    if b.caching.is_none() {
        return;
    }
    let Some(fill) = r.lasting_slot::<Work>().fill.take() else { return };
    if let Some((judgement, valid)) = fill::judge(b, &fill, r, exchange)
        && judgement.vary.is_empty()
    {
        let looked = fill.looked;
        fill.end(&looked, Fetched::Error(status, valid));
    }
}

/// A request with an unsafe method has succeeded: what is stored for its URI is removed (RFC 9111 §4.4).
pub(super) fn invalidate(b: &Backend, r: &mut Request, status: u16) {
    if b.caching.is_some()
        && let Some((cache, key)) = r.lasting_slot::<Work>().invalidates.take()
        && (200..400).contains(&status)
    {
        cache.remove(&key);
    }
}

/// Whether a request has credentials.
pub(super) fn is_authorized(r: &Request) -> bool {
    r.header(KnownHeader::Authorization).is_some()
}
