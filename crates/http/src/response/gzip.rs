//! Who may get compressed responses: what the gzip modules share.

use std::rc::Rc;

use conf::values::{bitmask, flag, one_of};
use conf::{Args, Directive, Error, Loader, Result};
use expr::regex::Regex;
use wire::accept::accepts_encoding;
use wire::date::parse_http_time;
use wire::h1::KnownHeader;

use crate::config::core::EVERYWHERE;
use crate::request::Request;
use crate::response::browser::is_msie6;

conf::table! {
    /// Which requests get compressed responses.
    pub struct GzipConf, raw GzipRaw, module "ngx_http_core_module", level HTTP Location;

    /// Sends `Vary: Accept-Encoding` with responses that could be compressed, so that caches keep both forms apart.
    ///
    /// Effect: holds for responses that `gzip`, `gunzip`, `brotli`, `zstd` or one of `gzip_static`, `brotli_static` and
    /// `zstd_static` deals with, whether this client gets them compressed or not.
    ///
    /// Danger: with `off` a shared cache may give a compressed response to a client that can't decompress it.
    ///
    /// ```nginx
    /// gzip on;
    /// gzip_vary on;
    /// ```
    "gzip_vary" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) gzip_vary: bool = false;
    /// Sets the lowest HTTP version of requests whose responses are compressed.
    ///
    /// Form: `gzip_http_version 1.0 | 1.1`
    ///
    /// - `1.0`: requests of HTTP/1.0 and later.
    /// - `1.1`: requests of HTTP/1.1 and later.
    ///
    /// Effect: requests of older versions get responses as they are. It holds for `gzip` and `gzip_static`.
    ///
    /// Cost: with `1.0` a compressed response to an HTTP/1.0 client has no length, so its connection isn't kept.
    ///
    /// ```nginx
    /// gzip on;
    /// gzip_http_version 1.0;
    /// ```
    "gzip_http_version" in EVERYWHERE, Args::exactly(1), default "1.1",
        scalar(one_of(&[("1.0", 1000), ("1.1", 1001)])) gzip_http_version: u16 = 1001;
    /// Sets which responses are compressed for requests that came through a proxy, as the field `Via` shows.
    ///
    /// Form: `gzip_proxied off | any | condition ...`
    ///
    /// - `off`: none.
    /// - `any`: all.
    /// - `expired`: those with an `Expires` in the past, which no cache keeps.
    /// - `no-cache`: those with `Cache-Control: no-cache`.
    /// - `no-store`: those with `Cache-Control: no-store`.
    /// - `private`: those with `Cache-Control: private`.
    /// - `no_last_modified`: those without `Last-Modified`.
    /// - `no_etag`: those without `ETag`.
    /// - `auth`: those to requests with `Authorization`.
    ///
    /// Effect: holds for `gzip` and `gzip_static`, and for requests with `Via` only. Several conditions may be given.
    ///
    /// Danger: with `any` and without `gzip_vary` a proxy may keep the compressed form and give it to other clients.
    ///
    /// ```nginx
    /// gzip on;
    /// gzip_vary on;
    /// gzip_proxied any;
    /// ```
    "gzip_proxied" in EVERYWHERE, Args::at_least(1), default "off",
        set(|raw: &mut GzipRaw, l: &mut Loader<'_>, d: &Directive| bitmask(&mut raw.gzip_proxied, PROXIED, l, d))
        gzip_proxied: u32 = OFF;
    /// Sets browsers that get no compressed responses.
    ///
    /// Form: `gzip_disable regex ...`
    ///
    /// - `regex`: a regex for `User-Agent`, in which upper and lower case are the same.
    /// - `msie6`: Internet Explorer 4 to 6, without the one of Windows XP's service pack 2; it is faster than a regex.
    /// - `degradation`: every browser, while the worker uses more memory than `degradation` allows.
    ///
    /// Effect: holds for `gzip` and `gzip_static`.
    ///
    /// Cost: the regexes are tried for each response that could be compressed.
    ///
    /// ```nginx
    /// gzip on;
    /// gzip_disable msie6;
    /// ```
    "gzip_disable" in EVERYWHERE, Args::at_least(1), default none,
        set(gzip_disable) gzip_disable: Rc<Disabled> = Rc::default();
}

/// The browsers of `gzip_disable`.
#[derive(Default, Clone)]
pub struct Disabled {
    msie6: bool,
    degradation: bool,
    regexes: Vec<Rc<Regex>>,
}

/// A part of the configuration that says whether the worker uses more memory than it may: of the module `degradation`.
pub struct Degraded(pub Box<dyn Fn() -> bool>);

