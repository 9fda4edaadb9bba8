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

/// Makes the response to a request: by its phases, or from the fault for which it was refused before them.
pub async fn respond(r: &mut Request, refused: Option<Fault>) -> Answer {
    let mut outcome = match refused {
        Some(fault) => Outcome::Status(fault.status()),
        None => match begin(r).await {
            Ok(()) => phases::run(r).await,
            Err(fault) => Outcome::Status(fault.status()),
        },
    };
    let mut again = false;
    loop {
        let status = match outcome {
            Outcome::Finished => return Answer::Sent,
            Outcome::Status(444) => {
                r.response.status = 444;
                r.give_up();
                r.close_after();
                return Answer::Nothing;
            }
            // With 499 and 408, or when the client has left, a response would reach nobody.
            Outcome::Status(status) if matches!(status, 408 | 499) || r.body.client_gone() => {
                r.error_status = status;
                r.response.status = status;
                r.close_after();
                return Answer::Nothing;
            }
            Outcome::Status(status) => status,
            Outcome::Respond => match prepare(r, again) {
                Ok(()) => return Answer::Response,
                Err(Reply(444)) => {
                    outcome = Outcome::Status(444);
                    continue;
                }
                Err(Reply(status)) => {
                    again = true;
                    status
                }
            },
        };
        outcome = match error_page::respond(r, status) {
            Page::Made => Outcome::Respond,
            Page::Redirect => phases::run(r).await,
            Page::Status(status) => Outcome::Status(status),
        };
    }
}

/// What comes before the phases.
async fn begin(r: &mut Request) -> Result<(), Fault> {
    if r.server.core.client_body_early_read.is_empty() || r.is_subrequest() {
        return Ok(());
    }
    // Boxed: other requests have no room for this.
    Box::pin(r.read_body_early()).await
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
    let location = r.location.clone();
    for filter in &location.handlers.filters {
        if again && filter.order() == Order::NotModified || r.is_subrequest() && !filter.on_subrequests() {
            continue;
        }
        match filter.apply(r) {
            Err(_) if again => {}
            result => result?,
        }
    }
    Ok(())
}
