//! What requests with unsafe methods remove (RFC 9111 §4.4): the response that is stored for their URI, and those for
//! the URIs of the same origin that `Location` and `Content-Location` name.
//!
//! The text of a key is whatever the configuration makes of a request. That of another URI is known where the text ends
//! with the request's URI, as it does by default: the other URI takes its place.

use std::rc::Rc;

use ::cache::{Cache, Key};
use buf::Bytes;
use http::exchange::Exchange;
use http::request::Request;
use wire::h1::KnownHeader;
use wire::uri::{split_authority, split_url};

use super::Work;

/// What a request removes if it succeeds.
pub(super) struct Invalidation {
    pub(super) cache: Rc<Cache>,
    /// The text of the key of its URI.
    pub(super) text: Bytes,
}

/// A backend has answered a request with this status.
pub(super) fn answered(r: &mut Request, exchange: &Exchange, status: u16) {
    let Some(Invalidation { cache, text }) = r.lasting_slot::<Work>().invalidates.take() else { return };
    if !(200..400).contains(&status) {
        return;
    }
    cache.remove(&Key::of(&text));
    let head = exchange.head.borrow();
    let (bytes, head) = &*head;
    let (target, sent) = (exchange.target.borrow(), exchange.uri());
    let own = r.line.request_uri(&r.head);
    // The backend knows URIs as it is asked for them.
    let origins = [
        (r.header(KnownHeader::Host).unwrap_or_default(), own),
        (target.as_ref().map_or(&b""[..], |target| &target.host), &sent),
    ];
    for field in &head.headers {
        let name = field.name.of(bytes);
        if name.eq_ignore_ascii_case(b"Location") || name.eq_ignore_ascii_case(b"Content-Location") {
            let named = of_origin(field.value.of(bytes), &origins);
            if let Some(other) = named.and_then(|(uri, own)| in_place_of(&text, own, uri)) {
                cache.remove(&Key::of(&other));
            }
        }
    }
}

/// The path and the arguments that a reference names, and the request's own ones there. `origins`: hosts, each with the
/// latter; the first one is the client's, which references without a host mean. Relative paths aren't followed.
fn of_origin<'a>(reference: &'a [u8], origins: &[(&[u8], &'a [u8])]) -> Option<(&'a [u8], &'a [u8])> {
    let reference = reference.split(|byte| *byte == b'#').next().unwrap_or_default();
    let absolute = split_url(reference).map(|url| (url.authority, url.rest));
    let (path, own) = match absolute.or_else(|| reference.strip_prefix(b"//").map(split_authority)) {
        Some((host, path)) => {
            let (_, own) = origins.iter().find(|(own, _)| own.eq_ignore_ascii_case(host))?;
            (path, *own)
        }
        None => (reference, origins.first()?.1),
    };
    path.starts_with(b"/").then_some((path, own))
}

/// The text of a key with another URI in the place of the request's.
fn in_place_of(text: &[u8], own: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    Some([text.strip_suffix(own)?, other].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_the_same_origin() {
        let origins = [(&b"a.example:81"[..], &b"/own"[..]), (b"back", b"/sent")];
        for (reference, expect) in [
            ("/x?y", Some(("/x?y", "/own"))),
            ("/x#part", Some(("/x", "/own"))),
            ("http://A.example:81/x", Some(("/x", "/own"))),
            ("HTTPS://back/x/", Some(("/x/", "/sent"))),
            ("//back/x", Some(("/x", "/sent"))),
            ("http://a.example/x", None),
            ("http://other/x", None),
            ("//other/x", None),
            ("http://back", None),
            ("http://back?x", None),
            ("http:/x", None),
            ("ftp://back/x", None),
            ("x", None),
            ("", None),
        ] {
            let expect = expect.map(|(path, own)| (path.as_bytes(), own.as_bytes()));
            assert_eq!(of_origin(reference.as_bytes(), &origins), expect, "{reference}");
        }
    }

    #[test]
    fn keys_of_other_uris() {
        for (text, own, expect) in [
            ("http://back/a?b", "/a?b", Some("http://back/x")),
            ("/a", "/a", Some("/x")),
            ("/aGET", "/a", None),
            ("", "/a", None),
        ] {
            let other = in_place_of(text.as_bytes(), own.as_bytes(), b"/x");
            assert_eq!(other.as_deref(), expect.map(str::as_bytes), "{text}");
        }
    }
}
