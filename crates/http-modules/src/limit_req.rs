//! `limit_req`: how many requests may come for one key in a time: a leaky bucket.
//!
//! An entry of the zone is a key with the requests that are in its bucket (the excess, in thousandths) and the time at
//! which that was so. The bucket leaks at the zone's rate. A request that finds more in it than `burst` is refused and
//! isn't counted; one that finds more than `delay` waits until that much has leaked.

use std::rc::Rc;

use buf::parse::parse_number;
use common::modules::limit::{self, Kind, LOG_LEVELS};
use conf::values::{flag, invalid_parameter, number_between, one_of};
use conf::{Args, Context, Directive, Error, Loader, Registry, Result, Word};
use engine::cycle::zones::{self, Owner, SharedZone};
use engine::log::Level;
use expr::vars::Flags;
use http::config::core::EVERYWHERE;
use http::module::HttpModule;
use http::module::LocationContext;
use http::phases::{Flow, Handler};
use http::request::Request;
use http::request::variables::{Getter, Setup};
use http::server::location::Handlers;
use shm::{Map, Zone};

use http::HttpProto;

/// The module.
pub struct LimitReq;

const MODULE: &str = "ngx_http_limit_req_module";
/// The owner of zones with buckets under their keys.
const OWNER: Owner = Owner { module: MODULE, layout: 1 };
const KIND: Kind = Kind { owner: OWNER, bound: "limit_req_zone", changed: "limit_req", longest_key: 65535 };

conf::table! {
    /// Zones are declared for all of `http {}`.
    pub struct LimitReqZones, raw LimitReqZonesRaw, module "ngx_http_limit_req_module", level HTTP Main;

    /// Declares a zone of shared memory in which all workers count requests by a key, and the rate at which requests of
    /// one key may come. `limit_req` makes use of it.
    ///
    /// Form: `limit_req_zone key zone=name:size rate=rate`
    ///
    /// - `key`: a text with variables. Requests with an empty key aren't counted.
    /// - `zone=name:size`: the zone's name and size, at least 8 pages (32k).
    /// - `rate=rate`: requests in a second (`10r/s`) or in a minute (`30r/m`).
    ///
    /// Effect: none as long as no `limit_req` names the zone. A reload keeps the counts of a zone whose size and key
    /// stay.
    ///
    /// Cost: the zone's memory, which all keys share. When it is full, the keys that were used least recently are
    /// dropped.
    ///
    /// Danger: if the zone is too small for all clients, a new one may be refused. With `$remote_addr` an IPv6 client
    /// with a whole network has as many keys as it likes; use `$binary_remote_addr` for less memory, and a `map` to
    /// shorten addresses.
    ///
    /// ```nginx
    /// limit_req_zone $binary_remote_addr zone=clients:10m rate=10r/s;
    /// server {
    ///     limit_req zone=clients burst=20;
    /// }
    /// ```
    "limit_req_zone" in Context::HTTP, Args::exactly(3), default none,
        block(zone);
}

