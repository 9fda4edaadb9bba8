//! An HTTP/1 connection: requests read one after the other, each answered before the next is looked at.
//!
//! An idle connection is a small future that waits for bytes; the request, its buffers and the future that serves it
//! exist only while there is something to do.

mod answer;
pub mod head;

use std::borrow::Borrow;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use buf::{Buf, Bytes};
use common::front::proxy;
use common::vars::Regex;
use engine::log::{Level, TIMED_OUT};
use shm::Counter;
use wire::Span;
use wire::h1::{BodyFraming, Limits, Method, Parsed, RequestError, RequestHead, Stage};

use self::answer::{Left, answer_at_once, answer_later, finish, finish_at_once};
use crate::app::handover;
use crate::config::core::CoreServer;
use crate::fault::Fault;
use crate::request::facts::Rare;
use crate::request::{Ending, Request};
use crate::server::{Http, begins_with_http2};
use crate::session::connection::Connection;
use crate::session::h2;
use crate::session::silence;
use crate::session::witness::{Glance, Witness};

pub(super) use self::answer::{answer, linger};

/// Serves a connection until it ends.
pub fn serve(http: Rc<Http>, conn: Connection) -> Session {
    for counter in [&http.status.accepted, &http.status.handled] {
        counter.add(1);
    }
    let state = State::idle(&http, conn);
    Session { open: Open::new(http), state }
}

/// Serves on what another worker has begun: a connection that waits for its next request, for so long.
pub fn resume(http: Rc<Http>, conn: Connection, timeout_ms: Option<u64>) -> Session {
    let min_ms = conn.link.keepalive_min_ms.into();
    let state = State::wait(&http, conn, timeout_ms, min_ms);
    Session { open: Open::new(http), state }
}

/// Serves on a request that another worker has begun: `serve` brings it to its end, and gives it back without its
/// connection if yet another worker takes it over.
pub fn resume_request(http: Rc<Http>, serve: impl Future<Output = Box<Request>> + 'static) -> Session {
    let doing = Doing::new(&http.status.writing);
    let served = async move {
        let _doing = doing;
        let mut request = serve.await;
        if request.link.is_some() {
            request.log_access();
        }
        let keeps = finish(&mut request).await;
        end(request, keeps).map_or(After::Close, |(conn, rest)| After::Next(conn, rest))
    };
    Session { open: Open::new(http), state: State::Busy(Box::pin(served)) }
}

/// The task of a connection: written by hand, since an idle one is nothing but this.
pub struct Session {
    open: Open,
    state: State,
}

enum State {
    /// Waits for the first bytes of a request.
    Idle {
        conn: Connection,
        /// Until when it isn't closed for want of connections or because the worker quits (`keepalive_min_timeout`).
        kept: Option<Pin<Box<rt::Sleep>>>,
        waiting: Doing,
    },
    /// A request is being served.
    Serving(Serving),
    /// Anything else: what precedes the first request, a request that another worker has begun, HTTP/2. Everything that
    /// this needs lives in the box, and goes with it.
    Busy(Pin<Box<dyn Future<Output = After>>>),
    Over,
}

impl Future for Session {
    type Output = ();

