//! Frames as bytes (RFC 9113 §4, §6): the nine bytes before each, and the small frames in full.

use buf::Buf;

use super::error::Code;

/// What both sides begin with; a client's first bytes (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes before a frame's payload.
pub const FRAME_HEADER_LEN: usize = 9;

/// The largest payload where nothing else is agreed on, and the smallest limit that may be.
pub const DEFAULT_FRAME_SIZE: u32 = 16_384;

/// The largest limit for a payload that may be agreed on.
pub const MAX_FRAME_SIZE: u32 = (1 << 24) - 1;

/// The largest window.
pub const MAX_WINDOW: u32 = (1 << 31) - 1;

/// Windows where nothing else is said.
pub const DEFAULT_WINDOW: u32 = 65_535;

/// Flags; each has a meaning for some kinds only.
pub mod flag {
    /// DATA, HEADERS: the last frame of this side.
    pub const END_STREAM: u8 = 0x1;
    /// SETTINGS, PING: an answer.
    pub const ACK: u8 = 0x1;
    /// HEADERS, CONTINUATION: the header block is complete.
    pub const END_HEADERS: u8 = 0x4;
    /// DATA, HEADERS: padding follows.
    pub const PADDED: u8 = 0x8;
    /// HEADERS: a dependency comes first.
    pub const PRIORITY: u8 = 0x20;
}

/// Settings' numbers (RFC 9113 §6.5.2, RFC 8441, RFC 9218).
pub mod setting {
    /// Size of the table for header compression.
    pub const HEADER_TABLE_SIZE: u16 = 1;
    /// Whether a server may push.
    pub const ENABLE_PUSH: u16 = 2;
    /// How many streams the other side may have open.
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    /// Window of new streams.
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    /// The largest payload.
    pub const MAX_FRAME_SIZE: u16 = 5;
    /// The largest list of fields.
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
    /// Extended CONNECT is served.
    pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;
    /// Dependencies and weights mean nothing.
    pub const NO_RFC7540_PRIORITIES: u16 = 9;
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A part of a body.
    Data,
    /// Begins a header block.
    Headers,
    /// Dependency and weight, of old.
    Priority,
    /// Ends a stream at once.
    Reset,
    /// Parameters of the connection.
    Settings,
    /// Announces a pushed response.
    PushPromise,
    /// Asks for an answer.
    Ping,
    /// No streams above a number will be served.
    GoAway,
    /// More may be sent.
    WindowUpdate,
    /// Goes on with a header block.
    Continuation,
    /// Priority by RFC 9218.
    PriorityUpdate,
    /// Anything else: to be ignored.
    Unknown(u8),
}

impl Kind {
    /// The kind of this number.
    pub fn of(number: u8) -> Kind {
        match number {
            0 => Kind::Data,
            1 => Kind::Headers,
            2 => Kind::Priority,
            3 => Kind::Reset,
            4 => Kind::Settings,
            5 => Kind::PushPromise,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            9 => Kind::Continuation,
            16 => Kind::PriorityUpdate,
            other => Kind::Unknown(other),
        }
    }

    /// Its number.
    pub fn number(self) -> u8 {
        match self {
            Kind::Data => 0,
            Kind::Headers => 1,
            Kind::Priority => 2,
            Kind::Reset => 3,
            Kind::Settings => 4,
            Kind::PushPromise => 5,
            Kind::Ping => 6,
            Kind::GoAway => 7,
            Kind::WindowUpdate => 8,
            Kind::Continuation => 9,
            Kind::PriorityUpdate => 16,
            Kind::Unknown(number) => number,
        }
    }
}

/// The nine bytes before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Length of the payload.
    pub length: u32,
    /// What it is.
    pub kind: Kind,
    /// See [`flag`].
    pub flags: u8,
    /// The stream, or 0 for the connection.
    pub stream: u32,
}

impl FrameHeader {
    /// Reads the nine bytes; the reserved bit is ignored.
    pub fn parse(bytes: &[u8; FRAME_HEADER_LEN]) -> FrameHeader {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes;
        FrameHeader {
            length: u32::from_be_bytes([0, l0, l1, l2]),
            kind: Kind::of(kind),
            flags,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        }
    }

