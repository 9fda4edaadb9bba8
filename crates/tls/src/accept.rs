//! The handshake with a client.

use std::io;
use std::rc::Rc;

use buf::{Buf, Chain};
use rt::Stream;
use rustls::server::UnbufferedServerConnection;
use wire::hello::{self, ClientHello, HelloError};

use crate::certs::Identity;
use crate::layer::ServerLayer;
use crate::library::{Library, Side};
use crate::notes::{self, Notes};
use crate::secured::{Secured, Signatures};
use crate::server::{KeySink, Server};

/// What a client begins with.
pub enum First {
    /// A whole ClientHello, with the bytes it was read from.
    Hello(Box<ClientHello>, Buf),
    /// Bytes that are no TLS.
    Plain(Buf),
    /// Nothing: the client closed the connection.
    Closed,
}

/// What a client is told whose first bytes are no ClientHello, and the log in OpenSSL's words. `None`: it may be plain HTTP.
fn refusal(error: HelloError) -> Option<(Alert, &'static str)> {
    Some(match error {
        HelloError::NotTls => return None,
        HelloError::OtherProtocol => (Alert::ProtocolVersion, "error:0A0000FC:SSL routines::unknown protocol"),
        HelloError::Unexpected => (Alert::UnexpectedMessage, "error:0A0000F4:SSL routines::unexpected message"),
        HelloError::LongRecord => (Alert::RecordOverflow, "error:0A0000C6:SSL routines::packet length too long"),
        HelloError::Malformed => (Alert::DecodeError, "error:0A00009F:SSL routines::length mismatch"),
        HelloError::TooLong => (Alert::IllegalParameter, "error:0A000098:SSL routines::excessive message size"),
    })
}

/// Why a handshake didn't come to its end.
#[derive(Debug)]
pub enum HandshakeError {
    /// The connection failed, or the time was over.
    Io(io::Error),
    /// The client closed the connection.
    Closed,
    /// The client sent something that isn't right, or nothing that both sides know is left.
    Tls(String),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> HandshakeError {
        HandshakeError::Io(error)
    }
}

/// How much is asked of the kernel at once while the handshake runs.
const READ: usize = 4096;
/// The most that may wait to be understood in a handshake: a client's certificates, for one.
const MAX_INPUT: usize = 192 << 10;

/// Reads until the ClientHello is there. `input` holds what was read before. The stream's receive timeout bounds it.
pub async fn first_bytes(stream: &Stream, mut input: Buf) -> Result<First, HandshakeError> {
    loop {
        match hello::parse(&input) {
            Ok(Some(hello)) => return Ok(First::Hello(Box::new(hello), input)),
            Ok(None) => {}
            Err(error) => {
                let Some((alert, text)) = refusal(error) else { return Ok(First::Plain(input)) };
                refuse(stream, alert).await;
                return Err(HandshakeError::Tls(text.to_owned()));
            }
        }
        let more = stream.recv(READ).await?;
        if more.is_empty() {
            return if input.is_empty() { Ok(First::Closed) } else { Err(HandshakeError::Closed) };
        }
        if input.is_empty() { input = more } else { input.extend_from_slice(&more) }
    }
}

/// Alerts that are sent without the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alert {
    /// The message has no place here.
    UnexpectedMessage = 10,
    /// The record is longer than records may be.
    RecordOverflow = 22,
    /// The message is longer than it may be.
    IllegalParameter = 47,
    /// The message is malformed.
    DecodeError = 50,
    /// No version that is known here.
    ProtocolVersion = 70,
    /// There is no certificate.
    InternalError = 80,
    /// No server of that name is here.
    UnrecognizedName = 112,
}

impl Alert {
    /// It as a record that isn't encrypted, fatal.
    pub(crate) fn record(self) -> [u8; 7] {
        [21, 3, 3, 0, 2, 2, self as u8]
    }
}

/// Sends a fatal alert instead of a handshake.
pub async fn refuse(stream: &Stream, alert: Alert) {
    let _ = stream.send(&mut Chain::from(buf::Bytes::from(alert.record().to_vec()))).await;
}

/// Brings the handshake to its end, leaves a layer on the stream, and tells what was negotiated. `identity` is the certificate for this connection
/// alone, where it isn't the server's.
pub async fn accept(
    stream: &Stream,
    server: &Server,
    identity: Option<Identity>,
    hello: ClientHello,
    input: Buf,
    owner: Rc<dyn std::any::Any>,
) -> Result<Rc<Secured>, HandshakeError> {
    let config = server.config(identity);
    let conn = UnbufferedServerConnection::new(config).map_err(|error| HandshakeError::Tls(error.to_string()))?;
    let mut library = Library::new(conn);
    let mut plain = Buf::empty();
    let mut signatures = Signatures::default();
    let mut note = |notes: Notes| {
        signatures.own = notes.own.or(signatures.own);
        signatures.client = notes.peer.or(signatures.client);
        if let Some(KeySink(sink)) = server.key_log.as_ref().filter(|_| !notes.keys.is_empty()) {
            sink(&notes.keys);
        }
    };
    let ended = drive(stream, &mut library, input, &mut plain, &mut note).await?;
    let layer = ServerLayer::new(library, hello, owner, server, signatures);
    let secured = layer.secured().clone();
    // Early data was sent with the ClientHello, before anything else.
    stream.set_layer(Box::new(layer), plain, ended);
    Ok(secured)
}

/// Sends and receives until the handshake is over; what is noted in its steps goes to `note`. True: the peer has said
/// already that it sends no more.
pub(crate) async fn drive<S: Side>(
    stream: &Stream,
    library: &mut Library<S>,
    mut input: Buf,
    plain: &mut Buf,
    note: &mut dyn FnMut(Notes),
) -> Result<bool, HandshakeError> {
    loop {
        let mut out = Buf::empty();
        let (step, notes) = notes::during(|| library.receive(input, plain, &mut out));
        note(notes);
        if !out.is_empty() {
            stream.send(&mut Chain::from(out.freeze())).await?;
        }
        match step {
            Ok(step) if step.open && !library.is_handshaking() => return Ok(step.ended),
            Ok(step) if step.ended => return Err(HandshakeError::Closed),
            Ok(_) => {}
            Err(error) => return Err(HandshakeError::Tls(text(&error))),
        }
        if library.rest().len() > MAX_INPUT {
            return Err(HandshakeError::Tls("excessive message size".to_owned()));
        }
        input = stream.recv(READ).await?;
        if input.is_empty() {
            return Err(HandshakeError::Closed);
        }
    }
}

/// The library's error in OpenSSL's words, where its users know them.
fn text(error: &rustls::Error) -> String {
    use rustls::{Error, PeerIncompatible};
    let known = match error {
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => "error:0A000102:SSL routines::unsupported protocol",
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => {
            "error:0A0000C1:SSL routines::no shared cipher"
        }
        Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon) => {
            "error:0A000065:SSL routines::no suitable key share"
        }
        Error::NoApplicationProtocol => "error:0A0000EB:SSL routines::no application protocol",
        _ => return error.to_string(),
    };
    known.to_owned()
}
