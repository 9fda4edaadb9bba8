//! What arrives, and what becomes of it.

use buf::{Bytes, Chain};

use super::block::{Carry, Rules};
use super::budget::{COST_FRAME, COST_LATE_RESET, COST_PRIORITY, COST_RESET, COST_SETTINGS};
use super::connection::{Block, BlockTarget, Connection, DataTarget, Event, Role};
use super::error::{Code, ConnectionError, Reason};
use super::frame::{
    DEFAULT_WINDOW, Kind, MAX_WINDOW, PREFACE, flag, write_frame, write_ping, write_reset, write_window_update,
};
use super::head::HeadKind;
use super::priority::Priority;
use super::reader::{Dependency, Frame};
use super::stream::{Receiving, SendStage, Sending, State, Stream, StreamKey};
use crate::h1::KnownHeader;
use crate::hpack::{DecodeError, FieldLimits};

/// Answers that may wait because the peer doesn't read them.
pub(super) const MAX_ANSWERS: u32 = 1024;
/// Streams to come of which a priority is remembered.
const MAX_EARLY: usize = 16;

impl Connection {
    /// Takes what has arrived, from the front of `input`, up to the next event; `None` when `input` is used up.
    ///
    /// `now_ms` is any clock that doesn't go back. After an error, GOAWAY is what [`Connection::poll_transmit`] still has
    /// to send; the streams are gone.
    pub fn handle(&mut self, now_ms: u64, input: &mut Bytes) -> Result<Option<Event>, ConnectionError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.budget.refill(now_ms, self.config.flood_refill, self.config.flood_budget);
        loop {
            match self.step(input) {
                Ok(Step::Event(event)) => return Ok(Some(event)),
                Ok(Step::More) => {}
                Ok(Step::Starved) => return Ok(None),
                Err(error) => {
                    self.fail(error);
                    return Err(error);
                }
            }
        }
    }

    fn step(&mut self, input: &mut Bytes) -> Result<Step, ConnectionError> {
        if usize::from(self.preface) < PREFACE.len() {
            self.read_preface(input)?;
        }
        let frame = if usize::from(self.preface) < PREFACE.len() { None } else { self.reader.next(input)? };
        let Some(frame) = frame else { return Ok(Step::Starved) };
        Ok(self.frame(frame)?.map_or(Step::More, Step::Event))
    }

    fn read_preface(&mut self, input: &mut Bytes) -> Result<(), ConnectionError> {
        let rest = PREFACE.get(usize::from(self.preface)..).unwrap_or_default();
        let n = rest.len().min(input.len());
        if input.get(..n) != rest.get(..n) {
            return Err(Reason::Preface.into());
        }
        input.advance(n);
        self.preface += n as u8;
        Ok(())
    }

    fn frame(&mut self, frame: Frame) -> Result<Option<Event>, ConnectionError> {
        match frame {
            Frame::DataStart { stream, length, padding, end_stream } => {
                self.data_start(stream, length, DataFlags { padding, end_stream })
            }
            Frame::Data { bytes, last } => self.data(bytes, last),
            Frame::HeadersStart { stream, end_stream, dependency } => {
                self.headers_start(stream, end_stream, dependency)
            }
            Frame::Fragment { bytes, continues, last } => self.fragment(&bytes, continues, last),
            Frame::Priority { stream, dependency } => {
                self.depend(stream, dependency);
                self.spend(COST_PRIORITY)
            }
            Frame::Reset { stream, code } => self.peer_reset(stream, code),
            Frame::Setting { id, value } => self.setting(id, value),
            Frame::SettingsEnd { ack: true } => {
                self.settings_acked = true;
                self.spend(COST_FRAME).map(|_| Some(Event::SettingsAcked))
            }
            Frame::SettingsEnd { ack: false } => self.settings_end(),
            Frame::Ping { ack: true, data } => self.spend(COST_FRAME).map(|_| Some(Event::Pong(data))),
            Frame::Ping { ack: false, data } => {
                write_ping(&mut self.out, true, data);
                self.answered(COST_FRAME)
            }
            Frame::GoAway { last_stream, code } => self.peer_goes_away(last_stream, code),
            Frame::WindowUpdate { stream, increment } => self.window_update(stream, increment),
            Frame::PriorityUpdate { stream, value } => {
                self.reprioritize(stream, Priority::parse(&value));
                self.spend(COST_PRIORITY)
            }
            Frame::Ignored => self.spend(COST_FRAME),
        }
    }

    fn spend(&mut self, points: u32) -> Result<Option<Event>, ConnectionError> {
        self.budget.take(points).map(|()| None)
    }

    /// Counts an answer that was just queued.
    fn answered(&mut self, points: u32) -> Result<Option<Event>, ConnectionError> {
        self.answers += 1;
        if self.answers > MAX_ANSWERS { Err(Reason::Flood.into()) } else { self.spend(points) }
    }

    /// Ends a stream for what the peer did.
    fn stream_error(&mut self, stream: StreamKey, reason: Reason) -> Result<Option<Event>, ConnectionError> {
        self.reset_now(stream, reason.code());
        self.answered(COST_RESET)?;
        Ok(Some(Event::Reset { stream, code: reason.code(), reason: Some(reason) }))
    }

    /// Whether a stream of this number has never been opened.
    fn is_idle_stream(&self, id: u32) -> bool {
        let own = (id % 2 == 1) == (self.role == Role::Client);
        if own { id >= self.next_own } else { id > self.last_peer && !self.go_away_sent }
    }
}

