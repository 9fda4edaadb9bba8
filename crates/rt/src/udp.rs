//! Datagrams.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::pin;
use std::task::{Context, Poll};

use buf::Buf;
use os::SockAddr;
use os::datagram::{self, BATCH, Batch, Received, Transmit};
use os::socket;

use crate::connect;
use crate::core::{self, Core};
use crate::driver::Kind;
use crate::slots::{Slot, flag};
use crate::stream::closing;
use crate::timers::Tick;
use crate::{ConnectError, ConnectOptions, Event, Gate, sleep};

/// A socket for datagrams: UDP, or those of a unix socket.
///
/// One task may receive; any number may send. No memory is held while they wait, and futures may be dropped at any
/// point: what has been received or sent by then is so entirely. What isn't received waits in the kernel, which drops what
/// finds no room there.
///
/// Under every driver it is waited for until the socket is ready, and then one system call receives or sends many
/// datagrams.
pub struct UdpSocket {
    slot: u32,
    core: &'static Core,
    options: UdpOptions,
    /// Datagrams that the kernel has joined are passed on joined.
    gro: Cell<bool>,
    /// Whether the kernel cuts pieces into datagrams; not known before the first one.
    gso: Cell<Option<bool>>,
    /// Those who wait for room do so one after another.
    senders: Gate,
    /// Receiving is over: happens once.
    over: Event,
    /// Receiving is yet to begin ([`UdpSocket::hold`]).
    held: Cell<bool>,
    /// How many datagrams a call receives at most: not many more than the last one has, unless that was full.
    most: Cell<usize>,
    /// The loop's turn in which was received last.
    received: Cell<u64>,
    /// Of a datagram that comes alone only the bytes and the sender are wanted.
    bare: Cell<bool>,
    /// It receives from one peer only.
    connected: bool,
    /// Something was sent to that peer since the last datagram came from it: an answer comes alone.
    asked: Cell<bool>,
}

/// How a datagram socket is used.
#[derive(Clone, Copy, Debug, Default)]
pub struct UdpOptions {
    /// Of the processes that share the socket one is woken for a datagram. No other one is woken for that datagram later,
    /// so the task that receives should wait for nothing else for long.
    pub exclusive: bool,
}

/// A datagram that was received.
pub struct Datagram {
    /// What it holds.
    pub bytes: Buf,
    /// Where it came from; that of an unnamed socket if it came by a connected one.
    pub from: SockAddr,
    /// The address of this machine that it reached. `None`: the socket has only one, it isn't known, or it is that of a
    /// group.
    pub to: Option<IpAddr>,
    /// Unless 0, `bytes` are several datagrams, each of this length but for the last, which may be shorter. Only after
    /// [`UdpSocket::set_gro`].
    pub segment: usize,
    /// Its congestion mark (ECN, RFC 3168), two bits.
    pub ecn: u8,
}

impl Datagram {
    /// An answer to its sender, from the address that it reached.
    pub fn reply<'a>(&'a self, bytes: &'a [u8]) -> Transmit<'a> {
        Transmit { to: Some(&self.from), from: self.to, ..Transmit::new(bytes) }
    }
}

impl UdpSocket {
    /// Makes an open, bound, nonblocking socket one of the loop's. It counts as a connection, as a listening one does.
    pub fn new(fd: OwnedFd, options: UdpOptions) -> io::Result<UdpSocket> {
        datagram::prepare(fd.as_raw_fd(), &socket::local_addr(fd.as_raw_fd())?);
        UdpSocket::open(Some(fd), options)
    }

