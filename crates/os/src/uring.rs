//! io_uring: operations are queued, all of them are given to the kernel by the call that waits, and their results are
//! read from a queue.
//!
//! Received bytes come in buffers that were lent to the kernel before; each that comes back is replaced by another.

use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

/// The most memory pieces that one [`Message`] sends.
pub const PIECES: usize = 16;
/// The only group of lent buffers.
const GROUP: u16 = 0;
/// Entries of the queue of operations.
const ENTRIES: u32 = 1024;

/// A ring.
pub struct Ring {
    ring: IoUring,
    lent: Lent,
}

/// Whether the kernel allows a ring and all that [`Ring`] needs of it. It is asked once: a master asks at each reload,
/// and the page that the buffer ring lies in stays mapped.
pub fn probe() -> io::Result<()> {
    static ANSWER: OnceLock<Option<i32>> = OnceLock::new();
    // The kernel's buffer rings are whole pages; what is lent here is never filled.
    let ask = || Ring::new(vec![vec![0; 1].into()]).err().map(|error| error.raw_os_error().unwrap_or(libc::ENOSYS));
    ANSWER.get_or_init(ask).map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
}

/// A result.
pub struct Completion {
    /// The number given with the operation.
    pub token: u64,
    /// What the call would have returned, or a negative error number.
    pub result: i32,
    /// More results of this operation will follow.
    pub more: bool,
    /// The memory, with `result` bytes received at its start.
    pub memory: Option<Box<[u8]>>,
}

/// Pieces of memory to be sent together, in the kernel's form.
pub struct Message {
    header: libc::msghdr,
    slices: [libc::iovec; PIECES],
}

impl Ring {
    /// A ring that has lent these buffers, a power of two of them, all of one size, to the kernel.
    pub fn new(buffers: Vec<Box<[u8]>>) -> io::Result<Ring> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(ENTRIES * 8)
            .build(ENTRIES)?;
        let lent = Lent::new(buffers)?;
        // SAFETY: the ring of buffers is page-aligned, holds that many entries, and lives until after the io_uring
        // is closed: `Drop` never frees it.
        unsafe { ring.submitter().register_buf_ring_with_flags(lent.start.as_ptr() as u64, lent.count(), GROUP, 0)? };
        Ok(Ring { ring, lent })
    }

    /// Waits for poll events: once, or, with `multi`, at each change.
    pub fn poll(&mut self, fd: RawFd, bits: u32, multi: bool, token: u64) {
        self.push(opcode::PollAdd::new(Fd(fd), bits).multi(multi).build().user_data(token));
    }

    /// Receives into lent buffers, again and again, until the peer's end, an error or a cancel.
    pub fn recv(&mut self, fd: RawFd, token: u64) {
        self.push(opcode::RecvMulti::new(Fd(fd), GROUP).build().user_data(token));
    }

    /// Ends the operations with this token early. They still complete; the cancel itself yields `own_token`.
    pub fn cancel(&mut self, token: u64, own_token: u64) {
        self.push(opcode::AsyncCancel::new(token).build().user_data(own_token));
    }

    /// Sends bytes.
    ///
    /// # Safety
    /// They have to stay where they are, unchanged, until the completion has been read.
    pub unsafe fn send(&mut self, fd: RawFd, bytes: &[u8], token: u64) {
        let len = bytes.len().min(i32::MAX as usize) as u32;
        let op = opcode::Send::new(Fd(fd), bytes.as_ptr(), len).flags(libc::MSG_NOSIGNAL);
        self.push(op.build().user_data(token));
    }

    /// Sends a message.
    ///
    /// # Safety
    /// The message and the memory it names have to stay where they are, unchanged, until the completion has been read.
    pub unsafe fn send_message(&mut self, fd: RawFd, message: &Message, token: u64) {
        let op = opcode::SendMsg::new(Fd(fd), &message.header).flags(libc::MSG_NOSIGNAL as u32);
        self.push(op.build().user_data(token));
    }

    fn push(&mut self, op: squeue::Entry) {
        // SAFETY: the memory that `op` names is kept by the contracts of `send` and `send_message`; other operations
        // name none.
        while unsafe { self.ring.submission().push(&op) }.is_err() {
            // No room: the kernel takes what is queued. If it can't (EBUSY: results wait to be read), they are
            // flushed to the result queue's overflow list, so this ends.
            let _ = self.ring.submit();
        }
    }

    /// Gives what is queued to the kernel and waits up to `timeout_ms` (`None`: without end) for a result.
    pub fn wait(&mut self, timeout_ms: Option<u64>) -> io::Result<()> {
        let time = timeout_ms.map(|ms| Timespec::new().sec(ms / 1000).nsec((ms % 1000 * 1_000_000) as u32));
        let args = match &time {
            Some(time) => SubmitArgs::new().timespec(time),
            None => SubmitArgs::new(),
        };
        match self.ring.submitter().submit_with_args(1, &args) {
            Ok(_) => Ok(()),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// The next result; `replace` makes another buffer of the same size for one that comes back.
    pub fn next(&mut self, replace: impl FnOnce() -> Box<[u8]>) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        let memory = cqueue::buffer_select(entry.flags()).map(|n| self.lent.exchange(n, replace()));
        let more = cqueue::more(entry.flags());
        Some(Completion { token: entry.user_data(), result: entry.result(), more, memory })
    }
}

