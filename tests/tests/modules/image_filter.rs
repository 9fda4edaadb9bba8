//! `image_filter`: pictures are checked, measured, turned and made smaller. It is in the program with the feature `image`,
//! which the test build has.

use e2e::{Backend, Server, Setup, hooks};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

const FORMATS: [(&str, ImageFormat); 4] =
    [("jpeg", ImageFormat::Jpeg), ("gif", ImageFormat::Gif), ("png", ImageFormat::Png), ("webp", ImageFormat::WebP)];

/// A picture, red on the left and blue on the right.
fn picture(format: ImageFormat, width: u32, height: u32) -> Vec<u8> {
    let paint = |x, _| if x < width / 2 { Rgb([220, 0, 0]) } else { Rgb([0, 0, 220]) };
    let mut file = std::io::Cursor::new(Vec::new());
    DynamicImage::from(RgbImage::from_fn(width, height, paint)).write_to(&mut file, format).expect("it can be written");
    file.into_inner()
}

fn start(conf: &str) -> Server {
    let mut setup = Setup::http(&format!("server {{ listen 127.0.0.1:%%PORT%%; root %%DIR%%; {conf} }}"));
    for (name, format) in FORMATS {
        setup = setup.file(&format!("a.{name}"), picture(format, 100, 120));
    }
    let png = picture(ImageFormat::Png, 100, 120);
    setup.file("cut.png", &png[..png.len() / 2]).file("a.txt", "SEE-THIS").program(hooks::program()).start()
}

fn read(body: &[u8]) -> RgbImage {
    image::load_from_memory(body).expect("a picture").into_rgb8()
}

#[test]
fn checked_and_measured() {
    let server = start(
        "location /test/ { alias %%DIR%%/; image_filter test; location /test/off/ { alias %%DIR%%/; image_filter off; } }
         location /short/ { alias %%DIR%%/; image_filter test; image_filter_buffer 100; }
         location /size/ { alias %%DIR%%/; image_filter size; }
         location /page/ { alias %%DIR%%/; image_filter test; error_page 415 = /a.txt; }",
    );
    for (name, format) in FORMATS {
        let got = server.get_with(&format!("/test/a.{name}"), "Range: bytes=0-3\r\n");
        assert!(got.status == 200 && got.body == picture(format, 100, 120), "{name}");
        assert_eq!(got.field("Content-Type"), Some(format!("image/{name}").as_str()));
        assert!(got.field("Content-Length").is_some() && got.field("ETag").is_some(), "{}", got.head);
        let size = server.get(&format!("/size/a.{name}"));
        let expect = format!("{{ \"img\" : {{ \"width\": 100, \"height\": 120, \"type\": \"{name}\" }} }}\r\n");
        assert_eq!((size.text(), size.field("Content-Type")), (expect, Some("application/json")), "{name}");
        assert_eq!((size.field("ETag"), size.field("Last-Modified")), (None, None), "{name}");
        let mut client = server.connect();
        let head = client.send(format!("HEAD /test/a.{name} HTTP/1.1\r\nHost: a\r\n\r\n")).head_response();
        assert_eq!(head.field("Content-Type"), Some(format!("image/{name}").as_str()));
    }
    assert_eq!(server.get("/test/a.txt").status, 415);
    assert_eq!(server.get("/test/off/a.txt").text(), "SEE-THIS");
    assert_eq!(server.get("/short/a.jpeg").status, 415);
    assert_eq!(server.get("/size/a.txt").text(), "{}\r\n");
    assert_eq!(server.get("/page/a.txt").text(), "SEE-THIS");
    assert_eq!(server.get("/test/none").status, 415);
}

