//! A worker's datagram socket, and the sessions of its clients.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use buf::{Buf, Secret};
use common::front::Visitor;
use common::front::proxy::{self, ProxyHeader};
use engine::log::{Errno, Level};
use hashbrown::HashMap;
use os::SockAddr;
use rt::UdpSocket;
use slab::Slab;
use wire::proxy_protocol;

use super::client::{Client, Key};
use super::told::Told;
use crate::server::{Address, Stream};
use crate::session::{self, Link, StreamSession};

/// The datagram sockets of a worker for one address: one, or several with `reuseport` where there are fewer workers than
/// before.
pub struct Port {
    stream: Rc<Stream>,
    /// Which of the configuration's sockets it is.
    listen: usize,
    socket: Rc<UdpSocket>,
    /// The socket's own address.
    own: SockAddr,
    /// How many sockets of all workers clients are shared out to, see [`os::steering`].
    group: Option<usize>,
    /// How many sockets are received from.
    receiving: Cell<usize>,
    /// When the last of them was received from last.
    over_ms: Cell<u64>,
    /// The clients whose next datagram belongs to a session that there is.
    bound: RefCell<HashMap<Key, Rc<Client>, foldhash::fast::RandomState>>,
    /// The clients of all sessions.
    all: RefCell<Slab<Rc<Client>>>,
    /// Datagrams that there was no room for.
    refused: Told,
    /// Datagrams without the header of the PROXY protocol that they should have.
    broken: Told,
    /// How many sessions are about to leave.
    pub(super) leaving: Cell<usize>,
    /// The state of those that have left, with the sockets to their backends, until it is sent to whom it is for.
    pub(super) outgoing: RefCell<BTreeMap<Heir, Vec<(Secret, OwnedFd)>>>,
}

/// The number of a worker to come; `None`: this one's.
pub(super) type Heir = Option<usize>;

/// A session's client, until the session is over.
pub struct End(pub(crate) Rc<Client>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.port().forget(&self.0);
    }
}

impl Port {
    /// Receives from a socket from now on.
    pub(crate) fn open(stream: &Rc<Stream>, listen: usize, socket: Rc<UdpSocket>, group: Option<usize>) {
        let mut ports = stream.worker.ports.borrow_mut();
        if let Some(port) = ports.iter().find(|port| port.listen == listen) {
            port.receiving.set(port.receiving.get() + 1);
            rt::spawn(port.clone().run(socket));
            return;
        }
        let configured = stream.sockets.get(listen).map(|socket| socket.listen.addr.clone());
        let own = socket.local_addr().ok().or(configured).unwrap_or_else(|| SockAddr::Unix(Box::default()));
        // The address that a datagram reached is its socket's then.
        if own.ip().is_some_and(|ip| !ip.is_unspecified()) {
            socket.set_bare();
        }
        let port = Rc::new(Port {
            stream: stream.clone(),
            listen,
            socket: socket.clone(),
            own,
            group,
            receiving: Cell::new(1),
            over_ms: Cell::new(0),
            bound: RefCell::default(),
            all: RefCell::default(),
            refused: Told::default(),
            broken: Told::default(),
            leaving: Cell::new(0),
            outgoing: RefCell::default(),
        });
        rt::spawn(port.clone().run(socket));
        ports.push(port);
    }

