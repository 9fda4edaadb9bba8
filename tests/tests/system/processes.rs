//! Master and workers: signals, reload, logs reopened, crashes, the command line.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use e2e::{Backend, Server, Setup, binary};
use rustix::process::{Pid, Signal, kill_process};

const SITE: &str = "server { listen 127.0.0.1:%%PORT%%; location / { return 200 one; } }";

fn whole(body: &str, more: &str) -> String {
    format!(
        "daemon off; pid nginx.pid; {more} events {{ %%USE%% }} http {{ access_log access.log;
         client_body_temp_path cb; proxy_temp_path pt; server {{ listen 127.0.0.1:%%PORT%%; location / {{ {body} }} }} }}"
    )
}

#[test]
fn quit_leaves_young_idle_connections_their_time() {
    let server =
        Setup::http("server { listen 127.0.0.1:%%PORT%%; keepalive_min_timeout 1s; location / { return 200 one; } }")
            .start();
    let mut idle = server.connect();
    assert_eq!(idle.get("/", "").text(), "one");
    let stopping = std::thread::spawn(move || server.stop());
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(idle.get("/", "").field("Connection"), Some("close"), "it is still served");
    assert!(idle.closed());
    assert!(stopping.join().expect("it stops cleanly").success());
}

#[test]
fn term_ends_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Setup::http(SITE).main("worker_processes 2;").prepare();
        server.configure(&whole("return 200 one;", "worker_processes 2;"));
        server.launch();
        let mut idle = server.connect();
        idle.get("/", "");
        server.wait(|s| s.children().len() == 2, "two workers");
        let pids = server.children();
        server.signal(signal);
        assert!(idle.closed());
        server.wait_end();
        let alive = pids.iter().filter(|p| fs::exists(format!("/proc/{p}")).unwrap_or(false)).count();
        assert_eq!(alive, 0, "workers are gone");
        assert!(!server.folder().path().join("nginx.pid").exists(), "the pid file is gone");
    }
}

#[test]
fn reload() {
    let mut server = Setup::whole(&whole("return 200 one;", "")).start();
    assert_eq!(server.get("/").text(), "one");
    server.configure(&whole("return 200 two;", ""));
    server.reload();
    assert_eq!(server.get("/").text(), "two");
    // A broken file leaves everything as it is.
    server.configure(&whole("return 200 three; nonsense;", ""));
    server.signal(Signal::HUP);
    server.read_until("error.log", "unknown directive \"nonsense\"");
    assert_eq!(server.get("/").text(), "two");
    server.configure(&whole("return 200 four;", ""));
    server.reload();
    assert_eq!(server.get("/").text(), "four");
    server.quiet();
}

#[test]
fn logs_are_reopened() {
    let mut server = Setup::http(SITE).start();
    server.get("/before");
    server.read_until("access.log", "/before");
    let log = server.folder().path().join("access.log");
    fs::rename(&log, server.folder().path().join("old.log")).expect("a log can be moved");
    server.get("/between");
    server.read_until("old.log", "/between");
    server.signal(Signal::USR1);
    server.wait(|_| log.exists(), "a new log");
    std::thread::sleep(Duration::from_millis(200));
    server.get("/after");
    server.read_until("access.log", "/after");
    assert!(!server.read("old.log").contains("/after"));
}

#[test]
fn a_killed_worker_is_replaced() {
    let mut server = Setup::http(SITE).start();
    let worker = server.children().first().copied().expect("there is a worker");
    kill(worker, Signal::KILL);
    server.wait(|s| s.children().iter().any(|p| *p != worker), "another worker");
    assert_eq!(server.get("/").text(), "one");
    server.read_until("error.log", "exited on signal 9");
    server.quiet();
}

