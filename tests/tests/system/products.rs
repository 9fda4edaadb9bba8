//! Configurations of products as their documentation has them, each with what stands for the product behind it.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::application::Application;
use e2e::{Backend, Response, Server, Setup, curl, tool};

/// What distributions put into `fastcgi_params`.
const FASTCGI_PARAMS: &str = "
    fastcgi_param QUERY_STRING $query_string; fastcgi_param REQUEST_METHOD $request_method;
    fastcgi_param CONTENT_TYPE $content_type; fastcgi_param CONTENT_LENGTH $content_length;
    fastcgi_param SCRIPT_NAME $fastcgi_script_name; fastcgi_param REQUEST_URI $request_uri;
    fastcgi_param DOCUMENT_URI $document_uri; fastcgi_param DOCUMENT_ROOT $document_root;
    fastcgi_param SERVER_PROTOCOL $server_protocol; fastcgi_param REQUEST_SCHEME $scheme;
    fastcgi_param HTTPS $https if_not_empty; fastcgi_param GATEWAY_INTERFACE CGI/1.1;
    fastcgi_param SERVER_SOFTWARE nginx/$nginx_version; fastcgi_param REMOTE_ADDR $remote_addr;
    fastcgi_param SERVER_NAME $server_name; fastcgi_param REDIRECT_STATUS 200;";

fn statuses(server: &Server, cases: &[(&str, u16)]) {
    for (target, status) in cases {
        assert_eq!(server.get(target).status, *status, "{target}");
    }
}

fn post(server: &Server, target: &str, more: &str, body: &str) -> Response {
    let length = body.len();
    server.raw(format!(
        "POST {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{more}Content-Length: {length}\r\n\r\n{body}"
    ))
}

#[test]
fn wordpress() {
    let setup = Setup::http(
        "fastcgi_cache_path %%DIR%%/cache levels=1:2 keys_zone=pages:1m inactive=10m;
        limit_req_zone $binary_remote_addr zone=login:1m rate=1r/m;
        map $http_cookie $skip { default 0; ~wordpress_logged_in 1; ~comment_author 1; }
        upstream php { server unix:%%DIR%%/run/php.sock; keepalive 2; }
        server {
            listen 127.0.0.1:%%PORT%%; server_name blog.example; root %%DIR%%/wp; index index.php;
            client_max_body_size 8m;
            location = /favicon.ico { log_not_found off; access_log off; }
            location = /xmlrpc.php { deny all; }
            location ~ /\\.(?!well-known) { deny all; }
            location ~* /(?:uploads|files)/.*\\.php$ { deny all; }
            location / { try_files $uri $uri/ /index.php?$args; }
            location = /wp-login.php {
                limit_req zone=login burst=2 nodelay; limit_req_status 429;
                include fastcgi_params; fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
                fastcgi_pass php;
            }
            location ~ \\.php$ {
                try_files $uri =404;
                include fastcgi_params; fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
                fastcgi_pass php; fastcgi_keep_conn on;
                fastcgi_cache pages; fastcgi_cache_key $scheme$request_method$host$request_uri;
                fastcgi_cache_valid 200 10m; fastcgi_cache_bypass $skip; fastcgi_no_cache $skip;
                add_header X-Cache $upstream_cache_status;
            }
            location ~* \\.(?:css|js|png|jpe?g|gif|ico|svg|woff2?)$ { expires 30d; access_log off; }
        }",
    )
    .file("fastcgi_params", FASTCGI_PARAMS)
    .file(
        "wp/index.php",
        "<?php header('Cache-Control: '); echo 'post ', $_SERVER['REQUEST_URI'], ' ', $_GET['p'] ?? '-', ' ', hrtime(true);",
    )
    .file("wp/wp-login.php", "<?php echo $_POST['log'] ?? 'form';")
    .file("wp/wp-admin/index.php", "<?php echo 'dashboard';")
    .file("wp/xmlrpc.php", "<?php echo 'xmlrpc';")
    .file("wp/wp-content/uploads/evil.php", "<?php echo 'evil';")
    .file("wp/wp-content/themes/style.css", "body {}")
    .file("wp/.htaccess", "secret")
    .public("cache");
    let Some(_php) = Application::php(&setup.folder().public("run"), "php") else { return };
    let server = setup.start();
    statuses(
        &server,
        &[
            ("/.htaccess", 403),
            ("/.git/config", 403),
            ("/xmlrpc.php", 403),
            ("/wp-content/uploads/evil.php", 403),
            ("/wp-content/uploads/evil.PHP", 403),
            ("/no.php", 404),
            ("/wp-admin", 301),
            ("/wp-admin/", 200),
        ],
    );
    let first = server.get("/2026/11/hello-world/?p=7");
    let start = "post /2026/11/hello-world/?p=7 7 ";
    assert!(first.status == 200 && first.text().starts_with(start), "{}", first.text());
    assert_eq!(first.field("X-Cache"), Some("MISS"));
    let again = server.get("/2026/11/hello-world/?p=7");
    assert_eq!((again.field("X-Cache"), again.text()), (Some("HIT"), first.text()));
    let editor = server.get_with("/2026/11/hello-world/?p=7", "Cookie: wordpress_logged_in_1=x\r\n");
    assert!(editor.field("X-Cache") == Some("BYPASS") && editor.text() != first.text(), "{}", editor.head);
    let style = server.get("/wp-content/themes/style.css");
    assert_eq!((style.text().as_str(), style.field("Cache-Control")), ("body {}", Some("max-age=2592000")));
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let logins: Vec<u16> = (0..5).map(|_| post(&server, "/wp-login.php", form, "log=admin").status).collect();
    assert_eq!(logins, [200, 200, 200, 429, 429]);
}

