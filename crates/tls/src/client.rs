//! TLS to backends.
//!
//! In the handshake a backend only proves that it has the key of its certificate; whether that is trusted, and is for
//! the right host, is found out right after it, before anything is sent: so nginx's words can say what was wrong.

use std::any::Any;
use std::io;
use std::sync::Arc;

use buf::Buf;
use rt::{Layer, Stream};
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, UnbufferedClientConnection};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs as provider};
use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};

use crate::accept::{HandshakeError, drive};
use crate::certs::Identity;
use crate::client_auth::{verify_tls12, verify_tls13};
use crate::error::{Error, Result};
use crate::library::Library;
use crate::notes::{Notes, NotesKeys};
use crate::server::{KeySink, Protocols, crypto};
use crate::verify::{Purpose, Reason, Trust, is_for_host};
use crate::x509::Parts;

/// What directives say of connections to backends.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Versions.
    pub protocols: Protocols,
    /// The list of ciphers for TLS 1.2, in OpenSSL's language.
    pub ciphers: String,
    /// The suites of TLS 1.3 by name; `None`: all.
    pub ciphersuites: Option<String>,
    /// Groups by name, in order; `auto` for the default.
    pub curves: String,
    /// The own certificate.
    pub identity: Option<Identity>,
    /// Whether backends are told the name.
    pub server_name: bool,
    /// Whether sessions are resumed.
    pub reuse: bool,
    /// Protocols for ALPN.
    pub alpn: Vec<Vec<u8>>,
    /// Who vouches for backends; `None`: anybody is taken.
    pub trust: Option<Arc<Trust>>,
    /// Who writes down the keys of connections, if somebody does.
    pub key_log: Option<KeySink>,
}

/// How backends are connected to.
#[derive(Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
    trust: Option<Arc<Trust>>,
    key_log: Option<KeySink>,
}

/// Why a backend isn't spoken to.
#[derive(Debug)]
pub enum ConnectError {
    /// The handshake failed.
    Handshake(HandshakeError),
    /// Its certificate isn't trusted.
    Untrusted(Reason),
    /// Its certificate is for others.
    WrongHost,
}

/// How many backends' sessions are remembered.
const SESSIONS: usize = 256;

impl Client {
    /// Builds it. Errors: lists that name nothing that exists.
    pub fn new(settings: &ClientSettings) -> Result<Client> {
        let ClientSettings { protocols, ciphers, ciphersuites, curves, .. } = settings;
        let provider = crypto(*protocols, ciphers, ciphersuites.as_deref(), curves)?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&protocols.versions())
            .map_err(|error| Error::new(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(HasKey::new()))
            .with_no_client_auth();
        config.enable_sni = settings.server_name;
        config.alpn_protocols.clone_from(&settings.alpn);
        config.resumption =
            if settings.reuse { Resumption::in_memory_sessions(SESSIONS) } else { Resumption::disabled() };
        if let Some(identity) = &settings.identity {
            config.client_auth_cert_resolver = Arc::new(Own(identity.key.clone()));
        }
        if settings.key_log.is_some() {
            config.key_log = Arc::new(NotesKeys);
        }
        let (trust, key_log) = (settings.trust.clone(), settings.key_log.clone());
        Ok(Client { config: Arc::new(config), trust, key_log })
    }

    pub(crate) fn config(&self, identity: Option<Identity>) -> Arc<ClientConfig> {
        let Some(identity) = identity else { return self.config.clone() };
        let mut config = (*self.config).clone();
        config.client_auth_cert_resolver = Arc::new(Own(identity.key));
        // A session belongs to the certificate that it was made with.
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }
}

/// Brings the handshake with a backend to its end, and leaves a layer on the stream. `host` is its name; `identity` the
/// own certificate for this connection alone, `alpn` what is offered by this connection alone.
pub async fn connect(
    stream: &Stream,
    client: &Client,
    host: &str,
    identity: Option<Identity>,
    alpn: Option<Vec<Vec<u8>>>,
) -> std::result::Result<(), ConnectError> {
    // A name that can't be told isn't.
    let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])));
    let name = ServerName::try_from(host.to_owned()).unwrap_or(nobody);
    let config = client.config(identity);
    let conn = match alpn {
        Some(alpn) => UnbufferedClientConnection::new_with_alpn(config, name, alpn),
        None => UnbufferedClientConnection::new(config, name),
    };
    let conn = conn.map_err(|error| ConnectError::Handshake(HandshakeError::Tls(error.to_string())))?;
    let (mut library, mut plain) = (Library::new(conn), Buf::empty());
    let mut note = |notes: Notes| {
        if let Some(KeySink(sink)) = client.key_log.as_ref().filter(|_| !notes.keys.is_empty()) {
            sink(&notes.keys);
        }
    };
    let done = drive(stream, &mut library, Buf::empty(), &mut plain, &mut note).await;
    let ended = done.map_err(ConnectError::Handshake)?;
    if let Some(trust) = &client.trust {
        let chain = library.conn().peer_certificates().unwrap_or_default();
        trust.verify(chain, Purpose::Server).map_err(ConnectError::Untrusted)?;
        if !chain.first().is_some_and(|leaf| is_for_host(leaf, host)) {
            return Err(ConnectError::WrongHost);
        }
    }
    stream.set_layer(Box::new(ClientLayer::new(library)), plain, ended);
    Ok(())
}

/// The client's side of a connection.
pub struct ClientLayer {
    library: Library<UnbufferedClientConnection>,
}

impl ClientLayer {
    pub(crate) fn new(library: Library<UnbufferedClientConnection>) -> ClientLayer {
        ClientLayer { library }
    }

    /// The protocol of ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.library.conn().alpn_protocol()
    }
}

impl Layer for ClientLayer {
    fn receive(&mut self, input: Buf, plain: &mut Buf, out: &mut Buf) -> io::Result<bool> {
        self.library.receive(input, plain, out).map(|step| step.ended).map_err(io::Error::other)
    }

    fn send(&mut self, plain: &[u8], out: &mut Buf) -> io::Result<()> {
        self.library.send(plain, out)
    }

    fn close(&mut self, out: &mut Buf) {
        self.library.close(out);
    }

    fn record(&self) -> usize {
        16384
    }

    fn can_leave(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Always gives the one certificate.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Checks that the backend has the key of its certificate.
#[derive(Debug)]
struct HasKey(WebPkiSupportedAlgorithms);

impl HasKey {
    fn new() -> HasKey {
        HasKey(provider::default_provider().signature_verification_algorithms)
    }
}

impl ServerCertVerifier for HasKey {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        match Parts::parse(leaf) {
            Some(_) => Ok(ServerCertVerified::assertion()),
            None => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12(&self.0, message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13(&self.0, message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
