//! Workers that stop and are replaced while they serve, and one process alone.

use std::time::Duration;

use e2e::{Backend, Setup};

#[test]
fn quit_finishes_what_runs() {
    let backend = Backend::start(|_| {
        std::thread::sleep(Duration::from_millis(800));
        Backend::ok("late")
    });
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; location / {{ proxy_pass http://127.0.0.1:{}; }} }}",
        backend.port
    ))
    .start();
    let mut idle = server.connect();
    assert_eq!(idle.get("/", "").text(), "late");
    let mut busy = server.connect();
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(200));
    let stopping = std::thread::spawn(move || server.stop());
    assert!(idle.closed());
    let late = busy.response();
    assert_eq!((late.text().as_str(), late.field("Connection")), ("late", Some("close")));
    assert!(stopping.join().expect("it stops cleanly").success());
}

#[test]
fn reload_loses_no_request() {
    let mut server =
        Setup::http("server { listen 127.0.0.1:%%PORT%%; return 200 x; }").main("worker_processes 2;").start();
    let port = server.port();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                (0..300).filter(|_| e2e::Connection::open(port).get("/", "Connection: close\r\n").text() == "x").count()
            })
        })
        .collect();
    for _ in 0..5 {
        server.reload();
    }
    let good: usize = clients.into_iter().map(|c| c.join().expect("no client fails")).sum();
    assert_eq!(good, 1200);
}

#[test]
fn single_process() {
    let server =
        Setup::http("server { listen 127.0.0.1:%%PORT%%; return 200 alone; }").main("master_process off;").start();
    assert_eq!(server.get("/").text(), "alone");
    assert!(server.children().is_empty());
}
