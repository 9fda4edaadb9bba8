//! What workers may do: the rights they have given up, and `sandbox on`.

use std::fs;

use e2e::{Server, Setup};

/// A line of a worker's status.
fn status(server: &Server, name: &str) -> String {
    let worker = server.children().first().copied().expect("there is a worker");
    let text = fs::read_to_string(format!("/proc/{worker}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(':')));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_string()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Differs from nginx: workers of another user have none
#[test]
fn privileges_are_dropped() {
    if !is_root() {
        return;
    }
    let server = Setup::http("server { listen 127.0.0.1:%%PORT%%; return 200 one; }").start();
    assert_eq!(server.get("/").text(), "one");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&status(&server, set), 16), Ok(0), "{set}");
    }
    assert_eq!(status(&server, "NoNewPrivs"), "1");
    assert!(!status(&server, "Uid").split_whitespace().any(|id| id == "0"));
    assert!(!status(&server, "Gid").split_whitespace().any(|id| id == "0"));
}

/// Differs from nginx: workers of another user have none
#[test]
fn transparent_keeps_its_capability() {
    if !is_root() {
        return;
    }
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; return 200 one;
                  location /p { proxy_pass http://127.0.0.1:1; proxy_bind $remote_addr transparent; } }",
    )
    .start();
    assert_eq!(server.get("/").text(), "one");
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(u64::from_str_radix(&status(&server, set), 16), Ok(1 << 13), "{set}");
    }
}

/// A site with all that touches files and sockets.
fn site(backend: u16) -> Setup {
    let http = format!(
        "access_log access.log; access_log logs/$arg_log.log combined;
         client_body_temp_path cb; proxy_temp_path pt; client_body_in_file_only clean;
         server {{ listen 127.0.0.1:%%PORT%%; root %%DIR%%/site; aio threads;
            location /list/ {{ autoindex on; }}
            location /proxy {{ proxy_pass http://127.0.0.1:{backend}/; }} }}"
    );
    Setup::http(&http)
        .main("sandbox on;")
        .file("site/a.txt", "inside")
        .file("site/list/b.txt", "listed")
        .file("secret/c.txt", "secret")
        .public("logs")
        .public("site")
}

/// Not in nginx: `sandbox on` shuts workers in
#[test]
fn a_shut_in_worker_knows_the_name_of_its_host() {
    let syslog = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    syslog.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a timeout");
    let port = syslog.local_addr().expect("it is bound").port();
    let http = format!(
        "access_log syslog:server=127.0.0.1:{port}; server {{ listen 127.0.0.1:%%PORT%%; return 200 $hostname; }}"
    );
    let server = Setup::http(&http).main("sandbox on;").start();
    let host = server.get("/").text();
    let mut message = [0; 4096];
    let length = syslog.recv(&mut message).expect("a message");
    let text = String::from_utf8_lossy(&message[..length]);
    // `<190>Nov 30 10:20:30 HOST nginx: …`
    assert_eq!(text.split_whitespace().nth(3), Some(host.as_str()), "{text}");
}

/// Not in nginx: `sandbox on` shuts workers in
#[test]
fn a_shut_in_worker_serves_what_the_configuration_names() {
    let large = "y".repeat(300_000);
    let answer = large.clone();
    let backend = e2e::Backend::start(move |_| e2e::Backend::ok(&answer));
    let setup = site(backend.port);
    let outside = setup.folder().path().join("secret");
    std::os::unix::fs::symlink(outside, setup.folder().path().join("site/outside")).expect("a link");
    let mut server = setup.start();
    server.quiet();
    assert_eq!(server.get("/a.txt").text(), "inside");
    assert_eq!(status(&server, "Seccomp"), "2");
    assert!(server.get("/list/").text().contains("b.txt"));
    assert_eq!(server.get("/proxy").body.len(), large.len());
    let post = format!(
        "POST /proxy HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n{}",
        "z".repeat(100_000)
    );
    assert_eq!(server.raw(post).status, 200, "the body goes through a temporary file");
    assert_eq!(server.get("/a.txt?log=named").status, 200);
    server.read_until("logs/named.log", "/a.txt?log=named");
    // A worker told to reopen its logs can.
    fs::rename(server.folder().path().join("access.log"), server.folder().path().join("old.log")).expect("moved");
    server.signal(rustix::process::Signal::USR1);
    server.wait(|s| s.folder().path().join("access.log").exists(), "a new log");
    server.wait(|s| s.get("/a.txt?again").status == 200 && s.read("access.log").contains("again"), "a line in it");
    // A link out of the site leads nowhere.
    assert_eq!(server.get("/outside/c.txt").status, 403);
    server.read_until("error.log", "site/outside/c.txt\" failed (13: Permission denied)");
    server.reload();
    assert_eq!(server.get("/a.txt").text(), "inside");
}
