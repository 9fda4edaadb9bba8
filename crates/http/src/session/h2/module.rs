//! HTTP/2 as a module: its directives and its variable.

use conf::Registry;
use expr::vars::Flags;

use super::conf::{Http2Conf, Http2Location, Http2Main};
use crate::module::HttpModule;
use crate::request::variables::{Getter, Setup, put};

/// The module.
pub struct Http2;

impl HttpModule for Http2 {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<Http2Main>();
        registry.add::<Http2Conf>();
        registry.add::<Http2Location>();
    }

    fn variables(&self, setup: &mut Setup) {
        let protocol = Getter::Plain(|r, out| match r.h2_stream() {
            Some(_) => put(out, if r.conn.is_secure() { b"h2" } else { b"h2c" }),
            None => true,
        });
        crate::variables! { setup, "ngx_http_v2_module";
            /// `h2` over HTTP/2 with TLS, `h2c` without TLS, else empty.
            "http2", Flags::CHANGEABLE, protocol;
        }
    }
}
