//! `stream` over UDP: which datagrams make a session, where they go, and how sessions end.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::{DatagramBackend, DatagramClient, Server, Setup};
use rustix::process::Signal;

/// How long is waited for what must not come.
const SILENCE: Duration = Duration::from_millis(200);

fn whole(stream: &str) -> Setup {
    with_connections(512, stream)
}

fn with_connections(count: usize, stream: &str) -> Setup {
    Setup::whole(&format!(
        "daemon off; pid nginx.pid; worker_processes 1; error_log error.log info;
         events {{ worker_connections {count}; %%USE%% }}
         stream {{
             log_format line '$server_port $protocol $status $bytes_received $bytes_sent $upstream_addr \
                 $upstream_bytes_sent $upstream_bytes_received';
             access_log access.log line;
             proxy_timeout 1s;
             {stream}
         }}"
    ))
}

fn proxy(backend: &DatagramBackend, more: &str) -> Setup {
    whole(&format!("server {{ listen 127.0.0.1:%%UDP%% udp; proxy_pass 127.0.0.1:{}; {more} }}", backend.port))
}

fn client(server: &Server) -> DatagramClient {
    DatagramClient::new(server.port_of("UDP"))
}

/// The port in an answer of [`DatagramBackend::echo`].
fn from(answer: &str) -> u16 {
    let (_, port) = answer.rsplit_once(" from ").unwrap_or_else(|| panic!("an echo: {answer}"));
    port.parse().expect("a port")
}

#[test]
fn a_session_is_one_clients_and_keeps_its_backends_socket() {
    let backend = DatagramBackend::echo();
    let server = proxy(&backend, "").start();
    let (one, other) = (client(&server), client(&server));
    let first = one.ask("a");
    assert!(first.starts_with("a from "));
    assert_eq!(from(&one.ask("b")), from(&first));
    assert_ne!(from(&other.ask("c")), from(&first));
    assert_eq!(from(&one.ask("d")), from(&first));
}

#[test]
fn datagrams_pass_whole() {
    pass_whole(&[0, 1, 512, 1472, 1473, 9000]);
}

/// Differs from nginx: datagrams of any length pass whole
#[test]
fn long_datagrams_pass_whole() {
    pass_whole(&[20_000, 60_000, 65_000]);
}

fn pass_whole(lengths: &[usize]) {
    let backend = DatagramBackend::start(|asked, _| vec![asked.to_vec()]);
    let server = proxy(&backend, "").start();
    let client = client(&server);
    for &length in lengths {
        let bytes: Vec<u8> = (0..length).map(|n| (n * 7 % 251) as u8).collect();
        client.send(&bytes);
        assert!(client.recv() == bytes, "{length} bytes");
    }
}

#[test]
fn the_expected_answers_end_a_session() {
    let backend = DatagramBackend::echo();
    let mut server = proxy(&backend, "proxy_responses 1;").start();
    let client = client(&server);
    assert_ne!(from(&client.ask("one")), from(&client.ask("two")));
    let line = format!("UDP 200 3 {} 127.0.0.1:{} 3", "one from 12345".len(), backend.port);
    let log = server.read_until("access.log", "\n");
    assert!(log.contains(&line), "{log}");
    let log = server.read_until("error.log", "udp done");
    assert!(
        log.contains("udp done, packets from/to client:1/1, bytes from/to client:3/14, bytes from/to upstream:14/3")
    );
    assert!(log.contains(&format!("udp client 127.0.0.1:{} connected to 127.0.0.1:", client.port())), "{log}");
}

#[test]
fn requests_are_counted_and_the_next_one_begins_a_session() {
    let backend = DatagramBackend::echo();
    let server = proxy(&backend, "proxy_requests 2;").start();
    let client = client(&server);
    // All at once: some of them come before their session has its backend.
    (0..6).for_each(|n| client.send(format!("{n}")));
    let mut ports: Vec<(u16, u16)> = Vec::new();
    for _ in 0..6 {
        let answer = String::from_utf8(client.recv()).expect("text");
        let (number, port) = answer.split_once(" from ").expect("an echo");
        ports.push((number.parse().expect("a number"), port.parse().expect("a port")));
    }
    ports.sort_unstable();
    let ports: Vec<u16> = ports.into_iter().map(|(_, port)| port).collect();
    assert!(ports[0] == ports[1] && ports[2] == ports[3] && ports[4] == ports[5], "{ports:?}");
    assert!(ports[0] != ports[2] && ports[2] != ports[4] && ports[0] != ports[4], "{ports:?}");
}

