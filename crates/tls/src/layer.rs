//! A connection's TLS behind [`rt::Layer`].

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::rc::Rc;

use buf::Buf;
use rt::Layer;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, ReadEarlyData, UnbufferedStatus,
};
use rustls::{HandshakeKind, ProtocolVersion};
use wire::hello::ClientHello;

use crate::names;
use crate::server::Server;
use crate::verify::{Purpose, Reason};

/// What is known of a client's handshake, beside what the library knows.
pub struct Info {
    /// What the client said first.
    pub hello: ClientHello,
    /// The caller's own: the server that was chosen, for one.
    pub owner: Rc<dyn Any>,
}

/// What became of the client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientVerdict {
    /// There is none.
    None,
    /// It is trusted.
    Trusted,
    /// It isn't.
    Failed(Reason),
}

/// The server's side of a connection.
pub struct ServerLayer {
    conn: UnbufferedServerConnection,
    info: Info,
    record: usize,
    verdict: Cell<ClientVerdict>,
}

impl ServerLayer {
    pub(crate) fn new(conn: UnbufferedServerConnection, info: Info, server: &Server) -> ServerLayer {
        let chain = conn.peer_certificates().unwrap_or_default();
        let verdict = match &server.trust {
            Some(trust) if !chain.is_empty() => match trust.verify(chain, Purpose::Client) {
                Ok(()) => ClientVerdict::Trusted,
                Err(reason) => ClientVerdict::Failed(reason),
            },
            _ => ClientVerdict::None,
        };
        ServerLayer { conn, info, record: server.buffer_size, verdict: Cell::new(verdict) }
    }

    /// What became of the client's certificate.
    pub fn verdict(&self) -> ClientVerdict {
        self.verdict.get()
    }

    /// Withdraws the trust in the client's certificate.
    pub fn distrust(&self, reason: Reason) {
        self.verdict.set(ClientVerdict::Failed(reason));
    }

    /// The layer of a stream, if it is a server's.
    pub fn of(layer: &dyn Layer) -> Option<&ServerLayer> {
        layer.as_any().downcast_ref()
    }

    /// What the client said, and what the caller put beside it.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// `TLSv1.3`.
    pub fn protocol(&self) -> &'static str {
        self.conn.protocol_version().map_or("", names::protocol)
    }

    /// Whether it is TLS 1.3.
    pub fn is_tls13(&self) -> bool {
        self.conn.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// The cipher suite's name.
    pub fn cipher(&self) -> &'static str {
        self.conn.negotiated_cipher_suite().map_or("", |suite| names::negotiated(suite.suite()))
    }

    /// The group of the key exchange; empty for a session that was resumed without one.
    pub fn curve(&self) -> &'static str {
        self.conn.negotiated_key_exchange_group().and_then(|group| names::group(group.name().into())).unwrap_or("")
    }

    /// The protocol of ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.conn.alpn_protocol()
    }

    /// Whether a session was resumed.
    pub fn is_resumed(&self) -> bool {
        self.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The client's certificates.
    pub fn client_certificates(&self) -> &[CertificateDer<'static>] {
        self.conn.peer_certificates().unwrap_or_default()
    }
}

/// One side of a connection, as the library has it.
pub(crate) trait Side {
    type Data;

    /// The library's next step.
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// Takes early data.
    fn early(early: ReadEarlyData<'_, '_, Self::Data>, plain: &mut Buf) -> Result<(), rustls::Error>;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ServerConnectionData> {
        self.process_tls_records(input)
    }

    fn early(mut early: ReadEarlyData<'_, '_, ServerConnectionData>, plain: &mut Buf) -> Result<(), rustls::Error> {
        while let Some(record) = early.next_record() {
            plain.extend_from_slice(record?.payload);
        }
        Ok(())
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ClientConnectionData> {
        self.process_tls_records(input)
    }

    fn early(_: ReadEarlyData<'_, '_, ClientConnectionData>, _: &mut Buf) -> Result<(), rustls::Error> {
        // Only servers get any.
        Ok(())
    }
}

impl Layer for ServerLayer {
    fn receive(&mut self, input: &mut Buf, plain: &mut Buf, out: &mut Buf) -> io::Result<bool> {
        advance(&mut self.conn, input, plain, out).map(|step| step.ended).map_err(io::Error::other)
    }

