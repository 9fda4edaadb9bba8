//! `scgi_pass`: SCGI applications.
//!
//! What differs from nginx: a status below 200, but for the switch to another protocol that the client has asked for, is as
//! invalid as one that isn't a number; a value is cut at its first NUL, which would begin another parameter.

use std::any::Any;
use std::rc::Rc;

use buf::Buf;
use conf::{Args, Context, Directive, Loader, Registry, Result};
use http::exchange::Exchange;
use http::fault::Fault;
use http::module::{HttpModule, LocationContext};
use http::request::Request;
use http::server::location::Handlers;
use wire::Span;

use crate::cache;
use crate::cache::conf::CacheConf;
use crate::cgi::{self, Cgi};
use crate::conf::{ConnectConf, UpstreamConf, check_location};
use crate::engine::{Backend, Hidden};
use crate::params::{self, Params, ParamsConf};
use crate::pass::Pass;
use crate::protocol::{Codec, Kept, Protocol, Scheme};

/// The module.
pub struct Scgi;

conf::table! {
    /// `scgi_…`: what SCGI applications can be told.
    pub struct ScgiConf, raw ScgiRaw, module "ngx_http_scgi_module", level HTTP Location;

    under "scgi_" {
        /// What most protocols have.
        up: UpstreamConf [connection, buffer, failures, errors, fields, request, response, store];
        /// How connections are made.
        connect: ConnectConf [connection, retries, sockets];
        /// What is stored.
        cache: CacheConf [all];
        /// What applications are told of a request.
        params: ParamsConf [all];
    }
    /// Passes the location's requests to an SCGI application, and its responses to the clients.
    ///
    /// Form: `scgi_pass address`
    ///
    /// - `address`: a host with a port, `unix:path`, or the name of an `upstream`. It may contain variables.
    ///
    /// Effect: the application gets the length of the body as `CONTENT_LENGTH`, the parameters of `scgi_param`, the fields of
    /// the request as `HTTP_…`, and the body. A body in chunks is read whole before it is passed on. A name with variables is
    /// looked up by `resolver` for each request, unless an `upstream` has it. The directive isn't inherited, except by `if`
    /// inside.
    ///
    /// Cost: a connection for each request.
    ///
    /// Danger: the application believes its parameters: only this server should be able to reach its port.
    ///
    /// ```nginx
    /// location /app/ {
    ///     scgi_pass unix:/run/app.sock;
    ///     scgi_param SCGI 1;
    ///     scgi_param REQUEST_METHOD $request_method;
    ///     scgi_param REQUEST_URI $request_uri;
    ///     scgi_param QUERY_STRING $query_string;
    ///     scgi_param CONTENT_TYPE $content_type;
    /// }
    /// ```
    "scgi_pass" in Context::LOCATION.or(Context::LOCATION_IF), Args::exactly(1), default none,
        here(scgi_pass) scgi_pass: Rc<Pass>;
}

/// How applications are reached.
const SCHEMES: &[Scheme] = &[Scheme { prefix: "", label: "scgi://", default_port: None, ssl: false }];

fn scgi_pass(loader: &mut Loader<'_>, d: &Directive) -> Result<Rc<Pass>> {
    Pass::parse(loader, d, SCHEMES, false)
}

impl HttpModule for Scgi {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<ScgiConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.share::<ScgiConf>();
        let up = conf.up.clone();
        check_location(cx, &up, "scgi_")?;
        crate::store::check(cx, &up);
        let params = Params::compile(&conf.params, wire::scgi::header, cx.loader)?;
        let Some((pass, depth)) = Pass::of_location(cx, |conf: &ScgiConf| &conf.scgi_pass) else { return Ok(()) };
        let backend = Backend {
            connect: conf.connect.clone(),
            destination: pass.destination(cx.loader)?,
            hidden: Hidden::new(&up, cgi::HIDDEN),
            protocol: Box::new(ScgiProtocol { params, up: up.clone() }),
            place: cx.id.0,
            ssl: None,
            caching: cache::caching(cx, &conf.cache, up.stores(), "scgi_")?,
            up,
        };
        backend.install(out, cx, depth);
        Ok(())
    }
}

struct ScgiProtocol {
    params: Params,
    up: Rc<UpstreamConf>,
}

impl Protocol for ScgiProtocol {
    fn sends_unknown_length(&self) -> bool {
        false
    }

    fn write_request(&self, r: &mut Request, exchange: &Exchange, out: &mut Buf) -> std::result::Result<Span, Fault> {
        exchange.to_head.set(params::asks_for_head(r, exchange));
        let block = self.params.write(r, exchange, self.up.pass_request_headers);
        wire::scgi::headers(exchange.body_length.get().unwrap_or(0), &block, out);
        Ok(Span::default())
    }

    fn codec(&self, exchange: &Exchange, _kept: Option<Kept>) -> Box<dyn Codec> {
        Box::new(Cgi::new(self.up.buffer_size, exchange.to_head.get()))
    }

    fn knows(&self, _kept: &dyn Any) -> bool {
        false
    }
}
