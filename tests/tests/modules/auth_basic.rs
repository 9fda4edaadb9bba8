//! `auth_basic`, `auth_basic_user_file`, `auth_delay`, and `satisfy` over addresses and passwords.

use std::time::{Duration, Instant};

use e2e::load::cpu_ms;
use e2e::{Response, Server, Setup, basic, run};
use rustix::net::sockopt::set_socket_linger;

/// Passwords in each form; all of them are `password`.
const FORMS: [(&str, &str); 12] = [
    ("des", "sa3tHJ3/KuYvI"),
    ("md5", "$1$abcdefgh$G//4keteveJp0qb8z2DxG/"),
    ("apr1", "$apr1$salt$Xxd1irWT9ycqoYxGFn4cb."),
    ("sha256", "$5$saltsalt$gOjOtoMpVhru2uyjeJSEc/JaLQWOXMNmlOnj6T4AtC."),
    (
        "sha512",
        "$6$rounds=5000$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/",
    ),
    ("bcrypt", "$2b$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu"),
    ("yescrypt", "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$tnSYvahCwPBHKZUspmcxMfb0.WiB9W.zEaKlOBL35rC"),
    ("plain", "{PLAIN}password"),
    ("sha", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="),
    ("ssha", "{SSHA}yI6cZwQadOA1e+/f+T+H3eCQQhRzYWx0"),
    ("comment", "{PLAIN}password:of nobody in particular"),
    ("line", "{PLAIN}password\r"),
];

fn passwords() -> String {
    let lines = FORMS.map(|(user, stored)| format!("{user}:{stored}\n"));
    format!("# users\n{}broken:$1$\nunknown:$9$x\nlast:{{PLAIN}}password", lines.concat())
}

/// A password whose check takes so many rounds.
fn slow(rounds: usize) -> String {
    FORMS[4].1.replace("rounds=5000", &format!("rounds={rounds}")).replacen("$6$", "user:$6$", 1)
}

fn ask(server: &Server, target: &str, user: &str, password: &str) -> Response {
    server.get_with(target, &basic(user, password))
}

#[test]
fn every_form_of_passwords() {
    let mut server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; auth_basic 'the realm';
            auth_basic_user_file passwords; }",
    )
    .file("passwords", passwords())
    .file("f", "inside")
    .start();
    for (user, _) in FORMS.iter().chain(&[("last", "")]) {
        assert_eq!(ask(&server, "/f", user, "password").text(), "inside", "{user}");
        assert_eq!(ask(&server, "/f", user, "Password").status, 401, "{user}");
    }
    for (user, password) in [("broken", "x"), ("unknown", "x"), ("nobody", "password"), ("", "password"), ("plain", "")]
    {
        assert_eq!(ask(&server, "/f", user, password).status, 401, "{user}");
    }
    let refused = server.get("/f");
    assert_eq!((refused.status, refused.all("WWW-Authenticate")), (401, vec!["Basic realm=\"the realm\""]));
    assert!(refused.text().contains("401 Authorization Required"), "{}", refused.text());
    for line in [
        "user \"plain\": password mismatch, client: 127.0.0.1",
        "user \"unknown\": password mismatch",
        "user \"nobody\" was not found in \"",
        "/passwords\", client: 127.0.0.1",
    ] {
        server.read_until("error.log", line);
    }
    assert!(!server.read("error.log").contains("Password"), "what was given isn't logged");
}

#[test]
fn variables_and_files() {
    let mut server = Setup::http(
        "log_format users '<$remote_user>';
        server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; auth_basic $arg_realm; auth_basic_user_file $arg_file;
            location /off { auth_basic off; return 200 free; }
            location /inner { return 200 $remote_user; }
            location /logged { access_log users.log users; return 200; }
            location /except { limit_except GET { auth_basic x; auth_basic_user_file passwords; } try_files /f =404; }
            location / { try_files /f =404; }
        }
        server { listen 127.0.0.1:%%PORT_b%%; root %%DIR%%; auth_basic x; }",
    )
    .file("passwords", "user:{PLAIN}password\n")
    .file("f", "inside")
    .public("folder")
    .start();
    assert_eq!(ask(&server, "/?realm=a&file=passwords", "user", "password").text(), "inside");
    assert_eq!(server.get("/?realm=a+b&file=passwords").field("WWW-Authenticate"), Some("Basic realm=\"a+b\""));
    assert_eq!(server.get("/?file=passwords").field("WWW-Authenticate"), Some("Basic realm=\"\""));
    assert_eq!(server.get("/?realm=off&file=passwords").text(), "inside");
    assert_eq!(server.get("/off").text(), "free");
    for (target, status) in [("/?realm=a&file=nothing", 403), ("/?realm=a&file=folder", 500), ("/?realm=a", 500)] {
        assert_eq!(ask(&server, target, "user", "password").status, status, "{target}");
    }
    assert_eq!(server.get("/except?realm=off").text(), "inside");
    let posted = |more: &str| server.raw(format!("POST /except?realm=off HTTP/1.0\r\n{more}\r\n")).status;
    assert_eq!((posted(""), posted(&basic("user", "password"))), (401, 404), "try_files isn't inherited");
    for user in ["user", ""] {
        ask(&server, "/logged", user, "password");
    }
    server.read_until("users.log", "<user>\n<->\n");
    let mut open = e2e::Connection::open(server.port_of("PORT_b"));
    assert_eq!(open.get("/f", "").text(), "inside", "without a file everybody may enter");
    let log = server.read("error.log");
    assert!(log.contains("open() \"") && log.contains("/nothing\" failed (2: No such file or directory)"), "{log}");
}

