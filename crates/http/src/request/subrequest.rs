//! Subrequests: requests that the server makes on behalf of a client's request, for the module that asked for them.
//!
//! A subrequest is a [`Request`] without a client. It goes through the same phases and filters, but for access checks
//! (those of its parent hold) and the filters that concern the client's response alone. It is polled by its parent, so
//! several run side by side; dropping it ends it. What it stores in variables its parent sees once it is over.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use buf::Chain;
use common::slots::Slots;
use wire::h1::Method;

use super::facts::ConnectionFacts;
use super::{Delivery, Request, UriSource};
use crate::body::files::FileRule;
use crate::body::{Body, Broken, Pipeline, Portion};
use crate::fault::Fault;
use crate::phases::Resume;
use crate::response::{Answer, Headers, PageCharset, fields, respond};
use crate::server::Http;
use crate::server::location::Location;

/// How deep subrequests may be nested.
pub const MAX_DEPTH: u8 = 51;
/// How many subrequests one request of a client may have at a time, whatever their depth.
pub(crate) const MAX_SUBREQUESTS: u32 = 64_535;

/// The longest rest of a response that is read although nobody wants it, so that the connection to the backend can be kept.
const MAX_DRAINED: u64 = 64 << 10;

/// What to request.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubRequest<'a> {
    /// The path, decoded.
    pub uri: &'a [u8],
    /// The query, without `?`.
    pub args: &'a [u8],
    /// Whether it has its parent's method; else it is a GET.
    pub with_method: bool,
    /// Whether it has its parent's body, if that was read whole.
    pub with_body: bool,
}

/// What a request and its subrequests have in common.
#[derive(Default)]
pub(super) struct Family {
    /// How many subrequests there are at the moment.
    count: Cell<u32>,
    /// The log was told that they are nested too deeply, or too many: once, since one page may ask for thousands.
    told: Cell<bool>,
    /// What modules keep.
    slots: RefCell<Slots>,
    /// `$request_id`, once it has been read.
    pub(super) id: OnceCell<String>,
    /// How many subrequests go on that the close of the connection waits for.
    following: Cell<u32>,
    /// One of them has ended.
    followed: rt::Event,
}

impl Family {
    /// That of a request which knows its identifier by now, or doesn't, and what modules keep for it.
    fn new(id: Option<String>, slots: Slots) -> Rc<Family> {
        let family = Family { slots: RefCell::new(slots), ..Family::default() };
        id.map(|id| family.id.set(id));
        Rc::new(family)
    }
}

/// The response to a subrequest, while it is made and taken.
pub struct SubResponse(State);

enum State {
    /// The phases are running.
    Making(Pin<Box<dyn Future<Output = Made>>>),
    /// The head is there.
    Made(Made, Option<Box<Pipeline>>),
    Over,
}

/// A request with its answer.
struct Made(Box<Request>, Answer, Counted);

/// Counts a subrequest of a family, until it is dropped.
struct Counted(Rc<Family>);

