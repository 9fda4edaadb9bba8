//! What the owner of a connection tells it to do.

use std::fmt;

use buf::{Buf, Chain};

use super::budget::GAIN_RESPONSE;
use super::connection::{BlockTarget, Connection, Role};
use super::error::Code;
use super::frame::{
    FRAME_HEADER_LEN, FrameHeader, Kind, MAX_WINDOW, flag, write_block, write_frame, write_go_away, write_ping,
    write_window_update,
};
use super::priority::Priority;
use super::stream::{SendStage, State, Stream, StreamKey, Tail};
use crate::h1::KnownHeader;
use crate::hpack::{Encoder, Indexing};

/// How many bytes of frames may be queued with the bodies that [`Connection::send_small`] writes: as many as the largest
/// buffer has that is kept for the next use.
const MAX_SMALL_OUT: usize = 128 << 10;

/// Why a command for a stream wasn't carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The stream is gone: reset by one of the sides, or over.
    Gone,
    /// The order was wrong: a second head, a body before the head, anything after the end.
    Misuse,
}

/// Why no stream could be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The server allows no more streams at once: later.
    TooMany,
    /// No more streams on this connection: it has ended, is going away, or has used all numbers.
    Closing,
    /// A server opens no streams.
    Misuse,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Gone => "the stream is gone",
            SendError::Misuse => "the stream is in another state",
        })
    }
}

/// Writes the fields of a head or of trailers, in the order in which they shall arrive.
pub struct HeadWriter<'a> {
    encoder: &'a mut Encoder,
    out: &'a mut Buf,
    /// The block will be sent later, and other blocks before it: the dynamic table is out of bounds.
    apart: bool,
}

impl HeadWriter<'_> {
    /// `:status` of a response; comes first.
    pub fn status(&mut self, status: u16) {
        self.encoder.status(status, self.out);
    }

    /// As [`HeadWriter::field`], for a known name.
    pub fn known(&mut self, known: KnownHeader, value: &[u8], indexing: Indexing) {
        self.encoder.known(known, value, self.here(indexing), self.out);
    }

    /// A field, or a pseudo-header of a request, which come first. Capitals of the name become small letters.
    pub fn field(&mut self, name: &[u8], value: &[u8], indexing: Indexing) {
        self.encoder.field(name, value, self.here(indexing), self.out);
    }

    fn here(&self, indexing: Indexing) -> Indexing {
        if self.apart && indexing == Indexing::Incremental { Indexing::Without } else { indexing }
    }
}

