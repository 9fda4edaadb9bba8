//! The body of a backend's response, on its way to the client.
//!
//! A body that came whole with its head is a chain, and its connection idle again at once. Any other is read as the
//! client takes it; with buffering it is read ahead while the client is slow: into memory, then into a file.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use ::upstream::{Choice, Idle, Outcome};
use buf::{Chain, FileRange, Piece};
use engine::log::{Errno, Level, TIMED_OUT};
use http::body::temp::TempFile;
use http::body::{BodyStream, Broken, Part};
use http::exchange::Exchange;
use http::request::Request;
use http::response::{Body, Headers};
use http::server::Http;

use crate::conf::UpstreamConf;
use crate::engine::Backend;
use crate::protocol::{BodyEvent, Codec, End, Note, ProtocolError};
use crate::respond::{buffering, says_last_words, whole};
use crate::sending::{Obstacle, Sending};
use crate::shared::RequestLog;

/// How much a single read of a buffered body takes, at least and at most, whatever the size of the buffers: a call for each
/// of nginx's small buffers would cost more than the memory.
const READ: std::ops::RangeInclusive<usize> = 64 << 10..=128 << 10;

/// A response's body with all that its end decides.
pub(super) struct UpstreamBody {
    exchange: Rc<Exchange>,
    up: Rc<UpstreamConf>,
    http: Rc<Http>,
    choice: Choice,
    idle: Option<Box<Idle>>,
    place: u32,
    codec: Option<Box<dyn Codec>>,
    /// The rest of the request.
    sending: Sending,
    buffering: bool,
    trailers: Option<Headers>,
    failed: bool,
    /// Read, and not yet asked for.
    ahead: Chain,
    spill: Option<Spill>,
    rate: u64,
    pause: Option<Pin<Box<rt::Sleep>>>,
    log: RequestLog,
}

/// Takes the body out of the codec, up to an event that is something else.
pub(super) fn read(codec: &mut dyn Codec, body: &mut Chain) -> Result<BodyEvent, ProtocolError> {
    loop {
        match codec.read_body()? {
            BodyEvent::Body(bytes) => body.push_joined(bytes),
            event => return Ok(event),
        }
    }
}

/// A file for what memory doesn't hold; what is in it comes after `ahead`.
struct Spill {
    file: TempFile,
    written: u64,
    taken: u64,
    waiting: VecDeque<u64>,
}

impl UpstreamBody {
    pub(super) fn new(
        b: &Backend,
        r: &mut Request,
        exchange: Rc<Exchange>,
        choice: Choice,
        idle: Box<Idle>,
        codec: Box<dyn Codec>,
        sending: Sending,
    ) -> UpstreamBody {
        let buffering = buffering(b, &exchange);
        // As in nginx: what isn't buffered goes at the client's pace.
        let rate = match &b.up.limit_rate {
            Some(template) if buffering => buf::parse::parse_size(&r.render(template)).unwrap_or(0),
            _ => 0,
        };
        UpstreamBody {
            buffering,
            exchange,
            up: b.up.clone(),
            http: r.http.clone(),
            choice,
            place: b.place,
            codec: Some(codec),
            sending,
            trailers: None,
            failed: false,
            idle: Some(idle),
            ahead: Chain::new(),
            spill: None,
            rate,
            pause: None,
            log: RequestLog::new(r),
        }
    }

    /// Starts with what came with the head.
    pub(super) fn begin(
        mut self,
        body: Chain,
        trailers: Option<Headers>,
        first: Result<BodyEvent, ProtocolError>,
    ) -> Body {
        self.trailers = trailers;
        self.exchange.current(|attempt| attempt.length += body.len());
        self.ahead = body;
        if self.settle(first) {
            self.decode();
        }
        if self.idle.is_none() && !self.failed && self.trailers.is_none() {
            return whole(std::mem::take(&mut self.ahead));
        }
        Body::Stream(Box::new(self))
    }

    /// Moves what was received to `ahead`.
    fn decode(&mut self) {
        loop {
            let Some(codec) = &mut self.codec else { return };
            let before = self.ahead.len();
            let read = self::read(&mut **codec, &mut self.ahead);
            let n = self.ahead.len() - before;
            self.exchange.current(|attempt| attempt.length += n);
            if !self.settle(read) {
                return;
            }
        }
    }

