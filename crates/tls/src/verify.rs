//! Whether a peer's certificate is to be trusted, and if not, why: the reasons are OpenSSL's, in its words.
//!
//! In the handshake a client's certificate is only checked to be the client's; whether it is trusted is found out here
//! afterwards, since nginx answers a bad one with a page. Chains are built as OpenSSL builds them: trusted certificates
//! come first, and a chain ends with a self-signed certificate that is trusted. Certificates of version 1, and those of
//! an authority used as a client's own, are taken as OpenSSL takes them. `tests/openssl.rs` compares both.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{Decode as _, Reader as _, SliceReader};

use crate::certs::certificates;
use crate::constraints;
use crate::error::{Error, Result};
use crate::objects;
use crate::ocsp::Query;
use crate::pem;
use crate::session::now;
use crate::x509::{self, Extension, ISSUER_KEY, Parts, RevocationList, inside};

/// Why a certificate isn't trusted: OpenSSL's number and words; nginx's words, without a number, if OCSP says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason(pub u32, pub &'static str);

impl Reason {
    pub(crate) const UNSPECIFIED: Reason = Reason(1, "unspecified certificate verification error");
    const NO_ISSUER_OF_TRUSTED: Reason = Reason(2, "unable to get issuer certificate");
    const NO_ISSUER: Reason = Reason(20, "unable to get local issuer certificate");
    const NO_ISSUER_OF_FIRST: Reason = Reason(21, "unable to verify the first certificate");
    const SELF_SIGNED: Reason = Reason(18, "self-signed certificate");
    const SELF_SIGNED_IN_CHAIN: Reason = Reason(19, "self-signed certificate in certificate chain");
    const BAD_SIGNATURE: Reason = Reason(7, "certificate signature failure");
    const NOT_YET_VALID: Reason = Reason(9, "certificate is not yet valid");
    const EXPIRED: Reason = Reason(10, "certificate has expired");
    const NO_CRL: Reason = Reason(3, "unable to get certificate CRL");
    const CRL_NOT_YET_VALID: Reason = Reason(11, "CRL is not yet valid");
    const CRL_EXPIRED: Reason = Reason(12, "CRL has expired");
    const CRL_SIGNATURE: Reason = Reason(8, "CRL signature failure");
    const REVOKED: Reason = Reason(23, "certificate revoked");
    const TOO_LONG: Reason = Reason(22, "certificate chain too long");
    const INVALID_CA: Reason = Reason(79, "invalid CA certificate");
    const MALFORMED: Reason = Reason(41, "invalid or inconsistent certificate extension");
    const NO_CRL_SIGN: Reason = Reason(35, "key usage does not include CRL signing");
    pub(crate) const NOT_PERMITTED: Reason = Reason(47, "permitted subtree violation");
    pub(crate) const EXCLUDED: Reason = Reason(48, "excluded subtree violation");
    pub(crate) const CONSTRAINT_DEPTH: Reason = Reason(49, "name constraints minimum and maximum not supported");
    pub(crate) const CONSTRAINT_KIND: Reason = Reason(51, "unsupported name constraint type");
    pub(crate) const CONSTRAINT_SYNTAX: Reason = Reason(52, "unsupported or invalid name constraint syntax");
    pub(crate) const NAME_SYNTAX: Reason = Reason(53, "unsupported or invalid name syntax");
    const PATH_LENGTH: Reason = Reason(25, "path length constraint exceeded");
    const PURPOSE: Reason = Reason(26, "unsuitable certificate purpose");
    const NO_CERT_SIGN: Reason = Reason(32, "key usage does not include certificate signing");
    const CRITICAL: Reason = Reason(34, "unhandled critical extension");

    /// By OCSP: the certificate is revoked.
    pub const STATUS_REVOKED: Reason = Reason(0, "certificate revoked");
    /// By OCSP: the responder doesn't know the certificate.
    pub const STATUS_UNKNOWN: Reason = Reason(0, "certificate status unknown");
    /// By OCSP: there is no response that says anything.
    pub const STATUS_FAILED: Reason = Reason(0, "certificate status request failed");

