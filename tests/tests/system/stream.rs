//! Streams as a whole: sessions that move to other workers, other people's servers behind them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::sealed::{client, client_config, client_hello};
use e2e::{
    Backend, Connection, EC, Folder, Server, Setup, binary, certificate, echo_over_reloads, free_port, secure, tool,
    use_directive,
};
use rustix::process::Signal;

use crate::upgrade::{Site, children, signal};

/// A backend that sends everything back.
fn echo() -> Backend {
    Backend::sockets(|mut stream, _| {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
    })
}

fn sealed(backend: &Backend) -> Setup {
    let setup = Setup::stream(&format!(
        "log_format line '$server_port $status $bytes_received/$bytes_sent $upstream_bytes_sent/$upstream_bytes_received '
            '$upstream_addr $session_time $name $ssl_protocol'; access_log line.log line;
         upstream some {{ server 127.0.0.1:{}; }}
         server {{ listen 127.0.0.1:%%PORT_PLAIN%%; set $name plain; proxy_pass some; }}
         server {{ listen 127.0.0.1:%%PORT_TLS%% ssl; ssl_certificate site.crt; ssl_certificate_key site.key;
            set $name sealed; proxy_pass some; }}",
        backend.port
    ))
    .main("worker_processes 2; ");
    certificate(setup.folder(), "site", EC);
    setup
}

/// Not in nginx: sessions of streams move to the new workers
#[test]
fn no_byte_is_lost_or_doubled() {
    let backend = echo();
    let mut server = sealed(&backend).start();
    let tls = |version| secure::connect(server.port_of("PORT_TLS"), &[version]);
    let tunnels = vec![
        Connection::open(server.port_of("PORT_PLAIN")),
        Connection::open(server.port_of("PORT_PLAIN")),
        tls("-tls1_2"),
        tls("-tls1_3"),
    ];
    echo_over_reloads(&mut server, tunnels, 8 << 20);
}

/// Not in nginx: sessions of streams move to the new workers
#[test]
fn sessions_go_on_after_a_reload() {
    let backend = echo();
    let mut server = sealed(&backend).start();
    let mut sessions: Vec<Connection> = (0..40)
        .map(|n| match n % 4 {
            0 => secure::connect(server.port_of("PORT_TLS"), &[]),
            _ => Connection::open(server.port_of("PORT_PLAIN")),
        })
        .collect();
    for round in 0..3 {
        for (n, session) in sessions.iter_mut().enumerate() {
            let text = format!("{n} in round {round}");
            assert_eq!(session.send(&text).take(text.len()), text.as_bytes());
        }
        let old = server.children();
        let start = Instant::now();
        server.reload();
        server.wait(|s| old.iter().all(|pid| !s.children().contains(pid)), "the old workers' end");
        assert!(start.elapsed() < Duration::from_secs(5), "they were left behind: {:?}", start.elapsed());
    }
    assert_eq!(server.read("line.log"), "", "none has ended");
    assert_eq!(backend.connections(), 40);
    drop(sessions);
    server.wait(|s| s.read("line.log").lines().count() == 40, "a line for each");
    let log = server.read("line.log");
    for line in log.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, "200", client, upstream, peer, time, name, tls] = words[..] else { panic!("{line}") };
        let (from, to) = client.split_once('/').expect("two counts");
        let expect = (to, upstream.to_owned(), &*format!("127.0.0.1:{}", backend.port));
        assert_eq!((from, format!("{from}/{to}"), peer), expect, "{line}");
        assert!(time.parse::<f64>().expect("a time") > 0.05, "the time goes on: {line}");
        assert!(matches!((name, tls), ("plain", "-") | ("sealed", "TLSv1.3")), "{line}");
    }
}

