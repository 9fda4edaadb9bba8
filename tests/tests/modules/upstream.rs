//! `upstream {}`: sessions, queues, names without addresses, groups from files.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use e2e::{Backend, NameServer, Server, Setup};

/// A backend that answers with its letter.
fn lettered(letter: &'static str) -> Backend {
    Backend::start(move |_| Backend::ok(letter))
}

fn letters(server: &Server, target: &str, more: &str, count: usize) -> String {
    (0..count).map(|_| server.get_with(target, more).text()).collect()
}

#[test]
fn sessions_by_cookie() {
    let (a, b) = (lettered("a"), lettered("b"));
    let server = Setup::http(&format!(
        "upstream u {{ server 127.0.0.1:{} route=one; server 127.0.0.1:{}; sticky cookie s secure httponly domain=$arg_d
           path=/ samesite=$arg_s expires=max; }}
         server {{ listen 127.0.0.1:%%PORT%%; location / {{ proxy_pass http://u; }} }}",
        a.port, b.port
    ))
    .start();
    assert_eq!(letters(&server, "/", "", 4), "abab");
    assert_eq!(letters(&server, "/", "Cookie: x=1; S=one\r\n", 3), "aaa");
    let first = server.get_with("/?d=example.com&s=none", "Cookie: s=one\r\n");
    let expect = "s=one; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000; domain=example.com; httponly; secure; \
                  samesite=none; path=/";
    assert_eq!(first.field("Set-Cookie"), Some(expect));
    let other = server.get("/?s=other");
    let cookie = other.field("Set-Cookie").expect("a cookie").to_owned();
    assert!(cookie.ends_with("; httponly; secure; samesite=strict; path=/"), "{cookie}");
    let value = cookie.split(';').next().expect("a pair").to_owned();
    let name = if value == "s=one" { "aaa" } else { "bbb" };
    assert_eq!(letters(&server, "/", &format!("Cookie: {value}\r\n"), 3), name);
}

#[test]
fn sessions_are_learned_and_survive_a_reload() {
    let created = |letter: &'static str| {
        Backend::start(move |_| {
            format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nSet-Cookie: sid={letter}\r\n\r\n{letter}").into_bytes()
        })
    };
    let (a, b) = (created("a"), created("b"));
    let mut server = Setup::http(&format!(
        "upstream u {{ server 127.0.0.1:{}; server 127.0.0.1:{};
           sticky learn create=$upstream_cookie_sid lookup=$arg_none lookup=$cookie_sid zone=s:32k; }}
         server {{ listen 127.0.0.1:%%PORT%%; location / {{ proxy_pass http://u; }} }}",
        a.port, b.port
    ))
    .start();
    assert_eq!(letters(&server, "/", "Cookie: sid=b\r\n", 2), "ab");
    assert_eq!(letters(&server, "/", "Cookie: sid=b\r\n", 3), "bbb");
    server.reload();
    assert_eq!(letters(&server, "/", "Cookie: sid=b\r\n", 3), "bbb");
    assert_eq!(letters(&server, "/", "Cookie: sid=a\r\n", 3), "aaa");
}

/// Not in nginx: `queue` lets requests wait
#[test]
fn requests_wait_for_a_server() {
    let busy = Arc::new((AtomicUsize::new(0), Mutex::new(())));
    let (most, seen) = (Arc::new(AtomicUsize::new(0)), busy.clone());
    let greatest = most.clone();
    let backend = Backend::start(move |_| {
        greatest.fetch_max(seen.0.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let held = seen.1.lock();
        drop(held);
        seen.0.fetch_sub(1, Ordering::SeqCst);
        Backend::ok("done")
    });
    let mut server = Setup::http(&format!(
        "upstream u {{ server 127.0.0.1:{} max_conns=1; queue 2 timeout=10s; }}
         upstream short {{ server 127.0.0.1:{} max_conns=1; queue 1 timeout=50ms; }}
         log_format queue '$status $upstream_queue_time';
         server {{ listen 127.0.0.1:%%PORT%%;
           location / {{ proxy_pass http://u; access_log queue.log queue; }}
           location /ok {{ return 200 ok; }}
           location /short {{ proxy_pass http://short; access_log short.log queue; }} }}",
        backend.port, backend.port
    ))
    .start();
    server.quiet();
    let held = busy.1.lock().expect("nobody has panicked");
    let mut first = server.connect();
    first.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait(|_| busy.0.load(Ordering::SeqCst) == 1, "the first request");
    let mut waiting = [server.connect(), server.connect()];
    for connection in &mut waiting {
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    // They have come before what comes later is answered, by the same worker.
    (0..3).for_each(|_| assert_eq!(server.get("/ok").status, 200));
    assert_eq!(server.get("/").status, 502, "there is no room for a third one");
    let mut other = server.connect();
    other.send(b"GET /short HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait(|_| busy.0.load(Ordering::SeqCst) == 2, "a request of the other group");
    assert_eq!(server.get("/short").status, 502, "nobody gives the server back in time");
    drop(held);
    assert_eq!(first.response().text(), "done");
    for connection in &mut waiting {
        assert_eq!(connection.response().text(), "done");
    }
    let log = server.read_until("queue.log", "200 0.");
    assert!(log.contains("200 -") || log.contains("200 0.0"), "{log}");
    assert!(most.load(Ordering::SeqCst) <= 2, "one for each group");
}

/// Not in nginx: a name without an address doesn't stop the start
#[test]
fn what_fails_here_is_no_fault_of_the_servers() {
    let (a, b) = (lettered("a"), lettered("b"));
    let mut server = Setup::http(&format!(
        "upstream u {{ zone u 64k; server 127.0.0.1:{}; server 127.0.0.1:{}; }}
         log_format status '$status $upstream_status';
         server {{ listen 127.0.0.1:%%PORT%%; location / {{ proxy_pass http://u; }}
           location /away {{ proxy_pass http://u; proxy_bind 192.0.2.1; access_log away.log status; }} }}",
        a.port, b.port
    ))
    .start();
    // No machine has that address.
    (0..3).for_each(|_| assert_eq!(server.get("/away").status, 500));
    server.read_until("error.log", "[crit]");
    let log = server.read("error.log");
    assert!(log.contains("bind(192.0.2.1) failed (99: Cannot assign requested address) while connecting"), "{log}");
    assert_eq!(server.read_until("away.log", "\n").lines().next(), Some("500 -"));
    let seen = letters(&server, "/", "", 4);
    assert!(seen.contains('a') && seen.contains('b'), "{seen}");
    assert!(!server.read("error.log").contains("no live upstreams"));
}

#[test]
fn names_that_have_no_address_yet() {
    let names = NameServer::start("late.invalid");
    let backend = lettered("late");
    let (dns, port) = (names.port, backend.port);
    let text = |strict: &str| {
        format!(
            "{strict} resolver 127.0.0.1:{dns} ipv6=off; resolver_timeout 1s;
             upstream u {{ server late.invalid:{port}; }}
             upstream gone {{ server gone.invalid:{port}; }}
             server {{ listen 127.0.0.1:%%PORT%%;
               location / {{ proxy_pass http://late.invalid:{port}; add_header X-Name $upstream_last_server_name; }}
               location /group {{ proxy_pass http://u; }}
               location /gone {{ proxy_pass http://gone; }} }}"
        )
    };
    let strict = Setup::http(&text("upstream_resolve_at_start on;")).prepare().command(&["-t"]);
    let said = String::from_utf8_lossy(&strict.stderr).into_owned();
    assert!(!strict.status.success() && said.contains("host not found in upstream \"late.invalid"), "{said}");
    let mut server = Setup::http(&text("")).prepare();
    let said = String::from_utf8_lossy(&server.command(&["-t"]).stderr).into_owned();
    assert!(said.contains("[warn] host not found in upstream \"late.invalid"), "{said}");
    server.launch();
    server.quiet();
    for target in ["/", "/group"] {
        server.wait(|server| server.get(target).status == 200, "the address");
    }
    assert_eq!(server.get("/").field("X-Name"), Some("late.invalid"));
    assert_eq!(server.get("/gone").status, 502);
    server.read_until("error.log", "gone.invalid could not be resolved (3: Host not found) in upstream \"gone\"");
}

/// Not in nginx: `state` reads the servers of a group from a file
#[test]
fn servers_from_a_file() {
    let (a, b) = (lettered("a"), lettered("b"));
    let text = "upstream u { zone u 64k; state servers; }
         server { listen 127.0.0.1:%%PORT%%; location / { proxy_pass http://u; } }";
    let mut server = Setup::http(text).prepare();
    server.launch();
    server.quiet();
    assert_eq!(server.get("/").status, 502, "there is no file");
    let path = server.folder().path().join("servers");
    std::fs::write(&path, format!("server 127.0.0.1:{};\n", a.port)).expect("written");
    server.reload();
    assert_eq!(letters(&server, "/", "", 2), "aa");
    std::fs::write(&path, format!("server 127.0.0.1:{} down;\nserver 127.0.0.1:{};\n", a.port, b.port))
        .expect("written");
    server.reload();
    assert_eq!(letters(&server, "/", "", 2), "bb");
    std::fs::write(&path, "server 127.0.0.1:1 weight=x;\n").expect("written");
    let said = String::from_utf8_lossy(&server.command(&["-t"]).stderr).into_owned();
    assert!(said.contains("invalid parameter \"weight=x\" in \""), "{said}");
}

#[test]
fn faults_of_the_configuration() {
    for (directives, expect) in [
        ("sticky foo bar;", "unknown parameter \"foo\""),
        ("sticky cookie a; sticky cookie b;", "\"sticky\" directive is duplicate"),
        ("sticky cookie a foo;", "unknown parameter \"foo\""),
        ("sticky cookie a expires=x;", "\"sticky\" directive invalid \"expires\" parameter value"),
        ("sticky cookie a samesite=x;", "\"sticky\" directive invalid \"samesite\" parameter value"),
        ("sticky cookie a domain=;", "\"sticky\" directive no value for \"domain\""),
        ("sticky cookie \"\";", "\"sticky\" directive empty cookie name"),
        ("sticky cookie a secure secure;", "\"sticky\" directive parameter \"secure\" is duplicate"),
        ("sticky route a;", "invalid variable name \"a\""),
        ("sticky route $arg_a a$arg_b;", "invalid variable name \"a$arg_b\""),
        ("sticky learn zone=a:1m create=$arg_a;", "\"sticky\" directive \"lookup\" parameter is not specified"),
        ("sticky learn zone=a:1m lookup=$arg_a;", "\"sticky\" directive \"create\" parameter is not specified"),
        ("sticky learn lookup=$arg_a create=$arg_a;", "\"sticky\" directive \"zone\" parameter is not specified"),
        ("sticky learn zone=a lookup=$arg_a create=$arg_a;", "\"sticky\" directive zone size is not specified"),
        ("sticky learn zone=a:1 lookup=$arg_a create=$arg_a;", "\"sticky\" directive zone is too small"),
        ("sticky learn zone=a:1m lookup=a create=$arg_a;", "\"sticky\" directive missing variable in the \"lookup\""),
        ("sticky learn zone=a:1m lookup=$arg_a create=$arg_a timeout=0;", "\"sticky\" directive invalid timeout"),
        ("server 127.0.0.1:2 route=;", "route is empty"),
        ("server 127.0.0.1:2 route=012345678901234567890123456789012;", "route is longer than 32"),
        ("server localhost:1 resolve; resolver 127.0.0.1;", "resolving names at run time requires upstream \"u\""),
        ("zone z 1m; server localhost service=a;", "service upstream \"localhost\" requires \"resolve\" parameter"),
        ("zone z 1m; server localhost:1 service=a resolve;", "service upstream \"localhost:1\" may not have port"),
        ("zone z 1m; server 127.0.0.1 service=a resolve;", "service upstream \"127.0.0.1\" requires domain name"),
        ("zone z 1m; server localhost service= resolve;", "service is empty"),
        ("resolver 127.0.0.1; resolver 127.0.0.2;", "\"resolver\" directive is duplicate"),
        ("resolver_timeout x;", "\"resolver_timeout\" directive invalid value"),
        ("least_time foo;", "invalid value \"foo\""),
        ("least_time header foo;", "invalid parameter \"foo\""),
        ("least_time first_byte;", "invalid value \"first_byte\""),
        ("least_conn; least_time header;", "load balancing method redefined"),
        ("random two foo;", "invalid parameter \"foo\""),
        ("least_time last_byte inflight; server 127.0.0.1:2 backup drain;", "test is successful"),
    ] {
        let text =
            "upstream u { server 127.0.0.1:1; X } server { listen 127.0.0.1:%%PORT%%; }".replace('X', directives);
        let out = Setup::http(&text).prepare().command(&["-t"]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains(expect), "{directives}: {said}");
    }
}