    /// Whether it only says that nobody vouches for the certificate (`optional_no_ca`).
    pub fn is_untrusted(self) -> bool {
        matches!(self.0, 18..=21 | 27)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason(0, text) => f.write_str(text),
            Reason(number, text) => write!(f, "({number}:{text})"),
        }
    }
}

/// Whom a certificate belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A client.
    Client,
    /// A server.
    Server,
}

/// The certificates of a file of authorities, shared by all who trust them.
pub type Authorities = Arc<[CertificateDer<'static>]>;

/// Who is trusted.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    roots: Vec<Authorities>,
    lists: Vec<Arc<[RevocationList]>>,
    check_lists: bool,
    depth: usize,
}

/// The most certificates that a chain may have, whatever the depth.
const MAX_CHAIN: usize = 32;
/// How many issuers of the same name are tried.
const MAX_NAMESAKES: usize = 8;

impl Trust {
    /// Nobody, yet. `depth`: how many certificates may stand between the own one and the trusted one.
    pub fn new(depth: usize) -> Trust {
        Trust { depth, ..Trust::default() }
    }

    /// Adds the certificates of a file; gives them back.
    pub fn add_file(&mut self, name: &str) -> Result<Authorities> {
        let found = objects::known(name, |all| &all.authorities).map_or_else(|| read_authorities(name), Ok)?;
        self.roots.push(found.clone());
        Ok(found)
    }

    /// Adds the revocation lists of a file; from then on every certificate of a chain needs one.
    pub fn add_lists(&mut self, name: &str) -> Result<()> {
        let found = objects::known(name, |all| &all.lists).map_or_else(|| read_lists(name), Ok)?;
        self.lists.push(found);
        self.check_lists = true;
        Ok(())
    }

    /// The trusted certificates.
    pub fn roots(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.roots.iter().flat_map(|file| file.iter())
    }