    /// The nine bytes.
    pub fn bytes(self) -> [u8; FRAME_HEADER_LEN] {
        let [_, l0, l1, l2] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [l0, l1, l2, self.kind.number(), self.flags, s0, s1, s2, s3]
    }

    /// Whether all bits of `flag` are set.
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag == flag
    }
}

/// Appends a frame with a small payload.
pub fn write_frame(out: &mut Buf, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&FrameHeader { length: payload.len() as u32, kind, flags, stream }.bytes());
    out.extend_from_slice(payload);
}

/// Appends a header block: HEADERS, and as many CONTINUATION as the peer's frame size makes of it.
pub(super) fn write_block(out: &mut Buf, frame_size: u32, id: u32, end_stream: bool, block: &[u8]) {
    let mut rest = block;
    let (mut kind, mut flags) = (Kind::Headers, if end_stream { flag::END_STREAM } else { 0 });
    loop {
        let (part, behind) = rest.split_at(rest.len().min(frame_size as usize));
        flags |= if behind.is_empty() { flag::END_HEADERS } else { 0 };
        write_frame(out, kind, flags, id, part);
        if behind.is_empty() {
            return;
        }
        (rest, kind, flags) = (behind, Kind::Continuation, 0);
    }
}

/// Appends SETTINGS.
pub fn write_settings(out: &mut Buf, settings: &[(u16, u32)]) {
    let header = FrameHeader { length: 6 * settings.len() as u32, kind: Kind::Settings, flags: 0, stream: 0 };
    out.extend_from_slice(&header.bytes());
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends WINDOW_UPDATE.
pub fn write_window_update(out: &mut Buf, stream: u32, increment: u32) {
    write_frame(out, Kind::WindowUpdate, 0, stream, &increment.to_be_bytes());
}

/// Appends RST_STREAM.
pub fn write_reset(out: &mut Buf, stream: u32, code: Code) {
    write_frame(out, Kind::Reset, 0, stream, &code.0.to_be_bytes());
}

/// Appends PING.
pub fn write_ping(out: &mut Buf, ack: bool, data: [u8; 8]) {
    write_frame(out, Kind::Ping, if ack { flag::ACK } else { 0 }, 0, &data);
}

/// Appends GOAWAY without debug data.
pub fn write_go_away(out: &mut Buf, last_stream: u32, code: Code) {
    let payload = u64::from(last_stream) << 32 | u64::from(code.0);
    write_frame(out, Kind::GoAway, 0, 0, &payload.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back() {
        for number in 0..=255 {
            let header = FrameHeader { length: 0x12_3456, kind: Kind::of(number), flags: 0x2d, stream: 0x7fff_fffe };
            assert_eq!(header.kind.number(), number);
            assert_eq!(FrameHeader::parse(&header.bytes()), header);
        }
        assert_eq!(FrameHeader::parse(&[0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).stream, MAX_WINDOW);
    }

    #[test]
    fn small_frames() {
        let mut out = Buf::empty();
        write_settings(&mut out, &[(3, 128), (4, 65536), (5, MAX_FRAME_SIZE)]);
        assert_eq!(out[..9], [0, 0, 18, 4, 0, 0, 0, 0, 0]);
        assert_eq!(out[9..], [0, 3, 0, 0, 0, 128, 0, 4, 0, 1, 0, 0, 0, 5, 0, 255, 255, 255]);
        out.clear();
        write_go_away(&mut out, 7, Code::PROTOCOL_ERROR);
        assert_eq!(out[..], [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1]);
        out.clear();
        write_reset(&mut out, 5, Code::CANCEL);
        write_window_update(&mut out, 0, 1);
        write_ping(&mut out, true, *b"SEE-THIS");
        let expected =
            b"\0\0\x04\x03\0\0\0\0\x05\0\0\0\x08\0\0\x04\x08\0\0\0\0\0\0\0\0\x01\0\0\x08\x06\x01\0\0\0\0SEE-THIS";
        assert_eq!(&out[..], expected);
    }
}
