//! Reloads: what came of them is told, all or nothing, and no connection is lost with a listening socket. Starts: the
//! pid file, and what a crash leaves behind.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use e2e::{Connection, Server, Setup};
use rustix::process::Signal;

fn whole(main: &str, http: &str) -> String {
    format!(
        "daemon off; pid nginx.pid; {main} events {{ %%USE%% }} http {{ access_log access.log; client_body_temp_path cb;
         proxy_temp_path pt; {http} }}"
    )
}

fn site(listen: &str, text: &str) -> String {
    format!("server {{ listen {listen}; location / {{ return 200 {text}; }} }}")
}

/// `-s reload`: whether it succeeded, and what it said.
fn reload(server: &Server) -> (bool, String) {
    let out = server.command(&["-s", "reload"]);
    (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
}

/// Differs from nginx: it waits for the master's word
#[test]
fn the_outcome_is_told() {
    let mut server = Setup::whole(&whole("", &site("127.0.0.1:%%PORT%%", "one"))).start();
    server.quiet();
    server.configure(&whole("worker_processes 2;", &site("127.0.0.1:%%PORT%%", "two")));
    assert_eq!(reload(&server), (true, String::new()));
    server.wait(|s| s.get("/").text() == "two", "the new workers' answers");
    server.configure(&whole("", &(site("127.0.0.1:%%PORT%%", "three") + &site("127.0.0.1:%%PORT_taken%%", "x"))));
    let taken = TcpListener::bind(("127.0.0.1", server.port_of("PORT_taken"))).expect("a free port");
    let (done, text) = reload(&server);
    let bind = format!("bind() to {} failed (98: Address already in use)\n", taken.local_addr().expect("an address"));
    assert!(!done && text.contains(&bind) && text.contains("reload failed"), "{text}");
    assert_eq!(server.get("/").text(), "two");
    drop(taken);
    assert_eq!(reload(&server), (true, String::new()));
    server.wait(|s| s.get("/").text() == "three", "the new workers' answers");
}

/// Differs from nginx: it waits for the master's word
#[test]
fn the_outcome_of_a_single_process_is_told() {
    let main = "master_process off;";
    let mut server = Setup::whole(&whole(main, &site("127.0.0.1:%%PORT%%", "one"))).start();
    server.quiet();
    server.configure(&whole(main, &site("127.0.0.1:%%PORT%%", "two")));
    assert_eq!(reload(&server), (true, String::new()));
    assert_eq!(server.get("/").text(), "two");
    server.configure(&whole(main, &format!("access_log none/a.log; {}", site("127.0.0.1:%%PORT%%", "three"))));
    let (done, text) = reload(&server);
    assert!(!done && text.contains("none/a.log\" failed (2: No such file or directory)"), "{text}");
    assert_eq!(server.get("/").text(), "two");
}

/// The only worker, if it is another one than this.
fn another(server: &Server, old: u32) -> Option<u32> {
    let [worker] = server.children()[..] else { return None };
    (worker != old).then_some(worker)
}

/// Differs from nginx: a reload whose workers can't start leaves nobody who serves
#[test]
fn workers_that_cannot_start_replace_nobody() {
    let listens = |kind: &str| site(&format!("unix:%%DIR%%/{kind}.sock"), "x");
    let old = site("127.0.0.1:%%PORT%%", "one") + &listens("old");
    let mut server = Setup::whole(&whole("", &old)).start();
    server.quiet();
    let first = server.children()[0];
    let message = "no new worker process has started, the old ones go on";
    server.configure(&whole("working_directory /nowhere/at/all;", &old));
    let (done, text) = reload(&server);
    assert!(!done && text.contains(message), "{text}");
    let new = site("127.0.0.1:%%PORT%% reuseport", "two") + &site("127.0.0.1:%%PORT_new%%", "two") + &listens("new");
    let main = "worker_processes 3; working_directory /nowhere/at/all; error_log new.log;";
    server.configure(&whole(main, &new).replace("pid nginx.pid", "pid new.pid"));
    server.signal(Signal::HUP);
    server.wait(|s| s.read("new.log").contains(message), message);
    let address = SocketAddr::from(([127, 0, 0, 1], server.port_of("PORT_new")));
    let refuses = || {
        TcpStream::connect_timeout(&address, Duration::from_millis(100))
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    server.wait(|_| refuses(), "the end of the new address");
    assert_eq!((server.children(), server.get("/").text().as_str()), (vec![first], "one"));
    let exists = |name: &str| server.folder().path().join(name).exists();
    assert_eq!(["nginx.pid", "new.pid", "old.sock", "new.sock"].map(exists), [true, false, true, false]);
    // The configuration before is in force: of it are those who come after the dead.
    rustix::process::kill_process(pid_of(first), Signal::KILL).expect("kills");
    server.wait(|s| another(s, first).is_some(), "another worker");
    assert_eq!(server.get("/").text(), "one");
    server.read_until("error.log", "exited on signal 9");
    server.configure(&whole("", &site("127.0.0.1:%%PORT%%", "three")));
    assert_eq!(reload(&server), (true, String::new()));
    server.wait(|s| s.get("/").text() == "three", "the new workers' answers");
}

fn pid_of(pid: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(pid as i32).expect("not 0")
}

fn descriptors(server: &Server) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("it runs").flatten();
    let mut names: Vec<_> =
        entries.filter_map(|entry| fs::read_link(entry.path()).ok()).map(|path| path.display().to_string()).collect();
    names.sort();
    names
}

#[test]
fn a_failed_reload_changes_nothing() {
    let mut server = Setup::whole(&whole("", &site("127.0.0.1:%%PORT%% backlog=100", "one"))).start();
    server.quiet();
    let mut kept = server.connect();
    assert_eq!(kept.get("/", "").text(), "one");
    let mut before = Vec::new();
    while before != descriptors(&server) {
        before = descriptors(&server);
        std::thread::sleep(Duration::from_millis(100)); // The master may still be at the birth of its worker.
    }
    let workers = server.children();
    let good = site("127.0.0.1:%%PORT%% backlog=200", "two");
    let cases = [
        ("", format!("{good} nonsense;"), "unknown directive \"nonsense\""),
        ("", format!("{good} upstream u {{ server 127.0.0.1:0; }}"), "invalid port in upstream"),
        ("", format!("access_log none/a.log; {good}"), "none/a.log\" failed (2: No such file or directory)"),
        ("error_log none/e.log;", good.clone(), "none/e.log\" failed (2: No such file or directory)"),
        (
            "",
            good.clone() + &site("unix:%%DIR%%/none/s.sock", "x"),
            "none/s.sock failed (2: No such file or directory)",
        ),
        ("", good.clone() + &site("192.0.2.1:%%PORT%%", "x"), "failed (99: Cannot assign requested address)"),
    ];
    for (main, http, message) in cases {
        let length = server.read("error.log").len();
        server.configure(&whole(main, &http));
        server.signal(Signal::HUP);
        server.wait(|s| s.read("error.log").get(length..).is_some_and(|new| new.contains(message)), message);
        assert_eq!(server.get("/").text(), "one", "{message}");
        assert_eq!(kept.get("/", "").text(), "one", "{message}");
        assert_eq!((descriptors(&server), server.children()), (before.clone(), workers.clone()), "{message}");
    }
    server.configure(&whole("", &good));
    server.reload();
    assert_eq!(server.get("/").text(), "two");
}

#[test]
fn a_pid_file_that_cannot_be_written_fails_the_reload() {
    let http = site("127.0.0.1:%%PORT%%", "one");
    let mut server = Setup::whole(&whole("", &http)).start();
    server.quiet();
    let text = whole("", &http);
    server.configure(&text.replace("pid nginx.pid", "pid none/nginx.pid"));
    server.signal(Signal::HUP);
    server.read_until("error.log", "none/nginx.pid\" failed (2: No such file or directory)");
    assert_eq!((server.read("nginx.pid").trim(), server.get("/").text()), (&*server.pid().to_string(), "one".into()));
    server.configure(&text.replace("pid nginx.pid", "pid other.pid"));
    server.reload();
    assert_eq!(server.read("other.pid").trim(), server.pid().to_string());
    assert!(!server.folder().path().join("nginx.pid").exists());
}

/// Clients that connect, ask once and go away, over and over; all that goes wrong is counted.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(port: u16, clients: usize) -> Load {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = || {
            let (stop, done) = (stop.clone(), done.clone());
            std::thread::spawn(move || {
                let mut wrong = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match std::panic::catch_unwind(|| Connection::open(port).get("/", "Connection: close\r\n").text()) {
                        Ok(text) if text == "x" => {}
                        other => wrong.push(format!("{other:?}")),
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                wrong
            })
        };
        let threads = (0..clients).map(|_| client()).collect();
        Load { stop, done, threads }
    }

    /// Lets so many more requests pass.
    fn pass(&self, requests: usize) {
        let (until, start) = (self.done.load(Ordering::Relaxed) + requests, Instant::now());
        while self.done.load(Ordering::Relaxed) < until && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it: nothing may have gone wrong.
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let wrong: Vec<String> = self.threads.into_iter().flat_map(|t| t.join().expect("a client")).collect();
        assert!(
            wrong.is_empty(),
            "of {} requests {} failed: {wrong:?}",
            self.done.load(Ordering::Relaxed),
            wrong.len()
        );
    }
}

