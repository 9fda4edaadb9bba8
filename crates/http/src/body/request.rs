//! Bodies of requests, as they are read.

use std::future::{Future, poll_fn};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use buf::{Bytes, Chain, FileRange, Piece};
use engine::log::{Errno, Level, TIMED_OUT};
use wire::h1::{BodyFraming, ChunkEvent, ChunkedDecoder};

use super::files::read_here;
use super::pipeline::read_failed;
use super::temp::{Gathered, TempError, TempFile};
use super::{BodyFilter, Broken, append};
use crate::config::core::BodyInFile;
use crate::fault::Fault;
use crate::request::{Ending, Request};
use crate::response::headers::Headers;

/// The largest single read of a body.
const READ_SIZE: usize = 16 << 10;
/// How much of a body that is read whole an HTTP/2 client may send ahead.
const WHOLE_WINDOW: usize = 1 << 20;

/// The body of a request.
#[derive(Default)]
pub struct RequestBody {
    framing: Framing,
    declared: Option<u64>,
    /// Bytes that were read after the head and are unused so far.
    unread: Bytes,
    /// The whole body, once it has been read for a handler.
    buffered: Option<Buffered>,
    /// The beginning of a body that broke off while it was read for a handler; only `$request_body` shows it.
    partial: Vec<Piece>,
    received: u64,
    /// The same with the framing, but without the bytes that were dropped.
    raw: u64,
    /// What it counts as if those that came last make no body: all that were read from the client once the head was
    /// there.
    raw_before: u64,
    /// What tells where it ends.
    delimiter: Delimiter,
    /// What becomes of the part that is still to come.
    rest: Remainder,
    /// Until when what is dropped of it is waited for, in the loop's milliseconds.
    dropped_until: Option<u64>,
    /// Whether the client waits for `100 Continue`.
    expect: bool,
    /// The filters that change the body before it is read.
    change: Option<Box<Change>>,
}

/// The filters of a body.
#[derive(Default)]
struct Change {
    filters: Vec<Box<dyn BodyFilter>>,
    /// What they have given that isn't read yet.
    ready: Chain,
    /// Whether they have taken the whole body.
    ended: bool,
}

#[derive(Default)]
enum Framing {
    #[default]
    Done,
    Length(u64),
    Chunked(Box<ChunkedDecoder>),
    /// As long as the stream of HTTP/2 that it comes on.
    Endless,
}

/// What tells where a body ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Delimiter {
    /// Its declared length; without one there is no body.
    #[default]
    Length,
    /// The last chunk.
    Chunks,
    /// The end of its stream of HTTP/2.
    Stream,
}

/// What becomes of the part of a body that is still to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Remainder {
    /// It is read for whoever uses the body.
    #[default]
    Wanted,
    /// It is read and dropped.
    Dropped,
    /// It isn't read, so the connection can't be kept.
    Refused,
    /// It won't come: the client has closed its side.
    Missing,
}

/// What became of a body that was to be read and dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discarded {
    /// All of it has come.
    Whole,
    /// It doesn't come, or can't be understood.
    Broken,
    /// It takes too long.
    Late,
}

/// A body that was read whole.
#[derive(Clone, Default)]
pub struct Buffered {
    /// In memory: a chain of pieces; in a file: one range of it.
    pub pieces: Vec<Piece>,
    /// Its length.
    pub len: u64,
    /// The file, if it is in one.
    pub file: Option<Rc<TempFile>>,
}

impl RequestBody {
    /// A body as the head describes it; `unread` is what came with the head.
    pub fn begin(&mut self, framing: BodyFraming, unread: Bytes, expect: bool) {
        self.clear();
        (self.unread, self.expect) = (unread, expect);
        match framing {
            BodyFraming::None => {}
            BodyFraming::Length(length) => {
                self.declared = Some(length);
                self.framing = if length == 0 { Framing::Done } else { Framing::Length(length) };
            }
            BodyFraming::Chunked => {
                self.delimiter = Delimiter::Chunks;
                self.framing = Framing::Chunked(Box::new(ChunkedDecoder::new(None)));
            }
        }
    }