/// What a step came to.
enum Step {
    Event(Event),
    More,
    Starved,
}

/// What else DATA begins with.
#[derive(Clone, Copy)]
struct DataFlags {
    padding: u32,
    end_stream: bool,
}

/// Bodies.
impl Connection {
    fn data_start(&mut self, id: u32, length: u32, flags: DataFlags) -> Result<Option<Event>, ConnectionError> {
        let DataFlags { padding, end_stream } = flags;
        self.data = None;
        self.receive_window -= i64::from(length);
        if self.receive_window < 0 {
            self.receive_window = 0;
            return Err(Reason::FlowControl.into());
        }
        self.top_up();
        let Some(key) = self.streams.key(id) else {
            return self.data_of_none(id, length, flags);
        };
        let receiving = self.streams.get_mut(key).and_then(Stream::receiving);
        let Some(receiving) = receiving else { return self.stream_error(key, Reason::StreamClosed) };
        if receiving.wants_head {
            return self.stream_error(key, Reason::Malformed);
        }
        if !receiving.take(padding) {
            return self.stream_error(key, Reason::FlowControl);
        }
        self.data = Some(DataTarget { stream: key, end_stream, padding });
        let payload = u64::from(length - padding);
        let bad = !receiving.discard && receiving.missing.is_some_and(|n| payload > n || (end_stream && payload < n));
        receiving.missing = receiving.missing.map(|missing| missing.saturating_sub(payload));
        receiving.discard |= bad;
        let missing = receiving.missing.unwrap_or(0);
        if payload == 0 && !end_stream {
            self.spend(COST_FRAME)?;
        }
        Ok(bad.then_some(Event::BadBody { stream: key, missing }))
    }

    /// DATA of a stream that isn't in the table.
    fn data_of_none(&mut self, id: u32, length: u32, flags: DataFlags) -> Result<Option<Event>, ConnectionError> {
        if self.is_idle_stream(id) {
            return Err(Reason::StreamId.into());
        }
        let Some(window) = self.recent.window_mut(id) else {
            if self.role == Role::Server && id <= self.last_peer {
                // The peer had ended it (RFC 9113 §5.1).
                write_reset(&mut self.out, id, Code::STREAM_CLOSED);
                return self.answered(COST_FRAME);
            }
            return self.spend(COST_FRAME);
        };
        // What was under way when this side ended the stream is discarded, up to its end. The peer was allowed to send it, so it
        // costs nothing.
        let was_allowed = length <= *window && (length > flags.padding || flags.end_stream);
        *window = window.saturating_sub(length);
        if flags.end_stream {
            self.recent.remove(id);
        }
        if was_allowed { Ok(None) } else { self.spend(COST_FRAME) }
    }

    fn data(&mut self, bytes: Bytes, last: bool) -> Result<Option<Event>, ConnectionError> {
        let Some(DataTarget { stream: key, end_stream, padding }) = self.data else { return Ok(None) };
        let end_stream = end_stream && last;
        if last {
            self.data = None;
            self.release(key, padding);
        }
        // It may have been reset between two parts.
        let receiving = self.streams.get_mut(key).and_then(Stream::receiving);
        let Some(receiving) = receiving else { return Ok(None) };
        // The window is opened while a large frame is on its way: only what has come counts.
        if !receiving.take(bytes.len() as u32) {
            return self.stream_error(key, Reason::FlowControl);
        }
        let discard = receiving.discard;
        if end_stream {
            self.end_remote(key);
        }
        let nothing = discard || (bytes.is_empty() && !end_stream);
        Ok((!nothing).then_some(Event::Data { stream: key, bytes, end_stream }))
    }

