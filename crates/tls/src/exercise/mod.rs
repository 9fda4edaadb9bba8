//! A connection's whole life, by a script: for the property test below and for the fuzz target `layer`.
//!
//! The library's own other side is the peer. What it says may be cut anywhere, and changed, on its way; once the handshake
//! is over the peer may also say what no library would, sealed with the right keys. Whatever comes, there is no panic, an
//! error is final and told, and of a peer that nobody has disturbed every byte arrives.

use std::io::{Read as _, Write as _};
use std::rc::Rc;
use std::sync::Arc;

use buf::Buf;
use rt::Layer;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, ClientConnection, Connection, ProtocolVersion, ServerConnection};
use wire::hello::ClientHello;

use crate::certs::{Identity, identity};
use crate::client::{Client, ClientLayer, ClientSettings};
use crate::client_auth::ClientAuth;
use crate::departed::Departed;
use crate::layer::ServerLayer;
use crate::library::{Library, Step};
use crate::records::{Keys, Records};
use crate::secured::Signatures;
use crate::server::{Protocols, Server, ServerSettings};
use crate::tickets::TicketKeys;
use crate::verify::Trust;

const CERTIFICATE: &str = include_str!("certificate.pem");
const KEY: &str = include_str!("key.pem");
const NAME: &str = "example.com";

/// What happens, byte by byte; zeroes follow it.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `n`.
    fn below(&mut self, n: usize) -> usize {
        usize::from(u16::from_be_bytes([self.next(), self.next()])) % n.max(1)
    }

    fn flag(&mut self) -> bool {
        self.next() & 1 == 1
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next()).collect()
    }
}

/// Our side.
enum Own {
    /// A client's handshake goes on.
    Accepting(Box<Library<UnbufferedServerConnection>>),
    /// A backend's handshake goes on.
    Connecting(Box<Library<UnbufferedClientConnection>>),
    Serving(Box<ServerLayer>),
    Asking(Box<ClientLayer>),
    /// It was thrown away, as a handshake that has failed is.
    Gone,
}

/// Both sides, and what is between them.
struct Pair {
    own: Own,
    server: Server,
    peer: Option<Connection>,
    /// The peer's keys, once it says what it likes.
    records: Option<Records>,
    /// On its way to us.
    wire: Vec<u8>,
    /// What the peer has said, and whether nothing was changed on its way.
    said: Vec<u8>,
    honest: bool,
    /// The peer has said that it says no more.
    peer_ended: bool,
    /// We have.
    closed: bool,
    /// What has arrived.
    heard: Vec<u8>,
    error: Option<String>,
    ended: bool,
}

/// Runs a script.
pub fn run(script: &[u8]) {
    let mut script = Script(script);
    let mut pair = Pair::new(&mut script);
    while !script.0.is_empty() {
        pair.step(&mut script);
    }
    pair.deliver(usize::MAX);
    pair.check();
    pair.close();
}

impl Pair {
    fn new(script: &mut Script<'_>) -> Pair {
        let (serves, tls13, asks, resumes) = (script.flag(), script.flag(), script.flag(), script.flag());
        let server = Server::new(&server_settings(tls13, asks)).expect("these settings are good");
        let mut pair = if serves {
            let config = Arc::new(client_config(asks));
            let mut pair = Pair::accepting(&config, Pair::gone(server));
            if resumes {
                // Once to be remembered.
                pair.shake_hands();
                pair.own.send(b"x");
                pair.deliver(usize::MAX);
                pair = Pair::accepting(&config, Pair::gone(pair.server));
            }
            pair
        } else {
            Pair::connecting(tls13, asks, Pair::gone(server))
        };
        if script.flag() {
            pair.shake_hands();
        }
        pair
    }

    fn gone(server: Server) -> Pair {
        Pair {
            own: Own::Gone,
            server,
            peer: None,
            records: None,
            wire: Vec::new(),
            said: Vec::new(),
            honest: true,
            peer_ended: false,
            closed: false,
            heard: Vec::new(),
            error: None,
            ended: false,
        }
    }

    fn accepting(config: &Arc<ClientConfig>, pair: Pair) -> Pair {
        let name = ServerName::try_from(NAME).expect("a name");
        let peer = ClientConnection::new(config.clone(), name).expect("the settings are good");
        let own = UnbufferedServerConnection::new(pair.server.config.clone()).expect("the settings are good");
        Pair { own: Own::Accepting(Box::new(Library::new(own))), peer: Some(peer.into()), ..pair }
    }