    /// A body that ends where its stream does, whatever was declared: the protocol has checked that.
    pub(crate) fn begin_stream(&mut self, declared: Option<u64>, expect: bool) {
        self.clear();
        (self.framing, self.delimiter) = (Framing::Endless, Delimiter::Stream);
        (self.declared, self.expect) = (declared, expect);
    }

    /// Resets the body to none. Field by field: most of them hold nothing. The pattern names every field.
    #[deny(unused_variables)]
    pub(crate) fn clear(&mut self) {
        let RequestBody {
            framing,
            declared,
            unread,
            buffered,
            partial,
            received,
            raw,
            raw_before,
            delimiter,
            rest,
            dropped_until,
            expect,
            change,
        } = self;
        (*framing, *declared) = (Framing::Done, None);
        if !unread.is_empty() {
            *unread = Bytes::default();
        }
        (*received, *raw, *raw_before) = (0, 0, 0);
        (*delimiter, *rest, *expect) = (Delimiter::Length, Remainder::Wanted, false);
        *dropped_until = None;
        if buffered.is_some() {
            *buffered = None;
        }
        if change.is_some() {
            *change = None;
        }
        if !partial.is_empty() {
            partial.clear();
        }
    }

    /// What was read of it whole, as the body of another request; nothing if it wasn't. One that is declared to be empty
    /// needn't be read.
    pub fn shared(&self) -> RequestBody {
        let Some(body) = self.buffered.clone() else {
            return RequestBody { declared: self.declared.filter(|length| *length == 0), ..RequestBody::default() };
        };
        RequestBody { declared: Some(body.len), buffered: Some(body), ..RequestBody::default() }
    }

    /// Lets a filter change the body on its way. To be called before the first part of it is read; its length is that
    /// of what the filters make of it, so it isn't known before the end.
    pub fn add_filter(&mut self, filter: Box<dyn BodyFilter>) {
        self.change.get_or_insert_default().filters.push(filter);
    }

    /// `Content-Length`, if there is one.
    pub fn declared_length(&self) -> Option<u64> {
        self.declared
    }

    /// The length, if it is known by now.
    pub fn known_length(&self) -> Option<u64> {
        let changed = self.change.is_some();
        let read = self.delimiter != Delimiter::Length || changed;
        let is_dropped = self.delimiter == Delimiter::Chunks && self.rest == Remainder::Dropped && self.is_done();
        let dropped = is_dropped.then_some(0);
        self.declared.filter(|_| !changed).or(self.buffered.as_ref().filter(|_| read).map(|body| body.len)).or(dropped)
    }

    /// Whether the request has a body: of a length other than 0, or in chunks.
    pub fn exists(&self) -> bool {
        // A stream's body is there until its end has come: whether it is as long as it should be is seen when it is
        // read.
        self.declared.is_some_and(|length| length > 0) || self.delimiter != Delimiter::Length
    }

    /// Whether the head announces a body, even an empty one.
    fn is_framed(&self) -> bool {
        self.declared.is_some() || self.exists()
    }

    /// Whether the client has sent all of it.
    fn came_with_head(&self) -> bool {
        match &self.framing {
            Framing::Length(left) => self.unread.len() as u64 >= *left,
            _ => self.is_here(),
        }
    }

    /// Whether the client waits to be told to go on.
    pub fn is_awaited(&self) -> bool {
        self.expect
    }

    /// Whether its length is unknown until its end, as that of chunks.
    pub fn chunked(&self) -> bool {
        (self.declared.is_none() && self.delimiter != Delimiter::Length) || (self.exists() && self.change.is_some())
    }

    /// Whether all of it was read.
    pub fn is_done(&self) -> bool {
        matches!(self.framing, Framing::Done)
    }

    /// Nothing more of it will be read: the connection can't be kept.
    pub fn refuse(&mut self) {
        self.rest = self.rest.max(Remainder::Refused);
    }

    /// Whether nothing more of it will be read.
    fn is_refused(&self) -> bool {
        self.rest >= Remainder::Refused
    }

    /// From here on it is unused: what arrives is dropped.
    fn discard(&mut self) {
        self.rest = self.rest.max(Remainder::Dropped);
    }

    /// The same for what is wrong with the bytes that were read last.
    fn refuse_read(&mut self) {
        self.refuse();
        self.raw = self.raw_before;
    }