    fn poll(self: Pin<&mut Session>, cx: &mut Context<'_>) -> Poll<()> {
        let Session { open: Open(http), state } = self.get_mut();
        loop {
            match state {
                State::Idle { conn, .. }
                    if !conn.link.stays
                        && let Some(successors) = http.worker.successors.get()
                        && conn.link.stream.socket().can_leave() =>
                {
                    let State::Idle { conn, .. } = std::mem::replace(state, State::Over) else {
                        return Poll::Ready(());
                    };
                    handover::give_idle(http, &successors, conn);
                }
                State::Idle { conn, kept, .. } => {
                    if kept.as_mut().is_some_and(|kept| kept.as_mut().poll(cx).is_ready()) {
                        *kept = None;
                        conn.link.stream.set_idle(true);
                        if http.worker.quitting.get() {
                            return Poll::Ready(());
                        }
                    }
                    let witness = Glance(http, conn);
                    let read = ready!(poll_first_bytes(http, conn, cx));
                    drop(witness);
                    let State::Idle { conn, waiting, .. } = std::mem::replace(state, State::Over) else {
                        return Poll::Ready(());
                    };
                    drop(waiting);
                    if let Some(bytes) = read {
                        *state = State::busy(http, conn, bytes, false);
                    }
                }
                State::Serving(serving) => {
                    let Ended { request, keeps } = ready!(serving.poll(cx));
                    let next = end(request, keeps).map_or(State::Over, |(conn, rest)| State::next(http, conn, rest));
                    if let State::Serving(serving) = std::mem::replace(state, next) {
                        keep(serving);
                    }
                }
                State::Busy(work) => {
                    *state = match ready!(work.as_mut().poll(cx)) {
                        After::Next(conn, rest) => State::next(http, conn, rest),
                        After::Http1(conn, first) => State::serving(http, conn, first, false),
                        After::Http2(conn, first) => State::http2(http, conn, first),
                        After::Close => State::Over,
                    };
                }
                State::Over => return Poll::Ready(()),
            }
            if let State::Idle { conn, .. } = state
                && conn.link.rests
                && http.worker.successors.is_empty()
            {
                return Poll::Pending;
            }
        }
    }
}

impl State {
    #[inline]
    fn idle(http: &Http, conn: Connection) -> State {
        let first = conn.facts.requests == 0;
        let timeout =
            if first { conn.facts.address.default.core.client_header_timeout } else { conn.link.keepalive_ms.into() };
        let min_ms = conn.link.keepalive_min_ms.into();
        State::wait(http, conn, Some(timeout), min_ms)
    }

    #[inline]
    fn wait(http: &Http, mut conn: Connection, timeout_ms: Option<u64>, min_ms: u64) -> State {
        let kept = (min_ms > 0).then(|| Box::pin(rt::sleep(min_ms)));
        conn.link.rests = false;
        if conn.facts.requests > 0 && kept.is_none() {
            conn.link.rests = conn.link.stream.rest(timeout_ms);
        } else {
            conn.link.stream.set_recv_timeout(timeout_ms);
            if conn.facts.requests == 0 {
                conn.link.stream.set_silent();
            }
        }
        State::Idle { conn, kept, waiting: Doing::new(&http.status.waiting) }
    }

    /// A connection waits for a request, whose first bytes may have come already.
    fn next(http: &Rc<Http>, conn: Connection, bytes: Bytes) -> State {
        match bytes.is_empty() {
            true => State::idle(http, conn),
            false => {
                let pipelined = conn.facts.requests > 0;
                State::busy(http, conn, bytes, pipelined)
            }
        }
    }

    /// Bytes have come: of a request, or of what precedes the first one.
    #[inline(always)]
    fn busy(http: &Rc<Http>, conn: Connection, bytes: Bytes, pipelined: bool) -> State {
        match conn.link.proxy_expected || conn.link.tls_expected || may_begin_with_http2(&conn) {
            true => State::Busy(Box::pin(prelude(http.clone(), conn, bytes))),
            false => State::serving(http, conn, bytes, pipelined),
        }
    }

    /// A request has begun with these bytes, and others may follow it.
    fn serving(http: &Rc<Http>, mut conn: Connection, mut bytes: Bytes, mut pipelined: bool) -> State {
        loop {
            let mut r = begin(http, conn, pipelined);
            let served = match parse(&mut r, &bytes) {
                Some(result) => {
                    let refused = parsed(&mut r, bytes, result);
                    let _doing = Doing::of(&http.status.writing);
                    answer_at_once(&mut r, refused).and_then(|()| finish_at_once(&r))
                }
                None => {
                    r.head = bytes;
                    Err(Left::Head)
                }
            };
            match served {
                Ok(keeps) => match end(r, keeps) {
                    None => return State::Over,
                    Some((conn, rest)) if rest.is_empty() => return State::idle(http, conn),
                    Some(kept) => (conn, bytes) = kept,
                },
                Err(left) => {
                    let serving = SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Serving::new(serve_later));
                    serving.begin((r, left));
                    return State::Serving(serving);
                }
            }
            pipelined = true;
        }
    }

    fn http2(http: &Rc<Http>, conn: Connection, first: Bytes) -> State {
        let witness = Witness::new(http, &conn);
        let served = h2::serve(http.clone(), conn, first);
        State::Busy(Box::pin(async move {
            let _witness = witness;
            served.await;
            After::Close
        }))
    }
}

