//! Bodies: those of requests as they are read, and those of responses on their way through filters.

pub mod files;
pub mod pipeline;
pub mod request;
pub mod temp;

use std::task::{Context, Poll};

use buf::Chain;

use crate::request::Request;
use crate::response::Headers;

pub use pipeline::{Pipeline, Portion};
pub use request::{Buffered, RequestBody, append};

/// The body of a response as its handler gives it.
#[derive(Default)]
pub enum Body {
    /// None.
    #[default]
    Empty,
    /// All of it.
    Chain(Chain),
    /// What comes as it comes.
    Stream(Box<dyn BodyStream>),
}

/// A response's body that comes in parts.
pub trait BodyStream {
    /// The next part; `None` is the end. What it yields may be empty: then the flush mark of [`Part`] counts.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Part>, Broken>>;

    /// Called while the client is slow: read ahead as far as the configuration allows.
    fn poll_ahead(&mut self, _cx: &mut Context<'_>) {}

    /// The trailers, once the end was reached.
    fn trailers(&mut self) -> Option<Headers> {
        None
    }

    /// Told how many bytes went to the client when the response is over, whole or not.
    fn finished(&mut self, _sent: u64, _whole: bool) {}
}

/// A part of a body.
pub struct Part {
    /// What it holds.
    pub chain: Chain,
    /// Whether it is to be sent at once.
    pub flush: bool,
}

/// A body ends before it is whole: the connection to the client is closed, so that the client can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// Changes a body on its way: of a response to whoever takes it, or of a request to its handler.
pub trait BodyFilter {
    /// Takes a part of the body and appends what becomes of it. `end` is set with the last part (which may be empty),
    /// `flush` where everything is to be passed on.
    fn apply(&mut self, input: Chain, end: bool, flush: bool, out: &mut Chain) -> Result<(), Broken>;

    /// Whether it looks at the bytes, so that files have to be read.
    fn reads(&self) -> bool {
        true
    }

    /// Goes on with what it has to wait for, and appends what becomes of that. It gets no more of the body before it is
    /// ready, and until then what follows it doesn't end. What is appended while it isn't ready is passed on at once.
    fn poll_waiting(&mut self, _r: &mut Request, _cx: &mut Context<'_>, _out: &mut Chain) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }
}
