//! A connection: what it is made of, and what its owner asks it.

use std::rc::Rc;

use buf::{Buf, Bytes};

use super::block::Carry;
use super::budget::Budget;
use super::error::{Code, ConnectionError, Reason};
use super::frame::{DEFAULT_WINDOW, PREFACE, setting, write_go_away, write_reset, write_settings, write_window_update};
use super::head::Head;
use super::priority::{Priority, Ready, Tree};
use super::reader::FrameReader;
use super::settings::{Config, PeerSettings};
use super::stream::{State, Stream, StreamKey, Streams};
use crate::hpack::{Decoder, Encoder};

/// What has happened on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request has come; its head is in [`Connection::head_mut`]. Where [`Head::error`] is set it should be answered
    /// with 400.
    Request {
        /// Its stream.
        stream: StreamKey,
        /// It has neither body nor trailers.
        end_stream: bool,
    },
    /// A response's head has come; it is in [`Connection::head_mut`]. Heads with a status below 200 may precede the final one.
    Response {
        /// Its stream.
        stream: StreamKey,
        /// It has neither body nor trailers.
        end_stream: bool,
    },
    /// A part of a body. The stream's window shrinks by it until [`Connection::release`].
    Data {
        /// Its stream.
        stream: StreamKey,
        /// The bytes; none where only the end comes. They share the input's memory: what is kept for long is better
        /// copied.
        bytes: Bytes,
        /// The body is complete and no trailers follow.
        end_stream: bool,
    },
    /// Trailers have come, and with them the end; they are the fields in [`Connection::head_mut`].
    Trailers {
        /// Their stream.
        stream: StreamKey,
    },
    /// The body is longer or shorter than Content-Length said: to be answered with 400. No more of it will be given.
    BadBody {
        /// Its stream.
        stream: StreamKey,
        /// How many bytes are missing; 0: there are too many.
        missing: u64,
    },
    /// The stream is gone, and what was queued for it.
    Reset {
        /// Which one.
        stream: StreamKey,
        /// Why.
        code: Code,
        /// What the peer did wrong, if it is this side that ended it.
        reason: Option<Reason>,
    },
    /// The peer has sent GOAWAY. A client's streams above `last_stream` are gone and may be tried elsewhere.
    GoAway {
        /// The last stream that the peer serves.
        last_stream: u32,
        /// Why.
        code: Code,
    },
    /// The peer has taken over our settings.
    SettingsAcked,
    /// The answer to [`Connection::ping`].
    Pong([u8; 8]),
}

