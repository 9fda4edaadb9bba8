//! `grpc_pass`: gRPC servers, over HTTP/2.
//!
//! Requests and responses are passed on as they come, in both directions at once, and trailers end them. What differs from
//! nginx: a server that refuses a request, or was leaving when it came, is an error after which the next one is asked.

use std::rc::Rc;

use buf::Buf;
use common::vars::Late;
use conf::{Args, Context, Directive, Loader, Registry, Result};
use expr::vars::Template;
use http::HttpProto;
use http::config::core::EVERYWHERE;
use http::exchange::Exchange;
use http::fault::Fault;
use http::module::{HttpModule, LocationContext};
use http::request::{Request, UriSource};
use http::response::field::{safe, unfolded};
use http::server::location::Handlers;
use wire::Span;
use wire::h1::Method;
use wire::uri::{Escape, escape};

use crate::conf::{ConnectConf, UpstreamConf};
use crate::engine::{Backend, Hidden};
use crate::http2::{self, Http2};
use crate::pass::Pass;
use crate::protocol::{Codec, Kept, Protocol, Scheme};
use crate::request_fields::{Form, RequestFields, TO_BACKEND};
use crate::ssl::{self, UpstreamSslConf};

/// The module.
pub struct Grpc;

conf::table! {
    /// `grpc_…`: the directives of gRPC backends.
    pub struct GrpcConf, raw GrpcRaw, module "ngx_http_grpc_module", level HTTP Location;

    under "grpc_" {
        /// What most protocols have.
        up: UpstreamConf [connection, buffer, failures, errors, fields];
        /// How connections are made.
        connect: ConnectConf [connection, retries, sockets];
        /// TLS.
        ssl: UpstreamSslConf [all];
    }
    /// Passes the location's requests to a gRPC server or a group of them, and its responses to the clients.
    ///
    /// Form: `grpc_pass address`
    ///
    /// - `address`: a host and a port, the name of an `upstream`, or `unix:path`; before it may stand `grpc://`, or
    ///   `grpcs://` for TLS. It may contain variables.
    ///
    /// Effect: requests are sent over HTTP/2, on a connection for each request under way; `keepalive` in `upstream` keeps
    /// connections for further requests. Messages are passed on as they come, in both directions at once, whatever the
    /// kind of call; trailers end the response. `Host` is `$proxy_host` unless `grpc_set_header` sets it. A host without
    /// variables is looked up at the start; one with variables is looked up by `resolver` for each request, unless an
    /// `upstream` has its name. The directive isn't inherited, except by `if` inside.
    ///
    /// Cost: a connection to the server for each request under way, and `grpc_buffer_size` of memory while its response
    /// is read.
    ///
    /// Danger: a call during which a side is silent for longer than `client_body_timeout` or `grpc_read_timeout` is broken
    /// off: raise both for long streams. `client_max_body_size` bounds what a client may send in one call. `grpcs://`
    /// doesn't check the server's certificate unless `grpc_ssl_verify` is on.
    ///
    /// ```nginx
    /// upstream greeters {
    ///     server 127.0.0.1:50051;
    ///     server 127.0.0.1:50052;
    ///     keepalive 32;
    /// }
    /// server {
    ///     http2 on;
    ///     location /helloworld.Greeter/ {
    ///         grpc_pass grpc://greeters;
    ///     }
    /// }
    /// ```
    "grpc_pass" in Context::LOCATION.or(Context::LOCATION_IF), Args::exactly(1), default none,
        here(grpc_pass) grpc_pass: Rc<Pass>;
    /// Sets a field of the request to the gRPC server.
    ///
    /// Form: `grpc_set_header name value`
    ///
    /// - `name`: the field's name; `Host` sets `:authority`.
    /// - `value`: a text with variables; if it is empty, the field isn't sent.
    ///
    /// Effect: it replaces the client's field of this name. All other fields of the client are passed on, except those
    /// of its connection. A level that sets any doesn't inherit those of the level around it.
    ///
    /// Danger: a location that sets one field loses all that `server` and `http` set.
    ///
    /// ```nginx
    /// grpc_set_header X-Real-IP $remote_addr;
    /// ```
    "grpc_set_header" in EVERYWHERE, Args::exactly(2), default none,
        list(set_header) grpc_set_header: (Vec<u8>, Late);
}