#[test]
fn workers_killed_together_are_all_replaced() {
    let mut server = Setup::whole(&whole("return 200 one;", "worker_processes 6;")).start();
    server.wait(|s| s.children().len() == 6, "six workers");
    let old = server.children();
    old.iter().for_each(|pid| kill(*pid, Signal::KILL));
    server.wait(|s| s.children().iter().filter(|pid| !old.contains(pid)).count() == 6, "six others");
    server.wait(|s| s.children().len() == 6, "nobody left unreaped");
    assert_eq!(server.get("/").text(), "one");
    assert_eq!(server.read_until("error.log", "exited on signal 9").matches("exited on signal 9").count(), 6);
    server.quiet();
}

/// Differs from nginx: after QUIT a master reopens no logs on USR1
#[test]
fn commands_come_by_channel_and_once() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let backend = Backend::start(move |_| {
        let _ = held.lock().expect("no test thread panics here").recv_timeout(Duration::from_secs(20));
        Backend::ok("late")
    });
    let mut server = Setup::whole(&whole(
        &format!("proxy_pass http://127.0.0.1:{};", backend.port),
        "worker_processes 1; error_log error.log notice;",
    ))
    .start();
    let mut busy = server.connect();
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait(|_| backend.connections() == 1, "the request at the backend");
    let worker = server.children()[0];
    for _ in 0..3 {
        server.signal(Signal::QUIT);
        std::thread::sleep(Duration::from_millis(30));
    }
    server.signal(Signal::USR1);
    server.read_until("error.log", &format!("{worker}#{worker}: reopening logs"));
    release.send(()).expect("the backend waits");
    assert_eq!(busy.response().text(), "late");
    assert!(server.wait_end().success());
    let log = server.read("error.log");
    assert_eq!(log.matches("gracefully shutting down").count(), 1, "{log}");
    let signals = log.lines().filter(|line| line.contains(&format!("{worker}#{worker}: signal "))).count();
    assert_eq!(signals, 0, "the worker was told by channel: {log}");
}

#[test]
fn a_worker_that_does_not_react_is_killed() {
    let mut server = Setup::whole(&whole("return 200 one;", "worker_processes 2;")).start();
    server.wait(|s| s.children().len() == 2, "two workers");
    kill(server.children()[0], Signal::STOP);
    server.quiet();
    server.signal(Signal::TERM);
    assert!(server.wait_end().success());
    assert!(server.read("error.log").contains("exited on signal 9"), "{}", server.read("error.log"));
}

#[test]
fn a_terminal_that_changes_its_size_does_nothing() {
    let mut server = Setup::http(SITE).main("error_log error.log notice;").start();
    server.wait(|s| !s.children().is_empty(), "a worker");
    let workers = server.children();
    server.signal(Signal::WINCH);
    server.read_until("error.log", "(SIGWINCH) received");
    server.signal(Signal::USR1);
    server.read_until("error.log", "reopening logs");
    assert_eq!((server.children(), server.get("/").text().as_str()), (workers, "one"));
}

#[test]
fn a_worker_that_cannot_start_is_not_started_again() {
    let mut server =
        Setup::whole(&whole("return 200 one;", "worker_processes 2; working_directory /nowhere/at/all;")).prepare();
    server.quiet();
    server.launch();
    server.wait(|s| s.read("error.log").matches("fatal code 2 and cannot be respawned").count() == 2, "two ends");
    assert!(server.children().is_empty());
    // It can be mended.
    let text = server.read("nginx.conf").replace("working_directory /nowhere/at/all;", "");
    server.folder().write("nginx.conf", text);
    server.signal(Signal::HUP);
    server.wait(|s| s.children().len() == 2, "two workers");
    assert_eq!(server.get("/").text(), "one");
}

