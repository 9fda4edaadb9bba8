//! `userid`: cookies by which clients are known again.
//!
//! An identifier is 16 bytes: the number of the service, the time, a number of the worker's, a counter. Cookies are
//! nginx's, so that those of either program are known to the other.

use std::any::Any;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use buf::Bytes;
use conf::values::{bitmask, bytes, invalid, number, one_of};
use conf::{Args, Directive, Error, Loader, Registry, Result};
use engine::log::Level;
use expr::vars::{Flags, Template};
use http::config::core::EVERYWHERE;
use http::module::{HttpModule, LocationContext};
use http::phases::{HeaderFilter, Order, Reply};
use http::request::Request;
use http::request::variables::{Getter, Setup, cookie, show, template_at};
use http::server::Http;
use http::server::location::Handlers;
use smallvec::SmallVec;
use wire::base64::LENIENT;
use wire::date::format_cookie_time;
use wire::h1::KnownHeader;

/// The module.
pub struct Userid;

conf::table! {
    /// The cookie of a level.
    pub struct UseridConf, raw UseridRaw, module "ngx_http_userid_filter_module", level HTTP Location;

    /// Marks clients with a cookie, so that they are known again.
    ///
    /// Form: `userid on | v1 | log | off`
    ///
    /// - `on`: clients without the cookie get one; `$uid_got` and `$uid_set` tell of it.
    /// - `v1`: the same, with identifiers of the older form, in the byte order of the machine.
    /// - `log`: nobody gets a cookie, but `$uid_got` tells of those that come.
    /// - `off`: nothing is done.
    ///
    /// Effect: the cookie goes out with every response, errors included, to a client that has sent none. It is the same
    /// as nginx's.
    ///
    /// Danger: who follows people needs their consent in many countries.
    ///
    /// ```nginx
    /// userid on;
    /// userid_name id;
    /// userid_expires 365d;
    /// userid_flags secure httponly samesite=lax;
    /// ```
    "userid" in EVERYWHERE, Args::exactly(1), default "off",
        scalar(one_of(MODES)) userid: Mode = Mode::Off;
    /// Sets the number that identifiers of this service begin with, if several services share the cookie.
    ///
    /// Form: `userid_service number`
    ///
    /// - `number`: a number of 32 bits.
    ///
    /// Effect: without it identifiers begin with the last four bytes of the server's address, those of `v1` with 0.
    ///
    /// ```nginx
    /// userid on;
    /// userid_service 7;
    /// ```
    "userid_service" in EVERYWHERE, Args::exactly(1), default computed("the address of the server"),
        scalar(service) userid_service: Option<u32> = None;
    /// Sets the name of the cookie.
    ///
    /// Form: `userid_name name`
    ///
    /// - `name`: the name.
    ///
    /// Effect: cookies of another name are unknown.
    ///
    /// ```nginx
    /// userid on;
    /// userid_name id;
    /// ```
    "userid_name" in EVERYWHERE, Args::exactly(1), default "uid",
        scalar(bytes) userid_name: Vec<u8> = b"uid".to_vec();
    /// Sets the domain of the cookie.
    ///
    /// Form: `userid_domain name | none`
    ///
    /// - `name`: the domain.
    /// - `none`: the cookie has none: it is for the host that has set it.
    ///
    /// Effect: browsers send the cookie to all hosts of the domain.
    ///
    /// ```nginx
    /// userid on;
    /// userid_domain example.com;
    /// ```
    "userid_domain" in EVERYWHERE, Args::exactly(1), default "none",
        scalar(unless_none) userid_domain: Vec<u8> = Vec::new();
    /// Sets the path of the cookie.
    ///
    /// Form: `userid_path path`
    ///
    /// - `path`: the path.
    ///
    /// Effect: browsers send the cookie with requests below the path.
    ///
    /// ```nginx
    /// userid on;
    /// userid_path /shop/;
    /// ```
    "userid_path" in EVERYWHERE, Args::exactly(1), default "/",
        scalar(bytes) userid_path: Vec<u8> = b"/".to_vec();
    /// Sets how long browsers keep the cookie.
    ///
    /// Form: `userid_expires time | max | off`
    ///
    /// - `time`: how long.
    /// - `max`: until the end of 2037.
    /// - `off`: until the browser is closed.
    ///
    /// Effect: holds for cookies that are set; one that a client has is set again only by `userid_mark`.
    ///
    /// ```nginx
    /// userid on;
    /// userid_expires 365d;
    /// ```
    "userid_expires" in EVERYWHERE, Args::exactly(1), default "off",
        scalar(expires) userid_expires: Expires = Expires::Off;
    /// Sets attributes of the cookie.
    ///
    /// Form: `userid_flags off | flag …`
    ///
    /// - `flag`: `secure`, `httponly`, `samesite=strict`, `samesite=lax` or `samesite=none`.
    /// - `off`: none.
    ///
    /// Effect: with `secure` browsers send it over TLS only, with `httponly` scripts don't see it, `samesite` says
    /// whether it is sent from pages of other sites.
    ///
    /// ```nginx
    /// userid on;
    /// userid_flags secure httponly samesite=lax;
    /// ```
    "userid_flags" in EVERYWHERE, Args::between(1, 3), default computed("off"),
        set(|raw: &mut UseridRaw, loader: &mut Loader<'_>, d: &Directive| bitmask(&mut raw.userid_flags, FLAGS, loader, d))
        userid_flags: u32 = 0;
    /// Sets the field `P3P`, which goes out with the cookie.
    ///
    /// Form: `userid_p3p text | none`
    ///
    /// - `text`: the value of the field.
    /// - `none`: the field isn't sent.
    ///
    /// Effect: browsers of today ignore it.
    ///
    /// ```nginx
    /// userid on;
    /// userid_p3p 'CP="CUR ADM OUR NOR STA NID"';
    /// ```
    "userid_p3p" in EVERYWHERE, Args::exactly(1), default "none",
        scalar(unless_none) userid_p3p: Vec<u8> = Vec::new();
    /// Marks cookies, so that those without the mark are set again.
    ///
    /// Form: `userid_mark letter | digit | = | off`
    ///
    /// - `letter`, `digit`, `=`: the mark, which takes the place of the first character of padding.
    /// - `off`: cookies have no mark, and none is looked for.
    ///
    /// Effect: a client whose cookie has another mark gets it again, with the same identifier and the attributes of now:
    /// so a longer life or a `P3P` reaches clients that are known already.
    ///
    /// ```nginx
    /// userid on;
    /// userid_expires 365d;
    /// userid_mark a;
    /// ```
    "userid_mark" in EVERYWHERE, Args::exactly(1), default "off",
        scalar(mark) userid_mark: Option<u8> = None;
}

/// Values of `userid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is done.
    Off,
    /// Cookies that come are told of.
    Log,
    /// And others are set, of the older form.
    V1,
    /// The same, of the newer form.
    V2,
}

