//! OCSP (RFC 6960) without I/O: what is asked about a certificate, and what a response says.
//!
//! Certificates are named by SHA-1 hashes of their issuers, since that is what all responders know. A response counts if
//! the issuer has signed it, or a responder to whose certificate the issuer has given that purpose (§4.2.2.2).

use std::fmt;

use aws_lc_rs::digest;
use x509_cert::der::asn1::{AnyRef, GeneralizedTime, ObjectIdentifier};
use x509_cert::der::{Decode as _, Reader as _, SliceReader, Tag, Tagged as _};

use crate::verify::{EXTENDED_USAGE, purposes};
use crate::x509::{Parts, Signed, extensions, inside, key_parts, of_kind};

/// What is asked: the status of one certificate.
#[derive(Clone, Debug)]
pub struct Query {
    name_hash: [u8; 20],
    key_hash: [u8; 20],
    /// The contents of the serial number.
    serial: Box<[u8]>,
    /// The issuer's name and public key.
    issuer: Box<[u8]>,
    issuer_key: Box<[u8]>,
    responder: Option<String>,
}

/// What a response says of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It isn't revoked.
    Good,
    /// It is.
    Revoked,
    /// The responder doesn't know it.
    Unknown,
}

impl Status {
    /// Its name in log lines.
    pub fn name(self) -> &'static str {
        match self {
            Status::Good => "good",
            Status::Revoked => "revoked",
            Status::Unknown => "unknown",
        }
    }
}

/// A response's word on a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: Status,
    /// Until when it counts, in seconds since 1970; `None`: the response doesn't say.
    pub until: Option<u64>,
}

/// Whose signature is enough.
#[derive(Clone, Copy, Debug)]
pub enum Signers<'a> {
    /// The issuer's, or one of a responder to whom the issuer gave the right.
    Authorized,
    /// That of whichever certificate is in the response, or among these (in DER): who gets the response judges it.
    Any(&'a [&'a [u8]]),
}

/// Why a response says nothing; nginx's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is no response.
    Malformed,
    /// The responder refuses to answer: the number in the response.
    Refused(u8),
    /// It is of a kind that isn't known.
    NotBasic,
    /// Nobody who may has signed it.
    NoSigner,
    /// The signature isn't right.
    BadSignature,
    /// It is about other certificates.
    NotFound,
    /// It isn't valid yet.
    Early,
    /// It isn't valid any more.
    Expired,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Fault::Malformed => "d2i_OCSP_RESPONSE() failed",
            Fault::Refused(code) => {
                let names = ["malformedrequest", "internalerror", "trylater", "", "sigrequired", "unauthorized"];
                let name = names.get(usize::from(*code).wrapping_sub(1)).filter(|name| !name.is_empty());
                return write!(f, "OCSP response not successful ({code}: {})", name.unwrap_or(&"(UNKNOWN)"));
            }
            Fault::NotBasic => "OCSP_response_get1_basic() failed",
            Fault::NoSigner => "OCSP_basic_verify() failed (SSL: OCSP routines::signer certificate not found)",
            Fault::BadSignature => "OCSP_basic_verify() failed (SSL: OCSP routines::signature failure)",
            Fault::NotFound => "certificate status not found in the OCSP response",
            Fault::Early => "OCSP_check_validity() failed (SSL: OCSP routines::status not yet valid)",
            Fault::Expired => "OCSP_check_validity() failed (SSL: OCSP routines::status expired)",
        };
        f.write_str(text)
    }
}

/// By how many seconds the clocks of responders may differ.
const LEEWAY: u64 = 300;
/// How many certificates of a response are looked at.
const MOST_CERTIFICATES: usize = 8;
/// How many certificates a response may be about.
const MOST_RESPONSES: usize = 64;

const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
const AUTHORITY_ACCESS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.1");
const ACCESS_OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");
const OCSP_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9");

