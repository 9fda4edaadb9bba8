//! The simulation: ends of connections in memory, and a queue of what is under way between them; datagrams beside them.

mod datagrams;
mod random;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use buf::{Chain, Piece};
use os::SockAddr;
use slab::Slab;

use super::Event;
use crate::clock::Clock;
use crate::core::REMOTE;
use crate::send::Wrote;
use crate::sim::{Faults, Trace};
use crate::slots::flag;
use crate::threads::Remote;
use datagrams::Datagrams;
use random::Random;

pub(crate) struct Sim {
    pub(crate) faults: Faults,
    pub(crate) trace: Trace,
    /// Addresses that never answer.
    pub(crate) silent: HashSet<SockAddr>,
    random: Random,
    /// For [`crate::random_bytes`]: apart, so that the network doesn't depend on who asks for it.
    pub(crate) chance: Random,
    pub(crate) datagrams: Datagrams,
    ends: Slab<End>,
    /// The end that belongs to a slot.
    by_slot: HashMap<u32, usize>,
    listeners: HashMap<SockAddr, u32>,
    waiting: HashMap<u32, VecDeque<usize>>,
    under_way: BinaryHeap<Reverse<(u64, u64, usize)>>,
    parcels: HashMap<u64, Parcel>,
    serial: u64,
    found: Vec<Event>,
    remote: Arc<Remote>,
}

/// One end of a connection.
struct End {
    peer: Option<usize>,
    slot: Option<u32>,
    local: SockAddr,
    remote: SockAddr,
    input: VecDeque<u8>,
    /// Bytes on their way here.
    coming: usize,
    /// When the last of them arrives: nothing overtakes.
    last: u64,
    ended: bool,
    error: Option<i32>,
    /// Its own side is closed.
    shut: bool,
    linger_reset: bool,
    cut: bool,
    /// Its owner has closed it: bytes that still arrive are answered with a reset.
    closed: bool,
    /// It was reset: nothing can be written any more.
    broken: bool,
    /// The other side found no room.
    blocked_peer: bool,
}

/// What arrives at an end.
enum Parcel {
    Bytes(Vec<u8>),
    Ended,
    Failed(i32),
    Connected,
    /// At a listener: the other end of a new connection.
    Arrived(u32),
}

