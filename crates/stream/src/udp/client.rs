//! A client that sends datagrams, as the session knows it.
//!
//! The socket is that of all clients, so the task that receives there ([`super::port`]) puts each datagram where it belongs:
//! at once to the backend, if the session has one and nothing delays it, else into a queue that the session's task takes from.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use buf::Buf;
use common::front::proxy::ProxyHeader;
use os::SockAddr;
use rt::{Datagram, Transmit, UdpSocket};
use smallvec::SmallVec;

use super::port::Port;
use super::queue::{Queue, Waiting};
use super::tally::{Expected, Tally};

/// Who sends to which of this machine's addresses: all of its datagrams are one session's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The client's address.
    pub peer: SockAddr,
    /// The address that it sends to; `None`: not known, or that of a group.
    pub to: Option<IpAddr>,
}

/// A client of a session.
pub struct Client {
    port: Rc<Port>,
    key: Key,
    /// Its place among the port's.
    pub(super) place: usize,
    /// Each of its datagrams has a header of the PROXY protocol, not only the first one.
    pub(super) headers: bool,
    tally: Cell<Tally>,
    /// Bytes from and to the client.
    received: Cell<u64>,
    sent: Cell<u64>,
    /// Where its datagrams go, once that is known.
    backend: OnceCell<Backend>,
    /// What has not been taken yet.
    queue: RefCell<Queue>,
    /// The session's task, while it waits.
    task: RefCell<Option<Waker>>,
    /// The session is to leave for another worker.
    pub(super) leaves: Cell<bool>,
}

/// The session's backend.
pub(crate) struct Backend {
    /// Its socket.
    pub socket: Rc<UdpSocket>,
    /// How long neither side may say anything.
    pub timeout_ms: u64,
    /// The header that each datagram gets.
    pub header: Option<Box<[u8]>>,
    /// Whether datagrams wait for their turn (`proxy_upload_rate`).
    pub delays: bool,
    /// Bytes sent.
    pub sent: Cell<u64>,
    /// Why the last datagram could not be sent, if that speaks of the backend.
    pub error: RefCell<Option<io::Error>>,
    /// Else: why, and how many could not.
    pub lost: RefCell<Option<(io::Error, u64)>>,
}

impl Client {
    pub(super) fn new(port: Rc<Port>, key: Key, place: usize, headers: bool) -> Client {
        Client {
            port,
            key,
            place,
            headers,
            tally: Cell::default(),
            received: Cell::new(0),
            sent: Cell::new(0),
            backend: OnceCell::new(),
            queue: RefCell::default(),
            task: RefCell::default(),
            leaves: Cell::new(false),
        }
    }

    /// Who it is.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// The socket that it sends to.
    pub(crate) fn port(&self) -> &Rc<Port> {
        &self.port
    }

    /// Bytes that the client has sent.
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// Bytes that were sent to the client.
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// The datagrams so far.
    pub(crate) fn tally(&self) -> Tally {
        self.tally.get()
    }

    /// What was counted in another worker, and what waited there.
    pub(super) fn resume(&self, tally: Tally, [received, sent]: [u64; 2], queued: &[Vec<u8>]) {
        self.tally.set(tally);
        self.received.set(received);
        self.sent.set(sent);
        for waiting in queued {
            self.queue.borrow_mut().push(Waiting { bytes: filled(waiting), proxy: None });
        }
    }

    fn count(&self, change: impl FnOnce(&mut Tally)) {
        let mut tally = self.tally.get();
        change(&mut tally);
        self.tally.set(tally);
    }

    /// Counts the datagram with which the session begins.
    pub(super) fn begin(&self, bytes: usize) {
        self.count(|tally| tally.requests += 1);
        self.received.set(self.received.get() + bytes as u64);
    }

    /// Takes a further datagram. What there is no room for is lost, as it is in the kernel.
    pub(super) fn take(self: &Rc<Self>, proxy: Option<ProxyHeader>, bytes: Buf) {
        let backend = self.backend.get();
        let at_once = backend.filter(|backend| !backend.delays && !self.has_queued());
        if let Some(backend) = at_once {
            self.begin_next(bytes.len());
            if !backend.send(&bytes) {
                self.push(Waiting { bytes, proxy: None });
            }
            if self.tally.get().is_done() || backend.has_failed() {
                self.wake();
            }
            return;
        }
        let waiting = Waiting { bytes, proxy: proxy.map(Box::new) };
        if self.queue.borrow().has_room(&waiting) {
            self.begin_next(waiting.bytes.len());
            self.push(waiting);
        }
    }

    /// Counts a further datagram; the last one of a session makes the next one begin another.
    fn begin_next(self: &Rc<Self>, bytes: usize) {
        self.begin(bytes);
        if self.tally.get().is_full() {
            self.port.unbind(self);
        }
    }

    fn push(&self, waiting: Waiting) {
        self.queue.borrow_mut().push(waiting);
        self.wake();
    }

    /// Sends the datagram that has waited longest to the backend; false if there is no room for it.
    pub(crate) fn send_first(&self, backend: &Backend) -> bool {
        let mut queue = self.queue.borrow_mut();
        let sent = queue.first().is_none_or(|bytes| backend.send(bytes));
        if sent {
            drop(queue.pop());
        }
        sent
    }