/// Many come in one call, and each must have its answer and its line in the log all the same.
#[test]
fn each_datagram_of_a_burst_is_a_session_if_no_backend_is_asked() {
    let mut server = whole(
        "server { listen 127.0.0.1:%%UDP%% udp; return \"$bytes_received\"; }
         server { listen 127.0.0.1:%%UDP_denied%% udp; deny all; return x; }",
    )
    .start();
    let lengths = 1..=10;
    let (client, denied) = (client(&server), DatagramClient::new(server.port_of("UDP_denied")));
    for length in lengths.clone() {
        client.send(vec![7; length]);
        denied.send(vec![7; length]);
    }
    for length in lengths.clone() {
        assert_eq!(String::from_utf8(client.recv()).expect("text"), length.to_string());
    }
    for length in lengths {
        server.read_until("access.log", &format!(" UDP 200 {length} "));
        server.read_until("access.log", &format!(" UDP 403 {length} 0 "));
    }
    assert_eq!(server.read("access.log").lines().count(), 20);
}

#[test]
fn a_session_ends_by_time() {
    let silent = DatagramBackend::start(|_, _| Vec::new());
    let setup = whole(&format!(
        "server {{ listen 127.0.0.1:%%UDP%% udp; proxy_pass 127.0.0.1:{port}; proxy_responses 1; }}
         server {{ listen 127.0.0.1:%%UDP_any%% udp; proxy_pass 127.0.0.1:{port}; }}",
        port = silent.port
    ));
    let mut server = setup.start();
    client(&server).send("x");
    DatagramClient::new(server.port_of("UDP_any")).send("xy");
    let log = server.read_until("access.log", " UDP 502 ");
    assert!(log.contains(" UDP 502 1 0 "), "an answer was owed: {log}");
    server.read_until("access.log", " UDP 200 2 0 ");
    let log = server.read_until("error.log", "udp timed out, packets from/to client:1/0");
    assert!(
        log.contains("upstream timed out (110: Connection timed out) while proxying connection, udp client: 127.0.0.1")
    );
}