    fn connecting(tls13: bool, asks: bool, pair: Pair) -> Pair {
        let client = Client::new(&client_settings(tls13, asks)).expect("these settings are good");
        let name = ServerName::try_from(NAME).expect("a name");
        let own = UnbufferedClientConnection::new(client.config(None), name).expect("the settings are good");
        let peer = ServerConnection::new(pair.server.config.clone()).expect("the settings are good");
        let own = Own::Connecting(Box::new(Library::new(own)));
        let mut pair = Pair { own, peer: Some(peer.into()), ..pair };
        // The ClientHello.
        pair.receive(&[]);
        pair
    }

    /// Brings the handshake to its end, undisturbed.
    fn shake_hands(&mut self) {
        for _ in 0..4 {
            self.deliver(usize::MAX);
        }
        assert!(matches!(self.own, Own::Serving(_) | Own::Asking(_)), "an honest handshake succeeds: {:?}", self.error);
    }

    fn step(&mut self, script: &mut Script<'_>) {
        self.collect();
        match script.below(16) {
            0 | 1 => self.deliver(usize::MAX),
            2 | 3 => self.deliver(script.below(self.wire.len() + 1)),
            4 => self.say(script.below(40_000)),
            5 => {
                if let Some(peer) = &mut self.peer
                    && !peer.is_handshaking()
                {
                    let _ = peer.refresh_traffic_keys();
                }
            }
            6 => {
                if let Some(peer) = &mut self.peer {
                    peer.send_close_notify();
                    self.peer_ended = true;
                }
            }
            7 => self.own.send(&vec![7; script.below(20_000)]).into_iter().for_each(|out| self.hear(&out)),
            8 => self.travel(),
            9 => self.close(),
            10 | 11 => self.say_anything(script),
            _ => self.disturb(script),
        }
    }

    /// What the peer has to say goes on its way.
    fn collect(&mut self) {
        let Some(peer) = &mut self.peer else { return };
        while peer.wants_write() {
            peer.write_tls(&mut self.wire).expect("there is room");
        }
    }

    /// The peer says so many bytes.
    fn say(&mut self, length: usize) {
        let Some(peer) = &mut self.peer else { return };
        let data: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
        if !self.peer_ended && !peer.is_handshaking() && peer.writer().write_all(&data).is_ok() {
            self.said.extend_from_slice(&data);
        }
    }

    /// The peer seals a record of any kind.
    fn say_anything(&mut self, script: &mut Script<'_>) {
        self.collect();
        if self.peer.as_ref().is_some_and(|peer| !peer.is_handshaking())
            && let Some(peer) = self.peer.take()
        {
            let tls13 = peer.protocol_version() == Some(ProtocolVersion::TLSv1_3);
            if let Ok(secrets) = peer.dangerous_extract_secrets() {
                let keys = (Keys::extracted(&secrets.rx), Keys::extracted(&secrets.tx));
                self.records = keys.0.zip(keys.1).and_then(|(read, write)| Records::new(tls13, read, write));
            }
        }
        let kind = [20, 21, 22, 22, 22, 23, 24, 0][script.below(8)];
        let content = match script.below(8) {
            0 => b"\x18\0".to_vec(),
            1 => b"\x18\0\0\x01\x01".to_vec(),
            2 => b"\x18\0\0\x01\x02\x18\0\0".to_vec(),
            3 => b"\x01\0".to_vec(),
            _ => script.bytes(40),
        };
        if let Some(records) = &mut self.records {
            let mut out = Buf::empty();
            records.seal(kind, &content, &mut out);
            (self.honest, self.wire) = (false, [&self.wire[..], &out].concat());
        }
    }

    /// Changes what is on its way.
    fn disturb(&mut self, script: &mut Script<'_>) {
        self.honest = false;
        let at = script.below(self.wire.len() + 1);
        match script.below(6) {
            0 if at < self.wire.len() => self.wire[at] ^= 1 << script.below(8),
            1 if at < self.wire.len() => self.wire[at] = script.next(),
            2 => drop(self.wire.splice(at..at, script.bytes(20))),
            3 => drop(self.wire.drain(at..(at + script.below(40)).min(self.wire.len()))),
            4 => {
                // A record with something surplus inside.
                if let Some(length) = self.first_record() {
                    let more = script.bytes(8);
                    let end = 5 + length;
                    self.wire.splice(end..end, more.iter().copied());
                    self.wire[3..5].copy_from_slice(&((length + more.len()) as u16).to_be_bytes());
                }
            }
            _ => {
                // One record in two.
                if let Some(length) = self.first_record() {
                    let first = script.below(length + 1);
                    let header = [&self.wire[..3], &((length - first) as u16).to_be_bytes()].concat();
                    self.wire.splice(5 + first..5 + first, header);
                    self.wire[3..5].copy_from_slice(&(first as u16).to_be_bytes());
                }
            }
        }
    }

