//! `access_log`, `log_format`, and the error log.

use e2e::{Connection, Server, Setup};
use rustix::process::Signal;

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

/// Where a descriptor of a process leads.
fn leads_to(pid: u32, descriptor: u32) -> String {
    let target = std::fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).unwrap_or_default();
    target.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The standard error streams of all processes.
fn standard_errors(server: &Server) -> Vec<String> {
    [server.pid()].into_iter().chain(server.children()).map(|pid| leads_to(pid, 2)).collect()
}

fn with_log(main: &str, inner: &str) -> String {
    format!(
        "daemon off; pid nginx.pid; {main} worker_processes 1; events {{ %%USE%% }}
         http {{ access_log off; client_body_temp_path cb; proxy_temp_path pt;
         server {{ listen 127.0.0.1:%%PORT%%; root none; {inner} location /own {{ error_log own.log; }} }} }}"
    )
}

#[test]
fn standard_error_in_an_inner_level() {
    let mut server = Setup::whole(&with_log("error_log error.log notice;", "error_log stderr;")).start();
    server.quiet();
    server.get("/first");
    server.get("/own/second");
    assert!(server.read_until("stderr", "/first").contains("failed (2: No such file or directory)"));
    server.read_until("own.log", "/own/second");
    assert!(!server.read("error.log").contains("/first") && !server.read("stderr").contains("/own/second"));
    assert!(standard_errors(&server).iter().all(|name| name == "stderr"), "{:?}", standard_errors(&server));
    server.signal(Signal::USR1);
    server.read_until("error.log", "reopening logs");
    server.get("/third");
    server.read_until("stderr", "/third");
    // Without it the stream is the log's file.
    server.configure(&with_log("error_log error.log;", ""));
    server.reload();
    server.get("/fourth");
    server.read_until("error.log", "/fourth");
    assert!(standard_errors(&server).iter().all(|name| name == "error.log"), "{:?}", standard_errors(&server));
}

#[test]
fn the_standard_error_stream_follows_the_log() {
    let mut server = Setup::whole(&with_log("error_log error.log notice;", "")).start();
    server.quiet();
    assert!(standard_errors(&server).iter().all(|name| name == "error.log"), "{:?}", standard_errors(&server));
    let path = |name: &str| server.folder().path().join(name);
    std::fs::rename(path("error.log"), path("error.old")).expect("it is there");
    server.signal(Signal::USR1);
    server.wait(
        |s| s.read("error.log").lines().count() >= 1 || standard_errors(s).iter().all(|name| name == "error.log"),
        "the new file",
    );
    server.wait(|s| standard_errors(s).iter().all(|name| name == "error.log"), "the streams in the new file");
    server.get("/x");
    server.read_until("error.log", "/x");
}

#[test]
fn without_a_file_the_default_log_is_kept_too() {
    let syslog = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let port = syslog.local_addr().expect("it is bound").port();
    let main = format!("error_log syslog:server=127.0.0.1:{port} info;");
    let mut server = Setup::whole(&with_log(&main, "")).start();
    server.quiet();
    server.get("/to-both");
    server.read_until("error.log", "/to-both");
    let mut message = [0; 4096];
    syslog.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a timeout");
    let found = std::iter::from_fn(|| syslog.recv(&mut message).ok().map(|n| message[..n].to_vec()))
        .any(|message| String::from_utf8_lossy(&message).contains("/to-both"));
    assert!(found, "the syslog server has it");
}

#[test]
fn bytes_are_written_as_they_are() {
    let mut server = Setup::http(
        "log_format plain escape=none \"$request|$arg_a\";
         server { listen 127.0.0.1:%%PORT%%; root none; access_log plain.log plain; error_log error.log info;
            location /denied { deny all; } }",
    )
    .start();
    server.quiet();
    let odd: &[u8] = b"\xff\xe9\xc3\xa9\xf4\x8f\xbf\xbf\x80";
    for target in [&b"/file-%ff"[..], b"/denied"] {
        let request = [
            b"GET ",
            target,
            odd,
            b"?a=",
            odd,
            b" HTTP/1.1\r\nHost: a\r\nReferer: ",
            odd,
            b"\r\nConnection: close\r\n\r\n",
        ];
        server.raw(request.concat());
    }
    server.raw([b"GET / HTTP/1.1\r\nHost: ", odd, b"\r\n\r\n"].concat());
    let holds = |server: &Server, name: &str, bytes: &[u8]| {
        let log = std::fs::read(server.folder().path().join(name)).unwrap_or_default();
        log.windows(bytes.len()).any(|part| part == bytes)
    };
    for line in [
        [b"open() \"", server.folder().path().as_os_str().as_encoded_bytes(), b"/none/file-\xff", odd, b"\" failed"]
            .concat(),
        [b"access forbidden by rule, client: 127.0.0.1, server: , request: \"GET /denied", odd, b"?a=", odd].concat(),
        [b", referrer: \"", odd, b"\""].concat(),
        [b"host: \"", odd, b"\""].concat(),
    ] {
        server.wait(|s| holds(s, "error.log", &line), &format!("{} in error.log", line.escape_ascii()));
    }
    server.wait(|s| holds(s, "plain.log", &[odd, b" HTTP/1.1|", odd].concat()), "the bytes in the access log");
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

/// Who says nothing, or half of what is awaited, is told of when the time is over and when it leaves.
#[test]
fn who_says_nothing_is_told_of() {
    let mut server = Setup::http(
        "error_log %%DIR%%/info.log info; client_header_timeout 200ms;
        server { listen 127.0.0.1:%%PORT%%; return 200 ok; }
        server { listen 127.0.0.1:%%PROXY%% proxy_protocol; return 200 ok; }",
    )
    .start();
    let (plain, proxy) = (server.port(), server.port_of("PROXY"));
    for (port, bytes, ends, words) in [
        (plain, "", false, "client timed out (110: Connection timed out) while waiting for request, client: 127.0.0.1"),
        (plain, "", true, "client closed connection while waiting for request, client: 127.0.0.1"),
        (
            proxy,
            "",
            false,
            "client timed out (110: Connection timed out) while reading PROXY protocol, client: 127.0.0.1",
        ),
        (proxy, "", true, "client closed connection while reading PROXY protocol, client: 127.0.0.1"),
        (proxy, "PROXY T", false, "broken header: \"PROXY T\" while reading PROXY protocol, client: 127.0.0.1"),
        (
            proxy,
            "PROXY TCP4 1",
            true,
            "broken header: \"PROXY TCP4 1\" while reading PROXY protocol, client: 127.0.0.1",
        ),
    ] {
        let mut client = Connection::open(port);
        client.try_send(bytes);
        if ends {
            client.end();
        }
        assert!(client.rest().is_empty(), "{words}");
        server.wait(|s| s.read("info.log").contains(&format!("{words}, server: 127.0.0.1:{port}")), words);
    }
}
