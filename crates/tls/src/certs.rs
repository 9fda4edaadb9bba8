//! Certificates with their keys, out of files or `data:` texts.

use std::ptr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SigningKey};
use x509_cert::der::asn1::AnyRef;
use x509_cert::der::{Decode as _, Encode as _, SliceReader};

use crate::error::{Error, Result};
use crate::keys;
use crate::notes::NotedKey;
use crate::objects::{self, Version};
use crate::pem;
use crate::staple::Staple;
use crate::x509::Parts;

/// A chain of certificates with the private key of its first one.
#[derive(Clone, Debug)]
pub struct Identity {
    pub(crate) key: Arc<CertifiedKey>,
    encrypted: bool,
    staple: Option<Arc<Staple>>,
}

/// Reads certificate and key. The names are paths, or texts after `data:`; messages show them. While a configuration is
/// built, what is known of them is taken ([`crate::reading`]).
pub fn identity(certificate: &str, key: &str, passwords: &[Vec<u8>]) -> Result<Identity> {
    let known = (objects::known(certificate, |all| &all.chains), known_key(key, passwords));
    let is_known = known.0.is_some() || known.1.is_some();
    let mut identity = load(certificate, key, passwords, known)?;
    if identity.is_none() && is_known {
        // One of them was read earlier than the other, or the key is another one of its file.
        identity = load(certificate, key, passwords, (None, None))?;
    }
    identity.ok_or_else(|| {
        let name = shown(key);
        Error::new(format!(
            "SSL_CTX_use_PrivateKey(\"{name}\") failed (SSL: error:05800074:x509 certificate routines::key values mismatch)"
        ))
    })
}

/// A private key, and whether its file is encrypted.
type PrivateKey = (Arc<dyn SigningKey>, bool);

fn known_key(name: &str, passwords: &[Vec<u8>]) -> Option<PrivateKey> {
    let plain = objects::known(name, |all| &all.keys).map(|key| (key, false));
    plain.or_else(|| objects::decrypted(name, passwords).map(|key| (key, true)))
}

/// What isn't known of the two is read from the files. `None`: they don't belong together.
fn load(
    certificate: &str,
    key: &str,
    passwords: &[Vec<u8>],
    known: (Option<Arc<CertifiedKey>>, Option<PrivateKey>),
) -> Result<Option<Identity>> {
    let chain = known.0.map_or_else(|| read_chain(certificate), |pair| Ok(Chain::Known(pair)))?;
    let public = chain.certificates().first().and_then(|leaf| Parts::parse(leaf)).map(|leaf| leaf.public_key);
    let (signer, encrypted) = known.1.map_or_else(|| read_key(key, passwords, public), Ok)?;
    if !keys::fits(&*signer, public) {
        return Ok(None);
    }
    Ok(Some(Identity { key: chain.with_key(certificate, signer), encrypted, staple: None }))
}

/// A chain of certificates.
enum Chain {
    /// One that is known, with the key that it was used with.
    Known(Arc<CertifiedKey>),
    /// One that has been read, of this version of its file.
    Read(Vec<CertificateDer<'static>>, Version),
}

impl Chain {
    fn certificates(&self) -> &[CertificateDer<'static>] {
        match self {
            Chain::Known(pair) => &pair.cert,
            Chain::Read(certificates, _) => certificates,
        }
    }

