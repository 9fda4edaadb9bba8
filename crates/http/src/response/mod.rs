//! A response: what a handler makes, what filters change, what the session sends.

mod browser;
pub mod charset;
pub mod compress;
pub mod error_page;
pub mod field;
pub mod gzip;
pub mod head;
pub mod headers;
mod memory;
pub mod range;
pub mod respond;

use std::rc::Rc;

use buf::{Bytes, Piece};
use wire::h1::KnownHeader;

use crate::body::BodyFilter;
use crate::files::made::Made;
use crate::request::Request;

pub use self::headers::{Header, Headers, Place};
pub use crate::body::Body;
pub use memory::fields;
pub use respond::{Answer, respond};

/// A response to a request.
///
/// Each field of its head has one place. Members of their own have those that are more than a text to the server: the
/// length, which is the body's, the time, which conditions compare, and the type, whose charset comes apart from it. All
/// others stand in `headers`.
#[derive(Default)]
pub struct Response {
    /// The status; 0 while there is none.
    pub status: u16,
    /// The status line after the version, if it isn't the usual one (from a backend).
    pub status_line: Option<Bytes>,
    /// `Content-Type` without a charset parameter that a filter adds.
    pub content_type: Option<Bytes>,
    /// A charset to be named in `Content-Type`.
    pub charset: Option<Bytes>,
    /// `Content-Length`, and the exact length of the body.
    pub content_length: Option<u64>,
    /// `Last-Modified`, in seconds since 1970. A backend's that isn't written as times are stands in `headers`.
    pub last_modified: Option<i64>,
    /// All other fields. `ETag` has a fixed place, and so has a `Location` of our own making: if it is a path, it gets
    /// scheme and host as `absolute_redirect` says.
    pub headers: Headers,
    /// Fields after a chunked body.
    pub trailers: Headers,
    /// Adds to `trailers` after the body; a response that has this is sent in chunks if the client knows them.
    pub late_trailers: Option<LateTrailers>,
    /// Whether the range filter may act: the body is the whole representation.
    pub allow_ranges: bool,
    /// Ranges are served whatever the body is (only the first of several).
    pub single_range: bool,
    /// Whether `If-Modified-Since` doesn't count beside `If-None-Match` (RFC 9110 §13.2.2); by nginx's rules both do.
    pub tags_alone: bool,
    /// How many bytes of the whole representation come before the body.
    pub body_offset: u64,
    /// Whether the head is a backend's: its fields are kept, and conditions of the request aren't applied to it.
    pub disable_not_modified: bool,
    /// Whether `Date` and `Server` come from a backend and stand among the fields.
    pub own_date: bool,
    /// As `own_date`, for `Server`.
    pub own_server: bool,
    /// Whether the body is sent without a head, because the backend sent none (HTTP/0.9).
    pub headless: bool,
    /// Whether the body is sent in chunks; decided when the head is made.
    pub chunked: bool,
    /// Whether the response has no body by its nature (HEAD, 204, 304).
    pub header_only: bool,
    /// Whether `Vary: Accept-Encoding` applies.
    pub gzip_vary: bool,
    /// The body.
    pub body: Body,
    /// The filters of the body, in order.
    pub filters: Vec<Box<dyn BodyFilter>>,
    /// The file that a handler has made the body, if its contents are kept in memory.
    pub kept_file: Option<KeptFile>,
}

/// A file whose contents are kept in memory.
#[derive(Clone, Debug)]
pub struct KeptFile {
    /// The contents.
    pub contents: Bytes,
    /// What users of them have made of them.
    pub made: Made,
}

/// A request's slot with the charset that a backend has asked for its response.
#[derive(Default)]
pub struct AskedCharset(pub Option<Bytes>);

/// A subrequest's slot with the charset of the page that its response becomes a part of, where the page names one.
#[derive(Default)]
pub struct PageCharset(pub Option<Bytes>);

