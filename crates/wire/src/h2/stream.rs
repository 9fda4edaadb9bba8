//! Streams: their states, and the table of those that live.

use buf::{Buf, Chain};
use slab::Slab;

use super::error::Code;
use super::priority::{Place, Priority};

/// Names a stream for as long as the connection lives: a number is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamKey {
    slot: u32,
    id: u32,
}

impl StreamKey {
    /// The stream's number on the wire.
    pub fn id(self) -> u32 {
        self.id
    }
}

/// A stream that isn't closed (RFC 9113 §5.1). One without a half can't use it: there is nothing to call.
#[derive(Debug)]
pub(super) enum State {
    /// Both sides may send.
    Open(Receiving, Sending),
    /// The peer has sent everything.
    RemoteClosed(Sending),
    /// We have sent everything.
    LocalClosed(Receiving),
    /// It is over: about to leave the table.
    Closed,
}

/// The peer's half.
#[derive(Debug)]
pub(super) struct Receiving {
    /// How many bytes the peer may still send.
    pub(super) window: i64,
    /// What the window grows by with the next WINDOW_UPDATE.
    pub(super) owed: u32,
    /// How much of the promised body is missing.
    pub(super) missing: Option<u64>,
    /// A client waits for the final head.
    pub(super) wants_head: bool,
    /// Nobody wants the rest of the body.
    pub(super) discard: bool,
}

impl Receiving {
    /// Takes bytes off the window; false if the peer has sent more than it allows.
    pub(super) fn take(&mut self, bytes: u32) -> bool {
        let fits = i64::from(bytes) <= self.window;
        if fits {
            self.window -= i64::from(bytes);
        }
        fits
    }
}

/// Our half.
#[derive(Debug)]
pub(super) struct Sending {
    /// How many bytes we may send; negative after the peer has lowered its initial window.
    pub(super) window: i64,
    /// The body that waits for windows.
    pub(super) queue: Chain,
    pub(super) stage: SendStage,
    /// The largest DATA.
    pub(super) chunk: u32,
    /// Where it stands among those that can send.
    pub(super) place: Option<Place>,
}

/// How far our half has come.
#[derive(Debug)]
pub(super) enum SendStage {
    /// A head must come first.
    Head,
    /// Body may follow.
    Body,
    /// After the queue comes this.
    Last(Tail),
}

/// What ends our half.
#[derive(Debug)]
pub(super) enum Tail {
    /// The flag of the last DATA.
    End,
    /// Trailers: a header block that doesn't depend on the tables.
    Trailers(Buf),
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) state: State,
    pub(super) priority: Priority,
    /// To be sent when our half is over and the peer's isn't.
    pub(super) reset_when_sent: Option<Code>,
    /// It is in the list of those whose queue has run empty.
    pub(super) reported: bool,
}

impl Stream {
    pub(super) fn receiving(&mut self) -> Option<&mut Receiving> {
        match &mut self.state {
            State::Open(receiving, _) | State::LocalClosed(receiving) => Some(receiving),
            State::RemoteClosed(_) | State::Closed => None,
        }
    }

    pub(super) fn sending(&mut self) -> Option<&mut Sending> {
        match &mut self.state {
            State::Open(_, sending) | State::RemoteClosed(sending) => Some(sending),
            State::LocalClosed(_) | State::Closed => None,
        }
    }
}

impl State {
    /// The peer has sent everything.
    pub(super) fn remote_end(&mut self) {
        *self = match std::mem::replace(self, State::Closed) {
            State::Open(_, sending) | State::RemoteClosed(sending) => State::RemoteClosed(sending),
            State::LocalClosed(_) | State::Closed => State::Closed,
        };
    }

    /// We have sent everything.
    pub(super) fn local_end(&mut self) {
        *self = match std::mem::replace(self, State::Closed) {
            State::Open(receiving, _) | State::LocalClosed(receiving) => State::LocalClosed(receiving),
            State::RemoteClosed(_) | State::Closed => State::Closed,
        };
    }
}

