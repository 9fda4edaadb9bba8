//! `proxy_pass`: backends that speak HTTP/1 or HTTP/2.

use std::any::Any;
use std::rc::Rc;

use buf::Buf;
use common::vars::Late;
use conf::values::{flag, number, one_of};
use conf::{Args, Context, Directive, Error, Loader, Registry, Result};
use expr::vars::Template;
use http::HttpProto;
use http::config::core::EVERYWHERE;
use http::exchange::Exchange;
use http::exchange::Target;
use http::fault::Fault;
use http::module::HttpModule;
use http::module::LocationContext;
use http::request::variables::template;
use http::request::{Request, UriFit, UriSource};
use http::response::field::{breaks, safe, unfolded};
use http::server::location::Handlers;
use wire::Span;
use wire::h1::{KnownHeader, Method};
use wire::uri::{Escape, escape};

use crate::cache;
use crate::cache::conf::CacheConf;
use crate::cache::path::Caches;
use crate::conf::{ConnectConf, UpstreamConf, check_location};
use crate::cookies::{self, CookieFlags, CookieReplace};
use crate::engine::{Backend, Hidden};
use crate::http1::{self, Http1};
use crate::http2::{self, Http2};
use crate::pass::{Destination, Pass, PassTarget};
use crate::protocol::{Codec, Kept, Protocol, Scheme};
use crate::redirect::{self, Redirect, Rule, Rules, refresh_url};
use crate::request_fields::{Form, RequestFields, TO_BACKEND};
use crate::ssl::{self, UpstreamSslConf, UpstreamTls};

/// The module.
pub struct Proxy;

const ONE: Args = Args::exactly(1);

