//! Whole sites, met by curl and by a browser: a single-page application, a front controller, an application server with
//! a WebSocket, a folder of large files, two thousand servers in one configuration.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::{EC, Setup, certificate, chromium, curl, free_port, python, python_h2, sha256};

/// The application server of `site/app.py`; ended with the test.
struct App {
    port: u16,
    child: Child,
}

impl App {
    fn start() -> Option<App> {
        let python = python()?;
        let known = Command::new(&python).args(["-c", "import aiohttp"]).stderr(Stdio::null()).status();
        if !known.is_ok_and(|s| s.success()) {
            assert!(std::env::var_os("TIDEGATE_SKIP_MISSING").is_some(), "python3-aiohttp isn't installed");
            return None;
        }
        let (port, _reserved) = free_port();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("site/app.py");
        let child = Command::new(python).arg(script).arg(port.to_string()).spawn().expect("python starts");
        let app = App { port, child };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "the application doesn't start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(app)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SPA: &str = "
    types { text/html html; text/css css; application/javascript js; application/json json; image/svg+xml svg; }
    gzip on; gzip_types text/css application/javascript application/json image/svg+xml; gzip_min_length 256; gzip_vary on;
    map $sent_http_content_type $life { default off; text/html epoch; }
    server {
        listen 127.0.0.1:%%PORT%%; root %%DIR%%/dist; index index.html;
        add_header X-Content-Type-Options nosniff always;
        expires $life;
        location / { try_files $uri $uri/ /index.html; }
        location /assets/ { expires 1y; add_header Cache-Control \"public, immutable\"; try_files $uri =404; }
        location /api/ { return 200 '{\"items\":[1,2,3]}'; default_type application/json; }
    }";

const SPA_PAGE: &str =
    "<!doctype html><html><head><title>spa</title><link rel=stylesheet href=/assets/app.1a2b.css></head>
    <body><div id=root>empty</div><script src=/assets/app.1a2b.js></script></body></html>";

const SPA_SCRIPT: &str = "fetch('/api/items').then(r => r.json()).then(d => {
    const color = getComputedStyle(document.body).backgroundColor;
    document.getElementById('root').textContent = `route ${location.pathname} items ${d.items.length} ${color}`;
});";

#[test]
fn single_page_application() {
    let script = format!("{SPA_SCRIPT}\n// {}", "padding ".repeat(2000));
    let server = Setup::http(SPA)
        .file("dist/index.html", SPA_PAGE)
        .file("dist/assets/app.1a2b.js", &script)
        .file("dist/assets/app.1a2b.css", "body { background-color: rgb(1, 2, 3) }")
        .start();
    for path in ["/", "/deep/route?x=1", "/index.html"] {
        assert_eq!(curl(&[&server.url(path)]), SPA_PAGE.as_bytes(), "{path}");
    }
    let head = String::from_utf8_lossy(&curl(&["-I", &server.url("/deep/route")])).into_owned();
    assert!(head.contains("X-Content-Type-Options: nosniff") && head.contains("Cache-Control: no-cache"), "{head}");
    let asset = server.url("/assets/app.1a2b.js");
    let head = String::from_utf8_lossy(&curl(&["-I", "--compressed", &asset])).into_owned();
    for field in
        ["Cache-Control: max-age=31536000", "public, immutable", "Content-Encoding: gzip", "Vary: Accept-Encoding"]
    {
        assert!(head.contains(field), "{field} in {head}");
    }
    assert_eq!(curl(&["--compressed", &asset]), script.as_bytes());
    let size = curl(&["--compressed", "-o", "/dev/null", "-w", "%{size_download}", &asset]);
    let size: usize = String::from_utf8_lossy(&size).parse().expect("curl prints a number");
    assert!(size * 5 < script.len(), "{size} bytes");
    let etag = server.get("/assets/app.1a2b.js").field("ETag").expect("a tag").to_string();
    let again = server.get_with("/assets/app.1a2b.js", &format!("If-None-Match: {etag}\r\n"));
    assert_eq!(again.status, 304);
    assert_eq!(server.get("/assets/none.js").status, 404);
    if let Some(dom) = chromium(&server.url("/some/route"), &["--virtual-time-budget=8000"]) {
        assert!(dom.contains("route /some/route items 3 rgb(1, 2, 3)"), "{dom}");
    }
}

#[test]
fn front_controller() {
    let Some(app) = App::start() else { return };
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; root %%DIR%%/public; index index.html;
            location / {{ try_files $uri @app; }}
            location ~ /\\.  {{ deny all; }}
            location @app {{ proxy_pass http://127.0.0.1:{}; proxy_set_header Host $host; }}
         }}",
        app.port
    ))
    .file("public/style.css", "p {}")
    .file("public/.env", "secret")
    .start();
    let cases = [
        ("/style.css", "p {}"),
        ("/blog/2026/a-post?page=2", "controller: /blog/2026/a-post?page=2"),
        ("/a%20b", "controller: /a%20b"),
        ("/", "controller: /"),
    ];
    for (path, text) in cases {
        assert_eq!(String::from_utf8_lossy(&curl(&[&server.url(path)])), text, "{path}");
    }
    assert_eq!(server.get("/.env").status, 403);
}

