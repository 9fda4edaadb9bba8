//! Sessions are resumed while the keys of tickets change: in a new zone, a full one, and one that a reload has just taken
//! over. Whoever comes back at once is known, whichever worker answers.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::sealed::{client, client_config, connect};
use e2e::{EC, Server, Setup, certificate};
use rustls::client::{Resumption, Tls12Resumption};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind};

/// How long a session may be resumed, and how often keys change.
const TIMEOUT: Duration = Duration::from_secs(2);

fn start() -> Server {
    let setup = Setup::http(
        "ssl_session_timeout 2s; ssl_session_cache shared:S:32k;
        server { listen 127.0.0.1:%%PORT%% ssl; return 200 \"$ssl_session_reused\";
            ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.key; }",
    );
    certificate(setup.folder(), "one", EC);
    let mut server = setup.start();
    let text = server.read("nginx.conf").replace("worker_processes 1;", "worker_processes 2;");
    server.configure(&text);
    server.reload();
    server.wait(|s| s.children().len() == 2, "two workers");
    server
}

/// A request on a connection of its own; how the handshake went.
fn visit(server: &Server, config: &Arc<ClientConfig>) -> HandshakeKind {
    let (mut socket, mut connection) = (connect(server.port()), client(config.clone(), "localhost"));
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("the handshake succeeds");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the answer is whole");
    let kind = connection.handshake_kind().expect("the handshake is over");
    let expect: &[u8] = if kind == HandshakeKind::Resumed { b"\r\n\r\nr" } else { b"\r\n\r\n." };
    assert!(answer.ends_with(expect), "{kind:?}: {}", answer.escape_ascii());
    kind
}

/// New clients come, and come back at once, for so long.
fn come_back(server: &Server, time: Duration, when: &str) {
    let start = Instant::now();
    let mut known = 0;
    while start.elapsed() < time || known == 0 {
        for version in [&TLS13, &TLS12] {
            let config = Arc::new(client_config(&[version]));
            assert_ne!(visit(server, &config), HandshakeKind::Resumed, "{when}");
            let before = Instant::now();
            let kind = visit(server, &config);
            // On a machine that has other things to do it may be too late.
            if before.elapsed() < TIMEOUT / 2 {
                assert_eq!(kind, HandshakeKind::Resumed, "{version:?} {when}");
                known += 1;
            }
        }
    }
}

#[test]
fn keys_change_while_sessions_are_resumed() {
    let mut server = start();
    come_back(&server, TIMEOUT * 5 / 2, "in a new zone");
    // Sessions by number fill the zone.
    let mut by_number = client_config(&[&TLS12]);
    by_number.resumption = Resumption::in_memory_sessions(8).tls12_resumption(Tls12Resumption::SessionIdOnly);
    for _ in 0..400 {
        let mut fresh = by_number.clone();
        fresh.resumption = Resumption::in_memory_sessions(8).tls12_resumption(Tls12Resumption::SessionIdOnly);
        assert_ne!(visit(&server, &Arc::new(fresh)), HandshakeKind::Resumed);
    }
    let by_number = Arc::new(by_number);
    visit(&server, &by_number);
    visit(&server, &by_number);
    come_back(&server, TIMEOUT * 3 / 2, "in a full zone");
    for round in 0..4 {
        let waits = Arc::new(client_config(&[&TLS13]));
        visit(&server, &waits);
        let before = Instant::now();
        server.reload();
        let kind = visit(&server, &waits);
        if before.elapsed() < TIMEOUT / 2 {
            assert_eq!(kind, HandshakeKind::Resumed, "over reload {round}");
        }
        come_back(&server, TIMEOUT / 2, "after a reload");
    }
    assert!(!server.read("error.log").contains("[alert]"), "{}", server.read("error.log"));
}
