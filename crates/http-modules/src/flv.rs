//! `flv`: Flash videos from any of their bytes on.

use std::rc::Rc;

use buf::{Bytes, Piece};
use conf::{Args, Context, Registry, Result};
use http::files::open_file::Files;
use http::files::regular::{set_length, wants_file};
use http::module::{HttpModule, LocationContext};
use http::phases::{Flow, PromptHandler};
use http::request::Request;
use http::response::Body;
use http::server::location::Handlers;

/// The module.
pub struct Flv;

conf::table! {
    /// Whether videos are served from a byte on.
    pub struct FlvConf, raw FlvRaw, module "ngx_http_flv_module", level HTTP Location;

    /// Serves Flash videos (FLV) from a byte on that the request asks for.
    ///
    /// Effect: for a request with the argument `start=number` the response is the head of an FLV file and the file from
    /// that byte on. Others get the whole file.
    ///
    /// ```nginx
    /// location ~ \.flv$ {
    ///     root site;
    ///     flv;
    /// }
    /// ```
    "flv" in Context::LOCATION, Args::exactly(0), default none,
        last(|_, _| Ok(())) flv: ();
}

impl HttpModule for Flv {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<FlvConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        if cx.set.get::<FlvConf>().flv.is_some() && !out.exclusive {
            out.content.push(Rc::new(Server(Files::of(cx.set, cx.loader))));
        }
        Ok(())
    }
}

struct Server(Files);

/// Version 1, with sound and pictures; then the length of the tag before the first one.
const HEAD: &[u8] = b"FLV\x01\x05\0\0\0\x09\0\0\0\0";

impl PromptHandler for Server {
    fn answer(&self, r: &mut Request) -> Flow<'static> {
        let Some(start) = r.argument(b"start").and_then(buf::parse::parse_number).filter(|start| *start > 0) else {
            return Flow::Next;
        };
        if !wants_file(r) {
            return Flow::Next;
        }
        let found = match self.0.open_of_uri(r) {
            Ok((_, found)) => found,
            Err(flow) => return flow,
        };
        let (size, modified) = (found.size, found.modified);
        found.respond(r);
        r.response.allow_ranges = true;
        if start < size
            && let Body::Chain(chain) = &mut r.response.body
        {
            chain.advance(start);
            chain.push_front(Piece::Bytes(Bytes::from_static(HEAD)));
            set_length(r, modified, size - start + HEAD.len() as u64);
        }
        Flow::Respond
    }
}
