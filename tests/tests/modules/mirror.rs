//! `mirror`: what copies are, and that nobody waits for them.

use std::net::UdpSocket;
use std::sync::{Mutex, mpsc};

use e2e::{Backend, Setup};

#[test]
fn copies_are_requests_like_the_original() {
    let (main, copies) = (Backend::start(|_| Backend::ok("main")), Backend::start(|_| Backend::ok("copy")));
    let mut server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; mirror /copy;
           location / {{ proxy_pass http://127.0.0.1:{0}; }}
           location /two {{ mirror /copy; mirror /copy; proxy_pass http://127.0.0.1:{0}; }}
           location /off {{ mirror off; proxy_pass http://127.0.0.1:{0}; }}
           location /bare {{ mirror /bare_copy; mirror_request_body off; proxy_pass http://127.0.0.1:{0}; }}
           location = /copy {{ internal; proxy_pass http://127.0.0.1:{1}$request_uri; }}
           location = /bare_copy {{ proxy_set_header Content-Length ''; proxy_pass http://127.0.0.1:{1}/bare; }} }}",
        main.port, copies.port
    ))
    .start();
    let mut expect = Vec::new();
    for (request, seen) in [
        ("GET /a?b=c HTTP/1.1\r\nX-Own: 1\r\n", vec!["GET /a?b=c HTTP/1.1 - "]),
        ("GET /two HTTP/1.1\r\n", vec!["GET /two HTTP/1.1 - ", "GET /two HTTP/1.1 - "]),
        ("GET /off HTTP/1.1\r\n", vec![]),
        ("PUT /body HTTP/1.1\r\nContent-Length: 5\r\n", vec!["PUT /body HTTP/1.1 5 hello"]),
        ("POST /bare HTTP/1.1\r\nContent-Length: 5\r\n", vec!["POST /bare HTTP/1.1 - "]),
        ("POST /empty HTTP/1.1\r\nContent-Length: 0\r\n", vec!["POST /empty HTTP/1.1 0 "]),
    ] {
        let body = if request.contains(": 5") { "hello" } else { "" };
        let response = server.raw(format!("{request}Host: localhost\r\nConnection: close\r\n\r\n{body}"));
        assert_eq!(response.text(), "main", "{request}");
        expect.extend(seen);
        server.wait(|_| copies.requests().len() == expect.len(), "its copies arrive");
    }
    let seen = copies.requests();
    let seen: Vec<_> = seen
        .iter()
        .map(|copy| {
            let length = copy.field("Content-Length").unwrap_or("-");
            format!("{} {length} {}", copy.line(), String::from_utf8_lossy(&copy.body))
        })
        .collect();
    assert_eq!(seen, expect);
    assert_eq!(copies.requests()[0].field("X-Own"), Some("1"));
    assert_eq!(main.requests().len(), 6);
}

#[test]
fn a_large_body_is_shared() {
    let (main, copies) = (Backend::start(|_| Backend::ok("main")), Backend::start(|_| Backend::ok("copy")));
    let mut server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; client_body_buffer_size 1k;
           location / {{ mirror /copy; proxy_request_buffering off; proxy_pass http://127.0.0.1:{}; }}
           location = /copy {{ proxy_pass http://127.0.0.1:{}; }} }}",
        main.port, copies.port
    ))
    .start();
    let body = "0123456789".repeat(20_000);
    for framing in ["Content-Length: 200000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n30d40\r\n"] {
        let end = if framing.starts_with('T') { "\r\n0\r\n\r\n" } else { "" };
        let request = format!("POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{framing}{body}{end}");
        assert_eq!(server.raw(request).text(), "main");
    }
    server.wait(|_| copies.requests().len() == 2, "both copies arrive");
    for request in main.requests().iter().chain(&copies.requests()) {
        assert_eq!((request.body.len(), request.body == body.as_bytes()), (200_000, true));
    }
}

/// Differs from nginx: a client never waits for a mirror
#[test]
fn nobody_waits_for_a_copy() {
    // The copies are answered after the client has had two responses on one connection.
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let copies = Backend::start(move |_| {
        wait.lock().expect("no test thread panics here").recv().expect("it is told to go on");
        Backend::ok("late")
    });
    let mut server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; root %%DIR%%; location / {{ mirror /copy; }}
           location = /copy {{ log_subrequest on; access_log %%DIR%%/copy.log; proxy_pass http://127.0.0.1:{}; }} }}",
        copies.port
    ))
    .file("page.txt", "page")
    .start();
    let mut client = server.connect();
    for _ in 0..2 {
        assert_eq!(client.get("/page.txt", "").text(), "page");
    }
    drop(client);
    for _ in 0..2 {
        go.send(()).expect("the backend waits");
    }
    server.wait(|s| s.read("copy.log").matches(" 200 ").count() == 2, "the copies come to their end");
}

/// Differs from nginx: 4096 requests of the worker process go on without a client
#[test]
fn copies_are_bounded() {
    // 128 copies of each request, which wait for a name server that says nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let (mirrors, resolver) = ("mirror /copy; ".repeat(128), silent.local_addr().expect("its address"));
    let mut server = Setup::http(&format!(
        "resolver {resolver};
         server {{ listen 127.0.0.1:%%PORT%%; root %%DIR%%; location / {{ {mirrors} }}
           location = /copy {{ set $name a.example; proxy_pass http://$name; }} }}"
    ))
    .main("worker_shutdown_timeout 1ms; error_log error.log warn;")
    .file("page.txt", "page")
    .start();
    let mut client = server.connect();
    for _ in 0..33 {
        assert_eq!(client.get("/page.txt", "").text(), "page");
    }
    server.wait(
        |s| s.read("error.log").contains("4096 requests go on without a client, no copy is made"),
        "the log tells of those that are left out",
    );
}

#[test]
fn what_the_configuration_must_not_say() {
    for (directives, expect) in [
        ("mirror off; mirror /a;", "\"mirror\" directive is duplicate"),
        ("mirror /a; mirror off;", "\"mirror\" directive is duplicate"),
        ("mirror off; mirror off;", "\"mirror\" directive is duplicate"),
    ] {
        let http = format!("server {{ listen 127.0.0.1:%%PORT%%; location / {{ {directives} }} }}");
        let server = Setup::http(&http).prepare();
        let said = String::from_utf8_lossy(&server.command(&["-t"]).stderr).into_owned();
        assert!(said.contains(expect), "{directives}: {said}");
    }
}
