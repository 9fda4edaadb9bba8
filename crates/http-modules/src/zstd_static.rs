//! `zstd_static`: a file `name.zst` answers for `name`, to clients that take it.

use conf::values::one_of;
use conf::{Args, Registry, Result};
use http::config::core::EVERYWHERE;
use http::files::encoded::{self, Coding, MODES, Mode};
use http::module::{HttpModule, LocationContext};
use http::response::gzip::accepts;
use http::server::location::Handlers;

/// The module.
pub struct ZstdStatic;

conf::table! {
    /// Whether compressed files are served.
    pub struct ZstdStaticConf, raw ZstdStaticRaw, module "ngx_http_zstd_static_module", level HTTP Location;

    /// Serves files that were compressed with Zstandard before: `x.css.zst` for a request of `x.css`.
    ///
    /// Form: `zstd_static off | on | always`
    ///
    /// - `off`: compressed files aren't looked for.
    /// - `on`: a client that accepts Zstandard gets the compressed file if there is one.
    /// - `always`: every client gets the compressed file if there is one.
    ///
    /// Effect: the response has `Content-Encoding: zstd` and the type of the file without the ending. `gzip_vary` holds
    /// with `on`; `zstd` needn't be on. Such a file is preferred to one of `gzip_static`.
    ///
    /// Cost: a look at the file system for each request, unless `open_file_cache` has it. Nothing is compressed, and
    /// the kernel can send the files (`sendfile`).
    ///
    /// Danger: a compressed file that is older than its original is served all the same. With `always` clients without
    /// Zstandard get what they can't read.
    ///
    /// ```nginx
    /// location /static/ {
    ///     root site;
    ///     zstd_static on;
    ///     gzip_static on;
    ///     gzip_vary on;
    /// }
    /// ```
    "zstd_static" in EVERYWHERE, Args::exactly(1), default "off",
        scalar(one_of(MODES)) zstd_static: Mode = Mode::Off;
}

impl HttpModule for ZstdStatic {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<ZstdStaticConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let mode = cx.set.get::<ZstdStaticConf>().zstd_static;
        encoded::install(mode, Coding { name: "zstd", ending: ".zst", accepted: |r| accepts(r, b"zstd") }, cx, out);
        Ok(())
    }
}
