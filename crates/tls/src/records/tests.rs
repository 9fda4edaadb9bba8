//! The records against the library's, and against themselves.

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
use crate::layer::ServerLayer;
use crate::library::Library;
use crate::secured::Signatures;
use crate::server::{Protocols, Server, ServerSettings};

fn server() -> (Server, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["example.com".to_owned()]).unwrap();
    let (cert, key) = (format!("data:{}", made.cert.pem()), format!("data:{}", made.signing_key.serialize_pem()));
    let settings = ServerSettings {
        identities: vec![crate::certs::identity(&cert, &key, &[]).unwrap()],
        named: Vec::new(),
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
        key_log: None,
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
    /// What the layer hasn't seen yet.
    input: Buf,
}

impl Pair {
    fn new(suite: SupportedCipherSuite) -> Pair {
        let (server, certificate) = server();
        let provider = CryptoProvider { cipher_suites: vec![suite], ..provider::default_provider() };
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let builder =
            ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[suite.version()]).unwrap();
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from("example.com").unwrap()).unwrap();
        client.set_buffer_limit(None);
        let mut library = Library::new(UnbufferedServerConnection::new(server.config.clone()).unwrap());
        while client.is_handshaking() || library.is_handshaking() {
            let mut out = Buf::empty();
            library.receive(filled(&written(&mut client)), &mut Buf::empty(), &mut out).unwrap();
            take(&mut client, &out).unwrap();
        }
        let hello = wire::hello::ClientHello::default();
        let layer = ServerLayer::new(library, hello, Rc::new(()), &server, Signatures::default());
        Pair { server, layer, client, input: Buf::empty() }
    }

    /// To another process and back.
    fn travel(mut self) -> Pair {
        assert!(self.layer.can_leave());
        let mut out = Buf::empty();
        let (departed, input) = self.layer.leave(&mut out).unwrap();
        let message = departed.encode();
        take(&mut self.client, &out).unwrap();
        let departed = Departed::decode(&message).unwrap();
        assert!(self.server.would_accept(&departed));
        let layer = ServerLayer::resume(departed, Rc::new(()), Some(&self.server));
        Pair { layer, input, ..self }
    }

    /// What the server reads of these bytes, and what it answers of its own accord.
    fn receive(&mut self, bytes: &[u8]) -> (io::Result<bool>, Vec<u8>, Buf) {
        let (mut plain, mut out) = (Buf::empty(), Buf::empty());
        let mut input = std::mem::replace(&mut self.input, Buf::empty());
        input.extend_from_slice(bytes);
        let result = self.layer.receive(input, &mut plain, &mut out);
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
        assert!(got == data);
        let mut out = Buf::empty();
        self.layer.send(&data, &mut out).unwrap();
        let got: Vec<u8> = out.chunks(cut).flat_map(|part| take(&mut self.client, part).unwrap()).collect();
        assert!(got == data);
    }
}

/// A buffer with these bytes.
fn filled(bytes: &[u8]) -> Buf {
    let mut buf = Buf::empty();
    buf.extend_from_slice(bytes);
    buf
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
                assert_eq!(
                    pair.layer.secured().protocol(),
                    if suite.tls13().is_some() { "TLSv1.3" } else { "TLSv1.2" }
                );
                assert_eq!(pair.layer.secured().cipher(), crate::names::negotiated(suite.suite()));
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
        assert!(pair.receive(b"x").0.unwrap() && !pair.layer.can_leave());
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
        let keys = pair.layer.leave(&mut Buf::empty()).unwrap().0.encode();
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
        assert!(result.is_err() && plain.is_empty() && !pair.layer.can_leave());
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
    // The kind stands after the content; what is sealed as of kind 0 is padding.
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