/// Sending on a stream.
impl Connection {
    /// Opens a stream with a request's head. `write` gives `:method`, `:scheme`, `:authority`, `:path` and the fields.
    pub fn open(&mut self, end_stream: bool, write: impl FnOnce(&mut HeadWriter<'_>)) -> Result<StreamKey, OpenError> {
        match () {
            () if self.role == Role::Server => return Err(OpenError::Misuse),
            () if self.error.is_some() || self.is_going_away() || self.next_own > MAX_WINDOW => {
                return Err(OpenError::Closing);
            }
            () if self.streams.len() >= self.peer.max_concurrent_streams as usize => return Err(OpenError::TooMany),
            () => {}
        }
        let id = self.next_own;
        self.next_own += 2;
        self.write_head(id, end_stream, write);
        let receiving = self.new_receiving(None, true);
        let state = if end_stream {
            State::LocalClosed(receiving)
        } else {
            State::Open(receiving, self.new_sending(SendStage::Body))
        };
        let priority = Priority::default();
        Ok(self.streams.insert(Stream { id, state, priority, reset_when_sent: None, reported: false }))
    }

    /// Queues the head of a response. With `end_stream` neither body nor trailers follow.
    pub fn send_head(
        &mut self,
        key: StreamKey,
        end_stream: bool,
        write: impl FnOnce(&mut HeadWriter<'_>),
    ) -> Result<(), SendError> {
        match &mut self.sending(key)?.stage {
            stage @ SendStage::Head => *stage = SendStage::Body,
            _ => return Err(SendError::Misuse),
        }
        self.write_head(key.id(), end_stream, write);
        if end_stream {
            self.end_local(key);
        }
        Ok(())
    }

    /// Queues a head before the final one: 103 Early Hints and the like.
    pub fn send_interim_head(
        &mut self,
        key: StreamKey,
        write: impl FnOnce(&mut HeadWriter<'_>),
    ) -> Result<(), SendError> {
        if !matches!(self.sending(key)?.stage, SendStage::Head) {
            return Err(SendError::Misuse);
        }
        self.write_head(key.id(), false, write);
        Ok(())
    }

    /// Queues a part of the body; with `end_stream` the last one. It goes out as windows and priorities allow: how
    /// much waits is [`Connection::queued`], and bounding that is the caller's.
    pub fn send_data(&mut self, key: StreamKey, mut body: Chain, end_stream: bool) -> Result<(), SendError> {
        let sending = self.sending(key)?;
        if !matches!(sending.stage, SendStage::Body) {
            return Err(SendError::Misuse);
        }
        let length = body.len();
        sending.queue.append(&mut body);
        if !sending.queue.is_empty() {
            if end_stream {
                sending.stage = SendStage::Last(Tail::End);
            }
            self.queued += length;
            self.place(key);
        } else if end_stream {
            write_frame(&mut self.out, Kind::Data, flag::END_STREAM, key.id(), &[]);
            self.end_local(key);
        }
        Ok(())
    }

    /// Writes a whole body after what is queued of frames, without queueing it, if no stream waits for its turn and the
    /// windows have room for it; `write` fills it in. False: it is to be queued, by [`Connection::send_data`].
    ///
    /// Such a body goes out with its head. It comes before what a more urgent stream may send later on, but is no longer
    /// than a part of a body that was taken for sending just now.
    pub fn send_small<E>(
        &mut self,
        key: StreamKey,
        length: usize,
        write: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        let most_out = MAX_SMALL_OUT.saturating_sub(self.out.len() + FRAME_HEADER_LEN);
        let window = self.send_window.min(i64::from(self.peer.max_frame_size));
        let is_first = self.ready.first().is_none();
        let Ok(sending) = self.sending(key) else { return Ok(false) };
        let most = window.min(sending.window).min(i64::from(sending.chunk));
        let fits = length > 0 && length <= most_out && length as i64 <= most;
        if !is_first || !fits || !matches!(sending.stage, SendStage::Body) || !sending.queue.is_empty() {
            return Ok(false);
        }
        let header = FrameHeader { length: length as u32, kind: Kind::Data, flags: flag::END_STREAM, stream: key.id() };
        self.out.reserve(FRAME_HEADER_LEN + length);
        let (head, rest) = self.out.room_mut().split_at_mut(FRAME_HEADER_LEN);
        write(&mut rest[..length])?;
        head.copy_from_slice(&header.bytes());
        self.out.filled(FRAME_HEADER_LEN + length);
        self.send_window -= length as i64;
        self.budget.give_for_data(length as u32, self.config.flood_budget);
        self.end_half(key);
        Ok(true)
    }

    /// Queues trailers, which end the stream, after what is queued of the body; how many bytes they are.
    pub fn send_trailers(&mut self, key: StreamKey, write: impl FnOnce(&mut HeadWriter<'_>)) -> Result<u64, SendError> {
        let sending = self.sending(key)?;
        if !matches!(sending.stage, SendStage::Body) {
            return Err(SendError::Misuse);
        }
        if sending.queue.is_empty() {
            let before = self.out.len();
            self.write_head(key.id(), true, write);
            let length = self.out.len() - before;
            self.end_local(key);
            return Ok(length as u64);
        }
        let mut block = Buf::empty();
        write(&mut HeadWriter { encoder: &mut Encoder::new(), out: &mut block, apart: true });
        let length = FRAME_HEADER_LEN + block.len();
        sending.stage = SendStage::Last(Tail::Trailers(block));
        Ok(length as u64)
    }

    /// Ends a stream at once, and drops what is queued for it.
    pub fn reset(&mut self, key: StreamKey, code: Code) {
        self.reset_now(key, code);
    }

    /// Ends a stream once everything queued is sent, if the peer hasn't ended its half by then. With
    /// [`Code::NO_ERROR`] a server says that it doesn't need the rest of a request (RFC 9113 §8.1).
    pub fn reset_when_sent(&mut self, key: StreamKey, code: Code) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        match &stream.state {
            State::LocalClosed(_) => self.reset_now(key, code),
            _ => stream.reset_when_sent = Some(code),
        }
    }

    /// The largest DATA to send on a stream: `http2_chunk_size` of its location.
    pub fn set_chunk_size(&mut self, key: StreamKey, size: u32) {
        if let Ok(sending) = self.sending(key) {
            sending.chunk = size.max(1);
        }
    }

    /// Sets a stream's priority, as a response's Priority header may.
    pub fn set_priority(&mut self, key: StreamKey, priority: Priority) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.priority = priority;
        self.replace(key);
    }

    fn sending(&mut self, key: StreamKey) -> Result<&mut super::stream::Sending, SendError> {
        let stream = self.streams.get_mut(key).ok_or(SendError::Gone)?;
        stream.sending().ok_or(SendError::Misuse)
    }
}

/// Receiving on a stream.
impl Connection {
    /// Lets the peer send `n` more bytes on a stream: those of [`super::Event::Data`] that have been consumed, or more,
    /// to open a window that was small at first. WINDOW_UPDATE goes out once it is worth a frame.
    pub fn release(&mut self, key: StreamKey, n: u32) {
        let receiving = self.streams.get_mut(key).and_then(Stream::receiving);
        let Some(receiving) = receiving.filter(|receiving| !receiving.discard) else { return };
        let room = i64::from(MAX_WINDOW) - receiving.window;
        receiving.owed = i64::from(receiving.owed.saturating_add(n)).min(room) as u32;
        let owed = i64::from(receiving.owed);
        if owed > 0 && owed >= receiving.window {
            receiving.window += owed;
            receiving.owed = 0;
            write_window_update(&mut self.out, key.id(), owed as u32);
        }
    }

    /// How many bytes the peer may send on a stream before more are released.
    pub fn receive_window(&self, key: StreamKey) -> u32 {
        match self.streams.get(key).map(|stream| &stream.state) {
            Some(State::Open(receiving, _) | State::LocalClosed(receiving)) => receiving.window as u32,
            _ => 0,
        }
    }

    /// Drops what is still to come of a body. Its window isn't opened any more.
    pub fn discard_body(&mut self, key: StreamKey) {
        if let Some(receiving) = self.streams.get_mut(key).and_then(Stream::receiving) {
            receiving.discard = true;
        }
    }
}

/// The connection as a whole.
impl Connection {
    /// Queues a PING; the answer is [`super::Event::Pong`].
    pub fn ping(&mut self, data: [u8; 8]) {
        write_ping(&mut self.out, false, data);
    }

    /// Queues GOAWAY: streams that have been opened go on, new ones are ignored. The connection can be closed when
    /// [`Connection::streams`] is 0 and everything is transmitted. A second time with another code than
    /// [`Code::NO_ERROR`] says why it ends now.
    pub fn go_away(&mut self, code: Code) {
        if self.go_away_sent && code == Code::NO_ERROR {
            return;
        }
        self.go_away_sent = true;
        write_go_away(&mut self.out, self.last_peer, code);
    }

    /// Gives up the request whose header block isn't complete (nginx's `client_header_timeout`): its stream is reset, the
    /// rest is only decoded. Whether there was one.
    pub fn abandon_head(&mut self) -> bool {
        let Some(block) = &mut self.block else { return false };
        let BlockTarget::Request(id) = block.target else { return false };
        block.target = BlockTarget::Discard;
        self.refuse_stream(id, Code::PROTOCOL_ERROR);
        true
    }
}

impl Connection {
    /// We have sent everything on a stream: its owner is to know.
    pub(super) fn end_local(&mut self, key: StreamKey) {
        if self.end_half(key) {
            self.report(key);
        }
    }

    /// We have sent everything on a stream; whether there is such a stream.
    fn end_half(&mut self, key: StreamKey) -> bool {
        let Some(stream) = self.streams.get_mut(key) else { return false };
        stream.state.local_end();
        let reset = stream.reset_when_sent.take();
        match (&stream.state, reset) {
            (State::Closed, _) => drop(self.drop_stream(key)),
            (_, Some(code)) => self.reset_now(key, code),
            _ => {}
        }
        self.budget.give(GAIN_RESPONSE, self.config.flood_budget);
        true
    }

    /// Puts a stream on the list of those whose queue is empty.
    pub(super) fn report(&mut self, key: StreamKey) {
        let reported = self.streams.get_mut(key).is_some_and(|stream| std::mem::replace(&mut stream.reported, true));
        if !reported {
            self.drained.push(key);
        }
    }

    /// Encodes a block after everything that is queued.
    fn write_head(&mut self, id: u32, end_stream: bool, write: impl FnOnce(&mut HeadWriter<'_>)) {
        self.prepare_out();
        let start = self.out.len();
        self.out.extend_from_slice(&[0; FRAME_HEADER_LEN]);
        self.encoder.begin(&mut self.out);
        write(&mut HeadWriter { encoder: &mut self.encoder, out: &mut self.out, apart: false });
        let length = self.out.len() - start - FRAME_HEADER_LEN;
        if length > self.peer.max_frame_size as usize {
            let block = self.out[start + FRAME_HEADER_LEN..].to_vec();
            let mut before = Buf::with_capacity(self.out.len() + 64);
            before.extend_from_slice(&self.out[..start]);
            self.out = before;
            return write_block(&mut self.out, self.peer.max_frame_size, id, end_stream, &block);
        }
        let flags = flag::END_HEADERS | if end_stream { flag::END_STREAM } else { 0 };
        let header = FrameHeader { length: length as u32, kind: Kind::Headers, flags, stream: id };
        self.out.as_mut_slice()[start..start + FRAME_HEADER_LEN].copy_from_slice(&header.bytes());
    }

    /// Writes trailers that were encoded apart; changes of the table's size are still told in the first block there is.
    pub(super) fn write_trailers(&mut self, id: u32, block: &[u8]) {
        let mut whole = Buf::empty();
        self.encoder.begin(&mut whole);
        if whole.is_empty() {
            return write_block(&mut self.out, self.peer.max_frame_size, id, true, block);
        }
        whole.extend_from_slice(block);
        write_block(&mut self.out, self.peer.max_frame_size, id, true, &whole);
    }
}
