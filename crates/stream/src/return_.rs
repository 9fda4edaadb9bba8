//! `return`: a text for the client, and the session is over.

use std::rc::Rc;

use buf::{Bytes, Chain};
use common::vars::{self, template};
use conf::{Args, Context, Registry, Result};
use expr::vars::Template;

use crate::module::{Content, Handlers, ServerContext, Serving, StreamModule};
use crate::proto::StreamProto;
use crate::session::StreamSession;

/// The module.
pub struct Return;

conf::table! {
    /// What is returned.
    pub struct ReturnConf, raw ReturnRaw, module "ngx_stream_return_module", level STREAM Server;

    /// Sends a text to the client, and ends the session.
    ///
    /// Form: `return text`
    ///
    /// - `text`: a text with variables.
    ///
    /// Effect: what the client sends isn't read.
    ///
    /// ```nginx
    /// server {
    ///     listen 127.0.0.1:8080;
    ///     return $time_iso8601;
    /// }
    /// ```
    "return" in Context::STREAM_SERVER, Args::exactly(1), default none,
        scalar(template::<StreamProto>) text: Option<Rc<Template>> = None;
}

impl StreamModule for Return {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<ReturnConf>();
    }

    fn server(&self, cx: &mut ServerContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        if let Some(text) = &cx.set.get::<ReturnConf>().text {
            out.content = Some(Rc::new(Returned(text.clone())));
        }
        Ok(())
    }
}

struct Returned(Rc<Template>);

impl Content for Returned {
    fn serve<'a>(&'a self, mut s: Box<StreamSession>) -> Serving<'a> {
        Box::pin(async move {
            let text = vars::render(&mut *s, &self.0);
            if !text.is_empty() {
                s.send(Chain::from(Bytes::from(text)), TIMEOUT_MS).await;
            }
            Some(s)
        })
    }
}

/// How long the client may take nothing of the text.
const TIMEOUT_MS: u64 = 60_000;