/// Not in nginx: sessions of streams move to the new workers
#[test]
fn what_was_decided_stays_decided() {
    let backend = echo();
    let mut server = Setup::stream(&format!(
        "log_format line '$first $pid $status $limit_conn_status'; access_log line.log line;
         limit_conn_zone $binary_remote_addr zone=clients:64k;
         server {{ listen 127.0.0.1:%%PORT_A%%; set $first $pid; limit_conn clients 2; proxy_pass 127.0.0.1:{}; }}",
        backend.port
    ))
    .start();
    let mut sessions = [(); 2].map(|()| Connection::open(server.port_of("PORT_A")));
    sessions.iter_mut().for_each(|session| assert_eq!(session.send("a").take(1), b"a"));
    let before = server.children()[0];
    let text = server.read("nginx.conf").replace("limit_conn clients 2", "limit_conn clients 1");
    server.configure(&text);
    server.reload();
    sessions.iter_mut().for_each(|session| assert_eq!(session.send("b").take(1), b"b"));
    assert!(!server.read("error.log").contains("limiting connections"), "nobody was refused");
    // Both count, though there are more than may be now.
    let [one, other] = sessions;
    drop(one);
    let last = last_of(&mut server, 1);
    assert!(last.ends_with(" 200 PASSED"), "{last}");
    let (first, rest) = last.split_once(' ').expect("two words");
    assert_eq!(first, before.to_string(), "`set` isn't done again");
    assert!(!rest.starts_with(first), "another worker ends it");
    assert_eq!(Connection::open(server.port_of("PORT_A")).rest(), b"");
    let last = last_of(&mut server, 2);
    assert!(last.ends_with(" 503 REJECTED"), "{last}");
    drop(other);
    let last = last_of(&mut server, 3);
    assert!(last.ends_with(" 200 PASSED"), "{last}");
}

/// The limit is that of the address's default server; the client chose another one later.
/// Not in nginx: sessions of streams move to the new workers
#[test]
fn a_session_counts_where_it_began() {
    let backend = echo();
    let mut server = Setup::stream(&format!(
        "limit_conn_zone $binary_remote_addr zone=clients:64k;
         server {{ listen 127.0.0.1:%%PORT_A%%; ssl_preread on; limit_conn clients 1; return none; }}
         server {{ listen 127.0.0.1:%%PORT_A%%; server_name b.test; proxy_pass 127.0.0.1:{}; }}",
        backend.port
    ))
    .start();
    let mut session = Connection::open(server.port_of("PORT_A"));
    let hello = client_hello(client(client_config(rustls::ALL_VERSIONS), "b.test"));
    assert_eq!(session.send(&hello).take(hello.len()), hello);
    let before = server.children();
    server.reload();
    server.wait(|s| s.children().iter().all(|p| !before.contains(p)), "the old worker's end");
    assert_eq!(session.send("here").take(4), b"here");
    assert_eq!(Connection::open(server.port_of("PORT_A")).rest(), b"", "it is refused");
    drop(session);
    server.wait(|s| Connection::open(s.port_of("PORT_A")).send("x").rest() == b"none", "room for another");
}

/// Not in nginx: sessions of streams move to the new workers
#[test]
fn what_a_client_said_first_is_known_to_the_end() {
    let backend = echo();
    let mut server = Setup::stream(&format!(
        "log_format line '$rdp_cookie $rdp_cookie_mstshash'; access_log line.log line;
         map $rdp_cookie_mstshash $rate {{ alice 1000; default 0; }}
         server {{ listen 127.0.0.1:%%PORT_A%%; rdp_preread on; proxy_download_rate $rate; proxy_pass 127.0.0.1:{}; }}",
        backend.port
    ))
    .start();
    let cookie = b"Cookie: mstshash=alice\r\n";
    let length = 4 + 7 + cookie.len() as u8;
    let request = [&[3, 0, 0, length, length - 5, 0xe0, 0, 0, 0, 0, 0], &cookie[..]].concat();
    let mut session = Connection::open(server.port_of("PORT_A"));
    assert_eq!(session.send(&request).take(request.len()), request);
    server.reload();
    let begin = Instant::now();
    session.send(vec![b'x'; 3000]).take(3000);
    assert!(begin.elapsed() > Duration::from_millis(1500), "the rate is kept: {:?}", begin.elapsed());
    drop(session);
    assert_eq!(last_of(&mut server, 1), "mstshash=alice alice");
}

/// The last line of the log, once there are so many.
fn last_of(server: &mut Server, lines: usize) -> String {
    server.wait(|s| s.read("line.log").lines().count() == lines, "a line");
    server.read("line.log").lines().last().expect("a line").to_owned()
}