/// Differs from nginx: a session over UDP ends when its backend refuses
#[test]
fn a_backend_that_vanishes_is_left() {
    let (gone, stays) = (DatagramBackend::echo(), DatagramBackend::echo());
    let mut server = whole(&format!(
        "upstream u {{ server 127.0.0.1:{}; server 127.0.0.1:{} backup; }}
         server {{ listen 127.0.0.1:%%UDP%% udp; proxy_pass u; proxy_timeout 6s; }}",
        gone.port, stays.port
    ))
    .start();
    let client = client(&server);
    client.ask("there");
    assert_eq!((gone.asked(), stays.asked()), (1, 0));
    gone.end();
    let begin = Instant::now();
    client.send("lost");
    server.read_until("error.log", "recv() failed (111: Connection refused) while proxying and reading from upstream");
    server.read_until("access.log", " UDP 200 ");
    assert!(client.ask("again").starts_with("again from "));
    assert!(stays.asked() == 1 && begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    server.read_until(
        "error.log",
        "upstream server temporarily disabled while proxying connection, udp client: 127.0.0.1",
    );
}

/// Not in nginx: `proxy_protocol_datagrams each`
#[test]
fn what_is_too_long_with_its_header_is_lost() {
    let backend = DatagramBackend::start(|_, from| vec![from.to_string().into_bytes()]);
    let mut server = proxy(&backend, "proxy_protocol v2; proxy_protocol_datagrams each; proxy_timeout 3s;").start();
    let client = client(&server);
    let first = client.ask("short");
    // With a header it is longer than datagrams may be.
    client.send(vec![7; 65_507]);
    server.read_until("error.log", "send() failed (90: Message too long) while proxying and sending to upstream");
    assert_eq!(client.ask("short"), first, "the session goes on");
}

/// Differs from nginx: a datagram that is too long for the way to its backend is lost
#[test]
fn what_is_too_long_for_its_backend_does_not_make_it_a_failed_one() {
    let (first, backup) = (DatagramBackend::echo(), DatagramBackend::echo());
    let mut server = whole(&format!(
        "upstream u {{ server 127.0.0.1:{}; server 127.0.0.1:{} backup; }}
         server {{ listen [::1]:%%UDP%% udp; proxy_pass u; }}
         server {{ listen [::1]:%%UDP_answered%% udp; proxy_pass u; proxy_responses 1; }}",
        first.port, backup.port
    ))
    .start();
    // IPv6 takes twenty bytes more than IPv4.
    let long = vec![7; 65_520];
    for name in ["UDP", "UDP_answered"] {
        let client = DatagramClient::to(format!("[::1]:{}", server.port_of(name)).parse().expect("an address"));
        client.send(&long);
        let message = "send() failed (90: Message too long) while proxying and sending to upstream";
        let log = server.read_until("error.log", message);
        assert!(log.lines().any(|line| line.contains("[info]") && line.contains(message)), "{log}");
        assert!(client.ask("a").starts_with("a from "));
        client.send(&long);
        assert!(client.ask("b").starts_with("b from "));
    }
    assert_eq!((first.asked(), backup.asked()), (4, 0));
    server.read_until("access.log", " UDP 200 131042 ");
    assert!(server.read_until("access.log", " UDP 200 65520 0 ").matches(" 502 ").count() == 0, "nothing was owed");
    assert!(!server.read("error.log").contains("temporarily disabled"));
}

#[test]
fn the_address_that_was_asked_answers() {
    let server =
        whole("server { listen %%UDP%% udp; return \"$remote_addr $server_addr:$server_port $protocol\"; }").start();
    let port = server.port_of("UDP");
    for ip in [[127, 0, 0, 1], [127, 0, 0, 2], [127, 9, 8, 7]] {
        let client = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("a time");
        client.send_to(b"x", (Ipv4Addr::from(ip), port)).expect("sent");
        let mut bytes = [0; 100];
        let (length, from) = client.recv_from(&mut bytes).expect("an answer");
        assert_eq!(from, SocketAddr::from((ip, port)));
        let expect = format!("127.0.0.1 {}:{port} UDP", Ipv4Addr::from(ip));
        assert_eq!(String::from_utf8_lossy(&bytes[..length]), expect);
    }
}

#[test]
fn addresses_of_version_6() {
    let backend = DatagramBackend::at(UdpSocket::bind("[::1]:0").expect("a port is free"), |asked, from| {
        assert!(from.is_ipv6());
        vec![asked.to_vec()]
    });
    let server = whole(&format!(
        "server {{ listen [::1]:%%UDP%% udp; proxy_pass [::1]:{}; }}
         server {{ listen [::]:%%UDP_any%% udp; return $server_addr; }}",
        backend.port
    ))
    .start();
    let to = |name: &str| DatagramClient::to(format!("[::1]:{}", server.port_of(name)).parse().expect("an address"));
    assert_eq!(to("UDP").ask("six"), "six");
    assert_eq!(to("UDP_any").ask(""), "::1");
}

#[test]
fn checks_refuse_without_an_answer() {
    let backend = DatagramBackend::echo();
    let mut server = whole(&format!(
        "limit_conn_zone $binary_remote_addr zone=z:1m;
         server {{ listen 127.0.0.1:%%UDP%% udp; deny all; proxy_pass 127.0.0.1:{port}; }}
         server {{ listen 127.0.0.1:%%UDP_limit%% udp; limit_conn z 1; proxy_pass 127.0.0.1:{port}; }}",
        port = backend.port
    ))
    .start();
    let denied = client(&server);
    denied.send("x");
    server.read_until("access.log", " UDP 403 1 0 ");
    let log = server.read("error.log");
    assert!(
        log.contains("access forbidden by rule while initializing session, udp client: 127.0.0.1, server: 127.0.0.1:")
    );
    let limited = |bytes: &str| {
        let client = DatagramClient::new(server.port_of("UDP_limit"));
        client.send(bytes);
        client
    };
    let first = limited("1");
    first.recv();
    let second = limited("2");
    server.read_until("access.log", " UDP 503 1 0 ");
    assert_eq!((first.recv_within(SILENCE), second.recv_within(SILENCE), backend.asked()), (None, None, 1));
    assert!(first.ask("3").starts_with("3 from "), "its session goes on");
}

#[test]
fn a_shutdown_ends_sessions_and_logs_them() {
    let silent = DatagramBackend::start(|_, _| Vec::new());
    let text = format!(
        "daemon off; pid nginx.pid; worker_processes 1; worker_shutdown_timeout 200ms; events {{ %%USE%% }}
         stream {{ log_format line $status; access_log access.log line;
             server {{ listen 127.0.0.1:%%UDP%% udp; proxy_pass 127.0.0.1:{}; }} }}",
        silent.port
    );
    let mut server = Setup::whole(&text).start();
    client(&server).send("x");
    server.wait(|_| silent.asked() == 1, "the datagram");
    server.signal(Signal::QUIT);
    assert!(server.wait_end().success());
    assert_eq!(server.read("access.log"), "200\n");
}

#[test]
fn a_shutdown_ends_sessions_that_a_rate_holds_back() {
    let backend = DatagramBackend::start(|asked, _| vec![asked.to_vec(); 3]);
    let text = format!(
        "daemon off; pid nginx.pid; worker_processes 1; worker_shutdown_timeout 200ms; events {{ %%USE%% }}
         stream {{ log_format line $status; access_log access.log line;
             server {{ listen 127.0.0.1:%%UDP%% udp; proxy_pass 127.0.0.1:{}; proxy_download_rate 10; }} }}",
        backend.port
    );
    let mut server = Setup::whole(&text).start();
    let client = client(&server);
    // The next one would pass 99 seconds later.
    client.send([7; 1000]);
    client.recv();
    server.signal(Signal::QUIT);
    assert!(server.wait_end().success());
    assert_eq!(server.read("access.log"), "200\n");
}

/// Not in nginx: sessions over UDP move to the next workers
#[test]
fn a_shutdown_ends_sessions_that_moved_too() {
    let silent = DatagramBackend::start(|_, _| Vec::new());
    let text = format!(
        "daemon off; pid nginx.pid; worker_processes 1; worker_shutdown_timeout 2s; reload_handover on;
         error_log error.log info; events {{ %%USE%% }}
         stream {{ log_format line '$status $pid'; access_log access.log line;
             server {{ listen 127.0.0.1:%%UDP%% udp; proxy_pass 127.0.0.1:{}; }} }}",
        silent.port
    );
    let mut server = Setup::whole(&text).start();
    client(&server).send("x");
    server.wait(|_| silent.asked() == 1, "the datagram");
    let before = server.children();
    server.reload();
    server.wait(|s| s.children().iter().all(|p| !before.contains(p)), "the old worker's end");
    assert_eq!(server.read("access.log"), "", "the session goes on");
    let worker = server.children()[0];
    server.signal(Signal::QUIT);
    assert!(server.wait_end().success());
    assert_eq!(server.read("access.log"), format!("200 {worker}\n"));
}

#[test]
fn rates_delay() {
    let backend = DatagramBackend::start(|asked, _| vec![asked.to_vec(); 2]);
    let server = proxy(&backend, "proxy_download_rate 1000;").start();
    let client = client(&server);
    let begin = Instant::now();
    client.send([7; 1000]);
    client.recv();
    assert!(begin.elapsed() < Duration::from_millis(900), "what passes in a second passes at once");
    client.recv();
    client.send([7; 100]);
    client.recv();
    assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());
}

