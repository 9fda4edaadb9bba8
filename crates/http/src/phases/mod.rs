//! The phases of a request, and what their handlers may answer.
//!
//! A request goes through the phases forward: post-read, server rewrite, find the location, rewrite (back to finding if the URI
//! changed), preaccess, access, precontent, content. Each location holds the list of handlers that its configuration
//! needs, so an unused phase costs nothing.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use engine::log::Level;

use crate::fault::Fault;
use crate::request::Request;
use crate::server::location::Location;

/// How often an internal redirect may send a request back to the start.
pub(crate) const MAX_URI_CHANGES: u8 = 10;

/// The work of a handler that has to wait.
pub type Waiting<'a> = Pin<Box<dyn Future<Output = Flow<'static>> + 'a>>;

/// What a handler returns.
pub enum Flow<'a> {
    /// The handler doesn't apply, or has no objection: the next handler runs.
    Next,
    /// In the access phase: the request is allowed (`Next`: no rule applies to it).
    Allow,
    /// `request.response` is the response to send.
    Respond,
    /// The request ends with this status: its error page is sent. 444 closes the connection.
    Status(u16),
    /// The request's URI, location or both were changed: it starts again where [`Request::redirect`] says.
    Redirect,
    /// The handler has sent everything itself, or the connection can't be used any more: nothing is left to be done.
    Finished,
    /// Not yet known.
    Wait(Waiting<'a>),
}

impl<'a> Flow<'a> {
    /// Puts work that has to wait in its box.
    pub fn wait(future: impl Future<Output = Flow<'static>> + 'a) -> Flow<'a> {
        Flow::Wait(Box::pin(future))
    }

    /// The answer, or the work to wait for.
    #[inline]
    fn settled(self) -> Result<Settled, Waiting<'a>> {
        Ok(match self {
            Flow::Next => Settled::Next,
            Flow::Allow => Settled::Allow,
            Flow::Respond => Settled::Ended(Ended::Respond),
            Flow::Status(status) => Settled::Ended(Ended::Status(status)),
            Flow::Redirect => Settled::Ended(Ended::Redirect),
            Flow::Finished => Settled::Ended(Ended::Finished),
            Flow::Wait(future) => return Err(future),
        })
    }
}

/// What a handler returned, after any wait.
enum Settled {
    Next,
    Allow,
    /// The phases end, or begin again.
    Ended(Ended),
}

/// How a pass through the phases ends.
enum Ended {
    Respond,
    Status(u16),
    Finished,
    Redirect,
}

impl Ended {
    /// The outcome; `None` if there is another pass.
    fn outcome(self) -> Option<Outcome> {
        match self {
            Ended::Respond => Some(Outcome::Respond),
            Ended::Status(status) => Some(Outcome::Status(status)),
            Ended::Finished => Some(Outcome::Finished),
            Ended::Redirect => None,
        }
    }
}

impl From<Reply> for Ended {
    fn from(reply: Reply) -> Ended {
        Ended::Status(reply.0)
    }
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Ended {
        Ended::Status(fault.status())
    }
}

/// The result of a request's phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `request.response` is the response to send.
    Respond,
    /// The request ends with this status.
    Status(u16),
    /// A handler has sent everything itself.
    Finished,
}

/// The status with which a request ends, on purpose or because of a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply(pub u16);

/// A handler of a phase.
pub trait Handler {
    /// Handles the request, and returns how it continues.
    fn handle<'a>(&'a self, r: &'a mut Request) -> Flow<'a>;

    /// The same of a handler that never waits, so that the request needs no future. `None`, with nothing done: it may wait.
    fn handle_at_once(&self, _r: &mut Request) -> Option<Flow<'static>> {
        None
    }

    /// Itself, if other modules may know its type.
    fn as_any(&self) -> Option<&dyn std::any::Any> {
        None
    }
}

/// The rewrite rules of a server or of a location.
pub trait Rules {
    /// Runs them.
    fn run(&self, r: &mut Request) -> Ruled;
}

/// How a request continues after rewrite rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruled {
    /// It stays in its location.
    Stays {
        /// Whether it left an `if` block with a content handler for another block that has none.
        lost_handler: bool,
    },
    /// Its URI was changed, so its location must be found again. Rules of a server needn't say so: the location is
    /// found after them.
    Moves,
    /// `request.response` is the response to send.
    Responds,
    /// It ends with this status.
    Status(u16),
}

/// Looks at a response's head before it is sent; may change it, and may add body filters to it.
pub trait HeaderFilter {
    /// Its place among the filters: lower ones run earlier.
    fn order(&self) -> Order;

