//! The link to another master: during an upgrade the old and the new one tell each other which workers they have.
//!
//! The old master makes it, a channel like any other, and keeps one end for the program that it starts. That asks for it,
//! over an abstract unix socket named after the old master's process id, and gets it as a descriptor (`Offer`); so a
//! program that knows nothing of links inherits none, and can leak none. With it come the zones (`super::zones`). Each
//! master says what it says to its own workers,
//! [`Message::OpenChannel`] with the descriptor and [`Message::CloseChannel`], and passes on what it hears. So the workers
//! of both can hand connections to one another. To its own workers a master gives the other one's under slots of their
//! own, from [`FOREIGN`] on. Nothing else is said over it, and no master takes orders.
//!
//! The other program may be one that knows nothing of all this: then nothing is ever heard, and what is said is not read.
//! Only the process that was started gets the link, and only the process that started it is asked for one.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use os::SockAddr;
use os::poll::PollFd;
use os::socket::{self, ListenOptions};

use crate::channel::{Channel, Message, SMALL};
use crate::cycle::zones::Zones;
use crate::handover::zones::{self, Passed};
use crate::log::{self, Errno};
use crate::master::process_table::{MAX_PROCESSES, News};

/// The new program's end of a link, until that program asks for it.
pub(crate) struct Offer {
    socket: OwnedFd,
    end: Channel,
}

impl Offer {
    /// Offers the end of a link to the process that is about to be started.
    pub(crate) fn new(end: Channel) -> io::Result<Offer> {
        let options = ListenOptions { backlog: MAX_CALLERS as i32, ..ListenOptions::default() };
        let socket = socket::listen(&address(os::process::pid())?, &options).map_err(|error| error.error)?;
        Ok(Offer { socket, end })
    }

    /// Readable when somebody asks for the link: then call [`Offer::serve`].
    pub(crate) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Gives the link, and these zones, to the process `pid`, if it has asked for it; whether it has. Others are sent away.
    pub(crate) fn serve(&self, pid: i32, zones: &Zones) -> bool {
        for _ in 0..MAX_CALLERS {
            let Ok((caller, _)) = socket::accept(self.socket.as_raw_fd()) else { return false };
            let caller = caller.as_raw_fd();
            if socket::peer_credentials(caller).is_ok_and(|(_, peer)| peer == pid) {
                let sent = zones::send(zones)
                    .and_then(|zones| os::channel::send(caller, VERSION, &[self.end.as_fd(), zones.as_fd()]));
                if let Err(error) = sent {
                    crate::log!(log::current(), Alert, "sendmsg() to the new binary process failed{}", Errno(&error));
                }
                return true;
            }
        }
        false
    }
}

