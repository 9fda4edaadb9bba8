//! What differs between backend protocols.
//!
//! A [`Protocol`] is a location's knowledge of how to ask: it writes requests. A [`Codec`] is one exchange with one
//! backend: a state machine without input and output. Bytes that came go in ([`Codec::receive`]), what they mean comes
//! out ([`Codec::read_head`], then [`Codec::read_body`]); the request's body goes in ([`Codec::body`]), its frames come out, and beside them what the
//! protocol has to say by itself while it receives ([`Codec::transmit`]). The engine does the rest: it finds, connects,
//! sends, waits, tries again, counts and logs.
//!
//! A protocol that asks with a line, and is answered by bytes up to the end of the connection:
//!
//! ```
//! use std::borrow::Cow;
//!
//! use buf::{Buf, Bytes, Chain};
//! use http::fault::Fault;
//! use http::exchange::Exchange;
//! use http::request::Request;
//! use http_proxy::protocol::{BodyEvent, Codec, End, Head, HeadEvent, Kept, Protocol, ProtocolError, Scheme};
//! use wire::Span;
//!
//! const SCHEMES: &[Scheme] = &[Scheme { prefix: "", label: "line://", default_port: Some(79), ssl: false }];
//!
//! struct Line;
//!
//! impl Protocol for Line {
//!     fn sends_unknown_length(&self) -> bool {
//!         false // A body is read whole before it is sent.
//!     }
//!
//!     fn write_request(&self, r: &mut Request, _: &Exchange, out: &mut Buf) -> Result<Span, Fault> {
//!         out.extend_from_slice(&r.uri);
//!         out.extend_from_slice(b"\r\n");
//!         Ok(Span::new(0, r.uri.len()))
//!     }
//!
//!     fn codec(&self, _: &Exchange, _: Option<Kept>) -> Box<dyn Codec> {
//!         Box::new(Answer::default())
//!     }
//!
//!     fn knows(&self, _: &dyn std::any::Any) -> bool {
//!         false // No connection serves twice.
//!     }
//! }
//!
//! #[derive(Default)]
//! struct Answer {
//!     input: Bytes,
//!     over: bool,
//! }
//!
//! impl Codec for Answer {
//!     fn head<'r>(&mut self, request: &'r [u8], _alone: bool) -> Cow<'r, [u8]> {
//!         request.into()
//!     }
//!
//!     fn body(&mut self, mut part: Chain, _last: bool, out: &mut Chain) {
//!         out.append(&mut part);
//!     }
//!
//!     fn receive(&mut self, input: Buf) {
//!         self.input = input.freeze();
//!     }
//!
//!     fn read_head(&mut self, head: &mut Head) -> Result<HeadEvent, ProtocolError> {
//!         head.1.status = 200;
//!         Ok(HeadEvent::Done(None))
//!     }
//!
//!     fn read_body(&mut self) -> Result<BodyEvent, ProtocolError> {
//!         Ok(match std::mem::take(&mut self.input) {
//!             part if !part.is_empty() => BodyEvent::Body(part),
//!             _ if self.over => BodyEvent::End(End { keep: false, extra: false }),
//!             _ => BodyEvent::More,
//!         })
//!     }
//!
//!     fn receive_end(&mut self) -> Result<(), ProtocolError> {
//!         self.over = true;
//!         Ok(())
//!     }
//!
//!     fn keep(self: Box<Self>) -> Option<Kept> {
//!         None
//!     }
//! }
//! # assert_eq!(Scheme::split(SCHEMES, b"a:7").map(|(scheme, _)| scheme.label), Some("line://"));
//! # let mut answer = Answer::default();
//! # let mut input = Buf::empty();
//! # input.extend_from_slice(b"text");
//! # answer.receive(input);
//! # assert!(matches!(answer.read_head(&mut Head::default()), Ok(HeadEvent::Done(None))));
//! # assert!(matches!(answer.read_body(), Ok(BodyEvent::Body(part)) if &part[..] == b"text"));
//! # assert!(answer.receive_end().is_ok());
//! # assert!(matches!(answer.read_body(), Ok(BodyEvent::End(_))));
//! ```

