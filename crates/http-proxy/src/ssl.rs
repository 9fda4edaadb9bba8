//! TLS to backends, as locations have it: see `common::backend::ssl`.

use std::rc::Rc;

pub use common::backend::ssl::{Failure, UpstreamTls, client};
use conf::Result;
use http::HttpProto;
use http::module::LocationContext;

/// What protocols over TLS can be told.
pub type UpstreamSslConf = common::backend::ssl::UpstreamSslConf<HttpProto>;

/// TLS as a location's directives say, offering these protocols by ALPN; locations with the same ones share it, and the
/// sessions with it.
pub(crate) fn shared(
    cx: &mut LocationContext<'_, '_>,
    conf: &Rc<UpstreamSslConf>,
    prefix: &str,
    alpn: Alpn,
) -> Result<Rc<UpstreamTls>> {
    let made = &cx.loader.store.entry::<Shared>().0;
    if let Some(made) = made.iter().find(|made| Rc::ptr_eq(&made.conf, conf) && made.alpn == alpn) {
        return Ok(made.tls.clone());
    }
    let place = ["ssl_ciphers", "ssl_conf_command", "ssl_verify", "pass"];
    let place = place.iter().find_map(|name| cx.place(&format!("{prefix}{name}")));
    let tls = Rc::new(client(conf, prefix, alpn, cx.loader).map_err(|error| error.or_at(place))?);
    cx.loader.store.entry::<Shared>().0.push(Made { conf: conf.clone(), alpn, tls: tls.clone() });
    Ok(tls)
}

/// Names of protocols.
type Alpn = &'static [&'static [u8]];

/// The TLS settings made so far.
#[derive(Default)]
struct Shared(Vec<Made>);

/// TLS settings, with what they were made of.
struct Made {
    conf: Rc<UpstreamSslConf>,
    alpn: Alpn,
    tls: Rc<UpstreamTls>,
}