    /// The peer has sent everything on a stream.
    fn end_remote(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.state.remote_end();
            if matches!(stream.state, State::Closed) {
                self.drop_stream(key);
            }
        }
    }

    /// Opens the connection's window again once half of it is used: what is buffered is bounded by the streams' windows.
    fn top_up(&mut self) {
        let full = i64::from(self.config.connection_window.max(DEFAULT_WINDOW));
        if self.receive_window < full / 2 {
            write_window_update(&mut self.out, 0, (full - self.receive_window) as u32);
            self.receive_window = full;
        }
    }
}

/// Header blocks.
impl Connection {
    fn headers_start(
        &mut self,
        id: u32,
        end_stream: bool,
        dependency: Option<Dependency>,
    ) -> Result<Option<Event>, ConnectionError> {
        let (target, event) = match self.streams.key(id) {
            Some(key) => self.more_headers(key, end_stream)?,
            None => (self.first_headers(id, end_stream)?, None),
        };
        if let Some(dependency) = dependency {
            self.depend(id, dependency);
        }
        self.decoder.begin();
        self.head.clear();
        self.block = Some(Block { target, end_stream, continuations: 0, carry: Carry::default() });
        Ok(event)
    }

    /// HEADERS on a stream that lives: a response, or trailers.
    fn more_headers(
        &mut self,
        key: StreamKey,
        end_stream: bool,
    ) -> Result<(BlockTarget, Option<Event>), ConnectionError> {
        match self.streams.get_mut(key).and_then(Stream::receiving) {
            None => Err(Reason::HeadersId.into()),
            Some(receiving) if receiving.wants_head => Ok((BlockTarget::Response(key), None)),
            Some(_) if end_stream => Ok((BlockTarget::Trailers(key), None)),
            Some(_) => Ok((BlockTarget::Discard, self.stream_error(key, Reason::Malformed)?)),
        }
    }

    /// HEADERS on a stream that isn't in the table.
    fn first_headers(&mut self, id: u32, end_stream: bool) -> Result<BlockTarget, ConnectionError> {
        // A server may have answered what its client has just given up; trailers may be under way for what a server has.
        let given_up = match self.role {
            Role::Client => id % 2 == 1 && id < self.next_own,
            Role::Server => self.recent.has(id),
        };
        if given_up {
            self.spend(COST_FRAME)?;
            return Ok(BlockTarget::Discard);
        }
        if self.role == Role::Client || id.is_multiple_of(2) || id <= self.last_peer {
            return Err(Reason::HeadersId.into());
        }
        if self.go_away_sent {
            self.recent.add(id, self.first_window());
            self.spend(COST_FRAME)?;
            return Ok(BlockTarget::Discard);
        }
        self.last_peer = id;
        // Before our settings are known to the peer it may send more of a body than they allow.
        let too_early = !self.settings_acked && !end_stream && self.config.initial_window < DEFAULT_WINDOW;
        if too_early || self.streams.len() >= self.config.max_concurrent_streams as usize {
            self.refuse_stream(id, Code::REFUSED_STREAM);
            self.answered(COST_RESET)?;
            return Ok(BlockTarget::Discard);
        }
        Ok(BlockTarget::Request(id))
    }

    fn fragment(&mut self, bytes: &[u8], continues: bool, last: bool) -> Result<Option<Event>, ConnectionError> {
        let Some(mut block) = self.block.take() else { return Ok(None) };
        if continues {
            block.continuations += 1;
            self.spend(COST_FRAME)?;
            if block.continuations > self.config.max_continuations {
                return Err(Reason::TooManyContinuations.into());
            }
        }
        self.head.encoded += bytes.len() as u64;
        self.decode(&mut block, bytes)?;
        if !last {
            self.block = Some(block);
            return Ok(None);
        }
        if !block.carry.is_empty() {
            return Err(DecodeError::Truncated.into());
        }
        self.block_end(block)
    }