/// Differs from nginx: it goes out as `%0D`
#[test]
fn a_realm_adds_no_field() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; auth_basic $uri; auth_basic_user_file passwords; }",
    )
    .file("passwords", "")
    .start();
    let response = server.get("/%0d%0aX-Inj:%20yes");
    assert_eq!((response.status, response.field("X-Inj")), (401, None), "{}", response.head);
    assert_eq!(response.field("WWW-Authenticate"), Some("Basic realm=\"/%0D%0AX-Inj: yes\""));
}

#[test]
fn a_change_of_the_file_holds_at_once() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; auth_basic x; auth_basic_user_file passwords;
            open_file_cache max=10; open_file_cache_valid 1h; }",
    )
    .file("passwords", "user:{PLAIN}one\n")
    .file("f", "inside")
    .start();
    assert_eq!((ask(&server, "/f", "user", "one").status, ask(&server, "/f", "user", "two").status), (200, 401));
    server.folder().write("passwords", "user:{PLAIN}two\n");
    assert_eq!((ask(&server, "/f", "user", "one").status, ask(&server, "/f", "user", "two").status), (401, 200));
}

#[test]
fn satisfy() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; auth_basic x; auth_basic_user_file passwords; satisfy any;
            location /address { allow 127.0.0.1; deny all; try_files /f =404; }
            location /password { deny all; try_files /f =404; }
            location /all { satisfy all; deny all; try_files /f =404; }
            location /both { satisfy all; allow 127.0.0.1; deny all; try_files /f =404; }
            location /neither { auth_basic off; deny all; try_files /f =404; }
        }",
    )
    .file("passwords", "user:{PLAIN}password\nslow:sa3tHJ3/KuYvI\n")
    .file("f", "inside")
    .start();
    for (target, user, password, status) in [
        ("/address", "user", "wrong", 200),
        ("/password", "user", "password", 200),
        ("/password", "slow", "password", 200),
        ("/password", "user", "wrong", 401),
        ("/password", "slow", "wrong", 401),
        ("/all", "user", "password", 403),
        ("/both", "user", "password", 200),
        ("/both", "user", "wrong", 401),
        ("/neither", "user", "password", 403),
    ] {
        let response = ask(&server, target, user, password);
        assert_eq!(response.status, status, "{target} {user} {password}");
        assert_eq!(response.field("WWW-Authenticate").is_some(), status == 401, "{target} {user} {password}");
    }
}

#[test]
fn a_refusal_is_delayed() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; auth_basic x; auth_basic_user_file passwords;
            auth_delay 300ms; error_log %%DIR%%/info.log info;
            location /denied { deny all; try_files /f =404; } }",
    )
    .file("passwords", "user:{PLAIN}password\n")
    .file("f", "inside")
    .start();
    let timed = |target: &str, password: &str| {
        let begin = Instant::now();
        let status = ask(&server, target, "user", password).status;
        (status, begin.elapsed() >= Duration::from_millis(300))
    };
    assert_eq!(timed("/f", "wrong"), (401, true));
    // A client that leaves meanwhile costs nothing but its request.
    server.connect().send(format!("GET /f HTTP/1.1\r\nHost: a\r\n{}\r\n", basic("user", "wrong")));
    assert_eq!(timed("/f", "wrong"), (401, true));
    let quick = (0..20).any(|_| timed("/f", "password") == (200, false) && timed("/denied", "wrong") == (403, false));
    assert!(quick, "what isn't refused for its credentials isn't delayed");
    assert!(server.read("info.log").contains("delaying unauthorized request"));
}

