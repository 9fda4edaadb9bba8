//! The client's side for one exchange at a time: how backends are asked (RFC 9113).
//!
//! As nginx does, it opens a stream when the one before is over, so that it needs no table of streams and no priorities; and
//! it tells the server that it keeps no table of fields. A server's mistakes are told in nginx's words.
//! [`super::Connection::client`] is the one with many streams at once.
//!
//! Everything that a server can make grow is bounded: heads by [`ClientLimits`], answers that it doesn't read, and frames
//! that bring the response no further.

use buf::{Buf, Bytes, Chain, Piece};

use super::block::{Carry, Rules};
use super::error::{Code, ConnectionError, Reason};
use super::frame::{
    DEFAULT_FRAME_SIZE, DEFAULT_WINDOW, FrameHeader, Kind, MAX_WINDOW, PREFACE, flag, setting, write_block,
    write_frame, write_ping, write_settings, write_window_update,
};
use super::head::{Head, HeadError, HeadKind};
use super::reader::{Frame, FrameReader};
use super::settings::PeerSettings;
use crate::hpack::{Decoder, Encoder, FieldLimits};

/// Bodies of DATA up to this size are copied after their frame's header: cheaper than a piece of their own.
const COPY: u64 = 1024;
/// The most CONTINUATION frames of one header block.
const MAX_CONTINUATIONS: u32 = 256;
/// Answers that may wait because the server doesn't read them.
const MAX_ANSWERS: u32 = 1000;
/// Frames in a row that bring neither a part of the response nor room for the request.
const MAX_USELESS: u32 = 1 << 16;
/// What an interim head counts among them.
const INTERIM: u32 = 64;

/// How large heads may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// The most bytes of all names and values of a head, and of trailers.
    pub head: usize,
}

/// What has come from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// More bytes are needed.
    More,
    /// An interim head (1xx), which is in [`Client::head_mut`].
    Interim,
    /// The final head, which is in [`Client::head_mut`].
    Head,
    /// A part of the body.
    Data(Bytes),
    /// Trailers: the fields in [`Client::head_mut`].
    Trailers,
    /// The response is complete, and everything that came is used up.
    End,
}

/// What is wrong with a server: the exchange and the connection are over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFault {
    /// Which kind of fault.
    pub kind: ServerFaultKind,
    /// nginx's words for it.
    pub text: String,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerFaultKind {
    /// It broke the protocol, or ended the stream.
    Invalid,
    /// It has done nothing of the request, and says so.
    Refused,
    /// It was leaving, and has done nothing of the request: on a new connection it may serve it.
    Leaving,
}

fn invalid<T>(text: impl Into<String>) -> Result<T, ServerFault> {
    Err(ServerFault { kind: ServerFaultKind::Invalid, text: text.into() })
}

/// How far a response has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The final head is awaited.
    Head,
    Body,
    /// It is complete.
    Ended,
    /// It is complete, and the server has said that it doesn't need the rest of the request.
    Reset,
}

/// A header block of which not everything has come.
#[derive(Debug)]
struct Block {
    kind: HeadKind,
    end_stream: bool,
    continuations: u32,
    carry: Carry,
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    reader: FrameReader,
    decoder: Decoder,
    encoder: Encoder,
    peer: PeerSettings,
    /// The server's settings while a SETTINGS frame is being read.
    new_settings: Option<PeerSettings>,
    input: Bytes,
    limits: ClientLimits,
    head: Head,
    block: Option<Block>,
    stage: Stage,
    /// The stream of this exchange.
    stream: u32,
    /// Only a head is asked for: no body comes, whatever length is announced.
    to_head: bool,
    /// How much of the promised body is missing.
    missing: Option<u64>,
    /// The DATA that is being read is the last one.
    data_ends: bool,
    /// What the server may still send: on the stream, on the connection.
    receive_window: [i64; 2],
    /// The same for us; negative after the server has lowered its initial window.
    send_window: [i64; 2],
    /// The part of the request's body that waits for the windows.
    held: Chain,
    /// The end of the body is to follow `held`.
    last: bool,
    request_ended: bool,
    going_away: bool,
    /// Frames that are queued: heads, answers, small bodies.
    out: Buf,
    /// Answers since everything was sent.
    answers: u32,
    useless: u32,
}

