//! `expires`, `add_header`, `add_trailer` and how they are inherited.
//!
//! A level without fields of its own has those of the level around it; `add_header_inherit merge` appends these to its
//! own fields, `off` drops them. The setting itself is inherited, so the fields of a location are computed along its
//! levels when it is compiled.

use std::rc::Rc;

use buf::Bytes;
use conf::values::one_of;
use conf::{Args, Directive, Error, Loader, Registry, Result};
use expr::vars::Template;
use http::config::core::AND_IF;
use http::module::HttpModule;
use http::module::LocationContext;
use http::phases::{HeaderFilter, Order, Reply};
use http::request::Request;
use http::request::variables::template_of;
use http::response::Response;
use http::response::field::unfolded;
use http::server::location::Handlers;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use wire::h1::KnownHeader;

/// The module.
pub struct Headers;

conf::table! {
    /// Fields that responses get.
    pub struct HeadersConf, raw HeadersRaw, module "ngx_http_headers_module", level HTTP Location;

    /// Sets the fields `Expires` and `Cache-Control` of responses, which say how long clients may keep them.
    ///
    /// Form: `expires [modified] time | @time | epoch | max | off`
    ///
    /// - `time`: how long after the request the response expires; a negative time gives `Cache-Control: no-cache`,
    ///   others `max-age`.
    /// - `modified`: the time counts from the file's last change, instead of from the request.
    /// - `@time`: the time of the day at which the response expires, such as `@15h30m`, in the local time zone.
    /// - `epoch`: a time in 1970 and `no-cache`: nothing is kept.
    /// - `max`: a time in 2037 and a `max-age` of ten years.
    /// - `off`: the fields stay as they are.
    ///
    /// Effect: holds for responses with status 200, 201, 204, 206, 301, 302, 303, 304, 307 or 308, and replaces fields
    /// of a backend. The value may contain variables; one that isn't a time then changes nothing.
    ///
    /// Danger: what browsers and caches keep can't be called back: a long time only suits URIs that change with their
    /// contents.
    ///
    /// ```nginx
    /// location /static/ {
    ///     expires 30d;
    /// }
    /// location /api/ {
    ///     expires epoch;
    ///     proxy_pass http://127.0.0.1:8080;
    /// }
    /// ```
    "expires" in AND_IF, Args::between(1, 2), default "off",
        scalar(expires) expires: Expires = Expires::Fixed(When::Off);
    /// Adds a field to responses. It may be repeated.
    ///
    /// Form: `add_header name value [always]`
    ///
    /// - `name`: the field's name.
    /// - `value`: its value, which may contain variables. If it is empty, no field is added.
    /// - `always`: the field is added whatever the status; otherwise with status 200, 201, 204, 206, 301, 302, 303,
    ///   304, 307 or 308 only.
    ///
    /// Effect: the field is added to those that the response has; `ETag` and `Last-Modified` are replaced. A level that
    /// sets any `add_header` doesn't inherit those of the level around it, unless `add_header_inherit merge` says so.
    ///
    /// Cost: a few bytes in each response; variables are computed for each response.
    ///
    /// Danger: a single `add_header` in a location takes away all that the server has set: fields for security
    /// (`Strict-Transport-Security`) must be repeated there. Without `always` error pages don't have them.
    ///
    /// ```nginx
    /// server {
    ///     add_header X-Content-Type-Options nosniff always;
    ///     location /static/ {
    ///         add_header_inherit merge;
    ///         add_header Cache-Control public;
    ///     }
    /// }
    /// ```
    "add_header" in AND_IF, Args::between(2, 3), default none,
        list(added) add_header: Added;
    /// Adds a field after the body of responses. It may be repeated.
    ///
    /// Form: `add_trailer name value [always]`
    ///
    /// - `name`: the field's name.
    /// - `value`: its value, which may contain variables; it is computed when the body has been sent. If it is empty,
    ///   no field is added.
    /// - `always`: the field is added whatever the status; otherwise with status 200, 201, 204, 206, 301, 302, 303,
    ///   304, 307 or 308 only.
    ///
    /// Effect: holds for clients of HTTP/1.1 and HTTP/2. A response in HTTP/1.1 is sent in chunks for it, without
    /// `Content-Length`. A level that sets any `add_trailer` doesn't inherit those of the level around it, unless
    /// `add_trailer_inherit merge` says so.
    ///
    /// Danger: many clients and caches ignore trailers or drop them.
    ///
    /// ```nginx
    /// location /files/ {
    ///     add_trailer X-Request-Time $request_time;
    /// }
    /// ```
    "add_trailer" in AND_IF, Args::between(2, 3), default none,
        list(added) add_trailer: Added;
    /// Sets whether a level has the `add_header` fields of the level around it.
    ///
    /// Form: `add_header_inherit on | off | merge`
    ///
    /// - `on`: it has them if it sets no `add_header` of its own.
    /// - `off`: it never has them.
    /// - `merge`: it has them in addition to its own, which come first.
    ///
    /// Effect: the setting itself is inherited, so `merge` in `http` holds for all levels.
    ///
    /// ```nginx
    /// server {
    ///     add_header X-Frame-Options deny;
    ///     location /static/ {
    ///         add_header_inherit merge;
    ///         add_header Cache-Control public;
    ///     }
    /// }
    /// ```
    "add_header_inherit" in AND_IF, Args::exactly(1), default "on",
        scalar(one_of(INHERIT)) add_header_inherit: Inherit = Inherit::On;
    /// Sets whether a level has the `add_trailer` fields of the level around it.
    ///
    /// Form: `add_trailer_inherit on | off | merge`
    ///
    /// - `on`: it has them if it sets no `add_trailer` of its own.
    /// - `off`: it never has them.
    /// - `merge`: it has them in addition to its own, which come first.
    ///
    /// Effect: the setting itself is inherited, so `merge` in `http` holds for all levels.
    ///
    /// ```nginx
    /// server {
    ///     add_trailer X-Request-Time $request_time;
    ///     location /static/ {
    ///         add_trailer_inherit merge;
    ///         add_trailer X-Server $hostname;
    ///     }
    /// }
    /// ```
    "add_trailer_inherit" in AND_IF, Args::exactly(1), default "on",
        scalar(one_of(INHERIT)) add_trailer_inherit: Inherit = Inherit::On;
    derived {
        /// Tells a level that sets something from the one whose values it would share.
        serial: usize = 0;
        /// Whether the level has fields of its own.
        own_headers: bool = false;
        /// Whether the level has trailers of its own.
        own_trailers: bool = false;
        /// The outermost level's serial, fields and trailers.
        outermost: Option<Level> = None;
    }
    finish(finish)
}

