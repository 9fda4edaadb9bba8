//! Hand-over: a worker that leaves on a reload, or in an upgrade, passes what would tie it up to its successors.
//!
//! nginx's old workers close idle connections, and live on as long as a WebSocket does. Here both move: the descriptor
//! goes over the channel, with a small state beside it, and the successor serves on. The client notices nothing. In an upgrade
//! the successors are the other master's workers, if that is this program too (see [`crate::handover::link`]): those of the new one,
//! or, when it is taken back, of the old one.
//!
//! The way of a parcel: an application gives it to [`Handover::give`]; it goes to one of the workers of the newest
//! generation that said they take parcels, in turn; the worker's applications are asked, one after the other, to adopt
//! it. What none of them adopts comes back, and so does what nobody is left for: the giver then serves it to its end
//! itself, as nginx does. Before a worker leaves, it asks its successors once more: their answers come after all they
//! returned. And since a reload may follow another at once, it also tells its predecessors to stop, and waits until they
//! have confirmed it, after the last parcel. Datagrams have to find their sessions: a worker receives none from sockets that
//! it shares with predecessors before those have told it that they have left them and given away what belongs to them. An idle connection whose receiver has no place or no use for it is closed, which is what nginx does.
//!
//! The frame around a parcel's payload is a version, flags, the sender's process id, and the payload, which lies in a
//! file without a name beside the parcel's own descriptors if it is long.

pub mod link;
pub mod peers;
pub(crate) mod zones;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use buf::Secret;

use self::peers::{Peer, Peers};
use crate::channel::{Channel, MAX_PAYLOAD, Message};
use crate::log::{self, Errno};
use crate::module::App;

/// What a parcel may hold.
pub mod kind {
    /// A client's HTTP connection between two requests.
    pub const HTTP_IDLE: u8 = 1;
    /// An upgraded HTTP connection, with the one to its backend.
    pub const HTTP_TUNNEL: u8 = 2;
    /// A session of a stream: the client's connection, and the one to its backend.
    pub const STREAM: u8 = 3;
    /// As [`HTTP_IDLE`], with TLS: a kind of its own, since who doesn't know of the keys must not take it.
    pub const HTTPS_IDLE: u8 = 4;
    /// As [`HTTP_TUNNEL`], with TLS to the client.
    pub const HTTPS_TUNNEL: u8 = 5;
    /// Sessions of streams over UDP, several in one parcel.
    pub const STREAM_DATAGRAMS: u8 = 6;
    /// As [`STREAM`], with TLS to the client.
    pub const STREAM_TLS: u8 = 7;
    /// A client of mail that has logged in, with the connection to its server.
    pub const MAIL_TUNNEL: u8 = 8;
    /// As [`MAIL_TUNNEL`], with TLS to the client.
    pub const MAIL_TUNNEL_TLS: u8 = 9;
    /// No parcel: asks whether its receiver takes parcels.
    pub(super) const ASK: u8 = 64;
    /// No parcel: the answer.
    pub(super) const ANSWER: u8 = 65;
    /// No parcel: its sender takes no more.
    pub(super) const STOP: u8 = 66;
    /// No parcel: nothing more will come.
    pub(super) const STOPPED: u8 = 67;
    /// No parcel: its sender wants to be told when the receiver has left its datagram sockets.
    pub(super) const WAIT: u8 = 68;
    /// No parcel: its sender has left them, and given away the sessions that belong to them.
    pub(super) const LEFT: u8 = 69;
}

/// Something to serve on: descriptors, and what has to be known of them.
#[derive(Debug)]
pub struct Parcel {
    /// One of [`kind`].
    pub kind: u8,
    /// The state, in the kind's own format; among it may be keys.
    pub payload: Secret,
    /// The descriptors, at most [`MAX_FDS`].
    pub fds: Vec<OwnedFd>,
}

/// The most descriptors of a parcel; one place of a message is for a long payload.
pub const MAX_FDS: usize = os::channel::MAX_FDS - 1;

