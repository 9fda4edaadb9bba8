//! `brotli` beside `gzip`, `gunzip`, and files that were compressed before.

use std::io::Write;
use std::process::{Command, Stdio};

use e2e::{Backend, Setup};

/// What a program makes of its input.
fn through(program: &str, options: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut input = child.stdin.take().expect("it is piped");
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let out = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it reads");
    assert!(out.status.success(), "{program} takes what the server sent");
    out.stdout
}

fn zip(bytes: &[u8]) -> Vec<u8> {
    through("gzip", &["-c"], bytes)
}

fn text() -> String {
    (0..20_000).map(|i| format!("{} tide and gate\n", i % 977)).collect()
}

/// Not in nginx: `brotli` compresses responses
#[test]
fn brotli_and_gzip() {
    let text = text();
    let server = Setup::http(
        "types { text/html html; text/css css; image/png png; } brotli on; brotli_min_length 100; brotli_types text/css;
         gzip on; gzip_vary on; gzip_types text/css;
         server { listen 127.0.0.1:%%PORT%%; root %%DIR%%;
            location / { }
            location /nine/ { alias %%DIR%%/; brotli_comp_level 9; brotli_window 1m; }
            location /off/ { alias %%DIR%%/; brotli off; }
            location /ratio/ { add_trailer X-Ratio $brotli_ratio; alias %%DIR%%/; } }",
    )
    .file("a.html", &text)
    .file("a.css", &text)
    .file("a.png", &text)
    .file("small.html", "small")
    .start();
    for (target, accepts, coding) in [
        ("/a.html", "br", Some("br")),
        ("/a.html", "gzip, deflate, br", Some("br")),
        ("/a.html", "gzip, br;q=0", Some("gzip")),
        ("/a.html", "gzip", Some("gzip")),
        ("/a.html", "brr", None),
        ("/a.css", "br", Some("br")),
        ("/a.png", "br", None),
        ("/small.html", "br", None),
        ("/nine/a.html", "gzip, br", Some("br")),
        ("/off/a.html", "gzip, br", Some("gzip")),
    ] {
        let got = server.get_with(target, &format!("Accept-Encoding: {accepts}\r\n"));
        assert_eq!(got.field("Content-Encoding"), coding, "{target} {accepts}");
        if let Some(coding) = coding {
            let plain = if coding == "br" { unbrotli(&got.body) } else { through("gzip", &["-dc"], &got.body) };
            assert!(plain == text.as_bytes() && got.body.len() * 4 < text.len(), "{target} {accepts}");
            assert!(got.field("Content-Length").is_none() && got.field("Accept-Ranges").is_none(), "{}", got.head);
            assert!(got.field("ETag").is_some_and(|tag| tag.starts_with("W/")), "{}", got.head);
            assert_eq!(got.field("Vary"), Some("Accept-Encoding"), "{target}");
        }
    }
    assert_eq!(server.get("/a.html").field("Vary"), Some("Accept-Encoding"));
    let request = "GET /ratio/a.html HTTP/1.1\r\nHost: a\r\nAccept-Encoding: br\r\nConnection: close\r\n\r\n";
    let answer = server.connect().send(request).rest();
    let tail = String::from_utf8_lossy(&answer[answer.len() - 30..]).into_owned();
    assert!(tail.contains("X-Ratio: ") && !tail.contains("X-Ratio: 0"), "{tail}");
}

fn unbrotli(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    brotli::BrotliDecompress(&mut &bytes[..], &mut plain).expect("the response is valid");
    plain
}

/// Not in nginx: `zstd` compresses responses
#[test]
fn zstd_between_the_others() {
    let text = text();
    let server = Setup::http(
        "types { text/html html; image/png png; } zstd on; zstd_comp_level 3; zstd_min_length 100; gzip on; gzip_vary on;
         server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; location /all/ { alias %%DIR%%/; brotli on; } }",
    )
    .file("a.html", &text)
    .file("a.png", &text)
    .file("small.html", "small")
    .program(e2e::hooks::program())
    .start();
    for (target, accepts, coding) in [
        ("/a.html", "gzip, zstd", Some("zstd")),
        ("/a.html", "gzip, zstd;q=0", Some("gzip")),
        ("/all/a.html", "gzip, zstd, br", Some("br")),
        ("/all/a.html", "gzip, zstd", Some("zstd")),
        ("/a.png", "zstd", None),
        ("/small.html", "zstd", None),
    ] {
        let got = server.get_with(target, &format!("Accept-Encoding: {accepts}\r\n"));
        assert_eq!(got.field("Content-Encoding"), coding, "{target} {accepts}");
        if coding == Some("zstd") {
            let plain = zstd::decode_all(&got.body[..]).expect("the response is valid");
            assert!(plain == text.as_bytes() && got.body.len() * 4 < text.len(), "{target}");
            assert_eq!((got.field("Content-Length"), got.field("Vary")), (None, Some("Accept-Encoding")));
        }
    }
}

