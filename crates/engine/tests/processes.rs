//! The processes of a running program: start, reload, crash, reopen, stop. They run the example `echo`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

struct Server {
    folder: TempDir,
    port: u16,
    child: Child,
}

impl Server {
    /// Starts the program with this configuration and waits for its pid file.
    fn start(conf: &str) -> Server {
        let folder = TempDir::with_prefix("tidegate-processes-").expect("a folder");
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("permissions");
        let port = free_port();
        let server = Server { port, child: spawn(folder.path(), conf, port, &[]), folder };
        wait_for("the pid file", || server.path("nginx.pid").exists());
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_conf(&self, conf: &str) {
        write_conf(self.folder.path(), conf, self.port);
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("error.log")).unwrap_or_default()
    }

    fn wait_for_log(&self, text: &str) {
        wait_for(text, || self.log().contains(text));
    }

    fn signal(&self, name: &str) {
        kill(self.child.id(), name);
    }

    /// Whether a worker answers.
    fn accepts(&self) -> bool {
        let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
        BufReader::new(stream).read_line(&mut String::new()).is_ok_and(|length| length > 0)
    }

    /// A new connection, and the process that took it.
    fn connect(&self) -> (BufReader<TcpStream>, u32) {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time limit");
        let mut reader = BufReader::new(stream);
        let line = read_line(&mut reader);
        let pid = line.trim().parse().unwrap_or_else(|_| panic!("{line:?} instead of a process; {}", self.log()));
        (reader, pid)
    }

