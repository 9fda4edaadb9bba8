//! What a request sees of its stream: what [`rt::Stream`] is to a request of HTTP/1.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use buf::{Bytes, Chain};
use wire::h2::{Code, StreamKey};
use wire::hpack::Indexing;

use super::shared::Shared;
use super::websocket::Tunnel;
use crate::response::headers::Headers;

/// A stream, held by its request.
pub struct StreamHandle(Rc<StreamState>);

/// What the connection's task and a stream's have in common.
pub(super) struct StreamState {
    pub(super) shared: Rc<Shared>,
    pub(super) key: StreamKey,
    body: RefCell<VecDeque<Bytes>>,
    /// The client has sent all of the body.
    ended: Cell<bool>,
    /// The body isn't as long as Content-Length said: how many bytes are missing, or 0 if there are too many.
    bad_body: Cell<Option<u64>>,
    /// It was reset, or the connection is gone: why.
    gone: Cell<Option<Code>>,
    task: RefCell<Option<Waker>>,
    /// What comes with the end of the body that is sent.
    end: RefCell<End>,
    /// Bytes taken over: of heads, and of the body without what frames add to it.
    accepted: Cell<u64>,
    /// What frames add to the body, and trailers.
    framing: Cell<u64>,
    /// What of the body was queued when the stream ended.
    lost: Cell<u64>,
    /// Bytes of the request's header block.
    head_received: Cell<u64>,
    /// What is queued counts as sent.
    at_once: Cell<bool>,
    /// The client's windows stayed closed for too long.
    timed_out: Cell<bool>,
    /// The whole response has left the queue: what becomes of the stream afterwards doesn't matter to it.
    sent: Cell<bool>,
    window_opened: Cell<bool>,
    tunnel: Cell<Tunnel>,
    recv_deadline: Cell<Option<u64>>,
    recv_timer: RefCell<Option<Pin<Box<rt::Sleep>>>>,
    send_timeout_ms: Cell<Option<u64>>,
    send_timer: RefCell<Option<SendTimer>>,
}

/// How the response ends.
enum End {
    /// Not with what is sent next.
    Later,
    /// With what is sent next.
    Next(Headers),
    /// It has been queued.
    Queued,
}

/// Runs while nothing goes out.
struct SendTimer {
    sleep: Pin<Box<rt::Sleep>>,
    /// What was queued when it began.
    queued: u64,
}

/// A response's last bytes, if they are no more than these and the windows have room for them, count as sent when they
/// are queued: they are part of the next thing that goes out.
const AT_ONCE: u64 = 32 << 10;

/// What a frame adds to its payload.
const FRAME_HEADER: u64 = wire::h2::frame::FRAME_HEADER_LEN as u64;

impl StreamState {
    pub(super) fn new(shared: Rc<Shared>, key: StreamKey, ended: bool) -> StreamState {
        StreamState {
            shared,
            key,
            body: RefCell::default(),
            ended: Cell::new(ended),
            bad_body: Cell::new(None),
            gone: Cell::new(None),
            task: RefCell::default(),
            end: RefCell::new(End::Later),
            accepted: Cell::new(0),
            framing: Cell::new(0),
            lost: Cell::new(0),
            head_received: Cell::new(0),
            at_once: Cell::new(false),
            timed_out: Cell::new(false),
            sent: Cell::new(false),
            window_opened: Cell::new(false),
            tunnel: Cell::new(Tunnel::No),
            recv_deadline: Cell::new(None),
            recv_timer: RefCell::default(),
            send_timeout_ms: Cell::new(None),
            send_timer: RefCell::default(),
        }
    }

