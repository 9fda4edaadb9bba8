//! Sessions that leave for another worker, or come from one, on a reload or in an upgrade.
//!
//! A session goes with both its sockets, the bytes that are under way in them, the keys of its TLS with the client, and what
//! its lines in the logs need at its end. Its server is found again by the listening address and its name, its group by name.

use std::cell::RefCell;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use buf::{Bytes, Chain, Secret};
use common::backend::attempts::Attempt;
use common::backend::targets::Groups;
use common::front::addresses;
use common::front::proxy::ProxyHeader;
use common::handover::format::{
    Pairs, SecureState, SocketState, decode_addr, decode_attempt, decode_pairs, decode_proxy, encode_addr,
    encode_attempt, encode_pairs, encode_proxy, owned,
};
use common::handover::{self as shared, flat, leave, resume_layer, socket_state};
use engine::handover::{Handover, Parcel, kind};
use engine::log::Level;
use os::SockAddr;
use os::socket::Kind;
use upstream::{Choice, Outcome};
use wire::tagged::{Reader, Writer};

use super::Backend;
use super::relay::{Relay, State};
use crate::server::{Address, Stream};
use crate::session::{Link, StreamSession, serve_on};

/// A session as it travels.
#[derive(Clone, Debug, PartialEq)]
struct SessionState {
    /// The client's side.
    client: SocketState,
    /// Its TLS.
    secure: Option<SecureState>,
    /// The server's side.
    backend: SocketState,
    /// The address of the `listen` that brought it.
    listen: SockAddr,
    /// The client.
    peer: SockAddr,
    /// The trusted proxy that has named the client.
    relay: Option<SockAddr>,
    /// What the PROXY protocol said.
    proxy: Option<ProxyHeader>,
    /// Bytes of its header.
    apart: u64,
    /// Milliseconds since the session began.
    age_ms: u64,
    /// The name of the server that it belongs to.
    server: Vec<u8>,
    /// Stored variables.
    values: Pairs,
    /// The attempts; the last one is the one that succeeded.
    attempts: Vec<Attempt>,
    /// Milliseconds since that one began.
    attempt_ms: u64,
    /// The group's name.
    group: Vec<u8>,
    /// Whether the client has ended its direction.
    up_ended: bool,
    /// Whether the server has.
    down_ended: bool,
}

impl SessionState {
    fn encode(&self) -> Secret {
        let mut out = Writer::new(VERSION);
        out.bytes(1, &self.client.encode()).list(2, self.secure.as_ref().map(SecureState::encode));
        out.bytes(3, &self.backend.encode()).bytes(4, &encode_addr(&self.listen)).bytes(5, &encode_addr(&self.peer));
        out.list(6, self.relay.as_ref().map(encode_addr)).list(7, self.proxy.as_ref().map(encode_proxy));
        out.number(8, self.apart).number(9, self.age_ms).bytes(10, &self.server);
        encode_pairs(&mut out, 11, &self.values);
        out.list(12, self.attempts.iter().map(encode_attempt)).number(13, self.attempt_ms).bytes(14, &self.group);
        out.flag(15, self.up_ended).flag(16, self.down_ended);
        out.finish()
    }

    fn decode(bytes: &[u8]) -> Option<SessionState> {
        let fields = Reader::new(VERSION, bytes)?;
        let secure = fields.bytes(2).map(|bytes| SecureState::decode(bytes).ok_or(()));
        let proxy = fields.bytes(7).map(|bytes| decode_proxy(bytes).ok_or(()));
        Some(SessionState {
            client: SocketState::decode(fields.bytes(1)?)?,
            secure: secure.transpose().ok()?,
            backend: SocketState::decode(fields.bytes(3)?)?,
            listen: decode_addr(fields.bytes(4)?)?,
            peer: decode_addr(fields.bytes(5)?)?,
            relay: fields.bytes(6).and_then(decode_addr),
            proxy: proxy.transpose().ok()?,
            apart: fields.number(8)?,
            age_ms: fields.number(9)?,
            server: owned(fields, 10),
            values: decode_pairs(fields, 11)?,
            attempts: fields.all(12).map(decode_attempt).collect::<Option<_>>()?,
            attempt_ms: fields.number(13)?,
            group: owned(fields, 14),
            up_ended: fields.flag(15),
            down_ended: fields.flag(16),
        })
    }
}