impl Counted {
    /// `None` if there are as many as may be.
    fn new(family: &Rc<Family>) -> Option<Counted> {
        let count = family.count.get();
        (count < MAX_SUBREQUESTS).then(|| {
            family.count.set(count + 1);
            Counted(family.clone())
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
    }
}

impl Request {
    /// Whether it is a subrequest.
    pub fn is_subrequest(&self) -> bool {
        self.depth > 0
    }

    /// `$request_id`, if it has been read.
    pub(crate) fn known_id(&self) -> Option<&String> {
        self.family.as_ref().map_or(self.id.as_ref(), |family| family.id.get())
    }

    /// Uses the state of a module for the client's request and all its subrequests, made when first asked for. A request
    /// without subrequests has it by itself.
    pub fn with_family_slot<T: Any + Default, R>(&mut self, f: impl FnOnce(&mut T) -> R) -> R {
        match &self.family {
            Some(family) => f(family.slots.borrow_mut().shared_entry()),
            None => f(self.vars.slots.shared_entry()),
        }
    }

    fn family(&mut self) -> &Rc<Family> {
        let (id, slots) = (&mut self.id, &mut self.vars.slots);
        self.family.get_or_insert_with(|| Family::new(id.take(), slots.split_off_shared()))
    }

    /// Whether something that the request has begun beside its response goes on.
    pub(crate) fn is_followed(&self) -> bool {
        self.family.as_ref().is_some_and(|family| family.following.get() > 0)
    }

    /// Waits for what the request has begun beside its response, such as the update of a stored one, as long as the client
    /// stays.
    pub(crate) async fn wait_for_following(&mut self) {
        let Some(family) = self.family.clone() else { return };
        while family.following.get() > 0 {
            let seen = family.followed.count();
            let client = self.client();
            let left = poll_fn(|cx| match family.followed.poll_since(cx, seen) {
                Poll::Ready(()) => Poll::Ready(false),
                Poll::Pending => client.map_or(Poll::Pending, |client| client.poll_hangup(cx)).map(|()| true),
            });
            if left.await {
                return;
            }
        }
    }

    /// Begins a subrequest, in the server of this request. Nothing happens before the response is polled. An error
    /// if that exceeds the limits on depth and number.
    pub fn sub_request(&mut self, ask: &SubRequest<'_>) -> Result<SubResponse, Fault> {
        self.sub_request_with(ask, |_| {})
    }

    /// As [`Request::sub_request`]; `prepare` may change the subrequest before it begins.
    pub fn sub_request_with(
        &mut self,
        ask: &SubRequest<'_>,
        prepare: impl FnOnce(&mut Request),
    ) -> Result<SubResponse, Fault> {
        let (mut child, counted) = self.child(ask.uri)?;
        child.location.clone_from(&self.server.root);
        child.method = if ask.with_method { self.method } else { Method::Get };
        child.uri.extend_from_slice(ask.uri);
        child.uri_source = UriSource::Server;
        child.args.extend_from_slice(ask.args);
        child.internal = true;
        if ask.with_body {
            child.body = self.body.shared();
        }
        prepare(&mut child);
        Ok(SubResponse::of(child, counted))
    }

    /// Begins a subrequest that repeats this request from the content phase of its location on; `prepare` may change it.
    /// Errors are as for [`Request::sub_request`].
    pub fn clone_request(&mut self, prepare: impl FnOnce(&mut Request)) -> Result<SubResponse, Fault> {
        let uri = self.uri.clone();
        let (mut child, counted) = self.child(&uri)?;
        child.location.clone_from(&self.location);
        child.method = self.method;
        child.uri = uri;
        (child.uri_source, child.uri_fit) = (self.uri_source, self.uri_fit);
        child.args.extend_from_slice(&self.args);
        child.vars.captures.clone_from(&self.vars.captures);
        child.slots.copy_from(&self.slots);
        child.internal = self.internal;
        child.resume = Resume::Content;
        child.body = self.body.shared();
        prepare(&mut child);
        Ok(SubResponse::of(child, counted))
    }

    /// A subrequest, without what it asks for.
    fn child(&mut self, uri: &[u8]) -> Result<(Box<Request>, Counted), Fault> {
        let family = self.family().clone();
        let room = match self.depth {
            MAX_DEPTH => Err(Fault::SubrequestCycle),
            _ => Counted::new(&family).ok_or(Fault::TooManySubrequests),
        };
        let counted = room.map_err(|fault| match family.told.replace(true) {
            false => fault.log_with(self, &buf::text::encode(uri)),
            true => fault,
        })?;
        self.know_local_addr();
        let mut child = Request::take_spare(&self.conn.address, &self.http);
        child.conn.clone_from(&self.conn);
        child.relay.clone_from(&self.relay);
        child.number = self.number;
        child.server.clone_from(&self.server);
        child.head.clone_from(&self.head);
        child.line.clone_from(&self.line);
        child.host.clone_from(&self.host);
        child.vars.copy_values(&self.vars);
        child.start_ms = rt::now_ms();
        (child.family, child.depth) = (Some(family), self.depth + 1);
        PageCharset::hand_on(self, &mut child);
        Ok((child, counted))
    }
}

impl Request {
    /// A request of the server's own, without client and parent, in a location: for modules that ask a backend by
    /// themselves. No phase runs; whoever makes it ends it. `None` if nothing is listened on.
    pub fn apart(http: &Rc<Http>, location: &Rc<Location>, uri: &[u8], args: &[u8]) -> Option<Box<Request>> {
        let address = http.sockets.first()?.addresses.first()?;
        let mut r = Request::take_spare(address, http);
        r.conn = ConnectionFacts::nobody(address.clone());
        r.server.clone_from(&address.default);
        r.location.clone_from(location);
        r.method = Method::Get;
        r.uri.extend_from_slice(uri);
        r.uri_source = UriSource::Server;
        r.args.extend_from_slice(args);
        r.internal = true;
        r.start_ms = rt::now_ms();
        Some(r)
    }
}

impl SubResponse {
    fn of(mut child: Box<Request>, counted: Counted) -> SubResponse {
        SubResponse(State::Making(Box::pin(async move {
            let answer = respond(&mut child, None).await;
            Made(child, answer, counted)
        })))
    }

    /// Ready once the head of the response is there.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let State::Making(making) = &mut self.0 {
            self.0 = State::Made(ready!(making.as_mut().poll(cx)), None);
        }
        Poll::Ready(())
    }

