//! The task of a connection: it reads, hands over what has come, sends what is queued, and knows when to end.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use buf::{Buf, Bytes, Chain};
use engine::log::{Errno, Level, TIMED_OUT};
use wire::h2::{Code, ConnectionError, Event, StreamKey};

use super::request::{Begun, Running};
use super::shared::Shared;
use super::stream::StreamState;
use crate::config::core::Lingering;
use crate::server::Http;
use crate::session::connection::Connection;
use crate::session::h1::{Doing, linger};

/// The largest single read.
const READ: usize = 16 << 10;
/// How much is made ready for the socket in one go; with the frame that goes beyond it, it fits into 64 KiB.
const WRITE: u64 = 62 << 10;
/// How much may wait for a client that reads nothing before it isn't listened to either.
const MOST_UNSENT: u64 = 256 << 10;
/// How often in one turn.
const WRITES: usize = 16;

/// Serves an HTTP/2 connection until it ends; `first` has been read from it.
pub async fn serve(http: Rc<Http>, mut conn: Connection, first: Bytes) {
    conn.link.set_nodelay(true);
    let Some(shared) = Shared::new(&http, conn) else { return };
    let shared = Rc::new(shared);
    let listed = http.worker.list_session(&shared);
    let core = &shared.server.root.core;
    shared.socket.set_send_timeout(Some(core.send_timeout));
    // That of the handshake is over.
    shared.socket.set_recv_timeout(None);
    let heard = !first.is_empty();
    let mood = Mood::New;
    let mut task = Task {
        shared: shared.clone(),
        input: first,
        mood,
        heard,
        blocked: false,
        failed: false,
        at_end: false,
        waiting: None,
        requests: 0,
        more: false,
        begun: Vec::new(),
    };
    let end = poll_fn(|cx| task.poll(cx)).await;
    task.say_goodbye(&end);
    shared.fail_streams();
    poll_fn(|cx| task.poll_end(cx)).await;
    drop(task);
    http.worker.unlist_session(listed);
    if matches!(end, End::Evicted) && !http.worker.quitting.get() {
        // Another client waits for the place.
        return;
    }
    // Told to give its place up, it still lingers.
    shared.socket.set_idle(false);
    if !matches!(end, End::Gone) && core.lingering_close != Lingering::Off {
        linger(&shared.socket, core.lingering_time, core.lingering_timeout).await;
    }
}

/// Why a connection ends.
enum End {
    /// The client is gone, or can't be reached.
    Gone,
    /// Everything is done; the code is what the client is told.
    Done(Code),
    /// Its place is needed, or the worker stops, while nothing runs.
    Evicted,
    /// The client broke the protocol; it has been told.
    Failed,
}

/// What a connection waits for, as far as deadlines are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// Nothing yet.
    New,
    /// The first byte.
    Silent,
    /// The preface, or the rest of a head.
    Reading,
    /// The rest of another frame.
    Partial,
    /// Requests are being served.
    Busy,
    /// They are over, and the client has taken the windows back that the last responses counted on.
    Draining,
    /// Anything.
    Idle,
}

struct Task {
    shared: Rc<Shared>,
    input: Bytes,
    mood: Mood,
    /// The client has said something.
    heard: bool,
    /// The socket takes no more now.
    blocked: bool,
    /// Sending has failed: nothing reaches the client any more.
    failed: bool,
    /// The client has closed its side.
    at_end: bool,
    waiting: Option<Doing>,
    /// How many requests there had been when the deadline was set.
    requests: u32,
    /// There may be more to be read: what is queued goes out first.
    more: bool,
    /// Requests with bodies: what has come with their heads is handed over to them before their first turn.
    begun: Vec<Begun>,
}