/// Not in nginx: `zstd` compresses responses
#[test]
fn zstd_with_a_dictionary() {
    let dictionary = "a phrase that all the answers have in common";
    let server = Setup::http(
        "types { text/html html; } zstd on; zstd_min_length 1; zstd_dict_file %%DIR%%/dictionary;
         server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; }",
    )
    .file("dictionary", dictionary)
    .file("a.html", format!("<p>{dictionary}</p>"))
    .program(e2e::hooks::program())
    .start();
    // The second one uses the compressor of the first one.
    for _ in 0..2 {
        let packed = server.get_with("/a.html", "Accept-Encoding: zstd\r\n").body;
        let mut reader = zstd::stream::Decoder::with_dictionary(&packed[..], dictionary.as_bytes()).expect("a reader");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut reader, &mut text).expect("the response is valid");
        assert_eq!(text, format!("<p>{dictionary}</p>"));
        assert!(packed.len() < dictionary.len(), "{}", packed.len());
        assert!(zstd::decode_all(&packed[..]).is_err(), "it can't be read without");
    }
}

/// Not in nginx: `brotli` compresses responses
#[test]
fn brotli_passes_on_what_must_be_sent_at_once() {
    let backend = Backend::sockets(|mut socket, _| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut request = [0; 4096];
        let _ = std::io::Read::read(&mut socket, &mut request);
        let _ = socket.write_all(&[&head[..], b"4\r\ntide\r\n"].concat());
        // The rest never comes: whoever has read the first part closes.
        let _ = std::io::Read::read(&mut socket, &mut request);
    });
    let server = Setup::http(&format!(
        "brotli on; server {{ listen 127.0.0.1:%%PORT%%;
           location / {{ proxy_pass http://127.0.0.1:{}; proxy_buffering off; }} }}",
        backend.port
    ))
    .start();
    let mut client = server.connect();
    let head = client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: br\r\n\r\n").head_response();
    assert_eq!(head.field("Content-Encoding"), Some("br"));
    let size = client.take(3);
    let size = usize::from_str_radix(String::from_utf8_lossy(&size).trim(), 16).expect("one digit is enough");
    let mut part = client.take(size);
    // An empty last block ends the stream, which the client sees the beginning of.
    part.push(3);
    assert_eq!(unbrotli(&part), b"tide");
}

/// Not in nginx: `brotli` compresses responses
#[test]
fn files_compressed_before() {
    let server = Setup::http(
        "types { text/css css; } gzip_vary on;
         server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; brotli_static on; zstd_static on; gzip_static on;
            location / { }
            location /always/ { alias %%DIR%%/; zstd_static off; gzip_static off; brotli_static always; }
            location /off/ { alias %%DIR%%/; brotli_static off; zstd_static off; } }",
    )
    .file("a.css", "plain")
    .file("a.css.br", "br")
    .file("a.css.zst", "zstd")
    .file("a.css.gz", "gzip")
    .file("b.css", "plain")
    .file("b.css.gz", "gzip")
    .start();
    for (target, accepts, body, coding) in [
        ("/a.css", "gzip, zstd, br", "br", Some("br")),
        ("/a.css", "gzip, zstd", "zstd", Some("zstd")),
        ("/a.css", "gzip", "gzip", Some("gzip")),
        ("/a.css", "x", "plain", None),
        ("/b.css", "gzip, zstd, br", "gzip", Some("gzip")),
        ("/always/a.css", "x", "br", Some("br")),
        ("/off/a.css", "gzip, zstd, br", "gzip", Some("gzip")),
    ] {
        let got = server.get_with(target, &format!("Accept-Encoding: {accepts}\r\n"));
        assert_eq!((got.text().as_str(), got.field("Content-Encoding")), (body, coding), "{target} {accepts}");
        assert_eq!((got.status, got.field("Content-Type")), (200, Some("text/css")), "{target} {accepts}");
        let varies = if target.starts_with("/always") { None } else { Some("Accept-Encoding") };
        assert_eq!(got.field("Vary"), varies, "{target} {accepts}");
    }
    let part = server.get_with("/a.css", "Accept-Encoding: br\r\nRange: bytes=1-1\r\n");
    assert_eq!((part.status, part.text().as_str()), (206, "r"));
}