/// Changes from each configuration to the next under load.
fn change_under_load(steps: &[(&str, &str)]) {
    let text = |(main, listen): &(&str, &str)| whole(main, &site(listen, "x"));
    let mut server = Setup::whole(&text(&steps[0])).start();
    let load = Load::start(server.port(), 4);
    for step in steps.iter().cycle().skip(1).take(steps.len() * 2) {
        load.pass(30);
        server.configure(&text(step));
        let before = server.children();
        server.signal(Signal::HUP);
        server.wait(|s| s.children().iter().all(|p| !before.contains(p)), "the old workers' end");
    }
    load.pass(30);
    load.end();
}

/// Differs from nginx: `127.0.0.1:80` and `*:80` can't replace one another
#[test]
fn overlapping_addresses_replace_one_another() {
    change_under_load(&[("", "127.0.0.1:%%PORT%%"), ("worker_processes 2;", "%%PORT%%"), ("", "127.0.0.1:%%PORT%%")]);
}

/// Differs from nginx: connections in the queue of a listening socket that goes
#[test]
fn reuseport_queues_lose_nothing() {
    let listen = "127.0.0.1:%%PORT%% reuseport";
    change_under_load(&[
        ("worker_processes 4;", listen),
        ("worker_processes 1;", listen),
        ("worker_processes 3;", listen),
    ]);
}