#[test]
fn changed() {
    let server = start(
        "location /resize/ { alias %%DIR%%/; image_filter resize $arg_w $arg_h; image_filter rotate 90; }
         location /fit/ { alias %%DIR%%/; image_filter resize $arg_w $arg_h; add_header X-Fit yes; }
         location /rotate/ { alias %%DIR%%/; image_filter rotate $arg_r; }
         location /crop/ { alias %%DIR%%/; image_filter crop $arg_w $arg_h; }
         location /sharp/ { alias %%DIR%%/; image_filter resize 50 60; image_filter_sharpen 50; image_filter_jpeg_quality $arg_q; }",
    );
    for (target, expect) in [
        ("/fit/a.gif?w=10&h=12", (10, 12)),
        ("/fit/a.png?w=-&h=60", (50, 60)),
        ("/fit/a.jpeg?w=50&h=-", (50, 60)),
        ("/fit/a.png?w=-&h=-", (100, 120)),
        ("/fit/a.webp?w=100&h=120", (100, 120)),
        ("/resize/a.png?w=50&h=60", (60, 50)),
        ("/rotate/a.gif?r=180", (100, 120)),
        ("/rotate/a.gif?r=270", (120, 100)),
        ("/crop/a.png?w=60&h=80", (60, 80)),
        ("/crop/a.png?w=-&h=50", (100, 50)),
        ("/sharp/a.jpeg?q=60", (50, 60)),
    ] {
        let got = server.get(target);
        assert_eq!((got.status, read(&got.body).dimensions()), (200, expect), "{target}");
        assert_eq!(got.field("Content-Length"), Some(got.body.len().to_string().as_str()), "{target}");
        let weak = got.field("ETag").is_some_and(|tag| tag.starts_with("W/"));
        assert!(weak == !matches!(target, "/fit/a.png?w=-&h=-" | "/fit/a.webp?w=100&h=120"), "{target}: {}", got.head);
    }
    // What was on the left is at the bottom, then on the right.
    for (degrees, red, blue) in [("90", (5, 90), (5, 5)), ("180", (90, 5), (5, 5)), ("270", (5, 5), (5, 90))] {
        let turned = read(&server.get(&format!("/rotate/a.png?r={degrees}")).body);
        let pixel = |place: (u32, u32)| turned[place].0;
        assert_eq!((pixel(red), pixel(blue)), ([220, 0, 0], [0, 0, 220]), "{degrees}");
    }
    for target in
        ["/rotate/a.png?r=45", "/fit/a.png?w=0&h=1", "/fit/a.png", "/fit/cut.png?w=1&h=1", "/sharp/a.jpeg?q=0"]
    {
        assert_eq!(server.get(target).status, 415, "{target}");
    }
    let fit = server.get("/fit/a.png?w=10&h=12");
    assert_eq!((fit.all("X-Fit"), fit.field("Accept-Ranges")), (vec!["yes"], None));
    let tag = fit.field("ETag").expect("it has one");
    assert_eq!(server.get_with("/fit/a.png?w=10&h=12", &format!("If-None-Match: {tag}\r\n")).status, 304);
    let sharp = server.get("/sharp/a.jpeg?q=60").body;
    assert!(sharp.windows(12).any(|window| window == b"quality = 60"));
}

#[test]
fn pictures_of_backends() {
    let backend = Backend::start(|request| {
        let body = match request.line().split(' ').nth(1) {
            Some("/picture") => picture(ImageFormat::Png, 100, 120),
            _ => b"<html>".to_vec(),
        };
        [&b"HTTP/1.1 200 OK\r\nX-Own: yes\r\nConnection: close\r\n\r\n"[..], &body].concat()
    });
    let server =
        start(&format!("location / {{ proxy_pass http://127.0.0.1:{}; image_filter resize 10 12; }}", backend.port));
    let got = server.get("/picture");
    assert_eq!((got.status, read(&got.body).dimensions(), got.field("X-Own")), (200, (10, 12), Some("yes")));
    assert_eq!(server.get("/page").status, 415);
    assert_eq!(backend.requests().len(), 2);
}

/// Differs from nginx: `image_filter` leaves what `return` answers
#[test]
fn other_answers() {
    let server = start("location / { image_filter test; return 302 /x; }");
    assert_eq!(server.get("/").status, 302);
}
