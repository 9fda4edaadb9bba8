//! Active health checks of HTTP and whatever else a location speaks to its backend: `health_check` and `match`.
//!
//! A check asks the location's backend, in the location's protocol and with its fields, on behalf of nobody. Who checks when,
//! and what follows, is [`::upstream::health`]'s.
//!
//! Not in nginx, which has them in its commercial edition; what they do is as documented there.

mod grpc;

use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::task::{Context as TaskContext, Waker};

use ::upstream::health::{self, Failure, Probe, Probing};
use ::upstream::{Group, Idle, Keepalive, Peer, Pool};
use buf::{Bytes, parse};
use common::backend::health::{self as checks, duplicate_match, regex, wrong_number};
use conf::values::invalid_parameter;
use conf::{Args, Context, Directive, Error, Loader, Registry, Result, Word};
use expr::regex::Regex;
use expr::vars::Template;
use http::exchange::{Exchange, Target};
use http::fault::{Fault, Source};
use http::module::{HttpModule, LocationContext};
use http::request::Request;
use http::request::variables::template_of;
use http::response::Headers;
use http::server::Http;
use http::server::location::{Handlers, Location, LocationId};
use os::SockAddr;

use self::grpc::GrpcCheck;
use crate::attempt::Outgoing;
use crate::engine::Backend;
use crate::pass::Destination;
use crate::protocol::{BodyEvent, Codec, Kept};

/// The module.
pub struct HealthChecks;

conf::table! {
    /// The check of a location.
    pub struct HealthConf, raw HealthRaw, module "ngx_http_upstream_hc_module", level HTTP Location;

    /// Checks the servers of the location's group again and again.
    ///
    /// Form: `health_check [interval=time] [jitter=time] [fails=number] [passes=number] [uri=uri] [port=number]
    /// [match=name] [mandatory [persistent]] [keepalive_time=time]
    /// [type=grpc [grpc_service=name] [grpc_status=code]]`
    ///
    /// - `interval=time`: the time from one check of a server to the next; the default is 5s.
    /// - `jitter=time`: each check is late by a random time up to this; the default is 0.
    /// - `fails=number`: so many checks in a row must fail before a server is unhealthy; the default is 1.
    /// - `passes=number`: so many checks in a row must pass before it is healthy again; the default is 1.
    /// - `uri=uri`: what is asked for; the default is `/`.
    /// - `port=number`: the port to connect to; by default that of the server.
    /// - `match=name`: the block `match` with the tests; by default the status must be 2xx or 3xx.
    /// - `mandatory`: a server gets no requests before its first check has passed. With `persistent`, one that was
    ///   healthy before a reload gets them at once.
    /// - `keepalive_time=time`: for how long a connection is kept for further checks; by default each check opens one.
    /// - `type=grpc`, after all of these and without `uri` and `match`: asks by gRPC's own protocol for such checks
    ///   (`grpc.health.v1.Health/Check`); the location has a `grpc_pass`. A server is healthy that says it is serving.
    /// - `grpc_service=name`: asks about this service; by default about the server as a whole.
    /// - `grpc_status=code`: a server that answers with this status of gRPC is healthy too, such as 12 (unimplemented) of
    ///   one that doesn't know the protocol.
    ///
    /// Effect: an unhealthy server gets no requests until its checks pass. Checks are requests of the location: its
    /// protocol, its `proxy_set_header` and its timeouts hold. The group needs a `zone`; one worker checks for all, and
    /// another one takes over when it ends. If several locations check a group, a server has to pass all. What is known
    /// of a server survives a reload.
    ///
    /// Cost: a request to each server in each interval.
    ///
    /// Danger: if all servers are unhealthy, all requests are answered with status 502. The location's
    /// `proxy_read_timeout` is the time that a check may take: set it in a location of its own.
    ///
    /// ```nginx
    /// upstream backend {
    ///     zone backend 64k;
    ///     server 127.0.0.1:8080;
    ///     server 127.0.0.1:8081;
    /// }
    /// server {
    ///     location / {
    ///         proxy_pass http://backend;
    ///         health_check uri=/health interval=3s fails=2;
    ///     }
    /// }
    /// ```
    "health_check" in Context::LOCATION, Args::between(0, 13), default none,
        here(health_check) health_check: Rc<Spec>;
}

