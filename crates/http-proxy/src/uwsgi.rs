//! `uwsgi_pass`: applications behind uWSGI, and others that speak its protocol.
//!
//! What differs from nginx: a status below 200, but for the switch to another protocol that the client has asked for, is as
//! invalid as one that isn't a number.

use std::any::Any;
use std::rc::Rc;

use buf::Buf;
use conf::values::{bytes, number_between};
use conf::{Args, Context, Directive, Loader, Registry, Result};
use http::config::core::EVERYWHERE;
use http::exchange::Exchange;
use http::fault::Fault;
use http::module::{HttpModule, LocationContext};
use http::request::Request;
use http::server::location::Handlers;
use wire::Span;
use wire::uwsgi::Modifiers;

use crate::cache;
use crate::cache::conf::CacheConf;
use crate::cgi::Cgi;
use crate::conf::{ConnectConf, UpstreamConf, check_location};
use crate::engine::{Backend, Hidden};
use crate::params::{self, Params, ParamsConf};
use crate::pass::Pass;
use crate::protocol::{Codec, Kept, Protocol, Scheme};
use crate::ssl::{self, UpstreamSslConf};

/// The module.
pub struct Uwsgi;

const ONE: Args = Args::exactly(1);

conf::table! {
    /// `uwsgi_…`: what applications behind uWSGI can be told.
    pub struct UwsgiConf, raw UwsgiRaw, module "ngx_http_uwsgi_module", level HTTP Location;

    under "uwsgi_" {
        /// What most protocols have.
        up: UpstreamConf [connection, buffer, failures, errors, fields, request, response, store];
        /// How connections are made.
        connect: ConnectConf [connection, retries, sockets];
        /// What is stored.
        cache: CacheConf [all];
        /// What applications are told of a request.
        params: ParamsConf [all];
        /// TLS.
        ssl: UpstreamSslConf [all];
    }
    /// Passes the location's requests to an application that speaks the protocol of uWSGI, and its responses to the clients.
    ///
    /// Form: `uwsgi_pass [uwsgi:// | suwsgi://]address`
    ///
    /// - `uwsgi://`: the same as no scheme.
    /// - `suwsgi://`: over TLS; `uwsgi_ssl_…` say how.
    /// - `address`: a host with a port, `unix:path`, or the name of an `upstream`. It may contain variables.
    ///
    /// Effect: the application gets the parameters of `uwsgi_param`, the fields of the request as `HTTP_…`, and its body. A body
    /// in chunks is read whole before it is passed on. A name with variables is looked up by `resolver` for each request,
    /// unless an `upstream` has it. The directive isn't inherited, except by `if` inside.
    ///
    /// Cost: a connection for each request, and with `suwsgi://` a handshake.
    ///
    /// Danger: the parameters and fields of a request may take 64 KiB together; a larger request is answered with 500. The
    /// application believes its parameters: only this server should be able to reach its port.
    ///
    /// ```nginx
    /// location / {
    ///     uwsgi_pass unix:/run/uwsgi/app.sock;
    ///     uwsgi_param REQUEST_METHOD $request_method;
    ///     uwsgi_param REQUEST_URI $request_uri;
    ///     uwsgi_param PATH_INFO $document_uri;
    ///     uwsgi_param QUERY_STRING $query_string;
    ///     uwsgi_param SERVER_PROTOCOL $server_protocol;
    ///     uwsgi_param SERVER_NAME $server_name;
    ///     uwsgi_param SERVER_PORT $server_port;
    ///     uwsgi_param CONTENT_TYPE $content_type;
    ///     uwsgi_param CONTENT_LENGTH $content_length;
    /// }
    /// ```
    "uwsgi_pass" in Context::LOCATION.or(Context::LOCATION_IF), ONE, default none,
        here(uwsgi_pass) uwsgi_pass: Rc<Pass>;
    /// Sets the first modifier of requests, which tells uWSGI which of its plugins is asked.
    ///
    /// Form: `uwsgi_modifier1 number`
    ///
    /// - `number`: from 0 to 255; 0 is Python.
    ///
    /// Effect: it is in the head of each request.
    ///
    /// ```nginx
    /// uwsgi_modifier1 5;
    /// ```
    "uwsgi_modifier1" in EVERYWHERE, ONE, default "0",
        scalar(number_between(0, 255)) uwsgi_modifier1: u8 = 0;
    /// Sets the second modifier of requests, whose meaning depends on the first.
    ///
    /// Form: `uwsgi_modifier2 number`
    ///
    /// - `number`: from 0 to 255.
    ///
    /// Effect: it is in the head of each request.
    ///
    /// ```nginx
    /// uwsgi_modifier2 1;
    /// ```
    "uwsgi_modifier2" in EVERYWHERE, ONE, default "0",
        scalar(number_between(0, 255)) uwsgi_modifier2: u8 = 0;
    /// Sends a text after the parameters of requests.
    ///
    /// Form: `uwsgi_string text`
    ///
    /// - `text`: the text as it is, without variables.
    ///
    /// Effect: the text ends the block of parameters, for plugins that take their input there, as those for code do
    /// (`uwsgi_modifier1 22`).
    ///
    /// ```nginx
    /// uwsgi_modifier1 22;
    /// uwsgi_string "import status; status.report()";
    /// ```
    "uwsgi_string" in EVERYWHERE, ONE, default none,
        scalar(bytes) uwsgi_string: Vec<u8> = Vec::new();
}