#[test]
fn workers_go_on_without_their_master() {
    let mut server = Setup::whole(&whole("return 200 one;", "worker_processes 2;")).start();
    server.wait(|s| s.children().len() == 2, "two workers");
    let workers = server.children();
    let port = server.port();
    server.signal(Signal::KILL);
    assert!(!server.wait_end().success());
    for _ in 0..4 {
        assert_eq!(e2e::Connection::open(port).get("/", "Connection: close\r\n").text(), "one");
    }
    workers.iter().for_each(|pid| kill(*pid, Signal::QUIT));
    for _ in 0..1000 {
        if workers.iter().all(|pid| !lives(*pid)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the workers don't quit: {}", server.read("error.log"));
}

/// What the master holds: pages of its own in KiB, descriptors, mappings, children.
fn holdings(server: &Server) -> [usize; 4] {
    let pid = server.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory is counted");
    let rss = rss.trim().trim_end_matches(" kB").parse().expect("a number");
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count();
    let mappings = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs").lines().count();
    [rss, descriptors, mappings, server.children().len()]
}

#[test]
fn reloads_leave_nothing_behind() {
    let text = whole("return 200 one;", "worker_processes 2;");
    let more =
        "http { upstream u { server 127.0.0.1:1; server 127.0.0.1:2; keepalive 4; } map $uri $x { default 1; ~^/a 2; }
         server { listen 127.0.0.1:%%PORT_shared%% reuseport; location /p { proxy_pass http://u; }
         location ~ \\.php$ { return 404 $x; } }";
    let mut server = Setup::whole(&text.replace("http {", more)).start();
    (0..10).for_each(|_| server.reload());
    let before = holdings(&server);
    (0..60).for_each(|_| server.reload());
    let after = holdings(&server);
    // Each reload may cost what an allocator needs to settle, which is nothing in the long run.
    assert!(after[0] < before[0] + 1024, "{before:?} {after:?} [KiB, descriptors, mappings, children]");
    assert_eq!(after[1], before[1], "{before:?} {after:?} [KiB, descriptors, mappings, children]");
    assert!(after[2] < before[2] + 12, "{before:?} {after:?} [KiB, descriptors, mappings, children]");
    assert_eq!(after[3], 2, "no child waits to be reaped");
    assert_eq!(server.get("/").text(), "one");
}

fn kill(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("it is ours");
}

/// Whether a process runs: one that only waits to be reaped doesn't.
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Ends a daemon whose test has failed.
struct Daemon<'a>(&'a Server);

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.command(&["-s", "stop"]);
        }
    }
}

#[test]
fn daemon_and_signals_by_command() {
    let mut server = Setup::whole(
        "pid nginx.pid; events { %%USE%% } http { access_log off; client_body_temp_path cb; proxy_temp_path pt;
         server { listen 127.0.0.1:%%PORT%%; return 200 daemon; } }",
    )
    .prepare();
    server.quiet();
    let server = &server;
    let out = server.command(&[]);
    assert!(out.status.success(), "{out:?}");
    let _ended = Daemon(server);
    assert_eq!(server.get("/").text(), "daemon");
    let pid = server.read("nginx.pid").trim().to_string();
    let mode = fs::metadata(server.folder().path().join("nginx.pid")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "a daemon has no umask");
    assert!(server.command(&["-s", "reload"]).status.success());
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.get("/").text(), "daemon");
    assert!(server.command(&["-s", "stop"]).status.success());
    for _ in 0..500 {
        if !fs::exists(format!("/proc/{pid}")).unwrap_or(false) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap_or(false), "the daemon has ended");
    let again = server.command(&["-s", "stop"]);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("[error]"), "{again:?}");
}

