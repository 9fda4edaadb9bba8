//! Reloads: connections that wait, and tunnels, move to the new workers.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use e2e::{Backend, Connection, Setup, echo_over_reloads, pattern};

const WHO: &str =
    "server { listen 127.0.0.1:%%PORT%%; location / { return 200 \"$connection $connection_requests\"; } }";

/// A backend that answers every request by 101, and echoes what comes then.
pub(crate) fn echo() -> Backend {
    Backend::sockets(|mut stream, requests| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => head.extend_from_slice(&byte),
                _ => return,
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        requests.lock().expect("no test thread panics here").push(e2e::Received { head, body: Vec::new() });
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nX-Of: backend\r\n\r\nhello";
        if stream.write_all(answer).is_err() {
            return;
        }
        let mut buffer = vec![0; 65536];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
    })
}

fn tunnels(backend: &Backend, more: &str) -> Setup {
    Setup::http(&format!(
        "log_format own '$connection|$connection_requests|$request|$status|$server_name|$location|$upstream_addr|'
             '$upstream_status|$upstream_http_x_of|$sent_http_x_of|$upstream_response_length|$proxy_host|$mine|$request_time';
         map $uri $location {{ default none; ~^/ws seen; }}
         access_log own.log own;
         upstream backends {{ server 127.0.0.1:{}; }}
         {more}
         server {{
             listen 127.0.0.1:%%PORT%%;
             server_name first;
             set $mine $arg_a;
             location /ws {{
                 proxy_pass http://backends;
                 proxy_http_version 1.1;
                 proxy_set_header Upgrade $http_upgrade;
                 proxy_set_header Connection upgrade;
             }}
             location / {{ return 200 \"$connection $connection_requests\"; }}
         }}",
        backend.port
    ))
}

fn upgrade(connection: &mut Connection, target: &str) {
    connection
        .send(format!("GET {target} HTTP/1.1\r\nHost: first\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"));
    let response = connection.response();
    assert_eq!(response.status, 101, "{}", response.head);
    assert_eq!(connection.take(5), b"hello");
}

/// Asks again on a connection, which must be the one that it was.
fn asks_again(connection: &mut Connection, number: &str, requests: usize) {
    let response = connection.get("/", "");
    assert_eq!(response.text(), format!("{number} {requests}"));
    assert_eq!(response.field("Connection"), Some("keep-alive"));
}

fn number(connection: &mut Connection) -> String {
    let text = connection.get("/", "").text();
    text.split(' ').next().expect("a number").to_string()
}

/// Not in nginx: both move to the new workers
#[test]
fn idle_connections_move() {
    let mut server = Setup::http(WHO).main("worker_processes 2; error_log error.log notice;").start();
    let mut connections: Vec<Connection> = (0..40).map(|_| server.connect()).collect();
    let numbers: Vec<String> = connections.iter_mut().map(number).collect();
    // One that has said nothing yet moves too.
    let mut silent = server.connect();
    for round in 0..3 {
        server.reload();
        for (connection, number) in connections.iter_mut().zip(&numbers) {
            asks_again(connection, number, round + 2);
        }
    }
    assert!(silent.get("/", "").text().ends_with(" 1"));
    let log = server.read("error.log");
    assert!(log.matches("connections handed over").count() >= 3, "{log}");
}

/// Not in nginx: both move to the new workers
#[test]
fn a_connection_moves_after_its_request() {
    let mut server = Setup::http(WHO).start();
    let mut busy = server.connect();
    let own = number(&mut busy);
    let before = server.children();
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n");
    std::thread::sleep(Duration::from_millis(100));
    server.signal(rustix::process::Signal::HUP);
    server.wait(|s| s.children().iter().any(|p| !before.contains(p)), "a new worker");
    std::thread::sleep(Duration::from_millis(300));
    assert!(server.children().iter().any(|p| before.contains(p)), "the old worker waits for the request");
    busy.send("\r\n");
    let response = busy.response();
    assert_eq!((response.text(), response.field("Connection")), (format!("{own} 2"), Some("keep-alive")));
    server.wait(|s| s.children().iter().all(|p| !before.contains(p)), "the old worker's end");
    asks_again(&mut busy, &own, 3);
}

/// Not in nginx: both move to the new workers
#[test]
fn tunnels_move() {
    let backend = echo();
    let mut server = tunnels(&backend, "").main("worker_processes 2; error_log error.log notice;").start();
    let mut connections: Vec<Connection> = (0..20).map(|_| server.connect()).collect();
    for (n, connection) in connections.iter_mut().enumerate() {
        number(connection);
        upgrade(connection, &format!("/ws/{n}?a=b{n}"));
    }
    std::thread::sleep(Duration::from_millis(100));
    for round in 0..3 {
        server.reload();
        for (n, connection) in connections.iter_mut().enumerate() {
            let text = format!("round {round} of {n}");
            connection.send(&text);
            assert_eq!(connection.take(text.len()), text.as_bytes());
        }
    }
    assert_eq!(backend.connections(), 20);
    assert!(!server.read("own.log").contains(" 101|") && !server.read("own.log").contains("|101|"), "none has ended");
    drop(connections);
    server.wait(|s| s.read("own.log").matches("|101|").count() >= 40, "a line for each");
    std::thread::sleep(Duration::from_millis(100));
    let log = server.read("own.log");
    for n in 0..20 {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(&format!("/ws/{n}?"))).collect();
        let [line] = lines[..] else { panic!("one line for each: {lines:?}") };
        let fields: Vec<&str> = line.split('|').collect();
        let length = 5 + (0..3).map(|round| format!("round {round} of {n}").len()).sum::<usize>();
        let expect = [
            "2",
            &format!("GET /ws/{n}?a=b{n} HTTP/1.1"),
            "101",
            "first",
            "seen",
            &format!("127.0.0.1:{}", backend.port),
            "101",
            "backend",
            "backend",
            &length.to_string(),
            "backends",
            &format!("b{n}"),
        ];
        assert_eq!(fields[1..13], expect, "{line}");
        assert!(fields[13].parse::<f64>().expect("a time") > 0.05, "the time goes on: {line}");
    }
}

/// Not in nginx: both move to the new workers
#[test]
fn no_byte_is_lost_or_doubled() {
    let backend = echo();
    let mut server = tunnels(&backend, "").start();
    let tunnel = |_| {
        let mut connection = server.connect();
        upgrade(&mut connection, "/ws");
        connection
    };
    let open = (0..3).map(tunnel).collect();
    echo_over_reloads(&mut server, open, 24 << 20);
}

/// Not in nginx: both move to the new workers
#[test]
fn a_listener_that_is_gone() {
    let backend = echo();
    let text = |listens: &str| {
        format!(
            "daemon off; pid nginx.pid; events {{ %%USE%% }} http {{ access_log access.log;
             client_body_temp_path cb; proxy_temp_path pt;
             server {{ {listens} location / {{ return 200 x; }}
                 location /ws {{ proxy_pass http://127.0.0.1:{}; proxy_http_version 1.1;
                     proxy_set_header Upgrade $http_upgrade; }} }} }}",
            backend.port
        )
    };
    let mut server =
        Setup::whole(&text("listen *:%%PORT%%; listen 127.0.0.1:%%PORT%%; listen 127.0.0.1:%%PORT_B%%;")).start();
    let mut kept = server.connect();
    let (mut idle, mut tunnel) =
        (Connection::open(server.port_of("PORT_B")), Connection::open(server.port_of("PORT_B")));
    assert_eq!((kept.get("/", "").text(), idle.get("/", "").text()), ("x".into(), "x".into()));
    upgrade(&mut tunnel, "/ws");
    let before = server.children();
    server.configure(&text("listen *:%%PORT%%; listen 127.0.0.1:%%PORT%%;"));
    server.signal(rustix::process::Signal::HUP);
    assert!(idle.closed());
    // Nobody else knows what the tunnel belongs to: it is served to its end where it is.
    tunnel.send("still there");
    assert_eq!(tunnel.take(11), b"still there");
    assert!(server.children().iter().any(|p| before.contains(p)));
    assert_eq!(kept.get("/", "").text(), "x");
    drop(tunnel);
    server.wait(|s| s.children().iter().all(|p| !before.contains(p)), "the old worker's end");
    assert_eq!(server.read("access.log").matches("/ws").count(), 1);
    // The connections of an address that is no longer listed are found by where they lead.
    server.configure(&text("listen *:%%PORT%%;"));
    server.reload();
    assert_eq!(kept.get("/", "").text(), "x");
}

