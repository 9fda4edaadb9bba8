//! Private keys: PKCS#8, PKCS#1 and SEC 1, also encrypted with a password (PBES2, or OpenSSL's older PEM encryption).

use std::num::NonZeroU32;
use std::sync::Arc;

use aws_lc_rs::cipher::{self, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2;
use md5::{Digest as _, Md5};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use rustls::sign::SigningKey;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use x509_cert::der::{Decode as _, Reader as _, SliceReader};

use crate::error::{Error, Result};
use crate::pem::{self, Section};

/// The most rounds of key derivation that a file may ask for.
const MAX_ROUNDS: u32 = 10_000_000;

/// The private key in a PEM text: of several the first that has this public key, else the first. Passwords are tried in
/// their order until one fits.
pub(crate) fn load(text: &[u8], passwords: &[Vec<u8>], public: Option<&[u8]>) -> Result<Arc<dyn SigningKey>> {
    let mut first = None;
    for section in sections(text) {
        let key = section.and_then(|section| signer(&section, passwords));
        match key {
            Ok(key) if fits(&*key, public) => return Ok(key),
            Ok(key) => _ = first.get_or_insert(key),
            // What follows a key that could be read may be anything.
            Err(error) if first.is_none() => return Err(error),
            Err(_) => {}
        }
    }
    first.ok_or_else(|| {
        ssl_error("error:1E08010C:DECODER routines::unsupported:No supported data to decode. Input type: PEM")
    })
}

/// Whether the key belongs to this public key, as far as that is known.
pub(crate) fn fits(key: &dyn SigningKey, public: Option<&[u8]>) -> bool {
    key.public_key().zip(public).is_none_or(|(own, public)| own.as_ref() == public)
}

/// The keys of a text.
fn sections(text: &[u8]) -> impl Iterator<Item = Result<Section>> {
    let is_key = |section: &Result<Section>| {
        section.as_ref().is_ok_and(|section| section.label.ends_with("PRIVATE KEY")) || section.is_err()
    };
    pem::sections(text).map(|section| section.map_err(|error| ssl_error(&error.0))).filter(is_key)
}

fn signer(section: &Section, passwords: &[Vec<u8>]) -> Result<Arc<dyn SigningKey>> {
    let der = decode(section, passwords)?;
    if let PrivateKeyDer::Pkcs8(key) = &der
        && algorithm(key.secret_pkcs8_der()) == Some(RSA_PSS)
    {
        return Err(Error::new("an RSA-PSS key is not supported, use one of RSA or of ECDSA"));
    }
    rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).map_err(|_| failed("unsupported"))
}

/// What kind of key PKCS#8 holds.
fn algorithm(der: &[u8]) -> Option<ObjectIdentifier> {
    inside(der, |outer| {
        u8::decode(outer).ok()?;
        inside_next(outer, |algorithm| ObjectIdentifier::decode(algorithm).ok())
    })
}

/// Whether the text holds a key that needs a password.
pub(crate) fn is_encrypted(text: &[u8]) -> bool {
    let key = sections(text).next().and_then(Result::ok);
    key.is_some_and(|key| key.label == "ENCRYPTED PRIVATE KEY" || key.header("DEK-Info").is_some())
}

fn decode(section: &Section, passwords: &[Vec<u8>]) -> Result<PrivateKeyDer<'static>> {
    if section.label == "ENCRYPTED PRIVATE KEY" {
        return try_passwords(passwords, |password| {
            let der = decrypt_pkcs8(&section.bytes, password)?;
            looks_whole(&der).then_some(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)))
        });
    }
    match section.header("DEK-Info") {
        Some(info) => try_passwords(passwords, |password| {
            let der = decrypt_legacy(info, &section.bytes, password)?;
            if looks_whole(&der) { typed(&section.label, der) } else { None }
        }),
        None => typed(&section.label, section.bytes.clone()).ok_or_else(|| failed("unsupported")),
    }
}

fn typed(label: &str, der: Vec<u8>) -> Option<PrivateKeyDer<'static>> {
    Some(match label {
        "PRIVATE KEY" => PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)),
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der)),
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der)),
        _ => return None,
    })
}

fn try_passwords(
    passwords: &[Vec<u8>],
    decrypt: impl Fn(&[u8]) -> Option<PrivateKeyDer<'static>>,
) -> Result<PrivateKeyDer<'static>> {
    if passwords.is_empty() {
        return Err(ssl_error("error:07880109:common libcrypto routines::interrupted or cancelled"));
    }
    let found = passwords.iter().find_map(|password| decrypt(password));
    found.ok_or_else(|| {
        ssl_error("error:1C800064:Provider routines::bad decrypt error:04800065:PEM routines::bad decrypt")
    })
}

/// Whether the bytes are one DER sequence: with a wrong password they hardly ever are.
fn looks_whole(der: &[u8]) -> bool {
    AnyRef::from_der(der).is_ok()
}

fn ssl_error(text: &str) -> Error {
    Error::new(format!("PEM_read_bio_PrivateKey() failed (SSL: {text})"))
}

fn failed(what: &str) -> Error {
    ssl_error(&format!("error:1E08010C:DECODER routines::{what}"))
}

