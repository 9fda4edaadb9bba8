//! The state of sessions over UDP as it travels between workers: pure encoding and decoding.

use std::net::{IpAddr, SocketAddr};

use buf::Secret;
use common::handover::format::{decode_addr, encode_addr};
use os::SockAddr;
use wire::tagged::{Reader, Writer};

use super::tally::{Expected, Tally};
use crate::session::state::SessionState;

/// A session, besides the socket to its backend.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UdpState {
    /// What every session has.
    pub session: SessionState,
    /// Where the client's datagrams come from: a proxy, perhaps.
    pub from: SockAddr,
    /// The address of this machine that they come to.
    pub to: Option<IpAddr>,
    /// Whether the client's next datagram belongs to it.
    pub bound: bool,
    /// Whether each datagram of the client has a header.
    pub headers: bool,
    /// The datagrams so far.
    pub tally: Tally,
    /// Bytes from and to the client.
    pub client_bytes: [u64; 2],
    /// Bytes from and to the backend.
    pub backend_bytes: [u64; 2],
    /// `proxy_timeout`, and how much of it is left.
    pub timeouts_ms: [u64; 2],
    /// The header that each datagram to the backend gets.
    pub header: Option<Vec<u8>>,
    /// Bytes a second from the client and to it; 0 for any number.
    pub rates: [u64; 2],
    /// How long ago the backend was chosen, and how long its first datagram took.
    pub age_ms: u64,
    pub first_ms: Option<u64>,
    /// Whether the backend has failed.
    pub failed: bool,
    /// The client's datagrams that wait to be sent to the backend.
    pub queued: Vec<Vec<u8>>,
    /// The backend's datagrams that wait to be sent to the client.
    pub batch: Vec<Vec<u8>>,
    /// The group's name.
    pub group: Vec<u8>,
}

impl UdpState {
    /// The message.
    pub(super) fn encode(&self) -> Secret {
        let mut out = Writer::new(VERSION);
        out.bytes(1, &self.session.encode()).bytes(2, &encode_addr(&self.from));
        out.list(3, self.to.map(|ip| encode_addr(&SocketAddr::new(ip, 0).into())));
        out.flag(4, self.bound).flag(5, self.headers);
        out.number(6, self.tally.requests).number(7, self.tally.responses);
        out.number(8, self.tally.expected.requests).some(9, self.tally.expected.responses);
        for (tag, pair) in [(10, self.client_bytes), (11, self.backend_bytes), (12, self.timeouts_ms), (13, self.rates)]
        {
            out.list(tag, pair.map(u64::to_le_bytes));
        }
        out.list(14, &self.header).number(15, self.age_ms).some(16, self.first_ms).flag(17, self.failed);
        out.list(19, &self.queued).list(20, &self.batch).number(21, self.tally.lost).bytes(18, &self.group);
        out.finish()
    }

    /// The state of a message.
    pub(super) fn decode(bytes: &[u8]) -> Option<UdpState> {
        let fields = Reader::new(VERSION, bytes)?;
        let pair = |tag| -> Option<[u64; 2]> {
            let mut all = fields.all(tag).map(|value| value.try_into().ok().map(u64::from_le_bytes));
            Some([all.next()??, all.next()??])
        };
        let to = fields.bytes(3).map(|bytes| decode_addr(bytes)?.ip());
        Some(UdpState {
            session: SessionState::decode(fields.bytes(1)?)?,
            from: decode_addr(fields.bytes(2)?)?,
            to: match to {
                Some(ip) => Some(ip?),
                None => None,
            },
            bound: fields.flag(4),
            headers: fields.flag(5),
            tally: Tally {
                requests: fields.number(6)?,
                responses: fields.number(7)?,
                // Older programs don't count them.
                lost: fields.number(21).unwrap_or(0),
                expected: Expected { requests: fields.number(8)?, responses: fields.number(9) },
            },
            client_bytes: pair(10)?,
            backend_bytes: pair(11)?,
            timeouts_ms: pair(12)?,
            rates: pair(13)?,
            header: fields.bytes(14).map(<[u8]>::to_vec),
            age_ms: fields.number(15)?,
            first_ms: fields.number(16),
            failed: fields.flag(17),
            queued: fields.all(19).map(<[u8]>::to_vec).collect(),
            batch: fields.all(20).map(<[u8]>::to_vec).collect(),
            group: fields.bytes(18)?.to_vec(),
        })
    }
}

const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> UdpState {
        let addr = |text: &str| SockAddr::from(text.parse::<SocketAddr>().unwrap());
        UdpState {
            session: SessionState { number: 7, ..SessionState::new(addr("0.0.0.0:53"), addr("192.0.2.1:1000")) },
            from: addr("192.0.2.9:1000"),
            to: Some([127, 0, 0, 2].into()),
            bound: true,
            headers: true,
            tally: Tally { requests: 3, responses: 2, lost: 1, expected: Expected { requests: 0, responses: Some(1) } },
            client_bytes: [30, 20],
            backend_bytes: [20, 30],
            timeouts_ms: [600_000, 5],
            header: Some(b"PROXY UNKNOWN\r\n".to_vec()),
            rates: [0, 1000],
            age_ms: 9,
            first_ms: Some(1),
            failed: false,
            queued: vec![b"one".to_vec(), Vec::new()],
            batch: vec![b"two".to_vec()],
            group: b"backends".to_vec(),
        }
    }

    #[test]
    fn round_trips() {
        assert_eq!(UdpState::decode(&state().encode()), Some(state()));
        let other = UdpState { to: None, header: None, first_ms: None, failed: true, bound: false, ..state() };
        assert_eq!(UdpState::decode(&other.encode()), Some(other));
    }

    #[test]
    fn refuses_what_is_not_whole() {
        let bytes = state().encode();
        for cut in 0..bytes.len() {
            assert_eq!(UdpState::decode(&bytes[..cut]), None, "cut at {cut}");
        }
    }
}