/// Values of `add_header_inherit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inherit {
    /// If the level has none of its own.
    On,
    /// Never.
    Off,
    /// Always, after its own.
    Merge,
}

const INHERIT: &[(&str, Inherit)] = &[("on", Inherit::On), ("off", Inherit::Off), ("merge", Inherit::Merge)];

/// The fields of a level, the inherited ones included.
#[derive(Clone)]
pub struct Level {
    serial: usize,
    headers: Rc<[Added]>,
    trailers: Rc<[Added]>,
}

/// A field that is added.
#[derive(Clone)]
pub struct Added {
    name: Bytes,
    known: KnownHeader,
    value: Rc<Template>,
    always: bool,
}

fn added(loader: &mut Loader<'_>, d: &Directive) -> Result<Added> {
    let name = d.arg(0);
    let value = template_of(loader, d, &unfolded(&d.arg(1).text))?;
    let always = match d.args.get(2) {
        Some(word) if word == "always" => true,
        Some(word) => return Err(Error::at(word, format!("invalid parameter \"{}\"", word.lossy()))),
        None => false,
    };
    Ok(Added { name: Bytes::copy_from(&name.text), known: KnownHeader::of(&name.text), value, always })
}

/// The last serial given to a level.
#[derive(Default)]
struct Serial(usize);

fn finish(conf: &mut HeadersConf, parent: Option<&HeadersConf>, loader: &mut Loader<'_>) -> Result<()> {
    let serial = loader.store.entry::<Serial>();
    serial.0 += 1;
    conf.serial = serial.0;
    let own = |field: fn(&HeadersConf) -> &Rc<[Added]>, conf: &HeadersConf| {
        parent.is_none_or(|parent| !Rc::ptr_eq(field(parent), field(conf)))
    };
    conf.own_headers = own(|conf| &conf.add_header, conf);
    conf.own_trailers = own(|conf| &conf.add_trailer, conf);
    if parent.is_none() {
        let (headers, trailers) = (conf.add_header.clone(), conf.add_trailer.clone());
        conf.outermost = Some(Level { serial: conf.serial, headers, trailers });
    }
    Ok(())
}

