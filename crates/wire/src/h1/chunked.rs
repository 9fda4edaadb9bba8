//! Chunked bodies (RFC 9112 §7.1), decoded as they arrive.
//!
//! nginx's strictness since 1.29.4: every line ends in CRLF, a chunk size is hexadecimal digits with nothing before
//! them, below 2⁵⁹. Spaces and extensions after the size are skipped. Trailer lines are kept for whoever wants them.

use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use buf::{Bytes, Chain};

use super::fields::{FieldsError, HeaderSpan, parse_fields};
use buf::hex::value as hex;

/// The body isn't in chunks, or a line of it exceeds its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkedError {
    /// A byte that can't stand where it stands.
    Invalid,
    /// A chunk size of 2⁵⁹ or more.
    TooLargeChunk,
    /// Trailers longer than the limit of the decoder.
    TooLongTrailer,
}

impl fmt::Display for ChunkedError {
    /// nginx's words, which follow "client sent" or "upstream sent".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChunkedError::Invalid | ChunkedError::TooLargeChunk => "invalid chunked body",
            ChunkedError::TooLongTrailer => "too long trailer",
        })
    }
}

/// What one step over the input gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChunkEvent {
    /// The input is used up.
    More,
    /// These bytes of the input are body.
    Data(Range<usize>),
    /// The body is complete. Bytes after it belong to what follows.
    Done,
}

/// Decodes one chunked body.
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// Size of the chunk being read, then what is left of it.
    size: u64,
    trailers: Vec<u8>,
    /// `None`: they are skipped, however long they are.
    max_trailers: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    Start,
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line, or of the empty line.
    Trailer,
    TrailerLine,
    TrailerLf,
    EndLf,
    Done,
}

impl ChunkedDecoder {
    /// A decoder at the start of a body, whose trailers may take `max_trailers` bytes. Without a number they are skipped as
    /// they come, as extensions are, and may have any length.
    pub fn new(max_trailers: Option<usize>) -> ChunkedDecoder {
        ChunkedDecoder { state: State::Start, size: 0, trailers: Vec::new(), max_trailers }
    }

    /// How many bytes of the current chunk are still to come, once its size is known.
    pub fn chunk_left(&self) -> u64 {
        match self.state {
            State::SizeLf | State::Extension | State::Data => self.size,
            _ => 0,
        }
    }

    /// Takes one step over `input`: how many bytes it used, and what they were.
    ///
    /// Call it again with the rest until it answers [`ChunkEvent::More`] or [`ChunkEvent::Done`]. The bytes of
    /// [`ChunkEvent::Data`] end where the used bytes end.
    pub fn step(&mut self, input: &[u8]) -> Result<(usize, ChunkEvent), ChunkedError> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            if self.state == State::Done {
                return Ok((at, ChunkEvent::Done));
            }
            if self.state == State::Data {
                let left = input.len() - at;
                let take = usize::try_from(self.size).map_or(left, |size| size.min(left));
                self.size -= take as u64;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                return Ok((at + take, ChunkEvent::Data(at..at + take)));
            }
            self.byte(byte)?;
            at += 1;
        }
        Ok((at, if self.state == State::Done { ChunkEvent::Done } else { ChunkEvent::More }))
    }

    /// Whether the whole body has been seen.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// How many bytes are missing at least until the body may be complete: worth waiting for.
    pub fn wants(&self) -> u64 {
        const LAST: u64 = LAST_CHUNK.len() as u64;
        match self.state {
            State::Start | State::Size => LAST,
            State::Extension | State::SizeLf => 2 + self.size.saturating_add(LAST),
            State::Data | State::DataCr => self.size.saturating_add(2 + LAST),
            State::DataLf => 1 + LAST,
            State::Trailer | State::TrailerLf => 2,
            State::TrailerLine => 4,
            State::EndLf => 1,
            State::Done => 0,
        }
    }

    /// The trailer lines as sent, with the empty line after them; empty if there are none or they haven't all come.
    pub fn trailers(&self) -> &[u8] {
        if self.is_done() { &self.trailers } else { &[] }
    }

    /// The trailer lines, parsed; spans are offsets in [`ChunkedDecoder::trailers`].
    pub fn parse_trailers(&self, underscores: bool, max: usize) -> Result<Vec<HeaderSpan>, FieldsError> {
        match self.trailers() {
            [] => Ok(Vec::new()),
            block => parse_fields(block, underscores, max),
        }
    }

    fn byte(&mut self, byte: u8) -> Result<(), ChunkedError> {
        self.state = match (self.state, byte) {
            (State::Start, byte) => {
                self.size = u64::from(hex(byte).ok_or(ChunkedError::Invalid)?);
                State::Size
            }
            (State::Size, _) if self.size > MAX_SIZE => return Err(ChunkedError::TooLargeChunk),
            (State::Size, b'\r') => State::SizeLf,
            (State::Size, b' ' | b'\t' | b';') => State::Extension,
            (State::Size, byte) => {
                let digit = hex(byte).ok_or(ChunkedError::Invalid)?;
                self.size = self.size << 4 | u64::from(digit);
                State::Size
            }
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b'\n') => return Err(ChunkedError::Invalid),
            // Skipped as it comes, so that it may have any length.
            (State::Extension, _) => State::Extension,
            (State::SizeLf, b'\n') if self.size == 0 => State::Trailer,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Start,
            (State::Trailer, b'\r') => State::EndLf,
            (State::Trailer | State::TrailerLine, b'\n') => return Err(ChunkedError::Invalid),
            (State::TrailerLine, b'\r') => State::TrailerLf,
            (State::Trailer | State::TrailerLine, byte) => {
                self.keep(&[byte])?;
                State::TrailerLine
            }
            (State::TrailerLf, b'\n') => {
                self.keep(b"\r\n")?;
                State::Trailer
            }
            (State::EndLf, b'\n') => {
                if !self.trailers.is_empty() {
                    self.trailers.extend_from_slice(b"\r\n");
                }
                State::Done
            }
            _ => return Err(ChunkedError::Invalid),
        };
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), ChunkedError> {
        let Some(max) = self.max_trailers else { return Ok(()) };
        if self.trailers.len() + bytes.len() > max {
            return Err(ChunkedError::TooLongTrailer);
        }
        self.trailers.extend_from_slice(bytes);
        Ok(())
    }
}

