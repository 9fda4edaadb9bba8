//! `set_real_ip_from`, `real_ip_header`, `real_ip_recursive`: clients that trusted proxies name.

use e2e::{Connection, Setup};

const SEEN: &str = "$remote_addr:$remote_port|$realip_remote_addr";

#[test]
fn fields() {
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; set_real_ip_from 127.0.0.1; set_real_ip_from 10.0.0.0/8;
            real_ip_header X-Forwarded-For; real_ip_recursive on; add_header X-Seen {SEEN} always;
            location / {{ return 200; }} }}
         server {{ listen 127.0.0.1:%%PORT_FIELD%%; set_real_ip_from 127.0.0.1; real_ip_header x-client;
            add_header X-Seen {SEEN} always; location / {{ return 200; }} }}
         server {{ listen 127.0.0.1:%%PORT_OTHERS%%; set_real_ip_from 10.0.0.0/8; add_header X-Seen {SEEN} always;
            location / {{ return 200; }} }}"
    ))
    .start();
    let seen = |port: &str, fields: &str| {
        let got = Connection::open(server.port_of(port)).get("/", fields);
        got.field("X-Seen").unwrap_or_default().to_owned()
    };
    for (port, fields, expect) in [
        ("PORT", "X-Forwarded-For: 1.1.1.1, 10.0.0.1:5\r\n", "1.1.1.1:|127.0.0.1"),
        ("PORT", "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: [2001:db8::1]:80\r\n", "2001:db8::1:80|127.0.0.1"),
        ("PORT", "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 10.0.0.1\r\n", "1.1.1.1:|127.0.0.1"),
        ("PORT_FIELD", "X-Client: 1.1.1.1:7\r\nX-Client: 2.2.2.2\r\n", "1.1.1.1:7|127.0.0.1"),
    ] {
        assert_eq!(seen(port, fields), expect, "{port} {fields}");
    }
    for (port, fields) in [("PORT", "X-Real-IP: 1.1.1.1\r\n"), ("PORT_OTHERS", "X-Real-IP: 1.1.1.1\r\n")] {
        let seen = seen(port, fields);
        assert!(seen.starts_with("127.0.0.1:") && !seen.starts_with("127.0.0.1:|"), "{port} {seen}");
    }
}

#[test]
fn a_connection_keeps_its_own_address() {
    let mut server = Setup::http(
        "log_format who '$remote_addr $uri'; access_log who.log who;
         server { listen 127.0.0.1:%%PORT%%; set_real_ip_from 127.0.0.0/8; location / { return 200 $remote_addr; }
            location /denied { deny 192.0.2.1; try_files /none =404; } }",
    )
    .start();
    let mut client = server.connect();
    assert_eq!(client.get("/a", "X-Real-IP: 192.0.2.1\r\n").text(), "192.0.2.1");
    assert_eq!(client.get("/b", "").text(), "127.0.0.1");
    assert_eq!(client.get("/c", "X-Real-IP: 192.0.2.2\r\n").text(), "192.0.2.2");
    assert_eq!(client.get("/denied", "X-Real-IP: 192.0.2.1\r\n").status, 403);
    let log = server.read_until("who.log", "/denied");
    assert_eq!(log, "192.0.2.1 /a\n127.0.0.1 /b\n192.0.2.2 /c\n192.0.2.1 /denied\n");
    assert!(server.read("error.log").contains("access forbidden by rule, client: 192.0.2.1,"));
}

#[test]
fn servers_before_their_rules_locations_after_them() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT_RULES%%; set_real_ip_from 127.0.0.1; real_ip_header X-A;
            if ($remote_addr = 192.0.2.9) { return 200 rules; } }
         server { listen 127.0.0.1:%%PORT%%; set_real_ip_from 127.0.0.1; real_ip_header X-A;
            location /own { real_ip_header X-B; try_files /none /answer; }
            location /answer { real_ip_header X-C; add_header X-Seen $remote_addr always; try_files /none =404; } }",
    )
    .start();
    let ruled = Connection::open(server.port_of("PORT_RULES")).get("/", "X-A: 192.0.2.9\r\n");
    assert_eq!(ruled.text(), "rules");
    // The address is replaced once, wherever the request goes.
    for (fields, expect) in [
        ("X-B: 192.0.2.1\r\nX-C: 192.0.2.2\r\n", "192.0.2.1"),
        ("X-C: 192.0.2.2\r\n", "192.0.2.2"),
        ("X-A: 192.0.2.3\r\nX-B: 192.0.2.1\r\nX-C: 192.0.2.2\r\n", "192.0.2.3"),
    ] {
        assert_eq!(server.get_with("/own", fields).field("X-Seen"), Some(expect), "{fields}");
    }
}

#[test]
fn the_proxy_protocol_and_unix_sockets() {
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%% proxy_protocol; set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;
            location / {{ return 200 {SEEN}; }} }}
         server {{ listen 127.0.0.1:%%PORT_FRONT%%;
            location / {{ proxy_pass http://unix:%%DIR%%/back.sock; proxy_set_header X-Real-IP 192.0.2.1; }} }}
         server {{ listen unix:%%DIR%%/back.sock; set_real_ip_from unix:; location / {{ return 200 {SEEN}; }} }}"
    ))
    .start();
    let got = server.raw("PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\nGET / HTTP/1.0\r\n\r\n");
    assert_eq!(got.text(), "192.0.2.1:1234|127.0.0.1");
    let got = server.raw("PROXY UNKNOWN\r\nGET / HTTP/1.0\r\n\r\n").text();
    assert!(got.starts_with("127.0.0.1:") && got.ends_with("|127.0.0.1"), "{got}");
    assert_eq!(Connection::open(server.port_of("PORT_FRONT")).get("/", "").text(), "192.0.2.1:|unix:");
}
