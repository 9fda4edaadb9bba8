//! Values that hold line breaks: what a client puts into its URI never becomes a line of a head.

use e2e::{Backend, Server, Setup, curl};

/// A URI's end that would add a field, or a request, if it went out as it is decoded.
const EVIL: &str = "a%20HTTP/1.1%0d%0aX-Inj:%20yes";

#[test]
fn captures_are_encoded_again() {
    let backend = Backend::start(|r| Backend::ok(r.line()));
    let server = Setup::http(
        &"server { listen 127.0.0.1:%%PORT%%; root %%DIR%%;
            location ~ ^/set/([^?]*)$ { set $f $1; return 200 $f; }
            location ~ ^/query/([^?]*)$ { set $f x?$1; return 200 $f; }
            location ~ ^/named/(?<name>[^?]*)$ { set $f $name-$1; return 200 $f; }
            location ~ ^/direct/([^?]*)$ { return 200 $1; }
            location /if/ { if ($uri ~ ^/if/([^?]*)$) { set $f $1; } return 200 $f; }
            location /raw/ { if ($request_uri ~ ^/raw/(.*)$) { set $f $1; } return 200 $f; }
            location /arg { if ($arg_x ~ ^(.*)$) { set $f $1; } return 200 $f; }
            location ~ ^/equal/(.*)$ { if ($arg_y = $1) { return 200 same; } return 200 other; }
            location ~ ^/file/(.*)$ { if (-f %%DIR%%/$1) { return 200 found; } return 200 none; }
            location ~ ^/moved/([^?]*)$ { set $f $1; return 302 /to/$f; }
            location ~ ^/field/([^?]*)$ { set $f $1; add_header X-F $f; return 204; }
            location /redirect/ { rewrite ^/redirect/([^?]*)$ /to/$1 redirect; }
            location /asked/ { rewrite ^/asked/([^?]*)$ /to?q=$1 redirect; }
            location ~ ^/back/([^?]*)$ { set $f $1; proxy_pass http://127.0.0.1:B/to/$f; }
        }"
        .replace(":B", &format!(":{}", backend.port)),
    )
    .file("a%20b", "a name with a percent sign")
    .start();
    for (target, expect) in [
        ("/set/ab+c", "ab%2Bc"),
        ("/set/abc", "abc"),
        ("/set/%C3%A9%25%23%26=;%22", "%C3%A9%25%23%26=%3B%22"),
        ("/set/a%20b", "a%20b"),
        ("/query/a%20b", "x?a%20b"),
        // Named groups are variables: they are as they are.
        ("/named/a%20b", "a b-a%20b"),
        ("/direct/a%20b", "a b"),
        ("/if/a%20b", "a%20b"),
        ("/raw/a%20b", "a%2520b"),
        // Only a URI that was encoded is encoded again.
        ("/arg?x=a%20b", "a%20b"),
        ("/arg%2f?x=a%20b", "a%2520b"),
        ("/equal/a%20b?y=a%20b", "same"),
        ("/equal/a%20b?y=a", "other"),
        ("/file/a%20b", "found"),
    ] {
        assert_eq!(server.get(target).text(), expect, "{target}");
    }
    for (path, field, expect) in [
        ("moved", "Location", "/to/a%20HTTP/1.1%0D%0AX-Inj:%20yes"),
        ("field", "X-F", "a%20HTTP/1.1%0D%0AX-Inj:%20yes"),
        ("redirect", "Location", "/to/a%20HTTP/1.1%0D%0AX-Inj:%20yes"),
        ("asked", "Location", "/to?q=a%20HTTP/1.1%0D%0AX-Inj:%20yes"),
    ] {
        let response = server.get(&format!("/{path}/{EVIL}"));
        let value = response.field(field).unwrap_or_default();
        assert!(value.ends_with(expect) && response.field("X-Inj").is_none(), "{path}: {}", response.head);
    }
    assert_eq!(server.get(&format!("/back/{EVIL}")).text(), "GET /to/a%20HTTP/1.1%0D%0AX-Inj:%20yes HTTP/1.1");
}

