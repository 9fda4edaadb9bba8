//! `ssl_preread`, `mqtt_preread`, `rdp_preread`: what clients say first is known before a backend is chosen, and reaches it
//! unchanged.

use std::time::{Duration, Instant};

use e2e::{Connection, DatagramClient, Server, Setup};

fn whole(stream: &str) -> Setup {
    Setup::whole(&format!(
        "daemon off; pid nginx.pid; worker_processes 1; error_log error.log info; events {{ %%USE%% }}
         stream {{ log_format line '$status'; access_log access.log line; {stream} }}"
    ))
}

/// What a server returns to these bytes in pieces of this size.
fn ask_in_pieces(server: &Server, name: &str, bytes: &[u8], size: usize) -> String {
    let mut connection = Connection::open(server.port_of(name));
    let _ = connection.stream().set_nodelay(true);
    for part in bytes.chunks(size) {
        connection.send(part);
    }
    String::from_utf8_lossy(&connection.rest()).into_owned()
}

/// What a server returns to these bytes. Who speaks another protocol is answered at once, so they come in one piece.
fn ask(server: &Server, name: &str, bytes: &[u8]) -> String {
    ask_in_pieces(server, name, bytes, bytes.len().max(1))
}

fn vec16(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn extension(kind: u16, value: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vec16(value)].concat()
}

/// A ClientHello with this name and these protocols.
fn hello(name: &str, protocols: &[&str], versions: &[u16]) -> Vec<u8> {
    let mut extensions = Vec::new();
    if !name.is_empty() {
        extensions.extend(extension(0, &vec16(&[&[0][..], &vec16(name.as_bytes())].concat())));
    }
    if !protocols.is_empty() {
        let list: Vec<u8> = protocols.iter().flat_map(|p| [&[p.len() as u8][..], p.as_bytes()].concat()).collect();
        extensions.extend(extension(16, &vec16(&list)));
    }
    if !versions.is_empty() {
        let list: Vec<u8> = versions.iter().flat_map(|version| version.to_be_bytes()).collect();
        extensions.extend(extension(43, &[&[list.len() as u8][..], &list].concat()));
    }
    let body = [&[3, 3][..], &[7; 32], &[0], &vec16(&[0x13, 1]), &[1, 0], &vec16(&extensions)].concat();
    let message = [&[1][..], &(body.len() as u32).to_be_bytes()[1..], &body].concat();
    [&[22, 3, 1][..], &vec16(&message)].concat()
}

#[test]
fn tls_clients_tell_name_protocols_and_version() {
    let server = whole(
        "ssl_preread on;
         server { listen 127.0.0.1:%%PORT%%; server_name a.example;
             return '$server_name [$ssl_preread_server_name] [$ssl_preread_alpn_protocols] [$ssl_preread_protocol]'; }
         server { listen 127.0.0.1:%%PORT%%; server_name b.example ~^c(?<rest>.*)$; return '$server_name $rest'; }
         server { listen 127.0.0.1:%%PORT_off%%; ssl_preread off; return '[$ssl_preread_server_name]'; }",
    )
    .start();
    let check = |bytes: &[u8], expect: &str| assert_eq!(ask(&server, "PORT", bytes), expect);
    check(&hello("a.example", &["h2", "http/1.1"], &[0x0304, 0x0303]), "a.example [a.example] [h2,http/1.1] [TLSv1.3]");
    check(&hello("A.Example", &[], &[]), "a.example [A.Example] [] [TLSv1.2]");
    check(&hello("", &["imap"], &[]), "a.example [] [imap] [TLSv1.2]");
    check(&hello("other", &[], &[0x7f1c]), "a.example [other] [] [TLSv1.3]");
    check(&hello("B.example", &[], &[]), "b.example ");
    check(&hello("c.org", &[], &[]), "b.example .org");
    let whole = hello("a.example", &["h2"], &[0x0304]);
    for size in [1, 5, 50] {
        let expect = "a.example [a.example] [h2] [TLSv1.3]";
        assert_eq!(ask_in_pieces(&server, "PORT", &whole, size), expect, "pieces of {size}");
    }
    // Those who speak something else are served too.
    check(b"GET / HTTP/1.1\r\n", "a.example [] [] []");
    check(b"\x80\x1c\x01\0\x02\0\x03\0\0\0\x10", "a.example [] [] [SSLv2]");
    check(b"\x16\x03\x01\0\x05\x02\0\0\0\0", "a.example [] [] []");
    assert_eq!(ask(&server, "PORT_off", &hello("a.example", &[], &[])), "[]");
}