const VERSION: u8 = 1;

/// Gives a session away. `up` and `down` are bytes that its streams haven't taken over.
pub(super) fn give(to: &Handover, s: Box<StreamSession>, relay: Relay, up: Chain, down: Chain) {
    let values = shared::values(&*s);
    let Relay { mut choice, backend, began_ms, state, .. } = relay;
    let s = *s;
    let Link::Stream(client) = s.link;
    let waits = if state.down_ended { &client } else { &backend };
    let timeout_ms = waits.recv_timeout_left();
    let Some((mut client, mut secure, client_socket)) = leave(client) else { return };
    match &mut secure {
        Some(secure) => secure.unsent.extend(flat(down)),
        None => client.unsent.extend(flat(down)),
    }
    let (mut backend, backend_socket) = socket_state(backend);
    backend.timeout_ms = timeout_ms;
    backend.unsent.extend(flat(up));
    let now_ms = rt::now_ms();
    let state = SessionState {
        client,
        secure,
        backend,
        listen: s.address.addr.clone(),
        peer: s.peer,
        relay: s.relay,
        proxy: s.proxy.map(|proxy| *proxy),
        apart: s.apart,
        age_ms: now_ms.saturating_sub(s.began_ms),
        server: s.server.name.to_vec(),
        values,
        attempts: s.attempts,
        attempt_ms: now_ms.saturating_sub(began_ms),
        group: choice.group().name.as_bytes().to_vec(),
        up_ended: state.up_ended,
        down_ended: state.down_ended,
    };
    choice.release(Outcome::Good);
    let kind = if state.secure.is_some() { kind::STREAM_TLS } else { kind::STREAM };
    to.give(Parcel { kind, payload: state.encode(), fds: vec![client_socket, backend_socket] });
}

/// Serves on a session of another worker; `back`: one that this worker had given away in vain. `Err`: it is of another kind, or
/// there is no place for it.
pub(super) fn adopt(stream: &Rc<Stream>, mut parcel: Parcel, back: bool) -> Result<(), Parcel> {
    if !matches!(parcel.kind, kind::STREAM | kind::STREAM_TLS) || parcel.fds.len() != 2 {
        return Err(parcel);
    }
    let Some(state) = SessionState::decode(&parcel.payload) else { return Err(parcel) };
    // What this worker gave away has left its places to others, but it is not to be lost for that.
    if !back && !rt::make_room(2) {
        return Err(parcel);
    }
    let local = parcel.fds.first().map(|fd| fd.as_raw_fd());
    let local = || os::socket::local_addr(local?).ok();
    let Some(address) = addresses::find(&stream.sockets, Kind::Stream, &state.listen, local) else {
        return Err(parcel);
    };
    let server = StreamSession::server_named(&address, &state.server).unwrap_or_else(|| address.default.clone());
    let content = server.handlers.content.as_ref().and_then(|content| content.as_any());
    if !content.is_some_and(|content| content.is::<Backend>()) {
        return Err(parcel);
    }
    let (Some(backend), Some(client)) = (parcel.fds.pop(), parcel.fds.pop()) else { return Err(parcel) };
    let number = state.client.number;
    let sockets =
        (shared::stream(state.client.clone(), client, true), shared::stream(state.backend.clone(), backend, false));
    let resumed = match sockets {
        (Ok(client), Ok(backend)) => resume(stream, address, state, (client, backend), back),
        _ => Err("the event method can't take it"),
    };
    match resumed {
        Ok((mut s, relay)) => {
            s.server = server;
            s.count_again();
            rt::spawn(serve_on(stream.clone(), async move {
                let content = s.server.handlers.content.clone()?;
                let backend = content.as_any()?.downcast_ref::<Backend>()?;
                relay.serve(backend, s, Bytes::default(), Bytes::default()).await
            }));
        }
        Err(why) => stream.log.write(Level::Error, Some(number), format_args!("{why}, session closed")),
    }
    Ok(())
}