const MODES: &[(&str, Mode)] = &[("off", Mode::Off), ("log", Mode::Log), ("v1", Mode::V1), ("on", Mode::V2)];

/// When a cookie expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expires {
    /// When the browser is closed.
    Off,
    /// As late as possible.
    Max,
    /// After so many seconds.
    After(u64),
}

/// Values of `userid_flags`; what a cookie has of each, in this order.
const FLAGS: &[(&str, u32)] =
    &[("off", 1), ("secure", 2), ("httponly", 4), ("samesite=strict", 8), ("samesite=lax", 16), ("samesite=none", 32)];
/// Those of which one counts.
const SAMESITE: u32 = 8 | 16 | 32;

fn service(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<u32>> {
    // What is above 32 bits is cut, as in nginx.
    number::<u64>(loader, d).map(|service| Some(service as u32))
}

fn unless_none(_: &mut Loader<'_>, d: &Directive) -> Result<Vec<u8>> {
    let text = &d.arg(0).text;
    Ok(if *text == b"none" { Vec::new() } else { text.to_vec() })
}

fn expires(_: &mut Loader<'_>, d: &Directive) -> Result<Expires> {
    match &d.arg(0).text[..] {
        b"max" => Ok(Expires::Max),
        b"off" => Ok(Expires::Off),
        text => buf::parse::parse_sec(text).map(Expires::After).ok_or_else(|| invalid(d, d.arg(0))),
    }
}

fn mark(_: &mut Loader<'_>, d: &Directive) -> Result<Option<u8>> {
    match &d.arg(0).text[..] {
        b"off" => Ok(None),
        [mark] if mark.is_ascii_alphanumeric() || *mark == b'=' => Ok(Some(*mark)),
        _ => {
            let message = "\"userid_mark\" directive value must be \"off\" or a single letter, digit or \"=\"";
            Err(Error::at(d.arg(0), message))
        }
    }
}

impl HttpModule for Userid {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<UseridConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        http::variables! { setup, "ngx_http_userid_filter_module";
            /// The name of the cookie of `userid` and the identifier that the client has sent in it, in hexadecimal
            /// digits. Empty if it has sent none.
            "uid_got", Flags::NONE, Getter::Plain(|r, out| { let id = uid(r).got; shown(r, id, out) });
            /// The name of the cookie of `userid` and the identifier that the response sets, in hexadecimal digits. Empty
            /// if it sets none.
            "uid_set", Flags::NONE, Getter::Plain(|r, out| { let id = uid(r).set; shown(r, id, out) });
            /// What `set` gives it: a value other than empty and `0` replaces the identifier that the client has sent
            /// by a new one; `log` tells the error log of it, too.
            "uid_reset", Flags::CHANGEABLE, Getter::Plain(|_, _| false);
        }
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let mode = cx.set.get::<UseridConf>().userid;
        if mode == Mode::Off {
            return Ok(());
        }
        if cx.loader.store.entry::<Used>().0.is_none() {
            let place = cx.place("userid").unwrap_or_default();
            let reset = template_at(cx.loader, place, b"$uid_reset")?;
            cx.loader.store.entry::<Used>().0 = Some(reset);
        }
        if mode != Mode::Log {
            out.filters.push(Rc::new(Filter));
        }
        Ok(())
    }

    fn part(&self, loader: &mut Loader<'_>) -> Option<Box<dyn Any>> {
        let reset = loader.store.take::<Used>()?.0?;
        Some(Box::new(Issuer { reset, worker: Cell::new(0), issued: Cell::new(0) }))
    }

    fn start_worker(&self, http: &Rc<Http>) {
        if let Some(issuer) = http.part::<Issuer>() {
            // Workers that start at the same time have other process ids, others of one id another time.
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            issuer.worker.set(((since.subsec_micros() / 20) << 16) | (std::process::id() & 0xffff));
        }
    }
}

