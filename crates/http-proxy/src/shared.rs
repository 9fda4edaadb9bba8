//! A backend's body that outlives its client.
//!
//! A task of its own takes the body and writes it to a temporary file; any number of readers follow it there, each from
//! the beginning, and may leave at any time. Where something wants the whole body (a [`Keeper`]), the task goes on
//! without readers, as fast as the backend sends. Otherwise it stays no more than a given number of bytes ahead of the
//! slowest reader, and ends with the last one. What fails reaches all readers. Memory holds one part at a time.
//!
//! Only responses that somebody wants whole pay for this: a file written and read, and a task.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::task::{Context, Poll};

use buf::{Chain, FileRange, Piece};
use engine::log::{Errno, Level, Log};
use http::body::temp::{TempError, TempFile};
use http::body::{BodyStream, Broken, Part};
use http::request::subrequest::Apart;
use http::request::{Details, Request};
use http::response::Headers;
use http::server::Http;

/// Wants a body whole.
pub(super) trait Keeper {
    /// The body has come to its end and is in this file; `len` bytes of it.
    fn keep(self: Box<Self>, file: TempFile, len: u64) -> Result<(), WriteError>;
}

/// Writes to the log of a request, after its end too.
pub(super) struct RequestLog {
    log: Log,
    number: u64,
    /// What follows each message.
    details: Option<Details>,
}

impl RequestLog {
    /// The log of a request.
    pub(super) fn new(r: &Request) -> RequestLog {
        RequestLog { log: r.log(), number: r.number, details: Some(Details::of(r)) }
    }

    /// Writes a line.
    pub(super) fn write(&self, level: Level, message: std::fmt::Arguments<'_>) {
        let details = |line: &mut String| self.details.iter().for_each(|details| details.write(line));
        self.log.write_with(level, Some(self.number), message, Some(&details));
    }
}

/// How a body ended, with its trailers.
type Ended = Result<Option<Headers>, Broken>;

struct State {
    file: Rc<std::fs::File>,
    /// Where in the file the body begins.
    base: u64,
    written: Cell<u64>,
    /// What comes after the part that was written, once the file can't be written to any more.
    rest: RefCell<Option<Chain>>,
    flush: Cell<bool>,
    ended: RefCell<Option<Ended>>,
    /// More was written, or the end has come.
    news: rt::Event,
    /// How far the readers are; an empty place was left.
    readers: RefCell<Vec<Option<u64>>>,
    /// A reader went on, or left.
    moved: rt::Event,
}

/// What a body is produced for.
pub(super) struct Purpose {
    /// Who wants it whole, if anybody does.
    pub(super) keeper: Option<Box<dyn Keeper>>,
    /// How far it may be ahead of the slowest reader, if nobody does.
    pub(super) ahead: u64,
    /// How many bytes are in the file already.
    pub(super) base: u64,
}

/// Follows a body from its beginning.
pub(super) struct Reader {
    state: Rc<State>,
    place: usize,
    taken: u64,
}

/// Lets a task of its own take a body; gives back its first reader. A worker that quits waits for it.
pub(super) fn produce(
    http: &Rc<Http>,
    source: Box<dyn BodyStream>,
    file: TempFile,
    purpose: Purpose,
    log: RequestLog,
) -> Reader {
    let apart = Apart::new(http.clone());
    let (reader, task) = begin(source, file, purpose, log);
    rt::spawn(async move {
        task.await;
        drop(apart);
    });
    reader
}

fn begin(
    source: Box<dyn BodyStream>,
    file: TempFile,
    purpose: Purpose,
    log: RequestLog,
) -> (Reader, impl Future<Output = ()>) {
    let state = Rc::new(State {
        file: file.file(),
        base: purpose.base,
        rest: RefCell::default(),
        written: Cell::new(0),
        flush: Cell::new(false),
        ended: RefCell::default(),
        news: rt::Event::new(),
        readers: RefCell::default(),
        moved: rt::Event::new(),
    });
    let reader = Reader::new(&state);
    (reader, pump(state, source, file, purpose, log))
}

async fn pump(
    state: Rc<State>,
    mut source: Box<dyn BodyStream>,
    file: TempFile,
    mut purpose: Purpose,
    log: RequestLog,
) {
    let ended = loop {
        let ahead = purpose.keeper.is_none().then_some(purpose.ahead);
        match poll_fn(|cx| state.poll_part(cx, &mut *source, ahead)).await {
            Ok(Some(part)) => {
                if let Err(error) = state.append(&file, part) {
                    log.write(Level::Crit, format_args!("{error} while reading upstream"));
                    // Nobody gets it whole, but who reads it alone does from memory.
                    (purpose.keeper, purpose.ahead) = (None, IN_MEMORY);
                    if state.readers.borrow().len() > 1 {
                        break Err(Broken);
                    }
                }
                state.news.notify();
                rt::yield_now().await;
            }
            Ok(None) => break Ok(source.trailers()),
            Err(Broken) => break Err(Broken),
        }
    };
    source.finished(state.written.get(), ended.is_ok());
    drop(source);
    if let (Ok(_), Some(keeper)) = (&ended, purpose.keeper)
        && let Err(error) = keeper.keep(file, state.written.get())
    {
        log.write(Level::Crit, format_args!("{error} while reading upstream"));
    }
    state.ended.replace(Some(ended));
    state.news.notify();
}

