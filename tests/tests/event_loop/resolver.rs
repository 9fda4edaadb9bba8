//! `resolver`: names that are only known when a request comes, and answers that come late.

use e2e::{Backend, NameServer, Server, Setup};

#[test]
fn names_in_proxy_pass_are_looked_up() {
    let names = NameServer::start("backend.test");
    let backend = Backend::start(|request| {
        Backend::ok(&format!("{} {}", request.line(), request.field("Host").unwrap_or_default()))
    });
    let (dns, port) = (names.port, backend.port);
    let mut server = Setup::http(&format!(
        "resolver 127.0.0.1:{dns} valid=10m ipv6=off; resolver_timeout 5s;
        server {{ listen 127.0.0.1:%%PORT%%;
            location / {{ proxy_pass http://$arg_h:{port}; add_header X-To $upstream_addr; }}
            location /both {{ resolver 127.0.0.1:{dns}; proxy_pass http://$arg_h:{port}/both?; }}
            location /late {{ resolver 127.0.0.1:%%PORT_nobody%%; resolver_timeout 100ms; proxy_pass http://$arg_h; }} }}"
    ))
    .start();
    for name in ["backend.test", "BACKEND.test", "backend.test."] {
        let response = server.get(&format!("/x?h={name}"));
        assert_eq!(response.text(), format!("GET /x?h={name} HTTP/1.1 {name}:{port}"));
        assert_eq!(response.field("X-To"), Some(format!("127.0.0.1:{port}").as_str()));
    }
    assert_eq!(names.asked(), 1, "the answer is kept");
    assert_eq!(server.get("/both?h=backend.test").status, 200);
    assert_eq!(names.asked(), 3, "a resolver of its own asks itself, for both kinds of addresses");
    for (path, log) in [
        ("/?h=other.test", "other.test could not be resolved (3: Host not found), client: "),
        ("/?h=a..b", "a..b could not be resolved (3: Host not found), client: "),
        ("/late?h=backend.test", "backend.test could not be resolved (110: Operation timed out), client: "),
    ] {
        assert_eq!(server.get(path).status, 502, "{path}");
        server.read_until("error.log", log);
    }
}

/// A server that looks names up at a name server whose answers take a second.
fn waiting(names: &NameServer, backend: &Backend, timeout: &str) -> Server {
    let mut server = Setup::http(&format!(
        "resolver 127.0.0.1:{} ipv6=off; resolver_timeout {timeout};
         server {{ listen 127.0.0.1:%%PORT%%; location / {{ set $name known.example; proxy_pass http://$name:{}; }}
         location /other {{ set $name other.example; proxy_pass http://$name:{}; }}
         location /ok {{ return 200 ok; }} }}",
        names.port, backend.port, backend.port
    ))
    .start();
    server.quiet();
    server
}

const LATE: std::time::Duration = std::time::Duration::from_secs(1);

/// The requests that are answered after all; nobody's memory has been touched, and nothing panicked.
fn goes_on(server: &mut Server, names: &NameServer, asked: usize) {
    server.wait(|_| names.asked() >= asked, "the questions");
    std::thread::sleep(LATE + LATE / 2);
    assert_eq!(server.get("/ok").text(), "ok");
    assert_eq!(server.get("/").text(), "answer");
    let log = server.read("error.log");
    assert!(!["[alert]", "[emerg]", "[crit]"].iter().any(|level| log.contains(level)), "{log}");
}

#[test]
fn answers_come_after_their_requests_have_been_given_up() {
    let (names, backend) = (NameServer::late("known.example", LATE), Backend::start(|_| Backend::ok("answer")));
    let mut server = waiting(&names, &backend, "10s");
    for target in ["/", "/other"] {
        let given_up: Vec<_> = (0..20)
            .map(|_| {
                let mut connection = server.connect();
                connection.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
                connection
            })
            .collect();
        server.wait(|_| names.asked() > 0, "the question");
        drop(given_up);
    }
    goes_on(&mut server, &names, 2);
}

#[test]
fn answers_come_after_their_requests_have_timed_out() {
    let (names, backend) = (NameServer::late("known.example", LATE), Backend::start(|_| Backend::ok("answer")));
    let mut server = waiting(&names, &backend, "300ms");
    assert_eq!((server.get("/").status, server.get("/other").status), (502, 502));
    let log = server.read_until("error.log", "other.example could not be resolved (110: Operation timed out)");
    assert!(log.contains("known.example could not be resolved (110: Operation timed out)"), "{log}");
    std::thread::sleep(LATE + LATE / 2);
    assert_eq!(server.get("/ok").text(), "ok");
    assert!(!server.read("error.log").contains("[alert]"));
}

#[test]
fn answers_come_while_their_worker_leaves() {
    let (names, backend) = (NameServer::late("known.example", LATE), Backend::start(|_| Backend::ok("answer")));
    let mut server = waiting(&names, &backend, "10s");
    let before = server.children();
    let (mut stays, mut goes) = (server.connect(), server.connect());
    stays.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    goes.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait(|_| names.asked() > 0, "the question");
    server.signal(rustix::process::Signal::HUP);
    drop(goes);
    assert_eq!(stays.response().text(), "answer", "who waits is served by the worker that leaves");
    server.wait(|s| s.children().iter().all(|pid| !before.contains(pid)), "the old worker's end");
    goes_on(&mut server, &names, 1);
}