impl Task {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.shared.wake_me(cx.waker());
        if let Poll::Ready(end) = self.poll_receive(cx) {
            return Poll::Ready(end);
        }
        self.obey();
        match self.poll_transmit(cx) {
            Poll::Ready(Err(error)) => {
                self.log_failure("send", &error);
                self.failed = true;
                return Poll::Ready(End::Gone);
            }
            Poll::Ready(Ok(())) if self.is_done() => return Poll::Ready(End::Done(Code::NO_ERROR)),
            _ => {}
        }
        self.set_deadline();
        if std::mem::take(&mut self.more) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Reads until there is no more, no more time for this connection, or enough to be sent.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if let Err(error) = self.events() {
                self.log(Level::Info, format_args!("client {error} while processing HTTP/2 connection"));
                return Poll::Ready(End::Failed);
            }
            self.welcome();
            let unsent = self.shared.protocol.borrow().unsent_heads() as u64;
            let most = if self.blocked { MOST_UNSENT } else { WRITE };
            if unsent >= most {
                self.more = !self.blocked;
                return Poll::Pending;
            }
            let at_end = self.at_end;
            match if at_end { Ok(Buf::empty()) } else { ready!(self.shared.socket.poll_recv(cx, READ)) } {
                Ok(bytes) if bytes.is_empty() => {
                    // What came with the end gets its turn, and what is made of it at once goes out: as in nginx, which
                    // sees the end afterwards.
                    self.at_end = true;
                    if !at_end && self.shared.running.get() > 0 {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    if self.shared.running.get() > 0 || matches!(self.mood, Mood::Silent | Mood::Reading) {
                        self.log(
                            Level::Info,
                            format_args!("client prematurely closed connection while processing HTTP/2 connection"),
                        );
                    }
                    return Poll::Ready(End::Gone);
                }
                Ok(bytes) => {
                    #[cfg(feature = "test-hooks")]
                    crate::hooks::accident(&bytes);
                    self.heard = true;
                    self.input = bytes.freeze();
                }
                Err(error) if self.gives_up_head(&error) => {}
                Err(error) => return Poll::Ready(self.receive_failed(&error)),
            }
        }
    }

    /// A request that comes when the time for it is over, or the place is needed, has come before the end: from here on it has
    /// the time of its own. Otherwise the next look at the socket would end the connection, and the request with it.
    fn welcome(&mut self) {
        let begun = self.requests != self.shared.requests.get() || self.shared.protocol.borrow().is_reading_head();
        if begun && !matches!(self.mood, Mood::New | Mood::Busy) {
            self.set_deadline();
        }
    }

    /// A head that doesn't come to its end in time costs its stream, not the connection. Its rest may come for as long
    /// as an idle connection is kept.
    fn gives_up_head(&self, error: &io::Error) -> bool {
        let shared = &self.shared;
        if error.kind() != io::ErrorKind::TimedOut || !shared.protocol.borrow_mut().abandon_head() {
            return false;
        }
        self.log(Level::Info, format_args!("client timed out{TIMED_OUT}"));
        shared.socket.set_recv_timeout(Some(shared.server.root.core.keepalive_timeout.0));
        true
    }

    fn receive_failed(&self, error: &io::Error) -> End {
        if rt::is_closing(error) {
            return if self.shared.running.get() > 0 { End::Gone } else { End::Evicted };
        }
        if error.kind() != io::ErrorKind::TimedOut {
            self.log_failure("recv", error);
            return End::Gone;
        }
        if matches!(self.mood, Mood::Idle | Mood::Partial) {
            return End::Done(Code::NO_ERROR);
        }
        self.log(Level::Info, format_args!("client timed out{TIMED_OUT}"));
        if self.shared.facts.address.default.root.core.reset_timedout_connection {
            self.shared.socket.linger_reset();
        }
        End::Done(Code::PROTOCOL_ERROR)
    }

    /// Hands over what has come.
    fn events(&mut self) -> Result<(), ConnectionError> {
        let handled = self.handle();
        self.begun.drain(..).for_each(Begun::serve);
        self.tell_lost();
        handled
    }

    fn handle(&mut self) -> Result<(), ConnectionError> {
        while !self.input.is_empty() {
            let event = self.shared.protocol.borrow_mut().handle(rt::now_ms(), &mut self.input)?;
            let Some(event) = event else { return Ok(()) };
            self.event(event);
        }
        Ok(())
    }

    fn event(&mut self, event: Event) {
        let shared = &self.shared;
        match event {
            Event::Request { stream, end_stream } => self.begin_request(stream, end_stream),
            Event::Data { stream, bytes, end_stream } => shared.deliver(stream, bytes, end_stream),
            Event::Trailers { stream } => shared.deliver(stream, Bytes::default(), true),
            Event::BadBody { stream, missing } => {
                if let Some(state) = shared.find(stream) {
                    state.spoil(missing);
                }
            }
            Event::Reset { stream, code, reason } => {
                match reason {
                    Some(reason) => self.log(
                        Level::Info,
                        format_args!("client {reason}, stream {} while processing HTTP/2 connection", stream.id()),
                    ),
                    None => self.log_reset(stream, code),
                }
                if let Some(state) = shared.find(stream) {
                    state.fail(code);
                }
            }
            Event::GoAway { .. } | Event::SettingsAcked | Event::Pong(_) | Event::Response { .. } => {}
        }
    }

    fn log_reset(&self, stream: StreamKey, code: Code) {
        let id = stream.id();
        match code {
            Code::CANCEL => self.log(Level::Info, format_args!("client canceled stream {id}")),
            Code::INTERNAL_ERROR => {
                self.log(Level::Info, format_args!("client terminated stream {id} due to internal error"));
            }
            Code(code) => self.log(Level::Info, format_args!("client terminated stream {id} with status {code}")),
        }
    }

    /// A request has come: a task of its own serves it.
    fn begin_request(&mut self, key: StreamKey, end_stream: bool) {
        let shared = &self.shared;
        shared.requests.set(shared.requests.get() + 1);
        if self.is_enough() {
            shared.protocol.borrow_mut().go_away(Code::NO_ERROR);
        }
        let mut head = std::mem::take(shared.protocol.borrow_mut().head_mut());
        let state = Rc::new(StreamState::new(shared.clone(), key, end_stream));
        shared.add(state.clone());
        let begun = Begun::new(Running::new(state, shared.requests.get()), &mut head, end_stream);
        match end_stream {
            true => begun.serve(),
            false => self.begun.push(begun),
        }
        // Its memory is used for the next one.
        *self.shared.protocol.borrow_mut().head_mut() = head;
    }

    /// Whether the connection has served what it may.
    fn is_enough(&self) -> bool {
        let (shared, core) = (&self.shared, &self.shared.server.root.core);
        shared.requests.get() as usize >= core.keepalive_requests
            || rt::now_ms().saturating_sub(shared.facts.started_ms) >= core.keepalive_time
    }

    /// A worker that quits takes no new requests.
    fn obey(&self) {
        if self.shared.http.worker.quitting.get() && self.mood != Mood::New {
            self.shared.protocol.borrow_mut().go_away(Code::NO_ERROR);
        }
    }

    /// Sends what is queued; ready when everything is with the kernel.
    fn poll_transmit(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..WRITES {
            if self.blocked {
                ready!(self.shared.socket.poll_send(cx, &mut Chain::new()))?;
                self.blocked = false;
            }
            let next = self.shared.protocol.borrow_mut().poll_transmit(WRITE);
            self.tell_drained();
            self.tell_lost();
            let Some(mut chain) = next else { return Poll::Ready(Ok(())) };
            match self.shared.socket.poll_send(cx, &mut chain) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => {
                    self.blocked = true;
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Tells streams that have ended what of them didn't go out.
    fn tell_lost(&self) {
        loop {
            let lost = self.shared.protocol.borrow_mut().poll_lost();
            let Some((key, unsent)) = lost else { return };
            if let Some(state) = self.shared.find(key) {
                state.lose(unsent);
            }
        }
    }

    /// Lets streams go on of which everything is out.
    fn tell_drained(&self) {
        loop {
            let key = self.shared.protocol.borrow_mut().poll_drained();
            let Some(key) = key else { return };
            if let Some(state) = self.shared.find(key) {
                state.drained();
            }
        }
    }

    /// Whether the connection is over: it takes no new requests, and has none.
    fn is_done(&self) -> bool {
        let protocol = self.shared.protocol.borrow();
        let empty = self.shared.running.get() == 0 && protocol.streams() == 0 && !protocol.is_reading_request();
        empty && protocol.is_going_away()
    }

    fn set_deadline(&mut self) {
        let (mood, requests) = (self.current_mood(), self.shared.requests.get());
        // A request may have come and be over already: the same mood has begun anew.
        if std::mem::replace(&mut self.requests, requests) == requests && mood == self.mood {
            return;
        }
        let (shared, core) = (&self.shared, &self.shared.server.root.core);
        shared.socket.set_recv_timeout(match mood {
            Mood::New | Mood::Busy => None,
            Mood::Draining => Some(core.send_timeout),
            Mood::Silent | Mood::Reading => Some(self.shared.server.core.client_header_timeout),
            Mood::Idle if shared.requests.get() == 0 => Some(self.shared.server.core.client_header_timeout),
            Mood::Idle | Mood::Partial => Some(core.keepalive_timeout.0),
        });
        match mood {
            Mood::Silent => shared.socket.set_silent(),
            _ => shared.socket.set_idle(mood == Mood::Idle),
        }
        if mood == Mood::Idle {
            shared.protocol.borrow_mut().free_head();
        }
        self.waiting = (mood == Mood::Idle).then(|| Doing::new(&shared.http.status.waiting));
        self.mood = mood;
    }

    fn current_mood(&self) -> Mood {
        let protocol = self.shared.protocol.borrow();
        match () {
            () if !self.heard && !self.blocked => Mood::Silent,
            () if protocol.is_reading_head() => Mood::Reading,
            () if self.shared.running.get() > 0 || self.blocked => Mood::Busy,
            () if protocol.streams() > 0 => Mood::Draining,
            () if protocol.is_idle() => Mood::Idle,
            () if self.shared.requests.get() == 0 => Mood::Reading,
            () => Mood::Partial,
        }
    }

    /// Tells the client why the connection ends.
    fn say_goodbye(&self, end: &End) {
        match end {
            End::Done(code) => self.shared.protocol.borrow_mut().go_away(*code),
            End::Evicted => self.shared.protocol.borrow_mut().go_away(Code::NO_ERROR),
            End::Gone | End::Failed => {}
        }
    }

    /// Waits until all requests are over and the last words are sent, if they can be.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.wake_me(cx.waker());
        // After its timeout sending has no deadline any more: it is not to be waited for.
        let sent = if self.failed { Poll::Ready(Ok(())) } else { self.poll_transmit(cx) };
        self.failed |= matches!(sent, Poll::Ready(Err(_)));
        if self.shared.running.get() > 0 { Poll::Pending } else { sent.map(|_| ()) }
    }
}

impl Task {
    fn log_failure(&self, call: &str, error: &io::Error) {
        if error.kind() == io::ErrorKind::TimedOut {
            return self.log(Level::Info, format_args!("client timed out{TIMED_OUT}"));
        }
        if !rt::is_closing(error) {
            let errno = Errno(error);
            self.log(Level::Info, format_args!("{call}() failed{errno} while processing HTTP/2 connection"));
        }
    }

    fn log(&self, level: Level, message: std::fmt::Arguments<'_>) {
        let shared = &self.shared;
        let log = shared.http.log_of(&shared.server.root.core);
        let log = if shared.facts.debug { log.debugging() } else { log };
        let details = |line: &mut String| {
            line.push_str(&format!(", client: {}, server: {}", shared.facts.peer.text(), shared.facts.address.addr));
        };
        log.write_with(level, Some(shared.socket.number()), message, Some(&details));
    }
}
