//! Connections.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use buf::{Buf, Bytes, Chain, Piece};
use os::SockAddr;
use os::socket;

use crate::connect::{self, ConnectError, ConnectOptions};
use crate::core::{self, Core};
use crate::driver::Kind;
use crate::send::{Wrote, read_small_files};
use crate::slots::{Slot, flag};
use crate::tasks::NONE;
use crate::timers::Tick;

/// A connection over TCP or a unix socket.
///
/// One task may wait to receive, one for its bytes to be sent, one for the peer to go; they may be the same. Dropping it
/// closes the connection; what waits to be sent is lost then.
pub struct Stream {
    pub(crate) slot: u32,
    /// Whether a layer stands between the socket's bytes and the users.
    layered: Cell<bool>,
    pub(crate) core: &'static Core,
}

/// Whether `recv` failed because the connection, idle, is to give its place up: the server is stopping, or its
/// connections have run out.
pub fn is_closing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(CLOSING)
}

/// The error that [`is_closing`] knows.
pub(crate) fn closing() -> io::Error {
    io::Error::from_raw_os_error(CLOSING)
}

/// ECANCELED, which no call on a socket yields.
const CLOSING: i32 = 125;
/// What a connection shows to which nothing can be sent any more.
const LOST: u16 = flag::HUP | flag::ERR | flag::ENDED;