    /// Acts on an event; whether more may follow at once.
    fn settle(&mut self, read: Result<BodyEvent, ProtocolError>) -> bool {
        match read {
            Ok(BodyEvent::More) => return false,
            Ok(BodyEvent::Body(bytes)) => self.ahead.push_joined(bytes),
            Ok(BodyEvent::Note(Note { level, text })) => {
                self.log.write(level, format_args!("{text} while reading upstream"));
            }
            Ok(BodyEvent::Trailers(headers)) => self.trailers = Some(headers),
            Ok(BodyEvent::End(end)) => {
                self.complete(end);
                return false;
            }
            Err(error) => {
                self.fail(Level::Error, format_args!("{} while reading upstream", error.text));
                return false;
            }
        }
        true
    }

    /// The body has come to its end: the connection is kept or closed, the attempt is over.
    fn complete(&mut self, end: End) {
        let (Some(mut idle), Some(mut codec)) = (self.idle.take(), self.codec.take()) else { return };
        self.account(&mut idle);
        // Some answer HEAD with a body; it isn't worth a word.
        if end.extra && !self.exchange.to_head.get() {
            let what = "upstream sent more data than specified in \"Content-Length\" header while reading upstream";
            self.log.write(Level::Warn, format_args!("{what}"));
        }
        let is_over = self.sending.is_complete() && idle.stream.pending() == 0;
        if end.keep && is_over && says_last_words(&mut *codec, &mut idle) {
            idle.kept = codec.keep();
            self.choice.keep(idle, self.place);
        }
        self.exchange.end();
        self.choice.completed();
        self.choice.release(Outcome::Good);
    }

    fn account(&self, idle: &mut Idle) {
        let (sent, received) = idle.count();
        self.exchange.current(|attempt| {
            attempt.sent += sent;
            attempt.received += received;
        });
    }

    fn fail(&mut self, level: Level, message: std::fmt::Arguments<'_>) {
        self.log.write(level, message);
        self.give_up();
    }

    /// The body ends here, and the connection with it.
    fn give_up(&mut self) {
        if let Some(mut idle) = self.idle.take() {
            self.account(&mut idle);
        }
        self.failed = true;
        self.exchange.end();
        self.choice.release(Outcome::Good);
    }

    /// How much may be read ahead in memory.
    fn memory(&self) -> u64 {
        (self.up.buffers.count * self.up.buffers.size) as u64
    }

    /// Reads once into `ahead`: ready when something came, or the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.pause = None;
        }
        let Some(idle) = &self.idle else { return Poll::Ready(()) };
        if !idle.stream.recv_timeout_set() {
            idle.stream.set_recv_timeout(Some(self.up.read_timeout));
        }
        let size = self.read_size();
        let idle_stream = &idle.stream;
        let read = std::task::ready!(idle_stream.poll_recv(cx, size));
        idle_stream.set_recv_timeout(None);
        match read {
            Ok(buf) if buf.is_empty() => self.end_of_stream(),
            Ok(buf) => {
                let ms = (buf.len() as u64 * 1000).checked_div(self.rate);
                self.pause = ms.filter(|ms| *ms > 0).map(|ms| Box::pin(rt::sleep(ms)));
                if let Some(codec) = &mut self.codec {
                    // A backend that sends little at a time fills memory with what it sends, not with room for more.
                    codec.receive(buf.fit());
                }
                self.decode();
                let _ = self.send(cx, None);
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.fail(Level::Error, format_args!("upstream timed out{TIMED_OUT} while reading upstream"));
            }
            Err(error) => {
                self.fail(Level::Error, format_args!("recv() failed{} while reading upstream", Errno(&error)));
            }
        }
        Poll::Ready(())
    }

    fn read_size(&self) -> usize {
        let most = match self.rate {
            0 if self.buffering => (self.memory() as usize).clamp(*READ.start(), *READ.end()),
            0 => self.up.buffer_size.max(1024),
            rate => (rate as usize).clamp(1, self.up.buffer_size.max(1)),
        };
        match self.codec.as_ref().and_then(|codec| codec.wants()) {
            // One byte more tells whether the peer sends more than it said.
            Some(left) => {
                let whole = usize::try_from(left).unwrap_or(usize::MAX).saturating_add(1);
                // What is nearly over is read at once.
                if self.rate == 0 && self.buffering && whole <= *READ.end() { whole } else { most.min(whole) }
            }
            None => most,
        }
    }

    /// Sends what there is of the request, and what the protocol has to say while the response comes. A backend that takes
    /// no more may have sent a whole response: reading it tells.
    fn send(&mut self, cx: &mut Context<'_>, r: Option<&mut Request>) -> Result<(), Obstacle> {
        match (&self.idle, &mut self.codec) {
            (Some(idle), Some(codec)) => self.sending.poll(cx, r, &idle.stream, &mut **codec, None),
            _ => Ok(()),
        }
    }

    fn end_of_stream(&mut self) {
        let Some(codec) = &mut self.codec else { return };
        if let Err(error) = codec.receive_end() {
            return self.fail(Level::Error, format_args!("{} while reading upstream", error.text));
        }
        self.decode();
        if self.idle.is_some() && !self.failed {
            let error = ProtocolError::closed();
            self.fail(Level::Error, format_args!("{} while reading upstream", error.text));
        }
    }

    /// Moves what was read into the file, if memory is full or the file has something that comes first.
    fn spill(&mut self) -> Result<(), Broken> {
        if self.spill.is_none() {
            let made = TempFile::create(&self.up.temp_path, false, &self.http.worker.temp_numbers);
            let file = made.map_err(|error| self.fail_write(&error))?;
            let path = buf::text::path(file.path());
            self.log.write(
                Level::Warn,
                format_args!("an upstream response is buffered to a temporary file {path} while reading upstream"),
            );
            self.spill = Some(Spill { file, written: 0, taken: 0, waiting: VecDeque::new() });
        }
        Ok(())
    }

    fn fail_write(&mut self, error: &http::body::temp::TempError) -> Broken {
        self.fail(Level::Crit, format_args!("{error} while reading upstream"));
        Broken
    }

    /// Reads one part straight into the file.
    fn poll_spill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let held = std::mem::take(&mut self.ahead);
        let read = self.poll_read(cx);
        let new = std::mem::replace(&mut self.ahead, held);
        let Some(spill) = &mut self.spill else { return Poll::Ready(Err(Broken)) };
        if let Err(error) = spill.file.append_all(new.pieces()) {
            self.fail_write(&error);
            return Poll::Ready(Err(Broken));
        }
        spill.written += new.len();
        read.map(Ok)
    }

    /// What is ready for the client.
    fn take_ready(&mut self) -> Chain {
        let mut chain = std::mem::take(&mut self.ahead);
        if let Some(spill) = &mut self.spill {
            let len = spill.written - spill.taken;
            if len > 0 {
                chain.push(Piece::File(FileRange { file: spill.file.file(), offset: spill.taken, len }));
                spill.taken = spill.written;
            }
            spill.waiting.clear();
        }
        chain
    }
}