    /// Judges a chain, the own certificate first.
    pub fn verify(&self, chain: &[CertificateDer<'_>], purpose: Purpose) -> std::result::Result<(), Reason> {
        self.verify_at(chain, purpose, now())
    }

    /// What there is to ask about the status of a client's trusted certificates (OCSP): of its own one, or, with `whole`,
    /// of all but the last of the chain.
    pub fn queries(&self, chain: &[CertificateDer<'_>], whole: bool) -> std::result::Result<Vec<Query>, Reason> {
        let chain = self.trusted_chain(chain, Purpose::Client, now())?;
        let pairs = chain.windows(2).take(if whole { MAX_CHAIN } else { 1 });
        pairs.map(|pair| Query::new(&pair[0], &pair[1]).ok_or(Reason::MALFORMED)).collect()
    }

    /// The question about a server's own certificate, whose issuer follows it, or is trusted; `None`: nobody knows the
    /// issuer.
    pub fn query(&self, chain: &[CertificateDer<'_>]) -> Option<Query> {
        let leaf = Parts::parse(chain.first()?)?;
        let (sent, trusted) = (chain[1..].iter().map(AsRef::as_ref), self.roots().map(AsRef::as_ref));
        let all = sent.chain(trusted).filter_map(Parts::parse);
        let issuer = all.filter(|one| one.subject == leaf.issuer).find(|one| leaf.is_signed_by(one))?;
        Query::new(&leaf, &issuer)
    }

    fn verify_at(&self, sent: &[CertificateDer<'_>], purpose: Purpose, time: u64) -> std::result::Result<(), Reason> {
        self.trusted_chain(sent, purpose, time).map(|_| ())
    }

    /// The chain from the own certificate to a trusted one, if all is well with it. All is looked at, in OpenSSL's order, and
    /// of several faults the last one counts: so does OpenSSL, as nginx uses it.
    fn trusted_chain<'a>(
        &'a self,
        sent: &'a [CertificateDer<'_>],
        purpose: Purpose,
        time: u64,
    ) -> std::result::Result<Vec<Parts<'a>>, Reason> {
        let leaf = sent.first().and_then(|leaf| Parts::parse(leaf)).ok_or(Reason::MALFORMED)?;
        let others: Vec<Parts<'_>> = sent.iter().skip(1).take(MAX_CHAIN).filter_map(|der| Parts::parse(der)).collect();
        let roots: Vec<Parts<'_>> = self.roots().filter_map(|der| Parts::parse(der)).collect();
        let Built { chain, judged } = build(leaf, &others, &roots, self.depth);
        let all: Vec<_> = chain.iter().map(Parts::extensions).collect::<Option<_>>().ok_or(Reason::MALFORMED)?;
        let mut verdict = Verdict(judged);
        check_extensions(&chain, &all, purpose, &mut verdict);
        if self.check_lists {
            self.check_revoked(&chain, &all, time, &mut verdict);
        }
        check_signatures(&chain, &all, time, &mut verdict)?;
        check_names(&chain, &all, &mut verdict);
        verdict.0.map(|()| chain)
    }

    /// Every certificate needs a list.
    fn check_revoked(&self, chain: &[Parts<'_>], all: &[Vec<Extension<'_>>], time: u64, verdict: &mut Verdict) {
        for (at, certificate) in chain.iter().enumerate() {
            let above = if at + 1 < chain.len() { at + 1 } else { at };
            self.check_list(certificate, &chain[above], &all[above], time, verdict);
        }
    }

    fn check_list(
        &self,
        certificate: &Parts<'_>,
        issuer: &Parts<'_>,
        of_issuer: &[Extension<'_>],
        time: u64,
        verdict: &mut Verdict,
    ) {
        let own_key = key_id(of_issuer);
        let fits = |list: &&RevocationList| {
            let other_key = list.issuer_key.as_deref().zip(own_key).is_some_and(|(listed, own)| listed != own);
            list.issuer == certificate.issuer && !list.is_special && !other_key
        };
        // Of several lists the latest counts.
        let list = self.lists.iter().flat_map(|file| file.iter()).filter(fits).max_by_key(|list| list.validity.0);
        let Some(list) = list else { return verdict.fault(Reason::NO_CRL) };
        if extension(of_issuer, KEY_USAGE).is_some_and(|usage| !has_bit(usage, CRL_SIGN)) {
            verdict.fault(Reason::NO_CRL_SIGN);
        }
        if time < list.validity.0 {
            verdict.fault(Reason::CRL_NOT_YET_VALID);
        }
        if list.validity.1.is_some_and(|next| time > next) {
            verdict.fault(Reason::CRL_EXPIRED);
        }
        if !list.is_signed_by(issuer) {
            verdict.fault(Reason::CRL_SIGNATURE);
        }
        if list.has(certificate.serial) {
            verdict.fault(Reason::REVOKED);
        }
    }
}

fn read_authorities(name: &str) -> Result<Authorities> {
    let failed = |error: Error| Error::new(format!("cannot load certificate \"{name}\": {error}"));
    let text = objects::read(name).map_err(failed)?;
    let found = Authorities::from(certificates(&text.bytes).map_err(failed)?);
    objects::keep(name, |all| &all.authorities, text.version, found.clone());
    Ok(found)
}

fn read_lists(name: &str) -> Result<Arc<[RevocationList]>> {
    let failed = |why: &str| Error::new(format!("cannot load CRL \"{name}\": {why}"));
    let bad = |why: &str| failed(&format!("PEM_read_bio_X509_CRL() failed (SSL: {why})"));
    let text = objects::read(name).map_err(|error| failed(&error.0))?;
    let sections = pem::parse(&text.bytes).map_err(|error| bad(&error.0))?;
    let lists = sections.iter().filter(|section| section.label == "X509 CRL").map(|section| {
        RevocationList::parse(&section.bytes).ok_or_else(|| bad("error:068000A8:asn1 encoding routines::wrong tag"))
    });
    let found = lists.collect::<Result<Arc<[RevocationList]>>>()?;
    if found.is_empty() {
        return Err(bad("error:0480006C:PEM routines::no start line:Expecting: X509 CRL"));
    }
    objects::keep(name, |all| &all.lists, text.version, found.clone());
    Ok(found)
}

/// The last fault that was found.
struct Verdict(std::result::Result<(), Reason>);

impl Verdict {
    fn fault(&mut self, reason: Reason) {
        self.0 = Err(reason);
    }
}

/// A chain as far as it was found, and what that means.
struct Built<'a> {
    chain: Vec<Parts<'a>>,
    judged: std::result::Result<(), Reason>,
}

/// From the own certificate to a trusted self-signed one.
fn build<'a>(leaf: Parts<'a>, others: &[Parts<'a>], roots: &[Parts<'a>], depth: usize) -> Built<'a> {
    let mut chain = vec![leaf];
    // How many of them nobody vouches for.
    let mut unknown = usize::from(!roots.iter().any(|root| root.is_same(&leaf)));
    loop {
        let last = chain[chain.len() - 1];
        let mut judged = None;
        if last.is_self_issued() {
            judged = Some(match (unknown == chain.len(), chain.len()) {
                (false, _) => Ok(()),
                (true, 1) => Err(Reason::SELF_SIGNED),
                (true, _) => Err(Reason::SELF_SIGNED_IN_CHAIN),
            });
        } else if let Some(root) = issuer_of(&last, roots, &chain) {
            chain.push(root);
        } else if let Some(other) = issuer_of(&last, others, &chain).filter(|_| unknown == chain.len()) {
            chain.push(other);
            unknown += 1;
        } else {
            judged = Some(Err(if unknown < chain.len() { Reason::NO_ISSUER_OF_TRUSTED } else { Reason::NO_ISSUER }));
        }
        // Who is trusted at the end doesn't count.
        let counted = chain.len() - usize::from(unknown < chain.len());
        if counted > depth + 1 || chain.len() > MAX_CHAIN {
            return Built { chain, judged: Err(Reason::TOO_LONG) };
        }
        if let Some(judged) = judged {
            return Built { chain, judged };
        }
    }
}

