//! Static files: content, types, index, ranges, conditions, the open file cache.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use e2e::{Server, Setup};

const DATE: &str = "Thu, 01 Jan 2026 00:00:00 GMT";

fn site(more: &str) -> Server {
    let setup = Setup::http(&format!(
        "types {{ text/html html; text/plain txt; }} default_type application/octet-stream;
         server {{ listen 127.0.0.1:%%PORT%%; root %%DIR%%/html; {more}
            location /sub/ {{ index none.html index.txt; }}
            location /alias/ {{ alias %%DIR%%/html/sub/; }}
         }}"
    ))
    .file("html/index.html", "welcome")
    .file("html/ten.txt", "0123456789")
    .file("html/big", vec![b'x'; 300_000])
    .file("html/empty.txt", "")
    .file("html/sub/index.txt", "sub index")
    .file("html/with space.txt", "space")
    .file("html/bare/x", "x");
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    let file = fs::File::open(setup.folder().path().join("html/ten.txt")).expect("it was written");
    file.set_modified(modified).expect("the file is ours");
    setup.start()
}

#[test]
fn files() {
    let server = site("");
    let cases = [
        ("/", 200, "text/html", "welcome"),
        ("/ten.txt", 200, "text/plain", "0123456789"),
        ("/empty.txt", 200, "text/plain", ""),
        ("/sub/", 200, "text/plain", "sub index"),
        ("/alias/index.txt", 200, "text/plain", "sub index"),
        ("/with%20space.txt", 200, "text/plain", "space"),
        ("/bare/x", 200, "application/octet-stream", "x"),
    ];
    for (target, status, kind, text) in cases {
        let got = server.get(target);
        assert_eq!(
            (got.status, got.field("Content-Type"), got.text().as_str()),
            (status, Some(kind), text),
            "{target}"
        );
        assert_eq!(got.field("Accept-Ranges"), Some("bytes"));
    }
    for (target, status) in [("/none", 404), ("/bare/", 403), ("/ten.txt/", 404), ("/ten.txt/x", 404)] {
        assert_eq!(server.get(target).status, status, "{target}");
    }
    assert_eq!(server.get("/big").body.len(), 300_000);
    let moved = server.get("/sub?a=b");
    assert_eq!(moved.status, 301);
    assert_eq!(moved.field("Location"), Some(format!("http://localhost:{}/sub/?a=b", server.port()).as_str()));
}

#[test]
fn conditions() {
    let server = site("");
    let whole = server.get("/ten.txt");
    assert_eq!(whole.field("Last-Modified"), Some(DATE));
    let tag = whole.field("ETag").expect("files have a tag").to_string();
    let cases = [
        (format!("If-Modified-Since: {DATE}\r\n"), 304),
        ("If-Modified-Since: Fri, 02 Jan 2026 00:00:00 GMT\r\n".to_string(), 200),
        (format!("If-None-Match: {tag}\r\n"), 304),
        (format!("If-None-Match: \"x\", W/{tag}\r\n"), 304),
        ("If-None-Match: *\r\n".to_string(), 304),
        ("If-None-Match: \"x\"\r\n".to_string(), 200),
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {DATE}\r\n"), 200),
        ("If-Match: \"x\"\r\n".to_string(), 412),
        (format!("If-Match: {tag}\r\n"), 200),
        ("If-Unmodified-Since: Wed, 31 Dec 2025 00:00:00 GMT\r\n".to_string(), 412),
    ];
    for (fields, status) in cases {
        assert_eq!(server.get_with("/ten.txt", &fields).status, status, "{fields}");
    }
}

#[test]
fn ranges() {
    let server = site("");
    let cases = [
        ("bytes=0-3", 206, "0123", Some("bytes 0-3/10")),
        ("bytes=4-", 206, "456789", Some("bytes 4-9/10")),
        ("bytes=-3", 206, "789", Some("bytes 7-9/10")),
        ("bytes=8-100", 206, "89", Some("bytes 8-9/10")),
        ("bytes=-100", 206, "0123456789", Some("bytes 0-9/10")),
        ("lines=1-2", 200, "", None),
        ("bytes=20-", 416, "", Some("bytes */10")),
    ];
    for (range, status, text, content_range) in cases {
        let got = server.get_with("/ten.txt", &format!("Range: {range}\r\n"));
        assert_eq!(got.status, status, "{range}");
        if status == 206 {
            assert_eq!((got.text().as_str(), got.field("Content-Range")), (text, content_range), "{range}");
        } else if content_range.is_some() {
            assert_eq!(got.field("Content-Range"), content_range, "{range}");
        }
    }
    let many = server.get_with("/ten.txt", "Range: bytes=0-1,5-6\r\n");
    assert!(many.field("Content-Type").is_some_and(|t| t.starts_with("multipart/byteranges; boundary=")));
    assert!(many.text().contains("Content-Range: bytes 5-6/10\r\n\r\n56\r\n"), "{}", many.text());
    let changed = server.get_with("/ten.txt", "Range: bytes=0-1\r\nIf-Range: \"other\"\r\n");
    assert_eq!((changed.status, changed.text().as_str()), (200, "0123456789"));
    let same = server.get_with("/ten.txt", &format!("Range: bytes=0-1\r\nIf-Range: {DATE}\r\n"));
    assert_eq!((same.status, same.text().as_str()), (206, "01"));
    let off = site("max_ranges 0;");
    let all = off.get_with("/ten.txt", "Range: bytes=0-1\r\n");
    assert_eq!((all.status, all.field("Accept-Ranges")), (200, None));
}

