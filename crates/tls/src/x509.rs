//! The parts of certificates and revocation lists, unjudged: what variables show, and what verification looks at.

use std::collections::HashSet;

use rustls::pki_types::SignatureVerificationAlgorithm;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{Decode as _, Reader as _, SliceReader, Tag, Tagged as _};
use x509_cert::time::Time;

/// The parts of a certificate, each as the DER that stands there.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    signed: Signed<'a>,
    /// The contents of the serial number.
    pub serial: &'a [u8],
    /// The issuer's name.
    pub issuer: &'a [u8],
    /// The contents of the validity: two times.
    validity: &'a [u8],
    /// The subject's name.
    pub subject: &'a [u8],
    /// The public key with its algorithm.
    pub public_key: &'a [u8],
    /// The contents of the list of extensions; empty if there is none.
    extensions: &'a [u8],
    /// Whether the certificate is of version 3.
    pub is_v3: bool,
}

/// What is signed, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signed<'a> {
    pub(crate) message: &'a [u8],
    /// The contents of the algorithm's identifier.
    algorithm: &'a [u8],
    signature: &'a [u8],
}

/// An extension.
#[derive(Clone, Copy, Debug)]
pub struct Extension<'a> {
    /// Which one.
    pub id: ObjectIdentifier,
    /// Whether who doesn't know it has to refuse the certificate.
    pub critical: bool,
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Takes a certificate apart; `None` if it isn't one.
    pub fn parse(der: &'a [u8]) -> Option<Parts<'a>> {
        let signed = Signed::parse(der)?;
        let mut tbs = inside(&mut SliceReader::new(signed.message).ok()?)?;
        let mut first = AnyRef::decode(&mut tbs).ok()?;
        // The version comes first, unless it is 1.
        let is_v3 = first.tag().is_context_specific() && first.value() == [2, 1, 2];
        if first.tag().is_context_specific() {
            first = AnyRef::decode(&mut tbs).ok()?;
        }
        if of_kind(AnyRef::decode(&mut tbs).ok()?, Tag::Sequence)? != signed.algorithm {
            return None;
        }
        let mut parts = Parts {
            signed,
            serial: first.value(),
            issuer: tbs.tlv_bytes().ok()?,
            validity: AnyRef::decode(&mut tbs).ok()?.value(),
            subject: tbs.tlv_bytes().ok()?,
            public_key: tbs.tlv_bytes().ok()?,
            extensions: &[],
            is_v3,
        };
        while !tbs.is_finished() {
            let next = AnyRef::decode(&mut tbs).ok()?;
            // [1] and [2] are unique identifiers, which nobody uses.
            if next.tag().number().value() == 3 {
                parts.extensions = AnyRef::from_der(next.value()).ok()?.value();
            }
        }
        Some(parts)
    }

    /// From when and until when it is valid, in seconds since 1970.
    pub fn validity(&self) -> Option<(u64, u64)> {
        let mut reader = SliceReader::new(self.validity).ok()?;
        let mut next = || Some(Time::decode(&mut reader).ok()?.to_unix_duration().as_secs());
        Some((next()?, next()?))
    }

    /// The extensions; `None` if they are malformed.
    pub fn extensions(&self) -> Option<Vec<Extension<'a>>> {
        extensions(self.extensions)
    }

    /// Whether the key of `issuer` has signed this certificate.
    pub(crate) fn is_signed_by(&self, issuer: &Parts<'_>) -> bool {
        self.signed.verify(issuer.public_key)
    }

    /// The same, for a key alone.
    pub(crate) fn has_signature_of(&self, public_key: &[u8]) -> bool {
        self.signed.verify(public_key)
    }

    /// Whether both are one certificate.
    pub fn is_same(&self, other: &Parts<'_>) -> bool {
        self.signed.message == other.signed.message && self.signed.signature == other.signed.signature
    }

    /// Whether issuer and subject are the same.
    pub(crate) fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }
}

pub(crate) fn extensions(list: &[u8]) -> Option<Vec<Extension<'_>>> {
    let mut found = Vec::new();
    if list.is_empty() {
        return Some(found);
    }
    let mut reader = SliceReader::new(list).ok()?;
    while !reader.is_finished() {
        let mut one = inside(&mut reader)?;
        let id = ObjectIdentifier::decode(&mut one).ok()?;
        let mut value = AnyRef::decode(&mut one).ok()?;
        let flag = value.tag() == Tag::Boolean;
        let critical = flag && value.value() != [0];
        if flag {
            value = AnyRef::decode(&mut one).ok()?;
        }
        found.push(Extension { id, critical, value: value.value() });
    }
    Some(found)
}

