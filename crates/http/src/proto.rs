//! HTTP as a protocol of the modules that it shares with others.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::rc::Rc;

use common::front::proxy::ProxyHeader;
use common::modules::log::LogProto;
use common::modules::realip::Lines;
use common::vars::Store;
use common::{Facts, Places, Proto, Session, Tables};
use conf::{Context, Level};
use engine::log::{Errno, Level as LogLevel};
use os::SockAddr;
use tls::Secured;
use wire::h1::KnownHeader;

use crate::config::core::{AND_IF, EVERYWHERE, SERVERS, Satisfy, VariableConf};
use crate::request::Request;
use crate::request::facts::Pending;
use crate::request::variables::Variables;
use crate::server::Http;

/// HTTP.
pub struct HttpProto;

impl Proto for HttpProto {
    type Session = Request;

    const PORT: Option<u16> = Some(80);

    const HAS_HEADS: bool = true;
    const PLACES: Places = Places {
        block: Context::HTTP,
        server: Context::SERVER,
        servers: SERVERS,
        everywhere: EVERYWHERE,
        access: EVERYWHERE.or(Context::LIMIT_EXCEPT),
        log: AND_IF.or(Context::LIMIT_EXCEPT),
        upstream: Context::UPSTREAM,
        innermost: Level::Location,
    };

    fn tables() -> &'static Tables {
        common::tables!("http")
    }
}

impl LogProto for HttpProto {
    const COMBINED: Option<&'static str> = Some(
        "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \"$http_referer\" \
         \"$http_user_agent\"",
    );

    fn default_log() -> Option<PathBuf> {
        Some(engine::personality::personality().http_log.clone())
    }

    /// The request's root has to be there: a client can't fill a folder with logs of names that it made up.
    fn may_create(r: &mut Request) -> bool {
        use std::os::unix::ffi::OsStrExt;
        let Some(root) = r.document_root() else { return false };
        let error = match std::fs::metadata(std::ffi::OsStr::from_bytes(&root)) {
            Ok(meta) if meta.is_dir() => return true,
            // ENOTDIR
            Ok(_) => std::io::Error::from_raw_os_error(20),
            Err(error) => error,
        };
        let root = buf::text::encode(&root);
        r.log_error(format_args!("testing \"{root}\" existence failed{}", Errno(&error)));
        false
    }
}

impl Facts for Request {
    fn peer(&self) -> &SockAddr {
        &self.conn.peer
    }

    fn relay(&self) -> Option<&SockAddr> {
        self.relay.as_ref()
    }

    fn forwarded_for(&self) -> Lines<'_> {
        self.header_lines(KnownHeader::XForwardedFor).collect()
    }

    fn local(&mut self) -> &SockAddr {
        self.local_addr()
    }

    fn proxy(&self) -> Option<&ProxyHeader> {
        self.conn.proxy()
    }

    fn tls(&self) -> Option<&Secured> {
        self.conn.tls().map(|tls| &**tls)
    }

    fn pending_name(&self) -> Option<&[u8]> {
        self.find_slot::<Pending>().map(|pending| &*pending.server_name)
    }

    fn number(&self) -> u64 {
        self.number
    }
}

/// The variables of a configuration, which lives as long as this.
pub struct Held(Rc<Http>);

impl Deref for Held {
    type Target = Variables;

    fn deref(&self) -> &Variables {
        &self.0.variables
    }
}

impl Session for Request {
    type Proto = HttpProto;
    type Held = Held;

    fn variables(&self) -> &Variables {
        &self.http.variables
    }

    fn hold(&self) -> Held {
        Held(self.http.clone())
    }

    fn store(&self) -> &Store {
        &self.vars
    }

    fn store_mut(&mut self) -> &mut Store {
        &mut self.vars
    }

    fn is_subrequest(&self) -> bool {
        Request::is_subrequest(self)
    }

    fn with_family_slot<T: Any + Default, R>(&mut self, f: impl FnOnce(&mut T) -> R) -> R {
        Request::with_family_slot(self, f)
    }

    fn replace_peer(&mut self, client: SockAddr) {
        Request::replace_peer(self, client);
    }

    fn is_refusal_final(&self) -> bool {
        self.location.core.satisfy == Satisfy::All
    }

    fn warns_uninitialized(&self) -> bool {
        self.location.set.get::<VariableConf>().uninitialized_variable_warn
    }

    fn log_at(&self, level: LogLevel, message: fmt::Arguments<'_>) {
        Request::log_at(self, level, message);
    }
}

common::render_templates!(Request);
