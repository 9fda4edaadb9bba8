//! `charset`: names the charset of responses, and recodes them from another one.
//!
//! Tables are read from `charset_map`. Whether there is one for each pair of charsets that a location needs is checked when
//! the configuration is loaded, and at the request where variables name them.

use std::collections::HashMap;
use std::rc::Rc;

use buf::{Bytes, Chain, Piece};
use conf::values::{flag, invalid_value};
use conf::{Args, Context, Directive, Error, Loader, Registry, Result, Word};
use expr::vars::Template;
use http::body::{BodyFilter, Broken};
use http::config::core::{AND_IF, EVERYWHERE};
use http::config::mime::{TypeSet, add_types};
use http::module::{HttpModule, LocationContext};
use http::phases::{HeaderFilter, Order, Reply};
use http::request::Request;
use http::request::variables::named_variable;
use http::response::charset::named;
use http::response::{AskedCharset, PageCharset};
use http::server::location::Handlers;
use wire::charset::{Recode, Recoder, character};
use wire::h1::KnownHeader;

/// The module.
pub struct Charset;

conf::table! {
    /// Tables between charsets.
    pub struct CharsetMapConf, raw CharsetMapRaw, module "ngx_http_charset_filter_module", level HTTP Main;

    /// Defines how the bytes of a charset become those of another.
    ///
    /// Form: `charset_map charset1 charset2`
    ///
    /// - `charset1`, `charset2`: names of charsets; upper and lower case are the same. The second one may be `utf-8`.
    /// - `code1 code2`: a line of the block: a byte of the first charset and the byte of the second in hexadecimal digits;
    ///   if the second charset is `utf-8`, the bytes of a character.
    ///
    /// Effect: the table serves both ways. Bytes below 80 that it doesn't name stay as they are; others become `?`, or
    /// on the way from UTF-8 a reference such as `&#1102;`. A table without lines lets a charset be named in a variable of
    /// `charset`.
    ///
    /// ```nginx
    /// charset_map koi8-r utf-8 {
    ///     C0 D18E; # small yu
    ///     C1 D0B0; # small a
    /// }
    /// ```
    "charset_map" in Context::HTTP, Args::exactly(2).block(), default none,
        block(charset_map);
}

