//! Subrequests and the pipeline of bodies, by `test_include` and `test_capitals`: directives of the program with the
//! feature `test-hooks`.

use std::sync::Barrier;

use e2e::hooks::program;
use e2e::{Backend, Server, Setup};
use rustix::process::Signal;

fn start(setup: Setup) -> Server {
    setup.program(program()).start()
}

/// Not in nginx: directives of the test build
#[test]
fn two_subrequests_run_side_by_side() {
    // Each answer waits until both requests are there: one after the other, they would wait for ever.
    let both = Barrier::new(2);
    let backend = Backend::start(move |request| {
        both.wait();
        Backend::ok(&format!("<{}>", request.line()))
    });
    let mut server = start(Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%;
           location / {{ return 200 main; test_include /one /two; }}
           location /one {{ proxy_pass http://127.0.0.1:{0}; }}
           location /two {{ proxy_pass http://127.0.0.1:{0}; }} }}",
        backend.port
    )));
    let mut client = server.connect();
    for _ in 0..2 {
        let response = client.get("/", "");
        assert_eq!(response.text(), "main<GET /one HTTP/1.1><GET /two HTTP/1.1>", "in their order");
        assert_eq!((response.status, response.field("Content-Length")), (200, None));
    }
    assert_eq!(server.raw("GET / HTTP/1.0\r\n\r\n").text(), "main<GET /one HTTP/1.1><GET /two HTTP/1.1>");
    server.quiet();
}

/// Not in nginx: directives of the test build
#[test]
fn they_go_through_phases_and_filters() {
    let http = "log_format own '$uri $status';
       server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; access_log %%DIR%%/own.log own; set $seen none;
         gzip on; gzip_types *; gzip_min_length 1; add_header X-Main yes;
         location = / { test_include /inner/file.txt /inner/none /private; return 200 \"main \"; }
         location /inner/ { deny all; log_subrequest on; test_include /leaf; error_page 404 /missing; }
         location = /leaf { internal; set $seen \"leaf of $request_method $http_host\"; return 200 \"[$seen]\"; }
         location = /missing { return 200 \"(missing)\"; }
         location = /private { internal; return 204; } }";
    let mut server = start(Setup::http(http).file("inner/file.txt", "a file "));
    let response = server.get("/");
    assert_eq!(response.text(), "main a file [leaf of GET localhost](missing)");
    assert_eq!(response.all("X-Main"), ["yes"], "fields of subrequests aren't the response's");
    let packed = server.get_with("/", "Accept-Encoding: gzip\r\n");
    assert_eq!(packed.field("Content-Encoding"), Some("gzip"));
    assert!(packed.body.starts_with(&[0x1f, 0x8b]), "the whole of it");
    let log = server.read_until("own.log", "/ 200");
    let own: Vec<&str> = log.lines().take(2).collect();
    assert_eq!(own, ["/inner/file.txt 200", "/ 200"], "where log_subrequest is on");
    assert_eq!(log.matches("/leaf").count() + log.matches("/missing").count(), 0, "{log}");
}

/// Not in nginx: directives of the test build
#[test]
fn their_heads_are_known_to_who_asks() {
    let backend = Backend::start(|_| {
        b"HTTP/1.1 200 OK\r\nX-Own: 1\r\nLocation: /theirs\r\nETag: \"tag\"\r\nServer: backend\r\n\
          Content-Type: text/plain; charset=utf-8\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
          Content-Length: 3\r\n\r\nyes"
            .to_vec()
    });
    let server = start(Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; add_header X-Added yes;
           location = / {{ return 200 main; test_include /moved /backend /text; test_include_heads on; }}
           location = /moved {{ rewrite ^ /here permanent; }}
           location = /backend {{ proxy_pass http://127.0.0.1:{}; proxy_redirect off; }}
           location = /text {{ return 200 x; }} }}",
        backend.port
    )));
    let response = server.get("/");
    let text = response.text();
    let (moved, rest) = text.split_once("</html>\r\n").expect("a page");
    assert!(moved.starts_with("mainContent-Type: text/html\nContent-Length: "), "{moved}");
    assert!(moved.contains("\nLocation: /here\n<html>"), "{moved}");
    assert_eq!(
        rest,
        "Content-Type: text/plain; charset=utf-8\nContent-Length: 3\n\
         Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\nETag: \"tag\"\nX-Own: 1\nLocation: /theirs\n\
         yesContent-Type: text/plain\nContent-Length: 1\nx"
    );
}

/// Not in nginx: directives of the test build
#[test]
fn what_one_stores_the_others_leave() {
    let mut server = start(Setup::http(
        "log_format own '$first $second $request_id';
         server { listen 127.0.0.1:%%PORT%%;
           location = / { set $first none; set $second none; access_log %%DIR%%/own.log own; test_include /first /second; return 200 main; }
           location /first { set $first 1; return 200 \" $request_id\"; }
           location /second { set $second 2; return 200 \" $request_id\"; } }",
    ));
    let text = server.get("/").text();
    let [main, id, same] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert_eq!((main, id), ("main", same), "they have one identifier");
    server.read_until("own.log", &format!("1 2 {id}\n"));
}

/// Not in nginx: directives of the test build
#[test]
fn they_are_bounded() {
    let mut server =
        start(Setup::http("server { listen 127.0.0.1:%%PORT%%; location / { return 200 x; test_include /again; } }"));
    let response = server.get("/");
    assert_eq!((response.status, response.text().matches('x').count()), (200, 52), "51 in one another");
    server.wait(|s| s.read("error.log").contains("subrequests cycle while processing \"/again\""), "the log says so");
    let line = server.read("error.log");
    assert!(line.contains("request: \"GET / HTTP/1.1\", subrequest: \"/again\", host: "), "{line}");
}

/// Not in nginx: directives of the test build
#[test]
fn what_breaks_off_ends_the_response() {
    let backend =
        Backend::start(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\ncut".to_vec());
    let mut server = start(Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%;
           location / {{ return 200 main; test_include /cut; }}
           location /cut {{ proxy_pass http://127.0.0.1:{}; }} location /status {{ stub_status; }} }}",
        backend.port
    )));
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let all = String::from_utf8_lossy(&client.rest()).into_owned();
    assert!(all.ends_with("4\r\nmain\r\n3\r\ncut\r\n"), "{all}");
    server.wait(|s| s.read("error.log").contains("subrequest: \"/cut\", upstream: "), "the log names the subrequest");
    // A client that leaves while a subrequest waits takes it along.
    let mut leaving = server.connect();
    leaving.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    drop(leaving);
    server.wait(|s| s.get("/status").text().starts_with("Active connections: 1 \n"), "no connection is left");
}

/// Not in nginx: directives of the test build
#[test]
fn one_goes_on_without_its_parent() {
    // The backend answers when it is told to: after the client has its response, and the worker has been told to quit.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let backend = Backend::start(move |_| {
        wait.lock().expect("no test thread panics here").recv().expect("it is told to go on");
        Backend::ok("late")
    });
    let mut server = start(
        Setup::http(&format!(
            "server {{ listen 127.0.0.1:%%PORT%%;
           root %%DIR%%; location / {{ test_mirror /mirror; }}
           location /mirror {{ log_subrequest on; access_log %%DIR%%/own.log; proxy_pass http://127.0.0.1:{}; }} }}",
            backend.port
        ))
        .file("page.txt", "main")
        .main("error_log error.log notice;"),
    );
    assert_eq!(server.get("/page.txt").text(), "main");
    server.wait(|_| backend.requests().len() == 1, "the backend is asked");
    server.signal(Signal::QUIT);
    server.wait(|s| s.read("error.log").contains("gracefully shutting down"), "the worker is told to quit");
    go.send(()).expect("the backend waits");
    assert!(server.wait_end().success());
    assert!(server.read("own.log").contains(" 200 "), "it came to its end");
}

/// Not in nginx: directives of the test build
#[test]
fn filters_of_request_bodies() {
    let backend = Backend::start(|request| Backend::ok(&String::from_utf8_lossy(&request.body)));
    let server = start(Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; 
           location / {{ test_capitals on; proxy_pass http://127.0.0.1:{0}; }}
           location /flow {{ test_capitals on; proxy_http_version 1.1; proxy_request_buffering off; proxy_pass http://127.0.0.1:{0}; }} }}",
        backend.port
    )));
    let mut client = server.connect();
    let posts = |target: &str| {
        [
            format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"),
            format!(
                "POST {target} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
            ),
        ]
    };
    for post in posts("/") {
        client.send(post);
        assert_eq!(client.response().text(), "HELLO");
    }
    for post in posts("/flow") {
        client.send(post);
        assert!(client.response().text().contains("HEL"), "as it came, in chunks");
    }
    let lengths = backend.requests().into_iter().filter(|request| request.field("Content-Length") == Some("5"));
    assert!(lengths.count() >= 2, "a body that was read whole has a length");
}