impl Sim {
    pub(crate) fn new(seed: u64, remote: Arc<Remote>) -> Sim {
        Sim {
            faults: Faults::default(),
            trace: Trace::default(),
            silent: HashSet::new(),
            random: Random::new(seed),
            chance: Random::new(seed.rotate_left(32)),
            // Numbers of its own, so that datagrams don't change what happens to connections.
            datagrams: Datagrams::new(Random::new(!seed)),
            ends: Slab::new(),
            by_slot: HashMap::new(),
            listeners: HashMap::new(),
            waiting: HashMap::new(),
            under_way: BinaryHeap::new(),
            parcels: HashMap::new(),
            serial: 0,
            found: Vec::new(),
            remote,
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random.below(n)
    }

    fn chance(&mut self, per_mille: u32) -> bool {
        self.random.chance(per_mille)
    }

    pub(crate) fn listen(&mut self, slot: u32, addr: SockAddr) {
        let end = self.ends.insert(End::new(addr.clone(), addr.clone()));
        self.attach(end, slot);
        // Who waits at an older one is for the new one, as where both have the same socket.
        let older = self.listeners.insert(addr, slot).and_then(|older| self.waiting.get_mut(&older));
        let waiting = older.map(std::mem::take).unwrap_or_default();
        if !waiting.is_empty() {
            self.found.push(Event::Ready { slot, bits: flag::READABLE });
        }
        self.waiting.insert(slot, waiting);
    }

    /// Gives an end its slot.
    pub(crate) fn attach(&mut self, end: usize, slot: u32) {
        self.ends[end].slot = Some(slot);
        self.by_slot.insert(slot, end);
        // What arrived before there was a slot to tell it to.
        let State { read, gone } = self.ends[end].state();
        let bits = if read { flag::READABLE } else { 0 } | if gone { flag::READABLE | flag::RDHUP } else { 0 };
        if bits != 0 {
            self.tell(end, bits);
        }
    }

    /// Closes a connection that nobody accepts.
    pub(crate) fn reject(&mut self, end: usize, now: u64) {
        self.ends[end].linger_reset = true;
        self.close_end(end, now);
    }

    /// Begins to connect: the own end.
    pub(crate) fn connect(&mut self, addr: &SockAddr, now: u64) -> usize {
        self.serial += 1;
        let port = 1024 + (self.serial % 60_000) as u16;
        let own = SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
        let client = self.ends.insert(End::new(own.clone(), addr.clone()));
        self.note(now, "connects", client, 0);
        if self.silent.contains(addr) {
            return client;
        }
        let Some(listener) = self.listeners.get(addr).copied() else {
            self.send_parcel(client, Parcel::Failed(CONNREFUSED), now);
            return client;
        };
        let server = self.ends.insert(End::new(addr.clone(), own));
        (self.ends[client].peer, self.ends[server].peer) = (Some(server), Some(client));
        self.send_parcel(client, Parcel::Connected, now);
        self.send_parcel(server, Parcel::Arrived(listener), now);
        client
    }

    /// A connection that waits at a listener.
    pub(crate) fn accept(&mut self, listener: u32) -> Option<(usize, SockAddr)> {
        let end = self.waiting.get_mut(&listener)?.pop_front()?;
        Some((end, self.ends[end].remote.clone()))
    }

    /// A listener waits again.
    pub(crate) fn resume(&mut self, slot: u32) {
        self.datagrams.resume(slot);
        if self.waiting.get(&slot).is_some_and(|w| !w.is_empty()) {
            self.found.push(Event::Ready { slot, bits: flag::READABLE });
        }
    }

    pub(crate) fn addresses(&self, slot: u32) -> (SockAddr, SockAddr) {
        let end = &self.ends[self.by_slot[&slot]];
        (end.local.clone(), end.remote.clone())
    }

    pub(crate) fn take_error(&mut self, slot: u32) -> io::Result<()> {
        let end = self.by_slot[&slot];
        self.ends[end].error.take().map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
    }

    pub(crate) fn recv(&mut self, slot: u32, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.by_slot[&slot];
        let short = self.chance(self.faults.short_reads);
        let some = 1 + self.below(buf.len() as u64) as usize;
        let end = &mut self.ends[n];
        if end.input.is_empty() {
            // As on Linux, what came before a reset can be read after it.
            if let Some(code) = end.error.take() {
                end.ended = true;
                return Err(io::Error::from_raw_os_error(code));
            }
            return if end.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let len = if short { some } else { buf.len() }.min(end.input.len());
        let (front, back) = end.input.as_slices();
        let first = len.min(front.len());
        buf[..first].copy_from_slice(&front[..first]);
        buf[first..len].copy_from_slice(&back[..len - first]);
        end.input.drain(..len);
        self.trace.note(0, "reads", n as u64, len as u64);
        let end = &mut self.ends[n];
        // Only a short read that emptied the queue may be taken for one.
        if !end.input.is_empty() {
            self.found.push(Event::Ready { slot, bits: flag::READABLE });
        }
        let blocked = std::mem::take(&mut self.ends[n].blocked_peer);
        if let Some(peer) = self.ends[n].peer.filter(|_| blocked) {
            self.tell(peer, flag::WRITABLE);
        }
        Ok(len)
    }

    /// Writes what the peer has room for.
    pub(crate) fn write(&mut self, slot: u32, chain: &mut Chain, now: u64) -> io::Result<Wrote> {
        while let Some(piece) = chain.first() {
            let bytes = match piece {
                Piece::Bytes(bytes) => bytes.to_vec(),
                Piece::File(range) => {
                    let mut bytes = vec![0; range.len.min(16 << 10) as usize];
                    let n = os::io::pread(range.file.as_fd().as_raw_fd(), &mut bytes, range.offset)?;
                    bytes.truncate(n);
                    if n == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    bytes
                }
            };
            let n = self.write_bytes(slot, &bytes, now)?;
            chain.advance(n as u64);
            if n < bytes.len() {
                return Ok(Wrote::Blocked);
            }
        }
        Ok(Wrote::All)
    }

    fn write_bytes(&mut self, slot: u32, bytes: &[u8], now: u64) -> io::Result<usize> {
        let n = self.by_slot[&slot];
        if let Some(code) = self.ends[n].error {
            return Err(io::Error::from_raw_os_error(code));
        }
        let Some(peer) = self.ends[n].peer.filter(|_| !self.ends[n].shut && !self.ends[n].broken) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        if self.chance(self.faults.resets) {
            self.note(now, "is reset", n, 0);
            self.send_parcel(peer, Parcel::Failed(CONNRESET), now);
            return Err(io::Error::from_raw_os_error(CONNRESET));
        }
        if self.chance(self.faults.cuts) {
            self.note(now, "is cut", n, 0);
            (self.ends[n].cut, self.ends[peer].cut) = (true, true);
        }
        let room = self.faults.window.saturating_sub(self.ends[peer].input.len() + self.ends[peer].coming);
        let short = self.chance(self.faults.short_writes);
        let some = 1 + self.below(bytes.len() as u64) as usize;
        let len = if short { some } else { bytes.len() }.min(room);
        self.note(now, "writes", n, len);
        if len > 0 {
            self.ends[peer].coming += len;
            self.send_parcel(peer, Parcel::Bytes(bytes[..len].to_vec()), now);
        }
        if len < room && len < bytes.len() {
            // Cut short by chance: there is room for more at once.
            self.found.push(Event::Ready { slot, bits: flag::WRITABLE });
        } else if len < bytes.len() {
            self.ends[peer].blocked_peer = true;
        }
        Ok(len)
    }

    pub(crate) fn shutdown(&mut self, slot: u32, now: u64) {
        let n = self.by_slot[&slot];
        if let Some(peer) = self.ends[n].peer.filter(|_| !self.ends[n].shut) {
            self.ends[n].shut = true;
            self.note(now, "shuts down", n, 0);
            self.send_parcel(peer, Parcel::Ended, now);
        }
    }

    pub(crate) fn linger_reset(&mut self, slot: u32) {
        let n = self.by_slot[&slot];
        self.ends[n].linger_reset = true;
    }

    pub(crate) fn cut(&mut self, slot: u32) {
        let n = self.by_slot[&slot];
        self.ends[n].cut = true;
        if let Some(peer) = self.ends[n].peer {
            self.ends[peer].cut = true;
        }
    }

    pub(crate) fn close(&mut self, slot: u32, now: u64) {
        self.datagrams.close(slot);
        let Some(n) = self.by_slot.remove(&slot) else { return };
        if let Some(waiting) = self.waiting.remove(&slot) {
            self.listeners.retain(|_, listener| *listener != slot);
            waiting.into_iter().for_each(|end| self.reject(end, now));
        }
        self.close_end(n, now);
    }

    fn close_end(&mut self, n: usize, now: u64) {
        let end = &self.ends[n];
        let reset = end.linger_reset || !end.input.is_empty();
        if let Some(peer) = end.peer {
            if reset {
                self.send_parcel(peer, Parcel::Failed(CONNRESET), now);
            } else if !end.shut {
                self.send_parcel(peer, Parcel::Ended, now);
            }
        }
        self.note(now, if reset { "closes with a reset" } else { "closes" }, n, 0);
        // Parcels to it may still be under way: on arrival they are thrown away.
        let end = &mut self.ends[n];
        (end.slot, end.closed) = (None, true);
        end.input.clear();
    }

    fn note(&mut self, now: u64, what: &'static str, end: usize, len: usize) {
        self.trace.note(now, what, end as u64, len as u64);
    }

    fn send_parcel(&mut self, to: usize, parcel: Parcel, now: u64) {
        let (least, most) = self.faults.latency_ms;
        let delay = least + self.below(most.saturating_sub(least) + 1);
        let end = &mut self.ends[to];
        end.last = end.last.max(now + delay);
        self.serial += 1;
        self.under_way.push(Reverse((end.last, self.serial, to)));
        self.parcels.insert(self.serial, parcel);
    }

    fn arrive(&mut self, to: usize, parcel: Parcel, now: u64) {
        let end = &mut self.ends[to];
        if end.cut || end.closed {
            if let (Parcel::Bytes(_), false) = (parcel, end.cut)
                && let Some(peer) = end.peer.take()
            {
                self.send_parcel(peer, Parcel::Failed(CONNRESET), now);
            }
            return;
        }
        let bits = match parcel {
            Parcel::Bytes(bytes) => {
                end.coming -= bytes.len();
                end.input.extend(bytes);
                flag::READABLE
            }
            Parcel::Ended => {
                end.ended = true;
                flag::READABLE | flag::RDHUP
            }
            Parcel::Failed(code) => {
                (end.error, end.broken) = (Some(code), true);
                flag::READABLE | flag::WRITABLE | flag::RDHUP | flag::ERR
            }
            Parcel::Connected => flag::WRITABLE,
            Parcel::Arrived(listener) => {
                let listener = self.listeners.get(&end.local).copied().unwrap_or(listener);
                match self.waiting.get_mut(&listener) {
                    Some(waiting) => {
                        waiting.push_back(to);
                        self.found.push(Event::Ready { slot: listener, bits: flag::READABLE });
                    }
                    None => self.reject(to, now),
                }
                return;
            }
        };
        self.tell(to, bits);
    }

    fn tell(&mut self, end: usize, bits: u16) {
        if let Some(slot) = self.ends[end].slot {
            self.found.push(Event::Ready { slot, bits });
        }
    }

    pub(crate) fn wait(&mut self, clock: &Clock, timeout_ms: u64, events: &mut Vec<Event>) -> io::Result<()> {
        if self.remote.is_awaited() {
            // Other threads live in real time: their answers come first.
            let mut fds = [os::poll::PollFd::new(self.remote.as_fd().as_raw_fd(), os::poll::IN)];
            let patience = if self.found.is_empty() && timeout_ms > 0 { 10_000 } else { 0 };
            if os::poll::poll(&mut fds, patience)? > 0 {
                events.push(Event::Ready { slot: REMOTE, bits: flag::READABLE });
            }
        }
        self.found.append(&mut self.datagrams.found);
        if self.found.is_empty() && events.is_empty() && timeout_ms > 0 {
            let next = self.under_way.peek().map_or(u64::MAX, |Reverse((at, ..))| *at).min(self.datagrams.next());
            let until = next.min(clock.now().saturating_add(timeout_ms));
            assert!(until != u64::MAX, "the simulation has come to rest: everybody waits and nothing is under way");
            clock.set(until.max(clock.now()));
        }
        while let Some(Reverse((at, serial, to))) = self.under_way.peek().copied()
            && at <= clock.now()
        {
            self.under_way.pop();
            if let Some(parcel) = self.parcels.remove(&serial) {
                self.arrive(to, parcel, clock.now());
            }
        }
        self.datagrams.arrive(clock.now());
        events.append(&mut self.found);
        events.append(&mut self.datagrams.found);
        Ok(())
    }
}

/// What an end has to tell.
struct State {
    read: bool,
    gone: bool,
}

impl End {
    fn state(&self) -> State {
        State { read: !self.input.is_empty(), gone: self.ended || self.error.is_some() }
    }

    fn new(local: SockAddr, remote: SockAddr) -> End {
        End {
            peer: None,
            slot: None,
            local,
            remote,
            input: VecDeque::new(),
            coming: 0,
            last: 0,
            ended: false,
            error: None,
            shut: false,
            linger_reset: false,
            cut: false,
            closed: false,
            broken: false,
            blocked_peer: false,
        }
    }
}

const CONNRESET: i32 = 104;
const CONNREFUSED: i32 = 111;