/// `$uid_reset`, if any location uses the module.
#[derive(Default)]
struct Used(Option<Rc<Template>>);

/// What makes identifiers.
struct Issuer {
    reset: Rc<Template>,
    /// The worker's own number.
    worker: Cell<u32>,
    /// How many identifiers it has made.
    issued: Cell<u32>,
}

/// An identifier, as its bytes are sent.
type Id = [u8; 16];

/// The identifiers of a request.
#[derive(Clone, Copy, Default)]
struct Uid {
    got: Option<Id>,
    set: Option<Id>,
}

/// What a request has in common with its subrequests: the identifiers, once they have been asked for, with the level that
/// has decided on them.
#[derive(Default)]
struct Decided(SmallVec<[(Rc<UseridConf>, Uid); 1]>);

/// The identifiers of a request.
fn uid(r: &mut Request) -> Uid {
    let conf = r.location.set.share::<UseridConf>();
    // A level without identifiers decides nothing for the one that the request is in later.
    if conf.userid == Mode::Off {
        return Uid::default();
    }
    let same = |own: &UseridConf| own.userid_name == conf.userid_name && own.is_silent() == conf.is_silent();
    let decided = r.with_family_slot(|Decided(all)| all.iter().find(|(own, _)| same(own)).map(|(_, uid)| *uid));
    decided.unwrap_or_else(|| {
        let uid = decide(r, &conf);
        r.with_family_slot(|Decided(all)| all.push((conf, uid)));
        uid
    })
}

