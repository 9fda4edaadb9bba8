//! Requests and their framing, server selection, locations, error pages.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use e2e::{Connection, Response, Server, Setup};

fn check(server: &Server, cases: &[(&str, u16, &str)]) {
    for (target, status, text) in cases {
        let got = server.get(target);
        assert_eq!((got.status, got.text().trim_end()), (*status, *text), "{target}");
    }
}

fn status_of(server: &Server, bytes: &str) -> Option<u16> {
    let mut c = server.connect();
    c.send(bytes).end();
    let head = bytes.starts_with("HEAD ");
    c.try_response(head).map(|r: Response| r.status)
}

#[test]
fn locations() {
    let server = Setup::http(
        "server {
            listen 127.0.0.1:%%PORT%%;
            location / { return 200 root; }
            location = /exact { return 200 exact; }
            location /exact/ { return 200 'below exact'; }
            location /images/ { return 200 images; }
            location ^~ /static/ { return 200 static; }
            location ~ \\.gif$ { return 200 gif; }
            location ~* \\.JPE?G$ { return 200 jpg; }
            location ~ ^/num/(\\d+)/(?<rest>.*)$ { return 200 \"$1 $rest\"; }
            location /outer/ {
                return 200 outer;
                location /outer/inner/ { return 200 inner; }
                location ~ \\.php$ { return 200 php; }
            }
            location @named { return 200 named; }
            location /named { error_page 418 = @named; return 418; }
            location /missing { error_page 404 /lost.html; root /nonexistent; }
            location = /lost.html { internal; return 200 lost; }
        }",
    )
    .start();
    check(
        &server,
        &[
            ("/", 200, "root"),
            ("/exact", 200, "exact"),
            ("/exact?a=1", 200, "exact"),
            ("/exact/x", 200, "below exact"),
            ("/images/a.png", 200, "images"),
            ("/images/a.gif", 200, "gif"),
            ("/static/a.gif", 200, "static"),
            ("/a.jpeg", 200, "jpg"),
            ("/a.JPG", 200, "jpg"),
            ("/num/12/a/b", 200, "12 a/b"),
            ("/outer/x", 200, "outer"),
            ("/outer/inner/x", 200, "inner"),
            ("/outer/x.php", 200, "php"),
            ("/named", 200, "named"),
            ("/a/../exact", 200, "exact"),
            ("/%65xact", 200, "exact"),
            ("//exact", 200, "exact"),
            ("/./exact", 200, "exact"),
        ],
    );
    assert_eq!(server.get("/lost.html").status, 404);
    assert_eq!(server.get("/missing").text(), "lost");
}

#[test]
fn server_names() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; server_name first; return 200 first; }
         server { listen 127.0.0.1:%%PORT%% default_server; server_name second; return 200 default; }
         server { listen 127.0.0.1:%%PORT%%; server_name exact.example.com; return 200 exact; }
         server { listen 127.0.0.1:%%PORT%%; server_name *.example.com; return 200 tail; }
         server { listen 127.0.0.1:%%PORT%%; server_name mail.*; return 200 head; }
         server { listen 127.0.0.1:%%PORT%%; server_name .dot.org; return 200 dot; }
         server { listen 127.0.0.1:%%PORT%%; server_name ~^(?<who>.+)\\.users\\.net$; return 200 $who; }
         server { listen 127.0.0.1:%%PORT_B%%; return 200 'other port'; }",
    )
    .start();
    let cases = [
        ("first", "first"),
        ("unknown", "default"),
        ("exact.example.com", "exact"),
        ("EXACT.example.com.", "exact"),
        ("exact.example.com:99", "exact"),
        ("x.example.com", "tail"),
        ("a.b.example.com", "tail"),
        ("mail.anything", "head"),
        ("dot.org", "dot"),
        ("www.dot.org", "dot"),
        ("jane.users.net", "jane"),
    ];
    for (host, expect) in cases {
        let got = server.raw(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        assert_eq!(got.text(), expect, "{host}");
    }
    let got = Connection::open(server.port_of("PORT_B")).get("/", "");
    assert_eq!(got.text(), "other port");
}