/// The certificate whose name is the issuer's, one whose key fits before others, none that is in the chain already.
fn issuer_of<'a>(of: &Parts<'a>, among: &[Parts<'a>], chain: &[Parts<'a>]) -> Option<Parts<'a>> {
    let new = |one: &&Parts<'a>| !chain.iter().any(|known| std::ptr::eq(known.subject, one.subject));
    let wanted = of.extensions().and_then(|all| issuer_key_id(&all));
    let known = |one: &&Parts<'a>| {
        let own = one.extensions();
        let own = own.as_ref().and_then(|all| key_id(all));
        wanted.zip(own).is_none_or(|(wanted, own)| wanted == own)
    };
    let named = || among.iter().filter(|one| one.subject == of.issuer).filter(new).filter(known).take(MAX_NAMESAKES);
    named().find(|one| of.is_signed_by(one)).or_else(|| named().next()).copied()
}

/// From the end of the chain to the own certificate: who has signed it, and whether it is valid now.
fn check_signatures(
    chain: &[Parts<'_>],
    all: &[Vec<Extension<'_>>],
    time: u64,
    verdict: &mut Verdict,
) -> std::result::Result<(), Reason> {
    let last = chain.len() - 1;
    let whole = chain[last].is_self_issued();
    if !whole && last == 0 {
        verdict.fault(Reason::NO_ISSUER_OF_FIRST);
    }
    // One at the end whose issuer isn't there is left alone.
    let first = if whole || last == 0 { last } else { last - 1 };
    for at in (0..=first).rev() {
        let certificate = &chain[at];
        if at < last {
            if extension(&all[at + 1], KEY_USAGE).is_some_and(|usage| !has_bit(usage, CERT_SIGN)) {
                verdict.fault(Reason::NO_CERT_SIGN);
            }
            if !certificate.is_signed_by(&chain[at + 1]) {
                verdict.fault(Reason::BAD_SIGNATURE);
            }
        }
        let (from, until) = certificate.validity().ok_or(Reason::MALFORMED)?;
        if time < from {
            verdict.fault(Reason::NOT_YET_VALID);
        }
        if time > until {
            verdict.fault(Reason::EXPIRED);
        }
    }
    Ok(())
}

/// Whether the constraints of each certificate hold for those below it.
fn check_names(chain: &[Parts<'_>], all: &[Vec<Extension<'_>>], verdict: &mut Verdict) {
    for (at, certificate) in chain.iter().enumerate().rev() {
        // An authority's new key under its old name is no name below it.
        if at > 0 && certificate.is_self_issued() {
            continue;
        }
        let bounds = || all[at + 1..].iter().filter_map(|all| extension(all, NAME_CONSTRAINTS));
        if bounds().next().is_none() {
            continue;
        }
        let common = if at == 0 { crate::text::common_names(certificate.subject) } else { Vec::new() };
        let alternatives = extension(&all[at], ALTERNATIVE_NAMES).map(|names| names.value);
        let Some(mut names) = constraints::names(certificate.subject, alternatives) else {
            verdict.fault(Reason::NAME_SYNTAX);
            continue;
        };
        constraints::add_hosts(&mut names, &common);
        bounds()
            .filter_map(|bound| constraints::check(&names, bound.value).err())
            .for_each(|fault| verdict.fault(fault));
    }
}

fn check_extensions(chain: &[Parts<'_>], all: &[Vec<Extension<'_>>], purpose: Purpose, verdict: &mut Verdict) {
    // How many authorities stand below: those of a new key under the old name don't count.
    let mut below = 0;
    for (at, (certificate, all)) in chain.iter().zip(all).enumerate() {
        if all.iter().any(|one| one.critical && !KNOWN.contains(&one.id)) {
            verdict.fault(Reason::CRITICAL);
        }
        let constraints = extension(all, BASIC_CONSTRAINTS).map(|one| basic_constraints(one.value));
        if let Some(None) = constraints {
            verdict.fault(Reason::MALFORMED);
        }
        let constraints = constraints.flatten();
        let fits = if at == 0 {
            extension(all, KEY_USAGE).is_none_or(|usage| purpose.usages().iter().any(|bit| has_bit(usage, *bit)))
        } else {
            is_authority(certificate, constraints, extension(all, KEY_USAGE))
        };
        if at > 0 && certificate.is_v3 && constraints.is_none_or(|(is_authority, _)| !is_authority) {
            verdict.fault(Reason::INVALID_CA);
        }
        if !fits || extension(all, EXTENDED_USAGE).is_some_and(|usages| !has_purpose(usages, purpose)) {
            verdict.fault(Reason::PURPOSE);
        }
        if at > 0 {
            if constraints.and_then(|(_, length)| length).is_some_and(|length| below > length) {
                verdict.fault(Reason::PATH_LENGTH);
            }
            below += usize::from(!certificate.is_self_issued());
        }
    }
}

impl Purpose {
    /// The bits of the key usage of which one is needed.
    fn usages(self) -> &'static [usize] {
        match self {
            Purpose::Client => &[DIGITAL_SIGNATURE, KEY_AGREEMENT],
            Purpose::Server => &[DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, KEY_AGREEMENT],
        }
    }
}

fn has_purpose(usages: &Extension<'_>, purpose: Purpose) -> bool {
    let wanted = if purpose == Purpose::Client { CLIENT_AUTH } else { SERVER_AUTH };
    purposes(usages).is_some_and(|list| list.contains(&wanted))
}

/// The purposes that an extension of that kind names.
pub(crate) fn purposes(usages: &Extension<'_>) -> Option<Vec<ObjectIdentifier>> {
    let mut found = Vec::new();
    let mut reader = inside(&mut SliceReader::new(usages.value).ok()?)?;
    while !reader.is_finished() {
        found.push(ObjectIdentifier::decode(&mut reader).ok()?);
    }
    Some(found)
}

/// Whether a certificate may sign others.
fn is_authority(
    certificate: &Parts<'_>,
    constraints: Option<(bool, Option<usize>)>,
    usage: Option<&Extension<'_>>,
) -> bool {
    let signs = usage.map(|usage| has_bit(usage, CERT_SIGN));
    match constraints {
        _ if signs == Some(false) => false,
        Some((is_authority, _)) => is_authority,
        // Certificates of version 1 know no constraints; only roots may be of that kind.
        None => signs == Some(true) || !certificate.is_v3 && certificate.is_self_issued(),
    }
}

fn extension<'a, 'b>(all: &'b [Extension<'a>], id: ObjectIdentifier) -> Option<&'b Extension<'a>> {
    all.iter().find(|one| one.id == id)
}

