//! What a request knows of its backends: for variables and log lines.

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;

use ::upstream::{Group, Url};
use buf::{Buf, Bytes};
pub use common::backend::attempts::Attempt;
use expr::vars::Template;
use wire::Span;
use wire::h1::{KnownHeader, ResponseHead};

use crate::response::headers::Headers;

/// Where a request goes, with what variables tell of it.
pub struct Target {
    /// The servers.
    pub group: Rc<Group>,
    /// `http://` and the like, for log lines.
    pub scheme: &'static str,
    /// Whether it is spoken to over TLS.
    pub ssl: bool,
    /// `$proxy_host`
    pub host: Box<[u8]>,
    /// `$proxy_port`
    pub port: Box<[u8]>,
    /// The URI that replaces the location's prefix; empty for none.
    pub uri: Box<[u8]>,
    /// The key of a balancer that wants one.
    pub key: Option<Rc<Template>>,
}

impl Target {
    /// The target of a URL whose group is known.
    pub fn new(
        url: &Url,
        scheme: &'static str,
        default_port: u16,
        group: Rc<Group>,
        key: Option<Rc<Template>>,
    ) -> Target {
        let (host, port) = match url.port {
            _ if url.is_unix() => (b"localhost".to_vec(), Vec::new()),
            Some(port) if port != default_port => (url.authority.clone(), port.to_string().into_bytes()),
            _ => (url.host.clone(), default_port.to_string().into_bytes()),
        };
        let (host, port, uri) = (host.into(), port.into(), url.uri.as_slice().into());
        Target { group, scheme, ssl: false, host, port, uri, key }
    }
}

impl Target {
    /// The same over TLS, or not.
    #[must_use]
    pub fn over_ssl(self, ssl: bool) -> Target {
        Target { ssl, ..self }
    }
}

/// A request's dealings with backends.
#[derive(Default)]
pub struct Exchange {
    /// The attempts, first one first.
    pub attempts: RefCell<Vec<Attempt>>,
    /// Whether the request has left the location that asks: an internal redirect took it on.
    pub left: Cell<bool>,
    /// Where the requests go.
    pub target: RefCell<Option<Rc<Target>>>,
    /// What the backend is asked with, without the body.
    pub request: RefCell<Asked>,
    /// When the current attempt began, in the loop's milliseconds.
    pub started_ms: Cell<u64>,
    /// The bytes of the last response's head, with its parts.
    pub head: RefCell<(Bytes, ResponseHead)>,
    /// The trailers of the last response.
    pub trailers: RefCell<Headers>,
    /// `$proxy_internal_body_length`
    pub body_length: Cell<Option<u64>>,
    /// `$proxy_internal_chunked`
    pub chunked: Cell<bool>,
    /// Whether the backend is asked for a head alone.
    pub to_head: Cell<bool>,
    /// Whether the response is wanted whole, whatever the client asks for, and whether or not it stays.
    pub whole: Cell<bool>,
    /// Whether the backend is asked with GET in place of HEAD.
    pub as_get: Cell<bool>,
    /// What is known of the response, for conditions of our own.
    pub validators: RefCell<Option<Box<Validators>>>,
}

/// A request as a backend gets it.
#[derive(Debug)]
pub struct Asked {
    /// Its bytes, as its protocol has written them.
    pub head: Buf,
    /// Where in them the URI stands; empty if the protocol has none.
    pub uri_at: Span,
}

impl Default for Asked {
    fn default() -> Asked {
        Asked { head: Buf::empty(), uri_at: Span::default() }
    }
}

/// What a stored response is known by.
#[derive(Clone, Debug, Default)]
pub struct Validators {
    /// `Last-Modified`
    pub modified: Option<Bytes>,
    /// `ETag`
    pub etag: Option<Bytes>,
}

thread_local! {
    /// Empty ones, which nothing else refers to; their memory serves the next requests.
    static SPARE: RefCell<Vec<Rc<Exchange>>> = const { RefCell::new(Vec::new()) };
}

const MAX_SPARE: usize = 64;

/// Fields by which a client asks for a part of a response, or for none.
const CONDITIONS: [KnownHeader; 6] = [
    KnownHeader::Range,
    KnownHeader::IfRange,
    KnownHeader::IfMatch,
    KnownHeader::IfNoneMatch,
    KnownHeader::IfModifiedSince,
    KnownHeader::IfUnmodifiedSince,
];

