//! TLS to backends, as locations have it: see `common::backend::ssl`.

use std::rc::Rc;

pub use common::backend::ssl::{Failure, UpstreamTls, client};
use conf::Result;
use http::HttpProto;
use http::module::LocationContext;

use crate::pass::Destination;

/// What protocols over TLS can be told.
pub type UpstreamSslConf = common::backend::ssl::UpstreamSslConf<HttpProto>;

/// TLS as the location's directives say, if its backends may be spoken to over it; `prefix` is that of the directives.
/// Locations with the same ones share it, and the sessions with it.
pub(crate) fn of_location(
    cx: &mut LocationContext<'_, '_>,
    destination: &Destination,
    conf: &Rc<UpstreamSslConf>,
    prefix: &str,
) -> Result<Option<Rc<UpstreamTls>>> {
    if !destination.may_be_over_ssl() {
        return Ok(None);
    }
    if let Some((_, made)) = cx.loader.store.entry::<Made>().0.iter().find(|(known, _)| Rc::ptr_eq(known, conf)) {
        return Ok(Some(made.clone()));
    }
    let names = ["ssl_ciphers", "ssl_conf_command", "ssl_verify", "pass"];
    let place = names.iter().find_map(|name| cx.place(&format!("{prefix}{name}")));
    let made = Rc::new(client(conf, prefix, cx.loader).map_err(|error| error.or_at(place))?);
    cx.loader.store.entry::<Made>().0.push((conf.clone(), made.clone()));
    Ok(Some(made))
}

/// The TLS settings made for each set of directives.
#[derive(Default)]
struct Made(Vec<(Rc<UpstreamSslConf>, Rc<UpstreamTls>)>);
