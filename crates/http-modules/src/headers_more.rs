//! `more_set_headers` and its kin: fields of responses and requests that are set or removed, as the module headers-more for
//! nginx has it.
//!
//! Fields of responses change before `add_header` adds others, those of requests after the rewrite rules. Differs from
//! headers-more: what frames a message (`Content-Length`, `Transfer-Encoding`, `Connection`) can't be set.

use std::rc::Rc;

use buf::Bytes;
use conf::{Args, Directive, Error, Loader, Registry, Result, Word};
use expr::vars::Template;
use http::config::core::AND_IF;
use http::module::{HttpModule, LocationContext};
use http::phases::{Flow, HeaderFilter, Order, PromptHandler, Reply};
use http::request::Request;
use http::request::variables::template_of;
use http::response::Response;
use http::server::location::Handlers;
use wire::h1::KnownHeader;
use wire::uri::validate_host;

/// The module.
pub struct HeadersMore;

conf::table! {
    /// What is set and removed.
    pub struct HeadersMoreConf, raw HeadersMoreRaw, module "headers-more-nginx-module", level HTTP Location;

    /// Sets fields of responses, in place of those of the same names.
    ///
    /// Form: `more_set_headers [-s statuses] [-t types] [-a] field …`
    ///
    /// - `field`: a name and a value, such as `"X-Frame-Options: DENY"`; the value may contain variables. Without a value,
    ///   or if that is empty, the field is removed; `*` at the end of such a name stands for any end.
    /// - `-s statuses`: the statuses for which this holds, such as `"404 500"`; without it that is any.
    /// - `-t types`: the types of responses for which this holds, such as `"text/html text/plain"`; without it that is any.
    /// - `-a`: fields of the same name stay.
    ///
    /// Effect: holds for every status, and reaches `Server`, `Date` and `Content-Type` too. It acts before `add_header`.
    /// The directive may be repeated; what outer levels have comes first.
    ///
    /// Danger: the length of the body and fields about the connection belong to the server: setting them is an error.
    ///
    /// ```nginx
    /// more_set_headers "Server: shop" "X-Frame-Options: DENY";
    /// more_set_headers -s "404 500" "Cache-Control: no-store";
    /// ```
    "more_set_headers" in AND_IF, Args::at_least(1), default none,
        list(set) output: Change;
    /// Removes fields of responses.
    ///
    /// Form: `more_clear_headers [-s statuses] [-t types] name …`
    ///
    /// - `name`: the name of a field; `*` at its end stands for any end.
    /// - `-s statuses`, `-t types`: as with `more_set_headers`.
    ///
    /// Effect: acts before `add_header`, in one order with `more_set_headers`.
    ///
    /// ```nginx
    /// more_clear_headers Server "X-Hidden-*";
    /// ```
    "more_clear_headers" in AND_IF, Args::at_least(1), default none,
        also(|raw: &mut HeadersMoreRaw, loader: &mut Loader<'_>, d: &Directive| add(&mut raw.output, clear(loader, d)));
    /// Sets fields of requests, in place of those of the same names.
    ///
    /// Form: `more_set_input_headers [-r] [-t types] field …`
    ///
    /// - `field`: a name and a value, such as `"Host: shop.example.com"`; the value may contain variables. Without a value,
    ///   or if that is empty, the field is removed; `*` at the end of such a name stands for any end.
    /// - `-r`: only fields that the request has are replaced.
    /// - `-t types`: the types of request bodies for which this holds; without it that is any.
    ///
    /// Effect: acts after the rewrite rules of the location: variables and backends see the new fields, and `$host` follows
    /// `Host`; the server stays the same. The directive may be repeated; what outer levels have comes first.
    ///
    /// Cost: the request's head is copied.
    ///
    /// ```nginx
    /// more_set_input_headers "X-Forwarded-Proto: $scheme";
    /// ```
    "more_set_input_headers" in AND_IF, Args::at_least(1), default none,
        list(set) input: Change;
    /// Removes fields of requests.
    ///
    /// Form: `more_clear_input_headers [-t types] name …`
    ///
    /// - `name`: the name of a field; `*` at its end stands for any end.
    /// - `-t types`: the types of request bodies for which this holds; without it that is any.
    ///
    /// Effect: acts after the rewrite rules of the location, in one order with `more_set_input_headers`.
    ///
    /// ```nginx
    /// more_clear_input_headers Accept-Encoding "X-Internal-*";
    /// ```
    "more_clear_input_headers" in AND_IF, Args::at_least(1), default none,
        also(|raw: &mut HeadersMoreRaw, loader: &mut Loader<'_>, d: &Directive| add(&mut raw.input, clear(loader, d)));
    derived {
        /// The changes of outer levels and of this one to responses.
        all_output: Rc<[Change]> = Rc::from([]);
        /// The same for requests.
        all_input: Rc<[Change]> = Rc::from([]);
    }
    finish(finish)
}

fn add(list: &mut Option<Vec<Change>>, change: Result<Change>) -> Result<()> {
    list.get_or_insert_default().push(change?);
    Ok(())
}

fn finish(conf: &mut HeadersMoreConf, parent: Option<&HeadersMoreConf>, _: &mut Loader<'_>) -> Result<()> {
    conf.all_output = joined(&conf.output, parent.map(|parent| [&parent.output, &parent.all_output]));
    conf.all_input = joined(&conf.input, parent.map(|parent| [&parent.input, &parent.all_input]));
    Ok(())
}

/// The changes of a level after those of the outer one, which come as its own and as all that hold there.
fn joined(own: &Rc<[Change]>, outer: Option<[&Rc<[Change]>; 2]>) -> Rc<[Change]> {
    match outer {
        Some([inherited, all]) if Rc::ptr_eq(inherited, own) => all.clone(),
        Some([_, all]) => all.iter().chain(&**own).cloned().collect(),
        None => own.clone(),
    }
}

/// What one directive changes.
#[derive(Clone)]
pub struct Change {
    statuses: Vec<u16>,
    types: Vec<Box<[u8]>>,
    /// Fields of the same name stay.
    appends: bool,
    /// Only fields that are there are replaced.
    replaces: bool,
    fields: Vec<Field>,
}

#[derive(Clone)]
struct Field {
    name: Bytes,
    known: KnownHeader,
    /// Whether the name is only the beginning of those that are meant.
    is_prefix: bool,
    /// None to remove it.
    value: Option<Rc<Template>>,
}

fn set(loader: &mut Loader<'_>, d: &Directive) -> Result<Change> {
    let output = d.name == "more_set_headers";
    let options: &[u8] = if output { b"sta" } else { b"tr" };
    parse(d, options, |word| {
        let (name, value) = match word.text.iter().position(|byte| *byte == b':') {
            Some(at) => (&word.text[..at], word.text[at + 1..].trim_ascii()),
            None => (&word.text[..], &b""[..]),
        };
        let field = field(word, name, value.is_empty())?;
        if value.is_empty() {
            return Ok(field);
        }
        if is_framing(field.known) {
            let message = format!("\"{}\" can't be set: it is the server's", name.escape_ascii());
            return Err(Error::at(word, message));
        }
        Ok(Field { value: Some(template_of(loader, d, value)?), ..field })
    })
}

fn clear(_: &mut Loader<'_>, d: &Directive) -> Result<Change> {
    let options: &[u8] = if d.name == "more_clear_headers" { b"st" } else { b"t" };
    parse(d, options, |word| field(word, word.text.strip_suffix(b":").unwrap_or(&word.text), true))
}

/// A field that is removed unless it gets a value.
fn field(word: &Word, name: &[u8], may_be_prefix: bool) -> Result<Field> {
    let name = name.trim_ascii();
    let start = name.strip_suffix(b"*").filter(|_| may_be_prefix);
    let (name, is_prefix) = (start.unwrap_or(name), start.is_some());
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(byte);
    if name.is_empty() && !is_prefix || !name.iter().all(is_token) {
        return Err(Error::at(word, format!("invalid header name in \"{}\"", word.lossy())));
    }
    let known = if is_prefix { KnownHeader::Other } else { KnownHeader::of(name) };
    Ok(Field { name: Bytes::copy_from(name), known, is_prefix, value: None })
}

/// Options, then fields. `options`: the letters of those that the directive has.
fn parse(d: &Directive, options: &[u8], mut read: impl FnMut(&Word) -> Result<Field>) -> Result<Change> {
    let mut change =
        Change { statuses: Vec::new(), types: Vec::new(), appends: false, replaces: false, fields: Vec::new() };
    let mut words = d.args.iter();
    while let Some(word) = words.next() {
        let option = match &word.text[..] {
            [b'-', letter] if options.contains(letter) => *letter,
            [b'-', ..] => return Err(Error::at(word, format!("invalid option name: \"{}\"", word.lossy()))),
            _ => {
                change.fields.push(read(word)?);
                continue;
            }
        };
        match option {
            b'a' => change.appends = true,
            b'r' => change.replaces = true,
            letter => {
                let missing = || Error::at(word, format!("\"{}\" needs a value", word.lossy()));
                let value = words.next().ok_or_else(missing)?;
                let items = value.text.split(u8::is_ascii_whitespace).filter(|item| !item.is_empty());
                for item in items {
                    match letter {
                        b's' => change.statuses.push(status(value, item)?),
                        _ => change.types.push(item.to_ascii_lowercase().into()),
                    }
                }
            }
        }
    }
    if change.fields.is_empty() {
        return Err(Error::on(d, format!("\"{}\" names no field", d.name.lossy())));
    }
    Ok(change)
}

fn status(word: &Word, text: &[u8]) -> Result<u16> {
    let status = buf::parse::parse_number(text).filter(|status| (100..=999).contains(status));
    let invalid = || Error::at(word, format!("invalid status \"{}\"", text.escape_ascii()));
    status.map(|status| status as u16).ok_or_else(invalid)
}

/// Fields that say where a message ends, or what becomes of its connection.
fn is_framing(known: KnownHeader) -> bool {
    use KnownHeader::{Connection, ContentLength, KeepAlive, TransferEncoding, Upgrade};
    matches!(known, Connection | ContentLength | KeepAlive | TransferEncoding | Upgrade)
}

impl HttpModule for HeadersMore {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<HeadersMoreConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.get::<HeadersMoreConf>();
        if !conf.all_output.is_empty() {
            out.filters.push(Rc::new(Output(conf.all_output.clone())));
        }
        if !conf.all_input.is_empty() {
            out.preaccess.push(Rc::new(Input(conf.all_input.clone())));
        }
        Ok(())
    }
}

impl Change {
    /// Whether it is about a message of this type.
    fn is_about(&self, content_type: Option<&[u8]>) -> bool {
        let bare = content_type.unwrap_or_default().split(|byte| *byte == b';').next().unwrap_or_default();
        self.types.is_empty() || self.types.iter().any(|own| bare.trim_ascii().eq_ignore_ascii_case(own))
    }
}

impl Field {
    fn is(&self, name: &[u8]) -> bool {
        match self.is_prefix {
            true => name.get(..self.name.len()).is_some_and(|start| start.eq_ignore_ascii_case(&self.name)),
            false => name.eq_ignore_ascii_case(&self.name),
        }
    }

    /// The value for a request; none if the field is to be removed.
    fn value(&self, r: &mut Request) -> Option<Bytes> {
        let value = r.render(self.value.as_deref()?);
        (!value.is_empty()).then(|| Bytes::from(value))
    }
}

/// Changes responses.
struct Output(Rc<[Change]>);

impl HeaderFilter for Output {
    fn order(&self) -> Order {
        Order::Replaced
    }

    fn apply(&self, r: &mut Request) -> std::result::Result<(), Reply> {
        for change in &*self.0 {
            let of_status = change.statuses.is_empty() || change.statuses.contains(&r.response.status);
            if of_status && change.is_about(r.response.content_type.as_deref()) {
                for field in &change.fields {
                    let value = field.value(r);
                    change_response(&mut r.response, field, value, change.appends);
                }
            }
        }
        Ok(())
    }
}

fn change_response(response: &mut Response, field: &Field, value: Option<Bytes>, appends: bool) {
    match field.known {
        KnownHeader::ContentType => {
            (response.content_type, response.charset) = (value, None);
            return;
        }
        KnownHeader::ContentLength => {
            response.clear_length();
            return;
        }
        known if is_framing(known) => return,
        // Without these the server sends its own.
        KnownHeader::Server => response.own_server = true,
        KnownHeader::Date => response.own_date = true,
        KnownHeader::LastModified => response.last_modified = None,
        KnownHeader::AcceptRanges if value.is_none() => response.allow_ranges = false,
        _ => {}
    }
    let is_single = matches!(field.known, KnownHeader::Server | KnownHeader::Date | KnownHeader::LastModified);
    if !appends || is_single {
        response.headers.retain(|header| !field.is(&header.name));
    }
    match (field.known, value) {
        (_, None) => {}
        (known @ (KnownHeader::ETag | KnownHeader::Location), Some(value)) => {
            response.headers.set_fixed(known, value);
        }
        (known, Some(value)) => response.headers.push_known(known, field.name.clone(), value),
    }
}

/// Changes requests.
struct Input(Rc<[Change]>);

impl PromptHandler for Input {
    fn answer(&self, r: &mut Request) -> Flow<'static> {
        for change in &*self.0 {
            if !change.is_about(r.header(KnownHeader::ContentType)) {
                continue;
            }
            for field in &change.fields {
                let value = field.value(r);
                let has = r.line.headers.iter().any(|line| field.is(line.name.of(&r.head)));
                if has || value.is_some() && !change.replaces {
                    change_request(r, field, value);
                }
            }
        }
        Flow::Next
    }
}

fn change_request(r: &mut Request, field: &Field, value: Option<Bytes>) {
    if is_framing(field.known) {
        return;
    }
    let head = r.head.clone();
    r.line.remove_headers(|line| field.is(line.name.of(&head)));
    if let Some(value) = &value {
        r.add_header(field.known, &field.name, value);
    }
    if field.known == KnownHeader::Host {
        // What isn't a host counts as none, as where a client names none.
        let parts = validate_host(value.as_deref().unwrap_or_default());
        r.host = parts.map(|parts| parts.host.into_owned()).unwrap_or_default();
    }
}
