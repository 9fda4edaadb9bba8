//! `stream {}` over TCP: phases, proxying, variables, logs, messages.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use e2e::{Backend, Connection, DatagramBackend, EC, Server, Setup, certificate, free_port, secure};

/// A backend that sends everything back, until it reads `bye`.
fn echo() -> Backend {
    Backend::sockets(|mut stream, _| {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            if buffer[..n].ends_with(b"bye") || stream.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
    })
}

/// A backend that tells everything that it got until the end of the client's side.
fn collector() -> Backend {
    Backend::sockets(|mut stream, _| {
        let mut got = Vec::new();
        let _ = stream.read_to_end(&mut got);
        let _ = stream.write_all(format!("got {}", got.escape_ascii()).as_bytes());
    })
}

/// All that a port says to a client that says this.
fn ask(server: &Server, port: &str, text: &str) -> String {
    let mut client = Connection::open(server.port_of(port));
    client.try_send(text);
    String::from_utf8_lossy(&client.rest()).into_owned()
}

#[test]
fn what_fails_here_is_no_fault_of_the_servers() {
    let (one, two) = (echo(), echo());
    let server = Setup::stream(&format!(
        "upstream u {{ zone u 64k; server 127.0.0.1:{}; server 127.0.0.1:{}; }}
         server {{ listen 127.0.0.1:%%PORT_A%%; proxy_pass u; proxy_bind 192.0.2.1; }}
         server {{ listen 127.0.0.1:%%PORT_B%%; proxy_pass u; }}",
        one.port, two.port
    ))
    .start();
    // No machine has that address.
    (0..3).for_each(|_| assert_eq!(ask(&server, "PORT_A", "bye"), ""));
    let log = server.read("error.log");
    assert!(log.contains("bind(192.0.2.1) failed (99: Cannot assign requested address) while connecting"), "{log}");
    for port in ["PORT_B"; 2] {
        let mut client = Connection::open(server.port_of(port));
        client.send(b"here");
        assert_eq!(client.take(4), b"here");
    }
}

