//! Responses that are stored: `proxy_cache` and its kin.
//!
//! A request is first looked up (`begin`). What is stored and fresh is served; else the request goes to the backend
//! with a `Fill`, the right to store what comes. The response is judged when its head has come ([`fill`]), and its body
//! goes by way of the file to the client. A fill that isn't used gives its lock back when it is dropped.

pub mod conf;
pub mod field;
pub mod fill;
pub mod hit;
pub(crate) mod invalidate;
pub mod path;
pub mod policy;
pub mod purge;
pub mod refresh;
pub mod request;
pub(crate) mod variables;
pub mod vary;

use std::rc::Rc;

use ::cache::keeper::{now, now_ns};
use ::cache::keys::{Fetched, Lock, Now, Ticket};
use ::cache::waiters::News;
use ::cache::{Cache, Entry, Key, Stored};
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
use self::hit::{Found, Sought};
use self::invalidate::Invalidation;
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
    invalidates: Option<Invalidation>,
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
    /// The head of what stands under the main key.
    known: Option<Rc<Entry>>,
    /// What was found and isn't fresh.
    stale: Option<Rc<Stored>>,
    /// When the request was made, in nanoseconds since 1970.
    asked_ns: u64,
    /// When it was made, in seconds since 1970.
    asked: i64,
}

impl Fill {
    /// Where a response with this variant is stored, and of which generation it is.
    pub(super) fn place(&self, vary: &[u8], variant: &[u8; 16]) -> (Key, u64) {
        // Another one than that of any response which was stored under the key before.
        let fresh = || self.asked_ns ^ u64::from(os::process::pid().unsigned_abs()) << 32;
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
        self.settle(key, fetched, None);
    }

    /// Gives the right back: the response is stored, and `size` bytes on disk. Whoever waits gets it as it is open.
    pub(super) fn stored(mut self, stored: Stored, size: u64) {
        let key = stored.key;
        let stored = self.cache.waiters.awaits(&self.looked).then(|| Rc::new(stored).for_many());
        self.settle(&key, Fetched::Stored(size), stored);
    }

    fn settle(&mut self, key: &Key, fetched: Fetched, stored: Option<Rc<Stored>>) {
        let ticket = self.ticket.take();
        let mut evicted = Vec::new();
        let mut told = false;
        let keys = &self.cache.keys;
        if *key == self.looked {
            if ticket.is_some() || fetched != Fetched::Nothing {
                told = keys.fetched(key, ticket, fetched, now(), &mut evicted);
            }
        } else {
            // Others may wait for what is stored there.
            if keys.fetched(key, None, fetched, now(), &mut evicted) {
                request::tell(&self.cache, key);
            }
            self.cache.waiters.wake(key, None);
            if ticket.is_some() {
                told = keys.fetched(&self.looked, ticket, Fetched::Nothing, now(), &mut evicted);
            }
        }
        self.cache.remove_evicted(&evicted);
        match fetched {
            // The next one fetches it; the others go on waiting.
            Fetched::Nothing => self.cache.waiters.wake_one(&self.looked),
            Fetched::Stored(_) | Fetched::Error(..) => self.cache.waiters.wake(&self.looked, stored),
        }
        if told {
            request::tell(&self.cache, &self.looked);
        }
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            let looked = self.looked;
            self.settle(&looked, Fetched::Nothing, None);
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
    let files = Files::of_store(cx.set, cx.loader);
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
    let as_get = r.method == Method::Head && caching.converts_head;
    let work = r.lasting_slot::<Work>();
    if work.background {
        exchange.as_get.set(as_get);
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
            let text = Bytes::from(key_text(b, caching, r, exchange));
            r.lasting_slot::<Work>().invalidates = Some(Invalidation { cache, text });
        }
        return None;
    }
    exchange.as_get.set(as_get);
    let text = Bytes::from(key_text(b, caching, r, exchange));
    r.lasting_slot::<Work>().key = text.clone();
    if purges {
        return Some(purge::purge(r, caching, &cache, &text));
    }
    let (main, bypass) = (Key::of(&text), Caching::any(&caching.conf.cache_bypass, r));
    look_up(r, Look { b, caching, exchange, cache, text, main, bypass, news: None }).await
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
    /// Somebody else has stored the response meanwhile.
    Again,
}