/// The stream's window and the connection's.
const STREAM: usize = 0;
const CONNECTION: usize = 1;

impl Default for Client {
    fn default() -> Client {
        Client::new()
    }
}

impl Client {
    /// A new connection: what it sends first begins with the preface.
    pub fn new() -> Client {
        let mut out = Buf::empty();
        out.extend_from_slice(PREFACE);
        let settings =
            [(setting::HEADER_TABLE_SIZE, 0), (setting::ENABLE_PUSH, 0), (setting::INITIAL_WINDOW_SIZE, MAX_WINDOW)];
        write_settings(&mut out, &settings);
        write_window_update(&mut out, 0, MAX_WINDOW - DEFAULT_WINDOW);
        Client {
            reader: FrameReader::new(DEFAULT_FRAME_SIZE),
            decoder: Decoder::with_table(0),
            encoder: Encoder::new(),
            peer: PeerSettings::default(),
            new_settings: None,
            input: Bytes::default(),
            limits: ClientLimits { head: 0 },
            head: Head::default(),
            block: None,
            stage: Stage::Ended,
            stream: 0,
            to_head: false,
            missing: None,
            data_ends: false,
            receive_window: [i64::from(MAX_WINDOW); 2],
            send_window: [i64::from(DEFAULT_WINDOW); 2],
            held: Chain::new(),
            last: false,
            request_ended: true,
            going_away: false,
            out,
            answers: 0,
            useless: 0,
        }
    }

    /// Begins an exchange; the one before, if there was one, has left a connection that [`Client::serves_on`].
    pub fn begin(&mut self, limits: ClientLimits, to_head: bool) {
        self.stream = if self.stream == 0 { 1 } else { self.stream + 2 };
        (self.limits, self.to_head) = (limits, to_head);
        self.stage = Stage::Head;
        self.missing = None;
        self.receive_window[STREAM] = i64::from(MAX_WINDOW);
        self.send_window[STREAM] = i64::from(self.peer.initial_window_size);
        (self.last, self.request_ended) = (false, false);
        self.useless = 0;
    }

    /// Whether the connection can serve another exchange.
    pub fn serves_on(&self) -> bool {
        self.has_ended()
            && self.request_ended
            && !self.going_away
            && self.input.is_empty()
            && self.reader.is_between_frames()
            && self.stream < MAX_WINDOW - 2
    }

    /// Whether the response is complete.
    pub fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended | Stage::Reset)
    }

    /// Gives back memory that an idle connection doesn't need.
    pub fn rest(&mut self) {
        self.head = Head::default();
        self.held.clear();
    }

    /// The head or trailers of the last event; to be taken or swapped before [`Client::next_event`] is called again.
    pub fn head_mut(&mut self) -> &mut Head {
        &mut self.head
    }
}

/// Sending.
impl Client {
    /// Queues the request's head, which goes out with what [`Client::body`] or [`Client::transmit`] gives next. `block` is
    /// made of fields by [`crate::hpack::write_plain`]; `end_stream`: there is no body.
    pub fn head(&mut self, block: &[u8], end_stream: bool) {
        self.out.reserve(block.len() + 64);
        let mut updates = Buf::empty();
        self.encoder.begin(&mut updates);
        let size = self.peer.max_frame_size;
        if updates.is_empty() {
            write_block(&mut self.out, size, self.stream, end_stream, block);
        } else {
            updates.extend_from_slice(block);
            write_block(&mut self.out, size, self.stream, end_stream, &updates);
        }
        self.request_ended = end_stream;
    }

    /// Takes a part of the request's body, `last` with the last one, and appends its frames to `out`, after those that are
    /// queued. What the windows have no room for is held back.
    pub fn body(&mut self, mut part: Chain, last: bool, out: &mut Chain) {
        self.held.append(&mut part);
        self.last |= last;
        self.send_held(out);
    }

    /// How many bytes of the body it would not hold back.
    pub fn window(&self) -> u64 {
        self.room().saturating_sub(self.held.len())
    }

