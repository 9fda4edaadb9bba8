//! What http, stream and the like are to the modules that they share: [`Proto`] says where directives stand and what
//! sessions are, [`Session`] what modules may ask of a session.

use std::any::Any;
use std::fmt;
use std::ops::Deref;

use conf::table::Place;
use conf::{Context, Level};
use engine::log::Level as LogLevel;
use os::SockAddr;
use tls::Secured;

use crate::front::proxy::ProxyHeader;
use crate::modules::realip::Lines;
use crate::vars::{Store, Variables};

/// A protocol.
pub trait Proto: Sized + 'static {
    /// What templates are rendered for: a request of HTTP, a session of a stream.
    type Session: Session<Proto = Self>;

    /// The port of addresses that have none; without it they have to.
    const PORT: Option<u16>;

    /// Whether responses have heads, whose coming is a moment of its own.
    const HAS_HEADS: bool = false;

    /// Where directives of shared modules stand.
    const PLACES: Places;

    /// Its own copies of the shared modules' tables; made by [`tables!`](crate::tables).
    fn tables() -> &'static Tables;
}

/// The contexts of a protocol.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// Its block.
    pub block: Context,
    /// `server {}` in it.
    pub server: Context,
    /// Where what belongs to servers stands.
    pub servers: Context,
    /// Where what belongs to the innermost level stands.
    pub everywhere: Context,
    /// Where access is decided.
    pub access: Context,
    /// Where access logs are chosen.
    pub log: Context,
    /// `upstream {}` in it.
    pub upstream: Context,
    /// The level of what sessions use: the location where there are locations, else the server.
    pub innermost: Level,
}

/// What modules may know of a session's connection.
pub trait Facts {
    /// The client's address.
    fn peer(&self) -> &SockAddr;

    /// The trusted proxy whose connection it is, once the address that the proxy named has become the client's.
    fn relay(&self) -> Option<&SockAddr> {
        None
    }

    /// The values of the field to which proxies append the client's address (`X-Forwarded-For`).
    fn forwarded_for(&self) -> Lines<'_> {
        Lines::new()
    }

    /// The address that the client connected to.
    fn local(&mut self) -> &SockAddr;

    /// What the PROXY protocol said.
    fn proxy(&self) -> Option<&ProxyHeader>;

    /// What is known of its TLS; `None` without TLS.
    fn tls(&self) -> Option<&Secured>;

    /// The name that the client has given while its handshake still goes on; `None` before and after that.
    fn pending_name(&self) -> Option<&[u8]> {
        None
    }

    /// The connection's serial number.
    fn number(&self) -> u64;
}

/// A session of a protocol.
pub trait Session: Facts + expr::vars::Session + 'static {
    /// The protocol.
    type Proto: Proto<Session = Self>;
    /// Keeps the variables' definitions alive while one of them works on the session.
    type Held: Deref<Target = Variables<Self::Proto>>;

    /// The variables of its configuration.
    fn variables(&self) -> &Variables<Self::Proto>;

    /// The same, apart from the session.
    fn hold(&self) -> Self::Held;

    /// What it keeps for variables and modules.
    fn store(&self) -> &Store;

    /// The same, to be changed.
    fn store_mut(&mut self) -> &mut Store;

    /// Whether it is a part of another one, which a client began.
    fn is_subrequest(&self) -> bool {
        false
    }

    /// Uses the state of a module for the client's session and all parts of it, made when first asked for.
    fn with_family_slot<T: Any + Default, R>(&mut self, f: impl FnOnce(&mut T) -> R) -> R {
        f(self.store_mut().slots.shared_entry())
    }

    /// Makes the address that a trusted proxy names the client's, until the session ends.
    fn replace_peer(&mut self, client: SockAddr);

    /// Whether the use of variables without a value is logged (`uninitialized_variable_warn`).
    fn warns_uninitialized(&self) -> bool;

    /// Whether nothing can allow what one check refuses; with `satisfy any` another one may.
    fn is_refusal_final(&self) -> bool {
        true
    }

    /// Logs with the session's details.
    fn log_at(&self, level: LogLevel, message: fmt::Arguments<'_>);
}

/// A protocol's copies of the shared modules' tables.
#[expect(missing_docs, reason = "each is the table of that name")]
pub struct Tables {
    pub core: Place,
    pub core_sizes: Place,
    pub rewrite: Place,
    pub map: Place,
    pub geo: Place,
    pub geoip: Place,
    pub geoip2: Place,
    pub split_clients: Place,
    pub access: Place,
    pub realip: Place,
    pub limit_conn_zones: Place,
    pub limit_conn: Place,
    pub log_formats: Place,
    pub log: Place,
    pub ssl: Place,
    /// No table: the owner of zones in which responses of OCSP are kept.
    pub ssl_ocsp: Place,
    pub upstream: Place,
    pub upstream_zone: Place,
    pub upstream_keepalive: Place,
    pub upstream_least_conn: Place,
    pub upstream_least_time: Place,
    pub upstream_sticky: Place,
    pub upstream_ip_hash: Place,
    pub upstream_hash: Place,
    pub upstream_random: Place,
}

/// The body of [`Proto::tables`]: `common::tables!("http")` names the modules `ngx_http_map_module` and so on.
#[macro_export]
macro_rules! tables {
    ($protocol:literal) => {{
        macro_rules! place {
            ($module:literal) => {
                $crate::Place::new(concat!("ngx_", $protocol, "_", $module, "_module"))
            };
        }
        static TABLES: $crate::Tables = $crate::Tables {
            core: place!("core"),
            core_sizes: place!("core"),
            rewrite: place!("rewrite"),
            map: place!("map"),
            geo: place!("geo"),
            geoip: place!("geoip"),
            geoip2: place!("geoip2"),
            split_clients: place!("split_clients"),
            access: place!("access"),
            realip: place!("realip"),
            limit_conn_zones: place!("limit_conn"),
            limit_conn: place!("limit_conn"),
            log_formats: place!("log"),
            log: place!("log"),
            ssl: place!("ssl"),
            ssl_ocsp: place!("ssl_ocsp"),
            upstream: place!("upstream"),
            upstream_zone: place!("upstream_zone"),
            upstream_keepalive: place!("upstream_keepalive"),
            upstream_least_conn: place!("upstream_least_conn"),
            upstream_least_time: place!("upstream_least_time"),
            upstream_sticky: place!("upstream_sticky"),
            upstream_ip_hash: place!("upstream_ip_hash"),
            upstream_hash: place!("upstream_hash"),
            upstream_random: place!("upstream_random"),
        };
        &TABLES
    }};
}

/// Lets templates be rendered for a [`Session`]: `common::render_templates!(Request);`. No blanket implementation can do it,
/// as the trait is another crate's.
#[macro_export]
macro_rules! render_templates {
    ($session:ty) => {
        impl ::expr::vars::Session for $session {
            fn variable(&mut self, id: ::expr::vars::VarId, out: &mut Vec<u8>) -> bool {
                $crate::vars::value(self, id, out)
            }

            fn capture(&self, n: usize) -> Option<&[u8]> {
                $crate::Session::store(self).captures.get(n)
            }

            fn captures_serial(&self) -> u32 {
                $crate::Session::store(self).captures.serial()
            }
        }
    };
}
