//! `valid_referers`: whether a request comes from a page of a site that is known.
//!
//! The sites of a location are compiled into one table of names once its server's names are known, and shared by the
//! locations that inherit them.

use std::any::Any;
use std::borrow::Cow;
use std::rc::Rc;

use conf::values::number;
use conf::{Args, Context, Directive, Error, Loader, Registry, Result, Word};
use expr::lookup::{Names, NamesError};
use expr::vars::Flags;
use http::module::{HttpModule, LocationContext};
use http::request::Request;
use http::request::variables::{Getter, HttpRegex, Setup, put, regex};
use http::server::location::Handlers;
use wire::h1::KnownHeader;
use wire::uri::split_url;

/// The module.
pub struct Referer;

const PLACES: Context = Context::SERVER.or(Context::LOCATION);

conf::table! {
    /// Which sites may link here.
    pub struct RefererConf, raw RefererRaw, module "ngx_http_referer_module", level HTTP Location;

    /// Sets which values of the field `Referer` are valid: for them `$invalid_referer` is empty.
    ///
    /// Form: `valid_referers none | blocked | server_names | name[/path] | ~regex …`
    ///
    /// - `none`: requests without the field.
    /// - `blocked`: values that don't begin with `http://` or `https://`, as some proxies leave them.
    /// - `server_names`: the names of the server.
    /// - `name[/path]`: a host name, which may have a wildcard at one end (`*.example.com`, `example.*`), and what the
    ///   path has to begin with.
    /// - `~regex`: is matched with what follows the scheme, whatever its case.
    ///
    /// Effect: none, unless `$invalid_referer` is used. Ports in the field don't count. The directive may be repeated;
    /// a level that has any doesn't inherit those of the level around it.
    ///
    /// Danger: every client can send any value: this keeps other sites from embedding pictures, not from copying them.
    ///
    /// ```nginx
    /// location /images/ {
    ///     valid_referers none blocked server_names *.example.com;
    ///     if ($invalid_referer) {
    ///         return 403;
    ///     }
    /// }
    /// ```
    "valid_referers" in PLACES, Args::at_least(1), default none,
        list(parse) valid_referers: Sites;
    /// Accepted for compatibility: Tidegate's tables size themselves.
    "referer_hash_max_size" in PLACES, Args::exactly(1), default "2048",
        scalar(number) referer_hash_max_size: usize = 2048;
    /// Accepted for compatibility: Tidegate's tables size themselves.
    "referer_hash_bucket_size" in PLACES, Args::exactly(1), default "64",
        scalar(number) referer_hash_bucket_size: usize = 64;
}

/// What one directive names.
#[derive(Clone, Debug)]
pub struct Sites(Vec<Site>);

#[derive(Clone, Debug)]
enum Site {
    None,
    Blocked,
    ServerNames,
    Regex(HttpRegex),
    /// A name, and what the path begins with.
    Name(Word, Box<[u8]>),
}

fn parse(loader: &mut Loader<'_>, d: &Directive) -> Result<Sites> {
    let sites: Result<Vec<Site>> = d.args.iter().map(|word| site(loader, word)).collect();
    Ok(Sites(sites?))
}

fn site(loader: &mut Loader<'_>, word: &Word) -> Result<Site> {
    Ok(match &word.text[..] {
        b"none" => Site::None,
        b"blocked" => Site::Blocked,
        b"server_names" => Site::ServerNames,
        b"" => return Err(Error::at(word, "invalid referer \"\"")),
        b"~" => return Err(Error::at(word, "empty regex in \"~\"")),
        [b'~', pattern @ ..] => Site::Regex(regex(loader, word, pattern, true)?),
        text => {
            let (name, path) = text.split_at(text.iter().position(|byte| *byte == b'/').unwrap_or(text.len()));
            Site::Name(Word { text: name.into(), ..word.clone() }, path.into())
        }
    })
}

impl HttpModule for Referer {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<RefererConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        http::variables! { setup, "ngx_http_referer_module";
            /// `1` if the field `Referer` has none of the values that `valid_referers` allows. Empty if it has one, or
            /// if there is no such directive.
            "invalid_referer", Flags::CHANGEABLE, Getter::Plain(invalid_referer);
        }
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, _: &mut Handlers) -> Result<()> {
        let list = &cx.set.get::<RefererConf>().valid_referers;
        let server = cx.builder.locations[cx.id.0 as usize].server;
        let known = cx.loader.store.entry::<Tables>();
        let same = known.compiled.iter().find(|(of, at, _)| *at == server && Rc::ptr_eq(of, list));
        let table = match same {
            _ if list.is_empty() => None,
            Some((_, _, table)) => Some(table.clone()),
            None => {
                let table = Rc::new(Table::new(list, &cx.block.servers[server].names)?);
                let known = cx.loader.store.entry::<Tables>();
                known.compiled.push((list.clone(), server, table.clone()));
                Some(table)
            }
        };
        cx.loader.store.entry::<Tables>().by_location.push(table);
        Ok(())
    }

    fn part(&self, loader: &mut Loader<'_>) -> Option<Box<dyn Any>> {
        let by_location = loader.store.take::<Tables>()?.by_location;
        by_location.iter().any(Option::is_some).then(|| Box::new(Referers(by_location)) as Box<dyn Any>)
    }
}

