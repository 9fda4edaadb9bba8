//! Clients and servers of mail that mean harm: what they say is refused, what they don't say isn't waited for.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use e2e::mail::{Talk, allow, allowed, auth, backend, base64, heard, imap, pop3, setup, smtp};
use e2e::{Backend, EC, certificate, secure};

/// A literal that doesn't fit isn't asked for, and one that belongs to no command isn't taken for commands.
///
/// Differs from nginx: it is refused before the client sends it
#[test]
fn literals() {
    let server =
        setup("auth_http 127.0.0.1:1; max_errors 100; server { listen 127.0.0.1:%%PORT%%; protocol imap; }").start();
    let mut client = Talk::open(server.port());
    client.expect(&["* OK*"]);
    for length in ["4096", "4294967296", "18446744073709551616", "99999999999999999999999999"] {
        client.say(&format!("a LOGIN {{{length}}}"), &["a BAD invalid command"]);
    }
    client.say("a LOGIN {4090+}\r\nb NOOP", &["a BAD invalid command"]);
    client.0.send(vec![b'x'; 4090 - "b NOOP\r\n".len()]).send("\r\n");
    client.say("a FOO {8+}\r\nb NOOP\r\n {8+}\r\nc NOOP\r\n\r\nd NOOP", &["a BAD invalid command", "d OK completed"]);
    for length in ["4294967296", "18446744073709551616"] {
        let mut client = Talk::open(server.port());
        client.expect(&["* OK*"]).say(&format!("a LOGIN {{{length}+}}"), &["a BAD invalid command"]).end();
    }
}

/// Names and passwords with NUL, carriage returns and line feeds reach nobody: in POP3 they would be commands.
///
/// Differs from nginx: names and passwords with NUL
#[test]
fn credentials_are_lines() {
    let (imaps, pops, smtps) = (imap(), pop3(), smtp());
    let ports = [imaps.port, pops.port, smtps.port];
    let who = auth(move |request| match request.field("Auth-Protocol") {
        Some("imap") => allowed(ports[0]),
        Some("pop3") => allowed(ports[1]),
        _ => allowed(ports[2]),
    });
    let server = setup(&format!(
        "auth_http 127.0.0.1:{}; max_errors 1000; proxy_smtp_auth on; smtp_auth plain login none;
         server {{ listen 127.0.0.1:%%PORT%%; protocol imap; }}
         server {{ listen 127.0.0.1:%%PORT_pop3%%; protocol pop3; }}
         server {{ listen 127.0.0.1:%%PORT_smtp%%; protocol smtp; }}",
        who.port
    ))
    .start();
    let pairs = [
        (&b"u\0v"[..], &b"p"[..]),
        (b"u", b"p\0q"),
        (b"u\r\nDELE 1", b"p"),
        (b"u", b"p\r\nDELE 1"),
        (b"u\nDELE 1", b"p"),
        (b"u", b"p\rDELE 1"),
    ];
    for (user, password) in pairs {
        let plain = base64(&[b"\0", user, b"\0", password].concat());
        let mut client = Talk::open(server.port());
        client.expect(&["* OK*"]).say(&format!("a AUTHENTICATE PLAIN {plain}"), &["a BAD invalid command"]);
        let head = format!("a LOGIN {{{}+}}\r\n", user.len());
        let middle = format!(" {{{}+}}\r\n", password.len());
        client.0.send([head.as_bytes(), user, middle.as_bytes(), password, b"\r\n"].concat());
        client.expect(&["a BAD invalid command"]).say("b NOOP", &["b OK completed"]);
        let mut client = Talk::open(server.port_of("PORT_pop3"));
        client.expect(&["+OK*"]).say(&format!("AUTH PLAIN {plain}"), &["-ERR invalid command"]);
        let (user_line, password_line) = (base64(user), base64(password));
        let asked = "+ UGFzc3dvcmQ6";
        client.say(&format!("AUTH LOGIN {user_line}"), &[asked]).say(&password_line, &["-ERR invalid command"]);
        let mut client = Talk::open(server.port_of("PORT_smtp"));
        client.expect(&["220*"]).say(&format!("AUTH PLAIN {plain}"), &["500 5.5.1 Invalid command"]);
        client.say("NOOP", &["250*"]);
    }
    let mut client = Talk::open(server.port_of("PORT_pop3"));
    client.expect(&["+OK*"]).say("USER a\0b", &["-ERR*"]).say("USER a\rDELE 1", &["-ERR*"]).say("USER a", &["+OK"]);
    client.say("PASS p\0", &["-ERR*"]);
    let mut client = Talk::open(server.port_of("PORT_smtp"));
    client.expect(&["220*"]);
    for line in ["EHLO a\0b", "MAIL FROM:<a>\rX-Field: y", "MAIL FROM:<a\0>", "HELO a\rb"] {
        client.say(line, &["500 5.5.1 Invalid command"]);
    }
    assert_eq!((who.connections(), imaps.connections(), pops.connections(), smtps.connections()), (0, 0, 0, 0));
}

