//! `tunnel_pass`: CONNECT (RFC 9110 §9.3.6), by which clients reach servers through this one.
//!
//! A connection is made to where the client asks, or to where the configuration says; then bytes go both ways, as after a
//! switch of protocols. As in nginx, over HTTP/1.1 alone.

use std::any::Any;
use std::borrow::Cow;
use std::rc::Rc;

use buf::{Buf, Chain};
use conf::{Args, Context, Directive, Loader, Registry, Result};
use http::exchange::Exchange;
use http::fault::Fault;
use http::module::{HttpModule, LocationContext};
use http::request::Request;
use http::server::location::Handlers;
use wire::Span;
use wire::h1::Method;

use crate::conf::{ConnectConf, UpstreamConf};
use crate::engine::{Backend, Hidden};
use crate::pass::Pass;
use crate::protocol::{BodyEvent, Codec, Head, HeadEvent, Kept, Protocol, ProtocolError, Scheme};

/// The module.
pub struct Tunnel;

conf::table! {
    /// `tunnel_…`: the directives of CONNECT.
    pub struct TunnelConf, raw TunnelRaw, module "ngx_http_tunnel_module", level HTTP Location;

    under "tunnel_" {
        /// What most protocols have.
        up: UpstreamConf [connection, buffer, failures, lowat];
        /// How connections are made.
        connect: ConnectConf [connection, retries, sockets];
    }
    /// Serves CONNECT: connects the client to a server, and passes bytes both ways until either side ends.
    ///
    /// Form: `tunnel_pass [address]`
    ///
    /// - `address`: a host and a port, the name of an `upstream`, or `unix:path`; it may contain variables. The default is
    ///   `$host:$request_port`, which is what the client asks for.
    ///
    /// Effect: the server takes CONNECT requests of HTTP/1.1, which others answer with 405; they have the path `/`. When the
    /// connection is made, the client gets the status 200, and from then on nothing is read or changed. Other methods get
    /// the status 405 here. A host with variables is looked up by `resolver` for each request, unless an `upstream` has its
    /// name. The directive isn't inherited, except by `if` inside.
    ///
    /// Cost: two descriptors for each tunnel, and up to 32k of memory while bytes wait for a side.
    ///
    /// Danger: without conditions it is an open proxy: any client reaches any port of any server that this machine reaches,
    /// its own included. Allow ports and hosts by `map` and `if`, or clients by `allow`.
    ///
    /// ```nginx
    /// map $host:$request_port $allowed {
    ///     hostnames;
    ///     default          0;
    ///     example.org:443  1;
    /// }
    /// server {
    ///     resolver 127.0.0.1;
    ///     if ($allowed = 0) {
    ///         return 403;
    ///     }
    ///     tunnel_pass;
    /// }
    /// ```
    "tunnel_pass" in Context::SERVER.or(Context::LOCATION).or(Context::LOCATION_IF), Args::between(0, 1), default none,
        here(tunnel_pass) tunnel_pass: Rc<Pass>;
}

/// How servers are reached: any protocol may be spoken to them.
const SCHEMES: &[Scheme] = &[Scheme { prefix: "", label: "", default_port: None, ssl: false }];

/// What the client asks for.
const ASKED: &[u8] = b"$host:$request_port";

fn tunnel_pass(loader: &mut Loader<'_>, d: &Directive) -> Result<Rc<Pass>> {
    match d.args.first() {
        Some(_) => Pass::parse(loader, d, SCHEMES, false),
        None => Pass::by_variables(loader, d, ASKED, SCHEMES),
    }
}

impl HttpModule for Tunnel {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<TunnelConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.share::<TunnelConf>();
        let Some((pass, depth)) = Pass::of_location(cx, |conf: &TunnelConf| &conf.tunnel_pass) else { return Ok(()) };
        let up = conf.up.clone();
        let backend = Backend {
            connect: conf.connect.clone(),
            destination: pass.destination(cx.loader)?,
            hidden: Hidden::new(&up, &[]),
            protocol: Box::new(Through),
            place: cx.id.0,
            caching: None,
            ssl: None,
            up,
        };
        backend.install(out, cx, depth);
        (out.auto_redirect, out.serves_connect) = (false, true);
        Ok(())
    }
}

/// A protocol that asks nothing.
struct Through;

impl Protocol for Through {
    fn sends_unknown_length(&self) -> bool {
        false
    }

    fn refuses(&self, r: &Request) -> Option<u16> {
        (r.method != Method::Connect).then_some(405)
    }

    fn write_request(&self, _: &mut Request, _: &Exchange, _: &mut Buf) -> std::result::Result<Span, Fault> {
        Ok(Span::default())
    }

    fn codec(&self, _: &Exchange, _: Option<Kept>) -> Box<dyn Codec> {
        Box::new(Through)
    }

    fn knows(&self, _: &dyn Any) -> bool {
        false
    }
}

impl Codec for Through {
    fn is_tunnel(&self) -> bool {
        true
    }

    fn head<'r>(&mut self, request: &'r [u8], _: bool) -> Cow<'r, [u8]> {
        request.into()
    }

    fn body(&mut self, _: Chain, _: bool, _: &mut Chain) {}

    fn receive(&mut self, _: Buf) {}

    fn read_head(&mut self, _: &mut Head) -> std::result::Result<HeadEvent, ProtocolError> {
        Ok(HeadEvent::More)
    }

    fn read_body(&mut self) -> std::result::Result<BodyEvent, ProtocolError> {
        Ok(BodyEvent::More)
    }

    fn receive_end(&mut self) -> std::result::Result<(), ProtocolError> {
        Ok(())
    }

    fn keep(self: Box<Self>) -> Option<Kept> {
        None
    }
}
