//! The state of connections and requests as it travels between workers: pure encoding and decoding.
//!
//! All of it is [`wire::tagged`]. Fields that are missing take their default where there is one; a message without what
//! must be there is refused. Times travel as durations, since they mean the same in every process.

use buf::Secret;
use common::front::proxy::ProxyHeader;
use common::handover::format::{
    Pairs, decode_addr, decode_known_pairs, decode_pairs, decode_proxy, encode_addr, encode_known_pairs, encode_pairs,
    encode_proxy, owned,
};
pub use common::handover::format::{SecureState, SocketState};
use os::SockAddr;
use wire::tagged::{Reader, Writer};

/// A client's connection.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientState {
    /// The socket.
    pub socket: SocketState,
    /// The address of the `listen` that brought it.
    pub listen: SockAddr,
    /// The client.
    pub peer: SockAddr,
    /// What the PROXY protocol said.
    pub proxy: Option<ProxyHeader>,
    /// Whether its PROXY protocol header is still to come.
    pub proxy_expected: bool,
    /// Milliseconds since it was accepted.
    pub age_ms: u64,
    /// How many requests it has brought.
    pub requests: u32,
    /// How long it may be idle.
    pub keepalive_ms: u32,
    /// How long of that it isn't closed for want of connections.
    pub keepalive_min_ms: u32,
    /// Whether TCP_NODELAY is set.
    pub nodelay: bool,
    /// Whether it is logged in all detail.
    pub debug: bool,
    /// Its TLS.
    pub secure: Option<SecureState>,
}

/// A request that was answered by 101.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestState {
    /// The bytes of its head.
    pub head: Vec<u8>,
    /// The path as it is by now.
    pub uri: Vec<u8>,
    /// The query as it is by now.
    pub args: Vec<u8>,
    /// The location, if it is a named one.
    pub named: Option<Vec<u8>>,
    /// Milliseconds since it began.
    pub age_ms: u64,
    /// What the connection had sent when it began.
    pub sent_before: u64,
    /// The length of the response's head.
    pub header_sent: u64,
    /// Bytes of its body.
    pub body_received: u64,
    /// Whether it was redirected within the server.
    pub internal: bool,
    /// Whether it came in the same read as the one before.
    pub pipelined: bool,
    /// `$request_id`, if it has one.
    pub id: Option<String>,
    /// Stored variables: names and values.
    pub values: Vec<(Vec<u8>, Vec<u8>)>,
    /// Fields of the response.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// `Content-Type` of the response.
    pub content_type: Option<Vec<u8>>,
    /// The client's address, if a trusted proxy has named it.
    pub client: Option<SockAddr>,
    /// What it is counted for by `limit_conn`; `None`: another program hasn't said it.
    pub held: Option<Pairs>,
}

impl ClientState {
    /// The message.
    pub fn encode(&self) -> Secret {
        let mut out = Writer::new(VERSION);
        out.bytes(1, &self.socket.encode()).bytes(2, &encode_addr(&self.listen)).bytes(3, &encode_addr(&self.peer));
        out.list(4, self.proxy.as_ref().map(encode_proxy));
        out.flag(5, self.proxy_expected).number(6, self.age_ms).number(7, self.requests.into());
        out.number(8, self.keepalive_ms.into()).number(9, self.keepalive_min_ms.into());
        out.flag(10, self.nodelay).flag(11, self.debug).list(12, self.secure.as_ref().map(SecureState::encode));
        out.finish()
    }

    /// The state of a message.
    pub fn decode(bytes: &[u8]) -> Option<ClientState> {
        let fields = Reader::new(VERSION, bytes)?;
        let proxy = fields.bytes(4).map(decode_proxy);
        let secure = fields.bytes(12).map(SecureState::decode);
        let short = |tag| fields.number(tag).map_or(Some(0), |number| u32::try_from(number).ok());
        Some(ClientState {
            socket: SocketState::decode(fields.bytes(1)?)?,
            listen: decode_addr(fields.bytes(2)?)?,
            peer: decode_addr(fields.bytes(3)?)?,
            proxy: match proxy {
                Some(proxy) => Some(proxy?),
                None => None,
            },
            proxy_expected: fields.flag(5),
            age_ms: fields.number(6)?,
            requests: short(7)?,
            keepalive_ms: short(8)?,
            keepalive_min_ms: short(9)?,
            nodelay: fields.flag(10),
            debug: fields.flag(11),
            secure: match secure {
                Some(secure) => Some(secure?),
                None => None,
            },
        })
    }
}

