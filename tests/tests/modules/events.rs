//! The `events` block: its limits, and `debug_connection`.

use e2e::Setup;

#[test]
fn debug_connection() {
    let mut server = Setup::http("error_log error.log info; server { listen 127.0.0.1:%%PORT%%; return 200 x; }")
        .events("debug_connection 127.0.0.0/8;")
        .start();
    server.get("/traced");
    server.read_until("error.log", "http request line: \"GET /traced HTTP/1.1\"");
    let mut other = Setup::http("error_log error.log info; server { listen 127.0.0.1:%%PORT%%; return 200 x; }")
        .events("debug_connection 192.0.2.1;")
        .start();
    other.get("/untraced");
    assert!(!other.read("error.log").contains("[debug]"));
    other.quiet();
    server.quiet();
}

/// Differs from nginx: `select` and `poll` only if it was built with them
#[test]
fn too_many_connections_for_select() {
    let server = Setup::whole("events { use select; worker_connections 2000; } http { }").prepare();
    let out = server.command(&["-t"]);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        !out.status.success() && text.contains("the maximum number of files supported by select() is 1024"),
        "{text}"
    );
}

/// Differs from nginx: at most 4 million
#[test]
fn too_many_connections() {
    let server = Setup::whole("pid nginx.pid; events { worker_connections 4194305; } http { }").prepare();
    let out = server.command(&["-t"]);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && text.contains("4194305 worker_connections are more than 4194304"), "{text}");
}