    /// A socket that sends to this address and receives from there only. It counts as a connection.
    pub async fn connect(peer: &SockAddr, options: &ConnectOptions) -> Result<UdpSocket, ConnectError> {
        let core = core::current();
        core.place().await?;
        if core.is_sim {
            let any: IpAddr = match peer {
                SockAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
                _ => Ipv4Addr::LOCALHOST.into(),
            };
            let own = options.bind.clone().unwrap_or_else(|| SockAddr::from(SocketAddr::new(any, 0)));
            return Ok(UdpSocket::open_sim(own, Some(peer.clone())));
        }
        let fd = connect::socket(peer, socket::Kind::Datagram, options)?;
        socket::connect(fd.as_raw_fd(), peer).map_err(ConnectError::Peer)?;
        let socket = UdpSocket::connected(fd).map_err(ConnectError::own("watching the socket"))?;
        socket.with(|slot| slot.flags |= flag::OWN);
        Ok(socket)
    }

    /// Makes a socket one of the loop's that [`UdpSocket::connect`] has made, perhaps in another process. It counts as a
    /// connection.
    pub fn connected(fd: OwnedFd) -> io::Result<UdpSocket> {
        let mut socket = UdpSocket::open(Some(fd), UdpOptions::default())?;
        socket.connected = true;
        socket.with(|slot| slot.flags |= flag::ACCEPTED);
        Ok(socket)
    }

    fn open(fd: Option<OwnedFd>, options: UdpOptions) -> io::Result<UdpSocket> {
        let core = core::current();
        let flags = flag::LISTENER | flag::COUNTED | flag::WRITABLE;
        let slot = core.open(fd, flags, Kind::Listener { exclusive: options.exclusive })?;
        Ok(UdpSocket {
            slot,
            core,
            options,
            gro: Cell::new(false),
            gso: Cell::new(None),
            senders: Gate::new(1),
            over: Event::new(),
            held: Cell::new(false),
            most: Cell::new(FEW),
            received: Cell::new(0),
            bare: Cell::new(false),
            connected: false,
            asked: Cell::new(false),
        })
    }

    /// A socket of the sim driver.
    pub(crate) fn open_sim(own: SockAddr, peer: Option<SockAddr>) -> UdpSocket {
        let socket = UdpSocket::open(None, UdpOptions::default()).expect("there is nothing to watch");
        if peer.is_some() {
            socket.with(|slot| slot.flags |= flag::ACCEPTED);
        }
        socket.core.sim(|sim| sim.datagrams.open(socket.slot, own, peer));
        socket
    }

    fn with<T>(&self, f: impl FnOnce(&mut Slot) -> T) -> T {
        f(self.core.slots.borrow_mut().at(self.slot))
    }

    fn raw(&self) -> RawFd {
        self.with(|slot| slot.fd.as_ref().map_or(-1, |fd| fd.as_raw_fd()))
    }

    /// The socket's own address.
    pub fn local_addr(&self) -> io::Result<SockAddr> {
        if self.core.is_sim {
            return Ok(self.core.sim(|sim| sim.datagrams.local(self.slot)));
        }
        socket::local_addr(self.raw())
    }

    /// Lets the kernel join datagrams that wait together (UDP_GRO), where it can: then [`Datagram::segment`] tells of it,
    /// and one copy and one buffer do for many. Who doesn't ask for it gets single ones, whatever others that share the
    /// socket have asked for.
    pub fn set_gro(&self, on: bool) {
        self.gro.set(on && !self.core.is_sim && datagram::set_gro(self.raw(), true));
    }

    /// Says that of [`Datagram`] only `bytes` and `from` are wanted, which costs the kernel less: a datagram that comes alone
    /// has nothing else then.
    pub fn set_bare(&self) {
        self.bare.set(true);
    }

    /// In how many milliseconds a `recv` fails if nothing comes; `None`: never. To be set anew for each wait.
    pub fn set_recv_timeout(&self, ms: Option<u64>) {
        self.with(|slot| {
            slot.recv_deadline = ms.map_or(Tick::NONE, |ms| Tick::after(self.core.clock.now(), ms));
            self.core.arm(self.slot, slot);
        });
    }

    /// In how many milliseconds a `recv` fails if nothing comes.
    pub fn recv_timeout_left(&self) -> Option<u64> {
        let now = self.core.clock.now();
        self.with(|slot| slot.recv_deadline.is_some().then(|| slot.recv_deadline.expand(now).saturating_sub(now)))
    }

