//! From a request to its response: phases, error pages, header filters. It isn't known here who receives the response.

use super::error_page::{self, Page};
use crate::fault::Fault;
use crate::phases::{self, Order, Outcome, Reply};
use crate::request::Request;

/// What to send for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `request.response`: its head has passed the header filters, its body has yet to pass the body filters.
    Response,
    /// Nothing: the client has gone, or the configuration says so (444).
    Nothing,
    /// Nothing more: a handler has sent everything itself.
    Sent,
}

/// What is left to be done for a response that can't be made at once.
pub enum Unsettled {
    /// All of it.
    All,
    /// The phases, from the first handler on that may wait.
    Phases,
    /// The phases for the page of an error; whether that came of a header filter.
    Page(bool),
}

/// Makes the response to a request: by its phases, or from the fault for which it was refused before them.
pub async fn respond(r: &mut Request, refused: Option<Fault>) -> Answer {
    match respond_at_once(r, refused) {
        Ok(answer) => answer,
        Err(unsettled) => respond_later(r, unsettled).await,
    }
}

/// The same for responses that nothing has to be waited for.
pub fn respond_at_once(r: &mut Request, refused: Option<Fault>) -> Result<Answer, Unsettled> {
    let outcome = match refused {
        Some(fault) => Outcome::Status(fault.status()),
        None if reads_body_early(r) => return Err(Unsettled::All),
        None => phases::run_at_once(r).ok_or(Unsettled::Phases)?,
    };
    let mut again = false;
    settle(r, outcome, &mut again).ok_or(Unsettled::Page(again))
}

/// What [`respond_at_once`] has left.
pub async fn respond_later(r: &mut Request, unsettled: Unsettled) -> Answer {
    let mut again = false;
    let mut refused = None;
    match unsettled {
        // Boxed: other requests have no room for this.
        Unsettled::All => refused = Box::pin(r.read_body_early()).await.err(),
        Unsettled::Phases => {}
        Unsettled::Page(of_filter) => again = of_filter,
    }
    loop {
        let outcome = match refused.take() {
            Some(fault) => Outcome::Status(fault.status()),
            None => phases::run(r).await,
        };
        if let Some(answer) = settle(r, outcome, &mut again) {
            return answer;
        }
    }
}

/// What to send after an outcome of the phases; `None` if they run again, for an error page. `again` says whether the
/// outcome is an error page's that came of a header filter.
fn settle(r: &mut Request, mut outcome: Outcome, again: &mut bool) -> Option<Answer> {
    loop {
        let status = match outcome {
            Outcome::Finished => return Some(Answer::Sent),
            Outcome::Status(444) => {
                r.response.status = 444;
                r.give_up();
                r.close_after();
                return Some(Answer::Nothing);
            }
            // With 499 and 408, or when the client has left, a response would reach nobody.
            Outcome::Status(status) if matches!(status, 408 | 499) || r.body.client_gone() => {
                r.error_status = status;
                r.response.status = status;
                r.close_after();
                return Some(Answer::Nothing);
            }
            Outcome::Status(status) => status,
            Outcome::Respond => match prepare(r, *again) {
                Ok(()) => return Some(Answer::Response),
                Err(Reply(444)) => {
                    outcome = Outcome::Status(444);
                    continue;
                }
                Err(Reply(status)) => {
                    *again = true;
                    if status != 416 {
                        // Nothing of the response is sent: what its fields say is no longer so.
                        let gzip_vary = r.response.gzip_vary;
                        r.response.clear();
                        r.response.gzip_vary = gzip_vary;
                    }
                    status
                }
            },
        };
        outcome = match error_page::respond(r, status) {
            Page::Made => Outcome::Respond,
            Page::Redirect => return None,
            Page::Status(status) => Outcome::Status(status),
        };
    }
}

/// Whether the request's body is read before its phases.
fn reads_body_early(r: &Request) -> bool {
    !r.server.core.client_body_early_read.is_empty() && !r.is_subrequest()
}

/// Prepares a response for sending: the received part of an unread body is dropped, an error page
/// keeps the error's status, and the header filters run.
fn prepare(r: &mut Request, again: bool) -> Result<(), Reply> {
    if r.line.version == 9 {
        r.close_after();
    }
    // A backend may still be reading the body.
    if r.upstream.as_ref().is_none_or(|exchange| exchange.attempts.borrow().is_empty()) {
        r.skip_body()?;
    }
    error_page::keep_status(r);
    if r.response.headless {
        r.close_after();
        return Ok(());
    }
    apply_filters(r, again)
}

/// Runs the header filters of the location. Those of conditions don't judge the page of an error that came of a filter,
/// and a filter that fails there too is left out: it would for ever.
pub fn apply_filters(r: &mut Request, again: bool) -> Result<(), Reply> {
    let handlers = r.location.handlers.clone();
    let is_subrequest = r.is_subrequest();
    for filter in &handlers.filters {
        if again && filter.order() == Order::NotModified || is_subrequest && !filter.on_subrequests() {
            continue;
        }
        match filter.apply(r) {
            Err(_) if again => {}
            result => result?,
        }
    }
    Ok(())
}