conf::table! {
    /// The limits of a location.
    pub struct LimitReqConf, raw LimitReqRaw, module "ngx_http_limit_req_module", level HTTP Location;

    /// Limits the rate of requests of one key, as its zone says. It may be repeated for several zones.
    ///
    /// Form: `limit_req zone=name [burst=number] [nodelay | delay=number]`
    ///
    /// - `zone=name`: the zone, which `limit_req_zone` declares.
    /// - `burst=number`: how many requests may be ahead of the rate; the default is 0. Beyond it they are refused.
    /// - `nodelay`: requests within the burst are served at once.
    /// - `delay=number`: as many requests within the burst are served at once, the others are delayed; the default is
    ///   0.
    ///
    /// Effect: a request within the burst is delayed so that the rate is kept; one beyond it is refused with
    /// `limit_req_status`. With several limits the longest delay holds. `$limit_req_status` shows what happened. A
    /// level that sets any limit doesn't inherit those of the level around it.
    ///
    /// Cost: a lookup in shared memory for each request and limit. A delayed request keeps its connection and its
    /// memory.
    ///
    /// Danger: clients behind one address (a company, a mobile network) share a key of addresses. Without `burst` two
    /// requests of a page at the same time are one too many.
    ///
    /// ```nginx
    /// limit_req_zone $binary_remote_addr zone=clients:10m rate=10r/s;
    /// server {
    ///     location / {
    ///         limit_req zone=clients burst=20 delay=8;
    ///     }
    ///     location /login {
    ///         limit_req zone=clients burst=5 nodelay;
    ///     }
    /// }
    /// ```
    "limit_req" in EVERYWHERE, Args::between(1, 3), default none,
        set(limit) limits: Vec<Limit> = Vec::new();
    /// Sets the level at which requests that `limit_req` refuses are logged.
    ///
    /// Form: `limit_req_log_level info | notice | warn | error`
    ///
    /// - `info`: the lowest level.
    /// - `notice`: between `info` and `warn`.
    /// - `warn`: between `notice` and `error`.
    /// - `error`: the highest level.
    ///
    /// Effect: delayed requests are logged one level lower. What `error_log` doesn't log isn't written.
    ///
    /// Cost: a line, and a system call, for each refused or delayed request that is logged: in an attack that is many.
    ///
    /// ```nginx
    /// limit_req_zone $binary_remote_addr zone=clients:10m rate=10r/s;
    /// server {
    ///     limit_req zone=clients burst=20;
    ///     limit_req_log_level warn;
    /// }
    /// ```
    "limit_req_log_level" in EVERYWHERE, Args::exactly(1), default "error",
        scalar(one_of(LOG_LEVELS)) log_level: Level = Level::Error;
    /// Sets the status of requests that `limit_req` refuses.
    ///
    /// Form: `limit_req_status code`
    ///
    /// - `code`: a status from 400 to 599. 429 says that the client has sent too many requests.
    ///
    /// Effect: `error_page` may give the status a page.
    ///
    /// ```nginx
    /// limit_req_zone $binary_remote_addr zone=clients:10m rate=10r/s;
    /// server {
    ///     limit_req zone=clients burst=20;
    ///     limit_req_status 429;
    /// }
    /// ```
    "limit_req_status" in EVERYWHERE, Args::exactly(1), default "503",
        scalar(number_between(400, 599)) status: u16 = 503;
    /// Counts and logs requests as `limit_req` would refuse or delay them, and serves them at once.
    ///
    /// Effect: `$limit_req_status` is `REJECTED_DRY_RUN` or `DELAYED_DRY_RUN` for them, and the log lines say `dry
    /// run`. It shows whether a limit fits before it holds.
    ///
    /// Danger: with `on` nothing is limited.
    ///
    /// ```nginx
    /// limit_req_zone $binary_remote_addr zone=clients:10m rate=10r/s;
    /// server {
    ///     limit_req zone=clients burst=20;
    ///     limit_req_dry_run on;
    /// }
    /// ```
    "limit_req_dry_run" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) dry_run: bool = false;
}

/// One `limit_req`; numbers of requests are in thousandths.
#[derive(Clone)]
pub struct Limit {
    zone: Rc<SharedZone>,
    rate: Rc<std::cell::Cell<u64>>,
    burst: u64,
    /// `None`: nothing is delayed.
    delay: Option<u64>,
}

/// The rates of zones in thousandths of a request a second, by the zone's name; 0 until it is known.
#[derive(Default)]
struct Rates(std::collections::HashMap<Rc<str>, Rc<std::cell::Cell<u64>>>);

fn rate_of(loader: &mut Loader<'_>, zone: &SharedZone) -> Rc<std::cell::Cell<u64>> {
    loader.store.entry::<Rates>().0.entry(zone.name().clone()).or_default().clone()
}

fn zone(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let (mut named, mut rate) = (None, 1000);
    for word in d.args.get(1..).unwrap_or_default() {
        if let Some(value) = limit::parameter(word, "zone") {
            named = Some(zones::parse(word, value)?);
        } else if let Some(value) = limit::parameter(word, "rate") {
            rate = parse_rate(value).ok_or_else(|| Error::at(word, format!("invalid rate \"{}\"", word.lossy())))?;
        } else {
            return Err(invalid_parameter(word));
        }
    }
    let Some((name, size)) = named.filter(|(name, _)| !name.is_empty()) else {
        return Err(Error::on(d, "\"limit_req_zone\" must have \"zone\" parameter"));
    };
    let zone = limit::declare::<HttpProto>(loader, d, name, size, KIND)?;
    rate_of(loader, &zone).set(rate);
    Ok(())
}

/// `10r/s`, `30r/m` or a number alone, in thousandths of a request a second.
fn parse_rate(text: &[u8]) -> Option<u64> {
    let (number, seconds) = match (text.strip_suffix(b"r/s"), text.strip_suffix(b"r/m")) {
        (Some(number), _) => (number, 1),
        (_, Some(number)) => (number, 60),
        _ => (text, 1),
    };
    let number = parse_number(number).filter(|number| *number > 0)?;
    Some((number.checked_mul(1000)? / seconds).min(MOST))
}

