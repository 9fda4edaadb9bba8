//! The engine: one way of a request through its backends, for all protocols.
//!
//! A request is written once and sent to one peer after the other, until one answers, none is left, or the
//! configuration says that it is enough. With a kept connection that takes one `send` and one `recv`.

use std::any::Any;
use std::rc::Rc;

use ::upstream::retry::Question;
use ::upstream::{Choice, Hints, Idle, Outcome};
use buf::{Buf, Bytes};
use engine::log::Level;
use http::exchange::{Asked, Exchange, Target};
use http::fault::{Fault, Retry, Source};
use http::module::LocationContext;
use http::phases::{Flow, Handler};
use http::request::Request;
use http::server::location::Handlers;
use wire::h1::{KnownHeader, Method};

use crate::attempt::{Failed, Outgoing};
use crate::cache::{self, Caching};
use crate::conf::{ConnectConf, UpstreamConf};
use crate::pass::{Aim, Destination, Named};
use crate::protocol::Protocol;
use crate::respond::{self, Answer, Next};
use crate::ssl::UpstreamTls;
use crate::sticky;
use crate::tunnel;

/// What a location's requests are passed to.
pub struct Backend {
    /// The directives that all protocols have.
    pub up: Rc<UpstreamConf>,
    /// How connections are made.
    pub connect: Rc<ConnectConf>,
    /// The protocol.
    pub protocol: Box<dyn Protocol>,
    /// Where the requests go.
    pub destination: Destination,
    /// Fields of responses that clients don't get.
    pub hidden: Hidden,
    /// The location, for connections that aren't shared.
    pub place: u32,
    /// How backends are spoken to over TLS.
    pub ssl: Option<Rc<UpstreamTls>>,
    /// How responses are stored, if they are.
    pub caching: Option<Rc<Caching>>,
}

/// A set of field names.
pub struct Hidden {
    known: u64,
    others: Vec<Vec<u8>>,
}

impl Hidden {
    /// The default names and those of `…_hide_header`, without those of `…_pass_header`.
    pub fn new(up: &UpstreamConf, default: &[&str]) -> Hidden {
        let mut hidden = Hidden { known: 0, others: Vec::new() };
        let all = default.iter().map(|name| name.as_bytes()).chain(up.hide_header.iter().map(Vec::as_slice));
        for name in all.filter(|name| !up.pass_header.iter().any(|pass| pass.eq_ignore_ascii_case(name))) {
            match KnownHeader::of(name) {
                KnownHeader::Other => hidden.others.push(name.to_ascii_lowercase()),
                known => hidden.known |= 1 << known as u8,
            }
        }
        hidden
    }

    /// The known names in the set, each a bit.
    pub(crate) fn known(&self) -> u64 {
        self.known
    }

    /// Whether a field is in the set.
    pub fn has(&self, known: KnownHeader, name: &[u8]) -> bool {
        match known {
            KnownHeader::Other => self.others.iter().any(|other| other.eq_ignore_ascii_case(name)),
            known => self.known & (1 << known as u8) != 0,
        }
    }
}

/// As [`ask`], for a location with a cache: whatever becomes of the request, its right to store a response ends.
async fn ask_with_cache(b: &Backend, r: &mut Request) -> Flow<'static> {
    let flow = ask(b, r).await;
    cache::dismiss(r);
    flow
}

/// Passes a request to a backend and makes the response.
async fn ask(b: &Backend, r: &mut Request) -> Flow<'static> {
    if let Some(status) = b.protocol.refuses(r) {
        return Flow::Status(status);
    }
    // Another backend may have had it.
    r.body.settle();
    let streamed = match b.streams_now(r) {
        Ok(streamed) => streamed,
        Err(fault) => return fault.into(),
    };
    let exchange = r.upstream.get_or_insert_with(Exchange::new).clone();
    exchange.enter();
    let aim = b.destination.aim(r);
    if let Ok(Aim::At(target)) = &aim {
        // Known from here on, whatever becomes of the body.
        *exchange.target.borrow_mut() = Some(target.clone());
    }
    if (r.body.exists() || r.body.is_awaited() || r.body.declared_length().is_some())
        && b.protocol.takes_body()
        && !streamed
        && let Err(fault) = Box::pin(r.read_body()).await
    {
        return fault.into();
    }
    if let Some(caching) = &b.caching
        && let Some(flow) = Box::pin(cache::begin(b, caching, r, &exchange)).await
    {
        return flow;
    }
    let target = match aim {
        Ok(Aim::At(target)) => Ok(target),
        // Few requests need it: it isn't to make their future larger.
        Ok(Aim::Name(named)) => Box::pin(b.look_up(r, &exchange, *named)).await,
        Err(fault) => Err(fault),
    };
    let target = match target {
        Ok(target) => target,
        Err(fault) => return fault.into(),
    };
    let mut redirected = !exchange.attempts.borrow().is_empty();
    let mut outgoing = match b.prepare(r, &exchange, streamed) {
        Ok(outgoing) => outgoing,
        Err(fault) => return fault.into(),
    };
    let mut choice = Choice::new(target.group.clone(), b.connect.next_upstream_tries);
    let key = target.key.as_ref().map(|key| r.render(key)).unwrap_or_default();
    let route = sticky::route(r, &target.group);
    let started_ms = rt::now_ms();
    loop {
        exchange.begin(std::mem::take(&mut redirected));
        let found = choice.advance(&Hints { addr: Some(&r.conn.peer), key: &key, route: &route });
        if !found && let Err(fault) = Box::pin(b.wait(r, &exchange, &mut choice, &key, &route)).await {
            return cache::failed(b, r, &exchange, fault).unwrap_or_else(|| fault.into());
        }
        if let Some(peer) = choice.peer() {
            exchange.current(|attempt| attempt.begin(peer));
        }
        let late = b.connect.is_late(started_ms);
        let attempted = b.attempt(r, &exchange, &choice, &mut outgoing).await;
        let terms = Terms { streamed: outgoing.is_streamed(r), started_ms, late };
        match b.conclude(r, &exchange, choice, attempted, terms) {
            Concluded::Flow(flow) => return flow,
            Concluded::Tunnel(parts) => return Box::pin(tunnel::run(b, r, &exchange, parts)).await,
            Concluded::Again(again) => choice = again,
        }
    }
}

