//! `proxy_cache` and its kin: what is stored, for how long, and to whom it is served.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::{Backend, Connection, Received, Response, Server, Setup};

/// A server with a cache. `B` after a colon is the backend's port.
fn server(backend: &Backend, inside: &str) -> Server {
    setup(backend, "", inside).start()
}

fn setup(backend: &Backend, path: &str, inside: &str) -> Setup {
    let text = format!(
        "proxy_temp_path %%DIR%%/temp; proxy_cache_path %%DIR%%/cache/files keys_zone=one:1m levels=1:2 {path};
        proxy_cache_valid 200 1m; proxy_cache_key $uri; proxy_cache one;
        server {{ listen 127.0.0.1:%%PORT%%; add_header X-S \"$upstream_cache_status\" always; {inside} }}"
    );
    Setup::http(&text.replace(":B", &format!(":{}", backend.port))).public("cache").public("temp")
}

const PLAIN: &str = "location / { proxy_pass http://127.0.0.1:B; }";

/// A backend whose bodies count the requests for each URI; fields and the status come from the query (`?Name:value&...`).
fn counting() -> Backend {
    let counts = Mutex::new(HashMap::<String, u32>::new());
    Backend::start(move |r| {
        let target = r.line().split(' ').nth(1).unwrap_or_default().to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let mut counts = counts.lock().unwrap();
        let count = counts.entry(path.to_owned()).or_default();
        *count += 1;
        answer(path, query, *count, r)
    })
}

fn answer(path: &str, query: &str, count: u32, r: &Received) -> Vec<u8> {
    let (mut status, mut fields) = ("200 OK".to_owned(), String::new());
    for part in query.split('&').filter(|part| !part.is_empty()) {
        match part.split_once(':') {
            Some(("status", value)) => status = format!("{value} Status"),
            Some((name, value)) => fields.push_str(&format!("{name}: {}\r\n", value.replace('+', " "))),
            None => {}
        }
    }
    let body = format!("{path} {count}");
    let conditional = r.field("If-None-Match").is_some_and(|tags| tags == "\"same\"");
    if conditional && !query.contains("status") {
        return format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n").into_bytes();
    }
    format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The status of the cache and the body.
fn ask(server: &Server, target: &str) -> (String, String) {
    shown(&server.get(target))
}

fn shown(response: &Response) -> (String, String) {
    (response.field("X-S").unwrap_or_default().to_owned(), response.text())
}

fn is(server: &Server, target: &str, status: &str, body: &str) {
    assert_eq!(ask(server, target), (status.to_owned(), body.to_owned()), "{target}");
}

/// The files of the cache.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn stored(server: &Server) -> Vec<PathBuf> {
    files(&server.folder().path().join("cache/files"))
}

#[test]
fn a_response_is_served_as_it_was() {
    let backend = counting();
    let server = server(&backend, PLAIN);
    let target =
        "/a?X-Own:1&ETag:\"x\"&Last-Modified:Sun,+06+Nov+1994+08:49:37+GMT&Content-Type:text/x&Accept-Ranges:bytes";
    let first = server.get(target);
    let second = server.get(target);
    assert_eq!((shown(&first).0, shown(&second).0), ("MISS".into(), "HIT".into()));
    assert_eq!((first.status, first.text()), (second.status, second.text()));
    for name in ["X-Own", "ETag", "Last-Modified", "Content-Type", "Content-Length", "Accept-Ranges"] {
        assert!(first.field(name).is_some() && first.field(name) == second.field(name), "{name}");
    }
    for (more, status, body) in [
        ("If-None-Match: \"x\"\r\n", 304, ""),
        ("If-None-Match: \"y\"\r\n", 200, "/a 1"),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 304, ""),
        ("If-Match: \"y\"\r\n", 412, "…"),
        ("Range: bytes=1-2\r\n", 206, "a "),
        ("Range: bytes=9-\r\n", 416, "…"),
    ] {
        let response = server.get_with(target, more);
        assert_eq!(response.status, status, "{more}");
        assert!(body == "…" || response.text() == body, "{more}");
    }
    let several = server.get_with(target, "Range: bytes=0-0,3-3\r\n");
    assert_eq!(several.status, 206);
    assert!(several.text().contains("\r\n\r\n/\r\n") && several.text().contains("\r\n\r\n1\r\n"), "{several:?}");
    let head = server.connect().send(format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n")).head_response();
    assert_eq!((head.status, head.field("Content-Length")), (200, Some("4")));
    assert_eq!(backend.requests().len(), 1);
    assert_eq!(stored(&server).len(), 1);
}

#[test]
fn what_is_stored_and_for_how_long() {
    let backend = counting();
    let server = server(
        &backend,
        "location / { proxy_pass http://127.0.0.1:B; }
         location /any { proxy_cache_valid 404 1m; proxy_cache_valid any 1m; proxy_pass http://127.0.0.1:B; }
         location /ignore { proxy_ignore_headers Cache-Control Set-Cookie Vary; proxy_pass http://127.0.0.1:B; }
         location /key { proxy_cache_key $request_method$args; proxy_pass http://127.0.0.1:B; }",
    );
    for (n, (query, second)) in [
        ("", "HIT"),
        ("status:404", "MISS"),
        ("Cache-Control:no-store", "MISS"),
        ("Cache-Control:max-age=0", "MISS"),
        ("Cache-Control:max-age=9", "HIT"),
        ("status:404&Cache-Control:max-age=9", "HIT"),
        ("X-Accel-Expires:0", "MISS"),
        ("X-Accel-Expires:@1", "EXPIRED"),
        ("Set-Cookie:a", "MISS"),
        ("Vary:*", "MISS"),
        ("Expires:Thu,+01+Jan+1970+00:00:01+GMT", "MISS"),
        ("X-Accel-Buffering:no", "MISS"),
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("/{n}?{query}");
        assert_eq!(ask(&server, &target).0, "MISS", "{target}");
        assert_eq!(ask(&server, &target).0, second, "{target}");
    }
    for target in ["/any?status:404", "/any5?status:500", "/ignore?Cache-Control:no-store&Set-Cookie:a&Vary:*"] {
        assert_eq!((ask(&server, target).0, ask(&server, target).0), ("MISS".into(), "HIT".into()), "{target}");
    }
    assert_eq!((ask(&server, "/key?x").0, ask(&server, "/key2?x").0), ("MISS".into(), "HIT".into()));
    let post = |body: &str| {
        let text = format!("POST /0 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        shown(&server.connect().send(text).response())
    };
    assert_eq!(post("x"), (String::new(), "/0 2".to_owned()), "it isn't asked for in the cache");
    is(&server, "/0", "HIT", "/0 1");
}

#[test]
fn conditions_and_uses() {
    let backend = counting();
    let server = server(
        &backend,
        "location / { proxy_cache_bypass $arg_bypass $http_x_bypass; proxy_no_cache $arg_no; proxy_pass http://127.0.0.1:B; }
         location /rare { proxy_cache_min_uses 2; proxy_pass http://127.0.0.1:B; }
         location /off { proxy_cache off; proxy_pass http://127.0.0.1:B; }
         location /var { proxy_cache $arg_c; proxy_pass http://127.0.0.1:B; }",
    );
    is(&server, "/a", "MISS", "/a 1");
    is(&server, "/a?bypass=0", "HIT", "/a 1");
    is(&server, "/a?bypass=1&no=1", "BYPASS", "/a 2");
    is(&server, "/a", "HIT", "/a 1");
    is(&server, "/a?bypass=1", "BYPASS", "/a 3");
    is(&server, "/a", "HIT", "/a 3");
    is(&server, "/rare", "MISS", "/rare 1");
    is(&server, "/rare", "MISS", "/rare 2");
    is(&server, "/rare", "HIT", "/rare 2");
    is(&server, "/off", "", "/off 1");
    is(&server, "/off", "", "/off 2");
    is(&server, "/var?c=one", "MISS", "/var 1");
    is(&server, "/var?c=one", "HIT", "/var 1");
    is(&server, "/var", "", "/var 2");
    assert_eq!(server.get("/var?c=none").status, 500);
}

#[test]
fn requests_to_backends_are_for_the_whole() {
    let backend = counting();
    let server = server(
        &backend,
        "location / { proxy_pass http://127.0.0.1:B; }
         location /far { proxy_cache_max_range_offset 10; proxy_pass http://127.0.0.1:B; }
         location /head { proxy_cache_convert_head off; proxy_cache_key $request_method$uri; proxy_pass http://127.0.0.1:B; }",
    );
    let more = "Range: bytes=20-\r\nIf-Range: \"x\"\r\nIf-None-Match: \"x\"\r\nIf-Modified-Since: x\r\nX-Own: 1\r\n";
    server.get_with("/a", more);
    server.get_with("/far", more);
    for target in ["/b", "/head"] {
        server.connect().send(format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n")).head_response();
    }
    let requests = backend.requests();
    for name in ["Range", "If-Range", "If-None-Match", "If-Modified-Since"] {
        assert_eq!((requests[0].field(name), requests[1].field(name).is_some()), (None, true), "{name}");
    }
    assert_eq!(requests[0].field("X-Own"), Some("1"));
    assert!(requests[2].line().starts_with("GET /b ") && requests[3].line().starts_with("HEAD /head "));
}

/// The backend was asked for the whole, so nobody else looks at the client's conditions.
#[test]
fn conditions_and_ranges_of_what_is_not_stored() {
    let backend = counting();
    let server = server(
        &backend,
        "proxy_cache_valid 404 1m;
         location / { proxy_pass http://127.0.0.1:B; }
         location /no { proxy_no_cache 1; proxy_pass http://127.0.0.1:B; }
         location /unbuffered { proxy_buffering off; proxy_pass http://127.0.0.1:B; }",
    );
    for target in ["/a", "/no", "/unbuffered"] {
        let target = format!("{target}?ETag:\"x\"&Accept-Ranges:bytes");
        for (more, status) in [
            ("If-None-Match: \"x\"\r\n", 304),
            ("If-None-Match: \"y\"\r\n", 200),
            ("If-Match: \"y\"\r\n", 412),
            ("Range: bytes=0-0\r\n", 206),
        ] {
            assert_eq!(server.get_with(&target, more).status, status, "{target} {more}");
        }
    }
    let target = "/a?ETag:\"x\"&Accept-Ranges:bytes&Cache-Control:no-store";
    assert_eq!(server.get_with(target, "If-None-Match: \"x\"\r\n").status, 200, "the backend forbids to store it");
    assert_eq!(stored(&server), Vec::<PathBuf>::new());
}

#[test]
fn fields_of_stored_errors() {
    let backend = counting();
    let server = server(&backend, "proxy_cache_valid any 1m; location / { proxy_pass http://127.0.0.1:B; }");
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    for status in [201, 301, 404, 429] {
        let target = format!("/{status}?status:{status}&Last-Modified:{}&Content-Type:text/x", date.replace(' ', "+"));
        for expect in ["MISS", "HIT"] {
            let response = server.get(&target);
            assert_eq!((response.status, shown(&response).0.as_str()), (status, expect));
            assert_eq!(response.field("Last-Modified"), Some(date), "{status} {expect}");
            assert_eq!(response.field("Content-Type"), Some("text/x"), "{status} {expect}");
        }
    }
    let refused =
        server.get_with("/a?Accept-Ranges:bytes&Last-Modified:Sun,+06+Nov+1994+08:49:37+GMT", "Range: bytes=99-\r\n");
    assert_eq!((refused.status, refused.field("Last-Modified")), (416, None));
}

#[test]
fn the_method_is_the_clients() {
    let backend = counting();
    let server = server(&backend, "add_header X-Method $request_method; location / { proxy_pass http://127.0.0.1:B; }");
    for _ in 0..2 {
        let head = server.connect().send("HEAD /m HTTP/1.1\r\nHost: a\r\n\r\n").head_response();
        assert_eq!(head.field("X-Method"), Some("HEAD"));
    }
    assert!(backend.requests()[0].line().starts_with("GET /m "));
}

#[test]
fn large_bodies_in_parts() {
    let backend = Backend::start(|r| {
        let body: String = (0..200_000).map(|n| format!("{n:09} ")).collect();
        if r.line().contains("/chunks") {
            let mut out = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for part in body.as_bytes().chunks(7000) {
                out.extend(format!("{:x}\r\n", part.len()).bytes());
                out.extend(part);
                out.extend(b"\r\n");
            }
            out.extend(b"0\r\n\r\n");
            return out;
        }
        Backend::ok(&body)
    });
    let mut server = server(&backend, PLAIN);
    for target in ["/length", "/chunks"] {
        let first = server.get(target);
        server.wait(|server| ask(server, target).0 == "HIT", "the file");
        let second = server.get(target);
        assert_eq!(first.body.len(), 2_000_000);
        assert!(first.body == second.body, "{target}");
        assert!(target == "/chunks" || second.field("Content-Length") == Some("2000000"), "{target}");
        let part = server.get_with(target, "Range: bytes=1000000-1000009\r\n");
        assert!(part.status == 200 || part.text() == "000100000 ", "{target}");
    }
}

#[test]
fn variants() {
    let backend = counting();
    let server = server(&backend, PLAIN);
    let vary = "?Vary:X-A,+X-B";
    let get = |more: &str| shown(&server.get_with(&format!("/v{vary}"), more));
    for (more, status, body) in [
        ("X-A: 1\r\n", "MISS", "/v 1"),
        ("X-A: 1\r\n", "HIT", "/v 1"),
        ("X-A: 2\r\n", "MISS", "/v 2"),
        ("X-A: 1\r\nX-B: 3\r\n", "MISS", "/v 3"),
        ("X-A: 2\r\n", "HIT", "/v 2"),
        ("X-B: 3\r\nX-A:   1 \r\n", "HIT", "/v 3"),
        ("", "MISS", "/v 4"),
        ("X-A: 1\r\n", "HIT", "/v 1"),
    ] {
        assert_eq!(get(more), (status.to_owned(), body.to_owned()), "{more}");
    }
    assert_eq!(stored(&server).len(), 4);
}

/// Not in nginx: `proxy_cache_purge` removes every variant
#[test]
fn a_purge_reaches_every_variant() {
    let backend = counting();
    let server = server(&backend, "proxy_cache_purge $arg_purge; location / { proxy_pass http://127.0.0.1:B; }");
    let get = |more: &str| ask_with(&server, "/v?Vary:X-A", more);
    for (n, more) in ["X-A: 1\r\n", "X-A: 2\r\n"].into_iter().enumerate() {
        assert_eq!(get(more), ("MISS".to_owned(), format!("/v {}", n + 1)));
        assert_eq!(get(more), ("HIT".to_owned(), format!("/v {}", n + 1)));
    }
    assert_eq!(server.get("/v?purge=1").status, 204);
    assert_eq!(get("X-A: 2\r\n"), ("MISS".into(), "/v 3".into()));
    assert_eq!(get("X-A: 1\r\n"), ("MISS".into(), "/v 4".into()));
    assert_eq!(server.get("/none?purge=1").status, 404);
    // By wildcard.
    for target in ["/w/1", "/w/2", "/x/1"] {
        is(&server, target, "MISS", &format!("{target} 1"));
        is(&server, target, "HIT", &format!("{target} 1"));
    }
    assert_eq!(server.get("/w/*?purge=1").status, 204);
    is(&server, "/w/1", "MISS", "/w/1 2");
    is(&server, "/w/1", "HIT", "/w/1 2");
    is(&server, "/w/2", "MISS", "/w/2 2");
    is(&server, "/x/1", "HIT", "/x/1 1");
}

/// A response that is stored elsewhere than where it was looked for, since it varies otherwise than the one before, is news
/// for those who wait there; nobody waits for one who goes on to a variant.
///
/// Not in nginx: `proxy_cache_purge` removes every variant
#[test]
fn whoever_waits_for_any_variant_gets_the_one_that_comes() {
    let (first, second) = (channel::<()>(), channel::<()>());
    let gates = [Mutex::new(first.1), Mutex::new(second.1)];
    let backend = Backend::start(move |r| {
        if let Some(gate) = r.field("X-Wait") {
            let _ = gates[usize::from(gate != "1")].lock().unwrap().recv();
        }
        answer("/v", &format!("Vary:{}", r.field("X-Vary").unwrap_or_default()), r.field("X-Wait").map_or(0, |_| 1), r)
    });
    let mut server = server(
        &backend,
        "proxy_cache_lock on; proxy_cache_lock_timeout 60s; proxy_cache_lock_age 60s; proxy_cache_purge $arg_purge;
         location / { proxy_pass http://127.0.0.1:B; } location /status { stub_status; }",
    );
    let send = |server: &Server, more: &str| {
        let mut client = server.connect();
        client.send(format!("GET /v HTTP/1.1\r\nHost: a\r\n{more}\r\n"));
        client
    };
    assert_eq!(ask_with(&server, "/v", "X-Vary: X-A\r\nX-A: 1\r\n").0, "MISS");
    let mut fetches = send(&server, "X-Vary: X-B\r\nX-A: 2\r\nX-Wait: 1\r\n");
    server.wait(|_| backend.requests().len() == 2, "one that fetches a variant");
    assert_eq!(server.get("/v?purge=1").status, 204);
    let mut held = vec![send(&server, "X-Vary: X-B\r\nX-B: 0\r\nX-Wait: 2\r\n")];
    server.wait(|_| backend.requests().len() == 3, "one that fetches anything");
    held.extend((1..=20).map(|n| send(&server, &format!("X-Vary: X-B\r\nX-B: {n}\r\nX-Wait: 2\r\n"))));
    let mut waits = send(&server, "X-Wait: 2\r\n");
    // Two fetch, 21 wait, and one asks for this.
    server.wait(|server| server.get("/status").text().contains("Writing: 24 "), "those who wait");
    let begin = std::time::Instant::now();
    first.0.send(()).unwrap();
    assert_eq!(shown(&fetches.response()), ("MISS".into(), "/v 1".into()));
    assert_eq!(shown(&waits.response()), ("HIT".into(), "/v 1".into()));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    drop(second.0);
    for client in &mut held {
        assert_eq!(client.response().status, 200);
    }
}

fn ask_with(server: &Server, target: &str, more: &str) -> (String, String) {
    shown(&server.get_with(target, more))
}

/// A backend that answers when it is told to, each time with another number.
fn waiting() -> (Backend, std::sync::mpsc::Sender<()>) {
    let (go, wait) = channel::<()>();
    let wait = Arc::new(Mutex::new((wait, 0)));
    let backend = Backend::start(move |_| {
        let mut wait = wait.lock().unwrap();
        let _ = wait.0.recv_timeout(Duration::from_secs(10));
        wait.1 += 1;
        Backend::ok(&format!("answer {}", wait.1))
    });
    (backend, go)
}

#[test]
fn one_fetches_and_all_get_it() {
    let (backend, go) = waiting();
    let mut server = setup(
        &backend,
        "",
        "proxy_cache_lock on; proxy_cache_lock_timeout 20s; proxy_cache_lock_age 20s;
         location / { proxy_pass http://127.0.0.1:B; }",
    )
    .main("worker_processes 2;")
    .start();
    let mut clients: Vec<Connection> = (0..40).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    server.wait(|_| !backend.requests().is_empty(), "a request");
    // Had another one gone to the backend, it would be answered too.
    go.send(()).unwrap();
    go.send(()).unwrap();
    for client in &mut clients {
        assert_eq!(client.response().text(), "answer 1");
    }
    assert_eq!(backend.requests().len(), 1);
}

#[test]
fn a_wait_has_an_end() {
    let (backend, go) = waiting();
    let mut server = server(
        &backend,
        "proxy_cache_lock on; proxy_cache_lock_timeout 50ms; location / { proxy_pass http://127.0.0.1:B; }",
    );
    let mut first = server.connect();
    first.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait(|_| backend.requests().len() == 1, "the first request");
    let mut second = server.connect();
    second.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait(|_| backend.connections() == 2, "the second one");
    go.send(()).unwrap();
    go.send(()).unwrap();
    let texts = [first.response().text(), second.response().text()];
    assert!(texts.contains(&"answer 1".to_owned()) && texts.contains(&"answer 2".to_owned()), "{texts:?}");
}

#[test]
fn stale_responses() {
    let backend = counting();
    let server = server(
        &backend,
        "proxy_cache_use_stale http_503 error; proxy_ignore_headers Set-Cookie;
         location / { proxy_pass http://127.0.0.1:B; }
         location /dead { proxy_cache_key $arg_k; proxy_pass http://127.0.0.1:1; }
         location /live { proxy_cache_key $arg_k; proxy_pass http://127.0.0.1:B; }
         location /off { proxy_cache_use_stale http_503 off; proxy_pass http://127.0.0.1:B; }
         location /updating { proxy_cache_use_stale updating; proxy_cache_background_update on; proxy_pass http://127.0.0.1:B; }",
    );
    let old = "?X-Accel-Expires:@1";
    is(&server, &format!("/a{old}"), "MISS", "/a 1");
    is(&server, "/a?status:503", "STALE", "/a 1");
    is(&server, "/a?status:500", "EXPIRED", "/a 3");
    is(&server, "/live?X-Accel-Expires:@1&k=1", "MISS", "/live 1");
    is(&server, "/dead?k=1", "STALE", "/live 1");
    assert_eq!(server.get("/dead?k=2").status, 502);
    is(&server, &format!("/off{old}"), "MISS", "/off 1");
    is(&server, "/off?status:503", "EXPIRED", "/off 2");
    is(&server, &format!("/updating{old}"), "MISS", "/updating 1");
    is(&server, &format!("/updating{old}"), "STALE", "/updating 1");
}

#[test]
fn a_background_update() {
    let backend = counting();
    let mut server = server(
        &backend,
        "proxy_cache_background_update on; proxy_cache_use_stale updating; location / { proxy_pass http://127.0.0.1:B; }",
    );
    is(&server, "/a?X-Accel-Expires:@1", "MISS", "/a 1");
    is(&server, "/a", "STALE", "/a 1");
    server.wait(|server| ask(server, "/a") == ("HIT".to_owned(), "/a 2".to_owned()), "the update");
    // As the response allows it.
    is(&server, "/b?X-Accel-Expires:@1&Cache-Control:stale-while-revalidate=4000000000", "MISS", "/b 1");
    is(&server, "/b", "STALE", "/b 1");
    server.wait(|server| ask(server, "/b") == ("HIT".to_owned(), "/b 2".to_owned()), "the update");
}

/// Differs from nginx: so that a client can't begin as many as it likes
#[test]
fn background_updates_are_bounded() {
    let (go, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let backend = Backend::sockets(move |mut stream, _| {
        let mut request = [0; 4096];
        let length = stream.read(&mut request).unwrap_or(0);
        let old = request[..length].windows(4).any(|part| part == b"?old");
        if !old {
            let _ = gate.lock().unwrap().recv_timeout(Duration::from_secs(20));
        }
        let expires = if old { "X-Accel-Expires: @1\r\n" } else { "" };
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{expires}Content-Length: 2\r\n\r\nok").as_bytes());
    });
    let server = Setup::whole(&format!(
        "daemon off; pid nginx.pid; error_log error.log info; events {{ worker_connections 64; %%USE%% }} http {{
         access_log off; proxy_temp_path %%DIR%%/temp; proxy_cache_path %%DIR%%/cache/files keys_zone=one:1m;
         proxy_cache_valid 200 1m; proxy_cache_key $uri; proxy_cache one; proxy_cache_use_stale updating;
         proxy_cache_background_update on;
         server {{ listen 127.0.0.1:%%PORT%%; add_header X-S \"$upstream_cache_status\" always;
            location / {{ proxy_pass http://127.0.0.1:{}; }} }} }}",
        backend.port
    ))
    .public("cache")
    .public("temp")
    .start();
    let mut client = server.connect();
    for n in 0..17 {
        assert_eq!(shown(&client.get(&format!("/{n}?old"), "")).0, "MISS");
    }
    // A quarter of the connections is left to them.
    for n in 0..16 {
        assert_eq!(shown(&client.get(&format!("/{n}"), "")).0, "STALE", "{n}");
    }
    client.send("GET /16 HTTP/1.1\r\nHost: a\r\n\r\n");
    (0..17).for_each(|_| go.send(()).unwrap());
    assert_eq!(shown(&client.response()).0, "EXPIRED");
}

/// As the request that it repeats: with its body, and with GET for HEAD.
#[test]
fn a_background_update_asks_for_the_same() {
    let backend = Backend::start(|r| {
        let old = if r.line().contains("old") { "X-Accel-Expires: @1\r\n" } else { "" };
        let body = if r.line().starts_with("HEAD") {
            String::new()
        } else {
            format!("of {:?}", String::from_utf8_lossy(&r.body))
        };
        let length = if body.is_empty() { 9 } else { body.len() };
        format!("HTTP/1.1 200 OK\r\n{old}Content-Length: {length}\r\n\r\n{body}").into_bytes()
    });
    let mut server = server(
        &backend,
        "proxy_cache_background_update on; proxy_cache_use_stale updating; location / { proxy_pass http://127.0.0.1:B; }
         location /post { proxy_cache_methods POST; proxy_cache_key $uri$request_body; proxy_pass http://127.0.0.1:B; }",
    );
    is(&server, "/a?old", "MISS", "of \"\"");
    let head = server.connect().send("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n").head_response();
    assert_eq!(head.field("X-S"), Some("STALE"));
    server.wait(|server| ask(server, "/a") == ("HIT".to_owned(), "of \"\"".to_owned()), "the update");
    let post = |server: &Server, target: &str| {
        let text = format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
        shown(&server.connect().send(text).response())
    };
    let expect = |status: &str| (status.to_owned(), "of \"body\"".to_owned());
    assert_eq!(post(&server, "/post?old"), expect("MISS"));
    assert_eq!(post(&server, "/post"), expect("STALE"));
    server.wait(|server| post(server, "/post") == expect("HIT"), "the update");
}

/// What the cache has, and not what was there a while ago.
#[test]
fn open_file_cache_and_disable_symlinks_are_for_other_files() {
    let backend = counting();
    let text =
        "open_file_cache max=100; open_file_cache_errors on; disable_symlinks on; proxy_cache_bypass $http_x_fresh;
                proxy_cache_purge $purge; location / { proxy_pass http://127.0.0.1:B; } }
                map $request_method $purge { PURGE 1; default 0;";
    let setup = setup(&backend, "", text);
    let server = setup.start();
    let folder = server.folder().path();
    fs::rename(folder.join("cache"), folder.join("elsewhere")).expect("moved");
    std::os::unix::fs::symlink("elsewhere", folder.join("cache")).expect("linked");
    is(&server, "/a", "MISS", "/a 1");
    is(&server, "/a", "HIT", "/a 1");
    assert_eq!(ask_with(&server, "/a", "X-Fresh: 1\r\n"), ("BYPASS".to_owned(), "/a 2".to_owned()));
    is(&server, "/a", "HIT", "/a 2");
    assert_eq!(server.connect().send("PURGE /a HTTP/1.1\r\nHost: a\r\n\r\n").response().status, 204);
    is(&server, "/a", "MISS", "/a 3");
    is(&server, "/a", "HIT", "/a 3");
    assert!(!server.read("error.log").contains("[crit]"));
}

/// A tunnel stores nothing: others are served meanwhile.
#[test]
fn a_tunnel_holds_no_lock() {
    let backend = Backend::start(|r| match r.field("Upgrade") {
        Some(_) => b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_vec(),
        None => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
    });
    let server = server(
        &backend,
        "proxy_cache_lock on; proxy_cache_lock_timeout 60s; proxy_cache_lock_age 60s;
         location / { proxy_pass http://127.0.0.1:B; proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection; }",
    );
    let mut tunnel = server.connect();
    tunnel.send("GET /a HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
    assert_eq!(tunnel.head_response().status, 101);
    is(&server, "/a", "MISS", "ok");
}

/// The next one fetches it; the others go on waiting, and all are answered.
#[test]
fn what_is_not_stored_is_fetched_by_one_after_the_other() {
    let (backend, go) = waiting();
    let mut server = server(
        &backend,
        "proxy_cache_lock on; proxy_cache_lock_timeout 60s; proxy_no_cache 1; location / { proxy_pass http://127.0.0.1:B; }",
    );
    let clients: Vec<_> = (0..5)
        .map(|_| {
            let mut client = server.connect();
            client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
            client
        })
        .collect();
    let begun = Instant::now();
    for n in 1..=5 {
        server.wait(|_| backend.connections() == n, "the next one");
        go.send(()).unwrap();
    }
    // Nobody has waited for its turn to look from time to time.
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    let mut texts: Vec<String> = clients.into_iter().map(|mut client| client.response().text()).collect();
    texts.sort();
    assert_eq!(texts, ["answer 1", "answer 2", "answer 3", "answer 4", "answer 5"]);
}

/// A server that updates its cache in the background from a backend, which answers requests with `X-Wait` when it is told.
fn updating() -> (Sender<()>, Backend, Server) {
    let (go, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let backend = Backend::start(move |r| {
        if r.field("X-Wait").is_some() {
            gate.lock().unwrap().recv().unwrap();
        }
        answer("/a", if r.field("X-Old").is_some() { "X-Accel-Expires:@1" } else { "" }, 1, r)
    });
    let server = server(
        &backend,
        "proxy_cache_background_update on; proxy_cache_use_stale updating; location / { proxy_pass http://127.0.0.1:B; }",
    );
    assert_eq!(ask_with(&server, "/a", "X-Old: 1\r\n").0, "MISS");
    (go, backend, server)
}

/// Whoever asks once its connection is closed finds what it has begun.
#[test]
fn a_connection_is_closed_after_the_background_update() {
    let (go, _backend, server) = updating();
    let mut closing = server.connect();
    closing.send("GET /a HTTP/1.1\r\nHost: a\r\nX-Wait: 1\r\nConnection: close\r\n\r\n");
    assert_eq!(shown(&closing.response()).0, "STALE", "it doesn't wait");
    assert_eq!(ask(&server, "/a").0, "UPDATING");
    assert!(!closing.closed_soon());
    go.send(()).unwrap();
    assert!(closing.closed());
    assert_eq!(ask(&server, "/a").0, "HIT");
}

/// Differs from nginx: only one that is to be closed: it is closed then
#[test]
fn a_kept_connection_does_not_wait_for_the_background_update() {
    let (go, _backend, server) = updating();
    let mut kept = server.connect();
    assert_eq!(shown(&kept.get("/a", "X-Wait: 1\r\n")).0, "STALE");
    assert_eq!(shown(&kept.get("/a", "")).0, "UPDATING");
    go.send(()).unwrap();
}

#[test]
fn unchanged_responses_are_fresh_again() {
    let backend = counting();
    let server = server(&backend, "proxy_cache_revalidate on; location / { proxy_pass http://127.0.0.1:B; }");
    let old = "&X-Accel-Expires:@1";
    is(&server, &format!("/a?ETag:\"same\"{old}"), "MISS", "/a 1");
    is(&server, "/a?X-Accel-Expires:60", "REVALIDATED", "/a 1");
    is(&server, "/a", "HIT", "/a 1");
    is(&server, &format!("/b?ETag:\"other\"{old}"), "MISS", "/b 1");
    is(&server, "/b?ETag:\"same\"", "EXPIRED", "/b 2");
    let sent: Vec<_> = backend.requests().iter().map(|r| r.field("If-None-Match").map(str::to_owned)).collect();
    let some = |tag: &str| Some(format!("\"{tag}\""));
    assert_eq!(sent, [None, some("same"), None, some("other")]);
}

#[test]
fn sessions_are_bound_by_servers_and_not_by_what_is_stored() {
    let backend = counting();
    // The group stands after the server.
    let server = server(
        &backend,
        "proxy_cache_revalidate on; proxy_cache_use_stale http_503; location / { proxy_pass http://bound; } }
         upstream bound { server 127.0.0.1:B; sticky cookie session;",
    );
    let get = |target: &str| {
        let response = server.get(target);
        let bound = response.all("Set-Cookie").iter().any(|cookie| cookie.starts_with("session="));
        (shown(&response).0, bound)
    };
    for (target, status, bound) in [
        ("/a?ETag:\"same\"&X-Accel-Expires:@1", "MISS", true),
        ("/a?status:503", "STALE", true),
        ("/a?X-Accel-Expires:60", "REVALIDATED", true),
        ("/a", "HIT", false),
    ] {
        assert_eq!(get(target), (status.to_owned(), bound), "{target}");
    }
}

/// Its place is taken by what is fetched.
#[test]
fn a_file_that_cannot_be_opened_is_fetched_anew() {
    let backend = counting();
    let server = server(&backend, PLAIN);
    is(&server, "/a", "MISS", "/a 1");
    fs::set_permissions(stored(&server).remove(0), fs::Permissions::from_mode(0o000)).expect("changed");
    is(&server, "/a", "MISS", "/a 2");
    assert!(server.read("error.log").contains("Permission denied"));
    is(&server, "/a", "HIT", "/a 2");
}

/// Fields that a 304 brings and that don't fit before the body: a short file is written anew, a long one keeps the old ones.
#[test]
fn fields_of_a_304_that_need_more_room() {
    let backend = Backend::start(|r| {
        if r.field("If-None-Match").is_some() {
            let long = "x".repeat(6000);
            return format!("HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\nX-Long: {long}\r\n\r\n")
                .into_bytes();
        }
        let body = "b".repeat(if r.line().contains("/long") { 2 << 20 } else { 1000 });
        let head = "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nCache-Control: max-age=0\r\nX-Long: old\r\n";
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    });
    let server = server(
        &backend,
        "proxy_buffer_size 16k; proxy_buffers 8 16k; proxy_cache_rfc on; location / { proxy_pass http://127.0.0.1:B; }",
    );
    for (target, length, field) in [("/short", 1000, 6000), ("/long", 2 << 20, 3)] {
        assert_eq!(server.get(target).field("X-S"), Some("MISS"));
        for status in ["REVALIDATED", "HIT", "HIT"] {
            let response = server.get(target);
            let found = (response.field("X-S").unwrap_or_default(), response.field("X-Long").map_or(0, str::len));
            assert_eq!(found, (status, field), "{target}");
            assert!(response.body.len() == length && response.body.iter().all(|byte| *byte == b'b'), "{target}");
        }
    }
    assert_eq!(stored(&server).len(), 2, "nothing else is left");
}

/// Differs from nginx: a stored response whose file is damaged is fetched anew
#[test]
fn a_damaged_file_is_fetched_anew() {
    let backend = counting();
    let mut server = server(&backend, PLAIN);
    let mut expect = 1;
    is(&server, "/a", "MISS", "/a 1");
    let path = stored(&server).remove(0);
    let whole = fs::read(&path).unwrap();
    let damages: [fn(&mut Vec<u8>); 5] = [
        |bytes| bytes[20] ^= 1,
        |bytes| bytes[140] ^= 1,
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| bytes.clear(),
        |bytes| bytes.push(b'x'),
    ];
    for (n, damage) in damages.into_iter().enumerate() {
        let mut bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), whole.len());
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        expect += 1;
        is(&server, "/a", "MISS", &format!("/a {expect}"));
        is(&server, "/a", "HIT", &format!("/a {expect}"));
        assert!(server.read("error.log").matches("is damaged, it is removed").count() > n);
    }
    fs::remove_file(&path).unwrap();
    is(&server, "/a", "MISS", &format!("/a {}", expect + 1));
    // Another response's file.
    is(&server, "/b", "MISS", "/b 1");
    let other = stored(&server).into_iter().find(|other| *other != path).unwrap();
    fs::copy(&path, &other).unwrap();
    is(&server, "/b", "MISS", "/b 2");
    server.quiet();
}

#[test]
fn clients_that_leave_end_nothing() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::sockets(move |mut stream: TcpStream, _| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
        let _ = stream.write_all(&[b'x'; 50_000]);
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(10));
        let _ = stream.write_all(&[b'x'; 50_000]);
    });
    let mut server = server(&backend, PLAIN);
    let mut client = server.connect();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    client.take(1000);
    drop(client);
    assert!(stored(&server).is_empty(), "it isn't whole");
    go.send(()).unwrap();
    server.wait(|server| !stored(server).is_empty(), "the file");
    let response = server.get("/a");
    assert_eq!((shown(&response).0, response.body.len()), ("HIT".into(), 100_000));
}

#[test]
fn a_response_that_breaks_off_is_not_stored() {
    let backend = Backend::start(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhalf".to_vec());
    let mut server = server(&backend, PLAIN);
    for _ in 0..2 {
        let mut client = server.connect();
        client.send("GET /a HTTP/1.0\r\n\r\n");
        assert!(client.rest().ends_with(b"half"));
    }
    server.wait(|server| files(&server.folder().path().join("temp")).is_empty(), "no temporary file");
    assert!(stored(&server).is_empty());
    assert_eq!(backend.requests().len(), 2);
    server.quiet();
}

/// What a failed condition replaces says nothing of the answer.
#[test]
fn a_failed_condition_takes_the_fields_with_it() {
    let backend = counting();
    let server = server(
        &backend,
        "location / { proxy_pass http://127.0.0.1:B; }
         location /page { proxy_pass http://127.0.0.1:B; error_page 412 /e; }
         location = /e { return 200 page; }",
    );
    let fields = "ETag:\"x\"&Cache-Control:max-age=60&Expires:never&Content-Disposition:attachment&X-Own:1";
    for path in ["/stored", "/page"] {
        let target = format!("{path}?{fields}");
        assert_eq!(server.get(&target).field("X-Own"), Some("1"));
        let failed = server.get_with(&target, "If-Match: \"y\"\r\n");
        assert_eq!((failed.status, failed.text() == "page"), (412, path == "/page"), "{path}");
        for name in ["ETag", "Cache-Control", "Expires", "Content-Disposition", "X-Own"] {
            assert_eq!(failed.field(name), None, "{path}");
        }
    }
}

#[test]
fn errors_are_remembered() {
    let backend = counting();
    let server = server(
        &backend,
        "proxy_cache_valid 404 502 1m; proxy_intercept_errors on; error_page 404 = @page;
         location / { proxy_pass http://127.0.0.1:B; }
         location /dead { proxy_pass http://127.0.0.1:1; }
         location @page { return 403; }",
    );
    for _ in 0..2 {
        assert_eq!(server.get("/a?status:404").status, 403);
    }
    assert_eq!(backend.requests().len(), 1);
    assert_eq!(ask(&server, "/dead").0, "MISS");
    assert_eq!(ask(&server, "/dead").0, "HIT");
}

/// A backend that has slices of this.
fn sliced(whole: Vec<u8>) -> Backend {
    Backend::start(move |r| {
        let range = r.field("Range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let Some((start, last)) = range else { return Backend::ok("whole") };
        let (start, last): (usize, usize) = (start.parse().unwrap(), last.parse().unwrap());
        let last = last.min(whole.len() - 1);
        let tag =
            if r.line().contains("changing") { format!("ETag: \"{start}\"\r\n") } else { "ETag: \"e\"\r\n".into() };
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\n{tag}Content-Range: bytes {start}-{last}/{}\r\nContent-Length: {}\r\n\r\n",
            whole.len(),
            last + 1 - start
        );
        [head.as_bytes(), &whole[start..=last]].concat()
    })
}

#[test]
fn slices() {
    let backend = sliced(b"0123456789abcdef".to_vec());
    let server = server(
        &backend,
        "slice 3; proxy_cache_key $uri$slice_range; proxy_cache_valid 200 206 1m; proxy_set_header Range $slice_range;
         location / { proxy_pass http://127.0.0.1:B; }",
    );
    let asked =
        || backend.requests().iter().map(|r| r.field("Range").unwrap_or_default().to_owned()).collect::<Vec<_>>();
    let get = |target: &str, range: &str| {
        let response = server.get_with(target, &format!("Range: bytes={range}\r\n"));
        (response.status, response.text())
    };
    assert_eq!(get("/a", "4-7"), (206, "4567".to_owned()));
    assert_eq!(asked(), ["bytes=3-5", "bytes=6-8"]);
    assert_eq!(get("/a", "-2"), (206, "ef".to_owned()));
    assert_eq!(get("/a", "1-1,3-3"), (200, "0123456789abcdef".to_owned()));
    assert_eq!(server.get("/a").text(), "0123456789abcdef");
    assert_eq!(asked().len(), 6, "{:?}", asked());
    assert_eq!(get("/a", "16-").0, 416);
    assert_eq!(server.get_with("/a", "If-None-Match: \"e\"\r\n").status, 304);
    let changed = server.connect().send("GET /changing HTTP/1.1\r\nHost: a\r\n\r\n").rest();
    assert!(!String::from_utf8_lossy(&changed).contains("012345"), "slices of different files don't make a whole");
}

/// Stored slices never wait; they are read as the client takes them.
#[test]
fn stored_slices_go_out_one_by_one() {
    const SIZE: usize = 100 << 10;
    const COUNT: usize = 300;
    let whole: Vec<u8> = (0..SIZE * COUNT).map(|at| (at / 1000) as u8).collect();
    let backend = sliced(whole.clone());
    let mut server = server(
        &backend,
        "slice 100k; proxy_cache_key $uri$slice_range; proxy_cache_valid 200 206 1m; proxy_set_header Range $slice_range;
         log_subrequest on; access_log %%DIR%%/slices.log;
         location / { proxy_pass http://127.0.0.1:B; }",
    );
    let fetched = |server: &Server| server.read("slices.log").lines().count();
    assert!(server.get("/a").body == whole, "the slices in their order");
    server.wait(|server| fetched(server) == COUNT, "all slices are stored");
    let mut client = server.connect();
    let begun = client.send("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").take(3 * SIZE);
    let held = fetched(&server) - COUNT;
    assert!(held < COUNT / 2, "{held} slices were taken for a client that has read three");
    assert!([begun, client.rest()].concat().ends_with(&whole), "the slices in their order");
}

#[test]
fn a_backends_content_range_says_nothing_of_ours() {
    let backend = counting();
    let server = server(&backend, PLAIN);
    let get =
        |range: &str| server.get_with("/a?Content-Range:odd&Accept-Ranges:bytes", &format!("Range: bytes={range}\r\n"));
    for (range, status, expect) in [
        ("0-1", 206, vec!["bytes 0-1/4"]),
        ("0-0,2-2", 206, vec![]),
        ("9-", 416, vec!["bytes */4"]),
        ("0-1", 206, vec!["bytes 0-1/4"]),
    ] {
        let response = get(range);
        assert_eq!((response.status, response.all("Content-Range")), (status, expect), "{range}");
    }
}

/// Not in nginx: `proxy_cache_rfc on` gives
#[test]
fn the_standard() {
    let backend = counting();
    let server = server(
        &backend,
        "proxy_cache_rfc on; proxy_cache_valid 0s; proxy_cache_use_stale http_503 error;
         location / { proxy_pass http://127.0.0.1:B; }
         location /near { proxy_cache_key $request_uri; proxy_cache_valid 1h; proxy_pass http://127.0.0.1:B; }",
    );
    let get = |target: &str, more: &str| server.get_with(target, more);
    // The age is counted, and sent.
    let target = "/age?Cache-Control:max-age=60&Age:20";
    get(target, "");
    let hit = get(target, "");
    assert_eq!(shown(&hit).0, "HIT");
    let age: u32 = hit.field("Age").unwrap().parse().unwrap();
    assert!((20..30).contains(&age), "{age}");
    assert_eq!(ask(&server, "/old?Cache-Control:max-age=60&Age:61").0, "MISS");
    assert_eq!(ask(&server, "/old?Cache-Control:max-age=60&Age:61").0, "EXPIRED", "it was stale when it came");
    // What has to be validated is stored, and validated each time.
    let target = "/validate?Cache-Control:no-cache&ETag:\"same\"&X:1";
    assert_eq!(ask(&server, target), ("MISS".into(), "/validate 1".into()));
    let validated = get(&target.replace("X:1", "X:2"), "");
    assert_eq!((shown(&validated), validated.field("X")), (("REVALIDATED".into(), "/validate 1".into()), Some("2")));
    let served = get("/validate?status:503", "");
    assert_eq!((served.status, shown(&served).0), (503, "EXPIRED".into()), "it must not be served stale");
    // Requests have a say.
    let target = "/say?Cache-Control:max-age=60";
    get(target, "");
    assert_eq!(shown(&get(target, "Cache-Control: no-cache\r\n")).0, "BYPASS");
    assert_eq!(shown(&get(target, "Cache-Control: max-age=50\r\n")).0, "HIT");
    assert_eq!(get("/nowhere", "Cache-Control: only-if-cached\r\n").status, 504);
    // An unsafe method removes what is stored.
    assert_eq!(ask(&server, target).0, "HIT");
    let post = |target: &str| {
        server.connect().send(format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")).response()
    };
    post("/say?status:500");
    assert_eq!(ask(&server, target).0, "HIT", "it has failed");
    post("/say");
    assert_eq!(ask(&server, target).0, "MISS");
    // And what its answer names, if that is of the same origin.
    for (reference, expect) in [("/near/1", "MISS"), ("http://a/near/1", "MISS"), ("http://b/near/1", "HIT")] {
        for field in ["Location", "Content-Location"] {
            ask(&server, "/near/1");
            assert_eq!(ask(&server, "/near/1").0, "HIT", "{reference}");
            post(&format!("/near/2?{field}:{reference}"));
            assert_eq!(ask(&server, "/near/1").0, expect, "{field}: {reference}");
        }
    }
    // Credentials.
    let target = "/auth?Cache-Control:max-age=60";
    for expect in ["MISS", "MISS"] {
        assert_eq!(shown(&get(target, "Authorization: Basic eDp5\r\n")).0, expect);
    }
}

/// Not in nginx: `proxy_cache_status name` adds
#[test]
fn fields_about_the_cache() {
    let backend = counting();
    let server = server(
        &backend,
        "proxy_cache_rfc on; proxy_cache_valid 0s; proxy_cache_status here; proxy_cache_targeted CDN-Cache-Control;
         location / { proxy_cache_bypass $arg_bypass; proxy_pass http://127.0.0.1:B; }",
    );
    let status = |target: &str| server.get(target).field("Cache-Status").unwrap_or_default().to_owned();
    let target = "/a?CDN-Cache-Control:max-age=60&Cache-Control:no-store";
    assert_eq!(status(target), "here; fwd=uri-miss; fwd-status=200; stored");
    let hit = status(target);
    let ttl: u32 = hit.strip_prefix("here; hit; ttl=").expect("a hit").parse().unwrap();
    assert!((50..=60).contains(&ttl));
    assert_eq!(status("/a?bypass=1&Cache-Control:no-store"), "here; fwd=bypass; fwd-status=200");
    let lines = server.get("/b?Cache-Status:origin;+hit").all("Cache-Status").join("|");
    assert_eq!(lines, "origin; hit|here; fwd=uri-miss; fwd-status=200");
}

#[test]
fn mistakes() {
    for (text, expect) in [
        ("proxy_cache_path x keys_zone=a;", "invalid keys zone size \"keys_zone=a\""),
        ("proxy_cache_path x levels=3 keys_zone=a:1m;", "invalid \"levels\" \"levels=3\""),
        ("proxy_cache_path x inactive=1m;", "\"proxy_cache_path\" must have \"keys_zone\" parameter"),
        ("proxy_cache_path x keys_zone=a:4k;", "keys zone \"keys_zone=a:4k\" is too small"),
        ("proxy_cache_path x keys_zone=a:1m; proxy_cache_path y keys_zone=a:1m;", "duplicate zone \"a\""),
        ("proxy_cache_path x keys_zone=a:1m; proxy_cache_path x keys_zone=b:1m;", "the same path name \""),
        ("proxy_cache_valid 99 1m;", "invalid status \"99\""),
        ("proxy_cache_valid x;", "invalid time value \"x\""),
        ("fastcgi_cache_use_stale http_502;", "invalid value \"http_502\""),
        (
            "proxy_cache_path x keys_zone=a:1m; proxy_cache a; proxy_store on;
          server { location / { proxy_pass http://127.0.0.1:1; } }",
            "is incompatible with",
        ),
        (
            "server { location / { proxy_cache none; proxy_pass http://127.0.0.1:1; } }",
            "\"proxy_cache\" zone \"none\" is unknown",
        ),
        (
            "proxy_cache_path x keys_zone=a:1m;
          server { location / { fastcgi_cache a; fastcgi_pass 127.0.0.1:1; } }",
            "is already declared for a different use",
        ),
    ] {
        let server = Setup::http(text).prepare();
        let output = server.command(&["-t"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expect), "{text}: {said}");
    }
}
