//! `grpc_pass`: a server and a client of grpcio on both sides of it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::{EC, Folder, Server, Setup, certificate, free_port, python};

/// Python with grpcio; none if it isn't installed.
fn grpcio() -> Option<PathBuf> {
    let python = python()?;
    let known = Command::new(&python).args(["-c", "import grpc"]).stderr(Stdio::null()).status();
    if !known.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("TIDEGATE_SKIP_MISSING").is_some(), "python3-grpcio isn't installed");
        return None;
    }
    Some(python)
}

fn script(python: &Path, name: &str, port: u16) -> Command {
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("site").join(name)).arg(port.to_string());
    command.env("no_proxy", "*").stderr(Stdio::null());
    command
}

/// A program that says a word when it is ready; killed with the test.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python starts");
        let mut out = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let mut word = String::new();
        out.read_line(&mut word).expect("a pipe");
        assert!(!word.is_empty(), "the program has ended");
        Running { child, out }
    }

    /// What it prints up to its end, once its input has ended.
    fn end(mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        let lines = (&mut self.out).lines().map(|line| line.expect("text")).collect();
        assert!(self.child.wait().expect("it was started").success(), "{lines:?}");
        lines
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server of grpcio; with a folder, over TLS with its certificate `site`.
fn grpc_server(python: &Path, port: u16, tls: Option<&Folder>) -> Running {
    let mut command = script(python, "grpc_server.py", port);
    if let Some(folder) = tls {
        command.args(["site.crt", "site.key"]).current_dir(folder.path());
    }
    Running::start(command)
}

/// What the client prints.
fn client(python: &Path, server: &Server, tls: bool, arguments: &[&str]) -> String {
    let mut command = script(python, "grpc_client.py", server.port());
    if tls {
        command.env("CA", server.folder().path().join("site.crt"));
    }
    let out = command.args(arguments).stdin(Stdio::null()).output().expect("python starts");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}{}", server.read("error.log"));
    text
}

const CALLS: &str = "unary cba w ipv4
large True
fail FAILED_PRECONDITION no: word asked
nothing UNIMPLEMENTED
down 3000 2999
up 2000000
both 100 <99>
flood True
first ['enough after one']
";

#[test]
fn all_kinds_of_calls() {
    let Some(python) = grpcio() else { return };
    let (port, _reserved) = free_port();
    let server = Setup::http(&format!(
        "upstream u {{ server 127.0.0.1:{port}; keepalive 4; }}
        server {{ listen 127.0.0.1:%%PORT%%; http2 on; client_max_body_size 0; location / {{ grpc_pass u; }} }}"
    ))
    .start();
    let _backend = grpc_server(&python, port, None);
    assert_eq!(client(&python, &server, false, &["calls"]), CALLS);
}

#[test]
fn all_kinds_of_calls_over_tls() {
    let Some(python) = grpcio() else { return };
    let (port, _reserved) = free_port();
    let setup = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%% ssl; http2 on; client_max_body_size 0;
            ssl_certificate %%DIR%%/site.crt; ssl_certificate_key %%DIR%%/site.key;
            grpc_ssl_verify on; grpc_ssl_trusted_certificate %%DIR%%/site.crt; grpc_ssl_name site; grpc_ssl_server_name on;
            location / {{ grpc_pass grpcs://127.0.0.1:{port}; }} }}"
    ));
    certificate(setup.folder(), "site", EC);
    let server = setup.start();
    let _backend = grpc_server(&python, port, Some(server.folder()));
    assert_eq!(client(&python, &server, true, &["calls"]), CALLS);
}

#[test]
fn a_call_that_is_given_up_is_over_at_the_server_too() {
    let Some(python) = grpcio() else { return };
    let (port, _reserved) = free_port();
    let mut server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; http2 on; location / {{ grpc_pass 127.0.0.1:{port}; }} }}"
    ))
    .start();
    let _backend = grpc_server(&python, port, None);
    let note = server.folder().path().join("note");
    assert_eq!(client(&python, &server, false, &["cancel", &note.to_string_lossy()]), "cancel CANCELLED\n");
    server.wait(|_| std::fs::read(&note).is_ok_and(|text| text == b"over"), "the call is over");
}