/// Whether this is a response, whatever it says.
pub fn is_response(der: &[u8]) -> bool {
    !matches!(Basic::parse(der), Err(Fault::Malformed))
}

impl Query {
    /// The question about a certificate; `None` if the issuer's key is malformed.
    pub fn new(certificate: &Parts<'_>, issuer: &Parts<'_>) -> Option<Query> {
        let (_, key) = key_parts(issuer.public_key)?;
        Some(Query {
            name_hash: sha1(issuer.subject),
            key_hash: sha1(key),
            serial: certificate.serial.into(),
            issuer: issuer.subject.into(),
            issuer_key: issuer.public_key.into(),
            responder: certificate
                .extensions()
                .and_then(|all| responder(all.iter().find(|one| one.id == AUTHORITY_ACCESS)?.value)),
        })
    }

    /// The address of the responder that the certificate names.
    pub fn responder(&self) -> Option<&str> {
        self.responder.as_deref()
    }

    /// What stands for the certificate in a cache: issuers of the same name with other keys have others.
    pub fn key(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [&self.issuer, &self.issuer_key, &self.serial] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        key
    }

    /// The request in DER (§4.1.1), unsigned and without a nonce, so that responders can have the answer ready.
    pub fn request(&self) -> Vec<u8> {
        let algorithm = sequence(&[&tlv(6, &[SHA1.as_bytes()]), &[5, 0]]);
        let serial = tlv(2, &[&self.serial]);
        let id = sequence(&[&algorithm, &tlv(4, &[&self.name_hash]), &tlv(4, &[&self.key_hash]), &serial]);
        sequence(&[&sequence(&[&sequence(&[&sequence(&[&id])])])])
    }

    /// What a response says of this certificate at a time, in seconds since 1970.
    pub fn judge(&self, response: &[u8], signers: Signers<'_>, now: u64) -> Result<Answer, Fault> {
        let basic = Basic::parse(response)?;
        // It counts only with a good signature; fuzzing, which can't sign, still gets to all that is read.
        let single = self.find(&basic);
        self.check_signature(&basic, signers, now)?;
        let single = single?;
        if single.this > now + LEEWAY {
            return Err(Fault::Early);
        }
        if single.next.is_some_and(|next| next + LEEWAY < now || next < single.this) {
            return Err(Fault::Expired);
        }
        Ok(Answer { status: single.status, until: single.next })
    }

    fn check_signature(&self, basic: &Basic<'_>, signers: Signers<'_>, now: u64) -> Result<(), Fault> {
        let signed_by = |key: &[u8]| if basic.signed.verify(key) { Ok(()) } else { Err(Fault::BadSignature) };
        if basic.responder.is(&self.issuer, &self.issuer_key) {
            return signed_by(&self.issuer_key);
        }
        let others = match signers {
            Signers::Authorized => &[],
            Signers::Any(others) => others,
        };
        let sent = basic.certificates.iter().copied().take(MOST_CERTIFICATES);
        let named = sent.chain(others.iter().copied()).filter_map(Parts::parse);
        let named = named.filter(|one| basic.responder.is(one.subject, one.public_key));
        let mut fault = Fault::NoSigner;
        for signer in named {
            if matches!(signers, Signers::Authorized) && !self.has_authorized(&signer, now) {
                continue;
            }
            match signed_by(signer.public_key) {
                Ok(()) => return Ok(()),
                Err(why) => fault = why,
            }
        }
        Err(fault)
    }

    /// Whether the issuer has made this certificate for signing responses, and it is valid.
    fn has_authorized(&self, signer: &Parts<'_>, now: u64) -> bool {
        let is_purpose = || {
            let all = signer.extensions()?;
            let usages = all.iter().find(|one| one.id == EXTENDED_USAGE)?;
            purposes(usages).map(|list| list.contains(&OCSP_SIGNING))
        };
        let is_valid = signer.validity().is_some_and(|(from, until)| from <= now && now <= until);
        signer.issuer == &*self.issuer
            && is_valid
            && is_purpose() == Some(true)
            && signer.has_signature_of(&self.issuer_key)
    }

