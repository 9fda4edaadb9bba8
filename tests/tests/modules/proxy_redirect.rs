//! `proxy_redirect`, `proxy_cookie_domain`, `proxy_cookie_path`, `proxy_cookie_flags`.

use e2e::{Backend, Setup};

/// A backend whose answers have the field that the query of a request is (`%20` for a blank).
fn telling() -> Backend {
    Backend::start(|r| {
        let target = r.line().split(' ').nth(1).unwrap_or_default();
        let field = target.split_once('?').map_or("", |(_, query)| query).replace("%20", " ");
        format!("HTTP/1.1 200 OK\r\n{field}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    })
}

#[test]
fn default_rules() {
    let backend = telling();
    let server = Setup::http(
        &"upstream back { server 127.0.0.1:B; }
        server { listen 127.0.0.1:%%PORT%%; absolute_redirect off;
            location / { proxy_pass http://back; }
            location /prefix/ { proxy_pass http://back; }
            location /address/ { proxy_pass http://127.0.0.1:B; }
            location ~ ^/regex/ { proxy_pass http://back; }
            location = /exact { proxy_pass http://back; }
            location /named/ { try_files /none @named; }
            location @named { proxy_pass http://back; proxy_redirect default; }
            location /uri/ { proxy_pass http://back/x/;
                location /uri/inner/ { proxy_pass http://back/y/; }
                location /uri/own/ { proxy_pass http://back/y/; proxy_redirect default; }
                location ~ ^/uri/r { proxy_pass http://back; } }
            location /variable/ { set $to back; proxy_pass http://$to;
                location /variable/inner/ { proxy_pass http://back/y/; } }
            location /more/ { proxy_redirect http://back/first/ /1/; proxy_pass http://back/x/; proxy_redirect default;
                proxy_redirect http://back/ /all/; location /more/off/ { proxy_redirect off; proxy_pass http://back; } }
            location /rules/ { proxy_pass http://back; proxy_redirect ~^http://([^/]+)/v/(.*)$ /h-$1/$2;
                proxy_redirect ~*/UP(.) /up$1; proxy_redirect \"\" /empty/; }
        }"
        .replace(":B", &format!(":{}", backend.port)),
    )
    .start();
    let address = format!("http://127.0.0.1:{}/x", backend.port);
    for (path, location, expect) in [
        ("/", "http://back/moved", "/moved"),
        ("/prefix/", "http://back/moved", "/moved"),
        ("/prefix/", "http://back/prefix/moved", "/prefix/moved"),
        ("/prefix/", "http://back", "http://back"),
        ("/prefix/", "http://other/prefix/", "http://other/prefix/"),
        ("/address/", &address, "/x"),
        ("/regex/", "http://back/moved", "/moved"),
        ("/exact", "http://back/moved", "/moved"),
        ("/named/", "http://back/moved", "/moved"),
        ("/uri/", "http://back/x/y", "/uri/y"),
        ("/uri/", "http://back/moved", "http://back/moved"),
        // Rules are inherited, those that nobody wrote too.
        ("/uri/inner/", "http://back/x/z", "/uri/z"),
        ("/uri/inner/", "http://back/y/z", "http://back/y/z"),
        ("/uri/own/", "http://back/y/z", "/uri/own/z"),
        ("/uri/r", "http://back/x/z", "/uri/z"),
        ("/variable/", "http://back/x", "http://back/x"),
        ("/variable/inner/", "http://back/y/z", "/variable/inner/z"),
        ("/more/", "http://back/first/a", "/1/a"),
        ("/more/", "http://back/x/a", "/more/a"),
        ("/more/", "http://back/z", "/all/z"),
        ("/more/off/", "http://back/z", "http://back/z"),
        ("/rules/", "http://back/v/a/b", "/h-back/a/b"),
        ("/rules/", "http://back/upx/a", "/upx"),
        ("/rules/", "rel", "/empty/rel"),
    ] {
        let response = server.get(&format!("{path}?Location:%20{location}"));
        assert_eq!(response.field("Location"), Some(expect), "{path} {location}");
    }
    let refresh = server.get("/prefix/?Refresh:%205;%20url=http://back/moved");
    assert_eq!(refresh.field("Refresh"), Some("5; url=/moved"));
}

#[test]
fn what_is_refused() {
    let first = "\"proxy_redirect default\" should be placed after the \"proxy_pass\" directive";
    let variables = "\"proxy_redirect default\" cannot be used with \"proxy_pass\" directive with variables";
    let duplicate = |name: &str| format!("\"{name}\" directive is duplicate");
    let pass = "proxy_pass http://127.0.0.1:9";
    for (location, error) in [
        (format!("proxy_redirect default; {pass}/x/;"), first.to_owned()),
        ("proxy_redirect default; return 200 ok;".to_owned(), first.to_owned()),
        (format!("if ($arg_x) {{ {pass}; }} proxy_redirect default;"), first.to_owned()),
        (format!("{pass}; location /a/b {{ proxy_redirect default; }}"), first.to_owned()),
        ("proxy_pass http://$host; proxy_redirect default;".to_owned(), variables.to_owned()),
        (format!("{pass}; proxy_redirect false;"), "invalid parameter \"false\"".to_owned()),
        (format!("{pass}; proxy_redirect off; proxy_redirect off;"), duplicate("proxy_redirect")),
        (format!("{pass}; proxy_redirect off; proxy_redirect a b;"), duplicate("proxy_redirect")),
        (format!("{pass}; proxy_redirect default; proxy_redirect off;"), duplicate("proxy_redirect")),
        (format!("{pass}; proxy_cookie_path off; proxy_cookie_path a b;"), duplicate("proxy_cookie_path")),
        (format!("{pass}; proxy_cookie_domain a b; proxy_cookie_domain off;"), duplicate("proxy_cookie_domain")),
        (format!("{pass}; proxy_cookie_flags a secure; proxy_cookie_flags off;"), duplicate("proxy_cookie_flags")),
        (format!("{pass}/x/; proxy_redirect default; proxy_redirect default; proxy_redirect a b;"), String::new()),
    ] {
        let server =
            Setup::http(&format!("server {{ listen 127.0.0.1:%%PORT%%; location /a {{ {location} }} }}")).prepare();
        let out = server.command(&["-t"]);
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.success(), error.is_empty(), "{location}: {text}");
        assert!(text.contains(&error), "{location}: {text}");
    }
    for level in ["http", "server"] {
        let (http, server) =
            if level == "http" { ("proxy_redirect default;", "") } else { ("", "proxy_redirect default;") };
        let text = format!("{http} server {{ listen 127.0.0.1:%%PORT%%; {server} location / {{ {pass}; }} }}");
        let out = Setup::http(&text).prepare().command(&["-t"]);
        assert!(String::from_utf8_lossy(&out.stderr).contains(first), "{level}");
    }
}

#[test]
fn cookies() {
    let backend = telling();
    let server = Setup::http(
        &"server { listen 127.0.0.1:%%PORT%%;
            location /change { proxy_pass http://127.0.0.1:B; proxy_cookie_path /app/ /; proxy_cookie_path ~*^/Re(.*)$ /rx$1;
                proxy_cookie_domain old.test new.test; proxy_cookie_domain ~\\.?sub\\.(.*)$ s.$1; }
            location /flags { proxy_pass http://127.0.0.1:B; proxy_cookie_flags a secure httponly;
                proxy_cookie_flags ~^b nosecure samesite=strict; }
        }"
        .replace(":B", &format!(":{}", backend.port)),
    )
    .start();
    for (path, cookie, expect) in [
        ("/change", "a=1; Path=/app/x; Domain=old.test", "a=1; Path=/x; Domain=new.test"),
        ("/change", "a=1; Path = /app/x; Domain = old.test", "a=1; Path=/x; Domain=new.test"),
        ("/change", "a=1;Path= /app/x", "a=1; Path=/x"),
        ("/change", "a=1;Path =/app/x ; HttpOnly", "a=1; Path=/x; HttpOnly"),
        ("/change", "a = 1 ; PATH=/REx", "a=1; PATH=/rxx"),
        ("/change", "a=1; domain = .sub.x", "a=1; domain=s.x"),
        ("/change", "a=1; Path=/app/x; Path = /app/y", "a=1; Path=/x; Path=/y"),
        ("/change", "a=b=c; Path=/app/=x", "a=b=c; Path=/=x"),
        ("/change", "a=1; Path = \"/app/x\"", "a=1; Path = \"/app/x\""),
        ("/change", "a=1; Path = /other ;x", "a=1; Path = /other ;x"),
        ("/change", "a=1; Path", "a=1; Path"),
        // Without a value it is no cookie.
        ("/change", "a; Path=/app/x", "a; Path=/app/x"),
        ("/flags", "a = 1; Path = /x", "a=1; Path=/x; Secure; HttpOnly"),
        ("/flags", "a=1; Secure ; HttpOnly = x", "a=1; Secure; HttpOnly=x"),
        ("/flags", "b=1 ; Secure ; SameSite = Lax", "b=1; SameSite=Strict"),
        ("/flags", "c = 1 ; Secure", "c = 1 ; Secure"),
    ] {
        let response = server.get(&format!("{path}?Set-Cookie:%20{}", cookie.replace(' ', "%20")));
        assert_eq!(response.field("Set-Cookie"), Some(expect), "{path} {cookie}");
    }
}