impl UseridConf {
    /// Whether clients are only recognized.
    fn is_silent(&self) -> bool {
        self.userid == Mode::Log
    }
}

fn decide(r: &mut Request, conf: &UseridConf) -> Uid {
    let http = r.http.clone();
    let Some(issuer) = http.part::<Issuer>() else { return Uid::default() };
    let mut value = Vec::new();
    let name = String::from_utf8_lossy(&conf.userid_name);
    let got = cookie(r, &name, &mut value).then(|| decode(r, &value)).flatten();
    if conf.is_silent() {
        return Uid { got, set: None };
    }
    let (resets, logs) = r.with_value(&issuer.reset, |_, reset| (!reset.is_empty() && reset != b"0", reset == b"log"));
    let set = match got {
        Some(id) if !resets => {
            let unmarked = conf.userid_mark.is_some_and(|mark| value.get(MARK_AT) != Some(&mark));
            unmarked.then_some(id)
        }
        _ => Some(issuer.issue(r, conf)),
    };
    if logs && let Some(id) = got {
        let text = hex(&conf.userid_name, id);
        r.log_at(Level::Notice, format_args!("userid cookie \"{text}\" was reset"));
    }
    Uid { got, set }
}

impl Issuer {
    fn issue(&self, r: &mut Request, conf: &UseridConf) -> Id {
        let time = engine::clock::now().0 as u32;
        let issued = self.issued.get();
        self.issued.set(issued.wrapping_add(1));
        let worker = self.worker.get();
        let counted = |first: u32| first.wrapping_add(issued << 8);
        if conf.userid == Mode::V1 {
            let numbers = [conf.userid_service.unwrap_or(0), time, worker, counted(FIRST_OF_V1)];
            return joined(numbers.map(u32::to_le_bytes));
        }
        let service = match conf.userid_service {
            Some(service) => service.to_be_bytes(),
            None => {
                r.local_addr().binary().last_chunk().copied().filter(|_| !r.local_addr().is_unix()).unwrap_or_default()
            }
        };
        joined([service, time.to_be_bytes(), worker.to_be_bytes(), counted(FIRST_OF_V2).to_be_bytes()])
    }
}

/// Where the counters of either form begin; they go up by 256.
const FIRST_OF_V1: u32 = 1;
const FIRST_OF_V2: u32 = 0x0303_0302;

fn joined(numbers: [[u8; 4]; 4]) -> Id {
    let mut id = Id::default();
    id.as_chunks_mut::<4>().0.copy_from_slice(&numbers);
    id
}

/// The identifier in a cookie; the log is told of what isn't one.
fn decode(r: &Request, value: &[u8]) -> Option<Id> {
    let shown = || buf::text::encode(r.header(KnownHeader::Cookie).unwrap_or_default()).into_owned();
    let Some(text) = value.get(..MARK_AT) else {
        r.log_error(format_args!("client sent too short userid cookie \"{}\"", shown()));
        return None;
    };
    let mut id = Id::default();
    match LENIENT.decode_slice_unchecked(text, &mut id) {
        Ok(16) => Some(id),
        _ => {
            r.log_error(format_args!("client sent invalid userid cookie \"{}\"", shown()));
            None
        }
    }
}

/// Where the mark stands: after 22 characters for 16 bytes.
const MARK_AT: usize = 22;

/// `uid=` and the four numbers of an identifier, in the byte order of the machine.
fn hex(name: &[u8], id: Id) -> String {
    let mut text = format!("{}=", buf::text::encode(name));
    for number in id.as_chunks::<4>().0 {
        text.push_str(&format!("{:08X}", u32::from_le_bytes(*number)));
    }
    text
}