    /// The part of a response that is about this certificate.
    fn find(&self, basic: &Basic<'_>) -> Result<Single, Fault> {
        let mut reader = SliceReader::new(basic.responses).map_err(|_| Fault::NotFound)?;
        for _ in 0..MOST_RESPONSES {
            if reader.is_finished() {
                break;
            }
            let mut one = inside(&mut reader).ok_or(Fault::Malformed)?;
            if self.is_named(&mut one).ok_or(Fault::Malformed)? {
                return Single::parse(&mut one).ok_or(Fault::Malformed);
            }
        }
        Err(Fault::NotFound)
    }

    fn is_named(&self, reader: &mut SliceReader<'_>) -> Option<bool> {
        let mut id = inside(reader)?;
        let algorithm = ObjectIdentifier::decode(&mut inside(&mut id)?).ok()?;
        let mut next = |tag| of_kind(AnyRef::decode(&mut id).ok()?, tag);
        let (name, key, serial) = (next(Tag::OctetString)?, next(Tag::OctetString)?, next(Tag::Integer)?);
        Some(algorithm == SHA1 && name == self.name_hash && key == self.key_hash && serial == &*self.serial)
    }
}

/// A response that the responder has signed (§4.2.1).
struct Basic<'a> {
    signed: Signed<'a>,
    responder: Responder<'a>,
    /// The contents of the list of what it says.
    responses: &'a [u8],
    certificates: Vec<&'a [u8]>,
}