#[test]
fn nextcloud() {
    let setup = Setup::http(
        "map $arg_v $asset_immutable { '' ''; default ', immutable'; }
        upstream php-handler { server unix:%%DIR%%/run/php.sock; }
        server {
            listen 127.0.0.1:%%PORT%%; root %%DIR%%/nc; index index.php index.html /index.php$request_uri;
            client_max_body_size 512m; client_body_timeout 300s; fastcgi_buffers 64 4k;
            add_header X-Robots-Tag noindex always; add_header X-Content-Type-Options nosniff always;
            fastcgi_hide_header X-Powered-By;
            location = / { if ($http_user_agent ~ ^DavClnt) { return 302 /remote.php/webdav/$is_args$args; } }
            location = /robots.txt { allow all; log_not_found off; access_log off; }
            location ^~ /.well-known {
                location = /.well-known/carddav { return 301 /remote.php/dav/; }
                location = /.well-known/caldav { return 301 /remote.php/dav/; }
                location /.well-known/acme-challenge { try_files $uri $uri/ =404; }
                return 301 /index.php$request_uri;
            }
            location ~ ^/(?:build|tests|config|lib|3rdparty|templates|data)(?:$|/) { return 404; }
            location ~ ^/(?:\\.|autotest|occ|issue|indie|db_|console) { return 404; }
            location ~ \\.php(?:$|/) {
                rewrite ^/(?!index|remote|public|cron|status|ocs/v[12]) /index.php$request_uri;
                fastcgi_split_path_info ^(.+?\\.php)(/.*)$;
                set $path_info $fastcgi_path_info;
                try_files $fastcgi_script_name =404;
                include fastcgi_params;
                fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
                fastcgi_param PATH_INFO $path_info;
                fastcgi_param front_controller_active true;
                fastcgi_pass php-handler;
                fastcgi_intercept_errors on; fastcgi_request_buffering off; fastcgi_max_temp_file_size 0;
            }
            location ~ \\.(?:css|js|svg|png|ico|wasm)$ {
                try_files $uri /index.php$request_uri;
                add_header Cache-Control \"public, max-age=15778463$asset_immutable\";
                add_header X-Robots-Tag noindex always;
            }
            location ~ \\.woff2?$ { try_files $uri /index.php$request_uri; expires 7d; }
            location /remote { return 301 /remote.php$request_uri; }
            location / { try_files $uri $uri/ /index.php$request_uri; }
        }",
    )
    .file("fastcgi_params", FASTCGI_PARAMS)
    .file(
        "nc/index.php",
        "<?php header('X-Powered-By: x'); echo 'app ', $_SERVER['PATH_INFO'] ?? '-', ' ', $_SERVER['front_controller_active'], ' ', $_SERVER['QUERY_STRING'];",
    )
    .file(
        "nc/remote.php",
        "<?php $body = file_get_contents('php://input');
         echo $_SERVER['REQUEST_METHOD'], ' ', $_SERVER['PATH_INFO'], ' ', strlen($body), ' ', $_SERVER['HTTP_DEPTH'] ?? '-';",
    )
    .file("nc/status.php", "<?php header('Content-Type: application/json'); echo '{\"installed\":true}';")
    .file("nc/core/css/a.css", "body {}")
    .file("nc/config/config.php", "<?php secret();")
    .file("nc/data/user/file", "secret");
    let Some(_php) = Application::php(&setup.folder().public("run"), "php") else { return };
    let server = setup.start();
    statuses(
        &server,
        &[
            ("/config/config.php", 404),
            ("/data/user/file", 404),
            ("/.env", 404),
            ("/occ", 404),
            ("/.well-known/acme-challenge/x", 404),
        ],
    );
    for (target, location) in [
        ("/.well-known/carddav", "/remote.php/dav/"),
        ("/.well-known/webfinger", "/index.php/.well-known/webfinger"),
        ("/remote/x", "/remote.php/remote/x"),
    ] {
        let response = server.get(target);
        assert_eq!(response.status, 301, "{target}");
        assert!(response.field("Location").is_some_and(|to| to.ends_with(location)), "{target}: {}", response.head);
    }
    let client = server.get_with("/", "User-Agent: DavClnt\r\n");
    assert_eq!(client.status, 302);
    let app = server.get("/apps/files/?dir=/a%20b");
    assert_eq!(app.text(), "app /apps/files/ true dir=/a%20b");
    let fields = ["X-Powered-By", "X-Robots-Tag", "X-Content-Type-Options"].map(|name| app.field(name));
    assert_eq!(fields, [None, Some("noindex"), Some("nosniff")]);
    assert_eq!(server.get("/settings/admin.php").text(), "app /settings/admin.php true ");
    assert_eq!(server.get("/status.php").text(), "{\"installed\":true}");
    let css = |target: &str| server.get(target).field("Cache-Control").map(str::to_owned);
    assert_eq!(css("/core/css/a.css").as_deref(), Some("public, max-age=15778463"));
    assert_eq!(css("/core/css/a.css?v=1").as_deref(), Some("public, max-age=15778463, immutable"));
    let find = "PROPFIND /remote.php/dav/files/user/ HTTP/1.1\r\nHost: a\r\nDepth: 1\r\nConnection: close\r\n\r\n";
    assert_eq!(server.raw(find).text(), "PROPFIND /dav/files/user/ 0 1");
    let upload = server.folder().write("large", vec![b'x'; 3_000_000]);
    let url = server.url("/remote.php/dav/files/user/large");
    let said = curl(&["-T", &upload.display().to_string(), &url]);
    assert_eq!(String::from_utf8_lossy(&said), "PUT /dav/files/user/large 3000000 -");
}