fn shown(r: &Request, id: Option<Id>, out: &mut Vec<u8>) -> bool {
    id.is_some_and(|id| show(out, format_args!("{}", hex(&r.location.set.get::<UseridConf>().userid_name, id))))
}

struct Filter;

impl HeaderFilter for Filter {
    fn order(&self) -> Order {
        Order::Cookies
    }

    fn apply(&self, r: &mut Request) -> std::result::Result<(), Reply> {
        let Some(id) = uid(r).set else { return Ok(()) };
        let conf = r.location.set.share::<UseridConf>();
        r.response.headers.add(KnownHeader::SetCookie, set_cookie(&conf, id, rt::wall().secs));
        if !conf.userid_p3p.is_empty() {
            r.response.headers.push(Bytes::from_static(b"P3P"), conf.userid_p3p.clone());
        }
        Ok(())
    }
}

/// The value of `Set-Cookie`.
fn set_cookie(conf: &UseridConf, id: Id, now: i64) -> Bytes {
    /// The characters of an identifier, padding included.
    const LENGTH: usize = 24;
    let mut text = [0; LENGTH];
    // There is room for it.
    let _ = LENIENT.encode_slice(id, &mut text);
    if let Some(mark) = conf.userid_mark {
        text[MARK_AT] = mark;
    }
    let mut out = SmallVec::<[u8; 128]>::new();
    for part in [&conf.userid_name[..], b"=", &text] {
        out.extend_from_slice(part);
    }
    match conf.userid_expires {
        Expires::Off => {}
        Expires::Max => out.extend_from_slice(b"; expires=Thu, 31-Dec-37 23:55:55 GMT"),
        Expires::After(seconds) => {
            let at = now.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX));
            out.extend_from_slice(b"; expires=");
            out.extend_from_slice(&format_cookie_time(at));
        }
    }
    if !conf.userid_domain.is_empty() {
        out.extend_from_slice(b"; domain=");
        out.extend_from_slice(&conf.userid_domain);
    }
    out.extend_from_slice(b"; path=");
    out.extend_from_slice(&conf.userid_path);
    let set = |bit: &u32| conf.userid_flags & bit != 0;
    let samesite = FLAGS.iter().map(|(_, bit)| *bit).find(|bit| SAMESITE & bit != 0 && set(bit)).unwrap_or(0);
    for (name, bit) in &FLAGS[1..] {
        if set(bit) && (SAMESITE & bit == 0 || *bit == samesite) {
            out.extend_from_slice(b"; ");
            out.extend_from_slice(name.as_bytes());
        }
    }
    Bytes::copy_from(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cookies of nginx, and what it says of them.
    #[test]
    fn identifiers() {
        for (cookie, expect) in [
            ("fwAAAWsM/QINmUcmAwMDAg==", "uid=0100007F02FD0C6B2647990D02030303"),
            ("AAAAAAL9DGsmR5kNAQEAAA==", "uid=000000006B0CFD020D99472600000101"),
            ("fwAAAWGGlm2sEAAAAwIDBAa=", "uid=0100007F6D968661000010AC04030203"),
            ("fwAAAWGGlm2sEAAAAwIDBB==", "uid=0100007F6D968661000010AC04030203"),
            ("fwAAAWGGlm2sEAAAAwIDBA", "uid=0100007F6D968661000010AC04030203"),
        ] {
            let mut id = Id::default();
            let read = LENIENT.decode_slice_unchecked(&cookie.as_bytes()[..MARK_AT], &mut id);
            assert_eq!((read.ok(), hex(b"uid", id).as_str()), (Some(16), expect), "{cookie}");
        }
        for cookie in ["fwAAAWGGlm2sEAAAAwID*A", "\"fwAAAWGGlm2sEAAAAwIDB", "-_AAAWGGlm2sEAAAAwIDBA"] {
            assert!(LENIENT.decode_slice_unchecked(cookie, &mut Id::default()).is_err(), "{cookie}");
        }
    }
}