    fn decode(&mut self, block: &mut Block, bytes: &[u8]) -> Result<(), ConnectionError> {
        let kind = match block.target {
            BlockTarget::Request(_) => Some(HeadKind::Request),
            BlockTarget::Response(_) => Some(HeadKind::Response),
            BlockTarget::Trailers(_) => Some(HeadKind::Trailers),
            BlockTarget::Discard => None,
        };
        let (config, head) = (&self.config, &mut self.head);
        let limits = FieldLimits { field: config.max_field_size, text: config.max_list_size };
        block.carry.decode(&mut self.decoder, head, bytes, &Rules { kind, limits, fields: config.max_fields })
    }

    fn block_end(&mut self, block: Block) -> Result<Option<Event>, ConnectionError> {
        match block.target {
            BlockTarget::Discard => {
                self.head.clear();
                Ok(None)
            }
            BlockTarget::Request(id) => Ok(Some(self.request(id, block.end_stream))),
            BlockTarget::Response(key) => self.response(key, block.end_stream),
            BlockTarget::Trailers(key) => self.trailers(key),
        }
    }

    fn request(&mut self, id: u32, end_stream: bool) -> Event {
        self.head.finish(HeadKind::Request, end_stream, self.config.enable_connect_protocol);
        let sending = self.new_sending(SendStage::Head);
        let state = if end_stream {
            State::RemoteClosed(sending)
        } else {
            State::Open(self.new_receiving(self.head.content_length, false), sending)
        };
        let priority = self.first_priority(id);
        let stream = self.streams.insert(Stream { id, state, priority, reset_when_sent: None, reported: false });
        Event::Request { stream, end_stream }
    }

    fn response(&mut self, key: StreamKey, end_stream: bool) -> Result<Option<Event>, ConnectionError> {
        self.head.finish(HeadKind::Response, end_stream, false);
        let interim = self.head.status < 200;
        // It may have been reset between two fragments.
        let receiving = self.streams.get_mut(key).and_then(Stream::receiving);
        let Some(receiving) = receiving else { return Ok(None) };
        if self.head.error.is_some() || (interim && end_stream) {
            return self.stream_error(key, Reason::Malformed);
        }
        if interim {
            self.spend(COST_FRAME)?;
            return Ok(Some(Event::Response { stream: key, end_stream: false }));
        }
        receiving.wants_head = false;
        receiving.missing = self.head.content_length;
        if end_stream {
            self.end_remote(key);
        }
        Ok(Some(Event::Response { stream: key, end_stream }))
    }

    fn trailers(&mut self, key: StreamKey) -> Result<Option<Event>, ConnectionError> {
        let receiving = self.streams.get_mut(key).and_then(Stream::receiving);
        let Some(receiving) = receiving else { return Ok(None) };
        let (discard, missing) = (receiving.discard, receiving.missing.unwrap_or(0));
        if self.head.error.is_some() {
            return self.stream_error(key, Reason::Malformed);
        }
        self.end_remote(key);
        Ok(match () {
            () if discard => None,
            () if missing > 0 => Some(Event::BadBody { stream: key, missing }),
            () => Some(Event::Trailers { stream: key }),
        })
    }

    pub(super) fn new_sending(&self, stage: SendStage) -> Sending {
        let window = i64::from(self.peer.initial_window_size);
        Sending { window, queue: Chain::new(), stage, chunk: self.config.chunk_size.max(1), place: None }
    }

    pub(super) fn new_receiving(&self, missing: Option<u64>, wants_head: bool) -> Receiving {
        let window = i64::from(self.config.initial_window);
        Receiving { window, owed: 0, missing, wants_head, discard: false }
    }
}

/// Priorities.
impl Connection {
    fn depend(&mut self, id: u32, dependency: Dependency) {
        if !self.extensible {
            self.tree.set(id, dependency);
            self.tree_changed = true;
        }
    }

    /// From now on RFC 9218 alone counts.
    fn speaks_rfc9218(&mut self) {
        if !self.extensible {
            self.extensible = true;
            self.tree.clear();
            self.tree_changed = true;
        }
    }

    /// What PRIORITY_UPDATE or the Priority header say of a new stream.
    fn first_priority(&mut self, id: u32) -> Priority {
        let told = self.early.iter().position(|entry| entry.0 == id).map(|at| self.early.swap_remove(at).1);
        self.early.retain(|entry| entry.0 > id);
        let header = self.head.value(KnownHeader::Priority).map(Priority::parse);
        if header.is_some() {
            self.speaks_rfc9218();
        }
        told.or(header).unwrap_or_default()
    }

