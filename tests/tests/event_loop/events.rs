//! What workers do by the `events` block: timers, who accepts, whose turn it is.

use std::time::Duration;

use e2e::{Backend, Connection, Setup};
use rustix::process::Signal;

#[test]
fn timer_resolution() {
    let server = Setup::http("server { listen 127.0.0.1:%%PORT%%; client_header_timeout 200ms; return 200 x; }")
        .main("timer_resolution 100ms;")
        .start();
    let start = std::time::Instant::now();
    assert!(server.connect().closed());
    assert!((150..2000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert_eq!(server.get("/").text(), "x");
}

#[test]
fn who_closes_its_side_is_answered() {
    let server = Setup::http("server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; location /text { return 200 x; } }")
        .file("file", vec![b'f'; 20_000])
        .start();
    for (target, len) in [("/text", 1), ("/file", 20_000)] {
        for _ in 0..20 {
            let mut c = server.connect();
            c.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            c.end();
            assert_eq!(c.response().body.len(), len, "{target}");
        }
    }
}

/// Differs from nginx: `worker_shutdown_timeout` closes what is left without a word
#[test]
fn worker_shutdown_timeout() {
    let slow = Backend::sockets(|_, _| std::thread::sleep(Duration::from_secs(5)));
    let mut server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%;
            location / {{ proxy_pass http://127.0.0.1:{}; }} }}",
        slow.port
    ))
    .main("error_log error.log notice; worker_shutdown_timeout 300ms;")
    .start();
    let mut client = server.connect();
    client.send("GET /cut-off HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(200));
    let start = std::time::Instant::now();
    server.signal(Signal::QUIT);
    assert!(client.closed());
    assert!((250..3000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    server.read_until("access.log", "GET /cut-off HTTP/1.1");
    server.read_until("error.log", "worker_shutdown_timeout");
    server.quiet();
}

/// Several workers share a listening socket: all requests are answered, whatever decides who accepts.
#[test]
fn workers_share_what_comes() {
    for how in
        ["", "accept_mutex on; accept_mutex_delay 20ms;", "multi_accept on;", "accept_mutex on; multi_accept on;"]
    {
        let mut server = Setup::whole(&format!(
            "daemon off; pid nginx.pid; worker_processes 3; events {{ worker_connections 128; {how} %%USE%% }}
             http {{ access_log off; client_body_temp_path cb; proxy_temp_path pt;
                server {{ listen 127.0.0.1:%%PORT%%; return 200 $pid; }} }}"
        ))
        .start();
        let mut all: Vec<Connection> = (0..60).map(|_| server.connect()).collect();
        let answered: std::collections::BTreeSet<String> = all.iter_mut().map(|c| c.get("/", "").text()).collect();
        assert!(!answered.is_empty(), "{how}");
        server.quiet();
    }
}

/// A worker with fewer than an eighth of its connections free leaves the accepting to others, so none runs out while
/// another has room.
/// Differs from nginx: a worker with few connections left passes its turn
#[test]
fn a_full_worker_steps_back() {
    let mut server = Setup::whole(
        "daemon off; pid nginx.pid; worker_processes 2;
         events { worker_connections 40; accept_mutex on; accept_mutex_delay 10ms; %%USE%% }
         http { access_log off; client_body_temp_path cb; proxy_temp_path pt;
            server { listen 127.0.0.1:%%PORT%%; location / { return 200 $pid; } } }",
    )
    .start();
    // Half a request each: none of them is idle.
    let half = |_| {
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n");
        client
    };
    let mut busy: Vec<Connection> = (0..50).map(half).collect();
    std::thread::sleep(Duration::from_millis(300));
    let mut by_worker = std::collections::BTreeMap::<String, usize>::new();
    for c in &mut busy {
        *by_worker.entry(c.send("\r\n").response().text()).or_default() += 1;
    }
    assert!(by_worker.len() == 2 && by_worker.values().all(|n| *n >= 10), "{by_worker:?}");
    assert!(!server.read("error.log").contains("worker_connections are not enough"));
    server.quiet();
}

#[test]
fn the_method_is_the_one_that_was_asked_for() {
    let mut server = Setup::http("server { listen 127.0.0.1:%%PORT%%; }").main("error_log error.log notice;").start();
    let method = std::env::var("TIDEGATE_USE").unwrap_or_else(|_| "epoll".to_string());
    server.read_until("error.log", &format!("using the \"{method}\" event method"));
}
