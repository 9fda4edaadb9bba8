//! `mail {}`: what clients and servers are told, and what the server of `auth_http` is asked.

use std::io::Read;

use e2e::mail::{Talk, allow, allowed, auth, backend, base64, heard, imap, pop3, setup, smtp};
use e2e::{Backend, EC, NameServer, RSA, certificate, secure};

/// Clients are told what this server speaks, before and instead of a login.
#[test]
fn commands() {
    let server = setup(
        "auth_http 127.0.0.1:1; max_errors 100;
         server { listen 127.0.0.1:%%PORT%%; protocol imap; imap_capabilities IMAP4rev1 \"X Y\"; imap_auth plain cram-md5 external; }
         server { listen 127.0.0.1:%%PORT_pop%%; protocol pop3; pop3_auth plain apop cram-md5; }
         server { listen 127.0.0.1:%%PORT_smtp%%; protocol smtp; smtp_capabilities \"SIZE 10\" X; smtp_auth plain login external; }",
    )
    .start();
    let mut client = Talk::open(server.port());
    client.expect(&["* OK IMAP4 ready"]);
    client.say("a NOOP", &["a OK completed"]).say("a.b-c_1  noop x", &["a.b-c_1 OK completed"]);
    let capabilities = "* CAPABILITY IMAP4rev1 X Y AUTH=PLAIN AUTH=CRAM-MD5 AUTH=EXTERNAL";
    client.say("a CAPABILITY", &[capabilities, "a OK completed"]);
    for (line, answer) in [
        ("", "* BAD"),
        ("a", "* BAD"),
        ("a+b NOOP", "* BAD"),
        ("a FOO", "a BAD"),
        ("a STARTTLS", "a BAD"),
        ("a LOGIN u", "a BAD"),
        ("a LOGIN \"\" \"\"", "a BAD"),
        ("a LOGIN \"\" p", "a BAD"),
        ("a LOGIN u p q", "a BAD"),
        ("a LOGIN \"u p", "a BAD"),
        ("a AUTHENTICATE", "a BAD"),
        ("a AUTHENTICATE FOO", "a BAD"),
        ("a AUTHENTICATE CRAM-MD5 x", "a BAD"),
    ] {
        client.say(line, &[&format!("{answer} invalid command")]);
    }
    client.say("a LOGOUT", &["* BYE", "a OK completed"]).end();
    let mut client = Talk::open(server.port_of("PORT_pop"));
    client.expect(&["+OK POP3 ready <*"]).say("NOOP", &["+OK"]);
    let capabilities = ["+OK Capability list follows", "TOP", "USER", "UIDL", "SASL PLAIN LOGIN CRAM-MD5", "."];
    client.say("capa", &capabilities).say("AUTH", &["+OK methods supported:", "PLAIN", "LOGIN", "CRAM-MD5", "."]);
    for line in ["", "STAT", "USER", "PASS x", "APOP u", "STLS", "AUTH FOO", "AUTH EXTERNAL"] {
        client.say(line, &["-ERR invalid command"]);
    }
    // After a wrong command the name is forgotten.
    client.say("USER u", &["+OK"]).say("NOOP", &["+OK"]).say("USER v", &["-ERR*"]).say("PASS p", &["-ERR*"]);
    client.say("QUIT", &["+OK"]).end();
    let mut client = Talk::open(server.port_of("PORT_smtp"));
    client.expect(&["220 mx.test ESMTP ready"]);
    client.say("EHLO c", &["250-mx.test", "250-SIZE 10", "250-X", "250 AUTH PLAIN LOGIN EXTERNAL"]);
    for (line, answer) in [
        ("helo c", "250 mx.test"),
        ("NOOP", "250 2.0.0 OK"),
        ("RSET", "250 2.0.0 OK"),
        ("HELO", "501 5.5.4 Invalid argument"),
        ("EHLO a b", "501 5.5.4 Invalid argument"),
        ("AUTH", "501 5.5.4 Invalid argument"),
        ("AUTH FOO", "500 5.5.1 Invalid command"),
        ("AUTH CRAM-MD5", "500 5.5.1 Invalid command"),
        ("STARTTLS", "500 5.5.1 Invalid command"),
        ("DATA", "500 5.5.1 Invalid command"),
        ("RCPT TO:<a>", "503 5.5.1 Bad sequence of commands"),
        ("MAIL FROM:<a>", "530 5.7.1 Authentication required"),
        ("QUIT", "221 2.0.0 Bye"),
    ] {
        client.say(line, &[answer]);
    }
    client.end();
}

/// What a client says, where it is told to whom, and the answer of the server that has its mail.
#[test]
fn logins() {
    let (imaps, pops, smtps) = (imap(), pop3(), smtp());
    let ports = [imaps.port, pops.port, smtps.port];
    let who = auth(move |request| {
        let port = match request.field("Auth-Protocol") {
            Some("imap") => ports[0],
            Some("pop3") => ports[1],
            _ => ports[2],
        };
        let digest = if request.field("Auth-Salt").is_some() { "\r\nAuth-Pass: from%20auth" } else { "" };
        let external = request.field("Auth-Method") == Some("external");
        let more = if external { "\r\nAuth-User: other\r\nAuth-Pass: theirs" } else { digest };
        allowed(port) + more
    });
    let server = setup(&format!(
        "auth_http http://127.0.0.1:{}/path?x=y; auth_http_header X-Key \"a b\"; xclient off; proxy_smtp_auth on;
         server {{ listen 127.0.0.1:%%PORT%%; protocol imap; imap_auth plain login cram-md5 external; }}
         server {{ listen 127.0.0.1:%%PORT_pop%%; protocol pop3; pop3_auth plain apop cram-md5 external; }}
         server {{ listen 127.0.0.1:%%PORT_smtp%%; protocol smtp; smtp_auth plain login cram-md5 external; }}",
        who.port
    ))
    .start();
    let plain = base64(b"\0us er\0pa\"ss%");
    let (user, password) = (base64(b"us er"), base64(b"pa\"ss%"));
    let digest = "0123456789abcdef0123456789abcdef";
    let cram = base64(format!("u {digest}").as_bytes());
    // Each line with the beginning of its answer.
    let imap_ways: [&[(&str, &str)]; 8] = [
        &[("a LOGIN \"us er\" \"pa\\\"ss%\"", "a OK in")],
        &[("a LOGIN {5}", "+ OK"), ("us er {6}", "+ OK"), ("pa\"ss%", "a OK in")],
        &[("a LOGIN {5+}\r\nus er {6+}\r\npa\"ss%", "a OK in")],
        &[(&format!("a AUTHENTICATE PLAIN {plain}"), "a OK in")],
        &[("a AUTHENTICATE PLAIN", "+ "), (&plain, "a OK in")],
        &[("a AUTHENTICATE LOGIN", "+ VXNlcm5hbWU6"), (&user, "+ UGFzc3dvcmQ6"), (&password, "a OK in")],
        &[("a AUTHENTICATE CRAM-MD5", "+ PD*"), (&cram, "a OK in")],
        &[("a AUTHENTICATE EXTERNAL", "+ VXNlcm5hbWU6"), (&user, "a OK in")],
    ];
    for way in imap_ways {
        let mut client = Talk::open(server.port());
        client.expect(&["* OK IMAP4 ready"]);
        for (line, answer) in way {
            client.say(line, &[answer]);
        }
        client.say("b SELECT x", &["b OK done: b SELECT x"]);
    }
    let apop = format!("APOP u {digest}");
    let pop_ways: [&[(&str, &str)]; 5] = [
        &[("USER us er", "+OK"), ("PASS pa\"ss%", "+OK PASS pa\"ss%")],
        &[(&apop, "+OK PASS from%20auth")],
        &[("AUTH PLAIN", "+ "), (&plain, "+OK PASS pa\"ss%")],
        &[(&format!("AUTH LOGIN {user}"), "+ UGFzc3dvcmQ6"), (&password, "+OK PASS pa\"ss%")],
        &[("AUTH CRAM-MD5", "+ PD*"), (&cram, "+OK PASS from%20auth")],
    ];
    for way in pop_ways {
        let mut client = Talk::open(server.port_of("PORT_pop"));
        client.expect(&["+OK POP3 ready <*"]);
        for (line, answer) in way {
            client.say(line, &[answer]);
        }
        client.say("STAT", &["+OK STAT"]);
    }
    for (hello, way) in [("EHLO c", format!("AUTH PLAIN {plain}")), ("HELO c", format!("AUTH EXTERNAL {user}"))] {
        let mut client = Talk::open(server.port_of("PORT_smtp"));
        client.expect(&["220 mx.test ESMTP ready"]).0.send(format!("{hello}\r\n"));
        while !client.hear().starts_with("250 ") {}
        client.say(&way, &["235 2.0.0 OK"]).say("MAIL FROM:<x>", &["250 MAIL FROM:<x>"]);
    }
    let expect = ["a LOGIN {5}", "us er {6}", "pa\"ss%", "b SELECT x"];
    assert_eq!(heard(&imaps)[..4], expect);
    assert!(heard(&imaps).windows(3).any(|lines| lines == ["a LOGIN {5}", "other {6}", "theirs"]));
    assert!(heard(&imaps).windows(3).any(|lines| lines == ["a LOGIN {1}", "u {11}", "from%20auth"]));
    assert!(heard(&pops).windows(2).any(|lines| lines == ["USER u", "PASS from%20auth"]));
    let other = format!("AUTH PLAIN {}", base64(b"\0other\0theirs"));
    assert!(heard(&smtps).windows(2).any(|lines| lines == ["EHLO mx.test", &format!("AUTH PLAIN {plain}")]));
    assert!(heard(&smtps).windows(2).any(|lines| lines == ["HELO mx.test", &other]));
    let asked = who.requests();
    let first = "GET /path?x=y HTTP/1.0\r\nHost: 127.0.0.1\r\nAuth-Method: plain\r\nAuth-User: us%20er\r\n\
                 Auth-Pass: pa\"ss%25\r\nAuth-Protocol: imap\r\nAuth-Login-Attempt: 1\r\nClient-IP: 127.0.0.1\r\nX-Key: a b";
    assert_eq!(asked[0].head, first);
    assert!(asked.iter().take(6).all(|request| request.head == first));
    let digests = asked.iter().filter(|request| request.field("Auth-Salt").is_some());
    for request in digests {
        let salt = request.field("Auth-Salt").expect("it has one");
        assert!(salt.starts_with('<') && salt.ends_with("@mx.test>"), "{salt}");
        assert_eq!((request.field("Auth-User"), request.field("Auth-Pass")), (Some("u"), Some(digest)));
    }
    let log = server.read("error.log");
    let details = format!(
        "client: 127.0.0.1, server: 127.0.0.1:{}, login: \"us er\", upstream: 127.0.0.1:{}",
        server.port(),
        imaps.port
    );
    assert!(log.contains(&format!(" client logged in, {details}\n")), "{log}");
}

/// Who may not log in is told why, and may try again after the time that the server says.
#[test]
fn refusals() {
    let who = auth(|request| match request.field("Auth-User") {
        Some("wait") => "Auth-Status: Not so fast\r\nAuth-Wait: 1".to_owned(),
        Some("code") => "Auth-Status: Later\r\nAuth-Error-Code: 451 4.3.0\r\nAuth-Wait: 1".to_owned(),
        _ => "Auth-Status: No".to_owned(),
    });
    let server = setup(&format!(
        "auth_http 127.0.0.1:{};
         server {{ listen 127.0.0.1:%%PORT%%; protocol imap; }}
         server {{ listen 127.0.0.1:%%PORT_pop%%; protocol pop3; }}
         server {{ listen 127.0.0.1:%%PORT_smtp%%; protocol smtp; }}",
        who.port
    ))
    .start();
    let mut client = Talk::open(server.port());
    client.expect(&["* OK*"]).say("a LOGIN wait p\r\nb NOOP", &["a NO Not so fast", "b OK completed"]);
    client.say("c LOGIN no p", &["c NO No"]).end();
    let mut client = Talk::open(server.port_of("PORT_pop"));
    client.expect(&["+OK*"]).say("USER no\r\nPASS p", &["+OK", "-ERR No"]).end();
    let mut client = Talk::open(server.port_of("PORT_smtp"));
    client.expect(&["220*"]);
    client.say(&format!("AUTH PLAIN {}", base64(b"\0wait\0p")), &["535 5.7.0 Not so fast"]);
    client.say(&format!("AUTH PLAIN {}", base64(b"\0code\0p")), &["451 4.3.0 Later"]);
    client.say(&format!("AUTH PLAIN {}", base64(b"\0no\0p")), &["535 5.7.0 No"]).end();
    let attempts = who.requests();
    let attempts: Vec<_> = attempts.iter().filter_map(|request| request.field("Auth-Login-Attempt")).collect();
    assert_eq!(attempts, ["1", "2", "1", "1", "2", "3"]);
    let log = server.read("error.log");
    assert!(log.contains("client login failed: \"Not so fast\" while in http auth state, client: 127.0.0.1"), "{log}");
}

/// SMTP servers are told who the client is, and what it has said so far.
#[test]
fn senders() {
    let smtps = smtp();
    let who = allow(smtps.port);
    let names = NameServer::start("client.test");
    let server = setup(&format!(
        "auth_http 127.0.0.1:{}; smtp_auth none plain;
         server {{ listen 127.0.0.1:%%PORT%%; protocol smtp; resolver 127.0.0.1:{} ipv6=off; }}
         server {{ listen 127.0.0.1:%%PORT_off%%; protocol smtp; xclient off; resolver off; }}
         server {{ listen 127.0.0.1:%%PORT_v6%% proxy_protocol; protocol smtp; set_real_ip_from 127.0.0.1; }}",
        who.port, names.port
    ))
    .start();
    let mut client = Talk::open(server.port());
    client.expect(&["220*"]).say("EHLO c", &["250-mx.test", "250 AUTH PLAIN"]);
    client.say("MAIL FROM:<a b> SIZE=1", &["250 2.0.0 OK"]).say("MAIL FROM:<c>", &["503*"]);
    client.say("RCPT TO:<d>\r\nRCPT TO:<e>\r\nDATA", &["250 RCPT TO:<d>", "250 RCPT TO:<e>", "250 DATA"]);
    let request = &who.requests()[0];
    for (name, value) in [
        ("Auth-Method", "none"),
        ("Auth-User", ""),
        ("Auth-Pass", ""),
        ("Client-Host", "client.test"),
        ("Auth-SMTP-Helo", "c"),
        ("Auth-SMTP-From", "MAIL FROM:<a b> SIZE=1"),
        ("Auth-SMTP-To", "RCPT TO:<d>"),
    ] {
        assert_eq!(request.field(name), Some(value), "{name}");
    }
    let mut client = Talk::open(server.port_of("PORT_off"));
    client.expect(&["220*"]).say("MAIL FROM:<a>", &["250*"]).say("RCPT TO:<b>", &["250 RCPT TO:<b>"]);
    assert_eq!(who.requests()[1].field("Client-Host"), Some("[UNAVAILABLE]"));
    let mut client = Talk::open(server.port_of("PORT_v6"));
    client.say("PROXY TCP6 2001:db8::1 ::1 123 5678", &["220*"]).say("HELO d", &["250 mx.test"]);
    client.say(&format!("AUTH PLAIN {}", base64(b"\0us er+\0p")), &["235*"]);
    assert_eq!(
        heard(&smtps),
        [
            "EHLO mx.test",
            "XCLIENT ADDR=127.0.0.1 NAME=client.test",
            "EHLO c",
            "MAIL FROM:<a b> SIZE=1",
            "RCPT TO:<d>",
            "RCPT TO:<e>",
            "DATA",
            "HELO mx.test",
            "MAIL FROM:<a>",
            "RCPT TO:<b>",
            "EHLO mx.test",
            "XCLIENT ADDR=IPV6:2001:db8::1 LOGIN=us+20er+2B NAME=[UNAVAILABLE]",
            "HELO d",
        ]
    );
}

/// A server that holds connections, and says nothing.
fn silent() -> Backend {
    Backend::sockets(|mut stream, _| _ = stream.read_to_end(&mut Vec::new()))
}

/// A server that refuses is an error here, or its words are passed on.
#[test]
fn servers_that_refuse() {
    let refuse = |greeting, answer: &'static str| backend(greeting, move |_| answer.to_owned());
    let servers = [
        (silent(), ""),
        (refuse("* BYE go away\r\n", ""), "* BYE go away"),
        (refuse("* OK\r\n", "a BAD x\r\n"), "a BAD x"),
    ];
    let ports: Vec<u16> = servers.iter().map(|(server, _)| server.port).collect();
    let who = auth(move |request| {
        let at: usize = request.field("Auth-User").and_then(|user| user.parse().ok()).unwrap_or(9);
        allowed(ports.get(at).copied().unwrap_or(1))
    });
    let mut server = setup(&format!(
        "auth_http 127.0.0.1:{}; timeout 400ms;
         server {{ listen 127.0.0.1:%%PORT%%; protocol imap; }}
         server {{ listen 127.0.0.1:%%PORT_on%%; protocol imap; proxy_pass_error_message on; proxy_buffer 64; }}",
        who.port
    ))
    .start();
    for user in ["1", "2", "9"] {
        let mut client = Talk::open(server.port());
        client.expect(&["* OK*"]).say(&format!("a LOGIN {user} p"), &["* BAD internal server error"]).end();
    }
    for (user, answer) in [("1", servers[1].1), ("2", servers[2].1), ("9", "* BAD internal server error")] {
        let mut client = Talk::open(server.port_of("PORT_on"));
        client.expect(&["* OK*"]).say(&format!("a LOGIN {user} p"), &[answer]).end();
    }
    // A server that says nothing is waited for no longer than the client may take.
    let mut client = Talk::open(server.port());
    client.expect(&["* OK*"]).say("a LOGIN 0 p", &["* BAD internal server error"]).end();
    let log = server.read_until("error.log", "upstream timed out (110: Connection timed out)");
    assert!(
        log.contains("[error]") && log.contains("upstream sent invalid response: \"* BYE go away\" while reading"),
        "{log}"
    );
    assert!(log.contains("(111: Connection refused) while"), "{log}");
}

/// What goes wrong with `auth_http` is an internal error to clients, and the log says which.
#[test]
fn answers_that_are_none() {
    let who = auth(|request| {
        let answer = match request.field("Auth-User").unwrap_or_default() {
            "server" => "Auth-Status: OK\r\nAuth-Port: 1",
            "port" => "Auth-Status: OK\r\nAuth-Server: 127.0.0.1\r\nAuth-Port: 65536",
            "name" => "Auth-Status: OK\r\nAuth-Server: localhost\r\nAuth-Port: 1",
            "header" => "Auth Status: OK",
            _ => "",
        };
        answer.to_owned()
    });
    let silent = silent();
    let server = setup(&format!(
        "auth_http_timeout 300ms;
         server {{ listen 127.0.0.1:%%PORT%%; protocol imap; auth_http 127.0.0.1:{}; imap_auth plain external; }}
         server {{ listen 127.0.0.1:%%PORT_silent%%; protocol imap; auth_http 127.0.0.1:{}; }}
         server {{ listen 127.0.0.1:%%PORT_dead%%; protocol pop3; auth_http 127.0.0.1:1; }}
         server {{ listen 127.0.0.1:%%PORT_unix%%; protocol smtp; auth_http unix:%%DIR%%/none:/x; }}",
        who.port, silent.port
    ))
    .start();
    for user in ["server", "port", "name", "header", "nothing"] {
        let mut client = Talk::open(server.port());
        client.expect(&["* OK*"]).say(&format!("a LOGIN {user} p"), &["* BAD internal server error"]).end();
    }
    let mut client = Talk::open(server.port_of("PORT_silent"));
    client.expect(&["* OK*"]).say("a LOGIN u p", &["* BAD internal server error"]).end();
    let mut client = Talk::open(server.port_of("PORT_dead"));
    client.expect(&["+OK*"]).say("USER u\r\nPASS p", &["+OK", "-ERR internal server error"]).end();
    let mut client = Talk::open(server.port_of("PORT_unix"));
    let plain = format!("AUTH PLAIN {}", base64(b"\0u\0p"));
    client.expect(&["220*"]).say(&plain, &["451 4.3.2 Internal server error"]).end();
    let log = server.read("error.log");
    for message in [
        "did not send server or port while in http auth state, client: 127.0.0.1",
        "sent invalid server port:\"65536\" while",
        "sent invalid server address:\"localhost\" while",
        "sent invalid header in response while",
        "timed out (110: Connection timed out) while in http auth state",
        "(111: Connection refused) while in http auth state",
        "(2: No such file or directory) while in http auth state",
    ] {
        assert!(log.contains(message), "{message} isn't in {log}");
    }
}

/// The PROXY protocol goes both ways.
#[test]
fn proxy_protocol() {
    let heads = backend("* OK\r\n", |_| "+ go\r\n".to_owned());
    let who = allow(heads.port);
    let server = setup(&format!(
        "auth_http 127.0.0.1:{}; proxy_protocol on; timeout 500ms;
         server {{ listen 127.0.0.1:%%PORT%% proxy_protocol; protocol imap; }}
         server {{ listen 127.0.0.1:%%PORT_real%% proxy_protocol; protocol imap; set_real_ip_from 127.0.0.0/8; }}",
        who.port
    ))
    .start();
    for (name, address) in [("PORT", "127.0.0.1"), ("PORT_real", "192.0.2.1")] {
        let mut client = Talk::open(server.port_of(name));
        client.say("PROXY TCP4 192.0.2.1 192.0.2.2 123 5678", &["* OK*"]).say("a NOOP", &["a OK*"]);
        client.say("a LOGIN u p", &["* BAD*"]).end();
        let requests = who.requests();
        let request = requests.last().expect("it was asked");
        for (field, value) in [
            ("Client-IP", address),
            ("Proxy-Protocol-Addr", "192.0.2.1"),
            ("Proxy-Protocol-Port", "123"),
            ("Proxy-Protocol-Server-Addr", "192.0.2.2"),
            ("Proxy-Protocol-Server-Port", "5678"),
        ] {
            assert_eq!(request.field(field), Some(value), "{name} {field}");
        }
        let start = format!("PROXY TCP4 {address} 127.0.0.1 ");
        assert!(heard(&heads).iter().any(|line| line.starts_with(&start)), "{:?}", heard(&heads));
    }
    let mut client = Talk::open(server.port());
    client.0.send("a NOOP\r\n");
    client.end();
    assert!(server.read("error.log").contains("while reading PROXY protocol, client: 127.0.0.1, server: "));
}

/// A header of the PROXY protocol has addresses of one family.
///
/// Differs from nginx: version 1 of the header of the PROXY protocol names addresses of two families
#[test]
fn proxy_protocol_of_two_families() {
    let heads = backend("* OK\r\n", |_| String::new());
    let who = allow(heads.port);
    let server = setup(&format!(
        "auth_http 127.0.0.1:{}; proxy_protocol on;
         server {{ listen 127.0.0.1:%%PORT%% proxy_protocol; protocol imap; set_real_ip_from 127.0.0.0/8; }}",
        who.port
    ))
    .start();
    let mut client = Talk::open(server.port());
    client.say("PROXY TCP6 2001:db8::1 2001:db8::2 5 80", &["* OK*"]).say("a LOGIN u p", &["* BAD*"]).end();
    assert_eq!(heard(&heads)[0], format!("PROXY TCP6 2001:db8::1 ::ffff:127.0.0.1 5 {}", server.port()));
}

/// TLS from the beginning or within the session; who has to begin it can't log in before.
#[test]
fn tls() {
    let who = auth(|_| "Auth-Status: No".to_owned());
    let setup = setup(&format!(
        "auth_http 127.0.0.1:{}; ssl_certificate site.crt; ssl_certificate_key site.key; smtp_auth plain none;
         server {{ listen 127.0.0.1:%%PORT%% ssl; protocol imap; starttls on; }}
         server {{ listen 127.0.0.1:%%PORT_imap%%; protocol imap; starttls only; }}
         server {{ listen 127.0.0.1:%%PORT_pop3%%; protocol pop3; starttls only; }}
         server {{ listen 127.0.0.1:%%PORT_smtp%%; protocol smtp; starttls on; }}",
        who.port
    ));
    certificate(setup.folder(), "site", EC);
    let server = setup.start();
    let mut client = Talk(secure::connect(server.port(), &["-alpn", "imap"]));
    client.expect(&["* OK*"]).say("a CAPABILITY", &["* CAPABILITY IMAP4 IMAP4rev1 UIDPLUS AUTH=PLAIN", "a OK*"]);
    client.say("a STARTTLS", &["a BAD*"]);
    Talk(secure::connect(server.port(), &["-alpn", "h2"])).end();
    let mut client = Talk::open(server.port_of("PORT_imap"));
    let capabilities = "* CAPABILITY IMAP4 IMAP4rev1 UIDPLUS STARTTLS LOGINDISABLED";
    client.expect(&["* OK*"]).say("a CAPABILITY", &[capabilities, "a OK*"]);
    client
        .say("a LOGIN u p", &["a BAD*"])
        .say("a AUTHENTICATE PLAIN", &["a BAD*"])
        .say("a STARTTLS", &["a OK completed"]);
    let mut client = Talk::open(server.port_of("PORT_pop3"));
    client.expect(&["+OK*"]).say("CAPA", &["+OK*", "TOP", "UIDL", "STLS", "."]);
    for line in ["USER u", "AUTH", "AUTH PLAIN"] {
        client.say(line, &["-ERR*"]);
    }
    let mut client = Talk::open(server.port_of("PORT_smtp"));
    client.expect(&["220*"]).say("EHLO c", &["250-mx.test", "250-AUTH PLAIN", "250 STARTTLS"]);
    for (protocol, line, answer) in [
        ("imap", "a LOGIN u p", "a NO No"),
        ("pop3", "USER u\r\nPASS p", "+OK"),
        ("smtp", &format!("AUTH PLAIN {}", base64(b"\0u\0p")), "535 5.7.0 No"),
    ] {
        let port = server.port_of(&format!("PORT_{protocol}"));
        let mut client = Talk(secure::connect(port, &["-starttls", protocol]));
        client.say(line, &[answer]);
        let requests = who.requests();
        let request = requests.last().expect("it was asked");
        if protocol != "pop3" {
            assert_eq!(request.field("Auth-SSL"), Some("on"));
            assert_eq!(request.field("Auth-SSL-Protocol"), Some("TLSv1.3"));
            assert!(request.field("Auth-SSL-Cipher").is_some_and(|cipher| cipher.starts_with("TLS_")));
            assert_eq!(request.field("Auth-SSL-Verify"), None);
        }
    }
    let log = server.read("error.log");
    assert!(log.contains("client: 127.0.0.1 using starttls, server: 127.0.0.1:"), "{log}");
}

/// `starttls only` holds for senders that needn't log in, too.
///
/// Differs from nginx: without TLS no sender is taken
#[test]
fn senders_begin_tls() {
    let setup = setup(
        "auth_http 127.0.0.1:1; ssl_certificate site.crt; ssl_certificate_key site.key;
         server { listen 127.0.0.1:%%PORT%%; protocol smtp; smtp_auth none; starttls only; }",
    );
    certificate(setup.folder(), "site", EC);
    let server = setup.start();
    let mut client = Talk::open(server.port());
    client.expect(&["220*"]).say("MAIL FROM:<a>", &["530 5.7.0 Must issue a STARTTLS command first"]);
}

/// The server of `auth_http` learns what the client's certificate says; a client without the one that is demanded is told so.
#[test]
fn certificates() {
    let who = auth(|_| "Auth-Status: No".to_owned());
    let setup = setup(&format!(
        "auth_http 127.0.0.1:{}; auth_http_pass_client_cert on; ssl_certificate site.crt; ssl_certificate_key site.key;
         ssl_client_certificate client.crt;
         server {{ listen 127.0.0.1:%%PORT%% ssl; protocol imap; ssl_verify_client on; }}
         server {{ listen 127.0.0.1:%%PORT_pop3%%; protocol pop3; starttls on; ssl_verify_client on; }}
         server {{ listen 127.0.0.1:%%PORT_smtp%% ssl; protocol smtp; ssl_verify_client optional; }}",
        who.port
    ));
    certificate(setup.folder(), "site", EC);
    certificate(setup.folder(), "client", RSA);
    let file = |name: &str| setup.folder().path().join(name).display().to_string();
    let (site, client) = ((file("site.crt"), file("site.key")), (file("client.crt"), file("client.key")));
    let server = setup.start();
    let shown = ["-cert", &client.0, "-key", &client.1];
    let mut imap = Talk(secure::connect(server.port(), &shown));
    imap.expect(&["* OK*"]).say("a LOGIN u p", &["a NO No"]);
    let request = &who.requests()[0];
    for (field, value) in
        [("Auth-SSL-Verify", "SUCCESS"), ("Auth-SSL-Subject", "CN=client"), ("Auth-SSL-Issuer", "CN=client")]
    {
        assert_eq!(request.field(field), Some(value));
    }
    assert!(request.field("Auth-SSL-Serial").is_some_and(|serial| serial.len() >= 16));
    assert!(request.field("Auth-SSL-Fingerprint").is_some_and(|fingerprint| fingerprint.len() == 40));
    assert!(request.field("Auth-SSL-Cert").is_some_and(|pem| pem.starts_with("-----BEGIN%20CERTIFICATE-----%0A")));
    Talk(secure::connect(server.port(), &[])).expect(&["* BYE No required SSL certificate"]).end();
    let mut pop = Talk(secure::connect(server.port_of("PORT_pop3"), &["-starttls", "pop3"]));
    pop.expect(&["-ERR No required SSL certificate"]).end();
    let wrong = ["-cert", &site.0, "-key", &site.1];
    let mut smtp = Talk(secure::connect(server.port_of("PORT_smtp"), &wrong));
    smtp.expect(&["421 4.7.1 SSL certificate error"]).end();
    let mut smtp = Talk(secure::connect(server.port_of("PORT_smtp"), &[]));
    smtp.expect(&["220*"]).say(&format!("AUTH PLAIN {}", base64(b"\0u\0p")), &["535 5.7.0 No"]);
    assert_eq!(who.requests()[1].field("Auth-SSL-Verify"), Some("NONE"));
    let log = server.read("error.log");
    for message in [
        "client sent no required SSL certificate while SSL handshaking, client: 127.0.0.1, server: ",
        "client sent no required SSL certificate while in starttls state, client: 127.0.0.1 using starttls, server: ",
        "client SSL certificate verify error: (18:",
    ] {
        assert!(log.contains(message), "{message} isn't in {log}");
    }
}

/// A client that doesn't wait for the greeting is sent away, where it should.
#[test]
fn greeting_delay() {
    let server = setup(
        "auth_http 127.0.0.1:1; server { listen 127.0.0.1:%%PORT%%; protocol smtp; smtp_greeting_delay 300ms; }
         server { listen 127.0.0.1:%%PORT_none%%; protocol smtp; }",
    )
    .start();
    let mut client = Talk::open(server.port());
    client.say("HELO c", &["503 5.5.0 Improper use of SMTP command pipelining"]).end();
    Talk::open(server.port()).expect(&["220 mx.test ESMTP ready"]);
    Talk::open(server.port_of("PORT_none")).say("HELO c", &["220 mx.test ESMTP ready", "250 mx.test"]);
}

/// The port chooses the protocol; what a server lacks is told at the start.
#[test]
fn configurations() {
    for (mail, message) in [
        ("server { listen 127.0.0.1:%%PORT%%; }", "unknown mail protocol for server in "),
        ("server { listen 127.0.0.1:%%PORT%%; protocol x; }", "unknown protocol \"x\" in "),
        ("server { listen 127.0.0.1:143; }", "no \"auth_http\" is defined for server in "),
        ("auth_http x:0; server { listen 127.0.0.1:143; }", "invalid port in auth_http \"x:0\" in "),
        ("auth_http http://; server { listen 127.0.0.1:143; }", "no host in auth_http \"\" in "),
        ("imap_auth apop;", "invalid value \"apop\" in "),
        ("pop3_auth login;", "invalid value \"login\" in "),
        ("proxy_protocol v3;", "invalid value \"v3\" in "),
        (
            "auth_http 127.0.0.1; server { listen 127.0.0.1:25; starttls on; }",
            "no \"ssl_certificate\" is defined for the \"starttls\" directive in ",
        ),
        (
            "auth_http 127.0.0.1; server { listen 127.0.0.1:993 ssl; }",
            "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive in ",
        ),
        (
            "server { listen 127.0.0.1:25; } server { listen 127.0.0.1:25; }",
            "duplicate \"127.0.0.1:25\" address and port pair in ",
        ),
        ("server { listen 127.0.0.1:25 default_server; }", "invalid parameter \"default_server\" in "),
        ("server { location / { } }", "\"location\" directive is not allowed here in "),
    ] {
        let server = setup(mail).prepare();
        let out = server.command(&["-t"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains(message), "{mail}: {said}");
    }
    let good =
        "auth_http localhost/x; proxy on; server { listen 127.0.0.1:143; listen [::1]:143; } server { listen 110; }
                server { listen 127.0.0.1:587 so_keepalive=on backlog=9; timeout 1m; server_name a; }";
    let out = setup(good).prepare().command(&["-t"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