    fn wait(mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("waits") {
                return status;
            }
            assert!(start.elapsed() < LIMIT, "the program doesn't end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            kill(self.child.id(), "TERM");
            let _ = self.child.wait();
        }
        // The folder goes, but what happened is told.
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// A port that is free for connections and datagrams.
fn free_port() -> u16 {
    let both = || {
        let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        TcpListener::bind(("127.0.0.1", port)).map(|_| port)
    };
    (0..100).find_map(|_| both().ok()).expect("some port is free for both")
}

fn write_conf(folder: &std::path::Path, conf: &str, port: u16) {
    let text = format!("daemon off; pid nginx.pid; error_log error.log info;\n{conf}");
    fs::write(folder.join("nginx.conf"), text.replace("PORT", &port.to_string())).expect("writes");
}

fn spawn(folder: &std::path::Path, conf: &str, port: u16, words: &[&str]) -> Child {
    write_conf(folder, conf, port);
    // Next to the test's own folder.
    let own = std::env::current_exe().expect("a path");
    let program = own.parent().and_then(|deps| deps.parent()).expect("folders").join("examples/echo");
    let mut command = Command::new(program);
    command.arg(folder.join("nginx.conf")).args(words).stdin(Stdio::null()).stderr(Stdio::piped());
    command.spawn().expect("starts")
}

fn kill(pid: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(status.is_ok_and(|status| status.success()), "kill -{name} {pid}");
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn read_line(reader: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("reads");
    line
}

fn echo(reader: &mut BufReader<TcpStream>, text: &str) -> String {
    reader.get_mut().write_all(text.as_bytes()).expect("writes");
    read_line(reader)
}

const LIMIT: Duration = Duration::from_secs(10);
const ONE: &str = "events {} echo_listen 127.0.0.1:PORT;";
const TWO: &str = "worker_processes 2; events {} echo_listen 127.0.0.1:PORT;";

#[test]
fn serves_and_quits() {
    let server = Server::start(ONE);
    let (mut reader, worker) = server.connect();
    assert_ne!(worker, server.child.id());
    // A terminal's window changes.
    server.signal("WINCH");
    kill(worker, "WINCH");
    assert_eq!(echo(&mut reader, "hello\n"), "hello\n");
    server.signal("QUIT");
    assert_eq!(read_line(&mut reader), "", "an idle connection is closed");
    let log = server.path("error.log");
    let pid = server.path("nginx.pid");
    let log = {
        wait_for("the pid file to go", || !pid.exists());
        fs::read_to_string(log).expect("the log")
    };
    assert!(server.wait().success());
    for text in ["gracefully shutting down", "exited with code 0", "start worker process "] {
        assert!(log.contains(text), "{text} isn't in\n{log}");
    }
    assert!(!log.contains("[alert]"), "{log}");
}

#[test]
fn a_single_process() {
    let server = Server::start(&format!("master_process off; {ONE}"));
    let (mut reader, process) = server.connect();
    assert_eq!(process, server.child.id());
    assert_eq!(echo(&mut reader, "hello\n"), "hello\n");
    server.signal("HUP");
    assert_eq!(read_line(&mut reader), "", "an idle connection of the old cycle is closed");
    let (mut reader, process) = server.connect();
    assert_eq!(process, server.child.id());
    assert_eq!(echo(&mut reader, "hello\n"), "hello\n");
    server.signal("TERM");
    assert!(server.wait().success());
}

#[test]
fn every_method() {
    for method in ["epoll", "poll", "select", "io_uring"] {
        let conf = format!("events {{ use {method}; }} echo_listen 127.0.0.1:PORT;");
        let server = Server::start(&conf);
        wait_for("the worker", || server.log().contains("cannot be respawned") || server.accepts());
        if server.log().contains("event method failed") {
            // io_uring is often forbidden; the others work everywhere.
            assert_eq!(method, "io_uring", "{}", server.log());
            continue;
        }
        let (mut reader, _) = server.connect();
        assert_eq!(echo(&mut reader, "hello\n"), "hello\n", "{method}");
        server.signal("QUIT");
        assert!(server.wait().success());
    }
}

#[test]
fn reload_replaces_workers_and_keeps_sockets() {
    let server = Server::start(TWO);
    let (mut old, old_worker) = server.connect();
    assert_eq!(echo(&mut old, "x\n"), "x\n");
    server.signal("HUP");
    server.wait_for_log("exited with code 0");
    assert_eq!(read_line(&mut old), "");
    let (mut new, new_worker) = server.connect();
    assert_ne!(old_worker, new_worker);
    assert_eq!(echo(&mut new, "y\n"), "y\n");
}

#[test]
fn while_it_quits_connections_are_refused() {
    let server = Server::start(ONE);
    let mut busy = server.connect().0;
    // A connection that is being served, not idle: it sends and doesn't read.
    let writer = busy.get_ref().try_clone().expect("a copy");
    let big = vec![b'x'; 1 << 20];
    let thread = std::thread::spawn(move || {
        let mut writer = writer;
        let _ = writer.set_write_timeout(Some(Duration::from_secs(3)));
        let _ = (0..64).try_for_each(|_| writer.write_all(&big));
    });
    std::thread::sleep(Duration::from_millis(300));
    server.signal("QUIT");
    server.wait_for_log("gracefully shutting down");
    wait_for("a refusal", || TcpStream::connect(("127.0.0.1", server.port)).is_err());
    server.signal("TERM");
    thread.join().expect("joins");
    let _ = std::io::Read::read(&mut busy, &mut [0]);
}

#[test]
fn a_bad_configuration_changes_nothing() {
    let server = Server::start(ONE);
    let (_, worker) = server.connect();
    server.write_conf("events {} foo;");
    server.signal("HUP");
    server.wait_for_log("[emerg]");
    assert!(server.log().contains("unknown directive \"foo\" in"), "{}", server.log());
    assert_eq!(server.connect().1, worker);
}

#[test]
fn a_crashed_worker_is_replaced() {
    let server = Server::start(ONE);
    let (_, worker) = server.connect();
    kill(worker, "KILL");
    server.wait_for_log(&format!("worker process {worker} exited on signal 9"));
    assert_ne!(server.connect().1, worker);
}

#[test]
fn a_reload_waits_for_workers_that_die_at_their_start() {
    let server = Server::start(ONE);
    let (_, old) = server.connect();
    let file = begin_deadly_reload(&server);
    fs::remove_file(file).expect("removes");
    server.wait_for_log(&format!("worker process {old} exited with code 0"));
    assert!(!server.log().contains("no new worker process"), "{}", server.log());
    let (mut reader, new) = server.connect();
    assert_ne!(new, old);
    assert_eq!(echo(&mut reader, "x\n"), "x\n");
}

/// A reload to a configuration whose workers die at their start as long as this file is there.
fn begin_deadly_reload(server: &Server) -> PathBuf {
    let file = server.path("dies");
    fs::write(&file, "").expect("writes");
    server.write_conf(&format!("{ONE} echo_dies {};", file.display()));
    server.signal("HUP");
    server.wait_for_log("exited on signal 9");
    file
}

#[test]
fn a_reload_whose_workers_keep_dying_is_given_up() {
    let server = Server::start(&format!("{ONE} echo_cache on;"));
    server.wait_for_log("loaded by ");
    let (mut reader, old) = server.connect();
    begin_deadly_reload(&server);
    server.wait_for_log("no new worker process has started, the old ones go on");
    assert_eq!(echo(&mut reader, "x\n"), "x\n");
    kill(old, "KILL");
    server.wait_for_log(&format!("worker process {old} exited on signal 9"));
    // One of the configuration before: those of the other would die.
    let (mut reader, new) = server.connect();
    assert_ne!(new, old);
    assert_eq!(echo(&mut reader, "y\n"), "y\n");
    server.write_conf(ONE);
    server.signal("HUP");
    server.wait_for_log(&format!("worker process {new} exited with code 0"));
    assert_eq!(echo(&mut server.connect().0, "z\n"), "z\n");
    assert_eq!(server.log().matches("start cache loader process").count(), 1, "it has done its work");
}

/// What other processes die of says nothing of workers that take long to start.
#[test]
fn a_reload_is_not_given_up_while_workers_start() {
    let server = Server::start(ONE);
    let (_, old) = server.connect();
    let file = server.path("stops");
    fs::write(&file, "").expect("writes");
    server.write_conf(&format!("{ONE} echo_cache on; echo_stops {};", file.display()));
    server.signal("HUP");
    server.wait_for_log("cache manager process");
    server.wait_for_log("exited on signal 9");
    let log = || server.log();
    wait_for("an end", || log().contains("gracefully shutting down") || log().contains("no new worker process"));
    assert!(!log().contains("no new worker process"), "{}", log());
    let new = last(&log(), "start worker process ").expect("a worker");
    fs::remove_file(file).expect("removes");
    kill(new, "CONT");
    server.wait_for_log(&format!("worker process {old} exited with code 0"));
    assert_eq!(server.connect().1, new);
}

#[test]
fn a_quit_ends_a_reload() {
    let server = Server::start(ONE);
    let (_, old) = server.connect();
    begin_deadly_reload(&server);
    server.signal("QUIT");
    server.wait_for_log(&format!("worker process {old} exited with code 0"));
    let (log, pid) = (server.log(), server.path("nginx.pid"));
    assert!(!log.contains("no new worker process"), "{log}");
    wait_for("the pid file to go", || !pid.exists());
    assert!(server.wait().success());
}

#[test]
fn an_upgrade_begins_after_a_reload() {
    let server = Server::start(ONE);
    wait_for("the worker", || server.accepts());
    let file = begin_deadly_reload(&server);
    server.signal("USR2");
    server.wait_for_log("changing binary\n");
    fs::remove_file(file).expect("removes");
    let new = || fs::read_to_string(server.path("nginx.pid")).ok()?.trim().parse().ok();
    wait_for("another master", || new().is_some_and(|pid: u32| pid != server.child.id()));
    let _new = Ends(new().expect("a master"));
    let log = server.log();
    let (before, _) = log.split_once("start new binary process").expect("it was started");
    let (_, since) = before.rsplit_once("exited on signal 9").expect("one has died");
    assert!(since.contains("start worker process "), "the reload was over: {log}");
}

#[test]
fn a_panic_costs_one_connection() {
    let server = Server::start(ONE);
    let (mut other, worker) = server.connect();
    let (mut reader, _) = server.connect();
    let _ = reader.get_mut().write_all(b"panic\n");
    server.wait_for_log("[alert]");
    assert!(server.log().contains("panic: asked for in "), "{}", server.log());
    assert_eq!(read_line(&mut reader), "");
    assert_eq!(echo(&mut other, "z\n"), "z\n");
    assert_eq!(server.connect().1, worker);
}

#[test]
fn logs_are_reopened() {
    let server = Server::start(ONE);
    let _ = server.connect();
    fs::rename(server.path("error.log"), server.path("old.log")).expect("renames");
    server.signal("USR1");
    wait_for("a new log", || server.path("error.log").exists());
    server.signal("HUP");
    server.wait_for_log("start worker process ");
    assert!(!server.log().contains("[emerg]"), "{}", server.log());
}

#[test]
fn one_socket_for_each_worker() {
    let conf = "worker_processes 2; events {} echo_listen 127.0.0.1:PORT reuseport;";
    let server = Server::start(conf);
    let mut workers: Vec<u32> = (0..40).map(|_| server.connect().1).collect();
    workers.sort_unstable();
    workers.dedup();
    assert_eq!(workers.len(), 2);
}

#[test]
fn accept_mutex() {
    let conf = "worker_processes 2; events { accept_mutex on; } echo_listen 127.0.0.1:PORT;";
    let server = Server::start(conf);
    for _ in 0..20 {
        let (mut reader, _) = server.connect();
        assert_eq!(echo(&mut reader, "m\n"), "m\n");
    }
}

#[test]
fn an_address_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let folder = TempDir::with_prefix("tidegate-processes-").expect("a folder");
    let port = taken.local_addr().expect("an address").port();
    let output = spawn(folder.path(), ONE, port, &["test"]).wait_with_output().expect("ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = spawn(folder.path(), ONE, port, &[]).wait_with_output().expect("ends");
    let text = String::from_utf8_lossy(&output.stderr);
    let message = format!("[emerg] bind() to 127.0.0.1:{port} failed (98: Address already in use)");
    assert_eq!(text.matches(&message).count(), 5, "{text}");
    assert!(text.ends_with("[emerg] still could not bind()\n") && output.status.code() == Some(1), "{text}");
}

#[test]
fn stop_does_not_wait() {
    let server = Server::start(TWO);
    let _reader = server.connect();
    let start = Instant::now();
    server.signal("TERM");
    assert!(server.wait().success());
    assert!(start.elapsed() < Duration::from_secs(3));
}

/// The last process of which the log has this word.
fn last(log: &str, word: &str) -> Option<u32> {
    log.lines().rev().find_map(|line| line.split_once(word)?.1.trim().parse().ok())
}

fn title(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).trim_matches([' ', '\0']).to_string()
}

#[test]
fn cache_processes() {
    let conf = "events {} echo_listen 127.0.0.1:PORT; echo_cache on;";
    let server = Server::start(conf);
    server.wait_for_log("managed by ");
    let manager = last(&server.log(), "managed by ").expect("a manager");
    assert!(title(manager).ends_with(": cache manager process"), "{}", title(manager));
    server.wait_for_log("start cache loader process");
    server.wait_for_log("loaded by ");
    let loader = last(&server.log(), "loaded by ").expect("a loader");
    server.wait_for_log(&format!("cache loader process {loader} exited with code 0"));
    assert!(server.accepts());
    // One that dies is replaced, the loader is not started again with it.
    kill(manager, "KILL");
    wait_for("another manager", || last(&server.log(), "managed by ").is_some_and(|pid| pid != manager));
    assert_eq!(server.log().matches("start cache loader process").count(), 1);
    let manager = last(&server.log(), "managed by ").expect("a manager");
    server.signal("USR1");
    server.wait_for_log("reopening logs");
    server.signal("HUP");
    server.wait_for_log(&format!("cache manager process {manager} exited with code 0"));
    wait_for("another manager", || last(&server.log(), "managed by ").is_some_and(|pid| pid != manager));
    wait_for("another loader", || server.log().matches("start cache loader process").count() == 2);
    assert!(server.accepts());
    server.signal("QUIT");
    assert!(server.wait().success());
}

/// Clients that send datagrams, so many at a time each, and want an answer to every one before the next.
struct Asking {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<u32>>>,
}

impl Asking {
    fn start(port: u16, clients: usize, window: usize) -> Asking {
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicUsize::new(0));
        let client = |_| {
            let (stop, answers) = (stop.clone(), answers.clone());
            std::thread::spawn(move || ask(port, window, &stop, &answers))
        };
        let clients = (0..clients).map(client).collect();
        Asking { stop, answers, clients }
    }

    /// Waits until each worker has had the time to answer.
    fn go_on(&self) {
        let before = self.answers.load(Ordering::Relaxed);
        wait_for("answers", || self.answers.load(Ordering::Relaxed) >= before + 50);
    }

    /// The processes that have answered.
    fn end(self) -> Vec<u32> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all: Vec<u32> =
            self.clients.into_iter().flat_map(|client| client.join().expect("all are answered")).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

fn ask(port: u16, window: usize, stop: &AtomicBool, answers: &AtomicUsize) -> Vec<u32> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    socket.connect(("127.0.0.1", port)).expect("connects");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a time limit");
    let (mut number, mut workers) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let asked = number..number + window;
        for number in asked.clone() {
            socket.send(number.to_string().as_bytes()).expect("sends");
        }
        let mut answered: Vec<usize> = asked.clone().map(|_| answer(&socket, &mut workers)).collect();
        answered.sort_unstable();
        assert!(answered.iter().copied().eq(asked.clone()), "{answered:?} instead of {asked:?}");
        number += window;
        answers.fetch_add(window, Ordering::Relaxed);
        std::thread::sleep(Duration::from_micros(300));
    }
    workers
}