    /// Whether a part of the body, or its end, is held back.
    pub fn holds_back(&self) -> bool {
        !self.held.is_empty() || self.last
    }

    /// Appends what is to be sent because of frames that came. An empty `out` says that everything before was sent.
    pub fn transmit(&mut self, out: &mut Chain) {
        if out.is_empty() {
            self.answers = 0;
        }
        self.send_held(out);
    }

    fn room(&self) -> u64 {
        u64::try_from(self.send_window[STREAM].min(self.send_window[CONNECTION])).unwrap_or(0)
    }

    /// Appends the frames that are queued, and DATA as the windows allow.
    fn send_held(&mut self, out: &mut Chain) {
        // A server that has answered needs no more.
        while !self.has_ended() && self.holds_back() {
            let size = self.held.len().min(self.room()).min(u64::from(self.peer.max_frame_size));
            let ends = self.last && size == self.held.len();
            if size == 0 && !ends {
                break;
            }
            let flags = if ends { flag::END_STREAM } else { 0 };
            let header = FrameHeader { length: size as u32, kind: Kind::Data, flags, stream: self.stream };
            self.data_frame(header, out);
            self.send_window[STREAM] -= size as i64;
            self.send_window[CONNECTION] -= size as i64;
            self.useless = 0;
            if ends {
                (self.last, self.request_ended) = (false, true);
            }
        }
        self.flush(out);
    }

    /// Appends DATA: a small body to the frames that are queued, any other as it is.
    fn data_frame(&mut self, header: FrameHeader, out: &mut Chain) {
        let mut part = self.held.split_to(u64::from(header.length));
        self.out.extend_from_slice(&header.bytes());
        let in_memory = part.pieces().iter().all(|piece| matches!(piece, Piece::Bytes(_)));
        if part.len() > COPY || !in_memory {
            self.flush(out);
            return out.append(&mut part);
        }
        for piece in part.pieces() {
            if let Piece::Bytes(bytes) = piece {
                self.out.extend_from_slice(bytes);
            }
        }
    }

    fn flush(&mut self, out: &mut Chain) {
        if !self.out.is_empty() {
            out.push_bytes(std::mem::replace(&mut self.out, Buf::empty()).freeze());
        }
    }
}

/// Receiving.
impl Client {
    /// Takes bytes that have come; those before are used up.
    pub fn receive(&mut self, input: Bytes) {
        debug_assert!(self.input.is_empty());
        self.input = input;
    }

    /// What the bytes mean. After a fault the connection must be closed.
    pub fn next_event(&mut self) -> Result<ClientEvent, ServerFault> {
        loop {
            let frame = match self.reader.next(&mut self.input) {
                Ok(frame) => frame,
                Err(error) => return invalid(frame_fault(error, self.reader.header())),
            };
            let Some(frame) = frame else {
                return Ok(if self.has_ended() { ClientEvent::End } else { ClientEvent::More });
            };
            if let Some(event) = self.frame(frame)? {
                return Ok(event);
            }
        }
    }

    fn frame(&mut self, frame: Frame) -> Result<Option<ClientEvent>, ServerFault> {
        match frame {
            Frame::DataStart { stream, length, padding, end_stream } => {
                self.data_start(stream, length, length - padding, end_stream)
            }
            Frame::Data { bytes, last } => Ok(self.data(bytes, last)),
            Frame::HeadersStart { stream, end_stream, .. } => self.headers_start(stream, end_stream),
            Frame::Fragment { bytes, continues, last } => self.fragment(&bytes, continues, last),
            Frame::Reset { stream, code } => self.reset(stream, code),
            Frame::Setting { id, value } => self.setting(id, value),
            Frame::SettingsEnd { ack: false } => self.settings_end(),
            Frame::Ping { ack: false, data } => {
                write_ping(&mut self.out, true, data);
                self.answered("ping")
            }
            Frame::GoAway { last_stream, code } => self.go_away(last_stream, code),
            Frame::WindowUpdate { stream, increment } => self.window_update(stream, increment),
            Frame::SettingsEnd { ack: true }
            | Frame::Ping { ack: true, .. }
            | Frame::Priority { .. }
            | Frame::PriorityUpdate { .. }
            | Frame::Ignored => self.useless(1),
        }
    }

