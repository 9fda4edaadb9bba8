//! `more_set_headers` and its kin.

use e2e::{Backend, Setup};

/// Not in nginx: as headers-more, a module of others, has them
#[test]
fn responses() {
    let server = Setup::http(
        "more_set_headers 'X-Level: http';
         server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; more_set_headers 'Server: shop' 'X-Server: $uri';
            location / { more_set_headers 'X-Level: location' 'Content-Type: text/x; charset=utf-8'; }
            location /status { more_set_headers -s '404 500' -s 410 'X-Bad: yes'; more_set_headers -s 200 'X-Good: yes';
                return 410; }
            location /type { more_set_headers -t 'text/html text/plain' 'X-Text: yes'; more_set_headers -t image/png 'X-Image: yes';
                default_type 'text/plain; charset=x'; return 200 x; }
            location /clear { more_clear_headers Server Last-Modified ETag 'X-*' Date:; add_header X-Later 1; alias %%DIR%%/f; }
            location /length { more_clear_headers Content-Length; alias %%DIR%%/f; }
            location /twice { more_set_headers 'X-A: 1'; more_set_headers -a 'X-A: 2'; more_set_headers 'X-B: 1' X-B; return 200 x; }
            location /break { more_set_headers 'X-Break: $arg_none$uri'; return 200 x; } }",
    )
    .file("f", "file")
    .start();
    let got = server.get("/f");
    let fields = ["Server", "X-Server", "X-Level", "Content-Type"].map(|name| got.field(name).unwrap_or_default());
    assert_eq!(fields, ["shop", "/f", "location", "text/x; charset=utf-8"]);
    let got = server.get("/status");
    assert_eq!((got.status, got.field("X-Bad"), got.field("X-Good")), (410, Some("yes"), None));
    let got = server.get("/type");
    assert_eq!((got.field("X-Text"), got.field("X-Image")), (Some("yes"), None));
    let got = server.get("/clear");
    for name in ["Server", "Last-Modified", "ETag", "X-Level", "X-Server", "Date"] {
        assert_eq!(got.field(name), None, "{name}");
    }
    assert_eq!((got.text().as_str(), got.field("X-Later")), ("file", Some("1")), "add_header comes later");
    let got = server.get("/length");
    assert_eq!((got.field("Content-Length"), got.text().as_str()), (None, "file"));
    let got = server.get("/twice");
    assert_eq!((got.all("X-A"), got.field("X-B")), (vec!["1", "2"], None));
    let got = server.get("/break%0d%0aX-Evil:1");
    assert_eq!((got.field("X-Break"), got.field("X-Evil")), (Some("/break%0D%0AX-Evil:1"), None));
}

/// Not in nginx: as headers-more, a module of others, has them
#[test]
fn requests() {
    let backend = Backend::start(|_| Backend::ok("ok"));
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; more_set_input_headers 'X-Server: s';
            location /later { more_set_input_headers 'Host: Other.test:81' 'X-A: $arg_v' 'X-Own: $http_x_own+';
                more_set_input_headers -r 'X-There: new' 'X-Missing: new'; more_set_input_headers -t text/x 'X-Text: yes';
                more_clear_input_headers 'X-Hidden-*' Accept-Encoding;
                add_header X-Seen '$host|$http_host|$http_x_a|$http_x_server|$http_x_own|$http_x_there|$http_x_missing|$http_x_text|$http_x_hidden_1|$http_accept_encoding';
                try_files /none =204; }
            location ~ ^/host/(.*) { more_set_input_headers 'Host: $1'; try_files /none @there; }
            location @there { return 301 /there; }
            location /back { more_set_input_headers 'X-A: $uri'; more_clear_input_headers X-B; proxy_pass %%BACKEND%%; } }"
            .replace("%%BACKEND%%", &format!("http://127.0.0.1:{}", backend.port)).as_str(),
    )
    .start();
    let fields = "X-Own: 1\r\nX-There: old\r\nX-Hidden-1: x\r\nAccept-Encoding: gzip\r\nContent-Type: text/x; q=1\r\n";
    let got = server.get_with("/later?v=one", fields);
    assert_eq!(got.field("X-Seen"), Some("other.test|Other.test:81|one|s|1+|new||yes||"));
    for (host, expect) in [("Other.test.:81", "other.test"), ("[::1]:81", "[::1]"), ("a%0d%0aX-Evil:1", "127.0.0.1")] {
        let got = server.get(&format!("/host/{host}"));
        let location = format!("http://{expect}:{}/there", server.port());
        assert_eq!((got.field("Location"), got.field("X-Evil")), (Some(&location[..]), None), "{host}");
    }
    server.get_with("/back%0d%0aX-Evil:1", "X-B: secret\r\nX-A: old\r\n");
    let asked = backend.requests().last().map(|request| request.head.clone() + "\r\n").unwrap_or_default();
    assert!(
        asked.contains("X-A: /back%0D%0AX-Evil:1\r\n") && !asked.contains("secret") && !asked.contains("old"),
        "{asked}"
    );
}

/// Not in nginx: as headers-more, a module of others, has them
#[test]
fn errors() {
    for (line, expect) in [
        ("more_set_headers 'Content-Length: 5'", "\"Content-Length\" can't be set"),
        ("more_set_input_headers 'Connection: close'", "\"Connection\" can't be set"),
        ("more_set_headers -x A", "invalid option name: \"-x\""),
        ("more_set_input_headers -s 200 'A: b'", "invalid option name: \"-s\""),
        ("more_set_headers -s abc 'A: b'", "invalid status \"abc\""),
        ("more_set_headers -s", "\"-s\" needs a value"),
        ("more_set_headers -s 200", "names no field"),
        ("more_set_headers 'A b: c'", "invalid header name"),
        ("more_set_headers 'A*: c'", "invalid header name"),
    ] {
        let setup = Setup::http(&format!("{line}; server {{ listen 127.0.0.1:%%PORT%%; }}"));
        let said = setup.prepare().command(&["-t"]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && text.contains(expect), "{line}: {text}");
    }
}