/// Counts a connection while it is open.
struct Open(Rc<Http>);

impl Open {
    fn new(http: Rc<Http>) -> Open {
        http.worker.connections.set(http.worker.connections.get() + 1);
        http.status.active.add(1);
        Open(http)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.worker.connections.set(self.0.worker.connections.get() - 1);
        self.0.status.active.sub(1);
    }
}

/// Counts what a connection is doing.
pub(super) struct Doing<C: Borrow<Counter> = Counter>(C);

impl Doing {
    pub(super) fn new(counter: &Counter) -> Doing {
        Doing::of(counter.clone())
    }
}

impl<C: Borrow<Counter>> Doing<C> {
    fn of(counter: C) -> Doing<C> {
        counter.borrow().add(1);
        Doing(counter)
    }
}

impl<C: Borrow<Counter>> Drop for Doing<C> {
    fn drop(&mut self) {
        self.0.borrow().sub(1);
    }
}

/// How much is read at first: heads of browsers are larger than the default of `client_header_buffer_size`.
const FIRST_READ: usize = 4 << 10;

/// The first bytes of a request; `None` if there will be none.
fn poll_first_bytes(http: &Http, conn: &Connection, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
    let size = conn.facts.address.default.core.client_header_buffer_size.max(FIRST_READ);
    let read = ready!(conn.link.stream.poll_recv(cx, size));
    match conn.facts.requests {
        // The time for the first head runs from the beginning of the connection.
        0 => conn.link.stream.set_idle(false),
        _ => conn.link.stream.wake(),
    }
    Poll::Ready(match read {
        Ok(bytes) if bytes.is_empty() => {
            silence::log_close(http, conn);
            None
        }
        Ok(bytes) => {
            #[cfg(feature = "test-hooks")]
            crate::hooks::accident(&bytes);
            Some(bytes)
        }
        Err(error) => {
            silence::log_read_error(http, conn, &error, conn.facts.requests == 0);
            None
        }
    })
}

/// What comes before the first request: the PROXY protocol's header, then TLS.
async fn prelude(http: Rc<Http>, mut conn: Connection, mut bytes: Bytes) -> After {
    let _witness = Witness::new(&http, &conn);
    if conn.link.proxy_expected {
        match proxy_header(&http, &mut conn, &bytes).await {
            Some(rest) => bytes = rest,
            None => return After::Close,
        }
    }
    if std::mem::take(&mut conn.link.tls_expected) {
        match crate::session::tls::handshake(&http, conn, bytes).await {
            Some((secured, rest)) => (conn, bytes) = (secured, rest),
            None => return After::Close,
        }
        if conn.facts.negotiated_http2() {
            return After::Http2(conn, bytes);
        }
    }
    if may_begin_with_http2(&conn) {
        return match preface(&http, &conn, bytes).await {
            Some((true, rest)) => After::Http2(conn, rest),
            Some((false, rest)) => After::Http1(conn, rest),
            None => After::Close,
        };
    }
    After::Next(conn, bytes)
}

/// Whether the next bytes tell which version of HTTP is spoken.
fn may_begin_with_http2(conn: &Connection) -> bool {
    conn.facts.requests == 0 && begins_with_http2(&conn.facts.address)
}

