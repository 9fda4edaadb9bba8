//! `mirror`: copies of requests, whose responses nobody gets.
//!
//! What differs from nginx: the client never waits for a mirror. Copies run on their own, so that the connection serves its
//! next request, or is closed, as soon as the response is out. Their number is bounded instead.

use std::rc::Rc;

use conf::values::flag;
use conf::{Args, Directive, Loader, Registry, Result};
use engine::log::Level;
use http::config::core::EVERYWHERE;
use http::fault::Fault;
use http::module::{HttpModule, LocationContext};
use http::phases::{Flow, Handler};
use http::request::Request;
use http::request::subrequest::{MAX_APART, SubRequest};
use http::server::location::Handlers;

/// The module.
pub struct Mirror;

conf::table! {
    /// Where copies go.
    pub struct MirrorConf, raw MirrorRaw, module "ngx_http_mirror_module", level HTTP Location;

    /// Makes a copy of each request. It may be repeated.
    ///
    /// Form: `mirror uri | off`
    ///
    /// - `uri`: the path of a subrequest, which goes through the locations of the server with the method, the arguments and
    ///   the fields of the request.
    /// - `off`: no copies are made.
    ///
    /// Effect: the response to the copy is dropped, and the client doesn't wait for it. A level that sets any `mirror`
    /// doesn't inherit those of the level around it. A request that is redirected internally is copied again. A copy is left
    /// out, with a warning in the log, if 4096 requests of the worker process go on without a client already.
    ///
    /// Cost: a subrequest for each copy.
    ///
    /// ```nginx
    /// location / {
    ///     mirror /mirror;
    ///     proxy_pass http://127.0.0.1:8080;
    /// }
    /// location = /mirror {
    ///     internal;
    ///     proxy_pass http://127.0.0.1:9000$request_uri;
    /// }
    /// ```
    "mirror" in EVERYWHERE, Args::exactly(1), default "off",
        set(mirror) mirror: Rc<[Rc<[u8]>]> = Rc::new([]);
    /// Sets whether copies have the body of the request.
    ///
    /// Effect: the body is read whole before the request is passed on, whatever `proxy_request_buffering` and its kin say.
    /// With `off` copies have no body.
    ///
    /// ```nginx
    /// location / {
    ///     mirror /mirror;
    ///     mirror_request_body off;
    ///     proxy_pass http://127.0.0.1:8080;
    /// }
    /// location = /mirror {
    ///     internal;
    ///     proxy_pass http://127.0.0.1:9000;
    ///     proxy_set_header X-Original-URI $request_uri;
    /// }
    /// ```
    "mirror_request_body" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) mirror_request_body: bool = true;
}

fn mirror(raw: &mut MirrorRaw, _: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let uri = d.arg(0);
    let others = raw.mirror.clone().filter(|others| !others.is_empty() && uri != "off");
    if others.is_none() {
        // `off` stands alone.
        conf::once(&raw.mirror, d)?;
    }
    let own = (uri != "off").then(|| Rc::from(&uri.text[..]));
    raw.mirror = Some(others.iter().flat_map(|others| others.iter().cloned()).chain(own).collect());
    Ok(())
}

impl HttpModule for Mirror {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<MirrorConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.get::<MirrorConf>();
        if !conf.mirror.is_empty() {
            out.precontent.push(Rc::new(Copier { uris: conf.mirror.clone(), with_body: conf.mirror_request_body }));
        }
        Ok(())
    }
}

struct Copier {
    uris: Rc<[Rc<[u8]>]>,
    with_body: bool,
}

impl Handler for Copier {
    fn handle<'a>(&'a self, r: &'a mut Request) -> Flow<'a> {
        if r.is_subrequest() {
            return Flow::Next;
        }
        if !self.with_body || !r.body.exists() || r.body.buffered().is_some() {
            return self.copy(r);
        }
        match r.read_ready_body() {
            Ok(true) => self.copy(r),
            Err(fault) => fault.into(),
            Ok(false) => Flow::wait(async {
                match r.read_body().await {
                    Ok(()) => self.copy(r),
                    Err(fault) => fault.into(),
                }
            }),
        }
    }
}

impl Copier {
    /// Begins the copies.
    fn copy(&self, r: &mut Request) -> Flow<'static> {
        self.try_copy(r).map_or_else(Flow::from, |()| Flow::Next)
    }

    fn try_copy(&self, r: &mut Request) -> std::result::Result<(), Fault> {
        let args = r.args.clone();
        for uri in &*self.uris {
            if r.http.worker.apart.get() >= MAX_APART {
                r.log_at(Level::Warn, format_args!("{MAX_APART} requests go on without a client, no copy is made"));
                break;
            }
            let ask = SubRequest { uri, args: &args, with_method: true, with_body: self.with_body };
            r.sub_request(&ask)?.detach(&r.http);
        }
        Ok(())
    }
}
