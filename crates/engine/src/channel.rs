//! Channels: what master and workers tell one another, and the descriptors that travel with it.
//!
//! One socket pair stands between the master and each child. The child reads its own end; the other end is the master's
//! and, passed on by [`Message::OpenChannel`], every other worker's, so that each worker can reach each other one. What is
//! written as one message is read as one (SEQPACKET), and writers can't come between one another's bytes.
//!
//! A channel that is full answers `WouldBlock`, and what to do then is for the sender to say: a command goes as a signal
//! instead, a hand-over waits until there is room. nginx has the same five commands; `Ready` and `HandOver` are ours.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use buf::Secret;

/// What is said over a channel. Beside it may go descriptors: one with `OpenChannel`, any number up to
/// [`os::channel::MAX_FDS`] with `HandOver`, none with the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Master to worker: there is another process, reached by the descriptor that comes with this.
    OpenChannel {
        /// Its place in the master's process table.
        slot: u16,
        /// Its process id.
        pid: i32,
        /// The generation of workers it belongs to; each reload begins another.
        generation: u64,
    },
    /// Master to worker: that process is gone.
    CloseChannel {
        /// Its place in the master's process table.
        slot: u16,
        /// Its process id.
        pid: i32,
    },
    /// Master to child: finish what runs, then end.
    Quit,
    /// Master to child: end at once.
    Terminate,
    /// Master to child: open the log files again.
    Reopen,
    /// Child to master: it works, and accepts if it is a worker.
    Ready,
    /// Worker to worker: serve this from now on.
    HandOver {
        /// What it is; a receiver that doesn't know the kind closes the descriptors.
        kind: u8,
        /// At most [`MAX_PAYLOAD`] bytes, in the kind's own format; among them may be keys.
        payload: Secret,
    },
    /// Worker to worker: something has happened ([`crate::notices`]).
    Notice {
        /// What it is about.
        kind: u8,
        /// At most [`crate::notices::MAX_PAYLOAD`] bytes.
        payload: Vec<u8>,
    },
}

/// A message that has come.
#[derive(Debug)]
pub struct Received {
    /// What it says.
    pub message: Message,
    /// What came with it.
    pub fds: Vec<OwnedFd>,
}

/// One end of a channel.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
}

impl Channel {
    /// A new channel: two ends, nonblocking and closed on exec.
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let (one, other) = os::channel::pair()?;
        Ok((Channel { fd: one }, Channel { fd: other }))
    }

    /// The channel behind a descriptor that came with [`Message::OpenChannel`].
    pub fn from_fd(fd: OwnedFd) -> Channel {
        Channel { fd }
    }

    /// Sends a message. An error `WouldBlock`: the channel is full. `InvalidInput`: the payload or the number of
    /// descriptors is over its limit. Others: the process at the other end is gone.
    pub fn send(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = message.encode().ok_or(io::ErrorKind::InvalidInput)?;
        os::channel::send(self.fd.as_raw_fd(), &bytes, fds)
    }

    /// Throws the next message away, with its descriptors.
    pub fn discard(&self) -> io::Result<()> {
        os::channel::discard(self.fd.as_raw_fd())
    }

    /// The next message, by way of `scratch`: [`SMALL`] bytes where no hand-over is expected, else [`LARGE`]. Errors:
    /// `WouldBlock`, there is none; `UnexpectedEof`, nobody is left at the other end; `InvalidData`, it is none of ours
    /// (and has been taken from the channel, so the next can be read); one that [`lacks_descriptors`] knows, the process
    /// is at its limit of open files (and the message is still there, with all that came with it).
    pub fn recv(&self, scratch: &mut [u8]) -> io::Result<Received> {
        let os::channel::Received { len, fds, cut } = os::channel::recv(self.fd.as_raw_fd(), scratch)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let message = scratch.get(..len).filter(|_| !cut).and_then(Message::decode);
        let message = message.filter(|message| message.takes(fds.len()));
        buf::wipe(&mut scratch[..len]);
        Ok(Received { message: message.ok_or(io::ErrorKind::InvalidData)?, fds })
    }
}

