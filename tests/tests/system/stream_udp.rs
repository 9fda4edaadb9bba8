//! `stream` over UDP with programs of others, under reloads and upgrades.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use e2e::{Connection, DatagramBackend, DatagramClient, Setup, free_for_both, tool};
use rustix::process::{Pid, Signal, kill_process};

fn whole(stream: &str) -> Setup {
    Setup::whole(&format!(
        "daemon off; pid nginx.pid; worker_processes 2; error_log error.log notice;
         events {{ worker_connections 4096; %%USE%% }}
         stream {{ log_format line '$protocol $status'; access_log access.log line;
                   proxy_timeout 8s; {stream} }}"
    ))
}

/// A resolver that knows all names below `example.`: they are 192.0.2.7.
struct Resolver {
    port: u16,
    child: Child,
}

impl Resolver {
    fn start() -> Option<Resolver> {
        let program = tool(&["dnsmasq"])?;
        // Another test may take the port before dnsmasq has it.
        let resolver = (0..5).find_map(|_| Resolver::start_at_some_port(&program));
        Some(resolver.expect("the resolver answers"))
    }

    /// `None`: it doesn't answer, since the port belongs to others.
    fn start_at_some_port(program: &Path) -> Option<Resolver> {
        let (port, reserved) = free_for_both();
        drop(reserved);
        let child = Command::new(program)
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="])
            .args(["--listen-address=127.0.0.1", "--bind-interfaces", "--address=/example/192.0.2.7", "--user=root"])
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .spawn()
            .expect("dnsmasq starts");
        let mut resolver = Resolver { port, child };
        let client = DatagramClient::new(port);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) && matches!(resolver.child.try_wait(), Ok(None)) {
            let _ = client.0.send(&question(1, "a.example"));
            if client.recv_within(Duration::from_millis(50)).is_some() {
                return Some(resolver);
            }
        }
        None
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A question for the address of a name.
fn question(id: u16, name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    let labels: Vec<u8> = labels.chain([0]).collect();
    [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0], &labels, &[0, 1, 0, 1]].concat()
}

/// Whether it is the answer to that question.
fn is_answer(answer: &[u8], question: &[u8]) -> bool {
    answer.get(..2) == question.get(..2)
        && answer.get(12..question.len()) == question.get(12..)
        && answer.ends_with(&[192, 0, 2, 7])
}

#[test]
fn names_are_resolved_for_a_thousand_clients() {
    let Some(resolver) = Resolver::start() else { return };
    let port = resolver.port;
    let mut server = whole(&format!(
        "server {{ listen 127.0.0.1:%%UDP%% udp reuseport; proxy_pass 127.0.0.1:{port}; proxy_responses 1; proxy_timeout 5s; }}
         server {{ listen 127.0.0.1:%%PORT%%; proxy_pass 127.0.0.1:{port}; }}"
    ))
    .start();
    let to = server.port_of("UDP");
    let asking: Vec<JoinHandle<()>> = (0..20)
        .map(|group: u16| {
            std::thread::spawn(move || {
                let clients: Vec<DatagramClient> = (0..50).map(|_| DatagramClient::new(to)).collect();
                let questions: Vec<Vec<u8>> =
                    (0..50).map(|n| question(group * 50 + n, &format!("host-{group}-{n}.example"))).collect();
                clients.iter().zip(&questions).for_each(|(client, question)| client.send(question));
                for (client, question) in clients.iter().zip(&questions) {
                    // As stubs do: what is lost on the way is asked again.
                    let answer = (0..50).find_map(|_| {
                        let answer = client.recv_within(Duration::from_millis(300));
                        if answer.is_none() {
                            client.send(question);
                        }
                        answer
                    });
                    assert!(is_answer(&answer.expect("an answer"), question));
                }
            })
        })
        .collect();
    asking.into_iter().for_each(|group| group.join().expect("all are answered"));
    server.wait(|s| s.read("access.log").matches("UDP ").count() >= 1000, "the sessions' lines");
    let answered = server.read("access.log").matches("UDP 200\n").count();
    assert!(answered >= 900, "{answered}: what the resolver had no room for was asked again");
    // The same over a connection, each message after its length.
    let asked = question(7, "tcp.example");
    let mut connection: Connection = server.connect();
    connection.send([&(asked.len() as u16).to_be_bytes()[..], &asked].concat());
    let length = connection.take(2);
    let answer = connection.take(usize::from(u16::from_be_bytes([length[0], length[1]])));
    assert!(is_answer(&answer, &asked));
}