/// Not in nginx: reload_handover off
#[test]
fn it_can_be_turned_off() {
    for directive in ["reload_handover off;", "worker_shutdown_timeout 60s;"] {
        turned_off(directive);
    }
}

fn turned_off(directive: &str) {
    let backend = echo();
    let mut server = tunnels(&backend, "").main(directive).start();
    let (mut idle, mut tunnel) = (server.connect(), server.connect());
    idle.get("/", "");
    upgrade(&mut tunnel, "/ws");
    let before = server.children();
    server.signal(rustix::process::Signal::HUP);
    assert!(idle.closed(), "as nginx does");
    server.wait(|s| s.children().len() == 2, "a new worker beside the old one");
    tunnel.send("there");
    assert_eq!(tunnel.take(5), b"there");
    assert!(server.children().iter().any(|p| before.contains(p)));
    drop(tunnel);
    server.wait(|s| s.children().iter().all(|p| !before.contains(p)), "the old worker's end");
}

/// Not in nginx: both move to the new workers
#[test]
fn tunnels_that_moved_are_still_counted() {
    still_counts("location /ws { limit_conn clients 1; BACKEND }");
}

/// Not in nginx: both move to the new workers
#[test]
fn tunnels_that_moved_are_counted_where_they_were_redirected() {
    still_counts("location /ws { limit_conn clients 1; try_files /none @ws; } location @ws { BACKEND }");
}