/// The fields of the levels compiled so far, by location.
#[derive(Default)]
struct Levels(Vec<Level>);

impl HttpModule for Headers {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<HeadersConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.get::<HeadersConf>();
        let level = level(conf, cx);
        cx.loader.store.entry::<Levels>().0.push(level.clone());
        let expires = Some(conf.expires.clone()).filter(|expires| !matches!(expires, Expires::Fixed(When::Off)));
        if expires.is_some() || !level.headers.is_empty() || !level.trailers.is_empty() {
            out.filters.push(Rc::new(Filter { expires, headers: level.headers, trailers: level.trailers }));
        }
        Ok(())
    }
}

/// The fields of a location, computed from those of the level around it. Outer levels are compiled first.
fn level(conf: &HeadersConf, cx: &mut LocationContext<'_, '_>) -> Level {
    let parent = match cx.builder.locations[cx.id.0 as usize].parent {
        Some(parent) => cx.loader.store.entry::<Levels>().0.get(parent.0 as usize).cloned(),
        None => conf.outermost.clone(),
    };
    let parent = parent.unwrap_or_else(|| Level { serial: 0, headers: Rc::new([]), trailers: Rc::new([]) });
    // A level that sets nothing shares the values of the one around it, its serial included.
    let own = parent.serial != conf.serial;
    let headers = own.then_some(&conf.add_header).filter(|_| conf.own_headers);
    let trailers = own.then_some(&conf.add_trailer).filter(|_| conf.own_trailers);
    Level {
        serial: conf.serial,
        headers: inherit(headers, &parent.headers, conf.add_header_inherit),
        trailers: inherit(trailers, &parent.trailers, conf.add_trailer_inherit),
    }
}

fn inherit<T: Clone>(own: Option<&Rc<[T]>>, parent: &Rc<[T]>, how: Inherit) -> Rc<[T]> {
    match (own, how) {
        (None, Inherit::Off) => Rc::new([]),
        (None, _) => parent.clone(),
        (Some(own), Inherit::Merge) => own.iter().chain(&**parent).cloned().collect(),
        (Some(own), _) => own.clone(),
    }
}

struct Filter {
    expires: Option<Expires>,
    headers: Rc<[Added]>,
    trailers: Rc<[Added]>,
}

impl HeaderFilter for Filter {
    fn order(&self) -> Order {
        Order::Headers
    }

    fn apply(&self, r: &mut Request) -> std::result::Result<(), Reply> {
        let safe = is_safe(r.response.status);
        if let Some(expires) = self.expires.as_ref().filter(|_| safe) {
            set_expires(r, expires);
        }
        for added in self.headers.iter().filter(|added| safe || added.always) {
            add_header(r, added);
        }
        // Whether they have values is known after the body.
        if self.trailers.iter().any(|added| safe || added.always) {
            let trailers = self.trailers.clone();
            r.response.late_trailers = Some(Rc::new(move |r| add_trailers(r, &trailers)));
        }
        Ok(())
    }
}

/// Statuses of responses that get fields without `always`.
fn is_safe(status: u16) -> bool {
    matches!(status, 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308)
}

impl Added {
    /// Its value; none if it is empty.
    fn value(&self, r: &mut Request) -> Option<Bytes> {
        let value = match self.value.is_const() {
            Some(text) => Bytes::copy_from(text),
            None => Bytes::from(r.render(&self.value)),
        };
        (!value.is_empty()).then_some(value)
    }
}

fn add_header(r: &mut Request, added: &Added) {
    let value = added.value(r);
    let response = &mut r.response;
    match (added.known, value) {
        (KnownHeader::ETag, Some(value)) => response.headers.set_fixed(KnownHeader::ETag, value),
        (KnownHeader::LastModified, value) => set_last_modified(response, added, value),
        (known @ KnownHeader::ETag, None) => response.headers.remove(known),
        (known, Some(value)) => response.headers.push_known(known, added.name.clone(), value),
        (_, None) => {}
    }
}