#[test]
fn log_lines_pass_to_a_collector() {
    let Some(logger) = tool(&["logger"]) else { return };
    let lines = Arc::new(Mutex::new(Vec::new()));
    let collected = lines.clone();
    let collector = DatagramBackend::start(move |line, _| {
        collected.lock().expect("no panic").push(String::from_utf8_lossy(line).into_owned());
        Vec::new()
    });
    let mut server = whole(&format!(
        "server {{ listen 127.0.0.1:%%UDP%% udp; proxy_pass 127.0.0.1:{}; proxy_responses 0; }}",
        collector.port
    ))
    .start();
    let port = server.port_of("UDP").to_string();
    for n in 0..50 {
        let sent = Command::new(&logger)
            .args([
                "--server",
                "127.0.0.1",
                "--port",
                &port,
                "--udp",
                "--rfc3164",
                "--tag",
                "test",
                &format!("line {n}."),
            ])
            .status();
        assert!(sent.is_ok_and(|status| status.success()));
    }
    server.wait(|_| lines.lock().expect("no panic").len() >= 50, "all lines");
    let lines = lines.lock().expect("no panic");
    let numbers: BTreeSet<&str> = lines.iter().filter_map(|line| line.rsplit_once("line ").map(|(_, n)| n)).collect();
    assert!(numbers.len() == 50 && lines.iter().all(|line| line.starts_with("<13>")), "{lines:?}");
    server.wait(|s| s.read("access.log").matches("UDP 200\n").count() == 50, "sessions without answers end at once");
}

