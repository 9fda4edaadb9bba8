//! Keys of session tickets.
//!
//! A ticket is sealed with AES-256-GCM, bound to the server it was made for, and says when it was made. Without files
//! (`ssl_session_ticket_key`) keys follow from one random secret, which the master makes before it forks: so all workers
//! share them, and they outlive a reload. With each lifetime the secret is replaced by a hash of it, by each
//! process for itself at the same time; old secrets can't be got back, so a ticket that was recorded on the wire is safe
//! two lifetimes later even if the process is read out.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use rustls::server::ProducesTickets;

use crate::error::{Error, Result};
use crate::session::now;

const NAME_LEN: usize = 16;
const NONCE_LEN: usize = 12;
const TIME_LEN: usize = 8;
/// What is sealed is a multiple of this long.
const PADDING: usize = 128;

/// Where a server's ticket keys come from.
#[derive(Clone, Debug, Default)]
pub struct TicketKeys {
    files: Vec<Vec<u8>>,
}

impl TicketKeys {
    /// Random keys, replaced from time to time.
    pub fn random() -> TicketKeys {
        TicketKeys::default()
    }

    /// Adds the contents of a file, 48 or 80 bytes. The first file's key makes tickets; all open them.
    pub fn add_file(&mut self, name: &str, contents: Vec<u8>) -> Result<()> {
        if !matches!(contents.len(), 48 | 80) {
            return Err(Error::new(format!("\"{name}\" must be 48 or 80 bytes")));
        }
        self.files.push(contents);
        Ok(())
    }

    pub(crate) fn ticketer(&self, binding: [u8; 16], lifetime_s: u32) -> Arc<dyn ProducesTickets> {
        let keys = if self.files.is_empty() {
            Keys::Rotating(ratchet(lifetime_s))
        } else {
            Keys::Fixed(self.files.iter().map(|file| Key::from_file(file)).collect())
        };
        Arc::new(Ticketer { keys, binding, lifetime_s })
    }
}

struct Ticketer {
    keys: Keys,
    binding: [u8; 16],
    lifetime_s: u32,
}

enum Keys {
    Fixed(Vec<Key>),
    Rotating(Arc<Mutex<Ratchet>>),
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticketer")
    }
}

struct Key {
    name: [u8; NAME_LEN],
    key: LessSafeKey,
}

impl Key {
    fn from_secret(secret: &[u8; 32]) -> Key {
        let mut name = [0; NAME_LEN];
        name.copy_from_slice(&derive(secret, b"name")[..NAME_LEN]);
        Key { name, key: aead(&derive(secret, b"key")) }
    }

    fn from_file(contents: &[u8]) -> Key {
        let mut name = [0; NAME_LEN];
        name.copy_from_slice(&contents[..NAME_LEN]);
        Key { name, key: aead(&derive(contents, b"file")) }
    }

    fn seal(&self, binding: &[u8; 16], plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let length = u16::try_from(plain.len()).ok()?;
        let mut sealed = Vec::with_capacity(plain.len() + 2 * PADDING);
        sealed.extend_from_slice(&now().to_be_bytes());
        sealed.extend_from_slice(&length.to_be_bytes());
        sealed.extend_from_slice(plain);
        // The length of a ticket is not to tell that of the server's name in it.
        sealed.resize(sealed.len().next_multiple_of(PADDING), 0);
        let nonce_of = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce_of, Aad::from(binding), &mut sealed).ok()?;
        Some([&self.name[..], &nonce, &sealed].concat())
    }

    fn open(&self, binding: &[u8; 16], ticket: &[u8], lifetime_s: u32) -> Option<Vec<u8>> {
        let rest = ticket.strip_prefix(&self.name)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.key.open_in_place(nonce, Aad::from(binding), &mut sealed).ok()?;
        let (time, session) = plain.split_at_checked(TIME_LEN)?;
        let made = u64::from_be_bytes(time.try_into().ok()?);
        let (length, session) = session.split_first_chunk()?;
        let session = session.get(..usize::from(u16::from_be_bytes(*length)))?;
        (now() < made.saturating_add(u64::from(lifetime_s))).then(|| session.to_vec())
    }
}

fn derive(secret: &[u8], label: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), label).as_ref());
    out
}

fn aead(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has the algorithm's length"))
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.lifetime_s
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        match &self.keys {
            Keys::Fixed(keys) => keys.first()?.seal(&self.binding, plain),
            Keys::Rotating(ratchet) => lock(ratchet).at(now()).current.seal(&self.binding, plain),
        }
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let open = |key: &Key| key.open(&self.binding, ticket, self.lifetime_s);
        match &self.keys {
            Keys::Fixed(keys) => keys.iter().find_map(open),
            Keys::Rotating(ratchet) => {
                let mut ratchet = lock(ratchet);
                let ratchet = ratchet.at(now());
                open(&ratchet.current).or_else(|| open(&ratchet.previous))
            }
        }
    }
}