    pub(super) fn wake(&self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    /// Everything that was queued is on its way.
    pub(super) fn drained(&self) {
        self.sent.set(matches!(*self.end.borrow(), End::Queued));
        self.wake();
    }

    /// A part of the body has come.
    pub(super) fn receive(&self, bytes: Bytes, end: bool) {
        if !bytes.is_empty() {
            enqueue(&mut self.body.borrow_mut(), bytes);
        }
        self.ended.set(self.ended.get() || end);
        self.wake();
    }

    /// The body isn't what it should be.
    pub(super) fn spoil(&self, missing: u64) {
        self.bad_body.set(Some(missing));
        self.wake();
    }

    /// The stream is no longer needed.
    pub(super) fn fail(&self, code: Code) {
        if self.gone.get().is_none() {
            self.gone.set(Some(code));
        }
        self.wake();
    }

    /// The stream has ended before so much of its body was transmitted.
    pub(super) fn lose(&self, unsent: u64) {
        self.lost.set(unsent);
    }

    fn wait(&self, cx: &mut Context<'_>) {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }
}

/// Appends a part to those that nobody has taken yet. A small one is copied then: it shares the buffer that it was read
/// into, and many of them would hold one each.
fn enqueue(body: &mut VecDeque<Bytes>, bytes: Bytes) {
    const SMALL: usize = 4096;
    if bytes.len() > SMALL || body.is_empty() {
        return body.push_back(bytes);
    }
    match body.back_mut() {
        Some(last) if last.len() + bytes.len() <= SMALL => *last = Bytes::from([&last[..], &bytes[..]].concat()),
        _ => body.push_back(Bytes::from(bytes.to_vec())),
    }
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl StreamHandle {
    pub(super) fn new(state: Rc<StreamState>) -> StreamHandle {
        StreamHandle(state)
    }

    pub(super) fn shared(&self) -> &Rc<Shared> {
        &self.0.shared
    }

    pub(super) fn key(&self) -> StreamKey {
        self.state().key
    }

    fn state(&self) -> &StreamState {
        &self.0
    }

    /// The socket of the whole connection.
    pub fn socket(&self) -> &rt::Stream {
        &self.shared().socket
    }

    /// Whether the client has given it up, or the connection is gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.state().gone.get().is_some()
    }

    /// Whether it is, or is to be, a tunnel.
    pub(super) fn tunnel(&self) -> Tunnel {
        self.state().tunnel.get()
    }

    pub(super) fn set_tunnel(&self, tunnel: Tunnel) {
        self.state().tunnel.set(tunnel);
    }

    /// Ready once the stream is no longer needed.
    pub fn poll_hangup(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_gone() {
            return Poll::Ready(());
        }
        self.state().wait(cx);
        Poll::Pending
    }

    /// Bytes sent on the stream, without what frames add to the body.
    pub fn sent(&self) -> u64 {
        self.state().accepted.get().saturating_sub(self.unsent())
    }

    /// What frames have added to the body that was sent, and trailers.
    pub(crate) fn sent_framing(&self) -> u64 {
        let size = u64::from(self.shared().protocol.borrow().frame_size(self.key()));
        self.state().framing.get().saturating_sub(self.unsent() / size * FRAME_HEADER)
    }

    /// How much of the body is queued, or was when the stream ended.
    fn unsent(&self) -> u64 {
        let state = self.state();
        if state.at_once.get() { 0 } else { self.shared().protocol.borrow().queued(self.key()) + state.lost.get() }
    }

    /// Whether the client's windows stayed closed for too long.
    pub(super) fn has_timed_out(&self) -> bool {
        self.state().timed_out.get()
    }

    /// Bytes of the request's head.
    pub(crate) fn head_received(&self) -> u64 {
        self.state().head_received.get()
    }

    pub(super) fn set_head_received(&self, bytes: u64) {
        self.state().head_received.set(bytes);
    }

    /// Counts bytes of heads.
    pub(super) fn count(&self, bytes: u64) {
        self.state().accepted.set(self.state().accepted.get() + bytes);
    }
}

/// Receiving.
impl StreamHandle {
    /// The next part of the request's body; nothing is its end. An error of kind `InvalidData`: its length isn't what was
    /// promised.
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let state = self.state();
        let next = state.body.borrow_mut().pop_front();
        if let Some(bytes) = next {
            state.recv_timer.take();
            self.release(bytes.len());
            return Poll::Ready(Ok(bytes));
        }
        match () {
            () if state.bad_body.get().is_some() => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            () if state.ended.get() => return Poll::Ready(Ok(Bytes::default())),
            () if self.is_gone() => return Poll::Ready(Err(gone())),
            () => {}
        }
        if let Some(deadline) = state.recv_deadline.get() {
            let mut timer = state.recv_timer.borrow_mut();
            let timer = timer.get_or_insert_with(|| Box::pin(rt::sleep_until(deadline)));
            if timer.as_mut().poll(cx).is_ready() {
                state.recv_deadline.set(None);
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        state.wait(cx);
        Poll::Pending
    }

    /// How many bytes of a body that ended too early are missing.
    pub(crate) fn body_missing(&self) -> u64 {
        self.state().bad_body.get().unwrap_or(0)
    }

    fn release(&self, n: usize) {
        let mut protocol = self.shared().protocol.borrow_mut();
        protocol.release(self.key(), u32::try_from(n).unwrap_or(u32::MAX));
        if protocol.wants_transmit() {
            self.shared().wake();
        }
    }

    /// Whether the client has sent all of the request's body, and at most so many bytes of it haven't been taken yet.
    pub(crate) fn has_received_all(&self, most: usize) -> bool {
        let state = self.state();
        let waiting = || state.body.borrow().iter().map(Bytes::len).sum::<usize>();
        state.ended.get() && state.bad_body.get().is_none() && waiting() <= most
    }

    /// Lets the client send at least so much before what it sent is read.
    pub(crate) fn open_window(&self, size: usize) {
        if self.state().window_opened.replace(true) {
            return;
        }
        let window = self.shared().protocol.borrow().receive_window(self.key()) as usize;
        if !self.state().ended.get() && size > window {
            self.release(size - window);
        }
    }

    /// See [`rt::Stream::set_recv_timeout`].
    pub fn set_recv_timeout(&self, ms: Option<u64>) {
        self.state().recv_timer.take();
        self.state().recv_deadline.set(ms.map(|ms| rt::now_ms() + ms));
    }

    /// Whether a deadline for receiving is set.
    pub fn recv_timeout_set(&self) -> bool {
        self.state().recv_deadline.get().is_some()
    }
}

/// Sending.
impl StreamHandle {
    /// See [`rt::Stream::set_send_timeout`].
    pub fn set_send_timeout(&self, ms: Option<u64>) {
        self.state().send_timer.take();
        self.state().send_timeout_ms.set(ms);
    }

    /// What is sent next is the end of the response; trailers may follow.
    pub(super) fn end_with(&self, trailers: Headers) {
        self.state().end.replace(End::Next(trailers));
    }

    /// The response has no body: its head was all.
    pub(super) fn end_sent(&self) {
        self.state().end.replace(End::Queued);
    }

    /// Whether the whole response was queued.
    pub(super) fn has_ended(&self) -> bool {
        matches!(*self.state().end.borrow(), End::Queued)
    }

    /// Takes a part of the body over. Ready: it is on its way.
    pub fn poll_send(&self, cx: &mut Context<'_>, chain: &mut Chain) -> Poll<io::Result<()>> {
        if self.state().sent.get() {
            return Poll::Ready(Ok(()));
        }
        if self.is_gone() {
            chain.clear();
            return Poll::Ready(Err(gone()));
        }
        let ends = matches!(*self.state().end.borrow(), End::Next(_));
        if !chain.is_empty() || ends {
            let at_once = self.queue(std::mem::take(chain), ends);
            self.shared().wake();
            if at_once {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_sent(cx)
    }

    /// Sends the whole body, filled in by `write`, right after its head, if that can be done at once. False: nothing was
    /// done.
    pub(super) fn send_small(
        &self,
        length: usize,
        write: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<bool> {
        let state = self.state();
        if self.is_gone() || !self.shared().protocol.borrow_mut().send_small(self.key(), length, write)? {
            return Ok(false);
        }
        self.count(length as u64);
        self.count_framing(FRAME_HEADER);
        state.end.replace(End::Queued);
        state.at_once.set(true);
        state.sent.set(true);
        self.shared().wake();
        Ok(true)
    }

    /// Queues a part of the body; whether it need not be waited for.
    fn queue(&self, body: Chain, ends: bool) -> bool {
        let (key, state) = (self.key(), self.state());
        let length = body.len();
        self.count(length);
        let mut protocol = self.shared().protocol.borrow_mut();
        let frames = length.div_ceil(u64::from(protocol.frame_size(key)));
        self.count_framing(frames * FRAME_HEADER);
        let fits = length <= AT_ONCE && length <= protocol.capacity(key);
        // A stream that is gone is noticed by whoever waits for it.
        let _ = match ends {
            false => protocol.send_data(key, body, false),
            true => match state.end.replace(End::Queued) {
                End::Next(trailers) if !trailers.is_empty() => {
                    let sent = if body.is_empty() { Ok(()) } else { protocol.send_data(key, body, false) };
                    let sent = sent.and_then(|()| protocol.send_trailers(key, |head| write_fields(head, &trailers)));
                    sent.map(|length| self.count_framing(length))
                }
                _ => {
                    self.count_framing(if frames == 0 { FRAME_HEADER } else { 0 });
                    protocol.send_data(key, body, true)
                }
            },
        };
        state.at_once.set(fits && ends);
        fits && ends
    }

    fn count_framing(&self, bytes: u64) {
        self.state().framing.set(self.state().framing.get() + bytes);
    }

    /// Ready when nothing is queued any more.
    fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = self.state();
        let queued = self.shared().protocol.borrow().queued(self.key());
        if queued == 0 {
            state.send_timer.take();
            return Poll::Ready(Ok(()));
        }
        state.wait(cx);
        let Some(ms) = state.send_timeout_ms.get() else { return Poll::Pending };
        let mut timer = state.send_timer.borrow_mut();
        loop {
            let running = timer.get_or_insert_with(|| SendTimer { sleep: Box::pin(rt::sleep(ms)), queued });
            if running.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if running.queued == queued {
                state.timed_out.set(true);
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            *timer = None;
        }
    }

    /// Queues a head before the final one.
    pub fn send_interim(&self, status_line: &str, fields: &Headers) {
        let status = status_line.get(..3).and_then(|digits| digits.parse().ok()).unwrap_or(100);
        let sent = self.shared().protocol.borrow_mut().send_interim_head(self.key(), |head| {
            head.status(status);
            write_fields(head, fields);
        });
        if sent.is_ok() {
            self.shared().wake();
        }
    }
}

fn write_fields(head: &mut wire::h2::HeadWriter<'_>, fields: &Headers) {
    for field in fields {
        head.field(&field.name, &field.value, Indexing::Without);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_parts_share_memory() {
        let mut body = VecDeque::new();
        let mut sent = Vec::new();
        for n in 0..20_000_usize {
            let part = vec![n as u8; if n % 1000 == 999 { 5000 } else { 1 }];
            sent.extend_from_slice(&part);
            enqueue(&mut body, Bytes::from(part));
        }
        assert_eq!(body.iter().flat_map(|part| part.to_vec()).collect::<Vec<_>>(), sent);
        assert_eq!(body.len(), 40, "the large ones, and one between each two of them");
    }
}
