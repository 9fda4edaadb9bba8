//! A connection's TLS behind [`rt::Layer`].

use std::any::Any;
use std::io;
use std::rc::Rc;

use buf::Buf;
use rt::Layer;
use rustls::server::UnbufferedServerConnection;
use rustls::{CipherSuite, HandshakeKind, ProtocolVersion};
use wire::hello::ClientHello;

use crate::departed::{Departed, Facts};
use crate::library::Library;
use crate::records::{Fault, Keys, Records};
use crate::secured::{Secured, Signatures};
use crate::server::Server;

/// The server's side of a connection.
pub struct ServerLayer {
    conn: Conn,
    secured: Rc<Secured>,
    record: usize,
    asks: bool,
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
    records: Records,
    /// Received, but not a whole record.
    input: Buf,
}

impl ServerLayer {
    pub(crate) fn new(
        library: Library<UnbufferedServerConnection>,
        hello: ClientHello,
        owner: Rc<dyn Any>,
        server: &Server,
        signatures: Signatures,
    ) -> ServerLayer {
        let facts = facts(library.conn());
        let secured = Secured::new(hello, owner, facts, signatures, Some(server));
        ServerLayer::of(Conn::Own(Box::new(library)), secured, Some(server))
    }

    /// Goes on with a connection that another process has left. Its client is judged as `server` judges; without one
    /// that isn't asked any more.
    pub fn resume(departed: Departed, owner: Rc<dyn Any>, server: Option<&Server>) -> ServerLayer {
        let Departed { hello, was_good, facts, records, signatures, .. } = departed;
        let conn = Conn::Resumed(Box::new(Resumed { records, input: Buf::empty() }));
        let secured = Secured::new(hello, owner, facts, signatures, server);
        if was_good {
            secured.set_good();
        }
        ServerLayer::of(conn, secured, server)
    }

    fn of(conn: Conn, secured: Secured, server: Option<&Server>) -> ServerLayer {
        let asks = server.is_some_and(|server| server.trust.is_some());
        let record = server.map_or(RECORD, |server| server.buffer_size);
        ServerLayer { conn, secured: Rc::new(secured), record, asks }
    }

    /// What another process needs to go on with the connection, and what was received of a record that isn't whole.
    /// What the peer is still to be sent is appended to `out`. `None` if [`rt::Layer::can_leave`] doesn't hold, or the
    /// library doesn't give the keys away.
    pub fn leave(self, out: &mut Buf) -> Option<(Departed, Buf)> {
        if !self.can_leave() {
            return None;
        }
        let facts = self.secured.facts().clone();
        let (records, rest) = match self.conn {
            Conn::Own(conn) => extract(*conn, facts.version, out)?,
            Conn::Resumed(resumed) => (resumed.records, resumed.input),
        };
        let (was_asked, was_good) = (self.asks, self.secured.is_good());
        let (hello, signatures) = (self.secured.hello.clone(), self.secured.signatures());
        Some((Departed { hello, was_asked, was_good, facts, records, signatures }, rest))
    }

    /// What is known of the connection.
    pub fn secured(&self) -> &Rc<Secured> {
        &self.secured
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
    /// The library has ended a connection without a word to the peer: its keys serve for that, and for nothing after it.
    fn tell(&mut self, version: ProtocolVersion, out: &mut Buf) -> Fault {
        let fault = Fault::Unexpected;
        let resumed = Resumed { records: Records::ended(fault), input: Buf::empty() };
        if let Conn::Own(library) = std::mem::replace(self, Conn::Resumed(Box::new(resumed)))
            && let Some(mut records) = keys(library.into_parts().0, version)
            && let Conn::Resumed(resumed) = self
        {
            records.fail(fault, out);
            resumed.records = records;
        }
        fault
    }
}

/// What the library knows of a handshake that is over.
fn facts(conn: &UnbufferedServerConnection) -> Facts {
    Facts {
        version: conn.protocol_version().unwrap_or(ProtocolVersion::Unknown(0)),
        suite: conn.negotiated_cipher_suite().map_or(CipherSuite::Unknown(0), |suite| suite.suite()),
        group: conn.negotiated_key_exchange_group().map(|group| group.name()),
        alpn: conn.alpn_protocol().map(Box::from),
        resumed: conn.handshake_kind() == Some(HandshakeKind::Resumed),
        chain: conn.peer_certificates().unwrap_or_default().into(),
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
    Some((keys(conn, version)?, rest))
}

fn keys(conn: UnbufferedServerConnection, version: ProtocolVersion) -> Option<Records> {
    let (secrets, _) = conn.dangerous_into_kernel_connection().ok()?;
    let tls13 = version == ProtocolVersion::TLSv1_3;
    Records::new(tls13, Keys::extracted(&secrets.rx)?, Keys::extracted(&secrets.tx)?)
}

impl Layer for ServerLayer {
    fn receive(&mut self, input: Buf, plain: &mut Buf, out: &mut Buf) -> io::Result<bool> {
        match &mut self.conn {
            Conn::Own(library) => match library.receive(input, plain, out) {
                Ok(step) => Ok(step.ended),
                Err(_) if library.is_silent() && !library.is_handshaking() => {
                    Err(self.conn.tell(self.secured.facts().version, out).into())
                }
                Err(error) => Err(io::Error::other(error)),
            },
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
        if self.secured.is_bad() {
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
