//! What differs between backend protocols: pure parts that the engine calls.

use buf::{Buf, Bytes, Chain};
use http::exchange::Exchange;
use http::request::Request;
use wire::h1::{ChunkEvent, ChunkedDecoder, KnownHeader, Parsed, ResponseHead, ResponseParser};

use crate::pass::Aim;

/// A backend protocol.
pub trait Protocol {
    /// Where a request goes. The error is a status.
    fn target(&self, r: &mut Request) -> Result<Aim, u16>;

    /// Whether a request's body can be sent before its length is known.
    fn sends_chunks(&self) -> bool;

    /// Whether the configuration replaces the request's body by its own.
    fn has_own_body(&self) -> bool {
        false
    }

    /// Writes the request up to its body (a body of the configuration's own included), and sets what the
    /// exchange knows of it: where the URI stands (in `out`, which is empty at first), and whether a head alone is
    /// asked for.
    fn write_request(&self, r: &mut Request, exchange: &Exchange, out: &mut Buf) -> Result<(), u16>;

    /// Reads a head; `data` begins with the same bytes until the reader is reset.
    fn read_head(
        &self,
        reader: &mut HeadReader,
        data: &[u8],
        max: usize,
        head: &mut ResponseHead,
    ) -> Result<Parsed, HeadError>;

    /// How the body is delimited. The error is a log line.
    fn framing(&self, head: &ResponseHead, data: &[u8], to_head: bool) -> Result<Framing, String>;

    /// Whether the connection serves another request once the body is complete.
    fn keeps(&self, head: &ResponseHead, data: &[u8]) -> bool;

    /// What becomes of a field (`Location`, `Refresh`, `Set-Cookie`) of the response; `None` leaves it as it is.
    fn rewrite(&self, _r: &mut Request, _known: KnownHeader, _value: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// Why there is no head; each with a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// It is none that can be understood.
    Invalid(String),
    /// There is none: all that comes is the body.
    Missing(String),
}

/// The state of reading a head.
#[derive(Default)]
pub struct HeadReader {
    /// HTTP/1.
    pub h1: ResponseParser,
}

/// How a body is delimited.
#[derive(Debug)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes are left.
    Length(u64),
    /// In chunks.
    Chunked(Box<ChunkedDecoder>),
    /// It ends with the connection.
    UntilClose,
    /// It is complete.
    Done,
}

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The chunks.
    Chunked(wire::h1::ChunkedError),
}

impl Framing {
    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        matches!(self, Framing::None | Framing::Done | Framing::Length(0))
    }

    /// Moves the body bytes of `input` to `out`; what is left of `input` stands behind the body.
    pub fn decode(&mut self, input: &mut Bytes, out: &mut Chain) -> Result<(), BodyError> {
        match self {
            Framing::None | Framing::Done => {}
            Framing::UntilClose => out.push_bytes(std::mem::take(input)),
            Framing::Length(left) => {
                let n = (*left).min(input.len() as u64);
                *left -= n;
                if n as usize == input.len() {
                    out.push_bytes(std::mem::take(input));
                } else {
                    out.push_bytes(input.slice(0..n as usize));
                    input.advance(n as usize);
                }
            }
            Framing::Chunked(decoder) => loop {
                let (used, event) = decoder.step(input).map_err(BodyError::Chunked)?;
                match event {
                    ChunkEvent::More => {
                        input.advance(used);
                        return Ok(());
                    }
                    ChunkEvent::Data(range) => out.push_bytes(input.slice(range)),
                    ChunkEvent::Done => {
                        input.advance(used);
                        return Ok(());
                    }
                }
                input.advance(used);
            },
        }
        Ok(())
    }

    /// Whether a chunked body has had its end.
    pub fn settle(&mut self) {
        if let Framing::Chunked(decoder) = self
            && decoder.is_done()
            && decoder.trailers().is_empty()
        {
            *self = Framing::Done;
        }
    }

    /// Whether nothing more is to come.
    pub fn is_complete(&self) -> bool {
        match self {
            Framing::Chunked(decoder) => decoder.is_done(),
            other => other.is_done(),
        }
    }
}