/// A name ends the search for the server, so a regex that would match it too sets nothing, even where there is no other server.
#[test]
fn names_come_before_a_servers_own_regexes() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%;
            server_name www.example.com *.wild.example.com ~^(?<user>.+)\\.example\\.com$; return 200 [$user,$1]; }",
    )
    .start();
    for (host, expect) in [
        ("www.example.com", "[,]"),
        ("a.wild.example.com", "[,]"),
        ("jane.example.com", "[jane,jane]"),
        ("other", "[,]"),
    ] {
        let got = server.raw(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        assert_eq!(got.text(), expect, "{host}");
    }
}

#[test]
fn bad_requests() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; server_name a; large_client_header_buffers 2 2k;
            location / { return 200 ok; } }",
    )
    .start();
    let long = "x".repeat(3000);
    let cases = [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_string(), 200),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_string(), 200),
        ("GET / HTTP/1.1\nHost: a\n\n".to_string(), 200),
        ("GET / HTTP/1.0\r\n\r\n".to_string(), 200),
        ("GET / HTTP/1.1\r\n\r\n".to_string(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_string(), 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_string(), 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_string(), 505),
        ("GET / HTTX/1.1\r\nHost: a\r\n\r\n".to_string(), 400),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n".to_string(), 400),
        ("GET /../ HTTP/1.1\r\nHost: a\r\n\r\n".to_string(), 400),
        ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n".to_string(), 400),
        ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n".to_string(), 400),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n".to_string(), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n".to_string(), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx".to_string(), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n".to_string(), 501),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n".to_string(), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n".to_string(), 501),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_string(), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx".to_string(), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nx".to_string(), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nx".to_string(), 400),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n".to_string(), 405),
        ("GET http://a/x HTTP/1.1\r\nHost: b\r\n\r\n".to_string(), 200),
    ];
    for (request, status) in cases {
        assert_eq!(status_of(&server, &request), Some(status), "{:.60?}", request);
    }
    assert_eq!(status_of(&server, "GET / HTTP/1.1\r\nHo"), None, "half a request and then nothing");
    let error = server.raw("GET / HTTP/1.1\r\n\r\n");
    assert!(error.text().contains("<h1>400 Bad Request</h1>"), "{}", error.text());
    assert_eq!(error.field("Connection"), Some("close"));
}

#[test]
fn browsers_whose_connections_are_closed() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%;
            location / { return 200 body; }
            location /safari { keepalive_disable safari; return 200 body; }
            location /none { keepalive_disable none; return 200 body; } }",
    )
    .start();
    let old = "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1";
    let safari = "Macintosh; Intel Mac OS X Version/17 Safari/605";
    for (request, agent, kept) in [
        ("POST /", format!("{old})"), false),
        ("POST /", format!("{old}; SV1)"), true),
        ("POST /", format!("{old}) Opera"), true),
        ("POST /", "MSIE 4.0)".to_string(), false),
        ("POST /", "MSIE 7.0; MSIE 6.0)".to_string(), true),
        ("GET /", format!("{old})"), true),
        ("POST /none", format!("{old})"), true),
        ("GET /safari", safari.to_string(), false),
        ("GET /safari", format!("{safari} Chrome/1"), true),
        ("GET /safari", format!("{safari} Gecko/1"), true),
    ] {
        let request = format!("{request} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nUser-Agent: {agent}\r\n\r\n");
        let got = server.connect().send(&request).response();
        assert_eq!(got.field("Connection") == Some("keep-alive"), kept, "{request}");
    }
}

#[test]
fn heads_and_bodies() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; client_max_body_size 100;
            location / { return 200 body; }
            location /file { root %%DIR%%; }
            location /endless { root %%DIR%%; sub_filter a b; sub_filter_types *; chunked_transfer_encoding off; }
         }",
    )
    .file("file", "content")
    .file("endless", "content")
    .start();
    let mut c = server.connect();
    // Without a body, nothing has to end with the connection.
    for version in ["1.1", "1.0"] {
        let head = c
            .send(format!("HEAD /endless HTTP/{version}\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"))
            .head_response();
        assert_eq!((head.status, head.field("Connection")), (200, Some("keep-alive")));
    }
    let head = c.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").head_response();
    assert_eq!((head.status, head.field("Content-Length")), (200, Some("4")));
    // A body that nobody reads must not become the next request.
    c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 17\r\n\r\nGET /x HTTP/1.1\r\n");
    assert_eq!(c.response().status, 200);
    c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: x\r\n\r\n");
    assert_eq!(c.response().status, 200);
    assert_eq!(c.get("/file", "").text(), "content");
    c.send("POST /file HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(c.response().status, 405);
    let large = server.raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n");
    assert_eq!(large.status, 413);
    let expect = server.raw("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 101\r\n\r\n");
    assert_eq!(expect.status, 413);
}

