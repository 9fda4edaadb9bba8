//! `auth_request`: who decides, what becomes of the decision, and what it costs backends.

use std::io::{Read, Write};
use std::sync::{Mutex, mpsc};

use e2e::{Backend, Setup};

#[test]
fn the_status_decides() {
    let mut server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%;
           location / { auth_request /auth; }
           location = /auth { internal; return 204; }
           location /codes/200 { auth_request /200; } location /200 { return 200; }
           location /codes/201 { auth_request /201; } location /201 { return 201; }
           location /codes/302 { auth_request /302; } location /302 { return 302 /; }
           location /codes/401 { auth_request /401; error_page 401 /page; } location /401 { return 401; }
           location /codes/403 { auth_request /403; } location /403 { return 403; }
           location /codes/404 { auth_request /404; } location /404 { return 404; }
           location /codes/444 { auth_request /444; } location /444 { return 444; }
           location /codes/503 { auth_request /503; } location /503 { return 503; }
           location /off/ { auth_request off; return 200 open; }
           location /page { return 200 page; } }",
    )
    .file("file.txt", "secret")
    .file("codes/200", "yes")
    .file("codes/201", "yes")
    .start();
    for (target, status, text) in [
        ("/file.txt", 200, "secret"),
        ("/codes/200", 200, "yes"),
        ("/codes/201", 200, "yes"),
        ("/codes/302", 500, ""),
        ("/codes/401", 401, "page"),
        ("/codes/403", 403, ""),
        ("/codes/404", 500, ""),
        ("/codes/503", 500, ""),
        ("/off/", 200, "open"),
        ("/auth", 404, ""),
    ] {
        let response = server.get(target);
        let seen = response.text();
        assert_eq!((response.status, text.is_empty() || seen == text), (status, true), "{target}: {seen}");
        let mut client = server.connect();
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(client.head_response().status, status, "HEAD {target}");
    }
    let mut client = server.connect();
    client.send("GET /codes/444 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.rest(), b"", "the connection is closed without a response");
    let log = server.read_until("error.log", "auth request unexpected status: 503");
    for status in [302, 404] {
        assert!(log.contains(&format!("auth request unexpected status: {status}")), "{log}");
    }
}

#[test]
fn variables_are_those_of_the_subrequest() {
    let backend = Backend::start(|request| match request.line() {
        line if line.contains("/no") => b"HTTP/1.1 401 No\r\nX-User: nobody\r\nWWW-Authenticate: A\r\n\
            WWW-Authenticate: B\r\nX-Other: 1\r\nContent-Length: 0\r\n\r\n"
            .to_vec(),
        line if line.contains("/yes") => b"HTTP/1.1 200 OK\r\nX-User: me\r\nContent-Length: 3\r\n\r\nabc".to_vec(),
        line => Backend::ok(line),
    });
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%;
           location / {{ auth_request /yes; auth_request_set $user $upstream_http_x_user; auth_request_set $at $uri;
             add_header X-Seen \"$user $at $uri\"; proxy_pass http://127.0.0.1:{0}; }}
           location /args {{ auth_request /yes; auth_request_set $args set=$upstream_status; proxy_pass http://127.0.0.1:{0}/to; }}
           location /denied {{ auth_request /no; auth_request_set $user $upstream_http_x_user; add_header X-Seen $user always; }}
           location /login {{ auth_request /no; auth_request_set $user $upstream_http_x_user; error_page 401 = @login; }}
           location @login {{ return 200 \"who is $user?\"; }}
           location /yes {{ internal; set $own child; proxy_pass http://127.0.0.1:{0}; }}
           location /own {{ set $own parent; auth_request /yes; add_header X-Seen $own; proxy_pass http://127.0.0.1:{0}; }}
           location /no {{ internal; proxy_pass http://127.0.0.1:{0}; }} }}",
        backend.port
    ))
    .start();
    assert_eq!(server.get("/page").field("X-Seen"), Some("me /yes /page"));
    let args = server.get("/args?a=1");
    assert_eq!(args.text(), "GET /to?set=200 HTTP/1.1", "a variable that acts on the request");
    let denied = server.get("/denied");
    assert_eq!((denied.status, denied.field("X-Seen")), (401, Some("nobody")));
    assert_eq!(
        (denied.all("WWW-Authenticate"), denied.field("X-Other")),
        (vec!["A", "B"], None),
        "the challenge alone"
    );
    assert_eq!(server.get("/login").text(), "who is nobody?");
    assert_eq!(server.get("/own").field("X-Seen"), Some("child"), "what the subrequest sets stays set");
}

#[test]
fn satisfy_counts_it_as_a_check() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%;
           location /any/yes { satisfy any; deny all; auth_request /yes; }
           location /any/no { satisfy any; deny all; auth_request /no; }
           location /any/own { satisfy any; allow all; auth_request /no; }
           location /any/error { satisfy any; deny all; auth_request /error; }
           location /all/yes { allow all; auth_request /yes; }
           location /all/no { allow all; auth_request /no; }
           location /all/own { deny all; auth_request /yes; }
           location /yes { return 204; } location /no { add_header WWW-Authenticate x always; return 401; }
           location /error { return 400; } }",
    )
    .file("any/yes", "")
    .file("any/own", "")
    .file("all/yes", "")
    .start();
    for (target, status) in [
        ("/any/yes", 200),
        ("/any/no", 401),
        ("/any/own", 200),
        ("/any/error", 500),
        ("/all/yes", 200),
        ("/all/no", 401),
        ("/all/own", 403),
    ] {
        assert_eq!(server.get(target).status, status, "{target}");
    }
}

/// Differs from nginx: the subrequest of `auth_request` says that it has no body
#[test]
fn the_subrequest_has_no_body() {
    let backend = Backend::start(|request| Backend::ok(&String::from_utf8_lossy(&request.body)));
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%;
           location / {{ auth_request /auth; proxy_pass http://127.0.0.1:{0}; }}
           location = /auth {{ proxy_pass http://127.0.0.1:{0}; }} }}",
        backend.port
    ))
    .start();
    let response = server.raw("POST /x HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(response.text(), "hello");
    let seen = backend.requests();
    let lengths: Vec<_> = seen.iter().map(|request| (request.line(), request.field("Content-Length"))).collect();
    assert_eq!(lengths, [("GET /auth HTTP/1.1", None), ("POST /x HTTP/1.1", Some("5"))]);
}

/// Differs from nginx: a short body of an answer that nobody wants is read
#[test]
fn the_connection_to_the_backend_is_kept() {
    // The body comes when the client has its response, which doesn't wait for it.
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::sockets(move |mut stream, _| {
        let mut bytes = [0; 4096];
        while stream.read(&mut bytes).is_ok_and(|read| read > 0) {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n").expect("the server reads");
            wait.lock().expect("no thread panics with it").recv().expect("it is told to go on");
            stream.write_all(b"allowed").expect("the server reads");
        }
    });
    let mut server = Setup::http(&format!(
        "upstream auth {{ server 127.0.0.1:{}; keepalive 4; }}
         server {{ listen 127.0.0.1:%%PORT%%; root %%DIR%%; location / {{ auth_request /auth; }}
           location = /auth {{ log_subrequest on; access_log %%DIR%%/auth.log; proxy_pass http://auth; }} }}",
        backend.port
    ))
    .file("page.txt", "yes")
    .start();
    for count in 1..=3 {
        assert_eq!(server.get("/page.txt").text(), "yes");
        go.send(()).expect("the backend waits");
        server.wait(|s| s.read("auth.log").lines().count() == count, "the subrequest has ended");
    }
    assert_eq!(backend.connections(), 1);
}