    /// The same for a body of which nothing was read: from here on there is none.
    pub(crate) fn refuse_whole(&mut self) {
        self.refuse();
        self.declared = Some(0);
    }

    /// Whether a part of it has been taken that nobody can give back: passed on to a backend, or lost when reading it failed.
    fn is_spent(&self) -> bool {
        self.buffered.is_none() && (self.received > 0 || self.is_refused())
    }

    /// A body of which a part is lost becomes an empty one. Whoever is asked next must not be told of a length that doesn't
    /// come, nor take the rest for the whole.
    pub fn settle(&mut self) {
        if self.is_spent() {
            if !self.is_done() {
                self.refuse();
            }
            self.declared = Some(0);
            self.keep(Vec::new());
        }
    }

    /// Whether the client closed its side before the end of the body.
    pub fn client_gone(&self) -> bool {
        self.rest == Remainder::Missing
    }

    /// Whether all that is left of it was read from the client already.
    fn is_here(&self) -> bool {
        let Framing::Chunked(decoder) = &self.framing else { return self.is_done() };
        let (mut decoder, mut rest) = (decoder.clone(), &self.unread[..]);
        loop {
            match decoder.step(rest) {
                Ok((used, ChunkEvent::Data(_))) => rest = rest.get(used..).unwrap_or_default(),
                Ok((_, event)) => return event == ChunkEvent::Done,
                Err(_) => return false,
            }
        }
    }