#[test]
fn tests_of_a_configuration() {
    let server = Setup::http(SITE).prepare();
    let good = server.command(&["-t"]);
    let text = String::from_utf8_lossy(&good.stderr).into_owned();
    assert!(good.status.success(), "{text}");
    assert!(text.contains("syntax is ok") && text.contains("test is successful"), "{text}");
    let dump = server.command(&["-T"]);
    let text = String::from_utf8_lossy(&dump.stdout).into_owned();
    assert!(text.contains("# configuration file ") && text.contains("return 200 one;"), "{text}");
    assert!(server.command(&["-t", "-q"]).stderr.is_empty());
    let version = String::from_utf8_lossy(&server.command(&["-v"]).stderr).into_owned();
    assert!(version.contains(" version: "), "{version}");
    let bad = [
        ("nonsense 1;", "[emerg]", "unknown directive \"nonsense\" in "),
        ("worker_processes;", "[emerg]", "invalid number of arguments in \"worker_processes\" directive"),
        ("http { server { listen 1:2:3:4; } }", "[emerg]", " in "),
        ("http { location / { } }", "[emerg]", "\"location\" directive is not allowed here"),
        ("http {", "[emerg]", "unexpected end of file, expecting \"}\""),
        ("}", "[emerg]", "unexpected \"}\""),
        ("pid a; pid b;", "[emerg]", "\"pid\" directive is duplicate"),
        (
            "http { sendfile maybe; }",
            "[emerg]",
            "invalid value \"maybe\" in \"sendfile\" directive, it must be \"on\" or \"off\"",
        ),
        ("include none.conf;", "[emerg]", "none.conf\" failed (2: No such file or directory)"),
    ];
    for (text, level, message) in bad {
        server.folder().write("nginx.conf", format!("events {{ }}\n{text}\n"));
        let out = server.command(&["-t"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success(), "{text}");
        assert!(said.contains(level) && said.contains(message), "{text}: {said}");
    }
}

#[test]
fn errors_inside_a_server() {
    let server = Setup::http(SITE).prepare();
    let bad = [
        ("location / { } location / { }", "duplicate location \"/\""),
        ("location /a { } location ^~ /a { }", "duplicate location \"/a\""),
        ("location =/ { } location = / { }", "duplicate location \"/\""),
        ("location ~ ^/a { location /a/b { } }", "location \"/a/b\" is outside location \"^/a\""),
        ("listen 99999;", "invalid port in \"99999\" of the \"listen\" directive"),
        ("listen 0;", "invalid port in \"0\" of the \"listen\" directive"),
        ("listen 1; listen 1;", "a duplicate listen 0.0.0.0:1 in"),
        ("server_name *;", "server name \"*\" is invalid"),
        ("server_name .;", "server name \".\" is invalid"),
        ("error_page 499 /a;", "invalid value \"499\""),
        ("keepalive_timeout x;", "\"keepalive_timeout\" directive invalid value"),
        ("limit_rate x;", "\"limit_rate\" directive invalid value"),
        ("limit_rate_after x;", "\"limit_rate_after\" directive invalid value"),
        ("proxy_limit_rate x;", "\"proxy_limit_rate\" directive invalid value"),
        ("gzip_window 3k;", "\"gzip_window\" directive must be 512, 1k,"),
        ("gzip_hash 3k;", "\"gzip_hash\" directive must be 512, 1k,"),
        ("aio x;", "\"aio\" directive invalid value"),
        ("access_log syslog:server=unix:/x,facility=foo;", "unknown syslog facility \"foo\" in"),
        ("location / { try_files a =x; }", "invalid code \"=x\""),
        ("if ($uri ~) { }", "invalid condition \"$uri\""),
        ("if ($uri = a b) { }", "invalid condition \"$uri\""),
        ("if () { }", "invalid condition \")\""),
        ("if ($uri { }", "invalid condition \"$uri\""),
    ];
    for (text, message) in bad {
        server.folder().write("nginx.conf", format!("events {{ }} http {{ server {{ {text} }} }}\n"));
        let out = server.command(&["-t"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains(&format!("[emerg] {message}")), "{text}: {said}");
    }
    let twice = "upstream u { ip_hash; ip_hash; server 127.0.0.1:1; }";
    server.folder().write("nginx.conf", format!("pid nginx.pid; events {{ }} http {{ {twice} }}\n"));
    let said = String::from_utf8_lossy(&server.command(&["-t"]).stderr).into_owned();
    assert!(said.contains("[warn] load balancing method redefined") && said.contains("successful"), "{said}");
}

#[test]
fn options_it_does_not_know() {
    let out = std::process::Command::new(binary()).arg("-Z").output().expect("the program starts");
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("invalid option: \"Z\""), "{out:?}");
    let out = std::process::Command::new(binary()).args(["-s", "dance"]).output().expect("the program starts");
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("invalid option: \"-s dance\""), "{out:?}");
    std::io::stderr().flush().expect("standard error is there");
}