/// What decides whether another peer is asked.
#[derive(Clone, Copy)]
struct Terms {
    /// The body can't be sent again.
    streamed: bool,
    started_ms: u64,
    /// No time is left for another attempt.
    late: bool,
}

/// What follows from an attempt.
enum Concluded {
    /// The request goes on so.
    Flow(Flow<'static>),
    /// The protocol was switched.
    Tunnel(Box<(Choice, Box<Idle>, Bytes)>),
    /// The next peer is asked.
    Again(Choice),
}

fn is_non_idempotent(r: &Request) -> bool {
    matches!(r.method, Method::Post | Method::Lock | Method::Patch)
}

/// Allocations above this size leave the allocator's fast path: each request makes one for its future.
const MAX_FUTURE: usize = 1032;

impl Handler for Backend {
    fn handle<'a>(&'a self, r: &'a mut Request) -> Flow<'a> {
        if self.caching.is_some() {
            return Flow::wait(ask_with_cache(self, r));
        }
        let future = ask(self, r);
        debug_assert!(size_of_val(&future) <= MAX_FUTURE, "{} bytes", size_of_val(&future));
        Flow::wait(future)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl Backend {
    /// Makes this the handler of a location; `depth` says how many blocks around it the directive stands. If the location
    /// is named like a folder and has the directive itself, a request for its name without the slash is redirected.
    pub fn install(self, out: &mut Handlers, cx: &LocationContext<'_, '_>, depth: usize) {
        out.content = vec![Rc::new(self)];
        out.exclusive = true;
        out.auto_redirect = depth == 0 && cx.name.last() == Some(&b'/');
    }

    /// Whether the request's body has to be passed on as it comes. One that is there already can be sent again.
    fn streams_now(&self, r: &mut Request) -> Result<bool, Fault> {
        if !self.streams_body(r) {
            return Ok(false);
        }
        let keeps_ready = self.protocol.keeps_ready_bodies() || r.body.declared_length().is_none();
        // It goes with its length.
        Ok(!(keeps_ready && r.read_ready_body()?))
    }

    /// Whether the request's body is passed on as it comes. A response that is stored doesn't depend on its client: all
    /// that it needs of the request is read before.
    fn streams_body(&self, r: &Request) -> bool {
        !self.up.request_buffering
            && !self.up.stores()
            && self.caching.is_none()
            && self.up.pass_request_body
            && !self.protocol.has_own_body()
            && r.body.exists()
            && r.body.buffered().is_none()
            && (r.body.declared_length().is_some() || self.protocol.sends_unknown_length())
    }

    /// What becomes of an attempt's result.
    fn conclude(
        &self,
        r: &mut Request,
        exchange: &Rc<Exchange>,
        mut choice: Choice,
        attempted: Result<Answer, Failed>,
        terms: Terms,
    ) -> Concluded {
        let failed = match attempted {
            Ok(answer) => match self.refuses(r, &choice, terms, &answer) {
                Some(fault) => {
                    answer.put_away(self, &mut choice);
                    fault.into()
                }
                None => {
                    let status = answer.reply.status;
                    let stored = self.caching.as_ref().and_then(|_| cache::answered(self, r, exchange, status));
                    if let Some(flow) = stored {
                        sticky::answered(r, &mut choice);
                        answer.put_away(self, &mut choice);
                        exchange.end();
                        choice.release(Outcome::Good);
                        return Concluded::Flow(flow);
                    }
                    return match respond::respond(self, r, exchange, choice, answer) {
                        Next::Flow(flow) => Concluded::Flow(flow),
                        Next::Tunnel(parts) => Concluded::Tunnel(parts),
                    };
                }
            },
            Err(failed) => failed,
        };
        exchange.forget_head();
        exchange.end();
        let fault = failed.fault;
        if fault.source() == Source::Upstream {
            if self.failed(r, exchange, &mut choice, failed, terms) {
                return Concluded::Again(choice);
            }
            if let Some(stored) = cache::failed(self, r, exchange, fault) {
                return Concluded::Flow(stored);
            }
        }
        Concluded::Flow(fault.into())
    }

    /// Where a host is that has to be looked up.
    async fn look_up(&self, r: &Request, exchange: &Exchange, named: Named) -> Result<Rc<Target>, Fault> {
        let target = self.unless_aborted(r, named.look_up(r)).await??;
        *exchange.target.borrow_mut() = Some(target.clone());
        Ok(target)
    }

    /// No peer can be chosen now: the request waits in the group's queue, if there is one.
    async fn wait(
        &self,
        r: &Request,
        exchange: &Exchange,
        choice: &mut Choice,
        key: &[u8],
        route: &[u8],
    ) -> Result<(), Fault> {
        let peer = r.conn.peer.clone();
        let hints = Hints { addr: Some(&peer), key, route };
        let found = match choice.group().has_queue() {
            false => Ok(false),
            true => self.unless_aborted(r, choice.wait(&hints)).await,
        };
        if choice.group().has_queue() {
            let elapsed = exchange.elapsed_ms();
            exchange.current(|attempt| attempt.queue_ms = Some(elapsed));
        }
        let fault = match found {
            Ok(true) => {
                exchange.started_ms.set(rt::now_ms());
                return Ok(());
            }
            Ok(false) => {
                let name = choice.group().name.clone();
                exchange.current(|attempt| attempt.peer = Some(name));
                Fault::NoLiveUpstreams.log(r)
            }
            Err(fault) => fault,
        };
        exchange.current(|attempt| attempt.status = fault.status());
        exchange.end();
        Err(fault)
    }

    /// Writes the request, unless each attempt writes its own.
    fn prepare(&self, r: &mut Request, exchange: &Exchange, streamed: bool) -> Result<Outgoing, Fault> {
        if self.up.request_dynamic {
            return Ok(Outgoing { streamed, ..Outgoing::default() });
        }
        self.write(r, exchange, streamed)
    }

    /// Writes the request.
    pub(super) fn write(&self, r: &mut Request, exchange: &Exchange, streamed: bool) -> Result<Outgoing, Fault> {
        let chunked = streamed && r.body.declared_length().is_none();
        let length = if chunked { None } else { r.body.known_length() };
        exchange.body_length.set(length);
        exchange.chunked.set(chunked);
        let mut out = Buf::with_capacity(1024);
        let uri_at = self.protocol.write_request(r, exchange, &mut out)?;
        exchange.request.replace(Asked { head: out, uri_at });
        let passes = self.up.pass_request_body && !self.protocol.has_own_body();
        let body = match r.body.buffered() {
            Some(body) if passes && body.len > 0 => body.pieces.clone(),
            _ => Vec::new(),
        };
        Ok(Outgoing { body, streamed })
    }

    /// Whether an answer's status sends the request on to the next server.
    fn refuses(&self, r: &Request, choice: &Choice, terms: Terms, answer: &Answer) -> Option<Fault> {
        let fault = Fault::of_answer(answer.reply.status)?;
        let tries = choice.tries.saturating_sub(1);
        self.may_retry(r, fault, tries, terms).then_some(fault)
    }

    /// After a fault of the peer: tells the group. Whether the next peer is asked.
    fn failed(
        &self,
        r: &Request,
        exchange: &Exchange,
        choice: &mut Choice,
        Failed { fault, stale }: Failed,
        terms: Terms,
    ) -> bool {
        let outcome = match fault {
            Fault::Answered403 | Fault::Answered404 => Outcome::Neutral,
            _ => Outcome::Failed,
        };
        if choice.release(outcome) {
            r.log_at(Level::Warn, format_args!("upstream server temporarily disabled while connecting to upstream"));
        }
        if stale {
            choice.forgive();
        }
        exchange.current(|attempt| attempt.status = fault.status());
        self.may_retry(r, fault, choice.tries, Terms { late: self.connect.is_late(terms.started_ms), ..terms })
    }

    /// Whether the next peer may be asked after a fault.
    fn may_retry(&self, r: &Request, fault: Fault, tries: u32, terms: Terms) -> bool {
        let (kind, sent) = match fault.retry() {
            Retry::Never => return false,
            Retry::Unsent(kind) => (kind, false),
            Retry::Sent(kind) => (kind, true),
        };
        let question = Question {
            kind,
            allowed: self.up.next_upstream,
            tries,
            sent,
            non_idempotent: is_non_idempotent(r),
            body_lost: terms.streamed,
            late: terms.late,
        };
        question.again()
    }
}