/// How applications are reached.
const SCHEMES: &[Scheme] = &[
    Scheme { prefix: "uwsgi://", label: "uwsgi://", default_port: None, ssl: false },
    Scheme { prefix: "suwsgi://", label: "suwsgi://", default_port: None, ssl: true },
    Scheme { prefix: "", label: "uwsgi://", default_port: None, ssl: false },
];

/// Fields of responses that clients don't get: not `Status`, as in nginx.
const HIDDEN: &[&str] =
    &["X-Accel-Expires", "X-Accel-Redirect", "X-Accel-Limit-Rate", "X-Accel-Buffering", "X-Accel-Charset"];

fn uwsgi_pass(loader: &mut Loader<'_>, d: &Directive) -> Result<Rc<Pass>> {
    Pass::parse(loader, d, SCHEMES, false)
}

impl HttpModule for Uwsgi {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<UwsgiConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.share::<UwsgiConf>();
        let (up, connect) = (conf.up.clone(), conf.connect.clone());
        check_location(cx, &up, "uwsgi_")?;
        crate::store::check(cx, &up);
        let params = Params::compile(&conf.params, wire::uwsgi::variable, cx.loader)?;
        let Some((pass, depth)) = Pass::of_location(cx, |conf: &UwsgiConf| &conf.uwsgi_pass) else { return Ok(()) };
        let destination = pass.destination(cx.loader)?;
        let ssl = match destination.may_be_over_ssl() {
            true => Some(ssl::shared(cx, &conf.ssl, "uwsgi_", &[])?),
            false => None,
        };
        let hidden = Hidden::new(&up, HIDDEN);
        let caching = cache::caching(cx, &conf.cache, up.stores(), "uwsgi_")?;
        let protocol = Box::new(UwsgiProtocol { params, up: up.clone(), conf });
        Backend { destination, hidden, protocol, place: cx.id.0, ssl, caching, up, connect }.install(out, cx, depth);
        Ok(())
    }
}

struct UwsgiProtocol {
    params: Params,
    up: Rc<UpstreamConf>,
    conf: Rc<UwsgiConf>,
}

impl Protocol for UwsgiProtocol {
    fn sends_unknown_length(&self) -> bool {
        false
    }

    fn write_request(&self, r: &mut Request, exchange: &Exchange, out: &mut Buf) -> std::result::Result<Span, Fault> {
        exchange.to_head.set(params::asks_for_head(r, exchange));
        let mut block = self.params.write(r, exchange, self.up.pass_request_headers);
        block.extend_from_slice(&self.conf.uwsgi_string);
        let modifiers = Modifiers(self.conf.uwsgi_modifier1, self.conf.uwsgi_modifier2);
        wire::uwsgi::packet(modifiers, &block, out).map_err(|error| Fault::LargeRequest.log_with(r, &error))?;
        Ok(Span::default())
    }

    fn codec(&self, exchange: &Exchange, _kept: Option<Kept>) -> Box<dyn Codec> {
        Box::new(Cgi::new(self.up.buffer_size, exchange.to_head.get()))
    }

    fn knows(&self, _kept: &dyn Any) -> bool {
        false
    }
}