/// What waits because of the rate hasn't been asked yet; what has been asked is owed all the same.
/// Differs from nginx: datagrams that `proxy_upload_rate` delays are sent later
#[test]
fn backends_owe_nothing_for_what_is_held_back() {
    let backend = DatagramBackend::start(|asked, _| {
        // An answer would end the session if the client's next datagram weren't there yet.
        std::thread::sleep(Duration::from_millis(50));
        vec![asked.to_vec()]
    });
    let silent = DatagramBackend::start(|_, _| Vec::new());
    let more = "proxy_upload_rate 1000; proxy_timeout 300ms; proxy_responses 1";
    let mut server = whole(&format!(
        "upstream u {{ server 127.0.0.1:{}; server 127.0.0.1:1 backup; }}
         server {{ listen 127.0.0.1:%%UDP%% udp; proxy_pass u; {more}; }}
         server {{ listen 127.0.0.1:%%UDP_silent%% udp; proxy_pass 127.0.0.1:{}; {more}; }}",
        backend.port, silent.port
    ))
    .start();
    let (client, unanswered) = (client(&server), DatagramClient::new(server.port_of("UDP_silent")));
    for client in [&client, &unanswered] {
        // The next one passes 0.8 seconds later.
        client.send([7; 1800]);
        client.send("next");
    }
    client.recv();
    assert_eq!(client.recv(), b"next");
    server.read_until("access.log", " UDP 200 1804 ");
    let log = server.read_until("access.log", " UDP 502 1804 0 ");
    assert_eq!((log.lines().count(), silent.asked()), (2, 1), "{log}");
}