/// Clients that ask all the time, each one datagram after the other.
struct Asking {
    over: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Asking {
    /// So many clients in each of so many threads, all with a session that [`DatagramBackend::echo`] has answered.
    fn start(port: u16, threads: usize, clients: usize) -> Asking {
        let (over, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..threads)
            .map(|_| {
                let (over, rounds) = (over.clone(), rounds.clone());
                std::thread::spawn(move || {
                    let sessions: Vec<(DatagramClient, String)> = (0..clients)
                        .map(|_| DatagramClient::new(port))
                        .map(|client| {
                            let answer = client.ask("x");
                            (client, answer)
                        })
                        .collect();
                    while !over.load(Ordering::SeqCst) {
                        rounds.fetch_add(1, Ordering::SeqCst);
                        for (client, first) in &sessions {
                            client.send("x");
                            let answer = client.recv_within(Duration::from_secs(10)).ok_or("a datagram is lost")?;
                            let answer = String::from_utf8_lossy(&answer).into_owned();
                            if answer != *first {
                                return Err(format!("another session: {answer} after {first}"));
                            }
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        Asking { over, rounds, threads }
    }

    /// Waits until all have asked again.
    fn go_on(&self) {
        let goal = self.rounds.load(Ordering::SeqCst) + 2 * self.threads.len();
        let begin = Instant::now();
        while self.rounds.load(Ordering::SeqCst) < goal && !self.threads.iter().all(JoinHandle::is_finished) {
            assert!(begin.elapsed() < Duration::from_secs(60), "they go on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn end(self) {
        self.over.store(true, Ordering::SeqCst);
        let results = self.threads.into_iter().map(|thread| thread.join().expect("no panic"));
        results.for_each(|result| result.expect("no datagram and no session is lost"));
    }
}

fn sessions(backend: &DatagramBackend, listen: &str) -> Setup {
    whole(&format!("server {{ listen 127.0.0.1:%%UDP%% udp {listen}; proxy_pass 127.0.0.1:{}; }}", backend.port))
}

/// Not in nginx: sessions over UDP move to the next workers
#[test]
fn reloads_lose_no_session() {
    for (listen, workers) in [("reuseport", 2), ("", 1)] {
        let backend = DatagramBackend::echo();
        let setup = sessions(&backend, listen);
        let mut server = setup.start();
        if workers == 1 {
            let text = server.read("nginx.conf").replace("worker_processes 2", "worker_processes 1");
            server.configure(&text);
            server.reload();
        }
        let asking = Asking::start(server.port_of("UDP"), 20, 25);
        asking.go_on();
        for _ in 0..3 {
            let begin = Instant::now();
            server.reload();
            assert!(begin.elapsed() < Duration::from_secs(5), "the old workers go: {:?}", begin.elapsed());
            asking.go_on();
        }
        asking.end();
        assert_eq!(server.read("access.log"), "", "no session has ended");
    }
}

/// Not in nginx: sessions over UDP move to the next workers
#[test]
fn fewer_workers_lose_no_datagram() {
    let backend = DatagramBackend::echo();
    let mut server = sessions(&backend, "reuseport").start();
    let asking = Asking::start(server.port_of("UDP"), 4, 20);
    let text = server.read("nginx.conf").replace("worker_processes 2", "worker_processes 1");
    server.configure(&text);
    server.reload();
    asking.go_on();
    server.reload();
    asking.go_on();
    asking.end();
}

/// Not in nginx: sessions over UDP move to the next workers
#[test]
fn more_workers_lose_no_session() {
    let backend = DatagramBackend::echo();
    let mut server = sessions(&backend, "reuseport").start();
    let asking = Asking::start(server.port_of("UDP"), 10, 20);
    asking.go_on();
    let mut before = 2;
    for workers in [3, 6, 1, 6] {
        let counts = [before, workers].map(|count| format!("worker_processes {count};"));
        let text = server.read("nginx.conf");
        assert!(text.contains(&counts[0]));
        server.configure(&text.replace(&counts[0], &counts[1]));
        server.reload();
        asking.go_on();
        before = workers;
    }
    asking.end();
    assert_eq!(server.read("access.log"), "", "no session has ended");
}

/// Not in nginx: sessions over UDP move to the next workers
#[test]
fn a_socket_that_is_gone_leaves_its_sessions_to_the_old_worker() {
    let backend = DatagramBackend::start(|asked, _| {
        if asked == b"late" {
            std::thread::sleep(Duration::from_millis(500));
        }
        vec![asked.to_vec()]
    });
    // With `reuseport`: else each of its datagrams may come to another worker.
    let mut server = whole(&format!(
        "server {{ listen 127.0.0.1:%%UDP%% udp reuseport; proxy_pass 127.0.0.1:{}; proxy_timeout 1s; }}",
        backend.port
    ))
    .start();
    let client = DatagramClient::new(server.port_of("UDP"));
    assert_eq!(client.ask("early"), "early");
    client.send("late");
    let listen = format!("listen 127.0.0.1:{} udp reuseport", server.port_of("UDP"));
    let text = server.read("nginx.conf").replace(&listen, "listen unix:%%DIR%%/other.sock udp");
    server.configure(&text);
    server.reload();
    assert_eq!(client.recv(), b"late");
    assert_eq!(server.read("access.log"), "UDP 200\n");
}

/// Not in nginx: sessions over UDP move to the next workers
#[test]
fn what_a_rate_delays_moves_too() {
    let backend = DatagramBackend::echo();
    let mut server = whole(&format!(
        "server {{ listen 127.0.0.1:%%UDP%% udp reuseport; proxy_upload_rate 1000; proxy_pass 127.0.0.1:{}; }}",
        backend.port
    ))
    .start();
    let (slow, other) = (DatagramClient::new(server.port_of("UDP")), DatagramClient::new(server.port_of("UDP")));
    let first = other.ask("x");
    let begin = Instant::now();
    (0..20).for_each(|_| slow.send([b'7'; 500]));
    let from = slow.recv().split_off(500);
    server.reload();
    assert_eq!(other.ask("x"), first, "its session goes on");
    assert!(begin.elapsed() < Duration::from_secs(6), "nobody waits for the slow one: {:?}", begin.elapsed());
    (1..20).for_each(|n| assert!(slow.recv().ends_with(&from), "datagram {n}"));
    assert!(begin.elapsed() > Duration::from_secs(8), "the rate is kept: {:?}", begin.elapsed());
}

/// Not in nginx: sessions over UDP move to the next workers
#[test]
fn what_waits_for_a_client_is_not_lost() {
    let backend = DatagramBackend::start(|asked, _| vec![asked.to_vec()]);
    let mut server = whole(&format!(
        "server {{ listen 127.0.0.1:%%UDP%% udp reuseport; proxy_download_rate 1000; proxy_pass 127.0.0.1:{}; }}",
        backend.port
    ))
    .start();
    let client = DatagramClient::new(server.port_of("UDP"));
    let begin = Instant::now();
    client.send([b'1'; 8000]);
    assert_eq!(client.recv().len(), 8000);
    // Now the client waits for seven seconds.
    client.send("2");
    server.wait(|_| backend.asked() == 2, "it is answered");
    server.reload();
    assert!(begin.elapsed() < Duration::from_secs(6), "nobody waits for it: {:?}", begin.elapsed());
    assert_eq!(client.recv(), b"2");
    assert!(begin.elapsed() >= Duration::from_secs(7), "the rate is kept: {:?}", begin.elapsed());
}

/// Not in nginx: sessions over UDP move to the next workers
#[test]
fn upgrades_lose_no_session() {
    let backend = DatagramBackend::echo();
    let mut server = sessions(&backend, "reuseport").start();
    let asking = Asking::start(server.port_of("UDP"), 10, 20);
    asking.go_on();
    let old = server.pid();
    server.signal(Signal::USR2);
    server.wait(|s| s.read("nginx.pid").trim().parse().is_ok_and(|pid: u32| pid != old), "another master");
    let new: i32 = server.read("nginx.pid").trim().parse().expect("a number");
    asking.go_on();
    server.signal(Signal::QUIT);
    server.wait_end();
    asking.go_on();
    asking.end();
    let new = Pid::from_raw(new).expect("a process");
    kill_process(new, Signal::QUIT).expect("it runs");
    let begin = Instant::now();
    while fs::exists(server.folder().path().join("nginx.pid")).expect("the folder is ours") {
        assert!(begin.elapsed() < Duration::from_secs(20), "the new master ends");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Not in nginx: reload_handover off
#[test]
fn without_hand_over_sessions_begin_anew() {
    let backend = DatagramBackend::echo();
    let mut server = sessions(&backend, "").start();
    let text = server.read("nginx.conf").replace("worker_processes 2", "reload_handover off; worker_processes 1");
    server.configure(&text.replace("proxy_timeout 8s", "proxy_timeout 1s"));
    server.reload();
    let client = DatagramClient::new(server.port_of("UDP"));
    let first = client.ask("x");
    server.reload();
    assert_ne!(client.ask("x"), first);
}
