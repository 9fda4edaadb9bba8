//! Fields that a cache adds to responses: `Age` and `Cache-Status` (RFC 9211).

use ::cache::Entry;
use ::cache::keeper::now;
use buf::Bytes;
use http::exchange::Exchange;
use http::request::Request;
use wire::h1::KnownHeader;

use super::{Caching, Status, Work, fill};
use crate::engine::Backend;

/// What `Cache-Status` says beside the status.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    /// The request has waited for another one.
    pub(super) collapsed: bool,
    /// There is a response, but for another variant.
    pub(super) vary_miss: bool,
    /// The request wanted what is stored to be validated.
    pub(super) requested: bool,
}

/// By the standard a response that is stored has the backend's `Date`, from which its age is counted, and its
/// `Last-Modified` whatever its status.
pub(super) fn standard(r: &mut Request, exchange: &Exchange) {
    let head = exchange.head.borrow();
    let (bytes, head) = &*head;
    let response = &mut r.response;
    response.tags_alone = true;
    if let Some(date) = head.value(KnownHeader::Date, bytes).filter(|_| !response.own_date) {
        response.headers.set(KnownHeader::Date, Bytes::copy_from(date));
        response.own_date = true;
    }
    if !matches!(response.status, 200 | 206 | 304)
        && response.last_modified.take().is_some()
        && let Some(modified) = head.value(KnownHeader::LastModified, bytes)
    {
        response.headers.set(KnownHeader::LastModified, Bytes::copy_from(modified));
    }
}

/// Adds the fields of a stored response.
pub(super) fn of_hit(b: &Backend, r: &mut Request, entry: &Entry, status: Status) {
    let Some(caching) = &b.caching else { return };
    let now = now().secs;
    if caching.conf.cache_rfc && fill::is_rfc(entry) {
        let age = (now - entry.born).max(0).to_string().into_bytes();
        r.response.headers.set(KnownHeader::Age, age);
    }
    if let Some(name) = &caching.conf.cache_status {
        let ttl = entry.valid.saturating_sub(now);
        let how = match status {
            Status::Revalidated => format!("fwd=stale; fwd-status=304; ttl={ttl}"),
            _ => format!("hit; ttl={ttl}"),
        };
        push(r, name, &how);
    }
}

/// Adds the fields of a backend's response, stored or not.
pub(super) fn of_fetched(b: &Backend, r: &mut Request, exchange: &Exchange, stored: bool) {
    let Some(Caching { conf, .. }) = b.caching.as_deref() else { return };
    let Some(name) = &conf.cache_status else { return };
    let work = r.lasting_slot::<Work>();
    let report = work.report;
    let why = match work.status {
        None => "method",
        Some(Status::Bypass) if report.requested => "request",
        Some(Status::Bypass) => "bypass",
        Some(Status::Expired) => "stale",
        Some(_) if report.vary_miss => "vary-miss",
        Some(_) => "uri-miss",
    };
    let mut how = format!("fwd={why}; fwd-status={}", exchange.head.borrow().1.status);
    if stored {
        how.push_str("; stored");
    }
    if report.collapsed {
        how.push_str("; collapsed");
    }
    push(r, name, &how);
}

fn push(r: &mut Request, name: &[u8], how: &str) {
    let value = [name, b"; ", how.as_bytes()].concat();
    r.response.headers.push(Bytes::from_static(b"Cache-Status"), value);
}
