//! A layer between a connection's bytes and its users: TLS.
//!
//! With a layer set, everything that is received and sent through a [`Stream`] is plaintext; what the kernel sees is the
//! layer's. Without one a connection pays a single test. The layer's state is kept beside the slots, in a box that
//! only such connections have; while they are idle it holds no buffers.

use std::any::Any;
use std::io;
use std::os::fd::AsRawFd;
use std::task::{Poll, ready};

use buf::{Buf, Chain, Piece};

use crate::core::Core;
use crate::slots::flag;
use crate::stream::{Stream, Tried};

/// What turns plaintext into what goes over the wire, and back.
pub trait Layer: Any {
    /// Takes over what came from the peer; what isn't whole yet it keeps. Plaintext is appended to `plain`, what the peer
    /// is to be sent at once to `out`. True: the peer has said that it sends no more. After an error nothing more is
    /// received or sent.
    fn receive(&mut self, input: Buf, plain: &mut Buf, out: &mut Buf) -> io::Result<bool>;

    /// Appends what `plain` looks like on the wire.
    fn send(&mut self, plain: &[u8], out: &mut Buf) -> io::Result<()>;

    /// Appends what tells the peer that no more comes.
    fn close(&mut self, out: &mut Buf);

    /// How many bytes of plaintext make a record.
    fn record(&self) -> usize;

    /// Whether its state can leave for another process now.
    fn can_leave(&self) -> bool;

    /// Itself, to be asked for more by those who know its type.
    fn as_any(&self) -> &dyn Any;

    /// The same, for good.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// A layer apart from its connection, and what waited on either side of it.
pub struct DetachedLayer {
    /// The layer.
    pub layer: Box<dyn Layer>,
    /// Received, and not seen by the layer: comes after what that has kept, and goes before what the connection has
    /// unread.
    pub input: Buf,
    /// Plaintext that was given back.
    pub unread: Option<Buf>,
    /// Plaintext taken over for sending: comes after what the connection has unsent.
    pub unsent: Chain,
    /// Plaintext received so far, what is in `unread` included.
    pub received: u64,
    /// Plaintext sent so far, without what is in `unsent`.
    pub sent: u64,
}

/// A layer with what waits on either side of it.
pub(crate) struct Layered {
    layer: Box<dyn Layer>,
    /// Received, but not by the layer.
    input: Buf,
    /// Plaintext given back by the reader.
    unread: Option<Buf>,
    /// What has failed after plaintext that was read.
    error: Option<io::Error>,
    /// Plaintext taken over for sending.
    out: Chain,
    /// The peer sends no more.
    ended: bool,
    /// The end was sent.
    closed: bool,
    sent: u64,
    received: u64,
}

/// How much plaintext is turned into one buffer: with what records add it fits into 64 KiB.
const STEP: usize = 48 << 10;
/// How much one poll sends before others have their turn.
const SHARE: usize = 1 << 20;
/// The least that is asked of the kernel when reading.
const MIN_READ: usize = 4096;
/// What records add to a step at most: with records of 1 KiB and TLS 1.2 about 40 bytes each.
const OVERHEAD: usize = 64;

impl Stream {
    /// Puts a layer on the connection, which has opened `plain` already; `ended`: by what it has seen, the peer sends no more.
    pub fn set_layer(&self, layer: Box<dyn Layer>, plain: Buf, ended: bool) {
        let (input, unsent, received) = (Buf::empty(), Chain::new(), plain.len() as u64);
        let unread = (!plain.is_empty()).then_some(plain);
        self.attach_layer(DetachedLayer { layer, input, unread, unsent, received, sent: 0 });
        self.layered(|layered| layered.ended = ended);
    }

    /// Whether the connection can be detached, with its layer if it has one, and nothing gets lost.
    pub fn can_leave(&self) -> bool {
        !self.is_layered() || self.layered(|layered| layered.can_leave())
    }

    /// Takes the layer off, for it to go on elsewhere; the peer isn't told.
    pub fn detach_layer(&self) -> Option<DetachedLayer> {
        if !self.is_layered() {
            return None;
        }
        self.mark_layered(false);
        let layered = self.core().layers.borrow_mut().get_mut(self.slot() as usize).and_then(Option::take)?;
        let Layered { layer, input, unread, out, sent, received, .. } = *layered;
        Some(DetachedLayer { layer, input, unread, unsent: out, received, sent })
    }

