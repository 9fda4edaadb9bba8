//! Tunnels that leave for another worker, or come from one, on a reload.
//!
//! A tunnel goes with both its sockets, the bytes that are under way in them, and what its line in the access log needs at
//! its end: the request, the response, the dealings with backends. Its group is found again by name in the successor's
//! configuration.

pub mod format;

use std::rc::Rc;

use ::upstream::Choice;
use buf::{Buf, Bytes, Chain};
use common::backend::targets::Groups;
use common::handover::{add_unsent, address_of, backend_state};
use engine::handover::{Handover, Parcel, kind};
use engine::log::Level;
use http::app::handover::{Taken, client, client_state, request_state, restore_request, stream};
use http::exchange::{Asked, Exchange, Target};
use http::request::Request;
use http::server::Http;
use http::session::h1;
use wire::Span;
use wire::h1::ResponseParser;

use self::format::{ExchangeState, TunnelState};
use crate::tunnel::{Timeouts, Tunnel};

/// Gives away an upgraded connection; the request is left without its connection. `down` and `up` are bytes that its
/// streams haven't taken over.
pub(crate) fn give_tunnel(to: &Handover, r: &mut Request, tunnel: Tunnel, down: Chain, up: Chain) {
    let request = request_state(r);
    let Some(conn) = r.take_connection() else { return };
    tunnel.count();
    let Tunnel { exchange, mut choice, backend, timeouts, moved, .. } = tunnel;
    let Some((mut client, client_socket)) = client_state(conn) else { return };
    add_unsent(&mut client.socket, &mut client.secure, down);
    let wait_ms = backend.recv_timeout_left();
    let (backend, backend_socket) = backend_state(backend, wait_ms, up);
    let group = choice.group().name.as_bytes().to_vec();
    let state = TunnelState {
        client,
        backend,
        request,
        exchange: exchange_state(&exchange, group),
        timeouts_ms: [timeouts.client_send_ms, timeouts.send_ms, timeouts.read_ms],
        moved,
    };
    choice.release(::upstream::Outcome::Good);
    let fds = vec![client_socket, backend_socket];
    let kind = if state.client.secure.is_some() { kind::HTTPS_TUNNEL } else { kind::HTTP_TUNNEL };
    to.give(Parcel { kind, payload: state.encode(), fds });
}

/// Serves on a tunnel of another worker; `back`: one that this worker had given away in vain. `Err`: it is of another
/// kind, or there is no place for it.
pub(crate) fn adopt_tunnel(http: &Rc<Http>, mut parcel: Parcel, back: bool) -> Result<(), Parcel> {
    if !matches!(parcel.kind, kind::HTTP_TUNNEL | kind::HTTPS_TUNNEL) {
        return Err(parcel);
    }
    let Some(state) = TunnelState::decode(&parcel.payload) else { return Err(parcel) };
    if address_of(&http.sockets, &state.client.listen, &parcel, back).is_none() {
        return Err(parcel);
    }
    let (Some(backend_socket), Some(client_socket)) = (parcel.fds.pop(), parcel.fds.pop()) else { return Err(parcel) };
    let TunnelState { client: client_state, backend, request, exchange, timeouts_ms, moved } = state;
    let timeout_ms = backend.timeout_ms;
    let number = client_state.socket.number;
    let conn = match client(http, client_state, client_socket, Taken { idle: false, back }) {
        Ok(conn) => conn,
        Err(why) => {
            http.log.write(Level::Error, Some(number), format_args!("{why}, upgraded connection closed"));
            return Ok(());
        }
    };
    let Ok(backend) = stream(backend, backend_socket, false) else { return Ok(()) };
    let choice = choice(http, &exchange, &backend);
    let exchange = restore_exchange(exchange, &choice);
    let mut r = restore_request(http, conn, request);
    r.upstream = Some(exchange.clone());
    let [client_send_ms, send_ms, read_ms] = timeouts_ms;
    let timeouts = Timeouts { client_send_ms, send_ms, read_ms };
    let before = (backend.sent(), backend.received());
    let tunnel = Tunnel { exchange, choice, backend, timeouts, first_read_ms: timeout_ms, moved, before };
    rt::spawn(h1::resume_request(http.clone(), async move {
        tunnel.serve(&mut r, Bytes::default(), Bytes::default()).await;
        r
    }));
    Ok(())
}

fn exchange_state(exchange: &Exchange, group: Vec<u8>) -> ExchangeState {
    let target = exchange.target.borrow();
    let of = |part: fn(&Target) -> &[u8]| target.as_ref().map(|target| part(target).to_vec()).unwrap_or_default();
    ExchangeState {
        attempts: exchange.attempts.borrow().clone(),
        age_ms: exchange.elapsed_ms(),
        head: exchange.head.borrow().0.to_vec(),
        uri: exchange.uri().to_vec(),
        group,
        scheme: of(|target| target.scheme.as_bytes()),
        host: of(|target| &target.host),
        port: of(|target| &target.port),
        body_length: exchange.body_length.get(),
    }
}

fn restore_exchange(state: ExchangeState, choice: &Choice) -> Rc<Exchange> {
    let exchange = Exchange::new();
    exchange.attempts.replace(state.attempts);
    exchange.started_ms.set(rt::now_ms().saturating_sub(state.age_ms));
    let mut head = Buf::empty();
    head.extend_from_slice(&state.uri);
    exchange.request.replace(Asked { uri_at: Span::new(0, head.len()), head });
    exchange.body_length.set(state.body_length);
    let scheme = SCHEMES.iter().find(|scheme| scheme.as_bytes() == state.scheme).unwrap_or(&"");
    let (host, port) = (state.host.into(), state.port.into());
    let group = choice.group().clone();
    // A tunnel over TLS is never handed over.
    let target = Target { group, scheme, ssl: false, host, port, uri: Box::default(), key: None };
    exchange.target.replace(Some(Rc::new(target)));
    let head = Bytes::from(state.head);
    let mut parts = exchange.head.borrow_mut();
    let _ = ResponseParser::default().parse(&head, head.len() + 1, &mut parts.1);
    parts.0 = head;
    drop(parts);
    exchange
}

/// The tunnel counts for its server in this configuration's group, if that has it.
fn choice(http: &Http, exchange: &ExchangeState, backend: &rt::Stream) -> Choice {
    let peer = exchange.attempts.last().and_then(|attempt| attempt.peer.clone()).unwrap_or_default();
    let name = String::from_utf8_lossy(&exchange.group);
    let groups = http.part::<Rc<std::cell::RefCell<Groups>>>().cloned().unwrap_or_default();
    let group = groups.borrow().resume(&name, &peer, backend.peer_addr().ok());
    Choice::resume(group, &peer)
}

/// The schemes that log lines name.
const SCHEMES: [&str; 2] = ["http://", "https://"];