#[test]
fn many_small_ranges_bring_the_whole_file() {
    let server = site("location /many/ { alias %%DIR%%/html/; max_ranges 1000; }");
    server.folder().write("html/k20", vec![b'x'; 20_000]);
    let ranges = |n: usize| {
        let list: Vec<_> = (0..n).map(|i| format!("{}-{}", i * 2, i * 2)).collect();
        format!("Range: bytes={}\r\n", list.join(","))
    };
    // Asked for again, a file comes from memory: the same holds there.
    for _ in 0..3 {
        for (target, n, status) in
            [("/k20", 93, 206), ("/k20", 94, 200), ("/k20", 200, 200), ("/many/k20", 200, 206), ("/ten.txt", 5, 206)]
        {
            let got = server.get_with(target, &ranges(n));
            assert_eq!(got.status, status, "{n} ranges of {target}");
            assert!(status == 206 || got.body.len() >= 20_000, "{n} ranges of {target}");
        }
    }
}

#[test]
fn open_file_cache() {
    let server = site("open_file_cache max=10; open_file_cache_valid 1s; open_file_cache_errors on;");
    let old = server.get("/ten.txt");
    assert_eq!(server.get("/late.txt").status, 404);
    server.folder().write("html/late.txt", "late");
    let path = server.folder().path().join("html/ten.txt");
    fs::remove_file(&path).expect("it is there");
    server.folder().write("html/ten.txt", "new content");
    assert_eq!(server.get("/ten.txt").text(), old.text(), "within its validity");
    std::thread::sleep(Duration::from_millis(2200));
    assert_eq!(server.get("/ten.txt").text(), "new content");
    assert_eq!(server.get("/late.txt").text(), "late");
}

#[test]
fn links() {
    let server = site("location /closed/ { disable_symlinks on; }");
    server.folder().write("html/closed/real", "real");
    symlink("real", server.folder().path().join("html/closed/link")).expect("a link can be made");
    assert_eq!(server.get("/closed/real").text(), "real");
    assert_eq!(server.get("/closed/link").status, 403);
}

#[test]
fn links_to_folders() {
    let server = site(
        "location /closed/ { disable_symlinks on; open_file_cache max=10; }
         location /from/ { disable_symlinks on from=$document_root/from; }
         location /owned/ { disable_symlinks if_not_owner; }
         location /tried/ { disable_symlinks on; try_files $uri $uri/ =410; }
         location /asked/ { disable_symlinks on; if (-e $request_filename) { return 200 there; } return 200 none; }
         location /listed/ { disable_symlinks on; autoindex on; index in/f none; }",
    );
    for folder in ["closed", "from", "owned", "tried", "asked", "listed"] {
        server.folder().write(&format!("html/{folder}/real/f"), "f");
        let path = server.folder().path().join("html").join(folder);
        for (name, target) in [("in", "real"), ("dangling", "nowhere"), ("loop", "loop"), ("file", "real/f")] {
            symlink(target, path.join(name)).expect("a link can be made");
        }
    }
    for (target, status) in [
        // A link to a folder is no folder; one at the end of the path is refused.
        ("/closed/in/f", 404),
        ("/closed/in/", 404),
        ("/closed/in", 403),
        ("/closed/in/f", 404),
        ("/closed/dangling/f", 404),
        ("/closed/loop/f", 404),
        ("/closed/file/f", 404),
        ("/closed/file", 403),
        ("/closed/real/f", 200),
        ("/from/in/f", 404),
        ("/from/real/f", 200),
        ("/owned/in/f", 200),
        ("/tried/in/f", 410),
        ("/tried/in/", 410),
        ("/listed/in/", 404),
        ("/listed/", 404),
    ] {
        assert_eq!(server.get(target).status, status, "{target}");
    }
    assert_eq!(server.get("/asked/in/f").text(), "none");
    assert_eq!(server.get("/asked/real/f").text(), "there");
}

