//! Hand-over: on a reload a worker that leaves passes what would tie it up to its successors.
//!
//! nginx's old workers close idle connections, and live on as long as a WebSocket does. Here both move: the descriptor
//! goes over the channel, with a small state beside it, and the successor serves on. The client notices nothing.
//!
//! The way of a parcel: an application gives it to [`Handover::give`]; it goes to one of the workers of the newest
//! generation that said they take parcels, in turn; the worker's applications are asked, one after the other, to adopt
//! it. What none of them adopts comes back, and so does what nobody is left for: the giver then serves it to its end
//! itself, as nginx does. Before a worker leaves, it asks its successors once more: their answers come behind all they
//! returned. An idle connection whose receiver has no place or no use for it is closed, which is what nginx does.
//!
//! The frame around a parcel's payload is a version, flags, the sender's process id, and the payload, which lies in a
//! file without a name beside the parcel's own descriptors if it is long.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use crate::channel::{Channel, MAX_PAYLOAD, Message};
use crate::log::{self, Errno};
use crate::module::App;
use crate::peers::{Peer, Peers};

/// What a parcel may hold. 3 and 4 are for sessions of streams and connections whose TLS the kernel does.
pub mod kind {
    /// A client's HTTP connection between two requests.
    pub const HTTP_IDLE: u8 = 1;
    /// An upgraded HTTP connection, with the one to its backend.
    pub const HTTP_TUNNEL: u8 = 2;
    /// No parcel: asks whether its receiver takes parcels.
    pub(super) const ASK: u8 = 64;
    /// No parcel: the answer.
    pub(super) const ANSWER: u8 = 65;
}

/// Something to serve on: descriptors, and what has to be known of them.
#[derive(Debug)]
pub struct Parcel {
    /// One of [`kind`].
    pub kind: u8,
    /// The state, in the kind's own format.
    pub payload: Vec<u8>,
    /// The descriptors, at most [`MAX_FDS`].
    pub fds: Vec<OwnedFd>,
}

/// The most descriptors of a parcel; one place of a message is for a long payload.
pub const MAX_FDS: usize = os::channel::MAX_FDS - 1;

/// A worker's part in hand-overs: as the one that gives and as the one that takes.
pub struct Handover {
    peers: Rc<RefCell<Peers>>,
    generation: u64,
    apps: Vec<Rc<dyn App>>,
    /// Whether it takes parcels: the configuration says so, and it isn't leaving.
    takes: Cell<bool>,
    /// The workers that parcels go to.
    successors: RefCell<Vec<Successor>>,
    /// Parcels that no channel had room for.
    waiting: RefCell<VecDeque<Letter>>,
    /// Who has the next turn.
    turn: Cell<usize>,
    /// The number of the last question.
    question: Cell<u32>,
    given: Cell<usize>,
    /// What others are to be told or given back, in its order.
    replies: RefCell<VecDeque<(i32, Letter)>>,
    replying: Cell<bool>,
}

/// A worker that may take over.
struct Successor {
    peer: Peer,
    asked: u32,
    answered: u32,
    willing: bool,
    gone: bool,
}

/// A parcel on its way.
struct Letter {
    message: Message,
    fds: Vec<OwnedFd>,
}

impl Handover {
    /// For a worker of this generation with these applications.
    pub fn new(peers: Rc<RefCell<Peers>>, generation: u64, apps: Vec<Rc<dyn App>>, takes: bool) -> Rc<Handover> {
        Rc::new(Handover {
            peers,
            generation,
            apps,
            takes: Cell::new(takes),
            successors: RefCell::default(),
            waiting: RefCell::default(),
            turn: Cell::new(0),
            question: Cell::new(0),
            given: Cell::new(0),
            replies: RefCell::default(),
            replying: Cell::new(false),
        })
    }

    /// Whether there is somebody to give to.
    pub fn is_open(&self) -> bool {
        self.successors.borrow().iter().any(Successor::is_willing)
    }

    /// How many parcels wait for room in a channel.
    pub fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// How many parcels were given away; those that came back are not counted.
    pub fn given(&self) -> usize {
        self.given.get()
    }

    /// The worker leaves: it takes nothing any more, and looks for successors. Returns whether some are willing, once
    /// all that there are have answered or had time enough.
    pub async fn begin(&self) -> bool {
        self.takes.set(false);
        self.refresh();
        self.ask_all(BEGIN_MS).await;
        self.is_open()
    }

    /// Gives a parcel to a successor. If none is left, an application of this worker gets it back.
    pub fn give(&self, parcel: Parcel) {
        match Letter::of(parcel, 0) {
            Ok(letter) => self.waiting.borrow_mut().push_back(letter),
            Err((error, parcel)) => {
                crate::log!(log::current(), Error, "a connection can't be handed over{}", Errno(&error));
                self.take_back(parcel);
            }
        }
        self.deliver();
    }