/// A site with streams, for upgrades.
fn streaming(backend: &Backend) -> (Site, u16, UdpSocket) {
    let site = Site::new();
    let (port, kept) = free_port();
    site.folder.write(
        "nginx.conf",
        format!(
            "worker_processes 2; pid nginx.pid; error_log error.log notice; events {{ {} worker_connections 5000; }}
             http {{ access_log off; client_body_temp_path ta; proxy_temp_path tb; server {{ listen 127.0.0.1:{}; }} }}
             stream {{ upstream some {{ zone some 64k; server 127.0.0.1:{}; }}
                server {{ listen 127.0.0.1:{port} backlog=4096; proxy_pass some; }} }}",
            use_directive(),
            site.port,
            backend.port
        ),
    );
    (site, port, kept)
}

/// Not in nginx: sessions of streams move to the new workers
#[test]
fn many_sessions_over_an_upgrade_and_back() {
    let backend = echo();
    let (site, port, _kept) = streaming(&backend);
    let old = site.start(&binary());
    let mut sessions: Vec<Connection> = (0..300).map(|_| Connection::open(port)).collect();
    let mut round = 0;
    let mut serve = |sessions: &mut Vec<Connection>| {
        round += 1;
        for (n, session) in sessions.iter_mut().enumerate() {
            let text = format!("{n} in round {round}");
            assert_eq!(session.send(&text).take(text.len()), text.as_bytes());
        }
    };
    serve(&mut sessions);
    let new = site.upgrade(old, &binary());
    serve(&mut sessions);
    site.send_away(old);
    serve(&mut sessions);
    // Taken back: the old workers again, then the new program leaves.
    signal(old, Signal::HUP);
    site.wait("the old workers again", || children(old).len() == 3);
    site.end(new, Signal::QUIT);
    serve(&mut sessions);
    assert_eq!(backend.connections(), 300);
    assert!(!site.log().contains("[alert]"), "{}", site.log());
    drop(sessions);
    site.stop();
}

/// A server of others, in a folder of its own; it ends with this.
struct Peer {
    child: Child,
    _folder: Folder,
    port: u16,
    _kept: UdpSocket,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program of this name: where Debian hides PostgreSQL's, or in the path.
fn program(name: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut hidden = versions.map(|version| version.path().join("bin").join(name));
    hidden.find(|path| path.exists()).or_else(|| tool(&[name]))
}

/// A command that has given up root, which databases don't run as.
fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Peer {
    fn postgres() -> Option<Peer> {
        let (initdb, postgres) = (program("initdb")?, program("postgres")?);
        let folder = Folder::new();
        let data = folder.public("data");
        let owns = |path: &Path| {
            if rustix::process::geteuid().is_root() {
                std::os::unix::fs::chown(path, Some(65534), Some(65534)).expect("root may");
            }
        };
        owns(&data);
        let made = unprivileged(&initdb)
            .current_dir("/")
            .args(["-U", "tester", "-A", "trust", "--no-sync", "-D"])
            .arg(&data)
            .status();
        assert!(made.expect("it starts").success(), "a database");
        certificate(&folder, "database.test", EC);
        let (port, kept) = free_port();
        for (name, mode) in [("server.crt", 0o644), ("server.key", 0o600)] {
            use std::os::unix::fs::PermissionsExt as _;
            let to = data.join(name);
            std::fs::copy(folder.path().join(name.replace("server", "database.test")), &to).expect("copies");
            std::fs::set_permissions(&to, std::fs::Permissions::from_mode(mode)).expect("it is ours");
            owns(&to);
        }
        let child = unprivileged(&postgres)
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k", "", "-c", "ssl=on", "-c", "fsync=off"])
            .spawn()
            .expect("it starts");
        Some(Peer { child, _folder: folder, port, _kept: kept })
    }

    fn redis() -> Option<Peer> {
        let redis = program("redis-server")?;
        let folder = Folder::new();
        let (port, kept) = free_port();
        let child = unprivileged(&redis)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .spawn()
            .expect("it starts");
        Some(Peer { child, _folder: folder, port, _kept: kept })
    }
}

/// What psql prints for a command.
fn psql(connection: &str, sql: &str) -> Result<String, String> {
    let out = Command::new("psql").args([connection, "-At", "-v", "ON_ERROR_STOP=1", "-c", sql]).output();
    let out = out.map_err(|error| error.to_string())?;
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
    }
}

/// How psql reaches a database through a server.
fn tester(server: &Server, mode: &str) -> String {
    format!("host=127.0.0.1 port={} user=tester dbname=postgres sslmode={mode}", server.port_of("PORT_DIRECT"))
}