#[test]
fn ranges_of_compressed_files() {
    let server = site("location /zip/ { gzip_static on; } location /always/ { gzip_static always; }");
    for folder in ["zip", "always"] {
        server.folder().write(&format!("html/{folder}/a.txt"), "the text as it is");
        server.folder().write(&format!("html/{folder}/a.txt.gz"), "0123456789");
    }
    let zipped = "Accept-Encoding: gzip\r\n";
    assert_eq!(server.get_with("/zip/a.txt", zipped).field("Accept-Ranges"), Some("bytes"));
    for (target, fields, status, range, text) in [
        ("/zip/a.txt", "Accept-Encoding: gzip\r\nRange: bytes=2-4\r\n", 206, Some("bytes 2-4/10"), "234"),
        ("/zip/a.txt", "Range: bytes=0-2\r\n", 206, Some("bytes 0-2/17"), "the"),
        ("/always/a.txt", "Range: bytes=-1\r\n", 206, Some("bytes 9-9/10"), "9"),
        ("/zip/a.txt", "Accept-Encoding: gzip\r\nRange: bytes=1-\r\nIf-Range: \"x\"\r\n", 200, None, "0123456789"),
    ] {
        let part = server.get_with(target, fields);
        assert_eq!(
            (part.status, part.field("Content-Range"), part.text().as_str()),
            (status, range, text),
            "{target} {fields}"
        );
    }
    let beyond = server.get_with("/zip/a.txt", "Accept-Encoding: gzip\r\nRange: bytes=10-\r\n");
    assert_eq!((beyond.status, beyond.field("Content-Range")), (416, Some("bytes */10")));
}

#[test]
fn the_page_of_an_error_isnt_compressed_as_its_file() {
    let server = site("location /zip/ { gzip_static on; error_page 412 /plain/e.txt; } location /plain/ { }");
    server.folder().write("html/zip/a.txt.gz", "0123456789");
    server.folder().write("html/plain/e.txt", "page");
    let failed = server.get_with("/zip/a.txt", "Accept-Encoding: gzip\r\nIf-Match: \"y\"\r\n");
    assert_eq!((failed.status, failed.field("Content-Encoding"), failed.text().as_str()), (412, None, "page"));
}

/// Differs from nginx: the page of a 416 for a file of `gzip_static`
#[test]
fn the_page_of_a_bad_range_isnt_compressed_as_its_file() {
    let server = site("location /zip/ { gzip_static on; error_page 416 /plain/e.txt; } location /plain/ { }");
    server.folder().write("html/zip/a.txt.gz", "0123456789");
    server.folder().write("html/plain/e.txt", "page");
    let beyond = server.get_with("/zip/a.txt", "Accept-Encoding: gzip\r\nRange: bytes=10-\r\n");
    assert_eq!((beyond.status, beyond.field("Content-Encoding"), beyond.text().as_str()), (416, None, "page"));
    assert_eq!((beyond.field("Content-Range"), beyond.all("ETag").len()), (Some("bytes */10"), 1));
}

#[test]
fn the_default_folder() {
    let server = Setup::http("server { listen 127.0.0.1:%%PORT%%; location /in { } }").file("html/in/a", "x").start();
    assert_eq!(server.get("/in/a").text(), "x");
    assert_eq!(server.get("/in/none").status, 404);
    assert_eq!(server.get("/none").status, 404);
}

/// Not in nginx: small_file_cache off
#[test]
fn small_files_follow_their_changes() {
    for more in ["", "small_file_cache off;", "gzip on; gzip_min_length 1; gzip_types *;"] {
        let server = site(more);
        let path = server.folder().path().join("html/ten.txt");
        // What was changed a moment ago isn't kept.
        std::thread::sleep(Duration::from_millis(3100));
        for _ in 0..4 {
            assert_eq!(server.get("/ten.txt").text(), "0123456789");
            assert_eq!(server.get("/empty.txt").text(), "");
            let part = server.get_with("/ten.txt", "Range: bytes=2-4\r\n");
            assert_eq!((part.status, part.text().as_str()), (206, "234"));
            let head = server.connect().send("HEAD /ten.txt HTTP/1.0\r\n\r\n").head_response();
            assert_eq!((head.status, head.field("Content-Length")), (200, Some("10")));
            assert_eq!(server.get("/ten.txt").field("Last-Modified"), Some(DATE));
        }
        fs::write(&path, "abcdefghij").expect("write");
        assert_eq!(server.get("/ten.txt").text(), "abcdefghij");
        fs::write(&path, "longer than it was").expect("write");
        assert_eq!(server.get("/ten.txt").text(), "longer than it was");
        fs::remove_file(&path).expect("remove");
        assert_eq!(server.get("/ten.txt").status, 404);
    }
}