impl PageCharset {
    /// Tells a subrequest the charset of its parent's page.
    pub(crate) fn hand_on(parent: &Request, child: &mut Request) {
        let charset = match parent.is_subrequest() {
            true => parent.find_slot::<PageCharset>().and_then(|page| page.0.clone()),
            false => parent.response.named_charset(),
        };
        if charset.is_some() {
            child.slot::<PageCharset>().0 = charset;
        }
    }
}

/// What adds trailers to a response.
pub(crate) type LateTrailers = Rc<dyn Fn(&mut Request)>;

impl Response {
    /// Resets the response and keeps its memory. Field by field: most of them hold nothing. The pattern names every field.
    #[deny(unused_variables)]
    pub fn clear(&mut self) {
        let Response {
            status,
            status_line,
            content_type,
            charset,
            content_length,
            last_modified,
            headers,
            trailers,
            late_trailers,
            allow_ranges,
            single_range,
            tags_alone,
            body_offset,
            disable_not_modified,
            own_date,
            own_server,
            headless,
            chunked,
            header_only,
            gzip_vary,
            body,
            filters,
            kept_file,
        } = self;
        (*status, *body_offset, *content_length, *last_modified) = (0, 0, None, None);
        (*status_line, *content_type, *charset, *late_trailers) = (None, None, None, None);
        for fields in [headers, trailers] {
            if !fields.is_empty() {
                fields.clear();
            }
        }
        for flag in [allow_ranges, single_range, tags_alone, disable_not_modified, own_date, own_server] {
            *flag = false;
        }
        for flag in [headless, chunked, header_only, gzip_vary] {
            *flag = false;
        }
        *body = Body::Empty;
        if !filters.is_empty() {
            filters.clear();
        }
        if kept_file.is_some() {
            *kept_file = None;
        }
    }

    /// The file whose contents are the body, unless something has changed that.
    pub(crate) fn unchanged_file(&self) -> Option<&KeptFile> {
        let Body::Chain(chain) = &self.body else { return None };
        let file = self.kept_file.as_ref().filter(|_| self.filters.is_empty())?;
        let is_body = matches!(chain.pieces(), [Piece::Bytes(bytes)] if bytes.is_same(&file.contents));
        is_body.then_some(file)
    }

    /// Appends the value of `Content-Type`; false if there is none.
    pub fn content_type_text(&self, out: &mut Vec<u8>) -> bool {
        let Some(content_type) = &self.content_type else { return false };
        out.extend_from_slice(content_type);
        if let Some(charset) = &self.charset {
            out.extend_from_slice(b"; charset=");
            out.extend_from_slice(charset);
        }
        true
    }

    /// Removes the challenge of an access handler that would have refused, after another handler has allowed the
    /// request.
    pub(crate) fn clear_challenge(&mut self) {
        self.headers.remove(KnownHeader::WwwAuthenticate);
        self.headers.remove(KnownHeader::ProxyAuthenticate);
    }

    /// Removes the length, which is unknown once a filter changes the body.
    pub fn clear_length(&mut self) {
        self.content_length = None;
    }

    /// Removes ranges and makes the validator weak, because a filter changes the body; one that isn't quoted can't be weak.
    pub fn weaken(&mut self) {
        self.allow_ranges = false;
        self.headers.remove(KnownHeader::AcceptRanges);
        match self.headers.fixed_mut(KnownHeader::ETag) {
            None => {}
            Some(etag) if etag.starts_with(b"W/") => {}
            Some(etag) if etag.starts_with(b"\"") => *etag = Bytes::from([b"W/", &etag[..]].concat()),
            Some(_) => self.headers.remove(KnownHeader::ETag),
        }
    }

    /// Removes the time and the tag, because the body depends on more than the response's source.
    pub fn clear_validators(&mut self) {
        self.last_modified = None;
        for known in [KnownHeader::LastModified, KnownHeader::ETag] {
            self.headers.remove(known);
        }
    }
}