    /// Counts frames that bring the response no further.
    fn useless(&mut self, n: u32) -> Result<Option<ClientEvent>, ServerFault> {
        self.useless += n;
        if self.useless > MAX_USELESS { invalid("upstream sent too many control frames") } else { Ok(None) }
    }

    /// Counts an answer that was just queued.
    fn answered(&mut self, to: &str) -> Result<Option<ClientEvent>, ServerFault> {
        self.answers += 1;
        if self.answers > MAX_ANSWERS {
            invalid(format!("upstream sent too many {to} frames"))
        } else {
            self.useless(1)
        }
    }

    /// A frame of the response must be of the stream that is open.
    fn check_stream(&self, stream: u32) -> Result<(), ServerFault> {
        if stream != self.stream {
            return invalid(format!("upstream sent frame for unknown stream {stream}"));
        }
        if self.has_ended() {
            return invalid(format!("upstream sent frame for closed stream {stream}"));
        }
        Ok(())
    }

    fn data_start(
        &mut self,
        stream: u32,
        length: u32,
        payload: u32,
        end_stream: bool,
    ) -> Result<Option<ClientEvent>, ServerFault> {
        self.check_stream(stream)?;
        if self.stage == Stage::Head {
            return invalid("upstream sent unexpected http2 frame: 0");
        }
        for (window, name) in self.receive_window.into_iter().zip(["stream", "connection"]) {
            if i64::from(length) > window {
                let text = format!("received {length} data frame with window {window}");
                return invalid(format!("upstream violated {name} flow control, {text}"));
            }
        }
        self.took(length);
        let payload = u64::from(payload);
        if let Some(missing) = &mut self.missing {
            let Some(left) = missing.checked_sub(payload) else {
                return invalid("upstream sent response body larger than indicated content length");
            };
            if end_stream && left > 0 {
                return invalid("upstream prematurely closed stream");
            }
            *missing = left;
        }
        self.data_ends = end_stream;
        if payload > 0 || end_stream { Ok(None) } else { self.useless(1) }
    }

    /// Counts what the server has sent against its windows, and opens them again before they are half used up: nothing is
    /// buffered here, and whoever reads slowly doesn't call.
    fn took(&mut self, length: u32) {
        let full = i64::from(MAX_WINDOW);
        for (window, stream) in self.receive_window.iter_mut().zip([self.stream, 0]) {
            *window -= i64::from(length);
            if *window < full / 2 {
                write_window_update(&mut self.out, stream, (full - *window) as u32);
                *window = full;
            }
        }
    }

    fn data(&mut self, bytes: Bytes, last: bool) -> Option<ClientEvent> {
        if last && self.data_ends {
            self.stage = Stage::Ended;
        }
        if bytes.is_empty() {
            return None;
        }
        self.useless = 0;
        Some(ClientEvent::Data(bytes))
    }

    fn headers_start(&mut self, stream: u32, end_stream: bool) -> Result<Option<ClientEvent>, ServerFault> {
        self.check_stream(stream)?;
        let kind = match self.stage {
            Stage::Head => HeadKind::Response,
            _ if !end_stream => return invalid("upstream sent trailer without end stream flag"),
            _ if self.missing.is_some_and(|missing| missing > 0) => {
                return invalid("upstream prematurely closed stream");
            }
            _ => HeadKind::Trailers,
        };
        self.decoder.begin();
        self.head.clear();
        self.block = Some(Block { kind, end_stream, continuations: 0, carry: Carry::default() });
        Ok(None)
    }

