//! `real_ip_header` and `real_ip_recursive`: where a trusted proxy names the client of a request.
//!
//! Who is trusted says `set_real_ip_from`, which protocols share. The address holds for the request: the connection keeps
//! its own, to which the next request returns.

use std::rc::Rc;

use common::modules::Module as _;
use common::modules::realip::{self, FromProxy, Lines, RealipConf, Trusted};
use common::modules::{Check, Phases, Verdict};
use conf::values::flag;
use conf::{Args, Directive, Loader, Registry, Result};
use http::HttpProto;
use http::config::core::EVERYWHERE;
use http::module::{HttpModule, LocationContext};
use http::request::Request;
use http::request::variables::Setup;
use http::server::location::Handlers;
use wire::h1::KnownHeader;

/// The module.
pub struct Realip;

conf::table! {
    /// Where the client is named.
    pub struct RealipHeaderConf, raw RealipHeaderRaw, module "ngx_http_realip_module", level HTTP Location;

    /// Sets the field in which trusted proxies name the client.
    ///
    /// Form: `real_ip_header field | proxy_protocol`
    ///
    /// - `field`: the name of a field of the request. Its value is an address, with a port if the proxy tells it
    ///   (`192.0.2.1:80`, `[2001:db8::1]:80`), or a list of addresses. Of fields of one name only `X-Forwarded-For` may
    ///   stand in several lines; of others the first line counts.
    /// - `proxy_protocol`: no field, but the header of the PROXY protocol, for sockets with `listen … proxy_protocol`.
    ///
    /// Effect: a request from an address that `set_real_ip_from` trusts is taken for one from the address in the field,
    /// the last one of a list. If that isn't an address, nothing is replaced.
    ///
    /// Danger: a field that the proxy doesn't set is the client's own word.
    ///
    /// ```nginx
    /// set_real_ip_from 192.0.2.0/24;
    /// real_ip_header X-Forwarded-For;
    /// real_ip_recursive on;
    /// ```
    "real_ip_header" in EVERYWHERE, Args::exactly(1), default "X-Real-IP",
        scalar(source) real_ip_header: Source = Source::Known(KnownHeader::XRealIp);
    /// Sets whether addresses of trusted proxies in a list are passed over.
    ///
    /// Effect: with `on` the client is the last address in the list that `set_real_ip_from` doesn't trust; with `off` the
    /// last one, whoever that is. It matters where a request passes several proxies.
    ///
    /// ```nginx
    /// set_real_ip_from 192.0.2.0/24;
    /// real_ip_header X-Forwarded-For;
    /// real_ip_recursive on;
    /// ```
    "real_ip_recursive" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) real_ip_recursive: bool = false;
}

/// Where the client's address is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The header of the PROXY protocol.
    ProxyProtocol,
    /// A field whose name is known.
    Known(KnownHeader),
    /// Another field.
    Field(Box<[u8]>),
}

fn source(_: &mut Loader<'_>, d: &Directive) -> Result<Source> {
    let name = &d.arg(0).text;
    if *name == b"proxy_protocol" {
        return Ok(Source::ProxyProtocol);
    }
    Ok(match KnownHeader::of(name) {
        KnownHeader::Other => Source::Field(name.as_slice().into()),
        known => Source::Known(known),
    })
}

impl HttpModule for Realip {
    fn tables(&self, registry: &mut Registry) {
        common::modules::Module::<HttpProto>::tables(&realip::Realip, registry);
        registry.add::<RealipHeaderConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        realip::Realip.variables(setup);
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let Some(trusted) = cx.set.get::<RealipConf<HttpProto>>().trusted.clone() else { return Ok(()) };
        let conf = cx.set.get::<RealipHeaderConf>();
        let named = || FromField {
            trusted: trusted.clone(),
            source: conf.real_ip_header.clone(),
            recursive: conf.real_ip_recursive,
        };
        // A server's own level acts before the rules of the server, any other one when the location has been found.
        match conf.real_ip_header {
            Source::ProxyProtocol => {
                out.post_read(FromProxy::new(trusted.clone()));
                out.preaccess(FromProxy::new(trusted.clone()));
            }
            _ => {
                out.post_read(named());
                out.preaccess(named());
            }
        }
        Ok(())
    }
}

/// Takes the client's address from a field.
struct FromField {
    trusted: Rc<Trusted>,
    source: Source,
    recursive: bool,
}

impl Check<HttpProto> for FromField {
    fn check(&self, r: &mut Request) -> Verdict {
        if r.relay.is_none() {
            let client = self.trusted.client(&r.conn.peer, || self.lines(r), self.recursive);
            client.into_iter().for_each(|client| r.replace_peer(client));
        }
        Verdict::Next
    }
}

impl FromField {
    fn lines<'a>(&self, r: &'a Request) -> Lines<'a> {
        match &self.source {
            Source::Known(known @ KnownHeader::XForwardedFor) => r.header_lines(*known).collect(),
            Source::Known(known) => r.header(*known).into_iter().collect(),
            Source::Field(name) => {
                let mut lines = r.line.headers.iter();
                let line = lines.find(|line| line.name.of(&r.head).eq_ignore_ascii_case(name));
                line.map(|line| line.value.of(&r.head)).into_iter().collect()
            }
            Source::ProxyProtocol => Lines::new(),
        }
    }
}