    /// Sends what waits, as far as there is room, and learns which successors there are by now.
    pub fn go_on(&self) {
        self.refresh();
        let new = self.successors.borrow().iter().any(|successor| successor.asked == 0);
        if new {
            self.question.set(self.question.get() + 1);
        }
        self.ask();
        self.deliver();
    }

    /// Waits until nothing is on its way any more, neither there nor back.
    pub async fn settle(&self) {
        while self.waiting() > 0 {
            self.deliver();
            rt::sleep(RETRY_MS).await;
        }
        self.ask_all(PATIENCE_MS).await;
    }

    /// A message of another worker.
    pub fn received(self: &Rc<Self>, kind: u8, payload: &[u8], fds: Vec<OwnedFd>) {
        let frame = match Frame::open(payload, fds) {
            Ok(frame) => frame,
            Err(error) => {
                crate::log!(log::current(), Alert, "what was handed over isn't understood{}", Errno(&error));
                return;
            }
        };
        match kind {
            kind::ASK => self.answer(&frame),
            kind::ANSWER => self.note_answer(&frame),
            _ => {
                let parcel = Parcel { kind, payload: frame.payload, fds: frame.fds };
                if frame.flags & RETURNED != 0 {
                    self.given.set(self.given.get().saturating_sub(1));
                    self.take_back(parcel);
                } else if let Err(parcel) = self.adopt(parcel, false) {
                    self.send_back(frame.pid, parcel);
                }
            }
        }
    }

    fn adopt(&self, mut parcel: Parcel, back: bool) -> Result<(), Parcel> {
        for app in &self.apps {
            match app.clone().adopt(parcel, back) {
                Ok(()) => return Ok(()),
                Err(refused) => parcel = refused,
            }
        }
        Err(parcel)
    }

    /// What this worker gave, and nobody took.
    fn take_back(&self, parcel: Parcel) {
        if let Err(parcel) = self.adopt(parcel, true) {
            crate::log!(
                log::current(),
                Error,
                "nobody serves what was to be handed over, closed: kind {}",
                parcel.kind
            );
        }
    }

    /// Notes who came and who went. Only the newest generation counts.
    fn refresh(&self) {
        let peers = self.peers.borrow().successors(self.generation);
        let mut successors = self.successors.borrow_mut();
        successors.retain(|known| peers.iter().any(|peer| peer.pid == known.peer.pid));
        for peer in peers {
            if !successors.iter().any(|known| known.peer.pid == peer.pid) {
                successors.push(Successor { peer, asked: 0, answered: 0, willing: false, gone: false });
            }
        }
    }

    /// Asks all successors, and waits for their answers, but not for ever.
    async fn ask_all(&self, patience_ms: u64) {
        self.question.set(self.question.get() + 1);
        let question = self.question.get();
        let end = rt::now_ms() + patience_ms;
        loop {
            self.ask();
            let silent = |known: &Successor| !known.gone && known.answered < question;
            if !self.successors.borrow().iter().any(silent) || rt::now_ms() >= end {
                return;
            }
            rt::sleep(RETRY_MS).await;
            self.refresh();
        }
    }

    /// Asks those who haven't been asked the last question. Full channels have to be tried again.
    fn ask(&self) {
        let question = self.question.get();
        for known in self.successors.borrow_mut().iter_mut().filter(|known| !known.gone && known.asked < question) {
            let message = frame(kind::ASK, 0, &question.to_le_bytes());
            match known.peer.channel.send(&message, &[]) {
                Ok(()) => known.asked = question,
                Err(error) if is_full(&error) => {}
                Err(_) => known.gone = true,
            }
        }
    }

    fn answer(self: &Rc<Self>, asked: &Frame) {
        let mut words = asked.payload.clone();
        words.push(u8::from(self.takes.get()));
        self.reply(asked.pid, Letter { message: frame(kind::ANSWER, 0, &words), fds: Vec::new() });
    }

    fn note_answer(&self, frame: &Frame) {
        let Some((question, willing)) = frame.payload.split_first_chunk() else { return };
        let mut successors = self.successors.borrow_mut();
        if let Some(known) = successors.iter_mut().find(|known| known.peer.pid == frame.pid) {
            known.answered = known.answered.max(u32::from_le_bytes(*question));
            known.willing = willing == [1];
        }
    }

    fn send_back(self: &Rc<Self>, pid: i32, parcel: Parcel) {
        match Letter::of(parcel, RETURNED) {
            Ok(letter) => self.reply(pid, letter),
            Err((error, _)) => {
                crate::log!(log::current(), Error, "a connection can't be given back, closed{}", Errno(&error));
            }
        }
    }

    /// Sends something to another worker, behind all earlier replies: that they have come, an answer implies.
    fn reply(self: &Rc<Self>, pid: i32, letter: Letter) {
        self.replies.borrow_mut().push_back((pid, letter));
        if !self.replying.replace(true) {
            rt::spawn(self.clone().send_replies());
        }
    }