#[test]
fn the_delay_hides_how_long_a_check_takes() {
    // As many rounds as take a good part of the delay, and not all of it on a machine that has other work too.
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; auth_basic x; auth_basic_user_file passwords;
            auth_delay 4s; }",
    )
    .file("passwords", slow(2_000_000))
    .start();
    let timed = |user: &str| {
        let begin = Instant::now();
        assert_eq!(ask(&server, "/", user, "x").status, 401);
        begin.elapsed()
    };
    // One after the other: in a worker that stops for the check they would wait for each other.
    let (known, unknown) = (timed("user"), timed("other"));
    let apart = known.abs_diff(unknown);
    assert!(apart < Duration::from_millis(300), "{known:?} {unknown:?}");
}

/// Differs from nginx: checked in threads of their own
#[test]
fn a_slow_password_does_not_stop_the_worker() {
    // A check that takes seconds.
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; location /p { auth_basic x; auth_basic_user_file passwords; } }",
    )
    .main("worker_processes 1;")
    .file("passwords", slow(5_000_000))
    .file("f", "free")
    .start();
    let mut slow = server.connect();
    slow.send(format!("GET /p HTTP/1.1\r\nHost: a\r\n{}\r\n", basic("user", "x")));
    for _ in 0..20 {
        assert_eq!(server.get("/f").text(), "free");
    }
    // Nothing of the answer has come meanwhile.
    slow.stream().set_nonblocking(true).expect("a socket");
    let nothing = slow.stream().peek(&mut [0]).map_err(|error| error.kind());
    assert_eq!(nothing, Err(std::io::ErrorKind::WouldBlock), "the answer was there before the others");
    slow.stream().set_nonblocking(false).expect("a socket");
    assert_eq!(slow.response().status, 401);
}

#[test]
fn a_client_that_has_closed_its_side_gets_its_answer() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; auth_basic x; auth_basic_user_file passwords; }",
    )
    .file("passwords", slow(400_000))
    .start();
    let mut client = server.connect();
    client.send(format!("GET /f HTTP/1.1\r\nHost: a\r\n{}\r\n", basic("user", "x")));
    // Long before the check is done.
    client.stream().shutdown(std::net::Shutdown::Write).expect("a socket");
    assert_eq!(client.response().status, 401);
}

/// Differs from nginx: checked in threads of their own
#[test]
fn passwords_of_clients_that_have_gone_make_nobody_wait() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; auth_basic x; auth_basic_user_file passwords; }",
    )
    .main("worker_processes 1;")
    .file("passwords", slow(50_000))
    .start();
    let timed = || {
        let begin = Instant::now();
        assert_eq!(ask(&server, "/f", "user", "x").status, 401);
        begin.elapsed()
    };
    let one = timed();
    let mut gone: Vec<_> = (0..40).map(|_| server.connect()).collect();
    gone.iter_mut().for_each(|client| {
        client.send(format!("GET /f HTTP/1.1\r\nHost: a\r\n{}\r\n", basic("user", "x")));
    });
    drop(gone);
    // Two threads would be busy with all of them for twenty times as long.
    let after = timed();
    assert!(after < 10 * one, "{one:?} {after:?}");
}

/// Differs from nginx: checked in threads of their own
#[test]
fn passwords_of_clients_that_have_reset_their_connections_are_not_checked() {
    let mut server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; auth_basic x; auth_basic_user_file passwords;
            location /status { auth_basic off; stub_status; } }",
    )
    .main("worker_processes 1;")
    .file("passwords", slow(400_000))
    .start();
    let worker = server.children()[0];
    let spent = |server: &Server| {
        let before = cpu_ms(worker);
        assert_eq!(ask(server, "/f", "user", "x").status, 401);
        cpu_ms(worker) - before
    };
    let one = spent(&server);
    let before = cpu_ms(worker);
    let mut clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| {
        client.send(format!("GET /f HTTP/1.1\r\nHost: a\r\n{}\r\n", basic("user", "x")));
    });
    server.wait(|s| s.get("/status").text().contains("Writing: 41 "), "all requests");
    for client in clients {
        set_socket_linger(client.stream(), Some(Duration::ZERO)).expect("a socket");
    }
    server.wait(|s| s.get("/status").text().contains("Writing: 1 "), "their end");
    // Behind all of them; those that the two threads had begun with come to their end.
    spent(&server);
    let all = cpu_ms(worker) - before;
    assert!(all < 10 * one, "one check {one} ms, all of them {all} ms");
}

#[test]
fn tools_of_others() {
    let Some(made) = run("openssl", &["passwd", "-6", "pass word"]) else { return };
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; auth_basic x; auth_basic_user_file passwords; }",
    )
    .file("passwords", format!("user:{made}"))
    .file("f", "inside")
    .start();
    let url = server.url("/f");
    assert_eq!(e2e::curl(&["-s", "-u", "user:pass word", &url]), b"inside");
    assert_eq!(e2e::curl(&["-s", "-o", "/dev/null", "-w", "%{http_code}", "-u", "user:word", &url]), b"401");
}
