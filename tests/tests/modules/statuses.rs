//! Every status that `return`, `error_page` and backends may bring: its reason, its page, its fields.

use std::fmt::Write as _;

use e2e::{Backend, Server, Setup};

/// The statuses with a reason of the server's own.
const REASONS: &[(u16, &str)] = &[
    (200, "OK"),
    (201, "Created"),
    (202, "Accepted"),
    (204, "No Content"),
    (206, "Partial Content"),
    (301, "Moved Permanently"),
    (302, "Moved Temporarily"),
    (303, "See Other"),
    (304, "Not Modified"),
    (307, "Temporary Redirect"),
    (308, "Permanent Redirect"),
    (400, "Bad Request"),
    (401, "Unauthorized"),
    (402, "Payment Required"),
    (403, "Forbidden"),
    (404, "Not Found"),
    (405, "Not Allowed"),
    (406, "Not Acceptable"),
    (407, "Proxy Authentication Required"),
    (408, "Request Time-out"),
    (409, "Conflict"),
    (410, "Gone"),
    (411, "Length Required"),
    (412, "Precondition Failed"),
    (413, "Request Entity Too Large"),
    (414, "Request-URI Too Large"),
    (415, "Unsupported Media Type"),
    (416, "Requested Range Not Satisfiable"),
    (421, "Misdirected Request"),
    (429, "Too Many Requests"),
    (500, "Internal Server Error"),
    (501, "Not Implemented"),
    (502, "Bad Gateway"),
    (503, "Service Temporarily Unavailable"),
    (504, "Gateway Time-out"),
    (505, "HTTP Version Not Supported"),
    (507, "Insufficient Storage"),
];

/// Statuses that aren't asked for here: 425, 426 and 498 differ (docs/COMPAT.md), 408, 444 and 499 have no answer, and
/// 494 to 497 go out as 400.
fn is_plain(status: u16) -> bool {
    !matches!(status, 408 | 425 | 426 | 444 | 494..=499)
}

fn line(status: u16) -> String {
    let reason = REASONS.iter().find(|(known, _)| *known == status).map_or("", |(_, reason)| *reason);
    format!("HTTP/1.1 {status} {reason}")
}

fn titles(status: u16) -> Option<String> {
    let reason = match status {
        0..=300 | 304 => return None,
        302 => "Found",
        401 => "Authorization Required",
        _ => REASONS.iter().find(|(known, _)| *known == status)?.1,
    };
    Some(format!("{status} {reason}"))
}

/// A server with a location `/NAME123` for each status.
fn site(more: &str, each: impl Fn(u16) -> String) -> Server {
    let mut locations = String::new();
    for status in (200..1000).filter(|status| is_plain(*status)) {
        let _ = writeln!(locations, "{}", each(status));
    }
    Setup::http(&format!(
        "server_tokens off; default_type text/plain;
         server {{ listen 127.0.0.1:%%PORT%%; keepalive_requests 100000; {more}\n{locations} }}"
    ))
    .start()
}

#[test]
fn returned_statuses() {
    let server = site("", |s| format!("location = /r{s} {{ return {s}; }} location = /t{s} {{ return {s} text; }}"));
    for status in (200..1000).filter(|status| is_plain(*status)) {
        let got = server.get(&format!("/r{status}"));
        let title = titles(status);
        assert_eq!(got.head.split("\r\n").next(), Some(&*line(status)), "return {status}");
        match &title {
            Some(title) => {
                let page =
                    format!("<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1>");
                assert!(got.text().starts_with(&page), "return {status}: {}", got.text());
                assert_eq!(got.field("Content-Type"), Some("text/html"), "return {status}");
            }
            None => assert_eq!(got.text(), "", "return {status}"),
        }
        let text = server.get(&format!("/t{status}"));
        let expect = match status {
            204 | 304 => "",
            301 | 302 | 303 | 307 | 308 => &*got.text(),
            _ => "text",
        };
        assert_eq!((text.head.split("\r\n").next(), text.text().as_str()), (Some(&*line(status)), expect), "{status}");
        let redirects = matches!(status, 301 | 302 | 303 | 307 | 308);
        assert_eq!(text.field("Location"), redirects.then_some("text"), "return {status} text");
        for name in ["r", "t"] {
            let mut c = server.connect();
            let head = c.send(format!("HEAD /{name}{status} HTTP/1.0\r\nHost: a\r\n\r\n")).head_response();
            let whole = server.get(&format!("/{name}{status}"));
            let fields = ["Content-Type", "Content-Length", "Location"];
            assert_eq!(fields.map(|f| head.field(f)), fields.map(|f| whole.field(f)), "HEAD /{name}{status}");
            assert_eq!(String::from_utf8_lossy(&c.rest()), "", "HEAD /{name}{status}");
        }
    }
}

#[test]
fn statuses_of_error_pages() {
    let server = site("location = /page { return 200 page; } location @named { return 200 named; }", |s| {
        let own = if (300..600).contains(&s) {
            format!("location = /o{s} {{ error_page {s} /page; return {s}; }}")
        } else {
            String::new()
        };
        format!(
            "location = /p{s} {{ error_page 404 ={s} /page; return 404; }}
                 location = /n{s} {{ error_page 404 ={s} @named; return 404; }}
                 location = /u{s} {{ error_page 404 ={s} http://example.com/x; return 404; }} {own}"
        )
    });
    for status in (200..1000).filter(|status| is_plain(*status)) {
        let empty = matches!(status, 204 | 304);
        for (name, text) in [("p", "page"), ("n", "named")] {
            let got = server.get(&format!("/{name}{status}"));
            let expect = (line(status), if empty { "" } else { text });
            assert_eq!(
                (got.head.split("\r\n").next().unwrap_or_default(), got.text().as_str()),
                (&*expect.0, expect.1)
            );
        }
        let got = server.get(&format!("/u{status}"));
        let moved = if matches!(status, 301 | 303 | 307 | 308) { status } else { 302 };
        assert_eq!((got.status, got.field("Location")), (moved, Some("http://example.com/x")), "{status}");
        if (300..600).contains(&status) {
            let got = server.get(&format!("/o{status}"));
            // A 300 or 304 that is returned is an answer, not an error.
            let expect = if matches!(status, 300 | 304..=306 | 309..400) { "" } else { "page" };
            assert_eq!((got.status, got.text().as_str()), (status, expect), "error_page {status}");
        }
    }
}

#[test]
fn statuses_of_backends() {
    let backend = Backend::start(|request| {
        let target = request.line().split(' ').nth(1).unwrap_or_default();
        let status = &target[2..];
        let reason = if target.starts_with("/w") { " Own words" } else { "" };
        format!("HTTP/1.1 {status}{reason}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi").into_bytes()
    });
    let port = backend.port;
    let server = site(&format!("location / {{ proxy_pass http://127.0.0.1:{port}; }}"), |_| String::new());
    for status in 200..1000 {
        let body = if matches!(status, 204 | 304) { "" } else { "hi" };
        for (target, reason) in [("/w", " Own words"), ("/n", "")] {
            let got = server.get(&format!("{target}{status}"));
            let first = format!("HTTP/1.1 {status}{reason}");
            assert_eq!((got.head.split("\r\n").next(), got.text().as_str()), (Some(&*first), body), "{target}{status}");
        }
    }
}