/// What is sent after STARTTLS and before the handshake is nobody's.
#[test]
fn commands_before_the_handshake() {
    let setup = setup(
        "auth_http 127.0.0.1:1; ssl_certificate site.crt; ssl_certificate_key site.key; starttls on; timeout 2s;
         server { listen 127.0.0.1:%%PORT_imap%%; protocol imap; }
         server { listen 127.0.0.1:%%PORT_pop3%%; protocol pop3; }
         server { listen 127.0.0.1:%%PORT_smtp%%; protocol smtp; }",
    );
    certificate(setup.folder(), "site", EC);
    let server = setup.start();
    for (name, greeting, lines, answer) in [
        ("imap", "* OK*", "a STARTTLS\r\nb NOOP\r\nc LOGOUT", "a OK completed"),
        ("pop3", "+OK*", "STLS\r\nNOOP\r\nQUIT", "+OK"),
        ("smtp", "220*", "STARTTLS\r\nNOOP\r\nQUIT", "220 2.0.0 Start TLS"),
    ] {
        let port = server.port_of(&format!("PORT_{name}"));
        let mut client = Talk::open(port);
        client.expect(&[greeting]).say(lines, &[answer]);
        // It speaks TLS now, and understands nothing else.
        let plain = match name {
            "imap" => "d NOOP\r\n",
            _ => "NOOP\r\n",
        };
        client.0.try_send(plain);
        client.end();
        // Who does speak TLS hears nothing of the commands before.
        let inject = ["-starttls", name];
        let mut client = Talk(secure::connect(port, &inject));
        let (line, answer) = if name == "imap" { ("z NOOP", "z OK completed") } else { ("NOOP", "*") };
        client.say(line, &[answer]);
    }
    let log = server.read("error.log");
    assert_eq!(log.matches("while in starttls state, client: 127.0.0.1 using starttls, server: ").count(), 3, "{log}");
}

/// The time for a client begins with the greeting, however late that comes.
#[test]
fn late_greetings() {
    let server = setup(
        "auth_http 127.0.0.1:1; timeout 300ms;
         server { listen 127.0.0.1:%%PORT_smtp%%; protocol smtp; smtp_greeting_delay 900ms; }",
    )
    .start();
    let begun = Instant::now();
    let mut client = Talk::open(server.port_of("PORT_smtp"));
    client.expect(&["220 *"]).say("NOOP", &["250 *"]).end();
    assert!(begun.elapsed() >= Duration::from_millis(1200), "it had its time");
}

/// Lines without an end, and too many wrong ones, end the session with an answer that arrives.
///
/// Differs from nginx: what it was isn't logged
#[test]
fn limits() {
    let mut server = setup(
        "auth_http 127.0.0.1:1; max_errors 2; imap_client_buffer 256; smtp_client_buffer 256;
         server { listen 127.0.0.1:%%PORT_imap%%; protocol imap; }
         server { listen 127.0.0.1:%%PORT_pop3%%; protocol pop3; }
         server { listen 127.0.0.1:%%PORT_smtp%%; protocol smtp; }",
    )
    .start();
    for (name, invalid) in
        [("imap", "* BAD invalid command"), ("pop3", "-ERR invalid command"), ("smtp", "500 5.5.1 Invalid command")]
    {
        let port = server.port_of(&format!("PORT_{name}"));
        let mut client = Talk::open(port);
        client.hear();
        client.0.send(vec![b'x'; 5000]);
        client.expect(&[invalid]).end();
        let mut client = Talk::open(port);
        client.hear();
        client.say("\r\n\r\n", &[invalid, invalid]).end();
    }
    let log = server.read_until("error.log", "client sent too many invalid commands while in auth state");
    assert!(log.contains("client sent too long command while in auth state, client: 127.0.0.1"), "{log}");
    assert!(!log.contains("xxx"), "{log}");
}

