//! Faults: what goes wrong with a request, who is to blame, and what follows.
//!
//! A function that fails returns a [`Fault`]. The table below is the only place that knows, for each of them, the source,
//! the status, whether another backend may be asked, and the line of the error log. A fault is one byte, so a `Result`
//! with it costs what one with a status would.
//!
//! Whoever finds a fault logs it at once, because only that place has the details (an error of the system, a name, a
//! length): [`Fault::log`] and [`Fault::log_with`] return the fault, so that both are one expression. Nobody above logs it
//! again; callers pass it on with `?` until it becomes a status:
//!
//! ```
//! # use http::fault::Fault;
//! # use http::request::Request;
//! fn check(r: &Request, length: u64, limit: u64) -> Result<(), Fault> {
//!     if length > limit {
//!         return Err(Fault::TooLargeBody.log_with(r, &length));
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Which type for what:
//!
//! - `Result<T, Fault>`: the function can only fail by a fault.
//! - `Result<T, Reply>`: it can also end the request with a status on purpose: a redirect, 416 for a range. A [`Reply`] is
//!   no fault, and isn't in the table; a fault becomes one by `?`.
//! - [`Flow`], or [`Ruled`] of rewrite rules: what a handler returns. Their `Status` is for statuses that the configuration
//!   or the protocol demands; a fault becomes one by `into()`.
//! - [`Broken`](crate::body::Broken): a body has broken off. The head has been sent, so there is no status left to choose.
//!
//! A new kind of fault is a row of the table. Kinds differ if a column does; where only the details differ, one kind
//! suffices. `QUIET` are those that another crate has logged, and those that the log doesn't show. The engine of
//! `http-proxy` asks [`Fault::retry`] after each attempt at a backend.

use std::fmt;

use ::upstream::retry::failure;
use common::vars::MatchFailed;
use engine::log::Level;
use wire::h1::RequestError;
use wire::h2::{HeadError, RequestFault};

use self::Retry::{Never, Sent, Unsent};
use crate::phases::{Flow, Reply, Ruled};
use crate::request::Request;

/// Who is to blame for a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The client: it sent what it must not, or has left.
    Client,
    /// A backend, or the way to it.
    Upstream,
    /// The server: its configuration, or the system that it runs on.
    Server,
}

/// Whether another backend may be asked after a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No.
    Never,
    /// If `…_next_upstream` has this bit of [`failure`]: nothing of the request has reached the backend.
    Unsent(u32),
    /// The same, but the backend may have acted on the request: not every request may be repeated.
    Sent(u32),
}

