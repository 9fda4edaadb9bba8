//! Bytes to frames, however they are cut.
//!
//! Nothing is gathered but what is small and of fixed size: bodies and header blocks pass through in the parts in which
//! they arrive, so that a large frame costs no memory. The rules that need no state but the frame's own are
//! checked here: sizes, stream 0 or not, padding, and that nothing comes between the frames of a header block.

use buf::Bytes;

use super::error::{Code, ConnectionError, Reason};
use super::frame::{FRAME_HEADER_LEN, FrameHeader, Kind, flag};

/// A frame, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// DATA begins; its parts follow.
    DataStart {
        /// Of which stream.
        stream: u32,
        /// What counts for flow control: payload and padding.
        length: u32,
        /// How much of that is padding with its length.
        padding: u32,
        /// The peer sends no more.
        end_stream: bool,
    },
    /// A part of DATA.
    Data {
        /// The bytes; none in a last part that only ends the frame.
        bytes: Bytes,
        /// The frame is complete.
        last: bool,
    },
    /// HEADERS begin; fragments follow.
    HeadersStart {
        /// Of which stream.
        stream: u32,
        /// The peer sends no more after this header block.
        end_stream: bool,
        /// The dependency, if there is one.
        dependency: Option<Dependency>,
    },
    /// A part of a header block.
    Fragment {
        /// The bytes.
        bytes: Bytes,
        /// A CONTINUATION begins with it.
        continues: bool,
        /// The header block is complete.
        last: bool,
    },
    /// PRIORITY.
    Priority {
        /// Of which stream.
        stream: u32,
        /// On what it depends.
        dependency: Dependency,
    },
    /// RST_STREAM.
    Reset {
        /// Of which stream.
        stream: u32,
        /// Why.
        code: Code,
    },
    /// One parameter of SETTINGS.
    Setting {
        /// Its number.
        id: u16,
        /// Its value.
        value: u32,
    },
    /// The end of SETTINGS.
    SettingsEnd {
        /// It is an answer.
        ack: bool,
    },
    /// PING.
    Ping {
        /// It is an answer.
        ack: bool,
        /// To be sent back.
        data: [u8; 8],
    },
    /// GOAWAY.
    GoAway {
        /// Streams above it weren't served.
        last_stream: u32,
        /// Why.
        code: Code,
    },
    /// WINDOW_UPDATE.
    WindowUpdate {
        /// Of which stream, or 0.
        stream: u32,
        /// By how much.
        increment: u32,
    },
    /// PRIORITY_UPDATE (RFC 9218 §7.1).
    PriorityUpdate {
        /// Of which stream.
        stream: u32,
        /// The value, as of the Priority header; cut where it is longer than any real one.
        value: Bytes,
    },
    /// A frame that means nothing here has gone by.
    Ignored,
}

/// Dependency and weight of RFC 7540 §5.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The stream it depends on, or 0.
    pub parent: u32,
    /// It takes the place of all others that depend on that stream.
    pub exclusive: bool,
    /// 1 to 256.
    pub weight: u16,
}

/// Reads the frames of one direction.
#[derive(Debug)]
pub struct FrameReader {
    /// The largest payload that was allowed.
    max_frame_size: u32,
    stage: Stage,
    header: FrameHeader,
    /// Payload that hasn't been looked at, without padding once that is known.
    remaining: u32,
    padding: u8,
    /// The stream of the header block that isn't complete.
    block: Option<u32>,
    small: [u8; SMALL],
    small_len: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The nine bytes.
    Header,
    /// So many bytes of the payload belong together.
    Small(u8),
    /// Parts of DATA or a header block; the first one says that a frame begins.
    Parts { first: bool },
    /// Padding and what else is skipped.
    Skip,
}

/// The most bytes that are gathered.
const SMALL: usize = 64;

