//! TLS peers of the library's, and what no library would say: records of any kind, sealed with the right keys.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType, DigitallySignedStruct, Error,
    ProtocolVersion, ServerConfig, ServerConnection, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
};

/// A client's settings: it takes any certificate, and its keys may be had.
pub fn client_config(versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
    let config = builder.expect("the versions are the library's").dangerous();
    let mut config = config.with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth();
    config.enable_secret_extraction = true;
    config
}

/// A client's side, before its handshake.
pub fn client(config: impl Into<Arc<ClientConfig>>, name: &str) -> ClientConnection {
    let name = ServerName::try_from(name.to_owned()).expect("it is a name");
    ClientConnection::new(config.into(), name).expect("nothing is missing")
}

/// A server's side, with the certificate `name.crt` of a folder.
pub fn server(folder: &Path, name: &str, versions: &[&'static SupportedProtocolVersion]) -> ServerConnection {
    let chain = CertificateDer::from_pem_file(folder.join(format!("{name}.crt"))).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key"))).expect("a key");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions);
    let builder = builder.expect("the versions are the library's").with_no_client_auth();
    let mut config = builder.with_single_cert(vec![chain], key).expect("they fit");
    config.enable_secret_extraction = true;
    ServerConnection::new(Arc::new(config)).expect("nothing is missing")
}

/// Seals records.
pub struct Sealer {
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
}

impl Sealer {
    /// With the keys of a connection of TLS 1.3 whose handshake is over, and which has nothing left to send.
    pub fn of(connection: impl Into<rustls::Connection>) -> Sealer {
        let connection = connection.into();
        let suite = connection.negotiated_cipher_suite().expect("the handshake is over");
        let secrets = connection.dangerous_extract_secrets().expect("the keys may be had");
        let (sequence, secrets) = secrets.tx;
        use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
        let (key, iv) = match secrets {
            Aes128Gcm { key, iv } | Aes256Gcm { key, iv } | Chacha20Poly1305 { key, iv } => (key, iv),
            _ => panic!("a cipher that isn't known"),
        };
        let encrypter = match suite {
            SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
            SupportedCipherSuite::Tls12(_) => panic!("only TLS 1.3"),
        };
        let mut sealer = Sealer { encrypter, sequence: 0 };
        // The cipher wants to see all numbers, from the first one on.
        (0..sequence).for_each(|_| drop(sealer.seal(23, b"")));
        sealer
    }

    /// A record of that kind.
    pub fn seal(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let (typ, payload) = (ContentType::from(kind), OutboundChunks::Single(content));
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let record = self.encrypter.encrypt(message, self.sequence).expect("it is short enough");
        self.sequence += 1;
        record.encode()
    }
}

/// A client that has shaken hands, has had a request answered if it has asked one, and goes on with records of its own.
pub fn talk(port: u16, request: &str) -> (TcpStream, Sealer, String) {
    let (mut connection, mut socket) = (client(client_config(&[&TLS13]), "localhost"), connect(port));
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).expect("the handshake succeeds");
    let mut buffer = vec![0; 16384];
    let length = if request.is_empty() {
        connection.complete_io(&mut socket).expect("the handshake succeeds");
        0
    } else {
        stream.read(&mut buffer).expect("an answer")
    };
    let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
    (socket, Sealer::of(connection), answer)
}

/// A connection to a port of 127.0.0.1 on which nobody waits for ever.
pub fn connect(port: u16) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    socket.set_nodelay(true).expect("a socket");
    socket
}

/// Sends what a connection has to send, without waiting for anything.
pub fn flush(connection: &mut rustls::Connection, socket: &mut TcpStream) -> std::io::Result<()> {
    while connection.wants_write() {
        connection.write_tls(socket)?;
    }
    Ok(())
}

/// What a client says first, as one record.
pub fn client_hello(mut connection: ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).expect("there is room");
    bytes
}

/// Bytes as one record that isn't encrypted.
pub fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1], &(content.len() as u16).to_be_bytes()[..], content].concat()
}

/// Who a server is doesn't matter here.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