impl State {
    /// The next part, once there is room for it. `ahead`: nobody but the readers wants it.
    fn poll_part(
        &self,
        cx: &mut Context<'_>,
        source: &mut dyn BodyStream,
        ahead: Option<u64>,
    ) -> Poll<Result<Option<Part>, Broken>> {
        if let Some(ahead) = ahead {
            let Some(slowest) = self.readers.borrow().iter().flatten().copied().min() else {
                return Poll::Ready(Err(Broken));
            };
            let _ = self.moved.poll_since(cx, self.moved.count());
            let rest = self.rest.borrow().as_ref().map_or(0, Chain::len);
            if self.written.get() - slowest + rest >= ahead {
                return Poll::Pending;
            }
        }
        source.poll_part(cx)
    }

    /// What has come in memory since it was last taken.
    fn take_rest(&self) -> Option<Chain> {
        let mut rest = self.rest.borrow_mut();
        let rest = rest.as_mut().filter(|rest| !rest.is_empty())?;
        Some(std::mem::take(rest))
    }

    /// Appends a part to the file. After an error what couldn't be written is in memory, and so is whatever comes later.
    fn append(&self, file: &TempFile, mut part: Part) -> Result<(), WriteError> {
        self.flush.set(part.flush);
        let mut rest = self.rest.borrow_mut();
        if let Some(rest) = &mut *rest {
            rest.append(&mut part.chain);
            return Ok(());
        }
        while let Some(piece) = part.chain.first() {
            if let Err(error) = write_piece(file, piece) {
                *rest = Some(part.chain);
                return Err(error);
            }
            self.written.set(self.written.get() + piece.len());
            part.chain.pop();
        }
        Ok(())
    }
}

/// Why a piece can't be appended to a file.
pub(super) enum WriteError {
    /// Its own file can't be read.
    Read(io::Error),
    /// The file can't be written.
    Write(TempError),
    /// The beginning of the file at this path can't be written again.
    Rewrite(PathBuf, io::Error),
}

impl From<TempError> for WriteError {
    fn from(error: TempError) -> WriteError {
        WriteError::Write(error)
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Read(error) => write!(f, "pread() failed: {error}"),
            WriteError::Write(error) => error.fmt(f),
            WriteError::Rewrite(path, error) => {
                write!(f, "pwrite() \"{}\" failed{}", buf::text::path(path), Errno(error))
            }
        }
    }
}

/// Appends a piece to a file.
pub(super) fn write_piece(file: &TempFile, piece: &Piece) -> Result<(), WriteError> {
    match piece {
        Piece::Bytes(bytes) => Ok(file.append(bytes)?),
        Piece::File(range) => {
            let mut memory = vec![0; (range.len as usize).min(COPY)];
            let mut at = 0;
            while at < range.len {
                let n = (range.len - at).min(COPY as u64) as usize;
                let part = memory.get_mut(..n).unwrap_or_default();
                range.file.read_exact_at(part, range.offset + at).map_err(WriteError::Read)?;
                file.append(part)?;
                at += n as u64;
            }
            Ok(())
        }
    }
}

/// How much of a body is read ahead that no file has room for.
const IN_MEMORY: u64 = 256 << 10;

/// The memory for what is copied from one file to another.
const COPY: usize = 64 << 10;

impl Reader {
    fn new(state: &Rc<State>) -> Reader {
        let mut readers = state.readers.borrow_mut();
        readers.push(Some(0));
        Reader { state: state.clone(), place: readers.len() - 1, taken: 0 }
    }

    /// Another one, from the beginning.
    #[cfg(test)]
    fn another(&self) -> Reader {
        Reader::new(&self.state)
    }

    fn moves(&self, to: Option<u64>) {
        if let Some(place) = self.state.readers.borrow_mut().get_mut(self.place) {
            *place = to;
        }
        self.state.moved.notify();
    }
}

impl BodyStream for Reader {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Part>, Broken>> {
        let state = &self.state;
        let len = state.written.get() - self.taken;
        if len > 0 {
            let range = FileRange { file: state.file.clone(), offset: state.base + self.taken, len };
            self.taken += len;
            self.moves(Some(self.taken));
            let mut chain = Chain::new();
            chain.push(Piece::File(range));
            return Poll::Ready(Ok(Some(Part { chain, flush: self.state.flush.get() })));
        }
        if let Some(chain) = state.take_rest() {
            state.moved.notify();
            return Poll::Ready(Ok(Some(Part { chain, flush: self.state.flush.get() })));
        }
        match &*state.ended.borrow() {
            Some(Ok(_)) => Poll::Ready(Ok(None)),
            Some(Err(Broken)) => Poll::Ready(Err(Broken)),
            None => {
                let _ = state.news.poll_since(cx, state.news.count());
                Poll::Pending
            }
        }
    }

    fn trailers(&mut self) -> Option<Headers> {
        self.state.ended.borrow().as_ref()?.as_ref().ok()?.clone()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.moves(None);
    }
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
