//! Error pages: `error_page`, and the built-in ones.

use buf::{Bytes, Chain};
use wire::h1::{KnownHeader, Method};

use crate::fault::Fault;
use crate::request::{Ending, Request};
use crate::response::{Body, browser, reason};

/// How a request continues that has ended with a status.
pub enum Page {
    /// The response is complete.
    Made,
    /// The request goes through the phases again, to the page's URI.
    Redirect,
    /// The page led to another error.
    Status(u16),
}

/// Answers a request that ends with `status`: by the page that `error_page` names, or the built-in one.
pub fn respond(r: &mut Request, status: u16) -> Page {
    close_after(r, status);
    if r.error_status == 0 || status >= 300 {
        r.error_status = status;
    }
    if status >= 300
        && has_page(r, status)
        && let Some(page) = from_directive(r, status)
    {
        return page;
    }
    built_in(r, status);
    Page::Made
}

/// Whether `error_page` names a page for this status here. An error page has no error pages of its own, unless the
/// location where the first error arose says `recursive_error_pages`; and a cycle of pages ends with a built-in one.
pub fn has_page(r: &Request, status: u16) -> bool {
    !r.error_page && r.location.core.error_page.iter().any(|page| page.statuses.contains(&status))
}

/// Closes the connection after errors that leave it unusable.
fn close_after(r: &mut Request, status: u16) {
    if matches!(status, 400 | 408 | 413 | 414 | 495 | 496 | 497 | 500 | 501) {
        r.close_after();
    }
    if matches!(status, 413 | 414 | 494) && r.ending == Ending::Close {
        r.ending = Ending::Linger;
    }
}

fn from_directive(r: &mut Request, status: u16) -> Option<Page> {
    let pages = r.location.core.error_page.clone();
    let page = pages.iter().find(|page| page.statuses.contains(&status))?;
    r.error_page = !r.location.core.recursive_error_pages;
    let answer = page.answer;
    match answer {
        Some(0) => r.error_status = 0,
        Some(code) => r.error_status = code,
        None => {}
    }
    let target = r.render(&page.target);
    r.response.content_type = None;
    if target.first() == Some(&b'/') {
        if r.method != Method::Head {
            r.method = Method::Get;
        }
        let (uri, args) = match (page.target.is_const(), memchr::memchr(b'?', &target)) {
            (None, Some(at)) => (&target[..at], Some(&target[at + 1..])),
            _ => (&target[..], page.args.as_deref()),
        };
        prepare(r);
        return Some(redirected(r.try_redirect(uri, args)));
    }
    if target.first() == Some(&b'@') {
        prepare(r);
        return Some(redirected(r.try_redirect_named(&target)));
    }
    let code = answer.filter(|code| matches!(code, 301 | 302 | 303 | 307 | 308)).unwrap_or(302);
    r.error_status = code;
    r.response.clear();
    r.response.headers.set_fixed(KnownHeader::Location, target);
    built_in(r, code);
    Some(Page::Made)
}

fn redirected(result: Result<(), Fault>) -> Page {
    result.map_or_else(|fault| Page::Status(fault.status()), |()| Page::Redirect)
}

/// Keeps the fields of the failed response (`WWW-Authenticate`, `Location`, `Allow`), and drops what describes its
/// body.
fn prepare(r: &mut Request) {
    let response = &mut r.response;
    (response.status, response.content_length, response.last_modified) = (0, None, None);
    (response.allow_ranges, response.status_line, response.disable_not_modified) = (false, None, false);
    response.charset = None;
    response.headers.retain(|header| !DESCRIBES_BODY.contains(&header.known));
}

/// The fields that say what the body is, or how it can be asked for.
const DESCRIBES_BODY: [KnownHeader; 3] = [KnownHeader::ETag, KnownHeader::ContentEncoding, KnownHeader::AcceptRanges];

