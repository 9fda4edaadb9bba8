//! Reloads with TLS: connections and tunnels move with their keys, and what their requests may ask moves too.

use std::io::{Read, Write};
use std::time::Duration;

use e2e::{Backend, Connection, Server, Setup, curl};
use e2e::{EC, certificate, echo_over_reloads, openssl, secure};

/// A server that tells what it knows of a connection, with tunnels to a backend below `/ws`.
fn setup(backend: &Backend, more: &str) -> Setup {
    let setup = Setup::http(&format!(
        "access_log off;
         server {{
             listen 127.0.0.1:%%PORT%% ssl; server_name first.test;
             ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.key;
             location / {{ return 200 first; }}
         }}
         server {{
             listen 127.0.0.1:%%PORT%% ssl; server_name one.test;
             ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.key;
             {more}
             location /number {{ return 200 \"$connection $connection_requests\"; }}
             location /tls {{ return 200 \"$server_name $https $ssl_protocol $ssl_cipher $ssl_curve $ssl_server_name \
                  $ssl_alpn_protocol $ssl_session_reused $ssl_ciphers $ssl_curves $ssl_sigalgs $ssl_client_verify \
                  $ssl_client_s_dn $ssl_client_serial $ssl_client_fingerprint\"; }}
             location /big {{ root %%DIR%%; }}
             location /ws {{
                 proxy_pass http://127.0.0.1:{}; proxy_http_version 1.1;
                 proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
             }}
         }}",
        backend.port
    ))
    .main("worker_processes 2; error_log error.log info;");
    certificate(setup.folder(), "one", EC);
    setup
}

/// A backend that answers every request by 101, and echoes what comes then.
fn echo() -> Backend {
    Backend::sockets(|mut stream, _| {
        let mut buffer = vec![0; 65536];
        let _ = stream.read(&mut buffer);
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nhello";
        if stream.write_all(answer).is_err() {
            return;
        }
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
    })
}

fn connect(server: &Server, options: &[&str]) -> Connection {
    secure::connect(server.port(), &[&["-servername", "one.test"], options].concat())
}

fn get(connection: &mut Connection, path: &str) -> String {
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: one.test\r\n\r\n"));
    let response = connection.response();
    assert_eq!((response.status, response.field("Connection")), (200, Some("keep-alive")), "{}", response.text());
    response.text()
}

fn upgrade(connection: &mut Connection) {
    connection.send("GET /ws HTTP/1.1\r\nHost: one.test\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n");
    let response = connection.response();
    assert_eq!(response.status, 101, "{}", response.head);
    assert_eq!(connection.take(5), b"hello");
}

/// Each version with each cipher that it has for the server's key.
const KINDS: [&[&str]; 6] = [
    &["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"],
    &["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384", "-alpn", "http/1.1"],
    &["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
    &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
    &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"],
    &["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
];

/// Not in nginx: under TLS, their keys
#[test]
fn idle_connections_move() {
    let setup = setup(&echo(), "ssl_verify_client optional_no_ca;").file("big", vec![b'x'; 300_000]);
    certificate(setup.folder(), "client", EC);
    let path = |name: &str| setup.folder().path().join(name).display().to_string();
    let (crt, key) = (path("client.crt"), path("client.key"));
    let mut server = setup.start();
    let with = ["-cert", &crt, "-key", &key];
    let mut all: Vec<Connection> = KINDS.iter().map(|kind| connect(&server, kind)).collect();
    all.extend(KINDS.iter().map(|kind| connect(&server, &[*kind, &with].concat())));
    // Which number has which connection, what it knows of its TLS.
    let known: Vec<(String, String)> = all
        .iter_mut()
        .map(|c| (get(c, "/number").split(' ').next().expect("a number").to_owned(), get(c, "/tls")))
        .collect();
    assert!(known[0].1.starts_with("one.test on TLSv1.3 TLS_AES_128_GCM_SHA256 X25519 one.test  . "), "{known:?}");
    assert!(known[1].1.contains(" one.test http/1.1 . ") && known[3].1.contains("TLSv1.2"), "{known:?}");
    assert!(known[11].1.contains(" FAILED:self-signed certificate CN=client "), "{known:?}");
    // One whose handshake is over, and that has said nothing yet.
    let mut silent = connect(&server, &[]);
    std::thread::sleep(Duration::from_millis(300));
    for round in 0..3 {
        server.reload();
        for (connection, (number, facts)) in all.iter_mut().zip(&known) {
            assert_eq!(get(connection, "/number"), format!("{number} {}", 3 + 3 * round));
            assert_eq!(get(connection, "/tls"), *facts);
            assert_eq!(get(connection, "/big").len(), 300_000);
        }
    }
    assert!(get(&mut silent, "/number").ends_with(" 1"));
    // The end is announced: openssl wouldn't end well otherwise.
    for connection in &mut all {
        connection.send("GET /number HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n");
        assert_eq!(connection.response().status, 200);
        assert!(connection.closed());
    }
    let log = server.read("error.log");
    // Whoever asked whether the server listens has gone without a request.
    let closed = log.lines().any(|line| line.contains("closed") && !line.contains("while waiting for request"));
    assert!(!log.contains("[alert]") && !log.contains("[error]") && !closed, "{log}");
}

/// Not in nginx: under TLS, their keys
#[test]
fn tunnels_move() {
    let backend = echo();
    let mut server = setup(&backend, "").start();
    let mut all: Vec<Connection> = KINDS.iter().map(|kind| connect(&server, kind)).collect();
    all.iter_mut().for_each(upgrade);
    for round in 0..3 {
        server.reload();
        for (n, connection) in all.iter_mut().enumerate() {
            let text = format!("round {round} of {n}");
            connection.send(&text);
            assert_eq!(connection.take(text.len()), text.as_bytes());
        }
    }
    assert_eq!(backend.connections(), KINDS.len());
}

/// Not in nginx: under TLS, their keys
#[test]
fn no_byte_is_lost_or_doubled() {
    // Nothing of it needs more than a worker that is shut in may do.
    let mut server = setup(&echo(), "").main("sandbox on;").start();
    let tunnel = |kind: &&[&str]| {
        let mut connection = connect(&server, kind);
        upgrade(&mut connection);
        connection
    };
    let tunnels = [KINDS[1], KINDS[4]].iter().map(tunnel).collect();
    echo_over_reloads(&mut server, tunnels, 16 << 20);
}

/// What a new configuration wouldn't take any more is closed, and comes back as a new connection.
/// Not in nginx: under TLS, their keys
#[test]
fn other_settings() {
    let text = |ssl: &str, more: &str| {
        format!(
            "daemon off; pid nginx.pid; error_log error.log info; events {{ %%USE%% }} http {{ access_log off;
             client_body_temp_path cb; proxy_temp_path pt;
             server {{ listen 127.0.0.1:%%PORT%% {ssl}; server_name one.test; {more}
                 ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.key;
                 location /number {{ return 200 \"$connection $ssl_client_verify\"; }} }} }}"
        )
    };
    let setup = Setup::whole(&text("ssl", ""));
    certificate(setup.folder(), "one", EC);
    certificate(setup.folder(), "client", EC);
    openssl(
        setup.folder().path(),
        &["req", "-x509", "-nodes", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt"],
    );
    let path = |name: &str| setup.folder().path().join(name).display().to_string();
    let (crt, key) = (path("client.crt"), path("client.key"));
    let mut server = setup.start();
    let (mut old, mut new) = (connect(&server, &["-tls1_2"]), connect(&server, &["-tls1_3"]));
    let numbers = [get(&mut old, "/number"), get(&mut new, "/number")];
    server.configure(&text("ssl", "ssl_protocols TLSv1.3;"));
    server.reload();
    assert!(old.closed(), "no TLS 1.2 any more");
    assert_eq!(get(&mut new, "/number"), numbers[1]);
    // It wasn't asked for a certificate.
    server.configure(&text("ssl", "ssl_verify_client optional; ssl_client_certificate %%DIR%%/client.crt;"));
    server.reload();
    assert!(new.closed());
    let mut known = connect(&server, &["-cert", &crt, "-key", &key]);
    let mut unknown = connect(&server, &[]);
    assert!(get(&mut known, "/number").ends_with(" SUCCESS") && get(&mut unknown, "/number").ends_with(" NONE"));
    // Who vouched for it isn't trusted any more: it is judged again.
    server.configure(&text("ssl", "ssl_verify_client optional_no_ca; ssl_client_certificate %%DIR%%/ca.crt;"));
    server.reload();
    assert!(get(&mut known, "/number").ends_with(" FAILED:self-signed certificate"));
    assert!(get(&mut unknown, "/number").ends_with(" NONE"));
    server.configure(&text("", ""));
    server.reload();
    assert!(known.closed() && unknown.closed());
    let log = server.read("error.log");
    for why in ["other TLS is spoken now", "no TLS is spoken any more"] {
        assert!(log.contains(&format!("where it was accepted {why}, idle connection closed")), "{why}: {log}");
    }
}

/// Not in nginx: reload_handover off
#[test]
fn it_can_be_turned_off() {
    let backend = echo();
    let mut server = setup(&backend, "").main("reload_handover off;").start();
    let (mut idle, mut tunnel) = (connect(&server, &[]), connect(&server, &[]));
    get(&mut idle, "/number");
    upgrade(&mut tunnel);
    let before = server.children();
    server.signal(rustix::process::Signal::HUP);
    assert!(idle.closed(), "as nginx does");
    tunnel.send("there");
    assert_eq!(tunnel.take(5), b"there");
    assert!(server.children().iter().any(|p| before.contains(p)));
    drop(tunnel);
    server.wait(|s| s.children().iter().all(|p| !before.contains(p)), "the old worker's end");
}

/// curl, which knows when a connection was closed and how, reuses one over a reload.
/// Not in nginx: under TLS, their keys
#[test]
fn curl_goes_on() {
    let mut server = setup(&echo(), "").start();
    let port = server.port();
    let (resolve, url) = (format!("one.test:{port}:127.0.0.1"), format!("https://one.test:{port}/number"));
    let reading = std::thread::spawn(move || {
        let format = "|%{num_connects}\n";
        let mut args = vec!["-k", "--http1.1", "--resolve", &resolve, "-w", format, "--rate", "60/m"];
        args.extend([&url[..]; 4]);
        String::from_utf8_lossy(&curl(&args)).into_owned()
    });
    while !reading.is_finished() {
        server.reload();
        std::thread::sleep(Duration::from_millis(200));
    }
    let seen = reading.join().expect("curl succeeds");
    let number = seen.split(' ').next().expect("a number");
    let expect: String = (1..=4).map(|n| format!("{number} {n}|{}\n", usize::from(n == 1))).collect();
    assert_eq!(seen, expect);
}
