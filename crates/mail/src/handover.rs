//! Clients that have logged in leave for another worker on a reload, or come from one: with both connections, the bytes
//! that are under way in them, and what the log tells of them. The server is found again by the listening address.

use std::os::fd::AsRawFd;
use std::rc::Rc;

use buf::{Bytes, Chain, Secret};
use common::front::addresses;
use common::handover::format::{SecureState, SocketState, decode_addr, encode_addr, owned};
use common::handover::{flat, leave, resume_layer, socket_state, stream};
use engine::handover::{Handover, Parcel, kind};
use engine::log::Level;
use os::SockAddr;
use os::socket::Kind;
use wire::tagged::{Reader, Writer};

use crate::proxy::Tunnel;
use crate::server::Mail;
use crate::session::MailSession;

/// A client that has logged in.
#[derive(Clone, Debug, Default, PartialEq)]
struct TunnelState {
    client: SocketState,
    secure: Option<SecureState>,
    backend: SocketState,
    /// The address of the `listen` that brought it.
    listen: Option<SockAddr>,
    peer: Option<SockAddr>,
    starttls: bool,
    login: Vec<u8>,
    upstream: Vec<u8>,
    timeout_ms: u64,
}

impl TunnelState {
    fn encode(&self) -> Secret {
        let mut out = Writer::new(VERSION);
        out.bytes(1, &self.client.encode()).list(2, self.secure.as_ref().map(SecureState::encode));
        out.bytes(3, &self.backend.encode()).list(4, self.listen.as_ref().map(encode_addr));
        out.list(5, self.peer.as_ref().map(encode_addr)).flag(6, self.starttls).bytes(7, &self.login);
        out.bytes(8, &self.upstream).number(9, self.timeout_ms);
        out.finish()
    }

    fn decode(bytes: &[u8]) -> Option<TunnelState> {
        let fields = Reader::new(VERSION, bytes)?;
        let secure = fields.bytes(2).map(SecureState::decode);
        Some(TunnelState {
            client: SocketState::decode(fields.bytes(1)?)?,
            secure: match secure {
                Some(secure) => Some(secure?),
                None => None,
            },
            backend: SocketState::decode(fields.bytes(3)?)?,
            listen: Some(decode_addr(fields.bytes(4)?)?),
            peer: Some(decode_addr(fields.bytes(5)?)?),
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
    let MailSession { stream, address, peer, starttls, login, upstream, .. } = session;
    let Some((mut client, mut secure, client_socket)) = leave(stream) else { return };
    match &mut secure {
        Some(secure) => secure.unsent.extend(flat(down)),
        None => client.unsent.extend(flat(down)),
    }
    let (mut backend, backend_socket) = socket_state(backend);
    backend.timeout_ms = wait_ms;
    backend.unsent.extend(flat(up));
    let kind = if secure.is_some() { kind::MAIL_TUNNEL_TLS } else { kind::MAIL_TUNNEL };
    let state = TunnelState {
        client,
        secure,
        backend,
        listen: Some(address.addr.clone()),
        peer: Some(peer),
        starttls,
        login,
        upstream: upstream.map(|text| text.as_bytes().to_vec()).unwrap_or_default(),
        timeout_ms,
    };
    to.give(Parcel { kind, payload: state.encode(), fds: vec![client_socket, backend_socket] });
}

/// Serves on a session of another worker; `back`: one that this worker had given away in vain. `Err`: it is of another kind,
/// or there is no place for it.
pub fn adopt(mail: &Rc<Mail>, mut parcel: Parcel, back: bool) -> Result<(), Parcel> {
    if !matches!(parcel.kind, kind::MAIL_TUNNEL | kind::MAIL_TUNNEL_TLS) {
        return Err(parcel);
    }
    let state = TunnelState::decode(&parcel.payload).filter(|_| parcel.fds.len() == 2);
    let Some(TunnelState { listen: Some(listen), peer: Some(peer), .. }) = &state else { return Err(parcel) };
    // What this worker gave away has left its places to others, but it is not to be lost for that.
    if !back && !rt::make_room(2) {
        return Err(parcel);
    }
    let local = parcel.fds.first().map(|fd| fd.as_raw_fd());
    let address = addresses::find(&mail.sockets, Kind::Stream, listen, || os::socket::local_addr(local?).ok());
    let (Some(address), peer) = (address, peer.clone()) else { return Err(parcel) };
    let (Some(backend_socket), Some(client_socket)) = (parcel.fds.pop(), parcel.fds.pop()) else { return Err(parcel) };
    let Some(state) = state else { return Err(parcel) };
    let wait_ms = state.backend.timeout_ms;
    let Ok(client) = stream(state.client, client_socket, true) else { return Ok(()) };
    let Ok(backend) = stream(state.backend, backend_socket, false) else { return Ok(()) };
    let mut session = MailSession::new(mail, address, client, peer);
    if let Some(secure) = state.secure {
        match resume_layer(&session.stream, &session.address, secure) {
            Ok((secured, _)) => session.tls = Some(secured),
            Err(why) => {
                session.log_at(Level::Error, format_args!("{why}, proxied session closed"));
                return Ok(());
            }
        }
    }
    session.starttls = state.starttls;
    session.login = state.login;
    session.upstream = Some(String::from_utf8_lossy(&state.upstream).into());
    session.stays = back;
    let mut tunnel = Tunnel::new(session, backend, Bytes::default(), Bytes::default());
    (tunnel.timeout_ms, tunnel.first_wait_ms) = (state.timeout_ms, wait_ms);
    let counted = mail.worker.sessions.count();
    rt::spawn(async move {
        let _counted = counted;
        Box::new(tunnel).run().await;
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel() -> TunnelState {
        let addr = |text: &str| SockAddr::from(text.parse::<std::net::SocketAddr>().expect("an address"));
        TunnelState {
            client: SocketState { number: 7, unsent: vec![0; 70_000], ..SocketState::default() },
            secure: Some(SecureState { unread: b"a NOOP\r\n".to_vec(), ..SecureState::default() }),
            backend: SocketState { number: 8, timeout_ms: Some(9), ..SocketState::default() },
            listen: Some(addr("0.0.0.0:143")),
            peer: Some(addr("[::1]:1024")),
            starttls: true,
            login: b"us\xffer".to_vec(),
            upstream: b"127.0.0.1:143".to_vec(),
            timeout_ms: 86_400_000,
        }
    }

    #[test]
    fn round_trips() {
        assert_eq!(TunnelState::decode(&tunnel().encode()), Some(tunnel()));
        let plain = TunnelState { secure: None, starttls: false, ..tunnel() };
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