/// Differs from nginx: `reuseport` added to an address that is in use
#[test]
fn reuseport_comes_and_goes() {
    let (with, without) = ("127.0.0.1:%%PORT%% reuseport", "127.0.0.1:%%PORT%%");
    change_under_load(&[("worker_processes 2;", without), ("worker_processes 3;", with), ("", "%%PORT%%"), ("", with)]);
}

#[test]
fn listeners_come_and_go() {
    let two =
        site("127.0.0.1:%%PORT%%", "one") + &site("127.0.0.1:%%PORT_b%%", "two") + &site("unix:%%DIR%%/s", "three");
    let one = site("127.0.0.1:%%PORT%%", "one");
    let mut server = Setup::whole(&whole("", &two)).start();
    let (port, socket) = (server.port_of("PORT_b"), server.folder().path().join("s"));
    for _ in 0..2 {
        assert_eq!(Connection::open(port).get("/", "").text(), "two");
        assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok());
        server.configure(&whole("", &one));
        server.reload();
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err() && !socket.exists());
        server.configure(&whole("", &two));
        server.reload();
    }
}

/// Differs from nginx: the file of a unix socket that a crash has left
#[test]
fn a_crash_leaves_nothing_in_the_way() {
    let http = site("127.0.0.1:%%PORT%%", "one") + &site("unix:%%DIR%%/s", "two");
    let mut server = Setup::whole(&whole("", &http)).start();
    server.quiet();
    assert_eq!(server.get("/").text(), "one");
    let workers = server.children();
    server.signal(Signal::KILL);
    server.wait_end();
    for worker in workers {
        let pid = rustix::process::Pid::from_raw(worker as i32).expect("an id");
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        while fs::read_to_string(format!("/proc/{worker}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let left = server.folder().path().join("s");
    assert!(left.exists() && server.folder().path().join("nginx.pid").exists());
    server.launch();
    assert_eq!(server.get("/").text(), "one");
    assert!(std::os::unix::net::UnixStream::connect(&left).is_ok());
}

/// Stops a daemon whatever happens.
struct Daemon<'a>(&'a Server);

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        self.0.command(&["-s", "stop"]);
    }
}

#[test]
fn the_pid_file_is_there_when_the_command_returns() {
    let mut server =
        Setup::whole(&whole("", &site("127.0.0.1:%%PORT%%", "one")).replace("daemon off;", "daemon on;")).prepare();
    server.quiet();
    for _ in 0..5 {
        let started = server.command(&[]);
        assert!(started.status.success(), "{started:?}");
        let pid = server.read("nginx.pid").trim().to_string();
        assert!(fs::exists(format!("/proc/{pid}")).unwrap_or(false), "it runs: {pid:?}");
        assert_eq!(server.get("/").text(), "one");
        drop(Daemon(&server));
        let start = Instant::now();
        while fs::exists(format!("/proc/{pid}")).unwrap_or(false) && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Differs from nginx: exits with 1 if the start fails later
#[test]
fn a_daemon_that_cannot_start_says_so() {
    let text = whole("", &site("127.0.0.1:%%PORT%%", "one")).replace("daemon off;", "daemon on;");
    let server = Setup::whole(&text.replace("pid nginx.pid", "pid none/nginx.pid")).prepare();
    let out = server.command(&[]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success(), "the daemon's failure is the command's");
    assert!(said.contains("none/nginx.pid\" failed (2: No such file or directory)"), "{said}");
}
