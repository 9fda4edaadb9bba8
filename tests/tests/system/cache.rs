//! Caches and the processes: manager, restarts, reloads, workers that are killed, a disk that is full.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use e2e::{Backend, Connection, Server, Setup};
use rustix::process::{Pid, Signal, kill_process};

fn text(backend: &Backend, path: &str, main: &str, inside: &str) -> String {
    let port = backend.port;
    format!(
        "daemon off; pid nginx.pid; error_log error.log notice; {main} events {{ %%USE%% }}
         http {{ access_log off; client_body_temp_path cb; proxy_temp_path temp;
         proxy_cache_path cache/files keys_zone=one:1m {path}; proxy_cache_valid 1h; proxy_cache one;
         server {{ listen 127.0.0.1:%%PORT%%; add_header X-S $upstream_cache_status; add_header X-P $pid; {inside}
         location /pid {{ return 200 $pid; }}
         location / {{ proxy_pass http://127.0.0.1:{port}; }} }} }}"
    )
}

fn start(text: &str) -> Server {
    Setup::whole(text).public("cache").public("temp").start()
}

/// A backend whose body tells the target, as long as its number says.
fn echo() -> Backend {
    Backend::start(|r| Backend::ok(&expected(r.line().split(' ').nth(1).unwrap_or_default())))
}

/// `/NAME/LENGTH`: the body of the target.
fn expected(target: &str) -> String {
    let length = target.rsplit('/').next().and_then(|length| length.parse().ok()).unwrap_or(10);
    target.chars().cycle().take(length).collect()
}

fn status(server: &Server, target: &str) -> String {
    let response = server.get(target);
    assert!(response.text() == expected(target), "{target}: {} bytes", response.body.len());
    response.field("X-S").unwrap_or_default().to_owned()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn stored(server: &Server) -> usize {
    files(&server.folder().path().join("cache/files")).len()
}

#[test]
fn the_manager_removes_what_is_unused_or_too_much() {
    let backend = echo();
    let path = "max_size=100k manager_files=1000 manager_sleep=10ms";
    let mut server = start(&text(&backend, path, "worker_processes 1;", ""));
    let title = |server: &Server| {
        server
            .children()
            .iter()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).ok())
            .collect::<String>()
    };
    server.wait(|server| title(server).contains("cache manager process"), "the manager");
    server.wait(|server| title(server).contains("cache loader process"), "the loader");
    for n in 0..20 {
        assert_eq!(status(&server, &format!("/{n}/10000")), "MISS");
    }
    server.wait(|server| stored(server) <= 8, "files to go");
    assert_eq!(status(&server, "/19/10000"), "HIT", "the last one is kept longest");
    assert_eq!(status(&server, "/0/10000"), "MISS");
}

#[test]
fn files_outlive_the_server_and_the_zone_a_reload() {
    let backend = echo();
    let text = text(&backend, "levels=1:2", "worker_processes 2;", "");
    let mut server = start(&text);
    assert_eq!(status(&server, "/a/100"), "MISS");
    assert_eq!(status(&server, "/a/100"), "HIT");
    server.reload();
    assert_eq!(status(&server, "/a/100"), "HIT");
    server.configure(&text.replace("levels=1:2", "levels=2"));
    server.signal(Signal::HUP);
    server.read_until("error.log", "cache \"one\" had previously different levels");
    server.quiet();
    server.configure(&text);
    server.signal(Signal::TERM);
    server.wait_end();
    server.launch();
    assert_eq!(status(&server, "/a/100"), "HIT", "it is found before the loader has begun");
    assert_eq!(backend.requests().len(), 1);
}

/// Differs from nginx: a killed worker's lock on a key of a cache
#[test]
fn a_killed_worker_gives_its_lock_back() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new((wait, 0));
    let backend = Backend::start(move |_| {
        let mut wait = wait.lock().unwrap();
        wait.1 += 1;
        if wait.1 == 1 {
            let _ = wait.0.recv_timeout(Duration::from_secs(30));
        }
        Backend::ok(&format!("answer {}", wait.1))
    });
    let locks = "proxy_cache_lock on; proxy_cache_lock_age 1h; proxy_cache_lock_timeout 1h;";
    let mut server = start(&text(&backend, "", "worker_processes 2;", locks));
    let mut first = server.connect();
    let killed: i32 = first.get("/pid", "").text().parse().expect("a process");
    first.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait(|_| backend.connections() == 1, "the first request");
    // One of the other worker.
    let mut second = loop {
        let mut connection = server.connect();
        if connection.get("/pid", "").text() != killed.to_string() {
            break connection;
        }
    };
    second.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    kill_process(Pid::from_raw(killed).expect("a process"), Signal::KILL).expect("it runs");
    go.send(()).unwrap();
    assert_eq!(second.response().text(), "answer 2");
    server.quiet();
}

/// How many calls of a process have read from files so far.
fn reads(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("syscr: "));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Differs from nginx: where its file is opened once
#[test]
fn those_who_wait_share_one_open_file() {
    let target = "/slow/1000";
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::start(move |_| {
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(30));
        Backend::ok(&expected(target))
    });
    let locks = "proxy_cache_lock on; proxy_cache_lock_age 1h; proxy_cache_lock_timeout 1h;
        location /status { stub_status; }";
    let mut server = start(&text(&backend, "", "worker_processes 2;", locks));
    let mut clients: Vec<Connection> = (0..100).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    // All of them, and the one that asks.
    server.wait(|server| server.get("/status").text().contains("Writing: 101 "), "all requests");
    let workers = server.children();
    let before: Vec<u64> = workers.iter().map(|pid| reads(*pid)).collect();
    go.send(()).unwrap();
    for client in &mut clients {
        assert!(client.response().text() == expected(target));
    }
    assert_eq!(backend.requests().len(), 1);
    for (pid, before) in workers.iter().zip(before) {
        let count = reads(*pid) - before;
        assert!(count < 20, "{count} reads");
    }
}

#[test]
fn not_one_wrong_byte_while_processes_are_killed() {
    let backend = echo();
    let path = "levels=1:2 max_size=300k manager_sleep=5ms inactive=1s";
    let locks = "proxy_cache_lock on; proxy_cache_lock_timeout 1s;";
    let mut server = start(&text(&backend, path, "worker_processes 3;", locks));
    let whole = kill_at_random(&server, Duration::from_secs(5));
    assert!(whole > 100, "{whole} responses");
    all_is_served(&mut server);
}

/// The disk is full most of the time.
/// Differs from nginx: the client gets it, and nothing is stored
#[test]
fn not_one_wrong_byte_while_processes_are_killed_on_a_full_disk() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: only root can mount a small file system");
        return;
    }
    let backend = echo();
    let path = "levels=1:2 use_temp_path=off max_size=100m manager_sleep=5ms inactive=2s";
    let locks = "proxy_cache_lock on; proxy_cache_lock_timeout 1s;";
    let text = text(&backend, path, "worker_processes 3;", locks)
        .replace("cache/files keys_zone=one:1m", "disk/files keys_zone=one:32k");
    let mut server = Setup::whole(&text).public("temp").tiny_disk("disk").start();
    for n in 0..30 {
        status(&server, &format!("/fill{n}/60000"));
    }
    server.read_until("error.log", "No space left on device");
    let whole = kill_at_random(&server, Duration::from_secs(5));
    assert!(whole > 100, "{whole} responses");
    all_is_served(&mut server);
}

/// Kills workers, cache managers and cache loaders while clients ask: how many whole responses they got. None of those and
/// of the others has a wrong byte.
fn kill_at_random(server: &Server, time: Duration) -> usize {
    let (port, over) = (server.port(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let over = &over;
                scope.spawn(move || {
                    let (mut whole, mut n) = (0, client * 1000);
                    while !over.load(Ordering::Relaxed) {
                        n += 1;
                        let target = format!("/{}/{}", n % 37, 1000 * (n % 13) + 1);
                        let Ok(stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { continue };
                        drop(stream);
                        whole += usize::from(fetch(port, &target));
                    }
                    whole
                })
            })
            .collect();
        let end = Instant::now() + time;
        let mut turn = 0;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(60));
            turn += 1;
            let children = server.children();
            if let Some(pid) = children.get(turn * 7 % children.len().max(1)) {
                let _ = kill_process(Pid::from_raw(*pid as i32).expect("a process"), Signal::KILL);
            }
        }
        over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("no wrong byte")).sum()
    })
}

