//! From a request that has been read to its end: its response is made and sent, it is logged, and what its connection needs
//! for the next one, or before it is closed, is done.
//!
//! What nothing has to be waited for is done by plain functions, whose names end in `_at_once`. What they leave is a [`Left`].

use crate::body::Broken;
use crate::body::request::Discarded;
use crate::config::core::Lingering;
use crate::fault::Fault;
use crate::phases::{self, Outcome};
use crate::request::{Delivery, Ending, Request};
use crate::response::Answer;
use crate::response::respond::{Unsettled, respond_at_once, respond_later};
use crate::session::send::{self, Rest};

/// Answers a request: makes its response, sends it, logs it.
pub(in crate::session) async fn answer(r: &mut Request, refused: Option<Fault>) {
    if let Err(left) = answer_at_once(r, refused) {
        answer_later(r, left).await;
    }
}

/// The same, as far as nothing has to be waited for.
pub(super) fn answer_at_once(r: &mut Request, refused: Option<Fault>) -> Result<(), Left> {
    let answer = respond_at_once(r, refused).map_err(Left::Response)?;
    send_at_once(r, answer)
}

/// What [`answer_at_once`] has left.
pub(super) async fn answer_later(r: &mut Request, mut left: Left) {
    loop {
        let done = match left {
            Left::Response(unsettled) => {
                let answer = respond_later(r, unsettled).await;
                send_at_once(r, answer)
            }
            Left::Sending(rest) => {
                let sent = send::go_on(r, rest).await;
                log_at_once(r, sent)
            }
            Left::PostAction => {
                Box::pin(post_actions(r)).await;
                r.log_access();
                Ok(())
            }
            Left::Head | Left::Body => Ok(()),
        };
        match done {
            Ok(()) => return,
            Err(next) => left = next,
        }
    }
}

fn send_at_once(r: &mut Request, answer: Answer) -> Result<(), Left> {
    match answer {
        Answer::Response => match send::begin(r) {
            Ok(Some(rest)) => Err(Left::Sending(rest)),
            Ok(None) => log_at_once(r, Ok(())),
            Err(Broken) => log_at_once(r, Err(Broken)),
        },
        Answer::Nothing | Answer::Sent => log_unless_given_away(r),
    }
}

/// Notes whether the response was sent, and logs the request.
fn log_at_once(r: &mut Request, sent: Result<(), Broken>) -> Result<(), Left> {
    match sent {
        Ok(()) => r.delivery = Delivery::Whole,
        Err(Broken) => r.close_after(),
    }
    log_unless_given_away(r)
}

fn log_unless_given_away(r: &mut Request) -> Result<(), Left> {
    if r.link.is_none() {
        return Ok(()); // Another worker serves it on, and logs it.
    }
    if r.delivery == Delivery::Whole && !r.location.core.post_action.is_empty() {
        return Err(Left::PostAction);
    }
    r.log_access();
    Ok(())
}

/// `post_action`: another URI, or else a named location, is run for its effects once the response is out, and what is
/// to follow that one. What they make is dropped; the log shows the URI at which they ended, the length that the client
/// got, and their status, unless that of the response was an error's.
async fn post_actions(r: &mut Request) {
    let mut response = std::mem::take(&mut r.response);
    let is_error = r.error_status != 0;
    let mut may_go_on = true;
    while may_go_on && !r.location.core.post_action.is_empty() {
        may_go_on = r.uri_changes > 0;
        let target = r.location.core.post_action.clone();
        let redirected = match target.starts_with(b"/") {
            true => r.try_redirect(&target, None),
            false => r.try_redirect_named(&target),
        };
        let status = match redirected {
            Ok(()) => match phases::run(r).await {
                Outcome::Status(status) => status,
                Outcome::Respond | Outcome::Finished => r.response.status,
            },
            Err(fault) => fault.status(),
        };
        if !is_error && status != 0 {
            response.status = status;
        }
    }
    r.response = response;
}

/// Whether the connection waits for the next request. One that is to be closed is closed in a way that the client gets the
/// response.
pub(super) async fn finish(r: &mut Request) -> bool {
    let discarded = if has_more_to_read(r) { r.discard_body().await } else { Discarded::Whole };
    if discarded != Discarded::Whole {
        r.ending = Ending::Linger;
    }
    if is_kept(r) {
        return true;
    }
    if waits_for_following(r) {
        r.wait_for_following().await;
    }
    // Who took too long has had the time for that.
    if lingers(r) && discarded != Discarded::Late {
        let core = r.location.core.clone();
        if let Some(client) = r.client() {
            linger(client.socket(), core.lingering_time, core.lingering_timeout).await;
        }
    }
    false
}

/// The same, if nothing more has to be read for it.
pub(super) fn finish_at_once(r: &Request) -> Result<bool, Left> {
    if has_more_to_read(r) {
        return Err(Left::Body);
    }
    let kept = is_kept(r);
    if !kept && (lingers(r) || waits_for_following(r)) { Err(Left::Body) } else { Ok(kept) }
}

/// Whether the rest of the body is to be read before the next request.
fn has_more_to_read(r: &Request) -> bool {
    r.link.is_some() && r.ending == Ending::Keep && !r.body.is_done()
}

fn is_kept(r: &Request) -> bool {
    r.ending == Ending::Keep && r.link.as_ref().is_some_and(|link| r.http.worker.keeps(link))
}

/// Whether the close of the connection waits for what the request has begun beside its response.
fn waits_for_following(r: &Request) -> bool {
    r.link.is_some() && r.delivery == Delivery::Whole && r.is_followed()
}

/// Whether a connection that isn't kept is closed only after what the client still sends.
fn lingers(r: &Request) -> bool {
    if r.link.is_none() || r.delivery != Delivery::Whole {
        return false;
    }
    match r.location.core.lingering_close {
        Lingering::Off => false,
        Lingering::Always => true,
        Lingering::On => r.ending == Ending::Linger || !r.body.is_done() || r.body.has_unread(),
    }
}

/// Reads and forgets what the client still sends: a close with unread data would reset the connection, and the client
/// could lose the response.
pub(in crate::session) async fn linger(stream: &rt::Stream, time_ms: u64, timeout_ms: u64) {
    if stream.shutdown_write().is_err() {
        return;
    }
    let end = rt::now_ms() + time_ms;
    loop {
        let left = end.saturating_sub(rt::now_ms());
        if left == 0 {
            return;
        }
        stream.set_recv_timeout(Some(timeout_ms.min(left)));
        match stream.recv(4096).await {
            Ok(buf) if !buf.is_empty() => {}
            _ => return,
        }
    }
}

/// What is left to be done for a request that has to wait for something.
pub(super) enum Left {
    /// To read the rest of its head; the request has what came first.
    Head,
    /// To make the response.
    Response(Unsettled),
    /// To send the response.
    Sending(Rest),
    /// `post_action`.
    PostAction,
    /// To read what is left of its body or what the client sends after the response, or to wait for what goes on beside it.
    Body,
}
