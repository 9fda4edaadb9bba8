//! `gzip` and its conditions.

use std::io::Write;
use std::process::{Command, Stdio};

use e2e::{Backend, Setup};

fn unzip(bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("gzip");
    let mut input = child.stdin.take().expect("it is piped");
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let out = child.wait_with_output().expect("gzip ends");
    writer.join().expect("no panic").expect("gzip reads");
    assert!(out.status.success(), "gzip takes what the server sent");
    out.stdout
}

#[test]
fn conditions_and_content() {
    let text = "tide and gate, ".repeat(20_000);
    let proxied = Backend::start({
        let text = text.clone();
        move |_| format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n{text}").into_bytes()
    });
    let server = Setup::http(&format!(
        "types {{ text/html html; text/css css; image/png png; }}
         gzip on; gzip_types text/css; gzip_min_length 100;
         server {{ listen 127.0.0.1:%%PORT%%; root %%DIR%%;
            location / {{ }}
            location /vary/ {{ alias %%DIR%%/; gzip_vary on; gzip_comp_level 9; }}
            location /any {{ proxy_pass http://127.0.0.1:{0}; gzip_proxied any; }}
            location /pass {{ proxy_pass http://127.0.0.1:{0}; }}
            location /off/ {{ alias %%DIR%%/; gzip off; }}
            location /noie/ {{ alias %%DIR%%/; gzip_disable \"MSIE [4-6]\\.\"; }}
         }}",
        proxied.port
    ))
    .file("a.html", &text)
    .file("a.css", &text)
    .file("a.png", &text)
    .file("small.html", "small")
    .start();
    let cases = [
        ("/a.html", "Accept-Encoding: gzip\r\n", true),
        ("/a.html", "Accept-Encoding: deflate, gzip;q=0.5\r\n", true),
        ("/a.html", "Accept-Encoding: gzip;q=0\r\n", false),
        ("/a.html", "", false),
        ("/a.css", "Accept-Encoding: gzip\r\n", true),
        ("/a.png", "Accept-Encoding: gzip\r\n", false),
        ("/small.html", "Accept-Encoding: gzip\r\n", false),
        ("/off/a.html", "Accept-Encoding: gzip\r\n", false),
        ("/vary/a.html", "Accept-Encoding: gzip\r\n", true),
        ("/any", "Accept-Encoding: gzip\r\n", true),
        ("/a.html", "Accept-Encoding: gzip\r\nVia: x\r\n", false),
        ("/noie/a.html", "Accept-Encoding: gzip\r\nUser-Agent: Mozilla/4.0 (MSIE 5.0)\r\n", false),
        ("/noie/a.html", "Accept-Encoding: gzip\r\nUser-Agent: curl\r\n", true),
    ];
    for (target, fields, zipped) in cases {
        let got = server.get_with(target, fields);
        assert_eq!(got.field("Content-Encoding"), zipped.then_some("gzip"), "{target} {fields}");
        let body = if zipped { unzip(&got.body) } else { got.body.clone() };
        let expect = if target.contains("small") { "small" } else { &text };
        assert!(body == expect.as_bytes(), "{target} {fields}");
        if zipped {
            assert!(got.body.len() * 20 < text.len(), "{target}: {} bytes", got.body.len());
            assert_eq!(got.field("Content-Length"), None);
            assert!(got.field("ETag").is_none_or(|t| t.starts_with("W/")), "{}", got.head);
        }
    }
    assert_eq!(server.get("/vary/a.html").field("Vary"), Some("Accept-Encoding"));
    let mut c = server.connect();
    let head = c.send("HEAD /a.html HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").head_response();
    assert_eq!(head.field("Content-Encoding"), Some("gzip"));
    assert_eq!(c.get("/small.html", "").text(), "small");
}