/// What nginx says of the configuration.
fn refusal(stream: &str) -> String {
    let server = Setup::stream(stream).prepare();
    let out = server.command(&["-t"]);
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn values_are_returned_and_logged() {
    let mut server = Setup::stream(
        "log_format line '$protocol $status $bytes_sent/$bytes_received $server_name $a $hostname_is_known';
         map $hostname $hostname_is_known { '' no; default yes; }
         access_log line.log line;
         server { listen 127.0.0.1:%%PORT_A%%; server_name first.example second.example; set $a one; set $b $a-two;
            return $b,$remote_addr,$server_port; }",
    )
    .start();
    let port = server.port_of("PORT_A");
    assert_eq!(ask(&server, "PORT_A", ""), format!("one-two,127.0.0.1,{port}"));
    let log = server.read_until("line.log", "\n");
    let sent = format!("one-two,127.0.0.1,{port}").len();
    assert_eq!(log, format!("TCP 200 {sent}/0 first.example one yes\n"));
}

#[test]
fn statuses() {
    let ((dead, _nobody), echo) = (free_port(), echo());
    let mut server = Setup::stream(&format!(
        "log_format line '$server_port $status'; access_log line.log line;
         limit_conn_zone $binary_remote_addr zone=clients:1m;
         server {{ listen 127.0.0.1:%%PORT_OK%%; return fine; }}
         server {{ listen 127.0.0.1:%%PORT_DENIED%%; deny 127.0.0.1; return never; }}
         server {{ listen 127.0.0.1:%%PORT_DEAD%%; proxy_pass 127.0.0.1:{dead}; }}
         server {{ listen 127.0.0.1:%%PORT_NAME%%; proxy_pass $server_port.example:1; }}
         server {{ listen 127.0.0.1:%%PORT_HEADER%% proxy_protocol; return never; }}
         server {{ listen 127.0.0.1:%%PORT_LIMIT%%; limit_conn clients 1; proxy_pass 127.0.0.1:{}; }}",
        echo.port
    ))
    .start();
    let mut first = Connection::open(server.port_of("PORT_LIMIT"));
    assert_eq!(first.send("x").take(1), b"x");
    for (port, text, expect, status) in [
        ("PORT_OK", "", "fine", "200"),
        ("PORT_DENIED", "", "", "403"),
        ("PORT_DEAD", "", "", "502"),
        ("PORT_NAME", "", "", "500"),
        ("PORT_HEADER", "GET / HTTP/1.0\r\n\r\n", "", "400"),
        ("PORT_LIMIT", "", "", "503"),
    ] {
        let number = server.port_of(port);
        assert_eq!(ask(&server, port, text), expect, "{port}");
        server.read_until("line.log", &format!("{number} {status}\n"));
    }
    let log = server.read("error.log");
    for line in [
        "access forbidden by rule while initializing session, client: 127.0.0.1, server: 127.0.0.1:",
        "connect() failed (111: Connection refused) while connecting to upstream, client: 127.0.0.1, server: 127.0.0.1:",
        "bytes from/to client:0/0, bytes from/to upstream:0/0",
        "no resolver defined to resolve ",
        "broken header: \"GET / HTTP/1.0",
        "limiting connections by zone \"clients\" while initializing session, client: 127.0.0.1",
    ] {
        assert!(log.contains(line), "{line} in {log}");
    }
    first.send("bye");
    assert!(first.closed());
}

#[test]
fn sessions_are_passed_on() {
    let ((dead, _nobody), echo) = (free_port(), echo());
    let mut server = Setup::stream(&format!(
        "log_format line '$status $bytes_received/$bytes_sent $upstream_bytes_sent/$upstream_bytes_received '
            '$upstream_addr $upstream_connect_time $upstream_first_byte_time $upstream_session_time $session_time';
         access_log line.log line;
         upstream some {{ server 127.0.0.1:{dead} weight=1000; server 127.0.0.1:{0}; }}
         upstream none {{ server 127.0.0.1:{0} down; }}
         map $server_port $where {{ default some; }}
         server {{ listen 127.0.0.1:%%PORT_A%%; proxy_pass $where; }}
         server {{ listen 127.0.0.1:%%PORT_B%%; proxy_pass none; access_log none.log line; }}",
        echo.port
    ))
    .start();
    let mut client = Connection::open(server.port_of("PORT_A"));
    assert_eq!(client.send("hello").take(5), b"hello");
    client.send("bye");
    assert!(client.closed());
    let log = server.read_until("line.log", "\n");
    let words: Vec<&str> = log.split_whitespace().collect();
    assert_eq!(words[..3], ["200", "8/5", "0,"], "{log}");
    assert_eq!(words[3..7].join(" "), format!("8/0, 5 127.0.0.1:{dead}, 127.0.0.1:{}", echo.port), "{log}");
    assert_eq!(words[7], "-,", "{log}");
    assert!(words[8].starts_with("0.0") && words[9] == "-," && words[10].starts_with("0.0"), "{log}");
    assert_eq!(ask(&server, "PORT_B", ""), "");
    assert!(server.read_until("none.log", "\n").starts_with("502 0/0 0/0 none - - 0.000"));
    let errors = server.read_until("error.log", "no live upstreams while connecting to upstream");
    for line in [
        "upstream server temporarily disabled while connecting to upstream, client: 127.0.0.1".to_string(),
        format!("connected to 127.0.0.1:{}", echo.port),
        "upstream disconnected, bytes from/to client:8/5, bytes from/to upstream:5/8".to_owned(),
        "upstream: \"none\"".to_owned(),
    ] {
        assert!(errors.contains(&line), "{line} in {errors}");
    }
}

#[test]
fn each_side_may_close() {
    let backend = collector();
    let server = Setup::stream(&format!(
        "server {{ listen 127.0.0.1:%%PORT_HALF%%; proxy_half_close on; proxy_pass 127.0.0.1:{0}; }}
         server {{ listen 127.0.0.1:%%PORT_WHOLE%%; proxy_pass 127.0.0.1:{0}; }}",
        backend.port
    ))
    .start();
    let mut client = Connection::open(server.port_of("PORT_HALF"));
    assert_eq!(client.send("all").end().rest(), b"got all");
    // Without it, the session is over when the client has closed its side.
    let mut client = Connection::open(server.port_of("PORT_WHOLE"));
    assert_eq!(client.send("all").end().rest(), b"");
}

#[test]
fn silence_ends_a_session() {
    let backend = echo();
    let mut server = Setup::stream(&format!(
        "proxy_timeout 1s;
         server {{ listen 127.0.0.1:%%PORT_A%%; proxy_pass 127.0.0.1:{}; }}",
        backend.port
    ))
    .start();
    let mut client = Connection::open(server.port_of("PORT_A"));
    // What passes keeps it alive.
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(400));
        assert_eq!(client.send("x").take(1), b"x");
    }
    let start = Instant::now();
    assert!(client.closed());
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    server.read_until("error.log", "[info]");
    server
        .read_until("error.log", "connection timed out (110: Connection timed out) while proxying connection, client:");
}