/// Whether the connection begins with HTTP/2, and what has been read of it. `None`: it is over.
async fn preface(http: &Http, conn: &Connection, bytes: Bytes) -> Option<(bool, Bytes)> {
    let core = &conn.facts.address.default.core;
    let mut buf = Buf::empty();
    buf.extend_from_slice(&bytes);
    if !conn.link.stream.recv_timeout_set() {
        // The header of the PROXY protocol had the time until now.
        conn.link.stream.set_recv_timeout(Some(core.client_header_timeout));
    }
    loop {
        if let Some(found) = h2::is_preface(&buf) {
            return Some((found, buf.freeze()));
        }
        if buf.is_empty() {
            // What came so far was from a proxy in front.
            conn.link.stream.set_silent();
        }
        let more = conn.link.stream.recv(core.client_header_buffer_size).await;
        conn.link.stream.set_idle(false);
        match more {
            Ok(more) if more.is_empty() => {
                silence::log_close(http, conn);
                return None;
            }
            Ok(more) => buf.extend_from_slice(&more),
            Err(error) => {
                silence::log_read_error(http, conn, &error, true);
                return None;
            }
        }
    }
}

/// Reads the PROXY protocol's header; what follows it is given back. `None` closes the connection.
async fn proxy_header(http: &Http, conn: &mut Connection, first: &[u8]) -> Option<Bytes> {
    conn.link.proxy_expected = false;
    let (header, rest) = proxy::read(conn.link.stream.socket(), first, || http.visitor(conn)).await?;
    conn.facts.rare = Rare::of_proxy(header);
    Some(rest)
}

/// What becomes of a connection after what kept it busy.
enum After {
    /// It waits for the next request, or goes on with the one whose bytes came already.
    Next(Connection, Bytes),
    /// It goes on with HTTP/1 for good; these bytes came already.
    Http1(Connection, Bytes),
    /// It goes on with HTTP/2; these bytes came already.
    Http2(Connection, Bytes),
    /// It is closed.
    Close,
}

/// Begins a request of a connection.
fn begin(http: &Rc<Http>, conn: Connection, pipelined: bool) -> Box<Request> {
    let mut r = Request::begin(conn, http);
    r.conn.requests += 1;
    r.pipelined = pipelined;
    http.status.requests.add(1);
    r
}

/// Ends a request; if its connection is kept, that is given back with what has come after the request.
#[inline(always)]
fn end(mut r: Box<Request>, keeps: bool) -> Option<(Connection, Bytes)> {
    let unread = r.body.take_unread();
    let core = &r.location.core;
    let (tcp_nodelay, keepalive_ms) = (core.shared.tcp_nodelay, core.keepalive_timeout.0);
    let keepalive_min_ms = core.keepalive_min_timeout;
    let mut conn = r.end()?;
    if !keeps {
        return None;
    }
    conn.link.set_nodelay(tcp_nodelay);
    conn.link.keepalive_ms = u32::try_from(keepalive_ms).unwrap_or(u32::MAX);
    conn.link.keepalive_min_ms = u32::try_from(keepalive_min_ms).unwrap_or(u32::MAX);
    Some((conn, unread))
}

/// What serves requests that have to wait for something: a future that is used for one after the other.
type Serving = rt::Reused<(Box<Request>, Left), Ended>;

/// A request that was served.
struct Ended {
    request: Box<Request>,
    /// Whether its connection waits for the next one.
    keeps: bool,
}

/// How many of those that serve nobody are kept for the next requests.
const MAX_SPARE: usize = 64;

thread_local! {
    /// What has served requests, kept for its memory.
    static SPARE: RefCell<Vec<Serving>> = const { RefCell::new(Vec::new()) };
}

/// Keeps what has served a request for the next one.
fn keep(serving: Serving) {
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < MAX_SPARE {
            spare.push(serving);
        }
    });
}