impl Next {
    /// Whether whoever waits for this key has to wait on: this request waits for it too, or is the one that fetches it.
    /// One that goes on to another key, that of its variant, has seen news of this one.
    fn leaves_waiting(&self, key: &Key) -> bool {
        match self {
            Next::Wait(awaited) => awaited == key,
            Next::Ask(fill, _) => fill.as_ref().is_some_and(|fill| fill.ticket.is_some() && fill.looked == *key),
            Next::Answer(_) | Next::Again => false,
        }
    }
}

/// A look into the cache for a request.
struct Look<'a> {
    b: &'a Backend,
    caching: &'a Rc<Caching>,
    exchange: &'a Rc<Exchange>,
    cache: Rc<Cache>,
    /// The text of the key.
    text: Bytes,
    /// The key of the text.
    main: Key,
    /// Nothing that is stored is served.
    bypass: bool,
    /// What was heard while the request waited.
    news: Option<Rc<News>>,
}

async fn look_up(r: &mut Request, mut look: Look<'_>) -> Option<Flow<'static>> {
    let mut waits_since = None;
    let mut looks_for_all = None;
    loop {
        let next = look.next(r);
        if let Some(key) = looks_for_all.take().filter(|key| !next.leaves_waiting(key)) {
            look.cache.waiters.wake(&key, None);
        }
        let (fill, status) = match next {
            Next::Answer(flow) => return Some(flow),
            Next::Ask(fill, status) => (fill, status),
            Next::Again => continue,
            Next::Wait(key) => {
                let now_ms = rt::now_ms();
                let since_ms = *waits_since.get_or_insert(now_ms);
                let left = (since_ms + look.caching.conf.cache_lock_timeout).saturating_sub(now_ms);
                if left > 0 {
                    match look.b.unless_aborted(r, look.cache.waiters.wait(&key, since_ms, left)).await {
                        Ok(news) => {
                            looks_for_all = news.is_none().then_some(key);
                            look.news = news;
                        }
                        Err(fault) => return Some(fault.into()),
                    }
                    continue;
                }
                r.lasting_slot::<Work>().report.collapsed = true;
                (None, Status::Miss)
            }
        };
        if request::only_if_cached(look.caching, r) {
            return Some(Flow::Status(504));
        }
        let work = r.lasting_slot::<Work>();
        work.status = Some(status);
        work.fill = fill;
        prepare(look.caching, r, look.exchange);
        return None;
    }
}

impl Look<'_> {
    /// One look.
    fn next(&self, r: &mut Request) -> Next {
        let now = now();
        let (found, sought) = hit::find(self, r, now);
        r.lasting_slot::<Work>().report.vary_miss = sought.looked != self.main;
        if self.bypass {
            return Next::Ask(Some(self.fill(sought, now)), Status::Bypass);
        }
        match found {
            Found::Error(status) => {
                r.lasting_slot::<Work>().status = Some(Status::Hit);
                Next::Answer(Flow::Status(status))
            }
            Found::Aside => Next::Ask(None, Status::Miss),
            Found::Nothing => self.nothing(r, sought, now),
            Found::Stored(stored) => match request::freshness(self.caching, r, &stored.entry, now.secs) {
                request::Freshness::Fresh => self.answer(r, &stored, Status::Hit),
                request::Freshness::StaleAccepted => self.answer(r, &stored, Status::Stale),
                request::Freshness::Unwanted => {
                    r.lasting_slot::<Work>().report.requested = true;
                    let mut fill = self.fill(sought, now);
                    fill.stale = Some(stored);
                    Next::Ask(Some(fill), Status::Bypass)
                }
                request::Freshness::Stale => self.stale(r, sought, stored, now),
            },
        }
    }

    fn fill(&self, sought: Sought, now: Now) -> Box<Fill> {
        Box::new(Fill {
            caching: self.caching.clone(),
            cache: self.cache.clone(),
            text: self.text.clone(),
            main: self.main,
            looked: sought.looked,
            ticket: None,
            known: sought.known,
            stale: None,
            asked_ns: now_ns(),
            asked: now.secs,
        })
    }

    fn answer(&self, r: &mut Request, stored: &Stored, status: Status) -> Next {
        Next::Answer(hit::serve(self.b, r, self.exchange, stored, status))
    }

    /// Nothing is stored that can be served.
    fn nothing(&self, r: &Request, sought: Sought, now: Now) -> Next {
        if hit::begins_too_late(self.caching, r) {
            return Next::Ask(None, Status::Miss);
        }
        let mut ticket = None;
        if self.caching.conf.cache_lock {
            match self.lock(&sought.looked, Some(self.caching.conf.cache_lock_age), sought.missing, now) {
                Lock::Mine(mine) => ticket = Some(mine),
                Lock::Others => return Next::Wait(sought.looked),
                Lock::Stored => return Next::Again,
            }
        }
        let mut fill = self.fill(sought, now);
        fill.ticket = ticket;
        Next::Ask(Some(fill), Status::Miss)
    }

    /// Asks for the right to fetch a key.
    fn lock(&self, key: &Key, age_ms: Option<u64>, missing: bool, now: Now) -> Lock {
        let mut evicted = Vec::new();
        let lock = self.cache.keys.lock(key, age_ms, missing, now, &mut evicted);
        self.cache.remove_evicted(&evicted);
        lock
    }

    /// What is stored isn't fresh any more.
    fn stale(&self, r: &mut Request, sought: Sought, stored: Rc<Stored>, now: Now) -> Next {
        let (conf, entry) = (&self.caching.conf, &stored.entry);
        let may_be_stale = entry.flags & policy::flags::NEVER_STALE == 0
            && (conf.use_stale() & conf::UPDATING != 0 || entry.while_updating >= now.secs);
        let ticket = self.lock(&sought.looked, None, false, now).ticket();
        if may_be_stale && ticket.is_none() {
            return self.answer(r, &stored, Status::Updating);
        }
        let mut fill = self.fill(sought, now);
        (fill.ticket, fill.stale) = (ticket, Some(stored.clone()));
        if may_be_stale && conf.cache_background_update && !has_too_many_updates(r) {
            return self.update_in_background(r, fill, &stored);
        }
        Next::Ask(Some(fill), Status::Expired)
    }

    /// Serves what is stored, while a request of its own fetches what is new.
    fn update_in_background(&self, r: &mut Request, fill: Box<Fill>, stored: &Stored) -> Next {
        let cloned = r.clone_request(|child| {
            let work = child.lasting_slot::<Work>();
            work.key = fill.text.clone();
            (work.background, work.status, work.fill) = (true, Some(Status::Expired), Some(fill));
        });
        match cloned {
            Ok(update) => {
                update.detach_without_body(r);
                self.answer(r, stored, Status::Stale)
            }
            Err(fault) => Next::Answer(fault.into()),
        }
    }
}

/// Whether no further update is begun in the background: nobody waits for them, so that a client could begin as many as there
/// are stored responses that aren't fresh. A quarter of the connections is left to them; then clients wait.
fn has_too_many_updates(r: &Request) -> bool {
    let counts = rt::connections();
    r.http.worker.updates.get() >= (counts.active + counts.free) / 4
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

/// A backend has answered a request of a location with a cache: removes what the request makes invalid, and serves what
/// is stored, if the answer says that it may be.
pub(crate) fn answered(b: &Backend, r: &mut Request, exchange: &Rc<Exchange>, status: u16) -> Option<Flow<'static>> {
    invalidate::answered(r, exchange, status);
    refresh::instead(b, r, exchange, status)
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
        let allowed = fill.caching.conf.use_stale() & kind != 0 || entry.on_error >= now().secs;
        if allowed && entry.flags & policy::flags::NEVER_STALE == 0 {
            drop(fill);
            return Some(hit::serve(b, r, exchange, &stored, Status::Stale));
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

/// Whether a request has credentials.
pub(super) fn is_authorized(r: &Request) -> bool {
    r.header(KnownHeader::Authorization).is_some()
}
