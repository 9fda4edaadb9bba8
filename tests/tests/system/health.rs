//! `health_check`: one worker checks for all, another one takes over, and what is known outlives reloads.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use e2e::{Backend, Server, Setup};
use rustix::process::{Pid, Signal, kill_process};

/// A backend whose health a test decides, and which counts checks.
struct Checked {
    backend: Backend,
    healthy: Arc<AtomicBool>,
    checks: Arc<AtomicUsize>,
}

impl Checked {
    fn start(letter: &'static str) -> Checked {
        let (healthy, checks) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (state, count) = (healthy.clone(), checks.clone());
        let backend = Backend::start(move |request| {
            if !request.line().starts_with("GET /health?deep=1 ") {
                return Backend::ok(letter);
            }
            count.fetch_add(1, Ordering::SeqCst);
            Backend::ok(if state.load(Ordering::SeqCst) { "all is well" } else { "maintenance" })
        });
        Checked { backend, healthy, checks }
    }
}

fn text(a: u16, b: u16, more: &str, server: &str) -> String {
    format!(
        "daemon off; pid nginx.pid; error_log error.log notice; worker_processes 3; events {{ %%USE%% }}
         http {{ access_log off; client_body_temp_path cb; proxy_temp_path pt;
         match well {{ status 200 204-206; header Content-Length; header ! X-None; header Content-Length !~ ^x;
           body ~ \"is well\"; require $status_ok; }}
         map $upstream_status $status_ok {{ 200 1; }}
         upstream u {{ zone u 64k; server 127.0.0.1:{a}; server 127.0.0.1:{b} {server}; }}
         server {{ listen 127.0.0.1:%%PORT%%; location / {{ proxy_pass http://u/x/; proxy_set_header X-Check yes;
           health_check uri=/health?deep=1 interval=50ms match=well {more}; }} }} }}"
    )
}

fn start(text: &str) -> Server {
    let mut server = Setup::whole(text).prepare();
    server.configure(text);
    server.launch();
    server.wait(|s| s.children().len() == 3, "the workers");
    server
}

fn letters(server: &Server) -> String {
    (0..12).map(|_| server.get("/").text()).collect()
}

/// Not in nginx: `health_check` and `match`
#[test]
fn unhealthy_servers_get_no_requests() {
    let (a, b) = (Checked::start("a"), Checked::start("b"));
    let mut server =
        start(&text(a.backend.port, b.backend.port, "fails=2 passes=2 jitter=10ms keepalive_time=10s", ""));
    assert!(letters(&server).contains('a'));
    server.wait(|_| a.checks.load(Ordering::SeqCst) > 2 && b.checks.load(Ordering::SeqCst) > 2, "checks");
    a.healthy.store(false, Ordering::SeqCst);
    server.read_until("error.log", "peer is unhealthy while checking body, health check of peer 127.0.0.1:");
    assert_eq!(letters(&server), "b".repeat(12), "all workers know it");
    server.reload();
    assert_eq!(letters(&server), "b".repeat(12), "and those of the next configuration");
    // Whichever worker checks: one after the other is killed.
    for _ in 0..3 {
        let checks = b.checks.load(Ordering::SeqCst);
        let before = server.children();
        let worker = before.first().and_then(|pid| Pid::from_raw(*pid as _)).expect("a worker");
        kill_process(worker, Signal::KILL).expect("it lives");
        server.wait(|s| s.children().len() == 3 && s.children() != before, "another worker");
        server.wait(|_| b.checks.load(Ordering::SeqCst) > checks + 2, "checks go on");
    }
    a.healthy.store(true, Ordering::SeqCst);
    server.read_until("error.log", "peer is healthy, health check of peer 127.0.0.1:");
    assert!(letters(&server).contains('a'));
    server.quiet();
}

/// Not in nginx: `health_check` and `match`
#[test]
fn servers_that_have_to_pass_first() {
    let (a, b) = (Checked::start("a"), Checked::start("b"));
    for checked in [&a, &b] {
        checked.healthy.store(false, Ordering::SeqCst);
    }
    let mut server = start(&text(a.backend.port, b.backend.port, "mandatory persistent", ""));
    server.quiet();
    assert_eq!(server.get("/").status, 502);
    a.healthy.store(true, Ordering::SeqCst);
    server.wait(|server| server.get("/").status == 200, "a first check that passes");
    assert_eq!(letters(&server), "a".repeat(12));
    server.reload();
    assert_eq!(server.get("/").text(), "a", "it was healthy before");
}

/// Not in nginx: `health_check` and `match`
#[test]
fn connections_of_checks_end() {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = ended.clone();
    let backend = Backend::sockets(move |mut socket, _| {
        let mut request = [0; 4096];
        if socket.read(&mut request).is_ok_and(|n| n > 0) {
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            if let Ok(0) = socket.read(&mut request) {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let mut server = Setup::http(&format!(
        "upstream u {{ zone u 64k; server 127.0.0.1:{}; }}
         server {{ listen 127.0.0.1:%%PORT%%; location / {{ proxy_pass http://u; proxy_http_version 1.1;
           proxy_set_header Connection ''; health_check interval=1h keepalive_time=100ms; }} }}",
        backend.port
    ))
    .start();
    server.wait(|_| ended.load(Ordering::SeqCst) == 1, "the end, long before the next check");
}

/// Not in nginx: `health_check` and `match`
#[test]
fn checks_that_cannot_be_made_say_nothing() {
    let backend = Backend::start(|_| Backend::ok("a"));
    let mut server = Setup::http(&format!(
        "upstream u {{ zone u 64k; server 127.0.0.1:{port}; server 127.0.0.1:{port}; }}
         server {{ listen 127.0.0.1:%%PORT%%; location / {{ proxy_pass http://u; }}
           location /away {{ proxy_pass http://u; proxy_bind 192.0.2.1; health_check interval=20ms; }} }}",
        port = backend.port
    ))
    .start();
    server.wait(|s| s.read("error.log").matches("bind(192.0.2.1) failed").count() > 3, "checks of both");
    assert_eq!(server.get("/").text(), "a");
    let log = server.read("error.log");
    assert!(!log.contains("unhealthy"), "{log}");
}

/// Not in nginx: `health_check` and `match`
#[test]
fn faults_of_the_configuration() {
    for (directive, expect) in [
        ("health_check interval=x;", "invalid parameter \"interval=x\""),
        ("health_check persistent;", "invalid parameter \"persistent\""),
        ("health_check uri=x;", "invalid parameter \"uri=x\""),
        ("health_check match=none;", "unknown match \"none\""),
        ("health_check; health_check;", "\"health_check\" directive is duplicate"),
        ("proxy_pass http://plain; health_check;", "\"health_check\" requires \"zone\" in upstream \"plain\""),
        ("proxy_pass http://$arg_a; health_check;", "\"health_check\" needs a group without variables"),
        ("root site; health_check;", "\"health_check\" needs a location that passes requests to a backend"),
        ("health_check match=good port=8080 fails=2 passes=3 mandatory persistent;", "test is successful"),
    ] {
        let pass = if directive.starts_with("health") { "proxy_pass http://u;" } else { "" };
        let text = format!(
            "match good {{ status ! 500-599; header Server = x; }}
             upstream u {{ zone u 64k; server 127.0.0.1:1; }} upstream plain {{ server 127.0.0.1:1; }}
             server {{ listen 127.0.0.1:%%PORT%%; location / {{ {pass} {directive} }} }}"
        );
        let out = Setup::http(&text).prepare().command(&["-t"]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains(expect), "{directive}: {said}");
    }
    for (test, expect) in [
        ("status;", "invalid number of arguments in \"status\" test"),
        ("status 2xx;", "invalid status \"2xx\""),
        ("status 300-200;", "invalid status \"300-200\""),
        ("header a b;", "invalid number of arguments in \"header\" test"),
        ("header a ? b;", "unknown operator \"?\""),
        ("body = x;", "unknown operator \"=\""),
        ("foo x;", "unknown test \"foo\""),
    ] {
        let text = format!("match m {{ {test} }} server {{ listen 127.0.0.1:%%PORT%%; }}");
        let out = Setup::http(&text).prepare().command(&["-t"]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains(expect), "{test}: {said}");
    }
}
