//! `brotli_static`: a file `name.br` answers for `name`, to clients that take it.

use conf::values::one_of;
use conf::{Args, Registry, Result};
use http::config::core::EVERYWHERE;
use http::files::encoded::{self, Coding, MODES, Mode};
use http::module::{HttpModule, LocationContext};
use http::response::gzip::accepts;
use http::server::location::Handlers;

/// The module.
pub struct BrotliStatic;

conf::table! {
    /// Whether compressed files are served.
    pub struct BrotliStaticConf, raw BrotliStaticRaw, module "ngx_http_brotli_static_module", level HTTP Location;

    /// Serves files that were compressed with Brotli before: `x.css.br` for a request of `x.css`.
    ///
    /// Form: `brotli_static off | on | always`
    ///
    /// - `off`: compressed files aren't looked for.
    /// - `on`: a client that accepts Brotli gets the compressed file if there is one.
    /// - `always`: every client gets the compressed file if there is one.
    ///
    /// Effect: the response has `Content-Encoding: br` and the type of the file without the ending. `gzip_vary` holds
    /// with `on`; `brotli` needn't be on. Such a file is preferred to one of `gzip_static`.
    ///
    /// Cost: a look at the file system for each request, unless `open_file_cache` has it. Nothing is compressed, and
    /// the kernel can send the files (`sendfile`).
    ///
    /// Danger: a compressed file that is older than its original is served all the same. With `always` clients without
    /// Brotli get what they can't read.
    ///
    /// ```nginx
    /// location /static/ {
    ///     root site;
    ///     brotli_static on;
    ///     gzip_static on;
    ///     gzip_vary on;
    /// }
    /// ```
    "brotli_static" in EVERYWHERE, Args::exactly(1), default "off",
        scalar(one_of(MODES)) brotli_static: Mode = Mode::Off;
}

impl HttpModule for BrotliStatic {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<BrotliStaticConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let mode = cx.set.get::<BrotliStaticConf>().brotli_static;
        encoded::install(mode, Coding { name: "br", ending: ".br", accepted: |r| accepts(r, b"br") }, cx, out);
        Ok(())
    }
}
