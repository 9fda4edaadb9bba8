//! `empty_gif`: a transparent picture of one pixel.

use std::rc::Rc;

use buf::{Bytes, Chain};
use conf::{Args, Context, Directive, Loader, Registry, Result};
use http::module::{HttpModule, LocationContext};
use http::phases::{Flow, PromptHandler};
use http::request::Request;
use http::response::Body;
use http::server::location::Handlers;
use wire::h1::Method;

/// The module.
pub struct EmptyGif;

conf::table! {
    /// Whether the picture is served.
    pub struct EmptyGifConf, raw EmptyGifRaw, module "ngx_http_empty_gif_module", level HTTP Location;

    /// Responds with a transparent picture of one pixel, from memory.
    ///
    /// Effect: GET and HEAD requests get the picture, of 43 bytes; other methods get status 405. Its `Last-Modified` never
    /// changes, so browsers may keep it.
    ///
    /// ```nginx
    /// location = /pixel.gif {
    ///     empty_gif;
    /// }
    /// ```
    "empty_gif" in Context::LOCATION, Args::exactly(0), default none,
        last(|_: &mut Loader<'_>, _: &Directive| Ok(())) shown: ();
}

impl HttpModule for EmptyGif {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<EmptyGifConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        if cx.of_owners::<EmptyGifConf>().any(|conf| conf.shown.is_some()) {
            out.content = vec![Rc::new(EmptyGif)];
            out.exclusive = true;
        }
        Ok(())
    }
}

impl PromptHandler for EmptyGif {
    fn answer(&self, r: &mut Request) -> Flow<'static> {
        if !matches!(r.method, Method::Get | Method::Head) {
            return Flow::Status(405);
        }
        let response = &mut r.response;
        response.status = 200;
        response.content_type = Some(Bytes::from_static(b"image/gif"));
        response.content_length = Some(GIF.len() as u64);
        response.last_modified = Some(MODIFIED);
        response.body = Body::Chain(Chain::from(Bytes::from_static(GIF)));
        Flow::Respond
    }
}

/// When the picture was last changed: as in nginx, on 28 September 1970.
const MODIFIED: i64 = 23_349_600;

const GIF: &[u8] = b"GIF89a\
    \x01\x00\x01\x00\x80\x01\x00\
    \x00\x00\x00\xff\xff\xff\
    \x21\xf9\x04\x01\x00\x00\x01\x00\
    \x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\
    \x02\x02\x4c\x01\x00\x3b";
