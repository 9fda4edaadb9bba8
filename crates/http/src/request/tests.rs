//! A request whose memory is used again is as new.

use std::cell::RefCell;

use engine::cycle::{ConfSource, Program};
use engine::embedded::{self, Embedded};

use super::*;
use crate::module::HttpModule;
use crate::request::variables::Value;
use crate::reuse::{self, Members, members};

/// A configuration with two servers, and a variable that is stored.
const CONFIGURATION: &str = "events {} http { limit_rate $arg_rate;
    server { listen 192.0.2.1:80; } server { listen 192.0.2.1:81; } }";

thread_local! {
    static HTTP: RefCell<Option<Rc<Http>>> = const { RefCell::new(None) };
}

/// Remembers the configuration that a worker starts with.
struct Remember;

impl HttpModule for Remember {
    fn start_worker(&self, http: &Rc<Http>) {
        HTTP.set(Some(http.clone()));
    }
}

/// Runs a test in the simulated network, with a connection.
fn run(test: impl FnOnce(Rc<Http>, Link)) {
    let folder = tempfile::TempDir::with_prefix("tidegate-request-").expect("temporary files can be made");
    let modules: Vec<Box<dyn engine::Module>> = vec![Box::new(crate::Module::new([&Remember as &dyn HttpModule]))];
    let mut program =
        Program::new(modules, folder.path().join(""), ConfSource::BuiltIn("test", CONFIGURATION.to_owned()));
    program.error_log = "/dev/null".into();
    let cycle = embedded::load(&program, None).expect("the configuration is valid");
    let runtime = embedded::runtime(&cycle, rt::Driver::Sim(1)).expect("a simulation needs nothing");
    runtime.block_on(async {
        let _server = Embedded::start(cycle.clone());
        let http = HTTP.take().expect("the worker has started");
        let addr: SockAddr = std::net::SocketAddr::from(([192, 0, 2, 2], 80)).into();
        let _listener = rt::sim::listen(addr.clone());
        let stream = rt::Stream::connect(&addr, &rt::ConnectOptions::default(), 1000).await;
        test(http, Link::new(stream.expect("somebody listens").into()));
    });
}

/// The facts of a connection to the server that listens on this port.
fn facts(http: &Rc<Http>, port: u16) -> ConnectionFacts {
    let addr: SockAddr = std::net::SocketAddr::from(([192, 0, 2, 1], port)).into();
    let address = http.address(&addr, || None).expect("a server listens on it");
    ConnectionFacts::new(address, addr)
}

fn shown(r: &Request) -> Members {
    members!(
        r,
        Request {
            conn: (Rc::as_ptr(&conn.address).addr(), conn.peer.text(), conn.requests, conn.rare.is_some(), conn.debug),
            relay,
            number,
            link: link.is_some(),
            parser,
            http: Rc::as_ptr(http).addr(),
            server: Rc::as_ptr(server).addr(),
            location: Rc::as_ptr(location).addr(),
            head,
            line,
            method,
            uri,
            args,
            uri_source,
            uri_fit,
            host,
            upstream: upstream.is_some(),
            vars: (vars.slots.find::<u8>(), vars.values()),
            response: response.members(),
            body: body.members(),
            resume,
            uri_changes,
            internal,
            error_status,
            error_page,
            ending,
            pipelined,
            delivery,
            start_ms,
            sent_before,
            header_sent,
            body_before,
            head_memory: head_memory.to_vec(),
            rate,
            id,
            depth,
            family: family.is_some(),
            slots: slots.find::<u8>(),
        }
    )
}

/// Changes every member of a request that isn't its connection's or its configuration's.
#[deny(unused_variables)]
fn poison(r: &mut Request, other: &Rc<Server>) {
    let Request {
        conn,
        relay,
        number,
        link: _,
        parser,
        http,
        server,
        location,
        head,
        line,
        method,
        uri,
        args,
        uri_source,
        uri_fit,
        host,
        upstream,
        vars,
        response,
        body,
        resume,
        uri_changes,
        internal,
        error_status,
        error_page,
        ending,
        pipelined,
        delivery,
        start_ms,
        sent_before,
        header_sent,
        body_before,
        head_memory,
        rate,
        id,
        depth,
        family,
        slots,
    } = r;
    conn.requests += 1;
    *relay = Some(conn.peer.clone());
    (*number, *start_ms, *sent_before, *header_sent, *body_before) = (u64::MAX, 1, 1, 1, 1);
    *head = Bytes::from_static(b"GET /old HTTP/1.1\r\nHost: old\r\n\r\n");
    let limits = crate::session::h1::limits(&server.core);
    let parsed = parser.parse(head, &limits, line);
    assert!(parsed.is_ok());
    (*server, *location) = (other.clone(), other.root.clone());
    *method = Method::Put;
    uri.extend_from_slice(b"/old");
    args.extend_from_slice(b"old");
    host.extend_from_slice(b"old");
    head_memory.extend_from_slice(b"HTTP/1.1 200 OK");
    (*uri_source, *uri_fit) = (UriSource::ServerWithArgs, UriFit::Changed);
    (*upstream, *family) = (Some(crate::exchange::Exchange::new()), Some(Rc::default()));
    vars.slots.entry::<u8>();
    let stored = http.variables.id("arg_rate").expect("the configuration uses it");
    vars.set(stored, Value::Set(head.clone()));
    response.poison();
    body.poison();
    (*resume, *uri_changes, *depth) = (Resume::Location, 0, 1);
    (*internal, *error_status, *error_page, *pipelined) = (true, 404, true, true);
    (*ending, *delivery) = (Ending::Keep, Delivery::Whole);
    (*rate, *id) = (Some(1), Some("old".to_owned()));
    slots.entry::<u8>();
}

#[test]
fn a_request_in_used_memory_is_as_new() {
    run(|http, link| {
        let (facts, other) = (facts(&http, 80), facts(&http, 81));
        let mut r = Request::begin(Connection { facts: facts.clone(), link }, &http);
        let (at, new) = (std::ptr::from_ref(&*r), shown(&r));
        poison(&mut r, other.server());
        let used = shown(&r);
        let link = r.end().expect("it has a connection").link;
        let r = Request::begin(Connection { facts, link }, &http);
        assert!(std::ptr::eq(at, &*r), "the memory is used again");
        reuse::check(&new, &used, &shown(&r), &["link", "http"]);
    });
}
