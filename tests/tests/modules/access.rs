//! `allow`, `deny`, `satisfy`, `internal`, `limit_except`.

use e2e::{Backend, Setup};

#[test]
fn rules() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%;
            location /open { allow all; return 200 x; }
            location /a { allow 127.0.0.1; deny all; try_files /f =404; }
            location /b { deny 127.0.0.0/8; allow all; try_files /f =404; }
            location /c { deny 10.0.0.0/8; deny ::1; try_files /f =404; }
            location /d { allow 10.0.0.1; try_files /f =404; }
            location /e { limit_except GET { deny all; } try_files /f =404; }
            location /i { internal; return 200 x; }
            location /zeros { allow 127.000.00.001; deny 0127.0.0.00/08; try_files /f =404; }
            location /geo { return 200 \"$net $range\"; }
        }
        geo $net { 0127.0.0.01/032 net; }
        geo $range { ranges; 127.0.0.00-127.0.0.010 range; 127.0.0.11-127.0.0.255 beyond; }",
    )
    .file("f", "file")
    .start();
    for (target, status) in
        [("/open", 200), ("/a", 200), ("/b", 403), ("/c", 200), ("/d", 200), ("/e", 200), ("/i", 404), ("/zeros", 200)]
    {
        assert_eq!(server.get(target).status, status, "{target}");
    }
    assert_eq!(server.raw("DELETE /e HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").status, 403);
    assert!(server.read("error.log").contains("access forbidden by rule"));
    assert_eq!(server.get("/geo").text(), "net range");
}

/// `limit_conn` and `limit_req` count a client's request once, whatever subrequests it has.
#[test]
fn limits_count_a_request_once() {
    let backend = Backend::start(|_| Backend::ok("B"));
    let server = Setup::http(
        &"limit_conn_zone $server_name zone=one:1m; limit_req_zone $server_name zone=slow:1m rate=1r/m;
          root %%DIR%%; add_header X-Limits $limit_conn_status:$limit_req_status;
          server { listen 127.0.0.1:%%PORT%%; server_name auth; limit_conn one 1; limit_req zone=slow;
            location / { auth_request /auth; try_files /f =404; }
            location = /auth { proxy_pass http://127.0.0.1:B; } }
          server { listen 127.0.0.1:%%PORT%%; server_name includes; limit_conn one 1; limit_req zone=slow;
            location / { ssi on; try_files /page.html =404; }
            location /part { try_files /f =404; } }
          server { listen 127.0.0.1:%%PORT%%; server_name added; limit_conn one 1; limit_req zone=slow;
            location / { add_before_body /part; add_after_body /part; try_files /short.html =404; }
            location /part { try_files /f =404; } }
          server { listen 127.0.0.1:%%PORT%%; server_name parts;
            location / { ssi on; try_files /page.html =404; }
            location /part { limit_conn one 1; limit_req zone=slow; try_files /f =404; } }
          server { listen 127.0.0.1:%%PORT%%; server_name copies; limit_conn one 1; limit_req zone=slow;
            location / { mirror /copy; try_files /f =404; }
            location /copy { proxy_pass http://127.0.0.1:B; } }"
            .replace(":B", &format!(":{}", backend.port)),
    )
    .file("f", "f")
    .file("page.html", "<!--#include virtual='/part' -->,<!--#include virtual='/part' -->")
    .file("short.html", "s")
    .start();
    let get = |name: &str| server.raw(format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"));
    for (name, text, limits) in [
        ("auth", "f", "PASSED:PASSED"),
        ("includes", "f,f", "PASSED:PASSED"),
        ("added", "fsf", "PASSED:PASSED"),
        // The fields were made before any part of it was asked for.
        ("parts", "f,f", ":"),
        ("copies", "f", "PASSED:PASSED"),
    ] {
        let response = get(name);
        assert_eq!((response.text().as_str(), response.field("X-Limits")), (text, Some(limits)), "{name}");
    }
    assert_eq!(get("auth").status, 503, "the next request is counted too");
}
