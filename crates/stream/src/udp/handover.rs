//! Sessions over UDP that leave for another worker, or come from one, on a reload and in an upgrade (docs/processes.md).
//!
//! A session goes with the socket to its backend, so that the backend sees no change, and with the datagrams that wait in it.
//! They go to the worker that is going to receive from their clients, which begins once it has them all. Sessions without a
//! backend leave once they have one.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use buf::Secret;
use common::backend::targets::Groups;
use engine::handover::{MAX_FDS, Parcel, kind};
use engine::log::Level;
use rt::{Datagram, UdpSocket};
use upstream::Choice;
use wire::tagged::{Reader, Writer};

use super::client::{Backend, Client, Key, filled};
use super::port::Port;
use super::state::UdpState;
use crate::proxy::Relay;
use crate::server::Stream;
use crate::session::{self, Link, StreamSession};
use crate::udp::End;

/// Tells the sessions of a socket from which nothing is received any more that they may leave.
pub(crate) fn leave(port: &Rc<Port>) {
    if !port.is_over() || port.stream().worker.successors.get().is_none() {
        return;
    }
    port.clients().iter().filter(|client| client.backend().is_some()).for_each(begin_to_leave);
}

/// A session has its backend now; if others of its socket have left already, it follows them.
pub(crate) fn follow(client: &Rc<Client>) {
    let port = client.port();
    if port.is_over() && port.stream().worker.successors.get().is_some() {
        begin_to_leave(client);
    }
}

fn begin_to_leave(client: &Rc<Client>) {
    if !client.leaves.replace(true) {
        let port = client.port();
        port.leaving.set(port.leaving.get() + 1);
        client.wake();
    }
}

/// Gives a session away, with what waits in it: for its backend, and (`batch`) for its client. It comes back if that isn't
/// possible.
pub(crate) fn give(relay: Relay, mut s: Box<StreamSession>, batch: &[Datagram]) -> Option<(Relay, Box<StreamSession>)> {
    let client = relay.client.clone();
    let port = client.port().clone();
    let backend = client.backend().filter(|_| port.stream().worker.successors.get().is_some());
    let Some((backend, fd)) = backend.and_then(|backend| Some((backend, backend.socket.try_clone_fd().ok()?))) else {
        if client.leaves.replace(false) {
            port.left();
        }
        return Some((relay, s));
    };
    let workers = port.stream().worker.successors.get().map_or(0, |handover| handover.own_successors());
    let heir = port.heir(&client.key().peer, workers);
    let is_full = {
        let mut outgoing = port.outgoing.borrow_mut();
        let to_heir = outgoing.entry(heir).or_default();
        to_heir.push((state(&relay, &mut s, backend, batch).encode(), fd));
        to_heir.len() >= MAX_FDS
    };
    if is_full {
        post(&port);
    }
    None
}

fn state(relay: &Relay, s: &mut StreamSession, backend: &Backend, batch: &[Datagram]) -> UdpState {
    let client = &relay.client;
    let key = client.key();
    UdpState {
        session: s.state(),
        from: key.peer.clone(),
        to: key.to,
        bound: client.port().is_bound(client),
        headers: client.headers,
        tally: client.tally(),
        client_bytes: [client.received(), client.sent()],
        backend_bytes: [relay.received.get(), backend.sent.get()],
        timeouts_ms: [backend.timeout_ms, backend.socket.recv_timeout_left().unwrap_or(backend.timeout_ms)],
        header: backend.header.as_ref().map(|header| header.to_vec()),
        rates: relay.rates,
        age_ms: rt::now_ms().saturating_sub(relay.began_ms),
        first_ms: relay.first_ms.get().map(u64::from),
        failed: relay.failed,
        queued: client.queued(),
        batch: batch.iter().map(|datagram| datagram.bytes.to_vec()).collect(),
        group: relay.choice.group().name.as_bytes().to_vec(),
    }
}