#[test]
fn error_pages() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%;
            error_page 404 /404.html;
            error_page 403 =200 /ok.html;
            error_page 500 502 503 504 /50x.html;
            location /denied { deny all; }
            location /fail { return 503; }
            location /elsewhere { error_page 404 http://example.com/x; }
            location /intercept { error_page 401 =404 /404.html; return 401; }
         }",
    )
    .file("404.html", "not here")
    .file("ok.html", "fine")
    .file("50x.html", "broken")
    .start();
    check(
        &server,
        &[
            ("/missing", 404, "not here"),
            ("/denied", 200, "fine"),
            ("/fail", 503, "broken"),
            ("/intercept", 404, "not here"),
        ],
    );
    let moved = server.get("/elsewhere");
    assert_eq!((moved.status, moved.field("Location")), (302, Some("http://example.com/x")));
}

#[test]
fn statuses_and_their_connections() {
    let mut server = Setup::http(
        "error_log error.log info;
         server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; autoindex on; autoindex_format jsonp;
            location /494 { return 494; }
            location /495 { return 495; }
            location /496 { return 496; }
            location /msie { msie_refresh on; return 302 /there; }
            location /small { client_max_body_size 5; proxy_pass http://127.0.0.1:1; } }",
    )
    .start();
    let msie = "User-Agent: Mozilla/4.0 (compatible; MSIE 6.0; Windows)\r\n";
    for (target, status, connection) in [
        ("/494", 400, "keep-alive"),
        ("/495", 400, "close"),
        ("/496", 400, "close"),
        ("/msie", 200, "keep-alive"),
        ("/?callback=a-b", 400, "close"),
        ("/?callback=%61", 400, "close"),
        ("/?callback=$", 400, "close"),
        ("/?callback=a_1.b", 200, "keep-alive"),
    ] {
        let got = server.connect().get(target, msie);
        assert_eq!((got.status, got.field("Connection")), (status, Some(connection)), "{target}");
    }
    server.connect().send("GET /494 HTTP/1.1\r\nHost: a\r\n\r\nNO\r\n\r\n").rest();
    server.connect().get("/494", "");
    server.connect().end().rest();
    for words in [
        "while reading client pipelined request line",
        "client 127.0.0.1 closed keepalive connection",
        "client closed connection while waiting for request, client: 127.0.0.1, server: 127.0.0.1:",
    ] {
        server.read_until("error.log", words);
    }
    server
        .raw("POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n");
    server.read_until("error.log", "client intended to send too large chunked body: 3+3 bytes");
}

#[test]
fn pages_of_pages() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; recursive_error_pages on; client_max_body_size 5;
            location /cycle { error_page 500 /cycle; return 500; }
            location /from { error_page 403 /next; return 403; }
            location /next { error_page 404 = /last; return 404; }
            location /last { return 200 last; }
            location /moved/ { rewrite ^/moved/(.*) /to/$1 redirect; }
            location /arg { rewrite ^ $arg_r? redirect; }
            location /once { recursive_error_pages off; error_page 403 /next; return 403; }
            location /large { error_page 413 /said; return 200 x; }
            location = /said { return 200 \"$status\"; } }",
    )
    .start();
    let cycle = server.get("/cycle");
    assert_eq!(cycle.status, 500);
    assert!(cycle.text().contains("500 Internal Server Error"));
    assert_eq!(server.read("error.log").matches("cycle while internally redirecting to \"/cycle\"").count(), 1);
    check(&server, &[("/from", 200, "last")]);
    let once = server.get("/once");
    assert_eq!(once.status, 404);
    assert!(once.text().contains("404 Not Found"), "the page of an error has no page: {}", once.text());
    for (target, location) in [
        ("/moved/a%20b%3f?z", "/to/a%20b??z"),
        ("/arg?r=http%3A%2F%2Fe.com%2F%3Ff%3Dx", "http://e.com/?f%3Dx"),
        ("/arg?r=http%3A%2F%2Fe.com%0D%0Asplit", "http://e.com%0D%0Asplit"),
    ] {
        let moved = server.get(target);
        assert!(moved.field("Location").is_some_and(|to| to.ends_with(location)), "{target}: {}", moved.head);
    }
    let large = server.raw("POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabcdef");
    assert_eq!((large.status, large.text().as_str()), (413, "413"));
}