/// PBES2 with PBKDF2 and AES or 3DES in CBC mode (RFC 8018).
fn decrypt_pkcs8(der: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    let (params, data) = inside(der, |outer| {
        let params = inside_next(outer, |algorithm| {
            (ObjectIdentifier::decode(algorithm).ok()? == PBES2).then_some(())?;
            inside_next(algorithm, |params| {
                let kdf = inside_next(params, key_derivation)?;
                let scheme = inside_next(params, |scheme| {
                    let oid = ObjectIdentifier::decode(scheme).ok()?;
                    let iv = <&OctetStringRef>::decode(scheme).ok()?;
                    Some((oid, iv.as_bytes().to_vec()))
                })?;
                Some((kdf, scheme))
            })
        })?;
        let data = <&OctetStringRef>::decode(outer).ok()?.as_bytes().to_vec();
        Some((params, data))
    })?;
    let (kdf, (scheme, iv)) = params;
    let (_, algorithm, length) = CIPHERS.iter().find(|(oid, ..)| *oid == scheme)?;
    let mut key = vec![0; *length];
    pbkdf2::derive(kdf.prf, NonZeroU32::new(kdf.rounds)?, &kdf.salt, password, &mut key);
    decrypt_cbc(algorithm, &key, &iv, data)
}

struct Derivation {
    prf: pbkdf2::Algorithm,
    rounds: u32,
    salt: Vec<u8>,
}

fn key_derivation(kdf: &mut SliceReader<'_>) -> Option<Derivation> {
    (ObjectIdentifier::decode(kdf).ok()? == PBKDF2).then_some(())?;
    inside_next(kdf, |params| {
        let salt = <&OctetStringRef>::decode(params).ok()?.as_bytes().to_vec();
        let rounds = u32::decode(params).ok().filter(|rounds| *rounds <= MAX_ROUNDS)?;
        let mut prf = pbkdf2::PBKDF2_HMAC_SHA1;
        while !params.is_finished() {
            let next = AnyRef::decode(params).ok()?;
            if next.value().first() == Some(&6) {
                let oid =
                    SliceReader::new(next.value()).ok().and_then(|mut r| ObjectIdentifier::decode(&mut r).ok())?;
                prf = PRFS.iter().find(|(known, _)| *known == oid)?.1;
            }
        }
        Some(Derivation { prf, rounds, salt })
    })
}

/// Reads what is inside a sequence that is all of `der`.
fn inside<T>(der: &[u8], read: impl FnOnce(&mut SliceReader<'_>) -> Option<T>) -> Option<T> {
    inside_next(&mut SliceReader::new(der).ok()?, read)
}

/// Reads what is inside the next sequence.
fn inside_next<T>(reader: &mut SliceReader<'_>, read: impl FnOnce(&mut SliceReader<'_>) -> Option<T>) -> Option<T> {
    let any = AnyRef::decode(reader).ok()?;
    read(&mut SliceReader::new(any.value()).ok()?)
}

/// `Proc-Type: 4,ENCRYPTED`: the key is made of MD5 over the password and the first bytes of the initialisation vector.
fn decrypt_legacy(info: &str, data: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    let (name, iv) = info.split_once(',')?;
    let (_, algorithm, length) = LEGACY.iter().find(|(known, ..)| *known == name)?;
    let iv: Vec<u8> =
        (0..iv.len() / 2).map(|n| u8::from_str_radix(iv.get(2 * n..2 * n + 2)?, 16).ok()).collect::<Option<_>>()?;
    let salt = iv.get(..8)?;
    let (mut key, mut block) = (Vec::new(), Vec::new());
    while key.len() < *length {
        let mut md5 = Md5::new();
        md5.update(&block);
        md5.update(password);
        md5.update(salt);
        block = md5.finalize().to_vec();
        key.extend_from_slice(&block);
    }
    key.truncate(*length);
    decrypt_cbc(algorithm, &key, &iv, data.to_vec())
}

fn decrypt_cbc(algorithm: &'static cipher::Algorithm, key: &[u8], iv: &[u8], mut data: Vec<u8>) -> Option<Vec<u8>> {
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(UnboundCipherKey::new(algorithm, key).ok()?).ok()?;
    let iv = match iv.len() {
        8 => DecryptionContext::Iv64(FixedLength::<8>::try_from(iv).ok()?),
        _ => DecryptionContext::Iv128(FixedLength::<16>::try_from(iv).ok()?),
    };
    let plain = key.decrypt(&mut data, iv).ok()?;
    Some(plain.to_vec())
}

const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const PBES2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.13");
const PBKDF2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.12");

const PRFS: [(ObjectIdentifier, pbkdf2::Algorithm); 4] = [
    (ObjectIdentifier::new_unwrap("1.2.840.113549.2.7"), pbkdf2::PBKDF2_HMAC_SHA1),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.2.9"), pbkdf2::PBKDF2_HMAC_SHA256),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.2.10"), pbkdf2::PBKDF2_HMAC_SHA384),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.2.11"), pbkdf2::PBKDF2_HMAC_SHA512),
];

/// Old keys are still about.
#[expect(deprecated, reason = "nothing is encrypted by it any more")]
const TRIPLE_DES: &cipher::Algorithm = &cipher::DES_EDE3_FOR_LEGACY_USE_ONLY;

const CIPHERS: [(ObjectIdentifier, &cipher::Algorithm, usize); 4] = [
    (ObjectIdentifier::new_unwrap("1.2.840.113549.3.7"), TRIPLE_DES, 24),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.2"), &cipher::AES_128, 16),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.22"), &cipher::AES_192, 24),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.42"), &cipher::AES_256, 32),
];

const LEGACY: [(&str, &cipher::Algorithm, usize); 4] = [
    ("DES-EDE3-CBC", TRIPLE_DES, 24),
    ("AES-128-CBC", &cipher::AES_128, 16),
    ("AES-192-CBC", &cipher::AES_192, 24),
    ("AES-256-CBC", &cipher::AES_256, 32),
];
