//! `$upstream_…` and `$proxy_…`.

use ::upstream::Url;
use buf::number::digits;
use common::backend::attempts::{self, Attempt};
use expr::vars::Flags;
use http::exchange::Exchange;
use http::request::Request;
use http::request::variables::{Getter, Setup, address, put, show, show_seconds};
use http::response::headers::same_name;
use wire::h1::KnownHeader;

use crate::{cache, respond};

/// Defines the variables.
pub(super) fn define(setup: &mut Setup) {
    let live = Flags::NOCACHEABLE;
    let prefix = Flags::PREFIX | Flags::NOCACHEABLE;
    http::variables! { setup, "ngx_http_upstream_module";
        /// The addresses of the servers that were asked, in order; joined by commas, and by colons after an
        /// internal redirect. Empty if none was.
        "upstream_addr", live, Getter::Plain(addr);
        /// The statuses of the backends' responses; `-` where there was none. Joined like `$upstream_addr`.
        "upstream_status", live, Getter::Plain(status);
        /// The times that connecting to backends took, in seconds with milliseconds, with TLS's handshake. `-`
        /// where it failed. Joined like `$upstream_addr`.
        "upstream_connect_time", live, Getter::Plain(|r, out| times(r, out, |attempt| attempt.connect_ms));
        /// The times until the backends' responses had their heads, in seconds with milliseconds. `-` where
        /// there was none. Joined like `$upstream_addr`.
        "upstream_header_time", live, Getter::Plain(|r, out| times(r, out, |attempt| attempt.header_ms));
        /// The times until the backends' responses were complete, in seconds with milliseconds. Joined like
        /// `$upstream_addr`.
        "upstream_response_time", live, Getter::Plain(response_time);
        /// The lengths of the backends' responses' bodies, in bytes. Joined like `$upstream_addr`.
        "upstream_response_length", live, Getter::Plain(|r, out| counts(r, out, |attempt| attempt.length));
        /// How many bytes backends sent. Joined like `$upstream_addr`.
        "upstream_bytes_received", live, Getter::Plain(|r, out| counts(r, out, |attempt| attempt.received));
        /// How many bytes were sent to backends. Joined like `$upstream_addr`.
        "upstream_bytes_sent", live, Getter::Plain(|r, out| counts(r, out, |attempt| attempt.sent));
        /// The times that the request waited in the queues of groups, in seconds with milliseconds. `-` where it didn't
        /// wait. Joined like `$upstream_addr`.
        "upstream_queue_time", live, Getter::Plain(|r, out| times(r, out, |attempt| attempt.queue_ms));
        /// The address of the server that was asked last. Empty if none was.
        "upstream_last_addr", live, Getter::Plain(last_addr);
        /// The name of the server that was asked last, as `server` or `proxy_pass` has it, without the port. Empty if
        /// none was.
        "upstream_last_server_name", live, Getter::Plain(last_server_name);
        /// What the cache did: `MISS`, `BYPASS`, `EXPIRED`, `STALE`, `UPDATING`, `REVALIDATED` or `HIT`. Empty if the
        /// response could not be stored by its method, or there is no cache.
        "upstream_cache_status", live, Getter::Plain(cache::variables::status);
        /// The key under which the cache looked for the response. Empty if it didn't.
        "upstream_cache_key", live, Getter::Plain(cache::variables::key);
        /// `Last-Modified` of the stored response that is being updated. Empty if there is none.
        "upstream_cache_last_modified", live | Flags::NOHASH, Getter::Plain(cache::variables::last_modified);
        /// `ETag` of the stored response that is being updated. Empty if there is none.
        "upstream_cache_etag", live | Flags::NOHASH, Getter::Plain(cache::variables::etag);
        /// A field of the last backend's response by its name, in lower case and with underscores for dashes.
        /// Empty if there is none.
        "upstream_http_", prefix, Getter::Family(http);
        /// A field after the body of the last backend's response by its name, in lower case and with
        /// underscores for dashes. Empty if there is none.
        "upstream_trailer_", prefix, Getter::Family(trailer);
        /// The cookie of that name that the last backend sets. Empty if it sets none.
        "upstream_cookie_", prefix, Getter::Family(cookie);
    }
    let hidden = Flags::NOHASH;
    let settable = Flags::CHANGEABLE | Flags::NOCACHEABLE | Flags::NOHASH;
    http::variables! { setup, "ngx_http_proxy_module";
        /// The host, with the port if there is one, that `proxy_pass` names. Empty without `proxy_pass`.
        "proxy_host", settable, Getter::Plain(|r, out| target(r, out, |target| &target.host));
        /// The port in `proxy_pass`, or that of its scheme. Empty without `proxy_pass`.
        "proxy_port", settable, Getter::Plain(|r, out| target(r, out, |target| &target.port));
        /// The request's field `X-Forwarded-For` with the client's address appended to it, after a comma; that
        /// address alone if there is no such field.
        "proxy_add_x_forwarded_for", hidden, Getter::Plain(forwarded_for);
        /// The request's field `Via` with this server appended to it, after a comma; this server alone if there
        /// is no such field.
        "proxy_add_via", hidden, Getter::Plain(via);
        /// The length of the body that is sent to the backend. Empty if it isn't known.
        "proxy_internal_body_length", hidden | live, Getter::Plain(body_length);
        /// `chunked` if the body is sent to the backend in chunks, else empty.
        "proxy_internal_chunked", hidden | live, Getter::Plain(chunked);
    }
}

/// Shows something of the attempts so far; without any there is no value.
fn of_attempts(r: &Request, show: impl FnOnce(&[Attempt]) -> bool) -> bool {
    r.upstream.as_ref().is_some_and(|exchange| show(&exchange.attempts.borrow()))
}

