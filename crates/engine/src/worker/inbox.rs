//! What a worker is told: by signals, by the master over the channel, and by other workers.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use os::signal::Signal;

use crate::channel::{Channel, LARGE, Message, Received, lacks_descriptors};
use crate::handover::peers::Peers;
use crate::log::{self, Errno};
use crate::signals::{self, Action};

/// A worker's ear.
pub struct Inbox {
    signals: rt::Signals,
    /// None in a process without a master, and when nobody is left who could say something.
    channel: RefCell<Option<Rc<rt::AsyncFd<Channel>>>>,
    scratch: RefCell<Vec<u8>>,
    /// Since when a message is waiting that there are no descriptors for.
    short_since_ms: Cell<Option<u64>>,
    peers: Rc<RefCell<Peers>>,
}

/// What a worker was told.
#[derive(Debug)]
pub enum Told {
    /// A signal came.
    Signal(Signal),
    /// The master wants something.
    Command(Action),
    /// Another worker gives something away.
    HandOver {
        /// What it is.
        kind: u8,
        /// Its state, in the kind's format.
        payload: buf::Secret,
        /// Its descriptors.
        fds: Vec<OwnedFd>,
    },
    /// Another worker tells of something.
    Notice {
        /// What it is about.
        kind: u8,
        /// What it says.
        payload: Vec<u8>,
    },
}

impl Inbox {
    /// Listens to signals, and to the channel if there is one. To be called in the loop's own process.
    pub fn new(channel: Option<Channel>, peers: Peers) -> io::Result<Inbox> {
        let signals = rt::Signals::new(&signals::HANDLED)?;
        let scratch = if channel.is_some() { vec![0; LARGE] } else { Vec::new() };
        let channel = channel.map(rt::AsyncFd::new).transpose()?.map(Rc::new);
        let (channel, scratch, peers) = (RefCell::new(channel), RefCell::new(scratch), Rc::new(RefCell::new(peers)));
        Ok(Inbox { signals, channel, scratch, short_since_ms: Cell::new(None), peers })
    }

    /// The other workers, as far as this one has heard.
    pub fn peers(&self) -> &Rc<RefCell<Peers>> {
        &self.peers
    }

    /// Tells the master that this process works.
    pub(crate) fn say_ready(&self) {
        let channel = self.channel.borrow().clone();
        let sent = channel.map_or(Ok(()), |channel| channel.get_ref().send(&Message::Ready, &[]));
        if let Err(error) = sent {
            crate::log!(log::current(), Alert, "sendmsg() to the master failed{}", Errno(&error));
        }
    }

    /// The next thing that this worker is told. An error: signals can't be read.
    pub async fn next(&self) -> io::Result<Told> {
        loop {
            match first_of(self.signals.recv(), self.message()).await {
                Either::One(signal) => return signal.map(Told::Signal),
                Either::Other(received) => {
                    if let Some(told) = self.heed(received) {
                        return Ok(told);
                    }
                }
            }
        }
    }

    /// The channel's next message.
    async fn message(&self) -> io::Result<Received> {
        let channel = self.channel.borrow().clone();
        let Some(channel) = channel else { return std::future::pending().await };
        loop {
            let received = channel.read(|channel| channel.recv(&mut self.scratch.borrow_mut())).await;
            match received {
                Err(error) if lacks_descriptors(&error) => self.make_room(channel.get_ref(), &error).await?,
                received => {
                    self.short_since_ms.set(None);
                    return received;
                }
            }
        }
    }

    /// The process is at its limit of open files. What another worker gives away stays in the channel while idle
    /// connections are closed for it; after it stand the master's commands, so it isn't kept for ever.
    async fn make_room(&self, channel: &Channel, error: &io::Error) -> io::Result<()> {
        let now = rt::now_ms();
        match self.short_since_ms.get() {
            None => {
                crate::log!(log::current(), Crit, "recvmsg() failed{}, closing idle connections", Errno(error));
                self.short_since_ms.set(Some(now));
            }
            Some(since) if now >= since + PATIENCE_MS => {
                crate::log!(
                    log::current(),
                    Alert,
                    "what was handed over is lost, no files can be opened{}",
                    Errno(error)
                );
                self.short_since_ms.set(None);
                return channel.discard();
            }
            Some(_) => {}
        }
        rt::close_oldest();
        rt::sleep(RETRY_MS).await;
        Ok(())
    }

    /// What a message asks for; what is about peers is noted here.
    fn heed(&self, received: io::Result<Received>) -> Option<Told> {
        let Received { message, mut fds } = match received {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                crate::log!(log::current(), Alert, "a message over the channel isn't understood, ignored");
                return None;
            }
            Err(error) => {
                // The master is gone, and so are the others: the connections needn't suffer.
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    crate::log!(log::current(), Alert, "recvmsg() failed{}", Errno(&error));
                }
                self.channel.replace(None);
                return None;
            }
        };
        match message {
            Message::OpenChannel { slot, pid, generation } => {
                let channel = Channel::from_fd(fds.pop()?);
                self.peers.borrow_mut().open(slot, pid, generation, channel);
                None
            }
            Message::CloseChannel { slot, pid } => {
                self.peers.borrow_mut().close(slot, pid);
                None
            }
            Message::Quit => Some(Told::Command(Action::Quit)),
            Message::Terminate => Some(Told::Command(Action::Terminate)),
            Message::Reopen => Some(Told::Command(Action::Reopen)),
            Message::Ready => None,
            Message::HandOver { kind, payload } => Some(Told::HandOver { kind, payload, fds }),
            Message::Notice { kind, payload } => Some(Told::Notice { kind, payload }),
        }
    }
}

/// How long a message waits for descriptors.
const PATIENCE_MS: u64 = 5000;
const RETRY_MS: u64 = 20;

/// Which of two futures ended first.
pub enum Either<A, B> {
    /// The first one.
    One(A),
    /// The second one.
    Other(B),
}

/// Waits for whichever ends first; the other is dropped.
pub(crate) async fn first_of<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> Either<A, B> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    std::future::poll_fn(|cx| match one.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Either::One(done)),
        Poll::Pending => other.as_mut().poll(cx).map(Either::Other),
    })
    .await
}