    fn send(&mut self, plain: &[u8], out: &mut Buf) -> io::Result<()> {
        send(&mut self.conn, plain, out)
    }

    fn close(&mut self, out: &mut Buf) {
        close(&mut self.conn, out);
    }

    fn record(&self) -> usize {
        self.record
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Turns plaintext into records.
pub(crate) fn send<S: Side>(conn: &mut S, plain: &[u8], out: &mut Buf) -> io::Result<()> {
    loop {
        let status = conn.process(&mut []);
        match status.state.map_err(io::Error::other)? {
            ConnectionState::WriteTraffic(mut traffic) => {
                let encrypted = grow(out, |room| traffic.encrypt(plain, room).map_err(encrypt_error));
                return encrypted.map_err(io::Error::other);
            }
            ConnectionState::EncodeTlsData(mut data) => {
                grow(out, |room| data.encode(room).map_err(encode_error)).map_err(io::Error::other)?;
            }
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed => {}
            _ => return Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Says that no more comes.
pub(crate) fn close<S: Side>(conn: &mut S, out: &mut Buf) {
    loop {
        match conn.process(&mut []).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let _ = grow(out, |room| traffic.queue_close_notify(room).map_err(encrypt_error));
                return;
            }
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => {}
            _ => return,
        }
    }
}

/// What came of a step.
pub(crate) struct Step {
    /// The peer said that it ends.
    pub(crate) ended: bool,
    /// Plaintext may be sent: the handshake is over.
    pub(crate) open: bool,
}

/// Takes all whole records out of `input`. After an error `out` holds the alert that says so.
pub(crate) fn advance<S: Side>(
    conn: &mut S,
    input: &mut Buf,
    plain: &mut Buf,
    out: &mut Buf,
) -> Result<Step, rustls::Error> {
    let mut ended = false;
    let mut failed = None;
    loop {
        // After an error the library still has its alert to encode; the input is not to be looked at again.
        let status = conn.process(if failed.is_none() { input.as_mut_slice() } else { &mut [] });
        let discard = status.discard;
        let mut done = None;
        match status.state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    plain.extend_from_slice(record?.payload);
                }
            }
            Ok(ConnectionState::ReadEarlyData(early)) => S::early(early, plain)?,
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                // What is encoded is bounded by what the library queues: a handshake's flight, an alert.
                if grow(out, |room| data.encode(room).map_err(encode_error)).is_err() {
                    done = Some(false);
                }
            }
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => ended = true,
            Ok(ConnectionState::Closed) => (ended, done) = (true, Some(true)),
            Ok(ConnectionState::WriteTraffic(_)) => done = Some(true),
            Ok(_) => done = Some(false),
            Err(error) if failed.is_none() => failed = Some(error),
            Err(_) => done = Some(false),
        }
        input.consume(discard);
        if let Some(open) = done {
            return match failed {
                Some(error) => Err(error),
                None => Ok(Step { ended, open }),
            };
        }
    }
}

/// Why `grow` failed.
pub(crate) enum Room {
    /// So many bytes are needed.
    Needed(usize),
    /// It will not succeed.
    Never(&'static str),
}

/// Lets `write` fill the buffer's room, with more room if it asks for some.
pub(crate) fn grow(out: &mut Buf, mut write: impl FnMut(&mut [u8]) -> Result<usize, Room>) -> Result<(), &'static str> {
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

pub(crate) fn encrypt_error(error: EncryptError) -> Room {
    match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Room::Needed(required_size),
        EncryptError::EncryptExhausted => Room::Never("the keys are used up"),
    }
}

pub(crate) fn encode_error(error: EncodeError) -> Room {
    match error {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Room::Needed(required_size),
        EncodeError::AlreadyEncoded => Room::Never("encoded twice"),
    }
}