conf::table! {
    /// The charsets of responses.
    pub struct CharsetConf, raw CharsetRaw, module "ngx_http_charset_filter_module", level HTTP Location;

    /// Names the charset of responses in their field `Content-Type`.
    ///
    /// Form: `charset name | off`
    ///
    /// - `name`: the charset; it may contain variables. If their value is empty, none is named.
    /// - `off`: none is named.
    ///
    /// Effect: holds for the types in `charset_types`, but not for redirects with status 301 and 302. If
    /// `source_charset` is another charset, the response is recoded by a `charset_map`. A charset that a backend names is
    /// kept unless `override_charset` is on; the backend's field `X-Accel-Charset` takes the place of this directive. A
    /// part of a page (an include, an addition) is recoded from its own `source_charset`, or the charset that its backend
    /// names, to the charset of the page.
    ///
    /// Cost: recoding reads the whole body. To and from UTF-8 the response loses its `Content-Length` and its ranges.
    ///
    /// ```nginx
    /// charset utf-8;
    /// ```
    "charset" in AND_IF, Args::exactly(1), default "off",
        scalar(charset) charset: Option<Name> = None;
    /// Sets the charset of files and backends' responses, from which they are recoded to that of `charset`.
    ///
    /// Form: `source_charset name`
    ///
    /// - `name`: the charset; it may contain variables.
    ///
    /// Effect: where both are set and differ, there must be a `charset_map` for them.
    ///
    /// ```nginx
    /// charset_map windows-1251 utf-8 {
    ///     FE D18E; # small yu
    ///     E0 D0B0; # small a
    /// }
    /// server {
    ///     charset utf-8;
    ///     source_charset windows-1251;
    /// }
    /// ```
    "source_charset" in AND_IF, Args::exactly(1), default none,
        scalar(source_charset) source_charset: Option<Name> = None;
    /// Recodes responses of backends that name a charset, from that one to the one of `charset`.
    ///
    /// Effect: `off` leaves such responses as they are.
    ///
    /// ```nginx
    /// charset_map koi8-r windows-1251 {
    ///     C0 FE; # small yu
    /// }
    /// server {
    ///     charset windows-1251;
    ///     override_charset on;
    /// }
    /// ```
    "override_charset" in AND_IF, Args::FLAG, default "off",
        scalar(flag) override_charset: bool = false;
    /// Sets the media types of which the charset is named, besides `text/html`, which always is one.
    ///
    /// Form: `charset_types type ...`
    ///
    /// - `type`: a media type; its parameters aren't compared. `*` stands for all types.
    ///
    /// Effect: holds where `charset` is set, for the field `Content-Type` of the response. A directive takes the place of
    /// the default.
    ///
    /// ```nginx
    /// charset utf-8;
    /// charset_types text/plain text/css application/json;
    /// ```
    "charset_types" in EVERYWHERE, Args::at_least(1),
        default "text/html text/xml text/plain text/vnd.wap.wml application/javascript application/rss+xml",
        set(|raw: &mut CharsetRaw, loader: &mut Loader<'_>, d: &Directive| add_types(&mut raw.charset_types, loader, d))
        charset_types: Rc<TypeSet> = TypeSet::of(TYPES);
}

const TYPES: &[&str] =
    &["text/html", "text/xml", "text/plain", "text/vnd.wap.wml", "application/javascript", "application/rss+xml"];

/// A charset as a directive names it.
#[derive(Clone, PartialEq)]
pub struct Name(Rc<Template>);

/// The tables of the configuration, by source and destination in lower case.
#[derive(Default)]
struct Tables {
    recodes: HashMap<(Vec<u8>, Vec<u8>), Rc<Recode>>,
    /// The charsets that directives name, in lower case.
    names: Vec<Vec<u8>>,
}

impl Tables {
    fn know(&mut self, name: &[u8]) {
        let name = name.to_ascii_lowercase();
        if !self.names.contains(&name) {
            self.names.push(name);
        }
    }

    fn knows(&self, name: &[u8]) -> bool {
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    fn between(&self, source: &[u8], destination: &[u8]) -> Option<&Rc<Recode>> {
        self.recodes.get(&(source.to_ascii_lowercase(), destination.to_ascii_lowercase()))
    }
}

/// The tables while they are read, then those that the filters share.
#[derive(Default)]
struct Reading {
    tables: Tables,
    shared: Option<Rc<Tables>>,
}

fn charset(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Name>> {
    if *d.arg(0) == "off" { Ok(None) } else { source_charset(loader, d) }
}

fn source_charset(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Name>> {
    let word = d.arg(0);
    let template = match word.text.starts_with(b"$") {
        true => named_variable(loader, word)?,
        false => Rc::new(Template::constant(&word.text)),
    };
    if let Some(name) = template.is_const() {
        loader.store.entry::<Reading>().tables.know(name);
    }
    Ok(Some(Name(template)))
}

fn charset_map(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let (source, destination) = (d.arg(0), d.arg(1));
    let shown = |message: &str, first: &Word, second: &Word| {
        Error::on(d, format!("{message} \"{}\" and \"{}\"", first.lossy(), second.lossy()))
    };
    let names = [source, destination].map(|word| word.text.to_ascii_lowercase());
    if names[0] == names[1] {
        return Err(shown("\"charset_map\" between the same charsets", source, destination));
    }
    if names[0] == UTF8 {
        let message = "\"charset_map\" with \"utf-8\" charset should be given in the second column";
        return Err(Error::at(source, message));
    }
    let [there, back] = read_table(d, names[1] == UTF8)?.map(Rc::new);
    let tables = &mut loader.store.entry::<Reading>().tables;
    names.iter().for_each(|name| tables.know(name));
    let [source_name, destination_name] = names;
    if tables.recodes.contains_key(&(source_name.clone(), destination_name.clone())) {
        return Err(shown("duplicate \"charset_map\" between", source, destination));
    }
    tables.recodes.insert((source_name.clone(), destination_name.clone()), there);
    tables.recodes.insert((destination_name, source_name), back);
    Ok(())
}

const UTF8: &[u8] = b"utf-8";

/// The lines of a table.
fn read_table(d: &Directive, utf8: bool) -> Result<[Recode; 2]> {
    let (mut bytes, mut characters) = (Vec::new(), Vec::new());
    for line in d.entries() {
        let line = line?;
        let [to] = &line.args[..] else { return Err(Error::on(line, "invalid parameters number")) };
        let from = byte(&line.name).ok_or_else(|| invalid_value(&line.name))?;
        if utf8 {
            let found = buf::hex::decode(&to.text).and_then(|encoding| character(&encoding));
            characters.push((from, found.ok_or_else(|| invalid_value(to))?));
        } else {
            bytes.push((from, byte(to).ok_or_else(|| invalid_value(to))?));
        }
    }
    Ok(if utf8 { Recode::with_utf8(&characters) } else { Recode::between_bytes(&bytes) })
}

/// A byte in hexadecimal digits.
fn byte(word: &Word) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(&word.text).ok()?, 16).ok()
}

impl HttpModule for Charset {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<CharsetMapConf>();
        registry.add::<CharsetConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.share::<CharsetConf>();
        let reading = cx.loader.store.entry::<Reading>();
        let tables = reading.shared.get_or_insert_with(|| Rc::new(std::mem::take(&mut reading.tables))).clone();
        // A backend may ask for any charset that is known.
        if tables.names.is_empty() && conf.charset.is_none() {
            return Ok(());
        }
        let fixed = |name: &'_ Option<Name>| name.as_ref().and_then(|name| name.0.is_const().map(<[u8]>::to_vec));
        if let Some((source, destination)) = fixed(&conf.source_charset).zip(fixed(&conf.charset))
            && !source.eq_ignore_ascii_case(&destination)
            && tables.between(&source, &destination).is_none()
        {
            return Err(Error::new(no_map(&source, &destination)).or_at(cx.place("source_charset")));
        }
        out.filters.push(Rc::new(Filter { conf, tables }));
        Ok(())
    }
}

fn no_map(source: &[u8], destination: &[u8]) -> String {
    let [source, destination] = [source, destination].map(buf::text::encode);
    format!("no \"charset_map\" between the charsets \"{source}\" and \"{destination}\"")
}

struct Filter {
    conf: Rc<CharsetConf>,
    tables: Rc<Tables>,
}

impl HeaderFilter for Filter {
    fn order(&self) -> Order {
        Order::Charset
    }

    fn on_subrequests(&self) -> bool {
        true
    }

    fn apply(&self, r: &mut Request) -> std::result::Result<(), Reply> {
        let response = &r.response;
        let kind = response.content_type.clone().unwrap_or_default();
        let (kind, own) = match response.charset.clone() {
            Some(name) => (kind, Some(name)),
            None => named(kind),
        };
        let Some(destination) = self.destination(r, own.is_some()) else { return Ok(()) };
        let source = match own {
            Some(name) => Some(name),
            None => self.conf.source_charset.as_ref().map(|name| r.render_shared(&name.0)),
        };
        let recode = match &source {
            Some(source) if !source.eq_ignore_ascii_case(&destination) => {
                let Some(recode) = self.tables.between(source, &destination) else {
                    r.log_error(format_args!("{}", no_map(source, &destination)));
                    return Ok(());
                };
                Some(recode.clone())
            }
            _ => None,
        };
        let response = &mut r.response;
        if recode.is_some() && response.headers.find(KnownHeader::ContentEncoding).is_some() {
            return Ok(());
        }
        (response.content_type, response.charset) = (Some(kind), Some(destination));
        if let Some(recode) = recode {
            if !recode.keeps_length() {
                response.clear_length();
                response.allow_ranges = false;
                response.headers.remove(KnownHeader::AcceptRanges);
            }
            response.filters.push(Box::new(Recoding(Recoder::new(recode))));
        }
        Ok(())
    }
}

impl Filter {
    /// The charset that the response is to have, if this module has a say in it. That of a part of a page is the page's.
    fn destination(&self, r: &mut Request, has_own: bool) -> Option<Bytes> {
        if r.is_subrequest() {
            return r.find_slot::<PageCharset>()?.0.clone();
        }
        let asked = r.find_slot::<AskedCharset>().and_then(|asked| asked.0.clone());
        let content_type = r.response.content_type.as_deref().filter(|value| !value.is_empty())?;
        if let Some(asked) = asked {
            if self.tables.knows(&asked) {
                return Some(asked);
            }
            let shown = buf::text::encode(&asked);
            r.log_error(format_args!("unknown charset \"{shown}\" to override"));
            return None;
        }
        let name = self.conf.charset.as_ref()?;
        // A backend that names a charset sends a text, whatever its type.
        let concerned = match has_own {
            true => r.upstream.is_some() && self.conf.override_charset,
            false => self.conf.charset_types.has(content_type),
        };
        if !concerned || matches!(r.response.status, 301 | 302) {
            return None;
        }
        let destination = r.render_shared(&name.0);
        (!destination.is_empty()).then_some(destination)
    }
}

/// Recodes the body of one response.
struct Recoding(Recoder);

impl BodyFilter for Recoding {
    fn apply(&mut self, mut input: Chain, _: bool, _: bool, out: &mut Chain) -> std::result::Result<(), Broken> {
        while let Some(piece) = input.pop() {
            let Piece::Bytes(bytes) = piece else { return Err(Broken) };
            self.0.push(bytes, out);
        }
        Ok(())
    }
}