/// Sends what has been gathered of a socket's sessions. They come back if the successors have gone meanwhile.
pub(super) fn post(port: &Port) {
    let Some(to) = port.stream().worker.successors.last() else { return };
    let Some(listen) = port.listen_addr().map(common::handover::format::encode_addr) else { return };
    for (heir, all) in port.outgoing.take() {
        let (states, fds): (Vec<Secret>, Vec<OwnedFd>) = all.into_iter().unzip();
        let mut payload = Writer::new(VERSION);
        payload.bytes(1, &listen).list(2, &states);
        let parcel = Parcel { kind: kind::STREAM_DATAGRAMS, payload: payload.finish(), fds };
        match heir {
            Some(number) => to.give_to_number(number, parcel),
            None => to.give_to_heir(parcel),
        }
    }
}

/// Serves on sessions of another worker. `Err`: they are of another kind, or nobody receives here where their clients send
/// to.
pub(crate) fn adopt(stream: &Rc<Stream>, mut parcel: Parcel, back: bool) -> Result<(), Parcel> {
    if parcel.kind != kind::STREAM_DATAGRAMS {
        return Err(parcel);
    }
    let Some((port, states)) = read(stream, &parcel.payload).filter(|(_, states)| states.len() == parcel.fds.len())
    else {
        return Err(parcel);
    };
    if !back && !rt::make_room(states.len()) {
        return Err(parcel);
    }
    for (state, fd) in states.into_iter().zip(std::mem::take(&mut parcel.fds)) {
        resume(stream, &port, state, fd);
    }
    Ok(())
}

fn read(stream: &Stream, payload: &[u8]) -> Option<(Rc<Port>, Vec<UdpState>)> {
    let fields = Reader::new(VERSION, payload)?;
    let listen = common::handover::format::decode_addr(fields.bytes(1)?)?;
    let ports = stream.worker.ports.borrow();
    let port = ports.iter().find(|port| port.listen_addr() == Some(&listen))?.clone();
    Some((port, fields.all(2).map(UdpState::decode).collect::<Option<_>>()?))
}

/// Goes on with a session.
fn resume(stream: &Rc<Stream>, port: &Rc<Port>, state: UdpState, fd: OwnedFd) {
    let peer_addr = os::socket::peer_addr(fd.as_raw_fd()).ok();
    let socket = match UdpSocket::connected(fd) {
        Ok(socket) => Rc::new(socket),
        Err(_) => {
            let message = format_args!("the event method can't take it, session closed");
            return stream.log.write(Level::Error, Some(state.session.number), message);
        }
    };
    let [timeout_ms, left_ms] = state.timeouts_ms;
    socket.set_recv_timeout(Some(left_ms));
    let key = Key { peer: state.from, to: state.to };
    // The port is one of the configuration's.
    let Some(address) = port.address(&key) else { return };
    // One that follows late may find that its client has begun another session here.
    let binds = state.bound && port.known(&key).is_none();
    let client = port.add(key, state.headers, binds);
    client.resume(state.tally, state.client_bytes, &state.queued);
    let [from_backend, to_backend] = state.backend_bytes;
    client.pass_to(Backend {
        socket,
        timeout_ms,
        header: state.header.map(Into::into),
        delays: state.rates[0] > 0,
        sent: Cell::new(to_backend),
        error: RefCell::default(),
        lost: RefCell::default(),
    });
    let batch = state.batch.iter().map(|bytes| {
        let (bytes, from) = (filled(bytes), client.key().peer.clone());
        Datagram { bytes, from, to: None, segment: 0, ecn: 0 }
    });
    let batch = batch.collect();
    let s = StreamSession::restore(stream, address, Link::Datagrams(End(client.clone())), state.session);
    let peer = s.attempts.last().and_then(|attempt| attempt.peer.clone()).unwrap_or_default();
    let groups = stream.part::<Rc<RefCell<Groups>>>().cloned().unwrap_or_default();
    let group = groups.borrow().resume(&String::from_utf8_lossy(&state.group), &peer, peer_addr);
    let relay = Relay {
        client,
        choice: Choice::resume(group, &peer),
        began_ms: rt::now_ms().saturating_sub(state.age_ms),
        rates: state.rates,
        received: Cell::new(from_backend),
        first_ms: Cell::new(state.first_ms.map(|ms| u32::try_from(ms).unwrap_or(u32::MAX))),
        failed: state.failed,
    };
    rt::spawn(session::resume(Box::new(s), |s| relay.run(s, batch)));
}

