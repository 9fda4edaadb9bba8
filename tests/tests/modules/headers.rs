//! `add_header`, `expires`, and their inheritance.

use e2e::Setup;

#[test]
fn add_header() {
    let server = Setup::http(
        "add_header X-Http http;
         server { listen 127.0.0.1:%%PORT%%; add_header X-Server $uri;
            location / { return 200 x; }
            location /own { add_header X-Own own; add_header X-Own two; return 200 x; }
            location /always { add_header X-A a; add_header X-B b always; return 404; }
            location /empty { add_header X-Empty $arg_none; return 200 x; }
        }",
    )
    .start();
    let inherited = server.get("/i");
    assert_eq!((inherited.field("X-Server"), inherited.field("X-Http")), (Some("/i"), None));
    let own = server.get("/own");
    assert_eq!((own.all("X-Own"), own.field("X-Server")), (vec!["own", "two"], None));
    let always = server.get("/always");
    assert_eq!((always.field("X-A"), always.field("X-B")), (None, Some("b")));
    assert_eq!(server.get("/empty").field("X-Empty"), None);
}

#[test]
fn trailers_that_come_to_nothing() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; set $none '';
            location / { add_trailer X-T ''; }
            location /variable/ { add_trailer X-T $none; add_trailer X-U u; }
            location /gone { add_trailer X-T ''; return 404 gone; }
            location /always { add_trailer X-T '' always; return 404 gone; }
            location /moved { add_trailer X-T ''; return 302 /x; }
            location /none { add_trailer X-T ''; return 204; }
            location /whole { add_trailer X-T ''; chunked_transfer_encoding off; return 200 whole; }
        }",
    )
    .file("f", "0123456789")
    .file("variable/f", "0123456789")
    .start();
    for (target, fields, chunked, end) in [
        ("/f", "", true, "a\r\n0123456789\r\n0\r\n\r\n"),
        ("/f", "Range: bytes=1-2\r\n", true, "2\r\n12\r\n0\r\n\r\n"),
        ("/variable/f", "", true, "0\r\nX-U: u\r\n\r\n"),
        ("/gone", "", false, "\r\n\r\ngone"),
        ("/always", "", true, "4\r\ngone\r\n0\r\n\r\n"),
        ("/moved", "", true, "0\r\n\r\n"),
        ("/none", "", false, "\r\n\r\n"),
        ("/whole", "", false, "\r\n\r\nwhole"),
    ] {
        let mut connection = server.connect();
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n"));
        let raw = String::from_utf8_lossy(&connection.rest()).into_owned();
        assert!(raw.ends_with(end), "{target}: {raw}");
        assert_eq!(raw.contains("\r\nTransfer-Encoding: chunked\r\n"), chunked, "{target}: {raw}");
        assert!(!chunked || !raw.contains("Content-Length"), "{target}: {raw}");
    }
}

#[test]
fn expires() {
    let server = Setup::http(
        "map $arg_e $dynamic { default off; long 10d; no epoch; }
         server { listen 127.0.0.1:%%PORT%%; root %%DIR%%;
            location / { }
            location /hour { expires 1h; return 200 x; }
            location /past { expires -1; return 200 x; }
            location /epoch { expires epoch; return 200 x; }
            location /max { expires max; return 200 x; }
            location /mod { expires modified 1m; }
            location /map { expires $dynamic; return 200 x; }
        }",
    )
    .file("mod", "m")
    .start();
    let cases = [
        ("/none", None),
        ("/hour", Some("max-age=3600")),
        ("/past", Some("no-cache")),
        ("/epoch", Some("no-cache")),
        ("/max", Some("max-age=315360000")),
        ("/map?e=long", Some("max-age=864000")),
        ("/map?e=no", Some("no-cache")),
        ("/map", None),
    ];
    for (target, control) in cases {
        let got = server.get(target);
        assert_eq!(got.field("Cache-Control"), control, "{target}");
        assert_eq!(got.field("Expires").is_some(), control.is_some(), "{target}");
    }
    assert_eq!(server.get("/epoch").field("Expires"), Some("Thu, 01 Jan 1970 00:00:01 GMT"));
    assert!(server.get("/mod").field("Cache-Control").is_some_and(|c| c.starts_with("max-age=")));
}
