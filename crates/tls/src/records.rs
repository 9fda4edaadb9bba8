//! Records with keys that are known: what goes on with a connection whose handshake another process has done.
//!
//! This is the record protocol of TLS 1.3 (RFC 8446 §5) and of TLS 1.2 with AES-GCM (RFC 5288) and ChaCha20-Poly1305 (RFC
//! 7905), after the handshake and for a server: data, `close_notify`, alerts. There is no more to it than that. New keys
//! need the secrets that these were made of, which the library doesn't give away: who asks for them, or for another
//! handshake, is told that the connection ends. So does one whose keys have been used as often as they may.

use std::io;

use aws_lc_rs::aead::{self, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use buf::{Buf, Secret};

/// What encrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cipher {
    Aes128Gcm = 1,
    Aes256Gcm = 2,
    ChaCha20Poly1305 = 3,
}

impl Cipher {
    /// The one with that number.
    pub(crate) fn numbered(number: u64) -> Option<Cipher> {
        [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305].into_iter().find(|c| *c as u64 == number)
    }

    fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Cipher::Aes128Gcm => &aead::AES_128_GCM,
            Cipher::Aes256Gcm => &aead::AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }

    /// How many records may be written under one key (RFC 8446 §5.5).
    fn limit(self) -> u64 {
        match self {
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => 1 << 24,
            Cipher::ChaCha20Poly1305 => u64::MAX,
        }
    }
}

/// The keys of one direction, and how far they have been used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Keys {
    pub(crate) cipher: Cipher,
    pub(crate) key: Secret,
    /// The nonce of record 0, of [`NONCE_LEN`] bytes.
    pub(crate) iv: Secret,
    /// The number of the next record.
    pub(crate) sequence: u64,
}

/// One direction.
struct Direction {
    /// To go on with elsewhere.
    keys: Keys,
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
}

/// Both directions of a connection.
pub(crate) struct Records {
    tls13: bool,
    read: Direction,
    write: Direction,
    /// Records in a row that brought nothing.
    idle: u8,
    /// Why nothing is read any more.
    fault: Option<Fault>,
    /// The peer has said that it ends.
    ended: bool,
    /// Nothing may be written any more.
    closed: bool,
}

/// Why a connection can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A record that wasn't sealed with these keys.
    BadRecord,
    TooLong,
    /// Something that has no place here.
    Unexpected,
    Malformed,
    /// The peer has new keys.
    NewKeys,
    /// The peer wants another handshake.
    Renegotiation,
    /// The peer told this.
    Told(u8),
    /// The keys have been used as often as they may.
    UsedUp,
}

impl Fault {
    /// What the peer is told: level and description.
    fn alert(self) -> Option<(u8, u8)> {
        Some(match self {
            Fault::BadRecord => (FATAL, 20),
            Fault::TooLong => (FATAL, 22),
            Fault::Unexpected => (FATAL, 10),
            Fault::Malformed => (FATAL, 50),
            Fault::NewKeys => (FATAL, 80),
            Fault::Renegotiation => (WARNING, 100),
            Fault::UsedUp => (WARNING, CLOSE_NOTIFY),
            Fault::Told(_) => return None,
        })
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Fault::BadRecord => "decryption failed or bad record mac",
            Fault::TooLong => "data length too long",
            Fault::Unexpected => "unexpected message",
            Fault::Malformed => "bad length of an alert",
            Fault::NewKeys => "a key update after the connection was handed over",
            Fault::Renegotiation => "no renegotiation",
            Fault::Told(alert) => return write!(f, "the client sent alert {alert}"),
            Fault::UsedUp => "the keys are used up",
        })
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> io::Error {
        io::Error::other(fault)
    }
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

const WARNING: u8 = 1;
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
/// The handshake message that brings new keys.
const KEY_UPDATE: u8 = 24;

const HEADER: usize = 5;
const TAG: usize = 16;
/// The part of a nonce that TLS 1.2 sends with AES-GCM.
const EXPLICIT: usize = 8;
/// The most plaintext of a record.
const MAX_PLAIN: usize = 1 << 14;
/// What sealing may add in TLS 1.3, and in TLS 1.2.
const MAX_ADDED: [usize; 2] = [256, 2048];
/// How many records in a row may bring nothing.
const MAX_IDLE: u8 = 32;

impl Direction {
    /// `None` if key or nonce haven't their length.
    fn new(keys: Keys) -> Option<Direction> {
        let key = LessSafeKey::new(UnboundKey::new(keys.cipher.algorithm(), &keys.key).ok()?);
        let iv = (*keys.iv).try_into().ok()?;
        Some(Direction { keys, key, iv })
    }

