//! A session: what is known of a client, and what it goes through.

mod log;
mod serve;
pub mod state;

use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use buf::{Bytes, Chain};
use common::Base;
use common::backend::attempts::Attempt;
use common::front::Visitor;
use common::handover::format::Pairs;
use common::handover::{flat, restore_values, values};
use common::modules::limit_conn;
use os::SockAddr;

use crate::preread;
use crate::proto::StreamProto;
use crate::server::{Address, Server, Stream};
use crate::udp::End;

pub(crate) use self::serve::resume;
pub use self::serve::serve;
use self::state::SessionState;

/// A session with a client.
pub struct StreamSession {
    /// The configuration.
    pub stream: Rc<Stream>,
    /// The address that it came by.
    pub address: Rc<Address>,
    /// The server: the address's default one until the client names another.
    pub server: Rc<Server>,
    /// What carries its bytes.
    pub link: Link,
    /// What is known of its client's connection, and its variables.
    pub base: Base<StreamProto>,
    /// How it ended, or will end if nothing goes wrong.
    pub status: u16,
    /// When it began, in the loop's milliseconds.
    pub began_ms: u64,
    /// What the client has sent, and nobody has taken yet.
    pub first: Bytes,
    /// Received bytes that aren't the session's: those of the PROXY protocol's header.
    pub(crate) apart: u64,
    /// Whether the client has closed its side, and all before that was read.
    pub(crate) has_ended: bool,
    /// What is being done, for log lines.
    pub(crate) doing: &'static str,
    /// The attempts to reach a backend.
    pub attempts: Vec<Attempt>,
}

/// What carries the bytes of a session.
pub enum Link {
    /// A connection.
    Stream(rt::Stream),
    /// Datagrams of a client.
    Datagrams(End),
}

impl Link {
    /// `$protocol`
    pub fn protocol(&self) -> &'static str {
        match self {
            Link::Stream(_) => "TCP",
            Link::Datagrams(_) => "UDP",
        }
    }

    /// What stands before `client` and `proxy` in log lines.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Link::Stream(_) => "",
            Link::Datagrams(_) => "udp ",
        }
    }

    /// The connection, if it is one.
    pub fn stream(&self) -> Option<&rt::Stream> {
        match self {
            Link::Stream(stream) => Some(stream),
            Link::Datagrams(_) => None,
        }
    }
}

impl StreamSession {
    /// One that begins.
    pub fn new(stream: &Rc<Stream>, address: Rc<Address>, link: Link, peer: SockAddr) -> StreamSession {
        let number = match &link {
            Link::Stream(stream) => stream.number(),
            Link::Datagrams(_) => rt::next_number(),
        };
        StreamSession {
            server: address.default.clone(),
            address,
            link,
            base: Base::new(&stream.variables, number, peer),
            status: 200,
            began_ms: rt::now_ms(),
            first: Bytes::default(),
            apart: 0,
            has_ended: false,
            doing: "initializing session",
            attempts: Vec::new(),
            stream: stream.clone(),
        }
    }

    /// Its state, for another worker.
    pub(crate) fn state(&mut self) -> SessionState {
        SessionState {
            held: Some(limit_conn::held(self)),
            number: self.base.number,
            relay: self.base.relay.clone(),
            proxy: self.base.proxy.as_deref().cloned(),
            apart: self.apart,
            server: self.server.name.to_vec(),
            age_ms: rt::now_ms().saturating_sub(self.began_ms),
            attempts: self.attempts.clone(),
            values: values(self),
            found: preread::found(self),
            ..SessionState::new(self.address.addr.clone(), self.base.peer.clone())
        }
    }

    /// Goes on with one of another worker, in the address's server of the same name or, if there is none, its default one.
    pub(crate) fn restore(stream: &Rc<Stream>, address: Rc<Address>, link: Link, state: SessionState) -> StreamSession {
        let server = StreamSession::server_named(&address, &state.server).unwrap_or_else(|| address.default.clone());
        let mut s = StreamSession {
            server,
            apart: state.apart,
            began_ms: rt::now_ms().saturating_sub(state.age_ms),
            attempts: state.attempts,
            doing: "",
            ..StreamSession::new(stream, address, link, state.peer)
        };
        (s.base.number, s.base.relay, s.base.proxy) = (state.number, state.relay, state.proxy.map(Box::new));
        restore_values(&mut s, state.values);
        preread::keep_again(&mut s, &state.found);
        s.count_again(state.held);
        s
    }