    /// The subrequest with its response, once the head is there and until its body has been taken.
    pub fn request(&self) -> Option<&Request> {
        match &self.0 {
            State::Made(Made(r, ..), _) => Some(r),
            State::Making(_) | State::Over => None,
        }
    }

    /// The same, to evaluate variables of the subrequest, or to make it the parent of others.
    pub fn request_mut(&mut self) -> Option<&mut Request> {
        match &mut self.0 {
            State::Made(Made(r, ..), _) => Some(r),
            State::Making(_) | State::Over => None,
        }
    }

    /// The status of the response, once its head is there; 444 if there is to be none. 0 after the end.
    pub fn status(&self) -> u16 {
        self.request().map_or(0, |r| r.response.status)
    }

    /// Whether the response is the page of an error, or of a redirect, that this server has made.
    pub fn is_refused(&self) -> bool {
        self.request().is_some_and(|r| r.error_status != 0)
    }

    /// The fields of the response, once its head is there and until its body has been taken.
    pub fn fields(&self) -> Option<Headers> {
        self.request().map(fields)
    }

    /// The next portion of the body, through the filters of the subrequest; after the last one there are empty ones.
    /// With the last one `parent` has the variables that the subrequest has set.
    pub fn poll_portion(&mut self, parent: &mut Request, cx: &mut Context<'_>) -> Poll<Result<Portion, Broken>> {
        let portion = ready!(self.poll_body(cx));
        if portion.as_ref().map_or(true, |portion| portion.end) {
            self.finish(parent);
        }
        Poll::Ready(portion)
    }

    /// Ends the subrequest, however much of its body was taken; `parent` has the variables that it has set.
    pub fn finish(&mut self, parent: &mut Request) {
        self.end(Some(parent));
    }

    /// Appends what there is of the body to `out`; whether that was the last of it. A filter that has no more to wait for
    /// lets its pipeline pass it on before it asks again, so that a long body isn't gathered in memory.
    pub fn poll_into(
        &mut self,
        parent: &mut Request,
        cx: &mut Context<'_>,
        out: &mut Chain,
    ) -> Poll<Result<bool, Broken>> {
        let mut portion = ready!(self.poll_portion(parent, cx))?;
        out.append(&mut portion.chain);
        Poll::Ready(Ok(portion.end))
    }

