//! `rewrite`, `return`, `if`, `set`, `break`, and `try_files`.

use e2e::Setup;

#[test]
fn rewrites() {
    let mut server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%;
            set $base base;
            rewrite ^/old/(.*)$ /new/$1 last;
            location /new/ { return 200 \"$uri|$args\"; }
            location /redirect { rewrite ^ /there redirect; }
            location /permanent { rewrite ^/permanent/(.*) http://example.com/$1? permanent; }
            location /break/ { rewrite ^/break/(.*)$ /files/$1 break; }
            location /args { rewrite ^ /new/x?b=2 last; }
            location /literal/ { rewrite ^/literal/(.*)$ /new/%20/$1 last; }
            location /value/ { rewrite ^ /new/$arg_v last; }
            location /query/ { rewrite ^/query/(.*)$ /new/x?c=$1 last; }
            location /there/ { rewrite ^ http://example.com$request_uri redirect; }
            location ~ ^/lost/(.*)$ { rewrite ^/none(.) /x last; return 200 <$1>; }
            location ~ ^/forgot/(.*)$ { if ($uri ~ ^/none(.)) { } return 200 <$1>; }
            location /alias/ { alias %%DIR%%/files/; rewrite ^/alias/(.*)$ /alias/$1 break; }
            location /loop { rewrite ^ /loop last; }
            location /set { set $a 1; set $a \"${a}2\"; return 200 \"$base$a\"; }
            location /if {
                set $said none;
                if ($arg_x) { set $said x; }
                if ($arg_x = 2) { set $said two; }
                if ($request_method = POST) { return 403; }
                if ($http_user_agent ~* (bot|spider)) { set $said \"bot:$1\"; }
                if ($arg_y !~ ^\\d+$) { set $said $said-; }
                if (-f %%DIR%%/files$arg_file) { set $said file; }
                if (!-e %%DIR%%$uri) { set $said $said!; }
                return 200 $said;
            }
            location /return301 { return 301 /target; }
            location /return302 { return http://example.com/; }
            location /return444 { return 444; }
            location /return307 { return 307 https://$host$request_uri; }
            location /files/ { }
        }",
    )
    .file("files/a.txt", "a file")
    .start();
    let base = format!("http://localhost:{}", server.port());
    let texts = [
        ("/old/a/b?c=d", "/new/a/b|c=d"),
        ("/args?a=1", "/new/x|b=2&a=1"),
        ("/literal/a%20b", "/new/%20/a b|"),
        ("/value/?v=%41?d=e", "/new/%41?d=e|v=%41?d=e"),
        ("/query/a%20b?d", "/new/x|c=a%20b&d"),
        // A rule that doesn't match forgets the captures of the one before.
        ("/lost/a", "<>"),
        ("/forgot/a", "<>"),
        ("/break/a.txt", "a file"),
        ("/set", "base12"),
        ("/if", "none-!"),
        ("/if?x=1&y=5", "x!"),
        ("/if?x=2&y=5", "two!"),
        ("/if?y=5&file=/a.txt", "file!"),
    ];
    for (target, text) in texts {
        assert_eq!(server.get(target).text(), text, "{target}");
    }
    assert_eq!(server.get_with("/if?y=1", "User-Agent: GoogleBot\r\n").text(), "bot:Bot!");
    let moves = [
        ("/redirect?a=1", 302, format!("{base}/there?a=1")),
        ("/permanent/p?a=1", 301, "http://example.com/p".to_string()),
        // Only a `?` of the replacement's own starts a query.
        ("/there/?a=1", 302, "http://example.com/there/?a=1?a=1".to_string()),
        ("/return301", 301, format!("{base}/target")),
        ("/return302", 302, "http://example.com/".to_string()),
        ("/return307?q", 307, "https://localhost/return307?q".to_string()),
    ];
    for (target, status, location) in moves {
        let got = server.get(target);
        assert_eq!((got.status, got.field("Location")), (status, Some(location.as_str())), "{target}");
    }
    assert_eq!(server.get("/loop").status, 500);
    server.quiet();
    assert_eq!(server.get("/alias/a.txt").status, 500);
    let log = server.read("error.log");
    assert!(log.contains("\"alias\" cannot be used in location \"/alias/\" where URI was rewritten"), "{log}");
    assert_eq!(server.raw("POST /if HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").status, 403);
    let mut closed = server.connect();
    closed.send("GET /return444 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(closed.closed());
}

/// The captures of a regex of `map` count for the whole replacement: it is made twice, and its query starts where it does
/// the second time.
#[test]
fn a_map_changes_the_captures_of_a_replacement() {
    let server = Setup::http(
        "map $http_user_agent $agent { default 0; '~Opera Mini' 1; '~^Cap (.*)$' c$1; }
         server { listen 127.0.0.1:%%PORT%%;
            absolute_redirect off;
            location / { return 200 $uri|$args; }
            location /a/ { rewrite ^/(.*)$ /out/$1?x=$agent last; }
            location /b/ { rewrite ^/b/(.*)$ /out/$agent/$1?x=$1 last; }
            location /c/ { rewrite ^/c/(.*)$ /out/$1/$agent?x=$1 redirect; }
            location /d/ { rewrite ^/d/(.*)$ /out/$1/$agent/$1?x=$1 last; }
            location /e/ { rewrite ^/e/(.*)$ /out/?x=$agent&y=$1 last; }
            location /f/ { set $known $agent; rewrite ^/f/(.*)$ /out/$1?x=$agent last; }
        }",
    )
    .start();
    for (agent, target, expect) in [
        ("none", "/a/some%20path", "/out/a/some path|x=0"),
        ("Opera Mini", "/a/a-long-enough-path", "/out/|x=1"),
        ("Opera Mini", "/b/some%20path%3f", "/out/1/|x="),
        ("Opera Mini", "/c/some%20path", "/out//1?x="),
        ("Opera Mini", "/d/some%20path", "/out//1/|x="),
        ("Opera Mini", "/e/some%20path", "/out/|x=1&y="),
        ("Opera Mini", "/f/some%20path", "/out/some path|x=1"),
        ("Cap xyz", "/a/a-long-enough-path", "/out/xyz|x=cxyz"),
        ("Cap xyz", "/b/a", "/out/cxyz/xyz|x=xyz"),
        ("Cap ?&x", "/c/some%20path", "/out/?%26x/c?&x?x=%3F%26x"),
        ("Cap xyz", "/d/some%20path", "/out/xyz/cxyz/xyz|x=xyz"),
    ] {
        let got =
            server.raw(format!("GET {target} HTTP/1.1\r\nHost: a\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n"));
        let text = got.field("Location").map_or_else(|| got.text(), str::to_owned);
        assert_eq!(text, expect, "{agent} {target}");
    }
}

#[test]
fn relative_redirects() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%;
            location /rel { absolute_redirect off; return 301 /x; }
            location /name { server_name_in_redirect on; return 301 /x; }
            location /port { port_in_redirect off; return 301 /x; }
            server_name named.example;
        }",
    )
    .start();
    let port = server.port();
    let cases = [
        ("/rel", "/x".to_string()),
        ("/name", format!("http://named.example:{port}/x")),
        ("/port", "http://localhost/x".to_string()),
    ];
    for (target, location) in cases {
        assert_eq!(server.get(target).field("Location"), Some(location.as_str()), "{target}");
    }
}

#[test]
fn try_files() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%;
            location / { try_files $uri $uri/ /fallback?q=$uri; }
            location /fallback { return 200 \"fallback $args\"; }
            location /status { try_files $uri =410; }
            location /name { try_files $uri @name; }
            location @name { return 200 \"named $uri\"; }
            location /alias/ { alias %%DIR%%/dir/; try_files $uri =404; }
            index index.html;
        }",
    )
    .file("a.txt", "a")
    .file("dir/index.html", "dir index")
    .start();
    let cases = [
        ("/a.txt", 200, "a"),
        ("/dir/", 200, "dir index"),
        ("/none", 200, "fallback q=/none"),
        ("/name/x", 200, "named /name/x"),
        ("/alias/index.html", 200, "dir index"),
    ];
    for (target, status, text) in cases {
        let got = server.get(target);
        assert_eq!((got.status, got.text().as_str()), (status, text), "{target}");
    }
    assert_eq!(server.get("/status").status, 410);
}

#[test]
fn what_is_set_elsewhere_hides_no_field() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%;
           location /set { set $http_x own; set $arg_y mine; return 200 \"$http_x $arg_y\"; }
           location / { return 200 \"$http_x $arg_y\"; } }",
    )
    .start();
    for (target, expect) in [("/set?y=1", "own mine"), ("/?y=1", "field 1")] {
        assert_eq!(server.get_with(target, "X: field\r\n").text(), expect, "{target}");
    }
}

/// Elsewhere too a variable that a capture or `auth_request_set` stores to isn't what a client sends under the name of a family;
/// one that `set` alone stores to is.
#[test]
fn captures_hide_families() {
    let mut server = Setup::http(
        "log_format kept '$uri [$own] [$said]'; access_log kept.log kept; error_log %%DIR%%/warn.log warn;
         server { listen 127.0.0.1:%%PORT%%;
            location /first { set $arg_first 1; set $own 1; set $said 1; return 200 $arg_first; }
            location ~ ^/user/(?<arg_id>\\d+)?(?<cookie_c>x)?(?<arg_first>y)?(?<own>z)?$ {
                return 200 \"[$arg_id][$cookie_c]\"; }
            location ~ ^/later/(?<arg_later>.) { return 200 $arg_later; }
            location /later { set $arg_later 1; return 200 $arg_later; }
            location /asked { auth_request /allowed; auth_request_set $arg_asked 1; }
            location /allowed { return 204; }
            location / { return 200 \"[$arg_id][$cookie_c][$arg_first][$arg_later][$arg_asked][$arg_set]\"; }
            location /set { set $arg_set 1; return 200 $arg_set; } }",
    )
    .start();
    for (path, expect) in [
        ("/user/7?id=8", "[7][]"),
        ("/user/?id=8", "[][]"),
        ("/later/x?later=8", "x"),
        ("/set?set=8", "1"),
        ("/?id=8&first=8&later=8&asked=8&set=9", "[][][][][][9]"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nCookie: c=8\r\nConnection: close\r\n\r\n");
        assert_eq!(server.raw(request).text(), expect, "{path}");
    }
    let lines = server.read_until("kept.log", "/ [-] []\n");
    assert!(lines.contains("/set [-] []\n"), "{lines}");
    let log = server.read_until("warn.log", "using uninitialized \"said\"");
    assert!(!log.contains("using uninitialized \"own\""), "{log}");
}

/// Differs from nginx: `try_files … =200` answers without a body
#[test]
fn statuses_of_try_files() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%;
            location /0 { try_files /none =0; }
            location /99 { try_files /none =99; }
            location /100 { try_files /none =100; }
            location /200 { try_files /none =200; }
            location /204 { try_files /none =204; }
            location /999 { try_files /none =999; } }",
    )
    .start();
    for (uri, status) in [("/0", 500), ("/99", 500), ("/100", 500), ("/200", 200), ("/204", 204), ("/999", 999)] {
        let got = server.raw(format!("GET {uri} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        assert_eq!((got.status, got.text().is_empty()), (status, status != 500), "{uri}");
    }
}
