//! io_uring: connections receive by one operation that goes on until it is ended, into buffers lent to the kernel; what
//! they send belongs to the operation until it is done. Listeners, datagram sockets and other descriptors are polled:
//! one call takes all datagrams that wait, and a flood of them takes no lent buffer away from the connections.
//!
//! A slot with operations under way keeps its number and its descriptor until the last of them has completed, even if
//! it is closed: an operation that is queued names the descriptor by its number.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use buf::{Buf, Chain, Piece};
use os::epoll::{EXCLUSIVE, IN, OUT, RDHUP};
use os::uring::{Completion, Message, Ring};

use super::epoll::bits;
use super::{Event, Kind};
use crate::clock::Clock;
use crate::core::REMOTE;
use crate::slots::{Slot, Slots, flag};
use crate::tasks::NONE;
use crate::timers::Tick;

/// How many buffers are lent to the kernel, and their size in bytes.
const BUFFERS: usize = 256;
const BUFFER_SIZE: usize = 4096;
/// Received buffers that a connection may hold unread before receiving stops.
const UNREAD: usize = 4;

/// Receiving is under way.
const RECV: u16 = 1;
/// Sending is under way.
const SEND: u16 = 2;
/// Polling is under way.
const POLL: u16 = 4;
/// Polling for the peer's end is under way, or for room in a datagram socket.
const HANG: u16 = 256;
/// Any of them.
const BUSY: u16 = RECV | SEND | POLL | HANG;
/// The slot is closed.
const CLOSED: u16 = 8;
/// Receiving is being ended.
const STOPPING: u16 = 16;
/// Polling begins anew when it ends.
const AGAIN: u16 = 32;
/// Polling is being ended.
const ENDING: u16 = 128;
/// The slot is about to leave the ring: what isn't sent goes back to its queue.
const DETACHING: u16 = 512;

/// Not an operation: the number of cancels, whose own results mean nothing.
const CANCEL: u16 = 64;

pub(crate) struct Uring {
    ring: Ring,
    states: Vec<State>,
    /// Found while waiting for something else.
    found: Vec<Event>,
    remote: RawFd,
}

#[derive(Default)]
struct State {
    bits: u16,
    /// The descriptor of a closed slot.
    fd: Option<OwnedFd>,
    sending: Option<Box<Sending>>,
}

/// What is being sent: it must not change or go while the kernel reads it.
struct Sending {
    chain: Chain,
    message: Option<Box<Message>>,
}

impl Uring {
    pub(crate) fn new() -> io::Result<Uring> {
        let ring = Ring::new((0..BUFFERS).map(|_| memory()).collect())?;
        Ok(Uring { ring, states: Vec::new(), found: Vec::new(), remote: -1 })
    }

    pub(crate) fn open(&mut self, n: u32, fd: BorrowedFd<'_>, kind: Kind) {
        if n == REMOTE {
            self.remote = fd.as_raw_fd();
            self.ring.poll(self.remote, IN, true, token(POLL, n));
            return;
        }
        if self.states.len() <= n as usize {
            self.states.resize_with(n as usize + 1, State::default);
        }
        if kind == Kind::Other {
            self.states[n as usize].bits = POLL | AGAIN;
            self.ring.poll(fd.as_raw_fd(), IN | OUT | RDHUP, true, token(POLL, n));
        }
    }

    /// Ends what is under way; whether there was something.
    pub(crate) fn close(&mut self, n: u32) -> bool {
        let state = &mut self.states[n as usize];
        if state.bits & BUSY == 0 {
            *state = State::default();
            return false;
        }
        state.bits |= CLOSED;
        self.cancel(n, BUSY);
        true
    }

    /// Keeps a closed slot's descriptor until nothing is under way.
    pub(crate) fn keep(&mut self, n: u32, fd: Option<OwnedFd>) {
        self.states[n as usize].fd = fd;
    }

    fn cancel(&mut self, n: u32, operations: u16) {
        for operation in [RECV, SEND, POLL, HANG] {
            if self.states[n as usize].bits & operations & operation != 0 {
                self.ring.cancel(token(operation, n), token(CANCEL, n));
            }
        }
    }

    /// Ends what is under way, and waits until it has ended. What is received meanwhile is in the slot's queue, and what
    /// wasn't sent is at the front of the other one.
    pub(crate) fn detach(&mut self, n: u32, slots: &RefCell<Slots>, clock: &Clock) {
        self.states[n as usize].bits |= STOPPING | DETACHING;
        self.states[n as usize].bits &= !AGAIN;
        self.cancel(n, BUSY);
        while self.states[n as usize].bits & BUSY != 0 && self.ring.wait(None).is_ok() {
            self.collect(slots, clock);
        }
        // Its number may soon be another connection's.
        self.found.retain(|event| !matches!(event, Event::Ready { slot, .. } if *slot == n));
    }

    pub(crate) fn pause(&mut self, n: u32) {
        let state = &mut self.states[n as usize];
        state.bits &= !AGAIN;
        if state.bits & (POLL | ENDING) == POLL {
            state.bits |= ENDING;
            self.cancel(n, POLL);
        }
    }

