//! `proxy_pass`: addresses, header fields, redirects, what `if` makes of it.

use e2e::{Backend, Server, Setup};

fn line(server: &Server, target: &str) -> String {
    server.get(target).text()
}

#[test]
fn conditions() {
    let backend = Backend::start(|r| Backend::ok(r.line()));
    let mut server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%;
            location /one { if ($arg_a) { proxy_pass http://127.0.0.1:B; } if ($arg_b) { set $x 1; } }
            location /two { if ($arg_a) { proxy_pass http://127.0.0.1:B; } if ($arg_b) { proxy_pass http://127.0.0.1:B; } }
            location /all { proxy_pass http://127.0.0.1:B; if ($arg_a) { set $x 1; } if ($arg_b) { set $x 2; } }
        }"
        .replace(":B", &format!(":{}", backend.port))
        .as_str(),
    )
    .start();
    server.quiet();
    for (target, status) in [
        ("/one?a=1", 200),
        ("/one?b=1", 404),
        // The handler of the first block isn't configured in the second.
        ("/one?a=1&b=1", 500),
        ("/two?a=1&b=1", 200),
        ("/all?a=1&b=1", 200),
    ] {
        assert_eq!(server.get(target).status, status, "{target}");
    }
}

#[test]
fn addresses() {
    let backend = Backend::start(|r| Backend::ok(r.line()));
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%;
            location / { proxy_pass http://127.0.0.1:B; }
            location /strip/ { proxy_pass http://127.0.0.1:B/; }
            location /under/ { proxy_pass http://127.0.0.1:B/to; }
            location /var { set $to 127.0.0.1:B; proxy_pass http://$to; }
            location /varuri { set $to /fixed?a=b; proxy_pass http://127.0.0.1:B$to; }
            location ~ /re(x) { proxy_pass http://127.0.0.1:B; }
            location /rw/ { rewrite ^/rw/(.*) /to/$1?n=1 break; proxy_pass http://127.0.0.1:B; }
            location /v11 { proxy_http_version 1.1; proxy_method PUT; proxy_pass http://127.0.0.1:B; }
        }"
        .replace(":B", &format!(":{}", backend.port))
        .as_str(),
    )
    .start();
    let cases = [
        ("/a%20b?c=d", "GET /a%20b?c=d HTTP/1."),
        ("/strip/x%2Fy?z", "GET /x/y?z HTTP/1."),
        ("/under/x", "GET /tox HTTP/1."),
        ("/var/1?2", "GET /var/1?2 HTTP/1."),
        ("/varuri", "GET /fixed?a=b HTTP/1."),
        ("/rex", "GET /rex HTTP/1."),
        ("/rw/p?q=2", "GET /to/p?n=1&q=2 HTTP/1."),
        ("/v11", "PUT /v11 HTTP/1.1"),
    ];
    for (target, expect) in cases {
        let got = line(&server, target);
        assert!(got.starts_with(expect), "{target}: {got:?}");
    }
}

#[test]
fn header_fields() {
    let backend = Backend::start(|r| {
        let body = r.head.clone();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nServer: back\r\nX-Hide: 1\r\nX-Keep: 2\r\nX-Accel-Foo: 1\r\n\
             Set-Cookie: a=b; path=/in/\r\nX-Powered-By: x\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    });
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; proxy_set_header X-Level server;
            location / {{ proxy_pass http://127.0.0.1:{0}; }}
            location /own {{ proxy_pass http://127.0.0.1:{0}; proxy_set_header Host $host; proxy_set_header X-Real-IP $remote_addr;
                proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Gone ''; proxy_set_header Accept '';
                proxy_hide_header X-Hide; proxy_pass_header Server; proxy_cookie_path /in/ /out/; }}
        }}",
        backend.port
    ))
    .start();
    let first = server.get_with("/", "Accept: a\r\nX-Mine: m\r\nProxy-X: y\r\n");
    let text = first.text();
    assert!(text.contains(&format!("Host: 127.0.0.1:{}\r\n", backend.port)), "{text}");
    assert!(text.contains("X-Level: server") && text.contains("X-Mine: m") && text.contains("Accept: a"), "{text}");
    assert_eq!((first.field("X-Hide"), first.field("X-Keep")), (Some("1"), Some("2")));
    assert!(first.field("Server").is_some_and(|s| s != "back"));
    let own = server.get_with("/own", "Accept: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Gone: g\r\n");
    let text = own.text();
    assert!(text.contains("Host: localhost\r\n") && text.contains("X-Real-IP: 127.0.0.1"), "{text}");
    assert!(text.contains("X-Forwarded-For: 1.2.3.4, 127.0.0.1"), "{text}");
    assert!(!text.contains("X-Level") && !text.contains("X-Gone") && !text.contains("Accept:"), "{text}");
    assert_eq!((own.field("X-Hide"), own.field("Server")), (None, Some("back")));
    assert_eq!(own.field("Set-Cookie"), Some("a=b; path=/out/"));
}

#[test]
fn fields_of_responses() {
    let backend = Backend::start(|r| {
        let head = match r.line().split(' ').nth(1).unwrap_or_default() {
            "/304" => "304 Not Modified\r\nContent-Length: 5\r\n\r\n".to_string(),
            "/bare" => "200 OK\r\nSet-Cookie: a\r\nContent-Length: 0\r\n\r\n".to_string(),
            "/unsafe" => "200 OK\r\nX-Accel-Redirect: /../x\r\nContent-Length: 0\r\n\r\n".to_string(),
            "/empty" => "200 OK\r\nContent-Type:\r\nContent-Length: 0\r\n\r\n".to_string(),
            "/untyped" => format!("200 OK\r\nContent-Length: 100\r\n\r\n{}", "x".repeat(100)),
            _ => "200 OK\r\nSet-Cookie: a=b; Domain=.Old.org\r\nContent-Length: 0\r\n\r\n".to_string(),
        };
        format!("HTTP/1.1 {head}").into_bytes()
    });
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; gzip on; gzip_types *; gzip_proxied any;
            location / {{ proxy_pass http://127.0.0.1:{0}; }}
            location /text/ {{ proxy_pass http://127.0.0.1:{0}/; proxy_cookie_domain old.org new.org; }}
            location /regex/ {{ proxy_pass http://127.0.0.1:{0}/;
                proxy_cookie_domain ~\\.old\\.org$ new.org; proxy_cookie_flags a httponly samesite=lax secure; }} }}",
        backend.port
    ))
    .start();
    assert_eq!(server.get("/regex/bare").field("Set-Cookie"), Some("a"), "no cookie");
    assert_eq!(server.get("/unsafe").status, 404);
    let log = server.read("error.log");
    assert!(log.contains("unsafe URI \"/../x\" was detected while reading response header from upstream"), "{log}");
    assert_eq!(server.get("/304").field("Content-Length"), Some("5"));
    assert_eq!(server.get("/empty").field("Content-Type"), None);
    let packed = server.get_with("/untyped", "Accept-Encoding: gzip\r\n");
    assert_eq!(packed.field("Content-Encoding"), Some("gzip"), "any type is none, too");
    assert_eq!(server.get("/text/").field("Set-Cookie"), Some("a=b; Domain=.new.org"));
    let flags = "a=b; Domain=new.org; Secure; HttpOnly; SameSite=Lax";
    assert_eq!(server.get("/regex/").field("Set-Cookie"), Some(flags), "a regex sees the dot");
}

#[test]
fn redirects() {
    let backend = Backend::start(|r| {
        let host = r.field("Host").unwrap_or_default();
        let location = match r.line().split(' ').nth(1).unwrap_or_default() {
            "/own" => format!("http://{host}/next"),
            "/relative" => "/next".to_string(),
            _ => "http://elsewhere.example/next".to_string(),
        };
        format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%;
            location /app/ {{ proxy_pass http://127.0.0.1:{0}/; }}
            location /off/ {{ proxy_pass http://127.0.0.1:{0}/; proxy_redirect off; }}
            location /map/ {{ proxy_pass http://127.0.0.1:{0}/; proxy_redirect http://elsewhere.example/ https://$host/; }} }}",
        backend.port
    ))
    .start();
    let here = format!("http://localhost:{}", server.port());
    let back = format!("http://127.0.0.1:{}", backend.port);
    let cases = [
        ("/app/own", format!("{here}/app/next")),
        ("/app/relative", "/next".to_string()),
        ("/app/other", "http://elsewhere.example/next".to_string()),
        ("/off/own", format!("{back}/next")),
        ("/map/other", "https://localhost/next".to_string()),
    ];
    for (target, location) in cases {
        assert_eq!(server.get(target).field("Location"), Some(location.as_str()), "{target}");
    }
}

/// Not in nginx: `proxy_allow_upstream` and its kin
#[test]
fn servers_that_may_not_be_asked() {
    let (bad, good) = (Backend::start(|_| Backend::ok("bad")), Backend::start(|_| Backend::ok("good")));
    let text = "map $upstream_addr $allowed { volatile; default 1; ~:BAD$ 0; }
        upstream both { server 127.0.0.1:BAD max_fails=0; server 127.0.0.1:GOOD backup; }
        server { listen 127.0.0.1:%%PORT%%; proxy_allow_upstream 1 $allowed;
            location / { proxy_pass http://both; proxy_next_upstream denied; }
            location /one { proxy_pass http://both; }
            location /all { proxy_pass http://both; proxy_allow_upstream 1; } }";
    let text = text.replace("BAD", &bad.port.to_string()).replace("GOOD", &good.port.to_string());
    let mut server = Setup::http(&text).start();
    for (target, status, body) in [("/", 200, "good"), ("/all", 200, "bad")] {
        let response = server.get(target);
        assert_eq!((response.status, response.text().as_str()), (status, body), "{target}");
    }
    assert_eq!(server.get("/one").status, 403);
    server.read_until("error.log", "access to upstream is denied while connecting to upstream");
    assert_eq!(bad.connections(), 1);
    server.quiet();
}

/// Not in nginx: `proxy_request_dynamic` and its kin
#[test]
fn a_request_for_each_server() {
    let (bad, good) =
        (Backend::start(|_| Vec::new()), Backend::start(|asked| Backend::ok(asked.field("X-To").unwrap())));
    let text = "upstream both { server 127.0.0.1:BAD max_fails=0; server 127.0.0.1:GOOD backup; }
        server { listen 127.0.0.1:%%PORT%%; proxy_set_header X-To $upstream_addr.;
            location / { proxy_pass http://both; }
            location /each { proxy_pass http://both; proxy_request_dynamic on; } }";
    let text = text.replace("BAD", &bad.port.to_string()).replace("GOOD", &good.port.to_string());
    let mut server = Setup::http(&text).start();
    assert_eq!(server.get("/").text(), ".");
    assert_eq!(server.get("/each").text(), format!("127.0.0.1:{}, 127.0.0.1:{}.", bad.port, good.port));
    server.quiet();
}

#[test]
fn only_buffered_responses_are_read_slowly() {
    let backend = Backend::start(|_| Backend::ok(&"x".repeat(60_000)));
    let text = "server { listen 127.0.0.1:%%PORT%%; proxy_limit_rate 20k;
            location / { proxy_buffering off; proxy_pass http://127.0.0.1:B; }
            location /slow { proxy_pass http://127.0.0.1:B; proxy_buffer_size 1k; } }";
    let server = Setup::http(&text.replace(":B", &format!(":{}", backend.port))).start();
    let took = |target| {
        let begin = std::time::Instant::now();
        assert_eq!(server.get(target).body.len(), 60_000);
        begin.elapsed().as_millis()
    };
    let slow = took("/slow");
    assert!(slow >= 1000, "{slow} ms");
    // Three times, should this machine be busy just then.
    let quick = (0..3).map(|_| took("/")).min();
    assert!(quick.is_some_and(|quick| quick < 1000), "{quick:?} ms without a limit");
}
