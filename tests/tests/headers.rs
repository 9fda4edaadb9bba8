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
