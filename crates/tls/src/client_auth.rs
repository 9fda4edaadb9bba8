//! Asking clients for certificates: the handshake finds out that the client has the key, and nothing else.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs as provider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::notes;
use crate::verify::{Authorities, Trust};
use crate::x509::Parts;

/// How clients are asked for certificates.
#[derive(Clone, Debug)]
pub struct ClientAuth {
    /// Who vouches for them.
    pub trust: Arc<Trust>,
    /// Certificates of authorities whose names clients are told.
    pub authorities: Authorities,
}

/// The handshake's side.
#[derive(Debug)]
pub(crate) struct Asks {
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Asks {
    pub(crate) fn new(auth: &ClientAuth) -> Asks {
        let mut names: Vec<Vec<u8>> = Vec::new();
        for name in auth.authorities.iter().filter_map(|der| Parts::parse(der)).map(|parts| parts.subject) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_vec());
            }
        }
        let algorithms = provider::default_provider().signature_verification_algorithms;
        Asks { hints: names.into_iter().map(DistinguishedName::from).collect(), algorithms }
    }
}

impl ClientCertVerifier for Asks {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // Whether it is trusted is judged after the handshake.
        match Parts::parse(leaf) {
            Some(_) => Ok(ClientCertVerified::assertion()),
            None => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        notes::peer_signed(signed.scheme);
        verify_tls12(&self.algorithms, message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        notes::peer_signed(signed.scheme);
        verify_tls13(&self.algorithms, message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The public key of a certificate of any version.
fn public_key(leaf: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
    let parts = Parts::parse(leaf).ok_or(CertificateError::BadEncoding)?;
    Ok(SubjectPublicKeyInfoDer::from(parts.public_key.to_vec()))
}

pub(crate) fn verify_tls13(
    algorithms: &WebPkiSupportedAlgorithms,
    message: &[u8],
    leaf: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature_with_raw_key(message, &public_key(leaf)?, signed, algorithms)
}

pub(crate) fn verify_tls12(
    algorithms: &WebPkiSupportedAlgorithms,
    message: &[u8],
    leaf: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let key = public_key(leaf)?;
    let key = webpki::RawPublicKeyEntity::try_from(&key).map_err(|_| CertificateError::BadEncoding)?;
    let found = algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
    let (_, possible) = found.ok_or(CertificateError::BadSignature)?;
    // The scheme leaves the curve open; the key decides.
    let fits = possible.iter().any(|algorithm| key.verify_signature(*algorithm, message, signed.signature()).is_ok());
    if fits { Ok(HandshakeSignatureValid::assertion()) } else { Err(CertificateError::BadSignature.into()) }
}
