//! The state of a session as it travels between workers: pure encoding and decoding.

use buf::Secret;
use common::backend::attempts::Attempt;
use common::front::proxy::ProxyHeader;
use common::handover::format::{
    Pairs, decode_addr, decode_attempt, decode_known_pairs, decode_pairs, decode_proxy, encode_addr, encode_attempt,
    encode_known_pairs, encode_pairs, encode_proxy, owned,
};
use os::SockAddr;
use wire::tagged::{Reader, Writer};

/// What is known of a session, besides what carries its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionState {
    /// The connection's serial number.
    pub number: u64,
    /// The address that it came by, as the configuration has it.
    pub listen: SockAddr,
    /// The client's address.
    pub peer: SockAddr,
    /// The trusted proxy that has named it.
    pub relay: Option<SockAddr>,
    /// What the PROXY protocol said.
    pub proxy: Option<ProxyHeader>,
    /// Received bytes that aren't the session's.
    pub apart: u64,
    /// The name of its server.
    pub server: Vec<u8>,
    /// How long it lasts already.
    pub age_ms: u64,
    /// The attempts to reach a backend.
    pub attempts: Vec<Attempt>,
    /// Stored variables: names and values.
    pub values: Pairs,
    /// What its first bytes said: modules and what they have found.
    pub found: Pairs,
    /// What it is counted for by `limit_conn`; `None`: another program hasn't said it.
    pub held: Option<Pairs>,
}

impl SessionState {
    /// Of a client of which nothing else is known.
    pub fn new(listen: SockAddr, peer: SockAddr) -> SessionState {
        SessionState {
            number: 0,
            listen,
            peer,
            relay: None,
            proxy: None,
            apart: 0,
            server: Vec::new(),
            age_ms: 0,
            attempts: Vec::new(),
            values: Vec::new(),
            found: Vec::new(),
            held: None,
        }
    }

    /// The message.
    pub fn encode(&self) -> Secret {
        let mut out = Writer::new(VERSION);
        out.number(1, self.number).bytes(2, &encode_addr(&self.listen)).bytes(3, &encode_addr(&self.peer));
        out.list(4, self.relay.as_ref().map(encode_addr)).list(5, self.proxy.as_ref().map(encode_proxy));
        out.number(7, self.age_ms);
        out.list(8, self.attempts.iter().map(encode_attempt));
        encode_pairs(&mut out, 9, &self.values);
        encode_pairs(&mut out, 12, &self.found);
        encode_known_pairs(&mut out, 13, 14, self.held.as_ref());
        out.number(10, self.apart).bytes(11, &self.server);
        out.finish()
    }

    /// The state of a message.
    pub fn decode(bytes: &[u8]) -> Option<SessionState> {
        let fields = Reader::new(VERSION, bytes)?;
        Some(SessionState {
            number: fields.number(1)?,
            listen: decode_addr(fields.bytes(2)?)?,
            peer: decode_addr(fields.bytes(3)?)?,
            relay: fields.bytes(4).and_then(decode_addr),
            proxy: fields.bytes(5).and_then(decode_proxy),
            apart: fields.number(10)?,
            server: owned(fields, 11),
            age_ms: fields.number(7)?,
            attempts: fields.all(8).map(decode_attempt).collect::<Option<_>>()?,
            values: decode_pairs(fields, 9)?,
            found: decode_pairs(fields, 12)?,
            held: decode_known_pairs(fields, 13, 14)?,
        })
    }
}

const VERSION: u8 = 1;