    /// Another descriptor of the socket, for another process. An error: the system's, or that it is one of the simulation.
    pub fn try_clone_fd(&self) -> io::Result<OwnedFd> {
        self.with(|slot| {
            // Closing this one doesn't end the driver's watch any more.
            slot.flags &= !flag::OWN;
            slot.fd.as_ref().map_or(Err(io::ErrorKind::Unsupported.into()), OwnedFd::try_clone)
        })
    }

    /// How many milliseconds each sender may wait for room when it is its turn; `None`: any number.
    pub fn set_send_timeout(&self, ms: Option<u64>) {
        self.with(|slot| slot.send_timeout = ms.unwrap_or(0).min(i32::MAX as u64) as u32);
    }

    /// Leaves what comes to the other processes that share the socket, until [`UdpSocket::release`]: a `recv` waits so long.
    /// Sending isn't concerned. To be called before the first `recv`.
    pub fn hold(&self) {
        self.held.set(true);
    }

    /// Lets receiving begin.
    pub fn release(&self) {
        if self.held.replace(false) {
            self.wake_receiver();
        }
    }

    /// Has the task polled that waits to receive.
    fn wake_receiver(&self) {
        let task = self.with(|slot| std::mem::replace(&mut slot.recv_task, crate::tasks::NONE));
        if task != crate::tasks::NONE {
            self.core.tasks.wake(task);
        }
    }

