//! `degradation`, `degrade`.

use e2e::Setup;

#[test]
fn locations_are_given_up_while_much_memory_is_used() {
    for (limit, given_up) in [("1k", true), ("0", false), ("100000m", false)] {
        let server = Setup::http(&format!(
            "degradation sbrk={limit};
             server {{ listen 127.0.0.1:%%PORT%%; root %%DIR%%; try_files /f =404;
                location /empty {{ degrade 204; try_files /f =404; }}
                location /closed {{ degrade 444; try_files /f =404; }} }}"
        ))
        .file("f", "file")
        .start();
        assert_eq!(server.get("/").status, 200, "{limit}");
        assert_eq!(server.get("/empty").status, if given_up { 204 } else { 200 }, "{limit}");
        let answer = server.connect().send("GET /closed HTTP/1.0\r\n\r\n").try_response(false);
        assert_eq!(answer.map(|answer| answer.status), (!given_up).then_some(200), "{limit}");
    }
}

#[test]
fn compression_is_given_up_while_much_memory_is_used() {
    for (limit, given_up) in [("1k", true), ("100000m", false)] {
        let server = Setup::http(&format!(
            "degradation sbrk={limit}; gzip on; gzip_min_length 1; gzip_types *;
             server {{ listen 127.0.0.1:%%PORT%%; root %%DIR%%; location / {{ gzip_disable degradation; }} location /f2 {{ }} }}"
        ))
        .file("f", "file".repeat(100))
        .file("f2", "file".repeat(100))
        .start();
        let coding =
            |target| server.get_with(target, "Accept-Encoding: gzip\r\n").field("Content-Encoding").map(str::to_owned);
        assert_eq!(coding("/f").as_deref(), if given_up { None } else { Some("gzip") }, "{limit}");
        assert_eq!(coding("/f2").as_deref(), Some("gzip"), "{limit}");
    }
}

/// Not in nginx: `sandbox on` shuts workers in
#[test]
fn in_a_sandbox_too() {
    let server = Setup::http(
        "degradation sbrk=1k; server { listen 127.0.0.1:%%PORT%%; location / { degrade 204; empty_gif; } }",
    )
    .main("sandbox on;")
    .start();
    assert_eq!(server.get("/").status, 204);
}