    fn fragment(&mut self, bytes: &[u8], continues: bool, last: bool) -> Result<Option<ClientEvent>, ServerFault> {
        let Some(mut block) = self.block.take() else { return Ok(None) };
        block.continuations += u32::from(continues);
        if block.continuations > MAX_CONTINUATIONS {
            return invalid("upstream sent too many continuation frames");
        }
        let limits = FieldLimits { field: self.limits.head, text: self.limits.head };
        let rules = Rules { kind: Some(block.kind), limits, fields: usize::MAX };
        let decoded = block.carry.decode(&mut self.decoder, &mut self.head, bytes, &rules);
        decoded.or_else(|error| invalid(block_fault(error)))?;
        if !last {
            self.block = Some(block);
            return Ok(None);
        }
        if !block.carry.is_empty() {
            return invalid("upstream sent truncated http2 header");
        }
        self.head.finish(block.kind, block.end_stream, false);
        match (self.head.error, block.kind) {
            (Some(error), kind) => invalid(head_fault(error, kind, &self.head.text)),
            (None, HeadKind::Trailers) => {
                self.stage = Stage::Ended;
                Ok(Some(ClientEvent::Trailers))
            }
            (None, _) => self.response(block.end_stream),
        }
    }

    fn response(&mut self, end_stream: bool) -> Result<Option<ClientEvent>, ServerFault> {
        match self.head.status {
            101 => return invalid("upstream sent unexpected :status \"101\""),
            100..=199 if end_stream => return invalid("upstream prematurely closed stream"),
            100..=199 => {
                self.useless(INTERIM)?;
                return Ok(Some(ClientEvent::Interim));
            }
            _ => {}
        }
        self.useless = 0;
        let bodiless = self.to_head || matches!(self.head.status, 204 | 304);
        self.missing = if bodiless { Some(0) } else { self.head.content_length };
        if end_stream && self.missing.is_some_and(|missing| missing > 0) {
            return invalid("upstream prematurely closed stream");
        }
        self.stage = if end_stream { Stage::Ended } else { Stage::Body };
        Ok(Some(ClientEvent::Head))
    }

    fn reset(&mut self, stream: u32, code: Code) -> Result<Option<ClientEvent>, ServerFault> {
        if self.is_former(stream) {
            return self.useless(1);
        }
        match self.stage {
            Stage::Ended if stream == self.stream && code == Code::NO_ERROR => {
                self.stage = Stage::Reset;
                return Ok(None);
            }
            Stage::Ended if stream == self.stream => {}
            _ => self.check_stream(stream)?,
        }
        let refused = code == Code::REFUSED_STREAM && self.stage == Stage::Head;
        let kind = if refused { ServerFaultKind::Refused } else { ServerFaultKind::Invalid };
        Err(ServerFault { kind, text: format!("upstream rejected request with error {}", code.0) })
    }

    /// Whether a stream was the one of an exchange before.
    fn is_former(&self, stream: u32) -> bool {
        stream < self.stream && stream % 2 == 1
    }

    fn setting(&mut self, id: u16, value: u32) -> Result<Option<ClientEvent>, ServerFault> {
        let settings = self.new_settings.get_or_insert(self.peer);
        if let Err(error) = settings.apply(id, value, true) {
            return invalid(match error.reason {
                Reason::InitialWindow => {
                    format!("upstream sent settings frame with too large initial window size: {value}")
                }
                Reason::MaxFrameSize => format!("upstream sent settings frame with invalid max frame size: {value}"),
                _ => format!("upstream sent settings frame with invalid value {value} of {id}"),
            });
        }
        Ok(None)
    }

    fn settings_end(&mut self) -> Result<Option<ClientEvent>, ServerFault> {
        if let Some(settings) = self.new_settings.take() {
            let delta = i64::from(settings.initial_window_size) - i64::from(self.peer.initial_window_size);
            self.peer = settings;
            self.encoder.set_max_size(settings.header_table_size);
            self.widen(STREAM, delta)?;
        }
        write_frame(&mut self.out, Kind::Settings, flag::ACK, 0, &[]);
        self.answered("settings")
    }

    fn widen(&mut self, window: usize, by: i64) -> Result<(), ServerFault> {
        self.send_window[window] += by;
        if self.send_window[window] > i64::from(MAX_WINDOW) {
            return invalid("upstream sent too large window update");
        }
        Ok(())
    }

