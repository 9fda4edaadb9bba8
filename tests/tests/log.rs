//! `access_log`, `log_format`, and the error log.

use e2e::Setup;

#[test]
fn formats() {
    let mut server = Setup::http(
        "log_format short '$remote_addr $status \"$request\" $body_bytes_sent';
         log_format json escape=json '{\"a\":\"$arg_a\",\"u\":\"$http_user_agent\"}';
         log_format bare escape=none '$arg_a';
         map $arg_log $wanted { default 0; yes 1; }
         server { listen 127.0.0.1:%%PORT%%;
            location / { return 200 ok; }
            location /short { access_log short.log short; return 200 12345; }
            location /json { access_log json.log json; return 200 x; }
            location /bare { access_log bare.log bare; return 200 x; }
            location /off { access_log off; return 200 x; }
            location /if { access_log if.log short if=$wanted; return 200 x; }
            location /two { access_log two.a short; access_log two.b short; return 200 x; }
            location /var { root %%DIR%%; access_log var/$arg_v.log short; return 200 x; }
            location /buffer { access_log buffer.log short buffer=64k flush=1s; return 200 x; }
        }",
    )
    .public("var")
    .start();
    let targets = [
        "/short?x=\"q\"",
        "/json?a=\"q\"",
        "/bare?a=\"b",
        "/off",
        "/if",
        "/if?log=yes",
        "/two",
        "/var?v=one",
        "/buffer",
    ];
    for target in targets {
        assert_eq!(server.get_with(target, "User-Agent: t\\e\r\n").status, 200, "{target}");
    }
    server.get_with("/main", "Referer: r\r\nUser-Agent: ua\r\n");
    let log = server.read_until("access.log", "/main");
    let line = log.lines().find(|l| l.contains("/main")).unwrap_or_default();
    assert!(
        line.starts_with("127.0.0.1 - - [") && line.ends_with("] \"GET /main HTTP/1.1\" 200 2 \"r\" \"ua\""),
        "{line}"
    );
    assert_eq!(server.read("short.log"), "127.0.0.1 200 \"GET /short?x=\\x22q\\x22 HTTP/1.1\" 5\n");
    assert_eq!(server.read("json.log"), "{\"a\":\"\\\"q\\\"\",\"u\":\"t\\\\e\"}\n");
    assert_eq!(server.read("bare.log"), "\"b\n");
    assert!(!log.contains("/off"));
    assert_eq!(server.read("if.log").lines().count(), 1);
    assert_eq!((server.read("two.a").lines().count(), server.read("two.b").lines().count()), (1, 1));
    assert!(server.read("var/one.log").contains("/var?v=one"));
    server.read_until("buffer.log", "/buffer");
}

#[test]
fn errors_are_logged_with_their_request() {
    let mut server =
        Setup::http("server { listen 127.0.0.1:%%PORT%%; server_name srv; root %%DIR%%; location / { } }").start();
    server.get_with("/none?x", "Referer: from\r\n");
    let log = server.read_until("error.log", "/none");
    let line = log.lines().find(|l| l.contains("/none")).unwrap_or_default();
    for part in [
        "[error] ",
        "open() \"",
        "/none\" failed (2: No such file or directory), client: 127.0.0.1, server: srv, request: \"GET /none?x HTTP/1.1\", \
         host: \"localhost\", referrer: \"from\"",
    ] {
        assert!(line.contains(part), "{part:?} in {line:?}");
    }
}

/// A variable that `set` gives a value elsewhere is empty, and told of once.
#[test]
fn variables_that_nothing_has_set() {
    let mut server = Setup::http(
        "log_format seen '[$one]'; error_log error.log warn;
         server { listen 127.0.0.1:%%PORT%%; access_log seen.log seen;
            location / { return 200 \"[$one][$one]\"; }
            location /set { set $one 1; return 200 $one; } }",
    )
    .start();
    assert_eq!(server.get("/").text(), "[][]");
    assert_eq!(server.get("/set").text(), "1");
    assert_eq!(server.raw("nonsense\r\n\r\n").status, 400);
    let lines = |server: &e2e::Server| server.read("seen.log").lines().count();
    server.wait(|server| lines(server) == 3, "a line for each");
    assert_eq!(server.read("seen.log"), "[]\n[1]\n[]\n");
    let log = server.read("error.log");
    assert_eq!(log.matches("using uninitialized \"one\" variable").count(), 2, "{log}");
}