#[test]
fn rates_hold_both_ways() {
    let (backend, source) = (
        collector(),
        Backend::sockets(|mut stream, _| {
            let _ = stream.write_all(&[b'x'; 3000]);
        }),
    );
    let server = Setup::stream(&format!(
        "map 1 $rate {{ default 1000; }}
         server {{ listen 127.0.0.1:%%PORT_UP%%; proxy_half_close on; proxy_upload_rate 1000; proxy_pass 127.0.0.1:{}; }}
         server {{ listen 127.0.0.1:%%PORT_DOWN%%; proxy_download_rate $rate; proxy_pass 127.0.0.1:{}; }}",
        backend.port, source.port
    ))
    .start();
    let start = Instant::now();
    let mut up = Connection::open(server.port_of("PORT_UP"));
    let mut down = Connection::open(server.port_of("PORT_DOWN"));
    up.send([b'x'; 3000]).end();
    assert_eq!(down.take(3000), [b'x'; 3000]);
    assert!(down.closed());
    assert_eq!(up.rest().len(), 3004);
    assert!(start.elapsed() >= Duration::from_millis(1900), "{:?}", start.elapsed());
}

#[test]
fn the_header_of_the_proxy_protocol() {
    let backend = collector();
    let server = Setup::stream(&format!(
        "proxy_half_close on;
         server {{ listen 127.0.0.1:%%PORT_ONE%%; proxy_protocol on; proxy_pass 127.0.0.1:{0}; }}
         server {{ listen 127.0.0.1:%%PORT_TWO%%; proxy_protocol v2; proxy_pass 127.0.0.1:{0}; }}
         server {{ listen 127.0.0.1:%%PORT_SIX%% proxy_protocol; set_real_ip_from 127.0.0.1; proxy_protocol v2;
            proxy_pass 127.0.0.1:{0}; }}
         server {{ listen 127.0.0.1:%%PORT_IN%% proxy_protocol; set_real_ip_from 127.0.0.1;
            return $remote_addr:$remote_port,$proxy_protocol_addr,$realip_remote_addr; }}",
        backend.port
    ))
    .start();
    let through = |port: &str| {
        let mut client = Connection::open(server.port_of(port));
        let own = client.stream().local_addr().expect("an address").port();
        (own, String::from_utf8_lossy(&client.send("text").end().rest()).into_owned())
    };
    let (own, got) = through("PORT_ONE");
    let port = server.port_of("PORT_ONE");
    assert_eq!(got, format!("got PROXY TCP4 127.0.0.1 127.0.0.1 {own} {port}\\r\\ntext"));
    let (own, got) = through("PORT_TWO");
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13\x7f\0\0\x01\x7f\0\0\x01".to_vec();
    header.extend_from_slice(&own.to_be_bytes());
    header.extend_from_slice(&server.port_of("PORT_TWO").to_be_bytes());
    // A checksum follows.
    header.extend_from_slice(b"\x03\0\x04");
    assert!(got.starts_with(&format!("got {}", header.escape_ascii())) && got.ends_with("text"), "{got}");
    // Of two families, the address of IPv4 is mapped.
    let mut client = Connection::open(server.port_of("PORT_SIX"));
    let got = client.send("PROXY TCP6 2001:db8::1 2001:db8::2 5 80\r\n").end().rest();
    let got = String::from_utf8_lossy(&got).into_owned();
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x2b\x20\x01\x0d\xb8".to_vec();
    header.extend_from_slice(b"\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\x01\0\x05");
    header.extend_from_slice(&server.port_of("PORT_SIX").to_be_bytes());
    assert!(got.starts_with(&format!("got {}", header.escape_ascii())), "{got}");
    let answer = ask(&server, "PORT_IN", "PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n");
    assert_eq!(answer, "192.0.2.1:1234,192.0.2.1,127.0.0.1");
}

