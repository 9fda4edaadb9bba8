//! `stream {}` as it is read.

use std::rc::Rc;

use common::backend::ssl::UpstreamSslConf;
use common::backend::{self, Specs};
use common::front::blocks;
use common::front::ssl::Ssl;
use common::modules::access::Access;
use common::modules::geo::Geo;
use common::modules::geoip::Geoip;
use common::modules::geoip2::Geoip2;
use common::modules::limit_conn::LimitConn;
use common::modules::log::Log;
use common::modules::map::Map;
use common::modules::realip::Realip;
use common::modules::split_clients::SplitClients;
use common::modules::{Module, Phases};
use common::ocsp::Names;
use common::vars::text::put;
use common::vars::{Getter, Setup, define_facts, template};
use conf::values::{flag, string};
use conf::{Args, Context, Directive, Error, Loader, Registry, Result, Set};
use expr::vars::{Flags, Template};

use crate::proto::{Backend, Lines};

/// No names of OCSP responders are looked up.
pub(crate) const NO_NAMES: Names = Names { resolver: None, timeout_ms: 0 };

/// All of `stream {}`, before inheritance.
pub(crate) type Builder = blocks::Builder<Lines>;

conf::table! {
    /// The block.
    pub struct LinesBlock, raw LinesBlockRaw, module "lines", level MAIN Main;

    /// The protocol's block.
    "stream" in Context::MAIN, Args::exactly(0).block(), default none, block(stream);
}

conf::table! {
    /// Its servers.
    pub struct ServerBlock, raw ServerBlockRaw, module "lines", level STREAM Main;

    /// A server.
    "server" in Context::STREAM, Args::exactly(0).block(), default none, block(blocks::server::<Lines>);
    /// An address of the server.
    "listen" in Context::STREAM_SERVER, Args::at_least(1), default none, block(blocks::listen::<Lines>);
    /// Names of the server.
    "server_name" in Context::STREAM_SERVER, Args::at_least(1), default none, block(blocks::server_name::<Lines>);
}

conf::table! {
    /// A server's own directives.
    pub struct LinesConf, raw LinesRaw, module "lines", level STREAM Server;

    under "proxy_" {
        /// TLS to the backend.
        ssl: UpstreamSslConf<Lines> [all];
    }
    /// The answer to each line.
    "reply" in Context::STREAM_SERVER, Args::exactly(1), default none,
        scalar(template::<Lines>) reply: Option<Rc<Template>> = None;
    /// The upstream that answers each line.
    "pass" in Context::STREAM_SERVER, Args::exactly(1), default none, scalar(string) pass: String = String::new();
    /// Whether it is spoken to over TLS.
    "proxy_ssl" in Context::STREAM_SERVER, Args::FLAG, default "off", scalar(flag) proxy_ssl: bool = false;
}

/// All modules that it shares.
pub(crate) const PROTOCOL_MODULES: All = All;

/// The list of them.
pub(crate) struct All;

impl Module<Lines> for All {
    fn tables(&self, registry: &mut Registry) {
        Module::<Lines>::tables(&Ssl, registry);
        Module::<Lines>::tables(&Map, registry);
        Module::<Lines>::tables(&Geo, registry);
        Module::<Lines>::tables(&Geoip, registry);
        Module::<Lines>::tables(&Geoip2, registry);
        Module::<Lines>::tables(&SplitClients, registry);
        Module::<Lines>::tables(&Realip, registry);
        Module::<Lines>::tables(&LimitConn, registry);
        Module::<Lines>::tables(&Access, registry);
        Module::<Lines>::tables(&Log, registry);
        backend::groups::tables::<Lines>(registry);
    }

    fn variables(&self, setup: &mut Setup<Lines>) {
        define_facts(setup);
        Module::<Lines>::variables(&Ssl, setup);
        Module::<Lines>::variables(&Geoip, setup);
        Module::<Lines>::variables(&Realip, setup);
        Module::<Lines>::variables(&LimitConn, setup);
        common::variables! { setup, "lines";
            /// The line that is being answered.
            "line", Flags::NOCACHEABLE, Getter::<Lines>::Plain(|session, out| put(out, &session.line));
            /// The status of the session: 200, or what a check has said.
            "status", Flags::NOCACHEABLE, Getter::<Lines>::Plain(|session, out| put(out, session.status.to_string().as_bytes()));
        }
    }

    fn phases(&self, set: &Set, loader: &mut Loader<'_>, out: &mut impl Phases<Lines>) -> Result<()> {
        Realip.phases(set, loader, out)?;
        LimitConn.phases(set, loader, out)?;
        Access.phases(set, loader, out)?;
        Log.phases(set, loader, out)
    }
}

/// Registers the protocol's own tables.
pub(crate) fn tables(registry: &mut Registry) {
    registry.add::<LinesBlock>();
    registry.add::<ServerBlock>();
    registry.add::<LinesConf>();
}

fn stream(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    blocks::block::<Lines>(loader, d, |loader| PROTOCOL_MODULES.variables(loader.store.entry()))
}

/// Where a server's `pass` goes.
pub(crate) fn backend(set: &Set, loader: &mut Loader<'_>) -> Result<Option<Backend>> {
    let conf = set.get::<LinesConf>();
    if conf.pass.is_empty() {
        return Ok(None);
    }
    let name = conf.pass.to_ascii_lowercase().into_bytes();
    let found = loader.store.entry::<Specs<Lines>>().build().find(|(known, ..)| *known == name);
    let (name, group, key) = found.ok_or_else(|| Error::new(format!("no upstream \"{}\"", conf.pass)))?;
    let tls = match conf.proxy_ssl {
        true => Some(Rc::new(backend::ssl::client(&conf.ssl, "proxy_", &[], loader)?)),
        false => None,
    };
    Ok(Some(Backend { name, group, key, tls }))
}