    /// Whether it acts on the responses of subrequests too.
    fn on_subrequests(&self) -> bool {
        false
    }

    /// Acts on `request.response`. An error replaces the response by the error page of that status.
    fn apply(&self, r: &mut Request) -> Result<(), Reply>;
}

/// The order of header filters (their body filters, if any, have the same).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Slices are made a whole.
    Slice,
    /// Conditional requests.
    NotModified,
    /// Fields of the response replaced, before others are added.
    Replaced,
    /// Added and changed fields.
    Headers,
    /// Cookies of the server's own.
    Cookies,
    /// Decompression.
    Gunzip,
    /// Strings are replaced.
    Replace,
    /// The charset is named, and the text recoded.
    Charset,
    /// Other filters that change the body's text.
    Text,
    /// Server-side includes.
    Ssi,
    /// Responses added before and after the body.
    Addition,
    /// Compression with Brotli; of several codings that a client accepts, the first counts.
    Brotli,
    /// Compression with Zstandard.
    Zstd,
    /// Compression with gzip.
    Gzip,
    /// Ranges.
    Range,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The server's rewrite rules, then as below.
    Server,
    /// Find the location of the URI.
    Find,
    /// The location is set: its rewrite rules.
    Location,
    /// The location is set and its rules are over: its handlers.
    Handlers {
        /// As of [`Ruled::Stays`].
        lost_handler: bool,
        /// How many handlers of the content phase have passed the request on.
        passed: usize,
    },
    /// The location is set, and all that comes before the content has been done for the request that this one repeats.
    Content,
}

/// The answer of a handler, after any wait. Handlers that answer at once, as most do, need no future.
macro_rules! settled {
    ($flow:expr) => {{
        let mut settled = $flow.settled();
        loop {
            match settled {
                Ok(answer) => break answer,
                Err(future) => settled = future.await.settled(),
            }
        }
    }};
}

/// Runs a list of handlers; returns how the phases end unless the request goes on.
macro_rules! pass {
    ($handlers:expr, $r:expr) => {
        for handler in &$handlers {
            if let Settled::Ended(ended) = settled!(handler.handle($r)) {
                return ended;
            }
        }
    };
}

/// Runs a request's phases up to its response.
pub async fn run(r: &mut Request) -> Outcome {
    loop {
        if let Some(outcome) = run_once(r).await.outcome() {
            return outcome;
        }
    }
}

/// Runs the phases up to the first handler that may wait: the outcome, if none does. Otherwise [`run`] goes on from there.
pub(crate) fn run_at_once(r: &mut Request) -> Option<Outcome> {
    loop {
        if let Some(outcome) = run_once_at_once(r)?.outcome() {
            return Some(outcome);
        }
    }
}

fn run_once_at_once(r: &mut Request) -> Option<Ended> {
    let waits = match r.resume {
        Resume::Server => !r.internal && !r.server.root.handlers.post_read.is_empty(),
        Resume::Find | Resume::Location => false,
        Resume::Handlers { .. } | Resume::Content => true,
    };
    if waits {
        return None;
    }
    match enter_location(r, r.resume) {
        Ok(lost_handler) => {
            r.resume = Resume::Handlers { lost_handler, passed: 0 };
            let handlers = &r.location.handlers;
            let waits =
                [&handlers.preaccess, &handlers.access, &handlers.precontent].iter().any(|list| !list.is_empty());
            if waits || lost_handler { None } else { content_at_once(r) }
        }
        Err(ended) => Some(ended),
    }
}

/// Runs the handlers of the content phase up to the first that may wait.
fn content_at_once(r: &mut Request) -> Option<Ended> {
    let handlers = r.location.handlers.clone();
    for (before, handler) in handlers.content.iter().enumerate() {
        r.resume = Resume::Handlers { lost_handler: false, passed: before };
        match handler.handle_at_once(r)?.settled() {
            Ok(Settled::Ended(ended)) => return Some(ended),
            Ok(Settled::Next | Settled::Allow) => {}
            Err(_) => debug_assert!(false, "a handler that never waits"),
        }
    }
    Some(Ended::Status(r.no_handler().status()))
}