#[test]
fn datagrams_cannot_be_passed_to_another_socket() {
    let mut server = whole(
        "server { listen 127.0.0.1:%%UDP%% udp; pass 127.0.0.1:%%UDP_other%%; }
         server { listen 127.0.0.1:%%UDP_other%% udp; return x; }",
    )
    .start();
    client(&server).send("x");
    server.read_until("access.log", " UDP 500 1 0 ");
    server
        .read_until("error.log", "cannot pass udp connection while passing connection to port, udp client: 127.0.0.1");
}

#[test]
fn parameters_of_connections_are_refused() {
    for parameter in ["ssl", "backlog=5", "so_keepalive=on", "fastopen=3", "deferred"] {
        let server = whole(&format!("server {{ listen 127.0.0.1:%%UDP%% udp {parameter}; return x; }}")).prepare();
        let out = server.command(&["-t"]);
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        let name = parameter.split('=').next().expect("a name");
        let expect = format!("\"listen\" directive \"{name}\" parameter is incompatible with \"udp\"");
        assert!(!out.status.success() && text.contains(&expect), "{text}");
    }
}

/// Differs from nginx: a flood of datagrams leaves some connections to others
#[test]
fn a_flood_is_bounded_and_locks_nobody_out() {
    let floods = Arc::new(AtomicUsize::new(0));
    let count = floods.clone();
    let backend = DatagramBackend::start(move |asked, _| match asked {
        b"flood" => {
            count.fetch_add(1, Ordering::SeqCst);
            Vec::new()
        }
        asked => vec![asked.to_vec()],
    });
    // Longer than the flood lasts on a busy machine: its sessions make room for no other ones meanwhile.
    let stream = format!(
        "server {{ listen 127.0.0.1:%%UDP%% udp; proxy_timeout 4s; proxy_pass 127.0.0.1:{}; }}
         server {{ listen 127.0.0.1:%%PORT%%; return here; }}",
        backend.port
    );
    let mut server = with_connections(64, &stream).start();
    server.quiet();
    let early = client(&server);
    assert_eq!(early.ask("early"), "early");
    let flood: Vec<DatagramClient> = (0..400).map(|_| client(&server)).collect();
    flood.iter().for_each(|client| client.send("flood"));
    let log = server.read_until("error.log", "datagrams dropped");
    assert!(
        log.contains("[alert]") && log.contains("64 worker_connections are not enough for more sessions on"),
        "{log}"
    );
    // The flood may have filled the kernel's queue.
    let asked_again = (0..50).any(|_| {
        early.send("still");
        early.recv_within(SILENCE).is_some_and(|answer| answer == b"still")
    });
    assert!(asked_again, "a session that there is goes on");
    assert_eq!(server.connect().rest(), b"here");
    let begun = floods.load(Ordering::SeqCst);
    assert!(begun < 64, "{begun} sessions of the flood have begun");
    // The flood's sessions end by time.
    server.wait(
        |server| {
            let late = client(server);
            late.send("late");
            late.recv_within(SILENCE).is_some()
        },
        "room for others",
    );
    let told = server.read("error.log").matches("datagrams dropped").count();
    assert!(told < 20, "once a second: {told}");
}

