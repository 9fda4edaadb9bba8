//! Connections that leave for another worker, or come from one, on a reload (see [`engine::handover`]).
//!
//! An idle connection goes with what it has brought so far, and with the keys of its TLS. A tunnel goes with both its
//! sockets, the bytes that are under way in them, and what its line in the access log needs at its end: the request, the
//! response, the dealings with backends. Server, location and group are found again in the successor's configuration: by
//! the listening address, the host (under TLS the name that the client gave) and the final URI, and by name. Where they are
//! gone, the server's own level stands for the location.

pub mod format;

use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use buf::Bytes;
use common::handover::format::Pairs;
pub use common::handover::{flat, socket_state, stream};
use common::handover::{leave, restore_values, resume_layer, values};
use common::modules::limit_conn;
use engine::handover::{Handover, Parcel, kind};
use engine::log::Level;
use wire::h1::{Limits, Parsed};

use self::format::{ClientState, RequestState, SecureState};
use crate::proto::HttpProto;
use crate::request::Request;
use crate::request::facts::{ConnectionFacts, Rare};
use crate::server::Http;
use crate::server::location::Kind;
use crate::session::connection::{Connection, Link};
use crate::session::h1;

/// Gives away a connection that waits for a request.
pub(crate) fn give_idle(http: &Http, to: &Handover, conn: Connection) {
    let timeout_ms = conn.link.stream.socket().recv_timeout_left();
    let number = conn.link.stream.number();
    let Some((mut state, socket)) = client_state(conn) else {
        http.log.write(Level::Info, Some(number), format_args!("can't be handed over, idle connection closed"));
        return;
    };
    state.socket.timeout_ms = timeout_ms;
    // The least time that it is kept has been running as long as the other one.
    let idle_ms = u64::from(state.keepalive_ms).saturating_sub(timeout_ms.unwrap_or(0));
    state.keepalive_min_ms = state.keepalive_min_ms.saturating_sub(u32::try_from(idle_ms).unwrap_or(u32::MAX));
    if state.debug {
        http.log.debugging().write(Level::Debug, Some(state.socket.number), format_args!("handed over"));
    }
    let kind = if state.secure.is_some() { kind::HTTPS_IDLE } else { kind::HTTP_IDLE };
    to.give(Parcel { kind, payload: state.encode(), fds: vec![socket] });
}

/// Serves on a connection of another worker that waits for a request; `back`: one that this worker had given away in vain.
/// `Err`: it isn't one of that kind, or its state isn't understood.
pub(crate) fn adopt_idle(http: &Rc<Http>, mut parcel: Parcel, back: bool) -> Result<(), Parcel> {
    if !matches!(parcel.kind, kind::HTTP_IDLE | kind::HTTPS_IDLE) {
        return Err(parcel);
    }
    let Some(state) = ClientState::decode(&parcel.payload) else { return Err(parcel) };
    let Some(socket) = parcel.fds.pop().filter(|_| parcel.fds.is_empty()) else { return Err(parcel) };
    let number = state.socket.number;
    let closed = |why: &str| http.log.write(Level::Info, Some(number), format_args!("{why}, idle connection closed"));
    if rt::connections().free == 0 {
        closed("no worker_connections are left for what another worker process hands over");
        return Ok(());
    }
    let timeout_ms = state.socket.timeout_ms;
    match client(http, state, socket, Taken { idle: true, back }) {
        Ok(conn) => rt::spawn(h1::resume(http.clone(), conn, timeout_ms)),
        Err(why) => closed(why),
    }
    Ok(())
}

/// A connection's state without its timeout, and its socket; none of a stream of HTTP/2.
pub fn client_state(conn: Connection) -> Option<(ClientState, OwnedFd)> {
    let stream = conn.link.stream.into_socket()?;
    let (socket, secure, fd) = leave(stream)?;
    let state = ClientState {
        socket,
        listen: conn.facts.address.addr.clone(),
        proxy: conn.facts.proxy().cloned(),
        peer: conn.facts.peer,
        proxy_expected: conn.link.proxy_expected,
        age_ms: rt::now_ms().saturating_sub(conn.facts.started_ms),
        requests: conn.facts.requests,
        keepalive_ms: conn.link.keepalive_ms,
        keepalive_min_ms: conn.link.keepalive_min_ms,
        nodelay: conn.link.nodelay,
        debug: conn.facts.debug,
        secure,
    };
    Some((state, fd))
}

/// What comes from another worker.
#[derive(Clone, Copy)]
pub struct Taken {
    /// It waits for a request, so it can be closed if it doesn't fit any more.
    pub idle: bool,
    /// This worker had given it away in vain.
    pub back: bool,
}