/// What an edge asks its origin for; it serves ranges of one file.
fn origin(asked: &'static AtomicUsize, content: Vec<u8>) -> Backend {
    Backend::start(move |r| {
        asked.fetch_add(1, Ordering::Relaxed);
        let all = content.len();
        let range =
            r.field("Range").and_then(|range| range.strip_prefix("bytes=")).and_then(|range| range.split_once('-'));
        let (first, last) = range.map_or((0, all - 1), |(first, last)| {
            (first.parse().unwrap_or(0), last.parse().unwrap_or(all - 1).min(all - 1))
        });
        let part = &content[first..=last];
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{last}/{all}\r\n\
             ETag: \"one\"\r\nContent-Type: application/octet-stream\r\n\r\n",
            part.len()
        );
        [head.as_bytes(), part].concat()
    })
}

#[test]
fn an_edge_of_a_cdn_with_signed_links_and_slices() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let content: Vec<u8> = (0..200_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let origin = origin(&ASKED, content.clone());
    let server = Setup::http(
        &"proxy_cache_path %%DIR%%/cache levels=1:2 keys_zone=edge:1m max_size=100m;
        server {
            listen 127.0.0.1:%%PORT%%;
            location /media/ {
                secure_link $arg_sig,$arg_until; secure_link_md5 '$secure_link_expires$uri secret';
                if ($secure_link = '') { return 403; }
                if ($secure_link = 0) { return 410; }
                slice 64k;
                proxy_cache edge; proxy_cache_key $uri$slice_range; proxy_set_header Range $slice_range;
                proxy_cache_valid 200 206 1h; proxy_cache_lock on;
                add_header X-Cache $upstream_cache_status; add_header Cache-Control 'public, max-age=3600';
                proxy_pass http://127.0.0.1:B;
            }
            location / { return 404; }
        }"
        .replace(":B", &format!(":{}", origin.port)),
    )
    .public("cache")
    .start();
    // Of `4102444800/media/film secret` and of `1/media/film secret`.
    let film = "/media/film?sig=oEJ-gbwM04KHqEUDuhLWiA&until=4102444800";
    statuses(
        &server,
        &[
            ("/media/film", 403),
            ("/media/film?sig=oEJ-gbwM04KHqEUDuhLWiA&until=4102444801", 403),
            ("/media/other?sig=oEJ-gbwM04KHqEUDuhLWiA&until=4102444800", 403),
            ("/media/film?sig=gQRdsukrsvA4fKpZXSE8vQ&until=1", 410),
        ],
    );
    assert_eq!(ASKED.load(Ordering::Relaxed), 0, "nobody is asked for a link that doesn't hold");
    let part = server.get_with(film, "Range: bytes=70000-70009\r\n");
    assert_eq!((part.status, &part.body[..]), (206, &content[70_000..70_010]));
    assert_eq!((part.field("Content-Range"), part.field("X-Cache")), (Some("bytes 70000-70009/200000"), Some("MISS")));
    assert_eq!(ASKED.load(Ordering::Relaxed), 1, "one slice was enough");
    let whole = server.get(film);
    assert!(whole.status == 200 && whole.body == content, "{}", whole.head);
    assert_eq!(ASKED.load(Ordering::Relaxed), 4, "the other three slices");
    let again = server.get_with(film, "Range: bytes=65530-65545\r\n");
    assert_eq!((again.field("X-Cache"), &again.body[..]), (Some("HIT"), &content[65_530..65_546]));
    assert_eq!(ASKED.load(Ordering::Relaxed), 4);
}

