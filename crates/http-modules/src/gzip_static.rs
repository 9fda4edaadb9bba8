//! `gzip_static`: a file `name.gz` answers for `name`, to clients that take it.

use std::rc::Rc;

use buf::Bytes;
use conf::values::one_of;
use conf::{Args, Registry, Result};
use engine::log::Errno;
use http::config::core::EVERYWHERE;
use http::fault::Fault;
use http::files::open_file::{Files, Kind};
use http::module::HttpModule;
use http::module::LocationContext;
use http::phases::{Flow, Handler};
use http::request::Request;
use http::response::gzip::gzip_ok;
use http::server::location::Handlers;
use wire::h1::{KnownHeader, Method};

/// The module.
pub struct GzipStatic;

/// Who gets compressed files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nobody.
    Off,
    /// Clients that take them.
    On,
    /// All clients.
    Always,
}

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
        scalar(one_of(&[("off", Mode::Off), ("on", Mode::On), ("always", Mode::Always)]))
        gzip_static: Mode = Mode::Off;
}

impl HttpModule for GzipStatic {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<GzipStaticConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let mode = cx.set.get::<GzipStaticConf>().gzip_static;
        if mode != Mode::Off && !out.exclusive {
            let files = Files::of(cx.set, cx.loader);
            out.content.push(Rc::new(Server { always: mode == Mode::Always, files }));
        }
        Ok(())
    }
}

struct Server {
    always: bool,
    files: Files,
}

impl Handler for Server {
    fn handle<'a>(&'a self, r: &'a mut Request) -> Flow<'a> {
        if r.uri.last() == Some(&b'/') || !matches!(r.method, Method::Get | Method::Head) {
            return Flow::Next;
        }
        let accepted = self.always || gzip_ok(r);
        // Without `gzip_vary` nothing depends on the file if the client doesn't accept it.
        if !accepted && !r.location.set.get::<http::response::gzip::GzipConf>().gzip_vary {
            return Flow::Next;
        }
        let mut path = match r.path_of_uri() {
            Ok(path) => path,
            Err(fault) => return fault.into(),
        };
        path.extend_from_slice(b".gz");
        let found = match self.files.open(r, &path) {
            Ok(found) => found,
            Err(error) => {
                let fault = error.fault();
                if fault != Fault::MissingFile {
                    let path = buf::text::encode(&path);
                    fault.log_with(r, &format_args!("{} \"{path}\" failed{}", error.call, Errno(&error.error)));
                }
                return Flow::Next;
            }
        };
        if !self.always {
            r.response.gzip_vary = true;
            if !accepted {
                return Flow::Next;
            }
        }
        match found.kind {
            Kind::Directory => return Flow::Next,
            Kind::Other => return Fault::NotAFile.log_with(r, &buf::text::encode(&path)).into(),
            Kind::File => {}
        }
        found.respond(r);
        r.response.allow_ranges = true;
        r.response.headers.add(KnownHeader::ContentEncoding, Bytes::from_static(b"gzip"));
        Flow::Respond
    }
}