/// Differs from nginx: a flood of datagrams leaves some connections to others
#[test]
fn sessions_that_wait_for_their_backends_are_bounded_too() {
    let resolver = DatagramBackend::start(|_, _| Vec::new());
    let mut server = with_connections(
        64,
        &format!(
            "resolver 127.0.0.1:{}; resolver_timeout 3s;
             server {{ listen 127.0.0.1:%%UDP_a%% udp; proxy_pass $server_port.example:1; }}
             server {{ listen 127.0.0.1:%%UDP_b%% udp; proxy_pass $server_port.example:1; }}
             server {{ listen 127.0.0.1:%%UDP_c%% udp; proxy_pass $server_port.example:1; }}",
            resolver.port
        ),
    )
    .start();
    server.quiet();
    let ports = ["UDP_a", "UDP_b", "UDP_c"].map(|name| server.port_of(name));
    let clients: Vec<DatagramClient> =
        ports.iter().flat_map(|port| (0..100).map(|_| DatagramClient::new(*port))).collect();
    clients.iter().for_each(|client| client.send("x"));
    server.wait(|server| server.read("error.log").matches("datagrams dropped").count() >= 3, "a line for each socket");
    let begun = server.read("error.log").matches(" connected to ").count();
    assert!(begun < 64, "{begun} sessions have begun");
}

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 that names 192.0.2.1:1000 and 192.0.2.2:53, over UDP.
fn header() -> Vec<u8> {
    [V2, &[0x21, 0x12, 0, 12, 192, 0, 2, 1, 192, 0, 2, 2, 3, 232, 0, 53]].concat()
}

/// Not in nginx: the PROXY protocol with UDP
#[test]
fn the_proxy_protocol_comes_with_the_first_datagram() {
    let backend = DatagramBackend::start(|asked, _| vec![asked.to_vec()]);
    let mut server = whole(&format!(
        "server {{ listen 127.0.0.1:%%UDP%% udp proxy_protocol; proxy_pass 127.0.0.1:{port}; }}
         server {{ listen 127.0.0.1:%%UDP_each%% udp proxy_protocol=each; proxy_pass 127.0.0.1:{port}; }}
         server {{ listen 127.0.0.1:%%UDP_real%% udp proxy_protocol; set_real_ip_from 127.0.0.1;
             return '$remote_addr:$remote_port $proxy_protocol_addr:$proxy_protocol_port \
                 $proxy_protocol_server_addr:$proxy_protocol_server_port $realip_remote_addr'; }}",
        port = backend.port
    ))
    .start();
    let first = client(&server);
    assert_eq!(first.ask([&header()[..], b"one"].concat()), "one");
    assert_eq!(first.ask("two"), "two");
    let each = DatagramClient::new(server.port_of("UDP_each"));
    assert_eq!(each.ask([&header()[..], b"one"].concat()), "one");
    assert_eq!(each.ask([&header()[..], b"two"].concat()), "two");
    let real = DatagramClient::new(server.port_of("UDP_real"));
    assert_eq!(real.ask(header()), "192.0.2.1:1000 192.0.2.1:1000 192.0.2.2:53 127.0.0.1");
    // Without a header there is no session.
    let bare = client(&server);
    bare.send("bare");
    server.read_until("error.log", "broken header: \"bare\" while reading PROXY protocol, client: 127.0.0.1");
    assert_eq!(bare.recv_within(SILENCE), None);
}

/// Differs from nginx: the log is told of bad datagrams once a second
#[test]
fn a_flood_without_headers_does_not_fill_the_log() {
    let mut server =
        whole("server { listen 127.0.0.1:%%UDP%% udp proxy_protocol; error_log own.log; return x; }").start();
    server.quiet();
    let client = client(&server);
    let begin = Instant::now();
    server.wait(
        |server| {
            client.send("bare");
            server.read("own.log").contains("broken header: \"bare\" and ")
        },
        "a line for several datagrams",
    );
    let log = server.read("own.log");
    assert!(log.contains(" others while reading PROXY protocol, client: 127.0.0.1, server: 127.0.0.1:"), "{log}");
    let lines = log.matches("broken header").count() as u64;
    assert!(lines <= begin.elapsed().as_secs() + 1, "once a second: {log}");
    assert_eq!(server.read("error.log").matches("broken header").count(), 0);
}

