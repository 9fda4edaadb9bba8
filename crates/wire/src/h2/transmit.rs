//! What goes out next.

use buf::{Buf, Bytes, Chain, Piece};
use smallvec::SmallVec;

use super::connection::Connection;
use super::frame::{FrameHeader, Kind, flag};
use super::priority::Place;
use super::stream::{SendStage, Stream, StreamKey, Tail};

/// Bodies up to this size are copied after their frame's header: cheaper than a piece of their own.
const COPY: u64 = 1024;

/// Bodies of DATA, each with the offset in `out` at which it belongs.
type Cuts = SmallVec<[(usize, Chain); 4]>;

impl Connection {
    /// Takes the next bytes to send, in the order in which they must be sent: everything but DATA, and then DATA until
    /// there are `max` bytes or more, the windows are used up, or nothing is queued.
    ///
    /// What was taken counts as sent: keep `max` small (some 64 KiB), so that a stream of higher urgency, or the answer to a PING,
    /// needn't wait long.
    pub fn poll_transmit(&mut self, max: u64) -> Option<Chain> {
        self.answers = 0;
        self.reorder();
        let (mut cuts, mut taken) = (Cuts::new(), 0);
        if self.ready.first().is_some() {
            self.prepare_out();
        }
        while (self.out.len() as u64) + taken < max
            && self.send_window > 0
            && let Some(slot) = self.ready.first()
        {
            taken += self.data_frame(slot, &mut cuts);
        }
        let out = std::mem::replace(&mut self.out, Buf::empty());
        if out.is_empty() {
            return None;
        }
        self.usual_out = out.len().max(self.usual_out * 3 / 4);
        Some(assemble(out.freeze(), cuts))
    }

    /// Makes room for as much as is sent at a time, if there is none.
    pub(super) fn prepare_out(&mut self) {
        if self.out.capacity() == 0 {
            self.out.reserve(self.usual_out);
        }
    }

    /// Whether [`Connection::poll_transmit`] has something to give.
    pub fn wants_transmit(&self) -> bool {
        !self.out.is_empty() || (self.send_window > 0 && self.ready.first().is_some())
    }

    /// Writes the next DATA of a stream, and what follows its last one; how many bytes were put into `cuts`.
    fn data_frame(&mut self, slot: usize, cuts: &mut Cuts) -> u64 {
        let max_frame = i64::from(self.peer.max_frame_size);
        let Some(key) = self.streams.key_in(slot) else { return 0 };
        let Some(sending) = self.streams.get_mut(key).and_then(Stream::sending) else { return 0 };
        let window = sending.window.min(self.send_window);
        let most = window.min(max_frame).min(i64::from(sending.chunk));
        let length = sending.queue.len().min(u64::try_from(most).unwrap_or(0));
        let part = sending.queue.split_to(length);
        sending.window -= length as i64;
        self.send_window -= length as i64;
        self.queued -= length;
        let is_last = sending.queue.is_empty();
        let ends = is_last && matches!(sending.stage, SendStage::Last(Tail::End));
        let tail = match &mut sending.stage {
            SendStage::Last(tail) if is_last => Some(std::mem::replace(tail, Tail::End)),
            _ => None,
        };
        let flags = if ends { flag::END_STREAM } else { 0 };
        let header = FrameHeader { length: length as u32, kind: Kind::Data, flags, stream: key.id() };
        self.out.extend_from_slice(&header.bytes());
        let taken = append(&mut self.out, part, cuts);
        self.budget.give_for_data(length as u32, self.config.flood_budget);
        self.place_again(key);
        match tail {
            Some(tail) => {
                if let Tail::Trailers(block) = &tail {
                    self.write_trailers(key.id(), block);
                }
                self.end_local(key);
            }
            None if is_last => self.report(key),
            None => {}
        }
        taken
    }
}

/// The order of streams.
impl Connection {
    /// Enters a stream among those that can send, or takes it out, as its queue and window are.
    pub(super) fn place(&mut self, key: StreamKey) {
        let Some(sending) = self.streams.get_mut(key).and_then(Stream::sending) else { return };
        match (sending.place, sending.window > 0 && !sending.queue.is_empty()) {
            (None, true) => self.enter(key, None),
            (Some(place), false) => {
                sending.place = None;
                self.ready.remove(place);
            }
            _ => {}
        }
    }

    /// Gives a stream the place that it has after a DATA: others' turn, unless it is to be sent in one go.
    fn place_again(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let takes_turns = stream.priority.incremental || !self.extensible;
        let Some(sending) = stream.sending() else { return };
        let Some(place) = sending.place.take() else { return };
        let can_send = sending.window > 0 && !sending.queue.is_empty();
        self.ready.remove(place);
        if can_send {
            let turn = if takes_turns { None } else { Some(place.turn) };
            let place = self.ready.insert(place.rank, turn, key.slot());
            self.keep_place(key, place);
        }
    }

    /// A stream's rank has changed.
    pub(super) fn replace(&mut self, key: StreamKey) {
        let place = self.streams.get_mut(key).and_then(Stream::sending).and_then(|sending| sending.place.take());
        if let Some(place) = place {
            self.ready.remove(place);
            self.enter(key, Some(place.turn));
        }
    }

    fn enter(&mut self, key: StreamKey, turn: Option<u64>) {
        let Some(stream) = self.streams.get(key) else { return };
        let rank = match self.extensible {
            true => u64::from(stream.priority.urgency),
            false => self.tree.rank(stream.id),
        };
        let place = self.ready.insert(rank, turn, key.slot());
        self.keep_place(key, place);
    }

    fn keep_place(&mut self, key: StreamKey, place: Place) {
        if let Some(sending) = self.streams.get_mut(key).and_then(Stream::sending) {
            sending.place = Some(place);
        }
    }

    /// Ranks anew after dependencies have changed: once per transmission, however many PRIORITY have come.
    fn reorder(&mut self) {
        if !std::mem::take(&mut self.tree_changed) {
            return;
        }
        let slots: SmallVec<[usize; 32]> = self.ready.slots().collect();
        for key in slots.into_iter().filter_map(|slot| self.streams.key_in(slot)).collect::<SmallVec<[StreamKey; 32]>>()
        {
            self.replace(key);
        }
    }
}

/// Appends a body to its frame's header: small ones into `out`, others beside it.
fn append(out: &mut Buf, part: Chain, cuts: &mut Cuts) -> u64 {
    let in_memory = part.pieces().iter().all(|piece| matches!(piece, Piece::Bytes(_)));
    if !in_memory || part.len() > COPY {
        let length = part.len();
        cuts.push((out.len(), part));
        return length;
    }
    for piece in part.pieces() {
        if let Piece::Bytes(bytes) = piece {
            out.extend_from_slice(bytes);
        }
    }
    0
}

/// Puts the bodies between the frames.
fn assemble(out: Bytes, cuts: Cuts) -> Chain {
    let (mut chain, mut at) = (Chain::new(), 0);
    for (offset, mut part) in cuts {
        chain.push_bytes(out.slice(at..offset));
        chain.append(&mut part);
        at = offset;
    }
    chain.push_bytes(out.slice(at..out.len()));
    chain
}
