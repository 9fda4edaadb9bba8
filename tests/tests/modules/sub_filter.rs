//! `sub_filter`: strings in responses are replaced by others.

use e2e::{Backend, Setup};

const CONF: &str = "types { text/html html; text/css css; }
    server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; default_type text/html;
        sub_filter tide '<$arg_new>'; sub_filter gate Gate;
        location / { }
        location /all/ { alias %%DIR%%/; sub_filter_once off; sub_filter_types text/css; }
        location /kept/ { alias %%DIR%%/; sub_filter_last_modified on; }
        location /other/ { alias %%DIR%%/; sub_filter tide ebb; }
        location /asked { sub_filter $arg_a 1; sub_filter x$arg_b 2; sub_filter_once off; return 200 $arg_text; }
        location /order { sub_filter bc 1; sub_filter abcd 2; sub_filter ab 3; sub_filter_once off; return 200 $arg_text; }
        location /packed/ { alias %%DIR%%/; gzip on; gzip_min_length 1; add_trailer X-After $request_method; }
    }";

#[test]
fn strings_and_replacements() {
    let server = Setup::http(CONF)
        .file("a.html", "Tide and gate, TIDE and GATE")
        .file("a.css", "tide")
        .file("empty.html", "")
        .start();
    for (target, expect) in [
        ("/a.html?new=1", "<1> and Gate, TIDE and GATE"),
        ("/a.html", "<> and Gate, TIDE and GATE"),
        ("/a.css", "tide"),
        ("/all/a.html?new=1", "<1> and Gate, <1> and Gate"),
        ("/all/a.css", "<>"),
        ("/other/a.html", "ebb and gate, TIDE and GATE"),
        ("/asked?a=ab&b=y&text=abXYab", "121"),
        ("/asked?text=xyx", "2y2"),
        ("/order?text=abcdxbcdabce", "2x1d3ce"),
        ("/order?text=abca", "3ca"),
    ] {
        assert_eq!(server.get(target).text(), expect, "{target}");
    }
    // What isn't searched stays as it is.
    for target in ["/a.css", "/empty.html"] {
        let got = server.get(target);
        assert!(got.field("Content-Length").is_some() && got.field("ETag").is_some(), "{}", got.head);
    }
}

#[test]
fn fields() {
    let server = Setup::http(CONF).file("a.html", "Tide and gate").start();
    let got = server.get_with("/a.html", "Range: bytes=0-3\r\n");
    assert_eq!((got.status, got.text().as_str()), (200, "<> and Gate"));
    for name in ["Content-Length", "Last-Modified", "ETag", "Accept-Ranges"] {
        assert_eq!(got.field(name), None, "{name}");
    }
    let kept = server.get("/kept/a.html");
    assert!(kept.field("ETag").is_some_and(|tag| tag.starts_with("W/")), "{}", kept.head);
    assert!(kept.field("Last-Modified").is_some(), "{}", kept.head);
    let mut client = server.connect();
    let head = client.send("HEAD /a.html HTTP/1.1\r\nHost: a\r\n\r\n").head_response();
    assert_eq!((head.status, head.field("ETag")), (200, None));
    let request = "GET /packed/a.html HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";
    let packed = client.send(request).rest();
    let packed = String::from_utf8_lossy(&packed);
    assert!(packed.contains("Content-Encoding: gzip\r\n") && packed.ends_with("\r\n0\r\nX-After: GET\r\n\r\n"));
}

#[test]
fn strings_across_parts() {
    let text = format!("{}abpatternyz", "abpattern".repeat(9000));
    let backend = Backend::start({
        let text = text.clone();
        move |_| {
            let chunk = |bytes: &[u8]| format!("{}\r\n{}\r\n", bytes.len(), bytes.escape_ascii());
            let chunks: String = text.as_bytes().chunks(5).map(chunk).collect();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n";
            format!("{head}{chunks}0\r\n\r\n").into_bytes()
        }
    });
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; sub_filter abpatternyz +; sub_filter patter -; sub_filter_once off;
           location / {{ proxy_pass http://127.0.0.1:{0}; }}
           location /unbuffered {{ proxy_pass http://127.0.0.1:{0}; proxy_buffering off; }} }}",
        backend.port
    ))
    .start();
    let expect = format!("{}+", "ab-n".repeat(9000));
    for target in ["/", "/unbuffered"] {
        assert!(server.get(target).text() == expect, "{target}");
    }
}

/// Differs from nginx: `sub_filter` leaves encoded responses alone
#[test]
fn encoded_responses() {
    let backend = Backend::start(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: x\r\nContent-Length: 4\r\n\r\ntide".to_vec()
    });
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; sub_filter tide ebb;
           location / {{ proxy_pass http://127.0.0.1:{}; }} }}",
        backend.port
    ))
    .start();
    let got = server.get("/");
    assert_eq!((got.text().as_str(), got.field("Content-Length")), ("tide", Some("4")));
}

/// Differs from nginx: a string at a response's very end is replaced
#[test]
fn the_beginning_of_another_string_at_the_end() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; default_type text/html; sub_filter abc 1; sub_filter ab 2;
           location / { return 200 xab; } }",
    )
    .start();
    assert_eq!(server.get("/").text(), "x2");
}
