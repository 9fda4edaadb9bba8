//! The library's unbuffered connection, used by its rules.
//!
//! The library remembers offsets into the bytes that it was shown: of a handshake message that isn't whole, or isn't
//! looked at yet. So it has to be shown the same bytes again, whatever it is called for, until it gives them free; after
//! an error it must not look at them any more. A peer decides when either is the case. Both rules are kept here and
//! nowhere else: [`Library`] owns the bytes, shows all of them at each call, and makes no call after an error.

use std::io;

use buf::Buf;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, ReadEarlyData, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error};

use crate::accept::Alert;
use crate::records::is_part;

/// One side of a connection, as the library has it.
pub(crate) trait Side {
    type Data;

    /// The library's next step.
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// Takes early data.
    fn early(early: ReadEarlyData<'_, '_, Self::Data>, plain: &mut Buf) -> Result<(), Error>;

    /// What both sides have in common.
    fn common(&self) -> &CommonState;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ServerConnectionData> {
        self.process_tls_records(input)
    }

    fn early(mut early: ReadEarlyData<'_, '_, ServerConnectionData>, plain: &mut Buf) -> Result<(), Error> {
        while let Some(record) = early.next_record() {
            plain.extend_from_slice(record?.payload);
        }
        Ok(())
    }

    fn common(&self) -> &CommonState {
        self
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ClientConnectionData> {
        self.process_tls_records(input)
    }

    fn early(_: ReadEarlyData<'_, '_, ClientConnectionData>, _: &mut Buf) -> Result<(), Error> {
        // Only servers get any.
        Ok(())
    }

    fn common(&self) -> &CommonState {
        self
    }
}

/// A connection of the library's with the bytes that it may still refer to.
pub(crate) struct Library<S: Side> {
    conn: S,
    /// Received, and not given free.
    input: Buf,
    /// What has ended it.
    error: Option<Error>,
    /// The peer wasn't told of that.
    silent: bool,
    /// The peer has said that it sends no more.
    ended: bool,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The peer said that it ends.
    pub(crate) ended: bool,
    /// Plaintext may be sent: the handshake is over.
    pub(crate) open: bool,
}

/// Where the library has come to rest.
enum Rest<T> {
    /// Plaintext may be sent; what that came to.
    Open(T),
    /// The handshake waits for the peer.
    Blocked,
    /// Both sides have ended.
    Closed,
}

impl<S: Side> Library<S> {
    pub(crate) fn new(conn: S) -> Library<S> {
        Library { conn, input: Buf::empty(), error: None, silent: false, ended: false }
    }

    /// What it knows of the connection.
    pub(crate) fn conn(&self) -> &S {
        &self.conn
    }

    /// Whether the handshake goes on.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.conn.common().is_handshaking()
    }

