//! HTTP/2: curl, nghttp, h2load and Python's h2 as clients; what they don't say, frames by hand.

use std::collections::BTreeSet;

use e2e::frames::{CONTINUATION, DATA, GET, GOAWAY, HEADERS, PING, POST, RST_STREAM, Raw, frame, request};
use e2e::{EC, Server, Setup, certificate, chromium, curl, python_h2, run};

const PRIOR: &str = "--http2-prior-knowledge";

fn get(server: &Server, path: &str, options: &[&str]) -> String {
    let url = server.url(path);
    let mut args = vec![PRIOR, &url];
    args.extend(options);
    String::from_utf8_lossy(&curl(&args)).into_owned()
}

#[test]
fn curl_and_its_requests() {
    let big = "0123456789abcdef".repeat(40_000);
    let server = Setup::http(
        "http2 on; server { listen 127.0.0.1:%%PORT%%; server_name one; root %%DIR%%/www;
            location = /vars { return 200 \"$http2 $server_protocol $request $http_cookie $http_host\\n\"; }
            location /old { return 301 /new; }
            location /none { return 204; }
            location /gz { gzip on; gzip_min_length 0; gzip_types *; alias %%DIR%%/www/; }
            location /echo { proxy_pass http://127.0.0.1:%%PORT_back%%; }
            location /small { client_max_body_size 10; proxy_pass http://127.0.0.1:%%PORT_back%%; } }
        server { listen 127.0.0.1:%%PORT_back%%;
            location / { client_max_body_size 0; add_trailer x-seen $content_length; return 200 \"$http_content_length\"; } }",
    )
    .file("www/big", &big)
    .start();
    let vars = get(&server, "/vars", &["-H", "Cookie: a=b", "-H", "Host: one"]);
    assert_eq!(vars, "h2c HTTP/2.0 GET /vars HTTP/2.0 a=b one\n");
    assert!(get(&server, "/old", &["-i", "-H", "Host: one"]).contains("\r\nlocation: http://one"));
    assert!(get(&server, "/none", &["-i"]).starts_with("HTTP/2 204 \r\n"));
    assert!(get(&server, "/missing", &["-i"]).starts_with("HTTP/2 404 \r\n"));
    let head = get(&server, "/big", &["-I"]);
    assert!(head.contains("\r\ncontent-length: 640000\r\n") && !head.to_lowercase().contains("connection"), "{head}");
    assert!(get(&server, "/big", &[]) == big);
    assert_eq!(get(&server, "/big", &["-r", "14-17"]), "ef01");
    assert!(get(&server, "/gz/big", &["--compressed"]) == big);
    let file = server.folder().path().join("www/big").display().to_string();
    let upload = format!("@{file}");
    assert_eq!(get(&server, "/echo", &["--data-binary", &upload]), "640000");
    assert_eq!(get(&server, "/echo", &["-T", "-", "-X", "POST", "--expect100-timeout", "20"]), "0");
    // curl 7 fails now and then where the response ends before its request: so frames by hand.
    let mut raw = Raw::on(server.port());
    let block = [request(POST, "/small"), vec![0x0f, 0x0d, 2, b'1', b'9']].concat();
    raw.send(&frame(HEADERS, 4, 1, &block));
    let frames = raw.until(RST_STREAM);
    let text: Vec<u8> = frames.iter().filter(|frame| frame.0 == DATA).flat_map(|frame| frame.3.clone()).collect();
    assert!(String::from_utf8_lossy(&text).contains("413 Request Entity Too Large"), "{frames:?}");
    // HTTP/1 on the same port.
    assert!(String::from_utf8_lossy(&curl(&["-i", &server.url("/none")])).starts_with("HTTP/1.1 204 "));
}

#[test]
fn tls_agrees_on_it() {
    let setup = Setup::http(
        "server { listen 127.0.0.1:%%PORT%% ssl; http2 on; ssl_certificate %%DIR%%/a.crt; ssl_certificate_key %%DIR%%/a.key;
            location / { return 200 \"$http2 $ssl_alpn_protocol\"; } }
         server { listen 127.0.0.1:%%PORT%% ssl; server_name off.test; http2 off;
            ssl_certificate %%DIR%%/a.crt; ssl_certificate_key %%DIR%%/a.key; location / { return 200 \"$http2-\"; } }",
    );
    certificate(setup.folder(), "a", EC);
    let server = setup.start();
    let get = |name: &str, options: &[&str]| {
        let resolve = format!("{name}:{}:127.0.0.1", server.port());
        let url = format!("https://{name}:{}/", server.port());
        let mut args = vec!["-k", "--resolve", &resolve, &url];
        args.extend(options);
        String::from_utf8_lossy(&curl(&args)).into_owned()
    };
    assert_eq!(get("on.test", &["--http2"]), "h2 h2");
    assert_eq!(get("on.test", &["--http1.1"]), " http/1.1");
    assert_eq!(get("off.test", &["--http2"]), "-");
    // The name for which it isn't spoken, on a connection that was made for another one.
    assert!(get("on.test", &["--http2", "-H", "Host: off.test", "-i"]).starts_with("HTTP/2 421 "));
}

#[test]
fn clients_over_tls() {
    let mut page =
        String::from("<!doctype html><title>assets</title><link rel=stylesheet href=/a.css><p id=said>none</p>");
    for n in 0..20 {
        page += &format!("<img src=/i{n}.svg width=5>");
    }
    page += "<script src=/a.js></script>";
    let script = "onload = () => { const seen = [...document.images].filter((i) => i.naturalWidth).length;
        said.textContent = `${seen} images ${getComputedStyle(said).color}`; };";
    let mut setup = Setup::http(
        "types { text/html html; text/css css; application/javascript js; image/svg+xml svg; }
         log_format seen '$http2 $connection $status $uri $http_user_agent';
         server { listen 127.0.0.1:%%PORT%% ssl; http2 on; root %%DIR%%/www; index index.html; access_log access.log seen;
            ssl_certificate %%DIR%%/localhost.crt; ssl_certificate_key %%DIR%%/localhost.key; keepalive_requests 100000;
            client_max_body_size 0;
            location /upload { proxy_pass http://127.0.0.1:%%PORT_back%%; } }
         server { listen 127.0.0.1:%%PORT_back%%; client_max_body_size 0; return 200 $content_length; }",
    )
    .file("www/index.html", &page)
    .file("www/a.css", "#said { color: rgb(1, 2, 3) }")
    .file("www/a.js", script)
    .file("www/big", "0123456789".repeat(100_000));
    for n in 0..20 {
        let text = format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><rect width='{n}' height='9'/></svg>"
        );
        setup = setup.file(&format!("www/i{n}.svg"), text);
    }
    certificate(setup.folder(), "localhost", EC);
    let server = setup.start();
    let url = |path: &str| format!("https://localhost:{}{path}", server.port());
    let sizes = |options: &[&str]| {
        let (big, svg) = (url("/big"), url("/i7.svg"));
        let mut args = vec!["-k", "-w", "%{http_version} %{size_download},", "-o", "/dev/null", "-o", "/dev/null"];
        args.extend(options);
        args.extend([&big[..], &svg]);
        String::from_utf8_lossy(&curl(&args)).into_owned()
    };
    assert!(sizes(&["--http1.1"]).starts_with("1.1 1000000,1.1 "));
    assert!(sizes(&["--http2"]).starts_with("2 1000000,2 "));
    for (path, count) in [("/i1.svg", "2000"), ("/big", "100")] {
        let Some(out) = run("h2load", &["-n", count, "-c", "4", "-m", "20", &url(path)]) else { return };
        assert!(out.contains(&format!("{count} succeeded, 0 failed, 0 errored")), "{out}");
        assert!(out.contains("Application protocol: h2"), "{out}");
    }
    let Some(out) = run("nghttp", &["-nv", "--no-verify-peer", "-H", "user-agent: x", &url("/"), &url("/big")]) else {
        return;
    };
    assert_eq!(out.matches(":status: 200").count(), 2, "{out}");
    let address = format!("localhost:{}", server.port());
    let Some(out) = run("openssl", &["s_client", "-connect", &address, "-alpn", "h2,http/1.1"]) else { return };
    assert!(out.contains("ALPN protocol: h2"), "{out}");
    let Some(out) = python_h2(server.port(), &["requests", "/big", "/", "/a.css", "/none"]) else { return };
    assert!(out.starts_with(&format!("/big 200 1000000 ended\n/ 200 {} ended\n", page.len())), "{out}");
    assert!(out.contains("/none 404 "), "{out}");
    let Some(out) = python_h2(server.port(), &["upload", "/upload", "3000000"]) else { return };
    assert_eq!(out, "200 3000000\n");
    let Some(dom) = chromium(&url("/"), &["--ignore-certificate-errors"]) else { return };
    assert!(dom.contains("20 images rgb(1, 2, 3)"), "{dom}");
    let log = server.read("access.log");
    let seen: Vec<_> = log.lines().filter(|line| line.contains("Chrome/") && !line.contains("favicon")).collect();
    let connections: BTreeSet<_> = seen.iter().map(|line| line.split(' ').nth(1)).collect();
    assert_eq!((seen.len(), connections.len()), (23, 1), "{log}");
    assert!(seen.iter().all(|line| line.starts_with("h2 ") && line.contains(" 200 ")), "{log}");
}

#[test]
fn trailers_and_early_ends() {
    let server = Setup::http(
        "http2 on; server { listen 127.0.0.1:%%PORT%%;
            location /trailer { add_trailer x-t v; return 200 body; }
            location /gone { return 444; }
            location /r { return 200 ok; } }",
    )
    .start();
    let mut raw = Raw::on(server.port());
    raw.send(&frame(HEADERS, 5, 1, &request(GET, "/trailer")));
    let frames = raw.until(DATA);
    assert_eq!(frames.last().map(|frame| &frame.3[..]), Some(&b"body"[..]));
    let (_, flags, stream, _) = raw.until(HEADERS).pop().expect("it was found");
    assert_eq!((flags, stream), (5, 1), "trailers end the stream");
    raw.send(&frame(HEADERS, 5, 3, &request(GET, "/gone")));
    assert_eq!(raw.until(RST_STREAM).last().map(|frame| frame.2), Some(3));
    // A body that nobody reads isn't needed once the response is out.
    raw.send(&frame(HEADERS, 4, 5, &request(POST, "/r")));
    let frames = raw.until(RST_STREAM);
    let reset = frames.last().expect("it was found");
    assert_eq!((reset.2, &reset.3[..]), (5, &[0, 0, 0, 0][..]));
    assert!(frames.iter().any(|frame| frame.0 == DATA && frame.3 == b"ok"));
}

/// Differs from nginx: points for each frame that serves no request
#[test]
fn floods_end_the_connection() {
    let server = Setup::http("http2 on; server { listen 127.0.0.1:%%PORT%%; location / { return 200 ok; } }").start();
    let calm = 11;
    // Streams that are opened to be reset.
    let mut raw = Raw::on(server.port());
    for id in (1..20_000).step_by(2) {
        let both = [frame(HEADERS, 5, id, &request(GET, "/")), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat();
        if !raw.send(&both) {
            break;
        }
    }
    assert_flood(&mut raw, &server, calm);
    // A head without end.
    let mut raw = Raw::on(server.port());
    raw.send(&frame(HEADERS, 1, 1, &request(GET, "/")));
    for _ in 0..1000 {
        if !raw.send(&frame(CONTINUATION, 0, 1, &[])) {
            break;
        }
    }
    assert_flood(&mut raw, &server, calm);
    // Questions without end.
    let mut raw = Raw::on(server.port());
    for _ in 0..20_000 {
        if !raw.send(&frame(PING, 0, 0, &[0; 8])) {
            break;
        }
    }
    assert_flood(&mut raw, &server, calm);
    assert_eq!(get(&server, "/", &[]), "ok");
}

/// What was sent in vain may make the kernel throw the GOAWAY away: then the log knows.
fn assert_flood(raw: &mut Raw, server: &Server, code: u8) {
    while let Some(frame) = raw.receive() {
        if frame.0 == GOAWAY {
            assert_eq!(frame.3[7], code);
            return;
        }
    }
    let log = server.folder().path().join("error.log");
    let log = std::fs::read_to_string(log).unwrap_or_default();
    assert!(log.contains("while processing HTTP/2 connection"), "{log}");
}