/// The log says what came instead of a handshake.
#[test]
fn plain_bytes_where_tls_is_spoken() {
    let setup = Setup::stream(
        "ssl_certificate site.crt; ssl_certificate_key site.key; server { listen 127.0.0.1:%%PORT%% ssl; return x; }",
    );
    certificate(setup.folder(), "site", EC);
    let mut server = setup.start();
    for (said, fault) in [
        ("GET / HTTP/1.0\r\n\r\n", "(SSL: error:0A00009C:SSL routines::http request)"),
        ("CONNECT a:1 HTTP/1.0\r\n\r\n", "(SSL: error:0A00009B:SSL routines::https proxy request)"),
        ("a LOGIN u p and more\r\n", "(SSL: error:0A00010B:SSL routines::wrong version number)"),
    ] {
        assert_eq!(ask(&server, "PORT", said), "");
        server.read_until("error.log", &format!("SSL_do_handshake() failed {fault} while SSL handshaking"));
    }
}

#[test]
fn names_choose_the_server() {
    let setup = Setup::stream(
        "log_format line '$ssl_server_name $server_name $ssl_alpn_protocol $status'; access_log line.log line;
         ssl_certificate site.crt; ssl_certificate_key site.key; ssl_alpn one two;
         server { listen 127.0.0.1:%%PORT_A%% ssl; return default; }
         server { listen 127.0.0.1:%%PORT_A%% ssl; server_name a.example; return exact; }
         server { listen 127.0.0.1:%%PORT_A%% ssl; server_name *.b.example; return wildcard; }
         server { listen 127.0.0.1:%%PORT_A%% ssl; server_name ~^(?<first>[a-z]+)\\.c\\.example$; return $first,$1; }",
    );
    certificate(setup.folder(), "site", EC);
    let mut server = setup.start();
    for (name, expect) in [
        ("a.example", "exact"),
        ("x.b.example", "wildcard"),
        ("xyz.c.example", "xyz,xyz"),
        ("other.example", "default"),
    ] {
        let mut client = secure::connect(server.port_of("PORT_A"), &["-servername", name, "-alpn", "two"]);
        assert_eq!(client.rest(), expect.as_bytes(), "{name}");
    }
    let log = server.read_until("line.log", "other.example");
    assert!(log.contains("a.example a.example two 200\n") && log.contains("other.example  two 200"), "{log}");
    // A client without TLS, and one without a protocol in common.
    assert_eq!(ask(&server, "PORT_A", "GET / HTTP/1.0\r\n\r\n"), "");
    let mut client = secure::connect(server.port_of("PORT_A"), &["-servername", "a.example", "-alpn", "three"]);
    assert_eq!(client.rest(), b"");
    server.wait(|s| s.read("line.log").matches(" 500\n").count() == 2, "a line for each");
}

#[test]
fn backends_over_tls() {
    let setup = Setup::stream(
        "ssl_certificate site.crt; ssl_certificate_key site.key; ssl_alpn one two;
         proxy_ssl on; proxy_ssl_session_reuse off; proxy_ssl_trusted_certificate site.crt; proxy_ssl_verify on; proxy_ssl_server_name on;
         server { listen 127.0.0.1:%%PORT_BACKEND%% ssl; return $ssl_server_name,$ssl_alpn_protocol,$ssl_client_s_dn;
            ssl_verify_client optional_no_ca; }
         server { listen 127.0.0.1:%%PORT_NAMED%%; proxy_ssl_name site; proxy_ssl_alpn two;
            proxy_pass 127.0.0.1:%%PORT_BACKEND%%; }
         map 1 $certificate { default site; }
         server { listen 127.0.0.1:%%PORT_OWN%%; proxy_ssl_name site; proxy_ssl_certificate $certificate.crt;
            proxy_ssl_certificate_key $certificate.key; proxy_pass 127.0.0.1:%%PORT_BACKEND%%; }
         server { listen 127.0.0.1:%%PORT_OTHER%%; proxy_ssl_name other; proxy_pass 127.0.0.1:%%PORT_BACKEND%%; }",
    );
    certificate(setup.folder(), "site", EC);
    // Workers read it.
    let key = setup.folder().path().join("site.key");
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    let mut server = setup.start();
    assert_eq!(ask(&server, "PORT_NAMED", ""), "site,two,");
    assert_eq!(ask(&server, "PORT_OWN", ""), "site,,CN=site");
    assert_eq!(ask(&server, "PORT_OTHER", ""), "");
    server
        .read_until("error.log", "upstream SSL certificate does not match \"other\" while SSL handshaking to upstream");
}

