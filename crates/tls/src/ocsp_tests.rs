//! What responses say, made here with keys of the library's.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SigningKey as _,
};

use super::*;

const NOW: u64 = 1_800_000_000;

struct Made {
    der: Vec<u8>,
    params: CertificateParams,
    key: KeyPair,
}

impl Made {
    fn parts(&self) -> Parts<'_> {
        Parts::parse(&self.der).unwrap()
    }
}

fn params(name: &str, ca: bool) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = if ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::NoCa };
    params
}

fn root(name: &str) -> Made {
    let (key, params) = (KeyPair::generate().unwrap(), params(name, true));
    Made { der: params.self_signed(&key).unwrap().der().to_vec(), params, key }
}

fn signed(params: CertificateParams, by: &Made) -> Made {
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::from_params(&by.params, &by.key);
    Made { der: params.signed_by(&key, &issuer).unwrap().der().to_vec(), params, key }
}

fn delegate(by: &Made) -> Made {
    let mut params = params("responder", false);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
    signed(params, by)
}

fn time(seconds: u64) -> Vec<u8> {
    use x509_cert::der::Encode as _;
    GeneralizedTime::from_unix_duration(std::time::Duration::from_secs(seconds)).unwrap().to_der().unwrap()
}

/// What a responder could say.
struct Says<'a> {
    id: &'a Query,
    status: u8,
    this: u64,
    next: Option<u64>,
    /// Whether it names itself by its key.
    by_key: bool,
    certificates: Vec<&'a [u8]>,
    extension: Option<bool>,
}

impl<'a> Says<'a> {
    fn good(id: &'a Query) -> Says<'a> {
        Says {
            id,
            status: 0,
            this: NOW - 10,
            next: Some(NOW + 10),
            by_key: false,
            certificates: vec![],
            extension: None,
        }
    }

    fn sign(&self, by: &Made) -> Vec<u8> {
        let parts = by.parts();
        let request = self.id.request();
        // The four outer sequences of a request lead to the name of the certificate.
        let mut id = &request[..];
        for _ in 0..4 {
            id = AnyRef::from_der(id).unwrap().value();
        }
        let status = match self.status {
            1 => tlv(0xa1, &[&time(NOW - 100)]),
            other => vec![0x80 | other, 0],
        };
        let next = self.next.map(|next| tlv(0xa0, &[&time(next)])).unwrap_or_default();
        let critical = if self.extension == Some(true) { vec![1, 1, 0xff] } else { vec![] };
        let extension = sequence(&[&tlv(6, &[&[0x2a, 3, 4]]), &critical, &tlv(4, &[b"x"])]);
        let extensions = self.extension.map(|_| tlv(0xa1, &[&sequence(&[&extension])])).unwrap_or_default();
        let single = sequence(&[id, &status, &time(self.this), &next, &extensions]);
        let name = match self.by_key {
            true => tlv(0xa2, &[&tlv(4, &[&sha1(key_parts(parts.public_key).unwrap().1)])]),
            false => tlv(0xa1, &[parts.subject]),
        };
        let data = sequence(&[&name, &time(self.this), &sequence(&[&single])]);
        let signature = tlv(3, &[&[0], &by.key.sign(&data).unwrap()]);
        let list = tlv(0x30, &self.certificates);
        let certificates = if self.certificates.is_empty() { vec![] } else { tlv(0xa0, &[&list]) };
        // ecdsa-with-SHA256, as the library makes keys.
        let algorithm = sequence(&[&tlv(6, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]])]);
        let basic = sequence(&[&data, &algorithm, &signature, &certificates]);
        let bytes = sequence(&[&tlv(6, &[BASIC.as_bytes()]), &tlv(4, &[&basic])]);
        sequence(&[&[10, 1, 0], &tlv(0xa0, &[&bytes])])
    }
}

fn answer(status: Status) -> Result<Answer, Fault> {
    Ok(Answer { status, until: Some(NOW + 10) })
}

#[test]
fn statuses_and_times() {
    let ca = root("ca");
    let leaf = signed(params("leaf", false), &ca);
    let query = Query::new(&leaf.parts(), &ca.parts()).unwrap();
    let judge = |says: Says<'_>| query.judge(&says.sign(&ca), Signers::Authorized, NOW);
    let good = || Says::good(&query);
    assert_eq!(judge(good()), answer(Status::Good));
    assert_eq!(judge(Says { by_key: true, ..good() }), answer(Status::Good));
    assert_eq!(judge(Says { status: 1, ..good() }), answer(Status::Revoked));
    assert_eq!(judge(Says { status: 2, ..good() }), answer(Status::Unknown));
    assert_eq!(judge(Says { status: 3, ..good() }), Err(Fault::Malformed));
    assert_eq!(judge(Says { next: None, ..good() }), Ok(Answer { status: Status::Good, until: None }));
    for (this, next, expect) in [
        (NOW + LEEWAY, NOW + 1000, None),
        (NOW + LEEWAY + 1, NOW + 1000, Some(Fault::Early)),
        (NOW - 1000, NOW - LEEWAY, None),
        (NOW - 1000, NOW - LEEWAY - 1, Some(Fault::Expired)),
        (NOW - 10, NOW - 20, Some(Fault::Expired)),
    ] {
        assert_eq!(judge(Says { this, next: Some(next), ..good() }).err(), expect, "{this} {next}");
    }
    assert_eq!(judge(Says { extension: Some(false), ..good() }), answer(Status::Good));
    assert_eq!(judge(Says { extension: Some(true), ..good() }), Err(Fault::Malformed));
}

