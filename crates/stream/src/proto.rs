//! Streams as a protocol of the modules that it shares with others.

use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;

use common::front::proxy::ProxyHeader;
use common::modules::log::LogProto;
use common::vars::{self, Store};
use common::{Facts, Places, Proto, Session, Tables};
use conf::{Context, Level};
use engine::log::Level as LogLevel;
use os::SockAddr;
use tls::Secured;

use crate::session::StreamSession;

/// TCP and UDP.
pub struct StreamProto;

/// The variables of a configuration that is complete.
pub(crate) type Variables = vars::Variables<StreamProto>;
/// The variables of a configuration that is being read.
pub(crate) type Setup = vars::Setup<StreamProto>;
/// How a variable gets its value.
pub(crate) type Getter = vars::Getter<StreamProto>;

/// Where most directives may stand.
pub(crate) const EVERYWHERE: Context = Context::STREAM.or(Context::STREAM_SERVER);

impl Proto for StreamProto {
    type Session = StreamSession;

    const PORT: Option<u16> = None;
    const PLACES: Places = Places {
        block: Context::STREAM,
        server: Context::STREAM_SERVER,
        servers: EVERYWHERE,
        everywhere: EVERYWHERE,
        access: EVERYWHERE,
        log: EVERYWHERE,
        upstream: Context::STREAM_UPSTREAM,
        innermost: Level::Server,
    };

    fn tables() -> &'static Tables {
        common::tables!("stream")
    }
}

impl LogProto for StreamProto {
    const COMBINED: Option<&'static str> = None;

    fn default_log() -> Option<PathBuf> {
        None
    }

    fn may_create(_: &mut StreamSession) -> bool {
        true
    }
}

impl Facts for StreamSession {
    fn peer(&self) -> &SockAddr {
        &self.peer
    }

    fn relay(&self) -> Option<&SockAddr> {
        self.relay.as_ref()
    }

    fn local(&mut self) -> &SockAddr {
        self.local_addr()
    }

    fn proxy(&self) -> Option<&ProxyHeader> {
        self.proxy.as_deref()
    }

    fn tls(&self) -> Option<&Secured> {
        self.tls.as_deref()
    }

    fn pending_name(&self) -> Option<&[u8]> {
        self.pending.as_deref()
    }

    fn number(&self) -> u64 {
        self.number
    }
}

impl Session for StreamSession {
    type Proto = StreamProto;
    type Held = Rc<Variables>;

    fn variables(&self) -> &Variables {
        &self.stream.variables
    }

    fn hold(&self) -> Rc<Variables> {
        self.stream.variables.clone()
    }

    fn store(&self) -> &Store {
        &self.vars
    }

    fn store_mut(&mut self) -> &mut Store {
        &mut self.vars
    }

    fn replace_peer(&mut self, client: SockAddr) {
        self.relay = Some(std::mem::replace(&mut self.peer, client));
    }

    fn warns_uninitialized(&self) -> bool {
        true
    }

    fn log_at(&self, level: LogLevel, message: fmt::Arguments<'_>) {
        StreamSession::log_at(self, level, message);
    }
}

common::render_templates!(StreamSession);
