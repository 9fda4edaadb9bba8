//! Connections that leave for another worker, or come from one ([`engine::handover`]): what all protocols have.

pub mod format;

use std::cell::RefCell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use buf::{Buf, Bytes, Chain, Piece};
use engine::handover::{Handover, Parcel};
use os::SockAddr;
use os::socket::Kind;
use rt::DetachedLayer;
use tls::{Departed, Secured, ServerLayer};

use self::format::{Pairs, SecureState, SocketState, TunnelSockets};
use crate::Session;
use crate::front::{Address, Front, Socket, addresses, tls as handshake};
use crate::vars::Value;

/// The workers that take over a worker's connections once it leaves.
#[derive(Default)]
pub struct Successors(RefCell<Option<Rc<Handover>>>);

impl Successors {
    /// The worker leaves, and these take over.
    pub fn set(&self, to: &Rc<Handover>) {
        self.0.replace(Some(to.clone()));
    }

    /// They, if there are some and they still take something.
    #[inline]
    pub fn get(&self) -> Option<Rc<Handover>> {
        self.0.borrow().as_ref().filter(|handover| handover.is_open()).cloned()
    }

    /// Whether the worker stays.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_none()
    }

    /// They, even if they take nothing any more: then what they are given comes back to this worker.
    pub fn last(&self) -> Option<Rc<Handover>> {
        self.0.borrow().clone()
    }
}

/// A client's connection without its timeout: its state, that of its TLS, and its socket. `None`: its layer can't leave, which
/// [`rt::Stream::can_leave`] tells before.
pub fn leave(stream: rt::Stream) -> Option<(SocketState, Option<SecureState>, OwnedFd)> {
    let layer = match stream.detach_layer() {
        Some(parts) => Some(secure_state(parts)?),
        None => None,
    };
    let (mut socket, fd) = socket_state(stream);
    let secure = layer.map(|(secure, input, out)| {
        socket.unread.splice(..0, input.iter().copied());
        socket.unsent.extend_from_slice(&out);
        secure
    });
    Some((socket, secure, fd))
}

/// The state of a connection's TLS; what it hasn't understood yet, and what it has yet to say, as it is on the wire.
fn secure_state(parts: DetachedLayer) -> Option<(SecureState, Buf, Buf)> {
    let DetachedLayer { layer, input, unread, unsent, received, sent } = parts;
    let layer = layer.into_any().downcast::<ServerLayer>().ok()?;
    let mut out = Buf::empty();
    let (departed, mut rest) = layer.leave(&mut out)?;
    let tls = departed.encode();
    rest.extend_from_slice(&input);
    let unread = unread.map(|buf| buf.to_vec()).unwrap_or_default();
    Some((SecureState { tls, received, sent, unread, unsent: flat(unsent) }, rest, out))
}

/// Puts a connection's TLS on it again, by the settings that this configuration has for it. Returns also whether a new
/// connection could have become the same here. The error says why it is closed.
pub fn resume_layer<P: Front>(
    stream: &rt::Stream,
    address: &Address<P>,
    state: SecureState,
) -> Result<(Rc<Secured>, bool), &'static str> {
    let SecureState { tls, received, sent, unread, unsent } = state;
    let departed = Departed::decode(&tls).ok_or("its keys aren't understood")?;
    let (layer, fits) = handshake::resume(address, departed);
    let unsent = if unsent.is_empty() { Chain::new() } else { Chain::from(Bytes::from(unsent)) };
    let secured = layer.secured().clone();
    let (layer, unread) = (Box::new(layer), filled(unread));
    stream.attach_layer(DetachedLayer { layer, input: Buf::empty(), unread, unsent, received, sent });
    Ok((secured, fits))
}

/// A buffer of these bytes, if there are some.
fn filled(bytes: Vec<u8>) -> Option<Buf> {
    let length = bytes.len();
    (length > 0).then(|| Buf::from_memory(bytes.into(), 0, length))
}

/// A connection to a backend without its timeout, and its socket.
pub fn socket_state(stream: rt::Stream) -> (SocketState, OwnedFd) {
    let parts = stream.detach();
    let state = SocketState {
        number: parts.number,
        received: parts.received,
        sent: parts.sent,
        timeout_ms: None,
        unread: parts.unread.iter().flat_map(|buf| buf.iter().copied()).collect(),
        unsent: flat(parts.unsent),
    };
    (state, parts.fd)
}