    /// How many datagrams wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.queue.borrow().len() as u64
    }

    /// The datagrams that wait.
    pub(super) fn queued(&self) -> Vec<Vec<u8>> {
        self.queue.borrow().iter().map(<[u8]>::to_vec).collect()
    }

    /// Whether datagrams wait.
    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.borrow().is_empty()
    }

    /// Says what the session expects. Datagrams that have come too many begin sessions of their own.
    pub(crate) fn expect(self: &Rc<Self>, expected: Expected) {
        self.count(|tally| tally.expected = expected);
        if !self.tally.get().is_full() {
            return;
        }
        self.port.unbind(self);
        let too_many = (self.tally.get().requests - expected.requests) as usize;
        let kept = self.queue.borrow().len().saturating_sub(too_many);
        let others = self.queue.borrow_mut().split_off(kept);
        for Waiting { bytes, proxy } in others {
            self.count(|tally| tally.requests -= 1);
            self.received.set(self.received.get() - bytes.len() as u64);
            match self.headers {
                true => self.port.deliver(self.key.clone(), proxy.map(|proxy| *proxy), bytes),
                false => self.port.receive(self.key.clone(), bytes),
            }
        }
    }

    /// Says where its datagrams go.
    pub(crate) fn pass_to(&self, backend: Backend) -> &Backend {
        self.backend.get_or_init(|| {
            self.port.has_begun();
            backend
        })
    }

    /// Where its datagrams go.
    pub(crate) fn backend(&self) -> Option<&Backend> {
        self.backend.get()
    }

    /// Ready once the session's task has something to do besides what the backend says.
    pub(crate) fn poll_wake(&self, cx: &mut Context<'_>, is_time: impl Fn(&Client) -> bool) -> Poll<()> {
        if is_time(self) {
            return Poll::Ready(());
        }
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Whether the session is to leave for another worker.
    pub(crate) fn leaves(&self) -> bool {
        self.leaves.get()
    }

    /// Has the session's task look again.
    pub(crate) fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// Counts what the backend has answered; an error counts as one datagram.
    pub(crate) fn answered(&self, datagrams: u64) {
        self.count(|tally| tally.responses += datagrams);
    }

    /// Counts datagrams that could not be sent to the backend.
    pub(crate) fn lost(&self, datagrams: u64) {
        self.count(|tally| tally.lost += datagrams);
    }

    /// Sends as many datagrams to the client as there is room for at once. Those that are sent leave the batch.
    pub(crate) fn try_send(&self, batch: &mut Vec<Datagram>) -> io::Result<()> {
        while !batch.is_empty() {
            let sent = self.port.socket().try_send(&mut self.transmits(batch));
            match sent {
                Ok(sent) => self.passed(batch, sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends datagrams to the client, from the address that it has sent to. Those that are sent leave the batch.
    pub(crate) async fn send(&self, batch: &mut Vec<Datagram>) -> io::Result<()> {
        while !batch.is_empty() {
            let sent = self.port.socket().send(&mut self.transmits(batch)).await?;
            self.passed(batch, sent);
        }
        Ok(())
    }

    /// Sends a datagram to the client.
    pub(crate) async fn send_one(&self, bytes: &[u8]) -> io::Result<()> {
        self.port.socket().send(&mut [self.transmit(bytes)]).await?;
        self.sent.set(self.sent.get() + bytes.len() as u64);
        Ok(())
    }

    fn transmits<'a>(&'a self, batch: &'a [Datagram]) -> SmallVec<[Transmit<'a>; 4]> {
        batch.iter().map(|datagram| self.transmit(&datagram.bytes)).collect()
    }

    fn transmit<'a>(&'a self, bytes: &'a [u8]) -> Transmit<'a> {
        Transmit { to: Some(&self.key.peer), from: self.key.to, ..Transmit::new(bytes) }
    }

    /// So many of the backend's datagrams have passed. They count now and not sooner: the session may be over with them.
    fn passed(&self, batch: &mut Vec<Datagram>, sent: usize) {
        let bytes: usize = batch.drain(..sent).map(|datagram| datagram.bytes.len()).sum();
        self.sent.set(self.sent.get() + bytes as u64);
        self.answered(sent as u64);
    }
}

impl Backend {
    /// Whether a datagram could not be sent.
    pub(crate) fn has_failed(&self) -> bool {
        self.error.borrow().is_some() || self.lost.borrow().is_some()
    }

    /// Sends a datagram; false if it has to wait for room.
    pub(crate) fn send(&self, bytes: &[u8]) -> bool {
        self.socket.set_recv_timeout(Some(self.timeout_ms));
        let joined;
        let bytes = match &self.header {
            Some(header) => {
                joined = [header, bytes].concat();
                &joined
            }
            None => bytes,
        };
        // An error may be that of an earlier datagram, which the backend's machine has refused: this one hasn't been sent then.
        let mut lost = None;
        for _ in 0..2 {
            match self.socket.try_send(&mut [Transmit::new(bytes)]) {
                Ok(_) => {
                    self.sent.set(self.sent.get() + bytes.len() as u64);
                    return true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if is_lost(&error) => lost = Some(error),
                Err(error) => drop(self.error.borrow_mut().replace(error)),
            }
        }
        if let Some(error) = lost {
            let before = self.lost.take().map_or(0, |(_, before)| before);
            self.lost.replace(Some((error, before + 1)));
        }
        true
    }
}

/// Whether an error says nothing of the backend: the datagram is too long, or the kernel has no memory for it. Then it is
/// lost, as it may be on its way. Clients choose the length, so it must not make the backend a failed one.
fn is_lost(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(TOO_LONG | NO_BUFFERS | NO_MEMORY))
}

/// The code of the error that a datagram is too long.
pub(crate) const TOO_LONG: i32 = 90;
const NO_MEMORY: i32 = 12;
const NO_BUFFERS: i32 = 105;

/// A buffer of these bytes.
pub(super) fn filled(bytes: &[u8]) -> Buf {
    let mut buf = Buf::with_capacity(bytes.len());
    buf.extend_from_slice(bytes);
    buf
}
