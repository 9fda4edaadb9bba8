//! Certificates: a chain of any bytes is judged, its parts are written as variables have them, and what can be read at all
//! comes back out of its own PEM.
#![cfg_attr(fuzzing, no_main)]

use std::sync::LazyLock;

use rustls_pki_types::CertificateDer;
use tls::x509::{Parts, RevocationList};
use tls::{Purpose, Trust, text};

/// An authority, and a certificate that it has made.
const ISSUER: &[u8] = include_bytes!("../fixtures/issuer.der");
const LEAF: &[u8] = include_bytes!("../fixtures/leaf.der");

static TRUST: LazyLock<Trust> = LazyLock::new(|| {
    let mut trust = Trust::new(3);
    trust.add_file(&format!("data:{}", text::pem(ISSUER))).expect("a certificate");
    trust
});

/// Certificates with two bytes of length before each; what is left is the last one.
fn chain(mut data: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let [high, low, rest @ ..] = data {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (one, after) = rest.split_at(length);
        found.push(one);
        data = after;
    }
    found
}

tidegate_fuzz::target!(|data: &[u8]| {
    let chain = chain(data);
    for der in &chain {
        let _ = RevocationList::parse(der);
        let Some(parts) = Parts::parse(der) else { continue };
        assert!(parts.is_same(&parts));
        let _ = (parts.validity(), parts.extensions().is_some(), text::serial(&parts), text::fingerprint(der));
        for name in [parts.subject, parts.issuer] {
            let _ = (text::name(name), text::legacy_name(name), text::common_names(name));
        }
        let again = tls::certificates(text::pem(der).as_bytes()).expect("what was read is read again");
        assert_eq!(again, [CertificateDer::from(der.to_vec())]);
    }
    let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
    for purpose in [Purpose::Client, Purpose::Server] {
        // Only the two that are known can be good: nothing else has the authority's signature.
        if TRUST.verify(&chain, purpose).is_ok() {
            assert!([LEAF, ISSUER].contains(&&chain[0][..]));
        }
    }
    let _ = TRUST.queries(&chain, true);
});
