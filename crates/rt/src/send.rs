//! Writing a chain to a connection.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};

use buf::{Buf, Bytes, Chain, FileRange, Piece};

use crate::core::Core;
use crate::slots::{Slot, flag};
use crate::tasks::NONE;
use crate::timers::Tick;

/// How far a write came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrote {
    /// The chain is empty.
    All,
    /// The kernel takes no more now.
    Blocked,
    /// The kernel would take more, but others are to have their turn.
    Share,
}

/// How many bytes of a file one turn sends for one connection (nginx: `sendfile_max_chunk 2m`).
const SHARE: u64 = 2 << 20;
/// Files up to this many bytes are read instead.
const SMALL: u64 = 8 << 10;
/// How many pieces one call sends.
const PIECES: usize = 16;

impl Core {
    /// Writes as much of `chain` as the kernel takes now, and counts it.
    pub(crate) fn write(&self, n: u32, slot: &mut Slot, chain: &mut Chain) -> io::Result<Wrote> {
        slot.before_write();
        let before = chain.len();
        let fd = slot.fd.as_ref().map_or(-1, |fd| fd.as_raw_fd());
        let wrote = if self.is_sim {
            self.sim(|sim| sim.write(n, chain, self.clock.now()))
        } else {
            write_chain(fd, chain, slot.has(flag::NOPUSH))
        };
        let written = before - chain.len();
        slot.sent += written;
        if written > 0 && slot.send_timeout > 0 {
            slot.send_deadline = Tick::after(self.clock.now(), u64::from(slot.send_timeout));
        }
        if let Ok(Wrote::Blocked) = wrote {
            slot.flags &= !flag::WRITABLE;
            if let Some(uring) = self.backend.borrow_mut().uring() {
                uring.want_write(n, slot);
            }
        }
        wrote
    }

    /// Goes on with what waits to be written; the task to poll now, because all is written or never will be.
    #[inline]
    pub(crate) fn write_on(&self, n: u32, slot: &mut Slot) -> u32 {
        // What the ring sends comes first; its end calls again.
        if self.ring && self.backend.borrow_mut().uring().is_some_and(|uring| uring.is_sending(n)) {
            return NONE;
        }
        if slot.queues.as_ref().is_none_or(|q| q.out.is_empty()) {
            return std::mem::replace(&mut slot.send_task, NONE);
        }
        self.write_queued(n, slot)
    }

    fn write_queued(&self, n: u32, slot: &mut Slot) -> u32 {
        let mut queues = slot.queues.take().expect("it was looked at");
        let wrote = self.write(n, slot, &mut queues.out);
        let over = match wrote {
            Ok(Wrote::All) => true,
            Ok(Wrote::Blocked) => false,
            Ok(Wrote::Share) => {
                self.flush_later(n, slot);
                false
            }
            Err(error) => {
                queues.out.clear();
                queues.error = Some(error);
                true
            }
        };
        slot.queues = Some(queues);
        slot.tidy();
        if over { std::mem::replace(&mut slot.send_task, NONE) } else { NONE }
    }

    /// Has the writing go on in the next turn.
    pub(crate) fn flush_later(&self, n: u32, slot: &mut Slot) {
        if !slot.has(flag::FLUSHING) {
            slot.flags |= flag::FLUSHING;
            self.flush.borrow_mut().push(n);
        }
    }
}

/// Reads files that are short into memory: one read, and one write together with the head before it, cost less than
/// a sendfile of its own.
///
/// What can't be read stays a file, so that writing it fails.
pub(crate) fn read_small_files(chain: &mut Chain) {
    let small = |piece: &Piece| matches!(piece, Piece::File(range) if range.len <= SMALL);
    if !chain.pieces().iter().any(small) {
        return;
    }
    let mut read = Chain::new();
    while let Some(piece) = chain.pop() {
        read.push(match &piece {
            Piece::File(range) if range.len <= SMALL => read_whole(range).map_or(piece, Piece::Bytes),
            _ => piece,
        });
    }
    *chain = read;
}

fn read_whole(range: &FileRange) -> Option<Bytes> {
    let len = range.len as usize;
    let mut buf = Buf::with_capacity(len);
    let n = os::io::pread(range.file.as_raw_fd(), &mut buf.room_mut()[..len], range.offset).ok()?;
    buf.filled(n);
    (n == len).then(|| buf.freeze())
}

/// Writes memory by send or sendmsg and files by sendfile, until the chain is empty or the kernel takes no more.
/// `nopush` holds memory back for the file behind it.
pub(crate) fn write_chain(fd: RawFd, chain: &mut Chain, nopush: bool) -> io::Result<Wrote> {
    let mut share = SHARE;
    while let Some(first) = chain.first() {
        let (asked, wrote) = match first {
            Piece::Bytes(_) => write_memory(fd, chain, nopush),
            Piece::File(range) => {
                let asked = range.len.min(share);
                (asked, os::io::sendfile(fd, &range.file, range.offset, asked as usize))
            }
        };
        let file = matches!(first, Piece::File(_));
        match wrote {
            Ok(0) if file => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                chain.advance(n as u64);
                // A short write of memory means that the buffer is full; a file may also have come short by itself.
                if (n as u64) < asked && !file {
                    return Ok(Wrote::Blocked);
                }
                if file {
                    share -= n as u64;
                }
                if share == 0 && !chain.is_empty() {
                    return Ok(Wrote::Share);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Wrote::Blocked),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Wrote::All)
}

/// Writes the memory at the front of the chain: how many bytes that is, and how many were written.
fn write_memory(fd: RawFd, chain: &Chain, nopush: bool) -> (u64, io::Result<usize>) {
    let pieces = chain.pieces();
    if let [Piece::Bytes(only), rest @ ..] = pieces
        && !matches!(rest.first(), Some(Piece::Bytes(_)))
    {
        // A file behind it fills the packet up only where that is asked for, since it costs more than it saves.
        return (only.len() as u64, os::io::send(fd, only, nopush && !rest.is_empty()));
    }
    let mut slices = [IoSlice::new(&[]); PIECES];
    let (mut count, mut len) = (0, 0);
    for (slice, piece) in slices.iter_mut().zip(pieces) {
        let Piece::Bytes(bytes) = piece else { break };
        *slice = IoSlice::new(bytes);
        count += 1;
        len += bytes.len() as u64;
    }
    // Further memory is to fill the packet up, too.
    let more = pieces.get(count).is_some_and(|next| nopush || matches!(next, Piece::Bytes(_)));
    (len, os::io::send_vectored(fd, &slices[..count], more))
}
