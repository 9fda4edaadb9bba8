//! Which part of a response a request asks for (RFC 9110 §14.2).

use wire::h1::KnownHeader;
use wire::range::{Ranges, parse};

use super::Body;
use crate::config::core::UNLIMITED_RANGES as UNLIMITED;
use crate::request::Request;

/// Of a body that filters change, several ranges are served up to this length: it is gathered in memory for them.
const GATHERED: u64 = 256 << 10;

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
    let gathered = response.filters.is_empty() || length <= GATHERED;
    let several = gathered && !matches!(response.body, Body::Stream(_)) && !response.single_range;
    let max = if several { Some(r.location.core.max_ranges).filter(|&max| max != UNLIMITED) } else { Some(1) };
    parse(value, length, max)
}
