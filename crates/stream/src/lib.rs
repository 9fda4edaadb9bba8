//! TCP and UDP: sessions of clients, the phases that they go through, and proxying.
//!
//! [`Module`] is what the program registers. `config` reads, `app` builds and runs; a client is served in `session`, by the
//! checks and the handler that its server's configuration needs (`module`). Nearly all of it is `common`'s and `upstream`'s.
#![forbid(unsafe_code)]

mod app;
pub mod config;
pub mod health;
pub mod module;
pub mod pass;
pub mod preread;
mod proto;
pub mod proxy;
pub mod return_;
pub mod server;
pub mod session;
pub mod set;
pub mod ssl;
pub mod udp;
mod variables;

pub use app::Module;
pub use proto::StreamProto;

use common::front::ssl as common_ssl;
use common::modules::{access, geo, geoip, geoip2, limit_conn, log, map, realip, split_clients};

use crate::module::{Shared, StreamModule};
use crate::preread::{mqtt_preread, rdp_preread, ssl_preread};

/// The modules; within a phase they act in this order.
pub(crate) const MODULES: &[&dyn StreamModule] = &[
    &Shared(common_ssl::Ssl),
    &ssl::Handshake,
    &Shared(realip::Realip),
    &Shared(map::Map),
    &Shared(geo::Geo),
    &Shared(geoip::Geoip),
    &Shared(geoip2::Geoip2),
    &Shared(split_clients::SplitClients),
    &set::Set,
    &Shared(limit_conn::LimitConn),
    &Shared(access::Access),
    &ssl_preread::SslPreread,
    &mqtt_preread::MqttPreread,
    &rdp_preread::RdpPreread,
    &return_::Return,
    &pass::Pass,
    &proxy::Proxy,
    &health::HealthChecks,
    &Shared(log::Log),
];
