//! A connection's TLS behind [`rt::Layer`].

use std::any::Any;
use std::io;
use std::rc::Rc;

use buf::Buf;
use rt::Layer;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError};
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
    verdict: ClientVerdict,
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
        ServerLayer { conn, info, record: server.buffer_size, verdict }
    }

    /// What became of the client's certificate.
    pub fn verdict(&self) -> ClientVerdict {
        self.verdict
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

impl Layer for ServerLayer {
    fn receive(&mut self, input: &mut Buf, plain: &mut Buf, out: &mut Buf) -> io::Result<bool> {
        let Step { ended, .. } = advance_server(&mut self.conn, input, plain, out).map_err(io::Error::other)?;
        Ok(ended)
    }

    fn send(&mut self, plain: &[u8], out: &mut Buf) -> io::Result<()> {
        loop {
            let status = self.conn.process_tls_records(&mut []);
            match status.state.map_err(io::Error::other)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    return grow(out, |room| traffic.encrypt(plain, room).map_err(encrypt_error))
                        .map_err(io::Error::other);
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

    fn close(&mut self, out: &mut Buf) {
        loop {
            match self.conn.process_tls_records(&mut []).state {
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

    fn record(&self) -> usize {
        self.record
    }

    fn as_any(&self) -> &dyn Any {
        self
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
pub(crate) fn advance_server(
    conn: &mut UnbufferedServerConnection,
    input: &mut Buf,
    plain: &mut Buf,
    out: &mut Buf,
) -> Result<Step, rustls::Error> {
    let mut ended = false;
    let mut failed = None;
    loop {
        let status = conn.process_tls_records(input.as_mut_slice());
        let discard = status.discard;
        let mut done = None;
        match status.state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    plain.extend_from_slice(record?.payload);
                }
            }
            Ok(ConnectionState::ReadEarlyData(mut early)) => {
                while let Some(record) = early.next_record() {
                    plain.extend_from_slice(record?.payload);
                }
            }
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
            // The alert is encoded before the error comes again.
            Err(error) if failed.is_none() => failed = Some(error),
            Err(_) => done = Some(false),
        }
        input.consume(discard);
        match (done, failed.take()) {
            (Some(_), Some(error)) => return Err(error),
            (Some(open), None) => return Ok(Step { ended, open }),
            (None, again) => failed = again,
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
