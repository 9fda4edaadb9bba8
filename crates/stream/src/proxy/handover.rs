//! Sessions that leave for another worker, or come from one, on a reload or in an upgrade.
//!
//! A session goes with both its sockets, the bytes that are under way in them, the keys of its TLS with the client, and what
//! its lines in the logs need at its end. Its server is found again by the listening address and its name, its group by name.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use buf::{Bytes, Chain, Secret};
use common::backend::targets::Groups;
use common::handover::format::{TunnelSockets, owned};
use common::handover::{address_of, leave_tunnel, resume_tunnel};
use engine::handover::{Handover, Parcel, kind};
use engine::log::Level;
use upstream::{Choice, Outcome};
use wire::tagged::{Reader, Writer};

use super::Backend;
use super::relay::{Relay, State};
use crate::server::{Address, Stream};
use crate::session::state::SessionState;
use crate::session::{Link, StreamSession, resume};

/// A session as it travels.
#[derive(Clone, Debug, PartialEq)]
struct TunnelState {
    /// What is known of it.
    session: SessionState,
    /// Both connections.
    sockets: TunnelSockets,
    /// Milliseconds since the last attempt began.
    attempt_ms: u64,
    /// The group's name.
    group: Vec<u8>,
    /// Whether the client has ended its direction.
    up_ended: bool,
    /// Whether the server has.
    down_ended: bool,
    /// Bytes a second from the client and to it; 0 for any number.
    rates: [u64; 2],
}

impl TunnelState {
    fn encode(&self) -> Secret {
        let mut out = Writer::new(VERSION);
        out.bytes(1, &self.session.encode());
        self.sockets.write(2, &mut out);
        out.number(5, self.attempt_ms).bytes(6, &self.group).flag(7, self.up_ended).flag(8, self.down_ended);
        out.number(9, self.rates[0]).number(10, self.rates[1]);
        out.finish()
    }

    fn decode(bytes: &[u8]) -> Option<TunnelState> {
        let fields = Reader::new(VERSION, bytes)?;
        Some(TunnelState {
            session: SessionState::decode(fields.bytes(1)?)?,
            sockets: TunnelSockets::read(2, fields)?,
            attempt_ms: fields.number(5)?,
            group: owned(fields, 6),
            up_ended: fields.flag(7),
            down_ended: fields.flag(8),
            rates: [fields.number(9)?, fields.number(10)?],
        })
    }
}

const VERSION: u8 = 1;

/// Gives a session away. `up` and `down` are bytes that its streams haven't taken over.
pub(super) fn give(to: &Handover, mut s: Box<StreamSession>, relay: Relay, up: Chain, down: Chain) {
    let session = s.state();
    let Relay { mut choice, backend, began_ms, rates, state, .. } = relay;
    let Link::Stream(client) = s.link else { return };
    let wait_ms = if state.down_ended { &client } else { &backend }.recv_timeout_left();
    let Some((sockets, fds)) = leave_tunnel(client, backend, wait_ms, [down, up]) else { return };
    let kind = if sockets.secure.is_some() { kind::STREAM_TLS } else { kind::STREAM };
    let state = TunnelState {
        session,
        sockets,
        attempt_ms: rt::now_ms().saturating_sub(began_ms),
        group: choice.group().name.as_bytes().to_vec(),
        up_ended: state.up_ended,
        down_ended: state.down_ended,
        rates,
    };
    choice.release(Outcome::Good);
    to.give(Parcel { kind, payload: state.encode(), fds });
}

/// Serves on a session of another worker; `back`: one that this worker had given away in vain. `Err`: it is of another kind, or
/// there is no place for it.
pub(super) fn adopt(stream: &Rc<Stream>, parcel: Parcel, back: bool) -> Result<(), Parcel> {
    if !matches!(parcel.kind, kind::STREAM | kind::STREAM_TLS) {
        return Err(parcel);
    }
    let Some(state) = TunnelState::decode(&parcel.payload) else { return Err(parcel) };
    let address = address_of(&stream.sockets, &state.session.listen, &parcel, back);
    let Some(address) = address.filter(|address| proxies(address, &state)) else { return Err(parcel) };
    let number = state.session.number;
    match restore(stream, address, state, parcel.fds, back) {
        Ok((s, relay)) => rt::spawn(resume(Box::new(s), |s| async move {
            let content = s.server.handlers.content.clone()?;
            let backend = content.as_any()?.downcast_ref::<Backend>()?;
            relay.serve(backend, s, Bytes::default(), Bytes::default()).await
        })),
        Err(why) => stream.log.write(Level::Error, Some(number), format_args!("{why}, session closed")),
    }
    Ok(())
}