    /// Whether bytes came after the body (or any of the rest, if the body wasn't read).
    pub(crate) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Bytes after the body (or the whole rest, if the body wasn't read).
    pub fn take_unread(&mut self) -> Bytes {
        std::mem::take(&mut self.unread)
    }

    /// The body, if it was read whole.
    pub fn buffered(&self) -> Option<&Buffered> {
        self.buffered.as_ref()
    }

    /// The same, for whoever takes it for good.
    pub fn take_buffered(&mut self) -> Option<Buffered> {
        self.buffered.take()
    }

    /// Keeps a small body that was passed on while it arrived.
    pub fn keep(&mut self, pieces: Vec<Piece>) {
        let len = pieces.iter().map(Piece::len).sum();
        self.buffered = Some(Buffered { pieces, len, file: None });
    }

    /// The body's text, if it is in memory.
    pub fn text(&self, out: &mut Vec<u8>) -> bool {
        let pieces = match &self.buffered {
            Some(body) if body.file.is_some() => return false,
            Some(body) if body.len == 0 && self.declared.is_none() && self.delimiter != Delimiter::Chunks => {
                return false;
            }
            Some(body) => &body.pieces,
            None if self.partial.is_empty() => return false,
            None => &self.partial,
        };
        for piece in pieces {
            if let Piece::Bytes(bytes) = piece {
                out.extend_from_slice(bytes);
            }
        }
        true
    }

    /// Where the body is, if it is in a file.
    pub(crate) fn file_path(&self) -> Option<&PathBuf> {
        self.buffered.as_ref()?.file.as_ref().map(|file| file.path())
    }

    /// How many bytes were read of it, as they came: with the heads of chunks and what they bring along.
    pub(crate) fn length_on_the_wire(&self) -> u64 {
        self.raw
    }

    /// Marks the body as unwanted, so that the client isn't told to send it.
    pub fn unwanted(&mut self) {
        self.expect = false;
    }

    /// Takes bytes of the body from what was read: `Ok(None)` if more must be read.
    fn take(&mut self) -> Result<Option<Bytes>, Fault> {
        let before = self.unread.len();
        let taken = self.take_data();
        if self.rest != Remainder::Dropped {
            self.raw += (before - self.unread.len()) as u64;
        }
        taken
    }

    fn take_data(&mut self) -> Result<Option<Bytes>, Fault> {
        while !self.unread.is_empty() {
            match &mut self.framing {
                Framing::Done => return Ok(None),
                Framing::Length(left) => {
                    let n = (*left).min(self.unread.len() as u64);
                    let data = self.unread.slice(0..n as usize);
                    self.unread.advance(n as usize);
                    *left -= n;
                    if *left == 0 {
                        self.framing = Framing::Done;
                    }
                    self.received += n;
                    return Ok(Some(data));
                }
                Framing::Endless => {
                    let data = std::mem::take(&mut self.unread);
                    self.received += data.len() as u64;
                    return Ok(Some(data));
                }
                Framing::Chunked(decoder) => {
                    let (used, event) = decoder.step(&self.unread).map_err(|_| Fault::InvalidChunks)?;
                    let data = match event {
                        ChunkEvent::Data(range) => Some(self.unread.slice(range)),
                        ChunkEvent::More => None,
                        ChunkEvent::Done => {
                            self.unread.advance(used);
                            self.framing = Framing::Done;
                            return Ok(None);
                        }
                    };
                    self.unread.advance(used);
                    if let Some(data) = data {
                        self.received += data.len() as u64;
                        return Ok(Some(data));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The least length of the body: what has arrived, and the rest of the current chunk.
    fn least(&self) -> u64 {
        match &self.framing {
            Framing::Chunked(decoder) => self.received.saturating_add(decoder.chunk_left()),
            _ => self.received,
        }
    }

    /// How many bytes the body still needs at least, for the size of the next read.
    fn wants(&self) -> u64 {
        match &self.framing {
            Framing::Done => 0,
            Framing::Length(left) => *left,
            Framing::Endless => 1,
            Framing::Chunked(decoder) => decoder.wants().max(1),
        }
    }
}

impl Request {
    /// Whether the body can be read without waiting for the client, and into memory.
    pub fn body_is_here(&self) -> bool {
        let most = self.location.core.client_body_buffer_size;
        self.body.came_with_head() || self.h2_stream().is_some_and(|stream| stream.has_received_all(most))
    }

    /// Reads a body that is here as a whole, without waiting and into memory, whatever `client_body_in_file_only` says.
    /// False, with nothing read, if it isn't here or filters change it.
    pub fn read_ready_body(&mut self) -> Result<bool, Fault> {
        if self.body.change.is_some() || !self.body_is_here() {
            return Ok(false);
        }
        let mut pieces = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match self.poll_body(&mut cx) {
                Poll::Ready(Ok(Some(data))) => append(&mut pieces, data),
                Poll::Ready(Err(fault)) => return Err(fault),
                Poll::Ready(Ok(None)) => {
                    self.body.keep(pieces);
                    return Ok(true);
                }
                Poll::Pending => {
                    debug_assert!(false, "it was here");
                    return Err(Fault::LostClient.log(self));
                }
            }
        }
    }

    /// The next piece of the body as it arrives; `None` at its end. A fault has been logged.
    pub async fn next_body(&mut self) -> Result<Option<Bytes>, Fault> {
        poll_fn(|cx| self.poll_body(cx)).await
    }

    /// As [`Request::next_body`].
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        match self.body.change.take() {
            Some(mut change) if self.body.rest != Remainder::Dropped => {
                let piece = self.poll_changed(&mut change, cx);
                self.body.change = Some(change);
                piece
            }
            change => {
                self.body.change = change;
                self.poll_unchanged(cx)
            }
        }
    }

    /// The next piece of the body after the filters.
    fn poll_changed(&mut self, change: &mut Change, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        loop {
            match change.ready.pop() {
                Some(Piece::Bytes(bytes)) if bytes.is_empty() => continue,
                Some(Piece::Bytes(bytes)) => return Poll::Ready(Ok(Some(bytes))),
                Some(Piece::File(range)) => {
                    let read = read_here(&range).map(Some);
                    return Poll::Ready(read.map_err(|error| {
                        let Broken = read_failed(self, &error);
                        Fault::FailedFile
                    }));
                }
                None if change.ended => return Poll::Ready(Ok(None)),
                None => {}
            }
            let data = std::task::ready!(self.poll_unchanged(cx))?;
            change.ended = data.is_none();
            let mut chain = data.map_or_else(Chain::new, Chain::from);
            for filter in &mut change.filters {
                let mut out = Chain::new();
                if filter.apply(chain, change.ended, true, &mut out).is_err() {
                    self.body.refuse();
                    return Poll::Ready(Err(Fault::InvalidBody));
                }
                chain = out;
            }
            change.ready = chain;
        }
    }

    /// The next piece of the body as the client sent it.
    fn poll_unchanged(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        if self.body.is_refused() {
            return Poll::Ready(Ok(None));
        }
        self.send_continue();
        loop {
            match self.body.take() {
                Err(fault) => {
                    self.body.refuse_read();
                    return Poll::Ready(Err(fault.log(self)));
                }
                Ok(Some(data)) => {
                    self.check_length(data.len() as u64)?;
                    return Poll::Ready(Ok(Some(data)));
                }
                Ok(None) if self.body.is_done() => return Poll::Ready(Ok(None)),
                Ok(None) => self.check_length(0)?,
            }
            let timeout = self.body_timeout().ok_or(Fault::SlowClient)?;
            // Without a client there is no body to read.
            let Some(client) = self.client() else { return Poll::Ready(Ok(None)) };
            client.open_window(self.location.core.client_body_buffer_size);
            let size = self.body.wants().clamp(1024, READ_SIZE as u64) as usize;
            if !client.recv_timeout_set() {
                client.set_recv_timeout(Some(timeout));
            }
            let read = std::task::ready!(client.poll_recv(cx, size));
            client.set_recv_timeout(None);
            match read {
                Ok(bytes) if !bytes.is_empty() => {
                    self.body.raw_before = self.body.raw + bytes.len() as u64;
                    self.body.unread = bytes;
                }
                Ok(_) if matches!(self.body.framing, Framing::Endless) => self.body.framing = Framing::Done,
                Ok(_) => {
                    self.body.rest = Remainder::Missing;
                    return Poll::Ready(Err(Fault::ClosedEarly.log(self)));
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut && self.body.dropped_until.is_some() => {
                    self.body.dropped_until = Some(0);
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    self.body.refuse();
                    self.give_up();
                    return Poll::Ready(Err(Fault::SlowClient.log_with(self, &TIMED_OUT)));
                }
                Err(error) if self.h2_stream().is_some() => {
                    return Poll::Ready(Err(self.stream_failed(&error)));
                }
                Err(error) => {
                    self.body.refuse();
                    return Poll::Ready(Err(Fault::LostClient.log_with(self, &Errno(&error))));
                }
            }
        }
    }

    /// How long the next part of the body is waited for; `None`: what is dropped has had its time.
    fn body_timeout(&self) -> Option<u64> {
        let core = &self.location.core;
        let Some(until) = self.body.dropped_until else { return Some(core.client_body_timeout) };
        let left = until.saturating_sub(rt::now_ms());
        (left > 0).then(|| left.min(core.lingering_timeout))
    }

    /// Reading the stream of HTTP/2 has failed: the body has no further parts.
    fn stream_failed(&mut self, error: &io::Error) -> Fault {
        if error.kind() == io::ErrorKind::InvalidData {
            self.body.rest = Remainder::Refused;
            return self.bad_length();
        }
        self.body.rest = Remainder::Missing;
        Fault::ClosedStream.log(self)
    }

    /// The body of a stream isn't as long as declared.
    fn bad_length(&self) -> Fault {
        let missing = self.h2_stream().map_or(0, |stream| stream.body_missing());
        match self.body.declared {
            Some(declared) if missing > 0 => {
                let received = declared.saturating_sub(missing);
                Fault::ShortStream.log_with(self, &format_args!("{received} out of {declared}"))
            }
            _ => Fault::LongStream.log(self),
        }
    }

    /// The limit on bodies whose length isn't declared: a chunk counts whole once its head is there. `last` bytes were
    /// taken just now.
    fn check_length(&mut self, last: u64) -> Result<(), Fault> {
        let limit = self.location.core.client_max_body_size;
        let least = self.body.least();
        if limit > 0 && least > limit && self.body.declared.is_none() && self.body.rest != Remainder::Dropped {
            let before = self.body.received.saturating_sub(last);
            let more = least - before;
            let size =
                if self.body.delimiter == Delimiter::Stream { least.to_string() } else { format!("{before}+{more}") };
            self.body.refuse_read();
            return Err(Fault::TooLargeChunks.log_with(self, &size));
        }
        Ok(())
    }

    /// Sends `100 Continue` to a client that waits for it.
    fn send_continue(&mut self) {
        if !std::mem::take(&mut self.body.expect) || !self.body.unread.is_empty() {
            return;
        }
        if let Some(client) = self.client() {
            client.send_interim("100 Continue", &Headers::default());
        }
    }

    /// Reads the whole body, to memory or beyond `client_body_buffer_size` to a file.
    pub fn read_body(&mut self) -> impl Future<Output = Result<(), Fault>> {
        let in_file = self.location.core.client_body_in_file_only;
        self.read_whole(in_file)
    }

    /// Reads the body before a location is looked for, if the server says so: for variables that depend on it.
    pub(crate) async fn read_body_early(&mut self) -> Result<(), Fault> {
        let conditions = self.server.core.client_body_early_read.clone();
        if self.body.is_framed() && conditions.iter().any(|condition| self.test(condition)) {
            self.check_body_length()?;
            self.read_whole(BodyInFile::Off).await?;
        }
        Ok(())
    }

    async fn read_whole(&mut self, in_file: BodyInFile) -> Result<(), Fault> {
        // The error page may come from a backend, which gets no body then.
        self.body.settle();
        if self.body.buffered.is_some() {
            return Ok(());
        }
        let core = self.location.core.clone();
        // It is stored in memory or in a file as fast as it arrives.
        if let Some(client) = self.client() {
            client.open_window(WHOLE_WINDOW);
        }
        let mut body = Buffered::default();
        // What the first buffer holds beside the head is in memory already, and stays there.
        let with_head = if self.body.came_with_head() { self.server.core.client_header_buffer_size } else { 0 };
        let limit = core.client_body_buffer_size.max(with_head) as u64;
        let mut gathered = Gathered::default();
        loop {
            let next = poll_fn(|cx| match self.poll_body(cx) {
                // What has come is written before more is waited for.
                Poll::Pending if !gathered.is_empty() => Poll::Ready(None),
                next => next.map(Some),
            });
            let data = match next.await {
                Some(Ok(Some(data))) => data,
                Some(Ok(None)) => break,
                Some(Err(fault)) => {
                    if self.body.client_gone() && body.file.is_none() {
                        self.body.partial = body.pieces;
                    }
                    return Err(fault);
                }
                None => {
                    self.write_gathered(&mut gathered, &body)?;
                    continue;
                }
            };
            body.len += data.len() as u64;
            match &body.file {
                None if body.len > limit => {
                    body.pieces.push(Piece::Bytes(data));
                    self.spill(&mut body, in_file)?;
                }
                None => append(&mut body.pieces, data),
                Some(file) => {
                    let added = gathered.add(&data, |bytes| file.append(bytes));
                    added.map_err(|error| self.temp_failed(&error))?;
                }
            }
        }
        self.write_gathered(&mut gathered, &body)?;
        if in_file != BodyInFile::Off && body.file.is_none() && self.body.is_framed() {
            self.spill(&mut body, in_file)?;
        }
        if let Some(file) = &body.file {
            body.pieces = vec![Piece::File(FileRange { file: file.file(), offset: 0, len: body.len })];
        }
        self.body.buffered = Some(body);
        Ok(())
    }

    /// Moves what has been read so far into a new file.
    fn spill(&mut self, body: &mut Buffered, in_file: BodyInFile) -> Result<(), Fault> {
        let core = self.location.core.clone();
        let keep = in_file == BodyInFile::On;
        let made = TempFile::create(&core.client_body_temp_path, keep, &self.http.worker.temp_numbers);
        let file = match made {
            Ok(file) => Rc::new(file),
            Err(error) => return Err(self.temp_failed(&error)),
        };
        let level = if in_file == BodyInFile::Off { Level::Warn } else { Level::Notice };
        if body.len > 0 {
            let path = buf::text::path(file.path());
            self.log_at(level, format_args!("a client request body is buffered to a temporary file {path}"));
        }
        let written = file.append_all(&std::mem::take(&mut body.pieces));
        written.map_err(|error| self.temp_failed(&error))?;
        body.file = Some(file);
        Ok(())
    }

    fn write_gathered(&mut self, gathered: &mut Gathered, body: &Buffered) -> Result<(), Fault> {
        let Some(file) = &body.file else { return Ok(()) };
        gathered.write(|bytes| file.append(bytes)).map_err(|error| self.temp_failed(&error))
    }

    fn temp_failed(&mut self, error: &TempError) -> Fault {
        self.body.refuse();
        Fault::FailedFile.log_with(self, error)
    }

    /// Reads and drops the rest of the body, so that the connection can be kept: for as long as a connection lingers, of which
    /// the log isn't told.
    pub(crate) async fn discard_body(&mut self) -> Discarded {
        if self.body.is_refused() {
            return Discarded::Broken;
        }
        // A client that waits for `100 Continue` won't send the body without it.
        if self.body.expect && !self.body.is_done() && self.body.unread.is_empty() {
            return Discarded::Broken;
        }
        self.body.discard();
        // Who has waited for the next part of a body that was passed on had more time.
        self.client().inspect(|client| client.set_recv_timeout(None));
        self.body.dropped_until = Some(rt::now_ms() + self.location.core.lingering_time);
        loop {
            match self.next_body().await {
                Ok(Some(_)) => {}
                Ok(None) => return Discarded::Whole,
                Err(Fault::SlowClient) => return Discarded::Late,
                Err(_) => return Discarded::Broken,
            }
        }
    }

    /// Drops the received part of the body; an error if that part is invalid.
    pub(crate) fn skip_body(&mut self) -> Result<(), Fault> {
        // A client that waits for `100 Continue` gets it, so that the connection can be kept; but not if the request
        // has failed, since the client may then leave its body out (RFC 9110 §10.1.1).
        if self.error_status >= 300 {
            self.body.unwanted();
        } else if self.ending == Ending::Keep && self.body.expect && !self.body.is_done() && !self.body.is_refused() {
            self.send_continue();
        }
        self.body.discard();
        while !self.body.is_done() && !self.body.is_refused() {
            match self.body.take() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(fault) => {
                    fault.log(self);
                    self.body.refuse();
                    self.close_after();
                    // An error keeps its status.
                    return if self.error_status >= 300 { Ok(()) } else { Err(fault) };
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Broken;
    use crate::reuse::{self, Members, members};

    struct Nothing;

    impl BodyFilter for Nothing {
        fn apply(&mut self, _: Chain, _: bool, _: bool, _: &mut Chain) -> Result<(), Broken> {
            Ok(())
        }
    }

    impl RequestBody {
        pub(crate) fn members(&self) -> Members {
            members!(
                self,
                RequestBody {
                    framing: std::mem::discriminant(framing),
                    declared,
                    unread,
                    buffered: buffered.as_ref().map(|body| (&body.pieces, body.len)),
                    partial,
                    received,
                    raw,
                    raw_before,
                    delimiter,
                    rest,
                    dropped_until,
                    expect,
                    change: change.is_some(),
                }
            )
        }

        /// Changes every member.
        #[deny(unused_variables)]
        pub(crate) fn poison(&mut self) {
            self.add_filter(Box::new(Nothing));
            let RequestBody {
                framing,
                declared,
                unread,
                buffered,
                partial,
                received,
                raw,
                raw_before,
                delimiter,
                rest,
                dropped_until,
                expect,
                change: _,
            } = self;
            *framing = Framing::Length(3);
            *declared = Some(3);
            *unread = Bytes::from_static(b"old");
            partial.push(Piece::Bytes(unread.clone()));
            *buffered = Some(Buffered { pieces: partial.clone(), len: 3, file: None });
            (*received, *raw, *raw_before) = (3, 3, 3);
            (*delimiter, *rest, *expect) = (Delimiter::Chunks, Remainder::Missing, true);
            *dropped_until = Some(3);
        }
    }

    #[test]
    fn a_body_that_begins_is_as_new() {
        let begins: [fn(&mut RequestBody); 3] = [
            |body| body.begin(BodyFraming::None, Bytes::default(), false),
            |body| body.begin(BodyFraming::Chunked, Bytes::default(), false),
            |body| body.begin_stream(None, false),
        ];
        for begin in begins {
            let (mut new, mut reset) = (RequestBody::default(), RequestBody::default());
            reset.poison();
            begin(&mut new);
            begin(&mut reset);
            assert_eq!(reset.members(), new.members());
        }
        let (new, mut body) = (RequestBody::default(), RequestBody::default());
        body.poison();
        let used = body.members();
        body.clear();
        reuse::check(&new.members(), &used, &body.members(), &[]);
    }
}