impl std::fmt::Debug for Disabled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Disabled({})", self.regexes.len())
    }
}

const OFF: u32 = 1 << 1;
const EXPIRED: u32 = 1 << 2;
const NO_CACHE: u32 = 1 << 3;
const NO_STORE: u32 = 1 << 4;
const PRIVATE: u32 = 1 << 5;
const NO_LAST_MODIFIED: u32 = 1 << 6;
const NO_ETAG: u32 = 1 << 7;
const AUTH: u32 = 1 << 8;
const ANY: u32 = 1 << 9;

const PROXIED: &[(&str, u32)] = &[
    ("off", OFF),
    ("expired", EXPIRED),
    ("no-cache", NO_CACHE),
    ("no-store", NO_STORE),
    ("private", PRIVATE),
    ("no_last_modified", NO_LAST_MODIFIED),
    ("no_etag", NO_ETAG),
    ("auth", AUTH),
    ("any", ANY),
];

fn gzip_disable(raw: &mut GzipRaw, _: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let disabled = Rc::make_mut(raw.gzip_disable.get_or_insert_with(Rc::default));
    for word in &d.args {
        match &word.text[..] {
            b"msie6" => disabled.msie6 = true,
            b"degradation" => disabled.degradation = true,
            pattern => {
                let regex = Regex::new(pattern, true).map_err(|error| Error::at(word, error.to_string()))?;
                disabled.regexes.push(Rc::new(regex));
            }
        }
    }
    Ok(())
}

/// Whether the client of a request accepts a response in this coding. What a subrequest brings becomes a part of another
/// response, so it isn't to be encoded.
pub fn accepts(r: &Request, coding: &[u8]) -> bool {
    let accepted = r.header(KnownHeader::AcceptEncoding).filter(|_| !r.is_subrequest());
    accepted.is_some_and(|accepted| accepts_encoding(accepted, coding))
}

/// Whether the client of a request, and proxies before it, accept a response with `Content-Encoding: gzip`. The
/// response's head has to be complete.
pub fn gzip_ok(r: &Request) -> bool {
    if !accepts(r, b"gzip") {
        return false;
    }
    let conf = r.location.set.get::<GzipConf>();
    if r.line.version < conf.gzip_http_version {
        return false;
    }
    if r.line.has(KnownHeader::Via) && !proxied_ok(r, conf.gzip_proxied) {
        return false;
    }
    let disabled = &conf.gzip_disable;
    if disabled.degradation && r.http.part::<Degraded>().is_some_and(|degraded| (degraded.0)()) {
        return false;
    }
    if !disabled.msie6 && disabled.regexes.is_empty() {
        return true;
    }
    let Some(agent) = r.header(KnownHeader::UserAgent) else { return true };
    let matches = |regex: &Rc<Regex>| regex.is_match(agent).unwrap_or(false);
    let is_disabled = (disabled.msie6 && is_msie6(agent)) || disabled.regexes.iter().any(matches);
    !is_disabled
}

fn proxied_ok(r: &Request, mask: u32) -> bool {
    if mask & OFF != 0 {
        return false;
    }
    if mask & ANY != 0 || (mask & AUTH != 0 && r.line.has(KnownHeader::Authorization)) {
        return true;
    }
    let headers = &r.response.headers;
    if let Some(expires) = headers.find(KnownHeader::Expires) {
        if mask & EXPIRED == 0 {
            return false;
        }
        let date = headers.find(KnownHeader::Date).and_then(|date| parse_http_time(date));
        let date = date.unwrap_or_else(|| engine::clock::now().0);
        return parse_http_time(expires).is_some_and(|expires| expires < date);
    }
    let mut control = headers.iter().filter(|header| header.known == KnownHeader::CacheControl).peekable();
    if control.peek().is_some() {
        return control.any(|header| {
            let has = |bit, text: &[u8]| mask & bit != 0 && contains(&header.value, text);
            has(NO_CACHE, b"no-cache") || has(NO_STORE, b"no-store") || has(PRIVATE, b"private")
        });
    }
    // The time of a file of our own doesn't count here, as in nginx.
    let backend_time = r.upstream.is_some() && r.response.last_modified.is_some();
    let has_time = backend_time || headers.find(KnownHeader::LastModified).is_some();
    let has_tag = headers.find(KnownHeader::ETag).is_some();
    let is_refused = (mask & NO_LAST_MODIFIED != 0 && has_time) || (mask & NO_ETAG != 0 && has_tag);
    !is_refused
}

/// Whether `value` contains `text`, ignoring case.
fn contains(value: &[u8], text: &[u8]) -> bool {
    value.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text))
}