impl Stream {
    /// Makes an open, connected, nonblocking socket a connection.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Stream> {
        Stream::open(fd, flag::WRITABLE)
    }

    pub(crate) fn open(fd: OwnedFd, flags: u16) -> io::Result<Stream> {
        let core = core::current();
        let slot = core.open(Some(fd), flags | flag::COUNTED, Kind::Stream)?;
        Ok(Stream::of(slot, core))
    }

    /// A connection of the sim driver.
    pub(crate) fn open_sim(end: usize, flags: u16) -> Stream {
        let core = core::current();
        let slot = core.open(None, flags | flag::COUNTED, Kind::Stream).expect("there is nothing to watch");
        core.sim(|sim| sim.attach(end, slot));
        Stream::of(slot, core)
    }

    /// Connects, for `timeout_ms` at most.
    pub async fn connect(addr: &SockAddr, options: &ConnectOptions, timeout_ms: u64) -> Result<Stream, ConnectError> {
        let core = core::current();
        core.place().await?;
        if core.is_sim {
            let end = core.sim(|sim| sim.connect(addr, core.clock.now()));
            let stream = Stream::open_sim(end, 0);
            stream.with(|slot| slot.send_deadline = Tick::after(core.clock.now(), timeout_ms));
            poll_fn(|_| stream.poll_connected()).await.map_err(ConnectError::Peer)?;
            return Ok(stream);
        }
        let fd = connect::socket(addr, socket::Kind::Stream, options)?;
        let done = socket::connect(fd.as_raw_fd(), addr).map_err(ConnectError::Peer)?;
        let stream = Stream::open(fd, if done { flag::WRITABLE } else { 0 });
        let stream = stream.map_err(ConnectError::own("watching the socket"))?;
        if !done {
            stream.with(|slot| slot.send_deadline = Tick::after(core.clock.now(), timeout_ms));
            poll_fn(|_| stream.poll_connected()).await.map_err(ConnectError::Peer)?;
        }
        Ok(stream)
    }

    pub(crate) fn slot(&self) -> u32 {
        self.slot
    }

    pub(crate) fn core(&self) -> &'static Core {
        self.core
    }

    pub(crate) fn of(slot: u32, core: &'static Core) -> Stream {
        Stream { slot, layered: Cell::new(false), core }
    }

    /// Whether a layer ([`Stream::set_layer`]) stands between the socket's bytes and the users.
    pub fn is_layered(&self) -> bool {
        self.layered.get()
    }

    pub(crate) fn mark_layered(&self, layered: bool) {
        self.layered.set(layered);
    }

    fn poll_connected(&self) -> Poll<io::Result<()>> {
        self.with(|slot| {
            if slot.has(flag::WRITABLE | flag::HUP | flag::ERR) {
                slot.send_deadline = Tick::NONE;
                let failed = slot.has(flag::HUP | flag::ERR);
                slot.flags |= flag::WRITABLE;
                return Poll::Ready(if self.core.is_sim {
                    self.core.sim(|sim| sim.take_error(self.slot))
                } else if failed || !self.core.tells_errors() {
                    socket::take_error(raw(slot))
                } else {
                    Ok(())
                });
            }
            self.wait_to_send(slot)
        })
    }

    /// Reads what there is, up to about `size_hint` bytes, into a fresh buffer; an empty one is the peer's end.
    ///
    /// No memory is held while it waits. Errors: `TimedOut` once the receive timeout is over, one that [`is_closing`]
    /// knows, or the system's.
    pub fn poll_recv(&self, _: &mut Context<'_>, size_hint: usize) -> Poll<io::Result<Buf>> {
        if self.layered.get() {
            return self.layered_recv(size_hint);
        }
        self.raw_recv(size_hint)
    }

    /// The same as bytes to share.
    pub fn poll_recv_shared(&self, _: &mut Context<'_>, size_hint: usize) -> Poll<io::Result<Bytes>> {
        if self.layered.get() {
            return self.layered_recv(size_hint).map_ok(Buf::freeze);
        }
        self.raw_recv(size_hint)
    }

    pub(crate) fn raw_recv<T: Received>(&self, size_hint: usize) -> Poll<io::Result<T>> {
        self.with(|slot| {
            if self.waits_already(slot) {
                return Poll::Pending;
            }
            if slot.has(flag::ENDED) {
                return Poll::Ready(Err(closing()));
            }
            if let Some(buf) = take_unread(slot) {
                return Poll::Ready(Ok(buf.into()));
            }
            if self.core.ring {
                if let Some(received) = self.take_received(slot) {
                    return Poll::Ready(received.map(T::from));
                }
            } else if slot.has(flag::READABLE) {
                if !self.core.tasks.spend() {
                    return Poll::Pending;
                }
                if let Some(result) = self.read(slot, size_hint) {
                    return Poll::Ready(result);
                }
            }
            if slot.has(flag::EVICTED) {
                // A last look: what has come since the last event would be lost with the connection.
                if !self.core.ring
                    && let Some(result) = self.read(slot, size_hint)
                {
                    return Poll::Ready(result);
                }
                return Poll::Ready(Err(closing()));
            }
            if slot.recv_deadline.passed(self.core.clock.now()) {
                slot.recv_deadline = Tick::NONE;
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            if let Err(error) = self.core.watch(self.slot, slot) {
                return Poll::Ready(Err(error));
            }
            slot.recv_task = self.core.tasks.running();
            self.core.arm(self.slot, slot);
            Poll::Pending
        })
    }

    /// Whether the running task has begun to wait to receive, and nothing has come since: tasks with two connections are often
    /// polled for the other one.
    fn waits_already(&self, slot: &Slot) -> bool {
        slot.recv_task == self.core.tasks.running() && self.is_quiet(slot)
    }

    /// Whether there is nothing that `recv` would return at once.
    fn is_quiet(&self, slot: &Slot) -> bool {
        slot.queues.is_none()
            && !self.core.ring
            && !slot.has(flag::READABLE | flag::GONE | flag::EVICTED | flag::ENDED)
            && !slot.recv_deadline.passed(self.core.clock.now())
    }

    /// What io_uring has received; if there is nothing, receiving begins.
    fn take_received(&self, slot: &mut Slot) -> Option<io::Result<Buf>> {
        if let Some(queues) = &mut slot.queues {
            if let Some(buf) = queues.input.pop_front() {
                slot.received += buf.len() as u64;
                slot.tidy();
                return Some(Ok(buf));
            }
            match queues.input_end {
                Some(0) => return Some(Ok(Buf::empty())),
                Some(code) => return Some(Err(io::Error::from_raw_os_error(code))),
                None => {}
            }
        }
        self.begin_recv(slot);
        None
    }

    fn begin_recv(&self, slot: &Slot) {
        if let Some(uring) = self.core.backend.borrow_mut().uring() {
            uring.want_read(self.slot, slot);
        }
    }

    /// Reads once; `None` if there is nothing after all.
    fn read<T: Received>(&self, slot: &mut Slot, size_hint: usize) -> Option<io::Result<T>> {
        let received = T::read(size_hint, |room| {
            let read = loop {
                let read = if self.core.is_sim {
                    self.core.sim(|sim| sim.recv(self.slot, room))
                } else {
                    os::io::recv(raw(slot), room)
                };
                match read {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => break read?,
                }
            };
            // A short read has emptied the socket: the next event tells of more. The peer's end has been told
            // of already, so then reading goes on until it is read.
            if read < room.len() && !slot.has(flag::GONE) {
                slot.flags &= !flag::READABLE;
            }
            slot.received += read as u64;
            Ok(read)
        });
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                slot.flags &= !flag::READABLE;
                None
            }
            received => Some(received),
        }
    }

    /// See [`Stream::poll_recv`].
    pub fn recv(&self, size_hint: usize) -> Recv<'_> {
        Recv { stream: self, size_hint }
    }

    /// Gives bytes back: the next `recv` returns them first, before what was given back earlier.
    pub fn unread(&self, mut buf: Buf) {
        if buf.is_empty() {
            return;
        }
        if self.layered.get() {
            return self.layered_unread(buf);
        }
        self.with(|slot| {
            let unread = &mut slot.queues().unread;
            if let Some(earlier) = unread {
                buf.extend_from_slice(earlier);
            }
            *unread = Some(buf);
        });
    }

    /// Takes all pieces of `chain` over and sends them.
    ///
    /// Ready: everything given so far is with the kernel. Pending: call again, with more pieces or an empty chain; what
    /// was taken is sent meanwhile. Errors: `TimedOut` if the send timeout passes without progress, or the system's.
    pub fn poll_send(&self, _: &mut Context<'_>, chain: &mut Chain) -> Poll<io::Result<()>> {
        if self.layered.get() {
            return self.layered_send(chain);
        }
        self.raw_send(chain)
    }

    pub(crate) fn raw_send(&self, chain: &mut Chain) -> Poll<io::Result<()>> {
        read_small_files(chain);
        self.with(|slot| {
            if slot.has(flag::ENDED) {
                chain.clear();
                return Poll::Ready(Err(closing()));
            }
            if let Some(queues) = &mut slot.queues {
                if let Some(error) = queues.error.take() {
                    chain.clear();
                    return Poll::Ready(Err(error));
                }
                if !queues.out.is_empty() {
                    queues.out.append(chain);
                    return self.wait_to_send(slot);
                }
            }
            if self.core.ring && self.send_by_ring(slot, chain) {
                return self.wait_to_send(slot);
            }
            if chain.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let wrote =
                if slot.has(flag::WRITABLE) { self.core.write(self.slot, slot, chain)? } else { Wrote::Blocked };
            if wrote == Wrote::All {
                return Poll::Ready(Ok(()));
            }
            if wrote == Wrote::Share {
                self.core.flush_later(self.slot, slot);
            }
            self.begin_send_timeout(slot);
            slot.queues().out.append(chain);
            self.wait_to_send(slot)
        })
    }

    /// Sends bytes at once, without making a chain of them.
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<Tried> {
        if self.layered.get() {
            return self.layered_try_send(bytes);
        }
        self.raw_try_send(bytes)
    }

    pub(crate) fn raw_try_send(&self, bytes: &[u8]) -> io::Result<Tried> {
        self.with(|slot| {
            if !self.is_direct(slot) {
                return Ok(Tried::Nothing);
            }
            slot.before_write();
            match os::io::send(raw(slot), bytes, false) {
                Ok(n) => {
                    slot.sent += n as u64;
                    Ok(Tried::Sent(n))
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    Ok(Tried::Nothing)
                }
                Err(e) => Err(e),
            }
        })
    }

    /// Whether bytes would go to the kernel at once: nothing waits to go first, and the driver isn't one that sends by
    /// itself.
    pub(crate) fn sends_at_once(&self) -> bool {
        self.with(|slot| self.is_direct(slot))
    }

    fn is_direct(&self, slot: &Slot) -> bool {
        let direct = !self.core.ring && !self.core.is_sim;
        direct && slot.queues.is_none() && slot.flags & (flag::ENDED | flag::WRITABLE) == flag::WRITABLE
    }

    /// Has io_uring send the chain, unless files are in it; whether it is sending now.
    fn send_by_ring(&self, slot: &mut Slot, chain: &mut Chain) -> bool {
        let mut backend = self.core.backend.borrow_mut();
        let Some(uring) = backend.uring() else { return false };
        if uring.is_sending(self.slot) {
            if !chain.is_empty() {
                slot.queues().out.append(chain);
            }
            return true;
        }
        let memory = chain.pieces().iter().all(|piece| matches!(piece, Piece::Bytes(_)));
        if chain.is_empty() || !memory {
            return false;
        }
        slot.before_write();
        uring.send(self.slot, slot, std::mem::take(chain));
        self.begin_send_timeout(slot);
        true
    }

    fn want_write(&self, slot: &Slot) {
        let mut backend = self.core.backend.borrow_mut();
        if let Some(uring) = backend.uring()
            && !uring.is_sending(self.slot)
        {
            uring.want_write(self.slot, slot);
        }
    }

    fn begin_send_timeout(&self, slot: &mut Slot) {
        if slot.send_timeout > 0 {
            slot.send_deadline = Tick::after(self.core.clock.now(), u64::from(slot.send_timeout));
        }
    }

    fn wait_to_send(&self, slot: &mut Slot) -> Poll<io::Result<()>> {
        // It stays over until something is written: whoever tries again isn't left waiting without a deadline.
        if slot.send_deadline.passed(self.core.clock.now()) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if self.core.ring && !slot.has(flag::WRITABLE) {
            self.want_write(slot);
        }
        if let Err(error) = self.core.watch(self.slot, slot) {
            return Poll::Ready(Err(error));
        }
        slot.send_task = self.core.tasks.running();
        self.core.arm(self.slot, slot);
        Poll::Pending
    }

    /// See [`Stream::poll_send`].
    pub async fn send(&self, chain: &mut Chain) -> io::Result<()> {
        poll_fn(|cx| self.poll_send(cx, chain)).await
    }

    /// Starts to send the chain at once; the future is ready when all of it is with the kernel.
    ///
    /// Unlike [`Stream::send`] it holds no chain, so it adds next to nothing to the size of the future that awaits it.
    pub fn send_all(&self, mut chain: Chain) -> Sending<'_> {
        let sent = self.poll_send(&mut Context::from_waker(std::task::Waker::noop()), &mut chain);
        Sending { stream: self, sent: if let Poll::Ready(result) = sent { Some(result) } else { None } }
    }

    /// How many bytes have been taken over but aren't with the kernel yet.
    pub fn pending(&self) -> u64 {
        let sending = self.core.backend.borrow_mut().uring().map_or(0, |uring| uring.sending(self.slot));
        let layered = if self.layered.get() { self.layered_counts().0 } else { 0 };
        layered + sending + self.with(|slot| slot.queues.as_ref().map_or(0, |q| q.out.len()))
    }

    /// Lets the current and the following `recv` fail `ms` from now; `None`: never. Costs a store.
    pub fn set_recv_timeout(&self, ms: Option<u64>) {
        self.with(|slot| {
            slot.recv_deadline = ms.map_or(Tick::NONE, |ms| Tick::after(self.core.clock.now(), ms));
            if slot.recv_task != NONE {
                self.core.arm(self.slot, slot);
            }
        });
    }

    /// Milliseconds until a `recv` fails for want of bytes; `None`: it never does.
    pub fn recv_timeout_left(&self) -> Option<u64> {
        let now = self.core.clock.now();
        self.with(|slot| slot.recv_deadline.is_some().then(|| slot.recv_deadline.expand(now).saturating_sub(now)))
    }

    /// Whether a deadline for `recv` is set.
    pub fn recv_timeout_set(&self) -> bool {
        self.with(|slot| slot.recv_deadline != Tick::NONE)
    }

    /// The longest time between two successful writes while bytes wait to be sent; `None`: any. Costs a store.
    pub fn set_send_timeout(&self, ms: Option<u64>) {
        self.with(|slot| {
            slot.send_timeout = ms.unwrap_or(0).min(i32::MAX as u64) as u32;
            slot.send_deadline = ms.map_or(Tick::NONE, |ms| Tick::after(self.core.clock.now(), ms));
        });
    }

    /// Ready once the peer has closed its side or reset the connection, or the connection, idle, is to give its place
    /// up; nothing is read. (With io_uring: not for a mere
    /// closing of its side while bytes are being sent, which may still reach it.)
    pub fn poll_hangup(&self, _: &mut Context<'_>) -> Poll<()> {
        self.with(|slot| {
            // After a request a client may close its side and still read. What the ring sends tells by itself if the
            // peer is gone altogether; readiness drivers come here only when the peer takes no more.
            let sending = self.core.backend.borrow_mut().uring().is_some_and(|uring| uring.is_sending(self.slot));
            self.poll_flags(slot, if sending { LOST } else { flag::GONE })
        })
    }

    /// Ready once the peer has reset the connection, or the connection, idle or silent, is to give its place up. A peer
    /// that has only closed its side may still read: that isn't waited for. (After that, epoll alone tells of a reset.)
    pub fn poll_reset(&self, _: &mut Context<'_>) -> Poll<()> {
        self.with(|slot| self.poll_flags(slot, LOST))
    }

    /// Ready once the slot has one of these flags, or its place is needed.
    fn poll_flags(&self, slot: &mut Slot, flags: u16) -> Poll<()> {
        if slot.has(flag::EVICTED | flags) || self.core.watch(self.slot, slot).is_err() {
            return Poll::Ready(());
        }
        slot.hang_task = self.core.tasks.running();
        // The ring would report an end that is known again and again.
        if !slot.has(flag::RDHUP)
            && let Some(uring) = self.core.backend.borrow_mut().uring()
        {
            uring.want_hangup(self.slot, slot);
        }
        Poll::Pending
    }

    /// See [`Stream::poll_hangup`].
    pub async fn hangup(&self) {
        poll_fn(|cx| self.poll_hangup(cx)).await
    }

    /// Marks the connection as idle: between requests, and free to be closed if its place is needed or the server stops.
    pub fn set_idle(&self, idle: bool) {
        let mut slots = self.core.slots.borrow_mut();
        match idle {
            true => {
                slots.set_reusable(self.slot, flag::IDLE, self.core.clock.now());
            }
            false => {
                slots.set_busy(self.slot);
            }
        }
    }

    /// Marks the connection as idle, and lets `recv` fail `ms` from now; `None`: never. If nothing has come yet, the running
    /// task begins to wait: then the result is true, and `recv` needn't be tried.
    pub fn rest(&self, ms: Option<u64>) -> bool {
        let now = self.core.clock.now();
        let mut slots = self.core.slots.borrow_mut();
        let slot = slots.set_reusable(self.slot, flag::IDLE, now);
        slot.recv_deadline = ms.map_or(Tick::NONE, |ms| Tick::after(now, ms));
        let waits = self.is_quiet(slot) && !slot.has(flag::UNWATCHED) && !self.layered.get();
        if waits {
            slot.recv_task = self.core.tasks.running();
        }
        if slot.recv_task != NONE {
            self.core.arm(self.slot, slot);
        }
        waits
    }

    /// Ends a [`Stream::rest`]: the connection is busy, and `recv` has no deadline any more.
    pub fn wake(&self) {
        if let Some(slot) = self.core.slots.borrow_mut().set_busy(self.slot) {
            slot.recv_deadline = Tick::NONE;
        }
    }

    /// Marks the connection as one whose peer has said nothing yet, until [`Stream::set_idle`]: the first to be closed if
    /// its place is needed. Who connected just when the server stops is still served, though.
    pub fn set_silent(&self) {
        let now = self.core.clock.now();
        self.core.slots.borrow_mut().set_reusable(self.slot, flag::SILENT, now);
    }

    /// Marks the connection as [`Stream::set_silent`] does, until this is dropped.
    pub fn silent(&self) -> Silent<'_> {
        self.set_silent();
        Silent(self)
    }

    /// Whether bytes, or the peer's end, may be waiting to be received.
    pub fn is_readable(&self) -> bool {
        if self.layered.get() && self.layered_readable() {
            return true;
        }
        self.with(|slot| {
            let read = slot
                .queues
                .as_ref()
                .is_some_and(|q| q.unread.is_some() || !q.input.is_empty() || q.input_end.is_some());
            read || (!self.core.ring && slot.has(flag::READABLE))
        })
    }

    /// Bytes sent so far.
    pub fn sent(&self) -> u64 {
        if self.layered.get() {
            return self.layered_counts().1;
        }
        self.with(|slot| slot.sent)
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        if self.layered.get() {
            return self.layered_counts().2;
        }
        self.with(|slot| slot.received)
    }

    /// Counts that the connection is passed on to another listening socket; returns how often it was.
    pub fn count_pass(&self) -> u8 {
        self.with(|slot| {
            slot.passes = slot.passes.saturating_add(1);
            slot.passes
        })
    }

    /// The connection's serial number.
    pub fn number(&self) -> u64 {
        self.with(|slot| slot.number)
    }

    /// The own address.
    pub fn local_addr(&self) -> io::Result<SockAddr> {
        if self.core.is_sim {
            return Ok(self.core.sim(|sim| sim.addresses(self.slot).0));
        }
        socket::local_addr(self.raw())
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> io::Result<SockAddr> {
        if self.core.is_sim {
            return Ok(self.core.sim(|sim| sim.addresses(self.slot).1));
        }
        socket::peer_addr(self.raw())
    }

    /// TCP_NODELAY. The kernel is told before the second write: of one write it holds nothing back, and many connections make
    /// no other.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        let later = self.with(|slot| {
            slot.nodelay = on && slot.sent == 0;
            slot.nodelay
        });
        if later || self.core.is_sim { Ok(()) } else { socket::set_nodelay(self.raw(), on) }
    }

    /// Whether memory that has a file behind it waits for it, so that both fill packets (`tcp_nopush`). Costs a store.
    pub fn set_nopush(&self, on: bool) {
        self.with(|slot| if on { slot.flags |= flag::NOPUSH } else { slot.flags &= !flag::NOPUSH });
    }

    /// Sends the end: the peer reads it after all bytes before.
    pub fn shutdown_write(&self) -> io::Result<()> {
        if self.layered.get() {
            self.layered_close();
        }
        if self.core.is_sim {
            self.core.sim(|sim| sim.shutdown(self.slot, self.core.clock.now()));
            return Ok(());
        }
        socket::shutdown(self.raw(), socket::Direction::Write)
    }

    /// Lets the closing reset the connection (`reset_timedout_connection`).
    pub fn linger_reset(&self) {
        if self.core.is_sim {
            return self.core.sim(|sim| sim.linger_reset(self.slot));
        }
        let _ = socket::set_linger_reset(self.raw());
    }

    /// What the kernel knows of the connection.
    pub fn tcp_info(&self) -> io::Result<socket::TcpInfo> {
        socket::tcp_info(self.raw())
    }

    /// The socket, to set an option of.
    pub fn raw(&self) -> RawFd {
        self.with(|slot| raw(slot))
    }

    /// Gives the socket up, unclosed, with what was received from it but not read. Bytes that wait to be sent are lost,
    /// and so is a layer: its peer could not be talked to any more.
    ///
    /// # Panics
    /// With the sim driver, which has no sockets.
    pub fn into_parts(self) -> (OwnedFd, Vec<Buf>) {
        let parts = self.detach();
        (parts.fd, parts.unread)
    }

    /// The same, with what was received but not read lost too.
    pub fn into_fd(self) -> OwnedFd {
        self.into_parts().0
    }

    #[inline(always)]
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Slot) -> T) -> T {
        f(self.core.slots.borrow_mut().at(self.slot))
    }
}

