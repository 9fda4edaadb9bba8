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
use rustls::{CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion};
use wire::hello::ClientHello;

use crate::departed::{Departed, Facts};
use crate::names;
use crate::records::{Keys, Records, is_part};
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

/// The schemes by which a handshake was signed, as numbers; none where a session was resumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signatures {
    /// The server's.
    pub(crate) own: Option<u16>,
    /// The client's, if it has sent a certificate.
    pub(crate) client: Option<u16>,
}

/// What responders have said of the client's certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Unasked,
    Good,
    /// Not enough to trust them.
    Bad,
}

/// The server's side of a connection.
pub struct ServerLayer {
    conn: Conn,
    info: Info,
    record: usize,
    asks: bool,
    verdict: Cell<ClientVerdict>,
    standing: Cell<Standing>,
    signatures: Signatures,
}

/// The most plaintext of a record where no server says otherwise.
const RECORD: usize = 16384;

/// Who goes on with it.
enum Conn {
    /// The library, which made the handshake.
    Own(Box<UnbufferedServerConnection>),
    /// Our records, with the keys of another process's handshake.
    Resumed(Box<(Facts, Records)>),
}

impl ServerLayer {
    pub(crate) fn new(
        conn: UnbufferedServerConnection,
        info: Info,
        server: &Server,
        signatures: Signatures,
    ) -> ServerLayer {
        let conn = Conn::Own(Box::new(conn));
        ServerLayer::of_conn(conn, info, Some(server), signatures)
    }

    /// Goes on with a connection that another process has left. Its client is judged as `server` judges; without one
    /// that isn't asked any more.
    pub fn resume(departed: Departed, owner: Rc<dyn Any>, server: Option<&Server>) -> ServerLayer {
        let Departed { hello, was_good, facts, records, signatures, .. } = departed;
        let conn = Conn::Resumed(Box::new((facts, records)));
        let layer = ServerLayer::of_conn(conn, Info { hello, owner }, server, signatures);
        layer.standing.set(if was_good { Standing::Good } else { Standing::Unasked });
        layer
    }

    fn of_conn(conn: Conn, info: Info, server: Option<&Server>, signatures: Signatures) -> ServerLayer {
        let chain = conn.chain();
        let trust = server.and_then(|server| server.trust.as_ref());
        let verdict = match trust {
            Some(trust) if !chain.is_empty() => match trust.verify(chain, Purpose::Client) {
                Ok(()) => ClientVerdict::Trusted,
                Err(reason) => ClientVerdict::Failed(reason),
            },
            _ => ClientVerdict::None,
        };
        let (asks, record) = (trust.is_some(), server.map_or(RECORD, |server| server.buffer_size));
        ServerLayer {
            conn,
            info,
            record,
            asks,
            verdict: Cell::new(verdict),
            standing: Cell::new(Standing::Unasked),
            signatures,
        }
    }

    /// What another process needs to go on with the connection. What the peer is still to be sent is appended to `out`.
    /// `None` if [`rt::Layer::can_leave`] doesn't hold, or the library doesn't give the keys away.
    pub fn leave(self, out: &mut Buf) -> Option<Departed> {
        let facts = self.conn.facts()?;
        let records = match self.conn {
            Conn::Own(conn) => extract(*conn, facts.version, out)?,
            Conn::Resumed(resumed) => resumed.1,
        };
        let (was_asked, was_good) = (self.asks, self.standing.get() == Standing::Good);
        Some(Departed { hello: self.info.hello, was_asked, was_good, facts, records, signatures: self.signatures })
    }

    /// What became of the client's certificate.
    pub fn verdict(&self) -> ClientVerdict {
        self.verdict.get()
    }

    /// Takes note of what responders say of the client's certificates: an error withdraws the trust in them.
    pub fn set_status(&self, status: Result<(), Reason>) {
        self.standing.set(if status.is_ok() { Standing::Good } else { Standing::Bad });
        if let Err(reason) = status {
            self.verdict.set(ClientVerdict::Failed(reason));
        }
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
        self.conn.version().map_or("", names::protocol)
    }

    /// Whether it is TLS 1.3.
    pub fn is_tls13(&self) -> bool {
        self.conn.version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// The cipher suite's name.
    pub fn cipher(&self) -> &'static str {
        self.conn.suite().map_or("", names::negotiated)
    }

