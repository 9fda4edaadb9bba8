//! `sub_filter`: strings in responses are replaced by others.
//!
//! What differs from nginx: responses that are encoded (compressed) pass unchanged, since what they contain isn't text; and
//! a string at a response's very end is replaced even if a longer one begins with it.

use std::rc::Rc;

use buf::{Bytes, Chain, Piece};
use conf::values::flag;
use conf::{Args, Directive, Error, Loader, Registry, Result};
use expr::vars::Template;
use http::body::{BodyFilter, Broken};
use http::config::core::EVERYWHERE;
use http::config::mime::{TypeSet, add_types};
use http::module::{HttpModule, LocationContext};
use http::phases::{HeaderFilter, Order, Reply};
use http::request::Request;
use http::request::variables::template_of;
use http::server::location::Handlers;
use wire::h1::KnownHeader;
use wire::replace::{Needles, Replacer};

/// The module.
pub struct SubFilter;

conf::table! {
    /// What is replaced in responses.
    pub struct SubFilterConf, raw SubFilterRaw, module "ngx_http_sub_filter_module", level HTTP Location;

    /// Replaces a string in responses by another. It may be repeated.
    ///
    /// Form: `sub_filter string replacement`
    ///
    /// - `string`: what is looked for, whatever the case of ASCII letters. It may contain variables; where its value is
    ///   empty, it isn't looked for.
    /// - `replacement`: what takes its place. It may contain variables.
    ///
    /// Effect: holds for responses of the types in `sub_filter_types` that aren't compressed. Of strings that begin at
    /// the same place the first directive's counts. The response loses its `Content-Length`, its ranges, and, unless
    /// `sub_filter_last_modified` is on, `Last-Modified` and `ETag`. A level that sets any `sub_filter` doesn't inherit
    /// those of the level around it.
    ///
    /// Cost: the whole body is searched. Files are read instead of being sent by the kernel.
    ///
    /// Danger: a backend that compresses its responses escapes the replacement; `proxy_set_header Accept-Encoding ""`
    /// asks it not to.
    ///
    /// ```nginx
    /// location / {
    ///     proxy_pass http://127.0.0.1:8080;
    ///     proxy_set_header Accept-Encoding "";
    ///     sub_filter 'href="http://backend/' 'href="https://$host/';
    ///     sub_filter_once off;
    /// }
    /// ```
    "sub_filter" in EVERYWHERE, Args::exactly(2), default none,
        list(pair) sub_filter: Pair;
    /// Sets the media types in which strings are replaced besides `text/html`, which always is one.
    ///
    /// Form: `sub_filter_types type ...`
    ///
    /// - `type`: a media type; its parameters (`charset`) aren't compared. `*` stands for all types.
    ///
    /// Effect: holds where `sub_filter` is set, for the field `Content-Type` of the response.
    ///
    /// Danger: with `*` strings are replaced in images and archives too, if they happen to be there.
    ///
    /// ```nginx
    /// sub_filter_types text/css application/javascript;
    /// ```
    "sub_filter_types" in EVERYWHERE, Args::at_least(1), default "text/html",
        set(|raw: &mut SubFilterRaw, loader: &mut Loader<'_>, d: &Directive| add_types(&mut raw.sub_filter_types, loader, d))
        sub_filter_types: Rc<TypeSet> = TypeSet::html();
    /// Replaces each string once in a response, at its first place.
    ///
    /// Effect: `off` replaces it wherever it stands.
    ///
    /// ```nginx
    /// sub_filter '</head>' '<link rel="stylesheet" href="/site.css"></head>';
    /// sub_filter_once on;
    /// ```
    "sub_filter_once" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) sub_filter_once: bool = true;
    /// Keeps `Last-Modified` and `ETag` of responses in which strings are replaced.
    ///
    /// Effect: the tag becomes a weak one. It lets clients and caches ask whether the response has changed.
    ///
    /// Danger: a change of the configuration or of a variable changes the response, but not its time and its tag.
    ///
    /// ```nginx
    /// sub_filter '</head>' '<link rel="stylesheet" href="/site.css"></head>';
    /// sub_filter_last_modified on;
    /// ```
    "sub_filter_last_modified" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) sub_filter_last_modified: bool = false;
    derived {
        /// The strings, if none contains variables.
        needles: Option<Rc<Needles>> = None;
        /// The replacements, if none contains variables.
        replacements: Option<Rc<[Bytes]>> = None;
    }
    finish(finish)
}

/// A string and what takes its place.
#[derive(Clone)]
pub struct Pair {
    string: Rc<Template>,
    replacement: Rc<Template>,
}

fn pair(loader: &mut Loader<'_>, d: &Directive) -> Result<Pair> {
    if d.arg(0).text.is_empty() {
        return Err(Error::at(d.arg(0), "empty search pattern"));
    }
    let string = template_of(loader, d, &d.arg(0).text)?;
    Ok(Pair { string, replacement: template_of(loader, d, &d.arg(1).text)? })
}

fn finish(conf: &mut SubFilterConf, _: Option<&SubFilterConf>, _: &mut Loader<'_>) -> Result<()> {
    let strings: Option<Vec<&[u8]>> = conf.sub_filter.iter().map(|pair| pair.string.is_const()).collect();
    conf.needles = strings.map(|strings| Rc::new(Needles::new(strings)));
    let fixed = |pair: &Pair| pair.replacement.is_const().map(Bytes::copy_from);
    conf.replacements = conf.sub_filter.iter().map(fixed).collect();
    Ok(())
}

impl HttpModule for SubFilter {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<SubFilterConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.share::<SubFilterConf>();
        if !conf.sub_filter.is_empty() {
            out.filters.push(Rc::new(Filter(conf)));
        }
        Ok(())
    }
}

struct Filter(Rc<SubFilterConf>);

impl HeaderFilter for Filter {
    fn order(&self) -> Order {
        Order::Replace
    }

    fn on_subrequests(&self) -> bool {
        true
    }

    fn apply(&self, r: &mut Request) -> std::result::Result<(), Reply> {
        let (conf, response) = (&self.0, &r.response);
        let fits = response.content_length != Some(0)
            && conf.sub_filter_types.has(response.content_type.as_deref().unwrap_or_default())
            && response.headers.find(KnownHeader::ContentEncoding).is_none();
        if !fits {
            return Ok(());
        }
        let needles = conf.needles.clone().unwrap_or_else(|| {
            let strings: Vec<Vec<u8>> = conf.sub_filter.iter().map(|pair| r.render(&pair.string)).collect();
            Rc::new(Needles::new(strings.iter().map(|string| &string[..])))
        });
        if needles.is_empty() {
            return Ok(());
        }
        let replacements = conf
            .replacements
            .clone()
            .unwrap_or_else(|| conf.sub_filter.iter().map(|pair| Bytes::from(r.render(&pair.replacement))).collect());
        let response = &mut r.response;
        response.clear_length();
        if !conf.sub_filter_last_modified {
            response.clear_validators();
        }
        response.weaken();
        response.filters.push(Box::new(Replace(Replacer::new(needles, replacements, conf.sub_filter_once))));
        Ok(())
    }
}

/// Replaces strings in the body of one response.
struct Replace(Replacer);

impl BodyFilter for Replace {
    fn apply(&mut self, mut input: Chain, end: bool, _: bool, out: &mut Chain) -> std::result::Result<(), Broken> {
        while let Some(piece) = input.pop() {
            let Piece::Bytes(bytes) = piece else { return Err(Broken) };
            self.0.push(bytes, false, out);
        }
        if end {
            self.0.push(Bytes::default(), true, out);
        }
        Ok(())
    }
}