fn addr(r: &mut Request, out: &mut Vec<u8>) -> bool {
    of_attempts(r, |attempts| attempts::addresses(attempts, out))
}

fn last_addr(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let Some(exchange) = &r.upstream else { return false };
    let attempts = exchange.attempts.borrow();
    attempts.last().and_then(|attempt| attempt.peer.as_ref()).is_some_and(|peer| put(out, peer.as_bytes()))
}

fn last_server_name(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let Some(exchange) = &r.upstream else { return false };
    let attempts = exchange.attempts.borrow();
    let Some(server) = attempts.last().and_then(|attempt| attempt.server.as_deref()) else { return false };
    let url = Url::parse(server.as_bytes(), false);
    url.is_ok_and(|url| put(out, &url.host))
}

fn status(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let each = |attempt: &Attempt, out: &mut Vec<u8>| match attempt.status {
        0 => out.push(b'-'),
        status => {
            show(out, format_args!("{status}"));
        }
    };
    of_attempts(r, |attempts| attempts::join(attempts, out, each))
}

fn times(r: &mut Request, out: &mut Vec<u8>, of: fn(&Attempt) -> Option<u64>) -> bool {
    of_attempts(r, |attempts| attempts::times(attempts, out, of))
}

fn response_time(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let Some(exchange) = &r.upstream else { return false };
    let elapsed = exchange.elapsed_ms();
    let attempts = exchange.attempts.borrow();
    let mut left = attempts.len();
    attempts::join(&attempts, out, |attempt, out| {
        left -= 1;
        // A response isn't over before its head went out, even if its body is there.
        if left == 0 && attempt.header_ms.is_some() && r.header_sent == 0 {
            out.push(b'-');
        } else {
            show_seconds(out, attempt.response_ms.unwrap_or(elapsed));
        }
    })
}

fn counts(r: &mut Request, out: &mut Vec<u8>, of: fn(&Attempt) -> u64) -> bool {
    of_attempts(r, |attempts| attempts::counts(attempts, out, of))
}

fn http(r: &mut Request, name: &str, out: &mut Vec<u8>) -> bool {
    let Some(exchange) = &r.upstream else { return false };
    let head = exchange.head.borrow();
    let (bytes, head) = &*head;
    let mut found = false;
    for header in head.headers.iter().filter(|header| same_name(header.name.of(bytes), name)) {
        if std::mem::replace(&mut found, true) {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(header.value.of(bytes));
        if respond::is_single(header.known) {
            break;
        }
    }
    // As in nginx, these two are there in each head of HTTP/1, if empty.
    found || (matches!(name, "server" | "date") && (1000..2000).contains(&head.version))
}

fn trailer(r: &mut Request, name: &str, out: &mut Vec<u8>) -> bool {
    r.upstream.as_ref().is_some_and(|exchange| exchange.trailers.borrow().variable(name, out))
}

fn cookie(r: &mut Request, name: &str, out: &mut Vec<u8>) -> bool {
    let Some(exchange) = &r.upstream else { return false };
    let head = exchange.head.borrow();
    let (bytes, head) = &*head;
    for header in head.headers.iter().filter(|header| header.known == KnownHeader::SetCookie) {
        let pair = header.value.of(bytes).split(|b| *b == b';').next().unwrap_or_default();
        let Some(at) = pair.iter().position(|b| *b == b'=') else { continue };
        let (own, value) = pair.split_at(at);
        if trim_spaces(own).eq_ignore_ascii_case(name.as_bytes()) {
            return put(out, trim_spaces(value.get(1..).unwrap_or_default()));
        }
    }
    false
}

/// Without the spaces (and no other white space) around it.
fn trim_spaces(text: &[u8]) -> &[u8] {
    let from = text.iter().position(|b| *b != b' ').unwrap_or(text.len());
    let to = text.iter().rposition(|b| *b != b' ').map_or(from, |at| at + 1);
    text.get(from..to).unwrap_or_default()
}

/// The exchange that belongs to the request's location.
fn here(r: &Request) -> Option<&Exchange> {
    r.upstream.as_deref().filter(|exchange| !exchange.left.get())
}

fn target(r: &mut Request, out: &mut Vec<u8>, of: fn(&http::exchange::Target) -> &[u8]) -> bool {
    let Some(exchange) = here(r) else { return false };
    let target = exchange.target.borrow();
    let of_proxy_pass = target.as_ref().filter(|target| target.scheme.starts_with("http"));
    of_proxy_pass.is_some_and(|target| put(out, of(target)))
}

fn forwarded_for(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let mut any = false;
    for header in r.line.headers.iter().filter(|header| header.known == KnownHeader::XForwardedFor) {
        if std::mem::replace(&mut any, true) {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(header.value.of(&r.head));
    }
    if any {
        out.extend_from_slice(b", ");
    }
    address(out, &r.conn.peer)
}

fn via(r: &mut Request, out: &mut Vec<u8>) -> bool {
    for header in r.line.headers.iter().filter(|header| header.known == KnownHeader::Via) {
        out.extend_from_slice(header.value.of(&r.head));
        out.extend_from_slice(b", ");
    }
    let version = r.line.version;
    show(out, format_args!("{}.{} {}", version / 1000, version % 1000, r.http.hostname))
}

fn body_length(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let Some(length) = here(r).and_then(|exchange| exchange.body_length.get()) else { return false };
    put(out, digits(length, &mut [0; 20]))
}

fn chunked(r: &mut Request, out: &mut Vec<u8>) -> bool {
    here(r).is_some_and(|exchange| exchange.chunked.get()) && put(out, b"chunked")
}