impl FrameReader {
    /// A reader for a peer that was told this SETTINGS_MAX_FRAME_SIZE.
    pub fn new(max_frame_size: u32) -> FrameReader {
        FrameReader {
            max_frame_size,
            stage: Stage::Header,
            header: FrameHeader { length: 0, kind: Kind::Unknown(0), flags: 0, stream: 0 },
            remaining: 0,
            padding: 0,
            block: None,
            small: [0; SMALL],
            small_len: 0,
        }
    }

    /// Reads the next frame or part; `None` when `input` is used up.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Frame>, ConnectionError> {
        loop {
            let frame = match self.stage {
                Stage::Header => {
                    if !self.gather(FRAME_HEADER_LEN, input) {
                        return Ok(None);
                    }
                    self.begin()?
                }
                Stage::Small(n) => {
                    if !self.gather(usize::from(n), input) {
                        return Ok(None);
                    }
                    self.small_frame()?
                }
                Stage::Parts { first } => {
                    if input.is_empty() && self.remaining > 0 {
                        return Ok(None);
                    }
                    Some(self.part(first, input))
                }
                Stage::Skip => {
                    if !self.skip(input) {
                        return Ok(None);
                    }
                    self.end_of_parts()
                }
            };
            if frame.is_some() {
                return Ok(frame);
            }
        }
    }

    /// The nine bytes of the frame that is being read, or was read last: for log lines.
    pub fn header(&self) -> FrameHeader {
        self.header
    }

    /// Whether the input so far ends between two frames, outside of a header block.
    pub fn is_between_frames(&self) -> bool {
        self.stage == Stage::Header && self.small_len == 0 && self.block.is_none()
    }

    /// Gathers `n` bytes in `small`; whether they are all there.
    fn gather(&mut self, n: usize, input: &mut Bytes) -> bool {
        let have = usize::from(self.small_len);
        let take = (n - have).min(input.len());
        self.small[have..have + take].copy_from_slice(&input[..take]);
        input.advance(take);
        self.small_len = (have + take) as u8;
        have + take == n
    }

    /// Acts on the nine bytes.
    fn begin(&mut self) -> Result<Option<Frame>, ConnectionError> {
        self.small_len = 0;
        let (header, _) = self.small.split_first_chunk::<FRAME_HEADER_LEN>().expect("small is larger");
        self.header = FrameHeader::parse(header);
        self.check()?;
        self.remaining = self.header.length;
        self.padding = 0;
        self.stage = match self.header.kind {
            Kind::Data => self.with_prefix(u32::from(self.header.has(flag::PADDED)))?,
            Kind::Headers => {
                let padded = u32::from(self.header.has(flag::PADDED));
                self.with_prefix(padded + if self.header.has(flag::PRIORITY) { 5 } else { 0 })?
            }
            Kind::Continuation => {
                self.end_block_if_told();
                Stage::Parts { first: true }
            }
            Kind::Settings if self.remaining == 0 => return Ok(Some(self.settings_end())),
            Kind::Settings => Stage::Small(6),
            Kind::Priority => Stage::Small(5),
            Kind::Reset | Kind::WindowUpdate => Stage::Small(4),
            Kind::Ping | Kind::GoAway => Stage::Small(8),
            Kind::PriorityUpdate => Stage::Small(self.remaining.min(SMALL as u32) as u8),
            Kind::Unknown(_) | Kind::PushPromise => Stage::Skip,
        };
        if self.stage == Stage::Small(0) { self.small_frame() } else { Ok(None) }
    }

    /// The rules that the nine bytes alone can break.
    fn check(&self) -> Result<(), ConnectionError> {
        let FrameHeader { length, kind, stream, .. } = self.header;
        if length > self.max_frame_size {
            return Err(Reason::FrameTooLarge.into());
        }
        match self.block {
            Some(_) if kind != Kind::Continuation => return Err(Reason::ContinuationExpected.into()),
            Some(block) if block != stream => return Err(Reason::StreamId.into()),
            None if kind == Kind::Continuation => return Err(Reason::UnexpectedContinuation.into()),
            _ => {}
        }
        let good_size = match kind {
            Kind::Settings if self.header.has(flag::ACK) => length == 0,
            Kind::Settings => length.is_multiple_of(6),
            Kind::Priority => length == 5,
            Kind::Reset | Kind::WindowUpdate => length == 4,
            Kind::Ping => length == 8,
            Kind::GoAway => length >= 8,
            Kind::PriorityUpdate => length >= 4,
            _ => true,
        };
        let good_stream = match kind {
            Kind::Data | Kind::Headers | Kind::Priority | Kind::Reset | Kind::Continuation => stream != 0,
            Kind::Settings | Kind::Ping | Kind::GoAway | Kind::PriorityUpdate => stream == 0,
            Kind::WindowUpdate | Kind::PushPromise | Kind::Unknown(_) => true,
        };
        match kind {
            Kind::PushPromise => Err(Reason::PushPromise.into()),
            _ if !good_size => Err(Reason::FrameSize.into()),
            _ if !good_stream => Err(if kind == Kind::Headers { Reason::HeadersId } else { Reason::StreamId }.into()),
            _ => Ok(()),
        }
    }

    /// DATA or HEADERS with `prefix` bytes before the payload proper.
    fn with_prefix(&mut self, prefix: u32) -> Result<Stage, ConnectionError> {
        if prefix > self.remaining {
            return Err(Reason::FrameSize.into());
        }
        Ok(Stage::Small(prefix as u8))
    }

    /// Acts on bytes that are there as a whole.
    fn small_frame(&mut self) -> Result<Option<Frame>, ConnectionError> {
        let n = u32::from(self.small_len);
        self.small_len = 0;
        self.remaining -= n;
        let stream = self.header.stream;
        let ack = self.header.has(flag::ACK);
        let frame = match self.header.kind {
            Kind::Data => return self.data_start().map(Some),
            Kind::Headers => return self.headers_start().map(Some),
            Kind::Settings => {
                self.stage = if self.remaining == 0 { Stage::Skip } else { Stage::Small(6) };
                let id = u16::from_be_bytes([self.small[0], self.small[1]]);
                return Ok(Some(Frame::Setting { id, value: self.number(2) }));
            }
            Kind::Priority => {
                let dependency = self.dependency(0)?;
                Frame::Priority { stream, dependency }
            }
            Kind::Reset => Frame::Reset { stream, code: Code(self.number(0)) },
            Kind::WindowUpdate => Frame::WindowUpdate { stream, increment: self.number(0) & 0x7fff_ffff },
            Kind::Ping => {
                let (data, _) = self.small.split_first_chunk().expect("small is larger");
                Frame::Ping { ack, data: *data }
            }
            Kind::GoAway => Frame::GoAway { last_stream: self.number(0) & 0x7fff_ffff, code: Code(self.number(4)) },
            Kind::PriorityUpdate => {
                let value = Bytes::copy_from(&self.small[4..(n as usize).max(4)]);
                Frame::PriorityUpdate { stream: self.number(0) & 0x7fff_ffff, value }
            }
            Kind::Continuation | Kind::PushPromise | Kind::Unknown(_) => Frame::Ignored,
        };
        self.stage = if self.remaining == 0 { Stage::Header } else { Stage::Skip };
        Ok(Some(frame))
    }

    fn data_start(&mut self) -> Result<Frame, ConnectionError> {
        let padded = self.header.has(flag::PADDED);
        self.padding(padded)?;
        self.stage = Stage::Parts { first: true };
        Ok(Frame::DataStart {
            stream: self.header.stream,
            length: self.header.length,
            padding: u32::from(padded) + u32::from(self.padding),
            end_stream: self.header.has(flag::END_STREAM),
        })
    }

    fn headers_start(&mut self) -> Result<Frame, ConnectionError> {
        let padded = self.header.has(flag::PADDED);
        self.padding(padded)?;
        let dependency =
            if self.header.has(flag::PRIORITY) { Some(self.dependency(usize::from(padded))?) } else { None };
        self.block = Some(self.header.stream);
        self.end_block_if_told();
        self.stage = Stage::Parts { first: true };
        let end_stream = self.header.has(flag::END_STREAM);
        Ok(Frame::HeadersStart { stream: self.header.stream, end_stream, dependency })
    }

    /// Takes the padding off what remains.
    fn padding(&mut self, padded: bool) -> Result<(), ConnectionError> {
        self.padding = if padded { self.small[0] } else { 0 };
        self.remaining = self.remaining.checked_sub(u32::from(self.padding)).ok_or(Reason::Padding)?;
        Ok(())
    }

    fn dependency(&self, at: usize) -> Result<Dependency, ConnectionError> {
        let word = self.number(at);
        let parent = word & 0x7fff_ffff;
        if parent == self.header.stream {
            return Err(Reason::SelfDependency.into());
        }
        Ok(Dependency { parent, exclusive: word >> 31 != 0, weight: u16::from(self.small[at + 4]) + 1 })
    }

    fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.small[at], self.small[at + 1], self.small[at + 2], self.small[at + 3]])
    }

    fn end_block_if_told(&mut self) {
        if self.header.has(flag::END_HEADERS) {
            self.block = None;
        }
    }

    /// The next part of DATA or of a header block.
    fn part(&mut self, first: bool, input: &mut Bytes) -> Frame {
        let n = input.len().min(self.remaining as usize);
        let bytes = input.slice(0..n);
        input.advance(n);
        self.remaining -= n as u32;
        let complete = self.remaining == 0;
        self.stage = match complete {
            true if self.padding == 0 => Stage::Header,
            true => Stage::Skip,
            false => Stage::Parts { first: false },
        };
        let complete = complete && self.padding == 0;
        match self.header.kind {
            Kind::Data => Frame::Data { bytes, last: complete },
            kind => {
                let continues = first && kind == Kind::Continuation;
                Frame::Fragment { bytes, continues, last: complete && self.block.is_none() }
            }
        }
    }

    /// Passes over payload and padding; whether it is all gone.
    fn skip(&mut self, input: &mut Bytes) -> bool {
        let rest = self.remaining + u32::from(self.padding);
        let n = input.len().min(rest as usize);
        input.advance(n);
        let of_padding = n.min(usize::from(self.padding)) as u32;
        self.padding -= of_padding as u8;
        self.remaining -= n as u32 - of_padding;
        self.remaining == 0 && self.padding == 0
    }

    /// What the end of a skipped part means.
    fn end_of_parts(&mut self) -> Option<Frame> {
        self.stage = Stage::Header;
        match self.header.kind {
            Kind::Data => Some(Frame::Data { bytes: Bytes::default(), last: true }),
            Kind::Headers => {
                Some(Frame::Fragment { bytes: Bytes::default(), continues: false, last: self.block.is_none() })
            }
            Kind::Settings => Some(self.settings_end()),
            Kind::Unknown(_) => Some(Frame::Ignored),
            _ => None,
        }
    }

    fn settings_end(&mut self) -> Frame {
        self.stage = Stage::Header;
        Frame::SettingsEnd { ack: self.header.has(flag::ACK) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of every kind, some with padding and priority.
    fn input() -> Vec<u8> {
        let frame = |kind: Kind, flags: u8, stream: u32, payload: &[u8]| {
            let header = FrameHeader { length: payload.len() as u32, kind, flags, stream };
            [&header.bytes()[..], payload].concat()
        };
        [
            frame(Kind::Settings, 0, 0, &[0, 3, 0, 0, 0, 100, 0, 4, 0, 1, 0, 0]),
            frame(Kind::Settings, flag::ACK, 0, b""),
            frame(Kind::Headers, 0x29, 1, &[2, 0x80, 0, 0, 3, 15, b'a', b'b', 0, 0]),
            frame(Kind::Continuation, 0, 1, b""),
            frame(Kind::Continuation, flag::END_HEADERS, 1, b"cd"),
            frame(Kind::Data, 9, 1, &[1, b'e', b'f', 0]),
            frame(Kind::Data, 0, 1, b""),
            frame(Kind::Priority, 0, 3, &[0, 0, 0, 1, 255]),
            frame(Kind::Reset, 0, 3, &[0, 0, 0, 8]),
            frame(Kind::Ping, 0, 0, b"SEE-THIS"),
            frame(Kind::GoAway, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 2, b'x', b'y']),
            frame(Kind::WindowUpdate, 0, 0, &[0x80, 0, 0, 9]),
            frame(Kind::PriorityUpdate, 0, 0, &[0, 0, 0, 5, b'u', b'=', b'1']),
            frame(Kind::Unknown(77), 0xff, 9, b"whatever"),
        ]
        .concat()
    }

    fn dependency(parent: u32, exclusive: bool, weight: u16) -> Dependency {
        Dependency { parent, exclusive, weight }
    }

    fn expected() -> Vec<Frame> {
        vec![
            Frame::Setting { id: 3, value: 100 },
            Frame::Setting { id: 4, value: 65_536 },
            Frame::SettingsEnd { ack: false },
            Frame::SettingsEnd { ack: true },
            Frame::HeadersStart { stream: 1, end_stream: true, dependency: Some(dependency(3, true, 16)) },
            Frame::DataStart { stream: 1, length: 4, padding: 2, end_stream: true },
            Frame::DataStart { stream: 1, length: 0, padding: 0, end_stream: false },
            Frame::Priority { stream: 3, dependency: dependency(1, false, 256) },
            Frame::Reset { stream: 3, code: Code::CANCEL },
            Frame::Ping { ack: false, data: *b"SEE-THIS" },
            Frame::GoAway { last_stream: 1, code: Code::INTERNAL_ERROR },
            Frame::WindowUpdate { stream: 0, increment: 9 },
            Frame::PriorityUpdate { stream: 5, value: Bytes::from_static(b"u=1") },
            Frame::Ignored,
        ]
    }

    #[test]
    fn the_same_at_every_cut() {
        let input = input();
        for cut in 0..=input.len() {
            let (mut reader, mut frames, mut parts, mut ends) = (FrameReader::new(16_384), Vec::new(), Vec::new(), 0);
            for part in [&input[..cut], &input[cut..]] {
                let mut part = Bytes::copy_from(part);
                while let Some(frame) = reader.next(&mut part).unwrap() {
                    match frame {
                        Frame::Data { bytes, last } | Frame::Fragment { bytes, last, .. } => {
                            parts.extend_from_slice(&bytes);
                            ends += u32::from(last);
                        }
                        frame => frames.push(frame),
                    }
                }
                assert!(part.is_empty());
            }
            assert_eq!((frames, &parts[..], ends), (expected(), &b"abcdef"[..], 3), "cut at {cut}");
            assert!(reader.is_between_frames());
        }
    }

    #[test]
    fn bodies_pass_through() {
        let mut reader = FrameReader::new(1 << 20);
        let header = FrameHeader { length: 1 << 20, kind: Kind::Data, flags: 0, stream: 1 };
        assert!(reader.next(&mut Bytes::copy_from(&header.bytes())).is_ok_and(|frame| frame.is_some()));
        let part = Bytes::from(vec![7; 1000]);
        let address = part.as_ptr();
        let Ok(Some(Frame::Data { bytes, last: false })) = reader.next(&mut part.clone()) else { panic!("a part") };
        assert_eq!((bytes.len(), bytes.as_ptr()), (1000, address), "not a copy");
    }

    #[test]
    fn frames_above_the_limit() {
        for (length, good) in [(16_384, true), (16_385, false)] {
            let header = FrameHeader { length, kind: Kind::Data, flags: 0, stream: 1 };
            assert_eq!(FrameReader::new(16_384).next(&mut Bytes::copy_from(&header.bytes())).is_ok(), good);
        }
    }
}
