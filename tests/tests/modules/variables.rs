//! What variables hold in the access log: for requests that go well, that are refused, that are cut short; one log line for
//! each request, compared field by field.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use e2e::{Backend, Connection, Server, Setup};

/// The variables that are logged, in this order.
const NAMES: &[&str] = &[
    "status",
    "request_length",
    "content_length",
    "content_type",
    "request_uri",
    "uri",
    "args",
    "request_method",
    "server_protocol",
    "host",
    "server_name",
    "server_addr",
    "remote_addr",
    "binary_remote_addr",
    "request_body",
    "request_completion",
    "pipe",
    "connection_requests",
    "body_bytes_sent",
    "sent_http_content_type",
    "sent_http_content_length",
    "upstream_status",
    "upstream_response_length",
    "http2",
];

fn site() -> (Server, Backend) {
    let backend = Backend::start(|_| Backend::ok("hello"));
    let port = backend.port;
    let format = NAMES.iter().map(|name| format!("{name}=${name}")).collect::<Vec<_>>().join("\t");
    let server = Setup::http(&format!(
        "log_format all '{format}'; access_log all.log all; default_type text/plain; server_tokens off;
         server {{ listen 127.0.0.1:%%PORT%%; listen unix:%%DIR%%/socket; server_name main; client_max_body_size 1k;
            lingering_timeout 100ms; root %%DIR%%/html;
            location / {{ }}
            location /text {{ return 200 text; }}
            location /p/ {{ proxy_pass http://127.0.0.1:{port}/; }}
            location /403 {{ deny all; }}
            location /again {{ rewrite ^ /file?z=1 last; }}
         }}
         server {{ listen 127.0.0.1:%%PORT%%; server_name other; return 200 other; }}"
    ))
    .file("html/file", "0123456789")
    .start();
    (server, backend)
}

/// Checks the variables that are named in the line that follows those that were there.
fn check(server: &mut Server, seen: &mut usize, what: &str, expected: &[(&str, &str)]) {
    let count = *seen + 1;
    server.wait(|s| s.read("all.log").lines().count() >= count, &format!("a log line of {what}"));
    let log = server.read("all.log");
    let line = log.lines().nth(*seen).unwrap_or_default();
    *seen = count;
    for (name, value) in expected {
        let found = line.split('\t').find_map(|field| field.strip_prefix(&format!("{name}=")));
        // Empty lines before a request don't belong to it.
        let request = what.trim_start_matches("\r\n");
        let length = match *value {
            "WHOLE" => Some(request.len()),
            "HEAD" => request.find("\r\n\r\n").map(|end| end + 4),
            _ => None,
        };
        let value = length.map_or(value.to_string(), |length| length.to_string());
        assert_eq!(found, Some(&*value), "${name} of {what}: {line}");
    }
}

/// What is sent on a connection of its own, and what the log has of it: `WHOLE` is its length, `HEAD` that of its head.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)]);

const CASES: &[Case<'_>] = &[
    (
        "GET /file?a=b HTTP/1.1\r\nHost: main\r\nConnection: close\r\n\r\n",
        &[
            ("status", "200"),
            ("request_length", "WHOLE"),
            ("content_length", "-"),
            ("request_uri", "/file?a=b"),
            ("uri", "/file"),
            ("args", "a=b"),
            ("request_body", "-"),
            ("request_completion", "OK"),
            ("pipe", "."),
            ("connection_requests", "1"),
            ("body_bytes_sent", "10"),
            ("sent_http_content_type", "text/plain"),
            ("sent_http_content_length", "10"),
            ("upstream_status", "-"),
            ("server_addr", "127.0.0.1"),
            ("binary_remote_addr", "\\x7F\\x00\\x00\\x01"),
            ("http2", ""),
        ],
    ),
    (
        "GET /again?a=b HTTP/1.1\r\nHost: main\r\nConnection: close\r\n\r\n",
        &[("status", "200"), ("request_uri", "/again?a=b"), ("uri", "/file"), ("args", "z=1&a=b")],
    ),
    (
        "\r\n\r\nGET http://other HTTP/1.1\r\nHost: main\r\nConnection: close\r\n\r\n",
        &[("request_length", "WHOLE"), ("request_uri", "/"), ("uri", "/"), ("host", "other"), ("server_name", "other")],
    ),
    // A body that came with the head counts, if somebody has read it.
    (
        "POST /p/ HTTP/1.1\r\nHost: main\r\nConnection: close\r\nContent-Length: 5\r\n\r\nabcde",
        &[
            ("status", "200"),
            ("request_length", "WHOLE"),
            ("content_length", "5"),
            ("request_body", "abcde"),
            ("upstream_status", "200"),
            ("upstream_response_length", "5"),
            ("body_bytes_sent", "5"),
        ],
    ),
    (
        "POST /p/ HTTP/1.1\r\nHost: main\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nabcde\r\n0\r\nA: b\r\n\r\n",
        &[("request_length", "WHOLE"), ("content_length", "5"), ("request_body", "abcde")],
    ),
    (
        "POST /p/ HTTP/1.1\r\nHost: main\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        &[("request_length", "WHOLE"), ("content_length", "0")],
    ),
    (
        "POST /text HTTP/1.1\r\nHost: main\r\nConnection: close\r\nContent-Length: 5\r\n\r\nabcde",
        &[("status", "200"), ("request_length", "HEAD"), ("content_length", "5"), ("request_body", "-")],
    ),
    (
        "POST /403 HTTP/1.1\r\nHost: main\r\nConnection: close\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\nabcde",
        &[("status", "403"), ("request_length", "HEAD"), ("content_length", "5"), ("content_type", "a/b")],
    ),
    (
        "POST /text HTTP/1.1\r\nHost: main\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        &[("status", "200"), ("request_length", "HEAD"), ("content_length", "0")],
    ),
    // Of a body that is refused nothing counts.
    (
        "POST /p/ HTTP/1.1\r\nHost: main\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n401\r\nx",
        &[("status", "413"), ("request_length", "HEAD"), ("upstream_status", "-")],
    ),
    (
        "POST /p/ HTTP/1.1\r\nHost: main\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcdex\r\n",
        &[("status", "400"), ("request_length", "HEAD"), ("upstream_status", "-")],
    ),
    (
        "POST /p/ HTTP/1.1\r\nHost: main\r\nContent-Length: 5000\r\n\r\nx",
        &[("status", "413"), ("request_length", "HEAD"), ("content_length", "5000"), ("request_completion", "OK")],
    ),
    (
        "bad\r\nHost: main\r\n\r\n",
        &[
            ("status", "400"),
            ("request_length", "0"),
            ("request_uri", "-"),
            ("uri", "-"),
            ("args", "-"),
            ("request_method", "-"),
            ("server_protocol", "-"),
            ("host", "main"),
            ("sent_http_content_type", "text/html"),
        ],
    ),
    ("GET / HTTP/7.0\r\nHost: main\r\n\r\n", &[("status", "505"), ("server_protocol", ""), ("request_method", "-")]),
    (
        "GET /file?a HTTP/1.1\r\nHost: other\r\nContent-Length: x\r\n\r\n",
        &[
            ("status", "400"),
            ("request_length", "HEAD"),
            ("content_length", "x"),
            ("request_uri", "/file?a"),
            ("uri", "/file"),
            ("args", "a"),
            ("server_name", "other"),
        ],
    ),
];

#[test]
fn variables_of_single_requests() {
    let (mut server, _backend) = site();
    let mut seen = 0;
    for (request, expected) in CASES {
        Connection::open(server.port()).send(request).rest();
        check(&mut server, &mut seen, request, expected);
    }
}

#[test]
fn variables_of_requests_that_follow_others() {
    let (mut server, _backend) = site();
    let mut seen = 0;
    let first = "GET /file HTTP/1.1\r\nHost: main\r\n\r\n";
    let second = "POST /p/ HTTP/1.1\r\nHost: main\r\nContent-Length: 3\r\n\r\nabc";
    let third = "\r\nHEAD /file HTTP/1.1\r\nHost: main\r\nConnection: close\r\n\r\n";
    server.connect().send([first, second, third].concat()).rest();
    check(&mut server, &mut seen, first, &[("request_length", "WHOLE"), ("connection_requests", "1"), ("pipe", ".")]);
    let expected = [("request_length", "WHOLE"), ("connection_requests", "2"), ("pipe", "p"), ("request_body", "abc")];
    check(&mut server, &mut seen, second, &expected);
    let expected = [("request_length", "WHOLE"), ("connection_requests", "3"), ("pipe", "p"), ("body_bytes_sent", "0")];
    check(&mut server, &mut seen, third, &expected);
}

#[test]
fn variables_of_a_unix_socket() {
    let (mut server, _backend) = site();
    let path = server.folder().path().join("socket");
    let mut stream = UnixStream::connect(&path).expect("it listens");
    stream.write_all(b"GET /file HTTP/1.1\r\nHost: main\r\nConnection: close\r\n\r\n").expect("the server reads");
    stream.read_to_end(&mut Vec::new()).expect("an answer");
    let own = format!("unix:{}", path.display());
    let expected =
        [("server_addr", &*own), ("remote_addr", "unix:"), ("binary_remote_addr", "unix:"), ("status", "200")];
    check(&mut server, &mut 0, "a unix socket", &expected);
}

#[test]
fn the_bytes_of_a_tunnel_are_counted() {
    let backend = Backend::sockets(|mut stream, _| {
        let mut got = [0; 4096];
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let n = stream.read(&mut got).unwrap_or(0);
            head.extend_from_slice(&got[..n]);
            assert!(n > 0, "a whole head");
        }
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n";
        stream.write_all(answer).expect("the server reads");
        let mut left = 5000;
        while left > 0 {
            left -= stream.read(&mut got).unwrap_or(0);
        }
        stream.write_all(b"enough").expect("the server reads");
    });
    let port = backend.port;
    let mut server = Setup::http(&format!(
        "log_format l '$upstream_bytes_sent $upstream_bytes_received';
         server {{ listen 127.0.0.1:%%PORT%%; access_log tunnel.log l;
            location / {{ proxy_pass http://127.0.0.1:{port}; proxy_set_header Host a; proxy_set_header Upgrade x;
                proxy_set_header Connection Upgrade; }} }}"
    ))
    .start();
    let mut c = server.connect();
    c.send("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n");
    assert_eq!(c.response().status, 101);
    assert_eq!(c.send(vec![b'w'; 5000]).rest(), b"enough");
    let head = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n".len();
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nenough".len();
    let log = server.read_until("tunnel.log", "\n");
    assert_eq!(log, format!("{} {answer}\n", head + 5000));
}

/// What `Backend` answers to the paths of [`variables_after_redirects_and_broken_bodies`].
fn answer_by_path(path: &str) -> Vec<u8> {
    let accel =
        |to: &str| format!("HTTP/1.1 200 OK\r\nX-Accel-Redirect: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes();
    match path {
        "/p/accel" => accel("/text"),
        "/p/empty" => accel("/text?"),
        "/p/named" => accel("@named"),
        "/p/broken" => accel("/%25/a%4/b%"),
        "/p/404" => b"HTTP/1.1 404 Not Found\r\nServer: own\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "/p/cut" => b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nx".to_vec(),
        _ => Backend::ok("ok"),
    }
}

#[test]
fn variables_after_redirects_and_broken_bodies() {
    let backend = Backend::start(|request| answer_by_path(request.line().split(' ').nth(1).unwrap_or_default()));
    let port = backend.port;
    let mut server = Setup::http(&format!(
        "log_format l '$uri|$args|$proxy_host|$proxy_internal_body_length|$upstream_http_server|$request_body|\
            $request_completion|$upstream_status';
         proxy_intercept_errors on; error_page 404 /text;
         upstream group {{ server 127.0.0.1:{port}; }}
         server {{ listen 127.0.0.1:%%PORT%%; access_log l.log l;
            location / {{ return 200 text; }}
            location @named {{ return 200 text; }}
            location /p/ {{ proxy_pass http://group; }}
            location /set {{ set $args ''; return 200 text; }}
            location /rewrite {{ rewrite ^ /text? last; }}
            location /try {{ try_files /nothing /text; }} }}"
    ))
    .start();
    let cases = [
        ("GET /p/ok", "", "", "/p/ok|-|group|-||-|OK|200"),
        ("POST /p/ok", "Content-Length: 2\r\n", "ab", "/p/ok|-|group|2||ab|OK|200"),
        ("POST /p/ok", "Content-Length: 0\r\n", "", "/p/ok|-|group|0|||OK|200"),
        ("POST /p/ok", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n", "/p/ok|-|group|0|||OK|200"),
        ("POST /p/ok", "Content-Length: 5\r\n", "ab", "/p/ok|-|group|0|-|ab||-"),
        ("POST /p/ok", "Transfer-Encoding: chunked\r\n", "z\r\n", "/p/ok|-|group|0|-|-|OK|-"),
        ("GET /p/accel", "", "", "/text|-|-|-||-|OK|200"),
        ("GET /p/empty", "", "", "/text||-|-||-|OK|200"),
        ("GET /p/named", "", "", "/p/named|-|-|-||-|OK|200"),
        ("GET /p/broken", "", "", "/%/ab|-|-|-||-|OK|200"),
        ("GET /p/404", "", "", "/text|-|-|-|own|-|OK|404"),
        ("GET /p/cut", "", "", "/p/cut|-|group|-||-|OK|200"),
        ("GET /set?a", "", "", "/set||-|-|-|-|OK|-"),
        ("GET /rewrite?a", "", "", "/text||-|-|-|-|OK|-"),
        ("GET /rewrite", "", "", "/text|-|-|-|-|-|OK|-"),
        ("GET /try?a", "", "", "/text||-|-|-|-|OK|-"),
    ];
    for (n, (line, fields, body, expected)) in cases.iter().enumerate() {
        let mut c = server.connect();
        c.send(format!("{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n{body}"));
        if fields.contains("Length: 5") {
            c.end();
        }
        c.rest();
        server.wait(|s| s.read("l.log").lines().count() > n, "a log line");
        assert_eq!(server.read("l.log").lines().nth(n), Some(*expected), "{line} {fields}");
    }
}

/// The log tells of it, and the request is answered: nothing overflows, and nothing takes forever.
#[test]
fn variables_that_refer_to_themselves() {
    let mut server = Setup::http(
        "map $uri $once { default \"[$once]\"; }
         map $uri $twice { volatile; default \"$twice$twice\"; }
         map $uri $folder { default $document_root; }
         map $uri $real { default $realpath_root; }
         map $uri $other { default other; }
         server { listen 127.0.0.1:%%PORT%%; root %%DIR%%/html; add_header After \"$other $uri\";
            location /rate { limit_rate $limit_rate; return 200 \"$limit_rate\"; }
            location /name { root /x$request_filename; return 200 \"$request_filename\"; }
            location /file { root /x$request_filename; }
            location /alias { alias $request_filename; }
            location /folder { root /x$folder; return 200 \"$document_root\"; }
            location /real { root /x$real; return 200 \"[$realpath_root]\"; }
            location /once { return 200 \"$once\"; }
            location /twice { return 200 \"<$twice>\"; } }",
    )
    .start();
    let nested = |begin: &str, end: &str| format!("{}{}", begin.repeat(100), end.repeat(100));
    for (path, expect) in [
        ("/rate", "0".to_owned()),
        ("/name", nested("/x", "/name")),
        ("/folder", "/x".repeat(50)),
        ("/real", "[]".to_owned()),
        ("/once", nested("[", "]")),
        ("/twice", "<>".to_owned()),
    ] {
        let got = server.get(path);
        assert_eq!((got.status, got.text()), (200, expect), "{path}");
        assert_eq!(got.field("After"), Some(&*format!("other {path}")));
    }
    assert_eq!(server.get("/file").status, 404);
    server.get("/alias");
    for name in ["request_filename", "document_root", "realpath_root", "once", "twice"] {
        server.read_until("error.log", &format!("cycle while evaluating variable \"{name}\""));
    }
}

/// `$limit_rate` is what is set; what the directive says is in it once the response is begun.
#[test]
fn the_rate_of_a_response() {
    let mut server = Setup::http(
        "log_format rate '$uri $limit_rate'; access_log rate.log rate; map $uri $five { default 5k; }
         server { listen 127.0.0.1:%%PORT%%;
            location /fixed { limit_rate 7k; return 200 $limit_rate; }
            location /mapped { limit_rate $five; return 200 $limit_rate; }
            location /set { limit_rate 7k; set $limit_rate 9k; return 200 $limit_rate; }
            location /none { return 200 $limit_rate; } }",
    )
    .start();
    for (path, in_body, in_log) in
        [("/fixed", "0", "7168"), ("/mapped", "0", "5120"), ("/set", "9216", "9216"), ("/none", "0", "0")]
    {
        assert_eq!(server.get(path).text(), in_body, "{path}");
        server.read_until("rate.log", &format!("{path} {in_log}\n"));
    }
}
