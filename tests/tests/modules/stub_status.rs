//! `stub_status`: its page and its variables.

use e2e::Setup;

#[test]
fn page() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%;
            location /status { stub_status; }
            location /vars { return 200 \"$connections_active $connections_reading $connections_writing $connections_waiting\"; } }",
    )
    .start();
    let mut idle = server.connect();
    idle.get("/vars", "");
    let page = server.get("/status");
    assert_eq!(page.field("Content-Type"), Some("text/plain"));
    let text = page.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.first().copied(), Some("Active connections: 2 "), "{text}");
    assert_eq!(lines.get(1).copied(), Some("server accepts handled requests"), "{text}");
    assert_eq!(lines.get(3).copied(), Some("Reading: 0 Writing: 1 Waiting: 1 "), "{text}");
    assert_eq!(idle.get("/vars", "").text(), "1 0 1 0");
    assert_eq!(server.raw("POST /status HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").status, 405);
}

#[test]
fn counters_go_on_over_a_reload() {
    let mut server = Setup::http("server { listen 127.0.0.1:%%PORT%%; location / { stub_status; } }").start();
    let accepted = |page: String| {
        let counts = page.lines().nth(2).unwrap_or_default().to_string();
        counts.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).expect("a number")
    };
    let before = accepted(server.get("/").text());
    server.reload();
    assert_eq!(accepted(server.get("/").text()), before + 1);
}