/// The largest size of a chunk: as nginx reads them, another digit must always fit.
const MAX_SIZE: u64 = (i64::MAX as u64) >> 4;

/// Appends a part of a body as a chunk; nothing for an empty one, which would end the body: see [`LAST_CHUNK`].
pub fn chunk(mut part: Chain, out: &mut Chain) {
    if part.is_empty() {
        return;
    }
    out.push_bytes(Rc::<[u8]>::from(chunk_head(part.len(), &mut [0; CHUNK_HEAD])));
    out.append(&mut part);
    out.push_bytes(Bytes::from_static(CHUNK_END));
}

/// The most bytes of a [`chunk_head`].
pub const CHUNK_HEAD: usize = 18;

/// What ends a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// The line before a chunk of `len` bytes.
pub fn chunk_head(len: u64, line: &mut [u8; CHUNK_HEAD]) -> &[u8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let (mut at, mut rest) = (CHUNK_HEAD - CHUNK_END.len(), len);
    line[at..].copy_from_slice(CHUNK_END);
    loop {
        at -= 1;
        line[at] = DIGITS[(rest & 15) as usize];
        rest >>= 4;
        if rest == 0 {
            return &line[at..];
        }
    }
}

/// The last chunk, without trailers. With trailers: `0\r\n`, their lines, `\r\n`.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(input: &[u8], split: usize) -> String {
        let (mut decoder, mut body) = (ChunkedDecoder::new(Some(20)), Vec::new());
        for mut piece in [&input[..split], &input[split..]] {
            loop {
                match decoder.step(piece) {
                    Err(e) => return format!("{e:?}"),
                    Ok((used, ChunkEvent::Data(range))) => {
                        assert_eq!(range.end, used);
                        body.extend_from_slice(&piece[range]);
                        piece = &piece[used..];
                    }
                    Ok((used, ChunkEvent::More)) => {
                        assert_eq!(used, piece.len());
                        break;
                    }
                    Ok((_, ChunkEvent::Done)) => {
                        let trailers = decoder.parse_trailers(false, 10).map(|t| t.len());
                        return format!("{} {trailers:?}", String::from_utf8_lossy(&body));
                    }
                }
            }
        }
        "more".into()
    }

    #[test]
    fn bodies_as_nginx_takes_them() {
        for (input, expect) in [
            ("5\r\nhello\r\n0\r\n\r\n", "hello Ok(0)"),
            ("5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\nGET", "hello! Ok(0)"),
            ("5 ;a\r\nhello\r\n0\r\n\r\n", "hello Ok(0)"),
            ("05 \t\r\nhello\r\n0\r\n\r\n", "hello Ok(0)"),
            ("A\r\n0123456789\r\n00;x\r\n\r\n", "0123456789 Ok(0)"),
            ("0\r\nA: b\r\nC:d\r\n\r\n", " Ok(2)"),
            ("0\r\nA b\r\n\r\n", " Err(Invalid { line: Span { start: 0, end: 1 }, byte: 32 })"),
            ("0\r\nA: 0123456789012345678901\r\n\r\n", "TooLongTrailer"),
            ("5\r\nhell", "more"),
            ("5", "more"),
            (" 5\r\nhello", "Invalid"),
            ("0x5\r\nhello", "Invalid"),
            ("5\nhello\r\n0\r\n\r\n", "Invalid"),
            ("5\r\nhello\n0\r\n\r\n", "Invalid"),
            ("5\r\nhello\r\n0\n\n", "Invalid"),
            ("5\r\nhello\r\n0\r\n\n", "Invalid"),
            ("5;a\nhello\r\n0\r\n\r\n", "Invalid"),
            ("5;a\rb\r\nhello", "Invalid"),
            ("5\rx", "Invalid"),
            ("5\r\nhellox0\r\n\r\n", "Invalid"),
            ("0\r\nA: b\rc\r\n\r\n", "Invalid"),
            ("0\r\nA: b\n\r\n", "Invalid"),
            ("g\r\n", "Invalid"),
            ("\r\n", "Invalid"),
            ("7ffffffffffffff\r\n", "more"),
            ("00007ffffffffffffff\r\n", "more"),
            ("800000000000000\r\n", "TooLargeChunk"),
            ("7fffffffffffffff\r\n", "TooLargeChunk"),
            ("8000000000000000\r\n", "TooLargeChunk"),
            ("ffffffffffffffffff\r\n", "TooLargeChunk"),
            ("000000000000000000000005\r\nhello\r\n0\r\n\r\n", "hello Ok(0)"),
        ] {
            for split in 0..=input.len() {
                assert_eq!(decode(input.as_bytes(), split), expect, "{input:?} at {split}");
            }
        }
    }

    #[test]
    fn what_is_skipped_has_no_bound() {
        let (extension, trailer) = ("a".repeat(100_000), "b".repeat(100_000));
        let body = format!("5;{extension}\r\nhello\r\n0;{extension}\r\nX: {trailer}\r\nY: z\r\n\r\n");
        for (max, expect) in [(None, Ok(0)), (Some(200_000), Ok(2)), (Some(1000), Err(ChunkedError::TooLongTrailer))] {
            let (mut decoder, mut rest, mut data) = (ChunkedDecoder::new(max), body.as_bytes(), Vec::new());
            let end = loop {
                match decoder.step(rest) {
                    Err(error) => break Err(error),
                    Ok((used, ChunkEvent::Data(range))) => {
                        data.extend_from_slice(&rest[range]);
                        rest = &rest[used..];
                    }
                    Ok(_) => break Ok(decoder.parse_trailers(true, 10).map_or(0, |fields| fields.len())),
                }
            };
            assert_eq!((end, &data[..]), (expect, &b"hello"[..]), "{max:?}");
        }
    }

    #[test]
    fn a_chunk_tells_how_much_is_left_of_it() {
        let mut decoder = ChunkedDecoder::new(None);
        for (input, left) in
            [("1", 0), ("0", 0), ("\r", 16), ("\n", 16), ("abcd", 12), ("0123456789ab", 0), ("\r\n4;", 4)]
        {
            assert!(decoder.step(input.as_bytes()).is_ok());
            assert_eq!(decoder.chunk_left(), left, "{input:?}");
        }
    }

    #[test]
    fn heads_round_trip() {
        for len in [1, 9, 10, 15, 16, 255, 256, 65535, MAX_SIZE, u64::MAX] {
            let mut line = [0; CHUNK_HEAD];
            let head = chunk_head(len, &mut line);
            assert_eq!(head, format!("{len:x}\r\n").as_bytes());
            if len > MAX_SIZE {
                continue;
            }
            let mut decoder = ChunkedDecoder::new(None);
            assert_eq!(decoder.step(head), Ok((head.len(), ChunkEvent::More)));
            assert_eq!(decoder.size, len);
        }
    }
}