/// Differs from nginx: a message that is there as a whole is kept while it is sent
#[test]
fn servers_that_are_killed_and_started_again() {
    let Some(python) = grpcio() else { return };
    let ((one, _reserved), (two, _reserved_too)) = (free_port(), free_port());
    let server = Setup::http(&format!(
        "upstream u {{ server 127.0.0.1:{one} max_fails=0; server 127.0.0.1:{two} max_fails=0; keepalive 4; }}
        server {{ listen 127.0.0.1:%%PORT%%; http2 on; keepalive_requests 1000000;
            location / {{ grpc_pass u; grpc_next_upstream error timeout invalid_header non_idempotent; }} }}"
    ))
    .start();
    let mut backends = [one, two].map(|port| Some(grpc_server(&python, port, None)));
    let mut command = script(&python, "grpc_client.py", server.port());
    command.arg("load");
    let mut load = Running::start(command);
    let begun = Instant::now();
    for _ in 0..2 {
        for (backend, port) in backends.iter_mut().zip([one, two]) {
            *backend = None;
            // Calls meet its absence, and then its return.
            std::thread::sleep(Duration::from_millis(300));
            *backend = Some(grpc_server(&python, port, None));
            std::thread::sleep(Duration::from_millis(1200));
        }
    }
    load.child.stdin.as_mut().expect("it is a pipe").flush().expect("it reads");
    let outcome = load.end();
    // An answer of which the client has the head can only be broken off: at most one for each thread and kill.
    let (begun_answers, rest): (Vec<_>, Vec<_>) =
        outcome.iter().partition(|line| line.starts_with("INTERNAL Received RST_STREAM"));
    let broken: u32 = begun_answers.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok()).sum();
    let [line] = &rest[..] else { panic!("{outcome:?} {}", server.read("error.log")) };
    assert!(broken <= 16, "{outcome:?}");
    let calls: u32 = line.strip_prefix("OK ").expect("all are good").parse().expect("a number");
    assert!(u64::from(calls) > begun.elapsed().as_secs() * 20, "{calls} calls");
}

/// Not in nginx: `health_check` and `match`
#[test]
fn servers_say_how_they_are() {
    let Some(python) = grpcio() else { return };
    let (port, _kept) = free_port();
    let _server = grpc_server(&python, port, None);
    let checks = [
        ("whole", "", true),
        ("named", "grpc_service=good", true),
        ("bad", "grpc_service=bad", false),
        ("unknown", "grpc_service=unknown", false),
        ("expected", "grpc_service=unknown grpc_status=5", true),
        ("another", "grpc_service=unknown grpc_status=12", false),
    ];
    let upstreams: String = checks
        .iter()
        .map(|(name, ..)| format!("upstream {name} {{ zone {name} 64k; server 127.0.0.1:{port}; }} "))
        .collect();
    let locations: String = checks
        .iter()
        .map(|(name, words, _)| {
            format!(
                "location /{name}/ {{ grpc_pass {name}; grpc_set_header X-Check yes;
                 health_check mandatory interval=50ms keepalive_time=10s type=grpc {words}; }} "
            )
        })
        .collect();
    let mut server = Setup::http(&format!("{upstreams} server {{ listen 127.0.0.1:%%PORT%%; http2 on; {locations} }}"))
        .main("error_log error.log warn;")
        .start();
    for (name, _, healthy) in checks {
        // Without a message it is no call of this server's; but it gets there.
        let status = |server: &Server| server.get(&format!("/{name}/")).status;
        match healthy {
            true => server.wait(|server| status(server) != 502, "a server that is healthy"),
            false => {
                let why = if name == "bad" { "checking serving status" } else { "checking gRPC status" };
                let text = format!(
                    "peer is unhealthy while {why}, health check of peer 127.0.0.1:{port} in upstream \"{name}\""
                );
                server.wait(|server| server.read("error.log").contains(&text), "a server that isn't");
                assert_eq!(status(&server), 502, "{name}");
            }
        }
    }
}

/// Not in nginx: `health_check` and `match`
#[test]
fn faults_of_checks() {
    for (directive, expect) in [
        ("grpc_pass u; health_check type=grpc mandatory;", "invalid parameter \"mandatory\""),
        ("grpc_pass u; health_check grpc_status=1;", "invalid parameter \"grpc_status=1\""),
        ("grpc_pass u; health_check type=http;", "invalid parameter \"type=http\""),
        ("grpc_pass u; health_check uri=/x type=grpc;", "\"type=grpc\" can't be used with \"uri\" or \"match\""),
        ("proxy_pass http://u; health_check type=grpc;", "\"type=grpc\" needs a location with \"grpc_pass\""),
        ("grpc_pass u; health_check interval=1s type=grpc grpc_service=a.B grpc_status=12;", "test is successful"),
    ] {
        let text = format!(
            "upstream u {{ zone u 64k; server 127.0.0.1:1; }}
             server {{ listen 127.0.0.1:%%PORT%%; location / {{ {directive} }} }}"
        );
        let out = Setup::http(&text).prepare().command(&["-t"]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains(expect), "{directive}: {said}");
    }
}

#[test]
fn words_that_are_refused() {
    for word in ["updating", "not_found", "invalid_response"] {
        let text = format!("server {{ listen 127.0.0.1:%%PORT%%; location / {{ grpc_next_upstream {word}; }} }}");
        let out = Setup::http(&text).prepare().command(&["-t"]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains(&format!("invalid value \"{word}\"")), "{said}");
    }
}
