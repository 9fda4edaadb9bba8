//! Datagrams of the simulation: each is under way on its own, may be lost, come twice, or be overtaken.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use buf::Buf;
use os::SockAddr;
use os::datagram::{BATCH, Transmit};

use super::random::Random;
use crate::driver::Event;
use crate::sim::DatagramFaults;
use crate::slots::flag;
use crate::udp::Datagram;

pub(crate) struct Datagrams {
    pub(crate) faults: DatagramFaults,
    random: Random,
    /// By slot.
    sockets: BTreeMap<u32, Socket>,
    /// By the time of arrival, and of one time by the order of sending.
    under_way: BTreeMap<(u64, u64), Parcel>,
    serial: u64,
    pub(super) found: Vec<Event>,
}

struct Socket {
    local: SockAddr,
    peer: Option<SockAddr>,
    queue: VecDeque<Parcel>,
    /// Bytes in the queue.
    queued: usize,
    /// Nobody is where the last one went.
    refused: bool,
}

#[derive(Clone)]
struct Parcel {
    from: SockAddr,
    to: SockAddr,
    bytes: Vec<u8>,
    ecn: u8,
}

impl Datagrams {
    pub(super) fn new(random: Random) -> Datagrams {
        Datagrams {
            faults: DatagramFaults::default(),
            random,
            sockets: BTreeMap::new(),
            under_way: BTreeMap::new(),
            serial: 0,
            found: Vec::new(),
        }
    }

    /// Opens a socket at an address; with port 0 at a free one.
    pub(crate) fn open(&mut self, slot: u32, mut local: SockAddr, peer: Option<SockAddr>) {
        while local.port() == 0 {
            self.serial += 1;
            let port = 1024 + (self.serial % 60_000) as u16;
            if !self.sockets.values().any(|socket| socket.local.port() == port) {
                local.set_port(port);
            }
        }
        let socket = Socket { local, peer, queue: VecDeque::new(), queued: 0, refused: false };
        self.sockets.insert(slot, socket);
    }

    pub(crate) fn local(&self, slot: u32) -> SockAddr {
        self.sockets[&slot].local.clone()
    }