impl BodyStream for UpstreamBody {
    fn send_request(&mut self, r: &mut Request, cx: &mut Context<'_>) {
        if let Err(Obstacle::Client(fault)) = self.send(cx, Some(r)) {
            r.error_status = fault.status();
            self.give_up();
        }
        // A call may last for long without a word from the backend, which is to be told when its client has left.
        let watched = self.idle.is_some() && !self.buffering && !self.up.ignore_client_abort;
        if watched && r.client().is_some_and(|client| client.poll_hangup(cx).is_ready()) {
            let message = "client prematurely closed connection while reading upstream";
            self.fail(Level::Info, format_args!("{message}"));
        }
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Part>, Broken>> {
        loop {
            let chain = self.take_ready();
            if !chain.is_empty() {
                return Poll::Ready(Ok(Some(Part { chain, flush: !self.buffering })));
            }
            if self.failed {
                return Poll::Ready(Err(Broken));
            }
            if self.idle.is_none() {
                return Poll::Ready(Ok(None));
            }
            std::task::ready!(self.poll_read(cx));
            if self.ahead.is_empty() && self.idle.is_some() {
                // What was read may let more of the request be sent.
                return Poll::Ready(Ok(Some(Part { chain: Chain::new(), flush: false })));
            }
        }
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>) {
        if !self.buffering {
            // The backend may have to say that it takes more of the request.
            if !self.sending.is_complete() && self.idle.is_some() && self.ahead.len() < self.up.buffer_size as u64 {
                let _ = self.poll_read(cx);
            }
            return;
        }
        while self.idle.is_some() && !self.failed {
            let spilled = self.spill.as_ref().is_some_and(|spill| spill.written > spill.taken);
            if self.ahead.len() < self.memory() && !spilled {
                if self.poll_read(cx).is_pending() {
                    return;
                }
                continue;
            }
            let written = self.spill.as_ref().map_or(0, |spill| spill.written);
            if written >= self.up.max_temp_file_size as u64 || self.spill().is_err() {
                return;
            }
            if !matches!(self.poll_spill(cx), Poll::Ready(Ok(()))) {
                return;
            }
        }
    }

    fn trailers(&mut self) -> Option<Headers> {
        let headers = self.trailers.take()?;
        *self.exchange.trailers.borrow_mut() = headers.clone();
        Some(headers)
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        if let Some(mut idle) = self.idle.take() {
            self.account(&mut idle);
            self.exchange.end();
        }
        self.choice.release(Outcome::Good);
    }
}