    /// As [`SubResponse::poll_portion`], but the subrequest doesn't end with the last portion.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Portion, Broken>> {
        ready!(self.poll_head(cx));
        let (r, body) = match &mut self.0 {
            State::Made(Made(r, Answer::Response, _), body) => (r, body),
            // The connection is to be closed without a response: that is the client's.
            State::Made(Made(_, Answer::Nothing, _), _) => return Poll::Ready(Err(Broken)),
            _ => return Poll::Ready(Ok(Portion { end: true, ..Portion::default() })),
        };
        let body = body.get_or_insert_with(|| Box::new(Pipeline::new(&mut r.response, FileRule::READER)));
        let portion = ready!(body.poll_portion(r, cx));
        if portion.as_ref().map_or(true, |portion| portion.end) {
            r.delivery = if portion.is_ok() { Delivery::Whole } else { Delivery::Partial };
            body.finish(0, portion.is_ok());
        }
        Poll::Ready(portion)
    }

    /// Called while others have their turn: the response is made, and its body read ahead as far as the configuration of
    /// the subrequest's location allows.
    pub fn poll_ahead(&mut self, cx: &mut Context<'_>) {
        if self.poll_head(cx).is_pending() {
            return;
        }
        if let State::Made(Made(r, Answer::Response, _), body) = &mut self.0 {
            let body = body.get_or_insert_with(|| Box::new(Pipeline::new(&mut r.response, FileRule::READER)));
            body.poll_ahead(r, cx);
        }
    }

    /// Lets the subrequest run to its end without its parent; its response is dropped. A worker
    /// that quits waits for it.
    pub fn detach(mut self, http: &Rc<Http>) {
        let apart = Apart::new(http.clone());
        rt::spawn(async move {
            let _apart = apart;
            poll_fn(|cx| self.poll_head(cx)).await;
            self.drain().await;
        });
    }

    /// Ends the subrequest once its head is there; `parent` has the variables that it has set. What is left of a short
    /// body is read in the background.
    pub fn end_with_head(mut self, parent: &mut Request) {
        let Some(r) = self.request() else { return };
        parent.vars.take_over(&r.vars);
        if !self.is_worth_draining() || parent.http.worker.apart.get() >= MAX_APART {
            return self.end(None);
        }
        let apart = Apart::new(parent.http.clone());
        rt::spawn(async move {
            let _apart = apart;
            self.drain().await;
        });
    }

    /// Whether the rest of the body is short, as far as that is known.
    fn is_worth_draining(&self) -> bool {
        self.request().is_some_and(|r| {
            matches!(r.response.body, Body::Stream(_))
                && r.response.content_length.is_none_or(|length| length <= MAX_DRAINED)
        })
    }

    /// Reads what is left of a short body, and ends the subrequest. No filter sees what nobody gets.
    async fn drain(mut self) {
        if self.is_worth_draining() {
            self.request_mut().into_iter().for_each(|r| r.response.filters.clear());
            let mut left = MAX_DRAINED;
            while let Ok(portion) = poll_fn(|cx| self.poll_body(cx)).await {
                left = left.saturating_sub(portion.chain.len());
                if portion.end || left == 0 {
                    break;
                }
            }
        }
        self.end(None);
    }

    /// The same, but nobody takes the body: it ends with the head. The client's response doesn't wait for that; but if the
    /// connection is to be closed after it, that does, so that who asks next, and not sooner, finds what it has changed.
    pub fn detach_without_body(mut self, parent: &mut Request) {
        let running = (Apart::begin(parent.http.clone(), true), Following::new(parent.family().clone()));
        rt::spawn(async move {
            let _running = running;
            poll_fn(|cx| self.poll_head(cx)).await;
            self.end(None);
        });
    }

    /// The whole response: its status and its body. An error if the body breaks off, or is longer than `most` bytes.
    pub async fn whole(mut self, parent: &mut Request, most: u64) -> Result<(u16, Chain), Broken> {
        poll_fn(|cx| self.poll_head(cx)).await;
        let status = self.status();
        let mut whole = Chain::new();
        loop {
            let Portion { mut chain, end, .. } = poll_fn(|cx| self.poll_portion(parent, cx)).await?;
            whole.append(&mut chain);
            if whole.len() > most {
                return Err(Broken);
            }
            if end {
                return Ok((status, whole));
            }
        }
    }

    /// Ends the subrequest: logs it, gives its variables to its parent, and frees its memory.
    fn end(&mut self, parent: Option<&mut Request>) {
        let State::Made(Made(mut r, _, _counted), _) = std::mem::replace(&mut self.0, State::Over) else { return };
        if r.location.core.log_subrequest {
            r.log_access();
        }
        if let Some(parent) = parent {
            parent.vars.take_over(&r.vars);
        }
        r.end();
    }
}

/// Counts what the close of a connection waits for, until it is dropped.
struct Following(Rc<Family>);

impl Following {
    fn new(family: Rc<Family>) -> Following {
        family.following.set(family.following.get() + 1);
        Following(family)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.following.set(self.0.following.get() - 1);
        self.0.followed.notify();
    }
}

/// How many requests of a worker may go on without a client while further ones begin.
pub const MAX_APART: usize = 4096;

/// Counts what goes on without a client: a worker that quits waits for it.
pub struct Apart {
    http: Rc<Http>,
    /// Whether it is an update for which nobody waits.
    is_update: bool,
}

impl Apart {
    /// Until it is dropped.
    pub fn new(http: Rc<Http>) -> Apart {
        Apart::begin(http, false)
    }

    fn begin(http: Rc<Http>, is_update: bool) -> Apart {
        let apart = Apart { http, is_update };
        apart.count(|count| count + 1);
        apart
    }

    fn count(&self, change: fn(usize) -> usize) {
        let worker = &self.http.worker;
        worker.apart.set(change(worker.apart.get()));
        if self.is_update {
            worker.updates.set(change(worker.updates.get()));
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        self.count(|count| count - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_over_leave_room_for_others() {
        let family = Family::new(None, Slots::default());
        for _ in 0..2 {
            let all: Vec<Counted> = std::iter::from_fn(|| Counted::new(&family)).collect();
            assert_eq!(all.len(), MAX_SUBREQUESTS as usize);
        }
        let ended = Counted::new(&family);
        assert_eq!((ended.is_some(), family.count.get()), (true, 1));
    }
}
