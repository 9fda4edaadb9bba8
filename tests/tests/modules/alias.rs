//! `alias`: with `try_files` and `rewrite`; captures of regexes that stand beside each other.

use e2e::{Backend, Setup};

#[test]
fn try_files_under_an_alias() {
    let show = "return 200 \"$uri|$request_filename|$args\";";
    let server = Setup::http(
        &"server { listen 127.0.0.1:%%PORT%%; default_type text/plain; root %%DIR%%;
            location /app/ { alias %%DIR%%/b/; try_files $uri $uri/ /app//app/index.php?$args;
                location ~ /app/.+\\.php$ { SHOW } }
            location /constant/ { alias %%DIR%%/b/; try_files /constant/x.txt x.txt =404; }
            location /only/ { alias %%DIR%%/b/; try_files /only/x.txt =404; }
            location /mixed/ { alias %%DIR%%/b/; try_files $uri$arg_end $uri/ =405; }
            location /fall/ { alias %%DIR%%/b/; try_files $uri /fall/end; location = /fall/end { SHOW } }
            location /value/ { alias %%DIR%%/b/; try_files $uri $arg_last; }
            location = /end { SHOW }
            location /named/ { alias %%DIR%%/b/; try_files $uri @named; }
            location @named { SHOW }
            location /bare { alias %%DIR%%/b; try_files $uri $uri/index.html /bare/x.txt; }
            location = /exact { alias %%DIR%%/b/x.txt; try_files $uri =404; }
            location ~ ^/regex/(.*)$ { alias %%DIR%%/r/; try_files $1 /regex/$1 /end?a=$1; }
            location /outer/ { alias %%DIR%%/b/; location /outer/in/ { try_files $uri /end$arg_q; } }
            location /prefixed/ { alias %%DIR%%/b/; try_files $arg_p/x.txt =404; }
        }"
        .replace("SHOW", show),
    )
    .file("b/x.txt", "x")
    .file("b/index.html", "index")
    .file("b/d/index.html", "d index")
    .file("b/in/y.txt", "y")
    .file("r/z.txt", "z")
    .start();
    let folder = server.folder().path().display().to_string();
    for (target, status, text) in [
        ("/app/none?a=b", 200, "/app/index.php|DIR/b/index.php|a=b"),
        ("/app/x.txt", 200, "x"),
        ("/app/d/", 200, "d index"),
        // Without variables nothing is taken off.
        ("/constant/none", 200, "x"),
        ("/only/none", 404, ""),
        ("/mixed/x?end=.txt", 200, "x"),
        ("/mixed/none", 405, ""),
        ("/fall/none?z=1", 200, "/fall/end|DIR/b/end|"),
        ("/value/none?last=/end", 200, "/end|DIR/end|"),
        ("/value/none?last=/value/end", 404, ""),
        ("/named/none?q=1", 200, "/named/none|DIR/named/none|q=1"),
        ("/bare/x.txt", 200, "x"),
        ("/bare/d", 200, "d index"),
        ("/bare/none", 200, "x"),
        ("/exact", 200, "x"),
        ("/regex/z.txt", 200, "z"),
        ("/regex/none", 200, "/end|DIR/end|a=none"),
        ("/outer/in/y.txt", 200, "y"),
        ("/outer/in/none", 200, "/end|DIR/end|"),
        ("/prefixed/none?p=/prefixed", 200, "x"),
        ("/prefixed/none?p=/other", 404, ""),
    ] {
        let got = server.get(target);
        assert_eq!(got.status, status, "{target}");
        assert!(text.is_empty() || got.text().replace(&folder, "DIR") == text, "{target}: {}", got.text());
    }
}

#[test]
fn a_rewritten_uri_shorter_than_the_alias() {
    let mut server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%;
            location /long/prefix/ { rewrite ^/long/prefix/(.*)$ /$1 break; alias %%DIR%%/b/; }
            location /path/prefix/ { rewrite ^ /x break; alias %%DIR%%/b/; add_header X-F $request_filename; }
            location /value/prefix/ { rewrite ^ /x break; alias %%DIR%%/b/; return 200 <$request_filename>; }
            location /try/prefix/ { rewrite ^ /x break; alias %%DIR%%/b/; try_files $uri $uri/ =404; }
            location /list/prefix/ { rewrite ^ / break; alias %%DIR%%/b/; autoindex on; }
            location /zip/prefix/ { rewrite ^ /x break; alias %%DIR%%/b/; gzip_static always; }
            location /test/prefix/ { rewrite ^ /x; set $f $request_filename; alias %%DIR%%/b/; }
        }",
    )
    .file("b/x.txt", "x")
    .file("b/x", "x")
    .start();
    server.quiet();
    for path in ["long", "path", "value", "try", "list", "zip"] {
        for end in ["", "x.txt", "x"] {
            assert_eq!(server.get(&format!("/{path}/prefix/{end}")).status, 500, "{path} {end}");
        }
    }
    assert_eq!(server.get("/list/prefix/x").status, 500);
}

#[test]
fn captures_of_a_map_beside_those_of_a_location() {
    let backend = Backend::start(|r| Backend::ok(r.line()));
    let server = Setup::http(
        &"map $uri $long { ~^/....(?<all>.*)$ $all$all$all$all; }
        map $request_uri $map { ~^/(.)(.)(.) \"[$3$2]\"; default none; }
        map $request_uri $other { ~^/..(.)(.) \"<$2$1>\"; default none; }
        server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; absolute_redirect off;
            location ~ ^/lo/(.*)$ { return 200 \"$1 $long $1\"; }
            location ~ ^/ma/(.)(.*)$ { return 200 \"$1 $map $1\"; }
            location ~ ^/mb/(.)(.*)$ { return 200 \"$map $1\"; }
            location ~ ^/mc/(.)(.*)$ { set $v \"$1$map$2\"; return 200 \"$v $1\"; }
            location ~ ^/md/(.)(.*)$ { add_header X-M \"$1$map$2\"; return 204; }
            location ~ ^/me/(.)(.*)$ { return 302 /$1$map$2$map; }
            location ~ ^/mf/(.)(.*)$ { proxy_pass http://127.0.0.1:B/$2/$map/$1; }
            location ~ ^/mg/(.)(.*)$ { return 200 \"$1$map$1$other$1\"; }
            location ~ ^/mh/(?<one>.)(.*)$ { return 200 \"$one$map$one\"; }
            location ~ ^/mi/(.)(.*)$ { alias %%DIR%%/$1$map/; }
        }"
        .replace(":B", &format!(":{}", backend.port)),
    )
    .file("m[/i]/f", "found")
    .start();
    for (target, text) in [
        // The map's captures count for the whole value.
        ("/lo/abc", "bc bcbcbcbc bc"),
        ("/ma/abc", "m [/a] m"),
        ("/mb/abc", "[/b] m"),
        ("/mc/abc", "m[/c]c m"),
        ("/mf/abc", "GET /f/[/f]/m HTTP/1.1"),
        ("/mg/abc", "/[/g]/<a/>/"),
        ("/mh/abc", "a[/h]a"),
    ] {
        assert_eq!(server.get(target).text(), text, "{target}");
    }
    assert_eq!(server.get("/md/abc").field("X-M"), Some("m[/d]d"));
    assert_eq!(server.get("/me/abc").field("Location"), Some("/m[/e]e[/e]"));
}