conf::table! {
    /// `proxy_…`: the directives of HTTP backends.
    pub struct ProxyConf, raw ProxyRaw, module "ngx_http_proxy_module", level HTTP Location;

    under "proxy_" {
        /// What most protocols have.
        up: UpstreamConf [
            connection, buffer, failures, lowat, errors, fields, request, response, store, trailers
        ];
        /// How connections are made.
        connect: ConnectConf [connection, retries, sockets];
        /// TLS.
        ssl: UpstreamSslConf [all];
        /// What is stored.
        cache: CacheConf [all, head];
    }
    /// Passes the location's requests to a server or a group of servers that speaks HTTP, and its responses to the
    /// clients.
    ///
    /// Form: `proxy_pass url`
    ///
    /// - `url`: `http://` or `https://`, a host with or without a port, or the name of an `upstream`, or `unix:path`
    ///   followed by a colon; then possibly a URI. It may contain variables.
    ///
    /// Effect: with a URI in it, the location's prefix is replaced by it: in `location /api/` with
    /// `http://backend/v1/`, `/api/a` becomes `/v1/a`. Without one, the request's URI is passed on as the client sent
    /// it. With variables, the URI in it replaces the whole. A host without variables is looked up at the start; one
    /// with variables is looked up by `resolver` for each request, unless an `upstream` has its name. The directive
    /// isn't inherited, except by `if` and `limit_except` inside.
    ///
    /// Cost: a connection to the backend for each request under way, and `proxy_buffer_size` and `proxy_buffers` of
    /// memory while its response is read.
    ///
    /// Danger: a slash makes a difference: `http://backend` passes the URI on, `http://backend/` replaces the prefix. A
    /// host with variables that clients control lets them reach any server that this machine reaches. `https://`
    /// doesn't check the backend's certificate unless `proxy_ssl_verify` is on.
    ///
    /// ```nginx
    /// upstream backend {
    ///     server 127.0.0.1:8080;
    ///     server 127.0.0.1:8081;
    /// }
    /// server {
    ///     location /api/ {
    ///         proxy_pass http://backend/v1/;
    ///     }
    ///     location / {
    ///         proxy_pass http://127.0.0.1:3000;
    ///         proxy_set_header Host $host;
    ///     }
    /// }
    /// ```
    "proxy_pass" in Context::LOCATION.or(Context::LOCATION_IF).or(Context::LIMIT_EXCEPT), ONE, default none,
        here(proxy_pass) proxy_pass: Rc<Pass>;
    /// Changes the URL in the fields `Location` and `Refresh` of responses.
    ///
    /// Form: `proxy_redirect default | off | pattern replacement`
    ///
    /// - `default`: the URL of `proxy_pass` at the beginning is replaced by the location's prefix. It must follow
    ///   `proxy_pass`, which must not contain variables.
    /// - `off`: nothing is changed.
    /// - `pattern`: the beginning of the URL, with or without variables; or a regex, after `~` or, if case doesn't
    ///   count, `~*`.
    /// - `replacement`: what takes its place; it may contain variables and the regex's captures. One that begins with
    ///   `/` gets the server's scheme, name and port in front, unless `absolute_redirect` is off.
    ///
    /// Effect: clients are redirected to this server rather than to the backend. The directive may be repeated; the
    /// first pattern that matches applies. A level that sets any doesn't inherit those of the level around it.
    ///
    /// ```nginx
    /// proxy_redirect ~^http://[^/]+/app/(.*)$ /$1;
    /// ```
    "proxy_redirect" in EVERYWHERE, Args::between(1, 2), default computed("`proxy_redirect default;` where `proxy_pass` has no variables"),
        set(|raw: &mut ProxyRaw, loader: &mut Loader<'_>, d: &Directive| {
            let rule = redirect(raw, loader, d)?;
            redirect::add(raw.proxy_redirect.get_or_insert_default(), rule, d)
        }) proxy_redirect: Option<Rules<Rule>> = None;
    /// Changes the attribute `domain` of cookies in responses.
    ///
    /// Form: `proxy_cookie_domain off | domain replacement`
    ///
    /// - `domain`: the whole attribute; a dot at its beginning and the case of letters don't count. Or a regex, after
    ///   `~`.
    /// - `replacement`: what takes its place; it may contain variables and the regex's captures.
    /// - `off`: nothing is changed.
    ///
    /// Effect: cookies that a backend sets for its own name are accepted by clients. The directive may be repeated; the
    /// first pattern that matches applies. A level that sets any doesn't inherit those of the level around it.
    ///
    /// ```nginx
    /// proxy_cookie_domain localhost example.com;
    /// ```
    "proxy_cookie_domain" in EVERYWHERE, Args::between(1, 2), default "off",
        set(|raw: &mut ProxyRaw, loader: &mut Loader<'_>, d: &Directive| {
            let rule = cookies::domain(loader, d)?;
            redirect::add(&mut raw.proxy_cookie_domain, rule, d)
        }) proxy_cookie_domain: Rules<CookieReplace> = Rc::default();
    /// Changes the attribute `path` of cookies in responses.
    ///
    /// Form: `proxy_cookie_path off | path replacement`
    ///
    /// - `path`: the beginning of the attribute; or a regex, after `~` or, if case doesn't count, `~*`.
    /// - `replacement`: what takes its place; it may contain variables and the regex's captures.
    /// - `off`: nothing is changed.
    ///
    /// Effect: cookies fit to the location's path where it isn't that of the backend. The directive may be repeated;
    /// the first pattern that matches applies. A level that sets any doesn't inherit those of the level around it.
    ///
    /// ```nginx
    /// proxy_cookie_path /app/ /;
    /// ```
    "proxy_cookie_path" in EVERYWHERE, Args::between(1, 2), default "off",
        set(|raw: &mut ProxyRaw, loader: &mut Loader<'_>, d: &Directive| {
            let rule = cookies::path(loader, d)?;
            redirect::add(&mut raw.proxy_cookie_path, rule, d)
        }) proxy_cookie_path: Rules<CookieReplace> = Rc::default();
    /// Sets or removes flags of cookies in responses.
    ///
    /// Form: `proxy_cookie_flags off | cookie [flag ...]`
    ///
    /// - `cookie`: the cookie's name; or a regex, after `~`.
    /// - `flag`: `secure`, `httponly`, `samesite`, `samesite=strict`, `samesite=lax` or `samesite=none` sets a flag;
    ///   `nosecure`, `nohttponly` or `nosamesite` removes it. It may contain variables.
    /// - `off`: nothing is changed.
    ///
    /// Effect: clients protect cookies of backends that know nothing of TLS. The directive may be repeated; the first
    /// name that matches applies. A level that sets any doesn't inherit those of the level around it.
    ///
    /// ```nginx
    /// proxy_cookie_flags ~ secure httponly samesite=lax;
    /// ```
    "proxy_cookie_flags" in EVERYWHERE, Args::between(1, 4), default "off",
        set(|raw: &mut ProxyRaw, loader: &mut Loader<'_>, d: &Directive| {
            let rule = cookies::flags(loader, d)?;
            redirect::add(&mut raw.proxy_cookie_flags, rule, d)
        }) proxy_cookie_flags: Rules<CookieFlags> = Rc::default();
    /// Sets a field of the request to the backend.
    ///
    /// Form: `proxy_set_header name value`
    ///
    /// - `name`: the field's name.
    /// - `value`: a text with variables; if it is empty, the field isn't sent.
    ///
    /// Effect: it replaces the client's field of this name. All other fields of the client are passed on, except those
    /// of its connection. A level that sets any doesn't inherit those of the level around it.
    ///
    /// Danger: a location that sets one field loses all that `server` and `http` set. A backend that trusts
    /// `X-Forwarded-For` or `X-Real-IP` must get a value from here, since clients can send these fields themselves.
    ///
    /// ```nginx
    /// proxy_set_header Host $host;
    /// proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    /// proxy_set_header X-Forwarded-Proto $scheme;
    /// ```
    "proxy_set_header" in EVERYWHERE, Args::exactly(2), default computed("`proxy_set_header Host $proxy_host;`"),
        list(set_header) proxy_set_header: (Vec<u8>, Late);
    /// Replaces the body of the request to the backend.
    ///
    /// Form: `proxy_set_body value`
    ///
    /// - `value`: a text with variables.
    ///
    /// Effect: the backend gets this body with its length; the client's body isn't passed on.
    ///
    /// ```nginx
    /// proxy_set_body '{"client": "$remote_addr"}';
    /// ```
    "proxy_set_body" in EVERYWHERE, ONE, default none,
        scalar(set_body) proxy_set_body: Option<Late> = None;
    /// Sets the method of the request to the backend.
    ///
    /// Form: `proxy_method method`
    ///
    /// - `method`: a method, with or without variables.
    ///
    /// Effect: the backend gets this method in place of the client's.
    ///
    /// ```nginx
    /// proxy_method GET;
    /// ```
    "proxy_method" in EVERYWHERE, ONE, default none,
        scalar(template) proxy_method: Option<Rc<Template>> = None;
    /// Sets the version of HTTP in which requests are sent to backends.
    ///
    /// Form: `proxy_http_version version`
    ///
    /// - `version`: `1.0`, `1.1` or `2`.
    ///
    /// Effect: with 1.1 connections are kept for further requests (`keepalive`), bodies of unknown length are sent in
    /// chunks, and WebSocket is possible. With 1.0 a connection is opened for each request. With 2 requests are sent over
    /// HTTP/2: over TLS it is offered by ALPN, otherwise the server must expect it from the first byte. A connection
    /// serves one request at a time and is kept for further ones; the field `Host` becomes `:authority`. What comes of the
    /// request's body goes on to the server while its response comes. WebSocket isn't possible.
    ///
    /// ```nginx
    /// upstream backend {
    ///     server 127.0.0.1:8080;
    ///     keepalive 16;
    /// }
    /// server {
    ///     location / {
    ///         proxy_http_version 2;
    ///         proxy_pass http://backend;
    ///     }
    /// }
    /// ```
    "proxy_http_version" in EVERYWHERE, ONE, default "1.1",
        scalar(one_of(&[("1.0", Version::Http10), ("1.1", Version::Http11), ("2", Version::Http2)])) proxy_http_version: Version = Version::Http11;
    /// Refuses a response without a status line with 502 if it is `on`: HTTP/0.9, or no HTTP at all, as from old radio
    /// servers. `off`, as nginx does, sends such a response to the client as it comes, without a head, and closes the
    /// connection.
    ///
    /// Effect: with `on`, what isn't a response of HTTP doesn't reach clients.
    ///
    /// ```nginx
    /// proxy_require_status_line on;
    /// ```
    "proxy_require_status_line" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) proxy_require_status_line: bool = false;
    /// Accepted for compatibility: Tidegate's tables size themselves.
    "proxy_headers_hash_max_size" in EVERYWHERE, ONE, default "512",
        scalar(number) proxy_headers_hash_max_size: usize = 512;
    /// Accepted for compatibility: Tidegate's tables size themselves.
    "proxy_headers_hash_bucket_size" in EVERYWHERE, ONE, default "64",
        scalar(number) proxy_headers_hash_bucket_size: usize = 64;
}

