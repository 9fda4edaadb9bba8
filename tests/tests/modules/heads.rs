//! Heads of HTTP/1 requests: hosts, request lines and fields as nginx takes them, and what the access log has of those that
//! are refused.

use e2e::{Connection, Server, Setup};

fn site() -> Server {
    Setup::http(
        "log_format heads '$status|$request|$host|$http_host|$request_uri|$uri|$request_method|$server_protocol|$request_length';
         server { listen 127.0.0.1:%%PORT%%; server_name first; access_log heads.log heads;
            return 200 '$host|$http_host|$server_name|$request_port|$request_uri|$uri'; }
         server { listen 127.0.0.1:%%PORT%%; server_name a.b a_b [::1] [zz]; access_log heads.log heads;
            return 200 '$host|$http_host|$server_name|$request_port|$request_uri|$uri'; }",
    )
    .start()
}

fn ask(server: &Server, bytes: &str) -> (u16, String) {
    let got = server.connect().send(bytes).response();
    (got.status, if got.status == 200 { got.text() } else { String::new() })
}

#[test]
fn hosts() {
    let server = site();
    for (host, expect) in [
        ("a_b", "a_b|a_b|a.b|"),
        ("A.B.:80", "a.b|A.B.:80|a.b|80"),
        ("[]", "[]|[]|first|"),
        ("[]:80", "[]|[]:80|first|80"),
        ("[zz]", "[zz]|[zz]|a.b|"),
        ("[::1]:8080", "[::1]|[::1]:8080|a.b|8080"),
        ("[v1.x:]", "[v1.x:]|[v1.x:]|first|"),
        ("a%", "a%|a%|first|"),
        ("%zz", "%zz|%zz|first|"),
        ("a%2Fb", "a%2fb|a%2Fb|first|"),
        ("a,b", "a,b|a,b|first|"),
        ("*", "*|*|first|"),
        ("a!b$&'()*+,;=~", "a!b$&'()*+,;=~|a!b$&'()*+,;=~|first|"),
        ("a:", "a|a:|first|"),
        ("a:0", "a|a:0|first|"),
        ("a:00080", "a|a:00080|first|80"),
    ] {
        let got = ask(&server, &format!("GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        assert_eq!(got, (200, format!("{expect}|/x|/x")), "Host: {host}");
    }
    for host in [
        "a b", "a/b", "a\\b", "a\0b", "a@b", "a#b", "a?b", "[a", "a]", "[%25]", "[::1].", "[a..b]", "..", "a..b", ".",
        ":80", "a:x", "a:65536", "a:80:90", "a|b", "a\"b", "a<b", "\u{e9}", "::1",
    ] {
        let got = ask(&server, &format!("GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        assert_eq!(got.0, 400, "Host: {host:?}");
    }
}

#[test]
fn a_host_in_the_uri_has_its_own_port() {
    let server = site();
    for (uri, host, expect) in [
        ("http://h/x", "a:80", "h|a:80|first||/x|/x"),
        ("http://h:81/x", "a:80", "h|a:80|first|81|/x|/x"),
        ("http://a.b:81/x", "a", "a.b|a|a.b|81|/x|/x"),
    ] {
        let got = ask(&server, &format!("GET {uri} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        assert_eq!(got, (200, expect.to_string()), "{uri}, {host}");
    }
}

#[test]
fn every_byte_in_a_host() {
    let server = site();
    let mut c = server.connect();
    for byte in 1..=255_u8 {
        let taken = byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.;=_~:".contains(&byte);
        for (before, after) in [("", "b"), ("a", "b"), ("[", "]"), ("[::", "]")] {
            let in_brackets = before.starts_with('[');
            // An empty host, and a port that is none; spaces around a value don't belong to it.
            let odd = byte == b':' && !in_brackets;
            if matches!(byte, b'\r' | b'\n') || byte == b' ' && before.is_empty() {
                continue;
            }
            let expect = taken && !odd && !(in_brackets && byte == b'%');
            let mut head = format!("GET / HTTP/1.1\r\nHost: {before}").into_bytes();
            head.push(byte);
            head.extend_from_slice(format!("{after}\r\n\r\n").as_bytes());
            let got = c.send(&head).response();
            assert_eq!(got.status, if expect { 200 } else { 400 }, "{before}\\x{byte:02x}{after}");
            if !expect {
                c = server.connect();
            }
        }
    }
}

#[test]
fn hosts_in_request_lines() {
    let server = site();
    for (target, expect) in [
        ("http://a.b", "a.b|zz|a.b||/|/"),
        ("http://a.b?q=1", "a.b|zz|a.b||?q=1|/"),
        ("http://A.B.:81/p", "a.b|zz|a.b|81|/p|/p"),
        ("https://[::1]:82/p", "[::1]|zz|a.b|82|/p|/p"),
        ("http://[]/p", "[]|zz|first||/p|/p"),
        ("http://[zz]/p", "[zz]|zz|a.b||/p|/p"),
        ("x+y.z-1://a.b/p#f", "a.b|zz|a.b||/p#f|/p"),
    ] {
        let got = ask(&server, &format!("GET {target} HTTP/1.1\r\nHost: zz\r\nConnection: close\r\n\r\n"));
        assert_eq!(got, (200, expect.to_string()), "{target}");
    }
    for host in ["", ":80", "a_b", "a%20b", "%41", "a!b", "a~", "a,b", "*", "a..b", "a:x", "u@a", "[a", "[a]b", "a\\b"]
    {
        for path in ["", "/p", "?q"] {
            let got = ask(&server, &format!("GET http://{host}{path} HTTP/1.1\r\nHost: zz\r\n\r\n"));
            assert_eq!(got.0, 400, "http://{host}{path}");
        }
    }
}

#[test]
fn too_many_fields() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; return 200 ok; }
         server { listen 127.0.0.1:%%PORT_FEW%%; max_headers 3; error_page 494 = @many; return 200 ok;
            location @many { return 431 'too many'; } }",
    )
    .start();
    let head = |n: usize| {
        let fields: String = (1..n).map(|i| format!("A{i}: 0\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    };
    assert_eq!(server.connect().send(head(1000)).response().status, 200);
    let got = server.connect().send(head(1001)).response();
    assert_eq!(got.status, 400);
    assert!(got.text().contains("400 Request Header Or Cookie Too Large"), "{}", got.text());
    let few = || Connection::open(server.port_of("PORT_FEW"));
    for (fields, status) in [("", 200), ("A: b\r\nC: d\r\n", 200), ("A: b\r\nC: d\r\nE: f\r\n", 431)] {
        let got = few().send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).response();
        assert_eq!(got.status, status, "{fields:?}");
    }
}

#[test]
fn an_answer_to_head_has_no_body_whatever_is_wrong() {
    let server = site();
    for (head, status) in [
        ("HEAD / HTTP/5.1\r\nHost: a\r\n\r\n", 505),
        ("HEAD / HTTP/1.x\r\nHost: a\r\n\r\n", 400),
        ("HEAD / XTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("HEAD /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("HEAD /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("HEAD /../x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("HEAD http://a_b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("HEAD / HTTP/1.1\r\n\r\n", 400),
        ("HEAD / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ] {
        for (method, has_body) in [("HEAD", false), ("GET", true)] {
            let head = head.replace("HEAD", method);
            let answer = String::from_utf8_lossy(&server.connect().send(&head).rest()).into_owned();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}: {answer}");
            assert_eq!(answer.ends_with("</html>\r\n"), has_body, "{head:?}: {answer}");
        }
    }
    let long = format!("HEAD /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(40_000));
    let mut c = server.connect();
    c.try_send(&long);
    let answer = String::from_utf8_lossy(&c.rest()).into_owned();
    assert!(answer.starts_with("HTTP/1.1 414 ") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn http_09_has_no_heads() {
    let server = site();
    for (head, starts) in [
        ("GET /x\r\n", "first||first||/x|/x"),
        ("GET /x\n", "first||first||/x|/x"),
        ("GET /x  \r\n", "first||first||/x|/x"),
        ("POST /x\r\n", "<html>\r\n<head><title>400 Bad Request</title></head>"),
        ("HEAD /x\r\n", "<html>\r\n<head><title>400 Bad Request</title></head>"),
    ] {
        let answer = String::from_utf8_lossy(&server.connect().send(head).rest()).into_owned();
        assert!(answer.starts_with(starts), "{head:?}: {answer}");
    }
}

/// A head, and the line that it makes in the log; `None`: the connection is closed without an answer.
const HEADS: &[(&str, &str)] = &[
    ("GET /x HTTP/1.1\r\nHost: a.b\r\n\r\n", "200|GET /x HTTP/1.1|a.b|a.b|/x|/x|GET|HTTP/1.1|30"),
    ("\r\n\r\nGET /x HTTP/1.1\r\nHost: a.b\r\n\r\n", "200|GET /x HTTP/1.1|a.b|a.b|/x|/x|GET|HTTP/1.1|30"),
    ("PURGE /x HTTP/1.1\nHost: a\n\n", "200|PURGE /x HTTP/1.1|a|a|/x|/x|PURGE|HTTP/1.1|27"),
    ("GET  /x  HTTP/1.1 \r\nHost: a\r\n\r\n", "200|GET  /x  HTTP/1.1 |a|a|/x|/x|GET|HTTP/1.1 |31"),
    ("GET http://a.b HTTP/1.1\r\nHost: c\r\n\r\n", "200|GET http://a.b HTTP/1.1|a.b|c|/|/|GET|HTTP/1.1|36"),
    ("CONNECT a.b:443 HTTP/1.1\r\nHost: c\r\n\r\n", "405|CONNECT a.b:443 HTTP/1.1|a.b|c|/|/|CONNECT|HTTP/1.1|37"),
    ("TRACE /x HTTP/1.1\r\nHost: c\r\n\r\n", "405|TRACE /x HTTP/1.1|c|c|/x|/x|TRACE|HTTP/1.1|30"),
    ("GET /x\r\n", "200|GET /x|first|-|/x|/x|GET|-|8"),
    ("POST /x\r\n", "400|POST /x|first|-|-|-|-|-|0"),
    ("bad\r\nHost: a\r\n\r\n", "400|bad|first|-|-|-|-|-|0"),
    ("get / HTTP/1.1\r\nHost: a\r\n\r\n", "400|get / HTTP/1.1|first|-|-|-|-|-|0"),
    ("GET ftp://x:y@z/ \r\nHost: a\r\n\r\n", "400|GET ftp://x:y@z/ |first|-|-|-|-|-|0"),
    ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "400|GET /a b HTTP/1.1|first|-|-|-|-|-|0"),
    ("GET / HTTP/1.1x\r\nHost: a\r\n\r\n", "400|GET / HTTP/1.1x|first|-|-|-|-||0"),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505|GET / HTTP/2.0|first|-|-|-|-||0"),
    ("GET /x\rY HTTP/1.1\r\nHost: a\r\n\r\n", "400|GET /x|first|-|-|-|-|-|0"),
    ("GET /%zz HTTP/1.1\r\nHost: a.b\r\n\r\n", "400|GET /%zz HTTP/1.1|first|-|-||GET|HTTP/1.1|19"),
    ("GET /../x HTTP/1.1\r\nHost: a.b\r\n\r\n", "400|GET /../x HTTP/1.1|first|-|-||GET|HTTP/1.1|20"),
    ("GET /x HTTP/1.1\r\n\r\n", "400|GET /x HTTP/1.1|first|-|/x|/x|GET|HTTP/1.1|19"),
    ("GET /x HTTP/1.1\r\nHost: a b\r\nX: y\r\n\r\n", "400|GET /x HTTP/1.1|first|a b|/x|/x|GET|HTTP/1.1|28"),
    ("GET /x HTTP/1.1\r\nHost: a\r\nX y\r\n\r\n", "400|GET /x HTTP/1.1|a|a|/x|/x|GET|HTTP/1.1|26"),
    (
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\nX: y\r\n\r\n",
        "400|POST /x HTTP/1.1|a|a|/x|/x|POST|HTTP/1.1|65",
    ),
    ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "400|POST /x HTTP/1.1|a|a|/x|/x|POST|HTTP/1.1|49"),
];

#[test]
fn what_the_log_has_of_heads() {
    let mut server = site();
    let mut expected = String::new();
    for (head, line) in HEADS {
        Connection::open(server.port()).send(head).end().rest();
        expected.push_str(line);
        expected.push('\n');
        let lines = server.read_until("heads.log", &expected);
        assert_eq!(lines, expected, "{head:?}");
    }
}