    async fn run(self: Rc<Self>, socket: Rc<UdpSocket>) {
        let mut batch = Vec::new();
        loop {
            match socket.recv(&mut batch).await {
                Ok(()) => {}
                Err(error) if rt::is_closing(&error) => break,
                Err(error) => {
                    self.stream.log.write(
                        Level::Alert,
                        None,
                        format_args!("recvmsg() on {} failed{}", self.own, Errno(&error)),
                    );
                    rt::sleep(PAUSE_MS).await;
                }
            }
            for datagram in batch.drain(..) {
                self.receive(Key { peer: datagram.from, to: datagram.to }, datagram.bytes);
            }
        }
        self.receiving.set(self.receiving.get() - 1);
        self.over_ms.set(rt::now_ms());
        super::handover::leave(&self);
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// The address that it listens on, as the configuration has it.
    pub(super) fn listen_addr(&self) -> Option<&SockAddr> {
        self.stream.sockets.get(self.listen).map(|socket| &socket.listen.addr)
    }

    /// Which of the workers to come is going to receive from a client, of so many that are of the same master.
    pub(super) fn heir(&self, client: &SockAddr, workers: usize) -> Heir {
        let addr = match client {
            SockAddr::V4(addr) => SocketAddr::V4(*addr),
            SockAddr::V6(addr) => SocketAddr::V6(*addr),
            SockAddr::Unix(_) => return None,
        };
        // Another master goes on with the sockets as they are shared out now.
        let group = self.group.filter(|_| workers > 0)?;
        Some(os::steering::socket_of(&addr, group.max(workers)))
    }

    /// The configuration.
    pub(super) fn stream(&self) -> &Rc<Stream> {
        &self.stream
    }

    /// Whether nothing is received any more.
    pub(super) fn is_over(&self) -> bool {
        self.receiving.get() == 0
    }

    /// Whether sessions are about to leave, or may be. Those that have just begun leave as soon as they have a backend;
    /// who takes longer to get one isn't waited for, since everybody's datagrams wait.
    pub(crate) fn holds_sessions(&self) -> bool {
        let begins = || self.stream.worker.beginning.get() > 0 && rt::now_ms() < self.over_ms.get() + BEGIN_MS;
        !self.is_over() || self.leaving.get() > 0 || begins()
    }

    /// The clients of all sessions.
    pub(super) fn clients(&self) -> Vec<Rc<Client>> {
        self.all.borrow().iter().map(|(_, client)| client.clone()).collect()
    }

    /// The address of this machine that a client sends to.
    pub(crate) fn local(&self, key: &Key) -> SockAddr {
        match key.to {
            Some(ip) => SocketAddr::new(ip, self.own.port()).into(),
            None => self.own.clone(),
        }
    }

    /// Gives a datagram to its session, as it has come.
    pub(super) fn receive(self: &Rc<Self>, key: Key, bytes: Buf) {
        let Some(client) = self.known(&key) else {
            let Some(address) = self.room(&key) else { return };
            if !(address.proxy_protocol || address.own.headers) {
                self.begin(address, key, None, bytes);
            } else if let Some((proxy, bytes)) = self.strip(&key, bytes) {
                self.begin(address, key, proxy, bytes);
            }
            return;
        };
        if !client.headers {
            client.take(None, bytes);
        } else if let Some((proxy, bytes)) = self.strip(&key, bytes) {
            client.take(proxy, bytes);
        }
    }

    /// Gives a datagram to its session whose header of the PROXY protocol has been taken off.
    pub(super) fn deliver(self: &Rc<Self>, key: Key, proxy: Option<ProxyHeader>, bytes: Buf) {
        if let Some(client) = self.known(&key) {
            client.take(proxy, bytes);
        } else if let Some(address) = self.room(&key) {
            self.begin(address, key, proxy, bytes);
        }
    }

    /// The client whose session a datagram belongs to.
    pub(super) fn known(&self, key: &Key) -> Option<Rc<Client>> {
        self.bound.borrow().get(key).cloned()
    }

    /// The address that a client sends to, if a session may begin there.
    fn room(&self, key: &Key) -> Option<Rc<Address>> {
        self.has_room().then(|| self.address(key)).flatten()
    }

    /// The address that a client sends to, with its servers.
    pub(super) fn address(&self, key: &Key) -> Option<Rc<Address>> {
        self.stream.sockets.get(self.listen).map(|socket| socket.address(|| Some(self.local(key))))
    }

    /// Begins a session, as far as it needn't wait.
    fn begin(self: &Rc<Self>, address: Rc<Address>, key: Key, proxy: Option<ProxyHeader>, bytes: Buf) {
        let client = self.add(key, address.own.headers, true);
        client.begin(bytes.len());
        let peer = client.key().peer.clone();
        let mut s = StreamSession::new(&self.stream, address, Link::Datagrams(End(client)), peer);
        s.base.proxy = proxy.map(Box::new);
        s.first = bytes.freeze();
        // At once: it may be over before the client's next datagram, which may have come already, or have its backend.
        rt::spawn_now(session::serve(Box::new(s)));
    }

    /// A client; `binds`: whose further datagrams belong to its session from now on.
    pub(super) fn add(self: &Rc<Self>, key: Key, headers: bool, binds: bool) -> Rc<Client> {
        let beginning = &self.stream.worker.beginning;
        beginning.set(beginning.get() + 1);
        let client = {
            let mut all = self.all.borrow_mut();
            let entry = all.vacant_entry();
            let client = Rc::new(Client::new(self.clone(), key, entry.key(), headers));
            entry.insert(client.clone());
            client
        };
        // Those without an address can't be told apart.
        let is_named = !matches!(&client.key().peer, SockAddr::Unix(path) if path.is_empty());
        if is_named && binds {
            self.bound.borrow_mut().insert(client.key().clone(), client.clone());
        }
        client
    }

    /// The client's next datagram begins another session.
    pub(super) fn unbind(&self, client: &Rc<Client>) {
        if self.is_bound(client) {
            self.bound.borrow_mut().remove(client.key());
        }
    }

    /// Whether the client's next datagram belongs to its session.
    pub(super) fn is_bound(&self, client: &Rc<Client>) -> bool {
        self.bound.borrow().get(client.key()).is_some_and(|known| Rc::ptr_eq(known, client))
    }

    /// A session has its backend now, or has ended without one.
    pub(super) fn has_begun(&self) {
        let beginning = &self.stream.worker.beginning;
        beginning.set(beginning.get() - 1);
    }

    fn forget(&self, client: &Rc<Client>) {
        self.unbind(client);
        let forgotten = self.all.borrow_mut().try_remove(client.place);
        drop(forgotten);
        if client.backend().is_none() {
            self.has_begun();
        }
        if client.leaves.replace(false) {
            self.left();
        }
    }

    /// One session less is about to leave; after the last one, all go.
    pub(super) fn left(&self) {
        self.leaving.set(self.leaving.get() - 1);
        if self.leaving.get() == 0 {
            super::handover::post(self);
        }
    }

    /// Whether a session may begin. Sessions leave some connections to others, so that a flood of datagrams, whose senders
    /// may be made up, locks nobody else out; nor does it end what is idle.
    fn has_room(&self) -> bool {
        let counts = rt::connections();
        let limit = counts.active + counts.free;
        // Each of those that begin, whatever socket they come by, will take one.
        if counts.free > limit / RESERVE + self.stream.worker.beginning.get() {
            return true;
        }
        if let Some(refused) = self.refused.count(rt::now_ms()) {
            let own = &self.own;
            let message = format_args!(
                "{limit} worker_connections are not enough for more sessions on {own}, {refused} datagrams dropped"
            );
            self.stream.log.write(Level::Alert, None, message);
        }
        false
    }

    /// Takes the header of the PROXY protocol off a datagram.
    fn strip(&self, key: &Key, mut bytes: Buf) -> Option<(Option<ProxyHeader>, Buf)> {
        match proxy_protocol::parse(&bytes) {
            Ok(Some(header)) => {
                let proxy = ProxyHeader::new(&header, &bytes);
                bytes.consume(header.len);
                Some((proxy, bytes))
            }
            _ => {
                if let Some(count) = self.broken.count(rt::now_ms()) {
                    self.log_broken(key, &bytes, count);
                }
                None
            }
        }
    }

    /// Tells the log of the address's default server of a datagram without a header, and how many there were.
    fn log_broken(&self, key: &Key, bytes: &[u8], count: u64) {
        let Some(address) = self.address(key) else { return };
        let log = address.default.core.shared.log.as_ref().unwrap_or(&self.stream.log).clone();
        let visitor = Visitor { log, number: 0, peer: &key.peer, server: &self.own, starttls: false };
        let broken = proxy::broken(bytes);
        let others = if count > 1 { format!(" and {} others", count - 1) } else { String::new() };
        visitor.log(Level::Error, format_args!("{broken}{others} while reading PROXY protocol"));
    }
}

/// A sixteenth of the connections is left to others.
const RESERVE: usize = 16;
/// How long sessions may take to begin before their worker leaves without them.
const BEGIN_MS: u64 = 100;
/// How long nothing is received after an error.
const PAUSE_MS: u64 = 100;
