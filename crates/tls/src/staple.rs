//! OCSP responses for a server's certificate, fetched while the server runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::sign::CertifiedKey;

use crate::session::now;

/// The place for the response to a certificate: whoever fetches responses puts them here, and learns here that one is
/// wanted. The library wants it to be one for several threads.
#[derive(Debug, Default)]
pub(crate) struct Staple {
    wanted: AtomicBool,
    stapled: Mutex<Option<Stapled>>,
}

#[derive(Debug)]
struct Stapled {
    key: Arc<CertifiedKey>,
    /// In seconds since 1970.
    until: u64,
}

impl Staple {
    /// Whether a handshake has used the certificate since the last call.
    pub(crate) fn take_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }

    /// The certificate with its response, if there is a valid one.
    pub(crate) fn of(&self, plain: &Arc<CertifiedKey>) -> Arc<CertifiedKey> {
        self.wanted.store(true, Ordering::Relaxed);
        let stapled = self.stapled.lock().unwrap_or_else(PoisonError::into_inner);
        stapled.as_ref().filter(|stapled| stapled.until >= now()).map_or(plain, |stapled| &stapled.key).clone()
    }

    pub(crate) fn put(&self, plain: &CertifiedKey, response: Vec<u8>, until: u64) {
        let key = Arc::new(CertifiedKey { ocsp: Some(response), ..plain.clone() });
        *self.stapled.lock().unwrap_or_else(PoisonError::into_inner) = Some(Stapled { key, until });
    }
}