/// Each wait for a client ends, wherever it has stopped, and however slowly it goes on.
#[test]
fn slow_clients() {
    let setup = setup(
        "auth_http 127.0.0.1:1; timeout 500ms; ssl_certificate site.crt; ssl_certificate_key site.key;
         server { listen 127.0.0.1:%%PORT_imap%%; protocol imap; starttls on; }
         server { listen 127.0.0.1:%%PORT_pop3%%; protocol pop3; }
         server { listen 127.0.0.1:%%PORT_smtp%%; protocol smtp; smtp_greeting_delay 100ms; }
         server { listen 127.0.0.1:%%PORT_proxy%% proxy_protocol; protocol imap; }
         server { listen 127.0.0.1:%%PORT_tls%% ssl; protocol imap; }",
    );
    certificate(setup.folder(), "site", EC);
    let server = setup.start();
    let begun = Instant::now();
    let mut clients = Vec::new();
    for (name, said) in [
        ("imap", ""),
        ("imap", "a LOG"),
        ("imap", "a LOGIN {4}\r\nus"),
        ("imap", "a LOGIN u {400+}\r\nus"),
        ("imap", "a AUTHENTICATE PLAIN\r\n"),
        ("imap", "a FOO {99+}\r\n"),
        ("imap", "a STARTTLS\r\n"),
        ("imap", "a STARTTLS\r\n\x16\x03\x01\x02\x00\x01"),
        ("pop3", "USER u\r\n"),
        ("pop3", "AUTH LOGIN\r\n"),
        ("smtp", ""),
        ("proxy", ""),
        ("proxy", "PROXY TCP4 192.0.2.1"),
        ("tls", ""),
        ("tls", "\x16\x03\x01"),
    ] {
        let mut client = Talk::open(server.port_of(&format!("PORT_{name}")));
        client.0.send(said);
        clients.push((said, client));
    }
    // One that sends a byte now and then is no better.
    let mut dripping = Talk::open(server.port_of("PORT_imap"));
    let drip = std::thread::spawn(move || {
        while dripping.0.try_send("x") && !dripping.0.closed_soon() {
            std::thread::sleep(Duration::from_millis(50));
            assert!(begun.elapsed() < Duration::from_secs(10), "a slow client is still served");
        }
    });
    for (said, client) in &mut clients {
        client.0.rest();
        assert!(begun.elapsed() < Duration::from_secs(5), "{said:?}");
    }
    assert!(begun.elapsed() >= Duration::from_millis(400));
    drip.join().expect("the server closes the connection");
    let log = server.read("error.log");
    assert!(log.contains("client timed out (110: Connection timed out) while in auth state, client: "), "{log}");
}

/// A client that asks and asks, and reads nothing, is read no further; its answers are there when it does.
///
/// Differs from nginx: more commands at once than the client's buffer holds
#[test]
fn clients_that_do_not_read() {
    const COUNT: usize = 200_000;
    let server =
        setup("auth_http 127.0.0.1:1; timeout 30s; server { listen 127.0.0.1:%%PORT%%; protocol imap; }").start();
    let mut client = Talk::open(server.port());
    client.expect(&["* OK*"]);
    let mut writer = client.0.stream().try_clone().expect("a socket can be copied");
    let write = std::thread::spawn(move || {
        let lines = b"a CAPABILITY\r\n".repeat(1000);
        (0..COUNT / 1000).for_each(|_| writer.write_all(&lines).expect("the server reads"));
    });
    // As much as fits into the buffers of both sockets has gone by now, or will have soon.
    std::thread::sleep(Duration::from_millis(300));
    let worker = server.children().first().copied().expect("a worker");
    let status = std::fs::read_to_string(format!("/proc/{worker}/status")).expect("it runs");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    let kib: usize = resident.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(kib < 60_000, "{kib} KiB");
    for _ in 0..COUNT {
        assert!(client.hear().starts_with("* CAPABILITY ") && client.hear() == "a OK completed");
    }
    write.join().expect("all commands were read");
}

