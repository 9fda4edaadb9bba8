//! `gzip_static`: a file `name.gz` answers for `name`, to clients that take it.

use conf::values::one_of;
use conf::{Args, Registry, Result};
use http::config::core::EVERYWHERE;
use http::files::encoded::{self, Coding, MODES, Mode};
use http::module::HttpModule;
use http::module::LocationContext;
use http::response::gzip::gzip_ok;
use http::server::location::Handlers;

/// The module.
pub struct GzipStatic;

conf::table! {
    /// Whether compressed files are served.
    pub struct GzipStaticConf, raw GzipStaticRaw, module "ngx_http_gzip_static_module", level HTTP Location;

    /// Serves files that were compressed before: `x.css.gz` for a request of `x.css`.
    ///
    /// Form: `gzip_static off | on | always`
    ///
    /// - `off`: compressed files aren't looked for.
    /// - `on`: a client that accepts gzip gets the compressed file if there is one.
    /// - `always`: every client gets the compressed file if there is one.
    ///
    /// Effect: the response has `Content-Encoding: gzip` and the type of the file without the ending.
    /// `gzip_http_version`, `gzip_proxied`, `gzip_disable` and `gzip_vary` hold with `on`; `gzip` needn't be on.
    ///
    /// Cost: a look at the file system for each request, unless `open_file_cache` has it. Nothing is compressed, and
    /// the kernel can send the files (`sendfile`).
    ///
    /// Danger: a compressed file that is older than its original is served all the same. With `always` clients without
    /// gzip get what they can't read.
    ///
    /// ```nginx
    /// location /static/ {
    ///     root site;
    ///     gzip_static on;
    ///     gzip_vary on;
    /// }
    /// ```
    "gzip_static" in EVERYWHERE, Args::exactly(1), default "off",
        scalar(one_of(MODES)) gzip_static: Mode = Mode::Off;
}

impl HttpModule for GzipStatic {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<GzipStaticConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let mode = cx.set.get::<GzipStaticConf>().gzip_static;
        encoded::install(mode, Coding { name: "gzip", ending: ".gz", accepted: gzip_ok }, cx, out);
        Ok(())
    }
}
