//! The state of connections as it travels between workers: what all protocols have. Pure encoding and decoding.
//!
//! All of it is [`wire::tagged`]. Fields that are missing take their default where there is one; a message without what
//! must be there is refused. Times travel as durations, since they mean the same in every process.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use buf::Secret;
use os::SockAddr;
use wire::tagged::{Reader, Writer};

use crate::backend::attempts::Attempt;
use crate::front::proxy::ProxyHeader;

/// What stands between a socket and its users; the socket's own bytes and counts are those of the wire.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SecureState {
    /// The layer's state, with its keys.
    pub tls: Secret,
    /// Plaintext received.
    pub received: u64,
    /// Plaintext sent.
    pub sent: u64,
    /// Plaintext received, not read.
    pub unread: Vec<u8>,
    /// Plaintext to be sent.
    pub unsent: Vec<u8>,
}

/// What the event loop knows of a socket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SocketState {
    /// Its serial number.
    pub number: u64,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Milliseconds until reading fails, if it does some time.
    pub timeout_ms: Option<u64>,
    /// Received, not read.
    pub unread: Vec<u8>,
    /// To be sent.
    pub unsent: Vec<u8>,
}

impl SecureState {
    /// The message.
    pub fn encode(&self) -> Secret {
        let mut out = Writer::new(VERSION);
        out.bytes(1, &self.tls).number(2, self.received).number(3, self.sent);
        out.bytes(4, &self.unread).bytes(5, &self.unsent);
        out.finish()
    }

    /// The state of a message.
    pub fn decode(bytes: &[u8]) -> Option<SecureState> {
        let fields = Reader::new(VERSION, bytes)?;
        Some(SecureState {
            tls: fields.bytes(1)?.into(),
            received: fields.number(2)?,
            sent: fields.number(3)?,
            unread: owned(fields, 4),
            unsent: owned(fields, 5),
        })
    }
}

impl SocketState {
    /// The message.
    pub fn encode(&self) -> Secret {
        let mut out = Writer::new(VERSION);
        out.number(1, self.number).number(2, self.received).number(3, self.sent).some(4, self.timeout_ms);
        out.bytes(5, &self.unread).bytes(6, &self.unsent);
        out.finish()
    }

    /// The state of a message.
    pub fn decode(bytes: &[u8]) -> Option<SocketState> {
        let fields = Reader::new(VERSION, bytes)?;
        Some(SocketState {
            number: fields.number(1)?,
            received: fields.number(2)?,
            sent: fields.number(3)?,
            timeout_ms: fields.number(4),
            unread: owned(fields, 5),
            unsent: owned(fields, 6),
        })
    }
}

/// Both connections of a tunnel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TunnelSockets {
    /// The client's.
    pub client: SocketState,
    /// Its TLS.
    pub secure: Option<SecureState>,
    /// The backend's.
    pub backend: SocketState,
}

impl TunnelSockets {
    /// Writes them as three fields, from this tag on.
    pub fn write(&self, tag: u8, out: &mut Writer) {
        out.bytes(tag, &self.client.encode()).list(tag + 1, self.secure.as_ref().map(SecureState::encode));
        out.bytes(tag + 2, &self.backend.encode());
    }

    /// Reads that.
    pub fn read(tag: u8, fields: Reader<'_>) -> Option<TunnelSockets> {
        let secure = fields.bytes(tag + 1).map(|bytes| SecureState::decode(bytes).ok_or(()));
        Some(TunnelSockets {
            client: SocketState::decode(fields.bytes(tag)?)?,
            secure: secure.transpose().ok()?,
            backend: SocketState::decode(fields.bytes(tag + 2)?)?,
        })
    }
}

/// A header of the PROXY protocol.
pub fn encode_proxy(proxy: &ProxyHeader) -> Secret {
    let mut header = Writer::new(VERSION);
    header.bytes(1, &encode_addr(&proxy.source)).bytes(2, &encode_addr(&proxy.destination));
    header.bytes(3, &proxy.tlvs);
    header.finish()
}

/// Reads that.
pub fn decode_proxy(bytes: &[u8]) -> Option<ProxyHeader> {
    let fields = Reader::new(VERSION, bytes)?;
    let (source, destination) = (decode_addr(fields.bytes(1)?)?, decode_addr(fields.bytes(2)?)?);
    Some(ProxyHeader { source, destination, tlvs: fields.bytes(3).unwrap_or_default().into() })
}

/// The bytes of a field; none if it isn't there.
pub fn owned(fields: Reader<'_>, tag: u8) -> Vec<u8> {
    fields.bytes(tag).unwrap_or_default().to_vec()
}