impl RequestState {
    /// The message.
    pub fn encode(&self) -> Secret {
        let mut out = Writer::new(VERSION);
        out.bytes(1, &self.head).bytes(2, &self.uri).bytes(3, &self.args);
        out.list(4, &self.named);
        out.number(5, self.age_ms).number(6, self.sent_before).number(7, self.header_sent);
        out.number(8, self.body_received).flag(9, self.internal).flag(10, self.pipelined);
        out.list(11, &self.id);
        encode_pairs(&mut out, 12, &self.values);
        encode_pairs(&mut out, 13, &self.fields);
        out.list(14, &self.content_type).list(15, self.client.as_ref().map(encode_addr));
        encode_known_pairs(&mut out, 16, 17, self.held.as_ref());
        out.finish()
    }

    /// The state of a message.
    pub fn decode(bytes: &[u8]) -> Option<RequestState> {
        let fields = Reader::new(VERSION, bytes)?;
        Some(RequestState {
            head: fields.bytes(1)?.to_vec(),
            uri: fields.bytes(2)?.to_vec(),
            args: owned(fields, 3),
            named: fields.bytes(4).map(<[u8]>::to_vec),
            age_ms: fields.number(5)?,
            sent_before: fields.number(6)?,
            header_sent: fields.number(7)?,
            body_received: fields.number(8).unwrap_or(0),
            internal: fields.flag(9),
            pipelined: fields.flag(10),
            id: fields.bytes(11).map(|id| String::from_utf8_lossy(id).into_owned()),
            values: decode_pairs(fields, 12)?,
            fields: decode_pairs(fields, 13)?,
            content_type: fields.bytes(14).map(<[u8]>::to_vec),
            client: fields.bytes(15).and_then(decode_addr),
            held: decode_known_pairs(fields, 16, 17)?,
        })
    }
}

const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn addr(text: &str) -> SockAddr {
        SockAddr::from(text.parse::<SocketAddr>().expect("an address"))
    }

    fn client() -> ClientState {
        ClientState {
            socket: SocketState {
                number: 7,
                received: 1 << 40,
                sent: 3,
                timeout_ms: Some(0),
                unread: b"GET".to_vec(),
                unsent: vec![0; 70_000],
            },
            listen: addr("0.0.0.0:80"),
            peer: addr("[fe80::1%3]:1024"),
            proxy: Some(ProxyHeader {
                source: addr("[::1]:1"),
                destination: SockAddr::unix(b"/run/a").expect("short enough"),
                tlvs: [1, 0, 0].into(),
            }),
            proxy_expected: true,
            age_ms: 9,
            requests: u32::MAX,
            keepalive_ms: 75_000,
            keepalive_min_ms: 0,
            nodelay: true,
            debug: false,
            secure: Some(SecureState {
                tls: vec![1; 200].into(),
                received: 8,
                sent: u64::MAX,
                unread: b"early".to_vec(),
                unsent: Vec::new(),
            }),
        }
    }

    fn request() -> RequestState {
        let pairs = |names: &[&str]| names.iter().map(|name| (name.as_bytes().to_vec(), b"x: y".to_vec())).collect();
        RequestState {
            head: b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            uri: b"/a b".to_vec(),
            named: Some(b"@b".to_vec()),
            id: Some("abc".into()),
            values: pairs(&["one", "two"]),
            fields: pairs(&["Upgrade"]),
            client: Some(addr("192.0.2.7:9")),
            held: Some(pairs(&["zone"])),
            internal: true,
            ..RequestState::default()
        }
    }

    #[test]
    fn round_trips() {
        assert_eq!(ClientState::decode(&client().encode()), Some(client()));
        let plain = ClientState { proxy: None, secure: None, ..client() };
        assert_eq!(ClientState::decode(&plain.encode()), Some(plain));
        assert_eq!(RequestState::decode(&request().encode()), Some(request()));
    }

    #[test]
    fn refuses_what_is_not_whole() {
        let bytes = client().encode();
        for cut in (0..bytes.len()).step_by(97) {
            assert_eq!(ClientState::decode(&bytes[..cut]), None, "cut at {cut}");
        }
        let mut newer = bytes.to_vec();
        newer[0] = VERSION + 1;
        assert_eq!(ClientState::decode(&newer), None);
    }
}