impl<'a> Signed<'a> {
    fn parse(der: &'a [u8]) -> Option<Signed<'a>> {
        let mut whole = SliceReader::new(der).ok()?;
        let mut outer = inside(&mut whole)?;
        whole.is_finished().then_some(())?;
        let signed = Signed::read(&mut outer)?;
        outer.is_finished().then_some(signed)
    }

    /// Reads what is signed, how, and the signature; what follows stays in the reader.
    pub(crate) fn read(outer: &mut SliceReader<'a>) -> Option<Signed<'a>> {
        let message = outer.tlv_bytes().ok()?;
        let algorithm = of_kind(AnyRef::decode(outer).ok()?, Tag::Sequence)?;
        let signature = bits(AnyRef::decode(outer).ok()?)?;
        Some(Signed { message, algorithm, signature })
    }

    /// Whether it was signed with the private key of this public one.
    pub(crate) fn verify(&self, public_key: &[u8]) -> bool {
        let Some((key_algorithm, key)) = key_parts(public_key) else { return false };
        let fits = |known: &&&dyn SignatureVerificationAlgorithm| {
            known.signature_alg_id().as_ref() == self.algorithm && known.public_key_alg_id().as_ref() == key_algorithm
        };
        let mut algorithms = webpki::ALL_VERIFICATION_ALGS.iter().filter(fits);
        algorithms.any(|known| known.verify_signature(key, self.message, self.signature).is_ok())
    }
}

/// The algorithm of a public key, and its bits.
pub(crate) fn key_parts(public_key: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut key = inside(&mut SliceReader::new(public_key).ok()?)?;
    let algorithm = AnyRef::decode(&mut key).ok()?.value();
    Some((algorithm, bits(AnyRef::decode(&mut key).ok()?)?))
}

/// The bytes of a bit string, which has to consist of whole ones.
fn bits(value: AnyRef<'_>) -> Option<&[u8]> {
    of_kind(value, Tag::BitString)?.strip_prefix(&[0])
}

pub(crate) fn of_kind(value: AnyRef<'_>, tag: Tag) -> Option<&[u8]> {
    (value.tag() == tag).then(|| value.value())
}

/// What is inside the next sequence.
pub(crate) fn inside<'a>(reader: &mut SliceReader<'a>) -> Option<SliceReader<'a>> {
    SliceReader::new(of_kind(AnyRef::decode(reader).ok()?, Tag::Sequence)?).ok()
}

/// What is inside the next set.
pub(crate) fn inside_set<'a>(reader: &mut SliceReader<'a>) -> Option<SliceReader<'a>> {
    SliceReader::new(of_kind(AnyRef::decode(reader).ok()?, Tag::Set)?).ok()
}

/// The identifier of a key in an `AuthorityKeyIdentifier`.
pub(crate) fn issuer_key_id(value: &[u8]) -> Option<&[u8]> {
    let mut reader = inside(&mut SliceReader::new(value).ok()?)?;
    let first = AnyRef::decode(&mut reader).ok()?;
    (first.tag().is_context_specific() && first.tag().number().value() == 0).then(|| first.value())
}

pub(crate) const ISSUER_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");

/// A list of revoked certificates.
#[derive(Clone, Debug)]
pub struct RevocationList {
    /// The issuer's name.
    pub issuer: Vec<u8>,
    der: Vec<u8>,
    /// From when and until when it holds, in seconds since 1970.
    pub validity: (u64, Option<u64>),
    serials: HashSet<Vec<u8>>,
    /// What it calls its issuer's key.
    pub issuer_key: Option<Vec<u8>>,
    /// Whether it has a critical extension, which would make it a list of another kind.
    pub is_special: bool,
}

impl RevocationList {
    /// Reads a list; `None` if it isn't one.
    pub fn parse(der: &[u8]) -> Option<RevocationList> {
        let signed = Signed::parse(der)?;
        let mut tbs = inside(&mut SliceReader::new(signed.message).ok()?)?;
        let first = AnyRef::decode(&mut tbs).ok()?;
        if first.tag() == Tag::Integer {
            AnyRef::decode(&mut tbs).ok()?;
        }
        let issuer = tbs.tlv_bytes().ok()?.to_vec();
        let this = Time::decode(&mut tbs).ok()?.to_unix_duration().as_secs();
        let mut list = RevocationList {
            issuer,
            der: der.to_vec(),
            validity: (this, None),
            serials: HashSet::new(),
            issuer_key: None,
            is_special: false,
        };
        while !tbs.is_finished() {
            let bytes = tbs.tlv_bytes().ok()?;
            let next = AnyRef::from_der(bytes).ok()?;
            if let Ok(time) = Time::from_der(bytes) {
                list.validity.1 = Some(time.to_unix_duration().as_secs());
            } else if next.tag().is_context_specific() {
                let all = extensions(AnyRef::from_der(next.value()).ok()?.value())?;
                list.is_special = all.iter().any(|extension| extension.critical);
                let key = all.iter().find(|extension| extension.id == ISSUER_KEY);
                list.issuer_key = key.and_then(|key| issuer_key_id(key.value)).map(<[u8]>::to_vec);
            } else {
                list.read_serials(next.value())?;
            }
        }
        Some(list)
    }

    fn read_serials(&mut self, entries: &[u8]) -> Option<()> {
        if entries.is_empty() {
            return Some(());
        }
        let mut reader = SliceReader::new(entries).ok()?;
        while !reader.is_finished() {
            let mut entry = inside(&mut reader)?;
            self.serials.insert(AnyRef::decode(&mut entry).ok()?.value().to_vec());
        }
        Some(())
    }

    /// Whether the certificate with this serial number is revoked.
    pub fn has(&self, serial: &[u8]) -> bool {
        self.serials.contains(serial)
    }

    /// Whether the key of `issuer` has signed this list.
    pub fn is_signed_by(&self, issuer: &Parts<'_>) -> bool {
        Signed::parse(&self.der).is_some_and(|signed| signed.verify(issuer.public_key))
    }
}
