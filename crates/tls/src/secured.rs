//! What is known of a client's TLS connection: facts for whoever serves it, apart from what carries its bytes.

use std::any::Any;
use std::cell::Cell;
use std::rc::Rc;

use rustls::pki_types::CertificateDer;
use wire::hello::ClientHello;

use crate::departed::Facts;
use crate::names;
use crate::server::Server;
use crate::verify::{Purpose, Reason};

/// The facts of a connection whose handshake is over. They don't change, but for the client's standing, which responders
/// may withdraw before the first request.
pub struct Secured {
    /// What the client said first.
    pub hello: ClientHello,
    /// The caller's own: the server that was chosen, for one.
    pub owner: Rc<dyn Any>,
    facts: Facts,
    signatures: Signatures,
    verdict: Cell<ClientVerdict>,
    standing: Cell<Standing>,
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

impl Secured {
    pub(crate) fn new(
        hello: ClientHello,
        owner: Rc<dyn Any>,
        facts: Facts,
        signatures: Signatures,
        server: Option<&Server>,
    ) -> Secured {
        let verdict = match server.and_then(|server| server.trust.as_ref()) {
            Some(trust) if !facts.chain.is_empty() => match trust.verify(&facts.chain, Purpose::Client) {
                Ok(()) => ClientVerdict::Trusted,
                Err(reason) => ClientVerdict::Failed(reason),
            },
            _ => ClientVerdict::None,
        };
        let (verdict, standing) = (Cell::new(verdict), Cell::new(Standing::Unasked));
        Secured { hello, owner, facts, signatures, verdict, standing }
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    pub(crate) fn signatures(&self) -> Signatures {
        self.signatures
    }

    /// Responders have vouched for the client's certificates, in another process.
    pub(crate) fn set_good(&self) {
        self.standing.set(Standing::Good);
    }

    /// Whether responders have vouched for the client's certificates.
    pub(crate) fn is_good(&self) -> bool {
        self.standing.get() == Standing::Good
    }

    /// Whether responders have withdrawn the trust in the client's certificates.
    pub(crate) fn is_bad(&self) -> bool {
        self.standing.get() == Standing::Bad
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

    /// `TLSv1.3`.
    pub fn protocol(&self) -> &'static str {
        names::protocol(self.facts.version)
    }

    /// The cipher suite's name.
    pub fn cipher(&self) -> &'static str {
        names::negotiated(self.facts.suite)
    }

    /// The group of the key exchange; empty for a session that was resumed without one.
    pub fn curve(&self) -> &'static str {
        self.facts.group.and_then(|group| names::group(group.into())).unwrap_or("")
    }

    /// The protocol of ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.facts.alpn.as_deref()
    }

    /// Whether a session was resumed.
    pub fn is_resumed(&self) -> bool {
        self.facts.resumed
    }

    /// The scheme by which the handshake was signed with the server's key; empty for a session that was resumed.
    pub fn signature(&self) -> String {
        self.signatures.own.map(names::signature_or_number).unwrap_or_default()
    }

    /// The scheme by which the client has signed; empty if it has sent no certificate.
    pub fn client_signature(&self) -> String {
        self.signatures.client.map(names::signature_or_number).unwrap_or_default()
    }

    /// The client's certificates, its own first; empty if it has sent none.
    pub fn client_certificates(&self) -> &[CertificateDer<'static>] {
        &self.facts.chain
    }
}
