//! `sticky`: the directive. What it does is [`upstream::sticky`]'s and the protocol's.

use std::rc::Rc;

use buf::parse;
use conf::{Args, Directive, Error, Level, Loader, Result, Word};
use engine::cycle::zones;
use expr::vars::Template;
use upstream::Sticky;
use upstream::sticky::{Cookie, Expires, Learn, Sessions};

use super::{current, once};
use crate::Proto;
use crate::backend::health::split;
use crate::vars::{one_variable, template_of, variable_in};

conf::table! {
    /// Sessions that keep their server.
    pub struct StickyBlock of P: Proto, raw StickyBlockRaw,
        at P::tables().upstream_sticky, block P::PLACES.block, level Level::Main;

    /// Passes the requests of a session to the same server.
    ///
    /// Form: `sticky cookie name [expires=time|max] [domain=domain] [httponly] [samesite=strict|lax|none|$variable]
    /// [secure] [path=path] | route $variable ... | learn create=$variable lookup=$variable zone=name:size
    /// [timeout=time] [header]`
    ///
    /// - `cookie name`: a cookie of this name says which server it is. It is set by each response; its value is the
    ///   server's `route`, or the MD5 of its address and port in hexadecimal digits.
    /// - `expires=time|max`: how long clients keep the cookie; `max` is until the end of 2037. By default it goes when
    ///   the browser is closed.
    /// - `domain=domain`, `path=path`: where clients send the cookie. The domain may contain variables.
    /// - `httponly`, `secure`, `samesite=`: attributes of the cookie. A variable may hold `strict`, `lax` or `none`;
    ///   any other value means `strict`, an empty one no attribute.
    /// - `route $variable ...`: the first variable that isn't empty holds the `route` of the server.
    /// - `learn`: sessions are learned from responses. `create=` names the session that a response begins or goes on
    ///   with, `lookup=` the session of a request; each may stand several times, and the first that isn't empty counts.
    /// - `zone=name:size`: where sessions are kept for all workers, at least 32k; a session takes 128 bytes or less.
    /// - `timeout=time`: a session is forgotten when it hasn't been used for so long; the default is 10m.
    /// - `header`: sessions begin when the head of the response is there; by default, when the response is complete.
    ///
    /// Effect: a request with a session goes to its server; without one, or if that server can't be chosen, the group's
    /// method chooses, and the session moves. Requests of sessions count as turns of their server, so servers with many
    /// sessions get fewer new ones. Sessions of `learn` survive a reload. When the zone is full, the session that was
    /// used least recently is forgotten.
    ///
    /// Cost: `learn` takes the lock of the zone twice for each request.
    ///
    /// Danger: clients choose the value of a cookie or a route, and so the server. An unlucky distribution of sessions
    /// stays.
    ///
    /// ```nginx
    /// server 127.0.0.1:8080;
    /// server 127.0.0.1:8081;
    /// sticky cookie server expires=1h path=/ httponly;
    /// ```
    "sticky" in P::PLACES.upstream, Args::at_least(2), default none,
        block(sticky::<P>);
}

fn sticky<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    once::<P>(loader, d, "sticky")?;
    let rest = d.args.get(1..).unwrap_or_default();
    let word = d.arg(0);
    let sticky = match word.text.as_slice() {
        b"cookie" => Sticky::Cookie(Rc::new(cookie::<P>(loader, d, rest)?)),
        b"route" => {
            let variables = rest.iter().map(|word| one_variable::<P>(loader, word));
            Sticky::Route(variables.collect::<Result<Vec<_>>>()?.into())
        }
        b"learn" => Sticky::Learn(Rc::new(learn::<P>(loader, d, rest)?)),
        _ => return Err(unknown(word)),
    };
    current::<P>(loader).sticky = Some(sticky);
    Ok(())
}

fn unknown(word: &Word) -> Error {
    Error::at(word, format!("unknown parameter \"{}\"", word.lossy()))
}

/// An error of the directive's parameters.
fn wrong(word: &Word, what: &str) -> Error {
    Error::at(word, format!("\"sticky\" directive {what}"))
}