/// The connection; else why it is closed.
pub fn client(http: &Rc<Http>, state: ClientState, socket: OwnedFd, taken: Taken) -> Result<Connection, &'static str> {
    let local = socket.as_raw_fd();
    let address = http.address(&state.listen, || os::socket::local_addr(local).ok());
    let address = address.ok_or("nobody listens any more where it was accepted")?;
    let stream = stream(state.socket, socket, true).map_err(|_| "the event method can't take it")?;
    // One that has said nothing yet meets what a new one would.
    let tls_expected = address.ssl && state.requests == 0 && state.secure.is_none();
    let mut facts = ConnectionFacts {
        rare: Rare::of_proxy(state.proxy),
        started_ms: rt::now_ms().saturating_sub(state.age_ms),
        requests: state.requests,
        debug: state.debug,
        ..ConnectionFacts::new(address, state.peer)
    };
    match state.secure {
        Some(secure) => secure_again(&stream, &mut facts, secure, taken)?,
        None if taken.idle && facts.address.ssl && state.requests > 0 => {
            return Err("where it was accepted TLS is spoken now");
        }
        None => {}
    }
    let link = Link {
        keepalive_ms: state.keepalive_ms,
        keepalive_min_ms: state.keepalive_min_ms,
        proxy_expected: state.proxy_expected,
        tls_expected,
        stays: taken.back,
        nodelay: state.nodelay,
        ..Link::new(stream.into())
    };
    Ok(Connection { facts, link })
}

/// Puts the connection's TLS on it, by the settings that this configuration has for it.
fn secure_again(
    stream: &rt::Stream,
    facts: &mut ConnectionFacts,
    state: SecureState,
    taken: Taken,
) -> Result<(), &'static str> {
    let address = facts.address.clone();
    let (secured, fits) = resume_layer(stream, &address, state)?;
    facts.set_tls(secured);
    match taken {
        Taken { idle: true, back: false } if !address.ssl => Err("where it was accepted no TLS is spoken any more"),
        Taken { idle: true, back: false } if !fits => Err("where it was accepted other TLS is spoken now"),
        _ => Ok(()),
    }
}

/// What a request needs at its end: for its line in the access log.
pub fn request_state(r: &mut Request) -> RequestState {
    let held = limit_conn::held(r);
    let fields = r.response.headers.iter().map(|field| (field.name.to_vec(), field.value.to_vec()));
    RequestState {
        head: r.head.to_vec(),
        uri: r.uri.clone(),
        args: r.args.clone(),
        named: matches!(r.location.kind, Kind::Named).then(|| r.location.name.to_vec()),
        age_ms: rt::now_ms().saturating_sub(r.start_ms),
        sent_before: r.sent_before,
        header_sent: r.header_sent,
        body_received: r.body_before + r.body.length_on_the_wire(),
        internal: r.internal,
        pipelined: r.pipelined,
        id: r.known_id().cloned(),
        values: values(r),
        fields: fields.collect(),
        content_type: r.response.content_type.as_ref().map(|value| value.to_vec()),
        client: r.relay.is_some().then(|| r.conn.peer.clone()),
        held: Some(held),
    }
}

/// The request as it was when it was given away, in the server and the location that this configuration has for it.
pub fn restore_request(http: &Rc<Http>, conn: Connection, state: RequestState) -> Box<Request> {
    let mut r = Request::begin(conn, http);
    let head = Bytes::from(state.head);
    // It was within the bounds when it came.
    let own = h1::limits(&r.server.core);
    let limits = Limits { header_buffer: head.len() + 1, line: head.len() + 1, max_headers: usize::MAX, ..own };
    let parsed = r.parser.parse(&head, &limits, &mut r.line);
    r.head = head;
    if let Ok(Parsed::Complete(_)) = parsed {
        r.method = r.line.method_id;
        let _ = h1::set_uri(&mut r);
        let _ = h1::set_server(&mut r);
    }
    if r.uri != state.uri || r.args != state.args {
        r.note_rewritten();
    }
    (r.uri, r.args) = (state.uri, state.args);
    let named = state.named.and_then(|name| r.server.root.children.named(&name));
    match named {
        Some(id) => r.location = http.location(id),
        None => {
            if r.find_location().is_err() {
                r.location = r.server.root.clone();
            }
        }
    }
    restore_values(&mut *r, state.values);
    r.start_ms = rt::now_ms().saturating_sub(state.age_ms);
    (r.sent_before, r.header_sent, r.body_before) = (state.sent_before, state.header_sent, state.body_received);
    (r.internal, r.pipelined, r.id) = (state.internal, state.pipelined, state.id);
    state.client.into_iter().for_each(|client| r.replace_peer(client));
    r.response.status = 101;
    r.response.content_type = state.content_type.map(Bytes::from);
    state.fields.into_iter().for_each(|(name, value)| r.response.headers.push(name, value));
    count_again(&mut r, state.held);
    r
}

/// Has the limits count a request that comes from another worker: those that did there, else those of its location.
fn count_again(r: &mut Request, held: Option<Pairs>) {
    if let Some(held) = held {
        let cycle = r.http.worker.context.get().and_then(|context| context.cycle.upgrade());
        if let Some(cycle) = cycle {
            limit_conn::hold_again::<HttpProto>(r, &cycle.zones, &held);
        }
        return;
    }
    let location = r.location.clone();
    location.handlers.preaccess.iter().for_each(|handler| handler.again(r));
}
