//! Connections that leave the loop, to go on in another one: of this process or, by descriptor passing, of another.

use std::io;
use std::os::fd::OwnedFd;

use buf::{Buf, Chain};

use crate::Stream;
use crate::core;
use crate::driver::Kind;
use crate::slots::flag;

/// A connection out of any loop: the socket, and what was between it and its owner.
///
/// Deadlines aren't part of it: whoever attaches it sets new ones.
#[derive(Debug)]
pub struct Detached {
    /// The socket, nonblocking.
    pub fd: OwnedFd,
    /// Received, not read.
    pub unread: Vec<Buf>,
    /// Taken over for sending, not with the kernel yet.
    pub unsent: Chain,
    /// Bytes received so far, those in `unread` included.
    pub received: u64,
    /// Bytes sent so far, without those in `unsent`.
    pub sent: u64,
    /// The connection's serial number.
    pub number: u64,
    /// Whether it came from a listener.
    pub accepted: bool,
}

impl Stream {
    /// Takes the connection out of the loop. No byte is lost, whatever the driver was doing with it.
    ///
    /// A layer is lost, and its peer told so, unless it was taken off by [`Stream::detach_layer`] before.
    ///
    /// # Panics
    /// With the sim driver, which has no sockets.
    pub fn detach(self) -> Detached {
        if self.is_layered() {
            self.drop_layer();
        }
        self.core.detach(self.slot);
        let (queues, mut received, sent, number, accepted) = self.with(|slot| {
            slot.set_nodelay();
            let queues = slot.queues.take().map(|queues| *queues).unwrap_or_default();
            (queues, slot.received, slot.sent, slot.number, slot.has(flag::ACCEPTED))
        });
        // What was given back was counted when it was read first.
        received += queues.input.iter().map(|buf| buf.len() as u64).sum::<u64>();
        let unread = queues.unread.into_iter().chain(queues.input).collect();
        let fd = self.core.close(self.slot).expect("a handle's slot is open, and has a socket");
        std::mem::forget(self);
        Detached { fd, unread, unsent: queues.out, received, sent, number, accepted }
    }

    /// Goes on with a connection that was detached, here or in another process, under its old number: what was unread is
    /// read first, what was unsent is sent first. Whether there is room for it is for the caller to ask ([`make_room`]).
    /// An error: the driver can't watch it, and it is closed.
    pub fn attach(parts: Detached) -> io::Result<Stream> {
        let core = core::current();
        let flags = flag::WRITABLE | flag::COUNTED | if parts.accepted { flag::ACCEPTED } else { 0 };
        let slot = core.open_numbered(Some(parts.fd), flags, Kind::Stream, parts.number)?;
        let stream = Stream::of(slot, core);
        stream.with(|slot| (slot.received, slot.sent) = (parts.received, parts.sent));
        parts.unread.into_iter().rev().for_each(|buf| stream.unread(buf));
        if !parts.unsent.is_empty() {
            stream.with(|slot| {
                slot.queues().out = parts.unsent;
                core.flush_later(stream.slot, slot);
            });
        }
        Ok(stream)
    }
}

/// Whether so many connections are free. If they get scarce, the longest idle ones are asked to close, and leave their
/// places a little later.
pub fn make_room(count: usize) -> bool {
    let core = core::current();
    core.make_room() && core.counts().free >= count
}