    /// The pair of the chain, of the file `name`, and this key. All who have the same pair share it.
    fn with_key(self, name: &str, key: Arc<dyn SigningKey>) -> Arc<CertifiedKey> {
        match self {
            Chain::Known(pair) if ptr::addr_eq(Arc::as_ptr(&pair.key), Arc::as_ptr(&key)) => pair,
            Chain::Known(pair) => {
                let pair = Arc::new(CertifiedKey::new(pair.cert.clone(), key));
                objects::replace(name, |all| &all.chains, pair.clone());
                pair
            }
            Chain::Read(certificates, version) => {
                let pair = Arc::new(CertifiedKey::new(certificates, key));
                objects::keep(name, |all| &all.chains, version, pair.clone());
                pair
            }
        }
    }
}

fn read_chain(name: &str) -> Result<Chain> {
    let failed = |error: Error| Error::new(format!("cannot load certificate \"{}\": {error}", shown(name)));
    let text = objects::read(name).map_err(failed)?;
    Ok(Chain::Read(certificates(&text.bytes).map_err(failed)?, text.version))
}

/// Reads a key, the one with this public key if there are several.
fn read_key(name: &str, passwords: &[Vec<u8>], public: Option<&[u8]>) -> Result<PrivateKey> {
    let failed = |error: Error| Error::new(format!("cannot load certificate key \"{}\": {error}", shown(name)));
    if let Some(rest) = name.strip_prefix("engine:").or_else(|| name.strip_prefix("store:")) {
        let kind = &name[..name.len() - rest.len() - 1];
        return Err(failed(Error::new(format!("loading \"{kind}:...\" certificate keys is not supported"))));
    }
    let text = objects::read(name).map_err(failed)?;
    let signer = keys::load(&text.bytes, passwords, public).map_err(failed)?;
    let (key, encrypted): (Arc<dyn SigningKey>, _) = (Arc::new(NotedKey(signer)), keys::is_encrypted(&text.bytes));
    match encrypted {
        true => objects::keep_decrypted(name, passwords, key.clone()),
        false => objects::keep(name, |all| &all.keys, text.version, key.clone()),
    }
    Ok((key, encrypted))
}

/// Whether a file holds parameters for finite-field Diffie-Hellman; they aren't used.
pub fn check_dh_parameters(name: &str) -> Result<()> {
    let text = objects::read(name)
        .map_err(|error| Error::new(error.0.replacen("BIO_new_file()", &format!("BIO_new_file(\"{name}\")"), 1)))?;
    let failed = |why: &str| Error::new(format!("PEM_read_bio_DHparams(\"{name}\") failed (SSL: {why})"));
    let sections = pem::parse(&text.bytes).map_err(|error| failed(&error.0))?;
    let is_meant = |label: &str| matches!(label, "DH PARAMETERS" | "X9.42 DH PARAMETERS");
    match sections.iter().any(|section| is_meant(&section.label)) {
        true => Ok(()),
        false => Err(failed("error:0480006C:PEM routines::no start line:Expecting: DH PARAMETERS")),
    }
}

/// A name for messages: what is after `data:` is a secret.
fn shown(name: &str) -> &str {
    if name.starts_with("data:") { "data:..." } else { name }
}

/// The certificates of a PEM text, at least one. OpenSSL's trusted certificates are taken without what they carry beside.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let failed = |text: &str| Error::new(format!("PEM_read_bio_X509_AUX() failed (SSL: {text})"));
    let mut found = Vec::new();
    for section in pem::parse(text).map_err(|error| failed(&error.0))? {
        let der = match section.label.as_str() {
            "CERTIFICATE" | "X509 CERTIFICATE" => section.bytes,
            "TRUSTED CERTIFICATE" => first_element(&section.bytes).unwrap_or(section.bytes),
            _ => continue,
        };
        if Parts::parse(&der).is_none() {
            return Err(failed(WRONG_TAG));
        }
        found.push(CertificateDer::from(der));
    }
    if found.is_empty() {
        return Err(failed("error:0480006C:PEM routines::no start line:Expecting: TRUSTED CERTIFICATE"));
    }
    Ok(found)
}

/// What OpenSSL says of a section that holds no certificate.
const WRONG_TAG: &str = "error:068000A8:asn1 encoding routines::wrong tag \
                         error:0688010A:asn1 encoding routines::nested asn1 error:Type=X509 \
                         error:0488000D:PEM routines::ASN1 lib";

fn first_element(der: &[u8]) -> Option<Vec<u8>> {
    AnyRef::decode(&mut SliceReader::new(der).ok()?).ok()?.to_der().ok()
}

