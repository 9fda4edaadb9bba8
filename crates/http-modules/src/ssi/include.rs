//! An include: a subrequest, and what becomes of its response.

use std::task::{Context, Poll, ready};

use buf::{Bytes, Chain, Piece};
use engine::log::Level;
use http::body::Broken;
use http::request::Request;
use http::request::subrequest::SubResponse;

use super::SsiConf;
use super::page::Page;
use super::shared::{Place, Shared};

/// How much of a response is read before its turn.
const MOST_AHEAD: u64 = 32 << 10;

/// What becomes of a response.
pub(super) enum Sink {
    /// It is part of the page.
    Page,
    /// The same; if nothing comes of it, this block stands for it.
    PageOr(Bytes),
    /// It becomes the value of a variable.
    Variable(Vec<u8>),
}

/// An include that isn't over.
pub(super) struct Include {
    response: SubResponse,
    sink: Sink,
    /// What was read before its turn.
    ahead: Chain,
    /// Nothing more of the response is to come.
    over: bool,
    /// Some of it was passed on.
    has_text: bool,
    /// What a variable will be.
    value: Vec<u8>,
    /// The block that stands for the response.
    stub: Option<Box<Page>>,
    _place: Place,
}

impl Include {
    pub(super) fn new(response: SubResponse, sink: Sink, place: Place) -> Include {
        let (ahead, value) = (Chain::new(), Vec::new());
        Include { response, sink, ahead, over: false, has_text: false, value, stub: None, _place: place }
    }

    /// Called while others have their turn: makes the response, and reads the beginning of its body.
    pub(super) fn poll_ahead(&mut self, cx: &mut Context<'_>) {
        while !self.over {
            if self.ahead.len() >= MOST_AHEAD {
                return self.response.poll_ahead(cx);
            }
            match self.poll_response(cx) {
                Poll::Ready(Ok(mut chain)) => self.ahead.append(&mut chain),
                // Its turn will show that there is no response.
                Poll::Ready(Err(Broken)) | Poll::Pending => return,
            }
        }
    }

    /// Appends what there is of it to `out`; ready at its end. An error ends the page.
    pub(super) fn poll(&mut self, r: &mut Request, cx: &mut Context<'_>, out: &mut Chain) -> Poll<Result<(), Broken>> {
        loop {
            let mut chain = std::mem::take(&mut self.ahead);
            if chain.is_empty() {
                if self.over {
                    return self.poll_end(r, cx, out);
                }
                chain = ready!(self.poll_response(cx))?;
            }
            match &self.sink {
                Sink::Variable(_) => self.gather(&chain)?,
                Sink::Page | Sink::PageOr(_) => {
                    self.has_text |= !chain.is_empty();
                    out.append(&mut chain);
                    if out.len() >= MOST_AHEAD {
                        // It goes out first: the pipeline asks again after that.
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// The next part of the response. One that breaks off ends there, as the log has told; an error means that there is no
    /// response at all.
    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Chain, Broken>> {
        ready!(self.response.poll_head(cx));
        let is_refused = self.response.is_refused() || self.response.status() == NONE;
        if is_refused && matches!(self.sink, Sink::PageOr(_)) {
            self.over = true;
            return Poll::Ready(Ok(Chain::new()));
        }
        if self.response.status() == NONE {
            return Poll::Ready(Err(Broken));
        }
        let portion = ready!(self.response.poll_body(cx));
        self.over = portion.as_ref().map_or(true, |portion| portion.end);
        Poll::Ready(Ok(portion.map(|portion| portion.chain).unwrap_or_default()))
    }

    /// Takes a part of what will be a variable.
    fn gather(&mut self, chain: &Chain) -> Result<(), Broken> {
        let Some(child) = self.response.request() else { return Ok(()) };
        let limit = child.location.core.subrequest_output_buffer_size;
        let len = self.value.len() + chain.len() as usize;
        if len > limit {
            child.log_at(Level::Error, format_args!("too big subrequest response: {len}"));
            return Err(Broken);
        }
        for piece in chain.pieces() {
            if let Piece::Bytes(bytes) = piece {
                self.value.extend_from_slice(bytes);
            }
        }
        Ok(())
    }

    /// After the response: its block, if that stands for it.
    fn poll_end(&mut self, r: &mut Request, cx: &mut Context<'_>, out: &mut Chain) -> Poll<Result<(), Broken>> {
        if let Sink::PageOr(block) = &self.sink
            && !self.has_text
            && let Some(child) = self.response.request_mut()
        {
            let stub = self.stub.get_or_insert_with(|| {
                // The commands in it are run in the request that it stands for, and as its location says.
                let conf = child.location.set.share::<SsiConf>();
                Box::new(Page::of_block(conf, Shared::of(child), block.clone()))
            });
            ready!(stub.poll(child, cx, out))?;
        }
        if let Sink::Variable(name) = &self.sink {
            let succeeded = (200..300).contains(&self.response.status());
            let value = if succeeded { std::mem::take(&mut self.value) } else { Vec::new() };
            if Shared::of(r).set(name, Bytes::from(value)).is_err() {
                r.log_error(format_args!("SSI variables take too much memory"));
            }
        }
        self.response.finish(r);
        Poll::Ready(Ok(()))
    }
}

/// The status of what is to have no response.
const NONE: u16 = 444;
