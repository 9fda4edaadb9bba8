//! `$upstream_cache_…`.

use http::request::Request;
use http::request::variables::put;

use super::Work;

pub(crate) fn status(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let status = r.find_lasting_slot::<Work>().and_then(|work| work.status);
    status.is_some_and(|status| put(out, status.name().as_bytes()))
}

pub(crate) fn key(r: &mut Request, out: &mut Vec<u8>) -> bool {
    r.find_lasting_slot::<Work>().is_some_and(|work| !work.key.is_empty() && put(out, &work.key))
}

pub(crate) fn last_modified(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let Some(exchange) = &r.upstream else { return false };
    exchange.validators.borrow().as_ref().and_then(|known| known.modified.as_ref()).is_some_and(|value| put(out, value))
}

pub(crate) fn etag(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let Some(exchange) = &r.upstream else { return false };
    exchange.validators.borrow().as_ref().and_then(|known| known.etag.as_ref()).is_some_and(|value| put(out, value))
}