#[test]
fn connections_are_passed_to_other_sockets() {
    let setup = Setup::whole(
        "daemon off; pid nginx.pid; error_log error.log info; events { %%USE%% }
         http { access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4;
            scgi_temp_path t5;
            server { listen 127.0.0.1:%%PORT_HTTP%%; location / { return 200 $remote_addr,$uri; } } }
         stream {
            ssl_certificate site.crt; ssl_certificate_key site.key;
            map $ssl_server_name $where { a 127.0.0.1:%%PORT_HTTP%%; default 127.0.0.1:%%PORT_TEXT%%; }
            server { listen 127.0.0.1:%%PORT_TEXT%%; return text; }
            server { listen 127.0.0.1:%%PORT_FIXED%%; pass 127.0.0.1:%%PORT_HTTP%%; }
            server { listen 127.0.0.1:%%PORT_SEALED%% ssl; pass $where; }
            server { listen 127.0.0.1:%%PORT_LOST%%; pass 127.0.0.1:1; } }",
    );
    certificate(setup.folder(), "site", EC);
    let mut server = setup.start();
    let mut client = Connection::open(server.port_of("PORT_FIXED"));
    assert_eq!(client.get("/a", "").text(), "127.0.0.1,/a");
    assert_eq!(client.get("/b", "").text(), "127.0.0.1,/b");
    let mut client = secure::connect(server.port_of("PORT_SEALED"), &["-servername", "a"]);
    assert_eq!(client.get("/c", "").text(), "127.0.0.1,/c");
    let mut client = secure::connect(server.port_of("PORT_SEALED"), &["-servername", "b"]);
    assert_eq!(client.rest(), b"text");
    assert_eq!(ask(&server, "PORT_LOST", ""), "");
    server.read_until("error.log", "port not found for \"127.0.0.1:1\" while passing connection to port, client:");
}

/// Not in nginx: `queue` lets requests wait
#[test]
fn a_client_that_leaves_makes_its_place_in_the_queue_free() {
    let backend = echo();
    let mut server = Setup::stream(&format!(
        "log_format line '$server_port $status'; access_log line.log line;
         upstream some {{ zone some 64k; server 127.0.0.1:{} max_conns=1; queue 1 timeout=60s; }}
         server {{ listen 127.0.0.1:%%PORT_A%%; proxy_pass some; }}",
        backend.port
    ))
    .start();
    let mut first = Connection::open(server.port_of("PORT_A"));
    assert_eq!(first.send("a").take(1), b"a");
    drop(Connection::open(server.port_of("PORT_A")));
    let line = format!("{} 200\n", server.port_of("PORT_A"));
    assert_eq!(server.read_until("line.log", "\n"), line);
    let mut last = Connection::open(server.port_of("PORT_A"));
    last.send("b");
    drop(first);
    assert_eq!(last.take(1), b"b");
}

/// Differs from nginx: a client of a stream that leaves before its server is reached
#[test]
fn nobody_waits_for_a_name_whose_client_has_left() {
    let resolver = DatagramBackend::start(|_, _| Vec::new());
    let mut server = Setup::stream(&format!(
        "log_format line '$status'; access_log line.log line; resolver 127.0.0.1:{}; resolver_timeout 600s;
         server {{ listen 127.0.0.1:%%PORT_A%%; proxy_pass $server_port.example:1; }}",
        resolver.port
    ))
    .start();
    drop(Connection::open(server.port_of("PORT_A")));
    assert_eq!(server.read_until("line.log", "\n"), "200\n");
    server.read_until("error.log", "client disconnected, bytes from/to client:0/0");
}

