//! Conditional requests (RFC 9110 §13): `If-Match`, `If-None-Match`, `If-Modified-Since`, `If-Unmodified-Since`.
//!
//! Only responses with status 200 are looked at; the answers are 304 and 412. `if_modified_since` and `etag` are
//! directives of the core.

use std::rc::Rc;

use conf::Result;
use http::config::core::IfModifiedSince;
use http::module::HttpModule;
use http::module::LocationContext;
use http::phases::{HeaderFilter, Order, Reply};
use http::request::Request;
use http::response::Body;
use http::server::location::Handlers;
use wire::date::parse_http_time;
use wire::etag;
use wire::h1::KnownHeader;

/// The module.
pub struct NotModified;

impl HttpModule for NotModified {
    fn location(&self, _: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        out.filters.push(Rc::new(NotModified));
        Ok(())
    }
}

impl HeaderFilter for NotModified {
    fn order(&self) -> Order {
        Order::NotModified
    }

    fn apply(&self, r: &mut Request) -> std::result::Result<(), Reply> {
        let excluded = r.response.status != 200 || r.response.disable_not_modified;
        if excluded || !CONDITIONS.iter().any(|&header| r.line.has(header)) {
            return Ok(());
        }
        let tag = r.response.headers.find(KnownHeader::ETag);
        match judge(&conditions(r), r.response.last_modified, tag.map(|tag| &tag[..])) {
            Verdict::Send => Ok(()),
            Verdict::Failed => Err(Reply(412)),
            Verdict::NotModified => {
                not_modified(r);
                Ok(())
            }
        }
    }
}

const CONDITIONS: [KnownHeader; 4] =
    [KnownHeader::IfModifiedSince, KnownHeader::IfUnmodifiedSince, KnownHeader::IfMatch, KnownHeader::IfNoneMatch];

/// What a request makes its response depend on.
struct Conditions<'a> {
    unmodified_since: Option<&'a [u8]>,
    modified_since: Option<&'a [u8]>,
    matches: Option<&'a [u8]>,
    none_matches: Option<&'a [u8]>,
    rule: IfModifiedSince,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Send,
    NotModified,
    Failed,
}

fn conditions(r: &Request) -> Conditions<'_> {
    let beside = |tags| r.response.tags_alone && r.line.has(tags);
    Conditions {
        unmodified_since: r.header(KnownHeader::IfUnmodifiedSince).filter(|_| !beside(KnownHeader::IfMatch)),
        modified_since: r.header(KnownHeader::IfModifiedSince).filter(|_| !beside(KnownHeader::IfNoneMatch)),
        matches: r.header(KnownHeader::IfMatch),
        none_matches: r.header(KnownHeader::IfNoneMatch),
        rule: r.location.core.if_modified_since,
    }
}

/// Both kinds of preconditions have to hold; where there are both kinds of validators, both have to agree that the
/// client's copy is good.
fn judge(conditions: &Conditions<'_>, last_modified: Option<i64>, tag: Option<&[u8]>) -> Verdict {
    if let Some(text) = conditions.unmodified_since
        && last_modified.zip(parse_http_time(text)).is_none_or(|(modified, since)| modified > since)
    {
        return Verdict::Failed;
    }
    if conditions.matches.is_some_and(|list| !etag::if_match(list, tag)) {
        return Verdict::Failed;
    }
    if conditions.modified_since.is_none() && conditions.none_matches.is_none() {
        return Verdict::Send;
    }
    if conditions.modified_since.is_some_and(|text| is_modified(conditions.rule, text, last_modified)) {
        return Verdict::Send;
    }
    if conditions.none_matches.is_some_and(|list| !etag::if_none_match(list, tag)) {
        return Verdict::Send;
    }
    Verdict::NotModified
}

fn is_modified(rule: IfModifiedSince, since: &[u8], last_modified: Option<i64>) -> bool {
    let Some((modified, since)) = last_modified.zip(parse_http_time(since)) else { return true };
    match rule {
        IfModifiedSince::Off => true,
        IfModifiedSince::Exact => modified != since,
        IfModifiedSince::Before => modified > since,
    }
}

fn not_modified(r: &mut Request) {
    let response = &mut r.response;
    response.status = 304;
    (response.status_line, response.content_type, response.charset) = (None, None, None);
    response.content_length = None;
    (response.allow_ranges, response.single_range) = (false, false);
    let describes_body = [KnownHeader::ContentEncoding, KnownHeader::AcceptRanges];
    response.headers.retain(|header| !describes_body.contains(&header.known));
    response.body = Body::Empty;
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLY: &[u8] = b"Sun, 06 Nov 1994 08:49:36 GMT";
    const SAME: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";
    const LATE: &[u8] = b"Sun, 06 Nov 1994 08:49:38 GMT";
    const NONE: Conditions<'_> = Conditions {
        unmodified_since: None,
        modified_since: None,
        matches: None,
        none_matches: None,
        rule: IfModifiedSince::Exact,
    };

    fn check(conditions: Conditions<'_>, expect: Verdict) {
        assert_eq!(judge(&conditions, Some(784_111_777), Some(b"\"a\"")), expect);
    }

    #[test]
    fn dates() {
        let since = |text, rule| Conditions { modified_since: Some(text), rule, ..NONE };
        check(NONE, Verdict::Send);
        check(since(SAME, IfModifiedSince::Exact), Verdict::NotModified);
        check(since(LATE, IfModifiedSince::Exact), Verdict::Send);
        check(since(LATE, IfModifiedSince::Before), Verdict::NotModified);
        check(since(EARLY, IfModifiedSince::Before), Verdict::Send);
        check(since(SAME, IfModifiedSince::Off), Verdict::Send);
        check(since(b"x", IfModifiedSince::Before), Verdict::Send);
        check(Conditions { unmodified_since: Some(EARLY), ..NONE }, Verdict::Failed);
        check(Conditions { unmodified_since: Some(SAME), ..NONE }, Verdict::Send);
        check(Conditions { unmodified_since: Some(b"x"), ..NONE }, Verdict::Failed);
    }

    #[test]
    fn tags() {
        check(Conditions { matches: Some(b"\"a\""), ..NONE }, Verdict::Send);
        check(Conditions { matches: Some(b"\"b\""), ..NONE }, Verdict::Failed);
        check(Conditions { none_matches: Some(b"\"b\", W/\"a\""), ..NONE }, Verdict::NotModified);
        check(Conditions { none_matches: Some(b"\"b\""), ..NONE }, Verdict::Send);
        let both = |tag| Conditions { none_matches: Some(tag), modified_since: Some(SAME), ..NONE };
        check(both(b"\"a\""), Verdict::NotModified);
        check(both(b"\"b\""), Verdict::Send);
    }
}