/// The response has one `Last-Modified`: the time if the value is one, else the text.
fn set_last_modified(response: &mut Response, added: &Added, value: Option<Bytes>) {
    response.headers.remove(KnownHeader::LastModified);
    response.last_modified = None;
    let Some(value) = value else { return };
    match wire::date::parse_http_time(&value) {
        Some(time) if wire::date::format_http_time(time) == value[..] => response.last_modified = Some(time),
        _ => response.headers.push_known(added.known, added.name.clone(), value),
    }
}

/// Renders the trailers; called when the body has been sent.
fn add_trailers(r: &mut Request, trailers: &[Added]) {
    let safe = is_safe(r.response.status);
    for added in trailers.iter().filter(|added| safe || added.always) {
        if let Some(value) = added.value(r) {
            r.response.trailers.push_known(added.known, added.name.clone(), value);
        }
    }
}

/// The directive `expires`.
#[derive(Clone, PartialEq)]
pub enum Expires {
    /// The same for all requests.
    Fixed(When),
    /// With variables.
    Variable {
        /// Its value is parsed for each request.
        value: Rc<Template>,
        /// Whether it counts from the file's change.
        modified: bool,
    },
}

/// When a response expires. Times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The fields stay as they are.
    Off,
    /// It has expired already.
    Epoch,
    /// As late as possible.
    Max,
    /// That long after now.
    Access(i64),
    /// That long after the file's change.
    Modified(i64),
    /// At that time of the day.
    Daily(i64),
}

fn expires(loader: &mut Loader<'_>, d: &Directive) -> Result<Expires> {
    let invalid = |why: &str| Error::on(d, format!("\"expires\" directive {why}"));
    let (modified, value) = match &d.args[..] {
        [value] => (false, value),
        [first, value] if first == "modified" => (true, value),
        _ => return Err(invalid(INVALID)),
    };
    let template = template_of(loader, d, &value.text)?;
    match template.is_const() {
        Some(text) => parse_expires(text, modified).map(Expires::Fixed).map_err(invalid),
        None => Ok(Expires::Variable { value: template, modified }),
    }
}

const INVALID: &str = "invalid value";
const DAY: i64 = 24 * 60 * 60;

fn parse_expires(text: &[u8], modified: bool) -> std::result::Result<When, &'static str> {
    let mut text = text;
    let mut when: fn(i64) -> When = if modified { When::Modified } else { When::Access };
    let mut daily = false;
    if !modified {
        match text {
            b"epoch" => return Ok(When::Epoch),
            b"max" => return Ok(When::Max),
            b"off" => return Ok(When::Off),
            _ => {}
        }
    }
    if let Some(rest) = text.strip_prefix(b"@") {
        if modified {
            return Err("daily time cannot be used with \"modified\" parameter");
        }
        (text, when, daily) = (rest, When::Daily, true);
    }
    let (negative, digits) = match text {
        [b'+', rest @ ..] => (false, rest),
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let seconds = buf::parse::parse_sec(digits).and_then(|seconds| i64::try_from(seconds).ok()).ok_or(INVALID)?;
    if daily && seconds > DAY {
        return Err("daily time value must be less than 24 hours");
    }
    Ok(when(if negative { -seconds } else { seconds }))
}

fn set_expires(r: &mut Request, expires: &Expires) {
    let when = match expires {
        Expires::Fixed(when) => *when,
        Expires::Variable { value, modified } => {
            let text = r.render(value);
            // An invalid time changes nothing.
            parse_expires(&text, *modified).unwrap_or(When::Off)
        }
    };
    let (now, _) = engine::clock::now();
    let (date, control) = match when {
        When::Off => return,
        When::Epoch => (Bytes::from_static(b"Thu, 01 Jan 1970 00:00:01 GMT"), Bytes::from_static(NO_CACHE)),
        When::Max => (Bytes::from_static(b"Thu, 31 Dec 2037 23:55:55 GMT"), Bytes::from_static(b"max-age=315360000")),
        _ => {
            let (at, age) = expiry(when, now, r.response.last_modified);
            let control =
                if age < 0 { Bytes::from_static(NO_CACHE) } else { format!("max-age={age}").into_bytes().into() };
            (Bytes::copy_from(&wire::date::format_http_time(at)), control)
        }
    };
    r.response.headers.set(KnownHeader::Expires, date);
    r.response.headers.set(KnownHeader::CacheControl, control);
}

const NO_CACHE: &[u8] = b"no-cache";