/// Whether the server that a session has here passes sessions on too.
fn proxies(address: &Address, state: &TunnelState) -> bool {
    let server = StreamSession::server_named(address, &state.session.server);
    let handlers = &server.as_ref().unwrap_or(&address.default).handlers;
    let content = handlers.content.as_ref().and_then(|content| content.as_any());
    content.is_some_and(|content| content.is::<Backend>())
}

/// The session and its side to the server; else why it is closed.
fn restore(
    stream: &Rc<Stream>,
    address: Rc<Address>,
    state: TunnelState,
    fds: Vec<OwnedFd>,
    back: bool,
) -> Result<(StreamSession, Relay), &'static str> {
    let first_wait_ms = state.sockets.backend.timeout_ms;
    let (client, tls, backend) = resume_tunnel(state.sockets, fds, &address)?;
    let mut s = StreamSession::restore(stream, address, Link::Stream(client), state.session);
    s.base.tls = tls;
    let attempt = s.attempts.last().cloned().unwrap_or_default();
    let peer = attempt.peer.unwrap_or_default();
    let groups = stream.part::<Rc<RefCell<Groups>>>().cloned().unwrap_or_default();
    let addr = backend.peer_addr().ok();
    let group = groups.borrow().resume(&String::from_utf8_lossy(&state.group), &peer, addr);
    let first_byte_ms = attempt.header_ms;
    let relay = Relay {
        choice: Choice::resume(group, &peer),
        backend,
        began_ms: rt::now_ms().saturating_sub(state.attempt_ms),
        rates: state.rates,
        state: State { up_ended: state.up_ended, down_ended: state.down_ended, first_byte_ms, moved_ms: None },
        stays: back,
        first_wait_ms,
    };
    Ok((s, relay))
}

#[cfg(test)]
mod tests {
    use common::backend::attempts::Attempt;
    use common::front::proxy::ProxyHeader;
    use common::handover::format::{SecureState, SocketState};
    use os::SockAddr;

    use super::*;

    fn tunnel() -> TunnelState {
        let addr = |text: &str| SockAddr::from(text.parse::<std::net::SocketAddr>().expect("an address"));
        let session = SessionState {
            number: 7,
            relay: Some(addr("192.0.2.7:9")),
            proxy: Some(ProxyHeader { source: addr("[::1]:1"), destination: addr("[::2]:2"), tlvs: [1, 0, 0].into() }),
            apart: 16,
            server: b"example.com".to_vec(),
            attempts: vec![Attempt::default(), Attempt { peer: Some("127.0.0.1:1".into()), ..Attempt::default() }],
            values: vec![(b"a".to_vec(), b"b".to_vec())],
            found: vec![(b"ssl_preread".to_vec(), b"c".to_vec())],
            ..SessionState::new(addr("0.0.0.0:80"), addr("[::1]:1024"))
        };
        TunnelState {
            session,
            sockets: TunnelSockets {
                client: SocketState { number: 7, unsent: vec![0; 70_000], ..SocketState::default() },
                secure: Some(SecureState { tls: vec![1; 200].into(), sent: 9, ..SecureState::default() }),
                backend: SocketState { timeout_ms: Some(0), ..SocketState::default() },
            },
            attempt_ms: 8,
            group: b"backends".to_vec(),
            up_ended: true,
            down_ended: false,
            rates: [0, 1000],
        }
    }

    #[test]
    fn round_trips() {
        let sockets = TunnelSockets { secure: None, ..tunnel().sockets };
        let plain = TunnelState { sockets, down_ended: true, ..tunnel() };
        for state in [tunnel(), plain] {
            assert_eq!(TunnelState::decode(&state.encode()), Some(state));
        }
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