    /// Puts a layer on the connection that was on one before: what was unread is read first, what was unsent goes out
    /// with the next send, before anything else.
    pub fn attach_layer(&self, parts: DetachedLayer) {
        let DetachedLayer { layer, input, unread, unsent, received, sent } = parts;
        let layered =
            Layered { layer, input, unread, error: None, out: unsent, ended: false, closed: false, sent, received };
        let mut layers = self.core().layers.borrow_mut();
        let at = self.slot() as usize;
        if layers.len() <= at {
            layers.resize_with(at + 1, || None);
        }
        layers[at] = Some(Box::new(layered));
        self.mark_layered(true);
    }

    /// Calls `f` with the layer, if there is one.
    pub fn with_layer<T>(&self, f: impl FnOnce(&dyn Layer) -> T) -> Option<T> {
        if !self.is_layered() {
            return None;
        }
        let layers = self.core().layers.borrow();
        let layered = layers.get(self.slot() as usize)?.as_ref()?;
        Some(f(&*layered.layer))
    }

    fn layered<T>(&self, f: impl FnOnce(&mut Layered) -> T) -> T {
        let mut layers = self.core().layers.borrow_mut();
        let layered = layers.get_mut(self.slot() as usize).and_then(Option::as_mut);
        f(layered.expect("a marked connection has its layer"))
    }

    pub(crate) fn layered_recv(&self, size_hint: usize) -> Poll<io::Result<Buf>> {
        self.layered(|layered| layered.recv(self, size_hint))
    }

    pub(crate) fn layered_send(&self, chain: &mut Chain) -> Poll<io::Result<()>> {
        self.layered(|layered| {
            layered.out.append(chain);
            let sent = layered.send(self);
            if let Poll::Ready(Err(_)) = sent {
                layered.out.clear();
                layered.closed = true;
            }
            sent
        })
    }

    pub(crate) fn layered_try_send(&self, bytes: &[u8]) -> io::Result<Tried> {
        self.layered(|layered| {
            if !layered.out.is_empty() || bytes.len() > STEP || !self.sends_at_once() {
                return Ok(Tried::Nothing);
            }
            let tried = layered.try_send(self, bytes);
            layered.closed |= tried.is_err();
            tried
        })
    }

    pub(crate) fn layered_unread(&self, mut buf: Buf) {
        self.layered(|layered| {
            if let Some(earlier) = &layered.unread {
                buf.extend_from_slice(earlier);
            }
            layered.unread = Some(buf);
        });
    }

    pub(crate) fn layered_readable(&self) -> bool {
        self.layered(|layered| layered.is_readable())
    }

    /// Plaintext that waits, plaintext sent, plaintext received.
    pub(crate) fn layered_counts(&self) -> (u64, u64, u64) {
        self.layered(|layered| (layered.out.len(), layered.sent, layered.received))
    }

    /// Tells the peer that no more comes.
    pub(crate) fn layered_close(&self) {
        self.layered(|layered| {
            if let Some(out) = layered.close() {
                let _ = self.raw_send(&mut Chain::from(out.freeze()));
            }
        });
    }

    /// Takes the layer away; the peer is told, if that can be done at once.
    pub(crate) fn drop_layer(&self) {
        self.mark_layered(false);
        let taken = self.core().layers.borrow_mut().get_mut(self.slot() as usize).and_then(Option::take);
        let Some(mut layered) = taken else { return };
        if let Some(out) = layered.close() {
            self.core().send_last(self.slot(), out);
        }
    }
}

impl Layered {
    fn recv(&mut self, stream: &Stream, size_hint: usize) -> Poll<io::Result<Buf>> {
        if let Some(buf) = self.unread.take() {
            return Poll::Ready(Ok(buf));
        }
        if let Some(error) = self.error.take() {
            return self.fail(error);
        }
        loop {
            if self.ended {
                return Poll::Ready(Ok(Buf::empty()));
            }
            let mut input = std::mem::replace(&mut self.input, Buf::empty());
            if input.is_empty() {
                input = ready!(stream.raw_recv(size_hint.max(MIN_READ)))?;
                if input.is_empty() {
                    self.ended = true;
                    continue;
                }
            }
            let (mut plain, mut out) = (Buf::empty(), Buf::empty());
            let result = self.layer.receive(input, &mut plain, &mut out);
            if !out.is_empty() {
                let _ = stream.raw_send(&mut Chain::from(out.freeze()));
            }
            if !plain.is_empty() {
                match result {
                    Ok(ended) => self.ended |= ended,
                    Err(error) => self.error = Some(error),
                }
                self.received += plain.len() as u64;
                return Poll::Ready(Ok(plain));
            }
            match result {
                Ok(ended) => self.ended |= ended,
                Err(error) => return self.fail(error),
            }
        }
    }

    fn fail(&mut self, error: io::Error) -> Poll<io::Result<Buf>> {
        (self.ended, self.closed) = (true, true);
        Poll::Ready(Err(error))
    }