/// `proxy_http_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 1.0: a connection for each request.
    Http10,
    /// 1.1
    Http11,
    /// 2: one stream at a time on a connection.
    Http2,
}

fn set_header(_: &mut Loader<'_>, d: &Directive) -> Result<(Vec<u8>, Late)> {
    Ok((d.arg(0).text.clone(), Late::text(d, d.arg(1), &unfolded(&d.arg(1).text))))
}

fn set_body(_: &mut Loader<'_>, d: &Directive) -> Result<Option<Late>> {
    Ok(Some(Late::of(d, d.arg(0))))
}

/// The templates for a location's requests to backends.
struct Compiled {
    fields: Vec<(Vec<u8>, Rc<Template>)>,
    body: Option<Rc<Template>>,
}

impl Compiled {
    /// Compiles them in every location, whether or not it has backends, as nginx does.
    fn of(conf: &ProxyConf, loader: &mut Loader<'_>) -> Result<Compiled> {
        let mut fields = Vec::with_capacity(conf.proxy_set_header.len());
        for (name, value) in conf.proxy_set_header.iter() {
            fields.push((name.clone(), value.compile::<HttpProto>(loader)?));
        }
        let body = conf.proxy_set_body.as_ref().map(|body| body.compile::<HttpProto>(loader)).transpose()?;
        Ok(Compiled { fields, body })
    }
}

