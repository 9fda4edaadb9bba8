//! What the library says while it takes a step of a handshake, and keeps no place for: schemes of signatures, keys for a
//! log. It calls back on the thread that drives it, so it is noted there, and belongs to the step that is over then.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{KeyLog, SignatureAlgorithm, SignatureScheme};

/// What was said in a step.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The scheme by which an own key has signed.
    pub(crate) own: Option<u16>,
    /// The scheme by which the peer has signed.
    pub(crate) peer: Option<u16>,
    /// Lines for a log of keys.
    pub(crate) keys: String,
}

thread_local! {
    static NOTES: RefCell<Notes> = RefCell::default();
}

/// Takes a step: what comes of it, and what was said.
pub(crate) fn during<T>(step: impl FnOnce() -> T) -> (T, Notes) {
    NOTES.take();
    let result = step();
    (result, NOTES.take())
}

/// The peer has signed.
pub(crate) fn peer_signed(scheme: SignatureScheme) {
    NOTES.with_borrow_mut(|notes| notes.peer = Some(scheme.into()));
}

/// A key that notes when it signs, and how.
#[derive(Debug)]
pub(crate) struct NotedKey(pub(crate) Arc<dyn SigningKey>);

#[derive(Debug)]
struct NotedSigner(Box<dyn Signer>);

impl SigningKey for NotedKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer = self.0.choose_scheme(offered)?;
        Some(Box::new(NotedSigner(signer)))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl Signer for NotedSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        NOTES.with_borrow_mut(|notes| notes.own = Some(self.0.scheme().into()));
        self.0.sign(message)
    }

    fn scheme(&self) -> SignatureScheme {
        self.0.scheme()
    }
}

/// Notes keys in the form that is known as SSLKEYLOGFILE.
#[derive(Debug)]
pub(crate) struct NotesKeys;

impl KeyLog for NotesKeys {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        NOTES.with_borrow_mut(|notes| {
            notes.keys.push_str(label);
            for bytes in [client_random, secret] {
                notes.keys.push(' ');
                notes.keys.push_str(&buf::hex::text(bytes));
            }
            notes.keys.push('\n');
        });
    }
}