#[test]
fn who_may_sign() {
    let (ca, other) = (root("ca"), root("other"));
    let leaf = signed(params("leaf", false), &ca);
    let query = Query::new(&leaf.parts(), &ca.parts()).unwrap();
    let check = |by: &Made, certificates: Vec<&[u8]>, expect: Option<Fault>, any: Option<Fault>| {
        let says = Says { certificates, ..Says::good(&query) }.sign(by);
        assert_eq!(query.judge(&says, Signers::Authorized, NOW).err(), expect);
        assert_eq!(query.judge(&says, Signers::Any(&[]), NOW).err(), any);
    };
    let (responder, stranger) = (delegate(&ca), delegate(&other));
    check(&responder, vec![&leaf.der, &responder.der], None, None);
    check(&responder, vec![], Some(Fault::NoSigner), Some(Fault::NoSigner));
    // Made by the issuer, but not for this; made for it by somebody else; by nobody.
    check(&leaf, vec![&leaf.der], Some(Fault::NoSigner), None);
    check(&stranger, vec![&stranger.der], Some(Fault::NoSigner), None);
    check(&other, vec![&other.der], Some(Fault::NoSigner), None);
    // One who only bears the issuer's name.
    check(&root("ca"), vec![], Some(Fault::BadSignature), Some(Fault::BadSignature));
    let namesake = signed(params("responder", false), &ca);
    check(&namesake, vec![&responder.der], Some(Fault::BadSignature), Some(Fault::BadSignature));
    let mut old = params("old", false);
    old.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
    old.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let old = signed(old, &ca);
    check(&old, vec![&old.der], Some(Fault::NoSigner), None);
    // Known to who asks, though not in the response.
    let says = Says::good(&query).sign(&other);
    assert!(query.judge(&says, Signers::Any(&[&other.der]), NOW).is_ok());
}

#[test]
fn other_certificates_are_others() {
    let (ca, namesake) = (root("ca"), root("ca"));
    let (one, two) = (signed(params("one", false), &ca), signed(params("two", false), &ca));
    let of = |leaf: &Made, ca: &Made| Query::new(&leaf.parts(), &ca.parts()).unwrap();
    let (first, second, third) = (of(&one, &ca), of(&two, &ca), of(&one, &namesake));
    assert_eq!(first.judge(&Says::good(&second).sign(&ca), Signers::Authorized, NOW), Err(Fault::NotFound));
    assert_eq!(first.judge(&Says::good(&third).sign(&ca), Signers::Authorized, NOW), Err(Fault::NotFound));
    assert!(first.key() != second.key() && first.key() != third.key() && first.key() == of(&one, &ca).key());
}

#[test]
fn refusals_and_garbage() {
    let ca = root("ca");
    let leaf = signed(params("leaf", false), &ca);
    let query = Query::new(&leaf.parts(), &ca.parts()).unwrap();
    let judge = |bytes: &[u8]| query.judge(bytes, Signers::Authorized, NOW);
    for (bytes, expect, text) in [
        (&b""[..], Fault::Malformed, "d2i_OCSP_RESPONSE() failed"),
        (b"hello", Fault::Malformed, "d2i_OCSP_RESPONSE() failed"),
        (&[0x30, 3, 10, 1, 6], Fault::Refused(6), "OCSP response not successful (6: unauthorized)"),
        (&[0x30, 3, 10, 1, 4], Fault::Refused(4), "OCSP response not successful (4: (UNKNOWN))"),
        (&[0x30, 3, 10, 1, 0], Fault::NotBasic, "OCSP_response_get1_basic() failed"),
    ] {
        assert_eq!(judge(bytes), Err(expect));
        assert_eq!(expect.to_string(), text);
    }
    let good = Says::good(&query).sign(&ca);
    assert_eq!(judge(&[&good[..], b"x"].concat()), Err(Fault::Malformed));
    for at in 0..good.len() {
        let mut broken = good.clone();
        broken[at] ^= 1;
        assert!(judge(&broken).is_err() && judge(&good[..at]).is_err(), "byte {at}");
    }
}

#[test]
fn responders_of_certificates() {
    let ca = root("ca");
    let access = |parts: &[(&[u8], u8, &str)]| {
        let each = parts.iter().map(|(id, tag, url)| sequence(&[&tlv(6, &[id]), &tlv(*tag, &[url.as_bytes()])]));
        let each: Vec<Vec<u8>> = each.collect();
        tlv(0x30, &each.iter().map(|one| &one[..]).collect::<Vec<_>>())
    };
    let (ocsp, issuers) = (ACCESS_OCSP.as_bytes(), &[0x2b, 6, 1, 5, 5, 7, 48, 2][..]);
    for (value, expect) in [
        (access(&[(ocsp, 0x86, "http://a/")]), Some("http://a/")),
        (access(&[(issuers, 0x86, "http://a/"), (ocsp, 0x86, "http://b/")]), Some("http://b/")),
        (access(&[(issuers, 0x86, "http://a/")]), None),
        (access(&[(ocsp, 0x82, "a")]), None),
        (access(&[(ocsp, 0x86, "http://a/\r\nX: y")]), None),
        (b"garbage".to_vec(), None),
    ] {
        let mut params = params("leaf", false);
        let id = [1, 3, 6, 1, 5, 5, 7, 1, 1];
        params.custom_extensions = vec![CustomExtension::from_oid_content(&id, value)];
        let leaf = signed(params, &ca);
        assert_eq!(Query::new(&leaf.parts(), &ca.parts()).unwrap().responder(), expect);
    }
}