/// The rule of `proxy_redirect default`; none for a target with variables.
fn default_redirect(pass: &Pass) -> Option<Rc<Rule>> {
    let PassTarget::Fixed { url, text, .. } = &pass.target else { return None };
    Some(Rc::new(match url.uri.is_empty() {
        true => Rule::fixed(&[text, &b"/"[..]].concat(), b"/"),
        false => Rule::fixed(text, &pass.prefix),
    }))
}

/// Reads `proxy_redirect`; no rule for `off`.
fn redirect(raw: &ProxyRaw, loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<Rule>>> {
    match redirect::parse(loader, d)? {
        Redirect::Off => Ok(None),
        Redirect::Rule(rule) => Ok(Some(rule)),
        Redirect::Default => {
            let Some(pass) = &raw.proxy_pass else {
                let message = "\"proxy_redirect default\" should be placed after the \"proxy_pass\" directive";
                return Err(Error::at(d.arg(0), message));
            };
            let message = "\"proxy_redirect default\" cannot be used with \"proxy_pass\" directive with variables";
            default_redirect(pass).map(Some).ok_or_else(|| Error::at(d.arg(0), message))
        }
    }
}

/// How backends of HTTP are reached.
const SCHEMES: &[Scheme] = &[
    Scheme { prefix: "http://", label: "http://", default_port: Some(80), ssl: false },
    Scheme { prefix: "https://", label: "https://", default_port: Some(443), ssl: true },
];

fn proxy_pass(loader: &mut Loader<'_>, d: &Directive) -> Result<Rc<Pass>> {
    Pass::parse(loader, d, SCHEMES, true)
}

impl ProxyConf {
    /// How fields of requests are written.
    fn form(&self) -> Form {
        if self.proxy_http_version == Version::Http2 { Form::Hpack } else { Form::Line }
    }
}

impl HttpModule for Proxy {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<ProxyConf>();
    }

    fn part(&self, loader: &mut Loader<'_>) -> Option<Box<dyn Any>> {
        Some(Box::new(std::mem::take(loader.store.entry::<Caches>())))
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.share::<ProxyConf>();
        let (up, connect) = (conf.up.clone(), conf.connect.clone());
        let compiled = Compiled::of(&conf, cx.loader)?;
        check_location(cx, &up, "proxy_")?;
        crate::store::check(cx, &up);
        let Some((pass, depth)) = Pass::of_location(cx, |conf: &ProxyConf| &conf.proxy_pass) else { return Ok(()) };
        let destination = pass.destination(cx.loader)?;
        let caching = cache::caching(cx, &conf.cache, up.stores(), "proxy_")?;
        let ssl = if destination.may_be_over_ssl() { Some(self::ssl(cx)?) } else { None };
        let redirects = match &conf.proxy_redirect {
            Some(rules) => rules.to_vec(),
            None => implied_redirect(cx).into_iter().collect(),
        };
        let protocol = HttpProtocol {
            fields: RequestFields::new(conf.form(), &compiled.fields, &destination, false),
            by_variable: matches!(destination, Destination::Variable { .. }),
            prefix: pass.prefix.clone(),
            up: up.clone(),
            body: compiled.body,
            conf,
            redirects,
        };
        let hidden = Hidden::new(&up, DEFAULT_HIDDEN);
        let backend =
            Backend { up, connect, protocol: Box::new(protocol), destination, hidden, place: cx.id.0, ssl, caching };
        backend.install(out, cx, depth);
        Ok(())
    }
}

