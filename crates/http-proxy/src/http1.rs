//! HTTP/1 to backends: one exchange on a connection (RFC 9112).
//!
//! A head that came in one read is parsed where it stands, and the body is passed on as slices of what was read. The
//! codec's memory stays in an idle connection and serves the next exchange.

use std::any::Any;
use std::borrow::Cow;

use buf::{Buf, Bytes, Chain};
use http::exchange::Exchange;
use wire::h1::{
    ChunkEvent, ChunkedDecoder, ChunkedError, KnownHeader, LAST_CHUNK, Parsed, ResponseError, ResponseParser,
    UpstreamFraming, chunk,
};

use crate::protocol::{BodyEvent, Codec, End, Head, HeadEvent, Kept, Note, ProtocolError};
use crate::respond::trailer_fields;

/// What the configuration says of responses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The largest head, in bytes.
    pub max_head: usize,
    /// The most bytes of trailers; `None` skips them.
    pub max_trailers: Option<usize>,
    /// Whether a response without a status line is refused.
    pub require_status_line: bool,
}

/// The state machine of an exchange.
pub(crate) struct Http1 {
    rules: Rules,
    to_head: bool,
    /// The request's body goes out in chunks.
    chunked: bool,
    state: State,
    parser: ResponseParser,
    /// What came while the head isn't complete.
    gathered: Option<Buf>,
    /// What came after the head and isn't used.
    input: Bytes,
    framing: Framing,
    keeps: bool,
}

/// How far a response has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// What came has no head: all of it is the body.
    Headless,
    Body,
}

/// How a body is delimited.
#[derive(Debug)]
enum Framing {
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

impl Http1 {
    /// The codec of an exchange, in the memory of the one before on the same connection.
    pub(crate) fn begin(rules: Rules, exchange: &Exchange, kept: Option<Kept>) -> Box<Http1> {
        let mut codec = kept.and_then(|kept| kept.downcast().ok()).unwrap_or_else(|| Box::new(Http1::new(rules)));
        codec.rules = rules;
        codec.to_head = exchange.to_head.get();
        codec.chunked = exchange.chunked.get();
        codec
    }

    /// Whether this was kept by an exchange of HTTP/1.
    pub(crate) fn left(kept: &dyn Any) -> bool {
        kept.is::<Http1>()
    }

    fn new(rules: Rules) -> Http1 {
        Http1 {
            rules,
            to_head: false,
            chunked: false,
            state: State::Head,
            parser: ResponseParser::default(),
            gathered: None,
            input: Bytes::default(),
            framing: Framing::None,
            keeps: false,
        }
    }

    fn parse_head(&mut self, head: &mut Head) -> Result<HeadEvent, ProtocolError> {
        let Some(data) = &mut self.gathered else { return Ok(HeadEvent::More) };
        let (bytes, parts) = head;
        match self.parser.parse(data, self.rules.max_head, parts) {
            Ok(Parsed::Incomplete) => Ok(HeadEvent::More),
            Ok(Parsed::Complete(used)) if matches!(parts.status, 100 | 102..=199) => {
                *bytes = Bytes::copy_from(data.get(..used).unwrap_or_default());
                data.consume(used);
                if data.is_empty() {
                    self.gathered = None;
                }
                self.parser.reset();
                Ok(HeadEvent::Interim)
            }
            Ok(Parsed::Complete(used)) => self.begin_body(used, head),
            Err(error) => {
                let text = error.text(data).to_string();
                if error != ResponseError::NoStatusLine || self.rules.require_status_line {
                    return Err(ProtocolError::invalid(text));
                }
                self.state = State::Headless;
                Ok(HeadEvent::Note(Note::error(text)))
            }
        }
    }

    fn begin_body(&mut self, used: usize, (bytes, parts): &mut Head) -> Result<HeadEvent, ProtocolError> {
        let data = self.gathered.take().map(Buf::freeze).unwrap_or_default();
        let framing = parts.framing(&data, self.to_head);
        let framing = framing.map_err(|error| ProtocolError::invalid(error.text(&data).to_string()))?;
        let mut length = None;
        self.framing = match framing {
            UpstreamFraming::None => {
                length = parts.value(KnownHeader::ContentLength, &data).and_then(buf::parse::parse_number);
                Framing::None
            }
            UpstreamFraming::Length(left) => {
                length = Some(left);
                Framing::Length(left)
            }
            UpstreamFraming::Chunked => Framing::Chunked(Box::new(ChunkedDecoder::new(self.rules.max_trailers))),
            UpstreamFraming::UntilClose => Framing::UntilClose,
        };
        self.keeps = parts.status != 101 && parts.keep_alive(&data);
        self.state = State::Body;
        *bytes = data;
        self.input = bytes.split_off(used);
        Ok(HeadEvent::Done(length))
    }