/// Brings a request to its end.
async fn serve_later((mut request, left): (Box<Request>, Left)) -> Ended {
    let r = &mut *request;
    let left = match left {
        Left::Head => match read_head(r).await {
            Head::Complete => Err(None),
            Head::Refused(fault) => Err(Some(fault)),
            Head::Closed => {
                if !r.head.is_empty() {
                    cut_short(r, Fault::ClosedEarly, "");
                }
                return Ended { request, keeps: false };
            }
            Head::TimedOut => {
                cut_short(r, Fault::SlowClient, TIMED_OUT);
                r.give_up();
                return Ended { request, keeps: false };
            }
        },
        left => Ok(left),
    };
    let _doing = Doing::new(&r.http.status.writing);
    match left {
        Ok(left) => answer_later(r, left).await,
        Err(refused) => answer(r, refused).await,
    }
    let keeps = finish(r).await;
    Ended { request, keeps }
}

enum Head {
    Complete,
    Refused(Fault),
    Closed,
    TimedOut,
}

/// Parses what there is of a request's head; its length, or what is wrong with it, once that is known.
fn parse(r: &mut Request, data: &[u8]) -> Option<Result<usize, RequestError>> {
    let limits = limits(&r.server.core);
    match r.parser.parse(data, &limits, &mut r.line) {
        Ok(Parsed::Complete(used)) => Some(Ok(used)),
        Ok(Parsed::Incomplete) => None,
        Err(error) => Some(Err(error)),
    }
}

/// Chooses the server of a head that was read, and prepares the request for its phases; the fault for which it is refused.
fn parsed(r: &mut Request, bytes: Bytes, result: Result<usize, RequestError>) -> Option<Fault> {
    if r.conn.requests == 1 {
        end_wait(r);
    }
    let understood = match result {
        Ok(used) => complete(r, bytes, used),
        Err(error) => Err(refuse(r, bytes, error)),
    };
    understood.err()
}

/// The head is there: the time for it no longer counts.
fn end_wait(r: &Request) {
    r.client().inspect(|client| client.set_recv_timeout(None));
}

/// Reads the rest of a head, of which the request has what came first.
async fn read_head(r: &mut Request) -> Head {
    let _doing = Doing::new(&r.http.status.reading);
    let core = r.server.core.clone();
    let bytes = std::mem::take(&mut r.head);
    let mut buf = Buf::with_capacity(bytes.len() + core.client_header_buffer_size);
    buf.extend_from_slice(&bytes);
    drop(bytes);
    // The time runs from the first byte of the request, that of the first request from the beginning of the connection.
    let is_first = r.conn.requests == 1;
    if let Some(client) = r.client().filter(|client| !is_first || !client.recv_timeout_set()) {
        client.set_recv_timeout(Some(core.client_header_timeout));
    }
    loop {
        let Some(client) = r.client() else { return Head::Closed };
        match client.recv(core.large_client_header_buffers.size).await {
            Ok(more) if !more.is_empty() => buf.extend_from_slice(&more),
            Ok(_) => {
                if r.parser.has_begun(&buf) {
                    r.head = buf.freeze();
                }
                return Head::Closed;
            }
            Err(error) => {
                let begun = r.parser.has_begun(&buf);
                r.head = if begun { buf.freeze() } else { Bytes::default() };
                return match error.kind() {
                    io::ErrorKind::TimedOut if begun => Head::TimedOut,
                    _ => Head::Closed,
                };
            }
        }
        if let Some(result) = parse(r, &buf) {
            end_wait(r);
            return parsed(r, buf.freeze(), result).map_or(Head::Complete, Head::Refused);
        }
    }
}

pub(crate) fn limits(core: &CoreServer) -> Limits {
    Limits {
        header_buffer: core.client_header_buffer_size,
        line: core.large_client_header_buffers.size,
        buffers: core.large_client_header_buffers.count,
        max_headers: core.max_headers,
        ignore_invalid: core.ignore_invalid_headers,
        underscores: core.underscores_in_headers,
    }
}

