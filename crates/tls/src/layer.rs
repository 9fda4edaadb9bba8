//! A connection's TLS behind [`rt::Layer`].

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::rc::Rc;

use buf::Buf;
use rt::Layer;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::{CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion};
use wire::hello::ClientHello;

use crate::departed::{Departed, Facts};
use crate::library::Library;
use crate::names;
use crate::records::{Fault, Keys, Records};
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
    Own(Box<Library<UnbufferedServerConnection>>),
    /// Our records, with the keys of another process's handshake.
    Resumed(Box<Resumed>),
}

struct Resumed {
    facts: Facts,
    records: Records,
    /// Received, but not a whole record.
    input: Buf,
}

impl ServerLayer {
    pub(crate) fn new(
        conn: Library<UnbufferedServerConnection>,
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
        let conn = Conn::Resumed(Box::new(Resumed { facts, records, input: Buf::empty() }));
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

    /// What another process needs to go on with the connection, and what was received of a record that isn't whole.
    /// What the peer is still to be sent is appended to `out`. `None` if [`rt::Layer::can_leave`] doesn't hold, or the
    /// library doesn't give the keys away.
    pub fn leave(self, out: &mut Buf) -> Option<(Departed, Buf)> {
        if !self.can_leave() {
            return None;
        }
        let facts = self.conn.facts()?;
        let (records, rest) = match self.conn {
            Conn::Own(conn) => extract(*conn, facts.version, out)?,
            Conn::Resumed(resumed) => (resumed.records, resumed.input),
        };
        let (was_asked, was_good) = (self.asks, self.standing.get() == Standing::Good);
        let (hello, signatures) = (self.info.hello, self.signatures);
        Some((Departed { hello, was_asked, was_good, facts, records, signatures }, rest))
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

impl Resumed {
    fn receive(&mut self, input: Buf, plain: &mut Buf, out: &mut Buf) -> Result<bool, Fault> {
        if self.input.is_empty() {
            self.input = input;
        } else {
            self.input.extend_from_slice(&input);
        }
        let received = self.records.receive(&mut self.input, plain, out);
        if self.input.is_empty() {
            self.input = Buf::empty();
        }
        received
    }
}

impl Conn {
    fn version(&self) -> Option<ProtocolVersion> {
        match self {
            Conn::Own(conn) => conn.conn().protocol_version(),
            Conn::Resumed(resumed) => Some(resumed.facts.version),
        }
    }

    fn suite(&self) -> Option<CipherSuite> {
        match self {
            Conn::Own(conn) => conn.conn().negotiated_cipher_suite().map(|suite| suite.suite()),
            Conn::Resumed(resumed) => Some(resumed.facts.suite),
        }
    }

    fn group(&self) -> Option<NamedGroup> {
        match self {
            Conn::Own(conn) => conn.conn().negotiated_key_exchange_group().map(|group| group.name()),
            Conn::Resumed(resumed) => resumed.facts.group,
        }
    }

    fn alpn(&self) -> Option<&[u8]> {
        match self {
            Conn::Own(conn) => conn.conn().alpn_protocol(),
            Conn::Resumed(resumed) => resumed.facts.alpn.as_deref(),
        }
    }

    fn is_resumed(&self) -> bool {
        match self {
            Conn::Own(conn) => conn.conn().handshake_kind() == Some(HandshakeKind::Resumed),
            Conn::Resumed(resumed) => resumed.facts.resumed,
        }
    }

    fn chain(&self) -> &[CertificateDer<'static>] {
        match self {
            Conn::Own(conn) => conn.conn().peer_certificates().unwrap_or_default(),
            Conn::Resumed(resumed) => &resumed.facts.chain,
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
fn extract(
    mut library: Library<UnbufferedServerConnection>,
    version: ProtocolVersion,
    out: &mut Buf,
) -> Option<(Records, Buf)> {
    library.bring_out(out).ok()?;
    let (conn, rest) = library.into_parts();
    let (secrets, _) = conn.dangerous_into_kernel_connection().ok()?;
    let tls13 = version == ProtocolVersion::TLSv1_3;
    Some((Records::new(tls13, Keys::extracted(&secrets.rx)?, Keys::extracted(&secrets.tx)?)?, rest))
}

impl Layer for ServerLayer {
    fn receive(&mut self, input: Buf, plain: &mut Buf, out: &mut Buf) -> io::Result<bool> {
        match &mut self.conn {
            Conn::Own(library) => library.receive(input, plain, out).map(|step| step.ended).map_err(io::Error::other),
            Conn::Resumed(resumed) => resumed.receive(input, plain, out).map_err(io::Error::from),
        }
    }

    fn send(&mut self, plain: &[u8], out: &mut Buf) -> io::Result<()> {
        match &mut self.conn {
            Conn::Own(library) => library.send(plain, out),
            Conn::Resumed(resumed) => resumed.records.send(plain, self.record, out).map_err(io::Error::from),
        }
    }

    fn close(&mut self, out: &mut Buf) {
        match &mut self.conn {
            Conn::Own(library) => library.close(out),
            Conn::Resumed(resumed) => resumed.records.close(out),
        }
    }

    fn record(&self) -> usize {
        self.record
    }

    fn can_leave(&self) -> bool {
        // Its certificates would be judged anew, and not by those responders.
        if self.standing.get() == Standing::Bad {
            return false;
        }
        // The library joins parts of handshake messages where they lie, opened: those mean nothing to others.
        match &self.conn {
            Conn::Own(library) => !library.is_handshaking() && library.is_between_records(),
            Conn::Resumed(resumed) => resumed.records.is_open(),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