    fn reprioritize(&mut self, id: u32, priority: Priority) {
        self.speaks_rfc9218();
        if let Some(key) = self.streams.key(id) {
            self.set_priority(key, priority);
        } else if id > self.last_peer {
            // Of several the last one counts (RFC 9218 §7).
            self.early.retain(|entry| entry.0 != id);
            if self.early.len() < MAX_EARLY {
                self.early.push((id, priority));
            }
        }
    }
}

/// Everything else.
impl Connection {
    fn peer_reset(&mut self, id: u32, code: Code) -> Result<Option<Event>, ConnectionError> {
        let Some(stream) = self.streams.key(id) else {
            if self.is_idle_stream(id) {
                return Err(Reason::StreamId.into());
            }
            // It was reset from here, or its response was made before the peer could say that it doesn't want it.
            let cost = if self.recent.has(id) { COST_FRAME } else { COST_LATE_RESET };
            // Nothing of it is under way any more.
            self.recent.remove(id);
            return self.spend(cost);
        };
        self.drop_stream(stream);
        self.spend(COST_RESET)?;
        Ok(Some(Event::Reset { stream, code, reason: None }))
    }

    fn setting(&mut self, id: u16, value: u32) -> Result<Option<Event>, ConnectionError> {
        let (settings, count) = self.new_settings.get_or_insert((self.peer, 0));
        settings.apply(id, value, self.role == Role::Client)?;
        *count += 1;
        if *count > self.config.max_settings { Err(Reason::TooManySettings.into()) } else { Ok(None) }
    }

    /// The new settings hold from here on, all at once.
    fn settings_end(&mut self) -> Result<Option<Event>, ConnectionError> {
        if let Some((settings, _)) = self.new_settings.take() {
            let delta = i64::from(settings.initial_window_size) - i64::from(self.peer.initial_window_size);
            self.peer = settings;
            self.encoder.set_max_size(settings.header_table_size);
            if settings.no_rfc7540_priorities {
                self.speaks_rfc9218();
            }
            if delta != 0 {
                self.shift_windows(delta)?;
            }
        }
        write_frame(&mut self.out, Kind::Settings, flag::ACK, 0, &[]);
        self.answered(COST_SETTINGS)
    }

    fn shift_windows(&mut self, delta: i64) -> Result<(), ConnectionError> {
        let keys: Vec<StreamKey> = self.streams.keys().collect();
        for key in keys {
            if let Some(sending) = self.streams.get_mut(key).and_then(Stream::sending) {
                sending.window += delta;
                if sending.window > i64::from(MAX_WINDOW) {
                    return Err(Reason::WindowOverflow.into());
                }
            }
            self.place(key);
        }
        Ok(())
    }

    fn window_update(&mut self, id: u32, increment: u32) -> Result<Option<Event>, ConnectionError> {
        if increment == 0 {
            return Err(Reason::ZeroIncrement.into());
        }
        self.budget.take_update()?;
        let increment = i64::from(increment);
        if id == 0 {
            if self.send_window + increment > i64::from(MAX_WINDOW) {
                return Err(Reason::WindowOverflow.into());
            }
            self.send_window += increment;
            return Ok(None);
        }
        let Some(key) = self.streams.key(id) else {
            return if self.is_idle_stream(id) { Err(Reason::StreamId.into()) } else { Ok(None) };
        };
        let Some(sending) = self.streams.get_mut(key).and_then(Stream::sending) else { return Ok(None) };
        if sending.window + increment > i64::from(MAX_WINDOW) {
            return self.stream_error(key, Reason::WindowOverflow);
        }
        sending.window += increment;
        self.place(key);
        Ok(None)
    }

    fn peer_goes_away(&mut self, last_stream: u32, code: Code) -> Result<Option<Event>, ConnectionError> {
        self.go_away_received = true;
        if self.role == Role::Client {
            let unserved: Vec<StreamKey> = self.streams.keys().filter(|key| key.id() > last_stream).collect();
            for key in unserved {
                self.drop_stream(key);
            }
        }
        self.spend(COST_FRAME)?;
        Ok(Some(Event::GoAway { last_stream, code }))
    }
}