/// What a read gives: a buffer of its reader's own, or bytes to share.
pub(crate) trait Received: From<Buf> {
    /// See [`Buf::read`].
    fn read(size: usize, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Self>;
}

impl Received for Buf {
    #[inline]
    fn read(size: usize, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Buf> {
        Buf::read(size, read)
    }
}

impl Received for Bytes {
    #[inline]
    fn read(size: usize, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Bytes> {
        Bytes::read(size, read)
    }
}

/// What [`Stream::try_send`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// So many of the bytes are with the kernel. The rest, if there is one, is to be sent by [`Stream::poll_send`].
    Sent(usize),
    /// All bytes have been taken over; [`Stream::poll_send`] with an empty chain waits until they are with the kernel.
    Taken,
    /// Nothing: they are to be sent by [`Stream::poll_send`].
    Nothing,
}

/// See [`Stream::silent`].
pub struct Silent<'a>(&'a Stream);

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        self.0.set_idle(false);
    }
}

/// See [`Stream::recv`]. It is small, since idle connections wait in it.
pub struct Recv<'a> {
    stream: &'a Stream,
    size_hint: usize,
}

impl Future for Recv<'_> {
    type Output = io::Result<Buf>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Buf>> {
        self.stream.poll_recv(cx, self.size_hint)
    }
}

/// See [`Stream::send_all`].
pub struct Sending<'a> {
    stream: &'a Stream,
    sent: Option<io::Result<()>>,
}

impl Future for Sending<'_> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.sent.take() {
            Some(result) => Poll::Ready(result),
            None => self.stream.poll_send(cx, &mut Chain::new()),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.layered.get() {
            self.drop_layer();
        }
        self.core.close(self.slot);
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({})", self.slot)
    }
}

fn raw(slot: &Slot) -> RawFd {
    slot.fd.as_ref().map_or(-1, |fd| fd.as_raw_fd())
}

fn take_unread(slot: &mut Slot) -> Option<Buf> {
    let buf = slot.queues.as_mut()?.unread.take();
    slot.tidy();
    buf
}
