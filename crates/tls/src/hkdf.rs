//! HKDF for TLS 1.3 (RFC 5869) that hashes each key once.
//!
//! The provider's hashes a key again for every secret that is derived from it, and a key that was extracted all over from
//! what it was extracted from: that was a third of a handshake. HMAC's key takes two blocks of the hash (RFC 2104 §4),
//! a secret that is derived two more; here the first two are kept.

use aws_lc_rs::hmac;
use rustls::crypto::hmac::{Hmac, Key, Tag};
use rustls::crypto::tls13::HkdfUsingHmac;

/// With SHA-256.
pub(crate) static SHA256: HkdfUsingHmac<'static> = HkdfUsingHmac(&Hash(hmac::HMAC_SHA256));
/// With SHA-384.
pub(crate) static SHA384: HkdfUsingHmac<'static> = HkdfUsingHmac(&Hash(hmac::HMAC_SHA384));

struct Hash(hmac::Algorithm);

impl Hmac for Hash {
    fn with_key(&self, key: &[u8]) -> Box<dyn Key> {
        Box::new(Keyed(hmac::Key::new(self.0, key)))
    }

    fn hash_output_len(&self) -> usize {
        self.0.digest_algorithm().output_len()
    }
}

struct Keyed(hmac::Key);

impl Key for Keyed {
    fn sign_concat(&self, first: &[u8], middle: &[&[u8]], last: &[u8]) -> Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(first);
        middle.iter().for_each(|part| context.update(part));
        context.update(last);
        Tag::new(context.sign().as_ref())
    }

    fn tag_len(&self) -> usize {
        self.0.algorithm().digest_algorithm().output_len()
    }
}

#[cfg(test)]
mod tests {
    use rustls::SupportedCipherSuite;
    use rustls::crypto::aws_lc_rs::cipher_suite as suites;
    use rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock};

    use super::*;

    fn theirs(suite: SupportedCipherSuite) -> &'static dyn Hkdf {
        suite.tls13().expect("it is one of TLS 1.3").hkdf_provider
    }

    fn same(a: &dyn HkdfExpander, b: &dyn HkdfExpander) {
        assert_eq!(a.hash_len(), b.hash_len());
        let info: [&[u8]; 3] = [b"tls13 ", b"", &[7; 200]];
        assert_eq!(a.expand_block(&info).as_ref(), b.expand_block(&info).as_ref());
        for length in [0, 1, 12, 48, 49, 200] {
            let (mut one, mut other) = (vec![0; length], vec![1; length]);
            a.expand_slice(&info, &mut one).expect("that isn't too long");
            b.expand_slice(&info, &mut other).expect("that isn't too long");
            assert_eq!(one, other, "{length}");
        }
        assert!(a.expand_slice(&info, &mut vec![0; 255 * a.hash_len() + 1]).is_err());
    }

    #[test]
    fn secrets_are_those_of_the_provider() {
        for (own, suite) in [(&SHA256, suites::TLS13_AES_128_GCM_SHA256), (&SHA384, suites::TLS13_AES_256_GCM_SHA384)] {
            let theirs = theirs(suite);
            for salt in [None, Some(&b"salt"[..]), Some(&[9; 300][..])] {
                same(&*own.extract_from_zero_ikm(salt), &*theirs.extract_from_zero_ikm(salt));
                for secret in [&b"x"[..], &[3; 48], &[4; 500]] {
                    same(&*own.extract_from_secret(salt, secret), &*theirs.extract_from_secret(salt, secret));
                }
            }
            let block = OkmBlock::new(&[5; 32]);
            same(&*own.expander_for_okm(&block), &*theirs.expander_for_okm(&block));
            assert_eq!(own.hmac_sign(&block, b"message").as_ref(), theirs.hmac_sign(&block, b"message").as_ref());
        }
    }
}