    /// Whether the library has kept to itself what has ended it.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent
    }

    /// What was received and isn't done with.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.input
    }

    /// Whether what it has read stands between two records: nothing has ended it, and what is left over means the same
    /// to whoever reads on.
    pub(crate) fn is_between_records(&self) -> bool {
        self.error.is_none() && !self.ended && is_part(&self.input)
    }

    /// Takes what was received. Plaintext is appended to `plain`, what the peer is to be sent at once to `out`: after an
    /// error the alert that tells of it. An error is final, and is what every later call comes to.
    pub(crate) fn receive(&mut self, input: Buf, plain: &mut Buf, out: &mut Buf) -> Result<Step, Error> {
        if self.input.is_empty() {
            self.input = input;
        } else {
            self.input.extend_from_slice(&input);
        }
        let open = match self.run(plain, out, Some(()), |_, _| ())? {
            Rest::Open(()) | Rest::Closed => true,
            Rest::Blocked => false,
        };
        Ok(Step { ended: self.ended, open })
    }

    /// Turns plaintext into records.
    pub(crate) fn send(&mut self, plain: &[u8], out: &mut Buf) -> io::Result<()> {
        let encrypt = |traffic: &mut WriteTraffic<'_, S::Data>, out: &mut Buf| {
            grow(out, |room| traffic.encrypt(plain, room).map_err(encrypt_error))
        };
        match self.step(out, encrypt).map_err(io::Error::other)? {
            Rest::Open(encrypted) => encrypted.map_err(io::Error::other),
            Rest::Blocked | Rest::Closed => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Says that no more comes, if that can still be said.
    pub(crate) fn close(&mut self, out: &mut Buf) {
        let _ = self.step(out, |traffic, out| {
            let _ = grow(out, |room| traffic.queue_close_notify(room).map_err(encrypt_error));
        });
    }

    /// Brings out the answer to new keys of the peer's, which waits hidden until something is sent. To be asked how much
    /// room that would take does it.
    pub(crate) fn bring_out(&mut self, out: &mut Buf) -> Result<(), Error> {
        self.step(out, |traffic, _| drop(traffic.encrypt(b" ", &mut [])))?;
        self.step(out, |_, _| ()).map(drop)
    }

    /// The library's connection for good.
    pub(crate) fn into_parts(self) -> (S, Buf) {
        (self.conn, self.input)
    }

    /// As `run`, with nothing received since the last time: so there can't be plaintext.
    fn step<T>(
        &mut self,
        out: &mut Buf,
        write: impl FnMut(&mut WriteTraffic<'_, S::Data>, &mut Buf) -> T,
    ) -> Result<Rest<T>, Error> {
        let mut plain = Buf::empty();
        let rest = self.run(&mut plain, out, None, write);
        debug_assert!(plain.is_empty(), "all plaintext was taken when it was received");
        rest
    }

    /// Goes on until nothing is left to do. Where plaintext may be sent `write` is called; not where that is known
    /// without asking the library, and `quiet` is what it would come to.
    fn run<T>(
        &mut self,
        plain: &mut Buf,
        out: &mut Buf,
        mut quiet: Option<T>,
        mut write: impl FnMut(&mut WriteTraffic<'_, S::Data>, &mut Buf) -> T,
    ) -> Result<Rest<T>, Error> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        loop {
            let UnbufferedStatus { discard, state, .. } = self.conn.process(self.input.as_mut_slice());
            let done = match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => Ok(Some(Rest::Open(write(&mut traffic, out)))),
                Ok(ConnectionState::Closed) => Ok(Some(Rest::Closed)),
                Ok(ConnectionState::BlockedHandshake) => Ok(Some(Rest::Blocked)),
                Ok(other) => Self::take(other, &mut self.ended, plain, out).map(|()| None),
                Err(error) => Err(error),
            };
            match done {
                Ok(done) => {
                    self.discard(discard);
                    if let Some(rest) = done {
                        return Ok(rest);
                    }
                    if self.is_quiet()
                        && let Some(done) = quiet.take()
                    {
                        return Ok(Rest::Open(done));
                    }
                }
                Err(error) => return Err(self.fail(error, plain, out)),
            }
        }
    }

    /// Whether the library would say that plaintext may be sent: it has looked at all that was received, which didn't end
    /// what the peer says, and has nothing to say itself.
    fn is_quiet(&self) -> bool {
        let common = self.conn.common();
        self.input.is_empty() && common.wants_read() && !common.is_handshaking() && !common.wants_write()
    }

    /// What stands between two rests.
    fn take(
        state: ConnectionState<'_, '_, S::Data>,
        ended: &mut bool,
        plain: &mut Buf,
        out: &mut Buf,
    ) -> Result<(), Error> {
        match state {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    plain.extend_from_slice(record?.payload);
                }
            }
            ConnectionState::ReadEarlyData(early) => S::early(early, plain)?,
            ConnectionState::EncodeTlsData(mut data) => {
                // What is encoded is bounded by what the library queues: a handshake's flight, an alert.
                let encoded = grow(out, |room| data.encode(room).map_err(encode_error));
                encoded.map_err(|why| Error::General(why.to_owned()))?;
            }
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed => *ended = true,
            _ => return Err(Error::General("a state that isn't known".to_owned())),
        }
        Ok(())
    }

    fn discard(&mut self, count: usize) {
        self.input.consume(count);
        if self.input.is_empty() {
            // An idle connection holds no buffer.
            self.input = Buf::empty();
        }
    }

    /// Ends it. The library's last words are its alert, if it has queued one.
    fn fail(&mut self, error: Error, plain: &mut Buf, out: &mut Buf) -> Error {
        let mut told = matches!(error, Error::AlertReceived(_));
        // As long as something is queued, that comes first, and what was received isn't looked at.
        while self.conn.common().wants_write() {
            let state = self.conn.process(self.input.as_mut_slice()).state;
            if !state.is_ok_and(|state| Self::take(state, &mut self.ended, plain, out).is_ok()) {
                break;
            }
            told = true;
        }
        if !told && self.conn.common().protocol_version().is_none() {
            // Nothing is agreed, so nothing is encrypted yet.
            out.extend_from_slice(&Alert::UnexpectedMessage.record());
            told = true;
        }
        self.silent = !told;
        self.input = Buf::empty();
        self.error = Some(error.clone());
        error
    }
}

/// Why `grow` failed.
enum Room {
    /// So many bytes are needed.
    Needed(usize),
    /// It will not succeed.
    Never(&'static str),
}

/// Lets `write` fill the buffer's room, with more room if it asks for some.
fn grow(out: &mut Buf, mut write: impl FnMut(&mut [u8]) -> Result<usize, Room>) -> Result<(), &'static str> {
    loop {
        match write(out.room_mut()) {
            Ok(n) => {
                out.filled(n);
                return Ok(());
            }
            Err(Room::Needed(size)) if size > out.room() => out.reserve(size),
            Err(Room::Needed(_)) => return Err("more room was asked for than is needed"),
            Err(Room::Never(why)) => return Err(why),
        }
    }
}

fn encrypt_error(error: EncryptError) -> Room {
    match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Room::Needed(required_size),
        EncryptError::EncryptExhausted => Room::Never("the keys are used up"),
    }
}

fn encode_error(error: EncodeError) -> Room {
    match error {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Room::Needed(required_size),
        EncodeError::AlreadyEncoded => Room::Never("encoded twice"),
    }
}