/// Not in nginx: the PROXY protocol with UDP
#[test]
fn datagrams_with_headers_that_come_too_many_begin_sessions() {
    let backend = DatagramBackend::start(|asked, _| vec![asked.to_vec()]);
    let server = whole(&format!(
        "server {{ listen 127.0.0.1:%%UDP_each%% udp proxy_protocol=each; proxy_pass 127.0.0.1:{port}; proxy_requests 1; }}
         server {{ listen 127.0.0.1:%%UDP_first%% udp proxy_protocol; proxy_pass 127.0.0.1:{port}; proxy_requests 1; }}",
        port = backend.port
    ))
    .start();
    for name in ["UDP_each", "UDP_first"] {
        let client = DatagramClient::new(server.port_of(name));
        // All at once: most of them come before the first one's session has its backend.
        (0..20_u8).for_each(|n| client.send([&header()[..], &[n]].concat()));
        let mut answers: Vec<Vec<u8>> = (0..20).map(|_| client.recv()).collect();
        answers.sort_unstable();
        assert_eq!(answers, (0..20_u8).map(|n| vec![n]).collect::<Vec<_>>(), "{name}");
    }
}

/// Not in nginx: `proxy_protocol_datagrams each`
#[test]
fn the_proxy_protocol_goes_to_backends() {
    let backend = DatagramBackend::start(|asked, _| vec![asked.to_vec()]);
    let server = whole(&format!(
        "server {{ listen 127.0.0.1:%%UDP%% udp; proxy_pass 127.0.0.1:{port}; proxy_protocol v2; }}
         server {{ listen 127.0.0.1:%%UDP_each%% udp; proxy_pass 127.0.0.1:{port}; proxy_protocol v2;
             proxy_protocol_datagrams each; }}
         server {{ listen 127.0.0.1:%%UDP_text%% udp; proxy_pass 127.0.0.1:{port}; proxy_protocol on; }}
         server {{ listen 127.0.0.1:%%UDP_out%% udp; proxy_pass 127.0.0.1:%%UDP_in%%; proxy_protocol v2;
             proxy_protocol_tlv authority $remote_addr; proxy_protocol_tlv 0xe0 edge; proxy_protocol_tlv alpn ''; }}
         server {{ listen 127.0.0.1:%%UDP_in%% udp proxy_protocol;
             return '$proxy_protocol_tlv_authority $proxy_protocol_tlv_0xe0 [$proxy_protocol_tlv_alpn]'; }}",
        port = backend.port
    ))
    .start();
    let expect = |client: &DatagramClient, to: u16| {
        let ports = [client.port().to_be_bytes(), to.to_be_bytes()].concat();
        [V2, &[0x21, 0x12, 0, 19, 127, 0, 0, 1, 127, 0, 0, 1], &ports].concat()
    };
    for (name, each) in [("UDP", false), ("UDP_each", true)] {
        let client = DatagramClient::new(server.port_of(name));
        let header = expect(&client, server.port_of(name));
        for (n, text) in ["one", "two"].iter().enumerate() {
            client.send(text);
            let got = client.recv();
            if n == 0 || each {
                // After the addresses comes a checksum of seven bytes.
                assert!(got.starts_with(&header) && got.len() == header.len() + 7 + text.len(), "{name}: {got:?}");
                assert!(got.ends_with(text.as_bytes()));
            } else {
                assert_eq!(got, text.as_bytes());
            }
        }
    }
    let fields = DatagramClient::new(server.port_of("UDP_out"));
    assert_eq!(fields.ask("x"), "127.0.0.1 edge []");
    let client = DatagramClient::new(server.port_of("UDP_text"));
    let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", client.port(), server.port_of("UDP_text"));
    assert_eq!(client.ask("one"), format!("{line}one"));
    assert_eq!(client.ask("two"), "two");
}