#[test]
fn a_front_that_blocks_countries() {
    let server = Setup::http(
        "set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For; real_ip_recursive on;
        geo $country { default ZZ; 192.0.2.0/24 DE; 198.51.100.0/24 FR; 198.51.100.128/25 XX; 2001:db8::/32 XX; 127.0.0.0/8 ZZ; }
        map $country $blocked { default 0; XX 1; }
        map $country $language { default en; DE de; FR fr; }
        log_format by_country '$country $status $remote_addr';
        server {
            listen 127.0.0.1:%%PORT%%; root %%DIR%%/site; access_log %%DIR%%/countries.log by_country;
            error_page 451 /blocked.html;
            if ($blocked) { set $answer 1; }
            if ($uri ~ ^/(?:blocked\\.html|legal/)) { set $answer 0; }
            if ($answer = 1) { return 451; }
            add_header Content-Language $language;
            location / { try_files /$language$uri $uri =404; }
        }",
    )
    .file("site/index.html", "hello")
    .file("site/de/index.html", "hallo")
    .file("site/blocked.html", "not here")
    .file("site/legal/terms.html", "terms")
    .start();
    for (from, target, status, text) in [
        ("192.0.2.1", "/index.html", 200, "hallo"),
        ("198.51.100.1", "/index.html", 200, "hello"),
        ("203.0.113.1", "/index.html", 200, "hello"),
        ("198.51.100.200", "/index.html", 451, "not here"),
        ("198.51.100.200", "/legal/terms.html", 200, "terms"),
        ("2001:db8::1", "/index.html", 451, "not here"),
        // The client's own claim doesn't count, the address before the proxy's does.
        ("192.0.2.1, 198.51.100.200", "/index.html", 451, "not here"),
    ] {
        let got = server.get_with(target, &format!("X-Forwarded-For: {from}\r\n"));
        assert_eq!((got.status, got.text().as_str()), (status, text), "{from} {target}");
    }
    assert_eq!(server.get("/index.html").text(), "hello");
    let mut server = server;
    let log = server.read_until("countries.log", "ZZ 200 127.0.0.1");
    assert!(log.contains("XX 451 198.51.100.200") && log.contains("XX 451 2001:db8::1"), "{log}");
}

