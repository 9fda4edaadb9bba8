//! `auth_request`: whether a request may be served is decided by the answer to a subrequest.
//!
//! What differs from nginx: the subrequest has no body, and says so; nginx sends the length of the client's body without
//! the body, for which the backend waits. A short body of the answer is read, so that the connection to the backend is kept.

use std::future::poll_fn;
use std::rc::Rc;

use conf::{Args, Directive, Loader, Registry, Result};
use expr::vars::{Flags, Template, VarId};
use http::config::core::EVERYWHERE;
use http::fault::Fault;
use http::module::{HttpModule, LocationContext};
use http::phases::{Flow, Handler};
use http::request::Request;
use http::request::subrequest::{SubRequest, SubResponse};
use http::request::variables::{self, Setter, Value, template_of};
use http::server::location::Handlers;
use wire::h1::KnownHeader;

/// The module.
pub struct AuthRequest;

conf::table! {
    /// Who is asked.
    pub struct AuthRequestConf, raw AuthRequestRaw, module "ngx_http_auth_request_module", level HTTP Location;

    /// Lets the answer to a subrequest decide whether a request is served.
    ///
    /// Form: `auth_request uri | off`
    ///
    /// - `uri`: the path of the subrequest, which goes through the locations of the server as a GET without arguments.
    /// - `off`: no subrequest is made.
    ///
    /// Effect: a status from 200 to 299 allows the request; 401 and 403 refuse it with that status, 401 with the fields
    /// `WWW-Authenticate` of the answer; 444 closes the connection; any other status is an error, and the client gets 500.
    /// The subrequest has the fields of the request, but not its body. With `satisfy any` another check may allow a request
    /// that this one refuses.
    ///
    /// Cost: a subrequest for each request; `proxy_cache` in its location can spare the backend.
    ///
    /// Danger: without `proxy_set_header` the backend doesn't learn which URI is asked for. A client must not reach the
    /// location of the subrequest by itself, if that tells something: make it `internal`.
    ///
    /// ```nginx
    /// location /private/ {
    ///     auth_request /auth;
    ///     auth_request_set $user $upstream_http_x_user;
    ///     proxy_set_header X-User $user;
    ///     proxy_pass http://127.0.0.1:8080;
    /// }
    /// location = /auth {
    ///     internal;
    ///     proxy_pass http://127.0.0.1:9000;
    ///     proxy_pass_request_body off;
    ///     proxy_set_header Content-Length "";
    ///     proxy_set_header X-Original-URI $request_uri;
    /// }
    /// ```
    "auth_request" in EVERYWHERE, Args::exactly(1), default "off",
        scalar(uri) auth_request: Option<Rc<[u8]>> = None;
    /// Sets a variable once the subrequest of `auth_request` has been answered. It may be repeated.
    ///
    /// Form: `auth_request_set $variable value`
    ///
    /// - `$variable`: its name, as for `set`.
    /// - `value`: a text, which may contain variables; they are those of the subrequest, such as `$upstream_http_x_user`.
    ///
    /// Effect: the variable is set whatever the answer is, so that the pages of `error_page` have it too. A level that sets
    /// any doesn't inherit those of the level around it.
    ///
    /// ```nginx
    /// location / {
    ///     auth_request /auth;
    ///     auth_request_set $login $upstream_http_location;
    ///     error_page 401 = @login;
    /// }
    /// location @login {
    ///     return 302 $login;
    /// }
    /// location = /auth {
    ///     internal;
    ///     proxy_pass http://127.0.0.1:9000;
    /// }
    /// ```
    "auth_request_set" in EVERYWHERE, Args::exactly(2), default none,
        list(assignment) auth_request_set: Assignment;
}

/// What is set after the answer.
#[derive(Clone)]
pub struct Assignment {
    id: VarId,
    setter: Option<Setter>,
    value: Rc<Template>,
}

fn uri(_: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<[u8]>>> {
    let word = d.arg(0);
    Ok((word != "off").then(|| word.text.as_slice().into()))
}

fn assignment(loader: &mut Loader<'_>, d: &Directive) -> Result<Assignment> {
    let (id, setter) = variables::storable(loader, d.arg(0), Flags::NONE)?;
    Ok(Assignment { id, setter, value: template_of(loader, d, &d.arg(1).text)? })
}

impl HttpModule for AuthRequest {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<AuthRequestConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.get::<AuthRequestConf>();
        if let Some(uri) = conf.auth_request.clone() {
            out.access.push(Rc::new(Gate { uri, assignments: conf.auth_request_set.clone() }));
        }
        Ok(())
    }
}

struct Gate {
    uri: Rc<[u8]>,
    assignments: Rc<[Assignment]>,
}

impl Handler for Gate {
    fn handle<'a>(&'a self, r: &'a mut Request) -> Flow<'a> {
        match r.sub_request(&SubRequest { uri: &self.uri, ..SubRequest::default() }) {
            Ok(response) => Flow::wait(self.decide(r, response)),
            Err(fault) => fault.into(),
        }
    }
}

impl Gate {
    /// Waits for the answer, and acts on it.
    async fn decide(&self, r: &mut Request, mut response: SubResponse) -> Flow<'static> {
        poll_fn(|cx| response.poll_head(cx)).await;
        self.assign(r, &mut response);
        let status = response.status();
        if status == 401 {
            copy_challenge(r, &response);
        }
        response.end_with_head(r);
        match status {
            200..300 => Flow::Allow,
            // 444: the subrequest's location wants the connection closed.
            401 | 403 | 444 => Flow::Status(status),
            _ => Fault::UnexpectedAuthStatus.log_with(r, &status).into(),
        }
    }

    /// Sets the variables of `auth_request_set`.
    fn assign(&self, r: &mut Request, response: &mut SubResponse) {
        for Assignment { id, setter, value } in &*self.assignments {
            let Some(child) = response.request_mut() else { return };
            let value = child.render_shared(value);
            match setter {
                Some(set) => set(r, &value),
                None => r.vars.set(*id, Value::Set(value)),
            }
        }
    }
}

fn copy_challenge(r: &mut Request, response: &SubResponse) {
    let Some(child) = response.request() else { return };
    for field in child.response.headers.iter().filter(|field| field.known == KnownHeader::WwwAuthenticate) {
        r.response.headers.push_known(field.known, field.name.clone(), field.value.clone());
    }
}