fn limit(raw: &mut LimitReqRaw, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let (mut name, mut burst, mut delay) = (None, 0, Some(0));
    for word in &d.args {
        if let Some(value) = limit::parameter(word, "zone") {
            name = Some((word, value));
        } else if let Some(value) = limit::parameter(word, "burst") {
            burst = thousandths(word, value, "burst")?;
        } else if let Some(value) = limit::parameter(word, "delay") {
            delay = Some(thousandths(word, value, "delay")?);
        } else if *word == "nodelay" {
            delay = None;
        } else {
            return Err(invalid_parameter(word));
        }
    }
    let Some((word, name)) = name else {
        return Err(Error::on(d, "\"limit_req\" must have \"zone\" parameter"));
    };
    let zone = zones::declare(loader, word, name, 0, OWNER)?;
    let limits = raw.limits.get_or_insert_default();
    if limits.iter().any(|limit| Rc::ptr_eq(&limit.zone, &zone)) {
        return Err(conf::table::duplicate(d));
    }
    let rate = rate_of(loader, &zone);
    limits.push(Limit { zone, rate, burst, delay });
    Ok(())
}

fn thousandths(word: &Word, value: &[u8], name: &str) -> Result<u64> {
    let number = parse_number(value).filter(|number| *number > 0);
    let number = number.ok_or_else(|| Error::at(word, format!("invalid {name} value \"{}\"", word.lossy())))?;
    Ok(number.saturating_mul(1000).min(MOST))
}

/// What the limits said of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Status {
    #[default]
    None,
    Passed,
    Delayed,
    Rejected,
    DelayedDryRun,
    RejectedDryRun,
}

impl HttpModule for LimitReq {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<LimitReqZones>();
        registry.add::<LimitReqConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        http::variables! { setup, MODULE;
            /// What `limit_req` did: `PASSED`, `DELAYED`, `REJECTED`, `DELAYED_DRY_RUN` or `REJECTED_DRY_RUN`.
            /// Empty where no limit applied.
            "limit_req_status", Flags::NOCACHEABLE, Getter::Plain(status);
        }
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.share::<LimitReqConf>();
        if !conf.limits.is_empty() {
            out.preaccess.push(Rc::new(Limiter(conf)));
        }
        Ok(())
    }
}

fn status(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let name = match r.with_family_slot(|status: &mut Status| *status) {
        Status::None => return false,
        Status::Passed => "PASSED",
        Status::Delayed => "DELAYED",
        Status::Rejected => "REJECTED",
        Status::DelayedDryRun => "DELAYED_DRY_RUN",
        Status::RejectedDryRun => "REJECTED_DRY_RUN",
    };
    out.extend_from_slice(name.as_bytes());
    true
}

struct Limiter(Rc<LimitReqConf>);

impl Handler for Limiter {
    fn handle<'a>(&'a self, r: &'a mut Request) -> Flow<'a> {
        match self.check(r) {
            Ok(flow) => flow,
            Err(ms) => Flow::wait(async move { r.pause(ms).await.map_or_else(Flow::from, |()| Flow::Next) }),
        }
    }

    fn handle_at_once(&self, r: &mut Request) -> Option<Flow<'static>> {
        let may_wait = !self.0.dry_run && self.0.limits.iter().any(|limit| limit.delay.is_some());
        if may_wait { None } else { self.check(r).ok() }
    }
}

impl Limiter {
    /// How a request continues. An error: after so many milliseconds.
    fn check(&self, r: &mut Request) -> std::result::Result<Flow<'static>, u64> {
        // Once for a client's request, wherever it is redirected, whatever subrequests it has.
        if r.with_family_slot(|status: &mut Status| *status != Status::None) {
            return Ok(Flow::Next);
        }
        let conf = &*self.0;
        let dry = if conf.dry_run { ", dry run" } else { "" };
        Ok(match judge(&conf.limits, r) {
            Verdict::Free => Flow::Next,
            Verdict::Passed => {
                keep(r, Status::Passed);
                Flow::Next
            }
            Verdict::Full => refuse(r, conf),
            Verdict::Refused { zone, excess } => {
                let excess = Thousandths(excess);
                r.log_at(conf.log_level, format_args!("limiting requests{dry}, excess: {excess} by zone \"{zone}\""));
                refuse(r, conf)
            }
            Verdict::Delayed { zone, excess, ms } => {
                let (excess, level) = (Thousandths(excess), lower(conf.log_level));
                r.log_at(level, format_args!("delaying request{dry}, excess: {excess}, by zone \"{zone}\""));
                if conf.dry_run {
                    keep(r, Status::DelayedDryRun);
                    return Ok(Flow::Next);
                }
                keep(r, Status::Delayed);
                return Err(ms);
            }
        })
    }
}