/// The tables that were compiled so far.
#[derive(Default)]
struct Tables {
    /// With the list and the server that each was made of.
    compiled: Vec<(Rc<[Sites]>, usize, Rc<Table>)>,
    by_location: Vec<Option<Rc<Table>>>,
}

/// The tables by location.
struct Referers(Vec<Option<Rc<Table>>>);

fn invalid_referer(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let table = r.http.part::<Referers>().and_then(|all| all.0.get(r.location.id.0 as usize)?.clone());
    let Some(table) = table else { return true };
    let referer = r.header(KnownHeader::Referer).map(<[u8]>::to_vec);
    table.is_valid(r, referer.as_deref()) || put(out, b"1")
}

/// What is valid in a location.
struct Table {
    none: bool,
    blocked: bool,
    /// Names, each with what the path has to begin with.
    names: Names<Box<[u8]>>,
    /// Of the server's names; they are matched with the host.
    server_regexes: Vec<Rc<HttpRegex>>,
    regexes: Vec<HttpRegex>,
}

impl Table {
    fn new(list: &[Sites], server_names: &[common::front::ServerName]) -> Result<Table> {
        let mut table =
            Table { none: false, blocked: false, names: Names::new(), server_regexes: Vec::new(), regexes: Vec::new() };
        let sites = || list.iter().flat_map(|sites| &sites.0);
        for site in sites() {
            match site {
                Site::None => table.none = true,
                Site::Blocked => table.blocked = true,
                Site::ServerNames => {}
                Site::Regex(regex) => table.regexes.push(regex.clone()),
                Site::Name(name, path) => {
                    table.add(&name.text, path).map_err(|error| Error::at(name, error.to_string()))?
                }
            }
        }
        let with_server = sites().any(|site| matches!(site, Site::ServerNames));
        for name in server_names.iter().filter(|_| with_server) {
            match &name.regex {
                Some(regex) => table.server_regexes.push(regex.clone()),
                // A name that stands in the list too has the path that the list wants.
                None => _ = table.add(&name.text, b""),
            }
        }
        if table.names.is_empty() && table.regexes.is_empty() && !with_server {
            let message = "the \"none\" or \"blocked\" referers are specified in the \"valid_referers\" directive \
                           without any valid referer";
            return Err(Error::new(message));
        }
        table.names.shrink();
        Ok(table)
    }

    fn add(&mut self, name: &[u8], path: &[u8]) -> std::result::Result<(), NamesError> {
        self.names.add(name, path.into())
    }

    fn is_valid(&self, r: &mut Request, referer: Option<&[u8]>) -> bool {
        let Some(referer) = referer else { return self.none };
        let Some(rest) = without_scheme(referer) else { return self.blocked };
        let (host, rest_of_host) = rest.split_at(rest.iter().position(|b| b"/:".contains(b)).unwrap_or(rest.len()));
        if host.len() > LONGEST_HOST {
            return false;
        }
        let path = rest_of_host.iter().position(|byte| *byte == b'/').map_or(&b""[..], |at| &rest_of_host[at..]);
        let lower: Cow<'_, [u8]> = match host.iter().any(u8::is_ascii_uppercase) {
            true => host.to_ascii_lowercase().into(),
            false => host.into(),
        };
        if self.names.lookup(&lower).is_some_and(|start| path.starts_with(start)) {
            return true;
        }
        self.server_regexes.iter().any(|regex| regex.exec(r, &lower) == Ok(true))
            || self.regexes.iter().any(|regex| regex.exec(r, rest) == Ok(true))
    }
}

/// What follows `http://` or `https://`; `None` for what is no URL, or too short for one.
fn without_scheme(referer: &[u8]) -> Option<&[u8]> {
    if referer.len() < SHORTEST {
        return None;
    }
    split_url(referer).map(|url| url.after_scheme)
}

/// `http://i.ru`: what is shorter was cut by somebody.
const SHORTEST: usize = 11;
/// Names of hosts aren't longer.
const LONGEST_HOST: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes() {
        for (referer, expect) in [
            ("http://a.test", Some("a.test")),
            ("HTTPS://a.test/x", Some("a.test/x")),
            ("http://i.ru", Some("i.ru")),
            ("http://su", None),
            ("ftp://example.org", None),
            ("www.example.org", None),
            ("", None),
        ] {
            assert_eq!(without_scheme(referer.as_bytes()), expect.map(str::as_bytes), "{referer}");
        }
    }
}