/// A second tunnel is refused by these locations, also after the first one has moved.
fn still_counts(locations: &str) {
    let backend = echo();
    let to_backend = format!(
        "proxy_pass http://127.0.0.1:{}; proxy_http_version 1.1;
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;",
        backend.port
    );
    let mut server = Setup::http(&format!(
        "limit_conn_zone $binary_remote_addr zone=clients:64k;
         log_format own '$status $limit_conn_status';
         access_log own.log own;
         server {{
             listen 127.0.0.1:%%PORT%%;
             {}
         }}",
        locations.replace("BACKEND", &to_backend)
    ))
    .start();
    let mut tunnel = server.connect();
    upgrade(&mut tunnel, "/ws");
    for round in 0..2 {
        let before = server.children();
        server.reload();
        server.wait(|s| s.children().iter().all(|p| !before.contains(p)), "the old worker's end");
        tunnel.send("here");
        assert_eq!(tunnel.take(4), b"here");
        assert_eq!(server.connect().get("/ws", "").status, 503, "round {round}");
    }
    drop(tunnel);
    server.read_until("own.log", "101 PASSED");
    upgrade(&mut server.connect(), "/ws");
}

/// Not in nginx: both move to the new workers
#[test]
fn old_workers_leave_at_once() {
    let backend = echo();
    let mut server =
        tunnels(&backend, "keepalive_timeout 600s;").main("worker_processes 2; error_log error.log notice;").start();
    let mut idle: Vec<Connection> = (0..300).map(|_| server.connect()).collect();
    let numbers: Vec<String> = idle.iter_mut().map(number).collect();
    let mut open: Vec<Connection> = (0..50).map(|_| server.connect()).collect();
    open.iter_mut().for_each(|connection| upgrade(connection, "/ws"));
    let before = server.children();
    server.signal(rustix::process::Signal::HUP);
    server.wait(|s| s.read("error.log").contains("gracefully shutting down"), "the old workers to leave");
    let start = Instant::now();
    server.wait(|s| s.children().iter().all(|p| !before.contains(p)), "the old workers' end");
    let took = start.elapsed();
    eprintln!("the old workers took {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    for (connection, number) in idle.iter_mut().zip(&numbers) {
        asks_again(connection, number, 2);
    }
    for connection in &mut open {
        connection.send("x");
        assert_eq!(connection.take(1), b"x");
    }
}

/// A successor with too few connections: idle ones are closed, tunnels stay where there is room for them.
/// Not in nginx: both move to the new workers
#[test]
fn a_successor_that_is_full() {
    let backend = echo();
    let text = |connections: usize| {
        format!(
            "daemon off; pid nginx.pid; error_log error.log info;
             events {{ %%USE%% worker_connections {connections}; }} http {{ access_log access.log;
             client_body_temp_path cb; proxy_temp_path pt;
             server {{ listen 127.0.0.1:%%PORT%%; location / {{ return 200 x; }}
                 location /ws {{ proxy_pass http://127.0.0.1:{}; proxy_http_version 1.1;
                     proxy_set_header Upgrade $http_upgrade; }} }} }}",
            backend.port
        )
    };
    let mut server = Setup::whole(&text(200)).start();
    let mut idle: Vec<Connection> = (0..50).map(|_| server.connect()).collect();
    let mut open: Vec<Connection> = (0..20).map(|_| server.connect()).collect();
    idle.iter_mut().for_each(|connection| drop(connection.get("/", "")));
    open.iter_mut().for_each(|connection| upgrade(connection, "/ws"));
    let before = server.children();
    server.configure(&text(20));
    server.signal(rustix::process::Signal::HUP);
    server.wait(|s| s.children().iter().any(|p| !before.contains(p)), "a new worker");
    server.wait(|s| s.read("error.log").contains("idle connection closed"), "a connection too many");
    for (n, connection) in open.iter_mut().enumerate() {
        let text = format!("tunnel {n}");
        connection.send(&text);
        assert_eq!(connection.take(text.len()), text.as_bytes());
    }
    assert!(server.children().iter().any(|p| before.contains(p)), "the old worker keeps some tunnels");
    let closed = idle.iter_mut().map(Connection::closed_soon).filter(|closed| *closed).count();
    assert!((30..=50).contains(&closed), "{closed} of 50 idle connections are closed");
    drop(open);
    server.wait(|s| s.children().iter().all(|p| !before.contains(p)), "the old worker's end");
    server.wait(|s| s.read("access.log").matches("/ws").count() == 20, "a line for each tunnel");
}

