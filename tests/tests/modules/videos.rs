//! `flv` and `mp4`: videos from a point on.

use std::process::Command;

use e2e::{Server, Setup, tool};

#[test]
fn flv_from_a_byte_on() {
    let server = Setup::http(
        "types { video/x-flv flv; } server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; location / { flv; } }",
    )
    .file("a.flv", "0123456789")
    .file("large.flv", "x".repeat(100_000))
    .file("folder/b.flv", "b")
    .start();
    const HEAD: &str = "FLV\x01\x05\0\0\0\x09\0\0\0\0";
    for (target, expect) in [
        ("/a.flv", "0123456789".to_owned()),
        ("/a.flv?start=4", format!("{HEAD}456789")),
        ("/a.flv?start=9", format!("{HEAD}9")),
        ("/a.flv?start=0", "0123456789".to_owned()),
        ("/a.flv?start=10", "0123456789".to_owned()),
        ("/a.flv?start=x", "0123456789".to_owned()),
        ("/large.flv?start=1", format!("{HEAD}{}", "x".repeat(99_999))),
    ] {
        let got = server.get(target);
        assert!(got.status == 200 && got.text() == expect, "{target}");
        assert_eq!(got.field("Content-Length"), Some(expect.len().to_string().as_str()), "{target}");
        assert_eq!(got.field("Content-Type"), Some("video/x-flv"), "{target}");
    }
    let tag = |target: &str| server.get(target).field("ETag").map(str::to_owned);
    assert_ne!(tag("/a.flv"), tag("/a.flv?start=4"));
    let part = server.get_with("/a.flv?start=4", "Range: bytes=12-14\r\n");
    assert_eq!((part.status, part.text().as_str()), (206, "\x0045"));
    assert_eq!(server.get("/none.flv?start=1").status, 404);
    assert_eq!(server.get("/folder?start=1").status, 301);
}

/// Makes a video of ten seconds with ten key frames; none where tests may miss a program.
fn record(server: &Server, name: &str, options: &[&str]) -> bool {
    let path = server.folder().path().join(name);
    let Some(ffmpeg) = tool(&["ffmpeg"]) else { return false };
    let made = Command::new(ffmpeg)
        .args(["-nostdin", "-loglevel", "quiet", "-y"])
        .args(["-f", "lavfi", "-i", "testsrc=duration=10:size=64x48:rate=15", "-f", "lavfi", "-i", "sine=duration=10"])
        .args(["-pix_fmt", "yuv420p", "-g", "15", "-c:v", "h264", "-c:a", "aac"])
        .args(options)
        .arg(&path)
        .status();
    assert!(made.is_ok_and(|status| status.success()), "ffmpeg records");
    true
}

/// The durations of a file's streams.
fn durations(server: &Server, body: &[u8]) -> Vec<String> {
    let path = server.folder().write("part.mp4", body);
    let entries = ["-v", "error", "-show_entries", "stream=duration", "-of", "csv=p=0"];
    let out = Command::new("ffprobe").args(entries).arg(path).output().expect("ffprobe comes with ffmpeg");
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    said.lines().map(|line| format!("{:.1}", line.trim().parse::<f64>().expect("a number"))).collect()
}

#[test]
fn mp4_from_a_second_on() {
    let mut server = Setup::http(
        "types { video/mp4 mp4; } server { listen 127.0.0.1:%%PORT%%; root %%DIR%%;
            location / { mp4; }
            location /keys/ { alias %%DIR%%/; mp4; mp4_start_key_frame on; }
            location /short/ { alias %%DIR%%/; mp4; mp4_buffer_size 1k; mp4_max_buffer_size 1k; }
            location /first/ { alias %%DIR%%/; mp4; mp4_max_buffer_size 1k; } }",
    )
    .file("text.mp4", "this isn't a video")
    .start();
    assert_eq!(server.get("/text.mp4").status, 200);
    assert_eq!(server.get("/text.mp4?start=1").status, 500);
    assert_eq!(server.get("/none.mp4?start=1").status, 404);
    server.read_until("error.log", "text.mp4\" ");
    if !(record(&server, "last.mp4", &[]) && record(&server, "first.mp4", &["-movflags", "+faststart"])) {
        return; // Without ffmpeg there is no video.
    }
    for name in ["last.mp4", "first.mp4"] {
        for (prefix, query, expect) in [
            ("", "start=0", "10.0"),
            ("", "start=2", "8.0"),
            ("", "start=7.1", "2.9"),
            ("", "start=6&end=9", "3.0"),
            ("", "end=5.6", "5.6"),
            ("", "start=1&end=1", "9.0"),
            ("", "end=11", "10.0"),
            ("keys/", "start=2&end=4", "2.0"),
            ("keys/", "start=2.1&end=4", "1.9"),
        ] {
            let got = server.get(&format!("/{prefix}{name}?{query}"));
            assert_eq!(got.status, 200, "{name} {query}");
            assert_eq!(got.field("Content-Length"), Some(got.body.len().to_string().as_str()));
            let found = durations(&server, &got.body);
            assert!(found.len() == 2 && found[0] == expect, "{name} {query}: {found:?}");
        }
        let whole = server.get(&format!("/{name}?start=3")).body;
        let part = server.get_with(&format!("/{name}?start=3"), "Range: bytes=100-20000\r\n");
        assert!(part.status == 206 && part.body == whole[100..=20_000], "{name}");
        assert_eq!(server.get(&format!("/{name}?start=11")).status, 500);
        assert_eq!(server.get(&format!("/{name}?start=x")).status, 200);
        assert_eq!(server.get(&format!("/short/{name}?start=3")).status, 500);
        assert_eq!(server.get(&format!("/first/{name}?start=3")).status, 200, "the larger one of both sizes counts");
    }
    let log = server.read("error.log");
    for line in ["mp4 start time exceeds file duration", "you may want to increase mp4_max_buffer_size"] {
        assert!(log.contains(line), "{log}");
    }
}