    /// Polls a listener once.
    pub(crate) fn resume(&mut self, n: u32, slot: &Slot, exclusive: bool) {
        if self.states[n as usize].bits & ENDING != 0 {
            self.states[n as usize].bits |= AGAIN;
        }
        self.poll_once(n, slot, if exclusive { IN | EXCLUSIVE } else { IN });
    }

    /// Has the slot reported when it can be written to.
    pub(crate) fn want_write(&mut self, n: u32, slot: &Slot) {
        self.poll_once(n, slot, OUT);
    }

    fn poll_once(&mut self, n: u32, slot: &Slot, events: u32) {
        let state = &mut self.states[n as usize];
        if let Some(fd) = slot.fd.as_ref().filter(|_| state.bits & POLL == 0) {
            state.bits |= POLL;
            self.ring.poll(fd.as_raw_fd(), events, false, token(POLL, n));
        }
    }

    /// Begins to receive.
    pub(crate) fn want_read(&mut self, n: u32, slot: &Slot) {
        let state = &mut self.states[n as usize];
        if let Some(fd) = slot.fd.as_ref().filter(|_| state.bits & RECV == 0) {
            state.bits |= RECV;
            self.ring.recv(fd.as_raw_fd(), token(RECV, n));
        }
    }

    /// Has the slot reported when the peer has closed its side: by receiving, as long as that goes on.
    pub(crate) fn want_hangup(&mut self, n: u32, slot: &Slot) {
        let unread = slot.queues.as_ref().map_or(0, |q| q.input.len());
        let state = &mut self.states[n as usize];
        if unread < UNREAD && state.bits & STOPPING == 0 {
            return self.want_read(n, slot);
        }
        if let Some(fd) = slot.fd.as_ref().filter(|_| state.bits & HANG == 0) {
            state.bits |= HANG;
            self.ring.poll(fd.as_raw_fd(), RDHUP, false, token(HANG, n));
        }
    }

    /// Has a datagram socket reported when it can be written to.
    pub(crate) fn want_room(&mut self, n: u32, slot: &Slot) {
        let state = &mut self.states[n as usize];
        if let Some(fd) = slot.fd.as_ref().filter(|_| state.bits & HANG == 0) {
            state.bits |= HANG;
            self.ring.poll(fd.as_raw_fd(), OUT, false, token(HANG, n));
        }
    }

    /// Whether something is being sent.
    pub(crate) fn is_sending(&self, n: u32) -> bool {
        self.states[n as usize].bits & SEND != 0
    }

    /// How many bytes are being sent.
    pub(crate) fn sending(&self, n: u32) -> u64 {
        self.states[n as usize].sending.as_ref().map_or(0, |s| s.chain.len())
    }

    /// Begins to send a chain of memory; nothing may be being sent.
    pub(crate) fn send(&mut self, n: u32, slot: &Slot, chain: Chain) {
        let mut sending = Box::new(Sending { chain, message: None });
        let fd = slot.fd.as_ref().map_or(-1, |fd| fd.as_raw_fd());
        self.submit(n, fd, &mut sending);
        let state = &mut self.states[n as usize];
        assert!(state.sending.is_none(), "one chain is sent at a time");
        state.sending = Some(sending);
        state.bits |= SEND;
    }

    fn submit(&mut self, n: u32, fd: RawFd, sending: &mut Sending) {
        let pieces = sending.chain.pieces();
        if let [Piece::Bytes(only)] = pieces {
            // SAFETY: the bytes are immutable and owned by `sending.chain`, which stays in the slot's state, untouched,
            // until the completion has been read (`sent`), or for ever if the driver is dropped before.
            unsafe { self.ring.send(fd, only, token(SEND, n)) };
            return;
        }
        let bytes = pieces.iter().map_while(|piece| match piece {
            Piece::Bytes(bytes) => Some(&bytes[..]),
            Piece::File(_) => None,
        });
        let message = sending.message.insert(Message::new(bytes));
        // SAFETY: as above; the message is boxed beside the chain.
        unsafe { self.ring.send_message(fd, message, token(SEND, n)) };
    }

    pub(crate) fn wait(
        &mut self,
        slots: &RefCell<Slots>,
        clock: &Clock,
        timeout_ms: u64,
        events: &mut Vec<Event>,
    ) -> io::Result<()> {
        let timeout = if self.found.is_empty() { timeout_ms } else { 0 };
        let waited = self.ring.wait((timeout != u64::MAX).then_some(timeout));
        self.collect(slots, clock);
        events.append(&mut self.found);
        waited
    }

    /// Takes over what has arrived, without waiting; its events come with the next wait.
    pub(crate) fn look(&mut self, slots: &RefCell<Slots>, clock: &Clock) {
        if self.ring.wait(Some(0)).is_ok() {
            self.collect(slots, clock);
        }
    }