/// The new worker may open fewer files than there are connections: those that it has no room for wait, or make room, and
/// each is closed in an orderly way or goes on.
/// Not in nginx: both move to the new workers
#[test]
fn a_successor_at_its_limit_of_files() {
    let text = |files: usize| {
        format!(
            "daemon off; pid nginx.pid; error_log error.log info; worker_rlimit_nofile {files};
             events {{ %%USE%% worker_connections 200; }} http {{ access_log off; keepalive_timeout 60s;
             client_body_temp_path cb; proxy_temp_path pt; server {{ listen 127.0.0.1:%%PORT%%; return 200 x; }} }}"
        )
    };
    let mut server = Setup::whole(&text(300)).start();
    server.quiet();
    let mut idle: Vec<Connection> = (0..100).map(|_| server.connect()).collect();
    idle.iter_mut().for_each(|connection| drop(connection.get("/", "")));
    server.configure(&text(50));
    server.reload();
    server.read_until("error.log", "recvmsg() failed (24: Too many open files)");
    assert!(!server.read("error.log").contains("is lost"), "nothing vanishes");
    server.wait(|s| s.get("/").status == 200, "a new client's answer");
    let (mut answered, mut closed) = (0, 0);
    for connection in &mut idle {
        match connection.closed_soon() {
            true => closed += 1,
            false if connection.get("/", "").status == 200 => answered += 1,
            false => {}
        }
    }
    assert!(answered + closed == 100 && answered > 10, "{answered} are answered, {closed} closed");
}

/// The worker is shut in (`sandbox on`), and more is under way than fits into a message.
/// Not in nginx: `sandbox on` shuts workers in
#[test]
fn much_is_under_way() {
    // It answers what comes, but only later.
    let backend = Backend::sockets(|mut stream, _| {
        let mut buffer = vec![0; 65536];
        let _ = stream.read(&mut buffer);
        let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nhello");
        std::thread::sleep(Duration::from_millis(1500));
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
    });
    let mut server = tunnels(&backend, "proxy_socket_sndbuf 4k;").main("sandbox on;").start();
    let mut connection = server.connect();
    upgrade(&mut connection, "/ws");
    let mut writer = connection.stream().try_clone().expect("a socket can be copied");
    const SIZE: usize = 8 << 20;
    let writing = std::thread::spawn(move || writer.write_all(&pattern(0, SIZE)).expect("the tunnel stands"));
    std::thread::sleep(Duration::from_millis(300));
    server.reload();
    server.reload();
    assert!(connection.take(SIZE) == pattern(0, SIZE));
    writing.join().expect("all is written");
}

#[test]
fn a_stop_closes_as_ever() {
    let server = Setup::http(WHO).start();
    let mut idle = server.connect();
    idle.get("/", "");
    let stopping = std::thread::spawn(move || server.stop());
    assert!(idle.closed());
    assert!(stopping.join().expect("it stops cleanly").success());
}

/// Not in nginx: both move to the new workers
#[test]
fn facts_of_the_proxy_protocol_move() {
    let mut server = Setup::http(
        "server { listen 127.0.0.1:%%PORT_P%% proxy_protocol; listen 127.0.0.1:%%PORT%%;
         location / { return 200 \"$proxy_protocol_addr:$proxy_protocol_port\"; } }",
    )
    .start();
    let mut told = Connection::open(server.port_of("PORT_P"));
    told.send("PROXY TCP4 192.0.2.1 192.0.2.2 1001 80\r\n");
    assert_eq!(told.get("/", "").text(), "192.0.2.1:1001");
    let mut silent = Connection::open(server.port_of("PORT_P"));
    std::thread::sleep(Duration::from_millis(50));
    server.reload();
    assert_eq!(told.get("/", "").text(), "192.0.2.1:1001");
    silent.send("PROXY TCP4 192.0.2.3 192.0.2.2 1003 80\r\n");
    assert_eq!(silent.get("/", "").text(), "192.0.2.3:1003");
}

#[test]
fn timeouts_go_on() {
    let backend = echo();
    let mut server = tunnels(&backend, "keepalive_timeout 1500ms; proxy_read_timeout 1500ms;").start();
    let (mut idle, mut tunnel) = (server.connect(), server.connect());
    upgrade(&mut tunnel, "/ws");
    idle.get("/", "");
    let start = Instant::now();
    std::thread::sleep(Duration::from_millis(700));
    server.reload();
    assert!(tunnel.closed() && idle.closed());
    let took = start.elapsed();
    assert!((Duration::from_millis(1300)..Duration::from_millis(5000)).contains(&took), "{took:?}");
}