    /// The head of a response that has none.
    fn headless(&mut self, (bytes, parts): &mut Head) -> HeadEvent {
        self.input = self.gathered.take().map(Buf::freeze).unwrap_or_default();
        (self.state, self.framing, self.keeps) = (State::Body, Framing::UntilClose, false);
        *bytes = Bytes::default();
        parts.clear();
        (parts.status, parts.version) = (200, 9);
        HeadEvent::Done(None)
    }

    fn read_chunks(&mut self) -> Result<BodyEvent, ProtocolError> {
        let Framing::Chunked(decoder) = &mut self.framing else { return Ok(BodyEvent::More) };
        let (used, event) = decoder.step(&self.input).map_err(|error| {
            ProtocolError::invalid(match error {
                ChunkedError::TooLongTrailer => "upstream sent too big trailers".to_owned(),
                error => format!("upstream sent {error}"),
            })
        })?;
        let event = match event {
            ChunkEvent::More => BodyEvent::More,
            ChunkEvent::Data(range) => BodyEvent::Body(self.input.slice(range)),
            ChunkEvent::Done => {
                self.input.advance(used);
                return Ok(self.end_of_chunks());
            }
        };
        self.input.advance(used);
        Ok(event)
    }

    fn end_of_chunks(&mut self) -> BodyEvent {
        let Framing::Chunked(decoder) = std::mem::replace(&mut self.framing, Framing::Done) else { return self.end() };
        match decoder.parse_trailers(true, usize::MAX) {
            Ok(fields) if !fields.is_empty() => BodyEvent::Trailers(trailer_fields(decoder.trailers(), &fields)),
            _ => self.end(),
        }
    }

    fn end(&mut self) -> BodyEvent {
        let extra = !std::mem::take(&mut self.input).is_empty();
        BodyEvent::End(End { keep: self.keeps && !extra, extra })
    }
}

impl Codec for Http1 {
    fn head<'r>(&mut self, request: &'r [u8], _alone: bool) -> Cow<'r, [u8]> {
        request.into()
    }

    fn body(&mut self, mut part: Chain, last: bool, out: &mut Chain) {
        if !self.chunked {
            return out.append(&mut part);
        }
        chunk(part, out);
        if last {
            out.push_bytes(Bytes::from_static(LAST_CHUNK));
        }
    }

    fn receive(&mut self, input: Buf) {
        match (self.state, &mut self.gathered) {
            (State::Head, Some(gathered)) => gathered.extend_from_slice(&input),
            (State::Head, None) => self.gathered = Some(input),
            _ => self.input = input.freeze(),
        }
    }

    fn read_head(&mut self, head: &mut Head) -> Result<HeadEvent, ProtocolError> {
        match self.state {
            State::Headless => Ok(self.headless(head)),
            State::Head | State::Body => self.parse_head(head),
        }
    }

    fn read_body(&mut self) -> Result<BodyEvent, ProtocolError> {
        match &mut self.framing {
            Framing::None | Framing::Done | Framing::Length(0) => Ok(self.end()),
            _ if self.input.is_empty() => Ok(BodyEvent::More),
            Framing::UntilClose => Ok(BodyEvent::Body(std::mem::take(&mut self.input))),
            Framing::Length(left) => {
                let n = (*left).min(self.input.len() as u64);
                *left -= n;
                if n as usize == self.input.len() {
                    return Ok(BodyEvent::Body(std::mem::take(&mut self.input)));
                }
                let part = self.input.slice(0..n as usize);
                self.input.advance(n as usize);
                Ok(BodyEvent::Body(part))
            }
            Framing::Chunked(_) => self.read_chunks(),
        }
    }

    fn receive_end(&mut self) -> Result<(), ProtocolError> {
        match (self.state, &self.framing) {
            (State::Body, Framing::UntilClose) => {
                (self.framing, self.keeps) = (Framing::Done, false);
                Ok(())
            }
            _ => Err(ProtocolError::closed()),
        }
    }

    fn wants(&self) -> Option<u64> {
        match &self.framing {
            Framing::Length(left) => Some(*left),
            _ => None,
        }
    }

    fn take_rest(&mut self) -> Bytes {
        std::mem::take(&mut self.input)
    }

    fn keep(mut self: Box<Self>) -> Option<Kept> {
        self.state = State::Head;
        self.parser.reset();
        self.framing = Framing::None;
        Some(self)
    }
}