conf::table! {
    /// Tests of responses; all of it is gathered in [`Matches`].
    pub struct MatchBlock, raw MatchRaw, module "ngx_http_upstream_hc_module", level HTTP Main;

    /// Says what a response to a health check has to be.
    ///
    /// Form: `match name`
    ///
    /// - `name`: the name by which `health_check` refers to it.
    /// - `status [!] status ...;` in the block: the status is, or with `!` isn't, one of these; `200-399` is a range.
    /// - `header name;`, `header ! name;`: there is, or isn't, such a field.
    /// - `header name = value;`, `!=`, `~ regex`, `!~ regex`: the field's value is, isn't, matches or doesn't match.
    /// - `body ~ regex;`, `body !~ regex;`: the body matches or doesn't match; its first 256 KiB count.
    /// - `require $variable ...;`: none of these is empty or `0`.
    ///
    /// Effect: a check passes if all tests pass.
    ///
    /// ```nginx
    /// match healthy {
    ///     status 200-399;
    ///     header Content-Type = text/html;
    ///     body !~ maintenance;
    /// }
    /// ```
    "match" in Context::HTTP, Args::exactly(1).block(), default none,
        block(match_block);
}

/// What a `health_check` says.
pub struct Spec {
    shared: checks::Spec,
    uri: Vec<u8>,
    args: Vec<u8>,
    keepalive_ms: u64,
    grpc: Option<GrpcCheck>,
}

fn health_check(_: &mut Loader<'_>, d: &Directive) -> Result<Rc<Spec>> {
    let mut spec =
        Spec { shared: checks::Spec::new(d), uri: b"/".to_vec(), args: Vec::new(), keepalive_ms: 0, grpc: None };
    let mut has_uri = false;
    for word in &d.args {
        let (name, value) = checks::split(word);
        if let Some(grpc) = &mut spec.grpc {
            grpc.parameter(name, value).ok_or_else(|| invalid_parameter(word))?;
            continue;
        }
        match (name, value) {
            _ if spec.shared.parameter(word)? => {}
            (b"type=", b"grpc") => {
                if has_uri || spec.shared.name.is_some() {
                    return Err(Error::at(word, "\"type=grpc\" can't be used with \"uri\" or \"match\""));
                }
                spec.uri = grpc::METHOD.to_vec();
                spec.grpc = Some(GrpcCheck::default());
            }
            (b"uri=", value) if value.first() == Some(&b'/') => {
                has_uri = true;
                let mut parts = value.splitn(2, |byte| *byte == b'?');
                spec.uri = parts.next().unwrap_or_default().to_vec();
                spec.args = parts.next().unwrap_or_default().to_vec();
            }
            (b"keepalive_time=", value) => {
                spec.keepalive_ms = parse::parse_msec(value).ok_or_else(|| invalid_parameter(word))?;
            }
            _ => return Err(invalid_parameter(word)),
        }
    }
    Ok(Rc::new(spec))
}

/// The tests of a `match` block.
#[derive(Default)]
struct Match {
    /// Ranges of statuses, and whether the status is to be in none of them.
    status: Option<(bool, Vec<(u16, u16)>)>,
    headers: Vec<HeaderTest>,
    /// Regexes, and whether the body isn't to match.
    body: Vec<(bool, Regex)>,
    require: Vec<Rc<Template>>,
}

struct HeaderTest {
    name: Vec<u8>,
    not: bool,
    value: HeaderValue,
}

enum HeaderValue {
    Any,
    Is(Vec<u8>),
    Matches(Regex),
}

/// The `match` blocks, by name.
#[derive(Default)]
struct Matches(HashMap<Vec<u8>, Rc<Match>>);

/// How much of a body is examined.
const MOST_BODY: usize = 256 << 10;