    /// The nonce of the next record: unique, since no number comes twice.
    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        let number = self.keys.sequence.to_be_bytes();
        nonce[NONCE_LEN - number.len()..].iter_mut().zip(number).for_each(|(byte, other)| *byte ^= other);
        nonce
    }

    /// How much of a nonce stands in each record.
    fn explicit(&self, tls13: bool) -> usize {
        if tls13 || self.keys.cipher == Cipher::ChaCha20Poly1305 { 0 } else { EXPLICIT }
    }

    /// What is authenticated beside the content in TLS 1.2.
    fn additional(&self, kind: u8, length: usize) -> [u8; 13] {
        let mut all = [0; 13];
        all[..8].copy_from_slice(&self.keys.sequence.to_be_bytes());
        all[8..11].copy_from_slice(&[kind, 3, 3]);
        all[11..].copy_from_slice(&(length as u16).to_be_bytes());
        all
    }
}

impl Drop for Direction {
    fn drop(&mut self) {
        buf::wipe(&mut self.iv);
    }
}

/// The front of what was received.
enum Front<'a> {
    /// A record of that kind with its content; so many bytes it took.
    Record(u8, &'a [u8], usize),
    /// Not a whole record.
    Part,
}

impl Records {
    /// `None` if these aren't keys.
    pub(crate) fn new(tls13: bool, read: Keys, write: Keys) -> Option<Records> {
        let (read, write) = (Direction::new(read)?, Direction::new(write)?);
        Some(Records { tls13, read, write, idle: 0, fault: None, ended: false, closed: false })
    }

    /// Those of a connection that has ended with a fault; no key is used any more, and these are none.
    pub(crate) fn ended(fault: Fault) -> Records {
        let cipher = Cipher::Aes128Gcm;
        let none = || Keys { cipher, key: vec![0; 16].into(), iv: vec![0; NONCE_LEN].into(), sequence: cipher.limit() };
        let records = Records::new(true, none(), none()).expect("these have the lengths of keys");
        Records { fault: Some(fault), closed: true, ..records }
    }

    /// Whether nothing has ended or failed.
    pub(crate) fn is_open(&self) -> bool {
        self.fault.is_none() && !self.ended && !self.closed
    }

    /// The keys as they are to be used next: for reading, for writing.
    pub(crate) fn keys(&self) -> (&Keys, &Keys) {
        (&self.read.keys, &self.write.keys)
    }

    /// As [`rt::Layer::receive`].
    pub(crate) fn receive(&mut self, input: &mut Buf, plain: &mut Buf, out: &mut Buf) -> Result<bool, Fault> {
        while self.fault.is_none() && !self.ended {
            let taken = match self.front(input.as_mut_slice()) {
                Ok(Front::Part) => return Ok(false),
                Ok(Front::Record(kind, content, length)) => {
                    if kind == DATA {
                        plain.extend_from_slice(content);
                    }
                    let told = told(kind, content, self.tls13);
                    self.understand(told).map(|()| length)
                }
                Err(fault) => Err(fault),
            };
            match taken {
                Ok(length) => input.consume(length),
                Err(fault) => self.fail(fault, out),
            }
        }
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(true),
        }
    }

    /// Opens the record at the front, in its place.
    fn front<'a>(&mut self, input: &'a mut [u8]) -> Result<Front<'a>, Fault> {
        let Some(header) = input.first_chunk::<HEADER>().copied() else { return Ok(Front::Part) };
        let [kind, major, minor, high, low] = header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if major != 3 || !matches!(kind, ALERT | HANDSHAKE | DATA) || self.tls13 && kind != DATA {
            return Err(Fault::Unexpected);
        }
        if length > MAX_PLAIN + MAX_ADDED[usize::from(!self.tls13)] {
            return Err(Fault::TooLong);
        }
        if !self.tls13 && minor != 3 {
            return Err(Fault::BadRecord);
        }
        let Some(sealed) = input.get_mut(HEADER..HEADER + length) else { return Ok(Front::Part) };
        let (kind, content) =
            if self.tls13 { open_tls13(&self.read, header, sealed)? } else { open_tls12(&self.read, kind, sealed)? };
        self.read.keys.sequence = self.read.keys.sequence.checked_add(1).ok_or(Fault::UsedUp)?;
        Ok(Front::Record(kind, content, HEADER + length))
    }

    fn understand(&mut self, told: Told) -> Result<(), Fault> {
        match told {
            Told::Data => self.idle = 0,
            Told::End => self.ended = true,
            Told::Nothing if self.idle == MAX_IDLE => return Err(Fault::Unexpected),
            Told::Nothing => self.idle += 1,
            Told::Fault(fault) => return Err(fault),
        }
        Ok(())
    }

    /// Says what was wrong, after which nothing is said any more.
    pub(crate) fn fail(&mut self, fault: Fault, out: &mut Buf) {
        self.fault = Some(fault);
        if let Some((level, description)) = fault.alert() {
            self.last_words(level, description, out);
        }
        self.closed = true;
    }

    fn last_words(&mut self, level: u8, description: u8, out: &mut Buf) {
        // Keys that are used up already say nothing at all.
        let Keys { cipher, sequence, .. } = self.write.keys;
        if !std::mem::replace(&mut self.closed, true) && sequence < cipher.limit() {
            self.seal(ALERT, &[level, description], out);
        }
    }

    /// As [`rt::Layer::send`], in records of at most `record` bytes of plaintext.
    pub(crate) fn send(&mut self, plain: &[u8], record: usize, out: &mut Buf) -> Result<(), Fault> {
        for part in plain.chunks(record.clamp(1, MAX_PLAIN)) {
            // One record is left for the farewell.
            if self.write.keys.sequence >= self.write.keys.cipher.limit() - 1 {
                self.last_words(WARNING, CLOSE_NOTIFY, out);
            }
            if self.closed {
                return Err(self.fault.unwrap_or(Fault::UsedUp));
            }
            self.seal(DATA, part, out);
        }
        Ok(())
    }

    /// As [`rt::Layer::close`].
    pub(crate) fn close(&mut self, out: &mut Buf) {
        self.last_words(WARNING, CLOSE_NOTIFY, out);
    }

    /// Appends a record; its content is at most [`MAX_PLAIN`] long.
    pub(crate) fn seal(&mut self, kind: u8, content: &[u8], out: &mut Buf) {
        let explicit = self.write.explicit(self.tls13);
        let inner = content.len() + usize::from(self.tls13);
        let length = explicit + inner + TAG;
        let outer = if self.tls13 { DATA } else { kind };
        let [high, low] = (length as u16).to_be_bytes();
        let header = [outer, 3, 3, high, low];
        let nonce = self.write.nonce();
        out.reserve(HEADER + length);
        let start = out.len() + HEADER + explicit;
        out.extend_from_slice(&header);
        out.extend_from_slice(&nonce[NONCE_LEN - explicit..]);
        out.extend_from_slice(content);
        if self.tls13 {
            out.extend_from_slice(&[kind]);
        }
        let place = &mut out.as_mut_slice()[start..];
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = if self.tls13 {
            self.write.key.seal_in_place_separate_tag(nonce, Aad::from(header), place)
        } else {
            let additional = self.write.additional(kind, content.len());
            self.write.key.seal_in_place_separate_tag(nonce, Aad::from(additional), place)
        };
        // It fails for lengths that no record has, and for nothing else.
        let tag = sealed.expect("a record's content is short enough");
        out.extend_from_slice(tag.as_ref());
        self.write.keys.sequence += 1;
    }
}