#[test]
fn a_switch_for_maintenance() {
    let backend = Backend::start(|_| Backend::ok("the application"));
    let server = Setup::http(
        &"map $cookie_preview $is_staff { default 0; token 1; }
        server {
            listen 127.0.0.1:%%PORT%%; root %%DIR%%/site;
            error_page 503 @maintenance; error_page 502 504 /down.html;
            set $closed 0;
            if (-f $document_root/closed) { set $closed 1; }
            if ($is_staff) { set $closed 0; }
            if ($uri ~ ^/static/) { set $closed 0; }
            location / { if ($closed) { return 503; } proxy_pass http://127.0.0.1:B; }
            location /broken/ { proxy_pass http://127.0.0.1:1; }
            location /static/ { expires 1h; }
            location = /down.html { internal; }
            location @maintenance {
                add_header Retry-After 600 always; add_header Cache-Control no-store always;
                rewrite ^ /maintenance.html break;
            }
        }"
        .replace(":B", &format!(":{}", backend.port)),
    )
    .file("site/maintenance.html", "back soon")
    .file("site/down.html", "down")
    .file("site/static/logo.svg", "<svg/>")
    .start();
    let closed = server.folder().path().join("site/closed");
    assert_eq!(server.get("/cart?x=1").text(), "the application");
    fs::write(&closed, "").expect("the folder is ours");
    for target in ["/cart?x=1", "/maintenance.html", "/"] {
        let got = server.get(target);
        assert_eq!((got.status, got.text().as_str()), (503, "back soon"), "{target}");
        assert_eq!((got.field("Retry-After"), got.field("Cache-Control")), (Some("600"), Some("no-store")), "{target}");
    }
    assert_eq!(server.get("/static/logo.svg").text(), "<svg/>");
    assert_eq!(server.get_with("/cart", "Cookie: preview=token\r\n").text(), "the application");
    let broken = server.get("/broken/x");
    assert_eq!((broken.status, broken.text().as_str()), (502, "down"));
    fs::remove_file(closed).expect("it is there");
    assert_eq!(server.get("/cart").text(), "the application");
}

#[test]
fn a_video_site() {
    let server = Setup::http(
        "types { text/html html; video/mp4 mp4; video/x-flv flv; image/jpeg jpg; text/vtt vtt; }
        limit_conn_zone $binary_remote_addr zone=watchers:1m;
        server {
            listen 127.0.0.1:%%PORT%%; root %%DIR%%/site;
            location ~ ^/watch/(\\w+)$ { default_type text/html; return 200 '<video src=/v/$1.mp4></video>'; }
            location /v/ { mp4; mp4_buffer_size 64k; mp4_max_buffer_size 1m; limit_conn watchers 8;
                limit_rate_after 1m; limit_rate 50m; expires 1d; }
            location /old/ { flv; }
            location /thumbs/ { expires max; try_files $uri /thumbs/none.jpg; }
            location ~ \\.vtt$ { charset utf-8; charset_types text/vtt; add_header Access-Control-Allow-Origin *; }
        }",
    )
    .file("site/old/a.flv", "0123456789")
    .file("site/v/film.en.vtt", "WEBVTT")
    .file("site/thumbs/none.jpg", "none")
    .start();
    assert_eq!(server.get("/watch/film").text(), "<video src=/v/film.mp4></video>");
    assert_eq!(server.get("/old/a.flv?start=7").text(), "FLV\x01\x05\0\0\0\x09\0\0\0\x00789");
    let missing = server.get("/thumbs/film.jpg");
    assert_eq!((missing.text().as_str(), missing.field("Content-Type")), ("none", Some("image/jpeg")));
    let captions = server.get("/v/film.en.vtt");
    let fields = ["Content-Type", "Access-Control-Allow-Origin"].map(|name| captions.field(name));
    assert_eq!(fields, [Some("text/vtt; charset=utf-8"), Some("*")]);
    let film = server.folder().path().join("site/v/film.mp4");
    let Some(ffmpeg) = tool(&["ffmpeg"]) else { return };
    let made = std::process::Command::new(ffmpeg)
        .args(["-nostdin", "-loglevel", "quiet", "-y", "-f", "lavfi", "-i", "testsrc=duration=6:size=64x48:rate=10"])
        .args(["-pix_fmt", "yuv420p", "-g", "10", "-c:v", "h264", "-movflags", "+faststart"])
        .arg(&film)
        .status();
    assert!(made.is_ok_and(|made| made.success()), "ffmpeg records");
    let whole = fs::read(&film).expect("just made");
    let got = server.get("/v/film.mp4");
    assert!(got.body == whole && got.field("Content-Type") == Some("video/mp4"), "{}", got.head);
    assert_eq!(got.field("Cache-Control"), Some("max-age=86400"));
    let part = server.get_with("/v/film.mp4", "Range: bytes=100-199\r\n");
    assert_eq!((part.status, &part.body[..]), (206, &whole[100..200]));
    let later = server.get("/v/film.mp4?start=3");
    assert!(later.status == 200 && later.body.len() < whole.len() && &later.body[4..8] == b"ftyp", "{}", later.head);
}

#[test]
fn a_proxy_as_gitlab_has_it() {
    let workhorse = Backend::start(|r| {
        let field = |name: &str| r.field(name).unwrap_or("-").to_owned();
        let said = [field("Host"), field("X-Forwarded-Proto"), field("X-Forwarded-For"), field("X-User")].join(" ");
        Backend::ok(&format!("{} {said} {}", r.line(), r.body.len()))
    });
    let registry = Backend::start(|r| Backend::ok(&format!("registry {}", r.field("X-User").unwrap_or("-"))));
    let auth = Backend::start(|r| match r.field("Authorization") {
        Some("Bearer good") => b"HTTP/1.1 204 No Content\r\nX-User: alice\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"gitlab\"\r\nContent-Length: 0\r\n\r\n"
            .to_vec(),
    });
    let server = Setup::http(
        &"upstream workhorse { server 127.0.0.1:W; keepalive 4; }
        map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
        server {
            listen 127.0.0.1:%%PORT%%; server_name gitlab.example; server_tokens off; client_max_body_size 1m;
            add_header Strict-Transport-Security max-age=63072000 always;
            location / {
                proxy_read_timeout 300s; proxy_http_version 1.1; proxy_redirect off; gzip off;
                proxy_set_header Host $http_host; proxy_set_header X-Real-IP $remote_addr;
                proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
                proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
                proxy_pass http://workhorse;
            }
            location ~ ^/[\\w.-]+/[\\w.-]+\\.git/git-(?:receive|upload)-pack$ {
                client_max_body_size 0; proxy_request_buffering off; proxy_set_header Host $http_host;
                proxy_pass http://workhorse;
            }
            location /v2/ {
                auth_request /auth; auth_request_set $user $upstream_http_x_user;
                proxy_set_header X-User $user; proxy_pass http://127.0.0.1:R;
            }
            location = /auth {
                internal; proxy_pass_request_body off; proxy_set_header Content-Length ''; proxy_set_header X-Original-URI $request_uri;
                proxy_pass http://127.0.0.1:A;
            }
            error_page 404 /404.html; error_page 502 /502.html;
            location ~ ^/(?:404|502)\\.html$ { root %%DIR%%/errors; internal; }
            location = /gone/ { proxy_pass http://127.0.0.1:1; }
        }"
        .replace(":W", &format!(":{}", workhorse.port))
        .replace(":R", &format!(":{}", registry.port))
        .replace(":A;", &format!(":{};", auth.port)),
    )
    .file("errors/502.html", "GitLab is not responding")
    .start();
    let page = server.get_with("/group/project?x=1", "X-Forwarded-For: 192.0.2.1\r\n");
    assert_eq!(page.text(), "GET /group/project?x=1 HTTP/1.1 localhost http 192.0.2.1, 127.0.0.1 - 0");
    assert_eq!(page.field("Strict-Transport-Security"), Some("max-age=63072000"));
    let large = "x".repeat(2_000_000);
    assert_eq!(post(&server, "/group/project/upload", "", &large).status, 413);
    let pushed = post(&server, "/group/project.git/git-receive-pack", "", &large);
    assert!(pushed.status == 200 && pushed.text().ends_with(" 2000000"), "{}", pushed.text());
    let refused = server.get("/v2/group/image");
    assert_eq!((refused.status, refused.field("WWW-Authenticate")), (401, Some("Bearer realm=\"gitlab\"")));
    assert_eq!(
        server.get_with("/v2/group/image", "Authorization: Bearer good\r\nX-User: root\r\n").text(),
        "registry alice"
    );
    statuses(&server, &[("/auth", 404), ("/502.html", 404)]);
    let down = server.get("/gone/");
    assert_eq!((down.status, down.text().as_str()), (502, "GitLab is not responding"));
}

#[test]
fn single_sign_on_by_oauth2_proxy() {
    let proxy = Backend::start(|r| {
        let signed_in = r.field("Cookie").is_some_and(|cookie| cookie.contains("_oauth2_proxy=valid"));
        let answer = match r.line() {
            line if line.starts_with("GET /oauth2/auth ") && signed_in => {
                "HTTP/1.1 202 Accepted\r\nX-Auth-Request-User: alice\r\nX-Auth-Request-Email: alice@example.com\r\n\
                 Set-Cookie: _oauth2_proxy=fresh; HttpOnly\r\nContent-Length: 0\r\n\r\n"
            }
            line if line.starts_with("GET /oauth2/auth ") => "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
            line if line.starts_with("GET /oauth2/callback?code=1 ") => {
                "HTTP/1.1 302 Found\r\nLocation: /app?x=1\r\nSet-Cookie: _oauth2_proxy=valid\r\nContent-Length: 0\r\n\r\n"
            }
            _ => return Backend::ok(&format!("sign in, then {}", r.field("X-Auth-Request-Redirect").unwrap_or("-"))),
        };
        answer.as_bytes().to_vec()
    });
    let app = Backend::start(|r| {
        let field = |name: &str| r.field(name).unwrap_or("-").to_owned();
        Backend::ok(&format!("{} for {} {}", r.line(), field("X-User"), field("X-Email")))
    });
    let server = Setup::http(
        &"server {
            listen 127.0.0.1:%%PORT%%;
            location /oauth2/ {
                proxy_pass http://127.0.0.1:P; proxy_set_header Host $host; proxy_set_header X-Real-IP $remote_addr;
                proxy_set_header X-Auth-Request-Redirect $request_uri;
            }
            location = /oauth2/auth {
                internal; proxy_pass http://127.0.0.1:P; proxy_set_header Host $host;
                proxy_set_header X-Forwarded-Uri $request_uri;
                proxy_set_header Content-Length ''; proxy_pass_request_body off;
            }
            location / {
                auth_request /oauth2/auth; error_page 401 =403 /oauth2/sign_in;
                auth_request_set $user $upstream_http_x_auth_request_user;
                auth_request_set $email $upstream_http_x_auth_request_email;
                auth_request_set $auth_cookie $upstream_http_set_cookie;
                proxy_set_header X-User $user; proxy_set_header X-Email $email; add_header Set-Cookie $auth_cookie;
                proxy_pass http://127.0.0.1:Q;
            }
            location /health { return 200 well; }
        }"
        .replace(":P;", &format!(":{};", proxy.port))
        .replace(":Q;", &format!(":{};", app.port)),
    )
    .start();
    let stranger = server.get_with("/app?x=1", "X-User: root\r\n");
    assert_eq!((stranger.status, stranger.text().as_str()), (403, "sign in, then /app?x=1"));
    assert_eq!(app.requests().len(), 0, "the application wasn't asked");
    let back = server.get("/oauth2/callback?code=1");
    assert!(back.status == 302 && back.field("Location").is_some_and(|to| to.ends_with("/app?x=1")), "{}", back.head);
    let user = server.get_with("/app?x=1", "Cookie: _oauth2_proxy=valid\r\nX-User: root\r\n");
    assert_eq!(user.text(), "GET /app?x=1 HTTP/1.1 for alice alice@example.com");
    assert_eq!(user.all("Set-Cookie"), ["_oauth2_proxy=fresh; HttpOnly"]);
    let posted = post(&server, "/app", "Cookie: _oauth2_proxy=valid\r\n", "a body");
    assert_eq!(posted.text(), "POST /app HTTP/1.1 for alice alice@example.com");
    assert_eq!(server.get("/health").text(), "well");
    assert_eq!(server.get("/oauth2/auth").status, 404, "only the server itself may ask");
}

#[test]
fn a_page_of_fragments() {
    let shop = Backend::start(|r| match r.line() {
        line if line.contains("/fragments/basket") => {
            Backend::ok(&format!("<aside>basket of {}</aside>", r.field("Cookie").unwrap_or("nobody")))
        }
        line if line.contains("/fragments/late") => Backend::ok("<p>late</p>"),
        _ => b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 6\r\n\r\nbroken".to_vec(),
    });
    let page = "<!--# include virtual=\"/parts/head.html\" --><!--# set var=\"title\" value=\"Tea & more\" -->\
                <h1><!--# echo var=\"title\" --></h1><!--# include virtual=\"/fragments/basket\" -->\
                <!--# if expr=\"$arg_lang = de\" -->Guten Tag<!--# else -->Hello<!--# endif -->\
                <!--# block name=\"none\" --><p>no offers today</p><!--# endblock -->\
                <!--# include virtual=\"/fragments/broken\" --><!--# include virtual=\"/gone/offers\" stub=\"none\" --><!--# include virtual=\"/fragments/late\" -->";
    let server = Setup::http(
        &"proxy_cache_path %%DIR%%/cache keys_zone=parts:1m;
        server {
            listen 127.0.0.1:%%PORT%%; root %%DIR%%/site; index index.html;
            location / { ssi on; gzip on; gzip_min_length 1; }
            location /parts/ { internal; }
            location /gone/ { internal; proxy_pass http://127.0.0.1:1; }
            location /fragments/ {
                internal; proxy_pass http://127.0.0.1:S; proxy_intercept_errors on; error_page 500 502 504 = /parts/empty.html;
            }
        }"
        .replace(":S", &format!(":{}", shop.port)),
    )
    .file("site/index.html", page)
    .file("site/parts/head.html", "<header>shop</header>")
    .file("site/parts/empty.html", "")
    .public("cache")
    .start();
    let expect = |who: &str, greeting: &str| {
        format!(
            "<header>shop</header><h1>Tea &amp; more</h1><aside>basket of {who}</aside>{greeting}\
             <p>no offers today</p><p>late</p>"
        )
    };
    let got = server.get("/?lang=de");
    assert_eq!((got.status, got.text()), (200, expect("nobody", "Guten Tag")));
    assert_eq!(got.field("Last-Modified"), None, "a page of parts has no time of its own");
    assert_eq!(server.get_with("/", "Cookie: id=7\r\n").text(), expect("id=7", "Hello"));
    let zipped = curl(&["--compressed", &server.url("/?lang=de")]);
    assert_eq!(String::from_utf8_lossy(&zipped), expect("nobody", "Guten Tag"));
    statuses(&server, &[("/parts/head.html", 404), ("/fragments/basket", 404)]);
}

#[test]
fn an_image_resizer() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let mut photo = std::io::Cursor::new(Vec::new());
    let picture = image::RgbImage::from_fn(120, 60, |x, _| image::Rgb([x as u8, 100, 200]));
    picture.write_to(&mut photo, image::ImageFormat::Jpeg).expect("it can be written");
    let photo = photo.into_inner();
    let originals = Backend::start(move |r| {
        ASKED.fetch_add(1, Ordering::Relaxed);
        let (status, kind, body) = match r.line().split(' ').nth(1) {
            Some("/originals/photo.jpeg") => ("200 OK", "image/jpeg", &photo[..]),
            Some("/originals/note.txt") => ("200 OK", "text/plain", &b"no picture"[..]),
            _ => ("404 Not Found", "text/plain", &b"none"[..]),
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), body].concat()
    });
    // In front the cache and the signatures; behind it, on a socket of its own, the server that changes pictures.
    let server = Setup::http(
        &"proxy_cache_path %%DIR%%/cache levels=1:2 keys_zone=thumbs:1m inactive=1d max_size=100m;
        upstream resizer { server unix:%%DIR%%/run/resizer.sock; }
        server {
            listen 127.0.0.1:%%PORT%%;
            location ~ ^/thumb/ {
                secure_link $arg_s; secure_link_md5 '$uri secret';
                if ($secure_link = '') { return 403; }
                proxy_cache thumbs; proxy_cache_key $uri; proxy_cache_lock on;
                proxy_cache_valid 200 30d; proxy_cache_valid 404 415 1m;
                proxy_intercept_errors on; error_page 404 415 = @blank;
                add_header X-Cache $upstream_cache_status; expires 30d;
                proxy_pass http://resizer;
            }
            location @blank { empty_gif; }
        }
        server {
            listen unix:%%DIR%%/run/resizer.sock;
            image_filter_buffer 8m; image_filter_jpeg_quality 85;
            location ~ '^/thumb/(?<w>[0-9]{1,4}|-)x(?<h>[0-9]{1,4}|-)/(?<name>[a-z0-9.]+)$' {
                image_filter resize $w $h;
                proxy_pass http://127.0.0.1:B/originals/$name;
            }
        }"
        .replace(":B/", &format!(":{}/", originals.port)),
    )
    .public("cache")
    .public("run")
    .program(e2e::hooks::program())
    .start();
    // Of `/thumb/40x40/photo.jpeg secret` and so on.
    let [small, low, note, none] = [
        "/thumb/40x40/photo.jpeg?s=aTcCSUm9MFANDAYNTeaOcA",
        "/thumb/-x30/photo.jpeg?s=2YspJyyFi02in6jmeUYYgg",
        "/thumb/40x40/note.txt?s=_79rB9KynxOCCFEUmWAbyw",
        "/thumb/40x40/none.png?s=ud1YvNbaB3qHiiPd4DozGQ",
    ];
    statuses(&server, &[("/thumb/40x40/photo.jpeg", 403), (&small.replace("40x40", "50x50"), 403)]);
    assert_eq!(ASKED.load(Ordering::Relaxed), 0, "nobody is asked for a size that wasn't signed");
    for (target, size) in [(small, (40, 20)), (low, (60, 30))] {
        let got = server.get(target);
        assert_eq!(
            (got.status, got.field("Content-Type"), got.field("X-Cache")),
            (200, Some("image/jpeg"), Some("MISS"))
        );
        let picture = image::load_from_memory(&got.body).expect("a picture");
        assert_eq!((picture.width(), picture.height()), size, "{target}");
        assert!(got.field("Expires").is_some());
        let again = server.get(target);
        assert!(again.field("X-Cache") == Some("HIT") && again.body == got.body, "{}", again.head);
    }
    assert_eq!(ASKED.load(Ordering::Relaxed), 2, "each size is made once");
    for target in [note, none] {
        let blank = server.get(target);
        assert_eq!((blank.status, blank.field("Content-Type")), (200, Some("image/gif")), "{target}");
    }
}