    /// Waits for datagrams and appends those that are there to `batch`: as many as one system call receives, which is twice
    /// as many as last time, from 2 to 32, or more if they were joined; one, if they come one by one.
    ///
    /// Errors: `TimedOut` once the receive timeout is over; one that [`crate::is_closing`] knows after
    /// [`UdpSocket::stop`]; or the system's, such as `ConnectionRefused` on a connected socket, after which receiving may
    /// go on.
    pub fn poll_recv(&self, _: &mut Context<'_>, batch: &mut Vec<Datagram>) -> Poll<io::Result<()>> {
        let before = batch.len();
        if self.over.count() > 0 {
            return Poll::Ready(Err(closing()));
        }
        self.with(|slot| {
            // Its peer may go on to send without end.
            if slot.has(flag::ACCEPTED) && slot.has(flag::ENDED) {
                return Poll::Ready(Err(closing()));
            }
            if self.held.get() {
                if slot.has(flag::ENDED) {
                    self.over.notify();
                    return Poll::Ready(Err(closing()));
                }
                slot.recv_task = self.core.tasks.running();
                return Poll::Pending;
            }
            while slot.has(flag::READABLE | flag::GONE | flag::ENDED) {
                if !self.core.tasks.spend() {
                    return Poll::Pending;
                }
                let most = self.expected();
                match self.receive(slot, most, batch) {
                    // A short batch has emptied the queue. The next event tells of more, as it does after one datagram that
                    // wasn't alone.
                    Ok(count) if most == 1 || count < most => slot.flags &= !flag::READABLE,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        slot.flags &= !(flag::READABLE | flag::GONE);
                        if slot.has(flag::ENDED) {
                            self.over.notify();
                            return Poll::Ready(Err(closing()));
                        }
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
                if batch.len() > before {
                    return Poll::Ready(Ok(()));
                }
            }
            self.wait_to_recv(slot)
        })
    }

    /// See [`UdpSocket::poll_recv`].
    pub async fn recv(&self, batch: &mut Vec<Datagram>) -> io::Result<()> {
        poll_fn(|cx| self.poll_recv(cx, batch)).await
    }

    /// Ready once [`crate::close_accepted`] has ended receiving: for the task that receives, when it waits for something else.
    /// To be asked after [`UdpSocket::poll_recv`], if that is asked too.
    pub fn poll_ended(&self, _: &mut Context<'_>) -> Poll<()> {
        self.with(|slot| {
            if slot.has(flag::ENDED) {
                return Poll::Ready(());
            }
            slot.recv_task = self.core.tasks.running();
            if slot.has(flag::READABLE | flag::GONE) {
                // What is there isn't received now, and would be told of in each turn.
                self.core.backend.borrow_mut().pause(self.slot, slot);
            }
            Poll::Pending
        })
    }

    fn wait_to_recv(&self, slot: &mut Slot) -> Poll<io::Result<()>> {
        if slot.recv_deadline.passed(self.core.clock.now()) {
            slot.recv_deadline = Tick::NONE;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        slot.recv_task = self.core.tasks.running();
        self.core.backend.borrow_mut().resume(self.slot, slot, self.options.exclusive);
        self.core.arm(self.slot, slot);
        Poll::Pending
    }

    /// How many datagrams the next call is to receive at most. One, if it probably comes alone: to look for another costs a
    /// third of the call. If it wasn't alone, the next turn finds the others.
    fn expected(&self) -> usize {
        let turn = self.core.turn_number();
        let pauses = turn > self.received.replace(turn) + 1;
        let is_alone = self.asked.replace(false) || self.most.get() == FEW && pauses;
        // Else a call for one costs what a call for few does.
        let costs_less = (self.connected || self.bare.get()) && !self.gro.get() && !self.core.is_sim;
        if is_alone && costs_less { 1 } else { self.most.get() }
    }

    /// Receives once: how many messages.
    fn receive(&self, slot: &Slot, most: usize, batch: &mut Vec<Datagram>) -> io::Result<usize> {
        if self.core.is_sim {
            return self.core.sim(|sim| sim.datagrams.recv(self.slot, batch));
        }
        let fd = slot.fd.as_ref().map_or(-1, |fd| fd.as_raw_fd());
        let mut memory = self.core.datagrams.borrow_mut();
        let memory = memory.get_or_insert_with(Batch::new);
        if most == 1 {
            // These calls cost less than that for a batch.
            let (bytes, from) = match self.connected {
                true => (memory.recv_one(fd)?, SockAddr::Unix(Box::default())),
                false => memory.recv_from(fd)?,
            };
            self.take(Received { bytes, from, to: None, segment: 0, ecn: 0 }, batch);
            return Ok(1);
        }
        let count = memory.recv(fd, most)?;
        self.most.set(if count < most { (2 * count).clamp(FEW, BATCH) } else { BATCH });
        memory.received().for_each(|received| self.take(received, batch));
        Ok(count)
    }

    /// Copies what was received into memory of its size: the call's serves the next one, whoever keeps this.
    fn take(&self, received: Received<'_>, batch: &mut Vec<Datagram>) {
        let Received { bytes: mut rest, from, to, segment, ecn } = received;
        let whole = self.gro.get() || segment == 0;
        loop {
            let (one, more) = rest.split_at(if whole { rest.len() } else { rest.len().min(segment) });
            let mut bytes = Buf::with_capacity(one.len());
            bytes.extend_from_slice(one);
            let segment = if whole { segment } else { 0 };
            batch.push(Datagram { bytes, from: from.clone(), to, segment, ecn });
            rest = more;
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Sends the first of these, as many as the kernel takes at once: how many are with it entirely. Of the next one,
    /// `bytes` keeps what isn't. Errors: `WouldBlock` if there is no room, or why the first one can't be sent; none of the
    /// others has been sent then.
    pub fn try_send(&self, batch: &mut [Transmit<'_>]) -> io::Result<usize> {
        if batch.is_empty() {
            return Ok(0);
        }
        let sent = if self.core.is_sim {
            self.core.sim(|sim| sim.datagrams.send(self.slot, batch, self.core.clock.now()))
        } else {
            self.send_now(batch)
        };
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            // An error that waits would have been told instead.
            self.with(|slot| slot.flags &= !(flag::WRITABLE | flag::GONE));
        }
        sent
    }

    fn send_now(&self, batch: &mut [Transmit<'_>]) -> io::Result<usize> {
        let fd = self.raw();
        self.asked.set(self.connected);
        if let [only] = batch
            && only.is_plain()
        {
            match datagram::send_plain(fd, only) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    only.bytes = &[];
                    return Ok(1);
                }
            }
        }
        let mut memory = self.core.datagrams.borrow_mut();
        let memory = memory.get_or_insert_with(Batch::new);
        loop {
            let gso = batch.iter().any(|transmit| transmit.segment != 0) && self.can_segment(fd);
            match memory.send(fd, batch, gso) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A network interface that can't: single ones from now on.
                Err(error) if gso && matches!(error.raw_os_error(), Some(IO | INVAL)) => {
                    self.gso.set(Some(false));
                }
                sent => return sent,
            }
        }
    }

    /// Whether the kernel cuts pieces into datagrams.
    fn can_segment(&self, fd: RawFd) -> bool {
        let known = self.gso.get().unwrap_or_else(|| datagram::can_segment(fd));
        self.gso.set(Some(known));
        known
    }

    /// Waits until there is room, then sends as [`UdpSocket::try_send`] does. One more error: `TimedOut` if the send
    /// timeout passes before.
    ///
    /// Of a longer batch, call it again with the rest; after an error, with the rest but for the first.
    pub async fn send(&self, batch: &mut [Transmit<'_>]) -> io::Result<usize> {
        loop {
            match self.try_send(batch) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.room().await?,
                sent => return sent,
            }
        }
    }

    /// Waits for room, after all others who do.
    async fn room(&self) -> io::Result<()> {
        let _turn = self.senders.enter().await;
        let _waiting = Waiting(self);
        self.with(|slot| {
            let ms = u64::from(slot.send_timeout);
            slot.send_deadline = if ms == 0 { Tick::NONE } else { Tick::after(self.core.clock.now(), ms) };
        });
        poll_fn(|_| self.with(|slot| self.poll_room(slot))).await
    }

    fn poll_room(&self, slot: &mut Slot) -> Poll<io::Result<()>> {
        if slot.has(flag::WRITABLE | flag::GONE) {
            return Poll::Ready(Ok(()));
        }
        if slot.send_deadline.passed(self.core.clock.now()) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        slot.send_task = self.core.tasks.running();
        self.core.backend.borrow_mut().want_room(self.slot, slot);
        self.core.arm(self.slot, slot);
        Poll::Pending
    }

    /// Ends receiving, and returns when it has ended: what is in the kernel's queue is still received, then `recv` fails with
    /// an error that [`crate::is_closing`] knows. Sending goes on.
    ///
    /// It ends after so many milliseconds at the latest: a queue may be filled as fast as it is emptied, and
    /// perhaps nobody comes for what is in it.
    ///
    /// What comes later is left to the other processes that share the socket. Where only one of them is woken for a
    /// datagram it may have been this one, for the last; so it looks once more after it has ceased to be woken.
    pub async fn stop(&self, within_ms: u64) {
        self.with(|slot| {
            slot.flags |= flag::ENDED;
            self.core.backend.borrow_mut().pause(self.slot, slot);
        });
        // The ring is told at once.
        self.core.look();
        self.wake_receiver();
        let mut late = pin!(sleep(within_ms));
        poll_fn(|cx| match self.over.poll_since(cx, 0) {
            Poll::Pending => late.as_mut().poll(cx),
            Poll::Ready(_) => Poll::Ready(()),
        })
        .await;
        if self.over.count() == 0 {
            self.over.notify();
            self.wake_receiver();
        }
    }
}

/// Somebody waits for room, until it is dropped.
struct Waiting<'a>(&'a UdpSocket);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let UdpSocket { slot: n, core, options, .. } = self.0;
        self.0.with(|slot| {
            let mut backend = core.backend.borrow_mut();
            backend.end_room(*n, slot, options.exclusive);
            if slot.has(flag::ENDED) {
                backend.pause(*n, slot);
            }
        });
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.core.close(self.slot);
    }
}

/// How many datagrams are looked for at least: one, and whether it is the last.
const FEW: usize = 2;
const IO: i32 = 5;
const INVAL: i32 = 22;