/// A worker's part in hand-overs: as the one that gives and as the one that takes.
pub struct Handover {
    peers: Rc<RefCell<Peers>>,
    generation: u64,
    /// The number of the worker among those of its generation.
    number: usize,
    apps: Vec<Rc<dyn App>>,
    /// Whether it takes parcels: the configuration says so, and it isn't leaving.
    takes: Cell<bool>,
    /// Whether it leaves.
    leaves: Cell<bool>,
    /// The process id of its master.
    master: i32,
    /// The workers that parcels go to.
    successors: RefCell<Vec<Successor>>,
    /// The workers that may still have parcels under way to this one.
    predecessors: RefCell<Vec<i32>>,
    /// Parcels that no channel had room for.
    waiting: RefCell<VecDeque<Letter>>,
    /// Since when there has been room in none.
    stuck_since_ms: Cell<Option<u64>>,
    /// Who has the next turn.
    turn: Cell<usize>,
    /// The number of the last question.
    question: Cell<u32>,
    given: Cell<usize>,
    /// What others are to be told or given back, in its order.
    replies: RefCell<VecDeque<(i32, Letter)>>,
    replying: Cell<bool>,
    /// What it does with its datagram sockets.
    datagrams: Cell<Datagrams>,
    /// The workers that want to be told when it has left them.
    waiters: RefCell<Vec<i32>>,
    /// The predecessors that have left theirs.
    left: RefCell<Vec<i32>>,
    /// One of them has said so.
    told: rt::Event,
}

/// What a worker does with its datagram sockets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Datagrams {
    /// It waits for predecessors to leave them.
    Waits,
    /// It receives.
    Receives,
    /// It has none, or has left them.
    Left,
}

/// A worker that may take over.
struct Successor {
    peer: Peer,
    asked: u32,
    answered: u32,
    willing: bool,
    /// Its number among those of its generation, once it has answered.
    number: usize,
    gone: bool,
    /// When it was first heard of.
    since_ms: u64,
}

/// A parcel on its way.
struct Letter {
    message: Message,
    fds: Vec<OwnedFd>,
    /// The number of the worker that should get it.
    number: Option<usize>,
}

impl Handover {
    /// For the worker of this number in a generation, with these applications.
    pub fn new(
        peers: Rc<RefCell<Peers>>,
        (generation, number): (u64, usize),
        apps: Vec<Rc<dyn App>>,
        takes: bool,
    ) -> Rc<Handover> {
        Rc::new(Handover {
            peers,
            generation,
            number,
            apps,
            takes: Cell::new(takes),
            leaves: Cell::new(false),
            master: os::process::parent_pid(),
            successors: RefCell::default(),
            predecessors: RefCell::default(),
            waiting: RefCell::default(),
            stuck_since_ms: Cell::new(None),
            turn: Cell::new(0),
            question: Cell::new(0),
            given: Cell::new(0),
            replies: RefCell::default(),
            replying: Cell::new(false),
            datagrams: Cell::new(Datagrams::Left),
            waiters: RefCell::default(),
            left: RefCell::default(),
            told: rt::Event::new(),
        })
    }