    fn is_readable(&self) -> bool {
        self.unread.is_some() || !self.input.is_empty() || self.ended || self.error.is_some()
    }

    fn send(&mut self, stream: &Stream) -> Poll<io::Result<()>> {
        let mut share = SHARE;
        ready!(stream.raw_send(&mut Chain::new()))?;
        while !self.out.is_empty() {
            if share == 0 {
                stream.core().tasks.wake(stream.core().tasks.running());
                return Poll::Pending;
            }
            let before = self.out.len();
            let out = self.encrypt()?;
            let taken = before - self.out.len();
            self.sent += taken;
            share = share.saturating_sub(taken as usize);
            ready!(stream.raw_send(&mut Chain::from(out.freeze())))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends bytes; nothing waits before them.
    fn try_send(&mut self, stream: &Stream, bytes: &[u8]) -> io::Result<Tried> {
        let mut out = self.room(bytes.len());
        self.layer.send(bytes, &mut out)?;
        self.sent += bytes.len() as u64;
        if let Tried::Sent(n) = stream.raw_try_send(&out)? {
            out.consume(n);
        }
        if out.is_empty() {
            return Ok(Tried::Sent(bytes.len()));
        }
        match stream.raw_send(&mut Chain::from(out.freeze())) {
            Poll::Ready(sent) => sent.map(|()| Tried::Sent(bytes.len())),
            Poll::Pending => Ok(Tried::Taken),
        }
    }

    /// Room for what so many bytes look like on the wire.
    fn room(&self, bytes: usize) -> Buf {
        Buf::with_capacity(bytes + (bytes / self.layer.record().max(1) + 1) * OVERHEAD)
    }

    /// Turns the front of what waits into records.
    fn encrypt(&mut self) -> io::Result<Buf> {
        let record = self.layer.record().max(1);
        let step = (STEP / record).max(1) * record;
        let want = step.min(usize::try_from(self.out.len()).unwrap_or(step));
        let mut out = self.room(want);
        if let Some(Piece::Bytes(bytes)) = self.out.first()
            && let Some(front) = bytes.get(..want)
        {
            self.layer.send(front, &mut out)?;
        } else {
            let mut plain = Buf::with_capacity(want);
            gather(&self.out, want, &mut plain)?;
            self.layer.send(&plain, &mut out)?;
        }
        self.out.advance(want as u64);
        Ok(out)
    }

    /// What is over, or about to be, ends where it is.
    fn can_leave(&self) -> bool {
        !self.ended && !self.closed && self.error.is_none() && self.layer.can_leave()
    }

    fn close(&mut self) -> Option<Buf> {
        if std::mem::replace(&mut self.closed, true) || !self.out.is_empty() {
            return None;
        }
        let mut out = Buf::empty();
        self.layer.close(&mut out);
        (!out.is_empty()).then_some(out)
    }
}

/// Copies the first `want` bytes of a chain; files are read.
fn gather(chain: &Chain, want: usize, plain: &mut Buf) -> io::Result<()> {
    for piece in chain.pieces() {
        let left = want - plain.len();
        match piece {
            Piece::Bytes(bytes) => plain.extend_from_slice(&bytes[..bytes.len().min(left)]),
            Piece::File(range) => {
                let end = usize::try_from(range.len).unwrap_or(left).min(left);
                let mut done = 0;
                while done < end {
                    let room = &mut plain.room_mut()[..end - done];
                    let n = os::io::pread(range.file.as_raw_fd(), room, range.offset + done as u64)?;
                    if n == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    plain.filled(n);
                    done += n;
                }
            }
        }
        if plain.len() == want {
            break;
        }
    }
    Ok(())
}

impl Core {
    /// Sends bytes before a connection is closed, if nothing waits before them and the kernel takes them at once.
    fn send_last(&self, n: u32, out: Buf) {
        if self.ring && self.backend.borrow_mut().uring().is_some_and(|uring| uring.is_sending(n)) {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let slot = slots.at(n);
        let waits = slot.queues.as_ref().is_some_and(|queues| !queues.out.is_empty() || queues.error.is_some());
        if waits || !slot.has(flag::WRITABLE) || slot.has(flag::HUP | flag::ERR) {
            return;
        }
        let mut chain = Chain::from(out.freeze());
        let _ = if self.is_sim {
            self.write(n, slot, &mut chain).map(|_| ())
        } else {
            crate::send::write_chain(slot.fd.as_ref().map_or(-1, |fd| fd.as_raw_fd()), &mut chain, false).map(|_| ())
        };
    }
}
