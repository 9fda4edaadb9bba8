//! What a session of a protocol without requests has for the modules that it shares: the facts of its client's connection,
//! and its variables. HTTP keeps them elsewhere: its connections outlast its requests.

use std::fmt;
use std::rc::Rc;

use engine::log::Level;
use os::SockAddr;
use tls::Secured;

use crate::front::proxy::ProxyHeader;
use crate::vars::{Store, Variables};
use crate::{Facts, Proto, Session};

/// What every such session has.
pub struct Base<P: Proto> {
    /// The connection's serial number.
    pub number: u64,
    /// The client's address.
    pub peer: SockAddr,
    /// The trusted proxy whose connection it is, once the address that the proxy named has become the client's.
    pub relay: Option<SockAddr>,
    /// What the PROXY protocol said.
    pub proxy: Option<Box<ProxyHeader>>,
    /// What is known of its TLS.
    pub tls: Option<Rc<Secured>>,
    /// The name that the client has given, while its handshake goes on.
    pub pending: Option<Box<[u8]>>,
    /// Values of variables, and state of modules.
    pub store: Store,
    variables: Rc<Variables<P>>,
    /// The address that the client connected to, once it has been asked for.
    local: Option<SockAddr>,
}

impl<P: Proto> Base<P> {
    /// For a client of which nothing else is known yet.
    pub fn new(variables: &Rc<Variables<P>>, number: u64, peer: SockAddr) -> Base<P> {
        Base {
            number,
            peer,
            relay: None,
            proxy: None,
            tls: None,
            pending: None,
            store: variables.store(),
            variables: variables.clone(),
            local: None,
        }
    }
}

/// A session with a [`Base`]. It is a [`Session`] by that.
pub trait Based: expr::vars::Session + Sized + 'static {
    /// The protocol.
    type Proto: Proto<Session = Self>;

    /// What it has.
    fn base(&self) -> &Base<Self::Proto>;

    /// The same, to be changed.
    fn base_mut(&mut self) -> &mut Base<Self::Proto>;

    /// The address that the client connected to. It is asked for once.
    fn find_local(&self) -> SockAddr;

    /// Logs with the session's details.
    fn log_details(&self, level: Level, message: fmt::Arguments<'_>);
}

impl<S: Based> Facts for S {
    fn peer(&self) -> &SockAddr {
        &self.base().peer
    }

    fn relay(&self) -> Option<&SockAddr> {
        self.base().relay.as_ref()
    }

    fn local(&mut self) -> &SockAddr {
        if self.base().local.is_none() {
            self.base_mut().local = Some(self.find_local());
        }
        self.base_mut().local.get_or_insert_with(|| SockAddr::Unix(Box::default()))
    }

    fn proxy(&self) -> Option<&ProxyHeader> {
        self.base().proxy.as_deref()
    }

    fn tls(&self) -> Option<&Secured> {
        self.base().tls.as_deref()
    }

    fn pending_name(&self) -> Option<&[u8]> {
        self.base().pending.as_deref()
    }

    fn number(&self) -> u64 {
        self.base().number
    }
}

impl<S: Based> Session for S {
    type Proto = <S as Based>::Proto;
    type Held = Rc<Variables<<S as Based>::Proto>>;

    fn variables(&self) -> &Variables<Self::Proto> {
        &self.base().variables
    }

    fn hold(&self) -> Self::Held {
        self.base().variables.clone()
    }

    fn store(&self) -> &Store {
        &self.base().store
    }

    fn store_mut(&mut self) -> &mut Store {
        &mut self.base_mut().store
    }

    fn replace_peer(&mut self, client: SockAddr) {
        let base = self.base_mut();
        base.relay = Some(std::mem::replace(&mut base.peer, client));
    }

    fn warns_uninitialized(&self) -> bool {
        true
    }

    fn log_at(&self, level: Level, message: fmt::Arguments<'_>) {
        self.log_details(level, message);
    }
}