use std::any::Any;
use std::borrow::Cow;

use buf::{Buf, Bytes, Chain};
use engine::log::Level;
use http::exchange::Exchange;
use http::fault::Fault;
use http::request::Request;
use http::response::Headers;
use wire::Span;
use wire::h1::{KnownHeader, ResponseHead};

/// A backend protocol, as one location speaks it.
pub trait Protocol {
    /// Whether a request's body can be sent before its length is known.
    fn sends_unknown_length(&self) -> bool;

    /// The status with which a request is refused before anything else is done for it.
    fn refuses(&self, _r: &Request) -> Option<u16> {
        None
    }

    /// Whether the request's body is read.
    fn takes_body(&self) -> bool {
        true
    }

    /// Whether a response that tells of an error is one for the client. Otherwise its status is all that counts.
    fn answers_errors(&self) -> bool {
        true
    }

    /// Whether a body of known length that is there as a whole is kept while it is sent, though bodies are passed on as
    /// they come: so that another server can be asked.
    fn keeps_ready_bodies(&self) -> bool {
        false
    }

    /// Whether the configuration replaces the request's body by its own.
    fn has_own_body(&self) -> bool {
        false
    }

    /// Writes the request up to its body (a body of the configuration's own included) once for all attempts; gives back
    /// where the URI stands (in `out`, which is empty at first), if the protocol has one. Tells the exchange whether a head
    /// alone is asked for.
    fn write_request(&self, r: &mut Request, exchange: &Exchange, out: &mut Buf) -> Result<Span, Fault>;

    /// The key under which a response is stored where the configuration names none.
    fn cache_key(&self, _r: &mut Request, _exchange: &Exchange) -> Vec<u8> {
        Vec::new()
    }

    /// The codec of an attempt; `kept` is what [`Codec::keep`] left in the connection, if it has served before.
    fn codec(&self, exchange: &Exchange, kept: Option<Kept>) -> Box<dyn Codec>;

    /// Whether a connection is of this protocol, by what was kept in it.
    fn knows(&self, kept: &dyn Any) -> bool;

    /// What becomes of a field (`Location`, `Refresh`, `Set-Cookie`) of the response; `None` leaves it as it is.
    fn rewrite(&self, _r: &mut Request, _known: KnownHeader, _value: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// Adds to the fields of the response what the backend can't tell.
    fn complete(&self, _r: &mut Request) {}
}

/// What stays in an idle connection for the next exchange on it; its type is known to its protocol alone.
pub type Kept = Box<dyn Any>;

/// A response's head: the bytes, and the parts that are spans of them.
pub type Head = (Bytes, ResponseHead);

/// One exchange with a backend.
pub trait Codec {
    /// Whether bytes go both ways as soon as the connection is made: nothing is asked, and no response is read.
    fn is_tunnel(&self) -> bool {
        false
    }

    /// The bytes that begin the request; `request` is what [`Protocol::write_request`] wrote. `alone`: no body follows;
    /// otherwise they may come with what [`Codec::body`] or [`Codec::transmit`] appends next.
    fn head<'r>(&mut self, request: &'r [u8], alone: bool) -> Cow<'r, [u8]>;

    /// Takes a part of the request's body, `last` with the last one (which may be empty), and appends its frames to `out`.
    /// What the peer's window has no room for is held back.
    fn body(&mut self, part: Chain, last: bool, out: &mut Chain);

    /// How many bytes of the body it would not hold back: the engine reads no more from the client.
    fn window(&self) -> u64 {
        u64::MAX
    }

    /// Whether [`Codec::transmit`] ever appends anything. A codec has both of its own, or neither: one that says no isn't
    /// asked.
    fn transmits(&self) -> bool {
        false
    }

    /// Appends what is to be sent because of bytes that came: acknowledgements, a larger window, a body held back.
    fn transmit(&mut self, _out: &mut Chain) {}

    /// Whether a part of the request's body is held back.
    fn holds_back(&self) -> bool {
        false
    }