/// Keys that follow from one another, one for each period.
struct Ratchet {
    period_s: u64,
    /// When the first period began, in seconds since 1970.
    start: u64,
    /// The number of the current period.
    index: u64,
    secret: [u8; 32],
    current: Key,
    previous: Key,
}

impl Ratchet {
    fn new(seed: [u8; 32], period_s: u64, start: u64) -> Ratchet {
        let secret = derive(&seed, b"next");
        let (previous, current) = (Key::from_secret(&seed), Key::from_secret(&secret));
        Ratchet { period_s, start, index: 0, secret, current, previous }
    }

    /// Goes on to the period of this time. After more than [`MAX_STEPS`] periods, as if the clock was set, it goes on
    /// by so many only: all processes do the same.
    fn at(&mut self, time: u64) -> &Ratchet {
        let index = time.saturating_sub(self.start) / self.period_s;
        if index > self.index {
            let mut before = self.secret;
            for _ in 0..(index - self.index).min(MAX_STEPS) {
                before = self.secret;
                self.secret = derive(&self.secret, b"next");
            }
            (self.previous, self.current) = (Key::from_secret(&before), Key::from_secret(&self.secret));
            self.index = index;
        }
        self
    }
}

/// How many periods are gone through one by one.
const MAX_STEPS: u64 = 1_000_000;

/// The process's ratchets by their period; forked children inherit them.
static RATCHETS: Mutex<Option<HashMap<u64, Arc<Mutex<Ratchet>>>>> = Mutex::new(None);

fn ratchet(lifetime_s: u32) -> Arc<Mutex<Ratchet>> {
    let period_s = u64::from(lifetime_s).max(1);
    let mut all = RATCHETS.lock().unwrap_or_else(PoisonError::into_inner);
    let found = all.get_or_insert_default().entry(period_s).or_insert_with(|| {
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).expect("the system has randomness");
        Arc::new(Mutex::new(Ratchet::new(seed, period_s, now())))
    });
    found.clone()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_bound_to_server_and_time() {
        let keys = TicketKeys::random();
        let (one, same, other) =
            (keys.ticketer([1; 16], 300), keys.ticketer([1; 16], 300), keys.ticketer([2; 16], 300));
        let ticket = one.encrypt(b"session").unwrap();
        assert_eq!(
            (one.decrypt(&ticket), same.decrypt(&ticket)),
            (Some(b"session".to_vec()), Some(b"session".to_vec()))
        );
        assert_eq!(other.decrypt(&ticket), None);
        for at in 0..ticket.len() {
            let mut broken = ticket.clone();
            broken[at] ^= 1;
            assert_eq!((one.decrypt(&broken), one.decrypt(&ticket[..at])), (None, None), "{at}");
        }
        assert_eq!(keys.ticketer([1; 16], 0).decrypt(&ticket), None);
    }

    #[test]
    fn keys_of_files() {
        let mut old = TicketKeys::random();
        old.add_file("a", vec![7; 48]).unwrap();
        let mut new = TicketKeys::random();
        new.add_file("b", vec![8; 80]).unwrap();
        new.add_file("a", vec![7; 48]).unwrap();
        let ticket = old.ticketer([0; 16], 300).encrypt(b"x").unwrap();
        assert_eq!(new.ticketer([0; 16], 300).decrypt(&ticket), Some(b"x".to_vec()));
        let ticket = new.ticketer([0; 16], 300).encrypt(b"x").unwrap();
        assert_eq!(old.ticketer([0; 16], 300).decrypt(&ticket), None);
        assert_eq!(new.add_file("c", vec![0; 47]).unwrap_err().0, "\"c\" must be 48 or 80 bytes");
    }

    #[test]
    fn processes_agree_and_old_keys_are_gone() {
        let (mut one, mut two) = (Ratchet::new([5; 32], 100, 1000), Ratchet::new([5; 32], 100, 1000));
        let ticket = one.at(1050).current.seal(&[0; 16], b"x").unwrap();
        one.at(1150);
        one.at(1199);
        assert_eq!(two.at(1120).current.name, one.current.name);
        assert!(two.previous.open(&[0; 16], &ticket, 300).is_some());
        two.at(1250);
        assert!(
            two.previous.open(&[0; 16], &ticket, 300).is_none() && two.current.open(&[0; 16], &ticket, 300).is_none()
        );
    }
}