/// What a certificate calls its own key.
fn key_id<'a>(all: &[Extension<'a>]) -> Option<&'a [u8]> {
    AnyRef::from_der(extension(all, OWN_KEY)?.value).ok().map(|any| any.value())
}

/// What a certificate calls its issuer's key.
fn issuer_key_id<'a>(all: &[Extension<'a>]) -> Option<&'a [u8]> {
    x509::issuer_key_id(extension(all, ISSUER_KEY)?.value)
}

fn basic_constraints(value: &[u8]) -> Option<(bool, Option<usize>)> {
    let outer = AnyRef::from_der(value).ok()?;
    if outer.value().is_empty() {
        return Some((false, None));
    }
    let mut reader = SliceReader::new(outer.value()).ok()?;
    let is_authority = bool::decode(&mut reader).ok()?;
    let length = if reader.is_finished() { None } else { Some(u32::decode(&mut reader).ok()? as usize) };
    Some((is_authority, length))
}

/// Whether a bit of the key usage is set; bits are counted from the first byte's highest one.
fn has_bit(usage: &Extension<'_>, bit: usize) -> bool {
    let bits = AnyRef::from_der(usage.value).ok().map_or(&[][..], |any| any.value());
    // The first byte says how many bits of the last one are unused.
    bits.get(1 + bit / 8).is_some_and(|byte| byte & (0x80 >> (bit % 8)) != 0)
}