#[test]
fn a_first_message_that_is_too_long_or_late_is_not_served() {
    let mut server = whole(
        "ssl_preread on; preread_timeout 200ms;
         server { listen 127.0.0.1:%%PORT_full%%; preread_buffer_size 42; return full; }
         server { listen 127.0.0.1:%%PORT_late%%; return late; }",
    )
    .start();
    let whole = hello("a.example", &[], &[]);
    for size in [whole.len(), 1] {
        let mut connection = Connection::open(server.port_of("PORT_full"));
        whole.chunks(size).all(|part| connection.try_send(part));
        assert!(connection.closed(), "pieces of {size}");
    }
    server.read_until("error.log", "preread buffer full while prereading client data, client: 127.0.0.1");
    let log = server.read_until("access.log", "400\n400\n");
    assert_eq!(log, "400\n400\n");
    let begin = Instant::now();
    for bytes in [&b""[..], b"\x16", &hello("a.example", &[], &[])[..60]] {
        let mut silent = Connection::open(server.port_of("PORT_late"));
        silent.send(bytes);
        assert_eq!(silent.rest(), b"", "{bytes:?}");
    }
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn what_was_read_reaches_the_backend() {
    let server = whole(
        "map $ssl_preread_server_name $to { b.example 127.0.0.1:%%PORT_b%%; default 127.0.0.1:%%PORT_a%%; }
         server { listen 127.0.0.1:%%PORT%%; ssl_preread on; proxy_pass $to; }
         server { listen 127.0.0.1:%%PORT_a%%; ssl_preread on; return 'a $ssl_preread_server_name'; }
         server { listen 127.0.0.1:%%PORT_b%%; ssl_preread on; return 'b $ssl_preread_server_name'; }",
    )
    .start();
    assert_eq!(ask(&server, "PORT", &hello("b.example", &[], &[])), "b b.example");
    assert_eq!(ask(&server, "PORT", &hello("c.example", &[], &[])), "a c.example");
    assert_eq!(ask(&server, "PORT", b"SSH-2.0-x\r\n"), "a ");
}

fn mqtt(level: u8, flags: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = [&vec16(b"MQTT")[..], &[level, flags, 0, 60], &parts.concat()].concat();
    [&[0x10, body.len() as u8][..], &body].concat()
}

/// Not in nginx: `mqtt_preread`
#[test]
fn mqtt_clients_tell_identifier_and_user() {
    let server = whole(
        "server { listen 127.0.0.1:%%PORT%%; mqtt_preread on; return '[$mqtt_preread_clientid] [$mqtt_preread_username]'; }",
    )
    .start();
    let check = |bytes: &[u8], expect: &str| assert_eq!(ask(&server, "PORT", bytes), expect);
    let (id, user) = (vec16(b"sensor-7"), vec16(b"alice"));
    check(&mqtt(4, 0x82, &[&id, &user]), "[sensor-7] [alice]");
    check(&mqtt(5, 0xc6, &[&[0], &id, &[0], &vec16(b"t"), &vec16(b"m"), &user, &vec16(b"pw")]), "[sensor-7] [alice]");
    check(&mqtt(4, 2, &[&vec16(b"")]), "[] []");
    assert_eq!(ask_in_pieces(&server, "PORT", &mqtt(4, 0x82, &[&id, &user]), 1), "[sensor-7] [alice]");
    check(b"\x20\x02\0\0", "[] []");
    check(b"\x10\xff\xff\xff\xff\xff", "[] []");
    check(&mqtt(4, 0x80, &[&vec16(b"no user")]), "[] []");
}

fn rdp(variable: &[u8]) -> Vec<u8> {
    let length = 11 + variable.len();
    [&[3, 0, (length >> 8) as u8, length as u8, (length - 5) as u8, 0xe0, 0, 0, 0, 0, 0][..], variable].concat()
}

/// Not in nginx: `rdp_preread`
#[test]
fn rdp_clients_tell_their_cookie() {
    let server = whole(
        "server { listen 127.0.0.1:%%PORT%%; rdp_preread on; return '[$rdp_cookie] [$rdp_cookie_mstshash] [$rdp_cookie_msts]'; }",
    )
    .start();
    let check = |bytes: &[u8], expect: &str| assert_eq!(ask(&server, "PORT", bytes), expect);
    let negotiation = [1, 0, 8, 0, 3, 0, 0, 0];
    check(&rdp(&[b"Cookie: mstshash=alice\r\n", &negotiation[..]].concat()), "[mstshash=alice] [alice] []");
    check(&rdp(b"Cookie: msts=3640205228.15629.0000\r\n"), "[msts=3640205228.15629.0000] [] [3640205228.15629.0000]");
    check(&rdp(&negotiation), "[] [] []");
    assert_eq!(ask_in_pieces(&server, "PORT", &rdp(b"Cookie: mstshash=bob\r\n"), 1), "[mstshash=bob] [bob] []");
    check(b"\x03\0\xff\xff\xff\xd0 garbage", "[] [] []");
    check(b"\xff\0\0\0", "[] [] []");
}

/// Not in nginx: `mqtt_preread`
#[test]
fn a_datagram_is_all_there_is_to_read() {
    let server = whole(
        "server { listen 127.0.0.1:%%UDP%% udp; ssl_preread on; mqtt_preread on;
             return '[$ssl_preread_server_name] [$mqtt_preread_clientid]'; }",
    )
    .start();
    let client = DatagramClient::new(server.port_of("UDP"));
    assert_eq!(client.ask(hello("a.example", &[], &[])), "[a.example] []");
    assert_eq!(client.ask(mqtt(4, 2, &[&vec16(b"x")])), "[] [x]");
    assert_eq!(client.ask(&hello("a.example", &[], &[])[..20]), "[] []");
    assert_eq!(client.ask(""), "[] []");
}