/// TLS as the location's directives say; locations with the same ones share it, and the sessions with it.
fn ssl(cx: &mut LocationContext<'_, '_>) -> Result<Rc<UpstreamTls>> {
    let conf = cx.set.share::<ProxyConf>();
    let alpn: &[&[u8]] = if conf.proxy_http_version == Version::Http2 { &[b"h2"] } else { &[] };
    ssl::shared(cx, &conf.ssl, "proxy_", alpn)
}

const DEFAULT_HIDDEN: &[&str] = &[
    "Date",
    "Server",
    "X-Pad",
    "X-Accel-Expires",
    "X-Accel-Redirect",
    "X-Accel-Limit-Rate",
    "X-Accel-Buffering",
    "X-Accel-Charset",
];

/// The rule of a location for which no `proxy_redirect` is said: rules are inherited, this one too, so it is that of the
/// outermost `proxy_pass` around it.
fn implied_redirect(cx: &LocationContext<'_, '_>) -> Option<Rc<Rule>> {
    let mut outermost = None;
    let mut at = Some(cx.id);
    while let Some(id) = at {
        let pass = &cx.sets[id.0 as usize].get::<ProxyConf>().proxy_pass;
        outermost = pass.as_ref().and_then(|pass| default_redirect(pass)).or(outermost);
        at = cx.builder.locations[id.0 as usize].parent;
    }
    outermost
}

struct HttpProtocol {
    conf: Rc<ProxyConf>,
    up: Rc<UpstreamConf>,
    /// `proxy_pass` has variables.
    by_variable: bool,
    prefix: Box<[u8]>,
    redirects: Vec<Rc<Rule>>,
    fields: RequestFields,
    /// `proxy_set_body`
    body: Option<Rc<Template>>,
}

impl HttpProtocol {
    /// Writes the URI as the backend is asked for it; whether that is as the client sent it.
    fn write_uri(&self, r: &Request, target: &Target, out: &mut Buf) -> bool {
        let own = &target.uri[..];
        if self.by_variable && !own.is_empty() {
            if own.first() == Some(&b'?') {
                out.extend_from_slice(b"/");
            }
            out.extend_from_slice(own);
            return false;
        }
        if own.is_empty() && r.uri_source == UriSource::Client {
            if r.line.empty_path_in_uri && !r.line.target.is_empty() {
                out.extend_from_slice(b"/");
            }
            out.extend_from_slice(r.line.request_uri(&r.head));
            return true;
        }
        let mut rest = &r.uri[..];
        if r.uri_fit != UriFit::Changed && !own.is_empty() {
            out.extend_from_slice(own);
            rest = rest.get(self.prefix.len()..).unwrap_or_default();
        }
        if r.line.quoted_uri || r.internal || rest.contains(&b' ') {
            let mut escaped = Vec::with_capacity(rest.len());
            escape(Escape::Uri, rest, &mut escaped);
            out.extend_from_slice(&escaped);
        } else {
            out.extend_from_slice(rest);
        }
        if !r.args.is_empty() {
            out.extend_from_slice(b"?");
            out.extend_from_slice(&r.args);
        }
        false
    }
}

impl HttpProtocol {
    /// Writes the URI on its line of HTTP/1; gives back where it stands.
    fn write_line(&self, r: &Request, target: &Target, out: &mut Buf) -> Span {
        out.extend_from_slice(b" ");
        let start = out.len();
        // No parser of heads lets a line break through.
        let as_sent = self.write_uri(r, target, out);
        debug_assert!(!(as_sent && breaks(&out[start..])), "{}", out.escape_ascii());
        if !as_sent && breaks(&out[start..]) {
            let written = std::mem::replace(out, Buf::with_capacity(1024));
            out.extend_from_slice(&written[..start]);
            out.extend_from_slice(&safe(r, b"URI", &written[start..], TO_BACKEND));
        }
        Span::new(start, out.len())
    }
}

impl Protocol for HttpProtocol {
    fn sends_unknown_length(&self) -> bool {
        self.conf.proxy_http_version != Version::Http10
    }

