//! TLS on the loop: large bodies, backends, handshakes that don't go on, tunnels that move.

use std::io::{Read, Write};
use std::net::TcpStream;

use e2e::{EC, Setup, certificate, curl, echo_over_reloads, secure};

use crate::handover::echo;

#[test]
fn large_bodies_and_plain_requests() {
    let big: Vec<u8> = (0..5_000_000u32).map(|n| (n * 7 / 5) as u8).collect();
    let setup = Setup::http(
        "server { listen 127.0.0.1:%%PORT%% ssl; root %%DIR%%/root; client_max_body_size 10m;
            ssl_certificate %%DIR%%/one.test.crt; ssl_certificate_key %%DIR%%/one.test.key;
            location /small/ { alias %%DIR%%/root/; ssl_off; }
            location /up/ { proxy_pass http://127.0.0.1:%%PORT_b%%/; } }
        server { listen 127.0.0.1:%%PORT_b%%; root %%DIR%%/root; client_max_body_size 10m;
            error_page 405 =200 /echo; location = /echo { return 200 $request_length; } }"
            .replace(" ssl_off;", "")
            .as_str(),
    )
    .file("root/big", &big);
    certificate(setup.folder(), "one.test", EC);
    let server = setup.start();
    let url = format!("https://127.0.0.1:{}", server.port());
    assert!(curl(&["-k", &format!("{url}/big")]) == big);
    assert!(curl(&["-k", &format!("{url}/up/big")]) == big);
    assert!(curl(&["-k", "-r", "1000-1999999", &format!("{url}/big")]) == big[1000..2_000_000]);
    // Two requests in one connection, the second one through the cache of sessions or not.
    assert!(curl(&["-k", &format!("{url}/big"), &format!("{url}/big")]).len() == 2 * big.len());
    let plain = curl(&[&format!("http://127.0.0.1:{}/", server.port())]);
    assert!(String::from_utf8_lossy(&plain).contains("The plain HTTP request was sent to HTTPS port"));
}

/// Differs from nginx: of several trusted certificates
#[test]
fn backends_over_tls() {
    let setup = Setup::http(
        "upstream kept { server 127.0.0.1:%%PORT_b%%; }
        server { listen 127.0.0.1:%%PORT%%;
            proxy_ssl_trusted_certificate %%DIR%%/one.test.crt;
            location /any { proxy_pass https://127.0.0.1:%%PORT_b%%; }
            location /good { proxy_pass https://kept; proxy_ssl_verify on; proxy_ssl_server_name on; proxy_ssl_name one.test; }
            location /bad { proxy_pass https://127.0.0.1:%%PORT_b%%; proxy_ssl_verify on; proxy_ssl_name two.test; }
            location /plain { proxy_pass https://127.0.0.1:%%PORT%%; } }
        server { listen 127.0.0.1:%%PORT_b%% ssl;
            ssl_certificate %%DIR%%/one.test.crt; ssl_certificate_key %%DIR%%/one.test.key;
            location / { return 200 \"$ssl_server_name $connection_requests\"; } }",
    );
    certificate(setup.folder(), "one.test", EC);
    let server = setup.start();
    assert_eq!(server.get("/any").text(), " 1");
    assert_eq!(server.get("/good").text(), "one.test 1");
    assert_eq!(server.get("/good").text(), "one.test 2");
    assert_eq!(server.get("/bad").status, 502);
    assert_eq!(server.get("/plain").status, 502);
    let log = server.read("error.log");
    assert!(log.contains("upstream SSL certificate does not match \"two.test\" while SSL handshaking"), "{log}");
    assert!(log.contains("SSL_do_handshake() failed (SSL: "), "{log}");
}

#[test]
fn slow_and_broken_handshakes_end() {
    let setup = Setup::http(
        "client_header_timeout 1s;
        server { listen 127.0.0.1:%%PORT%% ssl; return 200 ok;
            ssl_certificate %%DIR%%/one.test.crt; ssl_certificate_key %%DIR%%/one.test.key; }",
    );
    certificate(setup.folder(), "one.test", EC);
    let server = setup.start();
    for bytes in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"\x16\x03\x01\x00\x04\x01\xff\xff\xff"] {
        let mut client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        client.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        assert!(answer.len() <= 7, "{answer:?}");
    }
    assert_eq!(curl(&["-k", &format!("https://127.0.0.1:{}/", server.port())]), b"ok");
}

/// Not in nginx: under TLS, their keys
#[test]
fn tunnels_move_with_their_keys() {
    let backend = echo();
    let setup = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%% ssl;
            ssl_certificate %%DIR%%/one.test.crt; ssl_certificate_key %%DIR%%/one.test.key;
            location / {{ proxy_pass http://127.0.0.1:{}; proxy_http_version 1.1;
                proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }} }}",
        backend.port
    ));
    certificate(setup.folder(), "one.test", EC);
    let mut server = setup.start();
    let tunnels = ["-tls1_3", "-tls1_2"].map(|version| {
        let mut tunnel = secure::connect(server.port(), &[version]);
        tunnel.send("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n");
        assert_eq!(tunnel.response().status, 101, "{version}");
        assert_eq!(tunnel.take(5), b"hello", "{version}");
        tunnel
    });
    echo_over_reloads(&mut server, tunnels.into(), 8 << 20);
}