/// The streams that aren't closed, found by key or number.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Slab<Stream>,
    /// Numbers in rising order, with their slots.
    ids: Vec<(u32, u32)>,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Adds a stream whose number is above all others'.
    pub(super) fn insert(&mut self, stream: Stream) -> StreamKey {
        let id = stream.id;
        debug_assert!(self.ids.last().is_none_or(|last| last.0 < id));
        let slot = self.slots.insert(stream) as u32;
        self.ids.push((id, slot));
        StreamKey { slot, id }
    }

    pub(super) fn get(&self, key: StreamKey) -> Option<&Stream> {
        self.slots.get(key.slot as usize).filter(|stream| stream.id == key.id)
    }

    pub(super) fn get_mut(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.slots.get_mut(key.slot as usize).filter(|stream| stream.id == key.id)
    }

    /// The key of a live stream's number.
    pub(super) fn key(&self, id: u32) -> Option<StreamKey> {
        let at = self.ids.binary_search_by_key(&id, |entry| entry.0).ok()?;
        self.ids.get(at).map(|&(id, slot)| StreamKey { slot, id })
    }

    /// The key of whoever is in a slot.
    pub(super) fn key_in(&self, slot: usize) -> Option<StreamKey> {
        self.slots.get(slot).map(|stream| StreamKey { slot: slot as u32, id: stream.id })
    }

    pub(super) fn remove(&mut self, key: StreamKey) -> Option<Stream> {
        self.get(key)?;
        if let Ok(at) = self.ids.binary_search_by_key(&key.id, |entry| entry.0) {
            self.ids.remove(at);
        }
        let stream = self.slots.remove(key.slot as usize);
        if self.slots.is_empty() && self.slots.capacity() > KEEP {
            *self = Streams::default();
        }
        Some(stream)
    }

    /// Keys of all streams, in the order of their numbers.
    pub(super) fn keys(&self) -> impl Iterator<Item = StreamKey> {
        self.ids.iter().map(|&(id, slot)| StreamKey { slot, id })
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Streams::default();
    }
}

impl StreamKey {
    /// A small number that no other living stream of the connection has: a place in a table.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// For how many streams an idle connection keeps memory.
const KEEP: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn receiving() -> Receiving {
        Receiving { window: 0, owed: 0, missing: None, wants_head: false, discard: false }
    }

    fn sending() -> Sending {
        Sending { window: 0, queue: Chain::new(), stage: SendStage::Head, chunk: 1, place: None }
    }

    fn stream(id: u32) -> Stream {
        let state = State::Open(receiving(), sending());
        Stream { id, state, priority: Priority::default(), reset_when_sent: None, reported: false }
    }

    #[test]
    fn states() {
        let mut one = State::Open(receiving(), sending());
        one.remote_end();
        assert!(matches!(one, State::RemoteClosed(_)));
        one.local_end();
        assert!(matches!(one, State::Closed));
        let mut other = State::Open(receiving(), sending());
        other.local_end();
        assert!(matches!(other, State::LocalClosed(_)));
        other.remote_end();
        other.local_end();
        assert!(matches!(other, State::Closed));
    }

    #[test]
    fn a_key_outlives_its_slot() {
        let mut streams = Streams::default();
        let one = streams.insert(stream(1));
        let three = streams.insert(stream(3));
        assert_eq!((streams.key(1), streams.key(2), streams.key(3)), (Some(one), None, Some(three)));
        assert!(streams.remove(one).is_some() && streams.remove(one).is_none());
        let five = streams.insert(stream(5));
        assert_eq!((five.slot, five.id()), (one.slot, 5));
        assert!(streams.get(one).is_none() && streams.get_mut(one).is_none() && streams.get(five).is_some());
        assert_eq!(streams.keys().collect::<Vec<_>>(), [three, five]);
        assert_eq!(streams.len(), 2);
    }
}