    fn write_request(&self, r: &mut Request, exchange: &Exchange, out: &mut Buf) -> std::result::Result<Span, Fault> {
        let target = exchange.target.borrow();
        let target = target.as_deref().ok_or(Fault::NoTarget)?;
        let method = self.conf.proxy_method.as_ref().map(|method| {
            let method = r.render(method);
            exchange.to_head.set(method.eq_ignore_ascii_case(b"HEAD"));
            safe(r, b"proxy_method", &method, TO_BACKEND).into_owned()
        });
        if method.is_none() {
            exchange.to_head.set(r.method == Method::Head && !exchange.as_get.get());
        }
        let as_get = exchange.as_get.get().then_some(&b"GET"[..]);
        let method = method.as_deref().or(as_get);
        let uri_at = match self.conf.proxy_http_version {
            Version::Http2 => {
                let mut uri = Buf::with_capacity(256);
                self.write_uri(r, target, &mut uri);
                let uri = safe(r, b"URI", &uri, TO_BACKEND);
                http2::write_line(method.unwrap_or(r.method_name()), target.ssl, &uri, out)
            }
            version => {
                out.extend_from_slice(method.unwrap_or(r.method_name()));
                let uri_at = self.write_line(r, target, out);
                out.extend_from_slice(if version == Version::Http10 { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" });
                uri_at
            }
        };
        let body = self.body.as_ref().map(|body| r.render(body));
        if let Some(body) = &body {
            exchange.body_length.set(Some(body.len() as u64));
            exchange.chunked.set(false);
        }
        self.fields.write(r, exchange, self.up.pass_request_headers, out);
        if self.conf.proxy_http_version != Version::Http2 {
            out.extend_from_slice(b"\r\n");
        }
        if let Some(body) = &body {
            out.extend_from_slice(body);
        }
        Ok(uri_at)
    }

    fn has_own_body(&self) -> bool {
        self.body.is_some()
    }

    fn cache_key(&self, r: &mut Request, exchange: &Exchange) -> Vec<u8> {
        let target = exchange.target.borrow().clone();
        let Some(target) = target else { return Vec::new() };
        let mut key = Buf::with_capacity(256);
        key.extend_from_slice(target.scheme.as_bytes());
        key.extend_from_slice(&target.host);
        self.write_uri(r, &target, &mut key);
        key.to_vec()
    }

    fn codec(&self, exchange: &Exchange, kept: Option<Kept>) -> Box<dyn Codec> {
        if self.conf.proxy_http_version == Version::Http2 {
            let own_body = if self.has_own_body() { exchange.body_length.get().unwrap_or(0) } else { 0 };
            let rules = http2::Rules { max_head: self.up.buffer_size, trailers: self.up.pass_trailers, own_body };
            return Http2::begin(rules, exchange, kept);
        }
        let rules = http1::Rules {
            max_head: self.up.buffer_size,
            max_trailers: self.up.pass_trailers.then_some(self.up.buffer_size),
            require_status_line: self.conf.proxy_require_status_line,
        };
        Http1::begin(rules, exchange, kept)
    }

    fn knows(&self, kept: &dyn std::any::Any) -> bool {
        if self.conf.proxy_http_version == Version::Http2 { Http2::left(kept) } else { Http1::left(kept) }
    }

    fn rewrite(&self, r: &mut Request, known: KnownHeader, value: &[u8]) -> Option<Vec<u8>> {
        match known {
            KnownHeader::Location => self.redirects.iter().find_map(|rule| rule.apply(r, value, 0)),
            KnownHeader::Refresh => {
                let from = refresh_url(value)?;
                self.redirects.iter().find_map(|rule| rule.apply(r, value, from))
            }
            KnownHeader::SetCookie => {
                let conf = &self.conf;
                if conf.proxy_cookie_domain.is_empty()
                    && conf.proxy_cookie_path.is_empty()
                    && conf.proxy_cookie_flags.is_empty()
                {
                    return None;
                }
                let (domains, paths) = (&conf.proxy_cookie_domain, &conf.proxy_cookie_path);
                cookies::rewrite(r, value, domains, paths, &conf.proxy_cookie_flags)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes() {
        for (text, expect) in
            [("http://a/b", Some(("a/b", 80))), ("HTTPS://a", Some(("a", 443))), ("a", None), ("unix:/a", None)]
        {
            let found = Scheme::split(SCHEMES, text.as_bytes());
            let found = found.map(|(scheme, rest)| (rest, scheme.default_port));
            assert_eq!(found, expect.map(|(rest, port): (&str, u16)| (rest.as_bytes(), Some(port))), "{text}");
        }
    }
}
