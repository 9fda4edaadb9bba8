//! Certificates that are renewed while the server runs (`ssl_certificate_refresh`).
//!
//! A file is known by what `stat()` says of it: renewed certificates come as other files, by a rename or a link. What is
//! seen to have changed is looked at once more before it is read: a certificate and its key don't change at one moment.

use std::cell::{Cell, RefCell};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;

use engine::log::{Level, Log};
use tls::{Identity, Objects};

use super::staple::Stapling;
use super::values::load;
use crate::ocsp::Stapler;

/// The certificates of a server, and when they are looked at.
pub(super) struct Watch {
    interval_ms: u64,
    next_ms: Cell<u64>,
    pairs: RefCell<Vec<Pair>>,
    stapling: Stapling,
    passwords: Rc<[Vec<u8>]>,
    objects: Rc<Objects>,
}

/// A certificate with its key.
pub(super) struct Pair {
    certificate: String,
    key: String,
    identity: Identity,
    /// What fetches responses for it.
    stapler: Option<Rc<Stapler>>,
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
    /// Reads it; `warn` is told why nothing can be stapled.
    pub(super) fn load(
        certificate: &str,
        key: &str,
        stapling: &Stapling,
        passwords: &[Vec<u8>],
        warn: &mut dyn FnMut(String),
    ) -> conf::Result<Pair> {
        // First: what changes after that is seen.
        let read = seen(certificate, key, stapling);
        let (identity, stapler) = stapling.staple(load(certificate, key, passwords)?, certificate, warn)?;
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Ok(Pair { certificate, key, identity, stapler, read, changed: None })
    }

    /// What fetches responses for it.
    pub(super) fn stapler(&self) -> Option<Rc<Stapler>> {
        self.stapler.clone()
    }

    /// The certificate.
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether it has changed, and is as it was at the last look.
    fn is_due(&mut self, stapling: &Stapling) -> bool {
        let now = seen(&self.certificate, &self.key, stapling);
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
    pub(super) fn new(
        interval_ms: u64,
        pairs: Vec<Pair>,
        stapling: Stapling,
        passwords: Rc<[Vec<u8>]>,
        objects: Rc<Objects>,
    ) -> Watch {
        let next_ms = Cell::new(now_ms() + interval_ms);
        Watch { interval_ms, next_ms, pairs: RefCell::new(pairs), stapling, passwords, objects }
    }

    /// In how many milliseconds it is to look.
    pub(super) fn looks_in_ms(&self) -> u64 {
        self.next_ms.get().saturating_sub(now_ms())
    }

    /// All certificates, with what fetches responses for them, if one of them is another one now. Without effect before it
    /// is time.
    pub(super) fn look(&self, log: &Log) -> Option<(Vec<Identity>, Vec<Rc<Stapler>>)> {
        if self.looks_in_ms() > 0 {
            return None;
        }
        let mut pairs = self.pairs.borrow_mut();
        let due = pairs.iter_mut().filter_map(|pair| pair.is_due(&self.stapling).then_some(pair));
        // Each of them, whatever came of the others.
        let renewed = due.filter_map(|pair| self.renew(pair, log).then_some(())).count();
        let soon = pairs.iter().any(|pair| pair.changed.is_some());
        self.next_ms.set(now_ms() + if soon { self.interval_ms.min(SOON_MS) } else { self.interval_ms });
        let all = || {
            (pairs.iter().map(|pair| pair.identity.clone()).collect(), pairs.iter().filter_map(Pair::stapler).collect())
        };
        (renewed > 0).then(all)
    }

    /// Reads a pair again; whether it is another one.
    fn renew(&self, pair: &mut Pair, log: &Log) -> bool {
        let mut warn = |why: String| log.write(Level::Warn, None, format_args!("{why}"));
        let (certificate, key) = (&pair.certificate, &pair.key);
        let read = tls::reading_again(&self.objects, certificate, key, || load(certificate, key, &self.passwords))
            .and_then(|identity| self.stapling.staple(identity, &pair.certificate, &mut warn));
        match read {
            Ok((identity, _)) if identity.looks_like(&pair.identity) => false,
            Ok((identity, stapler)) => {
                log.write(Level::Notice, None, format_args!("certificate \"{}\" has changed", pair.certificate));
                (pair.identity, pair.stapler) = (identity, stapler);
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

fn seen(certificate: &str, key: &str, stapling: &Stapling) -> Seen {
    [version(Path::new(certificate)), version(Path::new(key)), stapling.file().and_then(version)]
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