    /// Whether there is somebody to give to, or may be in a moment.
    pub fn is_open(&self) -> bool {
        self.successors.borrow().iter().any(|known| known.is_willing() || known.may_answer())
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
    pub async fn begin(self: &Rc<Self>) -> bool {
        self.takes.set(false);
        self.leaves.set(true);
        self.stop_predecessors();
        self.refresh();
        self.ask_all(&|| true).await;
        self.is_open()
    }

    fn stop_predecessors(self: &Rc<Self>) {
        let pids: Vec<i32> = self.peers.borrow().predecessors(self.generation).map(|peer| peer.pid).collect();
        for pid in &pids {
            self.reply(*pid, Letter::word(kind::STOP, b""));
        }
        self.predecessors.replace(pids);
    }

    /// Gives a parcel to a successor. If none is left, an application of this worker gets it back.
    pub fn give(&self, parcel: Parcel) {
        self.give_to(None, parcel);
    }

    /// Gives a parcel to the successor that has this worker's number, or whichever has that one's share if they are fewer:
    /// the one that reads from the same socket of those with `reuseport`.
    pub fn give_to_heir(&self, parcel: Parcel) {
        self.give_to(Some(self.number), parcel);
    }

    /// Gives a parcel to the successor of this number, or whichever has its share if they are fewer.
    pub fn give_to_number(&self, number: usize, parcel: Parcel) {
        self.give_to(Some(number), parcel);
    }

    /// How many successors there are that have the same master.
    pub fn own_successors(&self) -> usize {
        self.successors.borrow().iter().filter(|known| !known.peer.is_foreign()).count()
    }

    fn give_to(&self, number: Option<usize>, parcel: Parcel) {
        match Letter::of(parcel, 0) {
            Ok(letter) => self.waiting.borrow_mut().push_back(Letter { number, ..letter }),
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
        self.ask_all(&|| self.predecessors.borrow().is_empty()).await;
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
            kind::STOP => {
                // Its own successors are there already.
                self.refresh();
                let mut successors = self.successors.borrow_mut();
                successors
                    .iter_mut()
                    .filter(|known| known.peer.pid == frame.pid)
                    .for_each(|known| known.willing = false);
                self.reply(frame.pid, Letter::word(kind::STOPPED, b""));
            }
            kind::STOPPED => self.predecessors.borrow_mut().retain(|pid| *pid != frame.pid),
            kind::WAIT => self.note_waiter(frame.pid),
            kind::LEFT => {
                self.left.borrow_mut().push(frame.pid);
                self.told.notify();
            }
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

    /// Waits until the predecessors have left the datagram sockets that this worker shares with them. Those of the own master
    /// are told to leave soon; one that doesn't isn't waited for without end. Another master's may stay as long as they like:
    /// they serve. False: before that this worker has been told to leave itself, and what comes is for its successors.
    pub async fn cleared(self: &Rc<Self>) -> bool {
        self.datagrams.set(Datagrams::Waits);
        let mut before: Vec<(i32, bool)> = Vec::new();
        for peer in self.peers.borrow().predecessors(self.generation) {
            before.push((peer.pid, peer.is_foreign()));
            self.reply(peer.pid, Letter::word(kind::WAIT, b""));
        }
        let end = rt::now_ms() + DATAGRAMS_MS;
        loop {
            let seen = self.told.count();
            let late = rt::now_ms() >= end;
            before.retain(|(pid, foreign)| {
                let there = self.peers.borrow().iter().any(|peer| peer.pid == *pid);
                there && !self.left.borrow().contains(pid) && (*foreign || !late)
            });
            if before.is_empty() || self.leaves.get() {
                break;
            }
            rt::timeout(PEERS_MS, std::future::poll_fn(|cx| self.told.poll_since(cx, seen))).await;
        }
        let receives = !self.leaves.get();
        if receives {
            self.datagrams.set(Datagrams::Receives);
        }
        receives
    }

    /// Another worker wants to know when this one has left its datagram sockets. Where each waits for the other, as may be
    /// in an upgrade after a worker has died, the own ones go first.
    fn note_waiter(self: &Rc<Self>, pid: i32) {
        let is_foreign = || self.peers.borrow().iter().any(|peer| peer.pid == pid && peer.is_foreign());
        match self.datagrams.get() {
            Datagrams::Left => self.reply(pid, Letter::word(kind::LEFT, b"")),
            Datagrams::Waits if is_foreign() => self.reply(pid, Letter::word(kind::LEFT, b"")),
            Datagrams::Waits | Datagrams::Receives => self.waiters.borrow_mut().push(pid),
        }
    }

    /// The worker has left its datagram sockets, and what belongs to them is on its way: who waits for that is told.
    pub fn leave_datagrams(self: &Rc<Self>) {
        self.datagrams.set(Datagrams::Left);
        for pid in self.waiters.take() {
            self.reply(pid, Letter::word(kind::LEFT, b""));
        }
    }

    /// Whether it still is to be told that the datagram sockets have been left.
    pub fn holds_datagrams(&self) -> bool {
        self.datagrams.get() != Datagrams::Left
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
        let all = self.peers.borrow();
        self.predecessors.borrow_mut().retain(|pid| all.iter().any(|peer| peer.pid == *pid));
        // Without its master a worker hears no more of the other one's workers, nor they of it.
        let foreign = self.leaves.get() && os::process::parent_pid() == self.master;
        let peers = all.successors(self.generation, foreign);
        let mut successors = self.successors.borrow_mut();
        successors.retain(|known| peers.iter().any(|peer| peer.pid == known.peer.pid));
        for peer in peers {
            if !successors.iter().any(|known| known.peer.pid == peer.pid) {
                successors.push(Successor {
                    peer,
                    asked: 0,
                    answered: 0,
                    willing: false,
                    number: 0,
                    gone: false,
                    since_ms: rt::now_ms(),
                });
            }
        }
    }

    /// Asks all successors, and waits for their answers and until `also` holds, but not for ever.
    async fn ask_all(&self, also: &dyn Fn() -> bool) {
        self.question.set(self.question.get() + 1);
        let question = self.question.get();
        let end = rt::now_ms() + PATIENCE_MS;
        loop {
            self.ask();
            let silent = |known: &Successor| !known.gone && known.answered < question;
            let heard = !self.successors.borrow().iter().any(silent);
            if (heard && also()) || rt::now_ms() >= end {
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
        let number = u16::try_from(self.number).unwrap_or_default();
        let words = [&asked.payload[..], &[u8::from(self.takes.get())], &number.to_le_bytes()].concat();
        self.reply(asked.pid, Letter::word(kind::ANSWER, &words));
    }

    fn note_answer(&self, frame: &Frame) {
        let Some((question, &[willing, low, high])) = frame.payload.split_first_chunk() else { return };
        let mut successors = self.successors.borrow_mut();
        if let Some(known) = successors.iter_mut().find(|known| known.peer.pid == frame.pid) {
            known.answered = known.answered.max(u32::from_le_bytes(*question));
            known.willing = willing == 1;
            known.number = u16::from_le_bytes([low, high]).into();
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

    /// Sends something to another worker, after all earlier replies: that they have come, an answer implies.
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
                Posted::Sent => {
                    self.stuck_since_ms.set(None);
                    self.given.set(self.given.get() + 1);
                }
                Posted::Full => {
                    self.waiting.borrow_mut().push_front(letter);
                    if !self.give_up_stuck() {
                        return;
                    }
                }
                Posted::Nobody => self.take_back(letter.unpack()),
            }
        }
    }

    /// Who has read nothing for so long, because the process is stopped, takes nothing over; whether that was found.
    fn give_up_stuck(&self) -> bool {
        let now = rt::now_ms();
        match self.stuck_since_ms.get() {
            None => self.stuck_since_ms.set(Some(now)),
            Some(since) if now >= since + PATIENCE_MS => {
                self.stuck_since_ms.set(None);
                self.successors.borrow_mut().iter_mut().for_each(|known| known.gone = true);
                return true;
            }
            Some(_) => {}
        }
        false
    }

    fn post(&self, letter: &Letter) -> Posted {
        let mut successors = self.successors.borrow_mut();
        let count = successors.len();
        let heir = letter.number.and_then(|number| {
            successors.iter().position(|known| known.is_willing() && known.number == number % count)
        });
        let first = heir.unwrap_or(self.turn.get());
        let mut posted = if successors.iter().any(Successor::may_answer) { Posted::Full } else { Posted::Nobody };
        for step in 0..count {
            let Some(known) = successors.get_mut((first + step) % count).filter(|known| known.is_willing()) else {
                continue;
            };
            match letter.post(&known.peer.channel) {
                Ok(()) => {
                    if heir.is_none() {
                        self.turn.set((first + step + 1) % count);
                    }
                    return Posted::Sent;
                }
                Err(error) if is_full(&error) => {
                    posted = Posted::Full;
                    if heir.is_some() {
                        break;
                    }
                }
                Err(_) => known.gone = true,
            }
        }
        posted
    }
}

/// What came of a letter.
enum Posted {
    Sent,
    /// It has to wait.
    Full,
    Nobody,
}

impl Successor {
    fn is_willing(&self) -> bool {
        self.willing && !self.gone
    }

    /// Whether it is yet to say if it is willing. Who takes too long isn't waited for any more.
    fn may_answer(&self) -> bool {
        !self.gone && self.answered == 0 && rt::now_ms() < self.since_ms + PATIENCE_MS
    }
}

impl Letter {
    /// One that is no parcel.
    fn word(kind: u8, words: &[u8]) -> Letter {
        Letter { message: frame(kind, 0, words), fds: Vec::new(), number: None }
    }

    fn of(mut parcel: Parcel, flags: u8) -> Result<Letter, (io::Error, Parcel)> {
        if parcel.fds.len() > MAX_FDS {
            return Err((io::ErrorKind::InvalidInput.into(), parcel));
        }
        if parcel.payload.len() <= MAX_PAYLOAD - HEADER {
            let message = frame(parcel.kind, flags, &parcel.payload);
            return Ok(Letter { message, fds: parcel.fds, number: None });
        }
        // Its receiver wouldn't open it.
        if parcel.payload.len() > MAX_APART {
            return Err((io::ErrorKind::FileTooLarge.into(), parcel));
        }
        match os::file::anonymous(&parcel.payload) {
            Ok(file) => parcel.fds.push(file),
            Err(error) => return Err((error, parcel)),
        }
        Ok(Letter { message: frame(parcel.kind, flags | APART, b""), fds: parcel.fds, number: None })
    }

    fn post(&self, channel: &Channel) -> io::Result<()> {
        let fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(AsFd::as_fd).collect();
        channel.send(&self.message, &fds)
    }

    fn unpack(self) -> Parcel {
        let Message::HandOver { kind, payload } = self.message else { unreachable!("letters hold nothing else") };
        match Frame::open(&payload, self.fds) {
            Ok(frame) => Parcel { kind, payload: frame.payload, fds: frame.fds },
            Err(_) => Parcel { kind, payload: Secret::default(), fds: Vec::new() },
        }
    }
}

/// A message between workers, opened.
struct Frame {
    flags: u8,
    /// Its sender.
    pid: i32,
    payload: Secret,
    fds: Vec<OwnedFd>,
}

impl Frame {
    fn open(bytes: &[u8], mut fds: Vec<OwnedFd>) -> io::Result<Frame> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let (header, payload) = bytes.split_first_chunk::<HEADER>().ok_or_else(invalid)?;
        let [VERSION, flags, pid @ ..] = header else { return Err(invalid()) };
        let payload = match flags & APART {
            0 => payload.into(),
            _ => os::file::read_all(fds.pop().ok_or_else(invalid)?, MAX_APART)?.into(),
        };
        Ok(Frame { flags: *flags, pid: i32::from_le_bytes(*pid), payload, fds })
    }
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Message {
    let [a, b, c, d] = os::process::pid().to_le_bytes();
    let header: [u8; HEADER] = [VERSION, flags, a, b, c, d];
    Message::HandOver { kind, payload: [&header[..], payload].concat().into() }
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
/// How long others may take to answer.
const PATIENCE_MS: u64 = 5000;
const RETRY_MS: u64 = 1;
/// How long predecessors of the own master may keep datagram sockets.
const DATAGRAMS_MS: u64 = 10_000;
/// How soon it is noticed that a worker that is waited for has died.
const PEERS_MS: u64 = 50;
const TOO_MANY_REFS: i32 = 109;
const NO_BUFFERS: i32 = 105;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{LARGE, Received};
    use crate::module::{Listen, WorkerContext};

    /// Notes what it adopts: kind, length of the payload, descriptors, whether it came back.
    #[derive(Default)]
    struct Notes {
        refuses: Cell<bool>,
        adopted: RefCell<Vec<(u8, usize, usize, bool)>>,
    }

    impl App for Notes {
        fn listens(&self) -> Vec<Listen> {
            Vec::new()
        }

        fn start_worker(self: Rc<Self>, _: &WorkerContext) {}

        fn accept(self: Rc<Self>, _: usize, _: rt::Stream, _: os::SockAddr) {}

        fn busy(&self) -> usize {
            0
        }

        fn adopt(self: Rc<Self>, parcel: Parcel, back: bool) -> Result<(), Parcel> {
            if self.refuses.get() && !back {
                return Err(parcel);
            }
            let Parcel { kind, payload, fds } = &parcel;
            self.adopted.borrow_mut().push((*kind, payload.len(), fds.len(), back));
            Ok(())
        }
    }

    struct Worker {
        /// A process that is stopped hears nothing.
        stopped: Cell<bool>,
        handover: Rc<Handover>,
        app: Rc<Notes>,
        channel: Channel,
    }

    impl Worker {
        /// Reads what it was sent.
        fn hear(&self) {
            let mut scratch = vec![0; LARGE];
            while let Ok(Received { message, fds }) = self.channel.recv(&mut scratch) {
                if let Message::HandOver { kind, payload } = message {
                    self.handover.received(kind, &payload, fds);
                }
            }
        }
    }

    /// A worker of generation 0 and one of generation 1; to each the other has this process's id.
    fn workers() -> (Worker, Worker) {
        let worker = |generation, takes, channel: Channel, other: Channel| {
            let (mut peers, app) = (Peers::new(), Rc::new(Notes::default()));
            peers.open(1, os::process::pid(), 1 - generation, other);
            let number = generation as usize;
            let handover = Handover::new(Rc::new(RefCell::new(peers)), (generation, number), vec![app.clone()], takes);
            Worker { stopped: Cell::new(false), handover, app, channel }
        };
        let ((to_old, old), (to_new, new)) = (Channel::pair().expect("a pair"), Channel::pair().expect("a pair"));
        (worker(0, true, old, to_new), worker(1, true, new, to_old))
    }

    fn parcel(kind: u8, length: usize, fds: usize) -> Parcel {
        let fd = || os::file::anonymous(b"x").expect("a file");
        Parcel { kind, payload: vec![7; length].into(), fds: (0..fds).map(|_| fd()).collect() }
    }

    /// Runs `test` while both workers hear what they are told.
    fn run<F: Future<Output = ()>>(test: impl FnOnce(Rc<Worker>, Rc<Worker>) -> F) {
        run_by(rt::Driver::default(), test);
    }

    fn run_by<F: Future<Output = ()>>(driver: rt::Driver, test: impl FnOnce(Rc<Worker>, Rc<Worker>) -> F) {
        let runtime = rt::Runtime::new(rt::Options { driver, ..rt::Options::default() }).expect("a runtime");
        let (old, new) = workers();
        let (old, new) = (Rc::new(old), Rc::new(new));
        runtime.block_on(async {
            for worker in [old.clone(), new.clone()] {
                rt::spawn(async move {
                    loop {
                        if !worker.stopped.get() {
                            worker.hear();
                        }
                        rt::sleep(1).await;
                    }
                });
            }
            test(old, new).await;
        });
    }

    #[test]
    fn parcels_arrive() {
        run(async |old, new| {
            assert!(!old.handover.is_open());
            assert!(old.handover.begin().await && old.handover.is_open());
            let all = [(1, 0, 1), (2, MAX_PAYLOAD - HEADER, 2), (3, MAX_PAYLOAD, MAX_FDS), (4, 1 << 20, 0)];
            all.iter().for_each(|(kind, length, fds)| old.handover.give(parcel(*kind, *length, *fds)));
            old.handover.settle().await;
            assert_eq!(*new.app.adopted.borrow(), all.map(|(kind, length, fds)| (kind, length, fds, false)));
            assert_eq!(old.handover.given(), all.len());
            assert!(!new.handover.begin().await, "it has no successors");
        });
    }

    #[test]
    fn what_is_refused_comes_back() {
        run(async |old, new| {
            new.app.refuses.set(true);
            assert!(old.handover.begin().await);
            for kind in 0..60 {
                old.handover.give(parcel(kind, 100_000, 2));
            }
            old.handover.settle().await;
            let back: Vec<_> = (0..60).map(|kind| (kind, 100_000, 2, true)).collect();
            assert_eq!(*old.app.adopted.borrow(), back, "before the last answer");
            assert_eq!((old.handover.given(), new.app.adopted.borrow().len()), (0, 0));
        });
    }

    /// In virtual time: it is a matter of seconds.
    #[test]
    fn who_reads_nothing_is_not_waited_for_without_end() {
        run_by(rt::Driver::Sim(1), async |old, new| {
            assert!(old.handover.begin().await);
            new.stopped.set(true);
            (0..3000).for_each(|n| old.handover.give(parcel(1, n, 1)));
            let waiting = old.handover.waiting();
            let begin = rt::now_ms();
            old.handover.settle().await;
            assert!(waiting > 0 && old.handover.waiting() == 0);
            assert_eq!(old.app.adopted.borrow().len(), waiting, "what was not sent is served here");
            assert!(rt::now_ms() - begin < 3 * PATIENCE_MS, "{}", rt::now_ms() - begin);
        });
    }

    #[test]
    fn a_full_channel_is_waited_for() {
        run(async |old, new| {
            assert!(old.handover.begin().await);
            (0..3000).for_each(|n| old.handover.give(parcel(1, n, 1)));
            assert!(old.handover.waiting() > 0);
            old.handover.settle().await;
            let lengths: Vec<usize> = new.app.adopted.borrow().iter().map(|adopted| adopted.1).collect();
            assert_eq!(lengths, (0..3000).collect::<Vec<_>>());
        });
    }

    #[test]
    fn nobody_takes_it() {
        run(async |old, new| {
            new.handover.takes.set(false);
            assert!(!old.handover.begin().await, "it isn't willing");
            old.handover.give(parcel(1, 1, 1));
            assert_eq!(*old.app.adopted.borrow(), [(1, 1, 1, true)]);
            // One that was willing is gone.
            new.handover.takes.set(true);
            assert!(old.handover.begin().await);
            old.handover.peers.borrow_mut().close(1, os::process::pid());
            old.handover.go_on();
            assert!(!old.handover.is_open());
            old.handover.give(parcel(2, 1, 1));
            assert_eq!(old.app.adopted.borrow().len(), 2);
            // One more descriptor than a message takes.
            old.handover.give(parcel(3, 1, MAX_FDS + 1));
            assert_eq!(old.app.adopted.borrow().len(), 3);
        });
    }

    #[test]
    fn what_is_too_long_stays() {
        run(async |old, new| {
            assert!(old.handover.begin().await);
            for length in [MAX_APART, MAX_APART + 1] {
                old.handover.give(parcel(1, length, 1));
            }
            old.handover.settle().await;
            assert_eq!(*new.app.adopted.borrow(), [(1, MAX_APART, 1, false)]);
            assert_eq!(*old.app.adopted.borrow(), [(1, MAX_APART + 1, 1, true)]);
        });
    }

    #[test]
    fn a_closed_channel_is_noticed() {
        run(async |old, new| {
            assert!(old.handover.begin().await);
            // Its reader is gone, as that of a worker that was killed.
            for known in old.handover.successors.borrow_mut().iter_mut() {
                known.peer.channel = Rc::new(Channel::pair().expect("a pair").0);
            }
            old.handover.give(parcel(1, 1, 1));
            assert_eq!(*old.app.adopted.borrow(), [(1, 1, 1, true)]);
            assert!(!old.handover.is_open() && new.app.adopted.borrow().is_empty());
        });
    }

    /// Reloads may follow one another faster than parcels travel.
    #[test]
    fn who_leaves_hears_all_that_is_under_way() {
        run(async |old, new| {
            assert!(old.handover.begin().await);
            (0..50).for_each(|_| old.handover.give(parcel(1, 1, 1)));
            assert!(!new.handover.begin().await);
            new.handover.settle().await;
            assert_eq!(new.app.adopted.borrow().len(), 50);
            assert!(!old.handover.is_open(), "it was told to stop");
            old.handover.give(parcel(1, 1, 1));
            assert_eq!((new.app.adopted.borrow().len(), old.app.adopted.borrow().len()), (50, 1));
        });
    }

    #[test]
    fn an_heir_gets_what_is_its() {
        run(async |old, new| {
            // Two more successors, numbers 0 and 2 of three; `new` has number 1.
            let mut others = Vec::new();
            for (slot, number) in [(2, 0), (3, 2)] {
                let (theirs, ours) = Channel::pair().expect("a pair");
                let pid = os::process::pid() + i32::from(slot);
                old.handover.peers.borrow_mut().open(slot, pid, 1, theirs);
                others.push((number, ours));
            }
            old.handover.refresh();
            for known in old.handover.successors.borrow_mut().iter_mut() {
                (known.willing, known.answered) = (true, 1);
                known.number = match known.peer.slot {
                    1 => 1,
                    slot => others[usize::from(slot) - 2].0 as usize,
                };
            }
            let heard = |(_, channel): &(i32, Channel)| {
                let mut scratch = vec![0; LARGE];
                std::iter::from_fn(|| channel.recv(&mut scratch).ok()).count()
            };
            for (number, expect) in [(0, [1, 0]), (2, [0, 1]), (4, [0, 0]), (5, [0, 1])] {
                old.handover.give_to(Some(number), parcel(1, 1, 1));
                let found: Vec<usize> = others.iter().map(heard).collect();
                assert_eq!(found, expect, "worker {number}");
            }
            rt::sleep(5).await;
            assert_eq!(new.app.adopted.borrow().len(), 1, "the share of worker 4 is that of worker 1");
        });
    }

    #[test]
    fn datagrams_wait_for_predecessors() {
        run(async |old, new| {
            assert!(old.handover.cleared().await, "it has none");
            assert!(old.handover.holds_datagrams());
            let done = Rc::new(Cell::new(false));
            rt::spawn({
                let (new, done) = (new.clone(), done.clone());
                async move {
                    assert!(new.handover.cleared().await);
                    assert_eq!(new.app.adopted.borrow().len(), 50, "the sessions come first");
                    done.set(true);
                }
            });
            rt::sleep(20).await;
            assert!(!done.get());
            assert!(old.handover.begin().await);
            (0..50).for_each(|_| old.handover.give_to_heir(parcel(1, 1, 1)));
            old.handover.leave_datagrams();
            rt::sleep(20).await;
            assert!(done.get() && !old.handover.holds_datagrams());
            // Who asks later is told at once.
            new.handover.left.borrow_mut().clear();
            assert!(new.handover.cleared().await);
        });
    }

    /// In virtual time: it is a matter of seconds.
    #[test]
    fn a_predecessor_that_does_not_leave_is_not_waited_for_without_end() {
        run_by(rt::Driver::Sim(1), async |old, new| {
            assert!(old.handover.cleared().await);
            let begin = rt::now_ms();
            assert!(new.handover.cleared().await);
            assert!((DATAGRAMS_MS..2 * DATAGRAMS_MS).contains(&(rt::now_ms() - begin)));
            // One that has died isn't waited for at all.
            new.handover.peers.borrow_mut().close(1, os::process::pid());
            assert!(new.handover.cleared().await);
        });
    }

    /// Two reloads, the second one while a worker of the first still waits.
    #[test]
    fn who_leaves_before_its_turn_receives_nothing() {
        run(async |old, new| {
            assert!(old.handover.cleared().await);
            let cleared = Rc::new(Cell::new(None));
            rt::spawn({
                let (new, cleared) = (new.clone(), cleared.clone());
                async move { cleared.set(Some(new.handover.cleared().await)) }
            });
            rt::sleep(20).await;
            assert_eq!(cleared.get(), None);
            assert!(!new.handover.begin().await, "it has no successors");
            rt::sleep(2 * PEERS_MS).await;
            assert_eq!(cleared.get(), Some(false));
            assert!(new.handover.holds_datagrams(), "those who wait for it are yet to be told");
        });
    }

    #[test]
    fn refuses_other_frames() {
        let frame = |bytes: &[u8]| Frame::open(bytes, Vec::new()).is_ok();
        assert!(frame(&[VERSION, 0, 1, 0, 0, 0]) && frame(&[VERSION, RETURNED, 1, 0, 0, 0, 9]));
        assert!(!frame(&[VERSION, 0, 1, 0, 0]) && !frame(&[VERSION + 1, 0, 1, 0, 0, 0]) && !frame(b""));
        assert!(!frame(&[VERSION, APART, 1, 0, 0, 0]), "the payload's descriptor is missing");
    }
}