/// The number in the next answer; its worker is noted.
fn answer(socket: &UdpSocket, workers: &mut Vec<u32>) -> usize {
    let mut bytes = [0; 100];
    let len = socket.recv(&mut bytes).expect("an answer");
    let text = String::from_utf8_lossy(&bytes[..len]);
    let (worker, number) = text.split_once(' ').expect("a process and a number");
    let worker = worker.parse().expect("a process");
    if workers.last() != Some(&worker) {
        workers.push(worker);
    }
    number.parse().expect("a number")
}

/// Four reloads, each until its predecessors have gone; between them all is answered.
fn reload_again_and_again(server: &Server, workers: usize, asking: &Asking) {
    for round in 1..=4 {
        asking.go_on();
        server.signal("HUP");
        wait_for("the workers to be replaced", || {
            server.log().matches("exited with code 0").count() == round * workers
        });
    }
    asking.go_on();
}

#[test]
fn datagrams_survive_reloads() {
    for method in ["epoll", "poll", "select", "io_uring"] {
        for reuseport in ["", "reuseport"] {
            // With one client and one datagram under way, one that nobody is woken for stays where it is.
            for (clients, window) in [(1, 1), (4, 20)] {
                let conf = format!(
                    "worker_processes 2; events {{ use {method}; }} echo_listen 127.0.0.1:PORT udp {reuseport};"
                );
                let server = Server::start(&conf);
                if server.log().contains("event method isn't available") {
                    assert_eq!(method, "io_uring", "{}", server.log());
                    continue;
                }
                let asking = Asking::start(server.port, clients, window);
                reload_again_and_again(&server, 2, &asking);
                let workers = asking.end();
                assert!(workers.len() >= 5, "{workers:?}");
                assert!(!server.log().contains("[alert]"), "{}", server.log());
                server.signal("QUIT");
                assert!(server.wait().success());
            }
        }
    }
}