/// What a record says.
enum Told {
    Data,
    End,
    Nothing,
    Fault(Fault),
}

fn told(kind: u8, content: &[u8], tls13: bool) -> Told {
    match (kind, content) {
        (DATA, []) => Told::Nothing,
        (DATA, _) => Told::Data,
        (ALERT, [_, CLOSE_NOTIFY]) => Told::End,
        (ALERT, [_, USER_CANCELED]) if tls13 => Told::Nothing,
        (ALERT, [WARNING, _]) if !tls13 => Told::Nothing,
        (ALERT, [_, description]) => Told::Fault(Fault::Told(*description)),
        (ALERT, _) => Told::Fault(Fault::Malformed),
        (HANDSHAKE, [KEY_UPDATE, ..]) if tls13 => Told::Fault(Fault::NewKeys),
        (HANDSHAKE, [_, ..]) if !tls13 => Told::Fault(Fault::Renegotiation),
        _ => Told::Fault(Fault::Unexpected),
    }
}

/// Kind and content of a record of TLS 1.3: the kind stands after the content, and zeroes may follow.
fn open_tls13<'a>(read: &Direction, header: [u8; HEADER], sealed: &'a mut [u8]) -> Result<(u8, &'a [u8]), Fault> {
    let nonce = Nonce::assume_unique_for_key(read.nonce());
    let inner = read.key.open_in_place(nonce, Aad::from(header), sealed).map_err(|_| Fault::BadRecord)?;
    if inner.len() > MAX_PLAIN + 1 {
        return Err(Fault::TooLong);
    }
    let at = inner.iter().rposition(|byte| *byte != 0).ok_or(Fault::Unexpected)?;
    Ok((inner[at], &inner[..at]))
}

/// Kind and content of a record of TLS 1.2.
fn open_tls12<'a>(read: &Direction, kind: u8, sealed: &'a mut [u8]) -> Result<(u8, &'a [u8]), Fault> {
    let explicit = read.explicit(false);
    let length = sealed.len().checked_sub(explicit + TAG).ok_or(Fault::BadRecord)?;
    if length > MAX_PLAIN {
        return Err(Fault::TooLong);
    }
    let (told, sealed) = sealed.split_at_mut(explicit);
    let mut nonce = read.nonce();
    nonce[NONCE_LEN - explicit..].copy_from_slice(told);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let additional = Aad::from(read.additional(kind, length));
    let content = read.key.open_in_place(nonce, additional, sealed).map_err(|_| Fault::BadRecord)?;
    Ok((kind, content))
}

/// Whether the front of `input` is a record that isn't whole: the state in which what is left over means the same to
/// whoever reads on.
pub(crate) fn is_part(input: &[u8]) -> bool {
    let Some(&[_, _, _, high, low]) = input.first_chunk::<HEADER>() else { return true };
    input.len() < HEADER + usize::from(u16::from_be_bytes([high, low]))
}

#[cfg(test)]
mod tests;
