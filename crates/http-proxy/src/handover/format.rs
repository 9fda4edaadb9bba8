//! The state of tunnels as it travels between workers: pure encoding and decoding, by the rules of
//! [`http::app::handover::format`].

use buf::Secret;
use common::handover::format::{decode_attempt, encode_attempt, owned};
use http::app::handover::format::{ClientState, RequestState, SocketState};
use http::exchange::Attempt;
use wire::tagged::{Reader, Writer};

/// An upgraded connection.
#[derive(Clone, Debug, PartialEq)]
pub struct TunnelState {
    /// The client's side.
    pub client: ClientState,
    /// The backend's side.
    pub backend: SocketState,
    /// The request.
    pub request: RequestState,
    /// Dealings with backends.
    pub exchange: ExchangeState,
    /// `send_timeout`, and those of the backend's side for sending and reading.
    pub timeouts_ms: [u64; 3],
    /// Bytes that went to the client through the tunnel.
    pub moved: u64,
}

/// What is known of a request's backends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExchangeState {
    /// The attempts; the last one is the tunnel's.
    pub attempts: Vec<Attempt>,
    /// Milliseconds since the last one began.
    pub age_ms: u64,
    /// The backend's answer: its head.
    pub head: Vec<u8>,
    /// The URI as the backend was asked for it.
    pub uri: Vec<u8>,
    /// The group's name.
    pub group: Vec<u8>,
    /// `http://`
    pub scheme: Vec<u8>,
    /// `$proxy_host`
    pub host: Vec<u8>,
    /// `$proxy_port`
    pub port: Vec<u8>,
    /// `$proxy_internal_body_length`
    pub body_length: Option<u64>,
}

impl TunnelState {
    /// The message.
    pub fn encode(&self) -> Secret {
        let mut out = Writer::new(VERSION);
        out.bytes(1, &self.client.encode()).bytes(2, &self.backend.encode());
        out.bytes(3, &self.request.encode()).bytes(4, &self.exchange.encode()).number(5, self.moved);
        out.list(6, self.timeouts_ms.iter().map(|ms| ms.to_le_bytes()));
        out.finish()
    }

    /// The state of a message.
    pub fn decode(bytes: &[u8]) -> Option<TunnelState> {
        let fields = Reader::new(VERSION, bytes)?;
        let mut timeouts_ms = [0; 3];
        let mut given = fields.all(6);
        for ms in &mut timeouts_ms {
            *ms = u64::from_le_bytes(given.next()?.try_into().ok()?);
        }
        Some(TunnelState {
            client: ClientState::decode(fields.bytes(1)?)?,
            backend: SocketState::decode(fields.bytes(2)?)?,
            request: RequestState::decode(fields.bytes(3)?)?,
            exchange: ExchangeState::decode(fields.bytes(4)?)?,
            moved: fields.number(5)?,
            timeouts_ms,
        })
    }
}

impl ExchangeState {
    fn encode(&self) -> Secret {
        let mut out = Writer::new(VERSION);
        out.list(1, self.attempts.iter().map(encode_attempt));
        out.number(2, self.age_ms).bytes(3, &self.head).bytes(4, &self.uri).bytes(5, &self.group);
        out.bytes(6, &self.scheme).bytes(7, &self.host).bytes(8, &self.port).some(9, self.body_length);
        out.finish()
    }

    fn decode(bytes: &[u8]) -> Option<ExchangeState> {
        let fields = Reader::new(VERSION, bytes)?;
        Some(ExchangeState {
            attempts: fields.all(1).map(decode_attempt).collect::<Option<_>>()?,
            age_ms: fields.number(2)?,
            head: owned(fields, 3),
            uri: owned(fields, 4),
            group: owned(fields, 5),
            scheme: owned(fields, 6),
            host: owned(fields, 7),
            port: owned(fields, 8),
            body_length: fields.number(9),
        })
    }
}

const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel() -> TunnelState {
        let listen = os::SockAddr::from(std::net::SocketAddr::from(([0, 0, 0, 0], 80)));
        let client = ClientState {
            socket: SocketState { number: 7, unsent: vec![0; 70_000], ..SocketState::default() },
            peer: listen.clone(),
            listen,
            proxy: None,
            proxy_expected: false,
            age_ms: 9,
            requests: 1,
            keepalive_ms: 75_000,
            keepalive_min_ms: 0,
            nodelay: true,
            debug: false,
            secure: None,
        };
        TunnelState {
            client,
            backend: SocketState { number: 8, timeout_ms: None, ..SocketState::default() },
            request: RequestState { head: b"GET / HTTP/1.1\r\n\r\n".to_vec(), ..RequestState::default() },
            exchange: ExchangeState {
                attempts: vec![
                    Attempt {
                        peer: Some("127.0.0.1:1".into()),
                        server: Some("a:1".into()),
                        queue_ms: Some(7),
                        status: 502,
                        ..Attempt::default()
                    },
                    Attempt { header_ms: Some(0), sent: 9, redirected: true, ..Attempt::default() },
                ],
                group: b"backends".to_vec(),
                body_length: Some(0),
                ..ExchangeState::default()
            },
            timeouts_ms: [60_000, 1, u64::MAX],
            moved: 5,
        }
    }

    #[test]
    fn round_trips() {
        assert_eq!(TunnelState::decode(&tunnel().encode()), Some(tunnel()));
    }

    #[test]
    fn refuses_what_is_not_whole() {
        let bytes = tunnel().encode();
        for cut in (0..bytes.len()).step_by(97) {
            assert_eq!(TunnelState::decode(&bytes[..cut]), None, "cut at {cut}");
        }
        let mut newer = bytes.to_vec();
        newer[0] = VERSION + 1;
        assert_eq!(TunnelState::decode(&newer), None);
    }
}