#[test]
fn datagrams_survive_a_change_of_address() {
    let conf = |address: &str| format!("worker_processes 2; events {{}} echo_listen {address}:PORT udp;");
    let server = Server::start(&conf("127.0.0.1"));
    for (clients, window) in [(1, 1), (4, 20)] {
        let asking = Asking::start(server.port, clients, window);
        for address in ["0.0.0.0", "127.0.0.1", "0.0.0.0", "127.0.0.1"] {
            asking.go_on();
            let before = server.log().matches("exited with code 0").count();
            server.write_conf(&conf(address));
            server.signal("HUP");
            wait_for("the workers to be replaced", || server.log().matches("exited with code 0").count() == before + 2);
        }
        asking.go_on();
        let workers = asking.end();
        assert!(workers.len() >= 5, "{workers:?}");
    }
    assert!(!server.log().contains("[alert]") && !server.log().contains("[emerg]"), "{}", server.log());
}

#[test]
fn who_sends_where_nobody_listens_any_more_is_refused() {
    let server = Server::start("events {} echo_listen 127.0.0.1:PORT udp;");
    Asking::start(server.port, 1, 1).end();
    server.write_conf("events {}");
    server.signal("HUP");
    server.wait_for_log("exited with code 0");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    socket.connect(("127.0.0.1", server.port)).expect("connects");
    socket.set_read_timeout(Some(LIMIT)).expect("a time limit");
    socket.send(b"x").expect("sends");
    let error = socket.recv(&mut [0]).expect_err("nobody is there");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    // And it may come back.
    server.write_conf("events { accept_mutex on; } worker_processes 2; sandbox on; echo_listen 127.0.0.1:PORT udp;");
    server.signal("HUP");
    wait_for("other workers", || server.log().matches("exited with code 0").count() == 2);
    let asking = Asking::start(server.port, 2, 5);
    asking.go_on();
    asking.end();
    assert!(!server.log().contains("[alert]") && !server.log().contains("[emerg]"), "{}", server.log());
}