/// A row of the table.
struct Row {
    source: Source,
    status: u16,
    retry: Retry,
    /// Level and text of the log line. The details stand where the text has `{}`.
    log: Option<(Level, &'static str)>,
}

/// Makes the table the definition of its kinds, so that none can lack its row.
macro_rules! faults {
    ($($(#[$doc:meta])* $kind:ident: $source:ident $status:literal $retry:expr, $log:expr;)*) => {
        /// What went wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault {
            $($(#[$doc])* $kind,)*
        }

        impl Fault {
            #[cfg(test)]
            const ALL: &[Fault] = &[$(Fault::$kind,)*];

            const fn row(self) -> Row {
                match self {
                    $(Fault::$kind => Row { source: Source::$source, status: $status, retry: $retry, log: $log },)*
                }
            }
        }
    };
}

faults! {
    // The head of a request. `wire` has the words for what it can't understand.

    /// Something in it is invalid.
    InvalidRequest: Client 400 Never, info("{}");
    /// A version of HTTP that isn't served.
    UnknownVersion: Client 505 Never, info("{}");
    /// The request line is longer than a buffer.
    LongUri: Client 414 Never, info("{}");
    /// Fields that are too long, or too many of them.
    LargeHead: Client 494 Never, info("{}");
    /// A `Transfer-Encoding` that isn't served.
    UnknownEncoding: Client 501 Never, info("{}");
    /// A method that is served nowhere.
    UnservedMethod: Client 405 Never, info("{}");
    /// A path that can't be normalised.
    InvalidUri: Client 400 Never, info("client sent invalid request while {}");
    /// An extended CONNECT (RFC 9220 §3) for a protocol that isn't served.
    UnknownProtocol: Client 501 Never,
        info("client sent CONNECT for an unknown protocol while reading client request headers");
    /// A server without HTTP/2, on a connection of HTTP/2.
    DisabledProtocol: Client 421 Never,
        info("client attempted to request the server name for which the negotiated protocol is disabled \
              while reading client request headers");
    /// A server that demands certificates, on a TLS connection to another one.
    OtherName: Client 421 Never,
        info("client attempted to request the server name different from the one that was negotiated \
              while reading client request headers");
    /// A request without TLS where TLS is spoken.
    PlainRequest: Client 497 Never,
        info("client sent plain HTTP request to HTTPS port while reading client request headers");
    /// The client's certificate isn't trusted.
    BadCertificate: Client 495 Never,
        info("client SSL certificate verify error: {} while reading client request headers");
    /// A client without the certificate that is demanded.
    NoCertificate: Client 496 Never,
        info("client sent no required SSL certificate while reading client request headers");

    // The body of a request.

    /// Longer than `client_max_body_size`, as the head declares it.
    TooLargeBody: Client 413 Never, error("client intended to send too large body: {} bytes");
    /// Longer than `client_max_body_size`; the head doesn't declare its length.
    TooLargeChunks: Client 413 Never, error("client intended to send too large chunked body: {} bytes");
    /// Chunks that can't be understood.
    InvalidChunks: Client 400 Never, error("client sent invalid chunked body");
    /// A filter of the body can't understand it.
    InvalidBody: Client 400 Never, QUIET;
    /// A stream of HTTP/2 with a longer body than it has declared.
    LongStream: Client 400 Never, info("client intended to send body data larger than declared");
    /// A stream of HTTP/2 with a shorter body than it has declared.
    ShortStream: Client 400 Never, info("client prematurely closed stream: only {} bytes of request body received");
    /// The client closed its stream of HTTP/2 before the end of the body.
    ClosedStream: Client 499 Never, info("client prematurely closed stream");
    /// The client closed its connection before the end of the request.
    ClosedEarly: Client 400 Never, info("client prematurely closed connection{}");
    /// The client closed its connection after the request, while the server waited for something else.
    ClientLeft: Client 499 Never, info("client prematurely closed connection{}");
    /// Reading from the client failed.
    LostClient: Client 400 Never, info("recv() failed{}");
    /// The client was too slow in sending its request.
    SlowClient: Client 408 Never, info("client timed out{}");

    // The way through the configuration.

    /// A folder without an index, and nothing that lists it.
    NoIndex: Client 403 Never, error("directory index of \"{}\" is forbidden");
    /// No handler answers the request.
    NoHandler: Client 404 Never, error("no handler found");
    /// A regex failed: too much backtracking. `common` has logged it.
    FailedMatch: Server 500 Never, QUIET;
    /// Rules rewrite the URI too often.
    RewriteCycle: Server 500 Never, error("rewrite or internal redirection cycle while processing \"{}\"");
    /// The request is redirected internally too often.
    RedirectCycle: Server 500 Never,
        error("rewrite or internal redirection cycle while internally redirecting to \"{}\"");
    /// The request is redirected internally too often, at last to a named location.
    NamedCycle: Server 500 Never,
        error("rewrite or internal redirection cycle while redirect to named location \"{}\"");
    /// There is no such named location.
    NoNamedLocation: Server 500 Never, error("could not find named location \"{}\"");
    /// A rule made an empty URI.
    EmptyUri: Server 500 Never, error("the rewritten URI has a zero length");
    /// The request left an `if` block with a handler for a block without one.
    LostHandler: Server 500 Never, alert("no upstream configuration");
    /// Subrequests are nested too deep.
    SubrequestCycle: Server 500 Never, error("subrequests cycle while processing \"{}\"");
    /// One client's request has too many subrequests.
    TooManySubrequests: Server 500 Never, error("request reference counter overflow while processing \"{}\"");
    /// A subrequest for authorization was answered by neither a yes nor a no.
    UnexpectedAuthStatus: Server 500 Never, error("auth request unexpected status: {}");

    // Access.

    /// The file of names and passwords is missing, so that nobody can be let in.
    NoPasswords: Server 403 Never, error("{}");
    /// So many passwords wait for their check that another one isn't taken.
    BusyPasswords: Server 503 Never, error("a password could not be checked: {}");

    // Backends.

    /// The backend of a subrequest wants to switch the protocol of the client's connection.
    UpgradeInSubrequest: Upstream 502 Never, error("connection upgrade in subrequest");
    /// No backend may be asked now.
    NoLiveUpstreams: Upstream 502 Never, error("no live upstreams while connecting to upstream");
    /// A name of a backend that the resolver doesn't know.
    UnknownHost: Upstream 502 Never, error("{}");
    /// `…_allow_upstream` forbids the backend.
    DeniedUpstream: Upstream 403 Unsent(failure::DENIED),
        error("access to upstream is denied while connecting to upstream");
    /// A connection can't be made.
    FailedConnect: Upstream 502 Unsent(failure::ERROR), error("connect() failed{} while connecting to upstream");
    /// A connection isn't made in time.
    SlowConnect: Upstream 504 Unsent(failure::TIMEOUT), error("upstream timed out{} while connecting to upstream");
    /// The handshake of TLS failed. `common` has logged it.
    FailedHandshake: Upstream 502 Unsent(failure::ERROR), QUIET;
    /// The handshake of TLS took too long. `common` has logged it.
    SlowHandshake: Upstream 504 Unsent(failure::TIMEOUT), QUIET;
    /// The request can't be sent.
    FailedSend: Upstream 502 Sent(failure::ERROR), error("send() failed{} while sending request to upstream");
    /// The backend doesn't take the request in time.
    SlowSend: Upstream 504 Sent(failure::TIMEOUT), error("upstream timed out{} while sending request to upstream");
    /// The head of the response can't be received.
    FailedReceive: Upstream 502 Sent(failure::ERROR),
        error("recv() failed{} while reading response header from upstream");
    /// The head of the response doesn't come in time.
    SlowUpstream: Upstream 504 Sent(failure::TIMEOUT),
        error("upstream timed out{} while reading response header from upstream");
    /// A response that can't be understood.
    InvalidResponse: Upstream 502 Sent(failure::INVALID_HEADER),
        error("{} while reading response header from upstream");
    /// The connection ended before the head of the response did.
    ShortResponse: Upstream 502 Sent(failure::ERROR), error("{} while reading response header from upstream");
    /// The backend didn't serve the request, and has done nothing of it.
    RefusedRequest: Upstream 502 Unsent(failure::ERROR), error("{} while reading response header from upstream");
    /// The backend was leaving, and has done nothing of the request; on a new connection it may serve it.
    LeavingUpstream: Upstream 502 Unsent(failure::ERROR), error("{} while reading response header from upstream");
    /// A response of status 403, after which the next backend is asked.
    Answered403: Upstream 403 Sent(failure::HTTP_403), QUIET;
    /// A response of status 404, after which the next backend is asked.
    Answered404: Upstream 404 Sent(failure::HTTP_404), QUIET;
    /// A response of status 429, after which the next backend is asked.
    Answered429: Upstream 429 Sent(failure::HTTP_429), QUIET;
    /// A response of status 500, after which the next backend is asked.
    Answered500: Upstream 500 Sent(failure::HTTP_500), QUIET;
    /// A response of status 502, after which the next backend is asked.
    Answered502: Upstream 502 Sent(failure::HTTP_502), QUIET;
    /// A response of status 503, after which the next backend is asked.
    Answered503: Upstream 503 Sent(failure::HTTP_503), QUIET;
    /// A response of status 504, after which the next backend is asked.
    Answered504: Upstream 504 Sent(failure::HTTP_504), QUIET;
    /// `X-Accel-Redirect` to a path outside of all roots.
    UnsafeUri: Upstream 404 Never,
        error("unsafe URI \"{}\" was detected while reading response header from upstream");
    /// Variables name a backend by a scheme that the protocol doesn't have.
    InvalidPrefix: Server 500 Never, error("invalid URL prefix in \"{}\"");
    /// Variables name a backend by what is no address.
    InvalidUrl: Server 500 Never, error("{}");
    /// A name of a backend has to be looked up, and the location has no resolver.
    NoResolver: Server 502 Never, error("no resolver defined to resolve {}");
    /// Variables name a cache that doesn't exist.
    NoCache: Server 500 Never, error("cache \"{}\" not found");
    /// The server's own certificate for a backend can't be loaded. `common` has logged it.
    OwnCertificate: Server 500 Never, QUIET;
    /// What comes before `connect()` failed, such as `bind()`: that is no fault of the backend.
    FailedSocket: Server 500 Never, crit("{} while connecting to upstream");
    /// All connections of the worker are in use. `rt` has reported it.
    NoConnections: Server 500 Never, QUIET;
    /// A request is larger than the backend's protocol can tell.
    LargeRequest: Server 500 Never, alert("{}");
    /// The key that a value is asked for by is empty.
    NoKey: Server 500 Never, error("the \"$memcached_key\" variable is not set");
    /// A request is written that has no backend: a bug.
    NoTarget: Server 500 Never, QUIET;

    // Files.

    /// The location has no folder: a bug.
    NoRoot: Server 500 Never, QUIET;
    /// The location has an `alias` for its name, with which the URI no longer begins.
    LostAlias: Server 500 Never, alert("\"alias\" cannot be used in location \"{}\" where URI was rewritten");
    /// Neither a file nor a folder.
    NotAFile: Server 404 Never, crit("\"{}\" is not a regular file");
    /// There is no such file.
    MissingFile: Client 404 Never, error("{}");
    /// A file that the server may not open.
    ForbiddenFile: Client 403 Never, error("{}");
    /// A file can't be opened, read or written.
    FailedFile: Server 500 Never, crit("{}");
    /// A file's contents aren't what its handler takes; the text has the path.
    UnusableFile: Server 500 Never, error("{}");
}

/// No log line, or one that was written elsewhere.
const QUIET: Option<(Level, &str)> = None;

const fn info(text: &'static str) -> Option<(Level, &'static str)> {
    Some((Level::Info, text))
}

const fn error(text: &'static str) -> Option<(Level, &'static str)> {
    Some((Level::Error, text))
}

const fn crit(text: &'static str) -> Option<(Level, &'static str)> {
    Some((Level::Crit, text))
}

const fn alert(text: &'static str) -> Option<(Level, &'static str)> {
    Some((Level::Alert, text))
}

impl Fault {
    /// Who is to blame.
    pub fn source(self) -> Source {
        self.row().source
    }

    /// The status with which the request ends.
    pub fn status(self) -> u16 {
        self.row().status
    }

    /// Whether another backend may be asked.
    pub fn retry(self) -> Retry {
        self.row().retry
    }

    /// Logs the fault, and returns it.
    #[cold]
    pub fn log(self, r: &Request) -> Fault {
        self.log_with(r, &"")
    }

    /// Logs the fault with its details, and returns it.
    #[cold]
    pub fn log_with(self, r: &Request, details: &dyn fmt::Display) -> Fault {
        if let Some((level, text)) = self.row().log {
            let (before, after) = text.split_once("{}").unwrap_or((text, ""));
            r.log_at(level, format_args!("{before}{details}{after}"));
        }
        self
    }

    /// The fault that a backend's status is, if it is one after which another backend may be asked.
    pub fn of_answer(status: u16) -> Option<Fault> {
        Some(match status {
            403 => Fault::Answered403,
            404 => Fault::Answered404,
            429 => Fault::Answered429,
            500 => Fault::Answered500,
            502 => Fault::Answered502,
            503 => Fault::Answered503,
            504 => Fault::Answered504,
            _ => return None,
        })
    }
}

impl From<Fault> for Reply {
    fn from(fault: Fault) -> Reply {
        Reply(fault.status())
    }
}

impl From<Fault> for Flow<'_> {
    fn from(fault: Fault) -> Self {
        Flow::Status(fault.status())
    }
}

impl From<RequestError> for Fault {
    fn from(error: RequestError) -> Fault {
        match error {
            RequestError::InvalidVersion => Fault::UnknownVersion,
            RequestError::TooLongUri => Fault::LongUri,
            RequestError::TooLongHeader { .. } | RequestError::TooManyHeaders => Fault::LargeHead,
            RequestError::UnknownEncoding { .. } => Fault::UnknownEncoding,
            RequestError::Trace | RequestError::Connect => Fault::UnservedMethod,
            _ => Fault::InvalidRequest,
        }
    }
}

impl From<RequestFault> for Fault {
    fn from(error: RequestFault) -> Fault {
        match error {
            RequestFault::Request(error) => error.into(),
            RequestFault::Head(HeadError::TooManyFields) => Fault::LargeHead,
            RequestFault::Head(_) | RequestFault::NoHost | RequestFault::HostMismatch => Fault::InvalidRequest,
        }
    }
}

impl From<Fault> for Ruled {
    fn from(fault: Fault) -> Ruled {
        Ruled::Status(fault.status())
    }
}

impl From<MatchFailed> for Fault {
    fn from(_: MatchFailed) -> Fault {
        Fault::FailedMatch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_a_byte() {
        assert_eq!(size_of::<Result<(), Fault>>(), 1);
    }

    #[test]
    fn the_table_is_sound() {
        for fault in Fault::ALL {
            let Row { source, status, retry, log } = fault.row();
            assert!((400..600).contains(&status), "{fault:?}");
            assert!(retry == Never || source == Source::Upstream, "{fault:?}: another backend can't help");
            assert!(log.is_none_or(|(_, text)| text.matches("{}").count() <= 1), "{fault:?}");
        }
    }

    #[test]
    fn heads() {
        let span = wire::Span::default();
        for (error, status) in [
            (RequestError::InvalidRequest, 400),
            (RequestError::NoHost, 400),
            (RequestError::InvalidVersion, 505),
            (RequestError::TooLongUri, 414),
            (RequestError::TooLongHeader { line: span }, 494),
            (RequestError::TooManyHeaders, 494),
            (RequestError::UnknownEncoding { value: span }, 501),
            (RequestError::Trace, 405),
            (RequestError::Connect, 405),
        ] {
            assert_eq!(Fault::from(error).status(), status, "{error:?}");
            assert_eq!(Fault::from(RequestFault::from(error)).status(), status, "{error:?}");
        }
        assert_eq!(Fault::from(RequestFault::Head(HeadError::TooManyFields)).status(), 494);
        assert_eq!(Fault::from(RequestFault::NoHost).status(), 400);
    }

    #[test]
    fn answers() {
        for status in 100..=599 {
            assert!(Fault::of_answer(status).is_none_or(|fault| fault.status() == status), "{status}");
        }
    }
}
