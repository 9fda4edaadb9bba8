//! Certificates with their keys, out of files or `data:` texts.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use x509_cert::der::asn1::AnyRef;
use x509_cert::der::{Decode as _, Encode as _, SliceReader};

use crate::error::{Error, Result, cannot_open};
use crate::keys;
use crate::notes::NotedKey;
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

/// Reads certificate and key. The names are paths, or texts after `data:`; messages show them.
pub fn identity(certificate: &str, key: &str, passwords: &[Vec<u8>]) -> Result<Identity> {
    let names = (certificate.to_owned(), key.to_owned());
    let known = KNOWN.with_borrow(|known| known.as_ref().and_then(|known| known.identities.get(&names).cloned()));
    if let Some(identity) = known {
        return Ok(identity);
    }
    let identity = load(certificate, key, passwords)?;
    KNOWN.with_borrow_mut(|known| {
        if let Some(known) = known {
            known.identities.insert(names, identity.clone());
        }
    });
    Ok(identity)
}

fn load(certificate: &str, key: &str, passwords: &[Vec<u8>]) -> Result<Identity> {
    let chain = read(certificate)
        .and_then(|text| certificates(&text))
        .map_err(|error| Error::new(format!("cannot load certificate \"{}\": {error}", shown(certificate))))?;
    let key_of = |error: Error| Error::new(format!("cannot load certificate key \"{}\": {error}", shown(key)));
    if let Some(rest) = key.strip_prefix("engine:").or_else(|| key.strip_prefix("store:")) {
        let kind = &key[..key.len() - rest.len() - 1];
        return Err(key_of(Error::new(format!("loading \"{kind}:...\" certificate keys is not supported"))));
    }
    let text = read(key).map_err(key_of)?;
    let public = chain.first().and_then(|leaf| Parts::parse(leaf)).map(|leaf| leaf.public_key);
    let signer = keys::load(&text, passwords, public).map_err(key_of)?;
    if !keys::fits(&*signer, public) {
        let name = shown(key);
        return Err(Error::new(format!(
            "SSL_CTX_use_PrivateKey(\"{name}\") failed (SSL: error:05800074:x509 certificate routines::key values mismatch)"
        )));
    }
    let key = Arc::new(CertifiedKey::new(chain, Arc::new(NotedKey(signer))));
    Ok(Identity { key, encrypted: keys::is_encrypted(&text), staple: None })
}

/// What was read while a configuration is built.
#[derive(Default)]
struct Known {
    files: HashMap<String, Vec<u8>>,
    identities: HashMap<(String, String), Identity>,
}

thread_local! {
    static KNOWN: RefCell<Option<Known>> = const { RefCell::new(None) };
}

/// While `build` runs, each file is read once, and each certificate made once: servers share them, and see the same.
pub fn reading_once<T>(build: impl FnOnce() -> T) -> T {
    KNOWN.set(Some(Known::default()));
    let built = build();
    KNOWN.set(None);
    built
}

/// The text after a name: a file's, or what stands after `data:`.
pub fn read(name: &str) -> Result<Vec<u8>> {
    if let Some(text) = name.strip_prefix("data:") {
        return Ok(text.as_bytes().to_vec());
    }
    let known = KNOWN.with_borrow(|known| known.as_ref().and_then(|known| known.files.get(name).cloned()));
    if let Some(contents) = known {
        return Ok(contents);
    }
    let contents = read_file(name)?;
    KNOWN.with_borrow_mut(|known| {
        if let Some(known) = known {
            known.files.insert(name.to_owned(), contents.clone());
        }
    });
    Ok(contents)
}

fn read_file(name: &str) -> Result<Vec<u8>> {
    let failed =
        |error: &std::io::Error| Error::new(format!("BIO_new_file() failed ({})", cannot_open(name, "r", error)));
    let meta = std::fs::metadata(name).map_err(|error| failed(&error))?;
    if meta.is_dir() {
        // It can be opened, and nothing is read.
        return Ok(Vec::new());
    }
    if meta.len() > pem::MAX_SIZE as u64 {
        return Err(Error::new("BIO_new_file() failed (the file is too large)"));
    }
    std::fs::read(name).map_err(|error| failed(&error))
}

/// Whether a file holds parameters for finite-field Diffie-Hellman; they aren't used.
pub fn check_dh_parameters(name: &str) -> Result<()> {
    let text = read(name)
        .map_err(|error| Error::new(error.0.replacen("BIO_new_file()", &format!("BIO_new_file(\"{name}\")"), 1)))?;
    let failed = |why: &str| Error::new(format!("PEM_read_bio_DHparams(\"{name}\") failed (SSL: {why})"));
    let sections = pem::parse(&text).map_err(|error| failed(&error.0))?;
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