/// Servers of `auth_http` and servers that have mail may be as bad: their words are bounded in length and time.
#[test]
fn hostile_servers() {
    let endless = |start: &'static [u8], part: &'static [u8]| {
        Backend::sockets(move |mut stream, _| {
            let _ = stream.write_all(start);
            while stream.write_all(part).is_ok() {}
        })
    };
    let dripping = Backend::sockets(|mut stream, _| {
        while stream.write_all(b"* OK").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let (line, lines) = (endless(b"* OK ", b"xxxxxxxxxxxxxxxx"), endless(b"", b"220-x\r\n"));
    let fields = endless(b"HTTP/1.0 200 OK\r\n", b"X: yyyyyyyyyyyyyyyyyyyyyyyy\r\n");
    // All of it could be the start of an answer: only the deadline ends it.
    let slow = Backend::sockets(|mut stream, _| {
        let _ = stream.read(&mut [0; 4096]);
        let mut sent = stream.write_all(b"HTTP/1.0 200 OK\r\nX: ");
        while sent.is_ok() {
            std::thread::sleep(Duration::from_millis(20));
            sent = stream.write_all(b"y");
        }
    });
    let (to_line, to_lines, to_drip) = (allow(line.port), allow(lines.port), allow(dripping.port));
    let server = setup(&format!(
        "timeout 500ms; auth_http_timeout 500ms;
         server {{ listen 127.0.0.1:%%PORT_line%%; protocol imap; auth_http 127.0.0.1:{}; }}
         server {{ listen 127.0.0.1:%%PORT_lines%%; protocol smtp; auth_http 127.0.0.1:{}; }}
         server {{ listen 127.0.0.1:%%PORT_drip%%; protocol imap; auth_http 127.0.0.1:{}; }}
         server {{ listen 127.0.0.1:%%PORT_fields%%; protocol imap; auth_http 127.0.0.1:{}; }}
         server {{ listen 127.0.0.1:%%PORT_slow%%; protocol imap; auth_http 127.0.0.1:{}; }}",
        to_line.port, to_lines.port, to_drip.port, fields.port, slow.port
    ))
    .start();
    for name in ["line", "drip", "fields", "slow"] {
        let mut client = Talk::open(server.port_of(&format!("PORT_{name}")));
        client.expect(&["* OK*"]).say("a LOGIN u p", &["* BAD internal server error"]).end();
    }
    let mut client = Talk::open(server.port_of("PORT_lines"));
    let plain = format!("AUTH PLAIN {}", base64(b"\0u\0p"));
    client.expect(&["220*"]).say(&plain, &["451 4.3.2 Internal server error"]).end();
    let log = server.read("error.log");
    assert!(log.contains("upstream sent too long response line: \"* OK xxx"), "{log}");
    let deadline = format!("auth http server 127.0.0.1:{} timed out (110: Connection timed out)", slow.port);
    assert!(log.contains(&deadline), "{log}");
}

/// Nobody is asked any longer for a client that has gone; one that has only closed its side still gets its answer.
///
/// Differs from nginx: a client that resets its connection while `auth_http` is asked
#[test]
fn clients_that_leave() {
    let (told, asked) = channel();
    let (answer, answers) = channel();
    let answers = Mutex::new(answers);
    let who = Backend::sockets(move |mut stream, _| {
        let copy = stream.try_clone().expect("a socket can be copied");
        let lines = BufReader::new(copy).lines().map_while(Result::ok);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let stays = head.iter().any(|line| line == "Auth-User: stays");
        told.send("asked").expect("the test listens");
        if stays {
            let answer: &str = answers.lock().expect("no test panics here").recv().expect("there is one");
            let _ = stream.write_all(answer.as_bytes());
        }
        let end = stream.read(&mut [0; 1]);
        let _ = told.send(if end.is_ok_and(|count| count == 0) { "closed" } else { "left waiting" });
    });
    let server = setup(&format!(
        "auth_http 127.0.0.1:{}; auth_http_timeout 60s; server {{ listen 127.0.0.1:%%PORT%%; protocol imap; }}",
        who.port
    ))
    .start();
    let mut client = Talk::open(server.port());
    client.0.send("a LOGIN leaves p\r\n");
    let within = Duration::from_secs(20);
    assert_eq!(asked.recv_timeout(within), Ok("asked"));
    // The greeting hasn't been read: the kernel resets the connection.
    drop(client);
    assert_eq!(asked.recv_timeout(within), Ok("closed"));
    let mut client = Talk::open(server.port());
    client.0.send("a LOGIN stays p\r\n").end();
    assert_eq!(asked.recv_timeout(within), Ok("asked"));
    answer.send("HTTP/1.0 200 OK\r\nAuth-Status: No\r\n\r\n").expect("somebody waits for it");
    client.expect(&["* OK*", "a NO No"]).end();
}

/// What a client has sent ahead of its login goes to the server that has its mail, and nothing of it before.
#[test]
fn commands_ahead() {
    let mails = backend("+OK\r\n", |line| format!("+OK {line}\r\n"));
    let who = allow(mails.port);
    let server =
        setup(&format!("auth_http 127.0.0.1:{}; server {{ listen 127.0.0.1:%%PORT%%; protocol pop3; }}", who.port))
            .start();
    let mut client = Talk::open(server.port());
    client.expect(&["+OK*"]).say("USER u\r\nPASS p\r\nSTAT\r\nQUIT", &["+OK", "+OK PASS p", "+OK STAT", "+OK QUIT"]);
    assert_eq!(heard(&mails), ["USER u", "PASS p", "STAT", "QUIT"]);
}