#[test]
fn a_client_that_leaves_early_is_served_what_it_asked_for() {
    // The backend's queue is full: connecting takes until it accepts.
    let backend = collector();
    let server = Setup::stream(&format!(
        "server {{ listen 127.0.0.1:%%PORT_A%%; proxy_pass 127.0.0.1:{}; proxy_half_close on; }}
         server {{ listen 127.0.0.1:%%PORT_B%%; return 'text that is longer than nothing'; }}",
        backend.port
    ))
    .start();
    let mut client = Connection::open(server.port_of("PORT_A"));
    assert_eq!(client.send("early").end().rest(), b"got early");
    // What the client has sent and nobody reads doesn't destroy the answer.
    for _ in 0..20 {
        assert_eq!(ask(&server, "PORT_B", "nobody reads this"), "text that is longer than nothing");
    }
}

#[test]
fn what_is_refused() {
    for (stream, expect) in [
        ("server { return x; }", "no \"listen\" is defined for server in "),
        (
            "server { listen 127.0.0.1:1 ssl; return x; }",
            "no \"ssl_certificate\" is defined for the \"listen ... ssl\"",
        ),
        ("server { listen 127.0.0.1:1; proxy_pass 127.0.0.1; }", "no port in upstream \"127.0.0.1\""),
        ("server { listen 127.0.0.1:1; pass 127.0.0.1; }", "\"pass\" directive has no port"),
        ("server { listen 127.0.0.1:1; listen 127.0.0.1:1; return x; }", "duplicate listen"),
        ("server { listen 127.0.0.1:1; return $nothing; }", "unknown \"nothing\" variable"),
        ("server { listen 127.0.0.1:1; access_log x.log; return x; }", "log format is not specified"),
        ("server { listen 127.0.0.1:1; return x; return y; }", "\"return\" directive is duplicate"),
        ("server { listen 127.0.0.1:1; proxy_protocol maybe; return x; }", "invalid value \"maybe\""),
        ("upstream a { } server { listen 127.0.0.1:1; proxy_pass a; }", "no servers are inside upstream"),
        ("} stream {", "\"stream\" directive is duplicate"),
    ] {
        let said = refusal(stream);
        assert!(said.contains("[emerg]") && said.contains(expect), "{stream}: {said}");
    }
    let said = refusal("proxy_upstream_buffer 8k; server { listen 127.0.0.1:1; return x; }");
    assert!(
        said.contains("the \"proxy_upstream_buffer\" directive is deprecated, use the \"proxy_buffer_size\""),
        "{said}"
    );
    assert!(said.contains("test is successful"), "{said}");
    let said =
        refusal("server { listen 127.0.0.1:1; listen 127.0.0.1:1 udp; return x; } server { listen 127.0.0.1:2; }");
    assert!(said.contains("test is successful"), "{said}");
}

/// Not in nginx: `health_check` of streams
#[test]
fn servers_are_checked() {
    let ((dead, _nobody), echo) = (free_port(), echo());
    let mut server = Setup::stream(&format!(
        "upstream some {{ zone some 64k; server 127.0.0.1:{dead}; server 127.0.0.1:{0}; }}
         upstream wrong {{ zone wrong 64k; server 127.0.0.1:{0}; }}
         match right {{ send PING\\r\\n; expect ~ ^PI; }}
         match wrong {{ send PING; expect PONG; }}
         health_check_timeout 500ms;
         server {{ listen 127.0.0.1:%%PORT_A%%; proxy_pass some;
            health_check interval=100ms match=right mandatory; }}
         server {{ listen 127.0.0.1:%%PORT_B%%; proxy_pass wrong; health_check interval=100ms match=wrong; }}",
        echo.port
    ))
    .start();
    server.read_until(
        "error.log",
        &format!("peer is unhealthy while connecting, health check of peer 127.0.0.1:{dead} in upstream \"some\""),
    );
    server.read_until("error.log", &format!("peer is healthy, health check of peer 127.0.0.1:{}", echo.port));
    server.read_until("error.log", "peer is unhealthy while waiting for the server, health check of peer 127.0.0.1:");
    for _ in 0..4 {
        let mut client = Connection::open(server.port_of("PORT_A"));
        assert_eq!(client.send("x").take(1), b"x");
    }
    assert!(!server.read("error.log").contains("connect() failed"), "no session met the dead one");
    assert_eq!(ask(&server, "PORT_B", ""), "");
}