impl Exchange {
    /// One for a request that meets its first backend.
    pub fn new() -> Rc<Exchange> {
        SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    /// Takes the exchange of a request that has ended, unless something else still refers to it.
    pub(crate) fn recycle(mut exchange: Rc<Exchange>) {
        let Some(unused) = Rc::get_mut(&mut exchange) else { return };
        unused.clear();
        // A thread that is ending has no list any more.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MAX_SPARE {
                spare.push(exchange);
            }
        });
    }

    /// Resets the exchange to the state of a new one and keeps its memory. The pattern names every field.
    fn clear(&mut self) {
        let Exchange {
            attempts,
            left,
            target,
            request,
            started_ms,
            head,
            trailers,
            body_length,
            chunked,
            to_head,
            whole,
            as_get,
            validators,
        } = self;
        (*whole.get_mut(), *as_get.get_mut(), *validators.get_mut()) = (false, false, None);
        attempts.get_mut().clear();
        let (bytes, parts) = head.get_mut();
        *bytes = Bytes::default();
        parts.clear();
        (*target.get_mut(), *request.get_mut()) = (None, Asked::default());
        trailers.get_mut().clear();
        (*left.get_mut(), *chunked.get_mut(), *to_head.get_mut()) = (false, false, false);
        (*started_ms.get_mut(), *body_length.get_mut()) = (0, None);
    }

    /// Another location asks: what belonged to the one before is gone.
    pub fn enter(&self) {
        self.left.set(false);
        self.target.take();
        self.body_length.set(Some(0));
        self.chunked.set(false);
        self.whole.set(false);
        self.as_get.set(false);
        self.validators.take();
    }

    /// The attempt's response doesn't count, or there is none yet.
    pub fn forget_head(&self) {
        let mut head = self.head.borrow_mut();
        head.0 = Bytes::default();
        head.1.clear();
    }

    /// Whether a field of the client's request is passed on. Where the whole response is wanted, ranges and conditions
    /// aren't.
    pub fn passes(&self, known: KnownHeader) -> bool {
        !self.whole.get() || !CONDITIONS.contains(&known)
    }

    /// The conditions that the request has for what is known of the response, as fields, if it has some.
    pub fn conditions(&self) -> Option<impl Iterator<Item = (KnownHeader, &'static str, Bytes)>> {
        let Validators { modified, etag } = self.validators.borrow().as_deref()?.clone();
        let modified = modified.map(|value| (KnownHeader::IfModifiedSince, "If-Modified-Since", value));
        Some(modified.into_iter().chain(etag.map(|value| (KnownHeader::IfNoneMatch, "If-None-Match", value))))
    }

    /// Notes the begin of an attempt.
    pub fn begin(&self, redirected: bool) {
        let mut attempts = self.attempts.borrow_mut();
        if !attempts.is_empty() {
            self.forget_head();
        }
        self.started_ms.set(rt::now_ms());
        attempts.push(Attempt { redirected, ..Attempt::default() });
    }

    /// Changes the current attempt.
    pub fn current(&self, change: impl FnOnce(&mut Attempt)) {
        if let Some(attempt) = self.attempts.borrow_mut().last_mut() {
            change(attempt);
        }
    }

    /// Milliseconds since the current attempt began.
    pub fn elapsed_ms(&self) -> u64 {
        rt::now_ms().saturating_sub(self.started_ms.get())
    }

    /// Notes the end of the current attempt, once.
    pub fn end(&self) {
        let elapsed = self.elapsed_ms();
        self.current(|attempt| {
            attempt.response_ms.get_or_insert(elapsed);
        });
    }

    /// The URI as the backend is asked for it.
    pub fn uri(&self) -> Ref<'_, [u8]> {
        Ref::map(self.request.borrow(), |asked| asked.uri_at.of(&asked.head))
    }

    /// The backend's URL, as log lines have it.
    pub fn url(&self) -> Option<String> {
        let attempts = self.attempts.borrow();
        let peer = attempts.last()?.peer.clone()?;
        let target = self.target.borrow();
        let scheme = target.as_ref().map_or("", |target| target.scheme);
        let uri = self.uri();
        let colon = if peer.starts_with("unix:") { ":" } else { "" };
        Some(format!("{scheme}{peer}{colon}{}", buf::text::encode(&uri)))
    }
}

#[cfg(test)]
mod tests {
    use ::upstream::GroupSpec;

    use super::*;
    use crate::reuse::{self, Members, members};

    fn shown(exchange: &Exchange) -> Members {
        members!(
            exchange,
            Exchange {
                attempts,
                left,
                target: target.borrow().is_some(),
                request,
                started_ms,
                head,
                trailers,
                body_length,
                chunked,
                to_head,
                whole,
                as_get,
                validators,
            }
        )
    }

    /// Changes every member.
    #[deny(unused_variables)]
    fn poison(exchange: &Exchange) {
        let Exchange {
            attempts,
            left,
            target,
            request,
            started_ms,
            head,
            trailers,
            body_length,
            chunked,
            to_head,
            whole,
            as_get,
            validators,
        } = exchange;
        let old = Bytes::from_static(b"old");
        attempts.borrow_mut().push(Attempt::default());
        let (group, key) = (Group::new(&GroupSpec::default()), None);
        let (host, port, own) = (Box::default(), Box::default(), Box::default());
        target.replace(Some(Rc::new(Target { group, scheme: "old://", ssl: true, host, port, uri: own, key })));
        validators.replace(Some(Box::new(Validators { modified: Some(old.clone()), etag: None })));
        request.borrow_mut().head.extend_from_slice(&old);
        request.borrow_mut().uri_at = Span::new(1, 2);
        started_ms.set(1);
        let mut head = head.borrow_mut();
        (head.0, head.1.status) = (old.clone(), 404);
        trailers.borrow_mut().push(old.clone(), old);
        body_length.set(Some(1));
        for flag in [left, chunked, to_head, whole, as_get] {
            flag.set(true);
        }
    }

    #[test]
    fn an_exchange_in_used_memory_is_as_new() {
        let exchange = Exchange::new();
        let (at, new) = (Rc::as_ptr(&exchange), shown(&exchange));
        poison(&exchange);
        let used = shown(&exchange);
        Exchange::recycle(exchange);
        let exchange = Exchange::new();
        assert!(std::ptr::eq(at, Rc::as_ptr(&exchange)), "the memory is used again");
        reuse::check(&new, &used, &shown(&exchange), &[]);
    }
}
