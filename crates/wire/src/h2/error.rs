//! What can go wrong on a connection, with the code that the peer is told and nginx's words for the log.

use std::fmt;

use crate::hpack::DecodeError;

/// An error code of RST_STREAM and GOAWAY (RFC 9113 §7). Unknown ones are kept as they came.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

impl Code {
    /// No error: a graceful end, or "the rest of your request isn't needed".
    pub const NO_ERROR: Code = Code(0);
    /// The peer broke a rule that has no code of its own.
    pub const PROTOCOL_ERROR: Code = Code(1);
    /// The fault is ours.
    pub const INTERNAL_ERROR: Code = Code(2);
    /// More bytes than the window allows.
    pub const FLOW_CONTROL_ERROR: Code = Code(3);
    /// SETTINGS weren't acknowledged in time.
    pub const SETTINGS_TIMEOUT: Code = Code(4);
    /// A frame for a stream that is half-closed.
    pub const STREAM_CLOSED: Code = Code(5);
    /// A frame of a wrong size.
    pub const FRAME_SIZE_ERROR: Code = Code(6);
    /// The request wasn't begun and may be sent again.
    pub const REFUSED_STREAM: Code = Code(7);
    /// The stream isn't needed any more.
    pub const CANCEL: Code = Code(8);
    /// The header compression state is lost.
    pub const COMPRESSION_ERROR: Code = Code(9);
    /// A tunnel's connection was reset.
    pub const CONNECT_ERROR: Code = Code(10);
    /// The peer causes too much load.
    pub const ENHANCE_YOUR_CALM: Code = Code(11);
    /// The TLS parameters aren't good enough.
    pub const INADEQUATE_SECURITY: Code = Code(12);
    /// The request needs HTTP/1.1.
    pub const HTTP_1_1_REQUIRED: Code = Code(13);

    /// The RFC's name; empty for an unknown code.
    pub fn name(self) -> &'static str {
        NAMES.get(self.0 as usize).copied().unwrap_or_default()
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name().is_empty() { write!(f, "{:#x}", self.0) } else { f.write_str(self.name()) }
    }
}

/// The connection must end: its GOAWAY is queued already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionError {
    /// What the peer is told.
    pub code: Code,
    /// What the log is told.
    pub reason: Reason,
}

impl std::error::Error for ConnectionError {}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:ident $text:literal,)+) => {
        /// Why a connection or a stream was ended. [`fmt::Display`] gives nginx's words.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $($(#[$doc])* $name,)+
        }

        impl Reason {
            /// The code that goes with it.
            pub fn code(self) -> Code {
                match self {
                    $(Reason::$name => Code::$code,)+
                }
            }

            fn text(self) -> &'static str {
                match self {
                    $(Reason::$name => $text,)+
                }
            }
        }
    };
}