#[test]
fn application_server_with_websocket() {
    let Some(app) = App::start() else { return };
    let server = Setup::http(&format!(
        "map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
         upstream app {{ server 127.0.0.1:{}; keepalive 8; }}
         server {{ listen 127.0.0.1:%%PORT%%; client_max_body_size 64m;
            location = / {{ return 301 /app/page; }}
            location /app/ {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Host $host:$server_port;
                proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
                proxy_set_header X-Via $scheme; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }}
         }}",
        app.port
    ))
    .file("upload", vec![7u8; 20_000_000])
    .start();
    assert_eq!(curl(&["-L", &server.url("/")]), curl(&[&server.url("/app/page")]));
    let json = String::from_utf8_lossy(&curl(&[&server.url("/app/api?n=4")])).into_owned();
    assert!(json.contains("\"twice\": 8") && json.contains("\"via\": \"http\""), "{json}");
    let file = format!("@{}", server.folder().path().join("upload").display());
    for more in [&[][..], &["-H", "Transfer-Encoding: chunked"]] {
        let upload = server.url("/app/upload");
        let args = [more, &["--data-binary", &file, &upload]].concat();
        assert_eq!(String::from_utf8_lossy(&curl(&args)), "got 20000000", "{more:?}");
    }
    let mut raw = server.connect();
    raw.send(
        "GET /app/echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let answer = raw.response();
    assert_eq!((answer.status, answer.field("Sec-WebSocket-Accept")), (101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
    raw.send(b"\x81\x83\0\0\0\0abc");
    assert_eq!(raw.take(5), b"\x81\x03ABC");
    drop(raw);
    if let Some(dom) = chromium(&server.url("/"), &[]) {
        assert!(dom.contains("TIDE and 40 via http"), "{dom}");
    }
}

/// Not in nginx: also over HTTP/2 (RFC 8441)
#[test]
fn websocket_over_http2() {
    let Some(app) = App::start() else { return };
    let setup = Setup::http(&format!(
        "map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
         log_format protocol '$server_protocol $request_method $status $uri $upstream_status';
         server {{ listen 127.0.0.1:%%PORT%% ssl; http2 on; access_log access.log protocol;
            ssl_certificate %%DIR%%/localhost.crt; ssl_certificate_key %%DIR%%/localhost.key;
            location / {{ proxy_pass http://127.0.0.1:{}; proxy_set_header Host $host:$server_port;
                proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
                proxy_set_header X-Via $http2; }}
         }}",
        app.port
    ));
    certificate(setup.folder(), "localhost", EC);
    let mut server = setup.start();
    let large = "tide ".repeat(12_000);
    for (end, last) in [("close", "close 1000\nstream ended\n"), ("half", "stream ended\n")] {
        let Some(text) = python_h2(server.port(), &["websocket", "/app/echo", end, "hello", &large]) else { return };
        let expect = format!("status 200 []\ntext HELLO\ntext {}\n{last}", large.to_uppercase());
        assert!(text == expect, "{end}: {text}");
        server.read_until("access.log", "HTTP/2.0 GET 200 /app/echo 101\n");
    }
    let before = server.read("access.log").matches("/app/echo").count();
    let url = format!("https://localhost:{}/app/page", server.port());
    let Some(dom) = chromium(&url, &["--ignore-certificate-errors"]) else { return };
    assert!(dom.contains("TIDE and 40 via h2"), "{dom}");
    server
        .wait(|s| s.read("access.log").matches("HTTP/2.0 GET 200 /app/echo 101").count() > before, "the socket's end");
    assert!(!server.read("access.log").contains("HTTP/1.1"), "Chromium has used one connection");
}

#[test]
fn folder_of_large_files() {
    let mut state = 1u32;
    let mut content = Vec::with_capacity(48 << 20);
    while content.len() < 48 << 20 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        content.extend_from_slice(&state.to_le_bytes());
    }
    for directives in ["sendfile on; tcp_nopush on;", "sendfile off;", "aio threads; sendfile on;"] {
        let server = Setup::http(&format!("server {{ listen 127.0.0.1:%%PORT%%; root %%DIR%%/files; {directives} }}"))
            .file("files/large.iso", &content)
            .start();
        let path = |name: &str| server.folder().path().join(name);
        let text = |name: &str| path(name).display().to_string();
        let url = server.url("/large.iso");
        let sum = sha256(&path("files/large.iso"));
        curl(&["-o", &text("whole"), &url]);
        assert_eq!(sha256(&path("whole")), sum, "{directives}");
        // A download that broke off goes on where it was.
        fs::write(path("resumed"), &content[..10_000_001]).expect("the folder is ours");
        curl(&["-C", "-", "-o", &text("resumed"), &url]);
        assert_eq!(sha256(&path("resumed")), sum, "{directives}");
        for (range, from, to) in
            [("0-0", 0, 1), ("1000000-1999999", 1_000_000, 2_000_000), ("-5", content.len() - 5, content.len())]
        {
            assert!(curl(&["-r", range, &url]) == content[from..to], "{range} {directives}");
        }
        let slow = std::thread::spawn({
            let url = url.clone();
            move || curl(&["--limit-rate", "40M", &url])
        });
        let parts: Vec<_> = (0..4)
            .map(|n| {
                let (url, size) = (url.clone(), content.len() / 4);
                std::thread::spawn(move || curl(&["-r", &format!("{}-{}", n * size, (n + 1) * size - 1), &url]))
            })
            .collect();
        let joined: Vec<u8> = parts.into_iter().flat_map(|p| p.join().expect("curl succeeds")).collect();
        assert!(joined == content, "four parts at once, {directives}");
        assert!(slow.join().expect("curl succeeds") == content, "a slow download, {directives}");
    }
}

#[test]
fn two_thousand_servers() {
    let mut http = String::from("server_names_hash_max_size 8192; server_names_hash_bucket_size 128;\n");
    for n in 0..2000 {
        http += &format!(
            "server {{ listen 127.0.0.1:%%PORT%%; server_name site{n}.example *.site{n}.example; root %%DIR%%/sites/{n};
                location / {{ try_files $uri /index.html; }}
                location /who {{ return 200 \"{n} $host\"; }}
                location ~ \\.php$ {{ return 403; }} }}\n"
        );
    }
    let mut setup = Setup::http(&http);
    for n in [0, 7, 1000, 1999] {
        setup = setup.file(&format!("sites/{n}/index.html"), format!("index of {n}"));
    }
    let begun = Instant::now();
    let mut server = setup.start();
    assert!(begun.elapsed() < Duration::from_secs(8), "the start took {:?}", begun.elapsed());
    for n in [0, 7, 1000, 1999] {
        let ask = |host: &str, path: &str| {
            server.raw(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).text()
        };
        let host = format!("site{n}.example");
        assert_eq!(ask(&host, "/any"), format!("index of {n}"));
        assert_eq!(ask(&format!("www.{host}"), "/who"), format!("{n} www.{host}"));
        let resolve = format!("{host}:{}:127.0.0.1", server.port());
        let page = curl(&["--resolve", &resolve, &format!("http://{host}:{}/", server.port())]);
        assert_eq!(String::from_utf8_lossy(&page), format!("index of {n}"));
    }
    server.reload();
    assert_eq!(server.get("/who").text(), "0 localhost");
}