    fn collect(&mut self, slots: &RefCell<Slots>, clock: &Clock) {
        let mut slots = slots.borrow_mut();
        while let Some(done) = self.ring.next(memory) {
            let (operation, n) = (done.token >> 32, done.token as u32);
            match operation as u16 {
                CANCEL => {}
                _ if n == REMOTE => self.remote_woken(&done),
                operation => self.completed(operation, n, done, &mut slots, clock),
            }
        }
    }

    fn remote_woken(&mut self, done: &Completion) {
        self.found.push(Event::Ready { slot: REMOTE, bits: flag::READABLE });
        if !done.more {
            self.ring.poll(self.remote, IN, true, token(POLL, REMOTE));
        }
    }

    fn completed(&mut self, operation: u16, n: u32, done: Completion, slots: &mut Slots, clock: &Clock) {
        let state = &mut self.states[n as usize];
        if !done.more {
            state.bits &= !operation;
        }
        if state.bits & CLOSED != 0 {
            if operation == SEND {
                state.sending = None;
            }
            if state.bits & BUSY == 0 {
                *state = State::default();
                slots.release(n);
            }
            return;
        }
        let Some(slot) = slots.get_mut(n) else { return };
        let bits = match operation {
            RECV => self.received(n, slot, done),
            SEND => self.sent(n, slot, done.result, clock),
            HANG => bits(done.result.max(0) as u32),
            _ => self.polled(n, slot, &done),
        };
        if bits != 0 {
            self.found.push(Event::Ready { slot: n, bits });
        }
    }

    fn received(&mut self, n: u32, slot: &mut Slot, done: Completion) -> u16 {
        if !done.more {
            self.states[n as usize].bits &= !STOPPING;
        }
        match (done.result, done.memory) {
            (len @ 1.., Some(memory)) => {
                let input = &mut slot.queues().input;
                input.push_back(Buf::from_memory(memory, 0, len as usize));
                let bits = &mut self.states[n as usize].bits;
                if input.len() >= UNREAD && *bits & (RECV | STOPPING) == RECV {
                    *bits |= STOPPING;
                    self.cancel(n, RECV);
                    if slot.hang_task != NONE {
                        self.want_hangup(n, slot);
                    }
                }
                flag::READABLE
            }
            (0, _) => {
                slot.queues().input_end = Some(0);
                flag::READABLE | flag::RDHUP
            }
            // Other connections took all buffers, which have been replaced meanwhile.
            (code, _) if code == -NOBUFS => {
                if self.states[n as usize].bits & DETACHING == 0 {
                    self.want_read(n, slot);
                }
                0
            }
            // The reader, if there is one, begins anew.
            (code, _) if code == -CANCELED => flag::READABLE,
            (code, _) => {
                slot.queues().input_end = Some(-code);
                flag::READABLE | flag::RDHUP | flag::ERR
            }
        }
    }

    fn sent(&mut self, n: u32, slot: &mut Slot, result: i32, clock: &Clock) -> u16 {
        let Some(mut sending) = self.states[n as usize].sending.take() else { return 0 };
        let detaching = self.states[n as usize].bits & DETACHING != 0;
        if result < 0 && !(detaching && result == -CANCELED) {
            let queues = slot.queues();
            queues.out.clear();
            queues.error = Some(io::Error::from_raw_os_error(-result));
            return flag::WRITABLE;
        }
        sending.chain.advance(result.max(0) as u64);
        slot.sent += result.max(0) as u64;
        if slot.send_timeout > 0 {
            slot.send_deadline = Tick::after(clock.now(), u64::from(slot.send_timeout));
        }
        if sending.chain.is_empty() {
            return flag::WRITABLE;
        }
        if detaching {
            let out = &mut slot.queues().out;
            sending.chain.append(out);
            *out = sending.chain;
            return 0;
        }
        let fd = slot.fd.as_ref().map_or(-1, |fd| fd.as_raw_fd());
        self.submit(n, fd, &mut sending);
        let state = &mut self.states[n as usize];
        state.sending = Some(sending);
        state.bits |= SEND;
        0
    }

    fn polled(&mut self, n: u32, slot: &Slot, done: &Completion) -> u16 {
        let state = &mut self.states[n as usize];
        if !done.more {
            let again = state.bits & AGAIN != 0;
            state.bits &= !ENDING;
            if let Some(fd) = slot.fd.as_ref().filter(|_| again) {
                let listener = slot.has(flag::LISTENER);
                state.bits = if listener { state.bits & !AGAIN } else { state.bits } | POLL;
                let events = if listener { IN } else { IN | OUT | RDHUP };
                self.ring.poll(fd.as_raw_fd(), events, !listener, token(POLL, n));
            }
        }
        if done.result < 0 { 0 } else { bits(done.result as u32) }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // The kernel may still read what is being sent.
        self.states.iter_mut().for_each(|state| std::mem::forget(state.sending.take()));
    }
}

fn token(operation: u16, n: u32) -> u64 {
    u64::from(operation) << 32 | u64::from(n)
}

fn memory() -> Box<[u8]> {
    Buf::with_capacity(BUFFER_SIZE).into_memory()
}

const NOBUFS: i32 = 105;
const CANCELED: i32 = 125;
