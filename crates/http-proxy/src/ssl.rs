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
    alpn: &'static [&'static [u8]],
) -> Result<Rc<UpstreamTls>> {
    let made = &cx.loader.store.entry::<Made>().0;
    if let Some((.., made)) = made.iter().find(|(known, offered, _)| Rc::ptr_eq(known, conf) && *offered == alpn) {
        return Ok(made.clone());
    }
    let place = ["ssl_ciphers", "ssl_conf_command", "ssl_verify", "pass"];
    let place = place.iter().find_map(|name| cx.place(&format!("{prefix}{name}")));
    let made = Rc::new(client(conf, prefix, alpn, cx.loader).map_err(|error| error.or_at(place))?);
    cx.loader.store.entry::<Made>().0.push((conf.clone(), alpn, made.clone()));
    Ok(made)
}

/// The TLS settings made for each set of directives.
#[derive(Default)]
struct Made(Vec<(Rc<UpstreamSslConf>, &'static [&'static [u8]], Rc<UpstreamTls>)>);
