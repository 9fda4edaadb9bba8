//! What the protocol is to the modules in `common`.

use std::path::PathBuf;
use std::rc::Rc;

use common::backend::ssl::UpstreamTls;
use common::front::blocks::NoParameters;
use common::front::ssl::{ServerTls, SslConf};
use common::front::{self, Front};
use common::modules::log::LogProto;
use common::modules::{Check, Log};
use common::{Places, Proto, Tables, vars};
use conf::{Context, Level, Set};
use expr::vars::Template;
use upstream::Group;

use crate::config::LinesConf;
use crate::session::LinesSession;

/// The protocol.
pub(crate) struct Lines;

/// The variables of a configuration.
pub(crate) type Variables = vars::Variables<Lines>;
/// A listening socket.
pub(crate) type Socket = front::Socket<Lines>;
/// A listening address.
pub(crate) type Address = front::Address<Lines>;

const SERVERS: Context = Context::STREAM.or(Context::STREAM_SERVER);

impl Proto for Lines {
    type Session = LinesSession;

    const PORT: Option<u16> = None;
    const PLACES: Places = Places {
        block: Context::STREAM,
        server: Context::STREAM_SERVER,
        servers: SERVERS,
        everywhere: SERVERS,
        access: SERVERS,
        log: SERVERS,
        upstream: Context::STREAM_UPSTREAM,
        innermost: Level::Server,
    };

    fn tables() -> &'static Tables {
        common::tables!("stream")
    }
}

impl LogProto for Lines {
    const COMBINED: Option<&'static str> = None;

    fn default_log() -> Option<PathBuf> {
        None
    }

    fn may_create(_: &mut LinesSession) -> bool {
        true
    }
}

impl Front for Lines {
    type Server = LinesServer;
    type Listen = NoParameters;
}

/// A server.
pub(crate) struct LinesServer {
    pub conf: Rc<LinesConf>,
    pub set: Set,
    pub tls: Option<Rc<ServerTls>>,
    pub phases: Phases,
    pub backend: Option<Backend>,
}

/// Where `pass` goes.
pub(crate) struct Backend {
    pub name: Vec<u8>,
    pub group: Rc<Group>,
    pub key: Option<Rc<Template>>,
    pub tls: Option<Rc<UpstreamTls>>,
}

impl front::Server for LinesServer {
    fn tls(&self) -> Option<&Rc<ServerTls>> {
        self.tls.as_ref()
    }

    fn has_certificate(&self) -> bool {
        !self.set.get::<SslConf<Lines>>().ssl_certificate.is_empty()
    }
}

/// What a server's configuration needs of the shared modules.
#[derive(Default)]
pub(crate) struct Phases {
    pub post_read: Vec<Box<dyn Check<Lines>>>,
    pub preaccess: Vec<Box<dyn Check<Lines>>>,
    pub access: Vec<Box<dyn Check<Lines>>>,
    pub log: Vec<Box<dyn Log<Lines>>>,
}

impl common::modules::Phases<Lines> for Phases {
    fn post_read(&mut self, check: impl Check<Lines>) {
        self.post_read.push(Box::new(check));
    }

    fn preaccess(&mut self, check: impl Check<Lines>) {
        self.preaccess.push(Box::new(check));
    }

    fn access(&mut self, check: impl Check<Lines>) {
        self.access.push(Box::new(check));
    }

    fn log(&mut self, log: impl Log<Lines>) {
        self.log.push(Box::new(log));
    }
}