fn match_block(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let mut tests = Match::default();
    for line in d.block.as_deref().unwrap_or_default() {
        match line.name.text.as_slice() {
            b"status" => tests.status = Some(statuses(line)?),
            b"header" => tests.headers.push(header_test(line)?),
            b"body" => {
                let [operator, pattern] = line.args.as_slice() else { return Err(wrong_number(line)) };
                tests.body.push(regex(operator, pattern)?);
            }
            b"require" if !line.args.is_empty() => {
                for word in &line.args {
                    tests.require.push(template_of(loader, line, &word.text)?);
                }
            }
            _ => return Err(Error::at(&line.name, format!("unknown test \"{}\"", line.name.lossy()))),
        }
    }
    let name = d.arg(0);
    match loader.store.entry::<Matches>().0.insert(name.text.clone(), Rc::new(tests)) {
        None => Ok(()),
        Some(_) => Err(duplicate_match(name)),
    }
}

fn statuses(line: &Directive) -> Result<(bool, Vec<(u16, u16)>)> {
    let (not, words) = match line.args.split_first() {
        Some((first, rest)) if *first == "!" => (true, rest),
        _ => (false, line.args.as_slice()),
    };
    if words.is_empty() {
        return Err(wrong_number(line));
    }
    let range = |word: &Word| {
        let mut ends = word.text.splitn(2, |byte| *byte == b'-').map(parse::parse_number);
        let (first, last) = (ends.next().flatten(), ends.next());
        let range = first.and_then(|first| Some((u16::try_from(first).ok()?, last.unwrap_or(Some(first))?)));
        let range = range.and_then(|(first, last)| Some((first, u16::try_from(last).ok()?)));
        range
            .filter(|(first, last)| (100..=999).contains(first) && first <= last)
            .ok_or_else(|| Error::at(word, format!("invalid status \"{}\"", word.lossy())))
    };
    Ok((not, words.iter().map(range).collect::<Result<_>>()?))
}

fn header_test(line: &Directive) -> Result<HeaderTest> {
    let test = |name: &Word, not, value| HeaderTest { name: name.text.clone(), not, value };
    Ok(match line.args.as_slice() {
        [name] => test(name, false, HeaderValue::Any),
        [not, name] if *not == "!" => test(name, true, HeaderValue::Any),
        [name, operator, value] => match operator.text.as_slice() {
            b"=" => test(name, false, HeaderValue::Is(value.text.clone())),
            b"!=" => test(name, true, HeaderValue::Is(value.text.clone())),
            _ => {
                let (not, regex) = regex(operator, value)?;
                test(name, not, HeaderValue::Matches(regex))
            }
        },
        _ => return Err(wrong_number(line)),
    })
}

impl Match {
    /// What the response fails, if it does.
    fn test(&self, r: &mut Request, exchange: &Exchange, body: &[u8]) -> std::result::Result<(), String> {
        let status = exchange.head.borrow().1.status;
        if let Some((not, ranges)) = &self.status
            && ranges.iter().any(|(first, last)| (*first..=*last).contains(&status)) == *not
        {
            return Err("checking status".to_owned());
        }
        for test in &self.headers {
            if !test.passes(exchange) {
                return Err(format!("checking header \"{}\"", buf::text::encode(&test.name)));
            }
        }
        for (not, regex) in &self.body {
            if regex.is_match(body).unwrap_or(*not) == *not {
                return Err("checking body".to_owned());
            }
        }
        let fails = |value: Vec<u8>| value.is_empty() || value == b"0";
        if self.require.iter().any(|variable| fails(r.render(variable))) {
            return Err("checking variables".to_owned());
        }
        Ok(())
    }
}

impl HeaderTest {
    fn passes(&self, exchange: &Exchange) -> bool {
        let head = exchange.head.borrow();
        let (bytes, head) = &*head;
        let mut values = head.headers.iter().filter(|header| header.name.of(bytes).eq_ignore_ascii_case(&self.name));
        let holds = |value: &[u8]| match &self.value {
            HeaderValue::Any => true,
            HeaderValue::Is(text) => value == text,
            HeaderValue::Matches(regex) => regex.is_match(value).unwrap_or(false),
        };
        match (&self.value, self.not) {
            (HeaderValue::Any, true) => values.next().is_none(),
            // A field that isn't there has no value, neither this one nor another.
            (_, true) => values.next().is_some_and(|header| !holds(header.value.of(bytes))),
            (_, false) => values.any(|header| holds(header.value.of(bytes))),
        }
    }
}

/// The checks of a configuration.
#[derive(Default)]
struct Planned(Vec<Plan>);