fn cookie<P: Proto>(loader: &mut Loader<'_>, d: &Directive, words: &[Word]) -> Result<Cookie> {
    let mut cookie = Cookie {
        name: Box::default(),
        expires: None,
        domain: None,
        path: None,
        httponly: false,
        secure: false,
        samesite: None,
    };
    let Some((name, parameters)) = words.split_first() else { return Ok(cookie) };
    if name.text.is_empty() {
        return Err(wrong(name, "empty cookie name"));
    }
    cookie.name = name.text.as_slice().into();
    for word in parameters {
        let (key, value) = split(word);
        let named = String::from_utf8_lossy(key.strip_suffix(b"=").unwrap_or(key)).into_owned();
        let known = match key {
            b"expires=" => cookie.expires.is_some(),
            b"domain=" => cookie.domain.is_some(),
            b"path=" => cookie.path.is_some(),
            b"samesite=" => cookie.samesite.is_some(),
            b"httponly" => cookie.httponly,
            b"secure" => cookie.secure,
            _ => return Err(unknown(word)),
        };
        if known {
            return Err(wrong(word, &format!("parameter \"{named}\" is duplicate")));
        }
        let invalid = || wrong(word, &format!("invalid \"{named}\" parameter value"));
        if value.is_empty() && matches!(key, b"domain=" | b"path=") {
            return Err(wrong(word, &format!("no value for \"{named}\"")));
        }
        match key {
            b"expires=" if value == b"max" => cookie.expires = Some(Expires::Max),
            b"expires=" => cookie.expires = Some(Expires::After(parse::parse_sec(value).ok_or_else(invalid)?)),
            b"domain=" => cookie.domain = Some(template_of::<P>(loader, d, value)?),
            b"path=" => cookie.path = Some(value.into()),
            b"samesite=" => {
                if !matches!(value, b"strict" | b"lax" | b"none") && value.first() != Some(&b'$') {
                    return Err(invalid());
                }
                cookie.samesite = Some(template_of::<P>(loader, d, value)?);
            }
            b"httponly" => cookie.httponly = true,
            _ => cookie.secure = true,
        }
    }
    Ok(cookie)
}

/// The groups that zones of sessions belong to.
#[derive(Default)]
struct Owners(Vec<(Rc<str>, Vec<u8>)>);

fn learn<P: Proto>(loader: &mut Loader<'_>, d: &Directive, words: &[Word]) -> Result<Learn> {
    let (mut create, mut lookup) = (Vec::new(), Vec::new());
    let (mut zone, mut timeout_ms, mut header) = (None, 600_000, false);
    for word in words {
        match split(word) {
            (b"create=", value) => create.push(learned::<P>(loader, word, "create", value)?),
            (b"lookup=", value) => lookup.push(learned::<P>(loader, word, "lookup", value)?),
            (b"timeout=", value) => {
                let timeout = parse::parse_msec(value).filter(|timeout| *timeout > 0);
                timeout_ms = timeout.ok_or_else(|| wrong(word, "invalid timeout"))?;
            }
            (b"zone=", value) => zone = Some((word, value)),
            (b"header", _) => header = true,
            _ => return Err(unknown(word)),
        }
    }
    let missing = |name: &str| Err(Error::on(d, format!("\"sticky\" directive \"{name}\" parameter is not specified")));
    if lookup.is_empty() {
        return missing("lookup");
    }
    if create.is_empty() {
        return missing("create");
    }
    let Some((word, value)) = zone else { return missing("zone") };
    let colon = value.iter().position(|byte| *byte == b':');
    let (name, size) = value.split_at(colon.ok_or_else(|| wrong(word, "zone size is not specified"))?);
    let size = parse::parse_size(size.get(1..).unwrap_or_default()).ok_or_else(|| wrong(word, "invalid zone size"))?;
    let size = usize::try_from(size).ok().filter(|size| *size >= zones::SMALLEST);
    let size = size.ok_or_else(|| wrong(word, "zone is too small"))?;
    let zone = zones::declare(loader, word, name, size, upstream::sticky::owner(P::tables().upstream_sticky.module()))?;
    let group = current::<P>(loader).name.clone();
    let owners = &mut loader.store.entry::<Owners>().0;
    if let Some((name, other)) = owners.iter().find(|(name, _)| name == zone.name()) {
        let other = String::from_utf8_lossy(other);
        return Err(Error::at(word, format!("sticky zone \"{name}\" is already used in upstream \"{other}\"")));
    }
    owners.push((zone.name().clone(), group));
    Ok(Learn { create, lookup, header, sessions: Sessions::new(zone, timeout_ms) })
}

fn learned<P: Proto>(loader: &mut Loader<'_>, word: &Word, name: &str, value: &[u8]) -> Result<Rc<Template>> {
    if value.first() != Some(&b'$') {
        return Err(wrong(word, &format!("missing variable in the \"{name}\" parameter")));
    }
    variable_in::<P>(loader, word, value)
}