    /// The length of the record at the front, if it is whole.
    fn first_record(&self) -> Option<usize> {
        let length = usize::from(u16::from_be_bytes([*self.wire.get(3)?, *self.wire.get(4)?]));
        (self.wire.len() >= 5 + length).then_some(length)
    }

    /// So many bytes arrive.
    fn deliver(&mut self, count: usize) {
        self.collect();
        let arrived: Vec<u8> = self.wire.drain(..count.min(self.wire.len())).collect();
        if !arrived.is_empty() {
            self.receive(&arrived);
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        let mut input = Buf::empty();
        input.extend_from_slice(bytes);
        let (mut plain, mut out) = (Buf::empty(), Buf::empty());
        let result = match &mut self.own {
            Own::Accepting(library) => library.receive(input, &mut plain, &mut out).map_err(|error| error.to_string()),
            Own::Connecting(library) => library.receive(input, &mut plain, &mut out).map_err(|error| error.to_string()),
            Own::Serving(layer) => received(&mut **layer, input, &mut plain, &mut out),
            Own::Asking(layer) => received(&mut **layer, input, &mut plain, &mut out),
            Own::Gone => return,
        };
        assert!(!self.ended || plain.is_empty() || result.is_err(), "nothing comes after the end");
        self.heard.extend_from_slice(&plain);
        assert_records(&out);
        match (result, &self.error) {
            (Err(error), Some(known)) => {
                assert_eq!(error, *known, "an error is final");
                assert!(plain.is_empty() && out.is_empty(), "and nothing is said after it");
            }
            (Ok(_), Some(known)) => panic!("after {known} it goes on"),
            (Err(error), None) => {
                // After our own end there is nothing more to be said.
                let told =
                    !out.is_empty() || self.closed || error.contains("lert") || !matches!(self.own, Own::Serving(_));
                assert!(told, "the peer is told of {error}");
                self.error = Some(error);
            }
            (Ok(step), None) => {
                assert!(step.ended || !self.ended, "an end is final");
                self.ended |= step.ended;
            }
        }
        self.hear(&out);
        self.open();
    }

    /// The peer reads.
    fn hear(&mut self, mut bytes: &[u8]) {
        let Some(peer) = &mut self.peer else { return };
        while !bytes.is_empty() && peer.read_tls(&mut bytes).is_ok_and(|n| n > 0) {
            if peer.process_new_packets().is_err() {
                // It has nothing more to say than its alert.
                self.honest = false;
                self.collect();
                self.peer = None;
                return;
            }
            let _ = peer.reader().read_to_end(&mut Vec::new());
        }
    }

    /// A handshake that is over leaves a layer, one that has failed nothing.
    fn open(&mut self) {
        let failed = self.error.is_some();
        self.own = match std::mem::replace(&mut self.own, Own::Gone) {
            Own::Accepting(_) | Own::Connecting(_) if failed => Own::Gone,
            Own::Accepting(library) if !library.is_handshaking() => {
                let (hello, owner) = (ClientHello::default(), Rc::new(()));
                Own::Serving(Box::new(ServerLayer::new(*library, hello, owner, &self.server, Signatures::default())))
            }
            Own::Connecting(library) if !library.is_handshaking() => Own::Asking(Box::new(ClientLayer::new(*library))),
            other => other,
        };
    }

    /// To another process.
    fn travel(&mut self) {
        let layer = match std::mem::replace(&mut self.own, Own::Gone) {
            Own::Serving(layer) if layer.can_leave() => *layer,
            other => {
                self.own = other;
                return;
            }
        };
        assert!(self.error.is_none() && !self.ended);
        let mut out = Buf::empty();
        let (departed, rest) = layer.leave(&mut out).expect("it can leave");
        assert_records(&out);
        self.hear(&out);
        let departed = Departed::decode(&departed.encode()).expect("what was written is read");
        self.own = Own::Serving(Box::new(ServerLayer::resume(departed, Rc::new(()), Some(&self.server))));
        self.receive(&rest);
    }

    /// Our side ends.
    fn close(&mut self) {
        self.closed = true;
        let mut out = Buf::empty();
        match &mut self.own {
            Own::Accepting(library) => library.close(&mut out),
            Own::Connecting(library) => library.close(&mut out),
            Own::Serving(layer) => layer.close(&mut out),
            Own::Asking(layer) => layer.close(&mut out),
            Own::Gone => {}
        }
        assert!(self.error.is_none() || out.is_empty(), "after an error nothing is said");
        assert_records(&out);
        self.hear(&out);
    }

    fn check(&mut self) {
        if let (Some(error), Own::Serving(layer)) = (&self.error, &self.own) {
            assert!(!layer.can_leave(), "{error}");
        }
        if self.error.is_some() {
            assert!(self.own.send(b"x").is_none(), "after an error nothing is sent");
        }
        if self.honest && !matches!(self.own, Own::Gone) {
            // New keys after a hand-over end a connection: they can't be followed.
            let excused = self.error.as_ref().is_some_and(|error| error.contains("key update"));
            assert!(excused || self.error.is_none(), "{:?}", self.error);
            assert!(excused || self.heard == self.said, "{} bytes of {}", self.heard.len(), self.said.len());
        }
    }
}

impl Own {
    /// What this looks like on the wire, if it may be sent.
    fn send(&mut self, plain: &[u8]) -> Option<Buf> {
        let mut out = Buf::empty();
        let sent = match self {
            Own::Accepting(library) => library.send(plain, &mut out),
            Own::Connecting(library) => library.send(plain, &mut out),
            Own::Serving(layer) => layer.send(plain, &mut out),
            Own::Asking(layer) => layer.send(plain, &mut out),
            Own::Gone => return None,
        };
        assert_records(&out);
        sent.is_ok().then_some(out)
    }
}

fn received(layer: &mut dyn Layer, input: Buf, plain: &mut Buf, out: &mut Buf) -> Result<Step, String> {
    let received = layer.receive(input, plain, out);
    received.map(|ended| Step { ended, open: true }).map_err(|error| error.to_string())
}

/// What is sent is whole records.
fn assert_records(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let [20..=23, 3, 0..=3, high, low, rest @ ..] = bytes else { panic!("no record: {bytes:?}") };
        bytes = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..).expect("the record is whole");
    }
}