/// The session and its side to the server; else why it is closed.
fn resume(
    stream: &Rc<Stream>,
    address: Rc<Address>,
    state: SessionState,
    (client, backend): (rt::Stream, rt::Stream),
    back: bool,
) -> Result<(Box<StreamSession>, Relay), &'static str> {
    let tls = match state.secure {
        Some(secure) => Some(resume_layer(&client, &address, secure)?.0),
        None => None,
    };
    let now_ms = rt::now_ms();
    let mut s = Box::new(StreamSession::new(stream, address, Link::Stream(client), state.peer));
    (s.relay, s.tls, s.apart, s.doing) = (state.relay, tls, state.apart, "");
    s.proxy = state.proxy.map(Box::new);
    s.began_ms = now_ms.saturating_sub(state.age_ms);
    s.attempts = state.attempts;
    shared::restore_values(&mut *s, state.values);
    let attempt = s.attempts.last().cloned().unwrap_or_default();
    let peer = attempt.peer.unwrap_or_default();
    let groups = stream.part::<Rc<RefCell<Groups>>>().cloned().unwrap_or_default();
    let group = groups.borrow().resume(&String::from_utf8_lossy(&state.group), &peer, &backend);
    let first_byte_ms = attempt.header_ms;
    let relay = Relay {
        choice: Choice::resume(group, &peer),
        backend,
        began_ms: now_ms.saturating_sub(state.attempt_ms),
        state: State { up_ended: state.up_ended, down_ended: state.down_ended, first_byte_ms },
        stays: back,
        first_wait_ms: state.backend.timeout_ms,
    };
    Ok((s, relay))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionState {
        let addr = |text: &str| SockAddr::from(text.parse::<std::net::SocketAddr>().expect("an address"));
        SessionState {
            client: SocketState { number: 7, unsent: vec![0; 70_000], ..SocketState::default() },
            secure: Some(SecureState { tls: vec![1; 200].into(), sent: 9, ..SecureState::default() }),
            backend: SocketState { timeout_ms: Some(0), ..SocketState::default() },
            listen: addr("0.0.0.0:80"),
            peer: addr("[::1]:1024"),
            relay: Some(addr("192.0.2.7:9")),
            proxy: Some(ProxyHeader { source: addr("[::1]:1"), destination: addr("[::2]:2"), tlvs: [1, 0, 0].into() }),
            apart: 16,
            age_ms: 9,
            server: b"example.com".to_vec(),
            values: vec![(b"a".to_vec(), b"b".to_vec())],
            attempts: vec![Attempt::default(), Attempt { peer: Some("127.0.0.1:1".into()), ..Attempt::default() }],
            attempt_ms: 8,
            group: b"backends".to_vec(),
            up_ended: true,
            down_ended: false,
        }
    }

    #[test]
    fn round_trips() {
        let plain = SessionState { secure: None, relay: None, proxy: None, down_ended: true, ..session() };
        for state in [session(), plain] {
            assert_eq!(SessionState::decode(&state.encode()), Some(state));
        }
    }

    #[test]
    fn refuses_what_is_not_whole() {
        let bytes = session().encode();
        for cut in (0..bytes.len()).step_by(97) {
            assert_eq!(SessionState::decode(&bytes[..cut]), None, "cut at {cut}");
        }
        let mut newer = bytes.to_vec();
        newer[0] = VERSION + 1;
        assert_eq!(SessionState::decode(&newer), None);
    }
}
