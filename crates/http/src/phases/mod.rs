//! The phases of a request, and what their handlers may answer.
//!
//! A request goes through the phases forward: post-read, server rewrite, find the location, rewrite (back to finding if the URI
//! changed), preaccess, access, precontent, content. Each location holds the list of handlers that its configuration
//! needs, so an unused phase costs nothing.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use engine::log::Level;

use crate::config::core::Satisfy;
use crate::fault::Fault;
use crate::request::Request;
use crate::server::location::Handlers;

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

    /// Counts a request that comes from another worker, where it was handled: it is neither judged nor changed again.
    fn again(&self, _r: &mut Request) {}

    /// Itself, if other modules may know its type.
    fn as_any(&self) -> Option<&dyn std::any::Any> {
        None
    }
}

/// A handler that never waits, so that a request needs no future for it.
pub trait PromptHandler {
    /// Handles the request, and returns how it continues.
    fn answer(&self, r: &mut Request) -> Flow<'static>;

    /// See [`Handler::again`].
    fn again(&self, _r: &mut Request) {}
}

impl<H: PromptHandler> Handler for H {
    fn handle<'a>(&'a self, r: &'a mut Request) -> Flow<'a> {
        self.answer(r)
    }

    fn handle_at_once(&self, r: &mut Request) -> Option<Flow<'static>> {
        Some(self.answer(r))
    }

    fn again(&self, r: &mut Request) {
        PromptHandler::again(self, r);
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
    Handlers(Asked),
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
        Resume::Handlers(_) | Resume::Content => true,
    };
    if waits {
        return None;
    }
    match enter_location(r, r.resume) {
        Ok(lost_handler) => ask_at_once(r, lost_handler),
        Err(ended) => Some(ended),
    }
}

/// Asks the handlers of the location up to the first that may wait.
fn ask_at_once(r: &mut Request, lost_handler: bool) -> Option<Ended> {
    let handlers = r.location.handlers.clone();
    let mut asked = Asked::first(&handlers, lost_handler);
    loop {
        let Some(handler) = asked.next(&handlers) else {
            match asked.leave(r) {
                Ok(()) => continue,
                Err(ended) => return Some(ended),
            }
        };
        r.resume = Resume::Handlers(asked);
        if asked.phase == Phase::Access && r.location.core.auth_delay > 0 {
            return None;
        }
        let answer = handler.handle_at_once(r)?.settled().unwrap_or_else(|_| {
            debug_assert!(false, "a handler that never waits");
            Settled::Next
        });
        if let Some(ended) = asked.take(answer, r) {
            return Some(ended);
        }
    }
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
    let mut asked = match r.resume {
        Resume::Content => Asked::of(Phase::Content),
        Resume::Handlers(asked) => asked,
        resume => {
            // Once for a client's request: not again when it is redirected.
            if resume == Resume::Server && !r.internal && !r.server.root.handlers.post_read.is_empty() {
                let server = r.server.root.clone();
                pass!(server.handlers.post_read, r);
            }
            match enter_location(r, resume) {
                Ok(lost_handler) => Asked::first(&r.location.handlers, lost_handler),
                Err(ended) => return ended,
            }
        }
    };
    let location = r.location.clone();
    let mut access_since_ms = 0;
    loop {
        let ended = match asked.next(&location.handlers) {
            Some(handler) => {
                if asked.begins(Phase::Access) {
                    access_since_ms = rt::now_ms();
                }
                let answer = settled!(handler.handle(r));
                asked.take(answer, r)
            }
            None => asked.leave(r).err(),
        };
        let Some(ended) = ended else { continue };
        let unauthorized = asked.phase == Phase::Access && matches!(ended, Ended::Status(401 | 407));
        if unauthorized && location.core.auth_delay > 0 {
            // Boxed: a request that isn't refused has no room for this.
            return Box::pin(refuse_late(r, ended, access_since_ms)).await;
        }
        return ended;
    }
}

/// The phases whose handlers a location has, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Preaccess,
    Access,
    Precontent,
    Content,
}

/// How far the handlers of a location have been asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    phase: Phase,
    /// How many handlers of the phase have been asked.
    passed: u32,
    /// As of [`Ruled::Stays`].
    lost_handler: bool,
    /// The status with which access is refused unless a later handler allows it (`satisfy any`).
    refused: Option<u16>,
}

impl Asked {
    /// Those of this phase are next.
    fn of(phase: Phase) -> Asked {
        Asked { phase, passed: 0, lost_handler: false, refused: None }
    }

    /// None has been asked yet.
    fn first(handlers: &Handlers, lost_handler: bool) -> Asked {
        let before = [&handlers.preaccess, &handlers.access, &handlers.precontent];
        let none = !lost_handler && before.iter().all(|list| list.is_empty());
        Asked { lost_handler, ..Asked::of(if none { Phase::Content } else { Phase::Preaccess }) }
    }

    /// Whether the first handler of a phase is next.
    fn begins(&self, phase: Phase) -> bool {
        self.phase == phase && self.passed == 0
    }

    /// The handler of the phase that is next.
    #[inline]
    fn next<'h>(&self, handlers: &'h Handlers) -> Option<&'h dyn Handler> {
        let list = match self.phase {
            Phase::Preaccess => &handlers.preaccess,
            Phase::Access => &handlers.access,
            Phase::Precontent => &handlers.precontent,
            Phase::Content => &handlers.content,
        };
        list.get(self.passed as usize).map(|handler| &**handler)
    }

    /// The phase is over: the next one begins, unless the phases end.
    fn leave(&mut self, r: &mut Request) -> Result<(), Ended> {
        self.phase = match self.phase {
            // The access checks of the client's request hold for its subrequests.
            Phase::Preaccess if r.is_subrequest() => Phase::Precontent,
            Phase::Preaccess => Phase::Access,
            Phase::Access => match self.refused {
                None => Phase::Precontent,
                Some(status) => {
                    if status == 403 {
                        r.log_error(format_args!("access forbidden by rule"));
                    }
                    return Err(Ended::Status(status));
                }
            },
            Phase::Precontent if self.lost_handler => return Err(Fault::LostHandler.log(r).into()),
            Phase::Precontent => Phase::Content,
            Phase::Content => return Err(r.no_handler().into()),
        };
        self.passed = 0;
        Ok(())
    }

    /// Takes the answer of the handler that was next; how the phases end because of it. `satisfy all`: no handler of the
    /// access phase may refuse. `satisfy any`: it is enough that one of them allows.
    #[inline]
    fn take(&mut self, answer: Settled, r: &mut Request) -> Option<Ended> {
        self.passed += 1;
        let any = self.phase == Phase::Access && r.location.core.satisfy == Satisfy::Any;
        match answer {
            Settled::Allow if any => {
                r.response.clear_challenge();
                *self = Asked { lost_handler: self.lost_handler, ..Asked::of(Phase::Precontent) };
                None
            }
            // `Next` in the access phase: no rule of this handler applies to this request.
            Settled::Next | Settled::Allow => None,
            Settled::Ended(Ended::Status(status @ (401 | 403 | 407))) if any => {
                if self.refused.is_none_or(|refused| refused == 403) {
                    self.refused = Some(status);
                }
                None
            }
            Settled::Ended(ended) => Some(ended),
        }
    }
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
