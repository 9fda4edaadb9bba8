//! Zones of shared memory: limits and upstreams over several workers, reloads, and workers that are killed.

use std::fs;

use e2e::{Backend, Server, Setup};
use rustix::process::{Pid, Signal, kill_process};

fn statuses(server: &Server, target: &str, count: usize) -> Vec<u16> {
    (0..count).map(|_| server.get(target).status).collect()
}

fn how_many(all: &[u16], status: u16) -> usize {
    all.iter().filter(|other| **other == status).count()
}

fn whole(http: &str) -> String {
    format!(
        "daemon off; pid nginx.pid; error_log error.log; worker_processes 3; events {{ %%USE%% }}
         http {{ access_log off; client_body_temp_path cb; proxy_temp_path pt; {http} }}"
    )
}

fn limited(key: &str, more: &str) -> String {
    whole(&format!(
        "limit_req_zone {key} zone=one:64k rate=1r/m; {more}
         server {{ listen 127.0.0.1:%%PORT%%; location / {{ limit_req zone=one burst=4 nodelay; return 200 one; }}
         location /limited {{ limit_req zone=one burst=4 nodelay; root .; }} }}"
    ))
}

fn start(text: &str) -> Server {
    let mut server = Setup::whole(text).file("limited", "x").prepare();
    server.configure(text);
    server.launch();
    server.wait(|s| s.children().len() == 3, "the workers");
    server
}

#[test]
fn a_limit_is_one_for_all_workers_and_over_reloads() {
    let mut server = start(&limited("$arg_a", ""));
    assert_eq!(how_many(&statuses(&server, "/limited?a=1", 20), 200), 5);
    server.reload();
    assert_eq!(how_many(&statuses(&server, "/limited?a=1", 5), 200), 0, "what was counted counts on");
    assert_eq!(how_many(&statuses(&server, "/limited?a=2", 5), 200), 5);
    let log = server.read("error.log");
    assert!(
        log.contains("limiting requests, excess: ") && log.contains(" by zone \"one\", client: 127.0.0.1"),
        "{log}"
    );
    server.quiet();
}

#[test]
fn another_key_for_a_zone_is_refused() {
    let mut server = start(&limited("$arg_a", ""));
    server.configure(&limited("$arg_b", ""));
    server.signal(Signal::HUP);
    let text = "limit_req \"one\" uses the \"$arg_b\" key while previously it used the \"$arg_a\" key";
    server.read_until("error.log", text);
    assert_eq!(statuses(&server, "/limited?a=1", 1), [200]);
    server.quiet();
}

#[test]
fn killed_workers_leave_the_zone_usable() {
    let mut server = start(&limited("$arg_a", ""));
    for round in 0..10 {
        let port = server.port();
        let busy: Vec<_> = (0..3)
            .map(|n| {
                std::thread::spawn(move || {
                    for request in 0..30 {
                        let mut connection = e2e::Connection::open(port);
                        let target = format!("/limited?a=x{round}-{n}-{}", request % 7);
                        connection.try_send(format!("GET {target} HTTP/1.0\r\n\r\n"));
                        connection.try_response(false);
                    }
                })
            })
            .collect();
        let victims = server.children();
        let victim = victims.get(round % victims.len().max(1)).copied().expect("there are workers");
        kill_process(Pid::from_raw(victim as i32).expect("a pid"), Signal::KILL).expect("it runs");
        server.wait(|s| s.children().len() == 3 && !s.children().contains(&victim), "a new worker");
        for busy in busy {
            // A request of the killed worker fails; the thread may not like that.
            let _ = busy.join();
        }
    }
    assert_eq!(how_many(&statuses(&server, "/limited?a=last", 8), 200), 5);
    server.quiet();
}

/// Differs from nginx: what a killed worker had counted
#[test]
fn what_a_killed_worker_counted_is_taken_back() {
    let backend = Backend::start(|_| {
        std::thread::sleep(std::time::Duration::from_secs(60));
        Backend::ok("late")
    });
    let mut server = start(&whole(&format!(
        "limit_conn_zone $arg_a zone=one:64k; limit_conn one 1;
         server {{ listen 127.0.0.1:%%PORT%%; location / {{ root .; }} location /status {{ stub_status; }}
         location /slow {{ proxy_pass http://127.0.0.1:{}; }} }}",
        backend.port
    )));
    let figures = |server: &Server| {
        let page = server.get("/status").text();
        let active = page.lines().next().unwrap_or_default().to_string();
        let accepted = page.lines().nth(2).and_then(|counts| counts.split_whitespace().next()?.parse::<u64>().ok());
        (active, accepted.expect("a number"))
    };
    let mut busy = server.connect();
    busy.send("GET /slow?a=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    // Once the backend has it: before that the place could be taken by who asks whether it is taken.
    server.wait(|_| backend.connections() == 1, "the request that takes the place");
    assert_eq!(server.get("/limited?a=1").status, 503);
    server.wait(|s| figures(s).0 == "Active connections: 2 ", "the one that waits, and this");
    let accepted = figures(&server).1;
    let victims = server.children();
    for victim in &victims {
        kill_process(Pid::from_raw(*victim as i32).expect("a pid"), Signal::KILL).expect("it runs");
    }
    assert!(busy.closed());
    server.wait(|s| s.children().len() == 3 && !s.children().iter().any(|pid| victims.contains(pid)), "new workers");
    for _ in 0..3 {
        // A client may be back before the worker that answered it has taken its connection off the count.
        server.wait(|s| s.get("/limited?a=1").status == 200, "the count of who was killed is gone");
    }
    server.wait(|s| figures(s).0 == "Active connections: 1 ", "so are its connections");
    assert!(figures(&server).1 > accepted, "what was accepted was");
    server.quiet();
}

/// Differs from nginx: `zone` in `upstream` starts anew
#[test]
fn workers_share_what_they_know_of_servers() {
    let backend = Backend::start(|_| Backend::ok("good"));
    let (dead, _kept) = e2e::free_port();
    let text = whole(&format!(
        "upstream u {{ zone u 64k; server 127.0.0.1:{dead} fail_timeout=1h; server 127.0.0.1:{}; }}
         server {{ listen 127.0.0.1:%%PORT%%; add_header X-Addr $upstream_addr; location / {{ proxy_pass http://u; }} }}",
        backend.port
    ));
    let mut server = start(&text);
    let retried = |server: &Server| {
        let retried = |_| server.get("/").field("X-Addr").is_some_and(|addr| addr.contains(','));
        (0..20).map(retried).filter(|retried| *retried).count()
    };
    assert_eq!(retried(&server), 1, "one failure, and all workers know");
    server.reload();
    assert_eq!(retried(&server), 0, "the next ones too");
    server.quiet();
}

#[test]
fn mappings_go_with_their_zones() {
    let zones = |number: usize| limited("$arg_a", &format!("limit_conn_zone $arg_b zone=two{number}:1m;"));
    let mut server = start(&zones(0));
    let mappings = |server: &Server| {
        let maps = fs::read_to_string(format!("/proc/{}/maps", server.pid())).expect("the master's maps");
        maps.lines().filter(|line| line.contains("/dev/zero") || line.contains("/memfd:zone")).count()
    };
    let before = mappings(&server);
    for number in 1..=8 {
        server.configure(&zones(number));
        server.reload();
    }
    assert_eq!(mappings(&server), before);
}