/// One side of a connection.
#[derive(Debug)]
pub struct Connection {
    pub(super) config: Rc<Config>,
    pub(super) role: Role,
    /// How many bytes of the preface have come.
    pub(super) preface: u8,
    pub(super) reader: FrameReader,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    pub(super) peer: PeerSettings,
    /// The peer's settings while a SETTINGS frame is being read, and how many parameters it has had.
    pub(super) new_settings: Option<(PeerSettings, u32)>,
    pub(super) settings_acked: bool,
    pub(super) streams: Streams,
    /// The header block that is being read.
    pub(super) block: Option<Block>,
    /// The stream of the DATA that is being read.
    pub(super) data: Option<DataTarget>,
    pub(super) head: Head,
    pub(super) receive_window: i64,
    pub(super) send_window: i64,
    /// Bytes of all streams' bodies that wait to be sent.
    pub(super) queued: u64,
    /// The highest stream of the peer's.
    pub(super) last_peer: u32,
    /// The next stream of ours.
    pub(super) next_own: u32,
    pub(super) go_away_sent: bool,
    pub(super) go_away_received: bool,
    pub(super) recent: RecentResets,
    /// Frames in the order in which they go out, but for the bodies of DATA.
    pub(super) out: Buf,
    /// About how much of them is taken at a time, see [`Connection::prepare_out`].
    pub(super) usual_out: usize,
    /// Answers in `out` that the peer has provoked.
    pub(super) answers: u32,
    pub(super) ready: Ready,
    pub(super) tree: Tree,
    pub(super) tree_changed: bool,
    /// The peer speaks RFC 9218.
    pub(super) extensible: bool,
    /// Priorities of streams that are to come.
    pub(super) early: Vec<(u32, Priority)>,
    pub(super) budget: Budget,
    pub(super) error: Option<ConnectionError>,
    /// Streams whose queue has run empty.
    pub(super) drained: Vec<StreamKey>,
    /// Streams that have ended before everything queued was transmitted, and how much wasn't.
    pub(super) lost: Vec<(StreamKey, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Server,
    Client,
}

/// A header block of which not everything has come.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) target: BlockTarget,
    pub(super) end_stream: bool,
    pub(super) continuations: u32,
    pub(super) carry: Carry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockTarget {
    /// A new stream's number.
    Request(u32),
    Response(StreamKey),
    Trailers(StreamKey),
    /// Only the tables matter.
    Discard,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct DataTarget {
    pub(super) stream: StreamKey,
    pub(super) end_stream: bool,
    pub(super) padding: u32,
}

/// The last streams that this side has reset or refused, with their windows: the peer may still send for them what it had
/// sent before it knew.
#[derive(Debug, Default)]
pub(super) struct RecentResets {
    /// Numbers and windows; 0 is no stream.
    entries: Vec<(u32, u32)>,
    next: usize,
}

impl RecentResets {
    /// As many as a client may have open at once, if `http2_max_concurrent_streams` isn't set: all of them may be reset before
    /// the client knows of one.
    pub(super) const MOST: usize = 128;

    pub(super) fn add(&mut self, id: u32, window: u32) {
        match self.entries.get_mut(self.next) {
            Some(place) => *place = (id, window),
            None => self.entries.push((id, window)),
        }
        self.next = (self.next + 1) % RecentResets::MOST;
    }

    pub(super) fn has(&self, id: u32) -> bool {
        self.entries.iter().any(|entry| entry.0 == id)
    }

    pub(super) fn window_mut(&mut self, id: u32) -> Option<&mut u32> {
        self.entries.iter_mut().find(|entry| entry.0 == id).map(|entry| &mut entry.1)
    }

    pub(super) fn remove(&mut self, id: u32) {
        self.entries.iter_mut().filter(|entry| entry.0 == id).for_each(|entry| *entry = (0, 0));
    }
}

impl Connection {
    /// The server's side: it expects the preface first, and begins with SETTINGS and WINDOW_UPDATE as nginx does.
    pub fn server(config: Rc<Config>) -> Connection {
        let mut settings = vec![
            (setting::MAX_CONCURRENT_STREAMS, config.max_concurrent_streams),
            (setting::INITIAL_WINDOW_SIZE, config.initial_window),
            (setting::MAX_FRAME_SIZE, config.max_frame_size),
        ];
        if config.enable_connect_protocol {
            settings.push((setting::ENABLE_CONNECT_PROTOCOL, 1));
        }
        Connection::new(config, Role::Server, &settings)
    }

    /// The client's side: it begins with the preface.
    pub fn client(config: Rc<Config>) -> Connection {
        let settings = [
            (setting::ENABLE_PUSH, 0),
            (setting::INITIAL_WINDOW_SIZE, config.initial_window),
            (setting::MAX_FRAME_SIZE, config.max_frame_size),
        ];
        Connection::new(config, Role::Client, &settings)
    }

    fn new(config: Rc<Config>, role: Role, settings: &[(u16, u32)]) -> Connection {
        let mut out = Buf::empty();
        let client = role == Role::Client;
        if client {
            out.extend_from_slice(PREFACE);
        }
        write_settings(&mut out, settings);
        if config.connection_window > DEFAULT_WINDOW {
            write_window_update(&mut out, 0, config.connection_window - DEFAULT_WINDOW);
        }
        Connection {
            role,
            preface: if client { PREFACE.len() as u8 } else { 0 },
            reader: FrameReader::new(config.max_frame_size),
            decoder: Decoder::new(),
            encoder: Encoder::new(),
            peer: PeerSettings::default(),
            new_settings: None,
            settings_acked: false,
            streams: Streams::default(),
            block: None,
            data: None,
            head: Head::default(),
            receive_window: i64::from(config.connection_window.max(DEFAULT_WINDOW)),
            send_window: i64::from(DEFAULT_WINDOW),
            queued: 0,
            last_peer: 0,
            next_own: if client { 1 } else { 2 },
            go_away_sent: false,
            go_away_received: false,
            recent: RecentResets::default(),
            out,
            usual_out: 0,
            answers: 0,
            ready: Ready::default(),
            tree: Tree::default(),
            tree_changed: false,
            extensible: false,
            early: Vec::new(),
            budget: Budget::new(config.flood_budget),
            error: None,
            drained: Vec::new(),
            lost: Vec::new(),
            config,
        }
    }

    /// The head of the last [`Event::Request`], [`Event::Response`] or [`Event::Trailers`]; to be taken or swapped for an empty
    /// one before [`Connection::handle`] is called again, which overwrites it.
    pub fn head_mut(&mut self) -> &mut Head {
        &mut self.head
    }

    /// Frees the memory of [`Connection::head_mut`]: an idle connection needs none. No header block is being read then.
    pub fn free_head(&mut self) {
        self.head = Head::default();
    }

    /// The peer's settings.
    pub fn peer_settings(&self) -> &PeerSettings {
        &self.peer
    }

    /// How many streams are open or half-closed.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// The highest stream that the peer has opened.
    pub fn last_stream(&self) -> u32 {
        self.last_peer
    }

    /// Whether the stream lives: neither reset nor sent and received to its end.
    pub fn is_open(&self, stream: StreamKey) -> bool {
        self.streams.get(stream).is_some()
    }

    /// Whether the peer may still send on the stream.
    pub fn is_receiving(&self, stream: StreamKey) -> bool {
        let state = self.streams.get(stream).map(|stream| &stream.state);
        matches!(state, Some(State::Open(..) | State::LocalClosed(_)))
    }

    /// A header block has begun and isn't complete: nginx's `client_header_timeout` runs.
    pub fn is_reading_head(&self) -> bool {
        self.block.is_some()
    }

    /// The same of a block that opens a stream: GOAWAY counts that stream among those that are served.
    pub fn is_reading_request(&self) -> bool {
        self.block.as_ref().is_some_and(|block| matches!(block.target, BlockTarget::Request(_)))
    }

    /// Nothing has begun that isn't complete: no stream, no frame.
    pub fn is_idle(&self) -> bool {
        self.streams.len() == 0 && self.reader.is_between_frames() && self.preface as usize == PREFACE.len()
    }

    /// Why the connection must end, once [`Connection::handle`] has said so.
    pub fn error(&self) -> Option<ConnectionError> {
        self.error
    }

    /// Whether GOAWAY has been sent or received: no new streams come.
    pub fn is_going_away(&self) -> bool {
        self.go_away_sent || self.go_away_received
    }

    /// How many bytes of frames other than DATA are queued.
    pub fn unsent_heads(&self) -> usize {
        self.out.len()
    }

    /// Bytes of a body that were queued and aren't transmitted.
    pub fn queued(&self, stream: StreamKey) -> u64 {
        match self.streams.get(stream).map(|stream| &stream.state) {
            Some(State::Open(_, sending) | State::RemoteClosed(sending)) => sending.queue.len(),
            _ => 0,
        }
    }

    /// The windows' room for the stream beyond what is queued, on it and on the others, in bytes.
    pub fn capacity(&self, stream: StreamKey) -> u64 {
        match self.streams.get(stream).map(|stream| &stream.state) {
            Some(State::Open(_, sending) | State::RemoteClosed(sending)) => {
                let room = |window: i64, queued: u64| u64::try_from(window).unwrap_or(0).saturating_sub(queued);
                room(sending.window, sending.queue.len()).min(room(self.send_window, self.queued))
            }
            _ => 0,
        }
    }

    /// The next stream of which everything queued has been transmitted since it was last named, so that its owner can
    /// go on. It may be over: [`Connection::is_open`].
    pub fn poll_drained(&mut self) -> Option<StreamKey> {
        let key = self.drained.pop()?;
        if let Some(stream) = self.streams.get_mut(key) {
            stream.reported = false;
        }
        Some(key)
    }

    /// The next stream that has ended with a part of its body untransmitted, and the length of that part. A server's owner
    /// asks until there is none.
    pub fn poll_lost(&mut self) -> Option<(StreamKey, u64)> {
        self.lost.pop()
    }

    /// The largest DATA that is sent on a stream.
    pub fn frame_size(&self, stream: StreamKey) -> u32 {
        let chunk = match self.streams.get(stream).map(|stream| &stream.state) {
            Some(State::Open(_, sending) | State::RemoteClosed(sending)) => sending.chunk,
            _ => self.config.chunk_size,
        };
        chunk.clamp(1, self.peer.max_frame_size)
    }

    /// Ends the connection: what was queued for streams is dropped, GOAWAY is queued.
    pub(super) fn fail(&mut self, error: ConnectionError) {
        self.error = Some(error);
        let keys: Vec<StreamKey> = self.streams.keys().collect();
        keys.into_iter().for_each(|key| drop(self.drop_stream(key)));
        self.streams.clear();
        (self.ready, self.block, self.data) = (Ready::default(), None, None);
        write_go_away(&mut self.out, self.last_peer, error.code);
        self.go_away_sent = true;
    }

    /// Takes a stream out of everything that knows it.
    pub(super) fn drop_stream(&mut self, key: StreamKey) -> Option<Stream> {
        let mut stream = self.streams.remove(key)?;
        if let Some(sending) = stream.sending() {
            let unsent = sending.queue.len();
            self.queued -= unsent;
            if unsent > 0 && self.role == Role::Server {
                self.lost.push((key, unsent));
            }
            if let Some(place) = sending.place.take() {
                self.ready.remove(place);
            }
        }
        Some(stream)
    }

    /// Sends RST_STREAM and forgets the stream.
    pub(super) fn reset_now(&mut self, key: StreamKey, code: Code) {
        if let Some(mut stream) = self.drop_stream(key) {
            let window = stream.receiving().map_or(0, |receiving| receiving.window);
            write_reset(&mut self.out, key.id(), code);
            self.recent.add(key.id(), u32::try_from(window).unwrap_or(0));
        }
    }

    /// Sends RST_STREAM for a stream that isn't begun.
    pub(super) fn refuse_stream(&mut self, id: u32, code: Code) {
        write_reset(&mut self.out, id, code);
        self.recent.add(id, self.first_window());
    }

    /// What the peer takes for the window of a stream that it opens.
    pub(super) fn first_window(&self) -> u32 {
        let told = self.config.initial_window;
        if self.settings_acked { told } else { told.max(DEFAULT_WINDOW) }
    }

    /// Checks what must hold between any two calls: for tests and fuzzing.
    ///
    /// # Panics
    /// If it doesn't.
    pub fn check_invariants(&self) {
        let (mut ready, mut last, mut queued) = (0, 0, 0);
        for key in self.streams.keys() {
            assert!(key.id() > last);
            last = key.id();
            let stream = self.streams.get(key).expect("the table's two parts agree");
            match &stream.state {
                State::Open(_, sending) | State::RemoteClosed(sending) => {
                    let can_send = !sending.queue.is_empty() && sending.window > 0;
                    assert_eq!(can_send, sending.place.is_some(), "stream {}", stream.id);
                    assert!(sending.window <= i64::from(super::frame::MAX_WINDOW));
                    ready += usize::from(can_send);
                    queued += sending.queue.len();
                }
                State::LocalClosed(_) => assert!(stream.reset_when_sent.is_none()),
                State::Closed => panic!("closed streams leave the table"),
            }
            if let State::Open(receiving, _) | State::LocalClosed(receiving) = &stream.state {
                assert!(receiving.window >= 0);
                assert!(receiving.window + i64::from(receiving.owed) <= i64::from(super::frame::MAX_WINDOW));
            }
        }
        assert_eq!((self.ready.slots().count(), self.queued), (ready, queued));
        if self.role == Role::Server {
            assert!(self.streams.len() <= self.config.max_concurrent_streams as usize);
        }
        assert!(self.send_window <= i64::from(super::frame::MAX_WINDOW) && self.send_window >= 0);
        assert!(self.receive_window >= 0);
    }
}