/// The head is there: everything that follows from it.
fn complete(r: &mut Request, mut bytes: Bytes, used: usize) -> Result<(), Fault> {
    let rest = bytes.split_off(used);
    r.head = bytes;
    r.method = r.line.method_id;
    if !r.line.ignored.is_empty() {
        log_ignored(r);
    }
    let merge = r.server.core.merge_slashes;
    let Request { head, line, uri, args, host, .. } = r;
    let head = &head[..];
    if !take_uri(line, head, merge, uri, args) {
        r.line.refuse_uri();
        r.parser.refuse_uri();
        return Err(invalid_uri(r));
    }
    take_host(line, head, host);
    let (framing, keeps, waits) = (line.framing(head), line.keep_alive(head), line.expects_continue(head));
    choose_server(r)?;
    let framing = framing.map_err(|error| refuse_parsed(r, error))?;
    let method = r.line.check_method(r.server.serves_connect, framing);
    method.map_err(|error| refuse_parsed(r, error))?;
    crate::session::tls::check(r).inspect_err(|_| r.ending = Ending::Linger)?;
    r.body.begin(framing, rest, waits && framing != BodyFraming::None);
    // After CONNECT the client may take the connection for its tunnel's, whatever the answer is.
    r.ending = if keeps && r.method != Method::Connect { Ending::Keep } else { Ending::Close };
    if r.conn.debug {
        let shown = buf::text::encode(r.line.request_line.of(&r.head)).into_owned();
        r.log_at(Level::Debug, format_args!("http request line: \"{shown}\""));
    }
    Ok(())
}

/// Says which lines of a head were left out.
pub(super) fn log_ignored(r: &Request) {
    for name in &r.line.ignored {
        let name = buf::text::encode(name.of(&r.head)).into_owned();
        let what = if r.line.version < 2000 { "header line" } else { "header" };
        r.log_at(
            Level::Info,
            format_args!("client sent invalid {what}: \"{name}\" while reading client request headers"),
        );
    }
}

pub(crate) fn set_uri(r: &mut Request) -> Result<(), Fault> {
    let merge = r.server.core.merge_slashes;
    let Request { head, line, uri, args, .. } = r;
    if take_uri(line, head, merge, uri, args) { Ok(()) } else { Err(invalid_uri(r)) }
}

/// Takes the URI's path, decoded and normalised, and its arguments; false if it isn't valid.
fn take_uri(line: &RequestHead, head: &[u8], merge: bool, uri: &mut Vec<u8>, args: &mut Vec<u8>) -> bool {
    if let Some(sent) = line.args {
        args.extend_from_slice(sent.of(head));
    }
    if line.empty_path_in_uri {
        uri.push(b'/');
        return true;
    }
    if !line.complex_uri {
        uri.extend_from_slice(line.uri_path.of(head));
        return true;
    }
    let target = line.target.of(head);
    match wire::uri::normalize(target, merge, uri) {
        Ok(normalized) => {
            args.clear();
            if let Some(normalized) = normalized.args {
                args.extend_from_slice(normalized.of(target));
            }
            true
        }
        Err(_) => {
            uri.clear();
            false
        }
    }
}

#[cold]
fn invalid_uri(r: &mut Request) -> Fault {
    Fault::InvalidUri.log_with(r, &reading(r, Stage::Line))
}

/// Chooses the server by the host that was asked for.
pub(crate) fn set_server(r: &mut Request) -> Result<(), Fault> {
    let Request { head, line, host, .. } = r;
    take_host(line, head, host);
    choose_server(r)
}

/// Takes the host that was asked for.
fn take_host(line: &RequestHead, head: &[u8], host: &mut Vec<u8>) {
    if let Some(asked) = line.host() {
        host.extend_from_slice(asked.of(head));
        if line.host_has_capitals() {
            host.make_ascii_lowercase();
        }
    }
}

