//! `charset`: the charset is named, and texts are recoded.

use e2e::{Backend, Setup};

const MAPS: &str = "charset_map koi8-r utf-8 { C0 D18E; 80 E282AC; }
    charset_map koi8-r w { C0 E0; }
    charset_map B A { 58 59; }";

#[test]
fn names() {
    let server = Setup::http(
        "types { text/html html; text/css css; }
         server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; default_type text/plain; charset utf-8;
            location / { }
            location /css/ { alias %%DIR%%/; charset_types text/css; }
            location /off/ { alias %%DIR%%/; charset off; }
            location /asked { charset $arg_c; return 200 x; }
            location /own { default_type 'text/plain; charset=own'; return 200 x; }
            location /moved { return 301 /x; }
            location /gone { return 404; }
            location /other { return 303 /x; } }",
    )
    .file("a.html", "x")
    .file("a.css", "x")
    .start();
    for (target, expect) in [
        ("/a.html", "text/html; charset=utf-8"),
        ("/a.css", "text/css"),
        ("/css/a.css", "text/css; charset=utf-8"),
        ("/off/a.html", "text/html"),
        ("/asked?c=abc", "text/plain; charset=abc"),
        ("/own", "text/plain; charset=own"),
        ("/moved", "text/html"),
        ("/gone", "text/html; charset=utf-8"),
        ("/other", "text/html; charset=utf-8"),
    ] {
        assert_eq!(server.get(target).field("Content-Type"), Some(expect), "{target}");
    }
}

/// Differs from nginx: a variable of `charset` that is empty
#[test]
fn an_empty_name_is_none() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; default_type text/plain; charset $arg_c; location / { return 200 x; } }",
    )
    .start();
    assert_eq!(server.get("/").field("Content-Type"), Some("text/plain"));
}

#[test]
fn texts_are_recoded() {
    let server = Setup::http(&format!(
        "types {{ text/plain txt; }} {MAPS}
         server {{ listen 127.0.0.1:%%PORT%%; root %%DIR%%;
            location /to/ {{ alias %%DIR%%/; charset utf-8; source_charset koi8-r; }}
            location /from/ {{ alias %%DIR%%/; charset koi8-r; source_charset UTF-8; }}
            location /bytes/ {{ alias %%DIR%%/; charset w; source_charset koi8-r; }}
            location /asked/ {{ alias %%DIR%%/; charset $arg_c; source_charset koi8-r; }} }}"
    ))
    .file("koi.txt", b"abc\xc0\x80\x81")
    .file("utf.txt", "abc\u{44e}\u{430}\u{20ac}")
    .file("large.txt", "\u{44e}".repeat(50_001))
    .start();
    for (target, expect) in [
        ("/to/koi.txt", "abc\u{44e}\u{20ac}?".as_bytes()),
        ("/from/utf.txt", b"abc\xc0&#1072;\x80"),
        ("/from/large.txt", &b"\xc0".repeat(50_001)),
        ("/bytes/koi.txt", b"abc\xe0??"),
        ("/asked/koi.txt?c=w", b"abc\xe0??"),
        ("/asked/koi.txt?c=none", b"abc\xc0\x80\x81"),
    ] {
        assert!(server.get(target).body == expect, "{target}");
    }
    let bytes = server.get("/bytes/koi.txt");
    assert_eq!((bytes.field("Content-Length"), bytes.field("Accept-Ranges")), (Some("6"), Some("bytes")));
    let to = server.get_with("/to/koi.txt", "Range: bytes=0-1\r\n");
    assert_eq!((to.status, to.field("Content-Length"), to.field("Accept-Ranges")), (200, None, None));
    assert_eq!(server.get("/asked/koi.txt?c=none").field("Content-Type"), Some("text/plain"));
    assert!(server.read("error.log").contains("no \"charset_map\" between the charsets \"koi8-r\" and \"none\""));
}

#[test]
fn ranges_of_recoded_texts() {
    let server = Setup::http(&format!(
        "types {{ text/plain txt; }} {MAPS}
         server {{ listen 127.0.0.1:%%PORT%%; root %%DIR%%; charset A; source_charset B; }}"
    ))
    .file("a.txt", "X00000X1111X")
    .start();
    let one = server.get_with("/a.txt", "Range: bytes=5-7\r\n");
    assert_eq!((one.status, one.text().as_str(), one.field("Content-Range")), (206, "0Y1", Some("bytes 5-7/12")));
    let several = server.get_with("/a.txt", "Range: bytes=6-7,0-1\r\n");
    let text = several.text();
    assert_eq!((several.status, several.field("Content-Length")), (206, Some(text.len().to_string().as_str())));
    assert_eq!(text.matches("Content-Type: text/plain; charset=A\r\n").count(), 2, "{text}");
    let places: Vec<_> =
        ["bytes 6-7/12\r\n\r\nY1\r\n--", "bytes 0-1/12\r\n\r\nY0\r\n--"].map(|part| text.find(part)).into();
    assert!(places[0].is_some() && places[0] < places[1], "{text}");
}