/// A server that writes decoded URIs wherever a value can go. nginx splits heads in all of these.
fn porous(backend: u16) -> Server {
    Setup::http(
        &"upstream back { server 127.0.0.1:B; }
        map $uri $mapped { ~^/map/(?<rest>[^?]*)$ $rest; }
        server { listen 127.0.0.1:%%PORT%%; http2 on; set $empty ''; early_hints 1;
            location /uri { return 302 /to$uri; }
            location ~ ^/capture/([^?]*)$ { return 301 http://example.com/$1; }
            location ~ ^/named/(?<name>[^?]*)$ { return 307 /$name; }
            location /rewritten/ { rewrite ^/rewritten/(?<end>[^?]*)$ /to/$end redirect; }
            location /field { add_header X-F $uri; add_header ETag $uri; add_header Last-Modified $uri; return 200 ok; }
            location /trailer { add_trailer X-T $uri; return 200 ok; }
            location /expires { expires $uri; add_header Cache-Control $uri; return 200 ok; }
            location /page { error_page 404 =302 http://example.com$uri; return 404; }
            location /map/ { add_header X-M $mapped; return 200 ok; }
            location /pass { proxy_pass http://back; proxy_set_header X-F $uri; proxy_set_header Host $uri; }
            location /passed { set $to back; proxy_pass http://$to$uri; }
            location ~ ^/passes/([^?]*)$ { proxy_pass http://back/$1; }
            location /query { set $args $uri; rewrite ^ /other break; proxy_pass http://back; }
            location /method { proxy_pass http://back; proxy_method $uri; }
            location /changed { proxy_pass http://back; proxy_redirect / $uri; proxy_cookie_path / $uri;
                proxy_cookie_domain a $uri; }
        }"
        .replace(":B", &format!(":{backend}")),
    )
    .start()
}

const PLACES: [&str; 15] = [
    "/uri/",
    "/capture/",
    "/named/",
    "/rewritten/",
    "/field/",
    "/trailer/",
    "/expires/",
    "/page/",
    "/map/",
    "/pass/",
    "/passed/",
    "/passes/",
    "/query/",
    "/method/",
    "/changed/",
];

/// A deviation from nginx, which writes such values as they are ("Heads" in docs/COMPAT.md).
/// Differs from nginx: a line break or NUL in a variable goes into heads
#[test]
fn no_value_ends_a_line() {
    let backend = Backend::start(|r| {
        let head = "HTTP/1.1 200 OK\r\nLocation: /there\r\nRefresh: 1; url=/there\r\nSet-Cookie: a=b; path=/; domain=a";
        let seen: Vec<_> = r.head.lines().skip(1).filter(|line| line.starts_with("X-Inj")).collect();
        format!("{head}\r\nX-Seen: {}\r\nContent-Length: 2\r\n\r\nok", seen.len()).into_bytes()
    });
    let mut server = porous(backend.port);
    server.quiet();
    for place in PLACES {
        for end in ["a%0d%0aX-Inj:%20yes", "a%0aX-Inj:%20yes", "a%0dX-Inj:%20yes", "a%0d%0a%0d%0aHTTP/1.1%20200%20OK"] {
            let mut connection = server.connect();
            connection.send(format!("GET {place}{end} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
            let raw = String::from_utf8_lossy(&connection.rest()).into_owned();
            let head = raw.split("\r\n\r\n").next().unwrap_or_default();
            assert!(head.starts_with("HTTP/1.1 ") && !head.starts_with("HTTP/1.1 5"), "{place}{end}: {raw}");
            let lines = raw.split(['\r', '\n']).filter(|line| line.starts_with("X-Inj") || line.starts_with("HTTP/"));
            assert_eq!(lines.count(), 1, "{place}{end}: {raw}");
            assert!(!head.replace("\r\n", "").contains(['\r', '\n']), "{place}{end}: {raw}");
            let url = server.url(&format!("{place}{end}"));
            let h2 =
                String::from_utf8_lossy(&curl(&["-i", "--path-as-is", "--http2-prior-knowledge", &url])).into_owned();
            assert!(h2.starts_with("HTTP/2 ") && !h2.to_lowercase().contains("\nx-inj"), "{place}{end}: {h2}");
        }
    }
    for request in backend.requests() {
        assert!(request.field("X-Inj").is_none(), "{}", request.head);
    }
    assert_eq!(
        server.get("/uri/a%0d%0aX:%20y").field("Location").map(|at| at.ends_with("/to/uri/a%0D%0AX: y")),
        Some(true)
    );
    let log = server.read("error.log");
    for name in ["Location", "X-F", "ETag", "X-T", "Cache-Control", "URI", "proxy_method", "Set-Cookie", "Host"] {
        let line = format!("line break or NUL in \"{name}\" was encoded while ");
        assert!(log.contains(&line), "{name}");
    }
}

/// Differs from nginx: a line break in a constant value of
#[test]
fn constants_over_several_lines_are_one_line() {
    let backend = Backend::start(|r| Backend::ok(r.field("X-P").unwrap_or("none")));
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%;
            add_header Content-Security-Policy \"default-src 'self';
                img-src $host;\";
            location / {{ return 200 ok; }}
            location /pass {{ proxy_set_header X-P \"a\n b\"; proxy_pass http://127.0.0.1:{}; }} }}",
        backend.port
    ))
    .start();
    assert_eq!(server.get("/").field("Content-Security-Policy"), Some("default-src 'self'; img-src localhost;"));
    assert_eq!(server.get("/pass").text(), "a b");
}
