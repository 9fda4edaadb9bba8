//! `sticky`: which server a request's session is bound to, and the binding of sessions when a server has answered.

use std::rc::Rc;

use ::upstream::sticky::{Cookie, Expires, Route, Session};
use ::upstream::{Choice, Group, Sticky};
use expr::vars::Template;
use http::request::Request;
use http::request::variables::cookie;
use wire::date::format_cookie_time;
use wire::h1::KnownHeader;

/// The route of the server that the request's session is bound to; empty for none.
pub(super) fn route(r: &mut Request, group: &Group) -> Vec<u8> {
    let Some(sticky) = &group.sticky else { return Vec::new() };
    match sticky {
        Sticky::Cookie(conf) => {
            let mut route = Vec::new();
            cookie(r, &String::from_utf8_lossy(&conf.name), &mut route);
            route
        }
        Sticky::Route(variables) => first(r, variables),
        Sticky::Learn(learn) => {
            let id = first(r, &learn.lookup);
            let found = (!id.is_empty()).then(|| learn.sessions.find(&id, rt::now_ms())).flatten();
            found.map(|route| route.as_bytes().to_vec()).unwrap_or_default()
        }
    }
}

/// The value of the first of these variables that isn't empty.
fn first(r: &mut Request, variables: &[Rc<Template>]) -> Vec<u8> {
    variables.iter().map(|variable| r.render(variable)).find(|value| !value.is_empty()).unwrap_or_default()
}

/// A server has answered: binds the session to it, if the group has sessions.
#[inline]
pub(super) fn answered(r: &mut Request, choice: &mut Choice) {
    if choice.group().sticky.is_some() {
        bind(r, choice);
    }
}

fn bind(r: &mut Request, choice: &mut Choice) {
    let (Some(peer), Some(sticky)) = (choice.peer(), choice.group().sticky.clone()) else { return };
    let route = peer.route.clone();
    match sticky {
        Sticky::Cookie(conf) => set_cookie(r, &conf, &route),
        Sticky::Route(_) => {}
        Sticky::Learn(learn) => {
            // A response that names another session leaves that of the request alone.
            let created = first(r, &learn.create);
            let goes_on = created.is_empty();
            let id = if goes_on { first(r, &learn.lookup) } else { created };
            if id.is_empty() {
                return;
            }
            let session = Session { route: Route::of(&route), learn: learn.clone(), id, goes_on };
            match learn.header {
                true => session.keep(rt::now_ms()),
                false => choice.keep_session(session),
            }
        }
    }
}

fn set_cookie(r: &mut Request, conf: &Cookie, route: &str) {
    let mut out = [&*conf.name, b"=", route.as_bytes()].concat();
    match conf.expires {
        None => {}
        Some(Expires::Max) => {
            out.extend_from_slice(b"; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000");
        }
        Some(Expires::After(seconds)) => {
            let at = rt::wall().secs.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX));
            out.extend_from_slice(b"; expires=");
            out.extend_from_slice(&format_cookie_time(at));
            out.extend_from_slice(format!("; max-age={seconds}").as_bytes());
        }
    }
    let domain = conf.domain.as_ref().map(|domain| r.render(domain)).filter(|domain| !domain.is_empty());
    if let Some(domain) = domain {
        out.extend_from_slice(b"; domain=");
        out.extend_from_slice(&domain);
    }
    if conf.httponly {
        out.extend_from_slice(b"; httponly");
    }
    if conf.secure {
        out.extend_from_slice(b"; secure");
    }
    let samesite = conf.samesite.as_ref().map(|samesite| r.render(samesite)).filter(|value| !value.is_empty());
    if let Some(samesite) = samesite {
        let known: [&[u8]; 2] = [b"lax", b"none"];
        let value = known.into_iter().find(|known| samesite.eq_ignore_ascii_case(known)).unwrap_or(b"strict");
        out.extend_from_slice(b"; samesite=");
        out.extend_from_slice(value);
    }
    if let Some(path) = &conf.path {
        out.extend_from_slice(b"; path=");
        out.extend_from_slice(path);
    }
    r.response.headers.add(KnownHeader::SetCookie, out);
}
