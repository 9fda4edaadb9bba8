//! `allow`, `deny`, `satisfy`, `internal`, `limit_except`.

use e2e::Setup;

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
        }",
    )
    .file("f", "file")
    .start();
    for (target, status) in
        [("/open", 200), ("/a", 200), ("/b", 403), ("/c", 200), ("/d", 200), ("/e", 200), ("/i", 404)]
    {
        assert_eq!(server.get(target).status, status, "{target}");
    }
    assert_eq!(server.raw("DELETE /e HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").status, 403);
    assert!(server.read("error.log").contains("access forbidden by rule"));
}
