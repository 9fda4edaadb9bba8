//! Certificates that are renewed while the server runs (`ssl_certificate_refresh`).
//!
//! A file is known by what `stat()` says of it: renewed certificates come as other files, by a rename or a link. What is
//! seen to have changed is looked at once more before it is read: a certificate and its key don't change at one moment.

use std::cell::{Cell, RefCell};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use engine::log::{Level, Log};
use tls::Identity;

use super::staple;
use crate::core::ssl_values::load;

/// The certificates of a server, and when they are looked at.
pub struct Watch {
    interval_ms: u64,
    next_ms: Cell<u64>,
    pairs: RefCell<Vec<Pair>>,
    stapling_file: PathBuf,
    passwords: Rc<[Vec<u8>]>,
}

/// A certificate with its key.
pub struct Pair {
    certificate: String,
    key: String,
    identity: Identity,
    /// Its files when they were read last, for better or worse.
    read: Seen,
    /// Its files when they were seen to have changed.
    changed: Option<Seen>,
}

/// What is known of the files of a pair: nothing of those that aren't there or are none.
type Seen = [Option<Version>; 3];

/// Device, inode, size, and when it was changed.
type Version = (u64, u64, u64, (i64, i64));

impl Pair {
    /// Reads it.
    pub fn load(certificate: &str, key: &str, stapling_file: &Path, passwords: &[Vec<u8>]) -> conf::Result<Pair> {
        // First: what changes after that is seen.
        let read = seen(certificate, key, stapling_file);
        let identity = staple(stapling_file, load(certificate, key, passwords)?)?;
        Ok(Pair { certificate: certificate.to_owned(), key: key.to_owned(), identity, read, changed: None })
    }

    /// The certificate.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether it has changed, and is as it was at the last look.
    fn is_due(&mut self, stapling_file: &Path) -> bool {
        let now = seen(&self.certificate, &self.key, stapling_file);
        let due = now != self.read && self.changed == Some(now);
        self.changed = (now != self.read && !due).then_some(now);
        if due {
            self.read = now;
        }
        due
    }
}

impl Watch {
    /// For the certificates of a server.
    pub fn new(interval_ms: u64, pairs: Vec<Pair>, stapling_file: &Path, passwords: &Rc<[Vec<u8>]>) -> Watch {
        Watch {
            interval_ms,
            next_ms: Cell::new(now_ms() + interval_ms),
            pairs: RefCell::new(pairs),
            stapling_file: stapling_file.to_owned(),
            passwords: passwords.clone(),
        }
    }

    /// In how many milliseconds it is to look.
    pub fn looks_in_ms(&self) -> u64 {
        self.next_ms.get().saturating_sub(now_ms())
    }

    /// All certificates, if one of them is another one now. Without effect before it is time.
    pub fn look(&self, log: &Log) -> Option<Vec<Identity>> {
        if self.looks_in_ms() > 0 {
            return None;
        }
        let mut pairs = self.pairs.borrow_mut();
        let due = pairs.iter_mut().filter_map(|pair| pair.is_due(&self.stapling_file).then_some(pair));
        // Each of them, whatever came of the others.
        let renewed = due.filter_map(|pair| self.renew(pair, log).then_some(())).count();
        let soon = pairs.iter().any(|pair| pair.changed.is_some());
        self.next_ms.set(now_ms() + if soon { self.interval_ms.min(SOON_MS) } else { self.interval_ms });
        (renewed > 0).then(|| pairs.iter().map(|pair| pair.identity.clone()).collect())
    }

    /// Reads a pair again; whether it is another one.
    fn renew(&self, pair: &mut Pair, log: &Log) -> bool {
        let read = load(&pair.certificate, &pair.key, &self.passwords)
            .and_then(|identity| staple(&self.stapling_file, identity));
        match read {
            Ok(identity) if identity.looks_like(&pair.identity) => false,
            Ok(identity) => {
                log.write(Level::Notice, None, format_args!("certificate \"{}\" has changed", pair.certificate));
                pair.identity = identity;
                true
            }
            Err(error) => {
                let message = format_args!("{}, the certificate before it stays", error.message);
                log.write(Level::Error, None, message);
                false
            }
        }
    }
}

fn seen(certificate: &str, key: &str, stapling_file: &Path) -> Seen {
    [Path::new(certificate), Path::new(key), stapling_file].map(version)
}

fn version(path: &Path) -> Option<Version> {
    let known = std::fs::metadata(path).ok()?;
    Some((known.dev(), known.ino(), known.len(), (known.mtime(), known.mtime_nsec())))
}

/// Milliseconds since some time.
fn now_ms() -> u64 {
    thread_local! {
        static START: std::time::Instant = std::time::Instant::now();
    }
    START.with(|start| start.elapsed().as_millis() as u64)
}

/// When what has changed is looked at once more.
const SOON_MS: u64 = 1000;
