//! The directives of caches that every backend protocol has, under its own prefix: `proxy_cache…`, `fastcgi_cache…`.

use std::rc::Rc;

use ::upstream::retry;
use conf::values::{bitmask, clamped, flag, invalid_value, msec, offset};
use conf::{Args, Context, Directive, Error, Loader, Result};
use expr::vars::Template;
use http::config::core::EVERYWHERE;
use http::request::variables::{template, template_of};
use wire::h1::Method;

use super::path::{self, Named, cache_path};

const ONE: Args = Args::exactly(1);

/// A directive `…_cache_valid`: for how long responses are stored that don't say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Valid {
    /// The statuses; empty for all.
    pub statuses: Vec<u16>,
    /// The time in seconds.
    pub seconds: i64,
}

/// Conditions: texts of which one is neither empty nor `0`.
pub type Conditions = Vec<Rc<Template>>;

/// Where responses are stored.
#[derive(Clone, Debug, Default)]
pub enum Zone {
    /// Nowhere.
    #[default]
    Off,
    /// In this cache.
    Named(Named),
    /// In the cache of this name, if it isn't empty.
    Variable(Rc<Template>),
}

/// The value of an unlimited offset.
const NO_OFFSET: u64 = u64::MAX;

/// `updating` in `…_cache_use_stale`; the other words have the bits that they have in `…_next_upstream`.
pub const UPDATING: u32 = 1 << 20;
/// `off` in `…_cache_use_stale`.
pub const OFF: u32 = retry::failure::OFF;

const STALE: &[(&str, u32)] = &[
    ("error", retry::failure::ERROR),
    ("timeout", retry::failure::TIMEOUT),
    ("invalid_header", retry::failure::INVALID_HEADER),
    ("updating", UPDATING),
    // It means nothing here, but nginx takes it.
    ("non_idempotent", retry::failure::NON_IDEMPOTENT),
    ("http_500", retry::failure::HTTP_500),
    ("http_502", retry::failure::HTTP_502),
    ("http_503", retry::failure::HTTP_503),
    ("http_504", retry::failure::HTTP_504),
    ("http_403", retry::failure::HTTP_403),
    ("http_404", retry::failure::HTTP_404),
    ("http_429", retry::failure::HTTP_429),
    ("off", OFF),
];

const METHODS: &[(&str, u32)] =
    &[("GET", Method::Get.bit()), ("HEAD", Method::Head.bit()), ("POST", Method::Post.bit())];
/// These always count.
const GET_AND_HEAD: u32 = Method::Get.bit() | Method::Head.bit();

