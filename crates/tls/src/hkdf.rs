//! HKDF for TLS 1.3 (RFC 5869) that hashes each key once.
//!
//! The provider's hashes a key again for every secret that is derived from it, and a key that was extracted all over from
//! what it was extracted from: that was a third of a handshake. HMAC's key takes two blocks of the hash (RFC 2104 §4),
//! a secret that is derived two more; here the first two are kept. What a handshake without a shared key begins with is
//! the same in all of them.

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use rustls::crypto::hmac::Tag;
use rustls::crypto::tls13::{HkdfExpander, OkmBlock, OutputLengthError};

/// With SHA-256.
pub(crate) static SHA256: Hkdf =
    Hkdf { hash: hmac::HMAC_SHA256, early: LazyLock::new(|| extract(hmac::HMAC_SHA256, None, None)) };
/// With SHA-384.
pub(crate) static SHA384: Hkdf =
    Hkdf { hash: hmac::HMAC_SHA384, early: LazyLock::new(|| extract(hmac::HMAC_SHA384, None, None)) };

/// HKDF with one hash.
pub(crate) struct Hkdf {
    hash: hmac::Algorithm,
    /// What is extracted of nothing with no salt.
    early: LazyLock<hmac::Key>,
}

/// A key from which secrets are derived (HKDF-Expand).
struct Expander(hmac::Key);

/// HKDF-Extract; what isn't given is as many zeros as a hash has bytes.
fn extract(hash: hmac::Algorithm, salt: Option<&[u8]>, secret: Option<&[u8]>) -> hmac::Key {
    let zeros = [0; OkmBlock::MAX_LEN];
    let zeros = &zeros[..hash.digest_algorithm().output_len()];
    let key = hmac::Key::new(hash, salt.unwrap_or(zeros));
    hmac::Key::new(hash, hmac::sign(&key, secret.unwrap_or(zeros)).as_ref())
}

impl rustls::crypto::tls13::Hkdf for Hkdf {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        Box::new(Expander(match salt {
            None => self.early.clone(),
            salt => extract(self.hash, salt, None),
        }))
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        Box::new(Expander(extract(self.hash, salt, Some(secret))))
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        Box::new(Expander(hmac::Key::new(self.hash, okm.as_ref())))
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> Tag {
        Tag::new(hmac::sign(&hmac::Key::new(self.hash, key.as_ref()), message).as_ref())
    }
}

impl Expander {
    /// The block of this number, from 1, after the one before it.
    fn block(&self, before: &[u8], info: &[&[u8]], number: u8) -> Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(before);
        info.iter().for_each(|text| context.update(text));
        context.update(&[number]);
        Tag::new(context.sign().as_ref())
    }
}

impl HkdfExpander for Expander {
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        if output.len() > 255 * self.hash_len() {
            return Err(OutputLengthError);
        }
        let mut block = Tag::new(b"");
        for (n, part) in output.chunks_mut(self.hash_len()).enumerate() {
            block = self.block(block.as_ref(), info, (n + 1) as u8);
            part.copy_from_slice(&block.as_ref()[..part.len()]);
        }
        Ok(())
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        OkmBlock::new(self.block(b"", info, 1).as_ref())
    }

    fn hash_len(&self) -> usize {
        self.0.algorithm().digest_algorithm().output_len()
    }
}

#[cfg(test)]
mod tests {
    use rustls::SupportedCipherSuite;
    use rustls::crypto::aws_lc_rs::cipher_suite as suites;
    use rustls::crypto::tls13::Hkdf as _;

    use super::*;

    fn theirs(suite: SupportedCipherSuite) -> &'static dyn rustls::crypto::tls13::Hkdf {
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