/// The text of a status line for a status, where there is one.
pub fn reason(status: u16) -> Option<&'static str> {
    Some(match status {
        200 => "200 OK",
        201 => "201 Created",
        202 => "202 Accepted",
        204 => "204 No Content",
        206 => "206 Partial Content",
        301 => "301 Moved Permanently",
        302 => "302 Moved Temporarily",
        303 => "303 See Other",
        304 => "304 Not Modified",
        307 => "307 Temporary Redirect",
        308 => "308 Permanent Redirect",
        400 => "400 Bad Request",
        401 => "401 Unauthorized",
        402 => "402 Payment Required",
        403 => "403 Forbidden",
        404 => "404 Not Found",
        405 => "405 Not Allowed",
        406 => "406 Not Acceptable",
        407 => "407 Proxy Authentication Required",
        408 => "408 Request Time-out",
        409 => "409 Conflict",
        410 => "410 Gone",
        411 => "411 Length Required",
        412 => "412 Precondition Failed",
        413 => "413 Request Entity Too Large",
        414 => "414 Request-URI Too Large",
        415 => "415 Unsupported Media Type",
        416 => "416 Requested Range Not Satisfiable",
        421 => "421 Misdirected Request",
        425 => "425 Too Early",
        426 => "426 Upgrade Required",
        429 => "429 Too Many Requests",
        500 => "500 Internal Server Error",
        501 => "501 Not Implemented",
        502 => "502 Bad Gateway",
        503 => "503 Service Temporarily Unavailable",
        504 => "504 Gateway Time-out",
        505 => "505 HTTP Version Not Supported",
        507 => "507 Insufficient Storage",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use buf::Chain;

    use super::*;
    use crate::body::Broken;
    use crate::files::made::Room;
    use crate::reuse::{self, Members, members};

    struct Nothing;

    impl BodyFilter for Nothing {
        fn apply(&mut self, _: Chain, _: bool, _: bool, _: &mut Chain) -> Result<(), Broken> {
            Ok(())
        }
    }

    impl Response {
        pub(crate) fn members(&self) -> Members {
            members!(
                self,
                Response {
                    status,
                    status_line,
                    content_type,
                    charset,
                    content_length,
                    last_modified,
                    headers,
                    trailers,
                    late_trailers: late_trailers.is_some(),
                    allow_ranges,
                    single_range,
                    tags_alone,
                    body_offset,
                    disable_not_modified,
                    own_date,
                    own_server,
                    headless,
                    chunked,
                    header_only,
                    gzip_vary,
                    body: matches!(body, Body::Empty),
                    filters: filters.len(),
                    kept_file: kept_file.is_some(),
                }
            )
        }

        /// Changes every member.
        #[deny(unused_variables)]
        pub(crate) fn poison(&mut self) {
            let Response {
                status,
                status_line,
                content_type,
                charset,
                content_length,
                last_modified,
                headers,
                trailers,
                late_trailers,
                allow_ranges,
                single_range,
                tags_alone,
                body_offset,
                disable_not_modified,
                own_date,
                own_server,
                headless,
                chunked,
                header_only,
                gzip_vary,
                body,
                filters,
                kept_file,
            } = self;
            let old = Bytes::from_static(b"old");
            *status = 404;
            for text in [status_line, content_type, charset] {
                *text = Some(old.clone());
            }
            (*content_length, *last_modified) = (Some(3), Some(3));
            headers.push(old.clone(), old.clone());
            headers.set_fixed(KnownHeader::ETag, old.clone());
            trailers.push(old.clone(), old.clone());
            *late_trailers = Some(Rc::new(|_| {}));
            *body_offset = 3;
            for flag in [tags_alone, allow_ranges, single_range, disable_not_modified, own_date, own_server] {
                *flag = true;
            }
            for flag in [headless, chunked, header_only, gzip_vary] {
                *flag = true;
            }
            *kept_file = Some(KeptFile { contents: old.clone(), made: Made::new(&Room::new(0)) });
            *body = Body::Chain(Chain::from(old));
            filters.push(Box::new(Nothing));
        }
    }

    #[test]
    fn a_cleared_response_is_as_new() {
        let mut response = Response::default();
        let new = response.members();
        response.poison();
        let used = response.members();
        response.clear();
        reuse::check(&new, &used, &response.members(), &[]);
    }
}
