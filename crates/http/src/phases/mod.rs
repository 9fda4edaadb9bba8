//! The phases of a request, and what their handlers may answer.
//!
//! A request goes through the phases forward: server rewrite, find the location, rewrite (back to finding if the URI
//! changed), preaccess, access, precontent, content. Each location holds the list of handlers that its configuration
//! needs, so a phase that nobody uses costs nothing.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use engine::log::Level;

use crate::request::Request;
use crate::server::location::Location;

/// How often an internal redirect may send a request back to the start.
pub const MAX_URI_CHANGES: u8 = 10;

/// A handler's work that has to wait.
pub type Waiting<'a> = Pin<Box<dyn Future<Output = Flow<'static>> + 'a>>;

/// What a handler says.
pub enum Flow<'a> {
    /// Not mine, or nothing against it: the next handler.
    Next,
    /// In the access phase: the request is allowed (where `Next` says that nothing speaks of it).
    Allow,
    /// `request.response` is what the client shall get.
    Respond,
    /// The request ends with this status: its error page is sent. 444 closes the connection.
    Status(u16),
    /// The request's URI, location or both were changed: it starts again where [`Request::redirect`] says.
    Redirect,
    /// Everything was sent by the handler itself, or the connection is of no use: nothing more is to be done.
    Finished,
    /// Not yet known.
    Wait(Waiting<'a>),
}

impl<'a> Flow<'a> {
    /// Puts work that has to wait in its box.
    pub fn wait(future: impl Future<Output = Flow<'static>> + 'a) -> Flow<'a> {
        Flow::Wait(Box::pin(future))
    }

    /// The answer, or what has to be waited for to get it.
    #[inline]
    fn settled(self) -> Result<Flow<'static>, Waiting<'a>> {
        Ok(match self {
            Flow::Next => Flow::Next,
            Flow::Allow => Flow::Allow,
            Flow::Respond => Flow::Respond,
            Flow::Status(status) => Flow::Status(status),
            Flow::Redirect => Flow::Redirect,
            Flow::Finished => Flow::Finished,
            Flow::Wait(future) => return Err(future),
        })
    }
}

/// A handler of a phase.
pub trait Handler {
    /// Looks at the request and says how it goes on.
    fn handle<'a>(&'a self, r: &'a mut Request) -> Flow<'a>;
}

/// Looks at a response's head before it is sent; may change it, and may add body filters to it.
pub trait HeaderFilter {
    /// Its place among the filters: lower ones run earlier.
    fn order(&self) -> Order;
    /// Acts on `request.response`. A status given back replaces the response by that status's error page.
    fn apply(&self, r: &mut Request) -> Result<(), u16>;
}

/// The order of header filters (their body filters, if any, have the same).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Conditional requests.
    NotModified,
    /// Added and changed fields.
    Headers,
    /// Filters that change the body's text.
    Text,
    /// Compression.
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
}

/// What a handler said, waited for if need be; without a future of its own for those that answer at once, as most do.
macro_rules! settled {
    ($flow:expr) => {
        match $flow.settled() {
            Ok(flow) => flow,
            Err(future) => future.await,
        }
    };
}

/// Runs a list of handlers; returns what they say unless the request goes on.
macro_rules! pass {
    ($handlers:expr, $r:expr) => {
        for handler in &$handlers {
            match settled!(handler.handle($r)) {
                Flow::Next => {}
                other => return other,
            }
        }
    };
}

/// Runs a request's phases up to its response.
///
/// Gives back [`Flow::Respond`], [`Flow::Status`] or [`Flow::Finished`].
pub async fn run(r: &mut Request) -> Flow<'static> {
    loop {
        let flow = run_once(r).await;
        if !matches!(flow, Flow::Redirect) {
            return flow;
        }
    }
}

async fn run_once(r: &mut Request) -> Flow<'static> {
    let mut resume = r.resume;
    if resume == Resume::Server {
        let server = r.server.root.clone();
        pass!(server.handlers.rewrite, r);
        resume = Resume::Find;
    }
    if resume == Resume::Find
        && let Err(flow) = r.find_location()
    {
        return flow;
    }
    // A redirect from here on starts at the place it names itself.
    loop {
        (r.uri_changed, r.lost_handler) = (false, false);
        // Before the rules: those of a location don't count where its `limit_except` block is entered.
        if let Err(flow) = r.check_location() {
            return flow;
        }
        let location = r.location.clone();
        if Rc::ptr_eq(&location, &r.server.root) {
            break; // Its rules were those of the server.
        }
        pass!(location.handlers.rewrite, r);
        if !r.uri_changed {
            break;
        }
        if let Err(flow) = r.count_uri_change().and_then(|()| r.find_location()) {
            return flow;
        }
    }
    let location = r.location.clone();
    pass!(location.handlers.preaccess, r);
    if !location.handlers.access.is_empty() {
        match access(&location, r).await {
            Flow::Next => {}
            other => return other,
        }
    }
    pass!(location.handlers.precontent, r);
    if r.lost_handler {
        r.log_at(Level::Alert, format_args!("no upstream configuration"));
        return Flow::Status(500);
    }
    pass!(location.handlers.content, r);
    r.no_handler()
}

/// `satisfy all`: nobody may refuse. `satisfy any`: one who has no objection is enough.
async fn access(location: &Rc<Location>, r: &mut Request) -> Flow<'static> {
    let any = location.core.satisfy == crate::config::core::Satisfy::Any;
    let mut refused = None;
    for handler in &location.handlers.access {
        let flow = settled!(handler.handle(r));
        match flow {
            // Declined: no rule of this handler speaks of this request.
            Flow::Next => {}
            Flow::Allow if any => {
                r.response.clear_challenge();
                return Flow::Next;
            }
            Flow::Allow => {}
            Flow::Status(status @ (401 | 403)) if any => {
                if refused != Some(401) {
                    refused = Some(status);
                }
            }
            other => return other,
        }
    }
    match refused {
        None => Flow::Next,
        Some(status) => {
            if status == 403 {
                r.log_error(format_args!("access forbidden by rule"));
            }
            Flow::Status(status)
        }
    }
}