fn set_header(_: &mut Loader<'_>, d: &Directive) -> Result<(Vec<u8>, Late)> {
    Ok((d.arg(0).text.clone(), Late::text(d, d.arg(1), &unfolded(&d.arg(1).text))))
}

/// How gRPC servers are reached.
const SCHEMES: &[Scheme] = &[
    Scheme { prefix: "grpc://", label: "grpc://", default_port: None, ssl: false },
    Scheme { prefix: "grpcs://", label: "grpcs://", default_port: None, ssl: true },
    Scheme { prefix: "", label: "grpc://", default_port: None, ssl: false },
];

fn grpc_pass(loader: &mut Loader<'_>, d: &Directive) -> Result<Rc<Pass>> {
    Pass::parse(loader, d, SCHEMES, false)
}

impl HttpModule for Grpc {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<GrpcConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.share::<GrpcConf>();
        let fields = compile(&conf, cx.loader)?;
        let Some((pass, depth)) = Pass::of_location(cx, |conf: &GrpcConf| &conf.grpc_pass) else { return Ok(()) };
        let destination = pass.destination(cx.loader)?;
        let ssl = match destination.may_be_over_ssl() {
            true => Some(ssl::shared(cx, &conf.ssl, "grpc_", &[b"h2"])?),
            false => None,
        };
        let mut up = (*conf.up).clone();
        (up.buffering, up.request_buffering) = (false, false);
        let up = Rc::new(up);
        let fields = RequestFields::new(Form::Hpack, &fields, &destination, true);
        let backend = Backend {
            connect: conf.connect.clone(),
            hidden: Hidden::new(&up, HIDDEN),
            protocol: Box::new(GrpcProtocol { fields, up: up.clone() }),
            destination,
            place: cx.id.0,
            caching: None,
            ssl,
            up,
        };
        backend.install(out, cx, depth);
        Ok(())
    }
}

/// The fields of requests; compiled in every location, whether or not it has backends, as nginx does.
fn compile(conf: &GrpcConf, loader: &mut Loader<'_>) -> Result<Vec<(Vec<u8>, Rc<Template>)>> {
    let fields = conf.grpc_set_header.iter();
    fields.map(|(name, value)| Ok((name.clone(), value.compile::<HttpProto>(loader)?))).collect()
}

/// Fields of responses that clients don't get.
const HIDDEN: &[&str] = &[
    "Date",
    "Server",
    "X-Accel-Expires",
    "X-Accel-Redirect",
    "X-Accel-Limit-Rate",
    "X-Accel-Buffering",
    "X-Accel-Charset",
];

struct GrpcProtocol {
    fields: RequestFields,
    up: Rc<UpstreamConf>,
}

impl Protocol for GrpcProtocol {
    fn sends_unknown_length(&self) -> bool {
        true
    }

    fn keeps_ready_bodies(&self) -> bool {
        true
    }

    fn write_request(&self, r: &mut Request, exchange: &Exchange, out: &mut Buf) -> std::result::Result<Span, Fault> {
        let ssl = exchange.target.borrow().as_ref().is_some_and(|target| target.ssl);
        exchange.to_head.set(r.method == Method::Head);
        if r.h2_stream().is_some() && r.body.declared_length().is_none() {
            // As the client sent it: a message's length is in the message.
            exchange.body_length.set(None);
        }
        let at = match r.uri_source {
            UriSource::Client => http2::write_line(r.method_name(), ssl, r.line.request_uri(&r.head), out),
            _ => {
                let mut uri = Vec::with_capacity(r.uri.len() + r.args.len() + 16);
                escape(Escape::Uri, &r.uri, &mut uri);
                if !r.args.is_empty() {
                    uri.push(b'?');
                    uri.extend_from_slice(&r.args);
                }
                let uri = safe(r, b"URI", &uri, TO_BACKEND);
                http2::write_line(r.method_name(), ssl, &uri, out)
            }
        };
        self.fields.write(r, exchange, self.up.pass_request_headers, out);
        Ok(at)
    }

    fn codec(&self, exchange: &Exchange, kept: Option<Kept>) -> Box<dyn Codec> {
        let rules = http2::Rules { max_head: self.up.buffer_size, trailers: true, own_body: 0 };
        Http2::begin(rules, exchange, kept)
    }

    fn knows(&self, kept: &dyn std::any::Any) -> bool {
        Http2::left(kept)
    }
}