conf::table! {
    /// What is stored of backends' responses. All protocols have `all`, HTTP alone has `head`.
    pub groups CacheConf, raw CacheRaw;

    group all {
        /// Declares a cache: a folder for responses, and a zone of shared memory for their keys. `{}cache` makes use of it.
        ///
        /// Form: `{}cache_path path keys_zone=name:size [levels=levels] [use_temp_path=on|off] [inactive=time] [max_size=size]
        /// [min_free=size] [manager_files=number] [manager_sleep=time] [manager_threshold=time] [loader_files=number]
        /// [loader_sleep=time] [loader_threshold=time] [purger=on|off] [purger_files=number] [purger_sleep=time]
        /// [purger_threshold=time]`
        ///
        /// - `path`: the folder; a relative one counts from the prefix. It is made if its parent is there.
        /// - `keys_zone=name:size`: the name of the cache, and the size of its zone.
        /// - `levels=levels`: the lengths of the names of subfolders, one to three of them joined by colons, each 1 or 2;
        ///   by default there are none.
        /// - `use_temp_path=on|off`: `off` writes responses that aren't whole yet into the cache's folder, `on` (the
        ///   default) into that of `{}temp_path`.
        /// - `inactive=time`: responses that nobody has asked for in this time are removed, fresh or not; the default is 10m.
        /// - `max_size=size`: the most bytes on disk; by default there is no limit.
        /// - `min_free=size`: the bytes of the file system that are to stay free; the default is 0.
        /// - `manager_files=number`: the most files that are removed in one go; the default is 100.
        /// - `manager_sleep=time`: the pause after that; the default is 50ms.
        /// - `manager_threshold=time`: the longest time for it; the default is 200ms.
        /// - `loader_files=number`: the most files that are read in one go at the start; the default is 100.
        /// - `loader_sleep=time`: the pause after that; the default is 50ms.
        /// - `loader_threshold=time`: the longest time for it; the default is 200ms.
        /// - `purger=on|off`: `on` removes the files of responses that a purge by wildcard concerns; the default is `off`.
        /// - `purger_files=number`: the most files that it looks at in one go; the default is 10.
        /// - `purger_sleep=time`: the pause after that; the default is 50ms.
        /// - `purger_threshold=time`: the longest time for it; the default is 50ms.
        ///
        /// Effect: a process "cache manager" removes what is unused or too much. A process "cache loader" tells the zone of
        /// the files that are there, a minute after the start; until then each key that isn't known is looked for on disk.
        /// A response is stored under the MD5 of its key. A file that is damaged is dropped and fetched anew. The zone is kept
        /// over reloads if its name and size stay.
        ///
        /// Cost: shared memory: a megabyte holds about 8,000 keys. When the zone is full, the responses that were used least
        /// recently are removed. Disk space: limits are checked now and then, so it is more than `max_size` for a time.
        ///
        /// Danger: on another file system than `{}temp_path` each response is copied. Responses may be confidential: the
        /// folder is open to the workers' user only.
        ///
        /// ```nginx
        /// {}cache_path cache levels=1:2 keys_zone=pages:10m inactive=1h max_size=1g use_temp_path=off;
        /// ```
        "cache_path" in Context::HTTP, Args::at_least(2), default none,
            also(|_: &mut CacheRaw, l: &mut Loader<'_>, d: &Directive| cache_path(l, d));
        /// Stores responses in a cache, and answers with what is stored.
        ///
        /// Form: `{}cache name | off`
        ///
        /// - `name`: a cache that a `{}cache_path` declares. It may contain variables; with an empty value nothing is stored.
        /// - `off`: nothing is stored, whatever an outer level sets.
        ///
        /// Effect: responses to GET and HEAD (`{}cache_methods`) are stored for as long as they say, in
        /// `X-Accel-Expires`, `Cache-Control` or `Expires`, else as `{}cache_valid` says. Responses with `Set-Cookie` or `Vary: *`
        /// aren't stored; with another `Vary` each variant is. Backends are asked for whole responses, without the client's
        /// conditions and ranges; the client's are applied to what is stored. `$upstream_cache_status` shows what was done.
        ///
        /// Cost: a lookup in shared memory for each request, and a file opened for each response that is stored. A response is
        /// fetched to its end although its client has left.
        ///
        /// Danger: what depends on a cookie, on `Authorization` or on anything else that isn't in `{}cache_key` is served to
        /// others, unless the backend forbids to store it. `proxy_cache` asks with GET for responses to HEAD
        /// (`proxy_cache_convert_head`); with other protocols `{}cache_key` should contain `$request_method`, or what is stored
        /// for HEAD, without a body, is served to GET.
        ///
        /// ```nginx
        /// {}cache_path cache keys_zone=pages:10m;
        /// server {
        ///     location / {
        ///         {}cache pages;
        ///         {}cache_key $scheme$host$request_uri;
        ///         {}cache_valid 200 10m;
        ///     }
        /// }
        /// ```
        "cache" in EVERYWHERE, ONE, default "off",
            scalar(path::zone) cache: Zone = Zone::Off;
        /// Sets the key under which a response is stored.
        ///
        /// Form: `{}cache_key text`
        ///
        /// - `text`: a text with variables. Without the directive `proxy_pass` uses the scheme, the host and the URI that the
        ///   backend is asked for; other protocols require it.
        ///
        /// Effect: requests with the same key get the same response.
        ///
        /// Danger: whatever a response depends on has to be in the key, or in its `Vary`.
        ///
        /// ```nginx
        /// {}cache_key "$host$request_uri $cookie_user";
        /// ```
        "cache_key" in EVERYWHERE, ONE, default none,
            scalar(template) cache_key: Option<Rc<Template>> = None;
        /// Sets for how long responses are stored that don't say it themselves.
        ///
        /// Form: `{}cache_valid [status ...] time`
        ///
        /// - `status`: statuses of responses, or `any` for all; without one 200, 301 and 302.
        /// - `time`: for how long.
        ///
        /// Effect: fields of the response (`X-Accel-Expires`, `Cache-Control`, `Expires`) count more. The first directive
        /// that names a status counts. Errors that no backend sent (502, 504) are remembered as well, and so are those whose
        /// page is made by `error_page` (`{}intercept_errors`).
        ///
        /// Danger: with `any` a failure is served for as long as that.
        ///
        /// ```nginx
        /// {}cache_valid 200 302 10m;
        /// {}cache_valid 404 1m;
        /// ```
        "cache_valid" in EVERYWHERE, Args::at_least(1), default none,
            list(valid) cache_valid: Valid;
        /// Adds methods whose responses are stored.
        ///
        /// Form: `{}cache_methods method ...`
        ///
        /// - `method`: `GET`, `HEAD` or `POST`; the first two are always in the list.
        ///
        /// Effect: requests with other methods are passed to the backend, and their responses aren't stored.
        ///
        /// Danger: with POST the request's body isn't in the key, unless `{}cache_key` contains it.
        ///
        /// ```nginx
        /// {}cache_methods GET HEAD POST;
        /// {}cache_key $request_uri$request_body;
        /// ```
        "cache_methods" in EVERYWHERE, Args::at_least(1), default "GET HEAD",
            set(|raw: &mut CacheRaw, l: &mut Loader<'_>, d: &Directive| {
                bitmask(&mut raw.cache_methods, METHODS, l, d)?;
                raw.cache_methods = raw.cache_methods.map(|methods| methods | GET_AND_HEAD);
                Ok(())
            })
            cache_methods: u32 = GET_AND_HEAD;
        /// Sets conditions on which a request isn't answered from the cache.
        ///
        /// Form: `{}cache_bypass text ...`
        ///
        /// - `text`: a text with variables: the condition holds if its value is neither empty nor `0`.
        ///
        /// Effect: if any condition holds the backend is asked; its response replaces the one that is stored, unless
        /// `{}no_cache` holds too.
        ///
        /// ```nginx
        /// {}cache_bypass $cookie_nocache $arg_nocache;
        /// ```
        "cache_bypass" in EVERYWHERE, Args::at_least(1), default none,
            set(|raw: &mut CacheRaw, l: &mut Loader<'_>, d: &Directive| conditions(&mut raw.cache_bypass, l, d))
            cache_bypass: Conditions = Vec::new();
        /// Sets conditions on which a response isn't stored.
        ///
        /// Form: `{}no_cache text ...`
        ///
        /// - `text`: a text with variables: the condition holds if its value is neither empty nor `0`.
        ///
        /// Effect: the conditions are tested when the response's head has come, so they may contain its fields
        /// (`$upstream_http_name`).
        ///
        /// ```nginx
        /// {}no_cache $http_authorization;
        /// ```
        "no_cache" in EVERYWHERE, Args::at_least(1), default none,
            set(|raw: &mut CacheRaw, l: &mut Loader<'_>, d: &Directive| conditions(&mut raw.no_cache, l, d))
            no_cache: Conditions = Vec::new();
        /// Sets how often a response has to be asked for before it is stored.
        ///
        /// Form: `{}cache_min_uses number`
        ///
        /// - `number`: with 1 the first request stores it.
        ///
        /// Effect: requests before that are passed to the backend as they are, with their ranges and conditions.
        ///
        /// ```nginx
        /// {}cache_min_uses 3;
        /// ```
        "cache_min_uses" in EVERYWHERE, ONE, default "1",
            scalar(clamped) cache_min_uses: u16 = 1;
        /// Lets only one request at a time fetch a response that isn't stored yet, if it is `on`.
        ///
        /// Effect: other requests of the same key wait until the response is there, whichever worker fetches it, or until
        /// `{}cache_lock_timeout`.
        ///
        /// Cost: requests for what can't be stored wait too, one after the other.
        ///
        /// ```nginx
        /// {}cache_lock on;
        /// ```
        "cache_lock" in EVERYWHERE, Args::FLAG, default "off",
            scalar(flag) cache_lock: bool = false;
        /// Limits how long a request may fetch a response before another one may too.
        ///
        /// Form: `{}cache_lock_age time`
        ///
        /// - `time`: counted from the moment at which the request began to fetch.
        ///
        /// Effect: with `{}cache_lock`, one more request is passed to the backend when the first hasn't ended by then.
        ///
        /// ```nginx
        /// {}cache_lock_age 30s;
        /// ```
        "cache_lock_age" in EVERYWHERE, ONE, default "5s",
            scalar(msec) cache_lock_age: u64 = 5000;
        /// Limits how long a request waits for another one to fetch a response.
        ///
        /// Form: `{}cache_lock_timeout time`
        ///
        /// - `time`: 0 doesn't wait.
        ///
        /// Effect: with `{}cache_lock`, a request that has waited so long is passed to the backend; its response isn't stored.
        ///
        /// ```nginx
        /// {}cache_lock_timeout 10s;
        /// ```
        "cache_lock_timeout" in EVERYWHERE, ONE, default "5s",
            scalar(msec) cache_lock_timeout: u64 = 5000;
        /// Selects the cases in which a stored response is served although it isn't fresh any more.
        ///
        /// Form: `{}cache_use_stale case ...`
        ///
        /// - `error`, `timeout`, `invalid_header`: the backend failed so, as in `{}next_upstream`; `error` also if there is no
        ///   server to ask.
        /// - `updating`: another request is updating the response.
        /// - `http_500`, `http_503`, `http_403`, `http_404`, `http_429`, and in `proxy_cache_use_stale` also `http_502` and
        ///   `http_504`: the backend answered with this status.
        /// - `off`: in no case.
        ///
        /// Effect: the client gets the stored response. Beside that, responses with `stale-while-revalidate` or
        /// `stale-if-error` in `Cache-Control` are served for as long as these say.
        ///
        /// ```nginx
        /// {}cache_use_stale error timeout updating;
        /// ```
        "cache_use_stale" in EVERYWHERE, Args::at_least(1), default "off",
            set(use_stale) cache_use_stale: u32 = OFF;
        /// Updates a response that isn't fresh any more in the background, while the client gets the stored one, if it is
        /// `on`.
        ///
        /// Effect: it acts where a stale response may be served while it is updated: `{}cache_use_stale updating`, or
        /// `stale-while-revalidate` in the response.
        ///
        /// ```nginx
        /// {}cache_background_update on;
        /// {}cache_use_stale updating;
        /// ```
        "cache_background_update" in EVERYWHERE, Args::FLAG, default "off",
            scalar(flag) cache_background_update: bool = false;
        /// Asks the backend whether a response that isn't fresh any more has changed, if it is `on`.
        ///
        /// Effect: the request gets `If-Modified-Since` and `If-None-Match` with what is stored. After a 304 the stored
        /// response is served and is fresh again. It acts for responses of status 200 and 206.
        ///
        /// ```nginx
        /// {}cache_revalidate on;
        /// ```
        "cache_revalidate" in EVERYWHERE, Args::FLAG, default "off",
            scalar(flag) cache_revalidate: bool = false;
        /// Sets the offset from which on requests for a range aren't answered with a stored response that has to be fetched
        /// first.
        ///
        /// Form: `{}cache_max_range_offset size`
        ///
        /// - `size`: bytes from the beginning; by default there is no limit.
        ///
        /// Effect: a request whose range begins after that, or counts from the end, is passed to the backend with its range,
        /// and the response isn't stored. Responses that are stored serve any range.
        ///
        /// ```nginx
        /// {}cache_max_range_offset 10m;
        /// ```
        "cache_max_range_offset" in EVERYWHERE, ONE, default none,
            scalar(offset) cache_max_range_offset: u64 = NO_OFFSET;
        /// Sets conditions on which a request removes what is stored under its key.
        ///
        /// Form: `{}cache_purge text ...`
        ///
        /// - `text`: a text with variables: the condition holds if its value is neither empty nor `0`.
        ///
        /// Effect: the request isn't passed on. It is answered with 204 if something was removed, with 404 if nothing was
        /// stored. All variants (`Vary`) go. A key that ends with `*` removes all responses whose key begins so, and is
        /// answered with 204: they aren't served any more, and their files go when they are asked for, unused
        /// (`inactive`) or found by the purger (`{}cache_path`).
        ///
        /// Cost: as long as a purge by wildcard is remembered, each hit is compared with it.
        ///
        /// Danger: whoever may purge can make the backend work: restrict it, as with `geo` or `allow`. The memory of
        /// wildcards is in the zone: after a restart of the server responses that have still files are served again, unless
        /// the purger has been there.
        ///
        /// ```nginx
        /// map $request_method $purges {
        ///     PURGE 1;
        ///     default 0;
        /// }
        /// server {
        ///     location / {
        ///         {}cache_purge $purges;
        ///     }
        /// }
        /// ```
        "cache_purge" in EVERYWHERE, Args::at_least(1), default none,
            set(|raw: &mut CacheRaw, l: &mut Loader<'_>, d: &Directive| conditions(&mut raw.cache_purge, l, d))
            cache_purge: Conditions = Vec::new();
        /// Applies the rules of the standard (RFC 9111) in place of nginx's, if it is `on`.
        ///
        /// Effect: `Cache-Control`, `Expires`, `Age`, `Date`, `Last-Modified` and `Authorization` decide what is stored and
        /// for how long; `Age` is sent; directives of requests count; a 304 updates the stored fields; `must-revalidate`
        /// forbids to serve a stale response; a response that has to be validated each time (`no-cache`) is stored;
        /// successful requests with unsafe methods (POST, PUT, DELETE) remove what is stored for their URI, and for those of
        /// the same origin that `Location` and `Content-Location` of the answer name, if the key ends with the URI, as it
        /// does by default where `{}pass` has no URI of its own. Responses with cookies are stored only if they name their lifetime. What isn't fresh any more
        /// is validated, as by `{}cache_revalidate`. `{}cache_valid` counts for responses that say nothing,
        /// `{}ignore_headers` for those that do. Fields of a 304 that don't fit before a stored body of more than 1 MiB
        /// aren't taken over.
        ///
        /// ```nginx
        /// {}cache_rfc on;
        /// ```
        "cache_rfc" in EVERYWHERE, Args::FLAG, default "off",
            scalar(flag) cache_rfc: bool = false;
        /// Adds `Cache-Status` (RFC 9211) to responses: how the cache has handled the request.
        ///
        /// Form: `{}cache_status name | off`
        ///
        /// - `name`: what the cache is called in the field.
        /// - `off`: no field is added.
        ///
        /// Effect: the field tells whether it was a hit, for how long the response is still fresh, or why the backend was asked,
        /// and whether its response is stored. It is appended to a field of the backend's.
        ///
        /// ```nginx
        /// {}cache_status example;
        /// ```
        "cache_status" in EVERYWHERE, ONE, default "off",
            scalar(status) cache_status: Option<Rc<[u8]>> = None;
        /// Lets targeted fields (RFC 9213) count in place of `Cache-Control` and `Expires`.
        ///
        /// Form: `{}cache_targeted name ... | off`
        ///
        /// - `name`: a field's name, such as `CDN-Cache-Control`; the first that a response has and that can be parsed counts.
        /// - `off`: none counts.
        ///
        /// Effect: with `{}cache_rfc on` only.
        ///
        /// ```nginx
        /// {}cache_rfc on;
        /// {}cache_targeted CDN-Cache-Control;
        /// ```
        "cache_targeted" in EVERYWHERE, Args::at_least(1), default "off",
            scalar(targeted) cache_targeted: Rc<[Vec<u8>]> = Rc::new([]);
    }
    group head {
        /// Asks backends with GET for responses to HEAD if it is `on`, so that they can be stored.
        ///
        /// Effect: with `off` the method isn't changed, and `{}cache_key` should contain `$request_method`.
        ///
        /// ```nginx
        /// {}cache_convert_head off;
        /// {}cache_key $request_method$request_uri;
        /// ```
        "cache_convert_head" in EVERYWHERE, Args::FLAG, default "on",
            scalar(flag) cache_convert_head: bool = true;
    }
}

fn conditions(place: &mut Option<Conditions>, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let conditions = place.get_or_insert_default();
    for word in &d.args {
        conditions.push(template_of(loader, d, &word.text)?);
    }
    Ok(())
}

fn valid(_: &mut Loader<'_>, d: &Directive) -> Result<Valid> {
    let Some((time, words)) = d.args.split_last() else { return Err(Error::on(d, "no time")) };
    let seconds = buf::parse::parse_sec(&time.text).and_then(|seconds| i64::try_from(seconds).ok());
    let seconds = seconds.ok_or_else(|| Error::at(time, format!("invalid time value \"{}\"", time.lossy())))?;
    if words.is_empty() {
        return Ok(Valid { statuses: vec![200, 301, 302], seconds });
    }
    let mut statuses = Vec::new();
    for word in words {
        if *word == "any" {
            return Ok(Valid { statuses: Vec::new(), seconds });
        }
        let status = buf::parse::parse_number(&word.text).filter(|status| (100..=599).contains(status));
        statuses.push(status.ok_or_else(|| Error::at(word, format!("invalid status \"{}\"", word.lossy())))? as u16);
    }
    Ok(Valid { statuses, seconds })
}

/// Protocols other than HTTP lack the statuses of gateways, as in nginx.
fn use_stale(raw: &mut CacheRaw, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    if !d.name.text.starts_with(b"proxy_")
        && let Some(word) = d.args.iter().find(|word| **word == "http_502" || **word == "http_504")
    {
        return Err(invalid_value(word));
    }
    bitmask(&mut raw.cache_use_stale, STALE, loader, d)
}

fn status(_: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<[u8]>>> {
    let word = d.arg(0);
    if *word == "off" {
        return Ok(None);
    }
    // A token of structured fields (RFC 8941 §3.3.4).
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(byte);
    if !word.text.first().is_some_and(u8::is_ascii_alphabetic) || !word.text.iter().all(token) {
        return Err(invalid_value(word));
    }
    Ok(Some(word.text.as_slice().into()))
}

fn targeted(_: &mut Loader<'_>, d: &Directive) -> Result<Rc<[Vec<u8>]>> {
    if d.args.len() == 1 && *d.arg(0) == "off" {
        return Ok(Rc::new([]));
    }
    Ok(d.args.iter().map(|word| word.text.to_ascii_lowercase()).collect())
}

impl CacheConf {
    /// For how many seconds responses of a status are stored that don't say it.
    pub fn valid(&self, status: u16) -> Option<i64> {
        let named = |valid: &&Valid| valid.statuses.is_empty() || valid.statuses.contains(&status);
        self.cache_valid.iter().find(named).map(|valid| valid.seconds).filter(|seconds| *seconds > 0)
    }

    /// When stored responses are served that are too old; `off` beside other words wins.
    pub fn use_stale(&self) -> u32 {
        retry::failure::listed(self.cache_use_stale)
    }

    /// Whether a range that begins there is fetched whole.
    pub fn has_max_range_offset(&self) -> bool {
        self.cache_max_range_offset != NO_OFFSET
    }
}