fn patiently<T, E: std::fmt::Debug>(mut ask: impl FnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(error) if start.elapsed() > Duration::from_secs(30) => panic!("{error:?}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn database(more: &str, port: u16) -> Server {
    Setup::stream(&format!("server {{ listen 127.0.0.1:%%PORT_DIRECT%%; proxy_pass 127.0.0.1:{port}; }} {more}"))
        .main("worker_processes 2;")
        .start()
}

/// Sessions of PostgreSQL, in the clear and with its own TLS, whole transactions.
#[test]
fn postgresql() {
    let Some(peer) = Peer::postgres() else { return };
    let server = database("", peer.port);
    let url = |mode: &str| tester(&server, mode);
    assert_eq!(patiently(|| psql(&url("disable"), "select 6 * 7")), "42");
    assert_eq!(psql(&url("require"), "select ssl from pg_stat_ssl where pid = pg_backend_pid()"), Ok("t".to_owned()));
    psql(&url("disable"), "create table numbers as select generate_series(1, 200000) as n").expect("a table");
    let all = psql(&url("require"), "select n from numbers order by n").expect("rows");
    assert_eq!((all.lines().count(), all.lines().last()), (200_000, Some("200000")));
}

/// What is temporary in a session of PostgreSQL is there after a reload.
///
/// Not in nginx: sessions of streams move to the new workers
#[test]
fn sessions_of_postgresql_go_on_after_a_reload() {
    let Some(peer) = Peer::postgres() else { return };
    let mut server = database("", peer.port);
    assert_eq!(patiently(|| psql(&tester(&server, "disable"), "select 6 * 7")), "42");
    let mut session = Command::new("psql")
        .args([&tester(&server, "disable"), "-At", "-q"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql starts");
    let mut stdin = session.stdin.take().expect("a pipe");
    writeln!(stdin, "create temporary table here as select 1 as n;\n\\warn ready").expect("it reads");
    let mut ready = String::new();
    BufReader::new(session.stderr.take().expect("a pipe")).read_line(&mut ready).expect("it writes");
    assert_eq!(ready, "ready\n");
    server.reload();
    writeln!(stdin, "select count(*) from here;").expect("it reads");
    drop(stdin);
    let out = session.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "1\n");
}

/// Redis behind TLS that ends here, chosen by name, and in the clear.
#[test]
fn redis() {
    let Some(peer) = Peer::redis() else { return };
    let setup = Setup::stream(&format!(
        "ssl_certificate site.crt; ssl_certificate_key site.key;
         server {{ listen 127.0.0.1:%%PORT_TLS%% ssl default_server; return 'another name'; }}
         server {{ listen 127.0.0.1:%%PORT_TLS%% ssl; server_name cache.test; proxy_pass 127.0.0.1:{0}; }}
         server {{ listen 127.0.0.1:%%PORT_PLAIN%%; proxy_pass 127.0.0.1:{0}; }}",
        peer.port
    ));
    certificate(setup.folder(), "site", EC);
    let server = setup.start();
    let ask = |connection: &mut Connection, text: &str, expect: &str| {
        assert_eq!(String::from_utf8_lossy(&connection.send(text).take(expect.len())), expect);
    };
    patiently(|| std::net::TcpStream::connect(("127.0.0.1", peer.port)));
    let mut plain = Connection::open(server.port_of("PORT_PLAIN"));
    let mut sealed = secure::connect(server.port_of("PORT_TLS"), &["-servername", "cache.test"]);
    ask(&mut plain, "PING\r\n", "+PONG\r\n");
    let value = "x".repeat(1 << 20);
    ask(&mut sealed, &format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n${}\r\n{value}\r\n", value.len()), "+OK\r\n");
    ask(&mut plain, "GET a\r\n", &format!("${}\r\n{value}\r\n", value.len()));
    ask(&mut plain, "SUBSCRIBE news\r\n", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    ask(&mut sealed, "PUBLISH news hello\r\n", ":1\r\n");
    assert_eq!(plain.take(36), b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello"[..36]);
    let mut other = secure::connect(server.port_of("PORT_TLS"), &["-servername", "other.test"]);
    assert_eq!(other.rest(), b"another name");
}