    fn window_update(&mut self, stream: u32, increment: u32) -> Result<Option<ClientEvent>, ServerFault> {
        if increment == 0 {
            return invalid("upstream sent zero window update");
        }
        match stream {
            0 => self.widen(CONNECTION, i64::from(increment))?,
            _ if stream == self.stream && self.stage == Stage::Reset => self.check_stream(stream)?,
            _ if stream == self.stream => self.widen(STREAM, i64::from(increment))?,
            _ if self.is_former(stream) => {}
            _ => self.check_stream(stream)?,
        }
        self.useless(1)
    }

    fn go_away(&mut self, last_stream: u32, code: Code) -> Result<Option<ClientEvent>, ServerFault> {
        self.going_away = true;
        let kind = match self.stage {
            Stage::Ended | Stage::Reset => return Ok(None),
            _ if last_stream >= self.stream => return self.useless(1),
            Stage::Head if code == Code::NO_ERROR => ServerFaultKind::Leaving,
            Stage::Head => ServerFaultKind::Refused,
            Stage::Body => ServerFaultKind::Invalid,
        };
        Err(ServerFault { kind, text: format!("upstream sent goaway with error {}", code.0) })
    }
}

/// What is wrong with a frame by itself.
fn frame_fault(error: ConnectionError, header: FrameHeader) -> String {
    let FrameHeader { length, kind, stream, .. } = header;
    let name = match kind {
        Kind::Data => "data",
        Kind::Headers => "headers",
        Kind::Priority => "priority",
        Kind::Reset => "rst stream",
        Kind::Settings => "settings",
        Kind::Ping => "ping",
        Kind::GoAway => "goaway",
        Kind::WindowUpdate => "window update",
        Kind::PushPromise | Kind::Continuation | Kind::PriorityUpdate | Kind::Unknown(_) => "http2",
    };
    match error.reason {
        Reason::FrameTooLarge => format!("upstream sent too large http2 frame: {length}"),
        Reason::PushPromise => "upstream sent unexpected push promise frame".to_owned(),
        Reason::ContinuationExpected | Reason::UnexpectedContinuation => {
            format!("upstream sent unexpected http2 frame: {}", kind.number())
        }
        Reason::StreamId | Reason::HeadersId => format!("upstream sent {name} frame with incorrect stream {stream}"),
        Reason::Padding => format!("upstream sent http2 frame with too long padding in frame {length}"),
        Reason::FrameSize => format!("upstream sent {name} frame with invalid length: {length}"),
        reason => format!("upstream {reason}"),
    }
}

/// Why a header block can't be decoded.
fn block_fault(error: ConnectionError) -> String {
    match error.reason {
        Reason::NoName => "upstream sent zero http2 header name length",
        Reason::TableIndex => "upstream sent invalid http2 table index",
        Reason::TableSize => "upstream sent invalid http2 dynamic table size update",
        Reason::FieldTooLarge | Reason::ListTooLarge => "upstream sent too big header",
        _ => "upstream sent invalid encoded header",
    }
    .to_owned()
}

/// What is wrong with a head or with trailers.
fn head_fault(error: HeadError, kind: HeadKind, text: &[u8]) -> String {
    let shown = |span: crate::Span| buf::text::encode(span.of(text)).into_owned();
    let what = if kind == HeadKind::Trailers { "trailer" } else { "header" };
    match error {
        HeadError::InvalidName(name) => format!("upstream sent invalid {what}: \"{}\"", shown(name)),
        HeadError::InvalidValue { name, value } => {
            format!("upstream sent invalid {what}: \"{}: {}\"", shown(name), shown(value))
        }
        HeadError::InvalidStatus(value) => format!("upstream sent invalid :status \"{}\"", shown(value)),
        HeadError::DuplicatePseudo(name) => format!("upstream sent duplicate {} header", shown(name)),
        HeadError::UnknownPseudo(name) => format!("upstream sent invalid {what} \"{}\"", shown(name)),
        HeadError::LatePseudo | HeadError::MissingPseudo(_) => "upstream sent no :status header".to_owned(),
        HeadError::InvalidContentLength => "upstream sent invalid \"Content-Length\" header".to_owned(),
        _ => format!("upstream sent invalid {what}"),
    }
}
