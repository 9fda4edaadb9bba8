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
    fn fail(&mut self, fault: Fault, out: &mut Buf) {
        self.fault = Some(fault);
        if let Some((level, description)) = fault.alert() {
            self.last_words(level, description, out);
        }
        self.closed = true;
    }

    fn last_words(&mut self, level: u8, description: u8, out: &mut Buf) {
        if !std::mem::replace(&mut self.closed, true) {
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
    fn seal(&mut self, kind: u8, content: &[u8], out: &mut Buf) {
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

/// Kind and content of a record of TLS 1.3: the kind stands behind the content, and zeroes may follow.
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
mod tests {
    use std::io::{Read as _, Write as _};
    use std::rc::Rc;
    use std::sync::Arc;

    use rt::Layer as _;
    use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::server::UnbufferedServerConnection;
    use rustls::{AlertDescription, ClientConfig, ClientConnection, Error, RootCertStore, SupportedCipherSuite};

    use super::*;
    use crate::departed::Departed;
    use crate::layer::{Info, ServerLayer, Signatures, advance};
    use crate::server::{Protocols, Server, ServerSettings};

    fn server() -> (Server, CertificateDer<'static>) {
        let made = rcgen::generate_simple_self_signed(vec!["example.com".to_owned()]).unwrap();
        let (cert, key) =
            (format!("data:{}", made.cert.pem()), format!("data:{}", made.signing_key.serialize_pem()));
        let settings = ServerSettings {
            identities: vec![crate::certs::identity(&cert, &key, &[]).unwrap()],
            protocols: Protocols { tls12: true, tls13: true },
            ciphers: "HIGH:!aNULL:!MD5".to_owned(),
            ciphersuites: None,
            curves: "auto".to_owned(),
            prefer_server: false,
            buffer_size: 4000,
            alpn: vec![b"http/1.1".to_vec()],
            cache: None,
            tickets: None,
            timeout_s: 300,
            early_data: false,
            compression: false,
            client_auth: None,
        };
        (Server::new(&settings).unwrap(), settings.identities[0].chain()[0].clone())
    }

    /// The suites that a server with a key of ECDSA has.
    fn suites() -> impl Iterator<Item = SupportedCipherSuite> {
        let own = |suite: &SupportedCipherSuite| !format!("{:?}", suite.suite()).contains("_RSA_");
        provider::ALL_CIPHER_SUITES.iter().filter(move |suite| own(suite)).copied()
    }

    /// A server's side and the library's client, whose handshake is over.
    struct Pair {
        server: Server,
        layer: ServerLayer,
        client: ClientConnection,
        /// What the layer hasn't taken yet.
        input: Buf,
    }

    impl Pair {
        fn new(suite: SupportedCipherSuite) -> Pair {
            let (server, certificate) = server();
            let provider = CryptoProvider { cipher_suites: vec![suite], ..provider::default_provider() };
            let mut roots = RootCertStore::empty();
            roots.add(certificate).unwrap();
            let builder = ClientConfig::builder_with_provider(Arc::new(provider))
                .with_protocol_versions(&[suite.version()])
                .unwrap();
            let config = builder.with_root_certificates(roots).with_no_client_auth();
            let mut client =
                ClientConnection::new(Arc::new(config), ServerName::try_from("example.com").unwrap()).unwrap();
            client.set_buffer_limit(None);
            let mut conn = UnbufferedServerConnection::new(server.config.clone()).unwrap();
            let mut input = Buf::empty();
            while client.is_handshaking() || conn.is_handshaking() {
                input.extend_from_slice(&written(&mut client));
                let mut out = Buf::empty();
                advance(&mut conn, &mut input, &mut Buf::empty(), &mut out).unwrap();
                take(&mut client, &out).unwrap();
            }
            let info = Info { hello: wire::hello::ClientHello::default(), owner: Rc::new(()) };
            let layer = ServerLayer::new(conn, info, &server, Signatures::default());
            Pair { server, layer, client, input }
        }

        /// To another process and back.
        fn travel(mut self) -> Pair {
            assert!(self.layer.can_leave(&self.input));
            let mut out = Buf::empty();
            let message = self.layer.leave(&mut out).unwrap().encode();
            take(&mut self.client, &out).unwrap();
            let departed = Departed::decode(&message).unwrap();
            assert!(self.server.would_accept(&departed));
            let layer = ServerLayer::resume(departed, Rc::new(()), Some(&self.server));
            Pair { layer, ..self }
        }

        /// What the server reads of these bytes, and what it answers of its own accord.
        fn receive(&mut self, bytes: &[u8]) -> (io::Result<bool>, Vec<u8>, Buf) {
            let (mut plain, mut out) = (Buf::empty(), Buf::empty());
            self.input.extend_from_slice(bytes);
            let result = self.layer.receive(&mut self.input, &mut plain, &mut out);
            (result, plain.to_vec(), out)
        }

        /// Data of that length, both ways, in pieces of `cut` bytes.
        fn talk(&mut self, length: usize, cut: usize) {
            let data: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            self.client.writer().write_all(&data).unwrap();
            let mut got = Vec::new();
            for part in written(&mut self.client).chunks(cut) {
                let (result, plain, out) = self.receive(part);
                assert!(!result.unwrap() && out.is_empty());
                got.extend_from_slice(&plain);
            }
            assert!(got == data && self.input.is_empty());
            let mut out = Buf::empty();
            self.layer.send(&data, &mut out).unwrap();
            let got: Vec<u8> = out.chunks(cut).flat_map(|part| take(&mut self.client, part).unwrap()).collect();
            assert!(got == data);
        }
    }

    /// What the client sends.
    fn written(client: &mut ClientConnection) -> Vec<u8> {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// What the client reads of these bytes.
    fn take(client: &mut ClientConnection, mut bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets()?;
            let _ = client.reader().read_to_end(&mut plain);
        }
        Ok(plain)
    }

    /// The alert that the client was sent.
    fn alert(client: &mut ClientConnection, out: &[u8]) -> Option<AlertDescription> {
        match take(client, out) {
            Err(Error::AlertReceived(alert)) => Some(alert),
            _ => None,
        }
    }

    #[test]
    fn data_flows_on() {
        for suite in suites() {
            let mut pair = Pair::new(suite);
            for round in 0..4 {
                for (length, cut) in [(1, 1), (100, 7), (4001, 4096), (40_000, 1000), (200_000, 60_000)] {
                    pair.talk(length, cut);
                }
                if round == 2 {
                    assert_eq!(pair.layer.protocol(), if suite.tls13().is_some() { "TLSv1.3" } else { "TLSv1.2" });
                    assert_eq!(pair.layer.cipher(), crate::names::negotiated(suite.suite()));
                }
                pair = pair.travel();
            }
            let mut out = Buf::empty();
            pair.layer.close(&mut out);
            pair.layer.close(&mut out);
            take(&mut pair.client, &out).unwrap();
            assert_eq!(pair.client.reader().read(&mut [0]).unwrap(), 0, "{suite:?}: the end was announced");
            assert!(pair.layer.send(b"more", &mut out).is_err());
            pair.client.writer().write_all(b"last").unwrap();
            pair.client.send_close_notify();
            let bytes = written(&mut pair.client);
            let (result, plain, out) = pair.receive(&[&bytes[..], b"beyond the end"].concat());
            assert!(result.unwrap() && plain == b"last" && out.is_empty());
            assert!(pair.receive(b"x").0.unwrap() && !pair.layer.can_leave(b""));
        }
    }

    /// A connection leaves in the middle of a record.
    #[test]
    fn a_record_may_be_cut_anywhere() {
        for suite in suites() {
            let mut pair = Pair::new(suite);
            for cut in 0..40 {
                pair.client.writer().write_all(b"some twenty bytes ..").unwrap();
                let bytes = written(&mut pair.client);
                assert_eq!(pair.receive(&bytes[..cut]).1, b"");
                pair = pair.travel();
                assert_eq!(pair.receive(&bytes[cut..]).1, b"some twenty bytes ..", "{suite:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_was_changed_on_its_way_is_refused() {
        for suite in suites() {
            let mut pair = Pair::new(suite).travel();
            pair.client.writer().write_all(b"data").unwrap();
            let whole = written(&mut pair.client);
            let keys = pair.layer.leave(&mut Buf::empty()).unwrap().encode();
            for at in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[at] ^= 1;
                let mut records = Departed::decode(&keys).unwrap().records;
                let (mut input, mut plain, mut out) = (Buf::empty(), Buf::empty(), Buf::empty());
                input.extend_from_slice(&bytes);
                let result = records.receive(&mut input, &mut plain, &mut out);
                assert!(plain.is_empty());
                let expect = match at {
                    // The version, and the kind where there is but one.
                    1 => Err(Fault::Unexpected),
                    0 if suite.tls13().is_some() => Err(Fault::Unexpected),
                    // The length: it waits for more.
                    3 => Ok(false),
                    4 if bytes[4] > whole[4] => Ok(false),
                    _ => Err(Fault::BadRecord),
                };
                assert_eq!(result, expect, "{suite:?} byte {at}");
                if result == Err(Fault::BadRecord) {
                    assert_eq!(records.receive(&mut input, &mut plain, &mut Buf::empty()), Err(Fault::BadRecord));
                    assert!(records.send(b"x", 1, &mut out).is_err() && !records.is_open());
                }
            }
        }
    }

    #[test]
    fn who_tampers_is_told() {
        for suite in suites() {
            let mut pair = Pair::new(suite).travel();
            pair.client.writer().write_all(b"data").unwrap();
            let mut bytes = written(&mut pair.client);
            *bytes.last_mut().unwrap() ^= 1;
            let (result, plain, out) = pair.receive(&bytes);
            assert!(result.is_err() && plain.is_empty() && !pair.layer.can_leave(b""));
            assert_eq!(alert(&mut pair.client, &out), Some(AlertDescription::BadRecordMac), "{suite:?}");
            let mut out = Buf::empty();
            pair.layer.close(&mut out);
            assert!(pair.layer.send(b"x", &mut out).is_err() && out.is_empty());
        }
    }

    #[test]
    fn new_keys() {
        for suite in suites().filter(|suite| suite.tls13().is_some()) {
            // The library knows them; its answer waits, and goes with the connection.
            let mut pair = Pair::new(suite);
            pair.talk(10, 10);
            pair.client.refresh_traffic_keys().unwrap();
            let bytes = written(&mut pair.client);
            pair.receive(&bytes).0.unwrap();
            pair = pair.travel();
            pair.talk(1000, 100);
            // After that there are none.
            pair.client.refresh_traffic_keys().unwrap();
            let bytes = written(&mut pair.client);
            let (result, _, out) = pair.receive(&bytes);
            assert!(result.unwrap_err().to_string().contains("key update"));
            assert_eq!(alert(&mut pair.client, &out), Some(AlertDescription::InternalError));
        }
    }

    /// A connection and its other side, both of these records.
    fn both(tls13: bool, cipher: Cipher, sequence: u64) -> (Records, Records) {
        let keys = |n: u8| Keys {
            cipher,
            key: vec![n; cipher.algorithm().key_len()].into(),
            iv: vec![n; NONCE_LEN].into(),
            sequence,
        };
        let new = |read, write| Records::new(tls13, keys(read), keys(write)).unwrap();
        (new(1, 2), new(2, 1))
    }

    /// What comes of these records, each of one kind: kind and content, result, what the peer is told.
    fn outcome(tls13: bool, sent: &[(u8, &[u8])]) -> (Result<bool, Fault>, Vec<u8>, Option<Vec<u8>>) {
        let (mut own, mut other) = both(tls13, Cipher::Aes128Gcm, 5);
        let (mut input, mut plain, mut out) = (Buf::empty(), Buf::empty(), Buf::empty());
        sent.iter().for_each(|(kind, content)| other.seal(*kind, content, &mut input));
        let result = own.receive(&mut input, &mut plain, &mut out);
        let told = match other.front(out.as_mut_slice()) {
            Ok(Front::Record(ALERT, content, _)) => Some(content.to_vec()),
            _ => None,
        };
        (result, plain.to_vec(), told)
    }

    #[test]
    fn what_is_no_data() {
        let check = |tls13, sent: &[(u8, &[u8])], expect: Result<bool, Fault>, told: Option<[u8; 2]>| {
            let (result, plain, alert) = outcome(tls13, sent);
            assert_eq!((result, alert), (expect, told.map(Vec::from)), "{tls13} {sent:?}");
            assert_eq!(plain, if sent[0].0 == DATA { sent[0].1 } else { b"" });
        };
        for tls13 in [false, true] {
            check(tls13, &[(DATA, b"x"), (ALERT, &[1, 0]), (DATA, b"later")], Ok(true), None);
            check(tls13, &[(DATA, b"x"), (ALERT, &[2, 40])], Err(Fault::Told(40)), None);
            check(tls13, &[(ALERT, &[1])], Err(Fault::Malformed), Some([2, 50]));
            check(tls13, &[(DATA, b"x"), (HANDSHAKE, b"")], Err(Fault::Unexpected), Some([2, 10]));
            check(tls13, &[(DATA, &b""[..]); 32], Ok(false), None);
            check(tls13, &[(DATA, &b""[..]); 33], Err(Fault::Unexpected), Some([2, 10]));
        }
        check(true, &[(ALERT, &[1, USER_CANCELED]), (ALERT, &[1, 0])], Ok(true), None);
        check(true, &[(ALERT, &[1, 41])], Err(Fault::Told(41)), None);
        check(true, &[(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0])], Err(Fault::NewKeys), Some([2, 80]));
        check(true, &[(HANDSHAKE, &[1, 0, 0, 0])], Err(Fault::Unexpected), Some([2, 10]));
        check(true, &[(20, &[1])], Err(Fault::Unexpected), Some([2, 10]));
        check(true, &[(0, b"")], Err(Fault::Unexpected), Some([2, 10]));
        check(false, &[(ALERT, &[1, 41]), (DATA, b"")], Ok(false), None);
        check(false, &[(ALERT, &[1, 41][..]); 33], Err(Fault::Unexpected), Some([2, 10]));
        check(false, &[(HANDSHAKE, &[1, 0, 0, 0])], Err(Fault::Renegotiation), Some([1, 100]));
        check(false, &[(20, &[1])], Err(Fault::Unexpected), Some([2, 10]));
    }

    #[test]
    fn sizes_have_bounds() {
        for cipher in [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
            for tls13 in [false, true] {
                for (length, fits) in [(MAX_PLAIN, true), (MAX_PLAIN + 1, false), (MAX_PLAIN + 300, false)] {
                    let (mut own, mut other) = both(tls13, cipher, 0);
                    let (mut input, mut out) = (Buf::empty(), Buf::empty());
                    other.seal(DATA, &vec![7; length], &mut input);
                    let result = own.receive(&mut input, &mut Buf::empty(), &mut out);
                    assert_eq!(result, if fits { Ok(false) } else { Err(Fault::TooLong) }, "{cipher:?} {length}");
                }
                // It is refused before it is whole.
                let (mut own, _) = both(tls13, cipher, 0);
                let mut input = Buf::empty();
                input.extend_from_slice(&[DATA, 3, 3, 0x60, 0]);
                assert_eq!(own.receive(&mut input, &mut Buf::empty(), &mut Buf::empty()), Err(Fault::TooLong));
                // One that is too short to be sealed.
                let (mut own, _) = both(tls13, cipher, 0);
                input.clear();
                input.extend_from_slice(&[DATA, 3, 3, 0, 3, 1, 2, 3]);
                assert_eq!(own.receive(&mut input, &mut Buf::empty(), &mut Buf::empty()), Err(Fault::BadRecord));
            }
        }
    }

    #[test]
    fn padding_is_dropped() {
        let (mut own, mut other) = both(true, Cipher::Aes256Gcm, 0);
        let (mut input, mut plain) = (Buf::empty(), Buf::empty());
        // The kind stands behind the content; what is sealed as of kind 0 is padding.
        other.seal(0, b"data\x17\0\0", &mut input);
        assert_eq!((own.receive(&mut input, &mut plain, &mut Buf::empty()), &plain[..]), (Ok(false), &b"data"[..]));
    }

    #[test]
    fn keys_are_not_used_up() {
        let (mut own, mut other) = both(true, Cipher::Aes128Gcm, (1 << 24) - 3);
        let (mut out, mut plain) = (Buf::empty(), Buf::empty());
        assert_eq!(own.send(b"abcde", 1, &mut out), Err(Fault::UsedUp));
        assert_eq!(other.receive(&mut out, &mut plain, &mut Buf::empty()), Ok(true));
        assert_eq!((&plain[..], own.is_open()), (&b"ab"[..], false));
    }
}