#[derive(Clone)]
struct Plan {
    location: LocationId,
    spec: Rc<Spec>,
    tests: Option<Rc<Match>>,
    group: Rc<Group>,
    bit: u32,
}

impl HttpModule for HealthChecks {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<HealthConf>();
        registry.add::<MatchBlock>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let Some(spec) = cx.set.get::<HealthConf>().health_check.clone() else { return Ok(()) };
        let d = &spec.shared.directive;
        let backend = out.content.last().and_then(|handler| handler.as_any()?.downcast_ref::<Backend>());
        let Some(backend) = backend else {
            return Err(Error::on(d, "\"health_check\" needs a location that passes requests to a backend"));
        };
        let Destination::Fixed(target) = &backend.destination else {
            return Err(Error::on(d, "\"health_check\" needs a group without variables"));
        };
        if spec.grpc.is_some() && !target.scheme.starts_with("grpc") {
            return Err(Error::on(d, "\"type=grpc\" needs a location with \"grpc_pass\""));
        }
        let group = target.group.clone();
        let tests = spec.shared.tests(|name| cx.loader.store.entry::<Matches>().0.get(name).cloned())?;
        let bit = spec.shared.add_to(&group)?;
        cx.loader.store.entry::<Planned>().0.push(Plan { location: cx.id, spec, tests, group, bit });
        Ok(())
    }

    fn part(&self, loader: &mut Loader<'_>) -> Option<Box<dyn std::any::Any>> {
        Some(Box::new(loader.store.take::<Planned>().unwrap_or_default()))
    }

    fn start_worker(&self, http: &Rc<Http>) {
        for plan in http.part::<Planned>().map_or(&[][..], |planned| &planned.0) {
            let probe = HttpProbe {
                http: Rc::downgrade(http),
                location: http.location(plan.location),
                spec: plan.spec.clone(),
                tests: plan.tests.clone(),
                idle: Rc::new(Pool::new(kept(plan.spec.keepalive_ms))),
            };
            health::watch(&plan.group, plan.spec.shared.check.clone(), plan.bit, Rc::new(probe));
        }
    }
}

/// How connections for checks are kept: as many as there are peers, as long as they are young.
fn kept(keepalive_ms: u64) -> Keepalive {
    Keepalive {
        connections: usize::MAX,
        requests: u32::MAX,
        time_ms: keepalive_ms,
        timeout_ms: keepalive_ms,
        ..Keepalive::default()
    }
}

/// A response, but for its head, which the exchange has.
struct Answered {
    idle: Box<Idle>,
    /// Its beginning.
    body: Vec<u8>,
    trailers: Headers,
    /// What the connection keeps, if it can serve on.
    kept: Option<Kept>,
}

struct HttpProbe {
    http: Weak<Http>,
    location: Rc<Location>,
    spec: Rc<Spec>,
    tests: Option<Rc<Match>>,
    /// Connections that are kept, each until it is too old or its peer hangs up, also if that is a peer no longer.
    idle: Rc<Pool>,
}

impl Probe for HttpProbe {
    fn probe<'a>(&'a self, peer: &'a Peer, addr: SockAddr) -> Probing<'a> {
        Box::pin(async move {
            let http = self.http.upgrade().ok_or(Failure::NotMade)?;
            let r = Request::apart(&http, &self.location, &self.spec.uri, &self.spec.args);
            let mut r = r.ok_or(Failure::NotMade)?;
            if let Some(grpc) = &self.spec.grpc {
                grpc.prepare(&mut r);
            }
            let result = self.ask(&mut r, peer, addr).await;
            r.end();
            result
        })
    }
}

impl HttpProbe {
    /// Whether a connection may serve further checks.
    fn is_young(&self, idle: &Idle) -> bool {
        rt::now_ms().saturating_sub(idle.since_ms) < self.spec.keepalive_ms
    }