impl<'a> Basic<'a> {
    fn parse(der: &'a [u8]) -> Result<Basic<'a>, Fault> {
        let mut whole = SliceReader::new(der).map_err(|_| Fault::Malformed)?;
        let mut outer = inside(&mut whole).ok_or(Fault::Malformed)?;
        let status = AnyRef::decode(&mut outer).ok().and_then(|status| of_kind(status, Tag::Enumerated));
        match status {
            _ if !whole.is_finished() => return Err(Fault::Malformed),
            Some([0]) => {}
            Some([code]) => return Err(Fault::Refused(*code)),
            _ => return Err(Fault::Malformed),
        }
        let bytes = explicit(&mut outer, 0).ok_or(Fault::NotBasic)?;
        let mut bytes = SliceReader::new(bytes).ok().and_then(|mut bytes| inside(&mut bytes)).ok_or(Fault::NotBasic)?;
        if ObjectIdentifier::decode(&mut bytes) != Ok(BASIC) {
            return Err(Fault::NotBasic);
        }
        let response = AnyRef::decode(&mut bytes).ok().and_then(|bytes| of_kind(bytes, Tag::OctetString));
        response.and_then(Basic::parse_signed).ok_or(Fault::Malformed)
    }

    fn parse_signed(der: &'a [u8]) -> Option<Basic<'a>> {
        let mut outer = inside(&mut SliceReader::new(der).ok()?)?;
        let signed = Signed::read(&mut outer)?;
        let mut certificates = Vec::new();
        if !outer.is_finished() {
            let mut list = inside(&mut SliceReader::new(explicit(&mut outer, 0)?).ok()?)?;
            while !list.is_finished() {
                certificates.push(list.tlv_bytes().ok()?);
            }
        }
        let mut data = inside(&mut SliceReader::new(signed.message).ok()?)?;
        let mut first = AnyRef::decode(&mut data).ok()?;
        if is_explicit(first, 0) {
            // The version, which may be left out.
            first = AnyRef::decode(&mut data).ok()?;
        }
        let responder = Responder::parse(first)?;
        GeneralizedTime::decode(&mut data).ok()?;
        let responses = of_kind(AnyRef::decode(&mut data).ok()?, Tag::Sequence)?;
        has_no_critical_extension(&mut data)?;
        Some(Basic { signed, responder, responses, certificates })
    }
}

/// By what a responder is named.
enum Responder<'a> {
    Name(&'a [u8]),
    KeyHash(&'a [u8]),
}

impl<'a> Responder<'a> {
    fn parse(id: AnyRef<'a>) -> Option<Responder<'a>> {
        if is_explicit(id, 1) {
            return Some(Responder::Name(id.value()));
        }
        let key = is_explicit(id, 2).then(|| AnyRef::from_der(id.value()).ok()).flatten()?;
        Some(Responder::KeyHash(of_kind(key, Tag::OctetString)?))
    }

    fn is(&self, name: &[u8], public_key: &[u8]) -> bool {
        match self {
            Responder::Name(named) => *named == name,
            Responder::KeyHash(hash) => key_parts(public_key).is_some_and(|(_, key)| sha1(key) == **hash),
        }
    }
}

/// What a response says of one certificate.
struct Single {
    status: Status,
    this: u64,
    next: Option<u64>,
}

impl Single {
    /// Reads what follows the certificate's name.
    fn parse(reader: &mut SliceReader<'_>) -> Option<Single> {
        let status = AnyRef::decode(reader).ok()?;
        let status = match status.tag() {
            tag if !tag.is_context_specific() => return None,
            tag => match tag.number().value() {
                0 => Status::Good,
                1 => Status::Revoked,
                2 => Status::Unknown,
                _ => return None,
            },
        };
        let seconds = |time: GeneralizedTime| time.to_unix_duration().as_secs();
        let this = seconds(GeneralizedTime::decode(reader).ok()?);
        let mut next = None;
        let mut rest = reader.clone();
        if let Some(time) = explicit(&mut rest, 0) {
            next = Some(seconds(GeneralizedTime::from_der(time).ok()?));
            *reader = rest;
        }
        has_no_critical_extension(reader)?;
        Some(Single { status, this, next })
    }
}

/// Extensions that have to be understood aren't.
fn has_no_critical_extension(reader: &mut SliceReader<'_>) -> Option<()> {
    if reader.is_finished() {
        return Some(());
    }
    let list = AnyRef::from_der(explicit(reader, 1)?).ok()?;
    let all = extensions(of_kind(list, Tag::Sequence)?)?;
    (reader.is_finished() && !all.iter().any(|one| one.critical)).then_some(())
}

/// The responder's URL in an extension that says where to learn of the issuer.
fn responder(value: &[u8]) -> Option<String> {
    let mut list = inside(&mut SliceReader::new(value).ok()?)?;
    while !list.is_finished() {
        let mut access = inside(&mut list)?;
        let method = ObjectIdentifier::decode(&mut access).ok()?;
        let location = access.tlv_bytes().ok()?;
        // [6] is a URL.
        if method == ACCESS_OCSP && location.first() == Some(&0x86) {
            let text = AnyRef::from_der(location).ok()?.value();
            let is_clean = text.iter().all(|byte| byte.is_ascii_graphic());
            return is_clean.then(|| String::from_utf8_lossy(text).into_owned());
        }
    }
    None
}

/// The contents of the next element, if it has this number.
fn explicit<'a>(reader: &mut SliceReader<'a>, number: u32) -> Option<&'a [u8]> {
    let element = AnyRef::decode(reader).ok()?;
    is_explicit(element, number).then(|| element.value())
}

fn is_explicit(element: AnyRef<'_>, number: u32) -> bool {
    element.tag().is_context_specific() && element.tag().is_constructed() && element.tag().number().value() == number
}

fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut hash = [0; 20];
    hash.copy_from_slice(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
    hash
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

/// An element of DER.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    if len < 0x80 {
        out.push(len as u8);
    } else {
        let bytes = len.to_be_bytes();
        let used = &bytes[len.leading_zeros() as usize / 8..];
        out.push(0x80 | used.len() as u8);
        out.extend_from_slice(used);
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

#[cfg(test)]
#[path = "ocsp_tests.rs"]
mod tests;