fn keep(r: &mut Request, status: Status) {
    r.with_family_slot(|known| *known = status);
}

fn refuse(r: &mut Request, conf: &LimitReqConf) -> Flow<'static> {
    keep(r, if conf.dry_run { Status::RejectedDryRun } else { Status::Rejected });
    if conf.dry_run { Flow::Next } else { Flow::Status(conf.status) }
}

/// A number of requests as the log shows it: `1.500`.
struct Thousandths(u64);

impl std::fmt::Display for Thousandths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

fn lower(level: Level) -> Level {
    match level {
        Level::Error => Level::Warn,
        Level::Warn => Level::Notice,
        _ => Level::Info,
    }
}

/// What all limits together say of a request.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// None applies.
    Free,
    Passed,
    /// The zone that delays it longest.
    Delayed {
        zone: Rc<str>,
        excess: u64,
        ms: u64,
    },
    Refused {
        zone: Rc<str>,
        excess: u64,
    },
    /// A zone has no room.
    Full,
}

/// First all limits are asked, then the request is counted by all: one that is refused is counted by none.
fn judge(limits: &[Limit], r: &mut Request) -> Verdict {
    let now = rt::now_ms();
    let mut keys = Vec::with_capacity(limits.len());
    for limit in limits {
        let Some(key) = limit::key::<HttpProto>(&limit.zone, r, KIND) else { continue };
        keys.push((limit, key));
    }
    // The last limit can be asked and counted at once.
    let last = keys.len().saturating_sub(1);
    for (limit, key) in keys.iter().take(last) {
        let excess = limit.zone.zone().with(|map| peek(map, key, limit.rate.get(), now));
        if excess > limit.burst {
            return Verdict::Refused { zone: limit.zone.name().clone(), excess };
        }
    }
    let mut verdict = if keys.is_empty() { Verdict::Free } else { Verdict::Passed };
    for (n, (limit, key)) in keys.iter().enumerate().rev() {
        let burst = if n == last { limit.burst } else { u64::MAX };
        match count(limit.zone.zone(), key, limit.rate.get(), burst, now) {
            None => return Verdict::Full,
            Some(excess) if excess > burst => {
                return Verdict::Refused { zone: limit.zone.name().clone(), excess };
            }
            Some(excess) => {
                let ms = wait_of(limit, excess);
                let longest = if let Verdict::Delayed { ms, .. } = verdict { ms } else { 0 };
                if ms > longest {
                    verdict = Verdict::Delayed { zone: limit.zone.name().clone(), excess, ms };
                }
            }
        }
    }
    verdict
}

/// How long a request waits that found so much in the bucket.
fn wait_of(limit: &Limit, excess: u64) -> u64 {
    let beyond = limit.delay.map_or(0, |delay| excess.saturating_sub(delay));
    beyond * 1000 / limit.rate.get().max(1)
}

/// The excess that a request would find.
fn peek(map: &Map<'_>, key: &[u8], rate: u64, now: u64) -> u64 {
    map.find(key).map_or(0, |node| Bucket::of(map, node).after(rate, now).0)
}

/// Puts a request into its bucket; the excess that it found. `None`: there is no room for a new bucket. More than
/// `burst` isn't put in.
fn count(zone: &Zone, key: &[u8], rate: u64, burst: u64, now: u64) -> Option<u64> {
    zone.with(|map| {
        if let Some(node) = map.find(key) {
            map.touch(node);
            let bucket = Bucket::of(map, node);
            let (excess, elapsed) = bucket.after(rate, now);
            if excess <= burst {
                // Within one millisecond the time stays, so that no fraction of it is lost.
                let last = if elapsed > 0 { now } else { bucket.last };
                map.set_value(node, &Bucket { last, excess }.bytes());
            }
            return Some(excess);
        }
        expire(map, rate, now);
        let bucket = Bucket { last: now, excess: 0 };
        map.insert_evicting(key, &bucket.bytes(), MOST_EVICTED).map(|_| 0)
    })
}

/// Removes up to two entries that were long not used and whose buckets are empty.
fn expire(map: &mut Map<'_>, rate: u64, now: u64) {
    for _ in 0..2 {
        let Some(node) = map.oldest() else { return };
        let bucket = Bucket::of(map, node);
        let (excess, elapsed) = bucket.after(rate, now);
        if elapsed < OLD_MS || excess > 1000 {
            return;
        }
        map.remove(node);
    }
}