#[test]
fn gunzip_for_those_who_need_it() {
    let text = text();
    let server = Setup::http(
        "default_type text/html; server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; gzip_static always; gunzip on; gzip_vary on;
            location / { }
            location /changed/ { alias %%DIR%%/; sub_filter tide ebb; gzip on; gzip_min_length 1; add_trailer X-T t; }
            location /old/ { alias %%DIR%%/; gunzip_buffers 4 16k; gzip_disable old; } }",
    )
    .file("a.gz", zip(text.as_bytes()))
    .file("twice.gz", [zip(b"tide "), zip(b"gate")].concat())
    .file("plain", "not compressed")
    .start();
    let packed = server.get_with("/a", "Accept-Encoding: gzip\r\n");
    assert_eq!((packed.field("Content-Encoding"), packed.field("Vary")), (Some("gzip"), Some("Accept-Encoding")));
    assert!(packed.body == zip(text.as_bytes()) && packed.field("Content-Length").is_some());
    for (target, fields, expect) in [
        ("/a", "", text.as_str()),
        ("/a", "Accept-Encoding: br\r\n", &text),
        ("/a", "Range: bytes=0-3\r\n", &text),
        ("/twice", "", "tide gate"),
        ("/old/a", "Accept-Encoding: gzip\r\nUser-Agent: old\r\n", &text),
        ("/changed/twice", "", "ebb gate"),
    ] {
        let got = server.get_with(target, fields);
        assert!(got.status == 200 && got.text() == expect, "{target} {fields}");
        assert_eq!((got.field("Content-Encoding"), got.field("Content-Length")), (None, None), "{target} {fields}");
        assert_eq!(got.field("Vary"), Some("Accept-Encoding"), "{target} {fields}");
        if !target.starts_with("/changed") {
            assert!(got.field("ETag").is_some_and(|tag| tag.starts_with("W/")), "{}", got.head);
        }
    }
    assert_eq!(server.get("/plain").field("Vary"), None);
    let mut client = server.connect();
    let head = client.send("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n").head_response();
    assert_eq!((head.status, head.field("Content-Encoding")), (200, None));
}

#[test]
fn what_gunzip_cant_read() {
    let mut server = Setup::http(
        "default_type text/html; server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; gzip_static always; gunzip on; }",
    )
    .file("cut.gz", &zip(text().as_bytes())[..500])
    .file("plain.gz", "this isn't gzip")
    .start();
    for (name, line) in [("cut", "inflate() returned -5 on response end"), ("plain", "inflate() failed: ")] {
        let answer = server.connect().send(format!("GET /{name} HTTP/1.1\r\nHost: a\r\n\r\n")).rest();
        assert!(!answer.ends_with(b"0\r\n\r\n"), "{name}: the client can tell");
        server.read_until("error.log", line);
    }
}

/// Differs from nginx: bytes after the last gzip member
#[test]
fn padding_after_gzip() {
    let server = Setup::http(
        "default_type text/html; server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; gzip_static always; gunzip on; }",
    )
    .file("padded.gz", [&zip(b"tide")[..], &[0; 512]].concat())
    .start();
    assert_eq!(server.get("/padded").text(), "tide");
}

/// Not in nginx: directives of the test build
#[test]
fn subrequests_get_what_can_be_put_together() {
    let http = "types { text/html html; } server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; gzip_vary on;
        location / { test_include /on/part.html /unpacked/part.html; return 200 \"main \"; }
        location /on/ { alias %%DIR%%/; gzip_static on; }
        location /unpacked/ { alias %%DIR%%/; gzip_static always; gunzip on; } }";
    let server = Setup::http(http)
        .file("part.html", "plain ")
        .file("part.html.gz", zip(b"unpacked"))
        .program(e2e::hooks::program())
        .start();
    assert_eq!(server.get_with("/", "Accept-Encoding: gzip\r\n").text(), "main plain unpacked");
}