    /// The group of the key exchange; empty for a session that was resumed without one.
    pub fn curve(&self) -> &'static str {
        self.conn.group().and_then(|group| names::group(group.into())).unwrap_or("")
    }

    /// The protocol of ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.conn.alpn()
    }

    /// Whether a session was resumed.
    pub fn is_resumed(&self) -> bool {
        self.conn.is_resumed()
    }

    /// The scheme by which the handshake was signed with the server's key; empty for a session that was resumed.
    pub fn signature(&self) -> String {
        self.signatures.own.map(names::signature_or_number).unwrap_or_default()
    }

    /// The scheme by which the client has signed, if it has sent a certificate.
    pub fn client_signature(&self) -> String {
        self.signatures.client.map(names::signature_or_number).unwrap_or_default()
    }

    /// The client's certificates.
    pub fn client_certificates(&self) -> &[CertificateDer<'static>] {
        self.conn.chain()
    }
}

impl Conn {
    fn version(&self) -> Option<ProtocolVersion> {
        match self {
            Conn::Own(conn) => conn.protocol_version(),
            Conn::Resumed(resumed) => Some(resumed.0.version),
        }
    }

    fn suite(&self) -> Option<CipherSuite> {
        match self {
            Conn::Own(conn) => conn.negotiated_cipher_suite().map(|suite| suite.suite()),
            Conn::Resumed(resumed) => Some(resumed.0.suite),
        }
    }

    fn group(&self) -> Option<NamedGroup> {
        match self {
            Conn::Own(conn) => conn.negotiated_key_exchange_group().map(|group| group.name()),
            Conn::Resumed(resumed) => resumed.0.group,
        }
    }

    fn alpn(&self) -> Option<&[u8]> {
        match self {
            Conn::Own(conn) => conn.alpn_protocol(),
            Conn::Resumed(resumed) => resumed.0.alpn.as_deref(),
        }
    }

    fn is_resumed(&self) -> bool {
        match self {
            Conn::Own(conn) => conn.handshake_kind() == Some(HandshakeKind::Resumed),
            Conn::Resumed(resumed) => resumed.0.resumed,
        }
    }

    fn chain(&self) -> &[CertificateDer<'static>] {
        match self {
            Conn::Own(conn) => conn.peer_certificates().unwrap_or_default(),
            Conn::Resumed(resumed) => &resumed.0.chain,
        }
    }

    fn facts(&self) -> Option<Facts> {
        Some(Facts {
            version: self.version()?,
            suite: self.suite()?,
            group: self.group(),
            alpn: self.alpn().map(Box::from),
            resumed: self.is_resumed(),
            chain: self.chain().into(),
        })
    }
}

/// Takes the keys out of the library, once it has said all that it has to say.
fn extract(mut conn: UnbufferedServerConnection, version: ProtocolVersion, out: &mut Buf) -> Option<Records> {
    // An answer to new keys of the client's waits until something is sent, hidden in the library. To be asked how much
    // room that would take brings it out.
    if let Ok(ConnectionState::WriteTraffic(mut traffic)) = conn.process(&mut []).state {
        let _ = traffic.encrypt(b" ", &mut []);
    }
    let step = advance(&mut conn, &mut Buf::empty(), &mut Buf::empty(), out).ok()?;
    if !step.open || step.ended {
        return None;
    }
    let (secrets, _) = conn.dangerous_into_kernel_connection().ok()?;
    let tls13 = version == ProtocolVersion::TLSv1_3;
    Records::new(tls13, Keys::extracted(&secrets.rx)?, Keys::extracted(&secrets.tx)?)
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
        match &mut self.conn {
            Conn::Own(conn) => advance(&mut **conn, input, plain, out).map(|step| step.ended).map_err(io::Error::other),
            Conn::Resumed(resumed) => resumed.1.receive(input, plain, out).map_err(io::Error::from),
        }
    }

    fn send(&mut self, plain: &[u8], out: &mut Buf) -> io::Result<()> {
        match &mut self.conn {
            Conn::Own(conn) => send(&mut **conn, plain, out),
            Conn::Resumed(resumed) => resumed.1.send(plain, self.record, out).map_err(io::Error::from),
        }
    }

    fn close(&mut self, out: &mut Buf) {
        match &mut self.conn {
            Conn::Own(conn) => close(&mut **conn, out),
            Conn::Resumed(resumed) => resumed.1.close(out),
        }
    }

    fn record(&self) -> usize {
        self.record
    }

    fn can_leave(&self, rest: &[u8]) -> bool {
        // Its certificates would be judged anew, and not by those responders.
        if self.standing.get() == Standing::Bad {
            return false;
        }
        // The library joins parts of handshake messages where they lie, opened: those mean nothing to others.
        match &self.conn {
            Conn::Own(_) => is_part(rest),
            Conn::Resumed(resumed) => resumed.1.is_open(),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
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
