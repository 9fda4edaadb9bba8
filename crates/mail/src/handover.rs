//! Clients that have logged in leave for another worker on a reload, or come from one: with both connections, the bytes
//! that are under way in them, and what the log tells of them. The server is found again by the listening address.

use std::rc::Rc;

use buf::{Bytes, Chain, Secret};
use common::handover::format::{TunnelSockets, decode_addr, encode_addr, owned};
use common::handover::{address_of, leave_tunnel, resume_tunnel};
use engine::handover::{Handover, Parcel, kind};
use engine::log::Level;
use os::SockAddr;
use wire::tagged::{Reader, Writer};

use crate::proxy::Tunnel;
use crate::server::Mail;
use crate::session::MailSession;

/// A client that has logged in.
#[derive(Clone, Debug, PartialEq)]
struct TunnelState {
    sockets: TunnelSockets,
    /// The address of the `listen` that brought it.
    listen: SockAddr,
    peer: SockAddr,
    starttls: bool,
    login: Vec<u8>,
    upstream: Vec<u8>,
    timeout_ms: u64,
}

impl TunnelState {
    fn encode(&self) -> Secret {
        let mut out = Writer::new(VERSION);
        self.sockets.write(1, &mut out);
        out.bytes(4, &encode_addr(&self.listen)).bytes(5, &encode_addr(&self.peer));
        out.flag(6, self.starttls).bytes(7, &self.login).bytes(8, &self.upstream).number(9, self.timeout_ms);
        out.finish()
    }

    fn decode(bytes: &[u8]) -> Option<TunnelState> {
        let fields = Reader::new(VERSION, bytes)?;
        Some(TunnelState {
            sockets: TunnelSockets::read(1, fields)?,
            listen: decode_addr(fields.bytes(4)?)?,
            peer: decode_addr(fields.bytes(5)?)?,
            starttls: fields.flag(6),
            login: owned(fields, 7),
            upstream: owned(fields, 8),
            timeout_ms: fields.number(9)?,
        })
    }
}

const VERSION: u8 = 1;

/// Gives a session away. `down` and `up` are bytes that its connections haven't taken over.
pub fn give(to: &Handover, tunnel: Tunnel, down: Chain, up: Chain) {
    let Tunnel { session, backend, timeout_ms, .. } = tunnel;
    let wait_ms = backend.recv_timeout_left();
    let MailSession { stream, address, base, starttls, login, upstream, .. } = session;
    let Some((sockets, fds)) = leave_tunnel(stream, backend, wait_ms, [down, up]) else { return };
    let kind = if sockets.secure.is_some() { kind::MAIL_TUNNEL_TLS } else { kind::MAIL_TUNNEL };
    let state = TunnelState {
        sockets,
        listen: address.addr.clone(),
        peer: base.peer,
        starttls,
        login,
        upstream: upstream.map(|text| text.as_bytes().to_vec()).unwrap_or_default(),
        timeout_ms,
    };
    to.give(Parcel { kind, payload: state.encode(), fds });
}

/// Serves on a session of another worker; `back`: one that this worker had given away in vain. `Err`: it is of another kind,
/// or there is no place for it.
pub fn adopt(mail: &Rc<Mail>, parcel: Parcel, back: bool) -> Result<(), Parcel> {
    if !matches!(parcel.kind, kind::MAIL_TUNNEL | kind::MAIL_TUNNEL_TLS) {
        return Err(parcel);
    }
    let Some(state) = TunnelState::decode(&parcel.payload) else { return Err(parcel) };
    let Some(address) = address_of(&mail.sockets, &state.listen, &parcel, back) else { return Err(parcel) };
    let (number, wait_ms) = (state.sockets.client.number, state.sockets.backend.timeout_ms);
    let (client, tls, backend) = match resume_tunnel(state.sockets, parcel.fds, &address) {
        Ok(sides) => sides,
        Err(why) => {
            mail.log.write(Level::Error, Some(number), format_args!("{why}, proxied session closed"));
            return Ok(());
        }
    };
    let mut session = MailSession::new(mail, address, client, state.peer);
    session.base.tls = tls;
    session.starttls = state.starttls;
    session.login = state.login;
    session.upstream = Some(String::from_utf8_lossy(&state.upstream).into());
    session.stays = back;
    let mut tunnel = Box::new(Tunnel::new(session, backend, Bytes::default(), Bytes::default()));
    (tunnel.timeout_ms, tunnel.first_wait_ms) = (state.timeout_ms, wait_ms);
    let counted = mail.worker.sessions.count();
    rt::spawn(async move {
        let _counted = counted;
        Box::pin(tunnel.run()).await;
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use common::handover::format::{SecureState, SocketState};

    use super::*;

    fn tunnel() -> TunnelState {
        let addr = |text: &str| SockAddr::from(text.parse::<std::net::SocketAddr>().expect("an address"));
        TunnelState {
            sockets: TunnelSockets {
                client: SocketState { number: 7, unsent: vec![0; 70_000], ..SocketState::default() },
                secure: Some(SecureState { unread: b"a NOOP\r\n".to_vec(), ..SecureState::default() }),
                backend: SocketState { number: 8, timeout_ms: Some(9), ..SocketState::default() },
            },
            listen: addr("0.0.0.0:143"),
            peer: addr("[::1]:1024"),
            starttls: true,
            login: b"us\xffer".to_vec(),
            upstream: b"127.0.0.1:143".to_vec(),
            timeout_ms: 86_400_000,
        }
    }

    #[test]
    fn round_trips() {
        assert_eq!(TunnelState::decode(&tunnel().encode()), Some(tunnel()));
        let sockets = TunnelSockets { secure: None, ..tunnel().sockets };
        let plain = TunnelState { sockets, starttls: false, ..tunnel() };
        assert_eq!(TunnelState::decode(&plain.encode()), Some(plain));
    }

    #[test]
    fn refuses_what_is_not_whole() {
        let bytes = tunnel().encode();
        for cut in (0..bytes.len()).step_by(97) {
            assert_eq!(TunnelState::decode(&bytes[..cut]), None, "cut at {cut}");
        }
    }
}
