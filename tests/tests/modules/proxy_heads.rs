//! What backends are told, and what becomes of what they say: fields, framing, `X-Accel-…`, answers that are no HTTP.

use std::io::{Read, Write};

use e2e::{Backend, Server, Setup, curl};

fn started(http: &str, backend: &Backend) -> Server {
    Setup::http(&http.replace(":B", &format!(":{}", backend.port))).start()
}

/// A backend that answers each path with these bytes, and closes the connection.
fn canned(answers: &'static [(&'static str, &'static str)]) -> Backend {
    Backend::sockets(move |mut stream, _| {
        let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(n) if n > 0 => head.extend_from_slice(&buffer[..n]),
                _ => return,
            }
        }
        let head = String::from_utf8_lossy(&head);
        let path = head.split(' ').nth(1).unwrap_or_default();
        let answer = answers.iter().find(|(known, _)| *known == path).map_or("", |(_, answer)| answer);
        let _ = stream.write_all(answer.as_bytes());
    })
}

#[test]
fn a_server_without_upstream_block_keeps_no_connections() {
    // It serves one connection at a time, until that is closed.
    let backend = Backend::sockets(|mut stream, _| {
        let mut head = [0; 4096];
        while stream.read(&mut head).is_ok_and(|n| n > 0) {
            if stream.write_all(&Backend::ok("x")).is_err() {
                return;
            }
        }
    });
    let server = started(
        "upstream kept { server 127.0.0.1:B; }
        server { listen 127.0.0.1:%%PORT%%;
            location / { proxy_pass http://127.0.0.1:B; }
            location /name { proxy_pass http://localhost:B; }
            location /variable { set $to 127.0.0.1:B; proxy_pass http://$to; }
            location /declared { proxy_pass http://127.0.0.1:B; proxy_http_version 1.0; proxy_set_header Connection keep-alive; }
            location /kept { proxy_pass http://kept; } }",
        &backend,
    );
    let mut client = server.connect();
    let mut before = 0;
    for (path, connections) in [("/", 3), ("/name", 3), ("/variable", 3), ("/declared", 3), ("/kept", 1)] {
        for _ in 0..3 {
            assert_eq!(client.get(path, "").text(), "x", "{path}");
        }
        assert_eq!(backend.connections() - before, connections, "{path}");
        before = backend.connections();
    }
}

#[test]
fn fields_of_requests() {
    let backend = Backend::start(|r| Backend::ok(&r.head));
    let server = started(
        "upstream back { server 127.0.0.1:B; }
        server { listen 127.0.0.1:%%PORT%%;
            location / { proxy_pass http://back; }
            location /old { proxy_pass http://back; proxy_http_version 1.0; }
            location /order { proxy_pass http://back; proxy_set_header X-A 1; proxy_set_header host h; proxy_set_header X-B 2;
                proxy_set_header Connection c; proxy_set_header Accept zz; }
            location /last { proxy_pass http://back; proxy_set_header Host a; proxy_set_header X 1; proxy_set_header Host b; }
            location /empty { proxy_pass http://back; proxy_set_header Host ''; proxy_set_header X ''; }
            location /none { proxy_pass http://127.0.0.1:B; proxy_set_header Host $http_x_none; }
            location /host { proxy_pass http://back; proxy_set_header Host $http_host; }
            location /own { proxy_pass http://back; proxy_set_header Proxy-Connection pc; proxy_set_header Upgrade $http_upgrade; }
        }",
        &backend,
    );
    let fields =
        "Proxy-Connection: keep-alive\r\nUpgrade: u\r\nTE: trailers\r\nKeep-Alive: 5\r\nX-C: 1\r\nAccept: a\r\n";
    let address = format!("GET /none HTTP/1.1|Host: 127.0.0.1:{}|X-C: 1|Accept: a", backend.port);
    for (path, expect) in [
        ("/", "GET / HTTP/1.1|Host: back|X-C: 1|Accept: a"),
        ("/old", "GET /old HTTP/1.0|Host: back|X-C: 1|Accept: a"),
        ("/order", "GET /order HTTP/1.1|Host: h|X-A: 1|X-B: 2|Connection: c|Accept: zz|X-C: 1"),
        ("/last", "GET /last HTTP/1.1|Host: b|X: 1|X-C: 1|Accept: a"),
        ("/empty", "GET /empty HTTP/1.1|Host: back|X-C: 1|Accept: a"),
        ("/none", address.as_str()),
        ("/host", "GET /host HTTP/1.1|Host: localhost|X-C: 1|Accept: a"),
        ("/own", "GET /own HTTP/1.1|Host: back|Proxy-Connection: pc|Upgrade: u|X-C: 1|Accept: a"),
    ] {
        assert_eq!(server.get_with(path, fields).text().replace("\r\n", "|"), expect, "{path}");
    }
    // HTTP/1.0 has no need of a Host.
    assert_eq!(server.raw("GET /host HTTP/1.0\r\n\r\n").text(), "GET /host HTTP/1.1\r\nHost: back");
}

#[test]
fn a_whole_body_goes_with_its_length() {
    let backend = Backend::start(|r| Backend::ok(&format!("{}|{}", r.head, String::from_utf8_lossy(&r.body))));
    let server = started(
        "http2 on; server { listen 127.0.0.1:%%PORT%%; proxy_request_buffering off; location / { proxy_pass http://127.0.0.1:B; } }",
        &backend,
    );
    let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    for (body, expect) in [
        ("3\r\nabc\r\n0\r\n\r\n", "Content-Length: 3|abc"),
        ("3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n", "Content-Length: 5|abcde"),
        ("0\r\n\r\n", "Content-Length: 0|"),
    ] {
        let text = server.raw(format!("{head}{body}")).text();
        assert!(text.ends_with(expect) && !text.contains("Transfer-Encoding"), "{body:?}: {text}");
    }
    // What isn't there yet is passed on as it comes.
    let mut connection = server.connect();
    connection.send(head).send("3\r\nabc\r\n");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while backend.connections() < 4 && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    connection.send("2\r\nde\r\n0\r\n\r\n");
    let text = connection.response().text();
    assert!(text.contains("Transfer-Encoding: chunked|") && text.ends_with("0\r\n\r\n"), "{text}");
}

#[test]
fn answers_without_a_status_line() {
    let backend = canned(&[
        ("/icy", "ICY 200 OK\r\nicy-name: radio\r\n\r\nMUSIC"),
        ("/text", "hello"),
        ("/lower", "http/1.1 200 OK\r\n\r\nx"),
        ("/status", "HTTP/1.1 20 OK\r\n\r\nx"),
        ("/bytes", "\0\u{1}\u{2}"),
        ("/cut", "HTTP/1.1 2"),
    ]);
    let mut server = started(
        "log_format status $status|$upstream_status; http2 on;
        server { listen 127.0.0.1:%%PORT%%; access_log %%DIR%%/status.log status;
            location / { proxy_pass http://127.0.0.1:B; add_header X-Own 1; proxy_intercept_errors on; error_page 502 /own; }
            location /unbuffered/ { proxy_pass http://127.0.0.1:B/; proxy_buffering off; }
            location /own { return 200 own; } }",
        &backend,
    );
    let get = |server: &Server, request: &str| {
        let mut connection = server.connect();
        connection.send(request);
        String::from_utf8_lossy(&connection.rest()).into_owned()
    };
    for (path, expect) in [
        ("/icy", "ICY 200 OK\r\nicy-name: radio\r\n\r\nMUSIC"),
        ("/unbuffered/icy", "ICY 200 OK\r\nicy-name: radio\r\n\r\nMUSIC"),
        ("/text", "hello"),
        ("/lower", "http/1.1 200 OK\r\n\r\nx"),
        ("/status", "HTTP/1.1 20 OK\r\n\r\nx"),
        ("/bytes", "\0\u{1}\u{2}"),
    ] {
        let got = get(&server, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        assert_eq!(got, expect, "{path}");
    }
    assert_eq!(get(&server, "GET /icy HTTP/1.0\r\n\r\n"), "ICY 200 OK\r\nicy-name: radio\r\n\r\nMUSIC");
    assert_eq!(get(&server, "HEAD /icy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "");
    assert!(server.read_until("status.log", "009|200\n").starts_with("009|200\n"));
    server
        .read_until("error.log", "upstream sent no valid HTTP/1.0 header while reading response header from upstream");
}

/// Directives and decisions of Tidegate's own ("HTTP" in docs/COMPAT.md).
/// Not in nginx: proxy_require_status_line
#[test]
fn answers_without_a_status_line_can_be_refused() {
    let backend = canned(&[("/icy", "ICY 200 OK\r\n\r\nMUSIC"), ("/strict/icy", "ICY 200 OK\r\n\r\nMUSIC")]);
    let server = started(
        "http2 on; server { listen 127.0.0.1:%%PORT%%; location / { proxy_pass http://127.0.0.1:B; }
            location /strict/ { proxy_pass http://127.0.0.1:B; proxy_require_status_line on; } }",
        &backend,
    );
    assert_eq!(server.get("/strict/icy").status, 502);
    // Only the end of the connection tells the client where the answer ends.
    let mut connection = server.connect();
    connection.send("GET /icy HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(String::from_utf8_lossy(&connection.rest()), "ICY 200 OK\r\n\r\nMUSIC");
    let h2 = curl(&["-i", "--http2-prior-knowledge", &server.url("/icy")]);
    let h2 = String::from_utf8_lossy(&h2).into_owned();
    assert!(h2.starts_with("HTTP/2 200") && h2.ends_with("\r\n\r\nICY 200 OK\r\n\r\nMUSIC"), "{h2}");
}

#[test]
fn early_hints_without_a_field_are_none() {
    let hints = |fields: &str| format!("HTTP/1.1 103 Early Hints\r\n{fields}\r\n");
    let backend = Backend::start(move |r| {
        let fields = if r.line().contains("/empty") { "" } else { "Link: </a.css>\r\n" };
        let more = if r.line().contains("/more") { "X-More: 1\r\n" } else { "" };
        [hints(&format!("{fields}{more}")).into_bytes(), Backend::ok("ok")].concat()
    });
    let server = started(
        "server { listen 127.0.0.1:%%PORT%%; early_hints 1; location / { proxy_pass http://127.0.0.1:B; }
            location /hidden/ { proxy_pass http://127.0.0.1:B; proxy_hide_header Link; } }",
        &backend,
    );
    for (path, status) in [("/", 103), ("/empty", 200), ("/hidden/", 200), ("/hidden/more", 103)] {
        assert_eq!(server.connect().get(path, "").status, status, "{path}");
    }
}

#[test]
fn chunks_of_backends() {
    let (long, trailer) = ("x".repeat(100_000), "y".repeat(20_000));
    let backend = Backend::start(move |r| {
        let (extension, trailers) = match r.line().split(' ').nth(1) {
            Some("/extension") => (format!(";{long}"), String::new()),
            Some("/small/none") => (String::new(), "X-T: t\r\n".to_owned()),
            _ => (String::new(), format!("X-T: {trailer}\r\n{}", "X-N: 1\r\n".repeat(500))),
        };
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        format!("{head}5{extension}\r\nhello\r\n0\r\n{trailers}\r\n").into_bytes()
    });
    let mut server = started(
        "server { listen 127.0.0.1:%%PORT%%; location / { proxy_pass http://127.0.0.1:B; }
            location /passed { proxy_pass_trailers on; proxy_buffer_size 64k; proxy_buffers 4 64k; proxy_pass http://127.0.0.1:B; }
            location /small { proxy_pass_trailers on; proxy_buffering off; proxy_pass http://127.0.0.1:B; } }",
        &backend,
    );
    let get = |path: &str| {
        let mut connection = server.connect();
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        let raw = String::from_utf8_lossy(&connection.rest()).into_owned();
        raw.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    };
    assert_eq!(get("/extension"), "5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(get("/trailers"), "5\r\nhello\r\n0\r\n\r\n");
    let passed = get("/passed");
    assert!(
        passed.starts_with("5\r\nhello\r\n0\r\nX-T: yyy") && passed.matches("X-N: 1\r\n").count() == 500,
        "{}",
        passed.len()
    );
    assert_eq!(get("/small/none"), "5\r\nhello\r\n0\r\nX-T: t\r\n\r\n");
    // Beyond the bound the response has no end.
    assert!(!get("/small").contains("0\r\n"));
    server.read_until("error.log", "upstream sent too big trailers while ");
}

#[test]
fn x_accel_redirect() {
    let first = "Set-Cookie: c=1\r\nCache-Control: no-store\r\nExpires: 0\r\nContent-Disposition: attachment\r\n\
                 Content-Type: text/first\r\nETag: \"one\"\r\nLast-Modified: Wed, 01 Dec 2021 16:00:00 GMT\r\nX-First: 1\r\n\
                 Content-Encoding: br\r\nVary: X\r\nLocation: /x\r\nX-Accel-Expires: 5\r\nX-Accel-Buffering: no\r\n\
                 Accept-Ranges: none\r\nContent-Range: bytes 0-1/2\r\nX-Accel-Charset: koi8-r\r\n";
    let backend = Backend::start(move |r| {
        let target = r.line().split(' ').nth(1).unwrap_or_default();
        match target.split_once("?to=") {
            Some((_, to)) => {
                format!("HTTP/1.1 200 OK\r\nX-Accel-Redirect: {to}\r\n{first}Content-Length: 3\r\n\r\nabc").into_bytes()
            }
            None => Backend::ok(&format!("{} {}", r.line(), String::from_utf8_lossy(&r.body))),
        }
    });
    let server = started(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; location / { proxy_pass http://127.0.0.1:B; }
            location @store { rewrite ^ /stored? break; proxy_pass http://127.0.0.1:B; }
            location @text { return 200 \"$request_method $uri\"; }
            location /text { internal; return 200 \"$request_method $uri\"; }
            location /files/ { internal; } }",
        &backend,
    );
    server.folder().write("files/ten", "0123456789");
    let send = |method: &str, target: &str| {
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc");
        server.raw(request)
    };
    // A named location gets the method; a URI is asked for by GET.
    assert_eq!(send("POST", "/up?to=@store").text(), "POST /stored HTTP/1.1 abc");
    assert_eq!(send("PUT", "/up?to=@text").text(), "PUT /up");
    assert_eq!(send("POST", "/up?to=/text").text(), "GET /text");
    let file = server.get("/up?to=/files/ten");
    assert_eq!(file.text(), "0123456789");
    for (name, expect) in [
        ("Set-Cookie", Some("c=1")),
        ("Cache-Control", Some("no-store")),
        ("Expires", Some("0")),
        ("Content-Disposition", Some("attachment")),
        ("Content-Type", Some("text/first")),
        ("X-First", None),
        ("Content-Encoding", None),
        ("Vary", None),
        ("Location", None),
        ("Content-Range", None),
        ("X-Accel-Expires", None),
        ("X-Accel-Buffering", None),
        ("X-Accel-Charset", None),
        ("X-Accel-Redirect", None),
    ] {
        assert_eq!(file.field(name), expect, "{name}");
    }
    assert!(
        file.field("ETag").is_some_and(|tag| tag != "\"one\"")
            && file.field("Last-Modified") != Some("Wed, 01 Dec 2021 16:00:00 GMT")
    );
    assert_eq!(file.all("Accept-Ranges").last(), Some(&"bytes"));
    let missing = server.get("/up?to=/files/none");
    assert_eq!((missing.status, missing.field("Accept-Ranges")), (404, None));
}

#[test]
fn fields_of_answers_without_a_body() {
    let backend = canned(&[
        (
            "/204",
            "HTTP/1.1 204 No Content\r\nContent-Type: a/b; charset=x\r\nETag: \"a\"\r\nLast-Modified: Wed, 01 Dec 2021 16:00:00 GMT\r\n\r\n",
        ),
        (
            "/304",
            "HTTP/1.1 304 Not Modified\r\nContent-Type: a/b; charset=x\r\nETag: \"a\"\r\nContent-Length: 12\r\nLast-Modified: Wed, 01 Dec 2021 16:00:00 GMT\r\n\r\n",
        ),
        (
            "/404",
            "HTTP/1.1 404 None\r\nContent-Type: a/b; charset=x\r\nETag: \"a\"\r\nContent-Length: 1\r\nLast-Modified: Wed, 01 Dec 2021 16:00:00 GMT\r\n\r\nx",
        ),
        ("/charset", "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nX-Accel-Charset: koi8-r\r\nContent-Length: 1\r\n\r\nx"),
        ("/untyped", "HTTP/1.1 200 OK\r\nContent-Type:\r\nContent-Length: 1\r\n\r\nx"),
    ]);
    let server = started(
        "server { listen 127.0.0.1:%%PORT%%; location / { proxy_pass http://127.0.0.1:B; }
            location /empty { default_type ''; return 200 x; }
            location /gone { default_type ''; return 404 x; }
            location /own { return 204; } }",
        &backend,
    );
    for path in ["/204", "/304", "/404"] {
        let response = server.get(path);
        assert_eq!(response.field("Content-Type"), Some("a/b; charset=x"), "{path}");
        assert_eq!(response.field("Last-Modified"), Some("Wed, 01 Dec 2021 16:00:00 GMT"), "{path}");
        assert_eq!(response.field("ETag"), Some("\"a\""), "{path}");
    }
    assert_eq!(server.get("/charset").field("Content-Type"), Some("a/b"));
    for (path, text) in [("/untyped", "x"), ("/empty", "x"), ("/gone", "x"), ("/own", "")] {
        let response = server.get(path);
        assert_eq!((response.field("Content-Type"), response.text().as_str()), (None, text), "{path}");
    }
}

#[test]
fn fields_that_come_twice() {
    let backend = canned(&[(
        "/",
        "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Type: c/d\r\nLocation: /x\r\nLocation: /y\r\n\
         Status: 1\r\nStatus: 2\r\nContent-Encoding: gzip\r\nContent-Encoding: br\r\n\
         Content-Disposition: e\r\nContent-Disposition: f\r\nX-A: g\r\nX-A: h\r\nContent-Length: 0\r\n\r\n",
    )]);
    let mut server = started(
        "server { listen 127.0.0.1:%%PORT%%; error_log error.log warn; location / { proxy_pass http://127.0.0.1:B;
            add_header Seen $upstream_http_content_type|$upstream_http_location|$upstream_http_status|$upstream_http_x_a; } }",
        &backend,
    );
    let response = server.get("/");
    assert_eq!(response.field("Seen"), Some("a/b|/x|1|g, h"));
    let lines = |name: &str| response.head.lines().filter(|line| line.starts_with(name)).count();
    for (name, count) in [
        ("Content-Type", 1),
        ("Location", 1),
        ("Status", 1),
        ("Content-Encoding", 2),
        ("Content-Disposition", 2),
        ("X-A", 2),
    ] {
        assert_eq!(lines(&format!("{name}: ")), count, "{name}");
    }
    server.read_until("error.log", "upstream sent duplicate header line: \"Status: 2\", previous value: \"Status: 1\"");
}

#[test]
fn an_internal_redirect_that_is_refused_leaves_the_method() {
    let backend = canned(&[("/", "HTTP/1.1 200 OK\r\nX-Accel-Redirect: /../x\r\nContent-Length: 0\r\n\r\n")]);
    let server = started(
        "server { listen 127.0.0.1:%%PORT%%; location / { proxy_pass http://127.0.0.1:B; error_page 404 = @page; }
            location @page { return 200 $request_method; } }",
        &backend,
    );
    let text = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(server.connect().send(text).response().text(), "POST");
}
