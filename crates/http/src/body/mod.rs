//! Bodies: those of requests as they are read, and those of responses on their way through filters.

pub mod files;
pub mod pipeline;
pub mod request;
pub mod temp;

use std::task::{Context, Poll};

use buf::{Bytes, Chain, Piece};

use crate::request::Request;
use crate::response::headers::Headers;

pub use pipeline::{Pipeline, Portion};
pub use request::{Buffered, RequestBody};

/// The body of a response as its handler gives it.
#[derive(Default)]
pub enum Body {
    /// None.
    #[default]
    Empty,
    /// All of it.
    Chain(Chain),
    /// Parts, as they arrive.
    Stream(Box<dyn BodyStream>),
}

/// A response's body that comes in parts.
pub trait BodyStream {
    /// The next part; `None` is the end. A part may be empty: then only its flush mark counts ([`Part`]).
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Part>, Broken>>;

    /// Called before each part, and while the client is slow: passes on what there is of the request, whose body may still
    /// be on its way.
    fn send_request(&mut self, _r: &mut Request, _cx: &mut Context<'_>) {}

    /// Called while the client is slow: read ahead as far as the configuration allows.
    fn poll_ahead(&mut self, _cx: &mut Context<'_>) {}

    /// The trailers, once the end was reached.
    fn trailers(&mut self) -> Option<Headers> {
        None
    }

    /// Called when the response has ended, whole or not, with the number of bytes that were sent to the client.
    fn finished(&mut self, _sent: u64, _whole: bool) {}
}

/// A part of a body.
pub struct Part {
    /// What it holds.
    pub chain: Chain,
    /// Whether it is to be sent at once.
    pub flush: bool,
}

/// A body has ended before it was whole: the connection to the client is closed, so that the client notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// A filter: changes a response's body before it is sent, or a request's body before its handler reads it.
pub trait BodyFilter {
    /// Takes a part of the body and appends the changed part to `out`. `end` is set with the last part (which may be
    /// empty), `flush` if everything must be passed on.
    fn apply(&mut self, input: Chain, end: bool, flush: bool, out: &mut Chain) -> Result<(), Broken>;

    /// Whether it needs the bytes, so that files must be read.
    fn reads(&self) -> bool {
        true
    }

    /// Whether the head is to wait too, as long as this filter waits.
    fn holds_back(&self) -> bool {
        false
    }

    /// Whether it takes more of the body although it waits for something.
    fn reads_ahead(&self) -> bool {
        false
    }

    /// Continues what it waits for, and appends the result. It gets no more of the body before it is
    /// ready, unless it reads ahead, and until then what follows it doesn't end. What is appended while it isn't ready is passed on at once.
    fn poll_waiting(&mut self, _r: &mut Request, _cx: &mut Context<'_>, _out: &mut Chain) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }
}

/// Small pieces are joined: a body in many packets doesn't hold a buffer for each.
pub fn append(pieces: &mut Vec<Piece>, data: Bytes) {
    const SMALL: usize = 2048;
    if let Some(Piece::Bytes(last)) = pieces.last_mut()
        && last.len() + data.len() <= SMALL
    {
        let joined = [&last[..], &data[..]].concat();
        *last = Bytes::from(joined);
        return;
    }
    // One that fills less than a quarter of what is read at a time doesn't keep that; the first may be beside the head.
    let copied = !pieces.is_empty() && data.len() < 2 * SMALL;
    pieces.push(Piece::Bytes(if copied { Bytes::copy_from(&data) } else { data }));
}
