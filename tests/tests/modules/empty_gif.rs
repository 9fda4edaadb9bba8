//! `empty_gif`.

use e2e::Setup;

#[test]
fn the_picture() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; location = /pixel { empty_gif; expires 1h; } location / { return 404; } }",
    )
    .start();
    let response = server.get("/pixel");
    assert_eq!((response.status, response.body.len()), (200, 43));
    assert!(response.body.starts_with(b"GIF89a\x01\0\x01\0") && response.body.ends_with(b"\x3b"));
    let fields = ["Content-Type", "Content-Length", "Last-Modified", "Cache-Control", "ETag", "Accept-Ranges"];
    let expect =
        [Some("image/gif"), Some("43"), Some("Mon, 28 Sep 1970 06:00:00 GMT"), Some("max-age=3600"), None, None];
    assert_eq!(fields.map(|name| response.field(name)), expect);
    let since = "If-Modified-Since: Mon, 28 Sep 1970 06:00:00 GMT\r\n";
    assert_eq!(server.get_with("/pixel", since).status, 304);
    let mut c = server.connect();
    let head = c.send("HEAD /pixel HTTP/1.1\r\nHost: a\r\n\r\n").head_response();
    assert_eq!((head.status, head.field("Content-Length")), (200, Some("43")));
    assert_eq!(server.raw("POST /pixel HTTP/1.0\r\nContent-Length: 0\r\n\r\n").status, 405);
}