    async fn send_replies(self: Rc<Self>) {
        loop {
            let Some((pid, letter)) = self.replies.borrow_mut().pop_front() else { break };
            let mut left = PATIENCE_MS;
            loop {
                let peer = self.peers.borrow().iter().find(|peer| peer.pid == pid).cloned();
                // Who is gone needs no answer, and can be given nothing back.
                let Some(peer) = peer else { break };
                match letter.post(&peer.channel) {
                    Err(error) if is_full(&error) && left > 0 => rt::sleep(RETRY_MS).await,
                    _ => break,
                }
                left -= RETRY_MS;
            }
        }
        self.replying.set(false);
    }

    /// Sends what waits, until no channel has room. What nobody is left for goes back to the applications.
    fn deliver(&self) {
        loop {
            let Some(letter) = self.waiting.borrow_mut().pop_front() else { return };
            match self.post(&letter) {
                Posted::Sent => self.given.set(self.given.get() + 1),
                Posted::Full => {
                    self.waiting.borrow_mut().push_front(letter);
                    return;
                }
                Posted::Nobody => self.take_back(letter.unpack()),
            }
        }
    }

    fn post(&self, letter: &Letter) -> Posted {
        let mut successors = self.successors.borrow_mut();
        let (count, first) = (successors.len(), self.turn.get());
        let mut posted = Posted::Nobody;
        for step in 0..count {
            let Some(known) = successors.get_mut((first + step) % count).filter(|known| known.is_willing()) else {
                continue;
            };
            match letter.post(&known.peer.channel) {
                Ok(()) => {
                    self.turn.set((first + step + 1) % count);
                    return Posted::Sent;
                }
                Err(error) if is_full(&error) => posted = Posted::Full,
                Err(_) => known.gone = true,
            }
        }
        posted
    }
}

/// What came of a letter.
enum Posted {
    Sent,
    Full,
    Nobody,
}

impl Successor {
    fn is_willing(&self) -> bool {
        self.willing && !self.gone
    }
}

impl Letter {
    fn of(mut parcel: Parcel, flags: u8) -> Result<Letter, (io::Error, Parcel)> {
        if parcel.fds.len() > MAX_FDS {
            return Err((io::ErrorKind::InvalidInput.into(), parcel));
        }
        if parcel.payload.len() <= MAX_PAYLOAD - HEADER {
            return Ok(Letter { message: frame(parcel.kind, flags, &parcel.payload), fds: parcel.fds });
        }
        match os::file::anonymous(&parcel.payload) {
            Ok(file) => parcel.fds.push(file),
            Err(error) => return Err((error, parcel)),
        }
        Ok(Letter { message: frame(parcel.kind, flags | APART, b""), fds: parcel.fds })
    }

    fn post(&self, channel: &Channel) -> io::Result<()> {
        let fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(AsFd::as_fd).collect();
        channel.send(&self.message, &fds)
    }

    fn unpack(self) -> Parcel {
        let Message::HandOver { kind, payload } = self.message else { unreachable!("letters hold nothing else") };
        match Frame::open(&payload, self.fds) {
            Ok(frame) => Parcel { kind, payload: frame.payload, fds: frame.fds },
            Err(_) => Parcel { kind, payload: Vec::new(), fds: Vec::new() },
        }
    }
}

/// A message between workers, opened.
struct Frame {
    flags: u8,
    /// Its sender.
    pid: i32,
    payload: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Frame {
    fn open(bytes: &[u8], mut fds: Vec<OwnedFd>) -> io::Result<Frame> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let (header, payload) = bytes.split_first_chunk::<HEADER>().ok_or_else(invalid)?;
        let [VERSION, flags, pid @ ..] = header else { return Err(invalid()) };
        let payload = match flags & APART {
            0 => payload.to_vec(),
            _ => os::file::read_all(fds.pop().ok_or_else(invalid)?, MAX_APART)?,
        };
        Ok(Frame { flags: *flags, pid: i32::from_le_bytes(*pid), payload, fds })
    }
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Message {
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&[VERSION, flags]);
    bytes.extend_from_slice(&os::process::pid().to_le_bytes());
    bytes.extend_from_slice(payload);
    Message::HandOver { kind, payload: bytes }
}

/// Whether sending is to be tried again later: no room in the channel, or too many descriptors under way.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || matches!(error.raw_os_error(), Some(TOO_MANY_REFS | NO_BUFFERS))
}

const VERSION: u8 = 1;
/// Version, flags and sender.
const HEADER: usize = 6;
/// The parcel comes back.
const RETURNED: u8 = 1;
/// The payload is in the last descriptor.
const APART: u8 = 2;
/// The longest payload in a file of its own.
const MAX_APART: usize = 16 << 20;
/// How long successors may take to say that they are willing.
const BEGIN_MS: u64 = 1000;
/// How long they may take to say that they have nothing to give back.
const PATIENCE_MS: u64 = 5000;
const RETRY_MS: u64 = 1;
const TOO_MANY_REFS: i32 = 109;
const NO_BUFFERS: i32 = 105;