fn own_identity() -> Identity {
    identity(&format!("data:{CERTIFICATE}"), &format!("data:{KEY}"), &[]).expect("the certificate fits its key")
}

fn server_settings(tls13: bool, asks: bool) -> ServerSettings {
    let auth = || ClientAuth { trust: Arc::new(Trust::new(1)), authorities: Arc::default() };
    ServerSettings {
        identities: vec![own_identity()],
        named: Vec::new(),
        protocols: Protocols { tls12: !tls13, tls13 },
        ciphers: "HIGH:!aNULL:!MD5".to_owned(),
        ciphersuites: None,
        curves: "X25519".to_owned(),
        prefer_server: false,
        buffer_size: 16384,
        alpn: vec![b"http/1.1".to_vec()],
        cache: None,
        tickets: Some(TicketKeys::random()),
        timeout_s: 300,
        early_data: false,
        compression: false,
        client_auth: asks.then(auth),
        key_log: None,
    }
}

fn client_settings(tls13: bool, asks: bool) -> ClientSettings {
    ClientSettings {
        protocols: Protocols { tls12: !tls13, tls13 },
        ciphers: "DEFAULT".to_owned(),
        ciphersuites: None,
        curves: "X25519".to_owned(),
        identity: asks.then(own_identity),
        server_name: true,
        reuse: true,
        alpn: vec![b"http/1.1".to_vec()],
        trust: None,
        key_log: None,
    }
}

/// A client of the library's, which speaks both versions and takes any certificate.
fn client_config(asks: bool) -> ClientConfig {
    let settings = ClientSettings { protocols: Protocols { tls12: true, tls13: true }, ..client_settings(true, asks) };
    let client = Client::new(&settings).expect("these settings are good");
    let mut config = (*client.config(None)).clone();
    config.enable_secret_extraction = true;
    config
}

#[cfg(test)]
mod tests;
