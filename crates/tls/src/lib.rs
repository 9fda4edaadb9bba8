//! TLS: rustls behind nginx's ssl directives.
//!
//! What nginx's modules say in OpenSSL's language (certificates and keys in files, lists of ciphers and curves, session
//! caches, ticket keys, the verification of certificates) becomes a configuration of rustls here. A connection's first
//! message is read by [`wire::hello`], so that the caller can choose the server by its name; then [`accept`] brings the
//! handshake to its end and leaves an [`rt::Layer`] on the stream, which from then on carries plaintext.
//!
//! Not here: SSL 3 to TLS 1.1, ciphers other than ECDHE with AES-GCM or ChaCha20, finite-field Diffie-Hellman.
#![forbid(unsafe_code)]

mod accept;
mod certs;
pub mod ciphers;
mod client;
mod client_auth;
mod constraints;
mod departed;
mod error;
#[cfg(any(test, feature = "exercise"))]
pub mod exercise;
mod hkdf;
mod keys;
mod layer;
mod library;
pub mod names;
mod notes;
mod objects;
pub mod ocsp;
pub mod pem;
mod records;
mod secured;
mod server;
mod session;
mod staple;
pub mod text;
mod tickets;
mod verify;
pub mod x509;

pub use accept::{Alert, First, HandshakeError, accept, first_bytes, refuse};
pub use certs::{Identity, certificates, check_dh_parameters, identity};
pub use client::{Client, ClientLayer, ClientSettings, ConnectError, connect};
pub use client_auth::ClientAuth;
pub use departed::Departed;
pub use error::{Error, Result, cannot_open};
pub use layer::ServerLayer;
pub use objects::{Objects, reading, reading_again};
pub use secured::{ClientVerdict, Secured};
pub use server::{KeySink, Protocols, Server, ServerSettings, groups};
pub use session::{LocalCache, SessionCache};
pub use tickets::TicketKeys;
pub use verify::{Authorities, Purpose, Reason, Trust};

/// SHA-1, for what can't do without it: fingerprints, WebSocket's handshake.
pub fn sha1(bytes: &[u8]) -> [u8; 20] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    digest.as_ref().try_into().expect("a digest of SHA-1 has 20 bytes")
}

/// The library that computes, as it names itself and as `-V` shows it: its version, and that of OpenSSL with whose
/// interface it is compatible. Certbot and nginx's test suite read OpenSSL's.
pub const LIBRARY: &str = "OpenSSL 1.1.1 (compatible; AWS-LC 5.12.0)";

#[cfg(test)]
mod tests {
    /// A new version of the library says so here.
    #[test]
    fn the_library_names_itself() {
        let text = aws_lc_sys::OPENSSL_VERSION_TEXT;
        let text = std::ffi::CStr::from_bytes_with_nul(text).expect("it ends with a zero");
        assert_eq!(text.to_str(), Ok(super::LIBRARY));
    }
}