    /// Takes bytes that came from the backend. Called when all that came before is used up.
    fn receive(&mut self, input: Buf);

    /// What the bytes so far mean before the end of the head, which is put into `head`. Between two calls `head` is left
    /// as it is, but for an interim one.
    fn read_head(&mut self, head: &mut Head) -> Result<HeadEvent, ProtocolError>;

    /// What the bytes mean after the head.
    fn read_body(&mut self) -> Result<BodyEvent, ProtocolError>;

    /// No more bytes come. Without an error [`Codec::read_body`] goes on up to [`BodyEvent::End`].
    fn receive_end(&mut self) -> Result<(), ProtocolError>;

    /// Whether what came of the body in one read with the head isn't passed on if a fault came with it too, as nginx does it
    /// for HTTP/2.
    fn faults_void_body(&self) -> bool {
        false
    }

    /// How many bytes the response still has, if that is known.
    fn wants(&self) -> Option<u64> {
        None
    }

    /// Bytes that came after the head of a response that switches protocols.
    fn take_rest(&mut self) -> Bytes {
        Bytes::default()
    }

    /// What the connection keeps; `None` if it can't serve on.
    fn keep(self: Box<Self>) -> Option<Kept>;
}

/// What bytes of a backend mean while the head is read.
#[derive(Debug)]
pub enum HeadEvent {
    /// More bytes are needed.
    More,
    /// An interim head (1xx) is complete.
    Interim,
    /// A line for the error log.
    Note(Note),
    /// The head is complete, with the length of the body as clients are told it, if it is known.
    Done(Option<u64>),
}

/// What bytes of a backend mean after the head.
#[derive(Debug)]
pub enum BodyEvent {
    /// More bytes are needed.
    More,
    /// A line for the error log.
    Note(Note),
    /// A part of the body.
    Body(Bytes),
    /// Trailers.
    Trailers(Headers),
    /// The response is complete.
    End(End),
}

/// A line for the error log, without what was going on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// How serious it is.
    pub level: Level,
    /// The text.
    pub text: String,
}

impl Note {
    /// A note of an error.
    pub fn error(text: impl Into<String>) -> Note {
        Note { level: Level::Error, text: text.into() }
    }
}

/// How a response ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// The connection can serve another request, as far as the response is concerned.
    pub keep: bool,
    /// The backend sent more than it had announced.
    pub extra: bool,
}

/// What is wrong with a backend's response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolError {
    /// What follows before the end of the head.
    pub fault: Fault,
    /// The beginning of the log line; empty if it is logged already.
    pub text: String,
}

impl ProtocolError {
    /// A response that can't be understood.
    pub fn invalid(text: impl Into<String>) -> ProtocolError {
        ProtocolError { fault: Fault::InvalidResponse, text: text.into() }
    }

    /// A response that ended too soon.
    pub fn closed() -> ProtocolError {
        ProtocolError { fault: Fault::ShortResponse, text: "upstream prematurely closed connection".to_owned() }
    }

    /// A request that the backend didn't serve, and has done nothing of.
    pub fn refused(text: impl Into<String>) -> ProtocolError {
        ProtocolError { fault: Fault::RefusedRequest, text: text.into() }
    }
}

/// How a backend is reached, as `…_pass` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// What the address begins with in the configuration; may be empty.
    pub prefix: &'static str,
    /// The scheme in log lines: `http://`.
    pub label: &'static str,
    /// The port of addresses that name none; without it they have to.
    pub default_port: Option<u16>,
    /// Whether it is spoken to over TLS.
    pub ssl: bool,
}

impl Scheme {
    /// The scheme of an address, and what follows its prefix.
    pub fn split<'t>(schemes: &'static [Scheme], text: &'t [u8]) -> Option<(&'static Scheme, &'t [u8])> {
        schemes.iter().find_map(|scheme| {
            let (start, rest) = text.split_at_checked(scheme.prefix.len())?;
            start.eq_ignore_ascii_case(scheme.prefix.as_bytes()).then_some((scheme, rest))
        })
    }
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