/// Whether a certificate is for a host: one of its DNS names is that name, with `*` for a whole first label; without any
/// such name its common names count.
pub(crate) fn is_for_host(certificate: &[u8], host: &str) -> bool {
    let Some(parts) = Parts::parse(certificate) else { return false };
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let names = parts.extensions().and_then(|all| dns_names(&all)).unwrap_or_default();
    let names = if names.is_empty() { crate::text::common_names(parts.subject) } else { names };
    names.iter().any(|name| name_matches(&name.to_ascii_lowercase(), host.as_bytes()))
}

fn dns_names(all: &[Extension<'_>]) -> Option<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    let extension = all.iter().find(|one| one.id == ALTERNATIVE_NAMES)?;
    let mut reader = inside(&mut SliceReader::new(extension.value).ok()?)?;
    while !reader.is_finished() {
        let bytes = reader.tlv_bytes().ok()?;
        // [2] is a DNS name.
        if bytes.first() == Some(&0x82) {
            names.push(AnyRef::from_der(bytes).ok()?.value().to_vec());
        }
    }
    Some(names)
}

fn name_matches(pattern: &[u8], host: &[u8]) -> bool {
    if host.is_empty() || pattern.contains(&0) {
        return false;
    }
    let Some(rest) = pattern.strip_prefix(b"*.") else { return pattern == host };
    let labels = rest.iter().filter(|byte| **byte == b'.').count();
    let Some(dot) = host.iter().position(|byte| *byte == b'.') else { return false };
    dot > 0 && labels > 0 && &host[dot + 1..] == rest
}

const DIGITAL_SIGNATURE: usize = 0;
const KEY_ENCIPHERMENT: usize = 2;
const KEY_AGREEMENT: usize = 4;
const CERT_SIGN: usize = 5;
const CRL_SIGN: usize = 6;

const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const ALTERNATIVE_NAMES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");
pub(crate) const EXTENDED_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const OWN_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");

/// Extensions that are understood, or mean nothing here.
const KNOWN: [ObjectIdentifier; 6] = [
    KEY_USAGE,
    BASIC_CONSTRAINTS,
    EXTENDED_USAGE,
    ALTERNATIVE_NAMES,
    NAME_CONSTRAINTS,
    // Certificate policies.
    ObjectIdentifier::new_unwrap("2.5.29.32"),
];

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

    use super::*;

    #[test]
    fn names_of_hosts() {
        let check = |pattern: &str, host: &str, expect: bool| {
            assert_eq!(name_matches(pattern.as_bytes(), host.as_bytes()), expect, "{pattern} {host}");
        };
        check("example.com", "example.com", true);
        check("example.com", "www.example.com", false);
        check("*.example.com", "www.example.com", true);
        check("*.example.com", "example.com", false);
        check("*.example.com", "a.b.example.com", false);
        check("*.example.com", ".example.com", false);
        check("*.com", "example.com", false);
        check("*", "example.com", false);
        check("w*.example.com", "www.example.com", false);
        check("", "", false);
    }

    struct Made {
        der: CertificateDer<'static>,
        params: CertificateParams,
        key: KeyPair,
    }

    fn params(name: &str, is_ca: IsCa) -> CertificateParams {
        let mut params = CertificateParams::new(vec![format!("{name}.test")]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = is_ca;
        params
    }

    fn root(name: &str) -> Made {
        let (key, params) = (KeyPair::generate().unwrap(), params(name, IsCa::Ca(BasicConstraints::Unconstrained)));
        Made { der: params.self_signed(&key).unwrap().der().clone(), params, key }
    }

    fn signed(params: CertificateParams, by: &Made) -> Made {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&by.params, &by.key);
        Made { der: params.signed_by(&key, &issuer).unwrap().der().clone(), params, key }
    }

    fn ca(name: &str, by: &Made) -> Made {
        signed(params(name, IsCa::Ca(BasicConstraints::Unconstrained)), by)
    }

    fn trust(roots: &[&Made], depth: usize) -> Trust {
        Trust { roots: vec![roots.iter().map(|made| made.der.clone()).collect()], ..Trust::new(depth) }
    }

    fn judge(trust: &Trust, chain: &[&Made]) -> u32 {
        let chain: Vec<_> = chain.iter().map(|made| made.der.clone()).collect();
        trust.verify(&chain, Purpose::Client).err().map_or(0, |reason| reason.0)
    }

    #[test]
    fn chains() {
        let (a, b) = (root("a"), root("b"));
        let one = ca("one", &a);
        let two = ca("two", &one);
        let leaf = |by: &Made| signed(params("leaf", IsCa::NoCa), by);
        let (direct, below_one, below_two) = (leaf(&a), leaf(&one), leaf(&two));
        let trust_a = trust(&[&a], 1);
        assert_eq!(judge(&trust_a, &[&direct]), 0);
        assert_eq!(judge(&trust_a, &[&direct, &b]), 0);
        assert_eq!(judge(&trust(&[&b], 1), &[&direct]), 21);
        assert_eq!(judge(&trust(&[&b], 1), &[&direct, &a]), 19);
        assert_eq!(judge(&trust(&[&b], 1), &[&below_one, &one]), 20);
        assert_eq!(judge(&trust_a, &[&below_one]), 21);
        assert_eq!(judge(&trust_a, &[&below_one, &one]), 0);
        assert_eq!(judge(&trust(&[&a], 0), &[&below_one, &one]), 22);
        assert_eq!(judge(&trust_a, &[&below_two, &one, &two]), 22);
        assert_eq!(judge(&trust(&[&a], 2), &[&below_two, &one, &two]), 0);
        assert_eq!((judge(&trust_a, &[&a]), judge(&trust_a, &[&b])), (0, 18));
        // An authority's own certificate may be a client's.
        assert_eq!(judge(&trust_a, &[&one]), 0);
        // What isn't an authority may not sign, nor one of the same name with another key.
        let under_leaf = signed(params("under", IsCa::NoCa), &direct);
        assert_eq!(judge(&trust(&[&a], 5), &[&under_leaf, &direct]), 26);
        assert_eq!(judge(&trust(&[&root("a")], 1), &[&direct]), 7);
        assert_eq!(trust_a.verify(&[], Purpose::Client), Err(Reason::MALFORMED));
    }

    #[test]
    fn limits_of_certificates() {
        let a = root("a");
        let trust_a = trust(&[&a], 5);
        let short = signed(params("short", IsCa::Ca(BasicConstraints::Constrained(0))), &a);
        let inner = ca("inner", &short);
        let leaf = signed(params("leaf", IsCa::NoCa), &inner);
        assert_eq!(judge(&trust_a, &[&leaf, &inner, &short]), 25);
        let mut no_sign = params("x", IsCa::Ca(BasicConstraints::Unconstrained));
        no_sign.key_usages = vec![KeyUsagePurpose::CrlSign];
        let no_sign = signed(no_sign, &a);
        assert_eq!(judge(&trust_a, &[&signed(params("leaf", IsCa::NoCa), &no_sign), &no_sign]), 32);
        let mut server = params("server", IsCa::NoCa);
        server.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let server = signed(server, &a);
        assert_eq!(judge(&trust_a, &[&server]), 26);
        assert_eq!(trust_a.verify(std::slice::from_ref(&server.der), Purpose::Server), Ok(()));
        assert!(is_for_host(&server.der, "SERVER.test") && !is_for_host(&server.der, "server"));
        let good = signed(params("leaf", IsCa::NoCa), &a);
        let at = |time| {
            trust_a.verify_at(std::slice::from_ref(&good.der), Purpose::Client, time).err().map(|reason| reason.0)
        };
        assert_eq!((at(0), at(1_800_000_000), at(99_999_999_999)), (Some(9), None, Some(10)));
    }

    /// Of several faults the one counts that nginx 1.22.1 was seen to log.
    #[test]
    fn several_faults() {
        let (a, b) = (root("a"), root("b"));
        let trust_a = trust(&[&a], 5);
        let with = |by: &Made, change: &dyn Fn(&mut CertificateParams)| {
            let mut own = params("leaf", IsCa::NoCa);
            change(&mut own);
            signed(own, by)
        };
        let old = |own: &mut CertificateParams| own.not_after = rcgen::date_time_ymd(2000, 1, 1);
        let server = |own: &mut CertificateParams| {
            own.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        };
        assert_eq!(judge(&trust_a, &[&with(&b, &old)]), 10);
        assert_eq!(judge(&trust_a, &[&with(&b, &old), &b]), 10);
        assert_eq!(judge(&trust_a, &[&with(&b, &server)]), 21);
        assert_eq!(judge(&trust_a, &[&with(&b, &server), &b]), 26);
        let server_old = |own: &mut CertificateParams| {
            old(own);
            server(own);
        };
        assert_eq!(judge(&trust_a, &[&with(&a, &server_old)]), 10);
        let mut bound = params("bound", IsCa::Ca(BasicConstraints::Unconstrained));
        let permitted_subtrees = vec![rcgen::GeneralSubtree::DnsName("example.com".to_owned())];
        bound.name_constraints = Some(rcgen::NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
        let bound = signed(bound, &a);
        assert_eq!(judge(&trust_a, &[&with(&bound, &server_old), &bound]), 47);
        // Too many names, and too many bounds for them.
        let mut wide = params("wide", IsCa::Ca(BasicConstraints::Unconstrained));
        let permitted_subtrees =
            (0..2000).map(|n| rcgen::GeneralSubtree::DnsName(format!("{n}.example.com"))).collect();
        wide.name_constraints = Some(rcgen::NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
        let wide = signed(wide, &a);
        let named = |own: &mut CertificateParams| {
            let name = |n| rcgen::SanType::DnsName(format!("{n}.test").try_into().unwrap());
            own.subject_alt_names = (0..1000).map(name).collect();
        };
        assert_eq!(judge(&trust_a, &[&with(&wide, &named), &wide]), 1);
    }

    #[test]
    fn broken_certificates_are_refused() {
        let a = root("a");
        let leaf = signed(params("leaf", IsCa::NoCa), &a);
        let trust_a = trust(&[&a], 5);
        let good = leaf.der.to_vec();
        for at in 0..good.len() {
            let mut broken = good.clone();
            broken[at] ^= 1;
            let judged = trust_a.verify(&[CertificateDer::from(broken)], Purpose::Client);
            assert!(judged.is_err(), "byte {at}");
            assert!(trust_a.verify(&[CertificateDer::from(&good[..at])], Purpose::Client).is_err(), "{at} bytes");
        }
    }
}