    async fn ask(&self, r: &mut Request, peer: &Peer, addr: SockAddr) -> std::result::Result<(), Failure> {
        let handler = self.location.handlers.content.last().and_then(|handler| handler.as_any());
        let Some(backend) = handler.and_then(|handler| handler.downcast_ref::<Backend>()) else { return Ok(()) };
        let Destination::Fixed(target) = &backend.destination else { return Ok(()) };
        let exchange = r.upstream.get_or_insert_with(Exchange::new).clone();
        exchange.enter();
        // The URI of the check isn't below the location's prefix.
        let target = Target {
            group: target.group.clone(),
            scheme: target.scheme,
            ssl: target.ssl,
            host: target.host.clone(),
            port: target.port.clone(),
            uri: Box::default(),
            key: None,
        };
        exchange.target.replace(Some(Rc::new(target)));
        exchange.begin(false);
        exchange.current(|attempt| attempt.begin(peer));
        let outgoing = backend.write(r, &exchange, false).map_err(|_| "writing the request".to_owned())?;
        let kept = self.idle.take(&mut TaskContext::from_waker(Waker::noop()), peer.id(), 0);
        let answered = match kept.filter(|idle| self.is_young(idle)) {
            // The peer may have closed it meanwhile, which says nothing of it.
            Some(idle) => self.exchange(backend, r, &exchange, idle, &outgoing).await.ok(),
            None => None,
        };
        let Answered { mut idle, body, trailers, kept } = match answered {
            Some(answered) => answered,
            None => {
                let idle = backend.connect(r, &exchange, addr).await.map_err(unconnected)?;
                self.exchange(backend, r, &exchange, idle, &outgoing).await?
            }
        };
        if let Some(kept) = kept.filter(|_| self.is_young(&idle)) {
            idle.kept = Some(kept);
            self.idle.put(idle, peer.id(), 0);
        }
        exchange.end();
        if let Some(grpc) = &self.spec.grpc {
            return Ok(grpc.test(&exchange, &body, &trailers)?);
        }
        match &self.tests {
            Some(tests) => Ok(tests.test(r, &exchange, &body)?),
            None if (200..400).contains(&exchange.head.borrow().1.status) => Ok(()),
            None => Err("checking status".to_owned().into()),
        }
    }

    /// Sends the request, and reads the response.
    async fn exchange(
        &self,
        backend: &Backend,
        r: &mut Request,
        exchange: &Exchange,
        mut idle: Box<Idle>,
        outgoing: &Outgoing,
    ) -> std::result::Result<Answered, String> {
        exchange.forget_head();
        let mut codec = backend.protocol.codec(exchange, idle.kept.take());
        let result = backend.exchange(r, exchange, &idle.stream, outgoing, &mut *codec).await;
        result.map_err(|_| "reading the response".to_owned())?;
        let (mut body, mut trailers) = (Vec::new(), Headers::default());
        idle.stream.set_recv_timeout(Some(backend.up.read_timeout));
        let keep = read_body(&mut *codec, &idle.stream, &mut body, &mut trailers).await?;
        idle.stream.set_recv_timeout(None);
        let kept = if keep { codec.keep() } else { None };
        Ok(Answered { idle, body, trailers, kept })
    }
}

/// A connection can't be made, which may be a fault of the peer or not.
fn unconnected(fault: Fault) -> Failure {
    match fault.source() {
        Source::Server => Failure::NotMade,
        Source::Client | Source::Upstream => Failure::Peer("connecting".to_owned()),
    }
}

/// Reads the body, or as much of it as is examined; whether the connection can serve on.
async fn read_body(
    codec: &mut dyn Codec,
    stream: &rt::Stream,
    body: &mut Vec<u8>,
    trailers: &mut Headers,
) -> std::result::Result<bool, String> {
    let failed = || "reading the body".to_owned();
    loop {
        match codec.read_body().map_err(|_| failed())? {
            BodyEvent::Body(bytes) => {
                let bytes: &Bytes = &bytes;
                let room = MOST_BODY.saturating_sub(body.len());
                body.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
                if body.len() >= MOST_BODY {
                    return Ok(false);
                }
            }
            BodyEvent::End(end) => return Ok(end.keep && !end.extra),
            BodyEvent::Trailers(fields) => *trailers = fields,
            BodyEvent::Note(_) => {}
            BodyEvent::More => {
                let more = stream.recv(READ).await.map_err(|_| failed())?;
                if more.is_empty() {
                    codec.receive_end().map_err(|_| failed())?;
                } else {
                    codec.receive(more);
                }
            }
        }
    }
}

/// How much of a body is read at once.
const READ: usize = 16 << 10;
