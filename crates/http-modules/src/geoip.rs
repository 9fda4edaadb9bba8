//! `geoip_proxy` and `geoip_proxy_recursive`: proxies that name the clients whose addresses `geoip` looks up.
//!
//! The databases are shared by all protocols; only HTTP has proxies that name clients.

use common::modules::Module as _;
use common::modules::geoip::{self, databases};
use common::modules::realip::{Forwarders, Proxies, Trusted, geo_network};
use conf::values::flag;
use conf::{Args, Context, Directive, Loader, Registry, Result};
use expr::lookup::Network;
use http::HttpProto;
use http::module::HttpModule;
use http::request::variables::Setup;

/// The module.
pub struct Geoip;

conf::table! {
    /// Proxies that are trusted to name clients.
    pub struct GeoipProxyConf, raw GeoipProxyRaw, module "ngx_http_geoip_module", level HTTP Main;

    /// Trusts a proxy to name the client whose address is looked up.
    ///
    /// Form: `geoip_proxy address | network`
    ///
    /// - `address`, `network`: an IP address, or a network such as `192.0.2.0/24` or `2001:db8::/32`.
    ///
    /// Effect: of requests from there the last address in the field `X-Forwarded-For` is looked up. Nothing else depends
    /// on it: `$remote_addr` stays the proxy's. The directive may be repeated.
    ///
    /// Danger: whoever connects from a trusted address can pretend to be anywhere.
    ///
    /// ```nginx
    /// geoip_proxy 192.0.2.0/24;
    /// ```
    "geoip_proxy" in Context::HTTP, Args::exactly(1), default none,
        list(proxy) geoip_proxy: Network;
    /// Sets whether addresses of trusted proxies in a list are passed over.
    ///
    /// Effect: with `on` the last address in `X-Forwarded-For` is looked up that `geoip_proxy` doesn't trust; with `off` the
    /// last one, whoever that is.
    ///
    /// ```nginx
    /// geoip_proxy 192.0.2.0/24;
    /// geoip_proxy_recursive on;
    /// ```
    "geoip_proxy_recursive" in Context::HTTP, Args::FLAG, default "off",
        scalar(flag) geoip_proxy_recursive: bool = false;
    finish(finish)
}

fn proxy(loader: &mut Loader<'_>, d: &Directive) -> Result<Network> {
    geo_network(loader, d, d.arg(0))
}

fn finish(conf: &mut GeoipProxyConf, _: Option<&GeoipProxyConf>, loader: &mut Loader<'_>) -> Result<()> {
    let trusted = Trusted::new(&[Proxies::At(conf.geoip_proxy.to_vec())]).filter(|_| !conf.geoip_proxy.is_empty());
    databases::<HttpProto>(loader).proxies.replace(Forwarders { trusted, recursive: conf.geoip_proxy_recursive });
    Ok(())
}

impl HttpModule for Geoip {
    fn tables(&self, registry: &mut Registry) {
        common::modules::Module::<HttpProto>::tables(&geoip::Geoip, registry);
        registry.add::<GeoipProxyConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        geoip::Geoip.variables(setup);
    }
}