/// The buffers that are with the kernel, and the ring through which it takes them.
struct Lent {
    start: NonNull<BufRingEntry>,
    buffers: Vec<NonNull<[u8]>>,
    tail: u16,
    /// How many there are, a power of two.
    entries: usize,
    /// The size of each in bytes.
    size: usize,
}

impl Lent {
    fn new(buffers: Vec<Box<[u8]>>) -> io::Result<Lent> {
        let size = buffers.first().map_or(0, |b| b.len());
        if !buffers.len().is_power_of_two() || buffers.len() > 1 << 15 || buffers.iter().any(|b| b.len() != size) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let start = crate::memory::map_shared(buffers.len() * size_of::<BufRingEntry>())?.cast();
        let mut lent = Lent { start, buffers: Vec::new(), tail: 0, entries: buffers.len(), size };
        for (n, memory) in buffers.into_iter().enumerate() {
            let memory = lend(memory);
            lent.buffers.push(memory);
            lent.offer(n as u16, memory, n as u16);
        }
        lent.publish(lent.count());
        Ok(lent)
    }

    fn count(&self) -> u16 {
        self.buffers.len() as u16
    }

    /// Takes a buffer back that the kernel has filled, and lends another in its place.
    fn exchange(&mut self, n: u16, other: Box<[u8]>) -> Box<[u8]> {
        assert_eq!(other.len(), self.size, "lent buffers are of one size");
        let other = lend(other);
        let memory = std::mem::replace(&mut self.buffers[usize::from(n)], other);
        self.offer(n, other, self.tail);
        self.publish(self.tail.wrapping_add(1));
        // SAFETY: it came from `Box::into_raw` in `lend`, the kernel has given it back with this completion, and the
        // list names it no more.
        unsafe { Box::from_raw(memory.as_ptr()) }
    }

    /// Writes an entry of the ring.
    fn offer(&mut self, n: u16, memory: NonNull<[u8]>, at: u16) {
        let at = usize::from(at) & (self.entries - 1);
        // SAFETY: `at` is below the number of entries, for which the mapping has room; the kernel reads an entry only
        // once the tail has passed it, which `publish` sees to afterwards. Fields are written one by one, since the
        // first entry's last field is the tail.
        unsafe {
            let entry = self.start.add(at).as_mut();
            entry.set_addr(memory.as_ptr().cast::<u8>() as u64);
            entry.set_len(self.size as u32);
            entry.set_bid(n);
        }
    }

    fn publish(&mut self, tail: u16) {
        self.tail = tail;
        // SAFETY: the tail lies inside the mapping; the kernel reads it atomically, and what the entries hold has to be
        // seen before it.
        unsafe {
            let place = BufRingEntry::tail(self.start.as_ptr()).cast_mut();
            AtomicU16::from_ptr(place).store(tail, Ordering::Release);
        }
    }
}

fn lend(memory: Box<[u8]>) -> NonNull<[u8]> {
    NonNull::from(Box::leak(memory))
}

impl Message {
    /// A message of these pieces, [`PIECES`] at most; further ones are left out.
    pub fn new<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Box<Message> {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: `msghdr` is plain old data, for which all zeroes is a value.
        let header = unsafe { std::mem::zeroed() };
        let mut message = Box::new(Message { header, slices: [empty; PIECES] });
        for (slice, piece) in message.slices.iter_mut().zip(pieces) {
            *slice = libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() };
            message.header.msg_iovlen += 1;
        }
        message.header.msg_iov = message.slices.as_mut_ptr();
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    fn buffer() -> Box<[u8]> {
        vec![0; 64].into()
    }

    #[test]
    fn sends_and_receives_again_and_again() {
        let Ok(mut ring) = Ring::new((0..4).map(|_| buffer()).collect()) else { return };
        let (a, b) = std::os::unix::net::UnixStream::pair().expect("pair");
        ring.recv(b.as_raw_fd(), 1);
        for round in 0..20 {
            let text = format!("round {round}");
            let message = Message::new([&text.as_bytes()[..3], &text.as_bytes()[3..]].into_iter());
            // SAFETY: both live until the end of the round, in which the completion is read.
            unsafe { ring.send_message(a.as_raw_fd(), &message, 2) };
            let (mut sent, mut got) = (false, None);
            while !sent || got.is_none() {
                ring.wait(Some(1000)).expect("wait");
                while let Some(done) = ring.next(buffer) {
                    match done.token {
                        1 => got = Some((done.more, done.memory.expect("a buffer")[..done.result as usize].to_vec())),
                        _ => sent = done.result as usize == text.len(),
                    }
                }
            }
            assert_eq!(got, Some((true, text.into_bytes())));
        }
        ring.cancel(1, 3);
        let mut results = Vec::new();
        while results.len() < 2 {
            ring.wait(Some(1000)).expect("wait");
            while let Some(done) = ring.next(buffer) {
                results.push((done.token, done.result, done.more));
            }
        }
        results.sort();
        assert_eq!(results, [(1, -libc::ECANCELED, false), (3, 0, false)]);
        assert!(ring.wait(Some(1)).is_ok() && ring.next(buffer).is_none());
    }
}
