//! Compressing responses.

use conf::values::flag;
use conf::{Args, Registry};

use super::HttpModule;
use crate::core::conf::EVERYWHERE;

/// The module.
pub struct Gzip;

conf::table! {
    /// Directives.
    pub struct GzipConf, raw GzipRaw, module "ngx_http_core_module", level HTTP Location;

    /// Whether responses that could be compressed say `Vary: Accept-Encoding`.
    "gzip_vary" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) gzip_vary: bool = false;
}

impl HttpModule for Gzip {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<GzipConf>();
    }
}
