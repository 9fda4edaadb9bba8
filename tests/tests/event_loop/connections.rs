//! Connections of clients over HTTP/1: requests one after another, in pieces, and none at all.

use std::time::{Duration, Instant};

use e2e::Setup;

/// Not what is left of `keepalive_timeout`.
#[test]
fn a_slow_head_has_its_own_time_on_a_kept_connection_too() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; client_header_timeout 300ms; keepalive_timeout 8s; return 200 x; }",
    )
    .start();
    let mut kept = server.connect();
    assert_eq!(kept.get("/", "").text(), "x");
    std::thread::sleep(Duration::from_millis(400));
    let begin = Instant::now();
    kept.send("GET / HTTP/1.1\r\nHo");
    assert!(kept.closed());
    assert!((250..5000).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
}

#[test]
fn keepalive_and_pipelining() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; keepalive_requests 3;
            location / { return 200 \"$request_uri\"; } }",
    )
    .start();
    let mut c = server.connect();
    assert_eq!(c.get("/1", "").text(), "/1");
    c.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(c.response().text(), "/2");
    let third = c.response();
    assert_eq!((third.text().as_str(), third.field("Connection")), ("/3", Some("close")));
    assert!(c.closed());

    let mut old = server.connect();
    old.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(old.response().field("Connection"), Some("close"));
    assert!(old.closed());
    let mut kept = server.connect();
    kept.send("GET /k HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(kept.response().field("Connection"), Some("keep-alive"));
    assert_eq!(kept.get("/again", "Connection: close\r\n").text(), "/again");
    assert!(kept.closed());
}

#[test]
fn every_split_of_a_request() {
    let server = Setup::http("server { listen 127.0.0.1:%%PORT%%; return 200 $arg_a; }").start();
    let request = "GET /?a=1 HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
    for cut in 1..request.len() {
        let mut c = server.connect();
        c.send(&request[..cut]);
        std::thread::sleep(Duration::from_millis(1));
        c.send(&request[cut..]);
        assert_eq!(c.response().text(), "1", "cut at {cut}");
    }
}

#[test]
fn a_body_that_is_waited_for_and_not_wanted() {
    let server =
        Setup::http("server { listen 127.0.0.1:%%PORT%%; location / { return 200 $request_method; } }").start();
    let mut c = server.connect();
    c.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(c.head_response().status, 100);
    assert_eq!(c.response().text(), "POST");
    c.send("12345");
    assert_eq!(c.get("/", "").text(), "GET");
}

#[test]
fn timeouts() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; client_header_timeout 1s; client_body_timeout 1s; keepalive_timeout 1s;
            location / { return 200 ok; }
            location /up { proxy_pass http://127.0.0.1:1; } }",
    )
    .start();
    assert!(server.connect().closed(), "a silent client");
    assert!(server.connect().send("GET / HTTP/1.1\r\n").closed(), "half a head");
    let mut idle = server.connect();
    assert_eq!(idle.get("/", "").status, 200);
    assert!(idle.closed(), "an idle connection");
    let mut body = server.connect();
    body.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(body.try_response(false).map(|r| r.status), None, "half a body");
    assert_eq!(server.get("/").status, 200);
}