/// One attempt to ask a backend.
pub fn encode_attempt(attempt: &Attempt) -> Secret {
    let mut out = Writer::new(VERSION);
    out.list(1, attempt.peer.iter().map(|peer| peer.as_bytes()));
    out.number(2, attempt.status.into()).some(3, attempt.connect_ms).some(4, attempt.header_ms);
    out.some(5, attempt.response_ms).number(6, attempt.length).number(7, attempt.received);
    out.number(8, attempt.sent).flag(9, attempt.redirected).some(10, attempt.queue_ms);
    out.list(11, attempt.server.iter().map(|server| server.as_bytes()));
    out.finish()
}

/// Reads that.
pub fn decode_attempt(bytes: &[u8]) -> Option<Attempt> {
    let fields = Reader::new(VERSION, bytes)?;
    Some(Attempt {
        peer: fields.bytes(1).map(|peer| String::from_utf8_lossy(peer).into()),
        status: u16::try_from(fields.number(2)?).ok()?,
        connect_ms: fields.number(3),
        header_ms: fields.number(4),
        response_ms: fields.number(5),
        length: fields.number(6)?,
        received: fields.number(7)?,
        sent: fields.number(8)?,
        redirected: fields.flag(9),
        queue_ms: fields.number(10),
        server: fields.bytes(11).map(|server| String::from_utf8_lossy(server).into()),
    })
}

/// Names with their values.
pub fn encode_pairs(out: &mut Writer, tag: u8, pairs: &[(Vec<u8>, Vec<u8>)]) {
    for (name, value) in pairs {
        let mut pair = Writer::new(VERSION);
        pair.bytes(1, name).bytes(2, value);
        out.bytes(tag, &pair.finish());
    }
}

/// Reads those of a tag.
pub fn decode_pairs(fields: Reader<'_>, tag: u8) -> Option<Pairs> {
    let pair = |bytes| {
        let pair = Reader::new(VERSION, bytes)?;
        Some((pair.bytes(1)?.to_vec(), pair.bytes(2)?.to_vec()))
    };
    fields.all(tag).map(pair).collect()
}

/// Writes pairs of which nothing may be known, which isn't the same as that there are none: `known` is another tag.
pub fn encode_known_pairs(out: &mut Writer, known: u8, tag: u8, pairs: Option<&Pairs>) {
    out.flag(known, pairs.is_some());
    encode_pairs(out, tag, pairs.map_or(&[], |pairs| pairs));
}

/// Reads those.
pub fn decode_known_pairs(fields: Reader<'_>, known: u8, tag: u8) -> Option<Option<Pairs>> {
    if fields.flag(known) { decode_pairs(fields, tag).map(Some) } else { Some(None) }
}

/// What [`encode_pairs`] writes.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// An address: its family (4, 6, or 1 for unix), then its parts.
pub fn encode_addr(addr: &SockAddr) -> Vec<u8> {
    let mut out = vec![match addr {
        SockAddr::V4(_) => 4,
        SockAddr::V6(_) => 6,
        SockAddr::Unix(_) => 1,
    }];
    match addr {
        SockAddr::V4(addr) => out.extend_from_slice(&addr.ip().octets()),
        SockAddr::V6(addr) => out.extend_from_slice(&addr.ip().octets()),
        SockAddr::Unix(path) => out.extend_from_slice(path),
    }
    if !addr.is_unix() {
        out.extend_from_slice(&addr.port().to_be_bytes());
    }
    if let SockAddr::V6(addr) = addr {
        out.extend_from_slice(&addr.flowinfo().to_be_bytes());
        out.extend_from_slice(&addr.scope_id().to_be_bytes());
    }
    out
}

/// Reads that.
pub fn decode_addr(bytes: &[u8]) -> Option<SockAddr> {
    let (family, rest) = bytes.split_first()?;
    match family {
        1 => SockAddr::unix(rest).ok(),
        4 => {
            let (ip, port) = rest.split_first_chunk::<4>()?;
            Some(SockAddr::from(SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(port.try_into().ok()?))))
        }
        6 => {
            let (ip, rest) = rest.split_first_chunk::<16>()?;
            let (port, rest) = rest.split_first_chunk()?;
            let (flow, scope) = rest.split_first_chunk()?;
            let scope = u32::from_be_bytes(scope.try_into().ok()?);
            let (port, flow) = (u16::from_be_bytes(*port), u32::from_be_bytes(*flow));
            Some(SockAddr::V6(SocketAddrV6::new((*ip).into(), port, flow, scope)))
        }
        _ => None,
    }
}

const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SockAddr {
        SockAddr::from(text.parse::<SocketAddr>().expect("an address"))
    }

    #[test]
    fn addresses() {
        for addr in [addr("1.2.3.4:65535"), addr("[::]:0"), SockAddr::unix(b"\0abstract").expect("short enough")] {
            assert_eq!(decode_addr(&encode_addr(&addr)), Some(addr));
        }
        for bytes in [&b""[..], &[4, 1, 2, 3], &[6; 10], &[9, 1]] {
            assert_eq!(decode_addr(bytes), None, "{bytes:?}");
        }
    }
}