/// Asks the master that started this one for its end of a link, and for its zones. `None`: it offers none, or is another
/// program. `say` is told if it offers them and they don't come, or not all: what was in them begins anew.
pub(crate) fn ask(parent: i32, say: &dyn Fn(&str)) -> Option<(Channel, Vec<Passed>)> {
    let socket = call(parent)?;
    let failed = match answer(&socket) {
        Ok((end, zones)) => {
            let (zones, failed) = zones::receive(&zones);
            if let Some(error) = failed {
                let message = "some zones of the old binary process can't be received, they begin anew";
                say(&format!("{message}{}", Errno(&error)));
            }
            return Some((Channel::from_fd(end), zones));
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => "it is of another version".to_owned(),
        Err(error) => format!("it doesn't answer{}", Errno(&error)),
    };
    say(&format!("the old binary process passes neither zones nor connections on, {failed}"));
    None
}

/// A connection to the master with this process id, if it offers a link.
fn call(parent: i32) -> Option<OwnedFd> {
    let address = address(parent).ok()?;
    let socket = socket::socket(&address, socket::Kind::Stream).ok()?;
    let connected = socket::connect(socket.as_raw_fd(), &address).ok()?;
    let (_, peer) = socket::peer_credentials(socket.as_raw_fd()).ok()?;
    (connected && peer == parent).then_some(socket)
}

/// What [`Offer::serve`] gives: the end of the link, and the channel with the zones. `InvalidData`: it speaks another version.
fn answer(socket: &OwnedFd) -> io::Result<(OwnedFd, OwnedFd)> {
    let fd = socket.as_raw_fd();
    if os::poll::poll(&mut [PollFd::new(fd, os::poll::IN)], PATIENCE_MS)? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut version = [0; 8];
    let received = os::channel::recv(fd, &mut version)?;
    if received.len == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match <[OwnedFd; 2]>::try_from(received.fds) {
        Ok([end, zones]) if version.get(..received.len) == Some(VERSION) => Ok((end, zones)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn address(pid: i32) -> io::Result<SockAddr> {
    SockAddr::unix(format!("\0tidegate/link/{pid}").as_bytes())
}

/// Another one whenever masters or workers of two programs could misunderstand each other.
const VERSION: &[u8] = b"3";
/// How many callers are looked at in one go.
const MAX_CALLERS: usize = 16;
/// How long the old master may take to answer.
const PATIENCE_MS: i32 = 2000;

/// The link, and what has been heard over it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) channel: Channel,
    /// What the other master has yet to be told.
    pub(crate) outbox: VecDeque<News>,
    workers: Vec<Foreign>,
}

/// A worker of the other master.
#[derive(Debug)]
pub(crate) struct Foreign {
    /// At least [`FOREIGN`].
    pub(crate) slot: usize,
    pub(crate) pid: i32,
    /// Counted by its own master, so not to be compared with this one's.
    pub(crate) generation: u64,
    pub(crate) channel: Channel,
}

impl Link {
    pub(crate) fn new(channel: Channel, outbox: VecDeque<News>) -> Link {
        Link { channel, outbox, workers: Vec::new() }
    }

    /// Reads what the other master has said: what that means for this one's workers, and whether the link still stands.
    pub(crate) fn hear(&mut self) -> (Vec<News>, bool) {
        let mut news = Vec::new();
        loop {
            match self.channel.recv(&mut [0; SMALL]) {
                Ok(received) => match (received.message, received.fds.into_iter().next()) {
                    (Message::OpenChannel { slot, pid, generation }, Some(fd)) if usize::from(slot) < MAX_PROCESSES => {
                        let (slot, channel) = (FOREIGN + usize::from(slot), Channel::from_fd(fd));
                        self.workers.retain(|worker| worker.slot != slot);
                        self.workers.push(Foreign { slot, pid, generation, channel });
                        news.push(News::Came(slot, pid));
                    }
                    (Message::CloseChannel { slot, pid }, _) => {
                        let slot = FOREIGN + usize::from(slot);
                        self.workers.retain(|worker| (worker.slot, worker.pid) != (slot, pid));
                        news.push(News::Went(slot, pid));
                    }
                    _ => not_understood(&io::ErrorKind::InvalidData.into()),
                },
                // Who hasn't read for so long doesn't know of the link.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return (news, self.outbox.len() <= MAX_UNREAD);
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => not_understood(&error),
                Err(error) => {
                    if error.kind() != io::ErrorKind::UnexpectedEof {
                        crate::log!(log::current(), Alert, "recvmsg() from the other master failed{}", Errno(&error));
                    }
                    return (news, false);
                }
            }
        }
    }

    /// The worker in this slot with this process id, if it is still there.
    pub(crate) fn worker(&self, slot: usize, pid: i32) -> Option<&Foreign> {
        self.workers.iter().find(|worker| (worker.slot, worker.pid) == (slot, pid))
    }

    /// All workers of the other master.
    pub(crate) fn into_workers(self) -> Vec<Foreign> {
        self.workers
    }

    /// The descriptor to wait for, and whether for room too.
    pub(crate) fn interest(&self) -> (RawFd, bool) {
        (self.channel.as_fd().as_raw_fd(), !self.outbox.is_empty())
    }
}

fn not_understood(error: &io::Error) {
    crate::log!(log::current(), Alert, "the other master process said what isn't understood{}", Errno(error));
}

/// The first slot of workers that aren't the own master's.
pub const FOREIGN: usize = MAX_PROCESSES;
/// How much may wait to be read by the other master.
const MAX_UNREAD: usize = 4 * MAX_PROCESSES;

#[cfg(test)]
mod tests {
    use super::*;

    fn came(slot: u16, pid: i32) -> Message {
        Message::OpenChannel { slot, pid, generation: 3 }
    }

    #[test]
    fn hears() {
        let (ours, theirs) = Channel::pair().expect("a pair");
        let mut link = Link::new(ours, VecDeque::new());
        let (workers, _end) = Channel::pair().expect("a pair");
        assert_eq!(link.hear(), (Vec::new(), true));
        for (slot, pid) in [(0, 10), (1023, 11), (1024, 12), (0, 13)] {
            theirs.send(&came(slot, pid), &[workers.as_fd()]).expect("room");
        }
        theirs.send(&Message::CloseChannel { slot: 1023, pid: 11 }, &[]).expect("room");
        // None of these is for a master to say to another one.
        for message in [Message::Quit, Message::Ready, Message::HandOver { kind: 1, payload: vec![0; 9].into() }] {
            theirs.send(&message, &[]).expect("room");
        }
        let last = FOREIGN + 1023;
        let news =
            [News::Came(FOREIGN, 10), News::Came(last, 11), News::Came(FOREIGN, 13), News::Went(last, 11)].to_vec();
        assert_eq!(link.hear(), (news, true));
        assert!(link.worker(FOREIGN, 13).is_some_and(|worker| worker.generation == 3));
        assert!(link.worker(FOREIGN, 10).is_none() && link.worker(last, 11).is_none());
        drop(theirs);
        assert_eq!(link.hear(), (Vec::new(), false));
        assert_eq!(link.into_workers().len(), 1);
    }

    #[test]
    fn only_the_new_program_gets_it() {
        let pid = os::process::pid();
        let ask = move || {
            let said = std::cell::RefCell::new(Vec::new());
            let got = ask(pid, &|message| said.borrow_mut().push(message.to_owned()));
            (got, said.into_inner())
        };
        assert!(matches!(ask(), (None, said) if said.is_empty()), "nobody offers one");
        let (ours, theirs) = Channel::pair().expect("a pair");
        let offer = Offer::new(theirs).expect("listens");
        let zones = Zones::default();
        assert!(!offer.serve(pid, &zones), "nobody has asked");
        let asking = std::thread::spawn(ask);
        let asked = || os::poll::poll(&mut [PollFd::new(offer.descriptor(), os::poll::IN)], 10_000);
        asked().expect("it asks");
        assert!(!offer.serve(pid + 1, &zones), "another process");
        let (got, said) = asking.join().expect("no panic");
        let message = "the old binary process passes neither zones nor connections on, it doesn't answer";
        assert!(got.is_none() && matches!(&said[..], [said] if said.starts_with(message)), "{said:?}");
        let asking = std::thread::spawn(ask);
        asked().expect("it asks");
        assert!(offer.serve(pid, &zones));
        let (got, said) = asking.join().expect("no panic");
        let (got, zones) = got.expect("the link");
        assert!(zones.is_empty() && said.is_empty());
        ours.send(&came(1, 9), &[got.as_fd()]).expect("room");
        assert!(got.recv(&mut [0; SMALL]).is_ok());
    }

    #[test]
    fn who_never_reads_is_no_partner() {
        let (ours, _theirs) = Channel::pair().expect("a pair");
        let mut link = Link::new(ours, std::iter::repeat_n(News::Went(0, 1), MAX_UNREAD).collect());
        assert!(link.hear().1 && link.interest().1);
        link.outbox.push_back(News::Went(0, 1));
        assert!(!link.hear().1);
    }
}