/// The same once the host was taken. Without one the server named "" is meant, if there is one.
fn choose_server(r: &mut Request) -> Result<(), Fault> {
    if crate::session::tls::is_chosen(r) {
        if let Some(regex) = r.conn.chosen().and_then(|chosen| chosen.regex.clone()) {
            match_host(r, &regex)?;
        }
        return Ok(());
    }
    if r.conn.address.names.is_empty() && r.conn.address.regexes.is_empty() {
        return Ok(());
    }
    let address = r.conn.address.clone();
    let found = match address.names.lookup(&r.host) {
        Some(found) => Some(found),
        None if r.host.is_empty() => None,
        None => {
            let mut found = None;
            for (regex, server) in &address.regexes {
                if match_host(r, regex)? {
                    found = Some(server);
                    break;
                }
            }
            found
        }
    };
    // A host that no server has is the default's, whichever server TLS has chosen.
    let server = found.unwrap_or(&address.default);
    if !Rc::ptr_eq(&r.server, server) {
        r.location = server.root.clone();
        r.server = server.clone();
    }
    Ok(())
}

/// Whether a server's regex matches the host; if so, its captures are set.
fn match_host(r: &mut Request, regex: &Regex) -> Result<bool, Fault> {
    let host = std::mem::take(&mut r.host);
    let matched = regex.exec(r, &host);
    r.host = host;
    Ok(matched?)
}

/// The same of a head that is refused: without a host the server is the one that it was until then.
pub(crate) fn set_server_of_refused(r: &mut Request) {
    if r.line.host().is_some() {
        let _ = set_server(r);
    }
}

fn refuse(r: &mut Request, bytes: Bytes, error: RequestError) -> Fault {
    r.head = bytes;
    know_line(r, error.stage());
    refuse_parsed(r, error)
}

/// What is known of a request whose head was read up to this stage.
fn know_line(r: &mut Request, stage: Stage) {
    if stage == Stage::Headers {
        // The line was read; its host chooses the server whose error pages are shown.
        r.method = r.line.method_id;
        let _ = set_uri(r);
        set_server_of_refused(r);
    } else {
        // Of what isn't a request line nothing is known but how it reads, and whether a body may follow the answer's head.
        r.method = r.line.method_id;
        let (protocol, version) = (r.line.protocol, r.line.version);
        r.line.clear();
        (r.line.method_id, r.line.protocol, r.line.version) = (r.method, protocol, version);
        r.line.request_line = first_line(&r.head);
    }
}

/// Logs a request whose head doesn't come to its end: there is no response.
fn cut_short(r: &mut Request, fault: Fault, why: &str) {
    let stage = if r.line.request_line.is_empty() { Stage::Line } else { Stage::Headers };
    know_line(r, stage);
    fault.log_with(r, &format_args!("{why} while {}", reading(r, stage)));
    r.error_status = fault.status();
    r.log_access();
}

/// What was going on, in nginx's words.
fn reading(r: &Request, stage: Stage) -> &'static str {
    match stage {
        // In HTTP/2 it is one of the fields.
        Stage::Line if r.line.version >= 2000 => Stage::Headers.action(),
        Stage::Line if r.pipelined => "reading client pipelined request line",
        stage => stage.action(),
    }
}

/// The first line that isn't empty, or as much of it as there is.
fn first_line(head: &[u8]) -> Span {
    let start = head.iter().position(|c| !matches!(c, b'\r' | b'\n')).unwrap_or(head.len());
    let rest = &head[start..];
    let length = rest.iter().position(|c| matches!(c, b'\r' | b'\n')).unwrap_or(rest.len());
    Span::new(start, start + length)
}

fn refuse_parsed(r: &mut Request, error: RequestError) -> Fault {
    let action = reading(r, error.stage());
    let head = r.head.clone();
    r.ending = Ending::Linger;
    Fault::from(error).log_with(r, &format_args!("{} while {action}", error.text(&head)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An idle connection costs its future, its slot (88 bytes), its task's row (24) and its timer's key (8).
    #[test]
    fn an_idle_connection_is_small() {
        let (session, conn) = (size_of::<Session>(), size_of::<Connection>());
        assert!(session <= 120, "{session}, of which the connection {conn}");
    }
}
