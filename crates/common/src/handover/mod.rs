//! Connections that leave for another worker, or come from one ([`engine::handover`]): what all protocols have.

pub mod format;

use std::os::fd::OwnedFd;
use std::rc::Rc;

use buf::{Buf, Bytes, Chain, Piece};
use rt::DetachedLayer;
use tls::{Departed, Secured, ServerLayer};

use self::format::{Pairs, SecureState, SocketState};
use crate::Session;
use crate::front::{Address, Front, tls as handshake};
use crate::vars::Value;

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
