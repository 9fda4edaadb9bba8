//! `geoip2_proxy` and `geoip2_proxy_recursive`: proxies that name the clients whose addresses `geoip2` looks up.
//!
//! The databases are shared by all protocols; only HTTP has proxies that name clients.

use common::modules::Module as _;
use common::modules::geoip2::{self, proxies};
use common::modules::realip::{Forwarders, Proxies, Trusted, geo_network};
use conf::values::flag;
use conf::{Args, Context, Directive, Loader, Registry, Result};
use expr::lookup::Network;
use http::HttpProto;
use http::module::HttpModule;
use http::request::variables::Setup;

/// The module.
pub struct Geoip2;

conf::table! {
    /// Proxies that are trusted to name clients.
    pub struct Geoip2ProxyConf, raw Geoip2ProxyRaw, module "ngx_http_geoip2_module", level HTTP Main;

    /// Trusts a proxy to name the client whose address is looked up.
    ///
    /// Form: `geoip2_proxy address | network`
    ///
    /// - `address`, `network`: an IP address, or a network such as `192.0.2.0/24` or `2001:db8::/32`.
    ///
    /// Effect: of requests from there the last address in the field `X-Forwarded-For` is looked up. Nothing else depends
    /// on it: `$remote_addr` stays the proxy's. The directive may be repeated.
    ///
    /// Danger: whoever connects from a trusted address can pretend to be anywhere.
    ///
    /// ```nginx
    /// geoip2_proxy 192.0.2.0/24;
    /// ```
    "geoip2_proxy" in Context::HTTP, Args::exactly(1), default none,
        list(proxy) geoip2_proxy: Network;
    /// Sets whether addresses of trusted proxies in a list are passed over.
    ///
    /// Effect: with `on` the last address in `X-Forwarded-For` is looked up that `geoip2_proxy` doesn't trust; with `off` the
    /// last one, whoever that is.
    ///
    /// ```nginx
    /// geoip2_proxy 192.0.2.0/24;
    /// geoip2_proxy_recursive on;
    /// ```
    "geoip2_proxy_recursive" in Context::HTTP, Args::FLAG, default "off",
        scalar(flag) geoip2_proxy_recursive: bool = false;
    finish(finish)
}

fn proxy(loader: &mut Loader<'_>, d: &Directive) -> Result<Network> {
    geo_network(loader, d, d.arg(0))
}

fn finish(conf: &mut Geoip2ProxyConf, _: Option<&Geoip2ProxyConf>, loader: &mut Loader<'_>) -> Result<()> {
    let trusted = Trusted::new(&[Proxies::At(conf.geoip2_proxy.to_vec())]).filter(|_| !conf.geoip2_proxy.is_empty());
    proxies::<HttpProto>(loader).replace(Forwarders { trusted, recursive: conf.geoip2_proxy_recursive });
    Ok(())
}

impl HttpModule for Geoip2 {
    fn tables(&self, registry: &mut Registry) {
        common::modules::Module::<HttpProto>::tables(&geoip2::Geoip2, registry);
        registry.add::<Geoip2ProxyConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        geoip2::Geoip2.variables(setup);
    }
}