/// Bytes for a client whose connection hasn't taken them over yet.
pub fn add_unsent(client: &mut SocketState, secure: &mut Option<SecureState>, bytes: Chain) {
    match secure {
        Some(secure) => secure.unsent.extend(flat(bytes)),
        None => client.unsent.extend(flat(bytes)),
    }
}

/// A connection to a backend, how long the tunnel may be silent, and its socket. `up` are bytes that it hasn't taken over yet.
pub fn backend_state(stream: rt::Stream, wait_ms: Option<u64>, up: Chain) -> (SocketState, OwnedFd) {
    let (mut backend, fd) = socket_state(stream);
    backend.timeout_ms = wait_ms;
    backend.unsent.extend(flat(up));
    (backend, fd)
}

/// Both connections of a tunnel, how long it may be silent, and their sockets. `down` and `up` are bytes that they haven't
/// taken over yet. `None`: the client's can't leave.
pub fn leave_tunnel(
    client: rt::Stream,
    backend: rt::Stream,
    wait_ms: Option<u64>,
    [down, up]: [Chain; 2],
) -> Option<(TunnelSockets, Vec<OwnedFd>)> {
    let (mut client, mut secure, client_fd) = leave(client)?;
    add_unsent(&mut client, &mut secure, down);
    let (backend, backend_fd) = backend_state(backend, wait_ms, up);
    Some((TunnelSockets { client, secure, backend }, vec![client_fd, backend_fd]))
}

/// The address that a tunnel of another worker came by, if that is listened on here and there is room for both connections;
/// `back`: one that this worker had given away in vain, which is not to be lost because others have its place now.
pub fn address_of<P: Front>(
    sockets: &[Socket<P>],
    listen: &SockAddr,
    parcel: &Parcel,
    back: bool,
) -> Option<Rc<Address<P>>> {
    let client = parcel.fds.first().filter(|_| parcel.fds.len() == 2)?.as_raw_fd();
    if !back && !rt::make_room(2) {
        return None;
    }
    addresses::find(sockets, Kind::Stream, listen, || os::socket::local_addr(client).ok())
}

/// Both connections of a tunnel of another worker, and what is known of the client's TLS. The error says why they are closed.
pub fn resume_tunnel<P: Front>(
    sockets: TunnelSockets,
    fds: Vec<OwnedFd>,
    address: &Address<P>,
) -> Result<(rt::Stream, Option<Rc<Secured>>, rt::Stream), &'static str> {
    let cannot = "the event method can't take it";
    let [client, backend] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| cannot)?;
    let client = stream(sockets.client, client, true).map_err(|_| cannot)?;
    let backend = stream(sockets.backend, backend, false).map_err(|_| cannot)?;
    let tls = match sockets.secure {
        Some(secure) => Some(resume_layer(&client, address, secure)?.0),
        None => None,
    };
    Ok((client, tls, backend))
}

/// The connection of a state and its socket; `accepted`: it counts for `worker_connections` as one of a client.
pub fn stream(state: SocketState, fd: OwnedFd, accepted: bool) -> std::io::Result<rt::Stream> {
    let SocketState { number, received, sent, unread, unsent, .. } = state;
    let unsent = if unsent.is_empty() { Chain::new() } else { Chain::from(Bytes::from(unsent)) };
    let unread = filled(unread).into_iter().collect();
    rt::Stream::attach(rt::Detached { fd, unread, unsent, received, sent, number, accepted })
}

/// The bytes of a chain. Neither idle connections nor tunnels have files in theirs.
pub fn flat(mut chain: Chain) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(piece) = chain.pop() {
        debug_assert!(matches!(piece, Piece::Bytes(_)), "there are no files to be sent");
        if let Piece::Bytes(piece) = piece {
            bytes.extend_from_slice(&piece);
        }
    }
    bytes
}

/// The variables that a session has stored, with their values.
pub fn values<S: Session>(session: &S) -> Pairs {
    let entries = session.variables().entries().iter().zip(session.store().values());
    let values = entries.filter_map(|(entry, value)| match value {
        Value::Set(value) => Some((entry.name.as_bytes().to_vec(), value.to_vec())),
        Value::Unset | Value::Missing => None,
    });
    values.collect()
}

/// Stores them again, as far as this configuration has such variables.
pub fn restore_values<S: Session>(session: &mut S, values: Pairs) {
    for (name, value) in values {
        if let Some(id) = std::str::from_utf8(&name).ok().and_then(|name| session.variables().id(name)) {
            session.store_mut().set(id, Value::Set(Bytes::from(value)));
        }
    }
}
