//! Which part of a response a request asks for (RFC 9110 §14.2).

use wire::h1::KnownHeader;
use wire::range::{Ranges, parse};

use super::Body;
use crate::config::core::UNLIMITED_RANGES as UNLIMITED;
use crate::request::Request;

/// What `Range` says, if `If-Range` lets it count.
pub fn asked_for(r: &Request, length: u64) -> Ranges {
    if r.location.core.max_ranges == 0 || r.line.version < 1000 {
        return Ranges::Ignore;
    }
    let Some(value) = r.header(KnownHeader::Range) else { return Ranges::Ignore };
    let response = &r.response;
    if let Some(condition) = r.header(KnownHeader::IfRange) {
        let holds = wire::etag::if_range(condition, response.headers.find(KnownHeader::ETag).map(|tag| &tag[..]))
            .unwrap_or_else(|| {
                let time = wire::date::parse_http_time(condition);
                time.is_some() && time == response.last_modified
            });
        if !holds {
            return Ranges::Ignore;
        }
    }
    let whole = response.filters.is_empty() && !matches!(response.body, Body::Stream(_));
    let several = whole && !response.single_range;
    let max = if several { Some(r.location.core.max_ranges).filter(|&max| max != UNLIMITED) } else { Some(1) };
    parse(value, length, max)
}