#[test]
fn charsets_of_backends() {
    let backend = Backend::start(|request| {
        let fields = match request.line().split(' ').nth(1) {
            Some("/named") => "Content-Type: text/html; charset=B\r\n",
            Some("/asks") => "Content-Type: text/html; charset=B\r\nX-Accel-Charset: A\r\n",
            Some("/json") => "Content-Type: application/json; charset=B\r\n",
            Some("/json/unnamed") => "Content-Type: application/json\r\n",
            Some("/asks/strange") => "Content-Type: text/html\r\nX-Accel-Charset: none\r\n",
            _ => "Content-Type: text/html\r\n",
        };
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nXY").into_bytes()
    });
    let server = Setup::http(&format!(
        "{MAPS} server {{ listen 127.0.0.1:%%PORT%%;
            location / {{ proxy_pass http://127.0.0.1:{0}; charset A; }}
            location /over/ {{ proxy_pass http://127.0.0.1:{0}/; charset A; override_charset on; }}
            location /deaf/ {{ proxy_pass http://127.0.0.1:{0}/; proxy_ignore_headers X-Accel-Charset; }} }}",
        backend.port
    ))
    .start();
    for (target, kind, text) in [
        ("/", "text/html; charset=A", "XY"),
        ("/named", "text/html; charset=B", "XY"),
        ("/over/named", "text/html; charset=A", "YY"),
        // `charset_types` is about responses that name none.
        ("/over/json", "application/json; charset=A", "YY"),
        ("/over/json/unnamed", "application/json", "XY"),
        ("/json", "application/json; charset=B", "XY"),
        ("/asks", "text/html; charset=A", "YY"),
        ("/asks/strange", "text/html", "XY"),
        ("/deaf/asks", "text/html; charset=B", "XY"),
    ] {
        let got = server.get(target);
        assert_eq!((got.field("Content-Type"), got.text().as_str()), (Some(kind), text), "{target}");
    }
    assert!(server.read("error.log").contains("unknown charset \"none\" to override"));
}

#[test]
fn parts_of_a_page_have_its_charset() {
    let backend = Backend::start(|request| {
        let (kind, body) = match request.line().split(' ').nth(1) {
            Some("/page") => ("text/html; charset=utf-8", "[<!--#include virtual=\"/from/w\" -->]"),
            _ => ("text/html; charset=B", "XX"),
        };
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
    });
    let page = |name: &str| format!("[<!--#include virtual=\"/{name}/x\" -->]");
    let server = Setup::http(&format!(
        "{MAPS} charset_map w utf-8 {{ C0 D090; }} charset_map B utf-8 {{ 58 D096; }}
         server {{ listen 127.0.0.1:%%PORT%%; root %%DIR%%; ssi on; default_type text/html;
            location /u/ {{ alias %%DIR%%/pages/; charset utf-8; source_charset koi8-r; }}
            location /k/ {{ alias %%DIR%%/pages/; charset koi8-r; }}
            location /none/ {{ alias %%DIR%%/pages/; source_charset koi8-r; }}
            location /plain/ {{ alias %%DIR%%/parts/; }}
            location /koi/ {{ alias %%DIR%%/parts/; source_charset koi8-r; charset w; }}
            location /from/ {{ alias %%DIR%%/parts/; source_charset w; default_type application/x-any; }}
            location /outer/ {{ alias %%DIR%%/outer/; charset w; }}
            location /backend/ {{ proxy_pass http://127.0.0.1:{0}/; charset koi8-r; source_charset koi8-r; }} }}",
        backend.port
    ))
    .file("pages/plain", page("plain"))
    .file("pages/koi", page("koi"))
    .file("pages/from", page("from"))
    .file("pages/backend", page("backend"))
    .file("pages/nested", page("outer"))
    .file("outer/x", page("from"))
    .file("parts/x", b"\xc0\xc0")
    .file("parts/w", b"\xc0\xc0")
    .start();
    for (target, expect) in [
        ("/u/plain", &b"[\xc0\xc0]"[..]),
        ("/u/koi", "[\u{44e}\u{44e}]".as_bytes()),
        ("/u/from", "[\u{410}\u{410}]".as_bytes()),
        ("/u/backend", "[\u{416}\u{416}]".as_bytes()),
        ("/u/nested", "[[\u{410}\u{410}]]".as_bytes()),
        ("/k/koi", b"[\xc0\xc0]"),
        ("/none/koi", b"[\xc0\xc0]"),
        ("/backend/page", "[\u{410}\u{410}]".as_bytes()),
    ] {
        let body = server.get(target).body;
        assert_eq!(body.escape_ascii().to_string(), expect.escape_ascii().to_string(), "{target}");
    }
}

/// Differs from nginx: a part of a page that is one character
#[test]
fn a_part_of_a_page_may_be_one_character() {
    let server = Setup::http(
        "charset_map w utf-8 { C0 D090; }
         server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; ssi on; charset utf-8; types { text/html html; }
             location /part { source_charset w; } }",
    )
    .file("page.html", "[<!--#include virtual=\"/part\" -->]")
    .file("part", b"\xc0")
    .start();
    assert_eq!(server.get("/page.html").text(), "[\u{410}]");
}
