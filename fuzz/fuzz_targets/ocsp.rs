//! OCSP responses: whatever the bytes, an answer or a fault; what the issuer has signed is also what anybody may have.
#![cfg_attr(fuzzing, no_main)]

use std::sync::LazyLock;

use tls::ocsp::{Fault, Query, Signers, is_response};
use tls::x509::Parts;

/// An authority, and a certificate that it has made.
const ISSUER: &[u8] = include_bytes!("../fixtures/issuer.der");
const LEAF: &[u8] = include_bytes!("../fixtures/leaf.der");
/// When the seeds' responses are valid.
const NOW: u64 = 1_795_700_000;

static QUERY: LazyLock<Query> = LazyLock::new(|| {
    let (leaf, issuer) = (Parts::parse(LEAF).expect("a certificate"), Parts::parse(ISSUER).expect("a certificate"));
    Query::new(&leaf, &issuer).expect("the key is a key")
});

tidegate_fuzz::target!(|data: &[u8]| {
    let strict = QUERY.judge(data, Signers::Authorized, NOW);
    let loose = QUERY.judge(data, Signers::Any(&[ISSUER]), NOW);
    if strict.is_ok() {
        assert_eq!(strict, loose);
    }
    if strict != Err(Fault::Malformed) {
        assert!(is_response(data));
    }
});