#[test]
fn what_is_known_of_a_request_that_is_cut_short() {
    let server = Setup::http(
        "log_format cut '$request|$status|$body_bytes_sent|$uri|$request_method';
         server { listen 127.0.0.1:%%PORT%%; access_log cut.log cut;
            location / { proxy_pass http://127.0.0.1:1; } }",
    )
    .start();
    for half in [
        "GET /a HT",
        "GET /b HTTP/1.1\r\nHo",
        "POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nxx",
        "G@T /\r\n\r\n",
    ] {
        let mut c = server.connect();
        c.send(half).end();
        assert!(half.starts_with("G@T") || c.try_response(false).is_none(), "{half}");
    }
    std::thread::sleep(Duration::from_millis(100));
    let log = server.read("cut.log");
    let lines: Vec<_> = log.lines().map(|line| line.split_once("400|").map_or(line, |(front, _)| front)).collect();
    assert_eq!(lines, ["GET /a HT|", "GET /b HTTP/1.1|", "POST /c HTTP/1.1|", "G@T /|"], "{log}");
    assert!(log.contains("|400|0|-|-\nGET /b HTTP/1.1|400|0|/b|GET\nPOST /c HTTP/1.1|400|0|/c|POST\n"), "{log}");
}

#[test]
fn post_action() {
    let mut server = Setup::http(
        "log_format after '$request $uri $status $body_bytes_sent';
         server { listen 127.0.0.1:%%PORT%%; access_log after.log after; keepalive_timeout 5s;
            location / { post_action /after?x; return 200 shown; }
            location /denied { post_action @named; return 403; }
            location /again { post_action /again; return 201 shown; }
            location @named { return 200 hidden; }
            location /after { return 404 hidden; } }",
    )
    .start();
    let mut c = server.connect();
    assert_eq!(c.get("/1", "").text(), "shown");
    assert_eq!(c.get("/2", "").text(), "shown");
    assert_eq!(c.get("/denied", "").status, 403);
    assert_eq!(c.get("/again", "").status, 201);
    let log = server.read_until("after.log", "GET /again");
    let lines: Vec<_> = log.lines().map(|line| line.trim_end_matches(|c: char| c.is_ascii_digit())).collect();
    let expect = [
        "GET /1 HTTP/1.1 /after?x 404 ",
        "GET /2 HTTP/1.1 /after?x 404 ",
        "GET /denied HTTP/1.1 /denied 403 ",
        "GET /again HTTP/1.1 /again 500 ",
    ];
    assert_eq!(lines, expect);
}

#[test]
fn server_field() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%;
            location / { return 204; }
            location /off { server_tokens off; return 404; } }",
    )
    .start();
    let on = server.get("/");
    assert!(on.field("Server").is_some_and(|s| s.contains('/')), "{}", on.head);
    assert!(on.field("Date").is_some_and(|d| d.ends_with("GMT")), "{}", on.head);
    let off = server.get("/off");
    assert!(off.field("Server").is_some_and(|s| !s.contains('/')), "{}", off.head);
}

/// How a connection ends after these bytes, if it gets no response: whether it is reset.
fn is_reset(server: &Server, bytes: &str) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an option can be set");
    stream.write_all(bytes.as_bytes()).expect("it reads");
    match stream.read(&mut [0]) {
        Ok(0) => false,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
        other => panic!("{bytes:?}: {other:?}"),
    }
}

#[test]
fn connections_that_are_given_up() {
    let server = Setup::http(
        "client_body_timeout 100ms;
         server { listen 127.0.0.1:%%PORT%%;
            location / { reset_timedout_connection on; location /444 { return 444; } location /408 { return 408; }
                location /body { proxy_pass http://127.0.0.1:1; } }
            location /off { location /off/444 { return 444; } location /off/body { proxy_pass http://127.0.0.1:1; } } }",
    )
    .start();
    for (target, reset) in [("/444", true), ("/body", true), ("/408", false), ("/off/444", false), ("/off/body", false)]
    {
        let bytes = format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
        assert_eq!(is_reset(&server, &bytes), reset, "{target}");
    }
}