    /// The address that the client connected to, from the kernel.
    pub(crate) fn find_local(&self) -> SockAddr {
        let own = match &self.link {
            Link::Stream(stream) => stream.local_addr(),
            Link::Datagrams(End(client)) => Ok(client.port().local(client.key())),
        };
        own.unwrap_or_else(|_| self.address.addr.clone())
    }

    /// Bytes sent to the client.
    pub fn sent(&self) -> u64 {
        match &self.link {
            Link::Stream(stream) => stream.sent(),
            Link::Datagrams(End(client)) => client.sent(),
        }
    }

    /// Bytes received from the client.
    pub fn received(&self) -> u64 {
        match &self.link {
            Link::Stream(stream) => stream.received().saturating_sub(self.apart),
            Link::Datagrams(End(client)) => client.received(),
        }
    }

    /// Sends to the client; a client that leaves, or takes nothing for so long, ends the session.
    pub async fn send(&mut self, mut chain: Chain, timeout_ms: u64) {
        match &self.link {
            Link::Stream(stream) => {
                stream.set_send_timeout(Some(timeout_ms));
                let _ = stream.send(&mut chain).await;
            }
            Link::Datagrams(End(client)) => {
                let _ = client.send_one(&flat(chain)).await;
            }
        }
    }

    /// The server for a name that the client has given, if another one than the default has it.
    pub fn choose_server(&mut self, name: &[u8]) {
        let found = match self.address.names.lookup(name) {
            Some(server) => Some(server.clone()),
            None => {
                let address = self.address.clone();
                let mut regexes = address.regexes.iter();
                regexes.find(|(regex, _)| regex.exec(self, name).unwrap_or(false)).map(|(_, server)| server.clone())
            }
        };
        if let Some(server) = found {
            self.server = server;
        }
    }

    /// Has limits count a session that comes from another worker: those that did there, else those of its server.
    fn count_again(&mut self, held: Option<Pairs>) {
        if let Some(held) = held {
            if let Some(cycle) = self.stream.worker.cycle.get().and_then(Weak::upgrade) {
                limit_conn::hold_again::<StreamProto>(self, &cycle.zones, &held);
            }
            return;
        }
        let server = self.server.clone();
        server.handlers.preaccess.iter().for_each(|check| check.again(self));
    }

    /// The server of this name on an address.
    pub(crate) fn server_named(address: &Address, name: &[u8]) -> Option<Rc<Server>> {
        let mut all = std::iter::once(&address.default)
            .chain(address.names.lookup(name))
            .chain(address.regexes.iter().map(|(_, server)| server));
        all.find(|server| *server.name == *name).cloned()
    }

    /// The client, as the log names it before its session has begun in earnest.
    fn visitor(&self) -> Visitor<'_> {
        let Base { number, peer, .. } = &self.base;
        Visitor { log: self.log(), number: *number, peer, server: &self.address.addr, starttls: false }
    }

    /// Takes what has been read and not taken yet.
    pub fn take_first(&mut self) -> Bytes {
        std::mem::take(&mut self.first)
    }

    /// Closes the client's connection so that it still gets all that was sent: what it has sent meanwhile is read, since the
    /// kernel would reset the connection otherwise. A client of TLS is given a moment to close its side, as in nginx.
    pub(crate) async fn close(&self) {
        let may_lose = |stream: &&rt::Stream| stream.is_layered() || stream.is_readable() && !self.has_ended;
        let Some(stream) = self.link.stream().filter(may_lose) else { return };
        let _ = stream.shutdown_write();
        let waits = stream.is_layered();
        stream.set_recv_timeout(waits.then_some(LINGERING_MS));
        let mut left = MOST_DISCARDED;
        poll_fn(|cx| {
            while left > 0 {
                match stream.poll_recv(cx, DISCARDED) {
                    Poll::Ready(Ok(read)) if !read.is_empty() => left = left.saturating_sub(read.len()),
                    Poll::Pending if waits => return Poll::Pending,
                    _ => break,
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Whether a client that has closed its side, and of which nothing has been read, has sent something.
    pub(crate) fn has_sent(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(stream) = self.link.stream() else { return true };
        match stream.poll_recv(cx, self.server.core.preread_buffer_size) {
            Poll::Ready(Ok(more)) => self.first = more.freeze(),
            Poll::Ready(Err(_)) => return false,
            Poll::Pending => {}
        }
        !self.first.is_empty()
    }
}

/// How long a client may take to close its side.
const LINGERING_MS: u64 = 3000;
/// How much is read at once of what nobody wants.
const DISCARDED: usize = 16 << 10;
/// How much of it is read at most.
const MOST_DISCARDED: usize = 256 << 10;
