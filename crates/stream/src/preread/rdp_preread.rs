//! `rdp_preread`: the cookie of RDP clients, before a backend is chosen. As in Angie.

use conf::values::flag;
use conf::{Args, Registry, Result};
use expr::vars::Flags;
use wire::rdp;
use wire::tagged::{Reader, Writer};

use super::{Found, keep, kept};
use crate::module::{Examined, Handlers, Preread, ServerContext, StreamModule};
use crate::proto::{EVERYWHERE, Getter, Setup};
use crate::session::StreamSession;

/// The module.
pub struct RdpPreread;

conf::table! {
    /// Whether connection requests are read.
    pub struct RdpPrereadConf, raw RdpPrereadRaw, module "ngx_stream_rdp_preread_module", level STREAM Server;

    /// Reads what an RDP client says first: the cookie of its connection request.
    ///
    /// Effect: `$rdp_cookie` and `$rdp_cookie_name` have values, by which a balancer may choose a backend. A client that
    /// doesn't speak RDP, or sends no cookie, is served too; the variables are empty then. What was read goes to the backend
    /// unchanged.
    ///
    /// Cost: up to `preread_buffer_size` of memory until the session has its backend; a client that sends less than its
    /// first message is waited for (`preread_timeout`).
    ///
    /// Danger: nothing proves that a cookie is the client's own. It suits for choosing a backend, not for access.
    ///
    /// ```nginx
    /// upstream desktops {
    ///     hash $rdp_cookie consistent;
    ///     server 192.0.2.1:3389;
    ///     server 192.0.2.2:3389;
    /// }
    /// server {
    ///     listen 3389;
    ///     rdp_preread on;
    ///     proxy_pass desktops;
    /// }
    /// ```
    "rdp_preread" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) rdp_preread: bool = false;
}

/// A client's cookie, without `Cookie: `.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Cookie(pub(super) Box<[u8]>);

impl Found for Cookie {
    const MODULE: &'static [u8] = b"rdp_preread";

    fn encode(&self, out: &mut Writer) {
        out.bytes(1, &self.0);
    }

    fn decode(fields: Reader<'_>) -> Option<Cookie> {
        Some(Cookie(fields.bytes(1)?.into()))
    }
}

impl StreamModule for RdpPreread {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<RdpPrereadConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        common::variables! { setup, "ngx_stream_rdp_preread_module";
            /// The cookie of an RDP client, such as `mstshash=alice`. Empty without `rdp_preread`, and if the client sends none.
            "rdp_cookie", Flags::NONE, Getter::Plain(|s, out| kept::<Cookie>(s, out, |cookie| Some(&cookie.0)));
            /// The value of a name in the cookie of an RDP client: `$rdp_cookie_mstshash` is the user's name. Empty without
            /// `rdp_preread`, and if the cookie doesn't have the name.
            "rdp_cookie_", Flags::PREFIX, Getter::Family(|s, name, out| kept::<Cookie>(s, out, |cookie| rdp::field(&cookie.0, name.as_bytes())));
        }
    }

    fn server(&self, cx: &mut ServerContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        if cx.set.get::<RdpPrereadConf>().rdp_preread {
            out.preread.push(Box::new(RdpPreread));
        }
        Ok(())
    }
}

impl Preread for RdpPreread {
    fn examine(&self, s: &mut StreamSession, bytes: &[u8]) -> Examined {
        match rdp::parse(bytes) {
            Ok(None) => return Examined::More,
            Ok(Some(request)) => {
                if let Some(cookie) = request.cookie {
                    keep(s, Cookie(cookie.of(bytes).into()));
                }
            }
            Err(rdp::NotRequest) => {}
        }
        Examined::Done
    }
}