#[test]
fn datagrams_of_a_single_process_survive_reloads() {
    let conf = "master_process off; events {} echo_listen 127.0.0.1:PORT udp; echo_listen 127.0.0.1:PORT;";
    let server = Server::start(conf);
    let asking = Asking::start(server.port, 2, 5);
    for round in 1..=4 {
        server.signal("HUP");
        wait_for("the reload", || server.log().matches(": reconfiguring").count() == round);
        asking.go_on();
        // Connections on the same port are another socket's.
        assert_eq!(server.connect().1, server.child.id());
    }
    assert_eq!(asking.end(), [server.child.id()]);
}

/// Ends a process that another one has started.
struct Ends(u32);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.to_string()]).status();
    }
}

#[test]
fn datagrams_survive_an_upgrade() {
    let conf = "worker_processes 2; events {} echo_listen 127.0.0.1:PORT udp; echo_listen 127.0.0.1:PORT;";
    let server = Server::start(conf);
    let port = server.port;
    let asking = Asking::start(port, 4, 10);
    wait_for("the workers", || server.accepts());
    server.signal("USR2");
    let new = || fs::read_to_string(server.path("nginx.pid")).ok()?.trim().parse().ok();
    wait_for("another master", || new().is_some_and(|pid: u32| pid != server.child.id()));
    let new = Ends(new().expect("a master"));
    wait_for("its workers", || server.log().lines().filter(|line| line.contains("start worker process ")).count() >= 4);
    let alone = Asking::start(port, 1, 1);
    server.signal("QUIT");
    wait_for("the old master to go", || !server.path("nginx.pid.oldbin").exists());
    wait_for("its workers to go", || server.log().matches("exited with code 0").count() == 2);
    let late = Asking::start(port, 2, 10);
    late.go_on();
    let late = late.end();
    let all = [asking.end(), alone.end()].concat();
    assert!(all.len() > late.len(), "workers of both masters have answered: {all:?}, late ones: {late:?}");
    let log = server.log();
    assert!(log.contains("using inherited sockets from"), "{log}");
    assert!(!log.contains("[alert]") && !log.contains("isn't a listening one"), "{log}");
    drop(new);
}
