//! `add_before_body`, `add_after_body`: what is added to which responses.

use e2e::{Backend, Setup};

#[test]
fn texts_around_a_body() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; default_type text/html; types { text/plain txt; }
           location / { add_before_body /before; add_after_body /after; }
           location /nothing/ { add_before_body ''; add_after_body ''; alias %%DIR%%/; }
           location /types/ { addition_types text/plain; add_after_body /after; alias %%DIR%%/; }
           location /status { add_after_body /after; return 202 text; }
           location /self { add_after_body /self; return 200 self; }
           location /tag { add_after_body /after; add_header ETag $arg_tag; return 200 text; }
           location /error { add_after_body /none; return 200 text; }
           location = /before { return 200 \"[before $args]\"; }
           location = /after { return 200 \"[after $request_method]\"; }
           location = /none { internal; return 404; } }",
    )
    .file("page.html", "page")
    .file("text.txt", "text")
    .start();
    for (target, expect) in [
        ("/page.html?x", "[before ]page[after GET]"),
        ("/text.txt", "text"),
        ("/nothing/page.html", "page"),
        ("/types/text.txt", "text[after GET]"),
        ("/types/page.html", "page[after GET]"),
        ("/status", "text"),
        ("/self", "selfself"),
    ] {
        assert_eq!(server.get(target).text(), expect, "{target}");
    }
    assert!(server.get("/error").text().starts_with("text<html>"), "the page of the error is added");
    let response = server.get_with("/page.html", "Range: bytes=0-1\r\n");
    assert_eq!((response.status, response.field("Content-Length")), (200, None));
    assert!(response.field("ETag").is_some_and(|tag| tag.starts_with("W/")), "{}", response.head);
    assert_eq!(response.field("Accept-Ranges"), None);
    for (tag, expect) in [("\"a\"", Some("W/\"a\"")), ("W/\"a\"", Some("W/\"a\"")), ("a", None)] {
        assert_eq!(server.get(&format!("/tag?tag={tag}")).field("ETag"), expect, "{tag}");
    }
}

#[test]
fn long_texts_pass_through() {
    // Neither is gathered in memory: the response is longer than what the client's socket takes.
    let (before, after) = ("b".repeat(3 << 20), "a".repeat(5 << 20));
    let backend = Backend::start(|_| Backend::ok(&"p".repeat(1 << 20)));
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; root %%DIR%%;
           location / {{ addition_types *; add_before_body /before.html; add_after_body /after.html;
             proxy_pass http://127.0.0.1:{}; }}
           location ~ html$ {{ }} }}",
        backend.port
    ))
    .file("before.html", &before)
    .file("after.html", &after)
    .start();
    let text = server.raw("GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").text();
    assert_eq!(text.len(), 9 << 20);
    assert!(text.starts_with(&before) && text.ends_with(&after));
}

#[test]
fn a_closed_subrequest_closes_the_connection() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; default_type text/html; location / { add_before_body /closed; return 200 text; }
           location = /closed { return 444; } }",
    )
    .start();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(!String::from_utf8_lossy(&client.rest()).contains("text"));
}