/// Whether a message couldn't be received because the process is at its limit of open files.
pub fn lacks_descriptors(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EMFILE)
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Message {
    /// The message's bytes: its number, then the fields, lowest byte first. `None`: the payload is too long.
    pub fn encode(&self) -> Option<Secret> {
        let mut bytes = Secret::from(vec![self.number()]);
        match self {
            Message::OpenChannel { slot, pid, generation } => {
                bytes.extend_from_slice(&slot.to_le_bytes());
                bytes.extend_from_slice(&pid.to_le_bytes());
                bytes.extend_from_slice(&generation.to_le_bytes());
            }
            Message::CloseChannel { slot, pid } => {
                bytes.extend_from_slice(&slot.to_le_bytes());
                bytes.extend_from_slice(&pid.to_le_bytes());
            }
            Message::HandOver { kind, payload } => {
                let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= MAX_PAYLOAD)?;
                bytes.extend_from_slice(&[*kind]);
                bytes.extend_from_slice(&length.to_le_bytes());
                bytes.extend_from_slice(payload);
            }
            Message::Notice { kind, payload } => {
                bytes.extend_from_slice(&[*kind]);
                bytes.extend_from_slice(payload);
            }
            Message::Quit | Message::Terminate | Message::Reopen | Message::Ready => {}
        }
        Some(bytes)
    }

    /// The message of these bytes; `None` if they are not one, whole and with nothing after it.
    pub fn decode(bytes: &[u8]) -> Option<Message> {
        let mut fields = Fields(bytes);
        let message = match fields.byte()? {
            OPEN_CHANNEL => {
                Message::OpenChannel { slot: fields.slot()?, pid: fields.pid()?, generation: fields.long()? }
            }
            CLOSE_CHANNEL => Message::CloseChannel { slot: fields.slot()?, pid: fields.pid()? },
            QUIT => Message::Quit,
            TERMINATE => Message::Terminate,
            REOPEN => Message::Reopen,
            READY => Message::Ready,
            HAND_OVER => Message::HandOver { kind: fields.byte()?, payload: fields.bytes()?.into() },
            NOTICE => Message::Notice { kind: fields.byte()?, payload: std::mem::take(&mut fields.0).to_vec() },
            _ => return None,
        };
        fields.0.is_empty().then_some(message)
    }

    /// Whether so many descriptors may come with it.
    fn takes(&self, fds: usize) -> bool {
        match self {
            Message::OpenChannel { .. } => fds == 1,
            Message::HandOver { .. } => true,
            _ => fds == 0,
        }
    }

    fn number(&self) -> u8 {
        match self {
            Message::OpenChannel { .. } => OPEN_CHANNEL,
            Message::CloseChannel { .. } => CLOSE_CHANNEL,
            Message::Quit => QUIT,
            Message::Terminate => TERMINATE,
            Message::Reopen => REOPEN,
            Message::Ready => READY,
            Message::HandOver { .. } => HAND_OVER,
            Message::Notice { .. } => NOTICE,
        }
    }
}

/// The fields of a message that haven't been read yet.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    fn slot(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    /// Zero and negative numbers mean something else than one process to most system calls.
    fn pid(&mut self) -> Option<i32> {
        self.take().map(i32::from_le_bytes).filter(|pid| *pid > 0)
    }

    pub(crate) fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn long(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// Bytes that stand after their number.
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.number()? as usize;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}

/// The longest payload of a hand-over. A message has to fit into a socket's buffer, of which the system gives 208 KiB.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// Room for every message but a hand-over.
pub const SMALL: usize = 32;
/// Room for every message.
pub const LARGE: usize = MAX_PAYLOAD + 16;

const EMFILE: i32 = 24;