fn all_is_served(server: &mut Server) {
    server.wait(|server| server.children().len() >= 4, "all processes");
    for n in 0..37 {
        status(server, &format!("/{n}/500"));
        status(server, &format!("/{n}/500"));
    }
    server.quiet();
}

/// Whether a response came; it has the right bytes, as far as it came.
fn fetch(port: u16, target: &str) -> bool {
    let mut connection = Connection::open(port);
    if !connection.try_send(format!("GET {target} HTTP/1.0\r\n\r\n")) {
        return false;
    }
    let bytes = connection.rest();
    let text = String::from_utf8_lossy(&bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    if !head.starts_with("HTTP/1.1 200") {
        return false;
    }
    let expect = expected(target);
    assert!(expect.starts_with(body), "{target}: {} bytes", body.len());
    body.len() == expect.len()
}

/// Differs from nginx: the client gets it, and nothing is stored
#[test]
fn a_full_disk_costs_nobody_a_response() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: only root can mount a small file system");
        return;
    }
    let backend = echo();
    let text = text(&backend, "use_temp_path=off", "worker_processes 1;", "").replace("cache/files", "disk/files");
    let mut server = Setup::whole(&text).public("temp").tiny_disk("disk").start();
    for n in 0..20 {
        let target = format!("/{n}/{}", if n % 2 == 0 { 100_000 } else { 400_000 });
        status(&server, &target);
        status(&server, &target);
    }
    server.read_until("error.log", "No space left on device");
    assert_eq!(status(&server, "/0/100000"), "HIT", "what was stored before is there");
    server.quiet();
}

/// Not in nginx: `sandbox on` shuts workers in
#[test]
fn in_a_sandbox() {
    let backend = echo();
    let path = "levels=1:2 use_temp_path=off max_size=50k";
    let server = start(&text(&backend, path, "worker_processes 1; sandbox on;", "proxy_cache_revalidate on;"));
    for expect in ["MISS", "HIT", "HIT", "HIT"] {
        assert_eq!(status(&server, "/a/20000"), expect);
    }
    let log = server.read("error.log");
    assert!(!log.contains("[crit]") && !log.contains("[alert]"), "{log}");
}
