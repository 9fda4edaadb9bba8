//! The pipeline of a response's body: it gives portions that have passed the filters to a receiver.
//!
//! A receiver is a session's writer, the parent of a subrequest, a cache, or a file. Filters stand in a row; each
//! is polled only when the next one has nothing left. So a body is pulled, and a receiver that doesn't take
//! portions stops the whole row.

use std::task::{Context, Poll, ready};

use buf::{Chain, FileRange, Piece};
use engine::log::{Errno, Level};

use super::files::{FileRule, Reading, pool, read_elsewhere, read_here, read_size};
use super::{Body, BodyFilter, BodyStream, Broken, Part};
use crate::request::Request;
use crate::response::Response;

/// What a pipeline yields.
#[derive(Default)]
pub struct Portion {
    /// Bytes, and ranges of files where they are wanted.
    pub chain: Chain,
    /// Whether it is to be passed on at once.
    pub flush: bool,
    /// Whether it is the last one; it may be empty.
    pub end: bool,
}

/// A body with its filters.
pub struct Pipeline {
    source: Option<Box<dyn BodyStream>>,
    /// What the source has given and the filters haven't taken yet.
    held: Chain,
    /// Whether that is to be passed on at once.
    flush: bool,
    /// Whether the source has nothing more.
    exhausted: bool,
    filters: Vec<Box<dyn BodyFilter>>,
    /// A bit for each filter that has taken the whole body.
    ended: u64,
    /// A bit for each filter that waits for something.
    waiting: u64,
    files: FileRule,
    reading: Option<Reading>,
    /// The body has broken off; what was received of it has been passed on.
    broken: bool,
}

/// How many filters a body can have.
const MAX_FILTERS: usize = u64::BITS as usize;

impl Pipeline {
    /// The body of a response, taken out of it with its filters.
    pub fn new(response: &mut Response, files: FileRule) -> Pipeline {
        let body = if response.header_only { Body::Empty } else { std::mem::take(&mut response.body) };
        let filters = if response.header_only { Vec::new() } else { std::mem::take(&mut response.filters) };
        debug_assert!(filters.len() <= MAX_FILTERS);
        let read = files.read || filters.iter().any(|filter| filter.reads());
        let (source, held) = match body {
            Body::Empty => (None, Chain::new()),
            Body::Chain(chain) => (None, chain),
            Body::Stream(stream) => (Some(stream), Chain::new()),
        };
        Pipeline {
            exhausted: source.is_none(),
            source,
            held,
            flush: false,
            filters,
            ended: 0,
            waiting: 0,
            files: FileRule { read, ..files },
            reading: None,
            broken: false,
        }
    }

    /// Whether all of the body was there from the start.
    pub fn is_whole(&self) -> bool {
        self.source.is_none()
    }

    /// The next portion; not to be called after the last one. Trailers of the source are with the response by then.
    pub fn poll_portion(&mut self, r: &mut Request, cx: &mut Context<'_>) -> Poll<Result<Portion, Broken>> {
        if self.broken {
            return Poll::Ready(Err(Broken));
        }
        self.poll_filtered(self.filters.len(), r, cx)
    }

    /// Whether a filter wants the head to wait for its first portion.
    pub(crate) fn holds_back(&self) -> bool {
        self.filters.iter().any(|filter| filter.holds_back())
    }

    /// Called while the receiver is slow: the source reads ahead as far as it may.
    pub fn poll_ahead(&mut self, r: &mut Request, cx: &mut Context<'_>) {
        if let Some(source) = self.source.as_mut().filter(|_| !self.exhausted) {
            source.send_request(r, cx);
            source.poll_ahead(cx);
            // What was read may let more of it be sent.
            source.send_request(r, cx);
        }
    }

    /// Ends the pipeline, whether the whole body was taken or not: `sent` bytes of it were sent to the client.
    pub fn finish(&mut self, sent: u64, whole: bool) {
        if let Some(source) = &mut self.source {
            source.finished(sent, whole);
        }
    }