const OPEN_CHANNEL: u8 = 1;
const CLOSE_CHANNEL: u8 = 2;
const QUIT: u8 = 3;
const TERMINATE: u8 = 4;
const REOPEN: u8 = 5;
const READY: u8 = 6;
const HAND_OVER: u8 = 7;
const NOTICE: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [Message; 8] {
        [
            Message::OpenChannel { slot: 513, pid: 70_000, generation: u64::MAX },
            Message::CloseChannel { slot: 1023, pid: 1 },
            Message::Quit,
            Message::Terminate,
            Message::Reopen,
            Message::Ready,
            Message::HandOver { kind: 2, payload: Secret::default() },
            Message::HandOver { kind: 255, payload: vec![7; MAX_PAYLOAD].into() },
        ]
    }

    #[test]
    fn round_trip() {
        for message in all() {
            let bytes = message.encode().expect("within the limits");
            assert!(bytes.len() <= LARGE && Message::decode(&bytes).as_ref() == Some(&message));
            let more = [&bytes[..], b"x"].concat();
            assert_eq!(Message::decode(&more), None, "nothing comes behind a message");
            for cut in 0..bytes.len().min(64) {
                assert_eq!(Message::decode(&bytes[..cut]), None, "{message:?} cut at {cut}");
            }
        }
        assert!(all()[..6].iter().all(|message| message.encode().is_some_and(|bytes| bytes.len() <= SMALL)));
    }

    #[test]
    fn notices() {
        for length in [0, 1, crate::notices::MAX_PAYLOAD] {
            let message = Message::Notice { kind: 3, payload: vec![7; length] };
            let bytes = message.encode().expect("within the limits");
            assert!(bytes.len() <= LARGE && Message::decode(&bytes).as_ref() == Some(&message));
        }
        assert_eq!(Message::decode(&[NOTICE]), None);
    }

    #[test]
    fn refuses() {
        let wrong: [&[u8]; 5] =
            [b"", &[0], &[99, 1, 2], &[CLOSE_CHANNEL, 0, 0, 255, 255, 255, 255], &[HAND_OVER, 1, 255]];
        for bytes in wrong {
            assert_eq!(Message::decode(bytes), None, "{bytes:?}");
        }
        assert_eq!(Message::HandOver { kind: 0, payload: vec![0; MAX_PAYLOAD + 1].into() }.encode(), None);
    }

    #[test]
    fn travels() {
        let (one, other) = Channel::pair().expect("a pair");
        let mut scratch = vec![0; LARGE];
        for message in all() {
            let fds = [one.as_fd()];
            let fds = if matches!(message, Message::OpenChannel { .. }) { &fds[..] } else { &[] };
            one.send(&message, fds).expect("there is room");
            let received = other.recv(&mut scratch).expect("it has come");
            assert_eq!((received.fds.len(), received.message), (fds.len(), message));
        }
        let kind = |result: io::Result<Received>| result.map(drop).map_err(|error| error.kind());
        assert_eq!(kind(other.recv(&mut scratch)), Err(io::ErrorKind::WouldBlock));
        one.send(&Message::Quit, &[one.as_fd()]).expect("there is room");
        assert_eq!(kind(other.recv(&mut scratch)), Err(io::ErrorKind::InvalidData), "a descriptor too many");
        one.send(&Message::HandOver { kind: 0, payload: vec![0; 100].into() }, &[]).expect("there is room");
        assert_eq!(kind(other.recv(&mut scratch[..SMALL])), Err(io::ErrorKind::InvalidData), "cut short");
        drop(one);
        assert_eq!(kind(other.recv(&mut scratch)), Err(io::ErrorKind::UnexpectedEof));
        assert!(other.send(&Message::Ready, &[]).is_err());
    }

    #[test]
    fn a_message_waits_for_descriptors() {
        os::process::tests_fork(|| {
            let (one, other) = Channel::pair().expect("a pair");
            let message = Message::HandOver { kind: 1, payload: b"state".to_vec().into() };
            let mut scratch = vec![0; LARGE];
            one.send(&message, &[one.as_fd(), other.as_fd()]).expect("there is room");
            os::process::set_soft_limit(os::process::Limit::Files, 256).expect("a limit");
            let mut files: Vec<OwnedFd> = std::iter::from_fn(|| one.as_fd().try_clone_to_owned().ok()).collect();
            assert!(other.recv(&mut scratch).is_err_and(|error| lacks_descriptors(&error)));
            files.pop();
            assert!(other.recv(&mut scratch).is_err_and(|error| lacks_descriptors(&error)), "room for one of two");
            files.clear();
            let received = other.recv(&mut scratch).expect("it was kept");
            assert_eq!((received.message, received.fds.len()), (message, 2));
        });
    }

    #[test]
    fn a_full_channel_says_so() {
        let (one, other) = Channel::pair().expect("a pair");
        let sent = (0..100_000).take_while(|_| one.send(&Message::Reopen, &[]).is_ok()).count();
        assert!((1..100_000).contains(&sent));
        assert_eq!(one.send(&Message::Reopen, &[]).map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
        let mut scratch = [0; SMALL];
        assert_eq!((0..sent).filter(|_| other.recv(&mut scratch).is_ok()).count(), sent);
        one.send(&Message::Quit, &[]).expect("there is room again");
    }
}