/// The time of expiry, and the age until then: negative where the response isn't to be cached.
fn expiry(when: When, now: i64, modified: Option<i64>) -> (i64, i64) {
    let (at, seconds) = match (when, modified) {
        (When::Access(0) | When::Modified(0), _) => return (now, 0),
        (When::Modified(seconds), Some(modified)) => (modified.saturating_add(seconds), seconds),
        (When::Access(seconds) | When::Modified(seconds), _) => (now.saturating_add(seconds), seconds),
        (When::Daily(seconds), _) => (next_time(seconds, now), seconds),
        (When::Off | When::Epoch | When::Max, _) => (now, -1),
    };
    let age = at.saturating_sub(now);
    (at, if seconds < 0 { age.min(-1) } else { age })
}

/// The next time at which a local clock shows that many seconds after midnight.
fn next_time(seconds: i64, now: i64) -> i64 {
    next_time_in(seconds, now, &engine::clock::zone()).unwrap_or(now)
}

fn next_time_in(seconds: i64, now: i64, zone: &TimeZone) -> Option<i64> {
    let local = Timestamp::from_second(now).ok()?.to_zoned(zone.clone());
    let midnight = local.date().at(0, 0, 0, 0);
    let on_day = |days: i64| {
        let time = midnight.checked_add(days.days()).and_then(|day| day.checked_add(seconds.seconds())).ok()?;
        Some(time.to_zoned(zone.clone()).ok()?.timestamp().as_second())
    };
    on_day(0).filter(|time| *time > now).or_else(|| on_day(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expires_values() {
        for (text, modified, expect) in [
            ("off", false, Ok(When::Off)),
            ("epoch", false, Ok(When::Epoch)),
            ("max", false, Ok(When::Max)),
            ("24h", false, Ok(When::Access(86_400))),
            ("+1m", false, Ok(When::Access(60))),
            ("-1", false, Ok(When::Access(-1))),
            ("0", false, Ok(When::Access(0))),
            ("@15h30m33s", false, Ok(When::Daily(55_833))),
            ("@24h", false, Ok(When::Daily(86_400))),
            ("@25h", false, Err("daily time value must be less than 24 hours")),
            ("+24h", true, Ok(When::Modified(86_400))),
            ("epoch", true, Err(INVALID)),
            ("@1h", true, Err("daily time cannot be used with \"modified\" parameter")),
            ("", false, Err(INVALID)),
            ("bad", false, Err(INVALID)),
            ("--1", false, Err(INVALID)),
        ] {
            assert_eq!(parse_expires(text.as_bytes(), modified), expect, "{text}");
        }
    }

    #[test]
    fn expiry_times() {
        for (when, modified, expect) in [
            (When::Access(10), None, (1010, 10)),
            (When::Access(0), Some(5), (1000, 0)),
            (When::Access(-10), None, (990, -10)),
            (When::Modified(10), Some(900), (910, -90)),
            (When::Modified(200), Some(900), (1100, 100)),
            (When::Modified(10), None, (1010, 10)),
            (When::Modified(-10), Some(2000), (1990, -1)),
        ] {
            assert_eq!(expiry(when, 1000, modified), expect, "{when:?}");
        }
    }

    #[test]
    fn times_of_the_day() {
        let zone = TimeZone::fixed(jiff::tz::Offset::from_seconds(3600).expect("a small offset"));
        // 1970-01-02 01:00:00 local time.
        let now = DAY;
        for (seconds, expect) in [(3600, now + DAY), (3601, now + 1), (0, now + DAY - 3600), (-3600, now + DAY - 7200)]
        {
            assert_eq!(next_time_in(seconds, now, &zone), Some(expect), "{seconds}");
        }
        assert_eq!(next_time_in(DAY, now, &zone), Some(now + DAY - 3600));
    }

    #[test]
    fn inheritance() {
        let (own, parent): (Rc<[u8]>, Rc<[u8]>) = (Rc::new([1]), Rc::new([2, 3]));
        for (set, how, expect) in [
            (false, Inherit::On, &[2, 3][..]),
            (false, Inherit::Merge, &[2, 3]),
            (false, Inherit::Off, &[]),
            (true, Inherit::On, &[1]),
            (true, Inherit::Merge, &[1, 2, 3]),
            (true, Inherit::Off, &[1]),
        ] {
            assert_eq!(*inherit(set.then_some(&own), &parent, how), *expect, "{how:?}");
        }
    }
}