    /// What the first `count` filters yield.
    fn poll_filtered(&mut self, count: usize, r: &mut Request, cx: &mut Context<'_>) -> Poll<Result<Portion, Broken>> {
        let Some(at) = count.checked_sub(1) else { return self.poll_source(r, cx) };
        let bit = 1 << at;
        loop {
            let mut portion = Portion::default();
            if self.waiting & bit == 0 {
                ready!(self.poll_input(at, r, cx, &mut portion))?;
            }
            match self.filters[at].poll_waiting(r, cx, &mut portion.chain) {
                Poll::Ready(Err(Broken)) if !portion.chain.is_empty() => (self.broken, portion.flush) = (true, true),
                Poll::Ready(result) => {
                    result?;
                    self.waiting &= !bit;
                    portion.end = self.ended & bit != 0;
                }
                Poll::Pending => {
                    self.waiting |= bit;
                    if portion.chain.is_empty() && !portion.flush {
                        let takes_more = self.ended & bit == 0 && self.filters[at].reads_ahead();
                        if !takes_more || self.poll_input(at, r, cx, &mut portion)?.is_pending() {
                            return Poll::Pending;
                        }
                        if portion.chain.is_empty() {
                            continue;
                        }
                    }
                    portion.flush = true;
                }
            }
            if portion.end || portion.flush || !portion.chain.is_empty() {
                return Poll::Ready(Ok(portion));
            }
        }
    }

    /// Gives a filter what the ones before it yield; what it passes on at once is appended to `portion`.
    fn poll_input(
        &mut self,
        at: usize,
        r: &mut Request,
        cx: &mut Context<'_>,
        portion: &mut Portion,
    ) -> Poll<Result<(), Broken>> {
        let input = ready!(self.poll_filtered(at, r, cx))?;
        portion.flush = input.flush;
        self.filters[at].apply(input.chain, input.end, input.flush, &mut portion.chain)?;
        self.ended |= if input.end { 1 << at } else { 0 };
        Poll::Ready(Ok(()))
    }

    /// What the source yields, with files read if they must be.
    fn poll_source(&mut self, r: &mut Request, cx: &mut Context<'_>) -> Poll<Result<Portion, Broken>> {
        let mut chain = Chain::new();
        if let Some(reading) = &mut self.reading {
            let read = ready!(reading.as_mut().poll(cx));
            self.reading = None;
            chain.push_bytes(read.map_err(|error| read_failed(r, &error))?);
        } else {
            if self.held.is_empty() && !self.exhausted {
                ready!(self.poll_more(r, cx))?;
            }
            if !self.pass_on(&mut chain, r)? {
                // A thread is reading: wait for its result.
                return self.poll_source(r, cx);
            }
        }
        let last = self.held.is_empty();
        Poll::Ready(Ok(Portion { chain, flush: self.flush && last, end: self.exhausted && last }))
    }

    /// Gets the next part from the source.
    fn poll_more(&mut self, r: &mut Request, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Some(source) = &mut self.source else { return Poll::Ready(Ok(())) };
        source.send_request(r, cx);
        match ready!(source.poll_part(cx))? {
            Some(Part { chain, flush }) => (self.held, self.flush) = (chain, flush),
            None => {
                (self.exhausted, self.flush) = (true, false);
                if let Some(trailers) = source.trailers() {
                    r.response.trailers.append(trailers);
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Moves the next bytes, or the next range of a file; false if a thread has to read them first.
    fn pass_on(&mut self, out: &mut Chain, r: &Request) -> Result<bool, Broken> {
        while let Some(piece) = self.held.first() {
            match piece {
                Piece::Bytes(_) => {
                    if let Some(piece) = self.held.pop() {
                        out.push(piece);
                    }
                }
                Piece::File(_) if !out.is_empty() && self.files.read => break,
                Piece::File(range) if self.files.read => {
                    let part = FileRange { len: range.len.min(read_size(r)), ..range.clone() };
                    self.held.advance(part.len);
                    if let Some(pool) = pool(r) {
                        self.reading = Some(read_elsewhere(pool, part));
                        return Ok(false);
                    }
                    out.push_bytes(read_here(&part).map_err(|error| read_failed(r, &error))?);
                    break;
                }
                Piece::File(_) => {
                    out.append(&mut self.held.split_to(self.files.most));
                    break;
                }
            }
        }
        Ok(true)
    }
}

pub(crate) fn read_failed(r: &Request, error: &std::io::Error) -> Broken {
    r.log_at(Level::Crit, format_args!("pread() failed{}", Errno(error)));
    Broken
}