const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket as Plain};

    use engine::App;
    use engine::cycle::{ConfSource, Program};
    use engine::embedded;
    use engine::handover::Handover;
    use rt::UdpOptions;

    use super::*;
    use crate::app::StreamApp;
    use crate::session::state::SessionState;
    use crate::udp::{Expected, Tally};

    fn plain() -> (Plain, SocketAddr) {
        let socket = Plain::bind("127.0.0.1:0").expect("a port is free");
        socket.set_nonblocking(true).expect("it is ours");
        let addr = socket.local_addr().expect("it is bound");
        (socket, addr)
    }

    /// The state of a session in which a datagram waits for the backend.
    fn state(listen: SocketAddr, client: SocketAddr) -> UdpState {
        UdpState {
            session: SessionState::new(listen.into(), client.into()),
            from: client.into(),
            to: None,
            bound: true,
            headers: false,
            tally: Tally { requests: 1, expected: Expected { requests: 0, responses: Some(1) }, ..Tally::default() },
            client_bytes: [5, 0],
            backend_bytes: [0, 0],
            timeouts_ms: [60_000, 60_000],
            header: None,
            rates: [0, 0],
            age_ms: 0,
            first_ms: None,
            failed: false,
            queued: vec![b"waits".to_vec()],
            batch: Vec::new(),
            group: Vec::new(),
        }
    }

    #[test]
    fn what_nobody_takes_goes_on_here() {
        let (own, listen) = plain();
        let (to_backend, client) = (plain().0, plain().1);
        let (backend, addr) = plain();
        to_backend.connect(addr).expect("it is on this machine");
        let text = format!("daemon off; stream {{ server {{ listen {listen} udp; proxy_pass {addr}; }} }} events {{}}");
        // No file is named in it.
        let mut program =
            Program::new(vec![Box::new(crate::Module)], "/prefix/".into(), ConfSource::BuiltIn("test", text));
        program.error_log = "/dev/null".into();
        let cycle = embedded::load(&program, None).expect("a configuration");
        let runtime = embedded::runtime(&cycle, rt::Driver::default()).expect("a loop");
        runtime.block_on(async {
            let app = cycle.apps.iter().find_map(|app| app.as_any()?.downcast_ref::<StreamApp>());
            let app = app.expect("the configuration has it");
            let stream = &app.stream;
            let socket = UdpSocket::new(own.into(), UdpOptions::default()).expect("a place");
            Port::open(stream, 0, Rc::new(socket), None);
            let port = stream.worker.ports.borrow().first().expect("it was opened").clone();
            // The successors have gone.
            let nobody = Handover::new(Rc::default(), (0, 0), cycle.apps.clone(), false);
            stream.worker.successors.set(&nobody);
            port.outgoing.borrow_mut().insert(None, vec![(state(listen, client).encode(), to_backend.into())]);
            post(&port);
            assert_eq!(port.clients().len(), 1, "the session is here again");
            assert_eq!(app.busy(), 1, "a worker that leaves doesn't end before it");
            let mut bytes = [0; 9];
            let mut received = backend.recv(&mut bytes);
            let end = rt::now_ms() + 10_000;
            while received.is_err() && rt::now_ms() < end {
                rt::sleep(1).await;
                received = backend.recv(&mut bytes);
            }
            assert_eq!(received.ok().and_then(|length| bytes.get(..length)), Some(&b"waits"[..]));
        });
    }
}