    /// Sends the first of these: how many have been taken entirely.
    pub(crate) fn send(&mut self, slot: u32, batch: &mut [Transmit<'_>], now: u64) -> io::Result<usize> {
        if self.random.chance(self.faults.full_sends) {
            self.found.push(Event::Ready { slot, bits: flag::WRITABLE });
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let some = 1 + self.random.below(batch.len() as u64) as usize;
        for transmit in batch.iter_mut().take(some) {
            let segment = if transmit.segment == 0 { transmit.bytes.len() } else { transmit.segment };
            let to = transmit.to.or(self.sockets[&slot].peer.as_ref()).cloned();
            let to = to.ok_or(io::Error::from_raw_os_error(DESTADDRREQ))?;
            let from = source(&self.sockets[&slot].local, transmit.from, &to);
            loop {
                let (bytes, rest) = transmit.bytes.split_at(transmit.bytes.len().min(segment));
                transmit.bytes = rest;
                let (from, to) = (from.clone(), to.clone());
                self.dispatch(Parcel { from, to, bytes: bytes.to_vec(), ecn: transmit.ecn }, now);
                if rest.is_empty() {
                    break;
                }
            }
        }
        Ok(some)
    }

    fn dispatch(&mut self, parcel: Parcel, now: u64) {
        let copies = if self.random.chance(self.faults.losses) {
            0
        } else {
            1 + u64::from(self.random.chance(self.faults.duplicates))
        };
        let (least, most) = self.faults.latency_ms;
        for _ in 0..copies {
            let at = now + least + self.random.below(most.saturating_sub(least) + 1);
            self.serial += 1;
            self.under_way.insert((at, self.serial), parcel.clone());
        }
    }

    /// When the next one arrives.
    pub(super) fn next(&self) -> u64 {
        self.under_way.first_key_value().map_or(u64::MAX, |((at, _), _)| *at)
    }

    /// Lets all arrive whose time has come.
    pub(super) fn arrive(&mut self, now: u64) {
        while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= now) {
            let parcel = entry.remove();
            match self.target(&parcel) {
                Some(slot) => self.deliver(slot, parcel),
                None => self.refuse(&parcel),
            }
        }
    }

    /// The socket that fits best; of several alike the sender's address decides.
    fn target(&self, parcel: &Parcel) -> Option<u32> {
        let fit = |socket: &Socket| {
            let here =
                socket.local == parcel.to || (socket.local.is_wildcard() && socket.local.port() == parcel.to.port());
            let connected = socket.peer.as_ref().map(|peer| *peer == parcel.from);
            (here && connected != Some(false)).then_some((connected.is_some(), !socket.local.is_wildcard()))
        };
        let best = self.sockets.values().filter_map(fit).max()?;
        let alike: Vec<u32> =
            self.sockets.iter().filter(|(_, socket)| fit(socket) == Some(best)).map(|(slot, _)| *slot).collect();
        let mut hasher = DefaultHasher::new();
        parcel.from.hash(&mut hasher);
        Some(alike[(hasher.finish() % alike.len() as u64) as usize])
    }

    fn deliver(&mut self, slot: u32, parcel: Parcel) {
        let Some(socket) = self.sockets.get_mut(&slot) else { return };
        if socket.queued + parcel.bytes.len() <= self.faults.queue {
            socket.queued += parcel.bytes.len();
            socket.queue.push_back(parcel);
            self.found.push(Event::Ready { slot, bits: flag::READABLE });
        }
    }

    /// Tells a connected sender that nobody is there.
    fn refuse(&mut self, parcel: &Parcel) {
        let sender = |socket: &Socket| socket.local == parcel.from && socket.peer.as_ref() == Some(&parcel.to);
        if let Some((slot, socket)) = self.sockets.iter_mut().find(|(_, socket)| sender(socket)) {
            socket.refused = true;
            self.found.push(Event::Ready { slot: *slot, bits: flag::READABLE });
        }
    }

    /// Takes what has arrived: how many, as many as one call of the kernel at most.
    pub(crate) fn recv(&mut self, slot: u32, batch: &mut Vec<Datagram>) -> io::Result<usize> {
        let Some(socket) = self.sockets.get_mut(&slot) else { return Err(io::ErrorKind::NotConnected.into()) };
        if std::mem::take(&mut socket.refused) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let count = socket.queue.len().min(BATCH);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for parcel in socket.queue.drain(..count) {
            socket.queued -= parcel.bytes.len();
            let mut bytes = Buf::with_capacity(parcel.bytes.len());
            bytes.extend_from_slice(&parcel.bytes);
            batch.push(Datagram { bytes, from: parcel.from, to: parcel.to.ip(), segment: 0, ecn: parcel.ecn });
        }
        Ok(count)
    }

    /// A socket is watched again.
    pub(super) fn resume(&mut self, slot: u32) {
        if self.sockets.get(&slot).is_some_and(|socket| !socket.queue.is_empty() || socket.refused) {
            self.found.push(Event::Ready { slot, bits: flag::READABLE });
        }
    }

    pub(super) fn close(&mut self, slot: u32) {
        self.sockets.remove(&slot);
    }
}

/// Where a datagram comes from that a socket sends: of its addresses the wanted one, or this machine's.
fn source(local: &SockAddr, wanted: Option<IpAddr>, to: &SockAddr) -> SockAddr {
    let own = local.ip().filter(|ip| !ip.is_unspecified());
    let this: IpAddr = match to {
        SockAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        _ => Ipv4Addr::LOCALHOST.into(),
    };
    SockAddr::from(SocketAddr::new(wanted.or(own).unwrap_or(this), local.port()))
}

const DESTADDRREQ: i32 = 89;