/// Finds the location and runs the rules of server and location, as far as that is still to be done. The result is whether
/// the rules have lost a handler.
fn enter_location(r: &mut Request, resume: Resume) -> Result<bool, Ended> {
    if resume == Resume::Server {
        match run_rules_of(r.server.root.handlers.rewrite.clone(), r) {
            Ruled::Stays { .. } | Ruled::Moves => {}
            Ruled::Responds => return Err(Ended::Respond),
            Ruled::Status(status) => return Err(Ended::Status(status)),
        }
    }
    if matches!(resume, Resume::Server | Resume::Find) {
        r.find_location()?;
    }
    // A redirect from here on sets the phase at which the request starts again.
    loop {
        // Before the rules: if the `limit_except` block is entered, the rules of the location aren't run.
        r.check_location()?;
        if Rc::ptr_eq(&r.location, &r.server.root) {
            return Ok(false); // Its rules were those of the server.
        }
        match run_rules_of(r.location.handlers.rewrite.clone(), r) {
            Ruled::Stays { lost_handler } => return Ok(lost_handler),
            Ruled::Moves => {}
            Ruled::Responds => return Err(Ended::Respond),
            Ruled::Status(status) => return Err(Ended::Status(status)),
        }
        r.count_rewrite()?;
        r.find_location()?;
    }
}

async fn run_once(r: &mut Request) -> Ended {
    let (lost_handler, passed) = match r.resume {
        Resume::Content => {
            let location = r.location.clone();
            pass!(location.handlers.content, r);
            return Ended::Status(r.no_handler().status());
        }
        Resume::Handlers { lost_handler, passed } => (lost_handler, passed),
        resume => {
            // Once for a client's request: not again when it is redirected.
            if resume == Resume::Server && !r.internal && !r.server.root.handlers.post_read.is_empty() {
                let server = r.server.root.clone();
                pass!(server.handlers.post_read, r);
            }
            match enter_location(r, resume) {
                Ok(lost_handler) => (lost_handler, 0),
                Err(ended) => return ended,
            }
        }
    };
    let location = r.location.clone();
    pass!(location.handlers.preaccess, r);
    // The access checks of the client's request hold for its subrequests.
    if !location.handlers.access.is_empty() && !r.is_subrequest() {
        let begun_ms = rt::now_ms();
        match access(&location, r).await {
            Ok(()) => {}
            Err(refused @ Ended::Status(401 | 407)) if location.core.auth_delay > 0 => {
                // Boxed: a request that isn't refused has no room for this.
                return Box::pin(refuse_late(r, refused, begun_ms)).await;
            }
            Err(ended) => return ended,
        }
    }
    pass!(location.handlers.precontent, r);
    if lost_handler {
        return Ended::Status(Fault::LostHandler.log(r).status());
    }
    pass!(location.handlers.content[passed.min(location.handlers.content.len())..], r);
    Ended::Status(r.no_handler().status())
}

/// Runs the rewrite rules of a server or of a location, if it has some.
fn run_rules_of(rules: Option<Rc<dyn Rules>>, r: &mut Request) -> Ruled {
    rules.map_or(Ruled::Stays { lost_handler: false }, |rules| rules.run(r))
}

/// The answer to a request whose credentials are missing or wrong, after `auth_delay`. The delay counts from the
/// beginning of the check, so that it hides how long that took: a name that isn't known is refused sooner than a password
/// that is wrong.
async fn refuse_late(r: &mut Request, refused: Ended, since_ms: u64) -> Ended {
    r.log_at(Level::Info, format_args!("delaying unauthorized request"));
    let passed = rt::now_ms().saturating_sub(since_ms);
    let left = r.location.core.auth_delay.saturating_sub(passed);
    r.pause(left).await.map_or_else(|fault| Ended::Status(fault.status()), |()| refused)
}

/// Checks access. `satisfy all`: no handler may refuse. `satisfy any`: it is enough that one handler allows.
async fn access(location: &Rc<Location>, r: &mut Request) -> Result<(), Ended> {
    let any = location.core.satisfy == crate::config::core::Satisfy::Any;
    let mut refused = None;
    for handler in &location.handlers.access {
        match settled!(handler.handle(r)) {
            // Declined: no rule of this handler applies to this request.
            Settled::Next => {}
            Settled::Allow if any => {
                r.response.clear_challenge();
                return Ok(());
            }
            Settled::Allow => {}
            Settled::Ended(Ended::Status(status @ (401 | 403 | 407))) if any => {
                if refused.is_none_or(|refused| refused == 403) {
                    refused = Some(status);
                }
            }
            Settled::Ended(ended) => return Err(ended),
        }
    }
    match refused {
        None => Ok(()),
        Some(status) => {
            if status == 403 {
                r.log_error(format_args!("access forbidden by rule"));
            }
            Err(Ended::Status(status))
        }
    }
}