impl Identity {
    /// The certificates, the own one first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    /// Whether the key's file is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Whether clients are shown the same.
    pub fn looks_like(&self, other: &Identity) -> bool {
        self.key.cert == other.key.cert && self.key.ocsp == other.key.ocsp
    }

    /// The same with an OCSP response to staple.
    #[must_use]
    pub fn with_staple(&self, response: Vec<u8>) -> Identity {
        let key = CertifiedKey { ocsp: Some(response), ..(*self.key).clone() };
        Identity { key: Arc::new(key), ..self.clone() }
    }

    /// The same with a place for responses that are still to come.
    #[must_use]
    pub fn with_staples(&self) -> Identity {
        Identity { staple: Some(Arc::default()), ..self.clone() }
    }

    /// Staples a response from now on, until a time (seconds since 1970).
    pub fn put_staple(&self, response: Vec<u8>, until: u64) {
        if let Some(staple) = &self.staple {
            staple.put(&self.key, response, until);
        }
    }

    /// Whether a handshake has used the certificate since the last call; only those with a place for responses know.
    pub fn take_wanted(&self) -> bool {
        self.staple.as_ref().is_some_and(|staple| staple.take_wanted())
    }

    /// What the next handshake gets.
    pub(crate) fn current(&self) -> Arc<CertifiedKey> {
        self.staple.as_ref().map_or_else(|| self.key.clone(), |staple| staple.of(&self.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["example.com".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn staples_hold_for_a_time() {
        let (cert, key) = made();
        let plain = identity(&format!("data:{cert}"), &format!("data:{key}"), &[]).unwrap();
        let (ours, now) = (plain.with_staples(), crate::session::now());
        let theirs = ours.clone();
        assert_eq!((plain.current().ocsp.clone(), plain.take_wanted(), ours.take_wanted()), (None, false, false));
        assert_eq!(theirs.current().ocsp, None);
        assert!(ours.take_wanted() && !ours.take_wanted());
        ours.put_staple(b"good".to_vec(), now + 100);
        assert_eq!(theirs.current().ocsp.as_deref(), Some(&b"good"[..]));
        ours.put_staple(b"old".to_vec(), now - 1);
        assert_eq!((theirs.current().ocsp.clone(), plain.current().ocsp.clone()), (None, None));
        plain.put_staple(b"lost".to_vec(), now + 100);
        assert_eq!(plain.current().ocsp, None);
    }

    #[test]
    fn certificate_and_key_belong_together() {
        let ((cert, key), (_, other)) = (made(), made());
        let load = |cert: &str, key: &str| identity(&format!("data:{cert}"), &format!("data:{key}"), &[]);
        assert_eq!(load(&cert, &key).unwrap().chain().len(), 1);
        assert_eq!(load(&cert.repeat(2), &key).unwrap().chain().len(), 2);
        let check = |cert: &str, key: &str, expect: &str| {
            let message = load(cert, key).unwrap_err().0;
            assert!(message.contains(expect), "{message}");
        };
        check(&cert, &other, "SSL_CTX_use_PrivateKey(\"data:...\") failed (SSL: error:05800074:x509 certificate");
        // The one that fits is found, wherever it stands.
        for keys in [[&key, &other], [&other, &key], [&cert, &key]] {
            assert_eq!(load(&cert, &keys.map(String::as_str).concat()).unwrap().chain().len(), 1);
        }
        check(&cert, &other.repeat(2), "key values mismatch");
        check(&key, &key, "cannot load certificate \"data:...\": PEM_read_bio_X509_AUX() failed");
        check(&cert, &cert, "cannot load certificate key \"data:...\": PEM_read_bio_PrivateKey() failed");
        let error = identity("/nowhere/x.crt", "y", &[]).unwrap_err().0;
        assert_eq!(
            error,
            "cannot load certificate \"/nowhere/x.crt\": BIO_new_file() failed (SSL: error:80000002:system library::\
             No such file or directory:calling fopen(/nowhere/x.crt, r) error:10000080:BIO routines::no such file)"
        );
    }
}