/// Makes the built-in response for a status.
fn built_in(r: &mut Request, status: u16) {
    let status = shown_status(status);
    let response = &mut r.response;
    response.status = status;
    response.filters.clear();
    (response.content_length, response.last_modified) = (None, None);
    (response.allow_ranges, response.charset, response.status_line) = (false, None, None);
    response.disable_not_modified = false;
    response.headers.retain(|header| !DESCRIBES_BODY.contains(&header.known));
    // `return 200` on the page of an error keeps the error's status, but has no text.
    let code = if status >= 300 { r.error_status.max(status) } else { status };
    let Some(title) = title(code) else {
        response.content_type = None;
        response.content_length = Some(0);
        response.body = Body::Empty;
        return;
    };
    let text = page(r, code, title);
    let core = r.location.core.clone();
    if core.msie_refresh && is_msie(r) && matches!(status, 301 | 302) {
        return refresh(r);
    }
    let response = &mut r.response;
    response.content_type = Some(Bytes::from_static(b"text/html"));
    response.content_length = Some(text.len() as u64);
    let mut chain = Chain::new();
    chain.push_bytes(text);
    response.body = Body::Chain(chain);
}

/// The page that `error_page` names has the status of the error, unless the directive gives another one.
pub(crate) fn keep_status(r: &mut Request) {
    if r.error_status == 0 {
        return;
    }
    r.response.status = shown_status(r.error_status);
    r.response.status_line = None;
    if r.upstream.is_none() && !matches!(r.response.status, 200 | 204 | 206 | 304) {
        r.response.last_modified = None;
    }
}

/// The status to send: nginx's own codes are sent as 400.
pub fn shown_status(status: u16) -> u16 {
    if (494..=497).contains(&status) { 400 } else { status }
}

fn title(status: u16) -> Option<&'static str> {
    match status {
        494 => Some("400 Request Header Or Cookie Too Large"),
        495 => Some("400 The SSL certificate error"),
        496 => Some("400 No required SSL certificate was sent"),
        497 => Some("400 The plain HTTP request was sent to HTTPS port"),
        304 => None,
        302 => Some("302 Found"),
        401 => Some("401 Authorization Required"),
        300..=599 => reason(status),
        _ => None,
    }
}

fn page(r: &Request, code: u16, title: &str) -> Vec<u8> {
    let mut text = Vec::with_capacity(640);
    let add = |text: &mut Vec<u8>, part: &str| text.extend_from_slice(part.as_bytes());
    let detail = match code {
        494 => Some("Request Header Or Cookie Too Large"),
        495 => Some("The SSL certificate error"),
        496 => Some("No required SSL certificate was sent"),
        497 => Some("The plain HTTP request was sent to HTTPS port"),
        _ => None,
    };
    let title = if detail.is_some() { &format!("400 {}", detail.unwrap_or_default()) } else { title };
    let heading = if detail.is_some() { "400 Bad Request" } else { title };
    add(&mut text, "<html>\r\n<head><title>");
    add(&mut text, title);
    add(&mut text, "</title></head>\r\n<body>\r\n<center><h1>");
    add(&mut text, heading);
    add(&mut text, "</h1></center>\r\n");
    if let Some(detail) = detail {
        add(&mut text, "<center>");
        add(&mut text, detail);
        add(&mut text, "</center>\r\n");
    }
    add(&mut text, "<hr><center>");
    add(&mut text, super::head::server_token(r.location.core.server_tokens));
    add(&mut text, "</center>\r\n</body>\r\n</html>\r\n");
    if r.location.core.msie_padding && code >= 400 && wants_padding(r) {
        for _ in 0..6 {
            add(&mut text, "<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n");
        }
    }
    text
}

fn wants_padding(r: &Request) -> bool {
    if r.line.version < 1000 {
        return false;
    }
    let agent = r.header(KnownHeader::UserAgent).unwrap_or_default();
    browser::is_msie(agent) || browser::is_chrome(agent)
}

fn is_msie(r: &Request) -> bool {
    browser::is_msie(r.header(KnownHeader::UserAgent).unwrap_or_default())
}

/// A page that refreshes to the redirect's target, for MSIE.
fn refresh(r: &mut Request) {
    let Some(target) = r.response.headers.take_fixed(KnownHeader::Location) else { return };
    let mut text = b"<html><head><meta http-equiv=\"Refresh\" content=\"0; URL=".to_vec();
    wire::uri::escape(wire::uri::Escape::Refresh, &target, &mut text);
    text.extend_from_slice(b"\"></head><body></body></html>\r\n");
    r.error_status = 200;
    let response = &mut r.response;
    response.status = 200;
    response.content_type = Some(Bytes::from_static(b"text/html"));
    response.content_length = Some(text.len() as u64);
    let mut chain = Chain::new();
    chain.push_bytes(text);
    response.body = Body::Chain(chain);
}