/// What an entry holds.
#[derive(Clone, Copy)]
struct Bucket {
    /// In the loop's milliseconds, which are the same for all workers.
    last: u64,
    excess: u64,
}

impl Bucket {
    fn of(map: &Map<'_>, node: shm::Node) -> Bucket {
        let bytes: [u8; 16] = map.array(node).unwrap_or_default();
        let number =
            |at: usize| bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |b| u64::from_ne_bytes(*b));
        Bucket { last: number(0), excess: number(8).min(MOST) }
    }

    fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let (last, excess) = bytes.split_at_mut(8);
        last.copy_from_slice(&self.last.to_ne_bytes());
        excess.copy_from_slice(&self.excess.to_ne_bytes());
        bytes
    }

    /// The excess with one more request in it, and the milliseconds since the last one.
    fn after(self, rate: u64, now: u64) -> (u64, u64) {
        // Another worker's clock may be a turn ahead.
        let elapsed = now.saturating_sub(self.last);
        let leaked = u128::from(rate) * u128::from(elapsed) / 1000;
        let left = (u128::from(self.excess) + 1000).saturating_sub(leaked);
        (u64::try_from(left).unwrap_or(MOST), elapsed)
    }
}

/// An entry not used for so long may go.
const OLD_MS: u64 = 60_000;
/// How many entries make room for one, should the zone be full: they may be of other sizes than the one that comes.
const MOST_EVICTED: usize = 64;
/// The largest rate, burst or excess in thousandths: so that calculations don't overflow.
const MOST: u64 = u64::MAX / 4000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, expect) in [
            ("1r/s", Some(1000)),
            ("30r/m", Some(500)),
            ("5", Some(5000)),
            ("0r/s", None),
            ("r/s", None),
            ("1r/h", None),
            ("-1r/s", None),
        ] {
            assert_eq!(parse_rate(text.as_bytes()), expect, "{text}");
        }
    }

    #[test]
    fn a_bucket_leaks() {
        let zone = Zone::new("one", zones::SMALLEST, |_, _| ()).expect("memory");
        // Two requests a second, two too many: time, and the excess found.
        for (now, excess) in [
            (10_000, 0),
            (10_000, 1000),
            (10_100, 1800),
            (10_100, 2800),
            (10_300, 2400),
            (10_500, 2000),
            (11_500, 1000),
            (11_400, 2000),
            (20_000, 0),
            (20_000, 1000),
        ] {
            assert_eq!(count(&zone, b"key", 2000, 2000, now), Some(excess), "{now}");
        }
        assert_eq!(zone.with(|map| peek(map, b"key", 2000, 20_000)), 2000);
        assert_eq!(zone.with(|map| peek(map, b"other", 2000, 20_000)), 0);
    }

    #[test]
    fn the_layout_is_that_of_its_number() {
        let bytes = Bucket { last: 0x0102, excess: 0x0304 }.bytes();
        assert_eq!((OWNER.layout, buf::hex::text(&bytes).as_str()), (1, "02010000000000000403000000000000"));
    }

    #[test]
    fn a_full_zone_forgets_the_oldest() {
        let zone = Zone::new("one", zones::SMALLEST, |_, _| ()).expect("memory");
        for n in 0..10_000_u32 {
            let mut key = n.to_ne_bytes().to_vec();
            key.resize(4 + n as usize % 200, 0);
            assert_eq!(count(&zone, &key, 1, 0, 5), Some(0));
        }
        assert!(zone.check());
    }

    #[test]
    fn empty_buckets_go_after_a_minute() {
        let zone = Zone::new("one", zones::SMALLEST, |_, _| ()).expect("memory");
        (0..10_u32).for_each(|n| assert!(count(&zone, &n.to_ne_bytes(), 1000, 0, 5) == Some(0)));
        for (now, rate, left) in [(60_004, 1000, 11), (60_005, 1000, 10), (90_000, 1000, 9)] {
            count(&zone, format!("{now} {rate}").as_bytes(), rate, 0, now);
            assert_eq!(zone.with(|map| map.len()), left, "{now} {rate}");
        }
    }

    #[test]
    fn large_numbers() {
        let bucket = Bucket { last: 0, excess: MOST };
        assert_eq!(bucket.after(MOST, u64::MAX).0, 0);
        assert_eq!(bucket.after(0, 0), (MOST + 1000, 0));
        assert_eq!(Thousandths(1500).to_string(), "1.500");
    }
}