reasons! {
    /// The first bytes aren't the preface.
    Preface = PROTOCOL_ERROR "invalid connection preface",
    /// A frame is larger than allowed.
    FrameTooLarge = FRAME_SIZE_ERROR "frame of an unallowed length",
    /// The stream number of a frame is 0 where it mustn't be, the reverse, or one that isn't in use.
    StreamId = PROTOCOL_ERROR "frame with incorrect identifier",
    /// HEADERS with a number that isn't new, or of the wrong side.
    HeadersId = PROTOCOL_ERROR "HEADERS frame with incorrect identifier",
    /// A frame of fixed size has another.
    FrameSize = FRAME_SIZE_ERROR "frame with incorrect length",
    /// More padding than payload.
    Padding = PROTOCOL_ERROR "padded frame with incorrect length",
    /// CONTINUATION without HEADERS.
    UnexpectedContinuation = PROTOCOL_ERROR "unexpected CONTINUATION frame",
    /// Anything but CONTINUATION inside a header block.
    ContinuationExpected = PROTOCOL_ERROR "inappropriate frame while CONTINUATION was expected",
    /// PUSH_PROMISE, which a client mustn't send and a server mustn't send to us.
    PushPromise = PROTOCOL_ERROR "PUSH_PROMISE frame",
    /// A stream that depends on itself.
    SelfDependency = PROTOCOL_ERROR "frame with incorrect dependency",
    /// WINDOW_UPDATE by 0.
    ZeroIncrement = PROTOCOL_ERROR "WINDOW_UPDATE frame with incorrect window increment 0",
    /// WINDOW_UPDATE or SETTINGS lift a window above 2³¹ - 1.
    WindowOverflow = FLOW_CONTROL_ERROR "WINDOW_UPDATE frame with window increment not allowed",
    /// SETTINGS_INITIAL_WINDOW_SIZE above 2³¹ - 1.
    InitialWindow = FLOW_CONTROL_ERROR "SETTINGS frame with incorrect INITIAL_WINDOW_SIZE value",
    /// SETTINGS_MAX_FRAME_SIZE outside of 16384 to 2²⁴ - 1.
    MaxFrameSize = PROTOCOL_ERROR "SETTINGS frame with incorrect MAX_FRAME_SIZE value",
    /// Another setting that may be 0 or 1 is neither, or ENABLE_PUSH comes from a server.
    SettingValue = PROTOCOL_ERROR "SETTINGS frame with incorrect value",
    /// DATA beyond a window.
    FlowControl = FLOW_CONTROL_ERROR "DATA frame, violated flow control",
    /// DATA or trailers after the end of the stream.
    StreamClosed = STREAM_CLOSED "frame for half-closed stream",
    /// A header block ends inside a field.
    BlockTruncated = FRAME_SIZE_ERROR "header block with incorrect length",
    /// A header block can't be decoded.
    Compression = COMPRESSION_ERROR "invalid encoded header field",
    /// A field without a name.
    NoName = PROTOCOL_ERROR "zero header name length",
    /// An index that isn't in the tables.
    TableIndex = COMPRESSION_ERROR "invalid hpack table index",
    /// A table size that isn't allowed.
    TableSize = COMPRESSION_ERROR "invalid table size update",
    /// A name or value is too long.
    FieldTooLarge = ENHANCE_YOUR_CALM "too large header field",
    /// All fields together are too long.
    ListTooLarge = ENHANCE_YOUR_CALM "too large header",
    /// A header block in too many frames.
    TooManyContinuations = ENHANCE_YOUR_CALM "too many CONTINUATION frames",
    /// SETTINGS with too many parameters.
    TooManySettings = ENHANCE_YOUR_CALM "too many SETTINGS parameters",
    /// Frames that cost work and serve nothing.
    Flood = ENHANCE_YOUR_CALM "too many frames that serve nothing, http2 flood detected",
    /// Trailers or a response that isn't valid.
    Malformed = PROTOCOL_ERROR "malformed message",
    /// Too many streams at once, or too early.
    Refused = REFUSED_STREAM "request beyond concurrent streams",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sent {}", self.text())
    }
}

impl From<Reason> for ConnectionError {
    fn from(reason: Reason) -> ConnectionError {
        ConnectionError { code: reason.code(), reason }
    }
}

impl From<DecodeError> for ConnectionError {
    fn from(error: DecodeError) -> ConnectionError {
        let reason = match error {
            DecodeError::Index => Reason::TableIndex,
            DecodeError::Integer | DecodeError::Huffman => Reason::Compression,
            DecodeError::TableSize => Reason::TableSize,
            DecodeError::Truncated => Reason::BlockTruncated,
            DecodeError::FieldTooLarge => Reason::FieldTooLarge,
            DecodeError::ListTooLarge => Reason::ListTooLarge,
        };
        reason.into()
    }
}

const NAMES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(format!("{:?} {:?}", Code::ENHANCE_YOUR_CALM, Code(77)), "ENHANCE_YOUR_CALM 0x4d");
        assert_eq!(Reason::ListTooLarge.to_string(), "sent too large header");
        assert_eq!(ConnectionError::from(DecodeError::Truncated).code, Code::FRAME_SIZE_ERROR);
    }
}
